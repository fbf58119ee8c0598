//! Moves packets between the two TUN devices, through the two paths: the one part that knows the time.
//!
//! One thread for both directions. It sleeps until a packet can be read or is due; how late it wakes is measured and
//! reported, and does not add up, because a path computes with the times at which things should have happened.

use std::io;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::EventFd;
use nix::sys::prctl;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::gettid;
use tun_rs::SyncDevice;

use super::ip::Packet;
use super::middlebox::{Middlebox, Verdict};
use super::path::{Cause, Path};
use super::spread::Spread;

/// Packets read from one device before what is due gets its turn: 2 ms of 400 Mbit/s.
const BATCH: usize = 64;
/// Buffers kept for the next packets: what a batch of each direction needs, and some in flight.
const MAX_SPARE: usize = 4096;
/// How often the thread's CPU time is read; that costs a system call.
const CPU_INTERVAL: Duration = Duration::from_millis(10);
/// Under load it looks this often and not at each packet: waking is most of the work. A packet after a rest is seen at
/// once.
const QUANTUM: Duration = Duration::from_micros(100);
/// The kernel may round a sleep up by this much; by default it is 50 µs.
const TIMER_SLACK_NANOS: u64 = 1_000;
/// Any real-time priority is above all normal ones.
const PRIORITY: &str = "1";

/// What the thread and its owner share.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    begun: Instant,
    wake: EventFd,
}

/// All of a running link.
#[derive(Debug)]
pub(super) struct State {
    /// Up and down.
    pub lanes: [Lane; 2],
    pub middlebox: Middlebox,
    pub cpu: Duration,
    pub is_real_time: bool,
    pub stop: bool,
    pub failure: Option<String>,
}

/// One direction and what happened around it.
#[derive(Debug)]
pub(super) struct Lane {
    pub path: Path<Packet>,
    pub around: Around,
}

/// What happened outside of the path.
#[derive(Debug, Clone, Default)]
pub struct Around {
    /// UDP packets that were not let through.
    pub blocked: u64,
    /// UDP packets of no flow that the address translation knows.
    pub unmapped: u64,
    /// UDP packets that were offered to the path.
    pub udp_offered: u64,
    /// Those of them that a full queue dropped.
    pub udp_queue_full: u64,
    /// Packets that the receiving kernel did not take.
    pub refused: u64,
    /// How long after its time each packet was given to the receiving kernel.
    pub lateness: Spread,
}

impl Shared {
    pub fn new(lanes: [Path<Packet>; 2], middlebox: Middlebox) -> io::Result<Self> {
        let lanes = lanes.map(|path| Lane { path, around: Around::default() });
        let state = State { lanes, middlebox, cpu: Duration::ZERO, is_real_time: false, stop: false, failure: None };
        Ok(Self { state: Mutex::new(state), begun: Instant::now(), wake: EventFd::new()? })
    }

    /// Since the link began.
    pub fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// To look at. (No panic leaves the state half changed: it is figures.)
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes something; the thread takes note.
    pub fn change(&self, change: impl FnOnce(&mut State, Duration)) {
        {
            let mut state = self.lock();
            // With the lock held: the thread must not see a later time before.
            let now = self.now();
            change(&mut state, now);
        }
        // It fails only if the thread has been told 2^64 times.
        let _ = self.wake.write(1);
    }
}

/// Runs until it is told to stop. `devices` are the site's and the cloud's.
pub(super) fn run(shared: &Shared, devices: &[SyncDevice; 2], mtu: usize) {
    let _ = prctl::set_timerslack(TIMER_SLACK_NANOS);
    let is_real_time = become_real_time();
    shared.lock().is_real_time = is_real_time;
    let mut pump = Pump { shared, devices, mtu, spare: Vec::new(), cpu_read: Duration::ZERO, has_worked: false };
    if let Err(error) = pump.run() {
        shared.lock().failure = Some(format!("the link's thread ended: {error}"));
    }
}

/// So that others on a busy machine do not make the link slower than it should be. Only `chrt` can do it without unsafe
/// code.
fn become_real_time() -> bool {
    let thread = gettid().to_string();
    let quiet = Command::new("chrt")
        .args(["--rr", "--pid", PRIORITY, &thread])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    quiet.is_ok_and(|status| status.success())
}

struct Pump<'a> {
    shared: &'a Shared,
    devices: &'a [SyncDevice; 2],
    mtu: usize,
    spare: Vec<Vec<u8>>,
    cpu_read: Duration,
    /// Whether a packet has moved since it last slept.
    has_worked: bool,
}

