//! Request and response: the next request follows the last answer.

use super::{Outcome, READ_LIMIT, Samples, pinned, share};
use crate::net::Net;
use anyhow::{Result, anyhow};
use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Over one TCP connection.
pub(super) fn tcp(net: &Net, cpu: usize, time: Duration) -> Result<Outcome> {
    let (listener, address) = listen(net)?;
    let stream = net.client().run(|| TcpStream::connect(address))??;
    let (peer, _) = listener.accept()?;
    for stream in [&stream, &peer] {
        stream.set_nodelay(true)?;
    }
    stream.set_read_timeout(Some(READ_LIMIT))?;
    let serve = move || -> Result<()> {
        let mut byte = [0];
        while (&peer).read(&mut byte)? == 1 {
            (&peer).write_all(&byte)?;
        }
        Ok(())
    };
    let ask = move || {
        let mut byte = [0];
        (&stream).write_all(&byte).and_then(|()| (&stream).read_exact(&mut byte)).is_ok()
    };
    // The client's end closes the connection, which ends the server.
    both(cpu, time, serve, ask, || {})
}

/// By UDP.
pub(super) fn udp(net: &Net, cpu: usize, time: Duration) -> Result<Outcome> {
    let (netns, address) = net.server();
    let server = netns.run(|| UdpSocket::bind((address, 0)))??;
    let address = server.local_addr()?;
    let client = net.client().run(|| -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(address)?;
        Ok(socket)
    })??;
    for socket in [&client, &server] {
        socket.set_read_timeout(Some(READ_LIMIT))?;
    }
    let stop = AtomicBool::new(false);
    let serve = || -> Result<()> {
        let mut byte = [0];
        while !stop.load(Ordering::Relaxed) {
            if let Ok((1, from)) = server.recv_from(&mut byte) {
                server.send_to(&byte, from)?;
            }
        }
        Ok(())
    };
    let goodbye = client.try_clone()?;
    let ask = move || {
        let mut byte = [0];
        client.send(&byte).and_then(|_| client.recv(&mut byte)).is_ok_and(|n| n == 1)
    };
    let end = || {
        stop.store(true, Ordering::Relaxed);
        // Lost or not: the server looks again after its time limit.
        let _ = goodbye.send(&[]);
    };
    both(cpu, time, serve, ask, end)
}

/// A connection for each request. The server closes first, so that TIME_WAIT does not use the client's ports up.
pub(super) fn tcp_connect(net: &Net, cpu: usize, time: Duration) -> Result<Outcome> {
    let (listener, address) = listen(net)?;
    let stop = AtomicBool::new(false);
    let serve = || -> Result<()> {
        let mut byte = [0];
        loop {
            let (mut peer, _) = listener.accept()?;
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            peer.set_nodelay(true)?;
            if peer.read(&mut byte).is_ok_and(|n| n == 1) {
                // A client that is gone counts the error itself.
                let _ = peer.write_all(&byte);
            }
        }
    };
    let ask = || request(address).is_ok();
    let end = || {
        stop.store(true, Ordering::Relaxed);
        // Wakes the server; where it cannot be reached, its accept has failed too.
        let _ = TcpStream::connect(address);
    };
    let client = net.client();
    thread::scope(|scope| {
        let server = scope.spawn(|| pinned(cpu, serve));
        // These threads open sockets, so they must be in the namespace.
        let start = Instant::now();
        let asked = client.run(|| {
            let asked = pinned(cpu, || Samples::take(time, ask));
            end();
            asked
        })?;
        let wall = start.elapsed();
        let ((), busy) = server.join().map_err(|_| anyhow!("the server's thread panicked"))??;
        let (samples, asked) = asked?;
        Ok(outcome(&samples, share(busy + asked, wall)))
    })
}

fn request(address: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(READ_LIMIT))?;
    stream.write_all(&[0])?;
    let mut answer = [0; 2];
    stream.read_exact(&mut answer[..1])?;
    match stream.read(&mut answer)? {
        0 => Ok(()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn listen(net: &Net) -> Result<(TcpListener, SocketAddr)> {
    let (netns, address) = net.server();
    let listener = netns.run(|| TcpListener::bind((address, 0)))??;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Runs both ends until the client is done; `end` is what it does then.
fn both(
    cpu: usize,
    time: Duration,
    serve: impl FnOnce() -> Result<()> + Send,
    ask: impl FnMut() -> bool + Send,
    end: impl FnOnce() + Send,
) -> Result<Outcome> {
    thread::scope(|scope| {
        let start = Instant::now();
        let server = scope.spawn(|| pinned(cpu, serve));
        let client = scope.spawn(move || {
            // `ask` is dropped here, and with it the client's socket.
            let asked = pinned(cpu, || Samples::take(time, ask));
            end();
            asked
        });
        let asked = client.join().map_err(|_| anyhow!("the client's thread panicked"))?;
        let wall = start.elapsed();
        let ((), busy) = server.join().map_err(|_| anyhow!("the server's thread panicked"))??;
        let (samples, asked) = asked?;
        Ok(outcome(&samples, share(busy + asked, wall)))
    })
}

fn outcome(samples: &Samples, cpu_share: f64) -> Outcome {
    Outcome {
        count: samples.count,
        all: samples.all,
        elapsed_ns: u64::try_from(samples.elapsed.as_nanos()).unwrap_or(u64::MAX),
        cpu_share,
        errors: samples.errors,
        slices: samples.slices.done.clone(),
        latency: Some(samples.percentiles()),
    }
}
