//! Connection tracking: its table when it is full, and doing without it.

use super::super::{Layout, Need, Place, Program, Scenario, Script, Setting, Step, Workload};
use super::FORGET;
use nettrace_bench::load::args::{KindName, LoadArgs};
use std::time::Duration;

/// Flows that the full table has room for.
const ROOM: u32 = 1000;
/// The kernel's default on a machine with more than 4 GiB (nf_conntrack_max).
const RAISED: u32 = 262_144;

/// A place where new flows are refused beyond a number; flows in the table stay until they time out.
fn limit(flows: u32) -> Script {
    let chain = "ip nettrace-limit forward";
    Script::nft(format!(
        "table ip nettrace-limit {{\nchain forward {{\ntype filter hook forward priority filter\n}}\n}}\n\
         flush chain {chain}\nadd rule {chain} ct state new ct count over {flows} drop\n"
    ))
}

fn full() -> Script {
    limit(ROOM)
}

fn raised() -> Script {
    limit(RAISED)
}

pub(super) const CONNTRACK_FULL: Scenario = Scenario {
    name: "conntrack-full",
    advice: "raise net.netfilter.nf_conntrack_max",
    arms: ["the table is full: 1,000 flows", "it has room for 262,144"],
    layout: Layout::Node,
    setup: &[],
    settings: &[
        Setting::Rules(Place::Node, [full, raised]),
        // More than there is room for, so that it is full however many are over by then.
        Setting::Flows(1200),
    ],
    workloads: &[Workload {
        name: "tcp_crr",
        args: || LoadArgs { limit_seconds: Some(0.2), ..LoadArgs::of(KindName::TcpCrr) },
        port: 0,
        service: None,
        least: Duration::from_secs(1),
        warms_up: false,
    }],
    answers: &["tcp_crr.errors", "tcp_crr.throughput"],
    needs: &[Need::Program(Program::Nft), Need::Rules("limits of connections (nft_connlimit)", full)],
    made: Some(
        "nf_conntrack_max is the whole machine's and is not touched: a rule (`ct count over`) refuses new flows of this \
         namespace beyond a number instead, with the same effect on them, a drop. The setting is the number in the rule",
    ),
};

/// As on a node: what belongs to a connection is let through, what leaves is masqueraded.
fn stateful() -> Script {
    Script::nft(
        "table ip nettrace-node {\nchain forward {\ntype filter hook forward priority filter\nct state established,related accept\n\
         ct state invalid drop\n}\nchain postrouting {\ntype nat hook postrouting priority srcnat\n\
         ip daddr != 10.244.0.0/16 masquerade\n}\n}\n",
    )
}

fn tracked() -> Script {
    // Made first, so that there is something to delete.
    Script::nft("table ip nettrace-untracked {\n}\ndelete table ip nettrace-untracked\n")
}

fn untracked() -> Script {
    Script::nft(
        "table ip nettrace-untracked {\n}\ndelete table ip nettrace-untracked\n\
         table ip nettrace-untracked {\nchain prerouting {\ntype filter hook prerouting priority raw\n\
         ip saddr 10.244.0.0/16 ip daddr 10.244.0.0/16 notrack\n}\n}\n",
    )
}

pub(super) const NOTRACK: Scenario = Scenario {
    name: "notrack",
    advice: "do not track traffic that no rule asks about (NOTRACK)",
    arms: ["the node tracks flows between its pods", "it does not"],
    layout: Layout::Node,
    setup: &[Step::Script(Place::Node, stateful), FORGET[0], FORGET[1]],
    settings: &[Setting::Rules(Place::Node, [tracked, untracked])],
    workloads: &[
        Workload::plain("tcp_crr", || LoadArgs::of(KindName::TcpCrr)),
        Workload::plain("udp_new", || LoadArgs::of(KindName::UdpNew)),
    ],
    answers: &["tcp_crr.p50", "tcp_crr.throughput", "udp_new.p50", "udp_new.throughput"],
    needs: &[Need::Program(Program::Nft), Need::Rules("rules for connections (nft_ct)", untracked)],
    made: None,
};
