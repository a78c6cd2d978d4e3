//! The newest trades of an instrument as a persistent list: cheap to append to, cheap to share.
//!
//! Trades carry running numbers, so that the difference of two snapshots is the trades between them
//! and a reader who falls off the end is told how many it missed.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::market::{Px, Qty, Trade};

/// How many of the newest trades a snapshot holds: minutes of a busy symbol, and far more than a
/// reader may lag without being told.
pub const TAIL_TRADES_MAX: usize = 8_192;

/// Trades a chunk: what one append after a publication copies at most.
const CHUNK_TRADES: usize = 64;

/// Numbers that stand for trades which we never saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hole {
    /// The number before the first of them.
    after: u64,
    count: u64,
}

impl Hole {
    const fn end(self) -> u64 {
        self.after + self.count
    }
}

/// What follows a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Following {
    /// So many numbers whose trades are not held: never seen, or too old.
    Lost(u64),
    /// So many trades.
    Trades(u64),
}

/// The newest trades, oldest first, numbered from 1. A number without a trade is one of a hole.
#[derive(Debug, Clone, Default)]
pub struct TradeTail {
    full: Arc<VecDeque<Arc<Vec<Trade>>>>,
    open: Arc<Vec<Trade>>,
    /// Holes between the trades held, and after them; at most one more than trades.
    holes: Arc<VecDeque<Hole>>,
    /// Everything up to this number is not held.
    floor: u64,
    /// The number of the newest trade; 0 = none yet.
    newest: u64,
    /// Trades known to be missing at the venue or between it and us, counted in the numbers.
    lost: u64,
}

impl TradeTail {
    /// The number of the newest trade, missing ones included.
    pub const fn newest(&self) -> u64 {
        self.newest
    }

    /// How many numbers stand for trades that we never saw.
    pub const fn lost(&self) -> u64 {
        self.lost
    }

    /// How many trades it holds.
    pub fn len(&self) -> usize {
        self.full.len() * CHUNK_TRADES + self.open.len()
    }

    /// It holds no trade.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends a trade and drops the oldest chunk when the tail is over its limit.
    pub fn push(&mut self, trade: Trade) {
        Arc::make_mut(&mut self.open).push(trade);
        self.newest += 1;
        if self.open.len() == CHUNK_TRADES {
            let full = Arc::make_mut(&mut self.full);
            full.push_back(std::mem::take(&mut self.open));
            if full.len() * CHUNK_TRADES > TAIL_TRADES_MAX {
                full.pop_front();
                self.raise_floor(CHUNK_TRADES as u64);
            }
        }
    }

    /// So many of the oldest trades have gone, and the holes between them.
    fn raise_floor(&mut self, mut trades: u64) {
        while let Some(hole) = self.holes.front().copied()
            && hole.after <= self.floor + trades
        {
            trades -= hole.after - self.floor;
            self.floor = hole.end();
            Arc::make_mut(&mut self.holes).pop_front();
        }
        self.floor += trades;
    }

    /// `count` trades are known to be missing: their numbers pass.
    pub fn skip(&mut self, count: u64) {
        if self.is_empty() {
            self.floor += count;
        } else {
            let holes = Arc::make_mut(&mut self.holes);
            match holes.back_mut() {
                Some(last) if last.end() == self.newest => last.count += count,
                _ => holes.push_back(Hole { after: self.newest, count }),
            }
        }
        self.newest += count;
        self.lost += count;
    }

    /// Expresses every trade in finer units: mantissas times `px_factor` and `qty_factor`. Returns
    /// false, and changes nothing, when one does not fit.
    #[must_use]
    pub fn rescale(&mut self, px_factor: i64, qty_factor: i64) -> bool {
        let finer = |chunk: &Arc<Vec<Trade>>| -> Option<Arc<Vec<Trade>>> {
            chunk
                .iter()
                .map(|trade| {
                    Some(Trade {
                        px: Px(trade.px.0.checked_mul(px_factor)?),
                        qty: Qty(trade.qty.0.checked_mul(qty_factor)?),
                        ..trade.clone()
                    })
                })
                .collect::<Option<Vec<_>>>()
                .map(Arc::new)
        };
        let full: Option<VecDeque<_>> = self.full.iter().map(finer).collect();
        let (Some(full), Some(open)) = (full, finer(&self.open)) else { return false };
        self.full = Arc::new(full);
        self.open = open;
        true
    }

    /// The number of the oldest trade held, less one.
    pub const fn floor(&self) -> u64 {
        self.floor
    }

    /// What follows a number: a run of lost numbers, or one of at most `trades_max` trades.
    pub fn following(&self, number: u64, trades_max: usize) -> Option<Following> {
        if number < self.floor {
            return Some(Following::Lost(self.floor - number));
        }
        let hole = self.holes.iter().find(|hole| hole.end() > number);
        match hole {
            Some(hole) if hole.after <= number => Some(Following::Lost(hole.end() - number)),
            _ => {
                let until = hole.map_or(self.newest, |hole| hole.after);
                let count = until.saturating_sub(number).min(trades_max as u64);
                (count > 0).then_some(Following::Trades(count))
            }
        }
    }

