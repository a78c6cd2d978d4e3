//! A seed → any of the exchanges, in virtual time: a market, and what the venue says of it on each
//! connection and over REST.
//!
//! Called by tests, and by whoever serves it. It is pure: no socket and no clock; same options and
//! calls, same bytes. What it says of the market depends on its options alone: who is connected, when
//! they came and how fast they read changes nothing of it. Times are those at which something was due.
//! What may happen on the way to a client is not its affair.

pub mod ear;
mod instrument;
mod manner;
mod pending;
mod stream;
mod symbol;
mod telling;
mod time;
mod top;
mod words;
mod control;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};

use bytes::Bytes;

pub use crate::market::{Planned, Preset, Status};
pub use control::Lie;

use crate::market::{Happened, Market, MarketOptions};
use crate::truth::TruthBook;
use crate::venue::{Dialect, Listed, Moment, Reader, Rest, Session, binance};
use instrument::Instrument;
use stream::Stream;
use symbol::{Board, Symbol};
use time::Scale;

/// Time between two signs of life, where the venue gives them.
const HEARTBEAT_NS: u64 = 1_000_000_000;

/// When a venue with a timer tells of its books.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cadence {
    /// As its timer goes.
    Venue,
    /// At once, so that each state of a book is told.
    AtOnce,
}

/// How much faster than in its own time everything goes: in `of` seconds as much as else in `times`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Speed {
    /// See above.
    pub times: u64,
    /// See above.
    pub of: u64,
}

impl Speed {
    /// As fast as its own time.
    pub const ONE: Self = Self { times: 1, of: 1 };
}

/// What exchange there is.
#[derive(Debug, Clone, Copy)]
pub struct ExchangeOptions {
    /// Whose words it speaks.
    pub dialect: Dialect,
    /// Same seed, same exchange.
    pub seed: u64,
    /// How many symbols trade; at least 1.
    pub symbols: usize,
    /// When it begins, nanoseconds since the Unix epoch.
    pub start_ns: u64,
    /// Mean time between two events of the busiest symbol.
    pub pace_ns: u64,
    /// How orders arrive.
    pub preset: Preset,
    /// When books are told.
    pub cadence: Cadence,
    /// Shortens every time between two things, timers too, and so changes no order and nothing but times.
    pub speed: Speed,
}

impl ExchangeOptions {
    /// An exchange as busy as the venue was measured to be.
    pub const fn of(dialect: Dialect, seed: u64, symbols: usize, start_ns: u64) -> Self {
        let pace_ns = manner::profile(dialect).pace_ns;
        let (preset, cadence, speed) = (Preset::Hawkes, Cadence::Venue, Speed::ONE);
        Self { dialect, seed, symbols, start_ns, pace_ns, preset, cadence, speed }
    }

    /// The same with small books, of which every state is told.
    pub const fn small(self, pace_ns: u64) -> Self {
        Self { preset: Preset::Calm, cadence: Cadence::AtOnce, pace_ns, ..self }
    }

    /// The same at a speed at which it says so many messages a second, in the mean.
    pub fn at_rate(self, rate: u32) -> Self {
        let speed = Speed { times: u64::from(rate.max(1)), of: self.rate() };
        Self { speed, ..self }
    }

    /// How many messages a second it says in its own time, in the mean.
    pub fn rate(self) -> u64 {
        manner::messages_per_second(self.dialect, self.symbols)
    }
}

/// What a message says of a market.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// Nothing: it is an answer, a notice or a sign of life.
    Nothing,
    /// The book of a symbol is this version of it now.
    Book {
        /// Which symbol.
        symbol: usize,
        /// Which version.
        version: u64,
    },
    /// A trade of a symbol.
    Trade {
        /// Which symbol.
        symbol: usize,
    },
    /// Something else about a symbol: its best, its checksum.
    Other {
        /// Which symbol.
        symbol: usize,
    },
}

/// What the venue says to one connection.
#[derive(Debug, Clone)]
pub struct Told {
    /// To which connection.
    pub connection: u64,
    /// What it is about.
    pub about: About,
    /// The message.
    pub text: Bytes,
}

/// An answer to a REST request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// All that was said of the market since the beginning, whoever listened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Said {
    /// Messages.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What they hash to, in order.
    pub digest: u64,
}

