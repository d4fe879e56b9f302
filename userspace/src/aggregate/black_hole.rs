//! Path MTU black holes: whether segments that are sent again and again are too long for their path, judged by what else
//! is known of their receiver.

use super::{
    flow::{address, flow_text},
    tables::Bounded,
};
use crate::snapshot::BlackHole;
use nettrace_common::{
    probes::{
        black_hole::{CARRIED_BYTES, CARRIED_BYTES_V6, Stuck, StuckKind},
        ptb::PacketTooBig,
        tcp::{TcpEvent, TcpEventKind},
    },
    wire::Flow,
};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
};

/// A segment that was sent again so often at one length does not pass at that length.
const LOST_FROM: u32 = 3;

/// TCP sends again after two minutes at the latest (TCP_RTO_MAX, include/net/tcp.h); ns.
const FORGET_NS: u64 = 130_000_000_000;

/// Packets as short as this are not lost for their length.
fn carried_bytes(family: u8) -> u32 {
    u32::from(if family == 6 { CARRIED_BYTES_V6 } else { CARRIED_BYTES })
}

/// What is known of one flow at one interface.
#[derive(Clone, Copy, Default)]
struct Path {
    /// Number of the first byte of the segment that is sent again.
    seq: u32,
    /// Its length, bytes.
    bytes: u32,
    /// Times it was sent again at this length.
    at_this: u32,
    /// Times segments were sent again in all, as far as it was told.
    again: u64,
    /// The length that does not pass, bytes; 0 for none.
    lost_bytes: u32,
    /// The longest that is known to pass, to this receiver, bytes; 0 for none.
    passes_bytes: u32,
    /// Whether the receiver lives.
    alive: bool,
    /// When it was last told of, CLOCK_MONOTONIC, ns.
    latest_ns: u64,
    /// Whether it was told of in this window.
    is_new: bool,
}

impl Path {
    fn sent_again(&mut self, stuck: &Stuck) {
        (self.latest_ns, self.is_new) = (stuck.header.ts_ns, true);
        let later = self.at_this > 0 && stuck.seq.wrapping_sub(self.seq) as i32 > 0;
        if later {
            // What is sent again is the first that is not acknowledged: the one before has passed.
            self.passed(self.bytes);
        }
        if later || self.at_this == 0 {
            // The kernel tells from the second time on.
            self.at_this = u32::from(stuck.again);
            self.again += u64::from(stuck.again);
        } else {
            self.at_this = if stuck.bytes == self.bytes { self.at_this + 1 } else { 1 };
            self.again += 1;
        }
        (self.seq, self.bytes) = (stuck.seq, stuck.bytes);
        let shorter = self.lost_bytes == 0 || stuck.bytes < self.lost_bytes;
        if self.at_this >= LOST_FROM && shorter && stuck.bytes > carried_bytes(stuck.flow.family) {
            self.lost_bytes = stuck.bytes;
        }
        self.passes_bytes = self.passes_bytes.max(stuck.passed_bytes);
        self.alive |= stuck.heard != 0;
    }

    fn passed(&mut self, bytes: u32) {
        if bytes >= self.lost_bytes {
            self.lost_bytes = 0;
        } else {
            self.alive = true;
        }
        self.passes_bytes = self.passes_bytes.max(bytes);
        self.at_this = 0;
    }
}

/// Sender and receiver.
type Ends = (IpAddr, IpAddr);

/// All flows with segments that do not get through.
pub(super) struct BlackHoles {
    paths: HashMap<(Flow, u32), Path>,
    peers: HashSet<IpAddr>,
    reached: HashSet<IpAddr>,
    /// Messages about packets that are too big, by their sender and receiver.
    messages: Bounded<Ends>,
    max: usize,
    overflow: u64,
}

impl BlackHoles {
    pub(super) fn new(max: usize) -> Self {
        Self {
            paths: HashMap::new(),
            peers: HashSet::new(),
            reached: HashSet::new(),
            messages: Bounded::new(max),
            max,
            overflow: 0,
        }
    }

    pub(super) fn overflow(&self) -> u64 {
        self.overflow + self.messages.overflow()
    }

    /// Ends a window: yields what it came to. What is known of flows goes on, for as long as TCP may wait until it sends again.
    pub(super) fn turn(&mut self, now_ns: u64) -> Self {
        let is_young = |path: &Path| now_ns.saturating_sub(path.latest_ns) < FORGET_NS;
        let mut next = Self::new(self.max);
        for (key, path) in self.paths.iter().filter(|(_, path)| is_young(path)) {
            next.paths.insert(*key, Path { again: 0, is_new: false, ..*path });
            next.peers.insert(address(&key.0.daddr, key.0.family));
        }
        next.reached = self.reached.intersection(&next.peers).copied().collect();
        std::mem::replace(self, next)
    }

