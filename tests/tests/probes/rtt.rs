//! `rtt`: net.rtt against what tshark makes of the same packets.

use anyhow::{Context as _, Result};
use nettrace::lab::{
    Family, Lab, LabConfig, Role,
    traffic::tcp::{self, RequestResponse},
};
use nettrace_common::probes::rtt::chosen;
use nettrace_tests::{Compared, agree, captured};
use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader},
    net::IpAddr,
    process::{Child, Command, Stdio},
    time::Duration,
};

const INTERFACE: &str = "veth-server";

/// A packet capture at an interface of the node, once it runs.
fn sniff(lab: &Lab, file: &str) -> Result<Child> {
    let command =
        || Command::new("dumpcap").args(["-q", "-i", INTERFACE, "-w", file]).stderr(Stdio::piped()).spawn();
    let mut child =
        lab.node().netns.run(command)?.context("cannot run dumpcap (package wireshark-common)")?;
    let lines = BufReader::new(child.stderr.take().context("no stderr")?).lines();
    // It says where it writes to when it has begun.
    let began = lines.map_while(Result::ok).any(|line| line.starts_with("File: "));
    anyhow::ensure!(began, "dumpcap did not begin");
    Ok(child)
}

/// Round trips by tshark's `tcp.analysis.ack_rtt`, ns, sorted: of what an address acknowledges. Of all, and of those
/// alone that nettrace takes: of segments that are chosen, of the first, and of those longer than all that it took
/// before. Each segment is acknowledged by itself here, so its end is the number acknowledged.
fn by_tshark(file: &str, from: IpAddr) -> Result<(Vec<u64>, Vec<u64>)> {
    const FIELDS: [&str; 7] = [
        "frame.number",
        "ip.len",
        "tcp.stream",
        "tcp.analysis.acks_frame",
        "tcp.analysis.ack_rtt",
        "tcp.ack_raw",
        "tcp.flags.syn",
    ];
    let output = Command::new("tshark")
        .args(["-r", file, "-Y", "tcp", "-T", "fields", "-e", "ip.src"])
        .args(FIELDS.iter().flat_map(|field| ["-e", field]))
        .output()
        .context("cannot run tshark (package tshark)")?;
    let text = String::from_utf8(output.stdout)?;
    let (mut all, mut ours) = (Vec::new(), Vec::new());
    let (mut lengths, mut longest) = (HashMap::new(), HashMap::new());
    for line in text.lines() {
        let fields: Vec<_> = line.split('\t').collect();
        let [source, number, length, stream, acks, rtt, end, syn] = fields[..] else {
            anyhow::bail!("tshark printed {line:?}")
        };
        lengths.insert(number, length.parse::<u32>()?);
        if source != from.to_string() || rtt.is_empty() {
            continue;
        }
        let rtt_ns = (rtt.parse::<f64>()? * 1e9) as u64;
        all.push(rtt_ns);
        let length = *lengths.get(acks).with_context(|| format!("no frame {acks}"))?;
        let longest = longest.entry(stream).or_insert(0);
        let longer = *longest != 0 && length > *longest;
        if chosen(end.parse()?) || matches!(syn, "1" | "True") || longer {
            ours.push(rtt_ns);
            *longest = length.max(*longest);
        }
    }
    all.sort_unstable();
    ours.sort_unstable();
    Ok((all, ours))
}

/// Exactly the round trips that are chosen are measured, and their median at an interface is tshark's of the same ones,
/// within 20 us or 10 %. Each request is read after 1 ms, so that
/// there is a round trip to be seen that is not the lab's few microseconds alone.
#[test]
fn round_trips_are_those_of_tshark() {
    agree(ours_and_tsharks);
}

fn ours_and_tsharks() -> Compared {
    let file = format!("{}/rtt.pcapng", env!("CARGO_TARGET_TMPDIR"));
    let (finished, server) = captured(
        LabConfig::default(),
        |_| {},
        |lab| {
            let mut sniffer = sniff(lab, &file)?;
            let path = lab.path(Role::Client, Role::Server, Family::V4)?;
            let what = RequestResponse {
                requests: 400,
                read_delay: Duration::from_millis(1),
                ..RequestResponse::default()
            };
            let done = tcp::request_response(&path, &what)?;
            std::thread::sleep(Duration::from_millis(300));
            // SAFETY: a call without pointers; the child has not been waited for, so the number is its own.
            unsafe { libc::kill(sniffer.id() as i32, libc::SIGINT) };
            sniffer.wait()?;
            anyhow::ensure!(done.requests == 400);
            Ok(lab.pod(Role::Server).ipv4)
        },
    )
    .unwrap();
    let (all, theirs) = by_tshark(&file, server.into()).unwrap();
    let scope = format!("node/{INTERFACE}");
    let ours = finished.snapshot.signals.iter().find(|r| r.signal == "net.rtt" && r.scope == scope).unwrap();
    let (p50, median) = (ours.hist.quantile_ns(0.5), theirs[theirs.len() / 2]);
    println!("net.rtt {} times, p50 {p50} ns; tshark {} times, {median} ns", ours.hist.count(), theirs.len());
    // The requests that left towards the server, each acknowledged.
    assert!(all.len() >= 400, "{}", all.len());
    assert!(theirs.len() >= 20, "{} of {} are chosen", theirs.len(), all.len());
    assert_eq!(ours.hist.count(), theirs.len() as u64);
    Compared { ours: p50, theirs: median, within: (median / 10).max(20_000) }
}
