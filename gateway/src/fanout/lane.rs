//! A lane: all subscribers of one view at one budget, and the log of bodies that they share.
//!
//! It turns snapshots into bodies, each encoded once, and tells a reader at any position of the log
//! what it must be given. Pure: a shard calls it with snapshots and times. It knows no connection.

use std::sync::Arc;

use tickfan_core::diff::side_changes;
use tickfan_core::market::{Channel, Level, Nanos, State, Trade, Why};
use tickfan_core::snapshot::tail::{Following, TradeTail};
use tickfan_core::snapshot::{Entry, Fault, Snapshot, Status};
use tickfan_core::view::{BudgetClass, View};
use tickfan_core::wire::{Encoding, Head, Payload, Update};

use super::log::{Body, Log, StateBody, behind};
use crate::limits::{
    BODY_TRADES_MAX, GRAIN_BUDGET_NS_MIN, GRAIN_DIVISOR, LOG_BODIES_MAX, LOG_BYTES_MAX, LOG_TRADES,
};
use crate::mutant::{Mutant, planted};

/// Bytes of a level in an image, about: to compare the cost of a range with that of an image that
/// was not encoded yet.
const LEVEL_BYTES: usize = 24;

/// Bytes of an image without its levels, about.
const IMAGE_HEAD_BYTES: usize = 160;

/// What a reader at some position is due.
#[derive(Debug, PartialEq, Eq)]
pub enum Due {
    /// The changes of state that it missed before the log begins, then the bodies from its position
    /// on, or from the log's beginning.
    Range,
    /// The changes of state that it missed, then the whole.
    Whole,
    /// The changes of state that it missed, and no price.
    StatesOnly,
    /// (Trades) the changes of state that it missed, the number of trades that it lost, then the
    /// bodies from the log's beginning on.
    Lost,
}

/// `a` was reached later than `b`.
const fn is_after(a: u32, b: u32) -> bool {
    a.wrapping_sub(b) as i32 > 0
}

/// Memory for the levels of one update, which lanes share.
#[derive(Debug, Default)]
pub struct Maker {
    bids: Vec<Level>,
    asks: Vec<Level>,
}

fn encode(update: &Update<'_>, encoding: Encoding) -> Vec<u8> {
    let mut bytes = Vec::new();
    encoding.encoder().update(update, &mut bytes);
    bytes
}

/// All subscribers of one view at one budget.
#[derive(Debug)]
pub struct Lane<S> {
    /// The view.
    pub view: View,
    /// The budget.
    pub class: BudgetClass,
    /// Where its snapshots come from.
    pub entry: Arc<Entry>,
    /// Who reads it.
    pub subscribers: Vec<S>,
    /// Receipt of the oldest change that is in no body yet; 0 = none.
    pub pending_ns: Nanos,
    /// Until then it waits in its class's queue; 0 = it does not wait.
    pub grain_until_ns: Nanos,
    /// Changes of state that were forgotten; for the shard to count.
    pub states_forgotten: u64,
    number: u32,
    taken: Arc<Snapshot>,
    s: u64,
    log: Log,
    wholes: [Option<Arc<[u8]>>; Encoding::COUNT],
    previous_wholes: [Option<Arc<[u8]>>; Encoding::COUNT],
    readers: [u32; Encoding::COUNT],
}

impl<S> Lane<S> {
    /// A lane that begins at a snapshot.
    pub fn new(view: View, class: BudgetClass, entry: Arc<Entry>, taken: Arc<Snapshot>) -> Self {
        let s = version(&taken, view.channel);
        Self {
            view,
            class,
            entry,
            subscribers: Vec::new(),
            pending_ns: 0,
            grain_until_ns: 0,
            states_forgotten: 0,
            number: view.number(),
            taken,
            s,
            log: Log::default(),
            wholes: Default::default(),
            previous_wholes: Default::default(),
            readers: [0; Encoding::COUNT],
        }
    }

    /// How long it waits between two bodies.
    pub const fn grain_ns(&self) -> Nanos {
        let budget_ns = self.class.budget_ns();
        if budget_ns < GRAIN_BUDGET_NS_MIN { 0 } else { budget_ns / GRAIN_DIVISOR }
    }

