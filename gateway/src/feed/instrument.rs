//! One instrument as the feed thread holds it: venue events in, the next snapshot out.
//!
//! The only code that changes a book. An event is applied whole or not at all; what is found wrong
//! is marked before anything else happens. Pure: it takes events and times and knows no socket.

use std::sync::Arc;

use tickfan_core::book::Book;
use tickfan_core::market::{
    BboEvent, BookEvent, BookKind, Channel, EventBatch, Level, LevelChange, Listing, Nanos, Scales,
    State, Trading, Why,
};
use tickfan_core::snapshot::marks::Marks;
use tickfan_core::snapshot::{BookPart, Entry, Snapshot, Status};

mod levels;
mod doubt;
mod trades;
mod aside;
mod handover;

use aside::Aside;
pub use aside::Outcome;
use doubt::Doubts;
pub use levels::Scratch;
use levels::{apply, first_scales, truncate};
use trades::Counting;

use super::sequencer::{Sequencer, Verdict};
use crate::limits::{
    BACKOFF_FIRST_NS, BACKOFF_MAX_NS, IMAGE_BUFFER_EVENTS_MAX, IMAGE_BUFFER_LEVELS_MAX,
    RECOVERED_AFTER_NS,
};
use crate::mutant::{Mutant, planted};
use crate::stats::FeedStats;
use crate::venue::{Checksum, VenueDecoder};

/// What a venue's books need besides its events.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// The venue's checksum.
    pub checksum: Option<Checksum>,
    /// Books are cut to this many levels a side after every event.
    pub truncate_at: Option<usize>,
    /// The best bid and offer has a stream of its own.
    pub has_bbo_stream: bool,
    /// Every instrument has a heartbeat at least this often.
    pub heartbeat_ns: Option<Nanos>,
}

impl Rules {
    /// The rules of the venue that a decoder is for.
    pub fn of(decoder: &dyn VenueDecoder) -> Self {
        Self {
            checksum: decoder.checksum(),
            truncate_at: decoder.truncate_at(),
            has_bbo_stream: decoder.has_bbo_stream(),
            heartbeat_ns: decoder.heartbeat_ns(),
        }
    }
}

/// Where the image of a book is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageWant {
    /// It is here.
    Here,
    /// To be asked for at this time.
    At(Nanos),
    /// Asked for; to be asked for again at this time.
    Asked(Nanos),
    /// Not to be had: the venue refuses the instrument, or lists it no longer.
    Never,
}

/// A book event that waits for its image, with its own levels.
#[derive(Debug)]
struct Early {
    event: BookEvent,
    bids: Vec<LevelChange>,
    asks: Vec<LevelChange>,
    tr_ns: Nanos,
}

/// A book that is served while its image is awaited, to go back to when the image is of no use.
struct Served {
    book: BookPart,
    sequencer: Sequencer,
    scales: Scales,
    digits: Scales,
    unpublished_ns: Nanos,
}

/// One instrument of the feed.
#[derive(Debug)]
pub struct InstrumentFeed {
    entry: Arc<Entry>,
    next: Snapshot,
    sequencer: Sequencer,
    early: Vec<Early>,
    early_levels: usize,
    /// Receipt of the first event that came while there was no image, kept or not; 0 = none.
    awaited_ns: Nanos,
    /// Receipt of the oldest change that is not published yet, by channel; 0 = none.
    unpublished_ns: [Nanos; Channel::ALL.len()],
    /// History was lost: the next good value begins an epoch. By channel.
    broken: [bool; Channel::ALL.len()],
    /// The scales are those of the listing, of an image, or of an earlier run.
    scales_known: bool,
    /// Digits that the venue writes, for its checksum.
    digits: Scales,
    counting: Counting,
    doubts: Doubts,
    /// Whether it trades, as far as is known.
    trading: Trading,
    /// It is halted because everything is.
    is_halted_with_all: bool,
    /// Whether it traded when the venue's list was read last.
    listed: Trading,
    /// Its large image, while that is decoded.
    aside: Option<Aside>,
    /// It stands in the feed's list of instruments to publish.
    pub is_queued: bool,
    /// Where the image is.
    pub want: ImageWant,
    has_asked: bool,
    attempts: u32,
    live_since_ns: Nanos,
    /// The second half of an event, withheld by a planted bug.
    #[cfg(test)]
    withheld: Vec<Level>,
}

