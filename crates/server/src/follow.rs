//! Following the ledger's events: what streams and webhooks have in common.
//!
//! The engine says when more has become durable; whoever follows then reads on from where it is, as often as there is
//! something, but not more often than it makes sense: behind a busy ledger a follower gathers a little. Where the engine
//! does not know of all, since others write to the same stores, one task of the service looks every [`LOOK_EVERY`] whether
//! there is more, as long as somebody follows ([`look`]); so none of the followers has to.

use crate::problem::{Problem, ServiceProblem};
use crate::service::{Service, Stage};
use bursar_core::{CustomerId, RequestKind};
use bursar_engine::store::{ChainEntry, FeedPosition};
use bursar_engine::{FeedPage, Ledger};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

/// Records that are read at once.
const RECORDS_AT_ONCE: usize = 256;
/// A follower that has just read waits so long for more to gather.
const GATHER: Duration = Duration::from_millis(10);
/// How often the stores are asked for more, where the engine does not know of all.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long to wait where too many reads are under way.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// Says when the ledger has more events.
#[derive(Debug)]
pub(crate) struct More(watch::Sender<u64>);

impl More {
    /// Has the ledger say so.
    pub(crate) fn of(ledger: &Ledger) -> Self {
        let sender = watch::Sender::new(0u64);
        let told = sender.clone();
        ledger.on_durable(move || {
            // Either the follower is seen here, or it sees what has just become durable: it counts itself before it reads.
            fence(Ordering::SeqCst);
            if told.receiver_count() > 0 {
                told.send_modify(|count| *count = count.wrapping_add(1));
            }
        });
        Self(sender)
    }

    /// Wakes all who follow.
    fn tell(&self) {
        self.0.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn follow(&self) -> watch::Receiver<u64> {
        let receiver = self.0.subscribe();
        fence(Ordering::SeqCst);
        receiver
    }
}

/// Looks for more until the service stops; at once over where the engine tells of all, or the stores have no feed.
pub(crate) async fn look(service: Arc<Service>) {
    let mut stage = service.stage.subscribe();
    let mut known = None;
    while !service.is_stopping() {
        if service.more.0.receiver_count() > 0 || known.is_none() {
            match service.read(|ledger| Ok(ledger.feed_mark()?)).await {
                Ok(None) | Err(Problem::Service(ServiceProblem::NoFeed, _)) => return,
                Ok(mark) => {
                    if known != mark {
                        service.more.tell();
                    }
                    known = mark;
                }
                // Whoever follows reads by itself, and says what is wrong.
                Err(problem) => tracing::debug!("could not look for more events: {}", problem.info().meaning),
            }
        }
        let stopping = async {
            if stage.wait_for(|stage| *stage > Stage::Running).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = sleep(LOOK_EVERY) => {}
            () = stopping => return,
        }
    }
}

/// Which events somebody wants. An empty list: all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    pub(crate) customer: Option<CustomerId>,
    pub(crate) kinds: Vec<RequestKind>,
    /// By their names.
    pub(crate) statuses: Vec<&'static str>,
}

impl Filter {
    pub(crate) fn takes(&self, entry: &ChainEntry) -> bool {
        let event = &entry.linked.event;
        self.customer.is_none_or(|customer| customer == event.customer)
            && (self.kinds.is_empty() || self.kinds.contains(&event.kind))
            && (self.statuses.is_empty() || self.statuses.contains(&entry.status.name()))
    }
}

/// Somebody who follows.
#[derive(Debug)]
pub(crate) struct Follower {
    pub(crate) service: Arc<Service>,
    pub(crate) position: FeedPosition,
    more: watch::Receiver<u64>,
    stage: watch::Receiver<Stage>,
    /// When it read last.
    read_at: Option<Instant>,
}

/// What a follower waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    /// There may be more events.
    More,
    /// The time is over.
    TimedOut,
    /// The service stops.
    Stopping,
}

impl Follower {
    pub(crate) fn new(service: Arc<Service>, position: FeedPosition) -> Self {
        let (more, stage) = (service.more.follow(), service.stage.subscribe());
        Self { service, position, more, stage, read_at: None }
    }

    /// What comes next, up to so many records, without moving on. Waits where too many reads are under way.
    pub(crate) async fn read(&mut self) -> Result<FeedPage, Problem> {
        // Before the read: what comes later is told anew.
        self.more.mark_unchanged();
        self.read_at = Some(Instant::now());
        let position = self.position;
        loop {
            let read = self.service.read(move |ledger| Ok(ledger.feed_after(position, RECORDS_AT_ONCE)?)).await;
            match read {
                Err(Problem::Service(ServiceProblem::Busy, _)) if !self.service.is_stopping() => {
                    sleep(READ_AGAIN).await;
                }
                Err(problem) => return Err(problem),
                Ok(page) => return Ok(page),
            }
        }
    }

    /// Waits until there may be more, at the most until `until`.
    pub(crate) async fn wait(&mut self, until: Instant) -> Waited {
        if self.service.is_stopping() {
            return Waited::Stopping;
        }
        let gathered = self.read_at.map_or_else(Instant::now, |read_at| read_at + GATHER);
        let more = async {
            if self.more.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            sleep_until(gathered).await;
        };
        let stopping = async {
            if self.stage.wait_for(|stage| *stage > Stage::Running).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = more => Waited::More,
            () = stopping => Waited::Stopping,
            () = sleep_until(until) => Waited::TimedOut,
        }
    }
}

/// A place in the ledger's events, as it is written in parameters: a position, `latest`, or `beginning`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Beginning,
    Latest,
    At(FeedPosition),
}

impl Place {
    pub(crate) fn parse(text: &str) -> Result<Self, Problem> {
        match text {
            "beginning" => Ok(Self::Beginning),
            "latest" => Ok(Self::Latest),
            _ => FeedPosition::parse(text).map(Self::At).ok_or_else(|| Problem::plain(ServiceProblem::BadPosition)),
        }
    }

    /// The position, which must be one of this ledger.
    pub(crate) fn find(self, ledger: &Ledger) -> Result<FeedPosition, Problem> {
        match self {
            Self::Beginning => Ok(ledger.feed_start()?),
            Self::Latest => Ok(ledger.feed_latest()?),
            Self::At(position) => {
                ledger.feed_after(position, 1)?;
                Ok(position)
            }
        }
    }
}
