//! The listener and its connections: bounded in number, in what they may send, and in how long they may take.

use crate::api;
use crate::keys::{KeyFile, KeyFileError, KeySet, Ring};
use crate::limits::Limits;
use crate::metrics::Held;
use crate::openapi;
use crate::owner::OwnerSocket;
use crate::places::{NoPlace, Place, Places};
use crate::service::{Service, Stage};
use crate::timed_io::TimedIo;
use crate::webhooks::{Configured, Running, WebhookConfig, WebhookError};
use axum::Router;
use bursar_engine::{EngineError, Ledger};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// Bytes that are kept of what a client sends and nobody has asked for yet; hyper wants at least 8 KiB.
const READ_BUFFER_BYTES: usize = 128 << 10;
/// How long to wait after the system could not accept a connection, as when there are no file descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);
/// What one connection too many is told.
const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\n\
    content-type: application/problem+json\r\ncontent-length: 173\r\n\r\n\
    {\"type\":\"/problems/busy\",\"title\":\"Too much is under way. Nothing was decided.\",\"status\":503,\
    \"detail\":\"too many connections\",\"code\":\"busy\",\"hint\":\"Try again after a second.\"}";
/// What one connection too many from the same address is told.
const TOO_MANY_FROM_THERE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\n\
    content-type: application/problem+json\r\ncontent-length: 191\r\n\r\n\
    {\"type\":\"/problems/busy\",\"title\":\"Too much is under way. Nothing was decided.\",\"status\":503,\
    \"detail\":\"too many connections from this address\",\"code\":\"busy\",\"hint\":\"Try again after a second.\"}";

/// Where keys come from.
#[derive(Clone, Debug)]
pub enum Keys {
    /// The list in a ledger's directory, if there is one.
    File(KeyFile),
    /// These and no others.
    Given(KeySet),
}

/// How a service runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it listens. Port 0: any that is free.
    pub listen: SocketAddr,
    /// Its keys.
    pub keys: Keys,
    /// Its bounds.
    pub limits: Limits,
    /// Stop at SIGTERM and SIGINT; at the second one at once.
    pub heed_signals: bool,
    /// Who is told of events.
    pub webhooks: Vec<WebhookConfig>,
}

/// Why a service could not run, or stopped.
#[derive(Debug)]
pub enum ServeError {
    /// The address cannot be listened on.
    Listen {
        /// Which.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// The list of keys cannot be read.
    Keys(KeyFileError),
    /// Other machines could reach the service, and there is no key.
    KeysNeeded {
        /// Where it should listen.
        address: SocketAddr,
    },
    /// A webhook cannot be set up.
    Webhook(WebhookError),
    /// The system gave no threads or no signals.
    Runtime(io::Error),
    /// The engine stopped, or could not be closed.
    Engine(EngineError),
    /// Nobody could be told that the service is ready.
    Ready(io::Error),
    /// Traces cannot be sent.
    #[cfg(feature = "otel")]
    Traces(crate::traces::TraceError),
    /// The certificate cannot be used.
    #[cfg(feature = "tls")]
    Tls(crate::tls::TlsError),
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen { address, error } => write!(f, "cannot listen on {address}: {error}"),
            Self::Keys(error) => error.fmt(f),
            Self::KeysNeeded { address } => {
                write!(f, "{address} can be reached from other machines, and there is no API key")
            }
            Self::Webhook(error) => error.fmt(f),
            Self::Runtime(error) => write!(f, "the service cannot run: {error}"),
            Self::Engine(error) => error.fmt(f),
            #[cfg(feature = "otel")]
            Self::Traces(error) => error.fmt(f),
            #[cfg(feature = "tls")]
            Self::Tls(error) => error.fmt(f),
            Self::Ready(error) => write!(f, "nobody could be told that the service is ready: {error}"),
        }
    }
}

impl std::error::Error for ServeError {}

