//! Shows an unreadable row as a good compiler shows an error: with the text underlined, and a hint.
//!
//! Written by hand: `annotate-snippets` takes valid text and computes the column from what it is given, so that
//! rows with bad bytes, escaped control characters or a cut would be shown at wrong places.

use super::row_error::RowError;
use std::fmt;
use std::ops::Range;
use unicode_width::UnicodeWidthChar;

/// How many terminal columns of a row are shown at the most.
const WIDTH_MAX: usize = 100;
/// How many of them may lie before what is underlined, if the row is cut there.
const WIDTH_BEFORE_MAX: usize = 40;
const CUT: &str = "...";

const RED: &str = "\x1b[1;31m";
const BLUE: &str = "\x1b[1;34m";
const BOLD: &str = "\x1b[1m";
const RESET: &str = "\x1b[0m";

/// An unreadable row, to be written to a terminal or a log. Several lines, without a line end after the last.
///
/// ```text
/// error[bad_amount]: bad amount: this is no decimal number
///   --> payments.csv:17:14
///    |
/// 17 | deposit,1,2,1x5
///    |              ^^
///    |
///    = help: Write digits with a point before the decimals, without thousands separators: 1234.50.
/// ```
///
/// The column counts characters from 1; each byte that is no UTF-8 counts as one. Control characters and others
/// that would change how the text around them is shown appear as escapes, bytes that are no UTF-8 as `\xff`. A
/// long row is cut around what is underlined. Of a row with several lines, the one with the error is shown.
#[derive(Clone, Copy, Debug)]
pub struct Diagnostic<'a> {
    name: &'a str,
    line: u64,
    text: &'a [u8],
    error: &'a RowError,
    colour: bool,
}

impl<'a> Diagnostic<'a> {
    /// Of the row with this raw `text` that begins on `line` of the source called `name`.
    pub const fn new(name: &'a str, line: u64, text: &'a [u8], error: &'a RowError) -> Self {
        Self { name, line, text, error, colour: false }
    }

    /// Whether to write colours, as ANSI escape sequences. Without this call: no.
    #[must_use]
    pub const fn colour(self, colour: bool) -> Self {
        Self { colour, ..self }
    }
}

impl fmt::Display for Diagnostic<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [red, blue, bold, reset] = if self.colour { [RED, BLUE, BOLD, RESET] } else { [""; 4] };
        let shown = Shown::new(self.text, self.error.span.start as usize..self.error.span.end as usize);
        let line = self.line + shown.lines_before;
        let name = visible(self.name.as_bytes());
        let gutter = line.to_string().len();
        writeln!(f, "{red}error[{}]{reset}{bold}: {}{reset}", self.error.code(), self.error)?;
        writeln!(f, "{:gutter$}{blue}-->{reset} {name}:{line}:{}", "", shown.column)?;
        writeln!(f, "{:gutter$} {blue}|{reset}", "")?;
        writeln!(f, "{blue}{line} |{reset} {}", shown.text)?;
        writeln!(
            f,
            "{:gutter$} {blue}|{reset} {:before$}{red}{:^<marked$}{reset}",
            "",
            "",
            "",
            before = shown.before,
            marked = shown.marked
        )?;
        writeln!(f, "{:gutter$} {blue}|{reset}", "")?;
        write!(f, "{:gutter$} {blue}={reset} {bold}help{reset}: {}", "", self.error.hint())
    }
}

/// The part of a row that is shown, and what of it is underlined.
struct Shown {
    text: String,
    /// Terminal columns before the underline.
    before: usize,
    /// Terminal columns underlined; at least 1.
    marked: usize,
    /// Characters before the span on its line, plus 1.
    column: usize,
    /// Line ends of the row before the line shown.
    lines_before: u64,
}

impl Shown {
    fn new(row: &[u8], span: Range<usize>) -> Self {
        let span = span.start.min(row.len())..span.end.min(row.len());
        let line_start = memchr::memrchr(b'\n', &row[..span.start]).map_or(0, |at| at + 1);
        let line_end = memchr::memchr(b'\n', &row[span.start..]).map_or(row.len(), |at| span.start + at);
        let line = row[line_start..line_end].strip_suffix(b"\r").unwrap_or(&row[line_start..line_end]);
        let lines_before = memchr::memchr_iter(b'\n', &row[..line_start]).count() as u64;
        let span = (span.start - line_start).min(line.len())..span.end.saturating_sub(line_start).min(line.len());

        let column = glyphs(&line[..span.start]).count() + 1;
        let (mut text, before) = text_before(&line[..span.start]);
        let (mut width, mut marked) = (before, 0);
        for (start, glyph) in glyphs(&line[span.start..]) {
            if width + glyph.width() > WIDTH_MAX {
                text.push_str(CUT);
                break;
            }
            width += glyph.width();
            if span.start + start < span.end {
                marked += glyph.width();
            }
            glyph.push_to(&mut text);
        }
        Self { text, before, marked: marked.max(1), column, lines_before }
    }
}

