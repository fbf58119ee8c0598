//! Answers that go on: a line for each change.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use hyper::body::{Body, Bytes, Frame};
use serde_json::Value;
use tokio::{
    sync::mpsc,
    time::{Sleep, sleep},
};

use super::{asked::Asked, store::selects};

/// Changes that a watcher may be behind.
const MOST_BEHIND: usize = 4_096;

/// Somebody who watches.
#[derive(Debug)]
pub(super) struct Watcher {
    resource: String,
    namespace: String,
    selector: String,
    lines: mpsc::Sender<Bytes>,
}

impl Watcher {
    pub(super) fn new(asked: &Asked, limit: Duration) -> (Self, WatchBody) {
        let (lines, receiver) = mpsc::channel(MOST_BEHIND);
        let watcher = Self {
            resource: asked.resource.clone(),
            namespace: asked.namespace.clone(),
            selector: asked.query.get("labelSelector").cloned().unwrap_or_default(),
            lines,
        };
        (watcher, WatchBody { lines: receiver, end: Box::pin(sleep(limit)) })
    }

    /// Whether it is still there.
    pub(super) fn tell(&self, resource: &str, event: &Value) -> bool {
        let object = &event["object"];
        let concerns = self.resource == resource
            && (self.namespace.is_empty() || object["metadata"]["namespace"] == self.namespace.as_str())
            && selects(&self.selector, object);
        !self.lines.is_closed() && (!concerns || self.lines.try_send(Bytes::from(format!("{event}\n"))).is_ok())
    }
}

/// The lines of one watcher.
pub(super) struct WatchBody {
    lines: mpsc::Receiver<Bytes>,
    end: Pin<Box<Sleep>>,
}

impl Body for WatchBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Poll::Ready(line) = self.lines.poll_recv(context) {
            return Poll::Ready(line.map(|line| Ok(Frame::data(line))));
        }
        self.end.as_mut().poll(context).map(|()| None)
    }
}
