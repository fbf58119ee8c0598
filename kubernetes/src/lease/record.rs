//! What is in a lease.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};

/// A lease is called so, with the server's id behind it.
pub const NAME_PREFIX: &str = "konnectivity-proxy-server-";

/// Annotation with the addresses at which agents reach the server, `host:port` with commas.
pub const ADDRESSES_ANNOTATION: &str = "konnectivity-quic/agent-addresses";

/// Addresses that are read of a lease, and bytes of each: more than any server has.
const MOST_ADDRESSES: usize = 16;
const MOST_ADDRESS_BYTES: usize = 512;

/// A lease, as far as it matters to those who count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerLease {
    /// Of the object.
    pub name: String,
    /// Of the object's content; changes with every write.
    pub version: String,
    /// Whose lease it is.
    pub server_id: String,
    /// When it was renewed, or else acquired, by the holder's clock.
    pub renewed: Option<SystemTime>,
    /// For how long it counts after that. `None`, which includes nonsense: it never counts.
    pub duration: Option<Duration>,
    /// Where agents reach the server, as it says. Not checked.
    pub addresses: Vec<String>,
}

impl From<Lease> for ServerLease {
    fn from(lease: Lease) -> Self {
        let name = lease.metadata.name.unwrap_or_default();
        let spec = lease.spec.unwrap_or_default();
        let annotations = lease.metadata.annotations.unwrap_or_default();
        let addresses = annotations.get(ADDRESSES_ANNOTATION).map(String::as_str).unwrap_or_default().split(',');
        let usable = |address: &&str| (1..=MOST_ADDRESS_BYTES).contains(&address.len());
        let duration = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        Self {
            server_id: spec
                .holder_identity
                .filter(|holder| !holder.is_empty())
                .unwrap_or_else(|| name.strip_prefix(NAME_PREFIX).unwrap_or(&name).to_owned()),
            version: lease.metadata.resource_version.unwrap_or_default(),
            renewed: spec.renew_time.or(spec.acquire_time).map(|MicroTime(time)| time.into()),
            duration: duration.filter(|seconds| *seconds > 0).map(Duration::from_secs),
            addresses: addresses.map(str::trim).filter(usable).take(MOST_ADDRESSES).map(str::to_owned).collect(),
            name,
        }
    }
}

/// What a server writes into its lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseTerms {
    /// Namespace of the object.
    pub namespace: String,
    /// Its labels, all of them.
    pub labels: BTreeMap<String, String>,
    /// Whose lease it is.
    pub server_id: String,
    /// For how long it counts, in whole seconds.
    pub duration: Duration,
    /// Where agents reach the server, `host:port` each.
    pub addresses: Vec<String>,
}

impl LeaseTerms {
    /// The object's name.
    pub fn name(&self) -> String {
        format!("{NAME_PREFIX}{}", self.server_id)
    }

    /// The object, renewed `now`. Of the `current` one everything stays that nobody here is concerned with.
    pub(crate) fn object(&self, current: Option<&Lease>, now: SystemTime) -> Lease {
        let mut lease = current.cloned().unwrap_or_default();
        lease.metadata.name = Some(self.name());
        lease.metadata.namespace = Some(self.namespace.clone());
        lease.metadata.labels = Some(self.labels.clone());
        let annotations = lease.metadata.annotations.get_or_insert_default();
        match self.addresses.is_empty() {
            true => annotations.remove(ADDRESSES_ANNOTATION),
            false => annotations.insert(ADDRESSES_ANNOTATION.to_owned(), self.addresses.join(",")),
        };
        if annotations.is_empty() {
            lease.metadata.annotations = None;
        }
        let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
        spec.holder_identity = Some(self.server_id.clone());
        spec.lease_duration_seconds = Some(i32::try_from(self.duration.as_secs()).unwrap_or(i32::MAX));
        spec.renew_time = Some(MicroTime(micros(now)));
        lease
    }
}

