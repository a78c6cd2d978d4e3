//! OKX's words (version 5): its messages and a client's requests → values, and values → its messages.
//!
//! Called by the truth and the replay. Numbers are carried as the venue wrote them, since its
//! checksum is over the texts. A recording of 2022 numbers its books by time alone.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tickfan_core::market::Side;

use crate::truth::{TruthBook, TruthLevel};
use crate::venue::{
    BookMessage, Levels, Message, Moment, Print, Recorded, STREAMS_MAX, best_levels, push_joined,
    query_value, quoted, room_for,
};

/// Where the list of instruments is.
pub(crate) const INSTRUMENTS_PATH: &str = "/api/v5/public/instruments";

/// Levels of a side that the checksum covers.
pub(crate) const CHECKSUM_LEVELS: usize = 25;

#[derive(Deserialize)]
struct Incoming<'a> {
    #[serde(borrow)]
    arg: Subject<'a>,
    #[serde(default)]
    action: Option<&'a str>,
    #[serde(borrow)]
    data: Vec<Data<'a>>,
}

#[derive(Deserialize)]
struct Subject<'a> {
    channel: &'a str,
    #[serde(rename = "instId", borrow)]
    instrument: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Data<'a> {
    #[serde(borrow, default)]
    asks: Vec<Vec<&'a str>>,
    #[serde(borrow, default)]
    bids: Vec<Vec<&'a str>>,
    #[serde(default)]
    ts: &'a str,
    #[serde(rename = "seqId", default)]
    sequence: Option<u64>,
}

/// Reads what was recorded.
#[derive(Debug)]
pub(crate) struct Reader;

impl super::Reader for Reader {
    fn read<'a>(&mut self, text: &'a str) -> Option<Recorded<'a>> {
        // An acknowledgement has no data, and the answer to a ping is no JSON.
        let message: Incoming<'a> = serde_json::from_str(text).ok()?;
        let Subject { channel, instrument } = message.arg;
        let book = match channel {
            "books" => {
                let data = message.data.into_iter().next()?;
                let levels = |levels: Vec<Vec<&'a str>>| {
                    let level = |level: Vec<&'a str>| Some((*level.first()?, *level.get(1)?));
                    levels.into_iter().filter_map(level).collect()
                };
                Some(BookMessage {
                    is_snapshot: message.action == Some("snapshot"),
                    bids: levels(data.bids),
                    asks: levels(data.asks),
                    id: data.sequence.or(data.ts.parse().ok()),
                    order: data.sequence,
                    cut_to: None,
                })
            }
            _ => None,
        };
        let key = key(channel, &instrument);
        Some(Recorded { key, symbol: Some(instrument), book, inner: None })
    }
}

fn key(channel: &str, instrument: &str) -> String {
    format!("{channel} {instrument}")
}

#[derive(Deserialize)]
struct Call {
    op: String,
    #[serde(default)]
    args: Vec<Argument>,
    #[serde(default)]
    id: Option<String>,
}

/// A channel of an instrument.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Argument {
    /// The channel.
    pub channel: String,
    /// The instrument.
    #[serde(rename = "instId", default)]
    pub instrument: String,
}

/// One connection.
pub(crate) struct Session {
    /// The venue's name of it.
    connection: String,
    /// By key.
    streams: BTreeMap<String, Argument>,
}

impl Session {
    /// A connection with this number.
    pub(crate) fn open(connection: u64) -> Self {
        Self { connection: format!("{connection:08x}"), streams: BTreeMap::new() }
    }

    fn refuse(&self, code: &str, reason: &str) -> String {
        format!(
            r#"{{"event":"error","code":"{code}","msg":{},"connId":"{}"}}"#,
            quoted(reason),
            self.connection
        )
    }

    fn subscribe(
        &mut self,
        argument: Argument,
        id: Option<&str>,
        moment: &Moment<'_>,
    ) -> Vec<String> {
        let Argument { channel, instrument } = &argument;
        if !moment.listed.has_symbol(instrument) {
            let reason = format!(
                "Wrong URL or channel:{channel},instId:{instrument} doesn't exist. Please use the \
                 correct URL, channel and parameters referring to API document."
            );
            return vec![self.refuse("60018", &reason)];
        }
        if self.streams.len() >= STREAMS_MAX {
            return vec![self.refuse("60012", "Too many subscriptions")];
        }
        let mut replies = vec![acknowledge("subscribe", &argument, &self.connection, id)];
        let key = key(channel, instrument);
        let is_book = channel == "books" && !self.streams.contains_key(&key);
        if let Some(book) = moment.book(instrument).filter(|_| is_book) {
            replies.push(fresh(instrument, &book, moment.at_ns));
        }
        self.streams.insert(key, argument);
        replies
    }
}

