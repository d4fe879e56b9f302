//! Path MTUs that the kernel learnt from ICMP messages: exceptions to its routes, for one destination each.
//!
//! Needs: nothing but to be in the namespace. Yields: [`LearntMtu`] rows of each namespace, as they are when it is asked.
//! The kernel shows an IPv4 exception once a packet was sent by it. An MTU that is set on a route is none, and an
//! exception that is no MTU's (a redirect) does not expire.
//! Source: net/ipv4/route.c (fnhe_dump_bucket, rt_fill_info), net/ipv6/route.c (rt6_nh_dump_exceptions).

use crate::{
    aggregate::ROWS,
    iface::Namespace,
    netlink::{DumpError, dump},
    snapshot::LearntMtu,
};
use rtnetlink::{
    packet_core::{DecodeError, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable, NlasIterator},
    sys::protocols::NETLINK_ROUTE,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, net::IpAddr};

/// `RTM_NEWROUTE`, the answer, and `RTM_GETROUTE`, the question.
const NEW_ROUTE: u16 = 24;
const GET_ROUTE: u16 = 26;
/// `struct rtmsg`: family, 7 bytes that are 0 in a question for everything, flags.
const RTMSG_BYTES: usize = 12;
const FLAGS_AT: usize = 8;
/// Of exceptions. In a question: only those.
const RTM_F_CLONED: u32 = 0x200;
const RTA_DST: u16 = 1;
const RTA_METRICS: u16 = 8;
const RTA_CACHEINFO: u16 = 12;
/// In `RTA_METRICS`.
const RTAX_MTU: u16 = 2;
/// `struct rta_cacheinfo`: `rta_expires`, signed, ticks.
const EXPIRES_AT: usize = 8;

/// What was read of all namespaces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Learnt {
    /// The narrowest paths, narrowest first.
    pub rows: Vec<LearntMtu>,
    /// How many paths there are.
    pub paths: u64,
    /// How many namespaces were read.
    pub namespaces: u32,
    /// Those that could not be, and why.
    pub failed: Vec<String>,
}

impl Learnt {
    /// Of these namespaces, as it is now.
    #[must_use]
    pub fn read(namespaces: &[Namespace]) -> Self {
        let mut learnt = Self::default();
        for namespace in namespaces {
            let read = namespace.within(|| {
                let mut exceptions = dump(NETLINK_ROUTE, Message::Question(libc::AF_INET as u8))?;
                exceptions.extend(dump(NETLINK_ROUTE, Message::Question(libc::AF_INET6 as u8))?);
                Ok::<_, DumpError>(exceptions)
            });
            match read.map(|read| read.map_err(|e| e.to_string())).map_err(|e| e.to_string()).flatten() {
                Ok(answers) => learnt.add(&namespace.name, answers),
                Err(reason) => {
                    tracing::debug!("learnt path MTUs of {} cannot be read: {reason}", namespace.name);
                    learnt.failed.push(format!("not read in {}: {reason}", namespace.name));
                }
            }
        }
        learnt.sorted()
    }

    fn sorted(mut self) -> Self {
        self.rows.sort_by(|a, b| (a.mtu, &a.netns, a.destination).cmp(&(b.mtu, &b.netns, b.destination)));
        self.paths = self.rows.len() as u64;
        self.rows.truncate(ROWS);
        self
    }

    /// Takes what one namespace tells. A path by several next hops has an exception at each of them.
    fn add(&mut self, netns: &str, answers: Vec<Message>) {
        self.namespaces += 1;
        let ticks_per_s = u32::try_from(rustix::param::clock_ticks_per_second()).unwrap_or(u32::MAX);
        let mut paths = BTreeMap::new();
        for answer in answers {
            let Message::Answer(Some(Exception { destination, mtu, expires_ticks })) = answer else {
                continue;
            };
            let latest = paths.entry((destination, mtu)).or_insert(expires_ticks);
            *latest = expires_ticks.max(*latest);
        }
        self.rows.extend(paths.into_iter().map(|((destination, mtu), expires_ticks)| LearntMtu {
            netns: netns.to_owned(),
            destination,
            mtu,
            expires_s: expires_ticks.div_ceil(ticks_per_s),
        }));
    }
}

/// An exception that has an MTU and is still valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Exception {
    destination: IpAddr,
    mtu: u32,
    expires_ticks: u32,
}

/// Either way.
#[derive(Debug, PartialEq, Eq)]
enum Message {
    /// An address family.
    Question(u8),
    /// None for a route that is not what is looked for.
    Answer(Option<Exception>),
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        match self {
            Self::Question(_) => GET_ROUTE,
            Self::Answer(_) => NEW_ROUTE,
        }
    }

    fn buffer_len(&self) -> usize {
        RTMSG_BYTES
    }

    /// All tables.
    fn serialize(&self, buffer: &mut [u8]) {
        buffer.fill(0);
        if let (Self::Question(family), Some((first, _))) = (self, buffer.split_first_mut()) {
            *first = *family;
            buffer[FLAGS_AT..].copy_from_slice(&RTM_F_CLONED.to_ne_bytes());
        }
    }
}

