//! What a run of a load came to, at both ends.

use super::{
    error::Failure,
    spec::{Arrivals, Load, Pace},
};
use crate::cpu::{Pinned, Used};
use hdrhistogram::Histogram;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, time::Duration};

/// Longest latency that is told apart, ns: longer ones count as so long.
pub const HIGHEST_NS: u64 = 600_000_000_000;
/// Throughput is kept for each slice of this length: a machine is not disturbed in all of them.
pub const SLICE: Duration = Duration::from_millis(10);

/// How a load was paced, which says what its latencies mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The next request follows the last answer. A server that stalls is asked less often while it does: the tail is not
    /// that of clients which come whether or not others wait (coordinated omission).
    Closed,
    /// By a schedule of equal times; latency counts from the scheduled time.
    OpenConstant,
    /// By a Poisson process; latency counts from the scheduled time.
    OpenPoisson,
    /// So many at once; latency counts from the scheduled time.
    OpenBurst,
}

impl Mode {
    /// Of a load.
    #[must_use]
    pub const fn of(load: &Load) -> Self {
        match load.pace {
            Pace::Closed => Self::Closed,
            Pace::Open { arrivals: Arrivals::Constant, .. } => Self::OpenConstant,
            Pace::Open { arrivals: Arrivals::Poisson, .. } => Self::OpenPoisson,
            Pace::Open { arrivals: Arrivals::Burst(_), .. } => Self::OpenBurst,
        }
    }

    /// For reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed loop",
            Self::OpenConstant => "open loop, constant",
            Self::OpenPoisson => "open loop, Poisson",
            Self::OpenBurst => "open loop, bursts",
        }
    }
}

/// Requests without an answer, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Errors([u64; Failure::ALL.len()]);

impl Errors {
    /// One more.
    pub fn count(&mut self, failure: Failure) {
        self.0[failure.index()] += 1;
    }

    /// Of one reason.
    #[must_use]
    pub const fn of(&self, failure: Failure) -> u64 {
        self.0[failure.index()]
    }

    /// Of all reasons.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Those that there are.
    pub fn iter(&self) -> impl Iterator<Item = (Failure, u64)> + '_ {
        Failure::ALL.into_iter().map(|f| (f, self.of(f))).filter(|(_, n)| *n > 0)
    }

    /// Of another thread.
    pub(super) fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, n)| *sum += n);
    }

    /// By name, for results.
    #[must_use]
    pub fn by_name(&self) -> BTreeMap<String, u64> {
        self.iter().map(|(f, n)| (f.name().to_owned(), n)).collect()
    }
}

/// What the client of one load saw. Warm-up is in nothing but [`Outcome::all`].
///
/// `begun = answered + errors.total()`, and `latency` holds `answered` and those of the errors that ended by waiting
/// ([`Failure::TimedOut`], [`Failure::Unsent`]), with as long as they waited: leaving them out would flatter the tail.
#[derive(Clone, PartialEq)]
pub struct Outcome {
    /// How it was paced.
    pub mode: Mode,
    /// Requests that were to be sent, by the schedule or because the last was answered. One way: writes, datagrams.
    pub begun: u64,
    /// Answers. One way: what the kernel took.
    pub answered: u64,
    /// Answers with those of the warm-up: what an observer of the network saw.
    pub all: u64,
    /// Requests without an answer.
    pub errors: Errors,
    /// Length of the measurement, ns: to its end, or to the last answer if that came later.
    pub elapsed_ns: u64,
    /// Payload that was sent, bytes.
    pub sent_bytes: u64,
    /// Payload of answers, bytes.
    pub received_bytes: u64,
    /// From the intended time to the whole answer, ns; in a closed loop a request is intended when it is sent. Empty where
    /// nothing comes back.
    pub latency: Histogram<u64>,
    /// From the time at which it was sent to the whole answer, ns: what the server and the way took, without the wait for the
    /// generator and for those before. None in a closed loop, where it is the latency.
    pub service: Option<Histogram<u64>>,
    /// How late requests were sent, ns: the generator's own honesty. None in a closed loop.
    pub lateness: Option<Histogram<u64>>,
    /// Answers in each [`SLICE`] of the measurement, whole ones.
    pub slices: Vec<u32>,
    /// CPU time of the client's threads.
    pub cpu: Used,
    /// Where they ran.
    pub pinned: Pinned,
    /// Why the run ended before its time, if it did.
    pub partial: Option<String>,
}

impl fmt::Debug for Outcome {
    /// Without the thousands of counts that a histogram and the slices are made of.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mode, begun, answered, all, errors, elapsed_ns, cpu, pinned, partial, .. } = self;
        let quantiles = |hist: &Histogram<u64>| [0.5, 0.99, 1.0].map(|q| hist.value_at_quantile(q));
        f.debug_struct("Outcome")
            .field("mode", mode)
            .field("begun", begun)
            .field("answered", answered)
            .field("all", all)
            .field("errors", &errors.by_name())
            .field("elapsed_ns", elapsed_ns)
            .field("latency p50, p99, max, ns", &quantiles(&self.latency))
            .field("lateness p50, p99, max, ns", &self.lateness.as_ref().map(quantiles))
            .field("cpu_share", &cpu.share())
            .field("pinned", pinned)
            .field("partial", partial)
            .finish_non_exhaustive()
    }
}

impl Outcome {
    /// Answers a second.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        per_second(self.answered, self.elapsed_ns)
    }
}

/// What a server of one load saw, with the warm-up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Served {
    /// Connections that were accepted.
    pub connections: u64,
    /// Requests that were answered; of a flood datagrams, of a stream reads.
    pub requests: u64,
    /// Payload that was received, bytes.
    pub received_bytes: u64,
    /// Payload that was sent, bytes.
    pub sent_bytes: u64,
    /// Connections and datagrams from addresses that are none of the client's; nothing was done with them.
    pub strangers: u64,
    /// Requests that could not be answered.
    pub failed: u64,
    /// CPU time of the server's threads.
    pub cpu: Used,
    /// Where they ran.
    pub pinned: Pinned,
    /// What came of a stream or a flood.
    pub received: Option<Received>,
}

/// What came of a load that goes one way, without the warm-up, by the server's own clock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Received {
    /// Bytes of a stream, datagrams of a flood.
    pub units: u64,
    /// From the end of the warm-up, which begins with the first that comes, to the last unit or the end of the measurement,
    /// whichever is first, ns.
    pub elapsed_ns: u64,
    /// Units in each [`SLICE`] of it.
    pub slices: Vec<u64>,
}

impl Received {
    /// Units a second.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        per_second(self.units, self.elapsed_ns)
    }
}

fn per_second(count: u64, elapsed_ns: u64) -> f64 {
    count as f64 * 1e9 / elapsed_ns.max(1) as f64
}
