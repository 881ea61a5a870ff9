//! The live view on a terminal: one screen of lines, drawn anew with every look. The server is asked on a thread of its
//! own, so that `q` is heard while it is slow.

use super::figures::{Shown, shown};
use super::{Look, look};
use crate::exit::{Failure, FailureKind};
use bursar_client::blocking::Client;
use crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use crossterm::style::{Attribute, Print, SetAttribute};
use crossterm::terminal::{self, Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen};
use crossterm::{cursor, execute, queue};
use std::io::{self, Stdout, Write};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// How soon a key is heard.
const LISTEN: Duration = Duration::from_millis(100);
/// How wide a column of figures is.
const COLUMN_CHARS: usize = 56;

struct View {
    server: String,
    last: Look,
    shown: Vec<Shown>,
    /// Why the last look failed; the figures are those of before.
    failed: Option<String>,
}

/// Shows the view until `q`, Escape or Ctrl-C.
pub(super) fn run(client: &Client, first: Look, every: Duration) -> Result<(), Failure> {
    let view = View { server: client.server().to_owned(), shown: shown(&first, &first), last: first, failed: None };
    let (looks, to_see) = channel();
    let asking = client.clone();
    drop(std::thread::spawn(move || {
        loop {
            std::thread::sleep(every);
            let looked = look(&asking).map_err(Failure::sentence);
            if looks.send(looked).is_err() {
                return;
            }
        }
    }));
    let mut out = io::stdout();
    let begun = terminal::enable_raw_mode().and_then(|()| execute!(out, EnterAlternateScreen, cursor::Hide));
    let ran = begun.and_then(|()| draw_until_quit(&mut out, view, &to_see));
    // Whatever became of it, the terminal is given back as it was.
    let restored = execute!(out, cursor::Show, LeaveAlternateScreen).and(terminal::disable_raw_mode());
    let failed =
        |error: io::Error| Failure::new(FailureKind::CannotWrite, format!("the terminal cannot be used: {error}"));
    ran.and(restored).map_err(failed)
}

fn draw_until_quit(out: &mut Stdout, mut view: View, looks: &Receiver<Result<Look, String>>) -> io::Result<()> {
    loop {
        view.draw(out)?;
        loop {
            if let Ok(looked) = looks.try_recv() {
                view.see(looked);
                break;
            }
            if !event::poll(LISTEN)? {
                continue;
            }
            match event::read()? {
                Event::Key(key) if key.kind == KeyEventKind::Press => {
                    let is_quit = matches!(key.code, KeyCode::Char('q') | KeyCode::Esc);
                    let is_break = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
                    if is_quit || is_break {
                        return Ok(());
                    }
                }
                Event::Resize(..) => break,
                Event::Key(_) | Event::Mouse(_) | Event::FocusGained | Event::FocusLost => {}
            }
        }
    }
}

impl View {
    fn see(&mut self, looked: Result<Look, String>) {
        match looked {
            Ok(look) => {
                self.shown = shown(&self.last, &look);
                (self.last, self.failed) = (look, None);
            }
            Err(sentence) => self.failed = Some(sentence),
        }
    }

    fn draw(&self, out: &mut Stdout) -> io::Result<()> {
        let (width, height) = terminal::size()?;
        let (width, height) = (usize::from(width), usize::from(height));
        queue!(out, Clear(ClearType::All), cursor::MoveTo(0, 0), SetAttribute(Attribute::Bold))?;
        queue!(out, Print(cut(&format!("bursar top  {}", self.server), width)), SetAttribute(Attribute::Reset))?;
        let foot = self.failed.as_ref().map_or("q quits".to_owned(), |sentence| format!("q quits  {sentence}"));
        let lines = lines(&self.shown, &self.last.pending, width, height.saturating_sub(3));
        for (row, line) in (2..).zip(&lines) {
            queue!(out, cursor::MoveTo(0, row), Print(cut(line, width)))?;
        }
        let last_row = u16::try_from(height.saturating_sub(1)).unwrap_or(u16::MAX);
        queue!(out, cursor::MoveTo(0, last_row), Print(cut(&foot, width)))?;
        out.flush()
    }
}

/// The figures, in two columns where there is room for two, and below them what waits.
fn lines(shown: &[Shown], pending: &[[String; 4]], width: usize, height: usize) -> Vec<String> {
    let mut column = Vec::new();
    let mut group = "";
    for Shown { key, value } in shown {
        let (of, name) = key.split_once('.').unwrap_or((key, ""));
        if of != group {
            column.extend((!group.is_empty()).then(String::new));
            column.push(of.to_owned());
            group = of;
        }
        let pad = (COLUMN_CHARS - 6).saturating_sub(name.chars().count());
        column.push(format!("  {name} {value:>pad$}"));
    }
    let mut lines = column;
    if width >= 2 * COLUMN_CHARS && lines.len() > 1 {
        let right = lines.split_off(lines.len().div_ceil(2));
        for (index, right) in right.into_iter().enumerate() {
            lines[index] = format!("{:<COLUMN_CHARS$}{right}", lines[index]);
        }
    }
    if !pending.is_empty() {
        lines.extend([String::new(), "pending".to_owned()]);
        lines.extend(pending.iter().map(|[client, seq, kind, time]| format!("  {client}  {seq}  {kind}  {time}")));
    }
    lines.truncate(height);
    lines
}

/// As much of a line as the terminal has room for.
fn cut(line: &str, width: usize) -> String {
    line.chars().take(width).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_stand_in_groups_and_what_waits_below() {
        let figure = |key: &str, value: &str| Shown { key: key.to_owned(), value: value.to_owned() };
        let shown = [figure("engine.queue", "3"), figure("engine.fsync.p50", "1.0 ms"), figure("disk.free", "2.0 GiB")];
        let pending = [["7", "2", "withdrawal", "2026-01-31T12:00:00.000Z"].map(str::to_owned)];
        let one = lines(&shown, &pending, 80, 50);
        let words: Vec<Vec<&str>> = one.iter().map(|line| line.split_whitespace().collect()).collect();
        let expected: Vec<Vec<&str>> = vec![
            vec!["engine"],
            vec!["queue", "3"],
            vec!["fsync.p50", "1.0", "ms"],
            vec![],
            vec!["disk"],
            vec!["free", "2.0", "GiB"],
            vec![],
            vec!["pending"],
            vec!["7", "2", "withdrawal", "2026-01-31T12:00:00.000Z"],
        ];
        assert_eq!(words, expected);
        // Values end in one column.
        assert_eq!(one[1].len(), one[2].len());
        assert_eq!(lines(&shown, &pending, 200, 50).len(), 6);
        assert_eq!(lines(&shown, &pending, 80, 2).len(), 2);
    }
}
