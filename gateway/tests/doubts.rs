//! What further venues say to the feed, in virtual time: message numbers, heartbeats, halts, listings,
//! trades over several connections, large images, checksums that lie, and a connection handed over.
//!
//! The venue is a script: the test writes the events, and no venue's words are needed.

#![allow(clippy::unwrap_used, reason = "a test that cannot set its scene must fail")]

use std::sync::Arc;

use tickfan::limits::{
    CROSSED_GRACE_NS, MISMATCHES_MAX, RECOVERED_AFTER_NS, SECOND_NS, TRADE_NUMBER_MAX,
    TRADES_COMPARED, TRADES_GRACE_NS, TRADES_LOST_MAX,
};
use tickfan::venue::{DecodeError, Malformed};
use tickfan_core::decimal::Decimal;
use tickfan_core::market::{
    Channel, Listing, MarketEvent, Scales, State, TradeNumbering, Trading, Why,
};

#[path = "common/feed.rs"]
mod feed;
#[path = "doubts/handover.rs"]
mod handover;
#[path = "doubts/images.rs"]
mod images;
#[path = "doubts/scene.rs"]
mod scene;

use scene::{A, B, CHECKSUM, HEARTBEAT_NS, Line, Scene, Traits, scene_of, synced, synced_of};

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
fn a_hole_in_the_trades_speaks_against_the_book_where_nothing_else_would() {
    for trades_vouch in [false, true] {
        let mut scene = synced_of(Traits { trades_vouch, ..Traits::default() });
        scene.say(Line::default().numbered_trade(4));
        scene.say(Line::default().numbered_trade(5));
        assert_eq!(scene.state(A, Channel::Book).0, State::Live);
        scene.say(Line::default().numbered_trade(7));
        assert_eq!(scene.trades(), (3, 1));
        if !trades_vouch {
            assert_eq!(scene.state(A, Channel::Book).0, State::Live, "it has a proof of its own");
            assert_eq!(scene.asked(), [""; 0]);
            continue;
        }
        assert_eq!(scene.state(A, Channel::Book), (State::Suspect, Why::TradesMissing, 7));
        assert_eq!(scene.state(B, Channel::Book).0, State::Live);
        assert_eq!(scene.asked(), ["resync 0"]);
        scene.say(Line::default().image(A));
        assert_eq!(scene.state(A, Channel::Book), (State::Live, Why::Synced, 7));
    }
}

#[test]
fn a_trade_numbered_far_ahead_is_malformed_unless_the_next_is_near_it() {
    let mut scene = synced();
    scene.say(Line::default().numbered_trade(4));
    for number in [u64::MAX, 5 + TRADES_LOST_MAX, u64::MAX] {
        scene.say(Line::default().numbered_trade(number));
        assert_eq!(scene.trades(), (1, 0));
        assert_eq!(scene.state(A, Channel::Trades), (State::Gap, Why::MalformedMessage, 7));
    }
    scene.say(Line::default().numbered_trade(5));
    assert_eq!(scene.trades(), (2, 0), "the real ones go on");
    assert_eq!(scene.state(A, Channel::Trades), (State::Live, Why::Synced, 8));
    assert_eq!(scene.state(A, Channel::Book), (State::Live, Why::Synced, 7));

    let after_absence = 6 + 2 * TRADES_LOST_MAX;
    scene.say(Line::default().numbered_trade(after_absence).numbered_trade(after_absence + 1));
    assert_eq!(scene.trades(), (3, after_absence - 5));
    scene.say(Line::default().numbered_trade(after_absence + 1 + TRADES_LOST_MAX));
    assert_eq!(scene.trades(), (4, after_absence - 6 + TRADES_LOST_MAX), "so many may be lost");
}

#[test]
fn holes_as_large_as_can_be_add_up() {
    const ROUNDS: u64 = 5;
    let mut scene = synced();
    for round in 0..ROUNDS {
        scene.reconnect();
        for number in [1, TRADE_NUMBER_MAX - 1, TRADE_NUMBER_MAX] {
            let id = format!("{number} of {round}");
            scene.say(Line::default().trade(
                TradeNumbering::Consecutive,
                Some(number),
                &id,
                scene.now,
            ));
        }
    }
    assert_eq!(scene.trades(), (2 * ROUNDS as usize, ROUNDS * (TRADE_NUMBER_MAX - 2)));
}

#[test]
fn a_first_trade_numbered_beyond_belief_hides_none_that_follows() {
    for numbering in [TradeNumbering::Consecutive, TradeNumbering::Rising] {
        let mut scene = synced();
        scene.say(Line::default().trade(numbering, Some(u64::MAX), "far", 1));
        assert_eq!(scene.trades(), (0, 0));
        assert_eq!(scene.state(A, Channel::Trades), (State::Gap, Why::MalformedMessage, 7));
        scene.say(Line::default().trade(numbering, Some(5), "5", 2));
        assert_eq!(scene.trades(), (1, 0));
        assert_eq!(scene.state(A, Channel::Trades), (State::Live, Why::Synced, 8));
    }
}

#[test]
fn a_heartbeat_that_names_a_trade_far_ahead_tells_none_as_lost() {
    let mut scene = synced();
    scene.say(Line::default().numbered_trade(4));
    scene.say(Line::default().heartbeat(A, Some(5 + TRADES_LOST_MAX)));
    scene.wait(TRADES_GRACE_NS);
    assert_eq!(scene.trades(), (1, 0));
    assert_eq!(scene.stats.malformed.get(), 1);
    scene.say(Line::default().numbered_trade(5));
    assert_eq!(scene.trades(), (2, 0), "the real ones go on");
}

