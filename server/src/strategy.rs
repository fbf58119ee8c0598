//! Which backend serves a target: the rules, as functions of values. Randomness is an argument; the registry
//! supplies the candidates.

use std::{fmt, str::FromStr};

/// A rule that picks a backend for a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Strategy {
    /// Any agent, at random.
    Default,
    /// The agents that have the target's host among their identifiers.
    DestHost,
    /// Any agent that says it reaches everything, at random.
    DefaultRoute,
    /// The connection with the fewest open dials.
    LeastLoaded,
}

impl Strategy {
    /// Every strategy, in the order of the documentation.
    pub const ALL: [Self; 4] = [Self::Default, Self::DestHost, Self::DefaultRoute, Self::LeastLoaded];

    /// The name in `--proxy-strategies` and in metric labels.
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::DestHost => "destHost",
            Self::DefaultRoute => "defaultRoute",
            Self::LeastLoaded => "leastLoaded",
        }
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A text is not the name of a strategy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown proxy strategy {name:?}; known are default, destHost, defaultRoute and leastLoaded")]
pub struct UnknownStrategy {
    /// What was given.
    pub name: String,
}

impl FromStr for Strategy {
    type Err = UnknownStrategy;

    /// Names are exact: case counts, nothing is trimmed.
    fn from_str(name: &str) -> Result<Self, UnknownStrategy> {
        Self::ALL
            .into_iter()
            .find(|strategy| strategy.name() == name)
            .ok_or_else(|| UnknownStrategy { name: name.to_owned() })
    }
}

/// The host of a dial's `host:port`, as `destHost` looks it up: no DNS, no change of case, no normalising.
///
/// Fewer than two colons: what precedes the first. Otherwise it is an IPv6 address, and only a bracket tells that a
/// port follows (RFC 3986, section 3.2.2). The same as the reference's `RemovePortFromHost`.
pub fn dial_host(address: &str) -> &str {
    let Some((first, rest)) = address.split_once(':') else {
        return address;
    };
    if !rest.contains(':') {
        return first;
    }
    let host = match address.rsplit_once(':') {
        Some((host, _port)) if address.contains('[') => host,
        _ => address,
    };
    host.trim_matches(['[', ']'])
}

/// A connection of an agent, as far as a strategy is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Whether its agent asked for no more dials.
    pub draining: bool,
    /// Dials that it carries now.
    pub open_dials: usize,
}

/// The first candidate that isn't draining, else the first of all: a draining agent still serves what nobody else can.
/// `None` if there are no candidates.
///
/// Candidates come with whatever the caller knows them by, and are asked for one at a time.
pub fn first_ready<T>(candidates: impl IntoIterator<Item = (T, Candidate)>) -> Option<(T, Candidate)> {
    let mut fallback = None;
    for (key, candidate) in candidates {
        if !candidate.draining {
            return Some((key, candidate));
        }
        fallback.get_or_insert((key, candidate));
    }
    fallback
}

/// Every element once, from a random place on, round the end. It spreads the load over a list that [`first_ready`]
/// would otherwise always begin at the front of.
pub fn around<T>(ring: &[T], random: u64) -> impl Iterator<Item = &T> {
    let (front, back) = ring.split_at(place(random, ring.len()));
    back.iter().chain(front)
}

/// The place of the candidate with the fewest open dials among those that aren't draining, else among the draining.
/// Equals are drawn by lot.
pub fn least_loaded(candidates: &[Candidate], random: u64) -> Option<usize> {
    let rank = |candidate: &Candidate| (candidate.draining, candidate.open_dials);
    let least = candidates.iter().map(rank).min()?;
    let equals = || {
        let places = candidates.iter().enumerate();
        places.filter(|(_, candidate)| rank(candidate) == least)
    };
    let lot = place(random, equals().count());
    equals().nth(lot).map(|(place, _)| place)
}

