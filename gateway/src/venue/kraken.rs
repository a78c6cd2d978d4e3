//! Kraken, WebSocket version 2, and what version 1 shares with it: host, instrument list, checksum.
//!
//! Turns stream messages into market events, and the instrument list of REST into listings; the
//! image of a book comes with its subscription. The feed thread calls it for every message. It must
//! never read a number as anything but its literal: the digits as written are what the venue's
//! checksum is over.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::value::RawValue;
use tickfan_core::decimal::{Decimal, SCALE_MAX, write_integer};
use tickfan_core::market::{
    Aggressor, BookEvent, BookKind, Channel, EventBatch, InstrumentId, LevelChange, Listing,
    MarketEvent, Nanos, Scales, TradeId, TradeNumbering, TradePrint, TradesEvent, Trading, Venue,
};

use super::text::{each, measured, nanos_of};
use super::{
    Checksum, DecodeError, Endpoints, Malformed, Mantissas, Resync, Subscription, VenueDecoder,
    quoted_after,
};

/// "Depth: possible values [10, 25, 100, 500, 1000]."
const DEPTHS: [u32; 5] = [10, 25, 100, 500, 1000];
const DEPTH_MAX: u32 = 1000;

/// Symbols in one request. The venue names no bound; this keeps a request at a few kilobytes.
const SYMBOLS_PER_REQUEST_MAX: usize = 200;

/// "CRC32 checksum based on the top 10 bids and 10 asks."
const CHECKSUM_LEVELS: usize = 10;

/// An `i64` has at most 19 digits.
const DIGITS_MAX: usize = 19;

const SECOND_NS: Nanos = 1_000_000_000;

/// A heartbeat comes about once a second when nothing else does: ten of them are missing.
const SILENCE_NS: Nanos = 10 * SECOND_NS;

/// The venue closes a connection that sent nothing for 60 s: four chances to be heard.
const KEEPALIVE_NS: Nanos = 15 * SECOND_NS;

/// The default endpoints, of both versions.
pub const fn endpoints() -> Endpoints {
    Endpoints {
        stream: "wss://ws.kraken.com",
        rest: "https://api.kraken.com",
        instruments_paths: &["/0/public/AssetPairs"],
        // Images come on the stream: the list is all that REST is asked for.
        instruments_weight: 1,
        rest_weight_per_minute: 60,
        // No limit is documented; an image of full depth is 100 KB, and all come at once.
        instruments_per_connection: 200,
        text_spacing_ns: SECOND_NS / 4,
        texts_at_once: 8,
        // 150 connections in ten minutes from one address.
        connect_spacing_ns: 4 * SECOND_NS,
        connection_life_ns: None,
    }
}

/// The assets that the two versions of the stream spell differently; REST spells them as version 1.
const RENAMED: [(&str, &str); 2] = [("XBT", "BTC"), ("XDG", "DOGE")];

/// Reads the instrument list: `AssetPairs`, spelled as the stream of `venue` does.
///
/// # Errors
/// [`Malformed`] when the body is no JSON or has no `result`, as when the venue answers with an error.
pub fn listings(venue: Venue, body: &[u8]) -> Result<Vec<Listing>, Malformed> {
    let answer: AssetPairs<'_> = serde_json::from_slice(body).map_err(|error| {
        if error.is_data() { Malformed::Field("result") } else { Malformed::NotJson }
    })?;
    let spelled = |asset: &str| -> Arc<str> {
        let renamed = RENAMED.iter().find(|(old, _)| *old == asset && venue == Venue::Kraken);
        renamed.map_or(asset, |(_, new)| new).into()
    };
    let pairs = answer.result.into_values();
    Ok(pairs
        .filter_map(|raw| serde_json::from_str::<AssetPair<'_>>(raw.get()).ok()?.listing(spelled))
        .collect())
}

#[derive(serde::Deserialize)]
struct AssetPairs<'m> {
    #[serde(borrow)]
    result: BTreeMap<Cow<'m, str>, &'m RawValue>,
}

/// One pair of `AssetPairs`, as far as it matters here.
#[derive(serde::Deserialize)]
struct AssetPair<'m> {
    /// The stream's spelling as of version 1; a pair without it is not on the stream.
    #[serde(borrow)]
    wsname: Cow<'m, str>,
    pair_decimals: u8,
    lot_decimals: u8,
    /// The venue did not always tell it; the price then steps by its last digit.
    #[serde(borrow)]
    tick_size: Option<Cow<'m, str>>,
    /// Nor this: all that was listed traded.
    #[serde(borrow)]
    status: Option<Cow<'m, str>>,
}

