//! What is made from files, and made anew when the files change, without a restart.
//!
//! ```text
//! events of the folders --+
//! every 10 s -------------+--> look: is the content new? --> the same for a while --> make --> Current --> who uses it
//! SIGHUP -----------------+                                                             |
//!                                                                    cannot be used: what is in use stays
//! ```
//!
//! Files are known by their content, whatever replaces them: an editor, a rename, the symbolic links that a kubelet
//! swaps. Events only make a look come sooner, so none of them has to be understood, and none can be missed for long.
//! Looks are made on a thread of their own: traffic does not wait for a slow disk.

mod folders;
pub(crate) mod settling;

use std::{
    convert::Infallible,
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::{Duration, Instant},
};

use tokio::{
    select,
    signal::unix::{Signal, SignalKind, signal},
    task::spawn_blocking,
    time::sleep,
};

use self::{folders::FolderEvents, settling::SETTLE};

/// How late a change is seen at the latest: there are file systems without events, and links to other folders.
pub const LOOK_EVERY: Duration = Duration::from_secs(10);

/// A value in use. Clones see the same one, always the newest.
pub struct Current<T>(Arc<Shared<T>>);

struct Shared<T> {
    value: RwLock<Arc<T>>,
    followers: Mutex<Vec<Follower<T>>>,
}

type Follower<T> = Box<dyn Fn(&T) + Send>;

impl<T> Current<T> {
    /// A value that stays until it is [`set`](Self::set) anew.
    pub fn new(value: T) -> Self {
        Self(Arc::new(Shared { value: RwLock::new(Arc::new(value)), followers: Mutex::default() }))
    }

    /// The value as it is now.
    pub fn get(&self) -> Arc<T> {
        self.0.value.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts another value in its place, and tells the followers.
    pub fn set(&self, value: T) {
        let followers = self.followers();
        let value = Arc::new(value);
        *self.0.value.write().unwrap_or_else(PoisonError::into_inner) = value.clone();
        followers.iter().for_each(|follower| follower(&value));
    }

    /// Calls `follower` with every later value, on the thread that has made it. It must not block, nor set this one.
    pub fn follow(&self, follower: impl Fn(&T) + Send + 'static) {
        self.followers().push(Box::new(follower));
    }

    /// What `of` makes of the value, now and later.
    pub fn map<U: Send + Sync + 'static>(&self, of: impl Fn(&T) -> U + Send + 'static) -> Current<U> {
        let mut followers = self.followers();
        let mapped = Current::new(of(&self.get()));
        let follower = mapped.clone();
        followers.push(Box::new(move |value| follower.set(of(value))));
        mapped
    }

    fn followers(&self) -> MutexGuard<'_, Vec<Follower<T>>> {
        self.0.followers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Clone for Current<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: fmt::Debug> fmt::Debug for Current<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Current").field(&self.get()).finish()
    }
}

/// Something that is made from files.
pub trait Source: Send {
    /// The files, for events.
    fn files(&self) -> Vec<PathBuf>;

    /// Looks at the files, and takes over what they hold if it has been there for a while and can be used. `asked`: an
    /// operator wants to know, so what was said before is said again. Returns whether there is nothing to come back for
    /// soon.
    fn look(&mut self, now: Instant, asked: bool) -> bool;
}

type Sources = Arc<Mutex<Vec<Box<dyn Source>>>>;

/// Everything of this process that is made from files.
pub struct Reloader {
    sources: Vec<Box<dyn Source>>,
    hangup: Signal,
}

impl Reloader {
    /// Nothing yet. From now on SIGHUP does not end the process, but makes it look at the files.
    ///
    /// # Errors
    /// When the kernel refuses the handler.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O.
    pub fn new() -> io::Result<Self> {
        Ok(Self { sources: Vec::new(), hangup: signal(SignalKind::hangup())? })
    }

    /// Looks after this one, too.
    pub fn add(&mut self, source: impl Source + 'static) {
        self.sources.push(Box::new(source));
    }

    /// Looks after the files until it is dropped.
    ///
    /// # Cancel safety
    /// A look that has begun is made to its end, on its own thread.
    pub async fn run(self) -> Infallible {
        let Self { sources, mut hangup } = self;
        let sources: Sources = Arc::new(Mutex::new(sources));
        let events = FolderEvents::new();
        let mut asked = false;
        loop {
            // Folders are watched before they are looked at: nothing happens unseen in between.
            look(&sources, &events, asked).await;
            asked = select! {
                () = sleep(LOOK_EVERY) => false,
                // One look for many events: the folder may be a busy one.
                () = async { events.next().await; sleep(SETTLE).await } => false,
                _ = hangup.recv() => {
                    tracing::info!("SIGHUP: looking at certificates, keys and authorities");
                    true
                }
            };
        }
    }
}

/// Looks until nothing is about to change.
async fn look(sources: &Sources, events: &FolderEvents, mut asked: bool) {
    loop {
        let (sources, events) = (sources.clone(), events.clone());
        let looked = spawn_blocking(move || {
            let mut sources = sources.lock().unwrap_or_else(PoisonError::into_inner);
            // Every time: what is watched is a folder, not its name, and may have been replaced.
            let files: Vec<_> = sources.iter().flat_map(|source| source.files()).collect();
            events.watch(files.iter().map(|file| folder_of(file)));
            let now = Instant::now();
            // All of them, whatever the first ones say.
            sources.iter_mut().filter_map(|source| (!source.look(now, asked)).then_some(())).count() == 0
        });
        match looked.await {
            Ok(true) => return,
            Ok(false) => sleep(SETTLE).await,
            Err(error) => return tracing::error!(%error, "files could not be looked at; trying again later"),
        }
        asked = false;
    }
}

fn folder_of(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests;
