//! A client for HTTP/1.1 that hides nothing. Its reads have a limit of time, so that a service that never answers
//! fails a test and does not hang it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)] // clippy sees the helpers of a test as production code
#![allow(dead_code, reason = "each test file takes what it needs")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_mins(1);

/// What was answered.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The lines of a batch's answer.
    pub(crate) fn lines(&self) -> Vec<serde_json::Value> {
        self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The code of a problem document, which must be one in every respect.
    pub(crate) fn problem(&self) -> (u16, String) {
        assert_eq!(self.headers["content-type"], "application/problem+json", "{}", self.text());
        let document = self.json();
        let code = document["code"].as_str().unwrap();
        assert_eq!(document["type"], format!("/problems/{code}"));
        assert_eq!(document["status"], self.status);
        assert_eq!(document["request_id"], self.headers["x-request-id"]);
        for field in ["title", "detail", "hint"] {
            assert!(document[field].as_str().is_some_and(|text| !text.is_empty()), "{document}");
        }
        assert_eq!(matches!(self.status, 429 | 503), self.headers.contains_key("retry-after"), "{document}");
        (self.status, code.to_owned())
    }
}

/// A connection.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    reader: BufReader<TcpStream>,
    headers: Vec<String>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).unwrap())
    }

    pub(crate) fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let reader = BufReader::new(stream.try_clone().unwrap());
        Self { stream, reader, headers: Vec::new() }
    }

    /// With a header in every request.
    pub(crate) fn with(mut self, header: impl Into<String>) -> Self {
        self.headers.push(header.into());
        self
    }

    pub(crate) fn with_key(self, key: &str) -> Self {
        self.with(format!("Authorization: Bearer {key}"))
    }

    pub(crate) fn get(&mut self, path: &str) -> Response {
        self.call("GET", path, "", b"")
    }

    pub(crate) fn submit(&mut self, json: &str) -> Response {
        self.post("/v1/requests", "application/json", json)
    }

    pub(crate) fn post(&mut self, path: &str, content_type: &str, body: impl AsRef<[u8]>) -> Response {
        self.call("POST", path, content_type, body.as_ref())
    }

    pub(crate) fn call(&mut self, method: &str, path: &str, content_type: &str, body: &[u8]) -> Response {
        self.try_call(method, path, content_type, body).unwrap()
    }

    pub(crate) fn try_call(
        &mut self,
        method: &str,
        path: &str,
        content_type: &str,
        body: &[u8],
    ) -> io::Result<Response> {
        let mut request = self.head(method, path, content_type);
        if !body.is_empty() || method == "POST" {
            write!(request, "Content-Length: {}\r\n", body.len()).unwrap();
        }
        request += "\r\n";
        self.stream.write_all(request.as_bytes())?;
        self.stream.write_all(body)?;
        if method == "HEAD" { self.head_of_answer() } else { self.answer() }
    }

    fn head(&self, method: &str, path: &str, content_type: &str) -> String {
        let mut head = format!("{method} {path} HTTP/1.1\r\n");
        for header in &self.headers {
            write!(head, "{header}\r\n").unwrap();
        }
        if !self.headers.iter().any(|header| header.to_ascii_lowercase().starts_with("host:")) {
            head += "Host: localhost\r\n";
        }
        if !content_type.is_empty() {
            write!(head, "Content-Type: {content_type}\r\n").unwrap();
        }
        head
    }

    /// Begins a request whose body comes in chunks.
    pub(crate) fn begin(&mut self, path: &str, content_type: &str) {
        let head = self.head("POST", path, content_type) + "Transfer-Encoding: chunked\r\n\r\n";
        self.stream.write_all(head.as_bytes()).unwrap();
    }

    pub(crate) fn chunk(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
        chunk.extend_from_slice(bytes);
        chunk.extend_from_slice(b"\r\n");
        self.stream.write_all(&chunk)
    }

    pub(crate) fn end(&mut self) {
        self.stream.write_all(b"0\r\n\r\n").unwrap();
    }

    /// Sends bytes as they are.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Reads an answer to its end.
    pub(crate) fn answer(&mut self) -> io::Result<Response> {
        let response = self.head_of_answer()?;
        self.rest(response)
    }

    /// Reads the body of an answer whose head was read.
    pub(crate) fn rest(&mut self, mut response: Response) -> io::Result<Response> {
        if response.headers.get("transfer-encoding").is_some_and(|encoding| encoding == "chunked") {
            while let Some(chunk) = self.next_chunk()? {
                response.body.extend_from_slice(&chunk);
            }
        } else {
            let length = response.headers.get("content-length").map_or(0, |length| length.parse().unwrap());
            response.body.resize(length, 0);
            self.reader.read_exact(&mut response.body)?;
        }
        Ok(response)
    }

    /// Reads the status and the headers of an answer.
    pub(crate) fn head_of_answer(&mut self) -> io::Result<Response> {
        let status = self.line()?;
        let status = status.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        let mut headers = BTreeMap::new();
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(": ") else { break };
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        Ok(Response { status, headers, body: Vec::new() })
    }

    /// Reads a chunk of an answer's body; `None` behind the last.
    pub(crate) fn next_chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let length = usize::from_str_radix(&self.line()?, 16).map_err(io::Error::other)?;
        let mut chunk = vec![0; length + 2];
        self.reader.read_exact(&mut chunk)?;
        chunk.truncate(length);
        Ok((length > 0).then_some(chunk))
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }

    /// Whether the service has closed the connection, or does within the limit of time.
    pub(crate) fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        match self.reader.read_to_end(&mut rest) {
            Ok(_) => true,
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }
}
