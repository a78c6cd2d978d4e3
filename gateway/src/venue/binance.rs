//! Binance: spot, USD-M and COIN-M futures, whose messages are the same but for the small table
//! `Market`. The built-in simulator speaks the spot dialect.
//!
//! Turns stream messages and REST images into market events. The stream half is called by the feed
//! thread for every message, the image half by the REST thread. It must never allocate per event,
//! block, or guess: what it cannot read exactly is an error.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;
use simd_json::{Node, StaticNode};
use tickfan_core::decimal::Decimal;
use tickfan_core::market::{
    Aggressor, BboEvent, BookEvent, BookKind, Channel, Continuity, EventBatch, InstrumentId,
    LevelChange, Listing, MarketEvent, Nanos, TradeId, TradeNumbering, TradePrint, TradesEvent,
    Trading, Venue,
};

use super::tape::{Parser, decimal, entries, field, number, read_sides, text};
use super::{
    DecodeError, Endpoints, ImageDecoder, Malformed, Resync, Subscription, TradeStream,
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
    /// What an image of up to so many levels weighs.
    depth_weights: [(u32, u32); 4],
    depth_stream: &'static str,
    trades: TradeStream,
    link: Link,
    silence_ns: Nanos,
}

const SPOT: Market = Market {
    endpoints: Endpoints {
        stream: "wss://stream.binance.com:9443",
        rest: "https://api.binance.com",
        instruments_paths: &["/api/v3/exchangeInfo"],
        instruments_weight: 20,
        // 6,000 of request weight a minute.
        rest_weight_per_minute: 3_000,
        // 1,024 streams on a connection, three an instrument.
        instruments_per_connection: 340,
        // Five messages a second, pongs among them.
        text_spacing_ns: SECOND_NS / 4,
        texts_at_once: 1,
        // 300 connections in five minutes from one address.
        connect_spacing_ns: SECOND_NS,
        // "A single connection is only valid for 24 hours."
        connection_life_ns: Some(24 * 60 * 60 * SECOND_NS),
    },
    depth_path: "/api/v3/depth",
    depth_limit_max: 5000,
    depth_weights: [(100, 5), (500, 25), (1000, 50), (5000, 250)],
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
        instruments_paths: &["/fapi/v1/exchangeInfo"],
        instruments_weight: 1,
        // 2,400 of request weight a minute.
        rest_weight_per_minute: 1_200,
        // Ten messages a second, pongs among them.
        text_spacing_ns: SECOND_NS / 8,
        ..SPOT.endpoints
    },
    depth_path: "/fapi/v1/depth",
    depth_limit_max: 1000,
    depth_weights: [(50, 2), (100, 5), (500, 10), (1000, 20)],
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
        instruments_paths: &["/dapi/v1/exchangeInfo"],
        ..USDM.endpoints
    },
    depth_path: "/dapi/v1/depth",
    ..USDM
};