/// Sleeps for so long.
fn nap(time: Duration) -> io::Result<()> {
    match ppoll(&mut [], Some(TimeSpec::from(time)), None) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

impl Pump<'_> {
    fn run(&mut self) -> io::Result<()> {
        let mut readable = [true; 2];
        loop {
            let (now, wake) = {
                let mut state = self.shared.lock();
                if state.stop {
                    self.read_cpu(&mut state)?;
                    return Ok(());
                }
                for (direction, _) in readable.iter().enumerate().filter(|(_, readable)| **readable) {
                    self.read(&mut state, direction)?;
                }
                let wake = (0..2).filter_map(|direction| self.deliver(&mut state.lanes[direction], direction)).min();
                let now = self.shared.now();
                if now >= self.cpu_read + CPU_INTERVAL {
                    self.read_cpu(&mut state)?;
                    self.cpu_read = now;
                }
                (now, wake)
            };
            readable = self.sleep(now, wake)?;
        }
    }

    /// Packets from one device enter the path that begins there.
    fn read(&mut self, state: &mut State, direction: usize) -> io::Result<()> {
        let State { lanes, middlebox, .. } = state;
        let lane = &mut lanes[direction];
        for _ in 0..BATCH {
            let mut bytes = self.spare.pop().unwrap_or_default();
            bytes.resize(self.mtu, 0);
            match self.devices[direction].recv(&mut bytes) {
                Ok(length) => {
                    self.has_worked = true;
                    bytes.truncate(length);
                }
                Err(error) => {
                    self.keep(bytes);
                    return if error.kind() == io::ErrorKind::WouldBlock { Ok(()) } else { Err(error) };
                }
            }
            let mut packet = Packet(bytes);
            let now = self.shared.now();
            let verdict = match direction {
                0 => middlebox.outwards(now, &mut packet),
                _ => middlebox.inwards(now, &mut packet),
            };
            let rest = match verdict {
                Verdict::Passes => {
                    let is_udp = packet.is_udp();
                    let dropped = lane.path.offer(now, packet).err();
                    let is_full = dropped.as_ref().is_some_and(|(cause, _)| *cause == Cause::QueueFull);
                    lane.around.udp_offered += u64::from(is_udp);
                    lane.around.udp_queue_full += u64::from(is_udp && is_full);
                    dropped.map(|(_, packet)| packet)
                }
                Verdict::Blocked => {
                    lane.around.blocked += 1;
                    Some(packet)
                }
                Verdict::Unmapped => {
                    lane.around.unmapped += 1;
                    Some(packet)
                }
            };
            if let Some(packet) = rest {
                self.keep(packet.0);
            }
        }
        Ok(())
    }

    /// What is due leaves on the other side; gives back when to look again.
    fn deliver(&mut self, lane: &mut Lane, direction: usize) -> Option<Duration> {
        let to = &self.devices[1 - direction];
        loop {
            let now = self.shared.now();
            let Some(delivery) = lane.path.next(now) else { return lane.path.wake() };
            self.has_worked = true;
            lane.around.lateness.add(now.saturating_sub(delivery.due));
            if to.send(&delivery.packet.0).is_err() {
                lane.around.refused += 1;
            }
            self.keep(delivery.packet.0);
        }
    }

    fn keep(&mut self, bytes: Vec<u8>) {
        if self.spare.len() < MAX_SPARE {
            self.spare.push(bytes);
        }
    }

    /// Until a packet can be read, something has changed or `wake` has come; which devices are worth reading.
    fn sleep(&mut self, now: Duration, wake: Option<Duration>) -> io::Result<[bool; 2]> {
        if std::mem::take(&mut self.has_worked) {
            return nap(QUANTUM).map(|()| [true; 2]);
        }
        let [site, cloud] = self.devices;
        let mut fds = [
            PollFd::new(std::os::fd::AsFd::as_fd(site), PollFlags::POLLIN),
            PollFd::new(std::os::fd::AsFd::as_fd(cloud), PollFlags::POLLIN),
            PollFd::new(std::os::fd::AsFd::as_fd(&self.shared.wake), PollFlags::POLLIN),
        ];
        let at_most = wake.map(|wake| TimeSpec::from(wake.saturating_sub(now)));
        match ppoll(&mut fds, at_most, None) {
            Ok(0) | Err(Errno::EINTR) => return Ok([false; 2]),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let [site, cloud, woken] = fds.map(|fd| fd.any().unwrap_or(true));
        if woken {
            self.shared.wake.read()?;
        }
        Ok([site, cloud])
    }

    fn read_cpu(&self, state: &mut State) -> io::Result<()> {
        state.cpu = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into();
        Ok(())
    }
}
