//! Where the load runs: two namespaces, and the way between them.

use clap::ValueEnum;
use nettrace::lab::{Lab, LabConfig, LabError, Netns, Pair, Role};
use serde::{Deserialize, Serialize};
use std::{net::Ipv4Addr, path::PathBuf};

/// How client and server are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Layout {
    /// By one veth pair; TC programs at the server's end.
    Direct,
    /// By a bridge in a third namespace, as pods are; TC programs at both of its ports.
    Bridge,
}

impl Layout {
    /// As on the command line.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Bridge => "bridge",
        }
    }

    /// What is between client and server, and where the TC programs are.
    #[must_use]
    pub(crate) const fn describe(self) -> &'static str {
        match self {
            Self::Direct => "one veth pair; TC programs at the server's end",
            Self::Bridge => "veth - bridge - veth; TC programs at both ports of the bridge",
        }
    }
}

/// A namespace that nettrace is told of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Watched {
    /// For reports.
    pub(crate) name: String,
    /// Its file.
    pub(crate) path: PathBuf,
    /// Whether its interfaces get TC programs.
    pub(crate) wire: bool,
}

/// Client and server, up.
pub(crate) enum Net {
    /// [`Layout::Direct`].
    Direct(Pair),
    /// [`Layout::Bridge`].
    Bridge(Box<Lab>),
}

impl Net {
    /// Makes the namespaces.
    ///
    /// # Errors
    /// Without privileges, or when the kernel refuses a link.
    pub(crate) fn start(layout: Layout) -> Result<Self, LabError> {
        Ok(match layout {
            Layout::Direct => Self::Direct(Pair::start()?),
            Layout::Bridge => Self::Bridge(Box::new(Lab::start(LabConfig::default())?)),
        })
    }

    /// Where connections start.
    #[must_use]
    pub(crate) fn client(&self) -> &Netns {
        match self {
            Self::Direct(pair) => &pair.client().netns,
            Self::Bridge(lab) => &lab.pod(Role::Client).netns,
        }
    }

    /// Where they end, and its address.
    #[must_use]
    pub(crate) fn server(&self) -> (&Netns, Ipv4Addr) {
        match self {
            Self::Direct(pair) => (&pair.server().netns, pair.server().ipv4),
            Self::Bridge(lab) => (&lab.pod(Role::Server).netns, lab.pod(Role::Server).ipv4),
        }
    }

    /// What nettrace is told to look at. Its tracepoint programs see every namespace anyway.
    #[must_use]
    pub(crate) fn watched(&self) -> Vec<Watched> {
        let row = |name: &str, netns: &Netns, wire| Watched {
            name: name.to_owned(),
            path: netns.path().to_owned(),
            wire,
        };
        match self {
            Self::Direct(_) => {
                vec![row("server", self.server().0, true), row("client", self.client(), false)]
            }
            Self::Bridge(lab) => vec![row("node", &lab.node().netns, true)],
        }
    }
}
