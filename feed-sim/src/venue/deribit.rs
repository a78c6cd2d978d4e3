//! Deribit's words (JSON-RPC over WebSocket): its messages and a client's requests → values, and
//! values → its messages.
//!
//! Called by the truth and the replay. A channel is one stream at every interval, because a recording
//! has it at one only; the name in a message is the one that the client asked for.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use tickfan_core::market::Side;

use crate::truth::{TruthBook, TruthLevel};
use crate::venue::{
    BookMessage, Levels, Message, Moment, Print, Recorded, STREAMS_MAX, best_levels, is_gone,
    joined, quoted,
};

/// Where the list of instruments is.
pub(crate) const INSTRUMENTS_PATH: &str = "/api/v2/public/get_instruments";

/// The key of what every connection that set a heartbeat is sent.
const HEARTBEAT_KEY: &str = "heartbeat ";

/// "Method not found."
const METHOD_NOT_FOUND: i32 = -32_601;
/// "Invalid params."
const INVALID_PARAMS: i32 = -32_602;
/// "Parse error."
const PARSE_ERROR: i32 = -32_700;

#[derive(Deserialize)]
struct Incoming<'a> {
    #[serde(borrow)]
    params: Pushed<'a>,
}

#[derive(Deserialize)]
struct Pushed<'a> {
    channel: &'a str,
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Deserialize)]
struct Book<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    change_id: u64,
    #[serde(borrow)]
    bids: Vec<Change<'a>>,
    #[serde(borrow)]
    asks: Vec<Change<'a>>,
}

/// Action, price, amount. What is deleted has no amount, so the action need not be looked at.
type Change<'a> = (&'a str, &'a RawValue, &'a RawValue);

/// Reads what was recorded.
#[derive(Debug)]
pub(crate) struct Reader;

impl super::Reader for Reader {
    fn read<'a>(&mut self, text: &'a str) -> Option<Recorded<'a>> {
        if text == heartbeat() {
            let key = HEARTBEAT_KEY.to_owned();
            return Some(Recorded { key, symbol: None, book: None, inner: None });
        }
        // An answer to a request has no channel.
        let message: Incoming<'a> = serde_json::from_str(text).ok()?;
        let Pushed { channel, data } = message.params;
        let (kind, instrument) = parts(channel)?;
        let book = if kind == "book" {
            let book: Book<'a> = serde_json::from_str(data.get()).ok()?;
            let levels = |changes: Vec<Change<'a>>| {
                changes.into_iter().map(|(_, px, amount)| (px.get(), amount.get())).collect()
            };
            Some(BookMessage {
                is_snapshot: book.kind == "snapshot",
                bids: levels(book.bids),
                asks: levels(book.asks),
                id: Some(book.change_id),
                ..BookMessage::default()
            })
        } else {
            None
        };
        let symbol = Some(Cow::Borrowed(instrument));
        Some(Recorded { key: key(kind, instrument), symbol, book, inner: Some(data.get()) })
    }
}

/// Kind and instrument of a channel: `book.BTC-PERPETUAL.raw`. Grouped books are other streams.
fn parts(channel: &str) -> Option<(&str, &str)> {
    let parts: Vec<&str> = channel.split('.').collect();
    match parts[..] {
        [kind @ ("book" | "trades" | "ticker"), instrument, _interval] => Some((kind, instrument)),
        ["quote", instrument] => Some(("quote", instrument)),
        _ => None,
    }
}

fn key(kind: &str, instrument: &str) -> String {
    format!("{kind} {instrument}")
}

/// It tells of halts, and of no instrument's market.
fn is_notice(channel: &str) -> bool {
    channel == "platform_state" || channel.starts_with("instrument.state.")
}

/// What a channel that can be subscribed to is compared by.
fn key_of(channel: &str, moment: &Moment<'_>) -> Option<String> {
    if is_notice(channel) {
        return Some(channel.to_owned());
    }
    let (kind, instrument) = parts(channel)?;
    moment.listed.has_symbol(instrument).then(|| key(kind, instrument))
}

