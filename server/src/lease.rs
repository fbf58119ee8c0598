//! Leases: this server's own, by which others know that it is there, and the others', by which it knows them.
//!
//! ```text
//! keep:   write own --> renewal interval --> write own ...            drain --> delete own
//! follow: list, watch --> membership (what agents are told)           drain --> end
//!             +-- those of dead servers --> delete
//! ```
//!
//! None of it holds up a dial: while the API is away, this server serves, and its agents are told what was known last.

use std::{collections::HashSet, convert::Infallible, sync::Arc, time::Duration};

use konnectivity_kubernetes::{
    ApiError, Complaint, Kubernetes,
    lease::{Deleted, Event, FollowSettings, LeaseBook, LeaseFollower, LeaseScope, LeaseTerms, OwnLease, Request},
};
use konnectivity_transport::{
    id::ServerId,
    server_list::{ListedServer, MAX_SERVER_ADDRESSES, ServerAddress, ServerList},
};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::{membership::Membership, metrics::Metrics};

/// Waits after a write has failed.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(7);

/// A renewal has at least so long.
const LEAST_PATIENCE: Duration = Duration::from_secs(1);

/// Renewals come up to this part of their interval later, by lot.
const JITTER: f64 = 0.04;

/// How long a draining server tries to delete its lease. Agents hear of the drain on their connections, too.
const DELETE_LIMIT: Duration = Duration::from_secs(10);

/// How leases are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseSettings {
    /// What this server's lease says.
    pub terms: LeaseTerms,
    /// How often it is renewed.
    pub renew_interval: Duration,
    /// How often all leases are listed, and those of dead servers deleted.
    pub collect_interval: Duration,
}

impl LeaseSettings {
    /// How long one renewal may take, so that there are three before the lease expires.
    fn patience(&self) -> Duration {
        (self.terms.duration.saturating_sub(self.renew_interval) / 3).max(LEAST_PATIENCE)
    }
}

/// What cares for leases.
pub struct Leases {
    /// The API.
    pub kubernetes: Kubernetes,
    /// How.
    pub settings: LeaseSettings,
    /// Who this server is.
    pub server_id: ServerId,
    /// Where agents reach it.
    pub advertised: Vec<ServerAddress>,
    /// What agents are told.
    pub membership: Membership,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

impl Leases {
    /// Cares for leases until the server drains; then deletes its own, and returns.
    pub async fn run(self, drain: CancellationToken) {
        let follow = async {
            tokio::select! {
                never = self.follow() => match never {},
                () = drain.cancelled() => {}
            }
        };
        tokio::join!(self.keep(&drain), follow);
    }

    async fn keep(&self, drain: &CancellationToken) {
        let mut own = OwnLease::new(self.kubernetes.clone(), self.settings.terms.clone());
        tokio::select! {
            never = self.renew(&mut own) => match never {},
            // What is under way is abandoned, and cannot create the lease again later.
            () = drain.cancelled() => {}
        }
        if timeout(DELETE_LIMIT, delete(&mut own)).await.is_err() {
            tracing::error!(limit = ?DELETE_LIMIT, "this server's lease could not be deleted; it will expire by itself");
        }
    }

    async fn renew(&self, own: &mut OwnLease) -> Infallible {
        let (mut pause, mut complaint) = (FIRST_PAUSE, Complaint::default());
        let (mut first, mut silent) = (true, false);
        let limit = self.settings.patience();
        loop {
            let renewed = timeout(limit, own.renew()).await;
            let (code, reason) = match &renewed {
                Ok(Ok(())) => (200, ""),
                Ok(Err(error)) => (error.code(), error.reason()),
                Err(_elapsed) => (0, ""),
            };
            self.metrics.leases.renewed(code, reason);
            let wait = match renewed {
                Ok(Ok(())) => {
                    // Not `||`: each of them is over.
                    if complaint.is_over() | std::mem::take(&mut first) | std::mem::take(&mut silent) {
                        tracing::info!(lease = self.settings.terms.name(), "this server's lease is written");
                    }
                    pause = FIRST_PAUSE;
                    lengthened(self.settings.renew_interval, JITTER)
                }
                Err(_elapsed) => {
                    if !std::mem::replace(&mut silent, true) {
                        tracing::error!(
                            ?limit,
                            "this server's lease cannot be written: no answer in time; agents may not count this server"
                        );
                    }
                    lengthened(FIRST_PAUSE, 0.2)
                }
                Ok(Err(error)) => {
                    complain(
                        &mut complaint,
                        &error,
                        "this server's lease cannot be written; agents may not count this server",
                    );
                    let wait = lengthened(pause, 0.2);
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    wait
                }
            };
            sleep(wait).await;
        }
    }

    async fn follow(&self) -> Infallible {
        let scope =
            LeaseScope { namespace: self.settings.terms.namespace.clone(), selector: selector(&self.settings.terms) };
        let interval = self.settings.collect_interval;
        let settings = FollowSettings { scope, relist: interval, relist_without_watch: interval };
        let mut follower = LeaseFollower::new(self.kubernetes.clone(), settings);
        let (mut lists, mut watches) = (Complaint::default(), Complaint::default());
        let mut known = false;
        loop {
            match follower.next().await {
                Event::Granted(Request::List, took) => {
                    self.metrics.leases.listed(200, "", took);
                    if lists.is_over() {
                        tracing::info!("leases are listed again");
                    }
                    known = true;
                    self.collect(follower.book()).await;
                }
                Event::Granted(Request::Watch, _) => {
                    watches.is_over();
                }
                Event::Changed => {}
                Event::Failed(Request::List, took, error) => {
                    self.metrics.leases.listed(error.code(), error.reason(), took);
                    complain(&mut lists, &error, "leases cannot be listed; agents are told what was known last");
                }
                Event::Failed(Request::Watch, _, error) if error.code() == 403 => {
                    if watches.is_due(&error) {
                        tracing::info!(%error, ?interval, "leases are listed instead of watched");
                    }
                }
                Event::Failed(Request::Watch, _, error) => complain(&mut watches, &error, "leases cannot be watched"),
            }
            if known {
                let list = members(follower.book(), &self.server_id, &self.advertised);
                self.membership.set(Some(list));
            }
        }
    }

