//! `tcp.limited`: what kept connections from sending is what TCP_INFO says of their sockets.

use nettrace::{
    lab::{Family, Lab, LabConfig, Role},
    snapshot::{Snapshot, TcpLimited},
};
use nettrace_tests::{
    Rung, captured_in, from_every_rung, in_guest, lost, only,
    truth::{self, TcpInfo},
};
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread::{self, sleep},
    time::{Duration, Instant},
};

/// TCP_CLOSE of net/tcp_states.h.
const CLOSED: u8 = 7;
/// How long a receiver does not read.
const PAUSE: Duration = Duration::from_millis(200);
/// A jiffy at HZ=100, us: none is longer.
const TICK_US: u64 = 10_000;

/// A connection from client to server, both ends.
fn connection(lab: &Lab) -> anyhow::Result<(TcpStream, TcpStream)> {
    let path = lab.path(Role::Client, Role::Server, Family::V4)?;
    let listener = path.to().netns.run(|| TcpListener::bind(path.server_address(0)))??;
    let address = listener.local_addr()?;
    let client = path.from().netns.run(|| TcpStream::connect(address))??;
    client.set_write_timeout(Some(Duration::from_secs(20)))?;
    let (server, _) = listener.accept()?;
    server.set_read_timeout(Some(Duration::from_secs(20)))?;
    Ok((client, server))
}

/// Sends so many bytes, of which none is read for a time, and closes in both directions. Nothing is in flight then.
fn send(
    client: &mut TcpStream,
    mut server: TcpStream,
    bytes: usize,
    pause: Duration,
) -> anyhow::Result<[TcpInfo; 2]> {
    let reader = thread::spawn(move || {
        sleep(pause);
        server.read_to_end(&mut Vec::new())?;
        server.shutdown(std::net::Shutdown::Write)?;
        anyhow::Ok(server)
    });
    client.write_all(&vec![0; bytes])?;
    client.shutdown(std::net::Shutdown::Write)?;
    let server = reader.join().unwrap()?;
    Ok([closed(client)?, closed(&server)?])
}

/// What a socket says once its connection has ended: it is still open, and its times stand still.
fn closed(stream: &TcpStream) -> anyhow::Result<TcpInfo> {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let info = truth::tcp_info(stream)?;
        if info.state == CLOSED {
            return Ok(info);
        }
        anyhow::ensure!(Instant::now() < until, "still open: {info:?}");
        sleep(Duration::from_millis(1));
    }
}

/// Adds up what sockets say.
fn sum(infos: &[TcpInfo]) -> TcpLimited {
    let mut sum = TcpLimited::default();
    for info in infos {
        sum.connections += 1;
        sum.connections_rwnd += u64::from(info.rwnd_limited_us > 0);
        sum.connections_sndbuf += u64::from(info.sndbuf_limited_us > 0);
        sum.busy_us += info.busy_us;
        sum.rwnd_limited_us += info.rwnd_limited_us;
        sum.sndbuf_limited_us += info.sndbuf_limited_us;
    }
    sum
}

/// Sends to a receiver that does not read, and resets the connection while the window still keeps it from sending. Yields
/// what the client's socket says right before, and how long ago that was when the connection had ended, us.
fn abort(lab: &Lab) -> anyhow::Result<([TcpInfo; 2], u64)> {
    let (mut client, server) = connection(lab)?;
    client.set_nonblocking(true)?;
    let full = Instant::now() + PAUSE;
    while Instant::now() < full {
        match client.write(&[0; 65_536]) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => sleep(Duration::from_millis(5)),
            other => drop(other?),
        }
    }
    let asked = Instant::now();
    let info = truth::tcp_info(&client)?;
    truth::reset_on_close(&client)?;
    drop(client);
    let since_us = asked.elapsed().as_micros() as u64;
    Ok(([info, closed(&server)?], since_us))
}

/// A receiver that does not read limits who sends to it: exactly as long as TCP_INFO says of a connection that ends when
/// all is acknowledged, and, of one that is cut off, up to its end.
#[test]
fn receivers_that_do_not_read_limit_their_senders() {
    const BYTES: usize = 8 << 20;
    let work = |lab: &Lab| {
        let (mut client, server) = connection(lab)?;
        let whole = send(&mut client, server, BYTES, PAUSE)?;
        let (cut, since_us) = abort(lab)?;
        Ok((sum(&[whole, cut].concat()), cut[0], since_us))
    };
    let probe = "tcp.limited";
    from_every_rung(probe, &[probe], LabConfig::default(), work, |Rung { name, snapshot, said }| {
        let (truth, cut, since_us) = said;
        let ours = snapshot.tcp.limited;
        println!("{name}: {ours:?}; {truth:?}, asked {since_us} us before the end");
        // Most of both pauses.
        assert!(truth.rwnd_limited_us >= 200_000 && cut.rwnd_limited_us >= 100_000, "{truth:?} {cut:?}");
        let within = |ours: u64, truth: u64| (truth..=truth + since_us + TICK_US).contains(&ours);
        assert!(within(ours.busy_us, truth.busy_us), "{name}");
        assert!(within(ours.rwnd_limited_us, truth.rwnd_limited_us), "{name}");
        let rest = TcpLimited { busy_us: truth.busy_us, rwnd_limited_us: truth.rwnd_limited_us, ..ours };
        assert_eq!(rest, truth, "{name}");
        assert_eq!(lost(&snapshot, "ring_full"), 0, "{name}");
    })
    .unwrap();
}

/// A send buffer limits transfers over a long way, exactly as long as TCP_INFO says, and the peer shows it. The kernel calls
/// it so where the buffer is full when all of it has been sent and the congestion window would let more go: not each time,
/// and of buffers below a few large segments hardly ever.
#[test]
fn send_buffers_limit_transfers_over_long_ways() {
    const BYTES: usize = 4_000_000;
    const BUFFER_BYTES: i32 = 200_000;
    const CONNECTIONS: usize = 4;
    let lab = Lab::start(LabConfig::default()).unwrap();
    let delay = ["qdisc", "replace", "dev", "eth0", "root", "netem", "delay", "5ms"];
    for role in [Role::Client, Role::Server] {
        if let Err(error) = truth::output(&lab.pod(role).netns, "tc", "iproute2", &delay) {
            println!("skipped: {error:#}");
            assert!(!in_guest() && format!("{error:#}").contains("kind is unknown"), "{error:#}");
            return;
        }
    }
    let (finished, infos) = captured_in(&lab, only("tcp.limited"), |lab| {
        let mut infos = Vec::new();
        for _ in 0..CONNECTIONS {
            let (mut client, server) = connection(lab)?;
            truth::set_send_buffer(&client, BUFFER_BYTES)?;
            infos.push(send(&mut client, server, BYTES, Duration::ZERO)?);
        }
        Ok(infos)
    })
    .unwrap();
    let snapshot: &Snapshot = &finished.snapshot;
    let (ours, truth) = (snapshot.tcp.limited, sum(&infos.concat()));
    println!("{ours:?}; {truth:?}");
    assert!(truth.sndbuf_limited_us > TICK_US, "the buffer limited nothing: {truth:?}");
    assert_eq!(ours, truth);
    let server = lab.path(Role::Client, Role::Server, Family::V4).unwrap().server_address(0).ip();
    let peer = snapshot.tcp.peers.iter().find(|p| p.peer == server).unwrap();
    assert_eq!(peer.sndbuf_limited_us, infos.iter().map(|[client, _]| client.sndbuf_limited_us).sum::<u64>());
    assert_eq!(lost(snapshot, "ring_full"), 0);
}
