//! One instrument as the feed thread holds it: venue events in, the next snapshot out.
//!
//! The only code that changes a book. An event is applied whole or not at all; what is found wrong
//! is marked before anything else happens. Pure: it takes events and times and knows no socket.

use std::sync::Arc;

use tickfan_core::book::Book;
use tickfan_core::decimal::{Decimal, DecimalError, SCALE_MAX};
use tickfan_core::market::{
    BboEvent, BookEvent, BookKind, Channel, EventBatch, Level, LevelChange, Nanos, Px, Qty, Scales,
    Side, State, Trade, TradeNumbering, TradesEvent, Why,
};
use tickfan_core::snapshot::marks::Marks;
use tickfan_core::snapshot::{Entry, Snapshot};

use super::sequencer::{Sequencer, Verdict};
use crate::limits::{
    BACKOFF_FIRST_NS, BACKOFF_MAX_NS, FIRST_SCALE_MAX, GUESSED_MANTISSA_MAX,
    IMAGE_BUFFER_EVENTS_MAX, IMAGE_BUFFER_LEVELS_MAX, RECOVERED_AFTER_NS,
};
use crate::mutant::{Mutant, planted};
use crate::stats::FeedStats;
use crate::venue::Checksum;

/// What a venue's books need besides its events.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// The venue's checksum.
    pub checksum: Option<Checksum>,
    /// Books are cut to this many levels a side after every event.
    pub truncate_at: Option<usize>,
    /// The best bid and offer has a stream of its own.
    pub has_bbo_stream: bool,
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
    /// Not to be had: the venue refuses the instrument.
    Never,
}

/// Memory that one event needs, reused from event to event.
#[derive(Debug, Default)]
pub struct Scratch {
    bids: Vec<Level>,
    asks: Vec<Level>,
}

/// A book event that waits for its image, with its own levels.
#[derive(Debug)]
struct Early {
    event: BookEvent,
    bids: Vec<LevelChange>,
    asks: Vec<LevelChange>,
    tr_ns: Nanos,
}

