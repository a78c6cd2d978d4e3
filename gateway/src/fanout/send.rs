//! What one connection is sent at once: its control messages, then all that its seats are due, in as
//! few frames and send calls as can be.
//!
//! Part of a shard's turn. Bodies are copied from the logs of lanes into a scratch buffer of the
//! shard; only the envelope around them belongs to the connection.

use std::sync::Arc;

use tickfan_core::market::{Channel, Nanos};
use tickfan_core::view::BudgetClass;
use tickfan_core::wire::{Encoding, FrameHead, StatsReport, Update};
use tickfan_core::ws;

use super::connection::{Cause, Connection, Piece};
use super::lane::{Due, Lane, Maker};
use super::seat::{Bridge, Seated, Wants};
use super::shard::{Shard, Subscriber};
use super::table::{ConnectionKey, SeatKey};
use crate::limits::{BODY_BYTES_SHARED, FRAME_HEAD_BYTES_MAX, FRAME_UPDATES_MAX, SEND_BYTES};
use crate::mutant::{Mutant, planted};
use crate::stats::{Report, ShardStats};

/// What became of a send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// Nothing out of the ordinary.
    Usual,
    /// It carried a body too large to be copied.
    Large,
}

/// The frames of one send as they grow.
#[derive(Debug)]
pub struct Frames {
    encoding: Encoding,
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

impl Default for Frames {
    fn default() -> Self {
        Self {
            encoding: Encoding::Json,
            bytes: Vec::new(),
            start: 0,
            updates_at: 0,
            count: 0,
            finished: 0,
            late: Vec::new(),
            late_ns: 0,
            head: Vec::new(),
        }
    }
}

impl Frames {
    /// Begins a send with whole frames that go before any data.
    fn clear(&mut self, encoding: Encoding, control: &[u8]) {
        self.encoding = encoding;
        self.bytes.clear();
        self.bytes.extend_from_slice(control);
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

    /// How many bytes the send still takes. The head of a frame that was begun last may have passed it.
    fn bytes_left(&self) -> usize {
        SEND_BYTES.saturating_sub(self.len())
    }

    /// How many updates the frame under construction still takes.
    fn room(&self) -> usize {
        FRAME_UPDATES_MAX - self.count
    }

    /// Appends an update.
    fn push(&mut self, body: &[u8]) {
        if self.count > 0 {
            self.bytes.extend_from_slice(self.encoding.encoder().separator());
        }
        self.bytes.extend_from_slice(body);
        self.count += 1;
    }

    /// Appends updates that lie one behind the other, each after a separator.
    fn push_range(&mut self, bodies: &[u8], count: usize) {
        let skipped = if self.count > 0 { 0 } else { self.encoding.encoder().separator().len() };
        self.bytes.extend_from_slice(&bodies[skipped..]);
        self.count += count;
    }

    /// The update that is appended next but `ahead` is over its budget.
    fn mark_late(&mut self, ahead: usize, overrun_ns: Nanos) {
        self.late.push((self.count + ahead) as u16);
        self.late_ns = self.late_ns.max(overrun_ns);
    }

    /// Writes head and tail around the updates of the frame under construction. `shared_bytes` are
    /// sent between the updates and the tail, which the caller then sends by itself.
    fn finish(&mut self, n: u64, ts_ns: Nanos, shared_bytes: Option<usize>) {
        let encoder = self.encoding.encoder();
        self.head.clear();
        let count = self.count + usize::from(shared_bytes.is_some());
        let head = FrameHead { n, ts_ns, count, late: &self.late, late_ns: self.late_ns };
        encoder.frame_head(&head, &mut self.head);
        let tail = encoder.frame_tail();
        let updates_bytes = self.bytes.len() - self.updates_at;
        let payload_bytes =
            self.head.len() + updates_bytes + shared_bytes.unwrap_or(0) + tail.len();
        let (header, header_bytes) = ws::header(opcode(self.encoding), payload_bytes);
        let begins_at = self.updates_at - self.head.len() - header_bytes;
        self.bytes[begins_at..begins_at + header_bytes].copy_from_slice(&header[..header_bytes]);
        self.bytes[begins_at + header_bytes..self.updates_at].copy_from_slice(&self.head);
        if shared_bytes.is_none() {
            self.bytes.extend_from_slice(tail);
        }
        let frame_at = self.updates_at - FRAME_HEAD_BYTES_MAX;
        if frame_at == 0 {
            self.start = begins_at;
        } else {
            // Close the gap that a shorter head leaves behind what stands before.
            self.bytes.copy_within(begins_at.., frame_at);
            self.bytes.truncate(self.bytes.len() - (begins_at - frame_at));
        }
        self.finished += 1;
    }

    /// Forgets the frame under construction, which has no update.
    fn abandon(&mut self) {
        self.bytes.truncate(self.updates_at - FRAME_HEAD_BYTES_MAX);
    }

    fn all(&self) -> &[u8] {
        &self.bytes[self.start..]
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
    report: Option<&'a mut Report>,
    /// Venue events merged so far.
    merged: u64,
}

impl Judge<'_> {
    /// How far over its budget a change is, if it is; counts it by cause.
    fn overrun_ns(&mut self, oldest_ns: Nanos) -> Option<Nanos> {
        if oldest_ns == 0 {
            return None;
        }
        let waited_ns = self.ts_ns.saturating_sub(oldest_ns);
        if let Some(report) = &mut self.report {
            report.waited(waited_ns);
        }
        let budget_ns = self.class.budget_ns();
        if budget_ns == 0 || waited_ns <= budget_ns {
            return None;
        }
        let by_client = is_clients_fault(self.blocked_until_ns, oldest_ns);
        if by_client {
            self.stats.late_client.inc();
        } else {
            self.stats.late_gateway.inc();
        }
        if let Some(report) = &mut self.report {
            report.late(by_client);
        }
        Some(waited_ns - budget_ns)
    }

    /// Updates are sent in which so many venue events were merged.
    fn count(&mut self, updates: u64, merged: u64) {
        self.stats.updates.inc_by(updates);
        if merged > 0 {
            self.stats.merged.inc_by(merged);
            self.merged += merged;
        }
        if let Some(report) = &mut self.report {
            report.sent(updates, merged);
        }
    }
}

/// A change waited because its connection did not take what was sent before.
const fn is_clients_fault(blocked_until_ns: Nanos, oldest_ns: Nanos) -> bool {
    blocked_until_ns >= oldest_ns
}

/// The kind of message in which data frames of an encoding travel.
fn opcode(encoding: Encoding) -> ws::Opcode {
    if encoding.encoder().is_text() { ws::Opcode::Text } else { ws::Opcode::Binary }
}

impl Shard {
    /// Sends a connection its control messages and what its seats are due: those of `first`, and of
    /// the seats that may join.
    pub(super) fn send(&mut self, key: ConnectionKey, first: &[SeatKey]) -> Sent {
        let now = self.now();
        let Some(connection) = self.connections.get_mut(key) else { return Sent::Usual };
        if !connection.may_send() {
            return Sent::Usual;
        }
        let control = connection.take_control();
        connection.settle(now);
        if first.is_empty() && control.is_empty() {
            return Sent::Usual;
        }
        let mut seats: Vec<SeatKey> = std::mem::take(&mut self.joining);
        seats.clear();
        seats.extend_from_slice(first);
        let mut next = self.first_seat(key);
        while let Some(seat_key) = next {
            let Some(seat) = self.seats.get(seat_key) else { break };
            next = seat.next;
            if seat.may_join(now) && !first.contains(&seat_key) {
                seats.push(seat_key);
            }
        }
        let sent = if !seats.is_empty() {
            self.send_seats(key, &control, &seats, now)
        } else {
            if !control.is_empty() {
                self.send_pieces(key, &[Piece::Copied(&control)], now);
            }
            Sent::Usual
        };
        self.joining = seats;
        sent
    }

