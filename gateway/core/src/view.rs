//! What can be subscribed to: an instrument, a channel and a depth, under a latency budget.
//!
//! Depths and budgets come in classes, so that subscribers share: a thousand depths would share
//! nothing.

use crate::market::{Channel, InstrumentId, Nanos};

/// The depths on offer, the last being every level that the gateway holds.
pub const DEPTHS: [Depth; 10] = [
    Depth::Levels(1),
    Depth::Levels(5),
    Depth::Levels(10),
    Depth::Levels(20),
    Depth::Levels(50),
    Depth::Levels(100),
    Depth::Levels(200),
    Depth::Levels(500),
    Depth::Levels(1000),
    Depth::Full,
];

/// The latency budgets on offer, in milliseconds.
pub const BUDGETS_MS: [u32; 13] = [0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000];

/// How many levels of each side a view shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Depth {
    /// This many.
    Levels(u16),
    /// All that the gateway holds.
    Full,
}

impl Depth {
    /// The smallest depth on offer that shows at least `levels`.
    pub fn at_least(levels: u64) -> Self {
        DEPTHS
            .into_iter()
            .find(|depth| matches!(depth, Self::Levels(n) if u64::from(*n) >= levels))
            .unwrap_or(Self::Full)
    }

    /// The number of levels, as a limit.
    pub const fn limit(self) -> usize {
        match self {
            Self::Levels(n) => n as usize,
            Self::Full => usize::MAX,
        }
    }
}

/// A latency budget on offer: an index into [`BUDGETS_MS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BudgetClass(u8);

impl BudgetClass {
    /// Every class, the strictest first.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..BUDGETS_MS.len() as u8).map(Self)
    }

    /// The longest budget on offer that is at most `ms`.
    pub fn at_most(ms: u64) -> Self {
        Self(BUDGETS_MS.partition_point(|budget| u64::from(*budget) <= ms).saturating_sub(1) as u8)
    }

    /// The class as an index into [`BUDGETS_MS`].
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The budget in milliseconds.
    pub const fn ms(self) -> u32 {
        BUDGETS_MS[self.0 as usize]
    }

    /// The budget.
    pub const fn budget_ns(self) -> Nanos {
        self.ms() as Nanos * 1_000_000
    }
}

/// What is shown of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct View {
    /// Of which instrument.
    pub instrument: InstrumentId,
    /// Which channel.
    pub channel: Channel,
    /// How deep; [`Depth::Levels`]`(1)` where the channel is not the book.
    pub depth: Depth,
}

/// Views per instrument in the numbering: one per depth, and bbo, and trades.
const VIEWS_PER_INSTRUMENT: u32 = 16;

impl View {
    /// A view of a channel that has no depth.
    pub const fn flat(instrument: InstrumentId, channel: Channel) -> Self {
        Self { instrument, channel, depth: Depth::Levels(1) }
    }

    /// The gateway-wide number of this view. It is computed, so that no table has to be shared.
    pub fn number(self) -> u32 {
        let slot = match self.channel {
            Channel::Bbo => 1,
            Channel::Trades => 2,
            Channel::Book => {
                let class = DEPTHS.iter().position(|depth| *depth == self.depth);
                3 + class.map_or(0, |class| class as u32)
            }
        };
        self.instrument.0 * VIEWS_PER_INSTRUMENT + slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depths_round_up_and_budgets_down() {
        assert_eq!(Depth::at_least(1), Depth::Levels(1));
        assert_eq!(Depth::at_least(11), Depth::Levels(20));
        assert_eq!(Depth::at_least(1000), Depth::Levels(1000));
        assert_eq!(Depth::at_least(1001), Depth::Full);
        assert_eq!(BudgetClass::at_most(0).ms(), 0);
        assert_eq!(BudgetClass::at_most(99).ms(), 50);
        assert_eq!(BudgetClass::at_most(100).ms(), 100);
        assert_eq!(BudgetClass::at_most(u64::MAX).ms(), 5000);
    }

    #[test]
    fn no_two_views_share_a_number() {
        let mut numbers = std::collections::HashSet::new();
        for id in (0..3).map(InstrumentId) {
            for depth in DEPTHS {
                let view = View { instrument: id, channel: Channel::Book, depth };
                assert!(numbers.insert(view.number()));
            }
            for channel in [Channel::Bbo, Channel::Trades] {
                assert!(numbers.insert(View::flat(id, channel).number()));
            }
        }
    }
}
