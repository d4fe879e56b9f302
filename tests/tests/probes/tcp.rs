//! `tcp`: connections, accepts and failures are counted exactly, and sent again is what the kernel says was.

use nettrace::lab::traffic::tcp::{self, RequestResponse};
use nettrace::lab::{Family, Lab, LabConfig, Path, Role, Topology};
use nettrace::preflight::Release;
use nettrace::snapshot::Snapshot;
use nettrace_common::Signal;
use nettrace_tests::{Rung, captured, from_every_rung, lost, only, truth};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

/// SYN and data to this port are lost where a test says so.
const PORT: u16 = 7777;

fn failures(snapshot: &Snapshot) -> BTreeMap<&str, u64> {
    snapshot.tcp.failures.iter().map(|f| (f.name.as_str(), f.count)).collect()
}

fn path<'a>(lab: &'a Lab, family: Family) -> anyhow::Result<Path<'a>> {
    Ok(lab.path(Role::Client, Role::Server, family)?)
}

/// C connections give C connects and C accepts, each with its time.
#[test]
fn connections_are_counted_on_both_sides() {
    const V4: u32 = 40;
    const V6: u32 = 30;
    for topology in Topology::ALL {
        let config = LabConfig { topology, ..LabConfig::default() };
        let (finished, sent) = captured(
            config,
            |_| {},
            |lab| {
                tcp::http_gets(&path(lab, Family::V4)?, V4)?;
                tcp::http_gets(&path(lab, Family::V6)?, V6)?;
                assert_eq!(truth::sum_counters(lab, "TcpActiveOpens")?, u64::from(V4 + V6));
                // The kernel counts a socket that it makes of an answered SYN before it knows whether another CPU was
                // first with the same one (tcp_create_openreq_child), so that now and then there is one too many.
                let passive = truth::sum_counters(lab, "TcpPassiveOpens")?;
                assert!(passive >= u64::from(V4 + V6), "{passive} connections were accepted");
                truth::sum_counters(lab, "TcpOutSegs")
            },
        )
        .unwrap();
        let tcp = &finished.snapshot.tcp;
        assert_eq!((tcp.connects, tcp.accepts, tcp.connect_failures), (70, 70, 0), "{topology:?}");
        assert_eq!((tcp.retransmits, tcp.resets_sent, tcp.resets_received), (0, 0, 0));
        // Acknowledgements that were delayed may still come after the last look.
        assert!(tcp.segments_sent >= Some(sent), "{:?} of {sent}", tcp.segments_sent);
        for signal in [Signal::TcpConnect, Signal::TcpAccept] {
            let count = finished.snapshot.signal(signal).unwrap().hist.count();
            assert_eq!(count, 70, "{}", signal.name());
        }
        // As the client sees the server and the server the client.
        let peers: Vec<_> = tcp.peers.iter().map(|p| (p.peer.is_ipv4(), p.connections)).collect();
        assert_eq!(peers, [(true, 40), (true, 40), (false, 30), (false, 30)]);
    }
}

/// Each way to fail is told apart: refused, timed out, no such host, given up by the application.
#[test]
fn every_failure_has_its_errno() {
    const TIMED_OUT: u32 = 3;
    const NO_HOST: usize = 2;
    let (finished, again) = captured(
        LabConfig::default(),
        |_| {},
        |lab| {
            let (v4, v6) = (path(lab, Family::V4)?, path(lab, Family::V6)?);
            assert_eq!(tcp::refused(&v4, 7)?.refused, 7);
            assert_eq!(tcp::refused(&v6, 5)?.refused, 5);
            give_up(&v4, 4)?;
            give_up(&v6, 2)?;
            std::thread::scope(|scope| {
                let hosts = scope.spawn(|| no_host(lab, NO_HOST));
                assert_eq!(tcp::timed_out(&v4, TIMED_OUT)?.timed_out, u64::from(TIMED_OUT));
                hosts.join().unwrap()
            })?;
            assert_eq!(truth::sum_counters(lab, "TcpOutRsts")?, 12);
            truth::sum_counters(lab, "TcpRetransSegs")
        },
    )
    .unwrap();
    let tcp = &finished.snapshot.tcp;
    let expected =
        BTreeMap::from([("ECONNREFUSED", 12), ("ETIMEDOUT", 3), ("EHOSTUNREACH", 2), ("aborted", 6)]);
    assert_eq!(failures(&finished.snapshot), expected);
    assert_eq!((tcp.connects, tcp.accepts, tcp.connect_failures), (0, 0, 23));
    assert_eq!((tcp.resets_sent, tcp.resets_received), (12, 12), "one each for those that were refused");
    assert!(again >= u64::from(TIMED_OUT), "a SYN of each that timed out, and those to nobody: {again}");
    assert_eq!(tcp.retransmits, again);
    assert_eq!(tcp.peers.iter().map(|p| p.failures).sum::<u64>(), 23);
}

