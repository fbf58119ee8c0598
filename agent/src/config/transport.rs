//! What the options say of the ways to the servers: which, how gRPC behaves, and whether a proxy is in between.

use std::{ops::RangeInclusive, time::Duration};

use konnectivity_process::{
    byte_size::ByteSize,
    check,
    problems::Problems,
    proxy_environment::{HttpProxy, http_proxy_for},
};
use konnectivity_transport::mux::SlowDial;

use crate::{
    options::Options,
    server_connection::choice::{Transport, Wanted},
};

/// Bytes that may wait for one dial over gRPC: less would slow a server for every burst, and four times as many are the
/// most.
const DIAL_BUFFERS: RangeInclusive<u64> = 64 * 1024..=1 << 30;

/// Names in a TLS handshake are as long as a byte can say (RFC 7301, section 3.1).
const ALPN_BYTES: RangeInclusive<usize> = 1..=255;

/// The reference's agent sends no PINGs more often.
const LEAST_KEEP_ALIVE: Duration = Duration::from_secs(10);

/// The ways to the servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transports {
    /// Which of them.
    pub wanted: Wanted,
    /// How soon an agent on gRPC tries QUIC again. Above zero.
    pub quic_retry_interval: Duration,
    /// How those over gRPC behave.
    pub grpc: GrpcSettings,
}

/// How connections over gRPC behave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrpcSettings {
    /// Silence after which a server is asked for a sign of life; at least 10 s.
    pub keep_alive: Duration,
    /// Protocols offered in TLS before `h2`.
    pub alpn: Vec<String>,
    /// Bytes that may wait for a dial's target before the server's stream is slowed.
    pub dial_buffer: usize,
    /// What becomes of a dial whose target takes nothing.
    pub slow_dials: SlowDial,
    /// The proxy that leads to the servers.
    pub proxy: Option<HttpProxy>,
}

/// Checks them all.
pub(super) fn check(
    options: &Options,
    environment: impl Fn(&str) -> Option<String>,
    problems: &mut Problems,
) -> Option<Transports> {
    let wanted = wanted(&options.transport, problems);
    let proxy = proxy(options, environment, problems);
    let quic_retry_interval = check::positive_duration(problems, "quic-retry-interval", options.quic_retry_interval);
    let alpn = alpn(&options.alpn_proto.0, problems);
    let slow_dials = slow_dials(&options.grpc_slow_dials, problems);
    let dial_buffer = dial_buffer(options.grpc_dial_buffer, problems);
    let (wanted, proxy) = through(wanted?, proxy?, problems)?;
    Some(Transports {
        wanted,
        quic_retry_interval: quic_retry_interval?,
        grpc: GrpcSettings {
            // As in the reference, below zero is the least, too.
            keep_alive: options.keepalive_time.to_std().unwrap_or_default().max(LEAST_KEEP_ALIVE),
            alpn: alpn?,
            dial_buffer: dial_buffer?,
            slow_dials: slow_dials?,
            proxy,
        },
    })
}

fn wanted(name: &str, problems: &mut Problems) -> Option<Wanted> {
    match name {
        "auto" => Some(Wanted::Auto),
        "quic" => Some(Wanted::Only(Transport::Quic)),
        "grpc" => Some(Wanted::Only(Transport::Grpc)),
        other => {
            let reason = format!("{other:?} is not a transport; known are auto, quic and grpc");
            problems.rule("transport", reason, "set --transport=auto, which takes the best that works");
            None
        }
    }
}

/// The HTTP proxy of the environment, through which the reference's agent goes, too. `None`: it cannot be used.
fn proxy(
    options: &Options,
    environment: impl Fn(&str) -> Option<String>,
    problems: &mut Problems,
) -> Option<Option<HttpProxy>> {
    let port = u16::try_from(options.proxy_server_port).ok()?;
    match http_proxy_for(&options.proxy_server_host, port, environment) {
        Ok(proxy) => Some(proxy),
        Err(error) => {
            let reason = format!("the environment (HTTPS_PROXY) wants a proxy: {error}");
            problems.add("proxy-server-host", reason, "name an HTTP proxy, or the servers in NO_PROXY");
            None
        }
    }
}

/// QUIC does not go through an HTTP proxy, and around it is not what the environment asks for.
fn through(wanted: Wanted, proxy: Option<HttpProxy>, problems: &mut Problems) -> Option<(Wanted, Option<HttpProxy>)> {
    match (&proxy, wanted) {
        (None, _) => Some((wanted, None)),
        (Some(_), Wanted::Auto | Wanted::Only(Transport::Grpc)) => Some((Wanted::Only(Transport::Grpc), proxy)),
        (Some(HttpProxy { host, port, .. }), Wanted::Only(Transport::Quic)) => {
            problems.add(
                "transport",
                format_args!("the environment (HTTPS_PROXY) wants {host}:{port} to be used, and QUIC does not go through an HTTP proxy"),
                "leave it out, or unset HTTPS_PROXY, or name the servers in NO_PROXY, if UDP gets there without the proxy",
            );
            None
        }
    }
}

fn alpn(names: &[String], problems: &mut Problems) -> Option<Vec<String>> {
    if names.iter().all(|name| ALPN_BYTES.contains(&name.len())) {
        return Some(names.to_vec());
    }
    problems.add("alpn-proto", "has a name that TLS cannot carry", "give it names of 1 to 255 bytes");
    None
}

fn slow_dials(name: &str, problems: &mut Problems) -> Option<SlowDial> {
    match name {
        "close" => Some(SlowDial::Close),
        "wait" => Some(SlowDial::Wait),
        other => {
            problems.rule(
                "grpc-slow-dials",
                format!("{other:?} is not one of close and wait"),
                "set --grpc-slow-dials=close",
            );
            None
        }
    }
}

fn dial_buffer(size: ByteSize, problems: &mut Problems) -> Option<usize> {
    let bytes = usize::try_from(size.0).ok().filter(|_| DIAL_BUFFERS.contains(&size.0));
    if bytes.is_none() {
        let remedy = format!("set it to {} up to {}", ByteSize(*DIAL_BUFFERS.start()), ByteSize(*DIAL_BUFFERS.end()));
        problems.add("grpc-dial-buffer", "is out of range", remedy);
    }
    bytes
}
