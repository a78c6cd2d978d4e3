//! Orders on one symbol → its book, its trades and what the venue says about them.
//!
//! Owned by the market. Every update id is one change of one level, so that each id names one exact
//! state; the last ones are kept as steps back, from which any of those states can be made again.

use std::collections::{BTreeMap, VecDeque};

use tickfan_core::market::Side;

use super::Message;
use crate::random::Random;
use crate::truth::TruthBook;
use crate::venue::binance::{BookTicker, DepthUpdate, TradeReport, fixed8};

/// States that can be made again.
const HISTORY_MAX: usize = 10_000;
/// A side with fewer levels is filled up, one with more is thinned.
const LEVELS_MIN: usize = 250;
/// See [`LEVELS_MIN`].
const LEVELS_MAX: usize = 700;
/// Levels of a side at the start.
const LEVELS_START: u64 = 400;

/// What a symbol is.
#[derive(Debug, Clone)]
pub(super) struct Profile {
    pub(super) base: String,
    pub(super) quote: &'static str,
    /// Digits of a price behind its point; the tick is one of the last.
    pub(super) px_digits: u32,
    /// Digits of a quantity behind its point; the lot is one of the last.
    pub(super) qty_digits: u32,
    /// Where the price begins, in ticks.
    pub(super) start_ticks: i64,
}

impl Profile {
    pub(super) fn name(&self) -> String {
        format!("{}{}", self.base, self.quote)
    }
}

/// What a level was before an update.
#[derive(Debug, Clone, Copy)]
struct Before {
    is_bid: bool,
    ticks: i64,
    lots: i64,
}

/// See the top of this file.
#[derive(Debug)]
pub(super) struct Symbol {
    pub(super) profile: Profile,
    pub(super) name: String,
    stream_prefix: String,
    bids: BTreeMap<i64, i64>,
    asks: BTreeMap<i64, i64>,
    update_id: u64,
    trade_id: u64,
    history: VecDeque<Before>,
    /// Changed since the last depth message: (is bid, ticks) → lots.
    pending: BTreeMap<(bool, i64), i64>,
    /// The update id up to which depth messages have told everything.
    told_id: u64,
}

impl Symbol {
    pub(super) fn new(profile: Profile, random: &mut Random) -> Self {
        let name = profile.name();
        let id = 1_000_000 + random.below(1_000_000);
        let mut symbol = Self {
            stream_prefix: name.to_lowercase(),
            name,
            bids: BTreeMap::new(),
            asks: BTreeMap::new(),
            update_id: id,
            trade_id: random.below(1_000_000),
            history: VecDeque::new(),
            pending: BTreeMap::new(),
            told_id: id,
            profile,
        };
        let (mut bid, mut ask) = (symbol.profile.start_ticks, symbol.profile.start_ticks + 1);
        for _ in 0..LEVELS_START {
            if bid > 0 {
                symbol.bids.insert(bid, lots(random));
            }
            symbol.asks.insert(ask, lots(random));
            bid -= 1 + random.skewed(2) as i64;
            ask += 1 + random.skewed(2) as i64;
        }
        symbol
    }

    /// Something happens: a trade, an order, or the end of one. Returns what the venue says at once.
    pub(super) fn act(&mut self, at_ns: u64, random: &mut Random) -> Vec<Message> {
        let before = self.best();
        let mut messages = Vec::new();
        let is_bid = random.coin();
        let levels = if is_bid { self.bids.len() } else { self.asks.len() };
        match random.below(100) {
            0..12 if levels > LEVELS_MIN / 2 => self.trade(is_bid, at_ns, random, &mut messages),
            12..55 if levels < LEVELS_MAX => self.place(is_bid, random),
            _ if levels < LEVELS_MIN => self.deepen(is_bid, random),
            _ => self.cancel(is_bid, random),
        }
        let after = self.best();
        if after != before {
            messages.push(self.book_ticker(after));
        }
        messages
    }

    /// Changes wait to be told in a depth message.
    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// What changed since the last depth message.
    pub(super) fn depth_update(&mut self, at_ns: u64) -> Message {
        let pending = std::mem::take(&mut self.pending);
        let first_id = self.told_id + 1;
        self.told_id = self.update_id;
        let side = |is_bid| {
            let levels = pending.iter().filter(move |((bid, _), _)| *bid == is_bid);
            levels.map(|((_, ticks), lots)| (self.px(*ticks), self.qty(*lots))).collect()
        };
        let update = DepthUpdate {
            symbol: &self.name,
            at_ms: at_ns / 1_000_000,
            first_id,
            last_id: self.update_id,
            bids: side(true),
            asks: side(false),
        };
        Message::new(format!("{}@depth@100ms", self.stream_prefix), &update.data())
    }

    /// The book as it was at an update id, or as it is; `None` for an id that is not known any more
    /// or not yet.
    pub(super) fn truth(&self, update_id: Option<u64>) -> Option<TruthBook> {
        let update_id = update_id.unwrap_or(self.update_id);
        let steps_back = usize::try_from(self.update_id.checked_sub(update_id)?).ok()?;
        if steps_back > self.history.len() {
            return None;
        }
        let (mut bids, mut asks) = (self.bids.clone(), self.asks.clone());
        for before in self.history.iter().rev().take(steps_back) {
            let levels = if before.is_bid { &mut bids } else { &mut asks };
            set(levels, before.ticks, before.lots);
        }
        let mut book = TruthBook::default();
        book.set_id(update_id);
        for (side, levels) in [(Side::Bid, &bids), (Side::Ask, &asks)] {
            for (ticks, lots) in levels {
                book.set(side, &self.px(*ticks), &self.qty(*lots));
            }
        }
        Some(book)
    }

