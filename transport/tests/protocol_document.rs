//! `docs/protocol.md` says what the code does: its tables of numbers, limits and example bytes are compared.

use bytes::Bytes;
use konnectivity_transport::{
    id::MAX_ID_BYTES,
    server_list::{MAX_LISTED_SERVERS, MAX_SERVER_ADDRESSES},
    wire::{
        ALPN, PROTOCOL_VERSION, SERVERS_CAPABILITY,
        code::{ConnectionCode, StreamCode},
        codec::{MAX_CONTROL_BYTES, MAX_DIAL_REPLY_BYTES, MAX_DIAL_REQUEST_BYTES, encode},
        message::{
            Control, ControlBody, DialErrorKind, DialReply, DialRequest, Drain, Hello, Server, Servers, Token, Welcome,
        },
    },
};

const DOCUMENT: &str = include_str!("../../docs/protocol.md");

/// Cells of each row of the one table that has these columns.
fn table(columns: &str, near: &str) -> Vec<Vec<&'static str>> {
    let (_, section) = DOCUMENT.split_once(near).unwrap_or_else(|| panic!("no {near:?} in docs/protocol.md"));
    let mut lines = section.lines().skip_while(|line| *line != columns).skip(2);
    let rows: Vec<_> = lines
        .by_ref()
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    assert!(!rows.is_empty(), "no table {columns:?} under {near:?}");
    rows
}

/// The first three cells are number, name and meaning; those behind them are for people and must not be empty.
fn assert_codes(heading: &str, expected: Vec<[String; 3]>) {
    let rows = table("| Code | Name | Meaning | Sent by | The receiver |", heading);
    let documented: Vec<_> = rows.iter().map(|row| row[..3].to_vec()).collect();
    assert_eq!(documented, expected);
    for row in rows {
        assert_eq!(row.len(), 5, "{row:?}");
        assert!(row.iter().all(|cell| !cell.is_empty()), "{row:?}");
    }
}

#[test]
fn connection_codes() {
    let code =
        |code: ConnectionCode| [format!("0x{:02x}", u32::from(code)), format!("{code:?}"), code.meaning().to_owned()];
    assert_codes("## Codes of a closed connection", ConnectionCode::ALL.map(code).to_vec());
}

#[test]
fn stream_codes() {
    let code =
        |code: StreamCode| [format!("0x{:02x}", u32::from(code)), format!("{code:?}"), code.meaning().to_owned()];
    assert_codes("## Codes of an ended stream", StreamCode::ALL.map(code).to_vec());
}

#[test]
fn dial_errors() {
    let rows = table("| Number | Name | Meaning |", "## Dial streams");
    let kind = |kind: DialErrorKind| [u64::from(kind).to_string(), format!("{kind:?}"), kind.meaning().to_owned()];
    assert_eq!(rows, DialErrorKind::ALL.map(kind));
}

#[test]
fn limits() {
    let rows = table("| Message | Limit in bytes | Above the limit, a longer prefix, or not protobuf |", "## Messages");
    let documented: Vec<_> = rows.iter().map(|row| (row[0], row[1].parse().unwrap())).collect();
    let expected =
        [("Control", MAX_CONTROL_BYTES), ("DialRequest", MAX_DIAL_REQUEST_BYTES), ("DialReply", MAX_DIAL_REPLY_BYTES)];
    assert_eq!(documented, expected);
    let list =
        format!("the first {MAX_LISTED_SERVERS} servers count, of a server the first {MAX_SERVER_ADDRESSES} addresses");
    assert!(DOCUMENT.contains(&list), "{list}");
    assert!(DOCUMENT.contains(&format!("`agent_id` and `server_id`: 1 to {MAX_ID_BYTES} bytes of printable ASCII")));
}

#[test]
fn capabilities() {
    let rows = table("| Capability | Of an agent | Of a server |", "## Messages");
    assert_eq!(rows.iter().map(|row| row[0]).collect::<Vec<_>>(), [format!("`{SERVERS_CAPABILITY}`")]);
}

#[test]
fn alpn_and_version() {
    let alpn = std::str::from_utf8(ALPN).unwrap();
    let rows = table("| What | Rule |", "## Connection");
    assert_eq!(rows[0][0], "ALPN");
    assert!(rows[0][1].starts_with(&format!("`{alpn}` ({} bytes)", ALPN.len())), "{:?}", rows[0]);
    assert!(alpn.ends_with(&format!("/{PROTOCOL_VERSION}")));
    assert!(DOCUMENT.starts_with(&format!("# The tunnel protocol, version {PROTOCOL_VERSION}\n")));
}

#[test]
fn example_bytes() {
    let documented: Vec<_> = table("| Message | Bytes |", "## Example bytes")
        .into_iter()
        .map(|row| format!("| {} | {} |", row[0], row[1]))
        .collect();
    let expected: Vec<_> = examples()
        .into_iter()
        .map(|(name, bytes)| {
            let digits: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("| {name} | `{}` |", digits.join(" "))
        })
        .collect();
    let expected = expected.join("\n");
    assert_eq!(documented.join("\n"), expected, "the table should be:\n{expected}\n");
}

/// Every message with every field set, under the text by which the document describes it.
fn examples() -> Vec<(&'static str, Bytes)> {
    let control = |body| framed(&Control { body: Some(body) }, MAX_CONTROL_BYTES);
    let server = Server { server_id: "s1".into(), addresses: vec!["192.0.2.1:8091".into()] };
    let request = DialRequest { dial_id: 300, network: "tcp".into(), address: "[::1]:80".into(), timeout_ms: 5_000 };
    vec![
        (
            r#"Hello "a1", "host=n", token "t", "pa", capability "x""#,
            control(ControlBody::Hello(Hello {
                agent_id: "a1".into(),
                identifiers: "host=n".into(),
                token: "t".into(),
                software: "pa".into(),
                capabilities: vec!["x".into()],
            })),
        ),
        (
            r#"Welcome "s1", 3 servers, "ps", capability "x""#,
            control(ControlBody::Welcome(Welcome {
                server_id: "s1".into(),
                server_count: 3,
                software: "ps".into(),
                capabilities: vec!["x".into()],
            })),
        ),
        (r#"Drain "bye""#, control(ControlBody::Drain(Drain { reason: "bye".into() }))),
        (
            r#"Servers 2, "s1" at "192.0.2.1:8091""#,
            control(ControlBody::Servers(Servers { server_count: 2, servers: vec![server] })),
        ),
        (r#"Token "t""#, control(ControlBody::Token(Token { token: "t".into() }))),
        ("Nudge", framed(&Control { body: None }, MAX_CONTROL_BYTES)),
        (r#"DialRequest 300, "tcp", "[::1]:80", 5000 ms"#, framed(&request, MAX_DIAL_REQUEST_BYTES)),
        (r#"DialReply connected, from "[::1]:9""#, framed(&DialReply::connected("[::1]:9"), MAX_DIAL_REPLY_BYTES)),
        (r#"DialReply Refused, "no""#, framed(&DialReply::failed(DialErrorKind::Refused, "no"), MAX_DIAL_REPLY_BYTES)),
    ]
}

fn framed<M: prost::Message>(message: &M, max: usize) -> Bytes {
    encode(message, max).expect("an example is far below every limit")
}
