//! What a server asks for, honest or not.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

#[tokio::test]
async fn a_dial_carries_bytes_both_ways_and_ends_with_its_target() {
    let port = Port::new().await;
    let (agent, mut server) = port.served().await;
    let (listener, address) = target().await;
    let (connect_id, accepted) = tokio::join!(server.dial(&address, 7), listener.accept());
    let mut target = accepted.unwrap().0;
    assert_eq!(connect_id, 1);
    assert_eq!(agent.connection.open_dials(), 1);
    assert_eq!(agent.metric("open_endpoint_connections"), "1");

    server.say(&Packet::data(connect_id, Bytes::from_static(b"question")));
    let mut question = [0; 8];
    target.read_exact(&mut question).await.unwrap();
    assert_eq!(&question, b"question");
    target.write_all(b"answer").await.unwrap();
    assert_eq!(server.data(connect_id, 6).await, b"answer");

    target.write_all(b"last words").await.unwrap();
    drop(target);
    assert_eq!(server.data(connect_id, 10).await, b"last words");
    assert_eq!(server.packet().await, Packet::close_response(connect_id, ""));
    agent.has_dials(0).await;
    assert_eq!(agent.metric("open_endpoint_connections"), "0");
    assert_eq!(agent.metric("stream_packets_total{packet_type=\"DIAL_REQ\",segment=\"to_agent\"}"), "1");
    assert_eq!(agent.metric("stream_packets_total{packet_type=\"CLOSE_RSP\",segment=\"from_agent\"}"), "1");
}

#[tokio::test]
async fn what_came_before_the_close_reaches_the_target() {
    let port = Port::new().await;
    let (agent, mut server) = port.served().await;
    let (listener, address) = target().await;
    let (connect_id, accepted) = tokio::join!(server.dial(&address, 7), listener.accept());
    let mut target = accepted.unwrap().0;
    for _ in 0..20 {
        server.say(&Packet::data(connect_id, vec![5; 30_000].into()));
    }
    server.say(&Packet::close_request(connect_id));
    let mut came = Vec::new();
    within("every byte", target.read_to_end(&mut came)).await.unwrap();
    assert_eq!(came, vec![5; 600_000]);
    assert_eq!(server.packet().await, Packet::close_response(connect_id, ""));
    agent.has_dials(0).await;
}

#[tokio::test]
async fn conn_ids_are_unique_in_the_process() {
    let port = Port::new().await;
    let (_agent, mut server) = port.served().await;
    let (_another, mut same_server) = port.served().await;
    let (_listener, address) = target().await;
    let mut ids = Vec::new();
    for random in 0..3 {
        ids.push(server.dial(&address, random).await);
        ids.push(same_server.dial(&address, random).await);
    }
    assert_eq!(ids, [1, 2, 3, 4, 5, 6]);
}

#[tokio::test]
async fn failures_have_the_references_words() {
    let port = Port::new().await;
    let (agent, mut server) = port.served().await;
    let (closed, address) = target().await;
    drop(closed);
    server.say(&Packet::dial_request(&address, 7));
    let refused = format!("dial tcp {address}: connect: connection refused");
    assert_eq!(server.packet().await, Packet::dial_failed(7, refused));
    server.say(&Packet::dial_request("nowhere", 8));
    assert_eq!(server.packet().await, Packet::dial_failed(8, "dial tcp: address nowhere: missing port in address"));
    let mut udp = Packet::dial_request(&address, 9);
    if let Some(Payload::DialRequest(request)) = &mut udp.payload {
        request.protocol = "udp".to_owned();
    }
    server.say(&udp);
    assert_eq!(server.packet().await, Packet::dial_failed(9, "dial udp: unknown network udp"));
    server.say(&Packet::dial_request("h".repeat(1025), 10));
    assert_eq!(server.packet().await, Packet::dial_failed(10, "dial tcp: address: longer than 1024 bytes"));
    agent.has_dials(0).await;
    assert_eq!(agent.metric("endpoint_dial_failure_total{reason=\"unknown\"}"), "4");
}

/// A target that never accepts: its queue of one connection is full.
async fn full() -> (socket2::Socket, TcpStream, String) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, TcpStream::connect(address).await.unwrap(), address.to_string())
}

#[tokio::test]
async fn a_pending_dial_can_be_given_up() {
    let port = Port::new().await;
    let (agent, mut server) = port.served().await;
    let (_full, _queued, address) = full().await;
    server.say(&Packet::dial_request(&address, 7));
    agent.has_dials(1).await;
    server.say(&Packet::close_dial(8));
    server.is_heard().await;
    agent.has_dials(1).await;
    server.say(&Packet::close_dial(7));
    agent.has_dials(0).await;
    server.is_heard().await;
    assert_eq!(agent.metric("dials_total{outcome=\"cancelled\"}"), "1");
}

#[tokio::test]
async fn two_dials_of_one_number_are_both_refused() {
    let port = Port::new().await;
    let (agent, mut server) = port.served().await;
    let (_full, _queued, address) = full().await;
    server.say(&Packet::dial_request(&address, 7));
    server.say(&Packet::dial_request(&address, 7));
    let refused = Packet::dial_failed(7, "two dials with the same number are in progress");
    assert_eq!(server.packet().await, refused);
    agent.has_dials(0).await;
    server.is_heard().await;
}

