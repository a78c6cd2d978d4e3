//! The feed in virtual time: hand-written venue messages in, published snapshots out.
//!
//! Binance spot is the dialect, two symbols of one connection; what is asked for is answered by the
//! test itself.

#![allow(clippy::unwrap_used, reason = "a test that cannot set its scene must fail")]

use std::sync::Arc;

use tickfan::feed::{Feed, FeedOptions, Request};
use tickfan::limits::{
    BATCH_MESSAGES_MAX, BATCH_NS_MAX, CROSSED_GRACE_NS, IMAGE_BUFFER_EVENTS_MAX, IMAGE_TIMEOUT_NS,
    IMAGES_BEHIND_MAX, SECOND_NS,
};
use tickfan::stats::Stats;
use tickfan_core::decimal::Decimal;
use tickfan_core::market::{
    Channel, EventBatch, Level, Listing, Nanos, Px, Qty, State, Trading, Venue, Why,
};
use tickfan_core::snapshot::{Entry, Registry, Snapshot};

#[path = "common/feed.rs"]
mod feed;

struct Scene {
    feed: Feed,
    entries: Vec<Arc<Entry>>,
    now: Nanos,
}

fn scene() -> Scene {
    let natives = [Arc::from("AAAUSDT"), Arc::from("BBBUSDT")];
    let entries = Registry::new(10).register(Venue::BinanceSpot, &natives, 7, 1).unwrap();
    let stats = Stats::default().feed(Venue::BinanceSpot);
    let options = feed::options(Venue::BinanceSpot, &entries, stats);
    let mut feed = Feed::new(FeedOptions { depth: Some(100), ..options });
    feed.on_connected(SECOND_NS);
    let mut scene = Scene { feed, entries, now: SECOND_NS };
    scene.feed.take_requests();
    scene.say(r#"{"result":null,"id":1}"#);
    scene
}

impl Scene {
    fn say(&mut self, message: &str) {
        self.now += 1_000;
        self.feed.on_message(&mut message.as_bytes().to_vec(), self.now);
        self.feed.publish(self.now);
    }

    fn wait(&mut self, ns: Nanos) {
        self.now += ns;
        self.feed.on_time(self.now);
        self.feed.publish(self.now);
    }

    /// The paths of the images that the feed asks for now.
    fn asked(&mut self) -> Vec<String> {
        self.feed.on_time(self.now);
        let is_image = |request| match request {
            Request::Image { path, .. } => Some(path),
            _ => None,
        };
        self.feed.take_requests().into_iter().filter_map(is_image).collect()
    }

    fn image(&mut self, symbol: usize, last: u64, bids: &str, asks: &str) {
        let body = format!(r#"{{"lastUpdateId":{last},"bids":[{bids}],"asks":[{asks}]}}"#);
        let id = self.entries[symbol].instrument.id;
        let mut image = EventBatch::default();
        self.feed.decoder().image_decoder()(id, &mut body.into_bytes(), &mut image).unwrap();
        self.feed.on_image(id, self.feed.connection(), Some(image), self.now);
        self.feed.publish(self.now);
    }

    fn synced() -> Self {
        let mut scene = scene();
        assert_eq!(scene.asked().len(), 2);
        scene.image(0, 100, r#"["10.0","1"],["9.9","2"]"#, r#"["10.1","3"],["10.2","4"]"#);
        scene.image(1, 500, r#"["5","1"]"#, r#"["6","1"]"#);
        scene
    }

    fn snapshot(&self, symbol: usize) -> Arc<Snapshot> {
        self.entries[symbol].load()
    }

    fn state(&self, symbol: usize, channel: Channel) -> (State, Why, u32) {
        let snapshot = self.snapshot(symbol);
        let status = snapshot.status(channel);
        (status.state, status.why, status.epoch)
    }

    fn bids(&self, symbol: usize) -> Vec<(i64, i64)> {
        let snapshot = self.snapshot(symbol);
        snapshot.book.book.bids.iter().map(|level| (level.px.0, level.qty.0)).collect()
    }
}

fn depth(first: u64, last: u64, bids: &str, asks: &str) -> String {
    depth_of("AAAUSDT", first, last, bids, asks)
}

fn depth_of(symbol: &str, first: u64, last: u64, bids: &str, asks: &str) -> String {
    format!(
        r#"{{"stream":"{}@depth@100ms","data":{{"e":"depthUpdate","E":1700000000000,"s":"{symbol}","U":{first},"u":{last},"b":[{bids}],"a":[{asks}]}}}}"#,
        symbol.to_lowercase()
    )
}

fn ticker(u: u64, bid: &str, ask: &str) -> String {
    format!(
        r#"{{"stream":"aaausdt@bookTicker","data":{{"u":{u},"s":"AAAUSDT","b":"{bid}","B":"1","a":"{ask}","A":"1"}}}}"#
    )
}

fn trade(id: u64) -> String {
    format!(
        r#"{{"stream":"aaausdt@trade","data":{{"e":"trade","E":1700000000000,"s":"AAAUSDT","t":{id},"p":"10.0","q":"1","T":1700000000000,"m":true,"M":true}}}}"#
    )
}

#[test]
fn an_image_and_what_waited_for_it_are_one_change() {
    let mut scene = scene();
    scene.say(&depth(90, 95, r#"["1.0","1"]"#, ""));
    scene.say(&depth(96, 103, r#"["9.9","7"]"#, ""));
    scene.say(&depth(104, 110, r#"["9.8","1"]"#, ""));
    assert_eq!(scene.state(0, Channel::Book).0, State::Syncing);
    scene.asked();
    scene.image(0, 100, r#"["10.0","1"]"#, r#"["10.1","1"]"#);
    assert_eq!(scene.bids(0), [(100, 1), (99, 7), (98, 1)], "the first was in the image");
    let snapshot = scene.snapshot(0);
    assert_eq!((snapshot.version, snapshot.book.sequence), (1, Some(110)));
    assert_eq!(scene.state(0, Channel::Book), (State::Live, Why::Synced, 7));
}

#[test]
fn an_image_older_than_the_stream_is_asked_for_again() {
    let mut scene = scene();
    scene.say(&depth(200, 205, r#"["1","1"]"#, ""));
    scene.asked();
    scene.image(0, 100, r#"["10","1"]"#, "");
    assert_eq!(scene.state(0, Channel::Book).0, State::Syncing);
    scene.wait(SECOND_NS);
    assert_eq!(scene.asked().len(), 1, "the other symbol has asked before");
    scene.image(0, 203, r#"["10","1"]"#, "");
    assert_eq!(scene.bids(0), [(10, 1), (1, 1)]);
}

#[test]
fn a_gap_is_marked_at_once_and_mended_under_a_new_epoch() {
    let mut scene = Scene::synced();
    scene.say(&depth(101, 105, r#"["9.9","0"]"#, ""));
    assert_eq!(scene.bids(0), [(100, 1)]);
    scene.say(&depth(107, 110, r#"["9.5","1"]"#, ""));
    assert_eq!(scene.state(0, Channel::Book), (State::Gap, Why::SequenceGap, 7));
    assert_eq!(scene.state(1, Channel::Book).0, State::Live, "one symbol's trouble is its own");
    assert_eq!(scene.state(0, Channel::Bbo).0, State::Live, "it has its own stream");
    assert_eq!(scene.asked(), ["/api/v3/depth?symbol=AAAUSDT&limit=100"]);
    assert_eq!(scene.asked(), [""; 0], "one resync at a time");
    scene.say(&depth(111, 112, r#"["9.4","1"]"#, ""));
    scene.image(0, 108, r#"["10.0","1"]"#, r#"["10.1","1"]"#);
    assert_eq!(scene.state(0, Channel::Book), (State::Live, Why::Synced, 8));
    assert_eq!(scene.bids(0), [(100, 1), (95, 1), (94, 1)], "joined with what came since");
    let fault = scene.snapshot(0).book.status.fault.unwrap();
    assert_eq!((fault.state, fault.epoch), (State::Gap, 7), "a reader who skipped it still learns");
}

#[test]
fn duplicates_change_nothing() {
    let mut scene = Scene::synced();
    scene.say(&depth(101, 105, r#"["9.9","5"]"#, ""));
    let before = scene.snapshot(0);
    scene.say(&depth(101, 105, r#"["9.9","6"]"#, ""));
    assert!(Arc::ptr_eq(&before, &scene.snapshot(0)), "nothing is published");
}

#[test]
fn a_malformed_message_harms_what_it_is_about_and_no_more() {
    let mut scene = Scene::synced();
    scene.say(r#"{"stream":"aaausdt@depth@100ms","data":{"e":"depthUpdate","s":"AAAUSDT","U":"#);
    assert_eq!(scene.state(0, Channel::Book), (State::Gap, Why::MalformedMessage, 7));
    assert_eq!(scene.state(0, Channel::Trades).0, State::Live);
    assert_eq!(scene.state(1, Channel::Book).0, State::Live);
    scene.say("this could be about anything");
    assert_eq!(scene.state(1, Channel::Book), (State::Gap, Why::MalformedMessage, 7));
}

#[test]
fn a_number_that_does_not_fit_is_never_rounded() {
    let mut scene = Scene::synced();
    scene.say(&depth(101, 105, r#"["99999999999999999999","5"]"#, ""));
    assert_eq!(scene.state(0, Channel::Book).0, State::Gap);
}

#[test]
fn a_finer_price_brings_a_finer_scale_and_an_epoch() {
    let mut scene = Scene::synced();
    assert_eq!(scene.snapshot(0).scales.px, 1);
    scene.say(&depth(101, 105, r#"["9.95","5"]"#, ""));
    assert_eq!(scene.snapshot(0).scales.px, 2);
    assert_eq!(scene.bids(0), [(1000, 1), (995, 5), (990, 2)], "the values are the same");
    for channel in Channel::ALL {
        assert_eq!(scene.state(0, *channel), (State::Live, Why::ScaleChange, 8), "{channel:?}");
    }
}

#[test]
fn a_crossed_book_is_suspect_until_it_is_uncrossed() {
    let mut scene = Scene::synced();
    scene.say(&depth(101, 101, r#"["10.1","1"]"#, ""));
    assert_eq!(scene.state(0, Channel::Book), (State::Suspect, Why::Crossed, 7));
    scene.say(&depth(102, 102, r#"["10.1","0"]"#, ""));
    assert_eq!(scene.state(0, Channel::Book), (State::Live, Why::Uncrossed, 7));
}

#[test]
fn an_image_for_a_book_that_is_served_is_of_use_only_where_it_joins() {
    let mut scene = Scene::synced();
    scene.say(&depth(101, 101, r#"["10.1","1"]"#, ""));
    scene.wait(CROSSED_GRACE_NS - 1);
    assert_eq!(scene.asked(), [""; 0]);
    scene.wait(1);
    assert_eq!(scene.asked(), ["/api/v3/depth?symbol=AAAUSDT&limit=100"]);
    scene.say(&depth(103, 103, r#"["1","1"]"#, ""));
    assert_eq!(scene.state(0, Channel::Book).0, State::Gap, "a hole is a hole all the same");
    scene.wait(SECOND_NS);
    assert_eq!(scene.asked().len(), 1);
    scene.image(0, 103, r#"["10.1","1"]"#, r#"["10.1","1"]"#);
    assert_eq!(scene.state(0, Channel::Book), (State::Suspect, Why::Crossed, 8));

    scene.wait(CROSSED_GRACE_NS);
    scene.wait(SECOND_NS);
    assert_eq!(scene.asked().len(), 1);
    for id in 104..110 {
        scene.say(&depth(id, id, &format!(r#"["1","{id}"]"#), ""));
    }
    let served = scene.snapshot(0);
    assert_eq!(served.book.sequence, Some(109), "it is served meanwhile");
    scene.image(0, 102, r#"["3","1"]"#, "");
    assert!(Arc::ptr_eq(&served, &scene.snapshot(0)), "older than what was kept for it");
    scene.wait(2 * SECOND_NS);
    assert_eq!(scene.asked().len(), 1);
    scene.say(&depth(110, 110, r#"["1","5"]"#, ""));
    scene.image(0, 107, r#"["3","1"]"#, r#"["4","1"]"#);
    let state = scene.state(0, Channel::Book);
    assert_eq!(state, (State::Live, Why::Uncrossed, 8));
    assert_eq!(scene.snapshot(0).version, served.version + 2);
    assert_eq!(scene.bids(0), [(30, 1), (10, 5)], "joined with what came after it");
}

#[test]
fn a_book_whose_subscription_is_refused_or_not_confirmed_is_never_live() {
    let reconnected = || {
        let mut scene = Scene::synced();
        scene.feed.on_disconnected(Why::Disconnected, scene.now);
        scene.feed.on_connected(scene.now);
        scene.feed.take_requests();
        scene
    };
    let mut scene = reconnected();
    scene.say(r#"{"error":{"code":2,"msg":"Invalid request"},"id":1}"#);
    for symbol in [0, 1] {
        assert_eq!(scene.state(symbol, Channel::Book).0, State::Closed);
        assert_eq!(scene.state(symbol, Channel::Bbo).0, State::Closed);
    }
    scene.wait(IMAGE_TIMEOUT_NS);
    assert_eq!(scene.feed.take_requests(), [], "neither an image nor a connection");

    let mut scene = reconnected();
    scene.wait(IMAGE_TIMEOUT_NS - 1_000_000);
    assert_eq!(scene.feed.take_requests(), [], "the venue has its time to answer");
    scene.say(&depth(101, 101, r#"["9.9","9"]"#, ""));
    assert_eq!(scene.asked().len(), 1, "an event is as good as a word");
    scene.wait(SECOND_NS);
    assert!(scene.feed.take_requests().contains(&Request::Reconnect), "of the other none came");
    assert_eq!(scene.state(1, Channel::Book).0, State::Stale);
}

#[test]
fn an_image_that_waits_for_its_turn_is_asked_for_once() {
    let mut scene = scene();
    assert_eq!(scene.asked().len(), 2);
    for _ in 0..60 {
        scene.wait(60 * SECOND_NS);
        // Nothing is the matter with the stream.
        scene.feed.on_heard(scene.now);
        assert_eq!(scene.asked(), [""; 0], "the budget of the venue may take hours");
    }
    let id = scene.entries[0].instrument.id;
    scene.feed.on_image(id, scene.feed.connection(), None, scene.now);
    assert_eq!(scene.asked().len(), 1, "the answer was that there is none");
}

#[test]
fn an_image_that_lags_takes_no_served_book_back_in_time() {
    let mut scene = Scene::synced();
    scene.say(&depth(101, 105, r#"["10.1","1"]"#, ""));
    let served = scene.snapshot(0);
    // One more than a book that is lost would refuse.
    for _ in 0..=IMAGES_BEHIND_MAX {
        scene.wait(10 * SECOND_NS);
        assert_eq!(scene.asked().len(), 1, "it is crossed still");
        scene.image(0, 104, r#"["10.0","1"]"#, r#"["10.1","1"]"#);
        assert!(
            Arc::ptr_eq(&served, &scene.snapshot(0)),
            "nothing came that it could be joined with"
        );
    }
    assert_eq!(scene.state(0, Channel::Book), (State::Suspect, Why::Crossed, 7));
    scene.wait(10 * SECOND_NS);
    assert_eq!(scene.asked().len(), 1);
    scene.image(0, 105, r#"["10.0","1"]"#, r#"["10.1","1"]"#);
    assert_eq!(scene.state(0, Channel::Book), (State::Live, Why::Uncrossed, 7));
}

#[test]
fn a_symbol_that_is_listed_again_may_number_anew() {
    let mut scene = Scene::synced();
    let listing = Listing {
        native: Arc::from("AAAUSDT"),
        base: Arc::from("AAA"),
        quote: Arc::from("USDT"),
        kind: Arc::from("spot"),
        tick: Decimal { mantissa: 1, scale: 1 },
        lot: Decimal { mantissa: 1, scale: 0 },
        trading: Trading::Open,
    };
    let id = scene.entries[0].instrument.id;
    for (listing, state) in [(None, State::Closed), (Some(&listing), State::Syncing)] {
        scene.feed.on_listing(id, listing, scene.now);
        scene.feed.publish(scene.now);
        assert_eq!(scene.state(0, Channel::Book).0, state);
    }
    assert_eq!(scene.asked().len(), 1);
    scene.image(0, 7, r#"["10.0","1"]"#, r#"["10.1","1"]"#);
    assert_eq!(scene.state(0, Channel::Book), (State::Live, Why::Synced, 8));
}

#[test]
fn an_image_of_an_earlier_connection_is_none() {
    let mut scene = scene();
    assert_eq!(scene.asked().len(), 2);
    let earlier = scene.feed.connection();
    scene.feed.on_disconnected(Why::Disconnected, scene.now);
    scene.feed.on_connected(scene.now);
    scene.say(r#"{"result":null,"id":1}"#);
    assert_eq!(scene.asked().len(), 2);
    let id = scene.entries[0].instrument.id;
    let mut image = EventBatch::default();
    let mut body = br#"{"lastUpdateId":100,"bids":[["1","1"]],"asks":[]}"#.to_vec();
    scene.feed.decoder().image_decoder()(id, &mut body, &mut image).unwrap();
    scene.feed.on_image(id, earlier, Some(image), scene.now);
    scene.feed.on_image(id, earlier, None, scene.now);
    scene.feed.publish(scene.now);
    assert_eq!(scene.state(0, Channel::Book).0, State::Syncing);
    assert_eq!(scene.asked(), [""; 0], "the later request is still under way");
    scene.image(0, 100, r#"["10.0","1"]"#, r#"["10.1","1"]"#);
    assert_eq!(scene.state(0, Channel::Book).0, State::Live);
}

#[test]
fn after_a_reconnect_an_image_older_than_what_was_seen_is_asked_for_again_and_not_for_ever() {
    let reconnected = || {
        let mut scene = Scene::synced();
        scene.say(&depth(101, 103, r#"["9.9","9"]"#, ""));
        scene.feed.on_disconnected(Why::Disconnected, scene.now);
        scene.feed.on_connected(scene.now);
        scene.say(r#"{"result":null,"id":1}"#);
        assert_eq!(scene.asked().len(), 2);
        scene
    };
    let old = |scene: &mut Scene| scene.image(0, 102, r#"["9.8","1"]"#, r#"["10.1","1"]"#);
    let mut scene = reconnected();
    old(&mut scene);
    assert_eq!(scene.state(0, Channel::Book).0, State::Stale, "it would take readers back in time");
    assert_eq!(scene.asked().len(), 1);
    scene.image(0, 103, r#"["9.9","9"]"#, r#"["10.1","1"]"#);
    assert_eq!(scene.state(0, Channel::Book), (State::Live, Why::Synced, 8));

    let mut scene = reconnected();
    scene.say(&depth(103, 104, r#"["9.7","1"]"#, ""));
    old(&mut scene);
    assert_eq!(scene.state(0, Channel::Book).0, State::Live, "with what waited it is the newest");

    let mut scene = reconnected();
    for _ in 0..IMAGES_BEHIND_MAX {
        old(&mut scene);
        assert_eq!(scene.state(0, Channel::Book).0, State::Stale);
        scene.wait(10 * SECOND_NS);
        assert!(scene.asked().iter().any(|path| path.contains("AAAUSDT")));
    }
    old(&mut scene);
    assert_eq!(scene.state(0, Channel::Book).0, State::Live, "its numbers began anew");
}

#[test]
fn silence_is_stale_and_speech_without_loss_is_the_same_epoch() {
    let mut scene = Scene::synced();
    scene.wait(61 * SECOND_NS);
    assert_eq!(scene.state(0, Channel::Book), (State::Stale, Why::VenueSilent, 7));
    scene.say(&depth(101, 101, r#"["9.9","9"]"#, ""));
    assert_eq!(scene.state(0, Channel::Book), (State::Live, Why::VenueBack, 7));
    assert_eq!(scene.bids(0)[1], (99, 9));
    scene.wait(121 * SECOND_NS);
    assert!(scene.feed.take_requests().contains(&Request::Reconnect), "it will not come back");
}

#[test]
fn a_ping_is_speech() {
    let mut scene = Scene::synced();
    for _ in 0..10 {
        scene.wait(30 * SECOND_NS);
        scene.feed.on_heard(scene.now);
    }
    assert_eq!(scene.state(0, Channel::Book).0, State::Live);
}

#[test]
fn a_lost_connection_is_stale_and_then_a_new_epoch() {
    let mut scene = Scene::synced();
    scene.say(&ticker(120, "10.0", "10.1"));
    scene.say(&trade(1));
    scene.feed.on_disconnected(Why::Disconnected, scene.now);
    for channel in Channel::ALL {
        assert_eq!(scene.state(0, *channel), (State::Stale, Why::Disconnected, 7));
    }
    scene.feed.on_connected(scene.now);
    scene.say(r#"{"result":null,"id":1}"#);
    scene.say(&ticker(90, "10.0", "10.1"));
    scene.say(&trade(500));
    assert_eq!(scene.asked().len(), 2);
    scene.image(0, 300, r#"["10.0","1"]"#, r#"["10.1","1"]"#);
    for channel in Channel::ALL {
        let (state, _, epoch) = scene.state(0, *channel);
        assert_eq!((state, epoch), (State::Live, 8), "{channel:?}");
    }
    let tail = scene.snapshot(0).trades.tail.clone();
    assert_eq!((tail.newest(), tail.lost()), (500, 498), "what fell out is counted");
}

#[test]
fn the_best_bid_and_offer_is_the_freshest_of_two_and_never_falls_behind() {
    let mut scene = Scene::synced();
    let bbo = |scene: &Scene| {
        let bbo = scene.snapshot(0).bbo;
        (bbo.sequence.unwrap(), bbo.bid.unwrap().px.0)
    };
    assert_eq!(bbo(&scene), (100, 100), "that of the image");
    scene.say(&ticker(110, "10.05", "10.1"));
    assert_eq!(bbo(&scene), (110, 1005), "the stream runs ahead of the book");
    scene.say(&depth(101, 105, r#"["10.0","9"]"#, ""));
    assert_eq!(bbo(&scene), (110, 1005), "the book is behind");
    scene.say(&ticker(107, "9.0", "10.1"));
    assert_eq!(bbo(&scene), (110, 1005), "so is an old line of the stream");
    scene.say(&depth(106, 111, r#"["10.03","1"]"#, ""));
    assert_eq!(bbo(&scene), (111, 1003), "the book has overtaken it");
    let snapshot = scene.snapshot(0);
    assert_eq!(snapshot.bbo.ask, Some(Level { px: Px(1010), qty: Qty(3) }));
}

#[test]
fn skipped_trade_ids_are_counted_and_repeated_ones_left_out() {
    let mut scene = Scene::synced();
    for id in [10, 11, 11, 9, 15] {
        scene.say(&trade(id));
    }
    let tail = scene.snapshot(0).trades.tail.clone();
    assert_eq!((tail.newest(), tail.lost()), (6, 3));
}

#[test]
fn one_event_over_the_buffer_of_an_image_begins_it_anew() {
    let mut scene = scene();
    scene.asked();
    for i in 0..IMAGE_BUFFER_EVENTS_MAX as u64 {
        scene.say(&depth(101 + i, 101 + i, r#"["9","1"]"#, ""));
    }
    scene.say(&depth(101 + IMAGE_BUFFER_EVENTS_MAX as u64, 99_999, r#"["9","1"]"#, ""));
    scene.image(0, 100, r#"["10","1"]"#, "");
    assert_eq!(
        scene.state(0, Channel::Book).0,
        State::Syncing,
        "what was asked for before no longer fits"
    );
    scene.wait(SECOND_NS);
    assert_eq!(scene.asked().len(), 1);
    scene.image(0, 99_999, r#"["10","1"]"#, "");
    assert_eq!(scene.bids(0), [(10, 1)]);
}

#[test]
fn a_batch_ends_by_count_or_by_time() {
    let mut scene = Scene::synced();
    let now = scene.now;
    for i in 0..BATCH_MESSAGES_MAX as u64 {
        assert!(!scene.feed.is_batch_full(now));
        scene.feed.on_message(&mut depth(101 + i, 101 + i, r#"["9","1"]"#, "").into_bytes(), now);
    }
    assert!(scene.feed.is_batch_full(now));
    scene.feed.publish(now);
    scene.feed.on_message(&mut trade(1).into_bytes(), now);
    assert!(!scene.feed.is_batch_full(now + BATCH_NS_MAX - 1));
    assert!(scene.feed.is_batch_full(now + BATCH_NS_MAX));
}
