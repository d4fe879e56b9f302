//! Name resolution: slow and silent servers, names that are looked up in vain, answers that do not fit.

use super::{Confidence, Judgement, Risk, Rule, Seen, by_hand, of, total};
use crate::{
    report::units,
    snapshot::{Dns, DnsName, DnsServer},
};
use nettrace_common::Signal;
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

const NEEDS: &[&str] = &[Signal::DnsLatency.name()];
/// Fewer tell nothing of a server.
const ENOUGH: u64 = 20;
/// Shares of all transactions, from which on each is worth a change.
const TIMEOUT_SHARE: f64 = 0.005;
const WASTE_SHARE: f64 = 0.3;
const TRUNCATED_SHARE: f64 = 0.05;
/// Share of a server's transactions, from which on most of them are such that a cache would have answered.
const AGAIN_SHARE: f64 = 0.5;
/// Where NodeLocal DNSCache listens, by its usual manifest.
const NODE_LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 20, 10));
const DNS_PORT: u16 = 53;

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "dns.cache",
        advice: "run NodeLocal DNSCache; cache 30 in CoreDNS",
        looks_at: "The median latency by UDP of each server with 20 answers or more: 10 ms (latency profile: 5 ms); how many of \
                   its transactions are for names that the same client had asked it for in the 5 s before, for which CoreDNS' \
                   cache keeps any answer: 50 % (apply); and whether a cache of this node is on the way: NodeLocal DNSCache, or a \
                   resolver at the loopback of those who ask.",
        risk: Risk::Medium,
        when_not: "Names are looked up once each: a cache answers what was asked before; or lookups stay on the node. CoreDNS has \
                   `cache 30` by default. NodeLocal DNSCache's manifest is a template: its __PILLAR__ values are to be \
                   substituted. Under IPVS the kubelet's --cluster-dns has to change.",
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

fn median(server: &DnsServer) -> u64 {
    server.hist.quantile_ns(0.5)
}

/// The server that answers most slowly by a transport, of those that have a row of their own and gave answers enough.
fn slowest<'a>(dns: &'a Dns, transport: &str) -> Option<&'a DnsServer> {
    let of_it = |s: &&DnsServer| s.transport == transport && !s.server.is_unspecified();
    dns.servers.iter().filter(of_it).filter(|s| s.hist.count() >= ENOUGH).max_by_key(|s| median(s))
}

fn cache(seen: &Seen<'_>, dns: &Dns) -> Judgement {
    let (udp, tcp) = (slowest(dns, "udp"), slowest(dns, "tcp"));
    let is_slow = |server: &&DnsServer| median(server) >= seen.limits.dns_ns;
    let Some(server) = udp.filter(is_slow).or_else(|| tcp.filter(is_slow)).or(udp).or(tcp) else {
        return Judgement::cannot_tell(
            format!("no server gave {ENOUGH} answers"),
            "nettrace run -d 1m --signals dns.latency",
        );
    };
    let judgement = if !is_slow(&server) {
        Judgement::not_needed("answers come quickly")
    } else if server.transport == "tcp" {
        Judgement::cannot_tell(
            format!(
                "{} answers slowly by TCP: by that a cache asks its servers, and whoever got an answer that did not fit",
                server.server
            ),
            "kubectl -n kube-system get pods -o wide: whether who asks is a DNS server; dns.truncated",
        )
    } else {
        local_cache(seen, dns, server).unwrap_or_else(|| slow(server))
    };
    let judgement = judgement
        .seen(
            &format!("median latency of {}", server.server),
            units::duration(median(server)),
            Some(units::duration(seen.limits.dns_ns)),
        )
        .with("p99", units::duration(server.hist.quantile_ns(0.99)));
    match server.asked_again {
        Some(again) => judgement.seen(
            "transactions with it for names that the same client asked for in the 5 s before",
            of(again, server.transactions),
            Some(units::percent(AGAIN_SHARE)),
        ),
        None => judgement,
    }
}

/// A slow server to which no cache of this node is known to be on the way.
fn slow(server: &DnsServer) -> Judgement {
    let again = server.asked_again.is_some_and(|again| share(again, server.transactions) >= AGAIN_SHARE);
    if again {
        return Judgement::apply(format!(
            "{} answers slowly, and is asked most often for names that the same client has just asked for",
            server.server
        ))
        .sure(Confidence::Medium)
        .brings(format!(
            "up to {} less for a name that was asked for before; nothing for others",
            units::duration(median(server))
        ))
        .change(by_hand("cluster", "NodeLocal DNSCache, or a longer cache in CoreDNS", "remove it"));
    }
    Judgement::consider(format!(
        "{} answers slowly; that it is asked for the same names again was not seen",
        server.server
    ))
    .sure(Confidence::Low)
    .brings("perhaps little by a cache: look at the server and at the way to it first")
}

