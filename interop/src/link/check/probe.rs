//! The packets that a self check sends.

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::sys::socket::sockopt::ReceiveTimestampns;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, setsockopt};
use nix::sys::time::TimeSpec;
use socket2::{Domain, Socket, Type};

use super::super::conditions::Conditions;
use super::super::profile::Direction;
use super::super::{End, Link};

/// IPv4 and UDP headers.
const HEADERS: usize = 28;
/// IP packets of a train.
pub(super) const IP_BYTES: usize = 128;
/// A train is this long, and no shorter than so many packets.
const TRAIN: Duration = Duration::from_secs(3);
const TRAIN_AT_LEAST: u32 = 20;
/// One packet of a train a millisecond, or as many as take a quarter of the link.
const GAP: Duration = Duration::from_millis(1);
const FREE: u32 = 4;
/// A flood is this long and sends this much more than the link carries.
const FLOOD: Duration = Duration::from_secs(2);
const TOO_MUCH: f64 = 1.25;
/// Steps of a flood: the shortest queue of a link must outlast one.
const FLOOD_STEP: Duration = Duration::from_micros(200);
/// The rate is that of the best window this long, or so many times as long as a delay wanders.
const WINDOW: Duration = Duration::from_millis(500);
const WANDERS_IN_WINDOW: u32 = 80;
/// After the last packet could have come, nothing may come for so long: it bears a busy machine.
const PATIENCE: Duration = Duration::from_millis(300);
/// Enough for what arrives while the receiver does not run. The kernel may give less.
const SOCKET_BUFFER: usize = 4 << 20;

/// What a train of small packets has found out.
#[derive(Debug, Clone)]
pub(super) struct Train {
    pub sent: u64,
    pub lost: u64,
    pub median_delay: Duration,
    pub took: Duration,
}

/// What too many large packets have found out.
#[derive(Debug, Clone)]
pub(super) struct Flood {
    pub arrived: u64,
    /// Bits of IP packets a second.
    pub rate: f64,
    pub took: Duration,
}

impl Train {
    pub fn run(link: &Link, direction: Direction, conditions: &Conditions) -> io::Result<Self> {
        let sockets = Sockets::open(link, direction)?;
        let gap = GAP.max(conditions.sending_time(IP_BYTES) * FREE);
        let count = u32::try_from(TRAIN.as_nanos() / gap.as_nanos()).unwrap_or(u32::MAX).max(TRAIN_AT_LEAST);
        let begun = Instant::now();
        let (took, arrivals) = sockets.send_and_receive(longest(conditions), || {
            for number in 0..count {
                wait_until(begun + gap * number);
                sockets.send(number, IP_BYTES)?;
            }
            Ok(begun.elapsed())
        })?;
        let mut seen = vec![false; count as usize];
        let mut delays: Vec<Duration> = Vec::with_capacity(count as usize);
        for arrival in arrivals {
            let Some(seen) = seen.get_mut(arrival.number as usize) else { continue };
            if !*seen {
                *seen = true;
                delays.push(arrival.at.saturating_sub(arrival.sent));
            }
        }
        delays.sort_unstable();
        let median_delay = delays.get(delays.len() / 2).copied().unwrap_or_default();
        let sent = u64::from(count);
        Ok(Self { sent, lost: sent - delays.len() as u64, median_delay, took })
    }
}

impl Flood {
    pub fn run(link: &Link, direction: Direction, conditions: &Conditions, rate: u64) -> io::Result<Self> {
        let sockets = Sockets::open(link, direction)?;
        // As long as the link allows, and at least a hundred a second.
        let bytes = usize::try_from(rate / 800).unwrap_or(usize::MAX).min(conditions.mtu).clamp(IP_BYTES, 1500);
        let wanted = rate as f64 * TOO_MUCH / (1.0 - conditions.loss_before.mean()).max(0.01);
        let each = bytes as f64 * 8.0;
        let begun = Instant::now();
        let (_, arrivals) = sockets.send_and_receive(longest(conditions), || {
            let mut sent = 0;
            while begun.elapsed() < FLOOD {
                let due = (begun.elapsed().as_secs_f64() * wanted / each) as u32;
                while sent <= due {
                    sockets.send(sent, bytes)?;
                    sent += 1;
                }
                wait_until(Instant::now() + FLOOD_STEP);
            }
            Ok(())
        })?;
        let window = WINDOW.max(conditions.jitter.spread() * WANDERS_IN_WINDOW).min(FLOOD * 3 / 4);
        Ok(best_window(&arrivals, window, each))
    }
}

/// The window with the most packets: on a busy machine the sender may pause for longer than the queue lasts, but a link
/// that is too quick is too quick in every window.
fn best_window(arrivals: &[Arrival], window: Duration, bits_each: f64) -> Flood {
    let mut best = Flood { arrived: 0, rate: 0.0, took: Duration::ZERO };
    let mut end = 0;
    for (start, first) in arrivals.iter().enumerate() {
        while arrivals.get(end).is_some_and(|last| last.at < first.at + window) {
            end += 1;
        }
        let Some(last) = arrivals.get(end) else { break };
        let (arrived, took) = ((end - start) as u64, last.at - first.at);
        let rate = arrived as f64 * bits_each / took.as_secs_f64();
        if rate > best.rate {
            best = Flood { arrived, rate, took };
        }
    }
    best
}

/// From the sending of a packet to its arrival, at most.
fn longest(conditions: &Conditions) -> Duration {
    let queue = conditions.sending_time(conditions.queue_bytes().min(1 << 30));
    conditions.delay + conditions.jitter.spread() + queue + conditions.sending_time(conditions.mtu)
}

/// A packet that has arrived.
struct Arrival {
    number: u32,
    sent: Duration,
    at: Duration,
}