    /// Sends a frame of the connection alone: its report, or nothing as a sign of life.
    pub(super) fn send_frame(
        &mut self,
        key: ConnectionKey,
        report: Option<StatsReport>,
        now: Nanos,
    ) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let encoding = connection.encoding;
        let encoder = encoding.encoder();
        connection.frames += 1;
        self.stats.frames.inc();
        let count = usize::from(report.is_some());
        let head = FrameHead { n: connection.frames, ts_ns: now, count, late: &[], late_ns: 0 };
        let mut payload = Vec::new();
        encoder.frame_head(&head, &mut payload);
        if let Some(report) = report {
            encoder.update(&Update::stats(report), &mut payload);
        }
        payload.extend_from_slice(encoder.frame_tail());
        if let Some(periodic) = &mut connection.periodic {
            periodic.frame_sent_ns = now;
        }
        let control = &mut connection.pending_mut().control;
        ws::write_header(opcode(encoding), payload.len(), control);
        control.extend_from_slice(&payload);
        self.send(key, &[]);
    }

    fn send_pieces(&mut self, key: ConnectionKey, pieces: &[Piece<'_>], now: Nanos) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        self.stats.sends.inc();
        match connection.send(pieces, now) {
            Ok(taken) => {
                self.stats.bytes.inc_by(taken as u64);
                if connection.is_blocked() {
                    self.stats.blocked.inc();
                    self.block(key, now);
                }
            }
            Err(_) => self.end(key, Cause::Gone),
        }
    }

    fn send_seats(
        &mut self,
        key: ConnectionKey,
        control: &[u8],
        seats: &[SeatKey],
        ts_ns: Nanos,
    ) -> Sent {
        let Some(connection) = self.connections.get(key) else { return Sent::Usual };
        let mut frames = std::mem::take(&mut self.frames);
        frames.clear(connection.encoding, control);
        let mut large = None;
        for (i, seat_key) in seats.iter().enumerate() {
            let served = self.fill(key, *seat_key, &mut frames, ts_ns);
            if !matches!(served, Served::All) {
                // What does not fit now is due again at once.
                self.requeue(&seats[i..]);
            }
            match served {
                Served::All => continue,
                Served::Full => {}
                Served::Large(bytes) => large = Some(bytes),
            }
            break;
        }
        let shared_bytes = large.as_ref().map(|bytes| bytes.len());
        if frames.count > 0 || large.is_some() {
            if let Some(connection) = self.connections.get_mut(key) {
                connection.frames += 1;
                frames.finish(connection.frames, ts_ns, shared_bytes);
            }
        } else {
            frames.abandon();
        }
        if frames.finished > 0 {
            self.stats.frames.inc_by(frames.finished as u64);
            if let Some(connection) = self.connections.get_mut(key)
                && let Some(periodic) = &mut connection.periodic
            {
                periodic.frame_sent_ns = ts_ns;
            }
        }
        if !frames.all().is_empty() {
            match &large {
                Some(shared) => {
                    let tail = frames.encoding.encoder().frame_tail();
                    let pieces =
                        [Piece::Copied(frames.all()), Piece::Shared(shared), Piece::Copied(tail)];
                    self.send_pieces(key, &pieces, ts_ns);
                }
                None => {
                    self.send_pieces(key, &[Piece::Copied(frames.all())], ts_ns);
                }
            }
        }
        self.frames = frames;
        if large.is_some() { Sent::Large } else { Sent::Usual }
    }

    /// Appends what a seat is due. With everything sent, its pace begins.
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
        // Out of the connection while it is filled in: few connections have one.
        let mut report = connection.periodic.as_mut().and_then(|periodic| periodic.report.take());
        let blocked_until_ns = connection.blocked_until_ns;
        let mut judge = Judge {
            class: seat.class,
            ts_ns,
            blocked_until_ns,
            stats: &self.stats,
            report: report.as_deref_mut(),
            merged: 0,
        };
        let before = (frames.finished, frames.count);
        let mut served = Served::All;
        for seated in &mut seat.subscriptions {
            // Most have nothing: told without a look at their lanes.
            if seated.oldest_ns == 0 && seated.wants() == Wants::Log {
                continue;
            }
            let Some(lane) = self.lanes.get_mut(seated.lane) else { continue };
            let filling = Filling { frames, connection, judge: &mut judge, maker: &mut self.maker };
            served = filling.subscription(seated, lane);
            if !matches!(served, Served::All) {
                break;
            }
        }
        connection.merged += judge.merged;
        if let Some(report) = report
            && let Some(periodic) = &mut connection.periodic
        {
            periodic.report = Some(report);
        }
        if matches!(served, Served::All) {
            if before == (frames.finished, frames.count) {
                // Its news were those of a view that left: its pace does not begin for nothing.
                seat.had_nothing();
            } else {
                let by_client = is_clients_fault(blocked_until_ns, seat.oldest_ns);
                self.classes.sent(seat_key, seat, ts_ns, by_client);
            }
        }
        served
    }
}

/// Everything that is needed to append one subscription's updates.
struct Filling<'a, 'j> {
    frames: &'a mut Frames,
    connection: &'a mut Connection,
    judge: &'a mut Judge<'j>,
    maker: &'a mut Maker,
}

impl Filling<'_, '_> {
    fn subscription(mut self, seated: &mut Seated, lane: &mut Lane<Subscriber>) -> Served {
        let wants = seated.wants();
        seated.set_wants(Wants::Log);
        match wants {
            Wants::Log => self.log(seated, lane),
            Wants::First | Wants::Whole => self.whole_or_states(seated, lane, wants),
            Wants::Bridge => self.bridge(seated, lane),
        }
    }

