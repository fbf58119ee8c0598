//! Names to addresses by the system's resolver, which blocks a thread for each name.
//!
//! The C library may hold that thread for many seconds (by default 5 s for each try and server) and cannot be
//! interrupted. Two things keep slow names from stopping the rest: a name that is asked for again while it is being
//! looked up joins that lookup instead of taking another thread, and at most [`MOST_LOOKUPS`] threads are taken.
//! 2,000 dials at once to slow names therefore hold 64 threads, not tokio's whole pool of 512; the other dials wait
//! until one ends or their own time limit does.

use std::{
    collections::HashMap,
    fs, io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
};

use konnectivity_transport::wire::message::DialErrorKind;
use tokio::sync::{Semaphore, watch};

use super::{errno, error};

/// Names being looked up at once in this process. A resolver that answers in 2 ms serves 32,000 names a second so;
/// 64 threads cost about 3 MB while they all wait.
pub(super) const MOST_LOOKUPS: usize = 64;

/// What a lookup found; the port of each address is 0.
type Found = Result<Arc<[SocketAddr]>, LookupError>;

/// Why a name has no address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LookupError {
    /// There is no such name, or it has no address. `server` was asked, as `address:port`.
    NotFound { server: Option<String> },
    /// The resolver has no answer: its server failed, or none could be reached.
    Misbehaving { server: Option<String> },
    /// The system could not even ask.
    System { kind: DialErrorKind, text: String },
}

/// The lookups that somebody waits for.
pub(super) struct Lookups {
    threads: Arc<Semaphore>,
    wanted: Mutex<HashMap<String, Arc<Lookup>>>,
    resolve: Arc<Resolve>,
}

/// Finds the addresses of a name; may block for long.
type Resolve = dyn Fn(&str) -> Found + Send + Sync;

/// One name that is being looked up, or waits for a thread.
#[derive(Default)]
struct Lookup {
    /// Held by the one caller that waits for a thread, then by that thread.
    turn: Arc<tokio::sync::Mutex<()>>,
    answer: watch::Sender<Option<Found>>,
}

impl Lookups {
    /// The one that all dials of the process share, because they share its threads.
    pub(super) fn of_process() -> &'static Arc<Self> {
        static LOOKUPS: LazyLock<Arc<Lookups>> = LazyLock::new(|| Lookups::new(MOST_LOOKUPS, ask_system));
        &LOOKUPS
    }

    pub(super) fn new(most: usize, resolve: impl Fn(&str) -> Found + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { threads: Arc::new(Semaphore::new(most)), wanted: Mutex::default(), resolve: Arc::new(resolve) })
    }

    /// The addresses of `name`, in the resolver's order.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the place in the queue; if others want the same name, one of them takes it. A
    /// lookup that has begun goes on and keeps its thread until it ends.
    pub(super) async fn addresses(self: &Arc<Self>, name: &str) -> Found {
        if !is_domain_name(name) {
            return Err(LookupError::NotFound { server: None });
        }
        let interest = Interest::new(self, name);
        let mut answer = interest.lookup.answer.subscribe();
        tokio::select! {
            // Whoever is given the turn by a lookup that has just ended must not begin another.
            biased;
            Ok(answer) = answer.wait_for(Option::is_some) => answer.clone().unwrap_or_else(|| Err(gone())),
            found = self.look_up(name, &interest.lookup) => found,
        }
    }

    /// Waits for the turn among those who want `name`, then for a thread, then for the answer.
    async fn look_up(self: &Arc<Self>, name: &str, lookup: &Arc<Lookup>) -> Found {
        let turn = lookup.turn.clone().lock_owned().await;
        let Ok(thread) = self.threads.clone().acquire_owned().await else {
            return Err(gone());
        };
        let (lookups, lookup, name) = (self.clone(), lookup.clone(), name.to_owned());
        let blocking = tokio::task::spawn_blocking(move || {
            let found = (lookups.resolve)(&name);
            lookups.forget(&name, &lookup);
            lookup.answer.send_replace(Some(found.clone()));
            drop((turn, thread));
            found
        });
        blocking.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Lets the next caller begin a lookup of its own.
    fn forget(&self, name: &str, lookup: &Arc<Lookup>) {
        let mut wanted = self.lock();
        if wanted.get(name).is_some_and(|current| Arc::ptr_eq(current, lookup)) {
            wanted.remove(name);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Lookup>>> {
        // The map is whole between any two statements, so a panic elsewhere does not spoil it.
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One caller's wish for a name. The last one to leave before the lookup has begun takes the name off the list.
struct Interest<'a> {
    lookups: &'a Lookups,
    name: &'a str,
    lookup: Arc<Lookup>,
}

impl<'a> Interest<'a> {
    fn new(lookups: &'a Lookups, name: &'a str) -> Self {
        let lookup = lookups.lock().entry(name.to_owned()).or_default().clone();
        Self { lookups, name, lookup }
    }
}

impl Drop for Interest<'_> {
    fn drop(&mut self) {
        let mut wanted = self.lookups.lock();
        let Some(current) = wanted.get(self.name) else {
            return;
        };
        // The list's own and ours: no other caller and no thread. New ones take theirs under the same lock, or from
        // an interest that still counts.
        if Arc::ptr_eq(current, &self.lookup) && Arc::strong_count(current) == 2 {
            wanted.remove(self.name);
        }
    }
}

fn gone() -> LookupError {
    LookupError::System { kind: DialErrorKind::Other, text: "agent is stopping".to_owned() }
}

/// Asks the C library. Blocks.
fn ask_system(name: &str) -> Found {
    match (name, 0).to_socket_addrs() {
        Ok(addresses) => Ok(addresses.collect()),
        Err(error) => Err(classify(&error, name_server)),
    }
}

/// What the C library's failure means. The standard library gives its code only as text: glibc's and musl's words for
/// `EAI_NONAME`, `EAI_NODATA`, `EAI_AGAIN` and `EAI_FAIL`.
fn classify(error: &io::Error, server: impl FnOnce() -> Option<String>) -> LookupError {
    if error.raw_os_error().is_some() {
        return LookupError::System { kind: error::kind(error), text: errno::text(error) };
    }
    let text = error.to_string();
    let has = |words: &[&str]| words.iter().any(|words| text.ends_with(words));
    if has(&["Temporary failure in name resolution", "Try again"])
        || has(&["Non-recoverable failure in name resolution", "Non-recoverable error"])
    {
        return LookupError::Misbehaving { server: server() };
    }
    LookupError::NotFound { server: server() }
}

/// The server that Go would name in its text. Blocks for a small file.
fn name_server() -> Option<String> {
    first_name_server(&fs::read_to_string("/etc/resolv.conf").ok()?)
}

/// The first `nameserver` line of resolv.conf(5), with the port as Go prints it.
fn first_name_server(file: &str) -> Option<String> {
    file.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        if words.next()? != "nameserver" {
            return None;
        }
        let ip: IpAddr = words.next()?.parse().ok()?;
        Some(SocketAddr::new(ip, 53).to_string())
    })
}

/// Whether Go would ask a server for the name (its `isDomainName`): letters, digits, `_`, inner hyphens, labels of 1 to
/// 63, 253 in all, not only digits. It keeps the C library from reading `127.1` as an address.
fn is_domain_name(name: &str) -> bool {
    let relative = name.strip_suffix('.').unwrap_or(name);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_')
    };
    relative.len() <= 253
        && relative.split('.').all(is_label)
        && relative.bytes().any(|c| !c.is_ascii_digit() && c != b'.')
}

#[cfg(test)]
mod tests;
