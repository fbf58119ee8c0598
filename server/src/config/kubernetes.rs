//! What the options say of the Kubernetes API: how to reach it, tokens of agents and what they may say of themselves.

use std::{path::PathBuf, time::Duration};

use konnectivity_process::{check, float::Float32, problems::Problems};

use crate::{
    auth::{DrainExpired, Exceptions, Expected, IdentifierPolicy},
    options::Options,
};

/// More often than this, the API would have nothing else to do.
const LEAST_REVIEW_INTERVAL: Duration = Duration::from_secs(1);

/// How to reach the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kubernetes {
    /// Readable file that says it; `None`: what a pod finds.
    pub kubeconfig: Option<PathBuf>,
    /// Requests a second; 0 for the default, less for no limit.
    pub qps: Float32,
    /// Requests at once; 0 for the default.
    pub burst: u32,
}

/// Who may be an agent, beyond what TLS says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentRules {
    /// Whose tokens agents must show; `None`: none.
    pub tokens: Option<Expected>,
    /// Which expired tokens are minded.
    pub drain_expired: DrainExpired,
    /// How often tokens of connected agents are reviewed again; `None`: at their end at most.
    pub review_interval: Option<Duration>,
    /// What agents may say that they reach.
    pub identifiers: IdentifierPolicy,
    /// The API, if any of that needs it.
    pub kubernetes: Option<Kubernetes>,
}

/// Whether the options say that agents show tokens.
pub(super) fn wants_tokens(options: &Options) -> bool {
    of_tokens(options).iter().any(|(_, value)| !value.is_empty())
}

fn of_tokens(options: &Options) -> [(&'static str, &String); 3] {
    [
        ("agent-namespace", &options.agent_namespace),
        ("agent-service-account", &options.agent_service_account),
        ("authentication-audience", &options.authentication_audience),
    ]
}

/// Checks everything that has to do with the Kubernetes API, but for leases.
pub(super) fn check(options: &Options, problems: &mut Problems) -> Option<AgentRules> {
    let tokens = wants_tokens(options).then(|| tokens(options, problems));
    let drain_expired = drain_expired(&options.drain_expired_tokens, problems);
    let review_interval = review_interval(options, problems);
    let identifiers = identifiers(options, problems);
    let path = options.kubeconfig.as_str();
    let kubeconfig = check::file_called(problems, "kubeconfig", path, &format!("checking KubeconfigPath {path:?}"));
    let burst = check::number(problems, "kubeconfig-burst", options.kubeconfig_burst, 0..=i64::from(u32::MAX));
    let for_agents = tokens.is_some() || matches!(identifiers, Some(IdentifierPolicy::OwnNode(_)));
    let kubernetes = Kubernetes { kubeconfig, qps: options.kubeconfig_qps, burst: burst? };
    Some(AgentRules {
        tokens,
        drain_expired: drain_expired?,
        review_interval: review_interval?,
        identifiers: identifiers?,
        kubernetes: (for_agents || options.enable_lease_controller).then_some(kubernetes),
    })
}

fn tokens(options: &Options, problems: &mut Problems) -> Expected {
    for (setting, value) in of_tokens(options) {
        if value.is_empty() {
            let reason = format!("--{setting} cannot be empty when agent authentication is enabled");
            problems.rule(setting, reason, format_args!("set --{setting} as well, or none of the flags for tokens"));
        }
    }
    if options.allow_unauthenticated_agents {
        let reason = "contradicts agent-namespace, by which only agents with a token may connect";
        problems.add("allow-unauthenticated-agents", reason, "leave one of them out");
    }
    Expected {
        namespace: options.agent_namespace.clone(),
        service_account: options.agent_service_account.clone(),
        audience: options.authentication_audience.clone(),
    }
}

fn drain_expired(name: &str, problems: &mut Problems) -> Option<DrainExpired> {
    match name {
        "quic" => Some(DrainExpired::Quic),
        "all" => Some(DrainExpired::All),
        "none" => Some(DrainExpired::None),
        other => {
            let reason = format!("{other:?} is not one of quic, all and none");
            problems.add("drain-expired-tokens", reason, "set --drain-expired-tokens=quic");
            None
        }
    }
}

/// `Some(None)`: never.
fn review_interval(options: &Options, problems: &mut Problems) -> Option<Option<Duration>> {
    let interval = check::duration(problems, "token-review-interval", options.token_review_interval)?;
    if !interval.is_zero() && interval < LEAST_REVIEW_INTERVAL {
        let reason = format!("{} is less than 1s", options.token_review_interval);
        problems.add("token-review-interval", reason, "set it to 1m, for instance, or to 0 for no such reviews");
        return None;
    }
    Some(Some(interval).filter(|interval| !interval.is_zero()))
}

fn identifiers(options: &Options, problems: &mut Problems) -> Option<IdentifierPolicy> {
    let mut exceptions = Exceptions::default();
    for name in options.agent_identifier_exceptions.0.iter().filter(|name| !name.is_empty()) {
        match name.as_str() {
            "default-route" => exceptions.default_route = true,
            "cidr" => exceptions.cidr = true,
            other => {
                let reason = format!("{other:?} is not one of default-route and cidr");
                problems.add("agent-identifier-exceptions", reason, "name default-route, cidr or both");
            }
        }
    }
    match options.agent_identifier_policy.as_str() {
        "any" if exceptions == Exceptions::default() => Some(IdentifierPolicy::Any),
        "any" => {
            let reason = "there is no rule that they are exceptions from";
            problems.add("agent-identifier-exceptions", reason, "set --agent-identifier-policy=own-node as well");
            None
        }
        "own-node" if options.allow_unauthenticated_agents => {
            let reason = "contradicts allow-unauthenticated-agents: nothing says which node an agent is on";
            problems.add("agent-identifier-policy", reason, "leave one of them out");
            None
        }
        "own-node" => Some(IdentifierPolicy::OwnNode(exceptions)),
        other => {
            let reason = format!("{other:?} is not one of any and own-node");
            problems.add("agent-identifier-policy", reason, "set --agent-identifier-policy=own-node");
            None
        }
    }
}
