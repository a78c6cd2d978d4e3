//! Coinbase Exchange.
//!
//! Turns stream messages and the product list into market events and listings; the image of a book
//! comes with its subscription. The feed thread calls it for every message; images that are too
//! long for it are read by the same function on the REST thread. The venue numbers nothing in its
//! books, so it must never hide the signs of life that are the only guard there is.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use serde_json::value::RawValue;
use tickfan_core::decimal::Decimal;
use tickfan_core::market::{
    Aggressor, BookEvent, BookKind, Channel, EventBatch, InstrumentId, LevelChange, Listing,
    MarketEvent, Nanos, TradeId, TradeNumbering, TradePrint, TradesEvent, Trading,
};

use super::text::{each, measured, nanos_of};
use super::{
    DecodeError, Endpoints, ImageDecoder, LargeImage, Malformed, Resync, Subscription,
    VenueDecoder, quoted_after,
};

/// The book of every product, in batches of 50 ms. `level2`, without batches, needs an account.
const BOOK: &str = "level2_batch";

/// What is subscribed to of every product. `status` would tell of halts, but with the description
/// of every product of the venue, every five seconds.
const CHANNELS: [&str; 3] = [BOOK, "matches", "heartbeat"];

const SECOND_NS: Nanos = 1_000_000_000;

/// "Heartbeats are sent every second" for every product: three of them are missing.
const HEARTBEAT_NS: Nanos = 3 * SECOND_NS;

/// Ten seconds of no heartbeat of any product.
const SILENCE_NS: Nanos = 10 * SECOND_NS;

/// Type and product stand within the first bytes of a message, before its levels.
const HEAD_BYTES: usize = 256;

/// The default endpoints.
pub const fn endpoints() -> Endpoints {
    Endpoints {
        stream: "wss://ws-feed.exchange.coinbase.com",
        rest: "https://api.exchange.coinbase.com",
        instruments_paths: &["/products"],
        // Images come on the stream: the list is all that REST is asked for.
        instruments_weight: 1,
        rest_weight_per_minute: 60,
        // "Spread subscriptions over more than one websocket client connection": an image may have
        // megabytes, all come at once, and who reads too slowly is disconnected.
        instruments_per_connection: 50,
        // "8 requests per second" from one address, on each connection and in connections.
        text_spacing_ns: SECOND_NS / 4,
        texts_at_once: 8,
        connect_spacing_ns: SECOND_NS / 4,
        connection_life_ns: None,
    }
}

/// One product of the list, as far as it matters here.
#[derive(serde::Deserialize)]
struct Product {
    id: String,
    base_currency: String,
    quote_currency: String,
    quote_increment: String,
    base_increment: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    trading_disabled: bool,
    #[serde(default)]
    cancel_only: bool,
}

impl Product {
    fn listing(&self) -> Option<Listing> {
        let step = |text: &str| Decimal::parse(text.as_bytes()).ok().filter(|step| !step.is_zero());
        Some(Listing {
            native: self.id.as_str().into(),
            base: self.base_currency.as_str().into(),
            quote: self.quote_currency.as_str().into(),
            kind: "spot".into(),
            tick: step(&self.quote_increment)?,
            lot: step(&self.base_increment)?,
            trading: match self.status.as_str() {
                "delisted" => Trading::Ended,
                "offline" | "internal" => Trading::Halted,
                _ if self.trading_disabled || self.cancel_only => Trading::Halted,
                _ => Trading::Open,
            },
        })
    }
}

/// Reads the product list.
///
/// # Errors
/// [`Malformed`] when the body is no list; a product that cannot be read is left out.
pub fn listings(body: &[u8]) -> Result<Vec<Listing>, Malformed> {
    let products: Vec<&RawValue> = serde_json::from_slice(body).map_err(|error| {
        if error.is_data() { Malformed::Field("products") } else { Malformed::NotJson }
    })?;
    let products = products.iter().filter_map(|raw| serde_json::from_str(raw.get()).ok());
    Ok(products.filter_map(|product: Product| product.listing()).collect())
}

