//! Kraken, WebSocket version 1.
//!
//! Turns stream messages into market events; there is no REST half, for the image of a book comes
//! with its subscription. Host, instrument list and checksum are those of version 2, in the file of
//! that. The feed thread calls it for every message. It must never read a number as anything but its
//! text: the digits as written are what the venue's checksum is over.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;
use tickfan_core::decimal::Decimal;
use tickfan_core::market::{
    Aggressor, BookEvent, BookKind, Channel, EventBatch, InstrumentId, LevelChange, MarketEvent,
    Nanos, TradeId, TradeNumbering, TradePrint, TradesEvent, Trading,
};

use super::text::{each, measured};
use super::{Checksum, DecodeError, Malformed, Resync, Subscription, VenueDecoder};

/// The depths that the venue offers.
const DEPTHS: [u32; 5] = [10, 25, 100, 500, 1000];
const DEPTH_MAX: u32 = 1000;

/// Pairs in one request. The venue names no bound; this keeps a request at a few kilobytes.
const PAIRS_PER_REQUEST_MAX: usize = 200;

/// The number that our requests to unsubscribe carry, and the venue's answers to them.
const UNSUBSCRIBE_ID: u64 = 1;

const SECOND_NS: Nanos = 1_000_000_000;

/// Digits behind the point of a time in seconds that is exact to the nanosecond.
const NANOS_SCALE: u8 = 9;

/// A heartbeat comes about once a second when nothing else does: ten of them are missing.
const SILENCE_NS: Nanos = 10 * SECOND_NS;

/// The venue closes a connection that sent nothing for 60 s: four chances to be heard.
const KEEPALIVE_NS: Nanos = 15 * SECOND_NS;

/// Decodes one connection.
pub struct Decoder {
    instruments: Vec<(InstrumentId, Arc<str>)>,
    ids: HashMap<Arc<str>, InstrumentId>,
    depth: u32,
    checksum: Checksum,
    /// The numbers that the venue gave to channels, one of each: what a message can be told by that
    /// breaks off before its pair.
    channel_ids: Vec<(u64, InstrumentId, Channel)>,
    /// What stands for the id of a trade, which this version does not send.
    no_id: Arc<str>,
}

impl Decoder {
    /// A decoder for the instruments of one connection, with the checksum that both versions share.
    /// A depth between two that the venue offers is rounded up; the venue has one trade stream only.
    pub fn new(subscription: Subscription, checksum: Checksum) -> Self {
        let asked = subscription.depth.unwrap_or(DEPTH_MAX);
        let ids = subscription.instruments.iter().map(|(id, pair)| (Arc::clone(pair), *id));
        Self {
            ids: ids.collect(),
            depth: DEPTHS.into_iter().find(|depth| *depth >= asked).unwrap_or(DEPTH_MAX),
            checksum,
            channel_ids: Vec::new(),
            no_id: "".into(),
            instruments: subscription.instruments,
        }
    }

    /// What is subscribed to of a book.
    fn book(&self) -> serde_json::Value {
        serde_json::json!({"name": "book", "depth": self.depth})
    }

    fn read(&mut self, message: &[u8], out: &mut EventBatch) -> Result<(), DecodeError> {
        // The market comes in arrays, all else in objects.
        if message.trim_ascii_start().first() != Some(&b'[') {
            let control = serde_json::from_slice(message)
                .map_err(|error| DecodeError { about: None, what: unread(&error) })?;
            self.read_control(&control, out);
            return Ok(());
        }
        let data: Data<'_> = serde_json::from_slice(message).map_err(|error| DecodeError {
            about: self.subject_of_broken(message),
            what: unread(&error),
        })?;
        let (Some(channel), Some(&instrument)) =
            (channel_named(&data.channel), self.ids.get(&*data.pair))
        else {
            return Ok(());
        };
        let read = match channel {
            Channel::Trades => self.read_trades(instrument, &data, out),
            _ => self.read_book(instrument, &data, out),
        };
        read.map_err(|what| DecodeError { about: Some((instrument, channel)), what })
    }
}

impl VenueDecoder for Decoder {
    fn stream_path(&self) -> &str {
        "/"
    }

