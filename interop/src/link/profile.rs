//! A whole link over time.

use std::ops::Range;
use std::time::Duration;

use super::conditions::{Gate, Invalid};
use super::course::Course;

/// Which way a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the site to the cloud.
    Up,
    /// From the cloud to the site.
    Down,
}

impl Direction {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Up, Self::Down];

    /// In messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// A whole link over time: both directions, and the box at the site's end.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// In messages and reports.
    pub name: String,
    /// From the site to the cloud.
    pub up: Course,
    /// From the cloud to the site.
    pub down: Course,
    /// When UDP flows get a new source address and port (a NAT that restarts), counted from the start of the link.
    pub rebinds: Vec<Duration>,
    /// When UDP is not let through, counted likewise.
    pub udp_blocked: Vec<Range<Duration>>,
}

impl Profile {
    /// Two directions, no box.
    pub fn new(name: &str, up: Course, down: Course) -> Self {
        Self { name: name.to_owned(), up, down, rebinds: Vec::new(), udp_blocked: Vec::new() }
    }

    /// The same in both directions.
    pub fn symmetric(name: &str, both: Course) -> Self {
        Self::new(name, both.clone(), both)
    }

    /// One of its directions.
    pub fn course(&self, direction: Direction) -> &Course {
        match direction {
            Direction::Up => &self.up,
            Direction::Down => &self.down,
        }
    }

    /// With up and down exchanged: the site has what the cloud had.
    #[must_use]
    pub fn reversed(self) -> Self {
        Self { up: self.down, down: self.up, ..self }
    }

    /// With an outage of both directions.
    #[must_use]
    pub fn with_outage(self, window: Range<Duration>, gate: Gate) -> Self {
        Self { up: self.up.with_outage(window.clone(), gate), down: self.down.with_outage(window, gate), ..self }
    }

    /// As it is at its start, for ever.
    #[must_use]
    pub fn frozen(&self) -> Self {
        Self::new(&self.name, Course::constant(self.up.first()), Course::constant(self.down.first()))
    }

    /// The MTU of the devices at both ends: what the longest packet may have at the start. IPv6 needs 1,280 bytes at
    /// least (RFC 8200, section 5); below that the link is a black hole for what is longer.
    pub fn device_mtu(&self) -> usize {
        self.up.first().mtu.min(self.down.first().mtu).max(1280)
    }

    /// Checks the figures.
    ///
    /// # Errors
    /// Names the first that no link can have.
    pub fn check(&self) -> Result<(), Invalid> {
        if self.udp_blocked.iter().any(|window| window.start > window.end) {
            return Err(Invalid::Window);
        }
        self.up.check()?;
        self.down.check()
    }
}
