//! Holds the documents against the program: commands, settings, environment, codes.
//!
//! What follows from the text of the repository alone (links, paths, names) is in `tests/documents.rs`.

use crate::cli::Cli;
use crate::codes;
use crate::commands::listen::SECRET_VARIABLE;
use crate::config;
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

#[cfg(all(feature = "cache", feature = "nats"))]
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

/// The rows of the first table at or behind a text: their first cells.
fn first_cells<'a>(text: &'a str, begin: &str) -> Vec<&'a str> {
    let behind = &text[text.find(begin).unwrap_or_else(|| panic!("no {begin}"))..];
    let rows = behind.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    rows.skip(2).filter_map(|row| row.split('|').nth(1)).collect()
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
