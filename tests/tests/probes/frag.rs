//! `frag`: fragments in and out are counted exactly, and datagrams that become whole are told from those that do not.

use nettrace::lab::traffic::{packets_of_datagram, udp};
use nettrace::lab::{Family, Lab, LabConfig, NarrowLeg, Path, Pod, Role, Topology};
use nettrace::snapshot::Ip;
use nettrace_common::Signal;
use nettrace_tests::{captured, count, from_every_rung, in_guest, lost, only, truth};
use std::net::UdpSocket;
use std::thread::sleep;
use std::time::Duration;

const PORT: u16 = 7001;

/// F datagrams give F reassemblies, and as many fragments in and out as the kernel made and put together.
#[test]
fn fragments_and_reassemblies_are_counted() {
    const V4: u32 = 10;
    const V6: u32 = 8;
    for topology in Topology::ALL {
        let config = LabConfig { topology, ..LabConfig::default() };
        let (finished, ()) = captured(
            config,
            |_| {},
            |lab| {
                send(lab, Family::V4, V4, 4000)?;
                send(lab, Family::V6, V6, 10_000)?;
                let client = truth::counters(&lab.pod(Role::Client).netns)?;
                let server = truth::counters(&lab.pod(Role::Server).netns)?;
                assert_eq!((client["IpFragCreates"], client["Ip6FragCreates"]), (30, 56));
                assert_eq!((server["IpReasmOKs"], server["Ip6ReasmOKs"]), (10, 8));
                Ok(())
            },
        )
        .unwrap();
        let snapshot = &finished.snapshot;
        let expected = Ip {
            fragments_in_v4: 30,
            fragments_out_v4: 30,
            fragments_in_v6: 56,
            fragments_out_v6: 56,
            reassembled: 18,
            ..Ip::default()
        };
        assert_eq!(snapshot.ip, expected, "{topology:?}");
        assert_eq!(snapshot.signal(Signal::IpReassembly).unwrap().hist.count(), 18);
        assert_eq!(lost(snapshot, "map_full") + lost(snapshot, "unparsable"), 0);
    }
}

fn send(lab: &Lab, family: Family, count: u32, bytes: usize) -> anyhow::Result<()> {
    let path = lab.path(Role::Client, Role::Server, family)?;
    let delivery = udp::datagrams(&path, &udp::Datagrams { count, bytes, ..Default::default() })?;
    assert_eq!((delivery.sent, delivery.received), (u64::from(count), u64::from(count)));
    Ok(())
}

/// Fragments that the node cuts again for a narrower leg are counted as they leave it.
#[test]
fn fragments_cut_again_are_counted_as_they_are() {
    const COUNT: u32 = 6;
    let narrow_leg = Some(NarrowLeg { pod: Role::Server, mtu: 1300, pod_knows: true });
    let config = LabConfig { topology: Topology::Routed, narrow_leg, ..LabConfig::default() };
    let (finished, (whole, cut)) = captured(
        config,
        |_| {},
        |lab| {
            send(lab, Family::V4, COUNT, 4000)?;
            // One that fits the client's leg is cut by the node alone, unless its sender forbids it.
            let path = lab.path(Role::Client, Role::Server, Family::V4)?;
            let reader = path.to().netns.run(|| UdpSocket::bind(path.server_address(PORT)))??;
            reader.set_read_timeout(Some(Duration::from_secs(5)))?;
            let mut packets =
                truth::fragments(path.client_address(PORT), path.server_address(PORT), 99, 1400, 1480)?;
            truth::RawSender::open(&path)?.send(&packets.remove(0))?;
            assert_eq!(reader.recv(&mut [0; 1500])?, 1400);
            let server = truth::counters(&lab.pod(Role::Server).netns)?;
            assert_eq!(server["IpReasmOKs"], u64::from(COUNT) + 1);
            let client = truth::counters(&lab.pod(Role::Client).netns)?;
            Ok((client["IpFragCreates"], server["IpReasmReqds"]))
        },
    )
    .unwrap();
    let ip = &finished.snapshot.ip;
    assert_eq!(whole, u64::from(packets_of_datagram(Family::V4, 1500, 4000) * COUNT));
    assert_eq!((ip.fragments_in_v4, ip.fragments_out_v4), (whole, cut));
    // The last datagram became fragments behind the node's ear: what it received was whole.
    assert_eq!((ip.reassembled, ip.incomplete), (u64::from(COUNT), 0));
}

/// The fragments of one datagram in a given order, each sent `gap` after the one before.
fn send_by_hand(path: &Path<'_>, id: u16, order: &[usize], gap: Duration) -> anyhow::Result<()> {
    let packets = truth::fragments(path.client_address(PORT), path.server_address(PORT), id, 2400 - 8, 800)?;
    let sender = truth::RawSender::open(path)?;
    for (number, &index) in order.iter().enumerate() {
        if number > 0 {
            sleep(gap);
        }
        sender.send(&packets[index])?;
    }
    Ok(())
}

/// Sends datagrams of three fragments by hand, both families. Yields how many the server's application received, and
/// how many the server's kernel put together.
fn by_hand(lab: &Lab, orders: &[&[usize]], gap: Duration) -> anyhow::Result<(u64, u64)> {
    let mut received = 0;
    for &family in lab.families() {
        let path = lab.path(Role::Client, Role::Server, family)?;
        let socket = path.to().netns.run(|| UdpSocket::bind(path.server_address(PORT)))??;
        for (id, order) in orders.iter().enumerate() {
            send_by_hand(&path, 100 + id as u16, order, gap)?;
        }
        // Sending ends when the other side has taken a packet in: veths pass it on at once.
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        while socket.recv(&mut [0; 4000]).is_ok() {
            received += 1;
        }
    }
    let counters = truth::counters(&lab.pod(Role::Server).netns)?;
    Ok((received, counters["IpReasmOKs"] + counters["Ip6ReasmOKs"]))
}

