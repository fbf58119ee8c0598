//! A folder of log files with klog's names: `proxy-server.node-1.root.log.INFO.20261124-091442.7`, and a link
//! `proxy-server.INFO` to the newest.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::OneFile;
use crate::{klog::Severity, utc::Utc};

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
    let Utc { year, month, day, hour, minute, second } = Utc::new(now);
    format!("{year:04}{month:02}{day:02}-{hour:02}{minute:02}{second:02}")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn dates() {
        for (seconds, expected) in [(0, "19700101-000000"), (1_795_511_682, "20261124-091442")] {
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
