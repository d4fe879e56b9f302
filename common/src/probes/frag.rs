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

const _: () = assert!(size_of::<Reassembly>() == 88);
// SAFETY: `repr(C)`, integers only, size asserted to leave no padding.
unsafe impl Record for Reassembly {}
