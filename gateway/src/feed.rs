//! The feed: venue messages in, published snapshots out. Owns every book of its instruments.
//!
//! [`Feed`] is pure: a function of bytes and times, driven by the session on the feed thread and by
//! the tests in virtual time. It never waits, and what it wants from the world (an image, a text to
//! send, a new connection) it leaves as [`Request`]s.

use std::sync::Arc;

use tickfan_core::market::{
    Channel, EventBatch, InstrumentId, MarketEvent, Nanos, Scales, Venue, Why,
};
use tickfan_core::snapshot::Entry;
use tickfan_core::snapshot::marks::Marks;

pub mod sequencer;
pub mod instrument;
pub mod tls;
pub mod rest;
pub mod session;

use instrument::{Context, ImageWant, InstrumentFeed, Rules, Scratch};

use crate::limits::{BATCH_MESSAGES_MAX, BATCH_NS_MAX, IMAGE_TIMEOUT_NS, SUBSCRIBE_ACK_NS};
use crate::mutant::{Mutant, planted};
use crate::stats::FeedStats;
use crate::venue::{self, DecodeError, Resync, Subscription, VenueDecoder};

/// What the feed wants from the world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// GET this path, decode it as the image of the instrument, and give it to [`Feed::on_image`].
    Image {
        /// Of which instrument.
        instrument: InstrumentId,
        /// Path and query at the venue's REST host.
        path: String,
    },
    /// Send this text on the stream.
    Send(String),
    /// End the connection and make a new one.
    Reconnect,
}

/// What a feed is made of.
#[derive(Debug)]
pub struct FeedOptions {
    /// Which venue.
    pub venue: Venue,
    /// The instruments, and their scales where a listing told them.
    pub instruments: Vec<(Arc<Entry>, Option<Scales>)>,
    /// Depth that the venue is asked for.
    pub depth: Option<u32>,
    /// Which trade stream.
    pub trades: Option<venue::TradeStream>,
    /// The shards to tell of changes.
    pub marks: Vec<Arc<Marks>>,
    /// Counters.
    pub stats: FeedStats,
    /// Seed of the jitter between retries.
    pub seed: u64,
}

/// The instruments of one connection to one venue.
pub struct Feed {
    decoder: Box<dyn VenueDecoder>,
    rules: Rules,
    instruments: Vec<InstrumentFeed>,
    /// From an instrument's id to its place in `instruments`.
    places: Vec<Option<u32>>,
    marks: Vec<Arc<Marks>>,
    stats: FeedStats,
    jitter: u64,
    scratch: Scratch,
    events: EventBatch,
    /// Places of instruments with something to publish, in the order of their first change.
    changed: Vec<u32>,
    requests: Vec<Request>,
    connected: bool,
    heard_ns: Nanos,
    silent: bool,
    sent_ns: Nanos,
    batch_messages: usize,
    batch_began_ns: Nanos,
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Feed").field("instruments", &self.instruments.len()).finish_non_exhaustive()
    }
}

impl Feed {
    /// A feed that is not connected yet.
    pub fn new(options: FeedOptions) -> Self {
        let mut places = Vec::new();
        let mut names = Vec::new();
        let mut instruments = Vec::new();
        for (entry, scales) in options.instruments {
            let id = entry.instrument.id;
            if places.len() <= id.index() {
                places.resize(id.index() + 1, None);
            }
            places[id.index()] = Some(instruments.len() as u32);
            names.push((id, Arc::clone(&entry.instrument.native)));
            instruments.push(InstrumentFeed::new(entry, scales));
        }
        let decoder = venue::decoder(
            options.venue,
            Subscription { instruments: names, depth: options.depth, trades: options.trades },
        );
        let rules = Rules {
            checksum: decoder.checksum(),
            truncate_at: decoder.truncate_at(),
            has_bbo_stream: decoder.has_bbo_stream(),
        };
        Self {
            decoder,
            rules,
            instruments,
            places,
            marks: options.marks,
            stats: options.stats,
            jitter: options.seed,
            scratch: Scratch::default(),
            events: EventBatch::default(),
            changed: Vec::new(),
            requests: Vec::new(),
            connected: false,
            heard_ns: 0,
            silent: false,
            sent_ns: 0,
            batch_messages: 0,
            batch_began_ns: 0,
        }
    }

    /// The decoder of the venue.
    pub fn decoder(&self) -> &dyn VenueDecoder {
        &*self.decoder
    }

    /// Its instruments.
    pub fn instruments(&self) -> &[InstrumentFeed] {
        &self.instruments
    }

