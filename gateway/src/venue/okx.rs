//! OKX, version 5.
//!
//! Turns stream messages into market events; there is no REST half, for the image of a book comes
//! with its subscription. The feed thread calls it for every message. It must never allocate per
//! event, nor take the zero that the venue sends where it computes no checksum for one.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;
use simd_json::{Node, StaticNode};
use tickfan_core::decimal::{Decimal, SCALE_MAX, write_decimal};
use tickfan_core::market::{
    Aggressor, BookEvent, BookKind, Channel, Continuity, EventBatch, InstrumentId, Listing,
    MarketEvent, Nanos, Scales, TradeId, TradeNumbering, TradePrint, TradesEvent, Trading,
};

use super::tape::{
    Parser, decimal, elements, entries, field, nanos_of_millis, number, number_in_text, read_sides,
    text,
};
use super::{
    Checksum, DecodeError, Endpoints, Malformed, Mantissas, Resync, Subscription, VenueDecoder,
    quoted_after,
};

/// "400 depth levels will be pushed in the initial full snapshot": `books`, the one incremental
/// channel that needs no login, has this depth and no other.
const DEPTH: usize = 400;

/// "The total length of multiple channels cannot exceed 64 KB": 150 bytes an instrument at most.
const INSTRUMENTS_PER_REQUEST_MAX: usize = 200;

/// "The checksum … the first 25 bids and asks".
const CHECKSUM_LEVELS: usize = 25;

/// Characters of one level's price or quantity and the colon behind it; a longer text only makes
/// the buffer grow.
const CHECKSUM_TEXT_BYTES: usize = 20;

/// "The connection will soon be closed for a service upgrade."
const NOTICE_OF_CLOSE: &str = "64008";

/// "Requests too frequent": over 480 in an hour. Another connection may say as much again.
const TOO_MANY_REQUESTS: &str = "60014";

/// The answer to our keep-alive is no JSON.
const PONG: &[u8] = b"pong";

const SECOND_NS: Nanos = 1_000_000_000;

/// The venue closes a connection on which nothing was pushed for 30 s unless it is asked for a sign
/// of life: three chances to be heard.
const KEEPALIVE_NS: Nanos = 10 * SECOND_NS;

/// Two answers to the keep-alive are missing, and half of the time to the next.
const SILENCE_NS: Nanos = 25 * SECOND_NS;

/// The default endpoints.
pub const fn endpoints() -> Endpoints {
    Endpoints {
        stream: "wss://ws.okx.com:8443",
        rest: "https://www.okx.com",
        // One of them alone would tell that the others are not listed.
        instruments_paths: &[
            "/api/v5/public/instruments?instType=SPOT",
            "/api/v5/public/instruments?instType=SWAP",
            "/api/v5/public/instruments?instType=FUTURES",
        ],
        // Images come on the stream: the lists are all that REST is asked for.
        instruments_weight: 1,
        rest_weight_per_minute: 60,
        // 480 subscriptions and their ends in an hour on one connection: a resync takes two, so
        // that fewer instruments leave each more of them.
        instruments_per_connection: 100,
        text_spacing_ns: SECOND_NS / 4,
        // The share of a minute.
        texts_at_once: 8,
        // Three connections a second from one address.
        connect_spacing_ns: SECOND_NS / 2,
        connection_life_ns: None,
    }
}

/// Decodes one connection.
pub struct Decoder {
    reader: Reader,
    parser: Parser,
}

impl Decoder {
    /// A decoder for the instruments of one connection. The venue has one depth and one trade
    /// stream.
    pub fn new(subscription: Subscription) -> Self {
        let ids = subscription.instruments.iter().map(|(id, symbol)| (Arc::clone(symbol), *id));
        let reader = Reader { ids: ids.collect(), instruments: subscription.instruments };
        Self { reader, parser: Parser::default() }
    }
}

impl VenueDecoder for Decoder {
    fn stream_path(&self) -> &str {
        "/ws/v5/public"
    }

    fn subscribe(&self) -> Vec<String> {
        let instruments = self.reader.instruments.chunks(INSTRUMENTS_PER_REQUEST_MAX);
        instruments
            .map(|instruments| {
                let args = instruments.iter().flat_map(|(_, symbol)| {
                    ["books", "trades"].map(|channel| argument(channel, symbol))
                });
                request("subscribe", args.collect())
            })
            .collect()
    }

