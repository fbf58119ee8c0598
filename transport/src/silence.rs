//! When a peer that says nothing is gone.
//!
//! QUIC closes a connection after its idle timeout, but waits for three probe timeouts at least (RFC 9000, section 10.1).
//! A program that stood still for a while reads old acknowledgements when it runs again and takes the path for one with such
//! round trips: a probe timeout is then many seconds, and dials whose peer is gone would stay for as long. So we count
//! ourselves, in ticks: a pause of the whole program is one.

use std::time::Duration;

/// What is known of a connection now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    /// Datagrams that have come so far.
    pub(crate) heard: u64,
    /// The shortest round trip so far, which no pause makes longer.
    pub(crate) min_rtt: Duration,
}

/// Decides, once a second, whether the peer is gone.
#[derive(Debug)]
pub(crate) struct Silence {
    limit: Duration,
    keep_alive: Duration,
    heard: u64,
    quiet: u64,
}

impl Silence {
    /// For a connection with this idle timeout and keep-alive interval.
    pub(crate) fn new(idle_timeout: Duration, keep_alive: Duration) -> Self {
        Self { limit: idle_timeout, keep_alive: keep_alive.min(idle_timeout), heard: 0, quiet: 0 }
    }

    /// A second has passed. The idle timeout begins anew with the first question after what was heard last, which
    /// keep-alive asks if nobody else does. A path with long round trips has the time for six of them.
    pub(crate) fn tick(&mut self, seen: Seen) -> bool {
        if seen.heard != self.heard {
            (self.heard, self.quiet) = (seen.heard, 0);
            return false;
        }
        self.quiet += 1;
        Duration::from_secs(self.quiet) > self.keep_alive.saturating_add(self.limit.max(6 * seen.min_rtt))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends_after(idle: u64, keep_alive: u64, min_rtt: Duration) -> u64 {
        let mut silence = Silence::new(Duration::from_secs(idle), Duration::from_secs(keep_alive));
        let seen = Seen { heard: 1, min_rtt };
        assert!(!silence.tick(seen));
        (1..).find(|_| silence.tick(seen)).unwrap()
    }

    #[test]
    fn a_peer_is_gone_a_second_after_the_idle_timeout_that_keep_alive_began() {
        let rtt = Duration::from_millis(50);
        assert_eq!(ends_after(4, 1, rtt), 6);
        assert_eq!(ends_after(30, 10, rtt), 41);
        assert_eq!(ends_after(4, 60, rtt), 9, "there is no keep-alive in time");
    }

    #[test]
    fn a_long_path_has_six_round_trips() {
        assert_eq!(ends_after(4, 1, Duration::from_secs(2)), 14);
    }

    #[test]
    fn whatever_comes_ends_the_silence() {
        let mut silence = Silence::new(Duration::from_secs(4), Duration::from_secs(1));
        for second in 0..100 {
            assert!(!silence.tick(Seen { heard: second / 5, min_rtt: Duration::ZERO }));
        }
    }
}
