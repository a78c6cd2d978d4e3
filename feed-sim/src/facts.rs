//! What an exchange said → the statistics of its traffic, beside what was measured at the real one.
//!
//! Called by `feed-sim facts` and by tests. It counts messages, synthetic or recorded, in one and the same
//! way; only how long orders live is told by the market itself, because venues do not say it.

mod measured;

use std::collections::{BTreeMap, HashMap};

use tickfan_core::decimal::{Decimal, SCALE_MAX};

use crate::exchange::{Exchange, ExchangeOptions};
use crate::recording::{Kind, Recording};
use crate::venue::binance::{DepthEvent, DepthImage};
use crate::venue::{Dialect, Reader};

pub use measured::{Fact, Measured, measured};

/// Messages are counted in windows as long as this.
const WINDOW_NS: u64 = 10_000_000;

/// What a message is to the statistics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Book,
    Best,
    Trade,
    Other,
}

/// Prices at which a side has something, at 18 digits behind the point.
type Prices = BTreeMap<i128, ()>;

/// See the top of this file.
#[derive(Debug)]
pub struct Facts {
    dialect: Dialect,
    reader: Box<dyn Reader>,
    books: HashMap<String, [Prices; 2]>,
    first_ns: Option<u64>,
    last_ns: u64,
    in_window: HashMap<u64, u64>,
    by_kind: [u64; 4],
    /// Changes of each message about a book.
    changes: Vec<u64>,
    at_best: u64,
    lives_ns: Vec<u64>,
}

