mod causes;
mod cluster;
mod measured;
mod paths;
mod proofs;
mod qualified;

use super::*;
use crate::{
    node::{NodeLink, Setting, Settings},
    snapshot::{
        BlackHole, ConntrackCounts, ConntrackTable, Count, DnsName, Drop, TcpCounters, TcpLimited, sample,
    },
};

/// A snapshot in which every probe ran and nothing happened but a few round trips.
fn quiet() -> Snapshot {
    let mut snapshot = sample::empty();
    snapshot.probes = crate::probes::PROBES
        .iter()
        .map(|probe| Probe {
            name: probe.name.to_owned(),
            source: Some("test".to_owned()),
            yields: Vec::new(),
            reason: None,
        })
        .collect();
    snapshot.signals = sample::rich().signals.into_iter().filter(|row| row.signal == "net.rtt").collect();
    snapshot.tcp.listen_overflows = Some(0);
    snapshot.tcp.segments_sent = Some(100_000);
    snapshot.tcp.counters = TcpCounters {
        syn_queue_drops: Some(0),
        syn_cookies: Some(0),
        zero_windows: Some(0),
        ..TcpCounters::default()
    };
    snapshot
}

fn set(snapshot: &mut Snapshot, name: &str, value: &str) {
    let setting = Setting {
        name: name.to_owned(),
        value: Some(value.to_owned()),
        from: "a file".to_owned(),
        error: None,
    };
    if snapshot.node.namespaces.is_empty() {
        snapshot.node.namespaces.push(Settings { netns: "pod".to_owned(), ..Settings::default() });
    }
    snapshot.node.namespaces[0].values.push(setting);
}

fn find(snapshot: &Snapshot, id: &str) -> Finding {
    advise(snapshot, Profile::Balanced).into_iter().find(|f| f.id == id).unwrap()
}

fn verdict(snapshot: &Snapshot, id: &str) -> Verdict {
    find(snapshot, id).verdict
}

/// Rules of which the verdict is apply or consider.
fn urgent(snapshot: &Snapshot) -> Vec<String> {
    let findings = advise(snapshot, Profile::Balanced).into_iter();
    findings.filter(|f| f.verdict <= Verdict::Consider).map(|f| f.id).collect()
}

#[test]
fn rules_have_names_of_their_own_and_know_their_probes() {
    let rules: Vec<_> = RULES.iter().copied().flatten().collect();
    for (n, rule) in rules.iter().enumerate() {
        assert!(rules[n + 1..].iter().all(|other| other.id != rule.id), "{}", rule.id);
        for probe in rule.needs {
            assert!(crate::probes::PROBES.iter().any(|p| p.name == *probe), "{} needs {probe}", rule.id);
        }
    }
}

#[test]
fn of_nothing_nothing_is_advised() {
    assert_eq!(urgent(&quiet()), Vec::<String>::new());
    // Nor of a snapshot of which not even the probes are known.
    let findings = advise(&sample::empty(), Profile::Latency);
    for finding in &findings {
        let needs = RULES.iter().copied().flatten().find(|r| r.id == finding.id).unwrap().needs;
        assert!(needs.is_empty() || finding.verdict == Verdict::CannotTell, "{}", finding.id);
        assert!(finding.verdict > Verdict::Consider, "{}", finding.id);
        assert_eq!(finding.verdict == Verdict::CannotTell, finding.to_tell.is_some(), "{}", finding.id);
    }
}

#[test]
fn a_probe_that_was_off_is_named() {
    let mut snapshot = quiet();
    let row = snapshot.probes.iter_mut().find(|p| p.name == "ip.black_hole").unwrap();
    (row.source, row.reason) = (None, Some("refused".to_owned()));
    let finding = find(&snapshot, "mtu.black-hole");
    assert_eq!(
        (finding.verdict, finding.because.as_str()),
        (Verdict::CannotTell, "ip.black_hole was off: refused")
    );
    snapshot.probes.iter_mut().find(|p| p.name == "ip.black_hole").unwrap().reason =
        Some(Probe::NOT_SELECTED.to_owned());
    let to_tell = find(&snapshot, "mtu.black-hole").to_tell;
    assert_eq!(to_tell.as_deref(), Some("nettrace run --signals ip.black_hole"));
}

