//! What a drop-in must take: the reference's flags with their types and defaults, and the arguments that its manifests
//! and tests have.

use std::path::Path;

use konnectivity_process::testing::reference::{self, Differences, KLOG, Kind::*, ReferenceFlag, Status::*, row};

use super::tests::{Fixture, valid};
use super::*;
use crate::auth::Expected;

/// Every flag of the reference's server but klog's, in its order.
const REFERENCE: &[ReferenceFlag] = &[
    row("server-cert", Text, "", Same, ""),
    row("server-key", Text, "", Same, ""),
    row("server-ca-cert", Text, "", Same, ""),
    row("cluster-cert", Text, "", Same, ""),
    row("cluster-key", Text, "", Same, ""),
    row(
        "cluster-ca-cert",
        Text,
        "",
        Same,
        "The reference without it lets any agent in, silently; here that must be asked for by \
         --allow-unauthenticated-agents. Together with tokens, which the reference refuses, agents need both",
    ),
    row("mode", Text, "grpc", Same, ""),
    row("uds-name", Text, "", Same, "--server-port may be left out with it, where the reference needs --server-port=0"),
    row("delete-existing-uds-file", Bool, "true", Same, "Something that is not a socket is never removed"),
    row("server-port", Int, "8090", Same, ""),
    row("server-bind-address", Text, "", Same, ""),
    row("agent-port", Int, "8091", Same, "The reference has TCP only: open the same number for UDP, too"),
    row("agent-bind-address", Text, "", Same, ""),
    row("health-port", Int, "8092", Same, ""),
    row("health-bind-address", Text, "", Same, ""),
    row("admin-port", Int, "8095", Same, ""),
    row("admin-bind-address", Text, "127.0.0.1", Same, ""),
    row("keepalive-time", Duration, "1h0m0s", Same, "A negative one is refused"),
    row("frontend-keepalive-time", Duration, "1h0m0s", Same, "A negative one is refused"),
    row("enable-profiling", Bool, "false", Same, ""),
    row("enable-contention-profiling", Bool, "false", WithoutEffect, ""),
    row("server-id", Text, "", Same, "Only printable ASCII, at most 256 bytes"),
    row("server-count", Int, "1", Same, "From 1 to 1000, where the reference takes any number"),
    row("agent-namespace", Text, "", Same, ""),
    row("agent-service-account", Text, "", Same, ""),
    row("authentication-audience", Text, "", Same, ""),
    row("kubeconfig", Text, "", Same, ""),
    row("kubeconfig-qps", Float32, "0", Same, ""),
    row("kubeconfig-burst", Int, "0", Same, "A negative one is refused"),
    row("kube-api-content-type", Text, "application/vnd.kubernetes.protobuf", WithoutEffect, ""),
    row("proxy-strategies", Text, "default", Same, "leastLoaded is not in the reference"),
    row("cipher-suites", Strings, "", Same, "The suites with CBC are taken with a warning and are not used"),
    row("tls-min-version", Text, "", Same, ""),
    row("xfr-channel-size", Int, "10", WithoutEffect, ""),
    row(
        "enable-lease-controller",
        Bool,
        "false",
        Same,
        "The lease is deleted when the drain begins, not when it ends. --server-id must be fit for the name of an object",
    ),
    row("lease-namespace", Text, "kube-system", Same, ""),
    row("lease-label", Text, "k8s-app=konnectivity-server", Same, ""),
    row(
        "graceful-shutdown-timeout",
        Duration,
        "0s",
        Same,
        "Not 0s, so that running dials survive a restart of the server where nothing was said",
    ),
    row(
        "backend-dial-timeout",
        Duration,
        "0s",
        Same,
        "Not 0s, since an agent that never answers would keep the dial for ever",
    ),
    row("warn-on-channel-limit", Bool, "true", WithoutEffect, ""),
];

/// Defaults that are not the reference's.
const DIFFERENCES: &Differences = &[("graceful-shutdown-timeout", "20s"), ("backend-dial-timeout", "30s")];

/// Arguments of the reference's manifests and tests. Files of `/etc/kubernetes` are the cluster's; a socket of this name
/// is made by the server.
const KIND: &str = "--log-file=/var/log/konnectivity-server.log --logtostderr=true --log-file-max-size=0 \
    --uds-name=/etc/kubernetes/konnectivity-server/konnectivity-server.socket --delete-existing-uds-file \
    --cluster-cert=/etc/kubernetes/pki/apiserver.crt --cluster-key=/etc/kubernetes/pki/apiserver.key --server-port=0 \
    --agent-port=8091 --health-port=8092 --admin-port=8093 --keepalive-time=1h --mode=grpc \
    --agent-namespace=kube-system --agent-service-account=konnectivity-agent --kubeconfig=/etc/kubernetes/admin.conf \
    --authentication-audience=system:konnectivity-server";
