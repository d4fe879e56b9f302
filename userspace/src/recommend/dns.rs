//! Name resolution: slow and silent servers, names that are looked up in vain, answers that do not fit.

use super::{Confidence, Judgement, Risk, Rule, Seen, by_hand, of, total};
use crate::{
    report::units,
    snapshot::{Dns, DnsName, DnsServer},
};
use nettrace_common::Signal;
use std::collections::BTreeSet;

const NEEDS: &[&str] = &[Signal::DnsLatency.name()];
/// Fewer tell nothing of a server.
const ENOUGH: u64 = 20;
/// Shares of all transactions, from which on each is worth a change.
const TIMEOUT_SHARE: f64 = 0.005;
const WASTE_SHARE: f64 = 0.3;
const TRUNCATED_SHARE: f64 = 0.05;

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "dns.cache",
        advice: "run NodeLocal DNSCache; cache 30 in CoreDNS",
        looks_at: "The median latency of each server with 20 answers or more: 10 ms (latency profile: 5 ms); and how many of its \
                   transactions are for names that it had been asked for before: 50 % (apply).",
        risk: Risk::Medium,
        when_not: "Names are looked up once each: a cache answers what was asked before. Under IPVS the kubelet's \
                   --cluster-dns has to change.",
        source: "https://kubernetes.io/docs/tasks/administer-cluster/nodelocaldns/",
        needs: NEEDS,
        judge: |seen| of_enough(seen, cache),
    },
    Rule {
        id: "dns.timeouts",
        advice: "shorten the resolver's timeout and number of attempts",
        looks_at: "Transactions without an answer: 0.5 % of all, and two at least.",
        risk: Risk::Low,
        when_not: "Answers are lost on their way: shorter times hide the loss and add queries.",
        source: "https://man7.org/linux/man-pages/man5/resolv.conf.5.html",
        needs: NEEDS,
        judge: |seen| of_enough(seen, timeouts),
    },
    Rule {
        id: "dns.search",
        advice: "set ndots to 1 or 2, or write names with a trailing dot",
        looks_at: "Names that do not exist and are another name that was asked for with a search domain behind it: 30 % of \
                   all transactions.",
        risk: Risk::Medium,
        when_not: "Applications use names with dots in them that only a search domain completes, such as service.namespace.",
        source: "https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/",
        needs: NEEDS,
        judge: |seen| of_enough(seen, search),
    },
    Rule {
        id: "dns.nxdomain",
        advice: "cache negative answers",
        looks_at: "Names that do not exist and are no search's: 30 % of all transactions.",
        risk: Risk::Low,
        when_not: "The name is about to exist: it is found later.",
        source: "https://www.rfc-editor.org/rfc/rfc2308",
        needs: NEEDS,
        judge: |seen| of_enough(seen, nxdomain),
    },
    Rule {
        id: "dns.truncated",
        advice: "allow larger DNS answers by UDP",
        looks_at: "Answers that did not fit and are asked for again by TCP: 5 % of all.",
        risk: Risk::Low,
        when_not: "The path does not carry larger packets whole: fragments are lost more easily.",
        source: "https://www.rfc-editor.org/rfc/rfc9715",
        needs: NEEDS,
        judge: |seen| of_enough(seen, truncated),
    },
];

