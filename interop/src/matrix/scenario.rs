//! The scenarios, in the order of the table.

use std::pin::Pin;
use std::time::Duration;

use super::cell::Cell;
use super::column::{Carrier, Column, Make};
use super::{drains, failures, first, life, several, stalls, udp};
use crate::peer::Mode;

/// What a scenario finds when it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// A running pair, which other scenarios have used and will use.
    Shared,
    /// Nothing; it starts what it needs.
    Empty,
    /// Nothing, in a network of its own, with the agents' network at the other end of a cable.
    Cable,
}

/// A scenario, while it runs.
type Running<'a> = Pin<Box<dyn Future<Output = anyhow::Result<()>> + 'a>>;

/// A row of the matrix.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// Its name.
    pub key: &'static str,
    /// What it needs.
    pub stage: Stage,
    /// It has failed when it takes longer.
    pub limit: Duration,
    /// Whether it means anything in a column.
    pub applies: fn(Column) -> bool,
    /// What it does.
    pub run: for<'a> fn(&'a mut Cell) -> Running<'a>,
}

macro_rules! scenario {
    ($key:literal, $stage:ident, $limit:literal s, $applies:expr, $run:path) => {
        Scenario {
            key: $key,
            stage: Stage::$stage,
            limit: Duration::from_secs($limit),
            applies: $applies,
            run: |cell| Box::pin($run(cell)),
        }
    };
}

/// Every scenario.
pub const ALL: &[Scenario] = &[
    scenario!("echo", Shared, 30 s, always, first::echo),
    scenario!("bulk", Shared, 120 s, always, first::bulk),
    scenario!("parallel-dials", Shared, 90 s, always, first::parallel_dials),
    scenario!("banner-first", Shared, 60 s, always, first::banner_first),
    scenario!("half-close", Shared, 30 s, can_half_close, first::half_close),
    scenario!("dial-refused", Shared, 30 s, always, failures::refused),
    scenario!("unknown-host", Shared, 30 s, always, failures::unknown_host),
    scenario!("dial-timeout", Shared, 30 s, always, failures::timeout),
    scenario!("client-leaves", Shared, 60 s, always, failures::client_leaves),
    scenario!("target-resets", Shared, 30 s, always, failures::target_resets),
    scenario!("stalled-reader", Empty, 60 s, always, stalls::reader),
    scenario!("stalled-target", Empty, 60 s, always, stalls::target),
    scenario!("first-dial", Empty, 30 s, always, life::first_dial),
    scenario!("agent-killed", Empty, 90 s, always, life::agent_killed),
    scenario!("server-killed", Empty, 90 s, always, life::server_killed),
    scenario!("two-servers", Empty, 120 s, always, several::two_servers),
    scenario!("duplicate-id", Empty, 90 s, always, several::duplicate_id),
    scenario!("mixed-agents", Empty, 90 s, not_the_reference, several::mixed_agents),
    scenario!("drain-agent", Empty, 60 s, always, drains::agent),
    scenario!("drain-server", Empty, 60 s, always, drains::server),
    scenario!("udp-blocked", Cable, 60 s, can_do_without_udp, udp::blocked_from_the_start),
    scenario!("udp-lost", Cable, 150 s, always, udp::lost_and_found),
];

fn always(_: Column) -> bool {
    true
}

/// Packets cannot say it to a client.
fn can_half_close(column: Column) -> bool {
    column.front.mode() == Mode::HttpConnect
}

/// There is an agent of the other make in it, and nothing of ours is to be in the reference's columns.
fn not_the_reference(column: Column) -> bool {
    !column.pairing.is_reference()
}

fn can_do_without_udp(column: Column) -> bool {
    column.pairing.carrier != Carrier::Quic
}

/// Arguments for our programs that let them notice a dead QUIC connection sooner than by default.
pub fn impatient(make: Make) -> &'static [&'static str] {
    match make {
        Make::Ours => &["--quic-idle-timeout=3s", "--quic-keep-alive-interval=1s"],
        Make::Go => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_distinct_words() {
        let mut keys: Vec<_> = ALL.iter().map(|scenario| scenario.key).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), ALL.len());
        assert!(keys.iter().all(|key| key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')));
    }

    #[test]
    fn every_scenario_applies_somewhere() {
        for scenario in ALL {
            assert!(Column::all().any(scenario.applies), "{}", scenario.key);
        }
    }
}
