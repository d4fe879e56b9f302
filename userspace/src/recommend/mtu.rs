//! Packet sizes: black holes, paths narrower than their interfaces, fragments, and jumbo frames.

use super::{Confidence, Judgement, Risk, Rule, Seen, by_hand, of, sysctl, total};
use crate::{
    probes::PATH_MTU,
    report::units,
    snapshot::{BlackHole, Ip},
};
use nettrace_common::Signal;

const PROBING: &str = "net.ipv4.tcp_mtu_probing";
/// Fewer fragments are somebody's single large datagram.
const FRAGMENTS: u64 = 20;
/// What carries IP everywhere, bytes.
const ETHERNET_MTU: u32 = 1500;

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "mtu.black-hole",
        advice: "set net.ipv4.tcp_mtu_probing to 1; let ICMP fragmentation needed and packet too big pass",
        looks_at: "Receivers that TCP segments of one length do not reach, sent again three times or more, while the \
                   receiver lives.",
        risk: Risk::Low,
        when_not: "The receiver is gone: then no length passes.",
        source: "https://www.rfc-editor.org/rfc/rfc2923",
        needs: &["ip.black_hole"],
        judge: black_hole,
    },
    Rule {
        id: "mtu.path",
        advice: "set the MTU to what the path carries",
        looks_at: "Path MTUs below 1500 bytes that the kernel had to learn, and messages of routers that a packet was too big.",
        risk: Risk::Medium,
        when_not: "Few destinations are behind the narrow path: an MTU on their route is enough.",
        source: "https://www.rfc-editor.org/rfc/rfc1191",
        needs: &["ip.packet_too_big", PATH_MTU],
        judge: path,
    },
    Rule {
        id: "mtu.fragments",
        advice: "keep datagrams below the path's MTU",
        looks_at: "Fragments sent and received: 20 or more; datagrams that stayed incomplete.",
        risk: Risk::Low,
        when_not: "An application sends such datagrams by design and loses none.",
        source: "https://www.rfc-editor.org/rfc/rfc8900",
        needs: &["ip.fragment"],
        judge: fragments,
    },
    Rule {
        id: "mtu.jumbo",
        advice: "set the MTU to 9000 (jumbo frames)",
        looks_at: "Nothing yet: whether each link of a path carries them takes packets of that size to tell.",
        risk: Risk::High,
        when_not: "Any device on the way does not carry them: that makes a black hole. They serve throughput; a request and \
                   its answer take as long.",
        source: "https://www.rfc-editor.org/rfc/rfc8899",
        needs: &[],
        judge: jumbo,
    },
];

fn ip<'a>(seen: &Seen<'a>) -> &'a Ip {
    &seen.snapshot.ip
}

fn black_hole(seen: &Seen<'_>) -> Judgement {
    let (alive, silent): (Vec<_>, Vec<_>) = ip(seen).black_holes.iter().partition(|hole| hole.alive);
    let tell = |judgement: Judgement, hole: &BlackHole| {
        let passes = hole.passes_bytes.map_or_else(|| "not known".to_owned(), |n| format!("{n} B"));
        judgement
            .seen("segments sent again, of one length", units::count(hole.again), Some("3".to_owned()))
            .with(
                &format!("shortest packet that is lost on the way to {}", hole.peer),
                format!("{} B", hole.lost_bytes),
            )
            .with("longest packet that passes", passes)
            .with("ICMP messages about it that were seen", units::count(hole.messages))
    };
    match (alive.first(), silent.first()) {
        (Some(hole), _) => {
            let judgement =
                Judgement::apply(format!("long packets to {} vanish and nobody says so", hole.peer))
                    .brings("transfers that hang go on; some after one or two retransmission timeouts")
                    .change(by_hand(
                        "the firewall on the way",
                        "let ICMP type 3 code 4 and ICMPv6 type 2 pass",
                        "as before",
                    ));
            let judgement = seen
                .node
                .of_each(PROBING)
                .filter(|(_, value)| *value == "0")
                .fold(judgement, |j, (netns, value)| j.change(sysctl(netns, PROBING, "1", value, None)));
            tell(judgement, hole)
        }
        (None, Some(hole)) => tell(
            Judgement::cannot_tell(
                format!(
                    "long packets to {} are not acknowledged, and neither is anything else: it may be gone",
                    hole.peer
                ),
                format!("ping {}", hole.peer),
            )
            .sure(Confidence::Low),
            hole,
        ),
        (None, None) => Judgement::not_needed("no length of segments vanishes"),
    }
}

fn path(seen: &Seen<'_>) -> Judgement {
    let ip = ip(seen);
    let narrow = ip.learnt.iter().find(|row| row.mtu < ETHERNET_MTU);
    let told = ip.ptb.iter().max_by_key(|row| row.count);
    let judgement = match (narrow, told) {
        (Some(row), _) => {
            Judgement::consider(format!("the way to {} carries {} B", row.destination, row.mtu)).change(
                by_hand(
                    &row.netns,
                    &format!(
                        "ip route add {} mtu {} ... (the route that is there, with this MTU)",
                        row.destination, row.mtu
                    ),
                    &format!("ip route del {}", row.destination),
                ),
            )
        }
        (None, Some(row)) => Judgement::consider(format!(
            "{} says that the way to {} carries {} B",
            row.router, row.destination, row.mtu
        ))
        .change(by_hand(
            "who sends",
            &format!("an MTU of {} on the route to {}", row.mtu, row.destination),
            "take it from the route",
        )),
        (None, None) => {
            return Judgement::not_needed("no router found a packet too big").seen(
                "messages of packets too big",
                units::count(0),
                Some("1".to_owned()),
            );
        }
    };
    judgement
        .sure(Confidence::Medium)
        .brings("one lost packet and a round trip less at the begin of a connection by that path, each ten minutes")
        .seen("messages of packets too big", units::count(ip.packet_too_big), Some("1".to_owned()))
        .with("path MTUs learnt", units::count(ip.learnt_paths))
}

fn fragments(seen: &Seen<'_>) -> Judgement {
    let ip = ip(seen);
    let sent = total([ip.fragments_out_v4, ip.fragments_out_v6]);
    let received = total([ip.fragments_in_v4, ip.fragments_in_v6]);
    let datagrams = total([ip.reassembled, ip.incomplete]);
    let judgement = if sent.max(received) < FRAGMENTS {
        Judgement::not_needed("hardly anything is cut into fragments")
    } else {
        let waits = seen.snapshot.signal(Signal::IpReassembly).map_or(0, |row| row.hist.quantile_ns(0.99));
        Judgement::consider(if ip.incomplete > 0 {
            "datagrams are cut into fragments, and some stay incomplete"
        } else {
            "datagrams are cut into fragments"
        })
        .brings(format!(
            "up to {} less for one in a hundred datagrams, and none lost to one lost fragment",
            units::duration(waits)
        ))
        .change(by_hand(
            "application",
            "send less at once (1232 B passes everywhere), or use TCP",
            "as before",
        ))
    };
    judgement
        .seen("fragments sent", units::count(sent), Some(units::count(FRAGMENTS)))
        .seen("fragments received", units::count(received), Some(units::count(FRAGMENTS)))
        .with("datagrams that stayed incomplete", of(ip.incomplete, datagrams))
}

fn jumbo(_: &Seen<'_>) -> Judgement {
    Judgement::cannot_tell(
        "whether each link carries jumbo frames was not tried",
        "ping -M do -s 8972 PEER: it must be answered from every node, by every path",
    )
}