    /// The number of its view.
    pub const fn number(&self) -> u32 {
        self.number
    }

    /// Where the log ends: the position of a reader that has everything.
    pub fn end(&self) -> u32 {
        self.log.end()
    }

    /// The log.
    pub const fn log(&self) -> &Log {
        &self.log
    }

    /// One more subscriber reads an encoding.
    pub fn add_reader(&mut self, encoding: Encoding) {
        self.readers[encoding.index()] += 1;
        self.log.begin_encoding(encoding);
    }

    /// One subscriber less reads an encoding.
    pub fn remove_reader(&mut self, encoding: Encoding) {
        let readers = &mut self.readers[encoding.index()];
        *readers -= 1;
        if *readers == 0 {
            self.log.end_encoding(encoding);
            self.wholes[encoding.index()] = None;
        }
    }

    /// The version after the last body; for trades the number of the last trade.
    pub const fn s(&self) -> u64 {
        self.s
    }

    /// The version of the snapshot taken last.
    pub fn newest_version(&self) -> u64 {
        version(&self.taken, self.view.channel)
    }

    /// The snapshot taken last.
    pub const fn taken(&self) -> &Arc<Snapshot> {
        &self.taken
    }

    /// The state of its channel, as of the last body.
    pub fn status(&self) -> &Status {
        self.taken.status(self.view.channel)
    }

    /// The snapshot tells of another state or epoch than the last body: that must not wait.
    pub fn is_urgent(&self, newest: &Snapshot) -> bool {
        let (old, new) = (self.status(), newest.status(self.view.channel));
        old.changes != new.changes || old.epoch != new.epoch
    }

    /// Takes a newer snapshot and appends what it brings; returns how many bodies that made.
    pub fn advance(&mut self, newest: Arc<Snapshot>, maker: &mut Maker) -> u32 {
        let before = self.log.end();
        let to_ns = std::mem::take(&mut self.pending_ns);
        let old = *self.status();
        let new = *newest.status(self.view.channel);
        if old.changes == new.changes && old.epoch == new.epoch {
            if new.state.flows() {
                self.append_data(&newest, to_ns, &new, maker);
            }
        } else {
            self.append_transition(&old, &new, &newest, to_ns, maker);
        }
        self.taken = newest;
        self.trim();
        behind(before, self.log.end())
    }

    /// A change of state or epoch, told before anything that follows from it.
    fn append_transition(
        &mut self,
        old: &Status,
        new: &Status,
        newest: &Arc<Snapshot>,
        to_ns: Nanos,
        maker: &mut Maker,
    ) {
        // An image says in which state it is: the one that was made before says another.
        self.forget_wholes();
        if let Some(fault) = new.fault
            && fault.change != new.changes
            && is_after(fault.change, old.changes)
        {
            self.append_fault(&fault, newest, to_ns);
        }
        let continues = old.epoch == new.epoch && old.state.has_whole() && new.state.has_whole();
        let mut turned_ns = to_ns;
        let flows = old.state.flows() || new.state.flows();
        if self.view.channel == Channel::Trades && !flows && newest.trades.tail.newest() > self.s {
            // They flowed in between: that came and went before we looked.
            let status = Status { state: State::Live, why: Why::Synced, since_ns: to_ns, ..*new };
            self.append_state(&status, newest, to_ns);
            self.append_data(newest, to_ns, &status, maker);
            turned_ns = to_ns.max(new.since_ns);
        }
        let is_trades = self.view.channel == Channel::Trades;
        // A trade stays one, whatever became of the channel since.
        let data_goes_first = old.state.flows()
            && (continues && (new.state == State::Live || new.state == State::Stale)
                || is_trades && !new.state.flows());
        if data_goes_first {
            self.append_data(newest, to_ns, old, maker);
            // What was older was told just before.
            turned_ns = to_ns.max(new.since_ns);
        }
        let begins_anew = !continues && new.state.has_whole();
        if self.view.channel == Channel::Book && begins_anew {
            // The image that everybody gets now brings the epoch and the state.
            self.s = version(newest, self.view.channel);
            self.forget_wholes();
            self.log.break_chain();
            return;
        }
        if !continues && !is_trades {
            self.log.clear();
        }
        self.append_state(new, newest, turned_ns);
        if begins_anew && self.view.channel == Channel::Bbo {
            self.append_bbo(newest, to_ns, new);
        } else if !data_goes_first && new.state.flows() {
            self.append_data(newest, to_ns, new, maker);
        }
    }

