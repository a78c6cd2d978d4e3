//! The seeded exchange and the way from it to the gateway, with its faults.
//!
//! Called by the simulated world, in virtual time. It says what arrives at the gateway and when, and
//! writes the truth from what the exchange said before any fault. It never looks at the gateway.

use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::Arc;

use feed_sim::exchange::{Cadence, Exchange, ExchangeOptions, Speed};
use feed_sim::venue::Dialect;
use serde::Deserialize;
use tickfan_core::market::{Channel, InstrumentId, Nanos};

use super::random::Random;
use super::truth::{Book, Known, Level, SymbolTruth, Trade, units};
use crate::limits::{MILLI_NS, SECOND_NS};

/// Virtual times are whole microseconds, as those of the protocol are.
pub(super) const MICRO_NS: Nanos = 1_000;

/// Messages that arrive together are this far apart.
const SPACING_NS: Nanos = 20 * MICRO_NS;

/// How often the venue shows that it lives when it has nothing to say.
const PING_EVERY_NS: Nanos = 20 * SECOND_NS;

/// After a pause this long the venue may have been taken for silent.
const SILENCE_NS_MIN: Nanos = 30 * SECOND_NS;

/// Levels of a side that only a deep image has, far from everything that moves.
const FAR_LEVELS: i64 = 2_500;

/// What may go wrong on the way, and how often: in a thousand where nothing else is said.
#[derive(Debug, Clone, Default)]
pub(super) struct Faults {
    pub(super) depth_lost: u64,
    pub(super) tickers_lost: u64,
    pub(super) trades_lost: u64,
    pub(super) repeated: u64,
    pub(super) corrupted: u64,
    /// Images take up to this long.
    pub(super) image_delay_ns: Nanos,
    /// Images that were taken before they were asked for.
    pub(super) images_stale: u64,
    /// Images that cannot be had.
    pub(super) images_failed: u64,
    /// The connection is cut about this often; 0 = never.
    pub(super) cut_every_ns: Nanos,
    /// The venue is silent once, for this long; 0 = never.
    pub(super) silence_ns: Nanos,
}

/// What market there is and how it is told.
#[derive(Debug, Clone)]
pub(super) struct VenueOptions {
    pub(super) seed: u64,
    pub(super) symbols: usize,
    /// Messages a second.
    pub(super) rate: u64,
    /// How much faster than the gateway's the market's time runs.
    pub(super) haste: u64,
    /// Images are over 64 KiB.
    pub(super) deep: bool,
    /// The gateway knows no scales beforehand: any message may be finer than what it holds.
    pub(super) grows: bool,
    /// Messages arrive in clumps of up to this long.
    pub(super) clump_ns: Nanos,
    pub(super) start_ns: Nanos,
    /// When the faults end, not counting silence.
    pub(super) calm_ns: Nanos,
    /// When the market ends at the earliest, not counting silence.
    pub(super) end_ns: Nanos,
    pub(super) faults: Faults,
    /// By symbol: its messages and images have faults. Those of the connection are everybody's.
    pub(super) faulty: Vec<bool>,
}

/// What a message tells.
#[derive(Debug, Clone, Copy)]
pub(super) enum Told {
    Depth(usize, u64),
    Ticker(usize, u64),
    Trade(usize, u64),
    /// Bytes that cannot be read, of this symbol.
    Garbled(usize),
    /// It was lost on its way, and leaves the others their times; of which symbol a part of its book
    /// is missing, if that is what it was.
    Lost(Option<usize>),
    /// An answer to a subscription.
    Answer,
}

/// A message on its way.
#[derive(Debug, Clone)]
pub(super) struct Delivery {
    pub(super) at_ns: Nanos,
    pub(super) payload: String,
    pub(super) told: Told,
}

/// A REST image on its way.
#[derive(Debug)]
pub(super) struct ImageDelivery {
    pub(super) at_ns: Nanos,
    pub(super) instrument: InstrumentId,
    pub(super) connection: u32,
    /// Body and update id; `None` = it failed.
    pub(super) image: Option<(String, u64)>,
}

