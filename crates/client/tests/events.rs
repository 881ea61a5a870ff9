//! The stream of events over connections that break at bad moments. The other end is a script of what a service sends:
//! where a real one would break its connection cannot be chosen.

#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

use bursar_client::blocking::Client;
use bursar_client::{After, Error, Options, Subscription};
use bursar_core::{EventId, Hash};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, channel};

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";

fn message(position: u64) -> String {
    let hash = Hash([u8::try_from(position).unwrap(); 32]);
    let id = EventId::from_hash(&hash);
    format!(
        "id: {position}\nevent: event.done\ndata: {{\"position\":\"{position}\",\"type\":\"event.done\",\"event\":{{\
         \"customer\":\"1\",\"seq\":{position},\"event\":\"{id}\",\"hash\":\"{hash}\",\"status\":\"done\",\
         \"time\":\"2026-01-31T12:00:00.000Z\",\"kind\":\"deposit\",\"transaction\":\"{position}\",\"amount\":\"1.0\",\
         \"available\":\"1.0\",\"held\":\"0.0\",\"total\":\"1.0\",\"locked\":false}}}}\n\n"
    )
}

/// Answers each connection with the next part of the script, and gives the headers that came.
fn script(parts: Vec<String>) -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (heads, heard) = channel();
    std::thread::spawn(move || {
        for part in parts {
            let (mut client, _) = listener.accept().unwrap();
            let mut head = String::new();
            let mut reader = BufReader::new(client.try_clone().unwrap());
            while !head.ends_with("\r\n\r\n") {
                assert_ne!(reader.read_line(&mut head).unwrap(), 0);
            }
            heads.send(head).unwrap();
            client.write_all(part.as_bytes()).unwrap();
        }
    });
    (address, heard)
}

fn client(address: SocketAddr) -> Client {
    Client::new(&format!("http://{address}"), None, Options::default()).unwrap()
}

#[test]
fn a_stream_goes_on_behind_the_last_whole_event() {
    let cut = message(8);
    let parts = vec![
        // Where it begins, a heartbeat, two events, and a part of a third.
        format!("{HEAD}retry: 2000\nid: 5\n\n:\n\n{}{}{}", message(6), message(7), &cut[..cut.len() - 2]),
        // A gateway in between, for a while; then one event comes once more.
        "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned(),
        format!("{HEAD}{}{cut}{}", message(7), message(9)),
        "HTTP/1.1 404 Not Found\r\nContent-Type: application/problem+json\r\nConnection: close\r\n\r\n\
         {\"type\":\"/problems/no_such_path\",\"status\":404,\"code\":\"no_such_path\",\"detail\":\"gone\",\"hint\":\"-\"}"
            .to_owned(),
    ];
    let (address, heads) = script(parts);
    let (told, lost) = channel();
    let subscription = Subscription { after: After::Latest, ..Subscription::default() };
    let stream = client(address).subscribe(subscription);
    let mut stream = stream.on_reconnect(move |error| told.send(error.clone()).unwrap());
    for position in 6..=9 {
        let event = stream.wait().unwrap();
        assert_eq!((event.position.as_str(), event.event.seq), (position.to_string().as_str(), position));
        assert!(event.json.starts_with(&format!("{{\"position\":\"{position}\"")), "{}", event.json);
    }
    let end = stream.wait().unwrap_err();
    assert_eq!(end.problem().unwrap().code, "no_such_path");
    let heads: Vec<String> = heads.iter().map(|head| head.to_lowercase()).collect();
    let resumed: Vec<Option<&str>> =
        heads.iter().map(|head| head.lines().find_map(|line| line.strip_prefix("last-event-id: "))).collect();
    assert_eq!(resumed, [None, Some("7"), Some("7"), Some("9")]);
    assert!(heads[0].starts_with("get /v1/events?after=latest "), "{}", heads[0]);
    drop(stream);
    // The cut, the gateway, and the end of the third connection.
    assert_eq!(lost.iter().count(), 3);
}

#[test]
fn a_stream_that_is_quiet_goes_on_where_it_began() {
    let parts = vec![format!("{HEAD}id: 41\n\n:\n\n"), format!("{HEAD}{}", message(42))];
    let (address, heads) = script(parts);
    let subscription = Subscription { after: After::Latest, ..Subscription::default() };
    assert_eq!(client(address).subscribe(subscription).wait().unwrap().position, "42");
    let heads: Vec<String> = heads.iter().take(2).collect();
    assert!(heads[1].to_lowercase().contains("last-event-id: 41"), "{}", heads[1]);
}

#[test]
fn what_makes_no_sense_ends_the_stream() {
    let wrong = [
        message(6).replace("\"position\":\"6\"", "\"position\":\"7\""),
        message(6).replace("\"total\":\"1.0\"", "\"total\":\"2.0\""),
        "id: 6\ndata: hello\n\n".to_owned(),
    ];
    for wrong in wrong {
        let (address, _heads) = script(vec![format!("{HEAD}{wrong}")]);
        let error = client(address).subscribe(Subscription::default()).wait().unwrap_err();
        assert!(matches!(error, Error::NotUnderstood(_)), "{wrong}: {error:?}");
    }
    let (address, _heads) = script(vec!["HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned()]);
    assert!(matches!(client(address).subscribe(Subscription::default()).wait(), Err(Error::NotUnderstood(_))));
}
