//! `dns`: N queries are N transactions with their names, codes and counts, however many interfaces see them.

mod latency;
mod servers;

use nettrace::capture::Options;
use nettrace::lab::dns::{self, Client, DnsServer, Outcome, Query, TYPE_A, TYPE_AAAA, Transport};
use nettrace::lab::{Family, Lab, LabConfig, Role, Topology};
use nettrace::snapshot::{Count, Snapshot};
use nettrace_common::Signal;
use nettrace_tests::{captured, lost, only, truth};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::thread::sleep;
use std::time::Duration;

/// Shorter than the default, so that a test need not wait as long for what is to time out.
const TIMEOUT: Duration = Duration::from_secs(1);

fn soon(options: &mut Options) {
    options.dns_timeout = TIMEOUT;
}

fn counts(rows: &[Count]) -> BTreeMap<&str, u64> {
    rows.iter().map(|c| (c.name.as_str(), c.count)).collect()
}

/// Code, name and failures as reports have them.
fn code(rcode: u8) -> &'static str {
    ["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"][usize::from(rcode)]
}

/// Nothing was lost on the way to the books.
fn assert_nothing_lost(snapshot: &Snapshot) {
    for loss in ["ring_full", "unparsable", "dns_unparsable", "dns_unmatched", "table_full", "bad_record"] {
        assert_eq!(lost(snapshot, loss), 0, "{loss}");
    }
}

fn transport(outcome: &Outcome) -> &'static str {
    if outcome.transport == Transport::Tcp { "tcp" } else { "udp" }
}

/// Transactions, those without an answer, and the answers by code, of one name.
type NameCounts<'a> = (u64, u64, BTreeMap<&'a str, u64>);

/// Every count of a snapshot is that of the outcomes as the client saw them.
fn assert_counts(snapshot: &Snapshot, outcomes: &[Outcome]) {
    let dns = &snapshot.dns;
    let mut rcodes = BTreeMap::new();
    let mut servers: BTreeMap<(IpAddr, &str), (u64, u64, u64)> = BTreeMap::new();
    let mut names: BTreeMap<(&str, &str), NameCounts<'_>> = BTreeMap::new();
    for outcome in outcomes {
        let server = servers.entry((outcome.server.ip(), transport(outcome))).or_default();
        let question = &outcome.query.question;
        let qtype = match question.qtype {
            TYPE_A => "A",
            TYPE_AAAA => "AAAA",
            other => panic!("the tests ask for no type {other}"),
        };
        let name = names.entry((&question.name, qtype)).or_default();
        (server.0, name.0) = (server.0 + 1, name.0 + 1);
        match outcome.rcode.map(code) {
            None => (server.1, name.1) = (server.1 + 1, name.1 + 1),
            Some(rcode) => {
                *rcodes.entry(rcode).or_default() += 1;
                *name.2.entry(rcode).or_default() += 1;
                server.2 += u64::from(!matches!(rcode, "NOERROR" | "NXDOMAIN"));
            }
        }
    }
    assert_eq!(counts(&dns.rcodes), rcodes);
    let rows = dns.servers.iter();
    let rows = rows.map(|s| ((s.server, s.transport.as_str()), (s.transactions, s.timeouts, s.failures)));
    assert_eq!(rows.collect::<BTreeMap<_, _>>(), servers);
    for row in &dns.servers {
        assert_eq!(row.hist.count(), row.transactions - row.timeouts, "{}", row.server);
    }
    let rows = dns.names.iter();
    let rows =
        rows.map(|n| ((n.name.as_str(), n.qtype.as_str()), (n.transactions, n.timeouts, counts(&n.rcodes))));
    assert_eq!(rows.collect::<BTreeMap<_, _>>(), names);
    let answered = outcomes.iter().filter(|o| o.rcode.is_some()).count() as u64;
    assert_eq!(snapshot.signal(Signal::DnsLatency).map_or(0, |s| s.hist.count()), answered);
}

