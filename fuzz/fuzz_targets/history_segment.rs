//! Any bytes as a segment of a history, with and without a true beginning: no panic, bounded memory, and an end. The fuzzing
//! build takes every checksum for right, so that what lies behind them is reached.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nettrace::{
    history::{SEGMENT_VERSION, scan_segment},
    recording::MAX_PAYLOAD_BYTES,
    snapshot::Snapshot,
};

/// Bytes of a segment's header, and the least of a frame.
const HEADER_BYTES: usize = 20;
const FRAME_BYTES: usize = 16;

fuzz_target!(|data: &[u8]| {
    scan(data);
    let mut file = b"\x89NTHIS\r\n".to_vec();
    file.extend(SEGMENT_VERSION.to_le_bytes());
    file.resize(HEADER_BYTES, 0);
    file.extend(data);
    scan(&file);
});

fn scan(file: &[u8]) {
    let (entries, damaged) = scan_segment(file, |_, json| {
        assert!(json.len() <= MAX_PAYLOAD_BYTES);
        let _ = Snapshot::from_json(json);
    });
    // Every frame takes its header from the input, and every damaged place a byte.
    assert!(entries <= file.len() / FRAME_BYTES + 1);
    assert!(damaged as usize <= file.len());
}
