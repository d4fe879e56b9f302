//! Series as an `ExportMetricsServiceRequest`.

use super::Resource;
use crate::export::{
    Kind, Metric, Unit,
    prometheus::{Distribution, NATIVE_SCHEMA, Row, Value, ZERO_THRESHOLD_S},
};
use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
    metrics::v1::{
        self as otlp, AggregationTemporality, Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint,
        Gauge, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, exemplar,
        exponential_histogram_data_point::Buckets, metric::Data, number_data_point,
    },
    resource::v1 as resource,
};
use prost::Message as _;
use std::collections::BTreeMap;

/// Of what time numbers are, Unix time, ns.
#[derive(Clone, Copy)]
pub(super) struct Times {
    pub(super) since_ns: u64,
    pub(super) now_ns: u64,
}

/// What was exported before.
#[derive(Default)]
pub(super) struct Baseline(BTreeMap<(&'static str, Vec<String>), Told>);

enum Told {
    Number(u128),
    Histogram(Counts),
}

/// A distribution.
#[derive(Clone, Default)]
struct Counts {
    count: u64,
    zero: u64,
    sum_s: f64,
    buckets: BTreeMap<i32, u64>,
}

impl Counts {
    fn of(all: &Distribution) -> Self {
        Self { count: all.count(), zero: all.zero(), sum_s: all.sum_s(), buckets: all.native().collect() }
    }

    /// What came since. One that was taken away in between begins at 0 again.
    fn since(mut self, before: &Self) -> Self {
        if self.count < before.count {
            return self;
        }
        self.count -= before.count;
        self.zero = self.zero.saturating_sub(before.zero);
        self.sum_s = (self.sum_s - before.sum_s).max(0.0);
        for (bucket, count) in &mut self.buckets {
            *count = count.saturating_sub(before.buckets.get(bucket).copied().unwrap_or(0));
        }
        self.buckets.retain(|_, count| *count > 0);
        self
    }
}

impl Baseline {
    pub(super) fn of(families: &[(&'static Metric, Vec<Row<'_>>)]) -> Self {
        let mut told = BTreeMap::new();
        for (metric, rows) in families {
            for (labels, value) in rows {
                let value = match value {
                    Value::Count(n) => Told::Number(u128::from(*n)),
                    Value::Nanos(ns) => Told::Number(*ns),
                    Value::Histogram(all) => Told::Histogram(Counts::of(all)),
                    Value::Gauge(_) => continue,
                };
                told.insert((metric.name, labels.to_vec()), value);
            }
        }
        Self(told)
    }
}

/// What is exported of one series.
struct Point<'a> {
    labels: &'a [String],
    metric: &'static Metric,
    times: Times,
    before: Option<&'a Told>,
}

/// The request's bytes. With a baseline numbers are those that came since.
pub(super) fn encode(
    families: &[(&'static Metric, Vec<Row<'_>>)],
    of: &Resource,
    times: Times,
    baseline: Option<&Baseline>,
) -> Vec<u8> {
    let temporality = match baseline {
        Some(_) => AggregationTemporality::Delta,
        None => AggregationTemporality::Cumulative,
    } as i32;
    let metrics = families.iter().map(|(metric, rows)| {
        let points = rows.iter().map(|(labels, value)| {
            let before = baseline.and_then(|told| told.0.get(&(metric.name, labels.to_vec())));
            (Point { labels, metric, times, before }, *value)
        });
        family(metric, points, temporality)
    });
    let scope = InstrumentationScope {
        name: "nettrace".to_owned(),
        version: of.version.clone(),
        ..InstrumentationScope::default()
    };
    let attributes =
        [("service.name", "nettrace"), ("service.version", &of.version), ("host.name", &of.hostname)];
    let resource = resource::Resource {
        attributes: attributes.map(|(name, value)| attribute(name, value)).to_vec(),
        ..resource::Resource::default()
    };
    let metrics = ScopeMetrics { scope: Some(scope), metrics: metrics.collect(), schema_url: String::new() };
    let all =
        ResourceMetrics { resource: Some(resource), scope_metrics: vec![metrics], schema_url: String::new() };
    ExportMetricsServiceRequest { resource_metrics: vec![all] }.encode_to_vec()
}

fn family<'a>(
    metric: &'static Metric,
    points: impl Iterator<Item = (Point<'a>, &'a Value)>,
    aggregation_temporality: i32,
) -> otlp::Metric {
    let data = match metric.kind {
        Kind::Histogram => {
            let data_points = points.filter_map(|(point, value)| point.histogram(value)).collect();
            Data::ExponentialHistogram(ExponentialHistogram { data_points, aggregation_temporality })
        }
        Kind::Counter => {
            let data_points = points.filter_map(|(point, value)| point.number(value)).collect();
            Data::Sum(Sum { data_points, aggregation_temporality, is_monotonic: true })
        }
        Kind::Gauge | Kind::Info => {
            let data_points = points.filter_map(|(point, value)| point.number(value)).collect();
            Data::Gauge(Gauge { data_points })
        }
    };
    otlp::Metric {
        name: if metric.kind == Kind::Info { metric.full_name() } else { metric.name.to_owned() },
        description: metric.help.to_owned(),
        unit: unit(metric.unit).to_owned(),
        metadata: Vec::new(),
        data: Some(data),
    }
}