    fn append_fault(&mut self, fault: &Fault, newest: &Snapshot, to_ns: Nanos) {
        let status = Status {
            state: fault.state,
            why: fault.why,
            since_ns: fault.since_ns,
            epoch: fault.epoch,
            ..*newest.status(self.view.channel)
        };
        self.append_state(&status, newest, to_ns);
    }

    fn append_state(&mut self, status: &Status, newest: &Snapshot, to_ns: Nanos) {
        let head = Head {
            state: status.state,
            epoch: status.epoch,
            s: 0,
            p: 0,
            ..self.head(newest, to_ns)
        };
        let payload = Payload::State { why: status.why, since_ns: status.since_ns };
        let forgets = self.log.push_state(&Update { head, payload }, self.s, to_ns);
        self.states_forgotten += u64::from(forgets);
    }

    /// What the snapshot brings, as of the state `told` to readers just before it: that of the
    /// snapshot may come after.
    fn append_data(
        &mut self,
        newest: &Arc<Snapshot>,
        to_ns: Nanos,
        told: &Status,
        maker: &mut Maker,
    ) {
        match self.view.channel {
            Channel::Book => self.append_delta(newest, to_ns, told, maker),
            Channel::Bbo => {
                let (old, new) = (&self.taken.bbo, &newest.bbo);
                let same_scales = self.taken.scales == newest.scales;
                if !(same_scales && old.bid == new.bid && old.ask == new.ask) {
                    self.append_bbo(newest, to_ns, told);
                }
            }
            Channel::Trades => self.append_trades(newest, to_ns, told),
        }
    }

    fn append_delta(&mut self, newest: &Snapshot, to_ns: Nanos, told: &Status, maker: &mut Maker) {
        if self.taken.book.changed == newest.book.changed {
            return;
        }
        if let Some(payload) = changes(&self.taken, newest, self.view, maker) {
            let head = self.head_as_told(newest, to_ns, told);
            self.log.push(&Update { head, payload }, Some(head.s), head.p, to_ns);
            self.s = head.s;
            self.forget_wholes();
        }
    }

    fn append_bbo(&mut self, newest: &Snapshot, to_ns: Nanos, told: &Status) {
        let head = self.head_as_told(newest, to_ns, told);
        let payload = Payload::Bbo { bid: newest.bbo.bid, ask: newest.bbo.ask };
        // It is whole: whoever missed the one before it misses nothing.
        self.log.clear();
        self.forget_wholes();
        self.log.push(&Update { head, payload }, Some(head.s), head.p, to_ns);
        self.s = head.s;
    }

    fn append_trades(&mut self, newest: &Snapshot, to_ns: Nanos, told: &Status) {
        let tail = &newest.trades.tail;
        while let Some(following) = tail.following(self.s, BODY_TRADES_MAX) {
            let (trades, s) = run(tail, self.s, following);
            let lost = s - self.s - trades.len() as u64;
            let head = Head { s, ..self.head_as_told(newest, to_ns, told) };
            let payload = Payload::Trades { trades: &trades, lost };
            self.log.push(&Update { head, payload }, Some(s), self.s, to_ns);
            self.s = s;
        }
    }

    fn head(&self, newest: &Snapshot, to_ns: Nanos) -> Head {
        head(newest, self.view.channel, Some(self.number), self.s, to_ns)
    }

    fn head_as_told(&self, newest: &Snapshot, to_ns: Nanos, told: &Status) -> Head {
        Head { state: told.state, epoch: told.epoch, ..self.head(newest, to_ns) }
    }

    fn forget_wholes(&mut self) {
        let wholes = std::mem::take(&mut self.wholes);
        if planted(Mutant::OldImage) {
            for (previous, whole) in self.previous_wholes.iter_mut().zip(wholes) {
                *previous = whole.or(previous.take());
            }
        }
    }

