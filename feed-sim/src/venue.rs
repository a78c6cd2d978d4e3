//! The languages that these exchanges speak: one file a venue, text in and text out.
//!
//! Called by the replay, the truth and the synthetic exchange. Each file reads what its venue sent to
//! a recorder (`Reader`), holds one client's connection (`Session`), and words the venue's
//! messages out of plain values, which anyone who drives a market may call. Nothing here knows a
//! socket, and nothing here is shared with the gateway's decoders, which are tested against it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use tickfan_core::market::{Side, Venue};

use crate::truth::{Truth, TruthBook, TruthLevel};

pub mod binance;
pub mod bitfinex;
pub mod bybit;
pub mod coinbase;
pub mod coinbase_advanced;
pub mod deribit;
pub mod kraken;
pub mod kraken_v1;
pub mod limits;
pub mod okx;

/// Streams that one connection may have, where the venue's own limit is not kept.
const STREAMS_MAX: usize = 4_096;

/// What a level takes in most words, at most.
const LEVEL_BYTES: usize = 48;

/// What a message about a book takes beside its levels, mostly.
const MESSAGE_BYTES: usize = 256;

/// Which venue's language is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Binance spot.
    BinanceSpot,
    /// Binance USD-M futures.
    BinanceUsdm,
    /// Binance COIN-M futures.
    BinanceCoinm,
    /// Coinbase Exchange.
    Coinbase,
    /// Coinbase Advanced Trade.
    CoinbaseAdvanced,
    /// Kraken, WebSocket version 2.
    Kraken,
    /// Kraken, WebSocket version 1.
    KrakenV1,
    /// OKX, version 5.
    Okx,
    /// Bybit spot, version 5.
    BybitSpot,
    /// Bybit linear contracts, version 5.
    BybitLinear,
    /// Deribit.
    Deribit,
    /// Bitfinex, version 2.
    Bitfinex,
}

/// Where a REST request of a venue leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    /// The book of one symbol.
    Depth,
    /// The list of instruments.
    Instruments,
}

