//! A client that echoes beside others, and how fast.

use std::time::{Duration, Instant};

use super::{connection::Connection, door::Door, tunnel::Tunnel};

/// An established dial to an echo.
#[derive(Debug)]
pub struct Honest {
    _connection: Connection,
    tunnel: Tunnel,
}

/// Times of echoes.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Half of them were faster.
    pub median: Duration,
    /// None was slower.
    pub slowest: Duration,
}

impl Honest {
    /// Connects and dials.
    ///
    /// # Panics
    /// When it is not served.
    pub async fn new(door: &Door, target: impl ToString) -> Self {
        let connection = Connection::open(door).await;
        let tunnel = Tunnel::dial(&connection, target).await.expect("an honest client is served");
        Self { _connection: connection, tunnel }
    }

    /// Echoes so often, one after the other.
    ///
    /// # Panics
    /// When one does not come back.
    pub async fn pace(&mut self, echoes: usize) -> Pace {
        let mut times = Vec::with_capacity(echoes);
        for _ in 0..echoes {
            let start = Instant::now();
            self.tunnel.echo(&[7; 64]).await;
            times.push(start.elapsed());
        }
        times.sort_unstable();
        Pace { median: times[times.len() / 2], slowest: times[times.len() - 1] }
    }
}
