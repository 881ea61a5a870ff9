//! A ledger behind a server, read into the values of the rules. What a server says is checked for sense, not believed in
//! full: amounts must fit their currencies, and who wants proof downloads the chain.

use super::{
    Entries, Entry, HeadView, InEffect, Outlook, SettledView, Then, TransactionView, Under, Waiting, Would, not_named,
};
use crate::checked::AsOf;
use crate::exit::{Failure, note};
use bursar_client::blocking::{ChainReader, Client};
use bursar_client::{
    Account as AccountAnswer, Customer, CustomerThen, Error, Event, EventList, EventStatus, Figure,
    Ledger as LedgerAnswer, Moment, Outcome, Outlook as OutlookAnswer, Pending, PendingList, Receipt as ReceiptAnswer,
    Settled, Submission, TimeMs,
};
use bursar_core::commit::{Minimum, Receipt, Settlement};
use bursar_core::{
    Account, Accounts, Action, Amount, Currencies, Currency, CurrencyIndex, CustomerId, CustomerState, Decimals,
    EventId, EventRef, Movement, Reference, Request, TransactionId,
};

/// A ledger behind a server.
#[derive(Debug)]
pub(crate) struct Remote {
    client: Client,
    ledger: LedgerAnswer,
    currencies: Currencies,
}

impl Remote {
    /// Asks the server which ledger it has.
    pub(crate) fn open(client: Client) -> Result<Self, Failure> {
        let ledger = client.ledger()?;
        let currencies = currencies_of(&ledger).ok_or_else(|| senseless("the currencies of its ledger"))?;
        Ok(Self { client, ledger, currencies })
    }

    pub(crate) const fn client(&self) -> &Client {
        &self.client
    }

    /// What the ledger was when it was asked for first.
    pub(crate) const fn ledger(&self) -> &LedgerAnswer {
        &self.ledger
    }

    pub(crate) const fn currencies(&self) -> &Currencies {
        &self.currencies
    }

    fn currency(&self, code: Option<&str>) -> Result<CurrencyIndex, Failure> {
        let found = match code {
            None => self.currencies.only(),
            Some(code) => self.currencies.find(code.as_bytes()),
        };
        found.ok_or_else(|| senseless("a currency"))
    }

    fn amount(&self, currency: CurrencyIndex, figure: Figure) -> Result<Amount, Failure> {
        let fits = figure.decimals() == self.currencies.decimals(currency);
        figure.amount().filter(|_| fits).ok_or_else(|| senseless("an amount"))
    }

    fn account(&self, account: &AccountAnswer) -> Result<(CurrencyIndex, Account), Failure> {
        let currency = self.currency(account.currency.as_deref())?;
        let (available, held) = (self.amount(currency, account.available)?, self.amount(currency, account.held)?);
        Ok((currency, Account { available, held }))
    }

    fn entry(&self, event: Event) -> Result<Entry, Failure> {
        let currency = self.currency(event.currency.as_deref())?;
        let account = event.account.as_ref().map(|account| self.account(account)).transpose()?;
        Ok(Entry {
            seq: event.seq,
            status: event.status.name(),
            time_ms: event.time.0,
            kind: event.kind,
            transaction: event.transaction,
            currency,
            amount: event.amount.map_or(Ok(Amount::ZERO), |amount| self.amount(currency, amount))?,
            effect: account.map(|(_, account)| account).zip(event.locked),
            accounts: None,
            id: event.event,
            hash: event.hash,
            reason: event.reason,
        })
    }

    fn receipt(&self, receipt: &ReceiptAnswer) -> Result<Receipt, Failure> {
        let (currency, account) = self.account(&receipt.account)?;
        Ok(Receipt {
            event: EventRef { customer: receipt.customer, seq: receipt.seq, id: receipt.event },
            hash: receipt.hash,
            time_ms: receipt.time.0,
            currency,
            account,
            locked: receipt.locked,
        })
    }

    pub(super) fn customer(&self, customer: CustomerId) -> Result<Option<HeadView>, Failure> {
        let Some(found) = self.client.customer(customer)? else { return Ok(None) };
        let accounts = found.accounts.iter().map(|account| self.account(account)).collect::<Result<_, _>>()?;
        let mut open = None;
        if found.open_events > 0 {
            let started = EventList { oldest_first: false, status: Some(EventStatus::Started), ..EventList::default() };
            for event in self.client.events(customer, &started) {
                // The oldest of them comes last.
                let event = event?;
                open = Some((event.event, self.currency(event.currency.as_deref())?));
            }
        }
        Ok(Some(HeadView { locked: found.locked, seq: found.seq, link: found.head, accounts, open }))
    }

