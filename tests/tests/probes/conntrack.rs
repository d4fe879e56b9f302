//! `ct.counters`, `ct.clash`, `ct.full`: what connection tracking counts and whom it drops, against packets that were made
//! for it and against `conntrack -S`.

use anyhow::{Context, Result, ensure};
use nettrace::{
    capture::Options,
    lab::{Family, Lab, LabConfig, Pod, Role, Topology},
    probes::{CLASHES, CONNTRACK, FULL_TABLES},
    snapshot::{ConntrackCounts, ConntrackFlow, ConntrackTable, ConntrackTrouble, Snapshot},
};
use nettrace_common::Signal;
use nettrace_tests::{Rung, captured, from_every_rung, in_guest, lost, truth};
use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    time::Duration,
};

/// Packets pass the node, which tracks them.
fn routed() -> LabConfig {
    LabConfig { topology: Topology::Routed, ..LabConfig::default() }
}

fn track(lab: &Lab) -> Result<()> {
    let hook = "type filter hook forward priority 0";
    truth::nft(&lab.node().netns, &truth::Nft { hook, rules: &["ct state established accept"] })
}

fn node(snapshot: &Snapshot) -> &ConntrackTable {
    snapshot.conntrack.iter().find(|t| t.netns == "node").unwrap()
}

