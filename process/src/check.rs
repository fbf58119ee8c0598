//! Checks that settings of both programs have in common. Each adds what is wrong to the problems and then returns
//! `None`.

use std::{
    fs::{self, File},
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    duration::GoDuration,
    listen::{ALL_INTERFACES, Listen},
    problems::Problems,
};

/// Ports that the reference's server takes: neither reserved for root nor ephemeral (RFC 6335, section 6).
pub const REGISTERED_PORTS: RangeInclusive<i64> = 1024..=49_151;

/// A file that may be left out: it must be there and readable if it is named.
pub fn file(problems: &mut Problems, setting: &str, path: &str) -> Option<PathBuf> {
    if path.is_empty() {
        return None;
    }
    let path = Path::new(path);
    let Err(error) = open(path) else { return Some(path.to_owned()) };
    let remedy = match error.kind() {
        io::ErrorKind::NotFound => "correct the path, or put the file there",
        io::ErrorKind::PermissionDenied => "make it readable by the user that this program runs as",
        io::ErrorKind::IsADirectory => "name the file in it",
        _ => "name a file that can be read",
    };
    problems.add(setting, format_args!("cannot read the file: {error}"), remedy);
    None
}

/// A file that must be named, too.
pub fn required_file(problems: &mut Problems, setting: &str, path: &str, reason: &str) -> Option<PathBuf> {
    if path.is_empty() {
        problems.add(setting, format_args!("{} must be set: {reason}", spoken(setting)), format_args!("set --{setting} to a file"));
    }
    file(problems, setting, path)
}

/// Whether a file can be read. Only plain files are opened: opening a pipe waits for its writer, or takes its bytes.
fn open(path: &Path) -> io::Result<()> {
    let metadata = fs::metadata(path)?;
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if metadata.is_file() {
        File::open(path)?;
    }
    Ok(())
}

/// A certificate is of no use without its key, and a key without its certificate.
pub fn pair(problems: &mut Problems, certificate: (&str, &str), key: (&str, &str)) {
    for ((setting, value), (other, other_value)) in [(certificate, key), (key, certificate)] {
        if !value.is_empty() && other_value.is_empty() {
            let reason = format!("cannot have {} empty when {} is set", spoken(other), spoken(setting));
            problems.add(setting, reason, format_args!("set --{other} as well, or neither"));
        }
    }
}

/// A port of a range.
pub fn port(problems: &mut Problems, setting: &str, port: i64, range: RangeInclusive<i64>) -> Option<u16> {
    let name = spoken(setting);
    let (least, most) = (*range.start(), *range.end());
    let reason = if range.contains(&port) {
        return u16::try_from(port).ok();
    } else if port < least {
        match least {
            1 => format!("{name} {port} must be greater than 0"),
            _ => format!("please do not try to use reserved port {port} for the {name}"),
        }
    } else if most < i64::from(u16::MAX) {
        format!("please do not try to use ephemeral port {port} for the {name}")
    } else {
        format!("{name} {port} is more than a port can be")
    };
    problems.add(setting, reason, format_args!("choose one from {least} to {most}"));
    None
}

/// Where to listen: an address or a name of this machine; empty for all interfaces, IPv4 and IPv6.
pub fn listen(problems: &mut Problems, host: (&str, &str), port_setting: &'static str, port: Option<u16>) -> Option<Listen> {
    let (host_setting, host) = host;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    // A wrong port has been told of; the address is still looked at.
    let known_port = port.unwrap_or_default();
    let all_interfaces = bare.is_empty() || bare == "::";
    let addresses = if all_interfaces {
        ALL_INTERFACES.map(|ip| SocketAddr::new(ip, known_port)).to_vec()
    } else {
        match resolve(bare, known_port) {
            Ok(addresses) => addresses,
            Err(error) => {
                let reason = format!("is neither an IP address nor a name that has one: {error}");
                problems.add(host_setting, reason, "set it to an address of this machine, or to \"\" for all interfaces");
                return None;
            }
        }
    };
    port.map(|_| Listen { setting: port_setting, addresses, all_interfaces })
}

/// The addresses of a name, each once.
fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let mut addresses = Vec::new();
    for address in (host, port).to_socket_addrs()? {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(addresses) }
}

/// A duration that may be zero.
pub fn duration(problems: &mut Problems, setting: &str, duration: GoDuration) -> Option<Duration> {
    let checked = duration.to_std();
    if checked.is_none() {
        problems.add(setting, format_args!("{} {duration} must not be negative", spoken(setting)), "set it to 0 or more");
    }
    checked
}

/// A duration above zero.
pub fn positive_duration(problems: &mut Problems, setting: &str, duration: GoDuration) -> Option<Duration> {
    let checked = duration.to_std().filter(|duration| !duration.is_zero());
    if checked.is_none() {
        problems.add(setting, format_args!("{} {duration} must be greater than 0", spoken(setting)), "set it to 1s, for instance");
    }
    checked
}

/// A setting's name as words: `server-port` is the server port.
fn spoken(setting: &str) -> String {
    setting.replace('-', " ")
}
