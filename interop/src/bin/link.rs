//! Runs a command beside a bad link; `docs/links.md` shows how.

use std::ops::Range;
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser;
use konnectivity_interop::link::conditions::Gate;
use konnectivity_interop::link::profile::Profile;
use konnectivity_interop::link::{Link, check, named, netns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};

/// Makes two network namespaces with a bad link between them and runs a command that finds their names and addresses in
/// its environment: LINK_SITE, LINK_CLOUD (for `ip netns exec`), LINK_SITE_IPV4, LINK_CLOUD_IPV4, LINK_SITE_IPV6,
/// LINK_CLOUD_IPV6, LINK_NAME and LINK_SEED. Needs root.
#[derive(Debug, Parser)]
#[command(name = "link", version)]
struct Options {
    /// The link; --list shows them.
    #[arg(required_unless_present_any = ["list", "clean", "self_check"])]
    link: Option<String>,
    /// The command and its arguments, behind `--`.
    #[arg(last = true)]
    command: Vec<String>,
    /// Shows the links that have names.
    #[arg(long, exclusive = true)]
    list: bool,
    /// Removes what killed runs have left.
    #[arg(long, exclusive = true)]
    clean: bool,
    /// Measures a link, or `all`, instead of running a command.
    #[arg(long, value_name = "LINK", conflicts_with_all = ["link", "command"])]
    self_check: Option<String>,
    /// What all chances come from; the same number gives the same chances.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Exchanges up and down.
    #[arg(long)]
    reverse: bool,
    /// TCP's congestion control at both ends, by the kernel's name for it.
    #[arg(long, value_name = "NAME")]
    congestion_control: Option<String>,
    /// Loses all packets from one second to another; may be given again.
    #[arg(long, value_name = "FROM..TO", value_parser = window)]
    outage: Vec<Range<Duration>>,
    /// Holds all packets from one second to another; may be given again.
    #[arg(long, value_name = "FROM..TO", value_parser = window)]
    hold: Vec<Range<Duration>>,
    /// Blocks UDP from one second to another; may be given again.
    #[arg(long, value_name = "FROM..TO", value_parser = window)]
    block_udp: Vec<Range<Duration>>,
    /// Gives UDP flows new source addresses and ports at this second; may be given again.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    rebind: Vec<Duration>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Options::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("link: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> anyhow::Result<ExitCode> {
    if options.list {
        print!("{}", named::table());
        return Ok(ExitCode::SUCCESS);
    }
    if options.clean {
        netns::clean().iter().for_each(|name| println!("removed {name}"));
        return Ok(ExitCode::SUCCESS);
    }
    let left_over = netns::left_over();
    if !left_over.is_empty() {
        eprintln!("link: left over from killed runs: {}; `link --clean` removes them", left_over.join(", "));
    }
    // From here on a signal is an event, so that destructors run.
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut hangup = signal(SignalKind::hangup())?;
    let told = async {
        tokio::select! {
            _ = interrupt.recv() => Signal::SIGINT,
            _ = terminate.recv() => Signal::SIGTERM,
            _ = hangup.recv() => Signal::SIGHUP,
        }
    };
    match options.self_check.clone() {
        Some(name) => self_check(&options, &name, told).await,
        None => beside_a_link(&options, told).await,
    }
}

