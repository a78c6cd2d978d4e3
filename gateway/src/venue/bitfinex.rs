//! Bitfinex, version 2 of its WebSocket.
//!
//! Turns stream messages into market events; there is no REST half, for the image of a book comes
//! with its subscription. The feed thread calls it for every message. Data names its channel by a
//! number that holds on one connection only, so that the decoder learns the numbers and forgets them
//! when the next connection greets it. It must never read a number as anything but its literal.

use std::borrow::Cow;
use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;
use tickfan_core::decimal::{Decimal, write_decimal};
use tickfan_core::market::{
    Aggressor, BookEvent, BookKind, Channel, EventBatch, InstrumentId, LevelChange, Listing,
    MarketEvent, Nanos, Scales, Side, TradeId, TradeNumbering, TradePrint, TradesEvent, Trading,
};

use super::text::{each, measured};
use super::{
    Checksum, DecodeError, Endpoints, Malformed, Mantissas, Resync, Subscription, VenueDecoder,
};

/// "LENGTH: number of price points (\"1\", \"25\", \"100\", \"250\")."
const DEPTHS: [u32; 4] = [1, 25, 100, 250];
const DEPTH_MAX: u32 = 250;

/// "The checksum covers the first 25 bids and asks."
const CHECKSUM_LEVELS: usize = 25;

/// SEQ_ALL: every array has the number of the message as its last element.
const NUMBERED_FLAG: u64 = 65_536;
/// OB_CHECKSUM: books are followed by their checksum.
const CHECKSUM_FLAG: u64 = 131_072;

/// "Stop/Restart Websocket Server (please reconnect)."
const RESTART_CODE: u64 = 20_051;
/// "Entering in Maintenance mode. Please pause any activity and resume after receiving the info
/// message 20061."
const MAINTENANCE_BEGINS_CODE: u64 = 20_060;
/// "Maintenance ended. You can resume normal activity. It is advised to unsubscribe/subscribe again
/// all channels."
const MAINTENANCE_ENDS_CODE: u64 = 20_061;

/// "Already subscribed", and two for an unsubscription of what is gone: nothing is missing.
const HARMLESS_CODES: [u64; 3] = [10_301, 10_400, 10_401];

/// The platform is "operative"; 0 is maintenance.
const OPERATIVE: u64 = 1;

/// JavaScript writes a number with an exponent when its first digit stands further behind the point.
const PLAIN_DIGITS_MAX: u8 = 6;

const SECOND_NS: Nanos = 1_000_000_000;
const MILLISECOND_NS: Nanos = 1_000_000;

/// A channel on which nothing happens says so every 15 s: three times it did not.
const SILENCE_NS: Nanos = 45 * SECOND_NS;