impl NetlinkDeserializable for Message {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        let Some((head, attributes)) = payload.split_at_checked(RTMSG_BYTES) else {
            return Err(DecodeError::from(format!("a route of {} bytes", payload.len())));
        };
        if header.message_type != NEW_ROUTE || word(head, FLAGS_AT)? & RTM_F_CLONED == 0 {
            return Ok(Self::Answer(None));
        }
        let (mut destination, mut mtu, mut expires) = (None, None, 0);
        for attribute in NlasIterator::new(attributes) {
            let attribute = attribute?;
            let value = attribute.value();
            match attribute.kind() {
                RTA_DST => destination = Some(address(value)?),
                RTA_METRICS => mtu = mtu_of(value)?,
                RTA_CACHEINFO => expires = word(value, EXPIRES_AT)? as i32,
                _ => {}
            }
        }
        let exception =
            |expires_ticks| Some(Exception { destination: destination?, mtu: mtu?, expires_ticks });
        Ok(Self::Answer(u32::try_from(expires).ok().filter(|ticks| *ticks != 0).and_then(exception)))
    }
}

/// The `RTAX_MTU` among metrics.
fn mtu_of(metrics: &[u8]) -> Result<Option<u32>, DecodeError> {
    for metric in NlasIterator::new(metrics) {
        let metric = metric?;
        if metric.kind() == RTAX_MTU {
            return word(metric.value(), 0).map(Some);
        }
    }
    Ok(None)
}

fn address(value: &[u8]) -> Result<IpAddr, DecodeError> {
    let v4 = <[u8; 4]>::try_from(value).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(value).map(IpAddr::from))
        .map_err(|_| DecodeError::from(format!("an address of {} bytes", value.len())))
}

/// Four bytes in the machine's order.
fn word(bytes: &[u8], at: usize) -> Result<u32, DecodeError> {
    let word = bytes.get(at..).and_then(<[u8]>::first_chunk);
    word.map(|w| u32::from_ne_bytes(*w))
        .ok_or_else(|| DecodeError::from(format!("{} bytes are too few", bytes.len())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::{attributes_of, message, take};

    const V4: [u8; 4] = [10, 0, 0, 1];

    fn route(flags: u32, destination: &[u8], metrics: &[(u16, &[u8])], expires_ticks: i32) -> Vec<u8> {
        let mut head = [0; RTMSG_BYTES];
        head[FLAGS_AT..].copy_from_slice(&flags.to_ne_bytes());
        let mut cacheinfo = [0; 32];
        cacheinfo[EXPIRES_AT..][..4].copy_from_slice(&expires_ticks.to_ne_bytes());
        let metrics = attributes_of(metrics);
        let attributes: [(u16, &[u8]); 4] =
            [(RTA_DST, destination), (RTA_METRICS, &metrics), (RTA_CACHEINFO, &cacheinfo), (99, &[1; 4])];
        message(NEW_ROUTE, &head, &attributes)
    }

    fn read(bytes: &[u8]) -> Result<Vec<Message>, DumpError> {
        let mut answers = Vec::new();
        take(bytes, &mut answers).map(|_| answers)
    }

    #[test]
    fn exceptions_with_an_mtu_that_expires_are_taken() {
        let mtu = 1300_u32.to_ne_bytes();
        let metrics: [(u16, &[u8]); 2] = [(1, &[4, 0, 0, 0]), (RTAX_MTU, &mtu)];
        let v6 = std::net::Ipv6Addr::LOCALHOST.octets();
        let all = [
            route(RTM_F_CLONED, &V4, &metrics, 59_001),
            route(RTM_F_CLONED, &v6, &metrics, 1),
            route(0, &V4, &metrics, 100),
            route(RTM_F_CLONED, &V4, &metrics[..1], 100),
            route(RTM_F_CLONED, &V4, &metrics, 0),
            route(RTM_F_CLONED, &V4, &metrics, -100),
            route(RTM_F_CLONED, &V4, &metrics, 60_000),
        ]
        .concat();
        let mut learnt = Learnt::default();
        learnt.add("pod", read(&all).unwrap());
        let row =
            |destination, expires_s| LearntMtu { netns: "pod".to_owned(), destination, mtu: 1300, expires_s };
        assert_eq!(learnt.rows, [row(V4.into(), 600), row(v6.into(), 1)]);
    }

    #[test]
    fn the_narrowest_paths_are_kept_and_all_are_counted() {
        let row = |n: u32| LearntMtu {
            netns: format!("pod-{}", n % 2),
            destination: std::net::Ipv4Addr::from(n).into(),
            mtu: 1_000 + n / 2,
            expires_s: 600,
        };
        let most = ROWS as u32 + 20;
        let learnt = Learnt { rows: (0..most).rev().map(row).collect(), ..Learnt::default() }.sorted();
        assert_eq!((learnt.paths, learnt.rows.len()), (u64::from(most), ROWS));
        assert_eq!(learnt.rows, (0..ROWS as u32).map(row).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_cut_off_is_refused() {
        let whole = route(RTM_F_CLONED, &V4, &[(RTAX_MTU, &[1; 4])], 1);
        assert_eq!(read(&whole).unwrap().len(), 1);
        for len in 1..whole.len() {
            assert!(read(&whole[..len]).is_err(), "{len} bytes");
        }
        assert!(read(&route(RTM_F_CLONED, &[1; 8], &[], 1)).is_err(), "an address of 8 bytes");
        assert!(read(&route(RTM_F_CLONED, &V4, &[(RTAX_MTU, &[])], 1)).is_err(), "an MTU of no bytes");
    }

    #[test]
    fn a_namespace_that_cannot_be_read_leaves_the_others() {
        let gone = Namespace { name: "gone".to_owned(), path: Some("/nonexistent".into()), wire: true };
        let learnt = Learnt::read(&[gone, Namespace::host()]);
        assert_eq!(learnt.namespaces, 1);
        assert!(learnt.failed.len() == 1 && learnt.failed[0].contains("gone"), "{:?}", learnt.failed);
    }
}
