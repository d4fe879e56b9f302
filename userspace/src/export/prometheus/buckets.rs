//! Distributions in Prometheus' buckets.
//!
//! A latency is in one of HdrHistogram's buckets, which are at most 0.8 % wide. Each of these goes as a whole, by its midpoint, to
//! one classic bucket and one native bucket. So counts and sums are exact, and a bound is where it is said to be to 0.4 %, which
//! is the error that quantiles have beside the width of the bucket itself.
//!
//! Source of native buckets: Prometheus, prompb/io/prometheus/client/metrics.proto: bucket n of schema s goes from
//! 2^((n-1)/2^s), exclusive, to 2^(n/2^s), inclusive.

use crate::snapshot::Hist;
use nettrace_common::hist::{BUCKETS, bucket_of, lowest_of};
use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

/// Each power of two has 8 buckets, so that one is 9 % wide: what Prometheus' own libraries take for a factor of 1.1. The same
/// number is the scale of OTLP's exponential histograms.
pub(crate) const NATIVE_SCHEMA: i32 = 3;
/// Latencies below are 0, s: what Prometheus' own libraries have.
pub(crate) const ZERO_THRESHOLD_S: f64 = f64::from_bits((1023 - 128) << 52);

/// Native bucket by bucket of HdrHistogram; none for that of 0.
static NATIVE: LazyLock<Vec<Option<i16>>> = LazyLock::new(|| {
    let per_octave = f64::from(1 << NATIVE_SCHEMA);
    let place = |n: usize| (n > 0).then(|| (midpoint_s(n).log2() * per_octave).ceil() as i16);
    (0..BUCKETS).map(place).collect()
});

/// The middle of a bucket of HdrHistogram, s.
fn midpoint_s(n: usize) -> f64 {
    let (low, next) = (lowest_of(n), lowest_of(n + 1));
    (low + (next - 1)) as f64 / 2.0 / 1e9
}

/// Classic buckets.
#[derive(Debug)]
pub(super) struct Bounds {
    /// Upper bounds, s, ascending.
    pub(super) le: Vec<f64>,
    /// Index of the bound by bucket of HdrHistogram; that of `+Inf` is their number.
    place: Vec<u8>,
}

impl Bounds {
    pub(super) fn new(le: &[f64]) -> Self {
        let mut le: Vec<_> = le.iter().copied().filter(|b| b.is_finite() && *b > 0.0).take(64).collect();
        le.sort_by(f64::total_cmp);
        le.dedup();
        let place = |n| le.partition_point(|bound| *bound < midpoint_s(n)) as u8;
        Self { place: (0..BUCKETS).map(place).collect(), le }
    }
}

/// A packet that a bucket holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exemplar {
    /// Whose.
    pub(crate) flow: String,
    /// How slow, ns.
    pub(crate) latency_ns: u64,
    /// When, Unix time, ns.
    pub(crate) at_unix_ns: u64,
}

/// A distribution that grows.
#[derive(Clone, Debug)]
pub(crate) struct Distribution {
    bounds: Arc<Bounds>,
    classic: Vec<u64>,
    native: BTreeMap<i16, u64>,
    zero: u64,
    count: u64,
    sum_ns: u128,
    exemplars: BTreeMap<u8, Exemplar>,
}

impl Distribution {
    pub(super) fn new(bounds: Arc<Bounds>) -> Self {
        Self {
            classic: vec![0; bounds.le.len() + 1],
            bounds,
            native: BTreeMap::new(),
            zero: 0,
            count: 0,
            sum_ns: 0,
            exemplars: BTreeMap::new(),
        }
    }

    /// Adds a window's, with its exact sum, ns.
    pub(super) fn add(&mut self, hist: &Hist, sum_ns: u64) {
        for (lowest_ns, count) in hist.buckets() {
            let n = bucket_of(lowest_ns);
            self.classic[usize::from(self.bounds.place[n])] += count;
            match NATIVE[n] {
                Some(bucket) => *self.native.entry(bucket).or_default() += count,
                None => self.zero += count,
            }
            self.count += count;
        }
        self.sum_ns += u128::from(sum_ns);
    }

    /// Keeps a slow packet, unless a later one of its bucket is there.
    pub(super) fn exemplar(&mut self, exemplar: Exemplar) {
        let bucket = self.bounds.place[bucket_of(exemplar.latency_ns)];
        let kept = self.exemplars.entry(bucket).or_insert_with(|| exemplar.clone());
        if exemplar.at_unix_ns > kept.at_unix_ns {
            *kept = exemplar;
        }
    }

