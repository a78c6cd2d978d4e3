//! Bybit spot and linear contracts, version 5, which differ in their paths and lists only.
//!
//! Turns stream messages into market events; there is no REST half, for the image of a book comes
//! with its subscription. The feed thread calls it for every message. It must never rely on the
//! order of fields, which is not the same from one product to the next.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;
use simd_json::{Node, StaticNode};
use tickfan_core::decimal::Decimal;
use tickfan_core::market::{
    Aggressor, BookEvent, BookKind, Channel, Continuity, EventBatch, InstrumentId, Listing,
    MarketEvent, Nanos, TradeId, TradeNumbering, TradePrint, TradesEvent, Trading, Venue,
};

use super::tape::{
    Parser, decimal, elements, entries, nanos_of_millis, number, number_in_text, read_sides, text,
};
use super::{DecodeError, Endpoints, Malformed, Resync, Subscription, VenueDecoder, quoted_after};

/// "Level 1, 50, 200, 1000 data".
const DEPTHS: [u32; 4] = [1, 50, 200, 1000];
const DEPTH_MAX: u32 = 1000;

/// Pushed every 100 ms; the deepest comes every 200 ms only.
const DEPTH_DEFAULT: u32 = 200;

/// "UpdateId = 1 … is a snapshot due to the restart of the service."
const RESTARTED: u64 = 1;

const TRADES_TOPIC: &str = "publicTrade.";

/// How the venue calls it when a topic is asked for a second time: it goes on as before.
const ALREADY_SUBSCRIBED: &str = "already subscribed";

const SECOND_NS: Nanos = 1_000_000_000;

/// "We recommend … to send the ping heartbeat packet every 20 seconds."
const KEEPALIVE_NS: Nanos = 20 * SECOND_NS;

/// Two answers to the keep-alive are missing, and half of the time to the next.
const SILENCE_NS: Nanos = 50 * SECOND_NS;

/// The default endpoints of one of the markets.
pub fn endpoints(venue: Venue) -> Endpoints {
    Endpoints {
        stream: "wss://stream.bybit.com",
        rest: "https://api.bybit.com",
        instruments_paths: match venue {
            Venue::BybitLinear => &["/v5/market/instruments-info?category=linear&limit=1000"],
            // "Spot does not have pagination."
            _ => &["/v5/market/instruments-info?category=spot"],
        },
        // Images come on the stream: the list is all that REST is asked for.
        instruments_weight: 1,
        rest_weight_per_minute: 60,
        // "You cannot have length of args array over 21,000 characters" on one connection: about
        // 80 an instrument.
        instruments_per_connection: 200,
        // No limit is documented: the venue is asked for every instrument by itself, and the last
        // of a connection must not wait for long.
        text_spacing_ns: SECOND_NS / 10,
        texts_at_once: 8,
        // 500 connections in five minutes from one address.
        connect_spacing_ns: SECOND_NS,
        connection_life_ns: None,
    }
}

/// Decodes one connection to one of the markets.
pub struct Decoder {
    path: &'static str,
    reader: Reader,
    parser: Parser,
}

impl Decoder {
    /// A decoder for the instruments of one connection to `venue`. A depth between two that the
    /// venue offers is rounded up; the venue has one trade stream only.
    pub fn new(venue: Venue, subscription: Subscription) -> Self {
        let asked = subscription.depth.unwrap_or(DEPTH_DEFAULT);
        let depth = DEPTHS.into_iter().find(|depth| *depth >= asked).unwrap_or(DEPTH_MAX);
        let ids = subscription.instruments.iter().map(|(id, symbol)| (Arc::clone(symbol), *id));
        Self {
            path: match venue {
                Venue::BybitLinear => "/v5/public/linear",
                _ => "/v5/public/spot",
            },
            reader: Reader {
                ids: ids.collect(),
                instruments: subscription.instruments,
                book_topic: format!("orderbook.{depth}."),
                depth: depth as usize,
            },
            parser: Parser::default(),
        }
    }
}

impl VenueDecoder for Decoder {
    fn stream_path(&self) -> &str {
        self.path
    }

    /// One request an instrument, of at most ten topics on spot: one that the venue does not have
    /// would cost the others of its request theirs. The acknowledgement names the request only.
    fn subscribe(&self) -> Vec<String> {
        let instruments = self.reader.instruments.iter();
        instruments
            .map(|(id, symbol)| {
                let topics = [&*self.reader.book_topic, TRADES_TOPIC];
                serde_json::json!({
                    "req_id": id.0.to_string(),
                    "op": "subscribe",
                    "args": topics.map(|topic| format!("{topic}{symbol}")),
                })
                .to_string()
            })
            .collect()
    }