impl AssetPair<'_> {
    fn listing(&self, spelled: impl Fn(&str) -> Arc<str>) -> Option<Listing> {
        let (base, quote) = self.wsname.split_once('/')?;
        let (base, quote) = (spelled(base), spelled(quote));
        let digit = |scale: u8| (scale <= SCALE_MAX).then_some(Decimal { mantissa: 1, scale });
        let tick = match &self.tick_size {
            Some(tick) => Decimal::parse(tick.as_bytes()).ok().filter(|tick| tick.mantissa > 0)?,
            None => digit(self.pair_decimals)?,
        };
        Some(Listing {
            native: format!("{base}/{quote}").into(),
            base,
            quote,
            kind: "spot".into(),
            tick,
            lot: digit(self.lot_decimals)?,
            trading: self.status.as_deref().and_then(trading).unwrap_or_default(),
        })
    }
}

/// What a state of the venue or of a pair means for trading.
fn trading(status: &str) -> Option<Trading> {
    match status {
        "online" | "limit_only" | "reduce_only" => Some(Trading::Open),
        "maintenance" | "cancel_only" | "post_only" => Some(Trading::Halted),
        _ => None,
    }
}

/// Decodes one connection.
pub struct Decoder {
    instruments: Vec<(InstrumentId, Arc<str>)>,
    ids: HashMap<Arc<str>, InstrumentId>,
    depth: u32,
}

impl Decoder {
    /// A decoder for the instruments of one connection. A depth between two that the venue offers
    /// is rounded up; the venue has one trade stream only.
    pub fn new(subscription: Subscription) -> Self {
        let asked = subscription.depth.unwrap_or(DEPTH_MAX);
        let ids = subscription.instruments.iter().map(|(id, symbol)| (Arc::clone(symbol), *id));
        Self {
            ids: ids.collect(),
            depth: DEPTHS.into_iter().find(|depth| *depth >= asked).unwrap_or(DEPTH_MAX),
            instruments: subscription.instruments,
        }
    }

    fn book_request(&self, method: &str, symbols: &[&str]) -> String {
        serde_json::json!({
            "method": method,
            "params": {
                "channel": "book", "symbol": symbols, "depth": self.depth, "snapshot": true,
            },
        })
        .to_string()
    }

    fn read(&self, message: &[u8], out: &mut EventBatch) -> Result<(), DecodeError> {
        let header: Header<'_> = serde_json::from_slice(message).map_err(|error| {
            let what =
                if error.is_data() { Malformed::Field("message") } else { Malformed::NotJson };
            DecodeError { about: self.subject_of_broken(message), what }
        })?;
        match (&*header.channel, &*header.kind) {
            ("book", "snapshot") => self.read_entries(&header, Channel::Book, BookKind::Image, out),
            ("book", "update") => self.read_entries(&header, Channel::Book, BookKind::Delta, out),
            // A snapshot of trades is history: it was over before we subscribed.
            ("trade", "update") => {
                self.read_entries(&header, Channel::Trades, BookKind::Delta, out)
            }
            ("book", _) => Err(DecodeError {
                about: self.subject_of_broken(message),
                what: Malformed::Field("type"),
            }),
            ("status", _) => {
                read_status(&header, out);
                Ok(())
            }
            _ => {
                self.read_ack(&header, out);
                Ok(())
            }
        }
    }
}

impl VenueDecoder for Decoder {
    fn stream_path(&self) -> &str {
        "/v2"
    }

    fn subscribe(&self) -> Vec<String> {
        let symbols: Vec<&str> = self.instruments.iter().map(|(_, symbol)| &**symbol).collect();
        let mut requests = Vec::new();
        for symbols in symbols.chunks(SYMBOLS_PER_REQUEST_MAX) {
            requests.push(self.book_request("subscribe", symbols));
            let trades = serde_json::json!({
                "method": "subscribe",
                "params": {"channel": "trade", "symbol": symbols, "snapshot": false},
            });
            requests.push(trades.to_string());
        }
        requests
    }

    fn resync(&mut self, instrument: InstrumentId, first: bool) -> Resync {
        let known = self.instruments.iter().find(|(id, _)| *id == instrument);
        let Some((_, symbol)) = known.filter(|_| !first) else {
            return Resync::Send(Vec::new());
        };
        let methods = ["unsubscribe", "subscribe"];
        Resync::Send(methods.map(|method| self.book_request(method, &[symbol])).into())
    }

