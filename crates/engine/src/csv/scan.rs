//! Cuts one row out of text, and the row into fields: all of CSV's rules, for plain and quoted rows alike.
//!
//! What the fields mean is not known here; see [`super::row`]. Written by hand, since the well-kept parsers
//! are lenient: they report neither a quote that is never closed nor text behind one that is, and give no
//! positions of fields. `csv-core` checks this scanner in the tests instead.

use super::row_error::{RowErrorKind, Span};
use memchr::{memchr, memchr2};
use std::ops::Range;

/// One field of a row, as two ranges of the row's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Field {
    /// All of it, from comma to comma.
    pub(super) raw: Range<usize>,
    /// Its value: without surrounding blanks and quotes. Quotes inside are still doubled.
    pub(super) value: Range<usize>,
    /// Whether it is quoted.
    pub(super) quoted: bool,
}

/// What stands at the beginning of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scan {
    /// A row, or a blank line.
    Row(Extent),
    /// A row with a fault of quotes, which is cut at the end of its first line.
    Fault { kind: RowErrorKind, span: Span, extent: Extent },
    /// A row that has no end within the limit.
    TooLong,
    /// The text ends before it can be told.
    Incomplete,
}

/// How far a row reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// The length of its text, without the line end.
    pub(super) text: usize,
    /// Where the next row begins: behind the line end.
    pub(super) next: usize,
    /// How many line ends (LF) it has, its own included.
    pub(super) line_ends: u64,
}

/// Scans the row at the beginning of `text` and lists its fields in `fields`.
///
/// `at_end` says that no more text follows. A row has at most `bytes_max` bytes without its line end; whatever
/// the answer is, it depends on no more than the first `bytes_max + 2` bytes, so that it does not depend on how
/// the text came in pieces.
pub(super) fn scan_row(text: &[u8], at_end: bool, bytes_max: usize, fields: &mut Vec<Field>) -> Scan {
    let window_full = text.len() >= bytes_max.saturating_add(2);
    let window = if window_full { &text[..bytes_max + 2] } else { text };
    let scanner = Scanner { window, window_full, at_end: at_end && !window_full, bytes_max };
    fields.clear();
    scanner.row(fields)
}

struct Scanner<'a> {
    window: &'a [u8],
    /// The window is all that a row may have: a row without an end in it has none.
    window_full: bool,
    /// The window's end is the end of everything.
    at_end: bool,
    bytes_max: usize,
}

/// What follows a field.
enum After {
    Comma,
    LineEnd { text: usize, next: usize },
    Other,
    Unknown,
}

