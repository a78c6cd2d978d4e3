//! Trades as the venue tells them → the tail of the snapshot, each once, with what is missing counted.
//!
//! Called by the instrument for every trade, over every connection: what was missed between two of
//! them is lost, what comes again is left out.

use tickfan_core::market::{
    Channel, EventBatch, LevelChange, Nanos, Trade, TradeId, TradeNumbering, TradePrint,
    TradesEvent, Why,
};
use tickfan_core::snapshot::tail::{Following, TradeTail};

use super::{Context, InstrumentFeed};
use crate::limits::{TRADE_NUMBER_MAX, TRADES_COMPARED, TRADES_LOST_MAX};
use crate::mutant::{Mutant, planted};

/// The newest trade, or what a heartbeat says of it.
#[derive(Debug, Clone, Copy)]
struct Newest {
    number: u64,
    te_ns: Nanos,
}

/// Whether a trade is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It is, and so many before it are missing.
    New { lost: u64 },
    /// It came before.
    Repeated,
    /// Its number cannot be believed, unless the next one is near it.
    Unlikely,
}

/// How far the trades have come.
#[derive(Debug)]
pub(super) struct Counting {
    newest: Option<Newest>,
    numbering: TradeNumbering,
    /// The connection has brought no new trade yet: what comes may have come over another.
    is_joining: bool,
    /// Where the tail stood when the feed began.
    began_at: u64,
    /// The number of the trade before, if that was not believed.
    unlikely: Option<u64>,
}

impl Counting {
    /// Goes on from a tail.
    pub(super) const fn new(tail: &TradeTail) -> Self {
        Self {
            newest: None,
            numbering: TradeNumbering::None,
            is_joining: true,
            began_at: tail.newest(),
            unlikely: None,
        }
    }

    /// Another connection brings the trades from here on.
    pub(super) const fn join(&mut self) {
        self.is_joining = true;
    }

    /// A heartbeat names this as the newest trade; returns whether it has not come. The first such
    /// word is where a count begins that knows nothing yet.
    pub(super) fn is_missing(&mut self, number: u64) -> bool {
        number > self.newest.get_or_insert(Newest { number, te_ns: 0 }).number
    }

    /// A number so far ahead would tell as many trades as lost, and all that follow as repeated. After
    /// a long absence it is right: then the next one is near it.
    fn is_unlikely(&mut self, number: u64) -> bool {
        let before = self.unlikely.take();
        let is_far_from = |other: u64| number.abs_diff(other) > TRADES_LOST_MAX;
        let is_ahead = self.newest.is_some_and(|newest| {
            self.numbering == TradeNumbering::Consecutive
                && number > newest.number
                && is_far_from(newest.number)
                && before.is_none_or(is_far_from)
        });
        let is_unlikely = is_ahead || number > TRADE_NUMBER_MAX;
        if is_unlikely {
            self.unlikely = Some(number);
        }
        is_unlikely
    }

    fn judge(
        &mut self,
        print: &TradePrint,
        numbering: TradeNumbering,
        is_held: impl FnOnce() -> bool,
    ) -> Verdict {
        self.numbering = numbering;
        let number = print.number.filter(|_| numbering != TradeNumbering::None);
        if number.is_some_and(|number| self.is_unlikely(number)) {
            return Verdict::Unlikely;
        }
        let verdict = match (number, self.newest) {
            (Some(number), Some(newest)) if number <= newest.number => {
                // Numbers that begin anew are small and late.
                let begins_anew = self.is_joining && print.te_ns > newest.te_ns && !is_held();
                if begins_anew { Verdict::New { lost: 0 } } else { Verdict::Repeated }
            }
            (Some(number), Some(newest)) if numbering == TradeNumbering::Consecutive => {
                Verdict::New { lost: number - newest.number - 1 }
            }
            (None, _) if self.is_joining && is_held() => Verdict::Repeated,
            _ => Verdict::New { lost: 0 },
        };
        if verdict != Verdict::Repeated {
            self.is_joining = false;
            self.newest =
                number.map(|number| Newest { number, te_ns: print.te_ns }).or(self.newest);
        }
        verdict
    }
}

