//! Coinbase Advanced Trade.
//!
//! Turns stream messages and the product list into market events and listings; the image of a book
//! comes with its subscription, in one message of megabytes that is read on the REST thread. The feed
//! thread calls it for every other message. It must never go through a message twice, as long as the
//! venue names the channel first: a level is told in over a hundred bytes.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use tickfan_core::decimal::Decimal;
use tickfan_core::market::{
    Aggressor, BookEvent, BookKind, Channel, EventBatch, InstrumentId, LevelChange, Listing,
    MarketEvent, Nanos, TradeId, TradeNumbering, TradePrint, TradesEvent, Trading,
};

use super::text::{elements, measured, nanos_of};
use super::{
    DecodeError, Endpoints, ImageDecoder, LargeImage, Malformed, Resync, Subscription,
    VenueDecoder, quoted_after,
};

/// The book of every product. It is subscribed to as `level2` and comes as `l2_data`.
const BOOK: &str = "level2";

/// What is subscribed to: "you can only subscribe to one channel per subscription message". Without
/// heartbeats, "most channels close within 60-90 seconds if no updates are sent".
const CHANNELS: [&str; 3] = ["heartbeats", "market_trades", BOOK];

const SECOND_NS: Nanos = 1_000_000_000;

/// A heartbeat of the connection comes every second: ten of them are missing.
const SILENCE_NS: Nanos = 10 * SECOND_NS;

/// All that tells what a message is stands within its first bytes.
const HEAD_BYTES: usize = 512;

/// What stands before the name of a product.
const PRODUCT_ID: &[u8] = b"\"product_id\":\"";

/// The default endpoints.
pub const fn endpoints() -> Endpoints {
    Endpoints {
        stream: "wss://advanced-trade-ws.coinbase.com",
        rest: "https://api.coinbase.com",
        instruments_paths: &["/api/v3/brokerage/market/products"],
        // Images come on the stream: the list is all that REST is asked for.
        instruments_weight: 1,
        rest_weight_per_minute: 60,
        // Images have up to 5 MB, all come at once, and a lost message costs all of them.
        instruments_per_connection: 20,
        // "8 messages per second" without an account.
        text_spacing_ns: SECOND_NS / 4,
        texts_at_once: 8,
        // "Connections are rate-limited at 1 every 4 seconds per IP."
        connect_spacing_ns: 4 * SECOND_NS,
        connection_life_ns: None,
    }
}

#[derive(serde::Deserialize)]
struct Products<'m> {
    #[serde(borrow)]
    products: Vec<&'m RawValue>,
}

/// One product of the list, as far as it matters here.
#[derive(serde::Deserialize)]
struct Product {
    product_id: String,
    product_type: String,
    base_currency_id: String,
    quote_currency_id: String,
    price_increment: String,
    base_increment: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    trading_disabled: bool,
    #[serde(default)]
    is_disabled: bool,
    #[serde(default)]
    cancel_only: bool,
    /// Another product whose book this one shares: "other channels will return the same data as the
    /// corresponding -USD based products", under that name.
    #[serde(default)]
    alias: String,
    future_product_details: Option<FutureDetails>,
}

#[derive(serde::Deserialize)]
struct FutureDetails {
    #[serde(default)]
    contract_expiry_type: String,
}

impl Product {
    fn listing(&self) -> Option<Listing> {
        let step = |text: &str| Decimal::parse(text.as_bytes()).ok().filter(|step| !step.is_zero());
        let is_perpetual = self
            .future_product_details
            .as_ref()
            .is_some_and(|details| details.contract_expiry_type == "PERPETUAL");
        let kind = match self.product_type.as_str() {
            "SPOT" => "spot",
            "FUTURE" if is_perpetual => "perpetual",
            "FUTURE" => "future",
            _ => return None,
        };
        self.alias.is_empty().then_some(())?;
        Some(Listing {
            native: self.product_id.as_str().into(),
            base: self.base_currency_id.as_str().into(),
            quote: self.quote_currency_id.as_str().into(),
            kind: kind.into(),
            tick: step(&self.price_increment)?,
            lot: step(&self.base_increment)?,
            trading: match self.status.as_str() {
                "delisted" => Trading::Ended,
                "offline" | "internal" => Trading::Halted,
                _ if self.trading_disabled || self.is_disabled || self.cancel_only => {
                    Trading::Halted
                }
                _ => Trading::Open,
            },
        })
    }
}

/// Reads the product list.
///
/// # Errors
/// [`Malformed`] when the body holds no list; a product that cannot be read is left out.
pub fn listings(body: &[u8]) -> Result<Vec<Listing>, Malformed> {
    let list: Products<'_> = serde_json::from_slice(body).map_err(|error| {
        if error.is_data() { Malformed::Field("products") } else { Malformed::NotJson }
    })?;
    let products = list.products.iter().filter_map(|raw| serde_json::from_str(raw.get()).ok());
    Ok(products.filter_map(|product: Product| product.listing()).collect())
}

/// The products of a connection, by the venue's spelling.
type Ids = HashMap<Arc<str>, InstrumentId>;

/// Decodes one connection.
pub struct Decoder {
    instruments: Vec<(InstrumentId, Arc<str>)>,
    ids: Ids,
    scratch: Scratch,
}

impl Decoder {
    /// A decoder for the instruments of one connection. The venue has books of full depth only,
    /// and one trade stream.
    pub fn new(subscription: Subscription) -> Self {
        let ids = subscription.instruments.iter().map(|(id, symbol)| (Arc::clone(symbol), *id));
        Self {
            ids: ids.collect(),
            instruments: subscription.instruments,
            scratch: Scratch::default(),
        }
    }
}

