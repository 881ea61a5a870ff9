//! Facts about one thing: names with values, some of them in lists.
//!
//! A table and CSV show them flat, as `key,value` with keys like `policy.locked` and `currency.EUR.total`; JSON
//! shows an object, in which lists are arrays of objects.

use crate::output::{Cell, Column, Format, Records};
use std::io::{self, Write};

const COLUMNS: &[Column] = &[Column::left("key"), Column::left("value")];

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// A word, an id or an amount: a string in JSON.
    Text(String),
    /// A count: a number in JSON.
    Count(u64),
    /// Yes or no.
    Flag(bool),
}

impl Value {
    /// Whatever can be shown, as text.
    pub(crate) fn shown(value: &impl ToString) -> Self {
        Self::Text(value.to_string())
    }

    const fn cell(&self) -> Cell<'_> {
        match self {
            Self::Text(text) => Cell::Text(text.as_str()),
            Self::Count(count) => Cell::Count(*count),
            Self::Flag(flag) => Cell::Flag(*flag),
        }
    }

    fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Text(text) => Ok(serde_json::to_writer(out, text)?),
            Self::Count(count) => write!(out, "{count}"),
            Self::Flag(flag) => write!(out, "{flag}"),
        }
    }
}

/// Names with values.
pub(crate) type Group = Vec<(&'static str, Value)>;

/// What stands under a name.
#[derive(Clone, Debug)]
pub(crate) enum Entry {
    /// One value.
    One(Value),
    /// Several with names of their own.
    Group(Group),
    /// A list; each item has a label for the flat form.
    List(Vec<(String, Group)>),
}

/// Prints entries, in their order.
pub(crate) fn print(format: Format, entries: &[(&'static str, Entry)], mut out: impl Write) -> io::Result<()> {
    match format {
        Format::Json => {
            write_json(entries, &mut out)?;
            out.flush()
        }
        Format::Table | Format::Csv => {
            let mut records = Records::list(format, COLUMNS, out)?;
            for (name, entry) in entries {
                match entry {
                    Entry::One(value) => records.row(&[Cell::Text(name), value.cell()])?,
                    Entry::Group(group) => rows(&mut records, name, group)?,
                    Entry::List(list) => {
                        for (label, group) in list {
                            rows(&mut records, &format!("{name}.{label}"), group)?;
                        }
                    }
                }
            }
            records.finish()
        }
    }
}

fn rows<W: Write>(records: &mut Records<W>, prefix: &str, group: &Group) -> io::Result<()> {
    for (name, value) in group {
        records.row(&[Cell::Shown(&format_args!("{prefix}.{name}")), value.cell()])?;
    }
    Ok(())
}

fn write_json(entries: &[(&'static str, Entry)], out: &mut impl Write) -> io::Result<()> {
    out.write_all(b"{")?;
    for (index, (name, entry)) in entries.iter().enumerate() {
        out.write_all(if index == 0 { b"\n  " } else { b",\n  " })?;
        serde_json::to_writer(&mut *out, name)?;
        out.write_all(b": ")?;
        match entry {
            Entry::One(value) => value.write_json(out)?,
            Entry::Group(group) => write_json_group(group, out)?,
            Entry::List(list) => {
                out.write_all(b"[")?;
                for (index, (_, group)) in list.iter().enumerate() {
                    out.write_all(if index == 0 { b"\n    " } else { b",\n    " })?;
                    write_json_group(group, out)?;
                }
                out.write_all(if list.is_empty() { b"]" } else { b"\n  ]" })?;
            }
        }
    }
    out.write_all(b"\n}\n")
}

fn write_json_group(group: &Group, out: &mut impl Write) -> io::Result<()> {
    out.write_all(b"{")?;
    for (index, (name, value)) in group.iter().enumerate() {
        out.write_all(if index == 0 { b"" } else { b", " })?;
        serde_json::to_writer(&mut *out, name)?;
        out.write_all(b": ")?;
        value.write_json(out)?;
    }
    out.write_all(b"}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(format: Format) -> String {
        let group = |text: &str| vec![("code", Value::shown(&text)), ("decimals", Value::Count(2))];
        let entries = [
            ("id", Entry::One(Value::shown(&"a,b"))),
            ("policy", Entry::Group(vec![("frozen", Value::Flag(true))])),
            ("currency", Entry::List(vec![("EUR".to_owned(), group("EUR")), ("JPY".to_owned(), group("JPY"))])),
            ("source", Entry::List(Vec::new())),
        ];
        let mut out = Vec::new();
        print(format, &entries, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn flat_keys_have_points() {
        let expected = "key,value\nid,\"a,b\"\npolicy.frozen,true\ncurrency.EUR.code,EUR\ncurrency.EUR.decimals,2\n\
                        currency.JPY.code,JPY\ncurrency.JPY.decimals,2\n";
        assert_eq!(printed(Format::Csv), expected);
    }

    #[test]
    fn json_has_objects_and_arrays() {
        let expected = r#"{
  "id": "a,b",
  "policy": {"frozen": true},
  "currency": [
    {"code": "EUR", "decimals": 2},
    {"code": "JPY", "decimals": 2}
  ],
  "source": []
}
"#;
        assert_eq!(printed(Format::Json), expected);
    }
}