impl Facts {
    /// Of nothing yet.
    pub fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            reader: dialect.reader(),
            books: HashMap::new(),
            first_ns: None,
            last_ns: 0,
            in_window: HashMap::new(),
            by_kind: [0; 4],
            changes: Vec::new(),
            at_best: 0,
            lives_ns: Vec::new(),
        }
    }

    /// The facts of a synthetic exchange that runs so long.
    pub fn of_exchange(options: ExchangeOptions, lasts_ns: u64) -> (Self, Exchange) {
        let mut facts = Self::new(options.dialect);
        let mut exchange = Exchange::new(options);
        exchange.connect_observer();
        for text in exchange.introductions() {
            // It learns from them.
            let _ = facts.reader.read(&text);
        }
        // Books that begin full need a while until they are as they stay.
        let warm_ns = options.start_ns + lasts_ns / 4;
        let end_ns = warm_ns + lasts_ns;
        while exchange.next_ns() < end_ns {
            let at_ns = exchange.next_ns();
            if at_ns >= warm_ns && facts.first_ns.is_none() {
                facts.first_ns = Some(at_ns);
                for (symbol, name) in exchange.symbols().enumerate() {
                    let book = exchange.book(symbol);
                    let side = |side| book.levels(side).filter_map(|level| key(&level.px));
                    use tickfan_core::market::Side::{Ask, Bid};
                    let prices = [Bid, Ask].map(|of| side(of).map(|px| (px, ())).collect());
                    facts.books.insert(name.to_owned(), prices);
                }
            }
            exchange.step();
            let lives = exchange.take_lives();
            for told in exchange.take_told() {
                if at_ns >= warm_ns {
                    facts.hear(at_ns, &String::from_utf8_lossy(&told.text));
                }
            }
            if at_ns >= warm_ns {
                facts.lives_ns.extend(lives);
            }
        }
        (facts, exchange)
    }

    /// The facts of a recording.
    pub fn of_recording(recording: &Recording) -> Self {
        let mut facts = Self::new(recording.dialect);
        for line in &recording.lines {
            match line.kind {
                Kind::Recv => facts.hear(line.recv_ns, line.text()),
                Kind::Rest => {
                    if let (Some(symbol), Some(image)) =
                        (line.rest_symbol(), DepthImage::read(line.text()))
                    {
                        let book = facts.books.entry(symbol.to_owned()).or_default();
                        for (side, levels) in book.iter_mut().zip([&image.bids, &image.asks]) {
                            *side =
                                levels.iter().filter_map(|(px, _)| Some((key(px)?, ()))).collect();
                        }
                    }
                }
                Kind::Open | Kind::Send => {}
            }
        }
        facts
    }

    /// A message that was said at this time.
    pub fn hear(&mut self, at_ns: u64, text: &str) {
        let Some(what) = self.read(text) else { return };
        self.first_ns.get_or_insert(at_ns);
        self.last_ns = self.last_ns.max(at_ns);
        self.by_kind[what as usize] += 1;
        *self.in_window.entry(at_ns / WINDOW_NS).or_default() += 1;
    }

    fn read(&mut self, text: &str) -> Option<What> {
        if self.dialect.fetches_images() {
            if let Some(event) = DepthEvent::read(text) {
                self.change(event.symbol, &event.bids, &event.asks);
                return Some(What::Book);
            }
            let key = self.reader.read(text)?.key;
            return Some(match key.split_once('@')?.1 {
                "bookTicker" => What::Best,
                "trade" | "aggTrade" => What::Trade,
                _ => What::Other,
            });
        }
        let recorded = self.reader.read(text)?;
        let Some(book) = recorded.book else {
            let channel = recorded.key.split([' ', '.']).next()?;
            return Some(match channel {
                "matches" | "market_trades" | "trade" | "trades" | "publicTrade" => What::Trade,
                _ => What::Other,
            });
        };
        let symbol = recorded.symbol?.into_owned();
        if book.is_snapshot {
            let side = |levels: &[(&str, &str)]| {
                levels.iter().filter_map(|(px, _)| Some((key(px)?, ()))).collect()
            };
            self.books.insert(symbol, [side(&book.bids), side(&book.asks)]);
            return Some(What::Other);
        }
        self.change(&symbol, &book.bids, &book.asks);
        Some(What::Book)
    }

    fn change(&mut self, symbol: &str, bids: &[(&str, &str)], asks: &[(&str, &str)]) {
        let sides = self.books.entry(symbol.to_owned()).or_default();
        self.changes.push((bids.len() + asks.len()) as u64);
        for (is_bid, (side, changes)) in
            [true, false].into_iter().zip(sides.iter_mut().zip([bids, asks]))
        {
            let best = |side: &Prices| {
                let best = if is_bid { side.last_key_value() } else { side.first_key_value() };
                best.map(|(px, ())| *px)
            };
            let before = best(side);
            let changed = changes.iter().filter_map(|(px, qty)| {
                let is_gone = !qty.bytes().any(|byte| (b'1'..=b'9').contains(&byte));
                Some((key(px)?, is_gone))
            });
            let changed: Vec<(i128, bool)> = changed.collect();
            for (px, is_gone) in &changed {
                if *is_gone {
                    side.remove(px)
                } else {
                    side.insert(*px, ())
                };
            }
            let bests = [before, best(side)];
            self.at_best +=
                changed.iter().filter(|(px, _)| bests.contains(&Some(*px))).count() as u64;
        }
    }

    /// Messages a second, in the mean.
    pub fn rate(&self) -> u64 {
        let lasts_ns = self.last_ns.saturating_sub(self.first_ns.unwrap_or(0)).max(1);
        let all: u64 = self.by_kind.iter().sum();
        (u128::from(all) * 1_000_000_000 / u128::from(lasts_ns)) as u64
    }

    /// A fact, in hundredths; `None` where nothing says it.
    pub fn hundredths(&self, fact: Fact) -> Option<u64> {
        let [book, best, trade, _] = self.by_kind;
        match fact {
            Fact::Clustering => {
                let windows = (self.last_ns / WINDOW_NS) - (self.first_ns? / WINDOW_NS) + 1;
                let mut counts: Vec<u64> = self.in_window.values().copied().collect();
                let all: u64 = counts.iter().sum();
                counts.sort_unstable();
                // Windows in which nothing was said count too.
                let empty = windows.saturating_sub(counts.len() as u64);
                let place = (windows * 99 / 100).checked_sub(empty);
                let p99 = place.and_then(|place| counts.get(place as usize)).copied().unwrap_or(0);
                (p99 * 100 * windows).checked_div(all)
            }
            Fact::BookToTrade => (100 * (book + best)).checked_div(trade),
            Fact::ChangesP50 => quantile(&self.changes, 50).map(|count| 100 * count),
            Fact::ChangesP99 => quantile(&self.changes, 99).map(|count| 100 * count),
            Fact::AtBest => (10_000 * self.at_best).checked_div(self.changes.iter().sum()),
            Fact::LifeMs => quantile(&self.lives_ns, 50).map(|life_ns| life_ns / 10_000),
        }
    }
}

fn quantile(values: &[u64], percent: usize) -> Option<u64> {
    let mut values = values.to_vec();
    values.sort_unstable();
    values.get(values.len() * percent / 100).copied()
}

fn key(px: &str) -> Option<i128> {
    let decimal = Decimal::parse(px.as_bytes()).ok()?;
    Some(i128::from(decimal.mantissa) * 10i128.pow(u32::from(SCALE_MAX - decimal.scale)))
}
