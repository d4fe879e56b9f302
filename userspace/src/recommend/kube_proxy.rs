//! Packet rules: kube-proxy's, those of network policies, and exemption from connection tracking.

use super::{
    Confidence, Judgement, Risk, Rule, Seen, by_hand, path::ENOUGH, path::slowest, path::too_few, total,
};
use crate::{
    node::{KubeProxy, PacketRules},
    preflight::Release,
    report::units,
    snapshot::SignalData,
};
use nettrace_common::Signal;

/// Rules of a namespace, below which no packet takes long for them: one that does not match costs 10 to 40 ns, so that 20 us
/// are 500 of them at least.
const MANY_RULES: u64 = 500;
/// Hooks that a packet passes in the receive softirq, which no task preempts. At the others an application sends, and while its
/// CPU is taken from it the time goes on.
const SOFTIRQ_HOOKS: [&str; 3] = ["prerouting", "input", "forward"];
/// The oldest kernel that kube-proxy's nftables mode runs on (KEP-3866).
const NFTABLES_SINCE: Release = Release { major: 5, minor: 13 };

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "kube-proxy.mode",
        advice: "switch kube-proxy from iptables to IPVS",
        looks_at: "The time that the rules at one of the hooks prerouting, input and forward take of one packet in a hundred: \
                   20 us (latency profile: 10 us); whether kube-proxy's chains are there; and whether their namespace has 500 \
                   rules. At the other hooks a sender that waits for its CPU looks the same. Rules in a list cost a new \
                   connection's first packet; those that follow do not walk them.",
        risk: Risk::Medium,
        when_not: "Connections stay open: their packets do not walk the rules. IPVS is deprecated since Kubernetes 1.35: the \
                   nftables mode (1.33, Linux 5.13, nft 1.0) has its lookups without it.",
        source: "https://kubernetes.io/blog/2025/02/28/nftables-kube-proxy/",
        needs: &[Signal::NfHook.name()],
        judge: kube_proxy,
    },
    Rule {
        id: "policy.volume",
        advice: "restrict traffic with NetworkPolicy to make the rest faster",
        looks_at: "The time at one of the hooks prerouting, input and forward of one packet in a hundred (20 us; latency \
                   profile: 10 us), and chains of network policies by the names of Calico, kube-router and Weave Net in a \
                   namespace of 500 rules. Policies in eBPF leave no chains.",
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

/// Where rules take long of some packets.
struct Late<'a> {
    row: &'a SignalData,
    ns: u64,
    /// Whether that is where no task is preempted; else it only may be rules.
    proven: bool,
}

/// The hook at which rules take longest, or what is said where no packet was seen at one. Those that prove something come first.
fn slowest_hook<'a>(seen: &Seen<'a>) -> Result<Late<'a>, Box<Judgement>> {
    let (row, ns) = slowest(seen, Signal::NfHook, 0.99, ENOUGH).ok_or_else(|| Box::new(no_hook(seen)))?;
    let signals = seen.snapshot.signals.iter();
    let softirq = signals
        .filter(|row| row.signal == Signal::NfHook.name() && SOFTIRQ_HOOKS.contains(&row.scope.as_str()))
        .filter(|row| row.hist.count() >= ENOUGH)
        .map(|row| (row, row.hist.quantile_ns(0.99)))
        .filter(|(_, ns)| *ns >= seen.limits.hook_ns)
        .max_by_key(|(_, ns)| *ns);
    Ok(softirq.map_or(Late { row, ns, proven: false }, |(row, ns)| Late { row, ns, proven: true }))
}

/// Packets are late where an application that waits for its CPU is late, too.
fn perhaps_preempted(row: &SignalData) -> Judgement {
    Judgement::cannot_tell(
        format!(
            "packets take long at the hook {}, where who sends them may have lost its CPU; at those of received packets they do \
             not, or none were seen",
            row.scope
        ),
        "nettrace run -d 1m --signals nf.hook, while pods connect to Services; perf sched timehist: whether senders wait",
    )
}

fn kube_proxy(seen: &Seen<'_>) -> Judgement {
    let late = match slowest_hook(seen) {
        Ok(late) => late,
        Err(said) => return *said,
    };
    let judgement = if late.ns < seen.limits.hook_ns {
        Judgement::not_needed("rules take little time of packets")
    } else {
        slow_proxy(seen, &late)
    };
    let judgement = match proxy(seen) {
        Some((proxy, rules)) => judgement
            .with("kube-proxy's mode, as its traces show it", format!("{} ({})", proxy.mode, proxy.from))
            .with(
                "its chains for services",
                units::count(total(rules.tables.iter().map(|t| t.service_chains))),
            )
            .seen("rules there", units::count(rules.count()), Some(units::count(MANY_RULES))),
        None => judgement,
    };
    volume(seen, hook(seen, judgement, &late))
}