#[tokio::test]
async fn a_flood_of_dials_has_a_bound() {
    let port = Port::new().await;
    let (agent, mut server) = port.served().await;
    // Look-ups have their own bound, and wait without file descriptors.
    let (_full, _queued, address) = full().await;
    for random in 0..5000 {
        server.say(&Packet::dial_request(&address, random));
    }
    let mut refused = 0;
    while refused < 5000 - 4096 {
        let answer = server.packet().await;
        assert_eq!(answer.kind(), Some(PacketType::DialRsp));
        let Some(Payload::DialResponse(answer)) = answer.payload else { panic!("{answer:?}") };
        // Where file descriptors are few, they may be spent before the bound is reached.
        let expected = ["too many dials in progress at this agent: 4096", "too many open files"];
        assert!(expected.iter().any(|text| answer.error.contains(text)), "{}", answer.error);
        refused += 1;
    }
    assert!(agent.connection.open_dials() <= 4096);
}

#[tokio::test]
async fn packets_for_nobody_are_answered_as_by_the_reference() {
    let port = Port::new().await;
    let (_agent, mut server) = port.served().await;
    server.say(&Packet::data(99, Bytes::from_static(b"lost")));
    assert_eq!(server.packet().await, Packet::close_response(99, "unrecognized connectID"));
    server.say(&Packet::close_request(99));
    assert_eq!(server.packet().await, Packet::close_response(99, "Unknown connectID"));
    // No connection has this number, and the reference says nothing either.
    server.say(&Packet::data(0, Bytes::from_static(b"lost")));
    // Nothing that a server may send, and what no version knows.
    for packet in
        [Packet::connected(1, 1), Packet::drain(), Packet::close_response(99, ""), Packet { r#type: 99, payload: None }]
    {
        server.say(&packet);
    }
    server.is_heard().await;
}

#[tokio::test]
async fn bytes_for_a_pending_dial_are_for_nobody() {
    let port = Port::new().await;
    let (agent, mut server) = port.served().await;
    let (_full, _queued, address) = full().await;
    server.say(&Packet::dial_request(&address, 7));
    agent.has_dials(1).await;
    server.say(&Packet::data(1, vec![1; 100_000].into()));
    assert_eq!(server.packet().await, Packet::close_response(1, "unrecognized connectID"));
    server.is_heard().await;
}

#[tokio::test]
async fn what_is_no_packet_ends_the_connection() {
    let announced = |length: u32| [&[0][..], &length.to_be_bytes(), &[0x08, 0x04, 0x22, 0xff]].concat();
    for (bytes, expected) in [
        (announced(5_000_000), "the server breaks the protocol: grpc: received message larger than max"),
        (vec![1, 0, 0, 0, 0], "the server breaks the protocol: grpc: compressed flag set"),
        (vec![0, 0, 0, 0, 2, 0x08, 0xff], "the server breaks the protocol: grpc: failed to unmarshal"),
    ] {
        let port = Port::new().await;
        let (mut agent, mut server) = port.served().await;
        let (listener, address) = target().await;
        let (_, accepted) = tokio::join!(server.dial(&address, 7), listener.accept());
        server.say_bytes(bytes);
        let lost = agent.lost().await.to_string();
        assert!(lost.starts_with(expected), "{lost}");
        let reset = server.event().await.unwrap_err();
        assert_eq!(reset.reason(), Some(h2::Reason::PROTOCOL_ERROR));
        // The target must not take it for the client's end.
        let end = within("the target's end", accepted.unwrap().0.read(&mut [0; 1])).await;
        assert!(end.is_err(), "{end:?}");
        agent.has_dials(0).await;
        assert_eq!(agent.metric("dials_total{outcome=\"connection_lost\"}"), "1");
        within("the driver's end", &mut server.driver).await.unwrap();
    }
}

#[tokio::test]
async fn a_target_that_takes_nothing_does_not_stop_another_one() {
    let port = Port::new().await;
    let (_agent, mut server) = port.served().await;
    let (listener, address) = target().await;
    let (stalled, _stalled_target) = tokio::join!(server.dial(&address, 7), listener.accept());
    let (other, accepted) = tokio::join!(server.dial(&address, 8), listener.accept());
    let mut other_target = accepted.unwrap().0;
    // What the kernel takes, and then the whole buffer.
    let mut sent = 0;
    while sent < 6 << 20 {
        server.send.reserve_capacity(1 << 16);
        let room = within("room for the stalled dial", std::future::poll_fn(|cx| server.send.poll_capacity(cx))).await;
        let bytes = room.unwrap().unwrap().min(30_000);
        server.say(&Packet::data(stalled, vec![1; bytes].into()));
        sent += bytes;
    }
    server.say(&Packet::data(other, Bytes::from_static(b"through")));
    let mut through = [0; 7];
    within("bytes for the other target", other_target.read_exact(&mut through)).await.unwrap();
    assert_eq!(&through, b"through");
}

#[tokio::test]
async fn a_server_that_provokes_answers_and_reads_none_is_not_read_for_ever() {
    let port = Port::new().await;
    let (agent, mut server) = port.served().await;
    let mut asked = 0;
    loop {
        server.send.reserve_capacity(64);
        if server.send.capacity() < 64 {
            let room = std::future::poll_fn(|cx| server.send.poll_capacity(cx));
            if timeout(Duration::from_secs(1), room).await.is_err() {
                break;
            }
        }
        server.say(&Packet::close_request(1_000_000 + asked));
        asked += 1;
        // What HTTP/2 holds at both ends, in packets of thirty bytes and more, and a thousand answers.
        assert!(asked < 200_000, "the answers to {asked} packets must be somewhere");
    }
    assert!(asked > 10_000, "{asked}");
    // Once it reads, everything goes on.
    for number in 0..asked {
        assert_eq!(server.packet().await, Packet::close_response(1_000_000 + number, "Unknown connectID"));
    }
    server.is_heard().await;
    assert_eq!(agent.connection.open_dials(), 0);
}
