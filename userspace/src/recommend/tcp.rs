//! TCP: queues of listeners, buffers, loss, ports, fast open.

use super::{Confidence, Judgement, Risk, Rule, Seen, by_hand, of, sysctl, total};
use crate::{
    node::{TIME_WAIT, last_number},
    probes::TCP_COUNTERS,
    report::units,
    snapshot::{Count, Tcp},
};
use nettrace_common::Signal;

const SOMAXCONN: &str = "net.core.somaxconn";
const COOKIES: &str = "net.ipv4.tcp_syncookies";
const WMEM: &str = "net.ipv4.tcp_wmem";
const RMEM: &str = "net.ipv4.tcp_rmem";
const TW_REUSE: &str = "net.ipv4.tcp_tw_reuse";
const PORTS: &str = "net.ipv4.ip_local_port_range";
const FAST_OPEN: &str = "net.ipv4.tcp_fastopen";
/// Shorter times are too few jiffies, us.
const LIMITED_US: u64 = 100_000;
/// Segments, below which a share of loss says little.
const ENOUGH_SEGMENTS: u64 = 1000;
/// Share of the local ports, from which on they may not be enough.
const HELD_SHARE: f64 = 0.8;
/// How the applications that listen take part.
const BACKLOG: &str = "the application too: the shorter of its backlog, see listen(2), and this counts";

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "tcp.accept-queue",
        advice: "raise net.core.somaxconn",
        looks_at: "Connections dropped because an accept queue was full: one. Whether the application's backlog or the \
                   setting is too short, the counter does not tell.",
        risk: Risk::Low,
        when_not: "The application accepts too slowly all the time: a longer queue makes its clients wait longer.",
        source: "https://man7.org/linux/man-pages/man2/listen.2.html",
        needs: &["tcp.listen_overflow"],
        judge: accept_queue,
    },
    Rule {
        id: "tcp.syn-queue",
        advice: "raise net.ipv4.tcp_max_syn_backlog",
        looks_at: "SYN dropped, or answered with a cookie, because the queue of half-open connections was full: one.",
        risk: Risk::Low,
        when_not: "It is an attack (SYN flood): cookies are the answer to that.",
        source: "https://docs.kernel.org/networking/ip-sysctl.html",
        needs: &[TCP_COUNTERS],
        judge: syn_queue,
    },
    Rule {
        id: "tcp.send-buffer",
        advice: "raise net.ipv4.tcp_wmem and net.core.wmem_max",
        looks_at: "The share of the time in which connections were busy sending that a full send buffer kept them from it: \
                   10 % (throughput profile: 5 %), and 100 ms.",
        risk: Risk::Low,
        when_not: "Nothing waits for the buffer: what does not fit the path waits in queues instead.",
        source: "https://docs.kernel.org/networking/ip-sysctl.html",
        needs: &["tcp.limited"],
        judge: send_buffer,
    },
    Rule {
        id: "tcp.receive-buffer",
        advice: "raise net.ipv4.tcp_rmem and net.core.rmem_max",
        looks_at: "The share of the time in which connections were busy sending that a receiver's window kept them from it: \
                   10 % (throughput profile: 5 %), and 100 ms; but not where applications let their windows close, because \
                   they do not read.",
        risk: Risk::Low,
        when_not: "Applications do not read fast enough: more buffer is more delay.",
        source: "https://docs.kernel.org/networking/ip-sysctl.html",
        needs: &["tcp.limited", TCP_COUNTERS],
        judge: receive_buffer,
    },
    Rule {
        id: "tcp.loss",
        advice: "change congestion control to BBR",
        looks_at: "The share of segments that were sent again: 1 % of 1,000 or more.",
        risk: Risk::Medium,
        when_not: "Others share a narrow link: BBR takes more than its part from CUBIC. What loses packets stays to be found.",
        source: "https://www.rfc-editor.org/rfc/rfc9438",
        needs: &["tcp.retransmit", TCP_COUNTERS],
        judge: loss,
    },
    Rule {
        id: "tcp.port-exhaustion",
        advice: "set net.ipv4.tcp_tw_reuse to 1",
        looks_at: "Sockets in TIME_WAIT, each of which holds a port towards its peer: 80 % of the range of local ports.",
        risk: Risk::Low,
        when_not: "Ports are free: it saves ports, not latency. Connections kept open save both.",
        source: "https://docs.kernel.org/networking/ip-sysctl.html",
        needs: &[Signal::TcpConnect.name()],
        judge: ports,
    },
    Rule {
        id: "tcp.fastopen",
        advice: "set net.ipv4.tcp_fastopen to 3",
        looks_at: "SYN that ask for a cookie of fast open (TCPFastOpenCookieReqd), connections that use it, and whether \
                   servers may take part (bit 2 of the setting).",
        risk: Risk::Medium,
        when_not: "Applications do not ask for it: clients by MSG_FASTOPEN or TCP_FASTOPEN_CONNECT, servers by TCP_FASTOPEN.",
        source: "https://www.rfc-editor.org/rfc/rfc7413",
        needs: &[Signal::TcpConnect.name(), TCP_COUNTERS],
        judge: fast_open,
    },
];

