//! The tools of others: their servers for the time of the comparison, a run of each, and what they print.

use super::{Case, table::Sample};
use anyhow::{Context as _, Result, bail, ensure};
use nettrace::lab::{Netns, Pair};
use nettrace_bench::{
    cpu::{self, Ends},
    load::args::KindName,
};
use std::{
    fs,
    net::Ipv4Addr,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// How long a server may take to listen.
const START: Duration = Duration::from_secs(5);
/// Ports of their servers.
const NETPERF: u16 = 12_865;
const SOCKPERF_UDP: u16 = 11_111;
const SOCKPERF_TCP: u16 = 11_112;
const IPERF3: u16 = 5201;

/// A generator of somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tool {
    /// netperf, of Debian from trixie on; before that it was not free software.
    Netperf,
    /// sockperf.
    Sockperf,
    /// iperf3.
    Iperf3,
}

impl Tool {
    pub(crate) const ALL: [Self; 3] = [Self::Netperf, Self::Sockperf, Self::Iperf3];

    /// Its client.
    pub(crate) const fn program(self) -> &'static str {
        match self {
            Self::Netperf => "netperf",
            Self::Sockperf => "sockperf",
            Self::Iperf3 => "iperf3",
        }
    }

    /// Programs of its servers, each with arguments and the port at which it is then.
    fn servers(self, address: Ipv4Addr) -> Vec<(&'static str, Vec<String>, u16)> {
        let owned = |args: &[&str]| args.iter().map(|arg| (*arg).to_owned()).collect();
        let address = address.to_string();
        match self {
            Self::Netperf => {
                vec![("netserver", owned(&["-D", "-4", "-L", &address, "-p", &NETPERF.to_string()]), NETPERF)]
            }
            Self::Sockperf => [(SOCKPERF_UDP, None), (SOCKPERF_TCP, Some("--tcp"))]
                .map(|(port, tcp)| {
                    let mut args: Vec<String> = owned(&["server", "-i", &address, "-p", &port.to_string()]);
                    args.extend(tcp.map(str::to_owned));
                    ("sockperf", args, port)
                })
                .into(),
            Self::Iperf3 => {
                vec![("iperf3", owned(&["-s", "-B", &address, "-p", &IPERF3.to_string()]), IPERF3)]
            }
        }
    }

    /// Arguments of a run.
    fn client(self, case: &Case, server: Ipv4Addr, seconds: u32) -> Result<String> {
        let Case { kind, bytes, .. } = case;
        Ok(match (self, kind) {
            (Self::Netperf, KindName::TcpRr | KindName::TcpCrr | KindName::UdpRr) => {
                let test = kind.name().to_uppercase();
                // A connected socket at the client, as ours has: the way is looked up once.
                let connected = if *kind == KindName::UdpRr { " -n" } else { "" };
                // Its server's socket is at this address alone, as ours is: each answer then has its source looked up.
                // With a quantile asked for, it times each transaction, as ours does.
                let what = format!("-r {bytes},{bytes} -H {server} -k THROUGHPUT,P50_LATENCY{connected}");
                format!("-4 -H {server} -p {NETPERF} -t {test} -l {seconds} -P 0 -- {what}")
            }
            (Self::Sockperf, KindName::TcpRr) => {
                format!("ping-pong -i {server} -p {SOCKPERF_TCP} --tcp -t {seconds} -m {bytes} --full-rtt")
            }
            (Self::Sockperf, KindName::UdpRr) => {
                format!("ping-pong -i {server} -p {SOCKPERF_UDP} -t {seconds} -m {bytes} --full-rtt")
            }
            (Self::Iperf3, KindName::TcpStream) => {
                format!("-c {server} -p {IPERF3} -t {seconds} -l {bytes} -J")
            }
            _ => bail!("{} has no {}", self.program(), kind.name()),
        })
    }

    /// What its client printed.
    pub(crate) fn parse(self, text: &str) -> Option<Sample> {
        match self {
            Self::Netperf => parse_netperf(text),
            Self::Sockperf => parse_sockperf(text),
            Self::Iperf3 => parse_iperf3(text),
        }
    }
}

