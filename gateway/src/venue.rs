//! The seam between venues and the rest: the trait that every venue's file implements.
//!
//! A decoder is pure: bytes and a receive time in, market events out. It knows its venue's paths,
//! words and numbers, and nothing of sockets, clocks, books or other venues. The feed thread calls
//! it; REST images are decoded by the function of [`VenueDecoder::image_decoder`] on the REST
//! thread, because a large one takes longer than a batch may.

use std::sync::Arc;

use tickfan_core::market::{Channel, EventBatch, InstrumentId, Listing, Nanos, Scales, Venue};

pub mod binance;
pub mod bitfinex;
pub mod bybit;
pub mod coinbase;
pub mod coinbase_advanced;
pub mod deribit;
pub mod kraken;
pub mod kraken_v1;
pub mod okx;
mod tape;
#[cfg(test)]
mod testing;
mod text;

/// What is wrong with a venue's message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It is not JSON.
    #[error("not JSON")]
    NotJson,
    /// A field is missing or has another type than the venue documents.
    #[error("field {0} is missing or not of the documented type")]
    Field(&'static str),
    /// A price or quantity is no number that we can hold exactly.
    #[error("number {0}: {1}")]
    Number(&'static str, tickfan_core::decimal::DecimalError),
}

/// A venue message that could not be read. The fault is the venue's (or ours to have read it so);
/// the cure is to resync what it may have been about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed message: {what}")]
pub struct DecodeError {
    /// The instrument and channel that the message is about; `None` = it cannot be told, so that
    /// every instrument of the connection may be wrong.
    pub about: Option<(InstrumentId, Channel)>,
    /// What is wrong with it.
    pub what: Malformed,
}

/// How a lost book is fetched again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resync {
    /// GET this path and query; its body goes to the image decoder. Events go on meanwhile.
    Rest(String),
    /// Send these texts; the image comes on the stream.
    Send(Vec<String>),
}

/// Decodes the body of a REST image of an instrument into one image event. On an error nothing of
/// the body is in the batch. A closure, because it must know how deep an image was asked for; it knows
/// no instruments but the one that it is called with.
pub type ImageDecoder =
    Arc<dyn Fn(InstrumentId, &mut [u8], &mut EventBatch) -> Result<(), Malformed> + Send + Sync>;

/// Which of a venue's trade streams to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TradeStream {
    /// Every trade.
    Trade,
    /// Trades of one aggressor at one price joined into one (Binance).
    AggTrade,
}

/// What a decoder is made from: the instruments of one connection and what to ask for.
#[derive(Debug, Clone)]
pub struct Subscription {
    /// The instruments: id and the venue's spelling.
    pub instruments: Vec<(InstrumentId, Arc<str>)>,
    /// Depth that the venue is asked for; `None` = the venue's deepest.
    pub depth: Option<u32>,
    /// The trade stream; `None` = the venue's default.
    pub trades: Option<TradeStream>,
}

/// Turns one venue's bytes into market events. Pure: no socket, no clock, no task.
pub trait VenueDecoder: Send {
    /// The path and query of the WebSocket.
    fn stream_path(&self) -> &str;

    /// The texts that subscribe to everything, to be sent once the WebSocket is open.
    fn subscribe(&self) -> Vec<String>;

    /// How to get the book of an instrument anew.
    ///
    /// For a first image `first` is true: a venue that sends it on subscribing needs nothing.
    fn resync(&mut self, instrument: InstrumentId, first: bool) -> Resync;

    /// Decodes one text message of the stream, which it may overwrite, into `out` (which it does not
    /// clear).
    ///
    /// # Errors
    /// [`DecodeError`] when the message cannot be read; then nothing of it is in `out`.
    fn decode(&mut self, message: &mut [u8], out: &mut EventBatch) -> Result<(), DecodeError>;

