//! Results for people and for programs: a table, JSON or CSV.

use crate::contest::Figure;
use crate::failure::Failure;
use crate::machine::Machine;
use clap::ValueEnum;
use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};
use serde::Serialize;
use std::io::{self, IsTerminal, Write};

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// One object: `machine`, and `figures` as a list; numbers are numbers.
    Json,
    /// The figures with a header.
    Csv,
}

impl Format {
    /// What was asked for; otherwise a table on a terminal, and CSV into anything else.
    pub(crate) fn choose(asked: Option<Self>) -> Self {
        asked.unwrap_or(if io::stdout().is_terminal() { Self::Table } else { Self::Csv })
    }
}

#[derive(Serialize)]
struct Results<'a> {
    machine: &'a Machine,
    figures: &'a [Figure],
}

/// Prints the machine and all figures.
pub(crate) fn print(format: Format, machine: &Machine, figures: &[Figure], mut out: impl Write) -> Result<(), Failure> {
    match format {
        Format::Table => {
            let mut table = new_table();
            for (name, value) in machine.lines() {
                table.add_row([name, &value]);
            }
            writeln!(out, "{}\n\n{}", table.trim_fmt(), figures_table(figures).trim_fmt())?;
        }
        Format::Json => {
            serde_json::to_writer_pretty(&mut out, &Results { machine, figures }).map_err(io::Error::from)?;
            writeln!(out)?;
        }
        Format::Csv => {
            for (name, value) in machine.lines() {
                eprintln!("{name}: {value}");
            }
            let mut writer = csv::Writer::from_writer(out);
            for figure in figures {
                writer.serialize(figure)?;
            }
            writer.flush()?;
        }
    }
    Ok(())
}

fn new_table() -> Table {
    const STYLE: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));
    let mut table = Table::new();
    table.load_style(STYLE);
    table
}

fn figures_table(figures: &[Figure]) -> Table {
    let mut table = new_table();
    table.set_header(["case", "what", "value", "unit", "ratio", "spread", "against", "limit", "goal", "met"]);
    for index in [2, 4, 5, 7] {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for figure in figures {
        let number = |value: Option<f64>| value.map_or(String::new(), shown);
        let spread = match (figure.ratio_low, figure.ratio_high) {
            (Some(low), Some(high)) => format!("{}–{}", shown(low), shown(high)),
            (_, _) => String::new(),
        };
        table.add_row([
            figure.case.to_owned(),
            figure.what.clone(),
            shown(figure.value),
            figure.unit.to_owned(),
            number(figure.ratio),
            spread,
            figure.against.clone().unwrap_or_default(),
            number(figure.limit),
            figure.goal.clone().unwrap_or_default(),
            figure.met.map_or("", |met| if met { "yes" } else { "no" }).to_owned(),
        ]);
    }
    table
}

/// Three digits that matter, and thousands grouped.
fn shown(value: f64) -> String {
    if value.abs() < 1000.0 {
        return match value.abs() {
            size if size < 1.0 => format!("{value:.3}"),
            size if size < 10.0 => format!("{value:.2}"),
            size if size < 100.0 => format!("{value:.1}"),
            _ => format!("{value:.0}"),
        };
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        let table =
            [(0.0, "0.000"), (0.7251, "0.725"), (1.304, "1.30"), (12.34, "12.3"), (456.7, "457"), (1e3, "1,000")];
        for (value, expected) in table {
            assert_eq!(shown(value), expected);
        }
        assert_eq!(shown(12_345_678.0), "12,345,678");
    }
}
