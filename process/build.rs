//! Tells the commit to `src/version.rs`.

use std::{path::Path, process::Command};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Only the repository of this workspace: sources that were unpacked inside another one are not its commit.
    let commit = Path::new("../.git").exists().then(|| git(&["rev-parse", "--short", "HEAD"])).flatten();
    if commit.is_some() {
        // HEAD's log grows by each commit and checkout. Without a log HEAD itself tells at least of checkouts.
        let moved = ["logs/HEAD", "HEAD"].map(|file| git(&["rev-parse", "--git-path", file]));
        if let Some(file) = moved.into_iter().flatten().find(|file| Path::new(file).exists()) {
            println!("cargo::rerun-if-changed={file}");
        }
    }
    println!("cargo::rustc-env=KONNECTIVITY_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
}

/// What git answers; `None` when there is no git or it has no answer.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let answer = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !answer.is_empty()).then_some(answer)
}
