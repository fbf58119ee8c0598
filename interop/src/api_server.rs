//! An API server's double: as much of the Kubernetes API as the programs ask for, over TLS with the test certificates,
//! with whatever failures a test asks for. It remembers what it was asked.
//!
//! ```no_run
//! # async fn test(certificates: &konnectivity_interop::certificates::Folder, folder: &std::path::Path) -> anyhow::Result<()> {
//! use konnectivity_interop::api_server::{ApiServer, Fault};
//! let api = ApiServer::start(certificates, folder).await?;
//! let flag = format!("--kubeconfig={}", api.kubeconfig().display());
//! api.fail("list", "leases", Some(Fault::Status(403, "Forbidden")));
//! # Ok(()) }
//! ```
//!
//! - `asked`: requests, in the words of RBAC.
//! - `store`: objects, their versions, and what requests do to them.
//! - `watch`: answers that go on.
//! - `reviews`: whose a token is.

mod asked;
mod reviews;
mod store;
mod watch;

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited, combinators::UnsyncBoxBody};
use hyper::{Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use konnectivity_transport::tls::{Identity, server_config};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::sleep,
};
use tokio_rustls::TlsAcceptor;

use self::store::{Answer, Store};
pub use self::{asked::Asked, reviews::User};
use crate::{certificates::Folder, peer::ports};

/// The token by which the programs are known here, if they use [`ApiServer::kubeconfig`].
pub const CREDENTIAL: &str = "credential-of-a-program";

/// More than any request here has.
const MOST_BYTES: usize = 4 << 20;

/// What goes wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It is refused with this HTTP status and reason.
    Status(u16, &'static str),
    /// It is answered with this HTTP status and this body, whatever that is. See [`failure`].
    Says(u16, String),
    /// The answer is no JSON.
    Garbage,
    /// It is answered so much later.
    Slow(Duration),
    /// It is never answered.
    Silence,
    /// Its connection is closed. If that is so of all requests, connections are closed at once.
    HangsUp,
}

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// The running double. What it knows stays when it is stopped; it is gone when this is dropped.
#[derive(Debug)]
pub struct ApiServer {
    address: SocketAddr,
    tls: Arc<rustls::ServerConfig>,
    kubeconfig: PathBuf,
    store: Arc<Mutex<Store>>,
    tasks: JoinSet<()>,
}

impl ApiServer {
    /// Starts one with a certificate of `certificates`, and writes a kubeconfig for it into `folder`.
    ///
    /// # Errors
    /// When a certificate cannot be read, a file written, or no port is free.
    pub async fn start(certificates: &Folder, folder: &Path) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("the API gets no port")?;
        let mut api = Self::at(listener.local_addr()?, certificates, folder)?;
        api.serve(listener);
        Ok(api)
    }

    /// The same, which is not there yet: see [`Self::start_again`].
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn away(certificates: &Folder, folder: &Path) -> anyhow::Result<Self> {
        let [port] = ports::free();
        Self::at((Ipv4Addr::LOCALHOST, port).into(), certificates, folder)
    }

    fn at(address: SocketAddr, certificates: &Folder, folder: &Path) -> anyhow::Result<Self> {
        let identity = Identity::load(&certificates.file("server.crt"), &certificates.file("server.key"))?;
        let kubeconfig = folder.join(format!("kubeconfig-{}", address.port()));
        fs::write(&kubeconfig, kubeconfig_of(address, &certificates.file("ca.crt")))
            .context("cannot write the kubeconfig")?;
        let tls = Arc::new(server_config(&identity, None, &[b"http/1.1"])?);
        Ok(Self { address, tls, kubeconfig, store: Arc::default(), tasks: JoinSet::new() })
    }

    /// Serves, or serves again, with all it knew.
    ///
    /// # Errors
    /// When its port is taken.
    pub async fn start_again(&mut self) -> anyhow::Result<()> {
        let listener = TcpListener::bind(self.address).await.context("the API's port is taken")?;
        self.serve(listener);
        Ok(())
    }

    fn serve(&mut self, listener: TcpListener) {
        self.tasks.spawn(accept(listener, TlsAcceptor::from(self.tls.clone()), self.store.clone()));
    }

    /// Ends every connection, and answers no more.
    pub async fn stop(&mut self) {
        self.tasks.shutdown().await;
    }

    /// The file that says how to reach it.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Requests with this verb on this resource fail so; `None`: not any more. Verbs as in RBAC.
    pub fn fail(&self, verb: &'static str, resource: &'static str, fault: Option<Fault>) {
        self.store().fail(verb, resource, fault);
    }

    /// The same with all requests.
    pub fn fail_all(&self, fault: Option<Fault>) {
        self.store().fail_all = fault;
    }

    /// All requests until now, in their order, whatever became of them.
    pub fn asked(&self) -> Vec<Asked> {
        self.store().asked.clone()
    }

    /// Forgets them.
    pub fn forget_asked(&self) {
        self.store().asked.clear();
    }

    /// Knows a token from now on.
    pub fn knows(&self, token: &str, user: User) {
        self.store().users.insert(token.to_owned(), user);
    }

    /// Knows it no longer: it has expired, or was withdrawn.
    pub fn forgets(&self, token: &str) {
        self.store().users.remove(token);
    }

    /// How often a token was reviewed.
    pub fn reviews_of(&self, token: &str) -> usize {
        self.store().asked.iter().filter(|asked| asked.body["spec"]["token"] == token).count()
    }

    /// Has a node with these addresses.
    pub fn has_node(&self, name: &str, addresses: &[&str]) {
        let addresses: Vec<_> =
            addresses.iter().map(|address| json!({"type": "InternalIP", "address": address})).collect();
        let status = json!({"addresses": addresses});
        self.put("nodes", json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": name}, "status": status}));
    }

    /// The objects of a resource, such as `leases`, by namespace and name.
    pub fn objects(&self, resource: &str) -> Vec<Value> {
        self.store().objects(resource)
    }

    /// Writes an object as somebody else would. `metadata` must have its name, and its namespace if there is one.
    pub fn put(&self, resource: &str, object: Value) {
        self.store().put(resource, object);
    }

    /// Removes an object as somebody else would.
    pub fn remove(&self, resource: &str, namespace: &str, name: &str) {
        self.store().remove(resource, namespace, name);
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        lock(&self.store)
    }
}

