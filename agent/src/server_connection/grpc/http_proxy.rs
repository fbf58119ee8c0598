//! The way to a server through an HTTP proxy, by CONNECT (RFC 9110, section 9.3.6), as gRPC's library for Go goes it.

use std::io;

use konnectivity_process::proxy_environment::HttpProxy;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::rpc::user_agent;

/// Bytes of the head of a proxy's answer.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Header fields of a proxy's answer.
const MAX_FIELDS: usize = 64;

/// Why a proxy does not lead to a server.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The connection to the proxy.
    #[error("the connection to it was lost")]
    Io(#[from] io::Error),
    /// It does not answer in HTTP.
    #[error("it does not answer in HTTP")]
    NotHttp,
    /// It refuses.
    #[error("it answers {status}{}", if .reason.is_empty() { String::new() } else { format!(" {}", .reason) })]
    Refused {
        /// The status code.
        status: u16,
        /// The reason phrase.
        reason: String,
    },
    /// Something came before it was asked for: whoever it is, it is not the server.
    #[error("it sends bytes behind its answer, where the server must wait for the agent")]
    Unasked,
}

/// Asks for a tunnel to `target`, a host and port.
///
/// # Cancel safety
/// The connection cannot be used after the future was dropped.
pub(super) async fn open_tunnel(stream: &mut TcpStream, proxy: &HttpProxy, target: &str) -> Result<(), ProxyError> {
    let authorization =
        proxy.authorization.as_ref().map_or_else(String::new, |value| format!("Proxy-Authorization: {value}\r\n"));
    let agent = user_agent();
    let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nUser-Agent: {agent}\r\n{authorization}\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    loop {
        if head.len() >= MAX_HEAD_BYTES {
            return Err(ProxyError::NotHttp);
        }
        let mut chunk = [0; 1024];
        let length = stream.read(&mut chunk).await?;
        if length == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        head.extend_from_slice(&chunk[..length]);
        if let Some(length) = accepted(&head)? {
            return if length == head.len() { Ok(()) } else { Err(ProxyError::Unasked) };
        }
    }
}

/// The length of an answer that opens the tunnel; `None` while it is not complete.
fn accepted(head: &[u8]) -> Result<Option<usize>, ProxyError> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    match response.parse(head) {
        Err(_) => Err(ProxyError::NotHttp),
        Ok(httparse::Status::Partial) => Ok(None),
        Ok(httparse::Status::Complete(length)) => match response.code {
            Some(200) => Ok(Some(length)),
            status => {
                let reason = response.reason.unwrap_or_default().to_owned();
                Err(ProxyError::Refused { status: status.unwrap_or_default(), reason })
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_proxies() {
        let parsed = |head: &str| accepted(head.as_bytes()).map_err(|error| error.to_string());
        assert_eq!(parsed("HTTP/1.1 200 OK\r\n\r\n"), Ok(Some(19)));
        assert_eq!(parsed("HTTP/1.0 200 Connection established\r\nVia: a\r\n\r\nmore"), Ok(Some(47)));
        assert_eq!(parsed("HTTP/1.1 200 OK\r\n"), Ok(None));
        assert_eq!(
            parsed("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"),
            Err("it answers 407 Proxy Authentication Required".to_owned())
        );
        assert_eq!(parsed("SSH-2.0-OpenSSH\r\n"), Err("it does not answer in HTTP".to_owned()));
    }
}
