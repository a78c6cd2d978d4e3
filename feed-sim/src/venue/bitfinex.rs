//! Bitfinex's words (version 2): its messages and a client's requests → values, and values → its
//! messages.
//!
//! Called by the truth and the replay. A message is an array between the number of its channel, which
//! is the connection's own, and, where the client asked for it, a number that counts everything that
//! the connection is sent; both are put around what was recorded between them. A message that is lost
//! on the way leaves a hole.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use tickfan_core::market::Side;

use crate::truth::TruthLevel;
use crate::venue::{
    BookMessage, Levels, Message, Moment, Print, Recorded, STREAMS_MAX, best_levels, is_gone,
    quoted,
};

/// Where the list of instruments is; it is recorded of none.
pub(crate) const INSTRUMENTS_PATH: &str = "/v2/conf/pub:info:pair";

/// The flag of a client that wants every message of its connection numbered.
const SEQ_ALL: u64 = 65_536;

/// The flag of a client that wants the checksums of books.
const OB_CHECKSUM: u64 = 131_072;

/// Levels of a side that the checksum covers.
pub(crate) const CHECKSUM_LEVELS: usize = 25;

/// What a message with a checksum begins with.
const CHECKSUM_CONTENT: &str = r#""cs""#;

/// The request is none.
const UNKNOWN_EVENT: u32 = 10_000;
/// The subscription cannot be.
const INVALID_SYMBOL: u32 = 10_300;
/// There is such a subscription.
const DUPLICATE: u32 = 10_301;
/// There are as many as there may be.
const TOO_MANY: u32 = 10_305;
/// There is no such subscription.
const NOT_SUBSCRIBED: u32 = 10_400;

#[derive(Deserialize)]
struct Event<'a> {
    event: &'a str,
    #[serde(default)]
    channel: &'a str,
    #[serde(borrow, default)]
    symbol: Cow<'a, str>,
    #[serde(rename = "chanId", default)]
    channel_id: u64,
    #[serde(default)]
    flags: u64,
}

/// Reads what was recorded; learns from acknowledgements which number is which channel, and whether
/// messages are numbered.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// Channel and symbol by number.
    channels: HashMap<u64, (String, String)>,
    is_numbered: bool,
}

impl Reader {
    fn learn(&mut self, event: &Event<'_>) {
        match event.event {
            "conf" => self.is_numbered = event.flags & SEQ_ALL != 0,
            "subscribed" => {
                let channel = (event.channel.to_owned(), event.symbol.to_string());
                self.channels.insert(event.channel_id, channel);
            }
            _ => {}
        }
    }
}

impl super::Reader for Reader {
    fn read<'a>(&mut self, text: &'a str) -> Option<Recorded<'a>> {
        if let Ok(event) = serde_json::from_str::<Event<'_>>(text) {
            self.learn(&event);
            return None;
        }
        let parts: Vec<&'a RawValue> = serde_json::from_str(text).ok()?;
        let number = parts.first()?.get().parse().ok()?;
        let (channel, symbol) = self.channels.get(&number)?;
        let begin = text.find(',')? + 1;
        let end = text.rfind(if self.is_numbered { ',' } else { ']' })?;
        let mut book = None;
        if channel == "book" {
            book = read_book(parts.get(1)?.get());
        }
        if let (Some(book), true) = (&mut book, self.is_numbered) {
            book.id = parts.last()?.get().parse().ok();
        }
        Some(Recorded {
            key: key(channel, symbol),
            symbol: Some(Cow::Owned(symbol.clone())),
            book,
            inner: text.get(begin..end),
        })
    }
}

/// Price, number of orders, amount: that of an ask is negative.
type Entry<'a> = (&'a RawValue, u64, &'a RawValue);

/// The book or the change of it that is in a message; none in `"hb"`.
fn read_book(content: &str) -> Option<BookMessage<'_>> {
    let mut book = BookMessage::default();
    let entries: Vec<Entry<'_>> = match serde_json::from_str(content) {
        Ok(one) => vec![one],
        Err(_) => {
            book.is_snapshot = true;
            serde_json::from_str(content).ok()?
        }
    };
    for (px, count, amount) in entries {
        let (is_bid, amount) = match amount.get().strip_prefix('-') {
            Some(amount) => (false, amount),
            None => (true, amount.get()),
        };
        let side = if is_bid { &mut book.bids } else { &mut book.asks };
        side.push((px.get(), if count == 0 { "0" } else { amount }));
    }
    Some(book)
}

fn key(channel: &str, symbol: &str) -> String {
    format!("{channel} {symbol}")
}

