//! What the programs of a cell have logged: kept for whoever looks for a reason, and searched for panics.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::fleet::Fleet;
use crate::peer::process::Process;

/// How long every log was at some time.
#[derive(Debug, Clone, Default)]
pub struct Marks(BTreeMap<PathBuf, u64>);

impl Fleet {
    /// Checks that no program has panicked since these marks.
    ///
    /// # Errors
    /// Names the first one that has, with what it said.
    pub fn unharmed(&self, marks: &Marks) -> anyhow::Result<()> {
        for process in self.processes() {
            let mark = marks.0.get(process.log()).copied().unwrap_or(0);
            if let Some(panic) = process.panic_since(mark) {
                bail!("{} has panicked: {panic}{}", process.name(), process.last_log_lines());
            }
        }
        Ok(())
    }

    /// How long every log is now.
    pub fn marks(&self) -> Marks {
        let length = |process: &Process| fs::metadata(process.log()).map_or(0, |metadata| metadata.len());
        Marks(self.processes().map(|process| (process.log().to_owned(), length(process))).collect())
    }

    /// Copies what was logged since the marks into `folder`.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub fn copy_logs(&self, marks: &Marks, folder: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        for process in self.processes() {
            let log = process.log();
            let text = fs::read(log).with_context(|| format!("cannot read {}", log.display()))?;
            let start = marks.0.get(log).and_then(|&mark| usize::try_from(mark).ok()).unwrap_or(0).min(text.len());
            let copy = folder.join(log.file_name().context("a log has a name")?);
            fs::write(&copy, &text[start..]).with_context(|| format!("cannot write {}", copy.display()))?;
        }
        Ok(())
    }
}