    /// Bodies of the log, their bytes, states and trades; a single body may be as long as it likes, and
    /// trades have a bound of their own.
    #[cfg(test)]
    pub(crate) fn log_size(&self) -> [usize; 4] {
        let (bodies, states) = (self.log.bodies().len(), self.log.states_len());
        if self.view.channel == Channel::Trades {
            return [0, 0, states, (self.s - self.first_p()) as usize];
        }
        let bytes = Encoding::ALL.map(|encoding| self.log.len_bytes(encoding)).into_iter().max();
        [bodies, if bodies > 1 { bytes.unwrap_or(0) } else { 0 }, states, 0]
    }

    /// Keeps the log within the bytes of an image, and within its limits.
    fn trim(&mut self) {
        let bodies = self.log.bodies();
        if self.view.channel == Channel::Trades {
            let is_spare =
                |oldest: &Body| self.s - oldest.s.unwrap_or(oldest.p) >= LOG_TRADES as u64;
            let spare = bodies.iter().take_while(|oldest| is_spare(oldest)).count();
            for _ in 0..spare {
                self.log.pop_front();
            }
            return;
        }
        while self.log.bodies().len() > 1
            && (self.log.bodies().len() > LOG_BODIES_MAX
                || Encoding::ALL.into_iter().any(|encoding| {
                    self.log.len_bytes(encoding) > self.whole_bytes(encoding).min(LOG_BYTES_MAX)
                }))
        {
            self.log.pop_front();
        }
    }

    /// Bytes of the whole, about where it was not encoded yet.
    fn whole_bytes(&self, encoding: Encoding) -> usize {
        if let Some(whole) = &self.wholes[encoding.index()] {
            return whole.len();
        }
        let depth = self.view.depth.limit();
        let book = &self.taken.book.book;
        IMAGE_HEAD_BYTES + LEVEL_BYTES * (book.bids.len().min(depth) + book.asks.len().min(depth))
    }

    /// What a reader at this position is due.
    pub fn due(&self, position: u32, encoding: Encoding) -> Due {
        let missed = behind(position, self.log.end());
        if missed as usize <= self.log.bodies().len() {
            if self.view.channel == Channel::Trades
                || !self.status().state.has_whole()
                || missed <= 1
            {
                return Due::Range;
            }
            let bytes = self.log.bytes_from(self.log.index_of(position), encoding);
            return if bytes <= self.whole_bytes(encoding) { Due::Range } else { Due::Whole };
        }
        match self.view.channel {
            Channel::Trades => Due::Lost,
            _ if !self.status().state.has_whole() => Due::StatesOnly,
            // Its newest body is the whole.
            Channel::Bbo if self.log.bodies().iter().any(|body| body.s.is_some()) => Due::Range,
            _ => Due::Whole,
        }
    }

    /// The index in the log of the first body that a reader at this position has not.
    pub fn index_of(&self, position: u32) -> usize {
        let index = self.log.index_of(position);
        let missed = self.log.bodies().len() - index;
        index + usize::from(missed > 1 && planted(Mutant::SkipBody))
    }

