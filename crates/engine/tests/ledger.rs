//! A ledger through its public interface: what is submitted is durable, and found again.

use bursar_engine::core::commit::Outcome;
use bursar_engine::core::{Amount, Currencies, CurrencyIndex, CustomerId, Policy, Request, TransactionId};
use bursar_engine::store::ReadRange;
use bursar_engine::{Ledger, LedgerOptions, new_config};

#[test]
fn what_was_acknowledged_is_there_after_opening_again() {
    let directory = tempfile::tempdir().unwrap();
    let config = new_config(Policy::default(), Currencies::default()).unwrap();
    let customer = CustomerId::new(1);
    {
        let ledger = Ledger::create(directory.path(), &config, LedgerOptions::default()).unwrap();
        for n in 1..=10 {
            let deposit = Request::deposit(customer, TransactionId::new(n), Amount::from_steps(10_000));
            assert!(matches!(ledger.submit(deposit).unwrap(), Outcome::Applied(_)));
        }
        assert!(matches!(
            ledger.submit(Request::dispute(customer, TransactionId::new(3))).unwrap(),
            Outcome::Applied(_)
        ));
    }
    for clean in [false, true, true] {
        let (ledger, report) = Ledger::open(directory.path(), LedgerOptions::default()).unwrap();
        assert_eq!(report.cut_off, None);
        assert_eq!(report.index_rebuilt, None);
        let head = ledger.customer(customer).unwrap().unwrap();
        assert_eq!(head.seq, 11);
        let account = head.state.accounts.get(CurrencyIndex(0));
        assert_eq!((account.available.steps(), account.held.steps()), (90_000, 10_000));
        let chain = ledger.chain(customer, ReadRange::ALL).unwrap();
        assert_eq!(chain.len(), 11);
        assert_eq!(chain[10].linked.hash, head.link);
        let transaction = ledger.transaction(TransactionId::new(3)).unwrap().unwrap();
        assert_eq!(transaction.events.len(), 2);
        assert!(ledger.totals().unwrap().currencies()[0].is_balanced());
        let repeat = Request::deposit(customer, TransactionId::new(4), Amount::from_steps(10_000));
        assert_eq!(ledger.submit(repeat).unwrap(), Outcome::AlreadyApplied(None));
        if clean {
            ledger.close().unwrap();
        }
    }
}

/// One batch that took a transaction back and forth lost its fourth event: the embedded store remembered the
/// approved state that the second proposal brought, but not that the third one brought back the first. (Found by
/// the crash test, seed 1075.)
#[test]
fn a_batch_may_take_one_transaction_back_and_forth() {
    let config = new_config(Policy::default(), Currencies::default()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (customer, transaction) = (CustomerId::new(1), TransactionId::new(1));
    let ledgers = [
        Ledger::in_memory(&config, LedgerOptions::default()).unwrap(),
        Ledger::create(directory.path(), &config, LedgerOptions::default()).unwrap(),
    ];
    for ledger in ledgers {
        ledger.submit(Request::deposit(customer, transaction, Amount::from_steps(5))).unwrap();
        let mut requests = Vec::new();
        for _ in 0..4 {
            requests.extend([Request::dispute(customer, transaction), Request::resolve(customer, transaction)]);
        }
        for outcome in ledger.submit_batch(requests).unwrap() {
            assert!(matches!(outcome.unwrap(), Outcome::Applied(_)));
        }
        assert_eq!(ledger.customer(customer).unwrap().unwrap().seq, 9);
        assert_eq!(ledger.chain(customer, ReadRange::ALL).unwrap().len(), 9);
    }
}
