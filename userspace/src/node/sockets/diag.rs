//! Sockets by sock_diag: queues of listeners with their limits, and how often each listener dropped.
//!
//! Needs: the module `tcp_diag` in the kernel already, see [`there`]. Yields: each [`Socket`] of a family.
//! Source: include/uapi/linux/inet_diag.h, net/ipv4/inet_diag.c, tcp_diag.c; sock_diag(7).

use super::Socket;
use crate::{
    deadline::Deadline,
    modules,
    netlink::{DumpError, dump_each},
};
use rtnetlink::{
    packet_core::{DecodeError, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable, NlasIterator},
    sys::protocols::NETLINK_SOCK_DIAG,
};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::ControlFlow,
    path::Path,
};

/// `SOCK_DIAG_BY_FAMILY`
const BY_FAMILY: u16 = 20;
/// `struct inet_diag_req_v2`
const QUESTION_BYTES: usize = 56;
/// `struct inet_diag_msg`
const ANSWER_BYTES: usize = 72;
/// `INET_DIAG_SKMEMINFO`, an attribute of 32-bit numbers.
const MEMORY: u16 = 7;
/// `SK_MEMINFO_SNDBUF`, its place among these.
const SEND_BUFFER: usize = 3;
/// `SK_MEMINFO_DROPS`
const DROPS: usize = 8;

/// Whether the kernel below a root directory can be asked without loading a module for it.
///
/// # Errors
/// Why not.
pub(super) fn there(root: &Path) -> Result<(), String> {
    match modules::is_there(root, "tcp_diag") {
        Ok(true) => Ok(()),
        Ok(false) => Err("the module tcp_diag is not loaded".to_owned()),
        Err(error) => Err(format!("whether the module tcp_diag is loaded cannot be told: {error}")),
    }
}

/// Either way.
#[derive(Debug)]
enum Message {
    Question { family: u8, states: u32 },
    Answer(Socket),
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        BY_FAMILY
    }

    fn buffer_len(&self) -> usize {
        QUESTION_BYTES
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.fill(0);
        let Self::Question { family, states } = self else { return };
        buffer[0] = *family;
        buffer[1] = libc::IPPROTO_TCP as u8;
        buffer[2] = 1 << (MEMORY - 1);
        buffer[4..8].copy_from_slice(&states.to_ne_bytes());
    }
}

impl NetlinkDeserializable for Message {
    type Error = DecodeError;

    fn deserialize(_: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        let Some((head, attributes)) = payload.split_first_chunk::<ANSWER_BYTES>() else {
            return Err(DecodeError::from(format!("a socket of {} bytes", payload.len())));
        };
        let port = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        let word = |at: usize| u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (source, destination) = (address(head[0], &head[8..24]), address(head[0], &head[24..40]));
        let (Some(source), Some(destination)) = (source, destination) else {
            return Err(DecodeError::from(format!("a socket of family {}", head[0])));
        };
        Ok(Self::Answer(Socket {
            state: head[1],
            source,
            source_port: port(4),
            destination,
            destination_port: port(6),
            id: u64::from(word(48)) << 32 | u64::from(word(44)),
            queued: word(56),
            limit: Some(word(60)),
            send_buffer: memory(attributes, SEND_BUFFER),
            dropped: memory(attributes, DROPS),
        }))
    }
}

fn address(family: u8, bytes: &[u8]) -> Option<IpAddr> {
    match i32::from(family) {
        libc::AF_INET => Some(Ipv4Addr::from(*bytes.first_chunk::<4>()?).into()),
        // A socket of both families has IPv4 addresses in IPv6 ones.
        libc::AF_INET6 => Some(Ipv6Addr::from(*bytes.first_chunk::<16>()?).to_canonical()),
        _ => None,
    }
}

/// One of the numbers of that attribute.
fn memory(attributes: &[u8], place: usize) -> Option<u32> {
    let mut known = NlasIterator::new(attributes).map_while(Result::ok);
    let words = known.find(|attribute| attribute.kind() == MEMORY)?;
    Some(u32::from_ne_bytes(*words.value().get(4 * place..)?.first_chunk()?))
}

/// Looks at the sockets of one family in these states (a bit each) until `each` has seen enough.
pub(super) fn each(
    family: i32,
    states: u32,
    deadline: Deadline,
    mut each: impl FnMut(Socket) -> ControlFlow<()>,
) -> Result<(), DumpError> {
    let question = Message::Question { family: family as u8, states };
    dump_each(NETLINK_SOCK_DIAG, question, deadline, |answer| match answer {
        Message::Answer(socket) => each(socket),
        Message::Question { .. } => ControlFlow::Continue(()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::{attributes_of, message, take};

    #[test]
    fn answers_are_read_and_what_is_cut_off_is_refused() {
        let mut body = [0; ANSWER_BYTES];
        (body[0], body[1]) = (10, 10);
        body[4..6].copy_from_slice(&443_u16.to_be_bytes());
        body[18..24].copy_from_slice(&[255, 255, 10, 0, 0, 1]);
        body[44..48].copy_from_slice(&7_u32.to_ne_bytes());
        body[56..60].copy_from_slice(&129_u32.to_ne_bytes());
        body[60..64].copy_from_slice(&128_u32.to_ne_bytes());
        let mut memory = [0; 36];
        memory[12..16].copy_from_slice(&87_040_u32.to_ne_bytes());
        memory[32..].copy_from_slice(&5_u32.to_ne_bytes());
        let bytes = message(BY_FAMILY, &body, &[(1, &[0; 4]), (MEMORY, &memory)]);
        let mut answers = Vec::new();
        take::<Message>(&bytes, &mut answers).unwrap();
        let Message::Answer(socket) = &answers[0] else { panic!("{answers:?}") };
        assert_eq!((socket.source, socket.source_port), ("10.0.0.1".parse().unwrap(), 443));
        assert_eq!((socket.queued, socket.limit, socket.dropped, socket.id), (129, Some(128), Some(5), 7));
        assert_eq!(socket.send_buffer, Some(87_040));
        for len in 1..bytes.len() {
            assert!(take::<Message>(&bytes[..len], &mut Vec::new()).is_err(), "{len} bytes");
        }
        let short = message(BY_FAMILY, &body[..71], &[]);
        assert!(take::<Message>(&short, &mut Vec::new()).is_err());
    }

    #[test]
    fn any_attributes_are_survived() {
        for bytes in [&[0; 4][..], &[255; 8], &[4, 0, 7, 0], &[8, 0, 7, 0, 1, 2, 3, 4], &[1, 0, 7, 0]] {
            assert_eq!(memory(bytes, DROPS), None);
        }
        assert_eq!(memory(&attributes_of(&[(MEMORY, &[1; 36])]), DROPS), Some(0x0101_0101));
    }
}
