//! A shard: one thread's subscribers. Dirty marks in, frames out.
//!
//! It alone owns a disjoint set of connections, with their seats and lanes. Everything here is a
//! function of times, readiness and marks: `fanout.rs` drives it with a poller and a clock, the
//! simulation with virtual ones.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;

use tickfan_core::market::{Channel, InstrumentId, Nanos};
use tickfan_core::snapshot::marks::Marks;
use tickfan_core::snapshot::{Registry, Snapshot};
use tickfan_core::view::{BUDGETS_MS, BudgetClass, View};
use tickfan_core::wire::Encoding;
use tickfan_core::wire::message::{Control, HelloLimits};

use super::class::Classes;
use super::connection::{Cause, Connection, Phase};
use super::lane::{Lane, Maker};
use super::seat::{Seat, Standing, Wants, on_grid};
use super::send::{Frames, Sent};
use super::socket::Socket;
use super::survey::Survey;
use super::table::{ConnectionKey, LaneKey, SeatKey, Table};
use crate::limits::{
    CLIENT_MESSAGE_BYTES_MAX, CLIENT_MESSAGES_PER_S, LANES_PER_LOOK, LOOKS_PER_TURN, MILLI_NS,
    PARTS_PER_LOOK, PING_EVERY_NS, READ_BYTES_PER_TURN, SENDS_PER_LOOK, STALL_NS_MAX,
    SUBSCRIPTIONS_MAX,
};
use crate::mutant::{Mutant, planted};
use crate::stats::{ShardStats, SharedStats};

/// Who reads a lane: a seat, and the index among its subscriptions.
#[derive(Debug, Clone, Copy)]
pub struct Subscriber {
    /// The seat.
    pub seat: SeatKey,
    /// The index among its subscriptions.
    pub index: u32,
}

/// What a shard is made of.
pub struct ShardOptions {
    /// Its number.
    pub id: u32,
    /// The instruments.
    pub registry: Arc<Registry>,
    /// Its dirty marks.
    pub marks: Arc<Marks>,
    /// All counters.
    pub stats: SharedStats,
    /// The clock.
    pub time: Box<dyn Fn() -> Nanos + Send>,
}

impl std::fmt::Debug for ShardOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShardOptions").field("id", &self.id).finish_non_exhaustive()
    }
}

/// One thread's subscribers.
pub struct Shard {
    id: u32,
    pub(super) registry: Arc<Registry>,
    pub(super) marks: Arc<Marks>,
    pub(super) stats: ShardStats,
    pub(super) totals: SharedStats,
    time: Box<dyn Fn() -> Nanos + Send>,
    pub(super) maker: Maker,
    pub(super) connections: Table<ConnectionKey, Connection>,
    pub(super) seats: Table<SeatKey, Seat>,
    pub(super) lanes: Table<LaneKey, Lane<Subscriber>>,
    pub(super) lane_of: HashMap<(View, BudgetClass), LaneKey>,
    /// By instrument and channel.
    pub(super) lanes_of: HashMap<(InstrumentId, Channel), Vec<LaneKey>>,
    pub(super) classes: Classes,
    pub(super) timers: BinaryHeap<Reverse<(Nanos, ConnectionKey)>>,
    /// Connections with a request that is being carried out, or bytes not looked at yet.
    busy: VecDeque<ConnectionKey>,
    /// Connections whose wish to be polled may have changed.
    pub(super) touched: Vec<ConnectionKey>,
    pub(super) ended: Vec<(ConnectionKey, Connection)>,
    pub(super) frames: Frames,
    pub(super) joining: Vec<SeatKey>,
    read_buffer: Vec<u8>,
    sessions: u64,
    /// An operator's look at all connections, while it is under way.
    pub(super) survey: Option<Survey>,
}

impl std::fmt::Debug for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shard")
            .field("id", &self.id)
            .field("connections", &self.connections.len())
            .field("lanes", &self.lanes.len())
            .finish_non_exhaustive()
    }
}

impl Shard {
    /// A shard without connections.
    pub fn new(options: ShardOptions) -> Self {
        Self {
            id: options.id,
            registry: options.registry,
            marks: options.marks,
            stats: options.stats.shard(options.id),
            classes: Classes::new(&options.stats),
            totals: options.stats,
            time: options.time,
            maker: Maker::default(),
            connections: Table::default(),
            seats: Table::default(),
            lanes: Table::default(),
            lane_of: HashMap::new(),
            lanes_of: HashMap::new(),
            timers: BinaryHeap::new(),
            busy: VecDeque::new(),
            touched: Vec::new(),
            ended: Vec::new(),
            frames: Frames::default(),
            joining: Vec::new(),
            read_buffer: vec![0; READ_BYTES_PER_TURN],
            sessions: 0,
            survey: None,
        }
    }

