//! A seed → the same numbers everywhere: splitmix64, in integers only.
//!
//! Called by the synthetic market and exchange. Floating point and the library's generators are kept
//! out so that a seed means the same bytes on every machine and for ever.

/// A stream of pseudo-random numbers.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// A stream that has nothing in common with those of other numbers or of `seed` itself.
    pub(crate) const fn of(seed: u64, number: u64) -> Self {
        let mut of_seed = Self(seed);
        let mut of_number = Self(of_seed.next() ^ number);
        Self(of_number.next())
    }

    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to `limit - 1`; 0 when `limit` is.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(limit)) >> 64) as u64
    }

    /// True `percent` times in a hundred.
    pub(crate) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// A number from 0 to `2^bits - 1` of which small ones are far more likely: each power of two is
    /// as likely as every other.
    pub(crate) fn skewed(&mut self, bits: u64) -> u64 {
        let width = self.below(bits + 1);
        self.below(1 << width)
    }

    /// True or false, evenly.
    pub(crate) fn coin(&mut self) -> bool {
        self.below(2) == 1
    }

    /// The pause before the next of things that happen at any time, `mean` apart.
    pub(crate) fn exponential(&mut self, mean: u64) -> u64 {
        // Minus the logarithm of a number between 0 and 1, with 16 bits behind the point: its leading
        // zeros are the whole part, and a parabola is near enough for the rest.
        let drawn = self.next() | 1;
        let zeros = u64::from(drawn.leading_zeros());
        let rest = ((drawn << zeros) << 1) >> 48;
        let bend = (rest * (65_536 - rest)) >> 16;
        let log2 = rest + ((bend * 22_544) >> 16);
        let halvings = ((zeros + 1) << 16).saturating_sub(log2);
        // The natural logarithm of 2, in 65,536ths.
        let units = u128::from(halvings) * 45_426;
        ((u128::from(mean) * units) >> 32) as u64
    }

    /// How many of things that happen at any time happen where `percent` of one do in the mean.
    pub(crate) fn poisson(&mut self, percent: u64) -> u64 {
        let (mut count, mut passed) = (0, self.exponential(10_000));
        while passed < percent * 100 {
            count += 1;
            passed += self.exponential(10_000);
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The published first outputs of splitmix64 for seed 1234567.
    #[test]
    fn it_is_splitmix64() {
        let mut random = Random(1_234_567);
        assert_eq!(random.next(), 6_457_827_717_110_365_317);
        assert_eq!(random.next(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn pauses_and_counts_have_their_means() {
        let mut random = Random(5);
        let pauses: Vec<u64> = (0..100_000).map(|_| random.exponential(1_000)).collect();
        let mean = pauses.iter().sum::<u64>() / 100_000;
        assert!((980..=1_020).contains(&mean), "{mean}");
        // One in e is longer than the mean, one in e² than twice that.
        let longer = |than| pauses.iter().filter(|pause| **pause > than).count();
        assert!((35_800..=37_800).contains(&longer(1_000)), "{}", longer(1_000));
        assert!((12_900..=14_200).contains(&longer(2_000)), "{}", longer(2_000));
        let count: u64 = (0..100_000).map(|_| random.poisson(90)).sum();
        assert!((88_000..=92_000).contains(&count), "{count}");
    }
}
