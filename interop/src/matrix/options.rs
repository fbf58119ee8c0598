//! What was asked for on the command line.

use std::path::PathBuf;

use clap::Parser;

use super::cell::Size;

/// Runs Go's and this project's proxy-server and proxy-agent against each other, in every pairing and scenario.
///
/// A cell of the matrix is called SERVER-AGENT/CARRIER/FRONT/SCENARIO, such as ours-go/grpc/connect-uds/echo.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Options {
    /// Fewer bytes and shorter waits, and the scenarios that need programs of their own on one front of each pairing.
    #[arg(long)]
    pub quick: bool,
    /// Only cells whose name fits, such as 'ours-*/echo', '*/udp-*' or 'go-ours/auto/*'; may be given several times.
    #[arg(long, value_name = "PATTERN")]
    pub only: Vec<String>,
    /// Where logs and reports go; what an earlier run has left there is removed.
    #[arg(long, value_name = "FOLDER", default_value = "target/matrix")]
    pub out: PathBuf,
    /// Which cells must pass.
    #[arg(long, value_name = "FILE", default_value = "interop/required.toml")]
    pub required: PathBuf,
    /// Writes the table into docs/interop.md (run it in the project's folder).
    #[arg(long)]
    pub write_docs: bool,
    /// Prints the names of the cells that would run, and which are required.
    #[arg(long)]
    pub list: bool,
    /// Jobs side by side [default: two for each core]
    #[arg(long, value_name = "N")]
    pub jobs: Option<usize>,
}

impl Options {
    /// How much is done in a cell.
    pub fn size(&self) -> Size {
        if self.quick { Size::Quick } else { Size::Full }
    }
}
