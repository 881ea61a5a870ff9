//! What a workload is to be like, checked.

use crate::checked::{bad, count_of, currency, decimals};
use crate::cli::{ClientIdsArg, GenerateArgs, TransactionIdsArg};
use crate::exit::Failure;
use bursar_core::{Amount, Currencies, Currency, Decimals};

/// Percentages have three decimals.
const PERCENT_DECIMALS: Decimals = match Decimals::new(3) {
    Some(three) => three,
    None => Decimals::FOUR,
};
/// 32 bytes per entry and two lists: at the most a gigabyte.
const WINDOW_LEN_MAX: u64 = 1 << 24;
/// Client ranks and transaction numbers stay below half of the numbers; the other half names what is not.
const COUNT_MAX: u64 = 1 << 62;

/// A workload. The same plan gives the same bytes.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// How many rows, the header not counted.
    pub(crate) rows: u64,
    /// How many clients, at least 1.
    pub(crate) clients: u64,
    /// What everything follows from.
    pub(crate) seed: u64,
    /// The share of the rows that goes to the hottest 1% of the clients.
    pub(crate) skew: Share,
    /// The shares of the sorts of rows.
    pub(crate) shares: Shares,
    /// How many recent deposits are remembered, at least 1.
    pub(crate) window_len: usize,
    /// The form of transaction ids.
    pub(crate) ids: TransactionIdsArg,
    /// The form of client ids.
    pub(crate) client_ids: ClientIdsArg,
    /// Decimals and largest amount where there is no column `currency`.
    pub(crate) unnamed: (Decimals, Amount),
    /// Currencies with their largest amounts; if empty, there is no column `currency`.
    pub(crate) currencies: Vec<(Currency, Amount)>,
}

impl Plan {
    /// Checks the flags of `bursar generate`.
    pub(crate) fn check(args: &GenerateArgs) -> Result<Self, Failure> {
        let decimals = decimals("--decimals", &args.decimals)?;
        let named = args.currencies.iter().map(|text| currency(text, Some(decimals))).collect::<Result<Vec<_>, _>>()?;
        if !named.is_empty() {
            Currencies::named(named.clone()).map_err(|error| bad("--currency", &args.currencies.join(" "), error))?;
        }
        let with_max = |currency: Currency| Ok((amount_max(&args.amounts, currency.decimals())?, currency));
        let currencies = named.into_iter().map(with_max).collect::<Result<Vec<_>, Failure>>()?;
        // Where all amounts are in named currencies, the flag needs to fit only those.
        let unnamed_max = if currencies.is_empty() { amount_max(&args.amounts, decimals)? } else { Amount::ZERO };
        Ok(Self {
            rows: at_most("--rows", &args.rows, 0, COUNT_MAX)?,
            clients: at_most("--clients", &args.clients, 1, COUNT_MAX)?,
            seed: count_of("--seed", &args.seed, 0)?,
            skew: Share::parse("--skew", &args.skew)?,
            shares: Shares::check(args)?,
            window_len: at_most("--dispute-window", &args.dispute_window, 1, WINDOW_LEN_MAX)? as usize,
            ids: args.ids,
            client_ids: args.client_ids,
            unnamed: (decimals, unnamed_max),
            currencies: currencies.into_iter().map(|(amount, currency)| (currency, amount)).collect(),
        })
    }
}

fn at_most(flag: &str, text: &str, min: u64, max: u64) -> Result<u64, Failure> {
    let count = count_of(flag, text, min)?;
    if count > max { Err(bad(flag, text, format_args!("it must be at most {max}"))) } else { Ok(count) }
}

fn amount_max(text: &str, decimals: Decimals) -> Result<Amount, Failure> {
    let amount = Amount::parse(text.as_bytes(), decimals).map_err(|error| bad("--amounts", text, error.kind))?;
    if amount.is_positive() { Ok(amount) } else { Err(bad("--amounts", text, "it must be above zero")) }
}

/// A share of the rows, in parts of 100 000: a percentage with three decimals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Share(u32);

impl Share {
    /// How many parts are all of it.
    pub(crate) const WHOLE: u64 = 100_000;

    /// The parts, at most [`Share::WHOLE`].
    pub(crate) const fn parts(self) -> u32 {
        self.0
    }

    /// Reads a percentage with up to three decimals.
    pub(crate) fn parse(flag: &str, text: &str) -> Result<Self, Failure> {
        let why = "a share is a percentage from 0 to 100 with up to 3 decimals";
        let steps = Amount::parse(text.as_bytes(), PERCENT_DECIMALS).ok().map(Amount::steps);
        let parts = steps.and_then(|steps| u32::try_from(steps).ok()).filter(|&parts| u64::from(parts) <= Self::WHOLE);
        parts.map(Self).ok_or_else(|| bad(flag, text, why))
    }
}

/// The sorts of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sort {
    /// Money in.
    Deposit,
    /// Money out.
    Withdrawal,
    /// Of a recent deposit that is not in dispute.
    Dispute,
    /// Of an open dispute.
    Resolve,
    /// Of an open dispute.
    Chargeback,
    /// A recent deposit once more.
    Repeat,
    /// To be refused.
    Bad,
}

impl Sort {
    /// All of them.
    pub(crate) const ALL: [Self; 7] =
        [Self::Deposit, Self::Withdrawal, Self::Dispute, Self::Resolve, Self::Chargeback, Self::Repeat, Self::Bad];

    /// For a summary.
    pub(crate) const fn plural(self) -> &'static str {
        match self {
            Self::Deposit => "deposits",
            Self::Withdrawal => "withdrawals",
            Self::Dispute => "disputes",
            Self::Resolve => "resolves",
            Self::Chargeback => "chargebacks",
            Self::Repeat => "repeats",
            Self::Bad => "bad rows",
        }
    }
}

/// The shares of all sorts of rows; what the flags leave over are deposits.
#[derive(Clone, Debug)]
pub(crate) struct Shares {
    /// Each sort with the end of its stretch of `0..Share::WHOLE`, in rising order. Deposits come last.
    ends: [(u64, Sort); 6],
}

impl Shares {
    fn check(args: &GenerateArgs) -> Result<Self, Failure> {
        let flags = [
            ("--withdrawals", &args.withdrawals, Sort::Withdrawal),
            ("--disputes", &args.disputes, Sort::Dispute),
            ("--resolves", &args.resolves, Sort::Resolve),
            ("--chargebacks", &args.chargebacks, Sort::Chargeback),
            ("--repeats", &args.repeats, Sort::Repeat),
            ("--bad", &args.bad, Sort::Bad),
        ];
        let mut ends = [(0, Sort::Deposit); 6];
        let mut end = 0;
        for (slot, (flag, text, sort)) in ends.iter_mut().zip(flags) {
            end += u64::from(Share::parse(flag, text)?.parts());
            if end > Share::WHOLE {
                return Err(bad(flag, text, "together with the shares before it this is more than 100%"));
            }
            *slot = (end, sort);
        }
        let [_, (disputes_end, _), _, (closed_end, _), _, _] = ends;
        let disputes = disputes_end - ends[0].0;
        if closed_end - disputes_end > disputes {
            return Err(bad("--disputes", &args.disputes, "every resolve and every chargeback needs a dispute")
                .with_hint("Let --disputes be at least --resolves and --chargebacks together."));
        }
        Ok(Self { ends })
    }

    /// The sort of row at a point of `0..Share::WHOLE`.
    pub(crate) fn sort_at(&self, point: u64) -> Sort {
        self.ends.iter().find(|(end, _)| point < *end).map_or(Sort::Deposit, |(_, sort)| *sort)
    }
}
