//! TLS of the listener: TLS 1.2 and 1.3 with the defaults of rustls, one certificate, read again when its files change.
//!
//! A client has a bounded time for its handshake. Whoever speaks HTTP without TLS is told so, in HTTP. Certificates of
//! clients are not asked for: API keys say who they are.

use crate::server::ServeError;
use crate::timed_io::TimedIo;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How often it is looked whether the files have changed.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The first byte of every TLS connection: a handshake record.
const HANDSHAKE: u8 = 0x16;
/// What somebody without TLS is told.
const NOT_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: text/plain\r\n\
    content-length: 40\r\n\r\nThis port speaks TLS: write https://...\n";

/// Where a certificate and its key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and those between it and the root, in PEM.
    pub certificate: PathBuf,
    /// The private key, in PEM.
    pub key: PathBuf,
}

/// Why a certificate cannot be used.
#[derive(Clone, Debug)]
pub struct TlsError {
    /// The file at fault.
    pub path: PathBuf,
    /// What is wrong with it.
    pub what: String,
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cannot be used for TLS: {}", self.path.display(), self.what)
    }
}

impl std::error::Error for TlsError {}

/// What tells one state of a file from another.
type Stamp = Option<(u64, u64, SystemTime)>;

fn stamp(path: &Path) -> Stamp {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.ino(), metadata.size(), metadata.modified().ok()?))
}

impl TlsFiles {
    fn stamps(&self) -> [Stamp; 2] {
        [stamp(&self.certificate), stamp(&self.key)]
    }

    fn read(&self) -> Result<ServerConfig, TlsError> {
        let error = |path: &Path, what: String| TlsError { path: path.to_owned(), what };
        let of_certificate = |what: String| error(&self.certificate, what);
        let chain = CertificateDer::pem_file_iter(&self.certificate).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let chain = chain.map_err(|found| of_certificate(found.to_string()))?;
        if chain.is_empty() {
            return Err(of_certificate("it holds no certificate".to_owned()));
        }
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|found| error(&self.key, found.to_string()))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let versions = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let versions = versions.map_err(|found| of_certificate(found.to_string()))?;
        let config = versions.with_no_client_auth().with_single_cert(chain, key);
        let mut config = config.map_err(|found| of_certificate(found.to_string()))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// The certificate in use.
#[derive(Debug)]
pub(crate) struct Tls {
    files: TlsFiles,
    config: RwLock<Arc<ServerConfig>>,
}

/// What a connection turned out to be.
pub(crate) enum Accepted {
    /// TLS, and its handshake is done.
    Tls(Box<TlsStream<TimedIo<TcpStream>>>),
    /// It ended, or it was told that it has no place here.
    Over,
}

impl Tls {
    pub(crate) fn read(files: TlsFiles) -> Result<Self, ServeError> {
        let config = files.read().map_err(ServeError::Tls)?;
        Ok(Self { files, config: RwLock::new(Arc::new(config)) })
    }

    fn acceptor(&self) -> TlsAcceptor {
        self.config.read().unwrap_or_else(PoisonError::into_inner).clone().into()
    }

    /// Takes a connection through its handshake. To be bounded in time by the caller.
    pub(crate) async fn accept(&self, mut stream: TcpStream, write_wait: Duration) -> Accepted {
        let mut first = [0];
        match stream.peek(&mut first).await {
            Ok(1) if first[0] == HANDSHAKE => {}
            Ok(1) => {
                // Whoever does not read it sees a closed connection.
                stream.write_all(NOT_TLS).await.unwrap_or_default();
                stream.shutdown().await.unwrap_or_default();
                return Accepted::Over;
            }
            Ok(_) | Err(_) => return Accepted::Over,
        }
        match self.acceptor().accept(TimedIo::new(stream, write_wait)).await {
            Ok(stream) => Accepted::Tls(Box::new(stream)),
            Err(error) => {
                tracing::debug!("a handshake failed: {error}");
                Accepted::Over
            }
        }
    }

    /// Reads the files again when they have changed, and at SIGHUP where signals are heeded. What cannot be used is
    /// said, and the certificate before stays. Runs as long as the service.
    pub(crate) async fn follow(self: Arc<Self>, heed_signals: bool) {
        let mut hangups = if heed_signals { signal(SignalKind::hangup()).ok() } else { None };
        let mut seen = self.files.stamps();
        loop {
            let hangup = async {
                match &mut hangups {
                    Some(hangups) => hangups.recv().await,
                    None => std::future::pending().await,
                }
            };
            let is_asked = tokio::select! {
                _ = hangup => true,
                () = tokio::time::sleep(LOOK_EVERY) => false,
            };
            let files = self.files.clone();
            let looked = tokio::task::spawn_blocking(move || (files.stamps(), files));
            let Ok((stamps, files)) = looked.await else { continue };
            if stamps == seen && !is_asked {
                continue;
            }
            seen = stamps;
            match tokio::task::spawn_blocking(move || files.read()).await {
                Ok(Ok(config)) => {
                    *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
                    tracing::info!("the certificate was read again");
                }
                Ok(Err(error)) => tracing::error!("{error}; the certificate before is still in use"),
                Err(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_speaks_without_tls_is_told_in_http() {
        let text = std::str::from_utf8(NOT_TLS).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{}", body.len());
    }
}