/// Lines of `THROUGHPUT=23260.12`.
fn parse_netperf(text: &str) -> Option<Sample> {
    let field =
        |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
    Some(Sample { per_second: field("THROUGHPUT=")?, p50_us: field("P50_LATENCY=") })
}

/// `sockperf: [Valid Duration] RunTime=1.000 sec; SentMessages=58; ReceivedMessages=58`, and
/// `sockperf: ---> percentile 50.000 =   17.246`.
fn parse_sockperf(text: &str) -> Option<Sample> {
    let valid = text.lines().find(|line| line.contains("[Valid Duration]"))?;
    let number = |text: &str, after: &str| {
        let rest = &text[text.find(after)? + after.len()..];
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        rest[..end].parse::<f64>().ok()
    };
    let (seconds, received) = (number(valid, "RunTime=")?, number(valid, "ReceivedMessages=")?);
    let p50 = text.lines().find(|line| line.contains("percentile 50.000"))?;
    let p50_us = p50.rsplit('=').next()?.trim().parse().ok()?;
    Some(Sample { per_second: received / seconds, p50_us: Some(p50_us) })
}

/// JSON with `end.sum_received.bits_per_second`.
fn parse_iperf3(text: &str) -> Option<Sample> {
    let json: serde_json::Value = serde_json::from_str(text).ok()?;
    let bits = json.pointer("/end/sum_received/bits_per_second")?.as_f64()?;
    Some(Sample { per_second: bits / 8.0, p50_us: None })
}

/// A program that ends with this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended already cannot be ended; either way it is waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// All servers that there are.
pub(crate) struct Servers {
    _running: Vec<Running>,
}

impl Servers {
    /// Starts those of the tools that are installed. Yields why others are not there.
    pub(crate) fn start(pair: &Pair, ends: &Ends) -> Result<(Self, Vec<(Tool, String)>)> {
        let (mut running, mut missing) = (Vec::new(), Vec::new());
        let server = pair.server();
        for tool in Tool::ALL {
            for (program, args, port) in tool.servers(server.ipv4) {
                let mut command = Command::new(program);
                command.args(&args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                match inside(&server.netns, ends.server, || command.spawn())? {
                    Ok(child) => {
                        running.push(Running(child));
                        listens(&server.netns, port).with_context(|| format!("{program} does not start"))?;
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                        let name =
                            if tool == Tool::Netperf { "netperf (Debian: trixie or newer)" } else { program };
                        missing.push((tool, format!("there is no {program}; install {name}")));
                        break;
                    }
                    Err(error) => return Err(error).context(program),
                }
            }
        }
        Ok((Self { _running: running }, missing))
    }

    /// A run of a tool's client.
    pub(crate) fn run(&self, pair: &Pair, ends: &Ends, case: &Case, seconds: u32) -> Result<Sample> {
        let args = case.tool.client(case, pair.server().ipv4, seconds)?;
        let mut command = Command::new(case.tool.program());
        command.args(args.split(' ')).stdin(Stdio::null());
        let output = inside(&pair.client().netns, ends.client, || command.output())?
            .with_context(|| format!("cannot run {}", case.tool.program()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let said =
            || format!("{} {args}: {}{text}", case.tool.program(), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), said());
        case.tool.parse(&text).with_context(|| format!("cannot read what was printed: {}", said()))
    }
}

/// Runs something in a namespace, on one CPU; programs that it starts inherit both.
pub(crate) fn inside<T: Send>(netns: &Netns, on: usize, work: impl FnOnce() -> T + Send) -> Result<T> {
    let done = netns.run(|| cpu::pin(&[on]).map(|()| work()))?;
    done.with_context(|| format!("cannot run on CPU {on}"))
}

/// Waits until a port is listened at, over TCP or UDP.
fn listens(netns: &Netns, port: u16) -> Result<()> {
    let begun = Instant::now();
    let port = format!(":{port:04X}");
    let is_there = || {
        ["tcp", "udp"].iter().any(|table| {
            let text = fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap_or_default();
            text.lines()
                .any(|line| line.split_whitespace().nth(1).is_some_and(|local| local.ends_with(&port)))
        })
    };
    while !netns.run(is_there)? {
        ensure!(begun.elapsed() < START, "nothing listens after {START:?}");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
