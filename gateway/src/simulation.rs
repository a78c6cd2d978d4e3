//! The whole gateway in virtual time: a seed → a market, faults, readers, and every frame judged.
//!
//! Runs under `cargo test`, each world on one thread, with no socket, clock or sleep: the venue is
//! `feed-sim`'s market, the feed is driven as its session drives it, the shard as its loop does.
//! Same seed, same bytes. It must never use the gateway's code to judge the gateway.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::hash::Hasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tickfan_core::market::{EventBatch, Nanos, Scales, Venue as VenueName, Why};
use tickfan_core::snapshot::marks::Marks;
use tickfan_core::snapshot::{Entry, Registry};
use tickfan_core::wire::Encoding;

mod random;
mod truth;
mod venue;
mod pipe;
mod lateness;
mod pace;
mod mirror;
mod checker;
mod client;
mod rest;
mod exchange;
mod isolation;
mod tests;

use checker::{Checked, Counts, Record, Violation, hold};
use client::{Client, Habits};
use random::Random;
use venue::{Arrival, Delivery, Faults, MICRO_NS, Told, Venue, VenueOptions};

use crate::fanout::connection::Phase;
use crate::fanout::shard::{Shard, ShardOptions};
use crate::fanout::table::ConnectionKey;
use crate::feed::{Feed, FeedOptions, Request};
use crate::limits::{BATCH_NS_MAX, MILLI_NS, SECOND_NS, SLEEP_NS_MAX};
use crate::stats::{FeedStats, ShardStats, SharedStats, Stats};

/// When every world begins.
const START_NS: Nanos = 1_790_000_000 * SECOND_NS;

/// What a log of a failure shows.
const EVENTS_SHOWN: usize = 50;

/// Rounds in which a shard must come to rest, or its clock go on.
const ROUNDS_MAX: usize = 10_000;

/// How long after the market's end everything must have come to rest: the longest pause before an
/// image is asked for again, and what a slow reader needs.
const SETTLED_NS_MAX: Nanos = 200 * SECOND_NS;

/// How long after its last change a world is watched.
const WATCHED_NS: Nanos = 6 * SECOND_NS;

/// What kind of world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// With faults and readers of every kind.
    Wild,
    /// No fault, and everybody reads at once.
    Ideal,
    /// Readers of the second symbol alone, and of both at once; the first has faults or has none.
    Isolated { faulty: bool },
}

/// What a run counted.
#[derive(Debug, Clone, Copy, Default)]
struct Report {
    counts: Counts,
    messages: u64,
    resyncs: u64,
    connections: u64,
    /// Worlds in which something sent was never seen, by a client that was gone.
    unseen: u64,
    /// Of every byte sent and when.
    digest: u64,
}

/// The first invariant that did not hold, and how it came to that.
struct Failure {
    seed: u64,
    violation: Violation,
    events: VecDeque<String>,
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {} is broken", self.seed, self.violation.invariant)?;
        writeln!(f, "the last events:")?;
        for event in &self.events {
            writeln!(f, "  {event}")?;
        }
        writeln!(f, "{}: {}", self.violation.invariant, self.violation.what)?;
        write!(f, "to repeat: TICKFAN_SEED={} cargo test -p tickfan --lib simulation", self.seed)
    }
}

/// A gateway with its venue and its clients.
struct World {
    kind: Kind,
    /// The shard's clock, which goes on while it sends.
    now_ns: Arc<AtomicU64>,
    random: Random,
    venue: Venue,
    feed: Feed,
    entries: Vec<Arc<Entry>>,
    /// The feed's clock: it has a thread of its own, and is not kept waiting by the shard.
    feed_ns: Nanos,
    feed_wake_ns: Nanos,
    marks: Arc<Marks>,
    woken: Arc<AtomicBool>,
    shard: Shard,
    stats: SharedStats,
    feed_stats: FeedStats,
    shard_stats: ShardStats,
    shard_due_ns: Nanos,
    /// Rounds since the shard's clock went on or it came to rest.
    rounds: usize,
    /// When the shard was busy, from and to: what is received then it learns of afterwards.
    busy_ns: Vec<(Nanos, Nanos)>,
    /// What the poller watches each connection for: reading, writing.
    polled: BTreeMap<ConnectionKey, (bool, bool)>,
    clients: Vec<Client>,
    /// What each client was sent, when that is kept.
    records: Vec<Record>,
    /// Connections that ended, by cause; `None` where the client cannot know it.
    ended: BTreeMap<Option<&'static str>, u64>,
    /// Bytes taken by the sockets of connections that ended.
    bytes: u64,
    /// An image was asked for without a reason.
    importunate: bool,
    /// Nobody connects any more.
    is_over: bool,
    calm_ns: Nanos,
    seen_silence_ns: Nanos,
    report: Report,
    digest: std::hash::DefaultHasher,
    /// Of a world that is known to fail the last events are kept.
    keeps_events: bool,
    events: VecDeque<String>,
}

