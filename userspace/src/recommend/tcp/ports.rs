//! Local ports: whether connections to one peer hold them all.
//!
//! Needs: the range of local ports, and the peer for which most are in use, by network namespace. Yields: what is said of
//! `net.ipv4.tcp_tw_reuse`.

use super::tcp;
use crate::{
    node::{PortUse, Settings, TIME_WAIT, last_number},
    recommend::{Confidence, Judgement, Seen, by_hand, of, sysctl, total},
    report::units,
    snapshot::Count,
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
    /// Those in use: towards the peer of most, or where that is not known in TIME_WAIT.
    ports: u64,
    /// In TIME_WAIT towards any peer.
    waiting: u64,
    peer: Option<&'a PortUse>,
}

impl<'a> Held<'a> {
    fn of(settings: &'a Settings) -> Option<Self> {
        let range = settings.value(PORTS)?;
        let (first, last) = (range.split_whitespace().next()?.parse::<u64>().ok()?, last_number(range)?);
        let range = last.checked_sub(first)?.saturating_add(1);
        let waiting: Option<u64> = settings.value(TIME_WAIT).and_then(|value| value.parse().ok());
        let sockets = &settings.sockets;
        let read = !sockets.from.is_empty() && sockets.error.is_none();
        let towards_one = sockets.ports.as_ref().map_or(0, |p| u64::from(p.ports));
        // Where sockets were cut, another peer may have more.
        let known = read && (sockets.cut.is_none() || share(towards_one, range) >= HELD_SHARE);
        let peer = sockets.ports.as_ref().filter(|_| known);
        let ports = if known { towards_one } else { waiting? };
        Some(Self { settings, range, ports, waiting: waiting.unwrap_or(0), peer })
    }

    /// Whether it is proven that closed connections left no port, and that the setting would have: their ports go to new
    /// connections after a second, if both ends have timestamps. Source: tcp_twsk_unique.
    fn is_proven(&self, seen: &Seen<'_>) -> bool {
        let Some(peer) = self.peer else { return false };
        let failed = tcp(seen).peers.iter().any(|p| p.peer == peer.destination && p.failures > 0);
        let reuse = self.settings.value(TW_REUSE);
        let off = reuse == Some("0") || reuse == Some("2") && !peer.destination.is_loopback();
        share(self.ports, self.range) >= NEARLY_ALL
            && u64::from(peer.time_wait).saturating_mul(2) >= self.ports
            && failed
            && off
            && self.settings.value(TIMESTAMPS) != Some("0")
    }
}

fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

/// A connection for which there is no port fails before a packet is sent; the kernel leaves no error at the socket.
pub(super) fn judge(seen: &Seen<'_>) -> Judgement {
    let held = seen.node.namespaces.iter().filter_map(Held::of);
    let Some(held) = held.max_by(|a, b| share(a.ports, a.range).total_cmp(&share(b.ports, b.range))) else {
        return Judgement::cannot_tell(
            "the range of local ports could not be read",
            "ss -s; sysctl net.ipv4.ip_local_port_range",
        );
    };
    let given_up = tcp(seen).failures.iter().filter(|c: &&Count| c.name == "aborted");
    let aborted = total(given_up.map(|c| c.count));
    let netns = &held.settings.netns;
    let judgement = if share(held.ports, held.range) < HELD_SHARE {
        Judgement::not_needed("local ports are free")
    } else {
        scarce(seen, &held, aborted)
    };
    let threshold = Some(units::percent(HELD_SHARE));
    let judgement = match held.peer {
        Some(peer) => judgement
            .seen(&format!("ports of {netns} in use towards one peer"), of(held.ports, held.range), threshold)
            .with("the peer", format!("{} port {}", peer.destination, peer.destination_port))
            .with("of these held in TIME_WAIT", units::count(peer.time_wait.into()))
            .with("sockets in TIME_WAIT towards any peer", units::count(held.waiting)),
        None => judgement.seen(
            &format!("ports of {netns} held in TIME_WAIT"),
            of(held.ports, held.range),
            threshold,
        ),
    };
    judgement.with("connections that failed before they were tried, or were given up", units::count(aborted))
}

fn scarce(seen: &Seen<'_>, held: &Held<'_>, aborted: u64) -> Judgement {
    let netns = &held.settings.netns;
    let keep = || by_hand("application", "keep connections open", "as before");
    let reuse = held.settings.value(TW_REUSE).filter(|value| *value != "1");
    let reuse = reuse.map(|value| sysctl(netns, TW_REUSE, "1", value, None));
    let Some(peer) = held.peer else {
        let judgement = Judgement::consider(if aborted > 0 {
            "closed connections hold as many ports as there are, and connections failed or were given up: to one peer, there \
             may be no port left"
        } else {
            "closed connections hold as many ports as there are: to one peer, there may be no port left"
        })
        .brings("connections to that peer no longer fail; nothing where these are a server's own or of many peers")
        .change(keep());
        return reuse.into_iter().fold(judgement, Judgement::change).sure(Confidence::Low);
    };
    let to = format!("{} port {}", peer.destination, peer.destination_port);
    if aborted > 0 && held.is_proven(seen) {
        let judgement = Judgement::apply(format!(
            "closed connections to {to} hold nearly all local ports of {netns}, and connections to it failed"
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