    fn decode(&mut self, message: &mut [u8], out: &mut EventBatch) -> Result<(), DecodeError> {
        out.all_or_nothing(|out| self.read(message, out))
    }

    fn checksum(&self) -> Option<Checksum> {
        Some(CHECKSUM)
    }

    fn silence_ns(&self) -> Nanos {
        SILENCE_NS
    }

    fn keepalive(&self) -> Option<(String, Nanos)> {
        Some((r#"{"method":"ping"}"#.to_owned(), KEEPALIVE_NS))
    }

    /// "The client must truncate the book to the subscribed depth": no delete is sent for a level
    /// that is pushed out.
    fn truncate_at(&self) -> Option<usize> {
        Some(self.depth as usize)
    }
}

/// The outside of any message.
#[derive(serde::Deserialize)]
struct Header<'m> {
    #[serde(borrow, default)]
    channel: Cow<'m, str>,
    #[serde(borrow, default, rename = "type")]
    kind: Cow<'m, str>,
    #[serde(borrow)]
    data: Option<&'m RawValue>,
    #[serde(borrow, default)]
    method: Cow<'m, str>,
    success: Option<bool>,
    error: Option<String>,
    symbol: Option<String>,
    #[serde(borrow)]
    result: Option<&'m RawValue>,
}

/// The `result` of an acknowledgement: "one response is sent per symbol".
#[derive(serde::Deserialize)]
struct Acknowledged<'m> {
    #[serde(borrow, default)]
    channel: Cow<'m, str>,
    #[serde(borrow, default)]
    symbol: Cow<'m, str>,
}

/// The one entry of `data` of the venue's own state.
#[derive(serde::Deserialize)]
struct Status<'m> {
    #[serde(borrow, default)]
    system: Cow<'m, str>,
}

/// One entry of `data`, of books and trades alike. Values stay raw so that whatever is wrong with
/// one of them can be told with the symbol.
#[derive(serde::Deserialize)]
struct Entry<'m> {
    #[serde(borrow, default)]
    symbol: Cow<'m, str>,
    #[serde(borrow)]
    bids: Option<&'m RawValue>,
    #[serde(borrow)]
    asks: Option<&'m RawValue>,
    #[serde(borrow)]
    checksum: Option<&'m RawValue>,
    #[serde(borrow)]
    timestamp: Option<&'m RawValue>,
    #[serde(borrow)]
    side: Option<&'m RawValue>,
    #[serde(borrow)]
    price: Option<&'m RawValue>,
    #[serde(borrow)]
    qty: Option<&'m RawValue>,
    #[serde(borrow)]
    trade_id: Option<&'m RawValue>,
}

#[derive(serde::Deserialize)]
struct LevelText<'m> {
    #[serde(borrow)]
    price: &'m RawValue,
    #[serde(borrow)]
    qty: &'m RawValue,
}

