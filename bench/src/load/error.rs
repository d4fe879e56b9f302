//! What can go wrong: before a run as a typed error, during one as a count by kind.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{io, net::SocketAddr};
use thiserror::Error;

/// Why a load could not be run.
#[derive(Debug, Error)]
pub enum LoadError {
    /// A number that cannot be.
    #[error("load {load}: {field} is {value}, and may be {bounds}")]
    Spec {
        /// The load.
        load: String,
        /// What it is of the load.
        field: &'static str,
        /// What it was.
        value: String,
        /// What it may be.
        bounds: String,
    },
    /// Too many loads at once, or none.
    #[error("profile {profile} has {parts} parts, and may have 1 to {}", super::MOST_PARTS)]
    Parts {
        /// The profile.
        profile: String,
        /// Its parts.
        parts: usize,
    },
    /// Two parts could not be told apart.
    #[error("profile {profile} has two parts named {load}; give one another `name`")]
    SameName {
        /// The profile.
        profile: String,
        /// The name.
        load: String,
    },
    /// A description that is no description.
    #[error("profile: {0}")]
    Toml(#[from] Box<toml::de::Error>),
    /// An option that says nothing of this kind of load.
    #[error("load {load}: {option} means nothing for {kind}")]
    Option {
        /// The load.
        load: String,
        /// The option.
        option: &'static str,
        /// What it is.
        kind: &'static str,
    },
    /// A server's port is taken.
    #[error("{address} is in use by another program; choose another port, or 0 for any that is free")]
    PortInUse {
        /// Address and port.
        address: SocketAddr,
    },
    /// A server's socket cannot be had.
    #[error("cannot listen at {address}: {source}")]
    Listen {
        /// Address and port.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The server is not there, when the client begins.
    #[error("load {load}: cannot connect to {address}: {source}")]
    Connect {
        /// The load.
        load: String,
        /// The server.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A profile's parts and the servers named for them are not as many.
    #[error("{parts} parts and {addresses} servers")]
    Addresses {
        /// Parts.
        parts: usize,
        /// Servers.
        addresses: usize,
    },
    /// The machine lacks what a thread needs.
    #[error("cannot {action}: {source}")]
    System {
        /// What failed.
        action: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A thread of the generator ended by a panic: a fault of the program.
    #[error("a thread of load {load} panicked")]
    Panicked {
        /// The load.
        load: String,
    },
}

impl LoadError {
    /// A server's socket that cannot be had.
    pub(crate) fn listen(address: SocketAddr, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::PortInUse { address },
            _ => Self::Listen { address, source },
        }
    }
}

/// Why a request has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// Nobody listens (ECONNREFUSED).
    Refused,
    /// The connection was reset (ECONNRESET, EPIPE, ECONNABORTED).
    Reset,
    /// The connection was closed before the answer was whole.
    Closed,
    /// No answer within the limit. The latencies have the wait.
    TimedOut,
    /// It was not sent before the run was over, because those before it were late. The latencies have the wait.
    Unsent,
    /// No way there (ENETUNREACH, EHOSTUNREACH).
    Unreachable,
    /// No local port is free (EADDRNOTAVAIL), or no descriptor (EMFILE).
    Exhausted,
    /// The server answered that it will not: an HTTP status of 400 or more, a DNS code other than NOERROR and NXDOMAIN.
    Rejected,
    /// What came is no answer.
    Malformed,
    /// The run was ended before the answer came.
    Stopped,
    /// Anything else.
    Other,
}

impl Failure {
    /// All, in the order of [`Failure::index`].
    pub const ALL: [Self; 11] = [
        Self::Refused,
        Self::Reset,
        Self::Closed,
        Self::TimedOut,
        Self::Unsent,
        Self::Unreachable,
        Self::Exhausted,
        Self::Rejected,
        Self::Malformed,
        Self::Stopped,
        Self::Other,
    ];

    /// Its place in a table.
    pub(super) const fn index(self) -> usize {
        self as usize
    }

    /// As in results.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Closed => "closed",
            Self::TimedOut => "timed_out",
            Self::Unsent => "unsent",
            Self::Unreachable => "unreachable",
            Self::Exhausted => "exhausted",
            Self::Rejected => "rejected",
            Self::Malformed => "malformed",
            Self::Stopped => "stopped",
            Self::Other => "other",
        }
    }

    /// Of what a socket call said.
    #[must_use]
    pub fn of(error: &io::Error) -> Self {
        use io::ErrorKind as E;
        if matches!(rustix::io::Errno::from_io_error(error), Some(rustix::io::Errno::MFILE)) {
            return Self::Exhausted;
        }
        match error.kind() {
            E::ConnectionRefused => Self::Refused,
            E::ConnectionReset | E::BrokenPipe | E::ConnectionAborted => Self::Reset,
            E::UnexpectedEof => Self::Closed,
            E::WouldBlock | E::TimedOut => Self::TimedOut,
            E::NetworkUnreachable | E::HostUnreachable => Self::Unreachable,
            E::AddrNotAvailable | E::AddrInUse => Self::Exhausted,
            E::InvalidData => Self::Malformed,
            _ => Self::Other,
        }
    }
}