/// The connection between venue and gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    DownUntil(Nanos),
    /// It is up; the streams flow once the venue has answered.
    Up {
        flows: bool,
    },
}

/// What the world has to do for the venue.
#[derive(Debug)]
pub(super) enum Arrival {
    Connected,
    Cut,
    Ping,
    Message(Delivery),
    Image(ImageDelivery),
}

/// See the top of this file.
pub(super) struct Venue {
    pub(super) truth: Vec<SymbolTruth>,
    options: VenueOptions,
    exchange: Exchange,
    /// Draws of the connection and of the times on it.
    random: Random,
    /// Draws of the faults of each symbol, so that those of one leave the others alone.
    troubles: Vec<Random>,
    /// By symbol: how many images the gateway may ask for: one for each connection, hole, message that
    /// cannot be read, and image that was of no use.
    pub(super) images_due: Vec<u64>,
    /// When anything arrived last.
    heard_ns: Nanos,
    link: Link,
    on_the_way: VecDeque<Delivery>,
    images: Vec<ImageDelivery>,
    /// The latest time at which anything on the way arrives.
    last_arrival_ns: Nanos,
    clump_until_ns: Nanos,
    echo: Option<Delivery>,
    next_cut_ns: Nanos,
    silent_at_ns: Nanos,
    /// How long the venue was silent in all.
    pub(super) silence_ns: Nanos,
    next_ping_ns: Nanos,
    stale_bodies: Vec<Option<(String, u64)>>,
    /// By symbol: depth, ticker and trade were told since the faults ended.
    told_in_calm: Vec<[bool; 3]>,
    ended_ns: Option<Nanos>,
}

#[derive(Deserialize)]
struct Wrapped<'a> {
    stream: &'a str,
    #[serde(borrow)]
    data: Data<'a>,
}

/// The fields of all market messages; one letter means different things in different ones.
#[derive(Deserialize)]
struct Data<'a> {
    u: Option<u64>,
    t: Option<u64>,
    #[serde(rename = "T")]
    at_ms: Option<u64>,
    b: Option<serde_json::Value>,
    a: Option<serde_json::Value>,
    #[serde(rename = "B")]
    bid_qty: Option<&'a str>,
    #[serde(rename = "A")]
    ask_qty: Option<&'a str>,
    p: Option<&'a str>,
    q: Option<&'a str>,
    m: Option<bool>,
}

#[derive(Deserialize)]
struct Image {
    #[serde(rename = "lastUpdateId")]
    id: u64,
    bids: Vec<(String, String)>,
    asks: Vec<(String, String)>,
}

fn level(px: &str, qty: &str) -> Level {
    let read = |text| units(text).unwrap_or_else(|| panic!("the market wrote {text}"));
    (read(px), read(qty))
}

fn levels(value: Option<serde_json::Value>) -> Vec<Level> {
    let texts: Vec<(String, String)> =
        serde_json::from_value(value.unwrap_or_default()).expect("the market writes pairs");
    texts.iter().map(|(px, qty)| level(px, qty)).collect()
}

fn text(value: Option<&serde_json::Value>) -> &str {
    value.and_then(serde_json::Value::as_str).expect("the market writes texts")
}

