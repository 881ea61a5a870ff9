//! Reading on several threads where something goes wrong, or nobody waits for it any more. That rows and errors of rows
//! are those of one thread is held by `csv_equivalence.rs`.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

use bursar_engine::core::Currencies;
use bursar_engine::csv::{Limits, RowBatch, RowReader, RowsAhead};
use std::io::{self, Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};

const HEADER: &[u8] = b"type,client,tx,amount\n";
const LIMITS: Limits = Limits { row_bytes_max: 100, batch_bytes: 50 };

fn rows_text(row_count: usize) -> Vec<u8> {
    let rows = (0..row_count).map(|number| format!("deposit,1,{number},1\n"));
    [HEADER, rows.collect::<String>().as_bytes()].concat()
}

fn reader<R: Read>(input: R) -> RowReader<R> {
    RowReader::with_limits(input, &Currencies::default(), LIMITS).unwrap()
}

/// All rows up to the first error, or the end.
fn count_rows<T: Default + Send + 'static>(ahead: &mut RowsAhead<T>) -> (usize, io::Result<()>) {
    let mut row_count = 0;
    loop {
        match ahead.next_batch() {
            Ok(Some(batch)) => {
                row_count += batch.rows.rows().len();
                ahead.give_back(batch);
            }
            Ok(None) => return (row_count, Ok(())),
            Err(error) => return (row_count, Err(error)),
        }
    }
}

/// Fails behind its text.
struct Failing(Cursor<Vec<u8>>);

impl Read for Failing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::Error::other("the disk is gone")),
            count => Ok(count),
        }
    }
}

#[test]
fn an_error_of_the_source_comes_after_the_rows_before_it() {
    for cut in 0..20 {
        let mut text = rows_text(300);
        text.truncate(text.len() - cut);
        let mut one = reader(Failing(Cursor::new(text.clone())));
        let (mut batch, mut expected) = (RowBatch::new(), 0);
        while one.next_batch(&mut batch).is_ok() {
            expected += batch.rows().len();
        }
        for thread_count in [1, 2, 5] {
            let source = reader(Failing(Cursor::new(text.clone())));
            let mut ahead = RowsAhead::start(source, thread_count, |_, (): &mut ()| Ok(())).unwrap();
            let (row_count, end) = count_rows(&mut ahead);
            assert_eq!((row_count, end.unwrap_err().to_string()), (expected, "the disk is gone".to_owned()));
            assert!(ahead.next_batch().is_err(), "nothing comes after an error");
        }
    }
}

#[test]
fn what_fails_or_panics_while_a_batch_is_prepared_is_told_in_its_turn() {
    for panics in [false, true] {
        for thread_count in [1, 2, 5] {
            let prepare = move |batch: &RowBatch, (): &mut ()| {
                let is_here = batch.rows().iter().any(|row| row.line == 150);
                assert!(!(is_here && panics), "deliberately");
                if is_here { Err(io::Error::other("deliberately")) } else { Ok(()) }
            };
            let source = reader(Cursor::new(rows_text(3000)));
            let mut ahead = RowsAhead::start(source, thread_count, prepare).unwrap();
            let (row_count, end) = count_rows(&mut ahead);
            assert!((140..150).contains(&row_count), "{row_count}");
            let message = if panics { "a reading thread panicked" } else { "deliberately" };
            assert_eq!(end.unwrap_err().to_string(), message);
            assert!(ahead.next_batch().is_err());
        }
    }
}

/// Gives what it is sent, piece by piece, and tells when it is dropped.
struct Sent {
    pieces: Receiver<Vec<u8>>,
    piece: Cursor<Vec<u8>>,
    read_count: Arc<AtomicUsize>,
    dropped: std::sync::mpsc::Sender<()>,
}

impl Read for Sent {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_count.fetch_add(1, Ordering::SeqCst);
        if self.piece.position() == self.piece.get_ref().len() as u64 {
            self.piece = Cursor::new(self.pieces.recv().unwrap_or_default());
        }
        self.piece.read(buffer)
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        self.dropped.send(()).unwrap();
    }
}

#[test]
fn a_row_comes_before_the_next_one_is_written() {
    for thread_count in [1, 2, 5] {
        let (sender, pieces) = channel();
        let (dropped, is_dropped) = channel();
        sender.send(HEADER.to_vec()).unwrap();
        let read_count = Arc::default();
        let source = Sent { pieces, piece: Cursor::default(), read_count, dropped };
        let mut ahead = RowsAhead::start(reader(source), thread_count, |_, (): &mut ()| Ok(())).unwrap();
        for line in 2..200 {
            sender.send(b"unlock,1\n".to_vec()).unwrap();
            let batch = ahead.next_batch().unwrap().unwrap();
            assert_eq!((batch.rows.rows().len(), batch.rows.rows()[0].line), (1, line));
            ahead.give_back(batch);
        }
        drop(sender);
        assert!(ahead.next_batch().unwrap().is_none());
        drop(ahead);
        is_dropped.recv().unwrap();
    }
}

/// Only so much is read ahead as there are batches, and the threads end when nobody waits for them.
#[test]
fn threads_read_a_little_ahead_and_end_with_their_reader() {
    for thread_count in [1, 2, 5] {
        let (sender, pieces) = channel();
        let (dropped, is_dropped) = channel();
        sender.send(HEADER.to_vec()).unwrap();
        for _ in 0..1000 {
            sender.send(b"unlock,1\n".to_vec()).unwrap();
        }
        let read_count = Arc::new(AtomicUsize::new(0));
        let source = Sent { pieces, piece: Cursor::default(), read_count: Arc::clone(&read_count), dropped };
        let mut ahead = RowsAhead::start(reader(source), thread_count, |_, (): &mut ()| Ok(())).unwrap();
        assert!(ahead.next_batch().unwrap().is_some());
        drop(ahead);
        is_dropped.recv().unwrap();
        let read_count = read_count.load(Ordering::SeqCst);
        assert!(read_count <= 2 * thread_count + 10, "{read_count}");
        drop(sender);
    }
}
