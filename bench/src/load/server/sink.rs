//! What comes of a load that goes one way: units by slices of time, by the server's own clock.
//!
//! The two ends need no common clock: the warm-up begins with the first that comes.

use super::super::{
    clock::nanos,
    outcome::{Received, SLICE},
    spec::Load,
};
use std::sync::atomic::{AtomicU64, Ordering};

/// When the first came, ns since the server's start; none yet.
#[derive(Debug)]
pub(super) struct Origin(AtomicU64);

const NONE: u64 = u64::MAX;

impl Default for Origin {
    fn default() -> Self {
        Self(AtomicU64::new(NONE))
    }
}

impl Origin {
    /// The first of all threads; now, if there was none.
    fn first(&self, now_ns: u64) -> u64 {
        match self.0.compare_exchange(NONE, now_ns, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => now_ns,
            Err(first_ns) => first_ns,
        }
    }
}

/// What one thread received.
pub(super) struct Sink {
    begin_ns: Option<u64>,
    warm_up_ns: u64,
    measure_ns: u64,
    units: u64,
    last_ns: u64,
    slices: Vec<u64>,
}

impl Sink {
    pub(super) fn new(load: &Load) -> Self {
        let measure_ns = nanos(load.times.measure);
        let slices = usize::try_from(measure_ns / nanos(SLICE)).unwrap_or(0);
        let warm_up_ns = nanos(load.times.warm_up);
        Self { begin_ns: None, warm_up_ns, measure_ns, units: 0, last_ns: 0, slices: vec![0; slices] }
    }

    /// Some came.
    pub(super) fn count(&mut self, units: u64, now_ns: u64, origin: &Origin) {
        let begin_ns = match self.begin_ns {
            Some(begin_ns) => begin_ns,
            None => *self.begin_ns.insert(origin.first(now_ns) + self.warm_up_ns),
        };
        let Some(since_ns) = now_ns.checked_sub(begin_ns).filter(|since_ns| *since_ns < self.measure_ns)
        else {
            return;
        };
        self.units += units;
        self.last_ns = since_ns;
        if let Some(slice) =
            usize::try_from(since_ns / nanos(SLICE)).ok().and_then(|n| self.slices.get_mut(n))
        {
            *slice += units;
        }
    }

    /// Of all threads. None where the load has no sink.
    pub(super) fn sum(sinks: Vec<Self>, load: &Load, origin: &Origin) -> Option<Received> {
        if !load.kind.is_one_way() {
            return None;
        }
        let mut received = Received::default();
        let slices = usize::try_from(nanos(load.times.measure) / nanos(SLICE)).unwrap_or(0);
        received.slices = vec![0; slices];
        for sink in sinks {
            received.units += sink.units;
            received.elapsed_ns = received.elapsed_ns.max(sink.last_ns);
            received.slices.iter_mut().zip(&sink.slices).for_each(|(sum, n)| *sum += n);
        }
        let came = origin.0.load(Ordering::Relaxed) != NONE;
        let whole = usize::try_from(received.elapsed_ns / nanos(SLICE)).unwrap_or(0);
        received.slices.truncate(if came { whole } else { 0 });
        Some(received)
    }
}
