use super::testing::{End, answer, framed, query, tcp, udp, with_opt};
use super::*;
use nettrace_common::wire::Direction::{In, Out};
use proptest::prelude::*;

const CLIENT: End = (1, 40_000);
const SERVER: End = (53, 53);
const BACKEND: End = (77, 53);
/// The client's veth as the host sees it, the bridge's or backend's port, and the loopback device.
const VETH: u32 = 10;
const PORT: u32 = 11;
const LO: u32 = 1;
const MS: u64 = 1_000_000;

struct Rig(DnsTracker);

impl Rig {
    fn new() -> Self {
        Self(DnsTracker::new(DnsConfig::default()))
    }

    fn with(change: impl FnOnce(&mut DnsConfig)) -> Self {
        let mut config = DnsConfig::default();
        change(&mut config);
        Self(DnsTracker::new(config))
    }

    /// A datagram at a time in ms.
    fn udp(&mut self, ms: u64, at: (u32, Direction), from: End, to: End, payload: &[u8]) -> &mut Self {
        self.0.feed(&udp(ms * MS, at, from, to, payload), payload);
        self
    }

    fn tcp(
        &mut self,
        ms: u64,
        at: (u32, Direction),
        from: End,
        to: End,
        seq: (u32, u8),
        payload: &[u8],
    ) -> &mut Self {
        let (record, captured) = tcp(ms * MS, at, from, to, seq, payload);
        self.0.feed(&record, &captured);
        self
    }

    /// A query and its answer at the client's veth.
    fn exchange(&mut self, ms: u64, took_ms: u64, (id, name, rcode): (u16, &str, u8)) -> &mut Self {
        self.udp(ms, (VETH, In), CLIENT, SERVER, &query(id, name, 1));
        self.udp(ms + took_ms, (VETH, Out), SERVER, CLIENT, &answer(id, name, 1, rcode))
    }

    fn finish(&mut self, ms: u64) -> DnsOutcome {
        let outcome = self.0.clone().finish(ms * MS, 0, 10);
        assert_books(&outcome);
        outcome
    }
}

/// What must hold of every outcome.
fn assert_books(outcome: &DnsOutcome) {
    let dns = &outcome.dns;
    assert_eq!(dns.transactions, dns.answered + dns.timeouts + dns.pending);
    assert_eq!(dns.answered, outcome.latency.count());
    assert_eq!(dns.answered, dns.rcodes.iter().map(|c| c.count).sum::<u64>());
    assert_eq!(dns.transactions, dns.servers.iter().map(|s| s.transactions).sum::<u64>());
    assert_eq!(dns.timeouts, dns.servers.iter().map(|s| s.timeouts).sum::<u64>());
    assert_eq!(dns.answered, dns.servers.iter().map(|s| s.hist.count()).sum::<u64>());
    assert_eq!(dns.transactions, dns.names.iter().map(|n| n.transactions).sum::<u64>());
    assert_eq!(dns.timeouts, dns.names.iter().map(|n| n.timeouts).sum::<u64>());
    assert_eq!(dns.answered, dns.names.iter().flat_map(|n| &n.rcodes).map(|c| c.count).sum::<u64>());
}

/// Transactions, answered, timeouts, pending, retries.
fn totals(outcome: &DnsOutcome) -> [u64; 5] {
    let d = &outcome.dns;
    [d.transactions, d.answered, d.timeouts, d.pending, d.retries]
}

