//! Records, frames and the other small encodings of the embedded store: any bytes are read without harm, what is read
//! reads back the same after it was written, and what is built reads back as it was built.
//!
//! Input: which of the five checks, then what it is about.

use crate::input::Input;
use bursar_engine::core::{
    AbortReason, Account, Amount, CurrencyIndex, CustomerId, CustomerState, Event, EventId, EventRef, EventStatus,
    Hash, LinkedEvent, RailId, ReasonText, RequestKey, RequestKind, TransactionId, TransactionKind,
};
use bursar_engine::fuzzing::{
    AnyCheckpoint, AnyFrame, AnyRecord, HEADER_BYTES, crc32c, frame_distance, ledger_file_bytes, put_id, put_signed,
    put_varint, read_ledger_file, seal, take_id, take_signed, take_varint,
};
use bursar_engine::store::{RowCounts, SourceId, SourceMark};

/// No position, no sequence number and no count is believed from here on, so that what is read can be added up.
const POSITION_MAX: u64 = 1 << 62;
/// More records in a frame only cost time.
const RECORDS_MAX: usize = 16;

/// Runs one of the checks.
pub fn record_frame(data: &[u8]) {
    let mut input = Input::new(data);
    match input.below(5) {
        0 => any_records(&mut input),
        1 => any_frame(&mut input),
        2 => built_frame(&mut input),
        3 => small_encodings(&mut input),
        _ => small_files(&mut input),
    }
}

/// Any bytes as the records of a frame.
fn any_records(input: &mut Input<'_>) {
    let (frame, time_base_ms) = (input.number64() % POSITION_MAX, input.number64());
    let bytes = [&[0; HEADER_BYTES], input.rest()].concat();
    let mut offset = HEADER_BYTES;
    while let Some((record, end)) = AnyRecord::take(&bytes, offset, frame, time_base_ms) {
        assert!(end > offset && end <= bytes.len(), "from {offset} to {end} of {}", bytes.len());
        check_written(&record, offset, frame, time_base_ms);
        assert_eq!(frame_distance(&bytes[offset..]), Some(offset as u64));
        offset = end;
    }
}

/// What was read is written and read again: the same, and no longer.
fn check_written(record: &AnyRecord, offset: usize, frame: u64, time_base_ms: u64) {
    let mut out = vec![0; offset];
    record.put(&mut out, frame, time_base_ms);
    let (again, end) = AnyRecord::take(&out, offset, frame, time_base_ms).expect("what was written is read");
    assert_eq!((&again, end), (record, out.len()));
    // Written once more, it is the same to the byte: there is one way to write a record.
    let mut twice = vec![0; offset];
    again.put(&mut twice, frame, time_base_ms);
    assert_eq!(twice, out);
}

