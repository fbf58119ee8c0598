//! Writes certificates for a try or a test into a folder: ca, server, agent and client, each `.crt` and `.key`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use konnectivity_interop::certificates::Folder;

/// Makes a certificate authority and what it signs for the server, the agent and a client of the frontend.
///
/// For tests and first tries only: the authority's private key is written beside the rest.
#[derive(Parser)]
#[command(version)]
struct Options {
    /// Folder to write to; made if missing, files of the same names are replaced.
    folder: PathBuf,
    /// One more DNS name or IP address for the server's certificate; may be given several times.
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match Folder::write(&options.folder, &options.names).context("no certificates were made") {
        Ok(_) => {
            println!("wrote {}/{{ca,server,agent,client}}.{{crt,key}}", options.folder.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("certs: {error:#}");
            ExitCode::FAILURE
        }
    }
}
