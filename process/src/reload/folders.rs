//! Events of folders (inotify(7)): that something has happened in one of them, never what.

use std::{
    collections::BTreeSet,
    future::pending,
    io,
    os::fd::{AsFd, AsRawFd, RawFd},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use nix::{
    errno::Errno,
    sys::inotify::{AddWatchFlags, InitFlags, Inotify},
};
use tokio::io::unix::AsyncFd;

use super::LOOK_EVERY;

/// Reads of events in a row. In a folder where more goes on, the rest is one event more.
const MOST_READS: usize = 64;

/// Not `IN_MODIFY`, of which there is one for each write: who writes also closes.
const INTERESTING: AddWatchFlags = AddWatchFlags::IN_CREATE
    .union(AddWatchFlags::IN_CLOSE_WRITE)
    .union(AddWatchFlags::IN_MOVE)
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_ATTRIB)
    .union(AddWatchFlags::IN_MOVE_SELF)
    .union(AddWatchFlags::IN_DELETE_SELF)
    .union(AddWatchFlags::IN_ONLYDIR);

/// Events of the folders that are watched. Clones are the same.
#[derive(Debug, Clone)]
pub(super) struct FolderEvents(Option<Arc<Watches>>);

#[derive(Debug)]
struct Watches {
    descriptor: AsyncFd<Descriptor>,
    /// Whether it was said that a folder cannot be watched.
    told: AtomicBool,
}

#[derive(Debug)]
struct Descriptor(Inotify);

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl FolderEvents {
    /// Of no folder yet. Where the system has no events to give, there are none, and the log says so.
    pub(super) fn new() -> Self {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).map_err(io::Error::from);
        // Its successor is unsafe, for descriptors that are closed too early. This one's owner is in the same value.
        #[allow(deprecated)]
        let descriptor = inotify.and_then(|inotify| AsyncFd::new(Descriptor(inotify)));
        let watches = descriptor.map(|descriptor| Arc::new(Watches { descriptor, told: AtomicBool::new(false) }));
        Self(watches.inspect_err(without_events).ok())
    }

    /// Watches these folders, too. One that is watched already stays so.
    pub(super) fn watch<'a>(&self, folders: impl Iterator<Item = &'a Path>) {
        let Some(watches) = &self.0 else { return };
        for folder in folders.collect::<BTreeSet<_>>() {
            match watches.descriptor.get_ref().0.add_watch(folder, INTERESTING) {
                // It may come back.
                Ok(_) | Err(Errno::ENOENT | Errno::ENOTDIR) => {}
                Err(error) if watches.told.swap(true, Ordering::Relaxed) => {
                    tracing::debug!(%error, folder = %folder.display(), "a folder cannot be watched");
                }
                Err(error) => without_events(&error.into()),
            }
        }
    }

    /// Waits until something has happened in a folder.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn next(&self) {
        let Some(watches) = &self.0 else { return pending().await };
        let error = loop {
            let mut ready = match watches.descriptor.readable().await {
                Ok(ready) => ready,
                Err(error) => break error,
            };
            match ready.try_io(|descriptor| Ok(descriptor.get_ref().0.read_events()?)) {
                Ok(Ok(_)) => {
                    let more = || watches.descriptor.get_ref().0.read_events().is_ok();
                    (0..MOST_READS).take_while(|_| more()).for_each(drop);
                    return;
                }
                Ok(Err(error)) => break error,
                // It was not ready after all.
                Err(_) => {}
            }
        };
        without_events(&error);
        // Whoever waits has another reason to wake up.
        pending().await
    }
}

fn without_events(error: &io::Error) {
    tracing::info!(%error, "the system tells nothing of changed files; they are looked at every {LOOK_EVERY:?} all the same");
}
