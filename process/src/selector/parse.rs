//! The grammar of selectors, as `k8s.io/apimachinery/pkg/labels` reads it.

use super::{Condition, Requirement};

/// Most bytes of a label's name without its prefix, and of its value.
const MOST_BYTES: usize = 63;
/// Most bytes of the prefix, which is a DNS name.
const MOST_PREFIX_BYTES: usize = 253;

/// Why a text is not a selector. What is wrong with the grammar is told in the words of Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// Something that no requirement begins with.
    #[error("found '{found}', expected: !, identifier, or 'end of string'")]
    Start {
        /// What is there.
        found: String,
    },
    /// Something else than a comma behind a requirement.
    #[error("found '{found}', expected: ',' or 'end of string'")]
    Behind {
        /// What is there.
        found: String,
    },
    /// No requirement behind a comma.
    #[error("found '{found}', expected: identifier after ','")]
    AfterComma {
        /// What is there.
        found: String,
    },
    /// A requirement that is not complete.
    #[error("unable to parse requirement: found '{found}', expected: {expected}")]
    Requirement {
        /// What is there.
        found: String,
        /// What could be there.
        expected: &'static str,
    },
    /// Something else than a list of values behind `in` or `notin`.
    #[error("unable to parse requirement: found '{found}' expected: '('")]
    Parenthesis {
        /// What is there.
        found: String,
    },
    /// A name that labels cannot have.
    #[error(
        "unable to parse requirement: {label:?} is not a label's name: up to 63 letters, digits and any of -_. between them, \
         with a DNS name and a slash in front or without"
    )]
    Label {
        /// The name.
        label: String,
    },
    /// A value that labels cannot have.
    #[error(
        "unable to parse requirement: {value:?} is not a label's value: up to 63 letters, digits and any of -_. between them"
    )]
    Value {
        /// The value.
        value: String,
    },
    /// A comparison with something else than a number.
    #[error("unable to parse requirement: {value:?} is not a whole number, as '>' and '<' need it")]
    NotANumber {
        /// What is there.
        value: String,
    },
}

const OPERATOR: &str = "in, notin, =, ==, !=, gt, lt";

fn incomplete(found: &str, expected: &'static str) -> SelectorError {
    SelectorError::Requirement { found: found.to_owned(), expected }
}

/// All requirements, in the order they are written.
pub(super) fn requirements(text: &str) -> Result<Vec<Requirement>, SelectorError> {
    let mut tokens = Tokens { rest: text };
    let mut requirements = Vec::new();
    if tokens.peek().is_empty() {
        return Ok(requirements);
    }
    if !starts_requirement(tokens.peek()) {
        return Err(SelectorError::Start { found: tokens.peek().to_owned() });
    }
    loop {
        requirements.push(requirement(&mut tokens)?);
        match tokens.take() {
            "" => return Ok(requirements),
            "," if starts_requirement(tokens.peek()) => {}
            "," => return Err(SelectorError::AfterComma { found: tokens.peek().to_owned() }),
            found => return Err(SelectorError::Behind { found: found.to_owned() }),
        }
    }
}

fn requirement(tokens: &mut Tokens<'_>) -> Result<Requirement, SelectorError> {
    let absent = tokens.peek() == "!";
    if absent {
        tokens.take();
    }
    let label = tokens.identifier()?.to_owned();
    check_label(&label)?;
    if absent || matches!(tokens.peek(), "" | ",") {
        let condition = if absent { Condition::DoesNotExist } else { Condition::Exists };
        return Ok(Requirement { label, condition });
    }
    let condition = match tokens.take() {
        "=" => Condition::Equals(tokens.value()?),
        "==" => Condition::DoubleEquals(tokens.value()?),
        "!=" => Condition::NotEquals(tokens.value()?),
        ">" => Condition::GreaterThan(tokens.number()?),
        "<" => Condition::LessThan(tokens.number()?),
        "in" => Condition::In(tokens.values()?),
        "notin" => Condition::NotIn(tokens.values()?),
        found => return Err(incomplete(found, OPERATOR)),
    };
    Ok(Requirement { label, condition })
}