/// What each of the listed transactions says of itself is what its client saw: no later, no shorter than the delay
/// that its name asked for, with as many retries.
fn assert_transactions(snapshot: &Snapshot, outcomes: &[Outcome]) {
    assert_eq!(snapshot.dns.slowest.len(), outcomes.len());
    for outcome in outcomes {
        let name = &outcome.query.question.name;
        let is_it = |row: &&nettrace::snapshot::DnsTransaction| {
            (row.server, row.transport.as_str(), &row.name) == (outcome.server.ip(), transport(outcome), name)
        };
        let row = snapshot.dns.slowest.iter().find(is_it).unwrap_or_else(|| panic!("no row of {outcome:?}"));
        assert_eq!(row.rcode.as_deref(), outcome.rcode.map(code), "{row:?}");
        assert_eq!(row.retries, outcome.copies - 1, "{row:?}");
        assert!(row.latency_ns <= outcome.latency_ns, "{row:?} {outcome:?}");
        let delay = if name.starts_with("delay5ms") { 5_000_000 } else { 1 };
        assert!(row.latency_ns.is_none_or(|ns| ns >= delay), "{row:?}");
    }
}

/// Queries of every kind, over both families and both transports, pods switched and routed.
#[test]
fn every_kind_of_query_is_counted() {
    for topology in Topology::ALL {
        let config = LabConfig { topology, ..LabConfig::default() };
        let (finished, mix) = captured(config, soon, |lab| {
            let _server = DnsServer::start(lab.pod(Role::Dns))?;
            let mix = dns::mix(lab, 3)?;
            sleep(TIMEOUT);
            Ok(mix)
        })
        .unwrap();
        assert_eq!(mix.observed, mix.expected, "the client saw what was planned");
        let (snapshot, dns, expected) = (&finished.snapshot, &finished.snapshot.dns, mix.expected);
        assert_eq!(dns.transactions, expected.transactions, "{topology:?}");
        assert_eq!((dns.answered, dns.timeouts, dns.pending), (expected.answered, expected.timeouts, 0));
        assert_eq!((dns.retries, dns.truncated), (expected.retries, expected.truncated));
        assert_eq!((dns.tcp, dns.ipv6, dns.edns), (expected.tcp, expected.ipv6, expected.edns));
        assert_counts(snapshot, &mix.outcomes);
        assert_transactions(snapshot, &mix.outcomes);
        assert_nothing_lost(snapshot);
    }
}

/// What still waits at the end, for less than the timeout, is pending and no timeout.
#[test]
fn what_waits_at_the_end_is_pending() {
    let (finished, outcome) = captured(
        LabConfig::default(),
        |_| {},
        |lab| {
            let _server = DnsServer::start(lab.pod(Role::Dns))?;
            let client = client(lab)?;
            let patient = Client { timeout: Duration::from_millis(20), ..client };
            Ok(lab
                .pod(Role::Client)
                .netns
                .run(|| patient.ask(&Query::new("drop.example.test", TYPE_A)))??)
        },
    )
    .unwrap();
    assert_eq!(outcome.rcode, None);
    let dns = &finished.snapshot.dns;
    assert_eq!((dns.transactions, dns.pending, dns.timeouts, dns.answered), (1, 1, 0, 0));
}

fn client(lab: &Lab) -> anyhow::Result<Client> {
    Ok(Client::new(DnsServer::address(lab.pod(Role::Dns), Family::V4)?))
}

/// Asks for `count` names one after the other, in a pod.
fn ask(lab: &Lab, from: Role, client: &Client, count: u32) -> anyhow::Result<Vec<Outcome>> {
    lab.pod(from).netns.run(|| {
        let names = (0..count).map(|n| Query::new(&format!("q{n}.example.test"), TYPE_A));
        names.map(|query| Ok(client.ask(&query)?)).collect()
    })?
}

/// Every interface of every pod is looked at, and none twice; also `lo`, over which a pod asks itself.
#[test]
fn a_query_counts_once_however_many_see_it() {
    let everywhere = |options: &mut Options| {
        only("dns.latency")(options);
        options.namespaces.iter_mut().for_each(|n| n.wire = true);
    };
    let (finished, outcomes) = captured(LabConfig::default(), everywhere, |lab| {
        let _server = DnsServer::start(lab.pod(Role::Dns))?;
        let mut outcomes = ask(lab, Role::Client, &client(lab)?, 20)?;
        outcomes.extend(ask(lab, Role::Dns, &client(lab)?, 30)?);
        Ok(outcomes)
    })
    .unwrap();
    assert_eq!((finished.snapshot.dns.transactions, finished.snapshot.dns.answered), (50, 50));
    assert_eq!(finished.snapshot.dns.retries, 0);
    assert_counts(&finished.snapshot, &outcomes);
    assert_nothing_lost(&finished.snapshot);
}

