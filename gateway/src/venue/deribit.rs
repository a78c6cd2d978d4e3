//! Deribit, version 2 of its API.
//!
//! Turns stream messages and the instrument list into market events and listings; there is no REST
//! half for books, for the image of a book comes with its subscription. The feed thread calls it
//! for every message. It must never read a number as anything but its literal.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use serde_json::value::RawValue;
use tickfan_core::decimal::{Decimal, SCALE_MAX};
use tickfan_core::market::{
    Aggressor, BookEvent, BookKind, Channel, Continuity, EventBatch, InstrumentId, LevelChange,
    Listing, MarketEvent, Nanos, TradeId, TradeNumbering, TradePrint, TradesEvent, Trading,
};

use super::text::{each, measured};
use super::{DecodeError, Endpoints, Malformed, Resync, Subscription, VenueDecoder, quoted_after};

/// How often changes are sent. The only finer one, `raw`, is for accounts.
const INTERVAL: &str = "100ms";

/// Channels in one request. The venue names no bound; this keeps a request at a few kilobytes.
const CHANNELS_PER_REQUEST_MAX: usize = 200;

/// What the platform tells of itself, and every instrument of its life.
const PLATFORM_STATE: &str = "platform_state";
const INSTRUMENT_STATES: &str = "instrument.state.any.any";

/// The numbers of our requests, by which an answer is known.
const HEARTBEAT_ID: u64 = 1;
const TEST_ID: u64 = 2;
const UNSUBSCRIBE_ID: u64 = 3;
const SUBSCRIBE_ID: u64 = 4;
const NOTICES_ID: u64 = 5;
/// A request for one instrument has this and the number of the instrument.
const INSTRUMENT_IDS_FROM: u64 = 1000;

/// Errors that say "later" and not "never": too many requests, retry, settlement, queue full, too
/// many at once, maintenance, internal error, temporarily unavailable, timed out.
const LATER_CODES: [i64; 9] = [10028, 10040, 10041, 10047, 10066, 11051, 11094, 13028, 13888];

const SECOND_NS: Nanos = 1_000_000_000;
const MILLISECOND_NS: Nanos = 1_000_000;

/// "The heartbeat interval in seconds, but not less than 10."
const HEARTBEAT_S: u64 = 10;

/// Three heartbeats are missing.
const SILENCE_NS: Nanos = 3 * HEARTBEAT_S * SECOND_NS;

/// The default endpoints.
pub const fn endpoints() -> Endpoints {
    Endpoints {
        stream: "wss://www.deribit.com",
        rest: "https://www.deribit.com",
        // What has expired is left out unless it is asked for.
        instruments_paths: &["/api/v2/public/get_instruments?currency=any"],
        // Images come on the stream: the list is all that REST is asked for.
        instruments_weight: 1,
        rest_weight_per_minute: 60,
        // No limit is documented; 32 connections of one address then carry 8,000 instruments, more
        // than there are.
        instruments_per_connection: 250,
        // A subscription costs 3,000 of 30,000 credits, of which 10,000 come back in a second.
        text_spacing_ns: SECOND_NS / 3,
        texts_at_once: 8,
        // Only their number is limited.
        connect_spacing_ns: SECOND_NS,
        connection_life_ns: None,
    }
}

