//! The head of a dial stream, as the agent reads it.
#![no_main]

use konnectivity_transport::wire::{codec::MAX_DIAL_REQUEST_BYTES, message::DialRequest};
use konnectivity_transport_fuzz::check_messages;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    check_messages::<DialRequest>(bytes, MAX_DIAL_REQUEST_BYTES);
});