/// What the API says of a failure.
pub fn failure(code: u16, reason: &str, message: &str) -> String {
    Answer::status(code, reason, message).body.to_string()
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

fn lock(store: &Mutex<Store>) -> MutexGuard<'_, Store> {
    store.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, store: Arc<Mutex<Store>>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((socket, _)) = listener.accept().await else { continue };
        while connections.try_join_next().is_some() {}
        if lock(&store).fail_all != Some(Fault::HangsUp) {
            connections.spawn(serve(socket, tls.clone(), store.clone()));
        }
    }
}

async fn serve(socket: TcpStream, tls: TlsAcceptor, store: Arc<Mutex<Store>>) {
    // Whoever leaves in the midst of it has its reasons.
    let Ok(stream) = tls.accept(socket).await else { return };
    let service = service_fn(|request| answer(request, store.clone()));
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// An error closes the connection without an answer.
async fn answer(request: Request<Incoming>, store: Arc<Mutex<Store>>) -> io::Result<Response<Body>> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, MOST_BYTES).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let asked = Asked::new(&head, &body);
    let fault = lock(&store).ask(&asked);
    match fault {
        Some(Fault::Status(code, reason)) => return Ok(of(&Answer::status(code, reason, "the test wants it so"))),
        Some(Fault::Says(code, body)) => return Ok(with(code, body)),
        Some(Fault::Garbage) => return Ok(with(200, "<html>not JSON</html>".to_owned())),
        Some(Fault::Slow(delay)) => sleep(delay).await,
        Some(Fault::Silence) => std::future::pending().await,
        Some(Fault::HangsUp) => return Err(io::ErrorKind::ConnectionReset.into()),
        None => {}
    }
    if asked.bearer != CREDENTIAL {
        return Ok(of(&Answer::status(401, "Unauthorized", "Unauthorized")));
    }
    if asked.verb == "watch" {
        let body = lock(&store).watch(&asked);
        return Ok(Response::new(body.map_err(|never| match never {}).boxed_unsync()));
    }
    let answer = lock(&store).answer(&asked);
    Ok(of(&answer))
}

fn of(answer: &Answer) -> Response<Body> {
    with(answer.code, answer.body.to_string())
}

fn with(code: u16, body: String) -> Response<Body> {
    let mut response = Response::new(Full::new(body.into()).map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert("content-type", hyper::header::HeaderValue::from_static("application/json"));
    response
}
