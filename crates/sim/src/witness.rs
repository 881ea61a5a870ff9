//! What is seen of a run: a trace for people, and how often each fault was really injected.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How often each kind of fault and each kind of answer occurred.
pub type Counts = BTreeMap<&'static str, u64>;

#[derive(Debug, Default)]
struct Seen {
    trace: Option<String>,
    counts: Counts,
}

/// Sees what happens. Copies see together.
#[derive(Clone, Debug, Default)]
pub struct Witness(Arc<Mutex<Seen>>);

impl Witness {
    /// One that also writes a trace.
    pub fn tracing() -> Self {
        let seen = Seen { trace: Some(String::new()), counts: Counts::new() };
        Self(Arc::new(Mutex::new(seen)))
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line to the trace, if there is one.
    pub fn say(&self, line: impl FnOnce() -> String) {
        let mut seen = self.lock();
        if let Some(trace) = &mut seen.trace {
            trace.push_str(&line());
            trace.push('\n');
        }
    }

    /// Notes that something was injected, or occurred.
    pub fn count(&self, what: &'static str) {
        let mut seen = self.lock();
        *seen.counts.entry(what).or_default() += 1;
        if let Some(trace) = &mut seen.trace {
            trace.push_str("         ! ");
            trace.push_str(what);
            trace.push('\n');
        }
    }

    /// The trace, and the counts.
    pub fn take(&self) -> (String, Counts) {
        let mut seen = self.lock();
        (seen.trace.take().unwrap_or_default(), std::mem::take(&mut seen.counts))
    }
}
