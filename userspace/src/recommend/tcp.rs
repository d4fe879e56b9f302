//! TCP: queues of listeners, buffers, loss, ports, fast open.

mod loss;
mod ports;
mod queues;
mod receive;

use super::{Change, Confidence, Judgement, Risk, Rule, Seen, by_hand, sysctl, total};
use crate::{node::last_number, probes::TCP_COUNTERS, report::units, snapshot::Tcp};
use nettrace_common::Signal;

const SOMAXCONN: &str = "net.core.somaxconn";
const WMEM: &str = "net.ipv4.tcp_wmem";
const RMEM: &str = "net.ipv4.tcp_rmem";
const FAST_OPEN: &str = "net.ipv4.tcp_fastopen";
/// Longest queue that is advised, connections.
const QUEUE_AT_MOST: u64 = 65_535;
/// Largest buffer that is advised, bytes.
const BUFFER_AT_MOST: u64 = 64 << 20;
/// Shorter times are too few jiffies, us.
const LIMITED_US: u64 = 100_000;
/// Segments, below which a share of loss says little.
const ENOUGH_SEGMENTS: u64 = 1000;
pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "tcp.accept-queue",
        advice: "raise net.core.somaxconn",
        looks_at: "Connections dropped because an accept queue was full: one, by network namespace. Of the listeners \
                   there that dropped, the limit of their queues: the setting (apply), or a shorter backlog of the \
                   application; and whether more than half of a queue is still in use at the end.",
        risk: Risk::Low,
        when_not: "The application accepts too slowly all the time: a longer queue makes its clients wait longer.",
        source: "https://man7.org/linux/man-pages/man2/listen.2.html",
        needs: &["tcp.listen_overflow"],
        judge: queues::accept_queue,
    },
    Rule {
        id: "tcp.syn-queue",
        advice: "raise net.ipv4.tcp_max_syn_backlog",
        looks_at: "SYN dropped, or answered with a cookie, because the queue of half-open connections was full: one.",
        risk: Risk::Low,
        when_not: "It is an attack (SYN flood): cookies are the answer to that.",
        source: "https://docs.kernel.org/networking/ip-sysctl.html",
        needs: &[TCP_COUNTERS],
        judge: queues::syn_queue,
    },
    Rule {
        id: "tcp.send-buffer",
        advice: "raise net.ipv4.tcp_wmem and net.core.wmem_max",
        looks_at: "The share of the time in which connections were busy sending that a full send buffer kept them from it: \
                   10 % (throughput profile: 5 %), and 100 ms; and open connections whose buffer is as large as the \
                   setting lets it grow, by network namespace.",
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
                   10 % (throughput profile: 5 %), and 100 ms; of receivers by address: in a namespace that was measured, \
                   whether applications let their windows close because they do not read (then it is not needed). Of \
                   others it cannot be told.",
        risk: Risk::Low,
        when_not: "Applications do not read fast enough: more buffer is more delay.",
        source: "https://docs.kernel.org/networking/ip-sysctl.html",
        needs: &["tcp.limited", TCP_COUNTERS],
        judge: receive::judge,
    },
    Rule {
        id: "tcp.loss",
        advice: "change congestion control to BBR",
        looks_at: "The share of segments that were sent again: 1 % of 1,000 or more. Where queues of this machine dropped half \
                   as many, they were not lost on their way: fq_codel and cake drop to keep themselves short (then it is not \
                   needed), of others it cannot be told.",
        risk: Risk::Medium,
        when_not: "Others share a narrow link: BBR takes more than its part from CUBIC. What loses packets stays to be found.",
        source: "https://www.rfc-editor.org/rfc/rfc9438",
        needs: &["tcp.retransmit", TCP_COUNTERS],
        judge: loss::judge,
    },
    Rule {
        id: "tcp.port-exhaustion",
        advice: "set net.ipv4.tcp_tw_reuse to 1",
        looks_at: "The local ports in use from one address to one port of a peer: 80 % of the range; 95 %, most of them \
                   held in TIME_WAIT, and connections to that peer that failed, all at once (50 ms) and without an error: \
                   there was no port (apply).",
        risk: Risk::Low,
        when_not: "Ports are free: it saves ports, not latency. Connections kept open save both.",
        source: "https://docs.kernel.org/networking/ip-sysctl.html",
        needs: &[Signal::TcpConnect.name()],
        judge: ports::judge,
    },
    Rule {
        id: "tcp.fastopen",
        advice: "set net.ipv4.tcp_fastopen to 3",
        looks_at: "SYN that ask for a cookie of fast open (TCPFastOpenCookieReqd), connections that use it, and whether \
                   servers may take part (bit 2 of the setting) in that network namespace.",
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
    seen.node
        .of_each(name)
        .fold(judgement, |judgement, (netns, value)| raised(judgement, netns, name, value, at_most, owner))
}