/// A service that listens and does not serve yet: connections wait until [`Server::run`].
#[derive(Debug)]
pub struct Server {
    listener: StdListener,
    address: SocketAddr,
    keys: Arc<Ring>,
    limits: Limits,
    heed_signals: bool,
    webhooks: Configured,
    directory: Option<PathBuf>,
    stage: watch::Sender<Stage>,
    #[cfg(feature = "tls")]
    tls: Option<Arc<crate::tls::Tls>>,
    #[cfg(feature = "otel")]
    traces: Option<crate::traces::TraceOptions>,
}

/// Stops a service from another thread.
#[derive(Clone, Debug)]
pub struct Stopper(watch::Sender<Stage>);

impl Stopper {
    /// Lets what is under way come to its end. A second time: does not wait for that any longer.
    pub fn stop(&self) {
        self.0.send_modify(|stage| {
            *stage = match stage {
                Stage::Running => Stage::Stopping,
                Stage::Stopping | Stage::Now => Stage::Now,
            }
        });
    }
}

impl Server {
    /// Reads the keys and begins to listen.
    pub fn bind(options: Options) -> Result<Self, ServeError> {
        let Options { listen, keys, limits, heed_signals, webhooks } = options;
        let webhooks = Configured::check(webhooks).map_err(ServeError::Webhook)?;
        let is_local = listen.ip().is_loopback();
        let ring = match keys {
            Keys::File(file) => {
                let has_key = file.read().map_err(ServeError::Keys)?.is_some_and(|keys| !keys.entries().is_empty());
                if !is_local && !has_key {
                    return Err(ServeError::KeysNeeded { address: listen });
                }
                Ring::of_file(file, !is_local).map_err(ServeError::Keys)?
            }
            Keys::Given(keys) => Ring::given(keys),
        };
        let listen_error = |error| ServeError::Listen { address: listen, error };
        let listener = StdListener::bind(listen).map_err(listen_error)?;
        listener.set_nonblocking(true).map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;
        let stage = watch::Sender::new(Stage::Running);
        Ok(Self {
            listener,
            address,
            keys: Arc::new(ring),
            limits,
            heed_signals,
            webhooks,
            directory: None,
            stage,
            #[cfg(feature = "tls")]
            tls: None,
            #[cfg(feature = "otel")]
            traces: None,
        })
    }

    /// Keeps in this directory how far webhooks have come, for a ledger that is in none itself.
    #[must_use]
    pub fn with_directory(self, directory: PathBuf) -> Self {
        Self { directory: Some(directory), ..self }
    }

    /// Speaks TLS with this certificate, and nothing else.
    #[cfg(feature = "tls")]
    pub fn with_tls(self, files: crate::tls::TlsFiles) -> Result<Self, ServeError> {
        Ok(Self { tls: Some(Arc::new(crate::tls::Tls::read(files)?)), ..self })
    }

    /// Sends a span of every request to a collector.
    #[cfg(feature = "otel")]
    #[must_use]
    pub fn with_traces(self, options: crate::traces::TraceOptions) -> Self {
        Self { traces: Some(options), ..self }
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether clients need a key.
    pub fn needs_key(&self) -> bool {
        self.keys.is_required()
    }

    /// Stops it, also while it runs.
    pub fn stopper(&self) -> Stopper {
        Stopper(self.stage.clone())
    }

    /// Serves a ledger until it is stopped, then closes it. `ready` is called when signals are heeded and connections
    /// are accepted.
    pub fn run(self, ledger: Ledger, ready: impl FnOnce() -> io::Result<()>) -> Result<(), ServeError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .thread_name("bursar-serve")
            .build()
            .map_err(ServeError::Runtime)?;
        let Self { listener, address, keys, mut limits, heed_signals, webhooks, directory, stage, .. } = self;
        #[cfg(feature = "tls")]
        let transport = Transport { tls: self.tls };
        #[cfg(not(feature = "tls"))]
        let transport = Transport {};
        limits.connections_max = limits.connections_max.min(files_max(limits.connections_max));
        let document = openapi::text().into();
        let webhooks = webhooks.open(&ledger, directory.as_deref()).map_err(ServeError::Webhook)?;
        #[cfg(feature = "otel")]
        let traces = self.traces.map(|options| crate::traces::start(&options, runtime.handle())).transpose();
        #[cfg(feature = "otel")]
        let traces = traces.map_err(ServeError::Traces)?.unwrap_or_default();
        #[cfg(not(feature = "otel"))]
        let traces = crate::traces::Traces::default();
        let service = Service::new(ledger, keys, limits, document, stage).with_webhooks(webhooks);
        let service = Arc::new(service.with_traces(traces.clone()));
        let served = runtime.block_on(serve(&service, listener, address, transport, heed_signals, ready));
        traces.end();
        // Waits for what runs on threads of its own: reads, which end by themselves unless the stores do not answer, and
        // batches, whose clients are gone by now.
        runtime.shutdown_timeout(service.limits.stop_wait);
        let stop_wait = service.limits.stop_wait;
        let Some(service) = Arc::into_inner(service) else {
            tracing::error!("something still holds the ledger, which is left as it is: nothing acknowledged is lost");
            return served;
        };
        let (ledger, failure) = service.into_parts();
        let closed = close(ledger, stop_wait);
        match failure {
            Some(failure) => Err(ServeError::Engine(EngineError::clone(&failure))),
            None => served.and(closed.map_err(ServeError::Engine)),
        }
    }
}

