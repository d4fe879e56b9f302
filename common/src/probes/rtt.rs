//! `rtt`: which segments of a flow yield a round trip.

/// Of a flow's segments so many yield one sample, besides the one with SYN; a power of two.
pub const ONE_IN: u32 = 8;

/// Whether a segment that is acknowledged by this number begins a sample. By a hash, so that neither the size of
/// segments nor a pattern of requests decides.
#[inline(always)]
#[must_use]
pub const fn chosen(end: u32) -> bool {
    end.wrapping_mul(0x9E37_79B1) >> (u32::BITS - ONE_IN.trailing_zeros()) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_so_many_is_chosen_whatever_the_size_of_segments() {
        const SEGMENTS: u32 = 80_000;
        for size in [1, 64, 100, 512, 1024, 1448, 1460, 8948, 65_160] {
            for first in [0, 1, 0xffff_0000, 0x1234_5678] {
                let chosen =
                    (0..SEGMENTS).filter(|n| chosen(n.wrapping_mul(size).wrapping_add(first))).count();
                let expected = (SEGMENTS / ONE_IN) as usize;
                assert!(chosen.abs_diff(expected) < expected / 5, "size {size}: {chosen} of {SEGMENTS}");
            }
        }
    }
}
