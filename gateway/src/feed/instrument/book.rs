//! Book events: applied whole, kept for the image that is awaited, or proof that something was lost.
//!
//! Called by the feed for every book event. What is found wrong is marked before anything else happens.

use tickfan_core::market::{BookEvent, BookKind, Channel, EventBatch, LevelChange, Nanos, Why};

use super::early::Full;
use super::levels::{apply, truncate};
use super::{Context, ImageWant, InstrumentFeed};
use crate::feed::sequencer::Verdict;
use crate::mutant::{Mutant, planted};

impl InstrumentFeed {
    /// Applies a book event.
    pub fn book(
        &mut self,
        event: &BookEvent,
        batch: &EventBatch,
        now: Nanos,
        context: &mut Context<'_>,
    ) {
        self.want.is_subscribed = true;
        if self.phase.has_ended() {
            return;
        }
        let bids = &batch.levels[event.bids.clone()];
        let asks = &batch.levels[event.asks.clone()];
        if event.kind == BookKind::Image {
            if context.is_in_order {
                // Were they kept, those of a numbering that was begun anew would never follow it.
                self.drop_aside();
                self.early.clear();
            }
            return self.image(event, [bids, asks], now, context);
        }
        if self.is_aside() {
            return self.keep_early(event, [bids, asks], now, context);
        }
        match self.sequencer.judge(event.continuity, context.rules.images_in_order) {
            Verdict::Apply if self.is_ahead_of(event) => {
                context.stats.old_events.inc();
            }
            Verdict::Apply => {
                if self.want.is_open() {
                    self.keep_served(event, [bids, asks], now);
                }
                if let Err(why) = self.delta(event, [bids, asks], now, context) {
                    self.wrong(why, now, context);
                }
            }
            Verdict::Old => {
                context.stats.old_events.inc();
            }
            Verdict::Early => {
                self.want.hurry(now);
                self.keep_early(event, [bids, asks], now, context);
            }
            Verdict::Gap { .. } if planted(Mutant::ServedUnmarked) => {
                let _ = self.delta(event, [bids, asks], now, context);
                self.sequencer.lose();
                self.want.image = ImageWant::At(now);
            }
            Verdict::Gap { .. } => {
                self.wrong(Why::SequenceGap, now, context);
                // It is whole and comes after the loss: the image that repairs will need it.
                self.keep_early(event, [bids, asks], now, context);
            }
        }
        if self.draft.next.book.status.state.flows() {
            self.doubts.crosses(self.draft.next.book.book.is_crossed(), now);
            self.settle(Channel::Book, now, context.rules);
            self.bbo_from_book(now, context.rules);
        }
    }

    /// The book is wrong: mark it, count it, and ask for an image.
    pub(super) fn wrong(&mut self, why: Why, now: Nanos, context: &mut Context<'_>) {
        match why {
            Why::ChecksumMismatch => context.stats.checksum_mismatches.inc(),
            Why::BufferFull => context.stats.buffer_overflows.inc(),
            Why::ScaleChange | Why::MalformedMessage => context.stats.malformed.inc(),
            _ => context.stats.gaps.inc(),
        };
        self.lose(Channel::Book, why, now, context);
    }

    /// Changes the book by one event, whole; on an error the book is no longer right.
    pub(super) fn delta(
        &mut self,
        event: &BookEvent,
        sides: [&[LevelChange]; 2],
        now: Nanos,
        context: &mut Context<'_>,
    ) -> Result<(), Why> {
        self.note_digits(event);
        self.draft.read_levels(sides, now, context)?;
        #[cfg(test)]
        if planted(Mutant::PublishBeforeEventEnd) {
            std::mem::swap(&mut self.withheld, &mut context.scratch.asks);
        }
        let mut changed = apply(&mut self.draft.next.book.book, context.scratch);
        if let Some(depth) = context.rules.truncate_at
            && !planted(Mutant::NotCutBack)
        {
            changed |= truncate(&mut self.draft.next.book.book, depth);
        }
        self.prove(event.checksum, false, now, context)?;
        let part = &mut self.draft.next.book;
        if let Some(continuity) = event.continuity {
            part.sequence = Some(continuity.last);
            if continuity.last < continuity.follows {
                // The venue begins its numbers anew: that of the best is of the old ones.
                self.draft.next.bbo.sequence = None;
            }
        }
        if changed {
            self.draft.next.version += 1;
            part.changed = self.draft.next.version;
            part.te_ns = event.te_ns;
            part.tr_ns = now;
            self.draft.touch(Channel::Book, now);
        }
        Ok(())
    }

    /// Learns the digits that the venue writes.
    pub(super) fn note_digits(&mut self, event: &BookEvent) {
        self.digits.px = self.digits.px.max(event.px_digits);
        self.digits.qty = self.digits.qty.max(event.qty_digits);
    }

    fn keep_early(
        &mut self,
        event: &BookEvent,
        sides: [&[LevelChange]; 2],
        now: Nanos,
        context: &mut Context<'_>,
    ) {
        self.early.await_image(now);
        // Without numbers there is no telling which events an image contains, but for one that came
        // before them.
        if event.continuity.is_none() && !self.is_aside() {
            return;
        }
        if self.early.push(event, sides, now) == Err(Full) {
            self.wrong(Why::BufferFull, now, context);
        }
    }

    /// Keeps an event that is applied to the book as it is, for the image that will replace it.
    fn keep_served(&mut self, event: &BookEvent, sides: [&[LevelChange]; 2], now: Nanos) {
        if event.continuity.is_none() {
            // The image comes in their order, and holds all that came before.
            return;
        }
        if self.early.push(event, sides, now) == Err(Full) {
            // An image that is newer than these is as good.
            self.early.clear();
        }
    }
}