impl VenueDecoder for Decoder {
    fn stream_path(&self) -> &str {
        "/"
    }

    fn subscribe(&self) -> Vec<String> {
        let symbols: Vec<&str> = self.instruments.iter().map(|(_, symbol)| &**symbol).collect();
        CHANNELS.map(|channel| request("subscribe", &symbols, channel)).into()
    }

    fn resync(&mut self, instrument: InstrumentId, first: bool) -> Resync {
        let known = self.instruments.iter().find(|(id, _)| *id == instrument);
        let Some((_, symbol)) = known.filter(|_| !first) else {
            return Resync::Send(Vec::new());
        };
        let words = ["unsubscribe", "subscribe"];
        Resync::Send(words.map(|word| request(word, &[symbol], BOOK)).into())
    }

    fn decode(&mut self, message: &mut [u8], out: &mut EventBatch) -> Result<(), DecodeError> {
        read(&self.ids, &mut self.scratch, message, out)
    }

    fn image_decoder(&self) -> ImageDecoder {
        Arc::new(|instrument, body, out| read_image(instrument, body, out))
    }

    fn silence_ns(&self) -> Nanos {
        SILENCE_NS
    }

    fn large_image(&self, message: &[u8]) -> Option<LargeImage> {
        let head = &message[..HEAD_BYTES.min(message.len())];
        // The first event says what it is before anything else does; the venue sends an image as the
        // only event of its message.
        let is_image = quoted_after(head, b"\"channel\":\"")? == "l2_data"
            && quoted_after(head, b"\"events\":[{\"type\":\"")? == "snapshot";
        if !is_image {
            return None;
        }
        let instrument = *self.ids.get(quoted_after(head, PRODUCT_ID)?)?;
        Some(LargeImage { instrument, number: Some(number_in(head)?) })
    }
}

fn request(word: &str, symbols: &[&str], channel: &str) -> String {
    serde_json::json!({"type": word, "product_ids": symbols, "channel": channel}).to_string()
}

/// The `sequence_num` in the beginning of a message.
fn number_in(head: &[u8]) -> Option<u64> {
    const FIELD: &[u8] = b"\"sequence_num\":";
    let start = head.windows(FIELD.len()).position(|window| window == FIELD)? + FIELD.len();
    let digits = head[start..].split(|byte| !byte.is_ascii_digit()).next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Memory that one message needs, reused from message to message.
#[derive(Default)]
struct Scratch {
    /// The offers of an event, which mixes both sides, until all bids are read.
    asks: Vec<LevelChange>,
    /// The trades of an event, which come newest first.
    trades: Vec<(InstrumentId, TradePrint)>,
}

/// Reads one message; on an error nothing of it is in the batch.
fn read(
    ids: &Ids,
    scratch: &mut Scratch,
    message: &[u8],
    out: &mut EventBatch,
) -> Result<(), DecodeError> {
    let begin = out.events.len();
    out.all_or_nothing(|out| {
        let mut reader = Reader { ids, scratch, out, subject: Subject::default(), failure: Ok(()) };
        reader.read(message).and_then(|head| reader.finish(head, begin))
    })
}

/// Reads a message that was too long to be decoded between two others: one image and nothing else.
///
/// Of which instrument was read from its beginning when it came.
fn read_image(
    instrument: InstrumentId,
    body: &[u8],
    out: &mut EventBatch,
) -> Result<(), Malformed> {
    let head = &body[..HEAD_BYTES.min(body.len())];
    let product = quoted_after(head, PRODUCT_ID).ok_or(Malformed::Field("product_id"))?;
    let ids = Ids::from([(product.into(), instrument)]);
    let begin = out.events.len();
    out.all_or_nothing(|out| {
        read(&ids, &mut Scratch::default(), body, out).map_err(|error| error.what)?;
        match &out.events[begin..] {
            [MarketEvent::Numbered(_), MarketEvent::Book(book)] if book.kind == BookKind::Image => {
                // The number was seen when the message came.
                out.events.remove(begin);
                Ok(())
            }
            _ => Err(Malformed::Field("events")),
        }
    })
}

/// Turns one message into events while it is parsed.
struct Reader<'a> {
    ids: &'a Ids,
    scratch: &'a mut Scratch,
    out: &'a mut EventBatch,
    subject: Subject,
    failure: Result<(), Malformed>,
}

/// What a message has been about so far.
#[derive(Default)]
struct Subject {
    only: Option<(InstrumentId, Channel)>,
    is_mixed: bool,
}

impl Subject {
    fn note(&mut self, instrument: InstrumentId, channel: Channel) {
        let new = (instrument, channel);
        self.is_mixed |= *self.only.get_or_insert(new) != new;
    }

    fn get(&self) -> Option<(InstrumentId, Channel)> {
        self.only.filter(|_| !self.is_mixed)
    }
}

/// The outside of a message.
#[derive(Default)]
struct Head<'m> {
    channel: &'m str,
    number: Option<u64>,
    /// Only errors have it.
    kind: &'m str,
    message: String,
}

