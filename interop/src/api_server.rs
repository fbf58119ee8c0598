//! As much of a Kubernetes API server as the programs ask for: reviews of tokens, and nodes. It can be away, slow, and say
//! anything, and it remembers what it was asked. For tests only: it panics when it cannot work.

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
    time::sleep,
};
use tokio_rustls::TlsAcceptor;

use crate::certificates::Folder;

/// The token by which the programs are known here, if they use [`ApiServer::kubeconfig`].
pub const CREDENTIAL: &str = "credential-of-a-program";

/// How an API server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mood {
    /// As it should.
    Good,
    /// The same after a while.
    Slow(Duration),
    /// It closes every connection at once.
    Away,
    /// With this status and this body, whatever it is asked.
    Says(u16, String),
}

/// What it was asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// The method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Who has asked, as they call themselves.
    pub user_agent: String,
    /// The body, if it was JSON.
    pub body: Value,
}

/// Whose a token is.
#[derive(Debug, Clone)]
pub struct User {
    /// Its name, as in `system:serviceaccount:NAMESPACE:NAME`.
    pub username: String,
    /// What the token is for.
    pub audience: String,
    /// The node that it is bound to.
    pub node: Option<String>,
}

/// A running API server; it is gone when this is dropped.
#[derive(Debug)]
pub struct ApiServer {
    address: SocketAddr,
    kubeconfig: PathBuf,
    state: Arc<State>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    mood: Mutex<Mood>,
    users: Mutex<HashMap<String, User>>,
    nodes: Mutex<BTreeMap<String, Vec<String>>>,
    asked: Mutex<Vec<Asked>>,
}

