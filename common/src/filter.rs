//! The packet filter that kernel programs apply: every given kind of term must match, any value of a kind may.
//! [`matches`] is its meaning, on both sides of the kernel boundary.

use crate::wire::Flow;

/// Networks that one filter can name.
pub const MAX_NETS: usize = 4;
/// Ports that one filter can name.
pub const MAX_PORTS: usize = 4;

/// A network, or a host when all mask bits are set. IPv4 uses the first four bytes.
/// Aligned, so that kernel programs compare by words.
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

const ICMP: u32 = 1;
const ICMPV6: u32 = 58;

/// Whether a flow passes a filter. A flow whose ends are not known (`family` 0) passes only an empty one, and a
/// fragment without ports passes no filter that names a port.
#[inline(always)]
#[must_use]
pub fn matches(filter: &Filter, flow: &Flow) -> bool {
    protocol_matches(filter, flow) && port_matches(filter, flow) && net_matches(filter, flow)
}

#[inline(always)]
fn protocol_matches(filter: &Filter, flow: &Flow) -> bool {
    let protocol = u32::from(flow.protocol);
    filter.protocol == 0
        || flow.family != 0 && (filter.protocol == protocol || filter.protocol == ICMP && protocol == ICMPV6)
}

#[inline(always)]
fn port_matches(filter: &Filter, flow: &Flow) -> bool {
    if filter.port_count == 0 {
        return true;
    }
    for (i, port) in filter.ports.iter().enumerate() {
        if (i as u32) < filter.port_count && *port != 0 && (*port == flow.sport || *port == flow.dport) {
            return flow.family != 0;
        }
    }
    false
}

#[inline(always)]
fn net_matches(filter: &Filter, flow: &Flow) -> bool {
    if filter.net_count == 0 {
        return true;
    }
    // Byte order does not matter to `and` and `==`, so addresses are compared as they lie in memory.
    let source = u128::from_ne_bytes(flow.saddr);
    let destination = u128::from_ne_bytes(flow.daddr);
    for (i, (net, family)) in filter.nets.iter().zip(&filter.net_family).enumerate() {
        let address = u128::from_ne_bytes(net.addr);
        let mask = u128::from_ne_bytes(net.mask);
        if (i as u32) < filter.net_count
            && *family != 0
            && *family == flow.family
            && (source & mask == address || destination & mask == address)
        {
            return true;
        }
    }
    false
}

const _: () = assert!(size_of::<Filter>() == 152);

#[cfg(test)]
mod tests {
    use super::*;

    fn flow() -> Flow {
        let mut flow = Flow { sport: 40_000, dport: 53, protocol: 17, family: 4, ..Flow::default() };
        flow.saddr[..4].copy_from_slice(&[10, 1, 2, 3]);
        flow.daddr[..4].copy_from_slice(&[192, 0, 2, 1]);
        flow
    }

    fn with_net(addr: &[u8], mask: &[u8], family: u8) -> Filter {
        let mut filter = Filter { net_count: 1, ..Filter::default() };
        filter.nets[0].addr[..addr.len()].copy_from_slice(addr);
        filter.nets[0].mask[..mask.len()].copy_from_slice(mask);
        filter.net_family[0] = family;
        filter
    }

    #[test]
    fn an_empty_filter_passes_everything() {
        assert!(Filter::default().is_empty());
        assert!(matches(&Filter::default(), &flow()));
        assert!(matches(&Filter::default(), &Flow::default()));
    }

    #[test]
    fn an_unknown_flow_passes_no_other_filter() {
        let unknown = Flow::default();
        assert!(!matches(&Filter { protocol: 6, ..Filter::default() }, &unknown));
        assert!(!matches(&Filter { port_count: 1, ..Filter::default() }, &unknown));
        assert!(!matches(&with_net(&[], &[], 4), &unknown));
        assert!(!matches(&with_net(&[], &[], 0), &unknown));
    }

    #[test]
    fn either_end_may_match() {
        let port = |port| Filter { ports: [9, port, 0, 0], port_count: 2, ..Filter::default() };
        assert!(matches(&port(53), &flow()) && matches(&port(40_000), &flow()));
        assert!(!matches(&port(54), &flow()));
        assert!(matches(&with_net(&[10], &[255], 4), &flow()));
        assert!(matches(&with_net(&[192, 0, 2, 1], &[255; 4], 4), &flow()));
        assert!(!matches(&with_net(&[192, 0, 2, 2], &[255; 4], 4), &flow()));
    }

    #[test]
    fn only_what_is_counted_is_compared() {
        let filter = Filter { ports: [9, 53, 53, 53], port_count: 1, ..Filter::default() };
        assert!(!matches(&filter, &flow()));
        let beyond = Filter { port_count: u32::MAX, net_count: u32::MAX, ..Filter::default() };
        assert!(!matches(&beyond, &flow()));
    }

    #[test]
    fn a_family_matches_its_own_only() {
        assert!(matches(&with_net(&[], &[], 4), &flow()));
        assert!(!matches(&with_net(&[], &[], 6), &flow()));
    }

    #[test]
    fn icmp_stands_for_both_versions() {
        let icmp = Filter { protocol: 1, ..Filter::default() };
        let icmpv6 = Filter { protocol: 58, ..Filter::default() };
        let v4 = Flow { protocol: 1, ..flow() };
        let v6 = Flow { protocol: 58, family: 6, ..flow() };
        assert!(matches(&icmp, &v4) && matches(&icmp, &v6));
        assert!(!matches(&icmpv6, &v4) && matches(&icmpv6, &v6));
    }

    #[test]
    fn every_kind_must_match() {
        let both = Filter { protocol: 17, ..with_net(&[10], &[255], 4) };
        assert!(matches(&both, &flow()));
        assert!(!matches(&both, &Flow { protocol: 6, ..flow() }));
        assert!(!matches(&Filter { protocol: 17, ..with_net(&[11], &[255], 4) }, &flow()));
    }
}
