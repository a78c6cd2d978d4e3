//! A connection that ends at every byte of a stream of two events: of an event that did not come
//! whole nothing is published.
//!
//! Called by the tests. What reached the feed of a world without faults is taken down once, and given
//! to a new feed for each byte.

use std::sync::Arc;

use feed_sim::exchange::{About, Exchange};
use feed_sim::venue::Dialect;
use tickfan_core::market::{InstrumentId, Level, Nanos, State, Why};
use tickfan_core::snapshot::{Entry, Snapshot};

use super::line::Line;
use super::requests::decoded;
use super::{FAULTY, Fault, World, feed, options};
use crate::feed::Feed;
use crate::feed::session::line::Turns;

/// Changes of a book that make up the stream.
const EVENTS: usize = 2;

/// Something that reached the feed.
#[derive(Debug, Clone)]
pub(super) enum Taped {
    /// A frame of the stream.
    Frame(Vec<u8>, About),
    /// The body of an image over REST.
    Image(InstrumentId, Vec<u8>),
}

/// A feed to which a tape is played.
struct Replay {
    feed: Feed,
    line: Line,
    entry: Arc<Entry>,
}

impl Replay {
    fn new(dialect: Dialect, seed: u64, connected_ns: Nanos) -> Self {
        let exchange = Exchange::new(options(dialect, seed));
        let (mut feed, entries) = feed(dialect.venue(), dialect, &exchange, seed);
        feed.on_connected(connected_ns);
        Self {
            feed,
            line: Line::new(1, Turns::new(0, 1), connected_ns),
            entry: Arc::clone(&entries[FAULTY]),
        }
    }

    fn play(&mut self, taped: &Taped, now: Nanos) {
        match taped {
            Taped::Frame(bytes, about) => {
                self.line.push(now, bytes.clone(), *about);
                self.line.read(&mut self.feed, now);
            }
            Taped::Image(instrument, body) => {
                let image = decoded(&self.feed, *instrument, body.clone());
                self.feed.on_image(*instrument, self.feed.connection(), image, now);
            }
        }
        self.feed.on_time(now);
        self.feed.take_requests();
        self.feed.publish(now);
    }

    fn seen(&self) -> Arc<Snapshot> {
        self.entry.load()
    }
}

fn levels(snapshot: &Snapshot) -> [Vec<Level>; 2] {
    let book = &snapshot.book.book;
    [book.bids.iter().collect(), book.asks.iter().collect()]
}

/// Cuts the stream at every byte; returns at how many.
pub(super) fn cut_everywhere(dialect: Dialect, seed: u64) -> Result<u64, String> {
    let (tape, connected_ns) = World::new(dialect, Fault::Duplicate, seed).record(EVENTS)?;
    // Two changes of the book with whatever came between them.
    let is_change =
        |taped: &Taped| matches!(taped, Taped::Frame(_, About::Book { symbol: FAULTY, .. }));
    let changes: Vec<usize> = (0..tape.len()).filter(|place| is_change(&tape[*place].1)).collect();
    let [.., first, last] = changes[..] else { return Err("there are no two changes".to_owned()) };
    let mut cuts = 0;
    for place in first..=last {
        let (now, Taped::Frame(frame, about)) = &tape[place] else { continue };
        let mut whole = Replay::new(dialect, seed, connected_ns);
        for (at_ns, taped) in &tape[..place] {
            whole.play(taped, *at_ns);
        }
        let before = whole.seen();
        if before.book.status.state != State::Live {
            return Err(format!("{:?} before anything is cut", before.book.status));
        }
        for length in 0..frame.len() {
            let mut replay = Replay::new(dialect, seed, connected_ns);
            for (at_ns, taped) in &tape[..place] {
                replay.play(taped, *at_ns);
            }
            replay.play(&Taped::Frame(frame[..length].to_vec(), *about), *now);
            replay.feed.on_disconnected(Why::Disconnected, *now);
            let after = replay.seen();
            let status = &after.book.status;
            if (status.state, status.why) != (State::Stale, Why::Disconnected) {
                return Err(format!("{status:?} after a cut at {length}"));
            }
            if levels(&after) != levels(&before) {
                return Err(format!("another book after a cut at byte {length} of frame {place}"));
            }
            cuts += 1;
        }
    }
    Ok(cuts)
}