    /// Takes an event of a segment. Returns whether it is one.
    pub(super) fn feed(&mut self, stuck: &Stuck) -> bool {
        let key = (stuck.flow, stuck.header.ifindex);
        match StuckKind::from_u8(stuck.event) {
            Some(StuckKind::Again) => {
                if self.paths.len() >= self.max && !self.paths.contains_key(&key) {
                    self.overflow += 1;
                    return true;
                }
                self.peers.insert(address(&stuck.flow.daddr, stuck.flow.family));
                self.paths.entry(key).or_default().sent_again(stuck);
            }
            Some(StuckKind::Passed) => {
                if let Some(path) = self.paths.get_mut(&key) {
                    path.passed(stuck.bytes);
                }
            }
            None => return false,
        }
        true
    }

    /// A connection to a receiver that is established after its segments were lost shows that it lives.
    pub(super) fn connection(&mut self, event: &TcpEvent) {
        let established = matches!(
            TcpEventKind::from_u8(event.event),
            Some(TcpEventKind::Connected | TcpEventKind::Accepted)
        );
        if established && !self.peers.is_empty() {
            let peer = address(&event.flow.daddr, event.flow.family);
            if self.peers.contains(&peer) {
                self.reached.insert(peer);
            }
        }
    }

    /// A router says that a packet is too big.
    pub(super) fn message(&mut self, ptb: &PacketTooBig) {
        let ends = [ptb.flow.daddr, ptb.original_daddr].map(|addr| address(&addr, ptb.flow.family));
        self.messages.add(ends.into());
    }