/// Decodes one connection.
pub struct Decoder {
    instruments: Vec<(InstrumentId, Arc<str>)>,
    ids: HashMap<Arc<str>, InstrumentId>,
    /// The asks of an update, which mixes both sides, until all bids are read.
    asks: Vec<LevelChange>,
    /// Products for which the venue has refused a request, until one succeeds.
    refused: Vec<InstrumentId>,
}

impl Decoder {
    /// A decoder for the instruments of one connection. The venue has books of full depth only,
    /// and one trade stream.
    pub fn new(subscription: Subscription) -> Self {
        let ids = subscription.instruments.iter().map(|(id, symbol)| (Arc::clone(symbol), *id));
        Self {
            ids: ids.collect(),
            instruments: subscription.instruments,
            asks: Vec::new(),
            refused: Vec::new(),
        }
    }

    /// Asks for everything of these products; there is nothing to ask for of none.
    fn request_all(&self, is_wanted: impl Fn(InstrumentId) -> bool) -> Option<String> {
        let wanted = self.instruments.iter().filter(|(id, _)| is_wanted(*id));
        let symbols: Vec<&str> = wanted.map(|(_, symbol)| &**symbol).collect();
        (!symbols.is_empty()).then(|| request("subscribe", &symbols, &CHANNELS))
    }

    fn read(&mut self, text: &[u8], out: &mut EventBatch) -> Result<(), DecodeError> {
        let message = Message::read(text)
            .map_err(|what| DecodeError { about: self.subject_of_broken(text), what })?;
        let Some(channel) = channel_of_type(&message.kind) else {
            self.read_control(&message, out);
            return Ok(());
        };
        if message.product_id.is_empty() {
            return Err(DecodeError { about: None, what: Malformed::Field("product_id") });
        }
        let Some(&instrument) = self.ids.get(&*message.product_id) else {
            return Ok(());
        };
        match &*message.kind {
            "snapshot" => read_snapshot(instrument, &message, out),
            "l2update" => self.read_update(instrument, &message, out),
            "match" => read_match(instrument, &message, out),
            _ => read_heartbeat(instrument, &message, out),
        }
        .map_err(|what| DecodeError { about: Some((instrument, channel)), what })
    }
}

impl VenueDecoder for Decoder {
    fn stream_path(&self) -> &str {
        "/"
    }

    fn subscribe(&self) -> Vec<String> {
        self.request_all(|_| true).into_iter().collect()
    }

    fn resync(&mut self, instrument: InstrumentId, first: bool) -> Resync {
        let known = self.instruments.iter().find(|(id, _)| *id == instrument);
        let Some((_, symbol)) = known.filter(|_| !first) else {
            return Resync::Send(Vec::new());
        };
        let words = ["unsubscribe", "subscribe"];
        Resync::Send(words.map(|word| request(word, &[symbol], &[BOOK])).into())
    }

    fn decode(&mut self, message: &mut [u8], out: &mut EventBatch) -> Result<(), DecodeError> {
        out.all_or_nothing(|out| self.read(message, out))
    }

    fn image_decoder(&self) -> ImageDecoder {
        Arc::new(read_image)
    }

    fn silence_ns(&self) -> Nanos {
        SILENCE_NS
    }

    fn heartbeat_ns(&self) -> Option<Nanos> {
        Some(HEARTBEAT_NS)
    }

    fn trades_vouch(&self) -> bool {
        true
    }

    fn large_image(&self, message: &[u8]) -> Option<LargeImage> {
        let head = &message[..HEAD_BYTES.min(message.len())];
        if quoted_after(head, b"\"type\":\"")? != "snapshot" {
            return None;
        }
        let instrument = *self.ids.get(quoted_after(head, b"\"product_id\":\"")?)?;
        Some(LargeImage { instrument, number: None })
    }
}

fn request(word: &str, symbols: &[&str], channels: &[&str]) -> String {
    serde_json::json!({"type": word, "product_ids": symbols, "channels": channels}).to_string()
}

