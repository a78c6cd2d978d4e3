//! The words of a market: venues, instruments, prices, levels, trades, states, and the events into
//! which a venue's bytes are turned.
//!
//! Everything else in Tickfan speaks in these types. Prices and quantities are integers at the
//! scale of their instrument; there is no floating point here.

use std::ops::Range;
use std::sync::Arc;

use crate::decimal::Decimal;

/// A time in nanoseconds since the Unix epoch; 0 = unknown. Ours come from the gateway's one clock,
/// a venue's from its own, and the two must not be assumed to agree.
pub type Nanos = u64;

/// A price as an integer: `value = mantissa / 10^price_scale` of its instrument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Px(pub i64);

/// A quantity as an integer: `value = mantissa / 10^qty_scale` of its instrument. Always absolute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Qty(pub i64);

/// One price level of one side of a book.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Level {
    /// The price.
    pub px: Px,
    /// What is offered there in all; 0 in a change means that the level is gone.
    pub qty: Qty,
}

/// The side of a book.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Buyers, the highest price first.
    Bid,
    /// Sellers, the lowest price first.
    Ask,
}

/// Who crossed the spread in a trade.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Aggressor {
    /// The venue does not tell.
    #[default]
    Unknown,
    /// A buyer lifted an offer.
    Buy,
    /// A seller hit a bid.
    Sell,
}

/// Index of an instrument in the gateway's table: dense, from 0, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstrumentId(pub u32);

impl InstrumentId {
    /// The id as an index into a table.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// How many decimal digits the mantissas of an instrument have behind the point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scales {
    /// Digits of prices.
    pub px: u8,
    /// Digits of quantities.
    pub qty: u8,
}

macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant),+ }

        impl $name {
            /// Every value, in the order of the protocol.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The name that the protocol uses.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// The value that the protocol calls `name`.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($text => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

named! {
    /// Where orders match. The names are those of the protocol, and the first half of a symbol.
    Venue {
        /// The built-in simulator.
        Sim = "sim",
        /// Binance spot.
        BinanceSpot = "binance-spot",
        /// Binance USD-M futures.
        BinanceUsdm = "binance-usdm",
        /// Binance COIN-M futures.
        BinanceCoinm = "binance-coinm",
        /// Coinbase Exchange.
        Coinbase = "coinbase",
        /// Coinbase Advanced Trade.
        CoinbaseAdvanced = "coinbase-advanced",
        /// Kraken, WebSocket version 2.
        Kraken = "kraken",
        /// Kraken, WebSocket version 1.
        KrakenV1 = "kraken-v1",
        /// OKX, version 5.
        Okx = "okx",
        /// Bybit spot, version 5.
        BybitSpot = "bybit-spot",
        /// Bybit linear contracts, version 5.
        BybitLinear = "bybit-linear",
        /// Deribit.
        Deribit = "deribit",
        /// Bitfinex, version 2.
        Bitfinex = "bitfinex",
    }
}

named! {
    /// What can be subscribed to of an instrument.
    Channel {
        /// The order book by price.
        Book = "book",
        /// The best bid and offer.
        Bbo = "bbo",
        /// Every trade.
        Trades = "trades",
    }
}

impl Channel {
    /// The channel as an index from 0 to 2.
    pub const fn index(self) -> usize {
        self as usize
    }
}

named! {
    /// What a channel of an instrument is worth at this moment.
    State {
        /// No image yet.
        Syncing = "syncing",
        /// Right, as far as the venue lets us prove it.
        Live = "live",
        /// Served, but its proof is missing (crossed, check switched off).
        Suspect = "suspect",
        /// The venue is silent or the connection is down: the last known values.
        Stale = "stale",
        /// Known to be wrong, and being repaired.
        Gap = "gap",
        /// Halted by the venue.
        Halted = "halted",
        /// Delisted, or its feed was removed.
        Closed = "closed",
    }
}

impl State {
    /// A subscriber may be sent the whole of a channel in this state.
    pub const fn has_whole(self) -> bool {
        matches!(self, Self::Live | Self::Suspect | Self::Halted | Self::Stale)
    }

    /// Updates flow in this state.
    pub const fn flows(self) -> bool {
        matches!(self, Self::Live | Self::Suspect | Self::Halted)
    }
}

named! {
    /// Why a channel is in its state.
    Why {
        /// Nothing has happened yet.
        Starting = "starting",
        /// An image arrived and everything since follows from it.
        Synced = "synced",
        /// The venue's numbers skip: at least one of its messages is missing.
        SequenceGap = "sequence_gap",
        /// The venue's checksum does not match the book.
        ChecksumMismatch = "checksum_mismatch",
        /// A message of the venue could not be read.
        MalformedMessage = "malformed_message",
        /// A number of the venue does not fit the instrument's scale.
        ScaleChange = "scale_change",
        /// Best bid and best offer cross.
        Crossed = "crossed",
        /// Best bid and best offer no longer cross.
        Uncrossed = "uncrossed",
        /// Nothing came from the venue for too long.
        VenueSilent = "venue_silent",
        /// The venue speaks again and nothing was lost.
        VenueBack = "venue_back",
        /// The connection to the venue is down.
        Disconnected = "disconnected",
        /// The connection to the venue is up again; what was sent meanwhile is lost.
        Reconnected = "reconnected",
        /// More events waited for an image than we hold.
        BufferFull = "buffer_full",
        /// The feed thread failed and was started again.
        FeedRestarted = "feed_restarted",
        /// The venue refused the subscription.
        Refused = "refused",
        /// The venue halted trading.
        Halted = "halted",
        /// The venue resumed trading.
        Resumed = "resumed",
        /// The venue no longer lists the instrument.
        Delisted = "delisted",
        /// The venue's heartbeat of this instrument is overdue.
        HeartbeatMissing = "heartbeat_missing",
        /// The venue's heartbeat names a trade that never came.
        TradesMissing = "trades_missing",
        /// The venue's checksum was wrong again and again over images of its own, and is no longer
        /// asked.
        ChecksumOff = "checksum_off",
    }
}

/// A tradable thing at a venue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instrument {
    /// Our dense number.
    pub id: InstrumentId,
    /// Where it trades.
    pub venue: Venue,
    /// The venue's own spelling: `BTCUSDT`.
    pub native: Arc<str>,
    /// Our spelling: `binance-spot:BTCUSDT`.
    pub symbol: Arc<str>,
}