impl Decoder {
    fn read_entries(
        &self,
        header: &Header<'_>,
        channel: Channel,
        kind: BookKind,
        out: &mut EventBatch,
    ) -> Result<(), DecodeError> {
        let mut entry_count = 0usize;
        let mut about = None;
        let read = each(header.data, "data", |entry: Entry<'_>| {
            entry_count += 1;
            if entry.symbol.is_empty() {
                return Err(Malformed::Field("symbol"));
            }
            let Some(&instrument) = self.ids.get(&*entry.symbol) else {
                return Ok(());
            };
            about = Some((instrument, channel));
            if channel == Channel::Book {
                self.read_book(instrument, kind, &entry, out)
            } else {
                read_trade(instrument, &entry, out)
            }
        });
        // A message is dropped whole, so that one bad entry of several is about them all.
        read.map_err(|what| DecodeError { about: about.filter(|_| entry_count == 1), what })
    }

    fn read_book(
        &self,
        instrument: InstrumentId,
        kind: BookKind,
        entry: &Entry<'_>,
        out: &mut EventBatch,
    ) -> Result<(), Malformed> {
        let (mut px_digits, mut qty_digits) = (0, 0);
        let mut read_side = |side, name| {
            let start = out.levels.len();
            each(side, name, |level: LevelText<'_>| {
                let px = measured(level.price.get(), "price", &mut px_digits)?;
                let qty = measured(level.qty.get(), "qty", &mut qty_digits)?;
                out.levels.push(LevelChange { px, qty });
                Ok(())
            })?;
            Ok(start..out.levels.len())
        };
        let bids = read_side(entry.bids, "bids")?;
        let asks = read_side(entry.asks, "asks")?;
        out.events.push(MarketEvent::Book(BookEvent {
            instrument,
            kind,
            bids,
            asks,
            continuity: None,
            checksum: Some(integer(entry.checksum, "checksum")?),
            te_ns: te_ns(entry)?,
            px_digits,
            qty_digits,
            cut_at: (kind == BookKind::Image).then_some(self.depth as usize),
        }));
        Ok(())
    }

    fn read_ack(&self, header: &Header<'_>, out: &mut EventBatch) {
        if header.method != "subscribe" {
            return;
        }
        let result = header.result.and_then(|raw| serde_json::from_str(raw.get()).ok());
        let result: Option<Acknowledged<'_>> = result;
        let symbol = header.symbol.as_deref().or(result.as_ref().map(|result| &*result.symbol));
        let instrument = symbol.and_then(|symbol| self.ids.get(symbol)).copied();
        if header.success == Some(false) {
            let message = header.error.clone().unwrap_or_default();
            out.events.push(MarketEvent::Refused { instrument, message });
        } else if let (Some(true), Some(instrument), Some(channel)) =
            (header.success, instrument, result.and_then(|result| channel_named(&result.channel)))
        {
            out.events.push(MarketEvent::Subscribed { instrument, channel });
        }
    }

    /// What a message is about that cannot be read: its channel and its only symbol may be
    /// readable still.
    fn subject_of_broken(&self, message: &[u8]) -> Option<(InstrumentId, Channel)> {
        const SYMBOL: &[u8] = b"\"symbol\":\"";
        let channel = channel_named(quoted_after(message, b"\"channel\":\"")?)?;
        if message.windows(SYMBOL.len()).filter(|window| *window == SYMBOL).count() > 1 {
            return None;
        }
        Some((*self.ids.get(quoted_after(message, SYMBOL)?)?, channel))
    }
}

fn channel_named(name: &str) -> Option<Channel> {
    match name {
        "book" => Some(Channel::Book),
        "trade" => Some(Channel::Trades),
        _ => None,
    }
}

