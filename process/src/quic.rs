//! The settings of QUIC: the same in both programs, in the file's table `[quic]`.

use std::ops::RangeInclusive;

use clap::{ArgAction, Args};
use konnectivity_transport::{congestion::CongestionControl, settings::QuicSettings};
use serde::{Deserialize, Serialize};

use crate::{byte_size::ByteSize, check, duration::GoDuration, flag, problems::Problems};

/// More than any of the windows and buffers can use, and small enough for sums of them: 1 TiB.
const MOST_BYTES: u64 = 1 << 40;
/// Half of what the kernel can double and still count in 31 bits (socket(7), SO_RCVBUF).
const MOST_BUFFER_BYTES: u64 = 1 << 30;
/// Windows and buffers must hold what one read takes from a socket.
pub(crate) const LEAST_BYTES: u64 = 64 * 1024;
/// QUIC allows 2^60 streams; a million dials of one agent are more than it has ports.
const MOST_DIALS: i64 = 1_000_000;
/// UDP payloads from what every QUIC path must carry (RFC 9000, section 14) to what a peer can say it takes
/// (section 18.2).
const UDP_PAYLOADS: RangeInclusive<i64> = 1_200..=65_527;

/// How QUIC connections behave; as typed. The defaults, and their reasons, are those of [`QuicSettings`].
#[derive(Debug, Clone, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[command(next_help_heading = "QUIC")]
pub struct QuicOptions {
    /// A packet is sent when nothing else was for this long, so that the peer and every NAT between keep the connection
    #[arg(long = "quic-keep-alive-interval", value_name = "DURATION")]
    #[arg(default_value_t = defaults().keep_alive_interval.into())]
    pub keep_alive_interval: GoDuration,

    /// A connection on which nothing was heard for this long is dead. The smaller value of both ends counts
    #[arg(long = "quic-idle-timeout", value_name = "DURATION")]
    #[arg(default_value_t = defaults().idle_timeout.into())]
    pub idle_timeout: GoDuration,

    /// Bytes of one dial that may wait unread at the end that receives them. A higher value is faster on long fat paths
    #[arg(long = "quic-stream-receive-window", value_name = "BYTES")]
    #[arg(default_value_t = ByteSize(defaults().stream_receive_window))]
    pub stream_receive_window: ByteSize,

    /// Bytes of one connection that may wait unread at first; it grows as the path needs, and each stalled dial raises it by
    /// its own window
    #[arg(long = "quic-connection-receive-window", value_name = "BYTES")]
    #[arg(default_value_t = ByteSize(defaults().connection_receive_window))]
    pub connection_receive_window: ByteSize,

    /// Bytes by which all connections together may raise their windows. When it is spent, the dial
    /// that is stalled for longest is ended with an error. By default it is at most a 12th of the memory that the
    /// process may have, and the windows are a 60th and a 30th
    #[arg(long = "quic-memory-budget", value_name = "BYTES")]
    #[arg(default_value_t = ByteSize(defaults().memory_budget))]
    pub memory_budget: ByteSize,

    /// Dials that an agent accepts at once on one connection. Without effect on a server
    #[arg(long = "quic-max-dials", value_name = "NUMBER", value_parser = flag::integer)]
    #[arg(default_value_t = defaults().max_dials.into())]
    pub max_dials: i64,

    /// Bytes asked for each buffer of the UDP socket. What the kernel grants (net.core.rmem_max, wmem_max) is logged
    #[arg(long = "quic-udp-buffer-bytes", value_name = "BYTES")]
    #[arg(default_value_t = ByteSize(defaults().udp_buffer_bytes as u64))]
    pub udp_buffer_bytes: ByteSize,

    /// Whether the kernel may cut one large send into datagrams. It turns itself off where a network card cannot
    #[arg(long = "quic-segmentation-offload", value_name = "BOOL", value_parser = flag::boolean)]
    #[arg(action = ArgAction::Set, default_value_t = defaults().segmentation_offload)]
    pub segmentation_offload: bool,

