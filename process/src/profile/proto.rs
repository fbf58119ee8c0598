//! The messages of pprof's `profile.proto` (github.com/google/pprof), as far as a CPU profile has them.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use pprof::{Frames, Symbol};

/// Stacks and how often each was seen. Texts are places in `string_table`, ids begin at 1.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Profile {
    /// What the values of a sample are.
    #[prost(message, repeated, tag = "1")]
    pub sample_type: Vec<ValueType>,
    /// Each stack once for each thread.
    #[prost(message, repeated, tag = "2")]
    pub sample: Vec<Sample>,
    /// Places in code.
    #[prost(message, repeated, tag = "4")]
    pub location: Vec<Location>,
    /// Functions that they are in.
    #[prost(message, repeated, tag = "5")]
    pub function: Vec<Function>,
    /// All texts; the first is empty.
    #[prost(string, repeated, tag = "6")]
    pub string_table: Vec<String>,
    /// When it began, in nanoseconds since 1970.
    #[prost(int64, tag = "9")]
    pub time_nanos: i64,
    /// How long it took.
    #[prost(int64, tag = "10")]
    pub duration_nanos: i64,
    /// What is between two samples.
    #[prost(message, optional, tag = "11")]
    pub period_type: Option<ValueType>,
    /// How much of it.
    #[prost(int64, tag = "12")]
    pub period: i64,
}

/// A kind of value and its unit.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct ValueType {
    /// Text: the kind.
    #[prost(int64, tag = "1")]
    pub r#type: i64,
    /// Text: the unit.
    #[prost(int64, tag = "2")]
    pub unit: i64,
}

/// A stack.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Sample {
    /// Locations, the innermost first.
    #[prost(uint64, repeated, tag = "1")]
    pub location_id: Vec<u64>,
    /// As many as there are kinds.
    #[prost(int64, repeated, tag = "2")]
    pub value: Vec<i64>,
    /// What tells it from others.
    #[prost(message, repeated, tag = "3")]
    pub label: Vec<Label>,
}

/// What tells samples apart.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Label {
    /// Text: the label's name.
    #[prost(int64, tag = "1")]
    pub key: i64,
    /// Text: its value.
    #[prost(int64, tag = "2")]
    pub str: i64,
}

/// A place in code.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Location {
    /// Its number.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// The function, and before it those that were inlined into it.
    #[prost(message, repeated, tag = "4")]
    pub line: Vec<Line>,
}

/// A line of a function.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct Line {
    /// The function's number.
    #[prost(uint64, tag = "1")]
    pub function_id: u64,
    /// The line in its file.
    #[prost(int64, tag = "2")]
    pub line: i64,
}

/// A function.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Function {
    /// Its number.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Text: its name for people.
    #[prost(int64, tag = "2")]
    pub name: i64,
    /// Text: its name for linkers.
    #[prost(int64, tag = "3")]
    pub system_name: i64,
    /// Text: its file.
    #[prost(int64, tag = "4")]
    pub filename: i64,
}

/// Makes a [`Profile`] of stacks, each text, function and place once.
pub struct Builder {
    profile: Profile,
    texts: HashMap<String, i64>,
    functions: HashMap<(i64, i64), u64>,
    locations: HashMap<Vec<Line>, u64>,
    period: i64,
    thread: i64,
}

impl Builder {
    /// Nothing yet: begun then, over that time, with so many samples in a second of CPU time.
    pub fn new(start: SystemTime, duration: Duration, frequency: i32) -> Self {
        let period = 1_000_000_000 / i64::from(frequency);
        let time = start.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let profile =
            Profile { time_nanos: nanos(time), duration_nanos: nanos(duration), period, ..Profile::default() };
        let (texts, functions, locations) = (HashMap::new(), HashMap::new(), HashMap::new());
        let mut builder = Self { profile, texts, functions, locations, period, thread: 0 };
        builder.text("");
        builder.thread = builder.text("thread");
        let samples = ValueType { r#type: builder.text("samples"), unit: builder.text("count") };
        let cpu = ValueType { r#type: builder.text("cpu"), unit: builder.text("nanoseconds") };
        builder.profile.sample_type = vec![samples, cpu];
        builder.profile.period_type = Some(cpu);
        builder
    }

    /// A stack that was seen so often.
    pub fn add(&mut self, stack: &Frames, count: isize) {
        let location_id = stack.frames.iter().map(|symbols| self.location(symbols)).collect();
        let label = Label { key: self.thread, str: self.text(&stack.thread_name_or_id()) };
        let count = count as i64;
        let value = vec![count, count.saturating_mul(self.period)];
        self.profile.sample.push(Sample { location_id, value, label: vec![label] });
    }

    /// All of it.
    pub fn finish(self) -> Profile {
        self.profile
    }

    fn location(&mut self, symbols: &[Symbol]) -> u64 {
        let line: Vec<_> = symbols.iter().map(|symbol| self.line(symbol)).collect();
        if let Some(id) = self.locations.get(&line) {
            return *id;
        }
        let id = self.profile.location.len() as u64 + 1;
        self.profile.location.push(Location { id, line: line.clone() });
        self.locations.insert(line, id);
        id
    }

    fn line(&mut self, symbol: &Symbol) -> Line {
        let name = self.text(&symbol.name());
        let filename = self.text(&symbol.filename());
        let function_id = match self.functions.get(&(name, filename)) {
            Some(id) => *id,
            None => {
                let id = self.profile.function.len() as u64 + 1;
                let system_name = self.text(&symbol.sys_name());
                self.profile.function.push(Function { id, name, system_name, filename });
                self.functions.insert((name, filename), id);
                id
            }
        };
        Line { function_id, line: symbol.lineno().into() }
    }

    fn text(&mut self, text: &str) -> i64 {
        if let Some(place) = self.texts.get(text) {
            return *place;
        }
        let place = self.profile.string_table.len() as i64;
        self.profile.string_table.push(text.to_owned());
        self.texts.insert(text.to_owned(), place);
        place
    }
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}
