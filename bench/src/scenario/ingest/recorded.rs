//! Recordings without sockets: what a venue sent → the inputs of a feed, and a feed that takes them in.
//!
//! Called by the scenario `ingest` and, by its path, by the criterion bench of that name, on one
//! thread. It reads no clock: its callers measure.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use feed_sim::recording::{self, Kind, Recording};
use tickfan::feed::{Feed, FeedOptions, Request};
use tickfan::stats::Stats;
use tickfan::venue::{self, Subscription, VenueDecoder};
use tickfan_core::market::{BookKind, EventBatch, InstrumentId, MarketEvent, Nanos, Venue};
use tickfan_core::snapshot::{Entry, Registry};

/// One of every venue, and two that are heavy.
pub(crate) const RECORDINGS: [&str; 13] = [
    "binance-spot-btcusdt-20240808",
    "binance-spot-4sym-20211012",
    "binance-usdm-btcusdt-20240808",
    "binance-usdm-4sym-20210722",
    "binance-coinm-btcusdperp-20240808",
    "coinbase-exchange-10sym-20210417",
    "coinbase-advanced-2sym-20260809",
    "kraken-v1-10sym-20210417",
    "kraken-v2-derived-10sym-20210417",
    "okx-3sym-20220513",
    "bybit-linear-4sym-20260809",
    "deribit-10opt-20210722",
    "bitfinex-7sym-20210417",
];

/// What a feed is given; decoding may overwrite it.
#[derive(Debug, Clone)]
pub(crate) enum Input {
    /// A message of the stream.
    Message(Vec<u8>, Nanos),
    /// The REST image of an instrument, by its place among the symbols.
    Image(usize, Vec<u8>, Nanos),
}

/// What a message is, by what it costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Size {
    /// A best bid and offer of the venue's own.
    Bbo,
    /// One trade.
    Trade,
    /// Several trades.
    Trades,
    /// Changes of a book, by how many: the place of a bucket in [`BUCKETS`].
    Depth(usize),
    /// An image, or what is not about the market.
    Other,
}

/// The buckets of changes of a book: the least of each, and the name of its figure.
pub(crate) const BUCKETS: [(usize, &str); 6] = [
    (1, "depth_1_ns"),
    (2, "depth_2_ns"),
    (6, "depth_6_ns"),
    (16, "depth_16_ns"),
    (26, "depth_26_ns"),
    (101, "depth_101_ns"),
];

/// A recording, ready to be taken in any number of times.
#[derive(Debug)]
pub(crate) struct Recorded {
    pub(crate) venue: Venue,
    /// In the order of their ids.
    pub(crate) symbols: Vec<Arc<str>>,
    pub(crate) inputs: Vec<Input>,
}

