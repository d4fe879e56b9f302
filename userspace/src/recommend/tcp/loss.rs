//! Segments sent again: lost on their way, or dropped by a queue of this machine.
//!
//! Needs: segments sent and sent again, drops by reason, place and interface, and what the queues of interfaces are. Yields:
//! what is said of congestion control, which is no cure for a queue that drops what it is to send.

use super::{ENOUGH_SEGMENTS, tcp};
use crate::{
    node::NodeLink,
    recommend::{Confidence, Judgement, Seen, of, quoted, total},
    report::units,
    snapshot::{Drop, QUEUE_REASONS},
};
use std::collections::BTreeMap;

/// Functions in which codel, fq_codel and cake drop what has waited for too long, without a reason before 6.14; compilers make
/// one of several, or not.
const DROP_WITHOUT_REASON: [&str; 6] = [
    "drop_func",
    "codel_dequeue",
    "__codel_qdisc_dequeue",
    "__fq_codel_dequeue",
    "fq_codel_dequeue",
    "cake_dequeue",
];
/// Queues that drop to keep themselves short, and mark packets instead where senders take marks, by default.
const KEEPS_SHORT: [&str; 2] = ["fq_codel", "cake"];

pub(super) fn judge(seen: &Seen<'_>) -> Judgement {
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
        Queued::of(seen).map_or_else(|| on_their_way(seen), Queued::judge)
    } else {
        Judgement::not_needed("few segments are sent again")
    };
    judgement
        .seen("segments sent again", of(tcp.retransmits, sent), Some(units::percent(seen.limits.loss_share)))
        .with("of these after a timeout", units::count(tcp.retransmits_timeout))
}

fn on_their_way(seen: &Seen<'_>) -> Judgement {
    let drops = total(seen.snapshot.drops.iter().map(|d| d.count));
    Judgement::consider(if is_large(drops, seen) {
        "segments are lost, and this machine drops packets: see its drops first"
    } else {
        "segments are lost on their way"
    })
    .sure(Confidence::Low)
    .brings("BBR's rate does not fall with each loss as CUBIC's; a request that lost a segment waits as long")
    .with("packets that this machine dropped", units::count(drops))
}

/// Whether so many packets may be most of the segments that were sent again: one that is dropped may be several segments (GSO).
fn is_large(packets: u64, seen: &Seen<'_>) -> bool {
    packets > tcp(seen).retransmits / 2
}

fn is_of_queue(drop: &Drop) -> bool {
    let function = drop.location.split('+').next().unwrap_or_default();
    QUEUE_REASONS.contains(&drop.reason.as_str()) || DROP_WITHOUT_REASON.contains(&function)
}

/// netem loses packets because it is told to, as a path would: what it drops is lost on its way.
fn is_netem(link: &NodeLink) -> bool {
    let is = |kind: &str| kind == "netem";
    is(&link.qdisc) || link.queues().is_some_and(|kinds| kinds.iter().any(|kind| is(kind)))
}

fn keeps_short(kinds: &[String]) -> bool {
    kinds.iter().all(|kind| KEEPS_SHORT.contains(&kind.as_str()))
}

/// What queues of this machine dropped, where that is a large part of what was sent again.
struct Queued<'a> {
    /// Packets.
    dropped: u64,
    /// Of these TCP, from 0 to 1; none where the flows are not known.
    tcp_share: Option<f64>,
    /// The interface that most were dropped at: of those that keep their queues short, where these alone dropped enough, else
    /// of the others.
    scope: &'a str,
    /// What they wait in there; none where that is not known.
    queues: Option<&'a [String]>,
}

impl<'a> Queued<'a> {
    fn of(seen: &Seen<'a>) -> Option<Self> {
        let node = seen.node;
        let own = |d: &&'a Drop| is_of_queue(d) && !node.link(&d.scope).is_some_and(is_netem);
        let rows: Vec<_> = seen.snapshot.drops.iter().filter(own).collect();
        let tcp_share = tcp_share(seen, &rows);
        let dropped = total(rows.iter().map(|d| d.count));
        // Of packets those that may be segments.
        let is_large = |packets: u64| is_large((packets as f64 * tcp_share.unwrap_or(1.0)) as u64, seen);
        if !is_large(dropped) {
            return None;
        }
        let queues = |scope| node.link(scope).and_then(NodeLink::queues);
        let (short, others): (Vec<_>, Vec<_>) =
            rows.into_iter().partition(|d| queues(&d.scope).is_some_and(keeps_short));
        let judged = if is_large(total(short.iter().map(|d| d.count))) { short } else { others };
        let mut scopes = BTreeMap::new();
        for row in judged {
            let count: &mut u64 = scopes.entry(row.scope.as_str()).or_default();
            *count = count.saturating_add(row.count);
        }
        let (scope, _) = scopes.into_iter().max_by_key(|(_, count)| *count)?;
        Some(Self { dropped, tcp_share, scope, queues: queues(scope) })
    }

    fn judge(self) -> Judgement {
        let Self { dropped, tcp_share, scope, queues } = self;
        let (netns, name) = scope.rsplit_once('/').unwrap_or(("host", scope));
        let look = format!("tc -s qdisc show dev {}, in {netns}", quoted(name));
        let unknown = |what: &str| {
            format!(
                "segments are sent again, and queues of this machine drop packets, most at {scope}; {what} is not known"
            )
        };
        let judgement = match (queues, tcp_share) {
            (_, None) => {
                Judgement::cannot_tell(unknown("whether those are segments"), "nettrace run --filter tcp")
            }
            (None, _) => Judgement::cannot_tell(unknown("what queue that is"), look),
            (Some(kinds), _) if keeps_short(kinds) => Judgement::not_needed(format!(
                "segments are not lost on their way: the queue of {scope} ({}) drops them to keep itself short. With \
                 net.ipv4.tcp_ecn=1 where they are sent from, set by hand, it marks them instead",
                kinds.join(", ")
            ))
            .sure(Confidence::Medium),
            (Some(kinds), _) => Judgement::cannot_tell(
                format!(
                    "segments are not lost on their way: the queue of {scope} ({}) drops them: it is too short, or the link or \
                     shaper behind it too slow",
                    kinds.join(", ")
                ),
                format!("{look}: a backlog that stays near its limit shows that what is behind it is too slow"),
            )
            .sure(Confidence::Medium),
        };
        judgement.with("packets that queues of this machine dropped", units::count(dropped))
    }
}

/// Of the flows that lost packets for the same reasons as in these rows the share of TCP, from 0 to 1; none where none is known.
fn tcp_share(seen: &Seen<'_>, rows: &[&Drop]) -> Option<f64> {
    let flows = seen.snapshot.drop_flows.iter().filter(|f| rows.iter().any(|d| d.reason == f.reason));
    let (tcp, other): (Vec<_>, Vec<_>) = flows.partition(|f| f.flow.ends_with(" tcp"));
    let [tcp, other] = [tcp, other].map(|flows| total(flows.iter().map(|f| f.count)));
    let all = tcp.saturating_add(other);
    (all > 0).then(|| tcp as f64 / all as f64)
}
