//! What the load generator itself costs: a scheduled event, and a request in a closed and an open loop, over loopback. No time
//! is asserted: it is there to be looked at.
#![expect(clippy::print_stdout, reason = "a benchmark's result goes to standard output")]

use anyhow::{Context as _, Result};
use nettrace_bench::{
    cpu::{Ends, Pinning},
    load::{
        Load, Outcome, ServerOptions, Servers,
        args::{ArrivalName, KindName, LoadArgs},
        client,
        schedule::Schedule,
    },
};
use std::{hint::black_box, net::Ipv4Addr, time::Instant};

/// Events of a schedule that are timed together.
const EVENTS: u64 = 10_000_000;
/// Rates of the open loops, requests a second.
const RATES: [f64; 3] = [1000.0, 10_000.0, 20_000.0];
const ARRIVALS: [ArrivalName; 2] = [ArrivalName::Constant, ArrivalName::Poisson];

fn main() -> Result<()> {
    println!("| schedule | ns an event |\n| --- | --- |");
    for arrivals in ARRIVALS {
        let (rate, kind) = (Some(1000.0), KindName::UdpRr);
        let load = load(&LoadArgs { rate, arrivals: Some(arrivals), ..LoadArgs::of(kind) })?;
        println!("| {arrivals:?} | {:.1} |", schedule_ns(&load)?);
    }
    println!("\nClient and server on CPUs of their own, where there are two; CPU time is the client's.\n");
    println!(
        "| load | rate /s | CPU ns a request | late p50 us | late p99 us | service p50 us | latency p50 us |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for kind in [KindName::TcpRr, KindName::UdpRr, KindName::TcpCrr] {
        print(kind, "closed", &run(&LoadArgs::of(kind))?);
        for rate in RATES {
            for arrivals in ARRIVALS {
                let args = LoadArgs { rate: Some(rate), arrivals: Some(arrivals), ..LoadArgs::of(kind) };
                print(kind, &format!("{arrivals:?}"), &run(&args)?);
            }
        }
    }
    Ok(())
}

fn load(args: &LoadArgs) -> Result<Load> {
    args.resolve()?.parts.into_iter().next().context("a profile without a part")
}

/// Time of an event of a schedule.
fn schedule_ns(load: &Load) -> Result<f64> {
    let mut schedule = Schedule::of(load, 0).context("a closed loop has no schedule")?;
    let begun = Instant::now();
    for _ in 0..EVENTS {
        black_box(schedule.peek());
        schedule.advance();
    }
    Ok(begun.elapsed().as_secs_f64() * 1e9 / EVENTS as f64)
}

fn run(args: &LoadArgs) -> Result<Outcome> {
    let args = LoadArgs { seconds: Some(1.0), warm_up_seconds: Some(0.1), ..args.clone() };
    let (profile, ends) = (args.resolve()?, Ends::choose()?);
    let options = ServerOptions { pinning: Pinning::On(vec![ends.server]), only: None };
    let servers = Servers::start(&profile, Ipv4Addr::LOCALHOST.into(), 0, &options)?;
    let options = client::Options { pinning: Pinning::On(vec![ends.client]), ..client::Options::default() };
    let outcomes = client::run(&profile, &servers.addresses(), &options)?;
    servers.stop()?;
    outcomes.into_iter().next().context("a profile without a part")
}

fn print(kind: KindName, pace: &str, outcome: &Outcome) {
    let us =
        |hist: &hdrhistogram::Histogram<u64>, q| format!("{:.1}", hist.value_at_quantile(q) as f64 / 1e3);
    let of = |hist: &Option<_>, q| hist.as_ref().map_or("-".to_owned(), |hist| us(hist, q));
    println!(
        "| {} {pace} | {:.0} | {:.0} | {} | {} | {} | {} |",
        kind.name(),
        outcome.per_second(),
        outcome.cpu.busy_ns as f64 / outcome.all.max(1) as f64,
        of(&outcome.lateness, 0.5),
        of(&outcome.lateness, 0.99),
        of(&outcome.service, 0.5),
        us(&outcome.latency, 0.5),
    );
}
