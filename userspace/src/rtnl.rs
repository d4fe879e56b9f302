//! Requests over rtnetlink whose bytes are kept as the kernel gave them: what is restored must be what was there. Of the
//! namespace that the calling thread is in.

use crate::netlink;
use rtnetlink::{
    packet_core::{
        DecodeError, NLM_F_ACK, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
        NetlinkPayload, NetlinkSerializable, NlasIterator,
    },
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};
use std::{collections::BTreeMap, io};

const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_STATS64: u16 = 23;
const IFLA_MIN_MTU: u16 = 50;
const IFLA_MAX_MTU: u16 = 51;
/// `struct ifinfomsg`, bytes.
const IFINFOMSG_BYTES: usize = 16;

/// A message as it is on the wire: its type and what is behind the header.
#[derive(Clone, Debug)]
pub(crate) struct Raw {
    pub(crate) kind: u16,
    pub(crate) payload: Vec<u8>,
}

impl NetlinkSerializable for Raw {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        self.payload.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.payload);
    }
}

impl NetlinkDeserializable for Raw {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        Ok(Self { kind: header.message_type, payload: payload.to_owned() })
    }
}

/// Adding attributes to the bytes of a message.
pub(crate) trait Attributes {
    /// One attribute, padded to a whole word.
    fn attribute(&mut self, kind: u16, value: &[u8]);
}

impl Attributes for Vec<u8> {
    fn attribute(&mut self, kind: u16, value: &[u8]) {
        // No value here is longer than what the kernel sent in as many bits.
        self.extend(((value.len() + 4) as u16).to_ne_bytes());
        self.extend(kind.to_ne_bytes());
        self.extend(value);
        self.resize(self.len().next_multiple_of(4), 0);
    }
}

/// Attributes behind a head of so many bytes.
pub(crate) fn attributes(payload: &[u8], head: usize) -> impl Iterator<Item = (u16, &[u8])> {
    let behind = payload.get(head..).unwrap_or_default();
    NlasIterator::new(behind).map_while(Result::ok).map(|nla| {
        let (kind, end) = (nla.kind(), usize::from(nla.length()));
        (kind, nla.into_inner().get(4..end).unwrap_or_default())
    })
}

/// The first four bytes of a value, in the machine's order.
pub(crate) fn word(value: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(*value.first_chunk()?))
}

/// Asks for everything of a kind.
pub(crate) fn dump(kind: u16, head: Vec<u8>) -> io::Result<Vec<Raw>> {
    netlink::dump(NETLINK_ROUTE, Raw { kind, payload: head }).map_err(io::Error::other)
}

/// Has something done, and waits until it is.
pub(crate) fn request(kind: u16, flags: u16, payload: Vec<u8>) -> io::Result<()> {
    let answer = exchange(kind, NLM_F_ACK | flags, payload)?;
    answer.map_or(Ok(()), |other| Err(io::Error::other(format!("an unexpected answer: {other:?}"))))
}

/// Asks for one thing.
fn get(kind: u16, payload: Vec<u8>) -> io::Result<Raw> {
    exchange(kind, 0, payload)?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// A question and its answer; none where it was done, and there is nothing to be told.
fn exchange(kind: u16, flags: u16, payload: Vec<u8>) -> io::Result<Option<Raw>> {
    let socket = Socket::new(NETLINK_ROUTE)?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(Raw { kind, payload }));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let mut answer = Vec::with_capacity(64 << 10);
    socket.recv(&mut answer, 0)?;
    let answer = NetlinkMessage::<Raw>::deserialize(&answer).map_err(io::Error::other)?;
    match answer.payload {
        NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
        NetlinkPayload::Error(_) => Ok(None),
        NetlinkPayload::InnerMessage(answer) => Ok(Some(answer)),
        other => Err(io::Error::other(format!("an unexpected answer: {other:?}"))),
    }
}

/// What matters of an interface.
pub(crate) struct Link {
    /// Its index.
    pub(crate) index: i32,
    /// Its kind; none for hardware.
    pub(crate) kind: Option<String>,
    /// Whether it is up (IFF_UP).
    pub(crate) up: bool,
    /// The longest packet that it takes, bytes.
    pub(crate) mtu: u32,
    /// The least that it can be set to, bytes.
    pub(crate) min_mtu: u32,
    /// The most; none where the driver does not say.
    pub(crate) max_mtu: Option<u32>,
}

