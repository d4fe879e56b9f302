//! The lab's network: a node and three pods, joined as a CNI would join them.
//!
//! Needs CAP_NET_ADMIN and CAP_SYS_ADMIN. Yields the namespaces with everything in them up and reachable, over IPv4
//! and (where the kernel has it) IPv6. Each pod has one interface `eth0`; its other end is `veth-POD` in the node.
//!
//! ```text
//! Bridge: eth0 -- veth-client -- br0 (10.244.0.1/24) -- veth-server -- eth0
//! Routed: eth0 (10.244.0.2/32, default via 169.254.1.1) -- veth-client -- [routes of the node] -- veth-server -- eth0
//! ```

use super::netlink::{Mac, Netlink, VethEnd, Via};
use super::netns::{Netns, set_sysctl};
use super::{LabConfig, LabError, state};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How the pods are joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Topology {
    /// On a bridge in the node, as the bridge CNI, flannel and kubenet do: packets are switched.
    #[default]
    Bridge,
    /// By a route per pod and proxy ARP, as Calico does: packets are routed, and the node takes part in ICMP and TTL.
    Routed,
}

impl Topology {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Bridge, Self::Routed];
}

/// What a pod is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Where connections and queries start.
    Client,
    /// Where they end.
    Server,
    /// Where the DNS server is.
    Dns,
}

/// The parts of the names of a lab's namespaces: the node, then the pods in the order of [`Role::ALL`].
pub(super) const ROLE_NAMES: [&str; 4] = ["node", "client", "server", "dns"];

impl Role {
    /// All pods of a lab.
    pub const ALL: [Self; 3] = [Self::Client, Self::Server, Self::Dns];

    /// As in `veth-client`.
    pub fn name(self) -> &'static str {
        ROLE_NAMES[1 + self.index()]
    }

    /// Position in [`Role::ALL`].
    pub(super) fn index(self) -> usize {
        match self {
            Self::Client => 0,
            Self::Server => 1,
            Self::Dns => 2,
        }
    }

    /// Last part of the pod's addresses.
    fn host(self) -> u8 {
        match self {
            Self::Client => 2,
            Self::Server => 3,
            Self::Dns => 4,
        }
    }
}

/// An interface within its namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Name.
    pub name: String,
    /// Index in its namespace.
    pub index: u32,
    /// Bytes.
    pub mtu: u32,
}

/// A leg that carries less than the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NarrowLeg {
    /// Whose leg.
    pub pod: Role,
    /// Bytes; below the lab's MTU.
    pub mtu: u32,
    /// Whether the pod knows, that is: whether its own end is as narrow. A pod that does not know sends packets that
    /// the node's end drops without a word: a path MTU black hole from the pod, and "fragmentation needed" to it.
    pub pod_knows: bool,
}

/// A pod.
#[derive(Debug)]
pub struct Pod {
    /// What it is for.
    pub role: Role,
    /// Its namespace.
    pub netns: Netns,
    /// Its own end: `eth0`.
    pub eth0: Interface,
    /// The node's end: `veth-client`, `veth-server`, `veth-dns`.
    pub veth: Interface,
    /// Its IPv4 address.
    pub ipv4: Ipv4Addr,
    /// Its IPv6 address, where the lab has IPv6.
    pub ipv6: Option<Ipv6Addr>,
}

/// The node: the namespace that the pods' veths end in.
#[derive(Debug)]
pub struct Node {
    /// Its namespace.
    pub netns: Netns,
    /// The bridge `br0`; none where pods are routed.
    pub bridge: Option<Interface>,
    /// Its IPv4 address, which the pods can reach.
    pub ipv4: Ipv4Addr,
    /// Its IPv6 address, where the lab has IPv6.
    pub ipv6: Option<Ipv6Addr>,
}

const BRIDGE: &str = "br0";
const POD_INTERFACE: &str = "eth0";
/// Last part of the node's addresses.
const NODE_HOST: u8 = 1;
/// The router that routed pods know; it is on no interface, and proxy ARP answers for it.
const ROUTER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1));
/// The router that routed pods know: every veth's node end has it.
const ROUTER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));
const ANY_V4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const ANY_V6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
const PREFIX_V4: u8 = 24;
const PREFIX_V6: u8 = 64;
const BRIDGE_MAC: Mac = [2, 0, 0, 0, 1, 0];

fn ipv4(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 244, 0, host)
}

