#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use super::*;
use crate::matrix::fleet::Agent;
use crate::matrix::scenario;
use crate::peer::process::Process;

/// A cell whose only program is a shell that does this.
fn cell(folder: &Path, script: &str) -> Cell {
    let column = Column::all().next().unwrap();
    let ip = std::net::Ipv4Addr::LOCALHOST;
    let site = Site {
        programs: Programs::at(folder, folder),
        certificates: Folder::write(folder, &[]).unwrap(),
        sockets: folder.to_owned(),
        logs: folder.to_owned(),
        server_ip: ip,
        agent_ip: ip,
        agent_prefix: Vec::new(),
    };
    let mut fleet = Fleet::new(column, site);
    let arguments = ["-c", script].map(str::to_owned).into_iter();
    let process = Process::start("agent-1", Path::new("/bin/sh"), arguments, folder).unwrap();
    fleet.agents.push(Agent { process, make: column.pairing.agent, health: (ip, 1).into() });
    Cell { fleet, size: Size::Quick, cable: None, notes: Vec::new() }
}

const FINE: Scenario = Scenario { run: |_| Box::pin(async { Ok(()) }), ..scenario::ALL[0] };

#[tokio::test]
async fn a_program_that_has_ended_fails_a_scenario_that_passed() {
    let folder = tempfile::tempdir().unwrap();
    let mut cell = cell(folder.path(), "echo last words; exit 7");
    cell.fleet.agents[0].process.end(Duration::from_secs(10)).await.unwrap();
    let error = format!("{:#}", tried(&mut cell, &FINE).await.unwrap_err());
    assert!(error.starts_with("agent-1 ended: exit status: 7") && error.contains("| last words"), "{error}");
}

#[tokio::test]
async fn a_panic_is_seen_though_the_program_lives() {
    let folder = tempfile::tempdir().unwrap();
    let mut cell = cell(folder.path(), "echo \"thread 'x' panicked at a.rs:1:1:\"; exec sleep 100");
    crate::pair::until("it has written", Duration::from_secs(10), async || {
        std::fs::metadata(cell.fleet.agents[0].process.log()).is_ok_and(|log| log.len() > 0).then_some(())
    })
    .await;
    tried(&mut cell, &FINE).await.unwrap();
    let error = format!("{:#}", cell.fleet.unharmed(&Default::default()).unwrap_err());
    assert!(error.starts_with("agent-1 has panicked: thread 'x' panicked at a.rs:1:1:"), "{error}");
    assert!(cell.fleet.unharmed(&cell.fleet.marks()).is_ok(), "it is told once");
}

#[tokio::test]
async fn a_scenario_without_an_end_is_ended() {
    let folder = tempfile::tempdir().unwrap();
    let mut cell = cell(folder.path(), "exec sleep 100");
    let endless =
        Scenario { run: |_| Box::pin(std::future::pending()), limit: Duration::from_millis(20), ..scenario::ALL[0] };
    let error = tried(&mut cell, &endless).await.unwrap_err().to_string();
    assert_eq!(error, "it has not come to its end within 20ms");
}

#[test]
fn a_panic_of_the_harness_and_a_stop_are_errors() {
    let stop = CancellationToken::new();
    let error = guarded(&stop, async { panic!("at the disco") }).unwrap_err().to_string();
    assert_eq!(error, "the harness has panicked: at the disco");
    stop.cancel();
    let error = guarded(&stop, std::future::pending()).unwrap_err().to_string();
    assert_eq!(error, "the run was told to stop");
}

#[test]
fn only_what_a_run_leaves_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    for path in ["go-go/grpc", "mine"] {
        fs::create_dir_all(folder.path().join(path)).unwrap();
    }
    fs::write(folder.path().join("matrix.md"), "").unwrap();
    empty(folder.path()).unwrap();
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["mine"]);
}