/// The default endpoints.
pub const fn endpoints() -> Endpoints {
    Endpoints {
        stream: "wss://api-pub.bitfinex.com",
        rest: "https://api-pub.bitfinex.com",
        // The lists there have no steps of prices: prices have five significant digits.
        instruments_paths: &[],
        // Images come on the stream: the list is all that REST is asked for.
        instruments_weight: 1,
        rest_weight_per_minute: 60,
        // 25 channels on a connection, two an instrument.
        instruments_per_connection: 12,
        // No limit is documented; all of a connection are asked for in half a second.
        text_spacing_ns: SECOND_NS / 50,
        texts_at_once: 8,
        // 20 connections a minute, of which others at this address may need some.
        connect_spacing_ns: 4 * SECOND_NS,
        connection_life_ns: None,
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
    /// The venue has agreed to number the messages of this connection.
    is_numbered: bool,
    /// Few enough that looking through them is as fast as any index.
    channels: Vec<OpenChannel>,
    /// Asks of the message that is being read, which may stand among the bids.
    asks: Vec<LevelChange>,
}

/// A channel as this connection knows it.
struct OpenChannel {
    number: u64,
    instrument: InstrumentId,
    channel: Channel,
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
            is_numbered: false,
            channels: Vec::new(),
            asks: Vec::new(),
        }
    }

    /// What a checksum covers of a book that is cut above the 25th level is not documented.
    const fn has_checksum(&self) -> bool {
        self.depth as usize >= CHECKSUM_LEVELS
    }

    fn book_request(&self, symbol: &str) -> String {
        serde_json::json!({
            "event": "subscribe",
            "channel": "book",
            "symbol": symbol,
            // As precise and as soon as it can be had.
            "prec": "P0",
            "freq": "F0",
            "len": self.depth.to_string(),
        })
        .to_string()
    }

    fn open_channel(&self, number: u64) -> Option<&OpenChannel> {
        self.channels.iter().find(|open| open.number == number)
    }

    fn read(&mut self, text: &[u8], out: &mut EventBatch) -> Result<(), DecodeError> {
        if text.trim_ascii_start().starts_with(b"{") {
            let event: EventText<'_> = serde_json::from_slice(text)
                .map_err(|error| DecodeError { about: None, what: malformed(&error, "event") })?;
            self.read_event(&event, out);
            return Ok(());
        }
        let frame: Array<'_, 3> = serde_json::from_slice(text).map_err(|error| DecodeError {
            about: self.subject_of_broken(text),
            what: malformed(&error, "frame"),
        })?;
        self.read_frame(&frame, out)
    }

    fn read_frame(
        &mut self,
        frame: &Array<'_, 3>,
        out: &mut EventBatch,
    ) -> Result<(), DecodeError> {
        let number = frame.first[0].and_then(integer);
        let (Some(number), [_, Some(content), more]) = (number, frame.first) else {
            return Err(DecodeError { about: None, what: Malformed::Field("frame") });
        };
        let subject = self.open_channel(number).map(|open| (open.instrument, open.channel));
        let wrong = |what| DecodeError { about: subject, what };
        if self.is_numbered {
            let number = frame.last.and_then(integer);
            let number = number.ok_or_else(|| wrong(Malformed::Field("sequence")))?;
            out.events.push(MarketEvent::Numbered(number));
        }
        // Channels that are not known yet may speak before they are announced.
        let read = match subject {
            None => Ok(()),
            Some((instrument, Channel::Book)) => self.read_book(instrument, content, more, out),
            Some((instrument, _)) => read_trade(instrument, content, more, out),
        };
        read.map_err(wrong)
    }

    /// Reads `[[price, count, amount], …]`, `[price, count, amount]` or `"cs", checksum`.
    fn read_book(
        &mut self,
        instrument: InstrumentId,
        content: &RawValue,
        more: Option<&RawValue>,
        out: &mut EventBatch,
    ) -> Result<(), Malformed> {
        let start = out.levels.len();
        let mut event = BookEvent {
            instrument,
            kind: BookKind::Delta,
            bids: start..start,
            asks: start..start,
            continuity: None,
            checksum: None,
            te_ns: 0,
            px_digits: 0,
            qty_digits: 0,
            cut_at: None,
        };
        let text = content.get();
        if text == r#""cs""# {
            // "Checksums will be sent as a signed integer."
            let checksum = more.and_then(|raw| raw.get().parse::<i32>().ok());
            event.checksum = Some(checksum.ok_or(Malformed::Field("checksum"))?.cast_unsigned());
            out.events.push(MarketEvent::Book(event));
            return Ok(());
        }
        let Some(elements) = text.strip_prefix('[') else {
            // `"hb"`: it lives.
            return Ok(());
        };
        self.asks.clear();
        let mut digits = Scales::default();
        let mut take = |entry: Array<'_, 3>| {
            let (side, level) = read_entry(&entry, &mut digits)?;
            match side {
                Side::Bid => out.levels.push(level),
                Side::Ask => self.asks.push(level),
            }
            Ok(())
        };
        if elements.trim_start().starts_with(['[', ']']) {
            each(Some(content), "book", take)?;
            event.kind = BookKind::Image;
            event.cut_at = Some(self.depth as usize);
        } else {
            take(serde_json::from_str(text).map_err(|_| Malformed::Field("book"))?)?;
        }
        let asks_start = out.levels.len();
        out.levels.append(&mut self.asks);
        event.bids = start..asks_start;
        event.asks = asks_start..out.levels.len();
        (event.px_digits, event.qty_digits) = (digits.px, digits.qty);
        out.events.push(MarketEvent::Book(event));
        Ok(())
    }

    fn read_event(&mut self, event: &EventText<'_>, out: &mut EventBatch) {
        let instrument = self.ids.get(&*event.symbol).copied();
        match (&*event.event, event.code) {
            // The greeting of a new connection.
            ("info", None) => {
                self.channels.clear();
                self.is_numbered = false;
                if let Some(platform) = &event.platform {
                    let is_open = platform.status == OPERATIVE;
                    let trading = if is_open { Trading::Open } else { Trading::Halted };
                    out.events.push(MarketEvent::Trading { instrument: None, trading });
                }
            }
            ("info", Some(RESTART_CODE)) => out.events.push(MarketEvent::Shutdown),
            ("info", Some(MAINTENANCE_BEGINS_CODE)) => {
                let trading = Trading::Halted;
                out.events.push(MarketEvent::Trading { instrument: None, trading });
            }
            ("info", Some(MAINTENANCE_ENDS_CODE)) => {
                let trading = Trading::Open;
                out.events.push(MarketEvent::Trading { instrument: None, trading });
                // A new connection subscribes to all channels again.
                out.events.push(MarketEvent::Shutdown);
            }
            ("conf", _) => {
                let flags = event.flags.filter(|_| event.status == "OK").unwrap_or(0);
                self.is_numbered = flags & NUMBERED_FLAG != 0;
            }
            ("subscribed", _) => {
                if let (Some(instrument), Some(channel), Some(number)) =
                    (instrument, channel_named(&event.channel), event.channel_number)
                {
                    self.channels.retain(|open| {
                        open.number != number
                            && (open.instrument, open.channel) != (instrument, channel)
                    });
                    self.channels.push(OpenChannel { number, instrument, channel });
                    out.events.push(MarketEvent::Subscribed { instrument, channel });
                }
            }
            ("unsubscribed", _) => {
                self.channels.retain(|open| Some(open.number) != event.channel_number);
            }
            ("error", code) if code.is_none_or(|code| !HARMLESS_CODES.contains(&code)) => {
                let code = code.map_or_else(String::new, |code| format!(" ({code})"));
                let message = format!("{}{code}", event.message);
                out.events.push(MarketEvent::Refused { instrument, message });
            }
            _ => {}
        }
    }

    /// What a frame is about that cannot be read: the number at its beginning may be readable still.
    fn subject_of_broken(&self, text: &[u8]) -> Option<(InstrumentId, Channel)> {
        let text = text.strip_prefix(b"[")?;
        let length = text.iter().position(|byte| !byte.is_ascii_digit())?;
        let number = std::str::from_utf8(&text[..length]).ok()?.parse().ok()?;
        self.open_channel(number).map(|open| (open.instrument, open.channel))
    }
}