#[test]
fn one_transaction_fills_every_table() {
    let mut rig = Rig::new();
    rig.udp(100, (VETH, In), CLIENT, SERVER, &with_opt(query(1, "WWW.example.com", 28), 0));
    rig.udp(103, (VETH, Out), SERVER, CLIENT, &answer(1, "www.Example.com", 28, 3));
    let outcome = rig.0.finish(200 * MS, 90 * MS, 10);
    assert_books(&outcome);
    assert_eq!(totals(&outcome), [1, 1, 0, 0, 0]);
    assert_eq!((outcome.latency_sum_ns, outcome.latency_max_ns), (3 * MS, 3 * MS));
    assert_eq!(outcome.losses, DnsLosses::default());
    let dns = &outcome.dns;
    assert_eq!((dns.edns, dns.tcp, dns.ipv6, dns.truncated), (1, 0, 0, 0));
    let server = &dns.servers[0];
    assert_eq!((server.server.to_string().as_str(), server.transport.as_str()), ("10.0.0.53", "udp"));
    assert_eq!(server.failures, 0, "NXDOMAIN is an answer");
    let name = &dns.names[0];
    assert_eq!((name.name.as_str(), name.qtype.as_str()), ("www.example.com", "AAAA"));
    assert_eq!((name.mean_ns, name.max_ns, name.rcodes[0].name.as_str()), (3 * MS, 3 * MS, "NXDOMAIN"));
    let slow = &dns.slowest[0];
    assert_eq!(
        (slow.at_ns, slow.latency_ns, slow.rcode.as_deref()),
        (10 * MS, Some(3 * MS), Some("NXDOMAIN"))
    );
    assert_eq!(slow.client.to_string(), "10.0.0.1");
}

#[test]
fn what_a_server_is_asked_again_is_counted_by_server() {
    let mut rig = Rig::new();
    for (id, server, name) in [(1, SERVER, "a.example"), (2, (54, 53), "a.example"), (3, SERVER, "A.example")]
    {
        let (q, a) = (query(id, name, 1), answer(id, name, 1, 0));
        let at = u64::from(id) * 10;
        rig.udp(at, (VETH, In), CLIENT, server, &q).udp(at + 1, (VETH, Out), server, CLIENT, &a);
    }
    let again: Vec<_> = rig.finish(100).dns.servers.iter().map(|s| (s.transactions, s.asked_again)).collect();
    assert_eq!(again, [(2, Some(1)), (1, Some(0))]);
}

#[test]
fn what_a_cache_asks_when_its_answer_is_too_old_is_not_asked_again() {
    // Who asks, and when, ms.
    let again = |queries: &[(u8, u64)]| {
        let mut rig = Rig::new();
        for (id, (client, at)) in (1..).zip(queries) {
            let client = (*client, 40_000);
            let (q, a) = (query(id, "a.example", 1), answer(id, "a.example", 1, 0));
            rig.udp(*at, (VETH, In), client, SERVER, &q).udp(at + 1, (VETH, Out), SERVER, client, &a);
        }
        rig.finish(100_000).dns.servers[0].asked_again
    };
    assert_eq!(again(&[(1, 0), (1, 4999), (1, 9998)]), Some(2));
    assert_eq!(again(&[(1, 0), (1, 5000), (1, 35_000), (1, 65_000)]), Some(0), "a TTL of 30 s");
    assert_eq!(again(&[(1, 0), (2, 10), (3, 20)]), Some(0), "each asks once");
    assert_eq!(again(&[(1, 0), (2, 10), (1, 20), (2, 30)]), Some(2));
}

#[test]
fn copies_at_other_interfaces_are_one_transaction() {
    let (q, a) = (query(1, "a.example", 1), answer(1, "a.example", 1, 0));
    let mut rig = Rig::new();
    rig.udp(0, (VETH, In), CLIENT, SERVER, &q).udp(1, (PORT, Out), CLIENT, SERVER, &q);
    rig.udp(5, (PORT, In), SERVER, CLIENT, &a).udp(7, (VETH, Out), SERVER, CLIENT, &a);
    let outcome = rig.finish(100);
    assert_eq!(totals(&outcome), [1, 1, 0, 0, 0]);
    assert_eq!(outcome.latency_max_ns, 7 * MS, "the answer is taken at the query's own interface");
    assert_eq!(outcome.losses, DnsLosses::default());
}

