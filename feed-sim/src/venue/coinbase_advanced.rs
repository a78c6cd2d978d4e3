//! Coinbase Advanced Trade's words: its messages and a client's requests → values, and values → its
//! messages.
//!
//! Called by the truth and the replay. The venue numbers everything that it sends on a connection,
//! acknowledgements and heartbeats included, so every message is renumbered for the connection that
//! gets it; a message that is lost on the way leaves a hole.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::Deserialize;
use tickfan_core::market::Side;

use crate::clock::rfc3339;
use crate::truth::TruthLevel;
use crate::venue::{
    BookMessage, Levels, Message, Moment, Print, Recorded, STREAMS_MAX, assets, best_levels,
    joined, query_value, quoted,
};

/// Where the list of instruments is.
pub(crate) const INSTRUMENTS_PATH: &str = "/api/v3/brokerage/market/products";

/// The channel of the sign of life, which is of no product.
const HEARTBEATS: &str = "heartbeats";

/// What stands before the number of a message.
const NUMBER_FIELD: &str = r#""sequence_num":"#;

#[derive(Deserialize)]
struct Incoming<'a> {
    channel: &'a str,
    sequence_num: u64,
    #[serde(borrow)]
    events: Vec<Event<'a>>,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type", default)]
    kind: &'a str,
    #[serde(borrow, default)]
    product_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    updates: Vec<Update<'a>>,
    #[serde(borrow, default)]
    trades: Vec<Subject<'a>>,
    #[serde(borrow, default)]
    tickers: Vec<Subject<'a>>,
    #[serde(borrow, default)]
    candles: Vec<Subject<'a>>,
}

#[derive(Deserialize)]
struct Update<'a> {
    side: &'a str,
    price_level: &'a str,
    new_quantity: &'a str,
}

#[derive(Deserialize)]
struct Subject<'a> {
    #[serde(borrow)]
    product_id: Cow<'a, str>,
}

/// Reads what was recorded. A message is taken to be of one product, as all are that were seen.
#[derive(Debug)]
pub(crate) struct Reader;

impl super::Reader for Reader {
    fn read<'a>(&mut self, text: &'a str) -> Option<Recorded<'a>> {
        let message: Incoming<'a> = serde_json::from_str(text).ok()?;
        let channel = match message.channel {
            "subscriptions" => return None,
            HEARTBEATS => {
                let key = key(HEARTBEATS, "");
                return Some(Recorded { key, symbol: None, book: None, inner: None });
            }
            "l2_data" => "level2",
            other => other,
        };
        let mut product = None;
        let mut book = BookMessage { id: Some(message.sequence_num), ..BookMessage::default() };
        for event in message.events {
            let subjects = event.trades.into_iter().chain(event.tickers).chain(event.candles);
            let named = subjects.map(|subject| subject.product_id).next();
            product = product.or(event.product_id).or(named);
            book.is_snapshot |= event.kind == "snapshot";
            for update in event.updates {
                let side = if update.side == "bid" { &mut book.bids } else { &mut book.asks };
                side.push((update.price_level, update.new_quantity));
            }
        }
        let key = key(channel, product.as_deref()?);
        let book = (channel == "level2").then_some(book);
        Some(Recorded { key, symbol: product, book, inner: None })
    }
}

fn key(channel: &str, product: &str) -> String {
    format!("{channel} {product}")
}

#[derive(Deserialize)]
struct Call {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    product_ids: Vec<String>,
    #[serde(default)]
    channel: String,
}

/// One connection.
#[derive(Default)]
pub(crate) struct Session {
    /// By key: channel and product.
    streams: BTreeMap<String, (String, String)>,
    /// The number of the next message.
    next: u64,
}

impl Session {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    fn acknowledge(&mut self, at_ns: u64) -> String {
        let number = self.number();
        let mut channels: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (channel, product) in self.streams.values() {
            // The venue lists a channel without products under its own name.
            let product = if product.is_empty() { channel } else { product };
            channels.entry(channel).or_default().insert(product);
        }
        acknowledge(&channels, number, at_ns)
    }

