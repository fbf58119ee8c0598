#![allow(clippy::unwrap_used)]

use super::*;

fn fields(list: &[(&str, &str)]) -> Fields {
    let mut fields = Fields::default();
    for (name, value) in list {
        fields.put(Field { name: name.as_bytes(), value: value.as_bytes(), never_indexed: false });
    }
    fields
}

const SOUND: [(&str, &str); 5] = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/ProxyService/Proxy"),
    (":authority", "%2Frun%2Fx.socket"),
    ("te", "trailers"),
];

#[test]
fn a_request_has_what_the_client_has_sent() {
    let request = fields(&[&SOUND[..], &[("x", "1"), ("y", ""), ("x", "2")]].concat()).into_request().unwrap();
    assert_eq!((request.method(), request.path()), (&b"POST"[..], &b"/ProxyService/Proxy"[..]));
    assert_eq!(request.field(b":authority"), Some(&b"%2Frun%2Fx.socket"[..]));
    assert_eq!(request.all(b"x").collect::<Vec<_>>(), [b"1", b"2"]);
    assert_eq!((request.field(b"y"), request.field(b"z")), (Some(&b""[..]), None));
    assert!(!request.is_too_large());
}

#[test]
fn any_authority_is_one() {
    for authority in ["/run/x.socket", "fd00::1", "[::1]:80", "", "a b", "\u{e4}:port:port"] {
        let mut list = SOUND;
        list[3].1 = authority;
        assert!(fields(&list).into_request().is_ok(), "{authority}");
    }
    assert!(fields(&[&SOUND[..3], &SOUND[4..]].concat()).into_request().is_ok(), "none");
}

#[test]
fn what_rfc_9113_calls_malformed_is_no_request() {
    let also = |name, value| fields(&[&SOUND[..], &[(name, value)]].concat());
    let without = |place: usize| {
        let mut list = SOUND.to_vec();
        list.remove(place);
        fields(&list)
    };
    let table = [
        ("no method", without(0)),
        ("no scheme", without(1)),
        ("no path", without(2)),
        ("an empty path", fields(&[SOUND[0], SOUND[1], (":path", "")])),
        ("a second method", fields(&[&SOUND[..4], &[(":method", "POST")]].concat())),
        ("a second authority", fields(&[&SOUND[..4], &[(":authority", "a")]].concat())),
        ("a pseudo-header behind others", also(":authority", "a")),
        ("an answer's pseudo-header", fields(&[&SOUND[..4], &[(":status", "200")]].concat())),
        ("an unknown one", fields(&[&SOUND[..4], &[(":protocol", "x")]].concat())),
        ("a path with a line end", fields(&[SOUND[0], SOUND[1], (":path", "/\n")])),
        ("upper case", also("Name", "v")),
        ("a blank in a name", also("a b", "v")),
        ("a name of nothing", also("", "v")),
        ("a line end in a value", also("x", "a\r\nb")),
        ("a NUL in a value", also("x", "a\0b")),
        ("te", also("te", "gzip")),
        ("keep-alive", also("keep-alive", "1")),
        ("upgrade", also("upgrade", "h2c")),
        ("transfer-encoding", also("transfer-encoding", "chunked")),
        ("proxy-connection", also("proxy-connection", "close")),
        ("CONNECT with a path", fields(&[(":method", "CONNECT"), (":path", "/")])),
    ];
    for (what, fields) in table {
        assert_eq!(fields.into_request().err(), Some(Malformed), "{what}");
    }
    assert!(fields(&[(":method", "CONNECT"), (":authority", "a:1")]).into_request().is_ok());
    // The layer above has a word for this one.
    assert!(also("connection", "close").into_request().is_ok());
}

#[test]
fn trailers_have_no_pseudo_headers() {
    assert!(fields(&[]).are_trailers());
    assert!(fields(&[("x", "y")]).are_trailers());
    assert!(!fields(&[(":path", "/")]).are_trailers());
    assert!(!fields(&[("X", "y")]).are_trailers());
}

#[test]
fn the_list_is_measured_as_settings_do() {
    let others: usize = SOUND.iter().map(|(name, value)| name.len() + value.len() + 32).sum();
    let fits = MAX_LIST_BYTES - others - 32 - 1;
    for (octets, is_too_large) in [(fits, false), (fits + 1, true)] {
        let long = "v".repeat(octets);
        let request = fields(&[&SOUND[..], &[("x", &long)]].concat()).into_request().unwrap();
        assert_eq!(request.is_too_large(), is_too_large, "{octets}");
        assert_eq!(request.fields().count(), if is_too_large { 0 } else { 6 });
    }
}

#[test]
fn a_list_that_is_lost_holds_nothing() {
    let mut fields = fields(&SOUND);
    for _ in 0..100_000 {
        fields.put(Field { name: b"x", value: &[b'v'; 2000], never_indexed: false });
    }
    assert_eq!((fields.octets.capacity(), fields.ends.capacity()), (0, 0));
    assert!(fields.into_request().unwrap().is_too_large());
}
