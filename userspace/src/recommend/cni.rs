//! The network between pods: tunnels, and what its plugins can be set to.

use super::{Confidence, Judgement, Risk, Rule, Seen, by_hand, path::ENOUGH};
use crate::{
    node::{Cluster, Tunnel},
    preflight::Release,
    report::units,
};
use nettrace_common::Signal;

/// Parts of Cilium, and the oldest kernel for each. Source: its documentation's requirements and tuning guide.
const CILIUM_SINCE: &[(&str, Release)] = &[
    ("eBPF host routing", Release { major: 5, minor: 10 }),
    ("bandwidth manager with BBR", Release { major: 5, minor: 18 }),
    ("BIG TCP of IPv6", Release { major: 5, minor: 19 }),
    ("BIG TCP of IPv4", Release { major: 6, minor: 3 }),
    ("netkit", Release { major: 6, minor: 8 }),
];
/// Share of a round trip, from which on wrapping packets may matter.
const WRAPPING_SHARE: f64 = 0.2;

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "cni.encapsulation",
        advice: "route between nodes without encapsulation",
        looks_at: "Tunnels of the host, and the time that handing a packet to one takes every other time: 20 us (latency \
                   profile: 10 us) and 20 % of the median of 100 round trips or more. It has the outer packet's way in it, too.",
        risk: Risk::High,
        when_not: "The network between nodes does not route the pods' addresses, or must not see them. A tunnel's larger cost \
                   is its MTU.",
        source: "https://docs.tigera.io/calico/latest/networking/configuring/vxlan-ipip",
        needs: &[],
        judge: encapsulation,
    },
    Rule {
        id: "cni.calico-bgp",
        advice: "Calico: BGP with route reflectors",
        looks_at: "Whether Calico is here. Routes of all nodes are the cluster's: a full mesh works up to some 50 to 100 nodes.",
        risk: Risk::High,
        when_not: "Nodes are few, or VXLAN is used: it needs no BGP. Route reflectors spread routes; no packet passes them.",
        source: "https://docs.tigera.io/calico/latest/networking/configuring/bgp",
        needs: &[],
        judge: calico,
    },
    Rule {
        id: "cni.cilium",
        advice: "Cilium: eBPF host routing, kube-proxy replacement, netkit, BIG TCP, bandwidth manager",
        looks_at: "Whether Cilium is here, whether packets pass netfilter hooks, which eBPF host routing goes around, and what of \
                   it this kernel is new enough for.",
        risk: Risk::High,
        when_not: "Something else relies on the host's netfilter rules. Host routing needs bpf.masquerade and the kube-proxy \
                   replacement; netkit is not switched to on live clusters; BIG TCP works with neither tunnel nor encryption; \
                   BBR takes more than its part from CUBIC. installNoConntrackIptablesRules is for where host routing is not \
                   possible.",
        source: "https://docs.cilium.io/en/stable/operations/performance/tuning/",
        needs: &[],
        judge: cilium,
    },
    Rule {
        id: "cni.flannel",
        advice: "Flannel: backend host-gw instead of VXLAN",
        looks_at: "Whether Flannel is here, and its tunnel. Whether nodes share a layer 2 network is not seen on one.",
        risk: Risk::High,
        when_not: "A router is between nodes: host-gw loses their traffic.",
        source: "https://github.com/flannel-io/flannel/blob/master/Documentation/backends.md",
        needs: &[],
        judge: flannel,
    },
];

/// What of the cluster's network is known, or why nothing.
fn cluster<'a>(seen: &Seen<'a>) -> Result<&'a Cluster, Box<Judgement>> {
    let cannot = |why: &str| Box::new(Judgement::cannot_tell(why, "ip -d link; ls /etc/cni/net.d"));
    let cluster = seen.node.cluster.as_ref();
    let cluster = cluster.ok_or_else(|| cannot("the measurement does not say what connects the pods"))?;
    match &cluster.tunnels_error {
        Some(error) => Err(cannot(&format!("the host's interfaces could not be listed: {error}"))),
        None => Ok(cluster),
    }
}

/// Whether a plugin is here; else why its rule says nothing.
fn with_plugin<'a>(seen: &Seen<'a>, plugin: &str) -> Result<&'a Cluster, Box<Judgement>> {
    let cluster = cluster(seen)?;
    if cluster.has(plugin) {
        return Ok(cluster);
    }
    Err(Box::new(match cluster.unread.first() {
        Some(why) => Judgement::cannot_tell(
            format!("there is no trace of {plugin}, but not all could be read: {why}"),
            "ls /etc/cni/net.d",
        ),
        // Distributions keep the configuration elsewhere, and a plugin without tunnels leaves few traces.
        None if !cluster.is_known() => Judgement::cannot_tell(
            "who connects the pods is not known",
            "kubectl -n kube-system get pods -o wide; ls /etc/cni/net.d",
        ),
        None => Judgement::not_needed(format!("{plugin} is not here")),
    }))
}

fn named(tunnel: &Tunnel) -> String {
    format!("{} ({})", tunnel.interface, tunnel.encapsulation)
}

