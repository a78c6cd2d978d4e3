//! A seed → a market: books, trades and what a venue says about them, in virtual time.
//!
//! Called by the synthetic exchange, which paces it, and by tests, which do not. It is pure: no socket
//! and no clock. Same options, same bytes. It trades in bursts, most on its first symbols, and holds
//! the mean of messages a second that it was asked for.

mod symbol;

use std::collections::{BTreeSet, HashMap};

use crate::random::Random;
use crate::truth::TruthBook;
use crate::venue::{Dialect, binance};
use symbol::{Profile, Symbol};

/// Time between two depth messages of a symbol.
const DEPTH_INTERVAL_NS: u64 = 100_000_000;
/// How much faster than the mean a burst is.
const BURST_SPEED: u64 = 4;
/// A burst has fewer than two to this power of actions.
const BURST_BITS: u64 = 7;

/// What market there is.
#[derive(Debug, Clone, Copy)]
pub struct MarketOptions {
    /// Same seed, same market.
    pub seed: u64,
    /// How many symbols trade; at least 1.
    pub symbols: usize,
    /// Messages a second over all symbols, in the mean; at least 1.
    pub rate: u32,
    /// When it begins, nanoseconds since the Unix epoch.
    pub start_ns: u64,
}

/// What the venue says on one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The stream: `btcusdt@trade`.
    pub stream: String,
    /// The message, in the wrapper of a combined stream.
    pub payload: String,
}

impl Message {
    fn new(stream: String, data: &str) -> Self {
        let payload = format!(r#"{{"stream":"{stream}","data":{data}}}"#);
        Self { stream, payload }
    }
}

/// One event of the market and what the venue says about it, which may be nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// When, in virtual time, nanoseconds since the Unix epoch.
    pub at_ns: u64,
    /// What the venue says, in order.
    pub messages: Vec<Message>,
}

/// See the top of this file.
#[derive(Debug)]
pub struct Market {
    options: MarketOptions,
    random: Random,
    symbols: Vec<Symbol>,
    by_name: HashMap<String, usize>,
    /// Running sums of the symbols' shares of the activity.
    shares: Vec<u64>,
    /// Symbols that have something to tell in a depth message, by the time at which they do.
    depth_due: BTreeSet<(u64, usize)>,
    next_action_ns: u64,
    burst_left: u64,
    message_count: u64,
}

impl Market {
    /// A market at its start.
    pub fn new(options: MarketOptions) -> Self {
        let options =
            MarketOptions { symbols: options.symbols.max(1), rate: options.rate.max(1), ..options };
        let mut random = Random::new(options.seed);
        let symbols: Vec<Symbol> = (0..options.symbols)
            .map(|index| Symbol::new(profile(index, &mut random), &mut random))
            .collect();
        let by_name = symbols.iter().enumerate().map(|(i, s)| (s.name.clone(), i)).collect();
        let shares = (1..=options.symbols as u64)
            .scan(0, |sum, rank| {
                *sum += 1_000_000 / rank + 1;
                Some(*sum)
            })
            .collect();
        Self {
            next_action_ns: options.start_ns,
            options,
            random,
            symbols,
            by_name,
            shares,
            depth_due: BTreeSet::new(),
            burst_left: 0,
            message_count: 0,
        }
    }

    /// When the next step happens.
    pub fn next_at_ns(&self) -> u64 {
        let due_ns = self.depth_due.first().map_or(u64::MAX, |(due_ns, _)| *due_ns);
        due_ns.min(self.next_action_ns)
    }

    /// Goes on to the next event.
    pub fn step(&mut self) -> Step {
        let at_ns = self.next_at_ns();
        let messages = match self.depth_due.first().copied() {
            Some((due_ns, index)) if due_ns <= self.next_action_ns => {
                self.depth_due.pop_first();
                vec![self.symbols[index].depth_update(at_ns)]
            }
            _ => self.act(at_ns),
        };
        self.message_count += messages.len() as u64;
        Step { at_ns, messages }
    }

