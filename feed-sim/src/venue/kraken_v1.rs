//! Kraken's words (WebSocket version 1): its messages and a client's requests → values, and values →
//! its messages.
//!
//! Called by the truth and the replay. A message is an array that begins with the number of its
//! channel, which is the connection's own here; the rest goes out as recorded. The checksum is that
//! of version 2.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use tickfan_core::market::Side;

use crate::clock::rfc3339;
use crate::truth::TruthLevel;
use crate::venue::{
    BookMessage, Levels, Message, Moment, Print, Recorded, STREAMS_MAX, assets, best_levels,
    joined, query_value, quoted,
};

/// Where the list of instruments is.
pub(crate) const INSTRUMENTS_PATH: &str = "/0/public/AssetPairs";

/// The depth of a book when a client names none.
const DEPTH_DEFAULT: usize = 10;

/// The key of what every connection with a subscription is sent.
const HEARTBEAT_KEY: &str = "heartbeat ";

/// The sides of a book: whole (`as`, `bs`) or what changed (`a`, `b`).
#[derive(Deserialize)]
struct Sides<'a> {
    #[serde(rename = "as", borrow, default)]
    all_asks: Option<Vec<Vec<&'a str>>>,
    #[serde(rename = "bs", borrow, default)]
    all_bids: Option<Vec<Vec<&'a str>>>,
    #[serde(borrow, default)]
    a: Vec<Vec<&'a str>>,
    #[serde(borrow, default)]
    b: Vec<Vec<&'a str>>,
}

/// Reads what was recorded.
#[derive(Debug)]
pub(crate) struct Reader;

impl super::Reader for Reader {
    fn read<'a>(&mut self, text: &'a str) -> Option<Recorded<'a>> {
        if text == heartbeat() {
            let key = HEARTBEAT_KEY.to_owned();
            return Some(Recorded { key, symbol: None, book: None, inner: None });
        }
        let parts: Vec<&'a RawValue> = serde_json::from_str(text).ok()?;
        let [_, content @ .., name, pair] = &parts[..] else { return None };
        let name: &str = serde_json::from_str(name.get()).ok()?;
        let pair: Cow<'a, str> = unescaped(pair.get())?;
        let book = match name.strip_prefix("book-") {
            Some(depth) => Some(read_book(content, depth.parse().ok()?)?),
            None => None,
        };
        let (_, inner) = text.split_once(',')?;
        Some(Recorded { key: key(name, &pair), symbol: Some(pair), book, inner: Some(inner) })
    }
}

/// A JSON text, borrowed where it can be.
fn unescaped(raw: &str) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    serde_json::from_str::<Text<'_>>(raw).ok().map(|text| text.0)
}

fn read_book<'a>(content: &[&'a RawValue], depth: usize) -> Option<BookMessage<'a>> {
    let mut book = BookMessage { cut_to: Some(depth), ..BookMessage::default() };
    for object in content {
        let sides: Sides<'a> = serde_json::from_str(object.get()).ok()?;
        book.is_snapshot |= sides.all_asks.is_some() || sides.all_bids.is_some();
        let asks = sides.all_asks.into_iter().flatten().chain(sides.a);
        book.asks.extend(asks.filter_map(|level| Some((*level.first()?, *level.get(1)?))));
        let bids = sides.all_bids.into_iter().flatten().chain(sides.b);
        book.bids.extend(bids.filter_map(|level| Some((*level.first()?, *level.get(1)?))));
    }
    Some(book)
}

fn key(channel: &str, pair: &str) -> String {
    format!("{channel} {pair}")
}

#[derive(Deserialize)]
struct Call {
    event: String,
    #[serde(default)]
    pair: Vec<String>,
    #[serde(default)]
    subscription: Option<Wanted>,
    #[serde(default)]
    reqid: Option<u64>,
}

#[derive(Deserialize)]
struct Wanted {
    name: String,
    #[serde(default)]
    depth: Option<usize>,
}

/// A channel of a pair.
#[derive(Debug, Clone)]
pub struct Channel {
    /// Its number on this connection.
    pub id: u64,
    /// Its full name: `book-1000`, `trade`.
    pub name: String,
    /// The pair.
    pub pair: String,
}

impl Channel {
    /// The name under which it was asked for, and the depth where it has one.
    fn wanted(&self) -> (&str, Option<&str>) {
        match self.name.split_once('-') {
            Some((name, depth)) => (name, Some(depth)),
            None => (&self.name, None),
        }
    }
}

/// One connection.
pub(crate) struct Session {
    connection: u64,
    /// By key.
    channels: BTreeMap<String, Channel>,
    opened: u64,
}