#[test]
fn of_what_was_not_seen_nothing_is_said() {
    let mut snapshot = quiet();
    snapshot.signals.clear();
    snapshot.tcp.segments_sent = Some(0);
    for rule in RULES.iter().copied().flatten().filter(|rule| !rule.needs.is_empty()) {
        assert_eq!(verdict(&snapshot, rule.id), Verdict::CannotTell, "{}", rule.id);
    }
    assert_eq!(find(&snapshot, "tcp.accept-queue").because, "there was no traffic");
    // What was counted is said, whether its packets were seen or not.
    snapshot.tcp.listen_overflows = Some(7);
    assert_eq!(verdict(&snapshot, "tcp.accept-queue"), Verdict::Consider);
    // What was seen of some traffic is said of that alone.
    let mut snapshot = quiet();
    snapshot.meta.filter = Some("udp".to_owned());
    let finding = find(&snapshot, "tcp.accept-queue");
    let because = "no accept queue was full, in the traffic of the filter `udp`";
    assert_eq!((finding.verdict, finding.because.as_str()), (Verdict::NotNeeded, because));
    assert_eq!(finding.confidence, Confidence::Low);
}

#[test]
fn a_full_table_is_told_from_a_lost_race_and_from_a_false_alarm() {
    let table = |counts| ConntrackTable {
        netns: "host".to_owned(),
        entries: Some(10),
        max: Some(100),
        buckets: Some(64),
        cpus: vec![counts],
    };
    let mut snapshot = quiet();
    let none = ConntrackCounts::default();
    let dropped = ConntrackCounts { drop: Some(3), insert_failed: Some(0), early_drop: Some(1), ..none };
    snapshot.conntrack = vec![table(dropped)];
    set(&mut snapshot, "net.netfilter.nf_conntrack_buckets", "64");
    let finding = find(&snapshot, "conntrack.max");
    assert_eq!(finding.verdict, Verdict::Apply);
    let changes: Vec<_> = finding.changes.iter().map(|c| (c.apply.as_str(), c.undo.as_str())).collect();
    assert_eq!(
        changes,
        [
            ("sysctl -w net.netfilter.nf_conntrack_max=200", "sysctl -w net.netfilter.nf_conntrack_max=100"),
            (
                "sysctl -w net.netfilter.nf_conntrack_buckets=200",
                "sysctl -w net.netfilter.nf_conntrack_buckets=64"
            ),
        ]
    );
    // What races lose is no want of room; what they resolve is no loss.
    snapshot.conntrack = vec![table(ConntrackCounts { drop: Some(3), insert_failed: Some(3), ..none })];
    assert_eq!(verdict(&snapshot, "conntrack.max"), Verdict::NotNeeded);
    snapshot.conntrack_trouble.clashes_resolved = 7;
    assert_eq!(verdict(&snapshot, "conntrack.race"), Verdict::NotNeeded);
    snapshot.conntrack_trouble.clashes_dropped = 3;
    assert_eq!(verdict(&snapshot, "conntrack.race"), Verdict::Consider);
    snapshot.conntrack[0].entries = Some(95);
    assert_eq!(verdict(&snapshot, "conntrack.max"), Verdict::Consider);
}

