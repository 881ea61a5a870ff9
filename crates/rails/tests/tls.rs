//! A rail over TLS whose certificate a private authority has signed, by real handshakes: called where its settings name
//! that authority (`ca_file`), and not called where they do not, or where the certificate is for another name.
//!
//! The certificates are those of the server's tests. Their authority's key is gone, so nobody can sign with it.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

use bursar_core::commit::Outcome;
use bursar_core::{Amount, Currencies, CustomerId, Policy, Request, TransactionId};
use bursar_engine::{Ledger, LedgerOptions, new_config};
use bursar_rails::settings::check;
use bursar_rails::{RailSettings, Rails, RouteSettings};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../server/tests/tls-files")
}

/// A rail that says yes to every call that comes through.
struct TlsRail {
    address: SocketAddr,
    /// The paths of calls.
    heard: Arc<Mutex<Vec<String>>>,
    /// How many handshakes came to nothing.
    failed: Arc<AtomicUsize>,
}

impl TlsRail {
    /// With the certificate of this name.
    fn start(name: &str) -> Self {
        let certificate = CertificateDer::from_pem_file(fixtures().join(format!("{name}.cert.pem"))).unwrap();
        let key = PrivateKeyDer::from_pem_file(fixtures().join(format!("{name}.key.pem"))).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = Arc::new(config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let rail = Self { address: listener.local_addr().unwrap(), heard: Arc::default(), failed: Arc::default() };
        let (heard, failed) = (rail.heard.clone(), rail.failed.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let connection = ServerConnection::new(config.clone()).unwrap();
                let stream = BufReader::new(StreamOwned::new(connection, stream.unwrap()));
                if answer(stream, &heard).is_err() {
                    failed.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        rail
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }
}

/// Reads a call, notes its path, and says yes.
fn answer(mut stream: BufReader<impl Read + Write>, heard: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let (mut head, mut length) = (String::new(), 0);
    while stream.read_line(&mut head)? > 2 {
        let last = head.lines().next_back().unwrap().to_ascii_lowercase();
        length = last.strip_prefix("content-length: ").map_or(length, |length| length.parse().unwrap());
    }
    stream.read_exact(&mut vec![0; length])?;
    heard.lock().unwrap().push(head.split(' ').nth(1).unwrap().to_owned());
    let stream = stream.get_mut();
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")?;
    stream.flush()
}

#[derive(Deserialize)]
struct File {
    rails: BTreeMap<String, RailSettings>,
    routes: RouteSettings,
}

/// A ledger whose withdrawals go to this address, and whose customer 1 has something to withdraw.
fn ledger(address: SocketAddr, more: &str) -> Ledger {
    let port = address.port();
    let text = format!(
        "[rails.bank]\nnumber = 1\nurl = 'https://localhost:{port}/pay'\n\
         secret = 'whsec_YSByYWlsIHRvIHRyeSB0aGluZ3Mgb3V0IHdpdGg='\n\
         retry = {{ first = '5ms', factor = 1, max = '5ms' }}\n{more}\n[routes]\nwithdrawal = 'bank'\n"
    );
    let file: File = toml::from_str(&text).unwrap();
    let checked = check(&file.rails, &file.routes, &fixtures(), true).unwrap();
    assert!(checked.warnings.iter().all(|warning| !warning.contains("unencrypted")), "{:?}", checked.warnings);
    let mut options = LedgerOptions { routes: checked.routes, ..LedgerOptions::default() };
    for (id, rail) in Rails::start(checked.rails).unwrap().iter() {
        options = options.with_rail(id, rail);
    }
    let ledger = Ledger::in_memory(&new_config(Policy::default(), Currencies::default()).unwrap(), options).unwrap();
    let deposit = Request::deposit(CustomerId::new(1), TransactionId::new(1), Amount::from_steps(100_000));
    assert!(matches!(ledger.submit(deposit), Ok(Outcome::Applied(_))));
    ledger
}

fn withdrawal() -> Request {
    Request::withdrawal(CustomerId::new(1), TransactionId::new(2), Amount::from_steps(25_000))
}

/// What an operator sees once several attempts have come to nothing.
fn said_of_failed_calls(ledger: &Ledger, rail: &TlsRail) -> String {
    ledger.submit_then(vec![withdrawal()], drop).unwrap();
    for _ in 0..6_000 {
        let pending = ledger.pending().unwrap();
        let said = pending.first().and_then(|one| one.last_answer.as_ref());
        if let Some(said) = said.filter(|_| rail.failed.load(Ordering::SeqCst) > 1) {
            return said.said.clone();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("{:?}", ledger.pending());
}

#[test]
fn a_rail_that_its_own_authority_vouches_for_is_called() {
    let rail = TlsRail::start("here");
    let ledger = ledger(rail.address, "ca_file = 'authority.cert.pem'");
    assert!(matches!(ledger.submit(withdrawal()), Ok(Outcome::Applied(_))));
    assert_eq!((rail.heard(), rail.failed.load(Ordering::SeqCst)), (vec!["/pay".to_owned()], 0));
}

#[test]
fn a_rail_that_nobody_vouches_for_is_not_called() {
    let rail = TlsRail::start("here");
    // Without the setting, and with that of another authority.
    for more in ["", "ca_file = 'other.cert.pem'"] {
        let said = said_of_failed_calls(&ledger(rail.address, more), &rail);
        assert!(said.contains("no connection") && said.contains("UnknownIssuer"), "{more}: {said}");
    }
    assert_eq!(rail.heard(), Vec::<String>::new());
}

#[test]
fn a_certificate_for_another_name_is_refused() {
    let rail = TlsRail::start("elsewhere");
    let said = said_of_failed_calls(&ledger(rail.address, "ca_file = 'authority.cert.pem'"), &rail);
    assert!(said.contains("no connection") && said.contains("not valid for name"), "{said}");
    assert_eq!(rail.heard(), Vec::<String>::new());
}