    /// The changes of state from a position up to where the log begins, and for a reader that gets
    /// the whole up to the end.
    pub fn states(&self, position: u32, until_end: bool) -> impl Iterator<Item = &StateBody> + '_ {
        let until = if until_end { self.log.end() } else { self.log.first() };
        self.log.states(position, until)
    }

    /// The version that a reader holds at a position; `None` when the log begins after it.
    pub fn p_at(&self, position: u32) -> Option<u64> {
        match behind(position, self.log.end()) as usize {
            0 => Some(self.s),
            missed => {
                let at = self.log.bodies().len().checked_sub(missed)?;
                Some(self.log.bodies()[at].p)
            }
        }
    }

    /// The version that a reader holds at the log's beginning.
    pub fn first_p(&self) -> u64 {
        self.log.bodies().front().map_or(self.s, |body| body.p)
    }

    /// The whole as of the last body, encoded once: an image of a book, the newest best bid and
    /// offer. And whether it had to be encoded.
    pub fn whole(&mut self, encoding: Encoding, maker: &mut Maker) -> (Arc<[u8]>, bool) {
        if let Some(old) = &self.previous_wholes[encoding.index()]
            && planted(Mutant::OldImage)
        {
            return (Arc::clone(old), false);
        }
        if let Some(whole) = &self.wholes[encoding.index()] {
            return (Arc::clone(whole), false);
        }
        let bytes: Arc<[u8]> = self.whole_at(self.s, encoding, maker).into();
        self.wholes[encoding.index()] = Some(Arc::clone(&bytes));
        (bytes, true)
    }

    /// The whole as of the last body at another version: for a reader that came from another lane
    /// and holds a later one than this lane has told.
    pub fn whole_at(&self, s: u64, encoding: Encoding, maker: &mut Maker) -> Vec<u8> {
        let head = Head { s, ..self.head(&self.taken, self.taken.bbo.tr_ns) };
        let payload = match self.view.channel {
            Channel::Book => {
                let depth = self.view.depth.limit();
                image(&self.taken, depth, &mut maker.bids, &mut maker.asks)
            }
            _ => Payload::Bbo { bid: self.taken.bbo.bid, ask: self.taken.bbo.ask },
        };
        encode(&Update { head, payload }, encoding)
    }

    /// A private update from an older snapshot of the same view, held at version `p`, to the last
    /// one taken, and its version: for a reader that comes from another lane. `None` when nothing
    /// differs.
    ///
    /// Lanes of one view differ in the versions at which they told the same, so the version may be
    /// one that this lane never told: it continues the reader's own chain.
    pub fn bridge(
        &self,
        from: &Snapshot,
        p: u64,
        encoding: Encoding,
        maker: &mut Maker,
    ) -> Option<(Vec<u8>, u64)> {
        let s = if self.s > p { self.s } else { self.newest_version() };
        let head = Head { s, p, ..self.head(&self.taken, self.taken.book.tr_ns) };
        let payload = match self.view.channel {
            Channel::Book => changes(from, &self.taken, self.view, maker)?,
            Channel::Bbo => {
                let (old, new) = (&from.bbo, &self.taken.bbo);
                if old.bid == new.bid && old.ask == new.ask {
                    return None;
                }
                Payload::Bbo { bid: new.bid, ask: new.ask }
            }
            Channel::Trades => return None,
        };
        Some((encode(&Update { head, payload }, encoding), s))
    }

    /// A private update with the trades after number `held` up to one that was told; what is no
    /// longer there is told as lost. At most [`BODY_TRADES_MAX`] trades.
    pub fn trades_since(&self, held: u64, until: u64, encoding: Encoding) -> (Vec<u8>, u64) {
        let tail = &self.taken.trades.tail;
        let wanted = usize::try_from(until - held).unwrap_or(usize::MAX);
        let (trades, s) = match tail.following(held, wanted.min(BODY_TRADES_MAX)) {
            Some(Following::Lost(count)) => (Vec::new(), until.min(held + count)),
            Some(following) => run(tail, held, following),
            None => (Vec::new(), until),
        };
        let lost = s - held - trades.len() as u64;
        (self.private_trades(held, s, &trades, lost, encoding), s)
    }

    /// A private update that tells how many trades a reader lost: from `held` to the log's beginning.
    pub fn trades_lost(&self, held: u64, encoding: Encoding) -> (Vec<u8>, u64) {
        let s = self.first_p();
        (self.private_trades(held, s, &[], s.saturating_sub(held), encoding), s)
    }

    fn private_trades(
        &self,
        held: u64,
        s: u64,
        trades: &[Trade],
        lost: u64,
        encoding: Encoding,
    ) -> Vec<u8> {
        let tr_ns = self.taken.trades.tr_ns;
        let head = Head { s, p: held, ..self.head(&self.taken, tr_ns) };
        encode(&Update { head, payload: Payload::Trades { trades, lost } }, encoding)
    }
}

/// The version of a channel: the instrument's, or the number of the newest trade.
pub fn version(snapshot: &Snapshot, channel: Channel) -> u64 {
    match channel {
        Channel::Trades => snapshot.trades.tail.newest(),
        _ => snapshot.version,
    }
}

