//! Loads over loopback: every kind in every mode, books that balance, and what fails.

use super::{
    args::{ArrivalName, KindName, LoadArgs},
    *,
};
use crate::cpu::Pinning;
use std::{
    net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket},
    thread,
    time::{Duration, Instant},
};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Of a kind, for a short time.
fn short(kind: KindName) -> LoadArgs {
    let (seconds, warm_up_seconds, limit_seconds) = (Some(0.3), Some(0.1), Some(1.0));
    LoadArgs { seconds, warm_up_seconds, limit_seconds, ..LoadArgs::of(kind) }
}

/// Both ends on loopback.
fn run(args: &LoadArgs) -> Vec<(Load, Outcome, Served)> {
    let profile = args.resolve().unwrap();
    let servers = Servers::start(&profile, HERE, 0, &ServerOptions::default()).unwrap();
    let outcomes = client::run(&profile, &servers.addresses(), &client::Options::default()).unwrap();
    let served = servers.stop().unwrap();
    profile.parts.into_iter().zip(outcomes).zip(served).map(|((l, o), s)| (l, o, s)).collect()
}

/// What the books of every run must satisfy.
fn check(load: &Load, outcome: &Outcome, served: &Served) {
    let name = &load.name;
    assert_eq!(outcome.begun, outcome.answered + outcome.errors.total(), "{name}: {outcome:?}");
    let waited = outcome.errors.of(Failure::TimedOut) + outcome.errors.of(Failure::Unsent);
    let latencies = if load.kind.is_one_way() { 0 } else { outcome.answered + waited };
    assert_eq!(outcome.latency.len(), latencies, "{name}");
    assert!(outcome.answered > 0 && outcome.all >= outcome.answered, "{name}: {outcome:?}");
    let sent = outcome.begun - outcome.errors.of(Failure::Unsent);
    assert_eq!(outcome.lateness.as_ref().map_or(sent, hdrhistogram::Histogram::len), sent, "{name}");
    assert_eq!(outcome.errors.total(), 0, "{name}: {:?}", outcome.errors.by_name());
    if load.kind.is_one_way() {
        let received = served.received.as_ref().unwrap();
        assert!(received.units > 0 && !received.slices.is_empty(), "{name}: {received:?}");
    } else {
        assert_eq!(served.requests, outcome.all, "{name}");
        let by_slice: u64 = outcome.slices.iter().map(|n| u64::from(*n)).sum();
        assert!(by_slice <= outcome.answered && !outcome.slices.is_empty(), "{name}");
    }
    assert_eq!((served.strangers, served.failed), (0, 0), "{name}");
}

const KINDS: [KindName; 8] = [
    KindName::TcpRr,
    KindName::TcpCrr,
    KindName::TcpStream,
    KindName::UdpRr,
    KindName::UdpFlood,
    KindName::Dns,
    KindName::HttpRr,
    KindName::HttpCrr,
];

#[test]
fn every_kind_runs_in_a_closed_loop() {
    for kind in KINDS {
        for (load, outcome, served) in run(&short(kind)) {
            check(&load, &outcome, &served);
            assert_eq!((outcome.mode, outcome.lateness.is_some()), (Mode::Closed, false));
        }
    }
    let over_tcp = LoadArgs { transport: Some(Transport::Tcp), ..short(KindName::Dns) };
    run(&over_tcp).iter().for_each(|(load, outcome, served)| check(load, outcome, served));
}

#[test]
fn every_kind_runs_in_an_open_loop() {
    let kinds = KINDS.into_iter().filter(|kind| *kind != KindName::TcpStream);
    let over_tcp = LoadArgs { transport: Some(Transport::Tcp), ..short(KindName::Dns) };
    for args in kinds.map(short).chain([over_tcp]) {
        let (rate, arrivals, connections) = (Some(1000.0), Some(ArrivalName::Constant), Some(2));
        for (load, outcome, served) in run(&LoadArgs { rate, arrivals, connections, ..args.clone() }) {
            check(&load, &outcome, &served);
            assert_eq!(outcome.mode, Mode::OpenConstant);
            // 0.3 s of 1,000 a second, whatever the machine does meanwhile.
            assert_eq!(outcome.begun, 300, "{}", load.name);
            assert_eq!(outcome.all, 400, "{}", load.name);
        }
    }
}