/// Any message. Values stay raw so that whatever is wrong with one of them can be told with the
/// product.
#[derive(serde::Deserialize)]
struct Message<'m> {
    #[serde(borrow, default, rename = "type")]
    kind: Cow<'m, str>,
    #[serde(borrow, default)]
    product_id: Cow<'m, str>,
    #[serde(borrow)]
    bids: Option<&'m RawValue>,
    #[serde(borrow)]
    asks: Option<&'m RawValue>,
    #[serde(borrow)]
    changes: Option<&'m RawValue>,
    #[serde(borrow)]
    time: Option<&'m RawValue>,
    #[serde(borrow)]
    side: Option<&'m RawValue>,
    #[serde(borrow)]
    price: Option<&'m RawValue>,
    #[serde(borrow)]
    size: Option<&'m RawValue>,
    #[serde(borrow)]
    trade_id: Option<&'m RawValue>,
    #[serde(borrow)]
    last_trade_id: Option<&'m RawValue>,
    #[serde(borrow)]
    channels: Option<&'m RawValue>,
    message: Option<String>,
    reason: Option<String>,
}

impl<'m> Message<'m> {
    fn read(text: &'m [u8]) -> Result<Self, Malformed> {
        serde_json::from_slice(text).map_err(|error| {
            if error.is_data() { Malformed::Field("message") } else { Malformed::NotJson }
        })
    }

    /// The venue's time; 0 where it tells none, as in snapshots.
    fn te_ns(&self) -> Result<Nanos, Malformed> {
        match self.time {
            None => Ok(0),
            time => nanos_of(quoted(time, "time")?.as_bytes()).ok_or(Malformed::Field("time")),
        }
    }
}

/// One entry of an acknowledgement.
#[derive(serde::Deserialize)]
struct Acknowledged<'m> {
    #[serde(borrow)]
    name: Cow<'m, str>,
    #[serde(borrow)]
    product_ids: Vec<Cow<'m, str>>,
}

impl Decoder {
    fn read_update(
        &mut self,
        instrument: InstrumentId,
        message: &Message<'_>,
        out: &mut EventBatch,
    ) -> Result<(), Malformed> {
        let (mut px_digits, mut qty_digits) = (0, 0);
        let start = out.levels.len();
        self.asks.clear();
        each(message.changes, "changes", |(side, px, qty): (&str, &str, &str)| {
            let change = LevelChange {
                px: measured(px, "price", &mut px_digits)?,
                qty: measured(qty, "size", &mut qty_digits)?,
            };
            match side {
                "buy" => out.levels.push(change),
                "sell" => self.asks.push(change),
                _ => return Err(Malformed::Field("side")),
            }
            Ok(())
        })?;
        let middle = out.levels.len();
        out.levels.append(&mut self.asks);
        out.events.push(MarketEvent::Book(BookEvent {
            instrument,
            kind: BookKind::Delta,
            bids: start..middle,
            asks: middle..out.levels.len(),
            continuity: None,
            checksum: None,
            te_ns: message.te_ns()?,
            px_digits,
            qty_digits,
            cut_at: None,
        }));
        Ok(())
    }

    /// Reads what is not about the market: acknowledgements and errors. Whatever else there is
    /// (the last trade before the subscription, tickers, messages yet unknown) is left out.
    fn read_control(&mut self, message: &Message<'_>, out: &mut EventBatch) {
        match &*message.kind {
            "subscriptions" => self.read_acknowledgement(message, out),
            "error" => self.read_error(message, out),
            _ => {}
        }
    }

