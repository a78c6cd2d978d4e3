//! Kraken's words (WebSocket version 2): its messages and a client's requests → values, and values →
//! its acknowledgements and snapshots.
//!
//! Called by the truth and the replay. Numbers are carried as the venue wrote them, since its
//! checksum counts trailing zeros.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use tickfan_core::market::Side;

use crate::clock::rfc3339;
use crate::truth::{TruthBook, TruthLevel};
use crate::venue::{
    BookMessage, Levels, Message, Moment, Print, Recorded, STREAMS_MAX, best_levels, joined, quoted,
};

/// The depth of a book when a client names none.
const DEPTH_DEFAULT: usize = 10;

/// Levels of a side that the checksum covers.
pub(crate) const CHECKSUM_LEVELS: usize = 10;

/// Symbols that one request may name.
const SYMBOLS_MAX: usize = 1024;

/// The key of what every connection with a subscription is sent.
const HEARTBEAT_KEY: &str = "heartbeat ";

fn key(channel: &str, symbol: &str) -> String {
    format!("{channel} {symbol}")
}

/// Reads what was recorded; learns the depths of books from acknowledgements.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    depths: HashMap<String, usize>,
}

#[derive(Deserialize)]
struct Incoming<'a> {
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

impl super::Reader for Reader {
    fn read<'a>(&mut self, text: &'a str) -> Option<Recorded<'a>> {
        let message: Incoming<'a> = serde_json::from_str(text).ok()?;
        if message.method == Some("subscribe") {
            let result = message.result.filter(|result| result.channel == "book")?;
            self.depths.insert(result.symbol?.into_owned(), result.depth?);
            return None;
        }
        let channel = message.channel.filter(|channel| *channel != "status")?;
        if channel == "book" {
            let data: [Book<'a>; 1] = serde_json::from_str(message.data?.get()).ok()?;
            let [book] = data;
            let literals = |levels: Vec<Level<'a>>| {
                levels.into_iter().map(|l| (l.price.get(), l.qty.get())).collect()
            };
            let depth = self.depths.get(&*book.symbol).copied().unwrap_or(DEPTH_DEFAULT);
            let read = BookMessage {
                is_snapshot: message.kind == Some("snapshot"),
                bids: literals(book.bids),
                asks: literals(book.asks),
                cut_to: Some(depth),
                ..BookMessage::default()
            };
            let key = key("book", &book.symbol);
            return Some(Recorded {
                key,
                symbol: Some(book.symbol),
                book: Some(read),
                inner: None,
            });
        }
        let subjects: Option<Vec<Subject<'a>>> =
            message.data.and_then(|data| serde_json::from_str(data.get()).ok());
        let symbol = subjects.and_then(|list| list.into_iter().next()?.symbol);
        let key = key(channel, symbol.as_deref().unwrap_or_default());
        Some(Recorded { key, symbol, book: None, inner: None })
    }
}

/// One connection.
pub(crate) struct Session {
    connection: u64,
    /// By key.
    streams: BTreeMap<String, Stream>,
}

/// A subscription to a channel of a symbol.
struct Stream {
    symbol: String,
    /// 0 for what has none.
    depth: usize,
    /// Of a book that is shallower than the recorded one: what the client holds, once it has it.
    top: Option<Top>,
}

impl Session {
    /// A connection with this number.
    pub(crate) const fn open(connection: u64) -> Self {
        Self { connection, streams: BTreeMap::new() }
    }

    fn obey(&mut self, request: &Subscription, symbol: &str, moment: &Moment<'_>) -> Vec<String> {
        let key = key(&request.channel, symbol);
        let obeyed = if request.begins {
            self.begin(request, symbol, &key, moment)
        } else {
            self.streams.remove(&key).map(drop).ok_or("Subscription not found")
        };
        if let Err(reason) = obeyed {
            return vec![request.refuse(&format!("{reason} {symbol}"), moment.at_ns)];
        }
        let mut replies = vec![request.acknowledge(symbol, moment.at_ns)];
        let is_book = request.begins && request.channel == "book";
        if let (true, Some(book)) = (is_book, moment.book(symbol)) {
            if request.snapshot {
                replies.push(book_snapshot(symbol, &book, request.depth, moment.at_ns));
            }
            self.refresh(&key, moment);
        }
        replies
    }

