//! A link that bulk traffic fills: how long others wait behind it (bufferbloat, Gettys and Nichols 2011).
//!
//! The link is a shaper at the node, on the way to the server. Its queue is long and first come, first served, as that of many
//! a modem, virtual machine or token bucket. Segments leave the client one by one: whole trains of them would each take ms.

use super::super::{Layout, Need, Place, Program, Scenario, Script, Setting, Step, Workload};
use nettrace_bench::load::args::{KindName, LoadArgs};
use std::time::Duration;

/// Of the requests; bulk goes to the next.
const PORT: u16 = 7001;

const SETUP: &[Step] = &[
    // Fills the queue as cubic does, and may be set in a namespace on every machine: others only where its administrator allowed
    // them (tcp_allowed_congestion_control). BBR would not fill it.
    Step::Sysctl(Place::Client, "net/ipv4/tcp_congestion_control", "reno"),
    Step::Run(Place::Client, Program::Ip, &["link", "set", "dev", "eth0", "gso_max_segs", "1"]),
    Step::Script(Place::Node, shaper),
    Step::Script(Place::Client, mark),
];
const WORKLOADS: &[Workload] = &[Workload {
    name: "rr",
    // Who waits behind a long queue waits, and is no error.
    args: || LoadArgs { limit_seconds: Some(5.0), ..LoadArgs::of(KindName::RrUnderBulk) },
    port: PORT,
    service: None,
    least: Duration::from_secs(3),
    warms_up: true,
}];
const ANSWERS: &[&str] = &["rr.p50", "rr.p99", "rr.bulk.throughput"];

/// 100 Mbit/s, and a queue of 1,000 packets of 1,500 bytes: 120 ms.
fn shaper() -> Script {
    let dev = "dev veth-server";
    let text = format!(
        "qdisc replace {dev} root handle 1: htb default 10\n\
         class add {dev} parent 1: classid 1:10 htb rate 100mbit burst 15k\n\
         qdisc add {dev} parent 1:10 handle 10: pfifo limit 1000\n"
    );
    Script::tc(text)
}

/// Requests are marked as waiting for answers by who sends them (IPTOS_LOWDELAY, RFC 1349), as ssh long was. That is the mark
/// that the first band of `pfifo_fast` is for; it knows nothing of EF (`ip_tos2prio`).
fn mark() -> Script {
    Script::nft(format!(
        "table ip nettrace-mark {{\nchain output {{\ntype filter hook output priority mangle\ntcp dport {PORT} ip dscp set 0x04\n}}\n}}\n"
    ))
}

pub(super) const FAIR: Scenario = Scenario {
    name: "bufferbloat-fq_codel",
    advice: "use fq_codel (or cake) on links that fill",
    arms: ["a first-come queue of 120 ms on a 100 Mbit/s link", "fq_codel in its place"],
    layout: Layout::Node,
    setup: SETUP,
    settings: &[Setting::Change(&[(Place::Node, "qdisc:veth-server:1:10=fq_codel")])],
    workloads: WORKLOADS,
    answers: ANSWERS,
    needs: &[Need::Program(Program::Tc), Need::Program(Program::Nft), Need::Qdisc("fq_codel")],
    made: None,
};

pub(super) const PRIORITY: Scenario = Scenario {
    name: "bufferbloat-priority",
    advice: "give traffic that waits for answers a band of its own",
    arms: [
        "a first-come queue of 120 ms on a 100 Mbit/s link",
        "pfifo_fast in its place: marked requests go first",
    ],
    layout: Layout::Node,
    setup: SETUP,
    settings: &[Setting::Change(&[(Place::Node, "qdisc:veth-server:1:10=pfifo_fast")])],
    workloads: WORKLOADS,
    answers: ANSWERS,
    needs: &[Need::Program(Program::Tc), Need::Program(Program::Nft), Need::Qdisc("pfifo_fast")],
    made: None,
};
