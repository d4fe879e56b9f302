//! The programs at an interface: parse once, then let each probe look.
//!
//! Hooks: TC ingress and egress (tcx from Linux 6.6, clsact before), XDP ingress where asked for.
//! Yields: what `rtt`, `black_hole`, `dns`, `frag` and `ptb` yield. Every packet passes: TC says *next program*, XDP says *pass*.
//! Cost: parsing by direct packet access; a clock reading only when a probe has something to note.

use aya_ebpf::{
    bindings::{TC_ACT_UNSPEC, xdp_action},
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use nettrace_common::{
    Loss,
    config::{IfaceSlot, flag, iface_flag, wire},
    wire::{Direction, Flow},
};

use network_types::eth::EthHdr;

use crate::{
    iface::{self, Place},
    kernel::{self, cfg_get},
    klog::klog,
    maps::lost,
    packet::Packet,
    parse::{self, Parsed, Plain, Skip, parse},
    probes::{dns, frag, ptb, rtt},
};

/// A parsed packet at its interface.
pub struct Seen<'a, P> {
    /// Its bytes.
    pub packet: &'a P,
    /// Its headers.
    pub parsed: Parsed,
    /// Which way it goes.
    pub direction: Direction,
    /// Where it is.
    pub place: Place,
    /// Whether what its interface receives is sent on this machine.
    pub host_end: bool,
    /// Bytes of its link header.
    pub link_len: u32,
    /// Sent, but received before at another interface that is looked at too.
    pub seen_before: bool,
}

/// Packets received, by TC.
#[classifier]
pub fn wire_in(ctx: TcContext) -> i32 {
    look(&ctx, Direction::In);
    TC_ACT_UNSPEC
}

/// Packets sent, by TC.
#[classifier]
pub fn wire_out(ctx: TcContext) -> i32 {
    look(&ctx, Direction::Out);
    TC_ACT_UNSPEC
}

/// Packets received, by XDP.
#[xdp]
pub fn wire_xdp(ctx: XdpContext) -> u32 {
    look(&ctx, Direction::In);
    xdp_action::XDP_PASS
}

#[inline(always)]
fn look<P: Packet>(packet: &P, direction: Direction) {
    if kernel::empty() {
        return;
    }
    let ifindex = packet.ifindex();
    let Some(slot) = iface::slot(0, ifindex) else { return };
    let ethernet = slot.flags & iface_flag::NO_ETHERNET == 0;
    let first = if ethernet { parse::plain(packet) } else { Plain::No };
    let parsed = match first {
        Plain::OfNoConcern => return,
        Plain::Tcp(p) => Ok(p),
        Plain::No => parse(packet, ethernet),
    };
    let parsed = match parsed {
        Ok(p) => p,
        Err(Skip::NotIp) => return,
        Err(Skip::Bad) => {
            klog!(packet, "unparsable packet of {} bytes at interface {}", packet.len(), ifindex);
            return lost(Loss::Unparsable);
        }
    };
    if kernel::flag_set(flag::FILTER) && !kernel::filter_matches(&parsed.flow) {
        return;
    }
    let seen = Seen {
        packet,
        parsed,
        direction,
        place: place(slot),
        host_end: slot.flags & iface_flag::HOST_END != 0,
        link_len: if ethernet { size_of::<EthHdr>() as u32 } else { 0 },
        seen_before: matches!(direction, Direction::Out) && watched(packet.ingress_ifindex()),
    };
    probe(&seen);
}

#[inline(always)]
fn place(slot: &IfaceSlot) -> Place {
    Place { netns: 0, ifindex: slot.ifindex, scope: slot.scope as u16 }
}

/// Whether received packets of an interface are looked at.
#[inline(always)]
fn watched(ifindex: u32) -> bool {
    ifindex != 0 && matches!(iface::slot(0, ifindex), Some(s) if s.flags & iface_flag::WATCHED != 0)
}

#[inline(always)]
fn probe<P: Packet>(seen: &Seen<'_, P>) {
    let Flow { protocol, sport, dport, .. } = seen.parsed.flow;
    let dns = wanted(wire::DNS) && (dns::is_port(sport) || dns::is_port(dport));
    if seen.parsed.fragment.is_one {
        if wanted(wire::FRAGMENTS) {
            frag::look(seen, &seen.parsed.fragment);
        }
        // The others have no ports. A long answer's first one says what there is to know of it.
        if protocol == kernel::UDP && dns {
            dns::look_udp(seen);
        }
        return;
    }
    match protocol {
        kernel::TCP if dns || wanted(wire::RTT | wire::BLACK_HOLE) => {
            let Some(segment) = rtt::segment(seen) else { return lost(Loss::Unparsable) };
            if wanted(wire::RTT | wire::BLACK_HOLE) {
                rtt::look(seen, &segment);
            }
            if dns {
                dns::look_tcp(seen, &segment);
            }
        }
        kernel::UDP if dns => dns::look_udp(seen),
        ptb::ICMP | ptb::ICMPV6 if wanted(wire::TOO_BIG) => ptb::look(seen),
        _ => {}
    }
}

/// Whether one of these is looked for; the verifier knows, and prunes what is not.
#[inline(always)]
pub fn wanted(parts: u32) -> bool {
    cfg_get!(wire) & u64::from(parts) != 0
}
