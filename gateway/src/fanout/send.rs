//! What one connection is sent at once: its control messages, then all that its seats are due, in as
//! few frames and send calls as can be.
//!
//! Part of a shard's turn. Bodies are copied from the logs of lanes into a scratch buffer of the
//! shard; only the envelope around them belongs to the connection.

use std::sync::Arc;

use tickfan_core::market::{Channel, Nanos};
use tickfan_core::snapshot::Snapshot;
use tickfan_core::view::BudgetClass;
use tickfan_core::wire::{Encoder, FrameHead};
use tickfan_core::ws;

use super::connection::{Cause, Connection, Piece};
use super::lane::{Body, Due, Lane, Maker};
use super::seat::{Seated, Wants};
use super::shard::{Shard, Subscriber};
use super::{ConnectionKey, SeatKey};
use crate::limits::{BODY_BYTES_SHARED, FRAME_HEAD_BYTES_MAX, FRAME_UPDATES_MAX, SEND_BYTES};
use crate::mutant::{Mutant, planted};
use crate::stats::ShardStats;

/// The frames of one send as they grow.
#[derive(Debug, Default)]
pub struct Frames {
    bytes: Vec<u8>,
    /// Where the finished frames begin.
    start: usize,
    /// Where the updates of the frame under construction begin.
    updates_at: usize,
    count: usize,
    finished: usize,
    late: Vec<u16>,
    late_ns: Nanos,
    head: Vec<u8>,
}

impl Frames {
    fn clear(&mut self) {
        self.bytes.clear();
        self.start = 0;
        self.finished = 0;
        self.begin();
    }

    fn begin(&mut self) {
        let at = self.bytes.len();
        self.bytes.resize(at + FRAME_HEAD_BYTES_MAX, 0);
        self.updates_at = self.bytes.len();
        self.count = 0;
        self.late.clear();
        self.late_ns = 0;
    }

    fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// The frame under construction takes no more updates.
    fn is_full(&self) -> bool {
        self.count == FRAME_UPDATES_MAX
    }

    fn push(&mut self, body: &[u8], encoder: &dyn Encoder) {
        if self.count > 0 {
            self.bytes.extend_from_slice(encoder.separator());
        }
        self.bytes.extend_from_slice(body);
        self.count += 1;
    }

    fn mark_late(&mut self, overrun_ns: Nanos) {
        self.late.push(self.count as u16);
        self.late_ns = self.late_ns.max(overrun_ns);
    }

    /// Writes head and tail around the updates of the frame under construction. `shared_bytes` are
    /// sent between the updates and the tail, which the caller then sends by itself.
    fn finish(&mut self, n: u64, ts_ns: Nanos, encoder: &dyn Encoder, shared_bytes: Option<usize>) {
        self.head.clear();
        let head = FrameHead { n, ts_ns, late: &self.late, late_ns: self.late_ns };
        encoder.frame_head(&head, &mut self.head);
        let tail = encoder.frame_tail();
        let updates_bytes = self.bytes.len() - self.updates_at;
        let payload_bytes =
            self.head.len() + updates_bytes + shared_bytes.unwrap_or(0) + tail.len();
        let (header, header_bytes) = ws::header(ws::Opcode::Text, payload_bytes);
        let begins_at = self.updates_at - self.head.len() - header_bytes;
        self.bytes[begins_at..begins_at + header_bytes].copy_from_slice(&header[..header_bytes]);
        self.bytes[begins_at + header_bytes..self.updates_at].copy_from_slice(&self.head);
        if shared_bytes.is_none() {
            self.bytes.extend_from_slice(tail);
        }
        if self.finished == 0 {
            self.start = begins_at;
        } else {
            // Close the gap that a shorter head leaves behind the frame before.
            let frame_at = self.updates_at - FRAME_HEAD_BYTES_MAX;
            self.bytes.copy_within(begins_at.., frame_at);
            self.bytes.truncate(self.bytes.len() - (begins_at - frame_at));
        }
        self.finished += 1;
    }

    /// Forgets the frame under construction, which has no update.
    fn abandon(&mut self) {
        self.bytes.truncate(self.updates_at - FRAME_HEAD_BYTES_MAX);
    }

    fn finished(&self) -> &[u8] {
        if self.finished == 0 { &[] } else { &self.bytes[self.start..] }
    }
}

/// What came of a subscription's turn.
enum Served {
    /// It has everything.
    All,
    /// The send is as long as it may become.
    Full,
    /// Its whole is too large to be copied.
    Large(Arc<[u8]>),
}

