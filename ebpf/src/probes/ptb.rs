//! `ptb`: ICMP *fragmentation needed* (RFC 1191) and ICMPv6 *packet too big* (RFC 8201).
//!
//! Hooks: TC / XDP (see `wire`). Yields: an exact count and an event a message, with the MTU it names.
//! Cost: nothing for packets other than ICMP.

use nettrace_common::{Counter, Loss, probes::ptb::PacketTooBig, wire::Kind};
use network_types::icmp::Icmpv4Hdr;

use crate::{
    emit::{header, now_ns, reserve, submit},
    maps::{count, lost},
    packet::Packet,
    probes::wire::Seen,
};

/// IPPROTO_ICMP
pub const ICMP: u8 = 1;
/// IPPROTO_ICMPV6
pub const ICMPV6: u8 = 58;

const DEST_UNREACHABLE: u8 = 3;
const FRAGMENTATION_NEEDED: u8 = 4;
const PACKET_TOO_BIG: u8 = 2;
/// Bytes before the packet that did not fit.
const ICMP_HEADER: u32 = 8;

/// Looks for a message about a packet that does not fit.
#[inline(always)]
pub fn look<P: Packet>(seen: &Seen<'_, P>) {
    // A message on its way through the node is counted where it came in.
    if seen.seen_before {
        return;
    }
    let Some(icmp) = seen.packet.header::<Icmpv4Hdr>(seen.parsed.transport) else {
        return lost(Loss::Unparsable);
    };
    let inner = seen.parsed.transport + ICMP_HEADER;
    let mut destination = [0; 16];
    let mtu = if seen.parsed.flow.protocol == ICMP {
        if icmp.type_ != DEST_UNREACHABLE || icmp.code != FRAGMENTATION_NEEDED {
            return;
        }
        let Some(addr) = seen.packet.header::<[u8; 4]>(inner + 16) else { return lost(Loss::Unparsable) };
        destination[..4].copy_from_slice(&addr);
        u32::from(u16::from_be_bytes([icmp.data[2], icmp.data[3]]))
    } else {
        if icmp.type_ != PACKET_TOO_BIG {
            return;
        }
        let Some(addr) = seen.packet.header::<[u8; 16]>(inner + 24) else { return lost(Loss::Unparsable) };
        destination = addr;
        u32::from_be_bytes(icmp.data)
    };
    send(seen, destination, mtu);
}

#[inline(always)]
fn send<P: Packet>(seen: &Seen<'_, P>, destination: [u8; 16], mtu: u32) {
    count(Counter::PacketTooBig);
    let Some(mut entry) = reserve::<PacketTooBig>() else { return };
    let record = entry.as_mut_ptr();
    // SAFETY: the reservation is as large as the record; every member is written.
    unsafe {
        (*record).header = header::<PacketTooBig>(Kind::PacketTooBig, seen.direction, &seen.place, now_ns());
        (*record).flow = seen.parsed.flow;
        (*record).original_daddr = destination;
        (*record).mtu = mtu;
        (*record).pad = 0;
    }
    submit(entry);
}