    fn begin(
        &mut self,
        request: &Subscription,
        symbol: &str,
        key: &str,
        moment: &Moment<'_>,
    ) -> Result<(), &'static str> {
        if !moment.listed.has_symbol(symbol) {
            return Err("Currency pair not supported");
        }
        let is_book = request.channel == "book";
        if is_book && !(1..=moment.listed.depth(symbol)).contains(&request.depth) {
            return Err("Depth not supported");
        }
        if self.streams.contains_key(key) {
            return Err("Already subscribed");
        }
        if self.streams.len() >= STREAMS_MAX {
            return Err("Too many subscriptions");
        }
        let depth = if is_book { request.depth } else { 0 };
        self.streams.insert(key.to_owned(), Stream { symbol: symbol.to_owned(), depth, top: None });
        Ok(())
    }

    /// Takes down what a client of a shallow book holds, or is taken to hold.
    fn refresh(&mut self, key: &str, moment: &Moment<'_>) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        let is_shallow = stream.depth < moment.listed.depth(&stream.symbol);
        if let (true, Some(book)) = (is_shallow, moment.book(&stream.symbol)) {
            stream.top = Some(Top::of(&book, stream.depth));
        }
    }
}

impl super::Session for Session {
    fn greeting(&self) -> Option<String> {
        Some(status(self.connection))
    }

    fn hear(&mut self, text: &str, moment: &Moment<'_>) -> Vec<String> {
        match Request::read(text, moment.at_ns) {
            Request::Reply(reply) => vec![reply],
            Request::Subscription(request) => request
                .symbols
                .iter()
                .flat_map(|symbol| self.obey(&request, symbol, moment))
                .collect(),
        }
    }

    fn has(&self, key: &str) -> bool {
        match key {
            HEARTBEAT_KEY => !self.streams.is_empty(),
            _ => self.streams.contains_key(key),
        }
    }

    fn subscriptions(&self) -> usize {
        self.streams.len()
    }

    fn tell(&mut self, message: &Message, moment: &Moment<'_>) -> Option<Bytes> {
        let verbatim = Some(message.payload.clone());
        let Some(stream) = self.streams.get(&message.key) else { return verbatim };
        let is_shallow = stream.depth < moment.listed.depth(&stream.symbol);
        if !message.is_book || !is_shallow {
            return verbatim;
        }
        let book = moment.book(&stream.symbol)?;
        let text = match &stream.top {
            Some(top) => top.update(&stream.symbol, &book, moment.at_ns),
            None => Some(book_snapshot(&stream.symbol, &book, stream.depth, moment.at_ns)),
        };
        self.refresh(&message.key, moment);
        text.map(Bytes::from)
    }

    fn lose(&mut self, message: &Message, moment: &Moment<'_>) {
        if message.is_book {
            self.refresh(&message.key, moment);
        }
    }
}

/// A request of a client, or the reply to what is none.
enum Request {
    /// `subscribe` or `unsubscribe`.
    Subscription(Subscription),
    /// This reply is all.
    Reply(String),
}

