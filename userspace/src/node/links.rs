//! The interfaces of a network namespace: MTU, queue, and what they are joined to, and addresses.
//!
//! Needs: to be in the namespace. Yields: [`NodeLink`] rows, in the kernel's order. Sources: RTM_GETLINK, RTM_GETADDR
//! (rtnetlink(7)), and of the queues RTM_GETQDISC.

use super::qdiscs::Qdiscs;
use crate::{
    deadline::Deadline,
    netlink::{dump_each, settled},
};
use rtnetlink::{
    packet_route::{
        RouteNetlinkMessage,
        address::{AddressAttribute, AddressMessage},
        link::{
            InfoData, InfoGeneve, InfoGre, InfoIpTunnel, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo,
            LinkMessage,
        },
    },
    sys::protocols::NETLINK_ROUTE,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{net::IpAddr, ops::ControlFlow, slice};

/// Interfaces after the first so many are not listed: a node has as many pods as it has addresses for them, some hundreds.
const MAX_LINKS: usize = 16_384;
/// Addresses of one interface that are kept.
const ADDRESSES_OF_LINK: usize = 64;
/// Addresses that are looked at: kube-proxy binds one for each Service in its mode IPVS.
const MAX_ADDRESSES: usize = 65_536;

/// One interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeLink {
    /// Its name, as in `ip link`.
    pub name: String,
    /// Interface index.
    pub ifindex: u32,
    /// Kind: `veth`, `bridge`, ...; none for hardware and loopback.
    pub kind: Option<String>,
    /// Whether it is up.
    pub up: bool,
    /// The longest packet that it takes, bytes, without the link header.
    pub mtu_bytes: u32,
    /// What packets that are sent wait in (qdisc).
    pub qdisc: String,
    /// Kinds of the queues below that qdisc, where it has classes (mq, htb, tbf, ...), or its own; none where they could not be
    /// read, and in older snapshots.
    #[serde(default)]
    pub leaves: Option<Vec<String>>,
    /// How much that qdisc holds where it is a pfifo, packets, or a bfifo, bytes.
    #[serde(default)]
    pub fifo_limit: Option<u32>,
    /// Queues for packets that are sent.
    pub tx_queues: u32,
    /// Index of the interface at the other end of a veth, or below a tunnel, which may be in another namespace.
    pub peer_ifindex: Option<u32>,
    /// The number by which this namespace knows that other namespace (`link-netnsid` of `ip link`); none where it is this one.
    #[serde(default)]
    pub peer_netnsid: Option<i32>,
    /// Whether each packet that it carries is told its way by who sends it (`external` of `ip -d link`): what is below such a
    /// tunnel is not known.
    #[serde(default)]
    pub flow_based: bool,
    /// Index of the bridge or bond that it belongs to.
    pub master_ifindex: Option<u32>,
    /// Its own addresses, the first 64; none in older snapshots, and where they could not be listed.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
}

/// Kinds of interfaces that wrap packets, as `ip -d link` names them, and what each puts before a packet that it carries, bytes:
/// by IPv4 where it can, by IPv6 it is 20 more, and options come on top, so that this is the least. None where that is not known.
/// Source: the kinds' own `..._HEADROOM` and `needed_headroom`, wireguard(8).
const TUNNELS: &[(&str, Option<u32>)] = &[
    ("vxlan", Some(50)),
    ("geneve", Some(50)),
    ("ipip", Some(20)),
    ("sit", Some(20)),
    ("gre", Some(24)),
    ("gretap", Some(38)),
    ("ip6tnl", Some(40)),
    ("ip6gre", Some(44)),
    ("wireguard", Some(60)),
    ("bareudp", None),
    ("fou", None),
];

impl NodeLink {
    fn tunnel(&self) -> Option<&'static (&'static str, Option<u32>)> {
        let kind = self.kind.as_deref()?;
        TUNNELS.iter().find(|(name, _)| *name == kind)
    }

    /// Kinds of the queues that packets which are sent wait in; none where it is not known what is below an mq, which holds no
    /// packet itself.
    #[must_use]
    pub fn queues(&self) -> Option<&[String]> {
        // One that has classes need not hold any, either: what is below does.
        let leaves = self.leaves.as_deref().filter(|kinds| kinds.iter().any(|kind| kind != "mq"));
        leaves.or_else(|| (self.qdisc != "mq").then(|| slice::from_ref(&self.qdisc)))
    }

    /// Whether it wraps packets into others.
    #[must_use]
    pub fn is_tunnel(&self) -> bool {
        self.tunnel().is_some()
    }

    /// What it puts before each packet that it carries, bytes, at least; none of what is no tunnel, and where it is not known.
    #[must_use]
    pub fn overhead_bytes(&self) -> Option<u32> {
        self.tunnel()?.1
    }
}

/// The interfaces of the namespace that this thread is in, and why these are not all.
pub(super) fn list(deadline: Deadline) -> (Vec<NodeLink>, Option<String>) {
    let mut more = false;
    let (links, error) = settled(Vec::new, |links: &mut Vec<NodeLink>| {
        let question = RouteNetlinkMessage::GetLink(LinkMessage::default());
        dump_each(NETLINK_ROUTE, question, deadline, |answer| {
            more = links.len() >= MAX_LINKS;
            if more {
                return ControlFlow::Break(());
            }
            links.extend(link_of(&answer));
            ControlFlow::Continue(())
        })
    });
    let cut = more.then(|| format!("interfaces after the first {MAX_LINKS} are not listed"));
    (links, error.map(|error| error.to_string()).or(cut))
}

