//! Binance's words (spot, USD-M, COIN-M): its messages and a client's requests → values, and values →
//! its replies and REST bodies.
//!
//! Called by the truth, the replay and the synthetic exchange. A session here is what one WebSocket
//! connection subscribed to; it answers in text and never touches a socket.

use std::collections::BTreeMap;
use std::fmt::Write;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use tickfan_core::market::Side;

use crate::truth::{TruthBook, TruthLevel};
use crate::venue::{Dialect, Message, Moment, Print, Recorded, quoted_pairs};

/// How the streams of joined trades are called, behind their symbol.
pub(crate) const AGGREGATES: &str = "@aggTrade";

/// Streams that one connection may have.
const STREAMS_MAX: usize = 1024;

/// The wrapper of a combined stream.
#[derive(Deserialize)]
struct Combined<'a> {
    stream: &'a str,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// A change of a book, out of the message of a combined stream.
#[derive(Debug, Deserialize)]
pub(crate) struct DepthEvent<'a> {
    /// The symbol.
    #[serde(rename = "s")]
    pub(crate) symbol: &'a str,
    /// The update id after it.
    #[serde(rename = "u")]
    pub(crate) last_update_id: u64,
    /// Changed bids.
    #[serde(rename = "b", borrow)]
    pub(crate) bids: Vec<(&'a str, &'a str)>,
    /// Changed asks.
    #[serde(rename = "a", borrow)]
    pub(crate) asks: Vec<(&'a str, &'a str)>,
}

impl<'a> DepthEvent<'a> {
    /// The event in `text`, when it is one.
    pub(crate) fn read(text: &'a str) -> Option<Self> {
        let combined: Combined<'a> = serde_json::from_str(text).ok()?;
        if !combined.stream.contains("@depth") {
            return None;
        }
        serde_json::from_str(combined.data.get()).ok()
    }
}

/// A REST image of a book.
#[derive(Debug, Deserialize)]
pub(crate) struct DepthImage<'a> {
    /// The update id that it includes.
    #[serde(rename = "lastUpdateId")]
    pub(crate) last_update_id: u64,
    /// The bids.
    #[serde(borrow)]
    pub(crate) bids: Vec<(&'a str, &'a str)>,
    /// The asks.
    #[serde(borrow)]
    pub(crate) asks: Vec<(&'a str, &'a str)>,
}

impl<'a> DepthImage<'a> {
    /// The image in `text`, when it is one.
    pub(crate) fn read(text: &'a str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

/// Reads recorded messages of combined streams.
#[derive(Debug)]
pub(crate) struct Reader;

impl super::Reader for Reader {
    fn read<'a>(&mut self, text: &'a str) -> Option<Recorded<'a>> {
        let combined: Combined<'a> = serde_json::from_str(text).ok()?;
        let key = stream_key(combined.stream);
        Some(Recorded { key, symbol: None, book: None, inner: Some(combined.data.get()) })
    }
}

/// What a stream's name is compared by. The diff depth is one stream whatever its speed, because a
/// recording, like the synthetic market, has it at one speed only.
pub(crate) fn stream_key(stream: &str) -> String {
    match stream.split_once("@depth") {
        Some((symbol, speed)) if speed.is_empty() || speed.starts_with('@') => {
            format!("{symbol}@depth")
        }
        _ => stream.to_owned(),
    }
}

/// The name under which a symbol's diff depth is compared.
pub(crate) fn depth_key(symbol: &str) -> String {
    format!("{}@depth", symbol.to_lowercase())
}

#[derive(Deserialize)]
struct Call<'a> {
    method: &'a str,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
}

/// What one connection subscribed to.
#[derive(Debug)]
pub(crate) struct Session {
    /// By key, as the client spelt them.
    streams: BTreeMap<String, String>,
    combined: bool,
}

impl Session {
    /// A connection to this path and query: `/ws`, `/ws/<stream>/<stream>`, or
    /// `/stream?streams=<stream>/<stream>`. A prefix before it (`/public`, `/market`) is ignored.
    pub(crate) fn open(path: &str, query: &str) -> Self {
        let (combined, names) = match path.split_once("/ws") {
            Some((_, names)) => (false, names),
            None => (true, query.split('&').find_map(|q| q.strip_prefix("streams=")).unwrap_or("")),
        };
        let names = names.replace("%40", "@").replace("%2F", "/").replace("%2f", "/");
        let mut session = Self { streams: BTreeMap::new(), combined };
        let names: Vec<&str> = names.split('/').filter(|name| !name.is_empty()).collect();
        session.add(names.into_iter().take(STREAMS_MAX));
        session
    }