impl Session {
    /// A connection with this number.
    pub(crate) const fn open(connection: u64) -> Self {
        Self { connection, channels: BTreeMap::new(), opened: 0 }
    }

    fn subscribe(
        &mut self,
        name: &str,
        pair: &str,
        reqid: Option<u64>,
        moment: &Moment<'_>,
    ) -> Vec<String> {
        let refused = |reason: &str| vec![refuse(&format!("{reason} {pair}"), name, pair, reqid)];
        let key = key(name, pair);
        let is_book = name.starts_with("book-");
        if !moment.listed.has_symbol(pair) {
            return refused("Currency pair not supported");
        }
        // Other depths than the recorded one would have other checksums to send, and other levels.
        if is_book && !moment.listed.has_key(&key) {
            return refused("Subscription depth not supported");
        }
        if self.channels.contains_key(&key) {
            return refused("Already subscribed");
        }
        if self.channels.len() >= STREAMS_MAX {
            return refused("Too many subscriptions");
        }
        self.opened += 1;
        let channel = Channel { id: self.opened, name: name.to_owned(), pair: pair.to_owned() };
        let mut replies = vec![acknowledge(&channel, "subscribed", reqid)];
        if let Some(book) = moment.book(pair).filter(|_| is_book) {
            let [bids, asks] = [Side::Bid, Side::Ask].map(|s| best_levels(&book, s, usize::MAX));
            let at_ns = moment.at_ns;
            replies.push(snapshot(
                &channel,
                &Levels { symbol: pair, bids: &bids, asks: &asks, at_ns },
            ));
        }
        self.channels.insert(key, channel);
        replies
    }

    fn unsubscribe(&mut self, name: &str, pair: &str, reqid: Option<u64>) -> String {
        match self.channels.remove(&key(name, pair)) {
            Some(channel) => acknowledge(&channel, "unsubscribed", reqid),
            None => refuse("Subscription Not Found", name, pair, reqid),
        }
    }
}

impl super::Session for Session {
    fn greeting(&self) -> Option<String> {
        let connection = self.connection;
        Some(format!(
            r#"{{"connectionID":{connection},"event":"systemStatus","status":"online","version":"1.9.6"}}"#
        ))
    }

