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

use tickfan_core::market::{Channel, EventBatch, Nanos, Scales, State, Venue as VenueName, Why};
use tickfan_core::snapshot::marks::Marks;
use tickfan_core::snapshot::{Entry, Registry};
use tickfan_core::wire::Encoding;

mod random;
mod truth;
mod venue;
mod pipe;
mod checker;
mod client;

use checker::{Asked, Checked, Counts, Overdue, Shows, Violation, hold};
use client::{Client, Habits};
use random::Random;
use venue::{Arrival, Delivery, Faults, MICRO_NS, Told, Venue, VenueOptions};

use crate::fanout::connection::Phase;
use crate::fanout::shard::{Shard, ShardOptions};
use crate::fanout::table::ConnectionKey;
use crate::feed::{Feed, FeedOptions, Request};
use crate::limits::{
    BATCH_NS_MAX, BODY_BYTES_SHARED, MILLI_NS, READ_BYTES_PER_TURN, SECOND_NS, SEND_BYTES,
    SLEEP_NS_MAX,
};
use crate::mutant::{self, Mutant};
use crate::stats::{ShardStats, Stats};

/// When every world begins.
const START_NS: Nanos = 1_790_000_000 * SECOND_NS;

/// What a log of a failure shows.
const EVENTS_SHOWN: usize = 50;

/// Rounds that a shard may need to come to rest.
const ROUNDS_MAX: usize = 10_000;

/// How long after the market's end everything must have come to rest: the longest pause before an
/// image is asked for again, and what a slow reader needs.
const SETTLED_NS_MAX: Nanos = 200 * SECOND_NS;

/// How long after its last change a world is watched.
const WATCHED_NS: Nanos = 6 * SECOND_NS;

/// Room for the head of a frame and the answers before it.
const HEAD_BYTES: usize = 4 << 10;

/// What kind of world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// With faults and readers of every kind.
    Wild,
    /// No fault, and everybody reads at once.
    Ideal,
}

