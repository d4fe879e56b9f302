//! `ptb`: messages about packets that do not fit are counted, with who sent them, for whom, and the MTU they name.
//! `ip.path_mtu`: what the kernel learnt from them, as `ip route show cache` tells it.

use nettrace::lab::{Family, Lab, LabConfig, NarrowLeg, Role, Topology};
use nettrace::probes::PATH_MTU;
use nettrace::snapshot::{LearntMtu, PathMtu, Probe, Snapshot};
use nettrace_tests::{captured, lost, only, truth};
use std::collections::BTreeMap;
use std::net::{IpAddr, UdpSocket};

const NARROW: u32 = 1300;

fn narrow() -> LabConfig {
    let narrow_leg = Some(NarrowLeg { pod: Role::Server, mtu: NARROW, pod_knows: true });
    LabConfig { topology: Topology::Routed, narrow_leg, ..LabConfig::default() }
}

/// Sends `count` datagrams of 1400 bytes that must not be fragmented, whatever the kernel knows of the path.
fn send_too_big(lab: &Lab, family: Family, count: u32) -> anyhow::Result<()> {
    let path = lab.path(Role::Client, Role::Server, family)?;
    path.from().netns.run(|| {
        let socket = UdpSocket::bind(path.client_address(0))?;
        truth::set_probing(&socket)?;
        for _ in 0..count {
            socket.send_to(&[0; 1400], path.server_address(9))?;
        }
        Ok(())
    })?
}

/// MTU, bytes, and seconds until it expires, of each destination whose path MTU the client's kernel learnt.
fn learnt_as_ip_tells(lab: &Lab) -> anyhow::Result<BTreeMap<IpAddr, (u32, u32)>> {
    let mut learnt = BTreeMap::new();
    for family in ["-4", "-6"] {
        let netns = &lab.pod(Role::Client).netns;
        let text = truth::output(netns, "ip", "iproute2", &["-oneline", family, "route", "show", "cache"])?;
        for line in text.lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            let after = |name| words.iter().position(|w| *w == name).and_then(|at| words.get(at + 1));
            let (Some(mtu), Some(expires)) = (after("mtu"), after("expires")) else { continue };
            learnt.insert(words[0].parse()?, (mtu.parse()?, expires.trim_end_matches("sec").parse()?));
        }
    }
    Ok(learnt)
}

/// The table is what `ip` told shortly before; the two round seconds differently.
fn agrees_with_ip(snapshot: &Snapshot, told: &BTreeMap<IpAddr, (u32, u32)>) {
    let rows = &snapshot.ip.learnt;
    assert_eq!((rows.len(), snapshot.ip.learnt_paths), (told.len(), told.len() as u64), "{rows:?}, {told:?}");
    for LearntMtu { netns, destination, mtu, expires_s } in rows {
        let (told_mtu, told_expires_s) = told[destination];
        assert_eq!((netns.as_str(), *mtu), ("client", told_mtu));
        assert!(0 < *expires_s && *expires_s <= told_expires_s + 1, "{expires_s} s, {told_expires_s} s");
        assert!(*expires_s <= 600, "{expires_s} s");
    }
}

/// K datagrams that do not fit give K messages, IPv4 and IPv6; the node's own counters agree. The client's kernel learns the path's
/// MTU from them; one that is set on a route is not learnt.
#[test]
fn messages_are_counted_with_router_destination_and_mtu() {
    const V4: u32 = 7;
    const V6: u32 = 5;
    let (finished, (v4, v6, learnt)) = captured(
        narrow(),
        |options| options.signals = ["ip.packet_too_big", PATH_MTU].map(str::to_owned).to_vec(),
        |lab| {
            send_too_big(lab, Family::V4, V4)?;
            send_too_big(lab, Family::V6, V6)?;
            let counters = truth::counters(&lab.node().netns)?;
            assert_eq!(counters["IcmpMsgOutType3"], u64::from(V4));
            assert_eq!(counters["Icmp6OutPktTooBigs"], u64::from(V6));
            let (node, server) = (lab.node(), lab.pod(Role::Server));
            let row = |router, destination, count: u32| PathMtu {
                router,
                destination,
                mtu: NARROW,
                count: count.into(),
            };
            let v4 = row(node.ipv4.into(), server.ipv4.into(), V4);
            let set = ["route", "add", "192.0.2.1", "dev", "lo", "mtu", "1200"];
            truth::output(&lab.pod(Role::Client).netns, "ip", "iproute2", &set)?;
            let learnt = learnt_as_ip_tells(lab)?;
            Ok((v4, row(node.ipv6.unwrap().into(), server.ipv6.unwrap().into(), V6), learnt))
        },
    )
    .unwrap();
    let ip = &finished.snapshot.ip;
    assert_eq!(ip.packet_too_big, u64::from(V4 + V6));
    let destinations: Vec<_> = ip.learnt.iter().map(|l| (l.destination, l.mtu)).collect();
    assert_eq!(destinations, [(v4.destination, NARROW), (v6.destination, NARROW)]);
    agrees_with_ip(&finished.snapshot, &learnt);
    assert_eq!(ip.ptb, [v4, v6]);
    assert_eq!((lost(&finished.snapshot, "unparsable"), ip.fragments_out_v4), (0, 0));
}

/// What the kernel learnt is not asked for unless it is selected.
#[test]
fn learnt_path_mtus_are_read_only_where_selected() {
    let (finished, learnt) = captured(narrow(), only("ip.packet_too_big"), |lab| {
        send_too_big(lab, Family::V4, 3)?;
        learnt_as_ip_tells(lab)
    })
    .unwrap();
    let ip = &finished.snapshot.ip;
    assert_eq!((ip.packet_too_big, learnt.len()), (3, 1));
    assert_eq!((ip.learnt.len(), ip.learnt_paths), (0, 0));
    let probe = finished.snapshot.probes.iter().find(|p| p.name == PATH_MTU).unwrap();
    assert_eq!(probe.reason.as_deref(), Some(Probe::NOT_SELECTED));
}

/// Other ICMP is not taken for it: echoes, and ports that nobody listens to.
#[test]
fn other_icmp_is_not_counted() {
    let (finished, ()) = captured(
        narrow(),
        |_| {},
        |lab| {
            for &family in lab.families() {
                let path = lab.path(Role::Client, Role::Server, family)?;
                path.from().netns.run(|| {
                    let socket = UdpSocket::bind(path.client_address(0))?;
                    socket.send_to(&[0; 100], path.server_address(9))
                })??;
            }
            let client = truth::counters(&lab.pod(Role::Client).netns)?;
            assert_eq!((client["IcmpInDestUnreachs"], client["Icmp6InDestUnreachs"]), (1, 1));
            Ok(())
        },
    )
    .unwrap();
    let ip = &finished.snapshot.ip;
    assert_eq!((ip.packet_too_big, ip.ptb.len(), ip.learnt.len()), (0, 0, 0));
}