impl InstrumentFeed {
    /// Continues from what was published last.
    pub fn new(entry: Arc<Entry>, scales: Option<Scales>) -> Self {
        let mut next = (*entry.load()).clone();
        let scales_known = scales.is_some() || next.version > 0;
        if let Some(scales) = scales
            && next.version == 0
        {
            next.scales = scales;
        }
        let listed = entry.listing().map_or(Trading::Open, |listing| listing.trading);
        Self {
            entry,
            broken: [next.version > 0; Channel::ALL.len()],
            counting: Counting::new(&next.trades.tail),
            next,
            sequencer: Sequencer::default(),
            early: Vec::new(),
            early_levels: 0,
            awaited_ns: 0,
            unpublished_ns: [0; Channel::ALL.len()],
            scales_known,
            digits: Scales::default(),
            doubts: Doubts::default(),
            trading: listed,
            is_halted_with_all: false,
            listed,
            aside: None,
            is_queued: false,
            want: ImageWant::Here,
            has_asked: false,
            attempts: 0,
            live_since_ns: 0,
            #[cfg(test)]
            withheld: Vec::new(),
        }
    }

    /// The entry that it publishes to.
    pub const fn entry(&self) -> &Arc<Entry> {
        &self.entry
    }

    /// The snapshot as it would be published now.
    pub const fn next(&self) -> &Snapshot {
        &self.next
    }

    fn touch(&mut self, channel: Channel, now: Nanos) {
        let oldest = &mut self.unpublished_ns[channel.index()];
        if *oldest == 0 || now < *oldest {
            *oldest = now;
        }
    }

    fn turn(&mut self, channel: Channel, state: State, why: Why, now: Nanos) {
        if self.next.status_mut(channel).turn(state, why, now) {
            self.touch(channel, now);
        }
    }

    /// A good value, be it after a loss: then a new epoch.
    fn mend(&mut self, channel: Channel, now: Nanos, rules: &Rules) {
        if std::mem::take(&mut self.broken[channel.index()]) {
            self.next.status_mut(channel).begin_epoch();
            self.touch(channel, now);
            if channel == Channel::Bbo {
                // It is told anew, and has not waited since it changed last.
                self.next.bbo.tr_ns = now;
            }
        }
        self.settle(channel, now, rules);
    }

    /// A channel has good values: it turns to what these are worth.
    fn settle(&mut self, channel: Channel, now: Nanos, rules: &Rules) {
        let hangs_on_book = match channel {
            Channel::Book => true,
            Channel::Bbo => !rules.has_bbo_stream,
            Channel::Trades => false,
        };
        let doubt = self.doubts.gravest().filter(|_| hangs_on_book);
        let Status { state, why, .. } = *self.next.status(channel);
        let (state, why) = match (doubt, state, why) {
            _ if self.trading == Trading::Halted => (State::Halted, Why::Halted),
            (Some(doubt), ..) => (State::Suspect, doubt),
            (None, State::Suspect, Why::Crossed) => (State::Live, Why::Uncrossed),
            (None, State::Suspect, Why::HeartbeatMissing)
            | (None, State::Stale, Why::VenueSilent) => (State::Live, Why::VenueBack),
            (None, State::Halted, _) => (State::Live, Why::Resumed),
            (None, ..) => (State::Live, Why::Synced),
        };
        self.turn(channel, state, why, now);
    }

    fn settle_all(&mut self, now: Nanos, rules: &Rules) {
        for channel in Channel::ALL {
            if self.next.status(*channel).state.flows() {
                self.settle(*channel, now, rules);
            }
        }
    }

    /// The connection is up and the subscriptions are sent: the image is to be asked for by `at`
    /// at the latest.
    pub fn begin(&mut self, at: Nanos, now: Nanos) {
        self.doubts = Doubts::default();
        self.counting.join();
        if self.trading == Trading::Ended {
            return self.end(now);
        }
        // What the last connection said of a halt may be over; the list is read again and again.
        self.trading = match self.listed {
            Trading::Ended => Trading::Open,
            listed => listed,
        };
        self.want = ImageWant::At(at);
        self.has_asked = false;
        // The pauses between connections are the session's.
        self.attempts = 0;
    }

