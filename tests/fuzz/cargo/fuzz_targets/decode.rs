//! Any bytes as a frame, as a message and as a line of COPY.

#![no_main]

use libfuzzer_sys::fuzz_target;
use waldex::pgoutput::decode::decode;
use waldex::pgoutput::envelope::Frame;
use waldex::pgoutput::message::Message;
use waldex::postgres::copy_text::fields;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(Frame::XLogData { payload, .. }) = Frame::decode(bytes) {
        walk(payload);
    }
    walk(bytes);
    let length: usize = fields(bytes).flatten().map(|field| field.len()).sum();
    assert!(length <= bytes.len());
});

/// Tuples are read when they are walked, so a decoded message is only half of the matter.
fn walk(payload: &[u8]) {
    let Ok(message) = decode(payload) else { return };
    assert!(!format!("{message:?}").is_empty());
    if let Message::Insert { new, .. } | Message::Update { new, .. } = message {
        assert_eq!(new.iter().count(), new.len());
    }
}
