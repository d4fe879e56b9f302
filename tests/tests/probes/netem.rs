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
use nettrace_tests::{Compared, agree, captured_in, in_guest, lost, only, truth};

const SIGNALS: [Signal; 4] = [Signal::NetRtt, Signal::TcpConnect, Signal::TcpSrtt, Signal::DnsLatency];

/// Puts a delay on what a pod sends, in place of the one before.
fn delay(pod: &Pod, ms: u64) -> Result<()> {
    let delay = format!("{ms}ms");
    let args = ["qdisc", "replace", "dev", "eth0", "root", "netem", "delay", &delay];
    truth::output(&pod.netns, "tc", "iproute2", &args).map(drop)
}

/// Connections with requests, and queries, of which the answers take their time. Medians by [`SIGNALS`], ns.
fn medians(lab: &Lab, ms: u64) -> Result<[u64; 4]> {
    const CONNECTIONS: u32 = 5;
    const QUERIES: u32 = 15;
    for role in [Role::Server, Role::Dns] {
        delay(lab.pod(role), ms)?;
    }
    let signals = SIGNALS.map(|s| s.name().to_owned()).to_vec();
    let (finished, answered) = captured_in(
        lab,
        |options| options.signals = signals,
        |lab| {
            let _server = DnsServer::start(lab.pod(Role::Dns))?;
            let path = lab.path(Role::Client, Role::Server, Family::V4)?;
            let requests = RequestResponse { requests: 40, ..RequestResponse::default() };
            (0..CONNECTIONS).try_for_each(|_| tcp::request_response(&path, &requests).map(drop))?;
            let client = Client::new(DnsServer::address(lab.pod(Role::Dns), Family::V4)?);
            let ask = |n| client.ask(&Query::new(&format!("netem-{n}.example.test"), TYPE_A));
            Ok(lab
                .pod(Role::Client)
                .netns
                .run(|| (0..QUERIES).map(ask).collect::<Result<Vec<_>, _>>())??
                .len())
        },
    )?;
    let snapshot = &finished.snapshot;
    ensure!(answered == QUERIES as usize && snapshot.tcp.connects == u64::from(CONNECTIONS), "{snapshot:?}");
    Ok(SIGNALS.map(|signal| median(snapshot, signal)))
}

/// Round trips are those between the node and the server, the only ones with the delay in them.
fn median(snapshot: &Snapshot, signal: Signal) -> u64 {
    let scope = if signal == Signal::NetRtt { "node/veth-server" } else { "all" };
    let row = snapshot.signals.iter().find(|row| row.signal == signal.name() && row.scope == scope);
    row.map_or(0, |row| row.hist.quantile_ns(0.5))
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

/// net.rtt, tcp.connect, tcp.srtt and dns.latency grow by delays of 1, 5 and 20 ms, within 2 %.
#[test]
fn a_delay_of_the_link_is_seen_whole() {
    const DELAYS_MS: [u64; 3] = [1, 5, 20];
    let lab = Lab::start(LabConfig::default()).unwrap();
    if let Err(error) = delay(lab.pod(Role::Server), 1) {
        println!("skipped: {error:#}");
        assert!(!in_guest() && format!("{error:#}").contains("kind is unknown"), "{error:#}");
        return;
    }
    let base = medians(&lab, 0).unwrap();
    for ms in DELAYS_MS {
        let delay_ns = ms * 1_000_000;
        agree(|| {
            let with = medians(&lab, ms).unwrap();
            let grown = |at: usize| with[at].saturating_sub(base[at]);
            println!("with {ms} ms: {SIGNALS:?} are {with:?} ns, and {base:?} ns without");
            // The one that is furthest from the truth stands for all.
            let ours = (0..SIGNALS.len()).map(grown).max_by_key(|ns| ns.abs_diff(delay_ns)).unwrap();
            Compared { ours, theirs: delay_ns, within: delay_ns / 50 }
        });
    }
}