    /// The venue answers with all that is subscribed to by now.
    fn read_acknowledgement(&mut self, message: &Message<'_>, out: &mut EventBatch) {
        self.refused.clear();
        // What cannot be read confirms nothing; then the subscription is taken to be in force.
        let _ = each(message.channels, "channels", |entry: Acknowledged<'_>| {
            // `level2_batch` is confirmed as `level2_50`.
            let channel = match &*entry.name {
                "matches" => Channel::Trades,
                name if name.starts_with("level2") => Channel::Book,
                _ => return Ok(()),
            };
            let known = entry.product_ids.iter().filter_map(|symbol| self.ids.get(&**symbol));
            out.events.extend(known.map(|id| MarketEvent::Subscribed { instrument: *id, channel }));
            Ok(())
        });
    }

    fn read_error(&mut self, message: &Message<'_>, out: &mut EventBatch) {
        let said = message.message.as_deref().unwrap_or_default();
        let reason = message.reason.as_deref().unwrap_or_default();
        // Sent before the venue disconnects a client that reads too slowly, or sends too much.
        if [said, reason].iter().any(|text| text.contains("ErrSlow")) {
            out.events.push(MarketEvent::Shutdown);
            return;
        }
        // "FOO-BAR is not a valid product"
        let instrument = reason.split_whitespace().find_map(|word| self.ids.get(word)).copied();
        let message = if reason.is_empty() { said.to_owned() } else { format!("{said}: {reason}") };
        out.events.push(MarketEvent::Refused { instrument, message });
        // The request failed as a whole: one product that is gone must not cost the others theirs.
        if let Some(instrument) = instrument
            && !self.refused.contains(&instrument)
        {
            self.refused.push(instrument);
            let rest = self.request_all(|id| !self.refused.contains(&id));
            out.events.extend(rest.map(MarketEvent::Reply));
        }
    }

    /// What a message is about that cannot be read: its type and product may be readable still.
    fn subject_of_broken(&self, text: &[u8]) -> Option<(InstrumentId, Channel)> {
        let channel = channel_of_type(quoted_after(text, b"\"type\":\"")?)?;
        Some((*self.ids.get(quoted_after(text, b"\"product_id\":\"")?)?, channel))
    }
}

/// The channel that a type of message is about.
fn channel_of_type(kind: &str) -> Option<Channel> {
    match kind {
        "snapshot" | "l2update" => Some(Channel::Book),
        // What a heartbeat proves is that no trade is missing.
        "match" | "heartbeat" => Some(Channel::Trades),
        _ => None,
    }
}

fn read_snapshot(
    instrument: InstrumentId,
    message: &Message<'_>,
    out: &mut EventBatch,
) -> Result<(), Malformed> {
    let (mut px_digits, mut qty_digits) = (0, 0);
    let mut read_side = |side, name| {
        let start = out.levels.len();
        each(side, name, |(px, qty): (&str, &str)| {
            out.levels.push(LevelChange {
                px: measured(px, "price", &mut px_digits)?,
                qty: measured(qty, "size", &mut qty_digits)?,
            });
            Ok(())
        })?;
        Ok(start..out.levels.len())
    };
    let bids = read_side(message.bids, "bids")?;
    let asks = read_side(message.asks, "asks")?;
    out.events.push(MarketEvent::Book(BookEvent {
        instrument,
        kind: BookKind::Image,
        bids,
        asks,
        continuity: None,
        checksum: None,
        te_ns: message.te_ns()?,
        px_digits,
        qty_digits,
        cut_at: None,
    }));
    Ok(())
}

/// Reads a snapshot that was too long to be decoded between two other messages.
fn read_image(
    instrument: InstrumentId,
    body: &mut [u8],
    out: &mut EventBatch,
) -> Result<(), Malformed> {
    out.all_or_nothing(|out| {
        Message::read(body).and_then(|message| match &*message.kind {
            "snapshot" => read_snapshot(instrument, &message, out),
            _ => Err(Malformed::Field("type")),
        })
    })
}

fn read_match(
    instrument: InstrumentId,
    message: &Message<'_>,
    out: &mut EventBatch,
) -> Result<(), Malformed> {
    // "The side field indicates the maker order side."
    let aggressor = match quoted(message.side, "side")? {
        "buy" => Aggressor::Sell,
        "sell" => Aggressor::Buy,
        _ => return Err(Malformed::Field("side")),
    };
    let id = integer(message.trade_id, "trade_id")?;
    let start = out.trades.len();
    out.trades.push(TradePrint {
        te_ns: message.te_ns()?,
        px: measured(quoted(message.price, "price")?, "price", &mut 0)?,
        qty: measured(quoted(message.size, "size")?, "size", &mut 0)?,
        aggressor,
        id: TradeId::Number(id),
        number: Some(id),
    });
    out.events.push(MarketEvent::Trades(TradesEvent {
        instrument,
        trades: start..out.trades.len(),
        numbering: TradeNumbering::Consecutive,
    }));
    Ok(())
}