fn faults(random: &mut Random) -> Faults {
    let mut on = |rate: u64| if random.coin() { rate } else { 0 };
    let (depth_lost, tickers_lost, trades_lost) = (on(30), on(30), on(30));
    let (repeated, corrupted, images_stale, images_failed) = (on(20), on(4), on(300), on(200));
    let (delayed, cut, silent) = (on(80), on(1), on(1));
    Faults {
        depth_lost,
        tickers_lost,
        trades_lost,
        repeated,
        corrupted,
        images_stale,
        images_failed,
        image_delay_ns: delayed * MILLI_NS,
        cut_every_ns: cut * random.between(300, 1_500) * MILLI_NS,
        // Beyond the venue's limit of a minute; sometimes twice, so that the feed gives up on it.
        silence_ns: if random.below(3) == 0 {
            silent * random.pick(&[61, 65, 125]) * SECOND_NS
        } else {
            0
        },
    }
}

/// Who subscribes: to what, how they read, and what it costs to send to them.
fn clients(random: &mut Random, kind: Kind, entries: &[Arc<Entry>]) -> Vec<Client> {
    let names: Vec<String> =
        entries.iter().map(|entry| entry.instrument.symbol.to_string()).collect();
    let leaves = random.coin();
    let cost_us = match random.below(8) {
        _ if kind != Kind::Wild => (0, 0),
        0..4 => (0, 0),
        4..7 => (5, 50),
        // A machine that cannot keep up.
        _ => (200, random.pick(&[600, 2_000, 6_000])),
    };
    (0..random.between(3, 7))
        .map(|index| {
            let mut own = random.split();
            let (habits, names) = match kind {
                Kind::Ideal => (Habits::fast(&mut own), names.clone()),
                // A seat is paced for all that it holds: with both symbols only what is not paced
                // has the same times whatever becomes of the other symbol.
                Kind::Isolated { .. } if index == 0 => {
                    (Habits { budgets_ms: vec![0], ..Habits::fast(&mut own) }, names.clone())
                }
                Kind::Isolated { .. } => (Habits::draw(&mut own, leaves), names[1..].to_vec()),
                Kind::Wild => (Habits { cost_us, ..Habits::draw(&mut own, leaves) }, names.clone()),
            };
            Client::new(habits, names, own, START_NS)
        })
        .collect()
}

impl World {
    fn new(seed: u64, kind: Kind) -> Self {
        let mut random = Random::new(seed);
        let is_isolated = matches!(kind, Kind::Isolated { .. });
        let deep = random.below(8) == 0 && !is_isolated;
        let symbols = match kind {
            Kind::Isolated { .. } => 2,
            _ if deep => 1,
            _ => random.between(1, 3) as usize,
        };
        let active_ns = random.between(1_000, 3_000) * MILLI_NS;
        let calm_ns = START_NS + active_ns * 9 / 10;
        let mut venue_random = random.split();
        // With a listing the scales are known; without, the first numbers give them.
        let listed = random.coin().then_some(Scales { px: 5, qty: 5 });
        let options = VenueOptions {
            seed,
            symbols,
            rate: random.between(150, 600),
            haste: random.pick(&[2, 5, 10, 20]),
            deep,
            grows: listed.is_none(),
            clump_ns: random.pick(&[0, 100 * MICRO_NS, 5 * MILLI_NS]),
            start_ns: START_NS,
            calm_ns,
            end_ns: START_NS + active_ns,
            faults: if kind == Kind::Ideal { Faults::default() } else { faults(&mut venue_random) },
            faulty: (0..symbols)
                .map(|symbol| match kind {
                    Kind::Isolated { faulty } => faulty && symbol == 0,
                    _ => true,
                })
                .collect(),
        };
        let venue = Venue::new(options, venue_random);

        let now_ns = Arc::new(AtomicU64::new(START_NS));
        let woken = Arc::new(AtomicBool::new(false));
        let wake = Arc::clone(&woken);
        let marks = Arc::new(Marks::new(64, move || wake.store(true, Ordering::Relaxed)));
        let registry = Arc::new(Registry::new(64));
        let epoch = random.between(1, 1_000) as u32;
        let entries = registry
            .register(VenueName::Sim, &venue.names(), epoch, START_NS)
            .expect("there is room");
        let stats = Arc::new(Stats::default());
        let feed = Feed::new(FeedOptions {
            venue: VenueName::Sim,
            instruments: entries.iter().map(|entry| (Arc::clone(entry), listed)).collect(),
            depth: None,
            trades: None,
            marks: vec![Arc::clone(&marks)],
            stats: stats.feed(VenueName::Sim),
            seed: random.below(u64::MAX),
        });
        let clock = Arc::clone(&now_ns);
        let shard = Shard::new(ShardOptions {
            id: 0,
            registry,
            marks: Arc::clone(&marks),
            stats: Arc::clone(&stats),
            time: Box::new(move || clock.load(Ordering::Relaxed)),
        });
        let clients = clients(&mut random, kind, &entries);
        Self {
            kind,
            now_ns,
            venue,
            feed,
            entries,
            feed_ns: START_NS,
            feed_wake_ns: Nanos::MAX,
            marks,
            woken,
            shard,
            feed_stats: stats.feed(VenueName::Sim),
            shard_stats: stats.shard(0),
            stats,
            shard_due_ns: 0,
            rounds: 0,
            busy_ns: Vec::new(),
            polled: BTreeMap::new(),
            records: clients.iter().map(|_| Record::new()).collect(),
            clients,
            ended: BTreeMap::new(),
            bytes: 0,
            importunate: false,
            is_over: false,
            calm_ns,
            seen_silence_ns: 0,
            report: Report::default(),
            digest: std::hash::DefaultHasher::new(),
            keeps_events: false,
            events: VecDeque::new(),
            random,
        }
    }

