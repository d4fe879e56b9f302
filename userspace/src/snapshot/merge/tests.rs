use super::{super::sample, *};
use crate::{
    aggregate::{Aggregator, Closing},
    decode::testing::{bytes_of, framed},
    probes::dns::{DnsConfig, DnsTracker, testing},
    snapshot::{
        ConntrackCounts, ConntrackFlow, ConntrackTable, Count, DnsName, DnsServer, Drop, DropFlow, Exemplar,
        Hist, LossCount, PathMtu, Probe, SignalData, TcpPeer,
    },
};
use nettrace_common::{
    MAX_SCOPES, Signal,
    probes::{drop::Drop as DropEvent, ptb::PacketTooBig, tcp::TcpEvent},
    wire::{Cause, Direction, Flow, Header, Kind, Measure},
};
use proptest::prelude::*;
use std::{net::IpAddr, sync::LazyLock};

const S: u64 = 1_000_000_000;

/// What happens on a made-up node, and how the kernel tells it.
#[derive(Clone, Debug)]
enum Event {
    Tcp { kind: u8, peer: u8, errno: u8, segments: u8, duration_ns: u32 },
    Drop { sport: u8, reason: u8 },
    TooBig { router: u8, mtu: u16 },
    Measure { signal: u8, scope: u8, latency_ns: u64 },
    Dns { name: u8, server: u8, rcode: u8, latency_ns: u32 },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0..7_u8, 0..5_u8, 0..3_u8, 1..4_u8, 0..90_000_000_u32).prop_map(
            |(kind, peer, errno, segments, duration_ns)| Event::Tcp {
                kind,
                peer,
                errno,
                segments,
                duration_ns
            }
        ),
        (0..5_u8, 0..3_u8).prop_map(|(sport, reason)| Event::Drop { sport, reason }),
        (0..3_u8, 1_280..1_500_u16).prop_map(|(router, mtu)| Event::TooBig { router, mtu }),
        (0..Signal::IN_KERNEL as u8, 1..4_u8, 0..40 * S)
            .prop_map(|(signal, scope, latency_ns)| { Event::Measure { signal, scope, latency_ns } }),
        (0..6_u8, 1..4_u8, 0..4_u8, 0..900_000_000_u32)
            .prop_map(|(name, server, rcode, latency_ns)| { Event::Dns { name, server, rcode, latency_ns } }),
    ]
}

fn flow(sport: u16, peer: u8) -> Flow {
    let mut flow = Flow { sport, dport: 443, protocol: 6, family: 4, ..Flow::default() };
    flow.saddr[..4].copy_from_slice(&[10, 0, 0, 1]);
    flow.daddr[..4].copy_from_slice(&[10, 0, 1, peer]);
    flow
}

