//! Who sits where: a shard's lanes, its seats, and the subscriptions that bind the two.
//!
//! Part of a shard, used by the requests of clients and by the ends of connections. Lane and seat name
//! each other by index; whoever leaves is replaced by the last, so that neither list is searched.

use std::sync::Arc;

use tickfan_core::market::{Channel, Nanos};
use tickfan_core::snapshot::{Entry, Snapshot};
use tickfan_core::view::{BudgetClass, View};

use super::lane::Lane;
use super::seat::{Begin, Bridge, Ended, Seat, Seated, Standing, Wants};
use super::shard::{Shard, Subscriber};
use super::table::{ConnectionKey, LaneKey, SeatKey};

impl Shard {
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

    pub(super) fn leave_all(&mut self, key: ConnectionKey) {
        while let Some(seat_key) = self.first_seat(key) {
            let last =
                self.seats.get(seat_key).and_then(|seat| seat.subscriptions.len().checked_sub(1));
            match last {
                Some(index) => drop(self.stand_up_at(key, seat_key, index)),
                None => self.remove_seat(seat_key),
            }
        }
    }
}