    fn subscribe(&self) -> Vec<String> {
        let pairs: Vec<&str> = self.instruments.iter().map(|(_, pair)| &**pair).collect();
        let mut requests = Vec::new();
        for pairs in pairs.chunks(PAIRS_PER_REQUEST_MAX) {
            for subscription in [self.book(), serde_json::json!({"name": "trade"})] {
                let request = serde_json::json!({
                    "event": "subscribe", "pair": pairs, "subscription": subscription,
                });
                requests.push(request.to_string());
            }
        }
        requests
    }

    fn resync(&mut self, instrument: InstrumentId, first: bool) -> Resync {
        let known = self.instruments.iter().find(|(id, _)| *id == instrument);
        let Some((_, pair)) = known.filter(|_| !first) else {
            return Resync::Send(Vec::new());
        };
        let pair: &str = pair;
        let unsubscribe = serde_json::json!({
            "event": "unsubscribe", "reqid": UNSUBSCRIBE_ID, "pair": [pair],
            "subscription": self.book(),
        });
        let subscribe = serde_json::json!({
            "event": "subscribe", "pair": [pair], "subscription": self.book(),
        });
        Resync::Send(vec![unsubscribe.to_string(), subscribe.to_string()])
    }

    fn decode(&mut self, message: &mut [u8], out: &mut EventBatch) -> Result<(), DecodeError> {
        out.all_or_nothing(|out| self.read(message, out))
    }

    fn checksum(&self) -> Option<Checksum> {
        Some(self.checksum)
    }

    fn silence_ns(&self) -> Nanos {
        SILENCE_NS
    }

    fn keepalive(&self) -> Option<(String, Nanos)> {
        Some((r#"{"event":"ping"}"#.to_owned(), KEEPALIVE_NS))
    }

    /// No delete is sent for a level that is pushed out of the depth subscribed to.
    fn truncate_at(&self) -> Option<usize> {
        Some(self.depth as usize)
    }
}

/// What is wrong with a message that is not even of the venue's outer shape.
fn unread(error: &serde_json::Error) -> Malformed {
    if error.is_data() { Malformed::Field("message") } else { Malformed::NotJson }
}

/// A message about the market: `[channelID, payload, channel, pair]`, with a second payload where one
/// message changes both sides of a book.
struct Data<'m> {
    payload: &'m RawValue,
    second: Option<&'m RawValue>,
    channel: Cow<'m, str>,
    pair: Cow<'m, str>,
}

impl<'m> Deserialize<'m> for Data<'m> {
    fn deserialize<D: Deserializer<'m>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements;

        impl<'m> Visitor<'m> for Elements {
            type Value = Data<'m>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of channelID, one or two payloads, channel and pair")
            }

            fn visit_seq<A: SeqAccess<'m>>(self, mut array: A) -> Result<Self::Value, A::Error> {
                let missing = |len| A::Error::invalid_length(len, &self);
                array.next_element::<IgnoredAny>()?.ok_or_else(|| missing(0))?;
                let payload = array.next_element()?.ok_or_else(|| missing(1))?;
                let third: &RawValue = array.next_element()?.ok_or_else(|| missing(2))?;
                let fourth: &RawValue = array.next_element()?.ok_or_else(|| missing(3))?;
                let (second, channel, pair) = match array.next_element()? {
                    Some(fifth) => (Some(third), fourth, fifth),
                    None => (None, third, fourth),
                };
                if second.is_some() && array.next_element::<IgnoredAny>()?.is_some() {
                    return Err(missing(6));
                }
                let text = |raw| text(raw).map_err(A::Error::custom);
                Ok(Data { payload, second, channel: text(channel)?, pair: text(pair)? })
            }
        }

        deserializer.deserialize_seq(Elements)
    }
}

/// The text that a raw value is.
fn text(raw: &RawValue) -> Result<Cow<'_, str>, serde_json::Error> {
    #[derive(serde::Deserialize)]
    struct Text<'m>(#[serde(borrow)] Cow<'m, str>);

    serde_json::from_str(raw.get()).map(|Text(text)| text)
}

/// Whatever is not about the market.
#[derive(serde::Deserialize)]
struct Control<'m> {
    #[serde(borrow, default)]
    event: Cow<'m, str>,
    #[serde(borrow, default)]
    status: Cow<'m, str>,
    pair: Option<String>,
    #[serde(rename = "channelID")]
    channel_id: Option<u64>,
    #[serde(borrow)]
    subscription: Option<Subscribed<'m>>,
    #[serde(rename = "errorMessage")]
    error: Option<String>,
    reqid: Option<u64>,
}