/// Connects to a port whose SYNs are lost, and closes the socket while it still tries.
fn give_up(path: &Path<'_>, attempts: u32) -> anyhow::Result<()> {
    if path.server_address(0).is_ipv4() {
        let rules = ["tcp dport 7777 drop"];
        let hook = "type filter hook input priority 0";
        truth::nft(&path.to().netns, &truth::Nft { hook, rules: &rules })?;
    }
    path.from().netns.run(|| {
        for _ in 0..attempts {
            let gave_up = TcpStream::connect_timeout(&path.server_address(PORT), Duration::from_millis(20));
            assert_eq!(gave_up.map_err(|e| e.kind()).err(), Some(io::ErrorKind::TimedOut));
        }
    })?;
    Ok(())
}

/// Connects to addresses of the subnet that nobody has.
fn no_host(lab: &Lab, attempts: usize) -> anyhow::Result<()> {
    lab.pod(Role::Client).netns.run(|| {
        std::thread::scope(|scope| {
            let connect = || {
                let nobody = SocketAddr::new(IpAddr::from([10, 244, 0, 99]), PORT);
                let error = TcpStream::connect_timeout(&nobody, Duration::from_secs(10)).err();
                assert_eq!(error.map(|e| e.kind()), Some(io::ErrorKind::HostUnreachable));
            };
            (0..attempts).for_each(|_| drop(scope.spawn(connect)));
        });
    })?;
    Ok(())
}

/// A connection whose SYN was lost once takes its retransmission timeout longer, a second at least.
#[test]
fn connecting_includes_the_time_of_a_lost_syn() {
    let config = LabConfig { topology: Topology::Routed, ..LabConfig::default() };
    let (finished, ()) = captured(
        config,
        |_| {},
        |lab| {
            let rules = [
                "tcp dport 7777 tcp flags & (syn | ack) == syn numgen inc mod 1000 == 0 counter name n drop",
            ];
            lose(lab, &rules)?;
            let what = RequestResponse { requests: 1, connections: 1, port: PORT, ..Default::default() };
            tcp::request_response(&path(lab, Family::V4)?, &what)?;
            assert_eq!(truth::counted(&lab.node().netns)?, 1);
            Ok(())
        },
    )
    .unwrap();
    let snapshot = &finished.snapshot;
    assert_eq!((snapshot.tcp.connects, snapshot.tcp.retransmits), (1, 1));
    let connect = snapshot.signal(Signal::TcpConnect).unwrap();
    assert_eq!(connect.hist.count(), 1);
    assert!(connect.max_ns >= 1_000_000_000, "{}", connect.max_ns);
}

/// Of one connection: one of nine segments with data, and the first SYN-ACK.
const LOSSES: [&str; 2] = [
    "tcp dport 7777 tcp flags & (syn | fin | rst) == 0 meta length > 200 numgen inc mod 9 == 0 counter name n drop",
    "tcp sport 7777 tcp flags & (syn | ack) == syn | ack numgen inc mod 1000 == 0 counter name n drop",
];

/// Rules on what the node forwards.
fn lose(lab: &Lab, rules: &[&str]) -> anyhow::Result<()> {
    truth::nft(&lab.node().netns, &truth::Nft { hook: "type filter hook forward priority 0", rules })
}

