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
    file_called(problems, setting, path, &format!("error checking {}", named(setting, path)))
}

/// The same where the reference has words of its own for a file that is not there.
pub fn file_called(problems: &mut Problems, setting: &str, path: &str, missing: &str) -> Option<PathBuf> {
    if path.is_empty() {
        return None;
    }
    let Err(error) = open(Path::new(path)) else { return Some(path.into()) };
    let remedy = match error.kind() {
        io::ErrorKind::NotFound => {
            let rule = format!("{missing}, got stat {path}: no such file or directory");
            problems.rule(setting, rule, "correct the path, or put the file there");
            return None;
        }
        io::ErrorKind::PermissionDenied => "make it readable by the user that this program runs as",
        io::ErrorKind::IsADirectory => "name the file in it",
        _ => "name a file that can be read",
    };
    problems.add(setting, format_args!("cannot read the file: {error}"), remedy);
    None
}

/// What the reference calls a file that is not there.
fn named(setting: &str, path: &str) -> String {
    match setting {
        "kubeconfig" => format!("KubeconfigPath {path:?}"),
        "ca-cert" => format!("agent CA cert {path}"),
        _ => format!("{} {path}", spoken(setting).replace(" ca ", " CA ")),
    }
}

/// A file that must be named, too. `reason` goes on after "must be set".
pub fn required_file(problems: &mut Problems, setting: &str, path: &str, reason: &str) -> Option<PathBuf> {
    if path.is_empty() {
        problems.add(
            setting,
            format_args!("{} must be set {reason}", spoken(setting)),
            format_args!("set --{setting} to a file"),
        );
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

/// A certificate and its key: the one is of no use without the other. Looked at in the reference's order.
pub fn pair(
    problems: &mut Problems,
    certificate: (&str, &str),
    key: (&str, &str),
) -> (Option<PathBuf>, Option<PathBuf>) {
    let mut half = |(setting, value): (&str, &str), (other, other_value): (&str, &str)| {
        let path = file(problems, setting, value);
        if !value.is_empty() && other_value.is_empty() {
            let rule = format!("cannot have {} empty when {} is set to {value:?}", spoken(other), spoken(setting));
            problems.rule(setting, rule, format_args!("set --{other} as well, or neither"));
        }
        path
    };
    let key_path = half(key, certificate);
    (half(certificate, key), key_path)
}

/// A port of a range.
pub fn port(problems: &mut Problems, setting: &str, port: i64, range: RangeInclusive<i64>) -> Option<u16> {
    let name = spoken(setting);
    let (least, most) = (*range.start(), *range.end());
    let remedy = format!("choose one from {least} to {most}");
    if range.contains(&port) {
        return u16::try_from(port).ok();
    } else if port < least && least == 1 {
        problems.rule(setting, format_args!("{name} {port} must be greater than 0"), remedy);
    } else if port < least {
        problems.rule(setting, format_args!("please do not try to use reserved port {port} for the {name}"), remedy);
    } else if most < i64::from(u16::MAX) {
        problems.rule(setting, format_args!("please do not try to use ephemeral port {port} for the {name}"), remedy);
    } else {
        problems.add(setting, format_args!("{name} {port} is more than a port can be"), remedy);
    }
    None
}

/// A number of a range, as the type that the setting needs.
pub fn number<T: TryFrom<i64>>(
    problems: &mut Problems,
    setting: &str,
    value: i64,
    range: RangeInclusive<i64>,
) -> Option<T> {
    if range.contains(&value)
        && let Ok(number) = T::try_from(value)
    {
        return Some(number);
    }
    problems.add(setting, "is out of range", format_args!("set it to {} up to {}", range.start(), range.end()));
    None
}

/// Where to listen: an address or a name of this machine; empty for all interfaces, IPv4 and IPv6.
pub fn listen(
    problems: &mut Problems,
    host: (&str, &str),
    port_setting: &'static str,
    port: Option<u16>,
) -> Option<Listen> {
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
                problems.add(
                    host_setting,
                    reason,
                    "set it to an address of this machine, or to \"\" for all interfaces",
                );
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
        problems.rule(setting, format_args!("{setting} must be >= 0, got {duration}"), "set it to 0 or more");
    }
    checked
}

/// A duration above zero.
pub fn positive_duration(problems: &mut Problems, setting: &str, duration: GoDuration) -> Option<Duration> {
    let checked = duration.to_std().filter(|duration| !duration.is_zero());
    if checked.is_none() {
        problems.add(
            setting,
            format_args!("{} {duration} must be greater than 0", spoken(setting)),
            "set it to 1s, for instance",
        );
    }
    checked
}

/// The length of the reference's queues: there are none here, but what the reference refuses is refused.
pub fn channel_size(problems: &mut Problems, size: i64) {
    if size <= 0 {
        problems.rule("xfr-channel-size", format_args!("channel size {size} must be greater than 0"), "leave it out");
    }
}

/// The two switches for profiles: the second needs the first.
pub fn profiling(problems: &mut Problems, profiling: bool, contention_profiling: bool) {
    if contention_profiling && !profiling {
        let reason = "if --enable-contention-profiling is set, --enable-profiling must also be set";
        problems.rule("enable-contention-profiling", reason, "set --enable-profiling, or leave both out");
    }
}

/// What to tell of settings that somebody has set and that have no effect here; `None` when there are none.
pub fn without_effect<'s>(problems: &Problems, settings: impl IntoIterator<Item = &'s &'s str>) -> Option<String> {
    let set = settings.into_iter().filter(|setting| problems.effective().is_set(setting));
    let flags: Vec<_> = set.map(|setting| format!("--{setting}")).collect();
    (!flags.is_empty()).then(|| format!("taken and without effect here: {}", flags.join(", ")))
}

