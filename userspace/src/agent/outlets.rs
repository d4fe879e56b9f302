//! Where windows go: metrics, export, history, flight recorder. Each may fail by itself; the agent goes on, and says so.

use super::{Hub, archive::Archive, recorder::Recorder};
use crate::{
    capture::{self, Capture},
    config::{AgentConfig, Sections},
    export::{Metrics, Otlp, OtlpError, Resource},
    recommend::Finding,
    snapshot::Snapshot,
};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// How long exports that wait may take when the agent ends.
const PATIENCE: Duration = Duration::from_secs(2);

/// All of them.
pub struct Outlets {
    metrics: Arc<Mutex<Metrics>>,
    otlp: Option<Otlp>,
    archive: Option<Archive>,
    recorder: Recorder,
    /// As they are in force.
    sections: Sections,
}

impl Outlets {
    /// As configured. A history that cannot be kept is said in the status and in the log.
    ///
    /// # Errors
    /// When an export is configured that cannot be.
    pub fn new(config: &AgentConfig, hub: &Arc<Hub>) -> Result<Self, OtlpError> {
        let sections = config.sections.clone();
        Ok(Self {
            metrics: Arc::new(Mutex::new(Metrics::new(&sections.metrics))),
            otlp: Otlp::start(&sections.otlp, resource())?,
            archive: archive(&sections, hub),
            recorder: Recorder::new(&sections.flight, hub),
            sections,
        })
    }

    /// The metrics, for who serves them.
    #[must_use]
    pub fn metrics(&self) -> Arc<Mutex<Metrics>> {
        self.metrics.clone()
    }

    /// A window was closed, and the hub knows it.
    pub(super) fn window(&mut self, hub: &Arc<Hub>, capture: Option<&Capture>, window: &Arc<Snapshot>) {
        if let Some(archive) = &mut self.archive {
            archive.add(window, hub);
        }
        self.recorder.window(hub, capture, window);
        let web = hub.counts().totals();
        hub.update(|status| status.web = web);
        let mut metrics = held(&self.metrics);
        metrics.observe(window);
        metrics.set_status(&hub.status());
        metrics.set_changes(&hub.changes());
        if let Some(otlp) = &mut self.otlp {
            metrics.set_otlp(otlp.stats());
            otlp.tick(&metrics);
        }
    }

    /// There are new findings.
    pub(super) fn findings(&mut self, findings: &[Finding]) {
        held(&self.metrics).set_findings(findings);
    }

    /// Somebody wants what the flight recorder holds.
    pub(super) fn asked(&mut self, hub: &Arc<Hub>, capture: Option<&Capture>, reason: &str) {
        if let Some(capture) = capture {
            self.recorder.asked(hub, capture, reason);
        }
    }

    /// The configuration is another. What cannot be begun anew stays as it was.
    ///
    /// # Errors
    /// Why an export cannot be begun.
    pub(super) fn follow(&mut self, config: &AgentConfig, hub: &Arc<Hub>) -> Result<(), OtlpError> {
        let sections = &config.sections;
        if sections.otlp != self.sections.otlp {
            let otlp = Otlp::start(&sections.otlp, resource())?;
            if let Some(old) = std::mem::replace(&mut self.otlp, otlp) {
                old.finish(PATIENCE);
            }
        }
        held(&self.metrics).reconfigure(&sections.metrics);
        self.recorder.follow(&sections.flight);
        if sections.history != self.sections.history {
            // One writer: the old one ends before the new one begins.
            self.archive = None;
            self.archive = archive(sections, hub);
        }
        self.sections = sections.clone();
        Ok(())
    }

    /// The agent ends: what waits is written and sent.
    pub(super) fn end(self) {
        let Self { otlp, archive, recorder, .. } = self;
        drop((archive, recorder));
        if let Some(otlp) = otlp {
            otlp.finish(PATIENCE);
        }
    }
}

fn archive(sections: &Sections, hub: &Arc<Hub>) -> Option<Archive> {
    if !sections.history.enabled {
        hub.update(|status| status.history = super::HistoryStatus::default());
        return None;
    }
    match Archive::start(&sections.history, hub.clone()) {
        Ok(archive) => Some(archive),
        Err(error) => {
            tracing::error!("no history is kept: {error}");
            hub.update(|status| status.history.error = Some(error.to_string()));
            None
        }
    }
}

fn resource() -> Resource {
    Resource { hostname: capture::hostname(), version: env!("CARGO_PKG_VERSION").to_owned() }
}

fn held(metrics: &Mutex<Metrics>) -> MutexGuard<'_, Metrics> {
    metrics.lock().unwrap_or_else(PoisonError::into_inner)
}
