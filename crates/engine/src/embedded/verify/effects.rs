//! What events did to transactions, gathered in little room and checked at the end of a reading, all at once.
//!
//! A table of all transactions would be asked once per event, mostly about an id that is not there, and each time
//! memory far away answers. Here every event leaves 24 bytes instead; sorted by the fingerprints of their
//! transactions they lie beside each other, oldest first, and in the order of the index files as well. So one walk
//! over them finds whether every transaction was made once, whether disputes, resolves and chargebacks came upon what
//! they say they came upon, and whether the index leads to the newest event of each.
//!
//! A key of a request leaves an element of its own, by its own fingerprint; a key may have one event in effect.
//!
//! What this module does not do: say what is wrong. It says that all is well, or that it cannot tell; then the journal
//! is read again with [`super::chains`]' tables.

use super::chains::mixed;
use super::index::Derived;
use crate::embedded::checkpoint::RunName;
use crate::embedded::memtable::Table;
use crate::embedded::record::{StoredClosing, StoredEvent};
use crate::embedded::run::{IdRange, TransactionRun, fingerprint, kept, key_fingerprint};
use crate::store::StoreError;
use bursar_core::{
    AbortReason, CustomerId, Event, EventStatus, RequestKey, RequestKind, TransactionId, TransactionKind,
};
use std::hash::{BuildHasher, RandomState};

/// How many elements of a bucket are allocated at once: few at first, since a ledger may be small.
const FIRST_CHUNK_ELEMENTS: usize = 8;
const CHUNK_ELEMENTS: usize = 256;
/// Elements are put into so many buckets, by the top bits of their fingerprints. Few enough that the place where each
/// of them goes on stays in a processor's first cache, with the address of its page.
const BUCKET_BITS: u32 = 8;
/// No journal that is checked this way is longer.
const POSITION_MAX: u64 = (1 << 58) - 1;

/// What an element tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// An event was done with its frame: it took effect here, and points to the one before on its transaction.
    Done,
    /// An event was begun here, and points to the one before.
    Begun,
    /// An event that had been begun took effect here.
    Closed,
    /// An event was aborted here, or is open at the end: it must have been allowed, and had no effect.
    Claimed,
}

impl Role {
    const ALL: [Self; 4] = [Self::Done, Self::Begun, Self::Closed, Self::Claimed];
}

/// In place of a kind: the element is of a key. No kind has this code.
const KEY_CODE: u8 = 0b111;

/// What one record means for a transaction or a key.
#[derive(Clone, Copy, Debug)]
struct Element {
    fingerprint: u64,
    /// The record's position, then the role, then the kind.
    place: u64,
    /// A keyed digest of all of a transaction that never changes. Where the element has a position to compare as
    /// well, that is added to it.
    says: u64,
}

const _: () = assert!(size_of::<Element>() == 24, "memory is reckoned by it");

impl Element {
    const fn position(&self) -> u64 {
        self.place >> 6
    }

    fn role(&self) -> Role {
        Role::ALL[(self.place >> 3 & 0b11) as usize]
    }

    const fn kind_code(&self) -> u8 {
        (self.place & 0b111) as u8
    }

    fn kind(&self) -> Option<RequestKind> {
        RequestKind::from_code(self.kind_code())
    }
}

/// An event that is not closed yet.
#[derive(Clone, Copy, Debug)]
struct Open {
    transaction: TransactionId,
    fingerprint: u64,
    kind: RequestKind,
    digest: u64,
}

/// A part of the journal that one index file covers, and the ids it is asked about.
#[derive(Clone, Copy, Debug)]
struct Covered {
    from: u64,
    to: u64,
    ids: IdRange,
}

/// Keys that nobody knows: an edit cannot aim at equal digests. All passes of a reading have the same.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keys([u128; 7]);

impl Keys {
    pub(super) fn new() -> Self {
        let random = RandomState::new();
        Self(std::array::from_fn(|index| {
            u128::from(random.hash_one(2 * index)) << 64 | u128::from(random.hash_one(2 * index + 1))
        }))
    }

