//! A packet's way through this machine: kube-proxy's rules, queues of interfaces, softirqs, the backlog.

use super::{Change, Confidence, Judgement, Risk, Rule, Seen, by_hand, quoted, sysctl, total};
use crate::{report::units, snapshot::SignalData};
use nettrace_common::Signal;

const BACKLOG: &str = "net.core.netdev_max_backlog";
/// Fewer packets tell little of the hundredth.
const ENOUGH: u64 = 100;
/// The same, of one in twenty.
const ENOUGH_QUEUED: u64 = 20;
/// Drop reason of a full backlog (include/net/dropreason-core.h).
const BACKLOG_REASON: &str = "CPU_BACKLOG";

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "kube-proxy.mode",
        advice: "switch kube-proxy from iptables to IPVS",
        looks_at: "The time that the rules at one netfilter hook take of one packet in a hundred: 20 us (latency profile: \
                   10 us). Rules in a list cost a new connection's first packet; those that follow do not walk them.",
        risk: Risk::Medium,
        when_not: "Connections stay open: their packets do not walk the rules. IPVS is deprecated since Kubernetes 1.35: the \
                   nftables mode (1.33, Linux 5.13) has its lookups without it.",
        source: "https://kubernetes.io/blog/2025/02/28/nftables-kube-proxy/",
        needs: &[Signal::NfHook.name()],
        judge: kube_proxy,
    },
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
fn slowest<'a>(seen: &Seen<'a>, signal: Signal, quantile: f64, enough: u64) -> Option<(&'a SignalData, u64)> {
    let rows = seen.snapshot.signals.iter();
    let of_it = rows.filter(|row| row.signal == signal.name() && row.hist.count() >= enough);
    of_it
        .map(|row| (row, row.hist.quantile_ns(quantile)))
        .max_by_key(|(row, ns)| (!matches!(row.scope.as_str(), "all" | "other"), *ns))
}

fn too_few(signal: Signal) -> Judgement {
    Judgement::cannot_tell(
        format!("{} counted fewer than {ENOUGH} packets", signal.name()),
        format!("nettrace run -d 1m --signals {}", signal.name()),
    )
}

fn kube_proxy(seen: &Seen<'_>) -> Judgement {
    let Some((row, ns)) = slowest(seen, Signal::NfHook, 0.99, ENOUGH) else {
        let passed = seen.snapshot.packets.begun > ENOUGH;
        return if passed && seen.snapshot.signal(Signal::NfHook).is_none() {
            Judgement::not_needed("packets pass no netfilter rules")
        } else {
            too_few(Signal::NfHook)
        };
    };
    let judgement = if ns >= seen.limits.hook_ns {
        Judgement::consider("rules take long of some packets")
            .sure(Confidence::Low)
            .brings(format!(
                "up to {} less for a new connection's first packet, if those are kube-proxy's rules",
                units::duration(ns)
            ))
            .change(by_hand("kube-proxy's configuration", "mode: nftables", "mode: iptables"))
    } else {
        Judgement::not_needed("rules take little time of packets")
    };
    judgement
        .seen(
            &format!("time at hook {}, p99", row.scope),
            units::duration(ns),
            Some(units::duration(seen.limits.hook_ns)),
        )
        .with("p50", units::duration(row.hist.quantile_ns(0.5)))
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
    Change { scope: netns.to_owned(), apply, undo, owner: None }
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