impl Venue {
    pub(super) fn new(options: VenueOptions, mut random: Random) -> Self {
        let exchange = ExchangeOptions::of(
            Dialect::BinanceSpot,
            options.seed,
            options.symbols,
            options.start_ns,
        );
        let mut exchange = Exchange::new(ExchangeOptions {
            cadence: Cadence::Venue,
            speed: Speed { times: options.haste, of: 1 },
            ..exchange.small(SECOND_NS * options.haste * 3 / 2 / options.rate)
        });
        let mut truth: Vec<SymbolTruth> = exchange.symbols().map(SymbolTruth::new).collect();
        for symbol in &mut truth {
            let (_, _, book) = image_of(&exchange, &symbol.name, options.deep);
            symbol.live = book;
        }
        let streams: Vec<String> = truth.iter().map(|symbol| streams_of(&symbol.name)).collect();
        let query = format!("streams={}", streams.join("/"));
        exchange.connect("/stream", &query, options.start_ns);
        let faults = &options.faults;
        let active_ns = options.calm_ns - options.start_ns;
        let next_cut_ns = match faults.cut_every_ns {
            0 => Nanos::MAX,
            every => options.start_ns + whole(random.between(every / 2, every)),
        };
        let silent_at_ns = match faults.silence_ns {
            0 => Nanos::MAX,
            _ => options.start_ns + whole(random.between(active_ns / 4, active_ns)),
        };
        Self {
            link: Link::DownUntil(options.start_ns + whole(random.below(20 * MILLI_NS))),
            on_the_way: VecDeque::new(),
            images: Vec::new(),
            last_arrival_ns: 0,
            clump_until_ns: 0,
            echo: None,
            next_cut_ns,
            silent_at_ns,
            silence_ns: 0,
            next_ping_ns: options.start_ns + PING_EVERY_NS,
            troubles: truth.iter().map(|_| random.split()).collect(),
            images_due: vec![0; truth.len()],
            heard_ns: options.start_ns,
            stale_bodies: vec![None; truth.len()],
            told_in_calm: vec![[false; 3]; truth.len()],
            ended_ns: None,
            truth,
            options,
            exchange,
            random,
        }
    }

    pub(super) fn names(&self) -> Vec<Arc<str>> {
        self.truth.iter().map(|symbol| Arc::from(symbol.name.as_str())).collect()
    }

    /// When the market ended and all that it said has arrived.
    pub(super) fn ended_ns(&self) -> Option<Nanos> {
        self.ended_ns.filter(|_| self.on_the_way.is_empty() && self.images.is_empty())
    }

    fn is_calm(&self, now: Nanos) -> bool {
        now >= self.options.calm_ns + self.silence_ns
    }

    fn market_ns(&self) -> Nanos {
        if self.ended_ns.is_some() {
            return Nanos::MAX;
        }
        whole(self.exchange.next_ns() + MICRO_NS - 1) + self.silence_ns
    }

    /// When there is anything to do next.
    pub(super) fn next_ns(&self) -> Nanos {
        let mut next = self.market_ns().min(self.next_ping_ns).min(self.next_cut_ns);
        next = next.min(self.silent_at_ns);
        if let Link::DownUntil(at) = self.link {
            next = next.min(at);
        }
        if let Some(first) = self.on_the_way.front() {
            next = next.min(first.at_ns);
        }
        self.images.iter().map(|image| image.at_ns).fold(next, Nanos::min)
    }

    /// When the next message arrives.
    pub(super) fn next_message_ns(&self) -> Nanos {
        self.on_the_way.front().map_or(Nanos::MAX, |delivery| delivery.at_ns)
    }