/// A setting's name as words: `server-port` is the server port.
fn spoken(setting: &str) -> String {
    setting.replace('-', " ")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// What a check returns, and the one problem it finds; `""` for none.
    fn checked<T>(check: impl FnOnce(&mut Problems) -> T) -> (T, String) {
        let mut problems = Problems::default();
        let result = check(&mut problems);
        assert!(problems.found().len() < 2, "{problems}");
        let found = problems.found().first();
        (result, found.map(|problem| format!("{}: {}", problem.setting, problem.reason)).unwrap_or_default())
    }

    #[test]
    fn ports() {
        let of_server = |number| checked(|problems| port(problems, "admin-port", number, REGISTERED_PORTS));
        assert_eq!(of_server(1024), (Some(1024), String::new()));
        assert_eq!(of_server(49_151), (Some(49_151), String::new()));
        let reserved = "admin-port: please do not try to use reserved port 1023 for the admin port";
        assert_eq!(of_server(1023), (None, reserved.to_owned()));
        let ephemeral = "admin-port: please do not try to use ephemeral port 49152 for the admin port";
        assert_eq!(of_server(49_152), (None, ephemeral.to_owned()));
        let of_agent = |number| checked(|problems| port(problems, "x-port", number, 1..=65_535));
        assert_eq!(of_agent(65_535), (Some(65_535), String::new()));
        assert_eq!(of_agent(0), (None, "x-port: x port 0 must be greater than 0".to_owned()));
        assert_eq!(of_agent(65_536), (None, "x-port: x port 65536 is more than a port can be".to_owned()));
    }

    #[test]
    fn files() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("a.pem");
        let text = path.to_str().unwrap();
        let look = |path: &str| checked(|problems| file(problems, "ca-cert", path));
        assert_eq!(look(""), (None, String::new()));
        let missing = |name: &str| (None, format!("{name}, got stat {text}: no such file or directory"));
        assert_eq!(look(text), missing(&format!("ca-cert: error checking agent CA cert {text}")));
        for (setting, called) in [
            ("cluster-ca-cert", format!("cluster CA cert {text}")),
            ("service-account-token-path", format!("service account token path {text}")),
            ("kubeconfig", format!("KubeconfigPath {text:?}")),
        ] {
            let found = checked(|problems| file(problems, setting, text));
            assert_eq!(found, missing(&format!("{setting}: error checking {called}")));
        }
        std::fs::write(&path, "x").unwrap();
        assert_eq!(look(text), (Some(path.clone()), String::new()));
        assert!(look(folder.path().to_str().unwrap()).1.contains("is a directory"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o000)).unwrap();
        // Root reads everything.
        if File::open(&path).is_err() {
            assert!(look(text).1.contains("ermission denied"));
        }
        let required = checked(|problems| required_file(problems, "ca-cert", "", "at all times"));
        assert_eq!(required, (None, "ca-cert: ca cert must be set at all times".to_owned()));
    }

    #[test]
    fn pairs() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("a.pem");
        std::fs::write(&path, "x").unwrap();
        let file = path.to_str().unwrap();
        let look = |certificate, key| checked(|problems| pair(problems, ("a-cert", certificate), ("a-key", key)));
        assert_eq!(look("", ""), ((None, None), String::new()));
        assert_eq!(look(file, file), ((Some(path.clone()), Some(path.clone())), String::new()));
        let without_key = format!("a-cert: cannot have a key empty when a cert is set to {file:?}");
        assert_eq!(look(file, ""), ((Some(path.clone()), None), without_key));
        let without_certificate = format!("a-key: cannot have a cert empty when a key is set to {file:?}");
        assert_eq!(look("", file), ((None, Some(path.clone())), without_certificate));
        let mut problems = Problems::default();
        pair(&mut problems, ("a-cert", "missing"), ("a-key", ""));
        let found: Vec<_> = problems.found().iter().map(|problem| problem.reason.as_str()).collect();
        assert!(found[0].starts_with("error checking a cert missing") && found[1].contains("a key empty"), "{found:?}");
    }

    #[test]
    fn addresses() {
        let look = |host: &str| checked(|problems| listen(problems, ("a-host", host), "a-port", Some(80)));
        let addresses = |host: &str| {
            let (listen, problem) = look(host);
            assert_eq!(problem, "", "{host}");
            let listen = listen.unwrap();
            (listen.to_string(), listen.all_interfaces)
        };
        assert_eq!(addresses(""), ("[::]:80, 0.0.0.0:80".into(), true));
        assert_eq!(addresses("::"), ("[::]:80, 0.0.0.0:80".into(), true), "as Go's listener takes both");
        assert_eq!(addresses("0.0.0.0"), ("0.0.0.0:80".into(), false));
        assert_eq!(addresses("127.0.0.1"), ("127.0.0.1:80".into(), false));
        assert_eq!(addresses("::1"), ("[::1]:80".into(), false));
        assert_eq!(addresses("[::1]"), ("[::1]:80".into(), false));
        assert!(addresses("localhost").0.contains("127.0.0.1:80"));
        for host in ["127.0.0.1:80", "not a host", "no-such-host.invalid"] {
            let (listen, problem) = look(host);
            assert_eq!(listen, None);
            assert!(problem.starts_with("a-host: is neither an IP address nor a name that has one: "), "{problem}");
        }
        let without_port = checked(|problems| listen(problems, ("a-host", ""), "a-port", None));
        assert_eq!(without_port, (None, String::new()));
    }

    #[test]
    fn durations() {
        let any = |text: &str| checked(|problems| duration(problems, "a-wait", text.parse().unwrap()));
        assert_eq!(any("0"), (Some(Duration::ZERO), String::new()));
        assert_eq!(any("-1s"), (None, "a-wait: a-wait must be >= 0, got -1s".into()));
        let positive = |text: &str| checked(|problems| positive_duration(problems, "a-wait", text.parse().unwrap()));
        assert_eq!(positive("1s"), (Some(Duration::from_secs(1)), String::new()));
        for text in ["0s", "-1s"] {
            assert_eq!(positive(text), (None, format!("a-wait: a wait {text} must be greater than 0")));
        }
    }

    #[test]
    fn numbers() {
        let look = |value| checked(|problems| number::<u8>(problems, "a", value, 1..=1000));
        assert_eq!(look(1), (Some(1), String::new()));
        assert_eq!(look(0).0, None);
        assert_eq!(look(1001).1, "a: is out of range");
        assert_eq!(look(256).1, "a: is out of range", "the type cannot hold it");
    }
}