    /// Latencies.
    pub(crate) const fn count(&self) -> u64 {
        self.count
    }

    /// Those of 0.
    pub(crate) const fn zero(&self) -> u64 {
        self.zero
    }

    /// Their sum, s.
    pub(crate) fn sum_s(&self) -> f64 {
        self.sum_ns as f64 / 1e9
    }

    /// Upper bound (s), count of all up to it, and an exemplar, of each classic bucket; the last is `+Inf`.
    pub(crate) fn classic(&self) -> impl Iterator<Item = (f64, u64, Option<&Exemplar>)> {
        let mut sum = 0;
        self.classic.iter().enumerate().map(move |(n, count)| {
            sum += count;
            let bound = self.bounds.le.get(n).copied().unwrap_or(f64::INFINITY);
            (bound, sum, self.exemplars.get(&(n as u8)))
        })
    }

    /// Number and count of the native buckets that hold something, ascending.
    pub(crate) fn native(&self) -> impl Iterator<Item = (i32, u64)> {
        self.native.iter().map(|(n, count)| (i32::from(*n), *count))
    }

    /// Slow packets by bucket.
    pub(crate) fn exemplars(&self) -> impl Iterator<Item = &Exemplar> {
        self.exemplars.values()
    }

    /// Series that it is in a text format: its buckets, count and sum.
    pub(super) fn series(bounds: &Bounds) -> usize {
        bounds.le.len() + 3
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn distribution(values: &[u64]) -> Distribution {
        let bounds = Bounds::new(&[1e-6, 1e-3, 0.5, 5.0]);
        let mut hist = Hist::new();
        values.iter().for_each(|v| hist.record(*v));
        let mut all = Distribution::new(Arc::new(bounds));
        all.add(&hist, values.iter().sum());
        all
    }

    proptest! {
        #[test]
        fn counts_are_exact_and_buckets_are_right_to_half_a_percent(
            values in prop::collection::vec(0..30_000_000_000_u64, 1..200),
        ) {
            let all = distribution(&values);
            prop_assert_eq!(all.count(), values.len() as u64);
            prop_assert_eq!(all.native().map(|(_, n)| n).sum::<u64>() + all.zero(), values.len() as u64);
            prop_assert_eq!(all.classic().last().map(|(_, n, _)| n), Some(values.len() as u64));
            prop_assert_eq!(all.zero(), values.iter().filter(|v| **v == 0).count() as u64);
            let below = |s: f64| values.iter().filter(|v| **v as f64 / 1e9 <= s).count() as u64;
            for (le, n, _) in all.classic() {
                prop_assert!((below(le * 0.996)..=below(le * 1.004)).contains(&n), "{le}: {n}");
            }
            let mut sum = all.zero();
            for (bucket, n) in all.native() {
                sum += n;
                let upper = (f64::from(bucket) / 8.0).exp2();
                prop_assert!((below(upper * 0.996)..=below(upper * 1.004)).contains(&sum), "{upper}: {sum}");
            }
        }
    }

    #[test]
    fn each_bucket_lies_in_its_native_one_to_half_its_width() {
        for n in 1..BUCKETS {
            let upper = (f64::from(NATIVE[n].unwrap()) / 8.0).exp2();
            let middle = midpoint_s(n);
            assert!(middle <= upper * 1.000_001 && middle > upper / 1.090_508, "bucket {n}");
        }
        assert_eq!(ZERO_THRESHOLD_S, 2_f64.powi(-128));
    }

    #[test]
    fn the_latest_exemplar_of_a_bucket_stays() {
        let mut all = distribution(&[2_000_000]);
        let slow =
            |latency_ns, at_unix_ns| Exemplar { flow: format!("{at_unix_ns}"), latency_ns, at_unix_ns };
        [slow(2_000_000, 5), slow(3_000_000, 9), slow(4_000_000, 7), slow(700_000_000, 1)]
            .into_iter()
            .for_each(|e| all.exemplar(e));
        let kept: Vec<_> = all.classic().map(|(_, _, e)| e.map(|e| e.at_unix_ns)).collect();
        assert_eq!(kept, [None, None, Some(9), Some(1), None]);
    }
}