/// One event a second, so that a DNS answer comes before the next event, and with it in one window.
fn ring(event: &Event, n: u64) -> Vec<u8> {
    let ts_ns = (n + 1) * S;
    let header = |kind: Kind, scope| Header { kind: kind as u8, ts_ns, scope, ..Header::default() };
    match *event {
        Event::Tcp { kind, peer, errno, segments, duration_ns } => framed(
            &bytes_of(&TcpEvent {
                header: header(Kind::Tcp, 1),
                flow: flow(40_000, peer),
                duration_ns: u64::from(duration_ns),
                srtt_us: duration_ns % 5_000,
                errno: [0, 111, 110][usize::from(errno)],
                event: kind,
                segments: u32::from(segments),
                again: kind % 3,
                busy_us: duration_ns / 1_000,
                rwnd_limited_us: duration_ns % 3,
                sndbuf_limited_us: duration_ns % 2,
                ..TcpEvent::default()
            }),
            0,
        ),
        Event::Drop { sport, reason } => framed(
            &bytes_of(&DropEvent {
                header: header(Kind::Drop, 1),
                flow: flow(u16::from(sport), 9),
                reason: u32::from(reason),
                ..DropEvent::default()
            }),
            0,
        ),
        Event::TooBig { router, mtu } => framed(
            &bytes_of(&PacketTooBig {
                header: header(Kind::PacketTooBig, 1),
                flow: flow(1, router),
                mtu: u32::from(mtu),
                ..PacketTooBig::default()
            }),
            0,
        ),
        Event::Measure { signal, scope, latency_ns } => framed(
            &bytes_of(&Measure {
                header: header(Kind::Measure, u16::from(scope)),
                flow: flow(7, 7),
                latency_ns,
                signal,
                cause: Cause::Exemplar as u8,
                ..Measure::default()
            }),
            0,
        ),
        Event::Dns { name, server, rcode, latency_ns } => {
            let (name, id) = (format!("host-{name}.example.com"), n as u16);
            let (client, server) = ((7, 40_000 + (n % 1_000) as u16), (server, 53));
            let query = testing::query(id, &name, 1);
            let answer = testing::answer(id, &name, 1, rcode);
            let asked = testing::udp(ts_ns, (2, Direction::Out), client, server, &query);
            let answered =
                testing::udp(ts_ns + u64::from(latency_ns), (2, Direction::In), server, client, &answer);
            let record = |message, payload: &[u8]| framed(&[&bytes_of(message)[..], payload].concat(), 0);
            [record(&asked, &query), record(&answered, &answer)].concat()
        }
    }
}

/// The snapshot of the events in a range: what a window of a capture yields.
fn capture(events: &[Event], range: std::ops::Range<usize>) -> Snapshot {
    let mut aggregator = Aggregator::new(DnsConfig::default());
    for n in range.clone() {
        aggregator.feed(ring(&events[n], n as u64).into());
    }
    let empty = sample::empty();
    let (start_ns, end_ns) = (range.start as u64 * S, range.end as u64 * S);
    let meta =
        Meta { start_unix_ns: 1_700_000_000 * S + start_ns, duration_ns: end_ns - start_ns, ..empty.meta };
    let closing = Closing {
        start_ns,
        end_ns,
        kernel: None,
        meta,
        interfaces: Vec::new(),
        scopes: BTreeMap::from([(1, "other".to_owned()), (2, "eth0".to_owned()), (3, "eth1".to_owned())]),
        probes: Vec::new(),
        overhead: Overhead::default(),
        ring_bytes: 1 << 20,
        bad_frames: 0,
    };
    aggregator.finish(closing).snapshot
}

/// Without what is rounded in each window, or known of one window only.
fn comparable(mut snapshot: Snapshot) -> Snapshot {
    snapshot.dns.names.iter_mut().for_each(|n| n.mean_ns = 0);
    snapshot.dns.servers.iter_mut().for_each(|s| s.asked_again = None);
    // Of reasons that are equally frequent either may be the one that is told.
    snapshot.drop_flows.iter_mut().for_each(|f| f.reason.clear());
    // In the order in which scopes were first seen.
    snapshot.signals.sort_by(|a, b| (&a.signal, &a.scope).cmp(&(&b.signal, &b.scope)));
    snapshot
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn windows_add_up_to_what_one_capture_saw(
        events in prop::collection::vec(event(), 1..80),
        mut cuts in prop::collection::vec(0.0..1.0_f64, 0..5),
    ) {
        cuts.sort_by(f64::total_cmp);
        let mut ends: Vec<_> = cuts.iter().map(|share| (share * events.len() as f64) as usize).collect();
        ends.push(events.len());
        let mut start = 0;
        let mut merged: Option<Snapshot> = None;
        for end in ends {
            let window = capture(&events, start..end);
            start = end;
            match &mut merged {
                Some(all) => all.merge(&window),
                None => merged = Some(window),
            }
        }
        let merged = merged.expect("one window at least");
        let whole = capture(&events, 0..events.len());
        for (ours, theirs) in merged.dns.names.iter().zip(&whole.dns.names) {
            prop_assert!(ours.mean_ns.abs_diff(theirs.mean_ns) <= cuts.len() as u64, "rounded once a window");
        }
        prop_assert_eq!(comparable(merged), comparable(whole));
    }

    #[test]
    fn totals_do_not_depend_on_what_is_added_first(parts in prop::collection::vec(small(), 3)) {
        let [a, b, c] = [0, 1, 2].map(|n| &parts[n]);
        let (mut left, mut bc) = (a.clone(), b.clone());
        left.merge(b);
        left.merge(c);
        bc.merge(c);
        let mut right = a.clone();
        right.merge(&bc);
        prop_assert_eq!(totals(&left), totals(&right));
        prop_assert_eq!(&left.signals, &right.signals);
        prop_assert_eq!(left.dns.pending, c.dns.pending);
        // A union takes them as they come.
        let backwards = union([c, a, b].map(Clone::clone)).expect("not empty");
        prop_assert_eq!(totals(&left), totals(&backwards));
        prop_assert_eq!(&left.dns.slowest, &backwards.dns.slowest);
        prop_assert_eq!(left.meta, backwards.meta);
    }
}

