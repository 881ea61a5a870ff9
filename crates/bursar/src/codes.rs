//! Every code that the program can print, wherever it comes from: what `bursar explain` knows.

use crate::exit::FailureKind;
use bursar_core::{Rejection, RejectionInfo};

/// Where a code shows up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A request was rejected by the rules of money.
    Request,
    /// A command could not do its work.
    Command,
}

impl Origin {
    /// The name printed.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Command => "command",
        }
    }
}

/// What is known about a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CodeInfo {
    /// The stable code, fit for programs.
    pub(crate) code: &'static str,
    /// Where it shows up.
    pub(crate) origin: Origin,
    /// What it means, in a sentence.
    pub(crate) meaning: &'static str,
    /// What somebody can do about it.
    pub(crate) hint: &'static str,
}

impl CodeInfo {
    /// A code of the program itself.
    pub(crate) const fn command(code: &'static str, meaning: &'static str, hint: &'static str) -> Self {
        Self { code, origin: Origin::Command, meaning, hint }
    }

    const fn request(info: &RejectionInfo) -> Self {
        Self { code: info.code, origin: Origin::Request, meaning: info.meaning, hint: info.hint }
    }
}

/// All codes: rejections in order of precedence, then the program's own.
pub(crate) fn all_codes() -> impl Iterator<Item = CodeInfo> {
    let requests = Rejection::ALL.iter().map(CodeInfo::request);
    let commands = FailureKind::ALL.into_iter().map(FailureKind::info);
    requests.chain(commands)
}

/// The codes closest to what was written, the closest first: those that contain it or that it contains,
/// and those within a third of its length in typing errors. At most three.
pub(crate) fn near(written: &str) -> Vec<&'static str> {
    let errors_max = (written.len() / 3).max(2);
    let mut found: Vec<(usize, &'static str)> = all_codes()
        .filter_map(|info| {
            let within = written.len() > 2 && (info.code.contains(written) || written.contains(info.code));
            let errors = strsim::damerau_levenshtein(written, info.code);
            if within { Some((0, info.code)) } else { (errors <= errors_max).then_some((errors, info.code)) }
        })
        .collect();
    found.sort_unstable();
    found.into_iter().map(|(_, code)| code).take(3).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_words_and_each_says_what_to_do() {
        let codes: Vec<CodeInfo> = all_codes().collect();
        for (index, info) in codes.iter().enumerate() {
            assert!(codes[..index].iter().all(|other| other.code != info.code), "{} twice", info.code);
            assert!(info.code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{}", info.code);
            assert!(info.meaning.ends_with('.') && info.hint.ends_with('.'), "{}", info.code);
        }
    }

    #[test]
    fn near_codes_are_found() {
        let table: &[(&str, &[&str])] = &[
            ("insuficient_funds", &["insufficient_funds"]),
            ("locked", &["customer_locked", "not_locked"]),
            ("not_dispute", &["not_disputed", "not_disputable"]),
            ("zzzzzzzz", &[]),
        ];
        for (written, expected) in table {
            let got = near(written);
            assert!(expected.iter().all(|code| got.contains(code)), "{written}: {got:?}");
            assert!(!expected.is_empty() || got.is_empty(), "{written}: {got:?}");
        }
    }
}