    fn resync(&mut self, instrument: InstrumentId, first: bool) -> Resync {
        let known = self.reader.instruments.iter().find(|(id, _)| *id == instrument);
        let Some((_, symbol)) = known.filter(|_| !first) else {
            return Resync::Send(Vec::new());
        };
        let operations = ["unsubscribe", "subscribe"];
        Resync::Send(operations.map(|op| request(op, vec![argument("books", symbol)])).into())
    }

    fn decode(&mut self, message: &mut [u8], out: &mut EventBatch) -> Result<(), DecodeError> {
        if *message == *PONG {
            return Ok(());
        }
        let reader = &self.reader;
        self.parser.decode(
            message,
            out,
            |nodes, out| reader.read(nodes, out),
            || reader.subject_of_broken(message),
        )
    }

    fn checksum(&self) -> Option<Checksum> {
        Some(Checksum { levels: CHECKSUM_LEVELS, compute: checksum })
    }

    fn silence_ns(&self) -> Nanos {
        SILENCE_NS
    }

    /// "Send the string `ping`": no JSON either.
    fn keepalive(&self) -> Option<(String, Nanos)> {
        Some(("ping".to_owned(), KEEPALIVE_NS))
    }
}

fn argument(channel: &str, symbol: &str) -> serde_json::Value {
    serde_json::json!({"channel": channel, "instId": symbol})
}

fn request(operation: &str, arguments: Vec<serde_json::Value>) -> String {
    serde_json::json!({"op": operation, "args": arguments}).to_string()
}

/// Turns a parsed message into events.
struct Reader {
    instruments: Vec<(InstrumentId, Arc<str>)>,
    ids: HashMap<Arc<str>, InstrumentId>,
}

impl Reader {
    fn read(&self, nodes: &[Node<'_>], out: &mut EventBatch) -> Result<(), DecodeError> {
        let of_all = |what| DecodeError { about: None, what };
        let envelope = Envelope::of(nodes).map_err(of_all)?;
        if let Some(event) = envelope.event {
            let event = text(event).ok_or(of_all(Malformed::Field("event")))?;
            self.read_event(event, &envelope, out);
            return Ok(());
        }
        let Some(arg) = envelope.arg else {
            // A message without a subject and without data is of a kind that we do not know.
            return match envelope.data {
                None => Ok(()),
                Some(_) => Err(of_all(Malformed::Field("arg"))),
            };
        };
        let channel = field(arg, "channel").and_then(text);
        let channel = channel.ok_or(of_all(Malformed::Field("channel")))?;
        let Some(channel) = channel_named(channel) else {
            return Ok(());
        };
        let symbol = field(arg, "instId").and_then(text);
        let symbol = symbol.ok_or(of_all(Malformed::Field("instId")))?;
        let Some(&instrument) = self.ids.get(symbol) else {
            return Ok(());
        };
        match channel {
            Channel::Trades => read_trades(instrument, &envelope, out),
            _ => read_books(instrument, &envelope, out),
        }
        .map_err(|what| DecodeError { about: Some((instrument, channel)), what })
    }

    /// Reads what is not about the market: acknowledgements, refusals and notices.
    fn read_event(&self, event: &str, envelope: &Envelope<'_, '_>, out: &mut EventBatch) {
        let code = envelope.code.and_then(text);
        match event {
            "subscribe" => {
                let subject = envelope.arg.and_then(|arg| self.subject_of(arg));
                if let Some((instrument, channel)) = subject {
                    out.events.push(MarketEvent::Subscribed { instrument, channel });
                }
            }
            "error" => {
                let message = envelope.message.and_then(text).unwrap_or_default();
                let instrument = self.instrument_in(message);
                out.events.push(MarketEvent::Refused { instrument, message: message.to_owned() });
                if code == Some(TOO_MANY_REQUESTS) {
                    out.events.push(MarketEvent::Shutdown);
                }
            }
            "notice" if code == Some(NOTICE_OF_CLOSE) => out.events.push(MarketEvent::Shutdown),
            _ => {}
        }
    }

    /// What a subscription is about.
    fn subject_of(&self, arg: &[Node<'_>]) -> Option<(InstrumentId, Channel)> {
        let instrument = self.ids.get(field(arg, "instId").and_then(text)?)?;
        Some((*instrument, channel_named(field(arg, "channel").and_then(text)?)?))
    }

    /// The instrument that the venue's words name: "channel:books,instId:BTC-USDX doesn't exist".
    fn instrument_in(&self, message: &str) -> Option<InstrumentId> {
        let is_symbol = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        message.split(|c| !is_symbol(c)).find_map(|word| self.ids.get(word)).copied()
    }

    /// What a message is about that is no JSON: its subject may be readable still.
    fn subject_of_broken(&self, message: &[u8]) -> Option<(InstrumentId, Channel)> {
        let channel = channel_named(quoted_after(message, b"\"channel\":\"")?)?;
        Some((*self.ids.get(quoted_after(message, b"\"instId\":\"")?)?, channel))
    }
}

fn channel_named(name: &str) -> Option<Channel> {
    match name {
        "books" => Some(Channel::Book),
        "trades" => Some(Channel::Trades),
        _ => None,
    }
}

/// The outside of any message.
#[derive(Default)]
struct Envelope<'t, 'm> {
    event: Option<&'t [Node<'m>]>,
    arg: Option<&'t [Node<'m>]>,
    action: Option<&'t [Node<'m>]>,
    data: Option<&'t [Node<'m>]>,
    code: Option<&'t [Node<'m>]>,
    message: Option<&'t [Node<'m>]>,
}

