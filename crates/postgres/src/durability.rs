//! What is on the standbys: which reads are covered by a commit that waited for them.
//!
//! What is visible is on this server's disk, but only a commit that waits for the standbys says that it is on theirs. It
//! says so of what was read on its own timeline. Where another server has taken over in between, that one may not have
//! what was read: nothing may rest on it.
//!
//! What this module does not do: ask the server for anything ([`crate::server`]).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Durability {
    reads: Mutex<Reads>,
    has_standbys: AtomicBool,
}

#[derive(Debug, Default)]
struct Reads {
    /// The newest timeline that something was read or written on. One that is started anew goes on with its own, and has
    /// all that it showed; one that takes over begins another.
    timeline: u64,
    count: u64,
    covered: u64,
    /// Something was read on an earlier timeline, and not covered there.
    lost: bool,
}

impl Reads {
    fn answered(&mut self, timeline: u64) {
        if timeline > self.timeline {
            // Before the first of them there were no standbys, and no other server that could take over.
            self.lost |= self.timeline > 0 && self.covered < self.count;
            self.timeline = timeline;
        }
    }
}

impl Durability {
    fn reads(&self) -> MutexGuard<'_, Reads> {
        self.reads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something was read, or was found after a lost answer, on this timeline.
    pub(crate) fn read(&self, timeline: u64) {
        let mut reads = self.reads();
        reads.answered(timeline);
        reads.lost |= timeline > 0 && timeline < reads.timeline;
        reads.count += 1;
    }

    /// To be given to [`Durability::wrote`] if a commit that begins now writes something.
    pub(crate) fn begin(&self) -> u64 {
        self.reads().count
    }

    /// A commit has written something, on this timeline.
    pub(crate) fn wrote(&self, begun: u64, timeline: u64) {
        let mut reads = self.reads();
        reads.answered(timeline);
        if timeline == reads.timeline {
            reads.covered = reads.covered.max(begun);
        }
    }

    /// A server waits for standbys. It is not forgotten: the next one to take over may have none, and what was read
    /// before is still to be held against its timeline.
    pub(crate) fn note_standbys(&self) {
        self.has_standbys.store(true, Ordering::Release);
    }

    /// Whether there are standbys to be waited for.
    pub(crate) fn has_standbys(&self) -> bool {
        self.has_standbys.load(Ordering::Acquire)
    }

    /// Whether a commit is needed before what was read may be acted on.
    pub(crate) fn is_due(&self) -> bool {
        let reads = self.reads();
        self.has_standbys() && reads.covered < reads.count
    }

    /// Whether something was read that the server of now may not have.
    pub(crate) fn is_lost(&self) -> bool {
        self.has_standbys() && self.reads().lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_standbys() -> Durability {
        let durability = Durability::default();
        durability.note_standbys();
        durability
    }

    #[test]
    fn a_commit_covers_what_was_read_before_it_began() {
        let durability = with_standbys();
        durability.read(1);
        let begun = durability.begin();
        durability.read(1);
        durability.wrote(begun, 1);
        assert!(durability.is_due() && !durability.is_lost());
        durability.wrote(durability.begin(), 1);
        assert!(!durability.is_due() && !durability.is_lost());
        // Another server takes over; nothing was waiting to be covered.
        durability.read(2);
        assert!(durability.is_due() && !durability.is_lost());
        durability.wrote(durability.begin(), 2);
        assert!(!durability.is_due() && !durability.is_lost());
    }

    #[test]
    fn a_commit_of_another_server_covers_nothing_that_was_read_before_it_took_over() {
        let by_commit = with_standbys();
        by_commit.read(1);
        by_commit.wrote(by_commit.begin(), 2);
        assert!(by_commit.is_lost());
        let by_read = with_standbys();
        by_read.read(1);
        by_read.read(2);
        by_read.wrote(by_read.begin(), 2);
        assert!(by_read.is_lost());
        // What the earlier one tells late, as a reader or as a writer.
        let late = with_standbys();
        late.wrote(late.begin(), 2);
        late.read(2);
        late.wrote(late.begin(), 1);
        assert!(late.is_due() && !late.is_lost());
        late.read(1);
        assert!(late.is_lost());
        // Where nobody waits for standbys, there is no other server; and they may be added while an engine runs.
        let alone = Durability::default();
        alone.read(0);
        assert!(!alone.is_due() && !alone.is_lost());
        alone.note_standbys();
        alone.read(3);
        alone.read(0);
        alone.wrote(alone.begin(), 0);
        assert!(alone.is_due() && !alone.is_lost());
        alone.wrote(alone.begin(), 3);
        assert!(!alone.is_due() && !alone.is_lost());
    }
}