impl Scanner<'_> {
    fn row(&self, fields: &mut Vec<Field>) -> Scan {
        let mut at = 0;
        loop {
            let raw_start = at;
            let start = self.skip_blanks(at);
            let quoted = self.window.get(start) == Some(&b'"');
            let (value, raw_end) = if quoted {
                let Some(close) = self.closing_quote(start + 1) else { return self.unclosed(start) };
                (start + 1..close, self.skip_blanks(close + 1))
            } else {
                let end = memchr2(b',', b'\n', &self.window[start..]).map_or(self.window.len(), |found| start + found);
                let end = self.without_carriage_return(start, end);
                (start..self.trim_blanks(start, end), end)
            };
            let field = Field { raw: raw_start..raw_end, value, quoted };
            match self.after(raw_end) {
                After::Comma => {
                    fields.push(field);
                    at = raw_end + 1;
                }
                After::LineEnd { text, next } => {
                    fields.push(field);
                    return self.ended(text, next);
                }
                After::Other => return self.fault(RowErrorKind::TextAfterQuote, raw_end),
                After::Unknown => return if self.window_full { Scan::TooLong } else { Scan::Incomplete },
            }
        }
    }

    fn ended(&self, text: usize, next: usize) -> Scan {
        if text > self.bytes_max {
            return Scan::TooLong;
        }
        let line_ends = memchr::memchr_iter(b'\n', &self.window[..next]).count() as u64;
        Scan::Row(Extent { text, next, line_ends })
    }

    fn after(&self, at: usize) -> After {
        match (self.window.get(at), self.window.get(at + 1)) {
            (Some(b','), _) => After::Comma,
            (Some(b'\n'), _) => After::LineEnd { text: at, next: at + 1 },
            (Some(b'\r'), Some(b'\n')) => After::LineEnd { text: at, next: at + 2 },
            (Some(b'\r'), None) if self.at_end => After::LineEnd { text: at, next: at + 1 },
            (Some(b'\r'), None) => After::Unknown,
            (Some(_), _) => After::Other,
            (None, _) if self.at_end => After::LineEnd { text: at, next: at },
            (None, _) => After::Unknown,
        }
    }

    fn skip_blanks(&self, mut at: usize) -> usize {
        while let Some(b' ' | b'\t') = self.window.get(at) {
            at += 1;
        }
        at
    }

    fn trim_blanks(&self, start: usize, mut end: usize) -> usize {
        while end > start && matches!(self.window[end - 1], b' ' | b'\t') {
            end -= 1;
        }
        end
    }

    /// Leaves out the CR of a CRLF, or of one whose LF is missing at the very end.
    fn without_carriage_return(&self, start: usize, end: usize) -> usize {
        let comma = self.window.get(end) == Some(&b',');
        if !comma && end > start && self.window[end - 1] == b'\r' { end - 1 } else { end }
    }

    fn closing_quote(&self, mut at: usize) -> Option<usize> {
        loop {
            let found = at + memchr(b'"', self.window.get(at..)?)?;
            if self.window.get(found + 1) != Some(&b'"') {
                return Some(found);
            }
            at = found + 2;
        }
    }

    /// A quote opens at `open` and no quote closes it in the window.
    fn unclosed(&self, open: usize) -> Scan {
        if !self.window_full && !self.at_end {
            return Scan::Incomplete;
        }
        self.fault(RowErrorKind::UnclosedQuote, open)
    }

    /// The opening quote of the field that `at` lies in.
    fn open_at(&self, at: usize) -> usize {
        let mut field_start = 0;
        loop {
            let start = self.skip_blanks(field_start);
            if self.window.get(start) == Some(&b'"') {
                match self.closing_quote(start + 1) {
                    Some(close) if close < at => field_start = self.skip_blanks(close + 1) + 1,
                    Some(_) | None => return start,
                }
            } else {
                match memchr(b',', &self.window[start..]) {
                    Some(found) if start + found < at => field_start = start + found + 1,
                    Some(_) | None => return start,
                }
            }
        }
    }

    /// Cuts the row at its first line's end. What is underlined goes from `start` to the end of its field, or of
    /// the line where a quote was not closed. If `start` is on a later line, then it is the quote that was open
    /// at the first line's end that is to blame.
    fn fault(&self, kind: RowErrorKind, start: usize) -> Scan {
        let (text, next, line_ends) = match memchr(b'\n', self.window) {
            Some(end) => (self.without_carriage_return(0, end), end + 1, 1),
            None if self.at_end => (self.without_carriage_return(0, self.window.len()), self.window.len(), 0),
            None if self.window_full => return Scan::TooLong,
            None => return Scan::Incomplete,
        };
        if text > self.bytes_max {
            return Scan::TooLong;
        }
        let extent = Extent { text, next, line_ends };
        if kind == RowErrorKind::TextAfterQuote && start < text {
            let end = memchr(b',', &self.window[start..text]).map_or(text, |found| start + found);
            return Scan::Fault { kind, span: Span::new(start, end), extent };
        }
        let open = if start < text { start } else { self.open_at(text) };
        Scan::Fault { kind: RowErrorKind::UnclosedQuote, span: Span::new(open, text), extent }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scan(text: &str, at_end: bool) -> (Scan, Vec<(String, bool)>) {
        let mut fields = Vec::new();
        let scan = scan_row(text.as_bytes(), at_end, 64, &mut fields);
        (scan, fields.into_iter().map(|field| (text[field.value].to_owned(), field.quoted)).collect())
    }

    #[test]
    fn fields_end_where_the_rules_say() {
        // text, fields, length of the text, beginning of the next row
        let table: &[(&str, &[(&str, bool)], usize, usize)] = &[
            ("a,b\nc", &[("a", false), ("b", false)], 3, 4),
            ("a,b\r\nc", &[("a", false), ("b", false)], 3, 5),
            ("a,\r\n", &[("a", false), ("", false)], 2, 4),
            (" a\t,\t b \n", &[("a", false), ("b", false)], 8, 9),
            ("\"a\" , \"b\"\t\r\n", &[("a", true), ("b", true)], 10, 12),
            ("\"a,\nb\",c\n", &[("a,\nb", true), ("c", false)], 8, 9),
            ("\"a\"\"b\"\n", &[("a\"\"b", true)], 6, 7),
            ("a\"b\"c\n", &[("a\"b\"c", false)], 5, 6),
            ("a\rb\n", &[("a\rb", false)], 3, 4),
            ("\n", &[("", false)], 0, 1),
            ("a,b", &[("a", false), ("b", false)], 3, 3),
            ("a,b\r", &[("a", false), ("b", false)], 3, 4),
            ("\"a\"\r", &[("a", true)], 3, 4),
            ("\"\"", &[("", true)], 2, 2),
        ];
        for (text, fields, text_end, next) in table {
            let expected: Vec<_> = fields.iter().map(|(field, quoted)| ((*field).to_owned(), *quoted)).collect();
            let line_ends = text[..*next].matches('\n').count() as u64;
            let extent = Extent { text: *text_end, next: *next, line_ends };
            assert_eq!(scan(text, true), (Scan::Row(extent), expected), "{text:?}");
        }
    }

    #[test]
    fn faults_of_quotes_cost_one_line() {
        use RowErrorKind::{TextAfterQuote as After, UnclosedQuote as Unclosed};
        // text, fault, what is underlined, length of the text, beginning of the next row
        let table: &[(&str, RowErrorKind, &str, usize, usize)] = &[
            ("a,\"b\nc,d\n", Unclosed, "\"b", 4, 5),
            ("a,\"b\r\nc,\"d\"\n", Unclosed, "\"b", 4, 6),
            ("a,\"b", Unclosed, "\"b", 4, 4),
            ("\"a\"x,b\nc\n", After, "x", 6, 7),
            ("\"a\" \"b\"\n", After, "\"b\"", 7, 8),
            ("\"a,\"b\",c\nd\n", After, "b\"", 8, 9),
            ("\"a\"\rb\n", After, "\rb", 5, 6),
            ("\"z\",\"a\nb\",\"c\"d\n", Unclosed, "\"a", 6, 7),
            ("\"z\", x , \"a\n\"b\n", Unclosed, "\"a", 11, 12),
            ("\"a\nb\",\"c\n", Unclosed, "\"a", 2, 3),
            ("\"\r\na\"b\n", Unclosed, "\"", 1, 3),
        ];
        for (text, kind, underlined, text_end, next) in table {
            let (got, _) = scan(text, true);
            let Scan::Fault { kind: got_kind, span, extent } = got else { panic!("{text:?}: {got:?}") };
            assert_eq!(got_kind, *kind, "{text:?}");
            assert_eq!(&text[span.start as usize..span.end as usize], *underlined, "{text:?}");
            let line_ends = text[..*next].matches('\n').count() as u64;
            assert_eq!(extent, Extent { text: *text_end, next: *next, line_ends }, "{text:?}");
        }
    }

    #[test]
    fn a_row_without_an_end_waits_until_the_limit() {
        for text in ["", "a", "a,", "\"a", "\"a\"", "\"a\"\r", "\"a\"x", "a\r"] {
            assert_eq!(scan(text, false).0, Scan::Incomplete, "{text:?}");
        }
        let fits = "x".repeat(64);
        assert!(matches!(scan(&format!("{fits}\r\n"), false).0, Scan::Row(_)));
        assert_eq!(scan(&format!("{fits}x"), false).0, Scan::Incomplete);
        assert_eq!(scan(&format!("{fits}x\n"), false).0, Scan::TooLong);
        assert_eq!(scan(&format!("{fits}x"), true).0, Scan::TooLong);
        assert_eq!(scan(&format!("\"{fits}xx"), false).0, Scan::TooLong);
        assert!(matches!(scan(&format!("\"a\n{fits}"), false).0, Scan::Fault { .. }));
    }

    /// What `csv-core` makes of one row.
    fn by_csv_core(text: &[u8]) -> Vec<Vec<u8>> {
        let (mut output, mut ends) = (vec![0; text.len() + 8], vec![0; 64]);
        let mut reader = csv_core::Reader::new();
        let (_, mut read, mut written, mut ended) = reader.read_record(text, &mut output, &mut ends);
        while read <= text.len() && ended == 0 {
            let (result, more_read, more_written, more_ended) =
                reader.read_record(&text[read..], &mut output[written..], &mut ends[ended..]);
            (read, written, ended) = (read + more_read, written + more_written, ended + more_ended);
            if result == csv_core::ReadRecordResult::End || result == csv_core::ReadRecordResult::Record {
                break;
            }
        }
        let starts = std::iter::once(0).chain(ends.iter().copied());
        starts.zip(&ends[..ended]).map(|(start, end)| output[start..*end].to_vec()).collect()
    }

    proptest! {
        /// Rows as RFC 4180 has them, without blanks around fields, mean the same to both.
        #[test]
        fn agrees_with_csv_core(fields in prop::collection::vec(("[a-z0-9,\"\n]{0,6}", any::<bool>()), 1..6)) {
            let mut row: Vec<String> = Vec::new();
            for (field, quoted) in &fields {
                let must = field.contains([',', '"', '\n']) || fields.len() == 1;
                let quoted_field = format!("\"{}\"", field.replace('"', "\"\""));
                row.push(if *quoted || must { quoted_field } else { field.clone() });
            }
            let text = format!("{}\n", row.join(","));
            let mut cut = Vec::new();
            let scan = scan_row(text.as_bytes(), false, 1000, &mut cut);
            prop_assert!(matches!(scan, Scan::Row(extent) if extent.next == text.len()), "{:?}", scan);
            let ours: Vec<_> = cut.iter().map(|field| text[field.value.clone()].replace("\"\"", "\"")).collect();
            let written: Vec<_> = fields.iter().map(|(field, _)| field.clone()).collect();
            prop_assert_eq!(&ours, &written);
            let theirs: Vec<_> = by_csv_core(text.as_bytes()).into_iter().map(|f| String::from_utf8(f).unwrap()).collect();
            prop_assert_eq!(&ours, &theirs);
        }
    }
}
