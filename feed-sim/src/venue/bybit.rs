//! Bybit's words (version 5, spot and linear): its messages and a client's requests → values, and
//! values → its messages.
//!
//! Called by the truth and the replay. A stream is named by its topic, depth included: a recording has
//! books at one depth, and other depths are refused.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt::Write;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use tickfan_core::market::Side;

use crate::venue::{
    BookMessage, Levels, Message, Moment, Print, Recorded, STREAMS_MAX, best_levels, push_joined,
    push_pair, query_value, quoted, room_for,
};

/// Where the list of instruments is.
pub(crate) const INSTRUMENTS_PATH: &str = "/v5/market/instruments-info";

/// What the topics of books begin with.
const BOOK: &str = "orderbook.";

#[derive(Deserialize)]
struct Incoming<'a> {
    topic: &'a str,
    #[serde(rename = "type", default)]
    kind: &'a str,
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Deserialize)]
struct Book<'a> {
    #[serde(borrow)]
    b: Vec<(&'a str, &'a str)>,
    #[serde(borrow)]
    a: Vec<(&'a str, &'a str)>,
    u: u64,
    seq: u64,
}

/// Reads what was recorded.
#[derive(Debug)]
pub(crate) struct Reader;

impl super::Reader for Reader {
    fn read<'a>(&mut self, text: &'a str) -> Option<Recorded<'a>> {
        let message: Incoming<'a> = serde_json::from_str(text).ok()?;
        let symbol = symbol_of(message.topic)?;
        let book = if message.topic.starts_with(BOOK) {
            let book: Book<'a> = serde_json::from_str(message.data.get()).ok()?;
            Some(BookMessage {
                is_snapshot: message.kind == "snapshot",
                bids: book.b,
                asks: book.a,
                id: Some(book.u),
                order: Some(book.seq),
                cut_to: None,
            })
        } else {
            None
        };
        let (key, symbol) = (message.topic.to_owned(), Some(Cow::Borrowed(symbol)));
        Some(Recorded { key, symbol, book, inner: None })
    }
}

/// The symbol of a topic: its last part.
fn symbol_of(topic: &str) -> Option<&str> {
    Some(topic.rsplit_once('.')?.1)
}

#[derive(Deserialize)]
struct Call {
    op: String,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    req_id: Option<Id>,
}

/// A client's name of a request. It is a text by the venue's documents, but clients that count are
/// understood too.
#[derive(Deserialize)]
#[serde(untagged)]
enum Id {
    Text(String),
    Number(u64),
}

impl Call {
    /// The name of the request, as the venue says it back.
    fn id(&self) -> String {
        match &self.req_id {
            None => String::new(),
            Some(Id::Text(text)) => text.clone(),
            Some(Id::Number(number)) => number.to_string(),
        }
    }
}

/// One connection.
pub(crate) struct Session {
    /// The venue's name of it.
    connection: String,
    topics: BTreeSet<String>,
}

impl Session {
    /// A connection with this number.
    pub(crate) fn open(connection: u64) -> Self {
        Self { connection: format!("replay-{connection:08x}"), topics: BTreeSet::new() }
    }

    /// Why a topic cannot be subscribed to, if so. The venue then refuses the whole request.
    fn objection(&self, topic: &str, moment: &Moment<'_>) -> Option<String> {
        let is_listed = symbol_of(topic).is_some_and(|symbol| moment.listed.has_symbol(symbol));
        if !is_listed || (topic.starts_with(BOOK) && !moment.listed.has_key(topic)) {
            return Some(format!("error:handler not found,topic:{topic}"));
        }
        if self.topics.contains(topic) {
            return Some(format!("error:already subscribed,topic:{topic}"));
        }
        (self.topics.len() >= STREAMS_MAX).then(|| "error:too many topics".to_owned())
    }

    fn subscribe(&mut self, call: &Call, moment: &Moment<'_>) -> Vec<String> {
        let objection = call.args.iter().find_map(|topic| self.objection(topic, moment));
        if let Some(reason) = objection {
            return vec![answer(&call.op, Err(&reason), &self.connection, &call.id())];
        }
        let mut replies = vec![acknowledge(&call.op, &self.connection, &call.id())];
        for topic in &call.args {
            self.topics.insert(topic.clone());
            replies.extend(fresh(topic, moment));
        }
        replies
    }
}

/// The book of a topic as it is, under the numbers of its newest change.
fn fresh(topic: &str, moment: &Moment<'_>) -> Option<String> {
    let (depth, symbol) = topic.strip_prefix(BOOK)?.split_once('.')?;
    let book = moment.book(symbol)?;
    let [bids, asks] = [Side::Bid, Side::Ask].map(|side| best_levels(&book, side, usize::MAX));
    let levels = Levels { symbol, bids: &bids, asks: &asks, at_ns: moment.at_ns };
    let (u, seq) = (book.id().unwrap_or(0), book.order().unwrap_or(0));
    Some(snapshot(depth.parse().ok()?, &levels, u, seq))
}

