//! Following a ledger: its records in one order, from a position on, and a call when there may be more.
//!
//! A feed is read from the store, which shows only what is durable; so nothing is waited for here, and nobody who
//! follows takes a lock that those who submit need.

use super::Ledger;
use super::threads::OnDurable;
use crate::store::{Feed, FeedError, FeedItem, FeedPosition};

/// A part of a feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedPage {
    /// The records, oldest first.
    pub items: Vec<FeedItem>,
    /// The place behind them, to go on from.
    pub position: FeedPosition,
}

impl Ledger {
    fn feed(&self) -> Result<&dyn Feed, FeedError> {
        self.shared.chains.feed().ok_or(FeedError::Unavailable)
    }

    /// The place before the ledger's first record.
    pub fn feed_start(&self) -> Result<FeedPosition, FeedError> {
        Ok(self.feed()?.start())
    }

    /// The place behind the ledger's newest durable record.
    pub fn feed_latest(&self) -> Result<FeedPosition, FeedError> {
        self.feed()?.latest()
    }

    /// The records behind a place, at most `limit`: a bounded amount of work and memory, whatever lies before and
    /// behind. There is nothing more for now only if the page's position is `after` itself.
    pub fn feed_after(&self, after: FeedPosition, limit: usize) -> Result<FeedPage, FeedError> {
        let mut items = Vec::new();
        let position = self.feed()?.read(after, limit, &mut items)?;
        Ok(FeedPage { items, position })
    }

    /// A number that changes whenever the feed has more, where [`Ledger::on_durable`] does not tell of all: others write to
    /// the stores too, or what is durable is shown a little later. `None`: it tells of all.
    pub fn feed_mark(&self) -> Result<Option<u64>, FeedError> {
        self.feed()?.newest_mark()
    }

    /// Has `call` called whenever this ledger has made more durable, on a thread of the ledger: it must be short, must not wait,
    /// and must not hold the ledger. Only the first `call` counts; gives whether this was it.
    pub fn on_durable(&self, call: impl Fn() + Send + Sync + 'static) -> bool {
        self.shared.on_durable.set(OnDurable(Box::new(call))).is_ok()
    }
}