/// What one update is judged by.
struct Judge<'a> {
    class: BudgetClass,
    ts_ns: Nanos,
    blocked_until_ns: Nanos,
    stats: &'a ShardStats,
}

impl Judge<'_> {
    /// How far over its budget a change is, if it is; counts it by cause.
    fn overrun_ns(&self, oldest_ns: Nanos) -> Option<Nanos> {
        let budget_ns = self.class.budget_ns();
        if budget_ns == 0 || oldest_ns == 0 {
            return None;
        }
        let over = self.ts_ns.saturating_sub(oldest_ns).saturating_sub(budget_ns);
        if over == 0 {
            return None;
        }
        if self.blocked_until_ns >= oldest_ns {
            self.stats.late_client.inc();
        } else {
            self.stats.late_gateway.inc();
        }
        Some(over)
    }
}

impl Shard {
    /// Sends a connection its control messages and what its seats are due: those of `first`, and of
    /// the seats that may join.
    pub(super) fn send(&mut self, key: ConnectionKey, first: &[SeatKey]) {
        let now = self.now();
        let Some(connection) = self.connections.get_mut(key) else { return };
        if !connection.may_send() || (first.is_empty() && connection.control.is_empty()) {
            return;
        }
        if !connection.control.is_empty() {
            let control = std::mem::take(&mut connection.control);
            if !self.send_pieces(key, &[Piece::Copied(&control)], now) {
                return;
            }
        }
        let mut seats: Vec<SeatKey> = std::mem::take(&mut self.joining);
        seats.clear();
        if let Some(connection) = self.connections.get(key) {
            seats.extend_from_slice(first);
            seats.extend(connection.seats.iter().copied().filter(|key| {
                !first.contains(key) && self.seats.get(*key).is_some_and(|seat| seat.may_join(now))
            }));
        }
        if !seats.is_empty() {
            self.send_seats(key, &seats);
        }
        self.joining = seats;
    }

    /// Returns whether the connection can be sent more.
    fn send_pieces(&mut self, key: ConnectionKey, pieces: &[Piece<'_>], now: Nanos) -> bool {
        let Some(connection) = self.connections.get_mut(key) else { return false };
        self.stats.sends.inc();
        match connection.send(pieces, now) {
            Ok(taken) => {
                self.stats.bytes.inc_by(taken as u64);
                if connection.is_blocked() {
                    self.stats.blocked.inc();
                    self.block(key, now);
                    return false;
                }
                true
            }
            Err(_) => {
                self.end(key, Cause::Gone);
                false
            }
        }
    }

    fn send_seats(&mut self, key: ConnectionKey, seats: &[SeatKey]) {
        let mut frames = std::mem::take(&mut self.frames);
        let ts_ns = self.now();
        frames.clear();
        let mut large = None;
        let mut full = false;
        for (i, seat_key) in seats.iter().enumerate() {
            if full || large.is_some() {
                // What does not fit now is due again at once.
                self.requeue(&seats[i..]);
                break;
            }
            let before = (frames.finished, frames.count);
            match self.fill(key, *seat_key, &mut frames, ts_ns) {
                // Its news were those of a view that left: its pace does not begin for nothing.
                Served::All if before == (frames.finished, frames.count) => {
                    self.seat_had_nothing(*seat_key);
                }
                Served::All => self.seat_was_sent(*seat_key, ts_ns),
                Served::Full => full = true,
                Served::Large(bytes) => large = Some(bytes),
            }
            if full || large.is_some() {
                self.requeue(&seats[i..=i]);
            }
        }
        let shared_bytes = large.as_ref().map(|bytes| bytes.len());
        let Some(connection) = self.connections.get_mut(key) else { return };
        let updates = if frames.count > 0 || large.is_some() {
            connection.frames += 1;
            frames.finish(connection.frames, ts_ns, self.maker.encoder, shared_bytes);
            true
        } else {
            frames.abandon();
            frames.finished > 0
        };
        if updates {
            connection.frame_sent_ns = ts_ns;
            self.stats.frames.inc_by(frames.finished as u64);
            match &large {
                Some(shared) => {
                    let tail = self.maker.encoder.frame_tail();
                    let pieces = [
                        Piece::Copied(frames.finished()),
                        Piece::Shared(shared),
                        Piece::Copied(tail),
                    ];
                    self.send_pieces(key, &pieces, ts_ns);
                }
                None => {
                    self.send_pieces(key, &[Piece::Copied(frames.finished())], ts_ns);
                }
            }
        }
        self.frames = frames;
    }

    /// Appends what a seat is due.
    fn fill(
        &mut self,
        key: ConnectionKey,
        seat_key: SeatKey,
        frames: &mut Frames,
        ts_ns: Nanos,
    ) -> Served {
        let (Some(seat), Some(connection)) =
            (self.seats.get_mut(seat_key), self.connections.get_mut(key))
        else {
            return Served::All;
        };
        let judge = Judge {
            class: seat.class,
            ts_ns,
            blocked_until_ns: connection.blocked_until_ns,
            stats: &self.stats,
        };
        for seated in &mut seat.subscriptions {
            let Some(lane) = self.lanes.get_mut(seated.lane) else { continue };
            let served = Filling {
                frames,
                connection,
                judge: &judge,
                maker: &mut self.maker,
                room_max: SEND_BYTES,
            }
            .subscription(seated, lane);
            if !matches!(served, Served::All) {
                return served;
            }
        }
        Served::All
    }
}

/// Everything that is needed to append one subscription's updates.
struct Filling<'a> {
    frames: &'a mut Frames,
    connection: &'a mut Connection,
    judge: &'a Judge<'a>,
    maker: &'a mut Maker<'static>,
    room_max: usize,
}

