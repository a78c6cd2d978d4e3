//! One venue and the gateway's feed of it in virtual time: a seed and a fault → what became of the
//! books, each publication judged.
//!
//! Called by its tests, with no socket, clock or sleep. The venue is `feed-sim`'s synthetic exchange,
//! the feed and its successors are driven as the session drives them. This file lets time pass and
//! carries everything from one to the other; what is done on the way is in the files below it. It must
//! never use the gateway's code to judge the gateway.

use std::collections::VecDeque;
use std::sync::Arc;

use feed_sim::exchange::{About, Exchange, ExchangeOptions};
use feed_sim::frame::{Opcode, frame};
use feed_sim::venue::Dialect;
use tickfan_core::market::{Listing, Nanos, Venue as VenueName, Why};
use tickfan_core::snapshot::{Entry, Registry};

mod fault;
mod line;
mod course;
mod requests;
mod successor;
mod oracle;
mod cut;
mod tests;

use course::{Course, List, Reach, Saying, Stage};
use cut::Taped;
use fault::Fault;
use line::{Line, Parcel, Reading, Text};
use oracle::SymbolOracle;
use requests::{Answer, Asked, Requests, decoded};
use successor::{Progress, Successor};

use super::random::Random;
use crate::feed::session::line::{Beat, Turns};
use crate::feed::session::pause_ns;
use crate::feed::{Feed, FeedOptions, Request};
use crate::limits::{BACKOFF_FIRST_NS, MILLI_NS, SECOND_NS};
use crate::stats::Stats;
use crate::venue;

const START_NS: Nanos = 1_790_000_000 * SECOND_NS;

/// Symbols of a world: one has the faults, the other is its witness.
const SYMBOLS: usize = 2;

/// The symbol that has the faults.
const FAULTY: usize = 0;

/// Between venue and gateway, each way.
const ONE_WAY_NS: Nanos = 5 * MILLI_NS;

/// From wanting a connection to having it.
const DIAL_NS: Nanos = 3 * ONE_WAY_NS;

/// Mean time between two events of the market.
const PACE_NS: Nanos = 15 * MILLI_NS;

/// A world that turns this often goes nowhere.
const TURNS_MAX: usize = 5_000;

/// The gateway must be right again at the latest.
const RIGHT_NS_MAX: Nanos = 20 * SECOND_NS;

/// How long a world is watched, for most faults.
const WATCHED_NS: Nanos = 150 * MILLI_NS;

/// What a world came to.
#[derive(Debug, Clone, Copy, Default)]
struct Outcome {
    /// How often the fault happened.
    happened: u64,
    /// From its end until every book was live and right.
    right_after_ns: Nanos,
    /// Somebody who looked could see that not all was well.
    is_marked: bool,
    /// REST requests that came while the venue wanted to be left alone.
    asked_in_ban: u64,
    messages: u64,
}

/// The connection that is to take the place of one that ends.
enum Next {
    Dialling { at_ns: Nanos },
    Following(Box<Successor>),
}

/// See the top of this file.
struct World {
    exchange: Exchange,
    venue: VenueName,
    course: Course,
    requests: Requests,
    now: Nanos,
    feed: Feed,
    feed_wake_ns: Nanos,
    entries: Vec<Arc<Entry>>,
    oracle: Vec<SymbolOracle>,
    line: Option<Line>,
    dial_ns: Nanos,
    failures: u32,
    next: Option<Next>,
    outgoing: VecDeque<Text>,
    right_ns: Option<Nanos>,
    /// What it has come to so far.
    outcome: Outcome,
    /// What reached the feed, where that is kept, and when.
    tape: Option<Vec<(Nanos, Taped)>>,
}

fn options(dialect: Dialect, seed: u64) -> ExchangeOptions {
    ExchangeOptions::of(dialect, seed, SYMBOLS, START_NS).small(PACE_NS)
}

