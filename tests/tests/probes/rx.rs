//! `rx`: the way of packets from the interface to the application, against what the application itself measures.

use anyhow::Result;
use nettrace::{
    lab::{
        Family, Lab, LabConfig, Role,
        traffic::{
            tcp,
            udp::{self, Arrival, Datagrams},
        },
    },
    snapshot::Snapshot,
};
use nettrace_common::Signal;
use nettrace_tests::{
    Compared, agree, captured, count, from_every_rung, lost, only, raw::set_receive_buffer,
};
use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream, UdpSocket},
    thread::sleep,
    time::{Duration, Instant},
};

const STAGES: [Signal; 3] = [Signal::RxStack, Signal::RxSocket, Signal::RxTotal];

fn counts(snapshot: &Snapshot) -> [u64; 3] {
    STAGES.map(|signal| count(snapshot, signal))
}

/// Latencies of a signal that are at least `ns`, to the bucket's lower bound.
fn at_least(snapshot: &Snapshot, signal: Signal, ns: u64) -> u64 {
    let buckets = snapshot.signal(signal).into_iter().flat_map(|row| row.hist.buckets());
    // A bucket is 0.8 % wide.
    buckets.filter(|(low, _)| low + low / 100 >= ns).map(|(_, n)| n).sum()
}

/// Sockets of the server, and one of the client, of any ports.
fn sockets(lab: &Lab, servers: usize) -> Result<(Vec<UdpSocket>, UdpSocket)> {
    let bind = |role: Role| {
        let pod = lab.pod(role);
        pod.netns.run(|| {
            let socket = UdpSocket::bind((pod.ipv4, 0))?;
            set_receive_buffer(&socket, 8 << 20)?;
            socket.set_read_timeout(Some(Duration::from_secs(5)))?;
            Ok::<_, std::io::Error>(socket)
        })
    };
    let sockets = (0..servers).map(|_| Ok(bind(Role::Server)??)).collect::<Result<_>>()?;
    Ok((sockets, bind(Role::Client)??))
}

/// The median of rx.total is that of the receiver's own measure, the kernel's receive timestamp against the time of its
/// read, within 10 % or 2 us; and each datagram counts once.
#[test]
fn datagrams_take_as_long_as_their_receiver_says() {
    agree(rx_total_and_its_receivers);
}

fn rx_total_and_its_receivers() -> Compared {
    const COUNT: u32 = 500;
    let (finished, delivery) = captured(
        LabConfig::default(),
        |_| {},
        |lab| {
            let path = lab.path(Role::Client, Role::Server, Family::V4)?;
            Ok(udp::datagrams(&path, &Datagrams { count: COUNT, ..Datagrams::default() })?)
        },
    )
    .unwrap();
    let snapshot = &finished.snapshot;
    assert_eq!(delivery.received, u64::from(COUNT));
    assert_eq!(counts(snapshot), [delivery.received; 3]);
    let mut theirs: Vec<_> = delivery.arrivals.iter().filter_map(Arrival::total_ns).collect();
    theirs.sort_unstable();
    assert!(theirs.len() > delivery.arrivals.len() / 2, "the kernel gave {} timestamps", theirs.len());
    let theirs = theirs[theirs.len() / 2];
    let ours = snapshot.signal(Signal::RxTotal).unwrap().hist.quantile_ns(0.5);
    println!("rx.total p50 {ours} ns, by SO_TIMESTAMPNS {theirs} ns");
    Compared { ours, theirs, within: (theirs / 10).max(2000) }
}

