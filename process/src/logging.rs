//! Log lines on standard error, in files, or both.

use std::{
    io::{self, IsTerminal, Write},
    str::FromStr,
};

use tracing::{Metadata, Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{EnvFilter, filter::ParseError, fmt::MakeWriter};

use crate::{
    klog::Severity,
    log_file::{Destination, LogFiles},
    problems::Problems,
};

/// How log events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A line for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Libraries that log what is logged here anyhow, and one that shows what it could not read, which may hold a secret.
/// Who wants them names them in the filter.
const QUIET: &str = "kube_client=off";

/// What is logged, how and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logging {
    /// A level, or an expression such as `info,konnectivity_transport=debug`; valid for [`EnvFilter`].
    pub filter: String,
    /// How it is written.
    pub format: Format,
    /// Where it is written.
    pub destination: Destination,
}

impl Logging {
    /// Checks the settings `log-level` and `log-format`; what goes elsewhere than standard error is for
    /// [`KlogOptions`](crate::klog::KlogOptions) to say.
    pub fn check(problems: &mut Problems, level: &str, format: &str) -> Option<Self> {
        if let Err(reason) = check_filter(level) {
            let remedy =
                "set it to error, warn, info, debug or trace, or to a list such as info,konnectivity_transport=debug";
            problems.add("log-level", reason, remedy);
        }
        let format = match format {
            "text" => Some(Format::Text),
            "json" => Some(Format::Json),
            _ => {
                problems.add("log-format", "is not a format", "set it to text or json");
                None
            }
        };
        Some(Self { filter: level.to_owned(), format: format?, destination: Destination::default() })
    }

    /// Makes this the log of the whole process, and opens the file for it.
    ///
    /// # Errors
    /// When the file cannot be opened, or the process has a log already, or the filter is not one, which
    /// [`Logging::check`] rules out.
    pub fn start(&self) -> anyhow::Result<()> {
        let filter = with_quiet(&self.filter)?;
        let Destination { stderr, files } = &self.destination;
        let files = files.as_ref().map(LogFiles::open).transpose()?;
        let sink = Sink { least: *stderr, stderr: io::stderr, files };
        let ansi = sink.files.is_none() && io::stderr().is_terminal();
        tracing::subscriber::set_global_default(subscriber(self.format, filter, ansi, sink))?;
        Ok(())
    }
}

fn with_quiet(filter: &str) -> Result<EnvFilter, ParseError> {
    // Of two directives for one module, the later one counts.
    EnvFilter::builder().parse(format!("{QUIET},{filter}"))
}

/// Both places that a log line can go to.
struct Sink<E> {
    /// The least severity that standard error sees.
    least: Severity,
    /// Gives standard error.
    stderr: fn() -> E,
    files: Option<LogFiles>,
}

/// Where one line goes.
struct LineWriter<'a, E> {
    sink: &'a Sink<E>,
    severity: Severity,
}

impl<'a, E: Write + 'static> MakeWriter<'a> for Sink<E> {
    type Writer = LineWriter<'a, E>;

    fn make_writer(&'a self) -> Self::Writer {
        LineWriter { sink: self, severity: Severity::INFO }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Self::Writer {
        LineWriter { sink: self, severity: Severity::from(metadata.level()) }
    }
}

