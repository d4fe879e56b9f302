//! The queues in which packets that are sent wait (qdiscs), of all interfaces of a network namespace.
//!
//! Needs: to be in the namespace. Yields: [`Qdiscs`], which knows the queues below one that has classes. Source: RTM_GETQDISC
//! (include/uapi/linux/rtnetlink.h), with those that the kernel made by itself. The attributes are read here, since no more than
//! two of them are needed, and what is not known of others must not matter.

use crate::{
    deadline::Deadline,
    netlink::{DumpError, dump_each, settled},
};
use rtnetlink::{
    packet_core::{
        DecodeError, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable, NlasIterator, parse_string,
        parse_u32,
    },
    sys::protocols::NETLINK_ROUTE,
};
use std::ops::ControlFlow;

/// Queues after the first so many are not looked at: NICs have some hundreds, shapers of pods some more.
const MAX_QDISCS: usize = 65_536;
/// `RTM_NEWQDISC`, the answer, and `RTM_GETQDISC`, the question.
const NEW_QDISC: u16 = 36;
const GET_QDISC: u16 = 38;
/// `struct tcmsg`: family and 3 bytes that are not used, then words: interface, handle, parent, info.
const TCMSG_BYTES: usize = 20;
const IFINDEX_AT: usize = 4;
const HANDLE_AT: usize = 8;
const PARENT_AT: usize = 12;
const TCA_KIND: u16 = 1;
/// Of pfifo and bfifo a `struct tc_fifo_qopt`: the limit, packets or bytes.
const TCA_OPTIONS: u16 = 2;
/// An attribute without a value: those that the kernel made by itself, too.
const TCA_DUMP_INVISIBLE: u16 = 10;
const ATTRIBUTE_BYTES: u16 = 4;
/// `TC_H_ROOT`
const ROOT: u32 = u32::MAX;
/// `TC_H_INGRESS`, for packets that are received.
const INGRESS: u32 = 0xffff_fff1;

/// One queue, or one that has others in its classes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Qdisc {
    ifindex: u32,
    handle: u32,
    parent: u32,
    kind: String,
    fifo_limit: Option<u32>,
}

impl Qdisc {
    /// Handles of a qdisc and of its classes have the upper half in common. It is 0 of those that the kernel made by itself, of
    /// which the root alone has others below it.
    fn has(&self, other: &Self) -> bool {
        let mine = other.parent != ROOT && other.parent >> 16 == self.handle >> 16;
        mine && (self.parent == ROOT || self.handle >> 16 != 0)
    }
}

/// Those of all interfaces, without those for packets that are received.
pub(super) struct Qdiscs(Vec<Qdisc>);

impl Qdiscs {
    /// Of the namespace that this thread is in, and why these are not all.
    pub(super) fn read(deadline: Deadline) -> (Self, Option<String>) {
        Self::up_to(MAX_QDISCS, deadline)
    }

    fn up_to(most: usize, deadline: Deadline) -> (Self, Option<String>) {
        let mut more = false;
        let (mut qdiscs, error) = settled(
            || Self(Vec::new()),
            |qdiscs| {
                dump_each(NETLINK_ROUTE, Message::Question, deadline, |answer| {
                    more = qdiscs.0.len() >= most;
                    if more {
                        return ControlFlow::Break(());
                    }
                    qdiscs.take(answer);
                    ControlFlow::Continue(())
                })
            },
        );
        // An answer that changed meanwhile is whole.
        if more || !matches!(error, None | Some(DumpError::Changed)) {
            qdiscs.without_last_interface();
        }
        let cut = more.then(|| format!("queues after the first {most} are not looked at"));
        (qdiscs, error.map(|error| error.to_string()).or(cut))
    }

    fn take(&mut self, answer: Message) {
        match answer {
            Message::Answer(Some(qdisc)) if qdisc.parent != INGRESS => self.0.push(qdisc),
            _ => {}
        }
    }

    /// The kernel lists one interface after the other: where its list was cut, of the last one some may be missing, and what has
    /// them below it would look like a leaf.
    fn without_last_interface(&mut self) {
        if let Some(last) = self.0.last().map(|qdisc| qdisc.ifindex) {
            self.0.retain(|qdisc| qdisc.ifindex != last);
        }
    }

    fn at(&self, ifindex: u32) -> impl Iterator<Item = &Qdisc> {
        self.0.iter().filter(move |qdisc| qdisc.ifindex == ifindex)
    }

    /// Kinds of those that have no others below them, each once; none of an interface that is not known.
    pub(super) fn leaves(&self, ifindex: u32) -> Option<Vec<String>> {
        let is_leaf = |qdisc: &&Qdisc| !self.at(ifindex).any(|other| qdisc.has(other));
        let mut kinds: Vec<_> = self.at(ifindex).filter(is_leaf).map(|qdisc| qdisc.kind.clone()).collect();
        kinds.sort_unstable();
        kinds.dedup();
        (!kinds.is_empty()).then_some(kinds)
    }

    /// How much the root of an interface holds where it is a pfifo or bfifo.
    pub(super) fn fifo_limit(&self, ifindex: u32) -> Option<u32> {
        self.at(ifindex).find(|qdisc| qdisc.parent == ROOT)?.fifo_limit
    }
}

/// Either way.
#[derive(Debug, PartialEq, Eq)]
enum Message {
    /// All of them.
    Question,
    /// None for what is no qdisc.
    Answer(Option<Qdisc>),
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        match self {
            Self::Question => GET_QDISC,
            Self::Answer(_) => NEW_QDISC,
        }
    }

    fn buffer_len(&self) -> usize {
        TCMSG_BYTES + usize::from(ATTRIBUTE_BYTES)
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.fill(0);
        let attribute = [ATTRIBUTE_BYTES.to_ne_bytes(), TCA_DUMP_INVISIBLE.to_ne_bytes()];
        buffer[TCMSG_BYTES..].copy_from_slice(attribute.as_flattened());
    }
}

