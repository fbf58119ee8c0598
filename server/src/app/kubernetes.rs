//! The client of the Kubernetes API, and what asks it.

use std::sync::Arc;

use anyhow::Result;
use konnectivity_kubernetes::{Kubernetes, Rate, Settings};
use konnectivity_process::version;

use crate::{
    auth::{Authentication, Nodes, Reviewer},
    config::{self, AgentRules},
    metrics::Metrics,
};

/// A client; nothing is connected yet. Its connections live on the thread that calls this: workers have their hands
/// full.
///
/// # Errors
/// When its files cannot be used.
pub(super) async fn client(config: &config::Kubernetes) -> Result<Kubernetes> {
    let settings = Settings {
        kubeconfig: config.kubeconfig.clone(),
        rate: Rate { per_second: config.qps.0, burst: config.burst },
        user_agent: format!("konnectivity-quic-proxy-server/{}", version::VERSION),
    };
    Ok(Kubernetes::new(settings).await?)
}

/// Who may be an agent.
///
/// # Errors
/// As [`client`].
pub(super) async fn authentication(rules: &AgentRules, metrics: Arc<Metrics>) -> Result<Arc<Authentication>> {
    let kubernetes = match &rules.kubernetes {
        Some(config) => Some(client(config).await?),
        None => None,
    };
    let reviewer = kubernetes.clone().zip(rules.tokens.clone());
    let reviewer = reviewer.map(|(kubernetes, expected)| Reviewer::new(kubernetes, expected, metrics.clone()));
    Ok(Arc::new(Authentication {
        reviewer,
        policy: rules.identifiers,
        nodes: kubernetes.map(Nodes::new),
        drain_expired: rules.drain_expired,
        review_interval: rules.review_interval,
        metrics,
    }))
}