#[derive(Deserialize)]
struct Call<'a> {
    method: String,
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(default)]
    params: Option<Params>,
}

#[derive(Deserialize)]
struct Params {
    #[serde(default)]
    channels: Vec<String>,
}

/// One connection.
#[derive(Default)]
pub(crate) struct Session {
    /// By key, as the client spelt them.
    channels: BTreeMap<String, String>,
    wants_heartbeats: bool,
}

impl Session {
    /// Begins what can be; the venue leaves the rest out of its answer.
    fn subscribe(&mut self, id: &str, channels: Vec<String>, moment: &Moment<'_>) -> Vec<String> {
        let (mut begun, mut snapshots) = (Vec::new(), Vec::new());
        for channel in channels {
            let Some(key) = key_of(&channel, moment) else { continue };
            if self.channels.len() >= STREAMS_MAX {
                continue;
            }
            let old = self.channels.insert(key, channel.clone());
            let is_new = old.as_deref() != Some(&channel);
            if let Some(("book", symbol)) = parts(&channel).filter(|_| is_new)
                && let Some(book) = moment.book(symbol)
            {
                snapshots.push(fresh(&channel, symbol, &book, moment.at_ns));
            }
            begun.push(channel);
        }
        let mut replies = vec![acknowledge(id, &begun)];
        replies.append(&mut snapshots);
        replies
    }

    fn unsubscribe(&mut self, id: &str, channels: Vec<String>, moment: &Moment<'_>) -> String {
        let mut ended = channels;
        ended.retain(|channel| {
            let key = key_of(channel, moment);
            key.is_some_and(|key| self.channels.remove(&key).is_some())
        });
        acknowledge(id, &ended)
    }
}

fn fresh(channel: &str, symbol: &str, book: &TruthBook, at_ns: u64) -> String {
    let [bids, asks] = [Side::Bid, Side::Ask].map(|side| best_levels(book, side, usize::MAX));
    let levels = Levels { symbol, bids: &bids, asks: &asks, at_ns };
    snapshot(channel, &levels, book.id().unwrap_or(0))
}

impl super::Session for Session {
    fn hear(&mut self, text: &str, moment: &Moment<'_>) -> Vec<String> {
        let Ok(call) = serde_json::from_str::<Call<'_>>(text) else {
            return vec![refuse("null", PARSE_ERROR, "Parse error")];
        };
        let id = call.id.map_or("null", RawValue::get);
        let channels = call.params.map(|params| params.channels);
        match (call.method.as_str(), channels) {
            ("public/subscribe", Some(channels)) => self.subscribe(id, channels, moment),
            ("public/unsubscribe", Some(channels)) => vec![self.unsubscribe(id, channels, moment)],
            ("public/subscribe" | "public/unsubscribe", None) => {
                vec![refuse(id, INVALID_PARAMS, "Invalid params")]
            }
            ("public/unsubscribe_all", _) => {
                self.channels.clear();
                vec![result(id, r#""ok""#)]
            }
            // Nobody is disconnected here for not answering.
            (method @ ("public/set_heartbeat" | "public/disable_heartbeat"), _) => {
                self.wants_heartbeats = method == "public/set_heartbeat";
                vec![result(id, r#""ok""#)]
            }
            ("public/test" | "public/hello", _) => {
                vec![result(id, r#"{"version":"1.2.26"}"#)]
            }
            _ => vec![refuse(id, METHOD_NOT_FOUND, "Method not found")],
        }
    }

    fn has(&self, key: &str) -> bool {
        match key {
            HEARTBEAT_KEY => self.wants_heartbeats,
            _ => self.channels.contains_key(key),
        }
    }

    fn subscriptions(&self) -> usize {
        self.channels.keys().filter(|key| !is_notice(key)).count()
    }

    fn tell(&mut self, message: &Message, _moment: &Moment<'_>) -> Option<Bytes> {
        if message.key == HEARTBEAT_KEY {
            return Some(message.payload.clone());
        }
        let channel = self.channels.get(&message.key)?;
        Some(pushed(channel, message.inner_text()).into())
    }
}

/// The channels that a request (`public/subscribe`, `public/unsubscribe`) was obeyed for.
pub fn acknowledge(id: &str, channels: &[String]) -> String {
    let channels: Vec<String> = channels.iter().map(|channel| quoted(channel)).collect();
    result(id, &format!("[{}]", channels.join(",")))
}

fn result(id: &str, result: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)
}

fn refuse(id: &str, code: i32, reason: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"error":{{"message":{},"code":{code}}}}}"#,
        quoted(reason)
    )
}

fn pushed(channel: &str, data: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"subscription","params":{{"channel":{},"data":{data}}}}}"#,
        quoted(channel)
    )
}