/// In UCUM, as OpenTelemetry has units.
const fn unit(unit: Unit) -> &'static str {
    match unit {
        Unit::None => "",
        Unit::Seconds => "s",
        Unit::Bytes => "By",
        Unit::Ratio => "1",
    }
}

impl Point<'_> {
    fn attributes(&self) -> Vec<KeyValue> {
        self.metric.labels.iter().zip(self.labels).map(|(name, value)| attribute(name, value)).collect()
    }

    fn number(&self, value: &Value) -> Option<NumberDataPoint> {
        let before = match self.before {
            Some(Told::Number(before)) => *before,
            _ => 0,
        };
        // One that was taken away in between begins at 0 again.
        let since = |now: u128| now.checked_sub(before).unwrap_or(now);
        let value = match value {
            Value::Count(n) => {
                number_data_point::Value::AsInt(i64::try_from(since(u128::from(*n))).unwrap_or(i64::MAX))
            }
            Value::Nanos(ns) => number_data_point::Value::AsDouble(since(*ns) as f64 / 1e9),
            Value::Gauge(value) => number_data_point::Value::AsDouble(*value),
            Value::Histogram(_) => return None,
        };
        Some(NumberDataPoint {
            attributes: self.attributes(),
            start_time_unix_nano: self.times.since_ns,
            time_unix_nano: self.times.now_ns,
            exemplars: Vec::new(),
            flags: 0,
            value: Some(value),
        })
    }

    fn histogram(&self, value: &Value) -> Option<ExponentialHistogramDataPoint> {
        let Value::Histogram(all) = value else { return None };
        let counts = match self.before {
            Some(Told::Histogram(before)) => Counts::of(all).since(before),
            _ => Counts::of(all),
        };
        let exemplars = all.exemplars().filter(|e| e.at_unix_ns >= self.times.since_ns);
        Some(ExponentialHistogramDataPoint {
            attributes: self.attributes(),
            start_time_unix_nano: self.times.since_ns,
            time_unix_nano: self.times.now_ns,
            count: counts.count,
            sum: Some(counts.sum_s),
            scale: NATIVE_SCHEMA,
            zero_count: counts.zero,
            positive: buckets(&counts.buckets),
            zero_threshold: ZERO_THRESHOLD_S,
            exemplars: exemplars
                .map(|e| Exemplar {
                    filtered_attributes: vec![attribute("flow", &e.flow)],
                    time_unix_nano: e.at_unix_ns,
                    value: Some(exemplar::Value::AsDouble(e.latency_ns as f64 / 1e9)),
                    ..Exemplar::default()
                })
                .collect(),
            ..ExponentialHistogramDataPoint::default()
        })
    }
}

/// All buckets from the first to the last. Bucket n of Prometheus ends where bucket n of OTLP begins.
fn buckets(counts: &BTreeMap<i32, u64>) -> Option<Buckets> {
    let (first, last) = (*counts.first_key_value()?.0, *counts.last_key_value()?.0);
    let bucket_counts = (first..=last).map(|n| counts.get(&n).copied().unwrap_or(0)).collect();
    Some(Buckets { offset: first - 1, bucket_counts })
}

fn attribute(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) }),
        ..KeyValue::default()
    }
}
