//! One symbol as the venue tells of it: its numbers, what of its book was told, and what was not yet.
//!
//! Owned by the exchange. The book itself is the market's; here is what is between it and the words.

use std::borrow::Cow;
use std::collections::HashMap;

use tickfan_core::market::Side;

use super::control::Lie;
use super::instrument::Instrument;
use super::manner::{self, Numbers};
use super::pending::Pending;
use super::top::Top;
use super::{ExchangeOptions, words};
use crate::market::{Change, Levels, Market};
use crate::random::Random;
use crate::truth::{Text, TruthBook, TruthLevel};
use crate::venue::{Books, Dialect};

/// A level as it is to be told, and as it was told before.
#[derive(Debug, Clone, Copy)]
pub(super) struct LevelUpdate {
    is_bid: bool,
    ticks: i64,
    was: i64,
    lots: i64,
}

impl LevelUpdate {
    /// A level is taken away that there was not.
    pub(super) const fn absent(is_bid: bool, ticks: i64) -> Self {
        Self { is_bid, ticks, was: 0, lots: 0 }
    }
}

/// See the top of this file.
#[derive(Debug)]
pub(super) struct Symbol {
    dialect: Dialect,
    random: Random,
    pub(super) name: String,
    pub(super) base: String,
    pub(super) px_digits: u32,
    pub(super) qty_digits: u32,
    /// The venue's number of the book.
    pub(super) id: u64,
    /// The number that was told last.
    pub(super) told_id: u64,
    /// Of the first change that was not told yet.
    pub(super) first_id: u64,
    /// The venue's number of whatever happens at the symbol.
    pub(super) order: u64,
    pub(super) trade_id: u64,
    /// How many states the book has had.
    pub(super) version: u64,
    /// What the next change says that the book hashes to, when not the truth.
    pub(super) lie: Option<Lie>,
    /// A timer will tell of it.
    pub(super) is_due: bool,
    best: [Option<(i64, i64)>; 2],
    /// Changed and not told yet.
    pending: Pending,
    /// Where the window ended of each side when that was told.
    ends: [Option<i64>; 2],
    /// The best levels as they were hashed last, where they are.
    tops: [Top; 2],
}

impl Symbol {
    pub(super) fn new(
        index: usize,
        instrument: Instrument,
        options: &ExchangeOptions,
        market: &mut Market,
    ) -> Self {
        let Instrument { name, base, px_digits, qty_digits, .. } = instrument;
        let dialect = options.dialect;
        let mut random = Random::of(!options.seed, index as u64);
        let id = 1_000_000 + random.below(1_000_000);
        let symbol = Self {
            dialect,
            name,
            base,
            px_digits,
            qty_digits,
            id,
            told_id: id,
            first_id: id + 1,
            order: 7_000_000 + random.below(1_000_000),
            trade_id: 1_000 + random.below(1_000_000),
            version: 0,
            lie: None,
            is_due: false,
            best: [true, false].map(|is_bid| market.best(index, is_bid)),
            pending: Pending::default(),
            ends: ends(dialect, market, index),
            tops: Default::default(),
            random,
        };
        market.mark(index, symbol.newest_id());
        symbol
    }

    /// Digits behind a price's point became more: all prices are this many times as many ticks.
    pub(super) fn refine(&mut self, times: i64) {
        self.px_digits += 1;
        self.tops.iter_mut().for_each(Top::forget);
        self.ends.iter_mut().flatten().for_each(|ticks| *ticks *= times);
        self.pending.refine(times);
        for (ticks, _) in self.best.iter_mut().flatten() {
            *ticks *= times;
        }
    }

    /// The number of the newest state that may be asked for.
    pub(super) const fn newest_id(&self) -> u64 {
        match manner::numbers(self.dialect) {
            Numbers::Nothing => self.version,
            Numbers::Changes | Numbers::Messages => self.id,
        }
    }