/// ip.reassembly is no shorter than the time between the first fragment and the last, whatever their order.
#[test]
fn reassembly_takes_as_long_as_the_fragments_do() {
    const GAP: Duration = Duration::from_millis(15);
    let orders: [&[usize]; 4] = [&[0, 1, 2], &[2, 1, 0], &[1, 2, 0], &[2, 0, 1]];
    let (finished, truth) =
        captured(LabConfig::default(), only("ip.reassembly"), |lab| by_hand(lab, &orders, GAP)).unwrap();
    let snapshot = &finished.snapshot;
    assert_eq!(truth, (8, 8));
    assert_eq!((snapshot.ip.reassembled, snapshot.ip.incomplete), (8, 0));
    assert_eq!((snapshot.ip.fragments_in_v4, snapshot.ip.fragments_in_v6), (12, 12));
    let hist = &snapshot.signal(Signal::IpReassembly).unwrap().hist;
    assert_eq!(hist.count(), 8);
    assert!(hist.min_ns() >= 2 * 15_000_000, "{}", hist.min_ns());
}

/// A datagram with a missing fragment is incomplete, also where another one came twice in its stead.
#[test]
fn missing_and_repeated_fragments() {
    // By what the kernel makes of it: whole, whole, whole in spite of a copy, three times not whole.
    let orders: [&[usize]; 6] = [&[0, 1, 2], &[2, 0, 1], &[0, 0, 1, 2], &[0, 1], &[0, 0, 2], &[2, 1, 1, 1]];
    let (finished, truth) =
        captured(LabConfig::default(), |_| {}, |lab| by_hand(lab, &orders, Duration::ZERO)).unwrap();
    let ip = &finished.snapshot.ip;
    assert_eq!(truth, (6, 6), "what the application read and the kernel put together");
    assert_eq!((ip.reassembled, ip.incomplete), (6, 6));
    assert_eq!((ip.fragments_in_v4, ip.fragments_in_v6), (19, 19));
    assert_eq!((ip.fragments_out_v4, ip.fragments_out_v6), (19, 19));
}

/// Datagrams of each family that are cut and put together.
const TIMED: [(Family, u32); 2] = [(Family::V4, 6), (Family::V6, 4)];

/// Has datagrams cut and put together; then some that cannot be: the server has no memory for fragments, and the client's
/// queue no room for more than two. Yields what the kernel counts as failed, of the client's and of the server's.
fn fragmented(lab: &Lab) -> anyhow::Result<(u64, u64)> {
    const FAIL: u32 = 3;
    TIMED.iter().try_for_each(|&(family, count)| send(lab, family, count, 4000))?;
    let (client, server) = (lab.pod(Role::Client), lab.pod(Role::Server));
    server.netns.run(|| {
        ["low", "high"]
            .iter()
            .try_for_each(|end| std::fs::write(format!("/proc/sys/net/ipv4/ipfrag_{end}_thresh"), "0"))
    })??;
    let path = lab.path(Role::Client, Role::Server, Family::V4)?;
    let socket = client.netns.run(|| UdpSocket::bind(path.client_address(0)))??;
    for _ in 0..FAIL {
        socket.send_to(&[0; 4000], path.server_address(PORT))?;
    }
    let slow = "qdisc replace dev eth0 root tbf rate 8kbit burst 1600 limit 1600";
    truth::output(&client.netns, "tc", "iproute2", &slow.split(' ').collect::<Vec<_>>())?;
    // The first fragment passes, the second waits, the third finds no room; of the next datagram none does.
    for _ in 0..FAIL {
        socket.send_to(&[0; 4000], path.server_address(PORT))?;
    }
    let failed = |pod: &Pod, counter| anyhow::Ok(truth::counters(&pod.netns)?[counter]);
    Ok((failed(client, "IpFragFails")?, failed(server, "IpReasmFails")?))
}

/// Datagrams that the client cuts and the server puts together are timed, each once, from each source; what the kernel
/// counts as failed is counted with its reason.
#[test]
fn cutting_and_putting_together_is_timed_and_failures_are_told() {
    let signals = [Signal::IpFragmenting, Signal::IpDefragmenting];
    if !in_guest() {
        println!("skipped: this kernel may have neither kprobes nor fentry");
        return;
    }
    from_every_rung(
        signals[0].name(),
        &signals.map(Signal::name),
        LabConfig::default(),
        fragmented,
        |rung| {
            let expected = TIMED.iter().map(|(_, count)| u64::from(*count)).sum::<u64>();
            for signal in signals {
                // Those that the client cut for the server to fail at are timed, too.
                let more = if signal == Signal::IpFragmenting { 3 } else { 0 };
                assert_eq!(
                    count(&rung.snapshot, signal),
                    expected + more,
                    "{} by {}",
                    signal.name(),
                    rung.name
                );
            }
            let failures: Vec<_> = rung
                .snapshot
                .ip
                .failures
                .iter()
                .map(|f| (f.work.as_str(), f.reason.as_str(), f.count))
                .collect();
            let (cut, joined) = rung.said;
            assert!(cut > 0 && joined > cut, "{cut} {joined}");
            assert_eq!(failures, [("put together", "ENOMEM", joined), ("cut", "NET_XMIT_DROP", cut)]);
        },
    )
    .unwrap();
}