/// Reads the state of the venue, which is that of every instrument.
fn read_status(header: &Header<'_>, out: &mut EventBatch) {
    let data: Option<[Status<'_>; 1]> =
        header.data.and_then(|raw| serde_json::from_str(raw.get()).ok());
    if let Some([Status { system }]) = data
        && let Some(trading) = trading(&system)
    {
        out.events.push(MarketEvent::Trading { instrument: None, trading });
    }
}

fn read_trade(
    instrument: InstrumentId,
    entry: &Entry<'_>,
    out: &mut EventBatch,
) -> Result<(), Malformed> {
    // "side: the side of the taker order".
    let aggressor = match entry.side.map(RawValue::get) {
        Some(r#""buy""#) => Aggressor::Buy,
        Some(r#""sell""#) => Aggressor::Sell,
        _ => return Err(Malformed::Field("side")),
    };
    let start = out.trades.len();
    out.trades.push(TradePrint {
        te_ns: te_ns(entry)?,
        px: measured(literal(entry.price, "price")?, "price", &mut 0)?,
        qty: measured(literal(entry.qty, "qty")?, "qty", &mut 0)?,
        aggressor,
        id: TradeId::Number(integer(entry.trade_id, "trade_id")?),
        number: None,
    });
    // Neighbouring trades of one instrument are one event.
    match out.events.last_mut() {
        Some(MarketEvent::Trades(event))
            if event.instrument == instrument && event.trades.end == start =>
        {
            event.trades.end = out.trades.len();
        }
        _ => out.events.push(MarketEvent::Trades(TradesEvent {
            instrument,
            trades: start..out.trades.len(),
            numbering: TradeNumbering::None,
        })),
    }
    Ok(())
}

fn literal<'m>(raw: Option<&'m RawValue>, name: &'static str) -> Result<&'m str, Malformed> {
    raw.map(RawValue::get).ok_or(Malformed::Field(name))
}

fn integer<T: std::str::FromStr>(
    raw: Option<&RawValue>,
    name: &'static str,
) -> Result<T, Malformed> {
    raw.and_then(|raw| raw.get().parse().ok()).ok_or(Malformed::Field(name))
}

/// The time of an entry; 0 where it tells none, as some snapshots.
fn te_ns(entry: &Entry<'_>) -> Result<Nanos, Malformed> {
    let Some(raw) = entry.timestamp else {
        return Ok(0);
    };
    let text = raw.get().strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    text.and_then(|text| nanos_of(text.as_bytes())).ok_or(Malformed::Field("timestamp"))
}

/// The checksum of both versions.
pub(super) const CHECKSUM: Checksum = Checksum { levels: CHECKSUM_LEVELS, compute: checksum };

/// The venue's checksum: the top ten asks from low to high, then bids from high to low, each as
/// price and quantity "with the decimal point and all leading zeros removed". At a fixed scale that
/// text is the integer mantissa.
fn checksum(bids: &[Mantissas], asks: &[Mantissas], _digits: Scales) -> u32 {
    let mut text = Vec::with_capacity(2 * CHECKSUM_LEVELS * 2 * DIGITS_MAX);
    let top = asks.iter().take(CHECKSUM_LEVELS).chain(bids.iter().take(CHECKSUM_LEVELS));
    // Of zero no digit is left.
    for mantissa in top.flat_map(|(px, qty)| [*px, *qty]).filter(|mantissa| *mantissa != 0) {
        write_integer(mantissa.unsigned_abs(), &mut text);
    }
    crc32fast::hash(&text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::venue::testing::{self, damage, decimal, level, refusal, shown};
    use proptest::prelude::*;

    const BTC: InstrumentId = InstrumentId(3);
    const ETH: InstrumentId = InstrumentId(4);

    const SNAPSHOT: &str = r#"{"channel":"book","type":"snapshot","data":[{"symbol":"BTC/USD","bids":[{"price":45283.5,"qty":0.10000000}],"asks":[{"price":45285.20,"qty":0.001},{"price":45286,"qty":1}],"checksum":3310070434}]}"#;
    const UPDATE: &str = r#"{"channel":"book","type":"update","data":[{"symbol":"BTC/USD","bids":[],"asks":[{"price":45285.2,"qty":0}],"checksum":7,"timestamp":"2023-10-06T17:35:55.440295Z"}]}"#;
    const TRADE: &str = r#"{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","side":"buy","price":105944.20,"qty":0.00027625,"ord_type":"limit","trade_id":10218208,"timestamp":"2023-10-06T17:35:55.440295Z"}]}"#;

    fn of(depth: Option<u32>) -> Decoder {
        let instruments = vec![(BTC, "BTC/USD".into()), (ETH, "ETH/USD".into())];
        Decoder::new(Subscription { instruments, depth, trades: None })
    }

    fn decoded(message: &str) -> EventBatch {
        testing::decoded(&mut of(None), message)
    }

    #[test]
    fn a_snapshot_is_an_image_with_digits_as_written() {
        let out = decoded(SNAPSHOT);
        let image = BookEvent {
            instrument: BTC,
            kind: BookKind::Image,
            bids: 0..1,
            asks: 1..3,
            continuity: None,
            checksum: Some(3_310_070_434),
            te_ns: 0,
            px_digits: 2,
            qty_digits: 8,
            cut_at: Some(1000),
        };
        assert_eq!(out.events, [MarketEvent::Book(image)]);
        assert_eq!(
            out.levels,
            [level("45283.5", "0.1"), level("45285.2", "0.001"), level("45286", "1")]
        );
    }

    #[test]
    fn an_update_is_a_delta_and_its_fields_may_come_in_any_order() {
        let swapped = r#"{"data":[{"timestamp":"2023-10-06T17:35:55.440295Z","new":[{}],"checksum":7,"asks":[{"qty":0,"price":45285.2}],"bids":[],"symbol":"BTC/USD"}],"type":"update","channel":"book"}"#;
        let out = decoded(UPDATE);
        let delta = BookEvent {
            instrument: BTC,
            kind: BookKind::Delta,
            bids: 0..0,
            asks: 0..1,
            continuity: None,
            checksum: Some(7),
            te_ns: 1_696_613_755_440_295_000,
            px_digits: 1,
            qty_digits: 0,
            cut_at: None,
        };
        assert_eq!(out.events, [MarketEvent::Book(delta)]);
        assert_eq!(out.levels, [level("45285.2", "0")]);
        assert_eq!(decoded(swapped).events, out.events);
        assert_eq!(decoded(swapped).levels, out.levels);
    }

    #[test]
    fn an_exponent_counts_as_the_digits_it_reaches() {
        let out = decoded(&UPDATE.replace(r#""qty":0"#, r#""qty":1.5e-7"#));
        let [MarketEvent::Book(event)] = &out.events[..] else { panic!("{:?}", out.events) };
        assert_eq!(event.qty_digits, 8);
        assert_eq!(out.levels, [level("45285.2", "0.00000015")]);
    }

    #[test]
    fn every_symbol_of_a_message_has_its_event() {
        let entry = |symbol: &str| {
            let start = UPDATE.find(r#"{"symbol""#).unwrap();
            UPDATE[start..UPDATE.len() - 2].replace("BTC/USD", symbol)
        };
        let entries = [entry("BTC/USD"), entry("NOT/ASKED"), entry("ETH/USD")].join(",");
        let out = decoded(&format!(r#"{{"channel":"book","type":"update","data":[{entries}]}}"#));
        let asks: Vec<_> = out
            .events
            .iter()
            .map(|event| match event {
                MarketEvent::Book(book) => (book.instrument, book.asks.clone()),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(asks, [(BTC, 0..1), (ETH, 1..2)]);
    }

    #[test]
    fn neighbouring_trades_of_one_symbol_are_one_event() {
        let start = TRADE.find(r#"{"symbol""#).unwrap();
        let entry = &TRADE[start..TRADE.len() - 2];
        let sell = entry.replace("buy", "sell");
        let other = entry.replace("BTC", "ETH");
        let message =
            format!(r#"{{"channel":"trade","type":"update","data":[{entry},{sell},{other}]}}"#);
        let out = decoded(&message);
        let event = |instrument, trades| {
            MarketEvent::Trades(TradesEvent { instrument, trades, numbering: TradeNumbering::None })
        };
        assert_eq!(out.events, [event(BTC, 0..2), event(ETH, 2..3)]);
        let print = TradePrint {
            te_ns: 1_696_613_755_440_295_000,
            px: decimal("105944.2"),
            qty: decimal("0.00027625"),
            aggressor: Aggressor::Buy,
            id: TradeId::Number(10_218_208),
            number: None,
        };
        assert_eq!(out.trades[0], print);
        assert_eq!(out.trades[1].aggressor, Aggressor::Sell);
    }

    #[test]
    fn control_messages_become_what_the_session_needs() {
        let refused = |instrument| MarketEvent::Refused {
            instrument,
            message: r#"Currency pair "X" not supported"#.to_owned(),
        };
        let error = r#""success":false,"error":"Currency pair \"X\" not supported""#;
        let status = |system: &str| {
            format!(r#"{{"channel":"status","type":"update","data":[{{"system":"{system}"}}]}}"#)
        };
        let trading = |trading| vec![MarketEvent::Trading { instrument: None, trading }];
        for (message, expected) in [
            (
                r#"{"method":"subscribe","result":{"channel":"book","symbol":"BTC/USD","depth":10,"snapshot":true},"success":true,"time_in":"2023-09-25T09:04:31.742599Z","req_id":1}"#.to_owned(),
                vec![MarketEvent::Subscribed { instrument: BTC, channel: Channel::Book }],
            ),
            (
                r#"{"method":"subscribe","result":{"channel":"trade","symbol":"ETH/USD"},"success":true}"#.to_owned(),
                vec![MarketEvent::Subscribed { instrument: ETH, channel: Channel::Trades }],
            ),
            (
                r#"{"method":"subscribe","result":{"channel":"ticker","symbol":"ETH/USD"},"success":true}"#.to_owned(),
                vec![],
            ),
            (
                r#"{"method":"unsubscribe","result":{"channel":"book","symbol":"ETH/USD"},"success":true}"#.to_owned(),
                vec![],
            ),
            (format!(r#"{{"method":"subscribe",{error},"symbol":"BTC/USD"}}"#), vec![refused(Some(BTC))]),
            (
                format!(r#"{{"method":"subscribe","result":{{"channel":"book","symbol":"ETH/USD"}},{error}}}"#),
                vec![refused(Some(ETH))],
            ),
            (format!(r#"{{"method":"subscribe",{error}}}"#), vec![refused(None)]),
            (r#"{"channel":"heartbeat"}"#.to_owned(), vec![]),
            (r#"{"method":"pong","time_in":"x"}"#.to_owned(), vec![]),
            (status("online"), trading(Trading::Open)),
            (status("maintenance"), trading(Trading::Halted)),
            (status("other"), vec![]),
            (r#"{"channel":"status","type":"update","data":5}"#.to_owned(), vec![]),
            (r#"{"channel":"ticker","type":"update","data":[{"symbol":"BTC/USD","bid":1}]}"#.to_owned(), vec![]),
            (TRADE.replace("update", "snapshot"), vec![]),
            (TRADE.replace("BTC/USD", "NOT/ASKED"), vec![]),
        ] {
            assert_eq!(decoded(&message).events, expected, "{message}");
        }
    }

    #[test]
    fn a_malformed_message_tells_what_it_was_about_and_leaves_nothing() {
        use tickfan_core::decimal::DecimalError::{Malformed as NoNumber, Overflow};
        const BOOK: Option<(InstrumentId, Channel)> = Some((BTC, Channel::Book));
        const TRADES: Option<(InstrumentId, Channel)> = Some((BTC, Channel::Trades));
        let field = Malformed::Field;
        let number = Malformed::Number;
        let digits = "9".repeat(40);
        let start = UPDATE.find(r#"{"symbol""#).unwrap();
        let good = &UPDATE[start..UPDATE.len() - 2];
        let bad = good.replace("\"checksum\":7,", "");
        let pair = format!(
            r#"{{"channel":"book","type":"update","data":[{bad},{}]}}"#,
            good.replace("BTC", "ETH")
        );
        for (message, about, what) in [
            (UPDATE.replace(r#""checksum":7,"#, ""), BOOK, field("checksum")),
            (
                UPDATE.replace(r#""checksum":7"#, r#""checksum":4294967296"#),
                BOOK,
                field("checksum"),
            ),
            (UPDATE.replace(r#""bids":[],"#, ""), BOOK, field("bids")),
            (UPDATE.replace(r#""bids":[]"#, r#""bids":{}"#), BOOK, field("bids")),
            (UPDATE.replace(r#","qty":0"#, ""), BOOK, field("asks")),
            (UPDATE.replace("45285.2", r#""45285.2""#), BOOK, number("price", NoNumber)),
            (UPDATE.replace("45285.2", r#""""#), BOOK, number("price", NoNumber)),
            (UPDATE.replace("45285.2", "1e40"), BOOK, number("price", Overflow)),
            (UPDATE.replace("45285.2", &digits), BOOK, number("price", Overflow)),
            (UPDATE.replace(r#""qty":0"#, r#""qty":null"#), BOOK, number("qty", NoNumber)),
            (UPDATE.replace("2023-10", "2023-13"), BOOK, field("timestamp")),
            (UPDATE.replace(r#""update""#, r#""other""#), BOOK, field("type")),
            (UPDATE.replace(r#""update""#, "5"), BOOK, field("message")),
            (UPDATE.replace("BTC/USD", ""), None, field("symbol")),
            (UPDATE.replace(r#""BTC/USD""#, "5"), None, field("data")),
            (pair, None, field("checksum")),
            (r#"{"channel":"book","type":"update"}"#.to_owned(), None, field("data")),
            (UPDATE.replace("}]}", ""), BOOK, Malformed::NotJson),
            (UPDATE.replace("}]}", "").replace("BTC/USD", "NOT/ASKED"), None, Malformed::NotJson),
            (UPDATE.replace("book", "").replace("}]}", ""), None, Malformed::NotJson),
            (TRADE.replace("}]}", ""), TRADES, Malformed::NotJson),
            (TRADE.replace("buy", "long"), TRADES, field("side")),
            (TRADE.replace("10218208", "-1"), TRADES, field("trade_id")),
            (TRADE.replace(r#""price":105944.20,"#, ""), TRADES, field("price")),
            (String::new(), None, Malformed::NotJson),
            ("[]".to_owned(), None, Malformed::Field("message")),
            ("[".repeat(100_000), None, Malformed::Field("message")),
            ("\u{0}x\"\\{[".repeat(170_000), None, Malformed::NotJson),
        ] {
            let error = refusal(&mut of(None), &[UPDATE, TRADE], &message);
            assert_eq!(error, DecodeError { about, what }, "{}", shown(&message));
        }
    }

    #[test]
    fn the_checksum_is_that_of_the_venues_worked_example() {
        let asks = [
            (452_852, 100_000),
            (452_864, 154_571_953),
            (452_866, 154_571_109),
            (452_896, 154_560_911),
            (452_902, 15_890_660),
            (452_918, 154_553_491),
            (452_947, 4_454_749),
            (452_961, 35_380_000),
            (452_975, 9_945_542),
            (452_995, 18_772_827),
            (453_000, 1),
        ];
        let bids = [
            (452_835, 10_000_000),
            (452_834, 154_582_015),
            (452_821, 10_000_000),
            (452_810, 10_000_000),
            (452_803, 154_592_586),
            (452_790, 7_990_000),
            (452_776, 3_310_103),
            (452_775, 30_000_000),
            (452_773, 154_602_737),
            (452_766, 15_445_238),
            (452_000, 1),
        ];
        assert_eq!(checksum(&bids, &asks, Scales::default()), 3_310_070_434);
        assert_eq!(checksum(&[], &[(12, 34)], Scales::default()), crc32fast::hash(b"1234"));
        assert_eq!(
            checksum(&[(i64::MIN, 0)], &[], Scales::default()),
            crc32fast::hash(b"9223372036854775808")
        );
    }

    #[test]
    fn the_instrument_list_is_spelled_as_each_version_spells_it() {
        // As REST answered on 2021-04-17, shortened; then as it does since there are a tick and a
        // status.
        let body = r#"{"error":[],"result":{
            "XBTCHF":{"altname":"XBTCHF","wsname":"XBT/CHF","aclass_base":"currency","base":"XXBT","aclass_quote":"currency","quote":"CHF","lot":"unit","pair_decimals":1,"lot_decimals":8,"lot_multiplier":1,"leverage_buy":[],"fees":[[0,0.26],[50000,0.24]],"ordermin":"0.0002"},
            "XXDGXXBT":{"wsname":"XDG/XBT","pair_decimals":9,"lot_decimals":8,"tick_size":"0.0000005","status":"cancel_only"},
            "ADAXBT.d":{"altname":"ADAXBT.d","pair_decimals":8,"lot_decimals":8},
            "NOSLASH":{"wsname":"NOSLASH","pair_decimals":8,"lot_decimals":8},
            "TOOFINE":{"wsname":"TOO/FINE","pair_decimals":19,"lot_decimals":8},
            "NOTICK":{"wsname":"NO/TICK","pair_decimals":1,"lot_decimals":8,"tick_size":"0"}}}"#;
        for (venue, natives) in
            [(Venue::KrakenV1, ["XBT/CHF", "XDG/XBT"]), (Venue::Kraken, ["BTC/CHF", "DOGE/BTC"])]
        {
            let listings = listings(venue, body.as_bytes()).unwrap();
            assert_eq!(listings.iter().map(|l| &*l.native).collect::<Vec<_>>(), natives);
            let [first, second] = &listings[..] else { panic!("{listings:?}") };
            assert_eq!([&*first.base, "/", &*first.quote].concat(), natives[0]);
            assert_eq!((first.tick, first.lot), (decimal("0.1"), decimal("0.00000001")));
            assert_eq!((&*first.kind, first.trading), ("spot", Trading::Open));
            assert_eq!(second.tick, decimal("0.0000005"));
            assert_eq!(second.trading, Trading::Halted);
        }
        for (body, error) in [
            (r#"{"error":["EGeneral:Temporary lockout"]}"#, Malformed::Field("result")),
            (r#"{"error":[],"result":[]}"#, Malformed::Field("result")),
            ("{", Malformed::NotJson),
        ] {
            assert_eq!(listings(Venue::Kraken, body.as_bytes()), Err(error), "{body}");
        }
    }

    #[test]
    fn subscriptions_and_resyncs_ask_for_the_depth_rounded_up() {
        let parsed = |text: &String| serde_json::from_str::<serde_json::Value>(text).unwrap();
        for (depth, expected) in
            [(None, 1000), (Some(0), 10), (Some(11), 25), (Some(1000), 1000), (Some(5000), 1000)]
        {
            let decoder = of(depth);
            let requests: Vec<_> = decoder.subscribe().iter().map(parsed).collect();
            assert_eq!(requests.len(), 2);
            assert_eq!(requests[0]["params"]["depth"], expected);
            assert_eq!(requests[0]["params"]["symbol"][1], "ETH/USD");
            assert_eq!(requests[1]["params"]["channel"], "trade");
            assert_eq!(requests[1]["params"]["snapshot"], false);
            assert_eq!(decoder.truncate_at(), Some(expected));
        }
        let mut decoder = of(None);
        assert_eq!(decoder.resync(ETH, true), Resync::Send(Vec::new()));
        let Resync::Send(texts) = decoder.resync(ETH, false) else { panic!("not on the stream") };
        let methods: Vec<_> = texts.iter().map(|text| parsed(text)["method"].clone()).collect();
        assert_eq!(methods, ["unsubscribe", "subscribe"]);
        assert_eq!(parsed(&texts[1])["params"]["symbol"][0], "ETH/USD");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = of(None).decode(&mut bytes, &mut EventBatch::default());
        }

        #[test]
        fn no_damage_panics_or_leaves_half_an_event(
            at in 0usize..300,
            with in proptest::collection::vec(any::<u8>(), 0..4),
        ) {
            for message in [SNAPSHOT, UPDATE, TRADE] {
                damage(&mut of(None), message, at, &with);
            }
        }
    }
}
