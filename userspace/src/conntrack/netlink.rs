//! `IPCTNL_MSG_CT_GET_STATS_CPU`: one message a CPU, attributes in network byte order.
//!
//! Source: include/uapi/linux/netfilter/nfnetlink_conntrack.h, nf_conntrack_netlink.c.

use crate::{
    netlink::{DumpError, NFGENMSG_BYTES, dump, nfgenmsg},
    snapshot::ConntrackCounts,
};
use rtnetlink::{
    packet_core::{
        DecodeError, DefaultNla, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable, Nla as _,
        NlasIterator, Parseable as _,
    },
    sys::protocols::NETLINK_NETFILTER,
};
use std::io;

/// Why the counters cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum StatsError {
    /// Over netlink.
    #[error(transparent)]
    Netlink(#[from] DumpError),
    /// The file.
    #[error("cannot read /proc/net/stat/nf_conntrack: {0}")]
    Procfs(io::Error),
    /// What is in it.
    #[error("/proc/net/stat/nf_conntrack is not understood")]
    Malformed,
}

/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET_STATS_CPU`
const GET_STATS_CPU: u16 = 1 << 8 | 4;
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
        let (head, attributes) = nfgenmsg(payload)?;
        // The resource is the CPU, in network byte order.
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
    let mut cpus = counts(dump(NETLINK_NETFILTER, Message::Question)?);
    cpus.sort_unstable_by_key(|c| c.cpu);
    Ok(cpus)
}

fn counts(answers: Vec<Message>) -> Vec<ConntrackCounts> {
    let counts = |answer| if let Message::Answer(counts) = answer { Some(counts) } else { None };
    answers.into_iter().filter_map(counts).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::{message, take};

    fn answer(cpu: u16, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        message(GET_STATS_CPU, &[&[0, 0][..], &cpu.to_be_bytes()].concat(), attributes)
    }

    const DONE: [u8; 20] = [20, 0, 0, 0, 3, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

    #[test]
    fn answers_are_one_a_cpu_until_done() {
        let two = [answer(1, &[(10, &[0, 0, 1, 2]), (99, &[1; 4])]), answer(0, &[])].concat();
        let mut answers = Vec::new();
        assert!(!take(&two, &mut answers).unwrap());
        assert!(take(&DONE, &mut answers).unwrap());
        let cpus = counts(answers);
        assert_eq!(cpus[0], ConntrackCounts { cpu: 1, drop: Some(258), ..ConntrackCounts::default() });
        assert_eq!(cpus[1], ConntrackCounts::default());
    }

    #[test]
    fn what_is_cut_off_is_refused() {
        let whole = answer(0, &[(10, &[0, 0, 0, 1])]);
        for len in 1..whole.len() {
            assert!(take::<Message>(&whole[..len], &mut Vec::new()).is_err(), "{len} bytes");
        }
        assert!(
            take::<Message>(&answer(0, &[(10, &[1])]), &mut Vec::new()).is_err(),
            "a counter of one byte"
        );
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
