//! `dns.latency` against the server's own clock and against another observer of the same packets.

use super::{assert_nothing_lost, client};
use anyhow::Context;
use nettrace::lab::dns::{DnsServer, Question, TYPE_A, TYPE_AAAA, decode, encode_query};
use nettrace::lab::{Family, Lab, LabConfig, Role};
use nettrace_tests::{Compared, agree, captured, truth};
use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::time::Duration;

fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values[values.len() / 2]
}

/// Delays of 1, 5 and 20 ms: the median is the server's own within 5 % or 100 us.
#[test]
fn latency_is_the_servers_own() {
    const EACH: u32 = 31;
    truth::favour_this_thread();
    let compare = |delay: u64| {
        let (finished, log) = captured(
            LabConfig::default(),
            |_| {},
            |lab| {
                let server = DnsServer::start(lab.pod(Role::Dns))?;
                let client = client(lab)?;
                lab.pod(Role::Client).netns.run(|| {
                    (0..EACH).try_for_each(|n| {
                        let name = format!("delay{delay}ms-{n}.example.test");
                        client.ask(&super::Query::new(&name, TYPE_A)).map(drop)
                    })
                })??;
                // The server notes an answer after it has sent it.
                std::thread::sleep(Duration::from_millis(100));
                Ok(server.log())
            },
        )
        .unwrap();
        let served = median(log.answered.iter().map(|a| a.service_ns).collect());
        let rows = &finished.snapshot.dns.slowest;
        assert_eq!((rows.len(), log.answered.len()), (31, 31));
        let seen: Vec<_> = rows.iter().filter_map(|row| row.latency_ns).collect();
        assert!(seen.iter().all(|&ns| ns >= delay * 1_000_000), "{seen:?}");
        let p50 = median(seen);
        let tolerance = (served / 20).max(100_000);
        println!("delay {delay} ms: served {served} ns, seen {p50} ns");
        Compared { ours: p50, theirs: served, within: tolerance }
    };
    [1, 5, 20].into_iter().for_each(|delay| agree(|| compare(delay)));
}

/// Every query's latency as tshark computes it (`dns.time`) from a capture at the same interface: the median of the
/// absolute differences is below 20 us.
#[test]
fn latency_is_what_tshark_says() {
    truth::favour_this_thread();
    agree(|| Compared { ours: difference_to_tshark(), theirs: 0, within: 20_000 });
}

/// The median of the absolute differences, ns.
fn difference_to_tshark() -> u64 {
    const QUERIES: u32 = 100;
    let file = std::env::temp_dir().join(format!("nettrace-dns-{}.pcapng", std::process::id()));
    let path = file.to_str().unwrap().to_owned();
    let (finished, outcomes) = captured(
        LabConfig::default(),
        |_| {},
        |lab| {
            let _server = DnsServer::start(lab.pod(Role::Dns))?;
            let mut dumpcap = dump(lab, &path)?;
            let outcomes = super::ask(lab, Role::Client, &client(lab)?, QUERIES)?;
            // What was captured last is on its way to the file.
            std::thread::sleep(Duration::from_millis(300));
            dumpcap.interrupt()?;
            Ok(outcomes)
        },
    )
    .unwrap();
    let theirs = dns_times(&path).unwrap();
    std::fs::remove_file(&file).unwrap();
    assert_eq!((outcomes.len(), theirs.len()), (100, 100));
    assert_eq!(finished.snapshot.dns.transactions, 100);
    let rows: HashMap<_, _> = finished.snapshot.dns.slowest.iter().map(|r| (&r.name, r)).collect();
    let differences = outcomes.iter().map(|outcome| {
        let ours = rows[&outcome.query.question.name].latency_ns.unwrap();
        ours.abs_diff(theirs[&(outcome.client.port(), outcome.id)])
    });
    let difference = median(differences.collect());
    println!("median difference to tshark: {difference} ns");
    difference
}

