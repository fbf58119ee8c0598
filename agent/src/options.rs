//! What was typed: every setting of the agent once, as a flag and as a key of the file. What it means is for
//! `config.rs` to say.

use clap::{ArgAction, Args};
use konnectivity_process::{
    byte_size::ByteSize, duration::GoDuration, flag, klog::KlogOptions, layers::Settings, list::List,
    quic::QuicOptions, selector::Selector, slice::StringSlice,
};
use serde::{Deserialize, Serialize};

// Headings of `--help`.
const SERVERS: &str = "Servers";
const GRPC: &str = "gRPC";
const IDENTITY: &str = "This agent";
const LIMITS: &str = "Limits";
const HEALTH: &str = "Health, profiles and logs";
const KUBERNETES: &str = "Kubernetes: the agent's token, leases of servers";
const OTHERS: &str = "For the reference's sake, without effect";

/// The agent's settings, in the order of `--help`.
#[derive(Debug, Clone, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Options {
    /// Name or address of the servers: one for all of them
    #[arg(long, value_name = "HOST", default_value = "127.0.0.1", help_heading = SERVERS)]
    pub proxy_server_host: String,

    /// Port of the servers: UDP for QUIC, TCP for gRPC
    #[arg(long, value_name = "PORT", default_value = "8091", value_parser = flag::integer, help_heading = SERVERS)]
    pub proxy_server_port: i64,

    /// What carries dials: quic; grpc, one stream on TCP, which is what the reference's servers speak; or auto, QUIC where it
    /// works, gRPC as long as it does not
    #[arg(long, value_name = "NAME", default_value = "auto", help_heading = SERVERS)]
    pub transport: String,

    /// With --transport=auto, how long an agent on gRPC waits before it tries QUIC again. After each failure it waits twice
    /// as long, up to ten minutes
    #[arg(long, value_name = "DURATION", default_value = "30s", help_heading = SERVERS)]
    pub quic_retry_interval: GoDuration,

    /// File with the certificate authorities that the servers' certificates must come from
    #[arg(long, value_name = "FILE", default_value = "", help_heading = SERVERS)]
    pub ca_cert: String,

    /// File with the certificate chain that the servers see
    #[arg(long, value_name = "FILE", default_value = "", help_heading = SERVERS)]
    pub agent_cert: String,

    /// File with the private key of --agent-cert
    #[arg(long, value_name = "FILE", default_value = "", help_heading = SERVERS)]
    pub agent_key: String,

    /// The wait after the first failed attempt to connect, and between looks for more servers
    #[arg(long, value_name = "DURATION", default_value = "1s", help_heading = SERVERS)]
    pub sync_interval: GoDuration,

    /// The longest wait that failed attempts lead to
    #[arg(long, value_name = "DURATION", default_value = "10s", help_heading = SERVERS)]
    pub sync_interval_cap: GoDuration,

    /// Goes on looking for more servers when as many are connected as there are said to be
    #[arg(long, value_name = "BOOL", default_value = "false", value_parser = flag::boolean, action = ArgAction::Set)]
    #[arg(help_heading = SERVERS)]
    pub sync_forever: bool,

    /// Which addresses the agent dials when its servers name those of other servers: any, none, or networks with commas such
    /// as 10.0.0.0/8. With any, addresses of the agent's own machine or link count only when a server there names them.
    /// Whoever is there needs a certificate for --proxy-server-host
    #[arg(long, value_name = "NETWORKS", default_value = "any", help_heading = SERVERS)]
    pub direct_server_networks: List,

    /// How long nothing may come from a server over gRPC until it is pinged; without an answer its connection is closed after
    /// 20s. Less than 10s: 10s. For servers over QUIC see --quic-keep-alive-interval
    #[arg(long, value_name = "DURATION", default_value = "1h0m0s", help_heading = GRPC)]
    pub keepalive_time: GoDuration,

    /// Names of protocols that are offered in the TLS handshake before h2, so that a proxy can tell agents from others. Over
    /// QUIC there is one protocol, konnectivity-quic/1
    #[arg(long, value_name = "NAMES", default_value = "", help_heading = GRPC)]
    pub alpn_proto: StringSlice,

    /// Bytes that may wait for the target of one dial over gRPC, where all dials share a stream. Above that the server is
    /// read more slowly, at four times as many not at all. All of them count for --quic-memory-budget
    #[arg(long, value_name = "BYTES", default_value = "8MiB", help_heading = GRPC)]
    pub grpc_dial_buffer: ByteSize,

    /// What becomes of a dial over gRPC whose target has had more than --grpc-dial-buffer waiting for 10s and has taken less
    /// than an eighth of that in them: close (the dial ends, and others go on) or wait (others wait for it, as in the reference)
    #[arg(long, value_name = "NAME", default_value = "close", help_heading = GRPC)]
    pub grpc_slow_dials: String,

    /// This agent's id, which must differ from that of every other agent. Empty: the environment's PROXY_AGENT_ID, or
    /// else a random UUID
    #[arg(long, value_name = "ID", default_value = "", help_heading = IDENTITY)]
    pub agent_id: String,

    /// What this agent reaches, as a URL's query of host, ipv4, ipv6, cidr and default-route, such as
    /// host=node-1&ipv4=10.0.0.7
    #[arg(long, value_name = "QUERY", default_value = "", help_heading = IDENTITY)]
    pub agent_identifiers: String,

    /// How long a target may take to connect, the look-up of its name included
    #[arg(long, value_name = "DURATION", default_value = "5s", help_heading = LIMITS)]
    pub dial_timeout: GoDuration,

    /// How long dials may run on after the first SIGTERM or SIGINT; 0: they are ended at once
    #[arg(long, value_name = "DURATION", default_value = "20s", help_heading = LIMITS)]
    pub graceful_shutdown_timeout: GoDuration,

    /// Ends the process when it has drained. false: it stays after the first SIGTERM or SIGINT, as the reference does, and
    /// serves until the second
    #[arg(long, value_name = "BOOL", default_value = "true", value_parser = flag::boolean, action = ArgAction::Set)]
    #[arg(help_heading = LIMITS)]
    pub exit_after_drain: bool,

    /// Address of --health-server-port; empty for all interfaces
    #[arg(long, value_name = "ADDRESS", default_value = "", help_heading = HEALTH)]
    pub health_server_host: String,

    /// Port of /healthz, /readyz and /metrics
    #[arg(long, value_name = "PORT", default_value = "8093", value_parser = flag::integer)]
    #[arg(help_heading = HEALTH)]
    pub health_server_port: i64,

    /// Address of --admin-server-port; empty for all interfaces
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1", help_heading = HEALTH)]
    pub admin_bind_address: String,

    /// Port of what is for administrators
    #[arg(long, value_name = "PORT", default_value = "8094", value_parser = flag::integer)]
    #[arg(help_heading = HEALTH)]
    pub admin_server_port: i64,

    /// Serves profiles of this process under /debug/pprof/ on the admin port
    #[arg(long, value_name = "BOOL", default_value = "false", value_parser = flag::boolean, action = ArgAction::Set)]
    #[arg(help_heading = HEALTH)]
    pub enable_profiling: bool,

    /// What is logged on standard error: error, warn, info, debug, trace, or a list such as
    /// info,konnectivity_transport=debug
    #[arg(long, value_name = "LEVEL", default_value = "info", help_heading = HEALTH)]
    pub log_level: String,

    /// How it is written: text or json
    #[arg(long, value_name = "FORMAT", default_value = "text", help_heading = HEALTH)]
    pub log_format: String,

    /// File with the token by which the servers know this agent. It is read for each connection, without the white space at
    /// its ends, and every ten seconds: over QUIC a new token is sent on connections that are there
    #[arg(long, value_name = "FILE", default_value = "", help_heading = KUBERNETES)]
    pub service_account_token_path: String,

    /// Counts the servers by their leases in the Kubernetes API, which needs the right to list and watch leases. Over QUIC, servers that
    /// keep leases tell their number without it
    #[arg(long, value_name = "BOOL", default_value = "false", value_parser = flag::boolean, action = ArgAction::Set)]
    #[arg(help_heading = KUBERNETES)]
    pub count_server_leases: bool,

    /// How the servers' own count and that of leases go together: default (that of leases, once they were counted) or max (the
    /// higher). Without --count-server-leases there is only the servers' own
    #[arg(long, value_name = "NAME", default_value = "default", help_heading = KUBERNETES)]
    pub server_count_source: String,

    /// Namespace of the leases
    #[arg(long, value_name = "NAME", default_value = "kube-system", help_heading = KUBERNETES)]
    pub lease_namespace: String,

    /// Labels that the leases must have, as a Kubernetes selector such as a=b,c in (d,e),!f
    #[arg(long, value_name = "SELECTOR", default_value = "k8s-app=konnectivity-server", alias = "lease-label")]
    #[arg(help_heading = KUBERNETES)]
    pub lease_label_selector: Selector,

    /// File that says how to reach the Kubernetes API, for leases. Empty: as a pod finds it, by its service account
    #[arg(long, value_name = "FILE", default_value = "", help_heading = KUBERNETES)]
    pub kubeconfig: String,

    /// Content type of requests to the Kubernetes API in the reference. Without effect: it is JSON
    #[arg(long, value_name = "TYPE", default_value = "application/vnd.kubernetes.protobuf", help_heading = KUBERNETES)]
    pub kube_api_content_type: String,

    /// Is how often the reference looks at its connections. Here a connection that is lost is noticed without looking, by its
    /// keep-alive at the latest
    #[arg(long, value_name = "DURATION", default_value = "1s", help_heading = OTHERS)]
    pub probe_interval: GoDuration,

    /// Is the length of the reference's queues, and must be above 0. Here --quic-stream-receive-window and
    /// --grpc-dial-buffer bound what a dial may hold
    #[arg(long, value_name = "NUMBER", default_value = "150", value_parser = flag::integer, help_heading = OTHERS)]
    pub xfr_channel_size: i64,

    /// Says that full queues are to be logged, of which there are none here
    #[arg(long, value_name = "BOOL", default_value = "false", value_parser = flag::boolean, action = ArgAction::Set)]
    #[arg(help_heading = OTHERS)]
    pub warn_on_channel_limit: bool,

    /// Is for the reference's profile of where it waits, and needs --enable-profiling. Nothing is recorded here
    #[arg(long, value_name = "BOOL", default_value = "false", value_parser = flag::boolean, action = ArgAction::Set)]
    #[arg(help_heading = OTHERS)]
    pub enable_contention_profiling: bool,

    /// klog's flags, at the top level of the file.
    #[command(flatten)]
    #[serde(flatten)]
    pub klog: KlogOptions,

    /// QUIC, in a table of its own.
    #[command(flatten)]
    pub quic: QuicOptions,
}

impl Settings for Options {
    const PROGRAM: &'static str = "proxy-agent";
    const ROLE: &'static str = "agent";
    const ABOUT: &'static str = "Connects to proxy-servers, over QUIC or gRPC, and dials targets for them";
    const ENVIRONMENT: &'static [(&'static str, &'static str)] = &[("agent-id", "PROXY_AGENT_ID")];
    const DEPRECATED: &'static [(&'static str, &'static str)] =
        &[("lease-label", "use --lease-label-selector instead")];
}
