//! Connections to a server that the tests play: TLS on loopback, HTTP/2, and packets in hand.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::net::Ipv4Addr;

use bytes::Bytes;
use http::{HeaderMap, Response};
use konnectivity_transport::{
    mux::{Role, SlowDial},
    packet::{
        PacketType, Payload,
        message::{Decoder, Event, encode},
    },
    tls,
};
use rcgen::generate_simple_self_signed;
use rustls::{RootCertStore, ServerConfig, pki_types::PrivateKeyDer};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::task::TaskTracker;

use super::*;
use crate::metrics::Metrics;

mod connecting;
mod dialling;
mod living;

/// Nothing here takes longer, unless it is broken.
const LIMIT: Duration = Duration::from_secs(20);

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(LIMIT, future).await.unwrap_or_else(|_| panic!("not within {LIMIT:?}: {what}"))
}

/// A server's port, and what an agent needs to be let in.
struct Port {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    connector: GrpcConnector,
}

impl Port {
    async fn new() -> Self {
        Self::with(&[b"h2"]).await
    }

    /// A server that offers these protocols.
    async fn with(alpn: &[&[u8]]) -> Self {
        let made = generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let mut config = ServerConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let connector = GrpcConnector {
            tls: Current::new(tls::client_config(Arc::new(roots), None, &[b"h2"]).unwrap()),
            host: "localhost".to_owned(),
            port: listener.local_addr().unwrap().port(),
            proxy: None,
            agent_id: AgentId::new("agent 1".to_owned()).unwrap(),
            identifiers: "host=node&ipv4=10.0.0.7".to_owned(),
            token: None,
            keep_alive: Duration::from_secs(3600),
            mux: MuxSettings {
                role: Role::Agent,
                dial_buffer: 1 << 20,
                slow_dial: SlowDial::Close,
                close_pause: Duration::ZERO,
            },
            budget: MemoryBudget::new(1 << 30),
            next_connect_id: Arc::default(),
        };
        Self { listener, acceptor: TlsAcceptor::from(Arc::new(config)), connector }
    }

    fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// Connects to it.
    async fn connect(&self) -> Result<GrpcConnection, GrpcConnectError> {
        GrpcConnection::connect(&self.connector, self.address()).await
    }

    /// The next agent's TLS.
    async fn tls(&self) -> TlsStream<TcpStream> {
        let (stream, _) = self.listener.accept().await.unwrap();
        self.acceptor.accept(stream).await.unwrap()
    }

    /// The next agent's call.
    async fn call(&self) -> Call {
        let io = self.tls().await;
        let mut connection = h2::server::Builder::new()
            .initial_window_size(1 << 20)
            .initial_connection_window_size(1 << 20)
            .data_frame_budget(usize::MAX >> 1)
            .handshake(io)
            .await
            .unwrap();
        let (request, respond) = connection.accept().await.unwrap().unwrap();
        Call { connection, request, respond }
    }

    /// An agent that is served, and its server.
    async fn served(&self) -> (Agent, Server) {
        let (connection, server) = tokio::join!(self.connect(), async { self.call().await.welcome("server-1", "2") });
        (Agent::serve(connection.unwrap()), server)
    }
}

/// A call that waits for its answer.
struct Call {
    connection: h2::server::Connection<TlsStream<TcpStream>, Bytes>,
    request: http::Request<h2::RecvStream>,
    respond: h2::server::SendResponse<Bytes>,
}

impl Call {
    /// Answers with headers and the end of the stream, and carries on until the agent has gone.
    async fn refuse(mut self, status: u16, headers: HeaderMap) {
        let mut response = Response::builder().status(status).body(()).unwrap();
        *response.headers_mut() = headers;
        self.respond.send_response(response, true).unwrap();
        while self.connection.accept().await.is_some() {}
    }

    /// Answers as a proxy-server.
    fn welcome(mut self, server_id: &str, server_count: &str) -> Server {
        let response = Response::builder()
            .header("content-type", "application/grpc")
            .header("serverid", server_id)
            .header("servercount", server_count)
            .body(())
            .unwrap();
        let send = self.respond.send_response(response, false).unwrap();
        let (control, controls) = tokio::sync::mpsc::channel(1);
        let driver = tokio::spawn(drive(self.connection, controls));
        let receive = self.request.into_body();
        Server { send, receive, decoder: Decoder::default(), control, driver }
    }
}

/// What a test has the driver of a connection do.
enum Control {
    /// Says GOAWAY and lets the stream live.
    GoAway,
    /// Reads and writes no more.
    Stop,
}

