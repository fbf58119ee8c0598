//! What the options say of leases: whether this server keeps one, and what is in it.

use std::{ops::RangeInclusive, time::Duration};

use konnectivity_kubernetes::lease::{LeaseTerms, NAME_PREFIX};
use konnectivity_process::{check, duration::GoDuration, labels::Labels, problems::Problems};
use konnectivity_transport::{id::ServerId, server_list::ServerAddress};

use crate::{lease::LeaseSettings, options::Options};

/// For how long a lease may count, in seconds.
const DURATIONS: RangeInclusive<u64> = 1..=3_600;

/// Bytes of the name of an object.
const MOST_NAME_BYTES: usize = 253;

/// Checks them all. `None`: something is wrong; `Some(None)`: no leases.
pub(super) fn check(
    options: &Options,
    server_id: Option<&ServerId>,
    advertised: Option<&[ServerAddress]>,
    problems: &mut Problems,
) -> Option<Option<LeaseSettings>> {
    // The reference needs the labels although nothing uses them without leases.
    let labels = options.lease_label.parse::<Labels>();
    if let Err(error) = &labels {
        problems.rule("lease-label", error, "set it as in k8s-app=konnectivity-server");
    }
    let duration = duration(options.lease_duration, problems);
    let renew_interval = check::positive_duration(problems, "lease-renew-interval", options.lease_renew_interval);
    let collect_interval = check::positive_duration(problems, "lease-gc-interval", options.lease_gc_interval);
    if let (Some(duration), Some(renew_interval)) = (duration, renew_interval)
        && renew_interval >= duration
    {
        let reason = "is not shorter than --lease-duration, so that the lease would not count all the time";
        problems.add("lease-renew-interval", reason, "set it to half of --lease-duration");
    }
    if !options.enable_lease_controller {
        return Some(None);
    }
    if options.lease_namespace.is_empty() {
        problems.add("lease-namespace", "is empty", "set it to the namespace of the leases, such as kube-system");
    }
    if let Some(id) = server_id
        && !is_name(id.as_str())
    {
        let reason = format!("{id:?} cannot be in the name of a lease, which has only a-z, 0-9, hyphens and dots");
        problems.add("server-id", reason, "set it to the host's name in small letters, for instance");
    }
    let terms = LeaseTerms {
        namespace: options.lease_namespace.clone(),
        labels: labels.ok()?.0,
        server_id: server_id?.to_string(),
        duration: duration?,
        addresses: advertised?.iter().map(ToString::to_string).collect(),
    };
    Some(Some(LeaseSettings { terms, renew_interval: renew_interval?, collect_interval: collect_interval? }))
}

fn duration(duration: GoDuration, problems: &mut Problems) -> Option<Duration> {
    let usable = |duration: &Duration| duration.subsec_nanos() == 0 && DURATIONS.contains(&duration.as_secs());
    let checked = duration.to_std().filter(usable);
    if checked.is_none() {
        let reason = format!("{duration} is not a number of seconds from {} to {}", DURATIONS.start(), DURATIONS.end());
        problems.add("lease-duration", reason, "set it to 30s, for instance");
    }
    checked
}

/// Whether an object may be called so, behind the prefix (RFC 1123).
fn is_name(id: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
    let edge = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    id.bytes().all(fits)
        && edge(id.as_bytes().last())
        && !id.contains("..")
        && !id.contains(".-")
        && !id.contains("-.")
        && NAME_PREFIX.len() + id.len() <= MOST_NAME_BYTES
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Fixture, refused, valid};
    use super::*;

    fn with(fixture: &Fixture, flags: &[&str]) -> Vec<String> {
        fixture.tcp().into_iter().chain(flags.iter().map(|&flag| flag.to_owned())).collect()
    }

    #[test]
    fn leases_are_those_of_the_reference_unless_told_otherwise() {
        let fixture = Fixture::new();
        assert_eq!(valid(&with(&fixture, &[])).leases, None);
        let flags = ["--enable-lease-controller", "--server-id=server-1", "--advertise-agent-addresses=192.0.2.1"];
        let leases = valid(&with(&fixture, &flags)).leases.unwrap();
        let expected = LeaseSettings {
            terms: LeaseTerms {
                namespace: "kube-system".into(),
                labels: [("k8s-app".to_owned(), "konnectivity-server".to_owned())].into(),
                server_id: "server-1".into(),
                duration: Duration::from_secs(30),
                addresses: vec!["192.0.2.1:8091".into()],
            },
            renew_interval: Duration::from_secs(15),
            collect_interval: Duration::from_secs(15),
        };
        assert_eq!(leases, expected);
        assert!(valid(&with(&fixture, &["--enable-lease-controller"])).leases.is_some(), "a UUID is a name");
    }

    #[test]
    fn what_cannot_be_is_named() {
        let fixture = Fixture::new();
        for (flag, expected) in [
            ("--server-id=Server 1", "cannot be in the name of a lease"),
            ("--server-id=a.-b", "cannot be in the name of a lease"),
            ("--server-id=a-", "cannot be in the name of a lease"),
            ("--lease-duration=1500ms", "1.5s is not a number of seconds from 1 to 3600"),
            ("--lease-duration=0", "is not a number of seconds"),
            ("--lease-renew-interval=30s", "is not shorter than --lease-duration"),
            ("--lease-gc-interval=0", "must be greater than 0"),
            ("--lease-namespace=", "is empty"),
            ("--lease-label=", "empty string provided"),
            ("--peer-servers=a=h", "cannot be used with --enable-lease-controller"),
        ] {
            let problems = refused(&with(&fixture, &["--enable-lease-controller", flag]));
            assert!(problems.iter().any(|problem| problem.contains(expected)), "{flag}: {problems:?}");
            assert_eq!(problems.len(), 1, "{problems:?}");
        }
        let long = "x".repeat(MOST_NAME_BYTES - NAME_PREFIX.len());
        assert!(is_name(&long) && !is_name(&format!("{long}x")));
    }
}