    /// How many of the trades held are numbered up to `number`.
    fn held_up_to(&self, number: u64) -> u64 {
        let missing: u64 = self
            .holes
            .iter()
            .take_while(|hole| hole.after < number)
            .map(|hole| hole.end().min(number) - hole.after)
            .sum();
        number.saturating_sub(self.floor) - missing
    }

    /// The trades numbered above `number` that are held, oldest first.
    pub fn after(&self, number: u64) -> impl Iterator<Item = &Trade> + '_ {
        let held = self.held_up_to(number.min(self.newest));
        let skip = usize::try_from(held).unwrap_or(usize::MAX);
        let chunks = (skip / CHUNK_TRADES).min(self.full.len());
        self.full
            .iter()
            .skip(chunks)
            .flat_map(|chunk| chunk.iter())
            .chain(self.open.iter())
            .skip(skip.saturating_sub(chunks * CHUNK_TRADES))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::market::{Aggressor, TradeId};

    fn trade(number: u64) -> Trade {
        Trade {
            te_ns: 0,
            px: Px(1),
            qty: Qty(1),
            aggressor: Aggressor::Buy,
            id: TradeId::Number(number),
        }
    }

    fn numbers(tail: &TradeTail, after: u64) -> Vec<u64> {
        tail.after(after)
            .map(|trade| match trade.id {
                TradeId::Number(number) => number,
                TradeId::Text(_) => unreachable!("the test counts"),
            })
            .collect()
    }

    #[test]
    fn numbers_lead_to_the_trades_between() {
        let mut tail = TradeTail::default();
        for number in 1..=300 {
            tail.push(trade(number));
        }
        for held in [0, 1, 63, 64, 65, 128, 299, 300] {
            assert_eq!(numbers(&tail, held), (held + 1..=300).collect::<Vec<_>>(), "{held}");
        }
        assert_eq!(numbers(&tail, 999), [0u64; 0]);
    }

    #[test]
    fn one_past_the_limit_falls_off_in_whole_chunks_and_is_countable() {
        let mut tail = TradeTail::default();
        let total = TAIL_TRADES_MAX as u64 + 64;
        for number in 1..=total {
            tail.push(trade(number));
        }
        assert_eq!(tail.len(), TAIL_TRADES_MAX);
        assert_eq!(tail.floor(), 64, "a reader who held 0 has missed 64");
        assert_eq!(numbers(&tail, 0).first(), Some(&65));
    }

    #[test]
    fn missing_trades_keep_their_numbers_and_cost_no_other() {
        let mut tail = TradeTail::default();
        tail.skip(2);
        tail.push(trade(3));
        tail.skip(1);
        tail.skip(2);
        tail.push(trade(7));
        tail.push(trade(8));
        assert_eq!((tail.newest(), tail.floor(), tail.lost()), (8, 2, 5));
        for (after, held) in [(0, vec![3, 7, 8]), (3, vec![7, 8]), (5, vec![7, 8]), (7, vec![8])] {
            assert_eq!(numbers(&tail, after), held, "after {after}");
        }
        let following = |number| tail.following(number, 2);
        assert_eq!(following(0), Some(Following::Lost(2)));
        assert_eq!(following(2), Some(Following::Trades(1)));
        assert_eq!(following(3), Some(Following::Lost(3)));
        assert_eq!(following(5), Some(Following::Lost(1)));
        assert_eq!(following(6), Some(Following::Trades(2)));
        assert_eq!(following(8), None);
    }

    proptest::proptest! {
        /// The model is the list of all numbers that have a trade.
        #[test]
        fn whatever_is_missing_the_rest_can_be_walked(
            runs in proptest::collection::vec((0u64..200, 0u64..4), 0..120),
            start in 0u64..12_000,
        ) {
            let mut tail = TradeTail::default();
            let mut all = Vec::new();
            for (trades, missing) in runs {
                for _ in 0..trades {
                    tail.push(trade(tail.newest() + 1));
                    all.push(tail.newest());
                }
                if missing > 0 {
                    tail.skip(missing);
                }
            }
            let held = &all[all.len() - tail.len()..];
            let (mut at, mut walked, mut lost) = (start, Vec::new(), 0);
            while let Some(following) = tail.following(at, 50) {
                match following {
                    Following::Lost(count) => {
                        lost += count;
                        at += count;
                    }
                    Following::Trades(count) => {
                        walked.extend(numbers(&tail, at).into_iter().take(count as usize));
                        at += count;
                    }
                }
            }
            let wanted: Vec<u64> = held.iter().copied().filter(|number| *number > start).collect();
            proptest::prop_assert_eq!(at, start.max(tail.newest()));
            proptest::prop_assert_eq!(lost + walked.len() as u64, at - start);
            proptest::prop_assert_eq!(walked, wanted);
        }
    }
}
