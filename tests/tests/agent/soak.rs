//! The agent for long, scaled in time: interfaces, connections and DNS names come and go all the while, and what it holds does
//! not grow. `NETTRACE_SOAK_SECONDS` says how long; a release is to have seen an hour of it.

use super::run::{Agent, config};
use nettrace::lab::{
    Family, Lab, LabConfig, Role,
    dns::{Client, DnsServer, Query, TYPE_A},
    traffic::tcp,
};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread::{scope, sleep},
    time::{Duration, Instant},
};

/// Names asked for in one go.
const NAMES: u64 = 200;
/// What the resident set may grow by after the warm-up, bytes: frames of windows are kept for hours, some 20 KiB each, and
/// allocators keep some of what is freed.
const GROWTH: u64 = 16 << 20;

/// What the agent holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    rss_bytes: u64,
    descriptors: usize,
    maps: usize,
}

impl Held {
    fn of(pid: u32) -> Self {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let statm = fs::read_to_string(proc.join("statm")).unwrap();
        let pages: u64 = statm.split_whitespace().nth(1).unwrap().parse().unwrap();
        let links: Vec<_> = fs::read_dir(proc.join("fd")).unwrap().flatten().collect();
        let is_map =
            |path: &Path| fs::read_link(path).is_ok_and(|to| to.to_string_lossy().contains("bpf-map"));
        Self {
            rss_bytes: pages * rustix::param::page_size() as u64,
            descriptors: links.len(),
            maps: links.iter().filter(|link| is_map(&link.path())).count(),
        }
    }
}

/// What came and went.
#[derive(Debug, Default)]
struct Churned {
    names: AtomicU64,
    connections: AtomicU64,
    interfaces: AtomicU64,
}

#[test]
fn it_holds_no_more_after_long_than_after_a_while() {
    let seconds = env::var("NETTRACE_SOAK_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(40);
    let (lab, dir) = (Lab::start(LabConfig::default()).unwrap(), tempfile::tempdir().unwrap());
    let _server = DnsServer::start(lab.pod(Role::Dns)).unwrap();
    let mut agent = Agent::start(dir.path(), &config(&lab, dir.path(), "ring_size = '8MiB'"));
    agent.wait_for("READY=1");
    let (stop, churned) = (AtomicBool::new(false), Churned::default());
    let going = || !stop.load(Ordering::Relaxed);
    let held = scope(|scope| {
        scope.spawn(|| ask_names(&lab, &churned, &going));
        scope.spawn(|| connect(&lab, &churned, &going));
        scope.spawn(|| come_and_go(&lab, &churned, &going));
        let held = watch(&agent, Duration::from_secs(seconds));
        stop.store(true, Ordering::Relaxed);
        held
    });
    let [names, connections, interfaces] =
        [&churned.names, &churned.connections, &churned.interfaces].map(|n| n.load(Ordering::Relaxed));
    println!("{seconds} s: {names} names, {connections} connections, {interfaces} interfaces came and went");
    println!("after the warm-up {:?}, at the end {:?}", held.first(), held.last());
    assert!(names > 20_000 && connections > 1000 && interfaces > 30, "{churned:?}");
    let (warm, rest) = held.split_at(held.len() / 2);
    let most = |part: &[Held], of: fn(&Held) -> u64| part.iter().map(of).max().unwrap();
    let rss = |part: &[Held]| most(part, |h| h.rss_bytes);
    assert!(rss(rest) <= rss(warm) + GROWTH, "{} and then {} bytes", rss(warm), rss(rest));
    let descriptors = |part: &[Held]| most(part, |h| h.descriptors as u64);
    // Hooks that are attached for a share of the time, and interfaces that are there just now, have some.
    assert!(
        descriptors(rest) <= descriptors(warm) + 16,
        "{} and then {}",
        descriptors(warm),
        descriptors(rest)
    );
    assert!(held.iter().all(|h| h.maps == held[0].maps), "{held:?}");
    agent.end();
}

/// What it holds in the last three quarters of a time.
fn watch(agent: &Agent, time: Duration) -> Vec<Held> {
    let started = Instant::now();
    sleep(time / 4);
    let mut held = Vec::new();
    while started.elapsed() < time {
        held.push(Held::of(agent.pid()));
        sleep(time / 100);
    }
    held
}

/// Each name once.
fn ask_names(lab: &Lab, churned: &Churned, going: &(dyn Fn() -> bool + Sync)) {
    let address = DnsServer::address(lab.pod(Role::Dns), Family::V4).unwrap();
    let ask = || {
        let client = Client::new(address);
        while going() {
            let first = churned.names.load(Ordering::Relaxed);
            let queries: Vec<_> =
                (first..first + NAMES).map(|n| Query::new(&format!("name-{n}.soak.test"), TYPE_A)).collect();
            client.pipeline(&queries).unwrap();
            churned.names.fetch_add(NAMES, Ordering::Relaxed);
        }
    };
    lab.pod(Role::Client).netns.run(ask).unwrap();
}

fn connect(lab: &Lab, churned: &Churned, going: &(dyn Fn() -> bool + Sync)) {
    let path = lab.path(Role::Client, Role::Server, Family::V4).unwrap();
    while going() {
        tcp::http_gets(&path, 50).unwrap();
        churned.connections.fetch_add(50, Ordering::Relaxed);
    }
}

fn come_and_go(lab: &Lab, churned: &Churned, going: &(dyn Fn() -> bool + Sync)) {
    let node = lab.node().netns.name();
    let ip = |command: &str| {
        let output = Command::new("ip").args(["-n", node]).args(command.split(' ')).output().unwrap();
        assert!(output.status.success(), "ip {command}: {}", String::from_utf8_lossy(&output.stderr));
    };
    while going() {
        let name = format!("soak{}", churned.interfaces.load(Ordering::Relaxed));
        ip(&format!("link add {name} type veth peer name soak-peer"));
        ip(&format!("link set {name} up"));
        sleep(Duration::from_millis(100));
        ip(&format!("link del {name}"));
        churned.interfaces.fetch_add(1, Ordering::Relaxed);
    }
}
