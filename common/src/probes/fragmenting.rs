//! `fragmenting`: the kernel cuts datagrams into fragments, and puts them together.

use crate::wire::{Flow, Header, Record};

/// What the kernel does.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Work {
    /// Cuts a datagram and hands the fragments on.
    Cut = 1,
    /// Takes the fragment that completes a datagram, and makes it.
    Join = 2,
}

/// One datagram cut, or put together; or an attempt that failed.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fragmenting {
    /// Record header.
    pub header: Header,
    /// Whose; without ports where a later fragment completes it.
    pub flow: Flow,
    /// Time in the function that does it, ns.
    pub latency_ns: u64,
    /// What the function returned: 0 or, of IPv6, 1 for a datagram made; a negative errno, or what a device's queue says
    /// (`NET_XMIT_DROP`, 1).
    pub result: i32,
    /// A [`Work`].
    pub work: u8,
    /// Zero.
    pub pad: [u8; 3],
}

/// Who does it: a task, or a CPU where an interrupt does.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Worker {
    /// Process and thread, or a CPU.
    pub task: u64,
    /// A [`Work`].
    pub work: u64,
}

/// What a worker began.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begun {
    /// Whose datagram.
    pub flow: Flow,
    /// When, ns.
    pub since_ns: u64,
    /// Network namespace, inode number.
    pub netns: u32,
    /// Interface.
    pub ifindex: u32,
    /// Its scope.
    pub scope: u32,
    /// Zero.
    pub pad: u32,
}

impl Work {
    /// The work of a number from the wire.
    #[must_use]
    pub const fn from_u8(n: u8) -> Option<Self> {
        Some(match n {
            1 => Self::Cut,
            2 => Self::Join,
            _ => return None,
        })
    }

    /// Whether a result says that it failed.
    #[must_use]
    pub const fn failed(self, result: i32) -> bool {
        match self {
            Self::Cut => result != 0,
            // `ipv6_frag_rcv` returns 1.
            Self::Join => result < 0,
        }
    }
}

const _: () = assert!(size_of::<Fragmenting>() == 80);
const _: () = assert!(size_of::<Worker>() == 16);
const _: () = assert!(size_of::<Begun>() == 64);
// SAFETY: `repr(C)`, integers only, size asserted to leave no padding.
unsafe impl Record for Fragmenting {}
#[cfg(feature = "user")]
// SAFETY: `repr(C)`, integers only, size asserted to leave no padding.
unsafe impl aya::Pod for Worker {}
#[cfg(feature = "user")]
// SAFETY: as above.
unsafe impl aya::Pod for Begun {}
