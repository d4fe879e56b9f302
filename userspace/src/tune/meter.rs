//! What objectives are measured by: a capture that runs all the time, of which each window takes its part.

use super::Objective;
use crate::{
    capture::{Capture, CaptureError, Histograms},
    change::transferred_bytes,
    iface::Namespace,
};
use std::{
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

    fn bytes(&self) -> io::Result<u64> {
        if !self.objectives.contains(&Objective::Throughput) {
            return Ok(0);
        }
        let each = self.namespaces.iter().map(|namespace| namespace.within(transferred_bytes)?);
        each.sum()
    }
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
            Objective::Throughput => Some(after.1.saturating_sub(before.1) as f64 / seconds),
            Objective::Latency { signal, scope, quantile } => {
                let hist = after.0.since(&before.0, *signal, scope.as_deref());
                let enough = hist.count() >= objective.least_count();
                enough.then(|| hist.quantile_ns(*quantile) as f64)
            }
        };
        Ok(Reading { values: self.objectives.iter().map(value).collect() })
    }
}