    fn act(&mut self, at_ns: u64) -> Vec<Message> {
        let index = self.any_symbol();
        let symbol = &mut self.symbols[index];
        let had_pending = symbol.has_pending();
        let messages = symbol.act(at_ns, &mut self.random);
        if symbol.has_pending() && !had_pending {
            self.depth_due.insert((depth_due_ns(at_ns, index), index));
        }
        self.next_action_ns = at_ns + self.pause_ns(at_ns);
        messages
    }

    fn any_symbol(&mut self) -> usize {
        let drawn = self.random.below(self.shares.last().copied().unwrap_or(1));
        self.shares.partition_point(|sum| *sum <= drawn)
    }

    /// Within a burst short; after it, until the messages so far are no more than the rate allows.
    fn pause_ns(&mut self, at_ns: u64) -> u64 {
        let mean_ns = 1_000_000_000 / u64::from(self.options.rate);
        if self.burst_left > 0 {
            self.burst_left -= 1;
            return 1 + self.random.below(2 * mean_ns / BURST_SPEED);
        }
        self.burst_left = self.random.skewed(BURST_BITS);
        let allowed_ns = self.options.start_ns + self.message_count * mean_ns;
        1 + allowed_ns.saturating_sub(at_ns) + self.random.below(mean_ns)
    }

    /// The book of a symbol as it was at an update id, or without one as it is, if that is known: the
    /// last 10,000 updates of each symbol are.
    pub fn truth(&self, symbol: &str, update_id: Option<u64>) -> Option<TruthBook> {
        self.symbol(symbol)?.truth(update_id)
    }

    /// The newest update id of a symbol. Depth messages have told of it up to 100 ms later.
    pub fn update_id(&self, symbol: &str) -> Option<u64> {
        Some(self.symbol(symbol)?.update_id())
    }

    /// The names of the symbols, the most active first.
    pub fn symbols(&self) -> impl Iterator<Item = &str> {
        self.symbols.iter().map(|symbol| symbol.name.as_str())
    }

    /// The REST body of a symbol's book as it is, which may be ahead of the depth messages.
    pub fn depth_snapshot(&self, symbol: &str, limit: Option<usize>) -> Option<String> {
        let book = self.truth(symbol, None)?;
        let limit = binance::depth_limit(Dialect::BinanceSpot, limit);
        Some(binance::depth_body(Dialect::BinanceSpot, symbol, &book, limit, 0))
    }

    /// The REST body of the list of instruments.
    pub fn exchange_info(&self) -> String {
        let listings: Vec<String> = self
            .symbols
            .iter()
            .map(|symbol| {
                binance::listing(
                    &symbol.name,
                    &symbol.profile.base,
                    symbol.profile.quote,
                    &symbol.px(1),
                    &symbol.qty(1),
                )
            })
            .collect();
        binance::exchange_info(&listings)
    }

    fn symbol(&self, name: &str) -> Option<&Symbol> {
        self.symbols.get(*self.by_name.get(name)?)
    }
}

/// Each symbol has its own tenth of a second, as if each had a timer of its own.
fn depth_due_ns(at_ns: u64, index: usize) -> u64 {
    let phase_ns = index as u64 * 7_919_000 % DEPTH_INTERVAL_NS;
    let since_ns = (at_ns + DEPTH_INTERVAL_NS - phase_ns) % DEPTH_INTERVAL_NS;
    at_ns + DEPTH_INTERVAL_NS - since_ns
}

fn profile(index: usize, random: &mut Random) -> Profile {
    let known = [
        ("BTC", 2, 5, 6_180_000),
        ("ETH", 2, 4, 260_000),
        ("SOL", 2, 3, 15_000),
        ("DOGE", 5, 0, 10_500),
    ];
    let (base, px_digits, qty_digits, start_ticks) = match known.get(index) {
        Some((base, px, qty, ticks)) => ((*base).to_owned(), *px, *qty, *ticks),
        None => (format!("SIM{:04}", index + 1), 4, 1, 2_000 + random.below(1_000_000) as i64),
    };
    Profile { base, quote: "USDT", px_digits, qty_digits, start_ticks }
}