/// Why a number cannot be taken as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Misfit {
    /// The instrument's scales must grow to these.
    Finer(Scales),
    /// It does not fit 64 bits, or is negative.
    Never,
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
    newest_trade_id: Option<u64>,
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
        Self {
            entry,
            broken: [next.version > 0; Channel::ALL.len()],
            next,
            sequencer: Sequencer::default(),
            early: Vec::new(),
            early_levels: 0,
            awaited_ns: 0,
            unpublished_ns: [0; Channel::ALL.len()],
            scales_known,
            digits: Scales::default(),
            newest_trade_id: None,
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

    /// A good value after a loss: a new epoch, and live.
    fn mend(&mut self, channel: Channel, now: Nanos) {
        if std::mem::take(&mut self.broken[channel.index()]) {
            self.next.status_mut(channel).begin_epoch();
            self.touch(channel, now);
        }
        self.turn(channel, State::Live, Why::Synced, now);
    }

    /// The connection is up and the subscriptions are sent: the image is to be asked for by `at`
    /// at the latest.
    pub fn begin(&mut self, at: Nanos) {
        self.want = ImageWant::At(at);
        self.has_asked = false;
        // The pauses between connections are the session's.
        self.attempts = 0;
    }

    /// The venue confirmed a subscription.
    pub fn subscribed(&mut self, channel: Channel, now: Nanos) {
        match channel {
            Channel::Book => self.want_image_now(now),
            Channel::Trades => self.mend(Channel::Trades, now),
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

    /// The connection is down: nothing is known to be wrong yet, but what was sent is lost.
    pub fn disconnected(&mut self, why: Why, now: Nanos) {
        self.sequencer.lose();
        self.drop_early();
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
    pub fn heard(&mut self, now: Nanos) {
        for channel in Channel::ALL {
            let status = self.next.status(*channel);
            if status.state == State::Stale && status.why == Why::VenueSilent {
                self.turn(*channel, State::Live, Why::VenueBack, now);
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

    fn lose_book(&mut self, why: Why, now: Nanos, jitter: u64) {
        self.broken[Channel::Book.index()] |= self.next.version > 0;
        self.sequencer.lose();
        self.drop_early();
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
        let bids = &batch.levels[event.bids.clone()];
        let asks = &batch.levels[event.asks.clone()];
        if event.kind == BookKind::Image {
            return self.image(event, [bids, asks], now, context);
        }
        match self.sequencer.judge(event.continuity) {
            Verdict::Apply => {
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
            Verdict::Gap { .. } => {
                self.wrong(Why::SequenceGap, now, context);
                // It is whole and comes after the loss: the image that repairs will need it.
                self.keep_early(event, [bids, asks], now, context);
            }
        }
        if self.next.book.status.state.flows() {
            self.judge_cross(now);
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
        // Without numbers there is no telling which events an image contains.
        if event.continuity.is_none() {
            return;
        }
        self.early_levels += bids.len() + asks.len();
        if self.early.len() == IMAGE_BUFFER_EVENTS_MAX
            || self.early_levels > IMAGE_BUFFER_LEVELS_MAX
        {
            return self.wrong(Why::BufferFull, now, context);
        }
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
        if let Some(depth) = context.rules.truncate_at {
            changed |= truncate(&mut self.next.book.book, depth);
        }
        self.prove(event.checksum, context.rules)?;
        let part = &mut self.next.book;
        if let Some(continuity) = event.continuity {
            part.sequence = Some(continuity.last);
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

    /// Reads levels at the instrument's scales into the scratch; grows the scales where needed.
    fn read_levels(
        &mut self,
        [bids, asks]: [&[LevelChange]; 2],
        now: Nanos,
        context: &mut Context<'_>,
    ) -> Result<(), Why> {
        loop {
            let read = read(bids, self.next.scales, &mut context.scratch.bids)
                .and_then(|()| read(asks, self.next.scales, &mut context.scratch.asks));
            match read {
                Ok(()) => return Ok(()),
                Err(Misfit::Never) => return Err(Why::ScaleChange),
                Err(Misfit::Finer(scales)) => {
                    if !self.grow_scales(scales, now) {
                        return Err(Why::ScaleChange);
                    }
                    context.stats.scale_changes.inc();
                }
            }
        }
    }

    /// Before the image of an instrument without a listing, the scales are guessed from the first
    /// numbers that come: as fine as a scale may begin, with room for larger numbers.
    fn guess_scales(&mut self, sides: [&[LevelChange]; 2]) {
        if self.scales_known || self.next.version > 0 {
            return;
        }
        let roomy = |value: Decimal, scale: u8| {
            value.at_scale(scale).is_ok_and(|m| m.unsigned_abs() <= GUESSED_MANTISSA_MAX)
        };
        let finest = finest(sides);
        let guess = |least: u8, value: fn(&LevelChange) -> Decimal| {
            (least..FIRST_SCALE_MAX)
                .take_while(|s| sides.into_iter().flatten().all(|c| roomy(value(c), s + 1)))
                .last()
                .map_or(least, |s| s + 1)
        };
        self.next.scales = Scales {
            px: guess(finest.px, |change| change.px),
            qty: guess(finest.qty, |change| change.qty),
        };
    }

    /// Expresses everything held in finer units: the values stay, and every channel begins an epoch.
    fn grow_scales(&mut self, finer: Scales, now: Nanos) -> bool {
        let old = self.next.scales;
        let scales = Scales { px: old.px.max(finer.px), qty: old.qty.max(finer.qty) };
        let (Ok(px_factor), Ok(qty_factor)) = (
            Decimal { mantissa: 1, scale: old.px }.at_scale(scales.px),
            Decimal { mantissa: 1, scale: old.qty }.at_scale(scales.qty),
        ) else {
            return false;
        };
        let rescaled = |best: Option<Level>| match best {
            None => Some(None),
            Some(level) => Some(Some(Level {
                px: Px(level.px.0.checked_mul(px_factor)?),
                qty: Qty(level.qty.0.checked_mul(qty_factor)?),
            })),
        };
        let mut book = self.next.book.book.clone();
        let mut tail = self.next.trades.tail.clone();
        let (Some(bid), Some(ask)) = (rescaled(self.next.bbo.bid), rescaled(self.next.bbo.ask))
        else {
            return false;
        };
        if !book.bids.rescale(px_factor, qty_factor)
            || !book.asks.rescale(px_factor, qty_factor)
            || !tail.rescale(px_factor, qty_factor)
        {
            return false;
        }
        self.next.book.book = book;
        self.next.trades.tail = tail;
        self.next.bbo.bid = bid;
        self.next.bbo.ask = ask;
        self.next.scales = scales;
        if self.next.version > 0 {
            for channel in Channel::ALL {
                // No epoch ends unannounced: what was held is told to be void, then comes anew.
                let state = self.next.status(*channel).state;
                self.turn(*channel, State::Gap, Why::ScaleChange, now);
                self.next.status_mut(*channel).begin_epoch();
                self.turn(*channel, state, Why::ScaleChange, now);
                self.touch(*channel, now);
            }
        }
        true
    }

    fn note_digits(&mut self, event: &BookEvent) {
        self.digits.px = self.digits.px.max(event.px_digits);
        self.digits.qty = self.digits.qty.max(event.qty_digits);
    }

    /// Holds the book against the venue's checksum.
    fn prove(&self, expected: Option<u32>, rules: &Rules) -> Result<(), Why> {
        let (Some(expected), Some(checksum)) = (expected, rules.checksum) else { return Ok(()) };
        let book = &self.next.book.book;
        let top = |side: Side| -> Option<Vec<(i64, i64)>> {
            book.side(side)
                .iter()
                .take(checksum.levels)
                .map(|level| {
                    Some((
                        at_digits(level.px.0, self.next.scales.px, self.digits.px)?,
                        at_digits(level.qty.0, self.next.scales.qty, self.digits.qty)?,
                    ))
                })
                .collect()
        };
        match (top(Side::Bid), top(Side::Ask)) {
            (Some(bids), Some(asks))
                if (checksum.compute)(&bids, &asks, self.digits) == expected =>
            {
                Ok(())
            }
            _ => Err(Why::ChecksumMismatch),
        }
    }

    /// Replaces the book by an image joined with the events that waited for it: one change.
    fn image(
        &mut self,
        event: &BookEvent,
        sides: [&[LevelChange]; 2],
        now: Nanos,
        context: &mut Context<'_>,
    ) {
        self.digits = Scales::default();
        self.note_digits(event);
        if let Err(why) = self.join_image(event, sides, now, context) {
            context.stats.images_refused.inc();
            let early = std::mem::take(&mut self.early);
            self.wrong(why, now, context);
            // An image that is only too old says nothing against the events.
            if why == Why::SequenceGap {
                self.early_levels = early.iter().map(|e| e.bids.len() + e.asks.len()).sum();
                self.early = early;
            }
            return;
        }
        context.stats.images.inc();
        self.want = ImageWant::Here;
        self.has_asked = true;
        self.live_since_ns = now;
        self.next.version += 1;
        self.next.book.changed = self.next.version;
        self.mend(Channel::Book, now);
        self.touch(Channel::Book, now);
        self.judge_cross(now);
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
        self.prove(event.checksum, context.rules)?;

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
                    self.next.version = version;
                    return Err(Why::SequenceGap);
                }
            }
        }
        // What waited is part of the image: one change in all.
        self.next.version = version;
        Ok(())
    }

    fn judge_cross(&mut self, now: Nanos) {
        let status = self.next.book.status;
        match (self.next.book.book.is_crossed(), status.state, status.why) {
            (true, State::Live, _) => {
                self.turn(Channel::Book, State::Suspect, Why::Crossed, now);
            }
            (false, State::Suspect, Why::Crossed) => {
                self.turn(Channel::Book, State::Live, Why::Uncrossed, now);
            }
            _ => {}
        }
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
        self.mend(Channel::Bbo, now);
        self.set_bbo(bid, ask, sequence, te_ns, self.next.version, now);
        if !rules.has_bbo_stream {
            let book = self.next.book.status;
            if self.next.bbo.status.state != book.state {
                self.turn(Channel::Bbo, book.state, book.why, now);
            }
        }
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
        self.mend(Channel::Bbo, now);
        self.set_bbo(bid, ask, event.sequence, event.te_ns, self.next.version + 1, now);
    }

    /// Appends the trades of one message.
    pub fn trades(
        &mut self,
        event: &TradesEvent,
        batch: &EventBatch,
        now: Nanos,
        context: &mut Context<'_>,
    ) {
        let mut any = false;
        for print in &batch.trades[event.trades.clone()] {
            let sides = [&[LevelChange { px: print.px, qty: print.qty }][..], &[]];
            self.guess_scales(sides);
            if let Err(why) = self.read_levels(sides, now, context) {
                context.stats.malformed.inc();
                self.lose(Channel::Trades, why, now, context);
                continue;
            }
            if let (TradeNumbering::Consecutive, Some(id)) = (event.numbering, &print.number) {
                match self.newest_trade_id {
                    Some(newest) if *id <= newest => {
                        context.stats.trades_repeated.inc();
                        continue;
                    }
                    Some(newest) if *id > newest + 1 => {
                        let lost = *id - newest - 1;
                        context.stats.trades_lost.inc_by(lost);
                        self.next
                            .trades
                            .tail
                            .skip(lost - u64::from(planted(Mutant::UncountedLoss)));
                    }
                    _ => {}
                }
                self.newest_trade_id = Some(*id);
            }
            let Some(level) = context.scratch.bids.first() else { continue };
            self.next.trades.tail.push(Trade {
                te_ns: print.te_ns,
                px: level.px,
                qty: level.qty,
                aggressor: print.aggressor,
                id: print.id.clone(),
            });
            any = true;
        }
        if any {
            self.mend(Channel::Trades, now);
            self.next.trades.tr_ns = now;
            self.next.version += 1;
            self.touch(Channel::Trades, now);
        }
    }

    /// The connection was lost and begun anew: trade ids may begin anew too.
    pub fn reconnected(&mut self) {
        if self.broken[Channel::Trades.index()] {
            self.newest_trade_id = None;
        }
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

fn read(changes: &[LevelChange], scales: Scales, out: &mut Vec<Level>) -> Result<(), Misfit> {
    out.clear();
    for change in changes {
        match (change.px.at_scale(scales.px), change.qty.at_scale(scales.qty)) {
            (Ok(px), Ok(qty)) if qty >= 0 => out.push(Level { px: Px(px), qty: Qty(qty) }),
            (Err(DecimalError::TooFine), _) | (_, Err(DecimalError::TooFine)) => {
                return Err(Misfit::Finer(finest([changes, &[]])));
            }
            _ => return Err(Misfit::Never),
        }
    }
    Ok(())
}

/// The scales that hold every value.
fn finest(sides: [&[LevelChange]; 2]) -> Scales {
    let mut scales = Scales::default();
    for change in sides.into_iter().flatten() {
        scales.px = scales.px.max(change.px.scale);
        scales.qty = scales.qty.max(change.qty.scale);
    }
    scales
}

/// The scales of an instrument without a listing: the digits that the venue writes, so that a finer
/// price later is rare, unless its values do not fit then.
fn first_scales(image: &BookEvent, sides: [&[LevelChange]; 2]) -> Scales {
    let needed = finest(sides);
    let written = Scales {
        px: needed.px.max(image.px_digits.min(FIRST_SCALE_MAX)),
        qty: needed.qty.max(image.qty_digits.min(FIRST_SCALE_MAX)),
    };
    let fits = |scales: Scales| {
        sides.into_iter().flatten().all(|change| {
            change.px.at_scale(scales.px).is_ok() && change.qty.at_scale(scales.qty).is_ok()
        })
    };
    if fits(written) { written } else { needed }
}

/// A mantissa at another number of digits; `None` when digits would be lost.
fn at_digits(mantissa: i64, scale: u8, digits: u8) -> Option<i64> {
    if digits >= scale {
        return Decimal { mantissa, scale }.at_scale(digits.min(SCALE_MAX)).ok();
    }
    let power = Decimal { mantissa: 1, scale: digits }.at_scale(scale).ok()?;
    (mantissa % power == 0).then(|| mantissa / power)
}

fn apply(book: &mut Book, scratch: &Scratch) -> bool {
    let mut changed = false;
    for (side, levels) in [(Side::Bid, &scratch.bids), (Side::Ask, &scratch.asks)] {
        let side = book.side_mut(side);
        for level in levels {
            changed |= side.set(level.px, level.qty);
        }
    }
    changed
}

fn truncate(book: &mut Book, depth: usize) -> bool {
    let bids = book.bids.truncate(depth);
    let asks = book.asks.truncate(depth);
    bids || asks
}
