//! A client of any front, which dials any target.

use std::time::Duration;

use anyhow::bail;
use rustls::pki_types::ServerName;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::certificates::Folder;
use crate::load::grpc;
use crate::load::path::{Dial, DialError, Path};
use crate::pair;
use crate::peer::{Frontend, Mode};

/// A dial that has no answer by then is given up; the reference's agent gives a target 5 s.
pub const ANSWER_WITHIN: Duration = crate::load::DIAL_WITHIN;

/// What an answer to CONNECT starts with.
const HTTP: &[u8] = b"HTTP/1.1 ";

/// A refusal is read for so long, if the server does not end it.
const REFUSAL_WITHIN: Duration = Duration::from_secs(2);

/// A client of one front; each dial has a connection of its own, as kube-apiserver's have.
#[derive(Clone)]
pub struct Client(Way);

#[derive(Clone)]
enum Way {
    Connect(pair::client::Client),
    Grpc(Path),
}

impl Client {
    /// A client of the front with the client certificate of `certificates`.
    ///
    /// # Errors
    /// When the certificate cannot be used.
    pub fn of(mode: Mode, frontend: &Frontend, certificates: &Folder) -> anyhow::Result<Self> {
        Ok(Self(match mode {
            Mode::HttpConnect => Way::Connect(pair::client::Client::of(frontend, certificates)?),
            Mode::Grpc => Way::Grpc(Path::through_grpc(frontend, certificates)?),
        }))
    }

    /// Dials a target. What the target says at once is left to be read.
    ///
    /// # Errors
    /// [`DialError::Refused`] has the whole answer: the reply of HTTP, or the text of the packet.
    ///
    /// # Cancel safety
    /// Dropping the future closes what was opened.
    pub async fn dial(&self, target: &str) -> Result<Dial, DialError> {
        let answered = async {
            match &self.0 {
                Way::Connect(client) => connect(client, target).await,
                Way::Grpc(path) => by_grpc(path, target).await,
            }
        };
        timeout(ANSWER_WITHIN, answered).await.unwrap_or(Err(DialError::TimedOut))
    }
}

async fn by_grpc(path: &Path, target: &str) -> Result<Dial, DialError> {
    match path {
        Path::Grpc(path, call) => {
            let client = grpc::Client::dial(UnixStream::connect(path).await?, call, target).await?;
            Ok(Dial::Grpc(Box::new(client)))
        }
        Path::GrpcTls(address, connector, call) => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let stream = connector.connect(ServerName::from(address.ip()), stream).await?;
            Ok(Dial::GrpcTls(Box::new(grpc::Client::dial(stream, call, target).await?)))
        }
        Path::Direct | Path::Unix(_) | Path::MutualTls(..) | Path::Forwarded(_) => {
            Err(DialError::Refused("no path of gRPC".to_owned()))
        }
    }
}

async fn connect(client: &pair::client::Client, target: &str) -> Result<Dial, DialError> {
    let mut dial = client.ask(target).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(dial.read_u8().await?);
        let start = head.len().min(HTTP.len());
        if head[..start] != HTTP[..start] {
            return Err(DialError::Refused("the target's bytes before any answer to CONNECT".to_owned()));
        }
    }
    if head[HTTP.len()..].starts_with(b"200 ") {
        return Ok(dial);
    }
    // What came before an abrupt end is still the reply.
    let _ = timeout(REFUSAL_WITHIN, dial.read_to_end(&mut head)).await;
    Err(DialError::Refused(String::from_utf8_lossy(&head).into_owned()))
}

/// Checks that a dial was refused, and with what.
///
/// # Errors
/// What came instead.
pub fn refused(result: Result<Dial, DialError>, mode: Mode, status: u16, words: &str) -> anyhow::Result<()> {
    let answer = match result {
        Ok(_) => bail!("expected a refusal with {words:?}, but the dial succeeded"),
        Err(DialError::Refused(answer)) => answer,
        Err(error) => bail!("expected a refusal with {words:?}, but {error}"),
    };
    if !answer.contains(words) {
        bail!("expected a refusal with {words:?}, but it was {answer:?}");
    }
    if mode == Mode::HttpConnect && !answer.starts_with(&format!("HTTP/1.1 {status} ")) {
        bail!("expected status {status}, but the answer was {answer:?}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> Result<Dial, DialError> {
        Err(DialError::Refused(text.to_owned()))
    }

    #[test]
    fn a_refusal_is_looked_at_closely() {
        let reply = "HTTP/1.1 502 Bad Gateway\r\n\r\ndial tcp 127.0.0.1:1: connect: connection refused";
        refused(answer(reply), Mode::HttpConnect, 502, "connection refused").unwrap();
        refused(answer("connect: connection refused"), Mode::Grpc, 502, "connection refused").unwrap();
        let error = refused(answer(reply), Mode::HttpConnect, 504, "connection refused").unwrap_err();
        assert!(error.to_string().starts_with("expected status 504, but the answer was"), "{error}");
        let error = refused(answer(reply), Mode::HttpConnect, 502, "i/o timeout").unwrap_err();
        assert!(error.to_string().starts_with("expected a refusal with \"i/o timeout\", but it was"), "{error}");
        assert!(refused(Err(DialError::TimedOut), Mode::Grpc, 502, "x").is_err());
    }
}
