//! Reads HdrHistogram's V2 encoding of a histogram with nettrace's own bounds, from bytes that nobody vouches for.
//!
//! `hdrhistogram`'s reader trusts the lengths in the header (a few bytes can make it reserve 4 GiB) and the counts
//! (their sum may overflow). This one knows the only layout that is valid here, so both are bounded.

use super::HistError;
use flate2::read::ZlibDecoder;
use nettrace_common::hist::{BUCKETS, HIGHEST_NS, SIGNIFICANT_DIGITS};
use std::io::Read;

/// First word of the compressed form, and of the plain form inside it; 0x10 stands for words of any length.
const COMPRESSED_COOKIE: u32 = 0x1c84_9304 | 0x10;
const COOKIE: u32 = 0x1c84_9303 | 0x10;
/// Words of the plain form before the counts: cookie, length, offset, digits, low, high, ratio.
const HEADER_BYTES: usize = 40;
/// A count takes at most 9 bytes.
const MAX_BYTES: usize = HEADER_BYTES + 9 * BUCKETS;
/// More than any run can count; sums of many such histograms still fit in 64 bits.
const MAX_TOTAL: u64 = 1 << 53;

/// The bucket indices and counts of a compressed V2 histogram, ascending, without empty buckets.
pub(super) fn decode(bytes: &[u8]) -> Result<Vec<(usize, u64)>, HistError> {
    let bad = |what: &str| HistError::V2(what.to_owned());
    let (cookie, deflated) = bytes.split_first_chunk::<4>().ok_or_else(|| bad("too short"))?;
    let (_length, deflated) = deflated.split_first_chunk::<4>().ok_or_else(|| bad("too short"))?;
    if u32::from_be_bytes(*cookie) != COMPRESSED_COOKIE {
        return Err(bad("wrong cookie"));
    }
    let mut plain = Vec::new();
    ZlibDecoder::new(deflated)
        .take(MAX_BYTES as u64 + 1)
        .read_to_end(&mut plain)
        .map_err(|e| HistError::V2(e.to_string()))?;
    if plain.len() > MAX_BYTES {
        return Err(bad("more counts than buckets"));
    }
    let (header, rest) = plain.split_first_chunk::<HEADER_BYTES>().ok_or_else(|| bad("header cut off"))?;
    let length = check_header(header)?;
    counts(rest.get(..length).ok_or_else(|| bad("counts cut off"))?)
}

/// Checks that the header names nettrace's layout, and yields how many bytes of counts follow.
fn check_header(header: &[u8; HEADER_BYTES]) -> Result<usize, HistError> {
    let word = |at: usize| header[at..at + 4].iter().fold(0_u32, |n, b| n << 8 | u32::from(*b));
    let long = |at: usize| u64::from(word(at)) << 32 | u64::from(word(at + 4));
    if word(0) != COOKIE {
        return Err(HistError::V2("wrong inner cookie".to_owned()));
    }
    if word(8) != 0 || f64::from_bits(long(32)).to_bits() != 1.0_f64.to_bits() {
        return Err(HistError::V2("shifted or scaled values".to_owned()));
    }
    let (digits, low, high) = (word(12), long(16), long(24));
    if low != 1 || high != HIGHEST_NS || digits != u32::from(SIGNIFICANT_DIGITS) {
        return Err(HistError::Layout { high, digits });
    }
    usize::try_from(word(4)).map_err(|_| HistError::V2("length out of range".to_owned()))
}

/// Decodes ZigZag LEB128: a count, or, when negative, a run of empty buckets.
fn counts(mut bytes: &[u8]) -> Result<Vec<(usize, u64)>, HistError> {
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
            if index >= BUCKETS {
                return Err(HistError::V2("more counts than buckets".to_owned()));
            }
            total = total.saturating_add(magnitude);
            if total > MAX_TOTAL {
                return Err(HistError::Counts);
            }
            found.push((index, magnitude));
        }
        index = index.saturating_add(1);
    }
    Ok(found)
}

/// Takes one number of at most 9 bytes; the ninth counts with all its bits.
fn leb128(bytes: &mut &[u8]) -> Result<u64, HistError> {
    let mut value = 0;
    for n in 0..9 {
        let (&byte, rest) = bytes.split_first().ok_or_else(|| HistError::V2("number cut off".to_owned()))?;
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
        assert!(matches!(decode(&compressed(u32::MAX, HIGHEST_NS, &[2])), Err(HistError::V2(_))));
        assert!(matches!(decode(&compressed(1, u64::MAX, &[2])), Err(HistError::Layout { .. })));
        let huge = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        assert!(matches!(decode(&compressed(9, HIGHEST_NS, &huge)), Err(HistError::Counts)));
        let run_past_the_end = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2];
        assert!(matches!(decode(&compressed(10, HIGHEST_NS, &run_past_the_end)), Err(HistError::V2(_))));
        assert!(matches!(decode(&compressed(1 << 20, HIGHEST_NS, &vec![0; 1 << 20])), Err(HistError::V2(_))));
        assert_eq!(decode(&compressed(3, HIGHEST_NS, &[2, 1, 4])).expect("valid"), [(0, 1), (2, 2)]);
    }

    proptest! {
        #[test]
        fn arbitrary_counts_never_panic(counts in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = decode(&compressed(counts.len() as u32, HIGHEST_NS, &counts));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = decode(&bytes);
        }
    }
}
