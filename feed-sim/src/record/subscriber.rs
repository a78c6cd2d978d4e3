//! A dialect and its symbols → everything that a client says to hear all there is: books, best prices
//! where they have a stream of their own, trades.
//!
//! Called when a recording begins. It knows how a client asks, and nothing of answers.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::exchange::Exchange;
use crate::recording::{Kind, Recording};
use crate::venue::{Dialect, binance};

/// Bitfinex: number every message, and send checksums.
const BITFINEX_FLAGS: u64 = 65_536 + 131_072;

/// What books are called in requests.
const BOOK: [&str; 3] = ["book", "level2", "depth"];

/// An image to be fetched.
#[derive(Debug, Clone)]
pub(crate) struct ImageRequest {
    /// Of which symbol.
    pub(crate) symbol: String,
    /// The path of the request.
    pub(crate) path: String,
    /// The query of the request.
    pub(crate) query: String,
    /// To how many levels a side.
    pub(crate) limit: usize,
}

impl ImageRequest {
    fn new(symbol: &str, path: &str, limit: usize) -> Self {
        let query = format!("symbol={symbol}&limit={limit}");
        Self { symbol: symbol.to_owned(), path: path.to_owned(), query, limit }
    }

    /// Path and query.
    pub(crate) fn target(&self) -> String {
        format!("{}?{}", self.path, self.query)
    }
}

/// Everything that a client asks for.
#[derive(Debug, Clone)]
pub(crate) struct Wishes {
    /// Path and query of the connection.
    pub(crate) target: String,
    /// What it says, in order, as soon as it is connected.
    pub(crate) requests: Vec<String>,
    /// What it fetches.
    pub(crate) images: Vec<ImageRequest>,
}

impl Wishes {
    /// All of an exchange.
    pub(crate) fn of(dialect: Dialect, symbols: &[&str]) -> Self {
        let images = images(dialect, symbols);
        let depth = Exchange::depth(dialect);
        let (target, requests) = match dialect {
            Dialect::BinanceSpot | Dialect::BinanceUsdm | Dialect::BinanceCoinm => {
                let streams = ["depth@100ms", "bookTicker", "trade"];
                let params = cross(symbols, &streams, |symbol, stream| {
                    format!("{}@{stream}", symbol.to_lowercase())
                });
                ("/stream", vec![json!({ "method": "SUBSCRIBE", "params": params, "id": 1 })])
            }
            Dialect::Coinbase => {
                let channels = ["level2", "matches", "heartbeat"];
                let request =
                    json!({ "type": "subscribe", "product_ids": symbols, "channels": channels });
                ("/", vec![request])
            }
            Dialect::CoinbaseAdvanced => {
                let request = |channel| json!({ "type": "subscribe", "product_ids": symbols, "channel": channel });
                let heartbeats = json!({ "type": "subscribe", "channel": "heartbeats" });
                ("/", vec![heartbeats, request("market_trades"), request("level2")])
            }
            Dialect::Kraken => {
                let request = |params| json!({ "method": "subscribe", "params": params });
                let trades = json!({ "channel": "trade", "symbol": symbols });
                let books = json!({ "channel": "book", "symbol": symbols, "depth": depth });
                ("/v2", vec![request(trades), request(books)])
            }
            Dialect::KrakenV1 => {
                let request = |wanted| json!({ "event": "subscribe", "pair": symbols, "subscription": wanted });
                let books = json!({ "name": "book", "depth": depth });
                ("/", vec![request(json!({ "name": "trade" })), request(books)])
            }
            Dialect::Okx => {
                let args: Vec<Value> = cross(
                    symbols,
                    &["trades", "books"],
                    |symbol, channel| json!({ "channel": channel, "instId": symbol }),
                );
                ("/ws/v5/public", vec![json!({ "op": "subscribe", "args": args })])
            }
            Dialect::BybitSpot | Dialect::BybitLinear => {
                let request = |symbol| {
                    let book = format!("orderbook.{}.{symbol}", depth.unwrap_or(0));
                    let args = [format!("publicTrade.{symbol}"), book];
                    json!({ "op": "subscribe", "args": args, "req_id": symbol })
                };
                let path = if dialect == Dialect::BybitSpot {
                    "/v5/public/spot"
                } else {
                    "/v5/public/linear"
                };
                (path, symbols.iter().map(request).collect())
            }
            Dialect::Deribit => {
                let channels: Vec<String> = cross(symbols, &["trades", "book"], |symbol, kind| {
                    format!("{kind}.{symbol}.raw")
                });
                let params = json!({ "channels": channels });
                let request = json!({ "jsonrpc": "2.0", "id": 1, "method": "public/subscribe",
                    "params": params });
                ("/ws/api/v2", vec![request])
            }
            Dialect::Bitfinex => {
                let flags = json!({ "event": "conf", "flags": BITFINEX_FLAGS });
                let request = |symbol| {
                    let trades =
                        json!({ "event": "subscribe", "channel": "trades", "symbol": symbol });
                    let book = json!({ "event": "subscribe", "channel": "book", "symbol": symbol,
                        "prec": "P0", "freq": "F0", "len": "100" });
                    [trades, book]
                };
                ("/ws/2", std::iter::once(flags).chain(symbols.iter().flat_map(request)).collect())
            }
        };
        let requests = requests.iter().map(Value::to_string).collect();
        Self { target: target.to_owned(), requests, images }
    }

