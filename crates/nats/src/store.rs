//! The store: preparing streams, creating and opening a ledger in them, and what all calls share: which stream a
//! customer is in, what was found wrong, and that nothing goes on after a write that failed.
//!
//! What this module does not do: the calls of a store of chains ([`crate::chains`]), or what happens in one stream
//! ([`crate::shard`]).

use crate::entries::{self, Order};
use crate::error::{damaged, failed};
use crate::follow::Known;
use crate::ledger::LedgerMessage;
use crate::message;
use crate::net::{Net, Published, Stored};
use crate::options::NatsOptions;
use crate::settings::{Weakness, create_stream, subjects, weaknesses};
use crate::shard::{Shard, State};
use bursar_engine::core::{CustomerId, Hash, LedgerConfig};
use bursar_engine::store::StoreError;
use bytes::Bytes;
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// How many findings are kept.
const FINDINGS_MAX: usize = 1000;
/// How often the first server that answers is looked for.
const FIRST_ASKS: u32 = 5;
/// After so many answers without anything a server is a finding.
const EMPTY_ANSWERS_MAX: u32 = 10;
/// How long to wait before asking again.
pub(crate) const PAUSE: Duration = Duration::from_millis(20);

/// One replica of a stream does not give a message that it must have, or gives it damaged, while another one has it.
/// Nothing is lost yet; that replica should be made anew (`docs/nats.md`, "Operations").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The server's name, where it is known.
    pub server: Option<String>,
    /// Which stream.
    pub stream: String,
    /// The message's sequence there.
    pub seq: u64,
}

/// Chains in a cluster of NATS `JetStream`.
#[derive(Debug)]
pub struct NatsChains {
    pub(crate) inner: Arc<Inner>,
    /// Taken out when the store is dropped.
    runtime: Option<Runtime>,
}

/// What all calls share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) net: Net,
    pub(crate) options: NatsOptions,
    pub(crate) prefix: String,
    pub(crate) digest: Hash,
    /// This store among all that ever wrote to these streams.
    pub(crate) writer: u64,
    config: LedgerConfig,
    weaknesses: Vec<Weakness>,
    /// How many servers must say the same of heads that are not in memory: two, where there are as many.
    pub(crate) read_replicas: usize,
    number: AtomicU64,
    pub(crate) shards: Vec<Shard>,
    /// `None` for a ledger without a feed.
    pub(crate) order: Option<Order>,
    findings: Mutex<Vec<Finding>>,
    /// How often servers have answered without what they must have, by name.
    empty_answers: Mutex<HashMap<String, u32>>,
    poison: Mutex<Option<Arc<StoreError>>>,
}

/// Runs calls to the cluster on threads of its own, so that a caller may be on any thread.
fn wait<T: Send + 'static>(
    runtime: &Runtime,
    work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
) -> Result<T, StoreError> {
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    runtime.spawn(async move {
        // Whoever asked waits for the answer.
        drop(sender.send(work.await));
    });
    receiver.recv().unwrap_or_else(|_| Err(failed("finish a call to the cluster", "", "the call panicked")))
}

fn runtime() -> Result<Runtime, StoreError> {
    let built =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("bursar-nats").enable_all().build();
    built.map_err(|error| failed("start threads", "", error))
}

pub(crate) fn stream_name(prefix: &str, shard: u16) -> String {
    format!("{prefix}-chains-{shard}")
}

/// The streams of chains, with their subjects.
fn streams_of(prefix: &str, shard_count: u16) -> Vec<(String, Vec<String>)> {
    (0..shard_count).map(|shard| (stream_name(prefix, shard), subjects(prefix, shard))).collect()
}

/// The stream that keeps the order of the feed.
fn feed_stream(prefix: &str) -> (String, Vec<String>) {
    (entries::stream_name(prefix), vec![entries::subject(prefix)])
}

