//! Settings of TCP, and the MTU.

use super::super::{Layout, Need, Place, Program, Scenario, Setting, Step, Workload};
use nettrace_bench::load::args::{KindName, LoadArgs};
use std::time::Duration;

/// From one end to the other, of those that are far from each other: 10 ms there and back.
const FAR: Layout = Layout::Line { delay: Duration::from_millis(5), mtu: 1500 };

const STREAM: &[Workload] = &[Workload::plain("tcp_stream", || LoadArgs::of(KindName::TcpStream))];

pub(super) const FAST_OPEN: Scenario = Scenario {
    name: "tcp-fast-open",
    advice: "enable TCP Fast Open (net.ipv4.tcp_fastopen)",
    arms: [
        "servers do not take part; client and server 5 ms apart",
        "listeners take part: a request may come with its SYN",
    ],
    layout: FAR,
    // That clients ask for it is the kernel's default.
    setup: &[Step::Sysctl(Place::Client, "net/ipv4/tcp_fastopen", "1")],
    // Server, without a cookie's being needed from listeners that do not ask for it themselves: 0x403.
    settings: &[Setting::Change(&[(Place::Server, "sysctl:net.ipv4.tcp_fastopen=1027")])],
    workloads: &[Workload::plain("tcp_crr", || LoadArgs {
        fast_open: true,
        ..LoadArgs::of(KindName::TcpCrr)
    })],
    answers: &["tcp_crr.p50", "tcp_crr.throughput"],
    needs: &[],
    made: Some("the delay is that of a delay line in user space"),
};

const SHORT: &[Workload] = &[Workload {
    name: "tcp_crr",
    args: || LoadArgs { client_closes: true, ..LoadArgs::of(KindName::TcpCrr) },
    // Another one each time: ports that wait since the round before are not in this one's way.
    port: 0,
    service: None,
    least: Duration::from_secs(5),
    // It would use the ports up.
    warms_up: false,
}];
const FEW_PORTS: Step = Step::Sysctl(Place::Client, "net/ipv4/ip_local_port_range", "20000 20999");

pub(super) const TIME_WAIT: Scenario = Scenario {
    name: "time-wait-reuse",
    advice: "reuse ports in TIME_WAIT (net.ipv4.tcp_tw_reuse=1)",
    arms: ["1,000 ports, each in TIME_WAIT for 60 s", "a port can be used again after 1 s"],
    layout: Layout::Node,
    setup: &[FEW_PORTS, Step::Sysctl(Place::Client, "net/ipv4/tcp_tw_reuse", "0")],
    settings: &[Setting::Change(&[(Place::Client, "sysctl:net.ipv4.tcp_tw_reuse=1")])],
    workloads: SHORT,
    answers: &["tcp_crr.errors", "tcp_crr.throughput"],
    needs: &[],
    made: None,
};

pub(super) const TIME_WAIT_DELAY: Scenario = Scenario {
    name: "time-wait-reuse-delay",
    advice: "reuse ports in TIME_WAIT sooner (net.ipv4.tcp_tw_reuse_delay)",
    arms: ["1,000 ports, each in TIME_WAIT for 60 s", "a port can be used again after 1 ms"],
    layout: Layout::Node,
    setup: &[FEW_PORTS, Step::Sysctl(Place::Client, "net/ipv4/tcp_tw_reuse", "0")],
    settings: &[Setting::Change(&[
        (Place::Client, "sysctl:net.ipv4.tcp_tw_reuse=1"),
        (Place::Client, "sysctl:net.ipv4.tcp_tw_reuse_delay=1"),
    ])],
    workloads: SHORT,
    answers: &["tcp_crr.errors", "tcp_crr.throughput"],
    needs: &[Need::Sysctl("net/ipv4/tcp_tw_reuse_delay", "6.14")],
    made: None,
};

pub(super) const ACCEPT_QUEUE: Scenario = Scenario {
    name: "accept-queue",
    advice: "raise net.core.somaxconn",
    arms: ["bursts of 500 connections meet a queue of 16", "a queue of 128"],
    layout: Layout::Node,
    setup: &[Step::Sysctl(Place::Server, "net/core/somaxconn", "16")],
    settings: &[Setting::Change(&[(Place::Server, "sysctl:net.core.somaxconn=128")])],
    workloads: &[Workload {
        name: "burst",
        args: || LoadArgs {
            burst: Some(500),
            // One that accepts as fast as it can, and is not always there.
            server_threads: Some(1),
            ..LoadArgs::of(KindName::ConnectBurst)
        },
        port: 0,
        service: None,
        least: Duration::from_secs(1),
        warms_up: false,
    }],
    answers: &["burst.p99", "burst.p50", "burst.errors"],
    needs: &[],
    made: None,
};

pub(super) const BUFFERS: Scenario = Scenario {
    name: "socket-buffers",
    advice: "raise the maximum of TCP's buffers (net.ipv4.tcp_rmem, tcp_wmem), so that they grow with the path",
    arms: ["buffers of 208 KiB at most, over 10 ms", "of 6 and 4 MiB at most, as is the kernel's default"],
    layout: FAR,
    setup: &[
        Step::Sysctl(Place::Client, "net/ipv4/tcp_wmem", "4096 16384 212992"),
        Step::Sysctl(Place::Client, "net/ipv4/tcp_rmem", "4096 131072 212992"),
        Step::Sysctl(Place::Server, "net/ipv4/tcp_wmem", "4096 16384 212992"),
        Step::Sysctl(Place::Server, "net/ipv4/tcp_rmem", "4096 131072 212992"),
    ],
    settings: &[Setting::Change(&[
        (Place::Client, "sysctl:net.ipv4.tcp_wmem=4096 16384 4194304"),
        (Place::Client, "sysctl:net.ipv4.tcp_rmem=4096 131072 6291456"),
        (Place::Server, "sysctl:net.ipv4.tcp_wmem=4096 16384 4194304"),
        (Place::Server, "sysctl:net.ipv4.tcp_rmem=4096 131072 6291456"),
    ])],
    workloads: STREAM,
    answers: &["tcp_stream.throughput"],
    needs: &[],
    made: Some("the delay is that of a delay line in user space"),
};

pub(super) const JUMBO: Scenario = Scenario {
    name: "jumbo-frames",
    advice: "raise the MTU to 9000, where the network carries it",
    arms: ["packets of 1,500 bytes", "of 9,000"],
    layout: Layout::Line { delay: Duration::ZERO, mtu: 9000 },
    setup: &[
        Step::Run(Place::Client, Program::Ip, &["link", "set", "dev", "eth0", "mtu", "1500"]),
        // The change asks a neighbour whether longer packets arrive.
        Step::Meet,
    ],
    settings: &[Setting::Change(&[(Place::Client, "mtu:eth0=9000")])],
    workloads: STREAM,
    answers: &["tcp_stream.throughput"],
    needs: &[Need::Program(Program::Ip)],
    made: Some(
        "the interfaces have no segmentation offload, so that each packet costs what it costs: with it, a network card cuts \
         segments for next to nothing, and much less is gained",
    ),
};