/// The book as it is, under the numbers and the time of its newest message.
fn fresh(instrument: &str, book: &TruthBook, at_ns: u64) -> String {
    let [bids, asks] = [Side::Bid, Side::Ask].map(|side| best_levels(book, side, usize::MAX));
    let at_ns = match book.order() {
        Some(_) => at_ns,
        None => book.id().map_or(at_ns, |at_ms| at_ms * 1_000_000),
    };
    let levels = Levels { symbol: instrument, bids: &bids, asks: &asks, at_ns };
    snapshot(&levels, checksum(book), book.order())
}

impl super::Session for Session {
    fn hear(&mut self, text: &str, moment: &Moment<'_>) -> Vec<String> {
        if text == "ping" {
            return vec![heartbeat()];
        }
        let Ok(call) = serde_json::from_str::<Call>(text) else {
            return vec![self.refuse("60012", &format!("Invalid request: {text}"))];
        };
        let id = call.id.as_deref();
        match call.op.as_str() {
            "subscribe" => {
                let arguments = call.args.into_iter();
                arguments.flat_map(|argument| self.subscribe(argument, id, moment)).collect()
            }
            "unsubscribe" => {
                let end = |argument: Argument| {
                    self.streams.remove(&key(&argument.channel, &argument.instrument));
                    acknowledge("unsubscribe", &argument, &self.connection, id)
                };
                call.args.into_iter().map(end).collect()
            }
            _ => vec![self.refuse("60012", &format!("Invalid request: {text}"))],
        }
    }

    fn has(&self, key: &str) -> bool {
        self.streams.contains_key(key)
    }

    fn subscriptions(&self) -> usize {
        self.streams.len()
    }

    fn tell(&mut self, message: &Message, _moment: &Moment<'_>) -> Option<Bytes> {
        Some(message.payload.clone())
    }
}