    /// The venue confirmed a subscription.
    pub fn subscribed(&mut self, channel: Channel, now: Nanos, rules: &Rules) {
        match channel {
            _ if self.trading == Trading::Ended => {}
            Channel::Book => self.want_image_now(now),
            Channel::Trades => self.mend(Channel::Trades, now, rules),
            Channel::Bbo => {}
        }
    }

    fn want_image_now(&mut self, now: Nanos) {
        if let ImageWant::At(at) = self.want
            && self.attempts == 0
        {
            self.want = ImageWant::At(at.min(now));
        }
    }

    /// The venue refuses the instrument.
    pub fn refused(&mut self, now: Nanos) {
        self.want = ImageWant::Never;
        for channel in Channel::ALL {
            self.turn(*channel, State::Closed, Why::Refused, now);
        }
    }

    /// The venue began, halted or ended trading.
    pub fn trades_as(
        &mut self,
        trading: Trading,
        is_connected: bool,
        now: Nanos,
        context: &Context<'_>,
    ) {
        let before = std::mem::replace(&mut self.trading, trading);
        self.is_halted_with_all = false;
        match (before, trading) {
            _ if before == trading => {}
            (_, Trading::Ended) => self.end(now),
            (Trading::Ended, _) => self.begin_anew(is_connected, now),
            _ => {
                self.doubts.forgive_cross();
                if self.next.book.status.state.flows() {
                    self.doubts.crosses(self.next.book.book.is_crossed(), now);
                }
                self.settle_all(now, context.rules);
            }
        }
    }

    /// The venue began, halted or ended trading of everything: what it said of this one alone stays.
    pub fn trades_with_all(&mut self, trading: Trading, now: Nanos, context: &Context<'_>) {
        match (self.trading, trading) {
            (Trading::Ended, _) => {}
            (Trading::Open, Trading::Halted) => {
                self.trades_as(trading, true, now, context);
                self.is_halted_with_all = true;
            }
            (Trading::Halted, Trading::Open) if !self.is_halted_with_all => {}
            _ => self.trades_as(trading, true, now, context),
        }
    }

    /// Nothing comes of it any more, and nothing is asked for.
    fn end(&mut self, now: Nanos) {
        self.sequencer.lose();
        self.drop_early();
        self.drop_aside();
        self.awaited_ns = 0;
        self.doubts = Doubts::default();
        self.want = ImageWant::Never;
        for channel in Channel::ALL {
            self.turn(*channel, State::Closed, Why::Delisted, now);
        }
    }

    /// It trades again: nothing of before counts.
    fn begin_anew(&mut self, is_connected: bool, now: Nanos) {
        self.broken = [self.next.version > 0; Channel::ALL.len()];
        self.counting.join();
        self.attempts = 0;
        // The venue ended the subscription with the instrument.
        self.has_asked = true;
        self.want = if is_connected { ImageWant::At(now) } else { ImageWant::Here };
        for channel in Channel::ALL {
            self.turn(*channel, State::Syncing, Why::Starting, now);
        }
    }

    /// The venue's instrument list was read again; `None` = it is not in it.
    pub fn listed_as(
        &mut self,
        listing: Option<&Listing>,
        is_connected: bool,
        now: Nanos,
        context: &mut Context<'_>,
    ) {
        let trading = listing.map_or(Trading::Ended, |listing| listing.trading);
        // Only what the list says anew: the stream may have said more since.
        if std::mem::replace(&mut self.listed, trading) != trading {
            self.trades_as(trading, is_connected, now, context);
        }
        let Some(listing) = listing else { return };
        let before = self.entry.listing();
        if before.as_deref() == Some(listing) {
            return;
        }
        self.entry.set_listing(listing.clone());
        let has_other_steps =
            before.is_some_and(|old| (old.tick, old.lot) != (listing.tick, listing.lot));
        let (held, scales) = (self.next.scales, listing.scales());
        if scales.px > held.px || scales.qty > held.qty {
            // Where it cannot be, what follows will show whether it must be.
            if self.grow_scales(scales, now) {
                context.stats.scale_changes.inc();
            }
        } else if has_other_steps && self.next.book.status.state.flows() {
            self.lose(Channel::Book, Why::ScaleChange, now, context);
        }
        self.scales_known = true;
    }

