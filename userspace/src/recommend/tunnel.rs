//! Tunnels: whether what they carry fits, with their own header, into what is below them.

use super::{Change, Confidence, Judgement, Risk, Rule, Seen, by_hand, mtu, quoted};
use crate::{
    node::{Node, NodeLink, Settings, plugin_of},
    report::units,
    snapshot::{LearntMtu, Snapshot},
};

/// What a tunnel's header takes more of over IPv6, bytes.
const IPV6_MORE_BYTES: u32 = 20;
/// Plugins that give their tunnels an MTU which limits nothing, by design: that of the pods' interfaces, or of the routes to
/// them, does.
const LIMITED_ELSEWHERE: &[&str] = &["Cilium", "OVN-Kubernetes", "Open vSwitch", "Antrea"];

pub(super) const RULES: &[Rule] = &[Rule {
    id: "mtu.tunnel",
    advice: "give tunnels an MTU that leaves room for their header",
    looks_at: "The MTU of each tunnel, with its header, against that of the interface below it; where none is named, against \
               that of its namespace, if there is one only. Of tunnels that are told each packet's way, and of those to which \
               every route sets an MTU that fits, it says nothing. It is proven where 20 fragments were made in the namespace \
               and a path MTU was learnt that is what fits; without that it cannot be told where not all routes could be listed.",
    risk: Risk::Medium,
    when_not: "Connections through it hang: those that are open keep their segments' length until they learn better.",
    source: "https://www.rfc-editor.org/rfc/rfc4459",
    needs: &[],
    judge: tunnel,
}];

/// A tunnel that takes more than fits below it.
pub(super) struct Tight<'a> {
    settings: &'a Settings,
    link: &'a NodeLink,
    /// What it may take at most, bytes.
    fits_bytes: u32,
}

impl Tight<'_> {
    /// Whether a path MTU may have been learnt from it: a tunnel tells its own machine what fits, and nothing less than that.
    fn taught(&self, learnt: &LearntMtu) -> bool {
        let over_ipv6 = self.fits_bytes.saturating_sub(IPV6_MORE_BYTES);
        learnt.netns == self.settings.netns && (over_ipv6..=self.fits_bytes).contains(&learnt.mtu)
    }

    /// Whether packets were cut because of it: so many fragments were made where it is, and what did not fit taught its
    /// machine so. Fragments alone may be of large datagrams that have nothing to do with it.
    fn cuts(&self, snapshot: &Snapshot) -> bool {
        let made = self.settings.fragments_made.unwrap_or(0);
        made >= mtu::FRAGMENTS && snapshot.ip.learnt.iter().any(|learnt| self.taught(learnt))
    }

    /// Why it is not known whether routes limit what it takes, where nothing proves that they do not.
    fn unlisted(&self, snapshot: &Snapshot) -> Option<&str> {
        let routes = self.settings.routes.as_ref().filter(|_| !self.cuts(snapshot))?;
        routes.error.as_deref()
    }

    /// Who gave it its MTU, if it is not this machine's own. On the host of a cluster any may be the plugin's.
    fn owner<'n>(&self, node: &'n Node) -> Option<&'n str> {
        let clues = node.cluster.as_ref().map_or(&[][..], |cluster| &cluster.cni);
        let of_host = clues.first().filter(|_| self.settings.netns == "host");
        plugin_of(&self.link.name).or_else(|| of_host.map(|clue| clue.plugin.as_str()))
    }
}

/// All of them.
fn tight(node: &Node) -> Vec<Tight<'_>> {
    node.namespaces.iter().flat_map(|s| s.links.iter().filter_map(|link| tight_one(s, link))).collect()
}

/// Whether a path MTU may have been learnt from such a tunnel.
pub(super) fn teaches(node: &Node, learnt: &LearntMtu) -> bool {
    tight(node).iter().any(|tight| tight.taught(learnt))
}

/// Whether such a tunnel is why datagrams were cut.
pub(super) fn cuts(seen: &Seen<'_>) -> bool {
    tight(seen.node).iter().any(|tight| tight.cuts(seen.snapshot))
}

