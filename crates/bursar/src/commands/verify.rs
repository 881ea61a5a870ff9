//! `bursar verify`: what is wrong with a ledger, where, and whom it concerns.

use super::unknown_customer;
use crate::cli::Global;
use crate::codes::{finding_info, stores_info};
use crate::config;
use crate::exit::{Failure, FailureKind};
use crate::ledger_dir::embedded_options;
use crate::output::{Format, stdout};
use crate::pairs::{Entry, Group, Value, print};
use crate::progress::{Progress, grouped};
use crate::stores::{Opened, Stores};
use bursar_core::CustomerId;
use bursar_engine::embedded::{EmbeddedStore, Finding, Lost, Note, VerifyOptions, VerifyReport, verify};
use bursar_engine::store::StoreError;
use bursar_engine::verify_stores::{StoresFinding, StoresReport, verify_stores};
use std::path::Path;

/// Verifies the whole ledger, or one customer's chain.
pub(crate) fn run(global: &Global, only: Option<CustomerId>, format: Format) -> Result<(), Failure> {
    if let Some(stores) = config::stores(global)? {
        return run_stores(global, &stores, only, format);
    }
    if !EmbeddedStore::exists(&global.data) {
        return Err(StoreError::NotFound { path: global.data.clone() }.into());
    }
    let report = verified(global, &global.data, only)?;
    if let Some(customer) = only.filter(|_| report.is_sound() && report.event_count == 0) {
        return Err(unknown_customer(customer));
    }
    print(format, &entries(&report, only), stdout()).map_err(|error| Failure::stdout(&error))?;
    judged(&report, &global.data)
}

/// Verifies a ledger in other stores: chains, table and sums. Engines may go on meanwhile.
fn run_stores(global: &Global, stores: &Stores, only: Option<CustomerId>, format: Format) -> Result<(), Failure> {
    let Opened { config, chains, transactions, .. } = stores.open(embedded_options(global))?;
    let mut progress = Progress::counting(global.quiet);
    let verified = verify_stores(&config, &*chains, &*transactions, only, |count| {
        progress.update_count(count, "events");
    });
    progress.finish();
    let report = verified?;
    if let Some(customer) = only.filter(|_| report.is_sound() && report.totals.event_count + report.open_count == 0) {
        return Err(unknown_customer(customer));
    }
    print(format, &stores_entries(&report, only), stdout()).map_err(|error| Failure::stdout(&error))?;
    if report.is_sound() {
        return Ok(());
    }
    let things = if report.finding_count == 1 { "thing is" } else { "things are" };
    let sentence = format!("{} {things} wrong: {stores}", grouped(report.finding_count));
    Err(Failure::new(FailureKind::DamageFound, sentence))
}

fn stores_entries(report: &StoresReport, only: Option<CustomerId>) -> Vec<(&'static str, Entry)> {
    let count = |count| Entry::One(Value::Count(count));
    let mut entries = vec![
        ("sound", Entry::One(Value::Flag(report.is_sound()))),
        ("findings", count(report.finding_count)),
        ("finding", numbered(report.findings.iter().map(stores_finding).collect())),
    ];
    match only {
        Some(customer) => entries.push(("client", Entry::One(Value::shown(&customer)))),
        None => entries.extend([
            ("customers", count(report.totals.customer_count)),
            ("sums_compared", Entry::One(Value::Flag(report.sums_compared))),
        ]),
    }
    entries.extend([
        ("transactions", count(report.totals.transaction_count)),
        ("events", count(report.totals.event_count + report.open_count)),
        ("open_events", count(report.open_count)),
    ]);
    entries
}

fn stores_finding(finding: &StoresFinding) -> Group {
    let mut group =
        vec![("code", Value::shown(&finding.fault.code())), ("what", Value::shown(&finding.fault.to_string()))];
    if let Some((customer, seq)) = finding.event {
        group.push(("client", Value::shown(&customer)));
        group.push(("seq", Value::Count(seq)));
    }
    if let Some(info) = stores_info(&finding.fault) {
        group.push(("hint", Value::shown(&info.hint)));
    }
    group
}

