//! Whole connections, made up at random.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Headers {
        fields: Vec<(OwnField, Form)>,
        sizes: Vec<usize>,
        splits: Vec<usize>,
        padding: Option<u8>,
        priority: bool,
        end: bool,
    },
    Other(u8, u8, Vec<u8>),
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
    let real = prop::sample::select(request("%2Fetc%2Fkubernetes%2Fkonnectivity-server.socket"));
    let table = prop::sample::select(vec![
        field(":method", "GET"),
        field(":scheme", "https"),
        field(":authority", "fd00::1"),
        field(":authority", "[fd00::1]:8090"),
        field("accept-encoding", "gzip, deflate"),
        field("cookie", "a=b"),
    ]);
    let value = prop::collection::vec(0x20_u8..0x7f, 0..40);
    let long = prop::collection::vec(0x80_u8.., 0..1500);
    prop_oneof![
        4 => real,
        2 => table,
        4 => ("[a-z][a-z0-9_-]{0,12}", value, any::<bool>()).prop_map(|(name, value, never)| (name.into(), value, never)),
        1 => ("[a-c]", long, any::<bool>()).prop_map(|(name, value, never)| (name.into(), value, never)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let headers = (
        prop::collection::vec((one_field(), form()), 0..12),
        prop::collection::vec(prop_oneof![Just(0), Just(4096), 0..4096_usize], 0..3),
        prop::collection::vec(0..200_usize, 0..6),
        prop::option::of(any::<u8>()),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(fields, sizes, splits, padding, priority, end)| Step::Headers {
            fields,
            sizes,
            splits,
            padding,
            priority,
            end,
        });
    let other = (
        prop::sample::select(vec![
            (kind::DATA, 0),
            (SETTINGS, 0),
            (kind::PING, flag::ACK),
            (WINDOW_UPDATE, 0),
            (UNKNOWN, 0xff),
        ]),
        prop::collection::vec(any::<u8>(), 0..300),
    )
        .prop_map(|((kind, flags), payload)| Step::Other(kind, flags, payload));
    prop_oneof![3 => headers, 2 => other]
}

/// The octets of a client that does all this, and what the library is to see of it.
fn connection(steps: &[Step]) -> (Vec<u8>, Vec<Event>) {
    let (mut octets, mut expected, mut encoder) = (PREFACE.to_vec(), Vec::new(), Encoder::default());
    for (stream, step) in (1..).step_by(2).zip(steps) {
        match step {
            Step::Other(kind, flags, payload) => {
                octets.extend(frame(*kind, *flags, stream, payload));
                let head = Head { length: payload.len() as u32, kind: *kind, flags: *flags, stream };
                expected.push(Event::Other(head, payload.clone()));
            }
            Step::Headers { fields, sizes, splits, padding, priority, end } => {
                let mut block = Vec::new();
                sizes.iter().for_each(|size| encoder.resize(*size, &mut block));
                fields.iter().for_each(|(field, form)| encoder.put(field, *form, &mut block));
                put_frames(&mut octets, stream, &block, splits, *padding, *priority, *end);
                let fields = fields.iter().map(|(field, _)| as_seen(field)).collect();
                expected.push(Event::Headers { stream, end_stream: *end, fields });
            }
        }
    }
    (octets, expected)
}

fn as_seen(field: &OwnField) -> OwnField {
    match field {
        (name, value, never) if name == b":authority" && (value.starts_with(b"%") || value.starts_with(b"fd")) => {
            (name.clone(), b"localhost".to_vec(), *never)
        }
        field => field.clone(),
    }
}

fn put_frames(
    octets: &mut Vec<u8>,
    stream: u32,
    block: &[u8],
    splits: &[usize],
    padding: Option<u8>,
    priority: bool,
    end: bool,
) {
    let mut rest = block;
    let mut pieces: Vec<&[u8]> = Vec::new();
    for split in splits {
        let (piece, behind) = rest.split_at(rest.len().min(*split));
        pieces.push(piece);
        rest = behind;
    }
    pieces.extend(rest.chunks(16_000));
    if pieces.is_empty() {
        pieces.push(b"");
    }
    let last = pieces.len() - 1;
    for (place, piece) in pieces.into_iter().enumerate() {
        let mut flags = if place == last { flag::END_HEADERS } else { 0 };
        if place > 0 {
            octets.extend(frame(kind::CONTINUATION, flags, stream, piece));
            continue;
        }
        let mut payload = Vec::new();
        payload.extend(padding);
        payload.extend(priority.then_some([0x80, 0, 0, 0, 16]).into_iter().flatten());
        payload.extend_from_slice(piece);
        payload.resize(payload.len() + usize::from(padding.unwrap_or(0)), 0);
        flags |= padding.map_or(0, |_| flag::PADDED);
        flags |= if priority { flag::PRIORITY } else { 0 } | if end { flag::END_STREAM } else { 0 };
        octets.extend(frame(kind::HEADERS, flags, stream, &payload));
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
    fn the_library_sees_every_field_and_every_other_frame(steps in prop::collection::vec(step(), 0..20), pieces in pieces()) {
        let (octets, expected) = connection(&steps);
        let (out, most) = walk_all(&mut Walker::default(), &octets, &pieces);
        prop_assert_eq!(events(&out[PREFACE.len()..]), expected);
        prop_assert!(most <= MOST_HELD);
        // It leaves what it has written alone.
        let (again, _) = walk_all(&mut Walker::default(), &out, &pieces);
        prop_assert_eq!(again, out);
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
        let mut whole = Walker::default();
        let (expected, most) = walk_all(&mut whole, &octets, &[]);
        prop_assert!(most <= MOST_HELD);
        let mut walker = Walker::default();
        let (out, most) = walk_all(&mut walker, &octets, &pieces);
        prop_assert!(most <= MOST_HELD);
        prop_assert_eq!(out, expected);
        prop_assert_eq!(walker.pace().violation(), whole.pace().violation());
    }

    #[test]
    fn any_octets_are_survived(octets in prop::collection::vec(any::<u8>(), 0..2000), pieces in pieces(), now in 0..5_u64) {
        let mut walker = Walker::default();
        walker.pace().set_now(Duration::from_secs(now));
        let octets = [&PREFACE[..], &octets].concat();
        let (_, most) = walk_all(&mut walker, &octets, &pieces);
        prop_assert!(most <= MOST_HELD);
        // The same as payload of a whole header block.
        let mut walker = Walker::default();
        let octets = [&PREFACE[..], &frame(kind::HEADERS, flag::END_HEADERS, 1, &octets[PREFACE.len()..])].concat();
        let (out, _) = walk_all(&mut walker, &octets, &pieces);
        events(&out[PREFACE.len()..]);
    }
}
