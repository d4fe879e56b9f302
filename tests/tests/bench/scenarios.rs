//! Ready scenarios: each starts, other programs see its arms, both carry traffic, and it leaves nothing. What the settings bring
//! is for `nettrace bench suite` to measure.

use anyhow::{Context as _, Result, ensure};
use nettrace::{
    bench::scenario::{Arm, LoadOptions, Part, Place, Running, Scenario, all, find},
    lab::{self, STATE_DIR, netns},
};
use nettrace_tests::{
    in_guest,
    truth::{counters, output},
};
use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Part of the names of the scenarios that are to be run.
const ONLY: &str = "NETTRACE_SCENARIO";

/// How another program sees the arm of a scenario.
struct Seen {
    /// Scenarios whose names begin so.
    of: &'static str,
    place: Place,
    program: &'static str,
    package: &'static str,
    args: &'static [&'static str],
    /// What is in its output in A alone, and in B alone.
    arms: [&'static str; 2],
}

const fn sysctl(
    of: &'static str,
    place: Place,
    name: &'static [&'static str],
    arms: [&'static str; 2],
) -> Seen {
    Seen { of, place, program: "sysctl", package: "procps", args: name, arms }
}

const fn nft(of: &'static str, args: &'static [&'static str], arms: [&'static str; 2]) -> Seen {
    Seen { of, place: Place::Node, program: "nft", package: "nftables", args, arms }
}

const fn queue(of: &'static str, arms: [&'static str; 2]) -> Seen {
    let args = &["qdisc", "show", "dev", "veth-server"];
    Seen { of, place: Place::Node, program: "tc", package: "iproute2", args, arms }
}

const SEEN: &[Seen] = &[
    Seen {
        of: "services-iptables-",
        place: Place::Node,
        program: "iptables",
        package: "iptables",
        args: &["-t", "nat", "-S", "PREROUTING"],
        arms: ["-j KUBE-SERVICES", "-j KUBE-ONE"],
    },
    Seen {
        of: "services-mode-",
        place: Place::Node,
        program: "iptables",
        package: "iptables",
        args: &["-t", "nat", "-S", "PREROUTING"],
        arms: ["-j KUBE-SERVICES", ""],
    },
    nft("services-mode-", &["list", "chain", "ip", "kube-proxy", "nat-prerouting"], ["", "@service-ips"]),
    nft(
        "services-map-",
        &["list", "chain", "ip", "kube-proxy", "nat-prerouting"],
        ["@service-ips", "@one-ip"],
    ),
    queue("bufferbloat-fq_codel", ["qdisc pfifo 10:", "qdisc fq_codel"]),
    queue("bufferbloat-priority", ["qdisc pfifo 10:", "qdisc pfifo_fast"]),
    sysctl("tcp-fast-open", Place::Server, &["net.ipv4.tcp_fastopen"], ["= 1\n", "= 1027\n"]),
    sysctl("time-wait-reuse", Place::Client, &["net.ipv4.tcp_tw_reuse"], ["= 0\n", "= 1\n"]),
    sysctl("time-wait-reuse-delay", Place::Client, &["net.ipv4.tcp_tw_reuse_delay"], ["= 1000\n", "= 1\n"]),
    sysctl("accept-queue", Place::Server, &["net.core.somaxconn"], ["= 16\n", "= 128\n"]),
    sysctl("socket-buffers", Place::Client, &["net.ipv4.tcp_wmem"], ["212992\n", "4194304\n"]),
    sysctl("socket-buffers", Place::Server, &["net.ipv4.tcp_rmem"], ["212992\n", "6291456\n"]),
    Seen {
        of: "jumbo-frames",
        place: Place::Client,
        program: "ip",
        package: "iproute2",
        args: &["link", "show", "dev", "eth0"],
        arms: ["mtu 1500", "mtu 9000"],
    },
    nft(
        "conntrack-full",
        &["list", "chain", "ip", "nettrace-limit", "forward"],
        ["over 1000 drop", "over 262144 drop"],
    ),
    nft("notrack", &["list", "ruleset"], ["", "notrack"]),
    Seen {
        of: "dns-cache",
        place: Place::Client,
        program: "ss",
        package: "iproute2",
        args: &["-lunH"],
        arms: ["", "10.96.0.10:53"],
    },
];