    pub(super) const fn id(&self) -> u32 {
        self.id
    }

    pub(super) fn now(&self) -> Nanos {
        (self.time)()
    }

    /// A connection by its key.
    pub fn connection(&self, key: ConnectionKey) -> Option<&Connection> {
        self.connections.get(key)
    }

    /// A connection by its key.
    pub fn connection_mut(&mut self, key: ConnectionKey) -> Option<&mut Connection> {
        self.connections.get_mut(key)
    }

    /// How many connections it has.
    pub fn connection_count(&self) -> usize {
        self.connections.len()
    }

    /// How many seats it has.
    pub fn seat_count(&self) -> usize {
        self.seats.len()
    }

    /// How many lanes it has.
    pub fn lane_count(&self) -> usize {
        self.lanes.len()
    }

    /// Takes over a connection that was just upgraded, with the bytes that came behind its request.
    pub fn accept(
        &mut self,
        socket: Box<dyn Socket>,
        encoding: Encoding,
        early: &[u8],
    ) -> ConnectionKey {
        let now = self.now();
        let mut connection = Connection::new(socket, encoding, now);
        connection.pending_mut().unread = early.to_vec();
        self.sessions += 1;
        let hello = Control::Hello {
            protocol: 1,
            gateway: concat!("tickfan/", env!("CARGO_PKG_VERSION")).to_owned(),
            session: format!("{:x}-{:x}-{:x}", now / MILLI_NS, self.id, self.sessions),
            time: now / 1_000,
            limits: HelloLimits {
                subscriptions: SUBSCRIPTIONS_MAX,
                message_bytes: CLIENT_MESSAGE_BYTES_MAX,
                messages_per_s: CLIENT_MESSAGES_PER_S,
            },
            budgets_ms: BUDGETS_MS.to_vec(),
            depths: Control::offered_depths(),
        };
        // The conformance suite wants nothing that it has not sent.
        if cfg!(not(feature = "conformance")) {
            connection.push_control(&hello.to_json());
        }
        let key = self.connections.insert(connection);
        self.totals.connections.inc();
        self.send(key, &[]);
        self.set_timer(key, now + PING_EVERY_NS);
        self.busy.push_back(key);
        self.touched.push(key);
        key
    }

    /// The poller says that there is something to read.
    pub fn on_readable(&mut self, key: ConnectionKey) {
        let now = self.now();
        let mut buffer = std::mem::take(&mut self.read_buffer);
        if let Some(connection) = self.connections.get_mut(key) {
            let may_read = connection.may_read();
            let is_closing = matches!(connection.phase, Phase::Closing(_));
            if may_read || is_closing {
                match connection.socket.recv(&mut buffer) {
                    Ok(None) => {}
                    Ok(Some(0)) | Err(_) => self.end(key, Cause::Gone),
                    // What comes after our close is of no interest, but for the peer's own.
                    Ok(Some(count)) if is_closing => self.read_closing(key, &mut buffer[..count]),
                    Ok(Some(count)) => {
                        connection.read_ns = now;
                        connection.pings_unanswered = 0;
                        self.on_bytes(key, &mut buffer[..count]);
                    }
                }
            }
        }
        self.read_buffer = buffer;
    }

    /// The poller says that the socket takes bytes again.
    pub fn on_writable(&mut self, key: ConnectionKey) {
        let now = self.now();
        let Some(connection) = self.connections.get_mut(key) else { return };
        if !connection.is_blocked() {
            return;
        }
        match connection.flush(now) {
            Ok(taken) => {
                self.stats.bytes.inc_by(taken as u64);
                if !connection.is_blocked() {
                    self.unblock(key);
                }
            }
            Err(_) => self.end(key, Cause::Gone),
        }
    }

    /// The connection did not take all: its seats leave the queues.
    pub(super) fn block(&mut self, key: ConnectionKey, now: Nanos) {
        let mut next = self.first_seat(key);
        while let Some(seat) = next.and_then(|key| self.seats.get_mut(key)) {
            seat.standing = Standing::Blocked;
            next = seat.next;
        }
        self.set_timer(key, now + STALL_NS_MAX);
        self.touched.push(key);
    }

