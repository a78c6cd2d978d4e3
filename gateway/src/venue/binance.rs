//! Binance: spot, USD-M and COIN-M futures, whose messages are the same but for the small table
//! [`Market`]. The built-in simulator speaks the spot dialect.
//!
//! Turns stream messages and REST images into market events. The stream half is called by the feed
//! thread for every message, the image half by the REST thread. It must never allocate per event,
//! block, or guess: what it cannot read exactly is an error.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;
use simd_json::{Buffers, INPUT_PADDING, Node, StaticNode, Tape};
use tickfan_core::decimal::{Decimal, DecimalError, fraction_digits};
use tickfan_core::market::{
    Aggressor, BboEvent, BookEvent, BookKind, Channel, Continuity, EventBatch, InstrumentId,
    LevelChange, Listing, MarketEvent, Nanos, TradeId, TradePrint, TradesEvent, Venue,
};

use super::{
    Checksum, DecodeError, Endpoints, ImageDecoder, Malformed, Resync, Subscription, TradeStream,
    VenueDecoder, quoted_after,
};

/// Streams in one SUBSCRIBE message: 1024 streams, all that a connection may carry, then take six
/// messages, and the venue allows "5 incoming messages per second" (spot).
const STREAMS_PER_REQUEST_MAX: usize = 200;

/// The channels of an instrument, in the order in which they are subscribed to.
const CHANNELS: [Channel; 3] = [Channel::Book, Channel::Bbo, Channel::Trades];

/// "Valid limits: [5, 10, 20, 50, 100, 500, 1000]" (futures); spot takes any number up to 5000.
const DEPTH_LIMITS: [u32; 8] = [5, 10, 20, 50, 100, 500, 1000, 5000];

/// Times from here on are microseconds: as milliseconds they would be in the year 5138.
const MICROSECONDS_FROM: u64 = 100_000_000_000_000;

const SECOND_NS: Nanos = 1_000_000_000;

/// How an event of the depth stream names the event before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    /// Spot: "each new event's `U` should be equal to the previous event's `u`+1".
    FirstId,
    /// Futures: "each new event's `pu` should be equal to the previous event's `u`".
    PreviousLastId,
}

/// All that differs between the markets.
#[derive(Debug)]
struct Market {
    endpoints: Endpoints,
    depth_path: &'static str,
    depth_limit_max: u32,
    depth_stream: &'static str,
    trades: TradeStream,
    link: Link,
    silence_ns: Nanos,
}

const SPOT: Market = Market {
    endpoints: Endpoints {
        stream: "wss://stream.binance.com:9443",
        rest: "https://api.binance.com",
        instruments_path: Some("/api/v3/exchangeInfo"),
    },
    depth_path: "/api/v3/depth",
    depth_limit_max: 5000,
    depth_stream: "depth@100ms",
    trades: TradeStream::Trade,
    link: Link::FirstId,
    // "The WebSocket server will send a ping frame every 20 seconds": three of them are missing.
    silence_ns: 60 * SECOND_NS,
};

const USDM: Market = Market {
    endpoints: Endpoints {
        stream: "wss://fstream.binance.com",
        rest: "https://fapi.binance.com",
        instruments_path: Some("/fapi/v1/exchangeInfo"),
    },
    depth_path: "/fapi/v1/depth",
    depth_limit_max: 1000,
    depth_stream: "depth@0ms",
    trades: TradeStream::AggTrade,
    link: Link::PreviousLastId,
    // "The websocket server will send a ping frame every 3 minutes": a connection of slow symbols
    // only may say nothing else, so that less would call a quiet market stale.
    silence_ns: 210 * SECOND_NS,
};

const COINM: Market = Market {
    endpoints: Endpoints {
        stream: "wss://dstream.binance.com",
        rest: "https://dapi.binance.com",
        instruments_path: Some("/dapi/v1/exchangeInfo"),
    },
    depth_path: "/dapi/v1/depth",
    ..USDM
};

/// The simulator has no address of its own: it is told where it listens.
const SIM: Market =
    Market { endpoints: Endpoints { stream: "", rest: "", ..SPOT.endpoints }, ..SPOT };

