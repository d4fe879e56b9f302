//! Traffic with known counts: every function here opens real sockets in two pods, does a bounded amount of work in a
//! bounded time, and returns exactly what it did.
//!
//! Needs a [`Lab`](super::Lab). Each side runs on a thread of its own that has entered its pod's namespace, so that
//! what the kernel knows of the sending task is right as well.

pub mod demo;
pub(super) mod sock;
pub mod tcp;
pub mod udp;

pub use demo::TrafficTotals;

use super::{LabError, Pod};
use serde::{Deserialize, Serialize};
use sock::Stop;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::panic::resume_unwind;
use std::thread;
use std::time::Duration;

/// How long one side waits for the other before it gives up.
pub const PEER_LIMIT: Duration = Duration::from_secs(10);

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// From one pod to another, by one address family. The second is the server.
#[derive(Clone, Copy, Debug)]
pub struct Path<'lab> {
    from: &'lab Pod,
    to: &'lab Pod,
    client: IpAddr,
    server: IpAddr,
}

impl<'lab> Path<'lab> {
    pub(super) fn new(from: &'lab Pod, to: &'lab Pod, family: Family) -> Result<Self, LabError> {
        let address = |pod: &Pod| match family {
            Family::V4 => Ok(IpAddr::V4(pod.ipv4)),
            Family::V6 => pod.ipv6.map(IpAddr::V6).ok_or(LabError::NoIpv6),
        };
        Ok(Self { from, to, client: address(from)?, server: address(to)? })
    }

    /// The pod that sends first.
    pub fn from(&self) -> &'lab Pod {
        self.from
    }

    /// The pod that listens.
    pub fn to(&self) -> &'lab Pod {
        self.to
    }

    /// Address of the first, with a port.
    pub fn client_address(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.client, port)
    }

    /// Address of the second, with a port.
    pub fn server_address(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.server, port)
    }

    /// Opens a socket in the second pod.
    fn open_server<T: Send>(
        &self,
        action: &'static str,
        port: u16,
        open: impl FnOnce(SocketAddr) -> io::Result<T> + Send,
    ) -> Result<T, LabError> {
        let address = self.server_address(port);
        self.to.netns.run(|| open(address))?.map_err(LabError::socket(action, address))
    }

    /// Runs a server and a client, each in its pod, and tells the server to stop when the client is done.
    fn run_pair<S: Send, C: Send>(
        &self,
        server: impl FnOnce(&Stop) -> Result<S, LabError> + Send,
        client: impl FnOnce() -> Result<C, LabError> + Send,
    ) -> Result<(S, C), LabError> {
        let stop = Stop::new().map_err(LabError::socket("make a signal for", self.server_address(0)))?;
        let (served, asked) = thread::scope(|scope| {
            let server = scope.spawn(|| self.to.netns.enter().and_then(|()| server(&stop)));
            let client = scope.spawn(|| self.from.netns.enter().and_then(|()| client()));
            let asked = client.join();
            stop.set();
            (server.join(), asked)
        });
        // The client's error is the one that says more: a server whose client failed sees no more than a silence.
        let asked = asked.unwrap_or_else(|panic| resume_unwind(panic))?;
        let served = served.unwrap_or_else(|panic| resume_unwind(panic))?;
        Ok((served, asked))
    }
}

/// Packets that one UDP datagram becomes on a link: 1 if it fits, else its fragments.
pub fn packets_of_datagram(family: Family, mtu: u32, payload_bytes: u32) -> u32 {
    const UDP_HEADER: u32 = 8;
    let (header, fragment_header) = match family {
        Family::V4 => (20, 20),
        Family::V6 => (40, 48),
    };
    let mut left = payload_bytes + UDP_HEADER;
    if header + left <= mtu {
        return 1;
    }
    // All but the last carry a multiple of 8 bytes.
    let room = mtu.saturating_sub(fragment_header).max(8);
    let mut packets = 1;
    while left > room {
        left -= room & !7;
        packets += 1;
    }
    packets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_are_cut_at_the_mtu() {
        assert_eq!(packets_of_datagram(Family::V4, 1500, 1472), 1);
        assert_eq!(packets_of_datagram(Family::V4, 1500, 1473), 2);
        assert_eq!(packets_of_datagram(Family::V4, 1500, 4000), 3);
        assert_eq!(packets_of_datagram(Family::V6, 1500, 1452), 1);
        assert_eq!(packets_of_datagram(Family::V6, 1500, 1453), 2);
        assert_eq!(packets_of_datagram(Family::V6, 1280, 4000), 4);
    }
}