/// What a rule says of DNS, if there was enough of it.
fn of_enough(seen: &Seen<'_>, judge: fn(&Seen<'_>, &Dns) -> Judgement) -> Judgement {
    let dns = &seen.snapshot.dns;
    if dns.transactions >= ENOUGH {
        return judge(seen, dns);
    }
    let few = units::plural(dns.transactions, "DNS transaction", "DNS transactions");
    Judgement::cannot_tell(
        format!("{few} seen, {ENOUGH} are needed"),
        "nettrace run -d 1m --signals dns.latency, while names are looked up",
    )
    .sure(Confidence::Low)
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Transactions with a server for names that it had been asked for before, and its transactions. Where that is not known by
/// server, of all together, if nearly all is asked of this one.
fn again(dns: &Dns, server: &DnsServer) -> Option<(u64, u64)> {
    if let Some(again) = server.asked_again {
        return Some((again, server.transactions));
    }
    let again = total(dns.names.iter().map(|n| n.transactions.saturating_sub(1)));
    (share(server.transactions, dns.transactions) >= 0.9).then_some((again, dns.transactions))
}

fn median(server: &DnsServer) -> u64 {
    server.hist.quantile_ns(0.5)
}

fn cache(seen: &Seen<'_>, dns: &Dns) -> Judgement {
    let enough = dns.servers.iter().filter(|s| s.hist.count() >= ENOUGH);
    let Some(slowest) = enough.max_by_key(|s| median(s)) else {
        return Judgement::cannot_tell(
            format!("no server gave {ENOUGH} answers"),
            "nettrace run -d 1m --signals dns.latency",
        );
    };
    let again = again(dns, slowest);
    let median_ns = median(slowest);
    let judgement = if median_ns < seen.limits.dns_ns {
        Judgement::not_needed("answers come quickly")
    } else if again.is_some_and(|(again, all)| share(again, all) >= 0.5) {
        Judgement::apply(format!(
            "{} answers slowly, and is asked most often for names that it was asked for before",
            slowest.server
        ))
        .sure(Confidence::Medium)
        .brings(format!(
            "up to {} less for a name that was asked for before; nothing for others",
            units::duration(median_ns)
        ))
        .change(by_hand("cluster", "NodeLocal DNSCache, or a longer cache in CoreDNS", "remove it"))
    } else {
        Judgement::consider(format!(
            "{} answers slowly; that it is asked for the same names again was not seen",
            slowest.server
        ))
        .sure(Confidence::Low)
        .brings("perhaps little by a cache: look at the server and at the way to it first")
    };
    let judgement = judgement
        .seen(
            &format!("median latency of {}", slowest.server),
            units::duration(median_ns),
            Some(units::duration(seen.limits.dns_ns)),
        )
        .with("p99", units::duration(slowest.hist.quantile_ns(0.99)));
    again.into_iter().fold(judgement, |judgement, (again, all)| {
        judgement.with("transactions with it for names asked for before", of(again, all))
    })
}

fn timeouts(_: &Seen<'_>, dns: &Dns) -> Judgement {
    let worst = dns.servers.iter().max_by_key(|s| s.timeouts);
    let judgement = if dns.timeouts < 2 || share(dns.timeouts, dns.transactions) < TIMEOUT_SHARE {
        Judgement::not_needed("queries are answered")
    } else {
        let server = worst.map_or_else(|| "a server".to_owned(), |s| s.server.to_string());
        Judgement::consider(format!(
            "{server} leaves queries without an answer: find out why before resolvers ask sooner"
        ))
        .sure(Confidence::Medium)
        .brings(
            "a name fails or is found elsewhere after 1 s instead of 5 s, where the resolver's defaults hold",
        )
        .change(by_hand("pods", "options timeout:1 attempts:3 in resolv.conf", "remove it"))
    };
    judgement.seen(
        "transactions without an answer",
        of(dns.timeouts, dns.transactions),
        Some(units::percent(TIMEOUT_SHARE)),
    )
}

/// Transactions for names that do not exist: those that a search domain made of another name, and the others.
fn in_vain(dns: &Dns) -> (u64, u64) {
    let missed = |n: &DnsName| total(n.rcodes.iter().filter(|c| c.name == "NXDOMAIN").map(|c| c.count));
    let exists = |n: &&DnsName| n.rcodes.iter().any(|c| c.name == "NOERROR");
    let found: BTreeSet<_> = dns.names.iter().filter(exists).map(|n| n.name.to_ascii_lowercase()).collect();
    let (mut searched, mut others) = (0_u64, 0_u64);
    for name in &dns.names {
        let lower = name.name.to_ascii_lowercase();
        let ends = lower.match_indices('.').map(|(at, _)| &lower[..at]);
        let of_search = ends.into_iter().any(|begin| found.contains(begin));
        let sum = if of_search { &mut searched } else { &mut others };
        *sum = total([*sum, missed(name)]);
    }
    (searched, others)
}

fn search(seen: &Seen<'_>, dns: &Dns) -> Judgement {
    let (searched, _) = in_vain(dns);
    let judgement = if share(searched, dns.transactions) < WASTE_SHARE {
        Judgement::not_needed("few names are tried with search domains in vain")
    } else {
        let mean = seen.snapshot.signal(Signal::DnsLatency).map_or(0.0, |row| row.hist.mean_ns());
        let each = searched as f64 / dns.transactions.saturating_sub(searched).max(1) as f64;
        Judgement::apply("names are tried with search domains before they are asked for as they are")
            .brings(format!(
                "{each:.1} queries less for each other one, some {} of waiting",
                units::duration_f64(mean * each)
            ))
            .sure(Confidence::Medium)
            .change(by_hand(
                "pods",
                "dnsConfig.options ndots: 1, or names with a trailing dot",
                "ndots: 5, Kubernetes' default",
            ))
    };
    judgement.seen(
        "transactions in vain for a search domain",
        of(searched, dns.transactions),
        Some(units::percent(WASTE_SHARE)),
    )
}

fn nxdomain(_: &Seen<'_>, dns: &Dns) -> Judgement {
    let (_, others) = in_vain(dns);
    let judgement = if share(others, dns.transactions) < WASTE_SHARE {
        Judgement::not_needed("few names do not exist")
    } else {
        Judgement::consider(
            "an application asks again and again for names that do not exist: see to that first",
        )
        .sure(Confidence::Medium)
        .brings("fewer queries. CoreDNS' `cache 30` keeps such answers already: they still leave the pod")
        .change(by_hand(
            "application",
            "ask for names that exist; else NodeLocal DNSCache",
            "as before",
        ))
    };
    judgement.seen(
        "transactions for names that do not exist",
        of(others, dns.transactions),
        Some(units::percent(WASTE_SHARE)),
    )
}

fn truncated(_: &Seen<'_>, dns: &Dns) -> Judgement {
    let judgement = if share(dns.truncated, dns.answered) < TRUNCATED_SHARE {
        Judgement::not_needed("answers fit")
    } else {
        Judgement::consider("answers do not fit and are asked for again by TCP")
            .sure(Confidence::Medium)
            .brings("one round trip and a connection less for each such name")
            .change(by_hand("pods and server", "EDNS with a buffer of 1232 bytes", "as before"))
    };
    judgement
        .seen(
            "answers that did not fit",
            of(dns.truncated, dns.answered),
            Some(units::percent(TRUNCATED_SHARE)),
        )
        .with("transactions by TCP", units::count(dns.tcp))
}