/// Reads the list of instruments.
///
/// # Errors
/// [`Malformed`] when the body is not what the venue documents; a single instrument that cannot be
/// read is left out instead.
pub fn listings(body: &[u8]) -> Result<Vec<Listing>, Malformed> {
    let list: InstrumentList<'_> = serde_json::from_slice(body).map_err(|error| {
        if error.is_data() { Malformed::Field("result") } else { Malformed::NotJson }
    })?;
    let instruments = list.result.iter().filter_map(|raw| serde_json::from_str(raw.get()).ok());
    Ok(instruments.filter_map(|instrument: InstrumentText<'_>| instrument.listing()).collect())
}

/// Decodes one connection.
pub struct Decoder {
    instruments: Vec<(InstrumentId, Arc<str>)>,
    ids: HashMap<Arc<str>, InstrumentId>,
    /// The platform has said so, and not that it ended.
    is_in_maintenance: bool,
}

impl Decoder {
    /// A decoder for the instruments of one connection. The venue has one depth, the whole, and one
    /// trade stream.
    pub fn new(subscription: Subscription) -> Self {
        let ids = subscription.instruments.iter().map(|(id, symbol)| (Arc::clone(symbol), *id));
        Self { ids: ids.collect(), instruments: subscription.instruments, is_in_maintenance: false }
    }

    fn read(&mut self, text: &[u8], out: &mut EventBatch) -> Result<(), DecodeError> {
        let message: Message<'_> = serde_json::from_slice(text).map_err(|error| {
            let what =
                if error.is_data() { Malformed::Field("message") } else { Malformed::NotJson };
            DecodeError { about: self.subject_of_broken(text), what }
        })?;
        match (&*message.method, &message.params) {
            ("subscription", Some(params)) => return self.read_notification(params, out),
            ("heartbeat", Some(params)) if params.kind == "test_request" => {
                let test = request(TEST_ID, "public/test", serde_json::json!({}));
                out.events.push(MarketEvent::Reply(test));
            }
            _ => self.read_answer(&message, out),
        }
        Ok(())
    }

    fn read_notification(
        &mut self,
        params: &Params<'_>,
        out: &mut EventBatch,
    ) -> Result<(), DecodeError> {
        let Some((channel, instrument)) = self.subject(&params.channel) else {
            // A notice that cannot be read is about no book.
            self.read_notice(params, out);
            return Ok(());
        };
        let read = match channel {
            Channel::Book => read_book(instrument, params.data, out),
            _ => read_trades(instrument, params.data, out),
        };
        read.map_err(|what| DecodeError { about: Some((instrument, channel)), what })
    }

    /// The channel and instrument of `book.NAME.INTERVAL` and `trades.NAME.INTERVAL`.
    fn subject(&self, channel: &str) -> Option<(Channel, InstrumentId)> {
        let (channel, rest) = if let Some(rest) = channel.strip_prefix("book.") {
            (Channel::Book, rest)
        } else {
            (Channel::Trades, channel.strip_prefix("trades.")?)
        };
        let (symbol, _interval) = rest.rsplit_once('.')?;
        Some((channel, *self.ids.get(symbol)?))
    }

    fn read_notice(&mut self, params: &Params<'_>, out: &mut EventBatch) {
        let notice = params.data.and_then(|raw| serde_json::from_str::<Notice<'_>>(raw.get()).ok());
        let Some(notice) = notice else { return };
        if params.channel == PLATFORM_STATE {
            // The documents have a boolean; the venue has sent it in quotes too.
            match notice.maintenance.map(RawValue::get) {
                Some("true" | r#""true""#) => self.set_maintenance(true, out),
                Some("false" | r#""false""#) => self.set_maintenance(false, out),
                // An index that is locked: which instruments hang on it is not said.
                _ => {}
            }
        } else if params.channel == INSTRUMENT_STATES
            && let Some(instrument) = self.ids.get(&*notice.instrument_name).copied()
            && let Some(trading) = trading_in(&notice.state)
        {
            out.events.push(MarketEvent::Trading { instrument: Some(instrument), trading });
        }
    }

    fn set_maintenance(&mut self, is_in_maintenance: bool, out: &mut EventBatch) {
        if std::mem::replace(&mut self.is_in_maintenance, is_in_maintenance) != is_in_maintenance {
            let trading = if is_in_maintenance { Trading::Halted } else { Trading::Open };
            out.events.push(MarketEvent::Trading { instrument: None, trading });
        }
    }

    fn read_answer(&mut self, answer: &Message<'_>, out: &mut EventBatch) {
        if let Some(error) = &answer.error {
            if LATER_CODES.contains(&error.code) {
                return;
            }
            let number = answer.id.and_then(|id| id.checked_sub(INSTRUMENT_IDS_FROM));
            let mut asked = self.instruments.iter().map(|(id, _)| *id);
            let instrument = asked.find(|id| Some(u64::from(id.0)) == number);
            let message = format!("{} ({})", error.message, error.code);
            out.events.push(MarketEvent::Refused { instrument, message });
        } else if answer.id != Some(UNSUBSCRIBE_ID) {
            // Other answers than to a subscription are no lists.
            let _ = each(answer.result, "result", |channel: Cow<'_, str>| {
                if let Some((channel, instrument)) = self.subject(&channel) {
                    out.events.push(MarketEvent::Subscribed { instrument, channel });
                } else if channel == PLATFORM_STATE {
                    // It is up, or it would not answer: that maintenance ended was missed.
                    self.set_maintenance(false, out);
                }
                Ok(())
            });
        }
    }

    /// What a message is about that cannot be read: its channel may be readable still.
    fn subject_of_broken(&self, message: &[u8]) -> Option<(InstrumentId, Channel)> {
        let (channel, instrument) = self.subject(quoted_after(message, b"\"channel\":\"")?)?;
        Some((instrument, channel))
    }
}

impl VenueDecoder for Decoder {
    fn stream_path(&self) -> &str {
        "/ws/api/v2"
    }

    fn subscribe(&self) -> Vec<String> {
        let interval = serde_json::json!({"interval": HEARTBEAT_S});
        let mut requests = vec![request(HEARTBEAT_ID, "public/set_heartbeat", interval)];
        let channels: Vec<String> =
            self.instruments.iter().flat_map(|(_, symbol)| channels_of(symbol)).collect();
        for channels in channels.chunks(CHANNELS_PER_REQUEST_MAX) {
            requests.push(channel_request(SUBSCRIBE_ID, "public/subscribe", channels));
        }
        // A request of its own, so that nothing else hangs on it.
        let notices = [PLATFORM_STATE, INSTRUMENT_STATES].map(str::to_owned);
        requests.push(channel_request(NOTICES_ID, "public/subscribe", &notices));
        requests
    }

    /// Subscribes to the trades too: they were asked for with the book, and may have been put off
    /// with it.
    fn resync(&mut self, instrument: InstrumentId, first: bool) -> Resync {
        let known = self.instruments.iter().find(|(id, _)| *id == instrument);
        let Some((_, symbol)) = known.filter(|_| !first) else {
            return Resync::Send(Vec::new());
        };
        let channels = channels_of(symbol);
        let id = INSTRUMENT_IDS_FROM + u64::from(instrument.0);
        Resync::Send(vec![
            channel_request(UNSUBSCRIBE_ID, "public/unsubscribe", &channels[..1]),
            channel_request(id, "public/subscribe", &channels),
        ])
    }

    fn decode(&mut self, message: &mut [u8], out: &mut EventBatch) -> Result<(), DecodeError> {
        out.all_or_nothing(|out| self.read(message, out))
    }

    fn silence_ns(&self) -> Nanos {
        SILENCE_NS
    }
}

/// The channels of an instrument, that of its book first.
fn channels_of(symbol: &str) -> [String; 2] {
    ["book", "trades"].map(|channel| format!("{channel}.{symbol}.{INTERVAL}"))
}

fn channel_request(id: u64, method: &str, channels: &[String]) -> String {
    request(id, method, serde_json::json!({"channels": channels}))
}

fn request(id: u64, method: &str, params: serde_json::Value) -> String {
    serde_json::json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string()
}

/// The states of an instrument's life, those that the venue used until 2026 among them.
fn trading_in(state: &str) -> Option<Trading> {
    match state {
        "open" | "started" | "settled" => Some(Trading::Open),
        "locked" | "settlement" | "inactive" | "deactivated" | "halted" => Some(Trading::Halted),
        "closed" | "delivered" | "terminated" | "archivized" => Some(Trading::Ended),
        _ => None,
    }
}

/// The outside of any message.
#[derive(serde::Deserialize)]
struct Message<'m> {
    #[serde(borrow, default)]
    method: Cow<'m, str>,
    #[serde(borrow)]
    params: Option<Params<'m>>,
    id: Option<u64>,
    #[serde(borrow)]
    result: Option<&'m RawValue>,
    error: Option<RequestError>,
}

