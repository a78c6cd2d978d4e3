//! The scene of these tests: a feed of two instruments, and a venue that says what a test has written
//! down for it.
//!
//! The tests make one each, and move its time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tickfan::feed::{Feed, Request};
use tickfan::limits::{LARGE_MESSAGE_BYTES, SECOND_NS};
use tickfan::stats::{FeedStats, Stats};
use tickfan::venue::{
    Checksum, DecodeError, ImageDecoder, LargeImage, Malformed, Resync, VenueDecoder,
};
use tickfan_core::decimal::Decimal;
use tickfan_core::market::{
    Aggressor, BboEvent, BookEvent, BookKind, Channel, Continuity, EventBatch, InstrumentId,
    LevelChange, Listing, MarketEvent, Nanos, State, TradeId, TradeNumbering, TradePrint,
    TradesEvent, Trading, Venue, Why,
};
use tickfan_core::snapshot::{Entry, Registry, Snapshot};

use super::feed;

/// An instrument's heartbeat comes at least this often.
pub(super) const HEARTBEAT_NS: Nanos = 3 * SECOND_NS;

/// The checksum of every book.
pub(super) const CHECKSUM: u32 = 7;

/// What the venue is like.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Traits {
    pub(super) has_bbo_stream: bool,
    pub(super) has_checksum: bool,
    pub(super) trades_vouch: bool,
}

pub(super) type Lines = Arc<Mutex<VecDeque<Result<EventBatch, DecodeError>>>>;

/// Says what the test has written down for it.
pub(super) struct Script {
    pub(super) lines: Lines,
    pub(super) traits: Traits,
}

impl VenueDecoder for Script {
    fn stream_path(&self) -> &str {
        "/"
    }

    fn subscribe(&self) -> Vec<String> {
        Vec::new()
    }

    fn resync(&mut self, instrument: InstrumentId, first: bool) -> Resync {
        let text = format!("resync {}", instrument.0);
        Resync::Send(if first { Vec::new() } else { vec![text] })
    }

    fn decode(&mut self, _: &mut [u8], out: &mut EventBatch) -> Result<(), DecodeError> {
        *out = self.lines.lock().unwrap().pop_front().unwrap()?;
        Ok(())
    }

    fn image_decoder(&self) -> ImageDecoder {
        // The test gives images that are decoded.
        Arc::new(|_, _, _| Err(Malformed::NotJson))
    }

    fn has_bbo_stream(&self) -> bool {
        self.traits.has_bbo_stream
    }

    fn checksum(&self) -> Option<Checksum> {
        let compute = |_: &[_], _: &[_], _| CHECKSUM;
        self.traits.has_checksum.then_some(Checksum { levels: 10, compute })
    }

    fn silence_ns(&self) -> Nanos {
        60 * SECOND_NS
    }

    fn keepalive(&self) -> Option<(String, Nanos)> {
        None
    }

    fn truncate_at(&self) -> Option<usize> {
        None
    }

    fn heartbeat_ns(&self) -> Option<Nanos> {
        Some(HEARTBEAT_NS)
    }

    fn trades_vouch(&self) -> bool {
        self.traits.trades_vouch
    }

    /// The bytes: instrument, number (0 = none), and nothing more.
    fn large_image(&self, message: &[u8]) -> Option<LargeImage> {
        let number = Some(u64::from(message[1])).filter(|number| *number > 0);
        Some(LargeImage { instrument: InstrumentId(u32::from(message[0])), number })
    }
}

pub(super) const A: InstrumentId = InstrumentId(0);
pub(super) const B: InstrumentId = InstrumentId(1);

pub(super) type Levels<'a> = &'a [(i64, i64)];