#[test]
fn trades_missed_between_two_connections_are_lost_and_no_doubt() {
    let mut scene = synced_of(Traits { trades_vouch: true, ..Traits::default() });
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
fn a_doubt_stays_until_the_image_of_the_subscription_that_was_made_anew() {
    let mut scene = synced();
    scene.say(Line::default().bids(A, &[(12, 1)]));
    scene.wait(CROSSED_GRACE_NS);
    assert_eq!(scene.asked(), ["resync 0"]);
    // The last update of the subscription that we ended: nothing more comes before the image.
    scene.say(Line::default().bids(A, &[(12, 0)]));
    assert_eq!(scene.bids(A), [(10, 1), (9, 1)]);
    assert_eq!(scene.state(A, Channel::Book), (State::Suspect, Why::Crossed, 7));
    assert_eq!(scene.state(A, Channel::Bbo), (State::Suspect, Why::Crossed, 7));
    scene.say(Line::default().image(A));
    assert_eq!(scene.state(A, Channel::Book), (State::Live, Why::Uncrossed, 7));
    assert_eq!(scene.state(A, Channel::Bbo), (State::Live, Why::Uncrossed, 7));

    // An image that crosses, too, is asked for again after a pause: who is right by then needs none.
    scene.say(Line::default().bids(A, &[(12, 1)]));
    scene.feed.on_time(scene.now + CROSSED_GRACE_NS);
    scene.say(Line::default().bids(A, &[(12, 0)]));
    assert_eq!(scene.state(A, Channel::Book), (State::Live, Why::Uncrossed, 7));
    scene.wait(60 * SECOND_NS - 1);
    assert_eq!(scene.asked(), [""; 0]);

    // It was right for long enough: what is lost next is asked for at once.
    scene.feed.on_heard(scene.now);
    scene.wait(RECOVERED_AFTER_NS);
    scene.hear(Err(DecodeError { about: Some((A, Channel::Book)), what: Malformed::NotJson }));
    assert_eq!(scene.asked(), ["resync 0"]);
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
fn a_halt_of_everything_leaves_what_was_said_of_one_alone() {
    let mut scene = synced();
    scene.say(Line::default().trading(Some(A), Trading::Ended));
    scene.say(Line::default().trading(Some(B), Trading::Halted));
    scene.say(Line::default().trading(None, Trading::Halted));
    scene.say(Line::default().trading(None, Trading::Open));
    assert_eq!(scene.state(A, Channel::Book).0, State::Closed, "it is delisted still");
    assert_eq!(scene.state(B, Channel::Book).0, State::Halted, "it has a halt of its own");
    scene.say(Line::default().trading(Some(B), Trading::Open));
    assert_eq!(scene.state(B, Channel::Book).0, State::Live);
}

#[test]
fn a_halt_of_everything_that_is_told_in_steps_ends_with_the_last() {
    let mut scene = synced();
    for _ in ["maintenance", "cancel_only", "post_only"] {
        scene.say(Line::default().trading(None, Trading::Halted));
        assert_eq!(scene.state(A, Channel::Book), (State::Halted, Why::Halted, 7));
    }
    scene.say(Line::default().trading(None, Trading::Open));
    assert_eq!(scene.state(A, Channel::Book), (State::Live, Why::Resumed, 7));
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
fn what_was_refused_begins_an_epoch_when_it_is_served_again() {
    let mut scene = synced();
    scene.say(Line::default().named_trade("a"));
    let message = "not now".to_owned();
    scene.say(Line::default().event(MarketEvent::Refused { instrument: Some(A), message }));
    for channel in Channel::ALL {
        assert_eq!(scene.state(A, *channel), (State::Closed, Why::Refused, 7), "{channel:?}");
    }
    scene.reconnect();
    scene.say(Line::default().image(A).named_trade("b"));
    for channel in Channel::ALL {
        assert_eq!(scene.state(A, *channel), (State::Live, Why::Synced, 8), "{channel:?}");
    }
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
    // They may jump as far as they like, and a heartbeat may name what is as far.
    let far = 70 + 2 * TRADES_LOST_MAX;
    scene.say(of(far));
    assert_eq!(scene.trades(), (5, 0));
    scene.say(Line::default().heartbeat(A, Some(2 * far)));
    scene.wait(TRADES_GRACE_NS);
    assert_eq!(scene.stats.malformed.get(), 0);
    scene.say(of(2 * far));
    assert_eq!(scene.trades(), (5, 0), "it is among those that were missed");
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
fn numbers_that_begin_anew_unseen_are_a_gap() {
    let mut scene = synced();
    scene.say(Line::default().image(A).linked(0, 1_000));
    scene.say(Line::default().bids(A, &[(9, 4)]).linked(1_000, 1_002));
    scene.say(Line::default().bids(A, &[(9, 4)]).linked(1_000, 1_002));
    assert_eq!(scene.state(A, Channel::Book).0, State::Live, "the last one came twice");
    assert_eq!(scene.stats.old_events.get(), 1);
    // That they went back to 3 was lost.
    scene.say(Line::default().bids(A, &[(9, 5)]).linked(3, 7));
    assert_eq!(scene.state(A, Channel::Book), (State::Gap, Why::SequenceGap, 7));
    assert_eq!(scene.asked(), ["resync 0"]);
    scene.say(Line::default().image(A).linked(7, 7));
    assert_eq!(scene.state(A, Channel::Book), (State::Live, Why::Synced, 8));
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
