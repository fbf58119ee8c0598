//! The emulated link between real sockets, and the program that makes one. Skipped without root or `/dev/net/tun`.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use konnectivity_interop::link::conditions::{Conditions, Gate, Jitter, Loss, Queue};
use konnectivity_interop::link::course::Course;
use konnectivity_interop::link::profile::{Direction, Profile};
use konnectivity_interop::link::{End, Link, StartError, netns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const MS: Duration = Duration::from_millis(1);
/// Longer than any machine needs.
const LIMIT: Duration = Duration::from_secs(20);
/// Long enough for a packet that was not dropped; it is waited for in vain only where one must not come.
const SILENCE: Duration = Duration::from_millis(200);

/// A quick link without anything bad.
fn quick() -> Conditions {
    Conditions { queue: Queue::Bytes(10_000_000), ..Conditions::clean(100_000_000, MS) }
}

fn start(both: Conditions, seed: u64) -> Option<Link> {
    start_profile(Profile::symmetric("test", Course::constant(both)), seed)
}

fn start_profile(profile: Profile, seed: u64) -> Option<Link> {
    if let Err(why) = Link::possible() {
        eprintln!("SKIPPED: {why}");
        return None;
    }
    Some(Link::start(profile, seed).unwrap())
}

fn socket(end: &End, address: impl Into<IpAddr>) -> UdpSocket {
    let address = SocketAddr::new(address.into(), 0);
    let socket = end.namespace.inside("open a socket", || UdpSocket::bind(address)).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket
}

/// A socket at the site and one in the cloud, each connected to nothing.
fn sockets(link: &Link) -> (UdpSocket, UdpSocket) {
    (socket(link.site(), link.site().ipv4), socket(link.cloud(), link.cloud().ipv4))
}

/// Sends one packet and says what comes and from where.
fn send(from: &UdpSocket, to: &UdpSocket, payload: &[u8]) -> Option<(Vec<u8>, SocketAddr)> {
    from.send_to(payload, to.local_addr().unwrap()).unwrap();
    receive(to)
}

fn receive(socket: &UdpSocket) -> Option<(Vec<u8>, SocketAddr)> {
    let mut payload = vec![0; 2000];
    loop {
        match socket.recv_from(&mut payload) {
            Ok((length, from)) => return Some((payload[..length].to_vec(), from)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
            // A socket with a time limit is not tried again by itself after the machine was suspended (signal(7)).
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => panic!("{error}"),
        }
    }
}

fn is_there(namespace: &str) -> bool {
    Path::new("/run/netns").join(namespace).exists()
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < LIMIT, "still not: {what}");
        thread::sleep(MS);
    }
}

/// Numbers that arrive of so many, and the shortest time that one took. (A socket holds 256 of them by default.)
fn arrivals(link: &Link, count: u64) -> (Vec<u64>, Duration) {
    let (site, cloud) = sockets(link);
    let begun = Instant::now();
    for number in 0..count {
        let now = u64::try_from(begun.elapsed().as_nanos()).unwrap();
        let payload = [number.to_le_bytes(), now.to_le_bytes()].concat();
        site.send_to(&payload, cloud.local_addr().unwrap()).unwrap();
    }
    let offered = || link.stats().unwrap().up.path;
    until("all packets have come out", || {
        let path = offered();
        path.offered == count && path.delivered + path.dropped.total() == count
    });
    let mut numbers = Vec::new();
    let mut shortest = Duration::MAX;
    cloud.set_nonblocking(true).unwrap();
    let mut payload = [0; 16];
    while cloud.recv(&mut payload).is_ok() {
        numbers.push(u64::from_le_bytes(payload[..8].try_into().unwrap()));
        // Read late, it seems longer; but never shorter.
        let sent = Duration::from_nanos(u64::from_le_bytes(payload[8..].try_into().unwrap()));
        shortest = shortest.min(begun.elapsed() - sent);
    }
    (numbers, shortest)
}

