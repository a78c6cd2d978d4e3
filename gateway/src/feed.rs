//! The feed: venue messages in, published snapshots out. Owns every book of its instruments.
//!
//! [`Feed`] is pure: a function of bytes and times, driven by the session on the feed thread and by
//! the tests in virtual time. It never waits, and what it wants from the world (an image, a text to
//! send, a new connection) it leaves as [`Request`]s.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tickfan_core::market::{
    Channel, EventBatch, InstrumentId, Listing, MarketEvent, Nanos, Scales, Venue, Why,
};
use tickfan_core::snapshot::Entry;
use tickfan_core::snapshot::marks::Marks;

pub mod sequencer;
pub mod instrument;
pub mod tls;
pub mod rest;
pub mod session;

use instrument::{Context, ImageWant, InstrumentFeed, Outcome, Rules, Scratch};
use sequencer::{MessageNumbers, Verdict};

use crate::limits::{
    BATCH_MESSAGES_MAX, BATCH_NS_MAX, IMAGE_TIMEOUT_NS, LARGE_MESSAGE_BYTES, SUBSCRIBE_ACK_NS,
};
use crate::mutant::{Mutant, planted};
use crate::stats::{Counter, FeedStats};
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
        /// Over which connection its events come; to be given back.
        connection: u32,
    },
    /// Decode this message of the stream, aside, as the image of the instrument, and give it to
    /// [`Feed::on_image`].
    Decode {
        /// Of which instrument.
        instrument: InstrumentId,
        /// The message.
        message: Vec<u8>,
        /// Over which connection it came; to be given back.
        connection: u32,
    },
    /// Send this text on the stream.
    Send(String),
    /// The venue waits for this text: send it before all others.
    Answer(String),
    /// The venue will end the connection: make a new one first.
    HandOver,
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

impl FeedOptions {
    fn subscription(&self) -> Subscription {
        let name = |(entry, _): &(Arc<Entry>, _)| {
            (entry.instrument.id, Arc::clone(&entry.instrument.native))
        };
        let instruments = self.instruments.iter().map(name).collect();
        Subscription { instruments, depth: self.depth, trades: self.trades }
    }
}

