//! What the feed thread publishes and everyone else reads: immutable snapshots, one newest per
//! instrument, and the table that holds them.
//!
//! This is the waist of the gateway: the writing half (venue, feed) and the reading half (fan-out,
//! HTTP) know this module and not each other. Publishing is one atomic swap; reading never waits.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};

use crate::book::Book;
use crate::market::{
    Channel, Instrument, InstrumentId, Level, Listing, Nanos, Scales, State, Venue, Why,
};

pub mod marks;
pub mod tail;

use tail::TradeTail;

/// The state of one channel, and the last time it was not what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// The state.
    pub state: State,
    /// Its reason.
    pub why: Why,
    /// Since when it holds.
    pub since_ns: Nanos,
    /// The epoch of the channel: versions compare only within one.
    pub epoch: u32,
    /// How often the state has changed.
    pub changes: u32,
    /// The last time that updates ceased to flow, so that a reader who skipped the snapshots of that
    /// time still learns of it.
    pub fault: Option<Fault>,
}

/// A time when updates of a channel did not flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// What the channel turned to.
    pub state: State,
    /// Why.
    pub why: Why,
    /// When.
    pub since_ns: Nanos,
    /// The epoch that it ended or interrupted.
    pub epoch: u32,
    /// The value of [`Status::changes`] that it brought.
    pub change: u32,
}

impl Status {
    /// The beginning: nothing is known yet.
    pub const fn starting(epoch: u32, now: Nanos) -> Self {
        Self {
            state: State::Syncing,
            why: Why::Starting,
            since_ns: now,
            epoch,
            changes: 0,
            fault: None,
        }
    }

    /// Turns to a state; returns whether that was a change. Where nothing is wrong, another reason
    /// for the same state is none.
    pub fn turn(&mut self, state: State, why: Why, now: Nanos) -> bool {
        let is_right = matches!(state, State::Live | State::Halted);
        if self.state == state && (self.why == why || is_right) {
            return false;
        }
        self.state = state;
        self.why = why;
        self.since_ns = now;
        self.changes = self.changes.wrapping_add(1);
        if !state.flows() {
            self.fault =
                Some(Fault { state, why, since_ns: now, epoch: self.epoch, change: self.changes });
        }
        true
    }

    /// History was lost: what follows belongs to a new epoch.
    pub const fn begin_epoch(&mut self) {
        self.epoch += 1;
    }
}

/// The book of a snapshot.
#[derive(Debug, Clone)]
pub struct BookPart {
    /// The state of the channel.
    pub status: Status,
    /// The version at which the book last changed.
    pub changed: u64,
    /// The venue's own number of this book.
    pub sequence: Option<u64>,
    /// The venue's time of the newest event in it.
    pub te_ns: Nanos,
    /// Our receipt of that event.
    pub tr_ns: Nanos,
    /// The levels.
    pub book: Book,
}

/// The best bid and offer of a snapshot.
#[derive(Debug, Clone, Copy)]
pub struct BboPart {
    /// The state of the channel.
    pub status: Status,
    /// The version at which it last changed.
    pub changed: u64,
    /// The venue's own number of the book that this is the top of.
    pub sequence: Option<u64>,
    /// The venue's time of the newest event in it.
    pub te_ns: Nanos,
    /// Our receipt of that event.
    pub tr_ns: Nanos,
    /// The best bid, unless the side is empty.
    pub bid: Option<Level>,
    /// The best offer, unless the side is empty.
    pub ask: Option<Level>,
}

/// The newest trades of a snapshot.
#[derive(Debug, Clone)]
pub struct TradesPart {
    /// The state of the channel.
    pub status: Status,
    /// Our receipt of the newest.
    pub tr_ns: Nanos,
    /// The trades.
    pub tail: TradeTail,
}

/// Everything known of one instrument after a batch of its venue's messages. Never changes.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Which instrument.
    pub instrument: InstrumentId,
    /// How its numbers are to be read.
    pub scales: Scales,
    /// How many venue events have changed the instrument.
    pub version: u64,
    /// The book.
    pub book: BookPart,
    /// The best bid and offer.
    pub bbo: BboPart,
    /// The trades.
    pub trades: TradesPart,
}

impl Snapshot {
    /// A snapshot of which nothing is known yet.
    pub fn starting(instrument: InstrumentId, scales: Scales, epoch: u32, now: Nanos) -> Self {
        let status = Status::starting(epoch, now);
        Self {
            instrument,
            scales,
            version: 0,
            book: BookPart {
                status,
                changed: 0,
                sequence: None,
                te_ns: 0,
                tr_ns: 0,
                book: Book::default(),
            },
            bbo: BboPart {
                status,
                changed: 0,
                sequence: None,
                te_ns: 0,
                tr_ns: 0,
                bid: None,
                ask: None,
            },
            trades: TradesPart { status, tr_ns: 0, tail: TradeTail::default() },
        }
    }

