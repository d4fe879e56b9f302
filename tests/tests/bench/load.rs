//! Both ends of a load, each in a pod of its own: books that balance over IPv4 and IPv6, stalls as theory has them, rates that
//! are kept, name servers of others, and peers.

use nettrace::lab::{Family, Lab, LabConfig, Role, dns::DnsServer};
use nettrace_bench::{
    cpu::{Ends, Pinning},
    load::{
        Failure, HIGHEST_NS, Load, Mode, Outcome, Profile, Served, ServerOptions, Servers, Stop,
        args::{ArrivalName, KindName, LoadArgs},
        client,
    },
    peer::{Client, ClientOptions, Config, Event, Server, Token},
};
use std::{
    net::{SocketAddr, UdpSocket},
    sync::Mutex,
    thread,
    time::Duration,
};

/// Of a kind, for a short time.
fn short(kind: KindName) -> LoadArgs {
    LoadArgs { seconds: Some(0.3), warm_up_seconds: Some(0.1), ..LoadArgs::of(kind) }
}

/// Runs a profile from the client's pod to the server's.
fn run(lab: &Lab, profile: &Profile, family: Family) -> Vec<(Load, Outcome, Served)> {
    let ends = Ends::choose().unwrap();
    let address = lab.path(Role::Client, Role::Server, family).unwrap().server_address(0).ip();
    let options = ServerOptions { pinning: Pinning::On(vec![ends.server]), only: None };
    let netns = &lab.pod(Role::Server).netns;
    let servers = netns.run(|| Servers::start(profile, address, 0, &options)).unwrap().unwrap();
    let options = client::Options { pinning: Pinning::On(vec![ends.client]), ..client::Options::default() };
    let asked = lab.pod(Role::Client).netns.run(|| client::run(profile, &servers.addresses(), &options));
    let served = servers.stop().unwrap();
    let parts = profile.parts.clone().into_iter().zip(asked.unwrap().unwrap()).zip(served);
    parts.map(|((load, outcome), served)| (load, outcome, served)).collect()
}

fn one(lab: &Lab, args: &LoadArgs) -> (Outcome, Served) {
    let (_, outcome, served) = run(lab, &args.resolve().unwrap(), Family::V4).remove(0);
    (outcome, served)
}

#[test]
fn a_profile_of_every_kind_runs_between_pods() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let text = r#"
        name = "all"
        seconds = 0.5
        warm_up_seconds = 0.1
        part = [
            { kind = "tcp_rr", connections = 2 }, { kind = "tcp_crr" }, { kind = "udp_rr", rate = 500 },
            { kind = "udp_flood", rate = 2000, request_bytes = 500 }, { kind = "dns", rate = 200, arrivals = "constant" },
            { name = "dns_tcp", kind = "dns", transport = "tcp", names = ["a.example", "b.example"] },
            { kind = "http_rr" }, { kind = "http_crr", rate = 200 }, { kind = "connect_burst", burst = 20 },
            { kind = "rr_under_bulk", mbit_per_second = 50 },
        ]
    "#;
    let profile = Profile::from_toml(text).unwrap();
    for family in lab.families() {
        for (load, outcome, served) in run(&lab, &profile, *family) {
            let name = &load.name;
            assert_eq!(outcome.begun, outcome.answered + outcome.errors.total(), "{name}: {outcome:?}");
            assert!(outcome.all > 0 && outcome.errors.total() == 0, "{name}: {outcome:?}");
            assert_eq!(
                (outcome.pinned.why_not.as_ref(), served.pinned.why_not.as_ref()),
                (None, None),
                "{name}"
            );
            if load.kind.is_one_way() {
                assert!(served.received.is_some_and(|received| received.units > 0), "{name}");
            } else {
                assert_eq!(served.requests, outcome.all, "{name}");
            }
        }
    }
    lab.stop().unwrap();
}

#[test]
fn a_stall_of_the_server_is_in_the_tail_of_an_open_loop_alone() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    // A tenth of each second the server does nothing: a tenth of the requests that come at any time waits, for evenly
    // distributed times up to 100 ms.
    let stalls = LoadArgs {
        stall_every_ms: Some(1000.0),
        stall_ms: Some(100.0),
        seconds: Some(5.0),
        ..short(KindName::TcpRr)
    };
    let share = |o: &Outcome| o.latency.count_between(10_000_000, HIGHEST_NS) as f64 / o.latency.len() as f64;
    let at_ms = |o: &Outcome, q| o.latency.value_at_quantile(q) as f64 / 1e6;
    // A machine that does other work stalls both ends too, which comes and goes; an error of measurement stays.
    for _ in 0..5 {
        let (open, _) = one(&lab, &LoadArgs { rate: Some(1000.0), ..stalls.clone() });
        let (closed, _) = one(&lab, &stalls);
        assert_eq!((open.mode, closed.mode), (Mode::OpenPoisson, Mode::Closed));
        let (waits, p95_ms, p99_ms) = (share(&open), at_ms(&open, 0.95), at_ms(&open, 0.99));
        let late_ms = open.lateness.as_ref().unwrap().value_at_quantile(0.99) as f64 / 1e6;
        let (closed_waits, closed_p99_ms) = (share(&closed), at_ms(&closed, 0.99));
        println!("open: {waits:.3} wait for more than 10 ms, p95 {p95_ms:.1} ms, p99 {p99_ms:.1} ms");
        println!(
            "closed: {closed_waits:.5}, p99 {closed_p99_ms:.2} ms; the generator's lateness p99 {late_ms:.2} ms"
        );
        let is_as_theory_says = (0.06..=0.15).contains(&waits)
            && (30.0..=75.0).contains(&p95_ms)
            && (70.0..=115.0).contains(&p99_ms);
        if is_as_theory_says && closed_waits < 0.01 && closed_p99_ms < 30.0 {
            return;
        }
    }
    panic!("never as theory says");
}

