//! Local ports, taken in turn.
//!
//! A socket that asks the kernel for any port gets one at random, which a flow that is just over may have had: to connection
//! tracking it is the same flow then, and no new one. One after the other, a port comes again after all others have.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
};

/// Of the calling thread's network namespace; also IPv6 has its ports from there.
const RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// The kernel's own, where that cannot be read.
const DEFAULT: [u16; 2] = [32_768, 60_999];

/// A share of the ports that sockets get when they ask for any.
pub(super) struct Ports {
    first: u16,
    count: u16,
    taken: u16,
}

impl Ports {
    /// Those of one of so many connections.
    pub(super) fn of(connection: u32, connections: u32) -> Self {
        let text = fs::read_to_string(RANGE).unwrap_or_default();
        Self::share(range(&text).unwrap_or(DEFAULT), connection, connections)
    }

    fn share([low, high]: [u16; 2], connection: u32, connections: u32) -> Self {
        let all = u32::from(high - low) + 1;
        let each = (all / connections.max(1)).max(1);
        // More connections than ports: some share.
        let first = u32::from(low) + (connection * each) % all;
        let count = each.min(u32::from(u16::MAX) - first + 1);
        // Both are of a range of ports.
        Self { first: first as u16, count: count as u16, taken: 0 }
    }

    fn next(&mut self) -> u16 {
        let port = self.first + self.taken;
        self.taken = (self.taken + 1) % self.count;
        port
    }

    /// A UDP socket at the next port that is free.
    pub(super) fn socket(&mut self, peer: SocketAddr) -> io::Result<UdpSocket> {
        let any: IpAddr = match peer {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        for _ in 0..self.count {
            match UdpSocket::bind((any, self.next())) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                bound => return bound,
            }
        }
        Err(io::ErrorKind::AddrInUse.into())
    }
}

fn range(text: &str) -> Option<[u16; 2]> {
    let mut words = text.split_whitespace().map(|word| word.parse().ok());
    let (low, high): (u16, u16) = (words.next()??, words.next()??);
    (0 < low && low <= high).then_some([low, high])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_come_in_turn_and_belong_to_one_connection() {
        assert_eq!(range("32768\t60999\n"), Some([32_768, 60_999]));
        assert_eq!((range(""), range("5 4"), range("0 9")), (None, None, None));
        let of = |connection| {
            let mut ports = Ports::share([10, 19], connection, 3);
            (0..4).map(|_| ports.next()).collect::<Vec<_>>()
        };
        assert_eq!([of(0), of(1), of(2)], [[10, 11, 12, 10], [13, 14, 15, 13], [16, 17, 18, 16]]);
        let mut last = Ports::share([65_535, 65_535], 7, 1000);
        assert_eq!((last.next(), last.next()), (65_535, 65_535));
        let mut all = Ports::share([1, 65_535], 0, 1);
        assert_eq!((0..65_535).map(|_| all.next()).max(), Some(65_535));
        assert_eq!(all.next(), 1);
    }

    #[test]
    fn a_port_that_is_taken_is_passed_over() {
        let taken = UdpSocket::bind("0.0.0.0:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let peer = "127.0.0.1:9".parse().unwrap();
        let mut one = Ports { first: port, count: 1, taken: 0 };
        assert_eq!(one.socket(peer).map(drop).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(taken);
        assert_eq!(one.socket(peer).unwrap().local_addr().unwrap().port(), port);
    }
}
