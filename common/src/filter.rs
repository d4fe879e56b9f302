//! The packet filter that kernel programs apply: every given kind of term must match, any value of a kind may.

use crate::wire::Flow;

/// Networks that one filter can name.
pub const MAX_NETS: usize = 4;
/// Ports that one filter can name.
pub const MAX_PORTS: usize = 4;

/// A network, or a host when all mask bits are set. IPv4 uses the first four bytes.
#[repr(C, align(8))]
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

/// Whether a packet passes.
#[inline(always)]
#[must_use]
pub fn matches(filter: &Filter, flow: &Flow) -> bool {
    protocol_matches(filter, flow) && ports_match(filter, flow) && nets_match(filter, flow)
}

#[inline(always)]
fn protocol_matches(filter: &Filter, flow: &Flow) -> bool {
    const ICMP: u32 = 1;
    const ICMPV6: u8 = 58;
    filter.protocol == 0
        || filter.protocol == flow.protocol as u32
        || (filter.protocol == ICMP && flow.protocol == ICMPV6)
}

#[inline(always)]
fn ports_match(filter: &Filter, flow: &Flow) -> bool {
    if filter.port_count == 0 {
        return true;
    }
    let mut found = false;
    for (i, port) in filter.ports.iter().enumerate() {
        found |= (i as u32) < filter.port_count && (*port == flow.sport || *port == flow.dport);
    }
    found
}

#[inline(always)]
fn nets_match(filter: &Filter, flow: &Flow) -> bool {
    if filter.net_count == 0 {
        return true;
    }
    let mut found = false;
    for (i, net) in filter.nets.iter().enumerate() {
        if (i as u32) < filter.net_count && filter.net_family[i] == flow.family {
            found |= net.contains(&flow.saddr) || net.contains(&flow.daddr);
        }
    }
    found
}

impl Net {
    /// Whether an address lies in it.
    #[inline(always)]
    #[must_use]
    pub fn contains(&self, addr: &[u8; 16]) -> bool {
        let (addr, mask, net) = (words(addr), words(&self.mask), words(&self.addr));
        let differs = ((addr[0] & mask[0]) ^ net[0]) | ((addr[1] & mask[1]) ^ net[1]);
        differs == 0
    }
}

#[inline(always)]
fn words(bytes: &[u8; 16]) -> [u64; 2] {
    // SAFETY: both are 16 plain bytes.
    unsafe { core::mem::transmute(*bytes) }
}

const _: () = assert!(size_of::<Filter>() == 152);
