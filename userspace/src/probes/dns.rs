//! DNS: makes transactions of the messages that kernel programs saw.
//!
//! Needs every [`DnsMessage`] record with its captured payload, in the order of the ring buffer; yields
//! [`snapshot::Dns`], the distribution of `dns.latency`, and what was lost. Everything is driven
//! by the records' own timestamps, so that the replay of a recording comes to the same snapshot.
//!
//! One message is seen at several interfaces on its way, and behind a Service under several server addresses. A
//! transaction belongs to the interface and direction where its query was seen first; `dns/track.rs` has the rules.
//!
//! Lane: events. Signal: `dns.latency`, ns. Losses: `dns_unparsable`, `dns_unmatched`, `table_full`.

pub mod codes;
pub mod message;
mod report;
mod stream;
#[cfg(test)]
pub(crate) mod testing;
mod track;

use crate::snapshot::{self, Hist};
use message::Message;
use nettrace_common::Loss;
use nettrace_common::probes::dns::DnsMessage;
use nettrace_common::wire::{Direction, Flow};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use stream::{Segment, StreamKey, Streams};
use track::{Pairs, Sighting};

/// IANA protocol number of TCP.
const TCP: u8 = 6;
/// IANA protocol number of UDP.
const UDP: u8 = 17;

/// Limits of a [`DnsTracker`]. What does not fit is counted as [`Loss::TableFull`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DnsConfig {
    /// A transaction without an answer for so long has timed out, ns.
    pub timeout_ns: u64,
    /// Transactions that wait for their answer at a time. Those beyond are not in the books at all.
    pub max_waiting: usize,
    /// Settled transactions that are remembered, so that late and repeated answers are told from unmatched ones.
    pub max_recent: usize,
    /// TCP streams, one for each direction of a connection at each interface.
    pub max_streams: usize,
    /// Names told apart; the transactions of others are in the row [`DnsTracker::OTHER`].
    pub max_names: usize,
    /// Servers told apart; the transactions of others are in the row of the unspecified address.
    pub max_servers: usize,
    /// Rows of [`snapshot::Dns::names`]: the most frequent ones; the rest is added to [`DnsTracker::OTHER`].
    pub listed_names: usize,
    /// Transactions kept for [`snapshot::Dns::slowest`], of which [`DnsTracker::finish`] lists the first.
    pub max_slowest: usize,
}

impl Default for DnsConfig {
    fn default() -> Self {
        Self {
            timeout_ns: 5_000_000_000,
            max_waiting: 65_536,
            max_recent: 65_536,
            max_streams: 8_192,
            max_names: 16_384,
            max_servers: 256,
            listed_names: 1_000,
            max_slowest: 1_000,
        }
    }
}

/// What a [`DnsTracker`] could not make transactions of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DnsLosses {
    /// Messages that could not be parsed, and gaps in TCP streams.
    pub unparsable: u64,
    /// Answers whose query was not seen.
    pub unmatched: u64,
    /// Entries that a bounded table had no room for.
    pub table_full: u64,
}

impl DnsLosses {
    /// The counts by reason.
    #[must_use]
    pub const fn by_reason(&self) -> [(Loss, u64); 3] {
        [
            (Loss::DnsUnparsable, self.unparsable),
            (Loss::DnsUnmatched, self.unmatched),
            (Loss::TableFull, self.table_full),
        ]
    }
}

/// What a [`DnsTracker`] comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct DnsOutcome {
    /// The snapshot's part.
    pub dns: snapshot::Dns,
    /// `dns.latency` of all answered transactions, ns.
    pub latency: Hist,
    /// The exact sum of these latencies, ns.
    pub latency_sum_ns: u64,
    /// The exact longest of these latencies, ns.
    pub latency_max_ns: u64,
    /// What was lost.
    pub losses: DnsLosses,
}

/// UDP or TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Transport {
    Udp,
    Tcp,
}

/// Where a packet was seen: an interface, and which way the packet went through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Vantage {
    netns: u32,
    ifindex: u32,
    direction: Direction,
}

/// Pairs queries with answers.
#[derive(Clone, Debug)]
pub struct DnsTracker {
    streams: Streams,
    pairs: Pairs,
    unparsable: u64,
    evicted: u64,
}

impl DnsTracker {
    /// Name of the row for transactions whose names are not told apart; its type is `-`.
    pub const OTHER: &str = "(other)";

    /// A tracker that has seen nothing.
    #[must_use]
    pub fn new(config: DnsConfig) -> Self {
        Self {
            streams: Streams::new(config.max_streams),
            pairs: Pairs::new(config),
            unparsable: 0,
            evicted: 0,
        }
    }

    /// `dns.latency` of the transactions that were answered so far, ns.
    #[must_use]
    pub const fn latency(&self) -> &Hist {
        self.pairs.latency()
    }

