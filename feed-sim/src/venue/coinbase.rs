//! Coinbase Exchange's words: its messages and a client's requests → values, and values → its
//! messages.
//!
//! Called by the truth and the replay. Its books have neither numbers nor checksums; `level2` and
//! `level2_batch` are one stream here, because a recording has it at one pace only.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::Deserialize;
use tickfan_core::market::Side;

use crate::clock::rfc3339;
use crate::truth::TruthLevel;
use crate::venue::{
    BookMessage, Levels, Message, Moment, Print, Recorded, STREAMS_MAX, assets, best_levels,
    joined, quoted, quoted_pairs,
};

/// Where the list of instruments is.
pub(crate) const INSTRUMENTS_PATH: &str = "/products";

#[derive(Deserialize)]
struct Incoming<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow, default)]
    product_id: Cow<'a, str>,
    #[serde(borrow, default)]
    bids: Vec<(&'a str, &'a str)>,
    #[serde(borrow, default)]
    asks: Vec<(&'a str, &'a str)>,
    /// Side, price, quantity.
    #[serde(borrow, default)]
    changes: Vec<(&'a str, &'a str, &'a str)>,
}

/// Reads what was recorded.
#[derive(Debug)]
pub(crate) struct Reader;

impl super::Reader for Reader {
    fn read<'a>(&mut self, text: &'a str) -> Option<Recorded<'a>> {
        let message: Incoming<'a> = serde_json::from_str(text).ok()?;
        let changes = |side| {
            let of_side = message.changes.iter().filter(move |change| change.0 == side);
            of_side.map(|(_, px, qty)| (*px, *qty)).collect()
        };
        let (channel, book) = match message.kind {
            "snapshot" => {
                let (bids, asks) = (message.bids, message.asks);
                let book = BookMessage { is_snapshot: true, bids, asks, ..BookMessage::default() };
                ("level2", Some(book))
            }
            "l2update" => {
                let (bids, asks) = (changes("buy"), changes("sell"));
                ("level2", Some(BookMessage { bids, asks, ..BookMessage::default() }))
            }
            "match" | "last_match" => ("matches", None),
            "ticker" => ("ticker", None),
            "heartbeat" => ("heartbeat", None),
            _ => return None,
        };
        let key = key(channel, &message.product_id);
        Some(Recorded { key, symbol: Some(message.product_id), book, inner: None })
    }
}

fn key(channel: &str, product: &str) -> String {
    let channel = if channel == "level2_batch" { "level2" } else { channel };
    format!("{channel} {product}")
}

#[derive(Deserialize)]
struct Call {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    product_ids: Vec<String>,
    #[serde(default)]
    channels: Vec<Channel>,
}

/// A channel for all products of the request, or for its own.
#[derive(Deserialize)]
#[serde(untagged)]
enum Channel {
    Name(String),
    Named {
        name: String,
        #[serde(default)]
        product_ids: Vec<String>,
    },
}

/// One connection.
#[derive(Default)]
pub(crate) struct Session {
    /// By key: the channel as the client spelt it, and the product.
    streams: BTreeMap<String, (String, String)>,
}

impl Session {
    fn begin(&mut self, channel: &str, product: &str, moment: &Moment<'_>) -> Result<bool, String> {
        if !moment.listed.has_symbol(product) {
            return Err(format!("{product} is not a valid product"));
        }
        if self.streams.len() >= STREAMS_MAX {
            return Err("too many subscriptions".to_owned());
        }
        let spelt = (channel.to_owned(), product.to_owned());
        Ok(self.streams.insert(key(channel, product), spelt).is_none())
    }

    fn subscribe(&mut self, wanted: &[(String, String)], moment: &Moment<'_>) -> Vec<String> {
        let mut books = Vec::new();
        for (channel, product) in wanted {
            match self.begin(channel, product, moment) {
                Err(reason) => return vec![refuse(&reason)],
                Ok(is_new) if is_new && channel.starts_with("level2") => books.push(product),
                Ok(_) => {}
            }
        }
        let snapshots = books.into_iter().filter_map(|product| {
            let book = moment.book(product)?;
            let [bids, asks] = [Side::Bid, Side::Ask].map(|s| best_levels(&book, s, usize::MAX));
            let at_ns = moment.at_ns;
            Some(snapshot(&Levels { symbol: product, bids: &bids, asks: &asks, at_ns }))
        });
        std::iter::once(self.acknowledge()).chain(snapshots).collect()
    }

    fn acknowledge(&self) -> String {
        let mut channels: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (channel, product) in self.streams.values() {
            channels.entry(channel).or_default().insert(product);
        }
        acknowledge(&channels)
    }
}

