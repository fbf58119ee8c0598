//! Congestion control: how much of a connection may be in flight.
//!
//! The library's controllers take each loss for congestion (NewReno, Cubic), so that one packet lost in a hundred
//! leaves them a fortieth of a link of 100 Mbit/s at 50 ms, or overshoot (its BBR, which its authors call
//! experimental). `Model` is ours, for links that lose packets by themselves and have more buffer than
//! is good:
//!
//! - It knows the path by what it measures: the delivery rate (`rate`), the round trip without a queue (`delay`), and
//!   the loss at low load (`loss`). The window is the product of the first two, plus what is lost but not yet known to
//!   be, plus a short queue. In each eight rounds or so one asks for a quarter more and the next for a tenth less: the
//!   first finds out if there is more, the second empties the queue and shows the path as it is.
//! - Loss is no sign of congestion until shown to be: when more is lost than before, less is asked for. If the loss
//!   stays, it is the path's; if it goes, it was ours, and there is a bound.
//! - A queue is ours until shown not to be: when it is long, no more is asked for than was delivered. If it stays, or
//!   comes back at once, others fill it.
//! - Then the window does as theirs does, or there would be nothing left (`compete`). Every few seconds a look, half of
//!   the window for two rounds, shows whether they are still there, and from how far the queue falls how much of the
//!   path is ours: with more than three fifths the window gives way, with less it grows faster.
//!
//! Time is an argument, all state is values, and nothing that a peer says counts for more than was sent; `simulation`
//! runs it over paths in virtual time. What the library's interface does not let it do is set a pace: the library
//! sends 1.25 windows per round trip in bursts of ten packets or more. So the window itself is kept close, and beside a
//! rival what is in flight follows the acknowledgements.

mod batches;
mod compete;
mod controller;
mod delay;
mod filter;
mod loss;
mod model;
mod rate;
mod room;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::{fmt, str::FromStr, sync::Arc};

use quinn::congestion::{BbrConfig, ControllerFactory, CubicConfig, NewRenoConfig};

pub(crate) use room::Room;

/// Which congestion controller a connection sends with; each end chooses its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CongestionControl {
    /// Ours: uses links that lose packets, and keeps queues short. The default (decision 0010).
    #[default]
    Model,
    /// The library's CUBIC (RFC 9438): takes each loss for congestion, and fills queues.
    Cubic,
    /// The library's BBR; its authors call it experimental. It can overshoot so far that the connection is lost.
    Bbr,
    /// The library's NewReno (RFC 9002).
    NewReno,
}

impl CongestionControl {
    /// All of them, in the order of their documentation.
    pub const ALL: [Self; 4] = [Self::Model, Self::Cubic, Self::Bbr, Self::NewReno];

    /// What a setting calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Cubic => "cubic",
            Self::Bbr => "bbr",
            Self::NewReno => "newreno",
        }
    }

    /// Makes controllers that begin with a window of `initial_window` bytes, and let pass beyond theirs what there is
    /// `room` for.
    pub(crate) fn factory(self, initial_window: u64, room: Arc<Room>) -> Arc<dyn ControllerFactory + Send + Sync> {
        Arc::new(room::RoomFactory { inner: self.bare_factory(initial_window), room })
    }

    fn bare_factory(self, initial_window: u64) -> Arc<dyn ControllerFactory + Send + Sync> {
        match self {
            Self::Model => Arc::new(controller::ModelFactory { initial_window }),
            Self::Cubic => {
                let mut config = CubicConfig::default();
                config.initial_window(initial_window);
                Arc::new(config)
            }
            Self::Bbr => {
                let mut config = BbrConfig::default();
                config.initial_window(initial_window);
                Arc::new(config)
            }
            Self::NewReno => {
                let mut config = NewRenoConfig::default();
                config.initial_window(initial_window);
                Arc::new(config)
            }
        }
    }
}

impl fmt::Display for CongestionControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// There is no congestion controller of this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no congestion control \"{0}\": choose model, cubic, bbr or newreno")]
pub struct UnknownCongestionControl(pub String);

impl FromStr for CongestionControl {
    type Err = UnknownCongestionControl;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|control| control.name() == name)
            .ok_or_else(|| UnknownCongestionControl(name.to_owned()))
    }
}