#[derive(Deserialize)]
struct Call {
    event: String,
    #[serde(default)]
    channel: String,
    #[serde(default)]
    symbol: String,
    #[serde(default = "default_precision")]
    prec: String,
    #[serde(default = "default_frequency")]
    freq: String,
    #[serde(default = "default_length", deserialize_with = "text_or_number")]
    len: String,
    #[serde(rename = "chanId", default)]
    channel_id: u64,
    #[serde(default)]
    flags: u64,
    #[serde(default)]
    cid: Option<u64>,
}

fn default_precision() -> String {
    "P0".to_owned()
}

fn default_frequency() -> String {
    "F0".to_owned()
}

fn default_length() -> String {
    "25".to_owned()
}

/// Clients write the length of a book either way.
fn text_or_number<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Length {
        Text(String),
        Number(u64),
    }
    Ok(match Length::deserialize(deserializer)? {
        Length::Text(text) => text,
        Length::Number(number) => number.to_string(),
    })
}

/// One connection.
#[derive(Default)]
pub(crate) struct Session {
    /// The number of each channel, by key.
    channels: BTreeMap<String, u64>,
    opened: u64,
    /// The number of the last message, once the client asked for numbers.
    last: Option<u64>,
    wants_checksums: bool,
}

impl Session {
    /// The number of the next message, if messages are numbered.
    fn number(&mut self) -> Option<u64> {
        self.last = self.last.map(|last| last + 1);
        self.last
    }

