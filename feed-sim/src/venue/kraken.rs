//! Kraken's words (WebSocket version 2): its messages and a client's requests → values, and values →
//! its acknowledgements and snapshots.
//!
//! Called by the truth and the replay. Numbers are carried as the venue wrote them, since its
//! checksum counts trailing zeros.

use std::borrow::Cow;
use std::fmt::Write;

use serde::Deserialize;
use serde_json::value::RawValue;
use tickfan_core::market::Side;

use crate::clock::rfc3339;
use crate::truth::{TruthBook, TruthLevel};

/// The depth of a book when a client names none.
pub(crate) const DEPTH_DEFAULT: usize = 10;

/// Symbols that one request may name.
const SYMBOLS_MAX: usize = 1024;

/// What a recorded message is.
#[derive(Debug)]
pub(crate) enum Recorded<'a> {
    /// The venue acknowledged a subscription to a book.
    Subscribed {
        /// Of this symbol.
        symbol: Cow<'a, str>,
        /// At this depth.
        depth: usize,
    },
    /// A book or its change.
    Book(BookMessage<'a>),
    /// Another channel: `trade`, `ticker`, `heartbeat` …
    Other {
        /// Which.
        channel: &'a str,
        /// Of which symbol, if of one.
        symbol: Option<Cow<'a, str>>,
    },
}

/// A book or its change.
#[derive(Debug)]
pub(crate) struct BookMessage<'a> {
    /// The levels are the whole book.
    pub(crate) is_snapshot: bool,
    /// Of which symbol.
    pub(crate) symbol: Cow<'a, str>,
    /// Price and quantity of the bids.
    pub(crate) bids: Vec<(&'a str, &'a str)>,
    /// Price and quantity of the asks.
    pub(crate) asks: Vec<(&'a str, &'a str)>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(default)]
    channel: Option<&'a str>,
    #[serde(default, rename = "type")]
    kind: Option<&'a str>,
    #[serde(default)]
    method: Option<&'a str>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    result: Option<Acknowledged<'a>>,
}

#[derive(Deserialize)]
struct Acknowledged<'a> {
    channel: &'a str,
    #[serde(borrow, default)]
    symbol: Option<Cow<'a, str>>,
    #[serde(default)]
    depth: Option<usize>,
}

#[derive(Deserialize)]
struct Subject<'a> {
    #[serde(borrow, default)]
    symbol: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Book<'a> {
    #[serde(borrow)]
    symbol: Cow<'a, str>,
    #[serde(borrow, default)]
    bids: Vec<Level<'a>>,
    #[serde(borrow, default)]
    asks: Vec<Level<'a>>,
}

#[derive(Deserialize)]
struct Level<'a> {
    #[serde(borrow)]
    price: &'a RawValue,
    #[serde(borrow)]
    qty: &'a RawValue,
}

impl<'a> Recorded<'a> {
    /// What `text` is; `None` for what concerns one connection only.
    pub(crate) fn read(text: &'a str) -> Option<Self> {
        let message: Message<'a> = serde_json::from_str(text).ok()?;
        if message.method == Some("subscribe") {
            let result = message.result.filter(|result| result.channel == "book")?;
            return Some(Self::Subscribed { symbol: result.symbol?, depth: result.depth? });
        }
        let channel = message.channel.filter(|channel| *channel != "status")?;
        if channel == "book" {
            let data: [Book<'a>; 1] = serde_json::from_str(message.data?.get()).ok()?;
            let [book] = data;
            let literals = |levels: Vec<Level<'a>>| {
                levels.into_iter().map(|l| (l.price.get(), l.qty.get())).collect()
            };
            return Some(Self::Book(BookMessage {
                is_snapshot: message.kind == Some("snapshot"),
                symbol: book.symbol,
                bids: literals(book.bids),
                asks: literals(book.asks),
            }));
        }
        let subjects: Option<Vec<Subject<'a>>> =
            message.data.and_then(|data| serde_json::from_str(data.get()).ok());
        let symbol = subjects.and_then(|list| list.into_iter().next()?.symbol);
        Some(Self::Other { channel, symbol })
    }
}

/// A request of a client, or the reply to what is none.
pub(crate) enum Request {
    /// `subscribe` or `unsubscribe`.
    Subscription(Subscription),
    /// This reply is all.
    Reply(String),
}

/// A request to begin or end subscriptions.
pub(crate) struct Subscription {
    /// It begins them.
    pub(crate) begins: bool,
    /// The channel.
    pub(crate) channel: String,
    /// The symbols.
    pub(crate) symbols: Vec<String>,
    /// The depth of the book.
    pub(crate) depth: usize,
    /// A snapshot is wanted.
    pub(crate) snapshot: bool,
    req_id: Option<u64>,
}

#[derive(Deserialize)]
struct Call {
    method: String,
    #[serde(default)]
    params: Option<Params>,
    #[serde(default)]
    req_id: Option<u64>,
}

