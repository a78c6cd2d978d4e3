//! What further venues say to the feed, in virtual time: message numbers, heartbeats, halts, listings,
//! trades over several connections, large images, checksums that lie, and a connection handed over.
//!
//! The venue is a script: the test writes the events, and no venue's words are needed.

#![allow(clippy::unwrap_used, reason = "a test that cannot set its scene must fail")]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tickfan::feed::{Feed, FeedOptions, Request};
use tickfan::limits::{
    CROSSED_GRACE_NS, IMAGE_BUFFER_EVENTS_MAX, LARGE_MESSAGE_BYTES, MILLI_NS, MISMATCHES_MAX,
    SECOND_NS, TRADES_COMPARED, TRADES_GRACE_NS,
};
use tickfan::stats::{FeedStats, Stats};
use tickfan::venue::{
    Checksum, DecodeError, ImageDecoder, LargeImage, Malformed, Resync, VenueDecoder,
};
use tickfan_core::decimal::Decimal;
use tickfan_core::market::{
    Aggressor, BboEvent, BookEvent, BookKind, Channel, Continuity, EventBatch, InstrumentId,
    LevelChange, Listing, MarketEvent, Nanos, Scales, State, TradeId, TradeNumbering, TradePrint,
    TradesEvent, Trading, Venue, Why,
};
use tickfan_core::snapshot::{Entry, Registry, Snapshot};

/// An instrument's heartbeat comes at least this often.
const HEARTBEAT_NS: Nanos = 3 * SECOND_NS;

/// The checksum of every book.
const CHECKSUM: u32 = 7;

/// What the venue is like.
#[derive(Debug, Clone, Copy, Default)]
struct Traits {
    has_bbo_stream: bool,
    has_checksum: bool,
}

type Lines = Arc<Mutex<VecDeque<Result<EventBatch, DecodeError>>>>;

/// Says what the test has written down for it.
struct Script {
    lines: Lines,
    traits: Traits,
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

    /// The bytes: instrument, number (0 = none), and nothing more.
    fn large_image(&self, message: &[u8]) -> Option<LargeImage> {
        let number = Some(u64::from(message[1])).filter(|number| *number > 0);
        Some(LargeImage { instrument: InstrumentId(u32::from(message[0])), number })
    }
}

const A: InstrumentId = InstrumentId(0);
const B: InstrumentId = InstrumentId(1);

type Levels<'a> = &'a [(i64, i64)];