impl Reader<'_> {
    fn read<'m>(&mut self, message: &'m [u8]) -> Result<Head<'m>, DecodeError> {
        let ids = self.ids;
        let broken = |what| DecodeError { about: subject_of_broken(ids, message), what };
        let text = std::str::from_utf8(message).map_err(|_| broken(Malformed::NotJson))?;
        let mut json = serde_json::Deserializer::from_str(text);
        let head = json.deserialize_map(Message(self));
        head.and_then(|head| json.end().map(|()| head)).map_err(|error| {
            broken(if error.is_data() { Malformed::Field("message") } else { Malformed::NotJson })
        })
    }

    /// Judges what was read once all of it is known. The events of the message are those from
    /// `first` on.
    fn finish(&mut self, head: Head<'_>, first: usize) -> Result<(), DecodeError> {
        let about = self.subject.get();
        self.failure.map_err(|what| DecodeError { about, what })?;
        if head.kind == "error" {
            let mut words = head.message.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
            let instrument = words.find_map(|word| self.ids.get(word)).copied();
            self.out.events.push(MarketEvent::Refused { instrument, message: head.message });
        }
        match head.number {
            Some(number) => self.out.events.insert(first, MarketEvent::Numbered(number)),
            None if head.channel.is_empty() => {}
            None => return Err(DecodeError { about, what: Malformed::Field("sequence_num") }),
        }
        Ok(())
    }

    fn fail(&mut self, what: Malformed) {
        self.failure = self.failure.and(Err(what));
    }

    /// Makes an event of the levels that were read; what is of no product of ours is left out.
    fn push_book(&mut self, kind: &str, product: &str, sides: Result<Sides, Malformed>) {
        if product.is_empty() {
            return self.fail(Malformed::Field("product_id"));
        }
        let Some(&instrument) = self.ids.get(product) else {
            return;
        };
        self.subject.note(instrument, Channel::Book);
        let kind = match kind {
            "snapshot" => BookKind::Image,
            "update" => BookKind::Delta,
            _ => return self.fail(Malformed::Field("type")),
        };
        match sides {
            Ok(sides) => self.out.events.push(MarketEvent::Book(BookEvent {
                instrument,
                kind,
                bids: sides.bids,
                asks: sides.asks,
                continuity: None,
                checksum: None,
                te_ns: sides.te_ns,
                px_digits: sides.px_digits,
                qty_digits: sides.qty_digits,
                cut_at: None,
            })),
            Err(what) => self.fail(what),
        }
    }

    fn push_trades(&mut self, kind: &str, trades: Result<(), Malformed>) {
        match (kind, trades) {
            // History: it was over before we subscribed.
            ("snapshot", _) => return,
            ("update", Ok(())) => {}
            ("update", Err(what)) => return self.fail(what),
            _ => return self.fail(Malformed::Field("type")),
        }
        let trades = &mut self.scratch.trades;
        trades.sort_by_key(|(instrument, print)| (*instrument, print.number));
        for of_one in trades.chunk_by(|(one, _), (next, _)| one == next) {
            let start = self.out.trades.len();
            self.out.trades.extend(of_one.iter().map(|(_, print)| print.clone()));
            self.out.events.push(MarketEvent::Trades(TradesEvent {
                instrument: of_one[0].0,
                trades: start..self.out.trades.len(),
                numbering: TradeNumbering::Consecutive,
            }));
        }
    }

    /// The venue answers with all that is subscribed to by now.
    fn push_subscribed(&mut self, subscribed: &Subscribed<'_>) {
        for (channel, symbols) in
            [(Channel::Book, &subscribed.level2), (Channel::Trades, &subscribed.market_trades)]
        {
            let known = symbols.iter().filter_map(|symbol| self.ids.get(*symbol));
            self.out
                .events
                .extend(known.map(|id| MarketEvent::Subscribed { instrument: *id, channel }));
        }
    }
}

/// What a message is about that cannot be read: its channel and its only product may be readable
/// still.
fn subject_of_broken(ids: &Ids, message: &[u8]) -> Option<(InstrumentId, Channel)> {
    const PRODUCT: &[u8] = b"\"product_id\":\"";
    let channel = match quoted_after(message, b"\"channel\":\"")? {
        "l2_data" => Channel::Book,
        "market_trades" => Channel::Trades,
        _ => return None,
    };
    let mut products = message
        .windows(PRODUCT.len())
        .enumerate()
        .filter(|(_, window)| *window == PRODUCT)
        .map(|(at, _)| quoted_after(&message[at..], PRODUCT));
    let only = products.next()??;
    let instrument = *ids.get(only)?;
    products.all(|product| product == Some(only)).then_some((instrument, channel))
}

/// The whole of a message.
struct Message<'r, 'a>(&'r mut Reader<'a>);

#[derive(serde::Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum MessageField {
    Channel,
    SequenceNum,
    Events,
    Type,
    Message,
    #[serde(other)]
    Other,
}

