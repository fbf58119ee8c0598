//! Log files as klog has them: one for everything that is emptied when it would grow too large, or, in a folder, one for
//! each severity, with a new one when it would.
//!
//! Lines are written as they come, without a buffer: nothing is lost when the process ends, and whoever reads the file sees
//! the last line.

mod folder;

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use anyhow::Context;

use self::folder::Folder;
use crate::klog::Severity;

/// Where log lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The least severity that goes to standard error.
    pub stderr: Severity,
    /// The files that get every line; `None`: none.
    pub files: Option<Place>,
}

impl Default for Destination {
    /// Everything to standard error.
    fn default() -> Self {
        Self { stderr: Severity::INFO, files: None }
    }
}

/// Where log files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// One file for everything.
    File {
        /// Where.
        path: PathBuf,
        /// It is emptied before a line that would make it as large.
        most_bytes: u64,
    },
    /// A file for each severity, made with its first line.
    Folder {
        /// The first that can be written to is taken.
        folders: Vec<PathBuf>,
        /// Whether a line is in the file of its own severity only.
        one_output: bool,
        /// A new file is begun before a line that would make it as large.
        most_bytes: u64,
    },
}

/// The files of a process.
#[derive(Debug)]
pub struct LogFiles {
    files: Mutex<Files>,
}

#[derive(Debug)]
enum Files {
    One(OneFile),
    Folder(Folder),
}

impl LogFiles {
    /// Opens the files, or the folder's first one.
    ///
    /// # Errors
    /// When they cannot be opened for writing.
    pub fn open(place: &Place) -> anyhow::Result<Self> {
        let files = match place {
            Place::File { path, most_bytes } => {
                let shown = path.display();
                let hint = "set --log-file to one that this user can write to, or leave out --logtostderr=false";
                let file = OneFile::open(path, *most_bytes);
                Files::One(file.with_context(|| format!("cannot open the log file {shown}; {hint}"))?)
            }
            Place::Folder { folders, one_output, most_bytes } => {
                let shown: Vec<_> = folders.iter().map(|folder| folder.display().to_string()).collect();
                let shown = shown.join(" or ");
                let hint = "set --log-dir to a folder that this user can write to, or leave out --logtostderr=false";
                let folder = Folder::open(folders.clone(), *one_output, *most_bytes);
                Files::Folder(folder.with_context(|| format!("cannot make a log file in {shown}; {hint}"))?)
            }
        };
        Ok(Self { files: Mutex::new(files) })
    }

    /// Writes a line, with its end.
    ///
    /// # Errors
    /// When a file cannot be written to; the next line may find that it can.
    pub fn write(&self, severity: Severity, line: &[u8]) -> io::Result<()> {
        match &mut *self.lock() {
            Files::One(file) => file.write(line),
            Files::Folder(folder) => folder.write(severity, line),
        }
    }

    /// A thread that panics while it writes leaves at worst half a line.
    fn lock(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file that only grows up to a bound.
#[derive(Debug)]
struct OneFile {
    file: File,
    /// What it holds, as far as this process knows.
    bytes: u64,
    most_bytes: u64,
}

impl OneFile {
    /// Goes on with what is there, or makes the file: readable by all, as far as the umask allows.
    fn open(path: &Path, most_bytes: u64) -> io::Result<Self> {
        // Reading is asked for as klog does it: a pipe without a reader could not be opened otherwise.
        let file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { file, bytes, most_bytes })
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.is_full(line.len() as u64) {
            self.empty(line.len() as u64)?;
        }
        self.append(line)
    }

    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        self.file.write_all(line)?;
        self.bytes += line.len() as u64;
        Ok(())
    }

    /// Whether so many bytes more would reach the bound.
    fn is_full(&self, more: u64) -> bool {
        self.bytes.saturating_add(more) >= self.most_bytes
    }

    /// Makes room for so many bytes, unless someone else has emptied the file meanwhile.
    fn empty(&mut self, more: u64) -> io::Result<()> {
        let metadata = self.file.metadata()?;
        self.bytes = 0;
        // Terminals and pipes cannot be emptied, and need not be.
        if metadata.is_file() {
            self.bytes = metadata.len();
            if self.is_full(more) {
                self.file.set_len(0)?;
                self.bytes = 0;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