impl<'t, 'm> Envelope<'t, 'm> {
    fn of(nodes: &'t [Node<'m>]) -> Result<Self, Malformed> {
        let mut envelope = Self::default();
        for (key, value) in entries(nodes).ok_or(Malformed::Field("message"))? {
            let field = match key {
                "event" => &mut envelope.event,
                "arg" => &mut envelope.arg,
                "action" => &mut envelope.action,
                "data" => &mut envelope.data,
                "code" => &mut envelope.code,
                "msg" => &mut envelope.message,
                _ => continue,
            };
            *field = Some(value);
        }
        Ok(envelope)
    }
}

/// One entry of `data`, of books and trades alike.
#[derive(Default)]
struct Entry<'t, 'm> {
    bids: Option<&'t [Node<'m>]>,
    asks: Option<&'t [Node<'m>]>,
    checksum: Option<&'t [Node<'m>]>,
    previous_id: Option<&'t [Node<'m>]>,
    id: Option<&'t [Node<'m>]>,
    time: Option<&'t [Node<'m>]>,
    trade_id: Option<&'t [Node<'m>]>,
    px: Option<&'t [Node<'m>]>,
    qty: Option<&'t [Node<'m>]>,
    side: Option<&'t [Node<'m>]>,
}

impl<'t, 'm> Entry<'t, 'm> {
    fn of(nodes: &'t [Node<'m>]) -> Result<Self, Malformed> {
        let mut entry = Self::default();
        for (key, value) in entries(nodes).ok_or(Malformed::Field("data"))? {
            let field = match key {
                "bids" => &mut entry.bids,
                "asks" => &mut entry.asks,
                "checksum" => &mut entry.checksum,
                "prevSeqId" => &mut entry.previous_id,
                "seqId" => &mut entry.id,
                "ts" => &mut entry.time,
                "tradeId" => &mut entry.trade_id,
                "px" => &mut entry.px,
                "sz" => &mut entry.qty,
                "side" => &mut entry.side,
                _ => continue,
            };
            *field = Some(value);
        }
        Ok(entry)
    }

    fn te_ns(&self) -> Result<Nanos, Malformed> {
        nanos_of_millis(number_in_text(self.time, "ts")?, "ts")
    }

    fn continuity(&self, kind: BookKind) -> Result<Option<Continuity>, Malformed> {
        // Messages of 2022 have neither: their checksum was the proof.
        if self.id.is_none() && self.previous_id.is_none() {
            return Ok(None);
        }
        let last = number(self.id, "seqId")?;
        let follows = match kind {
            // "prevSeqId is -1" there.
            BookKind::Image => last,
            BookKind::Delta => number(self.previous_id, "prevSeqId")?,
        };
        Ok(Some(Continuity { follows, last }))
    }

    /// A signed integer; zero where the venue computes none.
    fn checksum(&self) -> Result<Option<u32>, Malformed> {
        let signed = match self.checksum {
            None => return Ok(None),
            Some([Node::Static(StaticNode::I64(signed)), ..]) => i32::try_from(*signed).ok(),
            Some([Node::Static(StaticNode::U64(signed)), ..]) => i32::try_from(*signed).ok(),
            Some(_) => None,
        };
        let signed = signed.ok_or(Malformed::Field("checksum"))?;
        Ok((signed != 0).then_some(signed.cast_unsigned()))
    }
}

