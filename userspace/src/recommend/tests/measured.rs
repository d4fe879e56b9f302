//! What is measured tells the cause: backlogs that are not timed, queues that drop, and who races.

use super::{cluster::with_signal_of, find, quiet, verdict};
use crate::{
    node::{CpuReceive, Machine},
    recommend::{Confidence, Verdict},
    snapshot::{Drop, DropFlow, Snapshot},
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