    /// All of a transaction that never changes, as one number. Two that differ have the same one for one choice of keys
    /// in 2^64 (Lemire and Kaser, "Strongly universal string hashing is fast", 2013: multilinear hashing).
    fn digest(&self, event: &Event, transaction: TransactionId) -> u64 {
        let (id, customer) = (transaction.bits(), event.customer.bits());
        let withdrawal = event.transaction_kind == TransactionKind::Withdrawal;
        let words = [
            (id >> 64) as u64,
            id as u64,
            (customer >> 64) as u64,
            customer as u64,
            event.amount.steps().cast_unsigned(),
            u64::from(event.currency.0) << 1 | u64::from(withdrawal),
        ];
        let [first, keys @ ..] = &self.0;
        let terms = words.iter().zip(keys).map(|(&word, key)| key.wrapping_mul(u128::from(word)));
        (terms.fold(*first, u128::wrapping_add) >> 64) as u64
    }
}

/// What a pass gathers.
#[derive(Debug)]
pub(super) struct Effects {
    ledger: [u8; 16],
    keys: Keys,
    /// The chunk of each bucket that is being filled.
    filling: Vec<Vec<Element>>,
    full: Vec<Vec<Vec<Element>>>,
    /// How many elements there is room for.
    element_room: usize,
    open: Table<(CustomerId, u64), Open>,
    /// The fingerprints of open events' keys.
    open_keys: Table<(CustomerId, u64), u64>,
    /// Events point to those before them on their transactions.
    has_table: bool,
    /// Up to where the index covers the journal; 0 where the table is elsewhere.
    covered_to: u64,
    covered: Vec<Covered>,
    covered_index: usize,
    doubtful: bool,
}

/// Which position an element points to, spread over all bits; that it points nowhere differs from all of them.
const fn pointing(previous: Option<u64>) -> u64 {
    match previous {
        Some(position) => mixed(position as u128 + 1),
        None => 0,
    }
}

impl Effects {
    pub(super) fn new(ledger: [u8; 16], keys: Keys, has_table: bool, derived: Option<&Derived>) -> Self {
        let derived = derived.filter(|_| has_table);
        let runs = derived.into_iter().flat_map(|derived| derived.transactions.iter().rev());
        Self {
            ledger,
            keys,
            filling: vec![Vec::new(); 1 << BUCKET_BITS],
            full: vec![Vec::new(); 1 << BUCKET_BITS],
            element_room: 0,
            open: Table::default(),
            open_keys: Table::default(),
            has_table,
            covered_to: derived.map_or(0, |derived| derived.checkpoint.point.position),
            covered: runs.map(|(name, run)| Covered { from: name.from, to: name.to, ids: run.ids() }).collect(),
            covered_index: 0,
            doubtful: false,
        }
    }

    /// About how much memory a journal of so many bytes takes.
    pub(super) const fn expected_bytes(journal_bytes: u64) -> u64 {
        journal_bytes / JOURNAL_BYTES_PER_EVENT * size_of::<Element>() as u64
    }

    /// How much memory is taken.
    pub(super) fn memory_bytes(&self) -> usize {
        self.element_room * size_of::<Element>()
            + self.open.capacity() * (size_of::<((CustomerId, u64), Open)>() + 1)
            + self.open_keys.capacity() * (size_of::<((CustomerId, u64), u64)>() + 1)
    }

    /// Whether something was met already that this cannot tell right from wrong.
    pub(super) const fn is_doubtful(&self) -> bool {
        self.doubtful
    }

    /// Takes an event record.
    #[inline]
    pub(super) fn event(&mut self, position: u64, stored: &StoredEvent, transaction: TransactionId) {
        let event = &stored.linked.event;
        let fingerprint = fingerprint(&self.ledger, transaction.bits());
        let digest = self.keys.digest(event, transaction);
        let makes = makes(event.kind);
        let says = if makes { digest } else { digest.wrapping_add(pointing(stored.transaction_previous)) };
        if stored.done {
            self.cover(position, Some(transaction));
            self.push(fingerprint, position, Role::Done, event.kind.code(), says);
            return;
        }
        if !makes {
            self.push(fingerprint, position, Role::Begun, event.kind.code(), says);
        }
        let open = Open { transaction, fingerprint, kind: event.kind, digest };
        self.doubtful |= self.open.insert((event.customer, event.seq), open).is_some();
    }

