//! `bursar listen`: a server's events, printed as they happen, or posted to an URL.

use crate::checked::Listen;
use crate::cli::Global;
use crate::exit::{Exit, Failure, FailureKind, note};
use bursar_client::blocking::Forwarder;
use bursar_client::webhook::{BadSecret, Delivery, Secret};
use bursar_client::{After, Error, LedgerEvent};
use serde_json::json;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The environment variable that the secret is taken from.
pub(crate) const SECRET_VARIABLE: &str = "BURSAR_WEBHOOK_SECRET";
/// Pauses before a message is posted again.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_mins(1);

/// Prints or forwards events until a signal or an error ends it.
pub(crate) fn run(global: &Global, listen: Listen) -> Result<(), Failure> {
    let client = global.client_needed("listen")?;
    let quiet = global.quiet;
    let mut subscription = listen.subscription;
    let kept = listen.position_file.map(PositionFile);
    if let Some(position) = kept.as_ref().map(PositionFile::read).transpose()?.flatten() {
        subscription.after = After::Position(position);
    }
    let forwarder = match &listen.forward_to {
        Some(url) => Some(client.forwarder(url, secret(listen.secret_file.as_deref(), quiet)?)?),
        None => None,
    };
    let mut events = client.subscribe(subscription).on_reconnect(move |error| {
        if !quiet {
            note(&format_args!("note: {error}; connecting again"));
        }
    });
    loop {
        let event = events.wait()?;
        match &forwarder {
            None => print(&event.json)?,
            Some(forwarder) => forward(forwarder, &event)?,
        }
        if let Some(kept) = &kept {
            kept.write(&event.position)?;
        }
    }
}

fn print(line: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|error| Failure::stdout(&error))
}

/// Posts an event until it is taken. Each answer is printed.
fn forward(forwarder: &Forwarder, event: &LedgerEvent) -> Result<(), Failure> {
    let mut pause = PAUSE_FIRST;
    loop {
        let posted = forwarder.post(&event.position, &event.json);
        let (status, answer) = match &posted {
            Ok(Delivery { status, answer, .. }) => (Some(*status), answer.clone()),
            Err(error) => (None, error.to_string()),
        };
        let told = json!({
            "position": event.position, "type": event.kind, "customer": event.event.customer.to_string(),
            "seq": event.event.seq, "status": status, "answer": answer,
        });
        print(&told.to_string())?;
        let asked = match posted {
            Ok(delivery) if delivery.is_taken() => return Ok(()),
            // As the specification has it: the endpoint wants no more.
            Ok(delivery) if delivery.status == 410 => {
                let sentence = "the endpoint answers 410: it wants no more events";
                let failure = Failure::new(FailureKind::NoAnswer, sentence);
                return Err(failure.ending_with(Exit::Refused).with_hint("Forward to an endpoint that takes them."));
            }
            Ok(delivery) => delivery.retry_after.unwrap_or_default().min(PAUSE_MAX),
            Err(_) => Duration::ZERO,
        };
        std::thread::sleep(pause.max(asked));
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// The secret from a file, or from the environment; otherwise a new one, which is shown.
fn secret(file: Option<&Path>, quiet: bool) -> Result<Secret, Failure> {
    let bad = |place: &str, why: BadSecret| {
        let sentence = format!("{place}: {why}");
        Failure::new(FailureKind::BadArgument, sentence).with_hint("Leave it out to have one made.")
    };
    if let Some(path) = file {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Failure::new(FailureKind::CannotRead, format!("{} cannot be read: {error}", path.display()))
        })?;
        return Secret::parse(&text).map_err(|why| bad(&path.display().to_string(), why));
    }
    if let Some(text) = std::env::var_os(SECRET_VARIABLE).filter(|text| !text.is_empty()) {
        return Secret::parse(&text.to_string_lossy()).map_err(|why| bad(SECRET_VARIABLE, why));
    }
    let made = Secret::generate();
    let secret = made.map_err(|error| Error::Setup(format!("the system gives no random bytes: {error}")))?;
    // The only place where it is shown; without it, nobody could check a signature. So also with --quiet.
    let more = if quiet { "" } else { "; it is gone when this ends" };
    note(&format_args!("messages are signed with {}{more}", secret.reveal()));
    Ok(secret)
}

/// Where the position is kept: written beside and renamed, so that it is always whole.
struct PositionFile(PathBuf);

impl PositionFile {
    fn read(&self) -> Result<Option<String>, Failure> {
        let cannot_read = |why: &dyn std::fmt::Display| {
            Failure::new(FailureKind::CannotRead, format!("{} cannot be read: {why}", self.0.display()))
        };
        let text = match std::fs::read_to_string(&self.0) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(cannot_read(&error)),
        };
        let position = text.trim_end();
        if position.is_empty() || !position.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(cannot_read(&"it holds no position"));
        }
        Ok(Some(position.to_owned()))
    }

    fn write(&self, position: &str) -> Result<(), Failure> {
        let mut beside = self.0.clone().into_os_string();
        beside.push(".tmp");
        let write = || -> io::Result<()> {
            let mut file = File::create(&beside)?;
            writeln!(file, "{position}")?;
            file.sync_data()?;
            std::fs::rename(&beside, &self.0)
        };
        write().map_err(|error| Failure::write(&self.0, &error))
    }
}