    fn resync(&mut self, instrument: InstrumentId, first: bool) -> Resync {
        let known = self.reader.instruments.iter().find(|(id, _)| *id == instrument);
        let Some((_, symbol)) = known.filter(|_| !first) else {
            return Resync::Send(Vec::new());
        };
        let topic = format!("{}{symbol}", self.reader.book_topic);
        let operations = ["unsubscribe", "subscribe"];
        Resync::Send(
            operations.map(|op| serde_json::json!({"op": op, "args": [topic]}).to_string()).into(),
        )
    }

    fn decode(&mut self, message: &mut [u8], out: &mut EventBatch) -> Result<(), DecodeError> {
        let reader = &self.reader;
        self.parser.decode(
            message,
            out,
            |nodes, out| reader.read(nodes, out),
            || reader.subject_of(quoted_after(message, b"\"topic\":\"")?),
        )
    }

    fn silence_ns(&self) -> Nanos {
        SILENCE_NS
    }

    fn keepalive(&self) -> Option<(String, Nanos)> {
        Some((r#"{"op":"ping"}"#.to_owned(), KEEPALIVE_NS))
    }
}

/// Turns a parsed message into events.
struct Reader {
    instruments: Vec<(InstrumentId, Arc<str>)>,
    ids: HashMap<Arc<str>, InstrumentId>,
    /// `orderbook.200.`, which the symbol follows.
    book_topic: String,
    depth: usize,
}

impl Reader {
    fn read(&self, nodes: &[Node<'_>], out: &mut EventBatch) -> Result<(), DecodeError> {
        let of_all = |what| DecodeError { about: None, what };
        let envelope = Envelope::of(nodes).map_err(of_all)?;
        let Some(topic) = envelope.topic else {
            self.read_answer(&envelope, out);
            return Ok(());
        };
        let topic = text(topic).ok_or(of_all(Malformed::Field("topic")))?;
        let Some((instrument, channel)) = self.subject_of(topic) else {
            return Ok(());
        };
        match channel {
            Channel::Trades => read_trades(instrument, &envelope, out),
            _ => self.read_book(instrument, &envelope, out),
        }
        .map_err(|what| DecodeError { about: Some((instrument, channel)), what })
    }

    fn read_book(
        &self,
        instrument: InstrumentId,
        envelope: &Envelope<'_, '_>,
        out: &mut EventBatch,
    ) -> Result<(), Malformed> {
        let data = envelope.data.ok_or(Malformed::Field("data"))?;
        let book = Fields::of(data, "data")?;
        let last = number(book.update_id, "u")?;
        let kind = match envelope.kind.and_then(text) {
            Some("snapshot") => BookKind::Image,
            Some("delta") if last == RESTARTED => BookKind::Image,
            Some("delta") => BookKind::Delta,
            _ => return Err(Malformed::Field("type")),
        };
        let follows = match kind {
            BookKind::Image => last,
            BookKind::Delta => last.checked_sub(1).ok_or(Malformed::Field("u"))?,
        };
        let event = BookEvent {
            kind,
            continuity: Some(Continuity { follows, last }),
            te_ns: envelope.te_ns()?,
            cut_at: (kind == BookKind::Image).then_some(self.depth),
            ..read_sides(instrument, ("b", book.bids), ("a", book.asks), out)?
        };
        out.events.push(MarketEvent::Book(event));
        Ok(())
    }

    /// Reads the answer to a request of ours.
    fn read_answer(&self, envelope: &Envelope<'_, '_>, out: &mut EventBatch) {
        if envelope.operation.and_then(text) != Some("subscribe") {
            return;
        }
        let message = envelope.message.and_then(text).unwrap_or_default();
        let request = number_in_text(envelope.request, "req_id").ok();
        let mut instruments = self.instruments.iter().map(|(id, _)| *id);
        let of_request = instruments.find(|id| Some(u64::from(id.0)) == request);
        match envelope.success {
            Some([Node::Static(StaticNode::Bool(true)), ..]) => {
                out.events.extend(of_request.into_iter().flat_map(|instrument| {
                    [Channel::Book, Channel::Trades]
                        .map(|channel| MarketEvent::Subscribed { instrument, channel })
                }));
            }
            Some([Node::Static(StaticNode::Bool(false)), ..])
                if !message.contains(ALREADY_SUBSCRIBED) =>
            {
                let instrument = self.instrument_in(message).or(of_request);
                out.events.push(MarketEvent::Refused { instrument, message: message.to_owned() });
            }
            _ => {}
        }
    }

    /// The instrument that the venue's words name: "handler not found,topic:orderbook.50.BTCUSDX".
    fn instrument_in(&self, message: &str) -> Option<InstrumentId> {
        let is_topic = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let subject = |word| self.subject_of(word).map(|(instrument, _)| instrument);
        message.split(|c| !is_topic(c)).find_map(subject)
    }

    /// What a topic is about.
    fn subject_of(&self, topic: &str) -> Option<(InstrumentId, Channel)> {
        let (symbol, channel) = match topic.strip_prefix(&*self.book_topic) {
            Some(symbol) => (symbol, Channel::Book),
            None => (topic.strip_prefix(TRADES_TOPIC)?, Channel::Trades),
        };
        Some((*self.ids.get(symbol)?, channel))
    }
}

/// The outside of any message.
#[derive(Default)]
struct Envelope<'t, 'm> {
    topic: Option<&'t [Node<'m>]>,
    kind: Option<&'t [Node<'m>]>,
    data: Option<&'t [Node<'m>]>,
    sent_time: Option<&'t [Node<'m>]>,
    matching_time: Option<&'t [Node<'m>]>,
    operation: Option<&'t [Node<'m>]>,
    request: Option<&'t [Node<'m>]>,
    success: Option<&'t [Node<'m>]>,
    message: Option<&'t [Node<'m>]>,
}