static RICH: LazyLock<Snapshot> = LazyLock::new(sample::rich);

/// A snapshot of few rows that two of them are likely to share, starting at different times.
fn small() -> impl Strategy<Value = Snapshot> {
    let row = (0..4_u8, 1..1_000_u64);
    (prop::collection::vec(row, 1..6), 1..100_000_u64).prop_map(|(rows, at_s)| {
        let mut snapshot = sample::empty();
        snapshot.meta.start_unix_ns = at_s * S;
        snapshot.ip.learnt_paths = at_s;
        snapshot.dns.pending = at_s;
        for (key, n) in rows {
            let mut hist = Hist::new();
            hist.record_n(1_000 * n, n);
            snapshot.tcp.connects += n;
            snapshot.tcp.segments_sent = Some(n);
            snapshot.packets.begun += n;
            snapshot.dns.transactions += n;
            snapshot.dns.rcodes.push(Count { name: format!("R{n}"), count: n });
            snapshot.drops.push(drop_row(usize::from(key), n));
            snapshot.overhead.user_cpu_ns += n;
            snapshot.signals = vec![signal_row("all", &hist)];
            if key > 0 {
                snapshot.signals.push(signal_row(["other", "eth0", "eth1"][usize::from(key) - 1], &hist));
            }
            snapshot.dns.slowest.push(RICH.dns.slowest[2].clone());
        }
        snapshot.dns.rcodes.sort_by_key(|c| c.count);
        snapshot.dns.rcodes.dedup_by_key(|c| c.name.clone());
        snapshot
    })
}

fn totals(s: &Snapshot) -> impl PartialEq + std::fmt::Debug + use<> {
    let drops = s.drops.iter().map(|d| d.count).sum::<u64>();
    (
        (s.tcp.connects, s.tcp.segments_sent, s.packets, drops),
        (s.dns.transactions, s.dns.rcodes.clone(), s.overhead.user_cpu_ns),
        (s.meta.duration_ns, s.losses.clone(), s.ring.clone()),
    )
}

fn signal_row(scope: &str, hist: &Hist) -> SignalData {
    SignalData {
        signal: Signal::RxStack.name().to_owned(),
        definition: Signal::RxStack.definition().to_owned(),
        scope: scope.to_owned(),
        sum_ns: (hist.mean_ns() * hist.count() as f64) as u64,
        max_ns: hist.max_ns(),
        hist: hist.clone(),
    }
}

fn drop_row(n: usize, count: u64) -> Drop {
    Drop { reason: "NO_SOCKET".to_owned(), location: format!("f{n}"), scope: "eth0".to_owned(), count }
}