impl Instrument {
    /// An instrument under our own symbol.
    pub fn new(id: InstrumentId, venue: Venue, native: &str) -> Self {
        Self {
            id,
            venue,
            native: native.into(),
            symbol: format!("{}:{native}", venue.name()).into(),
        }
    }
}

/// What a venue's instrument list says of one instrument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The venue's own spelling.
    pub native: Arc<str>,
    /// What is bought.
    pub base: Arc<str>,
    /// What is paid.
    pub quote: Arc<str>,
    /// `spot`, `perpetual`, `future` …
    pub kind: Arc<str>,
    /// Smallest step of a price.
    pub tick: Decimal,
    /// Smallest step of a quantity.
    pub lot: Decimal,
    /// Whether it trades.
    pub trading: Trading,
}

impl Listing {
    /// The scales that hold every multiple of tick and lot.
    pub const fn scales(&self) -> Scales {
        Scales { px: self.tick.scale, qty: self.lot.scale }
    }
}

/// Whether an instrument trades.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Trading {
    /// It does.
    #[default]
    Open,
    /// The venue has halted it for now.
    Halted,
    /// It is delisted, expired or settled.
    Ended,
}

/// The venue's identification of a trade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TradeId {
    /// Most venues count.
    Number(u64),
    /// Some use opaque text.
    Text(Arc<str>),
}

/// One trade, at the scales of its instrument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trade {
    /// The venue's time of the trade.
    pub te_ns: Nanos,
    /// Its price.
    pub px: Px,
    /// Its quantity.
    pub qty: Qty,
    /// Who crossed the spread.
    pub aggressor: Aggressor,
    /// The venue's id.
    pub id: TradeId,
}

/// How an event links to the one before it, in the venue's own numbers.
///
/// One rule serves every venue: an event applies when `follows` equals the sequence held, and the
/// first after an image when `follows <= sequence < last`; `last <= sequence` is old news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Continuity {
    /// The sequence that must be held before this event.
    pub follows: u64,
    /// The sequence held after it.
    pub last: u64,
}

/// A change of one level as the venue wrote it, not yet at the scale of an instrument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LevelChange {
    /// The price.
    pub px: Decimal,
    /// The new absolute quantity; zero removes the level.
    pub qty: Decimal,
}

/// A trade as the venue wrote it, not yet at the scale of an instrument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TradePrint {
    /// The venue's time of the trade.
    pub te_ns: Nanos,
    /// Its price.
    pub px: Decimal,
    /// Its quantity.
    pub qty: Decimal,
    /// Who crossed the spread.
    pub aggressor: Aggressor,
    /// The venue's id.
    pub id: TradeId,
    /// The venue's number of the trade among those of its instrument, where it has one.
    pub number: Option<u64>,
}