/// Whether the ledger has a feed: a stream that keeps its order.
async fn has_feed(net: &Net, options: &NatsOptions) -> Result<bool, StoreError> {
    let stream = entries::stream_name(&options.prefix);
    match net.patient_api(&format!("STREAM.INFO.{stream}"), &json!({}), options.patience).await? {
        Ok(_) => Ok(true),
        // No such stream.
        Err(error) if error.err_code == 10059 => Ok(false),
        Err(error) => Err(failed("look for the order of the feed", &stream, error.description)),
    }
}

/// Refuses streams that hold chains, or held some, where none says of which ledger: what said so is lost. A new ledger in
/// them would go on with somebody else's money, and one stream made anew would be empty.
async fn check_unused(net: &Net, options: &NatsOptions) -> Result<(), StoreError> {
    let first = stream_name(&options.prefix, 0);
    let ask = |call: String, body| async move {
        let answer = net.patient_api(&call, &body, options.patience).await?;
        answer.map_err(|error| failed("look for chains of another ledger", &options.prefix, error.description))
    };
    let body = json!({ "subject": format!("{}.chain.>", options.prefix) });
    let found = ask("STREAM.NAMES".to_owned(), body).await?;
    let mut used = None;
    for stream in found["streams"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let body = json!({ "subjects_filter": format!("{}.ledger", options.prefix) });
        let state = &ask(format!("STREAM.INFO.{stream}"), body).await?["state"];
        if state["subjects"].as_object().is_some_and(|found| !found.is_empty()) {
            // There is a ledger.
            return Ok(());
        }
        // A creation that was interrupted may have left barriers in the first one.
        if state["num_subjects"].as_u64().unwrap_or(0) > u64::from(stream == first) {
            used = Some(stream.to_owned());
        }
    }
    let Some(used) = used else { return Ok(()) };
    let what = format!(
        "{used} holds chains, and nothing says of which ledger: this stream was lost, or is not what it was; put the \
         servers' directories of one moment back from a copy"
    );
    Err(damaged(&first, 0, what))
}

fn check_options(options: &NatsOptions) -> Result<(), StoreError> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if options.prefix.is_empty() || options.prefix.len() > 64 || !options.prefix.bytes().all(good) {
        return Err(failed("use this prefix", &options.prefix, "it has 1 to 64 letters, digits, '-' or '_'"));
    }
    if options.shard_count == 0 {
        return Err(failed("use these settings", "shard_count", "a ledger has at least one stream"));
    }
    Ok(())
}

/// What [`prepare`] has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// The streams, by name.
    pub streams: Vec<String>,
    /// The ledger that lies in them; `None` where there is none yet.
    pub ledger: Option<LedgerConfig>,
    /// What is weak about them; empty unless [`NatsOptions::allow_weak`].
    pub weaknesses: Vec<Weakness>,
}

/// Creates the streams for a ledger that is to be, or checks those of one that is there. A stream that is missing from a
/// ledger is an error: one made anew would be empty.
pub fn prepare(options: NatsOptions) -> Result<Prepared, StoreError> {
    check_options(&options)?;
    let runtime = runtime()?;
    let prepared = wait(&runtime, async move {
        let net = Net::connect(&options).await?;
        let ledger = match find_ledger(&net, &options).await {
            Ok(message) => Some(message),
            Err(StoreError::NotFound { .. }) => None,
            Err(error) => return Err(error),
        };
        let shard_count = ledger.as_ref().map_or(options.shard_count, |message| message.shard_count);
        let mut all = streams_of(&options.prefix, shard_count);
        let streams = all.iter().map(|(stream, _)| stream.clone()).collect();
        if ledger.is_none() {
            check_unused(&net, &options).await?;
            for (stream, subjects) in &all {
                create_stream(&net, &options, stream, subjects).await?;
            }
        }
        // An order that is not there is begun anew, and all of the ledger is in it.
        let (stream, subjects) = feed_stream(&options.prefix);
        if !has_feed(&net, &options).await? {
            create_stream(&net, &options, &stream, &subjects).await?;
        }
        all.push((stream, subjects));
        let (weaknesses, _) = checked(&net, &options, &all).await?;
        Ok(Prepared { streams, ledger: ledger.map(|message| message.config), weaknesses })
    });
    // A caller may be on a thread of another runtime, which must not wait for this one.
    runtime.shutdown_background();
    prepared
}