    /// The function that decodes REST images of this venue, and large ones of its stream; refuses
    /// everything where there are neither.
    fn image_decoder(&self) -> ImageDecoder {
        Arc::new(|_, _, _| Err(Malformed::Field("image")))
    }

    /// What a REST image weighs in the venue's count of requests, at the depth that is asked for.
    fn image_weight(&self) -> u32 {
        1
    }

    /// The venue has a best bid and offer of its own, so that ours does not hang on the book.
    fn has_bbo_stream(&self) -> bool {
        false
    }

    /// The check that the venue's checksum asks for, over the best levels of both sides (best first)
    /// with their mantissas at the digits given; `None` where the venue has none.
    fn checksum(&self) -> Option<Checksum> {
        None
    }

    /// The venue says something at least this often when all is well, in nanoseconds; silence for
    /// longer makes its instruments stale.
    fn silence_ns(&self) -> Nanos;

    /// The text to send when nothing was sent for a while, and after how many nanoseconds;
    /// `None` where a silent client is kept.
    fn keepalive(&self) -> Option<(String, Nanos)> {
        None
    }

    /// The book is cut to this many levels a side after every event, because the venue does not
    /// remove what falls out; `None` where it does.
    fn truncate_at(&self) -> Option<usize> {
        None
    }

    /// Every instrument has a heartbeat of its own ([`MarketEvent::Heartbeat`]) at least this often,
    /// in nanoseconds; the first one missing makes its book suspect.
    ///
    /// [`MarketEvent::Heartbeat`]: tickfan_core::market::MarketEvent::Heartbeat
    fn heartbeat_ns(&self) -> Option<Nanos> {
        None
    }

    /// Images are fetched over REST ([`Resync::Rest`]), so that the stream may bring events that are
    /// older than they are; else they come in order with the events.
    fn fetches_images(&self) -> bool {
        false
    }

    /// Nothing but the numbers of the trades tells that a message of the connection was lost: a hole
    /// in them makes the book suspect, and it is asked for anew.
    fn trades_vouch(&self) -> bool {
        false
    }

    /// What a stream message is that is too long to be decoded between two others: the whole book
    /// of one instrument, which the image decoder reads aside while that instrument's events wait.
    /// Looks at the beginning of the message only.
    fn large_image(&self, _message: &[u8]) -> Option<LargeImage> {
        None
    }
}

/// A stream message that is one large image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LargeImage {
    /// Of which instrument.
    pub instrument: InstrumentId,
    /// The number of the message on its connection, where the venue numbers them.
    pub number: Option<u64>,
}

/// Price and quantity of a level as integers at the digits that the venue writes.
pub type Mantissas = (i64, i64);

/// A venue's checksum: a pure function of the top of a book.
#[derive(Debug, Clone, Copy)]
pub struct Checksum {
    /// How many levels of each side it covers.
    pub levels: usize,
    /// From bids and asks, best first, and the digits of their mantissas to the checksum.
    pub compute: fn(bids: &[Mantissas], asks: &[Mantissas], digits: Scales) -> u32,
}

/// Where a venue lives when the configuration does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoints {
    /// `wss://host[:port]`
    pub stream: &'static str,
    /// `https://host[:port]`
    pub rest: &'static str,
    /// Paths of the instrument list, which may come in parts; none where REST has no list.
    pub instruments_paths: &'static [&'static str],
    /// What a request for one of them weighs.
    pub instruments_weight: u32,
    /// The weight of REST requests that may be asked for in a minute: half of what the venue allows,
    /// since others at this address may ask too. An image weighs
    /// [`VenueDecoder::image_weight`].
    pub rest_weight_per_minute: u32,
    /// Instruments that one connection carries; more take several.
    pub instruments_per_connection: usize,
    /// Least time between two texts that are sent on one connection, in nanoseconds.
    pub text_spacing_ns: Nanos,
    /// How many may go at once after a rest all the same: a book is fetched again with two.
    pub texts_at_once: u32,
    /// Least time between two connections to the venue, in nanoseconds.
    pub connect_spacing_ns: Nanos,
    /// How long the venue lets a connection live, in nanoseconds, where it says.
    pub connection_life_ns: Option<Nanos>,
}