impl super::Session for Session {
    fn hear(&mut self, text: &str, moment: &Moment<'_>) -> Vec<String> {
        let Ok(call) = serde_json::from_str::<Call>(text) else {
            return vec![answer("", Err("error:malformed request"), &self.connection, "")];
        };
        match call.op.as_str() {
            "ping" => vec![heartbeat(&self.connection, &call.id())],
            "subscribe" => self.subscribe(&call, moment),
            "unsubscribe" => {
                for topic in &call.args {
                    self.topics.remove(topic);
                }
                vec![acknowledge(&call.op, &self.connection, &call.id())]
            }
            op => vec![answer(op, Err("error:unknown op"), &self.connection, &call.id())],
        }
    }

    fn has(&self, key: &str) -> bool {
        self.topics.contains(key)
    }

    fn subscriptions(&self) -> usize {
        self.topics.len()
    }

    fn tell(&mut self, message: &Message, _moment: &Moment<'_>) -> Option<Bytes> {
        Some(message.payload.clone())
    }
}

/// A request (`subscribe`, `unsubscribe`) is obeyed.
pub fn acknowledge(op: &str, connection: &str, req_id: &str) -> String {
    answer(op, Ok(""), connection, req_id)
}

/// The answer to `ping`.
pub fn heartbeat(connection: &str, req_id: &str) -> String {
    answer("ping", Ok("pong"), connection, req_id)
}

fn answer(op: &str, said: Result<&str, &str>, connection: &str, req_id: &str) -> String {
    let (is_obeyed, message) = match said {
        Ok(message) => (true, message),
        Err(message) => (false, message),
    };
    format!(
        r#"{{"success":{is_obeyed},"ret_msg":{},"conn_id":"{connection}","req_id":{},"op":{}}}"#,
        quoted(message),
        quoted(req_id),
        quoted(op)
    )
}

/// A whole book at a depth: its number and its place among all topics.
pub fn snapshot(depth: usize, levels: &Levels<'_>, u: u64, seq: u64) -> String {
    book_message("snapshot", depth, levels, u, seq)
}

/// A change of a book at a depth: its number and its place among all topics.
pub fn update(depth: usize, levels: &Levels<'_>, u: u64, seq: u64) -> String {
    book_message("delta", depth, levels, u, seq)
}

fn book_message(kind: &str, depth: usize, levels: &Levels<'_>, u: u64, seq: u64) -> String {
    let (symbol, at_ms) = (levels.symbol, levels.at_ns / 1_000_000);
    let mut out = room_for(levels);
    // Writing to a string cannot fail.
    let _ = write!(
        out,
        r#"{{"topic":"{BOOK}{depth}.{symbol}","type":"{kind}","ts":{at_ms},"data":{{"s":"{symbol}","b":["#
    );
    push_joined(&mut out, levels.bids, push_pair);
    out.push_str(r#"],"a":["#);
    push_joined(&mut out, levels.asks, push_pair);
    let _ = write!(out, r#"],"u":{u},"seq":{seq}}},"cts":{at_ms}}}"#);
    out
}

/// A trade, and its place among all topics. The venue's ids are opaque.
pub fn trade(print: &Print<'_>, seq: u64) -> String {
    let at_ms = print.at_ns / 1_000_000;
    format!(
        r#"{{"topic":"publicTrade.{symbol}","type":"snapshot","ts":{at_ms},"data":[{{"T":{at_ms},"s":"{symbol}","S":"{}","v":"{}","p":"{}","L":"ZeroPlusTick","i":"00000000-0000-5000-8000-{:012x}","BT":false,"RPI":false,"seq":{seq}}}]}}"#,
        if print.buyer_took { "Buy" } else { "Sell" },
        print.qty,
        print.px,
        print.id,
        symbol = print.symbol,
    )
}

/// The body of the list of instruments of a category; other categories are asked for too, and
/// instruments of one status.
pub(crate) fn instruments(own: &str, query: &str, listings: &[String]) -> String {
    #[derive(Deserialize)]
    struct Typed<'a> {
        status: &'a str,
    }
    let category = query_value(query, "category").unwrap_or(own);
    let wanted = query_value(query, "status");
    let is_wanted = |listing: &&String| {
        let typed: Option<Typed<'_>> = serde_json::from_str(listing).ok();
        let has_status = |wanted| typed.is_some_and(|typed| typed.status == wanted);
        category == own && wanted.is_none_or(has_status)
    };
    let listed: Vec<&str> = listings.iter().filter(is_wanted).map(String::as_str).collect();
    let list = listed.join(",");
    result(&format!(r#""category":"{category}","list":[{list}],"nextPageCursor":"""#), 0)
}

/// The body for any other path.
pub(crate) fn other(path: &str, at_ns: u64) -> String {
    if path.ends_with("/market/time") {
        let (seconds, nanos) = (at_ns / 1_000_000_000, at_ns);
        let time = format!(r#""timeSecond":"{seconds}","timeNano":"{nanos}""#);
        return result(&time, at_ns / 1_000_000);
    }
    result(r#""list":[],"nextPageCursor":"""#, at_ns / 1_000_000)
}

fn result(fields: &str, at_ms: u64) -> String {
    format!(
        r#"{{"retCode":0,"retMsg":"OK","result":{{{fields}}},"retExtInfo":{{}},"time":{at_ms}}}"#
    )
}
