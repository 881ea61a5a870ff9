//! Hostile, slow and broken clients. Each leaves the service answering others, and is told or cut off.

#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

mod common;

use bursar_server::Limits;
use common::client::Client;
use common::{TestServer, deposit};
use std::time::Duration;

/// `SplitMix64`: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

/// Limits short enough to be reached in a test.
fn short() -> Limits {
    let wait = Duration::from_millis(500);
    Limits { header_wait: wait, body_wait: wait, batch_wait: wait, write_wait: wait, ..Limits::default() }
}

#[test]
fn garbage_is_answered_or_cut_off() {
    let server = TestServer::new();
    let mut random = Random(7);
    for round in 0..300 {
        let mut bytes: Vec<u8> = (0..random.below(400)).map(|_| random.next() as u8).collect();
        if round % 2 == 0 {
            bytes.splice(0..0, *b"POST /v1/requests HTTP/1.1\r\n");
        }
        let mut client = server.client();
        // The service may close before all is written.
        if client.raw(&bytes).is_ok() {
            client.stream.shutdown(std::net::Shutdown::Write).unwrap_or_default();
            assert!(client.is_closed(), "round {round}");
        }
    }
    server.applied(&deposit(1, 1, "1"));
}

#[test]
fn garbage_in_a_body_is_a_problem_document() {
    let server = TestServer::new();
    let mut random = Random(11);
    let good = deposit(1, 1, "1").into_bytes();
    let mut client = server.client();
    for round in 0..2_000 {
        let mut body = good.clone();
        for _ in 0..=random.below(4) {
            let at = random.below(body.len());
            match random.below(3) {
                0 => body[at] = random.next() as u8,
                1 => drop(body.remove(at)),
                _ => body.insert(at, random.next() as u8),
            }
        }
        let response = client.post("/v1/requests", "application/json", &body);
        let shown = String::from_utf8_lossy(&body).into_owned();
        match response.status {
            200 => assert_eq!(response.json()["receipt"]["total"].as_str().map(str::is_empty), Some(false), "{shown}"),
            400 | 422 => drop(response.problem()),
            other => panic!("round {round}: {other} for {shown}"),
        }
    }
}

