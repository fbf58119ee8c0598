//! How much memory this process may have, and what defaults become when that is little.
//!
//! A container that goes beyond its limit is killed, with every dial it carries. So the defaults that bound memory follow
//! the limit of the control group (cgroups(7)). Whatever somebody has set counts as it is.

mod cgroup;

use std::path::Path;

use konnectivity_transport::settings::QuicSettings;

use crate::{byte_size::ByteSize, problems::Effective, quic::LEAST_BYTES};

/// What part of the limit each default is. Measured in an agent with 200 dials that carry traffic, beside which 30 stall at
/// once: some 10 MiB are what it needs without stalls, and a byte that nobody reads takes up to three, because dials share
/// the buffers of received packets. With these parts, all of it stays below 30 MiB.
const STREAM_PART: u64 = 60;
const CONNECTION_PART: u64 = 30;
const BUDGET_PART: u64 = 12;
const SEND_PART: u64 = 12;
/// The kernel's buffers of a target's socket, in one direction. They count for the limit, too.
const SOCKET_PART: u64 = 120;

/// Above this the kernel is not told: it starts with less, and Linux goes no further by itself (tcp(7), tcp_wmem).
const MOST_SOCKET_BYTES: u64 = 4 * 1024 * 1024;

/// The memory that a process has to get by with, if anything limits it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryLimit(Option<u64>);

impl MemoryLimit {
    /// What the control groups of this process allow; no limit where they cannot be read.
    pub fn of_this_process() -> Self {
        Self(cgroup::limit(Path::new("/proc/self/cgroup"), Path::new("/sys/fs/cgroup")))
    }

    /// A limit of so many bytes.
    pub fn bytes(bytes: u64) -> Self {
        Self(Some(bytes))
    }

    /// Lowers the defaults of QUIC to what fits, in `settings` and in what is logged of them. What somebody has set stays.
    /// Returns what to log.
    pub fn fit(self, settings: &mut QuicSettings, effective: &mut Effective) -> Option<String> {
        let limit = self.0?;
        let mut fit = |setting: &str, value: u64, part: u64, least: u64| {
            if effective.is_set(setting) || value <= (limit / part).max(least) {
                return value;
            }
            let lower = (limit / part).max(least);
            effective.set(setting, ByteSize(lower).to_string(), effective.origin(setting));
            lower
        };
        let stream = fit("quic-stream-receive-window", settings.stream_receive_window, STREAM_PART, LEAST_BYTES);
        let connection = settings.connection_receive_window;
        // A stream's window has room in both.
        let connection = fit("quic-connection-receive-window", connection, CONNECTION_PART, stream);
        let budget = fit("quic-memory-budget", settings.memory_budget, BUDGET_PART, stream);
        let most_unacknowledged = usize::try_from(limit / SEND_PART).unwrap_or(usize::MAX);
        let lowered = QuicSettings {
            stream_receive_window: stream,
            connection_receive_window: connection,
            memory_budget: budget,
            most_unacknowledged: settings.most_unacknowledged.min(most_unacknowledged),
            ..settings.clone()
        };
        if lowered == *settings {
            return None;
        }
        *settings = lowered;
        Some(format!(
            "this process may have {} of memory: defaults are lowered to quic-stream-receive-window {}, \
             quic-connection-receive-window {} and quic-memory-budget {}; with a higher limit, dials are faster and more of \
             them may stall",
            ByteSize(limit),
            ByteSize(stream),
            ByteSize(connection),
            ByteSize(budget),
        ))
    }

    /// What the kernel should hold for a target's socket, in one direction; `None`: what it thinks best.
    pub fn socket_bytes(self) -> Option<u32> {
        let bytes = (self.0? / SOCKET_PART).max(LEAST_BYTES);
        u32::try_from(bytes).ok().filter(|_| bytes < MOST_SOCKET_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problems::Origin;

    const MIB: u64 = 1 << 20;

    fn fit(limit: MemoryLimit, set: &[(&str, u64)]) -> (QuicSettings, Effective, Option<String>) {
        let (mut settings, mut effective) = (QuicSettings::default(), Effective::default());
        for (setting, bytes) in set {
            effective.set(setting, ByteSize(*bytes).to_string(), Origin::Flag);
        }
        let told = limit.fit(&mut settings, &mut effective);
        (settings, effective, told)
    }

    #[test]
    fn thirty_mebibytes_lower_every_bound() {
        let (settings, effective, told) = fit(MemoryLimit::bytes(30 * MIB), &[]);
        let expected = QuicSettings {
            stream_receive_window: MIB / 2,
            connection_receive_window: MIB,
            memory_budget: 5 * MIB / 2,
            most_unacknowledged: 5 * 512 * 1024,
            ..QuicSettings::default()
        };
        assert_eq!(settings, expected);
        assert_eq!(effective.value("quic-memory-budget"), Some("2560KiB"), "the log shows what counts");
        assert!(!effective.is_set("quic-memory-budget"));
        let told = told.unwrap();
        assert!(
            told.starts_with("this process may have 30MiB of memory: ") && told.contains("budget 2560KiB;"),
            "{told}"
        );
        assert_eq!(MemoryLimit::bytes(30 * MIB).socket_bytes(), Some(256 * 1024));
    }

    #[test]
    fn what_was_set_stays() {
        let all = ["quic-stream-receive-window", "quic-connection-receive-window", "quic-memory-budget"];
        let set = all.map(|setting| (setting, 5 * MIB));
        let (settings, effective, _) = fit(MemoryLimit::bytes(30 * MIB), &set);
        let expected = QuicSettings { most_unacknowledged: settings.most_unacknowledged, ..QuicSettings::default() };
        assert_eq!(settings, expected, "the options of this test have their defaults");
        assert!(all.iter().all(|setting| effective.value(setting) == Some("5MiB")));
    }

    #[test]
    fn a_stream_window_that_was_set_has_room_in_the_others() {
        let (settings, ..) = fit(MemoryLimit::bytes(24 * MIB), &[("quic-stream-receive-window", 0)]);
        let stream = QuicSettings::default().stream_receive_window;
        assert_eq!(settings.stream_receive_window, stream);
        assert_eq!((settings.connection_receive_window, settings.memory_budget), (stream, stream));
    }

    #[test]
    fn little_and_plenty() {
        let (settings, ..) = fit(MemoryLimit::bytes(1), &[]);
        assert_eq!(settings.stream_receive_window, LEAST_BYTES);
        assert_eq!((settings.connection_receive_window, settings.memory_budget), (LEAST_BYTES, LEAST_BYTES));
        assert_eq!(MemoryLimit::bytes(1).socket_bytes(), Some(64 * 1024));
        for plenty in [MemoryLimit::default(), MemoryLimit::bytes(6144 * MIB), MemoryLimit::bytes(u64::MAX)] {
            let (settings, effective, told) = fit(plenty, &[]);
            assert_eq!((settings, effective, told), (QuicSettings::default(), Effective::default(), None));
            assert_eq!(plenty.socket_bytes(), None);
        }
    }
}
