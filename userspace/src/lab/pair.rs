//! The shortest way between two namespaces: one veth pair and nothing else, for benchmarks that want to see an
//! observer's cost and not a bridge's; or one delay line, for what depends on how far away the other end is.
//!
//! Needs and yields what [`Lab`](super::Lab) does; it is registered and swept like one.

use super::delay::{Line, LineConfig, LineEnd};
use super::netlink::{Mac, Netlink, VethEnd};
use super::state::{State, netns_name};
use super::topology::Role;
use super::{LabError, Netns, check_capabilities};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::RawFd;

/// The one interface of each end.
const INTERFACE: &str = "eth0";
const PREFIX: u8 = 24;

/// What joins the two namespaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wire {
    /// A veth pair: no delay, and segments are cut by the receiver, if at all.
    #[default]
    Veth,
    /// A delay line.
    Line(LineConfig),
}

/// What a pair is to be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PairConfig {
    /// MTU of both ends, bytes.
    pub mtu: u32,
    /// What joins them.
    pub wire: Wire,
}

impl Default for PairConfig {
    /// A veth pair of 1500 bytes.
    fn default() -> Self {
        Self { mtu: 1500, wire: Wire::default() }
    }
}

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
    // The order is that of removal: the line's interfaces go before their namespaces, and the state file stays locked until
    // those are gone.
    line: Option<Box<Line>>,
    client: End,
    server: End,
    state: State,
}

impl Pair {
    /// Makes a pair as it is by default.
    ///
    /// # Errors
    /// As [`Pair::with`].
    pub fn start() -> Result<Self, LabError> {
        Self::with(PairConfig::default())
    }

    /// Makes a pair, both ends up and in reach of each other.
    ///
    /// # Errors
    /// As [`Lab::start`](super::Lab::start).
    pub fn with(config: PairConfig) -> Result<Self, LabError> {
        check_capabilities()?;
        // Below 576 bytes hosts need not take IPv4 datagrams.
        let (mtu, min, max) = (config.mtu, 576, 65_521);
        if !(min..=max).contains(&mtu) {
            return Err(LabError::Mtu { mtu, min, max });
        }
        let state = State::register()?;
        let end = |role: Role, host| -> Result<End, LabError> {
            let netns = Netns::create(&netns_name(state.id(), role.name()))?;
            Ok(End { netns, ipv4: Ipv4Addr::new(10, 244, 0, host) })
        };
        let client = end(Role::Client, 2)?;
        let server = end(Role::Server, 3)?;
        let line = match config.wire {
            Wire::Veth => {
                join_by_veth(&client.netns, server.netns.raw_fd(), mtu)?;
                None
            }
            Wire::Line(line) => {
                let one = LineEnd { netns: &client.netns, name: INTERFACE, mac: CLIENT_MAC };
                let other = LineEnd { netns: &server.netns, name: INTERFACE, mac: SERVER_MAC };
                Some(Box::new(Line::join([&one, &other], mtu, line)?))
            }
        };
        for end in [&client, &server] {
            end.netns.run(|| set_up(end.ipv4))??;
        }
        // A TAP interface has its carrier from the start, and never tells more than that (operstate `unknown`).
        for end in [&client, &server].into_iter().filter(|_| line.is_none()) {
            end.netns.run(|| Netlink::connect()?.wait_until_up(INTERFACE))??;
        }
        Ok(Self { line, client, server, state })
    }

    /// As [`Lab::id`](super::Lab::id).
    pub fn id(&self) -> &str {
        self.state.id()
    }

    /// As of [`Lab`](super::Lab).
    pub(crate) fn directory(&self) -> std::path::PathBuf {
        self.state.directory()
    }

    /// The end that asks.
    pub fn client(&self) -> &End {
        &self.client
    }

    /// The end that answers.
    pub fn server(&self) -> &End {
        &self.server
    }

    /// The delay line between them, the client's end being its first; none where they are joined by a veth pair.
    pub fn line(&self) -> Option<&Line> {
        self.line.as_deref()
    }
}

const CLIENT_MAC: Mac = [2, 0, 0, 0, 0, 2];
const SERVER_MAC: Mac = [2, 0, 0, 0, 0, 3];

fn join_by_veth(client: &Netns, server: RawFd, mtu: u32) -> Result<(), LabError> {
    client.run(|| {
        Netlink::connect()?.add_veth(
            &VethEnd { name: INTERFACE, mac: CLIENT_MAC, mtu },
            &VethEnd { name: INTERFACE, mac: SERVER_MAC, mtu },
            server,
        )
    })?
}

fn set_up(address: Ipv4Addr) -> Result<(), LabError> {
    let netlink = Netlink::connect()?;
    netlink.set_up(netlink.index_of("lo")?, None)?;
    let index = netlink.index_of(INTERFACE)?;
    netlink.set_up(index, None)?;
    netlink.add_address(index, IpAddr::V4(address), PREFIX)
}