/// One after the other; told to stop, it ends with the present one.
async fn self_check(options: &Options, name: &str, told: impl Future<Output = Signal>) -> anyhow::Result<ExitCode> {
    let profiles: Vec<_> = match name {
        "all" => named::ALL.iter().map(named::Named::profile).collect(),
        name => vec![find(name)?],
    };
    let mut told = std::pin::pin!(told);
    let mut all_good = true;
    for profile in profiles {
        let profile = if options.reverse { profile.reversed() } else { profile };
        let seed = options.seed;
        let mut checking = tokio::task::spawn_blocking(move || check::run(&profile, seed));
        let (report, stop) = tokio::select! {
            report = &mut checking => (report, false),
            _ = &mut told => {
                eprintln!("link: this check is the last");
                (checking.await, true)
            }
        };
        let report = report.context("the check panicked")??;
        println!("{report}");
        all_good &= report.is_good();
        if stop {
            bail!("told to stop");
        }
    }
    Ok(if all_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn beside_a_link(options: &Options, told: impl Future<Output = Signal>) -> anyhow::Result<ExitCode> {
    let [program, arguments @ ..] = &options.command[..] else { bail!("no command; give it behind `--`") };
    let link = Link::start(options.profile()?, options.seed)?;
    let congestion_control = match &options.congestion_control {
        Some(name) => link.set_congestion_control(name)?,
        None => link.site().namespace.congestion_control()?,
    };
    let child = Command::new(program).args(arguments).envs(environment(&link)).spawn();
    let child = child.with_context(|| format!("cannot start {program}"))?;
    let status = until_ended(child, told).await?;
    let (name, seed) = (link.profile().name.clone(), link.seed());
    let stats = link.stop()?;
    eprintln!("link {name}, seed {seed}, TCP with {congestion_control}\n{stats}");
    Ok(exit_code(status))
}

impl Options {
    fn profile(&self) -> anyhow::Result<Profile> {
        let mut profile = find(self.link.as_deref().unwrap_or_default())?;
        if self.reverse {
            profile = profile.reversed();
        }
        for window in &self.outage {
            profile = profile.with_outage(window.clone(), Gate::Lost);
        }
        for window in &self.hold {
            profile = profile.with_outage(window.clone(), Gate::Held);
        }
        profile.udp_blocked = self.block_udp.clone();
        profile.rebinds = self.rebind.clone();
        Ok(profile)
    }
}

fn find(name: &str) -> anyhow::Result<Profile> {
    Profile::named(name).with_context(|| {
        let names: Vec<_> = named::ALL.iter().map(|link| link.name).collect();
        format!("there is no link {name:?}; there are {}", names.join(", "))
    })
}

fn environment(link: &Link) -> [(&'static str, String); 8] {
    let (site, cloud) = (link.site(), link.cloud());
    [
        ("LINK_NAME", link.profile().name.clone()),
        ("LINK_SEED", link.seed().to_string()),
        ("LINK_SITE", site.namespace.name().to_owned()),
        ("LINK_CLOUD", cloud.namespace.name().to_owned()),
        ("LINK_SITE_IPV4", site.ipv4.to_string()),
        ("LINK_CLOUD_IPV4", cloud.ipv4.to_string()),
        ("LINK_SITE_IPV6", site.ipv6.to_string()),
        ("LINK_CLOUD_IPV6", cloud.ipv6.to_string()),
    ]
}

/// Told to stop, it tells the child (a terminal has done so already) and kills it if that does not help.
async fn until_ended(mut child: Child, told: impl Future<Output = Signal>) -> anyhow::Result<ExitStatus> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let signal = {
        let ended = ended(&mut child);
        tokio::select! {
            status = ended => return status,
            signal = told => signal,
        }
    };
    let pid = i32::try_from(child.id()).context("a process id is an i32")?;
    let _ = kill(Pid::from_raw(pid), signal);
    if let Ok(status) = timeout(PATIENCE, ended(&mut child)).await {
        return status;
    }
    child.kill().context("cannot kill the command")?;
    child.wait().context("cannot wait for the command")
}

async fn ended(child: &mut Child) -> anyhow::Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for the command")? {
            return Ok(status);
        }
        sleep(Duration::from_millis(10)).await;
    }
}

/// As a shell has it: 128 and the signal's number for a killed command.
fn exit_code(status: ExitStatus) -> ExitCode {
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

fn window(text: &str) -> Result<Range<Duration>, String> {
    let (from, to) = text.split_once("..").ok_or("a window is FROM..TO, in seconds")?;
    let (from, to) = (seconds(from)?, seconds(to)?);
    if from <= to { Ok(from..to) } else { Err("it ends before it begins".to_owned()) }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text.parse().map_err(|_| format!("{text:?} is no number of seconds"))?;
    Duration::try_from_secs_f64(number).map_err(|error| error.to_string())
}
