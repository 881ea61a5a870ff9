//! The door: keys and roles, names, and what a stranger hears.

#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

mod common;

use bursar_server::keys::{Key, KeyFile, Role};
use bursar_server::{Keys, Limits, Options, ServeError, Server};
use common::{TestServer, about, deposit, memory_ledger, unlock};
use std::net::SocketAddr;

#[test]
fn each_role_does_what_it_may_and_no_more() {
    let (server, keys) = TestServer::with_keys();
    let [read, submit, operate] = keys.each_ref();
    server.client().with_key(submit).submit(&deposit(1, 1, "1"));
    for kind in ["dispute", "chargeback"] {
        server.client().with_key(submit).submit(&about(kind, 1, 1));
    }
    let table = [
        (read, "GET", "/v1/ledger", String::new(), 200),
        (read, "GET", "/metrics", String::new(), 200),
        (read, "POST", "/v1/requests", deposit(2, 2, "1"), 403),
        (submit, "GET", "/v1/customers/1", String::new(), 200),
        (submit, "POST", "/v1/requests", deposit(2, 2, "1"), 200),
        (submit, "POST", "/v1/requests", unlock(1), 403),
        (operate, "POST", "/v1/requests", unlock(1), 200),
        (operate, "POST", "/v1/requests", deposit(1, 3, "1"), 200),
    ];
    for (key, method, path, body, status) in &table {
        let content_type = if body.is_empty() { "" } else { "application/json" };
        let response = server.client().with_key(key).call(method, path, content_type, body.as_bytes());
        assert_eq!(response.status, *status, "{method} {path} {body}");
        if *status == 403 {
            assert_eq!(response.problem().1, "role_too_low");
        }
    }
    // In a batch it is one row that is not allowed, not the batch.
    let rows = [unlock(1), deposit(1, 4, "1")].join("\n");
    let lines = server.client().with_key(submit).post("/v1/batches", "application/x-ndjson", &rows).lines();
    assert_eq!((&lines[0]["code"], &lines[1]["outcome"]), (&"role_too_low".into(), &"applied".into()));
    assert_eq!(server.client().with_key(read).post("/v1/batches", "application/x-ndjson", &rows).problem().0, 403);
}

