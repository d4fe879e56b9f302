//! Links, addresses and routes of the calling thread's network namespace, over rtnetlink.
//!
//! Needs CAP_NET_ADMIN. A blocking front to the `rtnetlink` crate, with the few calls that a topology is made of.

use super::LabError;
use futures_util::StreamExt;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags};
use rtnetlink::packet_route::link::{
    BridgeStpState, InfoData, InfoVeth, LinkAttribute, LinkMessage, State as LinkState,
};
use rtnetlink::packet_route::route::{RouteMessage, RouteScope};
use rtnetlink::packet_route::tc::{TcAttribute, TcHandle, TcMessage};
use rtnetlink::{Error, Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::RawFd;
use std::pin::pin;
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};

/// Ethernet address.
pub(super) type Mac = [u8; 6];

/// How long a link may take to come up, and how often it is looked at.
const UP_LIMIT: Duration = Duration::from_secs(5);
const UP_POLL: Duration = Duration::from_millis(2);

/// One end of a veth pair.
pub(super) struct VethEnd<'a> {
    pub(super) name: &'a str,
    pub(super) mac: Mac,
    /// Bytes.
    pub(super) mtu: u32,
}

/// Where a route leads.
#[derive(Clone, Copy)]
pub(super) enum Via {
    /// To neighbours on the link itself.
    Link,
    /// To a router on the link.
    Gateway(IpAddr),
}

/// A netlink connection into the namespace that the calling thread was in when it was made.
pub(super) struct Netlink {
    runtime: Runtime,
    handle: Handle,
}

impl Netlink {
    pub(super) fn connect() -> Result<Self, LabError> {
        let runtime = Builder::new_current_thread().enable_all().build().map_err(LabError::NetlinkSocket)?;
        let (connection, handle, _) = {
            let _context = runtime.enter();
            rtnetlink::new_connection().map_err(LabError::NetlinkSocket)?
        };
        runtime.spawn(connection);
        Ok(Self { runtime, handle })
    }

    fn request(
        &self,
        action: &'static str,
        object: impl std::fmt::Display,
        request: impl Future<Output = Result<(), Error>>,
    ) -> Result<(), LabError> {
        self.runtime.block_on(request).map_err(|source| LabError::Netlink {
            action,
            object: object.to_string(),
            source: Box::new(source),
        })
    }

    /// Makes a bridge that forwards at once, up.
    pub(super) fn add_bridge(&self, end: &VethEnd<'_>) -> Result<(), LabError> {
        let message = LinkBridge::new(end.name)
            .address(end.mac.to_vec())
            .mtu(end.mtu)
            .stp_state(BridgeStpState::Disabled)
            .forward_delay(0)
            .mcast_snooping(false)
            .build();
        self.request("add the bridge", end.name, self.handle.link().add(message).execute())
    }

    /// Makes a veth pair, down, whose far end is in another namespace from the start.
    pub(super) fn add_veth(
        &self,
        near: &VethEnd<'_>,
        far: &VethEnd<'_>,
        far_netns: RawFd,
    ) -> Result<(), LabError> {
        let peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name(far.name)
            .address(far.mac.to_vec())
            .mtu(far.mtu)
            .setns_by_fd(far_netns)
            .build();
        let message = LinkVeth::new(near.name, far.name)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .address(near.mac.to_vec())
            .mtu(near.mtu)
            .build();
        self.request("add the link", near.name, self.handle.link().add(message).execute())
    }

    /// Sets a link up, as a port of a bridge if one is given by index.
    pub(super) fn set_up(&self, index: u32, bridge: Option<u32>) -> Result<(), LabError> {
        let mut message = LinkUnspec::new_with_index(index).up();
        if let Some(bridge) = bridge {
            message = message.controller(bridge);
        }
        self.request("set up the link", index, self.handle.link().set(message.build()).execute())
    }

    /// Gives a link its address and MTU.
    pub(super) fn configure(&self, index: u32, mac: Mac, mtu: u32) -> Result<(), LabError> {
        let message = LinkUnspec::new_with_index(index).address(mac.to_vec()).mtu(mtu).build();
        self.request("configure the link", index, self.handle.link().set(message).execute())
    }