fn slow_proxy(seen: &Seen<'_>, late: &Late<'_>) -> Judgement {
    let to_tell = "iptables-save | grep -c KUBE-SVC; nft list tables";
    let known = proxy(seen).map(|(proxy, rules)| (proxy.mode.as_str(), rules));
    match (known, unread(seen)) {
        (Some(("iptables", rules)), _) if rules.count() < MANY_RULES => match rules.unread.first() {
            Some(why) => Judgement::cannot_tell(
                format!("rules take long of some packets; how many kube-proxy has is not known: {why}"),
                to_tell,
            ),
            None => Judgement::not_needed(
                "kube-proxy has its rules in lists, too few to take long of a packet: something else takes the time",
            )
            .sure(Confidence::Medium),
        },
        (Some(("iptables", _)), _) if !late.proven => perhaps_preempted(late.row),
        (Some(("iptables", _)), _) => {
            Judgement::consider("kube-proxy has its rules in lists, and rules take long of some packets")
                .sure(Confidence::Medium)
                .brings(format!("up to {} less for a new connection's first packet", units::duration(late.ns)))
                .change(by_hand("kube-proxy's configuration", other_mode(seen), "mode: iptables"))
        }
        (Some(("ipvs", _)), _) => Judgement::not_needed(
            "kube-proxy looks services up by IPVS already, which is deprecated: nftables is what follows; other rules take the time",
        )
        .sure(Confidence::Medium),
        (Some((mode, _)), _) => {
            Judgement::not_needed(format!("kube-proxy looks services up already ({mode}): other rules take the time"))
                .sure(Confidence::Medium)
        }
        (None, None) => Judgement::not_needed("kube-proxy has no rules here: others take the time"),
        (None, Some(why)) => Judgement::cannot_tell(
            format!("rules take long of some packets; whether they are kube-proxy's is not known: {why}"),
            to_tell,
        ),
    }
}

/// The mode that looks services up on this kernel.
fn other_mode(seen: &Seen<'_>) -> &'static str {
    match Release::parse(&seen.snapshot.meta.kernel) {
        Some(release) if release < NFTABLES_SINCE => {
            "mode: nftables, with Linux 5.13 or newer; until then mode: ipvs, which is deprecated"
        }
        _ => "mode: nftables",
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

fn hook(seen: &Seen<'_>, judgement: Judgement, late: &Late<'_>) -> Judgement {
    let (ns, limit) = (units::duration(late.ns), units::duration(seen.limits.hook_ns));
    judgement
        .seen(&format!("time at hook {}, p99", late.row.scope), ns, Some(limit))
        .with("p50", units::duration(late.row.hist.quantile_ns(0.5)))
}

fn policies(seen: &Seen<'_>) -> Judgement {
    let late = match slowest_hook(seen) {
        Ok(late) => late,
        Err(said) => return *said,
    };
    let chains = total(seen.node.rules().map(|(_, rules)| rules.policy_chains()));
    let of_policies = seen.node.rules().filter(|(_, rules)| rules.policy_chains() > 0);
    let most = of_policies.map(|(_, rules)| rules.count()).max().unwrap_or(0);
    let judgement = if late.ns < seen.limits.hook_ns {
        Judgement::not_needed("rules take little time of packets: fewer would save none, and more would not")
    } else {
        slow_policies(seen, &late, most)
    };
    let judgement = hook(seen, judgement, &late)
        .with("chains of network policies", units::count(chains))
        .seen("rules where they are", units::count(most), Some(units::count(MANY_RULES)));
    volume(seen, judgement)
}

/// Where rules take long: of policies in a namespace with so many rules, 0 where there are none.
fn slow_policies(seen: &Seen<'_>, late: &Late<'_>, rules: u64) -> Judgement {
    match unread(seen) {
        Some(why) if rules < MANY_RULES => Judgement::cannot_tell(
            format!("rules take long of some packets; whether they are of network policies is not known: {why}"),
            "kubectl get networkpolicy -A; nft list ruleset; iptables-save",
        ),
        None if rules == 0 => {
            Judgement::not_needed("no chain of a network policy is there: other rules take the time")
        }
        None if rules < MANY_RULES => Judgement::not_needed(
            "network policies have too few rules to take long of a packet: something else takes the time",
        )
        .sure(Confidence::Medium),
        _ if !late.proven => perhaps_preempted(late.row),
        _ => Judgement::consider("rules take long of some packets, and network policies are among them")
            .sure(Confidence::Low)
            .brings(format!("up to {} less for a new connection's first packet", units::duration(late.ns)))
            .change(by_hand(
                "network policies",
                "the same policies by an engine that looks up (eBPF, or nftables with sets), or fewer selectors and ports \
                 for the same protection",
                "as before",
            )),
    }
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