#[test]
fn loopback_shows_each_packet_twice() {
    let (q, a) = (query(1, "a.example", 1), answer(1, "a.example", 1, 0));
    let mut rig = Rig::new();
    rig.udp(0, (LO, Out), CLIENT, SERVER, &q).udp(1, (LO, In), CLIENT, SERVER, &q);
    rig.udp(4, (LO, Out), SERVER, CLIENT, &a).udp(5, (LO, In), SERVER, CLIENT, &a);
    let outcome = rig.finish(100);
    assert_eq!(totals(&outcome), [1, 1, 0, 0, 0]);
    assert_eq!(outcome.latency_max_ns, 5 * MS);
    assert_eq!(outcome.losses, DnsLosses::default());
}

#[test]
fn behind_a_service_the_address_that_was_asked_counts() {
    let (q, a) = (query(1, "a.example", 1), answer(1, "a.example", 1, 0));
    let mut rig = Rig::new();
    rig.udp(0, (VETH, In), CLIENT, SERVER, &q).udp(1, (PORT, Out), CLIENT, BACKEND, &q);
    // A retry that goes to another backend.
    rig.udp(1000, (VETH, In), CLIENT, SERVER, &q).udp(1001, (PORT + 1, Out), CLIENT, (78, 53), &q);
    rig.udp(1002, (PORT + 1, In), (78, 53), CLIENT, &a).udp(1003, (VETH, Out), SERVER, CLIENT, &a);
    let outcome = rig.finish(2000);
    assert_eq!(totals(&outcome), [1, 1, 0, 0, 1]);
    assert_eq!(outcome.latency_max_ns, 1003 * MS, "the client waited since its first query");
    assert_eq!(outcome.dns.servers.len(), 1);
    assert_eq!(outcome.dns.servers[0].server.to_string(), "10.0.0.53");
    assert_eq!(outcome.losses, DnsLosses::default());
}

#[test]
fn repeated_answers_are_ignored_and_a_repeated_question_is_not() {
    let mut rig = Rig::new();
    rig.exchange(0, 2, (1, "a.example", 0));
    rig.udp(3, (VETH, Out), SERVER, CLIENT, &answer(1, "a.example", 1, 0));
    rig.exchange(100, 4, (1, "a.example", 0));
    let outcome = rig.finish(1000);
    assert_eq!(totals(&outcome), [2, 2, 0, 0, 0]);
    assert_eq!(outcome.losses.unmatched, 0);
}

#[test]
fn an_answer_without_its_query_is_unmatched_once() {
    let a = answer(1, "a.example", 1, 0);
    let mut rig = Rig::new();
    rig.udp(0, (PORT, In), SERVER, CLIENT, &a).udp(1, (VETH, Out), SERVER, CLIENT, &a);
    // One with another question than was asked is not the answer either.
    rig.udp(2, (VETH, In), CLIENT, SERVER, &query(2, "a.example", 1));
    rig.udp(3, (VETH, Out), SERVER, CLIENT, &answer(2, "b.example", 1, 0));
    let outcome = rig.finish(100);
    assert_eq!((totals(&outcome), outcome.losses.unmatched), ([1, 0, 0, 1, 0], 2));
}

#[test]
fn timeouts_late_answers_and_pending() {
    let mut rig = Rig::new();
    rig.exchange(0, 5_000, (1, "late.example", 0));
    rig.exchange(0, 4_999, (2, "slow.example", 2));
    rig.udp(0, (VETH, In), CLIENT, SERVER, &query(3, "never.example", 1));
    rig.udp(9_000, (VETH, In), CLIENT, SERVER, &query(4, "pending.example", 1));
    rig.udp(9_100, (VETH, Out), SERVER, CLIENT, &answer(1, "late.example", 1, 0));
    let outcome = rig.finish(10_000);
    assert_eq!(totals(&outcome), [4, 1, 2, 1, 0]);
    assert_eq!(outcome.losses, DnsLosses::default());
    assert_eq!(outcome.dns.servers[0].failures, 1);
    let order: Vec<_> = outcome.dns.slowest.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(order, ["late.example", "never.example", "slow.example"], "unanswered first");
    assert_eq!(totals(&rig.finish(14_000)), [4, 1, 3, 0, 0]);
}