#[derive(Deserialize)]
struct Params {
    channel: String,
    #[serde(default)]
    symbol: Vec<String>,
    #[serde(default)]
    depth: Option<usize>,
    #[serde(default)]
    snapshot: Option<bool>,
}

impl Request {
    /// Reads one message of a client at the time `at_ns`.
    pub(crate) fn read(text: &str, at_ns: u64) -> Self {
        let Ok(call) = serde_json::from_str::<Call>(text) else {
            return Self::Reply(failure(None, "Malformed request", None, at_ns));
        };
        match (call.method.as_str(), call.params) {
            ("ping", _) => Self::Reply(format!(
                r#"{{"method":"pong"{},{}}}"#,
                req_id_field(call.req_id),
                times(at_ns)
            )),
            (method @ ("subscribe" | "unsubscribe"), Some(params))
                if params.symbol.len() <= SYMBOLS_MAX =>
            {
                Self::Subscription(Subscription {
                    begins: method == "subscribe",
                    channel: params.channel,
                    symbols: params.symbol,
                    depth: params.depth.unwrap_or(DEPTH_DEFAULT),
                    snapshot: params.snapshot.unwrap_or(true),
                    req_id: call.req_id,
                })
            }
            (method, _) => {
                Self::Reply(failure(Some(method), "Malformed request", call.req_id, at_ns))
            }
        }
    }
}