/// A counter of the kernel that tells that the arm does what it is said to do.
struct Counted {
    of: &'static str,
    place: Place,
    counter: &'static str,
    grows_in: &'static [Arm],
}

const COUNTED: &[Counted] = &[
    Counted {
        of: "tcp-fast-open",
        place: Place::Server,
        counter: "TcpExtTCPFastOpenPassive",
        grows_in: &[Arm::B],
    },
    Counted {
        of: "time-wait-reuse-delay",
        place: Place::Client,
        counter: "TcpExtTWRecycled",
        grows_in: &[Arm::B],
    },
    Counted {
        of: "accept-queue",
        place: Place::Server,
        counter: "TcpExtListenOverflows",
        grows_in: &[Arm::A, Arm::B],
    },
];

/// Long enough for a burst, and for more connections than there are ports.
fn options() -> LoadOptions {
    let (warm_up, measure) = (Duration::from_millis(100), Duration::from_millis(700));
    LoadOptions { warm_up, measure, ..LoadOptions::default() }
}

#[test]
fn every_scenario_starts_carries_traffic_and_leaves_nothing() {
    let (mut run, mut skipped) = (0, Vec::new());
    let only = env::var(ONLY).unwrap_or_default();
    for scenario in all().iter().filter(|scenario| scenario.name.contains(&only)) {
        if let Some(why) = scenario.unavailable() {
            skipped.push(format!("{}: {why}", scenario.name));
            continue;
        }
        let rows = SEEN.iter().filter(|seen| scenario.name.starts_with(seen.of)).count();
        assert!(rows > 0, "{}: nobody looks at its arms", scenario.name);
        through_its_arms(scenario).with_context(|| scenario.name).unwrap();
        run += 1;
    }
    println!("skipped:\n  {}", skipped.join("\n  "));
    assert!(run > 0, "none was run");
    assert!(skipped.iter().all(|why| in_guest() || !why.contains("install")), "a program is missing");
}

#[expect(clippy::print_stdout, reason = "figures, for who runs it with --nocapture")]
fn through_its_arms(scenario: &'static Scenario) -> Result<()> {
    let begin = Instant::now();
    let mut running = scenario.start()?;
    let (id, started) = (running.id().to_owned(), begin.elapsed());
    ensure!(running.arm() == Some(Arm::A), "it does not start in A");
    let mut longest = Duration::ZERO;
    for arm in [Arm::A, Arm::B, Arm::B, Arm::A] {
        let begin = Instant::now();
        running.set(arm)?;
        longest = longest.max(begin.elapsed());
        ensure!(running.arm() == Some(arm), "it is not in {arm:?}");
        seen_by_others(&running, arm)?;
        let before = counted(&running)?;
        for workload in scenario.workloads {
            for part in running.load(workload, &options())? {
                println!("  {arm:?} {}", told(&part));
                checked(scenario, arm, &part).with_context(|| format!("{arm:?} {}", part.load.name))?;
            }
        }
        for (row, (before, after)) in rows(scenario).zip(before.into_iter().zip(counted(&running)?)) {
            let grows = row.grows_in.contains(&arm);
            ensure!((after > before) == grows, "{arm:?} {}: {before} -> {after}", row.counter);
        }
    }
    ensure!(
        !traces(&id).is_empty(),
        "a running scenario has no traces: they are looked for at the wrong places"
    );
    drop(running);
    ensure!(traces(&id).is_empty(), "it leaves {:?}", traces(&id));
    println!("{}: started in {started:?}, longest change of arms {longest:?}", scenario.name);
    Ok(())
}