/// Any bytes as a frame, with the checksums made right so that what is behind them is met.
fn any_frame(input: &mut Input<'_>) {
    let (is_repaired, position) = (input.flag(), input.number64() % POSITION_MAX);
    let mut bytes = input.rest().to_vec();
    if is_repaired && bytes.len() > HEADER_BYTES + 8 {
        let body_bytes = (bytes.len() - HEADER_BYTES) / 8 * 8;
        let end = HEADER_BYTES + body_bytes;
        bytes[end - 1] = 0xbf;
        bytes[..4].copy_from_slice(b"BuFr");
        bytes[8..12].copy_from_slice(&(body_bytes as u32).to_le_bytes());
        let body_crc = crc32c(&bytes[HEADER_BYTES..end]);
        bytes[12..16].copy_from_slice(&body_crc.to_le_bytes());
        bytes[44..48].fill(0);
        let crc = crc32c(&bytes[8..HEADER_BYTES]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    }
    let Some(frame) = AnyFrame::take(&bytes, position) else { return };
    let (number, synced_through, time_ms, record_count) = frame.header();
    assert!(synced_through < number);
    assert!(!frame.follows(&Hash([1; 32])), "a digest that nobody has computed");
    let records = frame.records();
    assert!(records.len() <= record_count as usize);
    for (at, record) in &records {
        assert_eq!(frame.record_at(*at).as_ref(), Some(record));
        check_written(record, (at - position) as usize, position, time_ms);
    }
    for at in [0, position, position.wrapping_sub(1), position + frame.frame_bytes(), u64::MAX] {
        if at < position + HEADER_BYTES as u64 || at >= position + frame.frame_bytes() {
            assert_eq!(frame.record_at(at), None);
        }
    }
}

/// A frame of records built by the input.
fn built_frame(input: &mut Input<'_>) {
    let position = input.number64() % POSITION_MAX;
    let (number, time_ms) = (count(input).max(1), input.number64());
    let before = Hash([input.byte(); 32]);
    let mut bytes = vec![0; HEADER_BYTES];
    let mut records = Vec::new();
    let record_count = input.below(RECORDS_MAX);
    let damage = (input.number16(), input.byte());
    for _ in 0..record_count {
        let at = position + bytes.len() as u64;
        let record = built_record(input, at);
        record.put(&mut bytes, position, time_ms);
        records.push((at, record));
    }
    let digest = seal(&mut bytes, number, number - 1, time_ms, record_count as u32, &before);
    let frame = AnyFrame::take(&bytes, position).expect("what was sealed is sound");
    assert_eq!(frame.header(), (number, number - 1, time_ms, record_count as u32));
    assert_eq!(frame.frame_bytes(), bytes.len() as u64);
    assert!(frame.follows(&before) && !frame.follows(&digest));
    assert_eq!(frame.records(), records);
    for (at, record) in &records {
        assert_eq!(frame.record_at(*at).as_ref(), Some(record));
    }
    // One byte changed, or the end missing.
    let at = damage.0 % bytes.len();
    assert!(AnyFrame::take(&bytes[..at], position).is_none(), "cut at {at}");
    if damage.1 != 0 {
        bytes[at] ^= damage.1;
        assert!(AnyFrame::take(&bytes, position).is_none(), "byte {at} changed");
    }
}

fn id(input: &mut Input<'_>) -> u128 {
    if input.flag() { u128::from(input.number64()) } else { u128::from_be_bytes(input.array()) }
}

/// A number of those that are counted up, which never come near their limit.
fn count(input: &mut Input<'_>) -> u64 {
    input.number64() % POSITION_MAX
}

fn amount(input: &mut Input<'_>) -> Amount {
    Amount::from_steps(input.number64().cast_signed())
}

fn reason(input: &mut Input<'_>) -> AbortReason {
    let text_bytes = usize::from(input.byte()) * 2;
    let text = ReasonText::new(&String::from_utf8_lossy(input.take(text_bytes)));
    match input.below(3) {
        0 => AbortReason::TransactionConflict,
        1 => AbortReason::RailRefused(text),
        _ => AbortReason::Operator(text),
    }
}

fn built_record(input: &mut Input<'_>, at: u64) -> AnyRecord {
    // A position before this record.
    let back = |input: &mut Input<'_>| at - (input.number64() % at).max(1);
    match input.below(8) {
        0 => {
            let event = EventRef {
                customer: CustomerId::new(id(input)),
                seq: count(input),
                id: EventId::from_first_bits(u128::from_be_bytes(input.array())),
            };
            let status = match input.below(3) {
                0 => EventStatus::Done,
                1 => EventStatus::DoneByHand(ReasonText::new(reason(input).text())),
                _ => EventStatus::Aborted(reason(input)),
            };
            AnyRecord::closing(event, status, back(input), back(input))
        }
        1 => AnyRecord::mark(mark(input)),
        _ => {
            let event = event(input);
            let hash = Hash([input.byte(); 32]);
            let previous = input.flag().then(|| back(input));
            let transaction_previous = input.flag().then(|| back(input));
            AnyRecord::event(LinkedEvent { event, hash }, input.flag(), previous, transaction_previous)
        }
    }
}

fn mark(input: &mut Input<'_>) -> SourceMark {
    let mut rejected_lines = Vec::new();
    let mut line = 0u64;
    for _ in 0..input.below(5) {
        line = line.saturating_add(input.number64());
        rejected_lines.push((line, input.byte()));
    }
    let counts = RowCounts {
        applied: count(input),
        already_applied: count(input),
        rejected: count(input),
        unreadable: count(input),
    };
    SourceMark {
        source: SourceId([input.byte(); 32]),
        offset: count(input),
        line_count: count(input),
        finished: input.flag(),
        counts,
        rejected_lines,
    }
}

fn event(input: &mut Input<'_>) -> Event {
    let kind = input.one_of(&RequestKind::ALL);
    let is_unlock = kind == RequestKind::Unlock;
    let currency = CurrencyIndex(input.byte() % 64);
    let mut state = CustomerState { locked: input.flag(), ..CustomerState::default() };
    for other in 0..=input.below(4) as u8 {
        let account = Account { available: amount(input), held: amount(input) };
        state.accounts.set(CurrencyIndex((currency.0 + other * 11) % 64), account);
    }
    Event {
        customer: CustomerId::new(id(input)),
        seq: count(input),
        time_ms: input.number64(),
        kind,
        transaction: (!is_unlock).then(|| TransactionId::new(id(input))),
        transaction_kind: if input.flag() { TransactionKind::Withdrawal } else { TransactionKind::Deposit },
        amount: if is_unlock { Amount::ZERO } else { amount(input) },
        currency,
        rail: RailId::new(input.byte()),
        key: if input.flag() { RequestKey::from_bits(id(input)) } else { None },
        state,
    }
}

/// Numbers: any bytes that read as one are the only way to write it, and every one reads back.
fn small_encodings(input: &mut Input<'_>) {
    let (value, bits) = (input.number64(), id(input));
    let bytes = input.rest();
    if let Some((read, count)) = take_varint(bytes) {
        let mut out = Vec::new();
        put_varint(&mut out, read);
        assert_eq!(out, bytes[..count]);
    }
    if let Some((read, count)) = take_signed(bytes) {
        let mut out = Vec::new();
        put_signed(&mut out, read);
        assert_eq!(out, bytes[..count]);
    }
    for wide in [false, true] {
        if let Some((read, count)) = take_id(bytes, wide) {
            let mut out = Vec::new();
            assert_eq!(put_id(&mut out, read), wide);
            assert_eq!(out, bytes[..count]);
        }
    }
    let mut out = Vec::new();
    put_varint(&mut out, value);
    assert_eq!(take_varint(&out), Some((value, out.len())));
    out.clear();
    put_signed(&mut out, value.cast_signed());
    assert_eq!(take_signed(&out), Some((value.cast_signed(), out.len())));
    out.clear();
    let wide = put_id(&mut out, bits);
    assert_eq!(take_id(&out, wide), Some((bits, out.len())));
}

/// Checkpoints and ledger files behind right checksums.
fn small_files(input: &mut Input<'_>) {
    let is_checkpoint = input.flag();
    let mut bytes = Vec::from(if is_checkpoint { b"BURSCHKP" } else { b"BURSLEDG" });
    bytes.extend([1, 0, 0, 0]);
    bytes.extend(crc32c(input.rest()).to_le_bytes());
    bytes.extend(input.rest());
    if is_checkpoint {
        if let Some(checkpoint) = AnyCheckpoint::read(&bytes) {
            let again = checkpoint.bytes();
            assert_eq!(AnyCheckpoint::read(&again), Some(checkpoint));
            assert!(again.len() <= bytes.len());
        }
    } else if let Some(config) = read_ledger_file(&bytes) {
        // The ledger's digest is that of these bytes: there is one way to write them.
        assert_eq!(ledger_file_bytes(&config), bytes);
    }
}