/// N exchanges over TCP are 2 N segments with data, each read once: N requests and N responses. A request that is left
/// in its socket for 2 ms shows that in rx.socket and rx.total, and not in rx.stack.
#[test]
fn exchanges_count_twice_and_show_the_readers_delay() {
    const REQUESTS: u32 = 40;
    const DELAY: Duration = Duration::from_millis(2);
    for family in [Family::V4, Family::V6] {
        let (finished, done) = captured(
            LabConfig::default(),
            |_| {},
            |lab| {
                let path = lab.path(Role::Client, Role::Server, family)?;
                let what = tcp::RequestResponse {
                    requests: REQUESTS,
                    read_delay: DELAY,
                    ..tcp::RequestResponse::default()
                };
                Ok(tcp::request_response(&path, &what)?)
            },
        )
        .unwrap();
        let snapshot = &finished.snapshot;
        assert_eq!(done.requests, u64::from(REQUESTS));
        // The client's FIN makes the server's socket readable as well, and carries nothing to copy.
        let copied = 2 * done.requests;
        assert_eq!(counts(snapshot), [copied + 1, copied, copied], "{family:?}");
        for signal in [Signal::RxSocket, Signal::RxTotal] {
            let slow = at_least(snapshot, signal, DELAY.as_nanos() as u64);
            assert!(slow >= done.requests, "{slow} of {} by {}", done.requests, signal.name());
        }
    }
}

/// Whatever the way to the application is measured from, the same traffic gives the same counts.
#[test]
fn every_source_counts_the_same() {
    const REQUESTS: u32 = 40;
    let work = |lab: &Lab| {
        for family in [Family::V4, Family::V6] {
            let path = lab.path(Role::Client, Role::Server, family)?;
            let datagrams = udp::RequestResponse { requests: REQUESTS, ..Default::default() };
            udp::request_response(&path, &datagrams)?;
            let segments = tcp::RequestResponse { requests: REQUESTS, ..Default::default() };
            tcp::request_response(&path, &segments)?;
        }
        Ok(())
    };
    from_every_rung(Signal::RxTotal.name(), &STAGES.map(Signal::name), LabConfig::default(), work, |rung| {
        // Two families, datagrams and segments, there and back; and the client's FIN.
        let read = 2 * 2 * 2 * u64::from(REQUESTS);
        assert_eq!(counts(&rung.snapshot), [read + 2, read, read], "{}", rung.name);
    })
    .unwrap();
}

/// The same for datagrams, whose socket is read after a delay.
#[test]
fn datagrams_show_the_readers_delay() {
    const DELAY: Duration = Duration::from_millis(2);
    for family in [Family::V4, Family::V6] {
        let (finished, done) = captured(
            LabConfig::default(),
            |_| {},
            |lab| {
                let path = lab.path(Role::Client, Role::Server, family)?;
                let what = udp::RequestResponse { requests: 40, read_delay: DELAY, ..Default::default() };
                Ok(udp::request_response(&path, &what)?)
            },
        )
        .unwrap();
        let snapshot = &finished.snapshot;
        assert_eq!((done.served, done.answered), (40, 40));
        assert_eq!(counts(snapshot), [80; 3], "{family:?}");
        let slow = at_least(snapshot, Signal::RxSocket, DELAY.as_nanos() as u64);
        assert!(slow >= 40, "{slow} of 40");
    }
}

/// Of a queue that is longer than what is kept of one socket, the oldest are counted as evicted, and the others have
/// their own times: the first 100 datagrams are 300 ms older than the last 1,024, which alone are measured.
#[test]
fn a_queue_that_is_too_long_evicts_its_oldest() {
    const KEPT: u64 = 1024;
    const OLDEST: u64 = 100;
    const FLOODED: u64 = 2;
    let (finished, elapsed) = captured(
        LabConfig::default(),
        |_| {},
        |lab| {
            let (servers, client) = sockets(lab, 1)?;
            let server = &servers[0];
            let to = server.local_addr()?;
            (0..OLDEST).try_for_each(|_| client.send_to(b"old", to).map(drop))?;
            sleep(Duration::from_millis(300));
            let second = Instant::now();
            (0..KEPT).try_for_each(|_| client.send_to(b"new", to).map(drop))?;
            sleep(Duration::from_millis(20));
            let mut buffer = [0; 16];
            (0..OLDEST + KEPT).try_for_each(|_| server.recv(&mut buffer).map(drop))?;
            Ok(second.elapsed())
        },
    )
    .unwrap();
    let snapshot = &finished.snapshot;
    assert_eq!(counts(snapshot), [OLDEST + KEPT, KEPT, KEPT]);
    assert_eq!(lost(snapshot, "evicted"), OLDEST);
    // The bridge floods the question for the server's address to its other ports, and a copy that takes it long is not
    // believed to be the packet that came in.
    assert!(lost(snapshot, "unmatched") <= FLOODED, "{}", lost(snapshot, "unmatched"));
    let total = snapshot.signal(Signal::RxTotal).unwrap();
    assert_eq!(at_least(snapshot, Signal::RxTotal, 20_000_000), KEPT);
    assert!(u128::from(total.max_ns) <= elapsed.as_nanos(), "{} ns, sent {elapsed:?} before", total.max_ns);
}