#[derive(serde::Deserialize)]
struct Params<'m> {
    #[serde(borrow, default)]
    channel: Cow<'m, str>,
    #[serde(borrow)]
    data: Option<&'m RawValue>,
    #[serde(borrow, default, rename = "type")]
    kind: Cow<'m, str>,
}

#[derive(serde::Deserialize)]
struct RequestError {
    code: i64,
    #[serde(default)]
    message: String,
}

/// The data of a book.
#[derive(serde::Deserialize)]
struct BookText<'m> {
    #[serde(borrow, default, rename = "type")]
    kind: Cow<'m, str>,
    timestamp: Option<u64>,
    change_id: Option<u64>,
    prev_change_id: Option<u64>,
    #[serde(borrow)]
    bids: Option<&'m RawValue>,
    #[serde(borrow)]
    asks: Option<&'m RawValue>,
}

/// `["new" | "change" | "delete", price, amount]`.
#[derive(serde::Deserialize)]
struct LevelText<'m>(
    #[serde(borrow)] Cow<'m, str>,
    #[serde(borrow)] &'m RawValue,
    #[serde(borrow)] &'m RawValue,
);

#[derive(serde::Deserialize)]
struct TradeText<'m> {
    trade_seq: Option<u64>,
    #[serde(borrow, default)]
    trade_id: Cow<'m, str>,
    timestamp: Option<u64>,
    #[serde(borrow)]
    price: Option<&'m RawValue>,
    #[serde(borrow)]
    amount: Option<&'m RawValue>,
    #[serde(borrow, default)]
    direction: Cow<'m, str>,
}

/// The data of the channels [`PLATFORM_STATE`] and [`INSTRUMENT_STATES`].
#[derive(serde::Deserialize)]
struct Notice<'m> {
    #[serde(borrow)]
    maintenance: Option<&'m RawValue>,
    #[serde(borrow, default)]
    instrument_name: Cow<'m, str>,
    #[serde(borrow, default)]
    state: Cow<'m, str>,
}