fn seen_by_others(running: &Running, arm: Arm) -> Result<()> {
    let name = running.scenario().name;
    for seen in SEEN.iter().filter(|seen| name.starts_with(seen.of)) {
        let said = output(running.netns(seen.place)?, seen.program, seen.package, seen.args)?;
        for (of, text) in [Arm::A, Arm::B].into_iter().zip(seen.arms).filter(|(_, text)| !text.is_empty()) {
            ensure!(said.contains(text) == (of == arm), "{arm:?}: {text:?} in\n{said}");
        }
    }
    Ok(())
}

fn rows(scenario: &Scenario) -> impl Iterator<Item = &'static Counted> {
    let name = scenario.name;
    COUNTED.iter().filter(move |row| row.of == name)
}

fn counted(running: &Running) -> Result<Vec<u64>> {
    let read = |row: &Counted| {
        let counters = counters(running.netns(row.place)?)?;
        counters
            .get(row.counter)
            .copied()
            .with_context(|| format!("the kernel does not count {}", row.counter))
    };
    rows(running.scenario()).map(read).collect()
}

/// For who looks whether a setting does what it is said to; nothing is made of it here.
fn told(part: &Part) -> String {
    let client = &part.client;
    let us = |quantile| client.latency.value_at_quantile(quantile) as f64 / 1e3;
    let mbit = part.server.received.as_ref().map_or(0.0, |received| received.per_second() * 8e-6);
    format!(
        "{}: {:.0}/s, {} errors, p50 {:.0} us, p99 {:.0} us, {mbit:.0} Mbit/s",
        part.load.name,
        client.per_second(),
        client.errors.total(),
        us(0.5),
        us(0.99),
    )
}

/// The books of both ends agree, and what is to pass has passed.
fn checked(scenario: &Scenario, arm: Arm, part: &Part) -> Result<()> {
    let (client, server) = (&part.client, &part.server);
    let errors = client.errors.total();
    ensure!(
        client.begun == client.answered + errors,
        "{} begun, {} answered, {errors} failed",
        client.begun,
        client.answered
    );
    let by = client.errors.by_name();
    let of = |name: &str| by.get(name).copied().unwrap_or(0);
    match (scenario.name, arm) {
        // No new flow at all.
        ("conntrack-full", Arm::A) => {
            ensure!(client.answered == 0 && errors > 0, "{} passed", client.answered);
            ensure!(of("timed_out") == errors, "{by:?}");
            return Ok(());
        }
        ("time-wait-reuse-delay" | "time-wait-reuse", Arm::A) => {
            ensure!(client.all <= 1000, "{} connections from 1,000 ports", client.all);
            ensure!(of("exhausted") > 0, "no port was missing");
        }
        ("time-wait-reuse-delay", Arm::B) => {
            ensure!(client.all > 1000 && of("exhausted") == 0, "{} connections, {by:?}", client.all);
        }
        // Ports can be used again after a second, which is longer than this takes; a burst meets whatever queue there is.
        ("time-wait-reuse", Arm::B) | ("accept-queue", _) => {}
        // A machine that does other work has one of many wait for too long.
        _ => ensure!(errors == of("timed_out") && errors * 100 <= client.begun, "{by:?} of {}", client.begun),
    }
    if part.load.kind.is_one_way() {
        ensure!(server.received_bytes > 0, "nothing arrived");
    } else {
        ensure!(client.answered > 0, "nothing was answered, {by:?}");
        // Queries that a cache answers do not come to the server.
        let cached = scenario.name == "dns-cache" && arm == Arm::B;
        ensure!(
            (server.requests < client.answered) == cached,
            "the server answered {}, and the client has {} answers",
            server.requests,
            client.answered
        );
    }
    Ok(())
}