/// Closes a ledger. One in other stores is given up after a while if they do not answer: what waits for them was never
/// acknowledged. One in a directory always comes to its end, and has the next start find it as it should be.
fn close(ledger: Ledger, wait: Duration) -> Result<(), EngineError> {
    if ledger.embedded().is_some() {
        return ledger.close();
    }
    let (closed, told) = std::sync::mpsc::channel();
    // Where nobody waits any more, nobody is told.
    let closing = move || drop(closed.send(ledger.close()));
    if let Err(error) = std::thread::Builder::new().name("bursar-close".to_owned()).spawn(closing) {
        tracing::error!("the ledger is left as it is, since the system gives no thread: {error}");
        return Ok(());
    }
    told.recv_timeout(wait).unwrap_or_else(|_| {
        tracing::error!("the stores do not answer, and are left as they are: nothing acknowledged is lost");
        Ok(())
    })
}

/// Asks the system for as many open files as so many connections need; gives how many connections that allows.
fn files_max(connections: usize) -> usize {
    use rustix::process::{Resource, getrlimit, setrlimit};
    /// The ledger's own files, and some to spare.
    const OTHERS: u64 = 256;
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = connections as u64 + OTHERS;
    if limit.current.is_some_and(|current| current < wanted) {
        let before = limit.current;
        limit.current = Some(limit.maximum.map_or(wanted, |maximum| maximum.min(wanted)));
        if setrlimit(Resource::Nofile, limit).is_err() {
            limit.current = before;
        }
    }
    let connections = limit.current.map_or(u64::MAX, |current| current.saturating_sub(OTHERS).max(current / 2));
    usize::try_from(connections).unwrap_or(usize::MAX)
}

/// How bytes of a connection are understood.
#[derive(Clone, Debug)]
struct Transport {
    #[cfg(feature = "tls")]
    tls: Option<Arc<crate::tls::Tls>>,
}

