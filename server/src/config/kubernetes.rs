//! What the options say of the Kubernetes API: tokens of agents and leases of servers. Both are for a later version, so
//! that whatever switches one of them on is refused.

use konnectivity_process::{check, labels::Labels, problems::Problems};

use crate::options::Options;

/// Whether the options say that agents show tokens.
pub(super) fn wants_tokens(options: &Options) -> bool {
    let of_tokens = [&options.agent_namespace, &options.agent_service_account, &options.authentication_audience];
    of_tokens.iter().any(|value| !value.is_empty())
}

/// Checks everything that has to do with the Kubernetes API.
pub(super) fn check(options: &Options, problems: &mut Problems) {
    if wants_tokens(options) {
        tokens(options, problems);
    }
    if options.enable_lease_controller {
        let remedy = "leave --enable-lease-controller out, and set --server-count to the number of servers";
        check::not_yet_supported(problems, "enable-lease-controller", "--enable-lease-controller is", remedy);
    }
    // The reference needs it although nothing uses it without leases.
    if let Err(error) = options.lease_label.parse::<Labels>() {
        problems.rule("lease-label", error, "set it as in k8s-app=konnectivity-server");
    }
    let path = options.kubeconfig.as_str();
    check::file_called(problems, "kubeconfig", path, &format!("checking KubeconfigPath {path:?}"));
}

fn tokens(options: &Options, problems: &mut Problems) {
    let of_tokens = [
        ("agent-namespace", &options.agent_namespace),
        ("agent-service-account", &options.agent_service_account),
        ("authentication-audience", &options.authentication_audience),
    ];
    let set = of_tokens.iter().find(|(_, value)| !value.is_empty()).map_or("agent-namespace", |(setting, _)| *setting);
    check::not_yet_supported(
        problems,
        set,
        "--agent-namespace, --agent-service-account and --authentication-audience (tokens of agents) are",
        "leave them out, and set --cluster-ca-cert to the certificate authorities of the agents",
    );
    if !options.cluster_ca_cert.is_empty() {
        let reason = "--cluster-ca-cert can not be used when agent authentication is enabled";
        problems.rule("cluster-ca-cert", reason, "leave it or the flags for tokens out");
    }
    for (setting, value) in of_tokens {
        if value.is_empty() {
            let reason = format!("--{setting} cannot be empty when agent authentication is enabled");
            problems.rule(setting, reason, format_args!("set --{setting} as well, or none of the flags for tokens"));
        }
    }
}
