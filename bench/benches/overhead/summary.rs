//! From single runs to what a reader wants: ratios to the same round's run without nettrace, and each program's price.

use super::{
    load::{Load, Outcome},
    net::Layout,
    overhead::{Arm, Run},
    stats::Spread,
};
use nettrace::snapshot::{Packets, ProgramCost};
use nettrace_bench::load::SLICE;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Ratios of one arm to [`Arm::Off`] of the same round.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Ratios {
    /// The arm.
    pub(crate) arm: Arm,
    /// Throughput.
    pub(crate) throughput: Spread,
    /// Throughput by the CPU time that the load got: others' share of the CPU taken out.
    pub(crate) per_cpu: Spread,
    /// Throughput of the arm's quiet slices by that of all runs without nettrace, see [`quiet`].
    pub(crate) quiet: f64,
    /// Median latency; none for a flood.
    pub(crate) p50: Option<Spread>,
    /// 99th percentile; none for a flood.
    pub(crate) p99: Option<Spread>,
}

/// What one program cost under one load.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Price {
    /// Program.
    pub(crate) program: String,
    /// Runs for each transaction or datagram. Others' packets count too: a program that this load does not concern
    /// runs now and then all the same.
    pub(crate) runs_per_unit: f64,
    /// Runs that were measured.
    pub(crate) runs: u64,
    /// A run that returns at once, ns, the statistics' own share included.
    pub(crate) empty_ns: f64,
    /// A run, ns, likewise.
    pub(crate) on_ns: f64,
    /// A run with every packet timed, ns, likewise.
    pub(crate) every_ns: f64,
}

impl Price {
    /// A run with every packet timed without what an empty one costs, ns.
    #[must_use]
    pub(crate) fn every_net_ns(&self) -> f64 {
        self.every_ns - self.empty_ns
    }

    /// A run without what an empty one costs, ns.
    #[must_use]
    pub(crate) fn net_ns(&self) -> f64 {
        self.on_ns - self.empty_ns
    }

    /// The same for each transaction or datagram, ns.
    #[must_use]
    pub(crate) fn net_ns_per_unit(&self) -> f64 {
        self.net_ns() * self.runs_per_unit
    }
}

/// One load in one layout.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Summary {
    /// Where.
    pub(crate) layout: Layout,
    /// What.
    pub(crate) load: Load,
    /// Without nettrace: transactions or datagrams per second.
    pub(crate) per_second: Spread,
    /// Without nettrace: transactions or datagrams per second in quiet slices, see [`quiet`].
    pub(crate) quiet_per_second: f64,
    /// Without nettrace: median latency, ns.
    pub(crate) p50_ns: Option<Spread>,
    /// Without nettrace: 99th percentile, ns.
    pub(crate) p99_ns: Option<Spread>,
    /// Share of the CPU that the load got, over all runs.
    pub(crate) cpu_share: Spread,
    /// The other arms.
    pub(crate) ratios: Vec<Ratios>,
    /// Programs, by what they cost for each transaction or datagram, dearest first.
    pub(crate) prices: Vec<Price>,
    /// Share of a CPU that nettrace's own threads took.
    pub(crate) agent_cpu: Spread,
    /// Peak resident memory of the agent, bytes.
    pub(crate) peak_rss_bytes: Spread,
    /// Memory of the kernel maps, bytes.
    pub(crate) map_bytes: Spread,
    /// Records in the event lane for each second.
    pub(crate) records_per_second: Spread,
    /// Share of packets that were timed with nettrace's default, all runs together.
    pub(crate) timed_share: f64,
    /// Latencies and events that were counted, all runs together.
    pub(crate) counted: u64,
    /// What was lost, by reason, all runs together.
    pub(crate) lost: BTreeMap<String, u64>,
}

/// One summary for each layout and load, in the order of the runs.
#[must_use]
pub(crate) fn summarise(runs: &[Run]) -> Vec<Summary> {
    let mut groups: Vec<(Layout, Load)> = Vec::new();
    for run in runs {
        if !groups.contains(&(run.layout, run.load)) {
            groups.push((run.layout, run.load));
        }
    }
    let of = |(layout, load)| {
        let runs: Vec<&Run> = runs.iter().filter(|r| r.layout == layout && r.load == load).collect();
        summary(layout, load, &runs)
    };
    groups.into_iter().map(of).collect()
}