/// A random place among `count`; 0 if there are none. The bias of the remainder is below `count / 2^64`.
fn place(random: u64, count: usize) -> usize {
    // Neither conversion loses anything: usize has at most 64 bits, and the remainder is below `count`.
    (random % (count.max(1) as u64)) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Strategy, *};

    const READY: Candidate = Candidate { draining: false, open_dials: 0 };
    const DRAINING: Candidate = Candidate { draining: true, open_dials: 0 };

    fn ready(open_dials: usize) -> Candidate {
        Candidate { open_dials, ..READY }
    }

    fn draining(open_dials: usize) -> Candidate {
        Candidate { open_dials, ..DRAINING }
    }

    #[test]
    fn names_are_read_back() {
        for strategy in Strategy::ALL {
            assert_eq!(strategy.to_string().parse(), Ok(strategy));
        }
    }

    #[test]
    fn other_names_are_refused_with_those_that_are_known() {
        for name in ["", "Default", "desthost", " default", "default,destHost"] {
            let error = name.parse::<Strategy>().unwrap_err();
            assert_eq!(error.name, name);
            for strategy in Strategy::ALL {
                assert!(error.to_string().contains(strategy.name()), "{error}");
            }
        }
    }

    #[test]
    fn the_host_of_an_address_is_what_the_reference_takes() {
        for (address, host) in [
            ("localhost:8080", "localhost"),
            ("localhost", "localhost"),
            ("Node-1:10250", "Node-1"),
            ("192.168.0.1:8080", "192.168.0.1"),
            ("::", "::"),
            ("9878::7675", "9878::7675"),
            ("9878::7675:1292:9183:7562", "9878::7675:1292:9183:7562"),
            ("[a:b::1]:8080", "a:b::1"),
            ("[alsk:1204:1020::1292]:8080", "alsk:1204:1020::1292"),
            ("[fe80::1%eth0]:80", "fe80::1%eth0"),
            // A quirk of the reference: the port is cut where the last colon is, port or not.
            ("[::1]", ":"),
            (" www.kubernetes.test:8080", " www.kubernetes.test"),
            (":80", ""),
            ("", ""),
        ] {
            assert_eq!(dial_host(address), host, "{address:?}");
        }
    }

    #[test]
    fn the_first_that_is_not_draining_is_picked() {
        let first =
            |candidates: &[Candidate]| first_ready(candidates.iter().copied().enumerate()).map(|(place, _)| place);
        assert_eq!(first(&[]), None);
        assert_eq!(first(&[READY, READY]), Some(0));
        assert_eq!(first(&[DRAINING, READY, READY]), Some(1));
        assert_eq!(first(&[DRAINING, DRAINING]), Some(0));
    }

    #[test]
    fn candidates_behind_the_picked_one_are_not_examined() {
        let mut examined = 0;
        let candidates = std::iter::repeat_with(|| {
            examined += 1;
            ((), READY)
        });
        first_ready(candidates);
        assert_eq!(examined, 1);
    }

    #[test]
    fn a_walk_around_sees_everything_once_from_any_place() {
        let walk = |random| around(&['a', 'b', 'c'], random).collect::<String>();
        assert_eq!(walk(0), "abc");
        assert_eq!(walk(1), "bca");
        assert_eq!(walk(2), "cab");
        assert_eq!(walk(3), "abc");
        assert_eq!(around::<char>(&[], 7).next(), None);
    }

    #[test]
    fn the_least_loaded_is_picked_and_a_draining_one_last() {
        assert_eq!(least_loaded(&[], 3), None);
        assert_eq!(least_loaded(&[ready(2), ready(1), ready(3)], 9), Some(1));
        assert_eq!(least_loaded(&[draining(0), ready(9)], 4), Some(1));
        assert_eq!(least_loaded(&[draining(5), draining(4)], 4), Some(1));
    }

    #[test]
    fn equals_are_drawn_by_lot() {
        let candidates = [ready(1), ready(2), ready(1), draining(1), ready(1)];
        let picked = [0, 1, 2, 3].map(|random| least_loaded(&candidates, random));
        assert_eq!(picked, [Some(0), Some(2), Some(4), Some(0)]);
    }

    proptest! {
        #[test]
        fn the_least_loaded_has_no_better(
            loads in proptest::collection::vec((any::<bool>(), 0_usize..4), 1..20),
            random: u64,
        ) {
            let candidates: Vec<_> = loads
                .iter()
                .map(|&(draining, open_dials)| Candidate { draining, open_dials })
                .collect();
            let picked = loads[least_loaded(&candidates, random).unwrap()];
            prop_assert!(loads.iter().all(|&other| picked <= other));
        }

        #[test]
        fn the_host_is_a_part_of_the_address(address: String) {
            prop_assert!(address.contains(dial_host(&address)));
        }
    }
}