/// The instruments of one connection to one venue.
pub struct Feed {
    venue: Venue,
    subscription: Subscription,
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
    /// The events stand where the stream has them, so that an image holds all that came before it.
    is_in_order: bool,
    /// Places of instruments with something to publish, in the order of their first change.
    changed: Vec<u32>,
    requests: Vec<Request>,
    /// How many connections were made, be it for a successor.
    connections: Arc<AtomicU32>,
    /// Which of them this one is.
    connection: u32,
    numbers: MessageNumbers,
    /// It is not the successor of another.
    publishes: bool,
    connected: bool,
    heard_ns: Nanos,
    silent: bool,
    sent_ns: Nanos,
    /// Texts that it wants to be sent wait for their turn.
    texts_wait: bool,
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
        let decoder = venue::decoder(options.venue, options.subscription());
        Self::with_decoder(options, decoder)
    }

    /// The same with a decoder of the caller's.
    pub fn with_decoder(options: FeedOptions, decoder: Box<dyn VenueDecoder>) -> Self {
        let subscription = options.subscription();
        let mut places = Vec::new();
        let mut instruments = Vec::new();
        for (entry, scales) in options.instruments {
            let id = entry.instrument.id;
            if places.len() <= id.index() {
                places.resize(id.index() + 1, None);
            }
            places[id.index()] = Some(instruments.len() as u32);
            instruments.push(InstrumentFeed::new(entry, scales));
        }
        Self {
            venue: options.venue,
            subscription,
            rules: Rules::of(&*decoder),
            decoder,
            instruments,
            places,
            marks: options.marks,
            stats: options.stats,
            jitter: options.seed,
            scratch: Scratch::default(),
            events: EventBatch::default(),
            is_in_order: false,
            changed: Vec::new(),
            requests: Vec::new(),
            connections: Arc::default(),
            connection: 0,
            numbers: MessageNumbers::default(),
            publishes: true,
            connected: false,
            heard_ns: 0,
            silent: false,
            sent_ns: 0,
            texts_wait: false,
            batch_messages: 0,
            batch_began_ns: 0,
        }
    }

    /// A feed of the same instruments for a connection that is made beside this one's. It publishes
    /// nothing, until [`Feed::take_over`] makes it part of this one.
    pub fn successor(&self) -> Self {
        self.successor_with(venue::decoder(self.venue, self.subscription.clone()))
    }

    /// The same with a decoder of the caller's.
    pub fn successor_with(&self, decoder: Box<dyn VenueDecoder>) -> Self {
        let options = FeedOptions {
            venue: self.venue,
            instruments: Vec::new(),
            depth: self.subscription.depth,
            trades: self.subscription.trades,
            marks: Vec::new(),
            // Trades are counted once, by who publishes them.
            stats: FeedStats {
                trades_lost: Counter::default(),
                trades_repeated: Counter::default(),
                ..self.stats.clone()
            },
            seed: !self.jitter,
        };
        Self {
            subscription: self.subscription.clone(),
            instruments: self.instruments.iter().map(InstrumentFeed::successor).collect(),
            places: self.places.clone(),
            connections: Arc::clone(&self.connections),
            publishes: false,
            ..Self::with_decoder(options, decoder)
        }
    }

    /// Of a successor: every book that is served is right over this connection too.
    pub fn is_synced(&self) -> bool {
        self.instruments.iter().all(|instrument| {
            let is_served = instrument.entry().load().book.status.state.flows();
            !is_served || instrument.next().book.status.state.flows()
        })
    }

    /// Goes on over the connection of a successor; that of before is to be closed. Books that are
    /// right over both change at most their levels, and no trade is lost or told twice.
    pub fn take_over(&mut self, mut successor: Self, now: Nanos) {
        // Silence makes nothing wrong: its books are taken as they are, and are as stale as they were.
        let (heard_ns, is_silent) = (successor.heard_ns, successor.silent);
        successor.on_heard(now);
        if self.connected {
            self.stats.disconnects.inc();
        }
        self.decoder = successor.decoder;
        self.connection = successor.connection;
        self.numbers = successor.numbers;
        self.requests = successor.requests;
        self.connected = successor.connected;
        self.heard_ns = heard_ns;
        self.silent = is_silent;
        self.sent_ns = successor.sent_ns;
        for (place, new) in successor.instruments.into_iter().enumerate() {
            self.with(place, |instrument, _, context| instrument.take_over(new, now, context));
        }
        if is_silent {
            self.with_all(|instrument, _| instrument.silent(now));
        }
        self.publish(now);
    }

    /// The number of the connection, as it stands in requests.
    pub const fn connection(&self) -> u32 {
        self.connection
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
            is_in_order: self.is_in_order,
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
        self.connection = self.connections.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        self.numbers = MessageNumbers::default();
        self.heard_ns = now;
        self.sent_ns = now;
        self.silent = false;
        let subscribe = self.decoder.subscribe();
        self.requests.extend(subscribe.into_iter().map(Request::Send));
        // An image on the stream shows that its events will come; one that is fetched must wait for
        // them, or for the word of the venue.
        let patience_ns =
            if self.rules.images_in_order { SUBSCRIBE_ACK_NS } else { IMAGE_TIMEOUT_NS };
        self.with_all(|instrument, _| {
            instrument.begin(now + patience_ns, now);
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
            self.with_all(|instrument, context| instrument.heard(now, context.rules));
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
        if message.len() > LARGE_MESSAGE_BYTES
            && let Some(image) = self.decoder.large_image(message)
            && let Some(place) = self.place(image.instrument)
        {
            if image.number.is_none_or(|number| self.follows(number, now)) {
                self.set_aside(place, message, now);
            }
            return;
        }
        self.events.clear();
        self.is_in_order = true;
        match self.decoder.decode(message, &mut self.events) {
            Ok(()) => self.apply_events(now),
            Err(error) => self.on_malformed(&error, now),
        }
    }

    fn apply_events(&mut self, now: Nanos) {
        let events = std::mem::take(&mut self.events.events);
        for event in &events {
            if let MarketEvent::Numbered(number) = event
                && !self.follows(*number, now)
            {
                break;
            }
            self.apply(event, now);
        }
        self.events.events = events;
    }

    /// Judges the number of a message: false when it came before. When others are missing between,
    /// everything of the connection is marked before it is applied.
    fn follows(&mut self, number: u64, now: Nanos) -> bool {
        match self.numbers.judge(number) {
            Verdict::Apply | Verdict::Early => true,
            Verdict::Old => {
                self.stats.old_events.inc();
                false
            }
            Verdict::Gap { .. } if planted(Mutant::NoNumberCheck) => true,
            Verdict::Gap { .. } => {
                self.stats.gaps.inc();
                self.with_all(|instrument, context| {
                    instrument.lose_all(Why::SequenceGap, now, context);
                });
                true
            }
        }
    }

    /// A message is one large image: others must not wait until it is read.
    fn set_aside(&mut self, place: usize, message: &[u8], now: Nanos) {
        let first = self.with(place, |instrument, _, _| instrument.set_aside(message, now));
        if let Some(message) = first {
            self.ask_decode(place, message);
        }
    }

    fn ask_decode(&mut self, place: usize, message: Vec<u8>) {
        let instrument = self.instruments[place].entry().instrument.id;
        let connection = self.connection;
        self.requests.push(Request::Decode { instrument, message, connection });
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
                    self.with(place, |instrument, _, context| {
                        instrument.subscribed(*channel, now, context.rules);
                    });
                }
            }
            MarketEvent::Refused { instrument, message } => {
                self.stats.refusals.inc();
                tracing::warn!(%message, "the venue refused a subscription");
                if let Some(place) = instrument.and_then(|id| self.place(id)) {
                    self.with(place, |instrument, _, _| instrument.refused(now));
                }
            }
            MarketEvent::Reply(text) => self.requests.push(Request::Answer(text.clone())),
            // Judged before the rest of its message.
            MarketEvent::Numbered(_) => {}
            MarketEvent::Heartbeat { instrument, newest_trade } => {
                if let Some(place) = self.place(*instrument) {
                    self.with(place, |instrument, _, context| {
                        instrument.heartbeat(*newest_trade, now, context);
                    });
                }
            }
            MarketEvent::Trading { instrument: None, trading } => {
                self.with_all(|instrument, context| {
                    instrument.trades_with_all(*trading, now, context);
                });
            }
            MarketEvent::Trading { instrument: Some(id), trading } => {
                if let Some(place) = self.place(*id) {
                    self.with(place, |instrument, _, context| {
                        instrument.trades_as(*trading, true, now, context);
                    });
                }
            }
            MarketEvent::Shutdown => self.requests.push(Request::HandOver),
        }
    }

    /// Whatever the message may have been about is marked as wrong, and nothing else.
    fn on_malformed(&mut self, error: &DecodeError, now: Nanos) {
        self.stats.malformed.inc();
        self.numbers.unreadable();
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

    /// The image of a [`Request::Image`] or [`Request::Decode`] is there, decoded, or failed (`None`).
    pub fn on_image(
        &mut self,
        instrument: InstrumentId,
        connection: u32,
        image: Option<EventBatch>,
        now: Nanos,
    ) {
        let Some(place) = self.place(instrument) else { return };
        if connection != self.connection || !self.connected {
            // Its events came over a connection that is gone.
            return;
        }
        self.is_in_order = false;
        if self.instruments[place].has_aside() {
            return self.on_decoded(place, image, now);
        }
        match image {
            Some(image) if matches!(self.instruments[place].want.image, ImageWant::Asked(_)) => {
                self.events = image;
                self.apply_events(now);
            }
            // What comes twice is of no use.
            Some(_) => {}
            None => {
                self.stats.images_refused.inc();
                self.with(place, |instrument, _, context| {
                    let jitter = context.jitter();
                    instrument.want.failed(now, jitter);
                });
            }
        }
    }

    fn on_decoded(&mut self, place: usize, image: Option<EventBatch>, now: Nanos) {
        match (self.instruments[place].end_aside(), image) {
            (Outcome::Replaced(message), _) => self.ask_decode(place, message),
            (Outcome::Useless, _) => {}
            (Outcome::Wanted, Some(image)) => {
                self.events = image;
                // Its number was judged when it came.
                self.events.events.retain(|event| !matches!(event, MarketEvent::Numbered(_)));
                self.apply_events(now);
            }
            (Outcome::Wanted, None) => {
                self.with(place, |instrument, _, context| instrument.fail_aside(now, context));
            }
        }
    }

    /// The venue's instrument list was read again; `None` = the instrument is not in it.
    pub fn on_listing(&mut self, instrument: InstrumentId, listing: Option<&Listing>, now: Nanos) {
        let Some(place) = self.place(instrument) else { return };
        let is_connected = self.connected;
        self.with(place, |instrument, _, context| {
            instrument.listed_as(listing, is_connected, now, context);
        });
    }

    /// Whether texts that it wanted to be sent wait for their turn: what they ask for cannot come yet.
    pub const fn set_texts_wait(&mut self, texts_wait: bool) {
        self.texts_wait = texts_wait;
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
            if self.instruments[place].due_ns() <= now {
                self.with(place, |instrument, _, context| instrument.on_time(now, context));
            }
            next = next.min(self.instruments[place].due_ns()).min(self.want_image(place, now));
        }
        next
    }

    /// Asks for the image of an instrument when it is time; returns when it is time next.
    fn want_image(&mut self, place: usize, now: Nanos) -> Nanos {
        let instrument = &self.instruments[place];
        let first = match instrument.want.image {
            ImageWant::Here | ImageWant::Never => return Nanos::MAX,
            ImageWant::At(at) | ImageWant::Asked(at) if at > now => return at,
            ImageWant::At(_) if !self.rules.images_in_order && !instrument.want.is_subscribed => {
                // Neither came: the connection may never bring any.
                self.requests.push(Request::Reconnect);
                return now + IMAGE_TIMEOUT_NS;
            }
            ImageWant::At(_) if instrument.want.has_asked && instrument.is_cleared() => {
                self.instruments[place].want.cleared(now);
                return Nanos::MAX;
            }
            ImageWant::At(_) => !instrument.want.has_asked,
            ImageWant::Asked(_) if self.texts_wait => {
                // The text for it may be among them. A second one would end the subscription that the
                // first begins, when the book is right by then.
                let again = now + IMAGE_TIMEOUT_NS;
                self.instruments[place].want.asked(again);
                return again;
            }
            ImageWant::Asked(_) => false,
        };
        let id = instrument.entry().instrument.id;
        let again = match self.decoder.resync(id, first) {
            Resync::Rest(path) => {
                let connection = self.connection;
                self.requests.push(Request::Image { instrument: id, path, connection });
                // However long it waits for its turn, an answer comes, be it that there is none.
                Nanos::MAX
            }
            Resync::Send(texts) => {
                self.sent_ns = now;
                self.requests.extend(texts.into_iter().map(Request::Send));
                if !first {
                    self.instruments[place].ends_stream();
                }
                now + IMAGE_TIMEOUT_NS
            }
        };
        self.instruments[place].want.asked(again);
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
        if !self.publishes {
            return;
        }
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
