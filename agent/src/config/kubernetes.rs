//! What the options say of the Kubernetes API: the agent's token and leases of servers. Both are for a later version, so
//! that whatever switches one of them on is refused.

use konnectivity_process::{check, problems::Problems};

use crate::options::Options;

/// Checks everything that has to do with the Kubernetes API.
pub(super) fn check(options: &Options, problems: &mut Problems) {
    let token = &options.service_account_token_path;
    if !token.is_empty() {
        check::file(problems, "service-account-token-path", token);
        check::not_yet_supported(
            problems,
            "service-account-token-path",
            "--service-account-token-path is",
            "leave it out, and set --agent-cert and --agent-key to a certificate that the servers trust",
        );
    }
    if options.count_server_leases {
        let remedy = "leave --count-server-leases out: the servers say how many they are (--server-count)";
        check::not_yet_supported(problems, "count-server-leases", "--count-server-leases is", remedy);
    }
    let source = options.server_count_source.as_str();
    if !["", "default", "max"].contains(&source) {
        let reason = format!("--server-count-source must be one of '', 'default', 'max', got {source}");
        problems.rule("server-count-source", reason, "set it to default");
    }
    check::file(problems, "kubeconfig", &options.kubeconfig);
}