impl super::Session for Session {
    fn hear(&mut self, text: &str, moment: &Moment<'_>) -> Vec<String> {
        let Ok(call) = serde_json::from_str::<Call>(text) else {
            return vec![refuse("Malformed JSON")];
        };
        let for_all = &call.product_ids;
        let wanted: Vec<(String, String)> = call
            .channels
            .into_iter()
            .flat_map(|channel| {
                let (name, products) = match channel {
                    Channel::Named { name, product_ids } if !product_ids.is_empty() => {
                        (name, product_ids)
                    }
                    Channel::Name(name) | Channel::Named { name, .. } => (name, for_all.clone()),
                };
                products.into_iter().map(move |product| (name.clone(), product))
            })
            .collect();
        match call.kind.as_str() {
            "subscribe" if wanted.is_empty() => vec![refuse("no products or channels")],
            "subscribe" => self.subscribe(&wanted, moment),
            "unsubscribe" => {
                for (channel, product) in &wanted {
                    self.streams.remove(&key(channel, product));
                }
                vec![self.acknowledge()]
            }
            other => vec![refuse(&format!("{other} is not a valid type"))],
        }
    }

    fn has(&self, key: &str) -> bool {
        self.streams.contains_key(key)
    }

    fn subscriptions(&self) -> usize {
        self.streams.values().filter(|(channel, _)| channel != "heartbeat").count()
    }

    fn tell(&mut self, message: &Message, _moment: &Moment<'_>) -> Option<Bytes> {
        Some(message.payload.clone())
    }
}

/// Everything that a connection is subscribed to, by channel.
pub fn acknowledge(channels: &BTreeMap<&str, BTreeSet<&str>>) -> String {
    let channel = |(name, products): (&&str, &BTreeSet<&str>)| {
        let products: Vec<String> = products.iter().map(|product| quoted(product)).collect();
        format!(r#"{{"name":{},"product_ids":[{}]}}"#, quoted(name), products.join(","))
    };
    let channels: Vec<String> = channels.iter().map(channel).collect();
    format!(r#"{{"type":"subscriptions","channels":[{}]}}"#, channels.join(","))
}

/// A request fails as a whole.
fn refuse(reason: &str) -> String {
    format!(r#"{{"type":"error","message":"Failed to subscribe","reason":{}}}"#, quoted(reason))
}

/// A whole book.
pub fn snapshot(levels: &Levels<'_>) -> String {
    format!(
        r#"{{"type":"snapshot","product_id":"{}","asks":[{}],"bids":[{}]}}"#,
        levels.symbol,
        quoted_pairs(levels.asks),
        quoted_pairs(levels.bids)
    )
}

/// A change of a book.
pub fn update(levels: &Levels<'_>) -> String {
    let list = |side, levels: &[TruthLevel]| {
        joined(levels, |out, level| {
            out.extend([r#"[""#, side, r#"",""#, &level.px, r#"",""#, &level.qty, r#""]"#]);
        })
    };
    let sides = [list("buy", levels.bids), list("sell", levels.asks)];
    let changes: Vec<String> = sides.into_iter().filter(|list| !list.is_empty()).collect();
    format!(
        r#"{{"type":"l2update","product_id":"{}","changes":[{}],"time":"{}"}}"#,
        levels.symbol,
        changes.join(","),
        rfc3339(levels.at_ns)
    )
}

/// A trade; `sequence` is the product's. The side that the venue writes is the maker's.
pub fn trade(print: &Print<'_>, sequence: u64) -> String {
    format!(
        r#"{{"type":"match","trade_id":{id},"maker_order_id":"00000000-0000-4000-8000-{id:012x}","taker_order_id":"00000000-0000-4000-9000-{id:012x}","side":"{}","size":"{}","price":"{}","product_id":"{}","sequence":{sequence},"time":"{}"}}"#,
        if print.buyer_took { "sell" } else { "buy" },
        print.qty,
        print.px,
        print.symbol,
        rfc3339(print.at_ns),
        id = print.id,
    )
}

/// The sign of life of a product, once a second to who asked for it.
pub fn heartbeat(symbol: &str, sequence: u64, last_trade_id: u64, at_ns: u64) -> String {
    format!(
        r#"{{"type":"heartbeat","sequence":{sequence},"last_trade_id":{last_trade_id},"product_id":"{symbol}","time":"{}"}}"#,
        rfc3339(at_ns)
    )
}

/// The body of the list of instruments.
pub(crate) fn instruments(listings: &[String]) -> String {
    format!("[{}]", listings.join(","))
}

/// The body for any other path.
pub(crate) fn other(path: &str, listings: &[String], at_ns: u64) -> String {
    match path.rsplit('/').next() {
        Some("currencies") => {
            let currency = |id: &String| {
                format!(
                    r#"{{"id":"{id}","name":"{id}","min_size":"0.00000001","status":"online","max_precision":"0.00000001","details":{{"type":"{}","network_confirmations":0}},"supported_networks":[]}}"#,
                    if id == "USD" { "fiat" } else { "crypto" }
                )
            };
            let assets = assets(listings, ["base_currency", "quote_currency"]);
            format!("[{}]", assets.iter().map(currency).collect::<Vec<_>>().join(","))
        }
        Some("time") => {
            format!(r#"{{"iso":"{}","epoch":{}}}"#, rfc3339(at_ns), at_ns / 1_000_000_000)
        }
        _ => "[]".to_owned(),
    }
}