fn changes(levels: Levels<'_>) -> impl Iterator<Item = LevelChange> + '_ {
    let whole = |mantissa| Decimal { mantissa, scale: 0 };
    levels.iter().map(move |(px, qty)| LevelChange { px: whole(*px), qty: whole(*qty) })
}

/// A message of the venue.
#[derive(Default)]
struct Line(EventBatch);

impl Line {
    fn numbered(number: u64) -> Self {
        Self::default().event(MarketEvent::Numbered(number))
    }

    fn event(mut self, event: MarketEvent) -> Self {
        self.0.events.push(event);
        self
    }

    fn book(
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

    fn image(self, of: InstrumentId) -> Self {
        self.book(of, BookKind::Image, &[(10, 1), (9, 1)], &[(12, 1), (13, 1)])
    }

    fn bids(self, of: InstrumentId, bids: Levels<'_>) -> Self {
        self.book(of, BookKind::Delta, bids, &[])
    }

    /// Of the book before it.
    fn with(mut self, change: impl FnOnce(&mut BookEvent)) -> Self {
        let Some(MarketEvent::Book(book)) = self.0.events.last_mut() else { panic!("no book") };
        change(book);
        self
    }

    fn checksum(self, checksum: u32) -> Self {
        self.with(|book| book.checksum = Some(checksum))
    }

    fn linked(self, follows: u64, last: u64) -> Self {
        self.with(|book| book.continuity = Some(Continuity { follows, last }))
    }

    fn bbo(self, of: InstrumentId, sequence: u64, bid: (i64, i64)) -> Self {
        let [bid, ask] = [bid, (12, 1)].map(|level| changes(&[level]).next().unwrap());
        let sequence = Some(sequence);
        self.event(MarketEvent::Bbo(BboEvent { instrument: of, bid, ask, sequence, te_ns: 0 }))
    }

    fn trade(mut self, numbering: TradeNumbering, number: Option<u64>, id: &str, te: u64) -> Self {
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
    fn numbered_trade(self, number: u64) -> Self {
        self.trade(TradeNumbering::Consecutive, Some(number), &number.to_string(), number)
    }

    fn named_trade(self, id: &str) -> Self {
        self.trade(TradeNumbering::None, None, id, 1)
    }

    fn heartbeat(self, of: InstrumentId, newest_trade: Option<u64>) -> Self {
        self.event(MarketEvent::Heartbeat { instrument: of, newest_trade })
    }

    fn trading(self, of: Option<InstrumentId>, trading: Trading) -> Self {
        self.event(MarketEvent::Trading { instrument: of, trading })
    }
}

struct Scene {
    feed: Feed,
    lines: Lines,
    traits: Traits,
    entries: Vec<Arc<Entry>>,
    stats: FeedStats,
    now: Nanos,
}

/// A connection over which nothing came yet.
fn scene_of(traits: Traits) -> Scene {
    let natives = [Arc::from("A"), Arc::from("B")];
    let entries = Registry::new(10).register(Venue::Sim, &natives, 7, 1).unwrap();
    let stats = Stats::default().feed(Venue::Sim);
    let lines = Lines::default();
    let options = FeedOptions {
        venue: Venue::Sim,
        instruments: entries.iter().map(|entry| (Arc::clone(entry), None)).collect(),
        depth: None,
        trades: None,
        marks: Vec::new(),
        stats: stats.clone(),
        seed: 1,
    };
    let script = Script { lines: Arc::clone(&lines), traits };
    let mut feed = Feed::with_decoder(options, Box::new(script));
    feed.on_connected(SECOND_NS);
    Scene { feed, lines, traits, entries, stats, now: SECOND_NS }
}

/// Both books are live.
fn synced_of(traits: Traits) -> Scene {
    let mut scene = scene_of(traits);
    scene.say(Line::default().image(A));
    scene.say(Line::default().image(B));
    for id in [A, B] {
        assert_eq!(scene.state(id, Channel::Book), (State::Live, Why::Synced, 7));
    }
    scene
}

fn synced() -> Scene {
    synced_of(Traits::default())
}

impl Scene {
    fn say(&mut self, line: Line) {
        self.hear(Ok(line.0));
    }

    fn hear(&mut self, line: Result<EventBatch, DecodeError>) {
        self.now += 1_000;
        self.lines.lock().unwrap().push_back(line);
        self.feed.on_message(&mut [0], self.now);
        self.feed.publish(self.now);
    }

    /// A large image of an instrument comes over the stream.
    fn say_large(&mut self, of: InstrumentId, number: u8) {
        self.now += 1_000;
        let mut message = vec![0; LARGE_MESSAGE_BYTES + 1];
        (message[0], message[1]) = (of.0 as u8, number);
        self.feed.on_message(&mut message, self.now);
        self.feed.publish(self.now);
    }

    /// The instruments of images that are to be decoded aside, and over which connection they came.
    fn decodes(&mut self) -> Vec<(InstrumentId, u32)> {
        let is_decode = |request| match request {
            Request::Decode { instrument, connection, .. } => Some((instrument, connection)),
            _ => None,
        };
        self.feed.take_requests().into_iter().filter_map(is_decode).collect()
    }

    fn decoded(&mut self, of: InstrumentId, connection: u32, line: Option<Line>) {
        self.now += 1_000;
        self.feed.on_image(of, connection, line.map(|line| line.0), self.now);
        self.feed.publish(self.now);
    }

    fn wait(&mut self, ns: Nanos) {
        self.now += ns;
        self.feed.on_time(self.now);
        self.feed.publish(self.now);
    }

    /// The instruments whose image is asked for.
    fn asked(&mut self) -> Vec<String> {
        self.feed.on_time(self.now);
        self.feed.publish(self.now);
        let is_text = |request| match request {
            Request::Send(text) => Some(text),
            _ => None,
        };
        self.feed.take_requests().into_iter().filter_map(is_text).collect()
    }

    fn reconnect(&mut self) {
        self.feed.on_disconnected(Why::Disconnected, self.now);
        self.feed.on_connected(self.now);
    }

    fn list(&mut self, of: InstrumentId, listing: Option<&Listing>) {
        self.feed.on_listing(of, listing, self.now);
        self.feed.publish(self.now);
    }

    fn snapshot(&self, of: InstrumentId) -> Arc<Snapshot> {
        self.entries[of.index()].load()
    }

    fn state(&self, of: InstrumentId, channel: Channel) -> (State, Why, u32) {
        let snapshot = self.snapshot(of);
        let status = snapshot.status(channel);
        (status.state, status.why, status.epoch)
    }

    fn bids(&self, of: InstrumentId) -> Vec<(i64, i64)> {
        let snapshot = self.snapshot(of);
        snapshot.book.book.bids.iter().map(|level| (level.px.0, level.qty.0)).collect()
    }

    /// How many trades of A came and how many are told as lost.
    fn trades(&self) -> (usize, u64) {
        let snapshot = self.snapshot(A);
        (snapshot.trades.tail.len(), snapshot.trades.tail.lost())
    }
}

#[test]
fn a_hole_in_the_numbers_of_a_connection_is_everybodys() {
    let mut scene = scene_of(Traits::default());
    scene.say(Line::numbered(5).image(A));
    scene.say(Line::numbered(6).image(B));
    scene.say(Line::numbered(7).bids(A, &[(9, 2)]));
    assert_eq!(scene.bids(A), [(10, 1), (9, 2)]);
    scene.say(Line::numbered(9).bids(A, &[(9, 3)]));
    for (id, channel) in [A, B].iter().flat_map(|id| Channel::ALL.iter().map(move |c| (id, c))) {
        let (state, why, epoch) = scene.state(*id, *channel);
        assert_eq!((state, why, epoch), (State::Gap, Why::SequenceGap, 7), "{id:?} {channel:?}");
    }
    assert_eq!(scene.bids(A), [(10, 1), (9, 2)], "marked before anything of the message counts");
    assert_eq!(scene.stats.gaps.get(), 1);
    assert_eq!(scene.asked(), ["resync 0", "resync 1"]);
    scene.say(Line::numbered(10).bids(B, &[(9, 3)]));
    assert_eq!(scene.asked(), [""; 0], "one resync at a time");
    scene.say(Line::numbered(11).image(B));
    assert_eq!(scene.state(B, Channel::Book), (State::Live, Why::Synced, 8));
    assert_eq!(scene.state(B, Channel::Bbo), (State::Live, Why::Synced, 8));
    assert_eq!(scene.state(A, Channel::Book).0, State::Gap);
}

#[test]
fn an_old_message_of_a_connection_is_ignored_whole() {
    let mut scene = scene_of(Traits::default());
    scene.say(Line::numbered(1).image(A));
    scene.say(Line::numbered(2).bids(A, &[(9, 2)]));
    let before = scene.snapshot(A);
    scene.say(Line::numbered(2).bids(A, &[(9, 3)]).numbered_trade(1));
    assert!(Arc::ptr_eq(&before, &scene.snapshot(A)));
    assert_eq!(scene.stats.old_events.get(), 1);
}

#[test]
fn a_numbered_message_that_cannot_be_read_harms_what_it_is_about_and_no_more() {
    let mut scene = scene_of(Traits::default());
    scene.say(Line::numbered(1).image(A));
    scene.say(Line::numbered(2).image(B));
    scene.hear(Err(DecodeError { about: Some((A, Channel::Book)), what: Malformed::NotJson }));
    scene.say(Line::numbered(4).bids(B, &[(9, 2)]));
    assert_eq!(scene.state(A, Channel::Book).0, State::Gap);
    assert_eq!(scene.state(B, Channel::Book).0, State::Live);
}

#[test]
fn numbers_begin_anew_with_each_connection() {
    let mut scene = scene_of(Traits::default());
    scene.say(Line::numbered(100).image(A));
    scene.reconnect();
    scene.say(Line::numbered(1).image(A));
    assert_eq!(scene.state(A, Channel::Book), (State::Live, Why::Synced, 8));
}

#[test]
fn a_missing_heartbeat_is_a_doubt_until_the_next_one() {
    let mut scene = synced();
    scene.wait(10 * HEARTBEAT_NS);
    assert_eq!(scene.state(A, Channel::Book).0, State::Live, "there was never one");
    scene.say(Line::default().heartbeat(A, None));
    scene.wait(HEARTBEAT_NS - 1);
    assert_eq!(scene.state(A, Channel::Book).0, State::Live);
    scene.wait(1);
    let missing = (State::Suspect, Why::HeartbeatMissing, 7);
    assert_eq!(scene.state(A, Channel::Book), missing);
    assert_eq!(scene.state(A, Channel::Bbo), missing, "it hangs on the book");
    assert_eq!(scene.state(B, Channel::Book).0, State::Live);
    scene.say(Line::default().bids(A, &[(9, 5)]));
    assert_eq!(scene.state(A, Channel::Book), missing, "it is served, and as doubtful as before");
    assert_eq!(scene.bids(A)[1], (9, 5));
    assert_eq!(scene.asked(), [""; 0]);
    scene.say(Line::default().heartbeat(A, None));
    for channel in [Channel::Book, Channel::Bbo] {
        assert_eq!(scene.state(A, channel), (State::Live, Why::VenueBack, 7));
    }
    assert_eq!(scene.stats.heartbeats_missed.get(), 1);
}

#[test]
fn a_trade_that_a_heartbeat_names_has_its_time_of_grace() {
    let mut scene = synced();
    scene.say(Line::default().heartbeat(A, Some(3)));
    scene.say(Line::default().numbered_trade(4));
    scene.say(Line::default().heartbeat(A, Some(7)));
    scene.wait(TRADES_GRACE_NS - 1_000_000);
    for number in 5..=7 {
        scene.say(Line::default().numbered_trade(number));
    }
    scene.wait(TRADES_GRACE_NS);
    assert_eq!(scene.trades(), (4, 0), "the heartbeat had overtaken them");
    assert_eq!(scene.state(A, Channel::Book).0, State::Live);

    scene.say(Line::default().heartbeat(A, Some(10)));
    scene.wait(TRADES_GRACE_NS - 1);
    assert_eq!(scene.trades(), (4, 0));
    assert_eq!(scene.asked(), [""; 0]);
    scene.wait(1);
    assert_eq!(scene.trades(), (4, 3));
    assert_eq!(scene.stats.trades_lost.get(), 3);
    assert_eq!(scene.state(A, Channel::Book), (State::Suspect, Why::TradesMissing, 7));
    assert_eq!(scene.asked(), ["resync 0"]);
    scene.say(Line::default().bids(A, &[(9, 5)]));
    assert_eq!(scene.bids(A)[1], (9, 5), "it is served until the image comes");
    scene.say(Line::default().heartbeat(A, Some(10)));
    assert_eq!(scene.state(A, Channel::Book).1, Why::TradesMissing);
    scene.say(Line::default().image(A));
    assert_eq!(scene.state(A, Channel::Book), (State::Live, Why::Synced, 7));
    scene.say(Line::default().numbered_trade(9).numbered_trade(11));
    assert_eq!(scene.trades(), (5, 3), "what was told as lost is not told again");
}

#[test]
fn trades_missed_between_two_connections_are_lost_and_no_doubt() {
    let mut scene = synced();
    scene.say(Line::default().numbered_trade(4));
    scene.reconnect();
    scene.say(Line::default().image(A).image(B));
    scene.say(Line::default().heartbeat(A, Some(6)));
    scene.wait(TRADES_GRACE_NS);
    assert_eq!(scene.trades(), (1, 2));
    assert_eq!(scene.state(A, Channel::Book), (State::Live, Why::Synced, 8));
    assert_eq!(scene.asked(), [""; 0]);
}

#[test]
fn a_book_that_stays_crossed_is_asked_for_anew_and_served_meanwhile() {
    let mut scene = synced();
    scene.say(Line::default().bids(A, &[(12, 1)]));
    assert_eq!(scene.state(A, Channel::Book), (State::Suspect, Why::Crossed, 7));
    scene.wait(CROSSED_GRACE_NS - 1);
    scene.say(Line::default().bids(A, &[(12, 0)]));
    assert_eq!(scene.state(A, Channel::Book), (State::Live, Why::Uncrossed, 7));
    scene.wait(CROSSED_GRACE_NS);
    assert_eq!(scene.asked(), [""; 0], "it was not crossed for long");

    scene.say(Line::default().bids(A, &[(12, 1)]));
    let turned = scene.snapshot(A).bbo.status.changes;
    scene.wait(CROSSED_GRACE_NS);
    assert_eq!(scene.asked(), ["resync 0"]);
    scene.say(Line::default().bids(A, &[(9, 7)]));
    let snapshot = scene.snapshot(A);
    assert_eq!((snapshot.book.status.state, snapshot.bbo.status.changes), (State::Suspect, turned));
    scene.wait(10 * CROSSED_GRACE_NS);
    assert_eq!(scene.asked(), [""; 0]);
    scene.say(Line::default().image(A));
    assert_eq!(scene.state(A, Channel::Book), (State::Live, Why::Uncrossed, 7));
    assert_eq!(scene.bids(A), [(10, 1), (9, 1)], "an image replaces");
}

#[test]
fn an_auction_may_cross() {
    let mut scene = synced();
    scene.say(Line::default().trading(Some(A), Trading::Halted));
    scene.say(Line::default().bids(A, &[(12, 1)]));
    scene.wait(10 * CROSSED_GRACE_NS);
    assert_eq!(scene.state(A, Channel::Book), (State::Halted, Why::Halted, 7));
    assert_eq!(scene.asked(), [""; 0]);
    scene.say(Line::default().trading(Some(A), Trading::Open));
    assert_eq!(scene.state(A, Channel::Book), (State::Suspect, Why::Crossed, 7));
    assert_eq!(scene.asked(), [""; 0]);
    scene.wait(CROSSED_GRACE_NS);
    assert_eq!(scene.asked(), ["resync 0"]);
}

#[test]
fn of_several_doubts_one_is_told_and_the_last_clears_them() {
    let mut scene = synced();
    scene.say(Line::default().heartbeat(A, None));
    scene.wait(HEARTBEAT_NS);
    assert_eq!(scene.state(A, Channel::Book).1, Why::HeartbeatMissing);
    scene.say(Line::default().bids(A, &[(12, 1)]));
    assert_eq!(scene.state(A, Channel::Book), (State::Suspect, Why::Crossed, 7));
    scene.say(Line::default().bids(A, &[(12, 0)]));
    assert_eq!(scene.state(A, Channel::Book), (State::Suspect, Why::HeartbeatMissing, 7));
    scene.say(Line::default().bids(A, &[(12, 1)]));
    scene.say(Line::default().heartbeat(A, None));
    assert_eq!(scene.state(A, Channel::Book), (State::Suspect, Why::Crossed, 7));
    scene.say(Line::default().bids(A, &[(12, 0)]));
    assert_eq!(scene.state(A, Channel::Book), (State::Live, Why::Uncrossed, 7));
}

#[test]
fn a_halt_keeps_updates_flowing_and_ends_with_what_is_right_then() {
    let mut scene = synced();
    scene.say(Line::default().numbered_trade(1));
    scene.say(Line::default().trading(None, Trading::Halted));
    for channel in Channel::ALL {
        assert_eq!(scene.state(A, *channel), (State::Halted, Why::Halted, 7), "{channel:?}");
    }
    assert_eq!(scene.state(B, Channel::Book).0, State::Halted);
    scene.say(Line::default().bids(A, &[(9, 5)]).numbered_trade(2));
    assert_eq!((scene.bids(A)[1], scene.trades().0), ((9, 5), 2));
    assert_eq!(scene.state(A, Channel::Trades).0, State::Halted);
    scene.say(Line::default().trading(None, Trading::Open));
    for channel in Channel::ALL {
        assert_eq!(scene.state(A, *channel), (State::Live, Why::Resumed, 7), "{channel:?}");
    }
}

#[test]
fn a_book_that_comes_back_during_a_halt_is_halted() {
    let mut scene = scene_of(Traits::default());
    scene.say(Line::default().trading(Some(A), Trading::Halted));
    assert_eq!(scene.state(A, Channel::Book).0, State::Syncing);
    scene.say(Line::default().image(A));
    assert_eq!(scene.state(A, Channel::Book), (State::Halted, Why::Halted, 7));
    scene.wait(60 * SECOND_NS);
    assert_eq!(scene.state(A, Channel::Book), (State::Stale, Why::VenueSilent, 7));
    scene.feed.on_heard(scene.now);
    scene.feed.publish(scene.now);
    assert_eq!(scene.state(A, Channel::Book), (State::Halted, Why::Halted, 7));
}

#[test]
fn what_is_delisted_is_closed_and_left_alone() {
    let mut scene = synced();
    scene.say(Line::default().trading(Some(A), Trading::Ended));
    for channel in Channel::ALL {
        assert_eq!(scene.state(A, *channel), (State::Closed, Why::Delisted, 7), "{channel:?}");
    }
    let closed = scene.snapshot(A);
    scene.say(Line::default().image(A).bids(A, &[(9, 5)]).numbered_trade(1).heartbeat(A, Some(9)));
    scene.hear(Err(DecodeError { about: Some((A, Channel::Book)), what: Malformed::NotJson }));
    scene.say_large(A, 0);
    scene.wait(HEARTBEAT_NS);
    assert!(Arc::ptr_eq(&closed, &scene.snapshot(A)), "nothing of it counts any more");
    assert_eq!(scene.feed.take_requests(), []);
    scene.reconnect();
    scene.wait(10 * SECOND_NS);
    assert_eq!(scene.asked(), [""; 0], "nor over another connection");
    assert_eq!(scene.state(A, Channel::Book), (State::Closed, Why::Delisted, 7));
    assert_eq!(scene.state(B, Channel::Book).0, State::Stale);
}

fn listing(tick: &str, trading: Trading) -> Listing {
    Listing {
        native: Arc::from("A"),
        base: Arc::from("A"),
        quote: Arc::from("Q"),
        kind: Arc::from("spot"),
        tick: Decimal::parse(tick.as_bytes()).unwrap(),
        lot: Decimal::parse(b"1").unwrap(),
        trading,
    }
}

#[test]
fn the_list_closes_what_it_no_longer_names_and_begins_it_anew_when_it_does() {
    let mut scene = synced();
    scene.list(A, Some(&listing("1", Trading::Open)));
    assert_eq!(scene.state(A, Channel::Book), (State::Live, Why::Synced, 7));
    scene.list(A, None);
    assert_eq!(scene.state(A, Channel::Book), (State::Closed, Why::Delisted, 7));
    scene.list(A, Some(&listing("1", Trading::Ended)));
    assert_eq!(scene.state(A, Channel::Book), (State::Closed, Why::Delisted, 7));
    assert_eq!(scene.asked(), [""; 0]);
    scene.list(A, Some(&listing("1", Trading::Open)));
    assert_eq!(scene.state(A, Channel::Book), (State::Syncing, Why::Starting, 7));
    assert_eq!(scene.asked(), ["resync 0"]);
    scene.say(Line::default().image(A));
    assert_eq!(scene.state(A, Channel::Book), (State::Live, Why::Synced, 8));
    scene.list(A, Some(&listing("1", Trading::Halted)));
    assert_eq!(scene.state(A, Channel::Book), (State::Halted, Why::Halted, 8));
    scene.list(A, Some(&listing("1", Trading::Open)));
    assert_eq!(scene.state(A, Channel::Book), (State::Live, Why::Resumed, 8));
}

#[test]
fn the_list_repeats_no_halt_that_the_stream_has_ended() {
    let mut scene = synced();
    scene.list(A, Some(&listing("1", Trading::Halted)));
    scene.say(Line::default().trading(Some(A), Trading::Open));
    scene.list(A, Some(&listing("1", Trading::Halted)));
    assert_eq!(scene.state(A, Channel::Book), (State::Live, Why::Resumed, 7));
}

#[test]
fn another_tick_is_another_epoch() {
    let mut scene = synced();
    scene.list(A, Some(&listing("1", Trading::Open)));
    scene.list(A, Some(&listing("0.5", Trading::Open)));
    let snapshot = scene.snapshot(A);
    assert_eq!(snapshot.scales, Scales { px: 1, qty: 0 });
    assert_eq!(scene.bids(A), [(100, 1), (90, 1)]);
    assert_eq!(scene.state(A, Channel::Book), (State::Live, Why::ScaleChange, 8));
    let fault = snapshot.book.status.fault.unwrap();
    assert_eq!((fault.state, fault.why, fault.epoch), (State::Gap, Why::ScaleChange, 7));
    let tick = |scene: &Scene| scene.entries[0].listing().unwrap().tick;
    assert_eq!(tick(&scene), Decimal::parse(b"0.5").unwrap());

    scene.list(A, Some(&listing("5", Trading::Open)));
    assert_eq!(scene.state(A, Channel::Book), (State::Gap, Why::ScaleChange, 8));
    assert_eq!(scene.asked(), ["resync 0"]);
    scene.say(Line::default().image(A));
    assert_eq!(scene.state(A, Channel::Book), (State::Live, Why::Synced, 9));
    assert_eq!(scene.snapshot(A).scales.px, 1, "a scale never shrinks");
    assert_eq!(tick(&scene), Decimal::parse(b"5").unwrap());
}

#[test]
fn numbered_trades_are_counted_over_connections() {
    let mut scene = synced();
    for number in [10, 11] {
        scene.say(Line::default().numbered_trade(number));
    }
    scene.reconnect();
    for number in [10, 11, 14, 14, 15] {
        scene.say(Line::default().numbered_trade(number));
    }
    assert_eq!(scene.trades(), (4, 2));
    let counted = (scene.stats.trades_lost.get(), scene.stats.trades_repeated.get());
    assert_eq!(counted, (2, 3));
    assert_eq!(scene.state(A, Channel::Trades), (State::Live, Why::Synced, 8));
}

#[test]
fn numbers_of_trades_may_begin_anew_with_a_connection() {
    let mut scene = synced();
    let of = |number, te| {
        let id = format!("{number} at {te}");
        Line::default().trade(TradeNumbering::Consecutive, Some(number), &id, te)
    };
    scene.say(of(500, 1_000));
    scene.say(of(3, 2_000));
    assert_eq!(scene.trades(), (1, 0), "not in the middle of one");
    scene.reconnect();
    scene.say(of(499, 999));
    assert_eq!(scene.trades(), (1, 0), "an earlier one is a repetition");
    scene.say(of(2, 2_000));
    scene.say(of(5, 2_001));
    assert_eq!(scene.trades(), (3, 2));
}

#[test]
fn numbers_with_holes_tell_only_repetitions() {
    let mut scene = synced();
    let of = |number: u64| {
        Line::default().trade(TradeNumbering::Rising, Some(number), &number.to_string(), number)
    };
    for number in [10, 20, 20, 15, 30] {
        scene.say(of(number));
    }
    scene.reconnect();
    for number in [20, 30, 70] {
        scene.say(of(number));
    }
    assert_eq!(scene.trades(), (4, 0));
}

#[test]
fn named_trades_that_come_again_over_another_connection_are_left_out() {
    let mut scene = synced();
    for id in ["x", "y", "y"] {
        scene.say(Line::default().named_trade(id));
    }
    assert_eq!(scene.trades(), (3, 0), "one connection is taken at its word");
    scene.reconnect();
    scene.say(Line::default().named_trade("x").named_trade("y").named_trade("z"));
    assert_eq!(scene.trades(), (4, 0));
    scene.say(Line::default().named_trade("x"));
    assert_eq!(scene.trades(), (5, 0), "after the first new one all are");
    for i in 0..TRADES_COMPARED {
        scene.say(Line::default().named_trade(&format!("{i}")));
    }
    scene.reconnect();
    scene.say(Line::default().named_trade("0"));
    scene.say(Line::default().named_trade("z"));
    assert_eq!(scene.trades().0 as u64, 5 + TRADES_COMPARED + 1, "no further back than that");
}

#[test]
fn a_large_image_is_decoded_aside_and_joined_with_what_came_after_it() {
    let mut scene = scene_of(Traits::default());
    scene.say(Line::numbered(1).bids(A, &[(8, 8)]));
    scene.say_large(A, 2);
    let connection = scene.feed.connection();
    assert_eq!(scene.decodes(), [(A, connection)]);
    let received_ns = scene.now;
    scene.say(Line::numbered(3).image(B));
    assert_eq!(scene.state(B, Channel::Book).0, State::Live, "others do not wait");
    scene.say(Line::numbered(4).bids(A, &[(9, 0)]));
    scene.say(Line::numbered(5).bids(A, &[(7, 7)]));
    assert_eq!(scene.state(A, Channel::Book).0, State::Syncing);
    scene.decoded(A, connection, Some(Line::numbered(2).image(A)));
    assert_eq!(scene.state(A, Channel::Book), (State::Live, Why::Synced, 7));
    assert_eq!(scene.bids(A), [(10, 1), (7, 7)], "and not with what came before it");
    assert_eq!(scene.snapshot(A).version, 1, "all of it is one change");
    assert!(scene.snapshot(A).book.tr_ns > received_ns);
    assert_eq!(scene.asked(), [""; 0]);
}

#[test]
fn a_book_that_is_served_is_held_until_its_large_image_is_read() {
    let mut scene = synced();
    scene.say_large(A, 0);
    let connection = scene.feed.connection();
    assert_eq!(scene.decodes().len(), 1);
    let before = scene.snapshot(A);
    scene.say(Line::default().bids(A, &[(7, 7)]));
    assert!(Arc::ptr_eq(&before, &scene.snapshot(A)));
    scene.decoded(A, connection, Some(Line::default().image(A)));
    assert_eq!(scene.bids(A), [(10, 1), (9, 1), (7, 7)]);
    let snapshot = scene.snapshot(A);
    assert_eq!((snapshot.version, snapshot.book.status.epoch), (before.version + 1, 7));
}

#[test]
fn a_large_image_that_cannot_be_read_is_a_malformed_message() {
    let mut scene = synced();
    scene.say_large(A, 0);
    let connection = scene.feed.connection();
    assert_eq!(scene.decodes().len(), 1);
    scene.say(Line::default().bids(A, &[(7, 7)]));
    scene.decoded(A, connection, None);
    assert_eq!(scene.state(A, Channel::Book), (State::Gap, Why::MalformedMessage, 7));
    assert_eq!(scene.asked(), ["resync 0"]);
    scene.say(Line::default().image(A));
    assert_eq!(scene.bids(A), [(10, 1), (9, 1)]);
}

#[test]
fn a_large_image_is_of_no_use_once_anything_was_lost_or_another_came() {
    // A message after it is missing.
    let mut scene = scene_of(Traits::default());
    scene.say_large(A, 1);
    let connection = scene.feed.connection();
    assert_eq!(scene.decodes().len(), 1);
    scene.say(Line::numbered(3).bids(A, &[(7, 7)]));
    scene.decoded(A, connection, Some(Line::default().image(A)));
    assert_eq!(scene.state(A, Channel::Book).0, State::Syncing);
    assert_eq!(scene.asked(), ["resync 0", "resync 1"]);

    // One that is larger still comes after it: one of an instrument at a time.
    scene.say_large(A, 4);
    assert_eq!(scene.decodes().len(), 1);
    scene.say(Line::numbered(5).bids(A, &[(6, 6)]));
    scene.say_large(A, 6);
    assert_eq!(scene.decodes(), []);
    scene.say(Line::numbered(7).bids(A, &[(5, 5)]));
    scene.decoded(A, connection, Some(Line::default().image(A)));
    assert_eq!(scene.state(A, Channel::Book).0, State::Syncing);
    assert_eq!(scene.decodes(), [(A, connection)]);
    scene.decoded(A, connection, Some(Line::default().image(A)));
    assert_eq!(scene.bids(A), [(10, 1), (9, 1), (5, 5)]);

    // A small one comes after it.
    scene.say_large(A, 8);
    assert_eq!(scene.decodes().len(), 1);
    scene.say(Line::numbered(9).bids(A, &[(4, 4)]));
    scene.say(Line::numbered(10).image(A));
    assert_eq!(scene.bids(A), [(10, 1), (9, 1)]);
    scene.say(Line::numbered(11).bids(A, &[(3, 3)]));
    scene.decoded(A, connection, Some(Line::default().image(A)));
    assert_eq!(scene.bids(A), [(10, 1), (9, 1), (3, 3)]);

    // The connection is another.
    scene.say_large(A, 12);
    assert_eq!(scene.decodes().len(), 1);
    scene.reconnect();
    scene.say_large(A, 1);
    assert_eq!(scene.decodes(), [(A, scene.feed.connection())]);
    scene.decoded(A, connection, Some(Line::default().image(A)));
    assert_eq!(scene.state(A, Channel::Book).0, State::Stale);
    scene.decoded(A, scene.feed.connection(), Some(Line::default().image(A)));
    assert_eq!(scene.state(A, Channel::Book).0, State::Live);
}

#[test]
fn one_event_over_the_buffer_of_a_large_image_begins_it_anew() {
    let mut scene = scene_of(Traits::default());
    scene.say_large(A, 0);
    let connection = scene.feed.connection();
    for _ in 0..IMAGE_BUFFER_EVENTS_MAX {
        scene.say(Line::default().bids(A, &[(7, 7)]));
    }
    assert_eq!(scene.stats.buffer_overflows.get(), 0);
    scene.say(Line::default().bids(A, &[(7, 7)]));
    assert_eq!(scene.stats.buffer_overflows.get(), 1);
    scene.decoded(A, connection, Some(Line::default().image(A)));
    assert_eq!(scene.state(A, Channel::Book).0, State::Syncing);
    assert_eq!(scene.asked(), ["resync 0"]);
}

#[test]
fn a_large_message_of_an_old_number_is_ignored() {
    let mut scene = scene_of(Traits::default());
    scene.say(Line::numbered(2).image(A));
    scene.say_large(A, 2);
    assert_eq!(scene.decodes(), []);
    scene.say_large(A, 5);
    assert_eq!(scene.state(B, Channel::Book), (State::Syncing, Why::Starting, 7));
    assert_eq!(scene.state(A, Channel::Book), (State::Gap, Why::SequenceGap, 7));
    assert_eq!(scene.decodes().len(), 1);
}

#[test]
fn a_checksum_that_differs_over_image_after_image_is_asked_no_more() {
    let mut scene = synced_of(Traits { has_checksum: true, ..Traits::default() });
    let wrong = |px| Line::default().bids(A, &[(px, 1)]).checksum(CHECKSUM + 1);
    for i in 1..MISMATCHES_MAX {
        scene.say(wrong(8));
        assert_eq!(scene.state(A, Channel::Book).1, Why::ChecksumMismatch, "{i}");
        scene.wait(SECOND_NS);
        assert_eq!(scene.asked(), ["resync 0"], "{i}");
        scene.say(Line::default().image(A).checksum(CHECKSUM));
        assert_eq!(scene.state(A, Channel::Book).0, State::Live, "{i}");
    }
    let (.., epoch) = scene.state(A, Channel::Book);
    scene.say(wrong(8));
    let off = (State::Suspect, Why::ChecksumOff, epoch);
    assert_eq!((scene.state(A, Channel::Book), scene.bids(A)[2]), (off, (8, 1)), "it is served");
    for px in 1..7 {
        scene.say(wrong(px));
        scene.wait(SECOND_NS);
    }
    assert_eq!(scene.asked(), [""; 0]);
    assert_eq!(scene.state(A, Channel::Book), off);
    assert_eq!(scene.stats.checksums_off.get(), 1);
    scene.say(Line::default().image(B).checksum(CHECKSUM + 1));
    assert_eq!(scene.state(B, Channel::Book).1, Why::ChecksumMismatch, "that is another book");

    scene.reconnect();
    scene.say(Line::default().image(A));
    assert_eq!(scene.state(A, Channel::Book), (State::Live, Why::Synced, epoch + 1));
    scene.say(wrong(8));
    assert_eq!(scene.state(A, Channel::Book).1, Why::ChecksumMismatch);
}

#[test]
fn a_checksum_that_can_be_right_is_believed_however_often_it_differs() {
    let mut scene = synced_of(Traits { has_checksum: true, ..Traits::default() });
    for i in 0..2 * MISMATCHES_MAX {
        scene.say(Line::default().bids(A, &[(8, 1)]).checksum(CHECKSUM + 1));
        assert_eq!(scene.state(A, Channel::Book).1, Why::ChecksumMismatch, "{i}");
        scene.say(Line::default().image(A));
        scene.say(Line::default().bids(A, &[(8, 2)]).checksum(CHECKSUM));
    }
    assert_eq!(scene.stats.checksums_off.get(), 0);
}

#[test]
fn a_book_whose_numbers_begin_anew_goes_on_and_so_does_its_best() {
    let mut scene = scene_of(Traits { has_bbo_stream: true, ..Traits::default() });
    scene.say(Line::default().image(A).linked(0, 100));
    scene.say(Line::default().bbo(A, 110, (11, 1)));
    scene.say(Line::default().bids(A, &[(9, 2)]).linked(100, 5));
    assert_eq!(scene.snapshot(A).book.sequence, Some(5));
    assert_eq!(scene.state(A, Channel::Book), (State::Live, Why::Synced, 7));
    assert_eq!(scene.snapshot(A).bbo.bid.unwrap().px.0, 10);
    scene.say(Line::default().bbo(A, 6, (11, 2)));
    assert_eq!(scene.snapshot(A).bbo.bid.unwrap().qty.0, 2);
    let before = scene.snapshot(A);
    scene.say(Line::default().bids(A, &[]).linked(5, 5));
    assert!(Arc::ptr_eq(&before, &scene.snapshot(A)), "it only shows that it lives");
    assert_eq!(scene.stats.old_events.get(), 0);
    scene.say(Line::default().bids(A, &[(9, 3)]).linked(5, 7));
    assert_eq!(scene.bids(A)[1], (9, 3));
}

/// A successor of the scene's feed that is connected, and its script.
fn successor(scene: &Scene) -> (Feed, Lines) {
    let lines = Lines::default();
    let script = Script { lines: Arc::clone(&lines), traits: scene.traits };
    let mut feed = scene.feed.successor_with(Box::new(script));
    feed.on_connected(scene.now);
    (feed, lines)
}

fn say_to(feed: &mut Feed, lines: &Lines, line: Line, now: Nanos) {
    lines.lock().unwrap().push_back(Ok(line.0));
    feed.on_message(&mut [0], now);
    feed.publish(now);
}

#[test]
fn a_connection_is_handed_over_without_a_trace() {
    let mut scene = synced();
    for number in 1..=3 {
        scene.say(Line::default().numbered_trade(number));
    }
    let (mut next, lines) = successor(&scene);
    let now = scene.now;
    let before = scene.snapshot(A);
    say_to(&mut next, &lines, Line::numbered(70).image(A).numbered_trade(3), now);
    assert!(!next.is_synced());
    say_to(&mut next, &lines, Line::numbered(71).image(B), now);
    assert!(next.is_synced());
    scene.say(Line::default().bids(B, &[(8, 1)]).numbered_trade(4));
    say_to(&mut next, &lines, Line::numbered(72).bids(A, &[(9, 4)]).numbered_trade(4), now);
    say_to(&mut next, &lines, Line::numbered(73).bids(B, &[(8, 1)]).numbered_trade(5), now);
    assert_eq!(scene.snapshot(A).version, before.version + 1, "a successor publishes nothing");

    scene.feed.take_over(next, scene.now);
    scene.lines = lines;
    assert_eq!(scene.bids(A), [(10, 1), (9, 4)]);
    assert_eq!(scene.bids(B), [(10, 1), (9, 1), (8, 1)]);
    assert_eq!(scene.trades(), (5, 0));
    let (a, b) = (scene.snapshot(A), scene.snapshot(B));
    assert_eq!((a.version, b.version), (before.version + 3, 2), "B has changed nothing");
    assert_eq!(a.book.changed, before.version + 3);

    // The numbers of the new connection go on, and a trade that it is behind with comes once.
    scene.say(Line::numbered(74).bids(A, &[(9, 5)]).numbered_trade(5).numbered_trade(6));
    assert_eq!((scene.bids(A)[1], scene.trades()), ((9, 5), (6, 0)));
    for (id, channel) in [(A, Channel::Book), (A, Channel::Bbo), (B, Channel::Book)] {
        assert_eq!(scene.state(id, channel), (State::Live, Why::Synced, 7));
        assert_eq!(scene.snapshot(id).status(channel).fault, None, "never stale, never a gap");
    }
    scene.say(Line::numbered(76).bids(A, &[(9, 6)]));
    assert_eq!(scene.state(A, Channel::Book).0, State::Gap, "its holes are ours");
    assert_eq!(scene.stats.trades_lost.get(), 0);
    let connections = (scene.stats.connects.get(), scene.stats.disconnects.get());
    assert_eq!(connections, (2, 1));
}

#[test]
fn what_the_new_connection_has_not_got_is_lost_like_anything_else() {
    let mut scene = synced();
    let (mut next, lines) = successor(&scene);
    say_to(&mut next, &lines, Line::default().image(B), scene.now);
    scene.feed.take_over(next, scene.now);
    scene.lines = lines;
    assert_eq!(scene.state(A, Channel::Book), (State::Gap, Why::Reconnected, 7));
    assert_eq!(scene.state(B, Channel::Book), (State::Live, Why::Synced, 7));
    scene.say(Line::default().image(A));
    assert_eq!(scene.state(A, Channel::Book), (State::Live, Why::Synced, 8));
}

#[test]
fn what_was_wrong_comes_right_with_the_new_connection() {
    let mut scene = synced();
    let (mut next, lines) = successor(&scene);
    say_to(&mut next, &lines, Line::default().image(A).image(B), scene.now);
    scene.feed.on_disconnected(Why::Disconnected, scene.now);
    assert_eq!(scene.state(A, Channel::Book).0, State::Stale);
    scene.feed.take_over(next, scene.now + 1);
    assert_eq!(scene.state(A, Channel::Book), (State::Live, Why::Synced, 8));
}

#[test]
fn the_fresher_of_two_numbered_books_goes_on() {
    let traits = Traits { has_bbo_stream: true, ..Traits::default() };
    let mut scene = scene_of(traits);
    scene.say(Line::default().image(A).linked(0, 100).image(B).linked(0, 100));
    let (mut next, lines) = successor(&scene);
    let now = scene.now + 500;
    say_to(&mut next, &lines, Line::default().image(A).linked(0, 102), now);
    say_to(&mut next, &lines, Line::default().image(B).linked(0, 102), now);
    scene.say(Line::default().bids(A, &[(9, 4)]).linked(100, 105));
    scene.say(Line::default().bbo(A, 106, (11, 6)));
    say_to(&mut next, &lines, Line::default().bbo(B, 107, (11, 7)), now);
    let before = scene.snapshot(A);
    scene.feed.take_over(next, scene.now);
    scene.lines = lines;
    assert_eq!((scene.snapshot(A).version, scene.bids(A)[1]), (before.version, (9, 4)));
    assert_eq!(scene.snapshot(A).book.sequence, Some(105));
    assert_eq!(scene.snapshot(A).bbo.sequence, Some(106));
    assert_eq!(scene.snapshot(B).book.sequence, Some(102));
    assert_eq!(scene.snapshot(B).bbo.bid.unwrap().qty.0, 7);
    // The new connection is behind, and cuts its events at other places.
    scene.say(Line::default().bids(A, &[(9, 3)]).linked(102, 104));
    scene.say(Line::default().bids(A, &[(9, 5)]).linked(104, 108));
    assert_eq!(scene.bids(A)[1], (9, 5));
    assert_eq!(scene.state(A, Channel::Book), (State::Live, Why::Synced, 7));
}

#[test]
fn named_trades_are_handed_over_once_and_none_is_left_out() {
    let mut scene = synced();
    for id in ["a", "b"] {
        scene.say(Line::default().named_trade(id));
    }
    let (mut next, lines) = successor(&scene);
    for id in ["b", "c", "d", "e"] {
        say_to(&mut next, &lines, Line::default().named_trade(id), scene.now);
    }
    scene.say(Line::default().named_trade("c"));
    say_to(&mut next, &lines, Line::default().image(A).image(B), scene.now);
    scene.feed.take_over(next, scene.now);
    scene.lines = lines;
    scene.say(Line::default().named_trade("e").named_trade("f"));
    let snapshot = scene.snapshot(A);
    let ids: Vec<_> = snapshot.trades.tail.after(0).map(|trade| trade.id.clone()).collect();
    assert_eq!(ids, ["a", "b", "c", "d", "e", "f"].map(|id| TradeId::Text(id.into())));
}

#[test]
fn trades_that_neither_connection_brought_are_lost() {
    let mut scene = synced();
    scene.say(Line::default().numbered_trade(1));
    let (mut next, lines) = successor(&scene);
    for number in [4, 5, 8] {
        say_to(&mut next, &lines, Line::default().numbered_trade(number), scene.now);
    }
    say_to(&mut next, &lines, Line::default().image(A).image(B), scene.now);
    scene.feed.take_over(next, scene.now);
    assert_eq!(scene.trades(), (4, 4));
    assert_eq!(scene.stats.trades_lost.get(), 4);
    let snapshot = scene.snapshot(A);
    assert_eq!(snapshot.trades.tail.newest(), 8, "numbers go on beside those of the venue");
}

#[test]
fn a_successor_with_a_finer_scale_brings_it() {
    let mut scene = synced();
    let (mut next, lines) = successor(&scene);
    let fine = Decimal { mantissa: 95, scale: 1 };
    let mut line = Line::default().image(A).image(B).bids(A, &[(9, 9)]);
    line.0.levels.last_mut().unwrap().px = fine;
    say_to(&mut next, &lines, line, scene.now);
    scene.wait(MILLI_NS);
    scene.feed.take_over(next, scene.now);
    assert_eq!(scene.bids(A), [(100, 1), (95, 9), (90, 1)]);
    assert_eq!(scene.state(A, Channel::Book), (State::Live, Why::ScaleChange, 8));
    assert_eq!(scene.state(B, Channel::Book), (State::Live, Why::Synced, 7));
}
