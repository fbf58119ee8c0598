//! What a drop-in must take: the reference's flags with their types and defaults, and the arguments that its manifests
//! and tests have.

use std::path::Path;

use konnectivity_process::testing::reference::{self, Differences, KLOG, Kind::*, ReferenceFlag, Status::*, row};

use super::tests::{Fixture, valid};
use super::*;

/// Every flag of the reference's agent but klog's, in its order.
const REFERENCE: &[ReferenceFlag] = &[
    row("agent-cert", Text, "", Same, ""),
    row("agent-key", Text, "", Same, ""),
    row("ca-cert", Text, "", Same, ""),
    row("proxy-server-host", Text, "127.0.0.1", Same, ""),
    row("proxy-server-port", Int, "8091", Same, "Open both"),
    row("alpn-proto", Strings, "", Same, "Names have 1 to 255 bytes"),
    row("health-server-host", Text, "", Same, ""),
    row("health-server-port", Int, "8093", Same, ""),
    row("admin-bind-address", Text, "127.0.0.1", Same, ""),
    row("admin-server-port", Int, "8094", Same, ""),
    row("enable-profiling", Bool, "false", Same, ""),
    row("enable-contention-profiling", Bool, "false", WithoutEffect, ""),
    row("agent-id", Text, "", Same, "Only printable ASCII, at most 256 bytes"),
    row("agent-identifiers", Text, "", Same, ""),
    row("sync-interval", Duration, "1s", Same, "Above 0, where the reference takes any"),
    row("probe-interval", Duration, "1s", WithoutEffect, ""),
    row("sync-interval-cap", Duration, "10s", Same, "Above 0, where the reference takes any"),
    row("keepalive-time", Duration, "1h0m0s", Same, ""),
    row(
        "service-account-token-path",
        Text,
        "",
        Same,
        "White space at the ends of the file is left out, where an agent of the reference fails",
    ),
    row("warn-on-channel-limit", Bool, "false", WithoutEffect, ""),
    row("sync-forever", Bool, "false", Same, ""),
    row("xfr-channel-size", Int, "150", WithoutEffect, ""),
    row(
        "count-server-leases",
        Bool,
        "false",
        Same,
        "The agent does not wait for the leases; until it has them, the servers' own count is what there is",
    ),
    row("lease-namespace", Text, "kube-system", Same, ""),
    row("lease-label-selector", Selector, "k8s-app=konnectivity-server", Same, ""),
    row(
        "lease-label",
        Selector,
        "k8s-app=konnectivity-server",
        Same,
        "This is the older name of lease-label-selector, which --help does not show; of the two, the last one counts",
    ),
    row("server-count-source", Text, "default", Same, ""),
    row("kubeconfig", Text, "", Same, ""),
    row("kube-api-content-type", Text, "application/vnd.kubernetes.protobuf", WithoutEffect, ""),
];

/// No default differs.
const DIFFERENCES: &Differences = &[];

/// Arguments of the reference's manifests and tests. Files of `/var/run/secrets` are the cluster's.
const KIND: &str = "--logtostderr=true --ca-cert=/var/run/secrets/kubernetes.io/serviceaccount/ca.crt \
    --proxy-server-host=konnectivity-server.kube-system.svc.cluster.local --proxy-server-port=8091 --sync-interval=5s \
    --sync-interval-cap=30s --probe-interval=5s \
    --service-account-token-path=/var/run/secrets/tokens/konnectivity-agent-token --agent-identifiers=ipv4=$(HOST_IP)";
const POD: &str = "--logtostderr=true --ca-cert=/var/run/secrets/kubernetes.io/serviceaccount/ca.crt \
    --proxy-server-host=${CLUSTER_IP} --proxy-server-port=8091 \
    --service-account-token-path=/var/run/secrets/tokens/konnectivity-agent-token";
const END_TO_END: &str = "--logtostderr=true --ca-cert=/var/run/secrets/kubernetes.io/serviceaccount/ca.crt \
    --proxy-server-host=konnectivity-server.kube-system.svc.cluster.local --proxy-server-port=8091 --sync-interval=1s \
    --sync-interval-cap=10s --sync-forever --probe-interval=1s \
    --service-account-token-path=/var/run/secrets/tokens/konnectivity-agent-token --count-server-leases \
    --agent-identifiers=ipv4=${HOST_IP} --admin-bind-address=";
