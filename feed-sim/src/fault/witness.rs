//! What every book has become, state by state: for images that lag behind, and for who judges a client.
//!
//! Looks at the exchange after each thing that happens and before anybody is told of it.

use std::collections::VecDeque;

use tickfan_core::market::Side;

use crate::exchange::Exchange;
use crate::truth::normalise;

/// Numbers of a symbol's book that are kept: the newest, and as many before it as an image may lag.
const NUMBERS_KEPT: usize = 9;

/// A state that a book truly had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Of which symbol.
    pub symbol: usize,
    /// How many the book had before.
    pub version: u64,
    /// The venue's number of it; our count where it has none.
    pub id: u64,
    /// The best levels of bids and asks, price and quantity, normalised.
    pub top: [Vec<[String; 2]>; 2],
}

/// See the top of this file.
#[derive(Debug)]
pub(super) struct Witness {
    /// The numbers that the stream of each symbol told last, newest last.
    told: Vec<VecDeque<u64>>,
    /// What was seen last of each symbol: its version and number.
    known: Vec<Option<(u64, u64)>>,
    /// How many levels are told, where anything is.
    levels: Option<usize>,
    states: Vec<State>,
}

impl Witness {
    pub(super) fn new(symbols: usize) -> Self {
        Self {
            told: vec![VecDeque::new(); symbols],
            known: vec![None; symbols],
            levels: None,
            states: Vec::new(),
        }
    }

    /// There is one more symbol.
    pub(super) fn add(&mut self) {
        self.told.push(VecDeque::new());
        self.known.push(None);
    }

    /// From now on states are told.
    pub(super) const fn watch(&mut self, levels: usize) {
        self.levels = Some(levels);
    }

    /// The states since the last time, in order.
    pub(super) fn take_states(&mut self) -> Vec<State> {
        std::mem::take(&mut self.states)
    }

    /// Something may have happened.
    pub(super) fn look(&mut self, exchange: &Exchange) {
        let Some(levels) = self.levels else { return };
        for (symbol, known) in self.known.iter_mut().enumerate() {
            let (version, id) = (exchange.version(symbol), exchange.newest_id(symbol));
            if *known == Some((version, id)) {
                continue;
            }
            *known = Some((version, id));
            let book = exchange.book(symbol);
            let top = [Side::Bid, Side::Ask].map(|side| {
                let levels = book.levels(side).take(levels);
                levels.map(|level| [normalise(&level.px), normalise(&level.qty)]).collect()
            });
            self.states.push(State { symbol, version, id, top });
        }
    }

    /// The stream of a symbol tells of its book at this number.
    pub(super) fn tell(&mut self, symbol: usize, id: u64) {
        let told = &mut self.told[symbol];
        if told.back() == Some(&id) {
            return;
        }
        if told.len() == NUMBERS_KEPT {
            told.pop_front();
        }
        told.push_back(id);
    }

    /// The number that the stream of a symbol told so many updates ago; `None` when it has not told of
    /// so many.
    pub(super) fn number(&self, symbol: usize, behind: u64) -> Option<u64> {
        let told = &self.told[symbol];
        told.get(told.len().checked_sub(1 + behind as usize)?).copied()
    }
}
