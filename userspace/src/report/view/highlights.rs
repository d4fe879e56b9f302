//! What to know first: sentences computed from the data, the gravest at the top.

use super::{
    super::units,
    Highlight, Level, clean,
    dns::counts,
    drops::{Gravity, by_reason},
    latency::{in_path_order, quantile_ns},
    netfilter,
    status::{is_left_out, kernel_share, own_share},
};
use crate::snapshot::{BlackHole, ConntrackTable, Snapshot, Tcp, TcpLimited};
use nettrace_common::{Loss, Signal, probes::netfilter::HOOKS};

/// First retransmission timeout of a SYN (RFC 6298), ns: a handshake of this length lost one.
const SYN_TIMEOUT_NS: u64 = 1_000_000_000;
/// Share of segments sent again from which a path loses noticeably: TCP's throughput falls with the root of it.
const RETRANSMIT_SHARE: f64 = 0.01;
/// Time at a netfilter hook, ns, from which its rules are worth a look: with connection tracking and a handful of rules, a
/// hook takes less than 1 us.
const SLOW_RULES_NS: u64 = 5_000;
/// The same for the hundredth packet, which may be a connection's first.
const SLOW_FIRST_NS: u64 = 50_000;
/// Share of the time in which connections were busy sending, from which it is worth a look that send buffers limited them,
/// and the least time: of shorter ones, a jiffy is too much.
const SNDBUF_SHARE: f64 = 0.1;
const SNDBUF_US: u64 = 100_000;
/// Share of NXDOMAIN from which search domains are worth a look.
const NXDOMAIN_SHARE: f64 = 0.2;

/// All highlights, the gravest first; those of one level in the order of the sections.
pub(super) fn all(snapshot: &Snapshot) -> Vec<Highlight> {
    let mut list = List(Vec::new());
    slowest_segments(snapshot, &mut list);
    unmeasured(snapshot, &mut list);
    dns(snapshot, &mut list);
    connections(snapshot, &mut list);
    tcp_trouble(&snapshot.tcp, snapshot.meta.duration_ns, &mut list);
    path_mtu(snapshot, &mut list);
    rules(snapshot, &mut list);
    conntrack(snapshot, &mut list);
    drops(snapshot, &mut list);
    losses(snapshot, &mut list);
    cost(snapshot, &mut list);
    list.0.sort_by_key(|h| std::cmp::Reverse(h.level));
    list.0
}

struct List(Vec<Highlight>);

impl List {
    fn add(&mut self, level: Level, section: &'static str, text: String) {
        self.0.push(Highlight { level, text, section });
    }
}

fn slowest_segments(snapshot: &Snapshot, list: &mut List) {
    let ways: [(&str, &[Signal]); 2] = [
        ("receive", &[Signal::RxSoftirq, Signal::RxStack, Signal::RxSocket]),
        ("send", &[Signal::TxStack, Signal::TxQdisc, Signal::TxDriver]),
    ];
    for (way, segments) in ways {
        let slowest = segments
            .iter()
            .filter_map(|s| snapshot.signal(*s).filter(|data| !data.hist.is_empty()))
            .max_by_key(|data| quantile_ns(data, 0.99));
        if let Some(data) = slowest {
            let text = format!(
                "Slowest part of the {way} path: {}, p99 {} ({}).",
                clean(&data.signal),
                units::duration(quantile_ns(data, 0.99)),
                clean(&data.definition),
            );
            list.add(Level::Note, "time", text);
        }
    }
    if in_path_order(snapshot).is_empty() {
        list.add(
            Level::Warn,
            "time",
            "No latency was measured: no traffic, or no probe could run.".to_owned(),
        );
    }
}

fn unmeasured(snapshot: &Snapshot, list: &mut List) {
    let packets = &snapshot.packets;
    if packets.untimed > 0 {
        let text = format!(
            "{} of {} were timed, chosen evenly: more came than {} a second on a CPU. --packet-budget 0 times all.",
            units::percent(packets.timed_share()),
            units::plural(packets.begun, "packet", "packets"),
            units::count(u64::from(packets.budget_per_cpu_per_s)),
        );
        list.add(Level::Note, "time", text);
    }
    let failed: Vec<_> =
        snapshot.interfaces.iter().filter(|i| i.error.is_some()).map(|i| clean(&i.name)).collect();
    if !failed.is_empty() {
        list.add(Level::Warn, "interfaces", format!("Not fully measured: {}.", some(&failed)));
    }
    let wanted = || snapshot.probes.iter().filter(|p| !is_left_out(p));
    let off: Vec<_> = wanted().filter(|p| p.source.is_none()).map(|p| clean(&p.name)).collect();
    if !off.is_empty() {
        let all = units::plural(wanted().count() as u64, "probe", "probes");
        let text = format!("{} of {all} off: {}.", units::count(off.len() as u64), some(&off));
        list.add(Level::Note, "probes", text);
    }
}

