use std::{
    net::SocketAddr,
    time::{Duration, UNIX_EPOCH},
};

use konnectivity_process::metrics::QuicSnapshot;

use super::*;
use crate::server_connection::choice::Reason;

fn grpc(open_dials: usize) -> Handle {
    let remote = SocketAddr::from(([10, 0, 0, 1], 8091));
    Handle::Grpc(Arc::new(move || GrpcFacts { remote, age: Duration::ZERO, open_dials, untaken_bytes: 4 }))
}

fn begin(served: &Arc<Served>, name: &str, text: &str) -> InUse {
    let id = ServerId::new(name.to_owned()).unwrap();
    served.begin(&id, Transport::Grpc, grpc(7), &Why::new(Reason::NoQuicAnswer, text))
}

#[tokio::test(start_paused = true)]
async fn a_line_for_each_server() {
    let served = Arc::new(Served::new(Arc::new(Metrics::new())));
    let one = begin(&served, "one", "why");
    let two = begin(&served, "two", "the peer said:\n[+]all is well\u{1b}[2J");
    for entry in served.list().entries.values_mut() {
        entry.since = UNIX_EPOCH + Duration::from_secs(1_795_511_682);
    }
    one.back(Back::At(Instant::now() + Duration::from_millis(29_100)));
    two.back(Back::Trying);
    let expected = [
        "server one over grpc since 2026-11-24T09:14:42Z (why; next try in 30s)",
        "server two over grpc since 2026-11-24T09:14:42Z (the peer said: [+]all is well [2J; trying QUIC now)",
    ];
    assert_eq!(served.lines(), expected);
    tokio::time::advance(Duration::from_secs(60)).await;
    assert!(served.lines()[0].ends_with("(why; next try in 0s)"));
    one.back(Back::No);
    assert!(served.lines()[0].ends_with("(why)"));
    one.moved();
    assert_eq!(served.lines(), expected[1..]);
    drop(two);
    assert_eq!(served.lines(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn the_page_says_the_carrier() {
    let served = Arc::new(Served::new(Arc::new(Metrics::new())));
    let moved = begin(&served, "one", "why");
    moved.moved();
    tokio::time::advance(Duration::from_secs(2)).await;
    let facts = serde_json::to_value(served.facts()).unwrap();
    let expected = serde_json::json!([{
        "peer": "one", "carrier": "grpc", "remote": "10.0.0.1:8091", "draining": true, "age_seconds": 2.0,
        "open_dials": 7, "untaken_bytes": 4,
    }]);
    assert_eq!(facts, expected);
    assert!(served.quic().is_empty());
}

#[test]
fn metrics_count_what_is_in_use() {
    let metrics = Arc::new(Metrics::new());
    let text = || metrics.render(0, 0, &QuicSnapshot::default()).unwrap();
    assert!(!text().contains("server_transport"), "not before the first use");
    let served = Arc::new(Served::new(metrics.clone()));
    let (one, two) = (begin(&served, "one", "why"), begin(&served, "one", "why"));
    assert!(text().contains("_server_transport{transport=\"grpc\"} 2\n"));
    drop((one, two));
    assert!(text().contains("_server_transport{transport=\"grpc\"} 0\n"));
    let choices = "_server_transport_choices_total{reason=\"no_quic_answer\",transport=\"grpc\"} 2\n";
    assert!(text().contains(choices), "{}", text());
    assert!(!text().contains("transport=\"quic\""), "nor what was never used");
}
