//! A reader of `GET /v1/events`.

use crate::client::Client;
use serde_json::Value;
use std::net::SocketAddr;

/// Reads the stream of events behind `last_id` until `end` says so or the service is gone; gives positions and ids, and
/// keeps where it is as a browser does: by what came whole.
pub(crate) fn follow(
    address: SocketAddr,
    last_id: &mut String,
    is_over: impl Fn(usize) -> bool,
) -> Vec<(String, String)> {
    let mut client = Client::connect(address);
    let header = if last_id.is_empty() { String::new() } else { format!("Last-Event-ID: {last_id}\r\n") };
    let request = format!("GET /v1/events HTTP/1.1\r\nHost: localhost\r\n{header}\r\n");
    let (mut seen, mut text) = (Vec::new(), String::new());
    if client.raw(request.as_bytes()).and_then(|()| client.head_of_answer()).is_err() {
        return seen;
    }
    while !is_over(seen.len()) {
        let Ok(Some(chunk)) = client.next_chunk() else { break };
        text += std::str::from_utf8(&chunk).unwrap();
        while let Some((block, rest)) = text.split_once("\n\n") {
            let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
            if let Some(id) = field("id: ") {
                *last_id = id;
            }
            if let Some(data) = field("data: ") {
                let message: Value = serde_json::from_str(&data).unwrap();
                let (event, status) = (&message["event"]["event"], &message["event"]["status"]);
                let id = format!("{}_{}", event.as_str().unwrap(), status.as_str().unwrap());
                seen.push((message["position"].as_str().unwrap().to_owned(), id));
            }
            text = rest.to_owned();
        }
    }
    seen
}
