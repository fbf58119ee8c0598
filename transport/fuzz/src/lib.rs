//! What must hold for any bytes, whatever message they are read as.

use std::fmt::Debug;

use bytes::BytesMut;
use konnectivity_transport::wire::codec::{self, DecodeError, EncodeError};
use prost::Message;

/// Reads `bytes` as a sequence of messages and checks that
/// - they mean the same when they come in pieces,
/// - what was read can be written again, no larger, and reads back equal,
/// - what was written is the one way to write it,
/// - the limit is sharp.
///
/// Returns the messages, for what a target wants to check besides.
pub fn check_messages<M>(bytes: &[u8], max: usize) -> Vec<M>
where
    M: Message + Default + PartialEq + Debug,
{
    let whole = read_all::<M>(bytes, max);
    // The size of the pieces is up to the fuzzer too, without a byte of its own that would spoil the corpus.
    let piece = 1 + usize::from(bytes.last().copied().unwrap_or(0));
    let pieces = read_in_pieces::<M>(bytes, piece, max);
    assert_eq!(whole, pieces, "in pieces of {piece} bytes");

    for message in &whole.messages {
        let written = codec::encode(message, max).expect("a message that was read fits the limit it was read with");
        // The message's own size is the tightest limit; it must hold on both sides.
        let size = message.encoded_len();
        let again = read_all::<M>(&written, size);
        assert_eq!(again.messages, std::slice::from_ref(message));
        assert_eq!((&again.end, again.rest.len()), (&Ok(()), 0));
        assert_eq!(codec::encode(&again.messages[0], size).as_ref(), Ok(&written));
        if let Some(max) = size.checked_sub(1) {
            assert_eq!(read_all::<M>(&written, max).end, Err(DecodeError::TooLarge { size, max }));
            assert_eq!(codec::encode(message, max), Err(EncodeError::TooLarge { size, max }));
        }
    }
    whole.messages
}

/// How far a sequence of messages could be read.
#[derive(Debug, PartialEq)]
struct Read<M> {
    messages: Vec<M>,
    end: Result<(), DecodeError>,
    rest: BytesMut,
}

fn read_all<M: Message + Default>(bytes: &[u8], max: usize) -> Read<M> {
    read_in_pieces(bytes, bytes.len().max(1), max)
}

fn read_in_pieces<M: Message + Default>(bytes: &[u8], piece: usize, max: usize) -> Read<M> {
    let mut read = Read { messages: Vec::new(), end: Ok(()), rest: BytesMut::new() };
    for bytes in bytes.chunks(piece) {
        read.rest.extend_from_slice(bytes);
        // After an error the stream is not read further; only how it ended is compared.
        while read.end.is_ok() {
            let before = read.rest.len();
            match codec::decode(&mut read.rest, max) {
                Ok(Some(message)) => {
                    assert!(read.rest.len() < before, "a message of no bytes would be read for ever");
                    read.messages.push(message);
                }
                Ok(None) => {
                    assert_eq!(read.rest.len(), before, "an incomplete message was touched");
                    assert!(before < 4 + max, "more is kept than the largest message has");
                    break;
                }
                Err(error) => read.end = Err(error),
            }
        }
    }
    if read.end.is_err() {
        read.rest.clear();
    }
    read
}
