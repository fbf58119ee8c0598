//! The control stream, as either end reads it.
#![no_main]

use konnectivity_transport::{
    id::{AgentId, MAX_ID_BYTES, ServerId},
    identifier::Identifiers,
    wire::{
        codec::MAX_CONTROL_BYTES,
        message::{Control, ControlBody, Hello},
    },
};
use konnectivity_transport_fuzz::check_messages;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for message in check_messages::<Control>(bytes, MAX_CONTROL_BYTES) {
        match message.body {
            Some(ControlBody::Hello(hello)) => check_hello(hello),
            Some(ControlBody::Welcome(welcome)) => check_id(&welcome.server_id),
            Some(ControlBody::Token(token)) => {
                let shown = format!("{token:?}");
                assert!(shown == "Token { token: redacted }" || token.token.is_empty());
            }
            Some(ControlBody::Drain(_) | ControlBody::Servers(_)) | None => {}
        }
    }
});

fn check_hello(hello: Hello) {
    check_id(&hello.agent_id);
    let _ = Identifiers::parse(&hello.identifiers);
    let token_of_same_kind = if hello.token.is_empty() { "" } else { "another" };
    let other = Hello { token: token_of_same_kind.into(), ..hello.clone() };
    assert_eq!(format!("{hello:?}"), format!("{other:?}"), "debug output depends on the token");
}

fn check_id(id: &str) {
    let valid = (1..=MAX_ID_BYTES).contains(&id.len()) && id.bytes().all(|byte| (0x20..=0x7e).contains(&byte));
    match AgentId::new(id) {
        Ok(agent) => assert!(valid && agent.as_str() == id),
        Err(error) => assert!(!valid, "{error}"),
    }
    assert_eq!(ServerId::new(id).is_ok(), valid);
}