#[test]
fn a_thousand_agents_have_the_quantiles_of_all_their_latencies() {
    let mut all = Hist::new();
    let mut seed = 1_u64;
    // One exists at a time, as where files are read one after the other.
    let agents = (0..1_000_u64).map(|n| {
        let mut snapshot = sample::empty();
        snapshot.meta.hostname = format!("node-{n:04}");
        snapshot.meta.start_unix_ns += n * 7;
        snapshot.dns.pending = 1;
        let mut hist = Hist::new();
        for _ in 0..50 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // From microseconds to seconds, as many in each decade.
            let ns = 10_u64.pow(3 + (seed >> 40) as u32 % 6) + (seed >> 20) % 900;
            hist.record(ns);
            all.record(ns);
        }
        snapshot.signals = vec![signal_row("all", &hist), signal_row(&format!("veth{n}"), &hist)];
        snapshot.tcp.connects = n;
        snapshot.tcp.peers = vec![peer_row(n as usize, 1)];
        snapshot.conntrack = vec![ConntrackTable { netns: "host".to_owned(), ..RICH.conntrack[0].clone() }];
        snapshot
    });
    let union = union(agents).expect("not empty");
    let row = union.signal(Signal::RxStack).expect("all");
    assert_eq!(row.hist, all);
    for q in [0.0, 0.5, 0.9, 0.99, 0.999, 1.0] {
        assert_eq!(row.hist.quantile_ns(q), all.quantile_ns(q), "{q}");
    }
    assert_eq!(union.tcp.connects, (0..1_000).sum::<u64>());
    assert_eq!((union.dns.pending, union.meta.cpus), (1_000, 8_000));
    assert_eq!(union.meta.hostname, "node-0000, node-0001, node-0002, and 997 more");
    assert_eq!(union.meta.duration_ns, sample::empty().meta.duration_ns);
    assert!(union.tcp.peers.len() <= ROWS && union.conntrack.len() == ROWS + 1);
    assert!(union.signals.len() <= MAX_SCOPES as usize, "{}", union.signals.len());
    let scoped = union.signals.iter().filter(|s| s.scope != "all").map(|s| s.hist.count()).sum::<u64>();
    assert_eq!(scoped, all.count(), "scopes add up to all");
    let dropped = |t: &ConntrackTable| t.total().drop.unwrap_or(0);
    assert_eq!(union.conntrack.iter().map(dropped).sum::<u64>(), 1_000 * 307);
}

fn peer_row(n: usize, connections: u64) -> TcpPeer {
    TcpPeer { peer: IpAddr::from([10, 0, (n >> 8) as u8, n as u8]), connections, ..RICH.tcp.peers[0].clone() }
}

/// A snapshot whose tables are full of rows that no other one has.
fn full(from: usize) -> Snapshot {
    let mut snapshot = sample::empty();
    let template = &*RICH;
    for n in from..from + ROWS {
        let text = format!("row {n}");
        let ip = IpAddr::from([10, 1, (n >> 8) as u8, n as u8]);
        let count = n as u64 + 1;
        snapshot.tcp.peers.push(peer_row(n, count));
        snapshot.tcp.failures.push(Count { name: text.clone(), count });
        snapshot.dns.servers.push(DnsServer {
            server: ip,
            transactions: count,
            ..template.dns.servers[0].clone()
        });
        snapshot.dns.slowest.push(template.dns.slowest[0].clone());
        for at in 0..10 {
            let name = format!("{text} {at}");
            snapshot.dns.names.push(DnsName { name, transactions: count, ..template.dns.names[0].clone() });
        }
        snapshot.drops.push(drop_row(n, count));
        snapshot.drop_flows.push(DropFlow { flow: text.clone(), reason: "x".to_owned(), count });
        snapshot.conntrack_flows.push(ConntrackFlow { flow: text.clone(), what: "x".to_owned(), count });
        snapshot.conntrack.push(ConntrackTable { netns: text.clone(), ..template.conntrack[0].clone() });
        snapshot.ip.ptb.push(PathMtu { router: ip, destination: ip, mtu: 1_400, count });
        snapshot.losses.push(LossCount { reason: text.clone(), ..snapshot.losses[0].clone() });
        snapshot.exemplars.push(Exemplar { at_ns: count, ..template.exemplars[0].clone() });
        snapshot.signals.push(signal_row(&text, &sample::hist(count, [1, 2, 3, 4, 5, 6])));
    }
    snapshot
}

