//! Holds the documents against the repository: links, paths, names, the map; and runs the first commands of the README.
//!
//! What takes the inside of the program (flags, settings, codes) is in `src/manual.rs`.

#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

mod common;

use common::{EXAMPLE, Sandbox, code, stderr};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use std::process::Command;

/// Names in the documents that are others': of systems, of standards, or of a time before.
const OTHERS: [&str; 8] = [
    "histogram_quantile",
    "node_exporter",
    "parentbased_traceidratio",
    "pg_monitor",
    "predict_linear",
    "rust_decimal",
    "split_batches",
    "to_hex",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The files of the repository that people write, by their paths from its root.
fn files() -> BTreeMap<String, String> {
    fn gather(directory: &Path, found: &mut BTreeMap<String, String>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let is_made = ["target", "corpus", "artifacts", "bursar-data"].contains(&name.as_str());
            if is_made || name.starts_with('.') && name != ".ci" {
                continue;
            }
            if path.is_dir() {
                gather(&path, found);
            } else {
                // Inputs of fuzzers are no text, but their names are looked for.
                let text = std::fs::read_to_string(&path).unwrap_or_default();
                found.insert(path.strip_prefix(root()).unwrap().to_string_lossy().into_owned(), text);
            }
        }
    }
    let mut found = BTreeMap::new();
    gather(&root(), &mut found);
    found
}

fn ends_as(path: &str, extension: &str) -> bool {
    Path::new(path).extension().is_some_and(|found| found == extension)
}

fn is_document(path: &str) -> bool {
    ends_as(path, "md")
}

/// The text outside of blocks of code.
fn prose(text: &str) -> String {
    text.split("\n```").step_by(2).collect()
}