fn read_heartbeat(
    instrument: InstrumentId,
    message: &Message<'_>,
    out: &mut EventBatch,
) -> Result<(), Malformed> {
    let newest_trade = Some(integer(message.last_trade_id, "last_trade_id")?);
    out.events.push(MarketEvent::Heartbeat { instrument, newest_trade });
    Ok(())
}

fn integer(raw: Option<&RawValue>, name: &'static str) -> Result<u64, Malformed> {
    raw.and_then(|raw| raw.get().parse().ok()).ok_or(Malformed::Field(name))
}

/// The text of a string without escapes; prices, times and words have none.
fn quoted<'m>(raw: Option<&'m RawValue>, name: &'static str) -> Result<&'m str, Malformed> {
    raw.and_then(|raw| raw.get().strip_prefix('"')?.strip_suffix('"')).ok_or(Malformed::Field(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::venue::testing::{self, damage, decimal, level, refusal, shown};
    use proptest::prelude::*;

    const BTC: InstrumentId = InstrumentId(3);
    const ETH: InstrumentId = InstrumentId(4);

    const SNAPSHOT: &str = r#"{"type":"snapshot","product_id":"BTC-USD","asks":[["10102.55","0.57753524"],["10103","1"]],"bids":[["10101.10","0.45054140"]]}"#;
    const UPDATE: &str = r#"{"type":"l2update","product_id":"BTC-USD","changes":[["sell","10102.55","0.0"],["buy","10101.8000","0.162567"],["sell","10103.0","0.000"]],"time":"2021-04-17T16:43:37.078325Z"}"#;
    const MATCH: &str = r#"{"type":"match","trade_id":280232,"maker_order_id":"2a0da34e","taker_order_id":"3c82abaa","side":"sell","size":"985","price":"0.00001305","product_id":"BTC-USD","sequence":177100030,"time":"2021-04-17T16:43:37.089723Z"}"#;
    const HEARTBEAT: &str = r#"{"type":"heartbeat","sequence":90,"last_trade_id":20,"product_id":"BTC-USD","time":"2014-11-07T08:19:28.464459Z"}"#;

    fn decoder() -> Decoder {
        let instruments = vec![(BTC, "BTC-USD".into()), (ETH, "ETH-USD".into())];
        Decoder::new(Subscription { instruments, depth: None, trades: None })
    }

    fn decoded(message: &str) -> EventBatch {
        testing::decoded(&mut decoder(), message)
    }

    #[test]
    fn a_snapshot_is_the_whole_book() {
        let out = decoded(SNAPSHOT);
        let image = BookEvent {
            instrument: BTC,
            kind: BookKind::Image,
            bids: 0..1,
            asks: 1..3,
            continuity: None,
            checksum: None,
            te_ns: 0,
            px_digits: 2,
            qty_digits: 8,
            cut_at: None,
        };
        assert_eq!(out.events, [MarketEvent::Book(image)]);
        let expected =
            [level("10101.1", "0.4505414"), level("10102.55", "0.57753524"), level("10103", "1")];
        assert_eq!(out.levels, expected);
    }

    #[test]
    fn an_update_has_its_sides_sorted_out_and_keeps_their_order() {
        let mut decoder = decoder();
        let mut out = EventBatch::default();
        decoder.decode(&mut SNAPSHOT.as_bytes().to_vec(), &mut out).unwrap();
        decoder.decode(&mut UPDATE.as_bytes().to_vec(), &mut out).unwrap();
        let delta = BookEvent {
            instrument: BTC,
            kind: BookKind::Delta,
            bids: 3..4,
            asks: 4..6,
            continuity: None,
            checksum: None,
            te_ns: 1_618_677_817_078_325_000,
            px_digits: 4,
            qty_digits: 6,
            cut_at: None,
        };
        assert_eq!(out.events[1..], [MarketEvent::Book(delta)]);
        let expected = [level("10101.8", "0.162567"), level("10102.55", "0"), level("10103", "0")];
        assert_eq!(out.levels[3..], expected);
    }

    #[test]
    fn a_match_names_the_side_of_the_maker() {
        let out = decoded(MATCH);
        let trades =
            TradesEvent { instrument: BTC, trades: 0..1, numbering: TradeNumbering::Consecutive };
        assert_eq!(out.events, [MarketEvent::Trades(trades)]);
        let print = TradePrint {
            te_ns: 1_618_677_817_089_723_000,
            px: decimal("0.00001305"),
            qty: decimal("985"),
            aggressor: Aggressor::Buy,
            id: TradeId::Number(280_232),
            number: Some(280_232),
        };
        assert_eq!(out.trades, [print]);
        assert_eq!(decoded(&MATCH.replace("sell", "buy")).trades[0].aggressor, Aggressor::Sell);
    }

    #[test]
    fn control_messages_become_what_the_session_needs() {
        let refused = |instrument, message: &str| {
            vec![MarketEvent::Refused { instrument, message: message.to_owned() }]
        };
        let subscribed = |instrument, channel| MarketEvent::Subscribed { instrument, channel };
        for (message, expected) in [
            (
                r#"{"type":"subscriptions","channels":[{"name":"level2_50","product_ids":["BTC-USD","NOT-ASKED"],"account_ids":null},{"name":"heartbeat","product_ids":["BTC-USD"]},{"name":"matches","product_ids":["ETH-USD"]}]}"#.to_owned(),
                vec![subscribed(BTC, Channel::Book), subscribed(ETH, Channel::Trades)],
            ),
            (r#"{"type":"subscriptions","channels":5}"#.to_owned(), vec![]),
            (
                HEARTBEAT.to_owned(),
                vec![MarketEvent::Heartbeat { instrument: BTC, newest_trade: Some(20) }],
            ),
            (
                r#"{"type":"error","message":"Failed to subscribe","reason":"level2 requires authentication"}"#.to_owned(),
                refused(None, "Failed to subscribe: level2 requires authentication"),
            ),
            (r#"{"message":"error message","type":"error"}"#.to_owned(), refused(None, "error message")),
            (r#"{"type":"error","message":"ErrSlowConsume"}"#.to_owned(), vec![MarketEvent::Shutdown]),
            (
                r#"{"type":"error","message":"closing","reason":"ErrSlowRead"}"#.to_owned(),
                vec![MarketEvent::Shutdown],
            ),
            (MATCH.replace("match", "last_match"), vec![]),
            (MATCH.replace("match", "received"), vec![]),
            (UPDATE.replace("BTC-USD", "NOT-ASKED"), vec![]),
            ("{}".to_owned(), vec![]),
        ] {
            let out = decoded(&message);
            assert_eq!(out.events, expected, "{message}");
            assert!(out.levels.is_empty() && out.trades.is_empty(), "{message}");
        }
    }

    #[test]
    fn a_product_that_is_refused_is_left_out_and_the_rest_asked_for_again() {
        let mut decoder = decoder();
        let mut hear = |message: &str| testing::decoded(&mut decoder, message).events;
        let error = |product| {
            format!(
                r#"{{"type":"error","message":"Failed to subscribe","reason":"{product} is not a valid product"}}"#
            )
        };
        let refused = |instrument, product| MarketEvent::Refused {
            instrument: Some(instrument),
            message: format!("Failed to subscribe: {product} is not a valid product"),
        };
        let rest = MarketEvent::Reply(request("subscribe", &["BTC-USD"], &CHANNELS));
        for _ in 0..2 {
            assert_eq!(hear(&error("ETH-USD")), [refused(ETH, "ETH-USD"), rest.clone()]);
            assert_eq!(hear(&error("ETH-USD")), [refused(ETH, "ETH-USD")], "asked for already");
            assert_eq!(hear(&error("BTC-USD")), [refused(BTC, "BTC-USD")], "nothing is left");
            // A request succeeds: the next failure is that of another.
            assert_eq!(hear(r#"{"type":"subscriptions","channels":[]}"#), []);
        }
    }

    #[test]
    fn a_malformed_message_tells_what_it_was_about_and_leaves_nothing() {
        use tickfan_core::decimal::DecimalError::{Malformed as NoNumber, Overflow};
        const BOOK: Option<(InstrumentId, Channel)> = Some((BTC, Channel::Book));
        const TRADES: Option<(InstrumentId, Channel)> = Some((BTC, Channel::Trades));
        let field = Malformed::Field;
        let number = Malformed::Number;
        for (message, about, what) in [
            (SNAPSHOT.replace("bids", "bid"), BOOK, field("bids")),
            (SNAPSHOT.replace(r#""1"]"#, r#""1","2"]"#), BOOK, field("asks")),
            (SNAPSHOT.replace(r#""1"]"#, "1]"), BOOK, field("asks")),
            (SNAPSHOT.replace("10103", "1e40"), BOOK, number("price", Overflow)),
            (UPDATE.replace("0.162567", ""), BOOK, number("size", NoNumber)),
            (UPDATE.replace("0.162567", &"9".repeat(40)), BOOK, number("size", Overflow)),
            (UPDATE.replace("buy", "bid"), BOOK, field("side")),
            (UPDATE.replace(r#""buy","#, ""), BOOK, field("changes")),
            (UPDATE.replace("changes", "change"), BOOK, field("changes")),
            (UPDATE.replace("2021-04", "2021-13"), BOOK, field("time")),
            (UPDATE.replace("BTC-USD", ""), None, field("product_id")),
            (UPDATE.replace(r#""BTC-USD""#, "5"), None, field("message")),
            (UPDATE.replace(r#"Z"}"#, ""), BOOK, Malformed::NotJson),
            (UPDATE.replace(r#"Z"}"#, "").replace("l2update", "other"), None, Malformed::NotJson),
            (MATCH.replace(r#"Z"}"#, ""), TRADES, Malformed::NotJson),
            (MATCH.replace(r#""sell""#, r#""long""#), TRADES, field("side")),
            (MATCH.replace("280232", "-1"), TRADES, field("trade_id")),
            (MATCH.replace("280232", r#""280232""#), TRADES, field("trade_id")),
            (MATCH.replace(r#""985""#, "985"), TRADES, field("size")),
            (MATCH.replace("0.00001305", "x"), TRADES, number("price", NoNumber)),
            (HEARTBEAT.replace("last_trade_id", "newest"), TRADES, field("last_trade_id")),
            (String::new(), None, Malformed::NotJson),
            ("[]".to_owned(), None, field("message")),
            ("[".repeat(100_000), None, field("message")),
            ("\u{0}x\"\\{[".repeat(170_000), None, Malformed::NotJson),
        ] {
            let error = refusal(&mut decoder(), &[UPDATE, MATCH], &message);
            assert_eq!(error, DecodeError { about, what }, "{}", shown(&message));
        }
    }

    #[test]
    fn an_update_after_a_malformed_one_has_nothing_of_it() {
        let mut decoder = decoder();
        let mut out = EventBatch::default();
        let broken = UPDATE.replace("0.162567", "");
        decoder.decode(&mut broken.into_bytes(), &mut out).unwrap_err();
        decoder.decode(&mut UPDATE.as_bytes().to_vec(), &mut out).unwrap();
        assert_eq!(out.levels.len(), 3);
    }

    #[test]
    fn a_snapshot_that_is_too_long_is_told_by_its_beginning_and_read_aside() {
        let decoder = decoder();
        let told = |message: &str| decoder.large_image(message.as_bytes());
        assert_eq!(told(SNAPSHOT), Some(LargeImage { instrument: BTC, number: None }));
        assert_eq!(told(UPDATE), None);
        assert_eq!(told(&SNAPSHOT.replace("BTC", "NOT")), None);
        assert_eq!(
            told(&SNAPSHOT.replacen('{', &format!("{{{}", " ".repeat(HEAD_BYTES)), 1)),
            None
        );
        assert_eq!(told(""), None);

        let image = decoder.image_decoder();
        let mut out = EventBatch::default();
        image(BTC, &mut SNAPSHOT.as_bytes().to_vec(), &mut out).unwrap();
        assert_eq!(out.events, decoded(SNAPSHOT).events);
        assert_eq!(out.levels, decoded(SNAPSHOT).levels);
        for (body, what) in [
            (UPDATE.to_owned(), Malformed::Field("type")),
            (SNAPSHOT.replace("bids", "bid"), Malformed::Field("bids")),
            (
                SNAPSHOT.replace("0.45054140", "x"),
                Malformed::Number("size", tickfan_core::decimal::DecimalError::Malformed),
            ),
            (SNAPSHOT.replace("]]}", ""), Malformed::NotJson),
        ] {
            let mut out = EventBatch::default();
            assert_eq!(image(BTC, &mut body.into_bytes(), &mut out), Err(what));
            assert!(out.events.is_empty() && out.levels.is_empty());
        }
    }

    #[test]
    fn a_resync_asks_for_the_book_of_its_product_anew() {
        let parsed = |text: &String| serde_json::from_str::<serde_json::Value>(text).unwrap();
        let mut decoder = decoder();
        let requests: Vec<_> = decoder.subscribe().iter().map(parsed).collect();
        let expected = serde_json::json!({
            "type": "subscribe",
            "product_ids": ["BTC-USD", "ETH-USD"],
            "channels": ["level2_batch", "matches", "heartbeat"],
        });
        assert_eq!(requests, [expected]);
        assert_eq!(decoder.resync(ETH, true), Resync::Send(Vec::new()));
        let Resync::Send(texts) = decoder.resync(ETH, false) else { panic!("not on the stream") };
        let expected = ["unsubscribe", "subscribe"].map(|word| {
            serde_json::json!({
                "type": word, "product_ids": ["ETH-USD"], "channels": ["level2_batch"],
            })
        });
        assert_eq!(texts.iter().map(parsed).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn the_product_list_tells_steps_and_whether_it_trades() {
        let product = |changes: &[(&str, &str)]| {
            let mut product = r#"{"id":"NMR-EUR","base_currency":"NMR","quote_currency":"EUR","base_min_size":"0.01","quote_increment":"0.0001","base_increment":"0.001","cancel_only":false,"trading_disabled":false,"status":"online"}"#.to_owned();
            for (from, to) in changes {
                product = product.replace(from, to);
            }
            product
        };
        let open = Listing {
            native: "NMR-EUR".into(),
            base: "NMR".into(),
            quote: "EUR".into(),
            kind: "spot".into(),
            tick: decimal("0.0001"),
            lot: decimal("0.001"),
            trading: Trading::Open,
        };
        for (changes, expected) in [
            (&[][..], Some(Trading::Open)),
            (&[("online", "offline")], Some(Trading::Halted)),
            (&[("online", "delisted")], Some(Trading::Ended)),
            (&[(r#"trading_disabled":false"#, r#"trading_disabled":true"#)], Some(Trading::Halted)),
            (&[(r#"cancel_only":false"#, r#"cancel_only":true"#)], Some(Trading::Halted)),
            (&[("0.0001", "0")], None),
            (&[("0.0001", "x")], None),
            (&[("base_currency", "base")], None),
        ] {
            let body = format!("[{}]", product(changes));
            let expected: Vec<Listing> =
                expected.map(|trading| Listing { trading, ..open.clone() }).into_iter().collect();
            assert_eq!(listings(body.as_bytes()), Ok(expected), "{body}");
        }
        assert_eq!(listings(b"{}"), Err(Malformed::Field("products")));
        assert_eq!(listings(b"["), Err(Malformed::NotJson));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = listings(&bytes);
            let _ = decoder().image_decoder()(BTC, &mut bytes.clone(), &mut EventBatch::default());
            let _ = decoder().decode(&mut bytes, &mut EventBatch::default());
        }

        #[test]
        fn no_damage_panics_or_leaves_half_an_event(
            at in 0usize..300,
            with in proptest::collection::vec(any::<u8>(), 0..4),
        ) {
            for message in [SNAPSHOT, UPDATE, MATCH, HEARTBEAT] {
                damage(&mut decoder(), message, at, &with);
            }
        }
    }
}