fn tight_one<'a>(settings: &'a Settings, link: &'a NodeLink) -> Option<Tight<'a>> {
    let overhead = link.overhead_bytes().filter(|_| link.up && !link.flow_based)?;
    if plugin_of(&link.name).is_some_and(|plugin| LIMITED_ELSEWHERE.contains(&plugin)) {
        return None;
    }
    let fits_bytes = below_bytes(settings, link)?.checked_sub(overhead)?;
    let routes = settings.routes.as_ref().map_or(&[][..], |routes| &routes.limited);
    let by_routes = routes.iter().find(|row| row.ifindex == link.ifindex).map(|row| row.mtu_bytes);
    let takes = by_routes.map_or(link.mtu_bytes, |bytes| bytes.min(link.mtu_bytes));
    (takes > fits_bytes).then_some(Tight { settings, link, fits_bytes })
}

/// What the interface below a tunnel takes, bytes; none where it cannot be told which one that is.
fn below_bytes(settings: &Settings, link: &NodeLink) -> Option<u32> {
    if link.peer_netnsid.is_some() {
        return None;
    }
    if let Some(below) = link.peer_ifindex.filter(|index| *index != 0) {
        return settings.links.iter().find(|l| l.ifindex == below).map(|l| l.mtu_bytes);
    }
    let leaves = |l: &&NodeLink| l.up && !l.is_tunnel() && l.name != "lo";
    let mut sizes = settings.links.iter().filter(leaves).map(|l| l.mtu_bytes);
    let first = sizes.next()?;
    sizes.all(|bytes| bytes == first).then_some(first)
}

fn tunnel(seen: &Seen<'_>) -> Judgement {
    if seen.node.namespaces.iter().all(|s| s.links.is_empty()) {
        return Judgement::cannot_tell("the interfaces could not be listed", "ip -d link");
    }
    let (unsure, all): (Vec<_>, Vec<_>) =
        tight(seen.node).into_iter().partition(|tight| tight.unlisted(seen.snapshot).is_some());
    let (owned, own): (Vec<_>, Vec<_>) = all.iter().partition(|tight| tight.owner(seen.node).is_some());
    let proven: Vec<_> = own.iter().copied().filter(|tight| tight.cuts(seen.snapshot)).collect();
    let Some(first) = proven.first().or(own.first()).or(owned.first()) else {
        return match unsure.iter().find_map(|tight| Some((tight, tight.unlisted(seen.snapshot)?))) {
            Some((tight, why)) => by_routes_perhaps(tight, why),
            None => Judgement::not_needed("no tunnel takes more than fits below it"),
        };
    };
    let because = format!(
        "{}/{} takes {} B, of which {} B fit below it with its header: what is longer is cut, or lost",
        first.settings.netns, first.link.name, first.link.mtu_bytes, first.fits_bytes
    );
    let judgement = if proven.is_empty() {
        Judgement::consider(because).sure(Confidence::Low)
    } else {
        Judgement::apply(because).sure(Confidence::Medium)
    };
    let learnt = seen.snapshot.ip.learnt.iter().filter(|row| first.taught(row)).count();
    let made = first.settings.fragments_made;
    let judgement = judgement
        .brings(format!(
            "no packet that is cut below the tunnel, or lost, before its sender learns what fits; datagrams of more than \
             {} B are cut all the same, before it",
            first.fits_bytes
        ))
        .seen("tunnels without room for their header", units::count(all.len() as u64), Some("1".to_owned()))
        .seen(
            &format!("fragments made in {}", first.settings.netns),
            made.map_or_else(|| "not known".to_owned(), units::count),
            Some(units::count(mtu::FRAGMENTS)),
        )
        .seen("path MTUs learnt there that are what fits", units::count(learnt as u64), Some("1".to_owned()));
    let changed = if proven.is_empty() { own } else { proven };
    let judgement = changed.into_iter().fold(judgement, |judgement, tight| judgement.change(change(tight)));
    owned.into_iter().fold(judgement, |judgement, tight| judgement.change(by_plugin(seen.node, tight)))
}

