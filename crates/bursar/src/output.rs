//! Data for people and for programs: records as a table, as CSV or as JSON.
//!
//! CSV and JSON are streamed: a row is written when it is given, and memory does not grow with their
//! number. A table knows its widths only at the end, so it is kept until then; it is what a terminal gets
//! unless another format is asked for. In JSON, ids and amounts are strings, since many readers turn
//! numbers into floats; counts are numbers.
//!
//! Files of transactions are read and written elsewhere; this is only what commands print.

use crate::cli::OutputArg;
use comfy_table::{CellAlignment, ContentArrangement, LineStyle, Table, TableStyle};
use std::fmt::{self, Write as _};
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

const BUFFER_BYTES: usize = 1 << 16;

/// How records are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// With a header; fields quoted where needed.
    Csv,
    /// One array of objects.
    Json,
}

impl Format {
    /// What was asked for; otherwise a table on a terminal, and CSV into anything else.
    pub(crate) fn choose(asked: Option<OutputArg>) -> Self {
        match asked {
            Some(OutputArg::Table) => Self::Table,
            Some(OutputArg::Csv) => Self::Csv,
            Some(OutputArg::Json) => Self::Json,
            None if io::stdout().is_terminal() => Self::Table,
            None => Self::Csv,
        }
    }
}

/// On which side of its column a value stands in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    /// Words and ids.
    Left,
    /// Amounts and counts.
    Right,
}

/// A column: its name, which is also the key in JSON, and its side.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    /// The name, in lower case.
    pub(crate) name: &'static str,
    /// Its side in a table.
    pub(crate) align: Align,
}

impl Column {
    /// A column of words or ids.
    pub(crate) const fn left(name: &'static str) -> Self {
        Self { name, align: Align::Left }
    }

    /// A column of amounts or counts.
    pub(crate) const fn right(name: &'static str) -> Self {
        Self { name, align: Align::Right }
    }
}

/// A value.
#[derive(Clone, Copy)]
pub(crate) enum Cell<'a> {
    /// A word or a sentence.
    Text(&'a str),
    /// An id or an amount: a string in JSON. Displayed into a buffer that is used again.
    Shown(&'a dyn fmt::Display),
    /// A count: a number in JSON.
    Count(u64),
    /// Yes or no: `true` or `false`.
    Flag(bool),
    /// No value: an empty field, `null` in JSON.
    Empty,
}

/// Standard output with a large buffer.
pub(crate) fn stdout() -> BufWriter<StdoutLock<'static>> {
    BufWriter::with_capacity(BUFFER_BYTES, io::stdout().lock())
}

/// A writer of records with the same columns.
///
/// Every row has as many cells as there are columns; missing ones are empty, and more are left out.
pub(crate) struct Records<W: Write> {
    out: W,
    columns: Vec<Column>,
    state: State,
    /// One value at a time.
    scratch: String,
}

enum State {
    Table { table: Box<Table>, single: bool },
    Csv,
    Json { row_count: u64, single: bool },
}

impl<W: Write> Records<W> {
    /// A list of records: an array in JSON.
    pub(crate) fn list(format: Format, columns: &[Column], out: W) -> io::Result<Self> {
        Self::begin(format, columns, out, false)
    }

    /// A single record: an object in JSON, and a table of two columns, names and values.
    pub(crate) fn single(format: Format, columns: &[Column], out: W) -> io::Result<Self> {
        Self::begin(format, columns, out, true)
    }

    fn begin(format: Format, columns: &[Column], out: W, single: bool) -> io::Result<Self> {
        let state = match format {
            Format::Table => State::Table { table: Box::new(empty_table(columns, single)), single },
            Format::Csv => State::Csv,
            Format::Json => State::Json { row_count: 0, single },
        };
        let mut records = Self { out, columns: columns.to_vec(), state, scratch: String::new() };
        match &records.state {
            State::Table { .. } => {}
            State::Csv => {
                for (index, column) in columns.iter().enumerate() {
                    records.out.write_all(if index == 0 { b"" } else { b"," })?;
                    write_csv_field(&mut records.out, column.name)?;
                }
                records.out.write_all(b"\n")?;
            }
            State::Json { single, .. } => records.out.write_all(if *single { b"" } else { b"[" })?,
        }
        Ok(records)
    }

    /// Adds a record.
    pub(crate) fn row(&mut self, cells: &[Cell<'_>]) -> io::Result<()> {
        let cells = || self.columns.iter().zip(cells.iter().copied().chain(std::iter::repeat(Cell::Empty)));
        match &mut self.state {
            State::Table { table, single: true } => {
                for (column, cell) in cells() {
                    table.add_row([column.name, shown(&mut self.scratch, cell)?]);
                }
            }
            State::Table { table, single: false } => {
                let texts = cells().map(|(_, cell)| shown(&mut self.scratch, cell).map(str::to_owned));
                table.add_row(texts.collect::<io::Result<Vec<String>>>()?);
            }
            State::Csv => {
                for (index, (_, cell)) in cells().enumerate() {
                    self.out.write_all(if index == 0 { b"" } else { b"," })?;
                    write_csv_field(&mut self.out, shown(&mut self.scratch, cell)?)?;
                }
                self.out.write_all(b"\n")?;
            }
            State::Json { row_count, single } => {
                let lead: &[u8] = match (*single, *row_count) {
                    (true, 0) => b"",
                    (true, _) => b"\n",
                    (false, 0) => b"\n  ",
                    (false, _) => b",\n  ",
                };
                self.out.write_all(lead)?;
                for (index, (column, cell)) in cells().enumerate() {
                    self.out.write_all(if index == 0 { b"{" } else { b", " })?;
                    serde_json::to_writer(&mut self.out, column.name)?;
                    self.out.write_all(b": ")?;
                    write_json_value(&mut self.out, &mut self.scratch, cell)?;
                }
                self.out.write_all(b"}")?;
                *row_count += 1;
            }
        }
        Ok(())
    }

    /// Writes what is still to be written. Without it, the output is incomplete.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        match &self.state {
            State::Table { table, .. } => writeln!(self.out, "{}", table.trim_fmt())?,
            State::Csv => {}
            State::Json { single: true, .. } => self.out.write_all(b"\n")?,
            State::Json { row_count: 0, .. } => self.out.write_all(b"]\n")?,
            State::Json { .. } => self.out.write_all(b"\n]\n")?,
        }
        self.out.flush()
    }
}

