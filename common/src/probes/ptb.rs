//! `ptb`: ICMP *fragmentation needed* (RFC 1191) and ICMPv6 *packet too big* (RFC 8201) messages.

use crate::wire::{Flow, Header, Record};

/// A router says that a packet does not fit.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacketTooBig {
    /// Record header.
    pub header: Header,
    /// The ICMP message itself: the router (source) -> the sender of the packet that did not fit (destination).
    pub flow: Flow,
    /// Destination of the packet that did not fit, network byte order.
    pub original_daddr: [u8; 16],
    /// The next hop's MTU, bytes.
    pub mtu: u32,
    /// Zero.
    pub pad: u32,
}

const _: () = assert!(size_of::<PacketTooBig>() == 88);
// SAFETY: `repr(C)`, integers only, size asserted to leave no padding.
unsafe impl Record for PacketTooBig {}