#[test]
fn a_query_after_the_timeout_is_a_new_transaction() {
    let mut rig = Rig::new();
    rig.udp(0, (VETH, In), CLIENT, SERVER, &query(1, "a.example", 1));
    rig.exchange(5_001, 3, (1, "a.example", 0));
    let outcome = rig.finish(6_000);
    assert_eq!((totals(&outcome), outcome.latency_max_ns), ([2, 1, 1, 0, 0], 3 * MS));
}

#[test]
fn the_same_id_with_other_ports_and_questions() {
    let mut rig = Rig::new();
    for port in [40_000, 40_001] {
        for (ms, name) in [(0, "a.example"), (1, "b.example")] {
            for qtype in [1, 28] {
                rig.udp(ms, (VETH, In), (1, port), SERVER, &query(7, name, qtype));
            }
        }
    }
    for (ms, name) in [(10, "b.example"), (20, "a.example")] {
        for qtype in [28, 1] {
            for port in [40_001, 40_000] {
                rig.udp(ms, (VETH, Out), SERVER, (1, port), &answer(7, name, qtype, 0));
            }
        }
    }
    let outcome = rig.finish(100);
    assert_eq!((totals(&outcome), outcome.losses), ([8, 8, 0, 0, 0], DnsLosses::default()));
    let latencies: Vec<_> = outcome.dns.names.iter().map(|n| (n.name.as_str(), n.mean_ns / MS)).collect();
    assert_eq!(latencies, [("a.example", 20), ("a.example", 20), ("b.example", 9), ("b.example", 9)]);
}

#[test]
fn two_servers_asked_at_once_are_two_transactions() {
    let (q, a) = (query(1, "a.example", 1), answer(1, "a.example", 1, 0));
    let mut rig = Rig::new();
    for server in [SERVER, (54, 53)] {
        rig.udp(0, (VETH, In), CLIENT, server, &q).udp(0, (PORT, Out), CLIENT, server, &q);
    }
    for (ms, server) in [(2, (54, 53)), (9, SERVER)] {
        rig.udp(ms, (PORT, In), server, CLIENT, &a).udp(ms, (VETH, Out), server, CLIENT, &a);
    }
    let outcome = rig.finish(100);
    assert_eq!((totals(&outcome), outcome.losses), ([2, 2, 0, 0, 0], DnsLosses::default()));
    let by_server: Vec<_> =
        outcome.dns.servers.iter().map(|s| (s.server.to_string(), s.hist.max_ns() / MS)).collect();
    assert_eq!(by_server, [("10.0.0.53".to_owned(), 9), ("10.0.0.54".to_owned(), 2)]);
}

#[test]
fn truncated_over_udp_then_over_tcp() {
    let (name, mut tc) = ("big.example", answer(1, "big.example", 16, 0));
    tc[2] |= 0x02;
    let mut full = answer(2, name, 16, 0);
    full.resize(3_000, 0);
    let (q, a) = (framed(&query(2, name, 16)), framed(&full));
    let mut rig = Rig::new();
    rig.udp(0, (VETH, In), CLIENT, SERVER, &query(1, name, 16)).udp(2, (VETH, Out), SERVER, CLIENT, &tc);
    rig.tcp(3, (VETH, In), CLIENT, SERVER, (99, 2), &[]).tcp(
        4,
        (VETH, Out),
        SERVER,
        CLIENT,
        (499, 0x12),
        &[],
    );
    rig.tcp(5, (VETH, In), CLIENT, SERVER, (100, 0x18), &q);
    rig.tcp(6, (VETH, In), CLIENT, SERVER, (100, 0x18), &q);
    rig.tcp(7, (VETH, Out), SERVER, CLIENT, (500, 0x18), &a[..1_400]);
    rig.tcp(9, (VETH, Out), SERVER, CLIENT, (1_900, 0x18), &a[1_400..]);
    let outcome = rig.finish(100);
    assert_eq!((totals(&outcome), outcome.losses), ([2, 2, 0, 0, 0], DnsLosses::default()));
    assert_eq!((outcome.dns.truncated, outcome.dns.tcp), (1, 1));
    assert_eq!(outcome.latency_max_ns, 4 * MS, "an answer is there with its last segment");
}