impl<'t, 'm> Envelope<'t, 'm> {
    fn of(nodes: &'t [Node<'m>]) -> Result<Self, Malformed> {
        let mut envelope = Self::default();
        for (key, value) in entries(nodes).ok_or(Malformed::Field("message"))? {
            let field = match key {
                "topic" => &mut envelope.topic,
                "type" => &mut envelope.kind,
                "data" => &mut envelope.data,
                "ts" => &mut envelope.sent_time,
                "cts" => &mut envelope.matching_time,
                "op" => &mut envelope.operation,
                "req_id" => &mut envelope.request,
                "success" => &mut envelope.success,
                "ret_msg" => &mut envelope.message,
                _ => continue,
            };
            *field = Some(value);
        }
        Ok(envelope)
    }

    /// The time of the matching engine; where there is none, that of the system behind it.
    fn te_ns(&self) -> Result<Nanos, Malformed> {
        let (time, name) = match self.matching_time {
            None => (self.sent_time, "ts"),
            time => (time, "cts"),
        };
        nanos_of_millis(number(time, name)?, name)
    }
}

/// What is in the `data` of books and trades.
#[derive(Default)]
struct Fields<'t, 'm> {
    bids: Option<&'t [Node<'m>]>,
    asks: Option<&'t [Node<'m>]>,
    update_id: Option<&'t [Node<'m>]>,
    time: Option<&'t [Node<'m>]>,
    side: Option<&'t [Node<'m>]>,
    px: Option<&'t [Node<'m>]>,
    qty: Option<&'t [Node<'m>]>,
    trade_id: Option<&'t [Node<'m>]>,
}

impl<'t, 'm> Fields<'t, 'm> {
    fn of(nodes: &'t [Node<'m>], name: &'static str) -> Result<Self, Malformed> {
        let mut fields = Self::default();
        for (key, value) in entries(nodes).ok_or(Malformed::Field(name))? {
            let field = match key {
                "b" => &mut fields.bids,
                "a" => &mut fields.asks,
                "u" => &mut fields.update_id,
                "T" => &mut fields.time,
                "S" => &mut fields.side,
                "p" => &mut fields.px,
                "v" => &mut fields.qty,
                "i" => &mut fields.trade_id,
                _ => continue,
            };
            *field = Some(value);
        }
        Ok(fields)
    }
}

