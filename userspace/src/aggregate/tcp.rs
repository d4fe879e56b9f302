//! Connections, failures, retransmissions and resets, in all and by remote address.

use super::{ROWS, flow::address};
use crate::{
    kernel_state::KernelState,
    snapshot::{Count, Hist, Tcp, TcpLimited, TcpPeer},
};
use nettrace_common::{
    Counter, Signal,
    probes::tcp::{Again, TcpEvent, TcpEventKind},
    wire::Flow,
};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

/// A connection for which there is no local port fails before a SYN is sent, when the kernel has looked at all ports; one
/// that its application gives up was waited for, ns.
const AT_ONCE_NS: u64 = 50_000_000;

#[derive(Default)]
struct Peer {
    connections: u64,
    failures: u64,
    failures_at_once: u64,
    retransmits: u64,
    resets: u64,
    sndbuf_limited_us: u64,
    rwnd_limited_us: u64,
    srtt: Hist,
}

impl Peer {
    fn events(&self) -> u64 {
        self.connections + self.failures + self.retransmits + self.resets
    }
}

/// The books of TCP.
pub(super) struct TcpBook {
    totals: Tcp,
    failures: BTreeMap<String, u64>,
    peers: HashMap<IpAddr, Peer>,
    max_peers: usize,
    overflow: u64,
}

impl TcpBook {
    pub(super) fn new(max_peers: usize) -> Self {
        Self {
            totals: Tcp::default(),
            failures: BTreeMap::new(),
            peers: HashMap::new(),
            max_peers,
            overflow: 0,
        }
    }

    pub(super) const fn overflow(&self) -> u64 {
        self.overflow
    }

    fn peer(&mut self, flow: &Flow) -> Option<&mut Peer> {
        let addr = address(&flow.daddr, flow.family);
        if self.peers.len() >= self.max_peers && !self.peers.contains_key(&addr) {
            self.overflow += 1;
            return None;
        }
        Some(self.peers.entry(addr).or_default())
    }

    /// A smoothed round trip of a sampled segment, ns.
    pub(super) fn srtt(&mut self, flow: &Flow, ns: u64) {
        if let Some(peer) = self.peer(flow) {
            peer.srtt.record(ns);
        }
    }

    fn again(&mut self, why: u8, segments: u64) {
        self.totals.retransmits += segments;
        if why == Again::Timeout as u8 {
            self.totals.retransmits_timeout += segments;
        } else if why == Again::Fast as u8 {
            self.totals.retransmits_fast += segments;
        }
    }

    /// Takes an event; a handshake yields its time.
    pub(super) fn feed(&mut self, event: &TcpEvent) -> Option<(Signal, u64)> {
        let kind = TcpEventKind::from_u8(event.event)?;
        let mut yields = None;
        let segments = u64::from(event.segments);
        match kind {
            TcpEventKind::Connected => {
                self.totals.connects += 1;
                yields = Some((Signal::TcpConnect, event.duration_ns));
            }
            TcpEventKind::ConnectFailed => {
                self.totals.connect_failures += 1;
                *self.failures.entry(errno_name(event.errno)).or_default() += 1;
            }
            TcpEventKind::Accepted => {
                self.totals.accepts += 1;
                yields = Some((Signal::TcpAccept, event.duration_ns));
            }
            TcpEventKind::Retransmit => self.again(event.again, segments),
            TcpEventKind::ResetSent => self.totals.resets_sent += 1,
            TcpEventKind::ResetReceived => self.totals.resets_received += 1,
            TcpEventKind::Closed => ended(&mut self.totals.limited, event),
        }
        if let Some(peer) = self.peer(&event.flow) {
            match kind {
                TcpEventKind::Connected | TcpEventKind::Accepted => peer.connections += 1,
                TcpEventKind::ConnectFailed => {
                    peer.failures += 1;
                    peer.failures_at_once += u64::from(failed_at_once(event));
                }
                TcpEventKind::Retransmit => peer.retransmits += segments,
                TcpEventKind::ResetSent | TcpEventKind::ResetReceived => peer.resets += 1,
                TcpEventKind::Closed => {
                    peer.sndbuf_limited_us += u64::from(event.sndbuf_limited_us);
                    peer.rwnd_limited_us += u64::from(event.rwnd_limited_us);
                }
            }
            if event.srtt_us != 0 && kind != TcpEventKind::Retransmit {
                peer.srtt.record(u64::from(event.srtt_us) * 1000);
            }
        }
        // A handshake that nobody timed (SYN cookies, SYN-ACK sent again) counts, but has no latency.
        yields.filter(|(_, ns)| *ns != 0)
    }

