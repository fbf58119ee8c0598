//! Links that people have, by name.
//!
//! The figures are round ones of the right size, not measurements of one provider; where they come from stands beside
//! each.

use std::time::Duration;

use super::conditions::{Conditions, Gate, Jitter, Loss, Queue};
use super::course::Course;
use super::profile::Profile;

mod table;

pub use self::table::table;

const MBIT: u64 = 1_000_000;
/// A loss that cable and fibre never quite get rid of.
const RARE: Loss = Loss::Random(0.0001);

/// A link that has a name.
#[derive(Debug, Clone, Copy)]
pub struct Named {
    /// How it is called.
    pub name: &'static str,
    /// What it is like, in a few words.
    pub about: &'static str,
    make: fn() -> [Course; 2],
}

/// All of them.
pub const ALL: [Named; 14] = [
    Named { name: "lan", about: "a share of an office network; a tunnel must not be in its way", make: lan },
    Named { name: "dsl", about: "VDSL with PPPoE", make: dsl },
    Named { name: "lte", about: "a good mobile network, the rate follows the cell's load", make: lte },
    Named { name: "lte-bad", about: "the edge of a cell, with handovers of 0.3 s every 15 s", make: lte_bad },
    Named { name: "wifi-bad", about: "two walls away from the access point", make: wifi_bad },
    Named {
        name: "transatlantic-lossy",
        about: "a long path with a bad peering and several routes",
        make: transatlantic,
    },
    Named { name: "geo-satellite", about: "a satellite that stands still, 35,786 km away", make: geo_satellite },
    Named { name: "leo-satellite", about: "satellites that take turns every 15 s, 550 km away", make: leo_satellite },
    Named { name: "edge-50ms-0", about: "an edge site on a path without fault", make: || twice(edge(50, 0.0)) },
    Named {
        name: "edge-50ms-1",
        about: "an edge site on a path that loses packets without being full",
        make: || twice(edge(50, 0.01)),
    },
    Named { name: "edge-100ms-3", about: "the same, further away and worse", make: || twice(edge(100, 0.03)) },
    Named { name: "edge-100ms-5", about: "the same, at its worst", make: || twice(edge(100, 0.05)) },
    Named {
        name: "edge-50ms-reordering",
        about: "an edge site on several routes at once",
        make: || twice(Conditions { jitter: Jitter::Reordering(ms(5)), ..edge(50, 0.0) }),
    },
    Named {
        name: "bufferbloat",
        about: "a router that would rather delay than drop: 0.8 s of queue",
        make: bufferbloat,
    },
];

impl Profile {
    /// The link of that name.
    pub fn named(name: &str) -> Option<Self> {
        ALL.iter().find(|link| link.name == name).map(Named::profile)
    }
}

impl Named {
    /// It.
    pub fn profile(&self) -> Profile {
        let [up, down] = (self.make)();
        Profile::new(self.name, up, down)
    }
}

/// 100 Mbit/s both ways, this round trip in milliseconds, a queue of one round trip's bytes, this loss by chance in
/// each direction before the bottleneck: packets are lost although the link is not full, and take none of its time.
pub fn edge(round_trip_ms: u64, loss: f64) -> Conditions {
    let round_trip = Duration::from_millis(round_trip_ms);
    let loss_before = if loss > 0.0 { Loss::Random(loss) } else { Loss::None };
    Conditions { loss_before, queue: Queue::Time(round_trip), ..Conditions::clean(100 * MBIT, round_trip / 2) }
}

// ---- the links, each as up and down ----

/// A site's share of an office network: more than this is for the benchmark over loopback, where no emulator takes part
/// of the machine. Half a millisecond is some switches and a firewall; 512 KB is what a switch has for a port.
fn lan() -> [Course; 2] {
    let link = Conditions::clean(200 * MBIT, Duration::from_micros(250));
    twice(Conditions { queue: Queue::Bytes(512_000), ..link })
}

/// VDSL2 as commonly sold; interleaving adds some ms; PPPoE takes 8 bytes of each packet (RFC 2516).
fn dsl() -> [Course; 2] {
    let link = |rate, queue| Conditions {
        jitter: Jitter::InOrder(ms(1)),
        loss_before: RARE,
        queue: Queue::Time(ms(queue)),
        mtu: 1492,
        ..Conditions::clean(rate, ms(10))
    };
    [link(10 * MBIT, 150), link(50 * MBIT, 60)].map(Course::constant)
}

/// Radio hides loss behind retransmissions of its own, which makes delay vary instead; the base station has a deep
/// queue for each user.
fn lte() -> [Course; 2] {
    let link = |rate| Conditions {
        jitter: Jitter::InOrder(ms(8)),
        loss_after: Loss::Random(0.0005),
        queue: Queue::Time(ms(300)),
        ..Conditions::clean(rate, ms(25))
    };
    [15 * MBIT, 40 * MBIT].map(|rate| varying(link(rate), ms(1000), &[100, 120, 80, 60, 90, 130, 110, 70]))
}

/// At the edge of a cell the rate swings fast, retransmissions run out (bursts), and a handover interrupts all.
fn lte_bad() -> [Course; 2] {
    let link = |rate| Conditions {
        jitter: Jitter::InOrder(ms(25)),
        loss_after: Loss::bursts(0.01, 4.0),
        queue: Queue::Time(ms(600)),
        ..Conditions::clean(rate, ms(50))
    };
    [MBIT, 4 * MBIT].map(|rate| {
        let link = link(rate);
        let steps = [100, 150, 60, 40, 120, 80, 50, 130, 90, 70, 140, 110, 60, 45];
        let handover = Conditions { gate: Gate::Held, ..link };
        steps
            .iter()
            .zip(1..)
            .fold(Course::constant(link), |course, (percent, second)| {
                course.then(ms(1000) * second, scaled(link, *percent))
            })
            .then(ms(14_700), handover)
            .repeated_after(ms(15_000))
    })
}

