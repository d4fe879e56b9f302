//! Ring buffer records. Each starts with a [`Header`] whose `len` covers the whole record; the reader trusts
//! neither.

/// What a record is.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// [`Measure`]: one latency of one packet.
    Measure = 1,
    /// [`crate::probes::dns::DnsMessage`].
    Dns = 2,
    /// [`crate::probes::tcp::TcpEvent`].
    Tcp = 3,
    /// [`crate::probes::drop::Drop`].
    Drop = 4,
    /// [`crate::probes::frag::Reassembly`].
    Reassembly = 5,
    /// [`crate::probes::ptb::PacketTooBig`].
    PacketTooBig = 6,
    /// [`crate::probes::conntrack::Trouble`].
    Conntrack = 7,
    /// [`crate::probes::black_hole::Stuck`].
    Stuck = 8,
    /// [`crate::probes::fragmenting::Fragmenting`].
    Fragmenting = 9,
}

/// Which way a packet went through its interface.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Not tied to an interface.
    None = 0,
    /// Received.
    In = 1,
    /// Sent.
    Out = 2,
}

/// The start of every record.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// When it happened, CLOCK_MONOTONIC, ns.
    pub ts_ns: u64,
    /// A [`Kind`].
    pub kind: u8,
    /// A [`Direction`].
    pub direction: u8,
    /// Bytes of the whole record, header included.
    pub len: u16,
    /// Interface, 0 where none is known.
    pub ifindex: u32,
    /// Inode number of the network namespace, 0 where not known.
    pub netns: u32,
    /// Interface scope, see [`crate::MAX_SCOPES`].
    pub scope: u16,
    /// The CPU that wrote it.
    pub cpu: u16,
}

/// The ends of a packet's way. All zero where the program could not tell. Aligned, so that kernel programs copy and
/// compare addresses by words.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Source address, network byte order; IPv4 in the first four bytes.
    pub saddr: [u8; 16],
    /// Destination address, likewise.
    pub daddr: [u8; 16],
    /// Source port, host byte order.
    pub sport: u16,
    /// Destination port, host byte order.
    pub dport: u16,
    /// IANA protocol number.
    pub protocol: u8,
    /// 4, 6, or 0 when not IP.
    pub family: u8,
    /// An [`Encap`]: what the packet was wrapped in.
    pub encap: u8,
    /// Zero.
    pub pad: u8,
}

/// Outer headers recognised around a packet.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encap {
    /// None.
    None = 0,
    /// VXLAN, RFC 7348.
    Vxlan = 1,
    /// Geneve, RFC 8926.
    Geneve = 2,
    /// IP in IP, RFC 2003 and RFC 2473.
    Ipip = 3,
}

/// Why a [`Measure`] was sent.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// One packet in `sample_every`.
    Sample = 0,
    /// Slower than the signal's threshold.
    Exemplar = 1,
}

/// One latency of one packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measure {
    /// Record header.
    pub header: Header,
    /// Whose packet.
    pub flow: Flow,
    /// The latency, ns.
    pub latency_ns: u64,
    /// Packet length, bytes.
    pub bytes: u32,
    /// A [`crate::Signal`].
    pub signal: u8,
    /// A [`Cause`].
    pub cause: u8,
    /// Zero.
    pub pad: [u8; 2],
}

const _: () = assert!(size_of::<Header>() == 24);
const _: () = assert!(size_of::<Flow>() == 40);
const _: () = assert!(size_of::<Measure>() == 80);

/// The longest record: a DNS message with all its captured bytes.
pub const MAX_RECORD: usize = size_of::<crate::probes::dns::DnsMessage>() + crate::probes::dns::CAPTURE_BYTES;

impl Kind {
    /// The kind of a number from the wire.
    #[must_use]
    pub const fn from_u8(n: u8) -> Option<Self> {
        Some(match n {
            1 => Self::Measure,
            2 => Self::Dns,
            3 => Self::Tcp,
            4 => Self::Drop,
            5 => Self::Reassembly,
            6 => Self::PacketTooBig,
            7 => Self::Conntrack,
            8 => Self::Stuck,
            9 => Self::Fragmenting,
            _ => return None,
        })
    }
}

/// Marks the records whose bytes may be read as themselves.
///
/// # Safety
/// The type is `repr(C)`, has no padding, and every bit pattern of it is valid.
pub unsafe trait Record: Copy {}

// SAFETY: `repr(C)`, integers and arrays of integers only, sizes asserted to leave no padding.
unsafe impl Record for Header {}
// SAFETY: as above.
unsafe impl Record for Measure {}