impl Dialect {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::BinanceSpot,
        Self::BinanceUsdm,
        Self::BinanceCoinm,
        Self::Coinbase,
        Self::CoinbaseAdvanced,
        Self::Kraken,
        Self::KrakenV1,
        Self::Okx,
        Self::BybitSpot,
        Self::BybitLinear,
        Self::Deribit,
        Self::Bitfinex,
    ];

    /// The dialect of a recording, told by the beginning of its file name.
    pub fn of_recording(name: &str) -> Option<Self> {
        let is_before = |of: &Self| {
            name.strip_prefix(of.in_recordings()).is_some_and(|rest| rest.starts_with('-'))
        };
        Self::ALL.into_iter().find(is_before)
    }

    /// What recordings call this venue: their names begin with it and a hyphen.
    pub const fn in_recordings(self) -> &'static str {
        match self {
            Self::Coinbase => "coinbase-exchange",
            Self::Kraken => "kraken-v2",
            _ => self.venue().name(),
        }
    }

    /// The venue as the protocol calls it.
    pub const fn venue(self) -> Venue {
        match self {
            Self::BinanceSpot => Venue::BinanceSpot,
            Self::BinanceUsdm => Venue::BinanceUsdm,
            Self::BinanceCoinm => Venue::BinanceCoinm,
            Self::Coinbase => Venue::Coinbase,
            Self::CoinbaseAdvanced => Venue::CoinbaseAdvanced,
            Self::Kraken => Venue::Kraken,
            Self::KrakenV1 => Venue::KrakenV1,
            Self::Okx => Venue::Okx,
            Self::BybitSpot => Venue::BybitSpot,
            Self::BybitLinear => Venue::BybitLinear,
            Self::Deribit => Venue::Deribit,
            Self::Bitfinex => Venue::Bitfinex,
        }
    }

    /// Images are fetched over REST and joined to the stream; elsewhere they come on the stream.
    pub const fn fetches_images(self) -> bool {
        matches!(self, Self::BinanceSpot | Self::BinanceUsdm | Self::BinanceCoinm)
    }

    /// Reads what this venue sent.
    pub(crate) fn reader(self) -> Box<dyn Reader> {
        match self {
            Self::BinanceSpot | Self::BinanceUsdm | Self::BinanceCoinm => Box::new(binance::Reader),
            Self::Coinbase => Box::new(coinbase::Reader),
            Self::CoinbaseAdvanced => Box::new(coinbase_advanced::Reader),
            Self::Kraken => Box::<kraken::Reader>::default(),
            Self::KrakenV1 => Box::new(kraken_v1::Reader),
            Self::Okx => Box::new(okx::Reader),
            Self::BybitSpot | Self::BybitLinear => Box::new(bybit::Reader),
            Self::Deribit => Box::new(deribit::Reader),
            Self::Bitfinex => Box::<bitfinex::Reader>::default(),
        }
    }

    /// A client connected to this path and query; the exchange's number for it is `connection`.
    pub(crate) fn session(self, path: &str, query: &str, connection: u64) -> Box<dyn Session> {
        match self {
            Self::BinanceSpot | Self::BinanceUsdm | Self::BinanceCoinm => {
                Box::new(binance::Session::open(path, query))
            }
            Self::Coinbase => Box::<coinbase::Session>::default(),
            Self::CoinbaseAdvanced => Box::<coinbase_advanced::Session>::default(),
            Self::Kraken => Box::new(kraken::Session::open(connection)),
            Self::KrakenV1 => Box::new(kraken_v1::Session::open(connection)),
            Self::Okx => Box::new(okx::Session::open(connection)),
            Self::BybitSpot | Self::BybitLinear => Box::new(bybit::Session::open(connection)),
            Self::Deribit => Box::<deribit::Session>::default(),
            Self::Bitfinex => Box::<bitfinex::Session>::default(),
        }
    }

    /// Where a REST path leads, if anywhere. What stands before the venue's own path is ignored.
    pub(crate) fn rest(self, path: &str) -> Option<Rest> {
        let (depth, instruments) = match self {
            Self::BinanceSpot => (Some("/api/v3/depth"), "/api/v3/exchangeInfo"),
            Self::BinanceUsdm => (Some("/fapi/v1/depth"), "/fapi/v1/exchangeInfo"),
            Self::BinanceCoinm => (Some("/dapi/v1/depth"), "/dapi/v1/exchangeInfo"),
            Self::Coinbase => (None, coinbase::INSTRUMENTS_PATH),
            Self::CoinbaseAdvanced => (None, coinbase_advanced::INSTRUMENTS_PATH),
            Self::Kraken | Self::KrakenV1 => (None, kraken_v1::INSTRUMENTS_PATH),
            Self::Okx => (None, okx::INSTRUMENTS_PATH),
            Self::BybitSpot | Self::BybitLinear => (None, bybit::INSTRUMENTS_PATH),
            Self::Deribit => (None, deribit::INSTRUMENTS_PATH),
            Self::Bitfinex => (None, bitfinex::INSTRUMENTS_PATH),
        };
        if path.ends_with(instruments) {
            return Some(Rest::Instruments);
        }
        depth.is_some_and(|depth| path.ends_with(depth)).then_some(Rest::Depth)
    }

    /// The body of the list of instruments, out of the venue's own description of each.
    pub(crate) fn instruments(self, query: &str, listings: &[String]) -> String {
        match self {
            Self::BinanceSpot | Self::BinanceUsdm | Self::BinanceCoinm => {
                binance::exchange_info(listings)
            }
            Self::Coinbase => coinbase::instruments(listings),
            Self::CoinbaseAdvanced => coinbase_advanced::instruments(query, listings),
            Self::Kraken | Self::KrakenV1 => kraken_v1::instruments(query, listings),
            Self::Okx => okx::instruments(query, listings),
            Self::BybitSpot => bybit::instruments("spot", query, listings),
            Self::BybitLinear => bybit::instruments("linear", query, listings),
            Self::Deribit => deribit::instruments(listings),
            Self::Bitfinex => bitfinex::instruments(listings),
        }
    }

    /// The body for any other path: what real clients ask for before they subscribe, and where nothing
    /// is known, nothing in the shape that the venue would give it.
    pub(crate) fn other(self, path: &str, listings: &[String], at_ns: u64) -> String {
        match self {
            Self::BinanceSpot | Self::BinanceUsdm | Self::BinanceCoinm => {
                binance::other(path, at_ns)
            }
            Self::Coinbase => coinbase::other(path, listings, at_ns),
            Self::CoinbaseAdvanced => coinbase_advanced::other(path, listings, at_ns),
            Self::Kraken | Self::KrakenV1 => kraken_v1::other(path, listings, at_ns),
            Self::Okx => okx::other(path, at_ns),
            Self::BybitSpot | Self::BybitLinear => bybit::other(path, at_ns),
            Self::Deribit => r#"{"jsonrpc":"2.0","result":[]}"#.to_owned(),
            Self::Bitfinex => "[]".to_owned(),
        }
    }
}

