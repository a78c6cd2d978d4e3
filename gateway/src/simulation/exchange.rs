//! One venue and the gateway's feed of it in virtual time: a seed and a fault → what became of the
//! books, each publication judged.
//!
//! Runs under `cargo test`, with no socket, clock or sleep. The venue is `feed-sim`'s synthetic
//! exchange, the feed and its successors are driven as the session drives them, its REST requests
//! pass the session's own budget. It must never use the gateway's code to judge the gateway.

use std::collections::VecDeque;
use std::sync::Arc;

use feed_sim::exchange::{About, Exchange, ExchangeOptions, Lie, Status};
use feed_sim::venue::Dialect;
use tickfan_core::market::{EventBatch, InstrumentId, Listing, Nanos, Venue as VenueName, Why};
use tickfan_core::snapshot::{Entry, Registry};

mod fault;
mod line;
mod oracle;
mod cut;
mod tests;

use cut::Taped;
use fault::Fault;
use line::Line;
use oracle::SymbolOracle;

use super::random::Random;
use crate::feed::rest::Budget;
use crate::feed::session::frames::Incoming;
use crate::feed::session::line::{Beat, Turns};
use crate::feed::session::pause_ns;
use crate::feed::{Feed, FeedOptions, Request};
use crate::limits::{BACKOFF_FIRST_NS, MILLI_NS, SECOND_NS, TRADES_GRACE_NS};
use crate::stats::Stats;
use crate::venue;

const START_NS: Nanos = 1_790_000_000 * SECOND_NS;

/// Symbols of a world: one has the faults, the other is its witness.
const SYMBOLS: usize = 2;

/// The symbol that has the faults.
const FAULTY: usize = 0;

/// Between venue and gateway, each way.
const ONE_WAY_NS: Nanos = 5 * MILLI_NS;

/// From asking for an image to having it.
const REST_NS: Nanos = 20 * MILLI_NS;

/// From wanting a connection to having it.
const DIAL_NS: Nanos = 3 * ONE_WAY_NS;

/// Mean time between two events of the market.
const PACE_NS: Nanos = 15 * MILLI_NS;

/// The same while it is long waited for something else.
const SLOW_PACE_NS: Nanos = 2 * SECOND_NS;

/// A ban lasts this long, and an image that is late comes after this long.
const BAN_S: u64 = 2;
const LATE_NS: Nanos = 400 * MILLI_NS;

/// A world that turns this often goes nowhere.
const TURNS_MAX: usize = 5_000;

/// The gateway must be right again at the latest.
const RIGHT_NS_MAX: Nanos = 20 * SECOND_NS;

/// How long a world is watched once all is well again.
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

/// What has become of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It comes at this time, once all is well.
    Awaited { at_ns: Nanos },
    /// It is under way, and ends by itself, or is ended at this time.
    Struck { until_ns: Nanos },
    /// It ended then.
    Over { at_ns: Nanos },
}

/// What the network does to what passes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mischief {
    /// Takes the next so many messages.
    Lose(u64),
    Double,
    Garble,
    GarbleText,
    /// Takes the rest of a frame, and with it the line.
    Sever,
}

/// A request for an image.
#[derive(Debug)]
struct Asked {
    instrument: InstrumentId,
    connection: u32,
    path: String,
}

/// A request on its way to the venue, or its answer on the way back.
#[derive(Debug)]
struct UnderWay {
    at_ns: Nanos,
    asked: Asked,
    sent_ns: Nanos,
    /// Once the venue answered: status and body.
    answer: Option<(u16, String)>,
}

/// The connection that is to take the place of one that ends.
enum Next {
    Dialling { at_ns: Nanos },
    Following { feed: Box<Feed>, line: Box<Line> },
}

