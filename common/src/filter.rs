//! The packet filter that kernel programs apply: every given kind of term must match, any value of a kind may.

/// Networks that one filter can name.
pub const MAX_NETS: usize = 4;
/// Ports that one filter can name.
pub const MAX_PORTS: usize = 4;

/// A network, or a host when all mask bits are set. IPv4 uses the first four bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Net {
    /// Address, network byte order, already masked.
    pub addr: [u8; 16],
    /// Mask, network byte order.
    pub mask: [u8; 16],
}

/// A compiled `--filter`. All zero matches everything.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Networks; a packet matches when its source or destination is in one of them.
    pub nets: [Net; MAX_NETS],
    /// IP version of each network, 4 or 6.
    pub net_family: [u8; MAX_NETS],
    /// How many networks are given.
    pub net_count: u32,
    /// Ports; a packet matches when its source or destination port is one of them.
    pub ports: [u16; MAX_PORTS],
    /// How many ports are given.
    pub port_count: u32,
    /// IANA protocol number, 0 for any. ICMP stands for ICMPv6 too.
    pub protocol: u32,
}

impl Filter {
    /// Whether it lets everything pass, so that programs need not look.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.net_count == 0 && self.port_count == 0 && self.protocol == 0
    }
}

const _: () = assert!(size_of::<Filter>() == 152);
