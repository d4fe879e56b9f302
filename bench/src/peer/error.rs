//! What can go wrong between two peers, each with the peer's address.

use crate::load::LoadError;
use std::{io, net::SocketAddr};
use thiserror::Error;

/// Why peers do not work together.
#[derive(Debug, Error)]
pub enum PeerError {
    /// Nobody is there.
    #[error(
        "cannot reach the peer at {address}: {source}; is `nettrace bench server` running there, at an address that can be \
         reached from here?"
    )]
    Unreachable {
        /// Control address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Somebody else is there.
    #[error("what answers at {address} is no peer of `nettrace bench`")]
    NotAPeer {
        /// Control address.
        address: SocketAddr,
    },
    /// Peers of different versions.
    #[error(
        "the peer at {address} speaks version {theirs} of the protocol, and this one {ours}; use the same nettrace on both"
    )]
    Version {
        /// Its address.
        address: SocketAddr,
        /// Version here.
        ours: u16,
        /// Version there.
        theirs: u16,
    },
    /// The two do not know the same token.
    #[error("the peer at {address} has another token")]
    WrongToken {
        /// Its address.
        address: SocketAddr,
    },
    /// A token that could be guessed.
    #[error("a token has at least {} bytes, and this one {bytes}", super::SHORTEST_TOKEN)]
    ShortToken {
        /// Its length.
        bytes: usize,
    },
    /// There is another experiment.
    #[error("the peer at {address} is busy with another experiment; one runs at a time")]
    Busy {
        /// Its address.
        address: SocketAddr,
    },
    /// The server does not do this.
    #[error("the peer at {address} refuses: {reason}")]
    Refused {
        /// Its address.
        address: SocketAddr,
        /// In its words.
        reason: String,
    },
    /// The peer is gone, or silent.
    #[error("lost the peer at {address} while it was to {doing}: {source}")]
    Lost {
        /// Its address.
        address: SocketAddr,
        /// What was waited for.
        doing: &'static str,
        /// What the connection says.
        source: io::Error,
    },
    /// A message that the peer did not send, or that cannot be read.
    #[error("a message from {address} is damaged, or was changed on its way")]
    Damaged {
        /// Its address.
        address: SocketAddr,
    },
    /// The load itself, or an address: [`LoadError::PortInUse`] of the control connection or of data.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The machine lacks what a peer needs.
    #[error("cannot {action}: {source}")]
    System {
        /// What failed.
        action: &'static str,
        /// Why.
        source: io::Error,
    },
}
