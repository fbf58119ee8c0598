//! Identifiers of an agent, compared with what another library makes of the same query.
#![no_main]

use konnectivity_transport::identifier::{IdentifierError, Identifiers};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|query: &str| {
    let parsed = Identifiers::parse(query);
    let strict = Identifiers::parse_strict(query);
    match &parsed {
        Ok(identifiers) => {
            assert_eq!(identifiers, &by_another_library(query));
            assert!(strict == parsed || matches!(strict, Err(IdentifierError::UnknownKey { .. })));
        }
        Err(IdentifierError::Semicolon { pair }) => {
            assert!(pair.contains(';') && query.contains(pair))
        }
        Err(IdentifierError::BadEscape { escape }) => {
            assert!(escape.starts_with('%') && query.contains(escape))
        }
        Err(IdentifierError::UnknownKey { key }) => panic!("parse minds the unknown key {key:?}"),
    }
    assert!(parsed.is_ok() || strict.is_err());
});

/// The WHATWG rules are Go's rules without the errors.
fn by_another_library(query: &str) -> Identifiers {
    let values = |wanted: &str| {
        let pairs = form_urlencoded::parse(query.as_bytes());
        pairs.filter(|(key, _)| key == wanted).map(|(_, value)| value.into_owned()).collect::<Vec<_>>()
    };
    let first_default_route = values("default-route").into_iter().next().unwrap_or_default();
    Identifiers {
        ipv4: values("ipv4"),
        ipv6: values("ipv6"),
        host: values("host"),
        cidr: values("cidr"),
        default_route: ["1", "t", "T", "true", "TRUE", "True"].contains(&first_default_route.as_str()),
    }
}
