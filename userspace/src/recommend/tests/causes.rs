//! Causes that look the same: what tells them apart, and that nothing is advised where nothing does.

use super::{
    find,
    proofs::{changes, crowded, listener, overflowed},
    quiet, set, verdict,
};
use crate::{
    node::{NodeLink, SYSCTLS, Setting, Settings, TIME_WAIT},
    probes::FULL_TABLES,
    recommend::{Confidence, Finding, Profile, Verdict, advise},
    snapshot::{ConntrackCounts, ConntrackTable, Snapshot, TcpCounters, TcpLimited, TcpNamespace, sample},
};
use proptest::prelude::*;

const MAX: &str = "net.netfilter.nf_conntrack_max";
const ESTABLISHED: &str = "net.netfilter.nf_conntrack_tcp_timeout_established";

/// A table with this use of a hundred entries, which dropped and made room so often.
fn table(netns: &str, entries: u64, drop: u64, early_drop: u64) -> ConntrackTable {
    ConntrackTable {
        netns: netns.to_owned(),
        entries: Some(entries),
        max: Some(100),
        buckets: Some(64),
        cpus: vec![ConntrackCounts {
            drop: Some(drop),
            early_drop: Some(early_drop),
            insert_failed: Some(0),
            ..ConntrackCounts::default()
        }],
    }
}

fn tracked(tables: Vec<ConntrackTable>) -> Snapshot {
    Snapshot { conntrack: tables, ..quiet() }
}

/// A setting of one more namespace, or of one that there is.
fn set_in(snapshot: &mut Snapshot, netns: &str, name: &str, value: Option<&str>) {
    let setting = Setting {
        name: name.to_owned(),
        value: value.map(str::to_owned),
        from: "a file".to_owned(),
        error: value.is_none().then(|| "Permission denied".to_owned()),
    };
    let namespaces = &mut snapshot.node.namespaces;
    match namespaces.iter_mut().find(|s| s.netns == netns) {
        Some(known) => known.values.push(setting),
        None => namespaces.push(Settings {
            netns: netns.to_owned(),
            values: vec![setting],
            ..Settings::default()
        }),
    }
}

fn says(finding: &Finding) -> (Verdict, &str) {
    (finding.verdict, finding.to_tell.as_deref().unwrap_or_default())
}

#[test]
fn packets_that_a_table_with_room_dropped_are_no_call_for_a_larger_one() {
    let of = |snapshot: &Snapshot| find(snapshot, "conntrack.max");
    let mut unexplained = tracked(vec![table("host", 10, 3, 0)]);
    let finding = of(&unexplained);
    assert_eq!((finding.verdict, finding.changes.len()), (Verdict::CannotTell, 0));
    assert!(says(&finding).1.starts_with("dmesg | grep 'table full'"), "{finding:?}");
    assert_eq!(verdict(&unexplained, "conntrack.established-timeout"), Verdict::CannotTell);
    unexplained.probes.iter_mut().find(|p| p.name == FULL_TABLES).unwrap().source = None;
    assert!(says(&of(&unexplained)).1.ends_with("nettrace run --signals ct.counters,ct.full"));
    // Each of these shows that it was full.
    for (entries, early_drop) in [(10, 1), (95, 0)] {
        let counted = of(&tracked(vec![table("host", entries, 3, early_drop)]));
        assert_eq!((counted.verdict, counted.confidence), (Verdict::Apply, Confidence::Medium));
    }
    // The full one is not the one that dropped.
    let elsewhere = tracked(vec![table("host", 10, 3, 0), table("pod", 95, 0, 0)]);
    assert_eq!(of(&elsewhere).verdict, Verdict::CannotTell);
    let made_room = of(&tracked(vec![table("host", 10, 0, 5)]));
    assert_eq!((made_room.verdict, made_room.changes.len()), (Verdict::Consider, 1));
}

