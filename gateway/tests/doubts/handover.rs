//! A connection handed over to another: what both brought is told once, and what neither brought is lost.

use std::sync::Arc;

use tickfan::feed::Feed;
use tickfan::limits::{HAND_OVER_LAG_NS_MAX, MILLI_NS, SECOND_NS};
use tickfan_core::decimal::Decimal;
use tickfan_core::market::{Channel, Nanos, State, TradeId, Trading, Why};

use super::scene::{A, B, Line, Lines, Scene, Script, Traits, scene_of, synced, synced_of};

/// A connection that is to take the place of the scene's.
struct Successor {
    feed: Feed,
    lines: Lines,
}

impl Successor {
    /// It is connected, and nothing has come yet.
    fn of(scene: &Scene) -> Self {
        let lines = Lines::default();
        let script = Script { lines: Arc::clone(&lines), traits: scene.traits };
        let mut feed = scene.feed.successor_with(Box::new(script));
        feed.on_connected(scene.now);
        Self { feed, lines }
    }

    /// It has both books.
    fn synced(scene: &Scene) -> Self {
        let mut next = Self::of(scene);
        next.say(Line::default().image(A).image(B), scene.now);
        next
    }

    fn say(&mut self, line: Line, now: Nanos) {
        self.lines.lock().unwrap().push_back(Ok(line.0));
        self.feed.on_message(&mut [0], now);
        self.feed.publish(now);
    }

    /// From now on the scene speaks over it.
    fn take_over(self, scene: &mut Scene) {
        scene.feed.take_over(self.feed, scene.now);
        scene.lines = self.lines;
    }
}

#[test]
fn a_connection_is_handed_over_without_a_trace() {
    let mut scene = synced();
    for number in 1..=3 {
        scene.say(Line::default().numbered_trade(number));
    }
    let mut next = Successor::of(&scene);
    let now = scene.now;
    let before = scene.snapshot(A);
    next.say(Line::numbered(70).image(A).numbered_trade(3), now);
    assert!(!next.feed.is_synced());
    next.say(Line::numbered(71).image(B), now);
    assert!(next.feed.is_synced());
    scene.say(Line::default().bids(B, &[(8, 1)]).numbered_trade(4));
    next.say(Line::numbered(72).bids(A, &[(9, 4)]).numbered_trade(4), now);
    next.say(Line::numbered(73).bids(B, &[(8, 1)]).numbered_trade(5), now);
    assert_eq!(scene.snapshot(A).version, before.version + 1, "a successor publishes nothing");

    next.take_over(&mut scene);
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
    let mut next = Successor::of(&scene);
    next.say(Line::default().image(B), scene.now);
    next.take_over(&mut scene);
    assert_eq!(scene.state(A, Channel::Book), (State::Gap, Why::Reconnected, 7));
    assert_eq!(scene.state(B, Channel::Book), (State::Live, Why::Synced, 7));
    scene.say(Line::default().image(A));
    assert_eq!(scene.state(A, Channel::Book), (State::Live, Why::Synced, 8));
}

#[test]
fn a_connection_that_is_silent_is_taken_over_as_stale_and_goes_on() {
    let mut scene = synced();
    let mut next = Successor::synced(&scene);
    scene.now += 60 * SECOND_NS;
    scene.feed.on_heard(scene.now);
    next.feed.on_time(scene.now);
    next.take_over(&mut scene);
    for id in [A, B] {
        assert_eq!(scene.state(id, Channel::Book), (State::Stale, Why::VenueSilent, 7));
    }
    scene.say(Line::default().bids(A, &[(9, 4)]));
    for id in [A, B] {
        assert_eq!(scene.state(id, Channel::Book), (State::Live, Why::VenueBack, 7));
    }
    assert_eq!(scene.bids(A), [(10, 1), (9, 4)]);
    assert_eq!(scene.asked(), [""; 0]);
}

#[test]
fn what_was_wrong_comes_right_with_the_new_connection() {
    let mut scene = synced();
    let next = Successor::synced(&scene);
    scene.feed.on_disconnected(Why::Disconnected, scene.now);
    assert_eq!(scene.state(A, Channel::Book).0, State::Stale);
    scene.now += 1;
    next.take_over(&mut scene);
    assert_eq!(scene.state(A, Channel::Book), (State::Live, Why::Synced, 8));
}