/// What the exchange lists.
fn listings(venue: VenueName, exchange: &Exchange) -> Vec<Listing> {
    venue::listings(venue, exchange.instruments("").as_bytes()).expect("it is a list")
}

/// A feed of all symbols of an exchange, as it is when nothing has come yet.
fn feed(
    venue: VenueName,
    dialect: Dialect,
    exchange: &Exchange,
    seed: u64,
) -> (Feed, Vec<Arc<Entry>>) {
    let names: Vec<Arc<str>> = exchange.symbols().map(Arc::from).collect();
    let registry = Registry::new(names.len());
    let entries = registry.register(venue, &names, 1, START_NS).expect("there is room");
    let listed = listings(venue, exchange);
    let instruments = entries.iter().map(|entry| {
        let listing = listed.iter().find(|listing| listing.native == entry.instrument.native);
        if let Some(listing) = listing {
            entry.set_listing(listing.clone());
        }
        (Arc::clone(entry), listing.map(Listing::scales))
    });
    let feed = Feed::new(FeedOptions {
        venue,
        instruments: instruments.collect(),
        depth: Exchange::depth(dialect).map(|depth| depth as u32),
        trades: None,
        marks: Vec::new(),
        stats: Stats::default().feed(venue),
        seed,
    });
    (feed, entries)
}

impl World {
    fn new(dialect: Dialect, fault: Fault, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let exchange = Exchange::new(options(dialect, seed));
        let venue = dialect.venue();
        let (feed, entries) = feed(venue, dialect, &exchange, random.below(u64::MAX));
        let weight_per_minute = venue::endpoints(venue).rest_weight_per_minute;
        let mut world = Self {
            exchange,
            venue,
            course: Course::new(fault, dialect, Arc::clone(&entries[FAULTY]), random),
            requests: Requests::new(weight_per_minute, START_NS),
            now: START_NS,
            feed,
            feed_wake_ns: Nanos::MAX,
            entries,
            oracle: (0..SYMBOLS).map(|_| SymbolOracle::new(dialect.fetches_images())).collect(),
            line: None,
            dial_ns: START_NS + DIAL_NS,
            failures: 0,
            next: None,
            outgoing: VecDeque::new(),
            right_ns: None,
            outcome: Outcome::default(),
            tape: None,
        };
        world.learn();
        world
    }

    /// Runs until the fault has happened and all was well again for a while.
    fn run(mut self) -> Result<Outcome, String> {
        for _ in 0..TURNS_MAX {
            self.now = self.next_ns().max(self.now);
            self.turn()?;
            if let Stage::Over { at_ns } = self.course.stage()
                && self.right_ns.is_none()
                && self.now > at_ns + RIGHT_NS_MAX
            {
                let states: Vec<_> =
                    self.entries.iter().map(|entry| entry.load().book.status).collect();
                return Err(format!("not right again: {states:?}"));
            }
            if self.right_ns.is_some_and(|right_ns| self.now > right_ns + self.watched_ns()) {
                let happened = self.course.happened();
                let asked_in_ban = self.requests.asked_in_ban();
                return Ok(Outcome { happened, asked_in_ban, ..self.outcome });
            }
        }
        let at_ms = (self.now - START_NS) / MILLI_NS;
        Err(format!("it does not come to an end: {:?} at {at_ms} ms", self.course.stage()))
    }

    /// How long it is watched once all is well again.
    const fn watched_ns(&self) -> Nanos {
        match self.course.fault() {
            // A finer number must come.
            Fault::TickChange => SECOND_NS,
            _ => WATCHED_NS,
        }
    }

