//! One customer waits for its bank, all others go on: `cargo run -p bursar-engine --example held_open -- DIRECTORY`
//!
//! Customer 1's withdrawal goes through a rail that does not answer yet, so requests of customer 1 wait behind it, in
//! order. Meanwhile ten thousand requests of other customers are decided and made durable. Then the bank answers.

use bursar_engine::core::commit::{Outcome, RailAnswer, RailCall, Routes};
use bursar_engine::core::{Amount, Currencies, CustomerId, Policy, RailId, Request, TransactionId};
use bursar_engine::{Ledger, LedgerOptions, Rail, RailReply, Submitted, new_config};
use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

/// A bank that takes its time: it hands each call to whoever will answer it.
#[derive(Debug)]
struct SlowBank(Mutex<Sender<(RailCall, RailReply)>>);

impl Rail for SlowBank {
    fn call(&self, call: RailCall, reply: RailReply) {
        let desk = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // If nobody sits at the desk any more, the reply is dropped, which says "unknown".
        drop(desk.send((call, reply)));
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::args_os().nth(1).ok_or("in which (new) directory?")?;
    run(Path::new(&directory), &mut std::io::stdout())
}

fn deposit(customer: u128, transaction: u128) -> Request {
    Request::deposit(CustomerId::new(customer), TransactionId::new(transaction), Amount::from_steps(10_000))
}

fn applied_count(submitted: &[Submitted]) -> usize {
    submitted.iter().filter(|one| matches!(one, Ok(Outcome::Applied(_)))).count()
}

pub(crate) fn run(directory: &Path, out: &mut dyn Write) -> Result<(), Box<dyn Error>> {
    let (sender, desk) = channel();
    let bank = RailId::new(1).ok_or("no such rail")?;
    let routes = Routes { withdrawal: Some(bank), ..Routes::default() };
    let options = LedgerOptions { routes, ..LedgerOptions::default() };
    let options = options.with_rail(bank, Arc::new(SlowBank(Mutex::new(sender))));
    let ledger = Ledger::create(directory, &new_config(Policy::default(), Currencies::default())?, options)?;
    ledger.submit(deposit(1, 1))?;

    let (told, heard) = channel();
    let withdrawal = Request::withdrawal(CustomerId::new(1), TransactionId::new(2), Amount::from_steps(2_500));
    for (name, request) in [("withdrawal", withdrawal), ("deposit", deposit(1, 3)), ("deposit", deposit(1, 4))] {
        let told = told.clone();
        // Whoever does not listen any more does not need to hear.
        ledger.submit_then(vec![request], move |submitted| drop(told.send((name, submitted))))?;
    }
    let (call, reply) = desk.recv()?;
    writeln!(out, "the bank was asked about event {} of customer 1, and does not answer", call.event.id())?;

    let mut others = 0;
    for batch in 0..10 {
        let requests = (0..1_000).map(|n| deposit(1_000 + n, batch * 10_000 + 1_000 + n)).collect();
        others += applied_count(&ledger.submit_batch(requests)?);
    }
    let open: Vec<_> = ledger.open_events()?.iter().map(|event| event.event.customer.to_string()).collect();
    let answered = heard.try_iter().count();
    writeln!(out, "meanwhile: {others} requests of others are durable, {answered} of customer 1's 3")?;
    writeln!(out, "customers with an open event: {}", open.join(", "))?;

    reply.answer(RailAnswer::Done);
    writeln!(out, "the bank answers")?;
    for (name, submitted) in heard.iter().take(3) {
        if let [Ok(Outcome::Applied(receipt))] = &submitted[..] {
            writeln!(out, "customer 1's {name} is done, as event {} of the chain", receipt.event.seq)?;
        }
    }
    Ok(ledger.close()?)
}
