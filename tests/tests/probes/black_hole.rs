//! `black_hole`: long segments that vanish are found, with who they do not reach and what passes; healthy narrow paths and
//! receivers that are gone are not taken for it.

use anyhow::{Context as _, Result};
use nettrace::lab::{Family, Lab, LabConfig, NarrowLeg, Path, Role, Topology};
use nettrace_common::probes::black_hole::TOLD_FROM;
use nettrace_tests::{captured, lost, only, truth};
use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    thread::sleep,
    time::Duration,
};

/// MTU of the node's end of the server's leg, which nobody else knows.
const NARROW: u32 = 1300;
/// A request that fits, and one that does not, bytes.
const SHORT: usize = 1000;
const LONG: usize = 8000;
/// What headers add to the payload: TCP's with timestamps, and IP's.
const TCP_HEADER: u32 = 32;

fn narrow() -> LabConfig {
    let narrow_leg = Some(NarrowLeg { pod: Role::Server, mtu: NARROW, pod_knows: false });
    LabConfig { topology: Topology::Routed, narrow_leg, ..LabConfig::default() }
}

/// The node says nothing of packets that do not fit.
fn eat_icmp(lab: &Lab) -> Result<()> {
    let rules = ["icmp type destination-unreachable drop", "icmpv6 type packet-too-big drop"];
    truth::nft(&lab.node().netns, &truth::Nft { hook: "type filter hook output priority 0", rules: &rules })
}

/// A connection on which requests are sent, each of which the server reads.
struct Connection {
    client: TcpStream,
    server: TcpStream,
}

impl Connection {
    fn open(path: &Path<'_>) -> Result<Self> {
        let listener = path.to().netns.run(|| TcpListener::bind(path.server_address(0)))??;
        let address = listener.local_addr()?;
        let client = path.from().netns.run(|| TcpStream::connect(address))??;
        let server = listener.accept()?.0;
        client.set_nodelay(true)?;
        server.set_read_timeout(Some(Duration::from_secs(5)))?;
        Ok(Self { client, server })
    }

    /// Sends a request, which arrives.
    fn request(&mut self, bytes: usize) -> Result<()> {
        self.client.write_all(&vec![7; bytes])?;
        self.server.read_exact(&mut vec![0; bytes]).context("the request does not arrive")
    }

    /// Sends a request of which nobody expects that it arrives, until it was sent again four times or so: after 200, 400,
    /// 800 ms, and a probe of the tail before.
    fn request_in_vain(&mut self, bytes: usize) -> Result<()> {
        self.client.write_all(&vec![7; bytes])?;
        sleep(Duration::from_millis(1_800));
        Ok(())
    }
}

/// Where messages arrive, a narrow path is healthy: the kernel learns its MTU, and requests arrive. A firewall that eats
/// them makes it a black hole, which is found over IPv4 and IPv6, with what is lost and the longest that passes.
#[test]
fn a_firewall_that_eats_icmp_is_found_and_a_healthy_narrow_path_is_not() {
    const REQUESTS: usize = 5;
    let (finished, ends) = captured(narrow(), only("ip.black_hole"), |lab| {
        lab.families().iter().try_for_each(|&family| {
            let mut connection = Connection::open(&lab.path(Role::Client, Role::Server, family)?)?;
            (0..REQUESTS).try_for_each(|_| connection.request(LONG))
        })?;
        eat_icmp(lab)?;
        lab.families().iter().try_for_each(|&family| {
            let mut connection = Connection::open(&lab.path(Role::Dns, Role::Server, family)?)?;
            connection.request(SHORT)?;
            connection.request_in_vain(LONG)
        })?;
        let again = truth::counters(&lab.pod(Role::Dns).netns)?["TcpRetransSegs"];
        anyhow::ensure!(again >= 6, "{again} segments were sent again");
        let ends = |&family| {
            let path = lab.path(Role::Dns, Role::Server, family)?;
            anyhow::Ok((path.client_address(0).ip(), path.server_address(0).ip()))
        };
        lab.families().iter().map(ends).collect::<Result<Vec<_>>>()
    })
    .unwrap();
    let ip = &finished.snapshot.ip;
    // One message at least for each of the healthy connections.
    assert!(ip.packet_too_big >= ends.len() as u64, "nothing was too long");
    assert_eq!(ip.black_holes.len(), ends.len(), "{:?}", ip.black_holes);
    for (from, to) in ends {
        let header = if to.is_ipv4() { 20 } else { 40 } + TCP_HEADER;
        let hole = ip.black_holes.iter().find(|hole| hole.peer == to).unwrap();
        assert_eq!((hole.lost_bytes, hole.passes_bytes), (1500, Some(SHORT as u32 + header)), "{hole:?}");
        assert_eq!((hole.flows, hole.messages, hole.alive), (1, 0, true), "{hole:?}");
        assert!(hole.again > u64::from(TOLD_FROM) && hole.flow.contains(&from.to_string()), "{hole:?}");
    }
    assert_eq!(lost(&finished.snapshot, "unparsable"), 0);
}

/// A receiver that is gone is not said to answer: whether the length matters is not known then.
#[test]
fn a_receiver_that_is_gone_is_told_from_one_that_answers() {
    let (finished, gone) = captured(
        LabConfig { topology: Topology::Routed, ..LabConfig::default() },
        only("ip.black_hole"),
        |lab| {
            let path = lab.path(Role::Client, Role::Server, Family::V4)?;
            let mut connection = Connection::open(&path)?;
            connection.request(SHORT)?;
            let hook = "type filter hook input priority 0";
            truth::nft(&path.to().netns, &truth::Nft { hook, rules: &["meta l4proto tcp drop"] })?;
            connection.request_in_vain(LONG)?;
            Ok(path.server_address(0).ip())
        },
    )
    .unwrap();
    let [hole] = &finished.snapshot.ip.black_holes[..] else { panic!("{:?}", finished.snapshot.ip) };
    assert_eq!((hole.peer, hole.lost_bytes, hole.alive), (gone, 1500, false), "{hole:?}");
}
