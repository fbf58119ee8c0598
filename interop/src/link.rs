//! A bad link on one machine: two network namespaces, and between them what packets meet on a real one.
//!
//! ```text
//!   site's namespace                    this process                      cloud's namespace
//!  programs -- TUN device == box (NAT) == path up, path down == TUN device -- programs
//! ```
//!
//! - [`conditions`], [`course`], [`profile`]: what is asked for, at a moment, over time, and for both directions.
//! - [`named`]: links that people have.
//! - [`path`]: one direction, without clock or socket.
//! - [`netns`]: the namespaces.
//! - [`stats`], [`check`]: whether it did what was asked for.
//!
//! The kernel's own emulation (netem) is not needed. Everything that is random comes from one seed, so a run with the
//! same packets at the same times is the same run.

pub mod check;
pub mod conditions;
pub mod course;
mod dice;
mod ip;
mod middlebox;
pub mod named;
pub mod netns;
pub mod path;
pub mod profile;
mod pump;
pub mod spread;
pub mod stats;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path as FilePath;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::unistd::geteuid;
use thiserror::Error;
use tun_rs::{DeviceBuilder, SyncDevice};

use self::conditions::Invalid;
use self::course::Course;
use self::middlebox::Middlebox;
use self::netns::{Namespace, NetnsError, ip};
use self::path::Path;
use self::profile::{Direction, Profile};
use self::pump::Shared;
use self::stats::{OneWay, Stats};

pub use self::pump::Around;

/// The device's name at both ends.
pub(crate) const DEVICE: &str = "link0";
/// Packets that the kernel keeps until the emulator fetches them: 60 ms of 1 Gbit/s.
const TRANSMIT_QUEUE: &str = "5000";
/// Private addresses (RFC 1918 and RFC 4193); the namespaces keep them from everybody else's.
const NETWORK: (Ipv4Addr, Ipv6Addr) = (Ipv4Addr::new(10, 99, 0, 0), Ipv6Addr::new(0xfd00, 0x99, 0, 0, 0, 0, 0, 0));
/// The cloud's address on every link, for certificates that are made before there is one.
pub const CLOUD_IPV4: Ipv4Addr = Ipv4Addr::from_bits(NETWORK.0.to_bits() + CLOUD as u32);
const SITE: u8 = 1;
const CLOUD: u8 = 2;

/// A running link; dropping it ends the processes in its namespaces and removes them.
#[derive(Debug)]
pub struct Link {
    profile: Profile,
    seed: u64,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    site: End,
    cloud: End,
}

/// One end of a link.
#[derive(Debug)]
pub struct End {
    /// Where programs at this end run.
    pub namespace: Namespace,
    /// Its address, known at the other end too.
    pub ipv4: Ipv4Addr,
    /// Its address, known at the other end too.
    pub ipv6: Ipv6Addr,
}

