//! `ptb`: messages about packets that do not fit are counted, with who sent them, for whom, and the MTU they name.

use nettrace::lab::{Family, Lab, LabConfig, NarrowLeg, Role, Topology};
use nettrace::snapshot::PathMtu;
use nettrace_tests::{captured, lost, truth};
use std::net::UdpSocket;

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

/// K datagrams that do not fit give K messages, IPv4 and IPv6; the node's own counters agree.
#[test]
fn messages_are_counted_with_router_destination_and_mtu() {
    const V4: u32 = 7;
    const V6: u32 = 5;
    let (finished, (v4, v6)) = captured(
        narrow(),
        |_| {},
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
            Ok((v4, row(node.ipv6.unwrap().into(), server.ipv6.unwrap().into(), V6)))
        },
    )
    .unwrap();
    let ip = &finished.snapshot.ip;
    assert_eq!(ip.packet_too_big, u64::from(V4 + V6));
    assert_eq!(ip.ptb, [v4, v6]);
    assert_eq!((lost(&finished.snapshot, "unparsable"), ip.fragments_out_v4), (0, 0));
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
    assert_eq!((finished.snapshot.ip.packet_too_big, finished.snapshot.ip.ptb.len()), (0, 0));
}