    /// Most bytes of UDP payload that path MTU discovery may reach; the route's own MTU bounds it further
    #[arg(long = "quic-max-udp-payload", value_name = "BYTES", value_parser = flag::integer)]
    #[arg(default_value_t = defaults().max_udp_payload.into())]
    pub max_udp_payload: i64,

    /// How fast this end sends, also --congestion-control: model, which uses links that lose packets and keeps
    /// queues short; or the library's: cubic, newreno, or bbr, which is experimental
    #[arg(long = "quic-congestion-control", alias = "congestion-control", value_name = "NAME")]
    #[arg(default_value_t = defaults().congestion_control.to_string())]
    pub congestion_control: String,
}

fn defaults() -> QuicSettings {
    QuicSettings::default()
}

impl QuicOptions {
    /// What they mean. What is wrong goes to `problems`, and then the default stands for it.
    pub fn settings(&self, problems: &mut Problems) -> QuicSettings {
        let mut settings = defaults();
        if let Some(duration) = check::positive_duration(problems, "quic-keep-alive-interval", self.keep_alive_interval)
        {
            settings.keep_alive_interval = duration;
        }
        if let Some(duration) = check::positive_duration(problems, "quic-idle-timeout", self.idle_timeout) {
            settings.idle_timeout = duration;
        }
        if settings.keep_alive_interval >= settings.idle_timeout {
            let reason = format!("is not below quic-idle-timeout, {}", GoDuration::from(settings.idle_timeout));
            problems.add(
                "quic-keep-alive-interval",
                reason,
                "set it to a third of the idle timeout, as the defaults are",
            );
        }
        self.windows(&mut settings, problems);
        if let Some(dials) = check::number(problems, "quic-max-dials", self.max_dials, 1..=MOST_DIALS) {
            settings.max_dials = dials;
        }
        if let Some(bytes) = check::number(problems, "quic-max-udp-payload", self.max_udp_payload, UDP_PAYLOADS) {
            settings.max_udp_payload = bytes;
        }
        match self.congestion_control.parse::<CongestionControl>() {
            Ok(control) => settings.congestion_control = control,
            Err(_) => problems.add(
                "quic-congestion-control",
                "is not a congestion control",
                "set it to model, cubic, newreno or bbr",
            ),
        }
        settings.segmentation_offload = self.segmentation_offload;
        settings
    }

    fn windows(&self, settings: &mut QuicSettings, problems: &mut Problems) {
        let stream = size(problems, "quic-stream-receive-window", self.stream_receive_window, MOST_BYTES);
        let connection = size(problems, "quic-connection-receive-window", self.connection_receive_window, MOST_BYTES);
        let budget = size(problems, "quic-memory-budget", self.memory_budget, MOST_BYTES);
        let buffer = size(problems, "quic-udp-buffer-bytes", self.udp_buffer_bytes, MOST_BUFFER_BYTES);
        if let (Some(stream), Some(connection), Some(budget)) = (stream, connection, budget) {
            for (setting, bytes) in [("quic-connection-receive-window", connection), ("quic-memory-budget", budget)] {
                if bytes < stream {
                    let reason = format!("is below quic-stream-receive-window, {}", ByteSize(stream));
                    problems.add(setting, reason, "set it to several times that, or lower the stream's window");
                }
            }
            settings.stream_receive_window = stream;
            settings.connection_receive_window = connection;
            settings.memory_budget = budget;
        }
        if let Some(buffer) = buffer {
            settings.udp_buffer_bytes = usize::try_from(buffer).unwrap_or(usize::MAX);
        }
    }
}