    /// Takes an event record with a key.
    pub(super) fn key(&mut self, position: u64, stored: &StoredEvent, key: RequestKey) {
        let event = &stored.linked.event;
        let fingerprint = key_fingerprint(&self.ledger, key);
        if stored.done {
            self.cover(position, None);
            self.push(fingerprint, position, Role::Done, KEY_CODE, 0);
        } else {
            self.doubtful |= self.open_keys.insert((event.customer, event.seq), fingerprint).is_some();
        }
    }

    /// Takes a closing record. One of an event that was not taken means nothing here.
    pub(super) fn closing(&mut self, position: u64, closing: &StoredClosing) {
        if !self.open_keys.is_empty()
            && let Some(fingerprint) = self.open_keys.remove(&(closing.event.customer, closing.event.seq))
            && closing.status.is_done()
        {
            self.cover(position, None);
            self.push(fingerprint, position, Role::Closed, KEY_CODE, 0);
        }
        if self.open.is_empty() {
            return;
        }
        let Some(open) = self.open.remove(&(closing.event.customer, closing.event.seq)) else { return };
        let Open { transaction, fingerprint, kind, digest } = open;
        match closing.status {
            EventStatus::Started | EventStatus::Done | EventStatus::DoneByHand(_) => {
                self.cover(position, Some(transaction));
                self.push(fingerprint, position, Role::Closed, kind.code(), digest);
            }
            // What was aborted for another event's sake was right when it was decided.
            EventStatus::Aborted(AbortReason::TransactionConflict) => {}
            EventStatus::Aborted(AbortReason::RailRefused(_) | AbortReason::Operator(_)) => {
                self.push(fingerprint, position, Role::Claimed, kind.code(), digest);
            }
        }
    }

    fn push(&mut self, fingerprint: u64, position: u64, role: Role, kind_code: u8, says: u64) {
        self.doubtful |= position > POSITION_MAX;
        let place = position << 6 | (role as u64) << 3 | u64::from(kind_code);
        let bucket = (fingerprint >> (u64::BITS - BUCKET_BITS)) as usize;
        let chunk = &mut self.filling[bucket];
        if chunk.len() == chunk.capacity() {
            let room = if chunk.capacity() == 0 { FIRST_CHUNK_ELEMENTS } else { CHUNK_ELEMENTS };
            let full = std::mem::replace(chunk, Vec::with_capacity(room));
            self.element_room += chunk.capacity();
            self.full[bucket].push(full);
        }
        chunk.push(Element { fingerprint, place, says });
    }

    /// An effect before the checkpoint's point lies in a part that an index file covers, which must be asked about
    /// its transaction; about keys every file is asked. Positions do not descend.
    fn cover(&mut self, position: u64, transaction: Option<TransactionId>) {
        if position >= self.covered_to {
            return;
        }
        while self.covered.get(self.covered_index).is_some_and(|covered| covered.to <= position) {
            self.covered_index += 1;
        }
        let covered = self.covered.get(self.covered_index);
        let is_asked = |c: &Covered| transaction.is_none_or(|transaction| c.ids.contains(transaction.bits()));
        let findable = |c: &Covered| c.from <= position && is_asked(c);
        self.doubtful |= !covered.is_some_and(findable);
    }

    /// At the end of the journal: what is still open was never decided.
    fn end(&mut self) {
        for open in std::mem::take(&mut self.open).into_values() {
            self.push(open.fingerprint, POSITION_MAX, Role::Claimed, open.kind.code(), open.digest);
        }
    }
}

/// What a ledger says of its transactions beside their events.
#[derive(Clone, Copy, Debug)]
struct Covering {
    /// Up to where the index covers the journal.
    covered_to: u64,
    has_table: bool,
}

/// The elements of one bucket, in pieces.
type Bucket = Vec<Vec<Element>>;