    fn subscribe(&mut self, call: Call, moment: &Moment<'_>) -> Vec<String> {
        let products =
            if call.channel == HEARTBEATS { vec![String::new()] } else { call.product_ids };
        let mut replies = Vec::new();
        for product in products {
            if !product.is_empty() && !moment.listed.has_symbol(&product) {
                return vec![refuse(&format!("{product} is not a valid product"))];
            }
            if self.streams.len() >= STREAMS_MAX {
                return vec![refuse("too many subscriptions")];
            }
            let spelt = (call.channel.clone(), product.clone());
            let is_new = self.streams.insert(key(&call.channel, &product), spelt).is_none();
            let book = moment.book(&product).filter(|_| is_new && call.channel == "level2");
            if let Some(book) = book {
                let [bids, asks] =
                    [Side::Bid, Side::Ask].map(|s| best_levels(&book, s, usize::MAX));
                let at_ns = moment.at_ns;
                let levels = Levels { symbol: &product, bids: &bids, asks: &asks, at_ns };
                replies.push(snapshot(&levels, self.number()));
            }
        }
        // The venue sends the data of a new subscription before it acknowledges it.
        replies.push(self.acknowledge(moment.at_ns));
        replies
    }
}

impl super::Session for Session {
    fn hear(&mut self, text: &str, moment: &Moment<'_>) -> Vec<String> {
        let Ok(call) = serde_json::from_str::<Call>(text) else {
            return vec![refuse("malformed request")];
        };
        match call.kind.as_str() {
            "subscribe" if call.channel.is_empty() => vec![refuse("no channel")],
            "subscribe" => self.subscribe(call, moment),
            "unsubscribe" => {
                self.streams.retain(|_, (channel, product)| {
                    let is_named = product.is_empty() || call.product_ids.contains(product);
                    *channel != call.channel || !is_named
                });
                vec![self.acknowledge(moment.at_ns)]
            }
            other => vec![refuse(&format!("{other} is not a valid type"))],
        }
    }

    fn has(&self, key: &str) -> bool {
        self.streams.contains_key(key)
    }

    fn subscriptions(&self) -> usize {
        self.streams.values().filter(|(_, product)| !product.is_empty()).count()
    }

    fn tell(&mut self, message: &Message, _moment: &Moment<'_>) -> Option<Bytes> {
        let number = self.number();
        renumber(&message.payload, number)
    }

    fn lose(&mut self, _message: &Message, _moment: &Moment<'_>) {
        self.number();
    }
}

/// The same message under another number.
fn renumber(payload: &Bytes, number: u64) -> Option<Bytes> {
    let text = std::str::from_utf8(payload).ok()?;
    let begin = text.find(NUMBER_FIELD)? + NUMBER_FIELD.len();
    let digits = text[begin..].bytes().take_while(u8::is_ascii_digit).count();
    let (head, tail) = (&text[..begin], &text[begin + digits..]);
    let number = number.to_string();
    if text[begin..begin + digits] == number {
        return Some(payload.clone());
    }
    Some([head, &number, tail].concat().into())
}

/// Everything that a connection is subscribed to, by channel.
pub fn acknowledge(channels: &BTreeMap<&str, BTreeSet<&str>>, number: u64, at_ns: u64) -> String {
    let subscriptions = serde_json::json!({ "subscriptions": channels });
    message("subscriptions", number, at_ns, &subscriptions.to_string())
}

