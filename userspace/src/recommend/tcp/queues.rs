//! Queues of listeners: connections that wait to be accepted, and half-open ones.
//!
//! Needs: TCP's counters by network namespace, and the listeners there. Yields: what is said of `net.core.somaxconn` and of
//! the applications' backlogs.

use super::{QUEUE_AT_MOST, SOMAXCONN, doubled, raised, tcp};
use crate::{
    node::{Listener, Settings, last_number},
    recommend::{Confidence, Judgement, Seen, Verdict, by_hand, total},
    report::units,
    snapshot::TcpNamespace,
};
use std::cmp::Reverse;

const COOKIES: &str = "net.ipv4.tcp_syncookies";
/// How the applications that listen take part.
const BACKLOG: &str = "the application too: the shorter of its backlog, see listen(2), and this counts";
const WAITS: &str =
    "a client whose SYN is dropped waits 1 s, then 2 s: those waits go, if the application keeps up";

/// Why a namespace's queues were full.
enum Cause<'a> {
    /// The setting is the limit of a listener that dropped, and whose application caught up.
    Setting(&'a Listener),
    /// The same, and the setting is as large as is advised.
    Longest(&'a Listener),
    /// The application does not take what waits: a longer queue would be as full.
    NotAccepted(&'a Listener),
    /// The application asked for a shorter queue than the setting allows.
    Backlog(&'a Listener),
    /// It has gone, or what it dropped or its limit is not known.
    Unknown,
}

/// Listeners that dropped; where none is known to have, those that would now.
fn limiting(settings: &Settings, somaxconn: Option<u64>) -> Vec<&Listener> {
    let listeners = || settings.sockets.listeners.iter();
    let dropped: Vec<_> = listeners().filter(|l| l.dropped.is_some_and(|n| n > 0)).collect();
    if dropped.is_empty() { listeners().filter(|l| is_full(l, somaxconn)).collect() } else { dropped }
}

/// Where the limit is not known: no limit is above the setting, unless that was lowered.
fn is_full(listener: &Listener, somaxconn: Option<u64>) -> bool {
    let unknown = listener.limit.is_none();
    listener.is_full() || unknown && somaxconn.is_some_and(|limit| u64::from(listener.queued) > limit)
}

/// Whether an application takes what came at once: at most half of its queue is in use. Of one that is slower than its clients
/// all the time more is. Where the limit is not known, it is the setting at most.
fn caught_up(listener: &Listener, somaxconn: Option<u64>) -> bool {
    let limit = listener.limit.map(u64::from).or(somaxconn);
    limit.is_none_or(|limit| u64::from(listener.queued) <= limit / 2)
}

fn cause<'a>(settings: Option<&'a Settings>, counted: &TcpNamespace) -> Cause<'a> {
    let Some(settings) = settings else { return Cause::Unknown };
    let somaxconn = settings.value(SOMAXCONN).and_then(last_number);
    let limiting = limiting(settings, somaxconn);
    if let Some(slow) = limiting.iter().find(|l| !caught_up(l, somaxconn)) {
        return Cause::NotAccepted(slow);
    }
    let limit = |l: &Listener| l.limit.map(u64::from);
    let at_setting = || limiting.iter().filter(|l| limit(l).is_some() && limit(l) == somaxconn);
    // A listener counts what it drops for any reason: what is more than the others' drops of the namespace is overflow.
    let dropped = total(at_setting().map(|l| u64::from(l.dropped.unwrap_or(0))));
    let for_other_reasons = counted.listen_drops.saturating_sub(counted.listen_overflows);
    let shorter = limiting.iter().find(|l| limit(l).is_some() && limit(l) < somaxconn);
    match (at_setting().next(), shorter) {
        (Some(listener), _) if dropped > for_other_reasons => {
            let raisable = somaxconn.is_some_and(|limit| limit < QUEUE_AT_MOST);
            if raisable { Cause::Setting(listener) } else { Cause::Longest(listener) }
        }
        (_, Some(listener)) => Cause::Backlog(listener),
        _ => Cause::Unknown,
    }
}

impl Cause<'_> {
    const fn verdict(&self) -> Verdict {
        if matches!(self, Self::Setting(_)) { Verdict::Apply } else { Verdict::Consider }
    }

    fn because(&self, netns: &str) -> String {
        let dropped = format!("accept queues in {netns} were full, and connections were dropped");
        match self {
            Self::Setting(l) => format!(
                "{dropped}: the listener at port {} dropped, {SOMAXCONN} limits its queue, and its application caught up",
                l.port
            ),
            Self::NotAccepted(l) => format!(
                "{dropped}: the application that listens at port {} does not accept fast enough: {} still waited at the end",
                l.port,
                units::count(l.queued.into())
            ),
            Self::Longest(l) => format!(
                "{dropped}: the listener at port {} dropped, and its queue is as long as is advised: {}",
                l.port,
                l.limit.unwrap_or(0)
            ),
            Self::Backlog(l) => format!(
                "{dropped}: the application that listens at port {} asked for a queue of {} only (backlog)",
                l.port,
                l.limit.unwrap_or(0)
            ),
            Self::Unknown => dropped,
        }
    }

    fn changes(&self, judgement: Judgement, netns: &str, settings: Option<&Settings>) -> Judgement {
        let setting = |judgement: Judgement| match settings.and_then(|s| s.value(SOMAXCONN)) {
            Some(value) => raised(judgement, netns, SOMAXCONN, value, QUEUE_AT_MOST, Some(BACKLOG)),
            None => judgement,
        };
        let application = |port: u16, what: &str| {
            by_hand(&format!("application at port {port} of {netns}"), what, "as before")
        };
        match self {
            Self::Setting(l) => {
                let again = "a backlog as long, if it is not, and a restart: a listener keeps the limit that it began with";
                setting(judgement).change(application(l.port, again))
            }
            Self::Longest(l) => {
                judgement.change(application(l.port, "accept faster, or by several listeners (SO_REUSEPORT)"))
            }
            Self::NotAccepted(l) => {
                judgement.change(application(l.port, "accept faster: find out what it waits for"))
            }
            Self::Backlog(l) => {
                judgement.change(application(l.port, "a longer backlog, see listen(2), and a restart"))
            }
            Self::Unknown => setting(judgement.change(by_hand(
                "application",
                "accept faster; a longer backlog (`ss -ltn`: Send-Q of the listener whose Recv-Q is as large)",
                "as before",
            ))),
        }
    }

    /// The listener, with its queue.
    fn listener(&self) -> Option<&Listener> {
        match self {
            Self::Setting(l) | Self::Longest(l) | Self::NotAccepted(l) | Self::Backlog(l) => Some(l),
            Self::Unknown => None,
        }
    }
}