fn read_books(
    instrument: InstrumentId,
    envelope: &Envelope<'_, '_>,
    out: &mut EventBatch,
) -> Result<(), Malformed> {
    let kind = match envelope.action.and_then(text) {
        Some("snapshot") => BookKind::Image,
        Some("update") => BookKind::Delta,
        _ => return Err(Malformed::Field("action")),
    };
    for nodes in elements(envelope.data, "data")? {
        let entry = Entry::of(nodes)?;
        let event = BookEvent {
            kind,
            continuity: entry.continuity(kind)?,
            checksum: entry.checksum()?,
            te_ns: entry.te_ns()?,
            cut_at: (kind == BookKind::Image).then_some(DEPTH),
            ..read_sides(instrument, ("bids", entry.bids), ("asks", entry.asks), out)?
        };
        out.events.push(MarketEvent::Book(event));
    }
    Ok(())
}

fn read_trades(
    instrument: InstrumentId,
    envelope: &Envelope<'_, '_>,
    out: &mut EventBatch,
) -> Result<(), Malformed> {
    let start = out.trades.len();
    for nodes in elements(envelope.data, "data")? {
        let entry = Entry::of(nodes)?;
        // "Trade direction of taker".
        let aggressor = match entry.side.and_then(text) {
            Some("buy") => Aggressor::Buy,
            Some("sell") => Aggressor::Sell,
            _ => return Err(Malformed::Field("side")),
        };
        let id = number_in_text(entry.trade_id, "tradeId")?;
        out.trades.push(TradePrint {
            te_ns: entry.te_ns()?,
            px: decimal(entry.px, "px")?,
            qty: decimal(entry.qty, "sz")?,
            aggressor,
            id: TradeId::Number(id),
            number: Some(id),
        });
    }
    if out.trades.len() > start {
        out.events.push(MarketEvent::Trades(TradesEvent {
            instrument,
            trades: start..out.trades.len(),
            // "Multiple taker orders' trades may be aggregated": then ids are skipped.
            numbering: TradeNumbering::Rising,
        }));
    }
    Ok(())
}

/// The venue's checksum: price and quantity of the best bid, of the best ask, of the second bid …
/// with colons between them, on the texts as sent. The venue writes every number in its shortest
/// form; a side that is shorter is passed over.
fn checksum(bids: &[Mantissas], asks: &[Mantissas], digits: Scales) -> u32 {
    // A mantissa has at most these, however many zeros a text may have behind its point.
    let (px_digits, qty_digits) = (digits.px.min(SCALE_MAX), digits.qty.min(SCALE_MAX));
    let mut text = Vec::with_capacity(4 * CHECKSUM_LEVELS * CHECKSUM_TEXT_BYTES);
    let ranks = 0..CHECKSUM_LEVELS;
    for (px, qty) in ranks.flat_map(|rank| [bids.get(rank), asks.get(rank)]).flatten() {
        for (mantissa, scale) in [(*px, px_digits), (*qty, qty_digits)] {
            write_decimal(mantissa, scale, &mut text);
            text.push(b':');
        }
    }
    text.pop();
    crc32fast::hash(&text)
}

#[derive(Deserialize)]
struct InstrumentList<'a> {
    #[serde(borrow)]
    data: Vec<&'a RawValue>,
}

/// One instrument of the list, as far as it matters here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct InstrumentInfo {
    inst_id: String,
    inst_type: String,
    state: String,
    tick_sz: String,
    lot_sz: String,
    // Spot only.
    #[serde(default)]
    base_ccy: String,
    #[serde(default)]
    quote_ccy: String,
    // Contracts only: `BTC-USD`.
    #[serde(default)]
    uly: String,
}

impl InstrumentInfo {
    fn listing(&self) -> Option<Listing> {
        let (kind, (base, quote)) = match &*self.inst_type {
            "SPOT" => ("spot", (&*self.base_ccy, &*self.quote_ccy)),
            "SWAP" => ("perpetual", self.uly.split_once('-')?),
            "FUTURES" => ("future", self.uly.split_once('-')?),
            _ => return None,
        };
        let trading = match &*self.state {
            "live" | "post_only" => Trading::Open,
            "expired" => Trading::Ended,
            // "Test pairs, can't be traded".
            "test" => return None,
            // `suspend`, `preopen`, `rebase`.
            _ => Trading::Halted,
        };
        let step = |text: &str| Decimal::parse(text.as_bytes()).ok().filter(|step| !step.is_zero());
        Some(Listing {
            native: self.inst_id.as_str().into(),
            base: base.into(),
            quote: quote.into(),
            kind: kind.into(),
            tick: step(&self.tick_sz)?,
            lot: step(&self.lot_sz)?,
            trading,
        })
    }
}

