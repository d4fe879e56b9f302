//! The interfaces of a network namespace: MTU, queue, and what they are joined to.
//!
//! Needs: to be in the namespace. Yields: [`NodeLink`] rows, in the kernel's order. Source: RTM_GETLINK (rtnetlink(7)).

use crate::netlink::{DumpError, dump};
use rtnetlink::{
    packet_route::{
        RouteNetlinkMessage,
        link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
    },
    sys::protocols::NETLINK_ROUTE,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    /// Queues for packets that are sent.
    pub tx_queues: u32,
    /// Index of the interface at the other end, which may be in another namespace.
    pub peer_ifindex: Option<u32>,
    /// Index of the bridge or bond that it belongs to.
    pub master_ifindex: Option<u32>,
}

/// All interfaces of the namespace that this thread is in.
///
/// # Errors
/// When the kernel does not answer.
pub(super) fn read() -> Result<Vec<NodeLink>, DumpError> {
    let answers = dump(NETLINK_ROUTE, RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
    Ok(answers.iter().filter_map(link_of).collect())
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
            LinkAttribute::Controller(master) => link.master_ifindex = Some(*master),
            LinkAttribute::LinkInfo(infos) => {
                let kind = |info: &LinkInfo| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                };
                link.kind = infos.iter().find_map(kind);
            }
            _ => {}
        }
    }
    (!link.name.is_empty()).then_some(link)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_is_there() {
        let links = read().unwrap();
        let lo = links.iter().find(|link| link.name == "lo").unwrap();
        assert_eq!((lo.ifindex, lo.kind.as_deref()), (1, None));
        assert!(lo.mtu_bytes >= 1500, "{lo:?}");
    }
}
