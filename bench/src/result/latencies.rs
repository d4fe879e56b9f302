//! A latency distribution of one load in one round, in HdrHistogram's own V2 format.

use crate::{
    hdr::{self, HdrError, Layout},
    load::HIGHEST_NS,
};
use hdrhistogram::Histogram;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize, de::Error as _, ser::Error as _};
use std::borrow::Cow;

/// That of the load generators: from 1 ns to ten minutes, to 0.1 %, so that the steps are below any noise of rounds.
pub const LAYOUT: Layout = Layout { highest: HIGHEST_NS, digits: 3 };

/// Latencies, ns.
#[derive(Clone, Debug, PartialEq)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        #[expect(
            clippy::expect_used,
            reason = "the bounds are constants that hdrhistogram accepts, see the test"
        )]
        Self(LAYOUT.empty().expect("constant bounds"))
    }
}

/// Counts of a histogram of any bounds; where they are not [`LAYOUT`]'s, to the coarser width of both.
impl From<&Histogram<u64>> for Latencies {
    fn from(hist: &Histogram<u64>) -> Self {
        let mut latencies = Self::default();
        for v in hist.iter_recorded() {
            latencies.0.saturating_record_n(v.value_iterated_to(), v.count_at_value());
        }
        latencies
    }
}

impl Latencies {
    /// Counts one latency, ns; those above the range count as the largest.
    pub fn record(&mut self, ns: u64) {
        self.0.saturating_record(ns);
    }

    /// Adds another's counts.
    pub fn merge(&mut self, other: &Self) {
        for v in other.0.iter_recorded() {
            self.0.saturating_record_n(v.value_iterated_to(), v.count_at_value());
        }
    }

    /// Latencies counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The latency below or at which a share `q` (0 to 1) of all lie, ns; none where there are none.
    #[must_use]
    pub fn quantile_ns(&self, q: f64) -> Option<u64> {
        (!self.0.is_empty()).then(|| self.0.value_at_quantile(q))
    }

    /// Mean, ns.
    #[must_use]
    pub fn mean_ns(&self) -> f64 {
        self.0.mean()
    }

    /// The histogram itself.
    #[must_use]
    pub const fn histogram(&self) -> &Histogram<u64> {
        &self.0
    }

    /// HdrHistogram V2, deflated, base64.
    ///
    /// # Errors
    /// See [`hdr::encode`].
    pub fn encode(&self) -> Result<String, HdrError> {
        hdr::encode(&self.0)
    }

    /// The reverse of [`Self::encode`].
    ///
    /// # Errors
    /// See [`hdr::decode`].
    pub fn decode(text: &str) -> Result<Self, HdrError> {
        hdr::decode(text, LAYOUT).map(Self)
    }
}

/// Latency distribution. The quantiles are for whoever looks into the file; `hdr_v2` is the whole of it.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Wire {
    /// Latencies counted.
    count: u64,
    /// Median, ns.
    p50_ns: Option<u64>,
    /// 90th percentile, ns.
    p90_ns: Option<u64>,
    /// 99th percentile, ns.
    p99_ns: Option<u64>,
    /// 99.9th percentile, ns.
    p999_ns: Option<u64>,
    /// Upper bound of the largest bucket in use, ns.
    max_ns: Option<u64>,
    /// HdrHistogram V2 deflated, base64; bounds 1..600000000000 ns, 3 significant digits.
    hdr_v2: String,
}

impl Serialize for Latencies {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        Wire {
            count: self.count(),
            p50_ns: self.quantile_ns(0.5),
            p90_ns: self.quantile_ns(0.9),
            p99_ns: self.quantile_ns(0.99),
            p999_ns: self.quantile_ns(0.999),
            max_ns: self.quantile_ns(1.0),
            hdr_v2: self.encode().map_err(S::Error::custom)?,
        }
        .serialize(s)
    }
}

impl<'de> Deserialize<'de> for Latencies {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let wire = Wire::deserialize(d)?;
        let latencies = Self::decode(&wire.hdr_v2).map_err(D::Error::custom)?;
        if latencies.count() != wire.count {
            let held = latencies.count();
            return Err(D::Error::custom(format!("histogram holds {held} counts, not {}", wire.count)));
        }
        Ok(latencies)
    }
}

impl JsonSchema for Latencies {
    fn schema_name() -> Cow<'static, str> {
        "Latencies".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Wire::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_what_was_recorded() {
        let mut latencies = Latencies::default();
        assert_eq!((latencies.quantile_ns(0.5), latencies.count()), (None, 0));
        (1..=1000).for_each(|us| latencies.record(us * 1000));
        let p99 = latencies.quantile_ns(0.99).unwrap() as f64;
        assert!((p99 / 990_000.0 - 1.0).abs() < 0.001, "{p99}");
        latencies.record(u64::MAX);
        let longest = latencies.quantile_ns(1.0).unwrap();
        assert!((LAYOUT.highest..LAYOUT.highest / 1000 * 1001).contains(&longest), "{longest}");
        let again = Latencies::decode(&latencies.encode().unwrap()).unwrap();
        assert_eq!(again, latencies);
        latencies.merge(&again);
        assert_eq!(latencies.count(), 2 * again.count());
    }

    #[test]
    fn other_histograms_are_taken_over() {
        let mut coarse = Histogram::<u64>::new(2).unwrap();
        (1..=1000).for_each(|us| coarse.record(us * 1000).unwrap());
        let latencies = Latencies::from(&coarse);
        assert_eq!(latencies.count(), 1000);
        let p50 = latencies.quantile_ns(0.5).unwrap() as f64;
        assert!((p50 / 500_000.0 - 1.0).abs() < 0.01, "{p50}");
    }
}