    fn now(&self) -> Nanos {
        self.now_ns.load(Ordering::Relaxed)
    }

    fn note(&mut self, event: fmt::Arguments<'_>) {
        if !self.keeps_events {
            return;
        }
        if self.events.len() == EVENTS_SHOWN {
            self.events.pop_front();
        }
        let at_us = (self.now() - START_NS) / MICRO_NS;
        self.events.push_back(format!("{at_us:>10} us  {event}"));
    }

    fn run(&mut self) -> Checked<Report> {
        let mut rested_ns = None;
        loop {
            let is_at_rest = self.step()?;
            let Some(ended_ns) = self.venue.ended_ns().filter(|_| is_at_rest) else { continue };
            let now = self.now();
            if self.has_settled() {
                let since_ns = *rested_ns.get_or_insert(now);
                if now >= since_ns + WATCHED_NS {
                    return self.finish();
                }
            } else {
                rested_ns = None;
            }
            hold(now < ended_ns + SETTLED_NS_MAX, "I8", || {
                "the gateway does not settle".to_owned()
            })?;
        }
    }

    /// Lets everybody act once, and time pass when nobody has anything to do; returns whether the
    /// shard is at rest.
    fn step(&mut self) -> Checked<bool> {
        while self.venue.next_ns().min(self.feed_wake_ns) <= self.now() {
            self.feed_ns = self.venue.next_ns().min(self.feed_wake_ns).max(self.feed_ns);
            self.run_venue(self.feed_ns);
        }
        self.run_clients(self.now());
        if !self.run_shard()? {
            return Ok(false);
        }
        self.is_right_at_rest()?;
        let clients = self.clients.iter().map(Client::next_ns);
        let next_ns = self.venue.next_ns().min(self.feed_wake_ns).min(self.shard_due_ns);
        self.now_ns.fetch_max(clients.fold(next_ns, Nanos::min), Ordering::Relaxed);
        Ok(true)
    }

