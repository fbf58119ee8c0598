//! A client of a frontend that sees every byte.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::certificates::Folder;
use crate::load::path::{Dial, DialError, Path};
use crate::peer::Frontend;

/// A dial that has no answer by then counts as [`DialError::TimedOut`].
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// A frontend and what it takes to be let in.
#[derive(Clone)]
pub struct Client(Way);

#[derive(Clone)]
enum Way {
    Unix(PathBuf),
    MutualTls(SocketAddr, TlsConnector),
}

impl Client {
    /// A client of `frontend` with the client certificate of `certificates`.
    ///
    /// # Errors
    /// When the certificate cannot be used.
    pub fn of(frontend: &Frontend, certificates: &Folder) -> anyhow::Result<Self> {
        Ok(Self(match Path::through(frontend, certificates)? {
            Path::Unix(path) => Way::Unix(path),
            Path::MutualTls(address, connector) => Way::MutualTls(address, connector),
            _ => anyhow::bail!("a frontend by HTTP CONNECT is nothing else"),
        }))
    }

    /// Connects to the frontend, TLS included, and says nothing yet.
    ///
    /// # Errors
    /// When the frontend does not accept.
    pub async fn connect(&self) -> io::Result<Dial> {
        match &self.0 {
            Way::Unix(path) => Ok(Dial::Unix(UnixStream::connect(path).await?)),
            Way::MutualTls(address, connector) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                let stream = connector.connect(ServerName::from(address.ip()), stream).await?;
                Ok(Dial::Tls(Box::new(stream)))
            }
        }
    }

    /// Connects and asks for a target, without reading the answer.
    ///
    /// # Errors
    /// When the frontend does not accept.
    pub async fn ask(&self, target: &str) -> io::Result<Dial> {
        let mut dial = self.connect().await?;
        dial.write_all(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").as_bytes()).await?;
        dial.flush().await?;
        Ok(dial)
    }

    /// Dials a target. Bytes of the target that come right behind the answer are left unread.
    ///
    /// # Errors
    /// [`DialError::Refused`] has the whole reply, to its end.
    pub async fn dial(&self, target: &str) -> Result<Dial, DialError> {
        let answered = async {
            let mut dial = self.ask(target).await?;
            let head = reply_head(&mut dial).await?;
            if head.starts_with("HTTP/1.1 200 ") {
                return Ok(dial);
            }
            let mut reply = head.into_bytes();
            // What came before an abrupt end is still the reply.
            let _ = dial.read_to_end(&mut reply).await;
            Err(DialError::Refused(String::from_utf8_lossy(&reply).into_owned()))
        };
        timeout(ANSWER_WITHIN, answered).await.unwrap_or(Err(DialError::TimedOut))
    }
}

/// Reads the head of a reply, up to and with the empty line, and not a byte more.
///
/// # Errors
/// When the frontend closes before that.
pub async fn reply_head(dial: &mut Dial) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(dial.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}
