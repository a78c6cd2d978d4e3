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

/// The newest trades, oldest first, numbered from 1 without a hole.
#[derive(Debug, Clone, Default)]
pub struct TradeTail {
    full: Arc<VecDeque<Arc<Vec<Trade>>>>,
    open: Arc<Vec<Trade>>,
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
            }
        }
    }

    /// `count` trades are known to be missing: their numbers pass, and what is held before them is
    /// given up, so that numbers stay without a hole.
    pub fn skip(&mut self, count: u64) {
        self.newest += count;
        self.lost += count;
        self.full = Arc::default();
        self.open = Arc::default();
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
    pub fn floor(&self) -> u64 {
        self.newest - self.len() as u64
    }

    /// The trades numbered above `number` that are held, oldest first.
    pub fn after(&self, number: u64) -> impl Iterator<Item = &Trade> + '_ {
        let skip = usize::try_from(number.saturating_sub(self.floor())).unwrap_or(usize::MAX);
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
    fn missing_trades_keep_their_numbers() {
        let mut tail = TradeTail::default();
        tail.push(trade(1));
        tail.skip(3);
        tail.push(trade(5));
        assert_eq!((tail.newest(), tail.floor(), tail.lost()), (5, 4, 3));
        assert_eq!(numbers(&tail, 1), [5]);
    }
}