    fn add<'a>(&mut self, names: impl Iterator<Item = &'a str>) {
        self.streams.extend(names.map(|name| (stream_key(name), name.to_owned())));
    }

    /// The client subscribed to the stream with this key.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.streams.contains_key(key)
    }

    /// How many streams the client subscribed to.
    pub(crate) fn subscriptions(&self) -> usize {
        self.streams.len()
    }

    /// Obeys one message of the client; returns the reply.
    pub(crate) fn message(&mut self, text: &str) -> String {
        let call: Call<'_> = match serde_json::from_str(text) {
            Ok(call) => call,
            Err(error) if error.is_data() => {
                return error_reply(2, &format!("Invalid request: {error}"), "null");
            }
            Err(error) => return error_reply(3, &format!("Invalid JSON: {error}"), "null"),
        };
        let id = call.id.map_or("null", RawValue::get);
        match self.obey(call.method, call.params.map_or("null", RawValue::get)) {
            Ok(result) => format!(r#"{{"result":{result},"id":{id}}}"#),
            Err(reason) => error_reply(2, &format!("Invalid request: {reason}"), id),
        }
    }

    fn obey(&mut self, method: &str, params: &str) -> Result<String, String> {
        let names = || serde_json::from_str::<Vec<String>>(params).map_err(|e| e.to_string());
        match method {
            "SUBSCRIBE" => {
                let names = names()?;
                if self.streams.len() + names.len() > STREAMS_MAX {
                    return Err(format!("more than {STREAMS_MAX} streams"));
                }
                self.add(names.iter().map(String::as_str));
                Ok("null".to_owned())
            }
            "UNSUBSCRIBE" => {
                for name in names()? {
                    self.streams.remove(&stream_key(&name));
                }
                Ok("null".to_owned())
            }
            "LIST_SUBSCRIPTIONS" => {
                let names: Vec<&String> = self.streams.values().collect();
                serde_json::to_string(&names).map_err(|e| e.to_string())
            }
            "SET_PROPERTY" => {
                let (name, value): (String, bool) =
                    serde_json::from_str(params).map_err(|e| e.to_string())?;
                if name != "combined" {
                    return Err(format!("unknown property {name}"));
                }
                self.combined = value;
                Ok("null".to_owned())
            }
            "GET_PROPERTY" => Ok(self.combined.to_string()),
            _ => Err(format!(
                "unknown variant `{method}`, expected one of `SUBSCRIBE`, `UNSUBSCRIBE`, \
                 `LIST_SUBSCRIPTIONS`, `SET_PROPERTY`, `GET_PROPERTY`"
            )),
        }
    }
}

impl super::Session for Session {
    fn hear(&mut self, text: &str, _moment: &Moment<'_>) -> Vec<String> {
        vec![self.message(text)]
    }

    fn has(&self, key: &str) -> bool {
        Self::has(self, key)
    }

    fn subscriptions(&self) -> usize {
        Self::subscriptions(self)
    }

    fn tell(&mut self, message: &Message, _moment: &Moment<'_>) -> Option<Bytes> {
        let whole = &message.payload;
        Some(if self.combined { whole } else { message.inner.as_ref().unwrap_or(whole) }.clone())
    }
}