    fn hear(&mut self, text: &str, moment: &Moment<'_>) -> Vec<String> {
        let malformed =
            || vec![r#"{"errorMessage":"Malformed request","event":"error"}"#.to_owned()];
        let Ok(call) = serde_json::from_str::<Call>(text) else { return malformed() };
        let reqid = call.reqid;
        let name = call.subscription.map(|wanted| match wanted.name.as_str() {
            "book" => format!("book-{}", wanted.depth.unwrap_or(DEPTH_DEFAULT)),
            _ => wanted.name,
        });
        match (call.event.as_str(), name) {
            ("ping", _) => vec![format!(r#"{{"event":"pong"{}}}"#, reqid_field(reqid))],
            ("subscribe", Some(name)) => {
                let pairs = call.pair.iter();
                pairs.flat_map(|pair| self.subscribe(&name, pair, reqid, moment)).collect()
            }
            ("unsubscribe", Some(name)) => {
                call.pair.iter().map(|pair| self.unsubscribe(&name, pair, reqid)).collect()
            }
            _ => malformed(),
        }
    }

    fn has(&self, key: &str) -> bool {
        match key {
            HEARTBEAT_KEY => !self.channels.is_empty(),
            _ => self.channels.contains_key(key),
        }
    }

    fn subscriptions(&self) -> usize {
        self.channels.len()
    }

    fn tell(&mut self, message: &Message, _moment: &Moment<'_>) -> Option<Bytes> {
        let Some(channel) = self.channels.get(&message.key) else {
            return Some(message.payload.clone());
        };
        Some(format!("[{},{}", channel.id, message.inner_text()).into())
    }
}

/// A subscription begins (`subscribed`) or ends (`unsubscribed`).
pub fn acknowledge(channel: &Channel, status: &str, reqid: Option<u64>) -> String {
    let (name, depth) = channel.wanted();
    format!(
        r#"{{"channelID":{},"channelName":"{}","event":"subscriptionStatus","pair":{}{},"status":"{status}","subscription":{{{}"name":"{name}"}}}}"#,
        channel.id,
        channel.name,
        quoted(&channel.pair),
        reqid_field(reqid),
        depth.map_or(String::new(), |depth| format!(r#""depth":{depth},"#)),
    )
}

fn refuse(reason: &str, name: &str, pair: &str, reqid: Option<u64>) -> String {
    format!(
        r#"{{"errorMessage":{},"event":"subscriptionStatus","pair":{}{},"status":"error","subscription":{{"name":{}}}}}"#,
        quoted(reason),
        quoted(pair),
        reqid_field(reqid),
        quoted(name)
    )
}

fn reqid_field(reqid: Option<u64>) -> String {
    reqid.map_or(String::new(), |id| format!(r#","reqid":{id}"#))
}

fn seconds(at_ns: u64) -> String {
    format!("{}.{:06}", at_ns / 1_000_000_000, at_ns / 1_000 % 1_000_000)
}

fn side(levels: &[TruthLevel], at_ns: u64) -> String {
    let at = seconds(at_ns);
    joined(levels, |out, level| {
        out.extend([r#"[""#, &level.px, r#"",""#, &level.qty, r#"",""#, &at, r#""]"#]);
    })
}

/// A whole book.
pub fn snapshot(channel: &Channel, levels: &Levels<'_>) -> String {
    format!(
        r#"[{},{{"as":[{}],"bs":[{}]}},"{}",{}]"#,
        channel.id,
        side(levels.asks, levels.at_ns),
        side(levels.bids, levels.at_ns),
        channel.name,
        quoted(levels.symbol)
    )
}

/// A change of a book, and what the book hashes to after it. Where both sides change, the venue sends
/// two objects, and the checksum in the last.
pub fn update(channel: &Channel, levels: &Levels<'_>, checksum: u32) -> String {
    let list = |name, levels: &[TruthLevel], at_ns| {
        let is_any = !levels.is_empty();
        is_any.then(|| format!(r#""{name}":[{}]"#, side(levels, at_ns)))
    };
    let asks = list("a", levels.asks, levels.at_ns);
    let bids = list("b", levels.bids, levels.at_ns);
    let content = match (asks, bids) {
        (Some(asks), Some(bids)) => format!(r#"{{{asks}}},{{{bids},"c":"{checksum}"}}"#),
        (asks, bids) => {
            let one = asks.or(bids).unwrap_or_else(|| r#""a":[]"#.to_owned());
            format!(r#"{{{one},"c":"{checksum}"}}"#)
        }
    };
    format!(r#"[{},{content},"{}",{}]"#, channel.id, channel.name, quoted(levels.symbol))
}

/// A trade. The venue writes no number of it.
pub fn trade(channel: &Channel, print: &Print<'_>) -> String {
    format!(
        r#"[{},[["{}","{}","{}","{}","l",""]],"trade",{}]"#,
        channel.id,
        print.px,
        print.qty,
        seconds(print.at_ns),
        if print.buyer_took { "b" } else { "s" },
        quoted(print.symbol)
    )
}

/// What is sent about once a second when nothing else is.
pub fn heartbeat() -> String {
    r#"{"event":"heartbeat"}"#.to_owned()
}

/// The body of the list of instruments, which the venue keys by its other name of each, or by the
/// name under which it was asked for.
pub(crate) fn instruments(query: &str, listings: &[String]) -> String {
    #[derive(Deserialize)]
    struct Named<'a> {
        altname: &'a str,
        wsname: &'a str,
    }
    let wanted = query_value(query, "pair").map(|pair| pair.replace("%2F", "/"));
    let entries: Vec<String> = listings
        .iter()
        .filter_map(|listing| {
            let named: Named<'_> = serde_json::from_str(listing).ok()?;
            let key = match &wanted {
                None => named.altname,
                Some(wanted) => [named.altname, named.wsname]
                    .into_iter()
                    .find(|name| wanted.split(',').any(|wanted| wanted == *name))?,
            };
            Some(format!(r#""{key}":{listing}"#))
        })
        .collect();
    format!(r#"{{"error":[],"result":{{{}}}}}"#, entries.join(","))
}

/// The body for any other path.
pub(crate) fn other(path: &str, listings: &[String], at_ns: u64) -> String {
    let result = match path.rsplit('/').next() {
        Some("Assets") => {
            let asset = |id: &String| {
                // What the venue calls ZUSD, everybody else calls USD.
                let altname = if id == "ZUSD" { "USD" } else { id };
                format!(
                    r#""{id}":{{"aclass":"currency","altname":"{altname}","decimals":10,"display_decimals":5,"status":"enabled"}}"#
                )
            };
            let assets = assets(listings, ["base", "quote"]);
            assets.iter().map(asset).collect::<Vec<_>>().join(",")
        }
        Some("Time") => {
            format!(r#""unixtime":{},"rfc1123":"{}""#, at_ns / 1_000_000_000, rfc3339(at_ns))
        }
        Some("SystemStatus") => {
            format!(r#""status":"online","timestamp":"{}""#, rfc3339(at_ns))
        }
        _ => String::new(),
    };
    format!(r#"{{"error":[],"result":{{{result}}}}}"#)
}
