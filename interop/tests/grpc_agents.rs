//! Agents of the Go reference at our server, over gRPC: every kind of frontend, beside agents over QUIC, and what happens
//! when something goes wrong.
// A test may panic, and its tasks end with its runtime.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use konnectivity_interop::{
    ends::{Target, echo, within},
    pair::{Options, Pair, reference::ReferenceAgent},
};

const FRONTS: [fn() -> Options; 2] = [Options::unix, Options::mutual_tls];

async fn start(options: Options) -> (Pair, ReferenceAgent) {
    let pair = Pair::start(options.agents([])).await.unwrap();
    let agent = ReferenceAgent::join(&pair, "agent-1", &[]).await.unwrap();
    (pair, agent)
}

#[tokio::test]
async fn bytes_come_back_over_every_front() {
    let target = Target::echo();
    for front in FRONTS {
        let (pair, _agent) = start(front()).await;
        let mut dial = within("a dial", pair.dial(&target.address.to_string())).await.unwrap();
        echo(&mut dial, b"hello").await;
    }
}
