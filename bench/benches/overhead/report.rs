//! The result as text, in Markdown tables that read well on a terminal too.

use super::{
    load::Load,
    overhead::{Arm, Plan},
    stats::Spread,
    summary::{Price, Ratios, Summary},
};
use nettrace_bench::cpu::Placement;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Display, Formatter};

/// Programs that run for less than one transaction in so many are not concerned by the load.
const RARE: f64 = 0.02;

/// When the quiet slices of *nothing, again* are as far as this from those of *nothing*, a throughput goal is neither
/// met nor missed.
const TOO_NOISY: f64 = 0.02;

/// On what it was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// `uname -r`.
    pub(crate) kernel: String,
    /// `uname -m`.
    pub(crate) arch: String,
    /// As the CPU calls itself.
    pub(crate) cpu: String,
    /// Who ran where.
    pub(crate) placement: Placement,
}

impl Machine {
    /// This one.
    #[must_use]
    pub(crate) fn here(placement: Placement) -> Self {
        let uname = rustix::system::uname();
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = info.lines().find(|l| l.starts_with("model name")).and_then(|l| l.split_once(": "));
        Self {
            kernel: uname.release().to_string_lossy().into_owned(),
            arch: uname.machine().to_string_lossy().into_owned(),
            cpu: model.map_or_else(|| "unknown".to_owned(), |(_, name)| name.to_owned()),
            placement,
        }
    }
}

/// Everything, ready to be shown.
pub(crate) struct Report<'a> {
    /// On what.
    pub(crate) machine: &'a Machine,
    /// What was run.
    pub(crate) plan: &'a Plan,
    /// What came of it.
    pub(crate) summaries: &'a [Summary],
}

impl Display for Report<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.head(f)?;
        for layout in &self.plan.layouts {
            writeln!(f, "\n## Layout: {} ({})\n", layout.name(), layout.describe())?;
            let rows: Vec<_> = self.summaries.iter().filter(|s| s.layout == *layout).collect();
            throughput(f, &rows)?;
            footprint(f, &rows)?;
            if self.plan.cost_rounds > 0 {
                rows.iter().try_for_each(|s| programs(f, s))?;
            }
        }
        Ok(())
    }
}

impl Report<'_> {
    fn head(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Machine { kernel, arch, cpu, placement } = self.machine;
        let Plan { rounds, cost_rounds, time, .. } = self.plan;
        writeln!(f, "Linux {kernel} {arch}, {cpu}; both ends of the load on CPU {},", placement.load)?;
        let shared = if placement.is_shared() { " - THE SAME, so ratios hold its share too" } else { "" };
        writeln!(f, "nettrace's threads on CPU {:?}{shared}.", placement.observer)?;
        writeln!(
            f,
            "{rounds} interleaved rounds of {:.1} s a run, {cost_rounds} with run-time statistics. Ratios are to the \
             same round without nettrace: median (min .. max).",
            time.as_secs_f64()
        )
    }
}

fn throughput(f: &mut Formatter<'_>, rows: &[&Summary]) -> fmt::Result {
    writeln!(f, "| load | attached | throughput | by CPU time | quiet slices | p50 | p99 |")?;
    writeln!(f, "| --- | --- | --- | --- | --- | --- | --- |")?;
    for s in rows {
        let us =
            |v: Option<Spread>| v.map_or_else(|| "-".to_owned(), |v| format!("{:.1} us", v.median / 1000.0));
        writeln!(
            f,
            "| {} | nothing | {:.0} /s | {:.0} % of a CPU | {:.0} /s | {} | {} |",
            s.load.name(),
            s.per_second.median,
            s.cpu_share.median * 100.0,
            s.quiet_per_second,
            us(s.p50_ns),
            us(s.p99_ns)
        )?;
        for Ratios { arm, throughput, per_cpu, quiet, p50, p99 } in &s.ratios {
            let what = match arm {
                Arm::OffAgain => "nothing, again (noise)",
                Arm::Empty => "all hooks, empty",
                Arm::On => "**everything on**",
                Arm::Every => "the same, every packet timed",
                Arm::Off => continue,
            };
            let (p50, p99) = (p50.as_ref().map(ratio), p99.as_ref().map(ratio));
            let dash = || "-".to_owned();
            writeln!(
                f,
                "| | {what} | {} | {} | {quiet:.3} | {} | {} |",
                ratio(throughput),
                ratio(per_cpu),
                p50.unwrap_or_else(dash),
                p99.unwrap_or_else(dash)
            )?;
        }
    }
    Ok(())
}

