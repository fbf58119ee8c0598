//! A small HTTP/1.1 server for health, readiness and metrics.
//!
//! It has what probes and scrapers need: any method, small replies, no bodies of requests.

use std::{
    convert::Infallible, future::Future, io, net::TcpListener as StdListener, pin::Pin, sync::Arc, time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, StatusCode, body::Incoming, header, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    select,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use crate::listen::is_of_one_connection;

/// What a request says; its body is not read.
pub type Request = hyper::Request<()>;
/// A whole reply.
pub type Response = hyper::Response<Full<Bytes>>;

/// How a request is answered.
pub enum Answer {
    /// At once.
    Now(Response),
    /// Some time later; the future is dropped if the client leaves first.
    Later(Pin<Box<dyn Future<Output = Response> + Send>>),
}

impl From<Response> for Answer {
    fn from(response: Response) -> Self {
        Self::Now(response)
    }
}

/// A connection that sends no whole request for this long is closed, as in the reference.
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);
/// Most bytes of a request's line and headers, as in the reference.
const MAX_HEADER_BYTES: usize = 1024 * 1024;
/// The `Content-Type` of a page.
pub const HTML: &str = "text/html; charset=utf-8";
/// The value of `X-Content-Type-Options`: what is text stays text.
pub const NO_SNIFF: header::HeaderValue = header::HeaderValue::from_static("nosniff");
/// How long the replies under way may take at the end.
const LAST_REPLIES: Duration = Duration::from_secs(1);
/// Connections at once: probes and scrapers need few, and must not use up the process's file descriptors.
const MAX_CONNECTIONS: usize = 256;
/// The wait after an accept that failed because of this process or machine, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A reply in plain text.
pub fn text(status: StatusCode, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// A good reply of another type than plain text.
pub fn with_type(body: impl Into<Bytes>, kind: &'static str) -> Response {
    let mut response = text(StatusCode::OK, body);
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

/// Whether the query has this key, with whatever value.
pub fn has_key(query: Option<&str>, key: &str) -> bool {
    query.is_some_and(|query| query.split('&').any(|part| part.split('=').next() == Some(key)))
}

/// The reply to a path that nobody knows, in Go's words.
pub fn not_found() -> Response {
    error(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// Why a request is not served, in plain text, as Go's `http.Error` says it.
pub fn error(status: StatusCode, body: impl Into<Bytes>) -> Response {
    let mut response = text(status, body);
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, NO_SNIFF);
    response
}

/// Sends the client to another place for good, with the page that Go's `http.Redirect` makes.
pub fn redirect(request: &Request, location: &str) -> Response {
    let mut response = text(StatusCode::MOVED_PERMANENTLY, Bytes::new());
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        let page = format!("<a href=\"{}\">Moved Permanently</a>.\n\n", escaped(location));
        response = with_type(page, HTML);
        *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    }
    // What cannot be written into a header is no place to go to.
    if let Ok(location) = location.parse() {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// Text that means nothing in HTML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&#34;").replace('\'', "&#39;")
}

/// Serves requests until `shutdown`, then ends the connections and returns. `routes` must not block.
///
/// # Errors
/// When a listener cannot be handed to the runtime. What happens to single connections is no error.
///
/// # Cancel safety
/// Dropping the future ends all tasks, too, though nobody waits for them then.
pub async fn serve<R, A>(listeners: Vec<StdListener>, routes: R, shutdown: CancellationToken) -> io::Result<()>
where
    R: Fn(&Request) -> A + Send + Sync + 'static,
    A: Into<Answer>,
{
    let routes = move |request: &Request| routes(request).into();
    let routes = Arc::new(routes);
    let tracker = TaskTracker::new();
    let shutdown = shutdown.child_token();
    let _ended_by_drop = shutdown.clone().drop_guard();
    for listener in listeners {
        let listener = TcpListener::from_std(listener)?;
        tracker.spawn(accept(listener, routes.clone(), shutdown.clone(), tracker.clone()));
    }
    tracker.close();
    tracker.wait().await;
    Ok(())
}

async fn accept<R>(listener: TcpListener, routes: Arc<R>, shutdown: CancellationToken, tracker: TaskTracker)
where
    R: Fn(&Request) -> Answer + Send + Sync + 'static,
{
    loop {
        let accepted = select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) if tracker.len() > MAX_CONNECTIONS => {
                debug!("too many connections for health and metrics; one was closed");
                drop(stream);
            }
            Ok((stream, _)) => {
                tracker.spawn(connection(stream, routes.clone(), shutdown.clone()));
            }
            Err(error) if is_of_one_connection(&error) => {
                debug!(%error, "a connection was lost before it was accepted")
            }
            Err(error) => {
                warn!(%error, "cannot accept connections for health and metrics; trying again");
                select! {
                    () = sleep(ACCEPT_PAUSE) => {}
                    () = shutdown.cancelled() => return,
                }
            }
        }
    }
}

async fn connection<R>(stream: TcpStream, routes: Arc<R>, shutdown: CancellationToken)
where
    R: Fn(&Request) -> Answer + Send + Sync + 'static,
{
    let answer = service_fn(move |request: hyper::Request<Incoming>| {
        let (head, _) = request.into_parts();
        let answer = routes(&Request::from_parts(head, ()));
        async move {
            Ok::<_, Infallible>(match answer {
                Answer::Now(response) => response,
                Answer::Later(response) => response.await,
            })
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADER_BYTES)
        // Scripts look for headers as Go writes them.
        .title_case_headers(true)
        .serve_connection(TokioIo::new(stream), answer);
    let mut connection = std::pin::pin!(connection);
    let ended = select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            timeout(LAST_REPLIES, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a connection for health or metrics ended early");
    }
}

#[cfg(test)]
mod tests;