/// The bytes when they are in a range that all sizes begin and most of them end.
fn size(problems: &mut Problems, setting: &str, size: ByteSize, most: u64) -> Option<u64> {
    if (LEAST_BYTES..=most).contains(&size.0) {
        return Some(size.0);
    }
    let remedy = format!("set it to {} up to {}", ByteSize(LEAST_BYTES), ByteSize(most));
    problems.add(setting, "is out of range", remedy);
    None
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches;

    use super::*;

    fn check(flags: &[&str]) -> (QuicSettings, Vec<String>) {
        let command = QuicOptions::augment_args(clap::Command::new("test"));
        let matches = command.get_matches_from(std::iter::once(&"test").chain(flags));
        let mut problems = Problems::default();
        let settings = QuicOptions::from_arg_matches(&matches).unwrap().settings(&mut problems);
        (settings, problems.found().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn defaults_are_those_of_the_transport() {
        assert_eq!(check(&[]), (QuicSettings::default(), Vec::new()));
    }

    #[test]
    fn every_flag_counts() {
        let (settings, problems) = check(&[
            "--quic-keep-alive-interval=1s",
            "--quic-idle-timeout=2s",
            "--quic-stream-receive-window=64KiB",
            "--quic-connection-receive-window=131072",
            "--quic-memory-budget=1GiB",
            "--quic-max-dials=7",
            "--quic-udp-buffer-bytes=1MiB",
            "--quic-segmentation-offload=false",
            "--quic-max-udp-payload=1200",
            "--quic-congestion-control=model",
        ]);
        let expected = QuicSettings {
            keep_alive_interval: std::time::Duration::from_secs(1),
            idle_timeout: std::time::Duration::from_secs(2),
            stream_receive_window: 65_536,
            connection_receive_window: 131_072,
            memory_budget: 1 << 30,
            most_unacknowledged: QuicSettings::default().most_unacknowledged,
            max_dials: 7,
            udp_buffer_bytes: 1 << 20,
            segmentation_offload: false,
            max_udp_payload: 1200,
            congestion_control: CongestionControl::Model,
        };
        assert_eq!((settings, problems), (expected, Vec::new()));
    }

    #[test]
    fn congestion_control_has_a_short_name_too() {
        for control in CongestionControl::ALL {
            let (settings, problems) = check(&[&format!("--congestion-control={control}")]);
            assert_eq!((settings.congestion_control, problems), (control, Vec::new()));
        }
    }

    #[test]
    fn each_problem() {
        for (flag, expected) in [
            ("--quic-keep-alive-interval=0", "quic keep alive interval 0s must be greater than 0"),
            ("--quic-keep-alive-interval=30s", "is not below quic-idle-timeout, 30s"),
            ("--quic-idle-timeout=-1s", "quic idle timeout -1s must be greater than 0"),
            ("--quic-stream-receive-window=1", "is out of range; set it to 64KiB up to 1TiB"),
            ("--quic-connection-receive-window=2TiB", "is out of range; set it to 64KiB up to 1TiB"),
            ("--quic-connection-receive-window=1MiB", "is below quic-stream-receive-window, 5MiB"),
            ("--quic-memory-budget=1MiB", "is below quic-stream-receive-window, 5MiB"),
            ("--quic-memory-budget=0", "is out of range; set it to 64KiB up to 1TiB"),
            ("--quic-max-dials=0", "is out of range; set it to 1 up to 1000000"),
            ("--quic-max-dials=1000001", "is out of range; set it to 1 up to 1000000"),
            ("--quic-udp-buffer-bytes=2GiB", "is out of range; set it to 64KiB up to 1GiB"),
            ("--quic-max-udp-payload=1199", "is out of range; set it to 1200 up to 65527"),
            ("--quic-max-udp-payload=65528", "is out of range; set it to 1200 up to 65527"),
            ("--quic-congestion-control=reno", "is not a congestion control; set it to model, cubic, newreno or bbr"),
        ] {
            let (_, problems) = check(&[flag]);
            assert_eq!(problems.len(), 1, "{flag}: {problems:?}");
            let setting = flag.split_once('=').unwrap().0.trim_start_matches("--");
            assert!(problems[0].starts_with(setting) && problems[0].contains(expected), "{flag}: {problems:?}");
        }
    }
}
