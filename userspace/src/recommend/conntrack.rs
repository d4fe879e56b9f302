//! Connection tracking: how large its table is to be, for how long entries stay, and races.

use super::{Change, Confidence, Judgement, Risk, Rule, Seen, Verdict, by_hand, of, sysctl, total};
use crate::{
    node::last_number,
    probes::{CLASHES, CONNTRACK, FULL_TABLES},
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
        looks_at: "Packets dropped because the table was full (apply): seen one by one (ct.full), or counted in a table that \
                   threw connections out to make room or is 90 % full at the end; such a table without drops (consider).",
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
        looks_at: "Whether the fullest table fills up, and the time in its namespace. The time itself is no latency: it says \
                   how long an idle connection is kept.",
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
                   they are DNS): as a rule those of clients behind one address (SNAT) that chose the same port. Those that were let \
                   through all the same, as A and AAAA of one socket, count in insert_failed, too, and cost nothing.",
        risk: Risk::Medium,
        when_not: "Clashes are resolved: nothing is lost.",
        source: "https://www.kernel.org/doc/html/latest/networking/nf_conntrack-sysctl.html",
        needs: &[CLASHES],
        judge: race,
    },
];

/// Most entries that the kernel takes: its variable is an int. Source: nf_conntrack_standalone.c.
const MOST_ENTRIES: u64 = i32::MAX as u64;
/// Most buckets of 8 bytes that kernels take: INT_MAX bytes, in whole pages of any size. Source: nf_ct_alloc_hashtable.
const MOST_BUCKETS: u64 = (1 << 28) - 8192;

/// One table: the machine's limit is the same in all namespaces. One that was full goes before one that dropped for a
/// reason that is not known.
fn fullest<'a>(seen: &Seen<'a>) -> Option<&'a ConntrackTable> {
    let by_share = |t: &&ConntrackTable| (t.used_share().unwrap_or(0.0) * 1e6) as u64;
    let lost = |t: &&ConntrackTable| t.was_full() && t.dropped_full() > 0;
    seen.snapshot.conntrack.iter().max_by_key(|t| (lost(t), t.was_full(), t.dropped_full(), by_share(t)))
}

/// Whether packets were dropped because a table was full.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Loss {
    /// The kernel was seen to find no room for them.
    Seen,
    /// A table dropped packets, and was full.
    Counted,
    /// Packets were dropped, and nothing says that a table was full.
    Unexplained,
    None,
}

impl Loss {
    fn of(seen: &Seen<'_>) -> Self {
        let mut dropped = seen.snapshot.conntrack.iter().filter(|t| t.dropped_full() > 0).peekable();
        if seen.snapshot.conntrack_trouble.table_full > 0 {
            Self::Seen
        } else if dropped.peek().is_none() {
            Self::None
        } else if dropped.any(ConntrackTable::was_full) {
            Self::Counted
        } else {
            Self::Unexplained
        }
    }

    const fn is_proven(self) -> bool {
        matches!(self, Self::Seen | Self::Counted)
    }
}

/// A namespace that tracks connections, and of which it is not known how many.
fn unread<'a>(seen: &Seen<'a>) -> Option<&'a str> {
    let (tables, node) = (&seen.snapshot.conntrack, seen.node);
    let without = |t: &&ConntrackTable| t.max.is_none() || t.entries.is_none();
    let left_out =
        || node.of_each(MAX).map(|(netns, _)| netns).find(|n| tables.iter().all(|t| t.netns != *n));
    tables.iter().find(without).map(|t| t.netns.as_str()).or_else(left_out)
}

fn not_read(netns: &str) -> Judgement {
    Judgement::cannot_tell(
        format!("how full the table of {netns} is cannot be read"),
        format!("conntrack -C and conntrack -S, in {netns}; nettrace doctor"),
    )
}