/// What is said of namespaces, the most urgent first, and of those the ones that dropped most.
fn of_namespaces(seen: &Seen<'_>, counted: &[&TcpNamespace]) -> Option<Judgement> {
    let settings = |n: &TcpNamespace| seen.node.namespace(&n.netns);
    let mut causes: Vec<_> = counted.iter().map(|n| (*n, cause(settings(n), n))).collect();
    causes.sort_by_key(|(n, cause)| (cause.verdict(), Reverse(n.listen_overflows)));
    let (first, why) = causes.first()?;
    let known = !matches!(why, Cause::Unknown);
    let judgement = Judgement::new(why.verdict(), why.because(&first.netns))
        .sure(if known { Confidence::Medium } else { Confidence::High })
        .brings(WAITS);
    Some(causes.iter().fold(judgement, |judgement, (n, cause)| {
        let mut judgement =
            judgement.with(&format!("connections dropped in {}", n.netns), units::count(n.listen_overflows));
        if let Some(l) = cause.listener() {
            let limit = l.limit.map_or_else(|| "not known".to_owned(), |n| units::count(n.into()));
            let what = format!("waiting at port {} of {} at the end", l.port, n.netns);
            judgement = judgement.with(&what, format!("{}, limit {limit}", units::count(l.queued.into())));
        }
        if let Some(dropped) = cause.listener().and_then(|l| l.dropped) {
            judgement = judgement.with("dropped by this listener", units::count(dropped.into()));
        }
        cause.changes(judgement, &n.netns, settings(n))
    }))
}

