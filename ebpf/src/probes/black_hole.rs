//! `black_hole`: segments that are sent again and again because they are too long for the path, and no message says so.
//!
//! Hooks: TC / XDP (see `wire`), by the samples of `rtt`. What a segment that leaves is too long for is told by what
//! comes of it: the longest one that was acknowledged, of its connection and of its receiver, against one that is sent
//! again and again. A connection's segment that is longer than any before it always begins a sample. Senders are this
//! machine's: what leaves by an interface, and what comes from the pod or virtual machine behind it.
//! Yields: an event each time that such a segment is sent again, from the second time on, and when it passed at last; user
//! space judges. A path that grows too narrow under a connection is seen where the segment or a later one is a sample.
//! Cost: nothing but where segments are sent again, and a hash entry when a longer one than ever is acknowledged.

use nettrace_common::{
    Loss,
    config::wire::BLACK_HOLE,
    probes::black_hole::{PeerKey, Stuck, StuckKind, TOLD_FROM},
    wire::{Flow, Kind},
};

use crate::{
    emit::{header, now_ns, reserve, submit},
    maps::{PASSED, lost},
    packet::Packet,
    probes::{
        rtt::RST,
        wire::{Seen, wanted},
    },
};

/// How a connection's segments fare by their length, at one interface.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Sizes {
    /// Length of the sample's packet when it or one before it was sent last, bytes.
    bytes: u16,
    /// The longest packet that was acknowledged, bytes; 0 for none.
    pub passed: u16,
    /// Tells the segment that is sent again from another one: a hash of its sequence number.
    mark: u16,
    /// Times that it was sent again.
    again: u8,
    /// Whether the other end was heard since, without acknowledging the sample.
    heard: u8,
}

impl Sizes {
    /// A sample is sent.
    #[inline(always)]
    pub const fn begin(bytes: u16, passed: u16) -> Self {
        Self { bytes, passed, mark: 0, again: 0, heard: 0 }
    }

    /// Whether bytes of the sample were sent again.
    #[inline(always)]
    pub const fn is_again(&self) -> bool {
        self.again != 0
    }
}

/// From here on a segment no longer than those that passed before says that the path has changed.
const CHANGED_FROM: u8 = 3;

#[inline(always)]
fn mark(seq: u32) -> u16 {
    (seq.wrapping_mul(0x9E37_79B1) >> 16) as u16
}

/// A segment is sent again, in a packet of so many bytes.
#[inline(always)]
pub fn sent_again<P: Packet>(seen: &Seen<'_, P>, sizes: &mut Sizes, seq: u32, bytes: u16) {
    let mark = mark(seq);
    if sizes.again == 0 || sizes.mark != mark {
        sizes.again = 1;
        sizes.mark = mark;
    } else {
        sizes.again = sizes.again.saturating_add(1);
    }
    sizes.bytes = bytes;
    if !wanted(BLACK_HOLE) || sizes.again < TOLD_FROM || !seen.parsed.whole {
        return;
    }
    if sizes.again == CHANGED_FROM && bytes <= sizes.passed {
        sizes.passed = 0;
        let _ = PASSED.remove(&peer(seen, seen.parsed.flow.daddr));
    }
    tell(seen, sizes, StuckKind::Again, seen.parsed.flow, seq);
}

/// A TCP header of 20 bytes and timestamps (RFC 7323), bytes. What is longer, on an acknowledgement, tells of segments that
/// arrived beyond one that did not (RFC 2018).
const HEADER_WITH_TIMESTAMPS: u32 = 32;

/// The other end says something that does not acknowledge the sample, with a TCP header of so many bytes.
#[inline(always)]
pub fn heard(sizes: &mut Sizes, flags: u8, header: u32) {
    if (sizes.again != 0 || header > HEADER_WITH_TIMESTAMPS) && flags & RST == 0 {
        sizes.heard = 1;
    }
}

/// The sample is acknowledged.
#[inline(always)]
pub fn acknowledged<P: Packet>(seen: &Seen<'_, P>, sizes: &mut Sizes) {
    if wanted(BLACK_HOLE) && sizes.bytes > sizes.passed {
        sizes.passed = sizes.bytes;
        passed(seen, u32::from(sizes.bytes));
    }
    // Whether routers might fragment the answer says nothing of what it answers: that is told by the events before.
    if wanted(BLACK_HOLE) && sizes.again >= TOLD_FROM {
        let Flow { saddr, daddr, sport, dport, .. } = seen.parsed.flow;
        let sent = Flow { saddr: daddr, daddr: saddr, sport: dport, dport: sport, ..seen.parsed.flow };
        tell(seen, sizes, StuckKind::Passed, sent, 0);
    }
    sizes.again = 0;
}

/// Notes the longest packet to a receiver that was acknowledged.
#[inline(always)]
fn passed<P: Packet>(seen: &Seen<'_, P>, bytes: u32) {
    let key = peer(seen, seen.parsed.flow.saddr);
    match PASSED.get_ptr_mut(&key) {
        // SAFETY: the value lives at least until the program ends; of a race between two CPUs the shorter may stay, until
        // the next connection.
        Some(longest) => unsafe {
            if *longest < bytes {
                *longest = bytes;
            }
        },
        None => {
            if PASSED.insert(&key, &bytes, 0).is_err() {
                lost(Loss::MapFull);
            }
        }
    }
}

#[inline(always)]
fn peer<P: Packet>(seen: &Seen<'_, P>, addr: [u8; 16]) -> PeerKey {
    PeerKey { addr, ifindex: seen.place.ifindex }
}

#[inline(always)]
fn tell<P: Packet>(seen: &Seen<'_, P>, sizes: &Sizes, kind: StuckKind, flow: Flow, seq: u32) {
    // SAFETY: the value is read at once.
    let passed_bytes = unsafe { PASSED.get(&peer(seen, flow.daddr)) }.copied().unwrap_or(0);
    let Some(mut entry) = reserve::<Stuck>() else { return };
    let record = entry.as_mut_ptr();
    // SAFETY: the reservation is as large as the record; every member is written.
    unsafe {
        (*record).header = header::<Stuck>(Kind::Stuck, seen.direction, &seen.place, now_ns());
        (*record).flow = flow;
        (*record).bytes = u32::from(sizes.bytes);
        (*record).passed_bytes = passed_bytes;
        (*record).event = kind as u8;
        (*record).again = sizes.again;
        (*record).heard = sizes.heard;
        (*record).pad = 0;
        (*record).seq = seq;
    }
    submit(entry);
}
