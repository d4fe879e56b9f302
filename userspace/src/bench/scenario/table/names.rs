//! Names: a cache on the node of those who ask.

use super::super::{Cache, Layout, Need, Place, Program, Scenario, Script, Setting, Step, Workload};
use nettrace_bench::load::args::{KindName, LoadArgs};
use std::{net::Ipv4Addr, time::Duration};

/// The address of the cluster's DNS Service, and the name server behind it.
const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
const UPSTREAM: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 3);
const PORT: u16 = 53;
/// Names that are asked for, one after the other.
const NAMES: u32 = 20;

/// Queries to the Service go to its endpoint, by translation on the client's node.
fn to_endpoint() -> Script {
    translate(&format!("ip daddr {SERVICE} udp dport {PORT} dnat to {UPSTREAM}:{PORT}"))
}

/// The Service's address is one of the client's node: nothing is translated.
fn to_cache() -> Script {
    translate("")
}

fn translate(rule: &str) -> Script {
    let chain = "ip nettrace-service output";
    let rule = if rule.is_empty() { String::new() } else { format!("add rule {chain} {rule}\n") };
    Script::nft(format!(
        "table ip nettrace-service {{\nchain output {{\ntype nat hook output priority -100\n}}\n}}\nflush chain {chain}\n{rule}"
    ))
}

pub(super) const CACHE: Scenario = Scenario {
    name: "dns-cache",
    advice: "run a DNS cache on each node (NodeLocal DNSCache)",
    arms: [
        "queries go to the cluster's name server, 2 ms away",
        "a cache on the client's node has its address",
    ],
    layout: Layout::Line { delay: Duration::from_millis(2), mtu: 1500 },
    setup: &[Step::Run(
        Place::Client,
        Program::Ip,
        &["route", "add", "10.96.0.0/16", "via", "10.244.0.3", "dev", "eth0"],
    )],
    settings: &[
        Setting::Rules(Place::Client, [to_endpoint, to_cache]),
        Setting::Cache(Cache { place: Place::Client, address: SERVICE, upstream: UPSTREAM }),
    ],
    workloads: &[Workload {
        name: "dns",
        args: || LoadArgs {
            names: (0..NAMES).map(|n| format!("service-{n}.default.svc.cluster.local")).collect(),
            ..LoadArgs::of(KindName::Dns)
        },
        port: PORT,
        service: Some(SERVICE),
        least: Duration::from_secs(1),
        warms_up: true,
    }],
    answers: &["dns.p50", "dns.p99", "dns.throughput"],
    needs: &[
        Need::Program(Program::Ip),
        Need::Program(Program::Nft),
        Need::Program(Program::Dnsmasq),
        Need::Rules("address translation of what is sent (nft_nat)", to_endpoint),
    ],
    made: Some(
        "the cache is dnsmasq, at the Service's own address as NodeLocal DNSCache has it; it starts empty in each round. The \
         delay is that of a delay line in user space",
    ),
};
