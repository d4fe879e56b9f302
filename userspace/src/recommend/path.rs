//! A packet's way through this machine: queues of interfaces, softirqs, the backlog.

use super::{Change, Confidence, Judgement, Risk, Rule, Seen, by_hand, quoted, sysctl, total};
use crate::{report::units, snapshot::SignalData};
use nettrace_common::Signal;

const BACKLOG: &str = "net.core.netdev_max_backlog";
/// Fewer packets tell little of the hundredth.
pub(super) const ENOUGH: u64 = 100;
/// The same, of one in twenty.
pub(super) const ENOUGH_QUEUED: u64 = 20;
/// Share of all receive softirqs, from which on one CPU has nearly all.
const NEARLY_ALL: f64 = 0.9;
/// Share of a CPU's receive softirqs that left packets over, from which on it has too much to do.
const SQUEEZED_SHARE: f64 = 0.001;
/// Drop reason of a full backlog (include/net/dropreason-core.h).
const BACKLOG_REASON: &str = "CPU_BACKLOG";

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "qdisc.queue",
        advice: "give cluster traffic priority with tc",
        looks_at: "The time in an interface's queue of one packet in twenty: 5 ms (latency profile: 1 ms, throughput profile: \
                   20 ms).",
        risk: Risk::Medium,
        when_not: "The link is not saturated: then nothing waits. A priority qdisc at the root of a NIC with many queues makes \
                   one queue of them.",
        source: "https://www.rfc-editor.org/rfc/rfc8290",
        needs: &[Signal::TxQdisc.name()],
        judge: queue,
    },
    Rule {
        id: "nic.softirq",
        advice: "spread receive work over CPUs (RSS, RPS, IRQ affinity), more NIC queues, 10 GbE",
        looks_at: "The wait of the receive softirq, one in a hundred: below 2 ms (latency profile: 1 ms, throughput profile: \
                   5 ms) it is not needed. Above, applications that keep CPUs busy look the same, so that it cannot be told.",
        risk: Risk::Low,
        when_not: "CPUs are busy with applications: more of them for the network take from those.",
        source: "https://docs.kernel.org/networking/scaling.html",
        needs: &[Signal::RxSoftirq.name()],
        judge: softirq,
    },
    Rule {
        id: "nic.rps",
        advice: "switch RPS on",
        looks_at: "Whether one of several CPUs ran 90 % of the receive softirqs since the start and left packets over in one \
                   of 1,000, while the softirq waits (as nic.softirq).",
        risk: Risk::Low,
        when_not: "The NIC has queues enough for all CPUs (RSS): its hardware spreads packets for nothing.",
        source: "https://docs.kernel.org/networking/scaling.html",
        needs: &[Signal::RxSoftirq.name()],
        judge: rps,
    },
    Rule {
        id: "nic.backlog",
        advice: "raise net.core.netdev_max_backlog",
        looks_at: "Packets dropped because a CPU's backlog was full: one.",
        risk: Risk::Low,
        when_not: "The CPU is overloaded all the time: more backlog is more delay.",
        source: "https://docs.kernel.org/admin-guide/sysctl/net.html",
        needs: &["drop"],
        judge: backlog,
    },
];

/// The scope of a signal in which a quantile is longest, of those with enough packets.
pub(super) fn slowest<'a>(
    seen: &Seen<'a>,
    signal: Signal,
    quantile: f64,
    enough: u64,
) -> Option<(&'a SignalData, u64)> {
    let rows = seen.snapshot.signals.iter();
    let of_it = rows.filter(|row| row.signal == signal.name() && row.hist.count() >= enough);
    of_it
        .map(|row| (row, row.hist.quantile_ns(quantile)))
        .max_by_key(|(row, ns)| (!matches!(row.scope.as_str(), "all" | "other"), *ns))
}

pub(super) fn too_few(signal: Signal) -> Judgement {
    Judgement::cannot_tell(
        format!("{} counted fewer than {ENOUGH} packets", signal.name()),
        format!("nettrace run -d 1m --signals {}", signal.name()),
    )
}

fn queue(seen: &Seen<'_>) -> Judgement {
    let Some((row, ns)) = slowest(seen, Signal::TxQdisc, 0.95, ENOUGH_QUEUED) else {
        return if seen.snapshot.signal(Signal::TxDriver).is_some_and(|row| row.hist.count() >= ENOUGH) {
            Judgement::not_needed("packets are handed to drivers at once")
        } else {
            too_few(Signal::TxQdisc)
        };
    };
    let kind = seen.node.link(&row.scope).map(|link| link.qdisc.as_str());
    let judgement = if ns < seen.limits.queue_ns {
        Judgement::not_needed("packets do not wait in queues of interfaces")
    } else if kind == Some("netem") {
        Judgement::not_needed("packets wait in netem, which delays them because it is told to")
    } else if let Some(kind @ ("fq" | "fq_codel" | "cake")) = kind {
        Judgement::not_needed(format!(
            "packets wait in {kind}, which shares fairly, and may hold them back for pacing"
        ))
        .sure(Confidence::Medium)
    } else {
        let waits = format!("packets wait in the queue of {}", row.scope);
        let brings = format!(
            "up to {} less for packets of other flows than the one that fills the queue",
            units::duration(ns)
        );
        let judgement = match kind {
            Some("pfifo_fast" | "pfifo" | "bfifo") => Judgement::apply(waits),
            _ => Judgement::consider(waits),
        };
        judgement.sure(Confidence::Medium).brings(brings).change(fair_queue(&row.scope, kind))
    };
    judgement.seen(
        &format!("time in the queue of {}, p95", row.scope),
        units::duration(ns),
        Some(units::duration(seen.limits.queue_ns)),
    )
}

