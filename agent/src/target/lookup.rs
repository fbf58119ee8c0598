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
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

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

/// The lookups under way.
pub(super) struct Lookups {
    threads: Arc<Semaphore>,
    under_way: Mutex<HashMap<String, watch::Receiver<Option<Found>>>>,
    resolve: Arc<Resolve>,
}

/// Finds the addresses of a name; may block for long.
type Resolve = dyn Fn(&str) -> Found + Send + Sync;

impl Lookups {
    /// The one that all dials of the process share, because they share its threads.
    pub(super) fn of_process() -> &'static Arc<Self> {
        static LOOKUPS: LazyLock<Arc<Lookups>> = LazyLock::new(|| Lookups::new(MOST_LOOKUPS, ask_system));
        &LOOKUPS
    }

    pub(super) fn new(most: usize, resolve: impl Fn(&str) -> Found + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            threads: Arc::new(Semaphore::new(most)),
            under_way: Mutex::default(),
            resolve: Arc::new(resolve),
        })
    }

    /// The addresses of `name`, in the resolver's order.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the place in the queue. A lookup that has begun goes on and keeps its thread's
    /// place until it ends.
    pub(super) async fn addresses(self: &Arc<Self>, name: &str) -> Found {
        if !is_domain_name(name) {
            return Err(LookupError::NotFound { server: None });
        }
        loop {
            if let Some(found) = self.join(name).await {
                return found;
            }
            let Ok(thread) = self.threads.clone().acquire_owned().await else {
                return Err(gone());
            };
            self.begin(name, thread);
        }
    }

    /// Waits for the lookup of `name` that is under way. `None` when there is none, or when it ended unheard.
    async fn join(&self, name: &str) -> Option<Found> {
        let mut lookup = self.lock().get(name).cloned()?;
        let found = lookup.wait_for(Option::is_some).await.ok()?;
        found.clone()
    }

    /// Starts the lookup of `name` unless somebody else just did.
    fn begin(self: &Arc<Self>, name: &str, thread: OwnedSemaphorePermit) {
        let mut under_way = self.lock();
        if under_way.contains_key(name) {
            return;
        }
        let (answer, lookup) = watch::channel(None);
        under_way.insert(name.to_owned(), lookup);
        drop(under_way);

        let entry = Entry { lookups: self.clone(), name: name.to_owned(), _thread: thread };
        let resolve = self.resolve.clone();
        // Not awaited: the answer comes by the channel to whoever still wants it, and the bound is the semaphore's.
        tokio::task::spawn_blocking(move || {
            let found = resolve(&entry.name);
            answer.send_replace(Some(found));
            drop(entry);
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, watch::Receiver<Option<Found>>>> {
        // The map is whole between any two statements, so a panic elsewhere does not spoil it.
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Marks a name as being looked up; removes the mark when the lookup ends, or never runs because the runtime stops.
struct Entry {
    lookups: Arc<Lookups>,
    name: String,
    _thread: OwnedSemaphorePermit,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.lookups.lock().remove(&self.name);
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
