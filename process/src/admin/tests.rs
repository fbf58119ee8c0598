use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinHandle,
};

use super::*;

fn routes(request: &Request) -> Answer {
    match request.uri().path() {
        "/healthz" => text(StatusCode::OK, "ok").into(),
        "/echo" => text(StatusCode::OK, format!("{} {:?}", request.method(), request.uri().query())).into(),
        "/later" => Answer::Later(Box::pin(async {
            tokio::task::yield_now().await;
            text(StatusCode::OK, "later")
        })),
        "/never" => Answer::Later(Box::pin(async {
            let _kept = NEVER.clone();
            std::future::pending().await
        })),
        "/moved" => redirect(request, "//a/?b=\"c\"&d=<e>").into(),
        _ => not_found().into(),
    }
}

/// Cloned as long as `/never` is being answered.
static NEVER: std::sync::LazyLock<Arc<()>> = std::sync::LazyLock::new(Arc::default);

struct Server {
    address: SocketAddr,
    shutdown: CancellationToken,
    task: JoinHandle<io::Result<()>>,
}

fn start() -> Server {
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let task = TaskTracker::new().spawn(serve(vec![listener], routes, shutdown.clone()));
    Server { address, shutdown, task }
}

/// Sends all of a request and reads until the server ends the connection.
async fn exchange(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    reply
}

/// Reads one reply whose body is `ok`.
async fn read_ok(stream: &mut TcpStream) {
    let mut reply = Vec::new();
    while !reply.ends_with(b"\r\n\r\nok") {
        assert_ne!(stream.read_buf(&mut reply).await.unwrap(), 0, "{}", String::from_utf8_lossy(&reply));
    }
}

#[tokio::test]
async fn replies_to_any_method_and_knows_its_paths() {
    let server = start();
    let reply = exchange(server.address, "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(reply.starts_with("HTTP/1.1 200 OK\r\n"), "{reply}");
    assert!(reply.contains("\r\nContent-Type: text/plain; charset=utf-8\r\n"), "{reply}");
    assert!(reply.ends_with("\r\n\r\nok"), "{reply}");
    let reply = exchange(server.address, "POST /echo?verbose HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc").await;
    assert!(reply.ends_with("POST Some(\"verbose\")"), "{reply}");
    let reply = exchange(server.address, "GET /other HTTP/1.0\r\n\r\n").await;
    assert!(reply.starts_with("HTTP/1.0 404 Not Found\r\n") && reply.ends_with("404 page not found\n"), "{reply}");
    assert!(reply.contains("\r\nX-Content-Type-Options: nosniff\r\n"), "{reply}");
}

#[tokio::test]
async fn an_answer_may_take_its_time_and_ends_with_its_client() {
    let server = start();
    let reply = exchange(server.address, "GET /later HTTP/1.0\r\n\r\n").await;
    assert!(reply.starts_with("HTTP/1.0 200 OK\r\n") && reply.ends_with("\r\n\r\nlater"), "{reply}");

    let mut client = TcpStream::connect(server.address).await.unwrap();
    client.write_all(b"GET /never HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    while Arc::strong_count(&NEVER) == 1 {
        tokio::task::yield_now().await;
    }
    // Others are served meanwhile.
    let reply = exchange(server.address, "GET /healthz HTTP/1.0\r\n\r\n").await;
    assert!(reply.ends_with("\r\n\r\nok"), "{reply}");
    drop(client);
    while Arc::strong_count(&NEVER) > 1 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_redirect_is_as_in_go_and_cannot_be_mistaken_for_a_page_of_its_own() {
    let server = start();
    let reply = exchange(server.address, "GET /moved HTTP/1.0\r\n\r\n").await;
    assert!(reply.starts_with("HTTP/1.0 301 Moved Permanently\r\n"), "{reply}");
    assert!(reply.contains("\r\nContent-Type: text/html; charset=utf-8\r\n"), "{reply}");
    assert!(reply.contains("\r\nLocation: //a/?b=\"c\"&d=<e>\r\n"), "{reply}");
    let page = "<a href=\"//a/?b=&#34;c&#34;&amp;d=&lt;e&gt;\">Moved Permanently</a>.\n\n";
    assert!(reply.ends_with(page), "{reply}");
    let reply = exchange(server.address, "POST /moved HTTP/1.0\r\n\r\n").await;
    assert!(reply.contains("\r\nLocation: ") && reply.ends_with("\r\n\r\n"), "{reply}");
    let reply = exchange(server.address, "HEAD /moved HTTP/1.0\r\n\r\n").await;
    assert!(reply.contains("\r\nLocation: ") && reply.ends_with("\r\n\r\n"), "{reply}");
}

#[test]
fn a_key_of_a_query_counts_with_any_value() {
    for query in ["verbose", "a=b&verbose", "verbose=", "verbose=0"] {
        assert!(has_key(Some(query), "verbose"), "{query}");
    }
    for query in [None, Some(""), Some("verbosely"), Some("a=verbose"), Some("xverbose")] {
        assert!(!has_key(query, "verbose"), "{query:?}");
    }
}

#[tokio::test]
async fn garbage_ends_only_its_connection() {
    let server = start();
    let reply = exchange(server.address, "\0\u{1}garbage\r\n\r\n").await;
    assert!(reply.starts_with("HTTP/1.1 400 "), "{reply}");
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    for _ in 0..2 {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        read_ok(&mut stream).await;
    }
}

#[tokio::test]
async fn shutdown_ends_idle_and_half_sent_requests_and_the_port() {
    let server = start();
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    read_ok(&mut idle).await;
    let mut half = TcpStream::connect(server.address).await.unwrap();
    half.write_all(b"GET /hea").await.unwrap();

    server.shutdown.cancel();
    server.task.await.unwrap().unwrap();
    assert_eq!(idle.read(&mut [0]).await.unwrap(), 0);
    // The kernel may say reset, because bytes of the request were not read.
    assert!(matches!(half.read(&mut [0]).await, Ok(0) | Err(_)));
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn dropping_the_future_ends_its_tasks() {
    let server = start();
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    read_ok(&mut idle).await;
    server.task.abort();
    assert_eq!(idle.read(&mut [0]).await.unwrap(), 0);
}

/// What is logged, as text.
#[derive(Clone, Default)]
struct Log(Arc<std::sync::Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Set in the process that the next test starts: a limit of file descriptors is for all threads of a process.
const CHILD: &str = "ADMIN_TEST_CHILD";

#[tokio::test]
async fn child_without_file_descriptors() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let server = start();
    // These connect without the server's doing: its task has not run yet.
    let mut clients = Vec::new();
    while let Ok(client) = std::net::TcpStream::connect(server.address) {
        clients.push(client);
    }
    while !String::from_utf8_lossy(&log.0.lock().unwrap()).contains("cannot accept connections") {
        tokio::task::yield_now().await;
    }
    drop(clients);
    let reply = exchange(server.address, "GET /healthz HTTP/1.0\r\n\r\n").await;
    assert!(reply.ends_with("\r\n\r\nok"), "{reply}");
}

#[test]
fn accepting_goes_on_after_the_limit_of_file_descriptors() {
    let child = "admin::tests::child_without_file_descriptors";
    let run = format!("ulimit -n 32 && exec \"$0\" {child} --exact");
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &run]).arg(std::env::current_exe().unwrap()).env(CHILD, "1");
    let output = String::from_utf8(command.output().unwrap().stdout).unwrap();
    assert!(output.contains("1 passed"), "{output}");
}