/// Nothing says why packets were dropped.
fn unexplained(seen: &Seen<'_>) -> Judgement {
    let looked = seen.snapshot.probes.iter().any(|p| p.name == FULL_TABLES && p.source.is_some());
    let logged = "dmesg | grep 'table full'";
    let to_tell = if looked {
        format!("{logged}; conntrack -S, while packets are dropped")
    } else {
        format!("{logged}; nettrace run --signals {CONNTRACK},{FULL_TABLES}")
    };
    Judgement::cannot_tell(
        "packets were dropped, and nothing shows that a table was full: the kernel also counts packets that do not fit the \
         state of their connection",
        to_tell,
    )
    .sure(Confidence::Medium)
}

fn max(seen: &Seen<'_>) -> Judgement {
    let tables = &seen.snapshot.conntrack;
    let (table, loss) = (fullest(seen), Loss::of(seen));
    let made_room = total(tables.iter().filter_map(|t| t.total().early_drop));
    let judgement = match loss {
        Loss::Seen | Loss::Counted => {
            Judgement::apply("the table was full, and packets of new connections were dropped")
                .sure(if loss == Loss::Seen { Confidence::High } else { Confidence::Medium })
                .brings("new connections no longer fail; a packet that passes takes as long as before")
        }
        Loss::Unexplained => unexplained(seen),
        Loss::None if made_room > 0 => Judgement::consider(
            "the table was full: connections were thrown out before their time to make room",
        )
        .brings("connections stay as long as their timeouts say; no latency"),
        Loss::None if table.is_some_and(ConntrackTable::is_nearly_full) => {
            Judgement::consider("the table is nearly full")
                .brings("room before packets are dropped; no latency")
        }
        Loss::None => match (unread(seen), table) {
            (Some(netns), _) => not_read(netns),
            (None, None) => Judgement::not_needed("no namespace tracks connections"),
            (None, Some(_)) => Judgement::not_needed("the table has room, and none was dropped"),
        },
    };
    let judgement = figures(judgement, seen, table, made_room);
    if judgement.verdict.is_urgent() { larger(judgement, seen) } else { judgement }
}

fn figures(
    judgement: Judgement,
    seen: &Seen<'_>,
    table: Option<&ConntrackTable>,
    made_room: u64,
) -> Judgement {
    let by_packet = seen.snapshot.conntrack_trouble.table_full;
    let dropped = total(seen.snapshot.conntrack.iter().map(ConntrackTable::dropped_full));
    let what = match Loss::of(seen) {
        Loss::Unexplained => "packets dropped that lost no race",
        _ => "packets dropped, table full",
    };
    let judgement = judgement.seen(what, units::count(dropped.max(by_packet)), Some("1".to_owned()));
    let judgement = if made_room > 0 {
        judgement.with("connections thrown out to make room", units::count(made_room))
    } else {
        judgement
    };
    let Some(table) = table else { return judgement };
    let use_of = match (table.entries, table.max) {
        (Some(entries), Some(0)) => format!("{}, no limit", units::count(entries)),
        (Some(entries), Some(limit)) => of(entries, limit),
        _ => "not known".to_owned(),
    };
    let threshold = units::percent(ConntrackTable::NEARLY_FULL_SHARE);
    judgement.seen(&format!("connections in {}", table.netns), use_of, Some(threshold))
}

/// What the tables take: all namespaces have the same limit.
fn limit(seen: &Seen<'_>) -> Option<u64> {
    let of_tables = seen.snapshot.conntrack.iter().filter_map(|t| t.max);
    let set = seen.node.of_each(MAX).filter_map(|(_, value)| last_number(value));
    of_tables.chain(set).find(|n| *n > 0)
}

