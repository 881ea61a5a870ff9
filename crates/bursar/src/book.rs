//! The book that a command works on: the ledger in the directory of `--data`, or the one behind `--server`.
//!
//! ```text
//!  commands ──► Book ──► Directory: bursar_engine::Ledger
//!                   └──► Server:    bursar_client, over HTTP
//! ```
//!
//! Commands are written once, over the values of the rules; where they come from makes no difference to what is printed.
//! What only one of the two has (files, a lock, sources) is asked of that one by its own name.

pub(crate) mod remote;

use crate::checked::AsOf;
use crate::cli::Global;
use crate::config;
use crate::engine_failure::rejected;
use crate::exit::{Failure, FailureKind};
use crate::ledger_dir::with_ledger;
use bursar_client::{PendingList, Waits};
use bursar_core::commit::{Minimum, Outcome, Receipt, Settlement, Terms};
use bursar_core::{
    Account, Accounts, Amount, Currencies, CurrencyIndex, CustomerId, CustomerState, EventId, EventRef, EventStatus,
    Hash, Head, Request, RequestKind, TransactionId, TransactionState,
};
use bursar_engine::store::{ChainEntry, ReadRange};
use bursar_engine::{Ledger, PendingEvent, SubmitError};
use bursar_rails::settings::RailConfig;
use remote::Remote;

/// How many events are read at once.
const PAGE_EVENTS: usize = 4096;

/// A ledger, wherever it is.
pub(crate) enum Book<'a> {
    /// In a directory that this process has locked.
    Directory(&'a Ledger),
    /// Behind a server.
    Server(Remote),
}

/// Opens the book, lets a command work on it, and closes it whatever became of that.
pub(crate) fn with_book<T>(global: &Global, work: impl FnOnce(&Book<'_>) -> Result<T, Failure>) -> Result<T, Failure> {
    match global.remote()? {
        Some(remote) => work(&Book::Server(remote)),
        None => with_ledger(global, |ledger| work(&Book::Directory(ledger))),
    }
}

/// The head of a customer's chain.
pub(crate) struct HeadView {
    pub(crate) locked: bool,
    /// The newest event that is closed.
    pub(crate) seq: u64,
    pub(crate) link: Hash,
    pub(crate) accounts: Vec<(CurrencyIndex, Account)>,
    /// The oldest open event, and the currency that it is about.
    pub(crate) open: Option<(EventId, CurrencyIndex)>,
}

/// An event as it is shown: of its account, the part that it is about.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) seq: u64,
    pub(crate) status: &'static str,
    pub(crate) time_ms: u64,
    pub(crate) kind: RequestKind,
    pub(crate) transaction: Option<TransactionId>,
    pub(crate) currency: CurrencyIndex,
    pub(crate) amount: Amount,
    /// The account after it, and whether the customer is locked then; `None` if it was aborted.
    pub(crate) effect: Option<(Account, bool)>,
    /// All accounts after it, where the book tells them with each event.
    pub(crate) accounts: Option<Accounts>,
    pub(crate) id: EventId,
    pub(crate) hash: Hash,
    /// Why it was aborted, or what an operator said who settled it.
    pub(crate) reason: Option<String>,
}

/// A transaction as it stands, with the events that touched it.
pub(crate) struct TransactionView {
    pub(crate) customer: CustomerId,
    pub(crate) kind: String,
    pub(crate) currency: CurrencyIndex,
    pub(crate) amount: Amount,
    /// None while its first event is open: nothing of it is in effect.
    pub(crate) state: Option<String>,
    pub(crate) events: Vec<Entry>,
}

/// A request that is in effect.
pub(crate) struct InEffect {
    /// It took effect before; the receipt is that of then.
    pub(crate) before: bool,
    pub(crate) receipt: Receipt,
}

/// What is set beside a request.
#[derive(Default)]
pub(crate) struct Under {
    /// The text of its idempotency key.
    pub(crate) key: Option<String>,
    pub(crate) expected_seq: Option<u64>,
    pub(crate) minimum_available: Option<Minimum>,
}

/// What would come of a request.
pub(crate) enum Outlook {
    WouldApply(Would),
    /// It took effect before; the receipt is that of then.
    InEffect(Receipt),
}

/// The event that would be made. Its hash, and so its id, depend on when that is.
pub(crate) struct Would {
    pub(crate) customer: CustomerId,
    pub(crate) seq: u64,
    pub(crate) currency: CurrencyIndex,
    pub(crate) account: Account,
    pub(crate) locked: bool,
}

/// A customer in the past.
pub(crate) enum Then {
    Was(CustomerState),
    /// It had no account yet.
    NoAccount,
    /// It has none now either.
    Unknown,
}

