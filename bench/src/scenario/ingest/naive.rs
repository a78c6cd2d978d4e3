//! The naive rival of the feed: what is written first, and is right. Each message becomes a
//! `serde_json::Value`, each side of a book is a `BTreeMap` with exact keys, and after each message of a
//! book its best 20 levels of both sides are cloned for the readers.
//!
//! Called where the feed is measured, on one thread. It proves nothing (no sequence numbers, no
//! checksums, no heartbeats), so that it does less than the feed that it is held against.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, RwLock};

use serde_json::Value;
use tickfan_core::decimal::{Decimal, SCALE_MAX};
use tickfan_core::market::Venue;

use super::recorded::{Input, Recorded};

/// Levels of each side that readers see.
const TOP: usize = 20;

/// Trades that are kept, as many as the feed keeps.
const TRADES_MAX: usize = 8_192;

/// A price or quantity at 18 digits behind the point.
type Exact = i128;

/// What readers see of a book.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(dead_code, reason = "nobody reads while it is measured")]
pub(crate) struct Top {
    /// Best first.
    pub(crate) bids: Vec<(Exact, Exact)>,
    /// Best first.
    pub(crate) asks: Vec<(Exact, Exact)>,
}

/// All of one symbol.
#[derive(Debug, Default)]
#[allow(dead_code, reason = "nobody reads while it is measured")]
struct Symbol {
    bids: BTreeMap<Exact, Exact>,
    asks: BTreeMap<Exact, Exact>,
    best: Option<[Exact; 4]>,
    trades: VecDeque<(Exact, Exact)>,
    /// Binance: changes that came before their image.
    waiting: Option<Vec<Value>>,
    top: Arc<RwLock<Top>>,
}

/// See the top of this file.
#[derive(Debug)]
pub(crate) struct Naive {
    venue: Venue,
    names: Vec<Arc<str>>,
    symbols: HashMap<Arc<str>, Symbol>,
    /// Bitfinex: what a channel is about; `true` is a book.
    channels: HashMap<u64, (String, bool)>,
}

impl Naive {
    /// One that knows nothing yet of the symbols of a recording.
    pub(crate) fn new(recorded: &Recorded) -> Self {
        let fresh = |name: &Arc<str>| {
            let waiting = is_joined(recorded.venue).then(Vec::new);
            (Arc::clone(name), Symbol { waiting, ..Symbol::default() })
        };
        Self {
            venue: recorded.venue,
            names: recorded.symbols.clone(),
            symbols: recorded.symbols.iter().map(fresh).collect(),
            channels: HashMap::new(),
        }
    }

    /// Takes one input in, and shows readers what came of it.
    pub(crate) fn take(&mut self, input: &Input) {
        let (Input::Message(text, _) | Input::Image(_, text, _)) = input;
        let Ok(message) = serde_json::from_slice::<Value>(text) else { return };
        match input {
            Input::Image(place, ..) => {
                let name = Arc::clone(&self.names[*place]);
                self.image(&name, &message);
            }
            Input::Message(..) => {
                self.message(message);
            }
        }
    }

    /// What readers see of a symbol.
    #[cfg(test)]
    pub(crate) fn top(&self, symbol: &str) -> Top {
        self.symbols[symbol].top.read().unwrap().clone()
    }

    fn message(&mut self, message: Value) -> Option<()> {
        match self.venue {
            Venue::Sim | Venue::BinanceSpot | Venue::BinanceUsdm | Venue::BinanceCoinm => {
                self.binance(message)
            }
            Venue::Coinbase => self.coinbase(&message),
            Venue::CoinbaseAdvanced => self.coinbase_advanced(&message),
            Venue::Kraken => self.kraken(&message),
            Venue::KrakenV1 => self.kraken_v1(&message),
            Venue::Okx => self.okx(&message),
            Venue::BybitSpot | Venue::BybitLinear => self.bybit(&message),
            Venue::Deribit => self.deribit(&message),
            Venue::Bitfinex => self.bitfinex(&message),
        }
    }

    fn symbol(&mut self, name: &Value) -> Option<&mut Symbol> {
        self.symbols.get_mut(name.as_str()?)
    }

    fn binance(&mut self, mut message: Value) -> Option<()> {
        let data = if message["data"].is_object() { message["data"].take() } else { message };
        let symbol = self.symbol(&data["s"])?;
        match data["e"].as_str() {
            Some("depthUpdate") => match &mut symbol.waiting {
                Some(waiting) => waiting.push(data),
                None => {
                    symbol.set_all(&data["b"], &data["a"]);
                    symbol.show();
                }
            },
            Some("trade" | "aggTrade") => symbol.trade(&data["p"], &data["q"])?,
            _ => {
                let of = |field: &str| exact(&data[field]);
                symbol.best = Some([of("b")?, of("B")?, of("a")?, of("A")?]);
            }
        }
        Some(())
    }

