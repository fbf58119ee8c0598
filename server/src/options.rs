//! What was typed: every setting of the server once, as a flag and as a key of the file. What it means is for
//! `config.rs` to say.

use clap::{ArgAction, Args};
use konnectivity_process::{duration::GoDuration, flag, layers::Settings, list::List, quic::QuicOptions};
use serde::{Deserialize, Serialize};

// Headings of `--help`.
const FRONTEND: &str = "Frontend: where clients dial";
const AGENTS: &str = "Agents: where they connect, and who may";
const SERVERS: &str = "Servers and strategies";
const LIMITS: &str = "Limits";
const HEALTH: &str = "Health and logs";

/// The server's settings, in the order of `--help`.
#[derive(Debug, Clone, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Options {
    /// What clients speak: http-connect. grpc, the default as in the reference, is not yet supported
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

    /// File with the certificate chain that agents see
    #[arg(long, value_name = "FILE", default_value = "", help_heading = AGENTS)]
    pub cluster_cert: String,

    /// File with the private key of --cluster-cert
    #[arg(long, value_name = "FILE", default_value = "", help_heading = AGENTS)]
    pub cluster_key: String,

    /// File with the certificate authorities that agents' certificates must come from
    #[arg(long, value_name = "FILE", default_value = "", help_heading = AGENTS)]
    pub cluster_ca_cert: String,

    /// Lets any agent connect, without a certificate. It can then answer dials for any target: for tests only
    #[arg(long, value_name = "BOOL", default_value = "false", value_parser = flag::boolean, action = ArgAction::Set)]
    #[arg(help_heading = AGENTS)]
    pub allow_unauthenticated_agents: bool,

    /// UDP port for agents, 1024 to 49151
    #[arg(long, value_name = "PORT", default_value = "8091", value_parser = flag::integer)]
    #[arg(help_heading = AGENTS)]
    pub agent_port: i64,

    /// Address of --agent-port; empty for all interfaces
    #[arg(long, value_name = "ADDRESS", default_value = "", help_heading = AGENTS)]
    pub agent_bind_address: String,

    /// File with a secret of 32 bytes or more from which connection ids and stateless resets are made, so that agents notice a restart at
    /// once. Empty: derived from --cluster-key
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

    /// What is logged on standard error: error, warn, info, debug, trace, or a list such as
    /// info,konnectivity_transport=debug
    #[arg(long, value_name = "LEVEL", default_value = "info", help_heading = HEALTH)]
    pub log_level: String,

    /// How it is written: text or json
    #[arg(long, value_name = "FORMAT", default_value = "text", help_heading = HEALTH)]
    pub log_format: String,

    /// QUIC, in a table of its own.
    #[command(flatten)]
    pub quic: QuicOptions,
}

impl Settings for Options {
    const PROGRAM: &'static str = "proxy-server";
    const ROLE: &'static str = "server";
    const ABOUT: &'static str =
        "Takes dials from clients and hands them to agents, over QUIC, that reach where clients cannot";
    const ENVIRONMENT: &'static [(&'static str, &'static str)] = &[("server-id", "PROXY_SERVER_ID")];
}