/// A subscription begins (`subscribe`) or ends (`unsubscribe`).
pub fn acknowledge(event: &str, of: &Argument, connection: &str, id: Option<&str>) -> String {
    let id = id.map_or(String::new(), |id| format!(r#""id":{},"#, quoted(id)));
    format!(
        r#"{{{id}"event":"{event}","arg":{{"channel":{},"instId":{}}},"connId":"{connection}"}}"#,
        quoted(&of.channel),
        quoted(&of.instrument)
    )
}

/// A whole book, and what it hashes to (0 = not told). Where books are numbered, its number.
pub fn snapshot(levels: &Levels<'_>, checksum: i32, sequence: Option<u64>) -> String {
    let numbers = sequence.map(|sequence| format!(r#","prevSeqId":-1,"seqId":{sequence}"#));
    book_message("snapshot", levels, checksum, &numbers.unwrap_or_default())
}

/// A change of a book, and what the book hashes to after it (0 = not told). Where books are
/// numbered, the number before it and its own.
pub fn update(levels: &Levels<'_>, checksum: i32, sequence: Option<(u64, u64)>) -> String {
    let numbers = sequence.map(|(before, own)| format!(r#","prevSeqId":{before},"seqId":{own}"#));
    book_message("update", levels, checksum, &numbers.unwrap_or_default())
}

fn book_message(action: &str, levels: &Levels<'_>, checksum: i32, numbers: &str) -> String {
    let push = |out: &mut String, level: &TruthLevel| {
        let orders = if super::is_gone(level) { "0" } else { "1" };
        for part in [r#"[""#, &level.px, r#"",""#, &level.qty, r#"","0",""#, orders, r#""]"#] {
            out.push_str(part);
        }
    };
    let (symbol, at_ms) = (levels.symbol, levels.at_ns / 1_000_000);
    let mut out = room_for(levels);
    // Writing to a string cannot fail.
    let _ = write!(
        out,
        r#"{{"arg":{{"channel":"books","instId":"{symbol}"}},"action":"{action}","data":[{{"asks":["#
    );
    push_joined(&mut out, levels.asks, push);
    out.push_str(r#"],"bids":["#);
    push_joined(&mut out, levels.bids, push);
    let _ = write!(out, r#"],"ts":"{at_ms}","checksum":{checksum}{numbers}}}]}}"#);
    out
}

/// A trade.
pub fn trade(print: &Print<'_>) -> String {
    format!(
        r#"{{"arg":{{"channel":"trades","instId":"{symbol}"}},"data":[{{"instId":"{symbol}","tradeId":"{}","px":"{}","sz":"{}","side":"{}","ts":"{}"}}]}}"#,
        print.id,
        print.px,
        print.qty,
        if print.buyer_took { "buy" } else { "sell" },
        print.at_ns / 1_000_000,
        symbol = print.symbol,
    )
}

/// The answer to `ping`, which is no JSON.
pub fn heartbeat() -> String {
    "pong".to_owned()
}

/// The venue's checksum: CRC-32 over the best levels of both sides, bid and ask in turn, price and
/// quantity as sent, all joined by colons.
pub fn checksum(book: &TruthBook) -> i32 {
    let [bids, asks] = [Side::Bid, Side::Ask].map(|side| best_levels(book, side, CHECKSUM_LEVELS));
    checksum_of(&bids, &asks)
}

/// The same of the best levels of both sides.
pub fn checksum_of(bids: &[TruthLevel], asks: &[TruthLevel]) -> i32 {
    let mut text = String::with_capacity(CHECKSUM_LEVELS * 50);
    for index in 0..CHECKSUM_LEVELS {
        for level in [bids.get(index), asks.get(index)].into_iter().flatten() {
            for part in [&level.px, ":", &level.qty, ":"] {
                text.push_str(part);
            }
        }
    }
    text.pop();
    crc32fast::hash(text.as_bytes()).cast_signed()
}

/// The body of the list of instruments; the venue lists one type at a time.
pub(crate) fn instruments(query: &str, listings: &[String]) -> String {
    #[derive(Deserialize)]
    struct Typed<'a> {
        #[serde(rename = "instType")]
        kind: &'a str,
    }
    let wanted = query_value(query, "instType");
    let is_wanted = |listing: &&String| {
        let typed: Option<Typed<'_>> = serde_json::from_str(listing).ok();
        wanted.is_none_or(|wanted| typed.is_some_and(|typed| typed.kind == wanted))
    };
    let listed: Vec<&str> = listings.iter().filter(is_wanted).map(String::as_str).collect();
    format!(r#"{{"code":"0","msg":"","data":[{}]}}"#, listed.join(","))
}

/// The body for any other path.
pub(crate) fn other(path: &str, at_ns: u64) -> String {
    if path.ends_with("/public/time") {
        return format!(r#"{{"code":"0","msg":"","data":[{{"ts":"{}"}}]}}"#, at_ns / 1_000_000);
    }
    instruments("", &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The worked examples of the venue's documentation.
    #[test]
    fn the_checksum_is_the_venue_s() {
        let mut book = TruthBook::default();
        for (side, px, qty) in [
            (Side::Bid, "3366.1", "7"),
            (Side::Bid, "3366", "6"),
            (Side::Ask, "3366.8", "9"),
            (Side::Ask, "3368", "8"),
        ] {
            book.set(side, px, qty);
        }
        assert_eq!(checksum(&book), -1_881_014_294);
        book.set(Side::Bid, "3366", "0");
        book.set(Side::Ask, "3372", "8");
        assert_eq!(checksum(&book), 831_078_360);
    }

    #[test]
    fn books_are_worded_as_the_venue_does() {
        let levels = [TruthLevel { px: "8476.98".into(), qty: "415".into() }];
        let gone = [TruthLevel { px: "8476.97".into(), qty: "0".into() }];
        let at_ns = 1_597_026_383_085_000_000;
        let change = Levels { symbol: "BTC-USDT", bids: &gone, asks: &levels, at_ns };
        assert_eq!(
            update(&change, 7, Some((5, 9))),
            r#"{"arg":{"channel":"books","instId":"BTC-USDT"},"action":"update","data":[{"asks":[["8476.98","415","0","1"]],"bids":[["8476.97","0","0","0"]],"ts":"1597026383085","checksum":7,"prevSeqId":5,"seqId":9}]}"#
        );
        let text = snapshot(&change, 7, Some(9));
        assert!(text.contains(r#""checksum":7,"prevSeqId":-1,"seqId":9}"#), "{text}");
        assert!(snapshot(&change, 7, None).ends_with(r#""checksum":7}]}"#));
    }
}
