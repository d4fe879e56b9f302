//! What the agent costs: its share of a CPU, its memory, and its metrics, idle and under load. See `bench/README.md`.
//!
//! Needs root; all traffic is in network namespaces of its own. Rounds of idle and of load follow each other in turn, each pair in
//! an order by lot, so that what a machine does besides falls on both.
#![expect(clippy::print_stdout, reason = "a benchmark's result goes to standard output")]

mod http;
mod process;
#[path = "../overhead/stats.rs"]
pub(crate) mod stats;

use anyhow::{Context as _, Result};
use clap::Parser;
use http::Scrape;
use nettrace::lab::Pair;
use nettrace_bench::{
    cpu::Ends,
    load::{
        Profile, ServerOptions, Servers,
        args::{KindName, LoadArgs},
        client,
    },
    result::Arm,
};
use process::{Agent, Usage};
use stats::Spread;
use std::{
    net::SocketAddr,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

/// What the agent costs. Needs root; all traffic is in network namespaces of its own.
#[derive(Debug, Parser)]
#[command(name = "agent", version)]
struct Cli {
    /// Rounds, each of one time idle and one under load
    #[arg(long, value_name = "N", default_value_t = 6)]
    rounds: u32,
    /// Length of each
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    seconds: u64,
    /// Packets a second, one way
    #[arg(long, value_name = "N", default_value_t = 100_000.0)]
    packets: f64,
    /// DNS queries a second; each query and each answer is an event
    #[arg(long, value_name = "N", default_value_t = 5_000.0)]
    queries: f64,
    /// Scrapes of the metrics
    #[arg(long, value_name = "N", default_value_t = 30)]
    scrapes: usize,
    /// What cargo tells every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    // The agent's process: this program again.
    if std::env::args().nth(1).as_deref() == Some("agent") {
        return nettrace::cli::main();
    }
    match measure(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("agent: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// What is told of a round.
type Figure<'a> = &'a dyn Fn(&Round) -> f64;

/// One time idle or under load.
struct Round {
    under_load: bool,
    usage: Usage,
    packets_per_s: f64,
    events_per_s: f64,
}

fn measure(cli: &Cli) -> Result<()> {
    let pair = Pair::start()?;
    let agent = Agent::start(&pair)?;
    let mut rounds = Vec::new();
    for (_, arm) in Arm::interleaved(cli.rounds, 1) {
        let under_load = arm == Arm::B;
        eprintln!("{} of {}: {}", rounds.len() + 1, 2 * cli.rounds, if under_load { "load" } else { "idle" });
        rounds.push(round(cli, &pair, &agent, under_load)?);
    }
    let scrapes: Vec<Scrape> =
        (0..cli.scrapes).map(|_| agent.scrape()).collect::<Result<_>>().context("scraping")?;
    agent.end()?;
    report(&rounds, &scrapes);
    Ok(())
}

fn round(cli: &Cli, pair: &Pair, agent: &Agent, under_load: bool) -> Result<Round> {
    let time = Duration::from_secs(cli.seconds);
    let (before, counts_before, began) = (agent.usage()?, agent.counts()?, Instant::now());
    if under_load {
        load(cli, pair, time)?;
    } else {
        thread::sleep(time);
    }
    // The last window of it.
    thread::sleep(process::INTERVAL * 2);
    let seconds = began.elapsed().as_secs_f64();
    let (after, counts) = (agent.usage()?, agent.counts()?);
    Ok(Round {
        under_load,
        usage: after.since(&before, seconds),
        packets_per_s: (counts.packets - counts_before.packets) / seconds,
        events_per_s: (counts.events - counts_before.events) / seconds,
    })
}

/// Datagrams one way and DNS queries at once, in open loops.
fn load(cli: &Cli, pair: &Pair, time: Duration) -> Result<()> {
    let of = |kind: KindName, rate: f64| LoadArgs {
        seconds: Some(time.as_secs_f64()),
        warm_up_seconds: Some(0.1),
        rate: Some(rate),
        ..LoadArgs::of(kind)
    };
    let mut parts = of(KindName::UdpFlood, cli.packets).resolve()?.parts;
    parts.extend(of(KindName::Dns, cli.queries).resolve()?.parts);
    let profile = Profile { name: "agent".to_owned(), parts };
    let [of_client, of_server] = Ends::pinnings(true)?;
    let options = ServerOptions { pinning: of_server, ..ServerOptions::default() };
    let server = pair.server();
    // Queries are seen as such at their own port.
    let servers = server.netns.run(|| Servers::start(&profile, server.ipv4.into(), 52, &options))??;
    let addresses: Vec<SocketAddr> = servers.addresses();
    let asking = client::Options { pinning: of_client, ..client::Options::default() };
    let outcomes = pair.client().netns.run(|| client::run(&profile, &addresses, &asking))?;
    servers.stop()?;
    outcomes?;
    Ok(())
}

fn report(rounds: &[Round], scrapes: &[Scrape]) {
    let of = |under_load: bool, of: Figure<'_>| {
        Spread::of(rounds.iter().filter(|r| r.under_load == under_load).map(of))
    };
    println!(
        "The agent, windows of {} s; median (lowest .. highest) of {} rounds each.\n",
        process::INTERVAL.as_secs(),
        rounds.len() / 2
    );
    println!("| | idle | under load | ratio |\n| --- | --- | --- | --- |");
    let rows: [(&str, Figure<'_>); 6] = [
        ("packets /s", &|r| r.packets_per_s),
        ("events /s", &|r| r.events_per_s),
        ("own CPU, % of one", &|r| 100.0 * r.usage.own_cpu_share),
        ("kernel programs, % of one CPU", &|r| 100.0 * r.usage.kernel_cpu_share),
        ("resident set, MiB", &|r| r.usage.rss_bytes as f64 / f64::from(1 << 20)),
        ("budget step", &|r| r.usage.budget_step),
    ];
    for (what, value) in rows {
        let (idle, load) = (of(false, value), of(true, value));
        let ratio =
            if idle.median > 0.0 { format!("{:.2}", load.median / idle.median) } else { "-".to_owned() };
        println!("| {what} | {} | {} | {ratio} |", told(idle), told(load));
    }
    let ms = Spread::of(scrapes.iter().map(|s| s.seconds * 1e3));
    let kib = Spread::of(scrapes.iter().map(|s| s.bytes as f64 / 1024.0));
    let series = scrapes.iter().map(|s| s.series).max().unwrap_or(0);
    println!("\nA scrape of {series} series takes {} ms and has {} KiB.", told(ms), told(kib));
}

/// Median, and the lowest and highest.
fn told(spread: Spread) -> String {
    let digits = if spread.max >= 100.0 { 0 } else { 2 };
    format!("{:.digits$} ({:.digits$} .. {:.digits$})", spread.median, spread.min, spread.max)
}
