//! `rtt`: net.rtt, the passive round trip by sequence and acknowledgement numbers.
//!
//! Hooks: TC / XDP (see `wire`). Each flow has one sample in flight: a segment with data (or SYN) that leaves is noted,
//! the first acknowledgement that comes in and covers it ends the sample, and a retransmission voids it (Karn's
//! algorithm, RFC 6298, 3). What comes in and is acknowledged by what leaves would measure this side, not the network; for
//! `black_hole` it is followed all the same where it comes from a pod.
//! A connection's first segment begins a sample, one that is longer than any that was acknowledged before (see
//! `black_hole`), and of the others one in eight, chosen by its sequence number: round trips of one flow differ little,
//! and each sample costs two clock readings.
//! Yields: a histogram by interface. A receiver that delays its acknowledgements shows that delay here.
//! Cost: one slot a segment, a clock reading only at the ends of a sample.

use nettrace_common::{
    Signal,
    config::wire::{BLACK_HOLE, RTT},
    probes::{black_hole::CARRIED_BYTES, rtt::chosen},
    wire::{Cause, Direction, Kind, Measure},
};

use crate::{
    emit::{header, now_ns, reserve, submit, wanted},
    hist,
    maps::RTTS,
    packet::Packet,
    probes::{
        black_hole::{self, Sizes},
        wire::{self, Seen},
    },
};

/// Slots of the table; a power of two.
pub const RTT_SLOTS: u32 = 8192;
/// A sample older than this is void: the peer is gone.
const STALE_NS: u64 = 30_000_000_000;

/// One flow at one interface, with its sample in flight. Two to a cache line.
#[repr(C, align(32))]
#[derive(Clone, Copy)]
pub struct RttSlot {
    /// Hash of the flow and the interface.
    tag: u64,
    /// When the segment left, ns; 0 when there is no sample.
    sent_ns: u64,
    /// The sequence number that acknowledges it.
    end: u32,
    /// Hash of the segment's sender: on loopback what leaves comes in, too, and does not acknowledge itself.
    sender: u32,
    /// How long segments fare.
    pub sizes: Sizes,
}

/// The numbers of a TCP segment.
#[derive(Clone, Copy)]
pub struct Segment {
    /// Sequence number of its first byte.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Flag byte.
    pub flags: u8,
    /// Offset of its payload.
    pub payload: u32,
    /// Payload bytes.
    pub len: u32,
}

/// FIN
pub const FIN: u8 = 1;
/// SYN
pub const SYN: u8 = 2;
/// RST
pub const RST: u8 = 4;
/// ACK
pub const ACK: u8 = 16;

/// Reads a packet's TCP header; none when it is cut off or too long.
#[inline(always)]
pub fn segment<P: Packet>(seen: &Seen<'_, P>) -> Option<Segment> {
    // Read once: of a second read at a fixed distance the compiler knows that it is in bounds, and the verifier not.
    let tcp: [u8; 20] = seen.packet.near(seen.parsed.transport)?;
    let header = u32::from(tcp[12] >> 4) * 4;
    if header < 20 || header > seen.parsed.transport_len {
        return None;
    }
    Some(Segment {
        seq: u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]),
        ack: u32::from_be_bytes([tcp[8], tcp[9], tcp[10], tcp[11]]),
        flags: tcp[13],
        payload: seen.parsed.transport + header,
        len: seen.parsed.transport_len - header,
    })
}

/// Notes or ends a sample.
#[inline(always)]
pub fn look<P: Packet>(seen: &Seen<'_, P>, segment: &Segment) {
    let out = matches!(seen.direction, Direction::Out);
    let consumes = segment.len + u32::from(segment.flags & (SYN | FIN) != 0);
    // Most packets of a connection that only receives or only sends can neither begin a sample nor end one.
    let sends = consumes != 0 && segment.flags & RST == 0 && (out || from_pod(seen, segment));
    let acknowledges = segment.flags & ACK != 0 && (!out || wire::wanted(BLACK_HOLE) && seen.host_end);
    if !(sends || acknowledges) {
        return;
    }
    let flow = &seen.parsed.flow;
    let from = end_hash(&flow.saddr, flow.sport);
    let to = end_hash(&flow.daddr, flow.dport);
    let ends = from.wrapping_add(to) ^ u64::from(seen.place.ifindex);
    if sends {
        let tag = tag(ends, out);
        // SAFETY: the value lives as long as the map; a race between two CPUs spoils one sample at the most.
        if let Some(slot) = slot(tag).map(|slot| unsafe { &mut *slot }) {
            left(seen, slot, segment, consumes, tag, from as u32);
        }
    }
    if acknowledges {
        let tag = tag(ends, !out);
        // SAFETY: as above.
        if let Some(slot) = slot(tag).map(|slot| unsafe { &mut *slot })
            && slot.tag == tag
            && slot.sender == to as u32
        {
            came_in(seen, slot, segment);
        }
    }
}