#[test]
fn tables_are_bounded_and_what_is_cut_is_counted_elsewhere() {
    let (mut merged, later) = (full(0), full(1_000));
    merged.merge(&later);
    assert_eq!(merged.tcp.peers.len(), ROWS);
    assert_eq!(merged.tcp.peers[0].connections, 1_000 + ROWS as u64, "most first");
    assert_eq!((merged.dns.slowest.len(), merged.ip.ptb.len()), (ROWS, ROWS));
    assert_eq!((merged.drop_flows.len(), merged.conntrack_flows.len()), (ROWS, ROWS));
    assert_eq!(merged.exemplars.len(), 20, "of one signal");
    assert_eq!(merged.losses.len(), ROWS);
    let both = |of: fn(&Snapshot) -> u64| of(&full(0)) + of(&later);
    let drops = |s: &Snapshot| s.drops.iter().map(|d| d.count).sum::<u64>();
    assert_eq!((merged.drops.len(), drops(&merged)), (ROWS + 1, both(drops)));
    assert_eq!(merged.drops[ROWS].reason, OTHER);
    let failures = |s: &Snapshot| s.tcp.failures.iter().map(|c| c.count).sum::<u64>();
    assert_eq!((merged.tcp.failures.len(), failures(&merged)), (ROWS + 1, both(failures)));
    let asked = |s: &Snapshot| s.dns.servers.iter().map(|d| d.transactions).sum::<u64>();
    assert_eq!((merged.dns.servers.len(), asked(&merged)), (ROWS + 1, both(asked)));
    let named = |s: &Snapshot| s.dns.names.iter().map(|d| d.transactions).sum::<u64>();
    let listed = DnsConfig::default().listed_names;
    assert_eq!((merged.dns.names.len(), named(&merged)), (listed + 1, both(named)));
    assert_eq!(merged.dns.names[listed].name, DnsTracker::OTHER);
    let conntrack = |s: &Snapshot| s.conntrack.iter().map(|t| t.total().drop.unwrap_or(0)).sum::<u64>();
    assert_eq!((merged.conntrack.len(), conntrack(&merged)), (ROWS + 1, both(conntrack)));
    let latencies = |s: &Snapshot| s.signals.iter().map(|d| d.hist.count()).sum::<u64>();
    assert_eq!(latencies(&merged), both(latencies));
    assert!(merged.signals.len() <= MAX_SCOPES as usize);
    // Once full it stays as it is.
    let rows = merged.signals.len() + merged.conntrack.len() + merged.drops.len();
    merged.merge(&full(2_000));
    assert_eq!(merged.signals.len() + merged.conntrack.len() + merged.drops.len(), rows);
}

#[test]
fn what_is_so_at_the_end_is_the_later_ones() {
    let (mut earlier, mut later) = (sample::rich(), sample::rich());
    later.meta.start_unix_ns += 30 * S;
    later.dns.pending = 9;
    later.conntrack[0].entries = Some(12);
    later.interfaces.truncate(1);
    later.probes = vec![Probe { source: None, ..later.probes[0].clone() }];
    later.meta.filter = None;
    let shares = (earlier.overhead.stats_share, earlier.overhead.kernel_cpu_share);
    later.overhead.kernel_cpu_share = 3.0 * shares.1;
    earlier.merge(&later);
    assert_eq!((earlier.dns.pending, earlier.conntrack[0].entries), (9, Some(12)));
    assert_eq!((earlier.interfaces.len(), earlier.probes.len()), (1, 1));
    assert_eq!((earlier.meta.duration_ns, &earlier.meta.filter), (60 * S, &None));
    assert!((earlier.overhead.kernel_cpu_share - 2.0 * shares.1).abs() < 1e-12);
    assert!((earlier.overhead.stats_share - shares.0).abs() < 1e-12);
    assert_eq!(earlier.overhead.max_rss_bytes, later.overhead.max_rss_bytes);
    assert_eq!(earlier.overhead.programs[0].runs, 2 * later.overhead.programs[0].runs);
    // Of two that are alike the later one's is as much later.
    let times: Vec<_> = earlier.exemplars.iter().take(2).map(|e| e.at_ns).collect();
    assert_eq!(times, [14_233_000_000, 44_233_000_000]);
    assert_eq!(earlier.losses, {
        let mut twice = later.losses.clone();
        twice.iter_mut().for_each(|l| l.count *= 2);
        twice
    });
}