/// The default endpoints of a venue.
pub fn endpoints(venue: Venue) -> Endpoints {
    match venue {
        Venue::Sim | Venue::BinanceSpot | Venue::BinanceUsdm | Venue::BinanceCoinm => {
            binance::endpoints(venue)
        }
        Venue::Coinbase => coinbase::endpoints(),
        Venue::CoinbaseAdvanced => coinbase_advanced::endpoints(),
        Venue::Kraken | Venue::KrakenV1 => kraken::endpoints(),
        Venue::Okx => okx::endpoints(),
        Venue::BybitSpot | Venue::BybitLinear => bybit::endpoints(venue),
        Venue::Deribit => deribit::endpoints(),
        Venue::Bitfinex => bitfinex::endpoints(),
    }
}

/// A decoder for one connection to `venue`. The simulator speaks the Binance spot dialect.
pub fn decoder(venue: Venue, subscription: Subscription) -> Box<dyn VenueDecoder> {
    match venue {
        Venue::Sim | Venue::BinanceSpot | Venue::BinanceUsdm | Venue::BinanceCoinm => {
            Box::new(binance::Decoder::new(venue, subscription))
        }
        Venue::Coinbase => Box::new(coinbase::Decoder::new(subscription)),
        Venue::CoinbaseAdvanced => Box::new(coinbase_advanced::Decoder::new(subscription)),
        Venue::Kraken => Box::new(kraken::Decoder::new(subscription)),
        Venue::KrakenV1 => Box::new(kraken_v1::Decoder::new(subscription, kraken::CHECKSUM)),
        Venue::Okx => Box::new(okx::Decoder::new(subscription)),
        Venue::BybitSpot | Venue::BybitLinear => Box::new(bybit::Decoder::new(venue, subscription)),
        Venue::Deribit => Box::new(deribit::Decoder::new(subscription)),
        Venue::Bitfinex => Box::new(bitfinex::Decoder::new(subscription)),
    }
}

/// Reads a venue's instrument list.
///
/// # Errors
/// [`Malformed`] when the body is not what the venue documents; a single instrument that cannot be
/// read is left out instead.
pub fn listings(venue: Venue, body: &[u8]) -> Result<Vec<Listing>, Malformed> {
    match venue {
        Venue::Sim | Venue::BinanceSpot | Venue::BinanceUsdm | Venue::BinanceCoinm => {
            binance::listings(body)
        }
        Venue::Coinbase => coinbase::listings(body),
        Venue::CoinbaseAdvanced => coinbase_advanced::listings(body),
        Venue::Kraken | Venue::KrakenV1 => kraken::listings(venue, body),
        Venue::Okx => okx::listings(body),
        Venue::BybitSpot | Venue::BybitLinear => bybit::listings(body),
        Venue::Deribit => deribit::listings(body),
        Venue::Bitfinex => bitfinex::listings(body),
    }
}

/// Where the instrument list goes on behind the page that was read from `path`; `None` = it is whole.
///
/// # Errors
/// As of [`listings`].
pub fn next_page(venue: Venue, path: &str, body: &[u8]) -> Result<Option<String>, Malformed> {
    match venue {
        Venue::BybitLinear => bybit::next_page(path, body),
        _ => Ok(None),
    }
}

/// The text between `prefix` and the next quote: what can be told of a message that is no JSON.
fn quoted_after<'a>(message: &'a [u8], prefix: &[u8]) -> Option<&'a str> {
    let start = message.windows(prefix.len()).position(|w| w == prefix)? + prefix.len();
    let rest = message.get(start..)?;
    let end = rest.iter().position(|byte| *byte == b'"')?;
    std::str::from_utf8(rest.get(..end)?).ok()
}