impl VenueDecoder for Decoder {
    fn stream_path(&self) -> &str {
        "/ws/2"
    }

    fn subscribe(&self) -> Vec<String> {
        let checksum = if self.has_checksum() { CHECKSUM_FLAG } else { 0 };
        let flags = serde_json::json!({"event": "conf", "flags": NUMBERED_FLAG | checksum});
        let mut requests = vec![flags.to_string()];
        for (_, symbol) in &self.instruments {
            requests.push(self.book_request(symbol));
            requests.push(trades_request(symbol));
        }
        requests
    }

    fn resync(&mut self, instrument: InstrumentId, first: bool) -> Resync {
        let known = self.instruments.iter().find(|(id, _)| *id == instrument);
        let Some((_, symbol)) = known.filter(|_| !first) else {
            return Resync::Send(Vec::new());
        };
        let open = |channel| {
            let is_it =
                |open: &&OpenChannel| (open.instrument, open.channel) == (instrument, channel);
            self.channels.iter().find(is_it).map(|open| open.number)
        };
        let mut texts = Vec::new();
        if let Some(number) = open(Channel::Book) {
            texts.push(serde_json::json!({"event": "unsubscribe", "chanId": number}).to_string());
        }
        texts.push(self.book_request(symbol));
        // Asked for with the book, and put off with it.
        if open(Channel::Trades).is_none() {
            texts.push(trades_request(symbol));
        }
        Resync::Send(texts)
    }

    fn decode(&mut self, message: &mut [u8], out: &mut EventBatch) -> Result<(), DecodeError> {
        out.all_or_nothing(|out| self.read(message, out))
    }

    fn checksum(&self) -> Option<Checksum> {
        let checksum = Checksum { levels: CHECKSUM_LEVELS, compute: checksum };
        self.has_checksum().then_some(checksum)
    }

    fn silence_ns(&self) -> Nanos {
        SILENCE_NS
    }
}

fn trades_request(symbol: &str) -> String {
    serde_json::json!({"event": "subscribe", "channel": "trades", "symbol": symbol}).to_string()
}

fn channel_named(name: &str) -> Option<Channel> {
    match name {
        "book" => Some(Channel::Book),
        "trades" => Some(Channel::Trades),
        _ => None,
    }
}

fn malformed(error: &serde_json::Error, field: &'static str) -> Malformed {
    if error.is_data() { Malformed::Field(field) } else { Malformed::NotJson }
}

/// A message that is no data.
#[derive(serde::Deserialize)]
struct EventText<'m> {
    #[serde(borrow)]
    event: Cow<'m, str>,
    #[serde(borrow, default)]
    channel: Cow<'m, str>,
    #[serde(rename = "chanId")]
    channel_number: Option<u64>,
    #[serde(borrow, default)]
    symbol: Cow<'m, str>,
    #[serde(borrow, default)]
    status: Cow<'m, str>,
    flags: Option<u64>,
    platform: Option<Platform>,
    code: Option<u64>,
    #[serde(borrow, default, rename = "msg")]
    message: Cow<'m, str>,
}

#[derive(serde::Deserialize)]
struct Platform {
    status: u64,
}

/// The first elements of an array and its last: "array lengths should never be hardcoded, new fields
/// may be appended".
struct Array<'m, const N: usize> {
    first: [Option<&'m RawValue>; N],
    last: Option<&'m RawValue>,
}