#[test]
fn the_same_seed_loses_the_same_packets_and_nothing_else_is_lost() {
    let lossy = Conditions { loss_before: Loss::Random(0.2), loss_after: Loss::bursts(0.1, 3.0), ..quick() };
    let run = |seed| {
        let link = start(lossy, seed)?;
        let (numbers, _) = arrivals(&link, 250);
        let stats = link.stop().unwrap();
        assert_eq!(numbers.len() as u64, stats.up.path.delivered, "what came out was received");
        assert!(stats.up.path.expected_before.deviations(stats.up.path.dropped.before).abs() < 4.0, "{stats}");
        assert!(stats.up.path.expected_after.deviations(stats.up.path.dropped.after).abs() < 4.0, "{stats}");
        assert!(stats.up.path.dropped.before > 0 && stats.up.path.dropped.after > 0);
        assert_eq!(stats.down.path.offered, 0, "the kernel sends nothing of its own");
        Some(numbers)
    };
    let Some(first) = run(1) else { return };
    assert_eq!(run(1).unwrap(), first);
    assert_ne!(run(2).unwrap(), first);
}

#[test]
fn nothing_arrives_before_its_time_or_out_of_order_unless_asked_for() {
    let far = Conditions { delay: 40 * MS, ..quick() };
    let Some(link) = start(far, 1) else { return };
    let (numbers, shortest) = arrivals(&link, 100);
    assert_eq!(numbers, (0..100).collect::<Vec<_>>());
    assert!(shortest >= 40 * MS, "{shortest:?}");

    let several_ways = Conditions { jitter: Jitter::Reordering(20 * MS), ..far };
    link.set(Direction::Up, Course::constant(several_ways)).unwrap();
    let (site, cloud) = sockets(&link);
    for number in 0..100_u8 {
        site.send_to(&[number], cloud.local_addr().unwrap()).unwrap();
    }
    let mut numbers: Vec<_> = (0..100).map(|_| receive(&cloud).unwrap().0[0]).collect();
    assert!(!numbers.is_sorted());
    numbers.sort_unstable();
    assert_eq!(numbers, (0..100).collect::<Vec<_>>());
}

#[test]
fn a_flood_arrives_at_the_rate_and_the_rest_is_dropped_by_the_queue() {
    const PACKET: usize = 1000;
    let Some(link) = start(Conditions { queue: Queue::Bytes(50_000), ..Conditions::clean(8_000_000, MS) }, 1) else {
        return;
    };
    let (site, cloud) = sockets(&link);
    let to = cloud.local_addr().unwrap();
    let begun = Instant::now();
    let sender = thread::spawn(move || {
        while begun.elapsed() < 700 * MS {
            for _ in 0..3 {
                let _ = site.send_to(&[0; PACKET - 28], to);
            }
            thread::sleep(MS);
        }
    });
    cloud.set_read_timeout(Some(SILENCE)).unwrap();
    let mut received: u32 = 0;
    while !sender.is_finished() {
        received += u32::from(receive(&cloud).is_some());
        // Each takes a millisecond: it may be seen late on a busy machine, never early.
        assert!(begun.elapsed() >= received * MS, "{received} in {:?}", begun.elapsed());
    }
    until("all have come out", || {
        let path = link.stats().unwrap().up.path;
        path.delivered + path.dropped.total() == path.offered
    });
    let stats = link.stop().unwrap();
    assert!(received > 100 && stats.up.path.dropped.queue_full > 100, "{stats}");
    // By its own count it was busy for exactly a millisecond with each.
    assert_eq!(stats.up.path.busy, MS * u32::try_from(stats.up.path.delivered).unwrap());
    assert!(stats.up.path.queue_delay.max() <= 50 * MS && stats.up.path.queue_delay.max() >= 45 * MS, "{stats}");
}