/// An event that waits for its rail.
pub(crate) struct Waiting {
    pub(crate) event: EventRef,
    pub(crate) kind: RequestKind,
    pub(crate) transaction: Option<TransactionId>,
    pub(crate) currency: CurrencyIndex,
    pub(crate) amount: Amount,
    pub(crate) rail: String,
    pub(crate) since_ms: u64,
    pub(crate) deadline_ms: Option<u64>,
    /// How the rail is asked, where somebody asks it: a process that has the directory to itself calls none.
    pub(crate) waits: Option<Waits>,
}

/// An event that is closed as an operator wanted it.
pub(crate) struct SettledView {
    pub(crate) event: EventRef,
    pub(crate) status: &'static str,
    pub(crate) reason: String,
}

/// What a rail is called that no settings name.
fn not_named(number: u8) -> String {
    format!("{number} (not in {})", config::FILE_NAME)
}

/// Events in order, read as they are taken.
pub(crate) type Entries<'a> = Box<dyn Iterator<Item = Result<Entry, Failure>> + 'a>;

impl Book<'_> {
    /// The ledger's currencies.
    pub(crate) fn currencies(&self) -> &Currencies {
        match self {
            Self::Directory(ledger) => &ledger.config().currencies,
            Self::Server(remote) => remote.currencies(),
        }
    }

    /// The head of a customer's chain; `None` for one without a chain.
    pub(crate) fn customer(&self, customer: CustomerId) -> Result<Option<HeadView>, Failure> {
        match self {
            Self::Directory(ledger) => Ok(ledger.customer(customer)?.map(|head| head_view(&head))),
            Self::Server(remote) => remote.customer(customer),
        }
    }

    /// A customer's state in the past.
    pub(crate) fn customer_as_of(&self, customer: CustomerId, at: AsOf) -> Result<Then, Failure> {
        match self {
            Self::Directory(ledger) => Ok(match ledger.customer_as_of(customer, crate::commands::as_of(at))? {
                Some(state) => Then::Was(state),
                None if ledger.customer(customer)?.is_some() => Then::NoAccount,
                None => Then::Unknown,
            }),
            Self::Server(remote) => remote.customer_as_of(customer, at),
        }
    }

    /// A customer's events from `from` on (counted from 1; `None`: from the end that comes first), and, oldest first,
    /// the accounts that the first of them was decided on.
    pub(crate) fn chain(
        &self,
        customer: CustomerId,
        from: Option<u64>,
        newest_first: bool,
    ) -> Result<(Accounts, Entries<'_>), Failure> {
        match self {
            Self::Directory(ledger) => {
                let before = if newest_first { Accounts::default() } else { before(ledger, customer, from)? };
                let (from_seq, to_seq) =
                    if newest_first { (1, from.unwrap_or(u64::MAX)) } else { (from.unwrap_or(1), u64::MAX) };
                let range = ReadRange { from_seq, to_seq, limit: PAGE_EVENTS, newest_first };
                let pages = Pages { ledger, customer, range, page: Vec::new().into_iter(), ended: false };
                Ok((before, Box::new(pages)))
            }
            Self::Server(remote) => remote.chain(customer, from, newest_first),
        }
    }

    /// A transaction; `None` if none with this id was ever accepted.
    pub(crate) fn transaction(&self, transaction: TransactionId) -> Result<Option<TransactionView>, Failure> {
        match self {
            Self::Directory(ledger) => transaction_of(ledger, transaction),
            Self::Server(remote) => remote.transaction(transaction),
        }
    }

    /// Submits a request; its outcome is durable then. One that would wait for a rail is refused here, before anything is
    /// begun: only a service calls rails, so that the command would never end.
    pub(crate) fn submit(&self, global: &Global, request: Request, under: &Under) -> Result<InEffect, Failure> {
        let ledger = match self {
            Self::Directory(ledger) => ledger,
            Self::Server(remote) => return remote.submit(&request, under),
        };
        let waits = waits_for(global, ledger, &request)?;
        let terms = terms(ledger, under)?;
        let submitted =
            if waits.is_some() { ledger.dry_run(request, terms) } else { ledger.submit_under(request, terms) };
        match (submitted, waits) {
            (Ok(Outcome::Applied(_)) | Err(SubmitError::CustomerBusy(_)), Some(waits)) => {
                Err(Failure::new(FailureKind::NeedsServer, waits))
            }
            (Ok(Outcome::Applied(receipt)), None) => Ok(InEffect { before: false, receipt }),
            (Ok(Outcome::AlreadyApplied(receipt)), _) => {
                Ok(InEffect { before: true, receipt: receipt_of_then(ledger, &request, receipt)? })
            }
            (Ok(Outcome::Rejected(rejection)), _) => Err(rejected(&rejection, self.currencies())),
            (Err(error), _) => Err(error.into()),
        }
    }

    /// What would come of a request now. Nothing is done.
    pub(crate) fn dry_run(&self, request: Request, under: &Under) -> Result<Outlook, Failure> {
        let ledger = match self {
            Self::Directory(ledger) => ledger,
            Self::Server(remote) => return remote.dry_run(&request, under),
        };
        match ledger.dry_run(request, terms(ledger, under)?)? {
            Outcome::Applied(Receipt { event, currency, account, locked, .. }) => {
                let EventRef { customer, seq, .. } = event;
                Ok(Outlook::WouldApply(Would { customer, seq, currency, account, locked }))
            }
            Outcome::AlreadyApplied(receipt) => Ok(Outlook::InEffect(receipt_of_then(ledger, &request, receipt)?)),
            Outcome::Rejected(rejection) => Err(rejected(&rejection, self.currencies())),
        }
    }

    /// The events that wait for their rails, the oldest first.
    pub(crate) fn pending(&self, global: &Global, list: &PendingList) -> Result<Vec<Waiting>, Failure> {
        let ledger = match self {
            Self::Directory(ledger) => ledger,
            Self::Server(remote) => return remote.pending(list),
        };
        let settings = config::without_secrets(global)?;
        let PendingList { kind, rail: wanted, since, until } = list;
        let is_listed = |PendingEvent { pending, .. }: &PendingEvent| {
            let event = &pending.linked.event;
            let is_wanted = |wanted: &String| {
                let names = |rail: &RailConfig| rail.id == pending.rail && rail.name == *wanted;
                pending.rail.number().to_string() == *wanted || settings.rails.iter().any(names)
            };
            kind.is_none_or(|kind| kind == event.kind)
                && wanted.as_ref().is_none_or(is_wanted)
                && since.is_none_or(|since| event.time_ms >= since.0)
                && until.is_none_or(|until| event.time_ms < until.0)
        };
        let waiting = |PendingEvent { pending, .. }: PendingEvent| {
            let event = &pending.linked.event;
            let rail = settings.rails.iter().find(|rail| rail.id == pending.rail);
            let deadline_ms = rail.and_then(|rail| rail.schedule.deadline_ms);
            Waiting {
                event: pending.linked.reference(),
                kind: event.kind,
                transaction: event.transaction,
                currency: event.currency,
                amount: event.amount,
                rail: rail.map_or_else(|| not_named(pending.rail.number()), |rail| rail.name.clone()),
                since_ms: event.time_ms,
                deadline_ms: deadline_ms.map(|deadline_ms| event.time_ms.saturating_add(deadline_ms)),
                waits: None,
            }
        };
        Ok(ledger.pending()?.into_iter().filter(is_listed).map(waiting).collect())
    }

    /// Settles an event by hand; its end is durable then.
    pub(crate) fn settle(&self, event: EventId, settlement: &Settlement) -> Result<SettledView, Failure> {
        match self {
            Self::Directory(ledger) => {
                let settled = ledger.settle(event, settlement.clone())?;
                let reason = settled.status.by_hand().unwrap_or_default().to_owned();
                Ok(SettledView { event: settled.event, status: settled.status.name(), reason })
            }
            Self::Server(remote) => remote.settle(event, settlement),
        }
    }
}

