//! Who may come in: connections in all and by peer, and requests a second by peer.
//!
//! Needs peers' addresses and the time; yields places that are given back when they are dropped. The table of peers is
//! bounded: one is forgotten once it has no connection and could make all its requests again.

use super::{Refusal, WebConfig};
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

/// Peers that are remembered at a time.
const PEERS: usize = 4_096;

/// Counts who is in.
#[derive(Debug)]
pub(super) struct Gate {
    connections: usize,
    per_peer: usize,
    per_second: f64,
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    connections: usize,
    peers: HashMap<IpAddr, Peer>,
}

#[derive(Debug)]
struct Peer {
    connections: usize,
    /// Requests that it may make at once.
    tokens: f64,
    /// When that was so.
    at: Instant,
}

/// A connection's place.
#[derive(Debug)]
pub(super) struct Place {
    gate: Arc<Gate>,
    peer: IpAddr,
}

impl Gate {
    pub(super) fn new(config: &WebConfig) -> Arc<Self> {
        Arc::new(Self {
            connections: config.connections,
            per_peer: config.connections_per_peer,
            per_second: f64::from(config.requests_per_second),
            inside: Mutex::default(),
        })
    }

    /// A place for a connection.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr, now: Instant) -> Result<Place, Refusal> {
        let peer = whose(address);
        let mut inside = self.inside();
        if inside.connections >= self.connections {
            return Err(Refusal::Connections);
        }
        if inside.peers.len() >= PEERS && !inside.peers.contains_key(&peer) {
            inside.peers.retain(|_, p| p.connections > 0 || self.refilled(p, now) < self.burst());
            if inside.peers.len() >= PEERS {
                return Err(Refusal::Connections);
            }
        }
        let entry =
            inside.peers.entry(peer).or_insert(Peer { connections: 0, tokens: self.burst(), at: now });
        if entry.connections >= self.per_peer {
            return Err(Refusal::Peer);
        }
        entry.connections += 1;
        inside.connections += 1;
        drop(inside);
        Ok(Place { gate: self.clone(), peer })
    }

    fn burst(&self) -> f64 {
        2.0 * self.per_second
    }

    fn refilled(&self, peer: &Peer, now: Instant) -> f64 {
        let seconds = now.saturating_duration_since(peer.at).as_secs_f64();
        (peer.tokens + seconds * self.per_second).min(self.burst())
    }

    /// The books are right at any time: a thread that panicked with them left nothing half done.
    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Whether one more request may be made now.
    pub(super) fn request(&self, now: Instant) -> bool {
        let mut inside = self.gate.inside();
        let Some(peer) = inside.peers.get_mut(&self.peer) else { return false };
        peer.tokens = self.gate.refilled(peer, now);
        peer.at = now;
        let may = peer.tokens >= 1.0;
        if may {
            peer.tokens -= 1.0;
        }
        may
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inside = self.gate.inside();
        inside.connections = inside.connections.saturating_sub(1);
        if let Some(peer) = inside.peers.get_mut(&self.peer) {
            peer.connections = peer.connections.saturating_sub(1);
        }
    }
}

/// Under which address a peer is counted: who has one of IPv6 mostly has 2^64 of them, and this machine all of loopback's.
fn whose(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        own if own.is_loopback() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        v4 @ IpAddr::V4(_) => v4,
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn gate(connections: usize, connections_per_peer: usize, requests_per_second: u32) -> Arc<Gate> {
        Gate::new(&WebConfig {
            connections,
            connections_per_peer,
            requests_per_second,
            ..WebConfig::default()
        })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn places_are_bounded_and_given_back() {
        let gate = gate(3, 2, 1);
        let now = Instant::now();
        let enter = |address: &str| gate.enter(ip(address), now);
        let first = enter("10.0.0.1").unwrap();
        let _second = enter("::ffff:10.0.0.1").unwrap();
        assert_eq!(enter("10.0.0.1").unwrap_err(), Refusal::Peer);
        let _third = enter("10.0.0.2").unwrap();
        assert_eq!(enter("10.0.0.3").unwrap_err(), Refusal::Connections);
        drop(first);
        assert!(enter("10.0.0.1").is_ok());
    }

    #[test]
    fn a_network_of_ipv6_and_loopback_are_one_peer_each() {
        assert_eq!(whose(ip("2001:db8::1")), whose(ip("2001:db8::ffff:1")));
        assert_ne!(whose(ip("2001:db8::1")), whose(ip("2001:db8:0:1::1")));
        assert_eq!(whose(ip("127.9.9.9")), whose(ip("::1")));
        assert_ne!(whose(ip("10.0.0.1")), whose(ip("10.0.0.2")));
    }

    #[test]
    fn requests_come_at_twice_the_rate_at_once_and_at_the_rate_for_good() {
        let gate = gate(4, 4, 5);
        let start = Instant::now();
        let place = gate.enter(ip("10.0.0.1"), start).unwrap();
        let made = |at_ms: u64| {
            let now = start + Duration::from_millis(at_ms);
            (0..100).take_while(|_| place.request(now)).count()
        };
        assert_eq!(made(0), 10);
        assert_eq!(made(0), 0);
        assert_eq!(made(1_000), 5);
        assert_eq!(made(60_000), 10);
        // Coming again does not help, and a clock that goes back takes nothing away.
        drop(place);
        let again = gate.enter(ip("10.0.0.1"), start).unwrap();
        assert!(!again.request(start));
    }

    #[test]
    fn the_table_of_peers_is_bounded_and_forgets_the_rested() {
        let gate = gate(2, 1, 1);
        let start = Instant::now();
        for n in 0..PEERS as u32 {
            let place = gate.enter(IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + n)), start).unwrap();
            assert!(place.request(start));
        }
        assert_eq!(gate.enter(ip("192.0.2.1"), start).unwrap_err(), Refusal::Connections);
        assert!(gate.enter(ip("192.0.2.1"), start + Duration::from_secs(2)).is_ok());
        assert_eq!(gate.inside().peers.len(), 1);
    }
}