/// What is weak about the streams and servers, if that is allowed; and how many servers keep each stream.
async fn checked(
    net: &Net,
    options: &NatsOptions,
    streams: &[(String, Vec<String>)],
) -> Result<(Vec<Weakness>, u64), StoreError> {
    let (weaknesses, replicas) = weaknesses(net, options, streams).await?;
    if !weaknesses.is_empty() && !options.allow_weak {
        let all: Vec<String> = weaknesses.iter().map(ToString::to_string).collect();
        return Err(failed("keep money safe with these settings", &options.prefix, all.join("; ")));
    }
    Ok((weaknesses, replicas))
}

impl NatsChains {
    /// Creates a ledger's streams, and opens them.
    pub fn create(config: &LedgerConfig, options: NatsOptions) -> Result<Self, StoreError> {
        check_options(&options)?;
        let runtime = runtime()?;
        let message = LedgerMessage { config: config.clone(), shard_count: options.shard_count };
        let inner = wait(&runtime, async move {
            let net = Net::connect(&options).await?;
            check_unused(&net, &options).await?;
            for (stream, subjects) in streams_of(&options.prefix, options.shard_count) {
                create_stream(&net, &options, &stream, &subjects).await?;
            }
            let (stream, subjects) = feed_stream(&options.prefix);
            create_stream(&net, &options, &stream, &subjects).await?;
            // Checked before the ledger is there, so that it can be tried again with other settings.
            let inner = Inner::new(net, options, &message).await?;
            inner.found(&message).await?;
            Ok(inner)
        })?;
        Ok(Self { inner: Arc::new(inner), runtime: Some(runtime) })
    }

    /// Opens the chains of a ledger. [`NatsOptions::shard_count`] and [`NatsOptions::replicas`] are the ledger's own.
    pub fn open(options: NatsOptions) -> Result<Self, StoreError> {
        check_options(&options)?;
        let runtime = runtime()?;
        let inner = wait(&runtime, async move {
            let net = Net::connect(&options).await?;
            let message = find_ledger(&net, &options).await?;
            let inner = Inner::new(net, options, &message).await?;
            // What was read is not certain to be what was stored first, before a barrier has come behind it.
            let until = Instant::now() + inner.options.patience;
            let subject = format!("{}.ledger", inner.prefix);
            let (stored, _) = inner.newest_of(&subject, until).await?;
            let same = stored.is_some_and(|stored| LedgerMessage::decode(&stored.payload).as_ref() == Ok(&message));
            if !same {
                return Err(damaged(&stream_name(&inner.prefix, 0), 0, "it says two things of which ledger it holds"));
            }
            Ok(inner)
        })?;
        Ok(Self { inner: Arc::new(inner), runtime: Some(runtime) })
    }

    /// The ledger's identity, rules and currencies.
    pub fn config(&self) -> &LedgerConfig {
        &self.inner.config
    }

    /// The weak settings that it was opened with all the same; empty unless [`NatsOptions::allow_weak`].
    pub fn weaknesses(&self) -> &[Weakness] {
        &self.inner.weaknesses
    }

