//! A latency histogram that serialises in HdrHistogram's own V2 format.

pub use nettrace_bench::hdr::HdrError as HistError;

use hdrhistogram::Histogram;
use nettrace_bench::hdr::{self, Layout};
use nettrace_common::hist::{BUCKETS, HIGHEST_NS, SIGNIFICANT_DIGITS, lowest_of};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, de::Error as _, ser::Error as _};
use std::borrow::Cow;

/// The kernel's buckets.
const LAYOUT: Layout = Layout { highest: HIGHEST_NS, digits: SIGNIFICANT_DIGITS };

/// A distribution of latencies, ns, with the bucket layout of [`nettrace_common::hist`].
#[derive(Clone, Debug, PartialEq)]
pub struct Hist(Histogram<u64>);

impl Default for Hist {
    fn default() -> Self {
        Self::new()
    }
}

impl Hist {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        #[expect(
            clippy::expect_used,
            reason = "the bounds are constants that hdrhistogram accepts, see the test"
        )]
        Self(Histogram::new_with_bounds(1, HIGHEST_NS, SIGNIFICANT_DIGITS).expect("constant bounds"))
    }

    /// From in-kernel bucket counts, [`BUCKETS`] of them; surplus ones are ignored.
    #[must_use]
    pub fn from_counts(counts: &[u64]) -> Self {
        let mut hist = Self::new();
        for (index, &n) in counts.iter().take(BUCKETS).enumerate().filter(|(_, n)| **n > 0) {
            hist.record_n(lowest_of(index), n);
        }
        hist
    }

    /// Counts one latency, ns; those above the range count as the largest.
    pub fn record(&mut self, ns: u64) {
        self.record_n(ns, 1);
    }

    /// Counts a latency, ns, n times.
    pub fn record_n(&mut self, ns: u64, n: u64) {
        self.0.saturating_record_n(ns, n);
    }

    /// Adds another's counts.
    pub fn merge(&mut self, other: &Self) {
        // Both have the same bounds, so adding cannot fail; saturating would need a loop of its own.
        for v in other.0.iter_recorded() {
            self.record_n(v.value_iterated_to(), v.count_at_value());
        }
    }

    /// What was counted since `before`, an earlier state of the same.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let mut since = Self::new();
        for v in self.0.iter_recorded() {
            let value = v.value_iterated_to();
            let came = v.count_at_value().saturating_sub(before.0.count_at(value));
            // None would still raise the maximum.
            if came > 0 {
                since.record_n(value, came);
            }
        }
        since
    }

    /// The histogram itself, ns.
    #[must_use]
    pub(crate) const fn histogram(&self) -> &Histogram<u64> {
        &self.0
    }

    /// Latencies counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// Whether nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The latency below or at which a share `q` (0 to 1) of all lie, ns, to the bucket's width (0.8 %); 0 when empty.
    #[must_use]
    pub fn quantile_ns(&self, q: f64) -> u64 {
        if self.0.is_empty() { 0 } else { self.0.value_at_quantile(q) }
    }

    /// Mean, ns.
    #[must_use]
    pub fn mean_ns(&self) -> f64 {
        self.0.mean()
    }

    /// Upper bound of the largest bucket in use, ns; 0 when empty.
    #[must_use]
    pub fn max_ns(&self) -> u64 {
        if self.0.is_empty() { 0 } else { self.0.max() }
    }

    /// Lower bound of the smallest bucket in use, ns; 0 when empty.
    #[must_use]
    pub fn min_ns(&self) -> u64 {
        if self.0.is_empty() { 0 } else { self.0.min() }
    }

    /// Buckets in use: lowest value (ns) and count, ascending.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter_recorded().map(|v| (self.0.lowest_equivalent(v.value_iterated_to()), v.count_at_value()))
    }

    /// HdrHistogram V2, deflated, base64.
    ///
    /// # Errors
    /// When the encoder fails, which needs more than 2^32 bytes of counts.
    pub fn encode(&self) -> Result<String, HistError> {
        hdr::encode(&self.0)
    }

    /// The reverse of [`Self::encode`].
    ///
    /// # Errors
    /// When the text is not base64, not a V2 histogram, or one with other bounds.
    pub fn decode(text: &str) -> Result<Self, HistError> {
        hdr::decode(text, LAYOUT).map(Self)
    }
}