/// The value of a key of a query.
fn query_value<'a>(query: &'a str, key: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='))
}

/// The values of two fields of each listing, each once.
fn assets(listings: &[String], fields: [&str; 2]) -> BTreeSet<String> {
    let of_one = |listing: &String| {
        let listing: serde_json::Value = serde_json::from_str(listing).unwrap_or_default();
        fields.map(|field| listing[field].as_str().unwrap_or_default().to_owned())
    };
    listings.iter().flat_map(of_one).filter(|asset| !asset.is_empty()).collect()
}

/// Reads the messages that a venue sent to a recorder, in order. It learns from acknowledgements what
/// later messages do not say: depths, numbers of channels.
pub(crate) trait Reader: std::fmt::Debug + Send {
    /// What `text` is; `None` for what concerned the recorder's connection only.
    fn read<'a>(&mut self, text: &'a str) -> Option<Recorded<'a>>;
}

/// A recorded message of a stream.
#[derive(Debug)]
pub(crate) struct Recorded<'a> {
    /// The stream, in a spelling that all its messages and all requests for it share.
    pub(crate) key: String,
    /// The symbol, where the stream is of one.
    pub(crate) symbol: Option<Cow<'a, str>>,
    /// It is a book or its change. Never at Binance, whose books need more than their stream.
    pub(crate) book: Option<BookMessage<'a>>,
    /// The part that is the same on every connection; `None` = all of it, or all but a number.
    pub(crate) inner: Option<&'a str>,
}

/// A book or its change.
#[derive(Debug, Default)]
pub(crate) struct BookMessage<'a> {
    /// The levels are the whole book.
    pub(crate) is_snapshot: bool,
    /// Price and quantity of the bids.
    pub(crate) bids: Vec<(&'a str, &'a str)>,
    /// Price and quantity of the asks.
    pub(crate) asks: Vec<(&'a str, &'a str)>,
    /// The venue's update id after it.
    pub(crate) id: Option<u64>,
    /// The venue's second number, where books have two.
    pub(crate) order: Option<u64>,
    /// The book is cut to this many levels a side after it, because the venue sends no deletes for
    /// what falls out.
    pub(crate) cut_to: Option<usize>,
}

/// A recorded message as it waits to be played.
#[derive(Debug)]
pub(crate) struct Message {
    /// See [`Recorded::key`].
    pub(crate) key: String,
    /// It is a book or its change.
    pub(crate) is_book: bool,
    /// As recorded.
    pub(crate) payload: Bytes,
    /// See [`Recorded::inner`].
    pub(crate) inner: Option<Bytes>,
}

impl Message {
    /// See [`Recorded::inner`], as text.
    pub(crate) fn inner_text(&self) -> &str {
        let inner = self.inner.as_ref().unwrap_or(&self.payload);
        std::str::from_utf8(inner).unwrap_or_default()
    }
}

/// What a recording has.
#[derive(Debug, Default)]
pub(crate) struct Listed {
    /// The keys of its streams.
    keys: BTreeSet<String>,
    /// By symbol, to how many levels its book is cut; 0 when it is not, or there is none.
    symbols: BTreeMap<String, usize>,
}

