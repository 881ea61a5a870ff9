//! TLS of the listener, by real handshakes: what is served, what is refused, and that a new certificate is taken.
//! The certificates in `tls-files` are for these tests alone.

#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

mod common;

use bursar_server::keys::{Key, KeyFile, KeySet, Role};
use bursar_server::{Keys, Limits, Options, ServeError, Server, Stopper, TlsFiles};
use common::{deposit, memory_ledger};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, ProtocolVersion, RootCertStore, StreamOwned, SupportedProtocolVersion};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls-files").join(name)
}

struct TlsServer {
    address: SocketAddr,
    stopper: Stopper,
    thread: Option<JoinHandle<Result<(), ServeError>>>,
    directory: tempfile::TempDir,
    key: String,
}

impl TlsServer {
    fn start(limits: Limits) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let key = Key::generate().unwrap();
        let keys = KeySet::new(vec![key.entry("test", Role::Operate, String::new())]).unwrap();
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        install(directory.path(), "one");
        let options = Options { listen, keys: Keys::Given(keys), limits, heed_signals: false, webhooks: Vec::new() };
        let server = Server::bind(options).unwrap().with_tls(files(directory.path())).unwrap();
        let (address, stopper) = (server.address(), server.stopper());
        let thread = Some(std::thread::spawn(move || server.run(memory_ledger(), || Ok(()))));
        Self { address, stopper, thread, directory, key: key.reveal() }
    }

    fn plain(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream
    }

    /// A call through TLS that trusts this certificate alone.
    fn call(
        &self,
        trusts: &str,
        version: &'static SupportedProtocolVersion,
        request: &str,
    ) -> io::Result<(ProtocolVersion, String)> {
        let mut roots = RootCertStore::empty();
        let certificate = fixture(&format!("{trusts}.cert.pem"));
        roots.add(CertificateDer::from_pem_file(certificate).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
        let config = config.with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut stream = StreamOwned::new(connection, self.plain());
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok((stream.conn.protocol_version().unwrap(), answer))
    }

    fn submit(&self, trusts: &str, id: u64) -> io::Result<String> {
        let (body, key) = (deposit(1, id, "5"), &self.key);
        let request = format!(
            "POST /v1/requests HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n\
             Content-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        Ok(self.call(trusts, &rustls::version::TLS13, &request)?.1)
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        self.stopper.stop();
        self.stopper.stop();
        let ended = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            ended.unwrap().unwrap();
        }
    }
}

fn files(directory: &Path) -> TlsFiles {
    TlsFiles { certificate: directory.join("cert.pem"), key: directory.join("key.pem") }
}

/// Puts a certificate and its key in place, each as a whole.
fn install(directory: &Path, name: &str) {
    for kind in ["key", "cert"] {
        let new = directory.join("new");
        std::fs::copy(fixture(&format!("{name}.{kind}.pem")), &new).unwrap();
        std::fs::rename(new, directory.join(format!("{kind}.pem"))).unwrap();
    }
}

const LIVE: &str = "GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

#[test]
fn both_versions_are_served_and_a_certificate_that_is_not_trusted_is_not() {
    let server = TlsServer::start(Limits::default());
    for (version, spoken) in
        [(&rustls::version::TLS13, ProtocolVersion::TLSv1_3), (&rustls::version::TLS12, ProtocolVersion::TLSv1_2)]
    {
        let (found, answer) = server.call("one", version, LIVE).unwrap();
        assert_eq!(found, spoken);
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with(r#"{"status":"live"}"#), "{answer}");
    }
    let answer = server.submit("one", 1).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains(r#""outcome":"applied""#), "{answer}");
    let error = server.call("other", &rustls::version::TLS13, LIVE).unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
}

#[test]
fn who_speaks_without_tls_is_told_and_who_says_nothing_is_closed() {
    // Longer than a slow machine takes for a handshake.
    let limits = Limits { handshake_wait: Duration::from_secs(3), ..Limits::default() };
    let server = TlsServer::start(limits);
    let mut plain = server.plain();
    plain.write_all(LIVE.as_bytes()).unwrap();
    let mut answer = Vec::new();
    // The rest of what was sent is not read, so that the connection may end with a reset behind the answer.
    let mut piece = [0; 512];
    while let Ok(count @ 1..) = plain.read(&mut piece) {
        answer.extend_from_slice(&piece[..count]);
    }
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("https://"), "{answer}");
    // A handshake that does not go on: nothing at all, and the beginning of one.
    let silent = [&b""[..], b"\x16\x03\x01\x02\x00\x01"].map(|sent| {
        let mut silent = server.plain();
        silent.write_all(sent).unwrap();
        silent
    });
    for mut silent in silent {
        assert_eq!(silent.read(&mut piece).unwrap_or(0), 0, "closed");
    }
    let mut nonsense = server.plain();
    nonsense.write_all(b"\x16\x03\x01\x00\x05hello").unwrap();
    let mut alert = Vec::new();
    nonsense.read_to_end(&mut alert).unwrap_or_default();
    assert!(!alert.starts_with(b"HTTP"));
    assert!(server.call("one", &rustls::version::TLS13, LIVE).is_ok(), "others are served");
}

#[test]
fn a_new_certificate_is_taken_and_a_bad_one_is_not() {
    let server = TlsServer::start(Limits::default());
    assert!(server.submit("one", 1).is_ok());
    install(server.directory.path(), "other");
    while server.submit("other", 2).is_err() {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(server.submit("one", 3).is_err());
    std::fs::write(files(server.directory.path()).certificate, "nonsense").unwrap();
    // Longer than it takes to look at the files again.
    std::thread::sleep(Duration::from_millis(2_500));
    assert!(server.submit("other", 4).is_ok(), "the one before is still in use");
}

#[test]
fn files_that_do_not_belong_together_are_refused_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    install(directory.path(), "one");
    let TlsFiles { certificate, key } = files(directory.path());
    let missing = directory.path().join("missing.pem");
    let table = [
        (certificate.clone(), fixture("other.key.pem")),
        (missing.clone(), key.clone()),
        (certificate.clone(), missing),
        (key.clone(), key),
        (certificate.clone(), certificate),
    ];
    for (certificate, key) in table {
        let options = Options {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            keys: Keys::File(KeyFile::of(directory.path())),
            limits: Limits::default(),
            webhooks: Vec::new(),
            heed_signals: false,
        };
        let story = format!("{} {}", certificate.display(), key.display());
        let refused = Server::bind(options).unwrap().with_tls(TlsFiles { certificate, key });
        assert!(matches!(refused, Err(ServeError::Tls(_))), "{story}");
    }
}