    /// Deletes the leases of servers that died.
    async fn collect(&self, book: &LeaseBook) {
        let own = self.settings.terms.name();
        for lease in book.abandoned(Instant::now()).into_iter().filter(|lease| lease.name != own) {
            let begun = Instant::now();
            let deleted =
                self.kubernetes.delete_lease(&self.settings.terms.namespace, &lease.name, &lease.version).await;
            let (code, reason) = deleted.as_ref().err().map_or((200, ""), |error| (error.code(), error.reason()));
            self.metrics.leases.deleted(code, reason, begun.elapsed());
            match deleted {
                Ok(()) => {
                    self.metrics.leases.culled();
                    tracing::info!(
                        lease = lease.name,
                        server_id = lease.server_id,
                        "the lease of a dead server is deleted"
                    );
                }
                // Another server was first, or its owner has returned.
                Err(error) if error.is_not_found() || error.is_conflict() => {}
                Err(error) => {
                    tracing::warn!(lease = lease.name, %error, "the lease of a dead server cannot be deleted");
                    // The others would fail alike; there is a next time.
                    return;
                }
            }
        }
    }
}

async fn delete(own: &mut OwnLease) {
    let (mut pause, mut complaint) = (FIRST_PAUSE, Complaint::default());
    loop {
        match own.delete().await {
            Ok(Deleted::Gone) => return tracing::info!("this server's lease is deleted"),
            Ok(Deleted::TakenOver) => {
                return tracing::info!(
                    "this server's lease is left to another process with the same id, which has written it"
                );
            }
            Err(error) => complain(&mut complaint, &error, "this server's lease cannot be deleted"),
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Those that have the very labels of the own lease.
fn selector(terms: &LeaseTerms) -> String {
    let labels: Vec<_> = terms.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    labels.join(",")
}

/// The servers whose leases count, and this one in any case.
fn members(book: &LeaseBook, own: &ServerId, advertised: &[ServerAddress]) -> ServerList {
    let mut known = HashSet::from([own.clone()]);
    let mut servers = vec![ListedServer { id: own.clone(), addresses: advertised.into() }];
    for lease in book.valid(Instant::now()) {
        // Whoever has another idea of what an id is was not counted by agents either.
        let Ok(id) = ServerId::new(lease.server_id.as_str()) else { continue };
        if known.insert(id.clone()) {
            let addresses = lease.addresses.iter().filter_map(|address| address.parse().ok());
            servers.push(ListedServer { id, addresses: addresses.take(MAX_SERVER_ADDRESSES).collect() });
        }
    }
    ServerList { count: u32::try_from(servers.len()).unwrap_or(u32::MAX), servers }
}

fn complain(complaint: &mut Complaint, error: &ApiError, what: &'static str) {
    match complaint.is_due(error) {
        true => tracing::error!(%error, "{what}"),
        false => tracing::debug!(%error, "{what}"),
    }
}

fn lengthened(time: Duration, part: f64) -> Duration {
    time.mul_f64(1.0 + part * rand::random::<f64>())
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use konnectivity_kubernetes::lease::{NAME_PREFIX, ServerLease};

    use super::*;

    fn lease(id: &str, addresses: &[&str]) -> ServerLease {
        ServerLease {
            name: format!("{NAME_PREFIX}{id}"),
            version: "1".into(),
            server_id: id.into(),
            renewed: Some(SystemTime::now()),
            duration: Some(Duration::from_secs(30)),
            addresses: addresses.iter().map(|&text| text.to_owned()).collect(),
        }
    }

    #[test]
    fn members_are_valid_leases_and_this_server() {
        let mut book = LeaseBook::default();
        let over = ServerLease { renewed: Some(SystemTime::UNIX_EPOCH), ..lease("over", &["192.0.2.9:1"]) };
        let leases =
            [lease("b", &["192.0.2.2:8091", "nonsense"]), lease("own", &["192.0.2.7:1"]), lease("c", &[]), over];
        book.list(leases, Instant::now(), SystemTime::now());
        let advertised = ["192.0.2.1:8091".parse().unwrap()];
        let list = members(&book, &ServerId::new("own").unwrap(), &advertised);
        let shown: Vec<_> = list
            .servers
            .iter()
            .map(|server| {
                format!("{} {:?}", server.id, server.addresses.iter().map(ToString::to_string).collect::<Vec<_>>())
            })
            .collect();
        assert_eq!(list.count, 3);
        assert_eq!(shown, [r#"own ["192.0.2.1:8091"]"#, r#"b ["192.0.2.2:8091"]"#, "c []"]);
        // It knows that it is there, whatever the API says.
        assert_eq!(members(&LeaseBook::default(), &ServerId::new("own").unwrap(), &[]).count, 1);
    }

    #[test]
    fn renewals_are_late_by_lot_and_not_by_much() {
        for _ in 0..100 {
            let wait = lengthened(Duration::from_secs(15), JITTER);
            assert!((15.0..15.6).contains(&wait.as_secs_f64()), "{wait:?}");
        }
    }
}
