//! A message of a venue → what it is about: a symbol's book, or its trades.
//!
//! Called by the recorder with everything that it hears, in order. What a book then is, is not read
//! here.

use serde_json::Value;

use crate::venue::{Dialect, Reader, binance};

/// What a message is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Subject {
    /// A book.
    Book {
        /// Of which symbol.
        symbol: String,
        /// All of it.
        is_whole: bool,
        /// The number that the message has.
        number: Option<u64>,
    },
    /// Trades.
    Trades {
        /// Of which symbol.
        symbol: String,
        /// How many.
        count: u64,
    },
}

/// Reads messages; learns from acknowledgements what later ones do not say.
#[derive(Debug)]
pub(super) struct Subjects {
    dialect: Dialect,
    reader: Box<dyn Reader>,
}

impl Subjects {
    /// Nothing was read yet.
    pub(super) fn new(dialect: Dialect) -> Self {
        Self { dialect, reader: dialect.reader() }
    }

    /// What a message is about; `None` for what is about neither books nor trades.
    pub(super) fn read(&mut self, text: &str) -> Option<Subject> {
        if self.dialect.fetches_images() {
            return of_binance(text);
        }
        let recorded = self.reader.read(text)?;
        let symbol = recorded.symbol?.into_owned();
        if let Some(book) = recorded.book {
            return Some(Subject::Book { symbol, is_whole: book.is_snapshot, number: book.id });
        }
        let count = trades(self.dialect, &serde_json::from_str(text).ok()?)?;
        Some(Subject::Trades { symbol, count: count as u64 })
    }
}

fn of_binance(text: &str) -> Option<Subject> {
    if let Some(event) = binance::DepthEvent::read(text) {
        let (symbol, number) = (event.symbol.to_owned(), Some(event.last_update_id));
        return Some(Subject::Book { symbol, is_whole: false, number });
    }
    let message: Value = serde_json::from_str(text).ok()?;
    let (_, stream) = message["stream"].as_str()?.split_once('@')?;
    let symbol = message["data"]["s"].as_str()?.to_owned();
    matches!(stream, "trade" | "aggTrade").then_some(Subject::Trades { symbol, count: 1 })
}

/// How many trades a message tells, if it tells any: not those of before it was asked for.
fn trades(dialect: Dialect, message: &Value) -> Option<usize> {
    let is = |value: &Value, text: &str| value.as_str() == Some(text);
    let length = |list: &Value| list.as_array().map(Vec::len);
    match dialect {
        Dialect::BinanceSpot | Dialect::BinanceUsdm | Dialect::BinanceCoinm => None,
        Dialect::Coinbase => is(&message["type"], "match").then_some(1),
        Dialect::CoinbaseAdvanced => {
            let events = message["events"].as_array()?.iter();
            let news = events.filter(|event| is(&event["type"], "update"));
            Some(news.filter_map(|event| length(&event["trades"])).sum())
        }
        Dialect::Kraken => {
            let is_news = is(&message["channel"], "trade") && is(&message["type"], "update");
            is_news.then(|| length(&message["data"]))?
        }
        Dialect::KrakenV1 => is(&message[2], "trade").then(|| length(&message[1]))?,
        Dialect::Okx => {
            is(&message["arg"]["channel"], "trades").then(|| length(&message["data"]))?
        }
        Dialect::BybitSpot | Dialect::BybitLinear => {
            let is_trades = message["topic"].as_str()?.starts_with("publicTrade.");
            is_trades.then(|| length(&message["data"]))?
        }
        Dialect::Deribit => {
            let is_trades = message["params"]["channel"].as_str()?.starts_with("trades.");
            is_trades.then(|| length(&message["params"]["data"]))?
        }
        Dialect::Bitfinex => is(&message[1], "te").then_some(1),
    }
}