    /// What reaches the feed until so many changes of the faulty book have, once all books are live;
    /// and when the feed was connected.
    fn record(mut self, changes: usize) -> Result<(Vec<(Nanos, Taped)>, Nanos), String> {
        self.tape = Some(Vec::new());
        let connected_ns = self.dial_ns;
        let mut live_at = None;
        loop {
            self.now = self.next_ns().max(self.now);
            self.turn()?;
            let tape = self.tape.as_ref().ok_or("it is kept")?;
            if self.oracle.iter().all(|oracle| oracle.live_at.is_some()) {
                let live_at = *live_at.get_or_insert(tape.len());
                let is_change = |(_, taped): &&(Nanos, Taped)| {
                    matches!(taped, Taped::Frame(_, About::Book { symbol: FAULTY, .. }))
                };
                if tape[live_at..].iter().filter(is_change).count() >= changes {
                    return Ok((self.tape.unwrap_or_default(), connected_ns));
                }
            }
            self.course.put_off();
        }
    }

    /// When anything happens next.
    fn next_ns(&self) -> Nanos {
        let next_ns = match &self.next {
            Some(Next::Dialling { at_ns }) => *at_ns,
            Some(Next::Following(successor)) => successor.next_ns(),
            None => Nanos::MAX,
        };
        let all = [
            self.exchange.next_ns(),
            self.course.next_ns(),
            self.requests.next_ns(),
            self.feed_wake_ns,
            self.dial_ns,
            self.line.as_ref().map_or(Nanos::MAX, Line::next_ns),
            self.outgoing.front().map_or(Nanos::MAX, |text| text.at_ns),
            next_ns,
        ];
        all.into_iter().fold(Nanos::MAX, Nanos::min)
    }

    /// Everything that is due happens.
    fn turn(&mut self) -> Result<(), String> {
        self.run_fault();
        while self.exchange.next_ns() <= self.now {
            self.exchange.step();
            self.learn();
        }
        while let Some(said) = self.outgoing.pop_front_if(|said| said.at_ns <= self.now) {
            self.exchange.hear(said.connection, &said.text, self.now);
            self.learn();
            if let Some(line) = &mut self.line {
                self.course.on_heard(&said.text, line, self.now);
            }
        }
        if self.dial_ns <= self.now {
            self.dial_ns = Nanos::MAX;
            self.line = Some(self.connect());
            self.feed.on_connected(self.now);
            self.learn();
            self.feed_wake_ns = self.now;
        }
        self.deliver()?;
        self.take_answers()?;
        if self.feed_wake_ns <= self.now {
            self.attend()?;
        }
        self.follow()?;
        self.is_right();
        Ok(())
    }

    fn connect(&mut self) -> Line {
        let path = self.feed.decoder().stream_path().to_owned();
        let (path, query) = path.split_once('?').unwrap_or((&path, ""));
        let connection = self.exchange.connect(path, query, self.now);
        Line::new(connection, Turns::of(&venue::endpoints(self.venue)), self.now)
    }

    /// What the exchange came to and said is learnt, and sent on its way.
    fn learn(&mut self) {
        for (symbol, oracle) in self.oracle.iter_mut().enumerate() {
            let version = self.exchange.version(symbol);
            if oracle.newest() != Some(version) {
                oracle.learn(version, &self.exchange.book(symbol));
            }
        }
        for told in self.exchange.take_told() {
            self.outcome.messages += 1;
            let is_its = |line: &&mut Line| line.connection == told.connection;
            let next = match &mut self.next {
                Some(Next::Following(successor)) => Some(&mut successor.line),
                _ => None,
            };
            let (to_feed, to_next) = (self.line.as_mut().filter(is_its), next.filter(is_its));
            let is_to_feed = to_feed.is_some();
            let is_at_top = self.oracle[FAULTY].has_changed_top();
            if let Some(line) = to_feed.or(to_next) {
                self.course.carry(&Saying { told: &told, is_to_feed, is_at_top }, line, self.now);
            }
        }
    }