#[test]
fn who_has_no_key_hears_nothing_of_the_ledger() {
    let (server, keys) = TestServer::with_keys();
    let stranger = Key::generate().unwrap().reveal();
    // The id of a known key with another secret.
    let forged = format!("{}{}", &keys[2][..keys[2].len() - 1], if keys[2].ends_with('0') { '1' } else { '0' });
    let table = [
        (None, "key_needed"),
        (Some("Basic dXNlcjpwYXNz".to_owned()), "key_needed"),
        (Some(format!("Bearer {stranger}")), "key_unknown"),
        (Some(format!("Bearer {forged}")), "key_unknown"),
        (Some(format!("Bearer {}x", keys[2])), "key_unknown"),
        (Some("Bearer \u{ff}".to_owned()), "key_needed"),
    ];
    let paths = ["/v1/ledger", "/v1/customers", "/v1/customers/1", "/v1/transactions/1", "/v1/pending", "/metrics"];
    for (header, code) in &table {
        for path in paths {
            let mut client = server.client();
            if let Some(header) = header {
                client = client.with(format!("Authorization: {header}"));
            }
            let response = client.get(path);
            assert_eq!(response.problem(), (401, (*code).to_owned()), "{header:?} {path}");
            assert_eq!(response.headers["www-authenticate"], "Bearer realm=\"bursar\"");
        }
    }
    assert_eq!(server.submit(&deposit(1, 1, "1")).problem().0, 401);
    for path in ["/livez", "/readyz", "/openapi.json", "/problems", "/"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
}

/// A web page can make its own name point to this machine; the visitor's browser would then send it here.
#[test]
fn without_keys_only_this_machines_names_are_served() {
    let server = TestServer::new();
    for (host, status) in [
        ("localhost", 200),
        ("127.0.0.1:7400", 200),
        ("[::1]", 200),
        ("evil.example", 421),
        ("localhost.evil.example:7400", 421),
    ] {
        let response = server.client().with(format!("Host: {host}")).get("/v1/ledger");
        assert_eq!(response.status, status, "{host}");
        if status == 421 {
            assert_eq!(response.problem().1, "host_not_allowed");
        }
    }
    assert_eq!(server.client().get("http://evil.example/v1/ledger").status, 421);
    let (with_keys, keys) = TestServer::with_keys();
    assert_eq!(with_keys.client().with("Host: ledger.example").with_key(&keys[0]).get("/v1/ledger").status, 200);
}

#[test]
fn others_are_let_to_the_address_only_when_there_is_a_key() {
    let directory = tempfile::tempdir().unwrap();
    let file = KeyFile::of(directory.path());
    let bind = |address: [u8; 4]| {
        let options = Options {
            listen: SocketAddr::from((address, 0)),
            keys: Keys::File(file.clone()),
            limits: Limits::default(),
            heed_signals: false,
            webhooks: Vec::new(),
        };
        Server::bind(options)
    };
    assert!(matches!(bind([0, 0, 0, 0]), Err(ServeError::KeysNeeded { .. })));
    assert!(!bind([127, 0, 0, 1]).unwrap().needs_key());
    let key = Key::generate().unwrap();
    file.change(|keys| keys.add(key.entry("x", Role::Read, String::new()))).unwrap();
    assert!(bind([0, 0, 0, 0]).unwrap().needs_key());
    assert!(bind([127, 0, 0, 1]).unwrap().needs_key());
    // An empty list is a list.
    file.change(|keys| keys.revoke(&key.id())).unwrap();
    assert!(matches!(bind([0, 0, 0, 0]), Err(ServeError::KeysNeeded { .. })));
    assert!(bind([127, 0, 0, 1]).unwrap().needs_key());
}

#[test]
fn keys_made_and_revoked_while_the_service_runs_count() {
    let directory = tempfile::tempdir().unwrap();
    let file = KeyFile::of(directory.path());
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let keys = Keys::File(file.clone());
    let server =
        Server::bind(Options { listen, keys, limits: Limits::default(), heed_signals: false, webhooks: Vec::new() })
            .unwrap();
    let (address, stopper) = (server.address(), server.stopper());
    let running = std::thread::spawn(move || server.run(memory_ledger(), || Ok(())));
    let until = |key: Option<&str>, status: u16| {
        loop {
            let client = common::client::Client::connect(address);
            let mut client = match key {
                Some(key) => client.with_key(key),
                None => client,
            };
            if client.get("/v1/ledger").status == status {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    };
    until(None, 200);
    let [first, second] = [(); 2].map(|()| Key::generate().unwrap());
    file.change(|keys| keys.add(first.entry("first", Role::Read, String::new()))).unwrap();
    until(None, 401);
    until(Some(&first.reveal()), 200);
    file.change(|keys| keys.add(second.entry("second", Role::Read, String::new()))).unwrap();
    until(Some(&second.reveal()), 200);
    file.change(|keys| keys.revoke(&first.id())).unwrap();
    until(Some(&first.reveal()), 401);
    until(Some(&second.reveal()), 200);
    // What cannot be read lets nobody in, also who was in before.
    let path = directory.path().join(bursar_server::keys::FILE_NAME);
    let good = std::fs::read(&path).unwrap();
    std::fs::write(&path, "{").unwrap();
    until(Some(&second.reveal()), 503);
    std::fs::write(&path, good).unwrap();
    until(Some(&second.reveal()), 200);
    std::fs::remove_file(&path).unwrap();
    until(None, 401);
    stopper.stop();
    running.join().unwrap().unwrap();
}
