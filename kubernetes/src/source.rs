//! Where the API is and who asks: a kubeconfig file, or what a pod finds.

use std::{
    env, io,
    path::{Path, PathBuf},
    time::Duration,
};

use http::{HeaderValue, header::USER_AGENT};
use kube::config::{Config, ExecInteractiveMode, InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};

/// How long TCP and TLS may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Where a pod finds its token and its authorities.
const POD_FILES: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Why nobody knows where the API is or how to be let in.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The kubeconfig file cannot be read.
    #[error(
        "cannot read the kubeconfig file {} of --kubeconfig: {source}; make it readable by the user that this program runs as", .path.display()
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It does not say what it should.
    #[error("the kubeconfig file {} of --kubeconfig cannot be used: {reason}", .path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no kubeconfig, and this is not a pod.
    #[error(
        "--kubeconfig is not set and this is not a pod ({name} is not in the environment), so that the Kubernetes API is not known; set --kubeconfig"
    )]
    NotInPod {
        /// The variable that pods have.
        name: &'static str,
    },
    /// This is a pod without what it needs.
    #[error(
        "this pod cannot use the Kubernetes API: {reason}; mount its service account at {POD_FILES} (automountServiceAccountToken), or set --kubeconfig"
    )]
    Pod {
        /// What is missing.
        reason: String,
    },
}

/// Reads what the library needs; `path` is the kubeconfig file, if there is one.
pub(crate) async fn read(path: Option<&Path>, user_agent: &str) -> Result<Config, SourceError> {
    let mut config = match path {
        Some(path) => kubeconfig(path).await?,
        None => pod()?,
    };
    // `call` has a limit for the whole, and its callers try again.
    config.connect_timeout = Some(CONNECT_LIMIT);
    config.default_retry = false;
    if let Ok(value) = HeaderValue::from_str(user_agent) {
        config.headers.push((USER_AGENT, value));
    }
    if let Some(plugin) = &mut config.auth_info.exec {
        // Nobody is there to be asked.
        plugin.interactive_mode = Some(ExecInteractiveMode::Never);
    }
    Ok(config)
}

async fn kubeconfig(path: &Path) -> Result<Config, SourceError> {
    let unusable = |error: KubeconfigError| match error {
        KubeconfigError::ReadConfig(source, _) => SourceError::Read { path: path.to_owned(), source },
        error => SourceError::Kubeconfig { path: path.to_owned(), reason: error.to_string() },
    };
    let file = Kubeconfig::read_from(path).map_err(unusable)?;
    Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(unusable)
}

fn pod() -> Result<Config, SourceError> {
    const HOST: &str = "KUBERNETES_SERVICE_HOST";
    if env::var_os(HOST).is_none() {
        return Err(SourceError::NotInPod { name: HOST });
    }
    Config::incluster().map_err(|error| SourceError::Pod { reason: pod_reason(&error) })
}

/// The library's texts leave out which file it is about.
fn pod_reason(error: &InClusterError) -> String {
    match error {
        InClusterError::ReadDefaultNamespace(error) => format!("cannot read {POD_FILES}/namespace: {error}"),
        InClusterError::ReadCertificateBundle(error) => format!("cannot read {POD_FILES}/ca.crt: {error}"),
        InClusterError::ParseCertificates(error) => format!("{POD_FILES}/ca.crt holds no certificates: {error}"),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn refused(text: Option<&str>) -> String {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("kubeconfig");
        if let Some(text) = text {
            std::fs::write(&path, text).expect("a file");
        }
        let error = read(Some(&path), "test").await.expect_err("a refusal").to_string();
        assert!(error.contains(path.to_str().expect("a path")), "{error}");
        assert!(error.contains("--kubeconfig"), "{error}");
        error
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_used_is_named_with_the_reason() {
        assert!(refused(None).await.contains("No such file"));
        assert!(refused(Some("{")).await.contains("YAML"));
        assert!(refused(Some("kind: Config\n")).await.contains("context"));
        let context = "contexts: [{name: a, context: {cluster: b, user: c}}]\ncurrent-context: a\n";
        let missing = refused(Some(context)).await;
        assert!(missing.contains("cluster") && missing.contains('b'), "{missing}");
        let authority = format!(
            "{context}clusters: [{{name: b, cluster: {{server: 'https://x', certificate-authority: /nowhere/ca}}}}]\n"
        );
        assert!(refused(Some(&authority)).await.contains("/nowhere/ca"));
    }

    #[tokio::test]
    async fn what_is_read_has_limits_and_asks_nobody() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("kubeconfig");
        let text = "contexts: [{name: a, context: {cluster: b, user: c}}]\ncurrent-context: a\n\
                    clusters: [{name: b, cluster: {server: 'https://127.0.0.1:6443'}}]\n\
                    users: [{name: c, user: {exec: {command: 'true', apiVersion: client.authentication.k8s.io/v1}}}]\n";
        std::fs::write(&path, text).expect("a file");
        let config = read(Some(&path), "proxy-server/1").await.expect("a configuration");
        assert_eq!(config.connect_timeout, Some(CONNECT_LIMIT));
        assert!(!config.default_retry);
        assert_eq!(config.headers, [(USER_AGENT, HeaderValue::from_static("proxy-server/1"))]);
        let plugin = config.auth_info.exec.expect("a plug-in");
        assert_eq!(plugin.interactive_mode, Some(ExecInteractiveMode::Never));
    }
}
