//! HdrHistogram's V2 encoding in base64, read from bytes that nobody vouches for.
//!
//! Needs a histogram of a known [`Layout`], or the text of one. `hdrhistogram`'s reader trusts the lengths in the header (a few
//! bytes can make it reserve 4 GiB) and the counts (their sum may overflow). This one knows the only layout that is valid where
//! it is called, so both are bounded.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use flate2::read::ZlibDecoder;
use hdrhistogram::{
    Histogram,
    serialization::{Serializer as _, V2DeflateSerializer},
};
use std::io::Read;

/// First word of the compressed form, and of the plain form inside it; 0x10 stands for words of any length.
const COMPRESSED_COOKIE: u32 = 0x1c84_9304 | 0x10;
const COOKIE: u32 = 0x1c84_9303 | 0x10;
/// Words of the plain form before the counts: cookie, length, offset, digits, low, high, ratio.
const HEADER_BYTES: usize = 40;
/// More than any run can count; sums of many such histograms still fit in 64 bits.
const MAX_TOTAL: u64 = 1 << 53;

/// Why a text is not a histogram.
#[derive(Debug, thiserror::Error)]
pub enum HdrError {
    /// Not base64.
    #[error("histogram is not base64: {0}")]
    Base64(#[from] base64::DecodeError),
    /// Not HdrHistogram V2.
    #[error("histogram is not HdrHistogram V2: {0}")]
    V2(String),
    /// Counts that cannot be: they say more was counted than any run can see.
    #[error("histogram counts add up to more than 2^53")]
    Counts,
    /// Other bounds than those that are asked for.
    #[error(
        "histogram has bounds 1..={high} with {digits} digits, not 1..={} with {}",
        wanted.highest,
        wanted.digits
    )]
    Layout {
        /// Its upper bound.
        high: u64,
        /// Its significant digits.
        digits: u32,
        /// What it was to have.
        wanted: Layout,
    },
}

/// Which values a histogram tells apart. The lowest is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The highest.
    pub highest: u64,
    /// Decimal digits of a value that are kept, 0 to 5.
    pub digits: u8,
}

impl Layout {
    /// Values of one power of two that are told apart: a power of two that is not below 10^digits.
    #[must_use]
    pub const fn half(self) -> usize {
        10_usize.pow(self.digits as u32).next_power_of_two()
    }

    /// Buckets that there are.
    #[must_use]
    pub const fn buckets(self) -> usize {
        let (mut magnitudes, mut beyond) = (2, 2 * self.half() as u128);
        while beyond <= self.highest as u128 {
            beyond *= 2;
            magnitudes += 1;
        }
        magnitudes * self.half()
    }

    /// The lowest value of a bucket. The first power of two uses all its buckets, each later one only its upper half.
    #[must_use]
    pub const fn lowest_of(self, bucket: usize) -> u64 {
        let half = self.half();
        if bucket < 2 * half {
            return bucket as u64;
        }
        ((bucket % half + half) as u64) << (bucket / half - 1)
    }

    /// A histogram without counts.
    ///
    /// # Errors
    /// When the highest value is below 2, or the digits are more than 5.
    pub fn empty(self) -> Result<Histogram<u64>, HdrError> {
        Histogram::new_with_bounds(1, self.highest, self.digits).map_err(|e| HdrError::V2(e.to_string()))
    }
}

/// A histogram as HdrHistogram V2, deflated, in base64.
///
/// # Errors
/// When the encoder fails, which needs more than 2^32 bytes of counts.
pub fn encode(hist: &Histogram<u64>) -> Result<String, HdrError> {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new().serialize(hist, &mut bytes).map_err(|e| HdrError::V2(format!("{e:?}")))?;
    Ok(BASE64.encode(bytes))
}

/// The reverse of [`encode`].
///
/// # Errors
/// When the text is not base64, not a V2 histogram, or one of another layout.
pub fn decode(text: &str, layout: Layout) -> Result<Histogram<u64>, HdrError> {
    let mut hist = layout.empty()?;
    for (bucket, n) in counts_of(&BASE64.decode(text)?, layout)? {
        hist.saturating_record_n(layout.lowest_of(bucket), n);
    }
    Ok(hist)
}

/// The bucket indices and counts of a compressed V2 histogram, ascending, without empty buckets.
fn counts_of(bytes: &[u8], layout: Layout) -> Result<Vec<(usize, u64)>, HdrError> {
    let bad = |what: &str| HdrError::V2(what.to_owned());
    let (cookie, deflated) = bytes.split_first_chunk::<4>().ok_or_else(|| bad("too short"))?;
    let (_length, deflated) = deflated.split_first_chunk::<4>().ok_or_else(|| bad("too short"))?;
    if u32::from_be_bytes(*cookie) != COMPRESSED_COOKIE {
        return Err(bad("wrong cookie"));
    }
    // A count takes at most 9 bytes.
    let most_bytes = HEADER_BYTES + 9 * layout.buckets();
    let mut plain = Vec::new();
    ZlibDecoder::new(deflated)
        .take(most_bytes as u64 + 1)
        .read_to_end(&mut plain)
        .map_err(|e| HdrError::V2(e.to_string()))?;
    if plain.len() > most_bytes {
        return Err(bad("more counts than buckets"));
    }
    let (header, rest) = plain.split_first_chunk::<HEADER_BYTES>().ok_or_else(|| bad("header cut off"))?;
    let length = check_header(header, layout)?;
    counts(rest.get(..length).ok_or_else(|| bad("counts cut off"))?, layout.buckets())
}