    /// The market changed the book; says whether its best is another, where the venue tells of that.
    pub(super) fn change(&mut self, changes: &[Change], market: &mut Market, index: usize) -> bool {
        if manner::numbers(self.dialect) == Numbers::Changes {
            let gap = manner::id_gap(self.dialect, &mut self.random);
            if self.pending.is_empty() {
                self.first_id = self.id + gap + 1;
            }
            self.id += gap + changes.len() as u64;
        }
        changes.iter().for_each(|change| self.pending.push(*change));
        if manner::window(self.dialect).is_none() {
            self.version += 1;
            if manner::numbers(self.dialect) != Numbers::Messages {
                market.mark(index, self.newest_id());
            }
        }
        if !manner::has_ticker(self.dialect) {
            return false;
        }
        let best = [true, false].map(|is_bid| market.best(index, is_bid));
        best != std::mem::replace(&mut self.best, best)
    }

    /// What changed of the book, or of the window of it, since that was told; it is told now.
    pub(super) fn take_changes(&mut self, market: &mut Market, index: usize) -> Vec<LevelUpdate> {
        self.is_due = false;
        let ends = ends(self.dialect, market, index);
        let told_ends = std::mem::replace(&mut self.ends, ends);
        for (is_bid, side) in [(true, 0), (false, 1)] {
            // What is in one window and not in the other is told although nobody touched it.
            let (told, now) = (told_ends[side], ends[side]);
            let (near, far) = match told {
                Some(ticks) if is_within(now, is_bid, ticks) => (told, now),
                _ => (now, told),
            };
            let below = near.into_iter().flat_map(|near| market.side_below(index, is_bid, near));
            let between = below.take_while(|(ticks, _)| is_within(far, is_bid, *ticks));
            between.for_each(|(ticks, was)| self.pending.push(Change { is_bid, ticks, was }));
        }
        let has_window = manner::window(self.dialect).is_some();
        let tells_pushed_out = manner::tells_pushed_out(self.dialect);
        let update = |Change { is_bid, ticks, was }| {
            let (side, rests) = (usize::from(!is_bid), market.lots(index, is_bid, ticks));
            let lots = if is_within(ends[side], is_bid, ticks) { rests } else { 0 };
            let was = if is_within(told_ends[side], is_bid, ticks) { was } else { 0 };
            let is_told = !has_window || was != lots && (tells_pushed_out || lots == rests);
            is_told.then_some(LevelUpdate { is_bid, ticks, was, lots })
        };
        let updates: Vec<LevelUpdate> = self.pending.iter().filter_map(update).collect();
        self.pending.clear();
        if has_window {
            if updates.is_empty() {
                return updates;
            }
            self.version += 1;
        }
        self.order += 1;
        if manner::numbers(self.dialect) == Numbers::Messages {
            self.id += manner::id_step(self.dialect, &mut self.random);
        }
        market.mark(index, self.newest_id());
        updates
    }

    /// What was not told yet counts as told.
    pub(super) fn told(&mut self) {
        self.told_id = self.id;
        self.lie = None;
    }

    /// The words for a change of the book.
    pub(super) fn update(
        &mut self,
        index: usize,
        market: &Market,
        changes: &[LevelUpdate],
        at_ns: u64,
    ) -> Vec<String> {
        let mut sides = [Vec::with_capacity(changes.len()), Vec::with_capacity(changes.len())];
        for change in changes {
            sides[usize::from(!change.is_bid)].push(self.level(change.ticks, change.lots));
        }
        let mut before = TruthBook::default();
        if self.dialect == Dialect::Deribit {
            for change in changes.iter().filter(|change| change.was > 0) {
                let side = if change.is_bid { Side::Bid } else { Side::Ask };
                before.set(side, &self.px(change.ticks), &self.qty(change.was));
            }
        }
        self.word_tops(market, index);
        let ([bids, asks], [best_bids, best_asks]) = (&sides, &self.tops);
        words::update(&words::Wording {
            dialect: self.dialect,
            symbol: self,
            channel: words::channel(index),
            top: [best_bids.words(), best_asks.words()],
            bids,
            asks,
            before: &before,
            at_ns,
        })
    }

    /// Puts the best levels into words as they were told, where they are hashed.
    fn word_tops(&mut self, market: &Market, index: usize) {
        let depth = manner::checksum_levels(self.dialect);
        if depth == 0 {
            return;
        }
        let mut tops = std::mem::take(&mut self.tops);
        let told = (!self.pending.is_empty()).then(|| self.told_levels(market, index, depth));
        for (is_bid, side) in [(true, 0), (false, 1)] {
            let word = |ticks, lots| self.level(ticks, lots);
            match &told {
                None => tops[side].set(is_bid, market.side(index, is_bid).take(depth), word),
                Some(told) => tops[side].set(is_bid, told[side].iter().copied(), word),
            }
        }
        self.tops = tops;
    }

