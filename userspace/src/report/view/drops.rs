//! Dropped packets by reason and place, those first that say something is wrong.

use super::{super::units, Cell, Kind, Section, Table, nothing};
use crate::snapshot::{Drop, QUEUE_REASONS, Snapshot};
use std::cmp::Reverse;

/// What a drop says about the node; the gravest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Gravity {
    /// A queue was full or memory was short: somebody was too slow.
    NoRoom,
    /// A rule or a policy said no, or there was no way to the destination.
    Refused,
    /// A checksum or a header was wrong.
    Damaged,
    /// Everything else, also what the kernel does not tell and what is newer than this table.
    Other,
    /// Part of any traffic.
    Usual,
}

/// The kernel's reasons, without their prefix; checksums are told by their ending.
const REASONS: [(Gravity, &[&str]); 5] = [
    (Gravity::NoRoom, &QUEUE_REASONS),
    (
        Gravity::NoRoom,
        &[
            "SOCKET_RCVBUFF",
            "SOCKET_BACKLOG",
            "PROTO_MEM",
            "NOMEM",
            "PFMEMALLOC",
            "CPU_BACKLOG",
            "FULL_RING",
            "NEIGH_QUEUEFULL",
            "TCP_LISTEN_OVERFLOW",
            "TCP_ZEROWINDOW",
            "TCP_OFO_QUEUE_PRUNE",
            "TCP_OFO_DROP",
        ],
    ),
    (
        Gravity::Refused,
        &[
            "NETFILTER_DROP",
            "SOCKET_FILTER",
            "BPF_CGROUP_EGRESS",
            "TC_INGRESS",
            "TC_EGRESS",
            "XDP",
            "SECURITY_HOOK",
            "XFRM_POLICY",
            "TAP_FILTER",
            "TAP_TXFILTER",
            "ARP_PVLAN_DISABLE",
            "TCP_AUTH_HDR",
            "TCP_MD5NOTFOUND",
            "TCP_MD5UNEXPECTED",
            "TCP_MD5FAILURE",
            "TCP_AONOTFOUND",
            "TCP_AOUNEXPECTED",
            "TCP_AOKEYNOTFOUND",
            "TCP_AOFAILURE",
            "TCP_MINTTL",
            "IP_RPFILTER",
            "IP_OUTNOROUTES",
            "IP_INNOROUTES",
            "IP_INADDRERRORS",
            "IP_LOCAL_SOURCE",
            "IP_INVALID_SOURCE",
            "IP_INVALID_DEST",
            "IP_LOCALNET",
            "IPV6DISABLED",
            "PKT_TOO_BIG",
            "NEIGH_CREATEFAIL",
            "NEIGH_FAILED",
            "NEIGH_DEAD",
            "VXLAN_VNI_NOT_FOUND",
            "NO_TX_TARGET",
        ],
    ),
    (
        Gravity::Damaged,
        &[
            "PKT_TOO_SMALL",
            "HDR_TRUNC",
            "DEV_HDR",
            "IP_INHDR",
            "IPV6_BAD_EXTHDR",
            "IPV6_NDISC_FRAG",
            "IPV6_NDISC_HOP_LIMIT",
            "IPV6_NDISC_BAD_CODE",
            "IPV6_NDISC_BAD_OPTIONS",
            "INVALID_PROTO",
            "VXLAN_INVALID_HDR",
            "MAC_INVALID_SOURCE",
            "CAN_RX_INVALID_FRAME",
            "CANFD_RX_INVALID_FRAME",
            "CANXL_RX_INVALID_FRAME",
        ],
    ),
    (
        Gravity::Usual,
        &[
            // Nobody listens there; the sender is told so.
            "NO_SOCKET",
            "IP_NOPROTO",
            "UNHANDLED_PROTO",
            // What was left in the queues of a socket that was closed, of a FIN or of data that nobody was going to
            // read: the tracepoint tells of it as of drops, but no packet was lost on its way.
            "QUEUE_PURGE",
            "SOCKET_CLOSE",
            "UNIX_DISCONNECT",
            "UNIX_SKIP_OOB",
            // The packet came to a connection that was being closed or reset.
            "TCP_CLOSE",
            "TCP_RESET",
            "TCP_ABORT_ON_DATA",
            // There is a copy of it already.
            "TCP_OLD_DATA",
            "TCP_OLD_SEQUENCE",
            "TCP_OLD_ACK",
            "TCP_RFC7323_PAWS_ACK",
            "TCP_OFOMERGE",
            "DUP_FRAG",
            // It is for another host.
            "OTHERHOST",
            "IPV6_NDISC_NS_OTHERHOST",
            "UNICAST_IN_L2_MULTICAST",
            "LOCAL_MAC",
            "MAC_IEEE_MAC_CONTROL",
        ],
    ),
];

impl Gravity {
    /// Of a kernel's reason, by its name without the prefix.
    pub(super) fn of(reason: &str) -> Self {
        if reason.ends_with("_CSUM") {
            return Self::Damaged;
        }
        let found = REASONS.iter().find(|(_, reasons)| reasons.contains(&reason));
        found.map_or(Self::Other, |(gravity, _)| *gravity)
    }