/// The market of a venue; `venue.rs` calls this file for these four only.
const fn market(venue: Venue) -> &'static Market {
    match venue {
        Venue::BinanceUsdm => &USDM,
        Venue::BinanceCoinm => &COINM,
        Venue::Sim => &SIM,
        _ => &SPOT,
    }
}

/// The default endpoints of one of the markets; empty for the simulator.
pub fn endpoints(venue: Venue) -> Endpoints {
    market(venue).endpoints
}

/// Decodes one connection to one of the markets.
pub struct Decoder {
    reader: Reader,
    depth_limit: u32,
    trades: TradeStream,
    buffers: Buffers,
    // The copy of a message that the parser rewrites, so that a broken message can still be
    // searched for its symbol. The parser would copy in any case, to pad.
    padded: Vec<u8>,
    tape: Tape<'static>,
}

impl Decoder {
    /// A decoder for the instruments of one connection to `venue`.
    pub fn new(venue: Venue, subscription: Subscription) -> Self {
        let market = market(venue);
        let asked = subscription.depth.unwrap_or(u32::MAX);
        let depth_limit = DEPTH_LIMITS.into_iter().find(|limit| *limit >= asked);
        let ids = subscription.instruments.iter().map(|(id, symbol)| (Arc::clone(symbol), *id));
        Self {
            depth_limit: depth_limit.unwrap_or(u32::MAX).min(market.depth_limit_max),
            trades: subscription.trades.unwrap_or(market.trades),
            reader: Reader { market, ids: ids.collect(), instruments: subscription.instruments },
            buffers: Buffers::default(),
            padded: Vec::new(),
            tape: Tape(Vec::new()),
        }
    }

    fn stream_name(&self, symbol: &str, channel: Channel) -> String {
        let stream = match (channel, self.trades) {
            (Channel::Book, _) => self.reader.market.depth_stream,
            (Channel::Bbo, _) => "bookTicker",
            (Channel::Trades, TradeStream::Trade) => "trade",
            (Channel::Trades, TradeStream::AggTrade) => "aggTrade",
        };
        // "All symbols for streams are lowercase."
        format!("{}@{stream}", symbol.to_ascii_lowercase())
    }
}

impl VenueDecoder for Decoder {
    fn stream_path(&self) -> &str {
        "/stream"
    }

    fn subscribe(&self) -> Vec<String> {
        let streams: Vec<String> = self
            .reader
            .instruments
            .iter()
            .flat_map(|(_, symbol)| CHANNELS.map(|channel| self.stream_name(symbol, channel)))
            .collect();
        let requests = streams.chunks(STREAMS_PER_REQUEST_MAX).zip(1u64..);
        requests
            .map(|(params, id)| {
                serde_json::json!({"method": "SUBSCRIBE", "params": params, "id": id}).to_string()
            })
            .collect()
    }

    fn resync(&mut self, instrument: InstrumentId, _first: bool) -> Resync {
        let symbol = self.reader.symbol(instrument);
        Resync::Rest(format!(
            "{}?symbol={}&limit={}",
            self.reader.market.depth_path,
            percent_encoded(symbol),
            self.depth_limit
        ))
    }

    fn decode(&mut self, message: &mut [u8], out: &mut EventBatch) -> Result<(), DecodeError> {
        self.padded.clear();
        self.padded.extend_from_slice(message);
        self.padded.resize(message.len() + INPUT_PADDING, 0);
        let kept = (out.events.len(), out.levels.len(), out.trades.len());

        // The tape borrows the message; emptied, its memory serves the next one.
        let mut tape = mem::replace(&mut self.tape, Tape(Vec::new())).reset();
        let parsed = simd_json::fill_tape_padded(
            &mut self.padded,
            message.len(),
            &mut self.buffers,
            &mut tape,
        );
        let result = match parsed {
            Ok(()) => self.reader.read(&tape.0, out),
            Err(_) => {
                let about = self.reader.subject_of_broken(message);
                Err(DecodeError { about, what: Malformed::NotJson })
            }
        };
        self.tape = tape.reset();

        if result.is_err() {
            out.events.truncate(kept.0);
            out.levels.truncate(kept.1);
            out.trades.truncate(kept.2);
        }
        result
    }

