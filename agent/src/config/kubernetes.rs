//! What the options say of Kubernetes: the agent's token and leases of servers. Leases are for a later version, so that
//! what switches them on is refused.

use konnectivity_process::{check, problems::Problems};

use crate::{options::Options, token::TokenFile};

/// Checks everything that has to do with Kubernetes. The token's file, if there is to be a token.
pub(super) fn check(options: &Options, problems: &mut Problems) -> Option<TokenFile> {
    let setting = "service-account-token-path";
    let token = check::file(problems, setting, &options.service_account_token_path).map(TokenFile::new);
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
    token
}