/// Segments lost on their way are sent again, as many as TcpRetransSegs of both ends count: data in skbs of one
/// segment and of many, and SYN-ACKs.
#[test]
fn retransmissions_are_what_the_kernel_counts() {
    const BYTES: u64 = 3_000_000;
    let config = LabConfig { topology: Topology::Routed, ..LabConfig::default() };
    let (finished, (dropped, client, server, fast)) = captured(config, only("tcp"), |lab| {
        lose(lab, &LOSSES)?;
        assert_eq!(tcp::bulk(&path(lab, Family::V4)?, BYTES, PORT)?.request_bytes, BYTES);
        let again = |role| anyhow::Ok(truth::counters(&lab.pod(role).netns)?["TcpRetransSegs"]);
        let fast = truth::sum_counters(lab, "TcpExtTCPFastRetrans")?;
        Ok((truth::counted(&lab.node().netns)?, again(Role::Client)?, again(Role::Server)?, fast))
    })
    .unwrap();
    let snapshot = &finished.snapshot;
    assert!(dropped > 2 && client > 2 && server >= 1, "{dropped} {client} {server}");
    assert_eq!(snapshot.tcp.retransmits, client + server, "TcpRetransSegs; {dropped} skbs were lost");
    let tcp = &snapshot.tcp;
    assert!(fast > 0, "one of nine was lost, and eight told of it");
    assert_eq!((tcp.retransmits_fast, tcp.counters.fast_retransmits), (fast, Some(fast)));
    assert!(tcp.retransmits_timeout >= server, "SYN-ACKs are sent again by a timer");
    assert!(tcp.retransmits_timeout + fast <= tcp.retransmits, "{tcp:?}");
    let of_peers: u64 = snapshot.tcp.peers.iter().map(|p| p.retransmits).sum();
    assert_eq!(of_peers, client + server);
    assert_eq!(lost(snapshot, "ring_full"), 0);
}

/// What the kernel's own counters say of the traffic of [`every_source_counts_the_same`], over both ends.
struct Truth {
    resets: u64,
    again: u64,
    fast: u64,
    /// SYN-ACKs sent again, by a timer.
    synack: u64,
}

/// From every source: connections, those that are refused, resets of both kinds and both ways, as many as TcpOutRsts
/// counts, and segments sent again, as many as TcpRetransSegs counts, each for its cause.
#[test]
fn every_source_counts_the_same() {
    const RESET: u64 = 6;
    const REFUSED: u32 = 5;
    const BYTES: u64 = 1_000_000;
    // Kernel commit 19822a980e19.
    const TOLD_WITHOUT_SOCKET: Release = Release { major: 6, minor: 10 };
    let work = |lab: &Lab| {
        for &family in lab.families() {
            for _ in 0..RESET / 2 {
                reset(&path(lab, family)?)?;
            }
        }
        assert_eq!(tcp::refused(&path(lab, Family::V6)?, REFUSED)?.refused, u64::from(REFUSED));
        lose(lab, &LOSSES)?;
        assert_eq!(tcp::bulk(&path(lab, Family::V4)?, BYTES, PORT)?.request_bytes, BYTES);
        let sum = |name| truth::sum_counters(lab, name);
        Ok(Truth {
            resets: sum("TcpOutRsts")?,
            again: sum("TcpRetransSegs")?,
            fast: sum("TcpExtTCPFastRetrans")?,
            synack: truth::counters(&lab.pod(Role::Server).netns)?["TcpRetransSegs"],
        })
    };
    let config = LabConfig { topology: Topology::Routed, ..LabConfig::default() };
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let release = Release::parse(&release).unwrap();
    from_every_rung("tcp.reset", &["tcp"], config, work, |Rung { name, snapshot, said }| {
        let tcp = &snapshot.tcp;
        let failed = u64::from(REFUSED);
        assert_eq!(
            (tcp.connects, tcp.accepts, tcp.connect_failures),
            (RESET + 1, RESET + 1, failed),
            "{name}"
        );
        assert_eq!(failures(&snapshot), BTreeMap::from([("ECONNREFUSED", failed)]), "{name}");
        assert_eq!(said.resets, RESET + failed);
        let sent = if TOLD_WITHOUT_SOCKET <= release { said.resets } else { RESET };
        assert_eq!((tcp.resets_sent, tcp.resets_received), (sent, said.resets), "{name}");
        assert_eq!(tcp.peers.iter().map(|p| p.resets).sum::<u64>(), sent + said.resets, "{name}");
        assert!(said.synack >= 1 && said.again > said.synack, "nothing was lost");
        assert_eq!((tcp.retransmits, tcp.retransmits_fast), (said.again, said.fast), "{name}");
        assert!(tcp.retransmits_timeout >= said.synack, "{name}: {tcp:?}");
        for signal in [Signal::TcpConnect, Signal::TcpAccept] {
            assert_eq!(snapshot.signal(signal).unwrap().hist.count(), RESET + 1, "{name}");
        }
        assert_eq!((lost(&snapshot, "unmatched"), lost(&snapshot, "ring_full")), (0, 0), "{name}");
    })
    .unwrap();
}

