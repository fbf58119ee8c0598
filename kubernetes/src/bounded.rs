//! No answer of the API is read beyond a limit: the library keeps whatever comes.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use http::{Request, Response};
use http_body_util::Limited;
use kube::client::{Body, DynBody};
use tower::{BoxError, Layer, Service};

/// Bytes of an answer: ten thousand leases, as they are in JSON.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// Bounds answers, but for those that go on for ever because their request asks for changes.
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
                return Ok(answer);
            }
            Ok(answer.map(|body| Box::new(Limited::new(body, MAX_ANSWER_BYTES)) as Box<DynBody>))
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::{BodyExt, Full};
    use tower::service_fn;

    use super::*;

    async fn read(path: &str, status: u16) -> Result<usize, BoxError> {
        let answer = move |_| async move {
            let body = Full::new(Bytes::from(vec![b' '; MAX_ANSWER_BYTES + 1])).map_err(BoxError::from);
            let body = Box::new(body) as Box<DynBody>;
            Ok::<_, BoxError>(Response::builder().status(status).body(body).expect("an answer"))
        };
        let request = Request::get(path).body(Body::empty())?;
        let answer = BoundedLayer.layer(service_fn(answer)).call(request).await?;
        Ok(answer.into_body().collect().await?.to_bytes().len())
    }

    #[tokio::test]
    async fn only_changes_may_go_on() {
        assert!(read("/leases", 200).await.is_err_and(|error| error.to_string().contains("length limit")));
        assert!(read("/leases?watchful=true", 200).await.is_err());
        assert!(read("/leases?labelSelector=a&watch=true", 500).await.is_err());
        assert!(read("/leases?labelSelector=a&watch=true", 200).await.is_ok());
    }
}
