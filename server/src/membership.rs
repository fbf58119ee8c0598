//! Which servers there are, as far as this one knows: what it tells its agents.

use std::sync::Arc;

use konnectivity_transport::server_list::ServerList;
use tokio::sync::watch;

/// What is known of all servers now; clones share it.
#[derive(Debug, Clone)]
pub struct Membership {
    /// As the settings say (`--server-count`).
    configured_count: u32,
    list: Arc<watch::Sender<Option<Arc<ServerList>>>>,
}

/// The lists of one agent's connection, one after the other.
#[derive(Debug)]
pub struct Lists(watch::Receiver<Option<Arc<ServerList>>>);

impl Membership {
    /// Only their number is known.
    pub fn new(configured_count: u32) -> Self {
        Self { configured_count, list: Arc::new(watch::Sender::new(None)) }
    }

    /// These are the servers, from now on. `None`: only their number is known.
    pub fn set(&self, list: Option<ServerList>) {
        self.list.send_if_modified(|current| {
            let changed = current.as_deref() != list.as_ref();
            if changed {
                *current = list.map(Arc::new);
            }
            changed
        });
    }

    /// How many servers an agent is told of that hears of no changes: the highest number that is known, for such an
    /// agent never looks for more.
    pub fn lasting_count(&self) -> u32 {
        self.list.borrow().as_ref().map_or(0, |list| list.count).max(self.configured_count)
    }

    /// How many servers there are now.
    pub fn count(&self) -> u32 {
        self.list.borrow().as_ref().map_or(self.configured_count, |list| list.count)
    }

    /// How many servers are in the list; 0 without one.
    pub fn listed(&self) -> usize {
        self.list.borrow().as_ref().map_or(0, |list| list.servers.len())
    }

    /// Whether there is a list.
    pub fn is_known(&self) -> bool {
        self.list.borrow().is_some()
    }

    /// All lists from now on, beginning with the present one.
    pub fn lists(&self) -> Lists {
        let mut lists = self.list.subscribe();
        lists.mark_changed();
        Lists(lists)
    }
}

impl Lists {
    /// The next list. Those that come faster than this is called are skipped.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn next(&mut self) -> Arc<ServerList> {
        loop {
            if self.0.changed().await.is_err() {
                // The server stops.
                std::future::pending::<()>().await;
            }
            let list = self.0.borrow_and_update().clone();
            if let Some(list) = list {
                return list;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    fn list(count: u32) -> Option<ServerList> {
        Some(ServerList { count, servers: Vec::new() })
    }

    #[tokio::test(start_paused = true)]
    async fn every_agent_hears_of_the_present_and_of_changes() {
        let membership = Membership::new(1);
        let mut early = membership.lists();
        assert!(timeout(Duration::from_secs(60), early.next()).await.is_err(), "nothing is known");
        membership.set(list(2));
        let mut late = membership.lists();
        assert_eq!((early.next().await.count, late.next().await.count), (2, 2));
        membership.set(list(2));
        assert!(timeout(Duration::from_secs(60), early.next()).await.is_err(), "nothing has changed");
        membership.set(list(3));
        membership.set(list(4));
        assert_eq!((early.next().await.count, late.next().await.count), (4, 4));
    }

    #[test]
    fn whoever_hears_once_is_told_the_most() {
        let membership = Membership::new(3);
        assert_eq!((membership.count(), membership.lasting_count(), membership.is_known()), (3, 3, false));
        assert_eq!(membership.listed(), 0);
        membership.set(list(2));
        assert_eq!((membership.count(), membership.lasting_count(), membership.is_known()), (2, 3, true));
        membership.set(list(5));
        assert_eq!((membership.count(), membership.lasting_count()), (5, 5));
        membership.set(None);
        assert_eq!((membership.count(), membership.lasting_count()), (3, 3));
    }
}