/// The server closes a connection with data unread, which resets it.
fn reset(path: &Path<'_>) -> anyhow::Result<()> {
    let listener = path.to().netns.run(|| TcpListener::bind(path.server_address(0)))??;
    let address = listener.local_addr()?;
    let mut client = path.from().netns.run(|| TcpStream::connect(address))??;
    let (server, _) = listener.accept()?;
    client.write_all(b"never read")?;
    // Until it is there.
    server.peek(&mut [0; 10])?;
    drop(server);
    let error = client.read(&mut [0; 1]).err();
    assert_eq!(error.map(|e| e.kind()), Some(io::ErrorKind::ConnectionReset));
    Ok(())
}

/// Full accept queues are what TcpExtListenOverflows says, of all namespaces together.
#[test]
fn listen_overflows_are_counted() {
    let (finished, (overflows, drops, full)) = captured(
        LabConfig::default(),
        |_| {},
        |lab| {
            let full = tcp::listen_overflow(&path(lab, Family::V4)?, 1, 7, Duration::from_millis(100))?;
            let sum = |name| truth::sum_counters(lab, name);
            Ok((sum("TcpExtListenOverflows")?, sum("TcpExtListenDrops")?, full))
        },
    )
    .unwrap();
    let tcp = &finished.snapshot.tcp;
    assert_eq!((full.established, full.given_up), (2, 5));
    assert_eq!(overflows, 5, "one for each SYN beyond the queue");
    assert_eq!((tcp.listen_overflows, tcp.listen_drops), (Some(overflows), Some(drops)));
    assert_eq!((tcp.connects, tcp.connect_failures), (2, 5));
    assert_eq!(failures(&finished.snapshot), BTreeMap::from([("aborted", 5)]));
}

/// A queue of half-open connections that is full drops every other SYN.
#[test]
fn syn_that_find_a_full_queue_are_counted() {
    const BACKLOG: u64 = 4;
    const SYN: u32 = 10;
    let (finished, dropped) = captured(LabConfig::default(), only("tcp"), |lab| {
        let path = path(lab, Family::V4)?;
        let hook = "type filter hook input priority 0";
        let rules = &["tcp sport 7777 tcp flags & (syn | ack) == syn | ack drop"];
        truth::nft(&path.from().netns, &truth::Nft { hook, rules })?;
        let listen = || {
            std::fs::write("/proc/sys/net/ipv4/tcp_syncookies", "0")?;
            let listener = TcpListener::bind(path.server_address(PORT))?;
            // SAFETY: a plain system call on a descriptor that is open; it only sets the length of the queue anew.
            let set = unsafe { libc::listen(listener.as_raw_fd(), BACKLOG as i32) };
            if set == 0 { Ok(listener) } else { Err(io::Error::last_os_error()) }
        };
        let _listener = path.to().netns.run(listen)??;
        path.from().netns.run(|| {
            for _ in 0..SYN {
                let half_open =
                    TcpStream::connect_timeout(&path.server_address(PORT), Duration::from_millis(20));
                assert_eq!(half_open.map_err(|e| e.kind()).err(), Some(io::ErrorKind::TimedOut));
            }
        })?;
        truth::sum_counters(lab, "TcpExtTCPReqQFullDrop")
    })
    .unwrap();
    // Kernels differ by one in what they call full.
    let room = u64::from(SYN) - dropped;
    assert!((BACKLOG..=BACKLOG + 1).contains(&room), "{dropped} of {SYN} SYN were dropped");
    assert_eq!(finished.snapshot.tcp.counters.syn_queue_drops, Some(dropped));
}

