//! Flows for people.

use nettrace_common::wire::{Encap, Flow};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// An address from the wire; IPv4 uses the first four bytes.
#[must_use]
pub fn address(bytes: &[u8; 16], family: u8) -> IpAddr {
    if family == 6 {
        return Ipv6Addr::from(*bytes).into();
    }
    let [a, b, c, d, ..] = *bytes;
    Ipv4Addr::new(a, b, c, d).into()
}

/// `10.0.0.1:40000 -> 10.0.0.2:53 udp`, with the outer header's kind where there is one; `?` when not known.
#[must_use]
pub fn flow_text(flow: &Flow) -> String {
    if flow.family != 4 && flow.family != 6 {
        return "?".to_owned();
    }
    let end = |addr: &[u8; 16], port| {
        let addr = address(addr, flow.family);
        if flow.sport == 0 && flow.dport == 0 {
            addr.to_string()
        } else {
            SocketAddr::new(addr, port).to_string()
        }
    };
    let mut text = format!("{} -> {} ", end(&flow.saddr, flow.sport), end(&flow.daddr, flow.dport));
    match flow.protocol {
        1 => text.push_str("icmp"),
        6 => text.push_str("tcp"),
        17 => text.push_str("udp"),
        58 => text.push_str("icmpv6"),
        132 => text.push_str("sctp"),
        n => text.push_str(&format!("proto {n}")),
    }
    let outer = [(Encap::Vxlan, " in vxlan"), (Encap::Geneve, " in geneve"), (Encap::Ipip, " in ipip")];
    text.extend(outer.iter().filter(|(e, _)| *e as u8 == flow.encap).map(|(_, t)| *t));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_read_as_people_write_them() {
        let mut flow = Flow { sport: 40000, dport: 53, protocol: 17, family: 4, ..Flow::default() };
        flow.saddr[..4].copy_from_slice(&[10, 0, 0, 1]);
        flow.daddr[..4].copy_from_slice(&[10, 0, 0, 2]);
        assert_eq!(flow_text(&flow), "10.0.0.1:40000 -> 10.0.0.2:53 udp");
        flow.encap = Encap::Vxlan as u8;
        assert_eq!(flow_text(&flow), "10.0.0.1:40000 -> 10.0.0.2:53 udp in vxlan");
        let v6 = Flow { family: 6, protocol: 58, ..Flow::default() };
        assert_eq!(flow_text(&v6), ":: -> :: icmpv6");
        assert_eq!(flow_text(&Flow::default()), "?");
    }
}