    fn log(&mut self, seated: &mut Seated, lane: &mut Lane<Subscriber>) -> Served {
        match lane.due(seated.position, self.frames.encoding) {
            Due::Range => self.range(seated, lane),
            Due::Whole => self.whole(seated, lane, Wants::Whole),
            Due::StatesOnly => self.states(seated, lane),
            Due::Lost => self.lost(seated, lane),
        }
    }

    /// The difference from what it held in another lane; until it holds what this lane told last,
    /// the log is not for it.
    fn bridge(&mut self, seated: &mut Seated, lane: &mut Lane<Subscriber>) -> Served {
        let Some(from) = self.connection.take_bridge(seated.lane) else {
            return self.whole_or_states(seated, lane, Wants::Whole);
        };
        let (old, new) = (from.status(lane.view.channel), lane.status());
        let continues = old.epoch == new.epoch && new.state.has_whole();
        if !continues || from.scales != lane.taken().scales {
            return self.whole_or_states(seated, lane, Wants::Whole);
        }
        let held = seated.held(lane.s());
        let bridge = lane.bridge(&from, held, self.frames.encoding, self.maker);
        if bridge.is_some() && !new.state.flows() {
            return self.whole(seated, lane, Wants::Whole);
        }
        if self.is_full() {
            self.bridge_from(seated, from);
            return Served::Full;
        }
        self.push_states(seated, lane);
        if let Some((bytes, s)) = bridge {
            self.push(&bytes, seated.oldest_ns);
            self.settle(seated, lane, s);
        }
        seated.position = lane.end();
        seated.oldest_ns = 0;
        if seated.held(lane.s()) != lane.s() {
            self.bridge_from(seated, Arc::clone(lane.taken()));
        }
        Served::All
    }

