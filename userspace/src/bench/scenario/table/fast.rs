//! nettrace's own fast paths. None is built yet: these rows are where they will be measured, and say so until then.

use super::super::{FastPath, Layout, Need, Program, Scenario, Setting, Workload};
use super::{names, queues, services};
use nettrace_bench::load::args::{KindName, LoadArgs};

pub(super) const HOST_ROUTING: Scenario = Scenario {
    name: "fast-path-host-routing",
    advice: "let packets between pods pass by the node's stack (eBPF host routing)",
    arms: ["packets go through the node's stack", "from one pod's interface to the other's"],
    layout: Layout::Node,
    setup: &[],
    settings: &[Setting::FastPath(FastPath::HostRouting)],
    workloads: &[
        Workload::plain("tcp_rr", || LoadArgs::of(KindName::TcpRr)),
        Workload::plain("tcp_crr", || LoadArgs::of(KindName::TcpCrr)),
    ],
    answers: &["tcp_rr.p50", "tcp_crr.p50"],
    needs: &[Need::FastPath(FastPath::HostRouting)],
    made: None,
};

pub(super) const SERVICE_TRANSLATION: Scenario = Scenario {
    name: "fast-path-service-translation",
    advice: "translate Services when sockets connect (eBPF kube-proxy replacement)",
    arms: ["5,000 Services in iptables", "sockets connect to endpoints; no rules"],
    settings: &[Setting::FastPath(FastPath::ServiceTranslation)],
    needs: &[Need::FastPath(FastPath::ServiceTranslation), Need::Program(Program::IptablesRestore)],
    ..services::COUNT_5000
};

pub(super) const PRIORITY: Scenario = Scenario {
    name: "fast-path-priority",
    advice: "mark traffic that waits for answers, on the node (eBPF)",
    arms: [
        "a first-come queue of 120 ms on a 100 Mbit/s link",
        "what waits for answers goes first, unmarked as it is",
    ],
    settings: &[Setting::FastPath(FastPath::Priority)],
    needs: &[Need::FastPath(FastPath::Priority)],
    ..queues::PRIORITY
};

pub(super) const DNS_CACHE: Scenario = Scenario {
    name: "fast-path-dns-cache",
    advice: "answer DNS queries in the kernel of the client's node (eBPF)",
    arms: [
        "queries go to the cluster's name server, 2 ms away",
        "answers that are known come from the kernel",
    ],
    settings: &[Setting::FastPath(FastPath::DnsCache)],
    needs: &[Need::FastPath(FastPath::DnsCache)],
    ..names::CACHE
};