/// Checks that the header names the layout, and yields how many bytes of counts follow.
fn check_header(header: &[u8; HEADER_BYTES], wanted: Layout) -> Result<usize, HdrError> {
    let word = |at: usize| header[at..at + 4].iter().fold(0_u32, |n, b| n << 8 | u32::from(*b));
    let long = |at: usize| u64::from(word(at)) << 32 | u64::from(word(at + 4));
    if word(0) != COOKIE {
        return Err(HdrError::V2("wrong inner cookie".to_owned()));
    }
    if word(8) != 0 || f64::from_bits(long(32)).to_bits() != 1.0_f64.to_bits() {
        return Err(HdrError::V2("shifted or scaled values".to_owned()));
    }
    let (digits, low, high) = (word(12), long(16), long(24));
    if low != 1 || high != wanted.highest || digits != u32::from(wanted.digits) {
        return Err(HdrError::Layout { high, digits, wanted });
    }
    usize::try_from(word(4)).map_err(|_| HdrError::V2("length out of range".to_owned()))
}

/// Decodes ZigZag LEB128: a count, or, when negative, a run of empty buckets.
fn counts(mut bytes: &[u8], buckets: usize) -> Result<Vec<(usize, u64)>, HdrError> {
    let (mut index, mut total, mut found) = (0_usize, 0_u64, Vec::new());
    while !bytes.is_empty() {
        let zigzag = leb128(&mut bytes)?;
        let magnitude = zigzag >> 1;
        if zigzag & 1 == 1 {
            // ZigZag maps -n to 2n - 1.
            let run = usize::try_from(magnitude).unwrap_or(usize::MAX).saturating_add(1);
            index = index.saturating_add(run);
            continue;
        }
        if magnitude > 0 {
            if index >= buckets {
                return Err(HdrError::V2("more counts than buckets".to_owned()));
            }
            total = total.saturating_add(magnitude);
            if total > MAX_TOTAL {
                return Err(HdrError::Counts);
            }
            found.push((index, magnitude));
        }
        index = index.saturating_add(1);
    }
    Ok(found)
}

/// Takes one number of at most 9 bytes; the ninth counts with all its bits.
fn leb128(bytes: &mut &[u8]) -> Result<u64, HdrError> {
    let mut value = 0;
    for n in 0..9 {
        let (&byte, rest) = bytes.split_first().ok_or_else(|| HdrError::V2("number cut off".to_owned()))?;
        *bytes = rest;
        let bits = if n == 8 { byte } else { byte & 0x7f };
        value |= u64::from(bits) << (7 * n);
        if byte & 0x80 == 0 {
            break;
        }
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::ZlibEncoder};
    use proptest::prelude::*;
    use std::io::Write;

    const LAYOUT: Layout = Layout { highest: (1 << 35) - 1, digits: 2 };
    const HIGHEST: u64 = LAYOUT.highest;

    fn decoded(bytes: &[u8]) -> Result<Vec<(usize, u64)>, HdrError> {
        counts_of(bytes, LAYOUT)
    }

    fn compressed(length: u32, high: u64, counts: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        plain.extend(COOKIE.to_be_bytes());
        plain.extend(length.to_be_bytes());
        plain.extend([0; 4]);
        plain.extend(2_u32.to_be_bytes());
        plain.extend(1_u64.to_be_bytes());
        plain.extend(high.to_be_bytes());
        plain.extend(1.0_f64.to_be_bytes());
        plain.extend(counts);
        let mut deflate = ZlibEncoder::new(Vec::new(), Compression::default());
        deflate.write_all(&plain).expect("to memory");
        let deflated = deflate.finish().expect("to memory");
        let mut all = COMPRESSED_COOKIE.to_be_bytes().to_vec();
        all.extend((deflated.len() as u32).to_be_bytes());
        all.extend(deflated);
        all
    }

    #[test]
    fn lengths_and_counts_that_lie_are_errors() {
        assert!(matches!(decoded(&compressed(u32::MAX, HIGHEST, &[2])), Err(HdrError::V2(_))));
        assert!(matches!(decoded(&compressed(1, u64::MAX, &[2])), Err(HdrError::Layout { .. })));
        let huge = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        assert!(matches!(decoded(&compressed(9, HIGHEST, &huge)), Err(HdrError::Counts)));
        let run_past_the_end = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2];
        assert!(matches!(decoded(&compressed(10, HIGHEST, &run_past_the_end)), Err(HdrError::V2(_))));
        assert!(matches!(decoded(&compressed(1 << 20, HIGHEST, &vec![0; 1 << 20])), Err(HdrError::V2(_))));
        assert_eq!(decoded(&compressed(3, HIGHEST, &[2, 1, 4])).expect("valid"), [(0, 1), (2, 2)]);
    }

    #[test]
    fn buckets_are_those_of_hdrhistogram() {
        for layout in
            [LAYOUT, Layout { highest: (1 << 36) - 1, digits: 3 }, Layout { highest: 999, digits: 1 }]
        {
            let mut hist = layout.empty().unwrap();
            assert_eq!(layout.buckets(), hist.distinct_values(), "{layout:?}");
            (0..layout.buckets()).for_each(|n| hist.saturating_record(layout.lowest_of(n)));
            let lowest: Vec<u64> =
                hist.iter_recorded().map(|v| hist.lowest_equivalent(v.value_iterated_to())).collect();
            let ours: Vec<u64> = (0..layout.buckets()).map(|n| layout.lowest_of(n)).collect();
            assert!(ours.iter().all(|v| *v > layout.highest || lowest.contains(v)), "{layout:?}");
        }
        assert!(Layout { highest: 1, digits: 2 }.empty().is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_counts_never_panic(counts in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = decoded(&compressed(counts.len() as u32, HIGHEST, &counts));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = decoded(&bytes);
        }
    }
}