    fn bridge_from(&mut self, seated: &mut Seated, from: Arc<tickfan_core::snapshot::Snapshot>) {
        seated.set_wants(Wants::Bridge);
        self.connection.pending_mut().bridges.push(Bridge { lane: seated.lane, from });
    }

    /// The send is as long as it may become.
    fn is_full(&self) -> bool {
        self.frames.bytes_left() == 0
    }

    /// Begins the next frame where this one takes no more updates.
    fn make_room(&mut self) {
        if self.frames.room() == 0 {
            self.connection.frames += 1;
            self.frames.finish(self.connection.frames, self.judge.ts_ns, None);
            self.frames.begin();
        }
    }

    /// Appends one update.
    fn push(&mut self, body: &[u8], oldest_ns: Nanos) {
        self.make_room();
        if let Some(over_ns) = self.judge.overrun_ns(oldest_ns) {
            self.frames.mark_late(0, over_ns);
        }
        self.frames.push(body);
        self.judge.count(1, 0);
    }

    /// The client now holds version `s`.
    fn settle(&mut self, seated: &mut Seated, lane: &Lane<Subscriber>, s: u64) {
        let held = seated.held(lane.s());
        if s > held {
            let more = u64::from(planted(Mutant::MergedOffByOne));
            self.judge.count(0, s - held - 1 + more);
        }
        seated.set_held(s);
    }

