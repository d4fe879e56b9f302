//! Local ports: whether connections to one peer hold them all.
//!
//! Needs: the range of local ports, and the peer for which most are in use, by network namespace; failures by remote address.
//! Yields: what is said of `net.ipv4.tcp_tw_reuse`.

use super::tcp;
use crate::{
    node::{PortUse, Settings, TIME_WAIT, last_number},
    recommend::{Confidence, Judgement, Seen, by_hand, of, sysctl, total},
    report::units,
    snapshot::TcpPeer,
};

const TW_REUSE: &str = "net.ipv4.tcp_tw_reuse";
const TIMESTAMPS: &str = "net.ipv4.tcp_timestamps";
const PORTS: &str = "net.ipv4.ip_local_port_range";
/// Share of the local ports, from which on they may not be enough.
const HELD_SHARE: f64 = 0.8;
/// Share of the local ports, from which on nothing else explains connections that fail before a packet is sent.
const NEARLY_ALL: f64 = 0.95;

/// A namespace's local ports.
struct Held<'a> {
    settings: &'a Settings,
    /// Ports of the range.
    range: u64,
    /// Those in use towards the peer of most.
    ports: u64,
    /// The peer of most; none where no connection has a port of the range.
    peer: Option<&'a PortUse>,
}

/// Sockets in TIME_WAIT towards any peer, and a server's own.
fn waiting(settings: &Settings) -> Option<u64> {
    settings.value(TIME_WAIT).and_then(|value| value.parse().ok())
}

/// First and last port; the last is not below the first.
fn range(settings: &Settings) -> Option<u64> {
    let range = settings.value(PORTS)?;
    let first = range.split_whitespace().next()?.parse::<u64>().ok()?;
    Some(last_number(range)?.checked_sub(first)?.saturating_add(1))
}

impl<'a> Held<'a> {
    /// None where the range or the sockets could not be read.
    fn of(settings: &'a Settings) -> Option<Self> {
        let range = range(settings)?;
        let sockets = &settings.sockets;
        let ports = sockets.ports.as_ref().map_or(0, |p| u64::from(p.ports));
        // Where sockets were cut, another peer may have more.
        let whole = sockets.cut.is_none() || share(ports, range) >= HELD_SHARE;
        let read = !sockets.from.is_empty() && sockets.error.is_none() && whole;
        read.then_some(Self { settings, range, ports, peer: sockets.ports.as_ref() })
    }

    fn share(&self) -> f64 {
        share(self.ports, self.range)
    }

    /// Whether it is proven that closed connections left no port, and that the setting would have: their ports go to new
    /// connections after a second, if both ends have timestamps. Source: tcp_twsk_unique.
    fn is_proven(&self, seen: &Seen<'_>, peer: &PortUse) -> bool {
        let reuse = self.settings.value(TW_REUSE);
        let off = reuse == Some("0") || reuse == Some("2") && !peer.destination.is_loopback();
        let timestamps = self.settings.value(TIMESTAMPS).and_then(last_number);
        let failed = failures(seen, peer);
        // For want of a port all fail in the same way: one that failed otherwise had a port.
        self.share() >= NEARLY_ALL
            && u64::from(peer.time_wait).saturating_mul(2) >= self.ports
            && failed.is_some_and(|p| p.failures > 0 && p.failures_at_once >= p.failures)
            && off
            && timestamps.is_some_and(|n| n > 0)
    }
}

fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

fn failures<'a>(seen: &Seen<'a>, peer: &PortUse) -> Option<&'a TcpPeer> {
    tcp(seen).peers.iter().find(|p| p.peer.to_canonical() == peer.destination.to_canonical())
}

