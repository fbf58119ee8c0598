//! Requests about leases.

use std::time::{Duration, SystemTime};

use futures_util::{Stream, StreamExt};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api,
    api::{DeleteParams, ListParams, PostParams, Preconditions, WatchEvent, WatchParams},
};

use super::record::{LeaseTerms, ServerLease};
use crate::{client::Kubernetes, error::ApiError, right::Right};

/// Which leases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseScope {
    /// Their namespace.
    pub namespace: String,
    /// What their labels must be like, as a Kubernetes selector.
    pub selector: String,
}

/// What has happened to a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseChange {
    /// It was created or written.
    Written(ServerLease),
    /// It was deleted.
    Deleted(String),
    /// Nothing; the API is there.
    Alive,
}

fn right(verb: &'static str, namespace: &str) -> Right {
    Right::namespaced(verb, "leases", "coordination.k8s.io", namespace)
}

impl Kubernetes {
    /// All leases, and the version of the whole, from which changes can be watched. The API may answer from its memory.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn list_leases(&self, scope: &LeaseScope) -> Result<(Vec<ServerLease>, String), ApiError> {
        let params = ListParams::default().labels(&scope.selector).match_any();
        let list = self
            .call(right("list", &scope.namespace), async |client| {
                Api::<Lease>::namespaced(client, &scope.namespace).list(&params).await
            })
            .await?;
        let version = list.metadata.resource_version.unwrap_or_default();
        Ok((list.items.into_iter().map(ServerLease::from).collect(), version))
    }

    /// Changes of leases since a version, until about `limit` has passed.
    ///
    /// # Errors
    /// [`ApiError`], here and in the stream, which is of no more use then.
    pub async fn watch_leases(
        &self,
        scope: &LeaseScope,
        version: &str,
        limit: Duration,
    ) -> Result<impl Stream<Item = Result<LeaseChange, ApiError>> + Send + use<>, ApiError> {
        let seconds = u32::try_from(limit.as_secs()).unwrap_or(u32::MAX).max(1);
        let params = WatchParams::default().labels(&scope.selector).timeout(seconds);
        let right = right("watch", &scope.namespace);
        let events = self
            .call(right.clone(), async |client| {
                Api::<Lease>::namespaced(client, &scope.namespace).watch(&params, version).await
            })
            .await?;
        let kubernetes = self.clone();
        Ok(events.map(move |event| match event {
            Ok(WatchEvent::Added(lease) | WatchEvent::Modified(lease)) => Ok(LeaseChange::Written(lease.into())),
            Ok(WatchEvent::Deleted(lease)) => Ok(LeaseChange::Deleted(lease.metadata.name.unwrap_or_default())),
            Ok(WatchEvent::Bookmark(_)) => Ok(LeaseChange::Alive),
            Ok(WatchEvent::Error(status)) => Err(kubernetes.error(kube::Error::Api(status), right.clone())),
            Err(error) => Err(kubernetes.error(error, right.clone())),
        }))
    }

    /// Creates a lease, renewed `now`.
    ///
    /// # Errors
    /// [`ApiError`], a conflict when there is one already.
    pub async fn create_lease(&self, terms: &LeaseTerms, now: SystemTime) -> Result<Lease, ApiError> {
        let lease = terms.object(None, now);
        self.call(right("create", &terms.namespace), async |client| {
            Api::<Lease>::namespaced(client, &terms.namespace).create(&PostParams::default(), &lease).await
        })
        .await
    }

    /// The lease as it is.
    ///
    /// # Errors
    /// [`ApiError`], not found when there is none.
    pub async fn read_lease(&self, terms: &LeaseTerms) -> Result<Lease, ApiError> {
        let name = terms.name();
        self.call(right("get", &terms.namespace), async |client| {
            Api::<Lease>::namespaced(client, &terms.namespace).get(&name).await
        })
        .await
    }

    /// Renews a lease that is as `current` says.
    ///
    /// # Errors
    /// [`ApiError`], a conflict when it is not so any more, not found when there is none.
    pub async fn renew_lease(&self, terms: &LeaseTerms, current: &Lease, now: SystemTime) -> Result<Lease, ApiError> {
        let (name, lease) = (terms.name(), terms.object(Some(current), now));
        self.call(right("update", &terms.namespace), async |client| {
            Api::<Lease>::namespaced(client, &terms.namespace).replace(&name, &PostParams::default(), &lease).await
        })
        .await
    }

    /// Deletes a lease if it still has this version.
    ///
    /// # Errors
    /// [`ApiError`], a conflict when it has another version, not found when there is none.
    pub async fn delete_lease(&self, namespace: &str, name: &str, version: &str) -> Result<(), ApiError> {
        let preconditions = Preconditions { resource_version: Some(version.to_owned()), uid: None };
        let params = DeleteParams::default().preconditions(preconditions);
        self.call(right("delete", namespace), async |client| {
            Api::<Lease>::namespaced(client, namespace).delete(name, &params).await
        })
        .await
        .map(|_| ())
    }
}