/// Checks everything that passes have gathered together. Gives how many entries of index files lead to it; `None` where
/// something is not as it should be, or cannot be told from it.
pub(super) fn check(
    mut gathered: Vec<Effects>,
    derived: Option<&Derived>,
    threads: usize,
) -> Result<Option<u64>, StoreError> {
    let mut buckets: Vec<Bucket> = vec![Vec::new(); 1 << BUCKET_BITS];
    let has_table = gathered.iter().all(|effects| effects.has_table);
    let derived = derived.filter(|_| has_table);
    let of = Covering { covered_to: derived.map_or(0, |derived| derived.checkpoint.point.position), has_table };
    for effects in &mut gathered {
        effects.end();
        if effects.doubtful {
            return Ok(None);
        }
        for (bucket, (full, filling)) in buckets.iter_mut().zip(effects.full.drain(..).zip(effects.filling.drain(..))) {
            bucket.extend(full);
            bucket.push(filling);
        }
    }
    drop(gathered);
    let share = buckets.len().div_ceil(threads.max(1));
    std::thread::scope(|scope| {
        let check = |(index, buckets)| check_buckets(index * share, buckets, of, derived);
        let mut shares = buckets.chunks_mut(share).enumerate();
        let own = shares.next();
        let others: Vec<_> = shares.map(|share| scope.spawn(move || check(share))).collect();
        let mut matched = own.map_or(Ok(Some(0)), check)?;
        for thread in others {
            // A thread that panicked has not found that all is well.
            let more = thread.join().unwrap_or(Ok(None))?;
            matched = matched.zip(more).map(|(matched, more)| matched + more);
        }
        Ok(matched)
    })
}

/// Checks buckets that follow each other.
fn check_buckets(
    first: usize,
    buckets: &mut [Bucket],
    of: Covering,
    derived: Option<&Derived>,
) -> Result<Option<u64>, StoreError> {
    let mut index = Entries::new(derived, (first as u64) << (u64::BITS - BUCKET_BITS));
    let mut sorted: Vec<Element> = Vec::new();
    for bucket in buckets {
        sorted.clear();
        sorted.reserve(bucket.iter().map(Vec::len).sum());
        bucket.drain(..).for_each(|piece| sorted.extend(piece));
        sorted.sort_unstable_by_key(|element| (element.fingerprint, element.place));
        let mut rest = &sorted[..];
        while let Some(first) = rest.first() {
            let count = rest.iter().take_while(|next| kept(next.fingerprint) == kept(first.fingerprint)).count();
            let (group, later) = rest.split_at(count);
            rest = later;
            index.seek(kept(first.fingerprint))?;
            for same in group.chunk_by(|a, b| a.fingerprint == b.fingerprint) {
                let newest =
                    if same[0].kind_code() == KEY_CODE { follow_key(same, of.covered_to) } else { follow(same, of) };
                let Ok(newest) = newest else { return Ok(None) };
                if newest.is_some_and(|newest| !index.leads_to(same[0].fingerprint, newest)) {
                    return Ok(None);
                }
            }
            index.count_matches(group);
        }
    }
    Ok(Some(index.matched))
}

/// A little less than an event takes in a journal.
const JOURNAL_BYTES_PER_EVENT: u64 = 52;

const fn makes(kind: RequestKind) -> bool {
    match kind {
        RequestKind::Deposit | RequestKind::Withdrawal => true,
        RequestKind::Dispute | RequestKind::Resolve | RequestKind::Chargeback | RequestKind::Unlock => false,
    }
}

/// Something is not as it should be, or cannot be told from it.
#[derive(Clone, Copy, Debug)]
struct Doubt;

