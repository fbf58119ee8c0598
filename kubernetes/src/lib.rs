//! The Kubernetes API as `proxy-server` and `proxy-agent` use it. The only crate that names the Kubernetes libraries.
//!
//! ```text
//! settings --> source (kubeconfig, or what a pod finds) --> client --> bounded --> API server
//!                                                            |  ^
//!                      token reviews, nodes, leases --> call +  +-- pace (requests a second)
//! ```
//!
//! A crate of its own, not a room of `process`: it brings a hundred others along, which tools and tests of `process`
//! can do without. It knows nothing of agents and servers.
#![warn(missing_docs)]

mod bounded;
mod client;
mod complaint;
mod error;
pub mod lease;
mod node;
mod pace;
mod right;
mod source;
mod token_review;

pub use self::{
    client::{Kubernetes, Settings},
    complaint::Complaint,
    error::ApiError,
    node::NodeAddresses,
    pace::Rate,
    right::Right,
    source::SourceError,
    token_review::Reviewed,
};
/// The library, for calls that are not made here.
pub use {k8s_openapi, kube};