    /// What is due, one thing at a time.
    pub(super) fn take_due(&mut self, now: Nanos) -> Option<Arrival> {
        while self.market_ns() <= now {
            self.step(now);
        }
        if self.silent_at_ns <= now {
            self.silent_at_ns = Nanos::MAX;
            self.silence_ns = self.options.faults.silence_ns;
            self.next_ping_ns = self.next_ping_ns.max(now + self.silence_ns);
            if self.next_cut_ns != Nanos::MAX {
                self.next_cut_ns += self.silence_ns;
            }
        }
        if self.next_cut_ns <= now {
            let every = self.options.faults.cut_every_ns;
            self.next_cut_ns = now + whole(self.random.between(every / 2, every));
            if self.is_calm(now) {
                self.next_cut_ns = Nanos::MAX;
            } else if matches!(self.link, Link::Up { .. }) {
                return Some(Arrival::Cut);
            }
        }
        if let Link::DownUntil(at) = self.link
            && at <= now
        {
            self.link = Link::Up { flows: false };
            self.images_due.iter_mut().for_each(|due| *due += 1);
            return Some(Arrival::Connected);
        }
        if self.next_ping_ns <= now {
            self.next_ping_ns = now + PING_EVERY_NS;
            if matches!(self.link, Link::Up { .. }) {
                return Some(Arrival::Ping);
            }
        }
        if let Some(at) = self.images.iter().position(|image| image.at_ns <= now) {
            return Some(Arrival::Image(self.images.remove(at)));
        }
        if self.next_message_ns() <= now {
            let delivery = self.on_the_way.pop_front()?;
            if let (Told::Answer, Link::Up { flows }) = (delivery.told, &mut self.link) {
                // From here on the streams flow.
                *flows = true;
            }
            return Some(Arrival::Message(delivery));
        }
        None
    }

    /// The gateway read this message.
    pub(super) fn received(&mut self, told: Told, now: Nanos) {
        match told {
            Told::Depth(symbol, id) => self.truth[symbol].receive_book(id, now),
            Told::Ticker(symbol, id) => self.truth[symbol].receive_ticker(id, now),
            Told::Trade(symbol, id) => self.truth[symbol].receive_trade(id, now),
            Told::Garbled(_) | Told::Lost(_) | Told::Answer => {}
        }
        let (symbol, channels): (usize, &[Channel]) = match told {
            Told::Depth(symbol, _) => (symbol, &[Channel::Book, Channel::Bbo]),
            Told::Ticker(symbol, _) => (symbol, &[Channel::Bbo]),
            Told::Trade(symbol, _) => (symbol, &[Channel::Trades]),
            Told::Garbled(symbol) => {
                self.images_due[symbol] += 1;
                (symbol, Channel::ALL)
            }
            Told::Answer => return self.tell_all(now),
            Told::Lost(hole) => {
                if let Some(symbol) = hole {
                    self.images_due[symbol] += 1;
                }
                return;
            }
        };
        if self.options.grows || now >= self.heard_ns + SILENCE_NS_MIN {
            // It may tell of finer numbers, or that the venue lives.
            self.tell_all(now);
        }
        self.heard_ns = now;
        for channel in channels {
            self.truth[symbol].tell(*channel, now);
        }
    }

    /// An image comes.
    pub(super) fn received_image(&mut self, instrument: InstrumentId, now: Nanos) {
        if self.options.grows {
            return self.tell_all(now);
        }
        for channel in [Channel::Book, Channel::Bbo] {
            self.truth[instrument.index()].tell(channel, now);
        }
    }

    /// Something happens that is about every symbol.
    pub(super) fn tell_all(&mut self, now: Nanos) {
        self.heard_ns = now;
        for symbol in &mut self.truth {
            symbol.tell_all(now);
        }
    }

    /// The connection is down: what was on its way is lost.
    pub(super) fn cut(&mut self, now: Nanos) {
        self.on_the_way.clear();
        self.echo = None;
        self.last_arrival_ns = now;
        self.link = Link::DownUntil(now + whole(self.random.below(400 * MILLI_NS)));
        for symbol in &mut self.truth {
            symbol.reconnect(now);
        }
    }

    /// The gateway subscribed.
    pub(super) fn subscribe(&mut self, now: Nanos) {
        let at_ns = now + MICRO_NS + whole(self.random.below(20 * MILLI_NS));
        let payload = r#"{"result":null,"id":1}"#.to_owned();
        self.last_arrival_ns = at_ns;
        self.on_the_way.push_back(Delivery { at_ns, payload, told: Told::Answer });
    }