impl NetlinkDeserializable for Message {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        let Some((head, attributes)) = payload.split_at_checked(TCMSG_BYTES) else {
            return Err(DecodeError::from(format!("a qdisc of {} bytes", payload.len())));
        };
        if header.message_type != NEW_QDISC {
            return Ok(Self::Answer(None));
        }
        let word = |at: usize| parse_u32(&head[at..at + 4]);
        let mut qdisc = Qdisc {
            ifindex: word(IFINDEX_AT)?,
            handle: word(HANDLE_AT)?,
            parent: word(PARENT_AT)?,
            kind: String::new(),
            fifo_limit: None,
        };
        let mut options = None;
        for attribute in NlasIterator::new(attributes) {
            let attribute = attribute?;
            match attribute.kind() {
                TCA_KIND => qdisc.kind = parse_string(attribute.value())?.trim_end_matches('\0').to_owned(),
                TCA_OPTIONS => options = parse_u32(attribute.value()).ok(),
                _ => {}
            }
        }
        if matches!(qdisc.kind.as_str(), "pfifo" | "bfifo") {
            qdisc.fifo_limit = options;
        }
        Ok(Self::Answer(Some(qdisc)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::{message, take};
    use std::time::Duration;

    fn qdisc(ifindex: u32, handle: u32, parent: u32, kind: &str, options: &[u8]) -> Vec<u8> {
        let mut head = [0; TCMSG_BYTES];
        head[IFINDEX_AT..][..4].copy_from_slice(&ifindex.to_ne_bytes());
        head[HANDLE_AT..][..4].copy_from_slice(&handle.to_ne_bytes());
        head[PARENT_AT..][..4].copy_from_slice(&parent.to_ne_bytes());
        let mut name = kind.as_bytes().to_vec();
        name.resize((name.len() + 1).next_multiple_of(4), 0);
        let attributes: [(u16, &[u8]); 3] = [(TCA_KIND, &name), (TCA_OPTIONS, options), (7, &[1; 8])];
        message(NEW_QDISC, &head, &attributes)
    }

    fn qdiscs(messages: &[Vec<u8>]) -> Qdiscs {
        let mut answers = Vec::new();
        take(&messages.concat(), &mut answers).unwrap();
        let mut qdiscs = Qdiscs(Vec::new());
        answers.into_iter().for_each(|answer| qdiscs.take(answer));
        qdiscs
    }

    #[test]
    fn leaves_are_what_packets_wait_in() {
        let limit = 1000_u32.to_ne_bytes();
        let read = qdiscs(&[
            // As the kernel makes them for hardware with several queues, and for received packets.
            qdisc(2, 0, ROOT, "mq", &[]),
            qdisc(2, 0, 1, "fq_codel", &[2; 16]),
            qdisc(2, 0, 2, "fq_codel", &[2; 16]),
            qdisc(2, 0xffff_0000, INGRESS, "clsact", &[]),
            qdisc(3, 0x8001_0000, ROOT, "htb", &[3; 12]),
            qdisc(3, 0x8002_0000, 0x8001_000a, "tbf", &[]),
            qdisc(3, 0, 0x8002_0001, "bfifo", &limit),
            qdisc(3, 0, 0x8001_000b, "fq_codel", &[]),
            qdisc(4, 0x8003_0000, ROOT, "pfifo", &limit),
            qdisc(5, 0, ROOT, "pfifo_fast", &[9; 20]),
        ]);
        let leaves = |ifindex| read.leaves(ifindex).unwrap_or_default().join(" ");
        assert_eq!((leaves(2), leaves(3)), ("fq_codel".to_owned(), "bfifo fq_codel".to_owned()));
        assert_eq!((leaves(4), leaves(5)), ("pfifo".to_owned(), "pfifo_fast".to_owned()));
        assert_eq!(read.leaves(9), None);
        // A leaf's limit is no root's, and options of others are no limit.
        let limits: Vec<_> = (2..6).map(|ifindex| read.fifo_limit(ifindex)).collect();
        assert_eq!(limits, [None, None, Some(1000), None]);
        let mut cut = read;
        cut.without_last_interface();
        assert_eq!((cut.leaves(5), cut.fifo_limit(4)), (None, Some(1000)));
    }

    #[test]
    fn what_is_cut_off_is_refused() {
        let whole = qdisc(2, 0, ROOT, "pfifo", &[1; 4]);
        let read = |bytes: &[u8]| take::<Message>(bytes, &mut Vec::new()).map(drop);
        read(&whole).unwrap();
        for len in 1..whole.len() {
            assert!(read(&whole[..len]).is_err(), "{len} bytes");
        }
        assert_eq!(qdiscs(&[qdisc(2, 0, ROOT, "pfifo", &[])]).fifo_limit(2), None);
    }

    #[test]
    fn the_kernel_answers() {
        let soon = Deadline::after(Duration::from_secs(60));
        let (qdiscs, error) = Qdiscs::read(soon);
        assert_eq!(error, None);
        assert!(qdiscs.leaves(1).is_some(), "the loopback");
        let (cut, error) = Qdiscs::up_to(0, soon);
        assert_eq!(
            (cut.leaves(1), error.as_deref()),
            (None, Some("queues after the first 0 are not looked at"))
        );
        let (late, error) = Qdiscs::read(Deadline::after(Duration::ZERO));
        assert!(
            late.leaves(1).is_none() && error.is_some_and(|error| error.contains("not all was read within"))
        );
    }
}
