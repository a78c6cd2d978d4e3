//! The rules by which venues link their events, through the feed in virtual time: hand-written
//! messages in, states and levels out.

#![allow(clippy::unwrap_used, reason = "a test that cannot set its scene must fail")]

use std::collections::VecDeque;
use std::sync::Arc;

use tickfan::feed::session::line::Turns;
use tickfan::feed::{Feed, Request};
use tickfan::limits::SECOND_NS;
use tickfan::stats::Stats;
use tickfan::venue;
use tickfan_core::market::{Nanos, State, Venue, Why};
use tickfan_core::snapshot::{Entry, Registry, Snapshot};

#[path = "common/feed.rs"]
mod feed;

struct Scene {
    feed: Feed,
    entry: Arc<Entry>,
    now: Nanos,
}

impl Scene {
    fn new(venue: Venue, symbol: &str) -> Self {
        let entries = Registry::new(1).register(venue, &[Arc::from(symbol)], 7, 1).unwrap();
        let options = feed::options(venue, &entries, Stats::default().feed(venue));
        let mut feed = Feed::new(options);
        feed.on_connected(SECOND_NS);
        feed.take_requests();
        Self { feed, entry: Arc::clone(&entries[0]), now: SECOND_NS }
    }

    fn say(&mut self, message: &str) {
        self.now += 1_000;
        self.feed.on_message(&mut message.as_bytes().to_vec(), self.now);
        self.feed.publish(self.now);
    }

    /// The operations that are asked for now, each with the venue's word for it.
    fn asked(&mut self) -> Vec<String> {
        self.feed.on_time(self.now);
        let operation = |request| match request {
            Request::Send(text) => {
                let text: serde_json::Value = serde_json::from_str(&text).unwrap();
                text["op"].as_str().unwrap().to_owned()
            }
            other => panic!("{other:?}"),
        };
        self.feed.take_requests().into_iter().map(operation).collect()
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        self.entry.load()
    }

    fn state(&self) -> (State, Why, u32) {
        let status = self.snapshot().book.status;
        (status.state, status.why, status.epoch)
    }

    fn best_bid(&self) -> Option<i64> {
        self.snapshot().bbo.bid.map(|level| level.px.0)
    }

    fn bids(&self) -> Vec<(i64, i64)> {
        self.snapshot().book.book.bids.iter().map(|level| (level.px.0, level.qty.0)).collect()
    }
}

fn okx(action: &str, bids: &str, checksum: i32, follows: i64, last: i64) -> String {
    format!(
        r#"{{"arg":{{"channel":"books","instId":"BTC-USDT"}},"action":"{action}","data":[{{"asks":[],"bids":[{bids}],"ts":"1597026383085","checksum":{checksum},"prevSeqId":{follows},"seqId":{last}}}]}}"#
    )
}

