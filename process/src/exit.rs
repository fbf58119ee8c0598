//! Ends of the process before its work has begun.

use std::{
    io::{self, Write},
    process::ExitCode,
};

/// Why the process ends without having started anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// It was asked for a text (`--help`, `--version`) and here it is.
    Told(String),
    /// It was started in a way that cannot work.
    Refused(String),
}

impl Exit {
    /// The text on standard output and code 0, or `Error: <text>` on standard error and code 1.
    pub fn report(self) -> ExitCode {
        // Nobody is left to hear that the standard streams are closed.
        match self {
            Self::Told(text) => {
                let _ = writeln!(io::stdout(), "{}", text.trim_end());
                ExitCode::SUCCESS
            }
            Self::Refused(text) => {
                let _ = writeln!(io::stderr(), "Error: {}", text.trim_end());
                ExitCode::FAILURE
            }
        }
    }
}

impl From<clap::Error> for Exit {
    fn from(error: clap::Error) -> Self {
        let text = error.to_string();
        match error.exit_code() {
            0 => Self::Told(text),
            _ => Self::Refused(text.strip_prefix("error: ").unwrap_or(&text).to_owned()),
        }
    }
}

/// A failure at the start, with its causes in one line.
pub fn failure(error: &anyhow::Error) -> Exit {
    Exit::Refused(format!("{error:#}"))
}
