//! Any bytes as a batch of ring records, alone and as payloads of well-formed frames: no panic, every frame accounted
//! for, and a report that can be made of what came of it.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use nettrace::aggregate::{Aggregator, Closing};
use nettrace::decode::records;
use nettrace::probes::dns::DnsConfig;
use nettrace::snapshot::{Snapshot, sample};

fuzz_target!(|input: (&[u8], Vec<&[u8]>)| {
    let (raw, framed) = input;
    take(Bytes::copy_from_slice(raw));
    let mut batch = Vec::new();
    for record in framed {
        batch.extend((record.len() as u32).to_ne_bytes());
        batch.extend([0; 4]);
        batch.extend(record);
        batch.resize(batch.len().next_multiple_of(8), 0);
    }
    take(Bytes::from(batch));
});

fn take(batch: Bytes) {
    let items = records(batch.clone()).count() as u64;
    let mut aggregator = Aggregator::new(DnsConfig::default());
    assert_eq!(aggregator.feed(batch), items);
    let Snapshot { meta, overhead, .. } = sample::empty();
    let end_ns = aggregator.latest_ns();
    let finished = aggregator.finish(Closing {
        start_ns: 0,
        end_ns,
        kernel: None,
        meta,
        interfaces: Vec::new(),
        scopes: Default::default(),
        probes: Vec::new(),
        overhead,
        ring_bytes: 4096,
        bad_frames: 0,
    });
    assert_eq!(finished.snapshot.ring.received, items);
}
