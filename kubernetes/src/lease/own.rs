//! A server's own lease: created, renewed, deleted.

use std::time::SystemTime;

use k8s_openapi::api::coordination::v1::Lease;

use super::record::{LeaseTerms, ServerLease};
use crate::{client::Kubernetes, error::ApiError};

/// Requests that one renewal, or one deletion, may take when others write the same object.
const MOST_TRIES: usize = 5;

/// A lease that this process keeps.
pub struct OwnLease {
    kubernetes: Kubernetes,
    terms: LeaseTerms,
    /// As it was written last.
    current: Option<Lease>,
    /// The renewal that was tried last, and the one before: what was abandoned may have been carried out.
    tried: [Option<SystemTime>; 2],
}

/// What has become of a lease that was to be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleted {
    /// It is gone, or was never there.
    Gone,
    /// Another process has written it since, one with the same server id, and it was left to that one.
    TakenOver,
}

impl OwnLease {
    /// Nothing is written yet.
    pub fn new(kubernetes: Kubernetes, terms: LeaseTerms) -> Self {
        Self { kubernetes, terms, current: None, tried: [None; 2] }
    }

    /// Writes the lease so that it counts from now on: creates it, or takes one over that has its name.
    ///
    /// # Errors
    /// [`ApiError`]; try again.
    ///
    /// # Cancel safety
    /// The API may have carried out what was abandoned; [`Self::delete`] knows.
    pub async fn renew(&mut self) -> Result<(), ApiError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let now = SystemTime::now();
            self.tried = [Some(now), self.tried[0]];
            let written = match &self.current {
                Some(current) => self.kubernetes.renew_lease(&self.terms, current, now).await,
                None => self.kubernetes.create_lease(&self.terms, now).await,
            };
            match written {
                Ok(lease) => {
                    self.current = Some(lease);
                    return Ok(());
                }
                Err(error) if tries == MOST_TRIES => return Err(error),
                // Somebody has deleted it.
                Err(error) if error.is_not_found() && self.current.is_some() => self.current = None,
                Err(error) if error.is_conflict() => self.current = self.read().await?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Deletes the lease, unless another process has written it since.
    ///
    /// # Errors
    /// [`ApiError`]; try again.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn delete(&mut self) -> Result<Deleted, ApiError> {
        if self.tried[0].is_none() {
            return Ok(Deleted::Gone);
        }
        if self.current.is_none() {
            self.current = self.read().await?;
        }
        let mut tries = 0;
        loop {
            tries += 1;
            let Some(current) = self.current.clone() else { return Ok(Deleted::Gone) };
            let lease = ServerLease::from(current);
            if !self.is_own(&lease) {
                return Ok(Deleted::TakenOver);
            }
            match self.kubernetes.delete_lease(&self.terms.namespace, &lease.name, &lease.version).await {
                Ok(()) => return Ok(Deleted::Gone),
                Err(error) if error.is_not_found() => return Ok(Deleted::Gone),
                Err(error) if error.is_conflict() && tries < MOST_TRIES => self.current = self.read().await?,
                Err(error) => return Err(error),
            }
        }
    }

    async fn read(&self) -> Result<Option<Lease>, ApiError> {
        match self.kubernetes.read_lease(&self.terms).await {
            Ok(lease) => Ok(Some(lease)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether this process has written it last.
    fn is_own(&self, lease: &ServerLease) -> bool {
        let Some(renewed) = lease.renewed else { return false };
        let same = |tried: &SystemTime| {
            let apart = tried.duration_since(renewed).unwrap_or_else(|error| error.duration());
            // What is written has microseconds.
            apart.as_micros() <= 1
        };
        lease.server_id == self.terms.server_id && self.tried.iter().flatten().any(|tried| same(tried))
    }
}