#[test]
fn a_flood_keeps_to_its_rate_and_what_arrives_is_counted() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let flood = LoadArgs {
        rate: Some(5000.0),
        connections: Some(2),
        seconds: Some(1.0),
        ..short(KindName::UdpFlood)
    };
    let (outcome, served) = one(&lab, &flood);
    // 5,000 a second for 1 s, and for the 0.1 s before it.
    assert_eq!((outcome.begun, outcome.answered, outcome.all), (5000, 5000, 5500));
    assert_eq!(served.requests, 5500, "the lab loses nothing at this rate");
    let received = served.received.unwrap();
    assert!((4000..=5500).contains(&received.units), "{received:?}");
    lab.stop().unwrap();
}

#[test]
fn name_servers_of_others_are_asked() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let server = DnsServer::start(lab.pod(Role::Dns)).unwrap();
    let address = DnsServer::address(lab.pod(Role::Dns), Family::V4).unwrap();
    let ask = |names: &[&str], rate| {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let (rate, arrivals) = (Some(rate), Some(ArrivalName::Constant));
        let limit_seconds = Some(0.3);
        let args = LoadArgs { names, rate, arrivals, limit_seconds, ..short(KindName::Dns) };
        let profile = args.resolve().unwrap();
        let run = || client::run(&profile, &[address], &client::Options::default());
        lab.pod(Role::Client).netns.run(run).unwrap().unwrap().remove(0)
    };
    let good = ask(&["www.test", "nx.test"], 200.0);
    assert_eq!((good.begun, good.answered, good.all), (60, 60, 80), "{good:?}");
    assert_eq!(server.log().queries, 80, "each was asked once");
    // Of four names, one is refused and one has no answer at all, which is in the tail with all the time that was waited.
    let bad = ask(&["www.test", "fail.test", "drop.test", "delay20ms.test"], 200.0);
    let errors = (bad.errors.of(Failure::Rejected), bad.errors.of(Failure::TimedOut));
    assert_eq!((bad.begun, bad.answered, errors), (60, 30, (15, 15)), "{bad:?}");
    assert!(bad.latency.count_between(300_000_000, HIGHEST_NS) >= 15, "{bad:?}");
    assert!(bad.latency.count_between(20_000_000, HIGHEST_NS) >= 30, "{bad:?}");
    lab.stop().unwrap();
    drop(server);
}

#[test]
fn peers_find_each_other_across_pods_and_serve_no_third() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let token = Token::new("the token of this lab").unwrap();
    let pod = lab.pod(Role::Server);
    let config = Config {
        control: SocketAddr::new(pod.ipv4.into(), 7400),
        data: pod.ipv4.into(),
        data_port: 7401,
        ..Config::new(token.clone())
    };
    let (stop, events) = (Stop::default(), Mutex::new(Vec::new()));
    let (listening, heard) = std::sync::mpsc::channel();
    let profile = LoadArgs { seconds: Some(2.0), ..short(KindName::UdpRr) }.resolve().unwrap();
    let (lab, token, profile) = (&lab, &token, &profile);
    thread::scope(|scope| {
        let served = scope.spawn(|| {
            pod.netns.run(|| {
                let server = Server::bind(config).unwrap();
                listening.send(server.address()).unwrap();
                server.run(&stop, |event| events.lock().unwrap().push(event));
            })
        });
        let address = heard.recv().unwrap();
        let asked = scope.spawn(move || {
            let ask = || {
                Client::connect(address, token, Duration::from_secs(5))
                    .unwrap()
                    .run(profile, &ClientOptions::default())
            };
            lab.pod(Role::Client).netns.run(ask).unwrap().unwrap()
        });
        // While it runs, a third pod sends to the same port.
        thread::sleep(Duration::from_secs(1));
        let answered = lab.pod(Role::Dns).netns.run(|| {
            let socket = UdpSocket::bind((lab.pod(Role::Dns).ipv4, 0)).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            socket.send_to(b"x", (pod.ipv4, 7401)).unwrap();
            socket.recv(&mut [0; 16]).is_ok()
        });
        let run = asked.join().unwrap();
        stop.set();
        served.join().unwrap().unwrap();
        assert!(!answered.unwrap(), "a stranger was served");
        assert_eq!(run.partial, None);
        let (client, server) = (&run.parts[0].client, run.parts[0].server.as_ref().unwrap());
        assert_eq!((server.requests, server.strangers), (client.all, 1));
        assert_eq!(client.errors.of(Failure::TimedOut), 0, "{client:?}");
    });
    let events = events.into_inner().unwrap();
    assert!(
        matches!(&events[..], [Event::Started { .. }, Event::Finished { partial: None, .. }]),
        "{events:?}"
    );
}
