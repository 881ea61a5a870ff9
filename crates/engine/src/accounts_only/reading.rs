//! The reading thread: it reads rows and numbers their customers while the rows before are decided.

use super::customers::Customers;
use super::lock;
use crate::csv::{RowBatch, RowReader, Source};
use crate::driver::EngineError;
use crate::ingest::IngestError;
use crate::ledger::SubmitError;
use crate::store::StoreError;
use std::io;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;

/// How many batches may be read and not yet decided.
const BATCHES_READ_MAX: usize = 3;

/// Rows with the numbers of their customers; a row that cannot be read has none that means anything.
#[derive(Debug, Default)]
pub(super) struct Numbered {
    pub(super) batch: RowBatch,
    pub(super) customers: Vec<u32>,
}

/// A source that is being read. The thread ends with the source, or at its next batch once this is dropped: it is
/// not waited for then, since a pipe may keep it waiting for as long as it likes.
#[derive(Debug)]
pub(super) struct Reading {
    name: String,
    read: Receiver<io::Result<Numbered>>,
    used: Sender<Numbered>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Reading {
    pub(super) fn start(
        mut reader: RowReader<Source>,
        name: String,
        customers: Arc<Mutex<Customers>>,
    ) -> Result<Self, IngestError> {
        let (sender, read) = sync_channel(BATCHES_READ_MAX);
        let (used, reuse) = channel();
        let run = move || read_all(&mut reader, &customers, &sender, &reuse);
        let spawned = thread::Builder::new().name("bursar-read".to_owned()).spawn(run);
        let thread = spawned.map_err(|error| {
            let (doing, path) = ("start a thread", std::path::PathBuf::new());
            stopped(StoreError::Io { doing, path, error: Arc::new(error) }.into())
        })?;
        Ok(Self { name, read, used, thread: Some(thread) })
    }

    /// The next rows; `None` at the source's end.
    pub(super) fn next(&mut self) -> Result<Option<Numbered>, IngestError> {
        match self.read.recv() {
            Ok(Ok(numbered)) => Ok(Some(numbered)),
            Ok(Err(error)) => Err(IngestError::Read { name: self.name.clone(), error }),
            Err(_) => match self.thread.take().map(thread::JoinHandle::join) {
                Some(Err(_)) => Err(stopped(EngineError::Panicked)),
                Some(Ok(())) | None => Ok(None),
            },
        }
    }

    /// Gives memory back to be used again.
    pub(super) fn give_back(&self, numbered: Numbered) {
        // If the thread has ended, nobody needs it.
        drop(self.used.send(numbered));
    }
}

fn stopped(error: EngineError) -> IngestError {
    IngestError::Submit(SubmitError::Stopped(Arc::new(error)))
}

fn read_all(
    reader: &mut RowReader<Source>,
    customers: &Mutex<Customers>,
    sender: &SyncSender<io::Result<Numbered>>,
    reuse: &Receiver<Numbered>,
) {
    loop {
        let mut numbered = reuse.try_recv().unwrap_or_default();
        let read = match reader.next_batch(&mut numbered.batch) {
            Ok(true) => number_all(&mut numbered, &mut lock(customers)).map(|()| numbered),
            Ok(false) => return,
            Err(error) => Err(error),
        };
        let failed = read.is_err();
        if sender.send(read).is_err() || failed {
            return;
        }
    }
}

/// Numbers the customers in a pass of its own: none of its steps waits for the one before.
fn number_all(numbered: &mut Numbered, customers: &mut Customers) -> io::Result<()> {
    numbered.customers.clear();
    for row in numbered.batch.rows() {
        let number = match &row.content {
            Ok(request) => customers.number(request.customer),
            Err(_) => Some(0),
        };
        let number = number.ok_or_else(|| io::Error::other("more than 4_294_967_295 clients"))?;
        numbered.customers.push(number);
    }
    Ok(())
}
