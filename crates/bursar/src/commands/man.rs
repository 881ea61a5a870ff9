//! `bursar man`

use crate::cli::Cli;
use crate::exit::Failure;
use clap::CommandFactory;
use std::io::{self, Write};
use std::path::Path;

/// Prints the main page, or writes the pages of all commands into a directory, which is made if missing.
pub(crate) fn run(to: Option<&Path>) -> Result<(), Failure> {
    match to {
        None => {
            let mut page = Vec::new();
            let rendered = clap_mangen::Man::new(Cli::command()).render(&mut page);
            rendered.and_then(|()| io::stdout().lock().write_all(&page)).map_err(|error| Failure::stdout(&error))
        }
        Some(dir) => {
            let written = std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(Cli::command(), dir));
            written.map_err(|error| Failure::write(dir, &error))
        }
    }
}