async fn serve(
    service: &Arc<Service>,
    listener: StdListener,
    address: SocketAddr,
    transport: Transport,
    heed_signals: bool,
    ready: impl FnOnce() -> io::Result<()>,
) -> Result<(), ServeError> {
    let listener = TcpListener::from_std(listener).map_err(|error| ServeError::Listen { address, error })?;
    if heed_signals {
        heed(Stopper(service.stage.clone())).map_err(ServeError::Runtime)?;
    }
    tokio::spawn(service.keys.clone().follow());
    let owner = service.ledger.embedded().map(|store| OwnerSocket::open(store.path()));
    let owner = owner.and_then(|opened| match opened {
        Ok(socket) => Some(tokio::spawn(socket.answer(service.clone()))),
        Err(error) => {
            tracing::warn!("backups cannot ask how far the journal is durable: {error}");
            None
        }
    });
    #[cfg(feature = "tls")]
    if let Some(tls) = &transport.tls {
        tokio::spawn(tls.clone().follow(heed_signals));
    }
    let router = api::router(service);
    let places = Places::new(service.limits.connections_max, service.limits.connections_per_address_max);
    let mut stage = service.stage.subscribe();
    let webhooks = Running::start(service);
    let looking = tokio::spawn(crate::follow::look(service.clone()));
    ready().map_err(ServeError::Ready)?;
    tracing::info!(%address, keys_required = service.keys.is_required(), "serving");
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = reached(&mut stage, Stage::Stopping) => break,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("a connection could not be accepted: {error}");
                sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        match places.take(from.ip()) {
            Ok(place) => {
                drop(tokio::spawn(connection(service.clone(), router.clone(), stream, transport.clone(), place)));
            }
            Err(none) => {
                service.metrics.connection_refused(none);
                let told = match none {
                    NoPlace::All => TOO_MANY,
                    NoPlace::Address => TOO_MANY_FROM_THERE,
                };
                // As much as the system takes at once; whoever does not read it sees a closed connection.
                drop(stream.try_write(told));
            }
        }
    }
    drop(listener);
    tracing::info!("stopping: what is under way is being finished");
    let ended = timeout(service.limits.stop_wait, places.all_free());
    tokio::select! {
        ended = ended => if ended.is_err() {
            tracing::warn!("some connections did not come to their end in time");
        },
        () = reached(&mut stage, Stage::Now) => tracing::warn!("stopped at once"),
    }
    if let Some(owner) = owner {
        owner.abort();
        // It holds the ledger until it is gone; that it was stopped is all it can say.
        owner.await.unwrap_or_default();
    }
    webhooks.stopped(service.limits.stop_wait).await;
    looking.abort();
    // As the owner's socket.
    looking.await.unwrap_or_default();
    tracing::info!("stopped");
    Ok(())
}

/// Ends when the service is so far. (Its sender lives as long as the service.)
async fn reached(stage: &mut watch::Receiver<Stage>, wanted: Stage) {
    if stage.wait_for(|stage| *stage >= wanted).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Stops the service at SIGTERM and SIGINT.
fn heed(stopper: Stopper) -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            stopper.stop();
        }
    });
    Ok(())
}

async fn connection(service: Arc<Service>, router: Router, stream: TcpStream, transport: Transport, place: Place) {
    let _held = Held::one(&service.metrics.connections);
    // Answers are small and must not wait for the next one; where that cannot be had, they come later.
    stream.set_nodelay(true).unwrap_or_default();
    let limits = &service.limits;
    #[cfg(feature = "tls")]
    if let Some(tls) = &transport.tls {
        let mut stage = service.stage.subscribe();
        let accepted = tokio::select! {
            accepted = timeout(limits.handshake_wait, tls.accept(stream, limits.write_wait)) => accepted,
            () = reached(&mut stage, Stage::Stopping) => return,
        };
        if let Ok(crate::tls::Accepted::Tls(stream)) = accepted {
            exchange(&service, router, *stream).await;
        }
        drop(place);
        return;
    }
    #[cfg(not(feature = "tls"))]
    let Transport {} = transport;
    exchange(&service, router, TimedIo::new(stream, limits.write_wait)).await;
    drop(place);
}

/// Serves a connection to its end.
async fn exchange(service: &Service, router: Router, stream: impl AsyncRead + AsyncWrite + Unpin) {
    let limits = &service.limits;
    let io = TokioIo::new(stream);
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_wait)
        .max_header_size(limits.header_bytes_max)
        .max_buf_size(READ_BUFFER_BYTES.max(limits.header_bytes_max))
        .half_close(true);
    let mut served = pin!(builder.serve_connection(io, TowerToHyperService::new(router)));
    let mut stage = service.stage.subscribe();
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = reached(&mut stage, Stage::Stopping) => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        // What a client does wrong on the way is its own affair.
        tracing::debug!("a connection ended early: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_connection_too_many_is_told_so_in_http() {
        for told in [TOO_MANY, TOO_MANY_FROM_THERE] {
            let text = std::str::from_utf8(told).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.ends_with(&format!("content-length: {}", body.len())), "{}", body.len());
            let document: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(document["code"], "busy");
        }
    }
}