/// Verifies the ledger in a directory.
pub(super) fn verified(global: &Global, directory: &Path, only: Option<CustomerId>) -> Result<VerifyReport, Failure> {
    let mut options = VerifyOptions { only, ..VerifyOptions::default() };
    if let Some(bytes) = global.memory {
        options.memory_bytes_max = usize::try_from(bytes).unwrap_or(usize::MAX);
    }
    let mut progress = Progress::new(Some(0), global.quiet);
    let verified = verify(directory, &options, &mut |told| progress.update_bytes(told.bytes, told.bytes_total));
    progress.finish();
    Ok(verified?)
}

/// A failure if something is wrong.
pub(super) fn judged(report: &VerifyReport, directory: &Path) -> Result<(), Failure> {
    if report.is_sound() {
        return Ok(());
    }
    let things = if report.finding_count == 1 { "thing is" } else { "things are" };
    let sentence = format!("{} {things} wrong in {}", grouped(report.finding_count), directory.display());
    let failure = Failure::new(FailureKind::DamageFound, sentence);
    let derived = report.findings.iter().all(|finding| finding.code.is_derived());
    // All that is wrong can be made anew: then the hint of any finding is the one for all.
    match report.findings.first().and_then(|finding| finding_info(finding.code)).filter(|_| derived) {
        Some(info) => Err(failure.with_hint(info.hint)),
        None => Err(failure),
    }
}

fn entries(report: &VerifyReport, only: Option<CustomerId>) -> Vec<(&'static str, Entry)> {
    let count = |count| Entry::One(Value::Count(count));
    let mut entries = vec![
        ("sound", Entry::One(Value::Flag(report.is_sound()))),
        ("findings", count(report.finding_count)),
        ("finding", numbered(report.findings.iter().map(finding).collect())),
        ("note", numbered(report.notes.iter().map(note).collect())),
    ];
    match only {
        Some(customer) => entries.push(("client", Entry::One(Value::shown(&customer)))),
        None => entries.push(("customers", count(report.totals.customer_count))),
    }
    let journal = vec![
        ("bytes", Value::Count(report.journal_bytes)),
        ("frames", Value::Count(report.frame_count)),
        ("digest", Value::shown(&report.journal_digest)),
    ];
    entries.extend([
        ("transactions", count(report.totals.transaction_count)),
        ("events", count(report.event_count)),
        ("open_events", count(report.open_count)),
        ("journal", Entry::Group(journal)),
        ("disk", Entry::Group(vec![("bytes", Value::Count(report.file_bytes))])),
    ]);
    entries
}

fn numbered(groups: Vec<Group>) -> Entry {
    Entry::List(groups.into_iter().enumerate().map(|(index, group)| ((index + 1).to_string(), group)).collect())
}

fn finding(finding: &Finding) -> Group {
    let mut group = vec![
        ("code", Value::shown(&finding.code.code())),
        ("file", Value::shown(&finding.path.display())),
        ("offset", Value::Count(finding.offset)),
        ("what", Value::shown(&finding.what)),
    ];
    if let Some((customer, seq)) = finding.event {
        group.push(("client", Value::shown(&customer)));
        group.push(("seq", Value::Count(seq)));
    }
    if let Some(lost) = &finding.lost {
        group.extend(lost_events(lost));
    }
    if let Some(info) = finding_info(finding.code) {
        group.push(("hint", Value::shown(&info.hint)));
    }
    group
}

/// What a part of the journal that cannot be read has taken with it.
fn lost_events(lost: &Lost) -> Group {
    let each = |of: &bursar_engine::embedded::LostEvents| match of.event_count {
        1 => format!("{}: event {}", of.customer, of.first_seq),
        count => format!("{}: {} events from {}", of.customer, count, of.first_seq),
    };
    vec![
        ("lost_bytes", Value::Count(lost.bytes)),
        ("lost_events", Value::Count(lost.event_count)),
        ("lost_customers", Value::Count(lost.customer_count)),
        ("lost", Value::Text(lost.customers.iter().map(each).collect::<Vec<_>>().join("; "))),
    ]
}

fn note(note: &Note) -> Group {
    vec![
        ("file", Value::shown(&note.path.display())),
        ("offset", Value::Count(note.offset)),
        ("what", Value::shown(&note.what)),
    ]
}
