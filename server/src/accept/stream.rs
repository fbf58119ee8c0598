//! The byte stream of one client, or of an agent over TCP, whatever it came over.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use konnectivity_transport::socket::Socket;
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use self::tls_socket::TlsSocket;
use crate::http2;

mod tls_socket;

/// A client's connection: TCP, a Unix socket, or TLS over TCP.
///
/// Shutting down the write side of TLS sends close_notify and FIN and leaves the other direction open. Dropping a TLS
/// stream sends no close_notify, which the client sees as a truncation. A client whose FIN comes without close_notify
/// is reported as [`io::ErrorKind::UnexpectedEof`].
///
/// Over TLS, what was written may wait in the session until [`AsyncWrite::poll_flush`].
#[derive(Debug)]
pub struct PeerStream(Kind);

#[derive(Debug)]
enum Kind {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// Boxed: a TLS session has above a kilobyte.
    Tls(Box<TlsStream<TlsSocket>>),
}

impl From<TcpStream> for PeerStream {
    fn from(stream: TcpStream) -> Self {
        Self(Kind::Tcp(stream))
    }
}

impl From<UnixStream> for PeerStream {
    fn from(stream: UnixStream) -> Self {
        Self(Kind::Unix(stream))
    }
}

impl PeerStream {
    /// Carries out the TLS handshake as the server. There is no time limit.
    ///
    /// # Errors
    /// What went wrong, and the socket. An alert that tells the client has been written to it if there is one.
    ///
    /// # Cancel safety
    /// Cancelling closes the socket.
    pub async fn accept_tls(stream: TcpStream, settings: Arc<ServerConfig>) -> Result<Self, (io::Error, TcpStream)> {
        let handshake = TlsAcceptor::from(settings).accept(TlsSocket::new(stream));
        match handshake.into_fallible().await {
            Ok(stream) => Ok(Self(Kind::Tls(Box::new(stream)))),
            Err((error, socket)) => {
                let stream = socket.into_stream();
                Err((error, stream.expect("nothing takes it out in a handshake")))
            }
        }
    }

    /// The application protocol that the TLS handshake agreed on; `None` for a client that named none, or without TLS.
    pub fn protocol(&self) -> Option<&[u8]> {
        match &self.0 {
            Kind::Tls(stream) => stream.get_ref().1.alpn_protocol(),
            Kind::Tcp(_) | Kind::Unix(_) => None,
        }
    }

    /// The peer's own certificate in DER, which TLS has found good; `None`: it has shown none.
    pub fn peer_certificate(&self) -> Option<Vec<u8>> {
        match &self.0 {
            Kind::Tls(stream) => {
                stream.get_ref().1.peer_certificates()?.first().map(|certificate| certificate.to_vec())
            }
            Kind::Tcp(_) | Kind::Unix(_) => None,
        }
    }

    /// The address at the other end.
    ///
    /// # Errors
    /// When the client is gone, and for a Unix socket, which has none.
    pub fn peer(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            Kind::Tcp(stream) => stream.peer_addr(),
            Kind::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
            Kind::Tls(stream) => stream.get_ref().0.stream()?.peer_addr(),
        }
    }

    /// Whether the client came over a Unix socket, where a read may merge what was written apart.
    pub fn is_unix(&self) -> bool {
        matches!(self.0, Kind::Unix(_))
    }

    /// Takes the stream off the runtime it is on, so that another one can have it. Bytes that TLS has decrypted or
    /// not yet sent stay with it.
    ///
    /// # Errors
    /// When the runtime doesn't let the socket go. The client is disconnected then.
    pub fn detach(self) -> io::Result<DetachedPeer> {
        Ok(DetachedPeer(match self.0 {
            Kind::Tcp(stream) => Detached::Tcp(stream.into_std()?),
            Kind::Unix(stream) => Detached::Unix(stream.into_std()?),
            Kind::Tls(mut session) => {
                let stream = session.get_mut().0.take()?.into_std()?;
                Detached::Tls(session, stream)
            }
        }))
    }
}

