//! What a client of the gRPC frontend sends: HTTP/2 frames with compressed header blocks, and what the HTTP/2 library is
//! given instead.
//!
//! The last byte says how the rest is cut into pieces.
#![no_main]

use libfuzzer_sys::fuzz_target;

use http2::{
    head::{flag, kind},
    testing::{MOST_HELD, frame, walk_all, whole_events},
    walk::{PREFACE, Walker},
};

/// The server is a program, which no other package can depend on.
#[path = "../../../server/src/frontend/grpc/http2"]
#[allow(dead_code, unused_imports)]
mod http2 {
    pub mod block;
    pub mod field;
    pub mod head;
    pub mod hpack;
    pub mod huffman;
    pub mod pace;
    pub mod table;
    pub mod testing;
    pub mod walk;
}

/// Octets of a frame header.
const HEAD_BYTES: usize = 9;

fuzz_target!(|input: &[u8]| {
    let Some((&how, input)) = input.split_last() else { return };
    let piece = 1 + usize::from(how);
    check(input, piece);
    check(&[&PREFACE[..], input].concat(), piece);
    check(&as_blocks(input, piece), piece);
});

fn check(octets: &[u8], piece: usize) {
    let (mut whole, mut in_pieces) = (Walker::default(), Walker::default());
    let (out, most) = walk_all(&mut whole, octets, &[]);
    assert!(most <= MOST_HELD + 2 * octets.len(), "{most} octets held for {}", octets.len());
    let (other, most) = walk_all(&mut in_pieces, octets, &[piece]);
    assert!(most <= MOST_HELD + 2 * piece, "{most} octets held for pieces of {piece}");
    assert_eq!((&out, whole.pace().violation()), (&other, in_pieces.pace().violation()), "in pieces of {piece}");

    let Some(frames) = out.strip_prefix(PREFACE) else { return };
    // A client that broke a rule of HTTP/2 leaves one frame for the library to refuse.
    let refused = whole.is_stopped() && whole.pace().violation().is_none();
    let frames = &frames[..frames.len() - if refused { HEAD_BYTES } else { 0 }];
    // No compression is left, so there is nothing to do a second time.
    whole_events(frames);
    let (again, _) = walk_all(&mut Walker::default(), &out, &[]);
    assert_eq!(again, out, "the second time");
}

/// A connection whose header blocks hold the input: one of all of it, and one for each piece.
fn as_blocks(input: &[u8], piece: usize) -> Vec<u8> {
    let mut octets = PREFACE.to_vec();
    octets.extend(frame(kind::HEADERS, 0, 1, b""));
    input.chunks(16_384).for_each(|piece| octets.extend(frame(kind::CONTINUATION, 0, 1, piece)));
    octets.extend(frame(kind::CONTINUATION, flag::END_HEADERS, 1, b""));
    for (stream, piece) in (3..).step_by(2).zip(input.chunks(piece)) {
        octets.extend(frame(kind::HEADERS, flag::END_HEADERS, stream, piece));
    }
    octets
}
