//! Requests one at a time, from one thread and from many, through the public door of a durable ledger.

use super::{Bench, FEW_CUSTOMERS, config};
use crate::contest::{Figure, Goal, Series};
use crate::failure::Failure;
use crate::probe::{SmallWrites, p50_p99_us};
use crate::workload::{Random, deposit};
use bursar_core::commit::Outcome;
use bursar_engine::{Ledger, LedgerOptions};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, channel, sync_channel};
use std::time::Instant;

const THREAD_COUNT: u64 = 64;
/// Requests and raw writes in turn, so many at a time.
const BLOCK_LEN: u64 = 100;

/// A ledger, and the numbers of the transactions that are still free.
struct Door {
    ledger: Ledger,
    next: AtomicU64,
}

/// Whose the requests are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Customers {
    One,
    Spread,
}

impl Door {
    fn open(bench: &Bench) -> Result<Self, Failure> {
        let directory = bench.ledger_directory("ledger")?;
        let ledger = Ledger::create(&directory, &config(), LedgerOptions::default())?;
        Ok(Self { ledger, next: AtomicU64::new(1) })
    }

    /// Submits so many deposits, each when the one before is durable. Adds each one's nanoseconds.
    fn submit(&self, count: u64, customers: Customers, samples: &mut Vec<u64>) -> Result<(), Failure> {
        for _ in 0..count {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let customer = match customers {
                Customers::One => 1,
                Customers::Spread => 2 + Random::new(number).below(FEW_CUSTOMERS),
            };
            let started = Instant::now();
            let outcome = self.ledger.submit(deposit(number, customer))?;
            samples.push(started.elapsed().as_nanos() as u64);
            if !matches!(outcome, Outcome::Applied(_)) {
                return Err(Failure::Engine(format!("a deposit was not applied: {outcome:?}")));
            }
        }
        Ok(())
    }

    /// The same from many threads at once. Gives requests per second.
    fn crowd(&self, count_each: u64, customers: Customers) -> Result<f64, Failure> {
        let started = Instant::now();
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREAD_COUNT)
                .map(|_| scope.spawn(|| self.submit(count_each, customers, &mut Vec::new())))
                .collect();
            let ends = threads.into_iter().map(|thread| {
                thread.join().unwrap_or_else(|_| Err(Failure::Engine("a submitting thread panicked".to_owned())))
            });
            ends.collect::<Result<Vec<()>, Failure>>()
        })?;
        Ok((THREAD_COUNT * count_each) as f64 / started.elapsed().as_secs_f64())
    }

    /// As many requests under way, each followed by the next as soon as it is answered, and no thread that waits for
    /// one. Gives requests per second.
    fn crowd_without_threads(&self, count_each: u64) -> Result<f64, Failure> {
        let started = Instant::now();
        let (heard, hear) = channel();
        let submit = || {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let request = deposit(number, 2 + Random::new(number).below(FEW_CUSTOMERS));
            let heard = heard.clone();
            self.ledger.submit_then(vec![request], move |submitted| drop(heard.send(submitted)))
        };
        for _ in 0..THREAD_COUNT {
            submit()?;
        }
        let count = THREAD_COUNT * count_each;
        for answered in 1..=count {
            let submitted = hear.recv().unwrap_or_default();
            if !matches!(submitted[..], [Ok(Outcome::Applied(_))]) {
                return Err(Failure::Engine(format!("a deposit was not applied: {submitted:?}")));
            }
            if answered + THREAD_COUNT <= count {
                submit()?;
            }
        }
        Ok(count as f64 / started.elapsed().as_secs_f64())
    }

    /// Stops, and checks that every request made one event.
    fn close(self) -> Result<(), Failure> {
        let events = self.ledger.totals()?.event_count;
        Failure::unless_equal("the events of the ledger and the requests", &events, &(self.next.into_inner() - 1))?;
        Ok(self.ledger.close()?)
    }

    fn journal_bytes(&self) -> u64 {
        self.ledger.embedded().map_or(0, |store| store.journal_head().0)
    }
}

