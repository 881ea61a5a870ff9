//! What lies in the first stream beside chains: which ledger this is, and how far sources got.

use crate::bytes::{Unreadable, put_varint};
use crate::message::{Kind, begin, body, end};
use bursar_engine::core::{Currencies, Currency, Decimals, DisputablePolicy, LedgerConfig, LockedPolicy, Policy};
use bursar_engine::store::{RowCounts, SourceId, SourceMark};

/// A ledger's identity, and over how many streams it is spread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LedgerMessage {
    pub(crate) config: LedgerConfig,
    pub(crate) shard_count: u16,
}

impl LedgerMessage {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let LedgerConfig { ledger, policy, currencies } = &self.config;
        let mut out = begin(Kind::Ledger, 64);
        out.extend_from_slice(ledger);
        out.extend_from_slice(&[policy.locked.code(), policy.disputable.code()]);
        out.extend_from_slice(&self.shard_count.to_be_bytes());
        out.push(currencies.len() as u8);
        for (_, currency) in currencies.iter() {
            out.extend_from_slice(&[currency.decimals().count(), currency.code().len() as u8]);
            out.extend_from_slice(currency.code().as_bytes());
        }
        end(out)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let mut reader = body(bytes, Kind::Ledger)?;
        let ledger = reader.array()?;
        let locked = LockedPolicy::from_code(reader.u8()?).ok_or(Unreadable("its policy is not known"))?;
        let disputable = DisputablePolicy::from_code(reader.u8()?).ok_or(Unreadable("its policy is not known"))?;
        let shard_count = u16::from_be_bytes(reader.array()?);
        let mut named = Vec::new();
        let mut unnamed = None;
        for _ in 0..reader.u8()? {
            let decimals = Decimals::new(reader.u8()?).ok_or(Unreadable("a currency has too many decimals"))?;
            let length = usize::from(reader.u8()?);
            let code = std::str::from_utf8(reader.take(length)?).map_err(|_| Unreadable("a currency has no code"))?;
            if code.is_empty() {
                unnamed = Some(decimals);
            } else {
                named.push(Currency::new(code, decimals).map_err(|_| Unreadable("a currency has a bad code"))?);
            }
        }
        reader.at_end()?;
        let currencies = match unnamed {
            Some(decimals) if named.is_empty() => Currencies::unnamed(decimals),
            Some(_) => return Err(Unreadable("one of several currencies has no code")),
            None => Currencies::named(named).map_err(|_| Unreadable("its currencies are none"))?,
        };
        if shard_count == 0 {
            return Err(Unreadable("it has no streams"));
        }
        Ok(Self { config: LedgerConfig { ledger, policy: Policy { locked, disputable }, currencies }, shard_count })
    }
}

/// How far a source got.
pub(crate) fn encode_mark(mark: &SourceMark) -> Vec<u8> {
    let RowCounts { applied, already_applied, rejected, unreadable } = mark.counts;
    let mut out = begin(Kind::Source, 96 + mark.rejected_lines.len() * 6);
    out.extend_from_slice(&mark.source.0);
    out.push(u8::from(mark.finished));
    for number in [mark.offset, mark.line_count, applied, already_applied, rejected, unreadable] {
        put_varint(&mut out, number);
    }
    put_varint(&mut out, mark.rejected_lines.len() as u64);
    for (line, precedence) in &mark.rejected_lines {
        put_varint(&mut out, *line);
        out.push(*precedence);
    }
    end(out)
}

/// Reads what [`encode_mark`] wrote.
pub(crate) fn decode_mark(bytes: &[u8]) -> Result<SourceMark, Unreadable> {
    let mut reader = body(bytes, Kind::Source)?;
    let source = SourceId(reader.array()?);
    let finished = reader.u8()? == 1;
    let (offset, line_count) = (reader.varint()?, reader.varint()?);
    let mut count = || reader.varint();
    let counts = RowCounts { applied: count()?, already_applied: count()?, rejected: count()?, unreadable: count()? };
    let mut rejected_lines = Vec::new();
    for _ in 0..reader.count()? {
        rejected_lines.push((reader.varint()?, reader.u8()?));
    }
    reader.at_end()?;
    Ok(SourceMark { source, offset, line_count, finished, counts, rejected_lines })
}
