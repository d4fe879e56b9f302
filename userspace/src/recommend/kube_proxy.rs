//! Packet rules: kube-proxy's, those of network policies, and exemption from connection tracking.

use super::{
    Confidence, Judgement, Risk, Rule, Seen, by_hand, path::ENOUGH, path::slowest, path::too_few, total,
};
use crate::{
    node::{KubeProxy, PacketRules},
    report::units,
    snapshot::SignalData,
};
use nettrace_common::Signal;

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "kube-proxy.mode",
        advice: "switch kube-proxy from iptables to IPVS",
        looks_at: "The time that the rules at one netfilter hook take of one packet in a hundred: 20 us (latency profile: \
                   10 us), and whether kube-proxy's chains are there. Rules in a list cost a new connection's first \
                   packet; those that follow do not walk them.",
        risk: Risk::Medium,
        when_not: "Connections stay open: their packets do not walk the rules. IPVS is deprecated since Kubernetes 1.35: the \
                   nftables mode (1.33, Linux 5.13) has its lookups without it.",
        source: "https://kubernetes.io/blog/2025/02/28/nftables-kube-proxy/",
        needs: &[Signal::NfHook.name()],
        judge: kube_proxy,
    },
    Rule {
        id: "policy.volume",
        advice: "restrict traffic with NetworkPolicy to make the rest faster",
        looks_at: "The time at one netfilter hook of one packet in a hundred (20 us; latency profile: 10 us), and chains of \
                   network policies by the names of Calico, kube-router and Weave Net. Policies in eBPF leave no chains.",
        risk: Risk::High,
        when_not: "Ever, for latency: a policy protects; each rule of one costs time. Policies are never advised to be removed.",
        source: "https://kubernetes.io/docs/concepts/services-networking/network-policies/",
        needs: &[Signal::NfHook.name()],
        judge: policies,
    },
    Rule {
        id: "conntrack.notrack",
        advice: "exempt traffic from connection tracking (NOTRACK, installNoConntrackIptablesRules)",
        looks_at: "The time that connection tracking's lookup takes of every other packet: 20 us (latency profile: 10 us).",
        risk: Risk::High,
        when_not: "The traffic is translated (NAT), or a rule looks at its state: both end with tracking.",
        source: "https://docs.cilium.io/en/stable/operations/performance/tuning/",
        needs: &[Signal::CtIn.name()],
        judge: notrack,
    },
];

/// Packet rules of all namespaces that are known, in one line.
fn volume(seen: &Seen<'_>, judgement: Judgement) -> Judgement {
    seen.node.rules().fold(judgement, |judgement, (netns, rules)| {
        let engine = |table: &crate::node::RuleTable| {
            format!("{} in {} {}", units::count(table.rules), table.engine, table.table)
        };
        let mut largest: Vec<_> = rules.tables.iter().collect();
        largest.sort_by_key(|table| std::cmp::Reverse(table.rules));
        let tables: Vec<_> = largest.into_iter().take(3).map(engine).collect();
        if tables.is_empty() {
            return judgement;
        }
        judgement.with(&format!("rules in {netns}, largest tables"), tables.join(", "))
    })
}

/// kube-proxy, and the namespace whose rules are its own.
fn proxy<'a>(seen: &Seen<'a>) -> Option<(&'a KubeProxy, &'a PacketRules)> {
    seen.node.rules().find_map(|(_, rules)| Some((rules.kube_proxy.as_ref()?, rules)))
}

/// What could not be read of rules, so that what is not seen may still be there.
fn unread(seen: &Seen<'_>) -> Option<String> {
    if seen.node.rules().next().is_none() {
        return Some("the measurement has no packet rules".to_owned());
    }
    seen.node.rules().find_map(|(netns, rules)| Some(format!("rules of {netns}: {}", rules.unread.first()?)))
}

fn kube_proxy(seen: &Seen<'_>) -> Judgement {
    let Some((row, ns)) = slowest(seen, Signal::NfHook, 0.99, ENOUGH) else {
        return no_hook(seen);
    };
    let judgement = if ns < seen.limits.hook_ns {
        Judgement::not_needed("rules take little time of packets")
    } else {
        slow_proxy(seen, ns)
    };
    let judgement = match proxy(seen) {
        Some((proxy, rules)) => judgement
            .with("kube-proxy's mode, as its traces show it", format!("{} ({})", proxy.mode, proxy.from))
            .with(
                "its chains for services",
                units::count(total(rules.tables.iter().map(|t| t.service_chains))),
            ),
        None => judgement,
    };
    volume(seen, hook(seen, judgement, row, ns))
}

