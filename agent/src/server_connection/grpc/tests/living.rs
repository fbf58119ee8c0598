//! How a connection lives and ends.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

#[tokio::test]
async fn a_drain_is_said_once_and_dials_go_on() {
    let port = Port::new().await;
    let (agent, mut server) = port.served().await;
    agent.connection.drain();
    agent.connection.drain();
    assert_eq!(server.packet().await, Packet::drain());
    let (listener, address) = target().await;
    // As the reference: what is asked for all the same is served.
    let (connect_id, accepted) = tokio::join!(server.dial(&address, 7), listener.accept());
    accepted.unwrap().0.write_all(b"still here").await.unwrap();
    assert_eq!(server.data(connect_id, 10).await, b"still here");
    assert_eq!(agent.metric("stream_packets_total{packet_type=\"DRAIN\",segment=\"from_agent\"}"), "1");
}

#[tokio::test]
async fn a_close_ends_the_stream_behind_what_was_said() {
    let port = Port::new().await;
    let (mut agent, mut server) = port.served().await;
    agent.connection.drain();
    agent.connection.close();
    assert_eq!(server.packet().await, Packet::drain());
    assert_eq!(server.event().await.unwrap(), None, "the end of the stream, and no reset");
    server.end("0", "");
    assert_eq!(agent.lost().await, GrpcLost::ClosedHere);
    assert_eq!(agent.metric("server_connection_failure_count{direction=\"from_server\"}"), "");
    within("the driver's end", server.driver).await.unwrap();
    assert_eq!(agent.connection.serve(agent.dials.clone()).await, GrpcLost::ClosedHere, "there is nothing to serve");
}

#[tokio::test]
async fn a_close_does_not_wait_for_a_server_that_is_silent() {
    let port = Port::new().await;
    let (mut agent, mut server) = port.served().await;
    agent.connection.close();
    assert_eq!(server.event().await.unwrap(), None);
    assert_eq!(agent.lost().await, GrpcLost::ClosedHere);
}

/// The clock leaps when nothing but waits is left.
#[tokio::test]
async fn a_close_does_not_wait_for_a_server_that_takes_nothing() {
    let port = Port::new().await;
    let (mut agent, mut server) = port.served().await;
    let (listener, address) = target().await;
    let (_, accepted) = tokio::join!(server.dial(&address, 7), listener.accept());
    // Nobody gives its window back, so that it ends.
    let mut target = accepted.unwrap().0;
    while timeout(Duration::from_millis(200), target.write_all(&[0; 1 << 16])).await.is_ok() {}
    agent.connection.close();
    tokio::time::pause();
    let lost = agent.serving.join_next().await.unwrap().unwrap();
    assert_eq!(lost, GrpcLost::ClosedHere);
}

#[tokio::test]
async fn how_a_server_ends_the_stream_is_told() {
    for (status, message, expected, code) in [
        ("0", "", "the server has ended the stream", ""),
        ("1", "context canceled", "the server has ended the stream: Canceled: context canceled", "Canceled"),
        ("14", "going away", "the server has ended the stream: Unavailable: going away", "Unavailable"),
    ] {
        let port = Port::new().await;
        let (mut agent, mut server) = port.served().await;
        server.end(status, message);
        assert_eq!(agent.lost().await.to_string(), expected);
        let errors = agent
            .metric(&format!("stream_errors_total{{code=\"{code}\",packet_type=\"Unknown\",segment=\"to_agent\"}}"));
        assert_eq!(errors, if code.is_empty() { "" } else { "1" });
    }
    let port = Port::new().await;
    let (mut agent, mut server) = port.served().await;
    server.send.send_reset(h2::Reason::CANCEL);
    assert_eq!(agent.lost().await, GrpcLost::Reset(h2::Reason::CANCEL));
    assert_eq!(agent.metric("server_connection_failure_count{direction=\"from_server\"}"), "1");
}

