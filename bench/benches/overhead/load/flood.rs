//! One-byte datagrams as fast as the sender can; the receiver counts.

use super::{Outcome, SLICE, WARM_UP, pinned, share};
use crate::net::Net;
use anyhow::{Result, anyhow};
use std::{
    io,
    net::{Ipv4Addr, UdpSocket},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Room at the receiver, bytes, so that a turn of the sender fits.
const RECEIVE_BUFFER: usize = 8 << 20;
/// How often the receiver looks whether it is over.
const LOOK: Duration = Duration::from_millis(100);
/// Datagrams between two looks at whether it is over.
const BURST: usize = 32;

pub(super) fn run(net: &Net, cpu: usize, time: Duration) -> Result<Outcome> {
    let (netns, address) = net.server();
    let server = netns.run(|| UdpSocket::bind((address, 0)))??;
    rustix::net::sockopt::set_socket_recv_buffer_size_force(&server, RECEIVE_BUFFER)?;
    server.set_read_timeout(Some(LOOK))?;
    let address = server.local_addr()?;
    let client = net.client().run(|| -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(address)?;
        Ok(socket)
    })??;
    let stop = AtomicBool::new(false);
    let received = AtomicU64::new(0);
    thread::scope(|scope| {
        let start = Instant::now();
        let receiver = scope.spawn(|| {
            pinned(cpu, || {
                receive(&server, &received, &stop);
                Ok(())
            })
        });
        let sender = scope.spawn(|| pinned(cpu, || Ok(send(&client, &stop))));
        thread::sleep(WARM_UP);
        let (begin, before) = (Instant::now(), received.load(Ordering::Relaxed));
        let slices = slices(&received, time);
        let count = received.load(Ordering::Relaxed) - before;
        let elapsed = begin.elapsed();
        stop.store(true, Ordering::Relaxed);
        let (errors, sent) = sender.join().map_err(|_| anyhow!("the sender's thread panicked"))??;
        let wall = start.elapsed();
        let ((), read) = receiver.join().map_err(|_| anyhow!("the receiver's thread panicked"))??;
        Ok(Outcome {
            count,
            all: received.load(Ordering::Relaxed),
            elapsed_ns: u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX),
            cpu_share: share(sent + read, wall),
            errors,
            slices,
            latency: None,
        })
    })
}

/// What is received in each slice, until the time is up.
fn slices(received: &AtomicU64, time: Duration) -> Vec<u32> {
    let (begin, mut before) = (Instant::now(), received.load(Ordering::Relaxed));
    let mut slices = Vec::new();
    while begin.elapsed() < time {
        let due = SLICE * (slices.len() as u32 + 1);
        thread::sleep(due.saturating_sub(begin.elapsed()));
        let now = received.load(Ordering::Relaxed);
        slices.push(u32::try_from(now - before).unwrap_or(u32::MAX));
        before = now;
    }
    slices
}

/// Yields how many could not be sent.
fn send(socket: &UdpSocket, stop: &AtomicBool) -> u64 {
    let mut errors = 0;
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..BURST {
            errors += u64::from(socket.send(&[0]).is_err());
        }
    }
    errors
}

/// Until it is over and nothing comes any more.
fn receive(socket: &UdpSocket, received: &AtomicU64, stop: &AtomicBool) {
    let mut byte = [0];
    loop {
        match socket.recv(&mut byte) {
            Ok(_) => {
                received.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) if stop.load(Ordering::Relaxed) => return,
            Err(_) => {}
        }
    }
}
