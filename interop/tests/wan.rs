//! The benchmark on bad links, at its smallest: it measures, and leaves nothing behind. Skipped without root or
//! `/dev/net/tun`.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use konnectivity_interop::link::Link;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Longer than any machine needs.
const LIMIT: Duration = Duration::from_secs(120);

fn bench(arguments: &[&str]) -> Option<Command> {
    if let Err(why) = Link::possible() {
        eprintln!("SKIPPED: {why}");
        return None;
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
    command.args(["wan", "--link", "dsl", "--subject", "ours", "--seeds", "1", "--ramp", "0.5"]).args(arguments);
    Some(command)
}

/// Namespaces and files that a benchmark of this process id has made.
fn left_by(id: u32) -> Vec<PathBuf> {
    let of = |folder: &str, start: String| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let is_its = move |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with(&start);
        entries.map(|entry| entry.path()).filter(is_its).collect::<Vec<_>>()
    };
    let folder = std::env::temp_dir().join(format!("konnectivity-bench-{id}"));
    let mut left = of("/run/netns", format!("konnectivity-link-{id}-"));
    left.extend(folder.exists().then_some(folder));
    left
}

fn end(mut child: Child) -> std::process::ExitStatus {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if begun.elapsed() > LIMIT {
            child.kill().unwrap();
            panic!("the benchmark does not end");
        }
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn ours_is_measured_and_nothing_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("figures.json");
    let asked = ["--seconds", "0.5", "--only", "alone", "--only", "beside/to-target/4"];
    let Some(mut command) = bench(&asked) else { return };
    let child = command.arg("--json").arg(&json).stdout(Stdio::null()).spawn().unwrap();
    let id = child.id();
    assert!(end(child).success());
    assert_eq!(left_by(id), Vec::<PathBuf>::new());
    let figures: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let [alone, beside] = [0, 1].map(|start| &figures["starts"][start]);
    // The link has a round trip of 20 ms; a dial takes one more than an echo.
    assert!(alone["figures"]["echo_p50_ms"].as_f64().unwrap() >= 18.0, "{alone}");
    assert!(alone["figures"]["dial_echo_p50_ms"].as_f64().unwrap() >= 38.0, "{alone}");
    assert_eq!(alone["figures"]["failed"].as_f64(), Some(0.0), "{alone}");
    let goodput = beside["figures"]["goodput_megabits_per_second"].as_f64().unwrap();
    // Less than the link's rate for a moment's worth of queue more.
    assert!(goodput > 0.1 && goodput < 70.0, "{beside}");
}

#[test]
fn told_to_stop_it_leaves_nothing() {
    let Some(mut command) = bench(&["--seconds", "100", "--only", "bulk"]) else { return };
    let child = command.stdout(Stdio::null()).spawn().unwrap();
    let id = child.id();
    let begun = Instant::now();
    // The link's, not the one in which it has looked what TCP can.
    let is_there = |end: &str| left_by(id).iter().any(|path| path.to_string_lossy().ends_with(end));
    while !is_there("-cloud") && begun.elapsed() < LIMIT {
        thread::sleep(Duration::from_millis(10));
    }
    kill(Pid::from_raw(i32::try_from(id).unwrap()), Signal::SIGINT).unwrap();
    assert!(!end(child).success());
    assert_eq!(left_by(id), Vec::<PathBuf>::new());
}