pub(super) fn changes(levels: Levels<'_>) -> impl Iterator<Item = LevelChange> + '_ {
    let whole = |mantissa| Decimal { mantissa, scale: 0 };
    levels.iter().map(move |(px, qty)| LevelChange { px: whole(*px), qty: whole(*qty) })
}

/// A message of the venue.
#[derive(Default)]
pub(super) struct Line(pub(super) EventBatch);

impl Line {
    pub(super) fn numbered(number: u64) -> Self {
        Self::default().event(MarketEvent::Numbered(number))
    }

    pub(super) fn event(mut self, event: MarketEvent) -> Self {
        self.0.events.push(event);
        self
    }

    pub(super) fn book(
        mut self,
        of: InstrumentId,
        kind: BookKind,
        bids: Levels<'_>,
        asks: Levels<'_>,
    ) -> Self {
        let first = self.0.levels.len();
        self.0.levels.extend(changes(bids));
        let middle = self.0.levels.len();
        self.0.levels.extend(changes(asks));
        let end = self.0.levels.len();
        self.event(MarketEvent::Book(BookEvent {
            instrument: of,
            kind,
            bids: first..middle,
            asks: middle..end,
            continuity: None,
            checksum: None,
            te_ns: 0,
            px_digits: 0,
            qty_digits: 0,
            cut_at: None,
        }))
    }

    pub(super) fn image(self, of: InstrumentId) -> Self {
        self.book(of, BookKind::Image, &[(10, 1), (9, 1)], &[(12, 1), (13, 1)])
    }

    pub(super) fn bids(self, of: InstrumentId, bids: Levels<'_>) -> Self {
        self.book(of, BookKind::Delta, bids, &[])
    }

    /// Of the book before it.
    pub(super) fn with(mut self, change: impl FnOnce(&mut BookEvent)) -> Self {
        let Some(MarketEvent::Book(book)) = self.0.events.last_mut() else { panic!("no book") };
        change(book);
        self
    }

    pub(super) fn checksum(self, checksum: u32) -> Self {
        self.with(|book| book.checksum = Some(checksum))
    }

    pub(super) fn linked(self, follows: u64, last: u64) -> Self {
        self.with(|book| book.continuity = Some(Continuity { follows, last }))
    }

    pub(super) fn bbo(self, of: InstrumentId, sequence: u64, bid: (i64, i64)) -> Self {
        let [bid, ask] = [bid, (12, 1)].map(|level| changes(&[level]).next().unwrap());
        let sequence = Some(sequence);
        self.event(MarketEvent::Bbo(BboEvent { instrument: of, bid, ask, sequence, te_ns: 0 }))
    }

    pub(super) fn trade(
        mut self,
        numbering: TradeNumbering,
        number: Option<u64>,
        id: &str,
        te: u64,
    ) -> Self {
        let first = self.0.trades.len();
        self.0.trades.push(TradePrint {
            te_ns: te,
            px: Decimal { mantissa: 10, scale: 0 },
            qty: Decimal { mantissa: 1, scale: 0 },
            aggressor: Aggressor::Buy,
            id: TradeId::Text(id.into()),
            number,
        });
        let trades = first..first + 1;
        self.event(MarketEvent::Trades(TradesEvent { instrument: A, trades, numbering }))
    }

    /// A trade of A, numbered without holes, at a time of its number.
    pub(super) fn numbered_trade(self, number: u64) -> Self {
        self.trade(TradeNumbering::Consecutive, Some(number), &number.to_string(), number)
    }

    pub(super) fn named_trade(self, id: &str) -> Self {
        self.trade(TradeNumbering::None, None, id, 1)
    }

    pub(super) fn heartbeat(self, of: InstrumentId, newest_trade: Option<u64>) -> Self {
        self.event(MarketEvent::Heartbeat { instrument: of, newest_trade })
    }

    pub(super) fn trading(self, of: Option<InstrumentId>, trading: Trading) -> Self {
        self.event(MarketEvent::Trading { instrument: of, trading })
    }
}

pub(super) struct Scene {
    pub(super) feed: Feed,
    pub(super) lines: Lines,
    pub(super) traits: Traits,
    pub(super) entries: Vec<Arc<Entry>>,
    pub(super) stats: FeedStats,
    pub(super) now: Nanos,
}

/// A connection over which nothing came yet.
pub(super) fn scene_of(traits: Traits) -> Scene {
    let natives = [Arc::from("A"), Arc::from("B")];
    let entries = Registry::new(10).register(Venue::Sim, &natives, 7, 1).unwrap();
    let stats = Stats::default().feed(Venue::Sim);
    let lines = Lines::default();
    let options = feed::options(Venue::Sim, &entries, stats.clone());
    let script = Script { lines: Arc::clone(&lines), traits };
    let mut feed = Feed::with_decoder(options, Box::new(script));
    feed.on_connected(SECOND_NS);
    Scene { feed, lines, traits, entries, stats, now: SECOND_NS }
}

/// Both books are live.
pub(super) fn synced_of(traits: Traits) -> Scene {
    let mut scene = scene_of(traits);
    scene.say(Line::default().image(A));
    scene.say(Line::default().image(B));
    for id in [A, B] {
        assert_eq!(scene.state(id, Channel::Book), (State::Live, Why::Synced, 7));
    }
    scene
}

pub(super) fn synced() -> Scene {
    synced_of(Traits::default())
}

impl Scene {
    pub(super) fn say(&mut self, line: Line) {
        self.hear(Ok(line.0));
    }

    pub(super) fn hear(&mut self, line: Result<EventBatch, DecodeError>) {
        self.now += 1_000;
        self.lines.lock().unwrap().push_back(line);
        self.feed.on_message(&mut [0], self.now);
        self.feed.publish(self.now);
    }

    /// A large image of an instrument comes over the stream.
    pub(super) fn say_large(&mut self, of: InstrumentId, number: u8) {
        self.now += 1_000;
        let mut message = vec![0; LARGE_MESSAGE_BYTES + 1];
        (message[0], message[1]) = (of.0 as u8, number);
        self.feed.on_message(&mut message, self.now);
        self.feed.publish(self.now);
    }

    /// The instruments of images that are to be decoded aside, and over which connection they came.
    pub(super) fn decodes(&mut self) -> Vec<(InstrumentId, u32)> {
        let is_decode = |request| match request {
            Request::Decode { instrument, connection, .. } => Some((instrument, connection)),
            _ => None,
        };
        self.feed.take_requests().into_iter().filter_map(is_decode).collect()
    }

    pub(super) fn decoded(&mut self, of: InstrumentId, connection: u32, line: Option<Line>) {
        self.now += 1_000;
        self.feed.on_image(of, connection, line.map(|line| line.0), self.now);
        self.feed.publish(self.now);
    }

    pub(super) fn wait(&mut self, ns: Nanos) {
        self.now += ns;
        self.feed.on_time(self.now);
        self.feed.publish(self.now);
    }

    /// The instruments whose image is asked for.
    pub(super) fn asked(&mut self) -> Vec<String> {
        self.feed.on_time(self.now);
        self.feed.publish(self.now);
        let is_text = |request| match request {
            Request::Send(text) => Some(text),
            _ => None,
        };
        self.feed.take_requests().into_iter().filter_map(is_text).collect()
    }

    pub(super) fn reconnect(&mut self) {
        self.feed.on_disconnected(Why::Disconnected, self.now);
        self.feed.on_connected(self.now);
    }

    pub(super) fn list(&mut self, of: InstrumentId, listing: Option<&Listing>) {
        self.feed.on_listing(of, listing, self.now);
        self.feed.publish(self.now);
    }

    pub(super) fn snapshot(&self, of: InstrumentId) -> Arc<Snapshot> {
        self.entries[of.index()].load()
    }

    pub(super) fn state(&self, of: InstrumentId, channel: Channel) -> (State, Why, u32) {
        let snapshot = self.snapshot(of);
        let status = snapshot.status(channel);
        (status.state, status.why, status.epoch)
    }

    pub(super) fn bids(&self, of: InstrumentId) -> Vec<(i64, i64)> {
        let snapshot = self.snapshot(of);
        snapshot.book.book.bids.iter().map(|level| (level.px.0, level.qty.0)).collect()
    }

    /// How many trades of A came and how many are told as lost.
    pub(super) fn trades(&self) -> (usize, u64) {
        let snapshot = self.snapshot(A);
        (snapshot.trades.tail.len(), snapshot.trades.tail.lost())
    }
}
