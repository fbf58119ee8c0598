//! What cares for leases, if the settings ask for it.

use std::sync::Arc;

use anyhow::{Context, Result};

use super::kubernetes;
use crate::{config::Config, lease::Leases, membership::Membership, metrics::Metrics};

/// Nothing is connected yet: the API may be away. The client is one of its own: with that of the token reviews, a lease
/// would have to wait for its turn when many agents connect at once, and could expire meanwhile.
///
/// # Errors
/// When the files that say where the API is cannot be used.
pub(super) async fn build(config: &Config, membership: Membership, metrics: Arc<Metrics>) -> Result<Option<Leases>> {
    let (Some(settings), Some(api)) = (&config.leases, &config.agent_rules.kubernetes) else { return Ok(None) };
    Ok(Some(Leases {
        kubernetes: kubernetes::client(api).await.context("--enable-lease-controller")?,
        settings: settings.clone(),
        server_id: config.server_id.clone(),
        advertised: config.peers.advertised.clone(),
        membership,
        metrics,
    }))
}