fn dns(snapshot: &Snapshot, list: &mut List) {
    let dns = &snapshot.dns;
    if dns.transactions == 0 {
        return;
    }
    let queries = units::plural(dns.transactions, "query", "queries");
    if dns.timeouts > 0 {
        let mut servers: Vec<_> =
            dns.servers.iter().filter(|s| s.timeouts > 0).map(|s| s.server.to_string()).collect();
        servers.dedup();
        let whose = match servers.as_slice() {
            [] => String::new(),
            [one] => format!(" (server {one})"),
            many => format!(" (servers {})", some(many)),
        };
        list.add(
            Level::Bad,
            "dns",
            format!("DNS: {} of {queries} timed out{whose}.", units::count(dns.timeouts)),
        );
    }
    let failures: Vec<_> =
        dns.rcodes.iter().filter(|c| c.name != "NOERROR" && c.name != "NXDOMAIN").cloned().collect();
    if !failures.is_empty() {
        list.add(Level::Bad, "dns", format!("DNS: servers answered with failures: {}.", counts(&failures)));
    }
    let nxdomain = dns.rcodes.iter().find(|c| c.name == "NXDOMAIN").map_or(0, |c| c.count);
    let share = nxdomain as f64 / dns.answered as f64;
    if share >= NXDOMAIN_SHARE {
        let text = format!(
            "DNS: {} of the answers are NXDOMAIN, as when search domains are tried first.",
            units::percent(share)
        );
        list.add(Level::Warn, "dns", text);
    }
    if let Some(data) = snapshot.signal(Signal::DnsLatency).filter(|data| !data.hist.is_empty()) {
        let text = format!(
            "DNS: {queries}, {} answered; p50 {}, p99 {}.",
            units::count(dns.answered),
            units::duration(quantile_ns(data, 0.5)),
            units::duration(quantile_ns(data, 0.99)),
        );
        list.add(Level::Note, "dns", text);
    }
}

fn connections(snapshot: &Snapshot, list: &mut List) {
    let tcp = &snapshot.tcp;
    if tcp.connect_failures > 0 {
        let attempts = tcp.connects.saturating_add(tcp.connect_failures);
        let text = format!(
            "TCP: {} of {} failed ({}).",
            units::count(tcp.connect_failures),
            units::plural(attempts, "outgoing connection", "outgoing connections"),
            counts(&tcp.failures),
        );
        list.add(Level::Bad, "tcp", text);
    }
    if let Some(data) = snapshot.signal(Signal::TcpConnect) {
        let late = data
            .hist
            .buckets()
            .filter(|(low, _)| *low >= SYN_TIMEOUT_NS)
            .fold(0_u64, |sum, (_, n)| sum.saturating_add(n));
        if late > 0 {
            let text = format!(
                "TCP: {} of {} took 1 s or longer, as when a SYN is lost and sent again.",
                units::count(late),
                units::plural(data.hist.count(), "handshake", "handshakes"),
            );
            list.add(Level::Warn, "tcp", text);
        }
    }
}

fn tcp_trouble(tcp: &Tcp, duration_ns: u64, list: &mut List) {
    if tcp.retransmits > 0 {
        let (level, often) = retransmits(tcp, duration_ns);
        let what = units::plural(tcp.retransmits, "segment was", "segments were");
        list.add(level, "tcp", format!("TCP: {what} sent again ({often})."));
    }
    if let Some(n) = tcp.counters.syn_queue_drops.filter(|n| *n > 0) {
        let what = units::plural(n, "SYN was", "SYN were");
        list.add(
            Level::Bad,
            "tcp",
            format!("TCP: {what} dropped because a queue of half-open connections was full."),
        );
    }
    if let Some(n) = tcp.counters.zero_windows.filter(|n| *n > 0) {
        let times = units::plural(n, "time", "times");
        let text = format!("TCP: a receive window closed {times}: an application did not read fast enough.");
        list.add(Level::Warn, "tcp", text);
    }
    if let Some(n) = tcp.listen_overflows.filter(|n| *n > 0) {
        let what = units::plural(n, "incoming connection was", "incoming connections were");
        list.add(Level::Bad, "tcp", format!("TCP: {what} dropped because an accept queue was full."));
    }
    if let Some(text) = send_buffers(&tcp.limited) {
        list.add(Level::Warn, "tcp", text);
    }
}