fn ratio(s: &Spread) -> String {
    format!("{:.3} ({:.2} .. {:.2})", s.median, s.min, s.max)
}

fn footprint(f: &mut Formatter<'_>, rows: &[&Summary]) -> fmt::Result {
    const MIB: f64 = 1024.0 * 1024.0;
    writeln!(
        f,
        "\n| load | packets timed | nettrace's CPU | peak RSS | kernel maps | event records | lost |"
    )?;
    writeln!(f, "| --- | --- | --- | --- | --- | --- | --- |")?;
    for s in rows {
        let lost: Vec<_> = s.lost.iter().map(|(reason, n)| format!("{reason} {n}")).collect();
        let lost = if lost.is_empty() { "nothing".to_owned() } else { lost.join(", ") };
        writeln!(
            f,
            "| {} | {:.1} % | {:.2} % of a CPU | {:.1} MiB | {:.1} MiB | {:.0} /s | {lost} of {} |",
            s.load.name(),
            s.timed_share * 100.0,
            s.agent_cpu.median * 100.0,
            s.peak_rss_bytes.max / MIB,
            s.map_bytes.max / MIB,
            s.records_per_second.median,
            s.counted
        )?;
    }
    Ok(())
}

fn programs(f: &mut Formatter<'_>, s: &Summary) -> fmt::Result {
    let unit = s.load.unit();
    writeln!(
        f,
        "\n{}: ns per run by the kernel's statistics; *net* is without an empty program\n",
        s.load.name()
    )?;
    writeln!(
        f,
        "| program | runs | runs per {unit} | empty | on | net | net per {unit} | net, every packet timed |"
    )?;
    writeln!(f, "| --- | --: | --: | --: | --: | --: | --: | --: |")?;
    let concerned = |p: &&Price| p.runs_per_unit >= RARE;
    for p in s.prices.iter().filter(concerned) {
        let (net, per_unit, every) = (p.net_ns(), p.net_ns_per_unit(), p.every_net_ns());
        let Price { program, runs, runs_per_unit, empty_ns, on_ns, .. } = p;
        writeln!(
            f,
            "| {program} | {runs} | {runs_per_unit:.2} | {empty_ns:.0} | {on_ns:.0} | {net:.0} | {per_unit:.0} | {every:.0} |"
        )?;
    }
    let total: f64 = s.prices.iter().filter(concerned).map(Price::net_ns_per_unit).sum();
    let runs: f64 = s.prices.iter().filter(concerned).map(|p| p.runs_per_unit).sum();
    writeln!(f, "| *all* | | {runs:.2} | | | | {total:.0} | |")?;
    let period = 1e9 / s.per_second.median.max(1.0);
    writeln!(f, "\nOne {unit} takes {period:.0} ns without nettrace.")
}

/// The goals, and whether they were met here: shown, never asserted, because time depends on the machine.
#[must_use]
pub(crate) fn goals(summaries: &[Summary]) -> Vec<String> {
    let mut lines = Vec::new();
    for s in summaries {
        let least = match s.load {
            Load::TcpRr | Load::UdpRr => 0.90,
            Load::UdpFlood => 0.85,
            Load::TcpCrr => continue,
        };
        let Some(on) = s.ratios.iter().find(|r| r.arm == Arm::On) else { continue };
        let name = format!("{} {}", s.layout.name(), s.load.name());
        let met = |yes| if yes { "met" } else { "NOT met" };
        let noise = s.ratios.iter().find(|r| r.arm == Arm::OffAgain).map_or(0.0, |r| (r.quiet - 1.0).abs());
        let got = on.quiet;
        let verdict = if noise > TOO_NOISY { "cannot tell, others disturbed it" } else { met(got >= least) };
        lines.push(format!("{name}: throughput of quiet slices {got:.3} of off, goal {least:.2}: {verdict}"));
        if let Some(dearest) = packet_lane(s).max_by(|a, b| a.net_ns().total_cmp(&b.net_ns())) {
            let (ns, program) = (dearest.net_ns(), &dearest.program);
            lines
                .push(format!("{name}: {program} takes {ns:.0} ns net, goal under 100: {}", met(ns < 100.0)));
        }
        let rss = s.peak_rss_bytes.max / f64::from(1 << 20);
        lines.push(format!("{name}: peak RSS {rss:.1} MiB, goal under 50: {}", met(rss < 50.0)));
    }
    lines
}

fn packet_lane(s: &Summary) -> impl Iterator<Item = &Price> {
    s.prices.iter().filter(|p| p.runs_per_unit >= 0.5)
}