    /// The connection is down: nothing is known to be wrong yet, but what was sent is lost.
    pub fn disconnected(&mut self, why: Why, now: Nanos) {
        self.sequencer.lose();
        self.drop_early();
        self.aside = None;
        self.awaited_ns = 0;
        if self.want != ImageWant::Never {
            self.want = ImageWant::Here;
        }
        for channel in Channel::ALL {
            let state = self.next.status(*channel).state;
            if state.flows() || state == State::Stale {
                self.broken[channel.index()] = true;
                self.turn(*channel, State::Stale, why, now);
            }
        }
    }

    /// The venue is silent.
    pub fn silent(&mut self, now: Nanos) {
        for channel in Channel::ALL {
            if self.next.status(*channel).state.flows() {
                self.turn(*channel, State::Stale, Why::VenueSilent, now);
            }
        }
    }

    /// The venue speaks again on the same connection, so that nothing was lost.
    pub fn heard(&mut self, now: Nanos, rules: &Rules) {
        for channel in Channel::ALL {
            let status = self.next.status(*channel);
            if status.state == State::Stale && status.why == Why::VenueSilent {
                self.settle(*channel, now, rules);
            }
        }
    }

    /// A channel is known to be wrong: it is marked, and for the book an image is wanted.
    pub fn lose(&mut self, channel: Channel, why: Why, now: Nanos, context: &mut Context<'_>) {
        if self.want == ImageWant::Never {
            // The venue does not serve it: nothing of it can be wrong, and nothing is asked for.
            return;
        }
        match channel {
            Channel::Book => {
                let jitter = context.jitter();
                self.lose_book(why, now, jitter);
                self.mirror_book_status(now, context.rules);
            }
            // The next message of these is whole again.
            Channel::Bbo | Channel::Trades => {
                self.broken[channel.index()] = true;
                self.turn(channel, State::Gap, why, now);
            }
        }
    }

    /// A message of the connection is missing: it may have been about anything, an image that is
    /// awaited too.
    pub fn lose_all(&mut self, why: Why, now: Nanos, context: &mut Context<'_>) {
        self.has_asked = true;
        for channel in Channel::ALL {
            self.lose(*channel, why, now, context);
        }
    }

    fn lose_book(&mut self, why: Why, now: Nanos, jitter: u64) {
        self.broken[Channel::Book.index()] |= self.next.version > 0;
        self.sequencer.lose();
        self.drop_early();
        self.drop_aside();
        if self.next.book.status.state != State::Syncing {
            self.turn(Channel::Book, State::Gap, why, now);
        }
        self.want_image_later(now, jitter);
    }

    /// Asks for an image: at once the first time, then with growing, jittered pauses.
    fn want_image_later(&mut self, now: Nanos, jitter: u64) {
        if self.live_since_ns != 0 && now.saturating_sub(self.live_since_ns) >= RECOVERED_AFTER_NS {
            self.attempts = 0;
        }
        self.live_since_ns = 0;
        let pause = if self.attempts == 0 {
            0
        } else {
            let ceiling = BACKOFF_FIRST_NS
                .saturating_mul(1 << (self.attempts - 1).min(16))
                .min(BACKOFF_MAX_NS);
            jitter % ceiling
        };
        self.attempts += 1;
        self.want = ImageWant::At(now + pause);
    }

    /// The image has been asked for on this connection before.
    pub fn has_asked(&self) -> bool {
        self.has_asked
    }

    /// The image was asked for; it is to be asked for again at `again`.
    pub fn asked(&mut self, again: Nanos) {
        self.has_asked = true;
        self.want = ImageWant::Asked(again);
    }

    fn drop_early(&mut self) {
        self.early.clear();
        self.early_levels = 0;
    }

    /// An image could not be had; it is asked for again later.
    pub fn image_failed(&mut self, now: Nanos, jitter: u64) {
        if matches!(self.want, ImageWant::Asked(_)) {
            self.want_image_later(now, jitter);
        }
    }