fn send_buffers(limited: &TcpLimited) -> Option<String> {
    let us = limited.sndbuf_limited_us;
    let share = limited.share(us).filter(|share| *share >= SNDBUF_SHARE && us >= SNDBUF_US)?;
    Some(format!(
        "TCP: send buffers limited {} for {}, {} of the time in which those that ended were busy sending: raise \
         net.ipv4.tcp_wmem or SO_SNDBUF.",
        units::plural(limited.connections_sndbuf, "connection", "connections"),
        super::tcp::duration(us),
        units::percent(share),
    ))
}

fn rules(snapshot: &Snapshot, list: &mut List) {
    let slow = |hook: &'static &str| {
        let data = netfilter::by_hook(snapshot, hook)?;
        let [p50, p99] = [0.5, 0.99].map(|q| quantile_ns(data, q));
        // Lists that translate addresses are looked at by the first packet of a connection alone.
        let slow = p50 >= SLOW_RULES_NS || p99 >= SLOW_FIRST_NS;
        slow.then(|| format!("{hook} p50 {}, p99 {}", units::duration(p50), units::duration(p99)))
    };
    let slow: Vec<_> = HOOKS.iter().filter_map(slow).collect();
    if !slow.is_empty() {
        let text = format!(
            "Netfilter: hooks take much of a packet's time, as with long lists of rules: {}.",
            slow.join("; ")
        );
        list.add(Level::Warn, "netfilter", text);
    }
}

fn conntrack(snapshot: &Snapshot, list: &mut List) {
    for table in &snapshot.conntrack {
        let (total, netns) = (table.total(), clean(&table.netns));
        if table.dropped_full() > 0 {
            let packets = units::plural(table.dropped_full(), "packet was", "packets were");
            let full = table.was_full() || snapshot.conntrack_trouble.table_full > 0;
            let (level, why) = if full {
                (Level::Bad, "because the table was full")
            } else {
                (Level::Warn, "that lost no race, and nothing shows that the table was full")
            };
            list.add(
                level,
                "conntrack",
                format!("Conntrack ({netns}): {packets} dropped {why}{}.", use_of(table)),
            );
        }
        if table.dropped_raced() > 0 {
            let packets = units::plural(table.dropped_raced(), "packet was", "packets were");
            let text = format!(
                "Conntrack ({netns}): {packets} dropped after losing a race to enter the same connection, as when A \
                 and AAAA are asked from one socket at once."
            );
            list.add(Level::Bad, "conntrack", text);
        }
        if let Some(n) = total.early_drop.filter(|n| *n > 0) {
            let text = format!(
                "Conntrack ({netns}): {} thrown out before their time to make room{}.",
                units::plural(n, "connection was", "connections were"),
                use_of(table)
            );
            list.add(Level::Warn, "conntrack", text);
        } else if let Some(share) =
            table.used_share().filter(|share| *share >= ConntrackTable::NEARLY_FULL_SHARE)
        {
            let text =
                format!("Conntrack ({netns}): the table is {} full{}.", units::percent(share), use_of(table));
            list.add(Level::Warn, "conntrack", text);
        }
    }
}

/// How much of a table is used: ` (12 of 100 connections)`.
fn use_of(table: &ConntrackTable) -> String {
    match (table.entries, table.max) {
        (Some(entries), Some(max)) => {
            format!(" ({} of {} connections at the end)", units::count(entries), units::count(max))
        }
        _ => String::new(),
    }
}

/// How grave the retransmissions are, and how often they came: as a share of the segments sent where that is known.
fn retransmits(tcp: &Tcp, duration_ns: u64) -> (Level, String) {
    if let Some(share) = super::tcp::retransmit_share(tcp) {
        let level = if share >= RETRANSMIT_SHARE { Level::Warn } else { Level::Note };
        return (level, format!("{} of those sent", units::percent(share)));
    }
    // Once a second is what a busy node sees in passing.
    let level = if tcp.retransmits > duration_ns / 1_000_000_000 { Level::Warn } else { Level::Note };
    let rate = if duration_ns == 0 {
        String::new()
    } else {
        format!("{}; ", units::rate(tcp.retransmits, duration_ns))
    };
    (level, format!("{rate}of how many is not known"))
}

fn path_mtu(snapshot: &Snapshot, list: &mut List) {
    let ip = &snapshot.ip;
    if ip.packet_too_big > 0 {
        let narrow = ip.ptb.first().map_or(String::new(), |p| {
            format!(": {} says {} B to {}", p.router, units::count(u64::from(p.mtu)), p.destination)
        });
        let what = units::plural(ip.packet_too_big, "packet was", "packets were");
        list.add(Level::Warn, "fragments", format!("Path MTU: {what} too big for the path{narrow}."));
    }
    for hole in ip.black_holes.iter().filter(|hole| hole.alive) {
        list.add(Level::Bad, "fragments", black_hole(hole));
    }
    if ip.incomplete > 0 {
        let what = units::plural(ip.incomplete, "fragmented datagram", "fragmented datagrams");
        list.add(Level::Warn, "fragments", format!("Fragments: {what} did not become complete."));
    }
}