    fn image_decoder(&self) -> ImageDecoder {
        let cut_at = self.depth_limit as usize;
        Arc::new(move |instrument, body, out| read_image(instrument, cut_at, body, out))
    }

    fn has_bbo_stream(&self) -> bool {
        true
    }

    fn checksum(&self) -> Option<Checksum> {
        None
    }

    fn silence_ns(&self) -> Nanos {
        self.reader.market.silence_ns
    }

    fn keepalive(&self) -> Option<(String, Nanos)> {
        None
    }

    fn truncate_at(&self) -> Option<usize> {
        None
    }
}

/// Turns a parsed message into events.
struct Reader {
    market: &'static Market,
    instruments: Vec<(InstrumentId, Arc<str>)>,
    ids: HashMap<Arc<str>, InstrumentId>,
}

impl Reader {
    fn read(&self, nodes: &[Node<'_>], out: &mut EventBatch) -> Result<(), DecodeError> {
        let top = Fields::of(nodes, "message").map_err(|what| DecodeError { about: None, what })?;
        let stream = top.stream.and_then(text);
        let Some(data) = top.data else {
            return self.read_payload(&top, stream, out);
        };
        let fields = Fields::of(data, "data")
            .map_err(|what| DecodeError { about: self.subject_of_stream(stream), what })?;
        self.read_payload(&fields, stream, out)
    }

    fn read_payload(
        &self,
        fields: &Fields<'_, '_>,
        stream: Option<&str>,
        out: &mut EventBatch,
    ) -> Result<(), DecodeError> {
        let from_stream = |what| DecodeError { about: self.subject_of_stream(stream), what };
        let channel = match fields.event.map(text) {
            Some(Some("depthUpdate")) => Channel::Book,
            Some(Some("bookTicker")) => Channel::Bbo,
            Some(Some("trade" | "aggTrade")) => Channel::Trades,
            Some(Some("serverShutdown")) => {
                out.events.push(MarketEvent::Shutdown);
                return Ok(());
            }
            Some(Some(_)) => return Ok(()),
            Some(None) => return Err(from_stream(Malformed::Field("e"))),
            // The one market message without `e` is the bookTicker of spot.
            None if fields.bid_qty.is_some() && fields.ask_qty.is_some() => Channel::Bbo,
            None => match stream.and_then(channel_of_stream) {
                Some(Channel::Bbo) => Channel::Bbo,
                Some(_) => return Err(from_stream(Malformed::Field("e"))),
                None => {
                    self.read_control(fields, stream, out);
                    return Ok(());
                }
            },
        };
        let Some(symbol) = fields.symbol.and_then(text) else {
            return Err(from_stream(Malformed::Field("s")));
        };
        let Some(&instrument) = self.ids.get(symbol) else {
            return Ok(());
        };
        match channel {
            Channel::Book => self.read_depth(instrument, fields, out),
            Channel::Bbo => read_bbo(instrument, fields, out),
            Channel::Trades => read_trade(instrument, fields, out),
        }
        .map_err(|what| DecodeError { about: Some((instrument, channel)), what })
    }

    fn read_depth(
        &self,
        instrument: InstrumentId,
        fields: &Fields<'_, '_>,
        out: &mut EventBatch,
    ) -> Result<(), Malformed> {
        let last = number(fields.last_id, "u")?;
        let follows = match self.market.link {
            Link::FirstId => {
                number(fields.first_id, "U")?.checked_sub(1).ok_or(Malformed::Field("U"))?
            }
            Link::PreviousLastId => number(fields.previous_last_id, "pu")?,
        };
        let continuity = Continuity { follows, last };
        let event = BookEvent {
            te_ns: fields.te_ns()?,
            ..read_sides(instrument, ("b", fields.bids), ("a", fields.asks), continuity, out)?
        };
        out.events.push(MarketEvent::Book(event));
        Ok(())
    }

    /// Reads what is not about the market: acks, refusals and the notice of a shutdown.
    fn read_control(&self, fields: &Fields<'_, '_>, stream: Option<&str>, out: &mut EventBatch) {
        if stream == Some("!serverShutdown") {
            out.events.push(MarketEvent::Shutdown);
        } else if let Some(message) = fields.refusal() {
            let message = message.to_owned();
            out.events.push(MarketEvent::Refused { instrument: None, message });
        } else if let (Some([Node::Static(StaticNode::Null), ..]), Ok(id)) =
            (fields.result, number(fields.request_id, "id"))
        {
            out.events.extend(self.subscribed_by(id));
        }
    }

    /// What the request `id` of [`VenueDecoder::subscribe`] asked for: ids count from one.
    fn subscribed_by(&self, id: u64) -> impl Iterator<Item = MarketEvent> {
        let requests_before = usize::try_from(id).ok().and_then(|id| id.checked_sub(1));
        let skip = requests_before.and_then(|n| n.checked_mul(STREAMS_PER_REQUEST_MAX));
        self.instruments
            .iter()
            .flat_map(|(id, _)| CHANNELS.map(|channel| (*id, channel)))
            .skip(skip.unwrap_or(usize::MAX))
            .take(STREAMS_PER_REQUEST_MAX)
            .map(|(instrument, channel)| MarketEvent::Subscribed { instrument, channel })
    }

    fn symbol(&self, instrument: InstrumentId) -> &str {
        let found = self.instruments.iter().find(|(id, _)| *id == instrument);
        found.map_or("", |(_, symbol)| symbol)
    }

    /// What a stream name is about. Slow, for errors only: it compares with every symbol.
    fn subject_of_stream(&self, stream: Option<&str>) -> Option<(InstrumentId, Channel)> {
        let stream = stream?;
        let (symbol, _) = stream.split_once('@')?;
        let found = self.instruments.iter().find(|(_, s)| s.eq_ignore_ascii_case(symbol))?;
        Some((found.0, channel_of_stream(stream)?))
    }

    /// What a message is about that is no JSON: its stream or its symbol may be readable still.
    fn subject_of_broken(&self, message: &[u8]) -> Option<(InstrumentId, Channel)> {
        if let Some(stream) = quoted_after(message, b"\"stream\":\"") {
            return self.subject_of_stream(Some(stream));
        }
        let channel = match quoted_after(message, b"\"e\":\"")? {
            "depthUpdate" => Channel::Book,
            "bookTicker" => Channel::Bbo,
            "trade" | "aggTrade" => Channel::Trades,
            _ => return None,
        };
        let symbol = quoted_after(message, b"\"s\":\"")?;
        Some((*self.ids.get(symbol)?, channel))
    }
}

/// The fields that any message of ours has, as they stand on the tape. One letter means different
/// things in different messages (`a`: asks, best ask, id), so that only the reader of the message
/// can tell the type.
#[derive(Default)]
struct Fields<'t, 'm> {
    stream: Option<&'t [Node<'m>]>,
    data: Option<&'t [Node<'m>]>,
    event: Option<&'t [Node<'m>]>,
    event_time: Option<&'t [Node<'m>]>,
    transaction_time: Option<&'t [Node<'m>]>,
    symbol: Option<&'t [Node<'m>]>,
    first_id: Option<&'t [Node<'m>]>,
    last_id: Option<&'t [Node<'m>]>,
    previous_last_id: Option<&'t [Node<'m>]>,
    /// `b`: bids of a depth event, best bid of a ticker.
    bids: Option<&'t [Node<'m>]>,
    bid_qty: Option<&'t [Node<'m>]>,
    /// `a`: asks of a depth event, best ask of a ticker, id of an aggregate trade.
    asks: Option<&'t [Node<'m>]>,
    ask_qty: Option<&'t [Node<'m>]>,
    trade_id: Option<&'t [Node<'m>]>,
    px: Option<&'t [Node<'m>]>,
    qty: Option<&'t [Node<'m>]>,
    buyer_is_maker: Option<&'t [Node<'m>]>,
    image_last_id: Option<&'t [Node<'m>]>,
    image_bids: Option<&'t [Node<'m>]>,
    image_asks: Option<&'t [Node<'m>]>,
    result: Option<&'t [Node<'m>]>,
    request_id: Option<&'t [Node<'m>]>,
    error: Option<&'t [Node<'m>]>,
    code: Option<&'t [Node<'m>]>,
    msg: Option<&'t [Node<'m>]>,
}

