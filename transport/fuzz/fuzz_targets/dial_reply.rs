//! The answer on a dial stream, as the server reads it.
#![no_main]

use konnectivity_transport::wire::{
    codec::{MAX_DIAL_REPLY_BYTES, encode},
    message::{DialErrorKind, DialReply},
};
use konnectivity_transport_fuzz::check_messages;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for reply in check_messages::<DialReply>(bytes, MAX_DIAL_REPLY_BYTES) {
        if reply.kind() == DialErrorKind::Connected {
            // Success is said by the absence of the field and by nothing else, so no number may be mistaken for it.
            let mut same = DialReply::connected(reply.local_address.clone());
            same.text = reply.text.clone();
            assert_eq!(encode(&reply, usize::MAX), encode(&same, usize::MAX));
        }
    }
});