    /// Joins a REST image to what came before it.
    fn image(&mut self, name: &str, image: &Value) {
        let Some(symbol) = self.symbols.get_mut(name) else { return };
        symbol.clear();
        symbol.set_all(&image["bids"], &image["asks"]);
        let last = image["lastUpdateId"].as_u64();
        for event in symbol.waiting.take().unwrap_or_default() {
            if event["u"].as_u64() >= last {
                symbol.set_all(&event["b"], &event["a"]);
            }
        }
        symbol.show();
    }

    fn coinbase(&mut self, message: &Value) -> Option<()> {
        let symbol = self.symbol(&message["product_id"])?;
        match message["type"].as_str()? {
            "snapshot" => {
                symbol.clear();
                symbol.set_all(&message["bids"], &message["asks"]);
            }
            "l2update" => {
                for change in message["changes"].as_array()? {
                    symbol.set(change[0] == "buy", &change[1], &change[2])?;
                }
            }
            "match" => return symbol.trade(&message["price"], &message["size"]),
            _ => return None,
        }
        symbol.show();
        Some(())
    }

    fn coinbase_advanced(&mut self, message: &Value) -> Option<()> {
        for event in message["events"].as_array()? {
            match message["channel"].as_str()? {
                "l2_data" => {
                    let symbol = self.symbol(&event["product_id"])?;
                    if event["type"] == "snapshot" {
                        symbol.clear();
                    }
                    for change in event["updates"].as_array()? {
                        let is_bid = change["side"] == "bid";
                        symbol.set(is_bid, &change["price_level"], &change["new_quantity"])?;
                    }
                    symbol.show();
                }
                "market_trades" if event["type"] == "update" => {
                    for trade in event["trades"].as_array()? {
                        let symbol = self.symbol(&trade["product_id"])?;
                        symbol.trade(&trade["price"], &trade["size"])?;
                    }
                }
                _ => {}
            }
        }
        Some(())
    }

    fn kraken(&mut self, message: &Value) -> Option<()> {
        let is_whole = message["type"] == "snapshot";
        for entry in message["data"].as_array()? {
            let symbol = self.symbol(&entry["symbol"])?;
            match message["channel"].as_str()? {
                "book" => {
                    if is_whole {
                        symbol.clear();
                    }
                    for (is_bid, side) in [(true, &entry["bids"]), (false, &entry["asks"])] {
                        for level in side.as_array()? {
                            symbol.set(is_bid, &level["price"], &level["qty"])?;
                        }
                    }
                    symbol.cut(1_000);
                    symbol.show();
                }
                "trade" if !is_whole => symbol.trade(&entry["price"], &entry["qty"])?,
                _ => {}
            }
        }
        Some(())
    }

    fn kraken_v1(&mut self, message: &Value) -> Option<()> {
        let [_, payloads @ .., channel, pair] = &message.as_array()?[..] else { return None };
        let symbol = self.symbol(pair)?;
        if channel == "trade" {
            for trade in payloads.first()?.as_array()? {
                symbol.trade(&trade[0], &trade[1])?;
            }
        } else if channel.as_str()?.starts_with("book") {
            for payload in payloads {
                if payload["as"].is_array() {
                    symbol.clear();
                }
                symbol.set_all(&payload["bs"], &payload["as"]);
                symbol.set_all(&payload["b"], &payload["a"]);
            }
            symbol.cut(1_000);
            symbol.show();
        }
        Some(())
    }

    fn okx(&mut self, message: &Value) -> Option<()> {
        let symbol = self.symbol(&message["arg"]["instId"])?;
        for entry in message["data"].as_array()? {
            match message["arg"]["channel"].as_str()? {
                "books" => {
                    if message["action"] == "snapshot" {
                        symbol.clear();
                    }
                    symbol.set_all(&entry["bids"], &entry["asks"]);
                    symbol.show();
                }
                "trades" => symbol.trade(&entry["px"], &entry["sz"])?,
                _ => {}
            }
        }
        Some(())
    }

    fn bybit(&mut self, message: &Value) -> Option<()> {
        let (topic, data) = (message["topic"].as_str()?, &message["data"]);
        if topic.starts_with("orderbook.") {
            let symbol = self.symbol(&data["s"])?;
            if message["type"] == "snapshot" {
                symbol.clear();
            }
            symbol.set_all(&data["b"], &data["a"]);
            symbol.show();
        } else if topic.starts_with("publicTrade.") {
            for trade in data.as_array()? {
                self.symbol(&trade["s"])?.trade(&trade["p"], &trade["v"])?;
            }
        }
        Some(())
    }