/// Whether a packet that is received was sent on this machine, and may be too long for its path: its way begins here.
#[inline(always)]
fn from_pod<P: Packet>(seen: &Seen<'_, P>, segment: &Segment) -> bool {
    wire::wanted(BLACK_HOLE)
        && seen.host_end
        && (segment.flags & SYN != 0 || wire_len(seen, segment) > CARRIED_BYTES)
}

/// What tells a flow's samples at an interface: of those that left by it, or of those that came from the pod behind it.
#[inline(always)]
fn tag(ends: u64, leaves: bool) -> u64 {
    mix(if leaves { ends } else { !ends }) | 1
}

#[inline(always)]
fn slot(tag: u64) -> Option<*mut RttSlot> {
    RTTS.get_ptr_mut((tag >> 51) as u32 & (RTT_SLOTS - 1))
}

/// Length of each packet that this one is on the wire, without the link header, bytes.
#[inline(always)]
fn wire_len<P: Packet>(seen: &Seen<'_, P>, segment: &Segment) -> u16 {
    let payload = match seen.packet.segment_len() {
        0 => segment.len,
        len => len,
    };
    let len = segment.payload.wrapping_sub(seen.link_len).wrapping_add(payload);
    if len > u32::from(u16::MAX) { u16::MAX } else { len as u16 }
}

#[inline(always)]
fn left<P: Packet>(
    seen: &Seen<'_, P>,
    slot: &mut RttSlot,
    segment: &Segment,
    consumes: u32,
    tag: u64,
    sender: u32,
) {
    let end = segment.seq.wrapping_add(consumes);
    let bytes = wire_len(seen, segment);
    let opens = segment.flags & SYN != 0;
    if slot.tag == tag && slot.sent_ns != 0 && !(opens && slot.end != end) {
        // Bytes of the sample are sent again: whichever copy is acknowledged, the time would be a guess.
        if slot.sender == sender && (after_or_at(slot.end, end) || !after_or_at(segment.seq, slot.end)) {
            black_hole::sent_again(seen, &mut slot.sizes, segment.seq, bytes);
        }
        return;
    }
    let passed = if slot.tag == tag && !opens { slot.sizes.passed } else { 0 };
    let longer = passed != 0 && bytes > passed;
    if !(opens || longer || chosen(end)) {
        return;
    }
    *slot = RttSlot { tag, sent_ns: now_ns(), end, sender, sizes: Sizes::begin(bytes, passed) };
}

#[inline(always)]
fn came_in<P: Packet>(seen: &Seen<'_, P>, slot: &mut RttSlot, segment: &Segment) {
    if slot.sent_ns == 0 {
        return;
    }
    if !after_or_at(segment.ack, slot.end) {
        let header = segment.payload.wrapping_sub(seen.parsed.transport);
        return black_hole::heard(&mut slot.sizes, segment.flags, header);
    }
    let sent_ns = slot.sent_ns;
    slot.sent_ns = 0;
    let again = slot.sizes.is_again();
    black_hole::acknowledged(seen, &mut slot.sizes);
    // The round trip of what a pod sent begins before its node.
    if again || matches!(seen.direction, Direction::Out) {
        return;
    }
    let now = now_ns();
    let rtt = now - sent_ns;
    if rtt < STALE_NS {
        measure(seen, rtt, now);
    }
}

#[inline(always)]
fn after_or_at(a: u32, b: u32) -> bool {
    a.wrapping_sub(b) as i32 >= 0
}

#[inline(always)]
fn measure<P: Packet>(seen: &Seen<'_, P>, rtt: u64, now: u64) {
    if !wire::wanted(RTT) {
        return;
    }
    hist::record(Signal::NetRtt, seen.place.scope, rtt);
    let Some(cause) = wanted(Signal::NetRtt, rtt) else { return };
    send(seen, rtt, now, cause);
}

#[inline(always)]
fn send<P: Packet>(seen: &Seen<'_, P>, rtt: u64, now: u64, cause: Cause) {
    let Some(mut entry) = reserve::<Measure>() else { return };
    let record = entry.as_mut_ptr();
    // SAFETY: the reservation is as large as the record; every member is written.
    unsafe {
        (*record).header = header::<Measure>(Kind::Measure, seen.direction, &seen.place, now);
        (*record).flow = seen.parsed.flow;
        (*record).latency_ns = rtt;
        (*record).bytes = seen.packet.len();
        (*record).signal = Signal::NetRtt as u8;
        (*record).cause = cause as u8;
        (*record).pad = [0; 2];
    }
    submit(entry);
}

#[inline(always)]
fn end_hash(addr: &[u8; 16], port: u16) -> u64 {
    // SAFETY: both are 16 plain bytes.
    let words: [u64; 2] = unsafe { core::mem::transmute(*addr) };
    mix(mix(words[0]) ^ words[1] ^ u64::from(port) << 48)
}

#[inline(always)]
fn mix(x: u64) -> u64 {
    let x = x.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    x ^ x >> 29
}