pub(super) fn accept_queue(seen: &Seen<'_>) -> Judgement {
    let Some(overflows) = tcp(seen).listen_overflows else {
        return Judgement::cannot_tell("the kernel's counters could not be read", "nettrace run");
    };
    let counted: Vec<_> = tcp(seen).namespaces.iter().filter(|n| n.listen_overflows > 0).collect();
    let judgement = if overflows == 0 {
        Judgement::not_needed("no accept queue was full")
    } else {
        of_namespaces(seen, &counted).unwrap_or_else(|| somewhere(seen))
    };
    judgement.seen("connections dropped, accept queue full", units::count(overflows), Some("1".to_owned()))
}

/// Where is not known.
fn somewhere(seen: &Seen<'_>) -> Judgement {
    let judgement =
        Judgement::consider("accept queues were full, and connections were dropped").brings(WAITS);
    let judgement = Cause::Unknown.changes(judgement, "", None);
    doubled(judgement, seen, SOMAXCONN, QUEUE_AT_MOST, Some(BACKLOG))
}

/// A queue of half-open connections is as long as the listener's backlog. `tcp_max_syn_backlog` counts where cookies are
/// off, and drops then are none of these. With `tcp_syncookies` 2, each SYN is answered with a cookie.
/// Source: tcp_conn_request, inet_csk_reqsk_queue_is_full.
pub(super) fn syn_queue(seen: &Seen<'_>) -> Judgement {
    let counters = tcp(seen).counters;
    let (Some(drops), Some(cookies)) = (counters.syn_queue_drops, counters.syn_cookies) else {
        return Judgement::cannot_tell(
            "the kernel's counters could not be read",
            "nettrace run, without --filter",
        );
    };
    let always = |netns: Option<&str>| {
        let mut each = seen.node.of_each(COOKIES);
        each.any(|(name, value)| value == "2" && netns.is_none_or(|netns| netns == name))
    };
    let full = |n: &&TcpNamespace| {
        let count = |count: Option<u64>| count.unwrap_or(0) > 0;
        count(n.counters.syn_queue_drops) || count(n.counters.syn_cookies) && !always(Some(&n.netns))
    };
    let counted: Vec<_> = tcp(seen).namespaces.iter().filter(full).collect();
    // What namespaces that are not measured counted is in the sums alone.
    let judgement = if counted.is_empty() && drops == 0 && (cookies == 0 || always(None)) {
        Judgement::not_needed("no queue of half-open connections was full")
    } else {
        half_open(seen, &counted)
    };
    let judgement = judgement.seen("SYN dropped, queue full", units::count(drops), Some("1".to_owned()));
    judgement.seen("SYN answered with a cookie", units::count(cookies), Some("1".to_owned()))
}

fn half_open(seen: &Seen<'_>, counted: &[&TcpNamespace]) -> Judgement {
    let names: Vec<_> = counted.iter().map(|n| n.netns.as_str()).collect();
    let place = if names.is_empty() { String::new() } else { format!(" in {}", names.join(", ")) };
    let judgement = Judgement::consider(format!("queues of half-open connections{place} were full"))
        .sure(Confidence::Medium)
        .brings("a client whose SYN is dropped waits 1 s at least: those waits go; cookies cost options, not time")
        .change(by_hand("application", "a longer backlog, which is the queue's length, see listen(2)", "as before"));
    if tcp(seen).namespaces.is_empty() {
        return doubled(judgement, seen, SOMAXCONN, QUEUE_AT_MOST, Some(BACKLOG));
    }
    // A setting above the backlog of the listener that dropped changes nothing.
    counted.iter().fold(judgement, |judgement, n| {
        let settings = seen.node.namespace(&n.netns);
        match settings.and_then(|settings| settings.value(SOMAXCONN)) {
            Some(value) if !matches!(cause(settings, n), Cause::Backlog(_)) => {
                raised(judgement, &n.netns, SOMAXCONN, value, QUEUE_AT_MOST, Some(BACKLOG))
            }
            _ => judgement,
        }
    })
}