    fn run_venue(&mut self, now: Nanos) {
        while let Some(arrival) = self.venue.take_due(now) {
            match arrival {
                Arrival::Connected => {
                    self.note(format_args!("connected to the venue"));
                    self.venue.tell_all(now);
                    self.feed.on_connected(now);
                    self.attend(now);
                }
                Arrival::Cut => self.cut(Why::Disconnected, now),
                Arrival::Ping => {
                    self.venue.tell_all(now);
                    self.feed.on_heard(now);
                    self.end_batch(now);
                }
                Arrival::Image(image) => {
                    let decoded = image.image.map(|(body, id)| {
                        let mut batch = EventBatch::default();
                        let mut body = body.into_bytes();
                        let decode = self.feed.decoder().image_decoder();
                        decode(image.instrument, &mut body, &mut batch).expect("it is an image");
                        (batch, id)
                    });
                    let id = decoded.as_ref().map(|(_, id)| *id);
                    self.note(format_args!("image {id:?} of instrument {}", image.instrument.0));
                    self.venue.received_image(image.instrument, now);
                    let is_dead = image.connection != self.feed.connection();
                    let batch = decoded.map(|(batch, _)| batch);
                    self.feed.on_image(image.instrument, image.connection, batch, now);
                    // One that came too late, or too early for the stream, told nothing.
                    let place = image.instrument.index();
                    let is_joined =
                        !is_dead && self.feed.instruments()[place].next().book.status.state.flows();
                    match id {
                        Some(id) if is_joined => self.venue.truth[place].receive_book(id, now),
                        // What an earlier connection asked for says nothing about this one.
                        _ if is_dead => {}
                        _ => self.venue.images_due[place] += 1,
                    }
                    self.end_batch(now);
                }
                Arrival::Message(delivery) => self.deliver(delivery, now),
            }
        }
        if self.feed_wake_ns <= now {
            self.venue.tell_all(now);
            self.end_batch(now);
        }
        if self.venue.silence_ns > self.seen_silence_ns {
            let more_ns = self.venue.silence_ns - self.seen_silence_ns;
            self.seen_silence_ns = self.venue.silence_ns;
            self.note(format_args!("the venue is silent for {} s", more_ns / SECOND_NS));
            for client in &mut self.clients {
                client.postpone(more_ns);
            }
        }
    }

    fn deliver(&mut self, delivery: Delivery, now: Nanos) {
        let Delivery { payload, told, .. } = delivery;
        match told {
            Told::Answer => self.note(format_args!("message: {payload:.60}")),
            _ => self.note(format_args!("{told:?}")),
        }
        self.venue.received(told, now);
        if !matches!(told, Told::Lost(_)) {
            self.report.messages += 1;
            self.feed.on_message(&mut payload.into_bytes(), now);
        }
        // The batch goes on as long as the socket has more. What arrives at one moment is one batch
        // where what happens to one message must not change when the next is published.
        let next_ns = self.venue.next_message_ns();
        let is_whole = matches!(self.kind, Kind::Isolated { .. });
        let goes_on =
            next_ns <= now || (!is_whole && next_ns < now + BATCH_NS_MAX && self.random.coin());
        if !goes_on || (!is_whole && self.feed.is_batch_full(now)) {
            self.end_batch(now);
        }
    }

    fn end_batch(&mut self, now: Nanos) {
        self.feed.publish(now);
        for symbol in &mut self.venue.truth {
            symbol.publish();
        }
        self.attend(now);
    }

    fn cut(&mut self, why: Why, now: Nanos) {
        self.note(format_args!("the connection to the venue is lost: {why:?}"));
        self.venue.cut(now);
        self.venue.tell_all(now);
        self.feed.on_disconnected(why, now);
        self.feed_wake_ns = Nanos::MAX;
    }

    /// Lets time pass for the feed and carries out what it wants.
    fn attend(&mut self, now: Nanos) {
        self.feed_wake_ns =
            self.feed.on_time(now).checked_next_multiple_of(MICRO_NS).unwrap_or(Nanos::MAX);
        for request in self.feed.take_requests() {
            match request {
                Request::Send(_) => self.venue.subscribe(now),
                Request::Image { instrument, path, connection } => {
                    self.note(format_args!("the feed asks for {path}"));
                    self.report.resyncs += 1;
                    let has_reason = self.venue.request_image(instrument, connection, now);
                    // Where worlds are compared, that is to find what is wrong.
                    let is_compared = matches!(self.kind, Kind::Isolated { .. });
                    self.importunate |= !has_reason && !is_compared;
                }
                Request::Decode { .. } => unreachable!("the market's messages are short"),
                Request::Answer(_) => unreachable!("the market asks nothing"),
                Request::HandOver | Request::Reconnect => return self.cut(Why::Disconnected, now),
            }
        }
    }

    fn run_clients(&mut self, now: Nanos) {
        let acts = now < self.calm_ns + self.venue.silence_ns;
        for index in 0..self.clients.len() {
            let client = &mut self.clients[index];
            if client.line.is_none() && self.is_over {
                client.connects_ns = Nanos::MAX;
            } else if client.line.is_none() && client.connects_ns <= now {
                let end = client.new_end(Arc::clone(&self.now_ns));
                let key = self.shard.accept(Box::new(end.clone()), Encoding::Json, &[]);
                let records = matches!(self.kind, Kind::Isolated { .. });
                client.connected(key, end, now, records);
                self.shard_due_ns = now;
                self.report.connections += 1;
                self.note(format_args!("client {index} connects"));
                continue;
            }
            if client.next_ns() <= now {
                client.act(now, acts);
            }
        }
    }