fn read_trades(
    instrument: InstrumentId,
    envelope: &Envelope<'_, '_>,
    out: &mut EventBatch,
) -> Result<(), Malformed> {
    let start = out.trades.len();
    for nodes in elements(envelope.data, "data")? {
        let trade = Fields::of(nodes, "data")?;
        // "Side of taker".
        let aggressor = match trade.side.and_then(text) {
            Some("Buy") => Aggressor::Buy,
            Some("Sell") => Aggressor::Sell,
            _ => return Err(Malformed::Field("S")),
        };
        out.trades.push(TradePrint {
            te_ns: nanos_of_millis(number(trade.time, "T")?, "T")?,
            px: decimal(trade.px, "p")?,
            qty: decimal(trade.qty, "v")?,
            aggressor,
            // Opaque; and `seq` counts what the matching engine did, of all symbols.
            id: TradeId::Text(trade.trade_id.and_then(text).ok_or(Malformed::Field("i"))?.into()),
            number: None,
        });
    }
    if out.trades.len() > start {
        out.events.push(MarketEvent::Trades(TradesEvent {
            instrument,
            trades: start..out.trades.len(),
            numbering: TradeNumbering::None,
        }));
    }
    Ok(())
}

#[derive(Deserialize)]
struct InstrumentsInfo<'a> {
    #[serde(borrow)]
    result: InstrumentList<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct InstrumentList<'a> {
    #[serde(borrow)]
    list: Vec<&'a RawValue>,
    // Contracts only; empty behind the last page.
    #[serde(borrow, default)]
    next_page_cursor: Cow<'a, str>,
}

