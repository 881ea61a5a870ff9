//! The file that says which ledger a directory holds: its id, its policy, its currencies; and whether all of it, or the
//! chains alone. Written once, at creation. `docs/format.md`, "Ledger file".

use super::codec::{Decoder, Malformed, crc32c};
use super::disk::Disk;
use crate::store::{Damage, StoreError};
use bursar_core::{Currencies, Currency, Decimals, DisputablePolicy, LedgerConfig, LockedPolicy, Policy};
use std::io;
use std::sync::Arc;

/// The name of the file.
pub(crate) const LEDGER_NAME: &str = "ledger.bursar";
const MAGIC: [u8; 8] = *b"BURSLEDG";
/// The version of everything in a directory that holds a whole ledger.
const VERSION: u32 = 1;
/// The version of the ledger file of chains alone. A program that knows nothing of them refuses the directory.
const VERSION_CHAINS_ALONE: u32 = 2;
/// What the last byte of that version says.
const CHAINS_ALONE: u8 = 1;

/// What of a ledger a directory holds. Chosen when it is created, and the same for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holds {
    /// Chains and transactions table.
    Everything,
    /// The chains. The table is in another store.
    ChainsAlone,
}

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LedgerFile {
    /// The ledger, wherever its table is.
    pub(crate) config: LedgerConfig,
    pub(crate) holds: Holds,
}

pub(crate) fn bytes_of(file: &LedgerFile) -> Vec<u8> {
    let LedgerFile { config, holds } = file;
    let (version, end): (u32, &[u8]) = match holds {
        Holds::Everything => (VERSION, &[]),
        Holds::ChainsAlone => (VERSION_CHAINS_ALONE, &[CHAINS_ALONE]),
    };
    let mut out = Vec::new();
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&version.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&config.ledger);
    let policy = config.policy;
    out.extend_from_slice(&[policy.locked.code(), policy.disputable.code(), config.currencies.len() as u8]);
    for (_, currency) in config.currencies.iter() {
        out.extend_from_slice(&[currency.decimals().count(), currency.code().len() as u8]);
        out.extend_from_slice(currency.code().as_bytes());
    }
    out.extend_from_slice(end);
    let crc = crc32c(&out[16..]);
    out[12..16].copy_from_slice(&crc.to_le_bytes());
    out
}

pub(crate) enum Fault {
    Malformed,
    Version(u32),
}

impl From<Malformed> for Fault {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

pub(crate) fn file_of(bytes: &[u8]) -> Result<LedgerFile, Fault> {
    let mut decoder = Decoder::new(bytes, 0);
    if decoder.array()? != MAGIC {
        return Err(Fault::Malformed);
    }
    let version = decoder.fixed_u32()?;
    if decoder.fixed_u32()? != crc32c(&bytes[16..]) {
        return Err(Fault::Malformed);
    }
    let holds = match version {
        VERSION => Holds::Everything,
        VERSION_CHAINS_ALONE => Holds::ChainsAlone,
        _ => return Err(Fault::Version(version)),
    };
    let ledger = decoder.array()?;
    let locked = LockedPolicy::from_code(decoder.byte()?).ok_or(Fault::Malformed)?;
    let disputable = DisputablePolicy::from_code(decoder.byte()?).ok_or(Fault::Malformed)?;
    let mut list = Vec::new();
    let mut unnamed = None;
    for _ in 0..decoder.byte()? {
        let decimals = Decimals::new(decoder.byte()?).ok_or(Fault::Malformed)?;
        let length = decoder.byte()?;
        let code = str::from_utf8(decoder.take(usize::from(length))?).map_err(|_| Fault::Malformed)?;
        if code.is_empty() {
            unnamed = Some(decimals);
        } else {
            list.push(Currency::new(code, decimals).map_err(|_| Fault::Malformed)?);
        }
    }
    let currencies = match unnamed {
        Some(decimals) if list.is_empty() => Currencies::unnamed(decimals),
        Some(_) => return Err(Fault::Malformed),
        None => Currencies::named(list).map_err(|_| Fault::Malformed)?,
    };
    let config = LedgerConfig { ledger, policy: Policy { locked, disputable }, currencies };
    let file = LedgerFile { config, holds };
    // The ledger's digest is that of these bytes, so there is only one way to write them.
    if bytes_of(&file) == bytes { Ok(file) } else { Err(Fault::Malformed) }
}

/// Reads which ledger a directory holds.
pub(crate) fn read(disk: &dyn Disk) -> Result<LedgerFile, StoreError> {
    let path = disk.path().join(LEDGER_NAME);
    let bytes = match read_whole(disk, LEDGER_NAME) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(StoreError::NotFound { path: disk.path().to_owned() });
        }
        Err(error) => return Err(StoreError::Io { doing: "read the ledger file", path, error: Arc::new(error) }),
    };
    file_of(&bytes).map_err(|fault| match fault {
        Fault::Version(found) => StoreError::Version { path, found, known: VERSION_CHAINS_ALONE },
        Fault::Malformed => {
            StoreError::Damaged(Damage { path, offset: 0, what: "this is no sound ledger file".to_owned() })
        }
    })
}