impl<'m> Visitor<'m> for Message<'_, '_> {
    type Value = Head<'m>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a message")
    }

    fn visit_map<A: MapAccess<'m>>(self, mut map: A) -> Result<Head<'m>, A::Error> {
        let mut head = Head::default();
        let mut before_channel: Option<&RawValue> = None;
        while let Some(field) = map.next_key()? {
            match field {
                MessageField::Channel => head.channel = map.next_value()?,
                MessageField::SequenceNum => head.number = Some(map.next_value()?),
                MessageField::Type => head.kind = map.next_value()?,
                MessageField::Message => head.message = map.next_value()?,
                MessageField::Events if has_known_events(head.channel) => {
                    map.next_value_seed(Events(&mut *self.0))?;
                }
                MessageField::Events if head.channel.is_empty() => {
                    before_channel = Some(map.next_value()?);
                }
                MessageField::Events | MessageField::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        if let Some(events) = before_channel.filter(|_| has_known_events(head.channel)) {
            let mut json = serde_json::Deserializer::from_str(events.get());
            Events(self.0).deserialize(&mut json).map_err(A::Error::custom)?;
        }
        Ok(head)
    }
}

/// A channel that we know nothing of may call anything an event.
fn has_known_events(channel: &str) -> bool {
    matches!(channel, "l2_data" | "market_trades" | "subscriptions")
}

/// The events of a message.
struct Events<'r, 'a>(&'r mut Reader<'a>);

impl<'m> DeserializeSeed<'m> for Events<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'m>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'m> Visitor<'m> for Events<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of events")
    }

    fn visit_seq<A: SeqAccess<'m>>(self, mut array: A) -> Result<(), A::Error> {
        while array.next_element_seed(Event(&mut *self.0))?.is_some() {}
        Ok(())
    }
}

/// One event of a message.
struct Event<'r, 'a>(&'r mut Reader<'a>);

#[derive(serde::Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum EventField {
    Type,
    ProductId,
    Updates,
    Trades,
    Subscriptions,
    #[serde(other)]
    Other,
}

impl<'m> DeserializeSeed<'m> for Event<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'m>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'m> Visitor<'m> for Event<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event")
    }

    fn visit_map<A: MapAccess<'m>>(self, mut map: A) -> Result<(), A::Error> {
        let Self(reader) = self;
        let (mut kind, mut product) = ("", "");
        let (mut sides, mut trades) = (None, None);
        while let Some(field) = map.next_key()? {
            match field {
                EventField::Type => kind = map.next_value()?,
                EventField::ProductId => product = map.next_value()?,
                EventField::Updates => sides = Some(read_updates(reader, &mut map)?),
                EventField::Trades => trades = Some(read_trades(reader, &mut map)?),
                EventField::Subscriptions => reader.push_subscribed(&map.next_value()?),
                EventField::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        if let Some(sides) = sides {
            reader.push_book(kind, product, sides);
        }
        if let Some(trades) = trades {
            reader.push_trades(kind, trades);
        }
        Ok(())
    }
}

/// Both sides of a book event.
struct Sides {
    bids: Range<usize>,
    asks: Range<usize>,
    te_ns: Nanos,
    px_digits: u8,
    qty_digits: u8,
}

#[derive(serde::Deserialize)]
struct LevelText<'m> {
    side: Option<&'m str>,
    event_time: Option<&'m str>,
    price_level: Option<&'m str>,
    new_quantity: Option<&'m str>,
}

fn read_updates<'m, A: MapAccess<'m>>(
    reader: &mut Reader<'_>,
    map: &mut A,
) -> Result<Result<Sides, Malformed>, A::Error> {
    let (levels, asks) = (&mut reader.out.levels, &mut reader.scratch.asks);
    asks.clear();
    let start = levels.len();
    let (mut px_digits, mut qty_digits) = (0, 0);
    let (mut te_ns, mut newest) = (0, "");
    let read = map.next_value_seed(elements(|level: LevelText<'m>| {
        let change = LevelChange {
            px: measured(told(level.price_level, "price_level")?, "price_level", &mut px_digits)?,
            qty: measured(
                told(level.new_quantity, "new_quantity")?,
                "new_quantity",
                &mut qty_digits,
            )?,
        };
        // Nearly always all levels of an event have one time.
        if let Some(time) = level.event_time
            && time != newest
        {
            newest = time;
            let time_ns = nanos_of(time.as_bytes()).ok_or(Malformed::Field("event_time"))?;
            te_ns = time_ns.max(te_ns);
        }
        match level.side {
            Some("bid") => levels.push(change),
            Some("offer") => asks.push(change),
            _ => return Err(Malformed::Field("side")),
        }
        Ok(())
    }))?;
    let middle = levels.len();
    levels.append(asks);
    let (bids, asks) = (start..middle, middle..levels.len());
    Ok(read.map(|()| Sides { bids, asks, te_ns, px_digits, qty_digits }))
}

#[derive(serde::Deserialize)]
struct TradeText<'m> {
    product_id: Option<&'m str>,
    trade_id: Option<&'m str>,
    price: Option<&'m str>,
    size: Option<&'m str>,
    time: Option<&'m str>,
    side: Option<&'m str>,
}

fn read_trades<'m, A: MapAccess<'m>>(
    reader: &mut Reader<'_>,
    map: &mut A,
) -> Result<Result<(), Malformed>, A::Error> {
    let (ids, trades, subject) = (reader.ids, &mut reader.scratch.trades, &mut reader.subject);
    trades.clear();
    map.next_value_seed(elements(|trade: TradeText<'m>| {
        let Some(&instrument) = ids.get(told(trade.product_id, "product_id")?) else {
            return Ok(());
        };
        subject.note(instrument, Channel::Trades);
        let id = told(trade.trade_id, "trade_id")?;
        let id = id.parse().map_err(|_| Malformed::Field("trade_id"))?;
        let time = told(trade.time, "time")?;
        let print = TradePrint {
            te_ns: nanos_of(time.as_bytes()).ok_or(Malformed::Field("time"))?,
            px: measured(told(trade.price, "price")?, "price", &mut 0)?,
            qty: measured(told(trade.size, "size")?, "size", &mut 0)?,
            // It is the side of the maker: those of buyers trade at the bid.
            aggressor: match trade.side {
                Some("BUY") => Aggressor::Sell,
                Some("SELL") => Aggressor::Buy,
                _ => return Err(Malformed::Field("side")),
            },
            id: TradeId::Number(id),
            number: Some(id),
        };
        trades.push((instrument, print));
        Ok(())
    }))
}