    fn deribit(&mut self, message: &Value) -> Option<()> {
        let (channel, data) = (message["params"]["channel"].as_str()?, &message["params"]["data"]);
        if channel.starts_with("book.") {
            let symbol = self.symbol(&data["instrument_name"])?;
            if data["type"] == "snapshot" {
                symbol.clear();
            }
            for (is_bid, side) in [(true, &data["bids"]), (false, &data["asks"])] {
                for level in side.as_array()? {
                    let gone = Value::from(0);
                    let amount = if level[0] == "delete" { &gone } else { &level[2] };
                    symbol.set(is_bid, &level[1], amount)?;
                }
            }
            symbol.show();
        } else if channel.starts_with("trades.") {
            for trade in data.as_array()? {
                let symbol = self.symbol(&trade["instrument_name"])?;
                symbol.trade(&trade["price"], &trade["amount"])?;
            }
        }
        Some(())
    }

    fn bitfinex(&mut self, message: &Value) -> Option<()> {
        if message["event"] == "subscribed" {
            let is_book = message["channel"] == "book";
            if is_book || message["channel"] == "trades" {
                let name = message["symbol"].as_str()?.to_owned();
                self.channels.insert(message["chanId"].as_u64()?, (name, is_book));
            }
            return Some(());
        }
        let (name, is_book) = self.channels.get(&message[0].as_u64()?)?;
        let symbol = self.symbols.get_mut(&**name)?;
        if !is_book {
            if message[1] == "te" {
                symbol.trade(&message[2][3], &message[2][2])?;
            }
            return Some(());
        }
        let content = message[1].as_array()?;
        if content.first().is_none_or(Value::is_array) {
            symbol.clear();
            for level in content {
                symbol.set_signed(level)?;
            }
        } else {
            symbol.set_signed(&message[1])?;
        }
        symbol.show();
        Some(())
    }
}

/// The image of a book comes over REST.
const fn is_joined(venue: Venue) -> bool {
    matches!(venue, Venue::BinanceSpot | Venue::BinanceUsdm | Venue::BinanceCoinm)
}

impl Symbol {
    fn clear(&mut self) {
        self.bids.clear();
        self.asks.clear();
    }

    fn set(&mut self, is_bid: bool, px: &Value, qty: &Value) -> Option<()> {
        let (px, qty) = (exact(px)?, exact(qty)?);
        let side = if is_bid { &mut self.bids } else { &mut self.asks };
        if qty == 0 {
            side.remove(&px);
        } else {
            side.insert(px, qty);
        }
        Some(())
    }

    /// Sets levels of price and quantity; what is no array is no change.
    fn set_all(&mut self, bids: &Value, asks: &Value) {
        for (is_bid, side) in [(true, bids), (false, asks)] {
            for level in side.as_array().into_iter().flatten() {
                self.set(is_bid, &level[0], &level[1]);
            }
        }
    }

    /// Bitfinex: price, count and amount, which is negative on the side of the asks.
    fn set_signed(&mut self, level: &Value) -> Option<()> {
        let (px, amount) = (exact(&level[0])?, exact(&level[2])?);
        let side = if amount > 0 { &mut self.bids } else { &mut self.asks };
        if level[1].as_u64()? == 0 {
            side.remove(&px);
        } else {
            side.insert(px, amount.abs());
        }
        Some(())
    }

    fn cut(&mut self, depth: usize) {
        while self.bids.len() > depth {
            self.bids.pop_first();
        }
        while self.asks.len() > depth {
            self.asks.pop_last();
        }
    }

    fn trade(&mut self, px: &Value, qty: &Value) -> Option<()> {
        if self.trades.len() == TRADES_MAX {
            self.trades.pop_front();
        }
        self.trades.push_back((exact(px)?, exact(qty)?));
        Some(())
    }

    /// Clones the best levels for readers.
    fn show(&self) {
        let level = |(px, qty): (&Exact, &Exact)| (*px, *qty);
        let top = Top {
            bids: self.bids.iter().rev().take(TOP).map(level).collect(),
            asks: self.asks.iter().take(TOP).map(level).collect(),
        };
        if let Ok(mut shown) = self.top.write() {
            *shown = top;
        }
    }
}

/// A number, or the text of one. A number went through a float, whose shortest text is what the venue
/// wrote, as long as that has no more than 15 digits.
fn exact(value: &Value) -> Option<Exact> {
    let decimal = match value {
        Value::String(text) => Decimal::parse(text.as_bytes()),
        Value::Number(number) => Decimal::parse(number.to_string().as_bytes()),
        _ => return None,
    };
    let decimal = decimal.ok()?;
    Some(Exact::from(decimal.mantissa) * 10i128.pow(u32::from(SCALE_MAX - decimal.scale)))
}
