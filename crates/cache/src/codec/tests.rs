use super::*;
use bursar_core::Accounts;

fn accounts(list: &[(u8, i64, i64)]) -> Accounts {
    let mut accounts = Accounts::default();
    for &(currency, available, held) in list {
        let account = Account { available: Amount::from_steps(available), held: Amount::from_steps(held) };
        accounts.set(CurrencyIndex(currency), account);
    }
    accounts
}

fn events() -> Vec<Event> {
    let event = Event {
        customer: CustomerId::new(7),
        seq: 3,
        time_ms: 1_800_000_000_000,
        kind: RequestKind::Withdrawal,
        transaction: Some(TransactionId::new(u128::MAX - 4)),
        transaction_kind: TransactionKind::Withdrawal,
        amount: Amount::from_steps(i64::MAX),
        currency: CurrencyIndex(2),
        rail: RailId::new(255),
        key: None,
        state: CustomerState { locked: true, accounts: accounts(&[(0, -5, 7), (2, i64::MIN, 0), (63, 1, 1)]) },
    };
    let unlock = Event {
        kind: RequestKind::Unlock,
        transaction: None,
        transaction_kind: TransactionKind::Deposit,
        amount: Amount::ZERO,
        rail: None,
        key: RequestKey::from_bits(99),
        state: CustomerState { locked: false, accounts: accounts(&[(2, 0, 0)]) },
        ..event.clone()
    };
    vec![event, unlock]
}

fn linked() -> Vec<LinkedEvent> {
    events().into_iter().map(|event| LinkedEvent::new(event, &Hash([3; 32]))).collect()
}

/// What was put is read, and nothing that is shorter or longer.
fn goes_round<T: PartialEq + std::fmt::Debug>(given: &T, body: &[u8], read: fn(&[u8]) -> Option<T>) {
    assert_eq!(read(body).as_ref(), Some(given));
    for length in 0..body.len() {
        assert_ne!(read(&body[..length]).as_ref(), Some(given), "cut to {length} of {}", body.len());
    }
    assert_eq!(read(&[body, &[0]].concat()), None, "with a byte more");
}

#[test]
fn entries_go_round() {
    let statuses = [
        EventStatus::Done,
        EventStatus::DoneByHand(ReasonText::new("seen on the statement")),
        EventStatus::Aborted(AbortReason::TransactionConflict),
        EventStatus::Aborted(AbortReason::RailRefused(ReasonText::new(""))),
        EventStatus::Aborted(AbortReason::Operator(ReasonText::new("ü".repeat(127).as_str()))),
    ];
    for linked in linked() {
        for status in &statuses {
            let entry = ChainEntry { linked: linked.clone(), status: status.clone() };
            goes_round(&entry, &put_closed_event(&entry), closed_event);
            let closed = (linked.reference(), status.clone());
            goes_round(&closed, &put_closed(&closed.0, &closed.1), closed_status);
        }
        let link = Hash([3; 32]);
        goes_round(&linked, &put_maker(&linked.event, &link), maker);
        let state = linked.event.key_state();
        let proposed = Proposed { state, event: linked.reference() };
        for (approved, proposed) in [(None, Some(proposed)), (Some(state), None), (Some(state), Some(proposed))] {
            let entry_there = TransactionEntry { approved, proposed };
            goes_round(&entry_there, &put_entry(&entry_there), entry);
        }
    }
    let mut head_there = Head::start(&Hash([5; 32]), CustomerId::new(7));
    head_there.done(&linked()[0]);
    goes_round(&head_there, &put_head(&head_there), head);
    head_there.open = linked();
    goes_round(&head_there, &put_head(&head_there), head);
    let both: Vec<EventRef> = linked().iter().map(LinkedEvent::reference).collect();
    assert_eq!(references(&put_references(&both)), Some(both));
    assert_eq!(references(&[0; 39]), None);
}

/// A maker whose content was changed is another event.
#[test]
fn a_changed_maker_does_not_have_the_event_s_id() {
    for linked in linked().into_iter().filter(|linked| linked.event.transaction.is_some()) {
        let body = put_maker(&linked.event, &Hash([3; 32]));
        for at in 0..body.len() {
            for bit in 0..8 {
                let mut changed = body.clone();
                changed[at] ^= 1 << bit;
                let read = maker(&changed);
                assert!(read.is_none_or(|read| read.hash != linked.hash || read == linked), "byte {at}, bit {bit}");
            }
        }
    }
}

/// Not even nonsense makes it panic, or reserve more than there is.
#[test]
fn nonsense_is_no_entry() {
    for length in [0_usize, 1, 24, 32, 77, 200] {
        for byte in [0, 1, 2, 16, 255] {
            let body = vec![byte; length];
            assert_eq!(closed_event(&body), None);
            assert_eq!(closed_status(&body), None);
            assert!(head(&body).is_none_or(|head| head.open.is_empty()));
            assert!(maker(&body).is_none_or(|linked| linked.event.seq == 0));
        }
    }
}
