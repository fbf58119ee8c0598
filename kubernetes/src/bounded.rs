//! No answer of the API is read beyond a limit: the library keeps whatever comes.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Request, Response};
use http_body_util::{BodyStream, Limited, StreamBody};
use kube::client::{Body, DynBody};
use tower::{BoxError, Layer, Service};

/// Bytes of an answer: ten thousand leases, as they are in JSON.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// Bytes of one change, which is a line: more than the API's own store takes for an object.
const MAX_CHANGE_BYTES: usize = 2 * 1024 * 1024;

/// A change is longer than any can be.
#[derive(Debug, thiserror::Error)]
#[error("a change has more than {} MiB", MAX_CHANGE_BYTES / 1024 / 1024)]
pub(crate) struct ChangeTooLong;

/// Bounds answers; of those that go on for ever, because their request asks for changes, each change.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BoundedLayer;

impl<S> Layer<S> for BoundedLayer {
    type Service = Bounded<S>;

    fn layer(&self, inner: S) -> Bounded<S> {
        Bounded(inner)
    }
}

/// A client whose answers are bounded.
#[derive(Debug, Clone)]
pub(crate) struct Bounded<S>(S);

type Answer = Result<Response<Box<DynBody>>, BoxError>;

impl<S> Service<Request<Body>> for Bounded<S>
where
    S: Service<Request<Body>, Response = Response<Box<DynBody>>, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = Response<Box<DynBody>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let watches = request.uri().query().is_some_and(|query| query.split('&').any(|pair| pair == "watch=true"));
        let answer = self.0.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            // A refusal is short, whatever was asked for.
            if watches && answer.status().is_success() {
                return Ok(answer.map(|body| Box::new(changes(body)) as Box<DynBody>));
            }
            Ok(answer.map(|body| Box::new(Limited::new(body, MAX_ANSWER_BYTES)) as Box<DynBody>))
        })
    }
}

/// The body until a line of it is too long.
fn changes(body: Box<DynBody>) -> impl http_body::Body<Data = Bytes, Error = BoxError> + Send + Unpin {
    let mut line = 0_usize;
    StreamBody::new(BodyStream::new(body).map(move |frame| {
        let frame = frame?;
        for part in frame.data_ref().map(Bytes::as_ref).unwrap_or_default().split_inclusive(|byte| *byte == b'\n') {
            line = line.saturating_add(part.len());
            if line > MAX_CHANGE_BYTES {
                return Err(ChangeTooLong.into());
            }
            if part.ends_with(b"\n") {
                line = 0;
            }
        }
        Ok(frame)
    }))
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full};
    use tower::service_fn;

    use super::*;

    async fn read(path: &str, status: u16, body: Vec<u8>) -> Result<usize, BoxError> {
        let body = Bytes::from(body);
        let answer = move |_| {
            let body = Box::new(Full::new(body.clone()).map_err(BoxError::from)) as Box<DynBody>;
            std::future::ready(Response::builder().status(status).body(body).map_err(BoxError::from))
        };
        let request = Request::get(path).body(Body::empty())?;
        let answer = BoundedLayer.layer(service_fn(answer)).call(request).await?;
        Ok(answer.into_body().collect().await?.to_bytes().len())
    }

    #[tokio::test]
    async fn only_changes_may_go_on() {
        let line = [vec![b' '; MAX_CHANGE_BYTES - 1], vec![b'\n']].concat();
        let lines = line.repeat(MAX_ANSWER_BYTES / MAX_CHANGE_BYTES + 1);
        let length = async |path, status| read(path, status, lines.clone()).await.map_err(|error| error.to_string());
        assert!(length("/leases", 200).await.is_err_and(|error| error.contains("length limit")));
        assert!(length("/leases?watchful=true", 200).await.is_err());
        assert!(length("/leases?labelSelector=a&watch=true", 500).await.is_err());
        assert_eq!(length("/leases?labelSelector=a&watch=true", 200).await, Ok(lines.len()));
    }

    #[tokio::test]
    async fn a_change_has_an_end() {
        for (before, bytes, fits) in
            [("", MAX_CHANGE_BYTES, true), ("", MAX_CHANGE_BYTES + 1, false), ("x\n", MAX_CHANGE_BYTES, true)]
        {
            let body = [before.as_bytes().to_vec(), vec![b' '; bytes]].concat();
            let read = read("/leases?watch=true", 200, body).await;
            assert_eq!(read.is_ok(), fits, "{bytes}");
            assert!(read.err().is_none_or(|error| error.is::<ChangeTooLong>()));
        }
    }
}