    fn unblock(&mut self, key: ConnectionKey) {
        let mut next = self.first_seat(key);
        while let Some(seat_key) = next {
            let Some(seat) = self.seats.get_mut(seat_key) else { break };
            next = seat.next;
            seat.standing = Standing::Idle;
            if seat.has_news() {
                self.ready(seat_key);
            }
        }
        // A reader that is slower than its data is blocked again by its next send: what it asks must
        // be heard before, or it could never ask for less.
        self.busy.push_back(key);
        self.touched.push(key);
        self.on_readable(key);
    }

    /// Puts a seat with news where it is sent to next.
    pub(super) fn ready(&mut self, key: SeatKey) {
        let Some(seat) = self.seats.get_mut(key) else { return };
        if seat.standing != Standing::Ready && seat.standing != Standing::Blocked {
            seat.standing = Standing::Ready;
            self.classes.push_ready(seat.class, key);
        }
    }

    /// Puts seats back that could not be sent everything.
    pub(super) fn requeue(&mut self, keys: &[SeatKey]) {
        for key in keys {
            if let Some(seat) = self.seats.get_mut(*key)
                && seat.has_news()
                && seat.standing == Standing::Ready
            {
                self.classes.push_ready(seat.class, *key);
            }
        }
    }

    /// Does all that is due; returns when it is to be called again at the latest (0 = at once).
    pub fn turn(&mut self) -> Nanos {
        self.run_timers();
        for _ in 0..LOOKS_PER_TURN {
            let now = self.now();
            self.take_marks(now);
            self.end_grains(now);
            self.end_paces(now);
            self.work();
            self.look_around(now);
            for _ in 0..SENDS_PER_LOOK {
                let Some(seat) = self.classes.next_seat(&self.seats, now) else { break };
                let Some(connection) = self.seats.get(seat).map(|seat| seat.connection) else {
                    continue;
                };
                if self.send(connection, &[seat]) == Sent::Large {
                    // One large image is enough for a look: others wait.
                    break;
                }
            }
            let has_seen_all = self.survey.as_ref().is_none_or(Survey::is_done);
            if self.busy.is_empty() && !self.classes.has_ready() && has_seen_all {
                return self.next_due();
            }
        }
        0
    }

    fn next_due(&self) -> Nanos {
        let timer_ns = self.timers.peek().map_or(Nanos::MAX, |Reverse((due, _))| *due);
        timer_ns.min(self.classes.next_due_ns())
    }

    /// Dirty marks become bodies, at once or after the lane's grain.
    fn take_marks(&mut self, now: Nanos) {
        let marks = Arc::clone(&self.marks);
        marks.take(|id, channel, oldest_ns| {
            // Put back below: a lane that takes a snapshot changes nothing in the list.
            let lanes = self.lanes_of.get_mut(&(id, channel)).map(std::mem::take);
            let lanes = lanes.unwrap_or_default();
            let Some(first) = lanes.first().and_then(|key| self.lanes.get(*key)) else { return };
            let newest = first.entry.load();
            for key in &lanes {
                let Some(lane) = self.lanes.get_mut(*key) else { continue };
                if lane.pending_ns == 0 {
                    lane.pending_ns = oldest_ns;
                }
                let urgent = lane.is_urgent(&newest);
                if urgent || lane.grain_until_ns == 0 {
                    self.advance(*key, Arc::clone(&newest), urgent, now);
                }
            }
            self.lanes_of.insert((id, channel), lanes);
        });
    }

    /// Lanes whose grain has passed make their bodies; only some in one look, because many fall due
    /// at once and others wait.
    fn end_grains(&mut self, now: Nanos) {
        for _ in 0..LANES_PER_LOOK {
            let Some((until_ns, key)) = self.classes.take_grained(now) else { return };
            let Some(lane) = self.lanes.get_mut(key) else { continue };
            if lane.grain_until_ns != until_ns {
                continue;
            }
            lane.grain_until_ns = 0;
            if lane.pending_ns != 0 {
                let newest = lane.entry.load();
                self.advance(key, newest, false, now);
            }
        }
    }

    fn end_paces(&mut self, now: Nanos) {
        while let Some((until_ns, key)) = self.classes.take_paced(now) {
            let Some(seat) = self.seats.get_mut(key) else { continue };
            if seat.standing != Standing::Paced || seat.paced_until_ns() != until_ns {
                continue;
            }
            seat.standing = Standing::Idle;
            if seat.has_news() {
                self.ready(key);
            }
        }
    }