#[test]
fn several_nodes_keep_their_own_ends_and_names() {
    let window = |node: &str, at_s: u64, pending| {
        let mut snapshot = sample::rich();
        snapshot.meta.hostname = node.to_owned();
        snapshot.meta.start_unix_ns += at_s * S;
        snapshot.dns.pending = pending;
        snapshot.conntrack[0].entries = Some(pending);
        snapshot
    };
    let union = union([window("b", 0, 1), window("a", 0, 2), window("b", 30, 3)]).expect("not empty");
    assert_eq!((union.meta.hostname.as_str(), union.dns.pending, union.meta.cpus), ("a, b", 5, 16));
    assert_eq!(union.meta.duration_ns, 60 * S);
    assert_eq!(union.tcp.connects, 3 * 412);
    let entries: Vec<_> = union
        .conntrack
        .iter()
        .map(|t| (t.netns.as_str(), t.entries))
        .filter(|(n, _)| n.ends_with("host"))
        .collect();
    assert_eq!(entries, [("b/host", Some(3)), ("a/host", Some(2))]);
    assert_eq!(union.ip.learnt.len(), 4);
    assert_eq!(union.ip.learnt_paths, 4);
    assert_eq!(union.interfaces.len(), 8);
    assert_eq!(union.node, Node::default());
    // CPU time of three windows of 30 s, in 60 s.
    let share = sample::rich().overhead.kernel_cpu_share;
    assert!((union.overhead.kernel_cpu_share - 1.5 * share).abs() < 1e-12);
}

#[test]
fn one_is_itself_and_none_is_none() {
    assert_eq!(union([]), None);
    assert_eq!(union([sample::rich()]), Some(sample::rich()));
    let mut with_nothing = sample::rich();
    let nothing = Snapshot { node: with_nothing.node.clone(), ..sample::empty() };
    with_nothing.merge(&nothing);
    assert_eq!(with_nothing.signals, sample::rich().signals);
    assert_eq!(
        with_nothing.tcp.segments_sent, None,
        "a share of what is known only in part would be too large"
    );
    assert_eq!(with_nothing.tcp.listen_overflows, Some(5));
}

#[test]
fn hostile_snapshots_are_added_without_panic() {
    let mut hostile = sample::hostile();
    hostile.tcp.connects = u64::MAX;
    hostile.signals[0].sum_ns = u64::MAX;
    hostile.conntrack[0].cpus[0] = ConntrackCounts { drop: Some(u64::MAX), ..ConntrackCounts::default() };
    hostile.dns.names[0].mean_ns = u64::MAX;
    hostile.overhead.kernel_cpu_share = f64::NAN;
    hostile.exemplars[0].at_ns = u64::MAX;
    hostile.dns.slowest[0].at_ns = u64::MAX;
    let mut sum = hostile.clone();
    sum.merge(&hostile);
    assert_eq!((sum.tcp.connects, sum.signals[0].sum_ns), (u64::MAX, u64::MAX));
    let other =
        Snapshot { meta: Meta { hostname: "x".to_owned(), ..hostile.meta.clone() }, ..hostile.clone() };
    assert!(union([hostile, other, sum]).is_some());
}