    fn configure(&mut self, flags: u64) -> String {
        self.wants_checksums = flags & OB_CHECKSUM != 0;
        let is_numbered = flags & SEQ_ALL != 0;
        self.last = is_numbered.then(|| self.last.unwrap_or(0));
        format!(r#"{{"event":"conf","status":"OK","flags":{flags}}}"#)
    }

    fn subscribe(&mut self, call: &Call, moment: &Moment<'_>) -> Vec<String> {
        let refused = |code, reason: &str| vec![refuse(call, code, reason)];
        if !moment.listed.has_symbol(&call.symbol) {
            return refused(INVALID_SYMBOL, "symbol: invalid");
        }
        let key = key(&call.channel, &call.symbol);
        if self.channels.contains_key(&key) {
            return refused(DUPLICATE, "subscribe: dup");
        }
        if self.channels.len() >= STREAMS_MAX {
            return refused(TOO_MANY, "subscribe: limit");
        }
        self.opened += 1;
        let channel = self.opened;
        self.channels.insert(key, channel);
        let options = match call.channel.as_str() {
            "book" => {
                let [prec, freq, len] =
                    [&call.prec, &call.freq, &call.len].map(|text| quoted(text));
                format!(r#""prec":{prec},"freq":{freq},"len":{len},"#)
            }
            _ => String::new(),
        };
        let mut replies = vec![acknowledge(channel, &call.channel, &call.symbol, &options)];
        if let Some(book) = moment.book(&call.symbol).filter(|_| call.channel == "book") {
            let [bids, asks] = [Side::Bid, Side::Ask].map(|s| best_levels(&book, s, usize::MAX));
            let (symbol, at_ns) = (call.symbol.as_str(), moment.at_ns);
            let levels = Levels { symbol, bids: &bids, asks: &asks, at_ns };
            replies.push(snapshot(channel, &levels, self.number()));
        }
        replies
    }

    fn unsubscribe(&mut self, call: &Call) -> String {
        let id = call.channel_id;
        let before = self.channels.len();
        self.channels.retain(|_, channel| *channel != id);
        if self.channels.len() == before {
            return refuse(call, NOT_SUBSCRIBED, "unsubscribe: invalid");
        }
        format!(r#"{{"event":"unsubscribed","status":"OK","chanId":{id}}}"#)
    }
}

impl super::Session for Session {
    fn greeting(&self) -> Option<String> {
        let server = "00000000-0000-4000-8000-000000000000";
        Some(format!(
            r#"{{"event":"info","version":2,"serverId":"{server}","platform":{{"status":1}}}}"#
        ))
    }

    fn hear(&mut self, text: &str, moment: &Moment<'_>) -> Vec<String> {
        let Ok(call) = serde_json::from_str::<Call>(text) else {
            let code = UNKNOWN_EVENT;
            return vec![format!(r#"{{"event":"error","msg":"event: invalid","code":{code}}}"#)];
        };
        match call.event.as_str() {
            "conf" => vec![self.configure(call.flags)],
            "ping" => {
                let cid = call.cid.map_or(String::new(), |cid| format!(r#","cid":{cid}"#));
                vec![format!(r#"{{"event":"pong","ts":{}{cid}}}"#, moment.at_ns / 1_000_000)]
            }
            "subscribe" => self.subscribe(&call, moment),
            "unsubscribe" => vec![self.unsubscribe(&call)],
            _ => vec![refuse(&call, UNKNOWN_EVENT, "event: invalid")],
        }
    }

    fn has(&self, key: &str) -> bool {
        self.channels.contains_key(key)
    }

    fn subscriptions(&self) -> usize {
        self.channels.len()
    }

    fn tell(&mut self, message: &Message, _moment: &Moment<'_>) -> Option<Bytes> {
        let channel = *self.channels.get(&message.key)?;
        if message.inner_text().starts_with(CHECKSUM_CONTENT) && !self.wants_checksums {
            return None;
        }
        Some(array(channel, message.inner_text(), self.number()).into())
    }

    fn lose(&mut self, _message: &Message, _moment: &Moment<'_>) {
        self.number();
    }
}

/// A subscription begins; `options` are those of a book, with a comma after each.
pub fn acknowledge(channel: u64, name: &str, symbol: &str, options: &str) -> String {
    let pair = symbol.strip_prefix('t').unwrap_or(symbol);
    format!(
        r#"{{"event":"subscribed","channel":{},"chanId":{channel},"symbol":{},{options}"pair":{}}}"#,
        quoted(name),
        quoted(symbol),
        quoted(pair)
    )
}

fn refuse(call: &Call, code: u32, reason: &str) -> String {
    format!(
        r#"{{"channel":{},"symbol":{},"event":"error","msg":{},"code":{code}}}"#,
        quoted(&call.channel),
        quoted(&call.symbol),
        quoted(reason)
    )
}

fn array(channel: u64, content: &str, number: Option<u64>) -> String {
    match number {
        Some(number) => format!("[{channel},{content},{number}]"),
        None => format!("[{channel},{content}]"),
    }
}

/// A level as the venue writes it: with one order, since nobody counts them here.
fn entry(side: Side, level: &TruthLevel) -> String {
    let sign = if side == Side::Bid { "" } else { "-" };
    if is_gone(level) {
        format!("[{},0,{sign}1]", level.px)
    } else {
        format!("[{},1,{sign}{}]", level.px, level.qty)
    }
}

/// A whole book.
pub fn snapshot(channel: u64, levels: &Levels<'_>, number: Option<u64>) -> String {
    let bids = levels.bids.iter().map(|level| entry(Side::Bid, level));
    let asks = levels.asks.iter().map(|level| entry(Side::Ask, level));
    let entries: Vec<String> = bids.chain(asks).collect();
    array(channel, &format!("[{}]", entries.join(",")), number)
}

/// A change of one level of a book; the venue sends one a message.
pub fn update(channel: u64, side: Side, level: &TruthLevel, number: Option<u64>) -> String {
    array(channel, &entry(side, level), number)
}

/// A trade.
pub fn trade(channel: u64, print: &Print<'_>, number: Option<u64>) -> String {
    let (id, at_ms) = (print.id, print.at_ns / 1_000_000);
    let sign = if print.buyer_took { "" } else { "-" };
    let content = format!(r#""te",[{id},{at_ms},{sign}{},{}]"#, print.qty, print.px);
    array(channel, &content, number)
}

/// What a book hashes to, told after a change of it to who asked for that.
pub fn checksum_message(channel: u64, checksum: i32, number: Option<u64>) -> String {
    array(channel, &format!("{CHECKSUM_CONTENT},{checksum}"), number)
}

/// The venue's checksum: CRC-32 over the best levels of both sides, bid and ask in turn, price and
/// amount as sent, all joined by colons.
pub fn checksum(bids: &[TruthLevel], asks: &[TruthLevel]) -> i32 {
    let mut text = String::with_capacity(CHECKSUM_LEVELS * 50);
    for index in 0..CHECKSUM_LEVELS {
        for (level, sign) in [(bids.get(index), ""), (asks.get(index), "-")] {
            let Some(level) = level else { continue };
            let colon = if text.is_empty() { "" } else { ":" };
            text.extend([colon, &level.px, ":", sign, &level.qty]);
        }
    }
    crc32fast::hash(text.as_bytes()).cast_signed()
}

/// The sign of life of a channel.
pub fn heartbeat(channel: u64, number: Option<u64>) -> String {
    array(channel, r#""hb""#, number)
}

/// The body of the list of instruments.
pub(crate) fn instruments(listings: &[String]) -> String {
    format!("[[{}]]", listings.join(","))
}