const STATIC_POD: &str = "--log-file=/var/log/konnectivity-server.log --logtostderr=false --log-file-max-size=0 \
    --uds-name=/etc/kubernetes/konnectivity-server/konnectivity-server.socket \
    --cluster-cert=/etc/kubernetes/pki/apiserver.crt --cluster-key=/etc/kubernetes/pki/apiserver.key --server-port=0 \
    --agent-port=8091 --health-port=8092 --admin-port=8093 --keepalive-time=1h --mode=http-connect \
    --agent-namespace=kube-system --agent-service-account=konnectivity-agent --kubeconfig=/etc/kubernetes/admin.conf \
    --authentication-audience=system:konnectivity-server";
const END_TO_END: &str = "--log-file=/var/log/konnectivity-server.log --logtostderr=true --log-file-max-size=0 \
    --uds-name=/etc/kubernetes/konnectivity-server/konnectivity-server.socket --delete-existing-uds-file \
    --cluster-cert=/etc/kubernetes/pki/apiserver.crt --cluster-key=/etc/kubernetes/pki/apiserver.key --server-port=0 \
    --kubeconfig=/etc/kubernetes/admin.conf --keepalive-time=1h --mode=grpc --agent-namespace=kube-system \
    --agent-service-account=konnectivity-agent --authentication-audience=system:konnectivity-server \
    --admin-bind-address= --server-count=3 --mode=http-connect";

fn reference() -> Vec<ReferenceFlag> {
    [REFERENCE, &KLOG].concat()
}

/// A folder with the files of `/etc/kubernetes` that the manifests name.
struct Cluster(Fixture);

impl Cluster {
    fn new() -> Self {
        let fixture = Fixture::new();
        for folder in ["pki", "konnectivity-server"] {
            std::fs::create_dir(fixture.path(folder)).unwrap();
        }
        for file in ["pki/apiserver.crt", "pki/apiserver.key", "pki/ca.crt", "admin.conf"] {
            std::fs::write(fixture.path(file), "").unwrap();
        }
        Self(fixture)
    }

    /// The arguments, with the folder in place of the cluster's.
    fn arguments(&self, text: &str) -> Vec<String> {
        let folder = self.0.path("");
        let folder = folder.trim_end_matches('/');
        text.split_whitespace()
            .map(|argument| argument.replace("/etc/kubernetes", folder).replace("/var/log", folder))
            .collect()
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
fn a_manifest_that_asks_for_leases_is_taken() {
    let cluster = Cluster::new();
    let mut multinode = cluster.arguments(KIND);
    multinode.push("--enable-lease-controller".into());
    let config = valid(&multinode);
    assert!(config.leases.is_some() && config.agent_rules.kubernetes.is_some());
}

#[test]
fn manifests_are_taken() {
    let cluster = Cluster::new();
    let kind = valid(&cluster.arguments(KIND));
    let expected = Expected {
        namespace: "kube-system".into(),
        service_account: "konnectivity-agent".into(),
        audience: "system:konnectivity-server".into(),
    };
    assert_eq!(kind.agent_rules.tokens, Some(expected));
    assert_eq!(kind.agents.client_ca, None);
    let kubernetes = kind.agent_rules.kubernetes.as_ref().unwrap();
    assert_eq!(kubernetes.kubeconfig, Some(cluster.0.path("admin.conf").into()));
    assert_eq!(kind.mode, Mode::Grpc);
    let Frontend::Unix(socket) = &kind.frontend else { panic!("{:?}", kind.frontend) };
    assert!(socket.delete_existing);
    assert_eq!(kind.admin.addresses, ["127.0.0.1:8093".parse().unwrap()]);
    assert_eq!(valid(&cluster.arguments(STATIC_POD)).mode, Mode::HttpConnect);
    let end_to_end = valid(&cluster.arguments(END_TO_END));
    assert_eq!(end_to_end.mode, Mode::HttpConnect, "the last one wins");
    assert!(end_to_end.admin.all_interfaces);
    assert_eq!(end_to_end.server_count, 3);
}