impl Serialize for Hist {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Wire<'a> {
            count: u64,
            p50_ns: u64,
            p90_ns: u64,
            p99_ns: u64,
            p999_ns: u64,
            max_ns: u64,
            hdr_v2: &'a str,
        }
        let hdr_v2 = self.encode().map_err(S::Error::custom)?;
        Wire {
            count: self.count(),
            p50_ns: self.quantile_ns(0.5),
            p90_ns: self.quantile_ns(0.9),
            p99_ns: self.quantile_ns(0.99),
            p999_ns: self.quantile_ns(0.999),
            max_ns: self.max_ns(),
            hdr_v2: &hdr_v2,
        }
        .serialize(s)
    }
}

impl<'de> Deserialize<'de> for Hist {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Wire {
            hdr_v2: String,
        }
        Self::decode(&Wire::deserialize(d)?.hdr_v2).map_err(D::Error::custom)
    }
}

impl JsonSchema for Hist {
    fn schema_name() -> Cow<'static, str> {
        "Hist".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let ns = |what: &str| serde_json::json!({"type": "integer", "minimum": 0, "description": what});
        json_schema!({
            "type": "object",
            "description": "Latency distribution. The quantiles are for convenience; hdr_v2 is the whole of it.",
            "required": ["count", "p50_ns", "p90_ns", "p99_ns", "p999_ns", "max_ns", "hdr_v2"],
            "properties": {
                "count": ns("latencies counted"),
                "p50_ns": ns("median, ns"),
                "p90_ns": ns("90th percentile, ns"),
                "p99_ns": ns("99th percentile, ns"),
                "p999_ns": ns("99.9th percentile, ns"),
                "max_ns": ns("upper bound of the largest bucket in use, ns"),
                "hdr_v2": {
                    "type": "string",
                    "description": "HdrHistogram V2 deflated, base64; bounds 1..2^35-1 ns, 2 significant digits"
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
    use hdrhistogram::serialization::Deserializer;
    use proptest::prelude::*;

    #[test]
    fn what_came_since_has_its_own_maximum() {
        let mut before = Hist::new();
        before.record(5_000_000);
        let mut now = before.clone();
        now.record(1000);
        let since = now.since(&before);
        assert_eq!((since.count(), since.min_ns() <= 1000), (1, true));
        assert!((1000..1010).contains(&since.max_ns()), "{}", since.max_ns());
    }

    proptest! {
        #[test]
        fn encoding_loses_nothing(values in prop::collection::vec(0..=2 * HIGHEST_NS, 0..200)) {
            let mut hist = Hist::new();
            values.iter().for_each(|v| hist.record(*v));
            let text = hist.encode()?;
            let back = Hist::decode(&text)?;
            let bytes = BASE64.decode(&text)?;
            let theirs: Histogram<u64> = Deserializer::new().deserialize(&mut bytes.as_slice()).expect("theirs");
            prop_assert_eq!(&theirs, &hist.0, "the format is HdrHistogram's own");
            prop_assert!(back.buckets().eq(hist.buckets()));
            prop_assert_eq!(back.count(), values.len() as u64);
        }

        #[test]
        fn arbitrary_text_is_an_error_or_a_histogram(text in ".{0,200}") {
            let _ = Hist::decode(&text);
        }
    }

    #[test]
    fn buckets_are_the_kernels() {
        assert_eq!(LAYOUT.buckets(), BUCKETS);
        assert!((0..BUCKETS).all(|n| LAYOUT.lowest_of(n) == lowest_of(n)));
    }

    #[test]
    fn kernel_counts_keep_their_buckets() {
        let counts: Vec<u64> = (0..BUCKETS as u64).map(|i| i % 3).collect();
        let hist = Hist::from_counts(&counts);
        let mut back = vec![0; BUCKETS];
        for (low, n) in hist.buckets() {
            back[nettrace_common::hist::bucket_of(low)] = n;
        }
        assert_eq!(back, counts);
    }
}
