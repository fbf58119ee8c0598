//! What an agent says of itself in the headers of its RPC, and what it is told (compat 1.3).

use http::{HeaderMap, HeaderName, HeaderValue};
use konnectivity_transport::{
    id::{AgentId, ServerId},
    identifier::Identifiers,
};

use crate::frontend::grpc::status::{Code, Status};

const AGENT_ID: &str = "agentid";
const AGENT_IDENTIFIERS: &str = "agentidentifiers";
const SERVER_ID: HeaderName = HeaderName::from_static("serverid");
const SERVER_COUNT: HeaderName = HeaderName::from_static("servercount");

/// Who an agent is and what it reaches. An agent that says nothing of what it reaches is a good one.
///
/// # Errors
/// The end of its RPC, in the reference's words: an error that is no status of gRPC is `Unknown` there.
pub fn read(headers: &HeaderMap) -> Result<(AgentId, Identifiers), Status> {
    let refused = |message: String| Status::new(Code::Unknown, message);
    let [agent_id] = &values(headers, AGENT_ID)[..] else {
        let got = values(headers, AGENT_ID).join(" ");
        return Err(refused(format!("expected one agent ID in the context, got [{got}]")));
    };
    let identifiers = match &values(headers, AGENT_IDENTIFIERS)[..] {
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

fn values(headers: &HeaderMap, name: &str) -> Vec<String> {
    headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
}

/// What an accepted agent is told. None of it before the agent is checked.
pub fn answer(server_id: &ServerId, server_count: u32) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
    // An id is printable ASCII, which is what a value may be.
    let server_id = HeaderValue::from_str(server_id.as_str()).ok().map(|id| (SERVER_ID, id));
    server_id.into_iter().chain([(SERVER_COUNT, HeaderValue::from(server_count))])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
        fields.iter().map(field).collect()
    }

    fn refusal(fields: &[(&'static str, &'static str)]) -> String {
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
    fn an_agent_is_told_who_the_server_is() {
        let told: HeaderMap = answer(&ServerId::new("s").unwrap(), 3).collect();
        assert_eq!(told["serverid"], "s");
        assert_eq!(told["servercount"], "3");
    }
}
