//! `drop`: packets that the kernel dropped, by reason and location.

use crate::wire::{Flow, Header, Record};

/// One dropped packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drop {
    /// Record header.
    pub header: Header,
    /// Whose packet.
    pub flow: Flow,
    /// Kernel address of the code that dropped it.
    pub location: u64,
    /// `enum skb_drop_reason`; 0 where the kernel has none.
    pub reason: u32,
    /// Packet length, bytes.
    pub bytes: u32,
}

/// Key of the exact in-kernel drop counts.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct DropKey {
    /// Kernel address of the code that dropped.
    pub location: u64,
    /// `enum skb_drop_reason`.
    pub reason: u32,
    /// Interface scope.
    pub scope: u32,
}

const _: () = assert!(size_of::<Drop>() == 80);
const _: () = assert!(size_of::<DropKey>() == 16);
// SAFETY: `repr(C)`, integers only, size asserted to leave no padding.
unsafe impl Record for Drop {}
#[cfg(feature = "user")]
// SAFETY: `repr(C)`, integers only, no padding.
unsafe impl aya::Pod for DropKey {}
