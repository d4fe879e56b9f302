//! `drop`: as many as the kernel's own counters say, each with its reason, its place and its flow.

use nettrace::lab::{Lab, LabConfig, Path, Role, Topology};
use nettrace::snapshot::{Drop, Snapshot};
use nettrace_tests::{Rung, captured, drops, from_every_rung, lost, truth};
use std::net::UdpSocket;

/// Sends datagrams from an own port to a port of the server. Yields the flow as reports name it.
fn send(path: &Path<'_>, to: u16, count: u32) -> anyhow::Result<String> {
    path.from().netns.run(|| {
        let socket = UdpSocket::bind(path.client_address(0))?;
        for _ in 0..count {
            socket.send_to(&[0; 100], path.server_address(to))?;
        }
        Ok(format!("{} -> {} udp", socket.local_addr()?, path.server_address(to)))
    })?
}

/// Drops by reason, without what young IPv6 interfaces tell each other of their multicast groups: where nobody
/// listens, that is dropped too.
fn reasons(snapshot: &Snapshot) -> Vec<(&str, u64)> {
    let mut reasons = std::collections::BTreeMap::new();
    for drop in snapshot.drops.iter().filter(|d| !d.location.starts_with("ip6_mc_input")) {
        *reasons.entry(drop.reason.as_str()).or_default() += drop.count;
    }
    reasons.into_iter().collect()
}

/// No events are lost, and the flows' counts add up to the rows'.
fn assert_books_balance(snapshot: &Snapshot) {
    let rows: u64 = snapshot.drops.iter().map(|d| d.count).sum();
    assert_eq!(snapshot.drop_flows.iter().map(|f| f.count).sum::<u64>(), rows);
    assert_eq!((lost(snapshot, "ring_full"), lost(snapshot, "table_full")), (0, 0));
}

/// Packets dropped by nft in a pod's input and in the node's forwarding: exactly as many as nft's own counters say.
#[test]
fn nft_drops_have_their_count_reason_place_and_flow() {
    const PORT: u16 = 9999;
    let config = LabConfig { topology: Topology::Routed, ..LabConfig::default() };
    let (finished, (at_server, at_node, flows)) = captured(
        config,
        |_| {},
        |lab| {
            let drop = |hook| truth::Nft { hook, rules: &["udp dport 9999 counter name n drop"] };
            let server = &lab.pod(Role::Server).netns;
            truth::nft(server, &drop("type filter hook input priority 0"))?;
            let mut flows = Vec::new();
            for (&family, count) in lab.families().iter().zip([25, 15]) {
                let path = lab.path(Role::Client, Role::Server, family)?;
                flows.push((send(&path, PORT, count)?, u64::from(count)));
            }
            truth::nft(&lab.node().netns, &drop("type filter hook forward priority 0"))?;
            for (&family, count) in lab.families().iter().zip([7, 5]) {
                let path = lab.path(Role::Client, Role::Server, family)?;
                flows.push((send(&path, PORT, count)?, u64::from(count)));
            }
            Ok((truth::counted(server)?, truth::counted(&lab.node().netns)?, flows))
        },
    )
    .unwrap();
    let snapshot = &finished.snapshot;
    assert_eq!((at_server, at_node), (40, 12), "what nft says");
    assert_eq!(drops(snapshot, "NETFILTER_DROP"), 52);
    let by_nft = || snapshot.drops.iter().filter(|d| d.reason == "NETFILTER_DROP");
    let in_scope = |scope| by_nft().filter(|d| d.scope == scope).map(|d| d.count).sum::<u64>();
    assert_eq!((in_scope("server/eth0"), in_scope("node/veth-client")), (40, 12), "{:?}", snapshot.drops);
    for row in by_nft() {
        let function = row.location.split('+').next().unwrap();
        assert!(function.starts_with("nf_") || function.starts_with("nft_"), "{row:?}");
    }
    for (flow, count) in flows {
        let row = snapshot.drop_flows.iter().find(|row| row.flow == flow);
        let row = row.unwrap_or_else(|| panic!("{flow} is not in {:?}", snapshot.drop_flows));
        assert_eq!((row.reason.as_str(), row.count), ("NETFILTER_DROP", count));
    }
    assert_eq!(reasons(snapshot), [("NETFILTER_DROP", 52)], "and nothing else is dropped");
    assert_books_balance(snapshot);
}

/// Datagrams to a port without a socket: as many as UdpNoPorts and Udp6NoPorts count, from every source.
#[test]
fn datagrams_to_closed_ports_are_no_socket() {
    let work = |lab: &Lab| {
        let mut flows = Vec::new();
        for (&family, count) in lab.families().iter().zip([30, 20]) {
            let path = lab.path(Role::Client, Role::Server, family)?;
            flows.push((send(&path, 9, count)?, u64::from(count)));
        }
        let counters = truth::counters(&lab.pod(Role::Server).netns)?;
        assert_eq!((counters["UdpNoPorts"], counters["Udp6NoPorts"]), (30, 20));
        Ok(flows)
    };
    from_every_rung(
        "drop",
        &["drop"],
        LabConfig::default(),
        work,
        |Rung { snapshot, said: flows, .. }| {
            let drops_of = &snapshot.drops;
            assert_eq!(drops(&snapshot, "NO_SOCKET"), 50, "{drops_of:?}");
            let closed = |d: &&Drop| d.reason == "NO_SOCKET";
            assert!(drops_of.iter().filter(closed).all(|d| d.scope == "server/eth0"), "{drops_of:?}");
            for (flow, count) in flows {
                let row = snapshot.drop_flows.iter().find(|row| row.flow == flow).unwrap();
                assert_eq!((row.reason.as_str(), row.count), ("NO_SOCKET", count));
            }
            assert_eq!(reasons(&snapshot), [("NO_SOCKET", 50)]);
            assert_books_balance(&snapshot);
        },
    )
    .unwrap();
}

/// Datagrams that a full socket buffer refuses: as many as RcvbufErrors count, and the others are there to read.
#[test]
fn full_socket_buffers_are_counted() {
    const SENT: u32 = 2000;
    let (finished, (refused, received)) = captured(LabConfig::default(), |_| {}, overflow).unwrap();
    let snapshot = &finished.snapshot;
    assert!(refused > 0, "the test overflows no buffer");
    assert_eq!(refused + received, 2 * u64::from(SENT), "every datagram is in one of the two books");
    assert_eq!(drops(snapshot, "SOCKET_RCVBUFF"), refused, "{:?}", snapshot.drops);
    assert_eq!(reasons(snapshot), [("SOCKET_RCVBUFF", refused)]);
    assert_books_balance(snapshot);
}

/// Fills a socket that nobody reads, then reads it. Yields what the kernel refused and what could be read.
fn overflow(lab: &Lab) -> anyhow::Result<(u64, u64)> {
    let server = &lab.pod(Role::Server).netns;
    let mut received = 0;
    for &family in lab.families() {
        let path = lab.path(Role::Client, Role::Server, family)?;
        let socket = server.run(|| UdpSocket::bind(path.server_address(7000)))??;
        send(&path, 7000, 2000)?;
        socket.set_nonblocking(true)?;
        while socket.recv(&mut [0; 200]).is_ok() {
            received += 1;
        }
    }
    let counters = truth::counters(server)?;
    Ok((counters["UdpRcvbufErrors"] + counters["Udp6RcvbufErrors"], received))
}