#[derive(serde::Deserialize)]
struct Subscribed<'m> {
    #[serde(borrow, default)]
    name: Cow<'m, str>,
}

/// A payload of a book, all of its sides still raw so that each can be named in an error.
#[derive(Default, serde::Deserialize)]
struct Sides<'m> {
    #[serde(borrow, rename = "bs")]
    image_bids: Option<&'m RawValue>,
    #[serde(borrow, rename = "as")]
    image_asks: Option<&'m RawValue>,
    #[serde(borrow, rename = "b")]
    bids: Option<&'m RawValue>,
    #[serde(borrow, rename = "a")]
    asks: Option<&'m RawValue>,
    #[serde(borrow, rename = "c")]
    checksum: Option<&'m RawValue>,
}

impl<'m> Sides<'m> {
    /// Adds what the other payload of the message has. No side stands in both.
    fn join(&mut self, other: Sides<'m>) -> Result<(), Malformed> {
        for (own, other, name) in [
            (&mut self.image_bids, other.image_bids, "bs"),
            (&mut self.image_asks, other.image_asks, "as"),
            (&mut self.bids, other.bids, "b"),
            (&mut self.asks, other.asks, "a"),
            (&mut self.checksum, other.checksum, "c"),
        ] {
            if other.is_some() && std::mem::replace(own, other).is_some() {
                return Err(Malformed::Field(name));
            }
        }
        Ok(())
    }
}

/// The texts that an array begins with; an element beyond them (the flag `r` of a level that is
/// published again, kind and remarks of a trade) is no business of ours.
struct Texts<'m, const N: usize>([&'m str; N]);

impl<'m, const N: usize> Deserialize<'m> for Texts<'m, N> {
    fn deserialize<D: Deserializer<'m>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements<const N: usize>;

        impl<'m, const N: usize> Visitor<'m> for Elements<N> {
            type Value = Texts<'m, N>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "an array that begins with {N} texts")
            }

            fn visit_seq<A: SeqAccess<'m>>(self, mut array: A) -> Result<Self::Value, A::Error> {
                let mut texts = [""; N];
                for (index, text) in texts.iter_mut().enumerate() {
                    let missing = || A::Error::invalid_length(index, &self);
                    *text = array.next_element()?.ok_or_else(missing)?;
                }
                while array.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Texts(texts))
            }
        }

        deserializer.deserialize_seq(Elements)
    }
}

