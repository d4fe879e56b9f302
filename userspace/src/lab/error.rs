//! What can go wrong in the lab, with the operand that it went wrong on.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why the lab could not be made, used or removed.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The process may not do what the lab needs.
    #[error("the lab needs the capability {capability} (run it as root, or give the binary that capability)")]
    MissingCapability {
        /// As in capabilities(7): `CAP_NET_ADMIN` or `CAP_SYS_ADMIN`.
        capability: &'static str,
    },
    /// A file, directory or mount could not be handled.
    #[error("cannot {action} {}: {source}", .path.display())]
    File {
        /// A verb: `create`, `lock`, `mount`, ...
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A network namespace could not be made or entered.
    #[error("cannot {action} the network namespace {name}: {source}")]
    Namespace {
        /// A verb: `create`, `enter`, `start a thread in`.
        action: &'static str,
        /// Name of the namespace.
        name: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel refused a change to links, addresses, routes or neighbours.
    #[error("netlink: cannot {action} {object}: {source}")]
    Netlink {
        /// A verb: `add the link`, `add the address`, ...
        action: &'static str,
        /// On what.
        object: String,
        /// The kernel's answer.
        source: Box<rtnetlink::Error>,
    },
    /// There is no connection to the kernel's netlink.
    #[error("cannot open a netlink socket: {0}")]
    NetlinkSocket(#[source] io::Error),
    /// A link that should be there is not.
    #[error("the link {0} does not exist")]
    NoSuchLink(String),
    /// A link did not come up in time.
    #[error("the link {0} did not come up")]
    LinkDown(String),
    /// A kernel parameter could not be read or set.
    #[error("cannot set the sysctl {key} to {value:?}: {source}")]
    Sysctl {
        /// Path below `/proc/sys`.
        key: String,
        /// The value; empty when it was to be read.
        value: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The MTU is not one that the lab's protocols allow.
    #[error("an MTU of {mtu} bytes is outside {min}..={max}")]
    Mtu {
        /// Bytes that were asked for.
        mtu: u32,
        /// Bytes, smallest allowed: 1280 with IPv6, 576 without.
        min: u32,
        /// Bytes, largest allowed.
        max: u32,
    },
    /// IPv6 was asked for, and this kernel or this lab has none.
    #[error("the lab has no IPv6: it is off in this kernel or in the lab's configuration")]
    NoIpv6,
    /// A socket call failed in a way that the traffic does not expect.
    #[error("cannot {action} ({address}): {source}")]
    Socket {
        /// A verb: `bind`, `connect`, `send`, ...
        action: &'static str,
        /// Local address for `bind` and `listen`, else the peer's.
        address: SocketAddr,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A peer did not do its part in time.
    #[error("{what} took longer than {limit_ms} ms")]
    Timeout {
        /// What was waited for.
        what: &'static str,
        /// Milliseconds.
        limit_ms: u64,
    },
    /// A DNS message could not be built or read.
    #[error(transparent)]
    Dns(#[from] super::dns::MessageError),
}

impl LabError {
    /// For `map_err` on file system calls.
    pub(super) fn file<E: Into<io::Error>>(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(E) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source: source.into() }
    }

    /// For `map_err` on socket calls.
    pub(crate) fn socket<E: Into<io::Error>>(
        action: &'static str,
        address: SocketAddr,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::Socket { action, address, source: source.into() }
    }
}
