//! The call that makes an agent known, and its answer (compat 1.3 to 1.5).

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri, header, uri};
use konnectivity_process::version;
use konnectivity_transport::id::ServerId;

use super::{GrpcConnectError, GrpcConnector, status::Status};
use crate::token::Token;

/// The one method of the reference's service for agents.
const PATH: &str = "/AgentService/Connect";

/// What a server says of itself.
#[derive(Debug, PartialEq)]
pub(super) struct Answer {
    pub(super) server_id: ServerId,
    pub(super) server_count: u32,
}

/// The call, with what compat 1.3 and 1.5 list.
pub(super) fn request(connector: &GrpcConnector, token: Option<&Token>) -> Result<Request<()>, GrpcConnectError> {
    let header = |setting, value: &str| HeaderValue::from_str(value).map_err(|_| GrpcConnectError::Header { setting });
    // Go names the port unless the name is one that the agent shows a certificate to.
    let shows_certificate = connector.tls.get().client_auth_cert_resolver.has_certs();
    let authority = authority(&connector.host, (!shows_certificate).then_some(connector.port));
    let uri = Uri::builder().scheme(uri::Scheme::HTTPS).authority(authority).path_and_query(PATH).build();
    let uri = uri.map_err(|_| GrpcConnectError::Header { setting: "--proxy-server-host" })?;
    let mut request = Request::new(());
    *request.method_mut() = http::Method::POST;
    *request.version_mut() = http::Version::HTTP_2;
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(header::USER_AGENT, header("the version", &user_agent())?);
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    headers.insert("agentid", header("--agent-id", connector.agent_id.as_str())?);
    headers.insert("agentidentifiers", header("--agent-identifiers", &connector.identifiers)?);
    if let Some(token) = token {
        let mut bearer = header("the token", &format!("Bearer {}", token.expose()))?;
        // No table of HTTP/2 is to remember it.
        bearer.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, bearer);
    }
    Ok(request)
}

/// What the agent calls itself.
pub(super) fn user_agent() -> String {
    format!("konnectivity-quic/{}", version::VERSION)
}

/// `host` or `host:port`. An address of IPv6 is put into brackets, which the reference forgets; its zone is nobody
/// else's business.
pub(super) fn authority(host: &str, port: Option<u16>) -> String {
    let address = host.split('%').next().unwrap_or(host);
    let host =
        if address.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()) { format!("[{address}]") } else { host.into() };
    port.map_or_else(|| host.clone(), |port| format!("{host}:{port}"))
}

/// What the head of the answer says.
pub(super) fn answer(status: StatusCode, headers: &HeaderMap, remote: SocketAddr) -> Result<Answer, GrpcConnectError> {
    let bad = |reason: String| GrpcConnectError::Answer { remote, reason };
    // A refusal has nothing but its status, and no other answer has one so early.
    if let Some(status) = Status::of(headers).filter(|status| !status.is_ok()) {
        return Err(GrpcConnectError::Refused { remote, status });
    }
    if status != StatusCode::OK {
        return Err(bad(format!("HTTP status {status}")));
    }
    let content = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !content.starts_with("application/grpc") {
        return Err(bad(format!("its content type is {content:?}")));
    }
    let server_id = one(headers, "serverid").map_err(bad)?;
    let server_id = ServerId::new(server_id).map_err(|source| GrpcConnectError::ServerId { remote, source })?;
    let count = one(headers, "servercount").map_err(bad)?;
    let server_count = count.parse::<i64>().map_err(|_| bad(format!("its server count is {count:?}")))?;
    let server_count = u32::try_from(server_count.max(0)).unwrap_or(u32::MAX);
    Ok(Answer { server_id, server_count })
}

/// The only value of a header.
fn one(headers: &HeaderMap, name: &str) -> Result<String, String> {
    let mut values = headers.get_all(name).iter();
    match (values.next().map(|value| value.to_str()), values.next()) {
        (Some(Ok(value)), None) => Ok(value.to_owned()),
        (Some(Err(_)), None) => Err(format!("its {name} is not printable")),
        (None, _) => Err(format!("it has no {name}")),
        (Some(_), Some(_)) => Err(format!("it has more than one {name}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REMOTE: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8091);

    fn answered(status: u16, rows: &[(&'static str, &'static str)]) -> Result<Answer, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in rows {
            headers.append(*name, HeaderValue::from_static(value));
        }
        answer(StatusCode::from_u16(status).unwrap(), &headers, REMOTE).map_err(|error| error.to_string())
    }

    #[test]
    fn an_answer_has_one_server_id_and_one_count() {
        let grpc = ("content-type", "application/grpc");
        let (id, count) = (("serverid", "server 1"), ("servercount", "3"));
        let good = Answer { server_id: ServerId::new("server 1".to_owned()).unwrap(), server_count: 3 };
        assert_eq!(answered(200, &[grpc, id, count]), Ok(good));
        for (servers, expected) in [("0", 0), ("-4", 0), ("99999999999", u32::MAX)] {
            assert_eq!(answered(200, &[grpc, id, ("servercount", servers)]).unwrap().server_count, expected);
        }
        for (status, rows, error) in [
            (200, &[grpc, count][..], "it has no serverid"),
            (200, &[grpc, id], "it has no servercount"),
            (200, &[grpc, id, id, count], "it has more than one serverid"),
            (200, &[grpc, id, ("servercount", "many")], "its server count is \"many\""),
            (200, &[id, count], "its content type is \"\""),
            (200, &[("content-type", "text/html"), id, count], "its content type is \"text/html\""),
            (503, &[grpc, id, count], "HTTP status 503 Service Unavailable"),
        ] {
            let expected = format!("127.0.0.1:8091 does not answer as a proxy-server: {error}");
            assert_eq!(answered(status, rows), Err(expected));
        }
        assert_eq!(
            answered(200, &[grpc, ("grpc-status", "2"), ("grpc-message", "too many (2) tokens")]),
            Err("the server at 127.0.0.1:8091 did not accept this agent: Unknown: too many (2) tokens".to_owned())
        );
        assert!(answered(200, &[grpc, ("serverid", ""), count]).unwrap_err().contains("an id that cannot be used"));
    }

    #[test]
    fn the_authority_is_the_references_but_for_brackets() {
        for (host, port, expected) in [
            ("server.example", None, "server.example"),
            ("server.example", Some(8091), "server.example:8091"),
            ("10.0.0.1", Some(1), "10.0.0.1:1"),
            ("fd00::1", None, "[fd00::1]"),
            ("fe80::1%eth0", Some(8091), "[fe80::1]:8091"),
        ] {
            assert_eq!(authority(host, port), expected);
        }
    }
}