#[test]
fn both_families_and_tcp_pass_both_ways() {
    let Some(link) = start(Conditions { delay: 5 * MS, ..quick() }, 1) else { return };
    let (site, cloud) = (link.site(), link.cloud());
    for (near, far) in
        [(IpAddr::from(site.ipv4), IpAddr::from(cloud.ipv4)), (IpAddr::from(site.ipv6), IpAddr::from(cloud.ipv6))]
    {
        let (one, other) = (socket(site, near), socket(cloud, far));
        assert_eq!(send(&one, &other, b"up").unwrap(), (b"up".to_vec(), one.local_addr().unwrap()));
        assert_eq!(send(&other, &one, b"down").unwrap(), (b"down".to_vec(), other.local_addr().unwrap()));

        let listener = cloud.namespace.inside("listen", || TcpListener::bind((far, 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let echo = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).unwrap();
            stream.write_all(&bytes).unwrap();
        });
        let begun = Instant::now();
        let mut stream = site.namespace.inside("connect", || TcpStream::connect(address)).unwrap();
        assert!(begun.elapsed() >= 10 * MS, "a round trip");
        stream.write_all(&[7; 100_000]).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, [7; 100_000]);
        echo.join().unwrap();
    }
}

#[test]
fn a_rebound_nat_shows_another_address_and_answers_find_the_way_back() {
    let Some(link) = start(quick(), 1) else { return };
    let (site, cloud) = sockets(&link);
    let own = site.local_addr().unwrap();
    assert_eq!(send(&site, &cloud, b"1").unwrap().1, own);
    let mut seen = vec![own];
    for _ in 0..2 {
        link.rebind_nat();
        // What the cloud sends to the old address does not arrive.
        cloud.send_to(b"lost", *seen.last().unwrap()).unwrap();
        until("it was refused", || link.stats().unwrap().down.around.unmapped == seen.len() as u64);
        let (_, from) = send(&site, &cloud, b"2").unwrap();
        assert!(!seen.contains(&from), "{from}");
        seen.push(from);
        cloud.send_to(b"back", from).unwrap();
        assert_eq!(receive(&site).unwrap(), (b"back".to_vec(), cloud.local_addr().unwrap()));
    }
    let (site, cloud) = (socket(link.site(), link.site().ipv6), socket(link.cloud(), link.cloud().ipv6));
    let (_, from) = send(&site, &cloud, b"3").unwrap();
    assert_ne!(from, site.local_addr().unwrap());
    cloud.send_to(b"back", from).unwrap();
    assert_eq!(receive(&site).unwrap().0, b"back");
}

#[test]
fn blocked_udp_does_not_pass_and_tcp_does() {
    let mut profile = Profile::symmetric("test", Course::constant(quick()));
    profile.udp_blocked = vec![Duration::ZERO..LIMIT * 100];
    let Some(link) = start_profile(profile, 1) else { return };
    let (site, cloud) = sockets(&link);
    site.send_to(b"lost", cloud.local_addr().unwrap()).unwrap();
    until("it was blocked", || link.stats().unwrap().up.around.blocked == 1);
    let listener = link.cloud().namespace.inside("listen", || TcpListener::bind((link.cloud().ipv4, 0))).unwrap();
    let address = listener.local_addr().unwrap();
    link.site().namespace.inside("connect", || TcpStream::connect_timeout(&address, LIMIT)).unwrap();
    drop(link);

    let Some(link) = start(quick(), 1) else { return };
    let (site, cloud) = sockets(&link);
    assert!(send(&site, &cloud, b"1").is_some());
    link.block_udp(true);
    cloud.send_to(b"lost", site.local_addr().unwrap()).unwrap();
    until("it was blocked", || link.stats().unwrap().down.around.blocked == 1);
    link.block_udp(false);
    assert_eq!(send(&site, &cloud, b"2").unwrap().0, b"2");
}