/// The command line of an external agent, which has every flag but klog's, by name.
const INTEGRATION: &str = "--admin-bind-address=127.0.0.1 --admin-server-port=40001 \
    --agent-cert=/var/run/secrets/anp-test-agent.crt --agent-id=multipleAgentConn --agent-identifiers= \
    --agent-key=/var/run/secrets/anp-test-agent.key --alpn-proto=[] --ca-cert=/var/run/secrets/anp-test-ca.crt \
    --count-server-leases=false --enable-contention-profiling=false --enable-profiling=false \
    --health-server-host=127.0.0.1 --health-server-port=40002 --keepalive-time=1h0m0s \
    --kube-api-content-type=application/vnd.kubernetes.protobuf --kubeconfig= \
    --lease-label=k8s-app=konnectivity-server --lease-label-selector=k8s-app=konnectivity-server \
    --lease-namespace=kube-system --probe-interval=100ms --proxy-server-host=localhost --proxy-server-port=40003 \
    --server-count-source=default --service-account-token-path= --sync-forever=false --sync-interval=100ms \
    --sync-interval-cap=1s --warn-on-channel-limit=false --xfr-channel-size=150";

fn reference() -> Vec<ReferenceFlag> {
    [REFERENCE, &KLOG].concat()
}

/// A folder with the files of `/var/run/secrets` that the arguments name.
struct Cluster(Fixture);

impl Cluster {
    fn new() -> Self {
        let fixture = Fixture::new();
        for folder in ["kubernetes.io/serviceaccount", "tokens"] {
            std::fs::create_dir_all(fixture.path(folder)).unwrap();
        }
        for file in [
            "kubernetes.io/serviceaccount/ca.crt",
            "tokens/konnectivity-agent-token",
            "anp-test-agent.crt",
            "anp-test-agent.key",
            "anp-test-ca.crt",
        ] {
            std::fs::write(fixture.path(file), "").unwrap();
        }
        Self(fixture)
    }

    /// The arguments, with the folder in place of the cluster's.
    fn arguments(&self, text: &str) -> Vec<String> {
        let folder = self.0.path("");
        let folder = folder.trim_end_matches('/');
        text.split_whitespace().map(|argument| argument.replace("/var/run/secrets", folder)).collect()
    }
}

#[test]
fn every_flag_of_the_reference_is_here() {
    reference::check_flags::<Options>(&reference(), DIFFERENCES);
}

#[test]
fn compatibility_document_is_current() {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/compatibility.md"));
    reference::check_document::<Options>(path, &reference(), DIFFERENCES);
}

#[test]
fn manifests_are_taken() {
    let cluster = Cluster::new();
    let kind = valid(&cluster.arguments(KIND));
    assert_eq!(kind.token, Some(TokenFile::new(cluster.0.path("tokens/konnectivity-agent-token").into())));
    assert_eq!(kind.identifiers.ipv4, ["$(HOST_IP)"]);
    assert_eq!(kind.server.host, "konnectivity-server.kube-system.svc.cluster.local");
    valid(&cluster.arguments(POD));
    let end_to_end = valid(&cluster.arguments(END_TO_END));
    assert_eq!(end_to_end.identifiers.ipv4, ["${HOST_IP}"]);
    assert!(end_to_end.reconnect.forever && end_to_end.admin.all_interfaces);
    let leases = end_to_end.leases.unwrap();
    assert_eq!((leases.scope.namespace.as_str(), leases.kubeconfig), ("kube-system", None));
    assert_eq!(leases.scope.selector, "k8s-app=konnectivity-server");
}

#[test]
fn the_command_line_of_an_external_agent_is_taken() {
    let cluster = Cluster::new();
    let arguments = cluster.arguments(INTEGRATION);
    let names: Vec<_> = arguments.iter().map(|argument| argument.split('=').next().unwrap()).collect();
    let mut reference: Vec<_> = REFERENCE.iter().map(|flag| format!("--{}", flag.name)).collect();
    reference.sort();
    assert_eq!(names, reference, "every flag, in the order of names");
    let config = valid(&arguments);
    assert_eq!(config.agent_id.as_str(), "multipleAgentConn");
    assert_eq!(config.reconnect.interval, std::time::Duration::from_millis(100));
    assert!(config.tls.identity.is_some());
}

#[test]
fn the_last_of_both_names_of_the_selector_counts() {
    let fixture = Fixture::new();
    for (flags, expected) in [
        (["--lease-label=a=b", "--lease-label-selector=c=d"], "c=d"),
        (["--lease-label-selector=c=d", "--lease-label=a=b"], "a=b"),
    ] {
        let config = valid(&fixture.with(&flags));
        assert_eq!(config.effective.value("lease-label-selector"), Some(expected));
    }
}