/// A connection for which there is no port fails before a packet is sent; the kernel leaves no error at the socket.
pub(super) fn judge(seen: &Seen<'_>) -> Judgement {
    let namespaces = &seen.node.namespaces;
    let held = namespaces.iter().filter_map(Held::of);
    let most = held.max_by(|a, b| a.share().total_cmp(&b.share()));
    let at_once = total(tcp(seen).peers.iter().map(|p| p.failures_at_once));
    let unread = namespaces.iter().find(|s| Held::of(s).is_none());
    let short = most.as_ref().filter(|held| held.share() >= HELD_SHARE);
    let judgement = match (short.and_then(|held| Some((held, held.peer?))), &most, unread) {
        (Some((held, peer)), ..) => scarce(seen, held, peer),
        (None, _, Some(settings)) => not_known(settings),
        (None, None, None) => Judgement::cannot_tell(
            "no namespace's local ports are known",
            format!("ss -tan; sysctl {PORTS}, where connections fail"),
        ),
        (None, Some(held), None) if at_once > 0 => Judgement::cannot_tell(
            "connections failed at once and without an error, as without a local port; at the end ports are free",
            format!("ss -tan, in {}, while connections fail", held.settings.netns),
        ),
        (None, Some(_), None) => Judgement::not_needed("local ports are free"),
    };
    let judgement = most.iter().fold(judgement, |judgement, held| figures(judgement, seen, held));
    judgement.with("connections that failed at once, without an error", units::count(at_once))
}

/// Sockets in TIME_WAIT alone do not tell: a server's own hold no port of the range, and many peers share them.
fn not_known(settings: &Settings) -> Judgement {
    let netns = &settings.netns;
    let judgement = Judgement::cannot_tell(
        format!("how many local ports of {netns} are in use towards one peer could not be read"),
        format!("ss -tan, in {netns}: the ports towards each peer, against sysctl {PORTS}"),
    );
    match (waiting(settings), range(settings)) {
        (Some(waiting), Some(range)) => judgement
            .with(&format!("sockets of {netns} in TIME_WAIT towards any peer"), units::count(waiting))
            .with(&format!("local ports of {netns}"), units::count(range)),
        _ => judgement,
    }
}

fn figures(judgement: Judgement, seen: &Seen<'_>, held: &Held<'_>) -> Judgement {
    let threshold = Some(units::percent(HELD_SHARE));
    let what = format!("ports of {} in use towards one peer", held.settings.netns);
    let judgement = judgement.seen(&what, of(held.ports, held.range), threshold);
    let Some(peer) = held.peer else { return judgement };
    let waiting = waiting(held.settings).map_or_else(|| "not known".to_owned(), units::count);
    let failed = failures(seen, peer).map_or((0, 0), |p| (p.failures, p.failures_at_once));
    judgement
        .with("the peer", format!("{} port {}", peer.destination, peer.destination_port))
        .with("of these held in TIME_WAIT", units::count(peer.time_wait.into()))
        .with("sockets in TIME_WAIT towards any peer", waiting)
        .with("connections to it that failed", units::count(failed.0))
        .with("of these at once, without an error", units::count(failed.1))
}

fn scarce(seen: &Seen<'_>, held: &Held<'_>, peer: &PortUse) -> Judgement {
    let netns = &held.settings.netns;
    let keep = || by_hand("application", "keep connections open", "as before");
    let reuse = held.settings.value(TW_REUSE).filter(|value| *value != "1");
    let reuse = reuse.map(|value| sysctl(netns, TW_REUSE, "1", value, None));
    let to = format!("{} port {}", peer.destination, peer.destination_port);
    if held.is_proven(seen, peer) {
        let judgement = Judgement::apply(format!(
            "closed connections to {to} hold nearly all local ports of {netns}, and connections to it failed for want of one"
        ))
        .sure(Confidence::Medium)
        .brings("connections to that peer no longer fail, up to as many a second as there are ports")
        .change(keep());
        return reuse.into_iter().fold(judgement, Judgement::change);
    }
    let closed = u64::from(peer.time_wait).saturating_mul(2) >= held.ports;
    let judgement = Judgement::consider(if closed {
        format!("closed connections to {to} hold most local ports of {netns}; that connections failed for it is not proven")
    } else {
        format!("open connections to {to} hold most local ports of {netns}: only more ports, or fewer connections, help")
    })
    .sure(Confidence::Low)
    .brings("connections to that peer do not fail for want of a port")
    .change(if closed { keep() } else { by_hand("application", "share connections", "as before") });
    reuse.filter(|_| closed).into_iter().fold(judgement, Judgement::change)
}
