use super::super::testing::{answer, framed, query};
use super::*;
use nettrace_common::wire::Direction;
use proptest::prelude::*;

const ISN: u32 = u32::MAX - 20;

fn key() -> StreamKey {
    StreamKey {
        vantage: Vantage { netns: 0, ifindex: 2, direction: Direction::In },
        source: "10.0.0.1:40000".parse().unwrap(),
        destination: "10.0.0.2:53".parse().unwrap(),
    }
}

/// One stream under test; sequence numbers are given relative to the first payload byte.
struct Rig {
    streams: Streams,
    clock: u64,
}

impl Rig {
    fn new() -> Self {
        Self { streams: Streams::new(16), clock: 0 }
    }

    fn connected() -> Self {
        let mut rig = Self::new();
        rig.flags(SYN, ISN);
        rig
    }

    fn flags(&mut self, flags: u8, seq: u32) -> Found {
        self.clock += 1;
        self.streams.feed(key(), &Segment { ts_ns: self.clock, seq, flags, len: 0, bytes: &[] })
    }

    fn data(&mut self, offset: usize, bytes: &[u8]) -> Found {
        self.part(offset, bytes, bytes.len())
    }

    /// A segment of which only the first bytes were captured.
    fn part(&mut self, offset: usize, bytes: &[u8], captured: usize) -> Found {
        self.clock += 1;
        let seq = ISN.wrapping_add(1).wrapping_add(offset as u32);
        let segment = Segment {
            ts_ns: self.clock,
            seq,
            flags: 0x18,
            len: bytes.len() as u32,
            bytes: &bytes[..captured],
        };
        self.streams.feed(key(), &segment)
    }
}

fn bodies(found: &Found) -> Vec<Vec<u8>> {
    found.messages.iter().map(|m| m.bytes.clone()).collect()
}

#[test]
fn several_messages_in_a_segment() {
    let (a, b) = (query(1, "a.example", 1), query(2, "b.example", 1));
    let found = Rig::connected().data(0, &[framed(&a), framed(&b)].concat());
    assert_eq!((bodies(&found), found.unparsable), (vec![a, b], 0));
}

#[test]
fn a_message_byte_by_byte() {
    let message = query(1, "a.example", 1);
    let wire = framed(&message);
    let mut rig = Rig::connected();
    for (i, byte) in wire.iter().enumerate() {
        let found = rig.data(i, &[*byte]);
        assert_eq!(found.messages.len(), usize::from(i + 1 == wire.len()));
        if let [m] = &found.messages[..] {
            assert_eq!((&m.bytes, m.wire_len), (&message, message.len()));
            assert_eq!((m.started_ns, m.ended_ns), (2, 1 + wire.len() as u64));
        }
    }
}

#[test]
fn the_syn_may_be_numbered_as_its_first_payload_byte() {
    let mut rig = Rig::new();
    rig.flags(SYN, ISN.wrapping_add(1));
    assert_eq!(rig.data(0, &framed(&query(1, "a.example", 1))).messages.len(), 1);
}

#[test]
fn data_with_the_syn() {
    let (a, b) = (framed(&query(1, "a.example", 1)), framed(&query(2, "b.example", 1)));
    let mut rig = Rig::new();
    let syn = Segment { ts_ns: 1, seq: ISN, flags: SYN, len: a.len() as u32, bytes: &a };
    assert_eq!(rig.streams.feed(key(), &syn).messages.len(), 1);
    assert_eq!(rig.data(a.len(), &b).messages.len(), 1);
}

#[test]
fn repeated_and_overlapping_segments_count_once() {
    let (a, b) = (query(1, "a.example", 1), query(2, "b.example", 1));
    let wire = [framed(&a), framed(&b)].concat();
    let mut rig = Rig::connected();
    assert_eq!(rig.data(0, &wire[..40]).messages.len(), 1);
    assert_eq!(rig.data(0, &wire[..40]).messages.len(), 0);
    let found = rig.data(10, &wire[10..]);
    assert_eq!((bodies(&found), found.unparsable), (vec![b], 0));
}