/// A counter over all CPUs, as `conntrack -S` tells it; none when it does not know it.
fn told(text: &str, counter: &str) -> Option<u64> {
    let values = text.split_whitespace().filter_map(|word| word.split_once('='));
    let values: Vec<u64> =
        values.filter(|(name, _)| *name == counter).filter_map(|(_, n)| n.parse().ok()).collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

/// Every counter is what `conntrack -S` says of a namespace that is new, and so began at zero.
fn agrees_with_conntrack(snapshot: &Snapshot, text: &str) {
    let mut total = node(snapshot).total();
    let mut compared = 0;
    for (name, field) in ConntrackCounts::FIELDS {
        if let (Some(ours), Some(theirs)) = (*field(&mut total), told(text, name)) {
            assert_eq!(ours, theirs, "{name} of {text}");
            compared += 1;
        }
    }
    assert!(compared >= 6, "{compared} counters of {text}");
}

/// K segments of connections that nobody began are K invalid packets, from each source.
#[test]
fn stray_segments_are_invalid() {
    const STRAY: u64 = 17;
    let work = |lab: &Lab| {
        track(lab)?;
        let path = lab.path(Role::Client, Role::Server, Family::V4)?;
        let sender = truth::RawSender::open(&path)?;
        let (from, to) = (lab.pod(Role::Client).ipv4, lab.pod(Role::Server).ipv4);
        (0..STRAY).try_for_each(|_| sender.send(&truth::stray_segment(from, to)))?;
        truth::output(&lab.node().netns, "conntrack", "conntrack", &["-S"])
    };
    // A capture needs one program at least.
    let signals = [CONNTRACK, Signal::RxSoftirq.name()];
    from_every_rung(CONNTRACK, &signals, routed(), work, |Rung { name, snapshot, said: text }| {
        assert_eq!(node(&snapshot).total().invalid, Some(STRAY), "{name}: {text}");
        agrees_with_conntrack(&snapshot, &text);
    })
    .unwrap();
}

/// The size of the table of all namespaces, as it was before when this is dropped.
struct TableSize(String);

const MAX: &str = "/proc/sys/net/netfilter/nf_conntrack_max";

impl TableSize {
    fn set(entries: usize) -> Result<Self> {
        let before = fs::read_to_string(MAX).context(MAX)?;
        fs::write(MAX, entries.to_string()).context(MAX)?;
        Ok(Self(before))
    }
}

impl Drop for TableSize {
    fn drop(&mut self) {
        fs::write(MAX, self.0.trim()).unwrap();
    }
}

/// A table that is full of established connections drops every packet of another one, and each is counted.
#[test]
fn a_full_table_drops_what_is_new() {
    const ENTRIES: usize = 16;
    const NEW: u64 = 9;
    if !in_guest() || !Path::new(MAX).exists() {
        println!("skipped: the size of the table is the whole machine's, and this one is not a test's own");
        return;
    }
    let (finished, (text, flow)) = captured(routed(), only_these, |lab| {
        track(lab)?;
        let (client, server) = (lab.pod(Role::Client), lab.pod(Role::Server));
        let listener = server.netns.run(|| TcpListener::bind((server.ipv4, 0)))??;
        let to = listener.local_addr()?;
        let size = TableSize::set(ENTRIES)?;
        let connect = || (0..ENTRIES).map(|_| TcpStream::connect(to)).collect::<Result<Vec<_>, _>>();
        let connections = client.netns.run(connect)??;
        let socket = client.netns.run(|| UdpSocket::bind((client.ipv4, 0)))??;
        let flow = format!("{} -> {to} udp", socket.local_addr()?);
        for _ in 0..NEW {
            socket.send_to(b"new", to)?;
        }
        let text = truth::output(&lab.node().netns, "conntrack", "conntrack", &["-S"])?;
        drop(size);
        drop(connections);
        Ok((text, flow))
    })
    .unwrap();
    let table = node(&finished.snapshot);
    assert_eq!((table.dropped_full(), table.dropped_raced()), (NEW, 0), "{table:?}");
    assert_eq!(told(&text, "drop"), Some(NEW), "{text}");
    agrees_with_conntrack(&finished.snapshot, &text);
    let snapshot = &finished.snapshot;
    assert_eq!(
        snapshot.conntrack_trouble,
        ConntrackTrouble { table_full: NEW, ..ConntrackTrouble::default() }
    );
    assert_eq!(snapshot.conntrack_flows, [row(flow, "table full", NEW)]);
    nothing_was_missed(snapshot);
}

/// Programs that these tests have no use for are dear to verify where the processor is emulated.
fn only_these(options: &mut Options) {
    options.signals = [CONNTRACK, CLASHES, FULL_TABLES].map(str::to_owned).to_vec();
}

fn row(flow: String, what: &str, count: u64) -> ConntrackFlow {
    ConntrackFlow { flow, what: what.to_owned(), count }
}

fn nothing_was_missed(snapshot: &Snapshot) {
    for probe in snapshot.probes.iter().filter(|p| [CLASHES, FULL_TABLES].contains(&p.name.as_str())) {
        assert!(probe.source.is_some(), "{probe:?}");
    }
    assert_eq!((lost(snapshot, "unmatched"), lost(snapshot, "ring_full")), (0, 0));
}

const RACES: u64 = 5;
const PORT: u16 = 7300;
/// The datagram that is held, and one of another length that overtakes it.
const HELD: &[u8] = b"held!";
const AHEAD: &[u8] = b"goes ahead";

/// Two datagrams whose connections cannot both be in the table; the first is held until the second has arrived.
fn race(races: &truth::Races, [held, ahead]: [&UdpSocket; 2], to: SocketAddr, at: &UdpSocket) -> Result<()> {
    let first = || Ok(held.send_to(HELD, to).map(drop)?);
    races.run(first, || {
        ahead.send_to(AHEAD, to)?;
        arrives(at, AHEAD)
    })
}

/// Waits for a datagram, which must be this one.
fn arrives(at: &UdpSocket, datagram: &[u8]) -> Result<()> {
    at.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut bytes = [0; 64];
    let length = at.recv(&mut bytes).with_context(|| format!("{} bytes did not arrive", datagram.len()))?;
    ensure!(bytes[..length] == *datagram, "{length} bytes arrived");
    Ok(())
}

/// A packet that comes to enter its connection after another one has: let through where both are of one connection, also
/// of one that goes to another backend, as A and AAAA queries of one socket to a DNS Service; dropped where another
/// connection would be answered the same, as of two pods behind one address.
#[test]
fn packets_that_race_are_told_apart() {
    if !in_guest() {
        println!("skipped: this machine may have no kprobes, and no module for netfilter's queues");
        return;
    }
    let mut expected = Vec::new();
    let (finished, text) = captured(routed(), only_these, |lab| {
        let [client, server, dns] = [Role::Client, Role::Server, Role::Dns].map(|role| lab.pod(role));
        let course = truth::Course {
            client: client.ipv4,
            held: &format!("udp length {}", 8 + HELD.len()),
            service: Some((PORT, [server.ipv4, dns.ipv4])),
            shared: Some(PORT + 1),
        };
        let races = truth::Races::on(&lab.node().netns, &course)?;
        let bind = |pod: &Pod, port| anyhow::Ok(pod.netns.run(|| UdpSocket::bind((pod.ipv4, port)))??);
        let [direct, shared] = [bind(server, PORT)?, bind(server, PORT + 1)?];
        let second_backend = bind(dns, PORT)?;
        for _ in 0..RACES {
            // The Service's first backend, which is the server, has the turn of each datagram that is held.
            for (to, at) in [(server.ipv4, &direct), (truth::SERVICE, &second_backend)] {
                let socket = bind(client, 0)?;
                race(&races, [&socket; 2], (to, PORT).into(), at)?;
                arrives(&direct, HELD)?;
                let flow = format!("{} -> {}:{PORT} udp", socket.local_addr()?, server.ipv4);
                expected.push(row(flow, "clash resolved", 1));
            }
            let one = bind(client, 0)?;
            let port = one.local_addr()?.port();
            let other = bind(dns, port)?;
            let to = SocketAddr::from((server.ipv4, PORT + 1));
            race(&races, [&one, &other], to, &shared)?;
            expected.push(row(format!("{}:{port} -> {to} udp", truth::SHARED), "clash dropped", 1));
        }
        shared.set_read_timeout(Some(Duration::from_millis(200)))?;
        ensure!(shared.recv(&mut [0; 64]).is_err(), "what lost its race arrived");
        truth::output(&lab.node().netns, "conntrack", "conntrack", &["-S"])
    })
    .unwrap();
    println!("{text}");
    let snapshot = &finished.snapshot;
    let trouble = snapshot.conntrack_trouble;
    assert_eq!(trouble.clashes_resolved, 2 * RACES);
    assert_eq!((trouble.clashes_dropped, trouble.table_full), (RACES, 0));
    let counts = ["clash_resolve", "insert_failed", "drop"].map(|name| told(&text, name));
    assert_eq!(counts, [Some(2 * RACES), Some(RACES), Some(RACES)], "{text}");
    assert_eq!(node(snapshot).dropped_raced(), RACES);
    agrees_with_conntrack(snapshot, &text);
    let mut flows = snapshot.conntrack_flows.clone();
    for rows in [&mut flows, &mut expected] {
        rows.sort_by(|a, b| (&a.flow, &a.what).cmp(&(&b.flow, &b.what)));
    }
    assert_eq!(flows, expected);
    nothing_was_missed(snapshot);
}
