//! The shortest way between two namespaces: one veth pair and nothing else, for benchmarks that want to see an
//! observer's cost and not a bridge's.
//!
//! Needs and yields what [`Lab`](super::Lab) does; it is registered and swept like one.

use super::netlink::{Netlink, VethEnd};
use super::state::{State, netns_name};
use super::topology::Role;
use super::{LabError, Netns, check_capabilities};
use std::net::{IpAddr, Ipv4Addr};

const INTERFACE: &str = "eth0";
const MTU: u32 = 1500;
const PREFIX: u8 = 24;

/// One end of a [`Pair`].
#[derive(Debug)]
pub struct End {
    /// Its namespace, with the one interface `eth0`.
    pub netns: Netns,
    /// Its address.
    pub ipv4: Ipv4Addr,
}

/// Two namespaces joined directly.
#[derive(Debug)]
pub struct Pair {
    // The order is that of removal: the state file stays locked until the namespaces are gone.
    client: End,
    server: End,
    _state: State,
}

impl Pair {
    /// Makes the pair, both ends up and in reach of each other.
    ///
    /// # Errors
    /// As [`Lab::start`](super::Lab::start).
    pub fn start() -> Result<Self, LabError> {
        check_capabilities()?;
        let state = State::register()?;
        let end = |role: Role, host| -> Result<End, LabError> {
            let netns = Netns::create(&netns_name(state.id(), role.name()))?;
            Ok(End { netns, ipv4: Ipv4Addr::new(10, 244, 0, host) })
        };
        let client = end(Role::Client, 2)?;
        let server = end(Role::Server, 3)?;
        client.netns.run(|| {
            Netlink::connect()?.add_veth(
                &VethEnd { name: INTERFACE, mac: [2, 0, 0, 0, 0, 2], mtu: MTU },
                &VethEnd { name: INTERFACE, mac: [2, 0, 0, 0, 0, 3], mtu: MTU },
                server.netns.raw_fd(),
            )
        })??;
        for end in [&client, &server] {
            end.netns.run(|| set_up(end.ipv4))??;
        }
        for end in [&client, &server] {
            end.netns.run(|| Netlink::connect()?.wait_until_up(INTERFACE))??;
        }
        Ok(Self { client, server, _state: state })
    }

    /// The end that asks.
    pub fn client(&self) -> &End {
        &self.client
    }

    /// The end that answers.
    pub fn server(&self) -> &End {
        &self.server
    }
}

fn set_up(address: Ipv4Addr) -> Result<(), LabError> {
    let netlink = Netlink::connect()?;
    netlink.set_up(netlink.index_of("lo")?, None)?;
    let index = netlink.index_of(INTERFACE)?;
    netlink.set_up(index, None)?;
    netlink.add_address(index, IpAddr::V4(address), PREFIX)
}
