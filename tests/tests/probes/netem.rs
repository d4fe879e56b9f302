//! Latencies against a delay that is put into the link by netem: what a signal grows by is the delay. Exact in virtual
//! machines, whose time stands still while nobody computes; skipped where the kernel has no netem.

use anyhow::{Result, ensure};
use nettrace::{
    lab::{
        Family, Lab, LabConfig, Pod, Role,
        dns::{Client, DnsServer, Query, TYPE_A},
        traffic::tcp::{self, RequestResponse},
    },
    snapshot::Snapshot,
};
use nettrace_common::Signal;
use nettrace_tests::{captured_in, in_guest, lost, only, truth};
use std::{thread::sleep, time::Duration};

const SIGNALS: [Signal; 4] = [Signal::NetRtt, Signal::TcpConnect, Signal::TcpSrtt, Signal::DnsLatency];

/// The delay that the others are compared with. Not none: a packet that waits wakes an idle CPU, which takes a time of
/// its own, some 20 µs in a machine that counts its instructions.
const BASE_US: u64 = 100;

/// Puts a delay on what a pod sends, in place of the one before.
fn delay(pod: &Pod, us: u64) -> Result<()> {
    let delay = format!("{us}us");
    let args = ["qdisc", "replace", "dev", "eth0", "root", "netem", "delay", &delay];
    truth::output(&pod.netns, "tc", "iproute2", &args).map(drop)
}

/// Connections with requests, and queries, as many under each delay. Medians by [`SIGNALS`] and by delay, ns.
///
/// One capture sees them all, because its start is what takes time in a machine: what comes under n delays, the longest
/// last, has the median of each in the middle of its n-th part.
fn medians<const N: usize>(lab: &Lab, delays_us: [u64; N]) -> Result<[[u64; N]; 4]> {
    let signals = SIGNALS.map(|s| s.name().to_owned()).to_vec();
    let (finished, connects) = captured_in(
        lab,
        |options| options.signals = signals,
        |lab| {
            let _server = DnsServer::start(lab.pod(Role::Dns))?;
            delays_us.iter().map(|us| exchange(lab, *us)).sum::<Result<u64>>()
        },
    )?;
    let snapshot = &finished.snapshot;
    ensure!(snapshot.tcp.connects == connects, "{snapshot:?}");
    let middle = |part: usize| (part as f64 + 0.5) / N as f64;
    Ok(SIGNALS.map(|signal| std::array::from_fn(|part| quantile(snapshot, signal, middle(part)))))
}

/// Traffic under one delay; the connections that were made.
fn exchange(lab: &Lab, us: u64) -> Result<u64> {
    const CONNECTIONS: u64 = 5;
    const QUERIES: usize = 25;
    for role in [Role::Server, Role::Dns] {
        delay(lab.pod(role), us)?;
    }
    // The capture hears of it, and is not to take the only CPU when packets pass.
    sleep(Duration::from_millis(200));
    let path = lab.path(Role::Client, Role::Server, Family::V4)?;
    // tcp.srtt takes one segment in eight by chance: so many that no delay has much more of them than another.
    let requests = RequestResponse { requests: 120, ..RequestResponse::default() };
    (0..CONNECTIONS).try_for_each(|_| tcp::request_response(&path, &requests).map(drop))?;
    let client = Client::new(DnsServer::address(lab.pod(Role::Dns), Family::V4)?);
    let ask = |n| client.ask(&Query::new(&format!("netem-{us}-{n}.example.test"), TYPE_A));
    let answers =
        lab.pod(Role::Client).netns.run(|| (0..QUERIES).map(ask).collect::<Result<Vec<_>, _>>())??;
    ensure!(answers.len() == QUERIES, "{} answers", answers.len());
    Ok(CONNECTIONS)
}

/// Round trips are those between the node and the server, the only ones with the delay in them.
fn quantile(snapshot: &Snapshot, signal: Signal, part: f64) -> u64 {
    let scope = if signal == Signal::NetRtt { "node/veth-server" } else { "all" };
    let row = snapshot.signals.iter().find(|row| row.signal == signal.name() && row.scope == scope);
    row.map_or(0, |row| row.hist.quantile_ns(part))
}

/// Of what a link loses at random, as much is sent again as the kernel counts, and for the same reasons.
#[test]
fn what_a_link_loses_is_sent_again_as_the_kernel_counts() {
    const BYTES: u64 = 16_000_000;
    let lab = Lab::start(LabConfig::default()).unwrap();
    let loss = ["qdisc", "replace", "dev", "eth0", "root", "netem", "limit", "10000", "loss", "1%"];
    for role in [Role::Client, Role::Server] {
        if let Err(error) = truth::output(&lab.pod(role).netns, "tc", "iproute2", &loss) {
            println!("skipped: {error:#}");
            assert!(!in_guest() && format!("{error:#}").contains("kind is unknown"), "{error:#}");
            return;
        }
    }
    let (finished, [again, fast]) = captured_in(&lab, only("tcp"), |lab| {
        // Packets of one segment each where the kernel can, so that more are lost.
        for role in [Role::Client, Role::Server] {
            let off = ["-K", "eth0", "tso", "off", "gso", "off"];
            truth::output(&lab.pod(role).netns, "ethtool", "ethtool", &off)?;
        }
        tcp::bulk(&lab.path(Role::Client, Role::Server, Family::V4)?, BYTES, 0)?;
        Ok([truth::sum_counters(lab, "TcpRetransSegs")?, truth::sum_counters(lab, "TcpExtTCPFastRetrans")?])
    })
    .unwrap();
    let tcp = &finished.snapshot.tcp;
    println!("{again} segments were sent again, {fast} of them fast: {:?}", tcp.counters);
    assert!(again > 0, "nothing was lost");
    assert_eq!((tcp.retransmits, tcp.retransmits_fast), (again, fast));
    assert_eq!(lost(&finished.snapshot, "ring_full"), 0);
}

/// net.rtt, tcp.connect, tcp.srtt and dns.latency grow by 1, 5 and 20 ms within 2 % when the delay of the link does.
#[test]
fn a_delay_of_the_link_is_seen_whole() {
    const MORE_US: [u64; 4] = [0, 1_000, 5_000, 20_000];
    let lab = Lab::start(LabConfig::default()).unwrap();
    if let Err(error) = delay(lab.pod(Role::Server), BASE_US) {
        println!("skipped: {error:#}");
        assert!(!in_guest() && format!("{error:#}").contains("kind is unknown"), "{error:#}");
        return;
    }
    let medians = medians(&lab, MORE_US.map(|us| BASE_US + us)).unwrap();
    for (part, us) in MORE_US.into_iter().enumerate().skip(1) {
        let more_ns = us * 1_000;
        for (signal, ns) in SIGNALS.iter().zip(&medians) {
            println!("{} with {us} µs more: {} ns, and {} ns without", signal.name(), ns[part], ns[0]);
            let grown = ns[part].saturating_sub(ns[0]);
            assert!(grown.abs_diff(more_ns) * 50 <= more_ns, "{} grows by {grown} ns", signal.name());
        }
    }
}
