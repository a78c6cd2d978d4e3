//! Another feed of the same instrument, over a new connection, becomes this one.
//!
//! Called by the feed when a connection is about to end and its successor is in sync. What is right
//! over both goes on without a change of state or epoch; what is not is lost like anything else.

use std::sync::Arc;

use tickfan_core::market::{Channel, Nanos, Scales, State, Trading, Why};
use tickfan_core::snapshot::{BookPart, Status};

use super::draft::Draft;
use super::trades::Counting;
use super::{Context, ImageWant, InstrumentFeed};

impl InstrumentFeed {
    /// The same instrument over another connection, of which nothing is known yet. It must not
    /// publish.
    pub fn successor(&self) -> Self {
        let mut next = self.draft.next.clone();
        for channel in Channel::ALL {
            let status = next.status_mut(*channel);
            *status = Status::starting(status.epoch, status.since_ns);
        }
        Self {
            counting: Counting::new(&next.trades.tail),
            draft: Draft::new(next, self.draft.scales_known),
            phase: self.phase.successor(),
            ..Self::new(Arc::clone(&self.entry), None)
        }
    }

    /// Goes on with what came over another connection.
    pub fn take_over(&mut self, mut other: Self, now: Nanos, context: &mut Context<'_>) {
        if self.phase.has_ended() || other.phase.has_ended() {
            return self.trades_as(Trading::Ended, true, now, context);
        }
        let (own, new) = (self.draft.next.scales, other.draft.next.scales);
        let scales = Scales { px: own.px.max(new.px), qty: own.qty.max(new.qty) };
        let fits = (own == scales || self.draft.grow_scales(scales, now))
            && (new == scales || other.draft.grow_scales(scales, now));
        if fits {
            self.take_trades(&other, now, context);
        } else {
            self.lose(Channel::Trades, Why::ScaleChange, now, context);
        }
        let was_served = self.draft.next.book.status.state.flows();
        let is_served = fits && other.draft.next.book.status.state.flows();
        let is_ahead = was_served
            && is_served
            && matches!(
                (self.draft.next.book.sequence, other.draft.next.book.sequence),
                (Some(own), Some(new)) if own > new
            );

        self.phase.take_over(other.phase);
        self.doubts = other.doubts;
        self.want = other.want;
        self.sequencer = other.sequencer;
        self.early = other.early;
        self.aside = other.aside;
        self.digits = other.digits;
        if is_served {
            if is_ahead {
                // What the new connection has yet to bring is in the book already, if its numbers
                // are the same.
                self.doubts.lead(self.draft.next.book.sequence, now);
                self.early.clear();
            } else {
                self.take_book(other.draft.next.book, was_served, now);
            }
            self.doubts.crosses(self.draft.next.book.book.is_crossed(), now);
            self.mend(Channel::Book, now, context.rules);
        } else if self.want.image == ImageWant::Never {
            return self.refused(now);
        } else if !fits {
            self.lose(Channel::Book, Why::ScaleChange, now, context);
        } else if was_served {
            // Its image is under way.
            self.draft.break_off(Channel::Book);
            self.draft.turn(Channel::Book, State::Gap, Why::Reconnected, now);
            self.mirror_book_status(now, context.rules);
        }

        let (own, new) = (&self.draft.next.bbo, &other.draft.next.bbo);
        let is_fresher = match (own.sequence, new.sequence) {
            _ if !own.status.state.flows() => true,
            (Some(own), Some(new)) => new > own,
            _ => new.tr_ns > own.tr_ns,
        };
        if context.rules.has_bbo_stream && fits && new.status.state.flows() && is_fresher {
            let new = *new;
            self.mend(Channel::Bbo, now, context.rules);
            let version = self.draft.next.version + 1;
            self.draft.set_bbo(new.bid, new.ask, new.sequence, new.te_ns, version, now);
        }
        if is_served {
            self.bbo_from_book(now, context.rules);
        }
        let status = other.draft.next.bbo.status;
        if context.rules.has_bbo_stream && status.state == State::Gap {
            self.lose(Channel::Bbo, status.why, now, context);
        }
    }

    fn take_book(&mut self, new: BookPart, was_served: bool, now: Nanos) {
        let part = &mut self.draft.next.book;
        let is_same = was_served
            && part.book.bids.iter().eq(new.book.bids.iter())
            && part.book.asks.iter().eq(new.book.asks.iter());
        part.book = new.book;
        part.sequence = new.sequence;
        part.te_ns = new.te_ns;
        part.tr_ns = new.tr_ns;
        if !is_same {
            self.draft.next.version += 1;
            part.changed = self.draft.next.version;
            self.draft.touch(Channel::Book, now);
        }
    }

    fn take_trades(&mut self, other: &Self, now: Nanos, context: &mut Context<'_>) {
        let status = other.draft.next.trades.status;
        if self.append_trades(other, context) {
            self.draft.next.trades.tr_ns =
                self.draft.next.trades.tr_ns.max(other.draft.next.trades.tr_ns);
            self.draft.next.version += 1;
            self.draft.touch(Channel::Trades, now);
        }
        match status.state {
            State::Gap => self.lose(Channel::Trades, status.why, now, context),
            state if state.flows() => self.mend(Channel::Trades, now, context.rules),
            _ => {}
        }
    }
}