    /// One row a receiver, those with most segments sent again first.
    pub(super) fn into_rows(self, rows: usize) -> Vec<BlackHole> {
        // The same flow at several interfaces: the one that saw most.
        let mut flows: BTreeMap<String, (Ends, Path)> = BTreeMap::new();
        for ((flow, _), path) in self.paths.into_iter().filter(|(_, path)| path.lost_bytes > 0 && path.is_new)
        {
            let ends = [flow.saddr, flow.daddr].map(|addr| address(&addr, flow.family)).into();
            let seen = flows.entry(flow_text(&flow)).or_insert((ends, path));
            if path.again > seen.1.again {
                seen.1 = path;
            }
            seen.1.alive |= path.alive;
        }
        let mut told = HashSet::new();
        let mut holes: BTreeMap<IpAddr, BlackHole> = BTreeMap::new();
        for (flow, (ends, path)) in flows {
            let peer = ends.1;
            let hole = holes.entry(peer).or_insert_with(|| BlackHole {
                peer,
                flow,
                flows: 0,
                lost_bytes: path.lost_bytes,
                passes_bytes: None,
                again: 0,
                messages: 0,
                alive: self.reached.contains(&peer),
            });
            hole.flows += 1;
            if told.insert(ends) {
                hole.messages += self.messages.count(&ends);
            }
            hole.again += path.again;
            hole.alive |= path.alive;
            hole.lost_bytes = hole.lost_bytes.min(path.lost_bytes);
            let passes = hole.passes_bytes.unwrap_or(0).max(path.passes_bytes);
            hole.passes_bytes = (passes > 0).then_some(passes);
        }
        let mut holes: Vec<_> = holes.into_values().collect();
        // What passes on one flow is not lost on the other for its length.
        holes.retain(|hole| hole.passes_bytes.is_none_or(|passes| passes < hole.lost_bytes));
        holes.sort_by_key(|hole| (Reverse(hole.again), hole.peer));
        holes.truncate(rows);
        holes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nettrace_common::wire::Header;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    fn flow(sport: u16) -> Flow {
        let mut flow = Flow { sport, dport: 443, protocol: 6, family: 4, ..Flow::default() };
        flow.saddr[..4].copy_from_slice(&[10, 0, 0, 1]);
        flow.daddr[..4].copy_from_slice(&[10, 0, 0, 2]);
        flow
    }

    /// A segment is sent again for the `again`-th time, to a receiver that packets of 60 bytes reached.
    fn stuck(sport: u16, bytes: u32, again: u8) -> Stuck {
        let header = Header { ifindex: 3, ..Header::default() };
        let event = StuckKind::Again as u8;
        Stuck { header, flow: flow(sport), bytes, passed_bytes: 60, event, again, seq: 1, ..Stuck::default() }
    }

    fn holes(events: &[Stuck]) -> Vec<BlackHole> {
        let mut holes = BlackHoles::new(100);
        assert!(events.iter().all(|event| holes.feed(event)));
        holes.into_rows(10)
    }

    #[test]
    fn a_long_segment_that_never_passes_is_a_black_hole() {
        let again = [2, 3, 4].map(|again| stuck(1, 1500, again));
        let [hole] = &holes(&again)[..] else { panic!("{:?}", holes(&again)) };
        assert_eq!((hole.peer, hole.lost_bytes, hole.passes_bytes), (PEER, 1500, Some(60)));
        assert_eq!((hole.flows, hole.again, hole.alive), (1, 4, false));
        let heard = again.map(|event| Stuck { heard: 1, ..event });
        assert!(holes(&heard)[0].alive);
        assert!(holes(&again[..1]).is_empty(), "twice is what a loss does");
    }

    #[test]
    fn short_segments_and_those_that_pass_at_last_are_none() {
        assert!(holes(&[2, 3, 4, 5].map(|again| stuck(1, 576, again))).is_empty());
        let mut events = [2, 3, 4].map(|again| stuck(1, 1500, again)).to_vec();
        let passed = |bytes| Stuck { event: StuckKind::Passed as u8, bytes, ..stuck(1, 0, 4) };
        events.push(passed(1500));
        assert!(holes(&events).is_empty(), "the same length passed: others were lost by chance");
        events[3] = passed(1076);
        let found = holes(&events);
        assert_eq!((found[0].lost_bytes, found[0].passes_bytes, found[0].alive), (1500, Some(1076), true));
    }

    #[test]
    fn a_later_segment_that_is_sent_again_tells_that_the_one_before_passed() {
        let mut events = [2, 3, 4].map(|again| stuck(1, 1500, again)).to_vec();
        events.push(Stuck { seq: 2000, ..stuck(1, 1500, 2) });
        assert!(holes(&events).is_empty());
    }

    #[test]
    fn what_passes_on_another_flow_is_not_lost_for_its_length() {
        let mut events = [2, 3, 4].map(|again| stuck(1, 1500, again)).to_vec();
        events.extend([2, 3].map(|again| Stuck { passed_bytes: 1500, ..stuck(2, 1500, again) }));
        assert!(holes(&events).is_empty());
    }

    #[test]
    fn a_flow_is_followed_over_windows_and_told_of_where_it_is_heard_of() {
        let at = |ts_ns, again| {
            let event = stuck(1, 1500, again);
            Stuck { header: Header { ts_ns, ..event.header }, ..event }
        };
        let mut holes = BlackHoles::new(100);
        assert!(holes.feed(&at(1_000, 2)));
        assert!(holes.turn(2_000).into_rows(10).is_empty(), "twice is what a loss does");
        assert!(holes.feed(&at(3_000, 3)));
        let found = holes.turn(4_000).into_rows(10);
        assert_eq!((found[0].lost_bytes, found[0].again), (1500, 1));
        assert!(holes.turn(5_000).into_rows(10).is_empty(), "nothing is heard of it");
        assert!(holes.feed(&at(6_000, 4)));
        assert_eq!(holes.turn(7_000).into_rows(10).len(), 1);
        holes.turn(7_000 + FORGET_NS);
        assert!(holes.paths.is_empty() && holes.peers.is_empty());
    }

    #[test]
    fn a_new_connection_shows_that_the_peer_lives() {
        let mut holes = BlackHoles::new(100);
        let connected =
            TcpEvent { flow: flow(9), event: TcpEventKind::Connected as u8, ..TcpEvent::default() };
        holes.connection(&connected);
        assert!([2, 3].iter().all(|again| holes.feed(&stuck(1, 1500, *again))));
        assert!(!holes.into_rows(10)[0].alive, "it was before");
        let mut holes = BlackHoles::new(100);
        assert!([2, 3].iter().all(|again| holes.feed(&stuck(1, 1500, *again))));
        holes.connection(&connected);
        // A router's message to its sender, and one to another.
        for sender in [flow(1).saddr, [7; 16]] {
            let told = Flow { daddr: sender, ..flow(1) };
            holes.message(&PacketTooBig {
                flow: told,
                original_daddr: flow(1).daddr,
                ..PacketTooBig::default()
            });
        }
        let rows = holes.into_rows(10);
        assert_eq!((rows[0].alive, rows[0].messages), (true, 1));
    }
}