fn read_book(
    instrument: InstrumentId,
    data: Option<&RawValue>,
    out: &mut EventBatch,
) -> Result<(), Malformed> {
    let data = data.and_then(|raw| serde_json::from_str(raw.get()).ok());
    let book: BookText<'_> = data.ok_or(Malformed::Field("data"))?;
    let last = book.change_id.ok_or(Malformed::Field("change_id"))?;
    let (kind, follows) = match (&*book.kind, book.prev_change_id) {
        ("snapshot", _) => (BookKind::Image, last),
        ("change", Some(previous)) => (BookKind::Delta, previous),
        ("change", None) => return Err(Malformed::Field("prev_change_id")),
        _ => return Err(Malformed::Field("type")),
    };
    let (mut px_digits, mut qty_digits) = (0, 0);
    let mut read_side = |side, name| {
        let start = out.levels.len();
        each(side, name, |LevelText(action, price, amount): LevelText<'_>| {
            let px = measured(price.get(), "price", &mut px_digits)?;
            let qty = match &*action {
                "new" | "change" => measured(amount.get(), "amount", &mut qty_digits)?,
                "delete" => Decimal::default(),
                _ => return Err(Malformed::Field("action")),
            };
            out.levels.push(LevelChange { px, qty });
            Ok(())
        })?;
        Ok(start..out.levels.len())
    };
    let bids = read_side(book.bids, "bids")?;
    let asks = read_side(book.asks, "asks")?;
    out.events.push(MarketEvent::Book(BookEvent {
        instrument,
        kind,
        bids,
        asks,
        continuity: Some(Continuity { follows, last }),
        checksum: None,
        te_ns: te_ns(book.timestamp)?,
        px_digits,
        qty_digits,
        cut_at: None,
    }));
    Ok(())
}

fn read_trades(
    instrument: InstrumentId,
    data: Option<&RawValue>,
    out: &mut EventBatch,
) -> Result<(), Malformed> {
    let start = out.trades.len();
    each(data, "data", |trade: TradeText<'_>| {
        // "Direction: buy, or sell", of the taker.
        let aggressor = match &*trade.direction {
            "buy" => Aggressor::Buy,
            "sell" => Aggressor::Sell,
            _ => return Err(Malformed::Field("direction")),
        };
        if trade.trade_id.is_empty() {
            return Err(Malformed::Field("trade_id"));
        }
        out.trades.push(TradePrint {
            te_ns: te_ns(trade.timestamp)?,
            px: decimal(trade.price, "price")?,
            qty: decimal(trade.amount, "amount")?,
            aggressor,
            id: TradeId::Text(trade.trade_id.into()),
            // "The sequence number of the trade within instrument."
            number: Some(trade.trade_seq.ok_or(Malformed::Field("trade_seq"))?),
        });
        Ok(())
    })?;
    out.events.push(MarketEvent::Trades(TradesEvent {
        instrument,
        trades: start..out.trades.len(),
        numbering: TradeNumbering::Consecutive,
    }));
    Ok(())
}

fn decimal(raw: Option<&RawValue>, name: &'static str) -> Result<Decimal, Malformed> {
    measured(raw.ok_or(Malformed::Field(name))?.get(), name, &mut 0)
}

/// A time of the venue, in milliseconds.
fn te_ns(milliseconds: Option<u64>) -> Result<Nanos, Malformed> {
    let te_ns = milliseconds.and_then(|milliseconds| milliseconds.checked_mul(MILLISECOND_NS));
    te_ns.ok_or(Malformed::Field("timestamp"))
}

#[derive(serde::Deserialize)]
struct InstrumentList<'m> {
    #[serde(borrow)]
    result: Vec<&'m RawValue>,
}

#[derive(serde::Deserialize)]
struct InstrumentText<'m> {
    #[serde(borrow)]
    instrument_name: Cow<'m, str>,
    #[serde(borrow)]
    base_currency: Cow<'m, str>,
    #[serde(borrow)]
    quote_currency: Cow<'m, str>,
    #[serde(borrow)]
    kind: Cow<'m, str>,
    #[serde(borrow, default)]
    settlement_period: Cow<'m, str>,
    is_active: bool,
    #[serde(borrow)]
    tick_size: &'m RawValue,
    #[serde(borrow, default)]
    tick_size_steps: Vec<TickStep<'m>>,
    #[serde(borrow)]
    min_trade_amount: &'m RawValue,
}

#[derive(serde::Deserialize)]
struct TickStep<'m> {
    #[serde(borrow)]
    tick_size: &'m RawValue,
}

impl InstrumentText<'_> {
    fn listing(&self) -> Option<Listing> {
        let exact = |raw: &RawValue| Decimal::parse(raw.get().as_bytes()).ok();
        // Options have another tick from some price on: the finest one writes every price.
        let steps = self.tick_size_steps.iter().map(|step| step.tick_size);
        let ticks = std::iter::once(self.tick_size).chain(steps).map(exact);
        let ticks: Vec<Decimal> = ticks.collect::<Option<_>>()?;
        let is_perpetual = self.kind == "future" && self.settlement_period == "perpetual";
        let kind = if is_perpetual { "perpetual" } else { &*self.kind };
        Some(Listing {
            native: (&*self.instrument_name).into(),
            base: (&*self.base_currency).into(),
            quote: (&*self.quote_currency).into(),
            kind: kind.into(),
            tick: ticks.into_iter().min_by_key(|tick| units(*tick))?,
            lot: exact(self.min_trade_amount)?,
            trading: if self.is_active { Trading::Open } else { Trading::Halted },
        })
    }
}