    /// All customers with their state.
    pub(crate) fn customers(&self) -> impl Iterator<Item = Result<(CustomerId, CustomerState), Failure>> {
        self.client.customers(None).map(|found| {
            let found = found?;
            Ok((found.customer, self.state(&found)?))
        })
    }

    /// The state of a customer in the past.
    pub(super) fn customer_as_of(&self, customer: CustomerId, at: AsOf) -> Result<Then, Failure> {
        let moment = match crate::commands::as_of(at) {
            bursar_engine::AsOf::Seq(seq) => Moment::Seq(seq),
            bursar_engine::AsOf::TimeMs(ms) => Moment::Time(TimeMs(ms)),
        };
        Ok(match self.client.customer_as_of(customer, moment)? {
            // There were events, and none of them is in effect.
            CustomerThen::Was(found) if found.accounts.is_empty() => Then::NoAccount,
            CustomerThen::Was(found) => Then::Was(self.state(&found)?),
            CustomerThen::NoAccount => Then::NoAccount,
            CustomerThen::Unknown => Then::Unknown,
        })
    }

    fn state(&self, found: &Customer) -> Result<CustomerState, Failure> {
        let mut accounts = Accounts::default();
        for account in &found.accounts {
            let (currency, account) = self.account(account)?;
            accounts.set(currency, account);
        }
        Ok(CustomerState { locked: found.locked, accounts })
    }

    /// The server gives events from an end only: those before `from` are read, and passed over.
    pub(super) fn chain(
        &self,
        customer: CustomerId,
        from: Option<u64>,
        newest_first: bool,
    ) -> Result<(Accounts, Entries<'_>), Failure> {
        let list = EventList { oldest_first: !newest_first, ..EventList::default() };
        let mut events = self.client.events(customer, &list).map(|event| self.entry(event?)).peekable();
        let mut before = Accounts::default();
        let is_passed = |seq: u64| from.is_some_and(|from| if newest_first { seq > from } else { seq < from });
        while let Some(passed) = events.next_if(|event| event.as_ref().is_ok_and(|event| is_passed(event.seq))) {
            let Entry { currency, effect, .. } = passed?;
            if let Some((account, _)) = effect {
                before.set(currency, account);
            }
        }
        Ok((before, Box::new(events)))
    }

    pub(super) fn transaction(&self, transaction: TransactionId) -> Result<Option<TransactionView>, Failure> {
        let Some(found) = self.client.transaction(transaction)? else { return Ok(None) };
        let state = found.current.as_ref().map(|current| current.state.clone());
        let Some(shown) = found.current.or(found.pending) else { return Ok(None) };
        if found.event_count > found.events.len() as u64 {
            note(&format_args!(
                "note: {} events touched this transaction; the server gives the newest {}",
                found.event_count,
                found.events.len()
            ));
        }
        let currency = self.currency(shown.currency.as_deref())?;
        let amount = self.amount(currency, shown.amount)?;
        let events = found.events.into_iter().map(|event| self.entry(event)).collect::<Result<_, _>>()?;
        Ok(Some(TransactionView { customer: shown.customer, kind: shown.kind, currency, amount, state, events }))
    }

    /// A request with what is set beside it.
    fn submission(&self, request: &Request, under: &Under) -> Submission {
        let mut submission = submission(request, &self.currencies);
        if let Some(key) = &under.key {
            submission = submission.with_idempotency_key(key);
        }
        if let Some(seq) = under.expected_seq {
            submission = submission.with_expected_seq(seq);
        }
        if let Some(Minimum { currency, amount }) = under.minimum_available {
            let figure = Figure::new(amount.steps().into(), self.currencies.decimals(currency));
            submission = submission.with_minimum_available(figure);
        }
        submission
    }

    pub(super) fn dry_run(&self, request: &Request, under: &Under) -> Result<Outlook, Failure> {
        match self.client.dry_run(&self.submission(request, under))? {
            OutlookAnswer::WouldApply(would) => {
                let (currency, account) = self.account(&would.account)?;
                let (customer, seq, locked) = (would.customer, would.seq, would.locked);
                Ok(Outlook::WouldApply(Would { customer, seq, currency, account, locked }))
            }
            OutlookAnswer::AlreadyApplied(receipt) => Ok(Outlook::InEffect(self.receipt(&receipt)?)),
        }
    }