#[test]
fn packets_seen_to_find_no_room_are_told_whatever_else_can_be_read() {
    let unreadable = ConntrackTable { entries: None, max: None, ..table("host", 0, 3, 0) };
    let mut snapshot = tracked(vec![unreadable.clone()]);
    let dropped = find(&snapshot, "conntrack.max");
    assert_eq!((dropped.verdict, dropped.evidence[0].value.as_str()), (Verdict::CannotTell, "3"));
    snapshot.conntrack_trouble.table_full = 3;
    let seen = find(&snapshot, "conntrack.max");
    assert_eq!((seen.verdict, seen.confidence), (Verdict::Apply, Confidence::High));
    assert_eq!(changes(&seen), [("host", "raise net.netfilter.nf_conntrack_max to twice what it is")]);
    set(&mut snapshot, MAX, "4096");
    assert_eq!(
        changes(&find(&snapshot, "conntrack.max")),
        [("host", "sysctl -w net.netfilter.nf_conntrack_max=8192")]
    );
    // Neither a table without a limit nor one that cannot be read is full.
    let unlimited = ConntrackTable { max: Some(0), ..table("host", 500, 0, 0) };
    assert_eq!(verdict(&tracked(vec![unlimited]), "conntrack.max"), Verdict::NotNeeded);
    let quiet = ConntrackTable { cpus: Vec::new(), ..unreadable };
    assert_eq!(verdict(&tracked(vec![quiet]), "conntrack.max"), Verdict::CannotTell);
    let mut left_out = tracked(vec![table("host", 10, 0, 0)]);
    set_in(&mut left_out, "pod", MAX, Some("100"));
    let finding = find(&left_out, "conntrack.max");
    assert_eq!(finding.verdict, Verdict::CannotTell);
    assert!(finding.because.contains("of pod "), "{}", finding.because);
}

#[test]
fn no_more_entries_are_set_than_the_kernel_takes() {
    let full = |max: u64| ConntrackTable { max: Some(max), ..table("host", max, 3, 0) };
    let of = |max| {
        let mut snapshot = tracked(vec![full(max)]);
        set(&mut snapshot, "net.netfilter.nf_conntrack_buckets", "65536");
        find(&snapshot, "conntrack.max")
    };
    let most = of(2_000_000_000);
    assert_eq!(
        changes(&most),
        [
            ("host", "sysctl -w net.netfilter.nf_conntrack_max=2147483647"),
            ("host", "sysctl -w net.netfilter.nf_conntrack_buckets=268427264"),
        ]
    );
    for max in [2_147_483_647, u64::MAX] {
        let finding = of(max);
        assert_eq!((finding.verdict, finding.changes.len()), (Verdict::Consider, 0));
        assert!(finding.because.ends_with("cannot be raised"), "{}", finding.because);
    }
}

#[test]
fn a_queue_as_long_as_is_advised_stays_and_that_is_said() {
    let mut queue = overflowed(7, vec![listener(80, 3, Some(65_535), Some(7))]);
    queue.node.namespaces.iter_mut().for_each(|s| s.values[0].value = Some("65535".to_owned()));
    let finding = find(&queue, "tcp.accept-queue");
    assert_eq!((finding.verdict, finding.changes.len()), (Verdict::Consider, 1));
    assert!(finding.because.contains("as long as is advised"), "{}", finding.because);
    queue.node.namespaces[0].sockets.listeners.clear();
    let finding = find(&queue, "tcp.accept-queue");
    let stays = finding.evidence.iter().find(|e| e.what == "net.core.somaxconn in pod");
    assert!(stays.is_some_and(|e| e.value.contains("more than 65535 is not advised")), "{finding:?}");
    assert_eq!(finding.changes.len(), 1, "the application");
}

#[test]
fn a_buffer_as_large_as_is_advised_stays_and_that_is_said() {
    let mut snapshot = windows("10.0.0.2");
    snapshot.node.namespaces[1].values[0].value = Some("4096 131072 67108864".to_owned());
    let finding = find(&snapshot, "tcp.receive-buffer");
    assert_eq!((finding.verdict, finding.changes.len()), (Verdict::Consider, 1), "the application");
    let stays = finding.evidence.iter().find(|e| e.what == "net.ipv4.tcp_rmem in server");
    assert!(stays.is_some_and(|e| e.value.contains("more than 67108864 is not advised")), "{finding:?}");
}