#[test]
fn a_receiver_that_is_gone_is_no_black_hole() {
    let mut snapshot = quiet();
    let hole = BlackHole {
        peer: "10.0.0.2".parse().unwrap(),
        flow: "10.0.0.1:1 -> 10.0.0.2:2 tcp".to_owned(),
        flows: 1,
        lost_bytes: 1500,
        passes_bytes: Some(1052),
        again: 6,
        messages: 0,
        alive: true,
    };
    set(&mut snapshot, "net.ipv4.tcp_mtu_probing", "0");
    snapshot.ip.black_holes = vec![hole.clone()];
    let finding = find(&snapshot, "mtu.black-hole");
    assert_eq!((finding.verdict, finding.changes.len()), (Verdict::Apply, 2));
    snapshot.ip.black_holes = vec![BlackHole { alive: false, ..hole }];
    assert_eq!(verdict(&snapshot, "mtu.black-hole"), Verdict::CannotTell);
}

#[test]
fn slow_readers_are_not_the_networks() {
    let mut snapshot = quiet();
    snapshot.tcp.limited =
        TcpLimited { connections: 1, busy_us: 1_000_000, rwnd_limited_us: 500_000, ..TcpLimited::default() };
    snapshot.tcp.counters.zero_windows = Some(4);
    assert!(verdict(&snapshot, "tcp.receive-buffer") > Verdict::Consider);
    assert_eq!(verdict(&snapshot, "tcp.send-buffer"), Verdict::NotNeeded);
    snapshot.tcp.limited.sndbuf_limited_us = 200_000;
    assert_eq!(verdict(&snapshot, "tcp.send-buffer"), Verdict::Consider);
}

#[test]
fn names_tried_with_search_domains_are_told_from_names_that_do_not_exist() {
    let name = |name: &str, rcode: &str, n: u64| DnsName {
        name: name.to_owned(),
        qtype: "A".to_owned(),
        transactions: n,
        timeouts: 0,
        rcodes: vec![Count { name: rcode.to_owned(), count: n }],
        mean_ns: 1000,
        max_ns: 1000,
    };
    let mut snapshot = quiet();
    snapshot.dns.transactions = 100;
    snapshot.dns.answered = 100;
    snapshot.dns.names = vec![
        name("example.com", "NOERROR", 25),
        name("example.com.default.svc.cluster.local", "NXDOMAIN", 25),
        name("example.com.svc.cluster.local", "NXDOMAIN", 25),
        name("example.com.cluster.local", "NXDOMAIN", 25),
    ];
    let finding = find(&snapshot, "dns.search");
    assert_eq!(finding.verdict, Verdict::Apply);
    assert_eq!(finding.evidence[0].value, "75 of 100 (75.0 %)");
    assert_eq!(verdict(&snapshot, "dns.nxdomain"), Verdict::NotNeeded);
    snapshot.dns.names = vec![name("gone.test", "NXDOMAIN", 90), name("example.com", "NOERROR", 10)];
    assert_eq!(verdict(&snapshot, "dns.search"), Verdict::NotNeeded);
    assert_eq!(verdict(&snapshot, "dns.nxdomain"), Verdict::Consider);
}