/// Why there is no link.
#[derive(Debug, Error)]
pub enum StartError {
    /// The figures.
    #[error("no link is like this")]
    Invalid(#[from] Invalid),
    /// The system or the rights.
    #[error("no link can be made here: {0}")]
    Impossible(&'static str),
    /// The namespaces.
    #[error("cannot make the network namespaces")]
    Netns(#[from] NetnsError),
    /// The emulator's thread.
    #[error("cannot start the emulator")]
    Thread(#[source] io::Error),
}

impl Link {
    /// Says why no link can be made here, if so: for tests, which are skipped then.
    ///
    /// # Errors
    /// [`StartError::Impossible`].
    pub fn possible() -> Result<(), StartError> {
        if !geteuid().is_root() {
            return Err(StartError::Impossible("network namespaces need root"));
        }
        if !FilePath::new("/dev/net/tun").exists() {
            return Err(StartError::Impossible("there is no /dev/net/tun"));
        }
        if ip(&["-V"]).is_err() {
            return Err(StartError::Impossible("there is no `ip`; install iproute2"));
        }
        Ok(())
    }

    /// Makes the namespaces and starts the emulator.
    ///
    /// # Errors
    /// With impossible figures, without root or `/dev/net/tun`, or if the system refuses; nothing is left then.
    pub fn start(profile: Profile, seed: u64) -> Result<Self, StartError> {
        profile.check()?;
        Self::possible()?;
        let mtu = profile.device_mtu();
        let (site, site_device) = End::create("site", SITE, mtu)?;
        let (cloud, cloud_device) = End::create("cloud", CLOUD, mtu)?;
        let paths = [Path::new(profile.up.clone(), seed, 0), Path::new(profile.down.clone(), seed, 1)];
        let middlebox = Middlebox::new(profile.rebinds.clone(), profile.udp_blocked.clone());
        let shared = Arc::new(Shared::new(paths, middlebox).map_err(StartError::Thread)?);
        let devices = [site_device, cloud_device];
        let thread = thread::Builder::new().name("link".to_owned());
        let thread = thread.spawn({
            let shared = Arc::clone(&shared);
            move || pump::run(&shared, &devices, mtu)
        });
        let thread = Some(thread.map_err(StartError::Thread)?);
        Ok(Self { profile, seed, shared, thread, site, cloud })
    }

    /// The end behind the box, where an agent lives.
    pub fn site(&self) -> &End {
        &self.site
    }

    /// The other end, where a server lives.
    pub fn cloud(&self) -> &End {
        &self.cloud
    }

    /// What it was started with.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// What its chances come from.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Another course for one direction, from now on. A longer MTU than at the start does not make the devices' longer.
    ///
    /// # Errors
    /// With impossible figures.
    pub fn set(&self, direction: Direction, course: Course) -> Result<(), Invalid> {
        course.check()?;
        self.shared.change(|state, now| state.lanes[direction as usize].path.set(now, course));
        Ok(())
    }

    /// From now on UDP is not let through in either direction, or is again.
    pub fn block_udp(&self, blocked: bool) {
        self.shared.change(|state, _| state.middlebox.block_udp(blocked));
    }

    /// The NAT forgets: each UDP flow of the site gets a new source address and port, and what comes for old ones is
    /// dropped.
    pub fn rebind_nat(&self) {
        self.shared.change(|state, _| state.middlebox.rebind());
    }

    /// TCP's congestion control in both namespaces, for sockets made from now on; gives back what is used now.
    ///
    /// # Errors
    /// When the kernel does not have it.
    pub fn set_congestion_control(&self, name: &str) -> Result<String, NetnsError> {
        self.cloud.namespace.set_congestion_control(name)?;
        self.site.namespace.set_congestion_control(name)
    }

    /// What it has done so far. The emulator waits while the figures are copied: some microseconds, more on a busy
    /// machine.
    ///
    /// # Errors
    /// When the emulator has ended by itself, or the kernel does not tell its part.
    pub fn stats(&self) -> Result<Stats, StartError> {
        let drops = [&self.site, &self.cloud].map(|end| end.namespace.kernel_drops(DEVICE));
        let state = self.shared.lock();
        if let Some(failure) = &state.failure {
            return Err(StartError::Thread(io::Error::other(failure.clone())));
        }
        let [up, down] = [0, 1].map(|direction| {
            let lane = &state.lanes[direction];
            (lane.path.counters().clone(), lane.around.clone())
        });
        let (elapsed, cpu, is_real_time) = (self.shared.now(), state.cpu, state.is_real_time);
        drop(state);
        let [site_drops, cloud_drops] = drops;
        Ok(Stats {
            up: OneWay { path: up.0, around: up.1, kernel_drops: site_drops? },
            down: OneWay { path: down.0, around: down.1, kernel_drops: cloud_drops? },
            elapsed,
            cpu,
            is_real_time,
        })
    }

    /// For how long it has run: the clock of its profile.
    pub fn elapsed(&self) -> Duration {
        self.shared.now()
    }

    /// Ends it and says what it has done.
    ///
    /// # Errors
    /// As [`Link::stats`]; it is ended all the same.
    pub fn stop(self) -> Result<Stats, StartError> {
        self.stats()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.change(|state, _| state.stop = true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl End {
    /// TCP connections made from now on get segments of so many bytes at most, as a router on a narrow path sees to (MSS
    /// clamping). UDP does not hear of it.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn clamp_segments(&self, bytes: usize) -> Result<(), NetnsError> {
        let name = self.namespace.name();
        let network = format!("{}/24", NETWORK.0);
        let (source, bytes) = (self.ipv4.to_string(), bytes.to_string());
        // As the kernel has made it, and one thing more.
        let route = ["route", "replace", &network, "dev", DEVICE, "proto", "kernel", "scope", "link", "src", &source];
        ip(&[&["-n", name], &route[..], &["advmss", &bytes]].concat()).map(drop)
    }

    fn create(ending: &str, host: u8, mtu: usize) -> Result<(Self, SyncDevice), StartError> {
        let namespace = Namespace::create(ending)?;
        let set = |key: &str, value: &str| namespace.set(key, value);
        // No packets of the kernel's own on the link, they would take numbers from the dice: without an address of its
        // own making, the device asks for no router.
        set("ipv6/conf/default/addr_gen_mode", "1")?;
        // A connection does not begin with what an earlier one has found out.
        set("ipv4/tcp_no_metrics_save", "1")?;
        let device = namespace.inside("make a TUN device", || {
            let device = DeviceBuilder::new().name(DEVICE).enable(false).build_sync()?;
            device.set_nonblocking(true)?;
            Ok(device)
        })?;
        let ipv4 = Ipv4Addr::from_bits(NETWORK.0.to_bits() + u32::from(host));
        let ipv6 = Ipv6Addr::from_bits(NETWORK.1.to_bits() + u128::from(host));
        let name = namespace.name();
        ip(&["-n", name, "address", "add", &format!("{ipv4}/24"), "dev", DEVICE])?;
        ip(&["-n", name, "link", "set", DEVICE, "mtu", &mtu.to_string(), "txqueuelen", TRANSMIT_QUEUE, "up"])?;
        ip(&["-n", name, "address", "add", &format!("{ipv6}/64"), "dev", DEVICE, "nodad"])?;
        Ok((Self { namespace, ipv4, ipv6 }, device))
    }
}