    /// A lane takes the newest snapshot, and its subscribers learn of the news.
    pub(super) fn advance(
        &mut self,
        key: LaneKey,
        newest: Arc<Snapshot>,
        urgent: bool,
        now: Nanos,
    ) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        let pending_ns = lane.pending_ns;
        let bodies = lane.advance(newest, &mut self.maker);
        self.stats.bodies.inc_by(u64::from(bodies));
        self.stats.states_forgotten.inc_by(std::mem::take(&mut lane.states_forgotten));
        if bodies == 0 {
            return;
        }
        let grain_ns = lane.grain_ns();
        if grain_ns > 0 {
            lane.grain_until_ns = on_grid(lane.class, now + grain_ns);
            self.classes.push_grained(lane.class, lane.grain_until_ns, key);
        }
        let oldest_ns = if pending_ns == 0 { now } else { pending_ns };
        let is_trades = lane.view.channel == Channel::Trades;
        for subscriber in &lane.subscribers {
            let Some(seat) = self.seats.get_mut(subscriber.seat) else { continue };
            let Some(seated) = seat.subscriptions.get_mut(subscriber.index as usize) else {
                continue;
            };
            // A first whole is never late; trades that come while their history waits may be.
            let is_first = seated.wants() == Wants::First && !is_trades;
            let is_oldest = seated.oldest_ns == 0 || planted(Mutant::BudgetFromNewest);
            if is_oldest && !is_first {
                seated.oldest_ns = oldest_ns;
            }
            if seat.oldest_ns == 0 {
                seat.oldest_ns = oldest_ns;
            }
            let goes_now = match seat.standing {
                Standing::Idle => true,
                Standing::Paced => urgent,
                Standing::Ready | Standing::Blocked => false,
            };
            if goes_now {
                seat.standing = Standing::Ready;
                self.classes.push_ready(lane.class, subscriber.seat);
            }
        }
    }

    /// Carries out one part of some of the requests under way: a storm of them must not keep others
    /// waiting.
    fn work(&mut self) {
        for _ in 0..self.busy.len().min(PARTS_PER_LOOK) {
            let Some(key) = self.busy.pop_front() else { return };
            if self.work_on(key) {
                self.busy.push_back(key);
            }
            self.touched.push(key);
        }
    }

    pub(super) fn be_busy(&mut self, key: ConnectionKey) {
        self.busy.push_back(key);
    }

    /// Connections whose wish to be polled may have changed since the last call.
    pub fn take_touched(&mut self) -> Vec<ConnectionKey> {
        std::mem::take(&mut self.touched)
    }

    /// Connections that are over since the last call; their sockets are to be dropped.
    pub fn take_ended(&mut self) -> Vec<(ConnectionKey, Connection)> {
        std::mem::take(&mut self.ended)
    }

    /// The shard's dirty marks.
    pub fn marks(&self) -> &Arc<Marks> {
        &self.marks
    }

    /// How much there is of everything.
    #[cfg(test)]
    pub(crate) fn census(&self) -> Census {
        let mut census = Census {
            connections: self.connections.len(),
            places: self.connections.values().map(|one| one.subscriptions as usize).sum(),
            seats: self.seats.len(),
            seats_empty: self.seats.values().filter(|seat| seat.subscriptions.is_empty()).count(),
            seated: self.seats.values().map(|seat| seat.subscriptions.len()).sum(),
            lanes: self.lanes.len(),
            lanes_empty: self.lanes.values().filter(|lane| lane.subscribers.is_empty()).count(),
            subscribers: self.lanes.values().map(|lane| lane.subscribers.len()).sum(),
            timers: self.timers.len(),
            queued: self.busy.len() + self.classes.queued(),
            ..Census::default()
        };
        for lane in self.lanes.values() {
            let [bodies, bytes, states, trades] = lane.log_size();
            census.log_bodies = census.log_bodies.max(bodies);
            census.log_bytes = census.log_bytes.max(bytes);
            census.log_states = census.log_states.max(states);
            census.log_trades = census.log_trades.max(trades);
        }
        census
    }
}

/// How much a shard holds, for the tests of its bounds. Of logs the longest.
#[cfg(test)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Census {
    pub(crate) connections: usize,
    pub(crate) places: usize,
    pub(crate) seats: usize,
    pub(crate) seats_empty: usize,
    pub(crate) seated: usize,
    pub(crate) lanes: usize,
    pub(crate) lanes_empty: usize,
    pub(crate) subscribers: usize,
    pub(crate) timers: usize,
    pub(crate) queued: usize,
    pub(crate) log_bodies: usize,
    pub(crate) log_bytes: usize,
    pub(crate) log_states: usize,
    pub(crate) log_trades: usize,
}