    /// The oldest first, as in a directory.
    pub(super) fn pending(&self, list: &PendingList) -> Result<Vec<Waiting>, Failure> {
        let mut all = self.client.pending(list).map(|found| self.waiting(found?)).collect::<Result<Vec<_>, _>>()?;
        all.sort_by_key(|waiting| (waiting.since_ms, waiting.event.customer));
        Ok(all)
    }

    fn waiting(&self, pending: Pending) -> Result<Waiting, Failure> {
        let Pending { event, waits } = pending;
        let currency = self.currency(event.currency.as_deref())?;
        let rail = waits.rail.clone().filter(|_| waits.configured);
        Ok(Waiting {
            event: EventRef { customer: event.customer, seq: event.seq, id: event.event },
            kind: event.kind,
            transaction: event.transaction,
            currency,
            amount: event.amount.map_or(Ok(Amount::ZERO), |amount| self.amount(currency, amount))?,
            rail: rail.unwrap_or_else(|| not_named(event.rail.unwrap_or_default())),
            since_ms: event.time.0,
            deadline_ms: waits.deadline.map(|TimeMs(deadline_ms)| deadline_ms),
            waits: Some(waits),
        })
    }

    pub(super) fn settle(&self, event: EventId, settlement: &Settlement) -> Result<SettledView, Failure> {
        let Settled { customer, seq, event, status, reason, .. } = self.client.settle(event, settlement)?;
        Ok(SettledView { event: EventRef { customer, seq, id: event }, status: status.name(), reason })
    }

    pub(super) fn submit(&self, request: &Request, under: &Under) -> Result<InEffect, Failure> {
        let outcome = self.client.submit(&self.submission(request, under))?;
        let before = match &outcome {
            Outcome::Applied(_) => false,
            Outcome::AlreadyApplied(_) => true,
        };
        Ok(InEffect { before, receipt: self.receipt(outcome.receipt())? })
    }

    /// A customer's chain as a file; `None` for one without a chain.
    pub(crate) fn chain_file(&self, customer: CustomerId) -> Result<Option<ChainReader>, Failure> {
        Ok(self.client.chain(customer)?)
    }
}

/// The server says something that makes no sense.
fn senseless(what: &str) -> Failure {
    Error::NotUnderstood(format!("the server says something about {what} that makes no sense")).into()
}

fn currencies_of(ledger: &LedgerAnswer) -> Option<Currencies> {
    if let [only] = ledger.currencies.as_slice()
        && only.currency.is_none()
    {
        return Some(Currencies::unnamed(Decimals::new(only.decimals)?));
    }
    let named = |totals: &bursar_client::CurrencyTotals| {
        Currency::new(totals.currency.as_deref()?, Decimals::new(totals.decimals)?).ok()
    };
    Currencies::named(ledger.currencies.iter().map(named).collect::<Option<_>>()?).ok()
}

/// A request as it is sent.
pub(crate) fn submission(request: &Request, currencies: &Currencies) -> Submission {
    let figure = |currency, amount: Amount| Figure::new(amount.steps().into(), currencies.decimals(currency));
    let in_currency = |submission: Submission, currency: CurrencyIndex| match currencies
        .get(currency)
        .map(Currency::code)
        .filter(|code| !code.is_empty())
    {
        Some(code) => submission.in_currency(code),
        None => submission,
    };
    let movement = |make: fn(CustomerId, TransactionId, Figure) -> Submission, movement: Movement| {
        let Movement { transaction, amount, currency } = movement;
        in_currency(make(request.customer, transaction, figure(currency, amount)), currency)
    };
    let reference = |make: fn(CustomerId, TransactionId) -> Submission, reference: Reference| {
        let Reference { transaction, amount, currency } = reference;
        let submission = make(request.customer, transaction);
        let submission = match (amount, currency.or(currencies.only())) {
            (Some(amount), Some(currency)) => submission.with_amount(figure(currency, amount)),
            (_, _) => submission,
        };
        currency.map_or(submission.clone(), |currency| in_currency(submission, currency))
    };
    match request.action {
        Action::Deposit(asked) => movement(Submission::deposit, asked),
        Action::Withdrawal(asked) => movement(Submission::withdrawal, asked),
        Action::Dispute(asked) => reference(Submission::dispute, asked),
        Action::Resolve(asked) => reference(Submission::resolve, asked),
        Action::Chargeback(asked) => reference(Submission::chargeback, asked),
        Action::Unlock => Submission::unlock(request.customer),
    }
}