/// The simulator has no address of its own: it is told where it listens. Nor has it anything to be
/// protected from: hundreds of its symbols are to be live at once.
const SIM: Market = Market {
    endpoints: Endpoints {
        stream: "",
        rest: "",
        rest_weight_per_minute: 60_000 * 250,
        connect_spacing_ns: 0,
        connection_life_ns: None,
        ..SPOT.endpoints
    },
    ..SPOT
};

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
    parser: Parser,
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
            parser: Parser::default(),
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
        let reader = &self.reader;
        self.parser.decode(
            message,
            out,
            |nodes, out| reader.read(nodes, out),
            || reader.subject_of_broken(message),
        )
    }

    fn image_decoder(&self) -> ImageDecoder {
        let cut_at = self.depth_limit as usize;
        Arc::new(move |instrument, body, out| read_image(instrument, cut_at, body, out))
    }

    fn image_weight(&self) -> u32 {
        let weights = &self.reader.market.depth_weights;
        let weight = weights.iter().find(|(levels, _)| self.depth_limit <= *levels);
        weight.unwrap_or(&weights[weights.len() - 1]).1
    }

    fn has_bbo_stream(&self) -> bool {
        true
    }

    fn fetches_images(&self) -> bool {
        true
    }

    fn silence_ns(&self) -> Nanos {
        self.reader.market.silence_ns
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
        let stream = field(nodes, "stream").and_then(text);
        let (payload, name) = match field(nodes, "data") {
            Some(data) => (data, "data"),
            None => (nodes, "message"),
        };
        let fields = Fields::of(payload, name)
            .map_err(|what| DecodeError { about: self.subject_of_stream(stream), what })?;
        self.read_payload(payload, &fields, stream, out)
    }

    fn read_payload(
        &self,
        payload: &[Node<'_>],
        fields: &Fields<'_, '_>,
        stream: Option<&str>,
        out: &mut EventBatch,
    ) -> Result<(), DecodeError> {
        let from_stream = |what| DecodeError { about: self.subject_of_stream(stream), what };
        let channel = match fields.event.map(text) {
            Some(None) => return Err(from_stream(Malformed::Field("e"))),
            Some(Some("serverShutdown")) => {
                out.events.push(MarketEvent::Shutdown);
                return Ok(());
            }
            Some(Some(event)) => match channel_of_event(event) {
                Some(channel) => channel,
                None => return Ok(()),
            },
            // The one market message without `e` is the bookTicker of spot.
            None if fields.bid_qty.is_some() && fields.ask_qty.is_some() => Channel::Bbo,
            None => match stream.and_then(channel_of_stream) {
                Some(Channel::Bbo) => Channel::Bbo,
                Some(_) => return Err(from_stream(Malformed::Field("e"))),
                None => {
                    self.read_control(payload, stream, out);
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
            continuity: Some(continuity),
            te_ns: fields.te_ns()?,
            ..read_sides(instrument, ("b", fields.bids), ("a", fields.asks), out)?
        };
        out.events.push(MarketEvent::Book(event));
        Ok(())
    }

    /// Reads what is not about the market: acks, refusals and the notice of a shutdown.
    fn read_control(&self, payload: &[Node<'_>], stream: Option<&str>, out: &mut EventBatch) {
        if stream == Some("!serverShutdown") {
            out.events.push(MarketEvent::Shutdown);
        } else if let Some(message) = refusal(payload) {
            let request = number(field(payload, "id"), "id").ok();
            let mut refused: Vec<Option<InstrumentId>> = request
                .into_iter()
                .flat_map(|id| self.requested_by(id))
                .map(|(id, _)| Some(id))
                .collect();
            refused.dedup();
            if refused.is_empty() {
                refused.push(None);
            }
            out.events.extend(refused.into_iter().map(|instrument| MarketEvent::Refused {
                instrument,
                message: message.to_owned(),
            }));
        } else if let (Some([Node::Static(StaticNode::Null), ..]), Ok(id)) =
            (field(payload, "result"), number(field(payload, "id"), "id"))
        {
            let subscribed = self.requested_by(id);
            out.events.extend(
                subscribed
                    .map(|(instrument, channel)| MarketEvent::Subscribed { instrument, channel }),
            );
        }
    }

    /// What the request `id` of [`VenueDecoder::subscribe`] asked for: ids count from one.
    fn requested_by(&self, id: u64) -> impl Iterator<Item = (InstrumentId, Channel)> {
        let requests_before = usize::try_from(id).ok().and_then(|id| id.checked_sub(1));
        let skip = requests_before.and_then(|n| n.checked_mul(STREAMS_PER_REQUEST_MAX));
        self.instruments
            .iter()
            .flat_map(|(id, _)| CHANNELS.map(|channel| (*id, channel)))
            .skip(skip.unwrap_or(usize::MAX))
            .take(STREAMS_PER_REQUEST_MAX)
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
        let channel = channel_of_event(quoted_after(message, b"\"e\":\"")?)?;
        let symbol = quoted_after(message, b"\"s\":\"")?;
        Some((*self.ids.get(symbol)?, channel))
    }
}

/// The fields of the market messages, as they stand on the tape. One letter means different
/// things in different messages (`a`: asks, best ask, id), so that only the reader of the message
/// can tell the type.
#[derive(Default)]
struct Fields<'t, 'm> {
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
}

impl<'t, 'm> Fields<'t, 'm> {
    /// Finds the fields of an object, in whatever order and among whatever others.
    fn of(nodes: &'t [Node<'m>], name: &'static str) -> Result<Self, Malformed> {
        let mut fields = Self::default();
        for (key, value) in entries(nodes).ok_or(Malformed::Field(name))? {
            let field = match key.as_bytes() {
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
}

/// The venue's words, if this refuses a request: `{"code":2,"msg":"…"}`, which some hosts wrap as
/// `{"error":{…},"id":1}`.
fn refusal<'m>(payload: &[Node<'m>]) -> Option<&'m str> {
    let error = field(payload, "error").unwrap_or(payload);
    field(error, "code").and(field(error, "msg")).and_then(text)
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
        number: Some(id),
    });
    out.events.push(MarketEvent::Trades(TradesEvent {
        instrument,
        trades: start..out.trades.len(),
        numbering: TradeNumbering::Consecutive,
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
    let tape = simd_json::to_tape(body).map_err(|_| Malformed::NotJson)?;
    out.all_or_nothing(|out| {
        let fields = Fields::of(&tape.0, "image")?;
        let last = number(field(&tape.0, "lastUpdateId"), "lastUpdateId")?;
        let (bids, asks) = (("bids", field(&tape.0, "bids")), ("asks", field(&tape.0, "asks")));
        let image = BookEvent {
            kind: BookKind::Image,
            continuity: Some(Continuity { follows: last, last }),
            te_ns: fields.te_ns()?,
            cut_at: Some(cut_at),
            ..read_sides(instrument, bids, asks, out)?
        };
        out.events.push(MarketEvent::Book(image));
        Ok(())
    })
}

/// The channel that an event is about, by its `e`.
fn channel_of_event(event: &str) -> Option<Channel> {
    match event {
        "depthUpdate" => Some(Channel::Book),
        "bookTicker" => Some(Channel::Bbo),
        "trade" | "aggTrade" => Some(Channel::Trades),
        _ => None,
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
        let trading = match self.status.as_str() {
            "TRADING" => Trading::Open,
            "HALT" | "BREAK" | "AUCTION_MATCH" | "PRE_TRADING" | "POST_TRADING" | "END_OF_DAY" => {
                Trading::Halted
            }
            // Futures before their first day, and those that are being settled.
            _ => return None,
        };
        Some(Listing {
            native: self.symbol.as_str().into(),
            base: self.base_asset.as_str().into(),
            quote: self.quote_asset.as_str().into(),
            kind: kind.into(),
            tick: step("PRICE_FILTER", |f| f.tick_size.as_ref())?,
            lot: step("LOT_SIZE", |f| f.step_size.as_ref())?,
            trading,
        })
    }
}

/// Reads `exchangeInfo` of any of the markets: every symbol that trades, or did and may again.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::venue::testing::{self, damage, decimal, level, refusal, shown};
    use proptest::prelude::*;

    const BTC: InstrumentId = InstrumentId(7);
    const ETH: InstrumentId = InstrumentId(9);

    const DEPTH_SPOT: &str = r#"{"stream":"btcusdt@depth@100ms","data":{"e":"depthUpdate","E":1672515782136,"s":"BTCUSDT","U":157,"u":160,"b":[["0.0024","10"]],"a":[["0.0026","100.50"],["0.0027","0.00000000"]]}}"#;
    const DEPTH_FUTURES: &str = r#"{"stream":"btcusdt@depth@0ms","data":{"e":"depthUpdate","E":1723161256299,"T":1723161256298,"s":"BTCUSDT","ps":"BTCUSD","U":157,"u":160,"pu":149,"b":[],"a":[],"st":1}}"#;
    const BBO_SPOT: &str =
        r#"{"u":400900217,"s":"BTCUSDT","b":"25.35190000","B":"31.21","a":"25.3652","A":"0"}"#;
    const TRADE: &str = r#"{"e":"trade","E":1672515782136,"s":"BTCUSDT","t":12345,"p":"0.001","q":"100","T":1672515782135,"m":true,"M":true}"#;

    fn of(venue: Venue) -> Decoder {
        let instruments = vec![(BTC, "BTCUSDT".into()), (ETH, "ETHUSDT".into())];
        Decoder::new(venue, Subscription { instruments, depth: None, trades: None })
    }

    fn decoded(venue: Venue, message: &str) -> EventBatch {
        testing::decoded(&mut of(venue), message)
    }

    #[test]
    fn a_spot_depth_event_follows_the_update_before_its_first() {
        for venue in [Venue::BinanceSpot, Venue::Sim] {
            let out = decoded(venue, DEPTH_SPOT);
            let event = BookEvent {
                instrument: BTC,
                kind: BookKind::Delta,
                bids: 0..1,
                asks: 1..3,
                continuity: Some(Continuity { follows: 156, last: 160 }),
                checksum: None,
                te_ns: 1_672_515_782_136_000_000,
                px_digits: 4,
                qty_digits: 2,
                cut_at: None,
            };
            assert_eq!(out.events, [MarketEvent::Book(event)]);
            assert_eq!(
                out.levels,
                [level("0.0024", "10"), level("0.0026", "100.5"), level("0.0027", "0")]
            );
        }
    }

    #[test]
    fn a_futures_depth_event_follows_the_event_before_it() {
        for venue in [Venue::BinanceUsdm, Venue::BinanceCoinm] {
            let out = decoded(venue, DEPTH_FUTURES);
            let [MarketEvent::Book(event)] = &out.events[..] else { panic!("{:?}", out.events) };
            assert_eq!(event.continuity, Some(Continuity { follows: 149, last: 160 }));
            assert_eq!(event.te_ns, 1_723_161_256_298_000_000);
            assert_eq!((event.bids.clone(), event.asks.clone()), (0..0, 0..0));
        }
    }

    #[test]
    fn a_book_ticker_is_a_bbo_with_and_without_its_event_name() {
        let spot = BboEvent {
            instrument: BTC,
            bid: level("25.3519", "31.21"),
            ask: level("25.3652", "0"),
            sequence: Some(400_900_217),
            te_ns: 0,
        };
        let futures = BBO_SPOT.replacen('{', r#"{"e":"bookTicker","T":5,"E":6,"#, 1);
        assert_eq!(
            decoded(Venue::BinanceUsdm, &futures).events,
            [MarketEvent::Bbo(BboEvent { te_ns: 5_000_000, ..spot.clone() })]
        );
        assert_eq!(decoded(Venue::BinanceSpot, BBO_SPOT).events, [MarketEvent::Bbo(spot)]);
    }

    #[test]
    fn a_trade_of_either_stream_names_the_aggressor() {
        let print = TradePrint {
            te_ns: 1_672_515_782_135_000_000,
            px: decimal("0.001"),
            qty: decimal("100"),
            aggressor: Aggressor::Sell,
            id: TradeId::Number(12345),
            number: Some(12345),
        };
        let event =
            TradesEvent { instrument: BTC, trades: 0..1, numbering: TradeNumbering::Consecutive };
        let out = decoded(Venue::BinanceSpot, TRADE);
        assert_eq!(out.events, [MarketEvent::Trades(event.clone())]);
        assert_eq!(out.trades[0], print);

        let aggregate = r#"{"stream":"btcusdt@aggTrade","data":{"e":"aggTrade","E":2,"a":77,"s":"BTCUSDT","p":"0.001","q":"100","f":12,"l":19,"T":1672515782135,"m":false}}"#;
        let out = decoded(Venue::BinanceUsdm, aggregate);
        assert_eq!(out.events, [MarketEvent::Trades(event)]);
        let buy = TradePrint {
            aggressor: Aggressor::Buy,
            id: TradeId::Number(77),
            number: Some(77),
            ..print
        };
        assert_eq!(out.trades, [buy]);
    }

    #[test]
    fn microseconds_are_told_from_milliseconds() {
        let out = decoded(Venue::BinanceSpot, &TRADE.replace("1672515782135", "1672515782135123"));
        assert_eq!(out.trades[0].te_ns, 1_672_515_782_135_123_000);
    }

    #[test]
    fn the_order_of_fields_does_not_matter() {
        let swapped = r#"{"data":{"a":[["0.0026","100.50"],["0.0027","0.00000000"]],"b":[["0.0024","10"]],"u":160,"U":157,"s":"BTCUSDT","new":{"s":"ETHUSDT","deep":[[1],[{}]]},"E":1672515782136,"e":"depthUpdate"},"stream":"btcusdt@depth@100ms"}"#;
        let (one, other) =
            (decoded(Venue::BinanceSpot, DEPTH_SPOT), decoded(Venue::BinanceSpot, swapped));
        assert_eq!(one.events, other.events);
        assert_eq!(one.levels, other.levels);
    }

    #[test]
    fn control_messages_become_what_the_session_needs() {
        let refusal = |instrument, message: &str| MarketEvent::Refused {
            instrument,
            message: message.to_owned(),
        };
        let refused = |message: &str| vec![refusal(None, message)];
        let all_refused = |message: &str| {
            [BTC, ETH].map(|instrument| refusal(Some(instrument), message)).to_vec()
        };
        let subscribed: Vec<MarketEvent> = [BTC, ETH]
            .into_iter()
            .flat_map(|instrument| {
                CHANNELS.map(|channel| MarketEvent::Subscribed { instrument, channel })
            })
            .collect();
        for (message, expected) in [
            (r#"{"result":null,"id":1}"#, subscribed),
            (r#"{"result":null,"id":2}"#, vec![]),
            (r#"{"result":null,"id":0}"#, vec![]),
            (r#"{"result":null,"id":18446744073709551615}"#, vec![]),
            (r#"{"result":["btcusdt@trade"],"id":1}"#, vec![]),
            (r#"{"code":2,"msg":"Invalid request: x"}"#, refused("Invalid request: x")),
            (r#"{"error":{"code":3,"msg":"Invalid JSON"},"id":2}"#, refused("Invalid JSON")),
            (r#"{"error":{"code":2,"msg":"No"},"id":1}"#, all_refused("No")),
            (r#"{"code":2,"msg":"No","id":1}"#, all_refused("No")),
            (r#"{"e":"serverShutdown","E":1}"#, vec![MarketEvent::Shutdown]),
            (r#"{"stream":"!serverShutdown","data":{"E":1}}"#, vec![MarketEvent::Shutdown]),
            (r#"{"stream":"btcusdt@kline_1m","data":{"e":"kline","s":"BTCUSDT","k":{}}}"#, vec![]),
            (r#"{"stream":"btcusdt@depth5","data":{"lastUpdateId":1,"bids":[]}}"#, vec![]),
            (r#"{"e":"trade","s":"NOTASKED","t":"nonsense"}"#, vec![]),
            ("{}", vec![]),
        ] {
            assert_eq!(decoded(Venue::BinanceSpot, message).events, expected, "{message}");
        }
    }

    #[test]
    fn a_malformed_message_tells_what_it_was_about_and_leaves_nothing() {
        use tickfan_core::decimal::DecimalError::{Malformed as NoNumber, Overflow};
        const BOOK: Option<(InstrumentId, Channel)> = Some((BTC, Channel::Book));
        const BBO: Option<(InstrumentId, Channel)> = Some((BTC, Channel::Bbo));
        const TRADES: Option<(InstrumentId, Channel)> = Some((BTC, Channel::Trades));
        let field = Malformed::Field;
        let number = Malformed::Number;
        let deep = "[".repeat(100_000);
        let nonsense = "\u{0}x\"\\{[".repeat(170_000);
        let digits = "9".repeat(40);
        let huge = TRADE.replace("0.001", &digits);
        let huge_id = TRADE.replace("12345", &digits);
        let in_levels = |old: &str, new: &str| DEPTH_SPOT.replace(old, new);
        for (message, about, what) in [
            (in_levels(r#""u":160,"#, ""), BOOK, field("u")),
            (in_levels(r#""U":157"#, r#""U":"157""#), BOOK, field("U")),
            (in_levels(r#""U":157"#, r#""U":0"#), BOOK, field("U")),
            (in_levels(r#""u":160"#, r#""u":-160"#), BOOK, field("u")),
            (in_levels(r#""e":"depthUpdate","#, ""), BOOK, field("e")),
            (in_levels(r#""e":"depthUpdate""#, r#""e":1"#), BOOK, field("e")),
            (in_levels(r#""s":"BTCUSDT","#, ""), BOOK, field("s")),
            (in_levels(r#""a":["#, r#""x":["#), BOOK, field("a")),
            (in_levels(r#"["0.0026","100.50"]"#, r#"["0.0026"]"#), BOOK, field("a")),
            (in_levels(r#"["0.0026","100.50"]"#, r#"["0.0026",100.5]"#), BOOK, field("a")),
            (in_levels(r#"["0.0026","100.50"]"#, "7"), BOOK, field("a")),
            (in_levels("0.0027", ""), BOOK, number("a", NoNumber)),
            (in_levels("0.0024", "1e40"), BOOK, number("b", Overflow)),
            (in_levels("0.0024", &digits), BOOK, number("b", Overflow)),
            (in_levels("1672515782136", r#""soon""#), BOOK, field("E")),
            (in_levels("1672515782136", "99999999999999999"), BOOK, field("E")),
            (DEPTH_FUTURES.replace(r#""data":{"#, r#""data":[{"#), BOOK, Malformed::NotJson),
            (r#"{"stream":"btcusdt@depth","data":[]}"#.to_owned(), BOOK, field("data")),
            (in_levels("]]}}", "]"), BOOK, Malformed::NotJson),
            (DEPTH_SPOT[38..].replace('}', ""), BOOK, Malformed::NotJson),
            (BBO_SPOT.replace(r#""31.21""#, "31.21"), BBO, field("B")),
            (BBO_SPOT.replace("25.3652", "NaN"), BBO, number("a", NoNumber)),
            (BBO_SPOT.replace('}', ""), None, Malformed::NotJson),
            (
                r#"{"stream":"btcusdt@bookTicker","data":{"s":"BTCUSDT"}}"#.to_owned(),
                BBO,
                field("b"),
            ),
            (TRADE.replace("true", "1"), TRADES, field("m")),
            (TRADE.replace(r#""t":12345,"#, ""), TRADES, field("a")),
            (TRADE.replace('}', ""), TRADES, Malformed::NotJson),
            (TRADE.replace("12345", "1.5"), TRADES, field("t")),
            (huge, TRADES, number("p", Overflow)),
            // The parser itself refuses an integer beyond 64 bits.
            (huge_id, TRADES, Malformed::NotJson),
            (String::new(), None, Malformed::NotJson),
            ("[]".to_owned(), None, field("message")),
            ("null".to_owned(), None, field("message")),
            (deep, None, Malformed::NotJson),
            (nonsense, None, Malformed::NotJson),
        ] {
            let mut decoder = of(Venue::BinanceSpot);
            let error = refusal(&mut decoder, &[DEPTH_SPOT, TRADE], &message);
            assert_eq!(error, DecodeError { about, what }, "{}", shown(&message));
            testing::decoded(&mut decoder, BBO_SPOT);
        }
    }

    #[test]
    fn subscriptions_are_split_and_their_acks_name_them() {
        let instruments: Vec<_> =
            (0..100).map(|i| (InstrumentId(i), format!("C{i}USDT").into())).collect();
        let subscription = Subscription { instruments, depth: None, trades: None };
        let mut decoder = Decoder::new(Venue::BinanceUsdm, subscription);
        let requests: Vec<serde_json::Value> =
            decoder.subscribe().iter().map(|text| serde_json::from_str(text).unwrap()).collect();
        assert_eq!(requests.len(), 2);
        assert_eq!(requests[0]["method"], "SUBSCRIBE");
        assert_eq!(requests[0]["params"].as_array().unwrap().len(), 200);
        assert_eq!(requests[0]["params"][0], "c0usdt@depth@0ms");
        assert_eq!(requests[0]["params"][1], "c0usdt@bookTicker");
        assert_eq!(requests[1]["params"][0], "c66usdt@aggTrade");
        assert_eq!(requests[1]["id"], 2);

        let mut out = EventBatch::default();
        decoder.decode(&mut br#"{"id":2,"result":null}"#.to_vec(), &mut out).unwrap();
        assert_eq!(out.events.len(), 100);
        let first =
            MarketEvent::Subscribed { instrument: InstrumentId(66), channel: Channel::Trades };
        assert_eq!(out.events[0], first);
    }

    #[test]
    fn images_are_asked_for_as_deep_as_the_market_allows() {
        for (venue, depth, expected) in [
            (Venue::BinanceSpot, None, "/api/v3/depth?symbol=BTCUSDT&limit=5000"),
            (Venue::BinanceSpot, Some(600), "/api/v3/depth?symbol=BTCUSDT&limit=1000"),
            (Venue::BinanceUsdm, None, "/fapi/v1/depth?symbol=BTCUSDT&limit=1000"),
            (Venue::BinanceCoinm, Some(9999), "/dapi/v1/depth?symbol=BTCUSDT&limit=1000"),
            (Venue::Sim, Some(1), "/api/v3/depth?symbol=BTCUSDT&limit=5"),
        ] {
            let instruments = vec![(BTC, "BTCUSDT".into())];
            let mut decoder =
                Decoder::new(venue, Subscription { instruments, depth, trades: None });
            assert_eq!(decoder.resync(BTC, true), Resync::Rest(expected.to_owned()));
        }
        assert_eq!(percent_encoded("币_A"), "%E5%B8%81_A");
    }

    #[test]
    fn a_rest_image_carries_its_id_and_where_it_was_cut() {
        let image = of(Venue::BinanceUsdm).image_decoder();
        let body = r#"{"lastUpdateId":1027024,"E":3,"T":2,"bids":[["4.00","431"]],"asks":[]}"#;
        let mut out = EventBatch::default();
        image(ETH, &mut body.as_bytes().to_vec(), &mut out).unwrap();
        let event = BookEvent {
            instrument: ETH,
            kind: BookKind::Image,
            bids: 0..1,
            asks: 1..1,
            continuity: Some(Continuity { follows: 1_027_024, last: 1_027_024 }),
            checksum: None,
            te_ns: 2_000_000,
            px_digits: 2,
            qty_digits: 0,
            cut_at: Some(1000),
        };
        assert_eq!(out.events, [MarketEvent::Book(event)]);
        for (body, what) in [
            (body.replace("lastUpdateId", "id"), Malformed::Field("lastUpdateId")),
            (body.replace(r#""asks":[]"#, r#""asks":["x"]"#), Malformed::Field("asks")),
            (r#"{"code":-1121,"msg":"Invalid symbol."}"#.into(), Malformed::Field("lastUpdateId")),
            ("[]".into(), Malformed::Field("image")),
            ("<html>".into(), Malformed::NotJson),
        ] {
            assert_eq!(image(ETH, &mut body.into_bytes(), &mut out), Err(what));
            assert_eq!((out.events.len(), out.levels.len()), (1, 1));
        }
    }

    #[test]
    fn an_image_weighs_what_the_venue_counts_for_its_depth() {
        for (venue, depth, weight) in [
            (Venue::BinanceSpot, None, 250),
            (Venue::BinanceSpot, Some(1_001), 250),
            (Venue::BinanceSpot, Some(1_000), 50),
            (Venue::BinanceSpot, Some(500), 25),
            (Venue::BinanceSpot, Some(100), 5),
            (Venue::BinanceSpot, Some(5), 5),
            (Venue::BinanceUsdm, None, 20),
            (Venue::BinanceUsdm, Some(500), 10),
            (Venue::BinanceCoinm, Some(100), 5),
            (Venue::BinanceCoinm, Some(50), 2),
        ] {
            let decoder =
                Decoder::new(venue, Subscription { instruments: Vec::new(), depth, trades: None });
            assert_eq!(decoder.image_weight(), weight, "{venue:?} {depth:?}");
        }
    }

    #[test]
    fn listings_are_the_symbols_that_trade_or_are_halted() {
        let filters = r#""filters":[{"filterType":"PRICE_FILTER","tickSize":"0.10000000"},{"filterType":"LOT_SIZE","stepSize":"0.00100000"}]"#;
        let symbol = |fields: &str| {
            format!(r#"{{"baseAsset":"BTC","quoteAsset":"USDT",{filters},{fields}}}"#)
        };
        let body = format!(
            r#"{{"timezone":"UTC","symbols":[{},{},{},{},{},{},{{"symbol":"X"}},7]}}"#,
            symbol(r#""symbol":"SPOT","status":"TRADING""#),
            symbol(r#""symbol":"PERP","contractStatus":"TRADING","contractType":"PERPETUAL""#),
            symbol(r#""symbol":"SEP","status":"TRADING","contractType":"CURRENT_QUARTER""#),
            symbol(r#""symbol":"HALTED","status":"BREAK""#),
            symbol(r#""symbol":"SETTLED","status":"SETTLING","contractType":"PERPETUAL""#),
            symbol(r#""symbol":"NOTICK","status":"TRADING""#).replace("0.10000000", "0.00000000"),
        );
        let found = listings(body.as_bytes()).unwrap();
        let found: Vec<(&str, &str, Trading)> =
            found.iter().map(|l| (&*l.native, &*l.kind, l.trading)).collect();
        let expected = [
            ("SPOT", "spot", Trading::Open),
            ("PERP", "perpetual", Trading::Open),
            ("SEP", "future", Trading::Open),
            ("HALTED", "spot", Trading::Halted),
        ];
        assert_eq!(found, expected);
        let scales = listings(body.as_bytes()).unwrap()[0].scales();
        assert_eq!((scales.px, scales.qty), (1, 3));
        assert_eq!(listings(b"{}"), Err(Malformed::Field("symbols")));
        assert_eq!(listings(b"<html>"), Err(Malformed::NotJson));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = of(Venue::BinanceSpot).decode(&mut bytes, &mut EventBatch::default());
        }

        #[test]
        fn no_damage_panics_or_leaves_half_an_event(
            at in 0usize..200,
            with in proptest::collection::vec(any::<u8>(), 0..4),
        ) {
            for message in [DEPTH_SPOT, DEPTH_FUTURES, BBO_SPOT, TRADE] {
                damage(&mut of(Venue::BinanceUsdm), message, at, &with);
            }
        }
    }
}