/// What a run counted.
#[derive(Debug, Clone, Copy, Default)]
struct Report {
    counts: Counts,
    messages: u64,
    resyncs: u64,
    connections: u64,
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
    now_ns: Arc<AtomicU64>,
    random: Random,
    venue: Venue,
    feed: Feed,
    entries: Vec<Arc<Entry>>,
    feed_wake_ns: Nanos,
    marks: Arc<Marks>,
    woken: Arc<AtomicBool>,
    shard: Shard,
    shard_stats: ShardStats,
    shard_due_ns: Nanos,
    /// What the poller watches each connection for: reading, writing.
    polled: BTreeMap<ConnectionKey, (bool, bool)>,
    clients: Vec<Client>,
    calm_ns: Nanos,
    seen_silence_ns: Nanos,
    report: Report,
    digest: std::hash::DefaultHasher,
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

impl World {
    fn new(seed: u64, kind: Kind) -> Self {
        let mut random = Random::new(seed);
        let deep = random.below(8) == 0;
        let symbols = if deep { 1 } else { random.between(1, 3) as usize };
        let active_ns = random.between(1_000, 3_000) * MILLI_NS;
        let calm_ns = START_NS + active_ns * 9 / 10;
        let mut venue_random = random.split();
        let options = VenueOptions {
            seed,
            symbols,
            rate: random.between(150, 600),
            haste: random.pick(&[2, 5, 10, 20]),
            deep,
            clump_ns: random.pick(&[0, 100 * MICRO_NS, 5 * MILLI_NS]),
            start_ns: START_NS,
            calm_ns,
            end_ns: START_NS + active_ns,
            faults: if kind == Kind::Wild { faults(&mut venue_random) } else { Faults::default() },
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
        // With a listing the scales are known; without, the first numbers give them.
        let listed = random.coin().then_some(Scales { px: 5, qty: 5 });
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
        let names: Vec<String> =
            entries.iter().map(|entry| entry.instrument.symbol.to_string()).collect();
        let leaves = random.coin();
        let clients = (0..random.between(3, 7))
            .map(|_| {
                let mut own = random.split();
                let habits = match kind {
                    Kind::Wild => Habits::draw(&mut own, leaves),
                    Kind::Ideal => Habits::fast(&mut own),
                };
                Client::new(habits, names.clone(), own, START_NS)
            })
            .collect();
        Self {
            now_ns,
            random,
            venue,
            feed,
            entries,
            feed_wake_ns: Nanos::MAX,
            marks,
            woken,
            shard,
            shard_stats: stats.shard(0),
            shard_due_ns: 0,
            polled: BTreeMap::new(),
            clients,
            calm_ns,
            seen_silence_ns: 0,
            report: Report::default(),
            digest: std::hash::DefaultHasher::new(),
            events: VecDeque::new(),
        }
    }

    fn now(&self) -> Nanos {
        self.now_ns.load(Ordering::Relaxed)
    }

    fn note(&mut self, event: fmt::Arguments<'_>) {
        if self.events.len() == EVENTS_SHOWN {
            self.events.pop_front();
        }
        let at_us = (self.now() - START_NS) / MICRO_NS;
        self.events.push_back(format!("{at_us:>10} us  {event}"));
    }

    fn run(&mut self) -> Checked<Report> {
        let mut rested_ns = None;
        loop {
            let now = self.next_ns().max(self.now());
            self.now_ns.store(now, Ordering::Relaxed);
            self.run_venue(now);
            self.run_clients(now);
            self.run_shard(now)?;
            self.is_right_at_rest(now)?;
            if let Some(ended_ns) = self.venue.ended_ns() {
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
    }

    fn next_ns(&self) -> Nanos {
        let clients = self.clients.iter().map(Client::next_ns);
        let next = self.venue.next_ns().min(self.feed_wake_ns).min(self.shard_due_ns);
        clients.fold(next, Nanos::min)
    }

    fn run_venue(&mut self, now: Nanos) {
        while let Some(arrival) = self.venue.take_due(now) {
            match arrival {
                Arrival::Connected => {
                    self.note(format_args!("connected to the venue"));
                    self.feed.on_connected(now);
                    self.attend(now);
                }
                Arrival::Cut => self.cut(Why::Disconnected, now),
                Arrival::Ping => {
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
                    self.feed.on_image(image.instrument, decoded.map(|(batch, _)| batch), now);
                    // One that came too late, or too early for the stream, told nothing.
                    let place = image.instrument.index();
                    let is_joined = self.feed.instruments()[place].next().book.status.state.flows();
                    if let (Some(id), true) = (id, is_joined) {
                        self.venue.truth[place].receive_book(id, now);
                    }
                    self.end_batch(now);
                }
                Arrival::Message(delivery) => self.deliver(delivery, now),
            }
        }
        if self.feed_wake_ns <= now {
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
            Told::Depth(..) | Told::Ticker(..) | Told::Trade(..) => {
                self.note(format_args!("{told:?}"));
            }
            Told::Nothing => self.note(format_args!("message: {payload:.60}")),
        }
        self.report.messages += 1;
        self.venue.received(told, now);
        self.feed.on_message(&mut payload.into_bytes(), now);
        // The batch goes on as long as the socket has more.
        let next_ns = self.venue.next_message_ns();
        let goes_on = next_ns <= now || (next_ns < now + BATCH_NS_MAX && self.random.coin());
        if !goes_on || self.feed.is_batch_full(now) {
            self.end_batch(now);
        }
    }

    fn end_batch(&mut self, now: Nanos) {
        self.feed.publish(now);
        self.attend(now);
    }

    fn cut(&mut self, why: Why, now: Nanos) {
        self.note(format_args!("the connection to the venue is lost: {why:?}"));
        self.venue.cut(now);
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
                Request::Image { instrument, path } => {
                    self.note(format_args!("the feed asks for {path}"));
                    self.report.resyncs += 1;
                    self.venue.request_image(instrument, now);
                }
                Request::Reconnect => return self.cut(Why::Disconnected, now),
            }
        }
    }

    fn run_clients(&mut self, now: Nanos) {
        let acts = now < self.calm_ns + self.venue.silence_ns;
        for index in 0..self.clients.len() {
            let client = &mut self.clients[index];
            if client.line.is_none() && client.connects_ns <= now {
                let end = client.new_end();
                let key = self.shard.accept(Box::new(end.clone()), Encoding::Json, &[]);
                client.connected(key, end, now);
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

    /// Drives the shard as its loop does, until it sleeps and no socket wants anything.
    fn run_shard(&mut self, now: Nanos) -> Checked {
        for _ in 0..ROUNDS_MAX {
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
            if !is_called && !is_woken && self.shard_due_ns > now {
                return Ok(());
            }
            self.marks.unpark();
            for key in writable {
                self.shard.on_writable(key);
            }
            for key in readable {
                self.shard.on_readable(key);
            }
            let due_ns = self.shard.turn();
            self.settle(now)?;
            let until_ns = due_ns.min(now + SLEEP_NS_MAX);
            self.shard_due_ns = until_ns;
            if until_ns > now && !self.marks.park(until_ns) {
                self.shard_due_ns = now;
            }
        }
        hold(false, "I9", || "the shard does not come to rest".to_owned())
    }

    /// Takes what was sent, and watches each connection for what it is to be watched for now.
    fn settle(&mut self, now: Nanos) -> Checked {
        for index in 0..self.clients.len() {
            let client = &mut self.clients[index];
            let Some(line) = &mut client.line else { continue };
            let sent = line.end.take_sent();
            if sent.is_empty() {
                continue;
            }
            self.digest.write_u64(now);
            self.digest.write(&sent);
            let mut replies = Vec::new();
            let before = line.session.counts.updates;
            let result = line.session.absorb(&sent, now, &self.venue.truth, &mut replies);
            let updates = line.session.counts.updates - before;
            client.reply(replies);
            self.note(format_args!(
                "client {index} is sent {} bytes, {updates} updates",
                sent.len()
            ));
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
        for (key, _) in self.shard.take_ended() {
            self.polled.remove(&key);
            let ended = self
                .clients
                .iter_mut()
                .position(|client| client.line.as_ref().is_some_and(|line| line.key == key));
            let Some(index) = ended else { continue };
            self.note(format_args!("client {index} is gone"));
            let Some(line) = self.clients[index].disconnected(now) else { continue };
            let is_expected =
                line.is_aborted || line.is_leaving || line.session.closed == Some(4005);
            hold(is_expected, "I10", || {
                format!("client {index} is gone with {:?}", line.session.closed)
            })?;
            self.report.counts.add(&line.session.counts);
        }
        Ok(())
    }

    /// What must hold of every connection that took all it was sent, whenever nothing is left to do.
    fn is_right_at_rest(&mut self, now: Nanos) -> Checked {
        let subscriptions: usize = self
            .clients
            .iter()
            .filter_map(|client| Some(client.line.as_ref()?.session.views.len()))
            .sum();
        for (index, client) in self.clients.iter().enumerate() {
            let Some(line) = &client.line else { continue };
            let Some(connection) = self.shard.connection(line.key) else { continue };
            let bytes = connection.blocked_bytes();
            let bytes_max = SEND_BYTES + BODY_BYTES_SHARED + HEAD_BYTES + READ_BYTES_PER_TURN;
            hold(bytes <= bytes_max, "I9", || format!("client {index} holds {bytes} bytes"))?;
            let wanted = (connection.may_read(), connection.is_blocked());
            let is_watched = self.polled.get(&line.key) == Some(&wanted);
            let is_closing = matches!(connection.phase, Phase::Closing(_));
            hold(is_watched || is_closing, "I9", || {
                format!("client {index} wants {wanted:?} and the poller was not told")
            })?;
            if connection.is_blocked() || is_closing || line.is_aborted {
                continue;
            }
            for (number, view) in &line.session.views {
                self.is_up_to_date(index, *number, view, now)?;
            }
        }
        let lanes = self.shard.lane_count();
        let can_be_more =
            self.clients.iter().filter_map(|client| client.line.as_ref()).any(|line| {
                self.shard.connection(line.key).is_some_and(|connection| connection.is_blocked())
            });
        hold(lanes <= subscriptions || can_be_more, "I9", || {
            format!("{lanes} lanes for {subscriptions} subscriptions")
        })
    }

    /// The view's reader was told every state, and waits for nothing beyond its budget.
    fn is_up_to_date(
        &self,
        client: usize,
        number: u32,
        view: &checker::View,
        now: Nanos,
    ) -> Checked {
        let snapshot = self.entries[view.symbol].load();
        let truth = &self.venue.truth[view.symbol];
        let channel = match view.shows {
            Shows::Book(_) => Channel::Book,
            Shows::Bbo => Channel::Bbo,
            Shows::Trades => Channel::Trades,
        };
        let status = snapshot.status(channel);
        let is_told = view.state == status.state.name() && view.epoch == status.epoch;
        hold(is_told, "I6", || {
            format!(
                "client {client} view {number} {:?} holds {} of epoch {}, and it is {} of epoch {}",
                view.shows,
                view.state,
                view.epoch,
                status.state.name(),
                status.epoch
            )
        })?;
        if !status.state.has_whole() {
            return Ok(());
        }
        hold(view.is_whole || view.shows == Shows::Trades, "I8", || {
            format!("client {client} view {number} {:?} was not sent its whole", view.shows)
        })?;
        let overdue = match view.shows {
            Shows::Book(_) => view.behind(truth, snapshot.book.sequence.unwrap_or(0)),
            Shows::Bbo => view.behind(truth, snapshot.bbo.sequence.unwrap_or(0)),
            Shows::Trades => view.behind_trades(truth, snapshot.trades.tail.newest()),
        };
        let Overdue { certain_ns: Some(since_ns), .. } = overdue else { return Ok(()) };
        // What was received while updates did not flow had to wait.
        let since_ns = since_ns.max(status.since_ns);
        hold(now <= since_ns + view.budget_ns, "I5", || {
            format!(
                "client {client} view {number} {:?} waits for {} us under a budget of {} us",
                view.shows,
                (now - since_ns) / MICRO_NS,
                view.budget_ns / MICRO_NS
            )
        })
    }

    /// Everything is live, and every client's socket took all that it was sent.
    fn has_settled(&self) -> bool {
        let is_live = self.entries.iter().all(|entry| {
            let snapshot = entry.load();
            Channel::ALL.iter().all(|channel| snapshot.status(*channel).state == State::Live)
        });
        is_live
            && self.clients.iter().all(|client| {
                client.line.as_ref().is_some_and(|line| {
                    let connection = self.shard.connection(line.key);
                    connection.is_some_and(|connection| !connection.is_blocked())
                })
            })
    }

    fn finish(&mut self) -> Checked<Report> {
        for (index, client) in self.clients.iter().enumerate() {
            let Some(line) = &client.line else { continue };
            self.report.counts.add(&line.session.counts);
            for view in line.session.views.values() {
                view.is_final(&self.venue.truth[view.symbol]).map_err(|violation| Violation {
                    what: format!("client {index}: {}", violation.what),
                    ..violation
                })?;
            }
            let mut asked = line.session.asked.values();
            let unanswered = asked.find(|(asked, _)| *asked != Asked::Image);
            hold(unanswered.is_none() && line.session.pings.is_empty(), "I8", || {
                format!("client {index} has no answer to {unanswered:?}")
            })?;
            let session = &line.session;
            let quiet_ns = self.now() - session.frame_ns;
            hold(session.heartbeat_ns == 0 || quiet_ns <= session.heartbeat_ns, "I8", || {
                format!("client {index} has had no heartbeat for {quiet_ns} ns")
            })?;
        }
        // What was on its way to a client that left was counted and never seen.
        let is_whole = self.clients.iter().all(|client| !client.habits.leaves);
        let (counts, stats) = (self.report.counts, &self.shard_stats);
        let late = stats.late_gateway.get() + stats.late_client.get();
        let counted = [stats.updates.get(), stats.merged.get(), stats.frames.get(), late];
        let seen = [counts.updates, counts.merged, counts.frames, counts.late];
        hold(!is_whole || counted == seen, "I4", || {
            format!("updates, merged, frames, late: {counted:?} are counted, {seen:?} were seen")
        })?;
        self.report.digest = self.digest.finish();
        Ok(self.report)
    }
}

fn run(seed: u64, kind: Kind) -> Result<Report, Failure> {
    let mut world = World::new(seed, kind);
    world.run().map_err(|violation| Failure { seed, violation, events: world.events })
}

/// Seeds under every `cargo test`.
const SEEDS: u64 = 200;

/// Seeds within which every planted bug must be found.
const MUTANT_SEEDS: u64 = 50;

/// A number that the environment gives.
fn given(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

/// `TICKFAN_SEED=77` runs that seed alone, `TICKFAN_SEEDS=5000` so many.
#[test]
fn every_frame_is_right_at_every_seed() {
    let seeds = match given("TICKFAN_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..given("TICKFAN_SEEDS").unwrap_or(SEEDS),
    };
    let all = &seeds;
    let halves = std::thread::scope(|scope| {
        let halves = [0, 1].map(|half| {
            scope.spawn(move || {
                let own = all.clone().skip(half).step_by(2);
                own.map(|seed| run(seed, Kind::Wild)).collect::<Vec<_>>()
            })
        });
        halves.map(|half| half.join().expect("a world panicked"))
    });
    let mut sum = Report::default();
    let mut failures: Vec<Failure> = Vec::new();
    for result in halves.into_iter().flatten() {
        match result {
            Ok(report) => {
                sum.counts.add(&report.counts);
                sum.messages += report.messages;
                sum.resyncs += report.resyncs;
                sum.connections += report.connections;
            }
            Err(failure) => failures.push(failure),
        }
    }
    failures.sort_by_key(|failure| failure.seed);
    for Failure { seed, violation: Violation { invariant, what }, .. } in &failures {
        println!("seed {seed}: {invariant}: {what:.200}");
    }
    if let Some(first) = failures.first() {
        panic!("{} seeds of {seeds:?} fail; the first:\n{first:?}", failures.len());
    }
    println!("seeds {seeds:?}: {sum:?}");
}

#[test]
fn fast_readers_of_a_whole_market_are_never_late() {
    for seed in 0..20 {
        let report = run(seed, Kind::Ideal).unwrap_or_else(|failure| panic!("\n{failure:?}"));
        assert_eq!(report.counts.late, 0, "seed {seed}");
        assert_eq!(report.counts.trades_lost, 0, "seed {seed}");
        assert!(report.counts.deltas > 0, "seed {seed}");
    }
}

#[test]
fn one_seed_gives_the_same_bytes_twice() {
    for seed in 0..5 {
        let digests = [(); 2].map(|()| run(seed, Kind::Wild).map(|report| report.digest).ok());
        assert_eq!(digests[0], digests[1], "seed {seed}");
    }
}

/// Runs seeds until one finds the planted bug.
fn is_caught(mutant: Mutant) {
    mutant::plant(Some(mutant));
    let caught = (0..MUTANT_SEEDS).find_map(|seed| run(seed, Kind::Wild).err());
    mutant::plant(None);
    let Some(failure) = caught else { panic!("{mutant:?} is not caught by {MUTANT_SEEDS} seeds") };
    println!("{mutant:?} is caught at seed {} by {}", failure.seed, failure.violation.invariant);
}

#[test]
fn a_missing_gap_check_is_caught() {
    is_caught(Mutant::NoGapCheck);
}

#[test]
fn a_publication_before_the_end_of_an_event_is_caught() {
    is_caught(Mutant::PublishBeforeEventEnd);
}

#[test]
fn a_skipped_body_is_caught() {
    is_caught(Mutant::SkipBody);
}

#[test]
fn an_image_of_an_older_turn_is_caught() {
    is_caught(Mutant::OldImage);
}
