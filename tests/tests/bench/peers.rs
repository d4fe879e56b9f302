//! The generators beside those of others, where time is the instructions that are carried out: what a round trip takes there is
//! the work of the kernel and of the two programs, to a thousandth. On a machine that others use, too, `--bench peers` compares
//! by the clock.

use super::cli::{ADDRESS_PORT, Server, directory, on};
use nettrace::lab::Pair;
use nettrace_bench::result::RunResult;
use nettrace_tests::{in_guest, program::stderr, truth::Running};
use std::{
    fs,
    net::SocketAddr,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

/// Whether the tool is there; it is told when it is not.
fn has(tool: &str) -> bool {
    let found =
        Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        eprintln!("skipped: what {tool} is compared with: there is no {tool}");
    }
    found
}

/// Transactions a second of ours, over one connection.
fn ours(pair: &Pair, kind: &str, bytes: &str) -> f64 {
    let dir = directory(&format!("peers-{kind}"));
    let address = SocketAddr::from((pair.server().ipv4, ADDRESS_PORT)).to_string();
    let server = Server::start(&pair.server().netns, &dir, &address);
    let load = ["--kind", kind, "--request-bytes", bytes, "--response-bytes", bytes, "--connections", "1"];
    let length = ["--seconds", "1", "--warm-up-seconds", "0.1", "-o", "run.json"];
    let peer = ["--peer", &address, "--token-file", "token"];
    let args = [&["bench", "client"], &load[..], &length, &peer].concat();
    let output = on(&pair.client().netns, &dir, &args).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let result = RunResult::read(&dir.join("run.json")).unwrap();
    let outcome = &result.rounds[0].loads[kind];
    assert_eq!(outcome.error_count(), 0, "{outcome:?}");
    drop(server);
    fs::remove_dir_all(dir).unwrap();
    outcome.per_second()
}

/// Has the calling thread, and the programs that it starts, not take the CPU from each other by waking up: with one CPU for both
/// ends it differs with what each has used of late whether a server answers before its client waits, which saves a switch.
fn wait_in_turn() {
    let param = libc::sched_param { sched_priority: 0 };
    // SAFETY: the parameters are read, and are of this frame.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const param) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn one_connection_is_as_fast_as_that_of_netperf() {
    if !in_guest() {
        eprintln!(
            "skipped: what a clock of a shared machine tells is told by `cargo bench -p nettrace-bench --bench peers`"
        );
        return;
    }
    if !has("netperf") {
        return;
    }
    wait_in_turn();
    let pair = Pair::start().unwrap();
    let server = pair.server().ipv4.to_string();
    let args = ["-D", "-4", "-L", &server];
    let _theirs = Running::start(&pair.server().netns, "netserver", "netperf", &args).unwrap();
    thread::sleep(Duration::from_millis(500));
    for (kind, more) in [("tcp_rr", ""), ("tcp_crr", ""), ("udp_rr", "-n")] {
        // Its server's socket is at this address alone, as ours is. With a quantile asked for it times each transaction.
        let test = kind.to_uppercase();
        let args = ["-4", "-H", &server, "-t", &test, "-l", "1", "-P", "0", "--"];
        let what = ["-r", "1,1", "-H", &server, "-k", "THROUGHPUT,P50_LATENCY", more];
        let ask =
            || Command::new("netperf").args(args).args(what.iter().filter(|arg| !arg.is_empty())).output();
        let output = pair.client().netns.run(ask).unwrap().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let rate = text.lines().find_map(|line| line.strip_prefix("THROUGHPUT=")?.trim().parse().ok());
        let theirs: f64 = rate.unwrap_or_else(|| panic!("{text}{}", stderr(&output)));
        let ours = ours(&pair, kind, "1");
        eprintln!("{kind}: {ours:.0} /s, netperf {theirs:.0} /s: {:.3}", ours / theirs);
        assert!(ours >= theirs, "{kind}: {ours} /s, and netperf {theirs}");
    }
}