impl Recorded {
    /// Reads a recording by its name; `None` where there is none.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub(crate) fn open(name: &str) -> Result<Option<Self>> {
        let folder = std::env::var_os("TICKFAN_RECORDINGS").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"),
            PathBuf::from,
        );
        let path = folder.join(format!("{name}.tsv.zst"));
        if !path.exists() {
            return Ok(None);
        }
        let recording = Recording::open(&path)?;
        let mut symbols: Vec<Arc<str>> = Vec::new();
        for row in recording::states(&path)? {
            if !symbols.iter().any(|symbol| **symbol == *row.symbol) {
                symbols.push(row.symbol.into());
            }
        }
        let mut inputs = Vec::new();
        for line in &recording.lines {
            let payload = line.payload.to_vec();
            inputs.push(match line.kind {
                Kind::Recv => Input::Message(payload, line.recv_ns),
                Kind::Rest => {
                    let place = symbols.iter().position(|s| Some(&**s) == line.rest_symbol());
                    let place = place.with_context(|| format!("line {} of {name}", line.number))?;
                    Input::Image(place, payload, line.recv_ns)
                }
                Kind::Open | Kind::Send => continue,
            });
        }
        Ok(Some(Self { venue: recording.dialect.venue(), symbols, inputs }))
    }

    fn decoder(&self) -> Box<dyn VenueDecoder> {
        let instruments = (0..).map(InstrumentId).zip(self.symbols.iter().cloned()).collect();
        // The depth that a venue is asked for by default is that of its recording.
        venue::decoder(self.venue, Subscription { instruments, depth: None, trades: None })
    }

    /// Decodes every message of these inputs, and says how many events they were.
    pub(crate) fn decode(&self, inputs: &mut [Input]) -> usize {
        let mut decoder = self.decoder();
        let mut batch = EventBatch::default();
        let mut events = 0;
        for input in inputs {
            if let Input::Message(message, _) = input {
                batch.clear();
                // What is no market message costs its reading all the same.
                let _ = decoder.decode(message, &mut batch);
                events += batch.events.len();
            }
        }
        events
    }

    /// What each input is.
    pub(crate) fn sizes(&self) -> Vec<Size> {
        let mut decoder = self.decoder();
        let mut batch = EventBatch::default();
        let mut size = |input: &Input| {
            let Input::Message(message, _) = input else { return Size::Other };
            batch.clear();
            let read = decoder.decode(&mut message.clone(), &mut batch);
            let is_image = |event: &MarketEvent| match event {
                MarketEvent::Book(book) => book.kind == BookKind::Image,
                _ => false,
            };
            let is_bbo = batch.events.iter().any(|event| matches!(event, MarketEvent::Bbo(_)));
            if read.is_err() || batch.events.iter().any(is_image) {
                return Size::Other;
            }
            match (batch.levels.len(), batch.trades.len()) {
                (0, 0) if is_bbo => Size::Bbo,
                (0, 0) => Size::Other,
                (0, 1) => Size::Trade,
                (0, _) => Size::Trades,
                (changes, _) => Size::Depth(BUCKETS.partition_point(|(of, _)| *of <= changes) - 1),
            }
        };
        self.inputs.iter().map(&mut size).collect()
    }

    /// A feed that is connected to nothing.
    pub(crate) fn ours(&self) -> Ours {
        let registry = Registry::new(self.symbols.len());
        let entries = registry.register(self.venue, &self.symbols, 1, 1).unwrap_or_default();
        let mut feed = Feed::new(FeedOptions {
            venue: self.venue,
            instruments: entries.iter().map(|entry| (Arc::clone(entry), None)).collect(),
            depth: None,
            trades: None,
            marks: Vec::new(),
            stats: Stats::default().feed(self.venue),
            seed: 1,
        });
        feed.on_connected(1);
        Ours { feed, entries, last_ns: 0 }
    }
}

/// Our feed.
pub(crate) struct Ours {
    feed: Feed,
    /// Where it publishes, in the order of the symbols.
    pub(crate) entries: Vec<Arc<Entry>>,
    last_ns: Nanos,
}

impl Ours {
    /// Takes one input in, and publishes nothing.
    pub(crate) fn take(&mut self, input: &mut Input) {
        match input {
            Input::Message(message, now) => {
                self.feed.on_message(message, *now);
                self.last_ns = *now;
                self.read_aside();
            }
            Input::Image(place, body, now) => {
                let id = self.entries[*place].instrument.id;
                let mut image = EventBatch::default();
                let read = (self.feed.decoder().image_decoder())(id, body, &mut image);
                // The feed has asked for it by now.
                self.feed.on_time(*now);
                let image = read.is_ok().then_some(image);
                self.feed.on_image(id, self.feed.connection(), image, *now);
                self.last_ns = *now;
            }
        }
    }

    /// Reads the large images that are read aside.
    fn read_aside(&mut self) {
        for request in self.feed.take_requests() {
            if let Request::Decode { instrument, mut message, connection } = request {
                let mut image = EventBatch::default();
                let read =
                    (self.feed.decoder().image_decoder())(instrument, &mut message, &mut image);
                let image = read.is_ok().then_some(image);
                self.feed.on_image(instrument, connection, image, self.last_ns);
            }
        }
    }

    /// The batch would have ended when this was recorded.
    pub(crate) fn is_batch_full(&self) -> bool {
        self.feed.is_batch_full(self.last_ns)
    }

    /// Publishes what changed.
    pub(crate) fn publish(&mut self) {
        self.feed.publish(self.last_ns);
    }
}
