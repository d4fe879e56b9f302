//! `frag`: IP fragments and the reassembly of datagrams.

use crate::wire::{Flow, Header, Record};

/// A datagram whose last missing fragment was seen.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reassembly {
    /// Record header.
    pub header: Header,
    /// Whose datagram; ports when the first fragment was seen.
    pub flow: Flow,
    /// First fragment -> complete, ns.
    pub latency_ns: u64,
    /// Identification field.
    pub id: u32,
    /// Payload bytes of the whole datagram.
    pub bytes: u32,
    /// Fragments that made it up.
    pub fragments: u32,
    /// Zero.
    pub pad: u32,
}

/// What makes fragments belong together (RFC 791, 3.2; RFC 8200, 4.5), at one interface.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FragKey {
    /// Source address, as in [`Flow`].
    pub saddr: [u8; 16],
    /// Destination address.
    pub daddr: [u8; 16],
    /// Identification field.
    pub id: u32,
    /// Interface at which they come in.
    pub ifindex: u32,
    /// IANA protocol number.
    pub protocol: u32,
}

/// Fragments of a datagram whose places are remembered, so that a copy of one is not taken for another: those of
/// 64 KiB at an MTU of 1280 bytes, and some more.
pub const PLACES: usize = 64;

/// What was seen of a datagram.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragState {
    /// When the first fragment to be seen was seen, CLOCK_MONOTONIC, ns.
    pub first_ns: u64,
    /// Bytes seen, those of copies left out.
    pub bytes: u32,
    /// Bytes in all; 0 until the last fragment is seen.
    pub total: u32,
    /// Fragments seen, copies left out.
    pub fragments: u32,
    /// Source port, when the first fragment was seen.
    pub sport: u16,
    /// Destination port, likewise.
    pub dport: u16,
    /// Their places: offset / 8 + 1; 0 for none.
    pub places: [u16; PLACES],
}

const _: () = assert!(size_of::<FragKey>() == 44);
const _: () = assert!(size_of::<FragState>() == 152);
const _: () = assert!(size_of::<Reassembly>() == 88);
#[cfg(feature = "user")]
// SAFETY: `repr(C)`, integers only, size asserted to leave no padding.
unsafe impl aya::Pod for FragKey {}
#[cfg(feature = "user")]
// SAFETY: as above.
unsafe impl aya::Pod for FragState {}
// SAFETY: `repr(C)`, integers only, size asserted to leave no padding.
unsafe impl Record for Reassembly {}