impl Listed {
    /// The recording has this message.
    pub(crate) fn add(&mut self, recorded: &Recorded<'_>) {
        if let Some(symbol) = &recorded.symbol {
            let cut_to = recorded.book.as_ref().and_then(|book| book.cut_to).unwrap_or(0);
            let known = self.symbols.entry(symbol.clone().into_owned()).or_default();
            *known = cut_to.max(*known);
        }
        if !self.keys.contains(&recorded.key) {
            self.keys.insert(recorded.key.clone());
        }
    }

    /// Something of this symbol was recorded.
    pub(crate) fn has_symbol(&self, symbol: &str) -> bool {
        self.symbols.contains_key(symbol)
    }

    /// This very stream was recorded.
    pub(crate) fn has_key(&self, key: &str) -> bool {
        self.keys.contains(key)
    }

    /// To how many levels a symbol's book is cut.
    pub(crate) fn depth(&self, symbol: &str) -> usize {
        self.symbols.get(symbol).copied().unwrap_or(0)
    }
}

/// What a session may know when it is asked something: everything up to this moment.
pub(crate) struct Moment<'a> {
    /// The true books.
    pub(crate) books: &'a dyn Books,
    /// What there is to subscribe to.
    pub(crate) listed: &'a Listed,
    /// The time.
    pub(crate) at_ns: u64,
}

impl Moment<'_> {
    /// The book of a symbol, once it is valid.
    pub(crate) fn book(&self, symbol: &str) -> Option<Cow<'_, TruthBook>> {
        self.books.book(symbol)
    }
}

/// Who knows the true books, or makes them for who asks.
pub(crate) trait Books {
    /// The book of a symbol, once it is valid.
    fn book(&self, symbol: &str) -> Option<Cow<'_, TruthBook>>;
}

impl Books for Truth {
    fn book(&self, symbol: &str) -> Option<Cow<'_, TruthBook>> {
        Self::book(self, symbol).map(Cow::Borrowed)
    }
}

/// One client's connection: what it subscribed to, and how the venue speaks to it.
pub(crate) trait Session: Send {
    /// What the venue says first.
    fn greeting(&self) -> Option<String> {
        None
    }

    /// Obeys one message of the client; returns the venue's answers in order, with a fresh snapshot
    /// of each book that is subscribed to while it is valid.
    fn hear(&mut self, text: &str, moment: &Moment<'_>) -> Vec<String>;

    /// The client subscribed to the stream with this key.
    fn has(&self, key: &str) -> bool;

    /// How many streams of symbols the client subscribed to.
    fn subscriptions(&self) -> usize;

    /// A message of a stream that the client subscribed to, as this connection gets it; the moment
    /// is the one after it. `None` when it is nothing to this client.
    fn tell(&mut self, message: &Message, moment: &Moment<'_>) -> Option<Bytes>;

    /// A message of a stream that the client subscribed to is lost on the way.
    fn lose(&mut self, _message: &Message, _moment: &Moment<'_>) {}
}

/// Levels of a book to be put into words: the whole or what changes, a quantity of zero = gone.
#[derive(Debug, Clone, Copy)]
pub struct Levels<'a> {
    /// Of which symbol.
    pub symbol: &'a str,
    /// The bids, best first when they are the whole.
    pub bids: &'a [TruthLevel],
    /// The asks, best first when they are the whole.
    pub asks: &'a [TruthLevel],
    /// The venue's time.
    pub at_ns: u64,
}

/// A trade to be put into words.
#[derive(Debug, Clone, Copy)]
pub struct Print<'a> {
    /// Of which symbol.
    pub symbol: &'a str,
    /// The venue's time.
    pub at_ns: u64,
    /// Its number.
    pub id: u64,
    /// Its price.
    pub px: &'a str,
    /// Its quantity.
    pub qty: &'a str,
    /// A buyer crossed the spread.
    pub buyer_took: bool,
}

/// The `depth` best levels of a side.
pub fn best_levels(book: &TruthBook, side: Side, depth: usize) -> Vec<TruthLevel> {
    book.levels(side).take(depth).cloned().collect()
}

/// A text as JSON.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Room for a message with all of these levels: it is made in one piece.
fn room_for(levels: &Levels<'_>) -> String {
    String::with_capacity(MESSAGE_BYTES + (levels.bids.len() + levels.asks.len()) * LEVEL_BYTES)
}

/// Appends the levels of a side, each as `word` appends it, with commas between.
fn push_joined<'a>(
    out: &mut String,
    levels: impl IntoIterator<Item = &'a TruthLevel>,
    mut word: impl FnMut(&mut String, &TruthLevel),
) {
    for (place, level) in levels.into_iter().enumerate() {
        if place > 0 {
            out.push(',');
        }
        word(out, level);
    }
}

