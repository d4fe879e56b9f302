//! Packets in flight: when a packet passed each stage, kept by its `sk_buff` address.
//!
//! A direct-mapped table: no hash chains, no allocation, one cache line a packet. Two packets whose addresses share
//! a slot overwrite each other; the loser's later stages find a foreign key and are counted as unmatched.

use crate::{iface::Place, kernel::key, maps::FLIGHTS};

/// Slots of the table; a power of two.
pub const SLOTS: u32 = 8192;

/// One packet's times.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub struct Flight {
    /// Whose slot this is, see [`key`].
    pub key: u64,
    /// Received (netif_receive_skb), ns.
    pub received_ns: u64,
    /// Queued on its socket, ns.
    pub queued_ns: u64,
    /// Entered the qdisc, then handed to the driver, ns.
    pub sent_ns: u64,
    /// Namespace of `ifindex`.
    pub netns: u32,
    /// Interface at which the packet is.
    pub ifindex: u32,
    /// Its scope.
    pub scope: u16,
    /// See [`stage`].
    pub stages: u16,
    /// Low half of `skb->head`: a clone that never was received may have the address of a packet that is gone, but
    /// not its data.
    pub head: u32,
}

/// Bits of [`Flight::stages`]: what has happened to the packet.
pub mod stage {
    /// `received_ns` is set.
    pub const RECEIVED: u16 = 1;
    /// `queued_ns` is set.
    pub const QUEUED: u16 = 2;
    /// Its first bytes were copied to the application.
    pub const COPIED: u16 = 4;
    /// `sent_ns` is when it entered the qdisc.
    pub const IN_QDISC: u16 = 8;
    /// `sent_ns` is when it was handed to the driver.
    pub const IN_DRIVER: u16 = 16;
    /// It is not to be measured.
    pub const IGNORED: u16 = 32;
    /// The time it took to the first qdisc is recorded.
    pub const LEFT: u16 = 64;
    /// A datagram: its socket's queue knows the rest.
    pub const DATAGRAM: u16 = 128;
    /// It passes untimed, because more come than the budget has time for; always with [`IGNORED`].
    pub const PASSED: u16 = 256;
    /// It passes, and was sent last: where the other end of its device is here, it passes there too.
    pub const PASSED_OUT: u16 = 512;
    /// The same, at a device below the one at which it was decided.
    pub const PASSED_ON: u16 = 1024;
}

impl Flight {
    /// Whether a stage was passed.
    #[inline(always)]
    pub fn has(&self, bits: u16) -> bool {
        self.stages & bits != 0
    }

    /// Begins anew for a packet.
    #[inline(always)]
    pub fn begin(&mut self, key: u64, place: &Place, stages: u16) {
        self.key = key;
        self.stages = stages;
        self.netns = place.netns;
        self.ifindex = place.ifindex;
        self.scope = place.scope;
    }

    /// Where the packet was last seen.
    #[inline(always)]
    pub fn place(&self) -> Place {
        Place { netns: self.netns, ifindex: self.ifindex, scope: self.scope }
    }
}

/// The slot of a packet, with its key; whether the slot is the packet's own is for the caller to compare.
#[inline(always)]
pub fn slot(skb: *const u8) -> Option<(&'static mut Flight, u64)> {
    let key = key(skb);
    // A sk_buff takes 256 bytes of its slab, or 512 with its clone: those of one slab lie side by side here too, on pages
    // that are used already.
    let index = (key >> 8) as u32 & (SLOTS - 1);
    // SAFETY: the value lives as long as the map; see the module's head about two writers.
    FLIGHTS.get_ptr_mut(index).map(|p| (unsafe { &mut *p }, key))
}

/// The slot of a packet that is known.
#[inline(always)]
pub fn find(skb: *const u8) -> Option<&'static mut Flight> {
    let (flight, key) = slot(skb)?;
    (flight.key == key).then_some(flight)
}