impl Filling<'_> {
    fn subscription(mut self, seated: &mut Seated, lane: &mut Lane<Subscriber>) -> Served {
        match std::mem::take(&mut seated.wants) {
            Wants::Log if seated.position == lane.end() => Served::All,
            Wants::Log => match lane.due(seated.position) {
                Due::Range => self.range(seated, lane),
                Due::Whole => self.whole(seated, lane, Wants::Whole),
                Due::StatesOnly => self.states(seated, lane),
                Due::Lost => self.lost(seated, lane),
            },
            wants @ (Wants::First | Wants::Whole) => self.whole_or_states(seated, lane, wants),
            Wants::Bridge(from) => self.bridge(seated, lane, from),
        }
    }

    /// The difference from what it held in another lane; until it holds what this lane told last,
    /// the log is not for it.
    fn bridge(
        mut self,
        seated: &mut Seated,
        lane: &mut Lane<Subscriber>,
        from: Arc<Snapshot>,
    ) -> Served {
        let (old, new) = (from.status(lane.view.channel), lane.status());
        let continues = old.epoch == new.epoch && new.state.has_whole();
        if !continues || from.scales != lane.taken().scales {
            return self.whole_or_states(seated, lane, Wants::Whole);
        }
        let bridge = lane.bridge(&from, seated.held, self.maker);
        if bridge.is_some() && !new.state.flows() {
            return self.whole(seated, lane, Wants::Whole);
        }
        if self.is_full() {
            seated.wants = Wants::Bridge(from);
            return Served::Full;
        }
        self.push_states(seated, lane);
        if let Some((bytes, s)) = bridge {
            self.push(&bytes, seated.oldest_ns);
            self.settle(seated, s);
        }
        seated.position = lane.end();
        seated.oldest_ns = 0;
        if seated.held != lane.s() {
            seated.wants = Wants::Bridge(Arc::clone(lane.taken()));
        }
        Served::All
    }

    /// The send is as long as it may become.
    fn is_full(&mut self) -> bool {
        self.frames.len() >= self.room_max
    }

    /// Appends one update, in the next frame where this one is full.
    fn push(&mut self, body: &[u8], oldest_ns: Nanos) {
        if self.frames.is_full() {
            self.connection.frames += 1;
            let encoder = self.maker.encoder;
            self.frames.finish(self.connection.frames, self.judge.ts_ns, encoder, None);
            self.frames.begin();
        }
        if let Some(over_ns) = self.judge.overrun_ns(oldest_ns) {
            self.frames.mark_late(over_ns);
        }
        self.frames.push(body, self.maker.encoder);
        self.judge.stats.updates.inc();
    }

    /// The client now holds version `s`.
    fn settle(&mut self, seated: &mut Seated, s: u64) {
        if s > seated.held {
            let more = u64::from(planted(Mutant::MergedOffByOne));
            self.judge.stats.merged.inc_by(s - seated.held - 1 + more);
        }
        seated.held = s;
    }

    fn range(&mut self, seated: &mut Seated, lane: &Lane<Subscriber>) -> Served {
        let is_trades = lane.view.channel == Channel::Trades;
        for body in lane.range(seated.position) {
            if self.is_full() {
                seated.oldest_ns = oldest_of(seated.oldest_ns, body);
                return Served::Full;
            }
            match body.s {
                Some(s) if is_trades => {
                    self.push(&body.bytes, body.to_ns);
                    seated.held = s;
                }
                Some(s) => {
                    let unsent_ns = std::mem::take(&mut seated.oldest_ns);
                    self.push(&body.bytes, oldest_of(unsent_ns, body));
                    self.settle(seated, s);
                }
                None => self.push(&body.bytes, body.to_ns),
            }
            seated.position = seated.position.wrapping_add(1);
        }
        seated.position = lane.end();
        // Where no price can be sent, the change that should have been waits on, for the next whole.
        if is_trades || lane.status().state.has_whole() {
            seated.oldest_ns = 0;
        }
        Served::All
    }

    fn push_states(&mut self, seated: &Seated, lane: &Lane<Subscriber>) {
        for body in lane.states(seated.position, true) {
            self.push(&body.bytes, body.to_ns);
        }
    }

    /// The changes of state that a reader missed; what it was not sent besides waits for a whole.
    fn states(&mut self, seated: &mut Seated, lane: &Lane<Subscriber>) -> Served {
        if self.is_full() {
            return Served::Full;
        }
        self.push_states(seated, lane);
        seated.position = lane.end();
        Served::All
    }

    fn whole_or_states(
        mut self,
        seated: &mut Seated,
        lane: &mut Lane<Subscriber>,
        wants: Wants,
    ) -> Served {
        if lane.view.channel == Channel::Trades {
            return self.trades_since(seated, lane, wants);
        }
        if lane.status().state.has_whole() {
            return self.whole(seated, lane, wants);
        }
        seated.wants = wants;
        self.states(seated, lane)
    }

    fn whole(&mut self, seated: &mut Seated, lane: &mut Lane<Subscriber>, wants: Wants) -> Served {
        if self.is_full() {
            seated.wants = wants;
            return Served::Full;
        }
        self.push_states(seated, lane);
        // From here on the states are told; should the rest have to wait, they must not come twice.
        seated.position = lane.end();
        // A reader that came from another lane may be ahead of what this one told.
        let is_ahead = lane.s() < seated.held;
        let s = if is_ahead { lane.newest_version() } else { lane.s() };
        let (bytes, is_new) =
            if is_ahead { (lane.whole_at(s, self.maker), true) } else { lane.whole(self.maker) };
        if is_new {
            self.judge.stats.wholes.inc();
        }
        let oldest_ns = if matches!(wants, Wants::First) { 0 } else { seated.oldest_ns };
        if bytes.len() > BODY_BYTES_SHARED {
            if self.frames.count > 0 {
                seated.wants = wants;
                return Served::Full;
            }
            if let Some(over_ns) = self.judge.overrun_ns(oldest_ns) {
                self.frames.mark_late(over_ns);
            }
            self.judge.stats.updates.inc();
        } else {
            self.push(&bytes, oldest_ns);
        }
        if matches!(wants, Wants::First) {
            seated.held = s;
        }
        self.settle(seated, s);
        seated.oldest_ns = 0;
        if is_ahead {
            seated.wants = Wants::Bridge(Arc::clone(lane.taken()));
        }
        if bytes.len() > BODY_BYTES_SHARED { Served::Large(bytes) } else { Served::All }
    }

    fn lost(&mut self, seated: &mut Seated, lane: &Lane<Subscriber>) -> Served {
        if self.is_full() {
            return Served::Full;
        }
        for body in lane.states(seated.position, false) {
            self.push(&body.bytes, body.to_ns);
        }
        let first_p = lane.first_p();
        if first_p > seated.held {
            let (bytes, s) = lane.trades_lost(seated.held, self.maker);
            self.judge.stats.trades_lost.inc_by(s - seated.held);
            self.push(&bytes, seated.oldest_ns);
            seated.held = s;
        }
        seated.position = lane.first();
        self.range(seated, lane)
    }

    /// Trades that a subscription begins with, or that bring it from one lane to another; then what
    /// its position says.
    fn trades_since(
        mut self,
        seated: &mut Seated,
        lane: &mut Lane<Subscriber>,
        wants: Wants,
    ) -> Served {
        let until = lane.p_at(seated.position).unwrap_or(seated.held);
        while seated.held < until {
            if self.is_full() {
                seated.wants = wants;
                return Served::Full;
            }
            let (bytes, s) = lane.trades_since(seated.held, until, self.maker);
            self.push(&bytes, 0);
            seated.held = s;
        }
        self.subscription(seated, lane)
    }
}

/// The receipt that an update is judged by: what the client had not been sent, or else its own.
fn oldest_of(unsent_ns: Nanos, body: &Body) -> Nanos {
    if unsent_ns == 0 { body.to_ns } else { unsent_ns }
}
