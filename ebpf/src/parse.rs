//! From a packet's first byte to its transport header: VLAN and QinQ tags, IPv4, IPv6 with extension headers, and
//! VXLAN, Geneve and IP-in-IP outer headers. Nothing in a packet is trusted; every loop is bounded.

use nettrace_common::wire::{Encap, Flow};
use network_types::{
    eth::EthHdr,
    geneve::GeneveHdr,
    ip::{Ipv4Hdr, Ipv6Hdr},
    udp::UdpHdr,
    vxlan::VxlanHdr,
};

use crate::{
    packet::{Packet, opaque, opaque_offset},
    probes::dns,
};

/// One IP packet, the inner one when it was wrapped.
pub struct Parsed {
    /// Addresses, ports and protocol.
    pub flow: Flow,
    /// Offset of the transport header (of the payload, for a fragment that is not the first).
    pub transport: u32,
    /// Bytes from there to the end of the IP packet.
    pub transport_len: u32,
    /// Its place, if it is a fragment.
    pub fragment: Fragment,
    /// Whether routers must not fragment it: all of IPv6 (RFC 8200, 5), and IPv4 with DF.
    pub whole: bool,
}

/// A fragment's place in its datagram. Not an `Option` of one: what that has in it when it has nothing, the compiler
/// still moves about, and verifiers before 6.3 refuse to read what was never written.
#[derive(Clone, Copy)]
pub struct Fragment {
    /// Whether it is a fragment at all.
    pub is_one: bool,
    /// Identification field.
    pub id: u32,
    /// Offset in the datagram's payload, bytes.
    pub offset: u32,
    /// Payload bytes.
    pub len: u32,
    /// More follow.
    pub more: bool,
}

impl Fragment {
    /// Of a whole packet.
    const NONE: Self = Self { is_one: false, id: 0, offset: 0, len: 0, more: false };

    /// Whether it has no transport header: the first one has it.
    #[inline(always)]
    pub fn is_later(&self) -> bool {
        self.is_one && self.offset != 0
    }
}

/// Why there is nothing to look at.
pub enum Skip {
    /// Not IP.
    NotIp,
    /// A header is cut off or contradicts itself.
    Bad,
}

const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
const ETH_P_8021Q: u16 = 0x8100;
const ETH_P_8021AD: u16 = 0x88a8;
const ETH_P_TEB: u16 = 0x6558;

const HOP_BY_HOP: u8 = 0;
const IPIP: u8 = 4;
const TCP: u8 = 6;
const UDP: u8 = 17;
const IPV6: u8 = 41;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTH: u8 = 51;
const NO_NEXT: u8 = 59;
const DEST_OPTS: u8 = 60;

const VXLAN_PORTS: [u16; 2] = [4789, 8472];
const GENEVE_PORT: u16 = 6081;
const MAX_TAGS: u32 = 2;
const MAX_EXTENSIONS: u32 = 6;

/// What a first look at a packet says.
pub enum Plain {
    /// UDP that no probe looks at.
    OfNoConcern,
    /// TCP.
    Tcp(Parsed),
    /// Something else, or not plain: it is to be parsed.
    No,
}

/// A first look, at what most packets are: TCP or UDP over IPv4 without options, tags or fragments, straight from the
/// Ethernet header. It has no loops and few branches; what it does not know is left to [`parse`].
#[inline(always)]
pub fn plain<P: Packet>(p: &P) -> Plain {
    const IP: usize = size_of::<EthHdr>();
    const TRANSPORT: usize = IP + 20;
    const PLAIN: u8 = 0x45;
    let Some(head) = p.head::<{ TRANSPORT + 8 }>() else { return Plain::No };
    let word = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
    // More fragments, or an offset.
    let fragment = word(IP + 6) & 0x3fff != 0;
    let whole = word(IP + 6) & 0x4000 != 0;
    let total = u32::from(word(IP + 2));
    if word(12) != ETH_P_IP || head[IP] != PLAIN || fragment || total < 28 || IP as u32 + total > p.len() {
        return Plain::No;
    }
    let (sport, dport) = (word(TRANSPORT), word(TRANSPORT + 2));
    if head[IP + 9] == UDP {
        let concerns = is_vxlan(dport) || dport == GENEVE_PORT || dns::is_port(sport) || dns::is_port(dport);
        return if concerns { Plain::No } else { Plain::OfNoConcern };
    }
    if head[IP + 9] != TCP {
        return Plain::No;
    }
    let mut flow = Flow { protocol: TCP, family: 4, sport, dport, ..Flow::default() };
    flow.saddr[..4].copy_from_slice(&head[IP + 12..IP + 16]);
    flow.daddr[..4].copy_from_slice(&head[IP + 16..IP + 20]);
    let transport = opaque_offset(TRANSPORT as u32);
    Plain::Tcp(Parsed { flow, transport, transport_len: opaque(total - 20), fragment: Fragment::NONE, whole })
}

