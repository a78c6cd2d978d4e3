//! A seed → any of the exchanges, in virtual time: small books that change, and what the venue says of
//! them on each connection and over REST.
//!
//! Called by tests, and by whoever serves it. It is pure: no socket and no clock; same options and
//! calls, same bytes. It can be told to do what venues do at their worst: lie in a checksum, cross a
//! book, begin its numbers anew, halt, delist. What may happen on the way to a client is not its
//! affair.

pub mod serve;
mod words;

use std::collections::BTreeMap;

use bytes::Bytes;
use tickfan_core::decimal::{Decimal, SCALE_MAX};
use tickfan_core::market::Side;

use crate::random::Random;
use crate::truth::{Truth, TruthBook, TruthLevel, normalise};
use crate::venue::{
    Dialect, Listed, Message, Moment, Print, Reader, Rest, Session, binance, bitfinex,
};

/// Levels of a side at the start.
const LEVELS_START: i64 = 20;
/// A side with fewer levels is filled up, one with more is thinned.
const LEVELS_MIN: usize = 15;
/// See [`LEVELS_MIN`].
const LEVELS_MAX: usize = 30;
/// Time between two signs of life, where the venue gives them.
const HEARTBEAT_NS: u64 = 1_000_000_000;

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
    /// Mean time between two events of the market.
    pub pace_ns: u64,
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

/// What the next change of a book says that it hashes to, when not the truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// Something else.
    Wrong,
    /// Zero.
    Zero,
}

/// Whether a symbol trades.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It does.
    Open,
    /// It does not for now.
    Halted,
    /// It never will again.
    Ended,
}

/// One symbol.
#[derive(Debug)]
struct Symbol {
    name: String,
    base: &'static str,
    status: Status,
    px_digits: u32,
    qty_digits: u32,
    /// The venue's number of the book.
    id: u64,
    /// The venue's number of the book before its last change.
    previous_id: u64,
    /// The venue's second number, where it has two.
    order: u64,
    trade_id: u64,
    /// How many states the book has had.
    version: u64,
    lie: Option<Lie>,
}

/// A level to be set: is it a bid, its price in ticks, its quantity in lots.
type Change = (bool, i64, i64);

