//! The flags of klog, which the reference logs with: the same in both programs, at the top level of the file.
//!
//! What they say of levels and of where lines go is done here as klog does it. What is about the files of Go sources, or
//! about the heads of log lines and files, which are others here, has no effect, and that is logged once.

mod values;

use std::path::PathBuf;

use clap::{ArgAction, Args};
use serde::{Deserialize, Serialize};

pub use values::{BacktracePlace, Modules, Severity, ValueError};

use crate::{
    flag,
    log_file::{Destination, Place},
    logging::Logging,
    problems::{Origin, Problems},
};

/// klog's own bound for files in a folder.
const MOST_BYTES_IN_FOLDER: u64 = 1800 << 20;
/// The highest level that logs no more than `--log-level=info`: klog's default in the reference.
const INFO: i64 = 4;
/// The level that logs dials; those above it log messages too.
const DEBUG: i64 = 5;

/// How klog is told to log; as typed.
#[derive(Debug, Clone, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[command(next_help_heading = "Logs, as with klog")]
pub struct KlogOptions {
    /// How much is logged: up to 4 what --log-level=info logs, at 5 every dial (debug), from 6 on every message (trace). Of
    /// this and --log-level, the one with the higher rank (flag, environment, file) counts, and --log-level when both
    /// have the same
    #[arg(long, short = 'v', value_name = "LEVEL", value_parser = flag::klog_level, default_value = "4")]
    pub v: i64,

    /// Logs to standard error and not to files
    #[arg(long, value_name = "BOOL", value_parser = flag::klog_boolean, default_value = "true", action = ArgAction::Set)]
    pub logtostderr: bool,

    /// The file for logs. It needs --logtostderr=false
    #[arg(long, value_name = "FILE", default_value = "")]
    pub log_file: String,

    /// Most MiB of --log-file: when it would grow beyond, it is emptied first. 0: no bound
    #[arg(long, value_name = "MEBIBYTES", value_parser = flag::klog_unsigned, default_value = "1800")]
    pub log_file_max_size: i64,

    /// The folder for log files, one for each severity, when there is no --log-file; empty: the one for temporary files. It
    /// needs --logtostderr=false
    #[arg(long, value_name = "FOLDER", default_value = "")]
    pub log_dir: String,

    /// With --log-dir, writes a line to the file of its own severity only, and not to those of the lower ones too
    #[arg(long, value_name = "BOOL", value_parser = flag::klog_boolean, default_value = "false", action = ArgAction::Set)]
    pub one_output: bool,

    /// With --logtostderr=false, logs to standard error too
    #[arg(long, value_name = "BOOL", value_parser = flag::klog_boolean, default_value = "false", action = ArgAction::Set)]
    pub alsologtostderr: bool,

    /// The least severity that --alsologtostderr shows: INFO, WARNING, ERROR, or 0 to 2
    #[arg(long, value_name = "SEVERITY", default_value = "INFO")]
    pub alsologtostderrthreshold: Severity,

    /// The least severity that standard error shows when logs go to files and not to it
    #[arg(long, value_name = "SEVERITY", default_value = "ERROR")]
    pub stderrthreshold: Severity,

    /// Shows everything when logs go to standard error. false: what --stderrthreshold says
    #[arg(long, value_name = "BOOL", value_parser = flag::klog_boolean, default_value = "true", action = ArgAction::Set)]
    pub legacy_stderr_threshold_behavior: bool,

    /// Without effect: it names files of Go sources. A --log-level such as info,konnectivity_transport=debug does what it
    /// is for
    #[arg(long, value_name = "PATTERN=LEVEL", default_value = "")]
    pub vmodule: Modules,

    /// Without effect: it names a line of Go sources
    #[arg(long, value_name = "FILE:LINE", default_value = "")]
    pub log_backtrace_at: BacktracePlace,

    /// Without effect: log lines name no source files
    #[arg(long, value_name = "BOOL", value_parser = flag::klog_boolean, default_value = "false", action = ArgAction::Set)]
    pub add_dir_header: bool,