/// A whole book and its number.
pub fn snapshot(channel: &str, levels: &Levels<'_>, change_id: u64) -> String {
    let list = |levels: &[TruthLevel]| {
        joined(levels, |out, level| out.extend([r#"["new","#, &level.px, ",", &level.qty, "]"]))
    };
    let (bids, asks) = (list(levels.bids), list(levels.asks));
    book_message(channel, levels, r#""snapshot""#, "", change_id, &bids, &asks)
}

/// A change of a book that was `before`: the number before it and its own.
pub fn update(
    channel: &str,
    levels: &Levels<'_>,
    before: &TruthBook,
    prev_change_id: u64,
    change_id: u64,
) -> String {
    let list = |side, levels: &[TruthLevel]| {
        joined(levels, |out, level| {
            let is_held = before.levels(side).any(|held| held.px == level.px);
            let (does, qty) = match (is_gone(level), is_held) {
                (true, _) => (r#"["delete","#, "0.0"),
                (false, true) => (r#"["change","#, &*level.qty),
                (false, false) => (r#"["new","#, &*level.qty),
            };
            out.extend([does, &level.px, ",", qty, "]"]);
        })
    };
    let (bids, asks) = (list(Side::Bid, levels.bids), list(Side::Ask, levels.asks));
    let before = format!(r#""prev_change_id":{prev_change_id},"#);
    book_message(channel, levels, r#""change""#, &before, change_id, &bids, &asks)
}

fn book_message(
    channel: &str,
    levels: &Levels<'_>,
    kind: &str,
    before: &str,
    change_id: u64,
    bids: &str,
    asks: &str,
) -> String {
    let data = format!(
        r#"{{"type":{kind},"timestamp":{},{before}"instrument_name":"{}","change_id":{change_id},"bids":[{bids}],"asks":[{asks}]}}"#,
        levels.at_ns / 1_000_000,
        levels.symbol
    );
    pushed(channel, &data)
}

/// A trade; `sequence` is its number among those of its instrument.
pub fn trade(channel: &str, print: &Print<'_>, sequence: u64) -> String {
    let data = format!(
        r#"[{{"trade_seq":{sequence},"trade_id":"{}","timestamp":{},"tick_direction":0,"price":{px},"mark_price":{px},"instrument_name":"{}","index_price":{px},"direction":"{}","amount":{}}}]"#,
        print.id,
        print.at_ns / 1_000_000,
        print.symbol,
        if print.buyer_took { "buy" } else { "sell" },
        print.qty,
        px = print.px,
    );
    pushed(channel, &data)
}

/// What the venue sends to who set a heartbeat, and wants answered by `public/test`.
pub fn heartbeat() -> String {
    r#"{"jsonrpc":"2.0","method":"heartbeat","params":{"type":"test_request"}}"#.to_owned()
}

/// The body of the list of instruments.
pub(crate) fn instruments(listings: &[String]) -> String {
    format!(r#"{{"jsonrpc":"2.0","result":[{}]}}"#, listings.join(","))
}
