//! The budget of packets that are timed: beyond it they pass untimed, every one of them counted.

use nettrace::{
    lab::{
        Family, Lab, LabConfig, Role,
        traffic::udp::{self, Datagrams, RequestResponse},
    },
    snapshot::Snapshot,
};
use nettrace_common::Signal;
use nettrace_tests::{captured, count, count_in, lost, truth};
use std::time::Duration;

/// Latencies of a signal that are missing, by the books.
fn missing(snapshot: &Snapshot) -> u64 {
    snapshot.packets.untimed + lost(snapshot, "unmatched") + lost(snapshot, "evicted")
}

/// A flood far beyond the budget: each datagram is timed the whole way, or passes the whole way, and is counted once.
#[test]
fn beyond_the_budget_packets_pass_and_are_counted() {
    const BUDGET_PER_S: u32 = 500;
    let (finished, (sent, received)) = captured(
        LabConfig::default(),
        |options| options.programs.packets_per_second = BUDGET_PER_S,
        |lab| {
            let path = lab.path(Role::Client, Role::Server, Family::V4)?;
            let what = Datagrams { bytes: 64, ..Datagrams::flood(20_000, 10_000) };
            let done = udp::datagrams(&path, &what)?;
            Ok((done.sent, done.received))
        },
    )
    .unwrap();
    let snapshot = &finished.snapshot;
    let packets = snapshot.packets;
    assert_eq!(packets.budget_per_cpu_per_s, BUDGET_PER_S);
    // Neighbour discovery and the like are packets, too.
    assert!((sent..sent + 100).contains(&packets.begun), "{packets:?} of {sent}");
    let timed = count(snapshot, Signal::RxTotal);
    assert!(
        timed <= received && timed + missing(snapshot) >= received,
        "{timed} and {packets:?} of {received}"
    );
    // 500 a second for two seconds, on two CPUs at the most, and what comes before the rate is known.
    assert!((500..5000).contains(&timed), "{timed} of {received}");
    let unmatched = lost(snapshot, "unmatched") + lost(snapshot, "evicted");
    let forwarded = count(snapshot, Signal::FwdHost);
    assert!(forwarded.abs_diff(timed) <= unmatched + 100, "{forwarded} forwarded, {timed} received");
}

/// Requests and responses take turns; the choice falls on both alike. Each CPU chooses by itself, so that all is on one.
#[test]
fn the_choice_is_even() {
    const REQUESTS: u32 = 20_000;
    let exchange = |lab: &Lab| {
        let path = lab.path(Role::Client, Role::Server, Family::V4)?;
        let what =
            RequestResponse { requests: REQUESTS, read_delay: Duration::ZERO, ..RequestResponse::default() };
        // A thread of its own: the test's own goes on to other tests.
        std::thread::scope(|scope| {
            let pinned = scope.spawn(|| {
                truth::stay_on_this_cpu()?;
                anyhow::Ok(udp::request_response(&path, &what)?)
            });
            pinned.join().unwrap()
        })
    };
    let (finished, done) =
        captured(LabConfig::default(), |options| options.programs.packets_per_second = 1000, exchange)
            .unwrap();
    assert_eq!(done.answered, u64::from(REQUESTS));
    let scopes = ["server/eth0", "client/eth0"];
    let [there, back] = scopes.map(|scope| count_in(&finished.snapshot, Signal::RxTotal, scope) as f64);
    assert!(there + back < 0.8 * f64::from(2 * REQUESTS), "{there} and {back} of {REQUESTS}");
    // Six standard deviations of a fair coin.
    assert!((there - back).abs() <= 6.0 * (there + back).sqrt() + 10.0, "{there} there, {back} back");
}

/// Within the budget, every packet is timed.
#[test]
fn within_the_budget_every_packet_is_timed() {
    let (finished, done) = captured(
        LabConfig::default(),
        |options| options.programs.packets_per_second = nettrace::load::PACKETS_PER_SECOND,
        |lab| {
            let path = lab.path(Role::Client, Role::Server, Family::V6)?;
            Ok(udp::datagrams(&path, &Datagrams { bytes: 64, ..Datagrams::flood(2000, 2000) })?)
        },
    )
    .unwrap();
    assert_eq!(finished.snapshot.packets.untimed, 0);
    assert_eq!(count(&finished.snapshot, Signal::RxTotal), done.received);
}
