//! The DNS message parser on arbitrary bytes, whole and cut off.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nettrace::probes::dns::message::{MAX_NAME_BYTES, MAX_QUESTIONS, Message};

fuzz_target!(|input: (u8, &[u8])| {
    let (beyond, bytes) = input;
    let Ok(message) = Message::parse(bytes, bytes.len() + usize::from(beyond)) else { return };
    assert!(message.questions.len() <= MAX_QUESTIONS);
    for question in &message.questions {
        let shown = question.name.to_string();
        assert!(shown.len() <= 4 * MAX_NAME_BYTES && shown.bytes().all(|b| b.is_ascii_graphic()));
    }
});
