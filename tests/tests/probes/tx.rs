//! `tx`: the way of packets from the socket to the wire, and through the node.

use anyhow::{Context as _, Result, ensure};
use nettrace::{
    filter,
    lab::{
        Family, Lab, LabConfig, Role, Topology,
        traffic::{
            tcp,
            udp::{self, Datagrams, RequestResponse},
        },
    },
    snapshot::SignalData,
};
use nettrace_common::Signal;
use nettrace_tests::{captured, captured_in, count, count_in, in_guest, lost, only};
use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _},
    net::UdpSocket,
    os::fd::AsRawFd as _,
    process::Command,
    thread::sleep,
    time::Duration,
};

/// Runs a command in a pod's network namespace.
fn in_pod(lab: &Lab, role: Role, command: &str) -> Result<()> {
    let words: Vec<_> = command.split(' ').collect();
    let output = lab.pod(role).netns.run(|| Command::new(words[0]).args(&words[1..]).output())??;
    ensure!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// N exchanges of datagrams through the node are N packets forwarded to the server and N back, whether the node
/// switches or routes them, over IPv4 and IPv6.
#[test]
fn every_forwarded_packet_counts_once() {
    const REQUESTS: u64 = 60;
    for (topology, queues) in [
        (Topology::Bridge, true),
        (Topology::Routed, true),
        (Topology::Bridge, false),
        (Topology::Routed, false),
    ] {
        for family in [Family::V4, Family::V6] {
            let (finished, done) = captured(
                LabConfig { topology, queues, ..LabConfig::default() },
                // Only these: neighbour discovery is forwarded, too.
                |options| options.programs.filter = filter::parse("udp and port 7000").unwrap(),
                |lab| {
                    let path = lab.path(Role::Client, Role::Server, family)?;
                    let what = RequestResponse { requests: 60, port: 7000, ..RequestResponse::default() };
                    Ok(udp::request_response(&path, &what)?)
                },
            )
            .unwrap();
            assert_eq!(done.answered, REQUESTS);
            let snapshot = &finished.snapshot;
            for veth in ["node/veth-server", "node/veth-client"] {
                let forwarded = count_in(snapshot, Signal::FwdHost, veth);
                assert_eq!(forwarded, REQUESTS, "{topology:?} {family:?} {veth}");
            }
            assert_eq!(count(snapshot, Signal::FwdHost), 2 * REQUESTS, "{topology:?} {family:?}");
            // Each packet passes two drivers: the sender's, and the node's at the receiver's veth. Of these, the
            // sender's may have a queue.
            assert_eq!(count(snapshot, Signal::TxDriver), 4 * REQUESTS, "{topology:?} {family:?}");
            let queued = if queues { 2 * REQUESTS } else { 0 };
            assert_eq!(count(snapshot, Signal::TxQdisc), queued, "{topology:?} {family:?}");
        }
    }
}

/// Segments that a pod's TCP has sent: OutSegs and RetransSegs of its SNMP table. OutSegs is without retransmissions
/// and without RST of no socket.
fn segments_sent(lab: &Lab, role: Role) -> Result<u64> {
    let text = lab.pod(role).netns.run(|| std::fs::read_to_string("/proc/thread-self/net/snmp"))??;
    let mut lines = text.lines().filter(|line| line.starts_with("Tcp:"));
    let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let value = |wanted: &str| -> Result<u64> {
        let at = names.split(' ').position(|name| name == wanted);
        Ok(at.and_then(|at| values.split(' ').nth(at)).unwrap_or_default().parse()?)
    };
    Ok(value("OutSegs")? + value("RetransSegs")?)
}

/// Exchanges of small requests and responses leave no segment to be split or merged: tx.stack counts every segment
/// that the two pods' TCP has sent by its own count, but for what TIME_WAIT sends without a socket.
#[test]
fn tx_stack_counts_the_segments_that_tcp_sends() {
    const CONNECTIONS: u64 = 10;
    let (finished, sent) = captured(
        LabConfig { ipv6: false, ..LabConfig::default() },
        |_| {},
        |lab| {
            let sent = || {
                Ok::<_, anyhow::Error>(segments_sent(lab, Role::Client)? + segments_sent(lab, Role::Server)?)
            };
            let before = sent()?;
            let path = lab.path(Role::Client, Role::Server, Family::V4)?;
            let what =
                tcp::RequestResponse { connections: 10, requests: 30, ..tcp::RequestResponse::default() };
            ensure!(tcp::request_response(&path, &what)?.requests == 10 * 30);
            // The last acknowledgements are on their way.
            sleep(Duration::from_millis(50));
            Ok(sent()? - before)
        },
    )
    .unwrap();
    let ours = count(&finished.snapshot, Signal::TxStack);
    println!("tx.stack {ours}, TCP itself {sent}");
    // Each connection has at least a handshake of 3, 60 segments with data and 2 FIN.
    assert!(ours >= CONNECTIONS * 65, "{ours}");
    // The answer to a SYN is sent by a request socket without a departure stamp of its own, and the last ACK by a
    // TIME_WAIT socket: at most these two a connection are not seen.
    assert!(ours <= sent && sent - ours <= 2 * CONNECTIONS, "{ours} of {sent}");
}

/// A link that lets 100 packets a second through: those that wait in its queue show that in tx.qdisc, at the interface
/// that has it, and all are counted; also where no interface had a queue when the capture began, so that the hook
/// which sees a packet leave its queue was not attached yet.
#[test]
fn packets_that_wait_in_a_qdisc_show_it() {
    for queues in [true, false] {
        packets_wait(&LabConfig { queues, ..LabConfig::default() });
    }
}

fn packets_wait(config: &LabConfig) {
    const COUNT: u64 = 20;
    // A packet of 1000 bytes takes 8 ms at 1 Mbit/s.
    const EACH_NS: u64 = 8_000_000;
    let (finished, done) = captured(
        *config,
        |options| {
            only("tx")(options);
            options.programs.filter = filter::parse("udp and port 7000").unwrap();
        },
        |lab| {
            in_pod(
                lab,
                Role::Client,
                "tc qdisc replace dev eth0 root tbf rate 1mbit burst 1600 limit 100000",
            )?;
            // Netlink tells of the queue at once; its hook is attached when it has been read.
            sleep(Duration::from_millis(200));
            let path = lab.path(Role::Client, Role::Server, Family::V4)?;
            let what = Datagrams { count: 20, bytes: 958, rate: None, port: 7000, ..Datagrams::default() };
            Ok(udp::datagrams(&path, &what)?)
        },
    )
    .unwrap();
    assert_eq!((done.sent, done.received), (COUNT, COUNT));
    assert_eq!(lost(&finished.snapshot, "unhooked"), 0);
    let rows = &finished.snapshot.signals;
    let row = rows.iter().find(|r| r.signal == "tx.qdisc" && r.scope == "client/eth0").unwrap();
    // While they wait, another packet may take a place: not measured then, but counted.
    let unmatched = lost(&finished.snapshot, "unmatched");
    assert_eq!(row.hist.count() + unmatched, COUNT, "{unmatched} unmatched");
    assert!(unmatched <= 2, "{unmatched} unmatched");
    // The n-th waits for those before it, but for the burst, which is less than two packets.
    let floor: u64 = (2..COUNT - unmatched).map(|n| (n - 2) * EACH_NS).sum();
    assert!(row.sum_ns >= floor, "{} ns, at least {floor}", row.sum_ns);
    assert!(row.max_ns >= (COUNT - unmatched - 3) * EACH_NS, "{} ns", row.max_ns);
}

/// How long N datagrams of 1000 bytes that the client sends at once wait in a queue, for each of several queues one after
/// another, by tx.qdisc of one capture.
fn queued(lab: &Lab, queues: &[&str], count: u32) -> Result<SignalData> {
    let (finished, received) = captured_in(
        lab,
        |options| {
            // With what sees the end of a packet: else the next one at its address seems to be the same.
            only("tx")(options);
            options.programs.filter = filter::parse("udp and port 7000").unwrap();
        },
        |lab| {
            let mut received = 0;
            for queue in queues {
                in_pod(lab, Role::Client, &format!("tc qdisc replace dev eth0 root {queue}"))?;
                // The capture hears of it, and is not to take the only CPU when packets leave. Idle time costs nothing here.
                sleep(Duration::from_secs(1));
                let path = lab.path(Role::Client, Role::Server, Family::V4)?;
                let what = Datagrams { count, bytes: 958, rate: None, port: 7000, ..Datagrams::default() };
                received += udp::datagrams(&path, &what)?.received;
            }
            Ok(received)
        },
    )?;
    let losses = format!("{:?}", finished.snapshot.losses);
    let mut rows = finished.snapshot.signals.into_iter();
    let row = rows.find(|r| r.signal == "tx.qdisc" && r.scope == "client/eth0");
    let row = row.with_context(|| format!("{queues:?}: nothing was measured"))?;
    let measured = row.hist.count();
    ensure!(received == u64::from(count) * queues.len() as u64, "{received} arrived");
    ensure!(measured == received, "{measured} measured of {received}; {losses}");
    Ok(row)
}

/// Where time is the virtual machine's own: a queue that holds each packet for so long, and one that lets one out every so
/// often, are seen to do so.
#[test]
fn a_queue_takes_the_time_that_it_is_set_to() {
    const COUNT: u32 = 20;
    if !in_guest() {
        println!(
            "skipped: in the time of a machine that does other work, packets wait longer than they have to"
        );
        return;
    }
    let lab = Lab::start(LabConfig { ipv6: false, ..LabConfig::default() }).unwrap();
    // The queue is there before the capture, so that its hook is, too.
    in_pod(&lab, Role::Client, "tc qdisc replace dev eth0 root netem delay 1ms").unwrap();
    let row = queued(&lab, &["netem delay 1ms", "netem delay 5ms", "netem delay 20ms"], COUNT).unwrap();
    // A third of all waits so long: the median of each third.
    for (middle, ms) in [(1.0 / 6.0, 1), (0.5, 5), (5.0 / 6.0, 20)] {
        let median_ns = row.hist.quantile_ns(middle);
        println!("netem delay {ms} ms: median {median_ns} ns");
        assert!(median_ns.abs_diff(ms * 1_000_000) * 20 <= ms * 1_000_000, "{median_ns} ns of {ms} ms");
    }
    // The bucket holds 1600 bytes at first, and 1000 more every 8 ms: the n-th datagram is out when there were n * 1000.
    let bytes = |n: u64| (n * 1000).saturating_sub(1600);
    let mean = (1..=u64::from(COUNT)).map(|n| bytes(n) * 8_000).sum::<u64>() / u64::from(COUNT);
    let row = queued(&lab, &["tbf rate 1mbit burst 1600 limit 100000"], COUNT).unwrap();
    let mean_ns = row.sum_ns / row.hist.count();
    println!("tbf: mean {mean_ns} ns, by its rate {mean} ns");
    assert!(mean_ns.abs_diff(mean) * 20 <= mean, "{mean_ns} ns, not {mean} ns");
}

/// A tun device of the calling thread's network namespace, that somebody else reads.
fn tun(name: &str) -> io::Result<File> {
    const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
    let device = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    let mut request = [0_u8; 40];
    request[..name.len()].copy_from_slice(name.as_bytes());
    let flags = (libc::IFF_TUN | libc::IFF_NO_PI) as u16;
    request[16..18].copy_from_slice(&flags.to_ne_bytes());
    // SAFETY: the request is as large as `struct ifreq`, which the kernel reads and writes during the call.
    let set = unsafe { libc::ioctl(device.as_raw_fd(), TUNSETIFF, request.as_mut_ptr()) };
    if set == 0 { Ok(device) } else { Err(io::Error::last_os_error()) }
}

/// A device whose reader takes its packets after 5 ms is done with each after 5 ms. It has a queue, whose hook is attached
/// once the device is heard of: what it sends before that is counted as lost.
#[test]
fn a_driver_that_takes_its_time_shows_it() {
    const COUNT: u64 = 20;
    const DELAY: Duration = Duration::from_millis(5);
    let (finished, ()) = captured(
        LabConfig::default(),
        |options| options.programs.filter = filter::parse("udp and host 10.99.0.2").unwrap(),
        |lab| {
            let pod = lab.pod(Role::Client);
            let mut device = pod.netns.run(|| tun("tun0"))??;
            in_pod(lab, Role::Client, "ip addr add 10.99.0.1/24 dev tun0")?;
            in_pod(lab, Role::Client, "ip link set tun0 up")?;
            let socket = pod.netns.run(|| UdpSocket::bind("10.99.0.1:0"))??;
            let mut packet = [0; 2048];
            for _ in 0..COUNT {
                socket.send_to(b"through a tunnel", "10.99.0.2:7000")?;
                sleep(DELAY);
                // Others may be there before it: router solicitations.
                while device.read(&mut packet)? < 28 || packet[9] != 17 {}
            }
            Ok(())
        },
    )
    .unwrap();
    let row = finished.snapshot.signal(Signal::TxDriver).unwrap();
    let unhooked = lost(&finished.snapshot, "unhooked");
    assert_eq!(row.hist.count() + unhooked, COUNT, "{unhooked} unhooked");
    assert!(unhooked <= COUNT / 2, "{unhooked} unhooked");
    // A bucket is 0.8 % wide.
    let (min, delay) = (row.hist.min_ns(), DELAY.as_nanos() as u64);
    assert!(min + min / 100 >= delay, "{min} ns");
}
