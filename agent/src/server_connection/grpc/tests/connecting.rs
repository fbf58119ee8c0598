//! From an address to a server that has said who it is, and everything that can be in between.

use http::HeaderValue;
use konnectivity_process::version;
use konnectivity_transport::error::with_sources;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// What is told of a connection that does not come about.
async fn failure(port: &Port, address: SocketAddr) -> String {
    let connected = within("a failure", GrpcConnection::connect(&port.connector, address)).await;
    with_sources(&connected.err().expect("it fails"))
}

#[tokio::test]
async fn the_call_is_one_of_the_references_agent() {
    let port = Port::new().await;
    let (connection, (head, server)) = tokio::join!(port.connect(), async {
        let call = port.call().await;
        let head = call.request.uri().clone();
        let headers = call.request.headers().clone();
        ((call.request.method().clone(), head, headers), call.welcome("server-1", "3"))
    });
    let connection = connection.unwrap();
    let (method, uri, headers) = head;
    assert_eq!(method, "POST");
    assert_eq!(uri.to_string(), format!("https://localhost:{}/AgentService/Connect", port.address().port()));
    let version = format!("konnectivity-quic/{}", version::VERSION);
    for (name, value) in [
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("user-agent", &version),
        ("agentid", "agent 1"),
        ("agentidentifiers", "host=node&ipv4=10.0.0.7"),
    ] {
        assert_eq!(headers.get_all(name).iter().collect::<Vec<_>>(), [value], "{name}");
    }
    assert_eq!(headers.len(), 5, "{headers:?}");
    assert_eq!((connection.server_id().as_str(), connection.server_count()), ("server-1", 3));
    assert_eq!(connection.remote(), port.address());
    assert_eq!(connection.open_dials(), 0);
    drop(server);
}

#[tokio::test]
async fn what_the_server_says_to_a_refusal_is_told() {
    let port = Port::new().await;
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from_static("2"));
    headers.insert("grpc-message", HeaderValue::from_static("lookup failed: no %22token%22"));
    let refuse = async { port.call().await.refuse(200, headers).await };
    let (told, ()) = tokio::join!(failure(&port, port.address()), refuse);
    let address = port.address();
    let expected = format!("the server at {address} did not accept this agent: Unknown: lookup failed: no \"token\"");
    assert_eq!(told, expected);
}

#[tokio::test]
async fn who_is_no_server_is_found_out() {
    let port = Port::new().await;
    let refuse = async { port.call().await.refuse(404, HeaderMap::new()).await };
    let (told, ()) = tokio::join!(failure(&port, port.address()), refuse);
    assert!(told.ends_with("does not answer as a proxy-server: HTTP status 404 Not Found"), "{told}");
    // It ends the stream and the connection without a word.
    let (told, _) = tokio::join!(failure(&port, port.address()), async { drop(port.call().await) });
    assert!(told.contains("was lost before the server's answer"), "{told}");
}

#[tokio::test]
async fn tls_is_checked() {
    let port = Port::new().await;
    let stranger = Port::new().await;
    let accept = async {
        let (stream, _) = stranger.listener.accept().await.unwrap();
        stranger.acceptor.accept(stream).await.err().map(|error| error.to_string())
    };
    let (told, alert) = tokio::join!(failure(&port, stranger.address()), accept);
    assert!(told.contains("TLS handshake with") && told.contains("invalid peer certificate"), "{told}");
    assert!(alert.unwrap().contains("alert"));

    let without = Port::with(&[]).await;
    let (told, _io) = tokio::join!(failure(&without, without.address()), without.tls());
    assert!(told.contains("offers no HTTP/2"), "{told}");

    let mut named = Port::new().await;
    named.connector.host = "not a name".to_owned();
    let told = failure(&named, named.address()).await;
    assert!(told.contains("--proxy-server-host cannot be sent over gRPC"), "{told}");
}