#[test]
fn the_fresher_of_two_numbered_books_goes_on() {
    let traits = Traits { has_bbo_stream: true, ..Traits::default() };
    let mut scene = scene_of(traits);
    scene.say(Line::default().image(A).linked(0, 100).image(B).linked(0, 100));
    let mut next = Successor::of(&scene);
    let now = scene.now + 500;
    next.say(Line::default().image(A).linked(0, 102), now);
    next.say(Line::default().image(B).linked(0, 102), now);
    scene.say(Line::default().bids(A, &[(9, 4)]).linked(100, 105));
    scene.say(Line::default().bbo(A, 106, (11, 6)));
    next.say(Line::default().bbo(B, 107, (11, 7)), now);
    let before = scene.snapshot(A);
    next.take_over(&mut scene);
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
fn a_halt_of_everything_ends_over_the_connection_that_took_over() {
    let mut scene = synced();
    scene.say(Line::default().trading(None, Trading::Halted));
    let mut next = Successor::synced(&scene);
    // The new connection is greeted with a venue that trades …
    next.say(Line::default().trading(None, Trading::Open), scene.now);
    next.take_over(&mut scene);
    assert_eq!(scene.state(A, Channel::Book).0, State::Live);

    scene.say(Line::default().trading(None, Trading::Halted));
    let next = Successor::synced(&scene);
    next.take_over(&mut scene);
    assert_eq!(scene.state(A, Channel::Book).0, State::Halted);
    // … or hears of it later, …
    scene.say(Line::default().trading(None, Trading::Open));
    assert_eq!(scene.state(A, Channel::Book).0, State::Live);

    // … and so it is with a halt that only the new one has heard of.
    let mut next = Successor::synced(&scene);
    next.say(Line::default().trading(None, Trading::Halted), scene.now);
    next.take_over(&mut scene);
    assert_eq!(scene.state(A, Channel::Book).0, State::Halted);
    scene.say(Line::default().trading(None, Trading::Open));
    assert_eq!(scene.state(A, Channel::Book).0, State::Live);
}

#[test]
fn a_connection_that_does_not_reach_the_book_it_took_over_is_a_gap() {
    for (follows, last) in [(3, 7), (7, 9)] {
        let mut scene = synced_of(Traits::default());
        scene.say(Line::default().image(A).linked(0, 1_000).image(B).linked(0, 1_000));
        let mut next = Successor::of(&scene);
        // A server that was begun anew numbers from small.
        next.say(Line::default().image(A).linked(0, 3), scene.now);
        next.say(Line::default().image(B).linked(0, 1_000), scene.now);
        next.take_over(&mut scene);
        scene.say(Line::default().bids(A, &[(9, 4)]).linked(follows, last));
        if follows == 3 {
            assert_eq!(scene.state(A, Channel::Book).0, State::Live, "it may catch up");
            scene.wait(HAND_OVER_LAG_NS_MAX);
        }
        assert_eq!(scene.state(A, Channel::Book), (State::Gap, Why::SequenceGap, 7));
        assert_eq!(scene.asked(), ["resync 0"]);
        scene.say(Line::default().image(A).linked(0, 12));
        assert_eq!(scene.state(A, Channel::Book), (State::Live, Why::Synced, 8));
        assert_eq!(scene.state(B, Channel::Book), (State::Live, Why::Synced, 7));
    }
}

#[test]
fn a_book_that_is_lost_before_its_connection_reaches_it_is_lost_once() {
    let mut scene = synced();
    scene.say(Line::default().image(A).linked(0, 1_000).image(B).linked(0, 1_000));
    let mut next = Successor::of(&scene);
    next.say(Line::default().image(A).linked(0, 998), scene.now);
    next.say(Line::default().image(B).linked(0, 1_000), scene.now);
    next.take_over(&mut scene);
    scene.say(Line::default().bids(A, &[(9, 4)]).linked(999, 1_001));
    assert_eq!(scene.state(A, Channel::Book), (State::Gap, Why::SequenceGap, 7));
    assert_eq!(scene.asked(), ["resync 0"]);
    scene.wait(HAND_OVER_LAG_NS_MAX);
    assert_eq!(scene.asked(), [""; 0], "its image is on the way");
    assert_eq!(scene.stats.gaps.get(), 1);
}

#[test]
fn named_trades_are_handed_over_once_and_none_is_left_out() {
    let mut scene = synced();
    for id in ["a", "b"] {
        scene.say(Line::default().named_trade(id));
    }
    let mut next = Successor::of(&scene);
    for id in ["b", "c", "d", "e"] {
        next.say(Line::default().named_trade(id), scene.now);
    }
    scene.say(Line::default().named_trade("c"));
    next.say(Line::default().image(A).image(B), scene.now);
    next.take_over(&mut scene);
    scene.say(Line::default().named_trade("e").named_trade("f"));
    let snapshot = scene.snapshot(A);
    let ids: Vec<_> = snapshot.trades.tail.after(0).map(|trade| trade.id.clone()).collect();
    assert_eq!(ids, ["a", "b", "c", "d", "e", "f"].map(|id| TradeId::Text(id.into())));
}

#[test]
fn trades_that_neither_connection_brought_are_lost() {
    let mut scene = synced();
    scene.say(Line::default().numbered_trade(1));
    let mut next = Successor::of(&scene);
    for number in [4, 5, 8] {
        next.say(Line::default().numbered_trade(number), scene.now);
    }
    next.say(Line::default().image(A).image(B), scene.now);
    next.take_over(&mut scene);
    assert_eq!(scene.trades(), (4, 4));
    assert_eq!(scene.stats.trades_lost.get(), 4);
    let snapshot = scene.snapshot(A);
    assert_eq!(snapshot.trades.tail.newest(), 8, "numbers go on beside those of the venue");
}

#[test]
fn a_successor_with_a_finer_scale_brings_it() {
    let mut scene = synced();
    let mut next = Successor::of(&scene);
    let fine = Decimal { mantissa: 95, scale: 1 };
    let mut line = Line::default().image(A).image(B).bids(A, &[(9, 9)]);
    line.0.levels.last_mut().unwrap().px = fine;
    next.say(line, scene.now);
    scene.wait(MILLI_NS);
    next.take_over(&mut scene);
    assert_eq!(scene.bids(A), [(100, 1), (95, 9), (90, 1)]);
    assert_eq!(scene.state(A, Channel::Book), (State::Live, Why::ScaleChange, 8));
    assert_eq!(scene.state(B, Channel::Book), (State::Live, Why::Synced, 7));
}