#[test]
fn the_time_of_idle_connections_is_that_of_the_fullest_table() {
    let mut snapshot = tracked(vec![table("pod", 10, 0, 0), table("host", 95, 0, 0)]);
    set_in(&mut snapshot, "pod", ESTABLISHED, Some("300"));
    let of = |snapshot: &Snapshot| find(snapshot, "conntrack.established-timeout");
    let unknown = of(&snapshot);
    assert_eq!(unknown.verdict, Verdict::CannotTell);
    assert!(unknown.because.contains("the table of host fills up"), "{}", unknown.because);
    set_in(&mut snapshot, "host", ESTABLISHED, Some("432000"));
    let finding = of(&snapshot);
    let change = ("host", "sysctl -w net.netfilter.nf_conntrack_tcp_timeout_established=86400");
    assert_eq!((finding.verdict, changes(&finding)), (Verdict::Consider, vec![change]));
    snapshot.conntrack[1].entries = Some(10);
    assert_eq!(of(&snapshot).verdict, Verdict::NotNeeded);
    snapshot.conntrack[0].entries = None;
    assert_eq!(of(&snapshot).verdict, Verdict::CannotTell);
    assert_eq!(of(&quiet()).verdict, Verdict::NotNeeded, "nobody tracks connections");
}

#[test]
fn a_longer_queue_is_advised_where_the_application_was_seen_to_catch_up() {
    let of =
        |queued| find(&overflowed(7, vec![listener(80, queued, Some(128), Some(7))]), "tcp.accept-queue");
    for queued in [0, 64] {
        assert_eq!(of(queued).verdict, Verdict::Apply);
    }
    for queued in [65, 128, 129] {
        let slow = of(queued);
        assert_eq!((slow.verdict, slow.changes.len()), (Verdict::Consider, 1));
        assert!(slow.because.contains("does not accept fast enough"), "{}", slow.because);
        assert_eq!(slow.changes[0].scope, "application at port 80 of pod");
    }
}

/// A sender, and a receiver whose windows kept it from sending half of the time.
fn windows(receiver: &str) -> Snapshot {
    let mut snapshot = quiet();
    snapshot.tcp.limited =
        TcpLimited { connections: 1, busy_us: 1_000_000, rwnd_limited_us: 500_000, ..TcpLimited::default() };
    let mut peer = sample::rich().tcp.peers.remove(0);
    (peer.peer, peer.rwnd_limited_us) = (receiver.parse().unwrap(), 500_000);
    snapshot.tcp.peers = vec![peer];
    for (netns, address) in [("client", "10.0.0.1"), ("server", "10.0.0.2")] {
        set_in(&mut snapshot, netns, "net.ipv4.tcp_rmem", Some("4096 131072 6291456"));
        let link = |name: &str, up, address: &str| NodeLink {
            name: name.to_owned(),
            up,
            addresses: vec![address.parse().unwrap()],
            ..NodeLink::default()
        };
        let links = &mut snapshot.node.namespaces.last_mut().unwrap().links;
        *links = vec![
            link("lo", true, "127.0.0.1"),
            link("eth0", true, address),
            link("kube-ipvs0", false, "10.96.0.1"),
        ];
        let counters = TcpCounters { zero_windows: Some(0), ..TcpCounters::default() };
        let row = TcpNamespace { netns: netns.to_owned(), counters, ..TcpNamespace::default() };
        snapshot.tcp.namespaces.push(row);
    }
    snapshot
}

#[test]
fn receive_buffers_are_to_grow_at_the_receiver_and_nowhere_else() {
    let of = |snapshot: &Snapshot| find(snapshot, "tcp.receive-buffer");
    let mut here = windows("10.0.0.2");
    let finding = of(&here);
    assert_eq!(finding.verdict, Verdict::Consider);
    assert_eq!(
        changes(&finding)[1..],
        [("server", "sysctl -w net.ipv4.tcp_rmem='4096 131072 12582912'")],
        "not the sender's"
    );
    // Whose windows were closed decides, and not that anybody's were.
    here.tcp.counters.zero_windows = Some(4);
    here.tcp.namespaces[0].counters.zero_windows = Some(4);
    assert_eq!(of(&here).verdict, Verdict::Consider, "the sender's");
    here.tcp.namespaces[1].counters.zero_windows = Some(4);
    assert_eq!(of(&here).verdict, Verdict::NotNeeded);
    here.tcp.namespaces[1].counters.zero_windows = None;
    assert_eq!(of(&here).verdict, Verdict::CannotTell);
    // Another machine; a Service; an address that every namespace has.
    for peer in ["192.0.2.7", "10.96.0.1", "127.0.0.1"] {
        let elsewhere = of(&windows(peer));
        assert_eq!((elsewhere.verdict, elsewhere.changes.len()), (Verdict::CannotTell, 0), "{peer}");
        assert!(
            says(&elsewhere).1.starts_with(&format!("at the receiver ({peer}): ss -tmi")),
            "{elsewhere:?}"
        );
    }
    // An older snapshot does not say whose windows they were.
    let mut older = windows("10.0.0.2");
    older.tcp.peers[0].rwnd_limited_us = 0;
    assert_eq!(of(&older).verdict, Verdict::CannotTell);
    older.tcp.limited.rwnd_limited_us = 50_000;
    assert_eq!(of(&older).verdict, Verdict::NotNeeded);
}