impl Decoder {
    fn read_book(
        &self,
        instrument: InstrumentId,
        data: &Data<'_>,
        out: &mut EventBatch,
    ) -> Result<(), Malformed> {
        let mut sides = Sides::default();
        for payload in [Some(data.payload), data.second].into_iter().flatten() {
            let part = serde_json::from_str(payload.get()).map_err(|_| Malformed::Field("book"))?;
            sides.join(part)?;
        }
        let is_image = sides.image_bids.is_some() || sides.image_asks.is_some();
        let (mut px_digits, mut qty_digits) = (0, 0);
        let mut te_ns = 0;
        let mut read_side = |side, name| {
            let start = out.levels.len();
            each(side, name, |Texts([px, qty, time]): Texts<'_, 3>| {
                let px = measured(px, "price", &mut px_digits)?;
                let qty = measured(qty, "volume", &mut qty_digits)?;
                out.levels.push(LevelChange { px, qty });
                te_ns = te_ns.max(seconds_as_nanos(time)?);
                Ok(())
            })?;
            Ok(start..out.levels.len())
        };
        // An image has both sides, a change those that it changes.
        let (bids, asks) = if is_image {
            (read_side(sides.image_bids, "bs")?, read_side(sides.image_asks, "as")?)
        } else {
            let mut read_changed = |side: Option<_>, name| match side {
                Some(_) => read_side(side, name),
                None => Ok(0..0),
            };
            (read_changed(sides.bids, "b")?, read_changed(sides.asks, "a")?)
        };
        let checksum = sides.checksum.map(read_checksum).transpose()?;
        if checksum.is_none() && !is_image {
            return Err(Malformed::Field("c"));
        }
        out.events.push(MarketEvent::Book(BookEvent {
            instrument,
            kind: if is_image { BookKind::Image } else { BookKind::Delta },
            bids,
            asks,
            continuity: None,
            checksum,
            te_ns,
            px_digits,
            qty_digits,
            cut_at: is_image.then_some(self.depth as usize),
        }));
        Ok(())
    }

    fn read_trades(
        &self,
        instrument: InstrumentId,
        data: &Data<'_>,
        out: &mut EventBatch,
    ) -> Result<(), Malformed> {
        if data.second.is_some() {
            return Err(Malformed::Field("trade"));
        }
        let start = out.trades.len();
        each(Some(data.payload), "trade", |Texts([px, qty, time, side]): Texts<'_, 4>| {
            // Of the order that triggered it.
            let aggressor = match side {
                "b" => Aggressor::Buy,
                "s" => Aggressor::Sell,
                _ => return Err(Malformed::Field("side")),
            };
            out.trades.push(TradePrint {
                te_ns: seconds_as_nanos(time)?,
                px: measured(px, "price", &mut 0)?,
                qty: measured(qty, "volume", &mut 0)?,
                aggressor,
                id: TradeId::Text(Arc::clone(&self.no_id)),
                number: None,
            });
            Ok(())
        })?;
        out.events.push(MarketEvent::Trades(TradesEvent {
            instrument,
            trades: start..out.trades.len(),
            numbering: TradeNumbering::None,
        }));
        Ok(())
    }

    fn read_control(&mut self, control: &Control<'_>, out: &mut EventBatch) {
        match &*control.event {
            "subscriptionStatus" => self.read_subscription(control, out),
            "systemStatus" => {
                let event = trading(&control.status)
                    .map(|trading| MarketEvent::Trading { instrument: None, trading });
                out.events.extend(event);
            }
            // A request that the venue could not read.
            "error" => {
                let message = control.error.clone().unwrap_or_default();
                out.events.push(MarketEvent::Refused { instrument: None, message });
            }
            _ => {}
        }
    }

    /// Reads the answer to a request: one comes for each pair.
    fn read_subscription(&mut self, control: &Control<'_>, out: &mut EventBatch) {
        let instrument = control.pair.as_deref().and_then(|pair| self.ids.get(pair)).copied();
        let channel = control.subscription.as_ref().and_then(|of| channel_named(&of.name));
        match &*control.status {
            // What was not subscribed to need not be unsubscribed from.
            "error" if control.reqid == Some(UNSUBSCRIBE_ID) => {}
            "error" => {
                let message = control.error.clone().unwrap_or_default();
                out.events.push(MarketEvent::Refused { instrument, message });
            }
            "subscribed" => {
                let (Some(instrument), Some(channel)) = (instrument, channel) else { return };
                if let Some(id) = control.channel_id {
                    self.channel_ids.retain(|known| (known.1, known.2) != (instrument, channel));
                    self.channel_ids.push((id, instrument, channel));
                }
                out.events.push(MarketEvent::Subscribed { instrument, channel });
            }
            _ => {}
        }
    }

    /// What a message is about that cannot be read: it begins with the number of its channel.
    fn subject_of_broken(&self, message: &[u8]) -> Option<(InstrumentId, Channel)> {
        let rest = message.trim_ascii_start().strip_prefix(b"[")?;
        let end = rest.iter().position(|byte| *byte == b',')?;
        let id: u64 = std::str::from_utf8(rest.get(..end)?).ok()?.trim().parse().ok()?;
        let known = self.channel_ids.iter().find(|(known, ..)| *known == id);
        known.map(|(_, instrument, channel)| (*instrument, *channel))
    }
}

/// The channel that a name is of: `book-1000` names its depth.
fn channel_named(name: &str) -> Option<Channel> {
    match name.split('-').next() {
        Some("book") => Some(Channel::Book),
        Some("trade") => Some(Channel::Trades),
        _ => None,
    }
}

/// What a state of the venue means for trading.
fn trading(status: &str) -> Option<Trading> {
    match status {
        "online" | "limit_only" => Some(Trading::Open),
        "maintenance" | "cancel_only" | "post_only" => Some(Trading::Halted),
        _ => None,
    }
}

/// Reads a checksum, which is a number in quotes.
fn read_checksum(raw: &RawValue) -> Result<u32, Malformed> {
    let digits = raw.get().strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    digits.and_then(|digits| digits.parse().ok()).ok_or(Malformed::Field("c"))
}