/// A client's connection on its way from one runtime to another.
#[derive(Debug)]
pub struct DetachedPeer(Detached);

#[derive(Debug)]
enum Detached {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
    Tls(Box<TlsStream<TlsSocket>>, std::net::TcpStream),
}

impl DetachedPeer {
    /// Puts the stream on the runtime of the calling task.
    ///
    /// # Errors
    /// When the runtime doesn't take the socket. The client is disconnected then.
    ///
    /// # Panics
    /// Outside of a runtime, as tokio's sockets do.
    pub fn attach(self) -> io::Result<PeerStream> {
        Ok(PeerStream(match self.0 {
            Detached::Tcp(stream) => Kind::Tcp(TcpStream::from_std(stream)?),
            Detached::Unix(stream) => Kind::Unix(UnixStream::from_std(stream)?),
            Detached::Tls(mut session, stream) => {
                session.get_mut().0.put(TcpStream::from_std(stream)?);
                Kind::Tls(session)
            }
        }))
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Kind::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Kind::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
            Kind::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().0 {
            Kind::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Kind::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Kind::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().0 {
            Kind::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Kind::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Kind::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.0 {
            Kind::Tcp(stream) => stream.is_write_vectored(),
            Kind::Unix(stream) => stream.is_write_vectored(),
            Kind::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Kind::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Kind::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Kind::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Kind::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Kind::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Kind::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl Socket for PeerStream {
    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Kind::Tcp(stream) => Socket::poll_read_ready(stream, cx),
            Kind::Unix(stream) => Socket::poll_read_ready(stream, cx),
            Kind::Tls(stream) => {
                let socket = stream.get_mut().0;
                if !socket.is_drained() {
                    return Poll::Ready(Ok(()));
                }
                Socket::poll_read_ready(socket.stream_mut()?, cx)
            }
        }
    }

    fn is_aborted(&mut self) -> bool {
        match &mut self.0 {
            Kind::Tcp(stream) => stream.is_aborted(),
            Kind::Unix(stream) => stream.is_aborted(),
            Kind::Tls(stream) => stream.get_mut().0.stream_mut().is_ok_and(Socket::is_aborted),
        }
    }

    fn is_closed(&self) -> bool {
        match &self.0 {
            Kind::Tcp(stream) => stream.is_closed(),
            Kind::Unix(stream) => stream.is_closed(),
            Kind::Tls(stream) => stream.get_ref().0.stream().is_ok_and(Socket::is_closed),
        }
    }

    fn reset_on_close(&self) {
        match &self.0 {
            Kind::Tcp(stream) => stream.reset_on_close(),
            Kind::Unix(stream) => stream.reset_on_close(),
            Kind::Tls(stream) => {
                if let Ok(stream) = stream.get_ref().0.stream() {
                    stream.reset_on_close();
                }
            }
        }
    }

    fn can_reset(&self) -> bool {
        match &self.0 {
            Kind::Tcp(stream) => stream.can_reset(),
            Kind::Unix(stream) => stream.can_reset(),
            Kind::Tls(stream) => stream.get_ref().0.stream().is_ok_and(Socket::can_reset),
        }
    }

    fn unsent_bytes(&self) -> io::Result<usize> {
        match &self.0 {
            Kind::Tcp(stream) => stream.unsent_bytes(),
            Kind::Unix(stream) => stream.unsent_bytes(),
            Kind::Tls(stream) => {
                let (socket, session) = stream.get_ref();
                // The session doesn't tell how much it holds; "some" is enough for whoever waits for zero.
                let in_session = usize::from(session.wants_write());
                Ok(socket.stream()?.unsent_bytes()? + in_session)
            }
        }
    }
}

impl http2::connection::Socket for PeerStream {
    fn poll_read_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Socket::poll_read_ready(self, cx)
    }
}

#[cfg(test)]
mod tests;
