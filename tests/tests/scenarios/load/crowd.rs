//! Flows that get into each other's way, or into their own.

use super::pair;
use anyhow::{Result, ensure};
use nettrace::lab::{Path, traffic::tcp};
use nettrace_tests::truth;
use std::{
    io::{self, Read as _, Write as _},
    net::UdpSocket,
    sync::atomic::{AtomicBool, Ordering},
    thread::{self, sleep},
    time::{Duration, Instant},
};

/// A connection that sends so much at once, is told that all has arrived, and pauses.
pub(super) fn bursts(path: &Path<'_>, count: u32, bytes: usize, pause: Duration) -> Result<()> {
    let (mut client, mut server) = pair(path)?;
    let reader = thread::spawn(move || -> io::Result<()> {
        let mut burst = vec![0; bytes];
        (0..count).try_for_each(|_| {
            server.read_exact(&mut burst)?;
            server.write_all(b".")
        })
    });
    for _ in 0..count {
        client.write_all(&vec![7; bytes])?;
        client.read_exact(&mut [0])?;
        sleep(pause);
    }
    reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
    Ok(())
}

/// Transfers, and requests beside them, one after the other.
pub(super) fn behind(path: &Path<'_>, transfers: u32, bytes: u64, requests: u32) -> Result<()> {
    thread::scope(|scope| {
        let transfers: Vec<_> = (0..transfers).map(|_| scope.spawn(|| tcp::bulk(path, bytes, 0))).collect();
        // The transfers have filled the queue by then.
        sleep(Duration::from_millis(200));
        let what =
            tcp::RequestResponse { requests, request_bytes: 100, response_bytes: 100, ..Default::default() };
        tcp::request_response(path, &what)?;
        for transfer in transfers {
            transfer.join().map_err(|_| anyhow::anyhow!("a transfer panicked"))??;
        }
        Ok(())
    })
}

/// Flows of datagrams for a time, each as fast as its thread can, from these CPUs in turn.
pub(super) fn flood(path: &Path<'_>, flows: u32, time: Duration, cpus: &[usize]) -> Result<()> {
    const PORT: u16 = 7400;
    let (to, from) = (path.server_address(PORT), path.client_address(0));
    let receiver = path.to().netns.run(|| UdpSocket::bind(to))??;
    receiver.set_read_timeout(Some(Duration::from_millis(100)))?;
    let is_over = AtomicBool::new(false);
    let send = |cpu: Option<usize>| -> Result<u64> {
        cpu.map_or(Ok(()), truth::stay_on_cpu)?;
        let socket = UdpSocket::bind(from)?;
        let end = Instant::now() + time;
        let mut sent = 0;
        while Instant::now() < end {
            socket.send_to(b"one of many", to)?;
            sent += 1;
        }
        Ok(sent)
    };
    let (sent, received) = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut received = 0_u64;
            while !is_over.load(Ordering::Relaxed) {
                received += u64::from(receiver.recv(&mut [0; 64]).is_ok());
            }
            received
        });
        let sent = path.from().netns.run(|| {
            thread::scope(|scope| {
                let cpu = |n: u32| cpus.get(n as usize % cpus.len().max(1)).copied();
                let senders: Vec<_> = (0..flows).map(|n| scope.spawn(move || send(cpu(n)))).collect();
                senders.into_iter().map(|s| s.join().unwrap_or(Ok(0))).sum::<Result<u64>>()
            })
        });
        is_over.store(true, Ordering::Relaxed);
        (sent, reader.join().unwrap_or(0))
    });
    let sent = sent??;
    ensure!(received > 0, "{sent} datagrams were sent, and none arrives");
    Ok(())
}

/// Has packets that arrive at an interface of the node's handled by one CPU, whatever CPU they come from (RPS).
pub(super) fn receive_on(path: &Path<'_>, node: &nettrace::lab::Netns, cpu: u32) -> Result<()> {
    let mask = format!("{:x}", 1_u64.checked_shl(cpu).unwrap_or(0));
    let file = format!("/sys/class/net/{}/queues/rx-0/rps_cpus", path.from().veth.name);
    // What is at /sys shows the namespace in which it was mounted.
    let script = format!("mount -t sysfs sysfs /sys && echo {mask} > {file}");
    truth::output(node, "unshare", "util-linux", &["-m", "sh", "-c", &script]).map(drop)
}
