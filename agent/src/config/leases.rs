//! What the options say of servers' leases: whether they are counted, which, and whose count is believed.

use std::path::PathBuf;

use konnectivity_kubernetes::lease::LeaseScope;
use konnectivity_process::{check, problems::Problems};

use crate::{options::Options, server_set::CountSource};

/// The leases by which servers are counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CountedLeases {
    /// Which.
    pub scope: LeaseScope,
    /// Readable file that says how to reach the API; `None`: what a pod finds.
    pub kubeconfig: Option<PathBuf>,
}

/// Checks them all. `None`: leases are not counted, or something is wrong.
pub(super) fn check(options: &Options, problems: &mut Problems) -> Option<CountedLeases> {
    let kubeconfig = check::file(problems, "kubeconfig", &options.kubeconfig);
    if !options.count_server_leases {
        return None;
    }
    if options.lease_namespace.is_empty() {
        problems.add("lease-namespace", "is empty", "set it to the namespace of the leases, such as kube-system");
    }
    let scope =
        LeaseScope { namespace: options.lease_namespace.clone(), selector: options.lease_label_selector.to_string() };
    Some(CountedLeases { scope, kubeconfig })
}

/// Whose count is believed.
pub(super) fn source(options: &Options, problems: &mut Problems) -> Option<CountSource> {
    match options.server_count_source.as_str() {
        "" | "default" => Some(CountSource::Leases),
        "max" => Some(CountSource::Max),
        other => {
            let reason = format!("--server-count-source must be one of '', 'default', 'max', got {other}");
            problems.rule("server-count-source", reason, "set it to default");
            None
        }
    }
}
