//! The lab itself: it comes up, its counts are exact, and it leaves nothing behind. Needs root.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use nettrace::lab::dns::{self, Client, DnsServer, NOERROR, Query, TYPE_A};
use nettrace::lab::traffic::{packets_of_datagram, tcp, udp};
use nettrace::lab::{
    self, Family, Lab, LabConfig, LabError, NarrowLeg, Netns, Role, STATE_DIR, Topology, netns,
};
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

fn start(topology: Topology) -> Lab {
    Lab::start(LabConfig { topology, ..LabConfig::default() }).unwrap()
}

/// Everything of one lab that can be seen from the host: names, mounts, state file. Other labs may come and go.
fn traces(id: &str) -> BTreeSet<String> {
    let list = |dir: &str| {
        let entries = fs::read_dir(dir).into_iter().flatten();
        entries.map(|entry| entry.unwrap().path().to_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    // The fifth field is the mount point.
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mounts =
        mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(|point| format!("mount {point}"));
    let all = mounts.chain(list(netns::RUN_DIR)).chain(list(STATE_DIR));
    all.filter(|trace| trace.contains(id)).collect()
}

/// Four namespaces, each a file and a mount, and a state file.
const TRACES: usize = 9;

fn host_links() -> String {
    fs::read_to_string("/proc/net/dev").unwrap()
}

/// A lab in another process.
struct Holder {
    child: Child,
    id: String,
}

impl Holder {
    fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_lab-holder"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut id = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut id).unwrap();
        assert!(!id.is_empty(), "the holder did not start its lab");
        Self { child, id: id.trim().to_owned() }
    }

    /// As by `kill -9`.
    fn kill(mut self) -> String {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.id
    }

    /// Ends it in the ordinary way.
    fn end(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }
}

#[test]
fn pods_reach_each_other() {
    for topology in Topology::ALL {
        let lab = start(topology);
        for &family in lab.families() {
            for from in Role::ALL {
                for to in Role::ALL.into_iter().filter(|&to| to != from) {
                    let path = lab.path(from, to, family).unwrap();
                    let done = tcp::http_gets(&path, 1).unwrap();
                    assert_eq!((done.connections, done.requests), (1, 1), "{topology:?} {path:?}");
                }
            }
        }
        lab.stop().unwrap();
    }
}

#[test]
fn a_lab_says_what_it_is_made_of() {
    for topology in Topology::ALL {
        let lab = start(topology);
        for pod in lab.pods() {
            assert_eq!(pod.netns.name(), format!("nettrace-{}-{}", lab.id(), pod.role.name()));
            assert_eq!(pod.veth.name, format!("veth-{}", pod.role.name()));
            assert_eq!((pod.eth0.mtu, pod.veth.mtu), (1500, 1500));
            let index = |netns: &Netns, name: &str| netns.run(|| index_of(name)).unwrap();
            assert_eq!(index(&pod.netns, "eth0"), pod.eth0.index);
            assert_eq!(index(&lab.node().netns, &pod.veth.name), pod.veth.index);
            let link = pod.netns.run(|| fs::read_link("/proc/thread-self/ns/net").unwrap()).unwrap();
            assert_eq!(link.to_str().unwrap(), format!("net:[{}]", pod.netns.inode()));
        }
        assert_eq!(lab.node().bridge.is_some(), topology == Topology::Bridge);
        assert_eq!(lab.node().netns.sysctl("net/ipv4/ip_forward").unwrap(), "1");
    }
}

/// Index of an interface in the calling thread's namespace: sysfs shows the namespace that it was mounted in, so the
/// table of multicast groups it is, which lists every interface that is up.
fn index_of(name: &str) -> u32 {
    let table = fs::read_to_string("/proc/thread-self/net/igmp").unwrap();
    let is_row =
        |line: &&str| line.split_whitespace().nth(1).map(|word| word.trim_end_matches(':')) == Some(name);
    let line = table.lines().find(is_row).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn ip_netns_exec_works_on_a_pod() {
    let lab = start(Topology::Bridge);
    let pod = lab.pod(Role::Client);
    let Ok(output) =
        Command::new("ip").args(["netns", "exec", pod.netns.name(), "ip", "-o", "addr"]).output()
    else {
        eprintln!("skipped: there is no `ip` on this machine");
        return;
    };
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(&format!("inet {}/24", pod.ipv4)), "{text}");
}

#[test]
fn tcp_counts_are_exact() {
    for topology in Topology::ALL {
        let lab = start(topology);
        for &family in lab.families() {
            let path = lab.path(Role::Client, Role::Server, family).unwrap();
            let what = tcp::RequestResponse { connections: 3, requests: 20, ..Default::default() };
            let done = tcp::request_response(&path, &what).unwrap();
            assert_eq!((done.connections, done.requests), (3, 60));
            assert_eq!((done.request_bytes, done.response_bytes), (6_000, 60_000));
            assert_eq!(tcp::bulk(&path, 3_000_001, 0).unwrap().request_bytes, 3_000_001);
            let refused = tcp::refused(&path, 5).unwrap();
            assert_eq!((refused.attempts, refused.refused), (5, 5));
        }
    }
}

#[test]
fn connects_time_out_and_queues_overflow() {
    let lab = start(Topology::Bridge);
    for &family in lab.families() {
        let path = lab.path(Role::Client, Role::Server, family).unwrap();
        let full = tcp::listen_overflow(&path, 1, 4, Duration::from_millis(300)).unwrap();
        assert_eq!((full.attempts, full.established, full.given_up), (4, 2, 2), "{family:?}");
        let lost = tcp::timed_out(&path, 3).unwrap();
        assert_eq!((lost.attempts, lost.timed_out), (3, 3), "{family:?}");
    }
}

#[test]
fn udp_counts_are_exact_and_delays_are_felt() {
    let delay = Duration::from_millis(3);
    let delay_ns = u64::try_from(delay.as_nanos()).unwrap();
    for topology in Topology::ALL {
        let lab = start(topology);
        for &family in lab.families() {
            let path = lab.path(Role::Client, Role::Server, family).unwrap();
            let done = udp::request_response(&path, &udp::RequestResponse::default()).unwrap();
            assert_eq!((done.sent, done.served, done.answered), (100, 100, 100));
            // Whole, in fragments, and the largest that IPv4 can have.
            for bytes in [100, 4000, udp::MAX_DATAGRAM] {
                let what = udp::Datagrams { bytes, rate: Some(100), read_delay: delay, ..Default::default() };
                let delivery = udp::datagrams(&path, &what).unwrap();
                assert_eq!((delivery.sent, delivery.received), (10, 10), "{topology:?} {family:?} {bytes}");
                for arrival in &delivery.arrivals {
                    assert_eq!(arrival.bytes, bytes);
                    assert!(arrival.total_ns().is_none_or(|total| total >= delay_ns), "{arrival:?}");
                }
                assert!(delivery.arrivals[9].kernel_rx_ns.is_some(), "timestamps are on after 90 ms");
            }
            let flood = udp::datagrams(&path, &udp::Datagrams::flood(2000, 20_000)).unwrap();
            assert_eq!((flood.sent, flood.received), (2000, 2000));
        }
    }
}

#[test]
fn datagrams_are_fragmented_as_computed() {
    let lab = start(Topology::Routed);
    for &family in lab.families() {
        let path = lab.path(Role::Client, Role::Server, family).unwrap();
        for bytes in [1452u16, 1453, 1472, 1473, 2952, 4000] {
            let counter = || fragments_created(&lab.pod(Role::Client).netns, family);
            let before = counter();
            let what = udp::Datagrams { count: 4, bytes: bytes.into(), ..Default::default() };
            udp::datagrams(&path, &what).unwrap();
            let packets = packets_of_datagram(family, 1500, bytes.into());
            let fragments = if packets > 1 { u64::from(packets) * 4 } else { 0 };
            assert_eq!(counter() - before, fragments, "{family:?} {bytes}");
        }
    }
}

/// IpFragCreates or Ip6FragCreates of a namespace.
fn fragments_created(netns: &Netns, family: Family) -> u64 {
    netns
        .run(|| match family {
            Family::V4 => {
                let text = fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
                let mut rows = text.lines().filter(|line| line.starts_with("Ip:"));
                let (names, values) = (rows.next().unwrap(), rows.next().unwrap());
                let at = names.split(' ').position(|name| name == "FragCreates").unwrap();
                values.split(' ').nth(at).unwrap().parse().unwrap()
            }
            Family::V6 => {
                let text = fs::read_to_string("/proc/thread-self/net/snmp6").unwrap();
                let line = text.lines().find(|line| line.starts_with("Ip6FragCreates")).unwrap();
                line.split_whitespace().nth(1).unwrap().parse().unwrap()
            }
        })
        .unwrap()
}

#[test]
fn a_narrow_leg_is_found_out_by_the_sender() {
    let narrow_leg = Some(NarrowLeg { pod: Role::Server, mtu: 1300, pod_knows: true });
    let lab = Lab::start(LabConfig { topology: Topology::Routed, narrow_leg, ..LabConfig::default() });
    let lab = lab.unwrap();
    assert_eq!((lab.pod(Role::Server).eth0.mtu, lab.pod(Role::Client).eth0.mtu), (1300, 1500));
    for &family in lab.families() {
        let path = lab.path(Role::Client, Role::Server, family).unwrap();
        let what = udp::Datagrams { bytes: 1400, dont_fragment: true, rate: Some(100), ..Default::default() };
        let delivery = udp::datagrams(&path, &what).unwrap();
        // The first is lost to "packet too big", and the kernel refuses the others once it has heard of that.
        assert_eq!(delivery.received, 0);
        assert!(delivery.sent >= 1 && delivery.refused >= 1, "{delivery:?}");
        // TCP finds its way in spite of it.
        assert_eq!(tcp::bulk(&path, 500_000, 0).unwrap().request_bytes, 500_000);
    }
}

#[test]
fn the_dns_mix_is_what_was_planned() {
    for topology in Topology::ALL {
        let lab = start(topology);
        let server = DnsServer::start(lab.pod(Role::Dns)).unwrap();
        let mix = dns::mix(&lab, 2).unwrap();
        assert_eq!(mix.observed, mix.expected, "{topology:?}");
        assert_eq!(mix.expected.transactions, 12 * 2 * lab.families().len() as u64);
        let log = server.log();
        assert_eq!(log.answers, mix.expected.answered);
        // Both copies of each `drop`, the first of each `retry`.
        assert_eq!(log.ignored, 3 * 2 * lab.families().len() as u64);
        for outcome in mix.outcomes.iter().filter(|outcome| outcome.rcode.is_some()) {
            let mut answers = log.answered.iter();
            let answer = answers.find(|a| a.id == outcome.id && a.client.port() == outcome.client.port());
            let answer = answer.unwrap_or_else(|| panic!("the server has no record of {outcome:?}"));
            assert_eq!(Some(answer.rcode), outcome.rcode);
        }
    }
}

#[test]
fn dns_answers_are_delayed_side_by_side() {
    let lab = start(Topology::Bridge);
    let server = DnsServer::start(lab.pod(Role::Dns)).unwrap();
    let client = Client::new(DnsServer::address(lab.pod(Role::Dns), Family::V4).unwrap());
    let started = std::time::Instant::now();
    let ask = |n: u16| {
        let query = Query { id: Some(n), ..Query::new("delay200ms.example.test", TYPE_A) };
        client.ask(&query).unwrap()
    };
    let outcomes: Vec<_> = lab
        .pod(Role::Client)
        .netns
        .run(|| {
            std::thread::scope(|scope| {
                let threads: Vec<_> = (0..20).map(|n| scope.spawn(move || ask(n))).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            })
        })
        .unwrap();
    // One after the other they would take 4 s.
    assert!(started.elapsed() < Duration::from_secs(3));
    let log = server.log();
    assert_eq!(log.answered.len(), 20);
    for outcome in outcomes {
        assert_eq!((outcome.rcode, outcome.answers), (Some(NOERROR), 1));
        let answer = log.answered.iter().find(|answer| answer.id == outcome.id).unwrap();
        assert!(answer.service_ns >= 200_000_000, "{answer:?}");
        assert!(outcome.latency_ns.unwrap() >= 200_000_000, "{outcome:?}");
    }
}

#[test]
fn the_demonstration_adds_up() {
    let lab = start(Topology::Bridge);
    let totals = lab.demo_traffic(Duration::from_secs(4)).unwrap();
    assert_eq!(totals.dns_observed, totals.dns);
    assert_eq!(totals.udp_responses, totals.udp_requests);
    assert_eq!(totals.reassembled_datagrams, totals.fragmented_datagrams);
    assert_eq!(totals.tcp_timed_out, 2);
    assert!(totals.tcp_refused > 0 && totals.tcp_requests > 0 && totals.fragments > 0, "{totals:?}");
}

#[test]
fn nothing_is_left_behind() {
    for topology in Topology::ALL {
        for stop in [|lab: Lab| lab.stop().unwrap(), drop::<Lab>] {
            let lab = start(topology);
            let id = lab.id().to_owned();
            assert_eq!(traces(&id).len(), TRACES, "{:?}", traces(&id));
            assert!(!host_links().contains("veth-client"), "the host's own namespace is left alone");
            stop(lab);
            assert_eq!(traces(&id), BTreeSet::new());
        }
    }
}

#[test]
fn a_lab_that_cannot_be_leaves_nothing_behind() {
    let result = Lab::start(LabConfig { mtu: 100, ..LabConfig::default() });
    assert!(matches!(result, Err(LabError::Mtu { mtu: 100, .. })), "{result:?}");
    let long = "x".repeat(300);
    assert!(matches!(Netns::create(&long), Err(LabError::File { action: "create", .. })));
    for name in ["", "..", "a/b"] {
        assert!(matches!(Netns::create(name), Err(LabError::Namespace { action: "create", .. })));
    }
}

#[test]
fn leftovers_of_a_killed_lab_go_and_living_labs_stay() {
    let living = Holder::start();
    let killed = Holder::start().kill();
    assert_eq!(traces(&killed).len(), TRACES);
    let lab = start(Topology::Bridge);
    assert_eq!(traces(&killed), BTreeSet::new(), "a start removes leftovers");
    assert_eq!(traces(&living.id).len(), TRACES);
    lab.stop().unwrap();
    let killed = Holder::start().kill();
    assert!(lab::remove_leftovers().unwrap().contains(&killed));
    assert_eq!(traces(&killed), BTreeSet::new());
    assert_eq!(traces(&living.id).len(), TRACES);
    let id = living.id.clone();
    living.end();
    assert_eq!(traces(&id), BTreeSet::new());
}

#[test]
fn two_labs_do_not_disturb_each_other() {
    let labs = [start(Topology::Bridge), start(Topology::Routed)];
    std::thread::scope(|scope| {
        for lab in &labs {
            scope.spawn(|| {
                let _server = DnsServer::start(lab.pod(Role::Dns)).unwrap();
                let path = lab.path(Role::Client, Role::Server, Family::V4).unwrap();
                let what = tcp::RequestResponse { port: 8080, ..Default::default() };
                assert_eq!(tcp::request_response(&path, &what).unwrap().requests, 100);
                let mix = dns::mix(lab, 1).unwrap();
                assert_eq!(mix.observed, mix.expected);
            });
        }
    });
}
