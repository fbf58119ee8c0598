//! A folder of log files with klog's names: `proxy-server.node-1.root.log.INFO.20261124-091442.7`, and a link
//! `proxy-server.INFO` to the newest.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use super::OneFile;
use crate::klog::Severity;

/// Severities that have a file. Nothing here is fatal.
const SEVERITIES: [Severity; 3] = [Severity::INFO, Severity::WARNING, Severity::ERROR];

#[derive(Debug)]
pub(super) struct Folder {
    folders: Vec<PathBuf>,
    one_output: bool,
    most_bytes: u64,
    files: [Option<OneFile>; SEVERITIES.len()],
}

impl Folder {
    /// Makes the file that has every line.
    pub(super) fn open(folders: Vec<PathBuf>, one_output: bool, most_bytes: u64) -> io::Result<Self> {
        let mut folder = Self { folders, one_output, most_bytes, files: [const { None }; SEVERITIES.len()] };
        folder.create(0)?;
        Ok(folder)
    }

    /// A line is in the file of its severity and in those of the lower ones.
    pub(super) fn write(&mut self, severity: Severity, line: &[u8]) -> io::Result<()> {
        let own = SEVERITIES.iter().rposition(|file| *file <= severity).unwrap_or_default();
        let least = if self.one_output { own } else { 0 };
        for place in (least..=own).rev() {
            if self.files[place].as_ref().is_none_or(|file| file.is_full(line.len() as u64)) {
                self.create(place)?;
            }
            if let Some(file) = &mut self.files[place] {
                file.append(line)?;
            }
        }
        Ok(())
    }

    /// Begins a file in the first folder that lets it.
    fn create(&mut self, place: usize) -> io::Result<()> {
        let name = name(&SEVERITIES[place].to_string(), SystemTime::now());
        let mut failure = io::ErrorKind::NotFound.into();
        for folder in &self.folders {
            match OneFile::open(&folder.join(&name), self.most_bytes) {
                Ok(file) => {
                    link(folder, &name, &format!("{}.{}", program(), SEVERITIES[place]));
                    self.files[place] = Some(file);
                    return Ok(());
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }
}

/// Lets the link show the newest file. It is a convenience: without it, the file is still there.
fn link(folder: &Path, name: &str, link: &str) {
    let link = folder.join(link);
    let _ = fs::remove_file(&link);
    let _ = symlink(name, &link);
}

fn name(severity: &str, now: SystemTime) -> String {
    let host = nix::unistd::gethostname().ok().and_then(|host| host.into_string().ok());
    let host = host.as_deref().unwrap_or("unknownhost").split('.').next().unwrap_or_default();
    let user = std::env::var("USER").unwrap_or_else(|_| "unknownuser".to_owned()).replace('/', "_");
    format!("{}.{host}.{user}.log.{severity}.{}.{}", program(), stamp(now), std::process::id())
}

/// The name that the program was started by.
fn program() -> String {
    let path = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
    path.file_name().map_or_else(|| "program".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// Date and time of day in UTC: `20261124-091442`.
fn stamp(now: SystemTime) -> String {
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    format!("{year:04}{month:02}{day:02}-{:02}{:02}{:02}", second / 3_600, second / 60 % 60, second % 60)
}

/// Year, month and day of a day since 1970, by years that begin in March, so that leap days end them.
fn date(days: u64) -> (u64, u64, u64) {
    const DAYS_OF_400_YEARS: u64 = 146_097;
    // From 0000-03-01 to 1970-01-01.
    let days = days + 719_468;
    let (era, day_of_era) = (days / DAYS_OF_400_YEARS, days % DAYS_OF_400_YEARS);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = 400 * era + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn dates() {
        for (seconds, expected) in [
            (0, "19700101-000000"),
            (951_782_399, "20000228-235959"),
            (951_782_400, "20000229-000000"),
            (951_868_800, "20000301-000000"),
            (1_735_689_599, "20241231-235959"),
            (1_795_511_682, "20261124-091442"),
            (4_107_542_400, "21000301-000000"),
        ] {
            assert_eq!(stamp(UNIX_EPOCH + Duration::from_secs(seconds)), expected);
        }
    }

    #[test]
    fn names() {
        let name = name("INFO", UNIX_EPOCH);
        let end = format!(".log.INFO.19700101-000000.{}", std::process::id());
        assert!(name.starts_with(&format!("{}.", program())) && name.ends_with(&end), "{name}");
        assert!(!name.contains('/'));
    }
}
