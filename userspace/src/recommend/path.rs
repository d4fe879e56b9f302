//! A packet's way through this machine: queues of interfaces, softirqs, the backlog.

use super::{Change, Confidence, Judgement, Risk, Rule, Seen, Verdict, by_hand, quoted, sysctl, total};
use crate::{
    node::{Machine, NodeLink},
    report::units,
    snapshot::SignalData,
};
use nettrace_common::Signal;

const BACKLOG: &str = "net.core.netdev_max_backlog";
/// Fewer packets tell little of the hundredth, and prove nothing of the twentieth.
pub(super) const ENOUGH: u64 = 100;
/// Fewer tell little of the twentieth.
pub(super) const ENOUGH_QUEUED: u64 = 20;
/// Qdiscs that are one queue: a flow that fills it delays all others (pfifo_fast has three, by the packets' own priority).
const ONE_QUEUE: [&str; 3] = ["pfifo_fast", "pfifo", "bfifo"];
/// Qdiscs that share fairly among flows, and hold those back that are paced.
const FAIR: [&str; 3] = ["fq", "fq_codel", "cake"];
/// The kernel keeps it as a signed number of 32 bits (`proc_dointvec`).
const MAX_BACKLOG: u64 = i32::MAX as u64;
/// Share of all receive softirqs, or of all packets, from which on one CPU has nearly all.
const NEARLY_ALL: f64 = 0.9;
/// Share of a CPU's receive softirqs that left packets over, from which on it has too much to do.
const SQUEEZED_SHARE: f64 = 0.001;
/// Drop reason of a full backlog (include/net/dropreason-core.h).
const BACKLOG_REASON: &str = "CPU_BACKLOG";
/// Of how many packets that is said.
const BACKLOG_DROPS: &str = "packets dropped, backlog full";
/// What tells for whom a CPU has no time.
const TO_TELL_WHO: &str =
    "mpstat -P ALL 1: one CPU with much %soft while others idle calls for it, much %usr on all does not";

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "qdisc.queue",
        advice: "give cluster traffic priority with tc",
        looks_at: "The time in each interface's queue of one packet in twenty: 5 ms (latency profile: 1 ms, throughput profile: \
                   20 ms), and what the queue is, below mq and shapers, too. It is proven of pfifo_fast, pfifo and bfifo, from \
                   100 packets on.",
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
                   5 ms) it is not needed, unless packets were dropped because a CPU's backlog was full: their wait is not timed. \
                   Above, applications that keep CPUs busy look the same, so that it cannot be told.",
        risk: Risk::Low,
        when_not: "CPUs are busy with applications: more of them for the network take from those.",
        source: "https://docs.kernel.org/networking/scaling.html",
        needs: &[Signal::RxSoftirq.name()],
        judge: softirq,
    },
    Rule {
        id: "nic.rps",
        advice: "switch RPS on",
        looks_at: "Whether one of several CPUs ran 90 % of the receive softirqs while it was measured and left packets over in \
                   one of 1,000, while the softirq waits (as nic.softirq); or dropped packets because its backlog was full, while \
                   it handled 90 % of them. Where packets wait or were dropped so and these do not say why, it cannot be \
                   told.",
        risk: Risk::Low,
        when_not: "The NIC has queues enough for all CPUs (RSS): its hardware spreads packets for nothing. Packets of one flow \
                   stay on one CPU with RPS, too.",
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

/// The interface that calls for a change most, of all with enough packets: another that waits longer may be told to.
fn queue(seen: &Seen<'_>) -> Judgement {
    let rows = seen.snapshot.signals.iter().filter(|row| row.signal == Signal::TxQdisc.name());
    let timed: Vec<_> = rows.filter(|row| row.hist.count() >= ENOUGH_QUEUED).collect();
    // All of them together are none that could be changed.
    let named = timed.iter().copied().filter(|row| row.scope != "all");
    let all = timed.iter().copied().filter(|_| timed.iter().all(|row| row.scope == "all"));
    let judged = named.chain(all).map(|row| {
        let ns = row.hist.quantile_ns(0.95);
        (queue_of(seen, row, ns), row, ns)
    });
    let rank = |verdict| match verdict {
        Verdict::Apply => 3,
        Verdict::Consider => 2,
        Verdict::CannotTell => 1,
        Verdict::NotNeeded => 0,
    };
    let Some((judgement, row, ns)) = judged.max_by_key(|(said, _, ns)| (rank(said.verdict), *ns)) else {
        return if seen.snapshot.signal(Signal::TxDriver).is_some_and(|row| row.hist.count() >= ENOUGH) {
            Judgement::not_needed("packets are handed to drivers at once")
        } else {
            too_few(Signal::TxQdisc)
        };
    };
    judgement
        .seen(
            &format!("time in the queue of {}, p95", row.scope),
            units::duration(ns),
            Some(units::duration(seen.limits.queue_ns)),
        )
        .with("packets timed there", units::count(row.hist.count()))
}

/// What is said of the queue of one interface.
fn queue_of(seen: &Seen<'_>, row: &SignalData, ns: u64) -> Judgement {
    if ns < seen.limits.queue_ns {
        return Judgement::not_needed("packets do not wait in queues of interfaces");
    }
    let (netns, name) = row.scope.rsplit_once('/').unwrap_or(("host", &row.scope));
    let unknown = |what: &str| {
        Judgement::cannot_tell(
            format!("packets wait in the queue of {}; {what} is not known", row.scope),
            format!("tc -s qdisc show dev {}", quoted(name)),
        )
    };
    let Some(link) = seen.node.link(&row.scope) else { return unknown("what it is") };
    let root = link.qdisc.as_str();
    let Some(queues) = link.queues() else { return unknown("what is below its mq") };
    let all = |kinds: &[&str]| queues.iter().all(|kind| kinds.contains(&kind.as_str()));
    let found = queues.join(", ");
    if root == "netem" || all(&["netem"]) {
        return Judgement::not_needed("packets wait in netem, which delays them because it is told to");
    }
    if all(&FAIR) {
        let because =
            format!("packets wait in {found}, which shares fairly, and may hold them back for pacing");
        return Judgement::not_needed(because).sure(Confidence::Medium);
    }
    let enough = row.hist.count() >= ENOUGH;
    let waits = format!("packets wait in the queue of {} ({found})", row.scope);
    let judgement = if enough && ONE_QUEUE.contains(&root) {
        Judgement::apply(waits)
    } else {
        Judgement::consider(waits)
    };
    judgement
        .sure(if enough { Confidence::Medium } else { Confidence::Low })
        .brings(format!(
            "up to {} less for packets of other flows than the one that fills the queue",
            units::duration(ns)
        ))
        .change(fair_queue(netns, link))
}

/// Fair queues that keep themselves short, in place of one that does not; a shaper has to stay, and they go below it.
fn fair_queue(netns: &str, link: &NodeLink) -> Change {
    let name = quoted(&link.name);
    let root = link.qdisc.as_str();
    let (apply, undo) = if ONE_QUEUE.contains(&root) {
        let back = format!("tc qdisc replace dev {name} root {root}");
        let undo = match (root, link.fifo_limit) {
            ("pfifo_fast", _) => back,
            (_, Some(limit)) => format!("{back} limit {limit}"),
            (_, None) => {
                format!("{back}; its limit is lost, note what `tc qdisc show dev {name}` says before")
            }
        };
        (format!("tc qdisc replace dev {name} root fq_codel"), undo)
    } else if root == "mq" {
        (
            format!(
                "fq_codel below each class of mq at {name}; net.core.default_qdisc=fq_codel for new ones"
            ),
            "the qdisc that each class had".to_owned(),
        )
    } else {
        (
            format!("fq_codel below {} at {name}, which stays", quoted(root)),
            format!("without it; `tc qdisc show dev {name}` tells what is there now"),
        )
    };
    let replaced = ONE_QUEUE.contains(&root) || root == "mq";
    let setting = replaced.then(|| format!("qdisc:{}=fq_codel", link.name));
    Change { scope: netns.to_owned(), apply, undo, setting, owner: None }
}

fn softirq(seen: &Seen<'_>) -> Judgement {
    let dropped = backlog_drops(seen);
    let Some((row, ns)) = slowest(seen, Signal::RxSoftirq, 0.99, ENOUGH) else {
        return too_few(Signal::RxSoftirq);
    };
    let judgement = if dropped > 0 {
        Judgement::cannot_tell(
            "packets were dropped because a CPU's backlog was full: they wait there, which is not timed, however soon the \
             softirq runs",
            TO_TELL_WHO,
        )
        .with(BACKLOG_DROPS, units::count(dropped))
    } else if ns >= seen.limits.softirq_ns {
        Judgement::cannot_tell(
            "receive softirqs wait long before they run; whether for other packets or for applications was not measured",
            TO_TELL_WHO,
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

/// Whether a CPU has more than twice what each would have of an even share.
fn is_uneven(share: f64, cpus: usize) -> bool {
    share * cpus as f64 > 2.0
}

/// A wait alone does not tell who causes it: applications that keep a CPU busy look the same.
fn rps(seen: &Seen<'_>) -> Judgement {
    let Some(machine) = &seen.node.machine else {
        return Judgement::cannot_tell("which CPUs receive is not in the measurement", TO_TELL_WHO);
    };
    if machine.receive.len() == 1 {
        return Judgement::not_needed("there is one CPU");
    }
    let dropped = backlog_drops(seen);
    if dropped > 0 {
        return rps_of_backlog(seen, machine).with(BACKLOG_DROPS, units::count(dropped));
    }
    let Some((_, ns)) = slowest(seen, Signal::RxSoftirq, 0.99, ENOUGH) else {
        return too_few(Signal::RxSoftirq);
    };
    let judgement = if ns < seen.limits.softirq_ns {
        Judgement::not_needed("receive softirqs run soon after they are raised")
    } else {
        rps_of_wait(machine, ns)
    };
    judgement.seen(
        "wait of the receive softirq, p99",
        units::duration(ns),
        Some(units::duration(seen.limits.softirq_ns)),
    )
}

/// Of softirqs that wait, one in a hundred for so long.
fn rps_of_wait(machine: &Machine, ns: u64) -> Judgement {
    let Some((cpu, share)) = machine.busiest_receiver().filter(|(cpu, _)| cpu.net_rx >= ENOUGH) else {
        let because = "which CPUs received while it was measured could not be read, or they hardly did";
        return Judgement::cannot_tell(because, TO_TELL_WHO);
    };
    let squeezed = cpu.squeezed as f64 / cpu.net_rx.max(1) as f64;
    let judgement = if share >= NEARLY_ALL && squeezed >= SQUEEZED_SHARE {
        Judgement::consider(
            "one CPU receives nearly all, is not done with it each time, and packets wait for it",
        )
        .sure(Confidence::Low)
        .brings(format!("up to {} less for one packet in a hundred", units::duration(ns)))
        .change(switch_rps_on())
    } else if share >= NEARLY_ALL {
        let because =
            "one CPU receives nearly all and is done with it each time, and packets wait for it all the same";
        Judgement::cannot_tell(because, TO_TELL_WHO).sure(Confidence::Low)
    } else if is_uneven(share, machine.received.len()) {
        let because =
            "some CPUs receive much more than others, and packets wait; whether for those was not measured";
        Judgement::cannot_tell(because, TO_TELL_WHO).sure(Confidence::Low)
    } else {
        Judgement::not_needed("receive softirqs run on several CPUs")
    };
    judgement
        .seen(
            &format!("share of receive softirqs on CPU {}, while it was measured", cpu.cpu),
            units::percent(share),
            Some(units::percent(NEARLY_ALL)),
        )
        .seen(
            "of these with packets left over",
            units::percent(squeezed),
            Some(units::percent(SQUEEZED_SHARE)),
        )
}

/// Of packets that were dropped before a CPU. Packets are counted where they are handled; softirqs also run on the CPU that
/// hands them over.
fn rps_of_backlog(seen: &Seen<'_>, machine: &Machine) -> Judgement {
    let busiest = machine.busiest_handler().filter(|(cpu, _)| cpu.packets >= ENOUGH);
    let Some((cpu, share)) = busiest else {
        let because = "a CPU's backlog was full; which CPUs handled packets meanwhile could not be read, or they hardly did";
        return Judgement::cannot_tell(because, TO_TELL_WHO);
    };
    let judgement = if share < NEARLY_ALL || cpu.dropped == 0 {
        let because = "a CPU's backlog was full, and no CPU had nearly all packets: whether others had time for more was not \
                       measured";
        Judgement::cannot_tell(because, TO_TELL_WHO).sure(Confidence::Low)
    } else if is_one_flow(seen) {
        let because = "one CPU handles nearly all packets and its backlog was full, and most that were dropped so are of one \
                       flow, which stays on one CPU with RPS, too";
        Judgement::cannot_tell(because, TO_TELL_WHO).sure(Confidence::Low)
    } else {
        Judgement::consider(
            "one CPU handles nearly all packets, and its backlog was full: packets wait there, and were dropped",
        )
        .sure(Confidence::Low)
        .brings("fewer packets of several flows wait before that CPU or are dropped, where others have time for them")
        .change(switch_rps_on())
    };
    judgement
        .seen(
            &format!("share of packets handled by CPU {}, while it was measured", cpu.cpu),
            units::percent(share),
            Some(units::percent(NEARLY_ALL)),
        )
        .with("packets that its backlog had no room for", units::count(cpu.dropped))
}

fn switch_rps_on() -> Change {
    by_hand(
        "host",
        "in /sys/class/net/NIC/queues/rx-*/rps_cpus: the CPUs that share its NUMA node",
        "what was there before; 0 where RPS was off",
    )
}

/// Packets that were dropped because a CPU's backlog was full. The machine's own count also has those of places that were
/// not measured: it counts where drops were not measured at all.
fn backlog_drops(seen: &Seen<'_>) -> u64 {
    let measured = seen.snapshot.probes.iter().any(|p| p.name == "drop" && p.source.is_some());
    if measured {
        let of_it = seen.snapshot.drops.iter().filter(|d| d.reason == BACKLOG_REASON);
        return total(of_it.map(|d| d.count));
    }
    let cpus = seen.node.machine.iter().flat_map(|machine| &machine.received);
    total(cpus.map(|cpu| cpu.dropped))
}

/// Whether one flow has most of the packets that a full backlog dropped, as far as their flows are known.
fn is_one_flow(seen: &Seen<'_>) -> bool {
    let flows = seen.snapshot.drop_flows.iter().filter(|f| f.reason == BACKLOG_REASON);
    flows.map(|f| f.count).max().is_some_and(|most| most > backlog_drops(seen) / 2)
}

fn backlog(seen: &Seen<'_>) -> Judgement {
    let dropped = backlog_drops(seen);
    let judgement = if dropped == 0 {
        Judgement::not_needed("no CPU's backlog was full")
    } else {
        let value = seen.node.of_host(BACKLOG);
        let number = value.and_then(crate::node::last_number);
        let twice = number.and_then(|n| Some(n.saturating_mul(2).min(MAX_BACKLOG)).filter(|more| *more > n));
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
    judgement.seen(BACKLOG_DROPS, units::count(dropped), Some("1".to_owned()))
}