    /// Gives the feed what has arrived on its line, and publishes it.
    fn deliver(&mut self) -> Result<(), String> {
        let Some(line) = &mut self.line else { return Ok(()) };
        if let Some(tape) = &mut self.tape {
            let taped = |parcel: &Parcel| Taped::Frame(parcel.bytes.clone(), parcel.about);
            tape.extend(line.arrived(self.now).map(|parcel| (self.now, taped(parcel))));
        }
        let reading = line.read(&mut self.feed, self.now);
        if reading == Reading::Nothing {
            return Ok(());
        }
        self.feed.publish(self.now);
        self.see()?;
        self.feed_wake_ns = self.now;
        if reading == Reading::End { self.disconnect(false) } else { Ok(()) }
    }

    /// The line is gone; a new one is made after a pause, unless one is there already.
    fn disconnect(&mut self, is_awaited: bool) -> Result<(), String> {
        if let Some(line) = self.line.take() {
            self.exchange.disconnect(line.connection);
        }
        if let Some(Next::Following(_)) = self.next {
            return self.take_over();
        }
        self.feed.on_disconnected(Why::Disconnected, self.now);
        self.see()?;
        self.feed_wake_ns = Nanos::MAX;
        let pause_ns = if is_awaited && self.failures == 0 {
            0
        } else {
            pause_ns(self.failures, self.feed.jitter())
        };
        if pause_ns >= BACKOFF_FIRST_NS {
            return Err(format!("a pause of {pause_ns} ns after one failure"));
        }
        self.failures += 1;
        let at_ns = self.now + pause_ns;
        self.dial_ns = at_ns + DIAL_NS;
        self.course.on_pause(at_ns);
        Ok(())
    }

    /// Lets time pass for the feed, carries out what it wants, and sends what may be sent.
    fn attend(&mut self) -> Result<(), String> {
        self.feed.set_texts_wait(self.line.as_ref().is_some_and(Line::has_texts));
        self.feed_wake_ns = self.feed.on_time(self.now);
        self.feed.publish(self.now);
        self.see()?;
        for request in self.feed.take_requests() {
            match request {
                Request::Send(text) => {
                    if let Some(line) = &mut self.line {
                        line.post(text);
                    }
                }
                Request::Answer(text) => {
                    if let Some(line) = &mut self.line {
                        line.post_first(text);
                    }
                }
                Request::Image { instrument, path, connection } => {
                    self.requests.ask(Asked { instrument, connection, path }, self.now);
                }
                Request::Decode { instrument, message, connection } => {
                    let image = decoded(&self.feed, instrument, message);
                    self.feed.on_image(instrument, connection, image, self.now);
                    self.feed.publish(self.now);
                    self.see()?;
                }
                Request::HandOver => {
                    if let Some(line) = &mut self.line {
                        line.ends_soon = true;
                    }
                }
                Request::Reconnect => return self.disconnect(true),
            }
        }
        let Some(line) = &mut self.line else { return Ok(()) };
        if line.ends_soon && self.next.is_none() {
            self.next = Some(Next::Dialling { at_ns: self.now + DIAL_NS });
        }
        let wake_ns = line.send_due(&mut self.outgoing, self.now);
        self.feed_wake_ns = self.feed_wake_ns.min(wake_ns);
        if self.feed.decoder().keepalive().is_none() {
            let quiet_ns = self.feed.decoder().silence_ns() / 2;
            match line.pulse.feel(quiet_ns, self.now) {
                Beat::Felt { again_ns } => self.feed_wake_ns = self.feed_wake_ns.min(again_ns),
                Beat::Due => {
                    line.pulse.pinged_ns = self.now;
                    self.feed_wake_ns = self.feed_wake_ns.min(self.now + quiet_ns);
                    if !line.is_dead {
                        let pong = frame(Opcode::Pong, true, b"");
                        line.push(self.now + 2 * ONE_WAY_NS, pong, About::Nothing);
                    }
                }
                Beat::None => return self.disconnect(false),
            }
        }
        Ok(())
    }

