//! One instrument as the feed thread holds it: venue events in, the next snapshot out.
//!
//! Here stands what its channels have in common: connections that begin, end or fall silent, what is
//! lost, and what the values are worth. Each kind of event has a file of its own beside it, and so has
//! each state that is more than a number. The only code that changes a book: an event is applied whole
//! or not at all, and what is found wrong is marked before anything else happens. Pure: it takes events
//! and times and knows no socket.

use std::sync::Arc;

use tickfan_core::market::{Channel, Nanos, Scales, State, Trading, Why};
use tickfan_core::snapshot::marks::Marks;
use tickfan_core::snapshot::{Entry, Snapshot, Status};

mod draft;
mod levels;
mod early;
mod want;
mod book;
mod image;
mod aside;
mod bbo;
mod trades;
mod doubt;
mod trading;
mod handover;

use aside::Aside;
pub use aside::Outcome;
use doubt::Doubts;
use draft::Draft;
use early::Early;
pub use levels::Scratch;
use trades::Counting;
use trading::Phase;
pub use want::{ImageWant, Want};

use super::sequencer::Sequencer;
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
    /// A hole in the numbers of the trades speaks against the book.
    pub trades_vouch: bool,
    /// Images come on the stream, in order with the events.
    pub images_in_order: bool,
}

impl Rules {
    /// The rules of the venue that a decoder is for.
    pub fn of(decoder: &dyn VenueDecoder) -> Self {
        Self {
            checksum: decoder.checksum(),
            truncate_at: decoder.truncate_at(),
            has_bbo_stream: decoder.has_bbo_stream(),
            heartbeat_ns: decoder.heartbeat_ns(),
            trades_vouch: decoder.trades_vouch(),
            images_in_order: !decoder.fetches_images(),
        }
    }
}

