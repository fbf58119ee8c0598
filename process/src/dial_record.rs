//! How one dial went: the one log event and the one count that end it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Where ended dials are counted.
pub trait DialMetrics {
    /// Counts one ended dial: a short outcome from a fixed set, bytes from the socket into the tunnel and the other
    /// way, and the time since it was asked for.
    fn dial_ended(&self, outcome: &'static str, bytes_sent: u64, bytes_received: u64, duration: Duration);
}

/// The record of one dial. It writes itself once: by [`Self::finish`], or as `aborted` when it is dropped.
pub struct DialRecord<M: DialMetrics> {
    dial_id: u64,
    target: String,
    /// Whom the connection that carries the dial leads to; empty until one is found.
    peer: Arc<str>,
    started: Instant,
    metrics: Arc<M>,
    written: bool,
}

impl<M: DialMetrics> DialRecord<M> {
    /// Starts the record of a dial that is asked for now.
    pub fn start(dial_id: u64, target: &str, metrics: Arc<M>) -> Self {
        let peer = Arc::default();
        Self { dial_id, target: target.to_owned(), peer, started: Instant::now(), metrics, written: false }
    }

    /// The dial is carried by a connection to `peer`: an agent's id, or a server's.
    pub fn carried_by(&mut self, peer: Arc<str>) {
        self.peer = peer;
    }

    /// When the dial was asked for.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Ends the record. A clean end is logged for debugging, anything else for information.
    pub fn finish(mut self, outcome: &'static str, error: Option<&str>, bytes_sent: u64, bytes_received: u64) {
        self.write(outcome, error, bytes_sent, bytes_received);
    }

    fn write(&mut self, outcome: &'static str, error: Option<&str>, bytes_sent: u64, bytes_received: u64) {
        self.written = true;
        let duration = self.started.elapsed();
        self.metrics.dial_ended(outcome, bytes_sent, bytes_received, duration);
        let (dial_id, target, peer) = (self.dial_id, self.target.as_str(), &*self.peer);
        let duration = duration.as_secs_f64();
        match error {
            None => tracing::debug!(dial_id, target, peer, outcome, bytes_sent, bytes_received, duration, "dial ended"),
            Some(error) => {
                tracing::info!(
                    dial_id,
                    target,
                    peer,
                    outcome,
                    bytes_sent,
                    bytes_received,
                    duration,
                    error,
                    "dial ended"
                );
            }
        }
    }
}

impl<M: DialMetrics> Drop for DialRecord<M> {
    fn drop(&mut self) {
        if !self.written {
            self.write("aborted", Some("the process stopped the dial"), 0, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Counted(Mutex<Vec<(&'static str, u64, u64)>>);

    impl DialMetrics for Counted {
        fn dial_ended(&self, outcome: &'static str, sent: u64, received: u64, _: Duration) {
            self.0.lock().unwrap().push((outcome, sent, received));
        }
    }

    #[test]
    fn a_record_writes_itself_exactly_once() {
        let counted = Arc::new(Counted::default());
        DialRecord::start(1, "target:1", counted.clone()).finish("finished", None, 3, 4);
        drop(DialRecord::start(2, "target:1", counted.clone()));
        assert_eq!(*counted.0.lock().unwrap(), [("finished", 3, 4), ("aborted", 0, 0)]);
    }
}