#[test]
fn an_answer_may_leave_the_question_out() {
    let formerr = [0, 1, 0x81, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut rig = Rig::new();
    rig.udp(0, (VETH, In), CLIENT, SERVER, &query(1, "a.example", 1));
    rig.udp(1, (VETH, Out), SERVER, CLIENT, &formerr);
    let outcome = rig.finish(100);
    assert_eq!((totals(&outcome), outcome.dns.rcodes[0].name.as_str()), ([1, 1, 0, 0, 0], "FORMERR"));
    let unmatched = rig.udp(2, (VETH, Out), SERVER, (2, 40_000), &formerr).finish(100).losses.unmatched;
    assert_eq!(unmatched, 1);
}

#[test]
fn answers_redirected_past_the_vantage_count_elsewhere() {
    let (q, a) = (query(1, "a.example", 1), answer(1, "a.example", 1, 0));
    let mut rig = Rig::new();
    for ms in [0, 1_000] {
        rig.udp(ms, (VETH, In), CLIENT, SERVER, &q).udp(ms, (PORT, Out), CLIENT, SERVER, &q);
        rig.udp(ms + 6, (PORT, In), SERVER, CLIENT, &a);
    }
    let outcome = rig.finish(2_000);
    assert_eq!((totals(&outcome), outcome.latency_max_ns), ([2, 2, 0, 0, 0], 6 * MS));
    // Where the vantage does see answers, one that got lost on the way to it is none.
    rig.exchange(13_000, 1, (9, "b.example", 0));
    rig.udp(14_000, (VETH, In), CLIENT, SERVER, &q).udp(14_006, (PORT, In), SERVER, CLIENT, &a);
    assert_eq!(totals(&rig.finish(20_000)), [4, 3, 1, 0, 0]);
}

#[test]
fn records_out_of_order_belong_to_the_earlier_vantage() {
    let (q, a) = (query(1, "a.example", 1), answer(1, "a.example", 1, 0));
    let mut rig = Rig::new();
    rig.udp(2, (LO, In), CLIENT, SERVER, &q).udp(1, (LO, Out), CLIENT, SERVER, &q);
    rig.udp(4, (LO, Out), SERVER, CLIENT, &a).udp(5, (LO, In), SERVER, CLIENT, &a);
    let outcome = rig.finish(100);
    assert_eq!((totals(&outcome), outcome.latency_max_ns), ([1, 1, 0, 0, 0], 4 * MS));
}

#[test]
fn masqueraded_copies_are_one_transaction() {
    const NODE: End = (200, 61_000);
    let (q, a) = (query(1, "a.example", 1), answer(1, "a.example", 1, 0));
    let mut rig = Rig::new();
    for ms in [0, 1_000] {
        // The first answer gets lost beyond the node.
        rig.udp(ms, (VETH, In), CLIENT, SERVER, &q).udp(ms + 1, (PORT, Out), NODE, SERVER, &q);
    }
    rig.udp(1_004, (PORT, In), SERVER, NODE, &a).udp(1_005, (VETH, Out), SERVER, CLIENT, &a);
    // A forwarder that keeps the id asks another server: that is a transaction of its own.
    let q = query(2, "b.example", 1);
    rig.udp(2_000, (VETH, In), CLIENT, SERVER, &q).udp(2_001, (PORT, Out), NODE, BACKEND, &q);
    let outcome = rig.finish(3_000);
    assert_eq!((totals(&outcome), outcome.losses), ([3, 1, 0, 2, 1], DnsLosses::default()));
    assert_eq!(outcome.latency_max_ns, 1_005 * MS);
    assert!(outcome.dns.slowest.iter().all(|s| s.client.to_string() == "10.0.0.1"));
}

#[test]
fn copies_with_both_ends_translated_are_one_transaction() {
    // Masquerading keeps the port where it is free.
    const NODE: End = (200, CLIENT.1);
    let (q, a) = (query(1, "a.example", 1), answer(1, "a.example", 1, 0));
    let mut rig = Rig::new();
    for ms in [0, 1_000] {
        // The first answer gets lost beyond the node.
        rig.udp(ms, (VETH, In), CLIENT, SERVER, &q).udp(ms + 1, (PORT, Out), NODE, BACKEND, &q);
    }
    rig.udp(1_004, (PORT, In), BACKEND, NODE, &a).udp(1_005, (VETH, Out), SERVER, CLIENT, &a);
    let outcome = rig.finish(2_000);
    assert_eq!((totals(&outcome), outcome.losses), ([1, 1, 0, 0, 1], DnsLosses::default()));
    assert_eq!(outcome.latency_max_ns, 1_005 * MS);
    assert_eq!(outcome.dns.slowest[0].server.to_string(), "10.0.0.53");
    // The same port and id long after, or with another question, is somebody else's.
    let other = query(1, "b.example", 1);
    rig.udp(2_000, (VETH, In), CLIENT, SERVER, &q).udp(2_500, (PORT, Out), (201, CLIENT.1), BACKEND, &q);
    rig.udp(3_000, (VETH, In), CLIENT, SERVER, &q).udp(3_001, (PORT, Out), (202, CLIENT.1), BACKEND, &other);
    assert_eq!(totals(&rig.finish(4_000))[0], 4, "one more of the client, a retry of it, and two of others");
}

#[test]
fn masqueraded_answers_redirected_past_the_vantage() {
    let (q, a) = (query(1, "a.example", 1), answer(1, "a.example", 1, 0));
    let mut rig = Rig::new();
    rig.udp(0, (VETH, In), CLIENT, SERVER, &q).udp(1, (PORT, Out), (200, 61_000), SERVER, &q);
    rig.udp(4, (PORT, In), SERVER, (200, 61_000), &a);
    assert_eq!(totals(&rig.finish(100)), [1, 1, 0, 0, 0]);
}

#[test]
fn ipv6_and_loopback_of_two_namespaces() {
    let mut rig = Rig::new();
    let q = query(1, "a.example", 1);
    for netns in [1, 2] {
        let mut record = udp(0, (LO, Out), CLIENT, SERVER, &q);
        record.header.netns = netns;
        record.flow.family = 6;
        record.flow.saddr = Ipv6Addr::LOCALHOST.octets();
        record.flow.daddr = Ipv6Addr::LOCALHOST.octets();
        rig.0.feed(&record, &q);
        record.header.direction = In as u8;
        rig.0.feed(&record, &q);
    }
    let outcome = rig.finish(100);
    assert_eq!((totals(&outcome), outcome.dns.ipv6), ([2, 0, 0, 2, 0], 2));
}

#[test]
fn what_is_not_dns_is_unparsable() {
    let mut rig = Rig::new();
    rig.udp(0, (VETH, In), CLIENT, SERVER, b"no");
    let mut record = udp(0, (VETH, In), CLIENT, SERVER, &query(1, "a.example", 1));
    record.flow.protocol = 1;
    rig.0.feed(&record, &[]);
    record.flow.family = 0;
    rig.0.feed(&record, &[]);
    let mut no_question = query(1, "a.example", 1);
    no_question[5] = 0;
    rig.udp(0, (VETH, In), CLIENT, SERVER, &no_question);
    let outcome = rig.finish(100);
    assert_eq!((totals(&outcome), outcome.losses.unparsable), ([0; 5], 4));
    assert_eq!(outcome.losses.by_reason()[0], (Loss::DnsUnparsable, 4));
}

#[test]
fn full_tables_are_counted_and_totals_still_add_up() {
    let mut rig = Rig::with(|c| {
        c.max_names = 2;
        c.max_servers = 1;
        c.listed_names = 1;
        c.max_waiting = 3;
        c.max_slowest = 2;
    });
    for id in 0..4 {
        let name = format!("n{id}.example");
        rig.exchange(u64::from(id), 1, (id, &name, 0));
    }
    rig.exchange(10, 1, (9, "n1.example", 0));
    rig.udp(20, (VETH, In), CLIENT, (54, 53), &query(1, "n1.example", 1));
    let outcome = rig.finish(100);
    assert_eq!((totals(&outcome), outcome.losses.table_full), ([6, 5, 0, 1, 0], 3));
    let names: Vec<_> = outcome.dns.names.iter().map(|n| (n.name.as_str(), n.transactions)).collect();
    assert_eq!(names, [("n1.example", 3), (DnsTracker::OTHER, 3)]);
    let servers: Vec<_> =
        outcome.dns.servers.iter().map(|s| (s.server.to_string(), s.transactions)).collect();
    assert_eq!(servers, [("10.0.0.53".to_owned(), 5), ("0.0.0.0".to_owned(), 1)]);
    assert_eq!(outcome.dns.slowest.len(), 2);
    // Beyond three that wait, a query is not in the books.
    for id in 20..24 {
        rig.udp(30, (VETH, In), CLIENT, SERVER, &query(id, "n1.example", 1));
    }
    let outcome = rig.finish(100);
    assert_eq!((outcome.dns.transactions, outcome.losses.table_full), (8, 5));
    // Once those have timed out, there is room again.
    rig.exchange(5_100, 1, (30, "n1.example", 0));
    assert_eq!(totals(&rig.finish(5_200)), [9, 6, 3, 0, 0]);
}

#[test]
fn one_client_port_with_one_id_is_bounded() {
    let mut rig = Rig::new();
    for n in 0..1_000 {
        rig.udp(n, (VETH, In), CLIENT, SERVER, &query(1, &format!("n{n}.example"), 1));
    }
    let outcome = rig.finish(1_000);
    assert_eq!(outcome.dns.transactions + outcome.losses.table_full, 1_000);
}

/// A query over UDP or TCP of one of many clients, with what it is answered.
#[derive(Clone, Debug)]
struct Exchange {
    client: u8,
    over_tcp: bool,
    name: String,
    rcode: u8,
    asked_ms: u64,
    took_ms: u64,
    cut: usize,
    copies: bool,
}

fn exchanges() -> impl Strategy<Value = Vec<Exchange>> {
    let one =
        (0u8..4, any::<bool>(), "[a-z]{1,8}", 0u8..6, 0u64..2_000, 1u64..4_000, 1usize..20, any::<bool>());
    let one = one.prop_map(|(client, over_tcp, name, rcode, asked_ms, took_ms, cut, copies)| Exchange {
        client,
        over_tcp,
        name,
        rcode,
        asked_ms,
        took_ms,
        cut,
        copies,
    });
    prop::collection::vec(one, 0..40)
}

/// Records of an exchange, each with its time in ms and its payload.
fn records(n: usize, e: &Exchange) -> Vec<(u64, DnsMessage, Vec<u8>)> {
    let client = (e.client, 10_000 + n as u16);
    let (q, a) = (query(7, &e.name, 1), answer(7, &e.name, 1, e.rcode));
    let answered_ms = e.asked_ms + e.took_ms;
    let mut records = Vec::new();
    for (veth, server, nth) in [(VETH, SERVER, 0), (PORT, BACKEND, 1)] {
        let (there, back) = if nth == 0 { (In, Out) } else { (Out, In) };
        let ways = [(e.asked_ms, there, client, server, &q), (answered_ms, back, server, client, &a)];
        for (ms, direction, from, to, message) in
            ways.into_iter().take(if nth == 0 || e.copies { 2 } else { 0 })
        {
            let at = (veth, direction);
            if e.over_tcp {
                let wire = framed(message);
                let (head, tail) = wire.split_at(e.cut);
                let syn = tcp(e.asked_ms * MS, at, from, to, (u32::MAX - 5, 2), &[]);
                let first = tcp(ms * MS, at, from, to, (u32::MAX - 4, 0x18), head);
                let seq = (u32::MAX - 4).wrapping_add(head.len() as u32);
                let second = tcp(ms * MS, at, from, to, (seq, 0x18), tail);
                records.extend([syn, first, second].map(|(r, p)| (r.header.ts_ns / MS, r, p)));
            } else {
                records.push((ms, udp(ms * MS, at, from, to, message), message.clone()));
            }
        }
    }
    records
}

proptest! {
    #[test]
    fn n_exchanges_in_any_interleaving_are_n_transactions(exchanges in exchanges()) {
        let mut all: Vec<_> = exchanges.iter().enumerate().flat_map(|(n, e)| records(n, e)).collect();
        all.sort_by_key(|(ms, ..)| *ms);
        let mut rig = Rig::new();
        let mut ticking = Rig::new();
        for (ms, record, payload) in &all {
            rig.0.feed(record, payload);
            ticking.0.feed(record, payload);
            ticking.0.expire(ms * MS);
        }
        let outcome = rig.finish(6_000);
        let n = exchanges.len() as u64;
        prop_assert_eq!(totals(&outcome), [n, n, 0, 0, 0]);
        prop_assert_eq!(outcome.losses, DnsLosses::default());
        prop_assert_eq!(outcome.dns.tcp, exchanges.iter().filter(|e| e.over_tcp).count() as u64);
        prop_assert_eq!(outcome.latency_sum_ns, exchanges.iter().map(|e| e.took_ms * MS).sum::<u64>());
        for name in &outcome.dns.names {
            let own = || exchanges.iter().filter(|e| e.name == name.name);
            prop_assert_eq!(name.transactions, own().count() as u64);
            for rcode in &name.rcodes {
                let same = own().filter(|e| codes::rcode_name(e.rcode.into()) == rcode.name);
                prop_assert_eq!(rcode.count, same.count() as u64);
            }
        }
        prop_assert_eq!(outcome, ticking.finish(6_000));
    }

    #[test]
    fn the_books_add_up_whatever_is_seen(
        steps in prop::collection::vec(
            (0u64..3_000, 0u32..3, 0u8..3, 0u8..3, 0u16..3, any::<bool>(), any::<bool>()), 0..200),
        end_ms in 0u64..10_000,
    ) {
        let mut rig = Rig::with(|c| (c.max_waiting, c.max_recent, c.max_names, c.max_servers) = (4, 4, 2, 1));
        let mut ms = 0;
        for (wait, ifindex, direction, server, id, is_answer, back) in steps {
            ms += if back { wait } else { wait / 100 };
            let at = (ifindex, [Direction::None, In, Out][usize::from(direction)]);
            let (server, name) = ((server, 53), format!("n{id}"));
            if is_answer {
                rig.udp(ms, at, server, CLIENT, &answer(id % 2, &name, 1, 0));
            } else {
                rig.udp(ms, at, CLIENT, server, &query(id % 2, &name, 1));
            }
            rig.finish(ms + end_ms);
        }
    }

    #[test]
    fn arbitrary_records_never_panic(
        records in prop::collection::vec(
            (any::<u64>(), any::<[u8; 6]>(), any::<u32>(), any::<u32>(), prop::collection::vec(any::<u8>(), 0..80)),
            0..60),
    ) {
        let mut tracker = DnsTracker::new(DnsConfig { max_streams: 2, ..DnsConfig::default() });
        for (ts_ns, [protocol, family, direction, flags, from, to], seq, len, payload) in records {
            let mut record = udp(ts_ns, (1, In), (from, 53), (to, 53), &payload);
            record.header.direction = direction;
            record.flow.protocol = [UDP, TCP, protocol][usize::from(protocol % 3)];
            record.flow.family = [4, 6, family][usize::from(family % 3)];
            (record.tcp_seq, record.tcp_flags, record.payload_len) = (seq, flags, len);
            tracker.feed(&record, &payload);
        }
        assert_books(&tracker.finish(0, 0, 5));
    }
}
