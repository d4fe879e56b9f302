//! The networks that scenarios run on.

use super::{Need, ScenarioError};
use crate::{
    iface::Namespace,
    lab::{Lab, LabConfig, LineConfig, Netns, Pair, PairConfig, Role, Topology, Wire},
};
use std::{net::Ipv4Addr, path::PathBuf, time::Duration};

/// A network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Client and server are pods of a node that routes between them, as [`Topology::Routed`].
    Node,
    /// Client and server are two nodes, joined by a delay line.
    Line {
        /// From one to the other.
        delay: Duration,
        /// Of both ends' interfaces, bytes.
        mtu: u32,
    },
}

/// Where in a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Where requests come from; its interface is `eth0`.
    Client,
    /// Where they go; its interface is `eth0`.
    Server,
    /// What is between them: the ends of the pods' interfaces are `veth-client` and `veth-server`.
    Node,
}

impl Place {
    /// For people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Node => "node",
        }
    }
}

impl Layout {
    /// What the machine must have for it.
    pub(super) const fn needs(self) -> &'static [Need] {
        match self {
            Self::Node => &[],
            Self::Line { .. } => &[Need::Device("/dev/net/tun")],
        }
    }
}

/// A network that is there, until this is dropped.
#[derive(Debug)]
pub(super) enum Ground {
    Node(Box<Lab>),
    Line(Box<Pair>),
}

impl Ground {
    pub(super) fn start(layout: Layout) -> Result<Self, ScenarioError> {
        Ok(match layout {
            Layout::Node => {
                let config = LabConfig { topology: Topology::Routed, ..LabConfig::default() };
                Self::Node(Box::new(Lab::start(config)?))
            }
            Layout::Line { delay, mtu } => {
                let wire = Wire::Line(LineConfig::delay(delay));
                Self::Line(Box::new(Pair::with(PairConfig { mtu, wire })?))
            }
        })
    }

    pub(super) fn netns(&self, place: Place) -> Result<&Netns, ScenarioError> {
        Ok(match (self, place) {
            (Self::Node(lab), Place::Client) => &lab.pod(Role::Client).netns,
            (Self::Node(lab), Place::Server) => &lab.pod(Role::Server).netns,
            (Self::Node(lab), Place::Node) => &lab.node().netns,
            (Self::Line(pair), Place::Client) => &pair.client().netns,
            (Self::Line(pair), Place::Server) => &pair.server().netns,
            (Self::Line(_), Place::Node) => return Err(ScenarioError::NoPlace(place.name())),
        })
    }

    pub(super) fn server(&self) -> Ipv4Addr {
        match self {
            Self::Node(lab) => lab.pod(Role::Server).ipv4,
            Self::Line(pair) => pair.server().ipv4,
        }
    }

    pub(super) fn client(&self) -> Ipv4Addr {
        match self {
            Self::Node(lab) => lab.pod(Role::Client).ipv4,
            Self::Line(pair) => pair.client().ipv4,
        }
    }

    pub(super) fn id(&self) -> &str {
        match self {
            Self::Node(lab) => lab.id(),
            Self::Line(pair) => pair.id(),
        }
    }

    pub(super) fn directory(&self) -> PathBuf {
        match self {
            Self::Node(lab) => lab.directory(),
            Self::Line(pair) => pair.directory(),
        }
    }

    /// What a capture is to look at: each packet on one wire once, and the sockets of both ends.
    pub(super) fn namespaces(&self) -> Vec<Namespace> {
        match self {
            Self::Node(lab) => lab.namespaces(),
            Self::Line(pair) => {
                [("client", &pair.client().netns, true), ("server", &pair.server().netns, false)]
                    .map(|(name, netns, wire)| Namespace {
                        name: name.to_owned(),
                        path: Some(netns.path().to_owned()),
                        wire,
                    })
                    .into()
            }
        }
    }
}
