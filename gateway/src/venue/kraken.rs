//! Kraken, WebSocket version 2.
//!
//! Turns stream messages into market events; there is no REST half, for the image of a book comes
//! with its subscription. The feed thread calls it for every message. It must never read a number
//! as anything but its literal: the digits as written are what the venue's checksum is over.

use std::borrow::Cow;
use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;
use tickfan_core::decimal::{Decimal, fraction_digits};
use tickfan_core::market::{
    Aggressor, BookEvent, BookKind, Channel, EventBatch, InstrumentId, LevelChange, Listing,
    MarketEvent, Nanos, TradeId, TradePrint, TradesEvent,
};

use super::{
    Checksum, DecodeError, Endpoints, ImageDecoder, Malformed, Resync, Subscription, VenueDecoder,
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

/// The default endpoints.
pub const fn endpoints() -> Endpoints {
    Endpoints {
        stream: "wss://ws.kraken.com",
        rest: "https://api.kraken.com",
        // REST names instruments otherwise than this stream does (`XBT/USD`), so it cannot tell.
        instruments_path: None,
    }
}

/// There is no instrument list (see [`endpoints`]): scales come from the digits of the first image.
///
/// # Errors
/// None; the signature is that of every venue.
pub const fn listings(_body: &[u8]) -> Result<Vec<Listing>, Malformed> {
    Ok(Vec::new())
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
        let kept = (out.events.len(), out.levels.len(), out.trades.len());
        let result = self.read(message, out);
        if result.is_err() {
            out.events.truncate(kept.0);
            out.levels.truncate(kept.1);
            out.trades.truncate(kept.2);
        }
        result
    }

    /// Refuses everything: images come on the stream, and `resync` never asks REST.
    fn image_decoder(&self) -> ImageDecoder {
        Arc::new(|_, _, _| Err(Malformed::Field("image")))
    }

    fn has_bbo_stream(&self) -> bool {
        false
    }

    fn checksum(&self) -> Option<Checksum> {
        Some(Checksum { levels: CHECKSUM_LEVELS, compute: checksum })
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
                let px = measured(level.price, "price", &mut px_digits)?;
                let qty = measured(level.qty, "qty", &mut qty_digits)?;
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
        px: measured(entry.price.ok_or(Malformed::Field("price"))?, "price", &mut 0)?,
        qty: measured(entry.qty.ok_or(Malformed::Field("qty"))?, "qty", &mut 0)?,
        aggressor,
        id: TradeId::Number(integer(entry.trade_id, "trade_id")?),
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
            consecutive_ids: false,
        })),
    }
    Ok(())
}

/// Visits every element of an array without collecting them, and returns the first failure.
fn each<'m, T: Deserialize<'m>>(
    array: Option<&'m RawValue>,
    name: &'static str,
    visit: impl FnMut(T) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    struct Elements<T, F>(F, PhantomData<T>);

    impl<'m, T: Deserialize<'m>, F: FnMut(T) -> Result<(), Malformed>> Visitor<'m> for Elements<T, F> {
        type Value = Result<(), Malformed>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an array")
        }

        fn visit_seq<A: SeqAccess<'m>>(mut self, mut array: A) -> Result<Self::Value, A::Error> {
            let mut first_failure = Ok(());
            while let Some(element) = array.next_element()? {
                let visited = (self.0)(element);
                first_failure = first_failure.and(visited);
            }
            Ok(first_failure)
        }
    }

    let array = array.ok_or(Malformed::Field(name))?;
    serde_json::Deserializer::from_str(array.get())
        .deserialize_seq(Elements(visit, PhantomData))
        .map_err(|_| Malformed::Field(name))?
}

/// Reads a decimal from its literal and remembers how fine it is written.
fn measured(raw: &RawValue, name: &'static str, digits: &mut u8) -> Result<Decimal, Malformed> {
    let literal = raw.get().as_bytes();
    let value = Decimal::parse(literal).map_err(|error| Malformed::Number(name, error))?;
    // An exponent reaches below the digits that are written.
    *digits = (*digits).max(fraction_digits(literal)).max(value.scale);
    Ok(value)
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

/// Reads an RFC 3339 time of UTC, `2023-10-06T17:35:55.440295Z`, with at most nine digits behind
/// the second, from 1970 on.
fn nanos_of(text: &[u8]) -> Option<Nanos> {
    let (time, fraction) = text.strip_suffix(b"Z")?.split_at_checked(19)?;
    if [4, 7, 10, 13, 16].map(|i| time[i]) != *b"--T::" {
        return None;
    }
    let field = |range: std::ops::Range<usize>| digits(&time[range]);
    let (year, month, day) = (field(0..4)?, field(5..7)?, field(8..10)?);
    let (hour, minute, second) = (field(11..13)?, field(14..16)?, field(17..19)?);
    // RFC 3339 allows a leap second.
    let valid = year >= 1970
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !valid {
        return None;
    }
    let fraction_ns = match fraction {
        [] => 0,
        [b'.', text @ ..] if (1..=9).contains(&text.len()) => {
            digits(text)? * 10u64.pow(9 - text.len() as u32)
        }
        _ => return None,
    };
    // Years that begin in March put the leap day last, so that months have a regular length.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days_since_year_0 =
        365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    let days = days_since_year_0 - DAYS_TO_1970;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    seconds.checked_mul(SECOND_NS)?.checked_add(fraction_ns)
}

/// Days from the first of March of the year 0 to the first of January 1970.
const DAYS_TO_1970: u64 = 719_468;

fn digits(text: &[u8]) -> Option<u64> {
    text.iter().try_fold(0u64, |value, byte| {
        byte.is_ascii_digit().then(|| value * 10 + u64::from(byte - b'0'))
    })
}

/// The venue's checksum: the top ten asks from low to high, then bids from high to low, each as
/// price and quantity "with the decimal point and all leading zeros removed". At a fixed scale that
/// text is the integer mantissa.
fn checksum(bids: &[(i64, i64)], asks: &[(i64, i64)]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    let top = asks.iter().take(CHECKSUM_LEVELS).chain(bids.iter().take(CHECKSUM_LEVELS));
    for mantissa in top.flat_map(|(px, qty)| [px, qty]) {
        let mut text = [0; DIGITS_MAX];
        let mut start = text.len();
        let mut rest = mantissa.unsigned_abs();
        while rest > 0 {
            start -= 1;
            text[start] = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        hasher.update(&text[start..]);
    }
    hasher.finalize()
}
