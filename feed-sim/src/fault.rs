//! What an exchange says, and a schedule of faults → what happens on each connection, and when.
//!
//! Called by whoever serves an exchange, in place of the exchange. It is pure: no socket and no clock;
//! same options, schedule and calls, same bytes. What goes wrong on the way is drawn from a stream of
//! chance of its own, so that the market is the same with faults and without. Every fault counts
//! itself, and says so where it cannot happen at all.

use std::collections::{BTreeMap, VecDeque};

use anyhow::{Result, bail};
use bytes::Bytes;
use serde_json::{Value, json};

use crate::exchange::{About, Exchange, ExchangeOptions, Reply, Told};
use crate::random::Random;
use crate::scenario::{Fault, Kind, Scenario, SymbolName};
use crate::venue::{Dialect, Rest};

mod ban;
mod line;
mod respell;
mod scheduled;
mod strike;
mod witness;
#[cfg(test)]
mod tests;

use ban::Ban;
pub use line::Act;
use line::Line;
use scheduled::{Scheduled, Stage};
pub use witness::State;
use witness::Witness;

/// Faults under way or over; a test or a person who wants more begins anew.
const FAULTS_MAX: usize = 1_024;

/// Steps of the market within which a symbol changes that an image is to be ahead of.
const STEPS_MAX: usize = 100_000;

/// The stream of chance of what goes wrong, among those of a seed.
const CHANCE: u64 = u64::MAX;

/// Times of connections that are kept.
const CONNECTS_KEPT: usize = 4_096;

const MILLI_NS: u64 = 1_000_000;

/// An act on one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// Which connection.
    pub connection: u64,
    /// What is done to it.
    pub act: Act,
}

/// A message on its way, as it was before anything happened to it.
#[derive(Debug, Clone)]
pub(crate) struct Passing {
    /// To whom it goes, what it is about, and the message.
    pub(crate) told: Told,
    /// The number of the book that it tells of, unless that has changed again.
    pub(crate) id: Option<u64>,
    /// What happens to it.
    pub(crate) fate: Option<Kind>,
}

/// An answer to a REST request, as it is to be given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Status and body.
    pub reply: Reply,
    /// After how many seconds the venue wants to be asked again.
    pub retry_after_s: Option<u64>,
    /// How long it takes.
    pub delay_ns: u64,
}

/// An exchange, and what goes wrong with it.
#[derive(Debug)]
pub struct FaultyExchange {
    exchange: Exchange,
    dialect: Dialect,
    symbols: Vec<String>,
    random: Random,
    now_ns: u64,
    /// When the scenario began.
    start_ns: u64,
    scheduled: Vec<Scheduled>,
    /// What is scheduled as soon as anybody gets anything.
    prepared: Vec<Scheduled>,
    lines: BTreeMap<u64, Line>,
    /// Acts that wait on all lines.
    waiting: usize,
    sent: Vec<Sent>,
    ban: Option<Ban>,
    asked_in_ban: u64,
    connected: u64,
    connects: VecDeque<u64>,
    /// Connections that the venue will close.
    closing: Vec<u64>,
    witness: Witness,
    /// Messages since they were taken, where somebody wants them.
    passing: Option<Vec<Passing>>,
}

impl FaultyExchange {
    /// An exchange at its start, with nobody connected and nothing wrong.
    pub fn new(options: ExchangeOptions) -> Self {
        let exchange = Exchange::new(options);
        let symbols: Vec<String> = exchange.symbols().map(str::to_owned).collect();
        Self {
            dialect: options.dialect,
            random: Random::of(options.seed, CHANCE),
            now_ns: options.start_ns,
            start_ns: options.start_ns,
            scheduled: Vec::new(),
            prepared: Vec::new(),
            lines: BTreeMap::new(),
            waiting: 0,
            sent: Vec::new(),
            ban: None,
            asked_in_ban: 0,
            connected: 0,
            connects: VecDeque::new(),
            closing: Vec::new(),
            witness: Witness::new(symbols.len()),
            passing: None,
            symbols,
            exchange,
        }
    }

    /// The exchange behind it.
    pub const fn exchange(&self) -> &Exchange {
        &self.exchange
    }

    /// Tells the exchange to do something; what it says of it goes on its way.
    pub fn control<T>(&mut self, command: impl FnOnce(&mut Exchange) -> T) -> T {
        let done = command(&mut self.exchange);
        self.carry(self.now_ns);
        done
    }

