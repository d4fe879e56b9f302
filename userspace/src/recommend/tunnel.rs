//! Tunnels: whether what they carry fits, with their own header, into what is below them.

use super::{Change, Confidence, Judgement, Risk, Rule, Seen, quoted, total};
use crate::{
    node::{Node, NodeLink, Settings},
    report::units,
    snapshot::LearntMtu,
};

/// What a tunnel puts before each packet that it carries over IPv4, bytes: over IPv6 it is 20 more, so that this is the
/// least. Source: the kinds' own `..._MIN_HEADROOM` and `needed_headroom`, wireguard(8).
const OVERHEAD_BYTES: &[(&str, u32)] = &[
    ("vxlan", 50),
    ("geneve", 50),
    ("ipip", 20),
    ("sit", 20),
    ("gre", 24),
    ("gretap", 38),
    ("ip6tnl", 40),
    ("wireguard", 60),
];

pub(super) const RULES: &[Rule] = &[Rule {
    id: "mtu.tunnel",
    advice: "give tunnels an MTU that leaves room for their header",
    looks_at: "The MTU of each tunnel, with its header, against that of the interface below it; where none is named, against \
               the largest of its namespace.",
    risk: Risk::Medium,
    when_not: "Connections through it hang: those that are open keep their segments' length until they learn better.",
    source: "https://www.rfc-editor.org/rfc/rfc4459",
    needs: &[],
    judge: tunnel,
}];

/// A tunnel that takes more than fits below it.
pub(super) struct Tight<'a> {
    netns: &'a str,
    link: &'a NodeLink,
    /// What it may take at most, bytes.
    fits_bytes: u32,
}

/// All of them.
pub(super) fn tight(node: &Node) -> Vec<Tight<'_>> {
    node.namespaces.iter().flat_map(|s| s.links.iter().filter_map(|link| tight_one(s, link))).collect()
}

/// Whether a path MTU may have been learnt from such a tunnel, which tells its own machine what fits.
pub(super) fn teaches(node: &Node, learnt: &LearntMtu) -> bool {
    tight(node).iter().any(|tight| tight.netns == learnt.netns && learnt.mtu <= tight.fits_bytes)
}

fn overhead(link: &NodeLink) -> Option<u32> {
    let kind = link.kind.as_deref()?;
    OVERHEAD_BYTES.iter().find(|(name, _)| *name == kind).map(|(_, bytes)| *bytes)
}

fn tight_one<'a>(settings: &'a Settings, link: &'a NodeLink) -> Option<Tight<'a>> {
    let overhead = overhead(link).filter(|_| link.up)?;
    let is_below = |l: &&NodeLink| l.up && overhead_free(l);
    let named = link.peer_ifindex.and_then(|below| settings.links.iter().find(|l| l.ifindex == below));
    let largest = || settings.links.iter().filter(is_below).max_by_key(|l| l.mtu_bytes);
    let below = named.or_else(largest)?;
    let fits_bytes = below.mtu_bytes.checked_sub(overhead)?;
    (link.mtu_bytes > fits_bytes).then_some(Tight { netns: &settings.netns, link, fits_bytes })
}

/// Whether packets leave the machine by it as they are: no tunnel, and not the loopback.
fn overhead_free(link: &NodeLink) -> bool {
    overhead(link).is_none() && link.name != "lo"
}

fn tunnel(seen: &Seen<'_>) -> Judgement {
    if seen.node.namespaces.iter().all(|s| s.links.is_empty()) {
        return Judgement::cannot_tell("the interfaces could not be listed", "ip -d link");
    }
    let tight = tight(seen.node);
    let Some(first) = tight.first() else {
        return Judgement::not_needed("no tunnel takes more than fits below it");
    };
    let ip = &seen.snapshot.ip;
    let fragments = total([ip.fragments_out_v4, ip.fragments_out_v6, ip.fragments_in_v4, ip.fragments_in_v6]);
    let because = format!(
        "{}/{} takes {} B, of which {} B fit below it with its header: what is longer is cut, or lost",
        first.netns, first.link.name, first.link.mtu_bytes, first.fits_bytes
    );
    // What is cut shows that packets of such lengths are sent; whose they are does not.
    let judgement = if fragments > 0 {
        Judgement::apply(because).sure(Confidence::Medium)
    } else {
        Judgement::consider(because).sure(Confidence::Low)
    };
    let judgement = judgement
        .brings("one packet instead of two fragments, and none lost with one of them")
        .seen("tunnels without room for their header", units::count(tight.len() as u64), Some("1".to_owned()))
        .with("fragments seen", units::count(fragments));
    tight.iter().fold(judgement, |judgement, tight| judgement.change(change(tight)))
}

fn change(tight: &Tight<'_>) -> Change {
    let set = |bytes| format!("ip link set {} mtu {bytes}", quoted(&tight.link.name));
    Change {
        scope: tight.netns.to_owned(),
        apply: set(tight.fits_bytes),
        undo: set(tight.link.mtu_bytes),
        setting: None,
        owner: Some("the CNI: it makes the tunnel, and pods' interfaces should take no more".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(name: &str, ifindex: u32, kind: Option<&str>, mtu_bytes: u32, below: Option<u32>) -> NodeLink {
        NodeLink {
            name: name.to_owned(),
            ifindex,
            kind: kind.map(str::to_owned),
            up: true,
            mtu_bytes,
            peer_ifindex: below,
            ..NodeLink::default()
        }
    }

    fn node(links: Vec<NodeLink>) -> Node {
        Node {
            namespaces: vec![Settings { netns: "host".to_owned(), links, ..Settings::default() }],
            ..Node::default()
        }
    }

    #[test]
    fn a_tunnel_needs_room_for_its_header_in_the_interface_below_it() {
        let lo = link("lo", 1, None, 65536, None);
        let cases = [
            (Some("vxlan"), 1450, Some(2), None),
            (Some("vxlan"), 1451, Some(2), Some(1450)),
            (Some("ipip"), 1500, None, Some(1480)),
            (Some("wireguard"), 1420, None, None),
            (Some("bridge"), 1500, None, None),
            (Some("vxlan"), 8950, Some(3), None),
        ];
        for (kind, mtu, below, fits) in cases {
            let node = node(vec![
                lo.clone(),
                link("eth0", 2, None, 1500, None),
                link("tun", 9, kind, mtu, below),
                link("eth1", 3, None, if below == Some(3) { 9000 } else { 1500 }, None),
            ]);
            let found: Vec<_> = tight(&node).iter().map(|t| t.fits_bytes).collect();
            assert_eq!(found, fits.into_iter().collect::<Vec<_>>(), "{kind:?} {mtu}");
        }
        // Below it is less than its header: nothing that would fit can be named.
        assert!(
            tight(&node(vec![link("a", 2, None, 10, None), link("t", 3, Some("vxlan"), 1500, Some(2))]))
                .is_empty()
        );
    }
}
