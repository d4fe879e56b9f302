//! Causes that look the same: what tells them apart, and that nothing is advised where nothing does.

use super::{find, proofs::changes, quiet, set, verdict};
use crate::{
    node::{Setting, Settings},
    probes::FULL_TABLES,
    recommend::{Confidence, Finding, Verdict},
    snapshot::{ConntrackCounts, ConntrackTable, Snapshot},
};

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
