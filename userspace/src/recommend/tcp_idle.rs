//! TCP connections that pause: keepalives, and slow start after a pause.

use super::{Confidence, Judgement, Risk, Rule, Seen, sysctl};
use crate::{node::last_number, report::units};
use nettrace_common::Signal;

const KEEPALIVE: &str = "net.ipv4.tcp_keepalive_time";
const SLOW_START: &str = "net.ipv4.tcp_slow_start_after_idle";
const ESTABLISHED: &str = "net.netfilter.nf_conntrack_tcp_timeout_established";

/// Longest time that kernels of any HZ take: it is kept in jiffies, in an int, s. Source: do_proc_dointvec_jiffies_conv.
const LONGEST_KEEPALIVE_S: u64 = i32::MAX as u64 / 1000;

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "tcp.keepalive",
        advice: "lower net.ipv4.tcp_keepalive_time",
        looks_at: "Whether connection tracking forgets an idle connection before its first keepalive.",
        risk: Risk::Low,
        when_not: "Applications do not ask for keepalives (SO_KEEPALIVE): then it does nothing. No packet is faster by it.",
        source: "https://docs.kernel.org/networking/ip-sysctl.html",
        needs: &[],
        judge: keepalive,
    },
    Rule {
        id: "tcp.slow-start-after-idle",
        advice: "set net.ipv4.tcp_slow_start_after_idle to 0",
        looks_at: "Whether it is on. That connections pause, and then send more than their first window (10 segments) at \
                   once, is not measured.",
        risk: Risk::Medium,
        when_not: "The path is shared: what fitted before the pause may not fit after it.",
        source: "https://www.rfc-editor.org/rfc/rfc5681",
        needs: &[],
        judge: slow_start,
    },
];

fn keepalive(seen: &Seen<'_>) -> Judgement {
    // Each side's own; connection tracking's is where packets pass, which is the host for pods.
    let number =
        |name| seen.node.of_each(name).filter_map(|(netns, value)| Some((netns, last_number(value)?)));
    let shortest = number(ESTABLISHED).min_by_key(|(_, s)| *s);
    let Some((netns, first)) = number(KEEPALIVE).max_by_key(|(_, s)| *s) else {
        return Judgement::cannot_tell("it could not be read", format!("sysctl {KEEPALIVE}"));
    };
    let Some((tracker, kept)) = shortest else {
        return Judgement::not_needed(
            "no namespace that was measured tracks connections, and no packet is faster by it",
        )
        .with(&format!("{KEEPALIVE} in {netns}"), format!("{first} s"));
    };
    let judgement = if kept > first {
        Judgement::not_needed(
            "connection tracking keeps idle connections for longer, and no packet is faster by it",
        )
    } else {
        let below = (kept / 2).clamp(1, LONGEST_KEEPALIVE_S);
        Judgement::consider("connection tracking forgets idle connections before their first keepalive")
            .sure(Confidence::Low)
            .brings("idle connections that are translated do not hang; no latency")
            .change(sysctl(netns, KEEPALIVE, &below.to_string(), &first.to_string(), None))
    };
    judgement
        .with(&format!("{KEEPALIVE} in {netns}"), format!("{first} s"))
        .with(&format!("{ESTABLISHED} in {tracker}"), format!("{kept} s"))
}

fn slow_start(seen: &Seen<'_>) -> Judgement {
    let mut on = seen.node.of_each(SLOW_START).filter(|(_, value)| *value != "0");
    if seen.node.of_each(SLOW_START).next().is_none() {
        return Judgement::cannot_tell("it could not be read", format!("sysctl {SLOW_START}"));
    }
    let Some((netns, value)) = on.next() else {
        return Judgement::not_needed("it is set");
    };
    let round_trip = seen.snapshot.signal(Signal::NetRtt).map_or(0, |row| row.hist.quantile_ns(0.5));
    Judgement::cannot_tell(
        "whether connections pause and then send much was not measured; each doubling of the window takes a round trip",
        "ss -ti: cwnd of connections that have paused, against what they sent before",
    )
    .with("round trip, p50", units::duration(round_trip))
    .with(&format!("{SLOW_START} in {netns}"), value.to_owned())
}