/// One instrument of the list, as far as it matters here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct InstrumentInfo {
    symbol: String,
    // Contracts only.
    contract_type: Option<String>,
    status: String,
    base_coin: String,
    quote_coin: String,
    price_filter: PriceFilter,
    lot_size_filter: LotSizeFilter,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PriceFilter {
    tick_size: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LotSizeFilter {
    // Contracts say `qtyStep`, spot `basePrecision`.
    #[serde(alias = "basePrecision")]
    qty_step: String,
}

impl InstrumentInfo {
    fn listing(&self) -> Option<Listing> {
        let kind = match self.contract_type.as_deref() {
            None => "spot",
            Some(contract) if contract.ends_with("Perpetual") => "perpetual",
            Some(_) => "future",
        };
        let trading = match &*self.status {
            "Trading" => Trading::Open,
            "Settling" | "Delivering" | "Closed" => Trading::Ended,
            // `PreLaunch`.
            _ => Trading::Halted,
        };
        let step = |text: &str| Decimal::parse(text.as_bytes()).ok().filter(|step| !step.is_zero());
        Some(Listing {
            native: self.symbol.as_str().into(),
            base: self.base_coin.as_str().into(),
            quote: self.quote_coin.as_str().into(),
            kind: kind.into(),
            tick: step(&self.price_filter.tick_size)?,
            lot: step(&self.lot_size_filter.qty_step)?,
            trading,
        })
    }
}

/// Reads the instrument list of either market.
///
/// # Errors
/// [`Malformed`] when the body holds no list of instruments; an instrument that cannot be read is
/// left out.
pub fn listings(body: &[u8]) -> Result<Vec<Listing>, Malformed> {
    let list = instrument_list(body)?.list;
    let instruments = list.iter().filter_map(|raw| serde_json::from_str(raw.get()).ok());
    Ok(instruments.filter_map(|instrument: InstrumentInfo| instrument.listing()).collect())
}

/// Where the page behind this one is, if there is one: the venue may name one behind the last, and that
/// is empty.
///
/// # Errors
/// As of [`listings`].
pub fn next_page(path: &str, body: &[u8]) -> Result<Option<String>, Malformed> {
    let InstrumentList { list, next_page_cursor: cursor } = instrument_list(body)?;
    // It comes ready for a URL; what is not must not become another parameter.
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.~%".contains(c);
    if !cursor.chars().all(is_plain) {
        return Err(Malformed::Field("nextPageCursor"));
    }
    Ok((!cursor.is_empty() && !list.is_empty()).then(|| format!("{path}&cursor={cursor}")))
}

fn instrument_list(body: &[u8]) -> Result<InstrumentList<'_>, Malformed> {
    let info: InstrumentsInfo<'_> = serde_json::from_slice(body).map_err(|error| {
        if error.is_data() { Malformed::Field("result") } else { Malformed::NotJson }
    })?;
    Ok(info.result)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::venue::testing::{self, damage, decimal, level, refusal, shown};
    use proptest::prelude::*;
    use tickfan_core::market::Scales;

    const BTC: InstrumentId = InstrumentId(3);
    const ETH: InstrumentId = InstrumentId(4);

    const SNAPSHOT: &str = r#"{"topic":"orderbook.200.BTCUSDT","type":"snapshot","ts":1672304484978,"data":{"s":"BTCUSDT","b":[["16493.50","0.006"]],"a":[["16611.00","0.029"],["16612","1"]],"u":18521288,"seq":7961638724},"cts":1672304484976}"#;
    const DELTA: &str = r#"{"topic":"orderbook.200.BTCUSDT","type":"delta","ts":1687940967466,"data":{"s":"BTCUSDT","b":[["30247.20","0"]],"a":[],"u":18521289,"seq":7961638900},"cts":1687940967464}"#;
    const TRADES: &str = r#"{"topic":"publicTrade.BTCUSDT","type":"snapshot","ts":1672304486868,"data":[{"T":1672304486865,"s":"BTCUSDT","S":"Buy","v":"0.001","p":"16578.50","L":"PlusTick","i":"20f43950-d8dd-5b31-9112-a178eb6023af","BT":false,"seq":1783284617},{"T":1672304486866,"s":"BTCUSDT","S":"Sell","v":"2","p":"16578","L":"MinusTick","i":"2290000000067341890","BT":false,"seq":1783284617}]}"#;

    fn with_depth(venue: Venue, depth: Option<u32>) -> Decoder {
        let instruments = vec![(BTC, "BTCUSDT".into()), (ETH, "ETHUSDT".into())];
        Decoder::new(venue, Subscription { instruments, depth, trades: None })
    }

    fn of() -> Decoder {
        with_depth(Venue::BybitLinear, None)
    }

    fn decoded(message: &str) -> EventBatch {
        testing::decoded(&mut of(), message)
    }

    #[test]
    fn a_snapshot_is_an_image_at_the_time_of_the_matching_engine() {
        let out = decoded(SNAPSHOT);
        let image = BookEvent {
            instrument: BTC,
            kind: BookKind::Image,
            bids: 0..1,
            asks: 1..3,
            continuity: Some(Continuity { follows: 18_521_288, last: 18_521_288 }),
            checksum: None,
            te_ns: 1_672_304_484_976_000_000,
            px_digits: 2,
            qty_digits: 3,
            cut_at: Some(200),
        };
        assert_eq!(out.events, [MarketEvent::Book(image)]);
        assert_eq!(
            out.levels,
            [level("16493.5", "0.006"), level("16611", "0.029"), level("16612", "1")]
        );
    }

    #[test]
    fn a_delta_follows_the_update_before_it_whatever_the_order_of_fields() {
        let delta = BookEvent {
            instrument: BTC,
            kind: BookKind::Delta,
            bids: 0..1,
            asks: 1..1,
            continuity: Some(Continuity { follows: 18_521_288, last: 18_521_289 }),
            checksum: None,
            te_ns: 1_687_940_967_464_000_000,
            px_digits: 2,
            qty_digits: 0,
            cut_at: None,
        };
        let swapped = r#"{"cts":1687940967464,"data":{"new":{"u":5,"b":[[]]},"seq":1,"u":18521289,"a":[],"b":[["30247.20","0"]]},"ts":1,"type":"delta","topic":"orderbook.200.BTCUSDT"}"#;
        for message in [DELTA, swapped] {
            let out = decoded(message);
            assert_eq!(out.events, [MarketEvent::Book(delta.clone())], "{message}");
            assert_eq!(out.levels, [level("30247.2", "0")]);
        }
        let without = decoded(&DELTA.replace(r#","cts":1687940967464"#, ""));
        let te_ns = 1_687_940_967_466_000_000;
        assert_eq!(without.events, [MarketEvent::Book(BookEvent { te_ns, ..delta })]);
    }

    #[test]
    fn update_one_is_an_image_whatever_it_is_called() {
        let out = decoded(&DELTA.replace("18521289", "1"));
        let [MarketEvent::Book(event)] = &out.events[..] else { panic!("{:?}", out.events) };
        assert_eq!((event.kind, event.cut_at), (BookKind::Image, Some(200)));
        assert_eq!(event.continuity, Some(Continuity { follows: 1, last: 1 }));
    }

    #[test]
    fn trades_name_the_taker_and_have_no_numbers() {
        let out = decoded(TRADES);
        let event = TradesEvent { instrument: BTC, trades: 0..2, numbering: TradeNumbering::None };
        assert_eq!(out.events, [MarketEvent::Trades(event)]);
        let print = |te_ns, px, qty, aggressor, id: &str| TradePrint {
            te_ns,
            px: decimal(px),
            qty: decimal(qty),
            aggressor,
            id: TradeId::Text(id.into()),
            number: None,
        };
        assert_eq!(
            out.trades,
            [
                print(
                    1_672_304_486_865_000_000,
                    "16578.5",
                    "0.001",
                    Aggressor::Buy,
                    "20f43950-d8dd-5b31-9112-a178eb6023af"
                ),
                print(
                    1_672_304_486_866_000_000,
                    "16578",
                    "2",
                    Aggressor::Sell,
                    "2290000000067341890"
                ),
            ]
        );
    }

    #[test]
    fn control_messages_become_what_the_session_needs() {
        let refused = |instrument, message: &str| {
            vec![MarketEvent::Refused { instrument, message: message.to_owned() }]
        };
        let subscribed = |instrument| {
            [Channel::Book, Channel::Trades]
                .map(|channel| MarketEvent::Subscribed { instrument, channel })
                .to_vec()
        };
        let no_topic = "error:handler not found,topic:orderbook.200.ETHUSDT";
        for (message, expected) in [
            (
                r#"{"success":true,"ret_msg":"","conn_id":"d","req_id":"4","op":"subscribe"}"#.to_owned(),
                subscribed(ETH),
            ),
            (r#"{"success":true,"ret_msg":"subscribe","conn_id":"d","op":"subscribe"}"#.to_owned(), vec![]),
            (r#"{"success":true,"ret_msg":"","req_id":"5","op":"subscribe"}"#.to_owned(), vec![]),
            (r#"{"success":true,"ret_msg":"","req_id":"4","op":"unsubscribe"}"#.to_owned(), vec![]),
            (
                format!(r#"{{"success":false,"ret_msg":"{no_topic}","conn_id":"d","req_id":"","op":"subscribe"}}"#),
                refused(Some(ETH), no_topic),
            ),
            (
                r#"{"success":false,"ret_msg":"Invalid symbol :[publicTrade.ETHUSDT]","op":"subscribe"}"#.to_owned(),
                refused(Some(ETH), "Invalid symbol :[publicTrade.ETHUSDT]"),
            ),
            (
                r#"{"success":false,"ret_msg":"no words","req_id":"3","op":"subscribe"}"#.to_owned(),
                refused(Some(BTC), "no words"),
            ),
            (
                r#"{"success":false,"ret_msg":"args size >10","conn_id":"d","op":"subscribe"}"#.to_owned(),
                refused(None, "args size >10"),
            ),
            (
                r#"{"success":false,"ret_msg":"error:already subscribed,topic:orderbook.200.ETHUSDT","op":"subscribe"}"#.to_owned(),
                vec![],
            ),
            (r#"{"success":false,"ret_msg":"x","op":"unsubscribe"}"#.to_owned(), vec![]),
            (r#"{"success":true,"ret_msg":"pong","conn_id":"d","op":"ping"}"#.to_owned(), vec![]),
            (r#"{"args":["1672916271846"],"op":"pong"}"#.to_owned(), vec![]),
            (r#"{"topic":"tickers.BTCUSDT","type":"delta","data":{"symbol":"BTCUSDT"},"ts":1}"#.to_owned(), vec![]),
            (DELTA.replace("orderbook.200.", "orderbook.50."), vec![]),
            (TRADES.replace("BTCUSDT", "NOTASKED"), vec![]),
            (r#"{"topic":"publicTrade.BTCUSDT","type":"snapshot","ts":1,"data":[]}"#.to_owned(), vec![]),
            ("{}".to_owned(), vec![]),
        ] {
            assert_eq!(decoded(&message).events, expected, "{message}");
        }
    }

    #[test]
    fn a_malformed_message_tells_what_it_was_about_and_leaves_nothing() {
        use tickfan_core::decimal::DecimalError::{Malformed as NoNumber, Overflow};
        const BOOK: Option<(InstrumentId, Channel)> = Some((BTC, Channel::Book));
        const TRADE: Option<(InstrumentId, Channel)> = Some((BTC, Channel::Trades));
        let field = Malformed::Field;
        let number = Malformed::Number;
        let digits = "9".repeat(40);
        for (message, about, what) in [
            (DELTA.replace(r#""type":"delta","#, ""), BOOK, field("type")),
            (DELTA.replace(r#""delta""#, "5"), BOOK, field("type")),
            (DELTA.replace(r#""data""#, r#""date""#), BOOK, field("data")),
            (DELTA.replace(r#""data":{"#, r#""data":[],"x":{"#), BOOK, field("data")),
            (DELTA.replace(r#""u":18521289,"#, ""), BOOK, field("u")),
            (DELTA.replace("18521289", "0"), BOOK, field("u")),
            (DELTA.replace("18521289", "-18521289"), BOOK, field("u")),
            (DELTA.replace("18521289", r#""18521289""#), BOOK, field("u")),
            (DELTA.replace(r#""a":[],"#, ""), BOOK, field("a")),
            (DELTA.replace(r#""a":[]"#, r#""a":{}"#), BOOK, field("a")),
            (DELTA.replace(r#"["30247.20","0"]"#, r#"["30247.20"]"#), BOOK, field("b")),
            (DELTA.replace(r#""30247.20""#, "30247.20"), BOOK, field("b")),
            (DELTA.replace("30247.20", ""), BOOK, number("b", NoNumber)),
            (DELTA.replace("30247.20", "1e40"), BOOK, number("b", Overflow)),
            (DELTA.replace("30247.20", &digits), BOOK, number("b", Overflow)),
            (DELTA.replace("1687940967464", r#""soon""#), BOOK, field("cts")),
            (DELTA.replace("1687940967464", "99999999999999999"), BOOK, field("cts")),
            (
                DELTA.replace("1687940967466", "-1").replace(r#","cts":1687940967464"#, ""),
                BOOK,
                field("ts"),
            ),
            (DELTA.replace(r#""orderbook.200.BTCUSDT""#, "7"), None, field("topic")),
            (DELTA.replace("1687940967464}", ""), BOOK, Malformed::NotJson),
            (DELTA.replace("BTCUSDT", "X").replace("1687940967464}", ""), None, Malformed::NotJson),
            (DELTA.replace("topic", "").replace("1687940967464}", ""), None, Malformed::NotJson),
            (TRADES.replace("}]}", ""), TRADE, Malformed::NotJson),
            (TRADES.replace("Sell", "None"), TRADE, field("S")),
            (TRADES.replace("1672304486866", "-1"), TRADE, field("T")),
            (TRADES.replace(r#""i":"2290000000067341890","#, ""), TRADE, field("i")),
            (TRADES.replace(r#""p":"16578","#, ""), TRADE, field("p")),
            (TRADES.replace(r#""v":"2""#, r#""v":"x""#), TRADE, number("v", NoNumber)),
            (TRADES.replace(r#",{"T""#, r#",7,{"T""#), TRADE, field("data")),
            (String::new(), None, Malformed::NotJson),
            ("[]".to_owned(), None, field("message")),
            ("[".repeat(100_000), None, Malformed::NotJson),
            ("\u{0}x\"\\{[".repeat(170_000), None, Malformed::NotJson),
        ] {
            let error = refusal(&mut of(), &[DELTA, TRADES], &message);
            assert_eq!(error, DecodeError { about, what }, "{}", shown(&message));
        }
    }

    #[test]
    fn subscriptions_and_resyncs_ask_for_the_depth_rounded_up() {
        let parsed = |text: &String| serde_json::from_str::<serde_json::Value>(text).unwrap();
        for (depth, expected) in [
            (None, 200),
            (Some(0), 1),
            (Some(1), 1),
            (Some(2), 50),
            (Some(200), 200),
            (Some(201), 1000),
            (Some(5000), 1000),
        ] {
            let mut decoder = with_depth(Venue::BybitSpot, depth);
            let requests: Vec<_> = decoder.subscribe().iter().map(parsed).collect();
            assert_eq!(requests.len(), 2);
            assert_eq!(requests[1]["op"], "subscribe");
            assert_eq!(requests[1]["req_id"], "4");
            let topic = format!("orderbook.{expected}.ETHUSDT");
            assert_eq!(requests[1]["args"], serde_json::json!([topic, "publicTrade.ETHUSDT"]));

            assert_eq!(decoder.resync(ETH, true), Resync::Send(Vec::new()));
            let again = ["unsubscribe", "subscribe"]
                .map(|op| serde_json::json!({"op": op, "args": [topic]}).to_string());
            assert_eq!(decoder.resync(ETH, false), Resync::Send(again.into()));
        }
    }

    #[test]
    fn the_topics_of_one_connection_are_within_the_venues_length() {
        for venue in [Venue::BybitSpot, Venue::BybitLinear] {
            let count = endpoints(venue).instruments_per_connection as u32;
            let instruments =
                (0..count).map(|i| (InstrumentId(i), format!("{i:020}USDT").into())).collect();
            let decoder =
                Decoder::new(venue, Subscription { instruments, depth: Some(1000), trades: None });
            let length = |text: String| {
                let request: serde_json::Value = serde_json::from_str(&text).unwrap();
                request["args"].to_string().len()
            };
            assert!(decoder.subscribe().into_iter().map(length).sum::<usize>() < 21_000);
        }
    }

    #[test]
    fn each_market_has_its_path_and_its_list() {
        for (venue, market) in [(Venue::BybitSpot, "spot"), (Venue::BybitLinear, "linear")] {
            assert_eq!(with_depth(venue, None).stream_path(), format!("/v5/public/{market}"));
            let [list] = endpoints(venue).instruments_paths else { panic!("one list") };
            assert!(list.contains(&format!("category={market}")), "{list}");
        }
    }

    #[test]
    fn listings_tell_kind_pair_and_state() {
        let linear = |symbol: &str, contract: &str, status: &str| {
            format!(
                r#"{{"symbol":"{symbol}","contractType":"{contract}","status":"{status}","baseCoin":"BTC","quoteCoin":"USDT","priceFilter":{{"minPrice":"0.10","tickSize":"0.10"}},"lotSizeFilter":{{"minOrderQty":"1","qtyStep":"0.001"}}}}"#
            )
        };
        let spot = r#"{"symbol":"BTCUSDT","baseCoin":"BTC","quoteCoin":"USDT","status":"Trading","lotSizeFilter":{"basePrecision":"0.000001","quotePrecision":"0.0000001"},"priceFilter":{"tickSize":"0.01"}}"#;
        let instruments = [
            spot.to_owned(),
            linear("PERP", "LinearPerpetual", "Trading"),
            linear("SEP", "LinearFutures", "Delivering"),
            linear("SOON", "LinearPerpetual", "PreLaunch"),
            linear("ZERO", "LinearPerpetual", "Trading").replace("0.001", "0"),
            r#"{"symbol":"X"}"#.to_owned(),
            "7".to_owned(),
        ];
        let body = format!(
            r#"{{"retCode":0,"retMsg":"OK","result":{{"category":"linear","list":[{}],"nextPageCursor":""}}}}"#,
            instruments.join(",")
        );
        let found = listings(body.as_bytes()).unwrap();
        let told: Vec<_> =
            found.iter().map(|l| (&*l.native, &*l.kind, l.trading, l.scales())).collect();
        let scales = |px, qty| Scales { px, qty };
        assert_eq!(
            told,
            [
                ("BTCUSDT", "spot", Trading::Open, scales(2, 6)),
                ("PERP", "perpetual", Trading::Open, scales(1, 3)),
                ("SEP", "future", Trading::Ended, scales(1, 3)),
                ("SOON", "perpetual", Trading::Halted, scales(1, 3)),
            ]
        );
        assert_eq!((&*found[0].base, &*found[0].quote), ("BTC", "USDT"));
        assert_eq!(next_page("/list?limit=1000", body.as_bytes()), Ok(None));
        let next = |cursor| {
            let more = format!(r#""nextPageCursor":"{cursor}""#);
            next_page("/list?limit=1000", body.replace(r#""nextPageCursor":"""#, &more).as_bytes())
        };
        assert_eq!(next("a%3Db"), Ok(Some("/list?limit=1000&cursor=a%3Db".to_owned())));
        assert_eq!(next("a&b"), Err(Malformed::Field("nextPageCursor")));
        let behind_the_last = br#"{"result":{"list":[],"nextPageCursor":"more"}}"#;
        assert_eq!(next_page("/list", behind_the_last), Ok(None));
        let refused = br#"{"retCode":10001,"retMsg":"x","result":{}}"#;
        assert_eq!(listings(refused), Err(Malformed::Field("result")));
        assert_eq!(listings(b"<html>"), Err(Malformed::NotJson));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = of().decode(&mut bytes, &mut EventBatch::default());
        }

        #[test]
        fn no_damage_panics_or_leaves_half_an_event(
            at in 0usize..500,
            with in proptest::collection::vec(any::<u8>(), 0..4),
        ) {
            for message in [SNAPSHOT, DELTA, TRADES] {
                damage(&mut of(), message, at, &with);
            }
        }
    }
}
