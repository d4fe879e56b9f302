//! Connection tracking: how large its table is to be, for how long entries stay, and races.

use super::{Change, Confidence, Judgement, Risk, Rule, Seen, of, sysctl, total};
use crate::{
    probes::{CLASHES, CONNTRACK},
    report::units,
    snapshot::ConntrackTable,
};
use nettrace_common::Signal;

const MAX: &str = "net.netfilter.nf_conntrack_max";
const BUCKETS: &str = "net.netfilter.nf_conntrack_buckets";
const ESTABLISHED: &str = "net.netfilter.nf_conntrack_tcp_timeout_established";
const KUBE_PROXY: &str = "kube-proxy, where it runs: --conntrack-max-per-core, --conntrack-min";
/// Longest time that an entry is kept by default, s (nf_conntrack_proto_tcp.c).
const DEFAULT_ESTABLISHED_S: u64 = 432_000;

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "conntrack.max",
        advice: "raise nf_conntrack_max to 1048576",
        looks_at: "Packets dropped because the table was full (apply); a table that is 90 % full at the end (consider).",
        risk: Risk::Low,
        when_not: "The table is not what fills up: entries take memory, some 300 bytes each, and a larger table alone makes \
                   no packet faster.",
        source: "https://docs.kernel.org/networking/nf_conntrack-sysctl.html",
        needs: &[CONNTRACK],
        judge: max,
    },
    Rule {
        id: "conntrack.established-timeout",
        advice: "lower nf_conntrack_tcp_timeout_established to 3600 s",
        looks_at: "Whether the table fills up. The time itself is no latency: it says how long an idle connection is kept.",
        risk: Risk::Medium,
        when_not: "Connections stay idle for longer than the new time and are translated (NAT): they break.",
        source: "https://docs.kernel.org/networking/nf_conntrack-sysctl.html",
        needs: &[CONNTRACK],
        judge: established,
    },
    Rule {
        id: "conntrack.race",
        advice: "watch insert_failed; avoid the race of A and AAAA queries",
        looks_at: "Packets dropped because another packet had entered the same connection first (consider, and apply where \
                   they are DNS). Those that were let through all the same count in insert_failed, too, and cost nothing.",
        risk: Risk::Medium,
        when_not: "Clashes are resolved: nothing is lost.",
        source: "https://www.kernel.org/doc/html/latest/networking/nf_conntrack-sysctl.html",
        needs: &[CLASHES],
        judge: race,
    },
];

/// One table: the machine's limit is the same in all namespaces.
fn fullest<'a>(seen: &Seen<'a>) -> Option<&'a ConntrackTable> {
    let by_share = |t: &&ConntrackTable| (t.used_share().unwrap_or(0.0) * 1e6) as u64;
    seen.snapshot.conntrack.iter().max_by_key(|t| (t.dropped_full(), by_share(t)))
}

fn max(seen: &Seen<'_>) -> Judgement {
    let Some(table) = fullest(seen) else {
        return Judgement::not_needed("no namespace tracks connections");
    };
    let dropped = total(seen.snapshot.conntrack.iter().map(ConntrackTable::dropped_full));
    let (Some(entries), Some(limit)) = (table.entries, table.max.filter(|max| *max > 0)) else {
        return Judgement::cannot_tell(
            format!("how full the table of {} is cannot be read", table.netns),
            "nettrace doctor",
        );
    };
    let nearly = table.used_share().is_some_and(|share| share >= ConntrackTable::NEARLY_FULL_SHARE);
    let judgement = if dropped > 0 {
        let by_packet = seen.snapshot.conntrack_trouble.table_full > 0;
        Judgement::apply("the table was full, and packets of new connections were dropped")
            .sure(if by_packet { Confidence::High } else { Confidence::Medium })
            .brings("new connections no longer fail; a packet that passes takes as long as before")
    } else if nearly {
        Judgement::consider("the table is nearly full").brings("room before packets are dropped; no latency")
    } else {
        Judgement::not_needed("the table has room, and none was dropped")
    };
    let threshold = units::percent(ConntrackTable::NEARLY_FULL_SHARE);
    let judgement = judgement
        .seen("packets dropped, table full", units::count(dropped), Some("1".to_owned()))
        .seen(&format!("connections in {}", table.netns), of(entries, limit), Some(threshold));
    if dropped == 0 && !nearly {
        return judgement;
    }
    larger(seen, limit).into_iter().fold(judgement, Judgement::change)
}