    /// The scenario begins with the first change of a book that goes out to anybody.
    ///
    /// # Errors
    /// When it names a symbol that there is not, or there are too many faults.
    pub fn prepare(&mut self, scenario: &Scenario) -> Result<()> {
        let all = scenario.faults.iter();
        self.prepared = all.map(|fault| self.schedule(fault.clone(), 0)).collect::<Result<_>>()?;
        Ok(())
    }

    /// The scenario begins now.
    ///
    /// # Errors
    /// When it names a symbol that there is not, or there are too many faults.
    pub fn begin(&mut self, scenario: &Scenario, now_ns: u64) -> Result<()> {
        self.start_ns = now_ns;
        scenario.faults.iter().try_for_each(|fault| self.add(fault.clone(), now_ns))
    }

    /// One more fault, whose time begins now.
    ///
    /// # Errors
    /// When it names a symbol that there is not, or there are too many faults.
    pub fn add(&mut self, fault: Fault, now_ns: u64) -> Result<()> {
        if self.scheduled.len() + self.prepared.len() >= FAULTS_MAX {
            bail!("{FAULTS_MAX} faults have been scheduled, which is the most; start anew");
        }
        let scheduled = self.schedule(fault, now_ns)?;
        self.scheduled.push(scheduled);
        Ok(())
    }

    fn schedule(&self, fault: Fault, start_ns: u64) -> Result<Scheduled> {
        let symbol = match &fault.symbol {
            None => None,
            Some(SymbolName::Place(place)) if *place < self.symbols.len() => Some(*place),
            Some(SymbolName::Place(place)) => {
                bail!("there is no symbol {place}; there are {}, from 0", self.symbols.len())
            }
            Some(SymbolName::Name(name)) => match self.exchange.symbol(name) {
                Some(place) => Some(place),
                None => bail!("there is no symbol {name}; the first is {}", self.symbols[0]),
            },
        };
        let why_not = not_applicable(fault.kind, self.dialect);
        Ok(Scheduled::new(fault, symbol, why_not, start_ns))
    }

    /// From now on every state of every book is told, as many levels of it.
    pub fn watch(&mut self, levels: usize) {
        self.witness.watch(levels);
        self.witness.look(&self.exchange);
    }

    /// The states since the last time, in order.
    pub fn take_states(&mut self) -> Vec<State> {
        self.witness.take_states()
    }

    /// From now on all messages are kept as they are before anything happens to them.
    pub(crate) fn keep_passing(&mut self) {
        self.passing = Some(Vec::new());
    }