/// An application that does not read closes its window.
#[test]
fn windows_that_close_are_counted() {
    let (finished, closed) = captured(LabConfig::default(), only("tcp"), |lab| {
        let path = path(lab, Family::V4)?;
        let listener = path.to().netns.run(|| TcpListener::bind(path.server_address(0)))??;
        let address = listener.local_addr()?;
        let mut client = path.from().netns.run(|| TcpStream::connect(address))??;
        let _server = listener.accept()?;
        client.set_write_timeout(Some(Duration::from_millis(200)))?;
        let full = loop {
            if let Err(error) = client.write(&[0; 65536]) {
                break error.kind();
            }
        };
        assert_eq!(full, io::ErrorKind::WouldBlock);
        truth::sum_counters(lab, "TcpExtTCPToZeroWindowAdv")
    })
    .unwrap();
    assert!(closed > 0, "nobody read");
    assert_eq!(finished.snapshot.tcp.counters.zero_windows, Some(closed));
}

/// tcp.srtt has the size of what the kernel tells the connection's own socket (TCP_INFO).
#[test]
fn smoothed_round_trips_are_the_kernels() {
    const ROUNDS: u32 = 1000;
    let (finished, (address, own_us)) = captured(
        LabConfig::default(),
        |options| options.programs.sample_every = 1,
        |lab| {
            let path = path(lab, Family::V4)?;
            let listener = path.to().netns.run(|| TcpListener::bind(path.server_address(0)))??;
            let address = listener.local_addr()?;
            let client = path.from().netns.run(|| TcpStream::connect(address))??;
            let (server, _) = listener.accept()?;
            let echo = std::thread::spawn(move || echo(server));
            let own = ask(client, ROUNDS)?;
            echo.join().unwrap()?;
            Ok((address.ip(), own))
        },
    )
    .unwrap();
    let peer = finished.snapshot.tcp.peers.iter().find(|p| p.peer == address).unwrap();
    let (p50, max) = (peer.srtt.quantile_ns(0.5) / 1000, own_us.iter().max().copied().unwrap());
    let min = own_us.iter().min().copied().unwrap();
    // One segment in eight is looked at.
    assert!(peer.srtt.count() >= u64::from(ROUNDS) / 16, "{}", peer.srtt.count());
    // The histogram's buckets are 0.8 % wide, and a segment is seen before its own answer is in.
    assert!((min * 98 / 100..=max * 102 / 100).contains(&p50), "{min} <= {p50} <= {max} us");
    let signal = finished.snapshot.signal(Signal::TcpSrtt).unwrap();
    assert!(signal.hist.count() >= u64::from(ROUNDS) / 16);
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut byte = [0];
    while stream.read(&mut byte)? > 0 {
        stream.write_all(&byte)?;
    }
    Ok(())
}

/// Sends and receives a byte so often, and yields the kernel's smoothed round trip before and after each time, us.
fn ask(mut stream: TcpStream, rounds: u32) -> anyhow::Result<Vec<u64>> {
    stream.set_nodelay(true)?;
    let mut own = vec![u64::from(truth::tcp_info(&stream)?.srtt_us)];
    for _ in 0..rounds {
        stream.write_all(&[1])?;
        stream.read_exact(&mut [0])?;
        own.push(truth::tcp_info(&stream)?.srtt_us.into());
    }
    Ok(own)
}