/// Whether a cache of this node has its place there.
fn is_local(address: IpAddr) -> bool {
    let address = address.to_canonical();
    address.is_loopback() || address == NODE_LOCAL
}

/// Whether a socket of the host has this very address for DNS: so has NodeLocal DNSCache the cluster's own one.
fn listens_on_host(seen: &Seen<'_>, address: IpAddr) -> bool {
    let listeners = seen.node.namespace("host").map_or(&[][..], |host| &host.sockets.listeners);
    listeners.iter().any(|l| l.port == DNS_PORT && l.address.to_canonical() == address.to_canonical())
}

/// What is said where a cache is on the way to a slow server, or may be. What it asks for when an answer has become too old
/// looks like clients that ask again.
fn local_cache(seen: &Seen<'_>, dns: &Dns, slow: &DnsServer) -> Option<Judgement> {
    if is_local(slow.server) || listens_on_host(seen, slow.server) {
        return Some(Judgement::cannot_tell(
            format!(
                "{} is a cache of this node: whether it waits for its servers, or keeps too little, was not measured",
                slow.server
            ),
            "its hits and misses: coredns_cache_hits_total, or resolvectl statistics",
        ));
    }
    let clients: BTreeSet<IpAddr> =
        dns.slowest.iter().filter(|t| t.server == slow.server).map(|t| t.client.to_canonical()).collect();
    if let Some(server) = dns.servers.iter().find(|s| clients.contains(&s.server.to_canonical())) {
        return Some(Judgement::cannot_tell(
            format!(
                "{} asks it, which is a DNS server itself: what it asks when an answer has become too old looks the same",
                server.server
            ),
            "its hits and misses: coredns_cache_hits_total",
        ));
    }
    let known: Vec<_> = caches(seen, dns).filter(|cache| cache.serves(seen, &clients)).collect();
    let cache = known.iter().max_by_key(|cache| cache.asked)?;
    let Cache { address, from, .. } = cache;
    Some(if cache.asked {
        Judgement::not_needed(format!(
            "a cache of this node is there, {address}: what {} is asked is what that one has not, or goes past it",
            slow.server
        ))
        .sure(Confidence::Medium)
        .with("the cache", from.clone())
    } else {
        Judgement::cannot_tell(
            format!("a cache of this node may be on the way, {address}; that it is asked was not seen"),
            "ss -lnup 'sport = 53'; nettrace run -d 1m --signals dns.latency --iface lo: what the cache is asked itself",
        )
        .with("the cache", from.clone())
    })
}

/// A cache of this node.
struct Cache<'a> {
    address: IpAddr,
    /// Whose: a network namespace.
    netns: &'a str,
    /// What tells of it.
    from: String,
    /// Whether queries to it were seen.
    asked: bool,
}

impl Cache<'_> {
    /// Whether a cache is for these clients, or whose they are is not known. NodeLocal DNSCache is for all, also under the
    /// cluster's own address for DNS; one at the loopback is for its namespace.
    fn serves(&self, seen: &Seen<'_>, clients: &BTreeSet<IpAddr>) -> bool {
        let netns = seen.node.namespace(self.netns).into_iter();
        let addresses: Vec<_> = netns.flat_map(crate::node::Settings::addresses).collect();
        self.address == NODE_LOCAL
            || clients.is_empty()
            || addresses.is_empty()
            || addresses.iter().any(|address| clients.contains(&address.to_canonical()))
    }
}

/// Caches of this node: of sockets that listen, of the host's resolv.conf, and of queries to them, which are the host's where
/// nothing else is known of them.
fn caches<'a>(seen: &Seen<'a>, dns: &'a Dns) -> impl Iterator<Item = Cache<'a>> {
    let asked = |address: IpAddr| {
        dns.servers.iter().any(|s| s.server.to_canonical() == address && s.transactions > 0)
    };
    let cache = move |address: IpAddr, netns, from: &str| {
        let address = address.to_canonical();
        is_local(address).then(|| Cache { address, netns, from: from.to_owned(), asked: asked(address) })
    };
    let node = seen.node;
    let listening = node.namespaces.iter().flat_map(move |netns| {
        let dns = netns.sockets.listeners.iter().filter(|listener| listener.port == DNS_PORT);
        dns.filter_map(move |l| cache(l.address, &netns.netns, &format!("listens in {}", netns.netns)))
    });
    // That of the host says nothing of pods.
    let host =
        node.namespace("host").and(node.machine.as_ref()).and_then(|machine| machine.resolver.as_ref());
    let servers = host.into_iter().flat_map(|resolver| &resolver.nameservers);
    let configured =
        servers.filter_map(move |server| cache(server.parse().ok()?, "host", "the host's resolv.conf"));
    let rows = dns.servers.iter().filter_map(move |s| cache(s.server, "host", "queries to it"));
    listening.chain(configured).chain(rows)
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