    /// The words for the best of the book, where the venue has any.
    pub(super) fn ticker(&self, at_ns: u64) -> Option<String> {
        if !manner::has_ticker(self.dialect) {
            return None;
        }
        let [Some(bid), Some(ask)] = self.best else { return None };
        let best = [bid, ask].map(|(ticks, lots)| self.level(ticks, lots));
        Some(words::ticker(self.dialect, self, &best, at_ns))
    }

    /// A price in the venue's words.
    pub(super) fn px(&self, ticks: i64) -> Text {
        words::decimal(self.dialect, ticks, self.px_digits)
    }

    /// A quantity in the venue's words.
    pub(super) fn qty(&self, lots: i64) -> Text {
        words::decimal(self.dialect, lots, self.qty_digits)
    }

    fn level(&self, ticks: i64, lots: i64) -> TruthLevel {
        TruthLevel { px: self.px(ticks), qty: self.qty(lots) }
    }

    /// The book as it is.
    pub(super) fn book(&self, market: &Market, index: usize) -> TruthBook {
        let depth = manner::window(self.dialect).unwrap_or(usize::MAX);
        self.worded(&seen(market, index, depth), self.newest_id())
    }

    /// The book as it was at a number, if that is known, up to a depth.
    pub(super) fn book_at(
        &self,
        market: &Market,
        index: usize,
        id: u64,
        depth: usize,
    ) -> Option<TruthBook> {
        let mut levels = market.levels(index, Some(id))?;
        let depth = manner::window(self.dialect).map_or(depth, |window| window.min(depth));
        levels.iter_mut().for_each(|side| side.truncate(depth));
        Some(self.worded(&levels, id))
    }

    /// The book that further messages will change: of a window, what was told.
    fn told_book(&self, market: &Market, index: usize) -> TruthBook {
        match manner::window(self.dialect) {
            Some(depth) => self.worded(&self.told_levels(market, index, depth), self.newest_id()),
            None => self.book(market, index),
        }
    }

    /// The best levels as they were told.
    fn told_levels(&self, market: &Market, index: usize, depth: usize) -> Levels {
        if self.pending.is_empty() {
            return seen(market, index, depth);
        }
        let mut levels = seen(market, index, usize::MAX);
        self.pending.undo(&mut levels);
        levels.iter_mut().for_each(|side| side.truncate(depth));
        levels
    }

    fn worded(&self, levels: &Levels, id: u64) -> TruthBook {
        let mut book = TruthBook::default();
        for (side, levels) in [Side::Bid, Side::Ask].into_iter().zip(levels) {
            for (ticks, lots) in levels {
                book.set(side, &self.px(*ticks), &self.qty(*lots));
            }
        }
        book.set_id(id);
        book.set_order(manner::order(self.dialect, id, self.order));
        book
    }
}

/// The price of the last level of each side that the venue tells of; `None` = it tells of all.
fn ends(dialect: Dialect, market: &Market, index: usize) -> [Option<i64>; 2] {
    let depth = manner::window(dialect).unwrap_or(usize::MAX);
    [true, false].map(|is_bid| market.price_at(index, is_bid, depth.saturating_sub(1)))
}

/// Both sides of a book, up to a depth.
fn seen(market: &Market, index: usize, depth: usize) -> Levels {
    [true, false].map(|is_bid| market.side(index, is_bid).take(depth).collect())
}

/// A price is in a window that ends at this one; `None` = it does not end.
fn is_within(end: Option<i64>, is_bid: bool, ticks: i64) -> bool {
    end.is_none_or(|end| if is_bid { ticks >= end } else { ticks <= end })
}

/// What a session may see of the market: everything that was told.
pub(super) struct Board<'a> {
    pub(super) market: &'a Market,
    pub(super) symbols: &'a [Symbol],
    pub(super) by_name: &'a HashMap<String, usize>,
}

impl Books for Board<'_> {
    fn book(&self, symbol: &str) -> Option<Cow<'_, TruthBook>> {
        let index = *self.by_name.get(symbol)?;
        Some(Cow::Owned(self.symbols[index].told_book(self.market, index)))
    }
}