/// The same, with the queues of each: without them all else is still known.
pub(super) fn read(deadline: Deadline) -> (Vec<NodeLink>, Option<String>) {
    let (mut links, error) = list(deadline);
    let (qdiscs, unread) = Qdiscs::read(deadline);
    for link in &mut links {
        link.leaves = qdiscs.leaves(link.ifindex);
        link.fifo_limit = qdiscs.fifo_limit(link.ifindex);
    }
    add_addresses(&mut links, deadline);
    if let Some(why) = unread {
        tracing::debug!("not all queues of interfaces are known: {why}");
    }
    (links, error)
}

/// Gives interfaces their addresses, as far as they can be read: they only tell whose a packet is.
fn add_addresses(links: &mut [NodeLink], deadline: Deadline) {
    let (addresses, error) = settled(Vec::new, |addresses| {
        let question = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        dump_each(NETLINK_ROUTE, question, deadline, |answer| {
            if let RouteNetlinkMessage::NewAddress(message) = answer {
                addresses.extend(own(&message).map(|address| (message.header.index, address)));
            }
            let full = addresses.len() >= MAX_ADDRESSES;
            if full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
    });
    if let Some(error) = error {
        tracing::debug!("not all addresses are known: {error}");
    }
    for (ifindex, address) in addresses {
        let link = links.iter_mut().find(|link| link.ifindex == ifindex);
        if let Some(link) = link.filter(|link| link.addresses.len() < ADDRESSES_OF_LINK) {
            link.addresses.push(address);
        }
    }
}

/// Of a link to one other end, IFA_ADDRESS is that of the other end, and IFA_LOCAL its own.
fn own(message: &AddressMessage) -> Option<IpAddr> {
    let local = |attribute: &AddressAttribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    };
    let any = |attribute: &AddressAttribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    };
    let attributes = || message.attributes.iter();
    attributes().find_map(local).or_else(|| attributes().find_map(any))
}

fn link_of(answer: &RouteNetlinkMessage) -> Option<NodeLink> {
    let RouteNetlinkMessage::NewLink(message) = answer else { return None };
    let mut link = NodeLink {
        ifindex: message.header.index,
        up: message.header.flags.contains(LinkFlags::Up),
        ..NodeLink::default()
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(bytes) => link.mtu_bytes = *bytes,
            LinkAttribute::Qdisc(kind) => link.qdisc.clone_from(kind),
            LinkAttribute::NumTxQueues(n) => link.tx_queues = *n,
            LinkAttribute::Link(peer) => link.peer_ifindex = Some(*peer),
            LinkAttribute::LinkNetNsId(netnsid) => link.peer_netnsid = Some(*netnsid),
            LinkAttribute::Controller(master) => link.master_ifindex = Some(*master),
            LinkAttribute::LinkInfo(infos) => {
                let kind = |info: &LinkInfo| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                };
                link.kind = infos.iter().find_map(kind);
                link.flow_based = infos.iter().any(flow_based);
            }
            _ => {}
        }
    }
    (!link.name.is_empty()).then_some(link)
}

fn flow_based(info: &LinkInfo) -> bool {
    let LinkInfo::Data(data) = info else { return false };
    match data {
        InfoData::Vxlan(infos) => infos.contains(&InfoVxlan::CollectMetadata(true)),
        InfoData::Geneve(infos) => infos.contains(&InfoGeneve::CollectMetadata),
        InfoData::GreTap(infos) | InfoData::GreTun(infos) => infos.contains(&InfoGre::CollectMetadata),
        InfoData::IpTunnel(infos) => infos.contains(&InfoIpTunnel::CollectMetadata),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tunnels_whose_packets_are_told_their_way_are_known() {
        let of = |data| flow_based(&LinkInfo::Data(data));
        assert!(of(InfoData::Vxlan(vec![InfoVxlan::Id(0), InfoVxlan::CollectMetadata(true)])));
        assert!(!of(InfoData::Vxlan(vec![InfoVxlan::Id(7), InfoVxlan::CollectMetadata(false)])));
        assert!(of(InfoData::Geneve(vec![InfoGeneve::CollectMetadata])));
        assert!(!of(InfoData::Other(vec![])));
    }

    #[test]
    fn the_loopback_is_there() {
        let soon = Deadline::after(std::time::Duration::from_secs(60));
        let (links, error) = read(soon);
        assert_eq!(error, None);
        let lo = links.iter().find(|link| link.name == "lo").unwrap();
        assert_eq!((lo.ifindex, lo.kind.as_deref()), (1, None));
        assert!(lo.mtu_bytes >= 1500, "{lo:?}");
        assert!(lo.leaves.is_some(), "its queue is known: {lo:?}");
        assert!(!lo.up || lo.addresses.contains(&[127, 0, 0, 1].into()), "{lo:?}");
        let late = Deadline::after(std::time::Duration::ZERO);
        assert!(read(late).1.is_some_and(|error| error.contains("not all was read within")));
    }

    #[test]
    fn of_a_link_to_one_other_end_the_own_address_is_kept() {
        let (own_end, other_end) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let mut message = AddressMessage::default();
        message.attributes = vec![AddressAttribute::Address(other_end), AddressAttribute::Local(own_end)];
        assert_eq!(own(&message), Some(own_end));
        message.attributes.pop();
        assert_eq!(own(&message), Some(other_end), "IPv6 has this one alone");
    }
}
