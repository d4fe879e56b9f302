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

#[cfg(test)]
mod tests {
    use super::{
        super::args::{ArrivalName, KindName, LoadArgs},
        *,
    };

    fn times(load: &Load, connection: u32, until_ns: u64) -> Vec<u64> {
        let mut schedule = Schedule::of(load, connection).unwrap();
        let mut times = Vec::new();
        while schedule.peek() < until_ns {
            times.push(schedule.peek());
            schedule.advance();
        }
        times
    }

    fn load(rate: f64, arrivals: ArrivalName, connections: u32) -> Load {
        let (rate, arrivals, connections) = (Some(rate), Some(arrivals), Some(connections));
        LoadArgs { rate, arrivals, connections, ..LoadArgs::of(KindName::UdpRr) }
            .resolve()
            .unwrap()
            .parts
            .remove(0)
    }

    #[test]
    fn connections_take_turns_at_a_constant_rate() {
        // A rate whose interval is no whole number of ns: nothing adds up.
        let load = load(3000.0, ArrivalName::Constant, 3);
        let mut all: Vec<u64> = (0..3).flat_map(|c| times(&load, c, 60_000_000_000)).collect();
        all.sort_unstable();
        assert_eq!(all.len(), 3000 * 60);
        assert!(all.windows(2).all(|pair| (333_332..=333_335).contains(&(pair[1] - pair[0]))));
    }

    #[test]
    fn poisson_arrivals_are_as_many_and_as_irregular_as_they_are_to_be() {
        let load = load(1000.0, ArrivalName::Poisson, 2);
        let mut all: Vec<u64> = (0..2).flat_map(|c| times(&load, c, 100_000_000_000)).collect();
        all.sort_unstable();
        // 100,000 are expected, with a standard deviation of 316: five of them.
        assert!(all.len().abs_diff(100_000) < 1600, "{}", all.len());
        let gaps: Vec<f64> = all.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        // The standard deviation of an exponential distribution is its mean.
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.02, "{mean} {variance}");
        assert_ne!(times(&load, 0, 1_000_000_000), times(&load, 1, 1_000_000_000));
        assert_eq!(times(&load, 1, 1_000_000_000), times(&load, 1, 1_000_000_000), "the same seed");
    }

    #[test]
    fn bursts_begin_together() {
        let args = LoadArgs {
            burst: Some(6),
            rate: Some(12.0),
            connections: Some(2),
            ..LoadArgs::of(KindName::ConnectBurst)
        };
        let load = args.resolve().unwrap().parts.remove(0);
        for connection in 0..2 {
            let half_a_second = 500_000_000;
            let expected = [0, 0, 0, half_a_second, half_a_second, half_a_second];
            assert_eq!(times(&load, connection, 1_000_000_000), expected);
        }
    }

    #[test]
    fn a_closed_loop_has_no_schedule() {
        let load = LoadArgs::of(KindName::TcpRr).resolve().unwrap().parts.remove(0);
        assert!(Schedule::of(&load, 0).is_none());
    }
}
