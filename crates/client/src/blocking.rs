//! The same client for programs without a runtime: every call waits. The runtime is hidden inside.
//!
//! Not to be used from inside an async runtime, which would panic; use [`crate::Client`] there.

use crate::batch::{BatchEnded, BatchOutcomes, BatchSender, RowOutcome};
use crate::chain::ChainDownload;
use crate::client::{EventList, Options, PendingList};
use crate::error::{Error, SettleError, SubmitError};
use crate::events::{EventStream, LedgerEvent, Subscription};
use crate::key::Key;
use crate::types::{
    Customer, CustomerThen, Event, Ledger, Moment, Outcome, Outlook, Pending, Settled, Submission, Transaction,
};
use crate::{BatchSummary, client, webhook};
use bursar_core::commit::Settlement;
use bursar_core::{CustomerId, EventId, TransactionId};
use bytes::{Buf, Bytes};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;
use tokio::runtime::Runtime;

/// A client of one server. Cheap to clone.
///
/// ```no_run
/// use bursar_client::{Key, Options, Submission, blocking::Client};
/// use bursar_core::{CustomerId, TransactionId};
///
/// let client = Client::new("http://127.0.0.1:7400", Key::from_env()?, Options::default())?;
/// let deposit = Submission::deposit(CustomerId::new(42), TransactionId::new(1001), "12.5".parse()?);
/// println!("{}", client.submit(&deposit)?.receipt().hash);
/// for customer in client.customers(None) {
///     let customer = customer?;
///     println!("{} has {} accounts", customer.customer, customer.accounts.len());
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    client: client::Client,
    runtime: Arc<Runtime>,
}

impl Client {
    /// As [`crate::Client::new`].
    pub fn new(server: &str, key: Option<Key>, options: Options) -> Result<Self, Error> {
        let client = client::Client::new(server, key, options)?;
        // One thread beside the callers': it moves what is sent and what comes while they do other things.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(|error| Error::Setup(format!("the system gives no thread: {error}")))?;
        Ok(Self { client, runtime: Arc::new(runtime) })
    }

    /// The server's address.
    pub fn server(&self) -> &str {
        self.client.server()
    }

    /// As [`crate::Client::submit`].
    pub fn submit(&self, submission: &Submission) -> Result<Outcome, SubmitError> {
        self.runtime.block_on(self.client.submit(submission))
    }

    /// As [`crate::Client::dry_run`].
    pub fn dry_run(&self, submission: &Submission) -> Result<Outlook, SubmitError> {
        self.runtime.block_on(self.client.dry_run(submission))
    }

    /// As [`crate::Client::customer_as_of`].
    pub fn customer_as_of(&self, customer: CustomerId, moment: Moment) -> Result<CustomerThen, Error> {
        self.runtime.block_on(self.client.customer_as_of(customer, moment))
    }

    /// As [`crate::Client::customer`].
    pub fn customer(&self, customer: CustomerId) -> Result<Option<Customer>, Error> {
        self.runtime.block_on(self.client.customer(customer))
    }

    /// As [`crate::Client::transaction`].
    pub fn transaction(&self, transaction: TransactionId) -> Result<Option<Transaction>, Error> {
        self.runtime.block_on(self.client.transaction(transaction))
    }

    /// As [`crate::Client::ledger`].
    pub fn ledger(&self) -> Result<Ledger, Error> {
        self.runtime.block_on(self.client.ledger())
    }

    /// As [`crate::Client::metrics`].
    pub fn metrics(&self) -> Result<String, Error> {
        self.runtime.block_on(self.client.metrics())
    }

    /// As [`crate::Client::customers`].
    pub fn customers(&self, locked: Option<bool>) -> Iter<Customer> {
        self.iter(self.client.customers(locked))
    }

    /// As [`crate::Client::events`].
    pub fn events(&self, customer: CustomerId, list: &EventList) -> Iter<Event> {
        self.iter(self.client.events(customer, list))
    }

    /// As [`crate::Client::pending`].
    pub fn pending(&self, list: &PendingList) -> Iter<Pending> {
        self.iter(self.client.pending(list))
    }

    /// As [`crate::Client::settle`].
    pub fn settle(&self, event: EventId, settlement: &Settlement) -> Result<Settled, SettleError> {
        self.runtime.block_on(self.client.settle(event, settlement))
    }

    fn iter<T>(&self, stream: BoxStream<'static, Result<T, Error>>) -> Iter<T> {
        Iter { stream, runtime: self.runtime.clone() }
    }

    /// As [`crate::Client::chain`].
    pub fn chain(&self, customer: CustomerId) -> Result<Option<ChainReader>, Error> {
        let download = self.runtime.block_on(self.client.chain(customer))?;
        let runtime = self.runtime.clone();
        Ok(download.map(|download| ChainReader { download, piece: Bytes::new(), runtime, error: None }))
    }

