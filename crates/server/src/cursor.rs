//! Cursors: where a list goes on. Opaque to clients, and stable under writes, since each names the place of the next
//! item and not a count. A cursor carries the filters of its list, so that a page cannot be continued with others.

use crate::problem::{Problem, ServiceProblem};
use bursar_core::CustomerId;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Longer ones were not made here.
const BYTES_MAX: usize = 4_096;

/// Writes a cursor. `list` names the list that it is of.
pub(crate) fn write<T: Serialize>(list: &str, place: &T) -> Result<String, Problem> {
    let json = serde_json::to_vec(&(list, place))
        .map_err(|error| Problem::service(ServiceProblem::Internal, format!("a cursor cannot be written: {error}")))?;
    let mut digits = vec![0; json.len() * 2];
    Ok(crate::shown::hex(&json, &mut digits).to_owned())
}

/// Reads a cursor of this list.
pub(crate) fn read<T: DeserializeOwned>(list: &str, text: &str) -> Result<T, Problem> {
    let bad = || Problem::plain(ServiceProblem::BadCursor);
    if text.len() > BYTES_MAX || !text.len().is_multiple_of(2) {
        return Err(bad());
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = |pair: &[u8]| Some((digit(pair[0])? << 4 | digit(pair[1])?) as u8);
    let json: Option<Vec<u8>> = text.as_bytes().chunks_exact(2).map(byte).collect();
    let (of, place): (String, T) = serde_json::from_slice(&json.ok_or_else(bad)?).map_err(|_| bad())?;
    if of == list { Ok(place) } else { Err(bad()) }
}

/// Reads a customer that a cursor names.
pub(crate) fn customer(text: &str) -> Result<CustomerId, Problem> {
    CustomerId::parse(text.as_bytes()).map_err(|_| Problem::plain(ServiceProblem::BadCursor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_only_by_its_own_list() {
        let cursor = write("customers", &(17, "x")).unwrap();
        assert_eq!(read::<(u64, String)>("customers", &cursor).unwrap(), (17, "x".to_owned()));
        assert!(read::<(u64, String)>("events", &cursor).is_err());
        for bad in ["", "0", "zz", "é", "00", &cursor[2..], &format!("{cursor}00"), &"0".repeat(10_000)] {
            assert!(read::<(u64, String)>("customers", bad).is_err(), "{bad}");
        }
    }
}