/// DNS within one pod, on its `lo` alone.
#[test]
fn dns_on_lo_is_counted_once() {
    let own = |options: &mut Options| {
        options.namespaces.retain(|n| n.name == "dns");
        options.namespaces.iter_mut().for_each(|n| n.wire = true);
    };
    let (finished, outcomes) = captured(LabConfig::default(), own, |lab| {
        let _server = DnsServer::start(lab.pod(Role::Dns))?;
        let udp = ask(lab, Role::Dns, &client(lab)?, 30)?;
        let queries: Vec<_> = (0..5).map(|n| Query::new(&format!("tcp{n}.example.test"), TYPE_A)).collect();
        let client = client(lab)?;
        let tcp = lab.pod(Role::Dns).netns.run(|| client.pipeline(&queries))??;
        Ok(udp.into_iter().chain(tcp).collect::<Vec<_>>())
    })
    .unwrap();
    assert_eq!((finished.snapshot.dns.transactions, finished.snapshot.dns.tcp), (35, 5));
    assert_eq!((finished.snapshot.dns.answered, finished.snapshot.dns.retries), (35, 0));
    assert_counts(&finished.snapshot, &outcomes);
    assert_transactions(&finished.snapshot, &outcomes);
    assert_nothing_lost(&finished.snapshot);
}

/// Where the node translates a Service's address, or the client's, or both, one transaction is shown, with the addresses that
/// the client knows.
#[test]
fn a_translated_server_is_shown_as_asked() {
    const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
    let config = LabConfig { topology: Topology::Routed, ..LabConfig::default() };
    let (finished, outcomes) = captured(
        config,
        |_| {},
        |lab| {
            let server = DnsServer::start(lab.pod(Role::Dns))?;
            let node = &lab.node().netns;
            let rules = ["ip daddr 10.96.0.10 udp dport 53 counter name n dnat ip to 10.244.0.4"];
            let hook = "type nat hook prerouting priority -100";
            truth::nft(node, &truth::Nft { hook, rules: &rules })?;
            let service = Client::new(SocketAddr::new(SERVICE.into(), 53));
            let mut outcomes = ask(lab, Role::Client, &service, 15)?;
            assert_eq!(truth::counted(node)?, 15, "each query was translated");
            truth::masquerade(node, lab.node().ipv4)?;
            outcomes.extend(ask(lab, Role::Client, &client(lab)?, 10)?);
            // Both ends translated at once. From ports that were not used before: the node's connection tracking would
            // treat such a query as it did the earlier ones.
            let both = lab.pod(Role::Client).netns.run(|| {
                let from = |port| Query { port, ..Query::new("both.example.test", TYPE_A) };
                (20_001..=20_005).map(|port| service.ask(&from(port))).collect::<Result<Vec<_>, _>>()
            })??;
            outcomes.extend(both);
            assert_eq!(truth::counted(node)?, 20);
            let as_node = |a: &&dns::Answered| a.client.ip() == IpAddr::V4(lab.node().ipv4);
            assert_eq!(server.log().answered.iter().filter(as_node).count(), 15, "as masqueraded");
            Ok(outcomes)
        },
    )
    .unwrap();
    let dns = &finished.snapshot.dns;
    assert!(outcomes.iter().all(|o| o.rcode == Some(dns::NOERROR)), "{outcomes:?}");
    assert_eq!((dns.transactions, dns.answered, dns.retries), (30, 30, 0));
    assert_counts(&finished.snapshot, &outcomes);
    assert!(dns.slowest.iter().all(|t| t.client == IpAddr::V4(Ipv4Addr::new(10, 244, 0, 2))));
    assert_nothing_lost(&finished.snapshot);
}