fn slow_proxy(seen: &Seen<'_>, ns: u64) -> Judgement {
    match (proxy(seen).map(|(proxy, _)| proxy.mode.as_str()), unread(seen)) {
        (Some("iptables"), _) => Judgement::consider("kube-proxy has its rules in lists, and rules take long of some packets")
            .sure(Confidence::Medium)
            .brings(format!("up to {} less for a new connection's first packet", units::duration(ns)))
            .change(by_hand("kube-proxy's configuration", "mode: nftables", "mode: iptables")),
        (Some("ipvs"), _) => Judgement::not_needed(
            "kube-proxy looks services up by IPVS already, which is deprecated: nftables is what follows; other rules take the time",
        )
        .sure(Confidence::Medium),
        (Some(mode), _) => {
            Judgement::not_needed(format!("kube-proxy looks services up already ({mode}): other rules take the time"))
                .sure(Confidence::Medium)
        }
        (None, None) => Judgement::not_needed("kube-proxy has no rules here: others take the time"),
        (None, Some(why)) => Judgement::cannot_tell(
            format!("rules take long of some packets; whether they are kube-proxy's is not known: {why}"),
            "iptables-save | grep -c KUBE-SVC; nft list tables",
        ),
    }
}

fn no_hook(seen: &Seen<'_>) -> Judgement {
    let passed = seen.snapshot.packets.begun > ENOUGH;
    if passed && seen.snapshot.signal(Signal::NfHook).is_none() {
        Judgement::not_needed("packets pass no netfilter rules")
    } else {
        too_few(Signal::NfHook)
    }
}

fn hook(seen: &Seen<'_>, judgement: Judgement, row: &SignalData, ns: u64) -> Judgement {
    let (ns, limit) = (units::duration(ns), units::duration(seen.limits.hook_ns));
    judgement
        .seen(&format!("time at hook {}, p99", row.scope), ns, Some(limit))
        .with("p50", units::duration(row.hist.quantile_ns(0.5)))
}

fn policies(seen: &Seen<'_>) -> Judgement {
    let Some((row, ns)) = slowest(seen, Signal::NfHook, 0.99, ENOUGH) else {
        return no_hook(seen);
    };
    let chains = total(seen.node.rules().map(|(_, rules)| rules.policy_chains()));
    let judgement = if ns < seen.limits.hook_ns {
        Judgement::not_needed("rules take little time of packets: fewer would save none, and more would not")
    } else if chains == 0 {
        match unread(seen) {
            None => Judgement::not_needed("no chain of a network policy is there: other rules take the time"),
            Some(why) => Judgement::cannot_tell(
                format!(
                    "rules take long of some packets; whether they are of network policies is not known: {why}"
                ),
                "kubectl get networkpolicy -A; nft list ruleset; iptables-save",
            ),
        }
    } else {
        Judgement::consider("rules take long of some packets, and network policies are among them")
            .sure(Confidence::Low)
            .brings(format!("up to {} less for a new connection's first packet", units::duration(ns)))
            .change(by_hand(
                "network policies",
                "the same policies by an engine that looks up (eBPF, or nftables with sets), or fewer selectors and ports \
                 for the same protection",
                "as before",
            ))
    };
    let judgement = hook(seen, judgement, row, ns).with("chains of network policies", units::count(chains));
    volume(seen, judgement)
}

fn notrack(seen: &Seen<'_>) -> Judgement {
    let Some((row, ns)) = slowest(seen, Signal::CtIn, 0.5, ENOUGH) else {
        let untracked = seen.snapshot.packets.begun > ENOUGH && seen.snapshot.signal(Signal::CtIn).is_none();
        return if untracked {
            Judgement::not_needed("no packet was tracked")
        } else {
            too_few(Signal::CtIn)
        };
    };
    let judgement = if ns < seen.limits.hook_ns {
        Judgement::not_needed("connection tracking takes little time of packets")
    } else {
        Judgement::consider("connection tracking takes long of every other packet")
            .sure(Confidence::Low)
            .brings(format!("up to {} less for each packet", units::duration(ns)))
            .change(by_hand(
                "rules of the table raw",
                "NOTRACK for traffic that is neither translated nor matched by its state",
                "remove them",
            ))
    };
    judgement
        .seen(
            "time in connection tracking's lookup, p50",
            units::duration(ns),
            Some(units::duration(seen.limits.hook_ns)),
        )
        .with("p99", units::duration(row.hist.quantile_ns(0.99)))
}
