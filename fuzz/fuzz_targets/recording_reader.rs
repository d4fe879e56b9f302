//! Any bytes as a recording, with and without a true beginning: no panic, bounded memory, and an end. The fuzzing build
//! takes every checksum for right, so that what lies behind them is reached.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nettrace::recording::{FORMAT_VERSION, FrameReader, MAX_PAYLOAD_BYTES};
use nettrace_common::WIRE_VERSION;
use std::path::Path;

/// Bytes of a file header.
const HEADER_BYTES: usize = 52;

fuzz_target!(|data: &[u8]| {
    read(data);
    let mut file = b"\x89NTREC\r\n".to_vec();
    file.extend(FORMAT_VERSION.to_le_bytes());
    file.extend(WIRE_VERSION.to_le_bytes());
    file.resize(HEADER_BYTES, 0);
    file.extend(data);
    assert!(read(&file), "a true header is a recording");
});

/// Reads to the end; whether it was a recording at all.
fn read(file: &[u8]) -> bool {
    let Ok(reader) = FrameReader::new(Path::new("fuzz"), file) else { return false };
    let mut items = 0;
    for item in reader {
        items += 1;
        if let Ok(frame) = item {
            assert!(frame.payload.len() <= MAX_PAYLOAD_BYTES);
        }
    }
    // Every item takes its frame header from the input, but for one that is cut off.
    assert!(items <= file.len() / 16 + 1);
    true
}