    /// Without effect: log lines have a head always
    #[arg(long, value_name = "BOOL", value_parser = flag::klog_boolean, default_value = "false", action = ArgAction::Set)]
    pub skip_headers: bool,

    /// Without effect: log files have no head
    #[arg(long, value_name = "BOOL", value_parser = flag::klog_boolean, default_value = "false", action = ArgAction::Set)]
    pub skip_log_headers: bool,
}

impl KlogOptions {
    /// Those that have no effect here.
    pub const WITHOUT_EFFECT: [&str; 5] =
        ["vmodule", "log-backtrace-at", "add-dir-header", "skip-headers", "skip-log-headers"];
    /// Those that have none while logs go to standard error.
    const ABOUT_FILES: [&str; 6] =
        ["log-file", "log-file-max-size", "log-dir", "one-output", "alsologtostderr", "alsologtostderrthreshold"];

    /// What they mean together with the settings `log-level` and `log-format`. What is wrong goes to `problems`.
    pub fn logging(&self, problems: &mut Problems, level: &str, format: &str) -> Option<Logging> {
        let logging = Logging::check(problems, level, format);
        let most = self.most_bytes(problems);
        let Logging { filter, format, .. } = logging?;
        let filter = if self.counts(problems) { self.filter() } else { filter };
        Some(Logging { filter, format, destination: self.destination(most?) })
    }

    /// Whether `v` counts and not `log-level`.
    fn counts(&self, problems: &Problems) -> bool {
        let rank = |setting| match problems.effective().origin(setting) {
            Origin::Default => 0,
            Origin::File { .. } => 1,
            Origin::Environment(_) => 2,
            Origin::Flag => 3,
        };
        rank("v") > rank("log-level")
    }

    /// The expression for the log's filter.
    fn filter(&self) -> String {
        let level = match self.v {
            ..=INFO => return "info".to_owned(),
            DEBUG => "debug",
            _ => "trace",
        };
        let ours = ["konnectivity_process", "konnectivity_transport", "proxy_agent", "proxy_server"];
        ours.iter().fold("info".to_owned(), |filter, part| format!("{filter},{part}={level}"))
    }

    fn most_bytes(&self, problems: &mut Problems) -> Option<u64> {
        let mebibytes = u64::try_from(self.log_file_max_size);
        if mebibytes.is_err() {
            problems.add(
                "log-file-max-size",
                "must not be negative",
                "set it to a number of MiB, or to 0 for no bound",
            );
        }
        match mebibytes.ok()? {
            0 => Some(u64::MAX),
            mebibytes => Some(mebibytes.saturating_mul(1 << 20)),
        }
    }

    fn destination(&self, most_bytes: u64) -> Destination {
        if self.logtostderr {
            let all = self.legacy_stderr_threshold_behavior;
            return Destination { stderr: if all { Severity::INFO } else { self.stderrthreshold }, files: None };
        }
        let stderr = if self.alsologtostderr { self.alsologtostderrthreshold } else { self.stderrthreshold };
        let files = if self.log_file.is_empty() {
            let folders = [PathBuf::from(&self.log_dir), std::env::temp_dir()];
            let folders = folders.into_iter().filter(|folder| !folder.as_os_str().is_empty()).collect();
            Place::Folder { folders, one_output: self.one_output, most_bytes: MOST_BYTES_IN_FOLDER }
        } else {
            Place::File { path: PathBuf::from(&self.log_file), most_bytes }
        };
        Destination { stderr, files: Some(files) }
    }

    /// What to tell of flags about log files that somebody has set while there are none.
    pub fn notice(&self, problems: &Problems) -> Option<String> {
        let set = Self::ABOUT_FILES.iter().filter(|setting| problems.effective().is_set(setting));
        let flags: Vec<_> = set.map(|setting| format!("--{setting}")).collect();
        let flags = flags.join(", ");
        let is_heard = self.logtostderr && !flags.is_empty();
        is_heard.then(|| format!("logs go to standard error, as --logtostderr says; without effect then: {flags}"))
    }
}

#[cfg(test)]
mod tests;