#[inline(always)]
fn is_vxlan(port: u16) -> bool {
    port == VXLAN_PORTS[0] || port == VXLAN_PORTS[1]
}

/// Parses a packet that starts with its Ethernet header, or with its IP header where the device has none.
#[inline(always)]
pub fn parse<P: Packet>(p: &P, ethernet: bool) -> Result<Parsed, Skip> {
    let (mut l3, mut ethertype) = if ethernet { link(p, 0)? } else { (0, bare(p)?) };
    let mut encap = 0;
    for layer in 0..2 {
        let mut parsed = network(p, opaque_offset(l3), ethertype)?;
        parsed.flow.encap = encap;
        if layer != 0 || parsed.fragment.is_one {
            return Ok(parsed);
        }
        match unwrap(p, &parsed)? {
            Some((inner, inner_type, by)) => {
                l3 = inner;
                ethertype = opaque(u32::from(inner_type)) as u16;
                encap = opaque(by as u32) as u8;
            }
            None => return Ok(parsed),
        }
    }
    Err(Skip::Bad)
}

/// Network header and EtherType behind an Ethernet header and up to two tags.
#[inline(always)]
fn link<P: Packet>(p: &P, offset: u32) -> Result<(u32, u16), Skip> {
    let eth: EthHdr = p.header(offset).ok_or(Skip::Bad)?;
    let mut ethertype = u16::from_be(eth.ether_type);
    let mut l3 = offset + size_of::<EthHdr>() as u32;
    for _ in 0..MAX_TAGS {
        if ethertype != ETH_P_8021Q && ethertype != ETH_P_8021AD {
            break;
        }
        let tag: [[u8; 2]; 2] = p.header(l3).ok_or(Skip::Bad)?;
        ethertype = u16::from_be_bytes(tag[1]);
        l3 += 4;
    }
    Ok((l3, ethertype))
}

/// EtherType of a packet without a link header.
#[inline(always)]
fn bare<P: Packet>(p: &P) -> Result<u16, Skip> {
    // More than the one byte needed: the verifier learns nothing from a comparison with the packet's very start.
    match p.header::<[u8; 4]>(0).ok_or(Skip::Bad)?[0] >> 4 {
        4 => Ok(ETH_P_IP),
        6 => Ok(ETH_P_IPV6),
        _ => Err(Skip::NotIp),
    }
}

#[inline(always)]
fn network<P: Packet>(p: &P, l3: u32, ethertype: u16) -> Result<Parsed, Skip> {
    let mut parsed = match ethertype {
        ETH_P_IP => ipv4(p, l3)?,
        ETH_P_IPV6 => ipv6(p, l3)?,
        _ => return Err(Skip::NotIp),
    };
    parsed.transport = opaque_offset(parsed.transport);
    parsed.transport_len = opaque(parsed.transport_len);
    if !parsed.fragment.is_later() && (parsed.flow.protocol == TCP || parsed.flow.protocol == UDP) {
        let ports: [[u8; 2]; 2] = p.header(parsed.transport).ok_or(Skip::Bad)?;
        parsed.flow.sport = u16::from_be_bytes(ports[0]);
        parsed.flow.dport = u16::from_be_bytes(ports[1]);
    }
    Ok(parsed)
}

#[inline(always)]
fn ipv4<P: Packet>(p: &P, l3: u32) -> Result<Parsed, Skip> {
    let ip: Ipv4Hdr = p.header(l3).ok_or(Skip::Bad)?;
    let header = u32::from(ip.vihl & 15) * 4;
    let mut total = u32::from(u16::from_be_bytes(ip.tot_len));
    if total == 0 {
        // A segment larger than 64 KiB (BIG TCP) has no length of its own.
        total = p.len().saturating_sub(l3);
    }
    if ip.vihl >> 4 != 4 || header < 20 || total < header {
        return Err(Skip::Bad);
    }
    let frags = u16::from_be_bytes(ip.frags);
    let offset = u32::from(frags & 0x1fff) * 8;
    let more = frags & 0x2000 != 0;
    let mut flow = Flow { protocol: ip.proto, family: 4, ..Flow::default() };
    flow.saddr[..4].copy_from_slice(&ip.src_addr);
    flow.daddr[..4].copy_from_slice(&ip.dst_addr);
    let fragment = Fragment {
        is_one: more || offset != 0,
        id: u32::from(u16::from_be_bytes(ip.id)),
        offset,
        len: total - header,
        more,
    };
    let whole = frags & 0x4000 != 0;
    Ok(Parsed { flow, transport: l3 + header, transport_len: total - header, fragment, whole })
}