#[tokio::test]
async fn a_port_that_does_not_answer_as_it_should_is_told() {
    let port = Port::new().await;
    let (closed, address) = target().await;
    drop(closed);
    let told = failure(&port, address.parse().unwrap()).await;
    assert_eq!(told, format!("cannot connect to {address} over TCP: Connection refused (os error 111)"));

    let (other, address) = target().await;
    let greet = async {
        let (mut stream, _) = other.accept().await.unwrap();
        stream.write_all(b"220 mail.example ESMTP\r\n").await.unwrap();
        stream
    };
    let (told, _stream) = tokio::join!(failure(&port, address.parse().unwrap()), greet);
    assert!(told.contains("TLS handshake with"), "{told}");
}

/// The reference's agent waits for ever. The clock leaps once nothing but the wait is left.
#[tokio::test]
async fn a_server_that_says_nothing_has_its_time() {
    let port = Port::new().await;
    let silent = async {
        let call = port.call().await;
        tokio::time::pause();
        call
    };
    let connect = GrpcConnection::connect(&port.connector, port.address());
    let (connected, _call) = tokio::join!(connect, silent);
    let told = with_sources(&connected.err().unwrap());
    assert!(told.ends_with("over TCP within 10 s: the answer to AgentService/Connect"), "{told}");
}

#[tokio::test]
async fn a_server_that_accepts_and_says_nothing_has_its_time() {
    let port = Port::new().await;
    let silent = async {
        let accepted = port.listener.accept().await.unwrap();
        tokio::time::pause();
        accepted
    };
    let connect = GrpcConnection::connect(&port.connector, port.address());
    let (connected, _socket) = tokio::join!(connect, silent);
    let told = with_sources(&connected.err().unwrap());
    assert!(told.ends_with("over TCP within 10 s: TCP and TLS"), "{told}");
}

/// An HTTP proxy: reads a request's head, answers, and carries bytes on to the server.
async fn proxy(listener: TcpListener, answer: &str, server: Option<SocketAddr>) -> String {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    stream.write_all(answer.as_bytes()).await.unwrap();
    if let Some(server) = server {
        tokio::spawn(async move {
            let mut onward = TcpStream::connect(server).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut stream, &mut onward).await;
        });
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test]
async fn a_proxy_leads_to_the_server() {
    let mut port = Port::new().await;
    let (listener, address) = target().await;
    port.connector.proxy = Some(HttpProxy::parse(&format!("http://user:pass@{address}")).unwrap());
    let first_hop = port.connector.first_hop();
    assert_eq!(format!("{}:{}", first_hop.0, first_hop.1), address);
    let answer = "HTTP/1.1 200 Connection established\r\nVia: 1.1 proxy\r\n\r\n";
    let proxy = proxy(listener, answer, Some(port.address()));
    let connect = GrpcConnection::connect(&port.connector, address.parse().unwrap());
    let welcome = async { port.call().await.welcome("server-1", "1") };
    let (connection, asked, _server) = tokio::join!(connect, proxy, welcome);
    assert_eq!(connection.unwrap().server_id().as_str(), "server-1");
    let server = format!("localhost:{}", port.address().port());
    let expected = format!(
        "CONNECT {server} HTTP/1.1\r\nHost: {server}\r\nUser-Agent: konnectivity-quic/{}\r\n\
         Proxy-Authorization: Basic dXNlcjpwYXNz\r\n\r\n",
        version::VERSION
    );
    assert_eq!(asked, expected);
}

#[tokio::test]
async fn a_proxy_that_does_not_lead_there_is_told() {
    for (answer, expected) in [
        ("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "it answers 407 Proxy Authentication Required"),
        ("HTTP/1.1 200 OK\r\n\r\nbanner", "it sends bytes behind its answer, where the server must wait for the agent"),
        ("SSH-2.0-x\r\n", "it does not answer in HTTP"),
        ("HTTP/1.1 200 OK\r\n", "the connection to it was lost: unexpected end of file"),
    ] {
        let mut port = Port::new().await;
        let (listener, address) = target().await;
        port.connector.proxy = Some(HttpProxy::parse(&address).unwrap());
        let (told, _) = tokio::join!(failure(&port, address.parse().unwrap()), proxy(listener, answer, None));
        assert_eq!(told, format!("the HTTP proxy at {address} does not lead to the server: {expected}"));
    }
}