    /// Gives a link the queue that a network card has by default (`pfifo_fast`, always in the kernel).
    pub(super) fn add_queue(&self, index: u32) -> Result<(), LabError> {
        let mut message = TcMessage::with_index(i32::try_from(index).unwrap_or(i32::MAX));
        message.header.parent = TcHandle::ROOT;
        message.attributes.push(TcAttribute::Kind("pfifo_fast".to_owned()));
        // The crate's own request for a new qdisc knows no kind but `ingress`.
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::NewQueueDiscipline(message));
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        let mut handle = self.handle.clone();
        self.request("add the queue of link", index, async move {
            let mut answers = handle.request(request)?;
            while let Some(answer) = answers.next().await {
                if let NetlinkPayload::Error(error) = answer.payload
                    && error.code.is_some()
                {
                    return Err(Error::NetlinkError(error));
                }
            }
            Ok(())
        })
    }

    fn link(&self, name: &str) -> Result<LinkMessage, LabError> {
        let links = self.handle.link().get().match_name(name).execute();
        let first = self.runtime.block_on(async { pin!(links).next().await });
        match first {
            Some(Ok(link)) => Ok(link),
            Some(Err(source)) => Err(LabError::Netlink {
                action: "read the link",
                object: name.to_owned(),
                source: Box::new(source),
            }),
            None => Err(LabError::NoSuchLink(name.to_owned())),
        }
    }

    /// Index of a link.
    pub(super) fn index_of(&self, name: &str) -> Result<u32, LabError> {
        self.link(name).map(|link| link.header.index)
    }

    /// Waits until a link carries packets: its carrier is on, its queue is in place.
    pub(super) fn wait_until_up(&self, name: &str) -> Result<(), LabError> {
        let deadline = Instant::now() + UP_LIMIT;
        loop {
            let up = |attribute: &LinkAttribute| *attribute == LinkAttribute::OperState(LinkState::Up);
            if self.link(name)?.attributes.iter().any(up) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(LabError::LinkDown(name.to_owned()));
            }
            std::thread::sleep(UP_POLL);
        }
    }

    /// Adds an address that is usable at once: no duplicate address detection.
    pub(super) fn add_address(&self, index: u32, address: IpAddr, prefix: u8) -> Result<(), LabError> {
        let mut request = self.handle.address().add(index, address, prefix);
        if address.is_ipv6() {
            let message = request.message_mut();
            message.header.flags |= AddressHeaderFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        self.request("add the address", address, request.execute())
    }

    /// Adds a route; the prefix and the gateway are of the same family.
    pub(super) fn add_route(&self, to: IpAddr, prefix: u8, via: Via, index: u32) -> Result<(), LabError> {
        let message = match to {
            IpAddr::V4(to) => route_v4(to, prefix, via, index),
            IpAddr::V6(to) => route_v6(to, prefix, via, index),
        };
        self.request("add the route to", format_args!("{to}/{prefix}"), async {
            self.handle.route().add(message).execute().await
        })
    }
}

fn route_v4(to: Ipv4Addr, prefix: u8, via: Via, index: u32) -> RouteMessage {
    let route = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(to, prefix).output_interface(index);
    match via {
        Via::Gateway(IpAddr::V4(gateway)) => route.gateway(gateway),
        Via::Gateway(IpAddr::V6(gateway)) => route.via(gateway),
        Via::Link => route.scope(RouteScope::Link),
    }
    .build()
}

fn route_v6(to: Ipv6Addr, prefix: u8, via: Via, index: u32) -> RouteMessage {
    let route = RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(to, prefix).output_interface(index);
    match via {
        Via::Gateway(IpAddr::V6(gateway)) => route.gateway(gateway),
        // No IPv6 route goes by an IPv4 router: the kernel is left to say so.
        Via::Gateway(IpAddr::V4(gateway)) => route.gateway(gateway.to_ipv6_mapped()),
        Via::Link => route,
    }
    .build()
}