/// One at each end.
struct Sockets {
    sender: UdpSocket,
    receiver: UdpSocket,
    to: SocketAddr,
}

impl Sockets {
    fn open(link: &Link, direction: Direction) -> io::Result<Self> {
        let (from, to) = match direction {
            Direction::Up => (link.site(), link.cloud()),
            Direction::Down => (link.cloud(), link.site()),
        };
        let (sender, receiver) = (bind(from)?, bind(to)?);
        let to = receiver.local_addr()?;
        Ok(Self { sender, receiver, to })
    }

    /// Number, time of sending, and both once more inverted, so that a turned bit is noticed; then zeros.
    fn send(&self, number: u32, ip_bytes: usize) -> io::Result<()> {
        let mut payload = [0; 1500];
        let nanos = u64::try_from(now().as_nanos()).unwrap_or(u64::MAX);
        payload[..4].copy_from_slice(&number.to_le_bytes());
        payload[4..12].copy_from_slice(&nanos.to_le_bytes());
        payload[12..16].copy_from_slice(&(!number).to_le_bytes());
        payload[16..24].copy_from_slice(&(!nanos).to_le_bytes());
        // A full socket buffer is the sender's own business: nothing has entered the link then, so try again.
        loop {
            match self.sender.send_to(&payload[..ip_bytes - HEADERS], self.to) {
                Err(error) if matches!(error.raw_os_error(), Some(NO_BUFFERS)) => thread::yield_now(),
                other => return other.map(|_| ()),
            }
        }
    }

    /// Everything that arrives until some time after the sender is done, with what the sender returns.
    fn send_and_receive<T>(
        &self,
        longest: Duration,
        send: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<(T, Vec<Arrival>)> {
        self.receiver.set_read_timeout(Some(PATIENCE))?;
        let done = OnceLock::new();
        thread::scope(|scope| {
            let receiving = scope.spawn(|| self.receive(longest, &done));
            let sent = send();
            let _ = done.set(Instant::now());
            let arrivals = receiving.join().unwrap_or_else(|_| Err(io::Error::other("the receiver panicked")));
            Ok((sent?, arrivals?))
        })
    }

    fn receive(&self, longest: Duration, done: &OnceLock<Instant>) -> io::Result<Vec<Arrival>> {
        let mut arrivals = Vec::new();
        let mut payload = [0; 1500];
        let mut control = nix::cmsg_space!(TimeSpec);
        loop {
            let mut parts = [IoSliceMut::new(&mut payload)];
            let receiver = self.receiver.as_raw_fd();
            match recvmsg::<SockaddrIn>(receiver, &mut parts, Some(&mut control), MsgFlags::empty()) {
                Ok(message) => {
                    let at = message.cmsgs()?.find_map(|part| match part {
                        ControlMessageOwned::ScmTimestampns(time) => Some(Duration::from(time)),
                        _ => None,
                    });
                    let length = message.bytes;
                    let at = at.ok_or_else(|| io::Error::other("the kernel gives no time of arrival"))?;
                    arrivals.extend(read(&payload[..length], at));
                }
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            if done.get().is_some_and(|done| done.elapsed() > longest + PATIENCE) {
                return Ok(arrivals);
            }
        }
    }
}

/// Since 1970: what the kernel's time stamps count.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// What the kernel says when a device's queue is full.
const NO_BUFFERS: i32 = Errno::ENOBUFS as i32;

fn bind(end: &End) -> io::Result<UdpSocket> {
    let address = SocketAddrV4::new(end.ipv4, 0);
    let opened = end.namespace.inside("open a socket", || {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
        socket.set_recv_buffer_size(SOCKET_BUFFER)?;
        // When a packet arrives is the kernel's word: this thread may see it late on a busy machine.
        setsockopt(&socket, ReceiveTimestampns, &true)?;
        socket.bind(&SocketAddr::from(address).into())?;
        Ok(UdpSocket::from(socket))
    });
    opened.map_err(io::Error::other)
}

fn read(payload: &[u8], at: Duration) -> Option<Arrival> {
    let number = u32::from_le_bytes(payload.get(..4)?.try_into().ok()?);
    let nanos = u64::from_le_bytes(payload.get(4..12)?.try_into().ok()?);
    let again = (payload.get(12..16)?, payload.get(16..24)?);
    let is_whole = again == (&(!number).to_le_bytes()[..], &(!nanos).to_le_bytes()[..]);
    is_whole.then_some(Arrival { number, sent: Duration::from_nanos(nanos), at })
}

/// On a thread that does nothing else.
#[expect(clippy::disallowed_methods, reason = "no task runs on this thread")]
fn wait_until(time: Instant) {
    thread::sleep(time.saturating_duration_since(Instant::now()));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1,000 packets of 1,000 bits a second, and a pause of a second after the first 700.
    #[test]
    fn a_pause_of_the_sender_does_not_count_and_too_quick_a_link_does() {
        let at = |number: u32| Duration::from_millis(u64::from(number) + if number < 700 { 0 } else { 1000 });
        let arrivals = |at: &dyn Fn(u32) -> Duration| -> Vec<_> {
            (0..1500).map(|number| Arrival { number, sent: Duration::ZERO, at: at(number) }).collect()
        };
        let flood = best_window(&arrivals(&at), WINDOW, 1000.0);
        assert!((flood.rate / 1e6 - 1.0).abs() < 0.005 && flood.took >= WINDOW, "{flood:?}");
        // Too quick by a tenth for 600 packets.
        let quick = |number: u32| at(number).saturating_sub(Duration::from_micros(100) * number.min(600));
        assert!(best_window(&arrivals(&quick), WINDOW, 1000.0).rate > 1.09e6);
        assert_eq!(best_window(&[], WINDOW, 1000.0).rate, 0.0);
    }
}
