//! `dns`: messages from and to DNS ports, for user space to parse and pair.
//!
//! Hooks: TC / XDP (see `wire`). Yields: one record a UDP datagram or TCP segment, with up to 512 bytes of it; of a datagram in
//! fragments, the first one.
//! Cost: nothing but a port comparison for other packets.

use nettrace_common::{
    Counter, Loss,
    probes::dns::{CAPTURE_BYTES, DnsMessage},
    wire::Kind,
};

use crate::{
    emit::{header, now_ns, reserve, submit},
    kernel::cfg_read,
    maps::{count, lost},
    packet::Packet,
    probes::{
        rtt::{FIN, RST, SYN, Segment},
        wire::Seen,
    },
};

const UDP_HEADER: u32 = 8;
/// Most queries are shorter: a record of this size saves ring space.
const SHORT: usize = 128;

/// Whether a port is one of the DNS ports.
#[inline(always)]
pub fn is_port(port: u16) -> bool {
    let ports = cfg_read!(dns_ports);
    port != 0 && (port == ports[0] || port == ports[1] || port == ports[2] || port == ports[3])
}

/// A payload and where it came from.
struct Payload {
    offset: u32,
    len: u32,
    seq: u32,
    flags: u8,
}

/// A datagram.
#[inline(always)]
pub fn look_udp<P: Packet>(seen: &Seen<'_, P>) {
    let len = seen.parsed.transport_len;
    if len <= UDP_HEADER {
        return lost(Loss::Unparsable);
    }
    send(
        seen,
        &Payload { offset: seen.parsed.transport + UDP_HEADER, len: len - UDP_HEADER, seq: 0, flags: 0 },
    );
}

/// A segment: those with payload, and those that open or end a stream.
#[inline(always)]
pub fn look_tcp<P: Packet>(seen: &Seen<'_, P>, segment: &Segment) {
    if segment.len == 0 && segment.flags & (SYN | FIN | RST) == 0 {
        return;
    }
    send(
        seen,
        &Payload { offset: segment.payload, len: segment.len, seq: segment.seq, flags: segment.flags },
    );
}

#[inline(always)]
fn send<P: Packet>(seen: &Seen<'_, P>, payload: &Payload) {
    count(Counter::DnsMessage);
    if payload.len as usize <= SHORT {
        send_in::<P, SHORT>(seen, payload);
    } else {
        send_in::<P, CAPTURE_BYTES>(seen, payload);
    }
}

/// A record with room for `N` bytes of payload.
#[repr(C)]
struct Sized<const N: usize> {
    message: DnsMessage,
    payload: [u8; N],
}

#[inline(always)]
fn send_in<P: Packet, const N: usize>(seen: &Seen<'_, P>, payload: &Payload) {
    let Some(mut entry) = reserve::<Sized<N>>() else { return };
    let record = entry.as_mut_ptr();
    let mut captured = if payload.len as usize > N { N as u32 } else { payload.len };
    // SAFETY: the reservation is as large as the record; every member that the record's length covers is written.
    unsafe {
        if captured > 0 && !seen.packet.copy(payload.offset, &raw mut (*record).payload, captured) {
            captured = 0;
            lost(Loss::Unparsable);
        }
        (*record).message.header = header::<DnsMessage>(Kind::Dns, seen.direction, &seen.place, now_ns());
        (*record).message.header.len += captured as u16;
        (*record).message.flow = seen.parsed.flow;
        (*record).message.tcp_seq = payload.seq;
        (*record).message.payload_len = payload.len;
        (*record).message.captured = captured as u16;
        (*record).message.tcp_flags = payload.flags;
        (*record).message.pad = [0; 5];
    }
    submit(entry);
}