fn error_reply(code: u8, message: &str, id: &str) -> String {
    let message = serde_json::Value::from(message);
    format!(r#"{{"code":{code},"msg":{message},"id":{id}}}"#)
}

/// The body of a failed REST request.
pub(crate) fn rest_error(code: i32, message: &str) -> String {
    serde_json::json!({ "code": code, "msg": message }).to_string()
}

/// How deep a REST image of this dialect is: what was asked for, the default, at most the deepest.
pub(crate) fn depth_limit(dialect: Dialect, asked: Option<usize>) -> usize {
    let (default, deepest) = match dialect {
        Dialect::BinanceSpot => (100, 5000),
        _ => (500, 1000),
    };
    asked.unwrap_or(default).clamp(1, deepest)
}

/// Request weight of the list of instruments on spot.
pub(crate) const LIST_WEIGHT: usize = 20;

/// Request weight of an image so deep, on spot.
pub(crate) const fn depth_weight(limit: usize) -> usize {
    match limit {
        0..=100 => 5,
        101..=500 => 25,
        501..=1000 => 50,
        _ => 250,
    }
}

/// The REST body of a book, its `limit` best levels a side.
pub(crate) fn depth_body(
    dialect: Dialect,
    symbol: &str,
    book: &TruthBook,
    limit: usize,
    at_ns: u64,
) -> String {
    let mut out = format!(r#"{{"lastUpdateId":{},"#, book.id().unwrap_or(0));
    let at_ms = at_ns / 1_000_000;
    // Writing to a string cannot fail.
    let _ = match dialect {
        Dialect::BinanceUsdm => write!(out, r#""E":{at_ms},"T":{at_ms},"#),
        Dialect::BinanceCoinm => {
            let pair = symbol.split('_').next().unwrap_or(symbol);
            write!(out, r#""E":{at_ms},"T":{at_ms},"symbol":"{symbol}","pair":"{pair}","#)
        }
        _ => Ok(()),
    };
    push_sides(&mut out, book, limit);
    out
}

/// The end of a body: both sides of a book.
fn push_sides(out: &mut String, book: &TruthBook, limit: usize) {
    let [bids, asks] =
        [Side::Bid, Side::Ask].map(|side| quoted_pairs(book.levels(side).take(limit)));
    out.extend([r#""bids":["#, &bids, r#"],"asks":["#, &asks, "]}"]);
}

/// A change of a book on spot.
pub(crate) struct DepthUpdate<'a> {
    /// The symbol.
    pub(crate) symbol: &'a str,
    /// The venue's time.
    pub(crate) at_ms: u64,
    /// The first update id in it.
    pub(crate) first_id: u64,
    /// The last update id in it.
    pub(crate) last_id: u64,
    /// The changed bids.
    pub(crate) bids: &'a [TruthLevel],
    /// The changed asks.
    pub(crate) asks: &'a [TruthLevel],
}

impl DepthUpdate<'_> {
    /// The message, without a wrapper.
    pub(crate) fn data(&self) -> String {
        format!(
            r#"{{"e":"depthUpdate","E":{},"s":"{}","U":{},"u":{},{}}}"#,
            self.at_ms,
            self.symbol,
            self.first_id,
            self.last_id,
            self.sides()
        )
    }

    /// The same on futures, where it names the last update id of the message before it.
    pub(crate) fn futures_data(&self, previous_id: u64) -> String {
        format!(
            r#"{{"e":"depthUpdate","E":{at},"T":{at},"s":"{}","U":{},"u":{},"pu":{previous_id},{}}}"#,
            self.symbol,
            self.first_id,
            self.last_id,
            self.sides(),
            at = self.at_ms,
        )
    }

    fn sides(&self) -> String {
        format!(r#""b":[{}],"a":[{}]"#, quoted_pairs(self.bids), quoted_pairs(self.asks))
    }
}

/// The best bid and ask on spot.
pub(crate) struct BookTicker<'a> {
    /// The symbol.
    pub(crate) symbol: &'a str,
    /// The update id of the book that it is the top of.
    pub(crate) id: u64,
    /// The best bid.
    pub(crate) bid: &'a TruthLevel,
    /// The best offer.
    pub(crate) ask: &'a TruthLevel,
}

impl BookTicker<'_> {
    /// The message, without a wrapper.
    pub(crate) fn data(&self) -> String {
        format!(
            r#"{{"u":{},"s":"{}","b":"{}","B":"{}","a":"{}","A":"{}"}}"#,
            self.id, self.symbol, self.bid.px, self.bid.qty, self.ask.px, self.ask.qty
        )
    }

    /// The same on futures.
    pub(crate) fn futures_data(&self, at_ms: u64) -> String {
        let times = format!(r#"{{"e":"bookTicker","E":{at_ms},"T":{at_ms},"#);
        self.data().replacen('{', &times, 1)
    }
}

/// A trade on spot.
pub(crate) struct TradeReport<'a> {
    /// The symbol.
    pub(crate) symbol: &'a str,
    /// The venue's time.
    pub(crate) at_ms: u64,
    /// Its id.
    pub(crate) id: u64,
    /// Its price.
    pub(crate) px: &'a str,
    /// Its quantity.
    pub(crate) qty: &'a str,
    /// The seller crossed the spread.
    pub(crate) buyer_is_maker: bool,
}

impl TradeReport<'_> {
    /// The message, without a wrapper.
    pub(crate) fn data(&self) -> String {
        format!(
            r#"{{"e":"trade","E":{at},"s":"{}","t":{},"p":"{}","q":"{}","T":{at},"m":{},"M":true}}"#,
            self.symbol,
            self.id,
            self.px,
            self.qty,
            self.buyer_is_maker,
            at = self.at_ms
        )
    }
}

/// Trades joined: what one order traded at one price. The numbers are its own and those of its first and
/// last trade.
pub(crate) fn aggregate(dialect: Dialect, print: &Print<'_>, ids: [u64; 3]) -> String {
    let [id, first, last] = ids;
    let Print { symbol, px, qty, .. } = print;
    let (at_ms, is_maker) = (print.at_ns / 1_000_000, !print.buyer_took);
    let ignored = if dialect == Dialect::BinanceSpot { r#","M":true"# } else { "" };
    format!(
        r#"{{"e":"aggTrade","E":{at_ms},"a":{id},"s":"{symbol}","p":"{px}","q":"{qty}","f":{first},"l":{last},"T":{at_ms},"m":{is_maker}{ignored}}}"#
    )
}

/// What the list calls a symbol that trades, or does not for now.
pub(crate) const fn status(is_open: bool) -> &'static str {
    if is_open { "TRADING" } else { "BREAK" }
}

/// One instrument of the list on spot.
pub(crate) fn listing(
    symbol: &str,
    status: &str,
    [base, quote]: [&str; 2],
    tick: &str,
    lot: &str,
) -> String {
    format!(
        r#"{{"symbol":"{symbol}","status":"{status}","baseAsset":"{base}","baseAssetPrecision":8,"quoteAsset":"{quote}","quotePrecision":8,"isSpotTradingAllowed":true,"filters":[{{"filterType":"PRICE_FILTER","minPrice":"{tick}","maxPrice":"1000000.00000000","tickSize":"{tick}"}},{{"filterType":"LOT_SIZE","minQty":"{lot}","maxQty":"9000000.00000000","stepSize":"{lot}"}}]}}"#
    )
}

/// The body of a book that the exchange knows to be true, with the digest of all its levels.
pub(crate) fn truth_body(symbol: &str, book: &TruthBook, limit: usize) -> String {
    let mut out = format!(
        r#"{{"symbol":"{symbol}","id":{id},"u":{id},"digest":"{:016x}","#,
        book.digest(),
        id = book.id().unwrap_or(0),
    );
    push_sides(&mut out, book, limit);
    out
}

/// The body of the list of instruments.
pub(crate) fn exchange_info(instruments: &[String]) -> String {
    format!(r#"{{"timezone":"UTC","symbols":[{}]}}"#, instruments.join(","))
}

/// The body for a path that leads to nothing of this market: the other markets list nothing.
pub(crate) fn other(path: &str, at_ns: u64) -> String {
    match path.rsplit('/').next() {
        Some("exchangeInfo") => exchange_info(&[]),
        Some("time") => format!(r#"{{"serverTime":{}}}"#, at_ns / 1_000_000),
        Some("ping") => "{}".to_owned(),
        _ => "[]".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_speaks_as_the_venue_does() {
        let mut session = Session::open("/stream", "streams=btcusdt@depth@100ms/btcusdt@trade");
        assert!(session.has("btcusdt@depth") && session.has("btcusdt@trade"));
        assert_eq!(
            session.message(r#"{"method":"SUBSCRIBE","params":["btcusdt@bookTicker"],"id":1}"#),
            r#"{"result":null,"id":1}"#
        );
        assert_eq!(
            session.message(r#"{"method":"UNSUBSCRIBE","params":["btcusdt@depth"],"id":"a"}"#),
            r#"{"result":null,"id":"a"}"#
        );
        assert_eq!(
            session.message(r#"{"method":"LIST_SUBSCRIPTIONS","id":3}"#),
            r#"{"result":["btcusdt@bookTicker","btcusdt@trade"],"id":3}"#
        );
        assert!(session.combined);
        session.message(r#"{"method":"SET_PROPERTY","params":["combined",false],"id":5}"#);
        assert!(!session.combined);
        assert!(!Session::open("/ws/btcusdt@trade", "").combined);
    }

    #[test]
    fn nonsense_gets_the_venue_s_error() {
        let mut session = Session::open("/ws", "");
        let missing = session.message("{\"id\":7}");
        assert!(missing.contains("\"code\":2") && missing.contains("missing field `method`"));
        assert!(session.message("hello").contains("\"code\":3"));
        assert!(session.message(r#"{"method":"SUBSCRIBE","params":[1],"id":7}"#).contains("code"));
        assert!(session.message(r#"{"method":"FLY","id":7}"#).ends_with("\"id\":7}"));
    }

    #[test]
    fn depth_is_one_stream_at_every_speed_and_partial_depth_is_another() {
        assert_eq!(stream_key("btcusdt@depth@0ms"), "btcusdt@depth");
        assert_eq!(stream_key("btcusdt@depth"), "btcusdt@depth");
        assert_eq!(stream_key("btcusdt@depth20@100ms"), "btcusdt@depth20@100ms");
    }
}
