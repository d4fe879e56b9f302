//! What Prometheus scrapes: series that grow with every window, in the three formats that scrapers ask for.
//!
//! Needs windows, the agent's status, findings and changes; yields OpenMetrics text, classic text, or length-delimited
//! protobuf, which alone takes native histograms. Names and units are Prometheus' conventions: base units, `_total`, `_info`.

mod buckets;
mod config;
mod docs;
mod encode;
mod fill;
mod protobuf;
mod store;
mod table;
mod text;

pub use config::MetricsConfig;
pub use docs::page as metrics_page;
pub use encode::Encoded;
pub use table::{Kind, METRICS, Metric, Unit};

pub(super) use buckets::{Distribution, NATIVE_SCHEMA, ZERO_THRESHOLD_S};
pub(super) use store::{Row, Value};

use crate::{
    agent::{ChangeRow, Status},
    recommend::Finding,
    snapshot::Snapshot,
};
use store::Store;

/// Everything that is exported, over the agent's life.
pub struct Metrics {
    store: Store,
    native: bool,
}

impl Metrics {
    /// Without anything yet.
    #[must_use]
    pub fn new(config: &MetricsConfig) -> Self {
        Self { store: Store::new(config.max_series, &config.classic_buckets), native: config.native }
    }

    /// Takes a configuration that was read anew. Counts go on. Classic buckets stay those of the start: counts in others cannot
    /// be made of them.
    pub fn reconfigure(&mut self, config: &MetricsConfig) {
        self.store.set_max_series(config.max_series);
        self.native = config.native;
        if !self.store.has_bounds(&config.classic_buckets) {
            tracing::warn!("[metrics] classic_buckets: what changed there takes effect at the next start");
        }
    }

    /// Adds what happened in a window.
    pub fn observe(&mut self, window: &Snapshot) {
        fill::window(&mut self.store, window);
    }

    /// How the agent is doing.
    pub fn set_status(&mut self, status: &Status) {
        fill::status(&mut self.store, status);
    }

    /// What is advised now.
    pub fn set_findings(&mut self, findings: &[Finding]) {
        fill::findings(&mut self.store, findings);
    }

    /// What nettrace changed on this node, oldest first.
    pub fn set_changes(&mut self, changes: &[ChangeRow]) {
        fill::changes(&mut self.store, changes);
    }

    /// What became of exports by OTLP.
    pub fn set_otlp(&mut self, stats: super::OtlpStats) {
        fill::otlp(&mut self.store, stats);
    }

    /// In the format that a scraper's `Accept` asks for; the classic text format for one that does not say.
    #[must_use]
    pub fn encode(&self, accept: Option<&str>) -> Encoded {
        encode::encode(&self.store, self.native, accept)
    }

    /// Series that a scrape in a text format has.
    #[must_use]
    pub fn series(&self) -> usize {
        self.store.series()
    }

    /// All series by metric, in the order of the table.
    pub(super) fn families(&self) -> Vec<(&'static Metric, Vec<Row<'_>>)> {
        self.store.families()
    }
}

#[cfg(test)]
mod tests;
