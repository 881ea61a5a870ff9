//! Holds the documents against the program: commands, settings, environment, codes.
//!
//! What follows from the text of the repository alone (links, paths, names) is in `tests/documents.rs`.

#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

use crate::cli::Cli;
use crate::codes;
use crate::commands::listen::SECRET_VARIABLE;
use crate::config;
use bursar_core::rules::{Effect, Known, decide_effect};
use bursar_core::{
    Account, Action, Amount, Currencies, CurrencyIndex, CustomerId, CustomerState, DisputablePolicy, LockedPolicy,
    Movement, Policy, Reference, Rejection, RejectionInfo, Request, RequestKind, TransactionId, TransactionKind,
    TransactionState, TransactionStatus,
};
use bursar_engine::new_config;
use clap::{CommandFactory as _, Parser as _};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Every document for users, by its path.
fn documents() -> Vec<(String, String)> {
    let mut names: Vec<String> =
        ["README.md", "packaging/bursar.service", "packaging/Dockerfile"].map(str::to_owned).into();
    for entry in std::fs::read_dir(root().join("docs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if Path::new(&name).extension().is_some_and(|extension| extension == "md") {
            names.push(format!("docs/{name}"));
        }
    }
    names.sort_unstable();
    names.into_iter().map(|name| (name.clone(), read(&name))).collect()
}

/// The blocks of code with their languages.
fn blocks(text: &str) -> Vec<(&str, &str)> {
    let parts = text.split("\n```").skip(1).step_by(2);
    parts.map(|part| part.split_once('\n').unwrap_or((part, ""))).collect()
}

/// The words of a line as a shell takes them, up to a comment; what stands between commands is a word of its own.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote, mut is_word) = (Vec::new(), String::new(), None, false);
    for char in line.chars() {
        match (quote, char) {
            (Some(open), _) if char == open => quote = None,
            (Some(_), _) => word.push(char),
            (None, '\'' | '"') => (quote, is_word) = (Some(char), true),
            (None, '#') if word.is_empty() && !is_word => break,
            (None, ' ' | '|' | '&' | ';' | '>') => {
                if is_word {
                    words.push(std::mem::take(&mut word));
                }
                is_word = false;
                if char != ' ' {
                    words.push(char.to_string());
                }
            }
            (None, _) => {
                word.push(char);
                is_word = true;
            }
        }
    }
    if is_word {
        words.push(word);
    }
    words
}

/// The arguments of each call of the program on a line.
fn calls(line: &str) -> Vec<Vec<String>> {
    let line = line.trim_start_matches(['#', ' ', '$']).replace("ExecStart=/usr/local/bin/bursar", "bursar");
    let words = words(&line);
    let commands = words.split(|word| ["|", "&", ";"].contains(&word.as_str()));
    let call = |command: &[String]| {
        let is_set = |word: &&String| word.contains('=') && word.starts_with(|first: char| first.is_ascii_uppercase());
        let command: Vec<&str> = command.iter().skip_while(is_set).map(String::as_str).collect();
        let arguments = match command.as_slice() {
            ["bursar", arguments @ ..] | ["sudo", "-u", _, "bursar", arguments @ ..] => arguments,
            // A line of a crontab: five fields and a user.
            [_, _, "*", "*", "*", _, "bursar", arguments @ ..] => arguments,
            ["docker", "run", rest @ ..] => rest.rsplit(|word| *word == "bursar").next()?,
            ["cargo", "run", rest @ ..] if rest.windows(2).any(|two| two == ["--bin", "bursar"]) => {
                rest.split(|word| *word == "--").nth(1)?
            }
            _ => return None,
        };
        let arguments = arguments.split(|word| *word == ">").next()?;
        Some(arguments.iter().map(|&word| word.to_owned()).collect())
    };
    commands.filter_map(call).collect()
}

