//! `IPCTNL_MSG_CT_GET_STATS_CPU`: one message a CPU, attributes in network byte order.
//!
//! Source: include/uapi/linux/netfilter/nfnetlink_conntrack.h, nf_conntrack_netlink.c.

use crate::snapshot::ConntrackCounts;
use rtnetlink::{
    packet_core::{
        DecodeError, DefaultNla, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader,
        NetlinkMessage, NetlinkPayload, NetlinkSerializable, Nla as _, NlasIterator, Parseable as _,
    },
    sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER},
};
use std::io;

/// Why the counters cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum StatsError {
    /// The socket.
    #[error("netlink: {0}")]
    Socket(io::Error),
    /// The kernel said no.
    #[error("the kernel refused to tell its conntrack counters: {0}")]
    Refused(io::Error),
    /// The answer.
    #[error("netlink: {0}")]
    Decode(#[from] DecodeError),
    /// The file.
    #[error("cannot read /proc/net/stat/nf_conntrack: {0}")]
    Procfs(io::Error),
    /// What is in it.
    #[error("/proc/net/stat/nf_conntrack is not understood")]
    Malformed,
}

/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET_STATS_CPU`
const GET_STATS_CPU: u16 = 1 << 8 | 4;
/// `struct nfgenmsg`: family, version, resource id (the CPU, in network byte order).
const NFGENMSG_BYTES: usize = 4;
/// Datagrams of a dump are at most this long.
const DATAGRAM_BYTES: usize = 64 << 10;

/// `CTA_STATS_*`
const ATTRIBUTES: [(u16, &str); 8] = [
    (4, "invalid"),
    (9, "insert_failed"),
    (10, "drop"),
    (11, "early_drop"),
    (12, "error"),
    (13, "search_restart"),
    (14, "clash_resolve"),
    (15, "chaintoolong"),
];

/// Either way.
#[derive(Debug)]
enum Message {
    Question,
    Answer(ConntrackCounts),
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        GET_STATS_CPU
    }

    fn buffer_len(&self) -> usize {
        NFGENMSG_BYTES
    }

    /// Any family, version 0, any CPU.
    fn serialize(&self, buffer: &mut [u8]) {
        buffer.fill(0);
    }
}

impl NetlinkDeserializable for Message {
    type Error = DecodeError;

    fn deserialize(_: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        let Some((head, attributes)) = payload.split_at_checked(NFGENMSG_BYTES) else {
            return Err(DecodeError::from(format!("an answer of {} bytes", payload.len())));
        };
        let cpu = u32::from(u16::from_be_bytes([head[2], head[3]]));
        let mut counts = ConntrackCounts { cpu, ..ConntrackCounts::default() };
        for attribute in NlasIterator::new(attributes) {
            let attribute = DefaultNla::parse(&attribute?)?;
            let Some((_, name)) = ATTRIBUTES.iter().find(|(kind, _)| *kind == attribute.kind()) else {
                continue;
            };
            let mut value = [0; 4];
            if attribute.value_len() != value.len() {
                return Err(DecodeError::from(format!("{name} of {} bytes", attribute.value_len())));
            }
            attribute.emit_value(&mut value);
            for (_, field) in ConntrackCounts::FIELDS.iter().filter(|(field, _)| field == name) {
                *field(&mut counts) = Some(u64::from(u32::from_be_bytes(value)));
            }
        }
        Ok(Self::Answer(counts))
    }
}

/// Asks the namespace that this thread is in.
pub(super) fn by_cpu() -> Result<Vec<ConntrackCounts>, StatsError> {
    let socket = Socket::new(NETLINK_NETFILTER).map_err(StatsError::Socket)?;
    socket.connect(&SocketAddr::new(0, 0)).map_err(StatsError::Socket)?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut question = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(Message::Question));
    question.finalize();
    let mut bytes = vec![0; question.buffer_len()];
    question.serialize(&mut bytes);
    socket.send(&bytes, 0).map_err(StatsError::Socket)?;
    let mut cpus = Vec::new();
    let mut datagram = Vec::with_capacity(DATAGRAM_BYTES);
    loop {
        datagram.clear();
        socket.recv(&mut datagram, 0).map_err(StatsError::Socket)?;
        if take(&datagram, &mut cpus)? {
            cpus.sort_unstable_by_key(|c| c.cpu);
            return Ok(cpus);
        }
    }
}

/// Takes the answers of one datagram; whether it was the last.
fn take(mut datagram: &[u8], cpus: &mut Vec<ConntrackCounts>) -> Result<bool, StatsError> {
    while !datagram.is_empty() {
        let message = NetlinkMessage::<Message>::deserialize(datagram)?;
        match message.payload {
            NetlinkPayload::InnerMessage(Message::Answer(counts)) => cpus.push(counts),
            NetlinkPayload::Error(error) if error.code.is_some() => {
                return Err(StatsError::Refused(error.to_io()));
            }
            NetlinkPayload::Done(_) => return Ok(true),
            _ => {}
        }
        let step = (message.header.length as usize).next_multiple_of(4);
        datagram = datagram.get(step..).unwrap_or_default();
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message as the kernel sends it.
    fn answer(cpu: u16, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut payload = [&[0, 0][..], &cpu.to_be_bytes()].concat();
        for (kind, value) in attributes {
            payload.extend((4 + value.len() as u16).to_ne_bytes());
            payload.extend(kind.to_ne_bytes());
            payload.extend(*value);
        }
        let mut bytes = (16 + payload.len() as u32).to_ne_bytes().to_vec();
        bytes.extend(GET_STATS_CPU.to_ne_bytes());
        bytes.extend([2, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend(payload);
        bytes
    }

    const DONE: [u8; 20] = [20, 0, 0, 0, 3, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

    #[test]
    fn answers_are_one_a_cpu_until_done() {
        let two = [answer(1, &[(10, &[0, 0, 1, 2]), (99, &[1; 4])]), answer(0, &[])].concat();
        let mut cpus = Vec::new();
        assert!(!take(&two, &mut cpus).unwrap());
        assert!(take(&DONE, &mut cpus).unwrap());
        assert_eq!(cpus[0], ConntrackCounts { cpu: 1, drop: Some(258), ..ConntrackCounts::default() });
        assert_eq!(cpus[1], ConntrackCounts::default());
    }

    #[test]
    fn what_is_cut_off_is_refused() {
        let whole = answer(0, &[(10, &[0, 0, 0, 1])]);
        for len in 1..whole.len() {
            assert!(take(&whole[..len], &mut Vec::new()).is_err(), "{len} bytes");
        }
        assert!(take(&answer(0, &[(10, &[1])]), &mut Vec::new()).is_err(), "a counter of one byte");
    }

    #[test]
    fn every_attribute_has_its_counter() {
        for (_, name) in ATTRIBUTES {
            assert_eq!(
                ConntrackCounts::FIELDS.iter().filter(|(field, _)| *field == name).count(),
                1,
                "{name}"
            );
        }
    }
}