impl<'t, 'm> Fields<'t, 'm> {
    /// Finds the fields of an object, in whatever order and among whatever others.
    fn of(nodes: &'t [Node<'m>], name: &'static str) -> Result<Self, Malformed> {
        let Some((&Node::Object { len, .. }, mut rest)) = nodes.split_first() else {
            return Err(Malformed::Field(name));
        };
        let mut fields = Self::default();
        for _ in 0..len {
            let [Node::String(key), value @ ..] = rest else {
                return Err(Malformed::Field(name));
            };
            let (value, after) = split_value(value).ok_or(Malformed::Field(name))?;
            rest = after;
            let field = match key.as_bytes() {
                b"stream" => &mut fields.stream,
                b"data" => &mut fields.data,
                b"e" => &mut fields.event,
                b"E" => &mut fields.event_time,
                b"T" => &mut fields.transaction_time,
                b"s" => &mut fields.symbol,
                b"U" => &mut fields.first_id,
                b"u" => &mut fields.last_id,
                b"pu" => &mut fields.previous_last_id,
                b"b" => &mut fields.bids,
                b"B" => &mut fields.bid_qty,
                b"a" => &mut fields.asks,
                b"A" => &mut fields.ask_qty,
                b"t" => &mut fields.trade_id,
                b"p" => &mut fields.px,
                b"q" => &mut fields.qty,
                b"m" => &mut fields.buyer_is_maker,
                b"lastUpdateId" => &mut fields.image_last_id,
                b"bids" => &mut fields.image_bids,
                b"asks" => &mut fields.image_asks,
                b"result" => &mut fields.result,
                b"id" => &mut fields.request_id,
                b"error" => &mut fields.error,
                b"code" => &mut fields.code,
                b"msg" => &mut fields.msg,
                _ => continue,
            };
            *field = Some(value);
        }
        Ok(fields)
    }

    /// The time of the transaction, else of the event; 0 where the message has neither.
    fn te_ns(&self) -> Result<Nanos, Malformed> {
        let (time, name) = match (self.transaction_time, self.event_time) {
            (None, None) => return Ok(0),
            (None, event) => (number(event, "E")?, "E"),
            (transaction, _) => (number(transaction, "T")?, "T"),
        };
        let unit_ns = if time >= MICROSECONDS_FROM { 1_000 } else { 1_000_000 };
        time.checked_mul(unit_ns).ok_or(Malformed::Field(name))
    }

    /// The venue's words, if this refuses a request: `{"code":2,"msg":"…"}`, which some hosts wrap
    /// as `{"error":{…},"id":1}`.
    fn refusal(&self) -> Option<&'m str> {
        if let Some(error) = self.error {
            return Fields::of(error, "error").ok()?.msg.and_then(text);
        }
        self.code.and(self.msg).and_then(text)
    }
}