/// Reads one of the instrument lists.
///
/// # Errors
/// [`Malformed`] when the body holds no list of instruments; an instrument that cannot be read is
/// left out.
pub fn listings(body: &[u8]) -> Result<Vec<Listing>, Malformed> {
    let list: InstrumentList<'_> = serde_json::from_slice(body).map_err(|error| {
        if error.is_data() { Malformed::Field("data") } else { Malformed::NotJson }
    })?;
    let instruments = list.data.iter().filter_map(|raw| serde_json::from_str(raw.get()).ok());
    Ok(instruments.filter_map(|instrument: InstrumentInfo| instrument.listing()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::venue::testing::{self, damage, decimal, level, refusal, shown};
    use proptest::prelude::*;

    const BTC: InstrumentId = InstrumentId(3);
    const SWAP: InstrumentId = InstrumentId(4);

    const SNAPSHOT: &str = r#"{"arg":{"channel":"books","instId":"BTC-USDT"},"action":"snapshot","data":[{"asks":[["8476.98","415","0","13"],["8477","7","0","2"]],"bids":[["8476.97","256.5","0","12"]],"ts":"1597026383085","checksum":-1881014294,"prevSeqId":-1,"seqId":123456}]}"#;
    const UPDATE: &str = r#"{"arg":{"channel":"books","instId":"BTC-USDT"},"action":"update","data":[{"asks":[["8476.98","0","0","0"]],"bids":[],"ts":"1597026383185","checksum":0,"prevSeqId":123456,"seqId":123463}]}"#;
    /// Of 2022: no numbers.
    const UPDATE_2022: &str = r#"{"arg":{"channel":"books","instId":"BTC-USDT"},"action":"update","data":[{"asks":[],"bids":[["8476.5","1","0","1"]],"ts":"1652459225600","checksum":831078360}]}"#;
    const TRADES: &str = r#"{"arg":{"channel":"trades","instId":"BTC-USDT"},"data":[{"instId":"BTC-USDT","tradeId":"130639474","px":"42219.9","sz":"0.12060306","side":"buy","ts":"1630048897897","count":"3"},{"instId":"BTC-USDT","tradeId":"130639479","px":"42219.8","sz":"1","side":"sell","ts":"1630048897898","count":"1"}]}"#;

    fn of() -> Decoder {
        let instruments = vec![(BTC, "BTC-USDT".into()), (SWAP, "BTC-USDT-SWAP".into())];
        Decoder::new(Subscription { instruments, depth: None, trades: None })
    }

    fn decoded(message: &str) -> EventBatch {
        testing::decoded(&mut of(), message)
    }

    #[test]
    fn a_snapshot_is_an_image_that_follows_nothing() {
        let out = decoded(SNAPSHOT);
        let image = BookEvent {
            instrument: BTC,
            kind: BookKind::Image,
            bids: 0..1,
            asks: 1..3,
            continuity: Some(Continuity { follows: 123_456, last: 123_456 }),
            checksum: Some((-1_881_014_294i32).cast_unsigned()),
            te_ns: 1_597_026_383_085_000_000,
            px_digits: 2,
            qty_digits: 1,
            cut_at: Some(400),
        };
        assert_eq!(out.events, [MarketEvent::Book(image)]);
        assert_eq!(
            out.levels,
            [level("8476.97", "256.5"), level("8476.98", "415"), level("8477", "7")]
        );
    }

    #[test]
    fn an_update_is_a_delta_and_a_checksum_of_zero_is_none() {
        let delta = BookEvent {
            instrument: BTC,
            kind: BookKind::Delta,
            bids: 0..0,
            asks: 0..1,
            continuity: Some(Continuity { follows: 123_456, last: 123_463 }),
            checksum: None,
            te_ns: 1_597_026_383_185_000_000,
            px_digits: 2,
            qty_digits: 0,
            cut_at: None,
        };
        let absent = UPDATE.replace(r#""checksum":0,"#, "");
        let swapped = r#"{"data":[{"seqId":123463,"new":{"instId":"X"},"prevSeqId":123456,"ts":"1597026383185","bids":[],"asks":[["8476.98","0"]]}],"action":"update","arg":{"instId":"BTC-USDT","channel":"books"}}"#;
        for message in [UPDATE, &absent, swapped] {
            let out = decoded(message);
            assert_eq!(out.events, [MarketEvent::Book(delta.clone())], "{message}");
            assert_eq!(out.levels, [level("8476.98", "0")]);
        }
    }

    #[test]
    fn numbers_are_taken_as_they_come_where_the_venue_sends_them() {
        let continuity = |message: &str| match &decoded(message).events[..] {
            [MarketEvent::Book(event)] => event.continuity,
            other => panic!("{other:?}"),
        };
        assert_eq!(continuity(UPDATE_2022), None);
        // "If there are no updates for 60 seconds": nothing changes, nor does the number.
        let alive = UPDATE.replace("123463", "123456");
        assert_eq!(continuity(&alive), Some(Continuity { follows: 123_456, last: 123_456 }));
        // "The sequence may be reset due to maintenance": it goes on from a smaller number.
        let reset = UPDATE.replace("123463", "3");
        assert_eq!(continuity(&reset), Some(Continuity { follows: 123_456, last: 3 }));
    }

    #[test]
    fn trades_name_the_taker_and_their_numbers_rise() {
        let out = decoded(TRADES);
        let event =
            TradesEvent { instrument: BTC, trades: 0..2, numbering: TradeNumbering::Rising };
        assert_eq!(out.events, [MarketEvent::Trades(event)]);
        let print = TradePrint {
            te_ns: 1_630_048_897_897_000_000,
            px: decimal("42219.9"),
            qty: decimal("0.12060306"),
            aggressor: Aggressor::Buy,
            id: TradeId::Number(130_639_474),
            number: Some(130_639_474),
        };
        assert_eq!(out.trades[0], print);
        assert_eq!(out.trades[1].aggressor, Aggressor::Sell);
    }

    #[test]
    fn control_messages_become_what_the_session_needs() {
        let subscribed =
            |instrument, channel| vec![MarketEvent::Subscribed { instrument, channel }];
        let refused = |instrument, message: &str| {
            vec![MarketEvent::Refused { instrument, message: message.to_owned() }]
        };
        let unknown = "Wrong URL or channel:books,instId:BTC-USDT-SWAP doesn't exist. Please use the correct URL.";
        for (message, expected) in [
            ("pong".to_owned(), vec![]),
            (
                r#"{"id":"1512","event":"subscribe","arg":{"channel":"books","instId":"BTC-USDT"},"connId":"a4d3ae55"}"#.to_owned(),
                subscribed(BTC, Channel::Book),
            ),
            (
                r#"{"event":"subscribe","arg":{"channel":"trades","instId":"BTC-USDT-SWAP"}}"#.to_owned(),
                subscribed(SWAP, Channel::Trades),
            ),
            (r#"{"event":"subscribe","arg":{"channel":"tickers","instId":"BTC-USDT"}}"#.to_owned(), vec![]),
            (r#"{"event":"subscribe","arg":{"channel":"books","instId":"X"}}"#.to_owned(), vec![]),
            (r#"{"event":"subscribe"}"#.to_owned(), vec![]),
            (r#"{"event":"unsubscribe","arg":{"channel":"books","instId":"BTC-USDT"}}"#.to_owned(), vec![]),
            (r#"{"event":"channel-conn-count","channel":"books","connCount":"1"}"#.to_owned(), vec![]),
            (
                format!(r#"{{"event":"error","code":"60018","msg":"{unknown}","connId":"a4d3ae55"}}"#),
                refused(Some(SWAP), unknown),
            ),
            (
                r#"{"event":"error","code":"60014","msg":"Requests too frequent"}"#.to_owned(),
                [refused(None, "Requests too frequent"), vec![MarketEvent::Shutdown]].concat(),
            ),
            (r#"{"event":"error"}"#.to_owned(), refused(None, "")),
            (
                r#"{"event":"notice","code":"64008","msg":"The connection will soon be closed for a service upgrade. Please reconnect.","connId":"a4d3ae55"}"#.to_owned(),
                vec![MarketEvent::Shutdown],
            ),
            (r#"{"event":"notice","code":"1","msg":"x"}"#.to_owned(), vec![]),
            (r#"{"arg":{"channel":"tickers","instId":"BTC-USDT"},"data":[{"last":1}]}"#.to_owned(), vec![]),
            (TRADES.replace("BTC-USDT", "NOT-ASKED"), vec![]),
            (r#"{"arg":{"channel":"trades","instId":"BTC-USDT"},"data":[]}"#.to_owned(), vec![]),
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
            (UPDATE.replace(r#""action":"update","#, ""), BOOK, field("action")),
            (UPDATE.replace(r#""update""#, r#""other""#), BOOK, field("action")),
            (UPDATE.replace(r#""data""#, r#""date""#), BOOK, field("data")),
            (UPDATE.replace(r#""bids":[],"#, ""), BOOK, field("bids")),
            (UPDATE.replace(r#""bids":[]"#, r#""bids":{}"#), BOOK, field("bids")),
            (UPDATE.replace(r#"["8476.98","0","0","0"]"#, r#"["8476.98"]"#), BOOK, field("asks")),
            (UPDATE.replace(r#""8476.98""#, "8476.98"), BOOK, field("asks")),
            (UPDATE.replace("8476.98", ""), BOOK, number("asks", NoNumber)),
            (UPDATE.replace("8476.98", "1e40"), BOOK, number("asks", Overflow)),
            (UPDATE.replace("8476.98", &digits), BOOK, number("asks", Overflow)),
            (
                UPDATE.replace(r#""checksum":0"#, r#""checksum":2147483648"#),
                BOOK,
                field("checksum"),
            ),
            (UPDATE.replace(r#""checksum":0"#, r#""checksum":"0""#), BOOK, field("checksum")),
            (UPDATE.replace(r#","seqId":123463"#, ""), BOOK, field("seqId")),
            (UPDATE.replace(r#""prevSeqId":123456,"#, ""), BOOK, field("prevSeqId")),
            (UPDATE.replace("123456", "-1"), BOOK, field("prevSeqId")),
            (UPDATE.replace("1597026383185", "soon"), BOOK, field("ts")),
            (UPDATE.replace("1597026383185", "99999999999999999"), BOOK, field("ts")),
            (UPDATE.replace(r#"{"asks""#, r#"7,{"asks""#), BOOK, field("data")),
            (UPDATE.replace(r#""channel":"books","#, ""), None, field("channel")),
            (UPDATE.replace(r#","instId":"BTC-USDT""#, ""), None, field("instId")),
            (UPDATE.replace(r#""arg""#, r#""org""#), None, field("arg")),
            (UPDATE.replace("}]}", ""), BOOK, Malformed::NotJson),
            (UPDATE.replace("BTC-USDT", "X").replace("}]}", ""), None, Malformed::NotJson),
            (UPDATE.replace("books", "").replace("}]}", ""), None, Malformed::NotJson),
            (TRADES.replace("}]}", ""), TRADE, Malformed::NotJson),
            (TRADES.replace("sell", "long"), TRADE, field("side")),
            (TRADES.replace("130639479", "-1"), TRADE, field("tradeId")),
            (
                TRADES.replace(r#""tradeId":"130639479""#, r#""tradeId":130639479"#),
                TRADE,
                field("tradeId"),
            ),
            (TRADES.replace(r#""px":"42219.8","#, ""), TRADE, field("px")),
            (TRADES.replace("0.12060306", "x"), TRADE, number("sz", NoNumber)),
            (r#"{"event":5}"#.to_owned(), None, field("event")),
            (String::new(), None, Malformed::NotJson),
            ("ping pong".to_owned(), None, Malformed::NotJson),
            ("[]".to_owned(), None, field("message")),
            ("[".repeat(100_000), None, Malformed::NotJson),
            ("\u{0}x\"\\{[".repeat(170_000), None, Malformed::NotJson),
        ] {
            let error = refusal(&mut of(), &[UPDATE, TRADES], &message);
            assert_eq!(error, DecodeError { about, what }, "{}", shown(&message));
        }
    }

    #[test]
    fn the_checksum_is_that_of_the_venues_examples() {
        let digits = Scales { px: 1, qty: 0 };
        let signed =
            |bids: &[Mantissas], asks: &[Mantissas]| checksum(bids, asks, digits).cast_signed();
        assert_eq!(
            signed(&[(33_661, 7), (33_660, 6)], &[(33_668, 9), (33_680, 8)]),
            -1_881_014_294,
            "3366.1:7:3366.8:9:3366:6:3368:8"
        );
        assert_eq!(
            signed(&[(33_661, 7)], &[(33_668, 9), (33_680, 8), (33_720, 8)]),
            831_078_360,
            "3366.1:7:3366.8:9:3368:8:3372:8"
        );
        let finer = Scales { px: 255, qty: 8 };
        assert_eq!(
            checksum(&[(1, 150_000_000)], &[], finer),
            crc32fast::hash(b"0.000000000000000001:1.5")
        );
        assert_eq!(checksum(&[], &[], digits), 0);
        let deep = vec![(10, 1); CHECKSUM_LEVELS + 1];
        assert_eq!(checksum(&deep, &[], digits), checksum(&deep[1..], &[], digits));
    }

    #[test]
    fn subscriptions_and_resyncs_name_channel_and_instrument() {
        let parsed = |text: &String| serde_json::from_str::<serde_json::Value>(text).unwrap();
        let instruments: Vec<_> =
            (0..201).map(|i| (InstrumentId(i), format!("C{i}-USDT").into())).collect();
        let mut decoder = Decoder::new(Subscription { instruments, depth: None, trades: None });
        let requests: Vec<_> = decoder.subscribe().iter().map(parsed).collect();
        assert_eq!(requests.len(), 2);
        assert!(decoder.subscribe().iter().all(|text| text.len() < 64 * 1024));
        assert_eq!(requests[0]["op"], "subscribe");
        assert_eq!(requests[0]["args"][3], argument("trades", "C1-USDT"));
        assert_eq!(requests[1]["args"][0], argument("books", "C200-USDT"));

        assert_eq!(decoder.resync(InstrumentId(5), true), Resync::Send(Vec::new()));
        let Resync::Send(texts) = decoder.resync(InstrumentId(5), false) else {
            panic!("not on the stream")
        };
        let operations: Vec<_> = texts.iter().map(|text| parsed(text)["op"].clone()).collect();
        assert_eq!(operations, ["unsubscribe", "subscribe"]);
        for text in &texts {
            assert_eq!(parsed(text)["args"], serde_json::json!([argument("books", "C5-USDT")]));
        }
    }

    #[test]
    fn listings_tell_kind_pair_and_state() {
        let body = r#"{"code":"0","msg":"","data":[
            {"instId":"BTC-USDT","instType":"SPOT","baseCcy":"BTC","quoteCcy":"USDT","uly":"","state":"live","tickSz":"0.1","lotSz":"0.00000001","ctVal":""},
            {"instId":"UNI-USD-SWAP","instType":"SWAP","baseCcy":"","quoteCcy":"","uly":"UNI-USD","state":"suspend","tickSz":"0.001","lotSz":"1","ctVal":"10"},
            {"instId":"BTC-USD-220527","instType":"FUTURES","uly":"BTC-USD","state":"expired","tickSz":"0.1","lotSz":"1"},
            {"instId":"T","instType":"SPOT","state":"test","tickSz":"0.1","lotSz":"1"},
            {"instId":"NOTICK","instType":"SPOT","state":"live","tickSz":"","lotSz":"1"},
            {"instId":"ZERO","instType":"SPOT","state":"live","tickSz":"0.1","lotSz":"0"},
            {"instId":"O","instType":"OPTION","uly":"BTC-USD","state":"live","tickSz":"0.1","lotSz":"1"},
            {"instId":"X"},7]}"#;
        let found = listings(body.as_bytes()).unwrap();
        let told: Vec<_> = found
            .iter()
            .map(|l| (&*l.native, &*l.kind, &*l.base, &*l.quote, l.trading, l.scales()))
            .collect();
        let scales = |px, qty| Scales { px, qty };
        assert_eq!(
            told,
            [
                ("BTC-USDT", "spot", "BTC", "USDT", Trading::Open, scales(1, 8)),
                ("UNI-USD-SWAP", "perpetual", "UNI", "USD", Trading::Halted, scales(3, 0)),
                ("BTC-USD-220527", "future", "BTC", "USD", Trading::Ended, scales(1, 0)),
            ]
        );
        assert_eq!(listings(b"{}"), Err(Malformed::Field("data")));
        assert_eq!(listings(b"<html>"), Err(Malformed::NotJson));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = of().decode(&mut bytes, &mut EventBatch::default());
        }

        #[test]
        fn no_damage_panics_or_leaves_half_an_event(
            at in 0usize..400,
            with in proptest::collection::vec(any::<u8>(), 0..4),
        ) {
            for message in [SNAPSHOT, UPDATE, UPDATE_2022, TRADES] {
                damage(&mut of(), message, at, &with);
            }
        }
    }
}