#[test]
fn a_link_changes_while_it_runs() {
    let Some(link) = start(quick(), 1) else { return };
    let (site, cloud) = sockets(&link);
    let dropped = || link.stats().unwrap().up.path.dropped;
    assert!(send(&site, &cloud, &[0; 1400]).is_some());
    link.set(Direction::Up, Course::constant(Conditions { mtu: 1228, ..quick() })).unwrap();
    site.send_to(&[0; 1201], cloud.local_addr().unwrap()).unwrap();
    until("it was too long", || dropped().too_long == 1);
    assert_eq!(send(&site, &cloud, &[0; 1200]).unwrap().0.len(), 1200);

    link.set(Direction::Up, Course::constant(Conditions { gate: Gate::Lost, ..quick() })).unwrap();
    site.send_to(b"lost", cloud.local_addr().unwrap()).unwrap();
    until("it was lost", || dropped().outage == 1);
    // The other direction is another matter.
    assert!(send(&cloud, &site, b"down").is_some());
    link.set(Direction::Up, Course::constant(Conditions { gate: Gate::Held, ..quick() })).unwrap();
    site.send_to(b"held", cloud.local_addr().unwrap()).unwrap();
    cloud.set_read_timeout(Some(SILENCE)).unwrap();
    assert_eq!(receive(&cloud), None);
    link.set(Direction::Up, Course::constant(quick())).unwrap();
    cloud.set_read_timeout(Some(LIMIT)).unwrap();
    assert_eq!(receive(&cloud).unwrap().0, b"held");

    assert!(link.set(Direction::Up, Course::constant(Conditions { rate: Some(0), ..quick() })).is_err());
}

#[test]
fn copies_and_turned_bits_reach_the_program() {
    let Some(link) = start(Conditions { duplicates: 1.0, corruption: 1.0, ..quick() }, 1) else { return };
    let (site, cloud) = sockets(&link);
    let sent = [0x55; 333];
    let (first, _) = send(&site, &cloud, &sent).unwrap();
    assert_eq!(receive(&cloud).unwrap().0, first);
    let turned: u32 = first.iter().zip(sent).map(|(one, other)| (one ^ other).count_ones()).sum();
    assert_eq!((first.len(), turned), (333, 1));
}

#[test]
fn congestion_control_is_each_namespaces_own() {
    let Some(link) = start(quick(), 1) else { return };
    let get = |what: &str| link.site().namespace.get(&format!("ipv4/tcp_{what}_congestion_control")).unwrap();
    let (available, allowed) = (get("available"), get("allowed"));
    for name in available.split_whitespace() {
        match link.set_congestion_control(name) {
            Ok(used) => {
                assert_eq!(used, name);
                assert_eq!(link.cloud().namespace.congestion_control().unwrap(), name);
            }
            // The machine may have it and not allow it to namespaces.
            Err(error) => {
                assert!(!allowed.split_whitespace().any(|allowed| allowed == name), "{error}");
                assert!(error.to_string().contains("net.ipv4.tcp_allowed_congestion_control"), "{error}");
            }
        }
    }
    let error = link.set_congestion_control("no-such-thing").unwrap_err();
    assert!(error.to_string().contains("no-such-thing") && error.to_string().contains(&available), "{error}");
}

#[test]
fn nothing_is_left_and_links_do_not_disturb_each_other() {
    let (Some(one), Some(other)) = (start(quick(), 1), start(quick(), 1)) else { return };
    let names = [one.site(), one.cloud()].map(|end| end.namespace.name().to_owned());
    assert!(names.iter().all(|name| is_there(name)));
    let mut sleep = netns::command(&names[0], "sleep");
    let mut sleeper = sleep.arg("1000").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let inode = |path: String| std::fs::metadata(path).unwrap().ino();
    let namespace = inode(format!("/run/netns/{}", names[0]));
    until("it is inside", || inode(format!("/proc/{}/ns/net", sleeper.id())) == namespace);
    drop(one);
    assert!(!names.iter().any(|name| is_there(name)));
    // What ran in it was killed.
    until("the process is gone", || sleeper.try_wait().unwrap().is_some());

    let (site, cloud) = sockets(&other);
    assert!(send(&site, &cloud, b"still here").is_some());
}

#[test]
fn what_a_killed_run_has_left_is_named_and_removed() {
    if let Err(why) = Link::possible() {
        return eprintln!("SKIPPED: {why}");
    }
    // No process has a number above 2^22.
    let name = format!("konnectivity-link-4194305-{}-site", std::process::id());
    assert!(Command::new("ip").args(["netns", "add", &name]).status().unwrap().success());
    assert!(netns::left_over().contains(&name));
    let warned = program().args(["lan", "--", "true"]).output().unwrap();
    assert!(String::from_utf8(warned.stderr).unwrap().contains(&name));
    let cleaned = program().arg("--clean").output().unwrap();
    assert!(String::from_utf8(cleaned.stdout).unwrap().contains(&format!("removed {name}")));
    assert!(!is_there(&name));
}

