//! Where a run took place, as the system tells.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

/// What a reader needs to judge the figures.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// UTC, to the minute.
    pub date: String,
    /// The processor's own name.
    pub processor: String,
    /// How many threads run at once.
    pub cores: usize,
    /// Memory.
    pub memory: String,
    /// The kernel's release.
    pub kernel: String,
    /// What TCP uses by default.
    pub tcp_congestion_control: String,
    /// The most that a socket may ask for, receiving and sending, in bytes.
    pub socket_buffer_max: [String; 2],
    /// The load average of the last minute when the run began; much above 0 means that others took part of the machine.
    pub load_before: String,
}

impl Machine {
    /// Whether others take so much of the machine that figures mean little.
    pub fn is_busy(&self) -> bool {
        self.load_before.parse::<f64>().is_ok_and(|load| load > 0.5)
    }

    /// Reads it all; what cannot be read is "unknown".
    pub fn look() -> Self {
        let kernel_setting = |name: &str| read(&format!("/proc/sys/{name}"));
        Self {
            date: date(SystemTime::now()),
            processor: field("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory: gibibytes(&field("/proc/meminfo", "MemTotal")),
            kernel: kernel_setting("kernel/osrelease"),
            tcp_congestion_control: kernel_setting("net/ipv4/tcp_congestion_control"),
            socket_buffer_max: ["net/core/rmem_max", "net/core/wmem_max"].map(kernel_setting),
            load_before: read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
        }
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

fn field(path: &str, name: &str) -> String {
    let text = read(path);
    let value = text.lines().filter_map(|line| line.split_once(':')).find(|(key, _)| key.trim() == name);
    value.map_or_else(|| "unknown".to_owned(), |(_, value)| value.trim().to_owned())
}

/// `/proc/meminfo` says `24683656 kB`.
fn gibibytes(text: &str) -> String {
    match text.strip_suffix(" kB").map(str::parse::<f64>) {
        Some(Ok(kilobytes)) => format!("{:.1} GiB", kilobytes / 1024.0 / 1024.0),
        _ => text.to_owned(),
    }
}

/// The Gregorian calendar: years counted from March, so that the leap day is a year's last.
fn date(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (minutes, days) = (seconds / 60 % (24 * 60), seconds / (24 * 60 * 60) + 719_468);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", minutes / 60, minutes % 60)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn dates_are_right_around_leap_days() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00 UTC"),
            (951_782_400, "2000-02-29 00:00 UTC"),
            (951_868_799, "2000-02-29 23:59 UTC"),
            (951_868_800, "2000-03-01 00:00 UTC"),
            (1_798_761_599, "2026-12-31 23:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00 UTC"),
        ] {
            assert_eq!(date(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn something_is_known_of_this_machine() {
        let machine = Machine::look();
        assert!(machine.cores > 0 && machine.kernel != "unknown");
        assert_eq!(gibibytes("24683656 kB"), "23.5 GiB");
        assert_eq!(gibibytes("unknown"), "unknown");
    }
}