/// Twice as many entries, and as many buckets unless there are: each entry is in two chains. No more than the kernel takes.
fn larger(mut judgement: Judgement, seen: &Seen<'_>) -> Judgement {
    let Some(limit) = limit(seen) else {
        return judgement.change(by_hand("host", &format!("raise {MAX} to twice what it is"), "what it was"));
    };
    if limit >= MOST_ENTRIES {
        judgement.verdict = Verdict::Consider;
        judgement.effect = None;
        judgement.because += "; its limit is the kernel's own, and cannot be raised";
        return judgement;
    }
    let twice = limit.saturating_mul(2).min(MOST_ENTRIES);
    let set = |name, to: u64, before: &str| sysctl("host", name, &to.to_string(), before, Some(KUBE_PROXY));
    let judgement = judgement.change(set(MAX, twice, &limit.to_string()));
    let chains = twice.min(MOST_BUCKETS);
    let buckets = seen.node.of_each(BUCKETS).next().map(|(_, value)| value);
    match buckets.filter(|value| last_number(value).is_some_and(|n| n < chains)) {
        Some(value) => judgement.change(set(BUCKETS, chains, value)),
        None => judgement,
    }
}

/// The time counts where the table fills up: of the fullest one.
fn established(seen: &Seen<'_>) -> Judgement {
    let loss = Loss::of(seen);
    let Some(table) = fullest(seen) else {
        return unread(seen)
            .map_or_else(|| Judgement::not_needed("no namespace tracks connections"), not_read);
    };
    let netns = &table.netns;
    let full = table.was_full() || loss.is_proven();
    if !full && let Some(netns) = unread(seen) {
        return not_read(netns);
    }
    if !full && loss == Loss::Unexplained {
        return unexplained(seen);
    }
    let value = seen.node.namespace(netns).and_then(|settings| settings.value(ESTABLISHED));
    let seconds = value.and_then(last_number);
    let judgement = match (full, value, seconds) {
        (false, ..) => Judgement::not_needed(
            "the table has room: a shorter time frees nothing that is needed, and makes no packet faster",
        ),
        (true, Some(value), Some(s)) if s >= DEFAULT_ESTABLISHED_S => {
            Judgement::consider("the table fills up, and idle connections stay in it for days")
                .sure(Confidence::Low)
                .brings("fewer entries; no latency")
                .change(sysctl(netns, ESTABLISHED, "86400", value, Some(KUBE_PROXY)))
        }
        (true, _, Some(_)) => {
            Judgement::not_needed("the table fills up although idle connections do not stay for long")
        }
        (true, _, None) => Judgement::cannot_tell(
            format!("the table of {netns} fills up, and {ESTABLISHED} could not be read there"),
            format!("sysctl {ESTABLISHED}, in {netns}"),
        ),
    };
    let value = value.map_or_else(|| "not known".to_owned(), |value| format!("{value} s"));
    judgement.with(&format!("{ESTABLISHED} in {netns}"), value)
}

/// What keeps DNS queries from racing. Flows have the address that clients share, and do not tell whose the queries were.
fn prevented(judgement: Judgement) -> Judgement {
    let random = Change {
        owner: Some("kube-proxy, the network plugin or ip-masq-agent, where it makes the rule".to_owned()),
        ..by_hand(
            "node",
            "--random-fully in the rules of iptables -t nat that have MASQUERADE or SNAT (nft: masquerade fully-random): where \
             clients behind one address clash",
            "the rules without it",
        )
    };
    judgement
        .change(random)
        .change(by_hand("cluster", "NodeLocal DNSCache: in both cases", "remove it"))
        .change(by_hand(
            "pods",
            "options single-request-reopen in resolv.conf (glibc): only where queries of one socket clash, which kernels let \
             through as a rule (clashes, resolved)",
            "remove it",
        ))
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
        // Since 5.7, where this is seen from, the kernel lets the clashes of one socket's own queries through: what it cannot
        // settle are two connections that are answered the same. Source: nf_ct_resolve_clash.
        let judgement = Judgement::apply(
            "DNS queries were dropped that raced with another one which is answered at the same address and port: most likely \
             of another client behind one address (SNAT, masquerading)",
        )
        .brings(format!(
            "queries no longer wait for the resolver's retry, 5 s by default: {} in the time measured",
            units::count(of_dns)
        ));
        prevented(judgement)
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