/// Follows one transaction; gives the position of its newest effect that the index covers, if it had one by then.
fn follow(elements: &[Element], of: Covering) -> Result<Option<u64>, Doubt> {
    // The digest, whether it is in dispute, whether it is charged back, and the newest effect.
    let mut state: Option<(u64, RequestKind, u64)> = None;
    let mut newest_covered = None;
    for element in elements {
        let (kind, role, position) = (element.kind().ok_or(Doubt)?, element.role(), element.position());
        let after = match (makes(kind), state) {
            (true, None) => (element.says, kind, position),
            (true, Some(_)) | (false, None) => return Err(Doubt),
            (false, Some((digest, before, newest))) => {
                let points = match role {
                    Role::Done | Role::Begun if of.has_table => pointing(Some(newest)),
                    Role::Done | Role::Begun | Role::Closed | Role::Claimed => 0,
                };
                let fits = match kind {
                    RequestKind::Dispute => before != RequestKind::Dispute && before != RequestKind::Chargeback,
                    RequestKind::Resolve | RequestKind::Chargeback => before == RequestKind::Dispute,
                    RequestKind::Deposit | RequestKind::Withdrawal | RequestKind::Unlock => false,
                };
                if element.says != digest.wrapping_add(points) || !fits {
                    return Err(Doubt);
                }
                (digest, kind, position)
            }
        };
        match role {
            Role::Done | Role::Closed => {
                state = Some(after);
                if position < of.covered_to {
                    newest_covered = Some(position);
                }
            }
            Role::Begun | Role::Claimed => {}
        }
    }
    Ok(newest_covered)
}

/// Follows one key, which must have one event in effect; gives its position if it had it before `covered_to`.
fn follow_key(elements: &[Element], covered_to: u64) -> Result<Option<u64>, Doubt> {
    match elements {
        [only] => Ok(Some(only.position()).filter(|&position| position < covered_to)),
        _ => Err(Doubt),
    }
}

/// The entries of all index files of transactions, in order of fingerprints.
struct Entries<'a> {
    runs: Vec<Ahead<'a>>,
    /// The positions that the entries of one fingerprint lead to.
    candidates: Vec<u64>,
    matched: u64,
}

/// An index file that is read ahead, block by block.
struct Ahead<'a> {
    from: u64,
    to: u64,
    run: &'a TransactionRun,
    next_block: usize,
    entries: Vec<(u64, u64)>,
    at: usize,
}

impl<'a> Entries<'a> {
    /// From the entries of a fingerprint on.
    fn new(derived: Option<&'a Derived>, fingerprint: u64) -> Self {
        let ahead = |(name, run): &'a (RunName, TransactionRun)| {
            let (from, to, next_block) = (name.from, name.to, run.first_block(fingerprint));
            Ahead { from, to, run, next_block, entries: Vec::new(), at: 0 }
        };
        let runs = derived.into_iter().flat_map(|derived| &derived.transactions).map(ahead).collect();
        Self { runs, candidates: Vec::new(), matched: 0 }
    }

    /// Reads on to the entries of a fingerprint. Those before it belong to transactions of other passes or threads, or
    /// to none; that shows when all matches are counted.
    fn seek(&mut self, wanted: u64) -> Result<(), StoreError> {
        self.candidates.clear();
        for ahead in &mut self.runs {
            loop {
                let Some(&(key, position)) = ahead.entries.get(ahead.at) else {
                    ahead.run.block_entries(ahead.next_block, &mut ahead.entries)?;
                    (ahead.at, ahead.next_block) = (0, ahead.next_block + 1);
                    if ahead.entries.is_empty() {
                        break;
                    }
                    continue;
                };
                if key > wanted {
                    break;
                }
                ahead.at += 1;
                if key == wanted {
                    self.candidates.push(position);
                }
            }
        }
        Ok(())
    }

    /// Whether a lookup finds the entry for this position.
    fn leads_to(&self, fingerprint: u64, position: u64) -> bool {
        let ahead = self.runs.iter().find(|ahead| (ahead.from..ahead.to).contains(&position));
        self.candidates.contains(&position) && ahead.is_some_and(|ahead| ahead.run.may_contain(fingerprint))
    }

    /// Counts the candidates that lead to an effect of these transactions. One that leads elsewhere would be met by
    /// a lookup before the right one.
    fn count_matches(&mut self, group: &[Element]) {
        let is_effect = |element: &Element| matches!(element.role(), Role::Done | Role::Closed);
        for &candidate in &self.candidates {
            let found = group.iter().any(|element| element.position() == candidate && is_effect(element));
            self.matched += u64::from(found);
        }
    }
}