impl Said {
    fn add(&mut self, text: &[u8]) {
        self.messages += 1;
        self.bytes += text.len() as u64;
        let mixed = self.digest ^ u64::from(crc32fast::hash(text)) ^ ((text.len() as u64) << 32);
        self.digest = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
}

/// The streams of a symbol.
#[derive(Debug)]
struct Streams {
    book: Stream,
    /// The next change of the book takes a level away that there was not.
    tells_absent: bool,
    trades: Stream,
    /// Trades joined, where that is a stream of its own.
    aggregates: Option<Stream>,
    /// How many trades have been joined to.
    aggregate_id: u64,
    /// Its best, where that is a stream of its own.
    ticker: Option<Stream>,
}

/// A market and who listens to it.
pub struct Exchange {
    options: ExchangeOptions,
    market: Market,
    symbols: Vec<Symbol>,
    by_name: HashMap<String, usize>,
    streams: Vec<Streams>,
    listed: Listed,
    /// Of what is said seldom.
    reader: Box<dyn Reader>,
    connections: BTreeMap<u64, Box<dyn Session>>,
    /// Counts what may change who listens to what.
    turn: u64,
    opened: u64,
    told: Vec<Told>,
    said: Said,
    happened: Happened,
    /// The newest time here that anything happened at or anybody told.
    now_ns: u64,
    /// The time of the timers, of what happened last.
    timers_ns: u64,
    /// From the market's time to that of the timers.
    to_timers: Scale,
    /// From that of the timers to the time here.
    to_here: Scale,
    next_heartbeat_ns: u64,
    heartbeats: u64,
    /// Books that have something to tell, by the time at which they do.
    due: BinaryHeap<Reverse<(u64, usize)>>,
    /// By how much the venue's stamps differ from the time.
    clock_step_ns: i64,
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Exchange {
    /// An exchange at its start, with nobody connected.
    pub fn new(options: ExchangeOptions) -> Self {
        let ExchangeOptions { dialect, seed, start_ns, pace_ns, preset, speed, .. } = options;
        let instruments: Vec<Instrument> =
            (0..options.symbols.max(1)).map(|index| Instrument::at(dialect, seed, index)).collect();
        let starts: Vec<i64> = instruments.iter().map(|one| one.start_ticks).collect();
        let profile = manner::profile(dialect);
        let market = MarketOptions { seed, start_ns, pace_ns, profile, preset };
        let mut market = Market::new(market, &starts);
        let symbols: Vec<Symbol> = instruments
            .into_iter()
            .enumerate()
            .map(|(index, instrument)| Symbol::new(index, instrument, &options, &mut market))
            .collect();
        let by_name = symbols.iter().enumerate().map(|(i, one)| (one.name.clone(), i)).collect();
        let at_start = Scale { from_ns: start_ns, to_ns: start_ns, times: 1, of: 1 };
        let mut exchange = Self {
            options,
            market,
            streams: Vec::with_capacity(symbols.len()),
            symbols,
            by_name,
            listed: Listed::default(),
            reader: dialect.reader(),
            connections: BTreeMap::new(),
            turn: 1,
            opened: 0,
            told: Vec::new(),
            said: Said::default(),
            happened: Happened::default(),
            now_ns: start_ns,
            timers_ns: start_ns,
            to_timers: at_start,
            to_here: Scale { times: speed.of, of: speed.times, ..at_start },
            next_heartbeat_ns: start_ns + HEARTBEAT_NS,
            heartbeats: 0,
            due: BinaryHeap::new(),
            clock_step_ns: 0,
        };
        for index in 0..exchange.symbols.len() {
            let streams = exchange.list(index);
            exchange.streams.push(streams);
        }
        exchange
    }

    /// To how many levels the books of a dialect are to be asked for; `None` = whole.
    pub const fn depth(dialect: Dialect) -> Option<usize> {
        match dialect {
            // Whoever asks for all that it has, has the whole.
            Dialect::Okx => None,
            _ => manner::window(dialect),
        }
    }

    /// Makes known what there is of a symbol to subscribe to.
    fn list(&mut self, index: usize) -> Streams {
        let dialect = self.options.dialect;
        for text in words::introduction(dialect, &self.symbols[index].name, index) {
            // It learns from them.
            let _ = self.reader.read(&text);
        }
        let update = self.symbols[index].update(index, &self.market, &[], self.now_ns);
        let print = self.print(index, "1", "1", true);
        let trade = words::trade(&print);
        let aggregate = words::aggregate(&print, [0; 3]);
        let ticker = self.symbols[index].ticker(self.now_ns);
        let mut key = |text: &str| {
            let recorded = self.reader.read(text)?;
            self.listed.add(&recorded);
            Some(recorded.key)
        };
        let book = update.first().and_then(|text| key(text)).unwrap_or_default();
        let trades = key(&trade).unwrap_or_default();
        let aggregates = aggregate.and_then(|text| key(&text));
        let ticker = ticker.and_then(|text| key(&text));
        Streams {
            book: Stream::new(book, true),
            tells_absent: false,
            trades: Stream::new(trades, false),
            aggregates: aggregates.map(|key| Stream::new(key, false)),
            aggregate_id: 0,
            ticker: ticker.map(|key| Stream::new(key, false)),
        }
    }

    /// The names of the symbols, as the venue spells them, the busiest first.
    pub fn symbols(&self) -> impl Iterator<Item = &str> {
        self.symbols.iter().map(|symbol| symbol.name.as_str())
    }

    /// The place of a symbol among them.
    pub fn symbol(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// The book of a symbol as it is, which may be ahead of what was told.
    pub fn book(&self, symbol: usize) -> TruthBook {
        self.symbols[symbol].book(&self.market, symbol)
    }

    /// The book of a symbol as it was at a number, if that is known. The number is the venue's own of
    /// its books; where they have none, their version.
    pub fn book_at(&self, symbol: usize, id: u64) -> Option<TruthBook> {
        self.top_at(symbol, id, usize::MAX)
    }

    /// The same of the best levels only, so many of each side.
    pub fn top_at(&self, symbol: usize, id: u64, depth: usize) -> Option<TruthBook> {
        self.symbols[symbol].book_at(&self.market, symbol, id, depth)
    }

    /// The newest number of a book that may be asked for.
    pub fn newest_id(&self, symbol: usize) -> u64 {
        self.symbols[symbol].newest_id()
    }

    /// How many states the book of a symbol has had.
    pub fn version(&self, symbol: usize) -> u64 {
        self.symbols[symbol].version
    }

    /// All that was said of the market so far.
    pub const fn said(&self) -> Said {
        self.said
    }

    /// When something happens next of itself.
    pub fn next_ns(&self) -> u64 {
        self.to_here.map(self.next_timers_ns())
    }

    fn next_timers_ns(&self) -> u64 {
        let due_ns = self.due.peek().map_or(u64::MAX, |Reverse((due_ns, _))| *due_ns);
        let market_ns = self.to_timers.map(self.market.next_ns());
        market_ns.min(due_ns).min(self.next_heartbeat_ns).max(self.timers_ns)
    }

    /// Lets the time come at which something happens next, and it happen.
    pub fn step(&mut self) {
        self.timers_ns = self.next_timers_ns();
        self.now_ns = self.now_ns.max(self.to_here.map(self.timers_ns));
        if self.next_heartbeat_ns <= self.timers_ns {
            self.next_heartbeat_ns += HEARTBEAT_NS;
            self.heartbeats += 1;
            return self.beat();
        }
        match self.due.peek().copied() {
            Some(Reverse((due_ns, index))) if due_ns <= self.timers_ns => {
                self.due.pop();
                self.tell_book(index);
            }
            _ => {
                let mut happened = std::mem::take(&mut self.happened);
                self.market.step(&mut happened);
                self.follow(&happened);
                self.happened = happened;
            }
        }
    }

    /// The time that what happens now bears: when it was due, whenever it is asked for.
    fn stamp_ns(&self) -> u64 {
        self.to_here.map(self.timers_ns).saturating_add_signed(self.clock_step_ns)
    }

    /// The time that an answer bears.
    const fn answer_ns(&self) -> u64 {
        self.now_ns.saturating_add_signed(self.clock_step_ns)
    }

    /// What was said since the last time, in order.
    pub fn take_told(&mut self) -> Vec<Told> {
        std::mem::take(&mut self.told)
    }

    /// A client connects to a path and query; returns the number of the connection.
    pub fn connect(&mut self, path: &str, query: &str, now_ns: u64) -> u64 {
        self.now_ns = self.now_ns.max(now_ns);
        self.turn += 1;
        self.opened += 1;
        let session = self.options.dialect.session(path, query, self.opened);
        if let Some(text) = session.greeting() {
            self.tell(self.opened, About::Nothing, text);
        }
        self.connections.insert(self.opened, session);
        self.opened
    }

    /// Somebody is told everything that is said of the market, as it is before a connection's own numbers
    /// are put in; returns the number of the connection.
    pub fn connect_observer(&mut self) -> u64 {
        self.turn += 1;
        self.opened += 1;
        self.connections.insert(self.opened, Box::new(stream::Observer));
        self.opened
    }

    /// What a reader has to have read before it knows what an observer is told.
    pub(crate) fn introductions(&self) -> Vec<String> {
        let symbols = self.symbols.iter().enumerate();
        let of = |(index, symbol): (usize, &Symbol)| {
            words::introduction(self.options.dialect, &symbol.name, index)
        };
        symbols.flat_map(of).collect()
    }

    /// How long the orders had rested that went in the last step.
    pub fn take_lives(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.happened.lives_ns)
    }

    /// A client is gone.
    pub fn disconnect(&mut self, connection: u64) {
        self.turn += 1;
        self.connections.remove(&connection);
    }

    /// A client says something.
    pub fn hear(&mut self, connection: u64, text: &str, now_ns: u64) {
        self.now_ns = self.now_ns.max(now_ns);
        self.turn += 1;
        let at_ns = self.answer_ns();
        let Some(session) = self.connections.get_mut(&connection) else { return };
        let board = Board { market: &self.market, symbols: &self.symbols, by_name: &self.by_name };
        let moment = Moment { books: &board, listed: &self.listed, at_ns };
        for text in session.hear(text, &moment) {
            self.tell(connection, About::Nothing, text);
        }
    }

    /// How many connections there are, and how many streams of symbols they subscribed to.
    pub fn audience(&self) -> (usize, usize) {
        let subscriptions = self.connections.values().map(|session| session.subscriptions());
        (self.connections.len(), subscriptions.sum())
    }

    /// A REST request to a path and query.
    pub fn answer(&self, path: &str, query: &str) -> Reply {
        self.answer_as_of(path, query, None)
    }

    /// The same by a server that lags: a book is told as it was at a number, if that is known.
    pub fn answer_as_of(&self, path: &str, query: &str, id: Option<u64>) -> Reply {
        let dialect = self.options.dialect;
        let value =
            |key| query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
        match dialect.rest(path) {
            Some(Rest::Instruments) => Reply { status: 200, body: self.instruments(query) },
            Some(Rest::Depth) => {
                let Ok(limit) = value("limit").map(str::parse).transpose() else {
                    let reason = "Illegal characters found in parameter 'limit'.";
                    return Reply { status: 400, body: binance::rest_error(-1100, reason) };
                };
                let name = value("symbol").unwrap_or_default().to_uppercase();
                let Some(index) = self.symbol(&name) else {
                    return Reply {
                        status: 400,
                        body: binance::rest_error(-1121, "Invalid symbol."),
                    };
                };
                let limit = binance::depth_limit(dialect, limit);
                let lagging = id.and_then(|id| self.book_at(index, id));
                let book = lagging.unwrap_or_else(|| self.book(index));
                let body = binance::depth_body(dialect, &name, &book, limit, self.answer_ns());
                Reply { status: 200, body }
            }
            None => Reply { status: 200, body: dialect.other(path, &self.listings(), self.now_ns) },
        }
    }

    /// The list of instruments.
    pub fn instruments(&self, query: &str) -> String {
        self.options.dialect.instruments(query, &self.listings())
    }

    fn listings(&self) -> Vec<String> {
        let statuses = (0..).map(|index| self.market.status(index));
        let listed = self.symbols.iter().zip(statuses);
        listed
            .filter(|(_, status)| *status != Status::Ended)
            .map(|(symbol, status)| words::listing(self.options.dialect, symbol, status))
            .collect()
    }
}
