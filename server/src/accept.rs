//! Accepting connections, of clients as of agents over TCP, and moving them between workers.

pub mod linger;
pub mod listener;
pub mod stream;

#[cfg(test)]
mod test_certificates;