/// Writes which ledger a directory holds; an error if it holds one already.
pub(crate) fn create(disk: &dyn Disk, file: &LedgerFile) -> Result<(), StoreError> {
    let path = disk.path().join(LEDGER_NAME);
    let io_error =
        |error| StoreError::Io { doing: "write the ledger file", path: path.clone(), error: Arc::new(error) };
    if disk.list().map_err(io_error)?.iter().any(|name| name == LEDGER_NAME) {
        return Err(StoreError::Exists { path: disk.path().to_owned() });
    }
    write_whole(disk, LEDGER_NAME, &bytes_of(file)).map_err(io_error)
}

/// Reads a small file.
pub(crate) fn read_whole(disk: &dyn Disk, name: &str) -> io::Result<Vec<u8>> {
    let file = disk.open(name)?;
    let length = usize::try_from(file.length()?).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    let count = file.read_at(&mut bytes, 0)?;
    bytes.truncate(count);
    Ok(bytes)
}

/// Writes a small file so that after a crash it is there whole, or as it was before.
pub(crate) fn write_whole(disk: &dyn Disk, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = format!("{name}.tmp");
    match disk.remove(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let file = disk.create(&temporary)?;
    file.write_at(bytes, 0)?;
    file.sync()?;
    disk.rename(&temporary, name)?;
    disk.sync_directory()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_file_reads_back_and_no_flip_goes_unseen() {
        let currencies = Currencies::named(vec![
            Currency::new("EUR", Decimals::new(2).unwrap()).unwrap(),
            Currency::new("GOLD", Decimals::new(9).unwrap()).unwrap(),
        ]);
        let policy = Policy { locked: LockedPolicy::Frozen, disputable: DisputablePolicy::DepositsAndWithdrawals };
        for currencies in [currencies.unwrap(), Currencies::default()] {
            let config = LedgerConfig { ledger: [5; 16], policy, currencies };
            for holds in [Holds::Everything, Holds::ChainsAlone] {
                let file = LedgerFile { config: config.clone(), holds };
                let bytes = bytes_of(&file);
                assert_eq!(file_of(&bytes).ok(), Some(file));
                for at in 0..bytes.len() {
                    let mut flipped = bytes.clone();
                    flipped[at] ^= 1;
                    assert!(file_of(&flipped).is_err(), "byte {at}");
                }
                // The version is under no checksum: with the other one, the file is too long or too short.
                let mut other = bytes;
                other[8] ^= 3;
                assert!(matches!(file_of(&other), Err(Fault::Malformed)));
            }
        }
    }

    /// Chains keep their hashes wherever the table is: what a directory holds is no part of the ledger's digest.
    #[test]
    fn what_a_directory_holds_is_not_in_the_ledgers_digest() {
        let policy = Policy { locked: LockedPolicy::Nothing, disputable: DisputablePolicy::Deposits };
        let config = LedgerConfig { ledger: [5; 16], policy, currencies: Currencies::default() };
        let whole = bytes_of(&LedgerFile { config: config.clone(), holds: Holds::Everything });
        let alone = bytes_of(&LedgerFile { config, holds: Holds::ChainsAlone });
        assert_eq!([&whole[16..], &[CHAINS_ALONE]].concat(), alone[16..]);
        assert_eq!(u32::from_le_bytes(alone[8..12].try_into().unwrap()), 2);
    }

    /// The story: a code in lower case was read as if it were in upper case, and two currencies without a name as
    /// one. With the checksum made right, the file had been changed and the ledger's digest had not.
    #[test]
    fn there_is_one_way_to_write_a_ledger_file() {
        let sound: &[u8] = b"\x01\x02\x03EUR";
        for content in [sound, b"\x01\x02\x03eur", b"\x02\x04\x00\x04\x00", b"\x01\x02\x03EUR\x00"] {
            let mut bytes = [MAGIC.as_slice(), &VERSION.to_le_bytes(), &[0; 4], &[5; 16], &[0, 0]].concat();
            bytes.extend_from_slice(content);
            let crc = crc32c(&bytes[16..]);
            bytes[12..16].copy_from_slice(&crc.to_le_bytes());
            assert_eq!(file_of(&bytes).is_ok(), content == sound, "{content:?}");
        }
    }
}