impl Subscription {
    /// The acknowledgement for one symbol.
    pub(crate) fn acknowledge(&self, symbol: &str, at_ns: u64) -> String {
        let method = self.method();
        let mut result = format!(r#""channel":{}"#, quoted(&self.channel));
        // Writing to a string cannot fail.
        if self.channel == "book" {
            let _ = write!(result, r#","depth":{}"#, self.depth);
        }
        if self.begins {
            let _ = write!(result, r#","snapshot":{}"#, self.snapshot);
        }
        let _ = write!(result, r#","symbol":{}"#, quoted(symbol));
        format!(
            r#"{{"method":"{method}","result":{{{result}}},"success":true,{}{}}}"#,
            times(at_ns),
            req_id_field(self.req_id)
        )
    }

    /// The refusal for one symbol, or of all.
    pub(crate) fn refuse(&self, reason: &str, at_ns: u64) -> String {
        failure(Some(self.method()), reason, self.req_id, at_ns)
    }

    const fn method(&self) -> &'static str {
        if self.begins { "subscribe" } else { "unsubscribe" }
    }
}

fn failure(method: Option<&str>, reason: &str, req_id: Option<u64>, at_ns: u64) -> String {
    let method = method.map_or(String::new(), |m| format!(r#""method":{},"#, quoted(m)));
    format!(
        r#"{{"error":{},{method}"success":false,{}{}}}"#,
        quoted(reason),
        times(at_ns),
        req_id_field(req_id)
    )
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn times(at_ns: u64) -> String {
    let at = rfc3339(at_ns);
    format!(r#""time_in":"{at}","time_out":"{at}""#)
}

fn req_id_field(req_id: Option<u64>) -> String {
    req_id.map_or(String::new(), |id| format!(r#","req_id":{id}"#))
}

/// What the venue says when a connection opens.
pub(crate) fn status(connection: u64) -> String {
    format!(
        r#"{{"channel":"status","type":"update","data":[{{"version":"2.0.0","system":"online","api_version":"v2","connection_id":{connection}}}]}}"#
    )
}

/// A whole book to the depth asked for.
pub(crate) fn snapshot(symbol: &str, book: &TruthBook, depth: usize, at_ns: u64) -> String {
    let top = |side| book.levels(side).take(depth).cloned().collect();
    book_message("snapshot", symbol, &top(Side::Bid), &top(Side::Ask), book, at_ns)
}

/// The best levels of a book, before a change of it.
pub(crate) struct Top {
    depth: usize,
    bids: Vec<TruthLevel>,
    asks: Vec<TruthLevel>,
}

impl Top {
    /// The `depth` best levels of `book`.
    pub(crate) fn of(book: &TruthBook, depth: usize) -> Self {
        let top = |side| book.levels(side).take(depth).cloned().collect();
        Self { depth, bids: top(Side::Bid), asks: top(Side::Ask) }
    }

    /// The update that a subscriber at this depth gets when the book has become `book`, if any: the
    /// levels that came or changed, and those that were deleted, but none for those pushed out.
    pub(crate) fn update(&self, symbol: &str, book: &TruthBook, at_ns: u64) -> Option<String> {
        let changes = |side, before: &[TruthLevel]| -> Vec<TruthLevel> {
            let after: Vec<&TruthLevel> = book.levels(side).take(self.depth).collect();
            let deleted = before
                .iter()
                .filter(|old| !book.levels(side).any(|level| level.px == old.px))
                .map(|old| TruthLevel { px: old.px.clone(), qty: "0.00000000".into() });
            let changed = after.into_iter().filter(|new| !before.contains(new)).cloned();
            deleted.chain(changed).collect()
        };
        let bids = changes(Side::Bid, &self.bids);
        let asks = changes(Side::Ask, &self.asks);
        if bids.is_empty() && asks.is_empty() {
            return None;
        }
        Some(book_message("update", symbol, &bids, &asks, book, at_ns))
    }
}

fn book_message(
    kind: &str,
    symbol: &str,
    bids: &Vec<TruthLevel>,
    asks: &Vec<TruthLevel>,
    book: &TruthBook,
    at_ns: u64,
) -> String {
    let list = |levels: &Vec<TruthLevel>| {
        let texts: Vec<String> = levels
            .iter()
            .map(|level| format!(r#"{{"price":{},"qty":{}}}"#, level.px, level.qty))
            .collect();
        texts.join(",")
    };
    format!(
        r#"{{"channel":"book","type":"{kind}","data":[{{"symbol":{},"bids":[{}],"asks":[{}],"checksum":{},"timestamp":"{}"}}]}}"#,
        quoted(symbol),
        list(bids),
        list(asks),
        checksum(book),
        rfc3339(at_ns)
    )
}

/// The venue's checksum: CRC-32 over the 10 best asks, then the 10 best bids, each price and
/// quantity without its point and leading zeros.
pub(crate) fn checksum(book: &TruthBook) -> u32 {
    let mut text = String::new();
    for side in [Side::Ask, Side::Bid] {
        for level in book.levels(side).take(10) {
            for number in [&level.px, &level.qty] {
                let digits: String = number.chars().filter(|c| *c != '.').collect();
                text.push_str(digits.trim_start_matches('0'));
            }
        }
    }
    crc32fast::hash(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The worked example of the venue's documentation.
    #[test]
    fn the_checksum_is_the_venue_s() {
        let mut book = TruthBook::default();
        for (px, qty) in [
            ("45285.2", "0.00100000"),
            ("45286.4", "1.54571953"),
            ("45286.6", "1.54571109"),
            ("45289.6", "1.54560911"),
            ("45290.2", "0.15890660"),
            ("45291.8", "1.54553491"),
            ("45294.7", "0.04454749"),
            ("45296.1", "0.35380000"),
            ("45297.5", "0.09945542"),
            ("45299.5", "0.18772827"),
        ] {
            book.set(Side::Ask, px, qty);
        }
        for (px, qty) in [
            ("45283.5", "0.10000000"),
            ("45283.4", "1.54582015"),
            ("45282.1", "0.10000000"),
            ("45281.0", "0.10000000"),
            ("45280.3", "1.54592586"),
            ("45279.0", "0.07990000"),
            ("45277.6", "0.03310103"),
            ("45277.5", "0.30000000"),
            ("45277.3", "1.54602737"),
            ("45276.6", "0.15445238"),
        ] {
            book.set(Side::Bid, px, qty);
        }
        assert_eq!(checksum(&book), 3_310_070_434);
    }

    #[test]
    fn an_acknowledgement_names_what_was_asked() {
        let text = r#"{"method":"subscribe","params":{"channel":"book","symbol":["BTC/USD"],"depth":1000},"req_id":7}"#;
        let Request::Subscription(request) = Request::read(text, 0) else {
            panic!("a subscription");
        };
        assert_eq!(
            request.acknowledge("BTC/USD", 0),
            r#"{"method":"subscribe","result":{"channel":"book","depth":1000,"snapshot":true,"symbol":"BTC/USD"},"success":true,"time_in":"1970-01-01T00:00:00.000000Z","time_out":"1970-01-01T00:00:00.000000Z","req_id":7}"#
        );
        assert!(matches!(Request::read("{", 0), Request::Reply(text) if text.contains("false")));
    }

    #[test]
    fn a_shallow_subscriber_is_told_what_comes_up_but_not_what_is_pushed_out() {
        let mut book = TruthBook::default();
        for (px, qty) in [("10.0", "1.0"), ("9.0", "1.0"), ("8.0", "1.0")] {
            book.set(Side::Bid, px, qty);
        }
        let top = Top::of(&book, 2);
        book.set(Side::Bid, "8.0", "2.0");
        assert!(top.update("BTC/USD", &book, 0).is_none(), "below its depth");
        book.set(Side::Bid, "10.0", "0");
        let update = top.update("BTC/USD", &book, 0).unwrap();
        let deleted_and_risen =
            r#""bids":[{"price":10.0,"qty":0.00000000},{"price":8.0,"qty":2.0}]"#;
        assert!(update.contains(deleted_and_risen), "{update}");
        let top = Top::of(&book, 2);
        book.set(Side::Bid, "11.0", "1.0");
        let update = top.update("BTC/USD", &book, 0).unwrap();
        assert!(update.contains(r#""bids":[{"price":11.0,"qty":1.0}]"#), "{update}");
    }
}
