//! Windows: what they count together is what there was, however they cut it, and nothing fills up.

use anyhow::{Result, ensure};
use nettrace::{
    capture::{Capture, Options},
    filter,
    lab::{
        Family, Lab, LabConfig, Role,
        dns::{self, DnsServer, DnsTotals},
        traffic::udp::{self, RequestResponse},
    },
    snapshot::Snapshot,
};
use nettrace_common::{MAX_SCOPES, Signal};
use nettrace_tests::{comes_about, count, options};
use std::{
    collections::BTreeSet,
    process::Command,
    thread::{scope, sleep},
    time::{Duration, Instant},
};

/// Closes windows while `work` runs, and then the last one.
fn windows<T: Send>(
    mut capture: Capture,
    every: Duration,
    work: impl FnOnce() -> T + Send,
) -> (Vec<Snapshot>, T) {
    let mut windows = Vec::new();
    let said = scope(|scope| {
        let working = scope.spawn(work);
        while !working.is_finished() {
            capture.tick();
            sleep(every);
            windows.push(capture.window().unwrap());
        }
        working.join().unwrap()
    });
    // What timed out, and what was on its way.
    sleep(Duration::from_millis(1500));
    windows.push(capture.stop().unwrap().snapshot);
    (windows, said)
}

fn sum(windows: &[Snapshot], of: impl Fn(&Snapshot) -> u64) -> u64 {
    windows.iter().map(of).sum()
}

/// A transaction counts in the window in which it ends, once, whatever window its query was in.
#[test]
fn dns_is_counted_once_over_windows() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let server = DnsServer::start(lab.pod(Role::Dns)).unwrap();
    let options = Options { dns_timeout: Duration::from_secs(1), ..options(&lab) };
    let capture = Capture::start(options).unwrap();
    let (windows, mixed) = windows(capture, Duration::from_millis(10), || dns::mix(&lab, 6).unwrap());
    drop(server);
    let DnsTotals { transactions, answered, timeouts, retries, tcp, ipv6, edns, truncated, .. } =
        mixed.observed;
    let seen = [
        sum(&windows, |w| w.dns.transactions),
        sum(&windows, |w| w.dns.answered),
        sum(&windows, |w| w.dns.timeouts),
        sum(&windows, |w| w.dns.retries),
        sum(&windows, |w| w.dns.tcp),
        sum(&windows, |w| w.dns.ipv6),
        sum(&windows, |w| w.dns.edns),
        sum(&windows, |w| w.dns.truncated),
    ];
    assert_eq!(seen, [transactions, answered, timeouts, retries, tcp, ipv6, edns, truncated]);
    assert!(windows.len() > 3 && transactions > 20, "{} windows, {transactions} transactions", windows.len());
    for window in &windows {
        let dns = &window.dns;
        assert_eq!(dns.transactions, dns.answered + dns.timeouts + dns.pending);
        assert_eq!(dns.transactions, dns.servers.iter().map(|s| s.transactions).sum::<u64>());
        assert_eq!(dns.transactions, dns.names.iter().map(|n| n.transactions).sum::<u64>());
        assert_eq!(count(window, Signal::DnsLatency), dns.answered);
    }
}

/// Each packet is in one window; each window is as long as it took; the ring's books balance in each and over all.
#[test]
fn packets_are_in_one_window_each() {
    const REQUESTS: u32 = 30_000;
    let lab = Lab::start(LabConfig::default()).unwrap();
    let mut options = options(&lab);
    options.programs.filter = filter::parse("udp and net 10.244.0.0/24").unwrap();
    let started = Instant::now();
    let capture = Capture::start(options).unwrap();
    let exchange = || -> Result<()> {
        let path = lab.path(Role::Client, Role::Server, Family::V4)?;
        let done =
            udp::request_response(&path, &RequestResponse { requests: REQUESTS, ..Default::default() })?;
        ensure!(done.answered == u64::from(REQUESTS), "{done:?}");
        Ok(())
    };
    let (windows, done) = windows(capture, Duration::from_millis(20), exchange);
    let elapsed_ns = started.elapsed().as_nanos() as u64;
    done.unwrap();
    assert!(windows.len() > 3, "{} windows", windows.len());
    // Each request and each answer is read by one application.
    let expected = u64::from(2 * REQUESTS);
    assert_eq!(sum(&windows, |w| count(w, Signal::RxTotal)), expected);
    assert!(windows.iter().filter(|w| count(w, Signal::RxTotal) > 0).count() > 1);
    for window in &windows {
        assert_eq!(window.ring.emitted, window.ring.received + window.ring.lost);
        let row = window.signal(Signal::RxTotal);
        let fits = row.is_none_or(|r| r.max_ns <= r.hist.max_ns() && r.sum_ns > 0);
        assert!(fits, "{:?}", row.map(|r| (r.max_ns, r.hist.max_ns(), r.sum_ns)));
    }
    let long_ns = sum(&windows, |w| w.meta.duration_ns);
    assert!(long_ns < elapsed_ns && long_ns > elapsed_ns / 2, "{long_ns} of {elapsed_ns} ns");
    assert!(windows.is_sorted_by_key(|w| w.meta.start_unix_ns));
}

/// Pods come and go, more of them than there are scopes: each has a scope of its own while it is there, and what is gone is
/// forgotten.
#[test]
fn interfaces_that_went_leave_their_scope_to_others() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let mut capture = Capture::start(options(&lab)).unwrap();
    let ip = |command: &str| {
        let mut ip = Command::new("ip");
        let output = ip.args(["-n", lab.node().netns.name()]).args(command.split(' ')).output().unwrap();
        assert!(output.status.success(), "ip {command}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let others = capture.interfaces().len();
    let mut scopes = BTreeSet::new();
    for n in 0..2 * MAX_SCOPES {
        let name = format!("pod{n}");
        ip(&format!("link add {name} type veth peer name peer"));
        ip(&format!("link set {name} up"));
        let deadline = Instant::now() + Duration::from_secs(20);
        let row = loop {
            let row = capture.interfaces().into_iter().find(|row| row.name == name);
            if let Some(row) = row.filter(|row| !row.attached.is_empty()) {
                break row;
            }
            assert!(Instant::now() < deadline, "{name} was not seen");
            sleep(Duration::from_millis(10));
        };
        assert_eq!(row.scope, format!("node/{name}"));
        scopes.insert(row.scope);
        ip(&format!("link del {name}"));
        let gone = || capture.interfaces().iter().all(|row| row.name != name || row.gone);
        assert!(soon(gone), "{name} did not go");
        let told = capture.window().unwrap().interfaces;
        assert!(told.iter().any(|row| row.name == name && row.gone), "the window in which it went tells");
    }
    assert_eq!(scopes.len(), 2 * MAX_SCOPES as usize);
    capture.window().unwrap();
    assert!(capture.interfaces().len() <= others + 2, "{:?}", capture.interfaces());
}

/// Whether something is so within 20 s.
fn soon(done: impl FnMut() -> bool) -> bool {
    comes_about(Duration::from_secs(20), done)
}