/// A value in the smallest units that a decimal has.
fn units(value: Decimal) -> i128 {
    i128::from(value.mantissa) * 10i128.pow(u32::from(SCALE_MAX.saturating_sub(value.scale)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::venue::testing::{self, damage, decimal, level, refusal, shown};
    use proptest::prelude::*;

    const BTC: InstrumentId = InstrumentId(3);
    const ETH: InstrumentId = InstrumentId(4);

    const SNAPSHOT: &str = r#"{"jsonrpc":"2.0","method":"subscription","params":{"channel":"book.BTC-PERPETUAL.100ms","data":{"type":"snapshot","timestamp":1626993723632,"instrument_name":"BTC-PERPETUAL","change_id":13169025645,"bids":[["new",45283.5,4714.0]],"asks":[["new",45285.25,873.0],["new",45286.0,1e-3]]}}}"#;
    const CHANGE: &str = r#"{"jsonrpc":"2.0","method":"subscription","params":{"channel":"book.BTC-PERPETUAL.100ms","data":{"type":"change","timestamp":1626993724318,"prev_change_id":33195894164,"instrument_name":"BTC-PERPETUAL","change_id":33195894355,"bids":[],"asks":[["delete",45285.5,2.5],["change",45286.0,7.0]]}}}"#;
    const TRADES: &str = r#"{"jsonrpc":"2.0","method":"subscription","params":{"channel":"trades.ETH-27AUG21-4000-P.100ms","data":[{"trade_seq":30289442,"trade_id":"48079269","timestamp":1590484512188,"tick_direction":2,"price":0.0125,"mark_price":0.0124,"instrument_name":"ETH-27AUG21-4000-P","index_price":8955.88,"direction":"sell","amount":10.0},{"trade_seq":30289443,"trade_id":"ETH-48079270","timestamp":1590484512189,"price":0.0130,"direction":"buy","amount":1}]}}"#;
    const NOTICES_ANSWER: &str =
        r#"{"jsonrpc":"2.0","id":5,"result":["platform_state","instrument.state.any.any"]}"#;

    fn of() -> Decoder {
        let instruments = vec![(BTC, "BTC-PERPETUAL".into()), (ETH, "ETH-27AUG21-4000-P".into())];
        Decoder::new(Subscription { instruments, depth: None, trades: None })
    }

    fn decoded(message: &str) -> EventBatch {
        testing::decoded(&mut of(), message)
    }

    #[test]
    fn a_snapshot_is_an_image_with_digits_as_written() {
        let out = decoded(SNAPSHOT);
        let image = BookEvent {
            instrument: BTC,
            kind: BookKind::Image,
            bids: 0..1,
            asks: 1..3,
            continuity: Some(Continuity { follows: 13_169_025_645, last: 13_169_025_645 }),
            checksum: None,
            te_ns: 1_626_993_723_632_000_000,
            px_digits: 2,
            qty_digits: 3,
            cut_at: None,
        };
        assert_eq!(out.events, [MarketEvent::Book(image)]);
        assert_eq!(
            out.levels,
            [level("45283.5", "4714"), level("45285.25", "873"), level("45286", "0.001")]
        );
    }

    #[test]
    fn a_change_follows_the_one_before_it_and_a_delete_has_no_amount() {
        let swapped = r#"{"params":{"data":{"asks":[["delete",45285.5,0.0],["change",45286.0,7.0]],"bids":[],"new":{"asks":[1]},"change_id":33195894355,"prev_change_id":33195894164,"timestamp":1626993724318,"type":"change"},"channel":"book.BTC-PERPETUAL.raw"},"method":"subscription"}"#;
        let out = decoded(CHANGE);
        let delta = BookEvent {
            instrument: BTC,
            kind: BookKind::Delta,
            bids: 0..0,
            asks: 0..2,
            continuity: Some(Continuity { follows: 33_195_894_164, last: 33_195_894_355 }),
            checksum: None,
            te_ns: 1_626_993_724_318_000_000,
            px_digits: 1,
            qty_digits: 1,
            cut_at: None,
        };
        assert_eq!(out.events, [MarketEvent::Book(delta)]);
        assert_eq!(out.levels, [level("45285.5", "0"), level("45286", "7")]);
        assert_eq!(decoded(swapped).events, out.events, "fields in any order, at any interval");
        assert_eq!(decoded(swapped).levels, out.levels);
    }

    #[test]
    fn trades_of_a_message_are_one_event() {
        let out = decoded(TRADES);
        let event =
            TradesEvent { instrument: ETH, trades: 0..2, numbering: TradeNumbering::Consecutive };
        assert_eq!(out.events, [MarketEvent::Trades(event)]);
        let print = |te_ns, px, qty, aggressor, id: &str, number| TradePrint {
            te_ns,
            px: decimal(px),
            qty: decimal(qty),
            aggressor,
            id: TradeId::Text(id.into()),
            number: Some(number),
        };
        let (sell, buy) = (Aggressor::Sell, Aggressor::Buy);
        assert_eq!(
            out.trades,
            [
                print(1_590_484_512_188_000_000, "0.0125", "10", sell, "48079269", 30_289_442),
                print(1_590_484_512_189_000_000, "0.013", "1", buy, "ETH-48079270", 30_289_443),
            ]
        );
    }

    #[test]
    fn control_messages_become_what_the_session_needs() {
        let subscribed = |instrument, channel| MarketEvent::Subscribed { instrument, channel };
        let trading = |instrument, trading| vec![MarketEvent::Trading { instrument, trading }];
        let refused = |instrument, message: &str| {
            vec![MarketEvent::Refused { instrument, message: message.to_owned() }]
        };
        let test = r#"{"id":2,"jsonrpc":"2.0","method":"public/test","params":{}}"#;
        let notice = |channel: &str, data: &str| {
            format!(
                r#"{{"jsonrpc":"2.0","method":"subscription","params":{{"channel":"{channel}","data":{data}}}}}"#
            )
        };
        let life = |state: &str, name: &str| {
            let data = format!(r#"{{"timestamp":1,"state":"{state}","instrument_name":"{name}"}}"#);
            notice(INSTRUMENT_STATES, &data)
        };
        let error = |id: u64, code: i64| {
            format!(
                r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":"Invalid params","data":{{"param":"channels"}}}},"usIn":1}}"#
            )
        };
        for (message, expected) in [
            (
                r#"{"jsonrpc":"2.0","id":4,"result":["trades.ETH-27AUG21-4000-P.100ms","ticker.BTC-PERPETUAL.raw","book.OTHER.raw","book.BTC-PERPETUAL.100ms"],"usIn":1626993723846980,"usOut":1626993723847561,"usDiff":581,"testnet":false}"#.to_owned(),
                vec![subscribed(ETH, Channel::Trades), subscribed(BTC, Channel::Book)],
            ),
            (
                r#"{"jsonrpc":"2.0","id":3,"result":["book.BTC-PERPETUAL.100ms"]}"#.to_owned(),
                vec![],
            ),
            (NOTICES_ANSWER.to_owned(), vec![]),
            (r#"{"jsonrpc":"2.0","id":1,"result":"ok"}"#.to_owned(), vec![]),
            (r#"{"jsonrpc":"2.0","id":2,"result":{"version":"1.2.26"}}"#.to_owned(), vec![]),
            (
                r#"{"jsonrpc":"2.0","method":"heartbeat","params":{"type":"test_request"}}"#.to_owned(),
                vec![MarketEvent::Reply(test.to_owned())],
            ),
            (
                r#"{"jsonrpc":"2.0","method":"heartbeat","params":{"type":"heartbeat"}}"#.to_owned(),
                vec![],
            ),
            (error(4, -32602), refused(None, "Invalid params (-32602)")),
            (error(1003, -32602), refused(Some(BTC), "Invalid params (-32602)")),
            (error(1007, -32602), refused(None, "Invalid params (-32602)")),
            (error(1003, 10028), vec![]),
            (notice(PLATFORM_STATE, r#"{"maintenance":"true"}"#), trading(None, Trading::Halted)),
            (notice(PLATFORM_STATE, r#"{"maintenance":true}"#), trading(None, Trading::Halted)),
            (notice(PLATFORM_STATE, r#"{"maintenance":false}"#), vec![]),
            (notice(PLATFORM_STATE, r#"{"price_index":"sol_usdc","locked":true}"#), vec![]),
            (life("halted", "BTC-PERPETUAL"), trading(Some(BTC), Trading::Halted)),
            (life("settlement", "BTC-PERPETUAL"), trading(Some(BTC), Trading::Halted)),
            (life("open", "BTC-PERPETUAL"), trading(Some(BTC), Trading::Open)),
            (life("delivered", "ETH-27AUG21-4000-P"), trading(Some(ETH), Trading::Ended)),
            (life("terminated", "ETH-27AUG21-4000-P"), trading(Some(ETH), Trading::Ended)),
            (life("created", "BTC-PERPETUAL"), vec![]),
            (life("open", "NOT-ASKED"), vec![]),
            (notice(INSTRUMENT_STATES, "[5]"), vec![]),
            (notice("ticker.BTC-PERPETUAL.raw", r#"{"best_bid_price":1.0}"#), vec![]),
            (CHANGE.replace("BTC-PERPETUAL", "NOT-ASKED"), vec![]),
            (CHANGE.replace("PERPETUAL.100ms", "PERPETUAL.none.20.100ms"), vec![]),
        ] {
            assert_eq!(decoded(&message).events, expected, "{message}");
        }
    }

    #[test]
    fn maintenance_ends_when_the_platform_says_so_or_answers_again() {
        const NOTICE: &str = r#"{"method":"subscription","params":{"channel":"platform_state","data":{"maintenance":true}}}"#;
        let mut decoder = of();
        let mut take = |message: &str| {
            let mut out = EventBatch::default();
            decoder.decode(&mut message.as_bytes().to_vec(), &mut out).unwrap();
            out.events
        };
        let trading = |trading| [MarketEvent::Trading { instrument: None, trading }];
        for end in [NOTICE.replace("true", "false"), NOTICES_ANSWER.to_owned()] {
            assert_eq!(take(NOTICE), trading(Trading::Halted));
            assert!(take(NOTICE).is_empty(), "it is known");
            assert_eq!(take(&end), trading(Trading::Open));
            assert!(take(&end).is_empty(), "it is known");
        }
    }

    #[test]
    fn a_malformed_message_tells_what_it_was_about_and_leaves_nothing() {
        use tickfan_core::decimal::DecimalError::{Malformed as NoNumber, Overflow};
        const BOOK: Option<(InstrumentId, Channel)> = Some((BTC, Channel::Book));
        const PRINTS: Option<(InstrumentId, Channel)> = Some((ETH, Channel::Trades));
        let field = Malformed::Field;
        let number = Malformed::Number;
        let digits = "9".repeat(40);
        for (message, about, what) in [
            (CHANGE.replace(r#""change_id":33195894355,"#, ""), BOOK, field("change_id")),
            (CHANGE.replace("33195894355", "-1"), BOOK, field("data")),
            (CHANGE.replace("33195894355", "1e3"), BOOK, field("data")),
            (CHANGE.replace("33195894164", "null"), BOOK, field("prev_change_id")),
            (CHANGE.replace(r#""prev_change_id":33195894164,"#, ""), BOOK, field("prev_change_id")),
            (CHANGE.replace(r#""bids":[],"#, ""), BOOK, field("bids")),
            (CHANGE.replace(r#""bids":[]"#, r#""bids":{}"#), BOOK, field("bids")),
            (CHANGE.replace(r#"45285.5,2.5]"#, "45285.5]"), BOOK, field("asks")),
            (CHANGE.replace(r#"45285.5,2.5]"#, "45285.5,2.5,1]"), BOOK, field("asks")),
            (CHANGE.replace("delete", "remove"), BOOK, field("action")),
            (CHANGE.replace(r#""delete""#, "0"), BOOK, field("asks")),
            (CHANGE.replace("45285.5", r#""45285.5""#), BOOK, number("price", NoNumber)),
            (CHANGE.replace("45285.5", "1e40"), BOOK, number("price", Overflow)),
            (CHANGE.replace("45285.5", &digits), BOOK, number("price", Overflow)),
            (CHANGE.replace("7.0", "null"), BOOK, number("amount", NoNumber)),
            (CHANGE.replace("1626993724318", "1626993724318.5"), BOOK, field("data")),
            (CHANGE.replace("1626993724318", "99999999999999999"), BOOK, field("timestamp")),
            (CHANGE.replace(r#""change","#, r#""other","#), BOOK, field("type")),
            (CHANGE.replace(r#""type":"change","#, r#""type":7,"#), BOOK, field("data")),
            (
                r#"{"method":"subscription","params":{"channel":"book.BTC-PERPETUAL.100ms"}}"#
                    .to_owned(),
                BOOK,
                field("data"),
            ),
            (CHANGE.replace("}}}", ""), BOOK, Malformed::NotJson),
            (CHANGE.replace(r#""subscription""#, "7"), BOOK, field("message")),
            (CHANGE.replace("BTC-PERP", "NOT").replace("}}}", ""), None, Malformed::NotJson),
            (CHANGE.replace("book.", "").replace("}}}", ""), None, Malformed::NotJson),
            (TRADES.replace("}]}}", ""), PRINTS, Malformed::NotJson),
            (TRADES.replace("buy", "long"), PRINTS, field("direction")),
            (TRADES.replace("30289443", "-1"), PRINTS, field("data")),
            (TRADES.replace(r#""trade_seq":30289443,"#, ""), PRINTS, field("trade_seq")),
            (TRADES.replace(r#""timestamp":1590484512189,"#, ""), PRINTS, field("timestamp")),
            (TRADES.replace(r#""price":0.0130,"#, ""), PRINTS, field("price")),
            (TRADES.replace(r#""amount":10.0"#, r#""size":10.0"#), PRINTS, field("amount")),
            (TRADES.replace("ETH-48079270", ""), PRINTS, field("trade_id")),
            (TRADES.replace(r#""48079269""#, "48079269"), PRINTS, field("data")),
            (String::new(), None, Malformed::NotJson),
            ("[]".to_owned(), None, field("message")),
            ("[".repeat(100_000), None, field("message")),
            ("\u{0}x\"\\{[".repeat(170_000), None, Malformed::NotJson),
        ] {
            let error = refusal(&mut of(), &[CHANGE, TRADES], &message);
            assert_eq!(error, DecodeError { about, what }, "{}", shown(&message));
        }
    }

    #[test]
    fn subscriptions_ask_for_heartbeats_and_a_resync_for_one_book() {
        let parsed = |text: &String| serde_json::from_str::<serde_json::Value>(text).unwrap();
        let mut decoder = of();
        let requests: Vec<_> = decoder.subscribe().iter().map(parsed).collect();
        let methods: Vec<_> = requests.iter().map(|text| text["method"].clone()).collect();
        assert_eq!(methods, ["public/set_heartbeat", "public/subscribe", "public/subscribe"]);
        assert_eq!(requests[0]["params"]["interval"], 10);
        let channels = serde_json::json!([
            "book.BTC-PERPETUAL.100ms",
            "trades.BTC-PERPETUAL.100ms",
            "book.ETH-27AUG21-4000-P.100ms",
            "trades.ETH-27AUG21-4000-P.100ms"
        ]);
        assert_eq!(requests[1]["params"]["channels"], channels);

        assert_eq!(decoder.resync(ETH, true), Resync::Send(Vec::new()));
        let Resync::Send(texts) = decoder.resync(ETH, false) else { panic!("not on the stream") };
        let texts: Vec<_> = texts.iter().map(parsed).collect();
        assert_eq!(texts[0]["method"], "public/unsubscribe");
        assert_eq!(
            texts[0]["params"]["channels"],
            serde_json::json!(["book.ETH-27AUG21-4000-P.100ms"])
        );
        assert_eq!(texts[1]["method"], "public/subscribe");
        assert_eq!(texts[1]["id"], 1004);
        assert_eq!(texts[1]["params"]["channels"][0], "book.ETH-27AUG21-4000-P.100ms");
    }

    #[test]
    fn many_instruments_take_several_requests() {
        let instruments: Vec<_> =
            (0..250u32).map(|n| (InstrumentId(n), format!("BTC-{n}").into())).collect();
        let decoder = Decoder::new(Subscription { instruments, depth: None, trades: None });
        // The heartbeat, three with up to 200 of 500 channels, the notices.
        assert_eq!(decoder.subscribe().len(), 5);
    }

    #[test]
    fn listings_have_the_finest_tick() {
        let instrument = |name: &str, rest: &str| {
            format!(
                r#"{{"instrument_name":"{name}","base_currency":"BTC","quote_currency":"USD","min_trade_amount":10.0,{rest}}}"#
            )
        };
        let body = format!(
            r#"{{"jsonrpc":"2.0","result":[{},{},{},{},7]}}"#,
            instrument(
                "BTC-PERPETUAL",
                r#""kind":"future","settlement_period":"perpetual","is_active":true,"tick_size":0.5,"tick_size_steps":[]"#
            ),
            instrument(
                "BTC-24SEP21-8000-P",
                r#""kind":"option","settlement_period":"month","is_active":true,"tick_size":0.0005,"tick_size_steps":[{"above_price":0.005,"tick_size":0.0001},{"above_price":0.1,"tick_size":0.001}]"#
            ),
            instrument("BTC-24SEP21", r#""kind":"future","is_active":false,"tick_size":2.5"#),
            instrument("BROKEN", r#""kind":"future","is_active":true,"tick_size":"x""#),
        );
        let listing = |native: &str, kind: &str, tick, trading| Listing {
            native: native.into(),
            base: "BTC".into(),
            quote: "USD".into(),
            kind: kind.into(),
            tick: decimal(tick),
            lot: decimal("10"),
            trading,
        };
        assert_eq!(
            listings(body.as_bytes()).unwrap(),
            [
                listing("BTC-PERPETUAL", "perpetual", "0.5", Trading::Open),
                listing("BTC-24SEP21-8000-P", "option", "0.0001", Trading::Open),
                listing("BTC-24SEP21", "future", "2.5", Trading::Halted),
            ]
        );
        assert_eq!(listings(b"{}"), Err(Malformed::Field("result")));
        assert_eq!(listings(b"<html>"), Err(Malformed::NotJson));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = listings(&bytes);
            let _ = of().decode(&mut bytes, &mut EventBatch::default());
        }

        #[test]
        fn no_damage_panics_or_leaves_half_an_event(
            at in 0usize..600,
            with in proptest::collection::vec(any::<u8>(), 0..4),
        ) {
            for message in [SNAPSHOT, CHANGE, TRADES] {
                damage(&mut of(), message, at, &with);
            }
        }
    }
}
