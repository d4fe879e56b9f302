//! What nettrace's own probes see while a load runs, by arm: where on its way the time went.
//!
//! Needs root. The capture runs through all rounds, so that its cost is the same in both arms; what is measured between rounds
//! is left out. Yields a distribution for each signal and arm.

use super::BenchError;
use crate::{
    capture::{Capture, Histograms, Options},
    iface::Namespace,
    snapshot::Hist,
};
use nettrace_bench::result::{Arm, Latencies, Segment};
use nettrace_common::Signal;

/// A capture that runs beside a bench.
pub struct Probes {
    capture: Capture,
    before: Option<Histograms>,
    seen: Vec<(Signal, [Hist; 2])>,
}

impl Probes {
    /// Starts it.
    ///
    /// # Errors
    /// As [`Capture::start`].
    pub fn start(namespaces: Vec<Namespace>) -> Result<Self, BenchError> {
        let options = Options { namespaces, lab: true, ..Options::default() };
        let seen = Signal::ALL.into_iter().map(|signal| (signal, [Hist::new(), Hist::new()])).collect();
        Ok(Self { capture: Capture::start(options)?, before: None, seen })
    }

    /// A round begins.
    ///
    /// # Errors
    /// When the kernel's histograms cannot be read.
    pub fn begin(&mut self) -> Result<(), BenchError> {
        self.capture.tick();
        self.before = Some(self.capture.histograms(|_| true)?);
        Ok(())
    }

    /// A round of an arm is over.
    ///
    /// # Errors
    /// When the kernel's histograms cannot be read.
    pub fn end(&mut self, arm: Arm) -> Result<(), BenchError> {
        let Some(before) = self.before.take() else { return Ok(()) };
        let now = self.capture.histograms(|_| true)?;
        for (signal, hists) in &mut self.seen {
            hists[usize::from(arm == Arm::B)].merge(&now.since(&before, *signal, None));
        }
        Ok(())
    }

    /// Ends it: signals that were seen, in the order of a packet's way.
    ///
    /// # Errors
    /// As [`Capture::stop`].
    pub fn stop(self) -> Result<Vec<Segment>, BenchError> {
        self.capture.stop()?;
        let seen = self.seen.into_iter().filter(|(_, hists)| hists.iter().any(|hist| !hist.is_empty()));
        let segment = |(signal, hists): (Signal, [Hist; 2])| Segment {
            signal: signal.name().to_owned(),
            latency: hists.map(|hist| Latencies::from(hist.histogram())),
        };
        Ok(seen.map(segment).collect())
    }
}
