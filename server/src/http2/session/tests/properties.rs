//! Whole connections, made up at random.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::http2::testing::{Seen, outcomes};

/// Headers of one stream and what follows them.
#[derive(Debug, Clone)]
struct Step {
    fields: Vec<(OwnField, Form)>,
    sizes: Vec<usize>,
    splits: Vec<usize>,
    padding: Option<u8>,
    priority: bool,
    data: Vec<(usize, Option<u8>)>,
    other: (u8, u8, Vec<u8>),
    end: bool,
}

fn form() -> impl Strategy<Value = Form> {
    (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(indexed, added, name_indexed, huffman_name, huffman_value)| Form {
            indexed,
            added,
            name_indexed,
            huffman_name,
            huffman_value,
        },
    )
}

fn one_field() -> impl Strategy<Value = OwnField> {
    let table = prop::sample::select(vec![
        field("accept-encoding", "gzip, deflate"),
        field("cookie", "a=b"),
        field("user-agent", "grpc-go/1.80.0"),
    ]);
    let value = prop::collection::vec(0x20_u8..0x7f, 0..40);
    let long = prop::collection::vec(0x80_u8.., 0..1500);
    prop_oneof![
        2 => table,
        4 => ("x[a-z0-9_-]{0,12}", value, any::<bool>()).prop_map(|(name, value, never)| (name.into(), value, never)),
        1 => ("[a-c]", long, any::<bool>()).prop_map(|(name, value, never)| (name.into(), value, never)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let other = prop::sample::select(vec![
        (kind::SETTINGS, 0, vec![]),
        (kind::SETTINGS, 0, [setting(4, 70_000), setting(5, 20_000), setting(1, 0)].concat()),
        (kind::PING, flag::ACK, vec![0; 8]),
        (kind::WINDOW_UPDATE, 0, vec![0, 0, 0, 9]),
        (0xbe, 0xff, vec![3; 300]),
    ]);
    (
        prop::collection::vec((one_field(), form()), 0..12),
        prop::collection::vec(prop_oneof![Just(0), Just(4096), 0..4096_usize], 0..3),
        prop::collection::vec(0..200_usize, 0..6),
        prop::option::of(any::<u8>()),
        any::<bool>(),
        prop::collection::vec((0..3000_usize, prop::option::of(any::<u8>())), 0..4),
        other,
        any::<bool>(),
    )
        .prop_map(|(fields, sizes, splits, padding, priority, data, other, end)| Step {
            fields,
            sizes,
            splits,
            padding,
            priority,
            data,
            other,
            end,
        })
}

/// The octets of a client that does all this, and what a server is to see of it.
fn connection(steps: &[Step]) -> (Vec<u8>, BTreeMap<u32, Seen>) {
    let (mut octets, mut expected, mut encoder) = (PREFACE.to_vec(), BTreeMap::new(), Encoder::default());
    octets.extend(settings(&[]));
    for (stream, step) in (1..).step_by(2).zip(steps) {
        let mut block = Vec::new();
        step.sizes.iter().for_each(|size| encoder.resize(*size, &mut block));
        let pseudo = request("%2Frun%2Fx.socket")[..4].to_vec();
        let fields: Vec<_> =
            pseudo.into_iter().map(|field| (field, Form::default())).chain(step.fields.clone()).collect();
        fields.iter().for_each(|(field, form)| encoder.put(field, *form, &mut block));
        put_frames(&mut octets, stream, &block, step);
        let mut seen =
            Seen { fields: fields.into_iter().map(|((name, value, _), _)| (name, value)).collect(), ..Seen::default() };
        for (length, padding) in &step.data {
            let payload: Vec<u8> = (0..*length).map(|place| (place + stream as usize) as u8).collect();
            octets.extend(padded(kind::DATA, 0, stream, &payload, *padding));
            seen.data.extend(payload);
            let (kind, flags, payload) = &step.other;
            octets.extend(frame(*kind, *flags, 0, payload));
        }
        if step.end {
            octets.extend(frame(kind::DATA, flag::END_STREAM, stream, b""));
            seen.end = Some(Ok(()));
        }
        expected.insert(stream, seen);
    }
    (octets, expected)
}

fn padded(kind: u8, flags: u8, stream: u32, payload: &[u8], padding: Option<u8>) -> Vec<u8> {
    let Some(padding) = padding else { return frame(kind, flags, stream, payload) };
    frame(kind, flags | flag::PADDED, stream, &[&[padding], payload, &vec![0; padding.into()]].concat())
}

fn put_frames(octets: &mut Vec<u8>, stream: u32, block: &[u8], step: &Step) {
    let mut rest = block;
    let mut pieces: Vec<&[u8]> = Vec::new();
    for split in &step.splits {
        let (piece, behind) = rest.split_at(rest.len().min(*split));
        pieces.push(piece);
        rest = behind;
    }
    pieces.extend(rest.chunks(16_000));
    let last = pieces.len() - 1;
    for (place, piece) in pieces.into_iter().enumerate() {
        let flags = if place == last { flag::END_HEADERS } else { 0 };
        if place > 0 {
            octets.extend(frame(kind::CONTINUATION, flags, stream, piece));
        } else if step.priority {
            let piece = [&[0x80, 0, 0, 0, 16][..], piece].concat();
            octets.extend(padded(kind::HEADERS, flags | flag::PRIORITY, stream, &piece, step.padding));
        } else {
            octets.extend(padded(kind::HEADERS, flags, stream, piece, step.padding));
        }
    }
}

fn pieces() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        Just(vec![]),
        Just(vec![1]),
        prop::collection::vec(1..30_usize, 1..20),
        prop::collection::vec(1..2000_usize, 1..20),
    ]
}

proptest! {
    #[test]
    fn the_server_sees_every_field_and_every_octet(steps in prop::collection::vec(step(), 0..20), pieces in pieces()) {
        let (octets, expected) = connection(&steps);
        let mut server = Server::default();
        server.feed_in_pieces(&octets, &pieces);
        prop_assert_eq!(server.session.fault(), None);
        prop_assert_eq!(&server.seen, &expected);
        for id in expected.keys() {
            server.session.drop_handle(*id);
        }
        // The last resets, and nothing else.
        prop_assert!(server.session.held() <= 512 + 4096);
    }

    #[test]
    fn a_damaged_connection_is_read_alike_in_pieces_of_any_size(
        steps in prop::collection::vec(step(), 1..10),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        pieces in pieces(),
    ) {
        let (mut octets, _) = connection(&steps);
        for (place, octet) in damage {
            let place = place.index(octets.len());
            octets[place] = octet;
        }
        let mut servers = [Server::default(), Server::default()];
        servers[0].feed(&octets);
        servers[1].feed_in_pieces(&octets, &pieces);
        let [whole, cut] = outcomes(&octets, &mut servers);
        prop_assert_eq!(cut, whole);
    }

    #[test]
    fn any_octets_are_survived(octets in prop::collection::vec(any::<u8>(), 0..2000), pieces in pieces(), now in 0..5_u64) {
        for prefix in [PREFACE.to_vec(), [&PREFACE[..], &settings(&[]), &call(1)].concat()] {
            let mut server = Server::default();
            server.session.set_now(Duration::from_secs(now));
            server.feed_in_pieces(&[&prefix[..], &octets].concat(), &pieces);
            prop_assert!(server.most_held <= 256 * 1024);
            // The same as payload of a whole header block.
            let mut server = Server::greeted();
            server.feed_in_pieces(&frame(kind::HEADERS, flag::END_HEADERS, 1, &octets), &pieces);
        }
    }
}
