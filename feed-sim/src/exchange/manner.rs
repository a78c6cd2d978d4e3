//! How the venues differ in what they say at all: when, of how much of a book, and by which numbers.
//!
//! Read by the exchange. How they word it is in `words.rs` and in the files of the venues.

use crate::market::Profile;
use crate::random::Random;
use crate::venue::{Dialect, bitfinex, kraken, okx};

/// What a venue counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Numbers {
    /// Changes of a book, told or not.
    Changes,
    /// Messages about a book.
    Messages,
    /// Nothing of a book.
    Nothing,
}

/// What it counts.
pub(super) const fn numbers(dialect: Dialect) -> Numbers {
    match dialect {
        Dialect::BinanceSpot | Dialect::BinanceUsdm | Dialect::BinanceCoinm => Numbers::Changes,
        Dialect::Okx | Dialect::BybitSpot | Dialect::BybitLinear | Dialect::Deribit => {
            Numbers::Messages
        }
        Dialect::Coinbase
        | Dialect::CoinbaseAdvanced
        | Dialect::Kraken
        | Dialect::KrakenV1
        | Dialect::Bitfinex => Numbers::Nothing,
    }
}

/// The time between two messages about one book, where a timer sends them.
pub(super) const fn interval_ns(dialect: Dialect) -> Option<u64> {
    match dialect {
        Dialect::BinanceSpot | Dialect::Okx | Dialect::BybitSpot | Dialect::BybitLinear => {
            Some(100_000_000)
        }
        Dialect::BinanceUsdm | Dialect::CoinbaseAdvanced => Some(50_000_000),
        // The median of what was measured there.
        Dialect::BinanceCoinm => Some(11_000_000),
        Dialect::Coinbase
        | Dialect::Kraken
        | Dialect::KrakenV1
        | Dialect::Deribit
        | Dialect::Bitfinex => None,
    }
}

/// How many levels a side it tells of; `None` = of all.
pub(super) const fn window(dialect: Dialect) -> Option<usize> {
    match dialect {
        Dialect::Kraken | Dialect::KrakenV1 => Some(10),
        Dialect::BybitSpot | Dialect::BybitLinear => Some(50),
        Dialect::Okx => Some(400),
        _ => None,
    }
}

/// It tells that a level is gone which others pushed out of its window.
pub(super) const fn tells_pushed_out(dialect: Dialect) -> bool {
    !matches!(dialect, Dialect::Kraken | Dialect::KrakenV1)
}

/// How many levels of a side the checksum covers that changes of a book come with; 0 = they have none.
pub(super) const fn checksum_levels(dialect: Dialect) -> usize {
    match dialect {
        Dialect::Kraken | Dialect::KrakenV1 => kraken::CHECKSUM_LEVELS,
        Dialect::Okx => okx::CHECKSUM_LEVELS,
        Dialect::Bitfinex => bitfinex::CHECKSUM_LEVELS,
        _ => 0,
    }
}

/// The best of a book is a stream of its own.
pub(super) const fn has_ticker(dialect: Dialect) -> bool {
    dialect.fetches_images()
}

/// The second number of a book, where it has two.
pub(super) const fn order(dialect: Dialect, id: u64, order: u64) -> Option<u64> {
    match dialect {
        Dialect::Okx => Some(id),
        Dialect::BybitSpot | Dialect::BybitLinear => Some(order),
        _ => None,
    }
}

/// How far the number of a book goes with a message about it.
pub(super) fn id_step(dialect: Dialect, random: &mut Random) -> u64 {
    match dialect {
        // Topics count by one.
        Dialect::BybitSpot | Dialect::BybitLinear => 1,
        _ => 1 + random.below(5),
    }
}

/// How many numbers no change of this book has before one that has.
pub(super) fn id_gap(dialect: Dialect, random: &mut Random) -> u64 {
    match dialect {
        Dialect::BinanceSpot => 0,
        // Futures count what is not told too.
        _ => 1 + random.below(3),
    }
}