/// Reads a time as the venue writes it, in seconds: `1618678133.365913`.
fn seconds_as_nanos(seconds: &str) -> Result<Nanos, Malformed> {
    let exact = Decimal::parse(seconds.as_bytes()).and_then(|time| time.at_scale(NANOS_SCALE));
    let exact = exact.map_err(|error| Malformed::Number("time", error))?;
    Nanos::try_from(exact).map_err(|_| Malformed::Field("time"))
}

#[cfg(test)]
mod tests {
    use super::super::kraken::CHECKSUM;
    use super::*;
    use crate::venue::testing::{self, damage, decimal, level, refusal, shown};
    use proptest::prelude::*;

    const XBT: InstrumentId = InstrumentId(3);
    const XMR: InstrumentId = InstrumentId(4);

    const IMAGE: &str = r#"[336,{"as":[["45285.20000","0.00100000","1618678123.481570"],["45286.00000","1.00000000","1618678124.000000000"]],"bs":[["45283.50000","0.10000000","1618678120.394077"]]},"book-1000","XBT/USD"]"#;
    const CHANGE: &str = r#"[336,{"b":[["45283.50000","0.00000000","1618678133.365913"],["45283.10000","2.50000000","1618678133.365914","r"]],"c":"2583817756"},"book-1000","XBT/USD"]"#;
    const BOTH: &str = r#"[336,{"a":[["45285.2","0.50","1618678133.1"]]},{"b":[["45283.5","0.25","1618678133.05"]],"c":"7"},"book-1000","XBT/USD"]"#;
    const TRADES: &str = r#"[337,[["354.11000000","0.89594024","1618678142.557535","s","l",""],["354.12000000","0.50000000","1618678142.557536","b","m","x"]],"trade","XMR/USD"]"#;
    const ACK: &str = r#"{"channelID":336,"channelName":"book-1000","event":"subscriptionStatus","pair":"XBT/USD","status":"subscribed","subscription":{"depth":1000,"name":"book"}}"#;

    fn of(depth: Option<u32>) -> Decoder {
        let instruments = vec![(XBT, "XBT/USD".into()), (XMR, "XMR/USD".into())];
        Decoder::new(Subscription { instruments, depth, trades: None }, CHECKSUM)
    }

    fn decoded(message: &str) -> EventBatch {
        testing::decoded(&mut of(None), message)
    }