/// The levels of a side, each as `word` appends it, with commas between.
fn joined<'a>(
    levels: impl IntoIterator<Item = &'a TruthLevel>,
    word: impl FnMut(&mut String, &TruthLevel),
) -> String {
    let levels = levels.into_iter();
    let mut out = String::with_capacity(levels.size_hint().0 * LEVEL_BYTES);
    push_joined(&mut out, levels, word);
    out
}

/// Appends a level as most venues write it: `["10.5","2"]`.
fn push_pair(out: &mut String, level: &TruthLevel) {
    for part in [r#"[""#, &level.px, r#"",""#, &level.qty, r#""]"#] {
        out.push_str(part);
    }
}

/// The levels of a side as most venues write them: `["10.5","2"],["10.4","1"]`.
fn quoted_pairs<'a>(levels: impl IntoIterator<Item = &'a TruthLevel>) -> String {
    joined(levels, push_pair)
}

/// Nothing is left at the price of this level.
fn is_gone(level: &TruthLevel) -> bool {
    !level.qty.bytes().any(|byte| (b'1'..=b'9').contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT_NS: u64 = 1_618_678_132_927_716_000;

    fn level(px: &str, qty: &str) -> TruthLevel {
        TruthLevel { px: px.into(), qty: qty.into() }
    }

    /// A book of every venue that can be worded here: the acknowledgement that a reader must have
    /// seen, the whole, and a change.
    fn worded(bids: &[TruthLevel], asks: &[TruthLevel]) -> Vec<(Dialect, String, [String; 2])> {
        let levels = Levels { symbol: "AB", bids, asks, at_ns: AT_NS };
        let channel =
            kraken_v1::Channel { id: 7, name: "book-1000".to_owned(), pair: "AB".to_owned() };
        let nothing = TruthBook::default();
        let deribit = "book.AB.raw";
        vec![
            (
                Dialect::Coinbase,
                String::new(),
                [coinbase::snapshot(&levels), coinbase::update(&levels)],
            ),
            (
                Dialect::CoinbaseAdvanced,
                String::new(),
                [coinbase_advanced::snapshot(&levels, 3), coinbase_advanced::update(&levels, 4)],
            ),
            (
                Dialect::Kraken,
                String::new(),
                [kraken::snapshot(&levels, 1), kraken::update(&levels, 2)],
            ),
            (
                Dialect::KrakenV1,
                kraken_v1::acknowledge(&channel, "subscribed", None),
                [kraken_v1::snapshot(&channel, &levels), kraken_v1::update(&channel, &levels, 2)],
            ),
            (
                Dialect::Okx,
                String::new(),
                [okx::snapshot(&levels, 0, Some(3)), okx::update(&levels, 0, Some((3, 4)))],
            ),
            (
                Dialect::BybitLinear,
                bybit::acknowledge("subscribe", "c", ""),
                [bybit::snapshot(50, &levels, 3, 8), bybit::update(50, &levels, 4, 9)],
            ),
            (
                Dialect::Deribit,
                deribit::acknowledge("1", &[deribit.to_owned()]),
                [
                    deribit::snapshot(deribit, &levels, 3),
                    deribit::update(deribit, &levels, &nothing, 3, 4),
                ],
            ),
        ]
    }

    #[test]
    fn what_is_worded_is_read_back() {
        let (bids, asks) = ([level("10.50", "0.25"), level("9", "0")], [level("11.0", "7.0")]);
        for (dialect, ack, [whole, change]) in worded(&bids, &asks) {
            let mut reader = dialect.reader();
            assert!(reader.read(&ack).is_none(), "{ack}");
            for (text, is_snapshot, id) in [(whole, true, 3), (change, false, 4)] {
                let recorded = reader.read(&text).unwrap();
                let book = recorded.book.unwrap();
                assert_eq!(recorded.symbol.as_deref(), Some("AB"), "{text}");
                assert_eq!(book.is_snapshot, is_snapshot, "{text}");
                assert_eq!(book.bids[0], ("10.50", "0.25"), "{text}");
                assert!(matches!(book.bids[1], ("9", "0" | "0.0")), "{text}");
                assert_eq!(book.asks, [("11.0", "7.0")], "{text}");
                assert!(book.id.is_none_or(|known| known == id), "{text}");
            }
        }
    }

    #[test]
    fn bitfinex_changes_a_level_a_message() {
        let mut reader = Dialect::Bitfinex.reader();
        assert!(reader.read(r#"{"event":"conf","status":"OK","flags":65536}"#).is_none());
        assert!(reader.read(&bitfinex::acknowledge(7, "book", "tAB", "")).is_none());
        let (bids, asks) = ([level("1e-8", "0.25")], [level("11.0", "7.0")]);
        let levels = Levels { symbol: "tAB", bids: &bids, asks: &asks, at_ns: AT_NS };
        let gone = level("11.0", "0");
        for (text, is_snapshot, bids, asks) in [
            (
                bitfinex::snapshot(7, &levels, Some(1)),
                true,
                vec![("1e-8", "0.25")],
                vec![("11.0", "7.0")],
            ),
            (bitfinex::update(7, Side::Ask, &gone, Some(2)), false, vec![], vec![("11.0", "0")]),
            (bitfinex::update(7, Side::Bid, &gone, Some(3)), false, vec![("11.0", "0")], vec![]),
        ] {
            let book = reader.read(&text).unwrap().book.unwrap();
            assert_eq!(
                (book.is_snapshot, book.bids, book.asks),
                (is_snapshot, bids, asks),
                "{text}"
            );
        }
        let beat = bitfinex::heartbeat(7, Some(4));
        assert!(reader.read(&beat).unwrap().book.is_none(), "{beat}");
    }

    #[test]
    fn every_word_but_a_pong_is_json_of_its_stream() {
        let print =
            Print { symbol: "AB", at_ns: AT_NS, id: 5, px: "10.5", qty: "2", buyer_took: true };
        let trades = kraken_v1::Channel { id: 8, name: "trade".to_owned(), pair: "AB".to_owned() };
        for (dialect, text, key) in [
            (Dialect::Coinbase, coinbase::trade(&print, 1), "matches AB"),
            (Dialect::Coinbase, coinbase::heartbeat("AB", 1, 5, AT_NS), "heartbeat AB"),
            (Dialect::CoinbaseAdvanced, coinbase_advanced::trade(&print, 1), "market_trades AB"),
            (Dialect::CoinbaseAdvanced, coinbase_advanced::heartbeat(1, 2, AT_NS), "heartbeats "),
            (Dialect::Kraken, kraken::trade(&print), "trade AB"),
            (Dialect::Kraken, kraken::heartbeat(), "heartbeat "),
            (Dialect::KrakenV1, kraken_v1::trade(&trades, &print), "trade AB"),
            (Dialect::KrakenV1, kraken_v1::heartbeat(), "heartbeat "),
            (Dialect::Okx, okx::trade(&print), "trades AB"),
            (Dialect::BybitLinear, bybit::trade(&print, 1), "publicTrade.AB"),
            (Dialect::Deribit, deribit::trade("trades.AB.raw", &print, 1), "trades AB"),
        ] {
            assert_eq!(dialect.reader().read(&text).unwrap().key, key, "{text}");
        }
        for text in
            [bitfinex::trade(7, &print, Some(1)), bybit::heartbeat("c", "1"), deribit::heartbeat()]
        {
            serde_json::from_str::<serde_json::Value>(&text).unwrap();
        }
        assert_eq!(okx::heartbeat(), "pong");
    }
}