    /// Takes a record and the captured bytes after it. Bytes beyond the message's own length are ignored.
    pub fn feed(&mut self, record: &DnsMessage, payload: &[u8]) {
        let wire_len = record.payload_len as usize;
        let payload = &payload[..payload.len().min(wire_len)];
        let ts_ns = record.header.ts_ns;
        let Some((source, destination)) = ends(&record.flow) else {
            self.unparsable += 1;
            return;
        };
        let vantage = Vantage::of(record);
        match record.flow.protocol {
            UDP => {
                let seen = Sighting { ts_ns, vantage, source, destination, transport: Transport::Udp };
                self.message(seen, ts_ns, payload, wire_len);
            }
            TCP => {
                let key = StreamKey { vantage, source, destination };
                let segment = Segment {
                    ts_ns,
                    seq: record.tcp_seq,
                    flags: record.tcp_flags,
                    len: record.payload_len,
                    bytes: payload,
                };
                let found = self.streams.feed(key, &segment);
                self.unparsable += found.unparsable;
                self.evicted += found.evicted;
                for m in found.messages {
                    let transport = Transport::Tcp;
                    let seen = Sighting { ts_ns: m.started_ns, vantage, source, destination, transport };
                    self.message(seen, m.ended_ns, &m.bytes, m.wire_len);
                }
            }
            _ => self.unparsable += 1,
        }
    }

    /// Lets time pass without a DNS message, so that what has timed out is settled and its memory freed.
    ///
    /// For the replay of a recording to come to the same result, the time must be one from the recording too: that of
    /// any other record. Calling it is never necessary.
    pub fn expire(&mut self, now_ns: u64) {
        self.pairs.expire(now_ns);
    }

    /// Ends a window at `now_ns` (CLOCK_MONOTONIC) and yields what it came to, to be [finished](Self::finish). What waits for
    /// its answer belongs to the next one: a transaction is counted in the window in which it ends.
    #[must_use]
    pub fn turn(&mut self, now_ns: u64) -> Self {
        Self {
            streams: Streams::new(0),
            pairs: self.pairs.turn(now_ns),
            unparsable: std::mem::take(&mut self.unparsable),
            evicted: std::mem::take(&mut self.evicted),
        }
    }

    /// Closes the books at `end_ns` of a measurement that began at `start_ns` (both CLOCK_MONOTONIC), listing the
    /// `top_n` slowest transactions.
    #[must_use]
    pub fn finish(self, end_ns: u64, start_ns: u64, top_n: usize) -> DnsOutcome {
        let mut outcome = self.pairs.finish(end_ns, start_ns, top_n);
        outcome.losses.unparsable += self.unparsable;
        outcome.losses.table_full += self.evicted;
        outcome
    }

    /// A message from its captured bytes; a query counts from its first byte, an answer from its last one.
    fn message(&mut self, mut seen: Sighting, ended_ns: u64, bytes: &[u8], wire_len: usize) {
        match Message::parse(bytes, wire_len) {
            Ok(message) if message.response => {
                seen.ts_ns = ended_ns;
                self.pairs.answer(&seen, &message);
            }
            Ok(message) => match message.questions.first() {
                Some(question) => self.pairs.query(&seen, &message, question),
                // Without a question (DSO, a bare cookie) there is nothing to tell the transaction by.
                None => self.unparsable += 1,
            },
            Err(_) => self.unparsable += 1,
        }
    }
}

impl Transport {
    const fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }
}

impl Vantage {
    fn of(record: &DnsMessage) -> Self {
        let direction = match record.header.direction {
            d if d == Direction::In as u8 => Direction::In,
            d if d == Direction::Out as u8 => Direction::Out,
            _ => Direction::None,
        };
        Self { netns: record.header.netns, ifindex: record.header.ifindex, direction }
    }

    /// The same interface, the other way.
    const fn opposite(self) -> Self {
        let direction = match self.direction {
            Direction::None => Direction::None,
            Direction::In => Direction::Out,
            Direction::Out => Direction::In,
        };
        Self { direction, ..self }
    }
}

/// Source and destination of a flow; none when it is not IP.
fn ends(flow: &Flow) -> Option<(SocketAddr, SocketAddr)> {
    let address = |bytes: [u8; 16]| match flow.family {
        4 => {
            let [a, b, c, d, ..] = bytes;
            Some(IpAddr::from(Ipv4Addr::new(a, b, c, d)))
        }
        6 => Some(IpAddr::from(Ipv6Addr::from(bytes))),
        _ => None,
    };
    Some((
        SocketAddr::new(address(flow.saddr)?, flow.sport),
        SocketAddr::new(address(flow.daddr)?, flow.dport),
    ))
}

#[cfg(test)]
mod tests;