fn tcp<'a>(seen: &Seen<'a>) -> &'a Tcp {
    &seen.snapshot.tcp
}

/// Twice what a setting is, in each namespace where it is known; no more than `at_most`.
fn doubled(
    judgement: Judgement,
    seen: &Seen<'_>,
    name: &str,
    at_most: u64,
    owner: Option<&str>,
) -> Judgement {
    seen.node.of_each(name).fold(judgement, |judgement, (netns, value)| {
        let Some(n) = last_number(value).filter(|n| *n < at_most) else { return judgement };
        let twice = n.saturating_mul(2).min(at_most);
        // Of three sizes the last is the largest that tuning reaches.
        let mut words: Vec<_> = value.split_whitespace().map(str::to_owned).collect();
        if let Some(last) = words.last_mut() {
            *last = twice.to_string();
        }
        judgement.change(sysctl(netns, name, &words.join(" "), value, owner))
    })
}

fn accept_queue(seen: &Seen<'_>) -> Judgement {
    let Some(overflows) = tcp(seen).listen_overflows else {
        return Judgement::cannot_tell("the kernel's counters could not be read", "nettrace run");
    };
    let judgement = if overflows == 0 {
        Judgement::not_needed("no accept queue was full")
    } else {
        let judgement = Judgement::consider("accept queues were full, and connections were dropped")
            .brings("a client whose SYN is dropped waits 1 s, then 2 s: those waits go, if the application keeps up")
            .change(by_hand(
                "application",
                "accept faster; a longer backlog (`ss -ltn`: Send-Q of the listener whose Recv-Q is as large)",
                "as before",
            ));
        doubled(judgement, seen, SOMAXCONN, 65_535, Some(BACKLOG))
    };
    judgement.seen("connections dropped, accept queue full", units::count(overflows), Some("1".to_owned()))
}

/// A queue of half-open connections is as long as the listener's backlog. `tcp_max_syn_backlog` counts where cookies are
/// off, and drops then are none of these. With `tcp_syncookies` 2, each SYN is answered with a cookie.
/// Source: tcp_conn_request, inet_csk_reqsk_queue_is_full.
fn syn_queue(seen: &Seen<'_>) -> Judgement {
    let counters = tcp(seen).counters;
    let (Some(drops), Some(cookies)) = (counters.syn_queue_drops, counters.syn_cookies) else {
        return Judgement::cannot_tell(
            "the kernel's counters could not be read",
            "nettrace run, without --filter",
        );
    };
    let always = seen.node.of_each(COOKIES).any(|(_, value)| value == "2");
    let judgement = if drops == 0 && (cookies == 0 || always) {
        Judgement::not_needed("no queue of half-open connections was full")
    } else {
        let judgement = Judgement::consider("queues of half-open connections were full")
            .sure(Confidence::Medium)
            .brings("a client whose SYN is dropped waits 1 s at least: those waits go; cookies cost options, not time")
            .change(by_hand("application", "a longer backlog, which is the queue's length, see listen(2)", "as before"));
        doubled(judgement, seen, SOMAXCONN, 65_535, Some(BACKLOG))
    };
    let judgement = judgement.seen("SYN dropped, queue full", units::count(drops), Some("1".to_owned()));
    judgement.seen("SYN answered with a cookie", units::count(cookies), Some("1".to_owned()))
}

/// Whether a part of the busy time is worth a change.
fn is_limited(seen: &Seen<'_>, part_us: u64) -> bool {
    let share = tcp(seen).limited.share(part_us).unwrap_or(0.0);
    part_us >= LIMITED_US && share >= seen.limits.limited_share
}

fn limited_figures(judgement: Judgement, seen: &Seen<'_>, what: &str, part_us: u64) -> Judgement {
    let limited = tcp(seen).limited;
    let threshold = format!("{} and 100 ms", units::percent(seen.limits.limited_share));
    let share = units::percent(limited.share(part_us).unwrap_or(0.0));
    let time = |us: u64| units::duration(us.saturating_mul(1000));
    judgement
        .seen(what, format!("{} of {} busy ({share})", time(part_us), time(limited.busy_us)), Some(threshold))
        .with("connections that ended", units::count(limited.connections))
}