    #[test]
    fn a_snapshot_is_an_image_with_digits_as_written() {
        let out = decoded(IMAGE);
        let image = BookEvent {
            instrument: XBT,
            kind: BookKind::Image,
            bids: 0..1,
            asks: 1..3,
            continuity: None,
            checksum: None,
            te_ns: 1_618_678_124_000_000_000,
            px_digits: 5,
            qty_digits: 8,
            cut_at: Some(1000),
        };
        assert_eq!(out.events, [MarketEvent::Book(image)]);
        assert_eq!(
            out.levels,
            [level("45283.5", "0.1"), level("45285.2", "0.001"), level("45286", "1")]
        );
        let empty = decoded(r#"[336,{"as":[],"bs":[]},"book-10","XBT/USD"]"#);
        let [MarketEvent::Book(event)] = &empty.events[..] else { panic!("{:?}", empty.events) };
        assert_eq!((event.kind, event.te_ns), (BookKind::Image, 0));
    }

    #[test]
    fn a_change_of_one_side_is_a_delta_at_the_time_of_its_newest_level() {
        let out = decoded(CHANGE);
        let delta = BookEvent {
            instrument: XBT,
            kind: BookKind::Delta,
            bids: 0..2,
            asks: 0..0,
            continuity: None,
            checksum: Some(2_583_817_756),
            te_ns: 1_618_678_133_365_914_000,
            px_digits: 5,
            qty_digits: 8,
            cut_at: None,
        };
        assert_eq!(out.events, [MarketEvent::Book(delta)]);
        assert_eq!(out.levels, [level("45283.5", "0"), level("45283.1", "2.5")]);
    }

    #[test]
    fn two_payloads_are_one_delta_whichever_comes_first() {
        let out = decoded(BOTH);
        let swapped = r#"[336,{"b":[["45283.5","0.25","1618678133.05"]]},{"a":[["45285.2","0.50","1618678133.1"]],"c":"7","new":[{}]},"book-1000","XBT/USD"]"#;
        let one = r#" [336,{"c":"7","a":[["45285.2","0.50","1618678133.1"]],"b":[["45283.5","0.25","1618678133.05"]]},"book-1000","XBT\/USD"]"#;
        let [MarketEvent::Book(event)] = &out.events[..] else { panic!("{:?}", out.events) };
        assert_eq!((event.bids.clone(), event.asks.clone()), (0..1, 1..2));
        assert_eq!((event.checksum, event.te_ns), (Some(7), 1_618_678_133_100_000_000));
        assert_eq!((event.px_digits, event.qty_digits), (1, 2));
        assert_eq!(out.levels, [level("45283.5", "0.25"), level("45285.2", "0.5")]);
        for message in [swapped, one] {
            assert_eq!(decoded(message).events, out.events, "{message}");
            assert_eq!(decoded(message).levels, out.levels, "{message}");
        }
    }

    #[test]
    fn the_trades_of_a_message_are_one_event_and_have_no_ids() {
        let out = decoded(TRADES);
        let event = TradesEvent { instrument: XMR, trades: 0..2, numbering: TradeNumbering::None };
        assert_eq!(out.events, [MarketEvent::Trades(event)]);
        let print = TradePrint {
            te_ns: 1_618_678_142_557_535_000,
            px: decimal("354.11"),
            qty: decimal("0.89594024"),
            aggressor: Aggressor::Sell,
            id: TradeId::Text("".into()),
            number: None,
        };
        assert_eq!(out.trades[0], print);
        assert_eq!(out.trades[1].aggressor, Aggressor::Buy);
    }

    #[test]
    fn control_messages_become_what_the_session_needs() {
        let refused = |instrument, message: &str| MarketEvent::Refused {
            instrument,
            message: message.to_owned(),
        };
        let error = r#"{"errorMessage":"Subscription depth not supported","event":"subscriptionStatus","pair":"XMR/USD","status":"error","subscription":{"depth":42,"name":"book"}}"#;
        let words = "Subscription depth not supported";
        let system = |status: &str| {
            format!(
                r#"{{"connectionID":17843232920108168701,"event":"systemStatus","status":"{status}","version":"1.8.3"}}"#
            )
        };
        let trading = |trading| vec![MarketEvent::Trading { instrument: None, trading }];
        for (message, expected) in [
            (
                ACK.to_owned(),
                vec![MarketEvent::Subscribed { instrument: XBT, channel: Channel::Book }],
            ),
            (
                r#"{"channelID":337,"channelName":"trade","event":"subscriptionStatus","pair":"XMR/USD","status":"subscribed","subscription":{"name":"trade"}}"#.to_owned(),
                vec![MarketEvent::Subscribed { instrument: XMR, channel: Channel::Trades }],
            ),
            (ACK.replace("subscribed", "unsubscribed"), vec![]),
            (ACK.replace("XBT/USD", "NOT/ASKED"), vec![]),
            (ACK.replace(r#""name":"book""#, r#""name":"ticker""#), vec![]),
            (error.to_owned(), vec![refused(Some(XMR), words)]),
            (error.replace("XMR/USD", "NOT/ASKED"), vec![refused(None, words)]),
            (error.replace(r#""status""#, r#""reqid":1,"status""#), vec![]),
            (
                r#"{"errorMessage":"Malformed request","event":"error"}"#.to_owned(),
                vec![refused(None, "Malformed request")],
            ),
            (system("online"), trading(Trading::Open)),
            (system("limit_only"), trading(Trading::Open)),
            (system("maintenance"), trading(Trading::Halted)),
            (system("cancel_only"), trading(Trading::Halted)),
            (system("post_only"), trading(Trading::Halted)),
            (system("other"), vec![]),
            (r#"{"event":"heartbeat"}"#.to_owned(), vec![]),
            (r#"{"event":"pong","reqid":42}"#.to_owned(), vec![]),
            ("{}".to_owned(), vec![]),
            (
                r#"[340,{"a":["13.253900",35,"35.72892241"],"b":["13.232900",185,"185.18432037"]},"ticker","XBT/USD"]"#.to_owned(),
                vec![],
            ),
            (TRADES.replace("XMR/USD", "NOT/ASKED"), vec![]),
        ] {
            assert_eq!(decoded(&message).events, expected, "{message}");
        }
    }

    #[test]
    fn a_malformed_message_tells_what_it_was_about_and_leaves_nothing() {
        use tickfan_core::decimal::DecimalError::{Malformed as NoNumber, Overflow, TooFine};
        const BOOK: Option<(InstrumentId, Channel)> = Some((XBT, Channel::Book));
        const TRADE: Option<(InstrumentId, Channel)> = Some((XMR, Channel::Trades));
        let field = Malformed::Field;
        let number = Malformed::Number;
        for (message, about, what) in [
            (CHANGE.replace(r#","c":"2583817756""#, ""), BOOK, field("c")),
            (CHANGE.replace("2583817756", "4294967296"), BOOK, field("c")),
            (CHANGE.replace(r#""2583817756""#, "2583817756"), BOOK, field("c")),
            (CHANGE.replace("45283.50000", "4528x"), BOOK, number("price", NoNumber)),
            (CHANGE.replace("45283.50000", "1e40"), BOOK, number("price", Overflow)),
            (CHANGE.replace("2.50000000", ""), BOOK, number("volume", NoNumber)),
            (CHANGE.replace(r#""2.50000000""#, "2.5"), BOOK, field("b")),
            (CHANGE.replace("1618678133.365913", "-1.5"), BOOK, field("time")),
            (CHANGE.replace("1618678133.365913", "1.0000000001"), BOOK, number("time", TooFine)),
            (CHANGE.replace("1618678133.365913", "99999999999"), BOOK, number("time", Overflow)),
            (CHANGE.replace(r#","1618678133.365913""#, ""), BOOK, field("b")),
            (IMAGE.replace(r#""bs""#, r#""xs""#), BOOK, field("bs")),
            (IMAGE.replace(r#""as""#, r#""xs""#), BOOK, field("as")),
            (BOTH.replace(r#""b""#, r#""a""#), BOOK, field("a")),
            (
                BOTH.replace(r#"{"a":[["45285.2","0.50","1618678133.1"]]}"#, "5"),
                BOOK,
                field("book"),
            ),
            (TRADES.replace(r#""s""#, r#""x""#), TRADE, field("side")),
            (TRADES.replace(r#""trade""#, r#"{},"trade""#), TRADE, field("trade")),
            (TRADES.replace(r#"[["354"#, r#"["",["354"#), TRADE, field("trade")),
            // What cannot be read to its end is told by the number of its channel.
            (CHANGE.replace(r#","XBT/USD"]"#, ""), BOOK, Malformed::NotJson),
            (CHANGE.replace(r#","XBT/USD"]"#, "]"), BOOK, field("message")),
            (CHANGE.replace(r#""XBT/USD"]"#, r#""XBT/USD",1,2]"#), BOOK, field("message")),
            (CHANGE.replace(r#""book-1000""#, "5"), BOOK, field("message")),
            (CHANGE[..40].to_owned(), BOOK, Malformed::NotJson),
            (CHANGE[..40].replace("336", "337"), None, Malformed::NotJson),
            ("[33".to_owned(), None, Malformed::NotJson),
            ("[336]".to_owned(), None, field("message")),
            (r#"{"event":"heartbeat""#.to_owned(), None, Malformed::NotJson),
            (r#"{"event":5}"#.to_owned(), None, field("message")),
            ("5".to_owned(), None, field("message")),
            (String::new(), None, Malformed::NotJson),
            ("[".repeat(100_000), None, Malformed::NotJson),
        ] {
            let error = refusal(&mut of(None), &[ACK, CHANGE, TRADES], &message);
            assert_eq!(error, DecodeError { about, what }, "{}", shown(&message));
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
            assert_eq!(requests[0]["subscription"]["name"], "book");
            assert_eq!(requests[0]["subscription"]["depth"], expected);
            assert_eq!(requests[0]["pair"][1], "XMR/USD");
            assert_eq!(requests[1]["subscription"]["name"], "trade");
            assert_eq!(decoder.truncate_at(), Some(expected));
        }
        let mut decoder = of(None);
        assert_eq!(decoder.resync(XMR, true), Resync::Send(Vec::new()));
        let Resync::Send(texts) = decoder.resync(XMR, false) else { panic!("not on the stream") };
        let events: Vec<_> = texts.iter().map(|text| parsed(text)["event"].clone()).collect();
        assert_eq!(events, ["unsubscribe", "subscribe"]);
        for text in &texts {
            assert_eq!(parsed(text)["pair"], serde_json::json!(["XMR/USD"]));
        }
        assert_eq!(parsed(&texts[1]).get("reqid"), None);
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
            for message in [IMAGE, CHANGE, BOTH, TRADES, ACK] {
                damage(&mut of(None), message, at, &with);
            }
        }
    }
}
