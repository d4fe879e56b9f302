//! What is measured tells the cause: backlogs that are not timed, queues that drop, and who races.

use super::{cluster::with_signal_of, find, quiet, verdict};
use crate::{
    node::{CpuReceive, Machine, NodeLink, Settings},
    recommend::{Confidence, Finding, Verdict},
    snapshot::{ConntrackFlow, Drop, DropFlow, Snapshot},
};
use nettrace_common::Signal;

fn dropped(reason: &str, location: &str, scope: &str, count: u64) -> Drop {
    Drop { reason: reason.to_owned(), location: location.to_owned(), scope: scope.to_owned(), count }
}

fn flow(flow: &str, reason: &str, count: u64) -> DropFlow {
    DropFlow { flow: flow.to_owned(), reason: reason.to_owned(), count }
}

/// Softirqs that run at once, before a backlog that dropped 50 packets; what each CPU handled and dropped.
fn backlog(cpus: &[(u64, u64)]) -> Snapshot {
    let mut snapshot = with_signal_of(quiet(), Signal::RxSoftirq, "all", 9_000, 1000);
    snapshot.drops = vec![dropped("CPU_BACKLOG", "enqueue_to_backlog+0x1", "pod/eth0", 50)];
    // Softirqs also run where packets are handed over: their number does not tell who handles them.
    let cpu = |(cpu, &(packets, dropped))| CpuReceive { cpu, net_rx: 500, packets, dropped, squeezed: 0 };
    let received: Vec<_> = (0..).zip(cpus).map(cpu).collect();
    snapshot.node.machine = Some(Machine { receive: received.clone(), received, ..Machine::default() });
    snapshot
}

#[test]
fn packets_that_a_full_backlog_dropped_are_not_handled_in_time() {
    let one = backlog(&[(9_300, 50), (700, 0)]);
    let softirq = find(&one, "nic.softirq");
    assert_eq!(softirq.verdict, Verdict::CannotTell);
    assert!(softirq.to_tell.unwrap().contains("mpstat"));
    let rps = find(&one, "nic.rps");
    assert_eq!((rps.verdict, rps.confidence, rps.changes.len()), (Verdict::Consider, Confidence::Low, 1));
    assert_eq!(rps.evidence[0].value, "93.0 %");
    // Spread, dropped by another one, too few, and not known.
    for cpus in [&[(5_000, 50), (5_000, 0)][..], &[(9_300, 0), (700, 50)], &[(90, 50), (0, 0)], &[]] {
        let finding = find(&backlog(cpus), "nic.rps");
        assert_eq!((finding.verdict, finding.changes.len()), (Verdict::CannotTell, 0), "{cpus:?}");
        assert!(finding.to_tell.unwrap().contains("mpstat"), "{cpus:?}");
    }
    assert_eq!(verdict(&backlog(&[(9_300, 50)]), "nic.rps"), Verdict::NotNeeded, "one CPU");
    assert_eq!(verdict(&backlog(&[(u64::MAX, u64::MAX), (u64::MAX, 0)]), "nic.rps"), Verdict::CannotTell);
    let mut none = one;
    none.drops.clear();
    for id in ["nic.softirq", "nic.rps"] {
        assert_eq!(verdict(&none, id), Verdict::NotNeeded, "{id}: drops of places that were not measured");
    }
    none.probes.iter_mut().find(|p| p.name == "drop").unwrap().source = None;
    assert_eq!(verdict(&none, "nic.softirq"), Verdict::CannotTell, "the machine's own count");
    assert_eq!(verdict(&none, "nic.rps"), Verdict::Consider, "the machine's own count");
}

#[test]
fn one_flow_is_not_spread_over_cpus() {
    let mut snapshot = backlog(&[(9_300, 50), (700, 0)]);
    let of = |n: u16| format!("10.0.0.1:{n} -> 10.0.0.2:7400 udp");
    snapshot.drop_flows = vec![flow(&of(1), "CPU_BACKLOG", 40), flow(&of(2), "CPU_BACKLOG", 10)];
    assert_eq!(verdict(&snapshot, "nic.rps"), Verdict::CannotTell);
    snapshot.drop_flows = vec![flow(&of(1), "CPU_BACKLOG", 25), flow(&of(2), "CPU_BACKLOG", 25)];
    assert_eq!(verdict(&snapshot, "nic.rps"), Verdict::Consider);
}

/// Of 100,000 segments 2,000 were sent again, and `pod/eth0`, which has these queues, dropped some.
fn sent_again(root: &str, leaves: &[&str], drops: &[Drop], flows: &[DropFlow]) -> Finding {
    let mut snapshot = quiet();
    snapshot.tcp.retransmits = 2_000;
    snapshot.drops = drops.to_vec();
    snapshot.drop_flows = flows.to_vec();
    let leaves = leaves.iter().map(|&kind| kind.to_owned()).collect();
    let link = NodeLink {
        name: "eth0".to_owned(),
        qdisc: root.to_owned(),
        leaves: Some(leaves),
        ..NodeLink::default()
    };
    let settings = Settings { netns: "pod".to_owned(), links: vec![link], ..Settings::default() };
    snapshot.node.namespaces.push(settings);
    find(&snapshot, "tcp.loss")
}