/// What can be seen of a scenario from the host: names, mounts, files, processes.
fn traces(id: &str) -> Vec<String> {
    let list = |dir: &str| {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|entry| entry.path().display().to_string()).collect::<Vec<_>>()
    };
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut all: Vec<_> = mounts.lines().filter(|line| line.contains(id)).map(str::to_owned).collect();
    all.extend([netns::RUN_DIR, STATE_DIR].into_iter().flat_map(list).filter(|path| path.contains(id)));
    // The only program that a scenario keeps running; no other test does.
    let name_server =
        |process: &String| fs::read_to_string(format!("{process}/comm")).is_ok_and(|c| c.trim() == "dnsmasq");
    let is_ours = |process: &String| {
        fs::read_to_string(format!("{process}/cmdline"))
            .is_ok_and(|line| line.contains("--listen-address=10.96.0.10"))
    };
    all.extend(list("/proc").into_iter().filter(name_server).filter(is_ours));
    all
}

/// One that is killed takes its programs with it, and the next start removes the rest.
#[test]
fn a_killed_one_leaves_what_the_next_start_removes() {
    let scenario = find("dns-cache").unwrap();
    if let Some(why) = scenario.unavailable() {
        println!("skipped: {why}");
        return;
    }
    let mut holder = Command::new(env!("CARGO_BIN_EXE_lab-holder"))
        .arg(scenario.name)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut id = String::new();
    BufReader::new(holder.stdout.take().unwrap()).read_line(&mut id).unwrap();
    let id = id.trim();
    assert!(!id.is_empty(), "the scenario did not start");
    let programs = || traces(id).into_iter().filter(|trace| trace.starts_with("/proc/")).count();
    assert_eq!(programs(), 1);
    holder.kill().unwrap();
    holder.wait().unwrap();
    let begin = Instant::now();
    while programs() > 0 && begin.elapsed() < Duration::from_secs(10) {
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(programs(), 0);
    // As a scenario has it whose setting is a change.
    let directory = Path::new(STATE_DIR).join(format!("lab-{id}.d"));
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("journal"), "").unwrap();
    lab::remove_leftovers().unwrap();
    assert_eq!(traces(id), Vec::<String>::new());
}

/// A scenario's trouble is there for other changes, too.
#[test]
fn other_changes_can_be_tried() {
    let scenario = find("accept-queue").unwrap();
    let other = "sysctl:net.ipv4.tcp_syncookies=0".to_owned();
    let mut running = scenario.start_with(vec![(Place::Server, other)]).unwrap();
    let of = |running: &Running| {
        let server = running.netns(Place::Server).unwrap();
        (server.sysctl("net/core/somaxconn").unwrap(), server.sysctl("net/ipv4/tcp_syncookies").unwrap())
    };
    for (arm, syncookies) in [(Arm::A, "1"), (Arm::B, "0"), (Arm::B, "0"), (Arm::A, "1")] {
        running.set(arm).unwrap();
        assert_eq!(of(&running), ("16".to_owned(), syncookies.to_owned()), "{arm:?}");
    }
    let mut running = scenario.start_with(vec![(Place::Node, "mtu:eth9=1400".to_owned())]).unwrap();
    let refused = running.set(Arm::B).unwrap_err().to_string();
    assert!(refused.contains("eth9"), "{refused}");
    assert_eq!(running.arm(), None);
}

/// What fails half way says so, and can be set again.
#[test]
fn a_change_of_arms_that_fails_can_be_made_good() {
    let mut running = find("accept-queue").unwrap().start().unwrap();
    running.set(Arm::B).unwrap();
    let server = Place::Server;
    running.netns(server).unwrap().set_sysctl("net/core/somaxconn", "77").unwrap();
    let refused = running.set(Arm::A).unwrap_err().to_string();
    assert!(refused.contains("somaxconn") && refused.contains("77"), "{refused}");
    assert_eq!(running.arm(), None);
    running.netns(server).unwrap().set_sysctl("net/core/somaxconn", "128").unwrap();
    running.set(Arm::A).unwrap();
    assert_eq!(running.netns(server).unwrap().sysctl("net/core/somaxconn").unwrap(), "16");
    assert_eq!(running.arm(), Some(Arm::A));
}
