//! What is wrong with the settings: all of it, told at once.

use std::{collections::BTreeMap, fmt, path::Path, sync::Arc};

/// Who said what a setting is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody; it is the default.
    Default,
    /// A line of the file that `--config` names.
    File {
        /// The file, as it was named.
        path: Arc<Path>,
        /// From 1.
        line: usize,
    },
    /// A variable of the environment.
    Environment(&'static str),
    /// The command line.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{} line {line}", path.display()),
            Self::Environment(variable) => write!(f, "environment variable {variable}"),
            Self::Flag => f.write_str("flag"),
        }
    }
}

/// What the settings are once flags, environment, file and defaults are laid over each other.
///
/// It holds names, numbers, addresses and paths of files. No setting is itself a secret and the content of no file
/// is here, so that all of it can be logged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effective {
    entries: BTreeMap<String, (String, Origin)>,
}

impl Effective {
    /// Puts in a setting, or replaces its value where the program chose one, such as a random id.
    pub fn set(&mut self, setting: &str, value: String, origin: Origin) {
        self.entries.insert(setting.to_owned(), (value, origin));
    }

    /// The value of a setting, as text.
    pub fn value(&self, setting: &str) -> Option<&str> {
        self.entries.get(setting).map(|(value, _)| value.as_str())
    }

    /// Who set it; [`Origin::Default`] for a name that is no setting.
    pub fn origin(&self, setting: &str) -> Origin {
        self.entries.get(setting).map_or(Origin::Default, |(_, origin)| origin.clone())
    }

    /// Whether anybody set it.
    pub fn is_set(&self, setting: &str) -> bool {
        self.origin(setting) != Origin::Default
    }

    /// Writes all of it as one log event.
    pub fn log(&self) {
        tracing::info!(settings = %self, "settings in effect");
    }
}

impl fmt::Display for Effective {
    /// `name=value` by name, separated by spaces; values with odd characters in quotes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (setting, (value, _))) in self.entries.iter().enumerate() {
            let space = if place == 0 { "" } else { " " };
            if value.contains(|c: char| c.is_whitespace() || c.is_control() || c == '"') {
                write!(f, "{space}{setting}={value:?}")?;
            } else {
                write!(f, "{space}{setting}={value}")?;
            }
        }
        Ok(())
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The setting's name.
    pub setting: String,
    /// What it was set to; `None` where that says nothing.
    pub value: Option<String>,
    /// Who set it so.
    pub origin: Origin,
    /// What is wrong with that.
    pub reason: String,
    /// Whether the reason is a rule of the reference, in its words: a sentence that is complete without the setting's
    /// name.
    pub is_rule: bool,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { setting, value, origin, reason, remedy, .. } = self;
        match value.as_deref() {
            None => write!(f, "{setting} ({origin})"),
            Some("") if *origin == Origin::Default => write!(f, "{setting} (not set)"),
            Some(value) => write!(f, "{setting} = {value:?} ({origin})"),
        }?;
        write!(f, ": {reason}; {remedy}")
    }
}

/// Collects what is wrong, with the value and the origin of each setting at hand.
#[derive(Debug, Clone, Default)]
pub struct Problems {
    effective: Effective,
    found: Vec<Problem>,
}

impl Problems {
    /// Goes on from what reading the settings has found.
    pub fn new(effective: Effective, found: Vec<Problem>) -> Self {
        Self { effective, found }
    }

    /// Notes that a setting's value is wrong: why, and what to do. The reason goes on after the setting's name.
    pub fn add(&mut self, setting: &str, reason: impl fmt::Display, remedy: impl fmt::Display) {
        self.note(setting, reason.to_string(), remedy.to_string(), false);
    }

    /// Notes that a setting's value is against a rule of the reference, in the reference's words.
    pub fn rule(&mut self, setting: &str, rule: impl fmt::Display, remedy: impl fmt::Display) {
        self.note(setting, rule.to_string(), remedy.to_string(), true);
    }

    fn note(&mut self, setting: &str, reason: String, remedy: String, is_rule: bool) {
        let value = self.effective.value(setting).map(str::to_owned);
        let origin = self.effective.origin(setting);
        self.found.push(Problem { setting: setting.to_owned(), value, origin, reason, is_rule, remedy });
    }

    /// The settings that are judged.
    pub fn effective(&self) -> &Effective {
        &self.effective
    }

    /// What was found up to now.
    pub fn found(&self) -> &[Problem] {
        &self.found
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }
}

impl fmt::Display for Problems {
    /// The first that is a rule of the reference, as the reference tells it, or else the first; then how many, and one
    /// a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.found.iter().find(|problem| problem.is_rule) {
            Some(problem) => write!(f, "{}", problem.reason)?,
            None => self.found.first().map_or(Ok(()), |problem| write!(f, "{problem}"))?,
        }
        let plural = if self.found.len() == 1 { "problem" } else { "problems" };
        write!(f, "\n{} {plural}:", self.found.len())?;
        self.found.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn effective() -> Effective {
        let mut effective = Effective::default();
        effective.set("mode", "grpc".into(), Origin::Default);
        effective.set("agent-port", "80".into(), Origin::File { path: Path::new("a.toml").into(), line: 7 });
        effective.set("agent-id", "a b".into(), Origin::Environment("PROXY_AGENT_ID"));
        effective.set("server-cert", String::new(), Origin::Default);
        effective.set("uds-name", String::new(), Origin::Flag);
        effective
    }

    #[test]
    fn a_problem_tells_setting_value_origin_reason_and_remedy() {
        let mut problems = Problems::new(effective(), Vec::new());
        assert!(problems.is_empty());
        problems.add("agent-port", "reserved", "choose another");
        let line = "agent-port = \"80\" (a.toml line 7): reserved; choose another";
        assert_eq!(problems.to_string(), format!("{line}\n1 problem:\n  {line}"));
        problems.add("mode", "r", "do");
        problems.add("agent-id", "r", "do");
        problems.add("uds-name", "r", "do");
        problems.add("server-cert", "r", "do");
        let lines: Vec<String> = problems.found()[1..].iter().map(Problem::to_string).collect();
        assert_eq!(
            lines,
            [
                "mode = \"grpc\" (default): r; do",
                "agent-id = \"a b\" (environment variable PROXY_AGENT_ID): r; do",
                "uds-name = \"\" (flag): r; do",
                "server-cert (not set): r; do",
            ]
        );
    }

    #[test]
    fn the_effective_settings_are_one_line() {
        assert_eq!(effective().to_string(), "agent-id=\"a b\" agent-port=80 mode=grpc server-cert= uds-name=");
    }

    #[test]
    fn a_rule_of_the_reference_is_a_line_of_its_own() {
        let mut problems = Problems::new(effective(), Vec::new());
        problems.add("agent-port", "is odd", "choose another");
        problems.rule("mode", "mode must be set to x", "set --mode=x");
        problems.rule("server-cert", "server cert must be set", "set it");
        assert_eq!(
            problems.to_string(),
            "mode must be set to x\n\
             3 problems:\n  \
             agent-port = \"80\" (a.toml line 7): is odd; choose another\n  \
             mode = \"grpc\" (default): mode must be set to x; set --mode=x\n  \
             server-cert (not set): server cert must be set; set it"
        );
    }
}