/// Starts dumpcap at the node's end of the client's veth, and returns when it captures.
fn dump(lab: &Lab, file: &str) -> anyhow::Result<truth::Running> {
    let args = ["-i", "veth-client", "-f", "udp port 53", "-w", file];
    let mut dumpcap = truth::Running::start(&lab.node().netns, "dumpcap", "tshark", &args)?;
    let stderr = dumpcap.child().stderr.take().context("dumpcap")?;
    let mut said = String::new();
    for line in BufReader::new(stderr).lines() {
        let line = line?;
        said.push_str(&line);
        if line.starts_with("File: ") {
            return Ok(dumpcap);
        }
    }
    anyhow::bail!("dumpcap ended: {said}")
}

/// `dns.time` of each answer in a file, ns, by client port and id.
fn dns_times(file: &str) -> anyhow::Result<HashMap<(u16, u16), u64>> {
    let fields = ["-e", "udp.dstport", "-e", "dns.id", "-e", "dns.time"];
    let args = [&["-r", file, "-Y", "dns.time", "-T", "fields"], &fields[..]].concat();
    let output = std::process::Command::new("tshark").args(args).output();
    let output = output.context("tshark cannot be run; install the package tshark")?;
    let text = String::from_utf8(output.stdout)?;
    let row = |line: &str| {
        let mut words = line.split('\t');
        let mut next = || words.next().context("tshark's columns");
        let port = next()?.parse()?;
        let id = u16::from_str_radix(next()?.trim_start_matches("0x"), 16)?;
        let seconds: f64 = next()?.parse()?;
        Ok(((port, id), (seconds * 1e9).round() as u64))
    };
    text.lines().map(row).collect()
}

/// Questions of one socket in flight together, answered in the opposite order; A and AAAA of one name among them.
#[test]
fn questions_in_flight_are_told_apart() {
    const NAMES: u16 = 10;
    let (finished, ()) = captured(
        LabConfig::default(),
        |_| {},
        |lab| {
            let _server = DnsServer::start(lab.pod(Role::Dns))?;
            let server = DnsServer::address(lab.pod(Role::Dns), Family::V4)?;
            lab.pod(Role::Client).netns.run(|| {
                let socket = UdpSocket::bind("0.0.0.0:0")?;
                socket.connect(server)?;
                socket.set_read_timeout(Some(Duration::from_secs(5)))?;
                for number in 0..NAMES {
                    for (bit, qtype) in [TYPE_A, TYPE_AAAA].into_iter().enumerate() {
                        let name = format!("delay{}ms-{number}.example.test", delay_ms(number));
                        let id = 2 * number + bit as u16;
                        socket.send(&encode_query(id, &Question { name, qtype }, None)?)?;
                    }
                }
                let mut ids = Vec::new();
                for _ in 0..2 * NAMES {
                    let mut buffer = [0; 512];
                    let bytes = socket.recv(&mut buffer)?;
                    ids.push(decode(&buffer[..bytes])?.id);
                }
                assert!(ids[0] > ids[19], "the first to be asked is the last to be answered: {ids:?}");
                anyhow::Ok(())
            })?
        },
    )
    .unwrap();
    let dns = &finished.snapshot.dns;
    assert_eq!((dns.transactions, dns.answered, dns.retries), (20, 20, 0));
    for number in 0..NAMES {
        let delay = delay_ms(number);
        let name = format!("delay{delay}ms-{number}.example.test");
        let rows: Vec<_> = dns.slowest.iter().filter(|row| row.name == name).collect();
        assert_eq!(rows.len(), 2, "{name}");
        assert_ne!(rows[0].qtype, rows[1].qtype);
        assert!(rows.iter().all(|r| r.latency_ns.is_some_and(|ns| ns >= delay * 1_000_000)), "{rows:?}");
    }
    assert_nothing_lost(&finished.snapshot);
}

fn delay_ms(number: u16) -> u64 {
    220 - 20 * u64::from(number)
}