/// A request to begin or end subscriptions.
struct Subscription {
    /// It begins them.
    begins: bool,
    /// The channel.
    channel: String,
    /// The symbols.
    symbols: Vec<String>,
    /// The depth of the book.
    depth: usize,
    /// A snapshot is wanted.
    snapshot: bool,
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
    fn read(text: &str, at_ns: u64) -> Self {
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
    fn acknowledge(&self, symbol: &str, at_ns: u64) -> String {
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
    fn refuse(&self, reason: &str, at_ns: u64) -> String {
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

fn times(at_ns: u64) -> String {
    let at = rfc3339(at_ns);
    format!(r#""time_in":"{at}","time_out":"{at}""#)
}

fn req_id_field(req_id: Option<u64>) -> String {
    req_id.map_or(String::new(), |id| format!(r#","req_id":{id}"#))
}

/// What the venue says when a connection opens.
fn status(connection: u64) -> String {
    format!(
        r#"{{"channel":"status","type":"update","data":[{{"version":"2.0.0","system":"online","api_version":"v2","connection_id":{connection}}}]}}"#
    )
}

fn book_snapshot(symbol: &str, book: &TruthBook, depth: usize, at_ns: u64) -> String {
    let [bids, asks] = [Side::Bid, Side::Ask].map(|side| best_levels(book, side, depth));
    snapshot(&Levels { symbol, bids: &bids, asks: &asks, at_ns }, checksum(book))
}

/// The best levels of a book, before a change of it.
struct Top {
    depth: usize,
    bids: Vec<TruthLevel>,
    asks: Vec<TruthLevel>,
}

impl Top {
    /// The `depth` best levels of `book`.
    fn of(book: &TruthBook, depth: usize) -> Self {
        let top = |side| best_levels(book, side, depth);
        Self { depth, bids: top(Side::Bid), asks: top(Side::Ask) }
    }

    /// The update that a subscriber at this depth gets when the book has become `book`, if any: the
    /// levels that came or changed, and those that were deleted, but none for those pushed out.
    fn update(&self, symbol: &str, book: &TruthBook, at_ns: u64) -> Option<String> {
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
        Some(update(&Levels { symbol, bids: &bids, asks: &asks, at_ns }, checksum(book)))
    }
}

/// A whole book, and what it hashes to.
pub fn snapshot(levels: &Levels<'_>, checksum: u32) -> String {
    book_message("snapshot", levels, checksum)
}

/// A change of a book, and what the book hashes to after it.
pub fn update(levels: &Levels<'_>, checksum: u32) -> String {
    book_message("update", levels, checksum)
}

fn book_message(kind: &str, levels: &Levels<'_>, checksum: u32) -> String {
    let list = |levels: &[TruthLevel]| {
        joined(levels, |out, level| {
            out.extend([r#"{"price":"#, &level.px, r#","qty":"#, &level.qty, "}"]);
        })
    };
    format!(
        r#"{{"channel":"book","type":"{kind}","data":[{{"symbol":{},"bids":[{}],"asks":[{}],"checksum":{checksum},"timestamp":"{}"}}]}}"#,
        quoted(levels.symbol),
        list(levels.bids),
        list(levels.asks),
        rfc3339(levels.at_ns)
    )
}

/// A trade.
pub fn trade(print: &Print<'_>) -> String {
    format!(
        r#"{{"channel":"trade","type":"update","data":[{{"symbol":{},"side":"{}","price":{},"qty":{},"ord_type":"limit","trade_id":{},"timestamp":"{}"}}]}}"#,
        quoted(print.symbol),
        if print.buyer_took { "buy" } else { "sell" },
        print.px,
        print.qty,
        print.id,
        rfc3339(print.at_ns)
    )
}

/// What is sent about once a second when nothing else is.
pub fn heartbeat() -> String {
    r#"{"channel":"heartbeat"}"#.to_owned()
}

/// The venue's checksum: CRC-32 over the 10 best asks, then the 10 best bids, each price and
/// quantity without its point and leading zeros.
pub fn checksum(book: &TruthBook) -> u32 {
    let [bids, asks] = [Side::Bid, Side::Ask].map(|side| best_levels(book, side, CHECKSUM_LEVELS));
    checksum_of(&bids, &asks)
}

/// The same of the best levels of both sides.
pub fn checksum_of(bids: &[TruthLevel], asks: &[TruthLevel]) -> u32 {
    let best = |levels: &'_ [TruthLevel]| levels.len().min(CHECKSUM_LEVELS);
    let mut text = String::with_capacity(CHECKSUM_LEVELS * 40);
    for level in asks[..best(asks)].iter().chain(&bids[..best(bids)]) {
        for number in [&level.px, &level.qty] {
            let digits = number.trim_start_matches(['0', '.']);
            let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
            text.extend([whole, fraction]);
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