#[test]
fn out_of_order_segments_wait_for_their_turn() {
    let message = query(1, "a.example", 1);
    let wire = framed(&message);
    let mut rig = Rig::connected();
    assert!(rig.data(20, &wire[20..]).messages.is_empty());
    assert!(rig.data(10, &wire[10..20]).messages.is_empty());
    assert_eq!(bodies(&rig.data(0, &wire[..10])), vec![message]);
}

#[test]
fn a_missing_segment_is_given_up() {
    let wire: Vec<u8> = (0..20).flat_map(|id| framed(&query(id, "a.example", 1))).collect();
    let size = wire.len() / 20;
    let mut rig = Rig::connected();
    let (mut messages, mut unparsable) = (0, 0);
    for i in (0..20).filter(|i| *i != 3) {
        let found = rig.data(i * size, &wire[i * size..(i + 1) * size]);
        messages += found.messages.len();
        unparsable += found.unparsable;
    }
    assert_eq!((messages, unparsable), (19, 1));
}

#[test]
fn a_large_answer_is_captured_in_part() {
    let mut message = answer(1, "a.example", 16, 0);
    message.resize(40_000, 7);
    let next = answer(2, "b.example", 1, 0);
    let wire = framed(&message);
    let mut rig = Rig::connected();
    assert!(rig.part(0, &wire[..30_000], 512).messages.is_empty());
    let tail = [&wire[30_000..], &framed(&next)].concat();
    let found = rig.part(30_000, &tail, 512);
    // The end of the message, and with it the next one's length, was not captured.
    assert_eq!((found.messages.len(), found.unparsable), (1, 1));
    assert_eq!(found.messages[0].bytes, message[..510]);
    assert_eq!(found.messages[0].wire_len, 40_000);
    // The next segment starts with a message, so the stream is taken up again.
    let end = wire.len() + next.len() + 2;
    assert_eq!(bodies(&rig.data(end, &framed(&next))), vec![next]);
}

#[test]
fn an_answer_that_ends_with_its_segment_keeps_the_place() {
    let mut message = answer(1, "a.example", 16, 0);
    message.resize(2_000, 7);
    let wire = framed(&message);
    let mut rig = Rig::connected();
    let found = rig.part(0, &wire, 512);
    assert_eq!((found.messages.len(), found.unparsable), (1, 0));
    assert_eq!(rig.data(wire.len(), &framed(&query(2, "b.example", 1))).messages.len(), 1);
}

#[test]
fn mid_stream() {
    let message = query(1, "a.example", 1);
    let wire = framed(&message);
    let mut rig = Rig::new();
    let found = rig.data(500, &wire[9..]);
    assert_eq!((found.messages.len(), found.unparsable), (0, 1));
    let found = rig.data(500 + wire.len() - 9, b"not a message either");
    assert_eq!((found.messages.len(), found.unparsable), (0, 0), "one loss is counted once");
    assert_eq!(bodies(&rig.data(520 + wire.len() - 9, &wire)), vec![message]);
    let mut rig = Rig::new();
    assert_eq!(rig.data(500, &wire).messages.len(), 1, "a plausible start is taken");
}

#[test]
fn a_length_too_short_loses_the_place() {
    let found = Rig::connected().data(0, &[0; 400]);
    assert_eq!((found.messages.len(), found.unparsable), (0, 1));
}