#[test]
fn every_command_in_the_documents_can_be_read() {
    let (mut count, mut wrong) = (0, Vec::new());
    for (name, text) in documents() {
        let is_markdown = Path::new(&name).extension().is_some_and(|extension| extension == "md");
        let blocks =
            if is_markdown { blocks(&text).into_iter().map(|(_, block)| block).collect() } else { vec![&*text] };
        for line in blocks.into_iter().flat_map(str::lines) {
            for arguments in calls(line).into_iter().filter(|arguments| !arguments.is_empty()) {
                count += 1;
                let parsed = Cli::try_parse_from([vec!["bursar".to_owned()], arguments].concat());
                if let Some(error) = parsed.err().filter(clap::Error::use_stderr) {
                    wrong.push(format!("{name}: {line}\n{error}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 50, "only {count} commands were found");
}

/// In running text a command may be without what it needs, but not with what it does not take.
#[test]
fn every_command_in_running_text_is_one_and_has_its_flags() {
    let mut program = Cli::command();
    program.build();
    let (mut count, mut wrong) = (0, Vec::new());
    for (name, text) in documents() {
        let prose: String = text.split("\n```").step_by(2).collect();
        // One text begins like a command: what entries of the cache are sealed with.
        let spans = prose.split('`').skip(1).step_by(2).filter(|span| *span != "bursar cache");
        for span in spans.filter_map(|span| span.strip_prefix("bursar ")) {
            let mut command = &program;
            for word in span.split([' ', '\n', '|']).filter(|word| !word.is_empty()) {
                if let Some(flag) = word.strip_prefix("--") {
                    let flag = flag.split(['=', '[']).next().unwrap();
                    let known = command.get_arguments().any(|argument| argument.get_long() == Some(flag));
                    if !known && flag != "help" {
                        wrong.push(format!("{name}: `bursar {span}` has no --{flag}"));
                    }
                } else if let Some(inner) = command.find_subcommand(word) {
                    command = inner;
                }
            }
            if command.get_name() == "bursar" {
                wrong.push(format!("{name}: `bursar {span}` is no command"));
            }
            count += 1;
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(count > 60, "only {count} commands were found");
}

#[test]
fn the_settings_in_the_documents_can_be_read_and_none_is_missing() {
    let mut count = 0;
    for (name, text) in documents() {
        for (_, block) in blocks(&text).into_iter().filter(|(language, _)| *language == "toml") {
            let is_part = block.contains("[store.") && !block.contains("[store]");
            let whole = if is_part { "[store]\nchains = 'embedded'\ntransactions = 'embedded'\n" } else { "" };
            config::read_for_test(&format!("{whole}{block}"))
                .unwrap_or_else(|error| panic!("{name}: {error}\n{block}"));
            count += 1;
        }
    }
    assert!(count >= 6, "only {count} blocks of settings were found");
    let mut wrong = Vec::new();
    let sections = [
        ("", "docs/operations.md"),
        ("[store]", "docs/stores.md"),
        ("[store.embedded]", "docs/stores.md"),
        ("[store.postgres]", "docs/stores.md"),
        ("[store.nats]", "docs/nats.md"),
        ("[cache]", "docs/cache.md"),
        ("[rails.a]", "docs/rails.md"),
        ("[rails.a.retry]", "docs/rails.md"),
        ("[routes]", "docs/rails.md"),
        ("[[webhooks]]", "docs/webhooks.md"),
    ];
    for (section, document) in sections {
        // What is expected in place of a key that nobody has.
        let error = config::read_for_test(&format!("{section}\nno_such_key = 1\n")).unwrap_err();
        let keys: Vec<&str> = error.split('`').skip(3).step_by(2).collect();
        assert!(error.starts_with("unknown field `no_such_key`") && !keys.is_empty(), "{section}: {error}");
        let text = read(document);
        for key in keys {
            let named = [format!("`{key}`"), format!("{key} = "), format!("[{key}]"), format!("[{key}.")];
            if !named.iter().any(|named| text.contains(named)) {
                wrong.push(format!("{document} does not tell of `{key}` in {section}"));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn the_environment_is_the_one_in_the_manual() {
    let mut program = Cli::command();
    program.build();
    let mut read_by_it = BTreeSet::from([bursar_client::KEY_VARIABLE.to_owned(), SECRET_VARIABLE.to_owned()]);
    let commands = std::iter::once(&program).chain(program.get_subcommands());
    let variables = commands.flat_map(clap::Command::get_arguments).filter_map(clap::Arg::get_env);
    read_by_it.extend(variables.map(|name| name.to_string_lossy().into_owned()));
    let manual = read("docs/operations.md");
    let cells = first_cells(&manual, "\n| variable | stands for |");
    let listed: BTreeSet<String> = cells.iter().flat_map(|cell| ticked(cell)).map(str::to_owned).collect();
    assert_eq!(listed, read_by_it);
}

/// What is set as code in a line.
fn ticked(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// The rows of the first table at or behind a text, without its header.
fn table<'a>(text: &'a str, begin: &str) -> impl Iterator<Item = &'a str> {
    let behind = &text[text.find(begin).unwrap_or_else(|| panic!("no {begin}"))..];
    let rows = behind.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    rows.skip(2)
}

/// The first cells of such a table.
fn first_cells<'a>(text: &'a str, begin: &str) -> Vec<&'a str> {
    table(text, begin).filter_map(|row| row.split('|').nth(1)).collect()
}

#[test]
fn every_status_is_in_the_manual() {
    let manual = read("docs/api.md");
    let numbers = first_cells(&manual, "\n## What is not a success\n").into_iter().flat_map(|cell| cell.split(','));
    let mut listed: BTreeSet<u16> = numbers.filter_map(|number| number.trim().parse().ok()).collect();
    // The header that is too large is refused before there is a request.
    assert!(listed.remove(&431));
    let told: BTreeSet<u16> = bursar_server::problem::all().into_iter().map(|(status, _)| status).collect();
    assert_eq!(listed, told);
}

#[test]
fn every_finding_of_verification_is_in_the_format() {
    let format = read("docs/format.md");
    let cells = first_cells(&format, "\n## Verification\n");
    let listed: BTreeSet<&str> = cells.iter().flat_map(|cell| ticked(cell)).collect();
    let found: BTreeSet<&str> = codes::findings().map(|info| info.code).collect();
    assert_eq!(listed, found);
}

/// All cells of such a table, without what is said about them in brackets.
fn cells<'a>(text: &'a str, begin: &str) -> Vec<Vec<&'a str>> {
    let cell = |cell: &'a str| cell.split('(').next().unwrap_or(cell).trim().trim_matches('`');
    table(text, begin).map(|row| row.split('|').skip(1).map(cell).collect()).collect()
}

const CUSTOMER: CustomerId = CustomerId::new(1);
const TRANSACTION: TransactionId = TransactionId::new(7);
const STEPS: i64 = 30;

/// What comes of a request about a transaction of 30 steps, of a customer who has 100 steps, and 50 held.
fn effect(policy: Policy, kind: RequestKind, of: TransactionKind, locked: bool) -> Result<Option<Effect>, Rejection> {
    let config = new_config(policy, Currencies::default()).unwrap();
    let (currency, amount) = (CurrencyIndex::default(), Amount::from_steps(STEPS));
    let mut before = CustomerState { locked, ..CustomerState::default() };
    before.accounts.set(currency, Account { available: Amount::from_steps(100), held: Amount::from_steps(50) });
    let movement = Movement { transaction: TRANSACTION, amount, currency };
    let reference = Reference { transaction: TRANSACTION, amount: None, currency: None };
    let (action, status) = match kind {
        RequestKind::Deposit => (Action::Deposit(movement), None),
        RequestKind::Withdrawal => (Action::Withdrawal(movement), None),
        RequestKind::Dispute => (Action::Dispute(reference), Some(TransactionStatus::Posted)),
        RequestKind::Resolve => (Action::Resolve(reference), Some(TransactionStatus::Disputed)),
        RequestKind::Chargeback => (Action::Chargeback(reference), Some(TransactionStatus::Disputed)),
        RequestKind::Unlock => (Action::Unlock, None),
    };
    let state = status.map(|status| TransactionState { customer: CUSTOMER, kind: of, amount, currency, status });
    decide_effect(
        &config,
        &before,
        Known { state: state.as_ref(), reserved: false },
        &Request { customer: CUSTOMER, action },
    )
}

fn kind_of(name: &str) -> RequestKind {
    RequestKind::ALL.into_iter().find(|kind| kind.name() == name).unwrap_or_else(|| panic!("no kind {name}"))
}

#[test]
fn the_effects_in_the_manual_are_those_of_the_rules() {
    let manual = read("docs/rules.md");
    let policy = Policy { disputable: DisputablePolicy::DepositsAndWithdrawals, ..Policy::default() };
    let mut told = BTreeSet::new();
    for row in cells(&manual, "\n| request | about |") {
        let [request, about, available, held, transaction, customer, ..] = row[..] else { panic!("{row:?}") };
        let kind = kind_of(request);
        let of = if about == "a withdrawal" { TransactionKind::Withdrawal } else { TransactionKind::Deposit };
        let effect = effect(policy, kind, of, kind == RequestKind::Unlock).unwrap().unwrap();
        let moved = |before: i64, after: Amount| match after.steps() - before {
            0 => "",
            STEPS => "+ a",
            change if change == -STEPS => "− a",
            change => panic!("{row:?}: {change}"),
        };
        assert_eq!(
            (moved(100, effect.account.available), moved(50, effect.account.held)),
            (available, held),
            "{row:?}"
        );
        assert_eq!(effect.transaction.map_or("", |(_, state)| state.status.name()), transaction, "{row:?}");
        let lock = if kind == RequestKind::Unlock { "unlocked" } else { "" };
        assert_eq!(if effect.locked { "locked" } else { lock }, customer, "{row:?}");
        told.insert((request.to_owned(), about.to_owned()));
    }
    assert_eq!(told.len(), 9, "{told:?}");
}

#[test]
fn the_policies_in_the_manual_are_those_of_the_rules() {
    let manual = read("docs/rules.md");
    let kinds = cells(&manual, "\n| policy | deposit |");
    let names: Vec<&str> = kinds.iter().map(|row| row[0]).collect();
    assert_eq!(names, LockedPolicy::ALL.map(LockedPolicy::name));
    let header: Vec<&str> = manual.lines().find(|line| line.starts_with("| policy |")).unwrap().split('|').collect();
    for (row, locked) in kinds.iter().zip(LockedPolicy::ALL) {
        let policy = Policy { locked, ..Policy::default() };
        for (cell, name) in row.iter().zip(&header[1..]).skip(1).take(RequestKind::ALL.len()) {
            let came = effect(policy, kind_of(name.trim()), TransactionKind::Deposit, true);
            let told = matches!(came, Err(Rejection::CustomerLocked { .. }));
            assert_eq!(*cell, if told { "no" } else { "yes" }, "{row:?} {name}: {came:?}");
            assert!(told || came.is_ok(), "{came:?}");
        }
    }
}

#[test]
fn every_refusal_is_in_the_manual_in_order_of_precedence() {
    let manual = read("docs/rules.md");
    let listed: Vec<(String, String)> =
        cells(&manual, "\n## Refusals\n").iter().map(|row| (row[0].to_owned(), row[1].to_owned())).collect();
    let sentence = |info: &RejectionInfo| (info.code.to_owned(), info.meaning.trim_end_matches('.').to_owned());
    assert_eq!(listed, Rejection::ALL.iter().map(sentence).collect::<Vec<_>>());
}
