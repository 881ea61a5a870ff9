//! What is alike in all answers, and what is said where there is none.

use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use std::error::Error;
use std::time::Duration;

/// Whether an answer is of this type, whatever its parameters.
pub fn has_type(headers: &HeaderMap, expected: &str) -> bool {
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    given.split(';').next().is_some_and(|essence| essence.trim().eq_ignore_ascii_case(expected))
}

/// After how long the other side wants to be asked again, if it says so in seconds.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok().map(Duration::from_secs)
}

/// Why there is no answer: where it failed, and the last cause. Without the address, which may hold a secret.
pub fn in_words(error: &reqwest::Error) -> String {
    let what = if error.is_connect() {
        "no connection"
    } else if error.is_timeout() {
        "no answer in time"
    } else if error.is_body() || error.is_decode() {
        "the answer was cut off"
    } else {
        "the exchange failed"
    };
    match last_cause(error) {
        Some(cause) => format!("{what}: {cause}"),
        None => what.to_owned(),
    }
}

/// What is behind an error and all its causes.
pub(crate) fn last_cause(error: &reqwest::Error) -> Option<&(dyn Error + 'static)> {
    let mut last = error.source()?;
    while let Some(cause) = last.source() {
        last = cause;
    }
    Some(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::{Trust, client};
    use reqwest::header::HeaderValue;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    #[test]
    fn headers_are_read_as_they_are_meant() {
        let with = |name, value| HeaderMap::from_iter([(name, HeaderValue::from_static(value))]);
        for (given, expected) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/jsonx", false),
            ("text/html", false),
        ] {
            assert_eq!(has_type(&with(CONTENT_TYPE, given), "application/json"), expected, "{given}");
        }
        assert!(!has_type(&HeaderMap::new(), "application/json"));
        for (given, expected) in [("7", Some(7)), ("-1", None), ("Wed, 21 Oct 2026 07:28:00 GMT", None)] {
            assert_eq!(retry_after(&with(RETRY_AFTER, given)), expected.map(Duration::from_secs), "{given}");
        }
    }

    /// What is said of an exchange with somebody who answers this, and closes.
    fn said(answer: Option<&'static str>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/secret", listener.local_addr().unwrap());
        let other = answer.map(|answer| {
            std::thread::spawn(move || {
                let mut stream = listener.accept().unwrap().0;
                assert!(stream.read(&mut [0; 1024]).unwrap() > 0);
                stream.write_all(answer.as_bytes()).unwrap();
            })
        });
        let client = client("x", Trust::System, |builder| builder).unwrap();
        let exchange = async { client.get(url).send().await?.bytes().await };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let error = runtime.block_on(exchange).unwrap_err();
        if let Some(other) = other {
            other.join().unwrap();
        }
        in_words(&error)
    }

    #[test]
    fn failures_are_told_without_the_address() {
        let table = [
            (None, "no connection: Connection refused"),
            (Some("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx"), "the answer was cut off: "),
            (Some("nonsense\r\n\r\n"), "the exchange failed: invalid HTTP"),
        ];
        for (answer, expected) in table {
            let said = said(answer);
            assert!(said.starts_with(expected), "{said}");
            assert!(!said.contains("secret") && !said.contains("127.0.0.1"), "{said}");
        }
    }
}
