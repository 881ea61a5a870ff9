//! Reading on several threads: blocks of the source are parsed side by side, and handed over in order.
//!
//! ```text
//!             ┌─► thread: take the source, read a block, let go of it ─► parse ─┐
//!  source ────┤                                                                 ├─► in order ─► who asks
//!             └─► thread: the same with the next block ─────────────────► parse ┘
//! ```
//!
//! A block ends with a line end that ends a row. That is plain to see where a block has no quotes and is no longer
//! than one row may be; anything else is read in order, as [`RowReader`] does it, by whoever holds the source then.
//! So rows, errors and positions are those of [`RowReader`], whatever the number of threads and the size of blocks.
//!
//! The threads read and parse. What else is to be done to rows before they are needed in order, they do too: see
//! [`RowsAhead::start`].

use super::reader::{Block, Parser, RowReader};
use super::row::RowBatch;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

/// A batch of rows, and what was made of it on the thread that read it.
#[derive(Debug, Default)]
pub struct Prepared<T> {
    /// The rows.
    pub rows: RowBatch,
    /// What was made of them. It is reused from batch to batch.
    pub made: T,
}

/// The rows of a source, read ahead by threads. They end with the source, or at their next block once this is
/// dropped: they are not waited for then, since a pipe may keep them waiting for as long as it likes.
#[derive(Debug)]
pub struct RowsAhead<T> {
    read: Receiver<Message<T>>,
    used: Sender<Prepared<T>>,
    /// The number of the batch that is due.
    due: u64,
    /// Those that came before they were due.
    early: BTreeMap<u64, io::Result<Prepared<T>>>,
    failed: bool,
}

/// A batch with its number.
type Message<T> = (u64, io::Result<Prepared<T>>);

/// What only one thread may have at a time.
struct Shared<R, T> {
    reader: RowReader<R>,
    free: Receiver<Prepared<T>>,
    /// The number of the next batch.
    next: u64,
    ended: bool,
}

/// So many batches there are for each thread, and some more.
const BATCHES_PER_THREAD: usize = 2;
const BATCHES_MORE: usize = 2;

impl<T: Default + Send + 'static> RowsAhead<T> {
    /// Begins to read on so many threads, at least one. `prepare` does with each batch what does not depend on the
    /// batches before; it is called in no order. Its error is as one of the source.
    pub fn start<R: Read + Send + 'static>(
        reader: RowReader<R>,
        thread_count: usize,
        prepare: impl Fn(&RowBatch, &mut T) -> io::Result<()> + Clone + Send + 'static,
    ) -> io::Result<Self> {
        let thread_count = thread_count.max(1);
        let (sender, read) = channel();
        let (used, free) = channel();
        for _ in 0..thread_count * BATCHES_PER_THREAD + BATCHES_MORE {
            // Nobody has dropped the receiver yet.
            drop(used.send(Prepared::default()));
        }
        let parser = reader.parser().clone();
        let shared = Arc::new(Mutex::new(Shared { reader, free, next: 0, ended: false }));
        for _ in 0..thread_count {
            let (shared, sender, prepare) = (Arc::clone(&shared), sender.clone(), prepare.clone());
            let mut parser = parser.clone();
            let run = move || while read_one(&shared, &mut parser, &sender, &prepare) {};
            thread::Builder::new().name("bursar-read".to_owned()).spawn(run)?;
        }
        Ok(Self { read, used, due: 0, early: BTreeMap::new(), failed: false })
    }

    /// The next rows, at least one; `None` at the source's end. An error comes after the rows before it, and nothing
    /// comes after it.
    pub fn next_batch(&mut self) -> io::Result<Option<Prepared<T>>> {
        if self.failed {
            return Err(io::Error::other("reading failed before, and does not go on after that"));
        }
        loop {
            let Some(batch) = self.due_batch() else { return Ok(None) };
            self.failed = batch.is_err();
            let batch = batch?;
            self.due += 1;
            if !batch.rows.rows().is_empty() {
                return Ok(Some(batch));
            }
            self.give_back(batch);
        }
    }

    /// Waits for the batch that is due. `None`: there are no more.
    fn due_batch(&mut self) -> Option<io::Result<Prepared<T>>> {
        loop {
            if let Some(batch) = self.early.remove(&self.due) {
                return Some(batch);
            }
            let (number, batch) = self.read.recv().ok()?;
            self.early.insert(number, batch);
        }
    }

    /// Gives a batch back to be used again. There are only a few: who keeps them all waits for ever.
    pub fn give_back(&self, batch: Prepared<T>) {
        // If the threads have ended, nobody needs it.
        drop(self.used.send(batch));
    }
}

/// Reads one batch. `false`: there is nothing more to read, or nobody to read for.
fn read_one<R: Read, T>(
    shared: &Mutex<Shared<R, T>>,
    parser: &mut Parser,
    sender: &Sender<Message<T>>,
    prepare: &impl Fn(&RowBatch, &mut T) -> io::Result<()>,
) -> bool {
    // Where another thread panicked while it read, its promise tells of it.
    let Ok(mut held) = shared.lock() else { return false };
    if held.ended {
        return false;
    }
    let Ok(mut batch) = held.free.recv() else { return false };
    let promise = Promise { number: held.next, sender: Some(sender) };
    held.next += 1;
    let block = held.reader.next_block(&mut batch.rows);
    held.ended = matches!(block, Ok(Block::End) | Err(_));
    drop(held);
    let prepared = block.and_then(|block| {
        if let Block::Text(start) = block {
            parser.take_block(&mut batch.rows, start);
        }
        prepare(&batch.rows, &mut batch.made)?;
        Ok(batch)
    });
    promise.keep(prepared)
}

/// A batch that was promised: whoever waits for it hears of a panic.
struct Promise<'a, T> {
    number: u64,
    sender: Option<&'a Sender<Message<T>>>,
}

impl<T> Promise<'_, T> {
    /// Gives whether anybody is there to take it.
    fn keep(mut self, batch: io::Result<Prepared<T>>) -> bool {
        self.sender.take().is_some_and(|sender| sender.send((self.number, batch)).is_ok())
    }
}

impl<T> Drop for Promise<'_, T> {
    fn drop(&mut self) {
        if let Some(sender) = self.sender {
            // If nobody waits for it any more, nobody need hear of it.
            drop(sender.send((self.number, Err(io::Error::other("a reading thread panicked")))));
        }
    }
}