    fn place(&self, id: InstrumentId) -> Option<usize> {
        self.places.get(id.index()).copied().flatten().map(|place| place as usize)
    }

    /// Runs `change` on one instrument and remembers to publish it.
    fn with<R>(
        &mut self,
        place: usize,
        change: impl FnOnce(&mut InstrumentFeed, &EventBatch, &mut Context<'_>) -> R,
    ) -> R {
        let mut context = Context {
            rules: &self.rules,
            stats: &self.stats,
            scratch: &mut self.scratch,
            jitter: &mut self.jitter,
        };
        let instrument = &mut self.instruments[place];
        if !std::mem::replace(&mut instrument.is_queued, true) {
            self.changed.push(place as u32);
        }
        change(instrument, &self.events, &mut context)
    }

    fn with_all(&mut self, mut change: impl FnMut(&mut InstrumentFeed, &mut Context<'_>)) {
        for place in 0..self.instruments.len() {
            self.with(place, |instrument, _, context| change(instrument, context));
        }
    }

    /// The connection is up.
    pub fn on_connected(&mut self, now: Nanos) {
        self.stats.connects.inc();
        self.connected = true;
        self.heard_ns = now;
        self.sent_ns = now;
        self.silent = false;
        let subscribe = self.decoder.subscribe();
        self.requests.extend(subscribe.into_iter().map(Request::Send));
        self.with_all(|instrument, _| {
            instrument.reconnected();
            instrument.begin(now + SUBSCRIBE_ACK_NS);
        });
    }

    /// The connection is down, or could not be made.
    pub fn on_disconnected(&mut self, why: Why, now: Nanos) {
        if std::mem::take(&mut self.connected) {
            self.stats.disconnects.inc();
        }
        self.requests.clear();
        self.with_all(|instrument, _| instrument.disconnected(why, now));
        self.publish(now);
    }

    /// Anything came over the connection, be it only a ping.
    pub fn on_heard(&mut self, now: Nanos) {
        self.heard_ns = now;
        if std::mem::take(&mut self.silent) {
            self.with_all(|instrument, _| instrument.heard(now));
        }
    }

    /// A text message came. It may be overwritten.
    pub fn on_message(&mut self, message: &mut [u8], now: Nanos) {
        self.on_heard(now);
        self.stats.messages.inc();
        self.stats.bytes.inc_by(message.len() as u64);
        if self.batch_messages == 0 {
            self.batch_began_ns = now;
        }
        self.batch_messages += 1;
        self.events.clear();
        match self.decoder.decode(message, &mut self.events) {
            Ok(()) => self.apply_events(now),
            Err(error) => self.on_malformed(&error, now),
        }
    }

    fn apply_events(&mut self, now: Nanos) {
        let events = std::mem::take(&mut self.events.events);
        for event in &events {
            self.apply(event, now);
        }
        self.events.events = events;
    }

    fn apply(&mut self, event: &MarketEvent, now: Nanos) {
        match event {
            MarketEvent::Book(book) => {
                if let Some(place) = self.place(book.instrument) {
                    self.with(place, |instrument, batch, context| {
                        instrument.book(book, batch, now, context);
                    });
                }
            }
            MarketEvent::Bbo(bbo) => {
                if let Some(place) = self.place(bbo.instrument) {
                    self.with(place, |instrument, _, context| instrument.bbo(bbo, now, context));
                }
            }
            MarketEvent::Trades(trades) => {
                if let Some(place) = self.place(trades.instrument) {
                    self.with(place, |instrument, batch, context| {
                        instrument.trades(trades, batch, now, context);
                    });
                }
            }
            MarketEvent::Subscribed { instrument, channel } => {
                if let Some(place) = self.place(*instrument) {
                    self.with(place, |instrument, _, _| instrument.subscribed(*channel, now));
                }
            }
            MarketEvent::Refused { instrument, message } => {
                self.stats.refusals.inc();
                tracing::warn!(%message, "the venue refused a subscription");
                if let Some(place) = instrument.and_then(|id| self.place(id)) {
                    self.with(place, |instrument, _, _| instrument.refused(now));
                }
            }
            MarketEvent::Reply(text) => self.requests.push(Request::Send(text.clone())),
            MarketEvent::Numbered(_)
            | MarketEvent::Heartbeat { .. }
            | MarketEvent::Trading { .. } => {}
            MarketEvent::Shutdown => self.requests.push(Request::Reconnect),
        }
    }

    /// Whatever the message may have been about is marked as wrong, and nothing else.
    fn on_malformed(&mut self, error: &DecodeError, now: Nanos) {
        self.stats.malformed.inc();
        let about = if planted(Mutant::LeakyFault) { None } else { error.about };
        match about {
            Some((id, channel)) => {
                if let Some(place) = self.place(id) {
                    self.with(place, |instrument, _, context| {
                        instrument.lose(channel, Why::MalformedMessage, now, context);
                    });
                }
            }
            None => self.with_all(|instrument, context| {
                for channel in Channel::ALL {
                    instrument.lose(*channel, Why::MalformedMessage, now, context);
                }
            }),
        }
    }

    /// An image that was asked for by [`Request::Image`] came, decoded, or failed (`None`).
    pub fn on_image(&mut self, instrument: InstrumentId, image: Option<EventBatch>, now: Nanos) {
        let Some(place) = self.place(instrument) else { return };
        match image {
            Some(image) if matches!(self.instruments[place].want, ImageWant::Asked(_)) => {
                self.events = image;
                self.apply_events(now);
            }
            // What comes after the connection was lost, or twice, is of no use.
            Some(_) => {}
            None => {
                self.stats.images_refused.inc();
                self.with(place, |instrument, _, context| {
                    let jitter = context.jitter();
                    instrument.image_failed(now, jitter);
                });
            }
        }
    }

    /// Time passes: images are asked for, silence is noticed, the connection is kept alive. To be
    /// called at least at the time that it returned last.
    pub fn on_time(&mut self, now: Nanos) -> Nanos {
        if !self.connected {
            return Nanos::MAX;
        }
        let silence_ns = self.decoder.silence_ns();
        if !self.silent && now >= self.heard_ns + silence_ns {
            self.silent = true;
            self.stats.silences.inc();
            self.with_all(|instrument, _| instrument.silent(now));
        }
        if now >= self.heard_ns + 2 * silence_ns {
            self.requests.push(Request::Reconnect);
        }
        let mut next = self.heard_ns + if self.silent { 2 * silence_ns } else { silence_ns };
        if let Some((text, every_ns)) = self.decoder.keepalive() {
            if now >= self.sent_ns + every_ns {
                self.sent_ns = now;
                self.requests.push(Request::Send(text));
            }
            next = next.min(self.sent_ns + every_ns);
        }
        for place in 0..self.instruments.len() {
            next = next.min(self.want_image(place, now));
        }
        next
    }

    /// Asks for the image of an instrument when it is time; returns when it is time next.
    fn want_image(&mut self, place: usize, now: Nanos) -> Nanos {
        let instrument = &mut self.instruments[place];
        let first = match instrument.want {
            ImageWant::Here | ImageWant::Never => return Nanos::MAX,
            ImageWant::At(at) | ImageWant::Asked(at) if at > now => return at,
            ImageWant::At(_) => !instrument.has_asked(),
            ImageWant::Asked(_) => false,
        };
        let id = instrument.entry().instrument.id;
        let again = now + IMAGE_TIMEOUT_NS;
        instrument.asked(again);
        match self.decoder.resync(id, first) {
            Resync::Rest(path) => self.requests.push(Request::Image { instrument: id, path }),
            Resync::Send(texts) => {
                self.sent_ns = now;
                self.requests.extend(texts.into_iter().map(Request::Send));
            }
        }
        again
    }

    /// The batch is as long as it may become: it must be published now.
    pub fn is_batch_full(&self, now: Nanos) -> bool {
        self.batch_messages >= BATCH_MESSAGES_MAX
            || (self.batch_messages > 0 && now >= self.batch_began_ns + BATCH_NS_MAX)
    }

    /// Ends the batch: publishes every instrument that changed, and wakes the shards that sleep.
    pub fn publish(&mut self, now: Nanos) {
        self.batch_messages = 0;
        let mut published = 0;
        for place in self.changed.drain(..) {
            published += u64::from(self.instruments[place as usize].publish(&self.marks));
        }
        if published == 0 {
            return;
        }
        self.stats.publications.inc_by(published);
        for shard in &self.marks {
            if shard.wake_if_parked(now) {
                self.stats.wakes.inc();
            }
        }
    }

    /// A random number to spread retries with.
    pub fn jitter(&mut self) -> u64 {
        instrument::next_random(&mut self.jitter)
    }

    /// What the feed wants, in order; to be carried out by the caller.
    pub fn take_requests(&mut self) -> Vec<Request> {
        std::mem::take(&mut self.requests)
    }
}