/// See the top of this file.
struct World {
    dialect: Dialect,
    fault: Fault,
    exchange: Exchange,
    venue: VenueName,
    random: Random,
    now: Nanos,
    feed: Feed,
    feed_wake_ns: Nanos,
    /// When a request may be made that waits.
    rest_wake_ns: Nanos,
    /// When the successor wants to act.
    next_wake_ns: Nanos,
    entries: Vec<Arc<Entry>>,
    oracle: Vec<SymbolOracle>,
    line: Option<Line>,
    dial_ns: Nanos,
    failures: u32,
    next: Option<Next>,
    /// Texts on their way to the venue.
    outgoing: VecDeque<(Nanos, u64, String)>,
    budget: Budget,
    waiting: VecDeque<Asked>,
    under_way: Vec<UnderWay>,
    /// The venue wants to be left alone until then, and when the gateway learns of it.
    ban: Option<(Nanos, Nanos)>,
    /// An image of the faulty symbol as it was long ago.
    old_image: Option<(u16, String)>,
    mischief: Option<Mischief>,
    stage: Stage,
    /// The venue stands still until then.
    still_until_ns: Nanos,
    /// Digits of the faulty symbol's prices before the fault.
    digits_before: u8,
    right_ns: Option<Nanos>,
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
        let mut world = Self {
            dialect,
            fault,
            venue,
            now: START_NS,
            feed,
            feed_wake_ns: Nanos::MAX,
            rest_wake_ns: Nanos::MAX,
            next_wake_ns: Nanos::MAX,
            entries,
            oracle: (0..SYMBOLS).map(|_| SymbolOracle::new(dialect.fetches_images())).collect(),
            line: None,
            dial_ns: START_NS + DIAL_NS,
            failures: 0,
            next: None,
            outgoing: VecDeque::new(),
            budget: Budget::full(venue::endpoints(venue).rest_weight_per_minute, START_NS),
            waiting: VecDeque::new(),
            under_way: Vec::new(),
            ban: None,
            old_image: None,
            mischief: None,
            stage: Stage::Awaited { at_ns: Nanos::MAX },
            still_until_ns: 0,
            digits_before: 0,
            right_ns: None,
            outcome: Outcome::default(),
            tape: None,
            exchange,
            random,
        };
        world.learn();
        world
    }

    /// Runs until the fault has happened and all was well again for a while.
    fn run(mut self) -> Result<Outcome, String> {
        for _ in 0..TURNS_MAX {
            self.now = self.next_ns().max(self.now);
            self.turn()?;
            if let Stage::Over { at_ns } = self.stage
                && self.right_ns.is_none()
                && self.now > at_ns + RIGHT_NS_MAX
            {
                let states: Vec<_> =
                    self.entries.iter().map(|entry| entry.load().book.status).collect();
                return Err(format!("not right again: {states:?}"));
            }
            // A finer number must have come.
            let watched_ns = if self.fault == Fault::TickChange { SECOND_NS } else { WATCHED_NS };
            if self.right_ns.is_some_and(|right_ns| self.now > right_ns + watched_ns) {
                if self.fault == Fault::TickChange {
                    let digits = self.entries[FAULTY].load().scales.px;
                    self.outcome.happened = u64::from(digits > self.digits_before);
                }
                return Ok(self.outcome);
            }
        }
        let at_ms = (self.now - START_NS) / MILLI_NS;
        Err(format!("it does not come to an end: {:?} at {at_ms} ms", self.stage))
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
            // The fault must not come.
            self.stage = Stage::Awaited { at_ns: Nanos::MAX };
        }
    }

    /// When anything happens next.
    fn next_ns(&self) -> Nanos {
        let mut next = self.exchange.next_ns().min(self.feed_wake_ns).min(self.dial_ns);
        next = next.min(self.rest_wake_ns).min(self.next_wake_ns);
        let lines = self.line.iter().chain(match &self.next {
            Some(Next::Following { line, .. }) => Some(&**line),
            _ => None,
        });
        for line in lines {
            next = next.min(line.parcels.front().map_or(Nanos::MAX, |parcel| parcel.at_ns));
        }
        if let Some(Next::Dialling { at_ns }) = self.next {
            next = next.min(at_ns);
        }
        next = next.min(self.outgoing.front().map_or(Nanos::MAX, |text| text.0));
        next = self.under_way.iter().map(|request| request.at_ns).fold(next, Nanos::min);
        match self.stage {
            Stage::Awaited { at_ns } | Stage::Struck { until_ns: at_ns } => next.min(at_ns),
            Stage::Over { .. } => next,
        }
    }

    /// Everything that is due happens.
    fn turn(&mut self) -> Result<(), String> {
        self.run_fault();
        while self.exchange.next_ns() <= self.now {
            self.exchange.step();
            self.learn();
        }
        while let Some((_, connection, text)) =
            self.outgoing.pop_front_if(|text| text.0 <= self.now)
        {
            self.exchange.hear(connection, &text, self.now);
            self.learn();
            self.delay_image(&text);
        }
        if self.dial_ns <= self.now {
            self.dial_ns = Nanos::MAX;
            self.line = Some(self.connect());
            self.feed.on_connected(self.now);
            self.learn();
            self.feed_wake_ns = self.now;
        }
        self.deliver()?;
        self.answer_requests()?;
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
            let mut bytes = Line::frame(&told.text);
            let is_first =
                self.line.as_ref().is_some_and(|line| line.connection == told.connection);
            // What is lost is lost in one piece, whatever it is about.
            let is_going_on = matches!(self.mischief, Some(Mischief::Lose(_)))
                && self.outcome.happened > 0
                && self.fault != Fault::TradesLost;
            let is_target = self.is_target(told.about);
            let is_it = is_first && (is_target || is_going_on);
            let mischief = self.mischief.filter(|_| is_it);
            let at_ns = self.now + ONE_WAY_NS;
            let next = match &mut self.next {
                Some(Next::Following { line, .. }) => Some(&mut **line),
                _ => None,
            };
            let mut lines = self.line.iter_mut().chain(next);
            let Some(line) = lines.find(|line| line.connection == told.connection) else {
                continue;
            };
            if line.is_dead || self.now < self.still_until_ns {
                continue;
            }
            self.mischief = if is_it { None } else { self.mischief };
            match mischief {
                Some(Mischief::Lose(count)) => {
                    let count = count - u64::from(is_target);
                    self.outcome.happened += u64::from(is_target);
                    self.mischief = (count > 0).then_some(Mischief::Lose(count));
                    if count == 0 {
                        self.await_next();
                    }
                    continue;
                }
                Some(Mischief::Double) => {
                    self.outcome.happened += 1;
                    line.push(at_ns, bytes.clone(), told.about);
                    self.stage = Stage::Struck { until_ns: at_ns };
                }
                Some(Mischief::Garble) => {
                    self.outcome.happened += 1;
                    bytes = Line::frame(&told.text[..told.text.len() / 2]);
                    self.stage = Stage::Struck { until_ns: at_ns };
                }
                Some(Mischief::GarbleText) => {
                    self.outcome.happened += 1;
                    let place = bytes.len() / 2;
                    bytes[place] = 0xff;
                }
                Some(Mischief::Sever) => {
                    self.outcome.happened += 1;
                    bytes.truncate(self.random.below(bytes.len() as u64) as usize);
                    line.push(at_ns, bytes, told.about);
                    if let Some(last) = line.parcels.back_mut() {
                        last.is_last = true;
                    }
                    line.is_dead = true;
                    continue;
                }
                None => {}
            }
            line.push(at_ns, bytes, told.about);
            if self.fault == Fault::TradesLost
                && self.outcome.happened > 0
                && told.about == About::Nothing
                && self.stage == (Stage::Struck { until_ns: Nanos::MAX })
            {
                // A heartbeat; what it names may still come for a while.
                self.stage = Stage::Struck { until_ns: at_ns + TRADES_GRACE_NS };
            }
            let shows_loss = is_it || (is_first && self.numbers_all());
            if shows_loss && let Stage::Struck { until_ns: NEXT_NS } = self.stage {
                // The first that shows what was lost.
                self.stage = Stage::Struck { until_ns: at_ns };
            }
        }
    }

    /// An image that comes on the stream is held up with everything else there.
    fn delay_image(&mut self, text: &str) {
        let is_asked = text.contains("subscribe") && !text.contains("unsubscribe");
        let is_it = self.fault == Fault::LateImage && self.outcome.happened == 1 && is_asked;
        if is_it && let Some(line) = &mut self.line {
            let until_ns = self.now + LATE_NS;
            line.hold_until(until_ns);
            self.outcome.happened += 1;
            self.stage = Stage::Struck { until_ns };
        }
    }

    /// Whatever comes next on a connection shows that something before it is missing.
    const fn numbers_all(&self) -> bool {
        matches!(self.dialect, Dialect::CoinbaseAdvanced | Dialect::Bitfinex)
    }

    /// The fault is to happen to this.
    fn is_target(&self, about: About) -> bool {
        let is_loss = matches!(self.mischief, Some(Mischief::Lose(_)));
        if is_loss && is_proved_at_top(self.dialect) && !self.oracle[FAULTY].has_changed_top() {
            // Their checksums cover the ten best levels: what is lost below leaves no trace.
            return false;
        }
        match (self.fault, about) {
            (Fault::TradesLost, About::Trade { symbol }) => symbol == FAULTY,
            (Fault::TradesLost, _) => false,
            (_, About::Book { symbol, .. }) => symbol == FAULTY,
            _ => false,
        }
    }

    /// The fault ends when the next message comes that could show it.
    fn await_next(&mut self) {
        self.stage = Stage::Struck { until_ns: NEXT_NS };
    }

    /// Gives the feed what has arrived on its line, and publishes it.
    fn deliver(&mut self) -> Result<(), String> {
        let mut ended = None;
        let mut any = false;
        if let Some(line) = &mut self.line {
            if let Some(tape) = &mut self.tape {
                let due = line.parcels.iter().take_while(|parcel| parcel.at_ns <= self.now);
                tape.extend(
                    due.map(|parcel| (self.now, Taped::Frame(parcel.bytes.clone(), parcel.about))),
                );
            }
            (any, ended) = read(line, &mut self.feed, self.now);
        }
        if any {
            self.feed.publish(self.now);
            self.see()?;
            self.feed_wake_ns = self.now;
        }
        if ended.is_some() {
            self.disconnect(false)?;
        }
        Ok(())
    }

    /// The line is gone; a new one is made after a pause, unless one is there already.
    fn disconnect(&mut self, is_awaited: bool) -> Result<(), String> {
        if let Some(line) = self.line.take() {
            self.exchange.disconnect(line.connection);
        }
        if let Some(Next::Following { .. }) = self.next {
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
        if matches!(self.stage, Stage::Struck { .. }) {
            // The venue would answer now; the pause before that is ours, and has its own limit.
            self.stage = Stage::Struck { until_ns: at_ns };
        }
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
                    self.waiting.push_back(Asked { instrument, connection, path });
                    self.rest_wake_ns = self.now;
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
        let wake_ns = send_due(line, &mut self.outgoing, self.now);
        self.feed_wake_ns = self.feed_wake_ns.min(wake_ns);
        if self.feed.decoder().keepalive().is_none() {
            let quiet_ns = self.feed.decoder().silence_ns() / 2;
            match line.pulse.feel(quiet_ns, self.now) {
                Beat::Felt { again_ns } => self.feed_wake_ns = self.feed_wake_ns.min(again_ns),
                Beat::Due => {
                    line.pulse.pinged_ns = self.now;
                    self.feed_wake_ns = self.feed_wake_ns.min(self.now + quiet_ns);
                    if !line.is_dead {
                        // Its pong.
                        line.push(self.now + 2 * ONE_WAY_NS, vec![0x8a, 0], About::Nothing);
                    }
                }
                Beat::None => return self.disconnect(false),
            }
        }
        Ok(())
    }

    /// REST: what waits is asked within the budget, the venue answers, answers arrive.
    fn answer_requests(&mut self) -> Result<(), String> {
        while let Some(request) =
            self.under_way.iter().position(|request| request.at_ns <= self.now)
        {
            let mut request = self.under_way.remove(request);
            let Some((status, body)) = request.answer.take() else {
                request.answer = Some(self.serve(&request));
                let is_late = self.fault == Fault::LateImage
                    && matches!(self.stage, Stage::Struck { .. } | Stage::Over { .. })
                    && self.outcome.happened == 1;
                request.at_ns = self.now + REST_NS / 2;
                if is_late {
                    self.outcome.happened += 1;
                    request.at_ns = self.now + LATE_NS;
                    self.stage = Stage::Struck { until_ns: request.at_ns };
                }
                self.under_way.push(request);
                continue;
            };
            let Asked { instrument, connection, .. } = request.asked;
            let image = if status == 200 {
                if let Some(tape) = &mut self.tape {
                    tape.push((self.now, Taped::Image(instrument, body.clone().into_bytes())));
                }
                self.budget.served();
                decoded(&self.feed, instrument, body.into_bytes())
            } else {
                let until_ns = self.budget.ban(Some(BAN_S * SECOND_NS), self.now);
                self.ban = Some((self.now, until_ns));
                self.stage = Stage::Struck { until_ns };
                None
            };
            match &mut self.next {
                Some(Next::Following { feed, .. }) if feed.connection() == connection => {
                    feed.on_image(instrument, connection, image, self.now);
                }
                _ => self.feed.on_image(instrument, connection, image, self.now),
            }
            self.feed.publish(self.now);
            self.see()?;
            self.feed_wake_ns = self.now;
        }
        let weight = self.feed.decoder().image_weight();
        self.rest_wake_ns = Nanos::MAX;
        while !self.waiting.is_empty() {
            let wait_ns = self.budget.take(weight, self.now);
            if wait_ns > 0 {
                self.rest_wake_ns = self.now + wait_ns;
                break;
            }
            let Some(asked) = self.waiting.pop_front() else { break };
            if self.fault == Fault::StaleImage && self.outcome.happened == 2 {
                // The old one was of no use: this is the first that the venue answers well.
                self.outcome.happened += 1;
                self.stage = Stage::Over { at_ns: self.now };
            }
            let at_ns = self.now + REST_NS / 2;
            self.under_way.push(UnderWay { at_ns, asked, sent_ns: self.now, answer: None });
        }
        Ok(())
    }

    /// What the venue answers to a REST request.
    fn serve(&mut self, request: &UnderWay) -> (u16, String) {
        let is_banned = self.ban.is_some_and(|(from_ns, until_ns)| {
            request.sent_ns > from_ns && request.sent_ns < until_ns
        });
        self.outcome.asked_in_ban += u64::from(is_banned);
        let is_struck = matches!(self.stage, Stage::Struck { .. } | Stage::Over { .. });
        if self.fault == Fault::Ban && is_struck && self.ban.is_none() {
            self.outcome.happened += 1;
            return (if self.random.coin() { 429 } else { 418 }, String::new());
        }
        let is_of_faulty = request.asked.instrument == self.entries[FAULTY].instrument.id;
        if is_struck
            && is_of_faulty
            && let Some(old) = self.old_image.take()
        {
            self.outcome.happened += 1;
            return old;
        }
        let (path, query) = request.asked.path.split_once('?').unwrap_or_default();
        let reply = self.exchange.answer(path, query);
        (reply.status, reply.body)
    }

    /// The successor of a connection that is to end.
    fn follow(&mut self) -> Result<(), String> {
        match &mut self.next {
            None => return Ok(()),
            Some(Next::Dialling { at_ns }) if *at_ns <= self.now => {
                let line = self.connect();
                let mut feed = Box::new(self.feed.successor());
                feed.on_connected(self.now);
                self.next = Some(Next::Following { feed, line: Box::new(line) });
                self.learn();
            }
            Some(Next::Dialling { .. }) => return Ok(()),
            Some(Next::Following { .. }) => {}
        }
        let Some(Next::Following { feed, line }) = &mut self.next else { return Ok(()) };
        read(line, feed, self.now);
        feed.set_texts_wait(line.has_texts());
        let mut wake_ns = feed.on_time(self.now);
        for request in feed.take_requests() {
            match request {
                Request::Send(text) => line.post(text),
                Request::Answer(text) => line.post_first(text),
                Request::Image { instrument, path, connection } => {
                    self.waiting.push_back(Asked { instrument, connection, path });
                    self.rest_wake_ns = self.now;
                }
                Request::Decode { instrument, message, connection } => {
                    let image = decoded(feed, instrument, message);
                    feed.on_image(instrument, connection, image, self.now);
                }
                Request::HandOver | Request::Reconnect => {}
            }
        }
        wake_ns = wake_ns.min(send_due(line, &mut self.outgoing, self.now));
        let settled_ns = line.settled_ns();
        if self.now < settled_ns {
            wake_ns = wake_ns.min(settled_ns);
        }
        let is_synced = self.now >= settled_ns && feed.is_synced();
        self.next_wake_ns = wake_ns.max(self.now + 1);
        if is_synced { self.take_over() } else { Ok(()) }
    }

    fn take_over(&mut self) -> Result<(), String> {
        let Some(Next::Following { feed, line }) = self.next.take() else { return Ok(()) };
        if let Some(old) = self.line.replace(*line) {
            self.exchange.disconnect(old.connection);
        }
        self.next_wake_ns = Nanos::MAX;
        self.feed.take_over(*feed, self.now);
        self.feed_wake_ns = self.now;
        self.see()
    }

    /// Looks at everything that is published.
    fn see(&mut self) -> Result<(), String> {
        let is_struck = !matches!(self.stage, Stage::Awaited { .. });
        for (entry, oracle) in self.entries.iter().zip(&mut self.oracle) {
            oracle
                .see(entry.load())
                .map_err(|what| format!("{}: {what}", entry.instrument.symbol))?;
            self.outcome.is_marked |= std::mem::take(&mut oracle.is_marked) && is_struck;
        }
        Ok(())
    }

    /// Notices when all books are live and right.
    fn is_right(&mut self) {
        let all_live = self.oracle.iter().all(|oracle| oracle.live_at.is_some());
        match self.stage {
            Stage::Awaited { at_ns: Nanos::MAX } if all_live => {
                // The first heartbeat is where the counts of trades begin.
                let counted_ns = if self.fault == Fault::TradesLost { SECOND_NS } else { 0 };
                let at_ns = self.now + counted_ns + self.random.between(50, 250) * MILLI_NS;
                self.stage = Stage::Awaited { at_ns };
                let symbol = self.entries[FAULTY].instrument.native.clone();
                if self.fault == Fault::StaleImage {
                    let path = self.feed_image_path(&symbol);
                    let (path, query) = path.split_once('?').unwrap_or_default();
                    let reply = self.exchange.answer(path, query);
                    self.old_image = Some((reply.status, reply.body));
                }
            }
            Stage::Over { at_ns } if all_live && self.right_ns.is_none() => {
                self.right_ns = Some(self.now);
                self.outcome.right_after_ns = self.now - at_ns;
            }
            _ => {}
        }
    }

    fn feed_image_path(&self, symbol: &str) -> String {
        let path = match self.dialect {
            Dialect::BinanceSpot => "/api/v3/depth",
            Dialect::BinanceUsdm => "/fapi/v1/depth",
            _ => "/dapi/v1/depth",
        };
        format!("{path}?symbol={symbol}&limit=1000")
    }

    /// The fault begins, or ends.
    fn run_fault(&mut self) {
        match self.stage {
            Stage::Awaited { at_ns } if at_ns <= self.now => {
                self.stage = Stage::Struck { until_ns: Nanos::MAX };
                self.strike();
            }
            Stage::Struck { until_ns } if until_ns <= self.now => {
                self.stage = Stage::Over { at_ns: self.now };
                self.relieve();
            }
            _ => {}
        }
    }

    fn strike(&mut self) {
        let now = self.now;
        match self.fault {
            // Until the venue names one that never comes.
            Fault::TradesLost => self.mischief = Some(Mischief::Lose(u64::MAX)),
            Fault::Gap => {
                // What comes next may make good what was lost there: the fewer, the rarer.
                let count = if is_proved_at_top(self.dialect) { 1 } else { 3 };
                self.mischief = Some(Mischief::Lose(self.random.between(1, count)));
            }
            Fault::StaleImage | Fault::Ban | Fault::LateImage => {
                self.mischief = Some(Mischief::Lose(1));
            }
            Fault::Duplicate => self.mischief = Some(Mischief::Double),
            Fault::BadJson => self.mischief = Some(Mischief::Garble),
            Fault::BadUtf8 => self.mischief = Some(Mischief::GarbleText),
            Fault::Cut => self.mischief = Some(Mischief::Sever),
            Fault::WrongChecksum | Fault::ZeroChecksum => {
                let lie = if self.fault == Fault::WrongChecksum { Lie::Wrong } else { Lie::Zero };
                self.outcome.happened += u64::from(self.exchange.lie(FAULTY, lie));
                self.await_next();
            }
            Fault::Crossed => {
                self.exchange.cross(FAULTY);
                self.outcome.happened += 1;
                let until_ns = now + self.random.between(20, 300) * MILLI_NS;
                self.stage = Stage::Struck { until_ns };
            }
            Fault::Silence => {
                let silence_ns = self.feed.decoder().silence_ns();
                let until_ns = now + silence_ns + silence_ns / 4;
                self.exchange.sleep_until(until_ns);
                self.still_until_ns = until_ns;
                self.stage = Stage::Struck { until_ns };
                self.outcome.happened += 1;
            }
            Fault::HalfOpen => {
                self.exchange.set_pace(SLOW_PACE_NS);
                if let Some(line) = &mut self.line {
                    line.is_dead = true;
                }
                self.outcome.happened += 1;
            }
            Fault::CloseNotice => {
                self.outcome.happened += u64::from(self.exchange.announce_close());
                self.stage = Stage::Struck { until_ns: now + SECOND_NS };
            }
            Fault::Maintenance => {
                let has_words = self.exchange.announce_maintenance(true);
                if !has_words {
                    self.exchange.set_status(FAULTY, Status::Halted);
                    self.read_list();
                }
                self.outcome.happened += 1;
                self.stage = Stage::Struck { until_ns: now + 100 * MILLI_NS };
            }
            Fault::TickChange => {
                self.digits_before = self.entries[FAULTY].load().scales.px;
                self.exchange.refine_tick(FAULTY);
                let until_ns = now + self.random.below(2) * 100 * MILLI_NS;
                self.stage = Stage::Struck { until_ns };
            }
            Fault::Delisting => {
                self.exchange.set_status(FAULTY, Status::Ended);
                self.read_list();
                self.outcome.happened += 1;
                self.stage = Stage::Struck { until_ns: now + 100 * MILLI_NS };
            }
            Fault::NumbersRestart => {
                self.outcome.happened += u64::from(self.exchange.restart_numbers(FAULTY));
                self.stage = Stage::Struck { until_ns: now + ONE_WAY_NS };
            }
            Fault::NumbersRestartLost => {
                // The message that is lost is the one that says so.
                self.learn();
                if self.exchange.restart_numbers(FAULTY) {
                    self.mischief = Some(Mischief::Lose(1));
                }
            }
            Fault::KeepAlive => {
                self.outcome.happened += u64::from(self.exchange.keep_alive(FAULTY));
                self.stage = Stage::Struck { until_ns: now + ONE_WAY_NS };
            }
        }
        self.learn();
    }

    /// What ends the fault, at the moment from which it is over.
    fn relieve(&mut self) {
        match self.fault {
            Fault::Crossed => self.exchange.uncross(FAULTY),
            Fault::TradesLost => self.mischief = None,
            Fault::HalfOpen => self.exchange.set_pace(PACE_NS),
            Fault::Maintenance if self.exchange.announce_maintenance(false) => {}
            Fault::TickChange if self.dialect != Dialect::Bitfinex => self.read_list(),
            Fault::Maintenance | Fault::Delisting => {
                self.exchange.set_status(FAULTY, Status::Open);
                self.read_list();
            }
            _ => {}
        }
        self.learn();
        for (symbol, oracle) in self.oracle.iter_mut().enumerate() {
            // What was right before counts only if it is still what the venue has.
            let version = self.exchange.version(symbol);
            oracle.live_at = oracle.live_at.filter(|live| *live >= version);
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

/// Nothing but a checksum of the best levels proves its books.
const fn is_proved_at_top(dialect: Dialect) -> bool {
    matches!(dialect, Dialect::Kraken | Dialect::KrakenV1)
}

/// The fault ends with the next message of its symbol.
const NEXT_NS: Nanos = Nanos::MAX - 1;

/// Gives a feed what has arrived on a line; whether anything has, and whether the line has ended.
fn read(line: &mut Line, feed: &mut Feed, now: Nanos) -> (bool, Option<Why>) {
    let mut any = false;
    while let Some(parcel) = line.parcels.pop_front_if(|parcel| parcel.at_ns <= now) {
        any = true;
        line.fill(&parcel.bytes);
        loop {
            match line.frames.take() {
                Ok(Some(Incoming::Message(message))) => {
                    line.pulse.heard_ns = now;
                    feed.on_message(message, now);
                }
                Ok(Some(Incoming::Ping(_))) => {
                    line.pulse.heard_ns = now;
                    feed.on_heard(now);
                }
                Ok(Some(Incoming::Pong)) => line.pulse.heard_ns = now,
                Ok(None) => break,
                Ok(Some(Incoming::Close)) | Err(_) => return (any, Some(Why::Disconnected)),
            }
        }
        if parcel.is_last {
            return (any, Some(Why::Disconnected));
        }
    }
    (any, None)
}

/// Sends the texts whose turn it is; returns when the next one may go.
fn send_due(line: &mut Line, outgoing: &mut VecDeque<(Nanos, u64, String)>, now: Nanos) -> Nanos {
    loop {
        match line.take_text(now) {
            Ok(_) if line.is_dead => {}
            Ok(text) => outgoing.push_back((now + ONE_WAY_NS, line.connection, text)),
            Err(again_ns) => return again_ns,
        }
    }
}

/// An image as the REST thread decodes it.
fn decoded(feed: &Feed, instrument: InstrumentId, mut body: Vec<u8>) -> Option<EventBatch> {
    let mut image = EventBatch::default();
    let decode = feed.decoder().image_decoder();
    decode(instrument, &mut body, &mut image).ok().map(|()| image)
}
