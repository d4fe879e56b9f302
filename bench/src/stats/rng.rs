//! Random numbers that are the same on every machine and in every version.
//!
//! Needs a seed, which results keep. Yields numbers of SplitMix64 (Steele, Lea and Flood 2014): good enough to draw rounds,
//! and no secret.

/// A generator.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// From a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 random bits.
    pub const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// At least 0 and below 1.
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// At least 0 and below `bound`, which is not 0; for bounds far below 2^64 evenly (Lemire 2019).
    pub const fn below(&mut self, bound: usize) -> usize {
        ((self.bits() as u128 * bound as u128) >> 64) as usize
    }

    /// Heads or tails.
    pub const fn toss(&mut self) -> bool {
        self.bits() >> 63 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_reference() {
        // First outputs of the reference implementation (Vigna, splitmix64.c) for seed 1234567.
        let mut rng = Rng::new(1_234_567);
        let first = [rng.bits(), rng.bits(), rng.bits()];
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn draws_are_even() {
        let mut rng = Rng::new(5);
        let mut counts = [0_u32; 7];
        (0..70_000).for_each(|_| counts[rng.below(7)] += 1);
        // Five standard deviations of a binomial count.
        assert!(counts.iter().all(|c| c.abs_diff(10_000) < 470), "{counts:?}");
        assert!((0..1000).map(|_| rng.uniform()).all(|u| (0.0..1.0).contains(&u)));
    }
}