/// Splits the first value, with all that is in it, from what follows.
fn split_value<'t, 'm>(nodes: &'t [Node<'m>]) -> Option<(&'t [Node<'m>], &'t [Node<'m>])> {
    let inner = match nodes.first()? {
        Node::Array { count, .. } | Node::Object { count, .. } => *count,
        Node::String(_) | Node::Static(_) => 0,
    };
    nodes.split_at_checked(inner + 1)
}

fn text<'m>(nodes: &[Node<'m>]) -> Option<&'m str> {
    match nodes.first() {
        Some(Node::String(text)) => Some(text),
        _ => None,
    }
}

fn number(nodes: Option<&[Node<'_>]>, name: &'static str) -> Result<u64, Malformed> {
    match nodes.and_then(<[_]>::first) {
        Some(Node::Static(StaticNode::U64(number))) => Ok(*number),
        Some(Node::Static(StaticNode::I64(number))) => {
            u64::try_from(*number).map_err(|_| Malformed::Field(name))
        }
        _ => Err(Malformed::Field(name)),
    }
}

fn decimal(nodes: Option<&[Node<'_>]>, name: &'static str) -> Result<Decimal, Malformed> {
    let text = nodes.and_then(text).ok_or(Malformed::Field(name))?;
    Decimal::parse(text.as_bytes()).map_err(|error| Malformed::Number(name, error))
}

type Side<'t, 'm> = (&'static str, Option<&'t [Node<'m>]>);

/// Reads both sides of a depth event; time and kind are the caller's.
fn read_sides(
    instrument: InstrumentId,
    bids: Side<'_, '_>,
    asks: Side<'_, '_>,
    continuity: Continuity,
    out: &mut EventBatch,
) -> Result<BookEvent, Malformed> {
    let mut digits = Digits::default();
    let start = out.levels.len();
    read_levels(bids, &mut digits, &mut out.levels)?;
    let middle = out.levels.len();
    read_levels(asks, &mut digits, &mut out.levels)?;
    Ok(BookEvent {
        instrument,
        kind: BookKind::Delta,
        bids: start..middle,
        asks: middle..out.levels.len(),
        continuity: Some(continuity),
        checksum: None,
        te_ns: 0,
        px_digits: digits.px,
        qty_digits: digits.qty,
        cut_at: None,
    })
}

/// Most digits behind the point so far.
#[derive(Default)]
struct Digits {
    px: u8,
    qty: u8,
}

/// Reads `[["0.0024","10"],…]`; an element beyond the two is no business of ours.
fn read_levels(
    (name, nodes): Side<'_, '_>,
    digits: &mut Digits,
    levels: &mut Vec<LevelChange>,
) -> Result<(), Malformed> {
    let Some([Node::Array { len, .. }, rest @ ..]) = nodes else {
        return Err(Malformed::Field(name));
    };
    levels.reserve(*len);
    let mut rest = rest;
    while let [Node::Array { len: 2.., count }, Node::String(px), Node::String(qty), ..] = rest {
        levels.push(LevelChange {
            px: measured(px, &mut digits.px).map_err(|error| Malformed::Number(name, error))?,
            qty: measured(qty, &mut digits.qty).map_err(|error| Malformed::Number(name, error))?,
        });
        rest = rest.get(count + 1..).unwrap_or_default();
    }
    if rest.is_empty() { Ok(()) } else { Err(Malformed::Field(name)) }
}

/// Reads a decimal and remembers how fine it is written.
#[inline]
fn measured(text: &str, digits: &mut u8) -> Result<Decimal, DecimalError> {
    let value = Decimal::parse(text.as_bytes())?;
    // An exponent reaches below the digits that are written.
    *digits = (*digits).max(fraction_digits(text.as_bytes())).max(value.scale);
    Ok(value)
}

fn read_bbo(
    instrument: InstrumentId,
    fields: &Fields<'_, '_>,
    out: &mut EventBatch,
) -> Result<(), Malformed> {
    out.events.push(MarketEvent::Bbo(BboEvent {
        instrument,
        bid: LevelChange { px: decimal(fields.bids, "b")?, qty: decimal(fields.bid_qty, "B")? },
        ask: LevelChange { px: decimal(fields.asks, "a")?, qty: decimal(fields.ask_qty, "A")? },
        sequence: Some(number(fields.last_id, "u")?),
        te_ns: fields.te_ns()?,
    }));
    Ok(())
}

fn read_trade(
    instrument: InstrumentId,
    fields: &Fields<'_, '_>,
    out: &mut EventBatch,
) -> Result<(), Malformed> {
    // A trade has `t`. An aggregate trade has `a` and counts by itself; its `f` and `l` are the
    // trades in it.
    let id = match fields.trade_id {
        None => number(fields.asks, "a")?,
        id => number(id, "t")?,
    };
    // `m`: "Is the buyer the market maker?" Then a seller crossed the spread.
    let aggressor = match fields.buyer_is_maker {
        Some([Node::Static(StaticNode::Bool(true)), ..]) => Aggressor::Sell,
        Some([Node::Static(StaticNode::Bool(false)), ..]) => Aggressor::Buy,
        _ => return Err(Malformed::Field("m")),
    };
    let start = out.trades.len();
    out.trades.push(TradePrint {
        te_ns: fields.te_ns()?,
        px: decimal(fields.px, "p")?,
        qty: decimal(fields.qty, "q")?,
        aggressor,
        id: TradeId::Number(id),
    });
    out.events.push(MarketEvent::Trades(TradesEvent {
        instrument,
        trades: start..out.trades.len(),
        consecutive_ids: true,
    }));
    Ok(())
}

/// Reads the body of a REST depth image that was asked for with `limit=cut_at`. A side that has
/// fewer levels than that is complete.
fn read_image(
    instrument: InstrumentId,
    cut_at: usize,
    body: &mut [u8],
    out: &mut EventBatch,
) -> Result<(), Malformed> {
    let kept = out.levels.len();
    let tape = simd_json::to_tape(body).map_err(|_| Malformed::NotJson)?;
    let image = Fields::of(&tape.0, "image").and_then(|fields| {
        let last = number(fields.image_last_id, "lastUpdateId")?;
        let (bids, asks) = (("bids", fields.image_bids), ("asks", fields.image_asks));
        let continuity = Continuity { follows: last, last };
        Ok(BookEvent {
            kind: BookKind::Image,
            te_ns: fields.te_ns()?,
            cut_at: Some(cut_at),
            ..read_sides(instrument, bids, asks, continuity, out)?
        })
    });
    match image {
        Ok(image) => {
            out.events.push(MarketEvent::Book(image));
            Ok(())
        }
        Err(malformed) => {
            out.levels.truncate(kept);
            Err(malformed)
        }
    }
}

/// The channel that a stream name is about: `btcusdt@depth@100ms`, whatever its interval.
fn channel_of_stream(stream: &str) -> Option<Channel> {
    let (_, name) = stream.split_once('@')?;
    match name.split_once('@').map_or(name, |(name, _interval)| name) {
        "depth" => Some(Channel::Book),
        "bookTicker" => Some(Channel::Bbo),
        "trade" | "aggTrade" => Some(Channel::Trades),
        _ => None,
    }
}

/// A symbol as a query may carry it: some of the venue's are not ASCII.
fn percent_encoded(symbol: &str) -> String {
    let mut encoded = String::with_capacity(symbol.len());
    for byte in symbol.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[derive(Deserialize)]
struct ExchangeInfo<'a> {
    #[serde(borrow)]
    symbols: Vec<&'a RawValue>,
}

/// One symbol of `exchangeInfo`, as far as it matters here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SymbolInfo {
    symbol: String,
    // COIN-M says `contractStatus`.
    #[serde(alias = "contractStatus")]
    status: String,
    base_asset: String,
    quote_asset: String,
    // Futures only.
    contract_type: Option<String>,
    filters: Vec<Filter>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Filter {
    filter_type: String,
    tick_size: Option<String>,
    step_size: Option<String>,
}

impl SymbolInfo {
    fn listing(&self) -> Option<Listing> {
        let kind = match self.contract_type.as_deref() {
            None => "spot",
            Some(contract) if contract.ends_with("PERPETUAL") => "perpetual",
            Some(_) => "future",
        };
        let step = |filter: &str, size: fn(&Filter) -> Option<&String>| {
            let filter = self.filters.iter().find(|f| f.filter_type == filter)?;
            let step = Decimal::parse(size(filter)?.as_bytes()).ok()?;
            // "tickSize … is disabled" by a zero, which then tells nothing about digits.
            (!step.is_zero()).then_some(step)
        };
        (self.status == "TRADING").then_some(())?;
        Some(Listing {
            native: self.symbol.as_str().into(),
            base: self.base_asset.as_str().into(),
            quote: self.quote_asset.as_str().into(),
            kind: kind.into(),
            tick: step("PRICE_FILTER", |f| f.tick_size.as_ref())?,
            lot: step("LOT_SIZE", |f| f.step_size.as_ref())?,
        })
    }
}

/// Reads `exchangeInfo` of any of the markets: every symbol that trades now.
///
/// # Errors
/// [`Malformed`] when the body holds no list of symbols; a symbol that cannot be read is left out.
pub fn listings(body: &[u8]) -> Result<Vec<Listing>, Malformed> {
    let info: ExchangeInfo<'_> = serde_json::from_slice(body).map_err(|error| {
        if error.is_data() { Malformed::Field("symbols") } else { Malformed::NotJson }
    })?;
    let symbols = info.symbols.iter().filter_map(|raw| serde_json::from_str(raw.get()).ok());
    Ok(symbols.filter_map(|symbol: SymbolInfo| symbol.listing()).collect())
}