/// Fair queues that keep themselves short, in place of one that does not; a shaper has to stay, and they go below it.
fn fair_queue(scope: &str, kind: Option<&str>) -> Change {
    let (netns, name) = scope.rsplit_once('/').unwrap_or(("host", scope));
    let name = quoted(name);
    let (apply, undo) = match kind {
        Some(kind @ ("pfifo_fast" | "pfifo" | "bfifo")) => (
            format!("tc qdisc replace dev {name} root fq_codel"),
            format!("tc qdisc replace dev {name} root {kind}"),
        ),
        Some("mq") => (
            format!(
                "fq_codel below each class of mq at {name}; net.core.default_qdisc=fq_codel for new ones"
            ),
            "the qdisc that each class had".to_owned(),
        ),
        Some(kind) => (
            format!("fq_codel below {} at {name}, which stays", quoted(kind)),
            format!("without it; `tc qdisc show dev {name}` tells what is there now"),
        ),
        None => ("see with `tc -s qdisc` which queue is long".to_owned(), "as before".to_owned()),
    };
    Change { scope: netns.to_owned(), apply, undo, setting: None, owner: None }
}

fn softirq(seen: &Seen<'_>) -> Judgement {
    let Some((row, ns)) = slowest(seen, Signal::RxSoftirq, 0.99, ENOUGH) else {
        return too_few(Signal::RxSoftirq);
    };
    let judgement = if ns >= seen.limits.softirq_ns {
        Judgement::cannot_tell(
            "receive softirqs wait long before they run; whether for other packets or for applications was not measured",
            "mpstat -P ALL 1: one CPU with much %soft while others idle calls for it, much %usr on all does not",
        )
        .sure(Confidence::Low)
    } else {
        Judgement::not_needed("receive softirqs run soon after they are raised")
    };
    judgement
        .seen(
            "wait of the receive softirq, p99",
            units::duration(ns),
            Some(units::duration(seen.limits.softirq_ns)),
        )
        .with("p50", units::duration(row.hist.quantile_ns(0.5)))
}

/// Counts since the start alone prove nothing of the time that was measured, nor does a wait tell who causes it.
fn rps(seen: &Seen<'_>) -> Judgement {
    let Some(machine) = &seen.node.machine else {
        return Judgement::cannot_tell("which CPUs receive is not in the measurement", "cat /proc/softirqs");
    };
    let Some((cpu, share)) = machine.busiest_receiver() else {
        return match machine.receive.len() {
            1 => Judgement::not_needed("there is one CPU"),
            _ => Judgement::cannot_tell("which CPUs receive could not be read", "cat /proc/softirqs"),
        };
    };
    let Some((_, ns)) = slowest(seen, Signal::RxSoftirq, 0.99, ENOUGH) else {
        return too_few(Signal::RxSoftirq);
    };
    let squeezed = cpu.squeezed as f64 / cpu.net_rx.max(1) as f64;
    let judgement = if ns < seen.limits.softirq_ns {
        Judgement::not_needed("receive softirqs run soon after they are raised")
    } else if share < NEARLY_ALL {
        Judgement::not_needed("receive softirqs run on several CPUs")
    } else if squeezed < SQUEEZED_SHARE {
        Judgement::not_needed("one CPU receives nearly all, and is done with it each time")
            .sure(Confidence::Medium)
    } else {
        Judgement::consider(
            "one CPU receives nearly all, is not done with it each time, and packets wait for it",
        )
        .sure(Confidence::Low)
        .brings(format!("up to {} less for one packet in a hundred", units::duration(ns)))
        .change(by_hand(
            "host",
            "in /sys/class/net/NIC/queues/rx-*/rps_cpus: the CPUs that share its NUMA node",
            "0 there",
        ))
    };
    judgement
        .seen(
            &format!("share of receive softirqs on CPU {}, since the start", cpu.cpu),
            units::percent(share),
            Some(units::percent(NEARLY_ALL)),
        )
        .seen(
            "of these with packets left over",
            units::percent(squeezed),
            Some(units::percent(SQUEEZED_SHARE)),
        )
        .seen(
            "wait of the receive softirq, p99",
            units::duration(ns),
            Some(units::duration(seen.limits.softirq_ns)),
        )
}

fn backlog(seen: &Seen<'_>) -> Judgement {
    let of_it = seen.snapshot.drops.iter().filter(|d| d.reason == BACKLOG_REASON);
    let dropped = total(of_it.map(|d| d.count));
    let judgement = if dropped == 0 {
        Judgement::not_needed("no CPU's backlog was full")
    } else {
        let value = seen.node.of_host(BACKLOG);
        let twice = value.and_then(crate::node::last_number).map(|n| n.saturating_mul(2));
        let judgement =
            Judgement::consider("a CPU's backlog was full, or a flow had more than its share of it")
                .sure(Confidence::Medium)
                .brings("those packets are not lost, unless the CPU has too much to do all the time");
        match (value, twice) {
            (Some(value), Some(twice)) => {
                judgement.change(sysctl("host", BACKLOG, &twice.to_string(), value, None))
            }
            _ => judgement,
        }
    };
    judgement.seen("packets dropped, backlog full", units::count(dropped), Some("1".to_owned()))
}
