//! The client over TLS against the real service, whose certificate a private authority has signed. The client trusts that
//! authority if it is told to; otherwise whom the system trusts, and `SSL_CERT_FILE` says who that is: such a call is made by
//! a process of its own, which is this very test program.
//!
//! The certificates are those of the server's tests. Their authority's key is gone, so nobody can sign with it.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

#[path = "../../server/tests/common/mod.rs"]
mod common;

use bursar_client::blocking::Client;
use bursar_client::webhook::Secret;
use bursar_client::{Error, Options, Outcome, Submission, SubmitError};
use bursar_core::{CustomerId, TransactionId};
use bursar_server::keys::KeyFile;
use bursar_server::{Keys, Limits, ServeError, Server, Stopper, TlsFiles};
use common::memory_ledger;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::JoinHandle;
use std::time::Duration;

/// Where the child calls, and whether that is a deposit that comes through.
const URL: &str = "BURSAR_TEST_URL";

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../server/tests/tls-files").join(name)
}

/// A service that speaks TLS with the certificate of this name, stopped in the end.
struct TlsServer {
    address: SocketAddr,
    stopper: Stopper,
    thread: Option<JoinHandle<Result<(), ServeError>>>,
    // Keeps the directory of keys.
    _directory: tempfile::TempDir,
}

impl TlsServer {
    fn start(name: &str) -> Self {
        let files =
            TlsFiles { certificate: fixture(&format!("{name}.cert.pem")), key: fixture(&format!("{name}.key.pem")) };
        let directory = tempfile::tempdir().unwrap();
        let (listen, keys) = (SocketAddr::from(([127, 0, 0, 1], 0)), Keys::File(KeyFile::of(directory.path())));
        let options = bursar_server::Options {
            listen,
            keys,
            limits: Limits::default(),
            heed_signals: false,
            webhooks: Vec::new(),
        };
        let server = Server::bind(options).unwrap().with_tls(files).unwrap();
        let (address, stopper) = (server.address(), server.stopper());
        let thread = Some(std::thread::spawn(move || server.run(memory_ledger(), || Ok(()))));
        Self { address, stopper, thread, _directory: directory }
    }

    /// What a process that trusts this file says of a deposit.
    fn submit(&self, trusted: &str, host: &str) -> String {
        let url = format!("https://{host}:{}", self.address.port());
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["the_call_of_a_process_of_its_own", "--exact", "--ignored", "--nocapture"])
            .env("SSL_CERT_FILE", fixture(trusted))
            .env_remove("SSL_CERT_DIR")
            .env(URL, url)
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        said.lines().find(|line| line.starts_with("told: ")).unwrap_or_else(|| panic!("{said}")).to_owned()
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        self.stopper.stop();
        let ended = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            ended.unwrap().unwrap();
        }
    }
}

/// Run by the others, in processes of their own.
#[test]
#[ignore = "a part of the other tests, which run it"]
fn the_call_of_a_process_of_its_own() {
    let url = std::env::var(URL).unwrap_or_else(|_| panic!("{URL} says where to call; the other tests set it"));
    println!("{}", deposit(&url, None));
}

/// What is said of a deposit.
fn deposit(url: &str, ca: Option<&str>) -> String {
    let ca = ca.map(|name| std::fs::read_to_string(fixture(name)).unwrap());
    let client =
        Client::new(url, None, Options { deadline: Duration::from_secs(20), ca, ..Options::default() }).unwrap();
    let deposit = Submission::deposit(CustomerId::new(1), TransactionId::new(1), "5".parse().unwrap());
    match client.submit(&deposit) {
        Ok(Outcome::Applied(receipt)) => format!("told: applied {}", receipt.seq),
        Ok(Outcome::AlreadyApplied(receipt)) => format!("told: applied before {}", receipt.seq),
        Err(SubmitError::NotDecided(error)) => format!("told: not decided, {error}"),
        Err(error) => format!("told: {error:?}"),
    }
}

#[test]
fn a_server_that_a_trusted_authority_vouches_for_is_called() {
    let server = TlsServer::start("here");
    assert_eq!(server.submit("authority.cert.pem", "localhost"), "told: applied 1");
    assert_eq!(server.submit("authority.cert.pem", "127.0.0.1"), "told: applied before 1");
}

#[test]
fn a_server_that_nobody_vouches_for_is_told_nothing() {
    let server = TlsServer::start("here");
    let told = server.submit("other.cert.pem", "localhost");
    assert!(told.starts_with("told: not decided") && told.contains("UnknownIssuer"), "{told}");
    // Nothing came through: the first that is trusted is the first of all.
    assert_eq!(server.submit("authority.cert.pem", "localhost"), "told: applied 1");
}

#[test]
fn only_the_authority_that_is_named_is_trusted() {
    let server = TlsServer::start("here");
    let url = format!("https://localhost:{}", server.address.port());
    for (ca, expected) in [
        (None, "told: not decided"),
        (Some("other.cert.pem"), "told: not decided"),
        (Some("authority.cert.pem"), "told: applied 1"),
    ] {
        let told = deposit(&url, ca);
        assert!(told.starts_with(expected), "{ca:?}: {told}");
        assert_eq!(told.contains("UnknownIssuer"), !told.contains("applied"), "{told}");
    }
    let elsewhere = TlsServer::start("elsewhere");
    let told = deposit(&format!("https://localhost:{}", elsewhere.address.port()), Some("authority.cert.pem"));
    assert!(told.contains("not valid for name"), "{told}");
    let options = Options { ca: Some("no certificate".to_owned()), ..Options::default() };
    assert!(matches!(Client::new(&url, None, options), Err(Error::Setup(what)) if what.contains("no certificate")));
}

/// What is forwarded goes to whom the system trusts, or one of the authorities that were named.
#[test]
fn a_message_is_forwarded_to_whom_an_authority_vouches_for() {
    let server = TlsServer::start("here");
    let url = format!("https://localhost:{}", server.address.port());
    let post = |ca: Option<&str>| {
        let ca = ca.map(|name| std::fs::read_to_string(fixture(name)).unwrap());
        let client = Client::new(&url, None, Options { ca, ..Options::default() }).unwrap();
        let forwarder = client.forwarder(&format!("{url}/livez"), Secret::generate().unwrap()).unwrap();
        forwarder.post("1", "{}")
    };
    for ca in [None, Some("other.cert.pem")] {
        let error = post(ca).unwrap_err().to_string();
        assert!(error.contains("UnknownIssuer"), "{ca:?}: {error}");
    }
    // It takes no messages there; but it was reached.
    assert_eq!(post(Some("authority.cert.pem")).unwrap().status, 405);
}

#[test]
fn a_certificate_for_another_name_is_refused() {
    let server = TlsServer::start("elsewhere");
    let told = server.submit("authority.cert.pem", "localhost");
    assert!(told.starts_with("told: not decided") && told.contains("not valid for name"), "{told}");
}