impl<'de: 'm, 'm, const N: usize> Deserialize<'de> for Array<'m, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements<'m, const N: usize>(PhantomData<&'m RawValue>);

        impl<'de: 'm, 'm, const N: usize> Visitor<'de> for Elements<'m, N> {
            type Value = Array<'m, N>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
                let mut read = Array { first: [None; N], last: None };
                let mut index = 0;
                while let Some(element) = array.next_element()? {
                    if let Some(place) = read.first.get_mut(index) {
                        *place = Some(element);
                    }
                    read.last = Some(element);
                    index += 1;
                }
                Ok(read)
            }
        }

        deserializer.deserialize_seq(Elements(PhantomData))
    }
}

fn integer(raw: &RawValue) -> Option<u64> {
    raw.get().parse().ok()
}

/// Reads `[price, count, amount]`: the sign of the amount is the side, and no orders are left when
/// the count is 0.
fn read_entry(entry: &Array<'_, 3>, digits: &mut Scales) -> Result<(Side, LevelChange), Malformed> {
    let [Some(price), Some(count), Some(amount)] = entry.first else {
        return Err(Malformed::Field("book"));
    };
    let px = measured(price.get(), "price", &mut digits.px)?;
    let count = integer(count).ok_or(Malformed::Field("count"))?;
    let is_gone = count == 0;
    // The amount of a level that is gone is ±1, and no quantity.
    let qty_digits = if is_gone { &mut 0 } else { &mut digits.qty };
    let (is_negative, qty) = signed(amount, "amount", qty_digits)?;
    let side = if is_negative { Side::Ask } else { Side::Bid };
    let qty = if is_gone { Decimal::default() } else { qty };
    Ok((side, LevelChange { px, qty }))
}

/// Reads `"te", [id, time, amount, price]`.
fn read_trade(
    instrument: InstrumentId,
    content: &RawValue,
    trade: Option<&RawValue>,
    out: &mut EventBatch,
) -> Result<(), Malformed> {
    // An array is history: it was over before we subscribed. `"tu"` tells the same trade again.
    if content.get() != r#""te""# {
        return Ok(());
    }
    let trade = trade.and_then(|raw| serde_json::from_str(raw.get()).ok());
    let trade: Array<'_, 4> = trade.ok_or(Malformed::Field("trade"))?;
    let [Some(id), Some(time), Some(amount), Some(price)] = trade.first else {
        return Err(Malformed::Field("trade"));
    };
    let id = integer(id).ok_or(Malformed::Field("id"))?;
    let te_ns = integer(time).and_then(|milliseconds| milliseconds.checked_mul(MILLISECOND_NS));
    let (is_negative, qty) = signed(amount, "amount", &mut 0)?;
    let start = out.trades.len();
    out.trades.push(TradePrint {
        te_ns: te_ns.ok_or(Malformed::Field("time"))?,
        px: measured(price.get(), "price", &mut 0)?,
        qty,
        aggressor: if is_negative { Aggressor::Sell } else { Aggressor::Buy },
        id: TradeId::Number(id),
        number: Some(id),
    });
    out.events.push(MarketEvent::Trades(TradesEvent {
        instrument,
        trades: start..out.trades.len(),
        // The venue counts over all its instruments.
        numbering: TradeNumbering::Rising,
    }));
    Ok(())
}

/// Reads an amount whose sign says on which side it is: whether it is negative, and how much it is.
fn signed(
    raw: &RawValue,
    name: &'static str,
    digits: &mut u8,
) -> Result<(bool, Decimal), Malformed> {
    let text = raw.get();
    let magnitude = text.strip_prefix('-');
    let value = measured(magnitude.unwrap_or(text), name, digits)?;
    // Nothing is on no side.
    if value.is_zero() { Err(Malformed::Field(name)) } else { Ok((magnitude.is_some(), value)) }
}

/// The venue's checksum: bids and asks taken in turn from the best on, each as price and amount, those
/// of asks negative, with colons between, as JavaScript writes numbers.
fn checksum(bids: &[Mantissas], asks: &[Mantissas], digits: Scales) -> u32 {
    let mut text = Vec::new();
    for place in 0..CHECKSUM_LEVELS {
        let bid = bids.get(place).copied();
        let ask = asks.get(place).map(|(px, qty)| (*px, -qty));
        for (px, qty) in [bid, ask].into_iter().flatten() {
            for (mantissa, digits) in [(px, digits.px), (qty, digits.qty)] {
                if !text.is_empty() {
                    text.push(b':');
                }
                write_number(mantissa, digits, &mut text);
            }
        }
    }
    crc32fast::hash(&text)
}

