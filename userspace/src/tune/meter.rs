//! What objectives are measured by: a capture that runs all the time, of which each window takes its part.

use super::Objective;
use crate::{
    capture::{Capture, CaptureError, Histograms},
    iface::Namespace,
    rtnl::transferred_bytes,
};
use std::{
    collections::BTreeMap,
    io, thread,
    time::{Duration, Instant},
};

/// How often the capture's books are kept in a window.
const TICK: Duration = Duration::from_millis(50);

/// Values of a window, in the objectives' order: ns, or bytes a second. None where there was too little traffic.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// One for each objective.
    pub values: Vec<Option<f64>>,
}

/// It cannot be measured.
#[derive(Debug, thiserror::Error)]
pub enum MeterError {
    /// The capture.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// An interface's counters.
    #[error("cannot read the counters of interfaces: {0}")]
    Counters(#[from] io::Error),
}

/// Something that measures.
pub trait Meter {
    /// What objectives come to in a window that begins now.
    ///
    /// # Errors
    /// When it cannot be measured.
    fn window(&mut self, length: Duration) -> Result<Reading, MeterError>;
}

/// By nettrace's own probes.
pub struct CaptureMeter {
    capture: Capture,
    namespaces: Vec<Namespace>,
    objectives: Vec<Objective>,
}

impl CaptureMeter {
    /// Of a capture that runs, in these namespaces.
    #[must_use]
    pub const fn new(capture: Capture, namespaces: Vec<Namespace>, objectives: Vec<Objective>) -> Self {
        Self { capture, namespaces, objectives }
    }

    /// Ends the capture.
    ///
    /// # Errors
    /// As [`Capture::stop`].
    pub fn stop(self) -> Result<(), CaptureError> {
        self.capture.stop().map(drop)
    }

    fn histograms(&self) -> Result<Histograms, CaptureError> {
        self.capture.histograms(|signal| self.objectives.iter().any(|o| o.signal() == Some(signal)))
    }

    fn bytes(&self) -> io::Result<Bytes> {
        if !self.objectives.contains(&Objective::Throughput) {
            return Ok(Bytes::new());
        }
        self.namespaces.iter().map(|namespace| namespace.within(transferred_bytes)?).collect()
    }
}

/// Of each namespace, bytes by interface.
type Bytes = Vec<BTreeMap<i32, u64>>;

/// What went through interfaces meanwhile: all of those that are new, and nothing of those that are gone.
fn since(before: &[BTreeMap<i32, u64>], after: &[BTreeMap<i32, u64>]) -> u64 {
    let of = |(before, after): (&BTreeMap<i32, u64>, &BTreeMap<i32, u64>)| -> u64 {
        let each = after.iter().map(|(index, bytes)| {
            // One whose counters were begun anew is a new one.
            before.get(index).map_or(*bytes, |then| bytes.checked_sub(*then).unwrap_or(*bytes))
        });
        each.sum()
    };
    before.iter().zip(after).map(of).sum()
}

impl Meter for CaptureMeter {
    fn window(&mut self, length: Duration) -> Result<Reading, MeterError> {
        let before = (self.histograms()?, self.bytes()?);
        let begun = Instant::now();
        while let Some(left) = length.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) {
            thread::sleep(left.min(TICK));
            self.capture.tick();
        }
        let after = (self.histograms()?, self.bytes()?);
        let seconds = begun.elapsed().as_secs_f64();
        let value = |objective: &Objective| match objective {
            Objective::Throughput => Some(since(&before.1, &after.1) as f64 / seconds),
            Objective::Latency { signal, scope, quantile } => {
                let hist = after.0.since(&before.0, *signal, scope.as_deref());
                let enough = hist.count() >= objective.least_count();
                enough.then(|| hist.quantile_ns(*quantile) as f64)
            }
        };
        Ok(Reading { values: self.objectives.iter().map(value).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_those_of_each_interface_in_the_window() {
        let of = |rows: &[(i32, u64)]| vec![rows.iter().copied().collect::<BTreeMap<_, _>>()];
        assert_eq!(since(&of(&[(2, 100), (3, 5)]), &of(&[(2, 160), (3, 5)])), 60);
        assert_eq!(since(&of(&[(2, 100), (3, 1 << 40)]), &of(&[(2, 110)])), 10, "one is gone");
        assert_eq!(since(&of(&[(2, 100)]), &of(&[(2, 110), (4, 7)])), 17, "one is new");
        assert_eq!(since(&of(&[(2, 100)]), &of(&[(2, 30)])), 30, "its counters began anew");
    }
}
