//! Every case runs on a tiny input, agrees with its peer, and prints what it should. No figure is judged: on an input
//! of this size they mean nothing, and no test asserts a time.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

use serde_json::Value;
use std::process::{Command, Output};

/// Each case with how many figures it has.
const CASES: [(&str, usize); 11] = [
    ("memory-rising", 3),
    ("memory-uuid", 3),
    ("durable-rising", 6),
    ("durable-uuid", 6),
    ("lone", 2),
    ("crowd", 3),
    ("hot-customer", 1),
    ("growth", 3),
    ("opening", 2),
    ("disk", 8),
    ("verify", 2),
];

fn bench(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bursar-bench")).args(args).output().unwrap()
}

fn stdout_of(args: &[&str]) -> String {
    let output = bench(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn is_positive(value: &Value) -> bool {
    value.as_f64().is_some_and(|value| value.is_finite() && value > 0.0)
}

#[test]
fn every_case_yields_sane_figures() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let results: Value =
        serde_json::from_str(&stdout_of(&["run", "--quick", "--output", "json", "--directory", path])).unwrap();
    let machine = &results["machine"];
    for key in ["cores", "memory_bytes", "fdatasync_p50_us", "append_frames_mb_s", "scan_rows_s", "sha256_mb_s"] {
        assert!(is_positive(&machine[key]), "{key}: {machine}");
    }
    for key in ["kernel", "file_system"] {
        assert!(machine[key].as_str().is_some_and(|text| !text.is_empty()), "{key}: {machine}");
    }
    let figures = results["figures"].as_array().unwrap();
    for (case, count) in CASES {
        let of_case: Vec<&Value> = figures.iter().filter(|figure| figure["case"] == case).collect();
        assert_eq!(of_case.len(), count, "{case}");
        assert!(of_case.iter().any(|figure| figure["goal"].is_string() && figure["met"].is_boolean()), "{case}");
        for figure in of_case {
            assert!(is_positive(&figure["value"]), "{figure}");
            if figure["against"].is_string() {
                let keys = ["limit", "ratio", "ratio_low", "ratio_high"];
                assert!(keys.iter().all(|key| is_positive(&figure[key])), "{figure}");
            }
        }
    }
    assert_eq!(figures.len(), CASES.iter().map(|(_, count)| count).sum::<usize>());
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "something was left behind");
}

#[test]
fn the_other_formats_hold_the_same_figures() {
    let table = stdout_of(&["run", "disk", "--quick", "--output", "table"]);
    assert!(table.contains("file system") && table.contains("bytes/event"), "{table}");
    let text = stdout_of(&["run", "disk", "--quick", "--output", "csv"]);
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let header = "case,what,value,unit,against,limit,ratio,ratio_low,ratio_high,goal,met,rounds";
    assert_eq!(reader.headers().unwrap().iter().collect::<Vec<_>>().join(","), header);
    assert_eq!(reader.records().map(|record| assert_eq!(&record.unwrap()[0], "disk")).count(), 8);
}

#[test]
fn the_list_names_every_case_and_step() {
    let list = stdout_of(&["list"]);
    for (case, _) in CASES {
        assert!(list.lines().any(|line| line.starts_with(case)), "{case}: {list}");
    }
    assert_eq!(list.lines().filter(|line| line.starts_with("steps --only ")).count(), 11, "{list}");
    assert!(stdout_of(&["steps", "--only", "hash", "--times", "0"]).starts_with("100000 0"));
}

#[test]
fn a_wrong_command_line_is_refused() {
    for args in [&["run", "nothing"][..], &["run", "--rows", "0"], &["run", "--quick", "--long"], &["steps"]] {
        assert_eq!(bench(args).status.code(), Some(2), "{args:?}");
    }
    let missing = bench(&["run", "disk", "--quick", "--directory", "/nowhere/at/all"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(missing.stdout.is_empty());
}