#[test]
fn connections_share_the_work() {
    for kind in [KindName::TcpRr, KindName::TcpCrr, KindName::UdpRr, KindName::TcpStream] {
        let (connections, request_bytes) = (Some(3), Some(10_000));
        for (load, outcome, served) in run(&LoadArgs { connections, request_bytes, ..short(kind) }) {
            check(&load, &outcome, &served);
            let each = if load.kind.is_one_way() { outcome.answered } else { outcome.begun };
            assert_eq!(outcome.sent_bytes, each * 10_000, "{}", load.name);
            if kind != KindName::UdpRr && kind != KindName::TcpCrr {
                assert_eq!(served.connections, 3);
            }
        }
    }
}

#[test]
fn latency_is_measured_while_bulk_goes_the_same_way() {
    let parts = run(&LoadArgs { bulk_connections: Some(2), ..short(KindName::RrUnderBulk) });
    let names: Vec<&str> = parts.iter().map(|(load, ..)| load.name.as_str()).collect();
    assert_eq!(names, ["rr_under_bulk", "rr_under_bulk.bulk"]);
    parts.iter().for_each(|(load, outcome, served)| check(load, outcome, served));
    assert_eq!(parts[1].2.connections, 2);
}

#[test]
fn a_burst_comes_at_once_and_is_counted() {
    let burst = LoadArgs { burst: Some(50), rate: Some(500.0), ..short(KindName::ConnectBurst) };
    for (load, outcome, served) in run(&burst) {
        check(&load, &outcome, &served);
        // Bursts at 0, 0.1, 0.2 and 0.3 s, of which the warm-up has the first.
        assert_eq!((outcome.mode, outcome.begun, outcome.all), (Mode::OpenBurst, 150, 200));
    }
}

#[test]
fn a_flood_and_a_bulk_keep_to_their_rates() {
    let flood = LoadArgs { rate: Some(20_000.0), ..short(KindName::UdpFlood) };
    for (load, outcome, served) in run(&flood) {
        check(&load, &outcome, &served);
        assert_eq!((outcome.begun, outcome.all), (6000, 8000));
        assert!(served.requests <= 8000, "{served:?}");
    }
    // 8 Mbit/s in writes of 10 kB are 100 a second.
    let bulk =
        LoadArgs { mbit_per_second: Some(8.0), request_bytes: Some(10_000), ..short(KindName::TcpStream) };
    for (load, outcome, served) in run(&bulk) {
        check(&load, &outcome, &served);
        assert_eq!((outcome.begun, outcome.all), (30, 40));
        assert_eq!(served.received_bytes, 400_000);
    }
}

/// The server does nothing for the last 100 ms of each second: of requests that come at any time, one in ten waits, and those
/// that do, wait evenly distributed times from 0 to 100 ms.
fn stalls(kind: KindName) -> LoadArgs {
    let (stall_every_ms, stall_ms, seconds) = (Some(1000.0), Some(100.0), Some(4.0));
    LoadArgs { stall_every_ms, stall_ms, seconds, ..short(kind) }
}

/// Tries up to five times: the noise of a machine that does other work comes and goes, an error of measurement stays.
fn in_time(mut holds: impl FnMut() -> Result<(), String>) {
    let mut why = Vec::new();
    for _ in 0..5 {
        match holds() {
            Ok(()) => return,
            Err(error) => why.push(error),
        }
    }
    panic!("never held: {why:#?}");
}