/// What is subscribed to.
#[derive(serde::Deserialize)]
struct Subscribed<'m> {
    #[serde(borrow, default)]
    level2: Vec<&'m str>,
    #[serde(borrow, default)]
    market_trades: Vec<&'m str>,
}

fn told<T>(value: Option<T>, name: &'static str) -> Result<T, Malformed> {
    value.ok_or(Malformed::Field(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::venue::testing::{self, damage, decimal, level, refusal, shown};
    use proptest::prelude::*;

    const BTC: InstrumentId = InstrumentId(3);
    const ETH: InstrumentId = InstrumentId(4);

    const SNAPSHOT: &str = r#"{"channel":"l2_data","timestamp":"2026-08-09T21:05:48.483587501Z","sequence_num":13,"events":[{"type":"snapshot","product_id":"BTC-USD","updates":[{"side":"bid","event_time":"2026-08-09T21:05:48.170326Z","price_level":"65083.66","new_quantity":"0.20371215"},{"side":"offer","event_time":"2026-08-09T21:05:48.170326Z","price_level":"65083.67","new_quantity":"0.23256041"},{"side":"offer","event_time":"2026-08-09T21:05:48.170326Z","price_level":"65084","new_quantity":"1"}]}]}"#;
    const UPDATE: &str = r#"{"channel":"l2_data","client_id":"","timestamp":"2026-08-09T21:05:48.507227366Z","sequence_num":16,"events":[{"type":"update","product_id":"BTC-USD","updates":[{"side":"offer","event_time":"2026-08-09T21:05:48.27841Z","price_level":"65083.71","new_quantity":"0"},{"side":"bid","event_time":"2026-08-09T21:05:48.3Z","price_level":"56948.2","new_quantity":"0.01321935"},{"side":"offer","event_time":"2026-08-09T21:05:48.264069Z","price_level":"65155.5","new_quantity":"0.00000011"}]}]}"#;
    const TRADES: &str = r#"{"channel":"market_trades","timestamp":"2026-08-09T21:05:51.5Z","sequence_num":136,"events":[{"type":"update","trades":[{"product_id":"BTC-USD","trade_id":"1068572096","price":"65083.66","size":"0.002186","time":"2026-08-09T21:05:51.426861Z","side":"BUY"},{"product_id":"BTC-USD","trade_id":"1068572095","price":"65083.67","size":"2","time":"2026-08-09T21:05:51.376358Z","side":"SELL"}]}]}"#;
    const HEARTBEAT: &str = r#"{"channel":"heartbeats","timestamp":"2026-08-09T21:05:48.856364007Z","sequence_num":35,"events":[{"current_time":"2026-08-09 21:05:48.854840045 +0000 UTC m=+41691.260485341","heartbeat_counter":41691}]}"#;

    fn decoder() -> Decoder {
        let instruments = vec![(BTC, "BTC-USD".into()), (ETH, "ETH-USD".into())];
        Decoder::new(Subscription { instruments, depth: None, trades: None })
    }

    fn decoded(message: &str) -> EventBatch {
        testing::decoded(&mut decoder(), message)
    }

    fn book(
        instrument: InstrumentId,
        kind: BookKind,
        bids: Range<usize>,
        asks: Range<usize>,
    ) -> BookEvent {
        BookEvent {
            instrument,
            kind,
            bids,
            asks,
            continuity: None,
            checksum: None,
            te_ns: 0,
            px_digits: 0,
            qty_digits: 0,
            cut_at: None,
        }
    }

    /// The only event of a message, as it stands between brackets.
    fn event_of(message: &str) -> &str {
        let start = message.find(r#"{"type""#).unwrap();
        &message[start..message.len() - 2]
    }

    #[test]
    fn a_snapshot_is_the_whole_book_after_the_number_of_its_message() {
        let out = decoded(SNAPSHOT);
        let image = BookEvent {
            te_ns: 1_786_309_548_170_326_000,
            px_digits: 2,
            qty_digits: 8,
            ..book(BTC, BookKind::Image, 0..1, 1..3)
        };
        assert_eq!(out.events, [MarketEvent::Numbered(13), MarketEvent::Book(image)]);
        let expected =
            [level("65083.66", "0.20371215"), level("65083.67", "0.23256041"), level("65084", "1")];
        assert_eq!(out.levels, expected);
    }

    #[test]
    fn an_update_has_its_sides_sorted_out_and_the_newest_of_its_times() {
        let out = decoded(UPDATE);
        let delta = BookEvent {
            te_ns: 1_786_309_548_300_000_000,
            px_digits: 2,
            qty_digits: 8,
            ..book(BTC, BookKind::Delta, 0..1, 1..3)
        };
        assert_eq!(out.events, [MarketEvent::Numbered(16), MarketEvent::Book(delta)]);
        let expected = [
            level("56948.2", "0.01321935"),
            level("65083.71", "0"),
            level("65155.5", "0.00000011"),
        ];
        assert_eq!(out.levels, expected);
    }

    #[test]
    fn fields_may_come_in_any_order() {
        let updates = r#"[{"new_quantity":"1","more":[{}],"price_level":"2","side":"bid"}]"#;
        let events = format!(r#"[{{"updates":{updates},"product_id":"ETH-USD","type":"update"}}]"#);
        for message in [
            format!(r#"{{"new":{{}},"channel":"l2_data","events":{events},"sequence_num":5}}"#),
            format!(r#"{{"sequence_num":5,"events":{events},"channel":"l2_data"}}"#),
        ] {
            let out = decoded(&message);
            let delta = book(ETH, BookKind::Delta, 0..1, 1..1);
            assert_eq!(out.events, [MarketEvent::Numbered(5), MarketEvent::Book(delta)]);
            assert_eq!(out.levels, [level("2", "1")]);
        }
        let other = r#"{"sequence_num":5,"events":[7],"channel":"another"}"#;
        assert_eq!(decoded(other).events, [MarketEvent::Numbered(5)]);
        let mut broken = br#"{"sequence_num":5,"events":[7],"channel":"l2_data"}"#.to_vec();
        assert!(decoder().decode(&mut broken, &mut EventBatch::default()).is_err());
    }

    #[test]
    fn every_event_of_a_message_is_told() {
        let events = ["BTC-USD", "NOT-ASKED", "ETH-USD"]
            .map(|product| event_of(UPDATE).replace("BTC-USD", product))
            .join(",");
        let message = UPDATE.replace(event_of(UPDATE), &events);
        let mut decoder = decoder();
        let mut out = EventBatch::default();
        decoder.decode(&mut HEARTBEAT.as_bytes().to_vec(), &mut out).unwrap();
        decoder.decode(&mut message.into_bytes(), &mut out).unwrap();
        let mut told = out.events[2..].iter().map(|event| match event {
            MarketEvent::Book(book) => {
                (book.instrument, out.levels[book.bids.clone()].len(), book.asks.len())
            }
            other => panic!("{other:?}"),
        });
        assert_eq!(out.events[..2], [MarketEvent::Numbered(35), MarketEvent::Numbered(16)]);
        assert_eq!((told.next(), told.next()), (Some((BTC, 1, 2)), Some((ETH, 1, 2))));
        assert_eq!(told.next(), None);
    }

    #[test]
    fn trades_come_newest_first_and_are_told_in_order_with_the_side_of_the_maker() {
        let out = decoded(TRADES);
        let event = |instrument, trades| {
            MarketEvent::Trades(TradesEvent {
                instrument,
                trades,
                numbering: TradeNumbering::Consecutive,
            })
        };
        assert_eq!(out.events, [MarketEvent::Numbered(136), event(BTC, 0..2)]);
        let newest = TradePrint {
            te_ns: 1_786_309_551_426_861_000,
            px: decimal("65083.66"),
            qty: decimal("0.002186"),
            aggressor: Aggressor::Sell,
            id: TradeId::Number(1_068_572_096),
            number: Some(1_068_572_096),
        };
        let oldest = TradePrint {
            te_ns: 1_786_309_551_376_358_000,
            px: decimal("65083.67"),
            qty: decimal("2"),
            aggressor: Aggressor::Buy,
            id: TradeId::Number(1_068_572_095),
            number: Some(1_068_572_095),
        };
        assert_eq!(out.trades, [oldest, newest]);

        let mixed = TRADES.replacen("BTC", "ETH", 1);
        assert_eq!(
            decoded(&mixed).events,
            [MarketEvent::Numbered(136), event(BTC, 0..1), event(ETH, 1..2)]
        );
    }

    #[test]
    fn control_messages_become_what_the_session_needs() {
        let refused = |instrument, message: &str| {
            vec![MarketEvent::Refused { instrument, message: message.to_owned() }]
        };
        let numbered = |number| vec![MarketEvent::Numbered(number)];
        let subscribed = |instrument, channel| MarketEvent::Subscribed { instrument, channel };
        for (message, expected) in [
            (
                r#"{"channel":"subscriptions","timestamp":"2026-08-09T21:05:48.6Z","sequence_num":24,"events":[{"subscriptions":{"candles":["ETH-USD"],"heartbeats":["heartbeats"],"level2":["BTC-USD","NOT-ASKED"],"market_trades":["ETH-USD"]}}]}"#.to_owned(),
                vec![
                    MarketEvent::Numbered(24),
                    subscribed(BTC, Channel::Book),
                    subscribed(ETH, Channel::Trades),
                ],
            ),
            (
                r#"{"channel":"subscriptions","sequence_num":0,"events":[{"subscriptions":{}}]}"#.to_owned(),
                numbered(0),
            ),
            (HEARTBEAT.to_owned(), numbered(35)),
            (
                r#"{"channel":"ticker","sequence_num":7,"events":[{"type":"update","updates":5}]}"#.to_owned(),
                numbered(7),
            ),
            (TRADES.replace(r#""update""#, r#""snapshot""#), numbered(136)),
            (TRADES.replace("BTC-USD", "NOT-ASKED"), numbered(136)),
            (UPDATE.replace("BTC-USD", "NOT-ASKED"), numbered(16)),
            (UPDATE.replace("BTC-USD", "NOT-ASKED").replace("56948.2", "x"), numbered(16)),
            (
                r#"{"type":"error","message":"ETH-USD, is not a valid product"}"#.to_owned(),
                refused(Some(ETH), "ETH-USD, is not a valid product"),
            ),
            (
                r#"{"type":"error","message":"authentication \"failure\""}"#.to_owned(),
                refused(None, r#"authentication "failure""#),
            ),
            (r#"{"type":"error"}"#.to_owned(), refused(None, "")),
            ("{}".to_owned(), vec![]),
        ] {
            let out = decoded(&message);
            assert_eq!(out.events, expected, "{message}");
            assert!(out.trades.is_empty(), "{message}");
        }
    }

    #[test]
    fn a_malformed_message_tells_what_it_was_about_and_leaves_nothing() {
        use tickfan_core::decimal::DecimalError::{Malformed as NoNumber, Overflow};
        const BOOK: Option<(InstrumentId, Channel)> = Some((BTC, Channel::Book));
        const PRINTS: Option<(InstrumentId, Channel)> = Some((BTC, Channel::Trades));
        let field = Malformed::Field;
        let number = Malformed::Number;
        let bad = event_of(UPDATE).replace("56948.2", "x");
        let other = event_of(UPDATE).replace("BTC", "ETH");
        let pair = UPDATE.replace(event_of(UPDATE), &format!("{bad},{other}"));
        for (message, about, what) in [
            (UPDATE.replace("56948.2", ""), BOOK, number("price_level", NoNumber)),
            (UPDATE.replace("56948.2", "1e40"), BOOK, number("price_level", Overflow)),
            (UPDATE.replace("0.01321935", "1,5"), BOOK, number("new_quantity", NoNumber)),
            (UPDATE.replace(r#""0.01321935""#, "null"), BOOK, field("new_quantity")),
            (UPDATE.replace(r#""0.01321935""#, "1"), BOOK, field("message")),
            (UPDATE.replace(r#","price_level":"56948.2""#, ""), BOOK, field("price_level")),
            (UPDATE.replace(r#""bid""#, r#""buy""#), BOOK, field("side")),
            (UPDATE.replace("48.3Z", "61.3Z"), BOOK, field("event_time")),
            (UPDATE.replace(r#""update""#, r#""other""#), BOOK, field("type")),
            (UPDATE.replace(r#""type":"update","#, ""), BOOK, field("type")),
            (UPDATE.replace(r#""BTC-USD""#, r#""""#), None, field("product_id")),
            (UPDATE.replace(r#""BTC-USD""#, "5"), None, field("message")),
            (UPDATE.replace(r#""updates":["#, r#""updates":5,"more":["#), BOOK, field("message")),
            (UPDATE.replace(r#""sequence_num":16,"#, ""), BOOK, field("sequence_num")),
            (UPDATE.replace(":16,", ":-16,"), BOOK, field("message")),
            (UPDATE.replace("}]}]}", ""), BOOK, Malformed::NotJson),
            (UPDATE.replace("}]}]}", "").replace("l2_data", "other"), None, Malformed::NotJson),
            (format!("{UPDATE}]"), BOOK, Malformed::NotJson),
            (pair.clone(), None, number("price_level", NoNumber)),
            (pair.replace("}]}]}", ""), None, Malformed::NotJson),
            (HEARTBEAT.replace("sequence_num", "number"), None, field("sequence_num")),
            (TRADES.replace("}]}]}", ""), PRINTS, Malformed::NotJson),
            (TRADES.replace("BUY", "buy"), PRINTS, field("side")),
            (TRADES.replace("1068572096", "-1"), PRINTS, field("trade_id")),
            (TRADES.replace(r#""1068572096""#, "5"), PRINTS, field("message")),
            (TRADES.replace("51.426861Z", "51"), PRINTS, field("time")),
            (TRADES.replace("0.002186", "x"), PRINTS, number("size", NoNumber)),
            (TRADES.replace(r#""update""#, r#""other""#), PRINTS, field("type")),
            (String::new(), None, Malformed::NotJson),
            ("[]".to_owned(), None, field("message")),
            ("[".repeat(100_000), None, field("message")),
            ("\u{0}x\"\\{[".repeat(170_000), None, Malformed::NotJson),
        ] {
            let error = refusal(&mut decoder(), &[UPDATE, TRADES], &message);
            assert_eq!(error, DecodeError { about, what }, "{}", shown(&message));
        }
    }

    #[test]
    fn what_is_no_utf8_is_no_json() {
        let mut message = HEARTBEAT.replace("UTC", "UT?").into_bytes();
        let at = message.iter().position(|byte| *byte == b'?').unwrap();
        message[at] = 0xff;
        let error = decoder().decode(&mut message, &mut EventBatch::default()).unwrap_err();
        assert_eq!(error, DecodeError { about: None, what: Malformed::NotJson });
    }

    #[test]
    fn a_message_after_a_malformed_one_has_nothing_of_it() {
        let mut decoder = decoder();
        let mut out = EventBatch::default();
        for message in [UPDATE.replace("56948.2", ""), TRADES.replace("BUY", "buy")] {
            decoder.decode(&mut message.into_bytes(), &mut out).unwrap_err();
        }
        decoder.decode(&mut UPDATE.as_bytes().to_vec(), &mut out).unwrap();
        decoder.decode(&mut TRADES.as_bytes().to_vec(), &mut out).unwrap();
        assert_eq!((out.levels.len(), out.trades.len()), (3, 2));
    }

    #[test]
    fn a_snapshot_is_told_by_its_beginning_and_read_aside() {
        let decoder = decoder();
        let told = |message: &str| decoder.large_image(message.as_bytes());
        assert_eq!(told(SNAPSHOT), Some(LargeImage { instrument: BTC, number: Some(13) }));
        assert_eq!(told(UPDATE), None);
        assert_eq!(told(TRADES), None);
        assert_eq!(told(&SNAPSHOT.replace("BTC", "NOT")), None);
        assert_eq!(told(&SNAPSHOT.replace(":13,", ":x,")), None);
        assert_eq!(
            told(&SNAPSHOT.replacen('{', &format!("{{{}", " ".repeat(HEAD_BYTES)), 1)),
            None
        );
        assert_eq!(told(""), None);

        let image = decoder.image_decoder();
        let mut out = EventBatch::default();
        image(BTC, &mut SNAPSHOT.as_bytes().to_vec(), &mut out).unwrap();
        assert_eq!(out.events, decoded(SNAPSHOT).events[1..]);
        assert_eq!(out.levels, decoded(SNAPSHOT).levels);
        let two = format!("{},{}", event_of(SNAPSHOT), event_of(UPDATE));
        for (instrument, body, what) in [
            (BTC, String::new(), Malformed::Field("product_id")),
            (BTC, UPDATE.to_owned(), Malformed::Field("events")),
            (BTC, SNAPSHOT.replace(event_of(SNAPSHOT), &two), Malformed::Field("events")),
            (BTC, SNAPSHOT.replace("offer", "ask"), Malformed::Field("side")),
            (BTC, SNAPSHOT.replace("}]}]}", ""), Malformed::NotJson),
        ] {
            let mut out = EventBatch::default();
            assert_eq!(image(instrument, &mut body.into_bytes(), &mut out), Err(what));
            assert!(out.events.is_empty() && out.levels.is_empty());
        }
    }

    #[test]
    fn a_request_is_for_one_channel() {
        let parsed = |text: &String| serde_json::from_str::<serde_json::Value>(text).unwrap();
        let mut decoder = decoder();
        let requests: Vec<_> = decoder.subscribe().iter().map(parsed).collect();
        let expected = ["heartbeats", "market_trades", "level2"].map(|channel| {
            serde_json::json!({
                "type": "subscribe", "product_ids": ["BTC-USD", "ETH-USD"], "channel": channel,
            })
        });
        assert_eq!(requests, expected);
        assert_eq!(decoder.resync(ETH, true), Resync::Send(Vec::new()));
        let Resync::Send(texts) = decoder.resync(ETH, false) else { panic!("not on the stream") };
        let expected = ["unsubscribe", "subscribe"].map(|word| {
            serde_json::json!({"type": word, "product_ids": ["ETH-USD"], "channel": "level2"})
        });
        assert_eq!(texts.iter().map(parsed).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn the_product_list_tells_kinds_steps_and_whether_it_trades() {
        const PRODUCT: &str = r#"{"product_id":"BTC-USD","base_increment":"0.00000001","quote_increment":"0.01","price_increment":"0.05","status":"online","cancel_only":false,"trading_disabled":false,"is_disabled":false,"product_type":"SPOT","quote_currency_id":"USD","base_currency_id":"BTC","alias":"","fcm_trading_session_details":null}"#;
        let open = Listing {
            native: "BTC-USD".into(),
            base: "BTC".into(),
            quote: "USD".into(),
            kind: "spot".into(),
            tick: decimal("0.05"),
            lot: decimal("0.00000001"),
            trading: Trading::Open,
        };
        let halted = Listing { trading: Trading::Halted, ..open.clone() };
        let expiry = r#""FUTURE","future_product_details":{"contract_expiry_type":"PERPETUAL"}"#;
        for (from, to, expected) in [
            ("", "", Some(open.clone())),
            ("online", "", Some(open.clone())),
            ("online", "offline", Some(halted.clone())),
            ("online", "delisted", Some(Listing { trading: Trading::Ended, ..open.clone() })),
            (r#"cancel_only":false"#, r#"cancel_only":true"#, Some(halted.clone())),
            (r#"trading_disabled":false"#, r#"trading_disabled":true"#, Some(halted.clone())),
            (r#"is_disabled":false"#, r#"is_disabled":true"#, Some(halted)),
            (r#""SPOT""#, r#""FUTURE""#, Some(Listing { kind: "future".into(), ..open.clone() })),
            (r#""SPOT""#, expiry, Some(Listing { kind: "perpetual".into(), ..open })),
            (r#""SPOT""#, r#""OTHER""#, None),
            (r#"alias":"""#, r#"alias":"BTC-USD""#, None),
            ("0.05", "0", None),
            ("base_currency_id", "base", None),
        ] {
            let body =
                format!(r#"{{"products":[{}],"num_products":1}}"#, PRODUCT.replace(from, to));
            let expected: Vec<Listing> = expected.into_iter().collect();
            assert_eq!(listings(body.as_bytes()), Ok(expected), "{from} is {to}");
        }
        assert_eq!(listings(b"{}"), Err(Malformed::Field("products")));
        assert_eq!(listings(b"["), Err(Malformed::NotJson));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = listings(&bytes);
            let _ = decoder().large_image(&bytes);
            let _ = decoder().image_decoder()(BTC, &mut bytes.clone(), &mut EventBatch::default());
            let _ = decoder().decode(&mut bytes, &mut EventBatch::default());
        }

        #[test]
        fn no_damage_panics_or_leaves_half_an_event(
            at in 0usize..600,
            with in proptest::collection::vec(any::<u8>(), 0..4),
        ) {
            for message in [SNAPSHOT, UPDATE, TRADES, HEARTBEAT] {
                damage(&mut decoder(), message, at, &with);
            }
        }
    }
}
