//! Errors as text.

use std::{error::Error, iter::successors};

/// The error and what caused it, in one line: for the edge at which a chain is printed, once.
pub fn with_sources(error: &dyn Error) -> String {
    successors(error.source(), |&error| error.source())
        .fold(error.to_string(), |text, source| format!("{text}: {source}"))
}