    /// What was found wrong with single replicas since it was opened, oldest first. An operator must hear of it.
    pub fn findings(&self) -> Vec<Finding> {
        self.inner.findings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn run<T, F>(&self, work: impl FnOnce(Arc<Inner>) -> F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        self.inner.check_poison()?;
        let Some(runtime) = &self.runtime else { return Err(failed("ask the cluster", "", "the store is closed")) };
        wait(runtime, work(self.inner.clone()))
    }

    /// Like [`NatsChains::run`]; after an error, nobody knows what was written.
    pub(crate) fn write<T, F>(&self, work: impl FnOnce(Arc<Inner>) -> F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let written = self.run(work);
        if let Err(error) = &written {
            let mut poison = self.inner.poison.lock().unwrap_or_else(PoisonError::into_inner);
            poison.get_or_insert_with(|| Arc::new(error.clone()));
        }
        written
    }

    /// Looks at every chain's end; gives what is made of them.
    pub(crate) fn fold<T: Send + 'static>(
        &self,
        start: T,
        mut take: impl FnMut(&mut T, CustomerId, &Known) + Send + 'static,
    ) -> Result<T, StoreError> {
        self.run(|inner| async move {
            let mut made = start;
            for shard in &inner.shards {
                let customers: Vec<CustomerId> = {
                    let until = inner.until();
                    let mut state = shard.fresh(&inner, until).await?;
                    shard.customers(&inner, &mut state, until).await?.iter().copied().collect()
                };
                // A few at a time, each with patience of its own: batches go on in between, however many there are. What
                // is known is never older than the barrier above.
                for customers in customers.chunks(inner.options.cache_customers_max.clamp(1, 1000)) {
                    let until = inner.until();
                    let mut state = shard.locked(until).await?;
                    shard.bring(&inner, &mut state, customers, until).await?;
                    for &customer in customers {
                        take(&mut made, customer, shard.head(&state, customer)?);
                    }
                }
            }
            Ok(made)
        })
    }
}

impl Drop for NatsChains {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // May be on a thread of another runtime, which must not wait for this one.
            runtime.shutdown_background();
        }
    }
}

/// Reads which ledger it is, from any server.
async fn find_ledger(net: &Net, options: &NatsOptions) -> Result<LedgerMessage, StoreError> {
    let stream = stream_name(&options.prefix, 0);
    let not_found = || StoreError::NotFound { path: PathBuf::from(format!("{}/{stream}", options.servers.join(","))) };
    if let Err(error) = net.patient_api(&format!("STREAM.INFO.{stream}"), &json!({}), options.patience).await? {
        // 10059: no such stream.
        return Err(if error.err_code == 10059 {
            not_found()
        } else {
            failed("look for a ledger", &stream, error.description)
        });
    }
    let subject = format!("{}.ledger", options.prefix);
    let until = Instant::now() + options.patience;
    // A replica that has only just come may have nothing yet.
    for ask in 0.. {
        if ask >= FIRST_ASKS && Instant::now() > until {
            break;
        }
        let Some(found) = net.newest(&stream, std::slice::from_ref(&subject)).await else { continue };
        if let Some(stored) = found.messages.get(&subject) {
            return LedgerMessage::decode(&stored.payload)
                .map_err(|error| damaged(&stream, stored.seq, format!("which ledger it is: {}", error.0)));
        }
        if ask >= FIRST_ASKS {
            tokio::time::sleep(PAUSE).await;
        }
    }
    Err(not_found())
}

impl Inner {
    async fn new(net: Net, options: NatsOptions, message: &LedgerMessage) -> Result<Self, StoreError> {
        let mut streams = streams_of(&options.prefix, message.shard_count);
        let shards = (0..).zip(&streams).map(|(number, (stream, _))| Shard::new(number, stream.clone())).collect();
        let has_feed = has_feed(&net, &options).await?;
        streams.extend(has_feed.then(|| feed_stream(&options.prefix)));
        let (weaknesses, replicas) = checked(&net, &options, &streams).await?;
        for weakness in &weaknesses {
            tracing::warn!(%weakness, "opened with a weak setting");
        }
        let mut writer = [0; 8];
        getrandom::fill(&mut writer).map_err(|error| failed("get random bytes", "", error))?;
        Ok(Self {
            net,
            prefix: options.prefix.clone(),
            order: has_feed.then(|| Order::new(&options.prefix)),
            options,
            digest: message.config.digest(),
            writer: u64::from_be_bytes(writer),
            config: message.config.clone(),
            weaknesses,
            read_replicas: if replicas < 2 { 1 } else { 2 },
            number: AtomicU64::new(1),
            shards,
            findings: Mutex::default(),
            empty_answers: Mutex::default(),
            poison: Mutex::default(),
        })
    }