/// What an update made from this snapshot says of itself.
pub fn head(
    snapshot: &Snapshot,
    channel: Channel,
    view: Option<u32>,
    p: u64,
    to_ns: Nanos,
) -> Head {
    let status = snapshot.status(channel);
    let (q, te_ns, tr_ns) = match channel {
        Channel::Book => (snapshot.book.sequence, snapshot.book.te_ns, snapshot.book.tr_ns),
        Channel::Bbo => (snapshot.bbo.sequence, snapshot.bbo.te_ns, snapshot.bbo.tr_ns),
        Channel::Trades => (None, 0, snapshot.trades.tr_ns),
    };
    Head {
        view,
        state: status.state,
        epoch: status.epoch,
        s: version(snapshot, channel),
        p,
        q,
        te_ns,
        tr_ns,
        // A turn of the state may come after the newest event.
        to_ns: if tr_ns == 0 { to_ns } else { to_ns.min(tr_ns) },
        scales: snapshot.scales,
    }
}

/// The image of a book to a depth, in the memory given.
pub fn image<'a>(
    snapshot: &Snapshot,
    depth: usize,
    bids: &'a mut Vec<Level>,
    asks: &'a mut Vec<Level>,
) -> Payload<'a> {
    let book = &snapshot.book.book;
    bids.clear();
    asks.clear();
    bids.extend(book.bids.iter().take(depth));
    asks.extend(book.asks.iter().take(depth));
    let trusted = [book.bids.trusted_len(depth), book.asks.trusted_len(depth)];
    Payload::Image { bids, asks, trusted }
}

/// The trades of a run and the number after it.
fn run(tail: &TradeTail, number: u64, following: Following) -> (Vec<Trade>, u64) {
    match following {
        Following::Lost(count) => (Vec::new(), number + count),
        Following::Trades(count) => {
            (tail.after(number).take(count as usize).cloned().collect(), number + count)
        }
    }
}

/// What differs between two snapshots of a book; `None` when nothing does.
fn changes<'a>(
    old: &Snapshot,
    new: &Snapshot,
    view: View,
    maker: &'a mut Maker,
) -> Option<Payload<'a>> {
    let Maker { bids, asks } = maker;
    bids.clear();
    asks.clear();
    let depth = view.depth.limit();
    side_changes(&old.book.book.bids, &new.book.book.bids, depth, bids);
    side_changes(&old.book.book.asks, &new.book.book.asks, depth, asks);
    (!(bids.is_empty() && asks.is_empty())).then_some(Payload::Delta { bids, asks })
}

#[cfg(test)]
mod tests {
    use tickfan_core::market::{Aggressor, InstrumentId, Px, Qty, Scales, TradeId, Venue, Why};
    use tickfan_core::snapshot::Registry;
    use tickfan_core::view::Depth;

    use super::*;
    use crate::limits::LOG_STATES_MAX;

    const JSON: Encoding = Encoding::Json;

    /// A lane, and the snapshot that its instrument would publish next.
    struct Scene {
        lane: Lane<()>,
        next: Snapshot,
        maker: Maker,
    }

    fn scene(channel: Channel, depth: Depth) -> Scene {
        let entry = Registry::new(1).register(Venue::Sim, &["A".into()], 7, 1).unwrap().remove(0);
        let mut next = Snapshot::starting(InstrumentId(0), Scales::default(), 7, 1);
        for channel in Channel::ALL {
            next.status_mut(*channel).turn(State::Live, Why::Synced, 2);
        }
        entry.publish(Arc::new(next.clone()));
        let view = View { instrument: InstrumentId(0), channel, depth };
        let taken = entry.load();
        let mut lane = Lane::new(view, BudgetClass::at_most(100), entry, taken);
        lane.add_reader(JSON);
        Scene { lane, next, maker: Maker::default() }
    }

    impl Scene {
        fn set(&mut self, px: i64, qty: i64) {
            self.next.version += 1;
            self.next.book.changed = self.next.version;
            self.next.book.book.bids.set(Px(px), Qty(qty));
        }

        fn trade(&mut self) {
            let id = TradeId::Number(self.next.trades.tail.newest() + 1);
            let (px, qty) = (Px(1), Qty(1));
            let aggressor = Aggressor::Buy;
            self.next.trades.tail.push(Trade { te_ns: 0, px, qty, aggressor, id });
        }

