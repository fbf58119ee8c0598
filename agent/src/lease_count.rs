//! How many servers there are, as their leases say.
//!
//! Nobody waits for it: until leases have been listed once, the servers' own count is what there is, and while the API
//! is away, the last count stays.

use std::{convert::Infallible, sync::Arc, time::Duration};

use konnectivity_kubernetes::{
    Complaint, Kubernetes,
    lease::{Event, FollowSettings, LeaseBook, LeaseFollower, LeaseScope, Request},
};
use tokio::{sync::watch, time::Instant};

use crate::metrics::Metrics;

/// How long a watch lasts; an API server ends one by itself after five to ten minutes. All agents watch.
const RELIST: Duration = Duration::from_secs(240);

/// The time between lists where watching is not allowed. The reference's agent looks at its leases every 10 s, and
/// needs to watch them.
const RELIST_WITHOUT_WATCH: Duration = Duration::from_secs(30);

/// Counts leases for as long as the future is polled. `counts` is `None` before they have been listed for the first
/// time.
pub async fn count(
    kubernetes: Kubernetes,
    scope: LeaseScope,
    metrics: Arc<Metrics>,
    counts: watch::Sender<Option<u32>>,
) -> Infallible {
    let settings = FollowSettings { scope, relist: RELIST, relist_without_watch: RELIST_WITHOUT_WATCH };
    let mut follower = LeaseFollower::new(kubernetes, settings);
    let (mut lists, mut watches, mut endless) = (Complaint::default(), Complaint::default(), 0);
    loop {
        match follower.next().await {
            Event::Granted(Request::List, took) => {
                metrics.leases.listed(200, "", took);
                if lists.is_over() {
                    tracing::info!("leases of servers are counted again");
                }
                warn_of_endless(follower.book(), &mut endless);
            }
            Event::Granted(Request::Watch, _) => {
                metrics.leases.watched(200, "");
                watches.is_over();
            }
            Event::Changed => {}
            Event::Failed(Request::List, took, error) => {
                metrics.leases.listed(error.code(), error.reason(), took);
                if lists.is_due(&error) {
                    tracing::error!(%error, "leases of servers cannot be counted; the last count stays");
                }
                // Nothing has been counted now.
                continue;
            }
            Event::Failed(Request::Watch, _, error) => {
                metrics.leases.watched(error.code(), error.reason());
                if watches.is_due(&error) {
                    tracing::warn!(%error, "leases of servers cannot be watched; they are listed now and then");
                }
            }
        }
        let count = u32::try_from(follower.book().valid(Instant::now()).count()).unwrap_or(u32::MAX);
        counts.send_if_modified(|counted| {
            let changed = *counted != Some(count);
            if changed {
                tracing::info!(count, "leases of servers were counted");
                *counted = Some(count);
            }
            changed
        });
    }
}

/// Says so when there are leases that can never count.
fn warn_of_endless(book: &LeaseBook, before: &mut usize) {
    let endless: Vec<_> = book.without_duration().map(|lease| lease.name.as_str()).collect();
    if endless.len() > *before {
        tracing::warn!(leases = endless.join(","), "leases without a duration (leaseDurationSeconds) are not counted");
    }
    *before = endless.len();
}