/// The median of a signal at an interface, of enough packets.
fn median(seen: &Seen<'_>, signal: Signal, scope: &str) -> Option<u64> {
    let mut rows = seen.snapshot.signals.iter();
    let row =
        rows.find(|row| row.signal == signal.name() && row.scope == scope && row.hist.count() >= ENOUGH)?;
    Some(row.hist.quantile_ns(0.5))
}

fn encapsulation(seen: &Seen<'_>) -> Judgement {
    let cluster = match cluster(seen) {
        Ok(cluster) => cluster,
        Err(cannot) => return *cannot,
    };
    let Some(first) = cluster.tunnels.first() else {
        return Judgement::not_needed("no tunnel is up: packets between nodes are not wrapped");
    };
    let names = cluster.tunnels.iter().map(named).collect::<Vec<_>>().join(", ");
    let measured = cluster.tunnels.iter().find_map(|tunnel| {
        let wrapping = median(seen, Signal::TxDriver, &tunnel.interface)?;
        let of_all = || Some(seen.enough(Signal::NetRtt, ENOUGH).ok()?.hist.quantile_ns(0.5));
        let round_trip = median(seen, Signal::NetRtt, &tunnel.interface).or_else(of_all)?;
        Some((tunnel, wrapping, round_trip))
    });
    let Some((tunnel, wrapping, round_trip)) = measured else {
        return Judgement::cannot_tell(
            format!("packets are wrapped, but too few were timed at {}", first.interface),
            format!(
                "nettrace run -d 1m --signals tx.driver,net.rtt, while pods talk to those of other nodes by {}",
                first.interface
            ),
        )
        .with("tunnels", names);
    };
    let share = wrapping as f64 / (round_trip.max(1)) as f64;
    let judgement = if wrapping >= seen.limits.hook_ns && share >= WRAPPING_SHARE {
        Judgement::consider(format!(
            "handing packets to {} is a good part of their round trip",
            tunnel.interface
        ))
        .sure(Confidence::Low)
        .brings(format!(
            "less than {} of a round trip of {}, if the network can route pods' addresses",
            units::duration(wrapping),
            units::duration(round_trip)
        ))
        .change(by_hand("the CNI's configuration", "native routing", "encapsulation, as before"))
    } else {
        Judgement::not_needed("wrapping packets takes little of their round trip")
    };
    judgement
        .seen(
            &format!("handing a packet to {}, p50", tunnel.interface),
            units::duration(wrapping),
            Some(units::duration(seen.limits.hook_ns)),
        )
        .seen("share of the median round trip", units::percent(share), Some(units::percent(WRAPPING_SHARE)))
        .with("tunnels", names)
}

fn calico(seen: &Seen<'_>) -> Judgement {
    match with_plugin(seen, "Calico") {
        Err(said) => *said,
        Ok(_) => Judgement::cannot_tell(
            "how many nodes exchange routes, and whether by BGP, is the cluster's",
            "calicoctl node status; kubectl get nodes | wc -l: reflectors are for more than 50 to 100 nodes",
        ),
    }
}

fn cilium(seen: &Seen<'_>) -> Judgement {
    if let Err(said) = with_plugin(seen, "Cilium") {
        return *said;
    }
    let judgement = Judgement::cannot_tell(
        "Cilium's settings are the cluster's, and what each brings is known by measuring with it and without",
        "cilium status --verbose (Routing, KubeProxyReplacement, Device Mode); nettrace run before and after a change",
    )
    .with("kernel", seen.snapshot.meta.kernel.clone())
    .with("of these it is new enough for", possible(&seen.snapshot.meta.kernel));
    match seen.snapshot.signal(Signal::NfHook) {
        Some(row) => judgement.with(
            "packets that passed a netfilter hook, which host routing goes around",
            units::count(row.hist.count()),
        ),
        None => judgement,
    }
}

/// What of Cilium a kernel is new enough for.
fn possible(kernel: &str) -> String {
    let release = Release::parse(kernel);
    let parts = CILIUM_SINCE.iter().filter(|(_, since)| release.is_some_and(|release| release >= *since));
    let names: Vec<_> = parts.map(|(name, _)| *name).collect();
    if names.is_empty() { "nothing, or it is not known".to_owned() } else { names.join(", ") }
}

fn flannel(seen: &Seen<'_>) -> Judgement {
    let cluster = match with_plugin(seen, "Flannel") {
        Ok(cluster) => cluster,
        Err(said) => return *said,
    };
    let Some(tunnel) = cluster.tunnels.iter().find(|t| t.plugin.as_deref() == Some("Flannel")) else {
        return Judgement::not_needed("Flannel has no tunnel here");
    };
    Judgement::cannot_tell(
        "whether all nodes share a layer 2 network is not seen on one of them",
        "kubectl get nodes -o wide; ip route get ADDRESS of each node: none may say `via`; what the tunnel takes: \
         nettrace recommend --explain cni.encapsulation",
    )
    .with("tunnel", named(tunnel))
}