fn summary(layout: Layout, load: Load, runs: &[&Run]) -> Summary {
    let off = || arm(runs, Arm::Off, false).map(|r| &r.outcome);
    let costs = || arm(runs, Arm::On, false).chain(arm(runs, Arm::On, true)).filter_map(|r| r.cost.as_ref());
    let mut lost = BTreeMap::new();
    for loss in costs().flat_map(|c| &c.losses).filter(|l| l.count > 0) {
        *lost.entry(loss.reason.clone()).or_insert(0) += loss.count;
    }
    let rate = |c: &super::agent::Cost| c.ring.emitted as f64 * 1e9 / c.duration_ns.max(1) as f64;
    Summary {
        layout,
        load,
        per_second: Spread::of(off().map(Outcome::per_second)),
        quiet_per_second: quiet(arm(runs, Arm::Off, false)) / SLICE.as_secs_f64(),
        p50_ns: some(off().filter_map(|o| o.latency).map(|l| l.p50_ns as f64)),
        p99_ns: some(off().filter_map(|o| o.latency).map(|l| l.p99_ns as f64)),
        cpu_share: Spread::of(runs.iter().map(|r| r.outcome.cpu_share)),
        ratios: [Arm::OffAgain, Arm::Empty, Arm::On, Arm::Every].map(|arm| ratios(runs, arm)).to_vec(),
        prices: prices(runs),
        agent_cpu: Spread::of(costs().map(super::agent::Cost::cpu_share)),
        peak_rss_bytes: Spread::of(costs().map(|c| c.peak_rss_bytes as f64)),
        map_bytes: Spread::of(costs().map(|c| c.overhead.map_bytes as f64)),
        records_per_second: Spread::of(costs().map(rate)),
        timed_share: timed_share(costs().map(|c| c.packets)),
        counted: costs().flat_map(|c| c.signals.values()).sum(),
        lost,
    }
}

/// Share of the packets of all runs that were timed.
fn timed_share(runs: impl Iterator<Item = Packets>) -> f64 {
    let add =
        |a: Packets, b: Packets| Packets { begun: a.begun + b.begun, untimed: a.untimed + b.untimed, ..a };
    runs.fold(Packets::default(), add).timed_share()
}

fn arm<'a>(runs: &'a [&Run], arm: Arm, stats: bool) -> impl Iterator<Item = &'a Run> {
    runs.iter().copied().filter(move |r| r.arm == arm && r.stats == stats)
}

fn some(values: impl Iterator<Item = f64>) -> Option<Spread> {
    let values: Vec<f64> = values.collect();
    (!values.is_empty()).then(|| Spread::of(values))
}

fn ratios(runs: &[&Run], which: Arm) -> Ratios {
    let pairs: Vec<(&Outcome, &Outcome)> = arm(runs, which, false)
        .filter_map(|run| {
            let off = arm(runs, Arm::Off, false).find(|off| off.round == run.round)?;
            Some((&run.outcome, &off.outcome))
        })
        .collect();
    let latency = |of: fn(super::load::Percentiles) -> u64| {
        some(pairs.iter().filter_map(|(run, off)| Some(of(run.latency?) as f64 / of(off.latency?) as f64)))
    };
    let per_cpu = |o: &Outcome| o.per_second() / o.cpu_share;
    Ratios {
        arm: which,
        throughput: Spread::of(pairs.iter().map(|(run, off)| run.per_second() / off.per_second())),
        per_cpu: Spread::of(pairs.iter().map(|(run, off)| per_cpu(run) / per_cpu(off))),
        quiet: quiet(arm(runs, which, false)) / quiet(arm(runs, Arm::Off, false)),
        p50: latency(|l| l.p50_ns),
        p99: latency(|l| l.p99_ns),
    }
}

/// Throughput when the machine is not disturbed: one slice in ten is better. What others do on the same machine, to
/// caches and to a core that two CPUs share, only ever takes, and comes and goes within a run; the arms are
/// interleaved, so that each has its share of what is left.
fn quiet<'a>(runs: impl Iterator<Item = &'a Run>) -> f64 {
    let mut slices: Vec<u32> = runs.flat_map(|r| r.outcome.slices.iter().copied()).collect();
    slices.sort_unstable();
    slices.get(slices.len() * 9 / 10).map_or(f64::NAN, |n| f64::from(*n))
}

/// Means over all runs with statistics, weighted by the programs' runs.
fn prices(runs: &[&Run]) -> Vec<Price> {
    let total = |which: Arm| {
        let mut programs: BTreeMap<&str, (u64, f64)> = BTreeMap::new();
        let mut units = 0;
        for run in arm(runs, which, true) {
            units += run.outcome.all;
            let Some(cost) = &run.cost else { continue };
            for ProgramCost { program, runs, ns_per_run } in &cost.overhead.programs {
                let sum = programs.entry(program).or_default();
                sum.0 += runs;
                sum.1 += ns_per_run * *runs as f64;
            }
        }
        (programs, units)
    };
    let (empty, _) = total(Arm::Empty);
    let (on, units) = total(Arm::On);
    let (every, _) = total(Arm::Every);
    let mean = |(runs, ns): (u64, f64)| if runs == 0 { 0.0 } else { ns / runs as f64 };
    let mut prices: Vec<Price> = on
        .into_iter()
        .map(|(program, sum)| Price {
            program: program.to_owned(),
            runs_per_unit: sum.0 as f64 / units.max(1) as f64,
            runs: sum.0,
            empty_ns: mean(empty.get(program).copied().unwrap_or_default()),
            on_ns: mean(sum),
            every_ns: mean(every.get(program).copied().unwrap_or_default()),
        })
        .collect();
    prices.sort_by(|a, b| b.net_ns_per_unit().total_cmp(&a.net_ns_per_unit()));
    prices
}
