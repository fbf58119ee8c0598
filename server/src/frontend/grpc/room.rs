//! Room at the client: what HTTP/2's windows let a stream send now, and the end of a stream that has to wait for it.

use std::{
    future::poll_fn,
    io,
    task::{Context, Poll, Waker, ready},
};

use h2::SendStream;
use http::HeaderMap;
use konnectivity_transport::packet::frame::PacketBuf;

/// Waits until `bytes` bytes or fewer, but at least one, may be sent behind what is queued, and returns how many.
///
/// # Errors
/// When the stream is over.
pub fn poll_room(stream: &mut SendStream<PacketBuf>, cx: &mut Context<'_>, bytes: usize) -> Poll<io::Result<usize>> {
    loop {
        // Whatever was left of an earlier request would cut this packet.
        if stream.capacity() < bytes {
            stream.reserve_capacity(bytes);
        }
        let room = stream.capacity();
        if room > 0 {
            return Poll::Ready(Ok(room.min(bytes)));
        }
        match ready!(stream.poll_capacity(cx)) {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Poll::Ready(Err(broken(error))),
            None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }
}

/// Ends a stream behind what is queued. A future that is returned does so later and is to be run: there is no room yet.
///
/// A stream that is let go of while its client may still send is reset by HTTP/2's library, after what is queued. If
/// there is no room for that and the client leaves, the library counts the stream for as long as the connection lives:
/// it takes the place of another one, and a drain waits for it. So it is kept until all before the end has room.
///
/// # Cancel safety
/// A future that is dropped has reset the stream.
pub fn end(mut stream: SendStream<PacketBuf>, trailers: HeaderMap) -> Option<impl Future<Output = ()> + Send> {
    let room = poll_room(&mut stream, &mut Context::from_waker(Waker::noop()), 1);
    if room.is_ready() {
        // A client that has left cannot be told.
        let _ = stream.send_trailers(trailers);
        return None;
    }
    Some(async move {
        if poll_fn(|cx| poll_room(&mut stream, cx, 1)).await.is_ok() {
            let _ = stream.send_trailers(trailers);
        }
    })
}

/// An error of a stream, as the relay takes it.
pub fn broken(error: h2::Error) -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, error)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use h2::{Reason, RecvStream, client, server};
    use http::{Request, Response};
    use tokio::{
        io::{DuplexStream, duplex},
        task::JoinSet,
        time::timeout,
    };

    use super::*;

    /// More than HTTP/2's first window.
    const QUEUED: usize = 100_000;
    const WINDOW: usize = 65_535;
    const LIMIT: Duration = Duration::from_secs(10);

    /// A stream that was ended while its client had room for a part only, of which that client has read all.
    struct Stalled {
        server: server::Connection<DuplexStream, PacketBuf>,
        request: SendStream<Bytes>,
        answer: RecvStream,
        // The client's connection, and the end.
        tasks: JoinSet<()>,
    }

    impl Stalled {
        async fn new() -> Self {
            let (near, far) = duplex(1 << 20);
            let (client, server) = tokio::join!(client::handshake(near), server::Builder::new().handshake(far));
            let ((mut client, connection), mut server) = (client.unwrap(), server.unwrap());
            let mut tasks = JoinSet::new();
            tasks.spawn(async move { drop(connection.await) });
            let (answer, request) = client.send_request(Request::new(()), false).unwrap();
            let (_, mut respond) = server.accept().await.unwrap().unwrap();
            let mut stream = respond.send_response(Response::new(()), false).unwrap();
            let mut packet = PacketBuf::data(1, QUEUED);
            packet.push(vec![0; QUEUED].into());
            stream.send_data(packet, false).unwrap();
            drop(respond);
            tasks.spawn(end(stream, HeaderMap::new()).unwrap());
            let read_window = async {
                let mut answer = answer.await.unwrap().into_body();
                let mut read = 0;
                while read < WINDOW {
                    read += answer.data().await.unwrap().unwrap().len();
                }
                answer
            };
            let answer = tokio::select! {
                answer = timeout(LIMIT, read_window) => answer.unwrap(),
                _ = server.accept() => panic!("the connection ended"),
            };
            Self { server, request, answer, tasks }
        }
    }

    #[tokio::test]
    async fn a_client_that_leaves_a_stream_without_room_is_forgotten() {
        let Stalled { mut server, mut request, tasks: _tasks, .. } = Stalled::new().await;
        assert!(server.has_streams());
        request.send_reset(Reason::CANCEL);
        let forgotten = poll_fn(|cx| match server.poll_accept(cx) {
            Poll::Ready(_) => panic!("the connection ended"),
            Poll::Pending if server.has_streams() => Poll::Pending,
            Poll::Pending => Poll::Ready(()),
        });
        timeout(LIMIT, forgotten).await.expect("the stream is counted still");
    }

    #[tokio::test]
    async fn the_end_comes_behind_what_waits_for_room() {
        let Stalled { mut server, request: _request, mut answer, tasks: _tasks } = Stalled::new().await;
        let read_rest = async {
            answer.flow_control().release_capacity(WINDOW).unwrap();
            let mut read = WINDOW;
            while let Some(bytes) = answer.data().await {
                let bytes = bytes.unwrap().len();
                answer.flow_control().release_capacity(bytes).unwrap();
                read += bytes;
            }
            (read, answer.trailers().await.unwrap())
        };
        let (read, trailers) = tokio::select! {
            rest = timeout(LIMIT, read_rest) => rest.unwrap(),
            _ = server.accept() => panic!("the connection ended"),
        };
        assert!(read > QUEUED, "{read}");
        assert!(trailers.is_some());
    }
}