/// Twice as many entries, and as many buckets unless there are: each entry is in two chains.
fn larger(seen: &Seen<'_>, limit: u64) -> Vec<Change> {
    let twice = limit.saturating_mul(2);
    let set = |name, before: &str| sysctl("host", name, &twice.to_string(), before, Some(KUBE_PROXY));
    let mut changes = vec![set(MAX, &limit.to_string())];
    let buckets = seen.node.of_each(BUCKETS).next().map(|(_, value)| value);
    if let Some(value) = buckets.filter(|v| crate::node::last_number(v).is_some_and(|n| n < twice)) {
        changes.push(set(BUCKETS, value));
    }
    changes
}

fn established(seen: &Seen<'_>) -> Judgement {
    let Some((netns, value)) = seen.node.of_each(ESTABLISHED).next() else {
        return Judgement::cannot_tell(
            format!("{ESTABLISHED} could not be read"),
            format!("sysctl {ESTABLISHED}"),
        );
    };
    let full = fullest(seen).is_some_and(|t| {
        t.dropped_full() > 0 || t.used_share().is_some_and(|s| s >= ConntrackTable::NEARLY_FULL_SHARE)
    });
    let long = crate::node::last_number(value).is_some_and(|s| s >= DEFAULT_ESTABLISHED_S);
    let judgement = if full && long {
        Judgement::consider("the table fills up, and idle connections stay in it for days")
            .sure(Confidence::Low)
            .brings("fewer entries; no latency")
            .change(sysctl(netns, ESTABLISHED, "86400", value, Some(KUBE_PROXY)))
    } else if full {
        Judgement::not_needed("the table fills up although idle connections do not stay for long")
    } else {
        Judgement::not_needed(
            "the table has room: a shorter time frees nothing that is needed, and makes no packet faster",
        )
    };
    judgement.with(&format!("{ESTABLISHED} in {netns}"), format!("{value} s"))
}

fn race(seen: &Seen<'_>) -> Judgement {
    let trouble = seen.snapshot.conntrack_trouble;
    let dns = seen
        .snapshot
        .conntrack_flows
        .iter()
        .filter(|f| f.what == "clash dropped" && f.flow.contains(":53 udp"));
    let of_dns = total(dns.map(|f| f.count));
    let judgement = if trouble.clashes_dropped == 0 {
        Judgement::not_needed(if trouble.clashes_resolved > 0 {
            "packets raced and were all let through"
        } else {
            "no packets raced"
        })
    } else if of_dns > 0 {
        Judgement::apply("DNS queries were dropped that raced with another one from the same port")
            .brings(format!(
                "queries no longer wait for the resolver's retry, 5 s by default: {} in the time measured",
                units::count(of_dns)
            ))
            .change(super::by_hand(
                "pods",
                "options single-request-reopen in resolv.conf (glibc), or NodeLocal DNSCache",
                "remove it",
            ))
    } else {
        Judgement::consider("packets were dropped that raced to enter the same connection")
            .sure(Confidence::Medium)
    };
    let slowest = seen.snapshot.signal(Signal::DnsLatency).map_or(0, |row| row.max_ns);
    judgement
        .seen("clashes, packet dropped", units::count(trouble.clashes_dropped), Some("1".to_owned()))
        .with("of these DNS", units::count(of_dns))
        .with("clashes, resolved", units::count(trouble.clashes_resolved))
        .with("slowest DNS answer", units::duration(slowest))
}