/// What is set as code in running text.
fn spans(text: &str) -> Vec<String> {
    prose(text).split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The anchors of a document, made of its headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let prose = prose(text);
    let headings = prose.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let kept = |char: &char| char.is_alphanumeric() || [' ', '-', '_'].contains(char);
    headings.map(|heading| heading.to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")).collect()
}

fn joined(directory: &Path, link: &str) -> String {
    let mut parts = Vec::new();
    for part in directory.join(link).components() {
        match part {
            Component::ParentDir => drop(parts.pop()),
            Component::Normal(name) => parts.push(name.to_string_lossy().into_owned()),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    parts.join("/")
}

#[test]
fn every_link_leads_somewhere() {
    let files = files();
    let (mut count, mut wrong) = (0, Vec::new());
    for (path, text) in files.iter().filter(|(path, _)| is_document(path)) {
        for link in prose(text).split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
            if link.starts_with("http") {
                continue;
            }
            let (file, anchor) = link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
            let directory = Path::new(path).parent().unwrap();
            let target = if file.is_empty() { path.clone() } else { joined(directory, file) };
            let leads = |found: &String| anchor.is_none_or(|anchor| anchors(found).contains(anchor));
            if !files.get(&target).is_some_and(leads) {
                wrong.push(format!("{path}: {link} leads nowhere"));
            }
            count += 1;
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(count > 100, "only {count} links were found");
}

/// Codes, metrics, settings, fields, tests and files that a document names are in the sources, so that renaming one finds
/// what is written of it.
#[test]
fn every_name_in_the_documents_is_in_the_sources() {
    let files = files();
    let is_word = |char: char| char.is_ascii_alphanumeric() || char == '_';
    let mut known: BTreeSet<&str> = OTHERS.into_iter().collect();
    for (path, text) in &files {
        known.extend(path.split(|char| !is_word(char)));
        if !is_document(path) && !path.ends_with("tests/documents.rs") {
            known.extend(text.split(|char| !is_word(char)));
        }
    }
    // Metrics are registered without the prefix of the program, without their unit, and without what counters end with.
    let is_metric = |word: &str| {
        let Some(name) = word.strip_prefix("bursar_") else { return false };
        let ends = ["_total", "_bucket", "_sum", "_count"];
        let name = ends.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        let name = name.strip_suffix("_seconds").unwrap_or(name);
        // Those of the cache are registered by their part.
        known.contains(name) || name.strip_prefix("cache_").is_some_and(|name| known.contains(name))
    };
    let (mut count, mut wrong) = (0, Vec::new());
    for (path, text) in files.iter().filter(|(path, _)| is_document(path)) {
        for span in spans(text) {
            for word in span.split(|char| !is_word(char)) {
                let is_small =
                    word.starts_with(|first: char| first.is_ascii_lowercase()) && *word == word.to_lowercase();
                let is_name = is_small && word.trim_matches('_').contains('_');
                // The beginning of several names, as in `bursar_cache_…`, and the name of a test by which some are run.
                let is_part = word.ends_with('_') || span.starts_with("cargo test");
                if is_name && !is_part {
                    if !known.contains(word) && !is_metric(word) {
                        wrong.push(format!("{path}: `{word}` (in `{span}`) is nowhere"));
                    }
                    count += 1;
                }
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(count > 300, "only {count} names were found");
}

/// `crates/…`, `docs/…` and whatever else looks like a file of the sources, from the root or from a crate.
#[test]
fn every_file_in_the_documents_is_there() {
    let files = files();
    let (mut count, mut wrong) = (0, Vec::new());
    for (path, text) in files.iter().filter(|(path, _)| is_document(path)) {
        for span in spans(text) {
            let words = span.split([' ', '\n', ',']).filter(|word| !word.contains(['<', '…', '*', '{', '=']));
            for word in
                words.filter(|word| ends_as(word, "rs") || word.starts_with("crates/") || word.starts_with(".ci/"))
            {
                let whole = word.trim_start_matches("../").trim_end_matches('/');
                let is_there = |file: &String| {
                    file == whole || file.ends_with(&format!("/{whole}")) || file.contains(&format!("{whole}/"))
                };
                if !files.keys().any(is_there) {
                    wrong.push(format!("{path}: there is no {word}"));
                }
                count += 1;
            }
        }
        let words: Vec<&str> = text.split([' ', '\n', '`', '|', ';']).collect();
        let mut package = "";
        for two in words.windows(2) {
            match two {
                ["cargo", _] => package = "",
                ["-p" | "--package", name] => package = name.strip_prefix("bursar-").unwrap_or(name),
                ["--test" | "--example", name] if !package.is_empty() && *name != "NAME" => {
                    let place = if two[0] == "--test" { "tests" } else { "examples" };
                    let name = name.trim_end_matches(['.', ',', ')']);
                    let ends = [".rs", "/main.rs"].map(|end| format!("crates/{package}/{place}/{name}{end}"));
                    if !ends.iter().any(|file| files.contains_key(file)) {
                        wrong.push(format!("{path}: {package} has no {} {name}", two[0]));
                    }
                    count += 1;
                }
                _ => {}
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(count > 100, "only {count} files were found");
}

/// The modules that a file declares, but for those of tests.
fn modules(text: &str) -> Vec<String> {
    let (mut found, mut is_of_tests) = (Vec::new(), false);
    for line in text.lines() {
        let name = line.split_once("mod ").filter(|(before, _)| before.is_empty() || before.starts_with("pub"));
        if let Some(name) = name.and_then(|(_, name)| name.strip_suffix(';')).filter(|_| !is_of_tests) {
            found.push(name.to_owned());
        }
        is_of_tests = line == "#[cfg(test)]" || is_of_tests && line.starts_with("#[");
    }
    found
}

#[test]
fn the_map_has_every_crate_and_every_module_of_the_engine() {
    let files = files();
    let map = &files["ARCHITECTURE.md"];
    let (mut count, mut wrong) = (0, Vec::new());
    // What is deeper belongs to the crate around it.
    let is_crate = |path: &&str| path.split('/').count() <= 2;
    for path in files.keys().filter_map(|path| path.strip_suffix("/Cargo.toml")).filter(is_crate) {
        if ![format!("`{path}`"), format!("`{path}/`")].iter().any(|name| map.contains(name)) {
            wrong.push(format!("{path} is not on the map"));
        }
    }
    for (heading, file) in [
        ("\n### core\n", "crates/core/src/lib.rs"),
        ("\n### engine\n", "crates/engine/src/lib.rs"),
        ("\n### embedded store\n", "crates/engine/src/embedded/mod.rs"),
    ] {
        let part = map.split_once(heading).unwrap().1.split("\n#").next().unwrap();
        let cells = part.lines().filter(|line| line.starts_with('|')).filter_map(|row| row.split('|').nth(1));
        let listed: BTreeSet<&str> = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
        let listed: BTreeSet<&str> = listed.iter().map(|name| name.trim_end_matches('/')).collect();
        for module in modules(&files[file]) {
            if !listed.contains(module.as_str()) {
                wrong.push(format!("{file}: {module} is not on the map"));
            }
            count += 1;
        }
        for name in listed {
            let end = [
                format!("src/{name}.rs"),
                format!("src/{name}/mod.rs"),
                format!("embedded/{name}/mod.rs"),
                format!("embedded/{name}.rs"),
            ];
            if !files.keys().any(|path| end.iter().any(|end| path.ends_with(end))) {
                wrong.push(format!("ARCHITECTURE.md: there is no {name}"));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(count > 45, "only {count} modules were found");
}

/// Whoever comes to the project types these first: on the example that is shipped, each does what it should.
#[test]
fn the_first_commands_of_the_readme_work() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let block = readme.split_once("\n## Using it\n").unwrap().1.split("\n```").nth(1).unwrap();
    let sandbox = Sandbox::new();
    std::fs::create_dir_all(sandbox.path("examples/data")).unwrap();
    sandbox.write("examples/data/payments.csv", EXAMPLE);
    sandbox.done(&["ingest", "examples/data/payments.csv", "--quiet"]);
    let program = sandbox.command(&[]);
    let directory = Path::new(program.get_program()).parent().unwrap().to_owned();
    let path = format!("{}:{}", directory.display(), std::env::var("PATH").unwrap());
    let lines: Vec<&str> = block.lines().filter(|line| line.starts_with("bursar ")).collect();
    assert!(lines.len() >= 8, "{block}");
    for line in lines {
        let mut shell = Command::new("sh");
        shell.args(["-c", line]).current_dir(sandbox.path(".")).env("PATH", &path);
        for name in ["BURSAR_DATA", "BURSAR_CONFIG", "BURSAR_SERVER"] {
            shell.env_remove(name);
        }
        let output = shell.output().unwrap();
        assert_eq!(code(&output), 0, "{line}\n{}", stderr(&output));
        assert!(!output.stdout.is_empty(), "{line} says nothing");
    }
}