impl<E: Write> Write for LineWriter<'_, E> {
    /// Takes all of it: a log line comes as one piece. What files cannot take is on standard error, with the reason.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let written = self.sink.files.as_ref().map_or(Ok(()), |files| files.write(self.severity, line));
        if let Err(error) = &written {
            writeln!((self.sink.stderr)(), "cannot write to the log file: {error}")?;
        }
        if written.is_err() || self.severity >= self.sink.least {
            (self.sink.stderr)().write_all(line)?;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What [`EnvFilter`] would take, and not a level with a typing error: it takes that for the name of a module.
fn check_filter(expression: &str) -> Result<(), String> {
    if expression.trim().is_empty() {
        return Err("is empty".to_owned());
    }
    EnvFilter::builder().parse(expression).map_err(|error| error.to_string())?;
    let mut bare = expression.split(',').map(str::trim).filter(|part| !part.contains(['=', '[', ']', '{', '}']));
    match bare.find(|part| LevelFilter::from_str(part).is_err()) {
        Some(part) => Err(format!("{part:?} is not a level")),
        None => Ok(()),
    }
}

fn subscriber<W>(format: Format, filter: EnvFilter, ansi: bool, writer: W) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(ansi);
    match format {
        Format::Text => Box::new(builder.finish()),
        // The module's name would be a second `target` in the events of dials, which have one of their own.
        Format::Json => Box::new(builder.json().flatten_event(true).with_target(false).finish()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::log_file::Place;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_noisy_library_is_quiet_unless_it_is_named() {
        for (filter, shown) in [("info", "kube_client=off"), ("debug,kube_client=warn", "kube_client=warn")] {
            let filter = with_quiet(filter).unwrap().to_string();
            assert!(filter.split(',').any(|part| part == shown), "{filter}");
            assert_eq!(filter.matches("kube_client").count(), 1, "{filter}");
        }
    }

    /// Three events, and what stands on standard error then.
    fn logged_to(format: Format, filter: &str, least: Severity, files: Option<LogFiles>) -> String {
        thread_local! {
            static STDERR: Buffer = Buffer::default();
        }
        let filter = EnvFilter::builder().parse(filter).unwrap();
        let sink = Sink { least, stderr: || STDERR.with(Clone::clone), files };
        tracing::subscriber::with_default(subscriber(format, filter, false, sink), || {
            tracing::info!(target: "a_part", dial_id = 7, "hello");
            tracing::debug!(target: "a_part", "details");
            tracing::warn!(target: "other_part", "careful");
        });
        let bytes = STDERR.with(|buffer| std::mem::take(&mut *buffer.0.lock().unwrap()));
        String::from_utf8(bytes).unwrap()
    }

    fn logged(format: Format, filter: &str) -> String {
        logged_to(format, filter, Severity::INFO, None)
    }

    #[test]
    fn text_and_json() {
        let text = logged(Format::Text, "info,other_part=off");
        assert!(text.ends_with("INFO a_part: hello dial_id=7\n"), "{text}");
        let json = logged(Format::Json, "info,other_part=off");
        assert!(json.contains("\"level\":\"INFO\",\"message\":\"hello\",\"dial_id\":7}"), "{json}");
        assert_eq!(json.lines().count(), 1);
        assert_eq!(logged(Format::Text, "warn,a_part=debug").lines().count(), 3);
    }

    #[test]
    fn files_get_all_and_standard_error_from_its_severity_on() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("a.log");
        let place = Place::File { path: path.clone(), most_bytes: u64::MAX };
        let said = logged_to(Format::Text, "info", Severity::WARNING, Some(LogFiles::open(&place).unwrap()));
        assert_eq!(said.lines().count(), 1);
        assert!(said.ends_with("WARN other_part: careful\n"), "{said}");
        let written = std::fs::read_to_string(&path).unwrap();
        assert_eq!(written.lines().count(), 2);
        assert!(written.contains("hello dial_id=7\n") && written.ends_with(&said), "{written}");
        let said = logged_to(Format::Json, "info", Severity::ERROR, Some(LogFiles::open(&place).unwrap()));
        assert_eq!(said, "");
        assert!(std::fs::read_to_string(&path).unwrap().contains("\"message\":\"careful\""));
    }

    #[test]
    fn what_the_file_cannot_take_is_on_standard_error() {
        let place = Place::File { path: "/dev/full".into(), most_bytes: u64::MAX };
        let said = logged_to(Format::Text, "warn", Severity::ERROR, Some(LogFiles::open(&place).unwrap()));
        let (reason, line) = said.split_once('\n').unwrap();
        assert!(reason.starts_with("cannot write to the log file: No space left"), "{said}");
        assert!(line.ends_with("WARN other_part: careful\n"), "{said}");
    }

    #[test]
    fn levels_and_expressions() {
        for filter in
            ["error", "warn", "info", "debug", "trace", "off", "INFO", "info,a_part=debug", "[dial{dial_id=7}]=trace"]
        {
            assert_eq!(check_filter(filter), Ok(()), "{filter}");
        }
        assert_eq!(check_filter("verbose"), Err("\"verbose\" is not a level".to_owned()));
        assert_eq!(check_filter("a_part=debug,inf"), Err("\"inf\" is not a level".to_owned()));
        assert_eq!(check_filter(" "), Err("is empty".to_owned()));
        assert!(check_filter("a_part=loud").is_err());
    }
}
