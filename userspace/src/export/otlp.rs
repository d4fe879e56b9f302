//! The same series sent by OTLP: protobuf over HTTP, with exponential histograms.
//!
//! Needs [`Metrics`] every `interval`; yields requests to a collector's `/v1/metrics`, from a thread of its own with a bounded queue.
//! What cannot be sent is tried again for a time, then counted. Names are those of [`METRICS`](super::METRICS) without unit and
//! suffix, which a collector that exports to Prometheus adds again.
//!
//! Source: <https://opentelemetry.io/docs/specs/otlp/>, opentelemetry/proto/metrics/v1/metrics.proto.

mod request;
mod send;

use super::Metrics;
use request::Baseline;
use send::Sender;
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// `[otlp]` of the configuration file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OtlpConfig {
    /// Where to: `http://127.0.0.1:4318/v1/metrics`; none for no export.
    pub endpoint: Option<String>,
    /// Time between two exports.
    #[serde(deserialize_with = "crate::config::units::duration")]
    pub interval: Duration,
    /// How long one attempt may take.
    #[serde(deserialize_with = "crate::config::units::duration")]
    pub timeout: Duration,
    /// For how long an export is tried again.
    #[serde(deserialize_with = "crate::config::units::duration")]
    pub retry_for: Duration,
    /// Exports that wait while one is sent.
    pub queue: usize,
    /// Whether numbers are since the start, or since the export before.
    pub temporality: Temporality,
    /// Headers to send with each, such as an API key.
    pub headers: BTreeMap<String, String>,
}

/// Since when numbers are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Temporality {
    /// The agent's start.
    #[default]
    Cumulative,
    /// The export before.
    Delta,
}

impl Default for OtlpConfig {
    fn default() -> Self {
        Self {
            endpoint: None,
            interval: Duration::from_secs(30),
            timeout: Duration::from_secs(10),
            retry_for: Duration::from_secs(60),
            queue: 4,
            temporality: Temporality::Cumulative,
            headers: BTreeMap::new(),
        }
    }
}

/// Why nothing can be exported.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    /// No address of a collector.
    #[error(
        "[otlp] endpoint `{0}`: expected http://HOST:PORT/PATH, such as http://127.0.0.1:4318/v1/metrics"
    )]
    Endpoint(String),
    /// A header that cannot be sent.
    #[error("[otlp] headers: `{0}` is no name and value of an HTTP header")]
    Header(String),
    /// The thread cannot be started.
    #[error("cannot start the thread that exports by OTLP: {0}")]
    Thread(std::io::Error),
}

/// What became of exports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OtlpStats {
    /// Sent and taken.
    pub sent: u64,
    /// Given up: refused, or not taken within the time for trying again.
    pub failed: u64,
    /// Not even queued, because exports before were still waiting. Of a delta nothing is lost by it.
    pub dropped: u64,
    /// Attempts that were repeated.
    pub retried: u64,
    /// Data points that a collector said it would not take.
    pub rejected: u64,
}

/// Whose metrics they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resource {
    /// `host.name`
    pub hostname: String,
    /// `service.version`
    pub version: String,
}

/// An exporter.
pub struct Otlp {
    sender: Sender,
    resource: Resource,
    temporality: Temporality,
    interval: Duration,
    start_unix_ns: u64,
    last_unix_ns: Option<u64>,
    baseline: Baseline,
    dropped: u64,
}

impl Otlp {
    /// Starts one; none without an endpoint.
    ///
    /// # Errors
    /// When endpoint or headers cannot be used, or no thread can be started. Whether somebody listens shows only later.
    pub fn start(config: &OtlpConfig, resource: Resource) -> Result<Option<Self>, OtlpError> {
        let Some(endpoint) = &config.endpoint else { return Ok(None) };
        Ok(Some(Self {
            sender: Sender::start(endpoint, config)?,
            resource,
            temporality: config.temporality,
            interval: config.interval,
            start_unix_ns: now_unix_ns(),
            last_unix_ns: None,
            baseline: Baseline::default(),
            dropped: 0,
        }))
    }

    /// Exports when it is time to. To be called after each window.
    pub fn tick(&mut self, metrics: &Metrics) {
        let now_ns = now_unix_ns();
        let interval_ns = u64::try_from(self.interval.as_nanos()).unwrap_or(u64::MAX);
        // A clock that was set back does not stop exports.
        if self.last_unix_ns.is_none_or(|last| now_ns < last || now_ns - last >= interval_ns) {
            self.export(metrics, now_ns);
        }
    }

    /// Exports now.
    pub fn export(&mut self, metrics: &Metrics, now_unix_ns: u64) {
        let since_ns = match self.temporality {
            Temporality::Cumulative => self.start_unix_ns,
            Temporality::Delta => self.last_unix_ns.unwrap_or(self.start_unix_ns),
        };
        let families = metrics.families();
        let times = request::Times { since_ns: since_ns.min(now_unix_ns), now_ns: now_unix_ns };
        let baseline = (self.temporality == Temporality::Delta).then_some(&self.baseline);
        let body = request::encode(&families, &self.resource, times, baseline);
        if !self.sender.put(body) {
            // The next delta is told from the same baseline on.
            self.dropped += 1;
            return;
        }
        self.last_unix_ns = Some(now_unix_ns);
        if self.temporality == Temporality::Delta {
            self.baseline = Baseline::of(&families);
        }
    }

    /// What became of exports so far.
    #[must_use]
    pub fn stats(&self) -> OtlpStats {
        OtlpStats { dropped: self.dropped, ..self.sender.stats() }
    }

    /// Sends what waits, for so long at the most.
    pub fn finish(self, patience: Duration) -> OtlpStats {
        let dropped = self.dropped;
        OtlpStats { dropped, ..self.sender.finish(patience) }
    }
}

fn now_unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