    /// Gives the feed the images that have arrived, and sends the requests that may be sent.
    fn take_answers(&mut self) -> Result<(), String> {
        let now = self.now;
        while let Some(Answer { asked, body }) =
            self.requests.take_answer(&self.exchange, &mut self.course, now)
        {
            let Asked { instrument, connection, .. } = asked;
            if let Some((tape, body)) = self.tape.as_mut().zip(body.as_ref()) {
                tape.push((now, Taped::Image(instrument, body.clone())));
            }
            let image = body.and_then(|body| decoded(&self.feed, instrument, body));
            let feed = match &mut self.next {
                Some(Next::Following(next)) if next.feed.connection() == connection => {
                    &mut next.feed
                }
                _ => &mut self.feed,
            };
            feed.on_image(instrument, connection, image, now);
            self.feed.publish(now);
            self.see()?;
            self.feed_wake_ns = now;
        }
        self.requests.send_due(self.feed.decoder().image_weight(), &mut self.course, now);
        Ok(())
    }

    /// What is to take the place of a connection that ends goes on.
    fn follow(&mut self) -> Result<(), String> {
        if let Some(Next::Dialling { at_ns }) = self.next
            && at_ns <= self.now
        {
            let line = self.connect();
            let successor = Successor::new(self.feed.successor(), line, self.now);
            self.next = Some(Next::Following(Box::new(successor)));
            self.learn();
        }
        let Some(Next::Following(successor)) = &mut self.next else { return Ok(()) };
        match successor.attend(&mut self.requests, &mut self.outgoing, self.now) {
            Progress::CatchingUp => Ok(()),
            Progress::Ready => self.take_over(),
        }
    }

    fn take_over(&mut self) -> Result<(), String> {
        let Some(Next::Following(successor)) = self.next.take() else { return Ok(()) };
        let Successor { feed, line, .. } = *successor;
        if let Some(old) = self.line.replace(line) {
            self.exchange.disconnect(old.connection);
        }
        self.feed.take_over(feed, self.now);
        self.feed_wake_ns = self.now;
        self.see()
    }

    /// Looks at everything that is published.
    fn see(&mut self) -> Result<(), String> {
        let has_struck = self.course.has_struck();
        for (entry, oracle) in self.entries.iter().zip(&mut self.oracle) {
            oracle
                .see(entry.load())
                .map_err(|what| format!("{}: {what}", entry.instrument.symbol))?;
            self.outcome.is_marked |= std::mem::take(&mut oracle.is_marked) && has_struck;
        }
        Ok(())
    }

    /// Notices when all books are live and right.
    fn is_right(&mut self) {
        let all_live = self.oracle.iter().all(|oracle| oracle.live_at.is_some());
        match self.course.stage() {
            Stage::Unplanned if all_live => self.course.plan(&self.exchange, self.now),
            Stage::Over { at_ns } if all_live && self.right_ns.is_none() => {
                self.right_ns = Some(self.now);
                self.outcome.right_after_ns = self.now - at_ns;
            }
            _ => {}
        }
    }

    /// The fault begins, or ends.
    fn run_fault(&mut self) {
        if self.now < self.course.next_ns() {
            return;
        }
        let silence_ns = self.feed.decoder().silence_ns();
        let line = self.line.as_mut();
        let reach = Reach { exchange: &mut self.exchange, line, silence_ns };
        if self.course.turn(reach, self.now) == List::ReadAnew {
            self.read_list();
        }
        let is_over = matches!(self.course.stage(), Stage::Over { .. });
        self.learn();
        if is_over {
            for (symbol, oracle) in self.oracle.iter_mut().enumerate() {
                // What was right before counts only if it is still what the venue has.
                let version = self.exchange.version(symbol);
                oracle.live_at = oracle.live_at.filter(|live| *live >= version);
            }
        }
    }

    /// The gateway reads the list of instruments.
    fn read_list(&mut self) {
        let listed = listings(self.venue, &self.exchange);
        for entry in &self.entries {
            let instrument = &entry.instrument;
            let listing = listed.iter().find(|listing| listing.native == instrument.native);
            self.feed.on_listing(instrument.id, listing, self.now);
        }
        self.feed_wake_ns = self.now;
    }
}