/// Twice what a setting is, no more than `at_most`; where that cannot be, a figure that says why.
fn raised(
    judgement: Judgement,
    netns: &str,
    name: &str,
    value: &str,
    at_most: u64,
    owner: Option<&str>,
) -> Judgement {
    let stays = |why: String| format!("{value}, {why}");
    match last_number(value) {
        Some(n) if n < at_most => judgement.change(twice(netns, name, value, n, at_most, owner)),
        Some(_) => judgement
            .with(&format!("{name} in {netns}"), stays(format!("and more than {at_most} is not advised"))),
        None => judgement.with(&format!("{name} in {netns}"), stays("which is no number".to_owned())),
    }
}

fn twice(netns: &str, name: &str, value: &str, n: u64, at_most: u64, owner: Option<&str>) -> Change {
    let twice = n.max(1).saturating_mul(2).min(at_most).to_string();
    // Of three sizes the last is the largest that tuning reaches.
    let mut words: Vec<_> = value.split_whitespace().collect();
    if let Some(last) = words.last_mut() {
        *last = &twice;
    }
    sysctl(netns, name, &words.join(" "), value, owner)
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

/// Twice the send buffer where open connections show that it is the limit; where none does, anywhere, less surely: those
/// that ended do not tell.
fn grown(judgement: Judgement, seen: &Seen<'_>) -> Judgement {
    let at_limit: Vec<_> = seen
        .node
        .namespaces
        .iter()
        .filter_map(|s| Some((s, s.sockets.send_buffers_at_limit.filter(|n| *n > 0)?)))
        .collect();
    if at_limit.is_empty() {
        return doubled(judgement, seen, WMEM, BUFFER_AT_MOST, None).sure(Confidence::Low);
    }
    at_limit.into_iter().fold(judgement, |judgement, (settings, n)| {
        let judgement = judgement.with(
            &format!("open connections of {} with the largest buffer of {WMEM}", settings.netns),
            units::count(n.into()),
        );
        let Some(value) = settings.value(WMEM) else { return judgement };
        raised(judgement, &settings.netns, WMEM, value, BUFFER_AT_MOST, None)
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
        grown(judgement, seen)
    } else {
        Judgement::not_needed("send buffers keep no connection from sending")
    };
    limited_figures(judgement, seen, "time that send buffers kept connections from sending", part_us)
}

/// Namespaces in which servers may not take part (bit 2), with the value there.
fn servers_off<'a>(seen: &'a Seen<'_>) -> impl Iterator<Item = (&'a str, &'a str)> {
    let off = |value: &str| last_number(value).is_some_and(|bits| bits & 2 == 0);
    seen.node.of_each(FAST_OPEN).filter(move |(_, value)| off(value))
}

/// Of these those in which it is asked for; all of them where the counters are not known by namespace.
fn asked_in_vain<'a>(seen: &'a Seen<'_>) -> impl Iterator<Item = (&'a str, &'a str)> {
    let tcp = tcp(seen);
    let asked = |netns: &str| {
        let mut counted = tcp.namespaces.iter().filter(|n| n.netns == netns);
        counted.any(|n| n.counters.fast_open_asked.unwrap_or(0) > 0)
    };
    let by_namespace = tcp.namespaces.iter().any(|n| n.counters.fast_open_asked.is_some());
    let anywhere = !by_namespace && tcp.counters.fast_open_asked.unwrap_or(0) > 0;
    servers_off(seen).filter(move |(netns, _)| anywhere || asked(netns))
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
    let in_vain: Vec<_> = asked_in_vain(seen).collect();
    let judgement = if used > 0 && tcp.namespaces.is_empty() {
        Judgement::not_needed("it is in use")
    } else if !in_vain.is_empty() {
        let names: Vec<_> = in_vain.iter().map(|(netns, _)| *netns).collect();
        let judgement = Judgement::consider(format!(
            "clients ask for it, and servers may not take part in {}",
            names.join(", ")
        ))
        .sure(Confidence::Low)
        .brings(saves)
        .change(by_hand("server", "TCP_FASTOPEN on its listening socket", "without it"));
        in_vain.into_iter().fold(judgement, |j, (netns, value)| {
            match last_number(value).filter(|bits| i32::try_from(*bits).is_ok()) {
                Some(bits) => j.change(sysctl(netns, FAST_OPEN, &(bits | 3).to_string(), value, None)),
                None => j,
            }
        })
    } else if used > 0 {
        Judgement::not_needed("it is in use")
    } else if asked > 0 && !tcp.namespaces.is_empty() {
        Judgement::not_needed(
            "servers may take part where clients ask for it; whether they do is up to the application",
        )
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