#[test]
fn what_is_too_large_is_refused() {
    let server = TestServer::new();
    // By its length alone, before any of it was sent.
    let mut client = server.client();
    client.raw(b"POST /v1/requests HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99999999999\r\n\r\n").unwrap();
    assert_eq!(client.answer().unwrap().problem(), (413, "body_too_large".to_owned()));
    // Without a length, as soon as it is too much.
    let mut client = server.client();
    client.begin("/v1/requests", "application/json");
    for _ in 0..5 {
        client.chunk(&[b' '; 4096]).unwrap();
    }
    assert_eq!(client.answer().unwrap().problem(), (413, "body_too_large".to_owned()));
    let headers: String = (0..2_000).map(|index| format!("x-{index}: 0123456789\r\n")).collect::<Vec<_>>().concat();
    let long = "y".repeat(100_000);
    for head in [
        format!("GET /livez HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n"),
        format!("GET /livez HTTP/1.1\r\nHost: localhost\r\nx: {long}\r\n\r\n"),
        format!("GET /{long} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    ] {
        let mut client = server.client();
        // It may be closed while we still write.
        match client.raw(head.as_bytes()).and_then(|()| client.answer()) {
            Ok(response) => assert!([414, 431].contains(&response.status), "{}", response.status),
            Err(_) => assert!(client.is_closed()),
        }
    }
    server.applied(&deposit(1, 1, "1"));
}

#[test]
fn ambiguous_lengths_are_refused() {
    let server = TestServer::new();
    let body = deposit(1, 1, "1");
    let length = body.len();
    let heads = [
        format!("Content-Length: {length}\r\nContent-Length: {}\r\n", length - 1),
        "Content-Length: -1\r\n".to_owned(),
        "Content-Length: 1e3\r\n".to_owned(),
        "Transfer-Encoding: chunked, identity\r\n".to_owned(),
        "Transfer-Encoding: gzip\r\n".to_owned(),
    ];
    for head in heads {
        let mut client = server.client();
        let request = format!(
            "POST /v1/requests HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{head}\r\n{body}"
        );
        client.raw(request.as_bytes()).unwrap();
        match client.answer() {
            Ok(response) => assert!((400..500).contains(&response.status), "{head}: {}", response.status),
            Err(_) => assert!(client.is_closed(), "{head}"),
        }
    }
    assert_eq!(server.get("/v1/ledger").json()["events"], 0);
}

/// Some send nothing, some half a header, some half a body, one byte at a time or none; each holds its connection only
/// for a while, and others are answered all the time.
#[test]
fn slow_and_half_open_clients_do_not_hold_the_service() {
    // Headers have longer, so that on a slow machine all are sent before the first is late.
    let server = TestServer::with_limits(Limits { header_wait: Duration::from_secs(3), ..short() });
    let body = b"POST /v1/requests HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 80\r\n\r\n{";
    let begun = |index: usize| {
        let mut client = server.client();
        match index % 3 {
            0 => {}
            1 => client.raw(b"GET /v1/ledger HTTP/1.1\r\nHost: loc").unwrap(),
            _ => client.raw(body).unwrap(),
        }
        client
    };
    let mut slow: Vec<Client> = (0..60).map(begun).collect();
    server.applied(&deposit(1, 1, "1"));
    // One byte at a time does not help: what counts is when the header began, and the body.
    let mut drops = server.client();
    let mut dropper = drops.stream.try_clone().unwrap();
    let dropping = std::thread::spawn(move || {
        use std::io::Write;
        let bytes = b"GET /v1/ledger HTTP/1.1\r\nHost: localhost\r\nX: ".iter().chain(std::iter::repeat(&b'x'));
        for byte in bytes.take(1_200) {
            if dropper.write_all(&[*byte]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("the service waited for a minute");
    });
    for (index, client) in slow.iter_mut().enumerate() {
        if index % 3 == 2 {
            assert_eq!(client.answer().unwrap().problem(), (408, "too_slow".to_owned()));
        }
        assert!(client.is_closed(), "{index}");
    }
    assert!(drops.is_closed());
    dropping.join().unwrap();
    server.applied(&deposit(1, 2, "1"));
}

/// Opens connections, and then one that must be told that it is one too many; gives what it was told.
fn too_many<T>(open: impl Fn() -> T, one_more: impl Fn() -> Client) -> (T, serde_json::Value) {
    for _ in 0..100 {
        let opened = open();
        let mut refused = one_more();
        // On a machine that is slow enough, the first ones are closed by now, and this one is as well, later.
        let Ok(response) = refused.answer() else { continue };
        assert_eq!((response.status, response.json()["code"].as_str().unwrap()), (503, "busy"));
        assert_eq!(response.headers["retry-after"], "1");
        assert!(refused.is_closed());
        return (opened, response.json());
    }
    panic!("nobody is refused");
}

/// A connection from this address.
fn client_from(address: [u8; 4], server: &TestServer) -> Client {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let stream = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((address, 0).into()).unwrap();
        socket.connect(server.address).await.unwrap().into_std().unwrap()
    });
    stream.set_nonblocking(false).unwrap();
    Client::over(stream)
}

/// Somebody who holds as many connections as one address may have, and wants more, takes no place from others.
#[test]
fn one_address_cannot_take_all_places() {
    let header_wait = Duration::from_secs(5);
    let limits = Limits { connections_max: 12, connections_per_address_max: 8, header_wait, ..Limits::default() };
    let server = TestServer::with_limits(limits);
    let greedy = || server.client();
    let (held, refused) = too_many(|| (0..8).map(|_| greedy()).collect::<Vec<_>>(), greedy);
    assert_eq!(refused["detail"], "too many connections from this address");
    // Others are served, whatever that one does.
    let mut other = client_from([127, 0, 0, 2], &server);
    for id in 1..=20 {
        drop(greedy());
        assert_eq!(other.submit(&deposit(1, id, "1")).status, 200);
    }
    let metrics = other.get("/metrics").text().to_owned();
    let count = |limit: &str| {
        let name = format!("bursar_connections_refused_total{{limit=\"{limit}\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&name)).unwrap().parse::<u64>().unwrap()
    };
    assert!(count("address") > 0 && count("all") == 0, "{metrics}");
    // And that one has its places again once it lets go.
    drop(held);
    let served = || Client::connect(server.address).try_call("GET", "/livez", "", b"").is_ok_and(|it| it.status == 200);
    while !served() {
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn connections_are_bounded_and_come_free_again() {
    let server = TestServer::with_limits(Limits { connections_max: 3, ..short() });
    let (idle, refused) = too_many(|| (0..3).map(|_| server.client()).collect::<Vec<_>>(), || server.client());
    assert_eq!(refused["detail"], "too many connections");
    // Those that say nothing are closed, and others take their place.
    for mut client in idle {
        assert!(client.is_closed());
    }
    server.applied(&deposit(1, 1, "1"));
}

/// Asks for a chain of some megabytes, many times over, and never reads.
#[test]
fn who_asks_and_never_reads_is_cut_off() {
    let server = TestServer::with_limits(Limits { downloads_max: 1, ..short() });
    let rows: String = (1..=20_000).map(|id| deposit(1, id, "1") + "\n").collect();
    server.client().post("/v1/batches?outcomes=not_applied", "application/x-ndjson", rows);
    let mut busy_count = 0;
    for _ in 0..20 {
        let mut never = server.client();
        never.raw(b"GET /v1/customers/1/chain HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        assert_eq!(never.head_of_answer().unwrap().status, 200);
        loop {
            assert!(busy_count < 1_000, "the service kept a client that never reads");
            server.applied(&deposit(2, 1_000_000, "1"));
            let response = server.get("/v1/customers/1/chain");
            if response.status == 200 {
                break;
            }
            assert_eq!(response.problem(), (503, "busy".to_owned()));
            busy_count += 1;
            std::thread::sleep(Duration::from_millis(20));
        }
        // On a slow machine it may have been cut off before anybody else asked.
        if busy_count > 0 {
            break;
        }
    }
    assert!(busy_count > 0, "the one download was under way");
    // Plain answers as well: requests without end, none of whose answers is read.
    let mut flood = server.client();
    flood.stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let request = b"GET /problems HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(100);
    let mut cut_off = false;
    for _ in 0..100_000 {
        match flood.raw(&request) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(100));
            }
            Err(_) => {
                cut_off = true;
                break;
            }
            Ok(()) => {}
        }
    }
    assert!(cut_off, "the service kept a client that never reads");
    server.applied(&deposit(2, 1_000_001, "1"));
}

#[test]
fn requests_in_flight_are_bounded() {
    let server = TestServer::with_limits(Limits { in_flight_max: 2, ..Limits::default() });
    let body = b"POST /v1/requests HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 80\r\n\r\n{";
    let half_sent = || {
        let mut waiting: Vec<Client> = (0..2).map(|_| server.client()).collect();
        for client in &mut waiting {
            client.raw(body).unwrap();
        }
        waiting
    };
    let mut waiting = half_sent();
    for asked in 1.. {
        let response = server.get("/v1/ledger");
        if response.status == 503 {
            assert_eq!(response.problem().1, "busy");
            break;
        }
        // On a machine that is slow enough, they were given up before anybody was asked.
        if asked % 1000 == 0 {
            waiting = half_sent();
        }
    }
    // Whether it lives is answered all the same.
    assert_eq!(server.get("/livez").status, 200);
    drop(waiting);
    while server.get("/v1/ledger").status != 200 {
        std::thread::sleep(Duration::from_millis(5));
    }
}
