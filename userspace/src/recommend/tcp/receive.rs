//! Receive windows: whose kept connections from sending, and why they were small.
//!
//! Needs: what TCP timed of connections that ended, by remote address; of the namespaces that were measured their addresses,
//! and how often windows were closed there. Yields: what is said of `net.ipv4.tcp_rmem`, which counts at the receiver: a
//! sender's own does nothing for it.

use super::{BUFFER_AT_MOST, RMEM, is_limited, limited_figures, none_ended, raised, tcp};
use crate::{
    node::Settings,
    recommend::{Confidence, Judgement, Seen, by_hand, total},
    report::units,
};
use std::{cmp::Reverse, net::IpAddr};

/// Peers that are named.
const NAMED: usize = 3;

/// A namespace that was measured, and whose windows kept others from sending.
struct Receiver<'a> {
    settings: &'a Settings,
    /// For how long, us.
    limited_us: u64,
    /// How often windows were closed there; none where that is not known.
    closed: Option<u64>,
}

/// The one namespace that has an address; none where several have it, as they all have that of the loopback. Interfaces that
/// are down hold addresses for others: those of Services are at kube-ipvs0.
fn namespace_of<'a>(seen: &Seen<'a>, peer: IpAddr) -> Option<&'a Settings> {
    let peer = peer.to_canonical();
    let has = |s: &&Settings| s.links.iter().any(|link| link.up && link.addresses.contains(&peer));
    let mut owners = seen.node.namespaces.iter().filter(has);
    owners.next().filter(|_| owners.next().is_none())
}

/// Peers that kept connections from sending, the longest first.
fn limiting(seen: &Seen<'_>) -> Vec<(IpAddr, u64)> {
    let peers = tcp(seen).peers.iter().map(|p| (p.peer, p.rwnd_limited_us));
    let mut peers: Vec<_> = peers.filter(|(_, us)| *us > 0).collect();
    peers.sort_by_key(|(peer, us)| (Reverse(*us), *peer));
    peers
}

fn receivers<'a>(seen: &Seen<'a>, peers: &[(IpAddr, u64)]) -> Vec<Receiver<'a>> {
    let counters = |netns: &str| {
        let row = tcp(seen).namespaces.iter().find(|n| n.netns == netns);
        let all = tcp(seen).counters.zero_windows;
        // Where nobody closed a window, nobody there did.
        row.and_then(|n| n.counters.zero_windows).or_else(|| all.filter(|n| *n == 0))
    };
    let mut receivers: Vec<Receiver<'a>> = Vec::new();
    for (peer, us) in peers {
        let Some(settings) = namespace_of(seen, *peer) else { continue };
        match receivers.iter_mut().find(|r| r.settings.netns == settings.netns) {
            Some(known) => known.limited_us = known.limited_us.saturating_add(*us),
            None => receivers.push(Receiver { settings, limited_us: *us, closed: counters(&settings.netns) }),
        }
    }
    receivers
}

pub(super) fn judge(seen: &Seen<'_>) -> Judgement {
    if let Some(cannot) = none_ended(seen) {
        return cannot;
    }
    let part_us = tcp(seen).limited.rwnd_limited_us;
    let peers = limiting(seen);
    let receivers = receivers(seen, &peers);
    let here_us = total(receivers.iter().map(|r| r.limited_us));
    let elsewhere_us = part_us.saturating_sub(here_us);
    let limited = || receivers.iter().filter(|r| is_limited(seen, r.limited_us));
    let small: Vec<_> = limited().filter(|r| r.closed == Some(0)).collect();
    let judgement = if !is_limited(seen, part_us) {
        Judgement::not_needed("no receiver keeps connections from sending")
    } else if !small.is_empty() {
        too_small(&small)
    } else if let Some(receiver) = limited().find(|r| r.closed.is_none()) {
        Judgement::cannot_tell(
            format!("whether applications of {} read in time could not be counted", receiver.settings.netns),
            "nettrace run, without --filter",
        )
    } else if limited().next().is_some() && !is_limited(seen, elsewhere_us) {
        Judgement::not_needed(
            "the receivers' windows were closed: applications do not read fast enough, and the network is not what they \
             wait for",
        )
        .sure(Confidence::Medium)
    } else {
        elsewhere(seen, &peers)
    };
    let judgement = limited_figures(
        judgement,
        seen,
        "time that receivers' windows kept connections from sending",
        part_us,
    );
    let time = |us: u64| units::duration(us.saturating_mul(1000));
    let judgement = receivers.iter().fold(judgement, |judgement, r| {
        let closed = r.closed.map_or_else(|| "not known".to_owned(), units::count);
        judgement
            .with(&format!("of this by receivers in {}", r.settings.netns), time(r.limited_us))
            .with(&format!("windows closed in {}", r.settings.netns), closed)
    });
    if elsewhere_us == 0 {
        return judgement;
    }
    judgement.with("of this by receivers that were not measured", time(elsewhere_us))
}

/// Applications of these namespaces read in time, and all the same their windows were not enough.
fn too_small(receivers: &[&Receiver<'_>]) -> Judgement {
    let names: Vec<_> = receivers.iter().map(|r| r.settings.netns.as_str()).collect();
    let judgement = Judgement::consider(format!(
        "receive windows of {} kept connections from sending, and were never closed: applications there read in time",
        names.join(", ")
    ))
    .sure(Confidence::Low)
    .brings("throughput of these connections up to what the path carries; no latency")
    .change(by_hand(
        "the receiver",
        "see whether its application does without SO_RCVBUF, which ends tuning (`ss -tm`)",
        "as before",
    ));
    receivers.iter().fold(judgement, |judgement, r| match r.settings.value(RMEM) {
        Some(value) => raised(judgement, &r.settings.netns, RMEM, value, BUFFER_AT_MOST, None),
        None => judgement.with(&format!("{RMEM} in {}", r.settings.netns), "could not be read".to_owned()),
    })
}

/// The cause is at the other end, where nothing was measured.
fn elsewhere(seen: &Seen<'_>, peers: &[(IpAddr, u64)]) -> Judgement {
    let others = peers.iter().filter(|(peer, _)| namespace_of(seen, *peer).is_none());
    let names: Vec<_> = others.take(NAMED).map(|(peer, _)| peer.to_string()).collect();
    let of = if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) };
    Judgement::cannot_tell(
        format!(
            "receivers that were not measured{of} kept connections from sending: whether their buffers are too small, or \
             their applications do not read, shows there; {RMEM} here does nothing for it"
        ),
        format!(
            "at the receiver{of}: ss -tmi (Recv-Q: what is not read), and sysctl {RMEM}; or nettrace run --netns there"
        ),
    )
}