#[tokio::test]
async fn a_connection_that_is_cut_ends_everything() {
    let port = Port::new().await;
    let (mut agent, mut server) = port.served().await;
    let (listener, address) = target().await;
    let (_, accepted) = tokio::join!(server.dial(&address, 7), listener.accept());
    // Both are connections of this server's; one is still to be made.
    server.say(&Packet::dial_request("127.0.0.1:1", 8));
    server.driver.abort();
    let lost = agent.lost().await;
    assert!(matches!(&lost, GrpcLost::Transport(_)), "{lost:?}");
    assert!(!agent.connection.server_drains().is_cancelled(), "it has not said that it goes");
    let end = within("the target's end", accepted.unwrap().0.read(&mut [0; 1])).await;
    assert!(end.is_err(), "{end:?}");
    agent.has_dials(0).await;
}

/// The agent does not read then, and learns of the end all the same.
#[tokio::test]
async fn a_connection_that_is_cut_while_a_target_takes_nothing_ends_everything() {
    let mut port = Port::new().await;
    port.connector.mux.dial_buffer = 64 * 1024;
    port.connector.mux.slow_dial = SlowDial::Wait;
    let (mut agent, mut server) = port.served().await;
    let (listener, address) = target().await;
    let (stalled, accepted) = tokio::join!(server.dial(&address, 7), listener.accept());
    let mut target = accepted.unwrap().0;
    loop {
        server.send.reserve_capacity(1 << 15);
        let room = std::future::poll_fn(|cx| server.send.poll_capacity(cx));
        let Ok(room) = timeout(Duration::from_millis(500), room).await else { break };
        server.say(&Packet::data(stalled, vec![1; room.unwrap().unwrap().min(30_000)].into()));
    }
    server.driver.abort();
    assert!(matches!(agent.lost().await, GrpcLost::Transport(_)));
    let end = within("the target's end", target.read_to_end(&mut Vec::new())).await;
    assert!(end.is_err(), "{end:?}");
    agent.has_dials(0).await;
}

#[tokio::test]
async fn dropping_what_serves_ends_everything() {
    let port = Port::new().await;
    let (mut agent, mut server) = port.served().await;
    let (listener, address) = target().await;
    let (_, accepted) = tokio::join!(server.dial(&address, 7), listener.accept());
    agent.serving.abort_all();
    let end = within("the target's end", accepted.unwrap().0.read(&mut [0; 1])).await;
    assert!(end.is_err(), "{end:?}");
    agent.has_dials(0).await;
    within("the driver's end", server.driver).await.unwrap();
}

#[tokio::test]
async fn a_server_that_wants_no_more_streams_lets_this_one_end() {
    let port = Port::new().await;
    let (mut agent, mut server) = port.served().await;
    let (listener, address) = target().await;
    let (connect_id, accepted) = tokio::join!(server.dial(&address, 7), listener.accept());
    server.control.send(Control::GoAway).await.unwrap();
    within("the notice", agent.connection.server_drains().cancelled()).await;
    let mut target = accepted.unwrap().0;
    target.write_all(b"goes on").await.unwrap();
    assert_eq!(server.data(connect_id, 7).await, b"goes on");
    server.dial(&address, 8).await;
    server.end("0", "");
    assert_eq!(agent.lost().await, GrpcLost::Ended);
}

#[tokio::test]
async fn a_server_that_answers_pings_is_alive() {
    let mut port = Port::new().await;
    port.connector.keep_alive = Duration::from_millis(5);
    let (mut agent, mut server) = port.served().await;
    let silence = timeout(Duration::from_millis(200), agent.serving.join_next()).await;
    assert!(silence.is_err(), "{silence:?}");
    server.is_heard().await;
}

/// The clock leaps when nothing but waits is left, because nobody reads what the agent asks.
#[tokio::test]
async fn a_server_that_does_not_answer_a_ping_is_gone() {
    let port = Port::new().await;
    let (mut agent, server) = port.served().await;
    server.control.send(Control::Stop).await.unwrap();
    server.control.reserve().await.unwrap();
    tokio::time::pause();
    let lost = agent.serving.join_next().await.unwrap().unwrap();
    assert_eq!(lost, GrpcLost::Silent);
    assert_eq!(lost.to_string(), "no answer to a PING within 20 s");
}
