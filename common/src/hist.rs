//! The log-linear histogram that a kernel program fills, and its one-to-one mapping onto HdrHistogram buckets.
//!
//! The layout is that of `hdrhistogram::Histogram::new_with_bounds(1, HIGHEST_NS, 2)`: 256 sub-buckets, so that a
//! bucket is at most 1/128 (0.8 %) wide, and counts of one CPU fit the 32 KiB that a per-CPU map value may have.
//! Source: Gil Tene, HdrHistogram, <http://hdrhistogram.org>.

/// Significant decimal digits, as given to `hdrhistogram`.
pub const SIGNIFICANT_DIGITS: u8 = 2;
/// log2 of the sub-bucket count.
const SUB_BUCKET_BITS: u32 = 8;
const SUB_BUCKET_MASK: u64 = (1 << SUB_BUCKET_BITS) - 1;
const HALF_BITS: u32 = SUB_BUCKET_BITS - 1;
const HALF_COUNT: usize = 1 << HALF_BITS;
/// log2 of the first value that is out of range: 2^35 ns is 34.4 s.
const RANGE_BITS: u32 = 35;
/// The largest latency told apart; longer ones are recorded as this and counted as [`crate::Loss::Clamped`].
pub const HIGHEST_NS: u64 = (1 << RANGE_BITS) - 1;
/// Buckets in one histogram.
pub const BUCKETS: usize = ((RANGE_BITS - SUB_BUCKET_BITS + 2) as usize) * HALF_COUNT;

/// One signal's histogram on one CPU, ns.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct KernelHist {
    /// Sum of all recorded latencies, ns.
    pub sum_ns: u64,
    /// The largest recorded latency, exact, ns.
    pub max_ns: u64,
    /// Counts by bucket, see [`bucket_of`].
    pub counts: [u64; BUCKETS],
}

const _: () = assert!(size_of::<KernelHist>() == 16 + 8 * 3712);
const _: () = assert!(size_of::<KernelHist>() <= 32 << 10, "a per-CPU map value is at most 32 KiB");

#[cfg(feature = "user")]
// SAFETY: `repr(C)`, only u64 members, no padding, every bit pattern is valid.
unsafe impl aya::Pod for KernelHist {}

/// Bucket index of a latency; values above [`HIGHEST_NS`] fall into the last bucket.
#[inline(always)]
#[must_use]
pub const fn bucket_of(ns: u64) -> usize {
    let ns = if ns > HIGHEST_NS { HIGHEST_NS } else { ns };
    let bucket = log2(ns | SUB_BUCKET_MASK) + 1 - SUB_BUCKET_BITS;
    let sub = (ns >> bucket) as usize;
    // The first bucket uses all its sub-buckets; each later one only its upper half.
    ((bucket as usize) << HALF_BITS) + sub
}

/// The number of the highest bit that is set, of a number below 2^64 that is not 0. BPF has no instruction for it, and
/// what the compiler makes of `leading_zeros` there is one long chain of some forty; these branches are predicted well,
/// because latencies of one place are alike.
#[inline(always)]
const fn log2(mut n: u64) -> u32 {
    let mut log = 0;
    let mut step = 32;
    while step != 0 {
        if n >> step != 0 {
            n >>= step;
            log += step;
        }
        step /= 2;
    }
    log
}

/// The smallest latency of a bucket, ns: the value to record into `hdrhistogram` so that it lands in the same one.
#[inline]
#[must_use]
pub const fn lowest_of(index: usize) -> u64 {
    if index < 2 * HALF_COUNT {
        return index as u64;
    }
    let bucket = (index >> HALF_BITS) - 1;
    ((index & (HALF_COUNT - 1)) as u64 + HALF_COUNT as u64) << bucket
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::Histogram;
    use proptest::prelude::*;

    fn hdr() -> Histogram<u64> {
        Histogram::new_with_bounds(1, HIGHEST_NS, SIGNIFICANT_DIGITS).expect("bounds are constants")
    }

    #[test]
    fn bucket_count_is_hdrhistograms() {
        assert_eq!(hdr().distinct_values(), BUCKETS);
    }

    #[test]
    fn every_bucket_maps_one_to_one() {
        let h = hdr();
        for index in 0..BUCKETS {
            let low = lowest_of(index);
            assert_eq!(bucket_of(low), index);
            assert_eq!(h.lowest_equivalent(low), low, "bucket {index}");
            assert_eq!(bucket_of(h.highest_equivalent(low)), index, "bucket {index}");
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    proptest! {
        #[test]
        fn a_value_shares_its_bucket_with_hdrhistogram(ns in 0..=HIGHEST_NS) {
            prop_assert_eq!(lowest_of(bucket_of(ns)), hdr().lowest_equivalent(ns));
        }
    }
}
