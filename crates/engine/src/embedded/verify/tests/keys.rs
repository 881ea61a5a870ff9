//! Keys of requests: a sound ledger with some, and what somebody could make of them.

use super::*;
use bursar_core::{Event, RequestKey};
use support::keyed_ledger;

/// Every event with a key, with its frame, its position, and the link it builds on.
fn keyed(disk: &MemoryDisk) -> Vec<(At, u64, StoredEvent, Hash)> {
    let mut links: BTreeMap<CustomerId, Hash> = BTreeMap::new();
    let mut list = Vec::new();
    for at in frames(disk) {
        for (position, event) in events(disk, &at) {
            let customer = event.linked.event.customer;
            let start = Head::start(&support::config(support::LEDGER).digest(), customer).link;
            let link = links.insert(customer, event.linked.hash).unwrap_or(start);
            if event.linked.event.key.is_some() {
                list.push((at.clone(), position, event, link));
            }
        }
    }
    assert_eq!(list.len(), 25);
    list
}

#[test]
fn a_ledger_with_keys_is_sound() {
    let disk = keyed_ledger(OPTIONS);
    assert_eq!(found(&disk), []);
    for divided in DIVIDED {
        assert!(is_quickly_sound(&disk, divided), "{divided:?}");
    }
    let small = VerifyOptions { memory_bytes_max: 4 << 10, ..VerifyOptions::default() };
    let in_parts = verified(&disk, &small);
    assert!(in_parts.pass_count > 3 && in_parts.findings.is_empty(), "{in_parts:?}");
    let one = VerifyOptions { only: Some(CustomerId::new(22)), ..VerifyOptions::default() };
    assert_eq!(verified(&disk, &one).findings, []);
}

/// One byte of a record's key is changed, and all checksums and digests are made right: the event's hash tells.
#[test]
fn a_changed_key_is_found_at_its_event() {
    let disk = keyed_ledger(OPTIONS);
    for (index, (at, position, event, _)) in keyed(&disk).into_iter().enumerate() {
        let LinkedEvent { event: content, .. } = &event.linked;
        let bits = content.key.unwrap().bits() ^ 1 << (index * 5 % 128);
        let mut edited = event.clone();
        edited.linked.event.key = RequestKey::from_bits(bits);
        let copy = Arc::new(disk.copy());
        replace(&copy, &at, position, &edited);
        reseal(&copy);
        let named = ("wrong_hash", Some((content.customer.bits(), content.seq)));
        assert!(found(&copy).contains(&named), "key {bits:x}");
        assert!(DIVIDED.iter().all(|&divided| !is_quickly_sound(&copy, divided)), "key {bits:x}");
    }
}

/// The last event of a chain gets somebody else's key, and everything is made right, its hash as well.
#[test]
fn a_key_of_two_events_is_found() {
    let disk = keyed_ledger(OPTIONS);
    let point = checkpoint(&disk).point.position;
    let (mut before, mut behind) = (0, 0);
    for (at, position, event, link) in keyed(&disk) {
        let content = event.linked.event.clone();
        // Chains that end with the event, so that no other hash tells.
        if content.kind != RequestKind::Dispute || content.customer.bits() < 25 {
            continue;
        }
        let other = RequestKey::from_bits(20);
        let forged = Event { key: other, ..content.clone() };
        let copy = Arc::new(disk.copy());
        replace(&copy, &at, position, &StoredEvent { linked: LinkedEvent::new(forged, &link), ..event });
        reseal(&copy);
        let all = found(&copy);
        assert!(all.contains(&("key_twice", Some((content.customer.bits(), content.seq)))), "{all:?}");
        assert!(DIVIDED.iter().all(|&divided| !is_quickly_sound(&copy, divided)), "{all:?}");
        let small = VerifyOptions { memory_bytes_max: 4 << 10, ..VerifyOptions::default() };
        let in_parts = verified(&copy, &small);
        assert!(in_parts.findings.iter().any(|finding| finding.code == FindingCode::KeyTwice), "{in_parts:?}");
        *(if position < point { &mut before } else { &mut behind }) += 1;
    }
    assert!(before >= 5 && behind >= 9, "{before} before the checkpoint, {behind} behind it");
}

/// An event before the checkpoint gets a key that nobody has: the index does not lead to it.
#[test]
fn a_key_that_the_index_does_not_lead_to_is_found() {
    let disk = keyed_ledger(OPTIONS);
    let (at, position, event, link) =
        keyed(&disk).into_iter().find(|(.., event, _)| event.linked.event.customer.bits() == 27).unwrap();
    let forged = Event { key: RequestKey::from_bits(777), ..event.linked.event.clone() };
    let copy = Arc::new(disk.copy());
    replace(&copy, &at, position, &StoredEvent { linked: LinkedEvent::new(forged, &link), ..event });
    reseal(&copy);
    let all = found(&copy);
    assert!(all.iter().any(|(code, _)| *code == "index_transaction"), "{all:?}");
    assert!(all.iter().all(|(code, _)| *code != "key_twice"), "{all:?}");
    assert!(DIVIDED.iter().all(|&divided| !is_quickly_sound(&copy, divided)), "{all:?}");
}
