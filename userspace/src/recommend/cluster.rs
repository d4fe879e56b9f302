//! Advice on the cluster rather than the node: where pods run, and monitoring. One node tells little of it.

use super::{Judgement, Risk, Rule, Seen};
use crate::{report::units, snapshot::TcpPeer};
use nettrace_common::Signal;

/// Smoothed round trips to a peer, below which its median says little.
const ENOUGH: u64 = 20;
/// A peer whose median is longer may be in another zone, ns: within one it is a few hundred microseconds at most.
const FAR_NS: u64 = 1_000_000;

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "placement.zones",
        advice: "keep traffic within a zone (trafficDistribution, topology-aware routing)",
        looks_at: "The median round trip of each peer with 20 or more: where all are below 1 ms, none is far away. Which \
                   zone a peer is in is the cluster's to know.",
        risk: Risk::Medium,
        when_not: "A zone has too few servers of a Service: they get all of its load.",
        source: "https://kubernetes.io/docs/reference/networking/virtual-ips/#traffic-distribution",
        needs: &[Signal::TcpSrtt.name()],
        judge: zones,
    },
    Rule {
        id: "placement.affinity",
        advice: "place pods that talk to each other together with podAntiAffinity",
        looks_at: "The same. podAntiAffinity keeps pods apart: together is podAffinity, and a Service's PreferSameNode or \
                   PreferSameZone costs the scheduler nothing.",
        risk: Risk::Medium,
        when_not: "Pods are to survive a node together; the cluster has some hundred nodes: rules between pods are costly then.",
        source: "https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/",
        needs: &[Signal::TcpSrtt.name()],
        judge: zones,
    },
    Rule {
        id: "monitoring.export",
        advice: "watch latency with Prometheus and Grafana",
        looks_at: "Nothing: it shows what is slow, and makes nothing faster.",
        risk: Risk::Low,
        when_not: "Nobody looks at it. By each of a thousand pods, histograms are many series.",
        source: "https://prometheus.io/docs/practices/instrumentation/",
        needs: &[],
        judge: monitoring,
    },
];

fn zones(seen: &Seen<'_>) -> Judgement {
    let median = |peer: &TcpPeer| peer.srtt.quantile_ns(0.5);
    let mut peers: Vec<_> = seen.snapshot.tcp.peers.iter().filter(|p| p.srtt.count() >= ENOUGH).collect();
    peers.sort_by_key(|peer| median(peer));
    let (Some(near), Some(far)) = (peers.first(), peers.last()) else {
        return Judgement::cannot_tell(
            "no peer was measured often enough",
            "nettrace run -d 1m --signals tcp.srtt; kubectl get pods -o wide",
        );
    };
    let away = peers.iter().filter(|peer| median(peer) >= FAR_NS).count() as u64;
    let judgement = if away == 0 {
        Judgement::not_needed("no peer is far away")
    } else {
        Judgement::cannot_tell(
            "some peers are far away; whether servers of the same Service are nearer is the cluster's to know",
            "kubectl get nodes -L topology.kubernetes.io/zone; kubectl get endpointslices -o wide: find the peer there",
        )
    };
    judgement
        .seen("peers with a round trip of 1 ms or more", units::count(away), Some("1".to_owned()))
        .with(&format!("round trip to {}, the farthest, p50", far.peer), units::duration(median(far)))
        .with(&format!("to {}, the nearest", near.peer), units::duration(median(near)))
}

fn monitoring(_: &Seen<'_>) -> Judgement {
    Judgement::not_needed("it makes no packet faster; it shows when something has become slow")
}