/// A table as wide as the terminal; without a terminal, as wide as its content.
fn empty_table(columns: &[Column], single: bool) -> Table {
    const STYLE: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));
    let mut table = Table::new();
    table.load_style(STYLE);
    if let Some((width, _)) = terminal_size::terminal_size_of(io::stdout()) {
        table.set_content_arrangement(ContentArrangement::Dynamic);
        table.set_width(width.0);
    }
    if single {
        return table;
    }
    table.set_header(columns.iter().map(|column| column.name));
    for (index, column) in columns.iter().enumerate() {
        let side = match column.align {
            Align::Left => CellAlignment::Left,
            Align::Right => CellAlignment::Right,
        };
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(side);
        }
    }
    table
}

/// The value as text; it lies in `scratch` if it was not text before.
fn shown<'s>(scratch: &'s mut String, cell: Cell<'s>) -> io::Result<&'s str> {
    scratch.clear();
    match cell {
        Cell::Text(text) => return Ok(text),
        Cell::Shown(value) => write!(scratch, "{value}").map_err(io::Error::other)?,
        Cell::Count(count) => write!(scratch, "{count}").map_err(io::Error::other)?,
        Cell::Flag(flag) => return Ok(if flag { "true" } else { "false" }),
        Cell::Empty => return Ok(""),
    }
    Ok(scratch)
}

/// RFC 4180: a field with a comma, a quote or a line break stands in quotes, its own quotes doubled.
fn write_csv_field<W: Write>(out: &mut W, text: &str) -> io::Result<()> {
    if !text.bytes().any(|byte| matches!(byte, b',' | b'"' | b'\n' | b'\r')) {
        return out.write_all(text.as_bytes());
    }
    out.write_all(b"\"")?;
    for (index, part) in text.split('"').enumerate() {
        out.write_all(if index == 0 { b"" } else { b"\"\"" })?;
        out.write_all(part.as_bytes())?;
    }
    out.write_all(b"\"")
}

fn write_json_value<W: Write>(out: &mut W, scratch: &mut String, cell: Cell<'_>) -> io::Result<()> {
    match cell {
        Cell::Text(_) | Cell::Shown(_) => Ok(serde_json::to_writer(out, shown(scratch, cell)?)?),
        Cell::Count(_) | Cell::Flag(_) => out.write_all(shown(scratch, cell)?.as_bytes()),
        Cell::Empty => out.write_all(b"null"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bursar_core::{Amount, Decimals};

    const COLUMNS: &[Column] = &[
        Column::left("client"),
        Column::right("total"),
        Column::right("events"),
        Column::left("locked"),
        Column::left("note"),
    ];

    fn printed(format: Format, single: bool, row_count: usize) -> String {
        let mut out = Vec::new();
        let begin = if single { Records::single } else { Records::list };
        let mut records = begin(format, COLUMNS, &mut out).unwrap();
        let amount = Amount::from_steps(-15_000).display(Decimals::FOUR);
        let rows: [&[Cell<'_>]; 2] = [
            &[Cell::Shown(&42), Cell::Shown(&amount), Cell::Count(3), Cell::Flag(true), Cell::Text("a \"b\",\nc")],
            &[Cell::Shown(&7), Cell::Empty],
        ];
        for row in &rows[..row_count] {
            records.row(row).unwrap();
        }
        records.finish().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn csv_quotes_what_needs_it() {
        let expected = "client,total,events,locked,note\n42,-1.5000,3,true,\"a \"\"b\"\",\nc\"\n7,,,,\n";
        assert_eq!(printed(Format::Csv, false, 2), expected);
        assert_eq!(printed(Format::Csv, false, 0), "client,total,events,locked,note\n");
    }

    #[test]
    fn json_is_an_array_of_objects_or_one_object() {
        let first = r#"{"client": "42", "total": "-1.5000", "events": 3, "locked": true, "note": "a \"b\",\nc"}"#;
        let second = r#"{"client": "7", "total": null, "events": null, "locked": null, "note": null}"#;
        assert_eq!(printed(Format::Json, false, 2), format!("[\n  {first},\n  {second}\n]\n"));
        assert_eq!(printed(Format::Json, false, 0), "[]\n");
        assert_eq!(printed(Format::Json, true, 1), format!("{first}\n"));
    }

    #[test]
    fn a_table_puts_amounts_to_the_right() {
        let table = printed(Format::Table, false, 2);
        assert!(table.lines().any(|line| line.starts_with(" 42       -1.5000        3   true ")), "\n{table}");
        let single = printed(Format::Table, true, 1);
        assert!(single.lines().any(|line| line.starts_with(" total") && line.ends_with("-1.5000")), "\n{single}");
    }
}