    /// The gateway asks for an image. Returns whether it has a reason.
    pub(super) fn request_image(
        &mut self,
        instrument: InstrumentId,
        connection: u32,
        now: Nanos,
    ) -> bool {
        let faults = &self.options.faults;
        let is_faulty = !self.is_calm(now) && self.options.faulty[instrument.index()];
        let random = &mut self.troubles[instrument.index()];
        let delay_ns = MICRO_NS + whole(random.below(faults.image_delay_ns.max(MILLI_NS)));
        let is_failed = random.per_mille(faults.images_failed) && is_faulty;
        let is_stale = random.per_mille(faults.images_stale) && is_faulty;
        let stale = self.stale_bodies[instrument.index()].take();
        let image = match stale {
            _ if is_failed => None,
            Some(stale) if is_stale => {
                // The next message of the book may not follow it.
                self.images_due[instrument.index()] += 1;
                Some(stale)
            }
            _ => Some(self.take_image(instrument.index())),
        };
        let is_due = self.images_due[instrument.index()] > 0;
        self.images_due[instrument.index()] -= u64::from(is_due);
        let at_ns = now + delay_ns;
        self.images.push(ImageDelivery { at_ns, instrument, connection, image });
        is_due
    }

    fn take_image(&mut self, symbol: usize) -> (String, u64) {
        let name = &self.truth[symbol].name;
        let (body, id, book) = image_of(&self.exchange, name, self.options.deep);
        let known = self.truth[symbol].books.entry(id);
        let known = known.or_insert_with(|| Known::new(Arc::new(book.clone())));
        assert_eq!(*known.value, book, "image and depth message of {id} tell the same");
        (body, id)
    }

    fn step(&mut self, now: Nanos) {
        self.exchange.step();
        for told in self.exchange.take_told() {
            let payload = String::from_utf8(told.text.to_vec()).expect("it writes text");
            let told = self.learn(&payload);
            self.send(payload, told, now);
        }
        let is_kept = self.random.per_mille(10);
        let symbol = self.random.below(self.truth.len() as u64) as usize;
        if is_kept && self.options.faults.images_stale > 0 && self.options.faulty[symbol] {
            self.stale_bodies[symbol] = Some(self.take_image(symbol));
        }
        let is_told = self.told_in_calm.iter().all(|told| told.iter().all(|told| *told));
        if is_told && now >= self.options.end_ns + self.silence_ns {
            self.ended_ns = Some(now);
        }
    }

    /// Puts a message on its way, unless a fault takes it.
    fn send(&mut self, payload: String, told: Told, now: Nanos) {
        if self.link != (Link::Up { flows: true }) {
            return;
        }
        let faults = &self.options.faults;
        let (symbol, kind, lost) = match told {
            Told::Depth(symbol, _) => (symbol, 0, faults.depth_lost),
            Told::Ticker(symbol, _) => (symbol, 1, faults.tickers_lost),
            Told::Trade(symbol, _) => (symbol, 2, faults.trades_lost),
            Told::Garbled(_) | Told::Lost(_) | Told::Answer => return,
        };
        let is_calm = self.is_calm(now);
        self.told_in_calm[symbol][kind] |= is_calm;
        if self.clump_until_ns <= now && self.options.clump_ns > 0 && self.random.coin() {
            self.clump_until_ns = now + whole(self.random.below(self.options.clump_ns));
        }
        let at_ns = now.max(self.clump_until_ns).max(self.last_arrival_ns);
        // Some arrive at one moment, some shortly one after the other.
        let at_ns = if self.random.coin() { at_ns } else { at_ns + SPACING_NS };
        self.last_arrival_ns = at_ns;
        let mut delivery = Delivery { at_ns, payload, told };
        let echo = self.echo.take();
        if !is_calm && self.options.faulty[symbol] {
            let faults = &self.options.faults;
            let trouble = &mut self.troubles[symbol];
            if trouble.per_mille(lost) {
                delivery.told = Told::Lost((kind == 0).then_some(symbol));
            } else if trouble.per_mille(faults.corrupted) {
                delivery.payload.truncate(delivery.payload.len() / 2);
                delivery.told = Told::Garbled(symbol);
            } else if trouble.per_mille(faults.repeated) {
                self.echo = Some(delivery.clone());
            }
        }
        self.on_the_way.push_back(delivery);
        if let Some(echo) = echo {
            self.on_the_way.push_back(Delivery { at_ns, ..echo });
        }
    }

