//! Any bytes as a recording: no panic, bounded memory, and an end.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nettrace::recording::{FrameReader, MAX_PAYLOAD_BYTES};
use std::path::Path;

fuzz_target!(|data: &[u8]| {
    let Ok(reader) = FrameReader::new(Path::new("fuzz"), data) else { return };
    let mut items = 0;
    for item in reader {
        items += 1;
        if let Ok(frame) = item {
            assert!(frame.payload.len() <= MAX_PAYLOAD_BYTES);
        }
    }
    // Every item takes at least its frame header from the input.
    assert!(items <= data.len() / 16 + 1);
});