    /// What a recorder once asked for.
    pub(crate) fn recorded(recording: &Recording) -> Self {
        let of = |kind| recording.lines.iter().filter(move |line| line.kind == kind);
        let target = of(Kind::Open).next().map_or("/", |line| target_of(line.text()));
        let requests = of(Kind::Send).map(|line| line.text().to_owned()).collect();
        let images = of(Kind::Rest).filter_map(|line| {
            let (path, query) = target_of(&line.stream).split_once('?')?;
            let limit = query.split('&').find_map(|pair| pair.strip_prefix("limit=")?.parse().ok());
            Some(ImageRequest {
                symbol: line.rest_symbol()?.to_owned(),
                path: path.to_owned(),
                query: query.to_owned(),
                limit: binance::depth_limit(recording.dialect, limit),
            })
        });
        Self { target: target.to_owned(), requests, images: images.collect() }
    }
}

/// What to paste into a terminal to hear a book.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// Path and query of the connection.
    pub target: String,
    /// What to say on it; nothing where the query says all.
    pub request: Option<String>,
}

impl Example {
    /// Of this symbol of a synthetic exchange.
    pub fn of_exchange(dialect: Dialect, symbol: &str) -> Self {
        Self::of(Wishes::of(dialect, &[symbol]))
    }

    /// Of what was asked for when this was recorded or, where nobody wrote that down, of a symbol whose
    /// image was fetched.
    pub fn of_recording(recording: &Recording) -> Self {
        let recorded = Wishes::recorded(recording);
        let is_told = !recorded.requests.is_empty() || recorded.target.contains('?');
        match recorded.images.first() {
            Some(image) if !is_told => Self::of_exchange(recording.dialect, &image.symbol),
            _ => Self::of(recorded),
        }
    }

    fn of(wishes: Wishes) -> Self {
        let is_of_book = |request: &&String| BOOK.iter().any(|word| request.contains(word));
        let request = wishes.requests.iter().find(is_of_book).or(wishes.requests.last());
        Self { target: wishes.target, request: request.cloned() }
    }

    /// The words for a terminal, of an exchange at an address.
    pub fn at(&self, address: SocketAddr) -> String {
        let open = format!("websocat 'ws://{address}{}'", self.target);
        match &self.request {
            Some(request) => format!("{open}, then {request}"),
            None => open,
        }
    }
}

/// Path and query of a URL, or of what is no more than that.
fn target_of(url: &str) -> &str {
    let after_scheme = url.split_once("://").map(|(_, rest)| rest);
    match after_scheme {
        Some(rest) => rest.find('/').map_or("/", |at| &rest[at..]),
        None => url,
    }
}

fn images(dialect: Dialect, symbols: &[&str]) -> Vec<ImageRequest> {
    let path = match dialect {
        Dialect::BinanceSpot => "/api/v3/depth",
        Dialect::BinanceUsdm => "/fapi/v1/depth",
        Dialect::BinanceCoinm => "/dapi/v1/depth",
        _ => return Vec::new(),
    };
    let deepest = binance::depth_limit(dialect, Some(usize::MAX));
    symbols.iter().map(|symbol| ImageRequest::new(symbol, path, deepest)).collect()
}

/// Each symbol with each of its streams.
fn cross<T>(symbols: &[&str], streams: &[&str], word: impl Fn(&str, &str) -> T) -> Vec<T> {
    let pairs =
        streams.iter().flat_map(|stream| symbols.iter().map(move |symbol| (symbol, stream)));
    pairs.map(|(symbol, stream)| word(symbol, stream)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_cut_behind_its_host() {
        assert_eq!(target_of("wss://a.com:9443/stream?streams=b@trade"), "/stream?streams=b@trade");
        assert_eq!(target_of("wss://a.com"), "/");
        assert_eq!(target_of("/api/v3/depth?symbol=B"), "/api/v3/depth?symbol=B");
    }
}
