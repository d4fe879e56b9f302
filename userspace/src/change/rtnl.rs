//! Requests over rtnetlink whose bytes are kept as the kernel gave them: what is restored must be what was there.

use super::ChangeError;
use crate::netlink::{self, DumpError};
use rtnetlink::{
    packet_core::{
        DecodeError, NLM_F_ACK, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
        NetlinkPayload, NetlinkSerializable, NlasIterator,
    },
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};
use std::io;

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
pub(super) struct Raw {
    pub(super) kind: u16,
    pub(super) payload: Vec<u8>,
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
pub(super) trait Attributes {
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
pub(super) fn attributes(payload: &[u8], head: usize) -> impl Iterator<Item = (u16, &[u8])> {
    let behind = payload.get(head..).unwrap_or_default();
    NlasIterator::new(behind).map_while(Result::ok).map(|nla| {
        let (kind, end) = (nla.kind(), usize::from(nla.length()));
        (kind, nla.into_inner().get(4..end).unwrap_or_default())
    })
}

/// The first four bytes of a value, in the machine's order.
pub(super) fn word(value: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(*value.first_chunk()?))
}

/// Asks for everything of a kind.
pub(super) fn dump(what: &str, kind: u16, head: Vec<u8>) -> Result<Vec<Raw>, ChangeError> {
    let failed =
        |error: DumpError| ChangeError::System { what: what.to_owned(), error: io::Error::other(error) };
    netlink::dump(NETLINK_ROUTE, Raw { kind, payload: head }).map_err(failed)
}

/// Has something done, and waits until it is.
pub(super) fn request(kind: u16, flags: u16, payload: Vec<u8>) -> io::Result<()> {
    let socket = Socket::new(NETLINK_ROUTE)?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
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
        NetlinkPayload::Error(_) => Ok(()),
        other => Err(io::Error::other(format!("an unexpected answer: {other:?}"))),
    }
}

/// What matters of an interface.
pub(super) struct Link {
    /// Its index.
    pub(super) index: i32,
    /// Its kind; none for hardware.
    pub(super) kind: Option<String>,
    /// Whether it is up (IFF_UP).
    pub(super) up: bool,
    /// The longest packet that it takes, bytes.
    pub(super) mtu: u32,
    /// The least that it can be set to, bytes.
    pub(super) min_mtu: u32,
    /// The most; none where the driver does not say.
    pub(super) max_mtu: Option<u32>,
}

/// `struct ifinfomsg` of an interface.
pub(super) fn ifinfomsg(index: i32) -> Vec<u8> {
    let mut bytes = vec![0; IFINFOMSG_BYTES];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes
}

/// An interface by its name.
pub(super) fn link(name: &str) -> Result<Link, ChangeError> {
    let all = dump("list interfaces", libc::RTM_GETLINK, ifinfomsg(0))?;
    let is_it = |raw: &&Raw| {
        let mut known = attributes(&raw.payload, IFINFOMSG_BYTES);
        known.any(|(kind, value)| kind == IFLA_IFNAME && value.strip_suffix(&[0]) == Some(name.as_bytes()))
    };
    let missing = || ChangeError::Missing {
        what: format!("interface {name}"),
        error: io::Error::from_raw_os_error(libc::ENODEV),
    };
    let payload = &all.iter().find(is_it).ok_or_else(missing)?.payload;
    let of = |wanted| {
        attributes(payload, IFINFOMSG_BYTES).find(|(kind, _)| *kind == wanted).and_then(|(_, v)| word(v))
    };
    let index = payload.get(4..).and_then(word).unwrap_or(0).cast_signed();
    let flags = payload.get(8..).and_then(word).unwrap_or(0);
    Ok(Link {
        index,
        kind: kind_of(payload),
        up: flags & libc::IFF_UP.cast_unsigned() != 0,
        mtu: of(IFLA_MTU).unwrap_or(0),
        min_mtu: of(IFLA_MIN_MTU).unwrap_or(0),
        max_mtu: of(IFLA_MAX_MTU).filter(|most| *most > 0),
    })
}

/// Bytes that the interfaces of this thread's namespace have sent and received since they were made, without the loopback.
///
/// # Errors
/// When they cannot be listed.
pub fn transferred_bytes() -> io::Result<u64> {
    let all = dump("list interfaces", libc::RTM_GETLINK, ifinfomsg(0)).map_err(io::Error::other)?;
    let of = |raw: &Raw| {
        let loopback = raw.payload.get(8..).and_then(word).unwrap_or(0) & libc::IFF_LOOPBACK.cast_unsigned();
        let stats = attributes(&raw.payload, IFINFOMSG_BYTES).find(|(kind, _)| *kind == IFLA_STATS64)?.1;
        let at = |n: usize| Some(u64::from_ne_bytes(*stats.get(n * 8..)?.first_chunk()?));
        // `struct rtnl_link_stats64`: packets received and sent, and then bytes.
        (loopback == 0).then_some(at(2)?.saturating_add(at(3)?))
    };
    Ok(all.iter().filter_map(of).fold(0, u64::saturating_add))
}

/// An interface on top of another that takes its MTU from it: a VLAN, or one with an address of its own.
pub(super) fn upper(index: i32) -> Result<Option<String>, ChangeError> {
    const FOLLOWING: &[&str] = &["vlan", "macvlan", "macvtap", "ipvlan", "ipvtap"];
    let all = dump("list interfaces", libc::RTM_GETLINK, ifinfomsg(0))?;
    let is_on = |raw: &&Raw| {
        let below = attributes(&raw.payload, IFINFOMSG_BYTES).find(|(kind, _)| *kind == IFLA_LINK);
        below.and_then(|(_, value)| word(value)) == Some(index.cast_unsigned())
            && kind_of(&raw.payload).is_some_and(|kind| FOLLOWING.contains(&kind.as_str()))
    };
    let name = |raw: &Raw| {
        let name = attributes(&raw.payload, IFINFOMSG_BYTES).find(|(kind, _)| *kind == IFLA_IFNAME);
        name.map(|(_, value)| String::from_utf8_lossy(value).trim_end_matches('\0').to_owned())
    };
    Ok(all.iter().find(is_on).and_then(name))
}

/// `IFLA_INFO_KIND`; none for hardware.
fn kind_of(payload: &[u8]) -> Option<String> {
    let (_, info) = attributes(payload, IFINFOMSG_BYTES).find(|(kind, _)| *kind == IFLA_LINKINFO)?;
    let (_, kind) = attributes(info, 0).find(|(kind, _)| *kind == IFLA_INFO_KIND)?;
    Some(String::from_utf8_lossy(kind).trim_end_matches('\0').to_owned())
}

/// Whether an interface has IPv6, with or without addresses: its settings go with it.
pub(super) fn has_ipv6(link: &str) -> bool {
    std::path::Path::new("/proc/sys/net/ipv6/conf").join(link).exists()
}