/// Four sockets that are read in another order than they were sent to keep their datagrams apart: what waited 100 ms in
/// one is not what waited 1 ms in another.
#[test]
fn sockets_keep_their_datagrams_apart() {
    const EACH: u64 = 25;
    let (finished, ()) = captured(
        LabConfig::default(),
        |_| {},
        |lab| {
            let (servers, client) = sockets(lab, 4)?;
            let mut buffer = [0; 16];
            let send = |to: &UdpSocket| client.send_to(b"x", to.local_addr()?).map(drop);
            for _ in 0..EACH {
                send(&servers[0])?;
            }
            sleep(Duration::from_millis(100));
            for i in 0..3 * EACH {
                let server = &servers[1 + (i % 3) as usize];
                send(server)?;
                server.recv(&mut buffer)?;
            }
            (0..EACH).try_for_each(|_| servers[0].recv(&mut buffer).map(drop))?;
            Ok(())
        },
    )
    .unwrap();
    let snapshot = &finished.snapshot;
    assert_eq!(counts(snapshot), [4 * EACH; 3]);
    assert_eq!(at_least(snapshot, Signal::RxSocket, 100_000_000), EACH);
    assert_eq!((lost(snapshot, "evicted"), lost(snapshot, "unmatched")), (0, 0));
}

/// A look at a datagram that leaves it in its socket (MSG_PEEK) is no read.
#[test]
fn a_peek_is_not_a_read() {
    const COUNT: u64 = 30;
    let (finished, ()) = captured(LabConfig::default(), only("rx"), |lab| {
        let (servers, client) = sockets(lab, 1)?;
        let server = &servers[0];
        let mut buffer = [0; 16];
        for _ in 0..COUNT {
            client.send_to(b"peek", server.local_addr()?)?;
            server.peek(&mut buffer)?;
            server.peek(&mut buffer)?;
            server.recv(&mut buffer)?;
        }
        Ok(())
    })
    .unwrap();
    assert_eq!(counts(&finished.snapshot), [COUNT; 3]);
    assert_eq!(lost(&finished.snapshot, "unmatched"), 0);
}

/// A segment that is read in ten pieces counts once, with the time of the first.
#[test]
fn a_segment_read_in_pieces_counts_once() {
    const SEGMENTS: u64 = 20;
    const PAUSE: Duration = Duration::from_millis(5);
    let (finished, elapsed) = captured(LabConfig::default(), only("rx"), |lab| {
        let pod = lab.pod(Role::Server);
        let listener = pod.netns.run(|| TcpListener::bind((pod.ipv4, 0)))??;
        let address = listener.local_addr()?;
        let mut client = lab.pod(Role::Client).netns.run(|| TcpStream::connect(address))??;
        client.set_nodelay(true)?;
        let (mut server, _) = listener.accept()?;
        let mut slowest_first = Duration::ZERO;
        for _ in 0..SEGMENTS {
            let sent = Instant::now();
            client.write_all(&[b'p'; 1000])?;
            let mut piece = [0; 100];
            server.read_exact(&mut piece)?;
            slowest_first = slowest_first.max(sent.elapsed());
            sleep(PAUSE);
            (1..10).try_for_each(|_| server.read_exact(&mut piece))?;
        }
        Ok(slowest_first)
    })
    .unwrap();
    let snapshot = &finished.snapshot;
    assert_eq!(count(snapshot, Signal::RxTotal), SEGMENTS);
    let max_ns = snapshot.signal(Signal::RxTotal).unwrap().max_ns;
    assert!(u128::from(max_ns) <= elapsed.as_nanos(), "{max_ns} ns, the first piece took {elapsed:?}");
}
