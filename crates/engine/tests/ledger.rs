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
        assert_eq!(ledger.submit(repeat).unwrap(), Outcome::AlreadyApplied);
        if clean {
            ledger.close().unwrap();
        }
    }
}
