//! An API server's double: enough of the Kubernetes API for leases and whoever watches them, over TLS with the test
//! certificates, with whatever failures a test asks for.
//!
//! ```no_run
//! # async fn test(certificates: &konnectivity_interop::certificates::Folder, folder: &std::path::Path) -> anyhow::Result<()> {
//! use konnectivity_interop::lease_api::{LeaseApi, Fault};
//! let api = LeaseApi::start(certificates, folder).await?;
//! let flag = format!("--kubeconfig={}", api.kubeconfig().display());
//! api.fail("list", "leases", Some(Fault::Status(403, "Forbidden")));
//! # Ok(()) }
//! ```
//!
//! - `store`: objects, their versions, and what requests do to them.
//! - `watch`: answers that go on.

mod store;
mod watch;

use std::convert::Infallible;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use konnectivity_transport::tls::{Identity, server_config};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::certificates::Folder;
use crate::peer::ports;
pub use store::Asked;
use store::{Answer, Store};

/// The bearer token that the kubeconfig has.
pub const BEARER: &str = "test-bearer";

/// More than any request here has.
const MOST_BYTES: usize = 4 << 20;

/// What goes wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is refused with this HTTP status and reason.
    Status(u16, &'static str),
    /// The answer is no JSON.
    Garbage,
    /// It is answered so much later.
    Slow(Duration),
    /// It is never answered.
    Silence,
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// The running double. What it knows stays when it is stopped.
#[derive(Debug)]
pub struct LeaseApi {
    address: SocketAddr,
    tls: Arc<rustls::ServerConfig>,
    kubeconfig: PathBuf,
    store: Arc<Mutex<Store>>,
    tasks: JoinSet<()>,
}

impl LeaseApi {
    /// Starts one, and writes a kubeconfig for it into `folder`.
    ///
    /// # Errors
    /// When there is no port, or a file cannot be written.
    pub async fn start(certificates: &Folder, folder: &Path) -> anyhow::Result<Self> {
        let mut api = Self::away(certificates, folder)?;
        api.start_again().await?;
        Ok(api)
    }

    /// The same, which is not there yet: see [`Self::start_again`].
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn away(certificates: &Folder, folder: &Path) -> anyhow::Result<Self> {
        let [port] = ports::free();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let identity = Identity::load(&certificates.file("server.crt"), &certificates.file("server.key"))?;
        let kubeconfig = folder.join(format!("kubeconfig-{port}"));
        let ca = certificates.file("ca.crt");
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
             clusters: [{{name: test, cluster: {{server: 'https://{address}', certificate-authority: '{}'}}}}]\n\
             users: [{{name: test, user: {{token: {BEARER}}}}}]\n\
             contexts: [{{name: test, context: {{cluster: test, user: test}}}}]\n",
            ca.display()
        );
        fs::write(&kubeconfig, text).context("cannot write the kubeconfig")?;
        Ok(Self {
            address,
            tls: Arc::new(server_config(&identity, None, &[b"http/1.1"])?),
            kubeconfig,
            store: Arc::default(),
            tasks: JoinSet::new(),
        })
    }

    /// Serves, or serves again, with all it knew.
    ///
    /// # Errors
    /// When its port is taken.
    pub async fn start_again(&mut self) -> anyhow::Result<()> {
        let listener = TcpListener::bind(self.address).await.context("the API's port is taken")?;
        self.tasks.spawn(accept(listener, TlsAcceptor::from(self.tls.clone()), self.store.clone()));
        Ok(())
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

    /// All requests since the last call, in their order.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.store().asked)
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

fn lock(store: &Mutex<Store>) -> MutexGuard<'_, Store> {
    store.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, store: Arc<Mutex<Store>>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((socket, _)) = listener.accept().await else { continue };
        connections.spawn(serve(socket, tls.clone(), store.clone()));
    }
}

async fn serve(socket: TcpStream, tls: TlsAcceptor, store: Arc<Mutex<Store>>) {
    // Whoever leaves in the midst of it has its reasons.
    let Ok(stream) = tls.accept(socket).await else { return };
    let service = service_fn(|request| answer(request, store.clone()));
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(request: Request<Incoming>, store: Arc<Mutex<Store>>) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, MOST_BYTES).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let authorization = head.headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let asked = Asked::new(&head.method, &head.uri, authorization, &body);
    let fault = lock(&store).ask(&asked);
    match fault {
        Some(Fault::Status(code, reason)) => return Ok(json(&Answer::status(code, reason, "the test wants it so"))),
        Some(Fault::Garbage) => return Ok(text(StatusCode::OK, Bytes::from_static(b"<html>not JSON</html>"))),
        Some(Fault::Slow(delay)) => tokio::time::sleep(delay).await,
        Some(Fault::Silence) => std::future::pending().await,
        None => {}
    }
    if asked.verb == "watch" {
        let body = lock(&store).watch(&asked);
        return Ok(Response::new(body.boxed_unsync()));
    }
    let answer = lock(&store).answer(&asked);
    Ok(json(&answer))
}

fn json(answer: &Answer) -> Response<Body> {
    let code = StatusCode::from_u16(answer.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    text(code, Bytes::from(answer.body.to_string()))
}

fn text(code: StatusCode, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Full::new(body).boxed_unsync());
    *response.status_mut() = code;
    response.headers_mut().insert("content-type", hyper::header::HeaderValue::from_static("application/json"));
    response
}
