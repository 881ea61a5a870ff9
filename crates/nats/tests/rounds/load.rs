//! What engines are asked for: requests of a few customers, under keys and conditions, some to both engines at once.

use super::CUSTOMERS;
use super::engine::{Book, Engine};
use bursar_engine::core::commit::{Minimum, Terms};
use bursar_engine::core::{Amount, CurrencyIndex, CustomerId, LedgerConfig, Request, RequestKey, TransactionId};
use std::sync::atomic::{AtomicBool, Ordering};

/// Numbers that follow from a seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb) ^ mixed >> 31
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// A request, about a transaction of before or a new one.
fn request(random: &mut Random, book: &Book, mine: &mut Vec<(CustomerId, TransactionId)>) -> Request {
    let customer = CustomerId::new(u128::from(random.below(CUSTOMERS) + 1));
    let transaction = TransactionId::new(u128::from(book.next.fetch_add(1, Ordering::Relaxed)));
    let amount = Amount::from_steps(random.below(100).cast_signed() + 1);
    let old = mine.get(random.below(mine.len().max(1) as u64) as usize).copied();
    match (random.below(40), old) {
        (0..=5, Some((customer, transaction))) => Request::dispute(customer, transaction),
        (6..=10, Some((customer, transaction))) => Request::resolve(customer, transaction),
        (11, Some((customer, transaction))) => Request::chargeback(customer, transaction),
        (12..=14, _) => Request::unlock(customer),
        (15..=22, _) => Request::withdrawal(customer, transaction, amount),
        _ => {
            mine.push((customer, transaction));
            Request::deposit(customer, transaction, amount)
        }
    }
}

/// What is set beside it: keys that come again, mostly with the same request; conditions, mostly such as hold.
fn terms(random: &mut Random, book: &Book, config: &LedgerConfig, request: &Request) -> Terms {
    let mut terms = Terms::default();
    if request.action.takes_key() && random.below(2) == 0 {
        let (kind, customer, old) = (request.action.kind().name(), request.customer, request.action.transaction());
        let text = match random.below(10) {
            0 => format!("any {customer} {}", random.below(10)),
            _ => format!("{kind} {customer} {old:?} {}", random.below(2)),
        };
        terms.key = RequestKey::of_text(&config.digest(), text.as_bytes());
    }
    if random.below(6) == 0 {
        terms.expected_seq = Some(book.newest(request.customer).saturating_sub(random.below(4) / 3));
    }
    if random.below(8) == 0 {
        let amount = Amount::from_steps(random.below(400).cast_signed());
        terms.minimum_available = Some(Minimum { currency: CurrencyIndex(0), amount });
    }
    terms
}

/// Asks one engine for one thing after the other; every few times the other engine for the same thing as well.
pub(crate) fn write(
    engines: &[Engine; 2],
    which: usize,
    book: &Book,
    config: &LedgerConfig,
    stopped: &AtomicBool,
    seed: u64,
) {
    let mut random = Random(seed);
    let mut mine: Vec<(CustomerId, TransactionId)> = Vec::new();
    while !stopped.load(Ordering::Relaxed) {
        if random.below(6) == 0 {
            engines[which].read(book, CustomerId::new(u128::from(random.below(CUSTOMERS) + 1)));
            continue;
        }
        let request = request(&mut random, book, &mut mine);
        let terms = terms(&mut random, book, config, &request);
        if random.below(8) == 0 {
            let ask = |engine: &Engine| engine.submit(book, request, terms);
            std::thread::scope(|scope| engines.iter().for_each(|engine| drop(scope.spawn(move || ask(engine)))));
        } else {
            engines[which].submit(book, request, terms);
        }
    }
}