/// A market and who listens to it.
pub struct Exchange {
    options: ExchangeOptions,
    random: Random,
    truth: Truth,
    /// Of a symbol that was not given one yet.
    no_book: TruthBook,
    reader: Box<dyn Reader>,
    listed: Listed,
    symbols: Vec<Symbol>,
    connections: BTreeMap<u64, Box<dyn Session>>,
    opened: u64,
    told: Vec<Told>,
    now_ns: u64,
    next_event_ns: u64,
    next_heartbeat_ns: u64,
    heartbeats: u64,
    pace_ns: u64,
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Exchange {
    /// An exchange at its start, with nobody connected.
    pub fn new(options: ExchangeOptions) -> Self {
        let mut random = Random::new(options.seed);
        let symbols = (0..options.symbols.max(1))
            .map(|index| {
                let id = 1_000_000 + random.below(1_000_000);
                let (name, base) = words::name(options.dialect, index);
                Symbol {
                    name,
                    base,
                    status: Status::Open,
                    px_digits: 4,
                    qty_digits: 2,
                    id,
                    previous_id: id,
                    order: 7_000_000 + random.below(1_000_000),
                    trade_id: 1_000 + random.below(1_000_000),
                    version: 0,
                    lie: None,
                }
            })
            .collect();
        let mut exchange = Self {
            options,
            random,
            truth: Truth::new(options.dialect),
            no_book: TruthBook::default(),
            reader: options.dialect.reader(),
            listed: Listed::default(),
            symbols,
            connections: BTreeMap::new(),
            opened: 0,
            told: Vec::new(),
            now_ns: options.start_ns,
            next_event_ns: options.start_ns,
            next_heartbeat_ns: options.start_ns + HEARTBEAT_NS,
            heartbeats: 0,
            pace_ns: options.pace_ns.max(1),
        };
        for index in 0..exchange.symbols.len() {
            exchange.list(index);
        }
        exchange.next_event_ns += exchange.pause_ns();
        exchange
    }

    /// To how many levels the books of a dialect are to be asked for; `None` = whole.
    pub const fn depth(dialect: Dialect) -> Option<usize> {
        match dialect {
            Dialect::Kraken | Dialect::KrakenV1 => Some(10),
            Dialect::BybitSpot | Dialect::BybitLinear => Some(50),
            _ => None,
        }
    }

    /// Gives a symbol its first book, and makes known what there is of it to subscribe to.
    fn list(&mut self, index: usize) {
        let start_ticks = 20_000 + self.random.below(20_000) as i64;
        for step in 0..LEVELS_START {
            for (is_bid, ticks) in [(true, start_ticks - step), (false, start_ticks + 1 + step)] {
                let lots = lots(&mut self.random);
                self.set(index, (is_bid, ticks, lots));
            }
        }
        self.cut_back(index);
        self.number(index, self.symbols[index].id);
        for text in words::introduction(self.options.dialect, &self.symbols[index].name, index) {
            // It learns from them.
            let _ = self.reader.read(&text);
        }
        let mut texts = words::update(&self.wording(index, &[], &[]), None);
        texts.extend(words::trade(&self.print(index, "1", "1", true)));
        for text in texts {
            if let Some(recorded) = self.reader.read(&text) {
                self.listed.add(&recorded);
            }
        }
    }

    /// The names of the symbols, as the venue spells them.
    pub fn symbols(&self) -> impl Iterator<Item = &str> {
        self.symbols.iter().map(|symbol| symbol.name.as_str())
    }

    /// The book of a symbol as it is.
    pub fn book(&self, symbol: usize) -> &TruthBook {
        self.truth.book(&self.symbols[symbol].name).unwrap_or(&self.no_book)
    }

    /// How many states the book of a symbol has had.
    pub fn version(&self, symbol: usize) -> u64 {
        self.symbols[symbol].version
    }

    /// When something happens next of itself.
    pub fn next_ns(&self) -> u64 {
        self.next_event_ns.min(self.next_heartbeat_ns)
    }

    /// From now on the market has this mean time between two events.
    pub fn set_pace(&mut self, pace_ns: u64) {
        self.pace_ns = pace_ns.max(1);
        self.next_event_ns = self.now_ns + self.pause_ns();
    }

    /// The exchange stands still until then, and has missed nothing.
    pub fn sleep_until(&mut self, at_ns: u64) {
        self.now_ns = self.now_ns.max(at_ns);
        self.next_event_ns = self.next_event_ns.max(at_ns);
        self.next_heartbeat_ns = self.next_heartbeat_ns.max(at_ns);
    }

    /// Lets the time come at which something happens next, and it happen.
    pub fn step(&mut self) {
        self.now_ns = self.next_ns();
        if self.next_heartbeat_ns == self.now_ns {
            self.next_heartbeat_ns += HEARTBEAT_NS;
            self.heartbeats += 1;
            return self.beat();
        }
        self.next_event_ns = self.now_ns + self.pause_ns();
        let index = self.random.below(self.symbols.len() as u64) as usize;
        let is_crossed = self.best(index, true) >= self.best(index, false);
        if self.symbols[index].status == Status::Open && !is_crossed {
            self.act(index);
        }
    }

    /// What was said since the last time, in order.
    pub fn take_told(&mut self) -> Vec<Told> {
        std::mem::take(&mut self.told)
    }

    /// A client connects to a path and query; returns the number of the connection.
    pub fn connect(&mut self, path: &str, query: &str, now_ns: u64) -> u64 {
        self.now_ns = self.now_ns.max(now_ns);
        self.opened += 1;
        let session = self.options.dialect.session(path, query, self.opened);
        if let Some(text) = session.greeting() {
            self.tell(self.opened, About::Nothing, text);
        }
        self.connections.insert(self.opened, session);
        self.opened
    }

    /// A client is gone.
    pub fn disconnect(&mut self, connection: u64) {
        self.connections.remove(&connection);
    }

    /// A client says something.
    pub fn hear(&mut self, connection: u64, text: &str, now_ns: u64) {
        self.now_ns = self.now_ns.max(now_ns);
        let Some(session) = self.connections.get_mut(&connection) else { return };
        let moment = Moment { truth: &self.truth, listed: &self.listed, at_ns: self.now_ns };
        for text in session.hear(text, &moment) {
            self.tell(connection, About::Nothing, text);
        }
    }

    /// A REST request to a path and query.
    pub fn answer(&self, path: &str, query: &str) -> Reply {
        let dialect = self.options.dialect;
        let value =
            |key| query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
        match dialect.rest(path) {
            Some(Rest::Instruments) => Reply { status: 200, body: self.instruments(query) },
            Some(Rest::Depth) => {
                let symbol = value("symbol").unwrap_or_default();
                let limit = value("limit").and_then(|limit| limit.parse().ok());
                let limit = binance::depth_limit(dialect, limit);
                match self.truth.book(symbol) {
                    Some(book) => Reply {
                        status: 200,
                        body: binance::depth_body(dialect, symbol, book, limit, self.now_ns),
                    },
                    None => {
                        Reply { status: 400, body: binance::rest_error(-1121, "Invalid symbol.") }
                    }
                }
            }
            None => Reply { status: 404, body: "{}".to_owned() },
        }
    }

    /// The list of instruments.
    pub fn instruments(&self, query: &str) -> String {
        let listings: Vec<String> = self
            .symbols
            .iter()
            .filter(|symbol| symbol.status != Status::Ended)
            .map(|symbol| {
                let dialect = self.options.dialect;
                let step = |digits| decimal(dialect, 1, digits);
                let steps = (step(symbol.px_digits), step(symbol.qty_digits));
                words::listing(dialect, &symbol.name, symbol.base, &steps, symbol)
            })
            .collect();
        self.options.dialect.instruments(query, &listings)
    }

    /// The next change of a book is told with a checksum that is a lie. False where changes have none.
    pub fn lie(&mut self, symbol: usize, lie: Lie) -> bool {
        let has_checksum = words::has_checksum(self.options.dialect);
        if has_checksum {
            self.symbols[symbol].lie = Some(lie);
        }
        has_checksum
    }

    /// The best bid is better than the best offer, until [`Exchange::uncross`].
    pub fn cross(&mut self, symbol: usize) {
        let Some(ask) = self.best(symbol, false) else { return };
        self.change(symbol, &[(true, ask + 1, lots(&mut Random::new(ask.unsigned_abs())))]);
    }

    /// Takes the bids away that cross.
    pub fn uncross(&mut self, symbol: usize) {
        while let (Some(bid), Some(ask)) = (self.best(symbol, true), self.best(symbol, false))
            && bid >= ask
        {
            self.change(symbol, &[(true, bid, 0)]);
        }
    }

    /// The venue's numbers of a book begin anew, as after a restart. False where the venue has no such
    /// thing.
    pub fn restart_numbers(&mut self, symbol: usize) -> bool {
        match self.options.dialect {
            // The next change has a smaller number than the one that it follows.
            Dialect::Okx => {
                self.symbols[symbol].id /= 2;
                let (is_bid, ticks) = (true, self.best(symbol, true).unwrap_or(1));
                let lots = lots(&mut self.random);
                self.change_to(symbol, &[(is_bid, ticks, lots)], self.symbols[symbol].id + 1);
                true
            }
            // A whole book, whose number is 1.
            Dialect::BybitSpot | Dialect::BybitLinear => {
                let symbol_name = self.symbols[symbol].name.clone();
                self.symbols[symbol].order += 1;
                self.number(symbol, 1);
                let book = self.book(symbol).clone();
                let depth = Self::depth(self.options.dialect).unwrap_or(0);
                let [bids, asks] = [Side::Bid, Side::Ask]
                    .map(|side| crate::venue::best_levels(&book, side, depth));
                let levels = crate::venue::Levels {
                    symbol: &symbol_name,
                    bids: &bids,
                    asks: &asks,
                    at_ns: self.now_ns,
                };
                let order = self.symbols[symbol].order;
                let text = crate::venue::bybit::snapshot(depth, &levels, 1, order);
                let version = self.symbols[symbol].version;
                self.say(&text, About::Book { symbol, version });
                true
            }
            _ => false,
        }
    }

    /// The venue says that nothing changed. False where it does not.
    pub fn keep_alive(&mut self, symbol: usize) -> bool {
        if self.options.dialect != Dialect::Okx {
            return false;
        }
        let id = self.symbols[symbol].id;
        self.symbols[symbol].previous_id = id;
        let texts = words::update(&self.wording(symbol, &[], &[]), None);
        let version = self.symbols[symbol].version;
        for text in texts {
            self.say(&text, About::Book { symbol, version });
        }
        true
    }

    /// Tells every connection that it will be closed. False where the venue has no words for that.
    pub fn announce_close(&mut self) -> bool {
        let text = words::close_notice(self.options.dialect, self.now_ns);
        self.announce(text.as_deref())
    }

    /// Tells every connection that maintenance begins or ends. False where the venue has no words for
    /// that.
    pub fn announce_maintenance(&mut self, begins: bool) -> bool {
        let text = words::maintenance_notice(self.options.dialect, begins);
        self.announce(text.as_deref())
    }

    fn announce(&mut self, text: Option<&str>) -> bool {
        let Some(text) = text else { return false };
        for connection in self.connections.keys().copied().collect::<Vec<_>>() {
            self.tell(connection, About::Nothing, text.to_owned());
        }
        true
    }

    /// From now on prices have one digit more, those of before too.
    pub fn refine_tick(&mut self, symbol: usize) {
        let levels = self.levels(symbol);
        self.symbols[symbol].px_digits += 1;
        for (is_bid, ticks, lots) in levels {
            self.set(symbol, (is_bid, 10 * ticks, lots));
        }
    }

    /// Whether a symbol trades, from now on.
    pub fn set_status(&mut self, symbol: usize, status: Status) {
        self.symbols[symbol].status = status;
    }

    fn pause_ns(&mut self) -> u64 {
        1 + self.random.below(2 * self.pace_ns)
    }

    /// The best price of a side, in ticks.
    fn best(&self, index: usize, is_bid: bool) -> Option<i64> {
        let side = if is_bid { Side::Bid } else { Side::Ask };
        let digits = self.symbols[index].px_digits;
        self.book(index).best(side).map(|level| ticks(&level.px, digits))
    }

    fn levels(&self, index: usize) -> Vec<Change> {
        let Symbol { px_digits, qty_digits, .. } = self.symbols[index];
        let sides = [(true, Side::Bid), (false, Side::Ask)].into_iter();
        sides
            .flat_map(|(is_bid, side)| {
                let level = move |level: &TruthLevel| {
                    (is_bid, ticks(&level.px, px_digits), ticks(&level.qty, qty_digits))
                };
                self.book(index).levels(side).map(level)
            })
            .collect()
    }

    /// The price of a level of a side, counted from the best, in ticks.
    fn level_at(&self, index: usize, is_bid: bool, place: usize) -> Option<i64> {
        let side = if is_bid { Side::Bid } else { Side::Ask };
        let digits = self.symbols[index].px_digits;
        self.book(index).levels(side).nth(place).map(|level| ticks(&level.px, digits))
    }

    /// Something happens at a symbol: a trade, or orders that come and go.
    fn act(&mut self, index: usize) {
        let is_bid = self.random.coin();
        if self.random.percent(25) {
            return self.trade(index, is_bid);
        }
        // Bitfinex tells one level a message.
        let count = if self.options.dialect == Dialect::Bitfinex { 1 } else { 3 };
        let mut changes = BTreeMap::new();
        for _ in 0..=self.random.below(count) {
            let is_bid = self.random.coin();
            let change = self.draw(index, is_bid);
            if let Some((is_bid, ticks, lots)) = change {
                changes.insert((is_bid, ticks), lots);
            }
        }
        let changes: Vec<Change> =
            changes.into_iter().map(|((is_bid, ticks), lots)| (is_bid, ticks, lots)).collect();
        if !changes.is_empty() {
            self.change(index, &changes);
        }
    }

    /// An order comes or goes on one side. It never crosses, whatever else changes in this message:
    /// each side keeps to its half of the spread.
    fn draw(&mut self, index: usize, is_bid: bool) -> Option<Change> {
        let (bid, ask) = (self.best(index, true)?, self.best(index, false)?);
        let side = if is_bid { Side::Bid } else { Side::Ask };
        let depth = self.book(index).depth(side);
        let middle = bid + (ask - bid) / 2;
        let enough = words::cut_to(self.options.dialect).map_or(LEVELS_MIN, |depth| depth / 2);
        if depth > LEVELS_MAX || (depth > enough && self.random.percent(45)) {
            let place = (self.random.skewed(4) as usize).min(depth - 1);
            return Some((is_bid, self.level_at(index, is_bid, place)?, 0));
        }
        let distance = self.random.skewed(5) as i64;
        let ticks = if is_bid { middle - distance } else { middle + 1 + distance };
        (ticks > 0).then(|| (is_bid, ticks, lots(&mut self.random)))
    }

    /// A market order takes a part of what the best level of a side offers, or all.
    fn trade(&mut self, index: usize, is_bid: bool) {
        let side = if is_bid { Side::Bid } else { Side::Ask };
        if self.book(index).depth(side) < 2 {
            return;
        }
        let Some(level) = self.book(index).best(side).cloned() else { return };
        let symbol = &self.symbols[index];
        let price = ticks(&level.px, symbol.px_digits);
        let offered = ticks(&level.qty, symbol.qty_digits);
        let taken = 1 + self.random.below(offered.unsigned_abs()) as i64;
        self.symbols[index].trade_id += 1;
        self.symbols[index].order += 1;
        let qty = self.text(taken, self.symbols[index].qty_digits);
        let texts = words::trade(&self.print(index, &level.px, &qty, !is_bid));
        for text in texts {
            self.say(&text, About::Trade { symbol: index });
        }
        self.change(index, &[(is_bid, price, offered - taken)]);
    }

    /// Changes a book and says so.
    fn change(&mut self, index: usize, changes: &[Change]) {
        let id = self.symbols[index].id + words::id_step(self.options.dialect, &mut self.random);
        self.change_to(index, changes, id);
    }

    fn change_to(&mut self, index: usize, changes: &[Change], id: u64) {
        let before = (words::tells_actions(self.options.dialect)).then(|| self.book(index).clone());
        let was_best = [true, false].map(|is_bid| self.best_level(index, is_bid));
        let (mut bids, mut asks) = (Vec::new(), Vec::new());
        for change in changes {
            let level = self.set(index, *change);
            if change.0 { bids.push(level) } else { asks.push(level) }
        }
        self.cut_back(index);
        let symbol = &mut self.symbols[index];
        symbol.order += 1;
        symbol.version += 1;
        self.number(index, id);
        let best = [true, false].map(|is_bid| self.best_level(index, is_bid));
        let version = self.symbols[index].version;
        if best != was_best {
            for text in words::ticker(&self.wording(index, &bids, &asks), &best) {
                self.say(&text, About::Other { symbol: index });
            }
        }
        let texts = words::update(&self.wording(index, &bids, &asks), before.as_ref());
        self.symbols[index].lie = None;
        for (place, text) in texts.iter().enumerate() {
            let about = if place == 0 {
                About::Book { symbol: index, version }
            } else {
                About::Other { symbol: index }
            };
            self.say(text, about);
        }
    }

    /// Takes away what is below the depth that the venue serves.
    fn cut_back(&mut self, index: usize) {
        if let Some(depth) = words::cut_to(self.options.dialect) {
            self.truth.book_mut(&self.symbols[index].name).truncate(depth);
        }
    }

    fn best_level(&self, index: usize, is_bid: bool) -> Option<TruthLevel> {
        self.book(index).best(if is_bid { Side::Bid } else { Side::Ask }).cloned()
    }

    /// Sets a level; returns it in the venue's texts.
    fn set(&mut self, index: usize, (is_bid, price, lots): Change) -> TruthLevel {
        let symbol = &self.symbols[index];
        let px = self.text(price, symbol.px_digits);
        let qty = self.text(lots, symbol.qty_digits);
        let name = symbol.name.clone();
        let side = if is_bid { Side::Bid } else { Side::Ask };
        self.truth.book_mut(&name).set(side, &px, &qty);
        TruthLevel { px: px.into(), qty: qty.into() }
    }

    /// The book of a symbol gets this number.
    fn number(&mut self, index: usize, id: u64) {
        let symbol = &mut self.symbols[index];
        symbol.previous_id = self.truth.book(&symbol.name).and_then(TruthBook::id).unwrap_or(id);
        symbol.id = id;
        let book = self.truth.book_mut(&symbol.name);
        book.set_id(id);
        book.set_order(words::order(self.options.dialect, id, symbol.order));
    }

    fn text(&self, number: i64, digits: u32) -> String {
        decimal(self.options.dialect, number, digits)
    }

    fn wording<'a>(
        &'a self,
        index: usize,
        bids: &'a [TruthLevel],
        asks: &'a [TruthLevel],
    ) -> words::Wording<'a> {
        let symbol = &self.symbols[index];
        let (dialect, book, at_ns) = (self.options.dialect, self.book(index), self.now_ns);
        words::Wording { dialect, symbol, channel: words::channel(index), book, bids, asks, at_ns }
    }

    fn print<'a>(
        &'a self,
        index: usize,
        px: &'a str,
        qty: &'a str,
        buyer_took: bool,
    ) -> words::PrintWording<'a> {
        let symbol = &self.symbols[index];
        let (id, at_ns) = (symbol.trade_id, self.now_ns);
        let print = Print { symbol: &symbol.name, at_ns, id, px, qty, buyer_took };
        let (dialect, channel) = (self.options.dialect, words::channel(index));
        words::PrintWording { dialect, print, channel, order: symbol.order }
    }

    /// Every second, and where the venue does so more rarely, then.
    fn beat(&mut self) {
        for index in 0..self.symbols.len() {
            let symbol = &self.symbols[index];
            let text = match self.options.dialect {
                Dialect::Coinbase => crate::venue::coinbase::heartbeat(
                    &symbol.name,
                    symbol.order,
                    symbol.trade_id,
                    self.now_ns,
                ),
                Dialect::Bitfinex if self.heartbeats.is_multiple_of(15) => {
                    bitfinex::heartbeat(words::channel(index), None)
                }
                _ => continue,
            };
            self.say(&text, About::Nothing);
        }
        if let Some(text) = words::heartbeat(self.options.dialect, self.heartbeats, self.now_ns) {
            self.say(&text, About::Nothing);
        }
        if self.options.dialect == Dialect::Deribit && self.heartbeats.is_multiple_of(10) {
            self.announce(Some(&crate::venue::deribit::heartbeat()));
        }
    }

    /// Says something on a stream to whoever subscribed to it.
    fn say(&mut self, text: &str, about: About) {
        let payload = Bytes::copy_from_slice(text.as_bytes());
        let spelt = std::str::from_utf8(&payload).unwrap_or_default();
        let Some(recorded) = self.reader.read(spelt) else { return };
        let inner = recorded.inner.map(|inner| payload.slice_ref(inner.as_bytes()));
        let (key, is_book) = (recorded.key, recorded.book.is_some());
        let message = Message { key, is_book, payload: payload.clone(), inner };
        let moment = Moment { truth: &self.truth, listed: &self.listed, at_ns: self.now_ns };
        for (connection, session) in &mut self.connections {
            if !session.has(&message.key) {
                continue;
            }
            if let Some(text) = session.tell(&message, &moment) {
                self.told.push(Told { connection: *connection, about, text });
            }
        }
    }

    fn tell(&mut self, connection: u64, about: About, text: String) {
        self.told.push(Told { connection, about, text: text.into() });
    }
}

/// A price in ticks, or a quantity in lots.
fn ticks(text: &str, digits: u32) -> i64 {
    let Ok(decimal) = Decimal::parse(text.as_bytes()) else { return 0 };
    let scale = u32::from(decimal.scale.min(SCALE_MAX));
    match digits.checked_sub(scale) {
        Some(more) => decimal.mantissa * 10i64.pow(more),
        None => decimal.mantissa / 10i64.pow(scale - digits),
    }
}

/// A number in `10^-digits`, as the venue writes it.
fn decimal(dialect: Dialect, number: i64, digits: u32) -> String {
    if dialect.fetches_images() {
        return binance::fixed8(number, digits);
    }
    let one = 10i64.pow(digits);
    let text = format!("{}.{:0width$}", number / one, number % one, width = digits as usize);
    // The others write as many digits as the step has.
    if matches!(dialect, Dialect::Bitfinex | Dialect::Okx) { normalise(&text) } else { text }
}

/// The size of an order: most are small, some are a hundred times as large.
fn lots(random: &mut Random) -> i64 {
    1 + random.skewed(12) as i64
}