    /// Applies a book event.
    pub fn book(
        &mut self,
        event: &BookEvent,
        batch: &EventBatch,
        now: Nanos,
        context: &mut Context<'_>,
    ) {
        if self.trading == Trading::Ended {
            return;
        }
        let bids = &batch.levels[event.bids.clone()];
        let asks = &batch.levels[event.asks.clone()];
        if event.kind == BookKind::Image {
            if context.is_in_order {
                // Were they kept, those of a numbering that was begun anew would never follow it.
                self.drop_aside();
                self.drop_early();
            }
            return self.image(event, [bids, asks], now, context);
        }
        if self.is_aside() {
            return self.keep_early(event, [bids, asks], now, context);
        }
        match self.sequencer.judge(event.continuity) {
            Verdict::Apply => {
                if matches!(self.want, ImageWant::At(_) | ImageWant::Asked(_)) {
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
                self.want_image_now(now);
                self.keep_early(event, [bids, asks], now, context);
            }
            Verdict::Gap { .. } if planted(Mutant::ServedUnmarked) => {
                let _ = self.delta(event, [bids, asks], now, context);
                self.sequencer.lose();
                self.want = ImageWant::At(now);
            }
            Verdict::Gap { .. } => {
                self.wrong(Why::SequenceGap, now, context);
                // It is whole and comes after the loss: the image that repairs will need it.
                self.keep_early(event, [bids, asks], now, context);
            }
        }
        if self.next.book.status.state.flows() {
            self.doubts.crosses(self.next.book.book.is_crossed(), now);
            self.settle(Channel::Book, now, context.rules);
            self.bbo_from_book(now, context.rules);
        }
    }

    /// The book is wrong: mark it, count it, and ask for an image.
    fn wrong(&mut self, why: Why, now: Nanos, context: &mut Context<'_>) {
        match why {
            Why::ChecksumMismatch => context.stats.checksum_mismatches.inc(),
            Why::BufferFull => context.stats.buffer_overflows.inc(),
            Why::ScaleChange | Why::MalformedMessage => context.stats.malformed.inc(),
            _ => context.stats.gaps.inc(),
        };
        self.lose(Channel::Book, why, now, context);
    }

    /// Where the best bid and offer hangs on the book, it shares the book's trouble.
    fn mirror_book_status(&mut self, now: Nanos, rules: &Rules) {
        if rules.has_bbo_stream {
            return;
        }
        let book = self.next.book.status;
        if !book.state.flows() && self.next.bbo.status.state != State::Syncing {
            self.broken[Channel::Bbo.index()] = true;
            self.turn(Channel::Bbo, book.state, book.why, now);
        }
    }

    fn keep_early(
        &mut self,
        event: &BookEvent,
        [bids, asks]: [&[LevelChange]; 2],
        now: Nanos,
        context: &mut Context<'_>,
    ) {
        if self.awaited_ns == 0 {
            self.awaited_ns = now;
        }
        // Without numbers there is no telling which events an image contains, but for one that came
        // before them.
        if event.continuity.is_none() && !self.is_aside() {
            return;
        }
        if !self.has_room_for(bids.len() + asks.len()) {
            return self.wrong(Why::BufferFull, now, context);
        }
        self.push_early(event, [bids, asks], now);
    }

    /// Keeps an event that is applied to the book as it is, for the image that will replace it.
    fn keep_served(&mut self, event: &BookEvent, sides: [&[LevelChange]; 2], now: Nanos) {
        if event.continuity.is_none() {
            // The image comes in their order, and holds all that came before.
            return;
        }
        if !self.has_room_for(sides.iter().map(|side| side.len()).sum()) {
            // An image that is newer than these is as good.
            self.drop_early();
        }
        self.push_early(event, sides, now);
    }

    fn has_room_for(&self, levels: usize) -> bool {
        self.early.len() < IMAGE_BUFFER_EVENTS_MAX
            && self.early_levels + levels <= IMAGE_BUFFER_LEVELS_MAX
    }

    fn push_early(&mut self, event: &BookEvent, [bids, asks]: [&[LevelChange]; 2], now: Nanos) {
        self.early_levels += bids.len() + asks.len();
        self.early.push(Early {
            event: event.clone(),
            bids: bids.to_vec(),
            asks: asks.to_vec(),
            tr_ns: now,
        });
    }

    /// Changes the book by one event, whole; on an error the book is no longer right.
    fn delta(
        &mut self,
        event: &BookEvent,
        sides: [&[LevelChange]; 2],
        now: Nanos,
        context: &mut Context<'_>,
    ) -> Result<(), Why> {
        self.note_digits(event);
        self.read_levels(sides, now, context)?;
        #[cfg(test)]
        if planted(Mutant::PublishBeforeEventEnd) {
            std::mem::swap(&mut self.withheld, &mut context.scratch.asks);
        }
        let mut changed = apply(&mut self.next.book.book, context.scratch);
        if let Some(depth) = context.rules.truncate_at
            && !planted(Mutant::NotCutBack)
        {
            changed |= truncate(&mut self.next.book.book, depth);
        }
        self.prove(event.checksum, false, now, context)?;
        let part = &mut self.next.book;
        if let Some(continuity) = event.continuity {
            part.sequence = Some(continuity.last);
            if continuity.last < continuity.follows {
                // The venue begins its numbers anew: that of the best is of the old ones.
                self.next.bbo.sequence = None;
            }
        }
        if changed {
            self.next.version += 1;
            part.changed = self.next.version;
            part.te_ns = event.te_ns;
            part.tr_ns = now;
            self.touch(Channel::Book, now);
        }
        Ok(())
    }

    fn note_digits(&mut self, event: &BookEvent) {
        self.digits.px = self.digits.px.max(event.px_digits);
        self.digits.qty = self.digits.qty.max(event.qty_digits);
    }

    /// Replaces the book by an image joined with the events that waited for it: one change.
    fn image(
        &mut self,
        event: &BookEvent,
        sides: [&[LevelChange]; 2],
        now: Nanos,
        context: &mut Context<'_>,
    ) {
        let unpublished_ns = self.unpublished_ns[Channel::Book.index()];
        // Nothing waited to be applied: all of it was, to the book that is served.
        let served = (!self.sequencer.is_lost() && self.awaited_ns == 0).then(|| Served {
            book: self.next.book.clone(),
            sequencer: self.sequencer.clone(),
            scales: self.next.scales,
            digits: self.digits,
            unpublished_ns,
        });
        self.digits = Scales::default();
        self.note_digits(event);
        let joined = self.join_image(event, sides, now, context);
        if let Some(served) = &served {
            self.unpublished_ns[Channel::Book.index()] = served.unpublished_ns;
        }
        if let Err(why) = joined {
            context.stats.images_refused.inc();
            if why == Why::SequenceGap
                && let Some(served) = served
                && served.scales == self.next.scales
            {
                self.next.book = served.book;
                self.sequencer = served.sequencer;
                self.digits = served.digits;
                let jitter = context.jitter();
                return self.want_image_later(now, jitter);
            }
            let (early, early_levels) = (std::mem::take(&mut self.early), self.early_levels);
            self.wrong(why, now, context);
            // An image that is only too old says nothing against the events.
            if why == Why::SequenceGap {
                self.early = early;
                self.early_levels = early_levels;
            }
            return;
        }
        context.stats.images.inc();
        self.want = ImageWant::Here;
        self.has_asked = true;
        self.live_since_ns = now;
        self.next.version += 1;
        self.next.book.changed = self.next.version;
        self.doubts.renew();
        self.doubts.crosses(self.next.book.book.is_crossed(), now);
        self.mend(Channel::Book, now, context.rules);
        self.touch(Channel::Book, now);
        self.bbo_from_book(now, context.rules);
    }

    fn join_image(
        &mut self,
        event: &BookEvent,
        sides: [&[LevelChange]; 2],
        now: Nanos,
        context: &mut Context<'_>,
    ) -> Result<(), Why> {
        if !std::mem::replace(&mut self.scales_known, true) {
            let first = first_scales(event, sides);
            let old = self.next.scales;
            if self.next.version == 0 {
                self.next.scales = first;
            } else if first.px > old.px || first.qty > old.qty {
                // Where it cannot be, what follows will show whether it must be.
                self.grow_scales(first, now);
            }
        }
        self.read_levels(sides, now, context)?;
        let mut book = Book::default();
        book.bids.replace(std::mem::take(&mut context.scratch.bids), event.cut_at);
        book.asks.replace(std::mem::take(&mut context.scratch.asks), event.cut_at);
        #[cfg(test)]
        self.withheld.clear();
        self.sequencer.begin(event.continuity.map(|continuity| continuity.last));
        let part = &mut self.next.book;
        part.book = book;
        part.sequence = event.continuity.map(|continuity| continuity.last);
        part.te_ns = event.te_ns;
        part.tr_ns = now;
        self.prove(event.checksum, true, now, context)?;

        let early = std::mem::take(&mut self.early);
        self.early_levels = 0;
        let awaited_ns = std::mem::take(&mut self.awaited_ns);
        if awaited_ns != 0 {
            // Its change has waited since it came, be it part of the image by now.
            self.touch(Channel::Book, awaited_ns);
        }
        let version = self.next.version;
        for (i, waiting) in early.iter().enumerate() {
            match self.sequencer.judge(waiting.event.continuity) {
                Verdict::Old => {}
                Verdict::Apply => self.delta(
                    &waiting.event,
                    [&waiting.bids, &waiting.asks],
                    waiting.tr_ns,
                    context,
                )?,
                Verdict::Early | Verdict::Gap { .. } => {
                    self.early = early.into_iter().skip(i).collect();
                    self.early_levels =
                        self.early.iter().map(|early| early.bids.len() + early.asks.len()).sum();
                    self.next.version = version;
                    return Err(Why::SequenceGap);
                }
            }
        }
        // What waited is part of the image: one change in all.
        self.next.version = version;
        Ok(())
    }

    /// The best of the book becomes the best bid and offer, unless the venue's own is newer.
    fn bbo_from_book(&mut self, now: Nanos, rules: &Rules) {
        let book = &self.next.book;
        let newer = match (self.next.bbo.sequence, book.sequence) {
            _ if self.broken[Channel::Bbo.index()] => true,
            (Some(bbo), Some(book)) => book >= bbo,
            _ => true,
        };
        if !newer {
            return;
        }
        let (bid, ask) = book.book.best();
        let (sequence, te_ns) = (book.sequence, book.te_ns);
        self.mend(Channel::Bbo, now, rules);
        self.set_bbo(bid, ask, sequence, te_ns, self.next.version, now);
    }

    fn set_bbo(
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

    /// Applies the venue's own best bid and offer.
    pub fn bbo(&mut self, event: &BboEvent, now: Nanos, context: &mut Context<'_>) {
        if self.trading == Trading::Ended {
            return;
        }
        let older = match (self.next.bbo.sequence, event.sequence) {
            _ if self.broken[Channel::Bbo.index()] => false,
            (Some(held), Some(new)) => new < held,
            _ => false,
        };
        if older {
            context.stats.old_events.inc();
            return;
        }
        let sides = [std::slice::from_ref(&event.bid), std::slice::from_ref(&event.ask)];
        self.guess_scales(sides);
        if let Err(why) = self.read_levels(sides, now, context) {
            context.stats.malformed.inc();
            self.lose(Channel::Bbo, why, now, context);
            return;
        }
        let best = |levels: &[Level]| levels.first().copied().filter(|level| level.qty.0 > 0);
        let (bid, ask) = (best(&context.scratch.bids), best(&context.scratch.asks));
        self.mend(Channel::Bbo, now, context.rules);
        self.set_bbo(bid, ask, event.sequence, event.te_ns, self.next.version + 1, now);
    }

    /// Publishes what has changed and marks it for the shards; returns whether anything had.
    pub fn publish(&mut self, marks: &[Arc<Marks>]) -> bool {
        self.is_queued = false;
        if self.unpublished_ns == [0; Channel::ALL.len()] {
            return false;
        }
        debug_assert!(self.next.book.book.bids.is_sound() && self.next.book.book.asks.is_sound());
        self.entry.publish(Arc::new(self.next.clone()));
        for channel in Channel::ALL {
            let oldest = std::mem::take(&mut self.unpublished_ns[channel.index()]);
            if oldest != 0 {
                for shard in marks {
                    shard.mark(self.entry.instrument.id, *channel, oldest);
                }
            }
        }
        true
    }
}

/// What the feed lends to an instrument for the time of one event.
#[derive(Debug)]
pub struct Context<'a> {
    /// The venue's rules.
    pub rules: &'a Rules,
    /// The venue's counters.
    pub stats: &'a FeedStats,
    /// Memory.
    pub scratch: &'a mut Scratch,
    /// State of the jitter.
    pub jitter: &'a mut u64,
    /// The events stand where the stream has them, so that an image holds all that came before it.
    pub is_in_order: bool,
}

impl Context<'_> {
    pub(super) fn jitter(&mut self) -> u64 {
        next_random(self.jitter)
    }
}

/// The next random number (splitmix64): only to spread retries, never for secrets.
pub(super) const fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
