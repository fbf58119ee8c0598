//! What was typed: every setting of the agent once, as a flag and as a key of the file. What it means is for
//! `config.rs` to say.

use clap::{ArgAction, Args};
use konnectivity_process::{duration::GoDuration, flag, layers::Settings, quic::QuicOptions};
use serde::{Deserialize, Serialize};

// Headings of `--help`.
const SERVERS: &str = "Servers";
const IDENTITY: &str = "This agent";
const LIMITS: &str = "Limits";
const HEALTH: &str = "Health and logs";

/// The agent's settings, in the order of `--help`.
#[derive(Debug, Clone, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Options {
    /// Name or address of the servers: one for all of them
    #[arg(long, value_name = "HOST", default_value = "127.0.0.1", help_heading = SERVERS)]
    pub proxy_server_host: String,

    /// UDP port of the servers
    #[arg(long, value_name = "PORT", default_value = "8091", value_parser = flag::integer, help_heading = SERVERS)]
    pub proxy_server_port: i64,

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

    /// Taken for the reference's sake and without effect: QUIC's keep-alive and idle timeout find a lost connection
    #[arg(long, value_name = "DURATION", default_value = "1s", help_heading = SERVERS)]
    pub probe_interval: GoDuration,

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
    const PROGRAM: &'static str = "proxy-agent";
    const ROLE: &'static str = "agent";
    const ABOUT: &'static str = "Connects to proxy-servers over QUIC and dials targets for them";
    const ENVIRONMENT: &'static [(&'static str, &'static str)] = &[("agent-id", "PROXY_AGENT_ID")];
}