/// What a request would wait for, as a sentence: the rail that it goes through, or that of the customer's open event.
fn waits_for(global: &Global, ledger: &Ledger, request: &Request) -> Result<Option<String>, Failure> {
    let settings = config::without_secrets(global)?;
    let name = |id| {
        let rail = settings.rails.iter().find(|rail: &&RailConfig| rail.id == id);
        rail.map_or_else(|| not_named(id.number()), |rail| rail.name.clone())
    };
    let kind = request.action.kind();
    let what = if let Some(rail) = settings.routes.of(kind) {
        format!("a {} goes through the rail {}", kind.name(), name(rail))
    } else {
        let is_theirs = |open: &PendingEvent| open.pending.linked.event.customer == request.customer;
        let Some(open) = ledger.pending()?.into_iter().find(is_theirs) else { return Ok(None) };
        format!("an event of customer {} waits for the rail {}", request.customer, name(open.pending.rail))
    };
    Ok(Some(format!("{what}, and only `bursar serve` calls rails")))
}

fn terms(ledger: &Ledger, under: &Under) -> Result<Terms, Failure> {
    // That the text is a key was checked when the command line was read.
    let no_key = || Failure::new(FailureKind::BadArgument, "this is no idempotency key");
    let key = under.key.as_ref().map(|text| ledger.key(text.as_bytes()).ok_or_else(no_key)).transpose()?;
    Ok(Terms { key, expected_seq: under.expected_seq, minimum_available: under.minimum_available })
}

