//! What the agent may cost: it measures its own cost, backs off step by step while it is above the budget, and climbs back.
//!
//! Needs the cost of each window; yields the [`Limits`] to measure by. Nothing else decides what is measured less.

use super::Budget;
use crate::{capture::Limits, config::units, live::Cost};
use serde::{Deserialize, Deserializer};

/// `[budget]`.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BudgetConfig {
    /// CPU time of nettrace and its kernel programs, as a share of one CPU; none for no limit.
    #[serde(deserialize_with = "limit_share")]
    pub cpu: Option<f64>,
    /// Resident set and kernel maps, bytes; none for no limit.
    #[serde(deserialize_with = "limit_bytes")]
    pub mem: Option<u64>,
}

impl Default for BudgetConfig {
    fn default() -> Self {
        Self { cpu: Some(0.05), mem: Some(256 << 20) }
    }
}

fn limit_share<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    let share = units::share(deserializer)?;
    Ok((share > 0.0).then_some(share))
}

fn limit_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let bytes = units::bytes(deserializer)?;
    Ok((bytes > 0).then_some(bytes))
}

/// A step of backing off: what it switches down, in words, and what is measured with it.
pub type Step = (&'static str, Limits);

/// All steps, in their order. Exemplars come first, because the histograms have each packet without them; then the share of
/// packets that are timed; then the dear hooks; the rest is hardly anything.
pub const STEPS: [Step; 5] = [
    (
        "packets are kept from 16 times their threshold on",
        Limits { exemplar_shift: 4, packet_shift: 0, without_dear: false },
    ),
    (
        "a quarter of the packets of a busy CPU is timed",
        Limits { exemplar_shift: 4, packet_shift: 2, without_dear: false },
    ),
    (
        "rx.softirq, nf.hook, ct.in and ct.confirm are off",
        Limits { exemplar_shift: 4, packet_shift: 2, without_dear: true },
    ),
    (
        "a sixteenth of the packets of a busy CPU is timed",
        Limits { exemplar_shift: 4, packet_shift: 4, without_dear: true },
    ),
    (
        "no packet is kept, and one in 256 of a busy CPU is timed",
        Limits { exemplar_shift: 63, packet_shift: 8, without_dear: true },
    ),
];

/// Windows that the cost is looked at over: a single one has few readings of the kernel's run-time statistics.
const WINDOWS: usize = 4;
/// A step is taken back when the cost is below this share of the budget.
const LOW: f64 = 0.7;
/// Windows that this has to last: at first, and at the most. It doubles each time that a step had to be taken again.
const PATIENCE: [u32; 2] = [12, 384];

/// Keeps to the budget.
#[derive(Debug)]
pub struct Governor {
    config: BudgetConfig,
    costs: Vec<Cost>,
    step: usize,
    changes: u64,
    /// Windows in a row in which the cost was low.
    low: u32,
    patience: u32,
}

impl Governor {
    /// One that has seen nothing, and measures all.
    #[must_use]
    pub const fn new(config: BudgetConfig) -> Self {
        Self { config, costs: Vec::new(), step: 0, changes: 0, low: 0, patience: PATIENCE[0] }
    }

    /// Keeps to another budget from now on.
    pub const fn set(&mut self, config: BudgetConfig) {
        self.config = config;
        self.low = 0;
    }

    /// Takes the cost of a window. When something is to be measured otherwise from now on, says how.
    pub fn look(&mut self, cost: Cost) -> Option<Limits> {
        self.costs.push(cost);
        if self.costs.len() < WINDOWS {
            return None;
        }
        let used = self.used();
        self.costs.remove(0);
        let over = used.iter().any(|used| *used > 1.0);
        let low = used.iter().all(|used| *used < LOW);
        self.low = if low { self.low + 1 } else { 0 };
        if over && self.step < STEPS.len() {
            if self.changes > 0 {
                self.patience = (self.patience * 2).min(PATIENCE[1]);
            }
            return Some(self.go(self.step + 1));
        }
        if self.step > 0 && self.low >= self.patience {
            return Some(self.go(self.step - 1));
        }
        None
    }

    /// What is measured now.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.step
            .checked_sub(1)
            .and_then(|n| STEPS.get(n))
            .map_or_else(Limits::default, |(_, limits)| *limits)
    }

    /// For the status.
    #[must_use]
    pub fn status(&self) -> Budget {
        Budget {
            cpu_share: self.config.cpu,
            memory_bytes: self.config.mem,
            used_cpu_share: self.cpu_share(),
            used_memory_bytes: self.memory_bytes(),
            step: self.step as u32,
            reduced: STEPS.iter().take(self.step).map(|(what, _)| (*what).to_owned()).collect(),
            changes: self.changes,
        }
    }

    /// Each step is judged by windows that were all measured with it.
    fn go(&mut self, step: usize) -> Limits {
        (self.step, self.low) = (step, 0);
        self.changes += 1;
        self.costs.clear();
        self.limits()
    }

    fn cpu_share(&self) -> f64 {
        let sum: f64 = self.costs.iter().map(|c| c.own_cpu_share + c.kernel_cpu_share).sum();
        sum / self.costs.len().max(1) as f64
    }

    fn memory_bytes(&self) -> u64 {
        self.costs.last().map_or(0, |c| c.rss_bytes + c.map_bytes)
    }

    /// What is used of CPU and memory as a share of the budget.
    fn used(&self) -> [f64; 2] {
        let memory = self.memory_bytes() as f64;
        [
            self.config.cpu.map_or(0.0, |limit| self.cpu_share() / limit),
            self.config.mem.map_or(0.0, |limit| memory / limit as f64),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(cpu: f64) -> Cost {
        Cost {
            own_cpu_share: cpu / 4.0,
            kernel_cpu_share: cpu * 0.75,
            rss_bytes: 1 << 20,
            map_bytes: 1 << 20,
        }
    }

    fn governor(cpu: f64) -> Governor {
        Governor::new(BudgetConfig { cpu: Some(cpu), mem: None })
    }

    /// A node of which each step halves the cost.
    fn run(governor: &mut Governor, full: f64, windows: usize) -> Vec<u32> {
        let mut steps = Vec::new();
        for _ in 0..windows {
            let step = governor.status().step;
            governor.look(cost(full / f64::from(1 << step)));
            steps.push(governor.status().step);
        }
        steps
    }

    #[test]
    fn it_backs_off_as_far_as_it_must_and_no_further() {
        let mut governor = governor(0.01);
        let steps = run(&mut governor, 0.035, 15);
        assert_eq!(steps.last(), Some(&2), "{steps:?}");
        assert_eq!(governor.limits(), STEPS[1].1);
        assert_eq!(governor.status().reduced.len(), 2);
        let steps = run(&mut governor, 10.0, 100);
        assert_eq!(steps.last(), Some(&(STEPS.len() as u32)), "there is an end of it");
    }

    #[test]
    fn it_climbs_back_when_it_is_quiet_and_does_not_swing() {
        let mut governor = governor(0.01);
        run(&mut governor, 0.035, 20);
        let steps = run(&mut governor, 0.001, 200);
        assert_eq!(steps.last(), Some(&0), "{steps:?}");
        assert_eq!(governor.limits(), Limits::default());
        // A cost between two steps: each attempt to climb is paid for by a longer wait.
        let mut swinging = self::governor(0.01);
        let steps = run(&mut swinging, 0.0125, 5000);
        let changes = swinging.status().changes;
        assert!(changes < 40, "{changes} changes in 5,000 windows");
        assert!(steps.iter().all(|s| *s <= 1));
    }

    #[test]
    fn a_single_burst_is_not_judged_alone() {
        let mut governor = governor(0.01);
        run(&mut governor, 0.001, 10);
        governor.look(cost(0.02));
        assert_eq!(run(&mut governor, 0.001, 20).last(), Some(&0));
    }

    #[test]
    fn memory_counts_too_and_nothing_does_without_a_limit() {
        let mut tight = Governor::new(BudgetConfig { cpu: None, mem: Some(1 << 20) });
        assert!(run(&mut tight, 0.5, 8).last().is_some_and(|s| *s > 0));
        let mut free = Governor::new(BudgetConfig { cpu: None, mem: None });
        assert_eq!(run(&mut free, 9.0, 50).last(), Some(&0));
    }

    #[test]
    fn each_step_measures_less_than_the_one_before() {
        let weight = |l: &Limits| (l.exemplar_shift, l.packet_shift, l.without_dear);
        let mut before = (0, 0, false);
        for (_, limits) in &STEPS {
            let now = weight(limits);
            assert!(now.0 >= before.0 && now.1 >= before.1 && now.2 >= before.2 && now != before);
            before = now;
        }
    }
}
