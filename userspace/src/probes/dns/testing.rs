//! Hand-built messages and records for the tests of this probe.

use nettrace_common::probes::dns::{CAPTURE_BYTES, DnsMessage};
use nettrace_common::wire::{Direction, Flow, Header, Kind};

/// A standard query with one question; the empty name is the root.
pub(crate) fn query(id: u16, name: &str, qtype: u16) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend([0x01, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.').filter(|l| !l.is_empty()) {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend(qtype.to_be_bytes());
    bytes.extend([0, 1]);
    bytes
}

/// The answer to [`query`], without records.
pub(crate) fn answer(id: u16, name: &str, qtype: u16, rcode: u8) -> Vec<u8> {
    let mut bytes = query(id, name, qtype);
    bytes[2] = 0x81;
    bytes[3] = 0x80 | rcode;
    bytes
}

/// The message with an OPT record at its end that carries the upper bits of a response code.
pub(crate) fn with_opt(mut message: Vec<u8>, upper_rcode: u8) -> Vec<u8> {
    message[11] += 1;
    message.extend([0, 0, 41, 0x04, 0xD0, upper_rcode, 0, 0, 0, 0, 0]);
    message
}

/// The message after its length, as it goes over TCP.
pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes()[..], message].concat()
}

/// One end of a flow: last byte of an IPv4 address in 10.0.0.0/24, and port.
pub(crate) type End = (u8, u16);

fn record(ts_ns: u64, at: (u32, Direction), from: End, to: End, protocol: u8) -> DnsMessage {
    let address = |last: u8| {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&[10, 0, 0, last]);
        bytes
    };
    DnsMessage {
        header: Header {
            ts_ns,
            kind: Kind::Dns as u8,
            direction: at.1 as u8,
            ifindex: at.0,
            ..Header::default()
        },
        flow: Flow {
            saddr: address(from.0),
            daddr: address(to.0),
            sport: from.1,
            dport: to.1,
            protocol,
            family: 4,
            ..Flow::default()
        },
        ..DnsMessage::default()
    }
}

/// A UDP datagram seen at an interface.
pub(crate) fn udp(ts_ns: u64, at: (u32, Direction), from: End, to: End, payload: &[u8]) -> DnsMessage {
    let mut m = record(ts_ns, at, from, to, 17);
    m.payload_len = payload.len() as u32;
    m.captured = payload.len().min(CAPTURE_BYTES) as u16;
    m
}

/// A TCP segment seen at an interface, and what was captured of it.
pub(crate) fn tcp(
    ts_ns: u64,
    at: (u32, Direction),
    from: End,
    to: End,
    (seq, flags): (u32, u8),
    payload: &[u8],
) -> (DnsMessage, Vec<u8>) {
    let mut m = record(ts_ns, at, from, to, 6);
    m.tcp_seq = seq;
    m.tcp_flags = flags;
    m.payload_len = payload.len() as u32;
    m.captured = payload.len().min(CAPTURE_BYTES) as u16;
    (m, payload[..usize::from(m.captured)].to_vec())
}