/// What is shown before the underline, and how wide that is.
fn text_before(line: &[u8]) -> (String, usize) {
    let all: usize = glyphs(line).map(|(_, glyph)| glyph.width()).sum();
    let mut text = String::new();
    let mut skipped = 0;
    for (_, glyph) in glyphs(line) {
        if all <= WIDTH_BEFORE_MAX || all - skipped <= WIDTH_BEFORE_MAX - CUT.len() {
            glyph.push_to(&mut text);
            continue;
        }
        skipped += glyph.width();
    }
    if skipped == 0 { (text, all) } else { (format!("{CUT}{text}"), CUT.len() + all - skipped) }
}

/// One character, or one byte that belongs to none.
#[derive(Clone, Copy)]
enum Glyph {
    Char(char),
    Byte(u8),
}

/// The characters of a text and the places where they begin.
fn glyphs(text: &[u8]) -> impl Iterator<Item = (usize, Glyph)> {
    text.utf8_chunks()
        .scan(0, |chunk_start, chunk| {
            let start = *chunk_start;
            let bytes_start = start + chunk.valid().len();
            *chunk_start = bytes_start + chunk.invalid().len();
            let chars = chunk.valid().char_indices().map(move |(at, char)| (start + at, Glyph::Char(char)));
            let bytes =
                chunk.invalid().iter().enumerate().map(move |(at, byte)| (bytes_start + at, Glyph::Byte(*byte)));
            Some(chars.chain(bytes))
        })
        .flatten()
}

impl Glyph {
    fn width(self) -> usize {
        match self {
            Self::Char(char) if is_hidden(char) => char.escape_default().len(),
            Self::Char(char) => char.width().unwrap_or(0),
            Self::Byte(_) => r"\xff".len(),
        }
    }

    fn push_to(self, text: &mut String) {
        match self {
            Self::Char(char) if is_hidden(char) => text.extend(char.escape_default()),
            Self::Char(char) => text.push(char),
            // Two hexadecimal digits: a byte has no more.
            Self::Byte(byte) => {
                let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or('?');
                text.extend(['\\', 'x', digit(byte >> 4), digit(byte & 0xf)]);
            }
        }
    }
}

/// Whether a terminal would act on it, or show the text around it in another order or not at all.
fn is_hidden(char: char) -> bool {
    char.is_control()
        || matches!(
            char,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
        )
}