/// No connection ended: what limited those that go on is not known.
fn none_ended(seen: &Seen<'_>) -> Option<Judgement> {
    (tcp(seen).limited.connections == 0).then(|| {
        Judgement::cannot_tell(
            "no connection ended while it was measured; what limited them is known then",
            "nettrace run -d 5m --signals tcp",
        )
    })
}

fn send_buffer(seen: &Seen<'_>) -> Judgement {
    if let Some(cannot) = none_ended(seen) {
        return cannot;
    }
    let part_us = tcp(seen).limited.sndbuf_limited_us;
    let judgement = if is_limited(seen, part_us) {
        let judgement = Judgement::consider("full send buffers kept connections from sending")
            .sure(Confidence::Medium)
            .brings(format!(
                "up to {} more throughput of these connections, where nothing else limits them then",
                units::percent(tcp(seen).limited.share(part_us).unwrap_or(0.0))
            ))
            .change(by_hand(
                "application",
                "not to set SO_SNDBUF: it switches the kernel's tuning off",
                "as before",
            ));
        doubled(judgement, seen, WMEM, 64 << 20, None)
    } else {
        Judgement::not_needed("send buffers keep no connection from sending")
    };
    limited_figures(judgement, seen, "time that send buffers kept connections from sending", part_us)
}

fn receive_buffer(seen: &Seen<'_>) -> Judgement {
    if let Some(cannot) = none_ended(seen) {
        return cannot;
    }
    let part_us = tcp(seen).limited.rwnd_limited_us;
    let closed = tcp(seen).counters.zero_windows;
    let judgement = match closed {
        _ if !is_limited(seen, part_us) => {
            Judgement::not_needed("no receiver keeps connections from sending")
        }
        Some(0) => {
            let judgement = Judgement::consider(
                "receivers' windows kept connections from sending; applications here read in time, of peers it is not known",
            )
            .sure(Confidence::Low)
            .brings("throughput of these connections up to what the path carries; no latency")
            .change(by_hand(
                "the receiver",
                "see whether its application reads (`ss -tm`: Recv-Q), and does without SO_RCVBUF, which ends tuning",
                "as before",
            ));
            doubled(judgement, seen, RMEM, 64 << 20, None)
        }
        Some(_) => Judgement::not_needed(
            "windows were closed here: applications do not read fast enough, and the network is not what they wait for",
        )
        .sure(Confidence::Medium),
        None => Judgement::cannot_tell(
            "whether applications read in time could not be counted",
            "nettrace run, without --filter",
        ),
    };
    let closed = closed.map_or_else(|| "not known".to_owned(), units::count);
    limited_figures(judgement, seen, "time that receivers' windows kept connections from sending", part_us)
        .with("windows closed", closed)
}

fn loss(seen: &Seen<'_>) -> Judgement {
    let tcp = tcp(seen);
    let Some(sent) = tcp.segments_sent else {
        return Judgement::cannot_tell(
            "how many segments were sent is not known",
            "nettrace run, without --filter",
        );
    };
    if sent < ENOUGH_SEGMENTS {
        return Judgement::cannot_tell(
            format!("{} sent, {ENOUGH_SEGMENTS} are needed", units::plural(sent, "segment", "segments")),
            "nettrace run -d 1m",
        );
    }
    let share = tcp.retransmits as f64 / sent.max(1) as f64;
    let judgement = if share >= seen.limits.loss_share {
        let drops = total(seen.snapshot.drops.iter().map(|d| d.count));
        Judgement::consider(if drops > tcp.retransmits / 2 {
            "segments are lost, and this machine drops packets: see its drops first"
        } else {
            "segments are lost on their way"
        })
        .sure(Confidence::Low)
        .brings(
            "BBR's rate does not fall with each loss as CUBIC's; a request that lost a segment waits as long",
        )
        .with("packets that this machine dropped", units::count(drops))
    } else {
        Judgement::not_needed("few segments are sent again")
    };
    judgement
        .seen("segments sent again", of(tcp.retransmits, sent), Some(units::percent(seen.limits.loss_share)))
        .with("of these after a timeout", units::count(tcp.retransmits_timeout))
}

/// Ports of a range that are held by sockets in TIME_WAIT, by namespace: the range's size, and how many.
fn held_ports<'a>(seen: &'a Seen<'_>) -> impl Iterator<Item = (&'a str, u64, u64)> {
    seen.node.of_each(PORTS).filter_map(|(netns, range)| {
        let (first, last) = (range.split_whitespace().next()?.parse::<u64>().ok()?, last_number(range)?);
        let (_, waiting) = seen.node.of_each(TIME_WAIT).find(|(name, _)| *name == netns)?;
        Some((netns, last.checked_sub(first)?.saturating_add(1), waiting.parse().ok()?))
    })
}

