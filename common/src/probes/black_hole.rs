//! `black_hole`: segments that are sent again and again because they are too long for the path, and nobody says so
//! (RFC 2923, 2.1).

use crate::wire::{Flow, Header, Record};

/// A segment that was sent so often again is told of; once or twice is what any loss or probe of a tail does.
pub const TOLD_FROM: u8 = 2;

/// Packets as short as this every path carries: what every IPv4 host takes (RFC 1122, 3.3.2), bytes.
pub const CARRIED_BYTES: u16 = 576;
/// The same for IPv6: its least MTU (RFC 8200, 5), bytes.
pub const CARRIED_BYTES_V6: u16 = 1280;

/// What became of a segment that was sent again.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StuckKind {
    /// It was sent again.
    Again = 1,
    /// It was acknowledged at last.
    Passed = 2,
}

/// A segment that does not get through. The flow is as it was sent.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stuck {
    /// Record header.
    pub header: Header,
    /// Sender and receiver of the segment.
    pub flow: Flow,
    /// Length of its packet without the link header, bytes: for [`StuckKind::Passed`], when it was sent last.
    pub bytes: u32,
    /// The longest packet to that receiver that was acknowledged, bytes; 0 for none.
    pub passed_bytes: u32,
    /// A [`StuckKind`].
    pub event: u8,
    /// Times that it was sent again; 255 for more.
    pub again: u8,
    /// Whether the receiver was heard since, without acknowledging it: it lives, and other segments reach it.
    pub heard: u8,
    /// Zero.
    pub pad: u8,
    /// Number of its first byte, so that copies of an event from several interfaces are told.
    pub seq: u32,
}

/// A receiver as one interface sees it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PeerKey {
    /// Its address, as in [`Flow`].
    pub addr: [u8; 16],
    /// The interface that its packets leave by.
    pub ifindex: u32,
}

impl StuckKind {
    /// The kind of a number from the wire.
    #[must_use]
    pub const fn from_u8(n: u8) -> Option<Self> {
        Some(match n {
            1 => Self::Again,
            2 => Self::Passed,
            _ => return None,
        })
    }
}

const _: () = assert!(size_of::<Stuck>() == 80);
const _: () = assert!(size_of::<PeerKey>() == 20);
// SAFETY: `repr(C)`, integers only, size asserted to leave no padding.
unsafe impl Record for Stuck {}
#[cfg(feature = "user")]
// SAFETY: `repr(C)`, integers only, size asserted to leave no padding.
unsafe impl aya::Pod for PeerKey {}