/// A text as it may be shown on a terminal: control characters and bytes that are no UTF-8 as escapes.
pub(super) fn visible(text: &[u8]) -> String {
    let mut shown = String::with_capacity(text.len());
    for (_, glyph) in glyphs(text) {
        glyph.push_to(&mut shown);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::csv::{Column, RowErrorKind, Span};
    use bursar_core::{AmountErrorKind, IdErrorKind};

    fn show(text: &[u8], kind: RowErrorKind, column: Option<Column>, span: Range<usize>) -> String {
        let error = RowError { kind, column, span: Span::new(span.start, span.end) };
        format!("{}\n", Diagnostic::new("pay.csv", 9, text, &error))
    }

    const BAD_AMOUNT: RowErrorKind = RowErrorKind::BadAmount(AmountErrorKind::NotANumber);
    const BAD_ID: RowErrorKind = RowErrorKind::BadId(IdErrorKind::NotAnId);

    #[test]
    fn underlines_the_offending_text() {
        let expected = r"error[bad_amount]: bad amount: this is no decimal number
 --> pay.csv:9:14
  |
9 | deposit,1,2,1x5
  |              ^^
  |
  = help: Write digits with a point before the decimals, without thousands separators: 1234.50.
";
        assert_eq!(show(b"deposit,1,2,1x5", BAD_AMOUNT, Some(Column::Amount), 13..15), expected);
    }

    #[test]
    fn points_behind_a_row_that_ends_too_early() {
        let expected = r"error[too_few_fields]: the row ends before its tx
 --> pay.csv:9:10
  |
9 | deposit,1
  |          ^
  |
  = help: Only fields that may be empty can be left out at the end of a row.
";
        assert_eq!(show(b"deposit,1", RowErrorKind::TooFewFields, Some(Column::Tx), 9..9), expected);
    }

    #[test]
    fn bytes_that_are_no_utf8_are_escapes() {
        let expected = r"error[not_utf8]: the row has bytes that are no UTF-8
 --> pay.csv:9:4
  |
9 | M\xfcl\xe9,1
  |       ^^^^
  |
  = help: Save the file as UTF-8.
";
        assert_eq!(show(b"M\xfcl\xe9,1", RowErrorKind::NotUtf8, None, 3..4), expected);
    }

    #[test]
    fn control_characters_never_reach_the_terminal() {
        let shown = show("de\u{1b}[31m\u{202e}p,\u{0},\t1".as_bytes(), BAD_ID, Some(Column::Client), 12..13);
        let expected = r"error[bad_id]: bad client: an id is a whole number below 2^64, or a UUID
 --> pay.csv:9:11
  |
9 | de\u{1b}[31m\u{202e}p,\u{0},\t1
  |                       ^^^^^
  |
  = help: An id is a whole number from 0 to 18446744073709551615, or a UUID in its 36 character form.
";
        assert_eq!(shown, expected);
    }

    #[test]
    fn wide_characters_take_two_columns_and_combining_ones_none() {
        let text = "支払い,e\u{301}x,2,3";
        let start = text.find('x').unwrap();
        let expected = "error[bad_id]: bad client: an id is a whole number below 2^64, or a UUID
 --> pay.csv:9:7
  |
9 | 支払い,e\u{301}x,2,3
  |         ^
  |
  = help: An id is a whole number from 0 to 18446744073709551615, or a UUID in its 36 character form.
";
        assert_eq!(show(text.as_bytes(), BAD_ID, Some(Column::Client), start..start + 1), expected);
    }

    #[test]
    fn long_rows_are_cut_on_both_sides() {
        let text = format!("{},?,{}", "a".repeat(300), "b".repeat(300));
        let expected = format!(
            "error[bad_id]: bad client: an id is a whole number below 2^64, or a UUID
 --> pay.csv:9:302
  |
9 | ...{},?,{}...
  | {}^
  |
  = help: An id is a whole number from 0 to 18446744073709551615, or a UUID in its 36 character form.
",
            "a".repeat(36),
            "b".repeat(58),
            " ".repeat(40),
        );
        assert_eq!(show(text.as_bytes(), BAD_ID, Some(Column::Client), 301..302), expected);
        let long_span = show(text.as_bytes(), BAD_ID, Some(Column::Client), 0..300);
        assert!(long_span.contains(&format!("\n  | {}\n", "^".repeat(100))), "{long_span}");
    }

    #[test]
    fn a_row_of_several_lines_shows_the_one_with_the_error() {
        let expected = r#"error[bad_amount]: bad amount: this is no decimal number
  --> pay.csv:10:8
   |
10 | b",1,2,x
   |        ^
   |
   = help: Write digits with a point before the decimals, without thousands separators: 1234.50.
"#;
        let text = b"\"a\r\nb\",1,2,x";
        assert_eq!(show(text, BAD_AMOUNT, Some(Column::Amount), 11..12), expected);
    }

    #[test]
    fn colours_only_when_asked() {
        let error = RowError { kind: RowErrorKind::NotUtf8, column: None, span: Span::new(0, 1) };
        let diagnostic = Diagnostic::new("a\u{7}.csv", 1, b"\xff", &error);
        assert!(!diagnostic.to_string().contains('\u{1b}'));
        assert!(diagnostic.to_string().contains(r"--> a\u{7}.csv:1:1"));
        let coloured = diagnostic.colour(true).to_string();
        assert!(coloured.starts_with("\u{1b}[1;31merror[not_utf8]\u{1b}[0m\u{1b}[1m: "), "{coloured:?}");
        assert!(coloured.contains("\u{1b}[1;31m^^^^\u{1b}[0m"), "{coloured:?}");
    }

    #[test]
    fn any_span_of_any_text_can_be_shown() {
        let text = "a\n\"é\r\n支\u{301}".as_bytes();
        for start in 0..=text.len() + 1 {
            for end in 0..=text.len() + 1 {
                assert!(show(text, BAD_ID, None, start..end).contains('^'));
            }
        }
    }
}