    /// Makes the ledger be there; only one can.
    async fn found(&self, message: &LedgerMessage) -> Result<(), StoreError> {
        let subject = format!("{}.ledger", self.prefix);
        let until = self.until();
        let payload = Bytes::from(message.encode());
        loop {
            match self.net.publish(&subject, Some(0), payload.clone()).await {
                Published::At(_) => return Ok(()),
                Published::Refused(..) | Published::Unknown => {
                    let (stored, _) = self.newest_of(&subject, until).await?;
                    match stored {
                        Some(stored) if stored.payload == payload => return Ok(()),
                        Some(_) => return Err(StoreError::Exists { path: PathBuf::from(&self.prefix) }),
                        None if Instant::now() > until => {
                            return Err(failed("create a ledger", &subject, "it is not taken"));
                        }
                        None => tokio::time::sleep(PAUSE).await,
                    }
                }
            }
        }
    }

    pub(crate) fn until(&self) -> Instant {
        Instant::now() + self.options.patience
    }

    pub(crate) fn next_number(&self) -> u64 {
        self.number.fetch_add(1, Ordering::Relaxed)
    }

    /// Whose chain a subject is.
    pub(crate) fn customer_of(&self, subject: &str) -> Option<CustomerId> {
        let rest = subject.strip_prefix(self.prefix.as_str())?.strip_prefix(".chain.")?;
        let (_, customer) = rest.split_once('.')?;
        CustomerId::parse(customer.as_bytes()).ok()
    }

    /// Whether a message is as it was written.
    pub(crate) fn is_sound(&self, stored: &Stored) -> bool {
        stored.payload.is_empty() != self.is_written(&stored.subject)
            && (stored.payload.is_empty() || message::is_whole(&stored.payload))
    }

    /// Whether messages of this subject have content.
    fn is_written(&self, subject: &str) -> bool {
        !subject.strip_prefix(self.prefix.as_str()).is_some_and(|rest| rest.starts_with(".sync."))
    }

    /// Notes that a replica does not give a message that it must have.
    pub(crate) fn note_lost(&self, stream: &str, seq: u64, server: Option<String>) {
        let mut findings = self.findings.lock().unwrap_or_else(PoisonError::into_inner);
        let finding = Finding { server, stream: stream.to_owned(), seq };
        if !findings.contains(&finding) && findings.len() < FINDINGS_MAX {
            let server = finding.server.as_deref().unwrap_or("unknown");
            tracing::error!(server, stream, seq, "a replica has lost or damaged a message; another one has it");
            findings.push(finding);
        }
    }

    /// A server has answered with nothing at all, not even a barrier: as one does that finds a damaged message among
    /// those asked for, or that is only just taking in the stream. If it goes on, it is a finding.
    pub(crate) fn note_empty(&self, stream: &str, seq: u64, server: Option<String>) {
        let Some(server) = server else { return };
        let mut empty = self.empty_answers.lock().unwrap_or_else(PoisonError::into_inner);
        let count = empty.entry(server.clone()).or_insert(0);
        *count += 1;
        if *count == EMPTY_ANSWERS_MAX {
            self.note_lost(stream, seq, Some(server));
        }
    }

