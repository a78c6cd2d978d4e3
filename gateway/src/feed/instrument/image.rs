//! The image of a book, joined with the events that waited for it, replaces the book: one change.
//!
//! Called by the instrument for every image, be it of the stream or fetched beside it. One that is older
//! than what is served, or that does not join, says nothing against the book that is.

use tickfan_core::book::Book;
use tickfan_core::market::{BookEvent, Channel, LevelChange, Nanos, Scales, Why};
use tickfan_core::snapshot::BookPart;

use super::{Context, InstrumentFeed};
use crate::feed::sequencer::{Sequencer, Verdict};
use crate::limits::IMAGES_BEHIND_MAX;

/// A book that is served while its image is awaited, to go back to when the image is of no use.
struct Served {
    book: BookPart,
    sequencer: Sequencer,
    scales: Scales,
    digits: Scales,
    unpublished_ns: Nanos,
}

impl InstrumentFeed {
    /// Replaces the book.
    pub(super) fn image(
        &mut self,
        event: &BookEvent,
        sides: [&[LevelChange]; 2],
        now: Nanos,
        context: &mut Context<'_>,
    ) {
        if self.is_behind(event, context) {
            self.images_behind += 1;
            context.stats.images_refused.inc();
            let jitter = context.jitter();
            return self.want.retry(now, jitter);
        }
        self.images_behind = 0;
        // Nothing waited to be applied: all of it was, to the book that is served.
        let served = (!self.sequencer.is_lost() && !self.early.is_awaiting()).then(|| Served {
            book: self.draft.next.book.clone(),
            sequencer: self.sequencer.clone(),
            scales: self.draft.next.scales,
            digits: self.digits,
            unpublished_ns: *self.draft.unpublished_ns(Channel::Book),
        });
        let reached = self.draft.next.book.sequence;
        self.digits = Scales::default();
        self.note_digits(event);
        let joined = self.join_image(event, sides, now, context);
        if let Some(served) = &served {
            *self.draft.unpublished_ns(Channel::Book) = served.unpublished_ns;
        }
        if let Err(why) = joined {
            context.stats.images_refused.inc();
            if why == Why::SequenceGap
                && let Some(served) = served
                && served.scales == self.draft.next.scales
            {
                self.draft.next.book = served.book;
                self.sequencer = served.sequencer;
                self.digits = served.digits;
                let jitter = context.jitter();
                return self.want.retry(now, jitter);
            }
            let early = self.early.take();
            self.wrong(why, now, context);
            // An image that is only too old says nothing against the events.
            if why == Why::SequenceGap {
                self.early.put_back(early);
            }
            return;
        }
        context.stats.images.inc();
        self.want.arrived(now);
        self.draft.next.version += 1;
        self.draft.next.book.changed = self.draft.next.version;
        if self.draft.next.book.sequence < reached {
            // The venue began its numbers anew: that of the best is of the old ones.
            self.draft.next.bbo.sequence = None;
        }
        self.doubts.renew();
        self.doubts.crosses(self.draft.next.book.book.is_crossed(), now);
        self.mend(Channel::Book, now, context.rules);
        self.draft.touch(Channel::Book, now);
        self.bbo_from_book(now, context.rules);
    }

    /// A fetched image does not reach what readers have seen, not even with the events that wait:
    /// whoever answered lags. One that is behind again and again is what there is, unless a book is
    /// served: then the venue began its numbers anew.
    fn is_behind(&self, image: &BookEvent, context: &Context<'_>) -> bool {
        let last = |event: &BookEvent| event.continuity.map(|continuity| continuity.last);
        let reached = last(image).max(self.early.last());
        !context.is_in_order
            && (!self.sequencer.is_lost() || self.images_behind < IMAGES_BEHIND_MAX)
            && reached.is_some()
            && reached < self.draft.next.book.sequence
    }

    fn join_image(
        &mut self,
        event: &BookEvent,
        sides: [&[LevelChange]; 2],
        now: Nanos,
        context: &mut Context<'_>,
    ) -> Result<(), Why> {
        self.draft.learn_scales(event, sides, now);
        self.draft.read_levels(sides, now, context)?;
        let mut book = Book::default();
        book.bids.replace(std::mem::take(&mut context.scratch.bids), event.cut_at);
        book.asks.replace(std::mem::take(&mut context.scratch.asks), event.cut_at);
        #[cfg(test)]
        self.withheld.clear();
        self.sequencer.begin(event.continuity.map(|continuity| continuity.last));
        let part = &mut self.draft.next.book;
        part.book = book;
        part.sequence = event.continuity.map(|continuity| continuity.last);
        part.te_ns = event.te_ns;
        part.tr_ns = now;
        self.prove(event.checksum, true, now, context)?;

        let early = self.early.take();
        let awaited_ns = self.early.end_await();
        if awaited_ns != 0 {
            // Its change has waited since it came, be it part of the image by now.
            self.draft.touch(Channel::Book, awaited_ns);
        }
        let version = self.draft.next.version;
        for (i, waiting) in early.iter().enumerate() {
            // What waited for an image that did not come with the stream may be older than that.
            match self.sequencer.judge(waiting.event.continuity, context.is_in_order) {
                Verdict::Old => {}
                Verdict::Apply => self.delta(
                    &waiting.event,
                    [&waiting.bids, &waiting.asks],
                    waiting.tr_ns,
                    context,
                )?,
                Verdict::Early | Verdict::Gap { .. } => {
                    self.early.put_back(early.into_iter().skip(i).collect());
                    self.draft.next.version = version;
                    return Err(Why::SequenceGap);
                }
            }
        }
        // What waited is part of the image: one change in all.
        self.draft.next.version = version;
        Ok(())
    }
}