#[inline(always)]
fn ipv6<P: Packet>(p: &P, l3: u32) -> Result<Parsed, Skip> {
    let ip: Ipv6Hdr = p.header(l3).ok_or(Skip::Bad)?;
    if ip.vcf[0] >> 4 != 6 {
        return Err(Skip::Bad);
    }
    let mut left = u32::from(u16::from_be_bytes(ip.payload_len));
    if left == 0 && ip.next_hdr != NO_NEXT {
        // Jumbograms (RFC 2675) and BIG TCP have no length of their own.
        left = p.len().saturating_sub(l3 + size_of::<Ipv6Hdr>() as u32);
    }
    let mut at = l3 + size_of::<Ipv6Hdr>() as u32;
    let mut next = ip.next_hdr;
    let mut fragment = Fragment::NONE;
    for _ in 0..MAX_EXTENSIONS {
        let len = match next {
            HOP_BY_HOP | ROUTING | DEST_OPTS => {
                let ext: [u8; 2] = p.header(at).ok_or(Skip::Bad)?;
                next = ext[0];
                (u32::from(ext[1]) + 1) * 8
            }
            AUTH => {
                let ext: [u8; 2] = p.header(at).ok_or(Skip::Bad)?;
                next = ext[0];
                (u32::from(ext[1]) + 2) * 4
            }
            FRAGMENT => {
                let ext: [u8; 8] = p.header(at).ok_or(Skip::Bad)?;
                next = ext[0];
                let word = u16::from_be_bytes([ext[2], ext[3]]);
                fragment = Fragment {
                    is_one: true,
                    id: u32::from_be_bytes([ext[4], ext[5], ext[6], ext[7]]),
                    offset: u32::from(word & 0xfff8),
                    len: left.saturating_sub(8),
                    more: word & 1 != 0,
                };
                8
            }
            _ => break,
        };
        if len > left {
            return Err(Skip::Bad);
        }
        left = opaque(left - len);
        at = opaque_offset(at + len);
        if fragment.is_later() {
            break;
        }
    }
    let next = opaque(u32::from(next)) as u8;
    let flow = Flow { saddr: ip.src_addr, daddr: ip.dst_addr, protocol: next, family: 6, ..Flow::default() };
    Ok(Parsed { flow, transport: at, transport_len: left, fragment, whole: true })
}

/// Where the inner packet starts, if this one carries another.
#[inline(always)]
fn unwrap<P: Packet>(p: &P, outer: &Parsed) -> Result<Option<(u32, u16, Encap)>, Skip> {
    match outer.flow.protocol {
        IPIP => Ok(Some((outer.transport, ETH_P_IP, Encap::Ipip))),
        IPV6 => Ok(Some((outer.transport, ETH_P_IPV6, Encap::Ipip))),
        UDP if is_vxlan(outer.flow.dport) => {
            let at = outer.transport + size_of::<UdpHdr>() as u32;
            let (l3, ethertype) = link(p, at + size_of::<VxlanHdr>() as u32)?;
            Ok(Some((l3, ethertype, Encap::Vxlan)))
        }
        UDP if outer.flow.dport == GENEVE_PORT => {
            let at = outer.transport + size_of::<UdpHdr>() as u32;
            let geneve: GeneveHdr = p.header(at).ok_or(Skip::Bad)?;
            let inner = at + size_of::<GeneveHdr>() as u32 + u32::from(geneve.ver_opt_len & 0x3f) * 4;
            let protocol = u16::from_be_bytes(geneve.protocol_type);
            let (l3, ethertype) = if protocol == ETH_P_TEB { link(p, inner)? } else { (inner, protocol) };
            Ok(Some((l3, ethertype, Encap::Geneve)))
        }
        _ => Ok(None),
    }
}
