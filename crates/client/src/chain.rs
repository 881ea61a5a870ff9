//! A customer's chain as a file, piece by piece.

use crate::client::Client;
use crate::error::Error;
use bursar_core::CustomerId;
use bytes::Bytes;
use reqwest::{Method, Response};
use tokio::time::timeout;

/// What the last line of a whole file begins with.
const LAST_LINE: &[u8] = b"{\"end\"";

/// A chain that is being downloaded. Nothing in it is believed; `bursar_engine::chain_file` checks it.
#[derive(Debug)]
pub struct ChainDownload {
    client: Client,
    response: Response,
    /// The beginning of the line that came last, no more of it than [`LAST_LINE`] has.
    line: Vec<u8>,
    /// The last byte ended a line.
    line_ended: bool,
    is_over: bool,
}

impl Client {
    /// Downloads a customer's chain; `None` if nothing was ever accepted for it.
    pub async fn chain(&self, customer: CustomerId) -> Result<Option<ChainDownload>, Error> {
        let call = self.call(Method::GET, &format!("/v1/customers/{customer}/chain"), &[]);
        match self.send(call).await {
            Ok(response) => {
                let (line, line_ended, is_over) = (Vec::new(), true, false);
                Ok(Some(ChainDownload { client: self.clone(), response, line, line_ended, is_over }))
            }
            Err(Error::Problem(problem)) if problem.code == "unknown_customer" => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl ChainDownload {
    /// The next piece; `None` after the last one. A file that was cut off is an error.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        if self.is_over {
            return Ok(None);
        }
        let within = self.client.options().answer_within;
        let piece = timeout(within, self.response.chunk()).await.map_err(|_| Error::TimedOut(within))?;
        let Some(piece) = piece.map_err(|error| self.client.cut_off(&error))? else {
            self.is_over = true;
            if self.line == LAST_LINE && self.line_ended {
                return Ok(None);
            }
            return Err(Error::CutOff(format!("{}: the chain has no last line", self.client.server())));
        };
        for part in piece.split_inclusive(|&byte| byte == b'\n') {
            if std::mem::take(&mut self.line_ended) {
                self.line.clear();
            }
            let room = LAST_LINE.len() - self.line.len();
            self.line.extend_from_slice(&part[..part.len().min(room)]);
            self.line_ended = part.ends_with(b"\n");
        }
        Ok(Some(piece))
    }
}
