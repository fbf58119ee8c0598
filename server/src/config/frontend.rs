//! What the options say of the frontend: a TCP port with TLS, or a Unix socket.

use std::{
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
};

use konnectivity_process::{check, listen::Listen, problems::Problems};

use super::Mode;
use crate::{
    accept::listener::tls::{Protocol, Terms},
    options::Options,
};

/// Longest path that a socket's address holds with the zero behind it: 108 bytes (unix(7)).
const MOST_SOCKET_PATH: usize = 107;

/// Where clients dial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frontend {
    /// A Unix socket without TLS.
    Unix(UnixFrontend),
    /// TCP with mutual TLS.
    Tcp(TcpFrontend),
}

/// The frontend on a Unix socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnixFrontend {
    /// Where the socket is made; its folder exists, and the path is short enough.
    pub path: PathBuf,
    /// Whether a socket that is there already is removed first.
    pub delete_existing: bool,
}

/// The frontend on a TCP port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpFrontend {
    /// The addresses.
    pub listen: Listen,
    /// Readable file with the frontend's certificate chain.
    pub certificate: PathBuf,
    /// Readable file with its private key.
    pub key: PathBuf,
    /// Readable file with the authorities that clients' certificates must come from.
    pub client_ca: PathBuf,
    /// What handshakes with clients may agree on.
    pub terms: Terms,
}

/// What the options say of the frontend.
pub(super) fn check(options: &Options, terms: &Terms, problems: &mut Problems) -> Option<(Mode, Frontend)> {
    let mode = match options.mode.as_str() {
        "grpc" => Some(Mode::Grpc),
        "http-connect" => Some(Mode::HttpConnect),
        other => {
            let reason = format!("mode must be set to either 'grpc' or 'http-connect' not {other:?}");
            problems.rule("mode", reason, "set --mode=grpc");
            None
        }
    };
    let known_mode = mode.unwrap_or(Mode::Grpc);
    let protocol = match known_mode {
        Mode::Grpc => terms.protocol,
        Mode::HttpConnect => Protocol::Http1,
    };
    let terms = Terms { protocol, ..terms.clone() };
    let frontend = if options.uds_name.is_empty() {
        tcp_frontend(options, terms, problems).map(Frontend::Tcp)
    } else {
        unix_frontend(options, problems).map(Frontend::Unix)
    };
    mode.zip(frontend)
}

fn tcp_frontend(options: &Options, terms: Terms, problems: &mut Problems) -> Option<TcpFrontend> {
    let host = ("server-bind-address", options.server_bind_address.as_str());
    let listen = super::listen(problems, host, ("server-port", options.server_port));
    let (certificate, key) = super::certificate(
        problems,
        ("server-cert", &options.server_cert),
        ("server-key", &options.server_key),
        "the TCP port for clients always has TLS",
    );
    if options.server_ca_cert.is_empty() {
        let rule = "server ca cert must be set when in TCP mode (uds-name is empty)";
        problems.rule("server-ca-cert", rule, "set --server-ca-cert to a file");
    }
    let client_ca = check::file(problems, "server-ca-cert", &options.server_ca_cert);
    Some(TcpFrontend { listen: listen?, certificate: certificate?, key: key?, client_ca: client_ca?, terms })
}

fn unix_frontend(options: &Options, problems: &mut Problems) -> Option<UnixFrontend> {
    // The default port is no wish for one.
    if options.server_port != 0 && problems.effective().is_set("server-port") {
        let reason = format!("server port should be set to 0 not {} for UDS", options.server_port);
        problems.rule("server-port", reason, "set --server-port=0, or leave --uds-name out");
    }
    let of_tcp = [
        ("server-key", &options.server_key),
        ("server-cert", &options.server_cert),
        ("server-ca-cert", &options.server_ca_cert),
    ];
    for (setting, value) in of_tcp {
        if !value.is_empty() {
            let reason = format!("{} should not be set for UDS", setting.replace('-', " "));
            problems.rule(setting, reason, format_args!("leave --{setting} or --uds-name out"));
        }
    }
    let path = Path::new(&options.uds_name);
    if let Err((reason, remedy)) = check_socket_path(path, options.delete_existing_uds_file) {
        problems.add("uds-name", reason, remedy);
        return None;
    }
    Some(UnixFrontend { path: path.to_owned(), delete_existing: options.delete_existing_uds_file })
}

/// Whether a socket can be made there, as far as it shows without making it; else why not, and what to do.
fn check_socket_path(path: &Path, delete_existing: bool) -> Result<(), (String, &'static str)> {
    let bytes = path.as_os_str().len();
    if bytes > MOST_SOCKET_PATH {
        return Err((
            format!("the path has {bytes} bytes; a socket's has {MOST_SOCKET_PATH} at most"),
            "choose a shorter one",
        ));
    }
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        return Err((format!("the folder {} is not there", folder.display()), "make it, or choose another path"));
    }
    match path.symlink_metadata() {
        Ok(found) if !found.file_type().is_socket() => Err((
            "something that is not a socket has this path".to_owned(),
            "choose another path, or remove it yourself",
        )),
        Ok(_) if !delete_existing => Err((
            "a socket is there already".to_owned(),
            "stop the server that has it and remove it, or set --delete-existing-uds-file=true",
        )),
        _ => Ok(()),
    }
}
