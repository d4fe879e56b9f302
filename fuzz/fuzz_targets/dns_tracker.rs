//! The DNS tracker on sequences of records: no panic, and books that add up.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use nettrace::probes::dns::{DnsConfig, DnsTracker};
use nettrace_common::probes::dns::DnsMessage;
use nettrace_common::wire::{Flow, Header};

/// A record with small ranges, so that records often belong together.
#[derive(Arbitrary, Debug)]
struct Record<'a> {
    wait_ns: u32,
    seconds: u8,
    direction: u8,
    ifindex: u8,
    /// Bit 0: TCP; bit 1: IPv6; bit 2: from the server; bit 3: back in time; bits 4 to 6: ends.
    kind: u8,
    seq: u16,
    flags: u8,
    /// Bytes on the wire beyond those captured.
    beyond: u16,
    payload: Payload<'a>,
}

#[derive(Arbitrary, Debug)]
enum Payload<'a> {
    Raw(&'a [u8]),
    /// A well-formed message: id, flags, rcode, one letter of a name, and whether after its length.
    Message(u8, u8, u8, u8, bool),
}

impl Payload<'_> {
    fn bytes(&self) -> Vec<u8> {
        match *self {
            Self::Raw(bytes) => bytes.to_vec(),
            Self::Message(id, flags, rcode, letter, framed) => {
                let prefix: &[u8] = if framed { &[0, 19] } else { &[] };
                let message = [0, id & 3, flags, rcode, 0, 1, 0, 0, 0, 0, 0, 0, 1, letter & 3, 0, 0, 1, 0, 1];
                [prefix, &message].concat()
            }
        }
    }
}

fuzz_target!(|records: Vec<Record<'_>>| {
    let mut tracker = DnsTracker::new(DnsConfig {
        max_waiting: 8,
        max_recent: 8,
        max_streams: 3,
        max_names: 3,
        max_servers: 2,
        listed_names: 2,
        max_slowest: 4,
        ..DnsConfig::default()
    });
    let mut now_ns = 0u64;
    for record in &records {
        let step_ns = u64::from(record.seconds % 8) * 1_000_000_000 + u64::from(record.wait_ns);
        now_ns = if record.kind & 8 == 0 { now_ns + step_ns } else { now_ns.saturating_sub(step_ns) };
        let client = ([record.kind >> 4 & 1; 16], 40_000);
        let server = ([record.kind >> 5 & 3; 16], 53);
        let (from, to) = if record.kind & 4 == 0 { (client, server) } else { (server, client) };
        let bytes = record.payload.bytes();
        let message = DnsMessage {
            header: Header {
                ts_ns: now_ns,
                direction: record.direction % 3,
                ifindex: u32::from(record.ifindex % 3),
                ..Header::default()
            },
            flow: Flow {
                saddr: from.0,
                daddr: to.0,
                sport: from.1,
                dport: to.1,
                protocol: if record.kind & 1 == 0 { 17 } else { 6 },
                family: if record.kind & 2 == 0 { 4 } else { 6 },
                ..Flow::default()
            },
            tcp_seq: u32::from(record.seq),
            payload_len: bytes.len() as u32 + u32::from(record.beyond),
            captured: bytes.len() as u16,
            tcp_flags: record.flags,
            ..DnsMessage::default()
        };
        tracker.feed(&message, &bytes);
    }
    let outcome = tracker.finish(now_ns, 0, 3);
    let dns = &outcome.dns;
    assert_eq!(dns.transactions, dns.answered + dns.timeouts + dns.pending);
    assert_eq!(dns.answered, outcome.latency.count());
    assert_eq!(dns.transactions, dns.names.iter().map(|n| n.transactions).sum::<u64>());
    assert_eq!(dns.transactions, dns.servers.iter().map(|s| s.transactions).sum::<u64>());
    assert!(dns.slowest.len() <= 3);
});
