//! Guarded tuning on real traffic: what helps stays, what does nothing goes, and of many that do nothing as few stay as were
//! allowed for.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use nettrace::{
    capture::Capture,
    change::{Engine, Entry, Journal, Plan, Request, StateDir, plan},
    filter,
    lab::{Lab, LabConfig, Netns, Role},
    tune::{CaptureMeter, Objective, Options, Trial, Verdict, text, tune},
};
use nettrace_tests::{in_guest, truth::output};
use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

/// Ports of the bulk transfer, and of the requests whose latency matters.
const BULK: u16 = 7100;
const REQUESTS: u16 = 7200;
/// Connections with requests: as many as a processor has time for, also one that is emulated.
fn connections() -> usize {
    if in_guest() { 4 } else { 16 }
}

/// Between a connection's requests, so that they leave room for others.
const PAUSE: Duration = Duration::from_millis(1);
/// Changes that do nothing for packets that are on their way.
const PLACEBOS: [&str; 3] = [
    "sysctl:net.ipv4.tcp_keepalive_time=1000",
    "sysctl:net.ipv4.tcp_fin_timeout=31",
    "sysctl:net.core.somaxconn=5000",
];

/// Of type of service "minimise delay" (RFC 1349): the kernel gives it the first band of `pfifo_fast` and `prio`.
fn minimise_delay(stream: &TcpStream) {
    let tos: libc::c_int = 0x10;
    // SAFETY: the kernel reads the four bytes of `tos`, which lives until it returns.
    let result = unsafe {
        libc::setsockopt(stream.as_raw_fd(), libc::IPPROTO_IP, libc::IP_TOS, (&raw const tos).cast(), 4)
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// A server that reads all there is, and answers each byte where it is asked to.
fn serve(port: u16, connections: usize, answer: bool) {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
    thread::scope(|scope| {
        for _ in 0..connections {
            let (mut stream, _) = listener.accept().unwrap();
            scope.spawn(move || {
                let mut buffer = vec![0; 64 << 10];
                while let Ok(n @ 1..) = stream.read(&mut buffer) {
                    if answer && stream.write_all(&buffer[..n]).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

fn connect(to: (Ipv4Addr, u16)) -> TcpStream {
    loop {
        match TcpStream::connect(to) {
            Ok(stream) => return stream,
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Requests of a byte each, one after the other on each connection.
fn ask(to: (Ipv4Addr, u16), done: &AtomicBool) {
    let mut stream = connect(to);
    stream.set_nodelay(true).unwrap();
    minimise_delay(&stream);
    let mut byte = [0];
    while !done.load(Ordering::Relaxed) {
        stream.write_all(&[1]).unwrap();
        stream.read_exact(&mut byte).unwrap();
        thread::sleep(PAUSE);
    }
}

fn send(to: (Ipv4Addr, u16), done: &AtomicBool) {
    let mut stream = connect(to);
    let data = vec![0; 64 << 10];
    while !done.load(Ordering::Relaxed) {
        stream.write_all(&data).unwrap();
    }
}

/// Under a load of requests, and a bulk transfer if there is one.
fn under_load<T: Send>(lab: &Lab, bulk: bool, work: impl FnOnce() -> T + Send) -> T {
    let (client, server) = (&lab.pod(Role::Client).netns, lab.pod(Role::Server));
    let to = |port| (server.ipv4, port);
    let done = AtomicBool::new(false);
    let done = &done;
    thread::scope(|scope| {
        scope.spawn(|| server.netns.run(|| serve(REQUESTS, connections(), true)).unwrap());
        for _ in 0..connections() {
            scope.spawn(|| client.run(|| ask(to(REQUESTS), done)).unwrap());
        }
        if bulk {
            scope.spawn(|| server.netns.run(|| serve(BULK, 1, false)).unwrap());
            scope.spawn(|| client.run(|| send(to(BULK), done)).unwrap());
        }
        thread::sleep(Duration::from_millis(500));
        // Whatever comes of it, the load ends.
        let said = scope.spawn(work).join();
        done.store(true, Ordering::Relaxed);
        said
    })
    .unwrap()
}

fn plans(netns: &Netns, settings: &[&str]) -> Vec<Plan> {
    let plan_of = |setting: &&str| {
        let request = Request { netns: netns.name().to_owned(), setting: (*setting).to_owned() };
        plan(setting, "a test", &[request], false).unwrap()
    };
    settings.iter().map(plan_of).collect()
}

/// So sure that a test of nothing fails once in two hundred times, with rounds enough that two or three may be disturbed.
fn sure() -> Options {
    Options {
        objective: "p50 of net.rtt".parse().unwrap(),
        guards: vec![Objective::Throughput],
        rounds: 16,
        window: Duration::from_millis(150),
        settle: Duration::from_millis(50),
        confidence: 0.995,
        least_effect: 0.02,
        tolerance: 0.1,
        seed: 42,
    }
}

/// A journal in memory: there are thousands of records, each of which is synced.
fn state(name: &str) -> (PathBuf, StateDir) {
    let path = PathBuf::from(format!("/dev/shm/nettrace-tune-{}-{name}", std::process::id()));
    let dir = StateDir::new(Some(&path));
    (path, dir)
}

fn meter(lab: &Lab, options: &Options) -> CaptureMeter {
    let mut capture = nettrace_tests::options(lab);
    capture.signals = vec!["net.rtt".to_owned()];
    capture.programs.filter = filter::parse(&format!("tcp and port {REQUESTS}")).unwrap();
    let namespaces = capture.namespaces.clone();
    let objectives = std::iter::once(&options.objective).chain(&options.guards).cloned().collect();
    CaptureMeter::new(Capture::start(capture).unwrap(), namespaces, objectives)
}

#[expect(clippy::print_stdout, reason = "figures, for who runs it with --nocapture")]
fn tuned(lab: &Lab, dir: &StateDir, settings: &[&str], options: &Options) -> Vec<Trial> {
    let mut meter = meter(lab, options);
    let plans = plans(&lab.pod(Role::Client).netns, settings);
    let trials = tune(dir, &plans, options, &mut meter, &|| false, |_| {}).unwrap();
    meter.stop().unwrap();
    println!("{}", text(&trials));
    trials
}

fn verdicts(trials: &[Trial]) -> Vec<Verdict> {
    trials.iter().map(|trial| trial.verdict).collect()
}

/// A link that a bulk transfer fills: requests that ask for little delay get their band, and placebos go.
#[test]
fn on_a_saturated_link_the_priority_queue_stays_and_placebos_go() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let client = &lab.pod(Role::Client).netns;
    output(client, "ethtool", "ethtool", &["-K", "eth0", "tso", "off", "gso", "off"]).unwrap();
    for args in [
        &["root", "handle", "1:", "tbf", "rate", "100mbit", "burst", "20kb", "latency", "100ms"][..],
        &["parent", "1:1", "handle", "10:", "pfifo", "limit", "200"],
    ] {
        let args = [&["qdisc", "replace", "dev", "eth0"], args].concat();
        output(client, "tc", "iproute2", &args).unwrap();
    }
    // One that fills the queue, as BBR does not.
    client.set_sysctl("net/ipv4/tcp_congestion_control", "reno").unwrap();
    let (path, dir) = state("saturated");
    let priority = "qdisc:eth0:1:1=pfifo_fast";
    let settings = [&[priority][..], &PLACEBOS].concat();
    // A new queue begins empty, and what was in the old one is lost: the transfer comes back after a timeout of 200 ms. Then as long
    // as it takes for some requests to come through.
    let settle = Duration::from_millis(400);
    // Toward the client, whose acknowledgements come through the queue; toward the server none does.
    let objective = "p50 of net.rtt@node/veth-client".parse().unwrap();
    let options = Options { objective, window: Duration::from_millis(300), settle, rounds: 12, ..sure() };
    let trials = under_load(&lab, true, || tuned(&lab, &dir, &settings, &options));
    let verdicts = verdicts(&trials);
    assert_eq!(verdicts[0], Verdict::Kept, "{trials:?}");
    assert!(verdicts[1..].iter().all(|v| matches!(v, Verdict::Reverted | Verdict::Undecided)), "{trials:?}");
    let effect = &trials[0].effects[0];
    assert!(effect.ratio.unwrap() < 0.5 && effect.high.unwrap() < 1.0, "{effect:?}");
    let queues = output(client, "tc", "iproute2", &["qdisc", "show", "dev", "eth0"]).unwrap();
    assert!(queues.contains("pfifo_fast"), "{queues}");
    let active: Vec<_> = Journal::look(&dir).unwrap().into_iter().filter(Entry::is_active).collect();
    assert!(active.len() == 1 && active[0].begin.id == priority, "{active:?}");
    fs::remove_dir_all(path).unwrap();
}

/// Where nothing is wrong, nothing stays.
#[test]
fn on_a_healthy_lab_nothing_stays() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let (path, dir) = state("healthy");
    let settings = [&["qdisc:eth0=pfifo 1000"][..], &PLACEBOS].concat();
    let trials = under_load(&lab, false, || tuned(&lab, &dir, &settings, &sure()));
    assert!(
        verdicts(&trials).iter().all(|v| matches!(v, Verdict::Reverted | Verdict::Undecided)),
        "{trials:?}"
    );
    assert!(Journal::look(&dir).unwrap().iter().all(|e| !e.is_active()));
    fs::remove_dir_all(path).unwrap();
}

/// A hundred that do nothing, at 95 % each: five may stay. More than 12 would come about in one of 2,000 such tests; so would
/// more than 6 of the 30 for which there is time outside of a machine of its own.
#[test]
fn of_placebos_as_few_stay_as_were_allowed_for() {
    let (trials_made, most) = if in_guest() { (100, 12) } else { (30, 6) };
    let lab = Lab::start(LabConfig::default()).unwrap();
    let (path, _) = state("placebos");
    let options = Options {
        rounds: 6,
        // Long enough for requests by the dozen, also of an emulated processor.
        window: Duration::from_millis(if in_guest() { 50 } else { 20 }),
        settle: Duration::ZERO,
        confidence: 0.95,
        least_effect: 0.0,
        guards: Vec::new(),
        ..sure()
    };
    let trials: Vec<_> = under_load(&lab, false, || {
        let mut meter = meter(&lab, &options);
        let mut tried = |n: usize| {
            let options = Options { seed: 0x1234_5678 * (n as u64 + 1), ..options.clone() };
            // A journal of its own: of all of them it would be long, and is read each time.
            let dir = StateDir::new(Some(&path.join(n.to_string())));
            let plans = plans(&lab.pod(Role::Client).netns, &[PLACEBOS[n % PLACEBOS.len()]]);
            let trials = tune(&dir, &plans, &options, &mut meter, &|| false, |_| {}).unwrap();
            // One that was kept is tried again later.
            for change in trials.iter().filter_map(|t| t.change) {
                Engine::open(&dir).unwrap().0.undo(change, "a test", false).unwrap();
            }
            trials
        };
        let trials = (0..trials_made).flat_map(&mut tried).collect();
        meter.stop().unwrap();
        trials
    });
    let kept = trials.iter().filter(|t| t.verdict == Verdict::Kept).count();
    let told = trials.iter().filter(|t| t.effects.iter().any(|e| e.rounds == options.rounds)).count();
    println!("{kept} of {trials_made} placebos were kept; {told} had traffic in all rounds");
    let failed: Vec<_> = trials.iter().filter(|t| t.verdict == Verdict::Failed).map(|t| &t.because).collect();
    assert!(failed.is_empty(), "{failed:?}");
    assert!(told * 10 >= trials_made * 9, "{told} of {trials_made} trials had traffic in all rounds");
    assert!(kept <= most, "{kept} of {trials_made}");
    fs::remove_dir_all(path).unwrap();
}