#[test]
fn ports_that_are_not_known_cannot_be_told_and_failures_of_other_kinds_prove_nothing() {
    let of = |snapshot: &Snapshot| find(snapshot, "tcp.port-exhaustion");
    let at_once = |failures, failures_at_once| {
        let mut snapshot = crowded(100, 100);
        let peer = &mut snapshot.tcp.peers[0];
        (peer.failures, peer.failures_at_once) = (failures, failures_at_once);
        of(&snapshot).verdict
    };
    // Refused, timed out or given up: there was a port.
    assert_eq!(
        [at_once(5, 5), at_once(5, 0), at_once(5, 4), at_once(0, 0)],
        [Verdict::Apply, Verdict::Consider, Verdict::Consider, Verdict::Consider]
    );
    // Sockets in TIME_WAIT, of which it is not known whose.
    let mut without = quiet();
    assert_eq!(of(&without).verdict, Verdict::CannotTell);
    set(&mut without, "net.ipv4.ip_local_port_range", "40000\t40099");
    for waiting in ["10", "90"] {
        set(&mut without, TIME_WAIT, waiting);
        let finding = of(&without);
        assert_eq!((finding.verdict, finding.changes.len()), (Verdict::CannotTell, 0));
        assert!(says(&finding).1.starts_with("ss -tan, in pod"), "{finding:?}");
    }
    // Of one namespace they are free, of another they are not known.
    let mut free = crowded(20, 20);
    free.tcp.peers.clear();
    assert_eq!(of(&free).verdict, Verdict::NotNeeded);
    set_in(&mut free, "host", "net.ipv4.ip_local_port_range", None);
    let finding = of(&free);
    assert_eq!(finding.verdict, Verdict::CannotTell);
    assert!(finding.because.contains("of host "), "{}", finding.because);
    // At the end they are free, but connections failed as if they had not been.
    assert_eq!(of(&crowded(20, 20)).verdict, Verdict::CannotTell);
}

#[test]
fn settings_that_could_not_be_read_are_not_the_same() {
    let mut snapshot = quiet();
    set_in(&mut snapshot, "host", "net.core.somaxconn", Some("4096"));
    set_in(&mut snapshot, "pod", "net.core.somaxconn", Some("4096"));
    let of = |snapshot: &Snapshot| find(snapshot, "host.pod-sysctls");
    assert_eq!(of(&snapshot).verdict, Verdict::NotNeeded);
    set_in(&mut snapshot, "closed", "net.core.somaxconn", None);
    let finding = of(&snapshot);
    assert_eq!(
        (finding.verdict, finding.because.as_str()),
        (Verdict::CannotTell, "the settings of closed could not be read")
    );
    // What differs is said all the same, whichever comes first.
    snapshot.node.namespaces[1].values[0].value = Some("128".to_owned());
    snapshot.node.namespaces.rotate_right(1);
    let finding = of(&snapshot);
    assert_eq!(finding.verdict, Verdict::CannotTell);
    assert!(finding.evidence.iter().any(|e| e.value == "4096 in host, 128 in pod"), "{finding:?}");
}

/// What a setting may hold, if nobody vouches for it.
fn odd() -> impl Strategy<Value = String> {
    let fixed = [
        "",
        " ",
        "-1",
        "0",
        "1",
        "128",
        "65535",
        "2147483647",
        "2147483648",
        "4294967295",
        "18446744073709551615",
        "18446744073709551616",
        "a b",
        "40000\t40099",
        "5 1",
        "0 18446744073709551615",
        "\u{0}",
        "\u{1b}[31m",
        "'; reboot #",
    ];
    prop_oneof![
        4 => prop::sample::select(fixed.to_vec()).prop_map(str::to_owned),
        2 => any::<u64>().prop_map(|n| n.to_string()),
        2 => "[0-9 \t.-]{0,40}",
        1 => any::<String>(),
        1 => Just("9".repeat(5000)),
    ]
}