/// The receipt of a request that took effect before; of one without a key, by its transaction.
fn receipt_of_then(ledger: &Ledger, request: &Request, known: Option<Receipt>) -> Result<Receipt, Failure> {
    if let Some(receipt) = known {
        return Ok(receipt);
    }
    let receipt = ledger.receipt_of(request)?;
    receipt.ok_or_else(|| Failure::new(FailureKind::CannotRead, "the event of a transaction was not found"))
}

fn head_view(head: &Head) -> HeadView {
    let open = head.open.first().map(|open| (open.id(), open.event.currency));
    let accounts = head.state.accounts.iter().collect();
    HeadView { locked: head.state.locked, seq: head.seq, link: head.link, accounts, open }
}

fn entry(entry: &ChainEntry) -> Entry {
    let event = &entry.linked.event;
    let reason = match &entry.status {
        EventStatus::Aborted(reason) => Some(reason.to_string()),
        EventStatus::DoneByHand(reason) => Some(format!("settled by an operator: {}", reason.as_str())),
        EventStatus::Started | EventStatus::Done => None,
    };
    let is_aborted = matches!(entry.status, EventStatus::Aborted(_));
    Entry {
        seq: event.seq,
        status: entry.status.name(),
        time_ms: event.time_ms,
        kind: event.kind,
        transaction: event.transaction,
        currency: event.currency,
        amount: event.amount,
        effect: (!is_aborted).then(|| (event.account(), event.state.locked)),
        accounts: (!is_aborted).then(|| event.state.accounts.clone()),
        id: entry.linked.id(),
        hash: entry.linked.hash,
        reason,
    }
}

/// The events of a chain, read page by page.
struct Pages<'a> {
    ledger: &'a Ledger,
    customer: CustomerId,
    /// What is still to be read.
    range: ReadRange,
    page: std::vec::IntoIter<ChainEntry>,
    ended: bool,
}

impl Pages<'_> {
    fn read(&mut self) -> Result<(), Failure> {
        let page = self.ledger.chain(self.customer, self.range)?;
        self.ended = page.len() < self.range.limit;
        if let Some(last) = page.last() {
            let seq = last.linked.event.seq;
            let next =
                if self.range.newest_first { seq.checked_sub(1).filter(|seq| *seq > 0) } else { seq.checked_add(1) };
            match next {
                Some(next) if self.range.newest_first => self.range.to_seq = next,
                Some(next) => self.range.from_seq = next,
                None => self.ended = true,
            }
        }
        self.page = page.into_iter();
        Ok(())
    }
}

impl Iterator for Pages<'_> {
    type Item = Result<Entry, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.page.len() == 0
            && !self.ended
            && let Err(failure) = self.read()
        {
            self.ended = true;
            return Some(Err(failure));
        }
        self.page.next().map(|found| Ok(entry(&found)))
    }
}

/// The accounts that the event at `from` was decided on.
fn before(ledger: &Ledger, customer: CustomerId, from: Option<u64>) -> Result<Accounts, Failure> {
    let mut to_seq = from.unwrap_or(1).saturating_sub(1);
    while to_seq > 0 {
        let range = ReadRange { from_seq: 1, to_seq, limit: 16, newest_first: true };
        let page = ledger.chain(customer, range)?;
        let in_effect = |entry: &&ChainEntry| match entry.status {
            EventStatus::Started | EventStatus::Done | EventStatus::DoneByHand(_) => true,
            EventStatus::Aborted(_) => false,
        };
        if let Some(found) = page.iter().find(in_effect) {
            return Ok(found.linked.event.state.accounts.clone());
        }
        to_seq = page.last().map_or(0, |oldest| oldest.linked.event.seq - 1);
    }
    Ok(Accounts::default())
}

fn transaction_of(ledger: &Ledger, transaction: TransactionId) -> Result<Option<TransactionView>, Failure> {
    let Some(view) = ledger.transaction(transaction)? else { return Ok(None) };
    let Some(shown) = view.state.or(view.pending.map(|pending| pending.state)) else { return Ok(None) };
    let mut events = Vec::with_capacity(view.events.len());
    for event in &view.events {
        let range = ReadRange { from_seq: event.seq, to_seq: event.seq, limit: 1, newest_first: true };
        events.extend(ledger.chain(event.customer, range)?.iter().map(entry));
    }
    let TransactionState { customer, kind, amount, currency, .. } = shown;
    let state = view.state.map(|state| state.status.name().to_owned());
    Ok(Some(TransactionView { customer, kind: kind.name().to_owned(), currency, amount, state, events }))
}
