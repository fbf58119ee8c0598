//! Which addresses nodes have, as the API knows.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use konnectivity_kubernetes::{Complaint, Kubernetes, NodeAddresses};

use super::{
    cache::Key,
    questions::{Patience, Questions},
    refusal::Refusal,
};

/// How long a node's addresses are taken for its addresses without another look: longer than an agent waits before it
/// comes back, so that a slow API keeps nobody out.
const KEPT_FOR: Duration = Duration::from_secs(30);

/// A node; `None`: there is none of this name.
pub(super) type Found = Option<Arc<NodeAddresses>>;

/// Looks up nodes.
pub struct Nodes {
    kubernetes: Kubernetes,
    questions: Arc<Questions<Found>>,
    complaint: Arc<Mutex<Complaint>>,
}

impl Nodes {
    /// Questions run in the runtime that this is called in.
    pub fn new(kubernetes: Kubernetes) -> Self {
        Self { kubernetes, questions: Questions::new(Refusal::CannotLookUp), complaint: Arc::default() }
    }

    /// The node of this name.
    ///
    /// # Errors
    /// [`Refusal::CannotLookUp`].
    pub(super) async fn find(&self, name: &str, patience: Patience) -> Result<Found, Refusal> {
        let question = || {
            let (kubernetes, complaint, name) = (self.kubernetes.clone(), self.complaint.clone(), name.to_owned());
            async move {
                let node = kubernetes.node(&name).await;
                let mut complaint = complaint.lock().unwrap_or_else(PoisonError::into_inner);
                match node {
                    // A node that is not there may be on its way.
                    Ok(None) => (Ok(None), Duration::ZERO),
                    Ok(Some(node)) => {
                        complaint.is_over();
                        (Ok(Some(Arc::new(node))), KEPT_FOR)
                    }
                    Err(error) => {
                        if complaint.is_due(&error) {
                            tracing::warn!(%error, "cannot look at agents' nodes");
                        }
                        (Err(Refusal::CannotLookUp(error.to_string())), Duration::ZERO)
                    }
                }
            }
        };
        self.questions.ask(Key::of(name), patience, question).await
    }
}
