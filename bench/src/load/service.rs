//! What a server does besides answering, so that an effect of known size can be looked for.

use super::{
    clock::{Clock, nanos},
    schedule::seed,
    spec::Service,
};
use std::time::{Duration, Instant};

/// One thread of a server, before it answers.
pub(super) struct Thinker {
    service: Service,
    /// Whether there is anything to do.
    thinks: bool,
    every_ns: u64,
    stall_ns: u64,
    clock: Clock,
    random: fastrand::Rng,
}

impl Thinker {
    /// `clock` is the same for all threads, so that all stall together.
    pub(super) fn new(service: Service, clock: Clock, seed_of_load: u64, thread: u32) -> Self {
        let (every_ns, stall_ns) = (nanos(service.stall_every), nanos(service.stall));
        let random = fastrand::Rng::with_seed(seed(!seed_of_load, thread));
        let thinks = !service.think.is_zero() || service.slow_share > 0.0 || stall_ns > 0;
        Self { service, thinks, every_ns, stall_ns, clock, random }
    }

    /// Does what is to be done before a request is answered.
    #[inline]
    pub(super) fn think(&mut self) {
        // Most servers only answer.
        if self.thinks {
            self.think_some();
        }
    }

    fn think_some(&mut self) {
        let mut think = self.service.think;
        if self.service.slow_share > 0.0 && self.random.f64() < self.service.slow_share {
            think += self.service.slow;
        }
        if !think.is_zero() {
            sleep_exactly(think);
        }
        // The clock is not worth a look then.
        if self.stall_ns == 0 {
            return;
        }
        if let Some(left_ns) = stalls(self.clock.now_ns(), self.every_ns, self.stall_ns) {
            std::thread::sleep(Duration::from_nanos(left_ns));
        }
    }
}

/// How long a stall still is, ns, at some time: it is the last part of each period, so that a run does not begin with one.
fn stalls(now_ns: u64, every_ns: u64, stall_ns: u64) -> Option<u64> {
    if every_ns == 0 || stall_ns == 0 {
        return None;
    }
    let left_ns = every_ns - now_ns % every_ns;
    (left_ns <= stall_ns).then_some(left_ns)
}

/// Sleeps until shortly before and spins the rest: neither cut short nor much exceeded.
fn sleep_exactly(time: Duration) {
    const SPIN: Duration = Duration::from_micros(200);
    let due = Instant::now() + time;
    if time > SPIN {
        std::thread::sleep(time - SPIN);
    }
    while Instant::now() < due {
        std::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::stalls;

    #[test]
    fn a_stall_is_the_last_part_of_each_period() {
        assert_eq!(stalls(0, 1000, 100), None);
        assert_eq!(stalls(899, 1000, 100), None);
        assert_eq!(stalls(900, 1000, 100), Some(100));
        assert_eq!(stalls(2999, 1000, 100), Some(1));
        assert_eq!(stalls(950, 0, 0), None);
    }
}