/// One instrument of the feed.
#[derive(Debug)]
pub struct InstrumentFeed {
    entry: Arc<Entry>,
    draft: Draft,
    phase: Phase,
    /// Where the book stands.
    sequencer: Sequencer,
    /// Digits that the venue writes, for its checksum.
    digits: Scales,
    counting: Counting,
    doubts: Doubts,
    /// What waits for the image.
    early: Early,
    /// Its large image, while that is decoded.
    aside: Option<Aside>,
    /// Where the image is.
    pub want: Want,
    /// Images refused one after the other, see [`Self::is_behind`].
    images_behind: u32,
    /// It stands in the feed's list of instruments to publish.
    pub is_queued: bool,
    /// The second half of an event, withheld by a planted bug.
    #[cfg(test)]
    withheld: Vec<tickfan_core::market::Level>,
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
            counting: Counting::new(&next.trades.tail),
            draft: Draft::new(next, scales_known),
            phase: Phase::new(listed),
            sequencer: Sequencer::default(),
            digits: Scales::default(),
            doubts: Doubts::default(),
            early: Early::default(),
            aside: None,
            want: Want::new(),
            images_behind: 0,
            is_queued: false,
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
        &self.draft.next
    }

    /// A good value, be it after a loss: then a new epoch.
    fn mend(&mut self, channel: Channel, now: Nanos, rules: &Rules) {
        self.draft.mend(channel, now);
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
        let Status { state, why, .. } = *self.draft.next.status(channel);
        let (state, why) = match (doubt, state, why) {
            _ if self.phase.trading == Trading::Halted => (State::Halted, Why::Halted),
            (Some(doubt), ..) => (State::Suspect, doubt),
            (None, State::Suspect, Why::Crossed) => (State::Live, Why::Uncrossed),
            (None, State::Suspect, Why::HeartbeatMissing)
            | (None, State::Stale, Why::VenueSilent) => (State::Live, Why::VenueBack),
            (None, State::Halted, _) => (State::Live, Why::Resumed),
            (None, ..) => (State::Live, Why::Synced),
        };
        self.draft.turn(channel, state, why, now);
    }

    fn settle_all(&mut self, now: Nanos, rules: &Rules) {
        for channel in Channel::ALL {
            if self.draft.next.status(*channel).state.flows() {
                self.settle(*channel, now, rules);
            }
        }
    }

    /// The connection is up and the subscriptions are sent: the image is to be asked for by `at`
    /// at the latest.
    pub fn begin(&mut self, at: Nanos, now: Nanos) {
        self.doubts = Doubts::default();
        self.counting.join();
        self.want.begin(at);
        if self.phase.has_ended() {
            return self.end(now);
        }
        self.phase.begin();
    }

    /// The venue confirmed a subscription.
    pub fn subscribed(&mut self, channel: Channel, now: Nanos, rules: &Rules) {
        self.want.is_subscribed |= channel == Channel::Book;
        match channel {
            _ if self.phase.has_ended() => {}
            Channel::Book => self.want.hurry(now),
            Channel::Trades => self.mend(Channel::Trades, now, rules),
            Channel::Bbo => {}
        }
    }

    /// The venue refuses the instrument.
    pub fn refused(&mut self, now: Nanos) {
        self.want.image = ImageWant::Never;
        // What comes until it is served again is missed.
        self.draft.break_all();
        for channel in Channel::ALL {
            self.draft.turn(*channel, State::Closed, Why::Refused, now);
        }
    }

    /// The connection is down: nothing is known to be wrong yet, but what was sent is lost.
    pub fn disconnected(&mut self, why: Why, now: Nanos) {
        self.sequencer.lose();
        self.early = Early::default();
        self.aside = None;
        self.want.disconnected();
        for channel in Channel::ALL {
            let state = self.draft.next.status(*channel).state;
            if state.flows() || state == State::Stale {
                self.draft.break_off(*channel);
                self.draft.turn(*channel, State::Stale, why, now);
            }
        }
    }

    /// The venue is silent.
    pub fn silent(&mut self, now: Nanos) {
        for channel in Channel::ALL {
            if self.draft.next.status(*channel).state.flows() {
                self.draft.turn(*channel, State::Stale, Why::VenueSilent, now);
            }
        }
    }

    /// The venue speaks again on the same connection, so that nothing was lost.
    pub fn heard(&mut self, now: Nanos, rules: &Rules) {
        for channel in Channel::ALL {
            let status = self.draft.next.status(*channel);
            if status.state == State::Stale && status.why == Why::VenueSilent {
                self.settle(*channel, now, rules);
            }
        }
    }

    /// A channel is known to be wrong: it is marked, and for the book an image is wanted.
    pub fn lose(&mut self, channel: Channel, why: Why, now: Nanos, context: &mut Context<'_>) {
        if self.want.image == ImageWant::Never {
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
                self.draft.break_off(channel);
                self.draft.turn(channel, State::Gap, why, now);
            }
        }
    }

    /// A message of the connection is missing: it may have been about anything, an image that is
    /// awaited too.
    pub fn lose_all(&mut self, why: Why, now: Nanos, context: &mut Context<'_>) {
        self.want.has_asked = true;
        for channel in Channel::ALL {
            self.lose(*channel, why, now, context);
        }
    }

    fn lose_book(&mut self, why: Why, now: Nanos, jitter: u64) {
        if self.draft.next.version > 0 {
            self.draft.break_off(Channel::Book);
        }
        self.sequencer.lose();
        self.doubts.catch_up();
        self.early.clear();
        self.drop_aside();
        if self.draft.next.book.status.state != State::Syncing {
            self.draft.turn(Channel::Book, State::Gap, why, now);
        }
        self.want.retry(now, jitter);
    }

    /// Publishes what has changed and marks it for the shards; returns whether anything had.
    pub fn publish(&mut self, marks: &[Arc<Marks>]) -> bool {
        self.is_queued = false;
        self.draft.publish(&self.entry, marks)
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