    pub(crate) fn check_poison(&self) -> Result<(), StoreError> {
        match &*self.poison.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(cause) => Err(StoreError::Poisoned { cause: cause.clone() }),
            None => Ok(()),
        }
    }

    pub(crate) fn shard_of(&self, customer: CustomerId) -> &Shard {
        let place = message::crc32c(&customer.bits().to_be_bytes()) as usize % self.shards.len();
        &self.shards[place]
    }

    /// Things about customers, by the shard that each is in.
    pub(crate) fn by_shard<T>(
        &self,
        things: impl Iterator<Item = (CustomerId, T)>,
    ) -> Vec<(&Shard, Vec<(CustomerId, T)>)> {
        let mut groups: Vec<(&Shard, Vec<(CustomerId, T)>)> =
            self.shards.iter().map(|shard| (shard, Vec::new())).collect();
        for (customer, thing) in things {
            groups[usize::from(self.shard_of(customer).number)].1.push((customer, thing));
        }
        groups.retain(|(_, group)| !group.is_empty());
        groups
    }

    /// The heads of customers, and where their newest messages are, as of a moment within this call.
    pub(crate) async fn heads(&self, customers: &[CustomerId]) -> Result<Vec<Known>, StoreError> {
        let until = self.until();
        let mut heads: Vec<Option<Known>> = vec![None; customers.len()];
        let groups = self.by_shard(customers.iter().enumerate().map(|(place, customer)| (*customer, place)));
        let found = try_join_all(groups.into_iter().map(|(shard, group)| async move {
            let mut state = shard.fresh(self, until).await?;
            let wanted: Vec<CustomerId> = group.iter().map(|(customer, _)| *customer).collect();
            shard.bring(self, &mut state, &wanted, until).await?;
            let state: &State = &state;
            group
                .into_iter()
                .map(|(customer, place)| Ok((place, shard.head(state, customer)?.clone())))
                .collect::<Result<Vec<_>, StoreError>>()
        }));
        for (place, known) in found.await?.into_iter().flatten() {
            heads[place] = Some(known);
        }
        heads.into_iter().map(|head| head.ok_or_else(|| failed("load heads", &self.prefix, "one is missing"))).collect()
    }

    /// The subjects of a stream that match, and the sequence up to which that is so: `at_least`, or later.
    pub(crate) async fn subjects(
        &self,
        stream: &str,
        filter: &str,
        at_least: u64,
        until: Instant,
    ) -> Result<(Vec<String>, u64), StoreError> {
        let mut subjects: Vec<String> = Vec::new();
        let mut seq = 0;
        loop {
            let body = json!({ "subjects_filter": filter, "offset": subjects.len() });
            let info = self.net.api(&format!("STREAM.INFO.{stream}"), &body).await;
            if let Ok(Ok(info)) = info {
                let last_seq = info["state"]["last_seq"].as_u64().unwrap_or(0);
                if last_seq >= at_least {
                    seq = if seq == 0 { last_seq } else { seq.min(last_seq) };
                    let found = info["state"]["subjects"].as_object();
                    let before = subjects.len();
                    subjects.extend(found.into_iter().flat_map(|found| found.keys().cloned()));
                    let total = info["total"].as_u64().unwrap_or(0) as usize;
                    if subjects.len() >= total || subjects.len() == before {
                        return Ok((subjects, seq));
                    }
                    continue;
                }
            }
            if Instant::now() > until {
                return Err(failed("list the subjects of a stream", stream, "no server knows them all"));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The newest message of a subject of the first stream, as of a moment within this call, and that moment.
    pub(crate) async fn newest_of(&self, subject: &str, until: Instant) -> Result<(Option<Stored>, u64), StoreError> {
        let Some(shard) = self.shards.first() else {
            return Err(failed("find a stream", &self.prefix, "there is none"));
        };
        let seq = shard.fresh(self, until).await?.barrier_seq;
        let barrier = shard.barrier_subject(self);
        loop {
            let found = self.net.newest(&shard.stream, &[subject.to_owned(), barrier.clone()]).await;
            if let Some(mut found) = found {
                // A replica that has the barrier has all before it.
                if found.messages.get(&barrier).is_some_and(|stored| stored.seq >= seq) {
                    return Ok((found.messages.remove(subject), seq));
                }
            }
            if Instant::now() > until {
                return Err(failed("read a subject", subject, "no server gives it"));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