fn ipv6(host: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, u16::from(host))
}

/// The addresses of one host: IPv4 with its prefix, and IPv6 with its own if there is IPv6.
fn addresses(host: u8, ipv6_on: bool) -> impl Iterator<Item = IpAddr> {
    std::iter::once(IpAddr::V4(ipv4(host))).chain(ipv6_on.then(|| IpAddr::V6(ipv6(host))))
}

/// Length of a whole address, bits.
fn full_prefix(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn subnet_prefix(address: IpAddr) -> u8 {
    if address.is_ipv4() { PREFIX_V4 } else { PREFIX_V6 }
}

/// The MTU of both ends of a pod's leg: the node's, the pod's.
fn leg_mtu(config: &LabConfig, role: Role) -> (u32, u32) {
    match config.narrow_leg {
        Some(leg) if leg.pod == role => (leg.mtu, if leg.pod_knows { leg.mtu } else { config.mtu }),
        _ => (config.mtu, config.mtu),
    }
}

/// Makes the namespaces and everything in them.
pub(super) fn build(config: &LabConfig, id: &str) -> Result<(Node, [Pod; 3]), LabError> {
    let netns = |role: &str| Netns::create(&state::netns_name(id, role));
    let node_netns = netns(ROLE_NAMES[0])?;
    let pods = [netns(ROLE_NAMES[1])?, netns(ROLE_NAMES[2])?, netns(ROLE_NAMES[3])?];
    let (bridge, veths) = node_netns.run(|| build_node(config, &pods))??;
    let [client, server, dns] = pods;
    let [veth_client, veth_server, veth_dns] = veths;
    let pods = [
        build_pod(config, Role::Client, client, veth_client)?,
        build_pod(config, Role::Server, server, veth_server)?,
        build_pod(config, Role::Dns, dns, veth_dns)?,
    ];
    let links: Vec<_> = pods.iter().map(|pod| &pod.veth).chain(&bridge).collect();
    node_netns.run(|| {
        let netlink = Netlink::connect()?;
        links.iter().try_for_each(|link| netlink.wait_until_up(&link.name))
    })??;
    let node =
        Node { netns: node_netns, bridge, ipv4: ipv4(NODE_HOST), ipv6: config.ipv6.then(|| ipv6(NODE_HOST)) };
    Ok((node, pods))
}

/// What every namespace of a lab is set to, whatever the host's own values are: a new namespace inherits them.
fn common_sysctls(config: &LabConfig) -> Result<(), LabError> {
    for scope in ["all", "default"] {
        // Routed pods are reached by more than one way round.
        set_sysctl(&format!("net/ipv4/conf/{scope}/rp_filter"), "0")?;
        if config.ipv6 {
            set_sysctl(&format!("net/ipv6/conf/{scope}/disable_ipv6"), "0")?;
            set_sysctl(&format!("net/ipv6/conf/{scope}/accept_ra"), "0")?;
            // Link-local addresses are usable at once too.
            set_sysctl(&format!("net/ipv6/conf/{scope}/accept_dad"), "0")?;
        }
    }
    Ok(())
}

type NodeLinks = (Option<Interface>, [Interface; 3]);

/// Runs in the node's namespace.
fn build_node(config: &LabConfig, pods: &[Netns; 3]) -> Result<NodeLinks, LabError> {
    common_sysctls(config)?;
    set_sysctl("net/ipv4/ip_forward", "1")?;
    if config.ipv6 {
        set_sysctl("net/ipv6/conf/all/forwarding", "1")?;
    }
    let netlink = Netlink::connect()?;
    let loopback = netlink.index_of("lo")?;
    netlink.set_up(loopback, None)?;
    let bridge = match config.topology {
        Topology::Bridge => Some(build_bridge(config, &netlink)?),
        Topology::Routed => {
            for address in addresses(NODE_HOST, config.ipv6) {
                netlink.add_address(loopback, address, full_prefix(address))?;
            }
            // Proxy ARP answers for what the node itself would route to elsewhere; this is that elsewhere.
            netlink.add_route(ROUTER_V4, 32, Via::Link, loopback)?;
            None
        }
    };
    let veth = |role: Role| -> Result<Interface, LabError> {
        let veth = add_veth(config, &netlink, role, &pods[role.index()], bridge.as_ref())?;
        if config.topology == Topology::Routed {
            route_to_pod(config, &netlink, role, &veth)?;
        }
        Ok(veth)
    };
    let veths = [veth(Role::Client)?, veth(Role::Server)?, veth(Role::Dns)?];
    Ok((bridge, veths))
}

fn build_bridge(config: &LabConfig, netlink: &Netlink) -> Result<Interface, LabError> {
    netlink.add_bridge(&VethEnd { name: BRIDGE, mac: BRIDGE_MAC, mtu: config.mtu })?;
    let index = netlink.index_of(BRIDGE)?;
    for address in addresses(NODE_HOST, config.ipv6) {
        netlink.add_address(index, address, subnet_prefix(address))?;
    }
    Ok(Interface { name: BRIDGE.to_owned(), index, mtu: config.mtu })
}

fn add_veth(
    config: &LabConfig,
    netlink: &Netlink,
    role: Role,
    pod: &Netns,
    bridge: Option<&Interface>,
) -> Result<Interface, LabError> {
    let name = format!("veth-{}", role.name());
    let (node_mtu, pod_mtu) = leg_mtu(config, role);
    netlink.add_veth(
        &VethEnd { name: &name, mac: [2, 0, 0, 0, 1, role.host()], mtu: node_mtu },
        &VethEnd { name: POD_INTERFACE, mac: [2, 0, 0, 0, 0, role.host()], mtu: pod_mtu },
        pod.raw_fd(),
    )?;
    let index = netlink.index_of(&name)?;
    netlink.set_up(index, bridge.map(|bridge| bridge.index))?;
    Ok(Interface { name, index, mtu: node_mtu })
}

/// The node's side of a routed pod.
fn route_to_pod(config: &LabConfig, netlink: &Netlink, role: Role, veth: &Interface) -> Result<(), LabError> {
    set_sysctl(&format!("net/ipv4/conf/{}/proxy_arp", veth.name), "1")?;
    // Without this, proxied answers wait a random time of up to 0.8 s.
    set_sysctl(&format!("net/ipv4/neigh/{}/proxy_delay", veth.name), "0")?;
    if config.ipv6 {
        netlink.add_address(veth.index, ROUTER_V6, 64)?;
    }
    for address in addresses(role.host(), config.ipv6) {
        netlink.add_route(address, full_prefix(address), Via::Link, veth.index)?;
    }
    Ok(())
}

fn build_pod(config: &LabConfig, role: Role, netns: Netns, veth: Interface) -> Result<Pod, LabError> {
    let index = netns.run(|| {
        common_sysctls(config)?;
        // Enough ports for load that connects anew for every request.
        set_sysctl("net/ipv4/ip_local_port_range", "10240 65535")?;
        let netlink = Netlink::connect()?;
        netlink.set_up(netlink.index_of("lo")?, None)?;
        let index = netlink.index_of(POD_INTERFACE)?;
        if config.queues {
            netlink.add_queue(index)?;
        }
        netlink.set_up(index, None)?;
        for address in addresses(role.host(), config.ipv6) {
            pod_address(config.topology, &netlink, index, address)?;
        }
        netlink.wait_until_up(POD_INTERFACE)?;
        Ok::<_, LabError>(index)
    })??;
    let eth0 = Interface { name: POD_INTERFACE.to_owned(), index, mtu: leg_mtu(config, role).1 };
    let ipv6 = config.ipv6.then(|| ipv6(role.host()));
    Ok(Pod { role, netns, eth0, veth, ipv4: ipv4(role.host()), ipv6 })
}

/// An address of a pod, and its default route.
fn pod_address(topology: Topology, netlink: &Netlink, index: u32, address: IpAddr) -> Result<(), LabError> {
    let any = if address.is_ipv4() { ANY_V4 } else { ANY_V6 };
    let router = match topology {
        Topology::Bridge => {
            netlink.add_address(index, address, subnet_prefix(address))?;
            if address.is_ipv4() { IpAddr::V4(ipv4(NODE_HOST)) } else { IpAddr::V6(ipv6(NODE_HOST)) }
        }
        Topology::Routed => {
            netlink.add_address(index, address, full_prefix(address))?;
            if address.is_ipv4() {
                netlink.add_route(ROUTER_V4, 32, Via::Link, index)?;
                ROUTER_V4
            } else {
                ROUTER_V6
            }
        }
    };
    netlink.add_route(any, 0, Via::Gateway(router), index)
}