    /// The bodies from a reader's position on, copied as they lie in the log: as many at a time as
    /// the frame and the send take.
    fn range(&mut self, seated: &mut Seated, lane: &Lane<Subscriber>) -> Served {
        for state in lane.states(seated.position, false) {
            self.push(state.bytes(self.frames.encoding), state.to_ns);
        }
        let is_trades = lane.view.channel == Channel::Trades;
        let encoding = self.frames.encoding;
        let bodies = lane.log().bodies();
        let mut from = lane.index_of(seated.position);
        let mut held = seated.held(lane.s());
        while from < bodies.len() {
            if self.is_full() {
                if seated.oldest_ns == 0 {
                    seated.oldest_ns = bodies[from].to_ns;
                }
                seated.position = lane.end().wrapping_sub((bodies.len() - from) as u32);
                seated.set_held(held);
                return Served::Full;
            }
            self.make_room();
            let room = (bodies.len() - from).min(self.frames.room());
            let bytes_left = self.frames.bytes_left();
            let count = lane.log().count_within(from..from + room, bytes_left, encoding).max(1);
            let until = from + count;
            let mut merged = 0;
            for (ahead, body) in bodies.range(from..until).enumerate() {
                // A state is judged by itself, and so is each trade; of a price all that the client
                // had not been sent counts.
                let oldest_ns = match body.s {
                    Some(_) if !is_trades => match std::mem::take(&mut seated.oldest_ns) {
                        0 => body.to_ns,
                        unsent_ns => unsent_ns,
                    },
                    _ => body.to_ns,
                };
                if let Some(over_ns) = self.judge.overrun_ns(oldest_ns) {
                    self.frames.mark_late(ahead, over_ns);
                }
                if let Some(s) = body.s {
                    if !is_trades && s > held {
                        merged += s - held - 1;
                    }
                    held = s;
                }
                if let (Some(report), Some(age_ns)) = (&mut self.judge.report, body.feed_age_ns) {
                    report.age(age_ns);
                }
            }
            self.judge.count(count as u64, merged);
            self.frames.push_range(lane.log().range(from..until, encoding), count);
            from = until;
        }
        seated.position = lane.end();
        seated.set_held(held);
        // Where no price can be sent, the change that should have been waits on, for the next whole.
        if is_trades || lane.status().state.has_whole() {
            seated.oldest_ns = 0;
        }
        Served::All
    }

