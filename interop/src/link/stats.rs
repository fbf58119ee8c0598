//! What a link has done, for reports.

use std::fmt;
use std::time::Duration;

use super::path::Counters;
use super::profile::Direction;
use super::pump::Around;
use super::spread::Spread;

/// What a link has done since it began.
#[derive(Debug, Clone)]
pub struct Stats {
    /// From the site to the cloud.
    pub up: OneWay,
    /// From the cloud to the site.
    pub down: OneWay,
    /// For how long it has run.
    pub elapsed: Duration,
    /// CPU time of the emulator's thread. The receiving kernel's work on each packet is in it, up to the receiver's
    /// socket.
    pub cpu: Duration,
    /// Whether the thread goes before all normal ones.
    pub is_real_time: bool,
}

/// What one direction has done.
#[derive(Debug, Clone)]
pub struct OneWay {
    /// What happened on the path.
    pub path: Counters,
    /// What happened before and behind it.
    pub around: Around,
    /// Packets that the sending kernel dropped because the emulator did not fetch them in time; none is the only good
    /// number.
    pub kernel_drops: u64,
}

impl Stats {
    /// One of the two.
    pub fn one_way(&self, direction: Direction) -> &OneWay {
        match direction {
            Direction::Up => &self.up,
            Direction::Down => &self.down,
        }
    }

    /// Part of one core that the emulator used, 0 to 1.
    pub fn cpu_share(&self) -> f64 {
        self.cpu.as_secs_f64() / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// What was not as asked for, in words; empty if all was well. Chance is allowed four standard deviations here:
    /// this is looked at after every run, and 3 would cry wolf once in 370 times.
    pub fn doubts(&self) -> Vec<String> {
        const DEVIATIONS: f64 = 4.0;
        const LATE: Duration = Duration::from_millis(1);
        let mut doubts = Vec::new();
        for direction in Direction::BOTH {
            let OneWay { path, around, kernel_drops } = self.one_way(direction);
            let name = direction.name();
            for (place, expected, lost) in [
                ("before the queue", path.expected_before, path.dropped.before),
                ("on the air", path.expected_after, path.dropped.after),
            ] {
                if expected.deviations(lost).abs() > DEVIATIONS {
                    doubts.push(format!("{name}: {lost} packets lost {place}, but {:.1} asked for", expected.lost));
                }
            }
            if around.lateness.percentile(0.99) > LATE {
                let p99 = around.lateness.percentile(0.99);
                doubts.push(format!("{name}: 1 in 100 packets came {p99:.1?} late or more: the machine was busy"));
            }
            if *kernel_drops + path.dropped.crowded > 0 {
                let count = *kernel_drops + path.dropped.crowded;
                doubts.push(format!("{name}: {count} packets were too many for the emulator"));
            }
        }
        if self.cpu_share() > 0.8 {
            doubts.push(format!("the emulator was busy for {:.0} % of the time", self.cpu_share() * 100.0));
        }
        doubts
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for direction in Direction::BOTH {
            writeln!(f, "{:<4}  {}", direction.name(), self.one_way(direction).in_words(self.elapsed))?;
        }
        let priority = if self.is_real_time { "real-time" } else { "normal" };
        let (share, seconds) = (self.cpu_share() * 100.0, self.elapsed.as_secs_f64());
        writeln!(f, "emulator: {share:.1} % of one core in {seconds:.1} s, {priority} priority")?;
        match self.doubts() {
            doubts if doubts.is_empty() => write!(f, "check: the link did what was asked for"),
            doubts => write!(f, "check: DOUBTFUL\n  {}", doubts.join("\n  ")),
        }
    }
}

impl OneWay {
    fn in_words(&self, elapsed: Duration) -> String {
        let Self { path, around, kernel_drops } = self;
        let mbits = path.delivered_bytes as f64 * 8e-6 / elapsed.as_secs_f64().max(1e-9);
        let busy = 100.0 * path.busy.as_secs_f64() / elapsed.as_secs_f64().max(1e-9);
        let drops: Vec<_> = [
            ("by chance before the queue", path.dropped.before),
            ("by a full queue", path.dropped.queue_full),
            ("by chance on the air", path.dropped.after),
            ("in outages", path.dropped.outage),
            ("as too long", path.dropped.too_long),
            ("as UDP blocked", around.blocked),
            ("as unknown to the NAT", around.unmapped),
            ("by the emulator, overloaded", path.dropped.crowded + kernel_drops),
            ("by the receiving kernel", around.refused),
        ]
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(cause, count)| format!("{count} {cause}"))
        .collect();
        let mut text = format!(
            "{} packets in, {} out ({mbits:.2} Mbit/s, bottleneck busy {busy:.0} %)",
            path.offered, path.delivered
        );
        if !drops.is_empty() {
            text += &format!("\n      dropped: {}", drops.join(", "));
        }
        let expected = path.expected_before.lost + path.expected_after.lost;
        if expected > 0.0 {
            let deviations = |expected: super::path::Expected, lost| format!("{:+.1}σ", expected.deviations(lost));
            text += &format!(
                "\n      chance: {} lost, {expected:.1} asked for ({} before, {} on the air)",
                path.dropped.before + path.dropped.after,
                deviations(path.expected_before, path.dropped.before),
                deviations(path.expected_after, path.dropped.after),
            );
        }
        if path.duplicated + path.corrupted + path.overtaking > 0 {
            let (copies, turned, overtaking) = (path.duplicated, path.corrupted, path.overtaking);
            text += &format!("\n      {copies} duplicated, {turned} corrupted, {overtaking} overtook another");
        }
        text += &format!("\n      waited in the queue: {}", spread(&path.queue_delay));
        text += &format!("\n      later than computed: {}", spread(&around.lateness));
        text
    }
}

fn spread(spread: &Spread) -> String {
    let [p50, p99] = [0.5, 0.99].map(|part| spread.percentile(part));
    format!("mean {:.1?}, p50 {p50:.1?}, p99 {p99:.1?}, most {:.1?}", spread.mean(), spread.max())
}

#[cfg(test)]
mod tests {
    use super::super::path::Expected;
    use super::*;

    fn stats() -> Stats {
        let way = OneWay { path: Counters::default(), around: Around::default(), kernel_drops: 0 };
        let elapsed = Duration::from_secs(10);
        Stats { up: way.clone(), down: way, elapsed, cpu: Duration::from_secs(1), is_real_time: true }
    }

    #[test]
    fn what_is_not_as_asked_for_is_named() {
        let good = stats();
        assert_eq!(good.doubts(), Vec::<String>::new());
        assert!(good.to_string().ends_with("check: the link did what was asked for"), "{good}");

        let mut bad = stats();
        bad.up.path.expected_before = Expected { packets: 10_000, lost: 100.0, variance: 99.0 };
        bad.up.path.dropped.before = 141;
        bad.down.kernel_drops = 3;
        bad.down.around.lateness.add(Duration::from_millis(5));
        bad.cpu = Duration::from_secs(9);
        let doubts = bad.doubts().join("; ");
        for part in
            ["up: 141 packets lost", "down: 3 packets were too many", "down: 1 in 100 packets", "90 % of the time"]
        {
            assert!(doubts.contains(part), "{doubts}");
        }
        bad.up.path.dropped.before = 139;
        assert!(!bad.doubts().join("; ").contains("139"), "within four deviations");
    }
}