    /// As [`crate::Client::batch`]. The two halves belong to two threads.
    pub fn batch(&self) -> Result<(Sender, Outcomes), Error> {
        let (sender, outcomes) = self.runtime.block_on(self.client.batch())?;
        let runtime = self.runtime.clone();
        Ok((Sender { sender, runtime: runtime.clone() }, Outcomes { inner: outcomes, has_failed: false, runtime }))
    }

    /// As [`crate::Client::subscribe`].
    pub fn subscribe(&self, subscription: Subscription) -> Events {
        Events { stream: self.client.subscribe(subscription), runtime: self.runtime.clone() }
    }
}

/// Items of a list, read page by page. Ends after an error.
pub struct Iter<T> {
    stream: BoxStream<'static, Result<T, Error>>,
    runtime: Arc<Runtime>,
}

impl<T> fmt::Debug for Iter<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iter").finish_non_exhaustive()
    }
}

impl<T> Iterator for Iter<T> {
    type Item = Result<T, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.runtime.block_on(self.stream.next())
    }
}

/// A chain that is being downloaded, to be read like a file. What went wrong is kept: see [`ChainReader::error`].
#[derive(Debug)]
pub struct ChainReader {
    download: ChainDownload,
    piece: Bytes,
    runtime: Arc<Runtime>,
    error: Option<Error>,
}

impl ChainReader {
    /// Why reading failed.
    pub const fn error(&self) -> Option<&Error> {
        self.error.as_ref()
    }
}

impl Read for ChainReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.runtime.block_on(self.download.next()) {
                Ok(Some(piece)) => self.piece = piece,
                Ok(None) => return Ok(0),
                Err(error) => {
                    self.error = Some(error.clone());
                    return Err(io::Error::other(error));
                }
            }
        }
        let count = into.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut into[..count]);
        Ok(count)
    }
}

/// Sends the rows of a batch; as [`BatchSender`].
#[derive(Debug)]
pub struct Sender {
    sender: BatchSender,
    runtime: Arc<Runtime>,
}

impl Sender {
    /// As [`BatchSender::send`].
    pub fn send(&mut self, submission: &Submission) -> Result<(), BatchEnded> {
        self.runtime.block_on(self.sender.send(submission))
    }

    /// As [`BatchSender::flush`].
    pub fn flush(&mut self) -> Result<(), BatchEnded> {
        self.runtime.block_on(self.sender.flush())
    }

    /// As [`BatchSender::finish`].
    pub fn finish(self) -> Result<(), BatchEnded> {
        self.runtime.block_on(self.sender.finish())
    }
}

/// The outcomes of a batch; as [`BatchOutcomes`]. As an iterator it ends after an error.
#[derive(Debug)]
pub struct Outcomes {
    inner: BatchOutcomes,
    has_failed: bool,
    runtime: Arc<Runtime>,
}

impl Outcomes {
    /// As [`BatchOutcomes::next_in_time`].
    pub fn next_in_time(&mut self) -> Result<Option<RowOutcome>, Error> {
        self.runtime.block_on(self.inner.next_in_time())
    }

    /// As [`BatchOutcomes::summary`].
    pub const fn summary(&self) -> Option<BatchSummary> {
        self.inner.summary()
    }
}

impl Iterator for Outcomes {
    type Item = Result<RowOutcome, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.has_failed {
            return None;
        }
        let next = self.runtime.block_on(self.inner.next());
        self.has_failed = next.is_err();
        next.transpose()
    }
}

/// A live stream of events; as [`EventStream`].
#[derive(Debug)]
pub struct Events {
    stream: EventStream,
    runtime: Arc<Runtime>,
}

impl Events {
    /// As [`EventStream::on_reconnect`].
    #[must_use]
    pub fn on_reconnect(self, tell: impl Fn(&Error) + Send + Sync + 'static) -> Self {
        Self { stream: self.stream.on_reconnect(tell), runtime: self.runtime }
    }

    /// As [`EventStream::next`].
    pub fn wait(&mut self) -> Result<LedgerEvent, Error> {
        self.runtime.block_on(self.stream.next())
    }
}

/// Posts signed messages to one endpoint; as [`webhook::Forwarder`].
#[derive(Debug)]
pub struct Forwarder {
    forwarder: webhook::Forwarder,
    runtime: Arc<Runtime>,
}

impl Client {
    /// As [`webhook::Forwarder::new`].
    pub fn forwarder(&self, url: &str, secret: webhook::Secret) -> Result<Forwarder, Error> {
        let forwarder = webhook::Forwarder::new(url, secret, self.client.options())?;
        Ok(Forwarder { forwarder, runtime: self.runtime.clone() })
    }
}

impl Forwarder {
    /// As [`webhook::Forwarder::post`].
    pub fn post(&self, id: &str, body: &str) -> Result<webhook::Delivery, Error> {
        self.runtime.block_on(self.forwarder.post(id, body))
    }
}