    /// The snapshot's part; the kernel's exact counts where there are any.
    pub(super) fn finish(self, kernel: Option<&KernelState>) -> Tcp {
        let mut tcp = self.totals;
        if let Some(k) = kernel {
            tcp.connects = k.counter(Counter::TcpConnect);
            tcp.connect_failures = k.counter(Counter::TcpConnectFailed);
            tcp.accepts = k.counter(Counter::TcpAccept);
            tcp.retransmits = k.counter(Counter::TcpRetransmit);
            tcp.retransmits_timeout = k.counter(Counter::TcpRetransmitTimeout);
            tcp.retransmits_fast = k.counter(Counter::TcpRetransmitFast);
            tcp.resets_sent = k.counter(Counter::TcpResetSent);
            tcp.resets_received = k.counter(Counter::TcpResetReceived);
            tcp.listen_overflows = k.listen_overflows;
            tcp.listen_drops = k.listen_drops;
            tcp.segments_sent = k.segments_sent;
            tcp.counters = k.tcp;
            tcp.namespaces.clone_from(&k.tcp_namespaces);
        }
        tcp.failures = self.failures.into_iter().map(|(name, count)| Count { name, count }).collect();
        tcp.failures.sort_by_key(|c| Reverse(c.count));
        let mut peers: Vec<_> = self.peers.into_iter().collect();
        peers.sort_by_key(|(addr, peer)| (Reverse(peer.events()), *addr));
        peers.truncate(ROWS);
        tcp.peers = peers
            .into_iter()
            .map(|(peer, p)| TcpPeer {
                peer,
                connections: p.connections,
                failures: p.failures,
                failures_at_once: p.failures_at_once,
                retransmits: p.retransmits,
                resets: p.resets,
                sndbuf_limited_us: p.sndbuf_limited_us,
                rwnd_limited_us: p.rwnd_limited_us,
                srtt: p.srtt,
            })
            .collect();
        tcp
    }
}

/// Whether it is as of a connection without a local port. One whose SYN was sent before measuring began has no duration.
fn failed_at_once(event: &TcpEvent) -> bool {
    event.errno == 0 && (1..=AT_ONCE_NS).contains(&event.duration_ns)
}

/// Adds what TCP timed of a connection.
fn ended(limited: &mut TcpLimited, event: &TcpEvent) {
    limited.connections += 1;
    limited.connections_sndbuf += u64::from(event.sndbuf_limited_us > 0);
    limited.connections_rwnd += u64::from(event.rwnd_limited_us > 0);
    limited.busy_us += u64::from(event.busy_us);
    limited.rwnd_limited_us += u64::from(event.rwnd_limited_us);
    limited.sndbuf_limited_us += u64::from(event.sndbuf_limited_us);
}

/// Name of an errno that a connection can fail with, or a datagram that is cut or put together.
pub(super) fn errno_name(errno: u32) -> String {
    let name = match i32::try_from(errno).unwrap_or(0) {
        0 => "aborted",
        libc::ECONNREFUSED => "ECONNREFUSED",
        libc::ETIMEDOUT => "ETIMEDOUT",
        libc::EHOSTUNREACH => "EHOSTUNREACH",
        libc::ENETUNREACH => "ENETUNREACH",
        libc::ECONNRESET => "ECONNRESET",
        libc::ECONNABORTED => "ECONNABORTED",
        libc::EPIPE => "EPIPE",
        libc::ENOMEM => "ENOMEM",
        libc::ENOBUFS => "ENOBUFS",
        libc::EMSGSIZE => "EMSGSIZE",
        libc::EINVAL => "EINVAL",
        libc::ENOENT => "ENOENT",
        libc::EPROTO => "EPROTO",
        libc::EACCES => "EACCES",
        libc::ENOPROTOOPT => "ENOPROTOOPT",
        n => return format!("errno {n}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kept_connections_from_sending_adds_up() {
        let mut book = TcpBook::new(2);
        let closed = |busy_us, rwnd_limited_us, sndbuf_limited_us| TcpEvent {
            event: TcpEventKind::Closed as u8,
            flow: Flow { family: 4, ..Flow::default() },
            busy_us,
            rwnd_limited_us,
            sndbuf_limited_us,
            ..TcpEvent::default()
        };
        for event in [closed(9_000, 4_000, 0), closed(u32::MAX, 1_000, 2_000), closed(0, 0, 0)] {
            book.feed(&event);
        }
        let tcp = book.finish(None);
        let sum = TcpLimited {
            connections: 3,
            connections_sndbuf: 1,
            connections_rwnd: 2,
            busy_us: 9_000 + u64::from(u32::MAX),
            rwnd_limited_us: 5_000,
            sndbuf_limited_us: 2_000,
        };
        let peer = &tcp.peers[0];
        assert_eq!((tcp.limited, peer.sndbuf_limited_us, peer.rwnd_limited_us), (sum, 2_000, 5_000));
    }

    #[test]
    fn connections_without_a_port_are_told_from_those_that_were_given_up_or_refused() {
        let mut book = TcpBook::new(2);
        let failed = |errno: i32, duration_ns| TcpEvent {
            event: TcpEventKind::ConnectFailed as u8,
            flow: Flow { family: 4, ..Flow::default() },
            errno: errno.unsigned_abs(),
            duration_ns,
            ..TcpEvent::default()
        };
        let refused = failed(libc::ECONNREFUSED, 1_000);
        for event in [failed(0, 1_000), failed(0, AT_ONCE_NS + 1), failed(0, 0), refused] {
            book.feed(&event);
        }
        let tcp = book.finish(None);
        assert_eq!((tcp.peers[0].failures, tcp.peers[0].failures_at_once), (4, 1));
    }
}