/// A tunnel takes more than fits, which its routes may see to.
fn by_routes_perhaps(tight: &Tight<'_>, why: &str) -> Judgement {
    let Tight { settings, link, fits_bytes } = tight;
    Judgement::cannot_tell(
        format!(
            "{}/{} takes {} B, of which {fits_bytes} B fit below it with its header; whether every route by it sets an MTU is \
             not known: {why}",
            settings.netns, link.name, link.mtu_bytes
        ),
        format!(
            "ip route show table all dev {0}; ip -6 route show table all dev {0}: whether each has an mtu of {fits_bytes} or less",
            quoted(&link.name)
        ),
    )
}

fn change(tight: &Tight<'_>) -> Change {
    let owner =
        "whoever makes the tunnel; the other end takes as much, and pods' interfaces should take no more";
    mtu::set(&tight.settings.netns, tight.link, tight.fits_bytes, Some(owner))
}

/// What a plugin sets it would set back.
fn by_plugin(node: &Node, tight: &Tight<'_>) -> Change {
    let plugin = tight.owner(node).unwrap_or("the plugin");
    by_hand(
        &format!("the configuration of {plugin}, if the tunnel is its"),
        &format!(
            "an MTU of {} for {}/{} and for the pods behind it, if nothing else keeps what they send that short",
            tight.fits_bytes, tight.settings.netns, tight.link.name
        ),
        "as before",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::{LimitedInterface, Routes};

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

    fn fits(node: &Node) -> Vec<u32> {
        tight(node).iter().map(|t| t.fits_bytes).collect()
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
        for (kind, mtu, below, expected) in cases {
            let node = node(vec![
                lo.clone(),
                link("eth0", 2, None, 1500, None),
                link("tun", 9, kind, mtu, below),
                link("eth1", 3, None, if below == Some(3) { 9000 } else { 1500 }, None),
            ]);
            assert_eq!(fits(&node), expected.into_iter().collect::<Vec<_>>(), "{kind:?} {mtu}");
        }
        // Below it is less than its header: nothing that would fit can be named.
        let tiny = vec![link("a", 2, None, 10, None), link("t", 3, Some("vxlan"), 1500, Some(2))];
        assert!(fits(&node(tiny)).is_empty());
    }

    #[test]
    fn of_a_tunnel_that_is_limited_elsewhere_nothing_is_said() {
        let with = |change: &dyn Fn(&mut NodeLink)| {
            let mut tunnel = link("tun", 9, Some("vxlan"), 1500, None);
            change(&mut tunnel);
            fits(&node(vec![
                link("eth0", 2, None, 1500, None),
                tunnel,
                link("veth1", 3, Some("veth"), 1500, None),
            ]))
        };
        assert_eq!(with(&|_| ()), [1450]);
        for name in ["cilium_vxlan", "cilium_geneve", "genev_sys_6081", "vxlan_sys_4789"] {
            assert!(with(&|l| l.name = name.to_owned()).is_empty(), "{name}");
        }
        assert_eq!(with(&|l| l.name = "flannel.1".to_owned()), [1450]);
        assert!(with(&|l| l.flow_based = true).is_empty());
        assert!(with(&|l| (l.peer_ifindex, l.peer_netnsid) = (Some(2), Some(0))).is_empty());
        assert!(with(&|l| l.peer_ifindex = Some(77)).is_empty(), "what is below it is not there");
    }

    #[test]
    fn below_several_interfaces_that_differ_it_cannot_be_told_what_fits() {
        let links = |below| {
            vec![
                link("eth0", 2, None, 1500, None),
                link("cni0", 3, Some("bridge"), 1400, None),
                link("tun", 9, Some("vxlan"), 1500, below),
            ]
        };
        assert!(fits(&node(links(None))).is_empty());
        assert_eq!(fits(&node(links(Some(2)))), [1450]);
    }

    #[test]
    fn routes_limit_what_a_tunnel_takes() {
        let with = |mtu_bytes| {
            let mut node =
                node(vec![link("eth0", 2, None, 1500, None), link("tun", 9, Some("vxlan"), 1500, None)]);
            let limited = vec![LimitedInterface { ifindex: 9, mtu_bytes }];
            node.namespaces[0].routes = Some(Routes { limited, ..Routes::default() });
            fits(&node)
        };
        assert!(with(1450).is_empty());
        assert_eq!(with(1451), [1450]);
        assert_eq!(with(u32::MAX), [1450]);
    }
}