/// A request fails as a whole.
fn refuse(reason: &str) -> String {
    format!(r#"{{"type":"error","message":{}}}"#, quoted(reason))
}

fn message(channel: &str, number: u64, at_ns: u64, event: &str) -> String {
    format!(
        r#"{{"channel":"{channel}","timestamp":"{}",{NUMBER_FIELD}{number},"events":[{event}]}}"#,
        rfc3339(at_ns)
    )
}

/// A whole book.
pub fn snapshot(levels: &Levels<'_>, number: u64) -> String {
    book_message("snapshot", levels, number)
}

/// A change of a book.
pub fn update(levels: &Levels<'_>, number: u64) -> String {
    book_message("update", levels, number)
}

fn book_message(kind: &str, levels: &Levels<'_>, number: u64) -> String {
    let at = rfc3339(levels.at_ns);
    let list = |side, levels: &[TruthLevel]| {
        joined(levels, |out, level| {
            out.extend([r#"{"side":""#, side, r#"","event_time":""#, &at]);
            out.extend([r#"","price_level":""#, &level.px]);
            out.extend([r#"","new_quantity":""#, &level.qty, r#""}"#]);
        })
    };
    let sides = [list("bid", levels.bids), list("offer", levels.asks)];
    let updates: Vec<String> = sides.into_iter().filter(|list| !list.is_empty()).collect();
    let event = format!(
        r#"{{"type":"{kind}","product_id":"{}","updates":[{}]}}"#,
        levels.symbol,
        updates.join(",")
    );
    message("l2_data", number, levels.at_ns, &event)
}

/// A trade. The side that the venue writes is the maker's.
pub fn trade(print: &Print<'_>, number: u64) -> String {
    let event = format!(
        r#"{{"type":"update","trades":[{{"product_id":"{}","trade_id":"{}","price":"{}","size":"{}","time":"{}","side":"{}"}}]}}"#,
        print.symbol,
        print.id,
        print.px,
        print.qty,
        rfc3339(print.at_ns),
        if print.buyer_took { "SELL" } else { "BUY" }
    );
    message("market_trades", number, print.at_ns, &event)
}

/// The sign of life of the connection, once a second to who asked for it; `counter` rises by one.
pub fn heartbeat(counter: u64, number: u64, at_ns: u64) -> String {
    let event = format!(r#"{{"current_time":"{}","heartbeat_counter":{counter}}}"#, rfc3339(at_ns));
    message(HEARTBEATS, number, at_ns, &event)
}

/// The body of the list of instruments; a type can be asked for, and all here are of one.
pub(crate) fn instruments(query: &str, listings: &[String]) -> String {
    let is_wanted = query_value(query, "product_type").is_none_or(|kind| kind == "SPOT");
    let listings = if is_wanted { listings } else { &[] };
    format!(r#"{{"products":[{}],"num_products":{}}}"#, listings.join(","), listings.len())
}

/// The body for any other path.
pub(crate) fn other(path: &str, listings: &[String], at_ns: u64) -> String {
    let assets = assets(listings, ["base_currency_id", "quote_currency_id"]);
    let (fiat, crypto): (Vec<&String>, Vec<&String>) = assets.iter().partition(|id| *id == "USD");
    let list = |ids: &[&String], word: &dyn Fn(&String) -> String| {
        ids.iter().map(|id| word(id)).collect::<Vec<_>>().join(",")
    };
    if path.ends_with("/v2/currencies/crypto") {
        let word = |id: &String| {
            format!(
                r#"{{"asset_id":"{id}","code":"{id}","name":"{id}","exponent":8,"type":"crypto"}}"#
            )
        };
        return format!(r#"{{"data":[{}]}}"#, list(&crypto, &word));
    }
    if path.ends_with("/v2/currencies") {
        let word = |id: &String| format!(r#"{{"id":"{id}","name":"{id}","min_size":"0.01"}}"#);
        return format!(r#"{{"data":[{}]}}"#, list(&fiat, &word));
    }
    if path.ends_with("/v2/exchange-rates") {
        let rates = list(&crypto, &|id| format!(r#""{id}":"1""#));
        return format!(r#"{{"data":{{"currency":"USD","rates":{{{rates}}}}}}}"#);
    }
    if path.ends_with("/time") {
        return format!(
            r#"{{"iso":"{}","epochSeconds":"{}","epochMillis":"{}"}}"#,
            rfc3339(at_ns),
            at_ns / 1_000_000_000,
            at_ns / 1_000_000
        );
    }
    if path.ends_with("/products") {
        return instruments("", &[]);
    }
    r#"{"data":[]}"#.to_owned()
}
