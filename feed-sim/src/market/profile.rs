//! What kind of market it is: how often orders come, how they cluster, where they rest and how long.
//!
//! Read by the market; the exchange chooses the one that is like what its venue was measured to be. All
//! numbers are whole, so that a seed means the same everywhere.

use crate::random::Random;

/// How orders arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// Each for itself.
    Poisson,
    /// In clusters, as measured: orders cause orders, and now and then all symbols burst at once.
    Hawkes,
    /// The same with many times as many bursts.
    Burst,
    /// The same after an opening: many times as fast at first.
    Open,
    /// Each for itself, in small books of few levels.
    Calm,
}

impl Preset {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Poisson, Self::Hawkes, Self::Burst, Self::Open, Self::Calm];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Poisson => "poisson",
            Self::Hawkes => "hawkes",
            Self::Burst => "burst",
            Self::Open => "open",
            Self::Calm => "calm",
        }
    }
}

/// The habits of a market.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile {
    /// Mean time between two orders, or ends of orders, of the busiest symbol.
    pub pace_ns: u64,
    /// So many orders are caused by a hundred others; below 100.
    pub branching_percent: u64,
    /// Of a thousand orders so many take at once what others offer.
    pub takers_permille: u64,
    /// Of a hundred takers so many go through several orders.
    pub sweeps_percent: u64,
    /// A sweep goes through fewer than two to this power of orders, and a few.
    pub sweep_bits: u64,
    /// A hundred takers are chased by so many orders, and these by others.
    pub chases_percent: u64,
    /// Of a thousand orders that chase so many take.
    pub chasing_takers_permille: u64,
    /// Of a hundred others that chase so many rest at the best price or better.
    pub chasing_at_best_percent: u64,
    /// Of a hundred other orders so many rest at the best price or better.
    pub at_best_percent: u64,
    /// The rest is farther from it by at most about two to this power of ticks.
    pub distance_bits: u64,
    /// Of a hundred other orders so many take the place of another.
    pub requotes_percent: u64,
    /// Levels of a side, of the busiest symbol: fewer are filled up, more are thinned.
    pub levels: (usize, usize),
    /// Mean time between two bursts.
    pub burst_every_ns: u64,
    /// A burst of the busiest symbol has fewer than two to this power of orders.
    pub burst_bits: u64,
    /// No order changes more than one level.
    pub is_single: bool,
}

impl Profile {
    /// The habits of this market under a preset.
    pub(super) const fn under(self, preset: Preset) -> Self {
        match preset {
            Preset::Hawkes | Preset::Open => self,
            Preset::Poisson => {
                Self { branching_percent: 0, chases_percent: 0, burst_every_ns: u64::MAX, ..self }
            }
            Preset::Burst => Self { burst_every_ns: self.burst_every_ns / 16, ..self },
            Preset::Calm => Self {
                branching_percent: 0,
                chases_percent: 0,
                burst_every_ns: u64::MAX,
                takers_permille: 400,
                sweeps_percent: 10,
                sweep_bits: 2,
                at_best_percent: 25,
                distance_bits: 4,
                requotes_percent: if self.is_single { 0 } else { 30 },
                levels: (15, 30),
                ..self
            },
        }
    }
}

/// How long an order rests that nobody takes: out of 100, so many rest no longer than that. As measured
/// on an exchange that tells of every order.
const LIVES_NS: [(u64, u64); 11] = [
    (0, 100_000),
    (5, 900_000),
    (15, 9_000_000),
    (25, 44_000_000),
    (37, 130_000_000),
    (50, 374_000_000),
    (62, 950_000_000),
    (75, 2_400_000_000),
    (85, 6_500_000_000),
    (95, 19_400_000_000),
    (100, 60_000_000_000),
];

/// How long an order will rest.
pub(super) fn life_ns(random: &mut Random) -> u64 {
    let drawn = random.below(100_000);
    let place = LIVES_NS.partition_point(|(percent, _)| percent * 1_000 <= drawn);
    let ((from, shortest), (to, longest)) =
        (LIVES_NS[place.max(1) - 1], LIVES_NS[place.min(LIVES_NS.len() - 1)]);
    let part = (drawn - from * 1_000) * (longest - shortest) / ((to - from) * 1_000).max(1);
    shortest + part
}

/// The size of an order: most are small, some are a thousand times as large.
pub(super) fn lots(random: &mut Random) -> i64 {
    1 + random.skewed(12) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_orders_live_no_longer_than_was_measured() {
        let mut random = Random::of(1, 0);
        let mut lives: Vec<u64> = (0..10_000).map(|_| life_ns(&mut random)).collect();
        lives.sort_unstable();
        assert!((330_000_000..420_000_000).contains(&lives[5_000]), "{}", lives[5_000]);
        assert!((17_000_000_000..22_000_000_000).contains(&lives[9_500]), "{}", lives[9_500]);
        assert!(lives[0] >= 100_000);
    }
}