/// The market that is like what the venue was measured to be; `feed-sim facts` shows how near it comes.
pub(super) const fn profile(dialect: Dialect) -> Profile {
    let deep = Profile {
        pace_ns: 3_500_000,
        branching_percent: 60,
        takers_permille: 34,
        sweeps_percent: 19,
        sweep_bits: 6,
        chases_percent: 500,
        chasing_takers_permille: 15,
        chasing_at_best_percent: 88,
        at_best_percent: 5,
        distance_bits: 10,
        requotes_percent: 0,
        levels: (300, 900),
        burst_every_ns: 6_000_000_000,
        burst_bits: 10,
        is_single: false,
    };
    let middle = Profile {
        pace_ns: 5_500_000,
        branching_percent: 50,
        takers_permille: 3,
        sweeps_percent: 10,
        chases_percent: 300,
        chasing_takers_permille: 10,
        chasing_at_best_percent: 60,
        at_best_percent: 6,
        distance_bits: 6,
        levels: (100, 300),
        burst_every_ns: 4_000_000_000,
        burst_bits: 9,
        ..deep
    };
    let plain = Profile {
        pace_ns: 9_000_000,
        sweeps_percent: 20,
        chasing_takers_permille: 20,
        at_best_percent: 15,
        levels: (60, 200),
        burst_every_ns: 8_000_000_000,
        burst_bits: 3,
        ..middle
    };
    match dialect {
        Dialect::BinanceSpot => deep,
        Dialect::BinanceUsdm => Profile {
            pace_ns: 1_100_000,
            takers_permille: 11,
            sweeps_percent: 5,
            chases_percent: 800,
            chasing_takers_permille: 7,
            burst_every_ns: 2_800_000_000,
            ..deep
        },
        // A taker is rarer than on the others, and chased by more.
        Dialect::BinanceCoinm => Profile {
            pace_ns: 1_500_000,
            takers_permille: 3,
            sweeps_percent: 8,
            sweep_bits: 3,
            chases_percent: 1_800,
            chasing_takers_permille: 2,
            at_best_percent: 8,
            distance_bits: 9,
            levels: (200, 600),
            burst_every_ns: 2_000_000_000,
            burst_bits: 9,
            ..middle
        },
        Dialect::BybitSpot | Dialect::BybitLinear => middle,
        Dialect::Okx => Profile {
            pace_ns: 2_000_000,
            takers_permille: 3,
            sweeps_percent: 60,
            sweep_bits: 3,
            chases_percent: 400,
            chasing_takers_permille: 8,
            at_best_percent: 9,
            distance_bits: 8,
            burst_every_ns: 3_500_000_000,
            burst_bits: 8,
            ..middle
        },
        Dialect::CoinbaseAdvanced => Profile {
            pace_ns: 5_000_000,
            takers_permille: 5,
            chasing_takers_permille: 20,
            distance_bits: 7,
            burst_every_ns: 8_000_000_000,
            burst_bits: 6,
            ..middle
        },
        Dialect::Coinbase => plain,
        Dialect::Kraken | Dialect::KrakenV1 => Profile {
            pace_ns: 14_000_000,
            branching_percent: 60,
            takers_permille: 1,
            at_best_percent: 12,
            ..plain
        },
        Dialect::Deribit => {
            Profile { pace_ns: 50_000_000, takers_permille: 6, requotes_percent: 5, ..plain }
        }
        // It tells of one level a message, of a hundred of a side.
        Dialect::Bitfinex => Profile {
            pace_ns: 70_000_000,
            branching_percent: 81,
            takers_permille: 8,
            at_best_percent: 28,
            distance_bits: 5,
            levels: (40, 90),
            is_single: true,
            ..plain
        },
    }
}

/// Messages a minute about the busiest symbol of that market, in the mean: those that come at once, and
/// those that its book would take if no timer merged any.
const fn messages_per_minute(dialect: Dialect) -> (u64, u64) {
    match dialect {
        Dialect::BinanceSpot => (6_000, 20_000),
        Dialect::BinanceUsdm => (11_400, 30_000),
        Dialect::BinanceCoinm => (5_700, 78_000),
        Dialect::BybitSpot | Dialect::BybitLinear => (90, 15_000),
        Dialect::Okx => (400, 40_000),
        Dialect::CoinbaseAdvanced => (200, 15_000),
        Dialect::Coinbase => (6_650, 0),
        Dialect::Kraken | Dialect::KrakenV1 => (2_900, 0),
        Dialect::Deribit => (1_400, 0),
        Dialect::Bitfinex => (1_700, 0),
    }
}

/// Messages a second about so many symbols of that market, in the mean.
pub(super) fn messages_per_second(dialect: Dialect, symbols: usize) -> u64 {
    let (at_once, merged) = messages_per_minute(dialect);
    let timed = interval_ns(dialect).map_or(0, |interval_ns| 60_000_000_000 / interval_ns);
    // The second symbol has half as many events, the third a third; no timer goes off for nothing.
    let of = |rank: u64| (at_once + timed * merged / (timed * rank + merged).max(1) * rank) / rank;
    let in_a_minute: u64 = (1..=symbols.max(1) as u64).map(of).sum();
    (in_a_minute / 60).max(1)
}
