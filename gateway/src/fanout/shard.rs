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
use tickfan_core::snapshot::{Entry, Registry, Snapshot};
use tickfan_core::view::{BUDGETS_MS, BudgetClass, View};
use tickfan_core::wire::Encoding;
use tickfan_core::wire::message::{Control, HelloLimits};
use tickfan_core::ws;

use super::class::Classes;
use super::connection::{Cause, Connection, Phase};
use super::lane::{Lane, Maker};
use super::seat::{Begin, Bridge, Ended, Seat, Seated, Standing, Wants, on_grid};
use super::send::{Frames, Sent};
use super::socket::Socket;
use super::table::{ConnectionKey, LaneKey, SeatKey, Table};
use crate::limits::{
    CLIENT_MESSAGE_BYTES_MAX, CLIENT_MESSAGES_PER_S, CLOSE_LINGER_NS, DRAIN_NS, DRAIN_RETRY_MS,
    LANES_PER_LOOK, LOOKS_PER_TURN, MILLI_NS, PARTS_PER_LOOK, PING_EVERY_NS, PINGS_UNANSWERED_MAX,
    READ_BYTES_PER_TURN, SENDS_PER_LOOK, STALL_NS_MAX, SUBSCRIPTIONS_MAX,
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
    marks: Arc<Marks>,
    pub(super) stats: ShardStats,
    totals: SharedStats,
    time: Box<dyn Fn() -> Nanos + Send>,
    pub(super) maker: Maker,
    pub(super) connections: Table<ConnectionKey, Connection>,
    pub(super) seats: Table<SeatKey, Seat>,
    pub(super) lanes: Table<LaneKey, Lane<Subscriber>>,
    lane_of: HashMap<(View, BudgetClass), LaneKey>,
    /// By instrument and channel.
    lanes_of: HashMap<(InstrumentId, Channel), Vec<LaneKey>>,
    pub(super) classes: Classes,
    timers: BinaryHeap<Reverse<(Nanos, ConnectionKey)>>,
    /// Connections with a request that is being carried out, or bytes not looked at yet.
    busy: VecDeque<ConnectionKey>,
    /// Connections whose wish to be polled may have changed.
    touched: Vec<ConnectionKey>,
    ended: Vec<(ConnectionKey, Connection)>,
    pub(super) frames: Frames,
    pub(super) joining: Vec<SeatKey>,
    read_buffer: Vec<u8>,
    sessions: u64,
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
        }
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

    fn read_closing(&mut self, key: ConnectionKey, mut bytes: &mut [u8]) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let mut reader = std::mem::take(&mut connection.pending_mut().reader);
        let mut is_closed = false;
        while let Ok(Some(incoming)) = reader.next(&mut bytes, &super::request::CLIENT_LIMITS) {
            is_closed |= matches!(incoming, ws::Incoming::Close { .. });
        }
        connection.pending_mut().reader = reader;
        if is_closed {
            self.remove(key);
        }
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

    /// The first seat of a connection; each names the next.
    pub(super) fn first_seat(&self, key: ConnectionKey) -> Option<SeatKey> {
        self.connections.get(key)?.first_seat
    }

    /// Where a view's subscription of a connection is: its seat, and the index there.
    pub(super) fn place(&self, key: ConnectionKey, view: u32) -> Option<(SeatKey, usize)> {
        let mut next = self.first_seat(key);
        while let Some(seat_key) = next {
            let seat = self.seats.get(seat_key)?;
            let is_of_view = |seated: &Seated| {
                self.lanes.get(seated.lane).is_some_and(|lane| lane.number() == view)
            };
            if let Some(index) = seat.subscriptions.iter().position(is_of_view) {
                return Some((seat_key, index));
            }
            next = seat.next;
        }
        None
    }

    /// A subscription with its lane.
    pub(super) fn seated(
        &self,
        (seat, index): (SeatKey, usize),
    ) -> Option<(&Seated, &Lane<Subscriber>)> {
        let seated = self.seats.get(seat)?.subscriptions.get(index)?;
        Some((seated, self.lanes.get(seated.lane)?))
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
            if self.busy.is_empty() && !self.classes.has_ready() {
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
    fn advance(&mut self, key: LaneKey, newest: Arc<Snapshot>, urgent: bool, now: Nanos) {
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

    /// Finds or makes the lane of a view at a budget.
    pub(super) fn lane(&mut self, view: View, class: BudgetClass, entry: &Arc<Entry>) -> LaneKey {
        if let Some(key) = self.lane_of.get(&(view, class)) {
            return *key;
        }
        // The interest first, the snapshot after: no change can fall between them.
        self.marks.set_interest(view.instrument, view.channel, true);
        self.begin_lane(view, class, entry, entry.load())
    }

    /// Finds the lane of a view at a budget and brings it to a snapshot that another lane of the
    /// view has taken, or makes it there.
    pub(super) fn lane_beside(
        &mut self,
        view: View,
        class: BudgetClass,
        entry: &Arc<Entry>,
        taken: Arc<Snapshot>,
    ) -> LaneKey {
        let Some(key) = self.lane_of.get(&(view, class)).copied() else {
            return self.begin_lane(view, class, entry, taken);
        };
        self.bring_to(key, taken);
        key
    }

    /// A lane takes this snapshot now, whatever its grain.
    pub(super) fn bring_to(&mut self, key: LaneKey, newest: Arc<Snapshot>) {
        let now = self.now();
        if let Some(lane) = self.lanes.get(key) {
            let urgent = lane.is_urgent(&newest);
            self.advance(key, newest, urgent, now);
        }
    }

    fn begin_lane(
        &mut self,
        view: View,
        class: BudgetClass,
        entry: &Arc<Entry>,
        taken: Arc<Snapshot>,
    ) -> LaneKey {
        let key = self.lanes.insert(Lane::new(view, class, Arc::clone(entry), taken));
        self.lane_of.insert((view, class), key);
        self.lanes_of.entry((view.instrument, view.channel)).or_default().push(key);
        self.totals.lanes.inc();
        key
    }

    fn remove_lane(&mut self, key: LaneKey) {
        let Some(lane) = self.lanes.remove(key) else { return };
        self.totals.lanes.dec();
        self.lane_of.remove(&(lane.view, lane.class));
        let of = (lane.view.instrument, lane.view.channel);
        if let Some(lanes) = self.lanes_of.get_mut(&of) {
            lanes.retain(|other| *other != key);
            if lanes.is_empty() {
                self.lanes_of.remove(&of);
                self.marks.set_interest(of.0, of.1, false);
            }
        }
    }

    /// The seat of a connection in a class, made if need be.
    fn seat(&mut self, connection_key: ConnectionKey, class: BudgetClass) -> Option<SeatKey> {
        let first = self.first_seat(connection_key);
        let mut next = first;
        while let Some(key) = next {
            let seat = self.seats.get(key)?;
            if seat.class == class {
                return Some(key);
            }
            next = seat.next;
        }
        let connection = self.connections.get_mut(connection_key)?;
        let mut seat = Seat::new(connection_key, class);
        if connection.is_blocked() {
            seat.standing = Standing::Blocked;
        }
        seat.next = first;
        let key = self.seats.insert(seat);
        connection.first_seat = Some(key);
        Some(key)
    }

    /// Takes an empty seat away.
    fn remove_seat(&mut self, key: SeatKey) {
        let Some(seat) = self.seats.remove(key) else { return };
        let first = self.first_seat(seat.connection);
        if first == Some(key) {
            if let Some(connection) = self.connections.get_mut(seat.connection) {
                connection.first_seat = seat.next;
            }
            return;
        }
        let mut before = first;
        while let Some(other) = before.and_then(|key| self.seats.get_mut(key)) {
            if other.next == Some(key) {
                other.next = seat.next;
                return;
            }
            before = other.next;
        }
    }

    /// Seats a subscription; with something to send at once it is made ready. `oldest_ns` is the
    /// receipt of what it was owed in the lane that it comes from.
    pub(super) fn sit(
        &mut self,
        connection_key: ConnectionKey,
        lane_key: LaneKey,
        held: u64,
        oldest_ns: Nanos,
        begin: Begin,
    ) {
        let now = self.now();
        let Some(lane) = self.lanes.get(lane_key) else { return };
        let is_trades = lane.view.channel == Channel::Trades;
        let (wants, is_news) = match &begin {
            // Without history to begin with, the first trade is like any other.
            Begin::First if is_trades && held == lane.s() => (Wants::Log, false),
            Begin::First if is_trades => (Wants::First, true),
            Begin::Whole if is_trades => (Wants::Whole, held < lane.s()),
            Begin::First => (Wants::First, lane.status().state.has_whole()),
            Begin::Whole => (Wants::Whole, lane.status().state.has_whole()),
            Begin::Bridge(from) => (Wants::Bridge, !Arc::ptr_eq(from, lane.taken())),
        };
        let (class, position) = (lane.class, lane.end());
        let Some(seat_key) = self.seat(connection_key, class) else { return };
        let (Some(seat), Some(lane), Some(connection)) = (
            self.seats.get_mut(seat_key),
            self.lanes.get_mut(lane_key),
            self.connections.get_mut(connection_key),
        ) else {
            return;
        };
        let index = seat.subscriptions.len() as u32;
        let mut seated = Seated::new(lane_key, position, held, oldest_ns);
        seated.set_slot(lane.subscribers.len());
        seated.set_wants(wants);
        lane.subscribers.push(Subscriber { seat: seat_key, index });
        lane.add_reader(connection.encoding);
        // No room to spare: there are as many of these as subscriptions.
        seat.subscriptions.reserve_exact(1);
        seat.subscriptions.push(seated);
        if let Begin::Bridge(from) = begin {
            connection.pending_mut().bridges.push(Bridge { lane: lane_key, from });
        }
        connection.subscriptions += 1;
        if is_news {
            if seat.oldest_ns == 0 {
                seat.oldest_ns = if oldest_ns == 0 { now } else { oldest_ns };
            }
            self.ready(seat_key);
        }
        self.totals.subscriptions.inc();
    }

    /// Ends a subscription; returns what it was.
    pub(super) fn stand_up(&mut self, key: ConnectionKey, view: u32) -> Option<Ended> {
        let (seat_key, index) = self.place(key, view)?;
        self.stand_up_at(key, seat_key, index)
    }

    fn stand_up_at(
        &mut self,
        key: ConnectionKey,
        seat_key: SeatKey,
        index: usize,
    ) -> Option<Ended> {
        let connection = self.connections.get_mut(key)?;
        let seat = self.seats.get_mut(seat_key)?;
        let seated = seat.subscriptions.swap_remove(index);
        // The last of the seat took its index, and the last of the lane takes its slot.
        if let Some(moved) = seat.subscriptions.get(index)
            && let Some(lane) = self.lanes.get_mut(moved.lane)
        {
            lane.subscribers[moved.slot()].index = index as u32;
        }
        let is_empty = seat.subscriptions.is_empty();
        connection.subscriptions -= 1;
        let encoding = connection.encoding;
        let bridge = connection.take_bridge(seated.lane);
        if is_empty {
            self.remove_seat(seat_key);
        }
        let lane = self.lanes.get_mut(seated.lane)?;
        let ended = Ended {
            held: seated.held(lane.s()),
            oldest_ns: seated.oldest_ns,
            wants: seated.wants(),
            bridge,
        };
        lane.subscribers.swap_remove(seated.slot());
        lane.remove_reader(encoding);
        if let Some(moved) = lane.subscribers.get(seated.slot())
            && let Some(other) = self
                .seats
                .get_mut(moved.seat)
                .and_then(|seat| seat.subscriptions.get_mut(moved.index as usize))
        {
            other.set_slot(seated.slot());
        }
        if lane.subscribers.is_empty() {
            self.remove_lane(seated.lane);
        }
        self.totals.subscriptions.dec();
        Some(ended)
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

    // --- Time and ends.

    pub(super) fn set_timer(&mut self, key: ConnectionKey, at_ns: Nanos) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.timer_ns == 0 || at_ns < connection.timer_ns {
            connection.timer_ns = at_ns;
            self.timers.push(Reverse((at_ns, key)));
        }
    }

    fn run_timers(&mut self) {
        let now = self.now();
        while let Some(Reverse((at_ns, key))) = self.timers.peek().copied()
            && at_ns <= now
        {
            self.timers.pop();
            match self.connections.get_mut(key) {
                Some(connection) if connection.timer_ns == at_ns => connection.timer_ns = 0,
                _ => continue,
            }
            let next_ns = self.on_timer(key, now);
            self.set_timer(key, next_ns);
        }
    }

    /// Looks after one connection; returns when to look again.
    fn on_timer(&mut self, key: ConnectionKey, now: Nanos) -> Nanos {
        let Some(connection) = self.connections.get_mut(key) else { return now + PING_EVERY_NS };
        match connection.phase {
            Phase::Closing(at_ns) | Phase::Draining(at_ns) if now < at_ns => return at_ns,
            Phase::Closing(_) => {
                // What the socket has not taken by now would be old.
                if connection.is_blocked() {
                    connection.socket.abort();
                }
                self.remove(key);
                return Nanos::MAX;
            }
            Phase::Draining(_) => {
                self.close(key, Cause::Restart, "the gateway goes away");
                return now + CLOSE_LINGER_NS;
            }
            Phase::Open => {}
        }
        if connection.is_blocked() && now >= connection.taken_ns + STALL_NS_MAX {
            connection.socket.abort();
            self.end(key, Cause::Stalled);
            return Nanos::MAX;
        }
        let mut next_ns = connection.read_ns.max(connection.pinged_ns) + PING_EVERY_NS;
        if now >= next_ns {
            let took_since = connection.taken_ns > connection.pinged_ns;
            if u32::from(connection.pings_unanswered) >= PINGS_UNANSWERED_MAX && !took_since {
                self.close(key, Cause::Silent, "no answer to pings");
                return now + CLOSE_LINGER_NS;
            }
            connection.pings_unanswered = connection.pings_unanswered.saturating_add(1);
            connection.pinged_ns = now;
            next_ns = now + PING_EVERY_NS;
            if !connection.is_blocked() {
                ws::write_ping(b"", &mut connection.pending_mut().control);
                self.send(key, &[]);
            }
        }
        let Some(connection) = self.connections.get(key) else { return Nanos::MAX };
        if connection.is_blocked() {
            next_ns = next_ns.min(connection.taken_ns + STALL_NS_MAX);
        }
        next_ns.min(self.run_periodic(key, now))
    }

    /// Sends what a connection wants again and again, where it is due; returns when it is next.
    fn run_periodic(&mut self, key: ConnectionKey, now: Nanos) -> Nanos {
        let Some(connection) = self.connections.get_mut(key) else { return Nanos::MAX };
        let unsent_bytes = connection.blocked_bytes();
        let may_send = connection.may_send();
        let Some(periodic) = &mut connection.periodic else { return Nanos::MAX };
        let mut next_ns = Nanos::MAX;
        let mut told = None;
        if let Some(report) = &mut periodic.report {
            if now >= report.due_ns {
                if may_send {
                    told = Some(report.take(unsent_bytes, now));
                } else {
                    report.postpone(now);
                }
            }
            next_ns = report.due_ns;
        }
        if periodic.heartbeat_ns > 0 {
            let due_ns = periodic.frame_sent_ns + periodic.heartbeat_ns;
            let is_due = now >= due_ns || told.is_some();
            next_ns = next_ns.min(if is_due { now + periodic.heartbeat_ns } else { due_ns });
            if now >= due_ns && told.is_none() {
                periodic.frame_sent_ns = now;
                if may_send {
                    self.send_frame(key, None, now);
                }
            }
        }
        if told.is_some() {
            self.send_frame(key, told, now);
        }
        next_ns
    }

    /// Says goodbye with a close frame, and ends the connection when the peer does or a while later.
    pub(super) fn close(&mut self, key: ConnectionKey, cause: Cause, detail: &str) {
        let now = self.now();
        let Some(connection) = self.connections.get_mut(key) else { return };
        if matches!(connection.phase, Phase::Closing(_)) {
            return;
        }
        self.totals.close(cause.name()).inc();
        tracing::debug!(cause = cause.name(), detail, "connection closed");
        // Frame, log and metric name the same cause.
        let reason = format!("{}: {detail}", cause.name());
        let mut control = connection.take_control();
        ws::write_close(cause.close_code(), &reason, &mut control);
        // Behind whatever the socket has not taken yet; it may never take it.
        let sent = connection.send(&[super::connection::Piece::Copied(&control)], now);
        connection.phase = Phase::Closing(now + CLOSE_LINGER_NS);
        connection.timer_ns = 0;
        if let Some(pending) = connection.pending_if_any() {
            pending.work = None;
            pending.unread = Vec::new();
        }
        match sent {
            Ok(taken) => self.stats.bytes.inc_by(taken as u64),
            Err(_) => return self.remove(key),
        };
        // After a violation the peer's own close is not waited for (RFC 6455 §7.1.7): nobody knows
        // where in its stream that would begin.
        if matches!(cause, Cause::Protocol(_)) && !connection.is_blocked() {
            connection.socket.finish();
        }
        self.leave_all(key);
        self.set_timer(key, now + CLOSE_LINGER_NS);
        self.touched.push(key);
    }

    /// The connection is over, without another byte.
    pub(super) fn end(&mut self, key: ConnectionKey, cause: Cause) {
        if let Some(connection) = self.connections.get(key)
            && !matches!(connection.phase, Phase::Closing(_))
        {
            self.totals.close(cause.name()).inc();
            tracing::debug!(cause = cause.name(), "connection ended");
        }
        self.remove(key);
    }

    fn leave_all(&mut self, key: ConnectionKey) {
        while let Some(seat_key) = self.first_seat(key) {
            let last =
                self.seats.get(seat_key).and_then(|seat| seat.subscriptions.len().checked_sub(1));
            match last {
                Some(index) => drop(self.stand_up_at(key, seat_key, index)),
                None => self.remove_seat(seat_key),
            }
        }
    }

    fn remove(&mut self, key: ConnectionKey) {
        self.leave_all(key);
        if let Some(connection) = self.connections.remove(key) {
            self.totals.connections.dec();
            self.ended.push((key, connection));
        }
    }

    /// Tells every client that the gateway goes away, and closes them spread over a while.
    pub fn drain(&mut self) {
        let now = self.now();
        let keys: Vec<ConnectionKey> = self.connections.keys().collect();
        let count = keys.len().max(1) as u64;
        for (i, key) in (0u64..).zip(keys) {
            let at_ns = now + DRAIN_NS * (i + 1) / count;
            // Spread, so that those who come back do not come at once; it need not be random.
            let retry_after_ms = DRAIN_RETRY_MS * (i + 1) / count;
            let drain = Control::Drain {
                in_ms: (at_ns - now) / MILLI_NS,
                retry_after_ms,
                reason: "restart".to_owned(),
            };
            let Some(connection) = self.connections.get_mut(key) else { continue };
            if !matches!(connection.phase, Phase::Open) {
                continue;
            }
            connection.push_control(&drain.to_json());
            connection.phase = Phase::Draining(at_ns);
            connection.timer_ns = 0;
            self.set_timer(key, at_ns);
            self.send(key, &[]);
        }
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
