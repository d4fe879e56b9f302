//! Exact event counts that kernel programs keep per CPU, so that totals hold even when the ring loses records.

use crate::Loss;

/// What is counted.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Counter {
    /// Records that a program tried to send: received + ring_full = this.
    Emitted = 0,
    /// Connections that a local client established.
    TcpConnect = 1,
    /// Connections that a local client failed to establish.
    TcpConnectFailed = 2,
    /// Connections that a local server accepted into its queue.
    TcpAccept = 3,
    /// Segments sent again.
    TcpRetransmit = 4,
    /// RST sent.
    TcpResetSent = 5,
    /// RST received.
    TcpResetReceived = 6,
    /// IPv4 fragments received.
    FragmentInV4 = 7,
    /// IPv6 fragments received.
    FragmentInV6 = 8,
    /// IPv4 fragments sent.
    FragmentOutV4 = 9,
    /// IPv6 fragments sent.
    FragmentOutV6 = 10,
    /// Datagrams whose last missing fragment was seen.
    Reassembled = 11,
    /// ICMP fragmentation needed / ICMPv6 packet too big.
    PacketTooBig = 12,
    /// Packets dropped.
    Drop = 13,
    /// DNS messages sent to user space.
    DnsMessage = 14,
    /// Segments sent again after a timeout.
    TcpRetransmitTimeout = 15,
    /// Segments sent again because acknowledgements told of their loss.
    TcpRetransmitFast = 16,
    /// Packets whose connection another one had entered first, and that were let through all the same.
    ConntrackResolved = 17,
    /// Packets dropped because another one had entered their connection, or one that is answered the same, first.
    ConntrackClash = 18,
    /// Packets dropped because their connection found no room in the table.
    ConntrackFull = 19,
    /// Connections that came to be entered into the table while that was looked at.
    ConntrackEntered = 20,
    /// Of these, connections whose source is translated.
    ConntrackSourceNat = 21,
    /// Of these, connections whose destination is translated.
    ConntrackDestinationNat = 22,
}

impl Counter {
    /// All counters, in the order of their numbers.
    pub const ALL: [Self; 23] = [
        Self::Emitted,
        Self::TcpConnect,
        Self::TcpConnectFailed,
        Self::TcpAccept,
        Self::TcpRetransmit,
        Self::TcpResetSent,
        Self::TcpResetReceived,
        Self::FragmentInV4,
        Self::FragmentInV6,
        Self::FragmentOutV4,
        Self::FragmentOutV6,
        Self::Reassembled,
        Self::PacketTooBig,
        Self::Drop,
        Self::DnsMessage,
        Self::TcpRetransmitTimeout,
        Self::TcpRetransmitFast,
        Self::ConntrackResolved,
        Self::ConntrackClash,
        Self::ConntrackFull,
        Self::ConntrackEntered,
        Self::ConntrackSourceNat,
        Self::ConntrackDestinationNat,
    ];
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();
}

/// How many packets a CPU times, where their number is limited.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Budget {
    /// Packets that began their way.
    pub packets: u64,
    /// Of these, packets that passed untimed, because more came than the limit.
    pub passed: u64,
    /// Share of packets that is timed, of 2^32; 0 for all.
    pub chosen: u64,
    /// Last number of the generator that chooses.
    pub turn: u64,
    /// Jiffies when the rate of packets was last looked at.
    pub tick: u64,
    /// When the rate of packets was last judged, ns.
    pub window_ns: u64,
    /// [`Budget::packets`] at that time.
    pub window_packets: u64,
}

/// What one CPU counts.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Books {
    /// How many packets are timed; first, because it is looked at most, and should lie together.
    pub budget: Budget,
    /// By [`Counter`].
    pub counters: [u64; Counter::COUNT],
    /// By [`Loss`].
    pub losses: [u64; Loss::IN_KERNEL],
    /// When NET_RX was raised and has not run yet, ns; 0 when not pending.
    pub net_rx_raised_ns: u64,
    /// Packets since the last sample.
    pub unsampled: u64,
}

const _: () = assert!(size_of::<Books>() == 8 * (Counter::COUNT + Loss::IN_KERNEL + 2 + 7));
#[cfg(feature = "user")]
// SAFETY: `repr(C)`, u64 members only.
unsafe impl aya::Pod for Books {}
