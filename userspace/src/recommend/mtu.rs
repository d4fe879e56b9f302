//! Packet sizes: black holes, paths narrower than their interfaces, fragments, and jumbo frames.

use super::{Change, Confidence, Judgement, Risk, Rule, Seen, by_hand, of, quoted, sysctl, total, tunnel};
use crate::{
    node::{Node, NodeLink, Settings},
    probes::PATH_MTU,
    report::units,
    snapshot::{BlackHole, Ip},
};
use nettrace_common::Signal;
use std::collections::BTreeMap;

const PROBING: &str = "net.ipv4.tcp_mtu_probing";
/// Fewer fragments are somebody's single large datagram.
pub(super) const FRAGMENTS: u64 = 20;
/// What every link that carries IPv6 takes at least, bytes (RFC 8200, 5).
const IPV6_MTU: u32 = 1280;
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
        id: "mtu.mismatch",
        advice: "give all interfaces of a network the same MTU",
        looks_at: "The two ends of a veth pair, and the ports of a bridge, that take packets of different lengths.",
        risk: Risk::Medium,
        when_not: "What is sent by the wider end is never longer than the narrower takes.",
        source: "https://docs.kernel.org/networking/netdevices.html",
        needs: &[],
        judge: mismatch,
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
            let judgement = Judgement::apply(format!(
                "long packets to {} vanish, and the sender does not learn it",
                hole.peer
            ))
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

/// An interface and its namespace.
type Place<'a> = (&'a str, &'a NodeLink);

/// The two ends of veth pairs of which one takes longer packets, the narrow one first. An end in a namespace that was not
/// measured is not known.
fn unlike_ends(node: &Node) -> Vec<(Place<'_>, Place<'_>)> {
    let all = node.namespaces.iter().flat_map(|s| s.links.iter().map(|link| (s.netns.as_str(), link)));
    let veths: Vec<Place<'_>> = all.filter(|(_, l)| l.up && l.kind.as_deref() == Some("veth")).collect();
    let mut by_index: BTreeMap<u32, Vec<Place<'_>>> = BTreeMap::new();
    for place in &veths {
        by_index.entry(place.1.ifindex).or_default().push(*place);
    }
    let mut found = Vec::new();
    for (netns, link) in veths {
        let places = link.peer_ifindex.and_then(|peer| by_index.get(&peer)).into_iter().flatten();
        let is_end = |(other, end): &&Place<'_>| end.peer_ifindex == Some(link.ifindex) && *other != netns;
        let ends: Vec<_> = places.filter(is_end).collect();
        // Indices are the namespaces' own: where several fit, which one it is cannot be told.
        if let [end] = ends[..]
            && link.mtu_bytes < end.1.mtu_bytes
        {
            found.push(((netns, link), *end));
        }
    }
    found
}

/// Ports of a bridge, the narrowest and the widest, where they differ.
fn unlike_ports(node: &Node) -> Vec<(Place<'_>, Place<'_>)> {
    let mut found = Vec::new();
    for Settings { netns, links, .. } in &node.namespaces {
        for bridge in links.iter().filter(|l| l.kind.as_deref() == Some("bridge")) {
            let ports = || links.iter().filter(|l| l.up && l.master_ifindex == Some(bridge.ifindex));
            let (narrow, wide) = (ports().min_by_key(|l| l.mtu_bytes), ports().max_by_key(|l| l.mtu_bytes));
            if let (Some(narrow), Some(wide)) = (narrow, wide)
                && narrow.mtu_bytes < wide.mtu_bytes
            {
                found.push(((netns.as_str(), narrow), (netns.as_str(), wide)));
            }
        }
    }
    found
}

fn mismatch(seen: &Seen<'_>) -> Judgement {
    if seen.node.namespaces.iter().all(|s| s.links.is_empty()) {
        return Judgement::cannot_tell("the interfaces could not be listed", "ip -d link");
    }
    let (ends, ports) = (unlike_ends(seen.node), unlike_ports(seen.node));
    let Some(((netns, narrow), (wide_netns, wide))) = ends.iter().chain(&ports).next().copied() else {
        return Judgement::not_needed("interfaces that hand packets to each other take the same lengths");
    };
    let judgement = Judgement::consider(format!(
        "{netns}/{} takes {} B, and {wide_netns}/{} up to {} B: what is longer is lost between them, and nobody says so",
        narrow.name, narrow.mtu_bytes, wide.name, wide.mtu_bytes
    ))
    .brings("packets between the two lengths are no longer lost on this way")
    .sure(Confidence::Medium)
    .seen("veth pairs whose ends differ", units::count(ends.len() as u64), Some("1".to_owned()))
    .seen("bridges whose ports differ", units::count(ports.len() as u64), Some("1".to_owned()))
    .with("black holes seen", units::count(ip(seen).black_holes.len() as u64));
    if ends.is_empty() {
        return judgement.change(by_hand(
            "the CNI's configuration",
            "one MTU for the bridge, its ports and the pods behind them: it is who sends that must not send more",
            "as before",
        ));
    }
    judgement.change(set(wide_netns, wide, narrow.mtu_bytes, Some("the CNI: new pods get its MTU")))
}

/// Another MTU for an interface. Below what IPv6 needs the kernel takes that from it, with all of its addresses and routes, and
/// does not give them back with the MTU: that is no command to hand out.
pub(super) fn set(netns: &str, link: &NodeLink, mtu_bytes: u32, owner: Option<&str>) -> Change {
    // After `dev` any name is a name.
    let command = |bytes| format!("ip link set dev {} mtu {bytes}", quoted(&link.name));
    let loses_ipv6 = mtu_bytes < IPV6_MTU && link.mtu_bytes >= IPV6_MTU;
    let (apply, undo) = if loses_ipv6 {
        (
            format!(
                "an MTU of {mtu_bytes} for {}, if nothing there needs IPv6: below {IPV6_MTU} B the kernel removes it from \
                 the interface; better a wider link",
                link.name
            ),
            format!("{}, and its IPv6 addresses and routes anew", command(link.mtu_bytes)),
        )
    } else {
        (command(mtu_bytes), command(link.mtu_bytes))
    };
    let setting = (!loses_ipv6).then(|| format!("mtu:{}={mtu_bytes}", link.name));
    Change { scope: netns.to_owned(), apply, undo, setting, owner: owner.map(str::to_owned) }
}

fn path(seen: &Seen<'_>) -> Judgement {
    let ip = ip(seen);
    let narrow = ip.learnt.iter().find(|row| row.mtu < ETHERNET_MTU && !tunnel::teaches(seen.node, row));
    let told = ip.ptb.iter().max_by_key(|row| row.count);
    let judgement = match (narrow, told) {
        (Some(row), _) => Judgement::consider(format!(
            "the way to {} carries {} B",
            row.destination, row.mtu
        ))
        .change(by_hand(
            &row.netns,
            &format!("an MTU of {} on the route to {}, if it matters there", row.mtu, row.destination),
            "take it from the route",
        )),
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
        .sure(Confidence::Low)
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
    } else if tunnel::cuts(seen) {
        Judgement::not_needed("a tunnel takes more than fits below it: see mtu.tunnel before applications")
            .sure(Confidence::Medium)
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
