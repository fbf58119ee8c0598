//! What was typed: every setting of the server once, as a flag and as a key of the file. What it means is for
//! `config.rs` to say.

use clap::{ArgAction, Args};
use konnectivity_process::{
    byte_size::ByteSize, duration::GoDuration, flag, float::Float32, klog::KlogOptions, layers::Settings, list::List,
    quic::QuicOptions, slice::StringSlice,
};
use serde::{Deserialize, Serialize};

// Headings of `--help`.
const FRONTEND: &str = "Frontend: where clients dial";
const AGENTS: &str = "Agents: where they connect, and who may";
const SERVERS: &str = "Servers and strategies";
const LIMITS: &str = "Limits";
const HEALTH: &str = "Health, profiles and logs";
const KUBERNETES: &str = "Kubernetes: tokens of agents, leases of servers";
const OTHERS: &str = "For the reference's sake, without effect";

/// The server's settings, in the order of `--help`.
#[derive(Debug, Clone, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Options {
    /// What clients speak: grpc or http-connect
    #[arg(long, value_name = "NAME", default_value = "grpc", help_heading = FRONTEND)]
    pub mode: String,

    /// File with the certificate chain that clients on the TCP port see; not with --uds-name
    #[arg(long, value_name = "FILE", default_value = "", help_heading = FRONTEND)]
    pub server_cert: String,

    /// File with the private key of --server-cert
    #[arg(long, value_name = "FILE", default_value = "", help_heading = FRONTEND)]
    pub server_key: String,

    /// File with the certificate authorities that clients' certificates must come from. Needed for TCP
    #[arg(long, value_name = "FILE", default_value = "", help_heading = FRONTEND)]
    pub server_ca_cert: String,

    /// TCP port for clients, 1024 to 49151; 0 with --uds-name
    #[arg(long, value_name = "PORT", default_value = "8090", value_parser = flag::integer)]
    #[arg(help_heading = FRONTEND)]
    pub server_port: i64,

    /// Address of --server-port; empty for all interfaces
    #[arg(long, value_name = "ADDRESS", default_value = "", help_heading = FRONTEND)]
    pub server_bind_address: String,

    /// Path of a Unix socket for clients, instead of the TCP port
    #[arg(long, value_name = "PATH", default_value = "", help_heading = FRONTEND)]
    pub uds_name: String,

    /// Whether a socket that is at --uds-name already is removed first
    #[arg(long, value_name = "BOOL", default_value = "true", value_parser = flag::boolean, action = ArgAction::Set)]
    #[arg(help_heading = FRONTEND)]
    pub delete_existing_uds_file: bool,

    /// Lowest version of TLS on the TCP ports for clients and agents: VersionTLS12 (the same as empty) or VersionTLS13. VersionTLS10 and
    /// VersionTLS11 are taken with a warning and mean VersionTLS12, the lowest there is. Over QUIC it is always 1.3
    #[arg(long, value_name = "VERSION", default_value = "", help_heading = FRONTEND)]
    pub tls_min_version: String,

    /// Suites of TLS 1.2 on the TCP ports for clients and agents, with commas and by Go's names; empty: all. A list that has none of them, or
    /// only such with CBC, which do not exist here, leaves TLS 1.3. TLS 1.3, and so QUIC, is never restricted
    #[arg(long, value_name = "NAMES", default_value = "", help_heading = FRONTEND)]
    pub cipher_suites: StringSlice,

    /// How long nothing may come from a gRPC client until it is pinged; without an answer its connection is closed. 0: two
    /// hours; less than 1s: 1s. For agents see --keepalive-time and --quic-keep-alive-interval
    #[arg(long, value_name = "DURATION", default_value = "1h0m0s", help_heading = FRONTEND)]
    pub frontend_keepalive_time: GoDuration,

    /// File with the certificate chain that agents see
    #[arg(long, value_name = "FILE", default_value = "", help_heading = AGENTS)]
    pub cluster_cert: String,

    /// File with the private key of --cluster-cert
    #[arg(long, value_name = "FILE", default_value = "", help_heading = AGENTS)]
    pub cluster_key: String,

    /// File with the certificate authorities that agents' certificates must come from. Without it they need none, and
    /// --agent-namespace or --allow-unauthenticated-agents must say who may connect
    #[arg(long, value_name = "FILE", default_value = "", help_heading = AGENTS)]
    pub cluster_ca_cert: String,

    /// Lets any agent connect, without a certificate or a token. It can then answer dials for any target: for tests only
    #[arg(long, value_name = "BOOL", default_value = "false", value_parser = flag::boolean, action = ArgAction::Set)]
    #[arg(help_heading = AGENTS)]
    pub allow_unauthenticated_agents: bool,

    /// Port for agents, 1024 to 49151: UDP for QUIC and TCP for gRPC, see --transport
    #[arg(long, value_name = "PORT", default_value = "8091", value_parser = flag::integer)]
    #[arg(help_heading = AGENTS)]
    pub agent_port: i64,

    /// Address of --agent-port; empty for all interfaces
    #[arg(long, value_name = "ADDRESS", default_value = "", help_heading = AGENTS)]
    pub agent_bind_address: String,

    /// Over what agents are served: quic, grpc (what agents of the reference speak), or auto, which is both
    #[arg(long, value_name = "NAME", default_value = "auto", help_heading = AGENTS)]
    pub transport: String,

    /// How long nothing may come from an agent over gRPC until it is pinged; without an answer its connection is closed
    /// after 20s. 0: two hours; less than 1s: 1s. For agents over QUIC see --quic-keep-alive-interval
    #[arg(long, value_name = "DURATION", default_value = "1h0m0s", help_heading = AGENTS)]
    pub keepalive_time: GoDuration,

    /// Bytes that may wait for the client of one dial over a gRPC agent, whose dials share a stream. Above that the
    /// agent is read more slowly, at four times as many not at all. All of them count for --quic-memory-budget
    #[arg(long, value_name = "BYTES", default_value = "8MiB", help_heading = AGENTS)]
    pub grpc_dial_buffer: ByteSize,

    /// What becomes of a dial over a gRPC agent whose client has had more than --grpc-dial-buffer waiting for 10s and has
    /// taken less than an eighth of that in them: close (the dial ends, and others go on) or wait (others wait for it, as in the reference)
    #[arg(long, value_name = "NAME", default_value = "close", help_heading = AGENTS)]
    pub grpc_slow_dials: String,

    /// File with a secret of 32 bytes or more from which connection ids and stateless resets are made, so that agents notice a restart at
    /// once. Servers with the same file differ by --server-id and host name. Empty: derived from --cluster-key
    #[arg(long, value_name = "FILE", default_value = "", help_heading = AGENTS)]
    pub endpoint_key_file: String,

    /// This server's id, which must differ from that of every other server. Empty: the environment's PROXY_SERVER_ID,
    /// or else a random UUID
    #[arg(long, value_name = "ID", default_value = "", help_heading = SERVERS)]
    pub server_id: String,

    /// How many servers there are: agents keep one connection to each
    #[arg(long, value_name = "NUMBER", default_value = "1", value_parser = flag::integer)]
    #[arg(help_heading = SERVERS)]
    pub server_count: i64,

    /// Where agents reach this very server, for those that are told of it by another one: host:port with commas; the port is
    /// that of agents when it is left out. Empty: only the address that all servers share
    #[arg(long, value_name = "ADDRESSES", default_value = "", help_heading = SERVERS)]
    pub advertise_agent_addresses: List,

    /// The servers and where agents reach each of them, as in server-1=192.0.2.1:8091,server-2=192.0.2.2:8091. Agents over QUIC are
    /// told, and connect to all of them at once. The same text may be given to every server; one with several addresses is
    /// named several times. With leases (--enable-lease-controller) servers find each other
    #[arg(long, value_name = "SERVERS", default_value = "", help_heading = SERVERS)]
    pub peer_servers: List,

    /// Rules that pick an agent for a target, in order, with commas: default (any), destHost (the target is one of the
    /// agent's identifiers), defaultRoute (the agent is a default route), leastLoaded (fewest open dials)
    #[arg(long, value_name = "NAMES", default_value = "default", help_heading = SERVERS)]
    pub proxy_strategies: List,

    /// How long a dial may take until its target is connected; 0: as long as the agent allows
    #[arg(long, value_name = "DURATION", default_value = "30s", help_heading = LIMITS)]
    pub backend_dial_timeout: GoDuration,

    /// How long dials may run on after the first SIGTERM or SIGINT; 0: they are ended at once
    #[arg(long, value_name = "DURATION", default_value = "20s", help_heading = LIMITS)]
    pub graceful_shutdown_timeout: GoDuration,

    /// Threads that carry traffic; 0: one for each core
    #[arg(long, value_name = "NUMBER", default_value = "0", value_parser = flag::integer, help_heading = LIMITS)]
    pub worker_threads: i64,

    /// Port of /healthz, /readyz and /metrics, 1024 to 49151
    #[arg(long, value_name = "PORT", default_value = "8092", value_parser = flag::integer)]
    #[arg(help_heading = HEALTH)]
    pub health_port: i64,

    /// Address of --health-port; empty for all interfaces
    #[arg(long, value_name = "ADDRESS", default_value = "", help_heading = HEALTH)]
    pub health_bind_address: String,

    /// Port of /metrics and what is for administrators, 1024 to 49151
    #[arg(long, value_name = "PORT", default_value = "8095", value_parser = flag::integer)]
    #[arg(help_heading = HEALTH)]
    pub admin_port: i64,

    /// Address of --admin-port; empty for all interfaces
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1", help_heading = HEALTH)]
    pub admin_bind_address: String,

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

    /// Namespace that the service account of agents must be in. With it, agents must show a token of that account, which the
    /// Kubernetes API reviews; with --cluster-ca-cert, a certificate as well
    #[arg(long, value_name = "NAME", default_value = "", help_heading = KUBERNETES)]
    pub agent_namespace: String,

    /// Service account that agents' tokens must be of; needed with --agent-namespace
    #[arg(long, value_name = "NAME", default_value = "", help_heading = KUBERNETES)]
    pub agent_service_account: String,

    /// Audience that agents' tokens must be for; needed with --agent-namespace
    #[arg(long, value_name = "NAME", default_value = "", help_heading = KUBERNETES)]
    pub authentication_audience: String,

    /// Which agents are drained when their token has expired and no new one has come: quic (agents over QUIC send new ones),
    /// all, or none, as in the reference. Agents over gRPC cannot send a new token: they have to connect again
    #[arg(long, value_name = "NAME", default_value = "quic", help_heading = KUBERNETES)]
    pub drain_expired_tokens: String,

    /// How often the tokens of connected agents are reviewed again, so that one is noticed that was withdrawn before its end,
    /// with its pod for instance. Takes at most half of --kubeconfig-qps: with thousands of agents each has its turn later. 0: tokens
    /// are looked at again at their end only, see --drain-expired-tokens
    #[arg(long, value_name = "DURATION", default_value = "1m0s", help_heading = KUBERNETES)]
    pub token_review_interval: GoDuration,

    /// What agents may say that they reach: any, or own-node: the name and the addresses of the node that their token is
    /// bound to or that their certificate (common name system:node:NAME) is of
    #[arg(long, value_name = "NAME", default_value = "any", help_heading = KUBERNETES)]
    pub agent_identifier_policy: String,

    /// What agents may say beyond that with --agent-identifier-policy=own-node, with commas: default-route, cidr
    #[arg(long, value_name = "NAMES", default_value = "", help_heading = KUBERNETES)]
    pub agent_identifier_exceptions: List,

    /// File that says how to reach the Kubernetes API. It must be there if it is named. Empty: what a pod finds. Nothing is
    /// asked of the API unless tokens, leases or --agent-identifier-policy need it
    #[arg(long, value_name = "FILE", default_value = "", help_heading = KUBERNETES)]
    pub kubeconfig: String,

    /// Requests to the Kubernetes API a second; 0: 5; less: no limit
    #[arg(long, value_name = "NUMBER", default_value = "0", help_heading = KUBERNETES)]
    pub kubeconfig_qps: Float32,

    /// Requests to the Kubernetes API at once; 0: 10
    #[arg(long, value_name = "NUMBER", default_value = "0", value_parser = flag::integer, help_heading = KUBERNETES)]
    pub kubeconfig_burst: i64,

    /// Keeps a lease of this server in the Kubernetes API, by which agents count the servers and servers find each other, and
    /// deletes those of dead servers. It needs to get, create, update, delete and list leases; allowed to watch them, too, it is quicker
    #[arg(long, value_name = "BOOL", default_value = "false", value_parser = flag::boolean, action = ArgAction::Set)]
    #[arg(help_heading = KUBERNETES)]
    pub enable_lease_controller: bool,

    /// Namespace of the leases
    #[arg(long, value_name = "NAME", default_value = "kube-system", help_heading = KUBERNETES)]
    pub lease_namespace: String,

    /// Labels of the leases, as in a=b,c=d. Leases that have them all are those of servers
    #[arg(long, value_name = "LABELS", default_value = "k8s-app=konnectivity-server", help_heading = KUBERNETES)]
    pub lease_label: String,

    /// How long a lease counts after it was renewed, in whole seconds
    #[arg(long, value_name = "DURATION", default_value = "30s", help_heading = KUBERNETES)]
    pub lease_duration: GoDuration,

    /// How often this server renews its lease
    #[arg(long, value_name = "DURATION", default_value = "15s", help_heading = KUBERNETES)]
    pub lease_renew_interval: GoDuration,

    /// How often all leases are listed, and those deleted that have not been renewed for all of their duration
    #[arg(long, value_name = "DURATION", default_value = "15s", help_heading = KUBERNETES)]
    pub lease_gc_interval: GoDuration,

    /// Is the length of the reference's queues, and must be above 0. Here --quic-stream-receive-window and
    /// --grpc-dial-buffer bound what a dial may hold
    #[arg(long, value_name = "NUMBER", default_value = "10", value_parser = flag::integer, help_heading = OTHERS)]
    pub xfr_channel_size: i64,

    /// Says that full queues are to be logged, of which there are none here. Deprecated
    #[arg(long, value_name = "BOOL", default_value = "true", value_parser = flag::boolean, action = ArgAction::Set)]
    #[arg(help_heading = OTHERS)]
    pub warn_on_channel_limit: bool,

    /// Is the content type of requests to the Kubernetes API in the reference. Here it is always application/json
    #[arg(long, value_name = "TYPE", default_value = "application/vnd.kubernetes.protobuf", help_heading = OTHERS)]
    pub kube_api_content_type: String,

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
    const PROGRAM: &'static str = "proxy-server";
    const ROLE: &'static str = "server";
    const ABOUT: &'static str =
        "Takes dials from clients and hands them to agents, over QUIC or gRPC, that reach where clients cannot";
    const ENVIRONMENT: &'static [(&'static str, &'static str)] = &[("server-id", "PROXY_SERVER_ID")];
    const DEPRECATED: &'static [(&'static str, &'static str)] = &[(
        "warn-on-channel-limit",
        "This behavior is now thread safe and always on. This flag will be removed in a future release.",
    )];
}
