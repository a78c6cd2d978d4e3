//! The best bid and offer: the freshest of the venue's own stream and the book.
//!
//! Called by the instrument for every event of either. It may run ahead of the book, and is never let
//! run behind it.

use tickfan_core::market::{BboEvent, Channel, Level, Nanos, State};

use super::draft::Draft;
use super::{Context, InstrumentFeed, Rules};

impl InstrumentFeed {
    /// Where the best bid and offer hangs on the book, it shares the book's trouble.
    pub(super) fn mirror_book_status(&mut self, now: Nanos, rules: &Rules) {
        if rules.has_bbo_stream {
            return;
        }
        let book = self.draft.next.book.status;
        if !book.state.flows() && self.draft.next.bbo.status.state != State::Syncing {
            self.draft.break_off(Channel::Bbo);
            self.draft.turn(Channel::Bbo, book.state, book.why, now);
        }
    }

    /// The best of the book becomes the best bid and offer, unless the venue's own is newer.
    pub(super) fn bbo_from_book(&mut self, now: Nanos, rules: &Rules) {
        let book = &self.draft.next.book;
        let newer = match (self.draft.next.bbo.sequence, book.sequence) {
            _ if self.draft.is_broken(Channel::Bbo) => true,
            (Some(bbo), Some(book)) => book >= bbo,
            _ => true,
        };
        if !newer {
            return;
        }
        let (bid, ask) = book.book.best();
        let (sequence, te_ns) = (book.sequence, book.te_ns);
        self.mend(Channel::Bbo, now, rules);
        self.draft.set_bbo(bid, ask, sequence, te_ns, self.draft.next.version, now);
    }

    /// Applies the venue's own best bid and offer.
    pub fn bbo(&mut self, event: &BboEvent, now: Nanos, context: &mut Context<'_>) {
        if self.phase.has_ended() {
            return;
        }
        let older = match (self.draft.next.bbo.sequence, event.sequence) {
            _ if self.draft.is_broken(Channel::Bbo) => false,
            (Some(held), Some(new)) => new < held,
            _ => false,
        };
        if older {
            context.stats.old_events.inc();
            return;
        }
        let sides = [std::slice::from_ref(&event.bid), std::slice::from_ref(&event.ask)];
        self.draft.guess_scales(sides);
        if let Err(why) = self.draft.read_levels(sides, now, context) {
            context.stats.malformed.inc();
            self.lose(Channel::Bbo, why, now, context);
            return;
        }
        let best = |levels: &[Level]| levels.first().copied().filter(|level| level.qty.0 > 0);
        let (bid, ask) = (best(&context.scratch.bids), best(&context.scratch.asks));
        self.mend(Channel::Bbo, now, context.rules);
        self.draft.set_bbo(bid, ask, event.sequence, event.te_ns, self.draft.next.version + 1, now);
    }
}

impl Draft {
    /// Sets both sides, where they are others, under this version.
    pub(super) fn set_bbo(
        &mut self,
        bid: Option<Level>,
        ask: Option<Level>,
        sequence: Option<u64>,
        te_ns: Nanos,
        version: u64,
        now: Nanos,
    ) {
        let part = &mut self.next.bbo;
        part.sequence = sequence;
        if part.bid == bid && part.ask == ask && part.changed > 0 {
            return;
        }
        part.bid = bid;
        part.ask = ask;
        part.te_ns = te_ns;
        part.tr_ns = now;
        part.changed = version;
        self.next.version = version;
        self.touch(Channel::Bbo, now);
    }
}