#[test]
fn a_stall_is_in_the_tail_of_an_open_loop_as_theory_says() {
    for kind in [KindName::TcpRr, KindName::UdpRr, KindName::HttpCrr] {
        in_time(|| {
            let (load, outcome, served) = run(&LoadArgs { rate: Some(1000.0), ..stalls(kind) }).remove(0);
            check(&load, &outcome, &served);
            let at_ms = |q| outcome.latency.value_at_quantile(q) as f64 / 1e6;
            // The share that waits is the share of time that the server stalls.
            let waits = outcome.latency.count_between(10_000_000, HIGHEST_NS);
            let share = waits as f64 / outcome.latency.len() as f64;
            // Half of the tenth waits for more than 50 ms, a tenth of it for more than 90 ms.
            let as_theory_says = (0.06..=0.15).contains(&share)
                && at_ms(0.8) < 20.0
                && (30.0..=75.0).contains(&at_ms(0.95))
                && (70.0..=115.0).contains(&at_ms(0.99));
            if as_theory_says { Ok(()) } else { Err(format!("{}: {share} {outcome:?}", load.name)) }
        });
    }
}

#[test]
fn a_stall_is_all_but_hidden_from_a_closed_loop_which_says_what_it_is() {
    in_time(|| {
        let (load, outcome, served) = run(&stalls(KindName::TcpRr)).remove(0);
        check(&load, &outcome, &served);
        assert_eq!(outcome.mode, Mode::Closed);
        // One request in each of four seconds: far fewer than one in a hundred.
        let slow = outcome.latency.count_between(50_000_000, HIGHEST_NS);
        let hidden = (1..=10).contains(&slow) && outcome.latency.value_at_quantile(0.99) < 50_000_000;
        if hidden { Ok(()) } else { Err(format!("{slow} {outcome:?}")) }
    });
}

#[test]
fn a_server_that_thinks_is_seen_to() {
    let think = LoadArgs { think_us: Some(5000.0), ..short(KindName::UdpRr) };
    let (_, outcome, _) = run(&think).remove(0);
    assert!(outcome.latency.min() >= 4_950_000, "{outcome:?}");
    let (slow_share, slow_us) = (Some(0.2), Some(20_000.0));
    let slow = LoadArgs { slow_share, slow_us, seconds: Some(1.0), ..think };
    let (_, outcome, _) = run(&slow).remove(0);
    let share = outcome.latency.count_between(24_000_000, HIGHEST_NS) as f64 / outcome.latency.len() as f64;
    assert!((0.05..=0.4).contains(&share), "{share}");
}

#[test]
fn a_schedule_that_cannot_be_kept_is_told_and_waited_for() {
    // A server that takes 10 ms for each can do 100 a second, and 400 are asked for.
    let args = LoadArgs {
        think_us: Some(10_000.0),
        rate: Some(400.0),
        limit_seconds: Some(0.2),
        ..short(KindName::UdpRr)
    };
    let args = LoadArgs { arrivals: Some(ArrivalName::Constant), ..args };
    let (_, outcome, _) = run(&args).remove(0);
    assert_eq!(outcome.begun, 120);
    assert_eq!(outcome.begun, outcome.answered + outcome.errors.total());
    assert!(outcome.errors.of(Failure::TimedOut) > 20, "{:?}", outcome.errors.by_name());
    // What waited in vain is in the tail.
    assert_eq!(outcome.latency.len(), 120);
    assert!(outcome.latency.value_at_quantile(0.99) >= 190_000_000);
}

#[test]
fn who_is_not_there_and_who_is_there_already_are_told() {
    let profile = short(KindName::TcpRr).resolve().unwrap();
    let taken = TcpListener::bind((HERE, 0)).unwrap();
    let address = taken.local_addr().unwrap();
    let started = Servers::start(&profile, HERE, address.port(), &ServerOptions::default());
    assert!(matches!(started, Err(LoadError::PortInUse { address: at }) if at == address));
    drop(taken);
    let error = client::run(&profile, &[address], &client::Options::default()).unwrap_err();
    assert!(matches!(error, LoadError::Connect { address: at, .. } if at == address), "{error}");
    let error = client::run(&profile, &[], &client::Options::default()).unwrap_err();
    assert!(matches!(error, LoadError::Addresses { parts: 1, addresses: 0 }), "{error}");
    let udp = UdpSocket::bind((HERE, 0)).unwrap();
    let profile = short(KindName::UdpRr).resolve().unwrap();
    let started = Servers::start(&profile, HERE, udp.local_addr().unwrap().port(), &ServerOptions::default());
    assert!(matches!(started, Err(LoadError::PortInUse { .. })));
}

