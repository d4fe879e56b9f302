//! `ct.counters`: what connection tracking counts, against packets that were made for it and against `conntrack -S`.

use anyhow::{Context, Result};
use nettrace::{
    lab::{Family, Lab, LabConfig, Role, Topology},
    probes::CONNTRACK,
    snapshot::{ConntrackCounts, ConntrackTable, Snapshot},
};
use nettrace_common::Signal;
use nettrace_tests::{Rung, captured, from_every_rung, in_guest, truth};
use std::{
    fs,
    net::{TcpListener, TcpStream, UdpSocket},
    path::Path,
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
    let (finished, text) = captured(
        routed(),
        |_| {},
        |lab| {
            track(lab)?;
            let (client, server) = (lab.pod(Role::Client), lab.pod(Role::Server));
            let listener = server.netns.run(|| TcpListener::bind((server.ipv4, 0)))??;
            let to = listener.local_addr()?;
            let size = TableSize::set(ENTRIES)?;
            let connect = || (0..ENTRIES).map(|_| TcpStream::connect(to)).collect::<Result<Vec<_>, _>>();
            let connections = client.netns.run(connect)??;
            let socket = client.netns.run(|| UdpSocket::bind((client.ipv4, 0)))??;
            for _ in 0..NEW {
                socket.send_to(b"new", to)?;
            }
            let text = truth::output(&lab.node().netns, "conntrack", "conntrack", &["-S"])?;
            drop(size);
            drop(connections);
            Ok(text)
        },
    )
    .unwrap();
    let table = node(&finished.snapshot);
    assert_eq!((table.dropped_full(), table.dropped_raced()), (NEW, 0), "{table:?}");
    assert_eq!(told(&text, "drop"), Some(NEW), "{text}");
    agrees_with_conntrack(&finished.snapshot, &text);
}