/// `struct ifinfomsg` of an interface.
pub(crate) fn ifinfomsg(index: i32) -> Vec<u8> {
    let mut bytes = vec![0; IFINFOMSG_BYTES];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes
}

/// An interface by its name: ENODEV where there is none.
pub(crate) fn link(name: &str) -> io::Result<Link> {
    let mut question = ifinfomsg(0);
    question.attribute(IFLA_IFNAME, &[name.as_bytes(), &[0]].concat());
    Ok(link_of(&get(libc::RTM_GETLINK, question)?.payload))
}

/// The name that the interface of an index has now: ENODEV where there is none.
pub(crate) fn name(index: i32) -> io::Result<String> {
    let answer = get(libc::RTM_GETLINK, ifinfomsg(index))?;
    name_of(&answer.payload).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn link_of(payload: &[u8]) -> Link {
    let of = |wanted| {
        attributes(payload, IFINFOMSG_BYTES).find(|(kind, _)| *kind == wanted).and_then(|(_, v)| word(v))
    };
    let flags = payload.get(8..).and_then(word).unwrap_or(0);
    Link {
        index: index_of(payload),
        kind: kind_of(payload),
        up: flags & libc::IFF_UP.cast_unsigned() != 0,
        mtu: of(IFLA_MTU).unwrap_or(0),
        min_mtu: of(IFLA_MIN_MTU).unwrap_or(0),
        max_mtu: of(IFLA_MAX_MTU).filter(|most| *most > 0),
    }
}

fn index_of(payload: &[u8]) -> i32 {
    payload.get(4..).and_then(word).unwrap_or(0).cast_signed()
}

fn name_of(payload: &[u8]) -> Option<String> {
    let (_, name) = attributes(payload, IFINFOMSG_BYTES).find(|(kind, _)| *kind == IFLA_IFNAME)?;
    Some(String::from_utf8_lossy(name).trim_end_matches('\0').to_owned())
}

/// Bytes that each interface of this thread's namespace has sent and received since it was made, by its index; without the
/// loopback.
///
/// # Errors
/// When they cannot be listed.
pub(crate) fn transferred_bytes() -> io::Result<BTreeMap<i32, u64>> {
    let all = dump(libc::RTM_GETLINK, ifinfomsg(0))?;
    let of = |raw: &Raw| {
        let loopback = raw.payload.get(8..).and_then(word).unwrap_or(0) & libc::IFF_LOOPBACK.cast_unsigned();
        let stats = attributes(&raw.payload, IFINFOMSG_BYTES).find(|(kind, _)| *kind == IFLA_STATS64)?.1;
        let at = |n: usize| Some(u64::from_ne_bytes(*stats.get(n * 8..)?.first_chunk()?));
        // `struct rtnl_link_stats64`: packets received and sent, and then bytes.
        (loopback == 0).then_some((index_of(&raw.payload), at(2)?.saturating_add(at(3)?)))
    };
    Ok(all.iter().filter_map(of).collect())
}

/// An interface on top of another that takes its MTU from it: a VLAN, or one with an address of its own.
pub(crate) fn upper(index: i32) -> io::Result<Option<String>> {
    const FOLLOWING: &[&str] = &["vlan", "macvlan", "macvtap", "ipvlan", "ipvtap"];
    let all = dump(libc::RTM_GETLINK, ifinfomsg(0))?;
    let is_on = |raw: &&Raw| {
        let below = attributes(&raw.payload, IFINFOMSG_BYTES).find(|(kind, _)| *kind == IFLA_LINK);
        below.and_then(|(_, value)| word(value)) == Some(index.cast_unsigned())
            && kind_of(&raw.payload).is_some_and(|kind| FOLLOWING.contains(&kind.as_str()))
    };
    Ok(all.iter().find(is_on).and_then(|raw| name_of(&raw.payload)))
}

/// `IFLA_INFO_KIND`; none for hardware.
fn kind_of(payload: &[u8]) -> Option<String> {
    let (_, info) = attributes(payload, IFINFOMSG_BYTES).find(|(kind, _)| *kind == IFLA_LINKINFO)?;
    let (_, kind) = attributes(info, 0).find(|(kind, _)| *kind == IFLA_INFO_KIND)?;
    Some(String::from_utf8_lossy(kind).trim_end_matches('\0').to_owned())
}

/// Whether an interface has IPv6, with or without addresses: its settings go with it.
pub(crate) fn has_ipv6(link: &str) -> bool {
    std::path::Path::new("/proc/sys/net/ipv6/conf").join(link).exists()
}