#[test]
fn at_okx_an_event_follows_the_number_it_names_and_no_other() {
    let mut scene = Scene::new(Venue::Okx, "BTC-USDT");
    scene.say(&okx("snapshot", r#"["10","1","0","1"]"#, 0, -1, 100));
    assert_eq!(scene.state(), (State::Live, Why::Synced, 7));
    scene.say(&okx("update", r#"["9","1","0","1"]"#, 0, 100, 107));
    assert_eq!(scene.bids(), [(10, 1), (9, 1)]);
    let before = scene.snapshot();
    scene.say(&okx("update", "", 0, 107, 107));
    assert!(Arc::ptr_eq(&before, &scene.snapshot()), "a sign of life changes nothing");
    scene.say(&okx("update", r#"["8","1","0","1"]"#, 0, 107, 3));
    scene.say(&okx("update", r#"["7","1","0","1"]"#, 0, 3, 5));
    assert_eq!(scene.bids(), [(10, 1), (9, 1), (8, 1), (7, 1)], "its numbers began anew");
    assert_eq!(scene.state(), (State::Live, Why::Synced, 7));
    assert_eq!(scene.asked(), [""; 0]);

    scene.say(&okx("update", r#"["6","1","0","1"]"#, 0, 9, 12));
    assert_eq!(scene.state(), (State::Gap, Why::SequenceGap, 7));
    assert_eq!(scene.asked(), ["unsubscribe", "subscribe"]);
    scene.say(&okx("snapshot", r#"["11","1","0","1"]"#, 0, -1, 20));
    scene.say(&okx("update", r#"["6","2","0","1"]"#, 0, 20, 24));
    assert_eq!(scene.state(), (State::Live, Why::Synced, 8));
    assert_eq!(scene.bids(), [(11, 1), (6, 2)]);
}

#[test]
fn at_okx_a_checksum_is_held_against_the_book_unless_it_is_zero() {
    let mut scene = Scene::new(Venue::Okx, "BTC-USDT");
    let proof = crc32fast::hash(b"10:1.5").cast_signed();
    scene.say(&okx("snapshot", r#"["10","1.50","0","1"]"#, proof, -1, 100));
    assert_eq!(scene.state(), (State::Live, Why::Synced, 7));
    scene.say(&okx("update", r#"["9","1","0","1"]"#, 0, 100, 107));
    assert_eq!(scene.state(), (State::Live, Why::Synced, 7));
    scene.say(&okx("update", r#"["8","1","0","1"]"#, proof, 107, 110));
    assert_eq!(scene.state(), (State::Gap, Why::ChecksumMismatch, 7));
    assert_eq!(scene.asked(), ["unsubscribe", "subscribe"]);
}

fn bybit(kind: &str, bids: &str, id: u64) -> String {
    format!(
        r#"{{"topic":"orderbook.200.BTCUSDT","type":"{kind}","ts":1672304484978,"data":{{"s":"BTCUSDT","b":[{bids}],"a":[],"u":{id},"seq":{}}},"cts":1672304484976}}"#,
        1000 - id
    )
}

#[test]
fn at_bybit_changes_are_numbered_one_by_one() {
    let mut scene = Scene::new(Venue::BybitLinear, "BTCUSDT");
    scene.say(&bybit("snapshot", r#"["10","1"]"#, 50));
    scene.say(&bybit("delta", r#"["9","1"]"#, 51));
    let before = scene.snapshot();
    scene.say(&bybit("delta", r#"["9","7"]"#, 51));
    assert!(Arc::ptr_eq(&before, &scene.snapshot()), "what came twice changes nothing");
    assert_eq!(scene.asked(), [""; 0]);
    scene.say(&bybit("delta", r#"["8","1"]"#, 53));
    assert_eq!(scene.state(), (State::Gap, Why::SequenceGap, 7));
    assert_eq!(scene.asked(), ["unsubscribe", "subscribe"]);
    scene.say(&bybit("snapshot", r#"["11","1"]"#, 60));
    assert_eq!(scene.state(), (State::Live, Why::Synced, 8));
    assert_eq!(scene.bids(), [(11, 1)]);
}

#[test]
fn at_bybit_an_image_may_come_at_any_time_and_after_a_restart_its_number_is_one() {
    let mut scene = Scene::new(Venue::BybitSpot, "BTCUSDT");
    scene.say(&bybit("snapshot", r#"["10","1"]"#, 50));
    scene.say(&bybit("snapshot", r#"["12","1"]"#, 57));
    scene.say(&bybit("delta", r#"["9","1"]"#, 58));
    assert_eq!(scene.bids(), [(12, 1), (9, 1)]);
    for kind in ["snapshot", "delta"] {
        scene.say(&bybit(kind, r#"["20","1"]"#, 1));
        scene.say(&bybit("delta", r#"["19","1"]"#, 2));
        assert_eq!(scene.bids(), [(20, 1), (19, 1)], "{kind}");
        assert_eq!(scene.best_bid(), Some(20), "{kind}");
    }
    assert_eq!(scene.state(), (State::Live, Why::Synced, 7));
    assert_eq!(scene.asked(), [""; 0]);
}

#[test]
fn an_image_of_the_stream_supersedes_what_waited_though_its_number_is_smaller() {
    let mut scene = Scene::new(Venue::BybitSpot, "BTCUSDT");
    scene.say(&bybit("snapshot", r#"["10","1"]"#, 50));
    scene.say(&bybit("delta", r#"["9","1"]"#, 52));
    scene.say(&bybit("delta", r#"["8","1"]"#, 53));
    assert_eq!(scene.state(), (State::Gap, Why::SequenceGap, 7));
    scene.say(&bybit("snapshot", r#"["20","1"]"#, 1));
    assert_eq!(scene.state(), (State::Live, Why::Synced, 8));
    scene.say(&bybit("delta", r#"["19","1"]"#, 2));
    assert_eq!(scene.bids(), [(20, 1), (19, 1)]);
}

#[test]
fn no_book_that_is_right_is_subscribed_to_anew_because_its_first_request_had_to_wait() {
    const STEP_NS: Nanos = SECOND_NS / 20;
    let endpoints = venue::endpoints(Venue::Okx);
    let names: Vec<Arc<str>> = (0..endpoints.instruments_per_connection)
        .map(|number| format!("S{number}-USDT").into())
        .collect();
    let entries = Registry::new(names.len()).register(Venue::Okx, &names, 7, 1).unwrap();
    let mut feed =
        Feed::new(feed::options(Venue::Okx, &entries, Stats::default().feed(Venue::Okx)));
    let mut now = SECOND_NS;
    feed.on_connected(now);
    feed.take_requests();
    let snapshot =
        |name: &str| okx("snapshot", r#"["10","1","0","1"]"#, 0, -1, 1).replace("BTC-USDT", name);
    for name in &names {
        feed.on_message(&mut snapshot(name).into_bytes(), now);
    }
    // What cannot be read may have been about anything: every book is to be had anew, two texts each.
    feed.on_message(&mut b"{".to_vec(), now);
    feed.publish(now);
    let is_live = |entry: &Arc<Entry>| entry.load().book.status.state == State::Live;
    assert!(!entries.iter().any(is_live));

    let mut turns = Turns::of(&endpoints);
    let mut texts = VecDeque::new();
    let mut asked = 0;
    while now < 5 * 60 * SECOND_NS {
        now += STEP_NS;
        feed.set_texts_wait(!texts.is_empty());
        feed.on_time(now);
        texts.extend(feed.take_requests().into_iter().filter_map(|request| match request {
            Request::Send(text) if text != "ping" => Some(text),
            _ => None,
        }));
        if now >= turns.next_ns()
            && let Some(text) = texts.pop_front()
        {
            turns.take(now);
            let place = names.iter().position(|name| text.contains(&format!("\"{name}\"")));
            let place = place.unwrap();
            assert!(!is_live(&entries[place]), "{}: {text}", names[place]);
            if !text.contains("unsubscribe") {
                asked += 1;
                feed.on_message(&mut snapshot(&names[place]).into_bytes(), now);
            }
        }
        // Others of the connection have something to say.
        feed.on_heard(now);
        feed.publish(now);
    }
    assert!(entries.iter().all(is_live));
    assert_eq!(asked, names.len());
}
