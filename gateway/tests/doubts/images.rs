//! Large images: decoded aside, joined with what came meanwhile, and of no use once anything was lost.

use std::sync::Arc;

use tickfan::limits::IMAGE_BUFFER_EVENTS_MAX;
use tickfan_core::market::{Channel, State, Why};

use super::scene::{A, B, Line, Traits, scene_of, synced};

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
fn what_waited_for_an_image_from_beside_the_stream_may_be_older_than_it() {
    let mut scene = synced();
    scene.say(Line::default().image(A).linked(0, 100));
    // What comes before it is lost.
    scene.say(Line::default().bids(A, &[(9, 2)]).linked(105, 106));
    scene.say(Line::default().bids(A, &[(9, 3)]).linked(106, 107));
    scene.say(Line::default().bids(A, &[(9, 4)]).linked(107, 108));
    assert_eq!(scene.state(A, Channel::Book).0, State::Gap);
    assert_eq!(scene.asked(), ["resync 0"]);
    let image = Line::default().image(A).linked(0, 107);
    scene.decoded(A, scene.feed.connection(), Some(image));
    assert_eq!(scene.state(A, Channel::Book), (State::Live, Why::Synced, 8));
    assert_eq!(scene.bids(A), [(10, 1), (9, 4)], "joined with what came after it");
}