    fn push_states(&mut self, seated: &Seated, lane: &Lane<Subscriber>) {
        for state in lane.states(seated.position, true) {
            self.push(state.bytes(self.frames.encoding), state.to_ns);
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
        &mut self,
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
        seated.set_wants(wants);
        self.states(seated, lane)
    }

    fn whole(&mut self, seated: &mut Seated, lane: &mut Lane<Subscriber>, wants: Wants) -> Served {
        if self.is_full() {
            seated.set_wants(wants);
            return Served::Full;
        }
        self.push_states(seated, lane);
        // From here on the states are told; should the rest have to wait, they must not come twice.
        seated.position = lane.end();
        let encoding = self.frames.encoding;
        // A reader that came from another lane may be ahead of what this one told.
        let is_ahead = lane.s() < seated.held(lane.s());
        let s = if is_ahead { lane.newest_version() } else { lane.s() };
        let (bytes, is_new) = if is_ahead {
            (lane.whole_at(s, encoding, self.maker).into(), true)
        } else {
            lane.whole(encoding, self.maker)
        };
        if is_new {
            self.judge.stats.wholes.inc();
        }
        let oldest_ns = if wants == Wants::First { 0 } else { seated.oldest_ns };
        let is_large = bytes.len() > BODY_BYTES_SHARED;
        if is_large {
            if self.frames.count > 0 {
                seated.set_wants(wants);
                return Served::Full;
            }
            if let Some(over_ns) = self.judge.overrun_ns(oldest_ns) {
                self.frames.mark_late(0, over_ns);
            }
            self.judge.count(1, 0);
        } else {
            self.push(&bytes, oldest_ns);
        }
        if wants == Wants::First {
            seated.set_held(s);
        }
        self.settle(seated, lane, s);
        seated.oldest_ns = 0;
        if is_ahead {
            self.bridge_from(seated, Arc::clone(lane.taken()));
        }
        if is_large { Served::Large(bytes) } else { Served::All }
    }

    fn lost(&mut self, seated: &mut Seated, lane: &Lane<Subscriber>) -> Served {
        if self.is_full() {
            return Served::Full;
        }
        for state in lane.states(seated.position, false) {
            self.push(state.bytes(self.frames.encoding), state.to_ns);
        }
        let held = seated.held(lane.s());
        if lane.first_p() > held {
            let (bytes, s) = lane.trades_lost(held, self.frames.encoding);
            self.judge.stats.trades_lost.inc_by(s - held);
            self.push(&bytes, seated.oldest_ns);
            seated.set_held(s);
        }
        seated.position = lane.log().first();
        self.range(seated, lane)
    }

    /// Trades that a subscription begins with, or that bring it from one lane to another; then what
    /// its position says.
    fn trades_since(
        &mut self,
        seated: &mut Seated,
        lane: &mut Lane<Subscriber>,
        wants: Wants,
    ) -> Served {
        let mut held = seated.held(lane.s());
        let until = lane.p_at(seated.position).unwrap_or(held);
        while held < until {
            if self.is_full() {
                seated.set_wants(wants);
                return Served::Full;
            }
            let (bytes, s) = lane.trades_since(held, until, self.frames.encoding);
            self.push(&bytes, 0);
            held = s;
            seated.set_held(held);
        }
        if seated.position == lane.end() {
            return Served::All;
        }
        self.log(seated, lane)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_begun_where_its_head_passes_the_send_leaves_no_room() {
        let body = [b'x'; 64];
        let mut frames = Frames::default();
        for first_bytes in SEND_BYTES - 2 * FRAME_HEAD_BYTES_MAX..SEND_BYTES {
            frames.clear(Encoding::Json, &[]);
            let rest_bytes = frames.len() + (FRAME_UPDATES_MAX - 1) * (body.len() + 1);
            frames.push(&vec![b'x'; first_bytes - rest_bytes]);
            while frames.room() > 0 {
                assert!(frames.bytes_left() > 0);
                frames.push(&body);
            }
            assert_eq!(frames.bytes_left(), SEND_BYTES - first_bytes);
            frames.finish(1, 1, None);
            frames.begin();
            let (left, passed) = (frames.bytes_left(), frames.len().saturating_sub(SEND_BYTES));
            assert!(left == 0 || passed == 0, "{left} bytes left, {passed} too many");
            assert!(left < 2 * FRAME_HEAD_BYTES_MAX && passed < FRAME_HEAD_BYTES_MAX);
        }
    }
}