    /// The state of one channel.
    pub const fn status(&self, channel: Channel) -> &Status {
        match channel {
            Channel::Book => &self.book.status,
            Channel::Bbo => &self.bbo.status,
            Channel::Trades => &self.trades.status,
        }
    }

    /// The state of one channel, to turn it.
    pub const fn status_mut(&mut self, channel: Channel) -> &mut Status {
        match channel {
            Channel::Book => &mut self.book.status,
            Channel::Bbo => &mut self.bbo.status,
            Channel::Trades => &mut self.trades.status,
        }
    }
}

/// One instrument and its newest snapshot.
#[derive(Debug)]
pub struct Entry {
    /// What it is.
    pub instrument: Instrument,
    listing: ArcSwapOption<Listing>,
    newest: ArcSwap<Snapshot>,
}

impl Entry {
    /// What the venue's instrument list says of it, once that is known.
    pub fn listing(&self) -> Option<Arc<Listing>> {
        self.listing.load_full()
    }

    /// Remembers what the venue's instrument list says; the last word stands.
    pub fn set_listing(&self, listing: Listing) {
        self.listing.store(Some(Arc::new(listing)));
    }

    /// Takes the newest snapshot. Do not keep it longer than needed: it holds its book's memory.
    ///
    /// # Panics
    /// When the snapshot is of another instrument, which would be a bug of the cell.
    pub fn load(&self) -> Arc<Snapshot> {
        let snapshot = self.newest.load_full();
        assert_eq!(snapshot.instrument, self.instrument.id, "a cell holds its own instrument");
        snapshot
    }

    /// Makes a snapshot the newest. Only the feed thread that owns the instrument may.
    ///
    /// # Panics
    /// When the snapshot is of another instrument.
    pub fn publish(&self, snapshot: Arc<Snapshot>) {
        assert_eq!(snapshot.instrument, self.instrument.id, "a cell holds its own instrument");
        self.newest.store(snapshot);
    }
}

/// All instruments at one moment.
#[derive(Debug, Default)]
pub struct Table {
    entries: Vec<Arc<Entry>>,
    by_symbol: HashMap<Arc<str>, InstrumentId>,
}

impl Table {
    /// The entry of an id.
    pub fn get(&self, id: InstrumentId) -> Option<&Arc<Entry>> {
        self.entries.get(id.index())
    }

    /// The entry of `venue:native`.
    pub fn find(&self, symbol: &str) -> Option<&Arc<Entry>> {
        self.by_symbol.get(symbol).and_then(|id| self.get(*id))
    }

    /// All entries, by id.
    pub fn entries(&self) -> &[Arc<Entry>] {
        &self.entries
    }
}

/// The growing table of instruments. Registering copies the table, reading it costs one atomic load.
#[derive(Debug)]
pub struct Registry {
    table: ArcSwap<Table>,
    instruments_max: usize,
}

/// The table of instruments is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {instruments_max} instruments")]
pub struct RegistryFull {
    /// Its limit.
    pub instruments_max: usize,
}

impl Registry {
    /// An empty table for at most `instruments_max` instruments.
    pub fn new(instruments_max: usize) -> Self {
        Self { table: ArcSwap::default(), instruments_max }
    }

    /// The table as it is now.
    pub fn table(&self) -> Arc<Table> {
        self.table.load_full()
    }

    /// Adds instruments of a venue by their native names, or finds those already there. Called when
    /// a feed starts, before it connects; feeds start one after the other, so that there is one
    /// writer.
    ///
    /// # Errors
    /// [`RegistryFull`] when the table would pass its limit; then nothing is added.
    pub fn register(
        &self,
        venue: Venue,
        natives: &[Arc<str>],
        epoch: u32,
        now: Nanos,
    ) -> Result<Vec<Arc<Entry>>, RegistryFull> {
        let old = self.table();
        let mut entries = old.entries.clone();
        let mut by_symbol = old.by_symbol.clone();
        let mut registered = Vec::with_capacity(natives.len());
        for native in natives {
            let id = InstrumentId(entries.len() as u32);
            let instrument = Instrument::new(id, venue, native);
            let known = *by_symbol.entry(Arc::clone(&instrument.symbol)).or_insert(id);
            if known == id {
                let first = Snapshot::starting(id, Scales::default(), epoch, now);
                entries.push(Arc::new(Entry {
                    instrument,
                    listing: ArcSwapOption::empty(),
                    newest: ArcSwap::from_pointee(first),
                }));
            }
            registered.push(Arc::clone(&entries[known.index()]));
        }
        if entries.len() > self.instruments_max {
            return Err(RegistryFull { instruments_max: self.instruments_max });
        }
        self.table.store(Arc::new(Table { entries, by_symbol }));
        Ok(registered)
    }
}
