//! Log lines on standard error.

use std::{
    io::{self, IsTerminal},
    str::FromStr,
};

use tracing::{Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

use crate::problems::Problems;

/// How log events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A line for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logging {
    /// A level, or an expression such as `info,konnectivity_transport=debug`; valid for [`EnvFilter`].
    pub filter: String,
    /// How it is written.
    pub format: Format,
}

impl Logging {
    /// Checks the settings `log-level` and `log-format`.
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
        Some(Self { filter: level.to_owned(), format: format? })
    }

    /// Makes this the log of the whole process.
    ///
    /// # Errors
    /// When the process has one already, or the filter is not one, which [`Logging::check`] rules out.
    pub fn start(&self) -> anyhow::Result<()> {
        let ansi = io::stderr().is_terminal();
        let filter = EnvFilter::builder().parse(&self.filter)?;
        tracing::subscriber::set_global_default(subscriber(self.format, filter, ansi, io::stderr))?;
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

    fn logged(format: Format, filter: &str) -> String {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let filter = EnvFilter::builder().parse(filter).unwrap();
        tracing::subscriber::with_default(subscriber(format, filter, false, move || writer.clone()), || {
            tracing::info!(target: "a_part", dial_id = 7, "hello");
            tracing::debug!(target: "a_part", "details");
        });
        let bytes = buffer.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn text_and_json() {
        let text = logged(Format::Text, "info");
        assert!(text.ends_with("INFO a_part: hello dial_id=7\n"), "{text}");
        let json = logged(Format::Json, "info");
        assert!(json.contains("\"level\":\"INFO\",\"message\":\"hello\",\"dial_id\":7}"), "{json}");
        assert_eq!(json.lines().count(), 1);
        assert_eq!(logged(Format::Text, "warn,a_part=debug").lines().count(), 2);
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