    /// One or two words for it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::NoRoom => "no room",
            Self::Refused => "refused",
            Self::Damaged => "damaged",
            Self::Other => "other",
            Self::Usual => "usual",
        }
    }
}

/// What the kinds mean.
const KINDS: &str = "Kinds: no room (a queue was full or memory short), refused (a rule, a policy, no way there), \
                     damaged (checksum or header), other, usual (nobody listens, the socket was closed, another copy \
                     was there).";

/// The section on drops.
pub(super) fn section(snapshot: &Snapshot, top: usize) -> Section {
    let mut section = Section::new("drops", "Drops");
    if snapshot.drops.is_empty() && snapshot.drop_flows.is_empty() {
        section.line(nothing(snapshot, "No drops seen", &["drop"]));
        return section;
    }
    section.line(KINDS);
    let all = sum(&snapshot.drops);
    let mut drops: Vec<_> = snapshot.drops.iter().map(|d| (Gravity::of(&d.reason), d)).collect();
    // Most are first already, so that it stays so within a kind.
    drops.sort_by_key(|(gravity, _)| *gravity);
    let columns = [
        ("kind", Kind::Text),
        ("reason", Kind::Text),
        ("dropped in", Kind::Text),
        ("interface", Kind::Text),
        ("packets", Kind::Number),
        ("share", Kind::Number),
    ];
    section.table(Table::of("By reason and place", &columns, &drops, top, |(gravity, d)| {
        vec![
            Cell::text(gravity.name()),
            Cell::text(&d.reason),
            Cell::text(&d.location),
            Cell::text(&d.scope),
            Cell::count(d.count),
            Cell { text: units::percent(d.count as f64 / all as f64), sort: Some(d.count as f64) },
        ]
    }));
    let mut flows: Vec<_> = snapshot.drop_flows.iter().collect();
    flows.sort_by_key(|flow| Gravity::of(&flow.reason));
    let columns = [("flow", Kind::Text), ("most for", Kind::Text), ("packets", Kind::Number)];
    section.table(Table::of("By flow", &columns, &flows, top, |d| {
        vec![Cell::text(&d.flow), Cell::text(&d.reason), Cell::count(d.count)]
    }));
    section
}

/// Packets in all.
fn sum<'a>(drops: impl IntoIterator<Item = &'a Drop>) -> u64 {
    drops.into_iter().fold(0, |sum, d| sum.saturating_add(d.count))
}

/// Packets by reason wherever they were dropped, the gravest reasons first and of equal ones the most frequent.
pub(super) fn by_reason(drops: &[Drop]) -> Vec<(Gravity, &str, u64)> {
    let mut reasons: Vec<(Gravity, &str, u64)> = Vec::new();
    for drop in drops.iter().filter(|d| d.count > 0) {
        match reasons.iter_mut().find(|(_, reason, _)| *reason == drop.reason) {
            Some((_, _, count)) => *count = count.saturating_add(drop.count),
            None => reasons.push((Gravity::of(&drop.reason), &drop.reason, drop.count)),
        }
    }
    reasons.sort_by_key(|(gravity, reason, count)| (*gravity, Reverse(*count), *reason));
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drop(reason: &str, location: &str, count: u64) -> Drop {
        Drop { reason: reason.to_owned(), location: location.to_owned(), scope: "eth0".to_owned(), count }
    }

    #[test]
    fn a_reason_is_of_one_kind() {
        let all: Vec<_> = REASONS.iter().flat_map(|(_, reasons)| *reasons).collect();
        for (i, reason) in all.iter().enumerate() {
            assert!(!all[i + 1..].contains(reason), "{reason} twice");
            assert!(!reason.ends_with("_CSUM"), "{reason} is told by its ending");
        }
        assert_eq!(Gravity::of("UDP_CSUM"), Gravity::Damaged);
        for unknown in ["NOT_SPECIFIED", "reason 131072", "not told by this kernel", ""] {
            assert_eq!(Gravity::of(unknown), Gravity::Other, "{unknown}");
        }
    }

    #[test]
    fn what_is_wrong_comes_before_what_is_usual() {
        let drops = [
            drop("NO_SOCKET", "udp_queue_rcv_skb+0x1", 900),
            drop("NO_SOCKET", "tcp_v4_rcv+0x1", 100),
            drop("TCP_CSUM", "tcp_v4_rcv+0x2", 9),
            drop("NETFILTER_DROP", "nft_do_chain+0x3f", 8),
            drop("NEWER", "f+0x1", 7),
            drop("QDISC_DROP", "__dev_xmit_skb+0x1", 2),
            drop("SOCKET_RCVBUFF", "__udp_enqueue_schedule_skb+0x1", 3),
            drop("QUEUE_PURGE", "g+0x1", 0),
        ];
        let reasons: Vec<_> = by_reason(&drops).into_iter().map(|(_, reason, n)| (reason, n)).collect();
        let expected = [
            ("SOCKET_RCVBUFF", 3),
            ("QDISC_DROP", 2),
            ("NETFILTER_DROP", 8),
            ("TCP_CSUM", 9),
            ("NEWER", 7),
            ("NO_SOCKET", 1_000),
        ];
        assert_eq!(reasons, expected);
    }
}