/// What one venue message says, in the order in which it says it. Reused from message to message:
/// events point into the flat lists beside them.
#[derive(Debug, Default)]
pub struct EventBatch {
    /// The events.
    pub events: Vec<MarketEvent>,
    /// Level changes of all events.
    pub levels: Vec<LevelChange>,
    /// Trades of all events.
    pub trades: Vec<TradePrint>,
}

impl EventBatch {
    /// Empties the batch and keeps its memory.
    pub fn clear(&mut self) {
        self.events.clear();
        self.levels.clear();
        self.trades.clear();
    }

    /// Lets `add` append to the batch; on its error nothing that it appended is left.
    ///
    /// # Errors
    /// Those of `add`.
    pub fn all_or_nothing<E>(
        &mut self,
        add: impl FnOnce(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        let (events, levels, trades) = (self.events.len(), self.levels.len(), self.trades.len());
        let added = add(self);
        if added.is_err() {
            self.events.truncate(events);
            self.levels.truncate(levels);
            self.trades.truncate(trades);
        }
        added
    }
}

/// One thing that a venue said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MarketEvent {
    /// A book, whole or changed. A venue message is one event end: it is applied whole or not at all.
    Book(BookEvent),
    /// The venue's own best bid and offer.
    Bbo(BboEvent),
    /// Trades of one message.
    Trades(TradesEvent),
    /// The venue confirmed a subscription of one channel of an instrument.
    Subscribed {
        /// Which instrument.
        instrument: InstrumentId,
        /// Which channel.
        channel: Channel,
    },
    /// The venue refused a subscription; the text is the venue's.
    Refused {
        /// Which instrument, when the venue says.
        instrument: Option<InstrumentId>,
        /// The venue's words.
        message: String,
    },
    /// The venue asks for an answer: send this text.
    Reply(String),
    /// The venue numbers the messages of this connection one by one, and this is the number of the
    /// message that the events after it belong to. It comes first in a batch.
    Numbered(u64),
    /// The venue's sign of life for one instrument.
    Heartbeat {
        /// Which instrument.
        instrument: InstrumentId,
        /// The [`TradePrint::number`] of the newest trade that there was, when the venue says.
        newest_trade: Option<u64>,
    },
    /// The venue began, halted or ended trading.
    Trading {
        /// Of which instrument; `None` = of everything on this connection.
        instrument: Option<InstrumentId>,
        /// What it is now.
        trading: Trading,
    },
    /// The venue will close this connection soon.
    Shutdown,
}

/// Whether a book event replaces or changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BookKind {
    /// The levels are the whole book.
    Image,
    /// The levels are changes.
    Delta,
}

/// A whole book or a change of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BookEvent {
    /// Which instrument.
    pub instrument: InstrumentId,
    /// Whole or change.
    pub kind: BookKind,
    /// The bids in [`EventBatch::levels`].
    pub bids: Range<usize>,
    /// The asks in [`EventBatch::levels`].
    pub asks: Range<usize>,
    /// How it links to the event before it, where the venue numbers events. For an image only `last`
    /// counts.
    pub continuity: Option<Continuity>,
    /// What the venue says the book must hash to after this event.
    pub checksum: Option<u32>,
    /// The venue's time, 0 = not told.
    pub te_ns: Nanos,
    /// Most digits behind the point that the venue wrote in a price, trailing zeros included.
    pub px_digits: u8,
    /// The same for quantities.
    pub qty_digits: u8,
    /// For an image: the venue cuts its images at this many levels a side, so that a side of this
    /// length may go on below. `None` = the image is all there is.
    pub cut_at: Option<usize>,
}

/// The venue's own best bid and offer. A quantity of zero means that the side is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BboEvent {
    /// Which instrument.
    pub instrument: InstrumentId,
    /// The best bid.
    pub bid: LevelChange,
    /// The best offer.
    pub ask: LevelChange,
    /// The venue's sequence of the book that this is the top of.
    pub sequence: Option<u64>,
    /// The venue's time, 0 = not told.
    pub te_ns: Nanos,
}

/// The trades of one message, of one instrument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TradesEvent {
    /// Which instrument.
    pub instrument: InstrumentId,
    /// The trades in [`EventBatch::trades`].
    pub trades: Range<usize>,
    /// What [`TradePrint::number`] is worth.
    pub numbering: TradeNumbering,
}

/// What the venue's numbers of trades are worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TradeNumbering {
    /// They rise by exactly one, so that a hole proves a loss.
    Consecutive,
    /// They rise, with holes: only a repetition can be told.
    Rising,
    /// There are none.
    None,
}