/// What a count may hold.
fn any_count() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(1), Just(u64::MAX), any::<u64>()]
}

/// Everything that these rules look at happened, so that none is done before it has read its settings.
fn trouble(counts: &[u64], small: &[u32]) -> Snapshot {
    let count = |n: usize| counts[n % counts.len()];
    let few = |n: usize| small[n % small.len()];
    let limit = Some(few(1)).filter(|n| n % 3 > 0);
    let mut snapshot = overflowed(count(0), vec![listener(80, few(0), limit, Some(few(2)))]);
    let crowd = crowded(few(3), few(4));
    snapshot.node.namespaces[0].sockets.ports = crowd.node.namespaces[0].sockets.ports.clone();
    snapshot.node.namespaces[1].sockets.send_buffers_at_limit = Some(few(5));
    let windows = windows("10.0.0.2");
    snapshot.tcp.peers = [crowd.tcp.peers, windows.tcp.peers].concat();
    snapshot.tcp.peers[0].failures_at_once = count(1);
    snapshot.tcp.peers[1].rwnd_limited_us = count(2);
    snapshot.tcp.limited = TcpLimited {
        connections: 1,
        busy_us: count(3),
        rwnd_limited_us: count(4),
        sndbuf_limited_us: count(5),
        ..TcpLimited::default()
    };
    snapshot.node.namespaces.extend(windows.node.namespaces);
    snapshot.tcp.namespaces.extend(windows.tcp.namespaces);
    for namespace in &mut snapshot.tcp.namespaces {
        namespace.counters.syn_queue_drops = Some(count(6));
        namespace.counters.fast_open_asked = Some(count(7));
    }
    snapshot.tcp.counters.fast_open_asked = Some(count(7));
    let odd = |n| Some(count(n)).filter(|n| n % 5 > 0);
    snapshot.conntrack = ["pod", "host"].map(|netns| table(netns, count(8), count(9), count(10))).to_vec();
    (snapshot.conntrack[0].max, snapshot.conntrack[1].max) = (odd(11), odd(12));
    snapshot.conntrack[0].entries = odd(13);
    snapshot.conntrack_trouble.table_full = count(14);
    snapshot
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Nothing panics, no more is set than an int holds, and what cannot be told says what to run.
    #[test]
    fn whatever_settings_and_counts_hold_is_survived(
        values in prop::collection::vec(odd(), SYSCTLS.len() + 1),
        counts in prop::collection::vec(any_count(), 15),
        small in prop::collection::vec(prop_oneof![0..200_u32, Just(u32::MAX), any::<u32>()], 6),
        profile in prop::sample::select(vec![Profile::Latency, Profile::Throughput, Profile::Balanced]),
    ) {
        let mut snapshot = trouble(&counts, &small);
        let settings = || SYSCTLS.iter().chain([&TIME_WAIT]).zip(&values);
        for namespace in &mut snapshot.node.namespaces {
            namespace.values = settings()
                .map(|(name, value)| Setting {
                    name: (*name).to_owned(),
                    value: Some(value.clone()),
                    from: "a file".to_owned(),
                    error: None,
                })
                .collect();
        }
        snapshot.node.host = snapshot.node.namespaces[0].values.clone();
        let ours = ["conntrack.", "tcp.", "host."];
        let findings = advise(&snapshot, profile).into_iter();
        for finding in findings.filter(|f| ours.iter().any(|family| f.id.starts_with(family))) {
            prop_assert_eq!(finding.verdict == Verdict::CannotTell, finding.to_tell.is_some());
            prop_assert!(finding.verdict != Verdict::Apply || !finding.changes.is_empty(), "{:?}", finding);
            for change in &finding.changes {
                let Some((_, value)) = change.apply.strip_prefix("sysctl -w ").and_then(|s| s.split_once('='))
                else { continue };
                let last = value.trim_matches('\'').split_whitespace().last().and_then(|n| n.parse::<i32>().ok());
                prop_assert!(last.is_some_and(|n| n >= 0), "{}: {}", finding.id, change.apply);
            }
        }
    }
}
