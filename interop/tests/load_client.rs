//! The benchmark's gRPC client with a real server: ours, and the reference's where it is built (`scripts/go-peers.sh`).
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::net::SocketAddr;
use std::path::PathBuf;

use konnectivity_interop::certificates::Folder;
use konnectivity_interop::ends::{LIMIT, Target, address, listen};
use konnectivity_interop::load::path::{Dial, DialError, Path};
use konnectivity_interop::pair::program::beside_this;
use konnectivity_interop::peer::{Entrance, Make, Mode, Pair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// More than every window that anybody begins with, and no multiple of anything.
const BULK_BYTES: usize = 3_000_001;

fn makes() -> Vec<Make> {
    let [server, agent] = ["proxy-server", "proxy-agent"].map(|program| beside_this(program).unwrap());
    let go: [PathBuf; 2] = [&server, &agent].map(|ours| {
        let (folder, program) = (ours.parent().unwrap(), ours.file_name().unwrap());
        folder.parent().unwrap().join("go").join(program)
    });
    let make = |name: &str, [server, agent]: [PathBuf; 2]| Make {
        name: name.to_owned(),
        server,
        agent,
        server_args: vec![],
        agent_args: vec![],
    };
    let mut makes = vec![make("ours", [server, agent])];
    match go.iter().all(|program| program.is_file()) {
        true => makes.push(make("go", go)),
        false => eprintln!("without the reference: {} is not there", go[0].display()),
    }
    makes
}

/// Sends as much as it gets back, both at once, from one task.
async fn echo_in_bulk(mut dial: Dial) -> Dial {
    let sent: Vec<u8> = (0..BULK_BYTES).map(|at| (at % 251) as u8).collect();
    let mut came = vec![0; sent.len()];
    let (mut reader, mut writer) = tokio::io::split(&mut dial);
    let (read, written) = tokio::join!(reader.read_exact(&mut came), async {
        writer.write_all(&sent).await?;
        writer.flush().await
    });
    read.unwrap();
    written.unwrap();
    assert!(came == sent, "other bytes came back");
    dial
}

async fn dials_echo_and_close(path: &Path, target: SocketAddr) {
    let dial = path.dial(target).await.unwrap();
    let mut dial = echo_in_bulk(dial).await;
    dial.write_all(b"small").await.unwrap();
    dial.flush().await.unwrap();
    let mut came = [0; 5];
    dial.read_exact(&mut came).await.unwrap();
    assert_eq!(&came, b"small");
    dial.close().await.unwrap();
}

#[tokio::test]
async fn dials_carry_bytes_both_ways_and_close_through_every_server() {
    let folder = tempfile::tempdir().unwrap();
    let certificates = Folder::write(&folder.path().join("certificates"), &[]).unwrap();
    let target = Target::echo();
    for make in makes() {
        for entrance in [Entrance::Unix, Entrance::MutualTls] {
            eprintln!("{} by {entrance:?}", make.name);
            let pair = Pair::start(&make, (Mode::Grpc, entrance), &certificates, folder.path()).await.unwrap();
            let path = Path::through_grpc(&pair.frontend, &certificates).unwrap();
            let all = async { tokio::join!(dials_echo_and_close(&path, target.address), refused(&path)) };
            timeout(LIMIT, all).await.expect("no dial takes so long");
            pair.stop().await;
        }
    }
}

async fn refused(path: &Path) {
    // Nobody listens there any more.
    let closed = address(&listen(std::net::Ipv4Addr::LOCALHOST));
    let DialError::Refused(text) = path.dial(closed).await.unwrap_err() else { panic!("not refused") };
    assert!(text.contains("connection refused"), "{text}");
}

#[tokio::test]
async fn a_targets_end_is_the_end_of_what_can_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let certificates = Folder::write(&folder.path().join("certificates"), &[]).unwrap();
    let target = Target::new(|mut stream| async move {
        // It waits for the client, so that this is about the end only.
        if stream.read_u8().await.is_ok() {
            let _ = stream.write_all(&vec![7; BULK_BYTES]).await;
        }
    });
    for make in makes() {
        let entrance = (Mode::Grpc, Entrance::Unix);
        let pair = Pair::start(&make, entrance, &certificates, folder.path()).await.unwrap();
        let path = Path::through_grpc(&pair.frontend, &certificates).unwrap();
        let mut dial = path.dial(target.address).await.unwrap();
        dial.write_all(b"!").await.unwrap();
        dial.flush().await.unwrap();
        let mut came = Vec::new();
        timeout(LIMIT, dial.read_to_end(&mut came)).await.expect("the end comes").unwrap();
        assert_eq!(came.len(), BULK_BYTES, "{}", make.name);
        pair.stop().await;
    }
}