        fn turn(&mut self, state: State, why: Why) {
            self.next.status_mut(self.lane.view.channel).turn(state, why, 9);
        }

        fn advance(&mut self) -> u32 {
            self.lane.advance(Arc::new(self.next.clone()), &mut self.maker)
        }

        fn range(&self, position: u32) -> Vec<String> {
            let log = self.lane.log();
            (self.lane.index_of(position)..log.bodies().len())
                .map(|index| text(log.body(index, JSON)))
                .collect()
        }

        fn states(&self, position: u32) -> Vec<String> {
            self.lane.states(position, true).map(|state| text(state.bytes(JSON))).collect()
        }

        fn whole(&mut self) -> String {
            text(&self.lane.whole(JSON, &mut self.maker).0)
        }

        fn due(&self, position: u32) -> Due {
            self.lane.due(position, JSON)
        }
    }

    fn text(bytes: &[u8]) -> String {
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn what_the_view_does_not_show_appends_nothing() {
        let mut scene = scene(Channel::Book, Depth::Levels(1));
        scene.set(10, 1);
        assert_eq!(scene.advance(), 1);
        scene.set(9, 1);
        assert_eq!(scene.advance(), 0);
        scene.set(10, 2);
        assert_eq!(scene.advance(), 1);
        let last = scene.range(1).remove(0);
        assert!(last.contains(r#""s":3,"p":1"#), "it follows the last body: {last}");
    }

    #[test]
    fn a_gap_voids_what_was_not_sent_and_the_image_after_it_reaches_everybody() {
        let mut scene = scene(Channel::Book, Depth::Full);
        scene.set(10, 1);
        scene.advance();
        scene.turn(State::Gap, Why::SequenceGap);
        scene.advance();
        assert_eq!(scene.due(0), Due::StatesOnly, "a reader behind gets no price");
        assert!(scene.states(0)[0].contains(r#""e":7,"state":"gap","why":"sequence_gap""#));
        assert_eq!(scene.due(1), Due::Range, "an even reader gets the state");

        scene.next.book.status.begin_epoch();
        scene.set(11, 1);
        scene.turn(State::Live, Why::Synced);
        scene.advance();
        for position in [0, 1, 2] {
            assert_eq!(scene.due(position), Due::Whole, "{position}");
        }
        assert_eq!(scene.states(0).len(), 1, "who missed the gap is told of it first");
        assert_eq!(scene.states(2).len(), 0);
        assert!(scene.whole().contains(r#""e":8,"s":2"#));
    }

    #[test]
    fn a_fault_between_two_looks_is_told_all_the_same() {
        let mut scene = scene(Channel::Bbo, Depth::Levels(1));
        scene.turn(State::Gap, Why::MalformedMessage);
        scene.next.bbo.status.begin_epoch();
        scene.turn(State::Live, Why::Synced);
        scene.advance();
        let told = scene.states(0);
        assert!(told[0].contains(r#""e":7,"state":"gap","why":"malformed_message""#));
        assert!(told[1].contains(r#""e":8,"state":"live""#));
    }

    #[test]
    fn proven_continuity_keeps_the_chain() {
        let mut scene = scene(Channel::Book, Depth::Full);
        scene.set(10, 1);
        scene.advance();
        scene.turn(State::Stale, Why::VenueSilent);
        scene.advance();
        scene.turn(State::Live, Why::VenueBack);
        scene.set(10, 2);
        scene.advance();
        assert_eq!(scene.due(2), Due::Range);
        let bodies = scene.range(2);
        assert!(bodies[0].contains(r#""state":"live","why":"venue_back""#), "the state goes first");
        assert!(bodies[1].contains(r#""s":2,"p":1"#));
    }

    #[test]
    fn what_goes_before_a_change_of_state_does_not_know_of_it() {
        let mut scene = scene(Channel::Book, Depth::Full);
        scene.lane.add_reader(Encoding::Binary);
        scene.set(10, 1);
        scene.turn(State::Stale, Why::Disconnected);
        assert_eq!(scene.advance(), 2, "the change, then the state");
        let log = scene.lane.log();
        let states: Vec<_> = (0..2).map(|i| log.body(i, Encoding::Binary)[5]).collect();
        assert_eq!(states, [State::Live as u8, State::Stale as u8]);
    }

    #[test]
    fn trades_of_a_phase_between_two_looks_are_told_in_it() {
        let mut scene = scene(Channel::Trades, Depth::Levels(1));
        scene.turn(State::Stale, Why::Disconnected);
        scene.advance();
        scene.turn(State::Live, Why::Synced);
        scene.trade();
        scene.turn(State::Stale, Why::Disconnected);
        assert_eq!(scene.advance(), 3);
        let bodies = scene.range(1);
        for (body, told) in
            bodies.iter().zip([r#""state":"live""#, r#""s":1"#, r#""state":"stale""#])
        {
            assert!(body.contains(told), "{body}");
        }
    }

    #[test]
    fn a_log_costs_no_more_than_an_image() {
        let mut scene = scene(Channel::Book, Depth::Levels(20));
        for px in 0..20 {
            scene.set(px, 1);
        }
        scene.advance();
        for qty in 2..200 {
            scene.set(10, qty);
            scene.advance();
            assert!(scene.lane.log.len_bytes(JSON) <= scene.lane.whole_bytes(JSON));
        }
        assert_eq!(scene.due(0), Due::Whole);
        assert_eq!(scene.due(scene.lane.end().wrapping_sub(2)), Due::Range);
    }

    #[test]
    fn a_best_bid_and_offer_replaces_the_one_before() {
        let mut scene = scene(Channel::Bbo, Depth::Levels(1));
        for px in 1..5 {
            scene.next.version += 1;
            scene.next.bbo.bid = Some(Level { px: Px(px), qty: Qty(1) });
            scene.advance();
        }
        assert_eq!(scene.lane.log.bodies().len(), 1);
        assert_eq!(scene.due(0), Due::Range);
        assert!(scene.range(0)[0].contains(r#""s":4"#));
        assert!(scene.whole().contains(r#""s":4"#));
    }

    #[test]
    fn trades_come_in_bodies_of_a_thousand_and_one_past_the_log_is_lost_by_count() {
        let mut scene = scene(Channel::Trades, Depth::Levels(1));
        for _ in 0..BODY_TRADES_MAX + 1 {
            scene.trade();
        }
        assert_eq!(scene.advance(), 2);
        let bodies = scene.range(0);
        assert!(bodies[0].contains(r#""s":1000,"p":0"#));
        assert!(bodies[1].contains(r#""s":1001,"p":1000"#));

        while scene.lane.s() < LOG_TRADES as u64 + 1000 {
            scene.trade();
            scene.advance();
        }
        assert_eq!(scene.due(0), Due::Lost);
        let (lost, s) = scene.lane.trades_lost(0, JSON);
        assert_eq!(s, 1000);
        let lost = String::from_utf8(lost).unwrap();
        assert!(lost.contains(r#""s":1000,"p":0,"lost":1000"#), "{lost}");
        let kept: u64 = scene.lane.s() - scene.lane.first_p();
        assert!(kept >= LOG_TRADES as u64, "{kept}");
    }

    #[test]
    fn trades_that_the_feed_never_saw_are_lost_for_everybody() {
        let mut scene = scene(Channel::Trades, Depth::Levels(1));
        scene.trade();
        scene.advance();
        scene.next.trades.tail.skip(3);
        scene.trade();
        assert_eq!(scene.advance(), 2);
        assert!(scene.range(1)[0].contains(r#""s":4,"p":1,"lost":3"#));
    }

    #[test]
    fn one_change_of_state_too_many_is_forgotten_and_counted() {
        let mut scene = scene(Channel::Book, Depth::Full);
        for i in 0..=LOG_STATES_MAX {
            let (state, why) = if i % 2 == 0 {
                (State::Stale, Why::VenueSilent)
            } else {
                (State::Live, Why::VenueBack)
            };
            scene.turn(state, why);
            scene.advance();
        }
        assert_eq!(scene.states(0).len(), LOG_STATES_MAX);
        assert_eq!(scene.lane.states_forgotten, 1);
    }
}