/// A time that survives being written: with microseconds, and within what can be written.
fn micros(time: SystemTime) -> Timestamp {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros())
        .ok()
        .and_then(|micros| Timestamp::from_microsecond(micros).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms() -> LeaseTerms {
        LeaseTerms {
            namespace: "kube-system".into(),
            labels: [("k8s-app".to_owned(), "konnectivity-server".to_owned())].into(),
            server_id: "server-1".into(),
            duration: Duration::from_secs(30),
            addresses: vec!["192.0.2.1:8091".into(), "[2001:db8::1]:8091".into()],
        }
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_lease_is_written_as_the_reference_writes_it() {
        let lease = LeaseTerms { addresses: Vec::new(), ..terms() }.object(None, at(1_700_000_000));
        let expected = serde_json::json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": "konnectivity-proxy-server-server-1",
                "namespace": "kube-system",
                "labels": {"k8s-app": "konnectivity-server"},
            },
            "spec": {
                "holderIdentity": "server-1",
                "leaseDurationSeconds": 30,
                "renewTime": "2023-11-14T22:13:20.000000Z",
            },
        });
        assert_eq!(serde_json::to_value(lease).unwrap(), expected);
    }

    #[test]
    fn what_was_written_is_read() {
        let read = ServerLease::from(terms().object(None, at(1_700_000_000)));
        let expected = ServerLease {
            name: "konnectivity-proxy-server-server-1".into(),
            version: String::new(),
            server_id: "server-1".into(),
            renewed: Some(at(1_700_000_000)),
            duration: Some(Duration::from_secs(30)),
            addresses: terms().addresses,
        };
        assert_eq!(read, expected);
    }

    #[test]
    fn a_renewal_keeps_what_is_others_and_takes_all_labels() {
        let mut current = terms().object(None, at(1));
        current.metadata.resource_version = Some("7".into());
        current.metadata.uid = Some("u".into());
        current.metadata.labels.as_mut().unwrap().insert("other".into(), "x".into());
        current.metadata.annotations.as_mut().unwrap().insert("other".into(), "x".into());
        let renewed = LeaseTerms { addresses: Vec::new(), ..terms() }.object(Some(&current), at(2));
        assert_eq!(
            (renewed.metadata.resource_version.as_deref(), renewed.metadata.uid.as_deref()),
            (Some("7"), Some("u"))
        );
        assert_eq!(renewed.metadata.labels, Some(terms().labels));
        assert_eq!(renewed.metadata.annotations, Some([("other".to_owned(), "x".to_owned())].into()));
        assert_eq!(ServerLease::from(renewed).renewed, Some(at(2)));
    }

    #[test]
    fn strange_leases_are_read() {
        let read = |lease: &str| ServerLease::from(serde_json::from_str::<Lease>(lease).unwrap());
        let empty = read("{}");
        assert_eq!((empty.renewed, empty.duration, empty.addresses.len()), (None, None, 0));
        let named = read(r#"{"metadata": {"name": "konnectivity-proxy-server-a"}, "spec": {"holderIdentity": ""}}"#);
        assert_eq!(named.server_id, "a");
        for duration in ["0", "-1", "-2147483648"] {
            assert_eq!(read(&format!(r#"{{"spec": {{"leaseDurationSeconds": {duration}}}}}"#)).duration, None);
        }
        let acquired = read(r#"{"spec": {"acquireTime": "1970-01-01T00:00:07.000000Z"}}"#);
        assert_eq!(acquired.renewed, Some(at(7)));
        let long = format!(",{},a:1, b:2 ,{}", "x".repeat(1_000), "c:3,".repeat(100));
        let many = read(&format!(r#"{{"metadata": {{"annotations": {{"{ADDRESSES_ANNOTATION}": "{long}"}}}}}}"#));
        assert_eq!(many.addresses.len(), MOST_ADDRESSES);
        assert_eq!(many.addresses[..3], ["a:1", "b:2", "c:3"]);
    }
}
