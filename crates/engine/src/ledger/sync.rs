//! What the ledger's threads wait with: the standard library's locks, channels and threads; or, with the feature
//! `shuttle`, those of a scheduler that tries one order of things after the other, so that `tests/handoff.rs` runs
//! this very code. With that feature a ledger works only inside of such a run.
//!
//! Nothing else of the engine is built on this module: stores wait by themselves.

#[cfg(not(feature = "shuttle"))]
mod given {
    pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, mpsc};
    pub(crate) use std::thread;

    use std::sync::PoisonError;
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    /// Milliseconds since 1970, by the system's clock.
    pub(crate) fn now_ms() -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// Waits as long as `idle` says so, at the most for `wait`.
    pub(crate) fn wait_while<'a, T>(
        condvar: &Condvar,
        guard: MutexGuard<'a, T>,
        wait: Duration,
        idle: impl FnMut(&mut T) -> bool,
    ) -> MutexGuard<'a, T> {
        condvar.wait_timeout_while(guard, wait, idle).unwrap_or_else(PoisonError::into_inner).0
    }
}

#[cfg(feature = "shuttle")]
mod given {
    pub(crate) use shuttle::sync::{Condvar, Mutex, MutexGuard, mpsc};
    pub(crate) use shuttle::thread;

    use super::super::threads::IDLE;
    use std::cell::Cell;
    use std::sync::PoisonError;
    use std::time::Duration;

    std::thread_local! {
        /// A run has one thread of the system, and a clock of its own.
        static NOW_MS: Cell<u64> = const { Cell::new(1) };
    }

    /// Milliseconds of a clock that stands still, but where somebody waits for it.
    pub(crate) fn now_ms() -> u64 {
        NOW_MS.get()
    }

    /// Waits as long as `idle` says so. That nothing is due counts as for ever, so that a wake-up which is lost is a
    /// deadlock; where something is due, the time flies by, and nobody else has to come first.
    pub(crate) fn wait_while<'a, T>(
        condvar: &Condvar,
        mut guard: MutexGuard<'a, T>,
        wait: Duration,
        mut idle: impl FnMut(&mut T) -> bool,
    ) -> MutexGuard<'a, T> {
        if wait < IDLE {
            if idle(&mut guard) {
                NOW_MS.set(NOW_MS.get() + wait.as_millis() as u64);
            }
            return guard;
        }
        condvar.wait_while(guard, idle).unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) use given::{Condvar, Mutex, MutexGuard, mpsc, now_ms, thread, wait_while};