    /// Writes down what a message truly says.
    fn learn(&mut self, payload: &str) -> Told {
        let Wrapped { stream, data } = serde_json::from_str(payload).expect("it writes JSON");
        let (name, stream) = stream.split_once('@').expect("a stream has a symbol");
        let symbol = self.truth.iter().position(|truth| truth.name.eq_ignore_ascii_case(name));
        let symbol = symbol.expect("the market tells of its symbols");
        let truth = &mut self.truth[symbol];
        match stream {
            "trade" => {
                let id = data.t.expect("a trade has an id");
                let trade = Trade {
                    te_us: data.at_ms.expect("and a time") * 1_000,
                    level: level(data.p.expect("a price"), data.q.expect("a quantity")),
                    side: if data.m == Some(true) { "sell" } else { "buy" },
                };
                truth.trades.insert(id, Known::new(trade));
                Told::Trade(symbol, id)
            }
            "bookTicker" => {
                let id = data.u.expect("a ticker has an id");
                let bid = level(text(data.b.as_ref()), data.bid_qty.expect("a quantity"));
                let ask = level(text(data.a.as_ref()), data.ask_qty.expect("a quantity"));
                truth.tickers.insert(id, Known::new([Some(bid), Some(ask)]));
                Told::Ticker(symbol, id)
            }
            _ => {
                let id = data.u.expect("a depth message has an id");
                for (is_bid, changes) in [(true, levels(data.b)), (false, levels(data.a))] {
                    for change in changes {
                        truth.live.set(is_bid, change);
                    }
                }
                let book = Known::new(Arc::new(truth.live.clone()));
                let known = truth.books.entry(id).or_insert_with(|| book);
                assert_eq!(*known.value, truth.live, "image and depth message of {id} agree");
                Told::Depth(symbol, id)
            }
        }
    }
}

/// All that is told of a symbol.
fn streams_of(name: &str) -> String {
    let name = name.to_lowercase();
    format!("{name}@depth@100ms/{name}@bookTicker/{name}@trade")
}

/// A time in whole microseconds.
const fn whole(time_ns: Nanos) -> Nanos {
    time_ns / MICRO_NS * MICRO_NS
}

/// The image of a symbol as it is: body, update id, and what it says.
fn image_of(exchange: &Exchange, name: &str, deep: bool) -> (String, u64, Book) {
    let body = exchange.answer("/api/v3/depth", &format!("symbol={name}&limit=5000")).body;
    let mut image: Image = serde_json::from_str(&body).expect("the symbol is the exchange's own");
    if deep {
        for i in 1..=FAR_LEVELS {
            // Farther than the price ever moves, in its own tick.
            let px = FAR_LEVELS + 1 - i;
            image.bids.push((format!("{}.{:02}", px / 100, px % 100), format!("{i}.5")));
            image.asks.push((format!("{}", 900_000 + i), format!("{i}.25")));
        }
    }
    let mut book = Book::default();
    for (is_bid, side) in [(true, &image.bids), (false, &image.asks)] {
        for (px, qty) in side {
            book.set(is_bid, level(px, qty));
        }
    }
    if !deep {
        return (body, image.id, book);
    }
    let mut body = format!(r#"{{"lastUpdateId":{},"bids":["#, image.id);
    for (side, name) in [(&image.bids, ""), (&image.asks, r#"],"asks":["#)] {
        body.push_str(name);
        for (i, (px, qty)) in side.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            let _ = write!(body, r#"{comma}["{px}","{qty}"]"#);
        }
    }
    body.push_str("]}");
    (body, image.id, book)
}