#[test]
fn segments_that_a_queue_of_this_machine_dropped_are_not_lost_on_their_way() {
    let segment = "10.0.0.1:40000 -> 10.0.0.2:80 tcp";
    for (reason, location) in [
        ("QDISC_DROP", "__dev_queue_xmit+0x2"),
        ("QDISC_CONGESTED", "drop_func+0x1"),
        ("NOT_SPECIFIED", "__fq_codel_dequeue+0x1"),
    ] {
        let of = |root, leaves: &[&str], count| {
            sent_again(
                root,
                leaves,
                &[dropped(reason, location, "pod/eth0", count)],
                &[flow(segment, reason, count)],
            )
        };
        let fair = of("tbf", &["fq_codel"], 1_500);
        assert_eq!((fair.verdict, fair.changes.len()), (Verdict::NotNeeded, 0), "{reason}");
        assert!(fair.because.contains("net.ipv4.tcp_ecn=1"), "{}", fair.because);
        let short = of("tbf", &["bfifo"], 1_500);
        assert_eq!(short.verdict, Verdict::CannotTell);
        assert!(short.to_tell.unwrap().starts_with("tc -s qdisc show dev eth0, in pod"));
        // It stands for a path; and a few are not why so many are sent again.
        assert_eq!(of("netem", &["netem"], 2_000).verdict, Verdict::Consider);
        assert_eq!(of("tbf", &["netem"], 2_000).verdict, Verdict::Consider);
        assert_eq!(of("tbf", &["fq_codel"], 900).verdict, Verdict::Consider);
    }
}

#[test]
fn drops_of_others_do_not_say_why_segments_are_sent_again() {
    let segment = "10.0.0.1:40000 -> 10.0.0.2:80 tcp";
    let datagram = "10.0.0.1:40000 -> 10.0.0.2:7400 udp";
    let queue = |scope| [dropped("QDISC_DROP", "__dev_queue_xmit+0x2", scope, 5_000)];
    let of = |scope, flows: &[DropFlow]| sent_again("fq_codel", &["fq_codel"], &queue(scope), flows);
    assert_eq!(of("pod/eth0", &[flow(datagram, "QDISC_DROP", 5_000)]).verdict, Verdict::Consider);
    let firewall = dropped("NETFILTER_DROP", "nft_do_chain+0x2", "pod/eth0", 5_000);
    let flows = [flow(segment, "NETFILTER_DROP", 5_000)];
    assert_eq!(sent_again("fq_codel", &["fq_codel"], &[firewall], &flows).verdict, Verdict::Consider);
    // Neither whose they are nor what the queue is can be guessed.
    assert_eq!(of("pod/eth0", &[]).verdict, Verdict::CannotTell);
    assert_eq!(of("other", &[flow(segment, "QDISC_DROP", 5_000)]).verdict, Verdict::CannotTell);
    // Of two queues it is the one of which it is not known that speaks.
    let [a, b] = [dropped("QDISC_DROP", "", "pod/eth0", 900), dropped("QDISC_DROP", "", "b", 800)];
    let flows = [flow(segment, "QDISC_DROP", 1_700)];
    assert_eq!(sent_again("fq_codel", &["fq_codel"], &[a, b], &flows).verdict, Verdict::CannotTell);
    let most = [dropped("QDISC_DROP", "", "pod/eth0", u64::MAX), dropped("QDISC_DROP", "", "b", u64::MAX)];
    let flows = [flow(segment, "QDISC_DROP", u64::MAX), flow(datagram, "QDISC_DROP", u64::MAX)];
    assert_eq!(sent_again("fq_codel", &["fq_codel"], &most, &flows).verdict, Verdict::NotNeeded);
}

#[test]
fn queries_of_clients_behind_one_address_race_until_their_ports_are_random() {
    let mut snapshot = quiet();
    snapshot.conntrack_trouble.clashes_dropped = 3;
    snapshot.conntrack_flows = vec![ConntrackFlow {
        flow: "10.99.0.1:40000 -> 10.0.0.2:53 udp".to_owned(),
        what: "clash dropped".to_owned(),
        count: 3,
    }];
    let finding = find(&snapshot, "conntrack.race");
    assert_eq!(finding.verdict, Verdict::Apply);
    assert!(finding.because.contains("behind one address"), "{}", finding.because);
    let cures = ["--random-fully", "NodeLocal DNSCache", "single-request-reopen"];
    assert_eq!(finding.changes.len(), cures.len());
    for (change, cure) in finding.changes.iter().zip(cures) {
        assert!(change.apply.contains(cure), "{change:?}");
    }
    assert!(finding.changes[2].apply.contains("only where queries of one socket clash"));
}
