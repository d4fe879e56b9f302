//! Metrics for others: what windows of a capture come to over an agent's life.
//!
//! Needs the [`Snapshot`](crate::snapshot::Snapshot) of each window; yields what Prometheus scrapes ([`Metrics::encode`]) and
//! what is sent by OTLP ([`Otlp`]). Both are written from one set of series, whose number is bounded, and whose names, units and
//! labels are in one table, [`METRICS`], from which `docs/metrics.md` is made.

mod otlp;
mod prometheus;

pub use otlp::{Otlp, OtlpConfig, OtlpError, OtlpStats, Resource, Temporality};
pub use prometheus::{Encoded, Kind, METRICS, Metric, Metrics, MetricsConfig, Unit, metrics_page};