fn black_hole(hole: &BlackHole) -> String {
    let bytes = |n: u32| format!("{} B", units::count(u64::from(n)));
    let passes = hole.passes_bytes.map_or(String::new(), |n| format!(", while up to {} pass", bytes(n)));
    let told = match hole.messages {
        0 => "no ICMP message says so".to_owned(),
        n => format!("{} to the sender do not help", units::plural(n, "ICMP message", "ICMP messages")),
    };
    format!(
        "Path MTU black hole: packets of {} to {} are lost, and {told}{passes}. Let ICMP \"fragmentation needed\" and \
         \"packet too big\" through, or lower the MTU.",
        bytes(hole.lost_bytes),
        hole.peer,
    )
}

fn drops(snapshot: &Snapshot, list: &mut List) {
    let reasons = by_reason(&snapshot.drops);
    let (usual, wrong): (Vec<_>, Vec<_>) =
        reasons.into_iter().partition(|(gravity, ..)| *gravity == Gravity::Usual);
    let sum = |reasons: &[(Gravity, &str, u64)]| reasons.iter().fold(0_u64, |sum, r| sum.saturating_add(r.2));
    let packets = |n| units::plural(n, "packet was", "packets were");
    let all = sum(&wrong).saturating_add(sum(&usual));
    if !wrong.is_empty() {
        let each = |(gravity, reason, n): &(Gravity, &str, u64)| {
            let share = units::percent(*n as f64 / all as f64);
            format!("{} {} ({share}, {})", clean(reason), units::count(*n), gravity.name())
        };
        let reasons: Vec<_> = wrong.iter().map(each).collect();
        let others = match sum(&usual) {
            0 => String::new(),
            n => format!("; the other {} as is usual", units::count(n)),
        };
        list.add(Level::Warn, "drops", format!("{} dropped: {}{others}.", packets(all), some(&reasons)));
    } else if !usual.is_empty() {
        let reasons: Vec<_> =
            usual.iter().map(|(_, reason, n)| format!("{} {}", clean(reason), units::count(*n))).collect();
        let text = format!("{} dropped, all as is usual: {}.", packets(all), some(&reasons));
        list.add(Level::Note, "drops", text);
    }
}

fn losses(snapshot: &Snapshot, list: &mut List) {
    let damaged = snapshot.losses.iter().filter(|l| l.reason == Loss::BadFrame.name());
    let damaged = damaged.fold(0_u64, |sum, l| sum.saturating_add(l.count));
    if damaged > 0 {
        let what = units::plural(damaged, "part", "parts");
        let text = format!("This report is incomplete: {what} of the recording damaged or missing.");
        list.add(Level::Bad, "losses", text);
    }
    if snapshot.meta.rotated.is_some() {
        let text = "The recording's start was rotated away: what is told of single events (DNS, handshakes, peers, \
                    slow packets) begins later.";
        list.add(Level::Note, "losses", text.to_owned());
    }
    let lost: Vec<_> = snapshot
        .losses
        .iter()
        .filter(|l| l.count > 0)
        .map(|l| format!("{} {}", clean(&l.reason), units::count(l.count)))
        .collect();
    if lost.is_empty() && snapshot.ring.lost == 0 {
        list.add(Level::Good, "losses", "Nothing was lost while measuring.".to_owned());
    } else {
        list.add(Level::Note, "losses", format!("Measurements lost, by reason: {}.", some(&lost)));
    }
}

fn cost(snapshot: &Snapshot, list: &mut List) {
    let text = format!(
        "Measuring cost {} of one CPU in kernel programs, {} in nettrace itself, and {} of memory.",
        kernel_share(snapshot).unwrap_or_else(|| "an unmeasured share".to_owned()),
        units::percent(own_share(snapshot)),
        units::bytes(snapshot.overhead.max_rss_bytes.saturating_add(snapshot.overhead.map_bytes)),
    );
    list.add(Level::Note, "cost", text);
}

/// The first few of a list, and how many more.
fn some(items: &[String]) -> String {
    const SHOWN: usize = 4;
    let mut text = items.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if items.len() > SHOWN {
        text.push_str(&format!(" and {} more", units::count((items.len() - SHOWN) as u64)));
    }
    text
}
