//! `dns`: a DNS message as seen by TC or XDP; user space parses it and pairs queries with answers.

use crate::wire::{Flow, Header, Record};

/// Bytes of a message that a record carries at the most: header, question and more. EDNS and long answers may be
/// cut; the parts that a transaction is made of are not.
pub const CAPTURE_BYTES: usize = 512;
/// Ports that are taken for DNS by the kernel programs.
pub const MAX_PORTS: usize = 4;

/// A UDP datagram or a TCP segment from or to a DNS port; its captured payload follows.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DnsMessage {
    /// Record header; `len` includes the captured payload.
    pub header: Header,
    /// Sender and receiver.
    pub flow: Flow,
    /// TCP sequence number of the first payload byte; 0 for UDP.
    pub tcp_seq: u32,
    /// Payload bytes on the wire.
    pub payload_len: u32,
    /// Payload bytes that follow this struct, at most [`CAPTURE_BYTES`].
    pub captured: u16,
    /// TCP flag byte (FIN 1, SYN 2, RST 4, ...); 0 for UDP.
    pub tcp_flags: u8,
    /// Zero.
    pub pad: [u8; 5],
}

const _: () = assert!(size_of::<DnsMessage>() == 80);
// SAFETY: `repr(C)`, integers only, size asserted to leave no padding.
unsafe impl Record for DnsMessage {}
