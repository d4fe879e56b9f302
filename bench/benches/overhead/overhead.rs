//! The benchmark: the same load without nettrace, twice (the noise), with every hook in place but empty (the least
//! that any such observer costs), with everything on, and with every packet timed however many come; interleaved, in
//! another order each round.

use super::{
    agent::{Agent, Cost, Spec},
    load::{self, Load, Outcome},
    net::{Layout, Net},
};
use anyhow::Result;
use nettrace_bench::cpu::{self, Placement};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What is attached during a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Arm {
    /// Nothing.
    Off,
    /// Nothing, again.
    OffAgain,
    /// All programs, which return at once.
    Empty,
    /// All programs, with nettrace's default of how many packets are timed.
    On,
    /// All programs, and every packet timed.
    Every,
}

impl Arm {
    /// All, in the order of the first round.
    pub(crate) const ALL: [Self; 5] = [Self::Off, Self::Empty, Self::On, Self::OffAgain, Self::Every];

    /// Whether programs are attached.
    #[must_use]
    pub(crate) const fn observes(self) -> bool {
        matches!(self, Self::Empty | Self::On | Self::Every)
    }
}

/// The arms of which the kernel keeps run-time statistics.
const COSTS: [Arm; 3] = [Arm::Empty, Arm::On, Arm::Every];

/// What is to be run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// Rounds in which throughput is compared.
    pub(crate) rounds: usize,
    /// Rounds in which the kernel keeps run-time statistics of every run.
    pub(crate) cost_rounds: usize,
    /// Length of each run.
    pub(crate) time: Duration,
    /// Where.
    pub(crate) layouts: Vec<Layout>,
    /// What.
    pub(crate) loads: Vec<Load>,
    /// Signals by name or group; empty for all.
    pub(crate) signals: Vec<String>,
}

/// One run of one load.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    /// Number of its round, from 0.
    pub(crate) round: usize,
    /// Where.
    pub(crate) layout: Layout,
    /// What.
    pub(crate) load: Load,
    /// What was attached.
    pub(crate) arm: Arm,
    /// Whether the kernel kept statistics of every run: not to be compared by throughput then.
    pub(crate) stats: bool,
    /// What the load came to.
    pub(crate) outcome: Outcome,
    /// What nettrace cost, where it was there.
    pub(crate) cost: Option<Cost>,
}

/// Runs the plan. `progress` is told what comes next, with its number and the number of all.
///
/// # Errors
/// When namespaces, sockets or the agent fail; everything is removed and detached then.
pub(crate) fn run(
    plan: &Plan,
    place: &Placement,
    mut progress: impl FnMut(usize, usize, &str),
) -> Result<Vec<Run>> {
    cpu::pin(&place.observer)?;
    let per_load = plan.rounds * Arm::ALL.len() + plan.cost_rounds * COSTS.len();
    let all = plan.layouts.len() * plan.loads.len() * per_load;
    let mut runs = Vec::with_capacity(all);
    for layout in &plan.layouts {
        let net = Net::start(*layout)?;
        let mut bench = Bench { plan, place, layout: *layout, net };
        for round in 0..plan.rounds.max(plan.cost_rounds) {
            for load in &plan.loads {
                for (arm, stats) in order(plan, round) {
                    let name = format!("{} {} {arm:?}", layout.name(), load.name());
                    progress(runs.len() + 1, all, &name);
                    runs.push(bench.one(round, *load, arm, stats)?);
                }
            }
        }
    }
    Ok(runs)
}

/// The runs of a round: each starts one further on, so that no arm always comes first.
pub(crate) fn order(plan: &Plan, round: usize) -> Vec<(Arm, bool)> {
    let mut runs: Vec<(Arm, bool)> = Vec::new();
    if round < plan.rounds {
        runs.extend(Arm::ALL.map(|arm| (arm, false)));
        runs.rotate_left(round % Arm::ALL.len());
    }
    if round < plan.cost_rounds {
        let mut costs = COSTS;
        costs.rotate_left(round % COSTS.len());
        runs.extend(costs.map(|arm| (arm, true)));
    }
    runs
}

struct Bench<'a> {
    plan: &'a Plan,
    place: &'a Placement,
    layout: Layout,
    net: Net,
}

impl Bench<'_> {
    fn one(&mut self, round: usize, load: Load, arm: Arm, stats: bool) -> Result<Run> {
        let agent = match arm.observes() {
            true => Some(Agent::start(&self.spec(arm, stats))?),
            false => None,
        };
        let outcome = load::run(&self.net, load, self.place.load, self.plan.time)?;
        let cost = agent.map(Agent::stop).transpose()?;
        Ok(Run { round, layout: self.layout, load, arm, stats, outcome, cost })
    }

    fn spec(&self, arm: Arm, stats: bool) -> Spec {
        Spec {
            empty: arm == Arm::Empty,
            every: arm == Arm::Every,
            stats,
            cpus: self.place.observer.clone(),
            watched: self.net.watched(),
            signals: self.plan.signals.clone(),
        }
    }
}

/// What the counts must satisfy whatever the machine: each failure as a sentence.
#[must_use]
pub(crate) fn check(runs: &[Run]) -> Vec<String> {
    let mut wrong = Vec::new();
    for run in runs {
        let Some(cost) = &run.cost else { continue };
        let at = format!("{} {} {:?} round {}", run.layout.name(), run.load.name(), run.arm, run.round);
        let ring = &cost.ring;
        if ring.emitted != ring.received + ring.lost || ring.lost != cost.lost("ring_full") {
            wrong.push(format!(
                "{at}: {} records were emitted, {} received and {} lost ({} by the loss table)",
                ring.emitted,
                ring.received,
                ring.lost,
                cost.lost("ring_full")
            ));
        }
        if run.arm == Arm::Every && cost.packets.untimed > 0 {
            wrong.push(format!("{at}: {} packets passed untimed", cost.packets.untimed));
        }
        if matches!(run.arm, Arm::On | Arm::Every) && measures_reads(cost) {
            let measured = cost.signals.get("rx.total").copied().unwrap_or(0);
            let accounted = measured + cost.lost("unmatched") + cost.lost("evicted") + cost.packets.untimed;
            let read = run.outcome.all * run.load.reads();
            if accounted < read {
                wrong.push(format!(
                    "{at}: {read} packets were read, {measured} measured, {accounted} accounted for"
                ));
            }
        }
        if run.arm == Arm::Empty && !cost.signals.is_empty() {
            wrong.push(format!("{at}: empty programs measured {:?}", cost.signals));
        }
    }
    wrong
}

fn measures_reads(cost: &Cost) -> bool {
    !cost.off.iter().any(|p| p.starts_with("rx.total"))
}