/// A connection for which there is no port fails before a packet is sent; the kernel leaves no error at the socket.
fn ports(seen: &Seen<'_>) -> Judgement {
    let Some((netns, ports, waiting)) =
        held_ports(seen).max_by_key(|(_, ports, n)| n.saturating_mul(1000) / ports)
    else {
        return Judgement::cannot_tell(
            "the range of local ports could not be read",
            "ss -s; sysctl net.ipv4.ip_local_port_range",
        );
    };
    let given_up = tcp(seen).failures.iter().filter(|c: &&Count| c.name == "aborted");
    let aborted = total(given_up.map(|c| c.count));
    let share = waiting as f64 / ports as f64;
    let judgement = if share < HELD_SHARE {
        Judgement::not_needed("local ports are free")
    } else {
        let judgement = Judgement::consider(if aborted > 0 {
            "closed connections hold as many ports as there are, and connections failed or were given up: to one peer, there \
             may be no port left"
        } else {
            "closed connections hold as many ports as there are: to one peer, there may be no port left"
        })
        .brings("connections to that peer no longer fail; nothing where these are a server's own or of many peers")
        .change(by_hand("application", "keep connections open", "as before"));
        let tw_reuse = seen.node.of_each(TW_REUSE).filter(|(name, value)| *name == netns && *value != "1");
        tw_reuse
            .fold(judgement, |j, (netns, value)| j.change(sysctl(netns, TW_REUSE, "1", value, None)))
            .sure(Confidence::Low)
    };
    judgement
        .seen(
            &format!("ports of {netns} held in TIME_WAIT"),
            of(waiting, ports),
            Some(units::percent(HELD_SHARE)),
        )
        .with("connections that failed before they were tried, or were given up", units::count(aborted))
}

/// Namespaces in which servers may not take part (bit 2), with the value there.
fn servers_off<'a>(seen: &'a Seen<'_>) -> impl Iterator<Item = (&'a str, &'a str)> {
    let off = |value: &str| last_number(value).is_some_and(|bits| bits & 2 == 0);
    seen.node.of_each(FAST_OPEN).filter(move |(_, value)| off(value))
}

fn fast_open(seen: &Seen<'_>) -> Judgement {
    let tcp = tcp(seen);
    let counters = tcp.counters;
    if counters.fast_open_asked.is_none() {
        return Judgement::cannot_tell(
            "the kernel's counters could not be read",
            "nettrace run, without --filter",
        );
    }
    let used = total([counters.fast_open_active, counters.fast_open_passive].into_iter().flatten());
    let asked = counters.fast_open_asked.unwrap_or(0);
    let round_trip = seen.snapshot.signal(Signal::TcpConnect).map_or(0, |row| row.hist.quantile_ns(0.5));
    let saves =
        format!("{} of a connection to a server that was connected to before", units::duration(round_trip));
    let off = servers_off(seen).next().is_some();
    let judgement = if used > 0 {
        Judgement::not_needed("it is in use")
    } else if asked > 0 && off {
        let judgement = Judgement::consider(
            "clients ask for it, and there are namespaces whose servers may not take part",
        )
        .sure(Confidence::Low)
        .brings(saves)
        .change(by_hand("server", "TCP_FASTOPEN on its listening socket", "without it"));
        servers_off(seen).fold(judgement, |j, (netns, value)| {
            let both = (last_number(value).unwrap_or(1) | 3).to_string();
            j.change(sysctl(netns, FAST_OPEN, &both, value, None))
        })
    } else if tcp.connects == 0 && tcp.accepts == 0 {
        Judgement::not_needed(
            "no connection was opened: it saves a round trip of a new one, and nothing else",
        )
    } else if seen.node.of_each(FAST_OPEN).next().is_some() && !off {
        Judgement::not_needed("it is on, and no SYN that was received asks for it")
    } else {
        Judgement::cannot_tell(
            format!(
                "no SYN that was received asks for it; what applications could, and save by it ({saves}), is not known"
            ),
            "find out whether the application can (MSG_FASTOPEN, TCP_FASTOPEN_CONNECT, TCP_FASTOPEN)",
        )
    };
    seen.node
        .of_each(FAST_OPEN)
        .fold(judgement, |j, (netns, value)| j.with(&format!("{FAST_OPEN} in {netns}"), value.to_owned()))
        .seen("SYN received that ask for it", units::count(asked), Some("1".to_owned()))
        .with("connections with data in their SYN", units::count(used))
}