    /// The messages since the last time, in order.
    pub(crate) fn take_passing(&mut self) -> Vec<Passing> {
        self.passing.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Nothing is going on and nothing will.
    pub fn is_over(&self) -> bool {
        self.prepared.is_empty() && self.scheduled.iter().all(Scheduled::is_over)
    }

    /// When anything happened last.
    pub fn last_ns(&self) -> Option<u64> {
        self.scheduled.iter().filter_map(Scheduled::last_ns).max()
    }

    /// Of each fault, in the order of the schedule: what it is, how often it happened, and why it
    /// cannot happen here.
    pub fn outcomes(&self) -> impl Iterator<Item = (Kind, u64, Option<&'static str>)> + '_ {
        self.scheduled.iter().map(|one| (one.fault.kind, one.happened(), one.not_applicable))
    }

    /// Requests that came while the venue wanted to be left alone.
    pub const fn asked_in_ban(&self) -> u64 {
        self.asked_in_ban
    }

    /// When clients connected, newest last.
    pub fn connects(&self) -> impl Iterator<Item = u64> + '_ {
        self.connects.iter().copied()
    }

    /// Everything that was counted.
    pub fn report(&self) -> Value {
        let report = |one: &Scheduled| one.report(&self.symbols, self.start_ns);
        json!({
            "dialect": self.dialect.venue().name(),
            "at_ms": self.now_ns.saturating_sub(self.start_ns) / MILLI_NS,
            "connected": self.connected,
            "asked_in_ban": self.asked_in_ban,
            "is_over": self.is_over(),
            "faults": self.scheduled.iter().chain(&self.prepared).map(report).collect::<Vec<_>>(),
        })
    }

    /// When something happens next of itself.
    pub fn next_ns(&self) -> u64 {
        let mut next_ns = self.exchange.next_ns();
        for one in &self.scheduled {
            next_ns = next_ns.min(self.due_ns(one));
        }
        if self.waiting > 0 {
            next_ns = self.lines.values().map(Line::next_ns).fold(next_ns, u64::min);
        }
        next_ns
    }

    /// When a fault begins or ends of itself. One of all connections waits until there is one.
    fn due_ns(&self, one: &Scheduled) -> u64 {
        let is_of_connections = one.stage == Stage::Waiting && one.fault.kind.is_of_connections();
        if is_of_connections && self.lines.values().all(Line::is_ended) {
            return u64::MAX;
        }
        one.next_ns()
    }

    /// Everything happens that is due by now, in order.
    pub fn advance(&mut self, now_ns: u64) {
        while self.next_ns() <= now_ns {
            self.step();
        }
        self.now_ns = self.now_ns.max(now_ns);
    }

    /// The time comes at which something happens next, and it happens.
    pub fn step(&mut self) {
        self.now_ns = self.now_ns.max(self.next_ns());
        for place in 0..self.scheduled.len() {
            if self.due_ns(&self.scheduled[place]) <= self.now_ns {
                match self.scheduled[place].stage {
                    Stage::Waiting => self.strike(place),
                    Stage::UnderWay { .. } => self.relieve(place),
                    Stage::Over => {}
                }
                self.carry(self.now_ns);
            }
        }
        if self.exchange.next_ns() <= self.now_ns {
            self.exchange.step();
            self.carry(self.now_ns);
        }
        self.flush_all();
    }

    /// What was done since the last time, in order.
    pub fn take_sent(&mut self) -> Vec<Sent> {
        std::mem::take(&mut self.sent)
    }

    /// A client connects to a path and query; returns the number of the connection.
    pub fn connect(&mut self, path: &str, query: &str, now_ns: u64) -> u64 {
        self.now_ns = self.now_ns.max(now_ns);
        self.connected += 1;
        self.note_connect();
        let connection = self.exchange.connect(path, query, self.now_ns);
        self.lines.insert(connection, Line::default());
        self.before_answer(connection, query);
        self.carry(self.now_ns);
        self.flush_all();
        connection
    }

    /// A client is gone.
    pub fn disconnect(&mut self, connection: u64) {
        self.exchange.disconnect(connection);
        if let Some(line) = self.lines.remove(&connection) {
            self.waiting -= line.waiting();
        }
    }

    /// A client says something.
    pub fn hear(&mut self, connection: u64, text: &str, now_ns: u64) {
        self.now_ns = self.now_ns.max(now_ns);
        if self.lines.get(&connection).is_none_or(Line::is_ended) {
            return;
        }
        let silenced = self.before_answer(connection, text);
        self.exchange.hear(connection, text, self.now_ns);
        if silenced.is_empty() && !self.scheduled.iter().any(|one| self.is_late_image(one)) {
            self.carry(self.now_ns);
        } else {
            self.carry_answer(connection, &silenced);
        }
        self.flush_all();
    }

    /// The next image on a stream is to be late. Over REST it is that answer which comes late.
    fn is_late_image(&self, one: &Scheduled) -> bool {
        let is_late = one.fault.kind == Kind::LateImage && one.awaits(self.now_ns);
        is_late && !self.dialect.fetches_images()
    }

    /// What the exchange answers goes on its way, but for symbols of which nothing is to come; images
    /// may be late.
    fn carry_answer(&mut self, connection: u64, silenced: &[usize]) {
        self.witness.look(&self.exchange);
        let mut reader = self.dialect.reader();
        for told in self.exchange.take_told() {
            let spelt = std::str::from_utf8(&told.text).unwrap_or_default();
            let recorded = reader.read(spelt);
            let is_image = recorded
                .as_ref()
                .and_then(|recorded| recorded.book.as_ref())
                .is_some_and(|book| book.is_snapshot);
            let symbol = recorded.and_then(|recorded| recorded.symbol);
            let symbol = symbol.and_then(|name| self.exchange.symbol(&name));
            if let Some(symbol) = symbol {
                if silenced.contains(&symbol) {
                    continue;
                }
                if is_image && told.connection == connection {
                    self.delay_image(connection, symbol);
                }
            }
            self.send(told, self.now_ns);
        }
    }

    /// An image is about to go out on a stream.
    fn delay_image(&mut self, connection: u64, symbol: usize) {
        for place in 0..self.scheduled.len() {
            let one = &self.scheduled[place];
            if !self.is_late_image(one) || !one.concerns(symbol) {
                continue;
            }
            let until_ns = self.now_ns.saturating_add(one.for_ns());
            self.scheduled[place].happen(self.now_ns, Some(symbol));
            if let Some(line) = self.lines.get_mut(&connection) {
                line.hold_until(until_ns);
            }
        }
    }

    /// A REST request to a path and query.
    pub fn answer(&mut self, path: &str, query: &str, now_ns: u64) -> Response {
        self.now_ns = self.now_ns.max(now_ns);
        let plain = |reply| Response { reply, retry_after_s: None, delay_ns: 0 };
        if let Some(ban) = self.ban_now() {
            return self.refuse(ban);
        }
        if self.dialect.rest(path) != Some(Rest::Depth) {
            return plain(self.exchange.answer(path, query));
        }
        let asked = query.split('&').find_map(|pair| pair.strip_prefix("symbol="));
        let Some(symbol) = asked.and_then(|name| self.exchange.symbol(&name.to_uppercase())) else {
            return plain(self.exchange.answer(path, query));
        };
        let mut delay_ns = 0;
        let mut updates = None;
        for place in 0..self.scheduled.len() {
            let one = &mut self.scheduled[place];
            if !one.awaits(self.now_ns) || !one.concerns(symbol) {
                continue;
            }
            match one.fault.kind {
                Kind::RateLimit | Kind::Ban => {
                    let ban = self.begin_ban(place);
                    return self.refuse(ban);
                }
                Kind::LateImage => {
                    delay_ns = one.for_ns();
                    one.happen(self.now_ns, Some(symbol));
                }
                Kind::StaleImage => {
                    let by = one.fault.updates.unwrap_or(1);
                    // Older than the stream it can be once the stream has told of so much.
                    if by > 0 && self.witness.number(symbol, by.unsigned_abs()).is_none() {
                        continue;
                    }
                    updates = Some(by);
                    one.happen(self.now_ns, Some(symbol));
                }
                _ => {}
            }
        }
        let reply = match updates {
            None => self.exchange.answer(path, query),
            Some(behind @ 1..) => {
                let id = self.witness.number(symbol, behind.unsigned_abs());
                self.exchange.answer_as_of(path, query, id)
            }
            Some(ahead) => {
                self.run_ahead(symbol, ahead.unsigned_abs());
                self.exchange.answer(path, query)
            }
        };
        Response { reply, retry_after_s: None, delay_ns }
    }

    fn note_connect(&mut self) {
        if self.connects.len() == CONNECTS_KEPT {
            self.connects.pop_front();
        }
        self.connects.push_back(self.now_ns);
    }

    /// The market goes on until a symbol has changed so many times; the stream tells of it in its own
    /// time.
    fn run_ahead(&mut self, symbol: usize, updates: u64) {
        let wanted = self.exchange.version(symbol) + updates;
        for _ in 0..STEPS_MAX {
            if self.exchange.version(symbol) >= wanted {
                return;
            }
            let at_ns = self.exchange.next_ns().max(self.now_ns);
            self.exchange.step();
            self.carry(at_ns);
        }
    }

    /// What happens to what a client asks for on a connection; returns the symbols of which nothing is
    /// to come.
    fn before_answer(&mut self, connection: u64, text: &str) -> Vec<usize> {
        let mut silenced = Vec::new();
        let Some(line) = self.lines.get_mut(&connection) else { return silenced };
        let is_request = |one: &Scheduled| one.fault.kind == Kind::AckSilent && !one.is_over();
        if !self.scheduled.iter().any(is_request) {
            return silenced;
        }
        let text = text.to_lowercase();
        if !text.contains("sub") && !text.contains('@') || text.contains("unsub") {
            return silenced;
        }
        for (symbol, name) in self.symbols.iter().enumerate() {
            if !text.contains(&name.to_lowercase()) {
                continue;
            }
            for one in self.scheduled.iter_mut().filter(|one| one.concerns(symbol)) {
                match (one.fault.kind, one.stage) {
                    (Kind::AckSilent, Stage::Waiting) if one.awaits(self.now_ns) => {
                        one.happen(self.now_ns, Some(symbol));
                        line.silence(symbol, true);
                        silenced.push(symbol);
                    }
                    (Kind::AckSilent, Stage::UnderWay { .. }) => {
                        line.silence(symbol, true);
                        silenced.push(symbol);
                    }
                    _ => {}
                }
            }
        }
        silenced
    }

    /// What the exchange said goes on its way.
    fn carry(&mut self, at_ns: u64) {
        self.witness.look(&self.exchange);
        for told in self.exchange.take_told() {
            self.send(told, at_ns);
        }
    }

    fn send(&mut self, told: Told, at_ns: u64) {
        let Some(line) = self.lines.get_mut(&told.connection) else { return };
        let (about, book) = match told.about {
            About::Book { symbol, version } => (Some(symbol), Some((symbol, version))),
            About::Trade { symbol } | About::Other { symbol } => (Some(symbol), None),
            About::Nothing => (None, None),
        };
        if about.is_some_and(|symbol| line.is_silenced(symbol)) {
            return;
        }
        if let Some((symbol, _)) = book {
            self.witness.tell(symbol, self.exchange.newest_id(symbol));
            for mut one in self.prepared.drain(..) {
                one.begin(self.now_ns);
                self.start_ns = self.now_ns;
                self.scheduled.push(one);
            }
        }
        self.waiting -= line.waiting();
        let (now_ns, random, dialect) = (self.now_ns, &mut self.random, self.dialect);
        let struck = book.and_then(|(symbol, version)| {
            let mut places = 0..self.scheduled.len();
            let scheduled = &mut self.scheduled;
            let is_it = |at: &usize| {
                let one = &mut scheduled[*at];
                one.strikes(symbol, version, now_ns, random, |one| one.fits(dialect, &told.text))
            };
            let place = places.find(is_it)?;
            Some((symbol, &self.scheduled[place]))
        });
        if let Some(passing) = &mut self.passing {
            let is_newest = |(symbol, version): &_| self.exchange.version(*symbol) == *version;
            let id = book.filter(is_newest).map(|(symbol, _)| self.exchange.newest_id(symbol));
            let fate = struck.map(|(_, one)| one.fault.kind);
            passing.push(Passing { told: told.clone(), id, fate });
        }
        match struck {
            Some((symbol, one)) if one.fault.kind.is_of_spelling() => {
                let text = one.respelt(dialect, &told.text).map_or(told.text, Bytes::from);
                line.pass(text, Some(symbol), at_ns);
            }
            Some((symbol, one)) => {
                line.suffer(&one.fault, one.for_ns(), told.text, symbol, at_ns);
            }
            None => line.pass(told.text, book.map(|(symbol, _)| symbol), at_ns),
        }
        self.waiting += line.waiting();
        if line.is_ended() {
            self.exchange.disconnect(told.connection);
        }
        self.flush(told.connection);
    }

    /// Does what is due on a connection.
    fn flush(&mut self, connection: u64) {
        let Some(line) = self.lines.get_mut(&connection) else { return };
        while let Some(act) = line.take_due(self.now_ns) {
            self.waiting -= 1;
            self.sent.push(Sent { connection, act });
        }
    }

    fn flush_all(&mut self) {
        if self.waiting == 0 {
            return;
        }
        for (connection, line) in &mut self.lines {
            while let Some(act) = line.take_due(self.now_ns) {
                self.waiting -= 1;
                self.sent.push(Sent { connection: *connection, act });
            }
        }
    }
}

/// Why a fault cannot happen at a venue, or could not be noticed by anybody.
pub fn not_applicable(kind: Kind, dialect: Dialect) -> Option<&'static str> {
    let is_fetched = dialect.fetches_images();
    match kind {
        Kind::StaleImage if !is_fetched => Some("images come on the stream, in its order"),
        Kind::RateLimit if !is_fetched => Some("nothing is fetched while it runs"),
        Kind::Gap | Kind::Reorder if dialect == Dialect::Coinbase => {
            Some("changes have neither numbers nor a checksum: nobody could tell")
        }
        Kind::ZeroSpelling if dialect == Dialect::Bitfinex => {
            Some("a level goes by a count of orders, which is a whole number")
        }
        Kind::FieldOrder if dialect == Dialect::Bitfinex => {
            Some("changes are lists: there are no fields")
        }
        _ => None,
    }
}