/// Appends `mantissa / 10^digits` as JavaScript writes it, which the venue does on the wire too.
fn write_number(mantissa: i64, digits: u8, out: &mut Vec<u8>) {
    let length = mantissa.unsigned_abs().checked_ilog10().map_or(0, |log| log as u8 + 1);
    if length == 0 || length + PLAIN_DIGITS_MAX > digits {
        return write_decimal(mantissa, digits, out);
    }
    write_decimal(mantissa, length - 1, out);
    out.extend_from_slice(b"e-");
    write_decimal(i64::from(digits - length + 1), 0, out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::venue::testing::{self, damage, decimal, level, refusal, shown};
    use proptest::prelude::*;

    const BTC: InstrumentId = InstrumentId(3);
    const TEST: InstrumentId = InstrumentId(4);

    const GREETING: &str = r#"{"event":"info","version":2,"serverId":"083bd8d4-aca7-4690-a573-eabfc8103de8","platform":{"status":1}}"#;
    const CONF: &str = r#"{"event":"conf","status":"OK","flags":196608}"#;
    const BOOK: &str = r#"{"event":"subscribed","channel":"book","chanId":225206,"symbol":"tBTCUSD","prec":"P0","freq":"F0","len":"250","pair":"BTCUSD"}"#;
    const TRADES: &str = r#"{"event":"subscribed","channel":"trades","chanId":232962,"symbol":"tTESTBTC:TESTUSD","pair":"TESTBTC:TESTUSD"}"#;

    const SNAPSHOT: &str =
        r"[225206,[[277520,2,0.00383141],[282030,1,-0.117],[277510.5,1,0.027]],17]";
    const UPDATE: &str = r"[225206,[279380,1,-0.0089],19]";
    const TRADE: &str = r#"[232962,"te",[670155031,1618677442819,-0.00023057,60410.5],20]"#;

    fn of(depth: Option<u32>) -> Decoder {
        let instruments = vec![(BTC, "tBTCUSD".into()), (TEST, "tTESTBTC:TESTUSD".into())];
        Decoder::new(Subscription { instruments, depth, trades: None })
    }

    /// A decoder that knows the book of one instrument and the trades of the other.
    fn subscribed() -> Decoder {
        let mut decoder = of(None);
        for message in [GREETING, CONF, BOOK, TRADES] {
            testing::decoded(&mut decoder, message);
        }
        decoder
    }

    fn decoded(message: &str) -> EventBatch {
        testing::decoded(&mut subscribed(), message)
    }

    fn delta() -> BookEvent {
        BookEvent {
            instrument: BTC,
            kind: BookKind::Delta,
            bids: 0..0,
            asks: 0..0,
            continuity: None,
            checksum: None,
            te_ns: 0,
            px_digits: 0,
            qty_digits: 0,
            cut_at: None,
        }
    }

    #[test]
    fn a_snapshot_is_an_image_whose_sides_may_be_mixed() {
        let out = decoded(SNAPSHOT);
        let image = BookEvent {
            kind: BookKind::Image,
            bids: 0..2,
            asks: 2..3,
            px_digits: 1,
            qty_digits: 8,
            cut_at: Some(250),
            ..delta()
        };
        assert_eq!(out.events, [MarketEvent::Numbered(17), MarketEvent::Book(image)]);
        assert_eq!(
            out.levels,
            [level("277520", "0.00383141"), level("277510.5", "0.027"), level("282030", "0.117")]
        );
        let empty = BookEvent { kind: BookKind::Image, cut_at: Some(250), ..delta() };
        let expected = [MarketEvent::Numbered(1), MarketEvent::Book(empty)];
        assert_eq!(decoded("[225206,[],1]").events, expected);
    }

    #[test]
    fn the_sign_of_an_amount_is_its_side_and_a_count_of_zero_deletes() {
        for (message, side, expected, digits) in [
            (UPDATE, Side::Ask, level("279380", "0.0089"), (0, 4)),
            ("[225206,[279380,3,5.50],19]", Side::Bid, level("279380", "5.5"), (0, 2)),
            ("[225206,[2e-8,0,1],19]", Side::Bid, level("0.00000002", "0"), (8, 0)),
            ("[225206,[279380,0,-1],19]", Side::Ask, level("279380", "0"), (0, 0)),
            ("[225206,[279380,1,1.5e-7,9],7,19]", Side::Bid, level("279380", "0.00000015"), (0, 8)),
        ] {
            let out = decoded(message);
            let (bids, asks) = if side == Side::Bid { (0..1, 1..1) } else { (0..0, 0..1) };
            let (px_digits, qty_digits) = digits;
            let event = BookEvent { bids, asks, px_digits, qty_digits, ..delta() };
            let expected_events = [MarketEvent::Numbered(19), MarketEvent::Book(event)];
            assert_eq!(out.events, expected_events, "{message}");
            assert_eq!(out.levels, [expected], "{message}");
        }
    }

    #[test]
    fn a_checksum_is_a_change_of_nothing_that_must_hold() {
        for (text, expected) in [("-1", u32::MAX), ("-1934838570", 2_360_128_726), ("7", 7)] {
            let out = decoded(&format!(r#"[225206,"cs",{text},21]"#));
            let event = BookEvent { checksum: Some(expected), ..delta() };
            assert_eq!(out.events, [MarketEvent::Numbered(21), MarketEvent::Book(event)]);
        }
    }

    #[test]
    fn a_trade_counts_once_and_history_does_not() {
        let out = decoded(TRADE);
        let event =
            TradesEvent { instrument: TEST, trades: 0..1, numbering: TradeNumbering::Rising };
        assert_eq!(out.events, [MarketEvent::Numbered(20), MarketEvent::Trades(event)]);
        let print = TradePrint {
            te_ns: 1_618_677_442_819_000_000,
            px: decimal("60410.5"),
            qty: decimal("0.00023057"),
            aggressor: Aggressor::Sell,
            id: TradeId::Number(670_155_031),
            number: Some(670_155_031),
        };
        assert_eq!(out.trades, [print]);
        assert_eq!(decoded(&TRADE.replace("-0", "0")).trades[0].aggressor, Aggressor::Buy);
        let again = TRADE.replace("te", "tu");
        let history = "[232962,[[670155031,1618677442819,-0.00023057,60410]],20]";
        for message in [again.as_str(), history] {
            assert_eq!(decoded(message).events, [MarketEvent::Numbered(20)], "{message}");
        }
    }

    #[test]
    fn what_speaks_before_it_is_announced_counts_and_says_nothing() {
        let mut decoder = of(None);
        testing::decoded(&mut decoder, GREETING);
        testing::decoded(&mut decoder, CONF);
        for (message, number) in [
            (r#"[232954,"hb",126]"#, 126),
            (r"[204928,[0.1,0.2,0.3],127]", 127),
            (UPDATE, 19),
            (TRADE, 20),
        ] {
            assert_eq!(
                testing::decoded(&mut decoder, message).events,
                [MarketEvent::Numbered(number)]
            );
        }
        assert_eq!(decoded(r#"[225206,"hb",5]"#).events, [MarketEvent::Numbered(5)]);
    }

    #[test]
    fn a_connection_that_is_not_numbered_has_its_books_all_the_same() {
        for conf in [CONF.replace("196608", "131072"), CONF.replace("OK", "FAILED")] {
            let mut decoder = of(None);
            for message in [GREETING, &conf, BOOK, TRADES] {
                testing::decoded(&mut decoder, message);
            }
            let level = testing::decoded(&mut decoder, "[225206,[279380,1,-0.0089]]");
            assert!(matches!(level.events[..], [MarketEvent::Book(_)]), "{:?}", level.events);
            let checksum = testing::decoded(&mut decoder, r#"[225206,"cs",7]"#);
            let event = BookEvent { checksum: Some(7), ..delta() };
            assert_eq!(checksum.events, [MarketEvent::Book(event)]);
            let trade = testing::decoded(&mut decoder, r#"[232962,"te",[1,2,-3,4]]"#);
            assert!(matches!(trade.events[..], [MarketEvent::Trades(_)]), "{:?}", trade.events);
            assert!(testing::decoded(&mut decoder, r#"[225206,"hb"]"#).events.is_empty());
        }
    }

    #[test]
    fn the_greeting_of_a_connection_ends_all_that_the_one_before_agreed_on() {
        let mut decoder = subscribed();
        testing::decoded(&mut decoder, GREETING);
        assert!(testing::decoded(&mut decoder, UPDATE).events.is_empty());
        testing::decoded(&mut decoder, CONF);
        assert_eq!(testing::decoded(&mut decoder, UPDATE).events, [MarketEvent::Numbered(19)]);
        // The same channel by another number, then another channel by that number.
        testing::decoded(&mut decoder, &BOOK.replace("225206", "7"));
        testing::decoded(&mut decoder, &BOOK.replace("225206", "8"));
        assert_eq!(testing::decoded(&mut decoder, "[7,[279380,0,1],19]").events.len(), 1);
        testing::decoded(&mut decoder, &TRADES.replace("232962", "8"));
        assert_eq!(testing::decoded(&mut decoder, "[8,[279380,0,1],19]").events.len(), 1);
        testing::decoded(&mut decoder, r#"{"event":"unsubscribed","status":"OK","chanId":8}"#);
        assert_eq!(testing::decoded(&mut decoder, r#"[8,"te",[1,2,3,4],19]"#).events.len(), 1);
    }

    #[test]
    fn control_messages_become_what_the_session_needs() {
        let trading = |trading| MarketEvent::Trading { instrument: None, trading };
        let refused = |instrument, message: &str| {
            vec![MarketEvent::Refused { instrument, message: message.to_owned() }]
        };
        let info = |code: u64| {
            format!(r#"{{"event":"info","code":{code},"msg":"Entering in Maintenance"}}"#)
        };
        let error = |rest: &str| format!(r#"{{"event":"error","msg":"symbol: invalid",{rest}}}"#);
        let announced = |instrument, channel| vec![MarketEvent::Subscribed { instrument, channel }];
        for (message, expected) in [
            (GREETING.to_owned(), vec![trading(Trading::Open)]),
            (GREETING.replace(r#""status":1"#, r#""status":0"#), vec![trading(Trading::Halted)]),
            (r#"{"event":"info","version":2}"#.to_owned(), vec![]),
            (info(20_051), vec![MarketEvent::Shutdown]),
            (info(20_060), vec![trading(Trading::Halted)]),
            (info(20_061), vec![trading(Trading::Open), MarketEvent::Shutdown]),
            (info(20_062), vec![]),
            (CONF.to_owned(), vec![]),
            (BOOK.to_owned(), announced(BTC, Channel::Book)),
            (TRADES.to_owned(), announced(TEST, Channel::Trades)),
            (BOOK.replace("book", "ticker"), vec![]),
            (BOOK.replace("tBTCUSD", "tNOTASKED"), vec![]),
            (
                error(r#""code":10300,"channel":"book","symbol":"tBTCUSD""#),
                refused(Some(BTC), "symbol: invalid (10300)"),
            ),
            (error(r#""code":10305"#), refused(None, "symbol: invalid (10305)")),
            (error(r#""symbol":"tNOTASKED""#), refused(None, "symbol: invalid")),
            (error(r#""code":10301,"symbol":"tBTCUSD""#), vec![]),
            (error(r#""code":10400,"chanId":5"#), vec![]),
            (r#"{"event":"pong","ts":1511545528111,"cid":1234}"#.to_owned(), vec![]),
        ] {
            assert_eq!(decoded(&message).events, expected, "{message}");
        }
    }

    #[test]
    fn a_malformed_message_tells_what_it_was_about_and_leaves_nothing() {
        use tickfan_core::decimal::DecimalError::{Malformed as NoNumber, Overflow};
        const LEVELS: Option<(InstrumentId, Channel)> = Some((BTC, Channel::Book));
        const PRINTS: Option<(InstrumentId, Channel)> = Some((TEST, Channel::Trades));
        let field = Malformed::Field;
        let number = Malformed::Number;
        let digits = "9".repeat(40);
        for (message, about, what) in [
            (UPDATE.replace(",19", ""), LEVELS, field("sequence")),
            (UPDATE.replace(",19", ",-1"), LEVELS, field("sequence")),
            (UPDATE.replace(",19", ",1.5"), LEVELS, field("sequence")),
            (r#"[225206,"hb"]"#.to_owned(), LEVELS, field("sequence")),
            (r#"[5,"hb"]"#.to_owned(), None, field("sequence")),
            (UPDATE.replace(",-0.0089", ""), LEVELS, field("book")),
            (UPDATE.replace("1,", "-1,"), LEVELS, field("count")),
            (UPDATE.replace("1,", "1.5,"), LEVELS, field("count")),
            (UPDATE.replace("-0.0089", "0"), LEVELS, field("amount")),
            (UPDATE.replace("1,-0.0089", "0,0.0"), LEVELS, field("amount")),
            (UPDATE.replace("279380", r#""279380""#), LEVELS, number("price", NoNumber)),
            (UPDATE.replace("279380", "1e40"), LEVELS, number("price", Overflow)),
            (UPDATE.replace("279380", &digits), LEVELS, number("price", Overflow)),
            (UPDATE.replace("-0.0089", "null"), LEVELS, number("amount", NoNumber)),
            (SNAPSHOT.replace("[277510.5,1,0.027]", "5"), LEVELS, field("book")),
            (SNAPSHOT.replace("[277510.5,1,0.027]", "[]"), LEVELS, field("book")),
            (r#"[225206,"cs",4294967295,19]"#.to_owned(), LEVELS, field("checksum")),
            (r#"[225206,"cs"]"#.to_owned(), LEVELS, field("sequence")),
            (UPDATE.replace("],19]", ""), LEVELS, Malformed::NotJson),
            (UPDATE.replace("],19]", "").replace("225206", "5"), None, Malformed::NotJson),
            (TRADE.replace("],20]", ""), PRINTS, Malformed::NotJson),
            (TRADE.replace(",60410.5", ""), PRINTS, field("trade")),
            (r#"[232962,"te",20]"#.to_owned(), PRINTS, field("trade")),
            (TRADE.replace("670155031", "-7"), PRINTS, field("id")),
            (TRADE.replace("1618677442819", "null"), PRINTS, field("time")),
            (TRADE.replace("1618677442819", "99999999999999999"), PRINTS, field("time")),
            (TRADE.replace("-0.00023057", "0.0"), PRINTS, field("amount")),
            (TRADE.replace("60410.5", "true"), PRINTS, number("price", NoNumber)),
            (r#"["x",[1,2,3],19]"#.to_owned(), None, field("frame")),
            ("[225206]".to_owned(), None, field("frame")),
            ("[]".to_owned(), None, field("frame")),
            ("7".to_owned(), None, field("frame")),
            (r#"{"event":7}"#.to_owned(), None, field("event")),
            ("{}".to_owned(), None, field("event")),
            (r#"{"event":"info""#.to_owned(), None, Malformed::NotJson),
            (String::new(), None, Malformed::NotJson),
            ("[".repeat(100_000), None, Malformed::NotJson),
            ("\u{0}x\"\\{[".repeat(170_000), None, Malformed::NotJson),
        ] {
            let error = refusal(&mut subscribed(), &[UPDATE, TRADE], &message);
            assert_eq!(error, DecodeError { about, what }, "{}", shown(&message));
        }
    }

    #[test]
    fn numbers_are_written_as_javascript_does() {
        for (mantissa, digits, expected) in [
            (0, 8, "0"),
            (120, 1, "12"),
            (-1_234_500, 5, "-12.345"),
            (10, 7, "0.000001"),
            (82, 7, "0.0000082"),
            (1, 7, "1e-7"),
            (999, 9, "9.99e-7"),
            (-250, 9, "-2.5e-7"),
            (1, 18, "1e-18"),
            (i64::MAX, 18, "9.223372036854775807"),
            (i64::MIN, 0, "-9223372036854775808"),
        ] {
            let mut out = Vec::new();
            write_number(mantissa, digits, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    #[test]
    fn the_checksum_is_over_both_sides_in_turn() {
        // Python's zlib.crc32 of b"2.5e-7:1200:0.0000025:-800.25:2.4e-7:0.5:0.000003:-1e-8:1:-4".
        let bids = [(25, 120_000_000_000), (24, 50_000_000)];
        let asks = [(250, 80_025_000_000), (300, 1), (100_000_000, 400_000_000)];
        assert_eq!(checksum(&bids, &asks, Scales { px: 8, qty: 8 }), 1_140_165_134);
        // The same of ":".join(f"{100 - i}:1:{101 + i}:-2" for i in range(25)): 25 levels of 26.
        let bids: Vec<Mantissas> = (0..26).map(|i| (100 - i, 1)).collect();
        let asks: Vec<Mantissas> = (0..26).map(|i| (101 + i, 2)).collect();
        assert_eq!(checksum(&bids, &asks, Scales::default()), 166_381_129);
        // The same of b"" and b"7:-0.5".
        assert_eq!(checksum(&[], &[], Scales::default()), 0);
        assert_eq!(checksum(&[], &[(7, 5)], Scales { px: 0, qty: 1 }), 1_756_064_237);
    }

    #[test]
    fn subscriptions_and_resyncs_ask_for_the_depth_rounded_up() {
        let parsed = |text: &String| serde_json::from_str::<serde_json::Value>(text).unwrap();
        for (depth, expected, flags) in [
            (None, "250", 196_608),
            (Some(0), "1", 65_536),
            (Some(2), "25", 196_608),
            (Some(100), "100", 196_608),
            (Some(1000), "250", 196_608),
        ] {
            let decoder = of(depth);
            let requests: Vec<_> = decoder.subscribe().iter().map(parsed).collect();
            assert_eq!(requests.len(), 5);
            assert_eq!(requests[0], serde_json::json!({"event": "conf", "flags": flags}));
            assert_eq!(requests[1]["len"], expected);
            assert_eq!(requests[3]["symbol"], "tTESTBTC:TESTUSD");
            assert_eq!(requests[4]["channel"], "trades");
            assert_eq!(decoder.checksum().is_some(), flags == 196_608);
        }
        let texts = |decoder: &mut Decoder, instrument| match decoder.resync(instrument, false) {
            Resync::Send(texts) => texts.iter().map(parsed).collect::<Vec<_>>(),
            Resync::Rest(path) => panic!("{path}"),
        };
        let mut decoder = subscribed();
        assert_eq!(decoder.resync(BTC, true), Resync::Send(Vec::new()));
        let asked = texts(&mut decoder, BTC);
        assert_eq!(asked[0], serde_json::json!({"event": "unsubscribe", "chanId": 225_206}));
        assert_eq!(asked[1]["channel"], "book");
        assert_eq!(asked[2]["channel"], "trades", "not confirmed yet");
        assert_eq!(asked.len(), 3);
        let asked = texts(&mut decoder, TEST);
        assert_eq!(asked[0]["channel"], "book", "not confirmed yet");
        assert_eq!(asked.len(), 1, "its trades flow");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = subscribed().decode(&mut bytes, &mut EventBatch::default());
        }

        #[test]
        fn no_damage_panics_or_leaves_half_an_event(
            at in 0usize..200,
            with in proptest::collection::vec(any::<u8>(), 0..4),
        ) {
            for message in [SNAPSHOT, UPDATE, TRADE, BOOK] {
                damage(&mut subscribed(), message, at, &with);
            }
        }
    }
}
