//! The protobuf format: the part of `io.prometheus.client` that is written here.
//!
//! Source: <https://github.com/prometheus/prometheus/blob/main/prompb/io/prometheus/client/metrics.proto>, proto3, whose numbers of
//! fields are kept: a field that is not here is one that is never set.

use super::{
    buckets::{Distribution, Exemplar, NATIVE_SCHEMA, ZERO_THRESHOLD_S},
    store::{Row, Value},
    table::{Kind, Metric},
    text,
};
use prost::Message;

/// `MetricFamily`
#[derive(Clone, PartialEq, Message)]
pub(super) struct MetricFamily {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    help: String,
    #[prost(enumeration = "MetricType", tag = "3")]
    kind: i32,
    #[prost(message, repeated, tag = "4")]
    metric: Vec<Series>,
    #[prost(string, tag = "5")]
    unit: String,
}

/// `MetricType`
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub(super) enum MetricType {
    Counter = 0,
    Gauge = 1,
    Histogram = 4,
}

/// `Metric`
#[derive(Clone, PartialEq, Message)]
pub(super) struct Series {
    #[prost(message, repeated, tag = "1")]
    label: Vec<LabelPair>,
    #[prost(message, optional, tag = "2")]
    gauge: Option<Single>,
    #[prost(message, optional, tag = "3")]
    counter: Option<Single>,
    #[prost(message, optional, tag = "7")]
    histogram: Option<Histogram>,
}

/// `LabelPair`
#[derive(Clone, PartialEq, Message)]
pub(super) struct LabelPair {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

/// `Gauge`, and `Counter` without an exemplar: one number.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Single {
    #[prost(double, tag = "1")]
    value: f64,
}

/// `Histogram`
#[derive(Clone, PartialEq, Message)]
pub(super) struct Histogram {
    #[prost(uint64, tag = "1")]
    sample_count: u64,
    #[prost(double, tag = "2")]
    sample_sum: f64,
    #[prost(message, repeated, tag = "3")]
    bucket: Vec<Bucket>,
    #[prost(sint32, tag = "5")]
    schema: i32,
    #[prost(double, tag = "6")]
    zero_threshold: f64,
    #[prost(uint64, tag = "7")]
    zero_count: u64,
    #[prost(message, repeated, tag = "12")]
    positive_span: Vec<BucketSpan>,
    #[prost(sint64, repeated, tag = "13")]
    positive_delta: Vec<i64>,
}

/// `Bucket`
#[derive(Clone, PartialEq, Message)]
pub(super) struct Bucket {
    #[prost(uint64, tag = "1")]
    cumulative_count: u64,
    #[prost(double, tag = "2")]
    upper_bound: f64,
    #[prost(message, optional, tag = "3")]
    exemplar: Option<ProtoExemplar>,
}

/// `BucketSpan`: buckets that follow each other.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct BucketSpan {
    /// Buckets between the span before and this one; of the first, its number.
    #[prost(sint32, tag = "1")]
    offset: i32,
    #[prost(uint32, tag = "2")]
    length: u32,
}

/// `Exemplar`
#[derive(Clone, PartialEq, Message)]
pub(super) struct ProtoExemplar {
    #[prost(message, repeated, tag = "1")]
    label: Vec<LabelPair>,
    #[prost(double, tag = "2")]
    value: f64,
    #[prost(message, optional, tag = "3")]
    timestamp: Option<Timestamp>,
}

/// `google.protobuf.Timestamp`
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct Timestamp {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

pub(super) fn encode(families: &[(&'static Metric, Vec<Row<'_>>)]) -> Vec<u8> {
    families.iter().flat_map(|(metric, rows)| family(metric, rows).encode_length_delimited_to_vec()).collect()
}

fn family(metric: &Metric, rows: &[Row<'_>]) -> MetricFamily {
    let kind = match metric.kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge | Kind::Info => MetricType::Gauge,
        Kind::Histogram => MetricType::Histogram,
    };
    let series = |(values, value): &Row<'_>| {
        let mut series = Series {
            label: metric.labels.iter().zip(*values).map(|(name, value)| pair(name, value)).collect(),
            ..Series::default()
        };
        match value {
            Value::Histogram(all) => series.histogram = Some(histogram(all)),
            Value::Count(n) => series.counter = Some(Single { value: *n as f64 }),
            Value::Nanos(ns) => series.counter = Some(Single { value: *ns as f64 / 1e9 }),
            Value::Gauge(value) => series.gauge = Some(Single { value: *value }),
        }
        series
    };
    MetricFamily {
        name: metric.full_name(),
        help: metric.help.to_owned(),
        kind: kind as i32,
        metric: rows.iter().map(series).collect(),
        unit: metric.unit.name().to_owned(),
    }
}

fn pair(name: &str, value: &str) -> LabelPair {
    LabelPair { name: name.to_owned(), value: value.to_owned() }
}

fn histogram(all: &Distribution) -> Histogram {
    let bucket = |(upper_bound, cumulative_count, exemplar): (f64, u64, Option<&Exemplar>)| Bucket {
        cumulative_count,
        upper_bound,
        exemplar: exemplar.map(proto_exemplar),
    };
    let (positive_span, positive_delta) = spans(all.native());
    Histogram {
        sample_count: all.count(),
        sample_sum: all.sum_s(),
        bucket: all.classic().map(bucket).collect(),
        schema: NATIVE_SCHEMA,
        zero_threshold: ZERO_THRESHOLD_S,
        zero_count: all.zero(),
        positive_span,
        positive_delta,
    }
}

/// Runs of buckets, and by how much each has more than the one before.
fn spans(buckets: impl Iterator<Item = (i32, u64)>) -> (Vec<BucketSpan>, Vec<i64>) {
    let (mut spans, mut deltas): (Vec<BucketSpan>, Vec<i64>) = (Vec::new(), Vec::new());
    let (mut next, mut before) = (0, 0_i64);
    for (bucket, count) in buckets {
        match spans.last_mut() {
            Some(span) if bucket == next => span.length += 1,
            _ => spans.push(BucketSpan { offset: bucket - next, length: 1 }),
        }
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        deltas.push(count - before);
        (next, before) = (bucket + 1, count);
    }
    (spans, deltas)
}

fn proto_exemplar(exemplar: &Exemplar) -> ProtoExemplar {
    let at_ns = exemplar.at_unix_ns;
    ProtoExemplar {
        label: vec![pair(text::FLOW, &text::flow(exemplar))],
        value: exemplar.latency_ns as f64 / 1e9,
        timestamp: Some(Timestamp {
            seconds: (at_ns / 1_000_000_000) as i64,
            nanos: (at_ns % 1_000_000_000) as i32,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_deltas_give_the_buckets_back() {
        let buckets = [(-239, 4), (-238, 1), (-230, 7), (-1, 2), (0, 2), (5, 1)];
        let (spans, deltas) = spans(buckets.into_iter());
        assert_eq!(spans.len(), 4);
        assert_eq!(
            (spans[0], spans[2]),
            (BucketSpan { offset: -239, length: 2 }, BucketSpan { offset: 228, length: 2 })
        );
        let (mut at, mut count, mut deltas) = (0, 0, deltas.into_iter());
        let mut back = Vec::new();
        for span in spans {
            at += span.offset;
            for _ in 0..span.length {
                count += deltas.next().unwrap();
                back.push((at, count as u64));
                at += 1;
            }
        }
        assert_eq!(back, buckets);
    }
}
