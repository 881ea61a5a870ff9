//! Connections that go where they were told to: no redirects, no proxies, no attempts that nobody counts.

use crate::answer::last_cause;
use reqwest::{Certificate, Client, ClientBuilder, redirect, retry};
use std::fmt;

/// Whose certificates are trusted.
#[derive(Clone, Copy, Debug)]
pub enum Trust<'a> {
    /// Those that the system trusts.
    System,
    /// Those of the system, and those that these authorities (PEM) have signed.
    SystemAnd(&'a [u8]),
    /// Those that these authorities (PEM) have signed, and no others.
    Only(&'a [u8]),
}

/// Why no connections can be made.
#[derive(Debug)]
pub enum SetupError {
    /// The authorities to trust are none.
    NoCertificate,
    /// What is needed for TLS cannot be had: the authorities', or the system's.
    Tls(reqwest::Error),
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCertificate => f.write_str("the file of authorities has no certificate"),
            Self::Tls(error) => match last_cause(error) {
                Some(cause) => write!(f, "TLS cannot be set up: {cause}"),
                None => write!(f, "TLS cannot be set up: {error}"),
            },
        }
    }
}

impl std::error::Error for SetupError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NoCertificate => None,
            Self::Tls(error) => Some(error),
        }
    }
}

impl From<reqwest::Error> for SetupError {
    fn from(error: reqwest::Error) -> Self {
        Self::Tls(error)
    }
}

/// Makes connections under this name (`user-agent`); how long they may take is set by `limits`.
pub fn client(
    agent: &'static str,
    trust: Trust<'_>,
    limits: impl FnOnce(ClientBuilder) -> ClientBuilder,
) -> Result<Client, SetupError> {
    // An error says that the process has its provider already: whoever was first has chosen for all of it.
    drop(rustls::crypto::ring::default_provider().install_default());
    let builder = Client::builder()
        .user_agent(agent)
        // Who is somewhere else now is not whom the operator chose. A redirect could carry secrets elsewhere, and so
        // could a proxy from the environment.
        .redirect(redirect::Policy::none())
        .no_proxy()
        // All attempts are counted.
        .retry(retry::never());
    let builder = match trust {
        Trust::System => builder,
        Trust::SystemAnd(pem) => builder.tls_certs_merge(authorities(pem)?),
        Trust::Only(pem) => builder.tls_certs_only(authorities(pem)?),
    };
    Ok(limits(builder).build()?)
}

fn authorities(pem: &[u8]) -> Result<Vec<Certificate>, SetupError> {
    let authorities = Certificate::from_pem_bundle(pem)?;
    if authorities.is_empty() { Err(SetupError::NoCertificate) } else { Ok(authorities) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn a_redirect_is_an_answer_and_not_followed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let target = url.clone();
        let heard = std::thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let head: Vec<_> = lines.map(Result::unwrap).take_while(|line| !line.is_empty()).collect();
            let answer = format!("HTTP/1.1 307 Elsewhere\r\nlocation: {target}other\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).unwrap();
            head
        });
        let client = client("bursar/test", Trust::System, |builder| builder).unwrap();
        let answer = runtime().block_on(client.post(&url).body("x").send()).unwrap();
        assert_eq!(answer.status().as_u16(), 307);
        let head = heard.join().unwrap();
        assert!(head.contains(&"user-agent: bursar/test".to_owned()), "{head:?}");
    }

    #[test]
    fn authorities_are_certificates() {
        for (pem, expected) in [("", "no certificate"), ("hello", "no certificate"), (BROKEN, "TLS cannot be set up")] {
            for trust in [Trust::SystemAnd(pem.as_bytes()), Trust::Only(pem.as_bytes())] {
                let said = client("x", trust, |builder| builder).unwrap_err().to_string();
                assert!(said.contains(expected), "{pem}: {said}");
            }
        }
    }

    const BROKEN: &str = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
}
