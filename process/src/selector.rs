//! Selectors of Kubernetes objects by their labels: `a=b,c in (d,e),!f`.

mod parse;

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

pub use parse::SelectorError;

/// What labels must be like. Without requirements, every object is selected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector {
    /// By the labels' names; those of one name in the order they were written.
    requirements: Vec<Requirement>,
}

/// What one label must be like.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    label: String,
    condition: Condition,
}

/// The values are sorted, and each is there once.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Condition {
    /// `a=b`
    Equals(String),
    /// `a==b`, the same.
    DoubleEquals(String),
    /// `a!=b`: true, too, of objects without the label.
    NotEquals(String),
    /// `a in (b,c)`
    In(Vec<String>),
    /// `a notin (b,c)`: true, too, of objects without the label.
    NotIn(Vec<String>),
    /// `a`
    Exists,
    /// `!a`
    DoesNotExist,
    /// `a>1`
    GreaterThan(i64),
    /// `a<1`
    LessThan(i64),
}

impl Selector {
    /// Whether an object with these labels is selected.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.requirements.iter().all(|requirement| {
            let value = labels.get(&requirement.label).map(String::as_str);
            requirement.condition.holds(value)
        })
    }
}

impl Condition {
    /// `None`: the object doesn't have the label.
    fn holds(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match self {
            Self::Equals(wanted) | Self::DoubleEquals(wanted) => value == Some(wanted),
            Self::NotEquals(unwanted) => value != Some(unwanted),
            Self::In(wanted) => value.is_some_and(|value| wanted.iter().any(|wanted| wanted == value)),
            Self::NotIn(unwanted) => value.is_none_or(|value| unwanted.iter().all(|unwanted| unwanted != value)),
            Self::Exists => value.is_some(),
            Self::DoesNotExist => value.is_none(),
            Self::GreaterThan(bound) => number().is_some_and(|number| number > *bound),
            Self::LessThan(bound) => number().is_some_and(|number| number < *bound),
        }
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let mut requirements = parse::requirements(text)?;
        requirements.sort_by(|one, other| one.label.cmp(&other.label));
        Ok(Self { requirements })
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, requirement) in self.requirements.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            write!(f, "{comma}{requirement}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let label = &self.label;
        match &self.condition {
            Condition::Equals(value) => write!(f, "{label}={value}"),
            Condition::DoubleEquals(value) => write!(f, "{label}=={value}"),
            Condition::NotEquals(value) => write!(f, "{label}!={value}"),
            Condition::In(values) => write!(f, "{label} in ({})", values.join(",")),
            Condition::NotIn(values) => write!(f, "{label} notin ({})", values.join(",")),
            Condition::Exists => write!(f, "{label}"),
            Condition::DoesNotExist => write!(f, "!{label}"),
            Condition::GreaterThan(bound) => write!(f, "{label}>{bound}"),
            Condition::LessThan(bound) => write!(f, "{label}<{bound}"),
        }
    }
}

impl Serialize for Selector {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Selector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