#[test]
fn connection_end_resets() {
    let wire = framed(&query(1, "a.example", 1));
    let mut rig = Rig::connected();
    rig.data(0, &wire[..10]);
    assert_eq!(rig.flags(RST, 0).unparsable, 1);
    assert!(rig.streams.table.is_empty() && rig.streams.order.is_empty());
    rig.flags(SYN, ISN);
    assert_eq!(rig.data(0, &wire).messages.len(), 1);
    assert_eq!(rig.flags(FIN, ISN).unparsable, 0);
    assert!(rig.streams.table.is_empty() && rig.streams.order.is_empty());
    // A reset ends both directions.
    rig.flags(SYN, ISN);
    let reset = Segment { ts_ns: 99, seq: 5, flags: RST, len: 0, bytes: &[] };
    rig.streams.feed(key().reverse(), &reset);
    assert!(rig.streams.table.is_empty());
}

#[test]
fn another_connection_between_the_same_ports() {
    let wire = framed(&query(1, "a.example", 1));
    let mut rig = Rig::connected();
    rig.data(0, &wire[..10]);
    let found = rig.data(1 << 28, &wire);
    assert_eq!((found.messages.len(), found.unparsable), (1, 1));
}

#[test]
fn streams_are_bounded_and_forgotten() {
    let mut streams = Streams::new(4);
    let mut evicted = 0;
    for port in 0..10u16 {
        let source = SocketAddr::from(([10, 0, 0, 1], 1000 + port));
        let segment = Segment { ts_ns: u64::from(port), seq: 0, flags: SYN, len: 0, bytes: &[] };
        evicted += streams.feed(StreamKey { source, ..key() }, &segment).evicted;
    }
    assert_eq!((streams.table.len(), streams.order.len(), evicted), (4, 4, 6));
    let late = Segment { ts_ns: 2 * IDLE_NS, seq: 0, flags: SYN, len: 0, bytes: &[] };
    streams.feed(key(), &late);
    assert_eq!((streams.table.len(), streams.order.len()), (1, 1));
}

proptest! {
    #[test]
    fn arbitrary_segments_never_panic(
        segments in prop::collection::vec(
            (any::<u32>(), any::<u8>(), 0u32..2_000, prop::collection::vec(any::<u8>(), 0..64)), 0..60),
        near: bool,
    ) {
        let mut streams = Streams::new(3);
        for (i, (seq, flags, len, bytes)) in segments.into_iter().enumerate() {
            let seq = if near { seq % 300 } else { seq };
            let segment = Segment { ts_ns: i as u64, seq, flags: flags & 0x1f, len, bytes: &bytes };
            let found = streams.feed(key(), &segment);
            prop_assert!(found.messages.iter().all(|m| m.bytes.len() <= CAPTURE_BYTES));
            prop_assert!(streams.table.values().all(|s| s.held.len() <= MAX_HELD));
            prop_assert_eq!(streams.table.len(), streams.order.len());
        }
    }

    #[test]
    fn any_segmentation_and_repetition_finds_the_same_messages(
        names in prop::collection::vec("[a-z]{1,12}", 1..12),
        cuts in prop::collection::vec(0usize..400, 0..8),
        swaps in prop::collection::vec((0usize..9, 0usize..9), 0..6),
        repeats in prop::collection::vec(0usize..9, 0..3),
    ) {
        let messages: Vec<_> = names.iter().enumerate().map(|(i, n)| query(i as u16, n, 1)).collect();
        let wire: Vec<u8> = messages.iter().flat_map(|m| framed(m)).collect();
        let mut bounds: Vec<usize> = cuts.into_iter().map(|c| c % wire.len()).chain([0, wire.len()]).collect();
        bounds.sort_unstable();
        let mut parts: Vec<_> = bounds.windows(2).map(|w| (w[0], &wire[w[0]..w[1]])).collect();
        for (a, b) in swaps {
            let n = parts.len();
            parts.swap(a % n, b % n);
        }
        for r in repeats {
            parts.push(parts[r % parts.len()]);
        }
        let mut rig = Rig::connected();
        let mut got = Vec::new();
        for (offset, bytes) in parts {
            let found = rig.data(offset, bytes);
            prop_assert_eq!(found.unparsable, 0);
            got.extend(bodies(&found));
        }
        prop_assert_eq!(got, messages);
    }
}
