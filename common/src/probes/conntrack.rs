//! `conntrack`: packets that connection tracking had trouble with.

use crate::{
    Counter,
    wire::{Flow, Header, Record},
};

/// A packet that connection tracking had trouble with.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trouble {
    /// Record header.
    pub header: Header,
    /// Whose packet, with the addresses that it had at that place.
    pub flow: Flow,
    /// A [`What`].
    pub what: u8,
    /// Zero.
    pub pad: [u8; 7],
}

/// What happened to it.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum What {
    /// Another packet had entered the same connection first; this one was let through.
    Resolved = 0,
    /// Another packet had entered the same connection, or one that is answered the same, first; this one was dropped.
    Clash = 1,
    /// There was no room for its connection; it was dropped.
    Full = 2,
}

impl What {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Resolved, Self::Clash, Self::Full];

    /// As snapshots and reports name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Resolved => "clash resolved",
            Self::Clash => "clash dropped",
            Self::Full => "table full",
        }
    }

    /// Where it is counted.
    #[must_use]
    pub const fn counter(self) -> Counter {
        match self {
            Self::Resolved => Counter::ConntrackResolved,
            Self::Clash => Counter::ConntrackClash,
            Self::Full => Counter::ConntrackFull,
        }
    }

    /// That of a number from the wire.
    #[must_use]
    pub const fn from_u8(n: u8) -> Option<Self> {
        match n {
            0 => Some(Self::Resolved),
            1 => Some(Self::Clash),
            2 => Some(Self::Full),
            _ => None,
        }
    }
}

const _: () = assert!(size_of::<Trouble>() == 72);
// SAFETY: `repr(C)`, integers only, size asserted to leave no padding.
unsafe impl Record for Trouble {}
