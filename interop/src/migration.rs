//! The move of a running cluster from the reference to this project and back, program by program, under load.
//!
//! ```text
//! two clients, as kube-apiservers: each its own server --> server 1, server 2 --> balancer <-- agent 1, agent 2 --> echo
//! ```
//!
//! It does what `docs/migration.md` tells an operator to do, and counts the dials that failed meanwhile.
//!
//! - [`cluster`]: the programs, each in a place of its own that keeps its ports whoever made it.
//! - [`traffic`]: short dials and long ones, and what became of them.
//! - [`holder`]: which agent holds a dial.
//! - [`report`]: the table.

pub mod cluster;
pub mod holder;
pub mod report;
pub mod traffic;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::{Parser, ValueEnum};
use tokio::time::sleep;

use crate::certificates::Folder;
use crate::matrix::column::{Front, Make};
use crate::matrix::fleet::Site;
use crate::matrix::programs::Programs;
use cluster::{Cluster, Part};
use report::Row;
use traffic::Traffic;

/// What is to be tried.
#[derive(Debug, Clone, Parser)]
#[command(version, about = "Moves a cluster from the reference to this project and back while clients dial")]
pub struct Options {
    /// How clients come in.
    #[arg(long, value_enum, default_value = "grpc")]
    pub front: Entry,
    /// Clients keep using the server that is being replaced, instead of being sent to the other one before.
    #[arg(long)]
    pub in_place: bool,
    /// Agents before servers, and after them on the way back.
    #[arg(long)]
    pub agents_first: bool,
    /// The load runs for so long before and after each replacement.
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    pub settle: f64,
    /// Where logs and the table go. What is there is kept, but for files of the same names.
    #[arg(long, default_value = "target/migration")]
    pub out: PathBuf,
}

/// What clients say, over a Unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Entry {
    /// gRPC.
    Grpc,
    /// HTTP CONNECT.
    Connect,
}

impl Entry {
    fn front(self) -> Front {
        match self {
            Self::Grpc => Front::GrpcUds,
            Self::Connect => Front::ConnectUds,
        }
    }
}

/// The whole way and back: servers first, and last on the way back.
const SERVERS_FIRST: [(Part, Make); 8] = [
    (Part::Server(0), Make::Ours),
    (Part::Server(1), Make::Ours),
    (Part::Agent(0), Make::Ours),
    (Part::Agent(1), Make::Ours),
    (Part::Agent(0), Make::Go),
    (Part::Agent(1), Make::Go),
    (Part::Server(0), Make::Go),
    (Part::Server(1), Make::Go),
];

/// The other order: this project's agents meet servers of the reference.
const AGENTS_FIRST: [(Part, Make); 8] = [
    (Part::Agent(0), Make::Ours),
    (Part::Agent(1), Make::Ours),
    (Part::Server(0), Make::Ours),
    (Part::Server(1), Make::Ours),
    (Part::Server(0), Make::Go),
    (Part::Server(1), Make::Go),
    (Part::Agent(0), Make::Go),
    (Part::Agent(1), Make::Go),
];

/// Goes the whole way and back, and prints a row for each step as it ends.
///
/// # Errors
/// When a program does not start or panics, when the cluster does not become whole again after a step, or when a dial has
/// failed that no step had to end.
///
/// # Cancel safety
/// Dropping the future kills every program.
pub async fn run(options: &Options) -> anyhow::Result<()> {
    let folder = tempfile::Builder::new().prefix("kq-migration-").tempdir().context("no temporary folder")?;
    let logs = options.out.join(options.front.front().key());
    fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
    let site = Site {
        programs: Programs::find()?,
        certificates: Folder::write(&folder.path().join("pki"), &[])?,
        sockets: folder.path().to_owned(),
        logs: logs.clone(),
        server_ip: std::net::Ipv4Addr::LOCALHOST,
        agent_ip: std::net::Ipv4Addr::LOCALHOST,
        agent_prefix: Vec::new(),
    };
    let settle = Duration::from_secs_f64(options.settle);
    let mut cluster = Cluster::start(site, options.front.front()).await?;
    let traffic = Traffic::start(cluster.clients()?, cluster.agent_ids())?;
    sleep(settle).await;
    let mut rows = vec![Row::new("the reference everywhere", &cluster, traffic.take(), None).await];
    println!("{}", report::head());
    println!("{}", rows[0]);
    for (part, make) in if options.agents_first { AGENTS_FIRST } else { SERVERS_FIRST } {
        let whole = replace(&mut cluster, &traffic, part, make, options.in_place).await;
        let whole = whole.with_context(|| format!("{} by {}", part.name(), make_name(make)))?;
        sleep(settle).await;
        cluster.alive()?;
        let name = format!("{} is now {}", part.name(), make_name(make));
        let row = Row::new(&name, &cluster, traffic.take(), Some((part, whole))).await;
        println!("{row}");
        rows.push(row);
    }
    drop(traffic);
    cluster.stop().await?;
    let table = report::table(&rows);
    let file = logs.join("table.md");
    fs::write(&file, &table).with_context(|| format!("cannot write {}", file.display()))?;
    for failure in rows.iter().flat_map(Row::failures) {
        println!("{failure}");
    }
    println!("the table and every program's log are in {}", logs.display());
    match rows.iter().map(Row::failed).sum::<u64>() {
        0 => Ok(()),
        count => bail!("{count} dials have failed"),
    }
}

/// Puts a program of this make into a place; how long the cluster was not whole.
async fn replace(
    cluster: &mut Cluster,
    traffic: &Traffic,
    part: Part,
    make: Make,
    in_place: bool,
) -> anyhow::Result<Duration> {
    let start = Instant::now();
    match part {
        Part::Server(server) => {
            if !in_place {
                traffic.leave(server).await;
            }
            cluster.stop_server(server).await?;
            cluster.start_server(server, make).await?;
        }
        Part::Agent(agent) => {
            cluster.stop_agent(agent).await?;
            cluster.start_agent(agent, make)?;
            traffic.agents(cluster.agent_ids());
        }
    }
    cluster.whole().await?;
    let whole = start.elapsed();
    traffic.come_back();
    Ok(whole)
}

fn make_name(make: Make) -> &'static str {
    match make {
        Make::Go => "the reference's",
        Make::Ours => "ours",
    }
}
