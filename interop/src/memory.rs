//! How much memory an agent takes that may have only so much: a real agent in a control group of its own.
//!
//! - [`group`]: the control group.

pub mod group;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;

use self::group::Group;
use crate::certificates::Folder;
use crate::load::Window;
use crate::load::bulk::{self, Direction};
use crate::load::echo::{Echoes, Running};
use crate::load::meter::Meter;
use crate::load::path::Path;
use crate::load::stall::Stalled;
use crate::load::targets::Targets;
use crate::peer::{Entrance, Make, Mode, Pair};

/// Bulk dials at once, in either direction.
const BULK_DIALS: usize = 8;
/// How long stalled dials are given to fill what they may.
const FILL: Duration = Duration::from_secs(5);
/// One phase of traffic.
const WINDOW: Window = Window { ramp: Duration::from_secs(1), length: Duration::from_secs(4) };

const MIB: f64 = 1024.0 * 1024.0;

/// What is tried.
#[derive(Debug, Args)]
pub struct Options {
    /// The folder with proxy-server and proxy-agent
    #[arg(long, value_name = "FOLDER")]
    pub programs: PathBuf,
    /// Mebibytes that the agent may have
    #[arg(long, value_name = "MIB", default_value_t = 30)]
    pub limit: u64,
    /// Dials with traffic
    #[arg(long, value_name = "NUMBER", default_value_t = 200)]
    pub dials: usize,
    /// Dials that stall at once beside them, in either direction
    #[arg(long, value_name = "NUMBER", default_value_t = 10)]
    pub stalled: usize,
    /// More arguments for the agent
    #[arg(last = true)]
    pub agent: Vec<String>,
}

/// Measures over QUIC and over gRPC, and prints a table.
///
/// # Errors
/// An agent that is killed, goes beyond its limit, or loses a dial that is not stalled.
pub async fn run(options: &Options) -> anyhow::Result<()> {
    println!(
        "An agent that may have {} MiB. Memory is the control group's, with the kernel's; TCP is what the kernel holds for \
         sockets,\nwhich counts in version 2 of control groups. The peak is that of both, since the agent's start.\n",
        options.limit
    );
    println!("| Carrier | State | Memory, MiB | TCP, MiB | Peak, MiB |\n|---|---|---:|---:|---:|");
    for carrier in ["quic", "grpc"] {
        Subject::start(options, carrier).await?.run(options).await.with_context(|| format!("over {carrier}"))?;
    }
    Ok(())
}

/// A pair whose agent has a control group.
struct Subject {
    carrier: &'static str,
    // The order in which they are dropped: a group goes when its processes have gone.
    pair: Pair,
    group: Group,
    certificates: Folder,
    targets: Targets,
    _folder: tempfile::TempDir,
}

impl Subject {
    async fn start(options: &Options, carrier: &'static str) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("cannot make a folder")?;
        let certificates = Folder::write(&folder.path().join("pki"), &[])?;
        let group = Group::new(options.limit << 20)?;
        let make = Make {
            name: "memory".to_owned(),
            server: options.programs.join("proxy-server"),
            agent: group.wrap(&options.programs.join("proxy-agent"), folder.path())?,
            server_args: Vec::new(),
            agent_args: [vec![format!("--transport={carrier}")], options.agent.clone()].concat(),
        };
        let entrance = (Mode::HttpConnect, Entrance::Unix);
        let pair = Pair::start(&make, entrance, &certificates, folder.path()).await?;
        Ok(Self { carrier, pair, group, certificates, targets: Targets::start()?, _folder: folder })
    }

    async fn run(mut self, options: &Options) -> anyhow::Result<()> {
        self.row("started")?;
        let path = Path::through(&self.pair.frontend, &self.certificates)?;
        let echoes = Echoes::open(&path, &self.targets, options.dials).await?;
        self.row(&format!("{} dials, idle", options.dials))?;
        let mut running = echoes.start();
        self.echo(&mut running, &format!("{} dials, each echoing", options.dials)).await?;
        for (direction, word) in [(Direction::ToTarget, "uploads"), (Direction::ToClient, "downloads")] {
            let meter = Meter::new(Some(&self.pair), &self.targets);
            let carried = bulk::run(&path, &mut self.targets, meter, direction, BULK_DIALS, WINDOW).await?;
            let speed = carried.bytes as f64 / carried.time.as_secs_f64() / 1e6;
            self.row(&format!("and {BULK_DIALS} {word} beside them ({speed:.0} MB/s)"))?;
        }
        for (direction, word) in [(Direction::ToTarget, "uploads"), (Direction::ToClient, "downloads")] {
            let stalled = Stalled::start(&path, &mut self.targets, direction, options.stalled, FILL).await?;
            self.echo(&mut running, &format!("and {} {word} that nobody reads", options.stalled)).await?;
            stalled.end(&mut self.targets).await?;
        }
        Ok(())
    }

    /// Lets the dials echo for a while.
    async fn echo(&mut self, running: &mut Running, state: &str) -> anyhow::Result<()> {
        let latencies = match running.measure(Meter::new(Some(&self.pair), &self.targets), WINDOW).await {
            Ok(latencies) => latencies,
            // That the agent has gone says more than that a dial has.
            Err(error) => return Err(self.row(state).err().unwrap_or(error)),
        };
        self.row(&format!("{state} ({:.0} echoes/s)", latencies.per_second()))?;
        if latencies.completed() == 0 {
            bail!("nothing was echoed: {state}");
        }
        Ok(())
    }

    fn row(&mut self, state: &str) -> anyhow::Result<()> {
        self.pair.check().with_context(|| format!("the agent had {} kills for want of memory", self.group.kills()))?;
        let usage = self.group.usage()?;
        println!(
            "| {} | {state} | {:.1} | {:.1} | {:.1} |",
            self.carrier,
            usage.memory as f64 / MIB,
            usage.tcp as f64 / MIB,
            usage.peak as f64 / MIB
        );
        if usage.peak > self.group.limit() {
            bail!("{state}: {} bytes are more than the limit, {}", usage.peak, self.group.limit());
        }
        Ok(())
    }
}