impl InstrumentFeed {
    /// Appends the trades of one message.
    pub fn trades(
        &mut self,
        event: &TradesEvent,
        batch: &EventBatch,
        now: Nanos,
        context: &mut Context<'_>,
    ) {
        if self.phase.has_ended() {
            return;
        }
        let mut any = false;
        let mut has_hole = false;
        for print in &batch.trades[event.trades.clone()] {
            let sides = [&[LevelChange { px: print.px, qty: print.qty }][..], &[]];
            self.draft.guess_scales(sides);
            if let Err(why) = self.draft.read_levels(sides, now, context) {
                context.stats.malformed.inc();
                self.lose(Channel::Trades, why, now, context);
                continue;
            }
            let Some(level) = context.scratch.bids.first() else { continue };
            let trade = Trade {
                te_ns: print.te_ns,
                px: level.px,
                qty: level.qty,
                aggressor: print.aggressor,
                id: print.id.clone(),
            };
            let tail = &mut self.draft.next.trades.tail;
            let is_joining = self.counting.is_joining;
            match self.counting.judge(print, event.numbering, || is_held(tail, &trade)) {
                Verdict::Repeated => {
                    context.stats.trades_repeated.inc();
                    continue;
                }
                Verdict::Unlikely => {
                    context.stats.malformed.inc();
                    self.lose(Channel::Trades, Why::MalformedMessage, now, context);
                    continue;
                }
                Verdict::New { lost: 0 } => {}
                Verdict::New { lost } => {
                    context.stats.trades_lost.inc_by(lost);
                    tail.skip(lost - u64::from(planted(Mutant::UncountedLoss)));
                    has_hole |= !is_joining;
                }
            }
            tail.push(trade);
            if let Some(number) = print.number {
                self.doubts.have_come(number);
            }
            any = true;
        }
        if any {
            self.mend(Channel::Trades, now, context.rules);
            self.draft.next.trades.tr_ns = now;
            self.draft.next.version += 1;
            self.draft.touch(Channel::Trades, now);
        }
        if has_hole && context.rules.trades_vouch {
            self.doubt_for_trades(now, context);
            self.settle_all(now, context.rules);
        }
    }

    /// Trades up to this number are known to be lost.
    pub(super) fn miss_trades(&mut self, number: u64, now: Nanos, context: &Context<'_>) {
        let Some(newest) = &mut self.counting.newest else { return };
        let lost = number.saturating_sub(newest.number);
        if lost > TRADES_LOST_MAX && self.counting.numbering != TradeNumbering::Rising {
            // The trades will tell, if it is so.
            context.stats.malformed.inc();
            return;
        }
        newest.number += lost;
        if self.counting.numbering == TradeNumbering::Rising || lost == 0 {
            // How many they are, its numbers do not tell.
            return;
        }
        context.stats.trades_lost.inc_by(lost);
        self.draft.next.trades.tail.skip(lost);
        self.draft.next.version += 1;
        self.draft.touch(Channel::Trades, now);
    }

    /// Appends what another feed of the instrument has beyond this one; returns whether there was
    /// anything.
    pub(super) fn append_trades(&mut self, other: &Self, context: &Context<'_>) -> bool {
        let theirs = &other.draft.next.trades.tail;
        let began_at = other.counting.began_at;
        let seen = theirs.newest() - began_at;
        let before = self.draft.next.trades.tail.newest();
        let beyond = match (self.counting.newest, other.counting.newest) {
            (Some(own), Some(new)) if other.counting.numbering == TradeNumbering::Consecutive => {
                // Numbers of the venue and of the tail run side by side.
                let beyond = new.number.saturating_sub(own.number);
                self.lose_trades(beyond.saturating_sub(seen), context);
                beyond.min(seen)
            }
            _ => {
                let trades: Vec<&Trade> = theirs.after(began_at).collect();
                let own = &self.draft.next.trades.tail;
                let is_known = |trade: &&Trade| {
                    own.after(began_at.saturating_sub(TRADES_COMPARED))
                        .any(|held| is_same(held, trade))
                };
                match trades.iter().rposition(is_known) {
                    Some(last) => (trades.len() - 1 - last) as u64,
                    None => seen,
                }
            }
        };
        let mut at = theirs.newest() - beyond;
        while let Some(following) = theirs.following(at, usize::MAX) {
            match following {
                Following::Lost(count) => {
                    self.lose_trades(count, context);
                    at += count;
                }
                Following::Trades(count) => {
                    for trade in theirs.after(at).take(count as usize) {
                        self.draft.next.trades.tail.push(trade.clone());
                    }
                    at += count;
                }
            }
        }
        let newest = [self.counting.newest, other.counting.newest];
        self.counting.newest = newest.into_iter().flatten().max_by_key(|newest| newest.number);
        self.counting.numbering = other.counting.numbering;
        self.counting.is_joining = true;
        self.draft.next.trades.tail.newest() > before
    }

    fn lose_trades(&mut self, count: u64, context: &Context<'_>) {
        if count > 0 {
            context.stats.trades_lost.inc_by(count);
            self.draft.next.trades.tail.skip(count);
        }
    }
}

/// The trade is among the newest of the tail.
fn is_held(tail: &TradeTail, trade: &Trade) -> bool {
    tail.after(tail.newest().saturating_sub(TRADES_COMPARED)).any(|held| is_same(held, trade))
}

/// Two trades are one. Where a venue gives no ids, all else must agree.
fn is_same(a: &Trade, b: &Trade) -> bool {
    match &a.id {
        TradeId::Text(text) if text.is_empty() => a == b,
        id => *id == b.id,
    }
}
