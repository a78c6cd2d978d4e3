//! What the books of the exchange truly were, and whether what the gateway publishes is that.
//!
//! Written by the world before anything can go wrong on the way, asked after each publication. It
//! shares no code with the gateway's decoders and books.

use std::collections::VecDeque;
use std::sync::Arc;

use feed_sim::truth::TruthBook;
use tickfan_core::market::{Side, State};
use tickfan_core::snapshot::Snapshot;

use crate::simulation::truth::units;

/// Digits behind the point of [`units`].
const DIGITS: u8 = 8;

/// Both sides of a book, best first, in units.
type Levels = [Vec<(i64, i64)>; 2];

/// One symbol.
#[derive(Debug, Default)]
pub(super) struct SymbolOracle {
    /// The venue tells a best bid and offer beside its books, so that it may be another than theirs.
    has_own_best: bool,
    /// The states that the gateway may still be at or come to, and the version of each.
    states: VecDeque<(u64, Levels)>,
    has_changed_top: bool,
    /// What was seen last.
    seen: Option<Arc<Snapshot>>,
    /// The version that it is live and right as of.
    pub(super) live_at: Option<u64>,
    /// Somebody who looked could see that it was not simply live, since this was asked last.
    pub(super) is_marked: bool,
}

fn levels(book: &TruthBook) -> Levels {
    [Side::Bid, Side::Ask].map(|side| {
        let level = |level: &feed_sim::truth::TruthLevel| {
            let read = |text| units(text).unwrap_or_else(|| panic!("the exchange wrote {text}"));
            (read(&level.px), read(&level.qty))
        };
        book.levels(side).map(level).collect()
    })
}

fn top(levels: &Levels) -> [&[(i64, i64)]; 2] {
    levels.each_ref().map(|side| &side[..side.len().min(10)])
}

impl SymbolOracle {
    /// Of a symbol of which nothing is known yet.
    pub(super) fn new(has_own_best: bool) -> Self {
        Self { has_own_best, ..Self::default() }
    }

    /// The book has become this.
    pub(super) fn learn(&mut self, version: u64, book: &TruthBook) {
        let new = levels(book);
        self.has_changed_top = self.states.back().is_none_or(|(_, old)| top(old) != top(&new));
        self.states.push_back((version, new));
    }

    /// The state learnt last differs from the one before it in the ten best levels of a side.
    pub(super) const fn has_changed_top(&self) -> bool {
        self.has_changed_top
    }

    /// The newest version that was learnt.
    pub(super) fn newest(&self) -> Option<u64> {
        self.states.back().map(|(version, _)| *version)
    }

    /// Judges what is published. Returns what is wrong with it.
    pub(super) fn see(&mut self, snapshot: Arc<Snapshot>) -> Result<(), String> {
        if self.seen.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, &snapshot)) {
            return Ok(());
        }
        let judged = self.judge(&snapshot);
        self.seen = Some(snapshot);
        judged
    }

    fn judge(&mut self, snapshot: &Snapshot) -> Result<(), String> {
        let status = &snapshot.book.status;
        self.is_marked |= status.state != State::Live;
        self.live_at = None;
        if !status.state.flows() {
            return Ok(());
        }
        let factor = |digits: u8| 10i64.pow(u32::from(DIGITS - digits));
        let (px, qty) = (factor(snapshot.scales.px), factor(snapshot.scales.qty));
        let shown = [Side::Bid, Side::Ask].map(|side| {
            let levels = snapshot.book.book.side(side).iter();
            levels.map(|level| (level.px.0 * px, level.qty.0 * qty)).collect::<Vec<_>>()
        });
        if status.state == State::Live && snapshot.book.book.is_crossed() {
            return Err(format!("a crossed book is live: {shown:?}"));
        }
        if !self.has_own_best && snapshot.bbo.status.state.flows() {
            let best = shown.each_ref().map(|side| side.first().copied());
            let told = [snapshot.bbo.bid, snapshot.bbo.ask]
                .map(|level| level.map(|level| (level.px.0 * px, level.qty.0 * qty)));
            if told != best {
                return Err(format!("the best is told as {told:?}, that of the book is {best:?}"));
            }
        }
        let Some(place) = self.states.iter().position(|(_, state)| *state == shown) else {
            let (version, truth) = self.states.back().ok_or("nothing is known")?;
            return Err(format!(
                "{:?} ({:?}) but the book is none that was since what was seen last; the newest, \
                 {version}, is {truth:?}, what is shown is {shown:?}",
                status.state, status.why
            ));
        };
        self.states.drain(..place);
        if status.state == State::Live {
            self.live_at = self.states.front().map(|(version, _)| *version);
        }
        Ok(())
    }
}
