//! What an agent says of itself in the headers of its RPC, and what it is told (compat 1.3).

use konnectivity_transport::{
    id::{AgentId, ServerId},
    identifier::Identifiers,
};

use crate::{
    auth::{Refusal, Token},
    grpc::status::{Code, Status, accepted},
    http2::{answer::Answer, request::Request},
};

const AGENT_ID: &str = "agentid";
const AGENT_IDENTIFIERS: &str = "agentidentifiers";
const SERVER_ID: &str = "serverid";
const SERVER_COUNT: &str = "servercount";

/// Who an agent is and what it reaches. An agent that says nothing of what it reaches is a good one.
///
/// # Errors
/// The end of its RPC, in the reference's words: an error that is no status of gRPC is `Unknown` there.
pub fn read(request: &Request) -> Result<(AgentId, Identifiers), Status> {
    let refused = |message: String| Status::new(Code::Unknown, message);
    let [agent_id] = &values(request, AGENT_ID)[..] else {
        let got = values(request, AGENT_ID).join(" ");
        return Err(refused(format!("expected one agent ID in the context, got [{got}]")));
    };
    let identifiers = match &values(request, AGENT_IDENTIFIERS)[..] {
        [] => Identifiers::default(),
        [query] => {
            Identifiers::parse(query).map_err(|error| refused(format!("fail to parse url encoded string: {error}")))?
        }
        several => {
            let got = several.join(" ");
            return Err(refused(format!("expected at most one set of agent identifiers in the context, got [{got}]")));
        }
    };
    let agent_id =
        AgentId::new(agent_id.as_str()).map_err(|error| refused(format!("the agent id cannot be used: {error}")))?;
    Ok((agent_id, identifiers))
}

/// The token that an agent shows.
///
/// # Errors
/// There is none, or it is not shown as tokens are.
pub fn token(request: &Request) -> Result<Token, Refusal> {
    Token::from_fields(request.all(b"authorization"))
}

fn values(request: &Request, name: &str) -> Vec<String> {
    request.all(name.as_bytes()).map(|value| String::from_utf8_lossy(value).into_owned()).collect()
}

/// Whether the agent is one of this project, which writes what it has before it closes a target.
pub fn writes_all(request: &Request) -> bool {
    request.field(b"user-agent").is_some_and(|agent| agent.starts_with(b"konnectivity-quic/"))
}

/// What an accepted agent is told, before its first packet.
pub fn answer(server_id: &ServerId, server_count: u32) -> Answer {
    accepted().and(SERVER_ID, server_id.as_str()).and(SERVER_COUNT, &server_count.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http2::{
        hpack::{Decoder, Field},
        request::Fields,
    };

    fn headers(fields: &[(&str, &str)]) -> Request {
        let mut all = Fields::default();
        for (name, value) in [(":method", "POST"), (":scheme", "https"), (":path", "/a")].iter().chain(fields) {
            all.put(Field { name: name.as_bytes(), value: value.as_bytes(), never_indexed: false });
        }
        all.into_request().unwrap()
    }

    fn refusal(fields: &[(&str, &str)]) -> String {
        let status = read(&headers(fields)).unwrap_err();
        assert_eq!(status.code, Code::Unknown);
        status.message
    }

    #[test]
    fn an_agent_says_who_it_is_and_what_it_reaches() {
        let fields = [("agentid", "a"), ("agentidentifiers", "host=b&ipv4=10.0.0.1&default-route=true&uid=7")];
        let (agent_id, identifiers) = read(&headers(&fields)).unwrap();
        assert_eq!(agent_id.as_str(), "a");
        assert_eq!((identifiers.host, identifiers.ipv4), (vec!["b".to_owned()], vec!["10.0.0.1".to_owned()]));
        assert!(identifiers.default_route);
        for silent in [&[("agentid", "a")][..], &[("agentid", "a"), ("agentidentifiers", "")]] {
            assert_eq!(read(&headers(silent)).unwrap().1, Identifiers::default());
        }
    }

    #[test]
    fn what_is_wrong_is_said_in_the_references_words() {
        assert_eq!(refusal(&[]), "expected one agent ID in the context, got []");
        assert_eq!(refusal(&[("agentid", "a"), ("agentid", "b")]), "expected one agent ID in the context, got [a b]");
        let twice = [("agentid", "a"), ("agentidentifiers", "host=b"), ("agentidentifiers", "host=c")];
        assert_eq!(
            refusal(&twice),
            "expected at most one set of agent identifiers in the context, got [host=b host=c]"
        );
        let escape = refusal(&[("agentid", "a"), ("agentidentifiers", "host=%zz")]);
        assert!(escape.starts_with("fail to parse url encoded string: "), "{escape}");
        assert!(refusal(&[("agentid", "")]).contains("id is empty"));
    }

    #[test]
    fn agents_of_this_project_are_known() {
        assert!(writes_all(&headers(&[("user-agent", "konnectivity-quic/0.1.0")])));
        assert!(!writes_all(&headers(&[("user-agent", "grpc-go/1.83.0")])));
        assert!(!writes_all(&headers(&[])));
    }

    #[test]
    fn an_agent_is_told_who_the_server_is() {
        let mut fields = Vec::new();
        let block = answer(&ServerId::new("s").unwrap(), 3).into_block();
        let text = |octets: &[u8]| String::from_utf8(octets.to_vec()).unwrap();
        Decoder::default().decode(&block, |field| fields.push((text(field.name), text(field.value)))).unwrap();
        let expected =
            [(":status", "200"), ("content-type", "application/grpc"), ("serverid", "s"), ("servercount", "3")];
        assert_eq!(fields, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
}
