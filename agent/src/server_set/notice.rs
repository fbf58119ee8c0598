//! What is waited for besides connections: that a server drains, its lists of servers, and the count of leases.

use std::sync::Arc;

use tokio::sync::watch;

use super::listed::Told;

/// What a server has said.
pub(super) enum Notice {
    /// It drains.
    Drains,
    /// Which servers there are, and where the next such list comes.
    Servers(Arc<Told>, watch::Receiver<Option<Arc<Told>>>),
    /// Nothing, and it never will.
    Nothing,
}

/// The next list. Ends when there will be none.
pub(super) async fn next_list(mut lists: watch::Receiver<Option<Arc<Told>>>) -> Notice {
    while lists.changed().await.is_ok() {
        let list = lists.borrow_and_update().clone();
        if let Some(list) = list {
            return Notice::Servers(list, lists);
        }
    }
    Notice::Nothing
}

/// The next count of leases. Waits for ever when there will be none.
pub(super) async fn next_count(leases: &mut Option<watch::Receiver<Option<u32>>>) -> Option<u32> {
    if let Some(counts) = leases
        && counts.changed().await.is_ok()
    {
        return *counts.borrow_and_update();
    }
    *leases = None;
    std::future::pending().await
}