    pub(super) const fn update_id(&self) -> u64 {
        self.update_id
    }

    pub(super) fn px(&self, ticks: i64) -> String {
        fixed8(ticks, self.profile.px_digits)
    }

    pub(super) fn qty(&self, lots: i64) -> String {
        fixed8(lots, self.profile.qty_digits)
    }

    /// A market order takes what the best levels of a side offer.
    fn trade(
        &mut self,
        is_bid: bool,
        at_ns: u64,
        random: &mut Random,
        messages: &mut Vec<Message>,
    ) {
        let Some((_, best_lots)) = self.best_of(is_bid) else { return };
        // Usually a part of the best level, now and then a sweep of several.
        let sweep = if random.percent(10) { 8 } else { 1 };
        let mut wanted = 1 + random.below(best_lots.unsigned_abs() * sweep + 1) as i64;
        while wanted > 0
            && let Some((ticks, offered)) = self.best_of(is_bid)
        {
            let taken = wanted.min(offered);
            wanted -= taken;
            self.change(is_bid, ticks, offered - taken);
            self.trade_id += 1;
            let report = TradeReport {
                symbol: &self.name,
                at_ms: at_ns / 1_000_000,
                id: self.trade_id,
                px: self.px(ticks),
                qty: self.qty(taken),
                buyer_is_maker: is_bid,
            };
            let stream = format!("{}@trade", self.stream_prefix);
            messages.push(Message::new(stream, &report.data()));
        }
    }

    /// A limit order joins a level, opens one, or narrows the spread. It never crosses.
    fn place(&mut self, is_bid: bool, random: &mut Random) {
        let (Some((bid, _)), Some((ask, _))) = (self.best_of(true), self.best_of(false)) else {
            return;
        };
        let room = (ask - bid - 1).unsigned_abs();
        let ticks = if room > 0 && random.percent(30 + room.min(50)) {
            let step = 1 + random.below(room) as i64;
            if is_bid { bid + step } else { ask - step }
        } else {
            let distance = random.skewed(9) as i64;
            if is_bid { (bid - distance).max(1) } else { ask + distance }
        };
        let side = if is_bid { &self.bids } else { &self.asks };
        let held = side.get(&ticks).copied().unwrap_or(0);
        self.change(is_bid, ticks, held + lots(random));
    }

    /// A limit order opens a level below all others of its side.
    fn deepen(&mut self, is_bid: bool, random: &mut Random) {
        let step = 1 + random.skewed(2) as i64;
        let ticks = if is_bid {
            self.bids.first_key_value().map(|(ticks, _)| (ticks - step).max(1))
        } else {
            self.asks.last_key_value().map(|(ticks, _)| ticks + step)
        };
        if let Some(ticks) = ticks {
            self.change(is_bid, ticks, lots(random));
        }
    }

    /// An order is withdrawn, the whole level or a part of it. A thick side loses what is deep.
    fn cancel(&mut self, is_bid: bool, random: &mut Random) {
        let side = if is_bid { &self.bids } else { &self.asks };
        let index = if side.len() >= LEVELS_MAX {
            side.len() - 1 - random.below(100) as usize
        } else {
            (random.skewed(8) as usize).min(side.len().saturating_sub(1))
        };
        let level = if is_bid { side.iter().rev().nth(index) } else { side.iter().nth(index) };
        let Some((&ticks, &held)) = level else { return };
        let left = if random.percent(40) { random.below(held.unsigned_abs()) as i64 } else { 0 };
        self.change(is_bid, ticks, left);
    }

    /// The only way in which the book changes: one level, one update id.
    fn change(&mut self, is_bid: bool, ticks: i64, lots: i64) {
        let side = if is_bid { &mut self.bids } else { &mut self.asks };
        let before = set(side, ticks, lots);
        if self.history.len() == HISTORY_MAX {
            self.history.pop_front();
        }
        self.history.push_back(Before { is_bid, ticks, lots: before });
        self.pending.insert((is_bid, ticks), lots);
        self.update_id += 1;
    }

    fn best_of(&self, is_bid: bool) -> Option<(i64, i64)> {
        let best = if is_bid { self.bids.last_key_value() } else { self.asks.first_key_value() };
        best.map(|(ticks, lots)| (*ticks, *lots))
    }

    fn best(&self) -> [(i64, i64); 2] {
        [true, false].map(|is_bid| self.best_of(is_bid).unwrap_or_default())
    }

    fn book_ticker(&self, [bid, ask]: [(i64, i64); 2]) -> Message {
        let ticker = BookTicker {
            symbol: &self.name,
            id: self.update_id,
            bid: (self.px(bid.0), self.qty(bid.1)),
            ask: (self.px(ask.0), self.qty(ask.1)),
        };
        Message::new(format!("{}@bookTicker", self.stream_prefix), &ticker.data())
    }
}

/// Sets a level; returns what it was.
fn set(levels: &mut BTreeMap<i64, i64>, ticks: i64, lots: i64) -> i64 {
    let before = if lots == 0 { levels.remove(&ticks) } else { levels.insert(ticks, lots) };
    before.unwrap_or(0)
}

/// The size of an order: most are small, some are a hundred times as large.
fn lots(random: &mut Random) -> i64 {
    1 + random.skewed(14) as i64
}