pub(super) fn lone(bench: &mut Bench) -> Result<Vec<Figure>, Failure> {
    let block_count = if bench.options.quick { 1 } else { 20 };
    let door = Door::open(bench)?;
    let mut warm = Vec::new();
    door.submit(1, Customers::Spread, &mut warm)?;
    let before = door.journal_bytes();
    door.submit(BLOCK_LEN, Customers::Spread, &mut warm)?;
    let bytes = ((door.journal_bytes() - before) / BLOCK_LEN).max(1);
    let mut raw = SmallWrites::new(&bench.directory().join("raw"))?;
    let [mut p50, mut p99, mut raw_p50, mut raw_p99] = [const { Series(Vec::new()) }; 4];
    for _ in 0..bench.options.rounds {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..block_count {
            door.submit(BLOCK_LEN, Customers::Spread, &mut ours)?;
            raw.sample(BLOCK_LEN, bytes, &mut theirs)?;
        }
        for (samples, p50, p99) in [(&mut ours, &mut p50, &mut p99), (&mut theirs, &mut raw_p50, &mut raw_p99)] {
            let (half, nearly_all) = p50_p99_us(samples);
            p50.push(half);
            p99.push(nearly_all);
        }
    }
    door.close()?;
    let against = format!("write of {bytes} bytes and fdatasync, zero-filled file");
    Ok(vec![
        Figure::paired("lone", "one request, p50", &p50, "µs", against.clone(), &raw_p50).goal(Goal::RatioAtMost(1.3)),
        Figure::paired("lone", "one request, p99", &p99, "µs", against, &raw_p99).goal(Goal::RatioAtMost(2.0)),
    ])
}

pub(super) fn crowd(bench: &mut Bench) -> Result<Vec<Figure>, Failure> {
    let (lone_count, count_each) = if bench.options.quick { (20, 2) } else { (2000, 1000) };
    let door = Door::open(bench)?;
    let [mut crowd, mut lone, mut without_threads, mut bare] = [const { Series(Vec::new()) }; 4];
    for _ in 0..bench.options.rounds {
        let started = Instant::now();
        door.submit(lone_count, Customers::Spread, &mut Vec::new())?;
        lone.push(lone_count as f64 / started.elapsed().as_secs_f64());
        crowd.push(door.crowd(count_each, Customers::Spread)?);
        without_threads.push(door.crowd_without_threads(count_each)?);
        bare.push(bare_wake_ups(count_each)?);
    }
    door.close()?;
    let (unit, threads) = ("requests/s", "64 threads, one request at a time each");
    Ok(vec![
        Figure::paired("crowd", threads, &crowd, unit, "one thread", &lone).goal(Goal::RatioAtLeast(20.0)),
        Figure::paired("crowd", threads, &crowd, unit, "64 threads that are only woken", &bare),
        Figure::paired("crowd", "64 requests under way, no thread waits", &without_threads, unit, "one thread", &lone),
    ])
}

/// What 64 threads get that ask another one, one question at a time each, who answers at once and does nothing else.
/// Gives answers per second.
fn bare_wake_ups(count_each: u64) -> Result<f64, Failure> {
    let started = Instant::now();
    let (ask, asked) = channel::<SyncSender<()>>();
    std::thread::scope(|scope| {
        for _ in 0..THREAD_COUNT {
            let ask = ask.clone();
            scope.spawn(move || {
                for _ in 0..count_each {
                    let (answer, answered) = sync_channel(1);
                    if ask.send(answer).is_err() || answered.recv().is_err() {
                        return;
                    }
                }
            });
        }
        drop(ask);
        let mut count = 0;
        while let Ok(first) = asked.recv() {
            // As a sync does, all that have asked meanwhile are answered together.
            let waiting: Vec<_> = std::iter::once(first).chain(asked.try_iter()).collect();
            for answer in waiting {
                count += u64::from(answer.send(()).is_ok());
            }
        }
        Failure::unless_equal("answers", &count, &(THREAD_COUNT * count_each))
    })?;
    Ok((THREAD_COUNT * count_each) as f64 / started.elapsed().as_secs_f64())
}

pub(super) fn hot_customer(bench: &mut Bench) -> Result<Vec<Figure>, Failure> {
    let count_each = if bench.options.quick { 2 } else { 1000 };
    let door = Door::open(bench)?;
    let [mut hot, mut spread] = [const { Series(Vec::new()) }; 2];
    for _ in 0..bench.options.rounds {
        hot.push(door.crowd(count_each, Customers::One)?);
        spread.push(door.crowd(count_each, Customers::Spread)?);
    }
    door.close()?;
    let against = "64 threads on 65,536 customers";
    let figure = Figure::paired("hot-customer", "64 threads on one customer", &hot, "requests/s", against, &spread);
    Ok(vec![figure.goal(Goal::RatioAtLeast(0.8))])
}
