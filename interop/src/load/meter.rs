//! CPU time of everybody who takes part: the tunnel, and the load itself, which must not be what limits.

use std::ops::{AddAssign, Sub};
use std::time::Duration;

use anyhow::Context;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use super::targets::Targets;
use crate::peer::{Pair, process};

/// CPU time, user and system.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cpu {
    /// Of server and agent; none without a tunnel.
    pub tunnel: Duration,
    /// Of the clients: this process, which has one thread for them.
    pub clients: Duration,
    /// Of the targets' process, which has one thread for them.
    pub targets: Duration,
}

impl Sub for Cpu {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            tunnel: self.tunnel.saturating_sub(earlier.tunnel),
            clients: self.clients.saturating_sub(earlier.clients),
            targets: self.targets.saturating_sub(earlier.targets),
        }
    }
}

impl AddAssign for Cpu {
    fn add_assign(&mut self, other: Self) {
        self.tunnel += other.tunnel;
        self.clients += other.clients;
        self.targets += other.targets;
    }
}

/// Whose CPU time is read.
#[derive(Debug, Clone, Copy)]
pub struct Meter<'a> {
    pair: Option<&'a Pair>,
    targets: u32,
}

impl<'a> Meter<'a> {
    /// Of these, and of this process.
    pub fn new(pair: Option<&'a Pair>, targets: &Targets) -> Self {
        Self { pair, targets: targets.id() }
    }

    /// What each has used since it was started.
    ///
    /// # Errors
    /// When a process is gone.
    pub fn read(self) -> anyhow::Result<Cpu> {
        let own = getrusage(UsageWho::RUSAGE_SELF).context("cannot ask for the CPU time of this process")?;
        let own = (own.user_time() + own.system_time()).num_microseconds();
        Ok(Cpu {
            tunnel: self.pair.map_or(Ok(Duration::ZERO), Pair::cpu)?,
            clients: Duration::from_micros(own.unsigned_abs()),
            targets: process::cpu_of(self.targets).context("the targets are gone")?,
        })
    }
}