async fn drive(
    mut connection: h2::server::Connection<TlsStream<TcpStream>, Bytes>,
    mut controls: tokio::sync::mpsc::Receiver<Control>,
) {
    loop {
        tokio::select! {
            Some(control) = controls.recv() => match control {
                Control::GoAway => connection.graceful_shutdown(),
                Control::Stop => std::future::pending().await,
            },
            accepted = connection.accept() => if !matches!(accepted, Some(Ok(_))) { return },
        }
    }
}

/// A server in the hand of a test.
struct Server {
    send: h2::SendStream<Bytes>,
    receive: h2::RecvStream,
    decoder: Decoder,
    control: tokio::sync::mpsc::Sender<Control>,
    driver: JoinHandle<()>,
}

impl Server {
    fn say(&mut self, packet: &Packet) {
        self.say_bytes(encode(packet));
    }

    fn say_bytes(&mut self, bytes: impl Into<Bytes>) {
        self.send.send_data(bytes.into(), false).unwrap();
    }

    /// The next event; `None` at the end of the stream.
    async fn event(&mut self) -> Result<Option<Event>, h2::Error> {
        loop {
            if let Some(event) = self.decoder.next().unwrap() {
                return Ok(Some(event));
            }
            let Some(bytes) = within("bytes of the agent", self.receive.data()).await else { return Ok(None) };
            let bytes = bytes?;
            self.receive.flow_control().release_capacity(bytes.len()).unwrap();
            self.decoder.push(bytes);
        }
    }

    /// The next packet that is no DATA.
    async fn packet(&mut self) -> Packet {
        match self.event().await.unwrap() {
            Some(Event::Packet(packet)) => packet,
            other => panic!("{other:?}"),
        }
    }

    /// So many bytes of a connection.
    async fn data(&mut self, connect_id: i64, bytes: usize) -> Vec<u8> {
        let mut came = Vec::new();
        while came.len() < bytes {
            match self.event().await.unwrap() {
                Some(Event::Data { connect_id: id, bytes, .. }) if id == connect_id => came.extend_from_slice(&bytes),
                other => panic!("{other:?} after {came:?}"),
            }
        }
        came
    }

    /// Asks for a target; the conn id.
    async fn dial(&mut self, target: &str, random: i64) -> i64 {
        self.say(&Packet::dial_request(target, random));
        match self.packet().await.payload {
            Some(Payload::DialResponse(answer)) => {
                assert_eq!((answer.error.as_str(), answer.random), ("", random));
                answer.connect_id
            }
            other => panic!("{other:?}"),
        }
    }

    /// Waits until everything that was said so far was looked at: an unknown connection is answered in order.
    async fn is_heard(&mut self) {
        const NOBODY: i64 = i64::MAX;
        self.say(&Packet::close_request(NOBODY));
        assert_eq!(self.packet().await, Packet::close_response(NOBODY, "Unknown connectID"));
    }

    fn end(&mut self, status: &'static str, message: &'static str) {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", http::HeaderValue::from_static(status));
        trailers.insert("grpc-message", http::HeaderValue::from_static(message));
        self.send.send_trailers(trailers).unwrap();
    }
}

/// An agent's end that is served.
struct Agent {
    connection: Arc<GrpcConnection>,
    metrics: Arc<Metrics>,
    dials: Dials,
    serving: JoinSet<GrpcLost>,
}

impl Agent {
    fn serve(connection: GrpcConnection) -> Self {
        let connection = Arc::new(connection);
        let metrics = Arc::new(Metrics::new());
        let dials = Dials {
            server: connection.server_id().as_str().into(),
            limit: Duration::from_secs(5),
            socket_bytes: None,
            metrics: metrics.clone(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        let mut serving = JoinSet::new();
        serving.spawn({
            let (connection, dials) = (connection.clone(), dials.clone());
            async move { connection.serve(dials).await }
        });
        Self { connection, metrics, dials, serving }
    }

    async fn lost(&mut self) -> GrpcLost {
        within("the end", self.serving.join_next()).await.unwrap().unwrap()
    }

    async fn has_dials(&self, count: usize) {
        within(&format!("{count} dials"), async {
            while self.connection.open_dials() != count {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }

    /// A sample of the agent's metrics; empty if there is none.
    fn metric(&self, name: &str) -> String {
        let text = self.metrics.render(0, 0, &Default::default()).unwrap();
        let name = format!("konnectivity_network_proxy_agent_{name}");
        let value = text.lines().find_map(|line| line.strip_prefix(&name)?.strip_prefix(' '));
        value.unwrap_or_default().to_owned()
    }
}

/// A target of the test.
async fn target() -> (TcpListener, String) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}