#[test]
fn interfaces_that_do_not_fit_are_found_and_others_not() {
    let link = |name: &str, ifindex, peer, master, mtu_bytes| NodeLink {
        name: name.to_owned(),
        ifindex,
        kind: Some("veth".to_owned()),
        up: true,
        mtu_bytes,
        qdisc: "noqueue".to_owned(),
        tx_queues: 1,
        peer_ifindex: peer,
        master_ifindex: master,
        ..NodeLink::default()
    };
    let node = |host: [u32; 2], pod: u32| {
        let mut snapshot = quiet();
        let bridge = NodeLink { kind: Some("bridge".to_owned()), ..link("br", 1, None, None, 1500) };
        let (one, two) =
            (link("veth-a", 5, Some(2), Some(1), host[0]), link("veth-b", 6, Some(9), Some(1), host[1]));
        let namespace =
            |netns: &str, links| Settings { netns: netns.to_owned(), links, ..Settings::default() };
        let eth0 = link("eth0", 2, Some(5), None, pod);
        snapshot.node.namespaces =
            vec![namespace("host", vec![bridge, one, two]), namespace("pod", vec![eth0])];
        snapshot
    };
    assert_eq!(verdict(&node([1500, 1500], 1500), "mtu.mismatch"), Verdict::NotNeeded);
    let ends = find(&node([1300, 1300], 1500), "mtu.mismatch");
    assert_eq!(
        (ends.verdict, ends.because.as_str()),
        (
            Verdict::Consider,
            "host/veth-a takes 1300 B, and pod/eth0 up to 1500 B: what is longer is lost between them, and nobody says so"
        )
    );
    assert_eq!(ends.changes[0].apply, "ip link set dev eth0 mtu 1300");
    let ports = find(&node([1500, 1300], 1500), "mtu.mismatch");
    let counts: Vec<_> = ports.evidence.iter().map(|e| e.value.as_str()).collect();
    assert_eq!((ports.verdict, counts), (Verdict::Consider, vec!["0", "1", "0"]));
    let mut hostile = node([1300, 1500], 1500);
    hostile.node.namespaces[1].links[0].name = "$(id)".to_owned();
    assert_eq!(find(&hostile, "mtu.mismatch").changes[0].apply, "ip link set dev '$(id)' mtu 1300");
    assert_eq!(verdict(&quiet(), "mtu.mismatch"), Verdict::CannotTell);
}

#[test]
fn any_value_of_a_setting_is_survived() {
    let values =
        ["", "-1", "99999999999999999999999", "a b c", "0", "40000", "5\t1", "\u{0}", "18446744073709551615"];
    for value in values {
        let mut snapshot = sample::rich();
        snapshot.probes = quiet().probes;
        snapshot.tcp.listen_overflows = Some(u64::MAX);
        snapshot.drops = vec![Drop { reason: "CPU_BACKLOG".to_owned(), ..snapshot.drops[0].clone() }];
        for name in crate::node::SYSCTLS.iter().chain(&[crate::node::TIME_WAIT]) {
            set(&mut snapshot, name, value);
        }
        let host = snapshot.node.namespaces[0].values.clone();
        snapshot.node.host = host;
        for finding in advise(&snapshot, Profile::Throughput) {
            assert!(explain(&finding, &crate::report::Options::default()).contains(&finding.id));
        }
    }
    for finding in advise(&sample::hostile(), Profile::Balanced) {
        let text = explain(&finding, &crate::report::Options::default());
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text}");
    }
}

#[test]
fn what_cannot_be_read_cannot_be_told() {
    let findings = unknown("too new");
    assert!(findings.iter().all(|f| f.verdict == Verdict::CannotTell && f.because == "too new"));
}

#[test]
fn findings_are_written_so() {
    let mut snapshot = quiet();
    snapshot.tcp.listen_overflows = Some(7);
    set(&mut snapshot, "net.core.somaxconn", "128");
    let findings = advise(&snapshot, Profile::Balanced);
    let options = crate::report::Options::default();
    insta::assert_snapshot!("one_finding", text(&findings, false, &options));
    insta::assert_snapshot!("all_findings", text(&findings, true, &options));
    let finding = findings.iter().find(|f| f.id == "tcp.accept-queue").unwrap();
    insta::assert_snapshot!("markdown", markdown("node-1", &findings, false));
    insta::assert_snapshot!("explained", explain(finding, &options));
}

fn text(findings: &[Finding], all: bool, options: &crate::report::Options) -> String {
    text::render("node-1", findings, all, options)
}

/// Regenerate with `NETTRACE_UPDATE_SCHEMA=1 cargo test -p nettrace recommend`.
#[test]
fn published_pages_are_current() {
    for (name, text) in [("advice.schema.json", schema_json()), ("rules.md", rules_page())] {
        let path = format!("{}/../docs/{name}", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("NETTRACE_UPDATE_SCHEMA").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        assert!(
            std::fs::read_to_string(&path).unwrap() == text,
            "docs/{name} is out of date: NETTRACE_UPDATE_SCHEMA=1 cargo test -p nettrace recommend"
        );
    }
}