impl ApiServer {
    /// Starts one with a certificate of `certificates`, and writes a file for its users into `folder`.
    ///
    /// # Panics
    /// When a certificate cannot be read, a file written, or no port is free.
    pub async fn start(certificates: &Folder, folder: &Path) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let kubeconfig = folder.join("kubeconfig");
        fs::write(&kubeconfig, kubeconfig_of(address, &certificates.file("ca.crt"))).expect("a file");
        let state = Arc::new(State {
            mood: Mutex::new(Mood::Good),
            users: Mutex::default(),
            nodes: Mutex::default(),
            asked: Mutex::default(),
        });
        let serving = serve(listener, acceptor(certificates), state.clone());
        #[allow(clippy::disallowed_methods, reason = "the struct owns the task and ends it when it is dropped")]
        let task = tokio::spawn(serving);
        Self { address, kubeconfig, state, task }
    }

    /// A file that says where it is and who asks.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers differently from now on.
    pub fn mood(&self, mood: Mood) {
        *lock(&self.state.mood) = mood;
    }

    /// Knows a token from now on.
    pub fn knows(&self, token: &str, user: User) {
        lock(&self.state.users).insert(token.to_owned(), user);
    }

    /// Knows it no longer: it has expired, or was withdrawn.
    pub fn forgets(&self, token: &str) {
        lock(&self.state.users).remove(token);
    }

    /// Has a node with these addresses.
    pub fn has_node(&self, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|&address| address.to_owned()).collect();
        lock(&self.state.nodes).insert(name.to_owned(), addresses);
    }

    /// What it was asked until now, whatever it said.
    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.state.asked).clone()
    }

    /// How often a token was reviewed.
    pub fn reviews_of(&self, token: &str) -> usize {
        self.asked().iter().filter(|asked| asked.body["spec"]["token"] == token).count()
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the API says of a failure.
pub fn failure(code: u16, reason: &str, message: &str) -> String {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": reason, "code": code})
        .to_string()
}

fn kubeconfig_of(address: SocketAddr, authority: &Path) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
         contexts: [{{name: test, context: {{cluster: test, user: program}}}}]\n\
         clusters: [{{name: test, cluster: {{server: \"https://{address}\", certificate-authority: \"{}\"}}}}]\n\
         users: [{{name: program, user: {{token: {CREDENTIAL}}}}}]\n",
        authority.display()
    )
}

fn acceptor(certificates: &Folder) -> TlsAcceptor {
    let chain = CertificateDer::from_pem_file(certificates.file("server.crt")).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(certificates.file("server.key")).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.expect("versions of TLS").with_no_client_auth().with_single_cert(vec![chain], key);
    TlsAcceptor::from(Arc::new(config.expect("a certificate with its key")))
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.expect("accept");
        while connections.try_join_next().is_some() {}
        if *lock(&state.mood) == Mood::Away {
            continue;
        }
        connections.spawn(serve_one(stream, acceptor.clone(), state.clone()));
    }
}

/// A client that leaves is no error here.
async fn serve_one(stream: TcpStream, acceptor: TlsAcceptor, state: Arc<State>) {
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let service = service_fn(|request| answer(request, state.clone()));
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// An error closes the connection without an answer.
async fn answer(request: Request<Incoming>, state: Arc<State>) -> io::Result<Response<Full<Bytes>>> {
    let text = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or("").to_owned();
    let is_known = text("authorization") == format!("Bearer {CREDENTIAL}");
    let (method, path, user_agent) = (request.method().to_string(), request.uri().to_string(), text("user-agent"));
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let body = serde_json::from_slice(&body).unwrap_or_default();
    let asked = Asked { method, path, user_agent, body };
    lock(&state.asked).push(asked.clone());
    let mood = lock(&state.mood).clone();
    let (status, body) = match mood {
        Mood::Says(status, body) => (status, body),
        // On a connection that was there already.
        Mood::Away => return Err(io::ErrorKind::ConnectionReset.into()),
        Mood::Good | Mood::Slow(_) => {
            if let Mood::Slow(pause) = mood {
                sleep(pause).await;
            }
            match is_known {
                true => good_answer(&asked, &state),
                false => (401, failure(401, "Unauthorized", "Unauthorized")),
            }
        }
    };
    let answer = Response::builder().status(status).header("content-type", "application/json");
    Ok(answer.body(Full::new(body.into())).expect("an answer"))
}

fn good_answer(asked: &Asked, state: &State) -> (u16, String) {
    let path = asked.path.split('?').next().unwrap_or_default();
    match (asked.method.as_str(), path) {
        ("POST", "/apis/authentication.k8s.io/v1/tokenreviews") => (201, review(asked, &lock(&state.users))),
        ("GET", path) if path.starts_with("/api/v1/nodes/") => {
            let name = path.trim_start_matches("/api/v1/nodes/");
            match lock(&state.nodes).get(name) {
                Some(addresses) => (200, node(name, addresses)),
                None => (404, failure(404, "NotFound", &format!("nodes {name:?} not found"))),
            }
        }
        _ => (404, failure(404, "NotFound", "the server could not find the requested resource")),
    }
}

fn review(asked: &Asked, users: &HashMap<String, User>) -> String {
    let spec = &asked.body["spec"];
    let user = spec["token"].as_str().and_then(|token| users.get(token));
    let wants = |user: &&User| spec["audiences"].as_array().is_some_and(|all| all.contains(&json!(user.audience)));
    let status = match user {
        None => json!({"error": "invalid bearer token"}),
        Some(user) if !wants(&user) => {
            json!({"error": format!("token audiences [\"{}\"] is invalid for the target audiences", user.audience)})
        }
        Some(user) => {
            let mut extra = json!({});
            if let Some(node) = &user.node {
                extra["authentication.kubernetes.io/node-name"] = json!([node]);
            }
            json!({"authenticated": true, "audiences": [user.audience], "user": {"username": user.username, "extra": extra}})
        }
    };
    json!({"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "metadata": {}, "spec": spec, "status": status})
        .to_string()
}

fn node(name: &str, addresses: &[String]) -> String {
    let addresses: Vec<_> = addresses.iter().map(|address| json!({"type": "InternalIP", "address": address})).collect();
    json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": name}, "status": {"addresses": addresses}})
        .to_string()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
