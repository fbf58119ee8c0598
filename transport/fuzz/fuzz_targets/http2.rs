//! A client's whole connection, however it is cut, and a server that answers it.
//!
//! The last byte says how the rest is cut into pieces.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

use http2::{
    code::Code,
    head::{flag, kind},
    session::PREFACE,
    testing::{Server, frame, frames, outcomes},
};

/// The server is a program, which no other package can depend on.
#[path = "../../../server/src/http2"]
#[allow(dead_code, unused_imports)]
mod http2 {
    pub mod block;
    pub mod code;
    pub mod head;
    pub mod hpack;
    pub mod huffman;
    pub mod out;
    pub mod pace;
    pub mod request;
    pub mod session;
    pub mod streams;
    pub mod table;
    pub mod testing;
}

/// What a connection may hold besides what it was sent: streams that are open, a list of headers, a block, answers.
const MOST_HELD: usize = 1024 * 1024;

fuzz_target!(|input: &[u8]| {
    let Some((&how, input)) = input.split_last() else { return };
    let piece = 1 + usize::from(how);
    let greeting = [&PREFACE[..], &frame(kind::SETTINGS, 0, 0, b"")].concat();
    check(input, piece);
    check(&[&greeting[..], input].concat(), piece);
    check(&[&greeting[..], &as_blocks(input, piece)].concat(), piece);
    check(&[&greeting[..], &as_data(input, piece)].concat(), piece);
});

fn check(octets: &[u8], piece: usize) {
    let mut servers = [Server::default(), Server::default()];
    servers[0].feed(octets);
    servers[1].feed_in_pieces(octets, &[piece]);
    let [whole, in_pieces] = outcomes(octets, &mut servers);
    assert_eq!(whole, in_pieces, "in pieces of {piece}");
    for mut server in servers {
        assert!(server.most_held <= MOST_HELD + 4 * octets.len(), "{} octets held", server.most_held);
        answer(&mut server, piece);
    }
}

/// Serves every stream to its end, one way or another. What is sent must be whole frames, and nothing must stay.
fn answer(server: &mut Server, piece: usize) {
    let ids: Vec<u32> = server.seen.keys().copied().collect();
    for (place, id) in ids.into_iter().enumerate() {
        // Whatever has become of the stream.
        let _ = server.session.respond(id, vec![0x88], place % 5 == 0);
        let _ = server.session.send(id, Bytes::from(vec![7; piece * 100]));
        match place % 3 {
            0 => server.session.end(id, vec![0x88]),
            1 => server.session.give_up(id, Code::CANCEL),
            _ => {}
        }
        server.session.drop_handle(id);
    }
    server.session.leave();
    server.write();
    frames(&std::mem::take(&mut server.sent));
    server.session.lose();
    assert!(server.session.held() <= 4096, "{} octets stay", server.session.held());
}

/// Header blocks that hold the input: one of all of it, and one for each piece.
fn as_blocks(input: &[u8], piece: usize) -> Vec<u8> {
    let mut octets = frame(kind::HEADERS, 0, 1, b"");
    input.chunks(16_384).for_each(|piece| octets.extend(frame(kind::CONTINUATION, 0, 1, piece)));
    octets.extend(frame(kind::CONTINUATION, flag::END_HEADERS, 1, b""));
    for (stream, piece) in (3..).step_by(2).zip(input.chunks(piece)) {
        octets.extend(frame(kind::HEADERS, flag::END_HEADERS, stream, piece));
    }
    octets
}

/// A stream that carries the input, in frames some of which are padded.
fn as_data(input: &[u8], piece: usize) -> Vec<u8> {
    let mut octets = frame(kind::HEADERS, flag::END_HEADERS, 1, b"\x83\x86\x84");
    for (place, piece) in input.chunks(piece).enumerate() {
        let padding = if place % 3 == 0 { flag::PADDED } else { 0 };
        octets.extend(frame(kind::DATA, padding, 1, piece));
    }
    octets
}