/// What is left to read. A token is one of `! ( ) , = == != > <` or a word; the empty one is the end.
struct Tokens<'a> {
    rest: &'a str,
}

fn is_symbol(c: char) -> bool {
    matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

fn is_word(token: &str) -> bool {
    !token.is_empty() && !token.starts_with(is_symbol)
}

fn starts_requirement(token: &str) -> bool {
    token == "!" || is_word(token)
}

impl<'a> Tokens<'a> {
    fn peek(&self) -> &'a str {
        let rest = self.rest.trim_start_matches(is_space);
        if let Some(symbol) = ["==", "!="].into_iter().find(|symbol| rest.starts_with(symbol)) {
            return &rest[..symbol.len()];
        }
        let end = rest.find(|c| is_symbol(c) || is_space(c)).unwrap_or(rest.len());
        match end {
            0 if rest.starts_with(is_symbol) => &rest[..1],
            end => &rest[..end],
        }
    }

    fn take(&mut self) -> &'a str {
        let token = self.peek();
        self.rest = &self.rest.trim_start_matches(is_space)[token.len()..];
        token
    }

    fn identifier(&mut self) -> Result<&'a str, SelectorError> {
        let found = self.take();
        if is_word(found) { Ok(found) } else { Err(incomplete(found, "identifier")) }
    }

    /// The value behind a comparison; nothing is a value too.
    fn value(&mut self) -> Result<String, SelectorError> {
        if matches!(self.peek(), "" | ",") {
            return Ok(String::new());
        }
        let value = self.identifier()?;
        check_value(value)?;
        Ok(value.to_owned())
    }

    fn number(&mut self) -> Result<i64, SelectorError> {
        let value = self.value()?;
        value.parse().map_err(|_| SelectorError::NotANumber { value })
    }

    /// Values in parentheses. Nothing between commas is a value too.
    fn values(&mut self) -> Result<Vec<String>, SelectorError> {
        let found = self.take();
        if found != "(" {
            return Err(SelectorError::Parenthesis { found: found.to_owned() });
        }
        let mut expected = "',', ')' or identifier";
        let mut values = Vec::new();
        loop {
            let value = if is_word(self.peek()) { self.take() } else { "" };
            values.push(value.to_owned());
            match self.take() {
                "," => {}
                ")" => break,
                found if value.is_empty() => return Err(incomplete(found, expected)),
                found => return Err(incomplete(found, "',' or ')'")),
            }
            expected = "',', or identifier";
        }
        values.sort();
        values.dedup();
        values.iter().try_for_each(|value| check_value(value))?;
        Ok(values)
    }
}

fn check_label(label: &str) -> Result<(), SelectorError> {
    let (prefix, name) = match label.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, label),
    };
    if is_name(name) && prefix.is_none_or(is_dns_name) {
        return Ok(());
    }
    Err(SelectorError::Label { label: label.to_owned() })
}

fn check_value(value: &str) -> Result<(), SelectorError> {
    if value.is_empty() || is_name(value) { Ok(()) } else { Err(SelectorError::Value { value: value.to_owned() }) }
}

fn is_name(text: &str) -> bool {
    let alphanumeric_ends = [text.bytes().next(), text.bytes().last()]
        .into_iter()
        .all(|byte| byte.is_some_and(|byte| byte.is_ascii_alphanumeric()));
    let bytes = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    alphanumeric_ends && text.len() <= MOST_BYTES && text.bytes().all(bytes)
}

/// A lowercase name of labels and dots (RFC 1123).
fn is_dns_name(text: &str) -> bool {
    let label = |label: &str| {
        let bytes = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty() && label.bytes().all(bytes) && !label.starts_with('-') && !label.ends_with('-')
    };
    text.len() <= MOST_PREFIX_BYTES && text.split('.').all(label)
}