#[test]
fn a_server_that_goes_is_counted_by_what_the_client_sees() {
    for kind in [KindName::TcpRr, KindName::TcpCrr, KindName::UdpRr, KindName::HttpRr] {
        for rate in [None, Some(1000.0)] {
            let args = LoadArgs { rate, limit_seconds: Some(0.2), seconds: Some(0.6), ..short(kind) };
            let profile = args.resolve().unwrap();
            let servers = Servers::start(&profile, HERE, 0, &ServerOptions::default()).unwrap();
            let addresses = servers.addresses();
            let outcome = thread::scope(|scope| {
                let asked = scope.spawn(|| client::run(&profile, &addresses, &client::Options::default()));
                thread::sleep(Duration::from_millis(350));
                servers.stop().unwrap();
                asked.join().unwrap().unwrap().remove(0)
            });
            assert!(outcome.answered > 0 && outcome.errors.total() > 0, "{kind:?} {rate:?}: {outcome:?}");
            assert_eq!(outcome.begun, outcome.answered + outcome.errors.total(), "{kind:?} {rate:?}");
        }
    }
}

#[test]
fn a_run_that_is_stopped_yields_what_there_is() {
    for rate in [None, Some(500.0)] {
        let args = LoadArgs { rate, seconds: Some(60.0), ..short(KindName::TcpRr) };
        let profile = args.resolve().unwrap();
        let servers = Servers::start(&profile, HERE, 0, &ServerOptions::default()).unwrap();
        let options = client::Options::default();
        let begun = Instant::now();
        let outcome = thread::scope(|scope| {
            let asked = scope.spawn(|| client::run(&profile, &servers.addresses(), &options));
            thread::sleep(Duration::from_millis(500));
            options.stop.set();
            asked.join().unwrap().unwrap().remove(0)
        });
        assert!(begun.elapsed() < Duration::from_secs(20));
        assert!(outcome.answered > 0 && outcome.elapsed_ns < 20_000_000_000, "{outcome:?}");
        assert!(outcome.partial.as_ref().is_some_and(|why| why.contains("of 60 s")), "{outcome:?}");
        assert_eq!(outcome.begun, outcome.answered + outcome.errors.total());
    }
}

#[test]
fn strangers_are_not_served() {
    let options =
        ServerOptions { only: Some(Ipv4Addr::new(192, 0, 2, 1).into()), ..ServerOptions::default() };
    for kind in [KindName::UdpRr, KindName::Dns, KindName::UdpFlood, KindName::TcpRr, KindName::TcpStream] {
        let args = LoadArgs { limit_seconds: Some(0.1), ..short(kind) };
        let profile = args.resolve().unwrap();
        let servers = Servers::start(&profile, HERE, 0, &options).unwrap();
        let outcome =
            client::run(&profile, &servers.addresses(), &client::Options::default()).unwrap().remove(0);
        let served = servers.stop().unwrap().remove(0);
        assert!(served.strangers > 0, "{kind:?}: {served:?}");
        assert_eq!((served.requests, served.sent_bytes, served.received_bytes), (0, 0, 0), "{kind:?}");
        assert!(outcome.received_bytes == 0);
    }
}

#[test]
fn threads_say_where_they_ran() {
    let profile = LoadArgs { connections: Some(3), ..short(KindName::TcpRr) }.resolve().unwrap();
    let cpu = crate::cpu::allowed().unwrap()[0];
    let options = ServerOptions { pinning: Pinning::On(vec![cpu]), only: None };
    let servers = Servers::start(&profile, HERE, 0, &options).unwrap();
    let options = client::Options { pinning: Pinning::Off, ..client::Options::default() };
    let outcome = client::run(&profile, &servers.addresses(), &options).unwrap().remove(0);
    let served = servers.stop().unwrap().remove(0);
    assert_eq!((served.pinned.cpus, served.pinned.why_not), (vec![cpu], None));
    assert_eq!((outcome.pinned.cpus.len(), outcome.pinned.why_not.as_deref()), (0, Some("switched off")));
    assert!(served.cpu.share() > 0.0 && outcome.cpu.share() > 0.0);
}