#[test]
fn an_interface_goes_down_and_comes_back_with_another_address() {
    let Some(link) = start(quick(), 1) else { return };
    let (site, cloud) = sockets(&link);
    let ip = |arguments: &str| {
        let arguments = format!("-n {} {arguments}", link.site().namespace.name());
        assert!(Command::new("ip").args(arguments.split(' ')).status().unwrap().success(), "{arguments}");
    };
    assert!(send(&site, &cloud, b"1").is_some());
    ip("link set link0 down");
    cloud.send_to(b"lost", site.local_addr().unwrap()).unwrap();
    until("it was refused", || link.stats().unwrap().down.around.refused == 1);
    assert!(site.send_to(b"no way", cloud.local_addr().unwrap()).is_err());
    ip("address del 10.99.0.1/24 dev link0");
    ip("address add 10.99.0.7/24 dev link0");
    ip("link set link0 up");
    let moved = socket(link.site(), std::net::Ipv4Addr::new(10, 99, 0, 7));
    assert_eq!(send(&moved, &cloud, b"2").unwrap().1, moved.local_addr().unwrap());
    assert!(send(&cloud, &moved, b"3").is_some());
}

#[test]
fn impossible_links_are_refused_before_anything_is_made() {
    let bad = Profile::symmetric("bad", Course::constant(Conditions { mtu: 1, ..quick() }));
    assert!(matches!(Link::start(bad, 1), Err(StartError::Invalid(_))));
}

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_link"))
}

#[test]
fn the_program_runs_a_command_and_ends_as_it_ends() {
    if let Err(why) = Link::possible() {
        return eprintln!("SKIPPED: {why}");
    }
    let script =
        "test $(ip netns exec $LINK_SITE ip -o -4 address show dev link0 | grep -c $LINK_SITE_IPV4) = 1 || exit 1
        echo $LINK_SITE $LINK_CLOUD $LINK_NAME $LINK_SEED; exit 7";
    let output = program().args(["edge-50ms-1", "--seed", "5", "--", "sh", "-c", script]).output().unwrap();
    let (said, report) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(7), "{report}");
    let [site, cloud, name, seed] = said.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{said}") };
    assert_eq!((name, seed), ("edge-50ms-1", "5"));
    assert!(!is_there(site) && !is_there(cloud));
    for part in ["link edge-50ms-1, seed 5, TCP with", "later than computed", "emulator:", "check:"] {
        assert!(report.contains(part), "{report}");
    }
}

#[test]
fn the_program_cleans_up_when_it_is_interrupted() {
    if let Err(why) = Link::possible() {
        return eprintln!("SKIPPED: {why}");
    }
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut link = program()
            .args(["lan", "--", "sh", "-c", "echo $LINK_SITE; exec sleep 1000"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut name = String::new();
        BufReader::new(link.stdout.take().unwrap()).read_line(&mut name).unwrap();
        assert!(is_there(name.trim()), "{name}");
        kill(Pid::from_raw(i32::try_from(link.id()).unwrap()), signal).unwrap();
        assert_eq!(link.wait().unwrap().code(), Some(128 + signal as i32));
        assert!(!is_there(name.trim()), "{name}");
    }
}

#[test]
fn the_program_says_what_it_does_not_know() {
    let said = |arguments: &[&str]| {
        let output = program().args(arguments).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(said(&["perfect", "--", "true"]).contains("there are lan, dsl"));
    assert!(said(&["lan"]).contains("no command"));
    assert!(said(&["lan", "--outage", "5", "--", "true"]).contains("FROM..TO"));
    let list = program().arg("--list").output().unwrap();
    assert!(String::from_utf8(list.stdout).unwrap().contains("| bufferbloat | 20 | 50 |"));
}