    /// Drives the shard as its loop does, once round; returns whether it sleeps and no socket wants
    /// anything.
    fn run_shard(&mut self) -> Checked<bool> {
        let began_ns = self.now();
        let is_woken = self.woken.swap(false, Ordering::Relaxed);
        let mut writable = Vec::new();
        let mut readable = Vec::new();
        for line in self.clients.iter().filter_map(|client| client.line.as_ref()) {
            let (reads, writes) = self.polled.get(&line.key).copied().unwrap_or_default();
            if writes && line.end.is_writable() {
                writable.push(line.key);
            }
            if reads && line.end.is_readable() {
                readable.push(line.key);
            }
        }
        let is_called = !(writable.is_empty() && readable.is_empty());
        if !is_called && !is_woken && self.shard_due_ns > began_ns {
            self.rounds = 0;
            return Ok(true);
        }
        self.marks.unpark();
        for key in writable {
            self.shard.on_writable(key);
        }
        for key in readable {
            self.shard.on_readable(key);
        }
        let due_ns = self.shard.turn();
        self.settle()?;
        let now = self.now();
        let until_ns = due_ns.min(now + SLEEP_NS_MAX);
        self.shard_due_ns = until_ns;
        if until_ns > now && !self.marks.park(until_ns) {
            self.shard_due_ns = now;
        }
        self.rounds = if now > began_ns { 0 } else { self.rounds + 1 };
        if now > began_ns {
            self.busy_ns.push((began_ns, now));
        }
        hold(self.rounds < ROUNDS_MAX, "I9", || "the shard does not come to rest".to_owned())?;
        Ok(false)
    }

    /// Takes what was sent, and watches each connection for what it is to be watched for now.
    fn settle(&mut self) -> Checked {
        let now = self.now();
        for index in 0..self.clients.len() {
            let client = &mut self.clients[index];
            let Some(line) = &mut client.line else { continue };
            let sent = line.end.take_sent();
            let mut replies = Vec::new();
            let (mut bytes, mut result) = (0, Ok(()));
            let before = line.session.counts.updates;
            for taken in &sent {
                self.digest.write_u64(now);
                self.digest.write(&taken.bytes);
                bytes += taken.bytes.len();
                result = line.session.absorb(taken, now, &self.venue.truth, &mut replies);
                if result.is_err() {
                    break;
                }
            }
            let updates = line.session.counts.updates - before;
            if bytes > 0 {
                client.reply(replies);
                self.note(format_args!("client {index} is sent {bytes} bytes, {updates} updates"));
            }
            result.map_err(|violation| Violation {
                what: format!("client {index}: {}", violation.what),
                ..violation
            })?;
        }
        for key in self.shard.take_touched() {
            let Some(connection) = self.shard.connection(key) else { continue };
            let is_closing = matches!(connection.phase, Phase::Closing(_));
            let wanted = (connection.may_read() || is_closing, connection.is_blocked());
            self.polled.insert(key, wanted);
        }
        for (key, connection) in self.shard.take_ended() {
            self.polled.remove(&key);
            let ended = self
                .clients
                .iter_mut()
                .position(|client| client.line.as_ref().is_some_and(|line| line.key == key));
            let Some(index) = ended else { continue };
            self.note(format_args!("client {index} is gone"));
            let Some(mut line) = self.clients[index].disconnected(now) else { continue };
            // What the client was not sent may have told it another cause.
            let cause = line.cause().filter(|_| !connection.is_blocked());
            *self.ended.entry(cause).or_default() += 1;
            self.bytes += line.end.bytes();
            self.report.counts.add(&line.session.finish()?);
            self.report.unseen += u64::from(line.is_reset || connection.is_blocked());
            if let Some(record) = line.session.record.take() {
                self.records[index].extend(record);
            }
        }
        Ok(())
    }
}

fn run(seed: u64, kind: Kind) -> Result<Report, Failure> {
    World::new(seed, kind).run().map_err(|violation| failure(seed, kind, violation))
}

/// How a world comes to fail: it is run again, and its events kept.
fn failure(seed: u64, kind: Kind, violation: Violation) -> Failure {
    let mut world = World::new(seed, kind);
    world.keeps_events = true;
    // It fails again, or differs in no more than what is compared with another world.
    let _ = world.run();
    Failure { seed, violation, events: world.events }
}