/// The rate adapts to the signal; interference takes whole aggregates of packets after all retries.
fn wifi_bad() -> [Course; 2] {
    let link = Conditions {
        jitter: Jitter::InOrder(ms(10)),
        loss_after: Loss::bursts(0.03, 5.0),
        queue: Queue::Time(ms(200)),
        ..Conditions::clean(20 * MBIT, ms(15))
    };
    let course = varying(link, ms(500), &[100, 60, 140, 40, 120, 80, 150, 50]);
    [course.clone(), course]
}

/// London to New York and back takes 70 to 80 ms of fibre; several routes of nearly the same length reorder a little.
fn transatlantic() -> [Course; 2] {
    twice(Conditions {
        jitter: Jitter::Reordering(Duration::from_micros(250)),
        loss_before: Loss::Random(0.005),
        queue: Queue::Time(ms(90)),
        ..Conditions::clean(100 * MBIT, ms(45))
    })
}

/// Light takes 240 ms up and down again, coding and access to the shared way up the rest.
fn geo_satellite() -> [Course; 2] {
    let link = |rate, spread| Conditions {
        jitter: Jitter::InOrder(ms(spread)),
        loss_after: Loss::Random(0.001),
        queue: Queue::Time(ms(500)),
        ..Conditions::clean(rate, ms(300))
    };
    [link(3 * MBIT, 15), link(20 * MBIT, 5)].map(Course::constant)
}

/// Every 15 s all terminals are given satellites anew: rate and delay jump, and nothing flows for some tens of ms.
fn leo_satellite() -> [Course; 2] {
    let link = |rate, delay| Conditions {
        jitter: Jitter::InOrder(ms(6)),
        loss_after: Loss::bursts(0.005, 3.0),
        queue: Queue::Time(ms(150)),
        ..Conditions::clean(rate, ms(delay))
    };
    [15 * MBIT, 150 * MBIT].map(|rate| {
        let turns = [(100, 20), (70, 26), (120, 17), (90, 30)];
        let (_, first_delay) = turns[0];
        let mut course = Course::constant(link(rate, first_delay));
        for (index, (percent, delay)) in (0..).zip(turns) {
            let here = scaled(link(rate, delay), percent);
            if index > 0 {
                course = course.then(ms(15_000) * index, here);
            }
            course = course.then(ms(15_000) * (index + 1) - ms(60), Conditions { gate: Gate::Held, ..here });
        }
        course.repeated_after(ms(60_000))
    })
}

fn bufferbloat() -> [Course; 2] {
    twice(Conditions { queue: Queue::Bytes(2_000_000), ..Conditions::clean(20 * MBIT, ms(25)) })
}

// ---- what they are made of ----

const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn twice(conditions: Conditions) -> [Course; 2] {
    [Course::constant(conditions), Course::constant(conditions)]
}

fn scaled(conditions: Conditions, percent: u64) -> Conditions {
    Conditions { rate: conditions.rate.map(|rate| rate * percent / 100), ..conditions }
}

/// The rate changes with each step, and it all begins again.
fn varying(conditions: Conditions, step: Duration, percents: &[u64]) -> Course {
    let mut course = Course::constant(scaled(conditions, percents[0]));
    let mut from = step;
    for percent in &percents[1..] {
        course = course.then(from, scaled(conditions, *percent));
        from += step;
    }
    course.repeated_after(from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::profile::Direction;

    #[test]
    fn every_named_link_is_possible_and_slow_enough_for_the_emulator() {
        for link in ALL {
            let profile = link.profile();
            profile.check().unwrap_or_else(|error| panic!("{}: {error}", link.name));
            assert_eq!(Profile::named(link.name), Some(profile));
        }
        assert_eq!(Profile::named("perfect"), None);
    }

    #[test]
    fn the_edges_are_what_the_goals_are_for() {
        for (name, delay, loss) in [("edge-50ms-1", 25, 0.01), ("edge-100ms-3", 50, 0.03), ("edge-100ms-5", 50, 0.05)] {
            let profile = Profile::named(name).unwrap();
            for direction in Direction::BOTH {
                let conditions = profile.course(direction).first();
                assert_eq!((conditions.rate, conditions.delay), (Some(100 * MBIT), ms(delay)));
                assert_eq!((conditions.loss_before, conditions.loss_after), (Loss::Random(loss), Loss::None));
                assert_eq!(conditions.queue_bytes() as u64, 2 * delay * 12_500);
            }
        }
        assert_eq!(edge(50, 0.0).mean_loss(), 0.0);
        assert_eq!(Profile::named("bufferbloat").unwrap().up.first().queue_bytes(), 2_000_000);
    }

    #[test]
    fn a_handover_holds_packets_in_both_directions_again_and_again() {
        let profile = Profile::named("lte-bad").unwrap();
        for (time, gate) in [(14_600, Gate::Open), (14_800, Gate::Held), (15_000, Gate::Open), (29_800, Gate::Held)] {
            assert_eq!(profile.up.at(ms(time)).conditions.gate, gate, "{time}");
            assert_eq!(profile.down.at(ms(time)).conditions.gate, gate, "{time}");
        }
        let leo = Profile::named("leo-satellite").unwrap();
        assert_eq!(leo.down.at(ms(14_950)).conditions.gate, Gate::Held);
        assert_eq!(leo.down.at(ms(15_000)).conditions.rate, Some(105 * MBIT));
        assert_eq!(leo.down.at(ms(75_000)).conditions.delay, ms(26));
    }
}
