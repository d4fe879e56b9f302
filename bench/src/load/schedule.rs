//! When each request of an open loop is to be sent.
//!
//! Needs a [`Pace`]; yields times since the start of the run, ns, in order. A schedule knows nothing of answers, and none of its
//! times is ever left out: who is late sends late.

use super::spec::{Arrivals, Load, Pace};

/// The times of one connection.
#[derive(Debug)]
pub struct Schedule {
    arrivals: Arrivals,
    /// Mean time between two, ns; of bursts between their begins.
    interval_ns: f64,
    /// Requests of a burst that this connection sends.
    burst: u64,
    first_ns: f64,
    /// Sum of the times between, for those that are drawn.
    at_ns: f64,
    number: u64,
    random: fastrand::Rng,
}

impl Schedule {
    /// That of one of a load's connections, from 0; none in a closed loop.
    ///
    /// Connections share the load's rate. Constant ones take turns, so that all of them together are constant; the sum of
    /// Poisson processes is one (Kingman 1993); bursts of all begin at the same time.
    #[must_use]
    pub fn of(load: &Load, connection: u32) -> Option<Self> {
        let Pace::Open { rate_per_second, arrivals } = load.pace else { return None };
        let each_ns = 1e9 / rate_per_second;
        let connections = f64::from(load.connections.max(1));
        let (interval_ns, burst, first_ns) = match arrivals {
            Arrivals::Constant => (each_ns * connections, 1, each_ns * f64::from(connection)),
            Arrivals::Poisson => (each_ns * connections, 1, 0.0),
            Arrivals::Burst(n) => {
                (each_ns * f64::from(n), u64::from(n / load.connections.max(1)).max(1), 0.0)
            }
        };
        let seed = seed(load.seed, connection);
        let mut schedule = Self {
            arrivals,
            interval_ns,
            burst,
            first_ns,
            at_ns: 0.0,
            number: 0,
            random: fastrand::Rng::with_seed(seed),
        };
        if arrivals == Arrivals::Poisson {
            schedule.at_ns = schedule.drawn();
        }
        Some(schedule)
    }

    /// When the next one is to be sent, ns since the start.
    #[must_use]
    pub fn peek(&self) -> u64 {
        // Longer than a load runs a `f64` has no ns, but that is some hundred days.
        let at_ns = match self.arrivals {
            // Counted and not added up: no rounding adds up either.
            Arrivals::Constant => self.interval_ns.mul_add(self.number as f64, self.first_ns),
            Arrivals::Poisson => self.at_ns,
            Arrivals::Burst(_) => self.interval_ns * (self.number / self.burst) as f64,
        };
        at_ns as u64
    }

    /// It is sent, or given up: on to the one after.
    pub fn advance(&mut self) {
        self.number += 1;
        if self.arrivals == Arrivals::Poisson {
            self.at_ns += self.drawn();
        }
    }

    /// An exponentially distributed time, by inversion.
    fn drawn(&mut self) -> f64 {
        // In (0, 1]: the logarithm of 0 is no time.
        -(1.0 - self.random.f64()).ln() * self.interval_ns
    }
}

/// One of many from one: neighbours are not to draw related numbers, so they are spread over the range, by the golden ratio
/// as a fraction of it (Knuth 1973, multiplicative hashing).
pub(super) const fn seed(of_load: u64, thread: u32) -> u64 {
    const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;
    of_load.wrapping_add(thread as u64 + 1).wrapping_mul(SPREAD)
}
