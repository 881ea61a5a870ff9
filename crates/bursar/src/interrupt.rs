//! Ctrl-C and a request to terminate: the first one lets what is under way come to its end, the second one does
//! not wait for that. Nothing acknowledged is lost either way.

use crate::exit::{Exit, note};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether somebody asked the program to stop.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Listens from now on. To be called once.
    pub(crate) fn listen() -> Self {
        let interrupt = Self::default();
        let asked = interrupt.0.clone();
        let listening = ctrlc::set_handler(move || {
            if asked.swap(true, Ordering::Relaxed) {
                std::process::exit(Exit::Interrupted.code().into());
            }
            note(&"interrupted: what is under way is being finished; once more ends it at once");
        });
        if let Err(error) = listening {
            // Then a signal ends the program at once, which is safe as well.
            note(&format_args!("note: signals are not listened to: {error}"));
        }
        interrupt
    }

    /// Whether to stop.
    pub(crate) fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
