//! Recorded exchange bytes in, exact states out: every publication of a feed that is driven by a
//! recording must equal the row of the independently rebuilt states, whatever the batches; and with
//! one line lost, the book must say so at the line where a client can know it, and come back right.

#![allow(clippy::unwrap_used, reason = "a test that cannot read its recording must fail")]

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use feed_sim::exchange::{Exchange, ExchangeOptions};
use feed_sim::record::{self, Length};
use feed_sim::recording::{self as recorded, Kind, Line, LostLine, Recording, StateRow, Writer};
use feed_sim::truth::{Truth, TruthBook};
use feed_sim::venue::Dialect;
use tickfan::feed::{Feed, FeedOptions, Request};
use tickfan::stats::Stats;
use tickfan_core::decimal::{Decimal, fraction_digits, write_decimal};
use tickfan_core::market::{
    BookEvent, BookKind, Continuity, EventBatch, InstrumentId, Level, LevelChange, MarketEvent,
    Scales, Side, State, Venue, Why,
};
use tickfan_core::snapshot::{Entry, Registry, Snapshot};

#[path = "common/feed.rs"]
mod feed;
#[path = "common/recording.rs"]
mod recording;

/// The rows of the states of each symbol: line and checksum of the best 20 levels, in order.
type States = HashMap<String, Vec<(u64, u32)>>;

fn states(folder: &Path, name: &str) -> States {
    by_symbol(recorded::states(&recording::path(folder, name)).unwrap())
}

fn by_symbol(rows: Vec<StateRow>) -> States {
    let mut states = States::new();
    for row in rows {
        states.entry(row.symbol).or_default().push((row.line, row.crc_top20));
    }
    states
}

/// The row that a symbol is at after a line.
fn row_at(states: &States, symbol: &str, line: u64) -> Option<(u64, u32)> {
    let rows = &states[symbol];
    rows[..rows.partition_point(|(at, _)| *at <= line)].last().copied()
}

fn crc_top20(snapshot: &Snapshot) -> u32 {
    let mut out = Vec::new();
    let side = |levels: &mut dyn Iterator<Item = Level>, scales: Scales, out: &mut Vec<u8>| {
        for (i, level) in levels.take(20).enumerate() {
            if i > 0 {
                out.push(b',');
            }
            write_decimal(level.px.0, scales.px, out);
            out.push(b':');
            write_decimal(level.qty.0, scales.qty, out);
        }
    };
    side(&mut snapshot.book.book.bids.iter(), snapshot.scales, &mut out);
    out.push(b'|');
    side(&mut snapshot.book.book.asks.iter(), snapshot.scales, &mut out);
    crc32fast::hash(&out)
}

struct Run {
    feed: Feed,
    entries: Vec<Arc<Entry>>,
    /// What the feed has asked for, but for large images, which are decoded at once.
    requests: Vec<Request>,
}

/// `depth`: to how many levels the books were asked for, where that is not the venue's most.
fn run(recording: &Recording, states: &States, depth: Option<u32>) -> Run {
    let venue = recording.dialect.venue();
    let mut natives: Vec<Arc<str>> = states.keys().map(|symbol| Arc::from(&**symbol)).collect();
    natives.sort_unstable();
    let entries = Registry::new(100).register(venue, &natives, 7, 1).unwrap();
    let options = feed::options(venue, &entries, Stats::default().feed(venue));
    let mut feed = Feed::new(FeedOptions { depth, ..options });
    let begins_ns = recording.lines[0].recv_ns;
    feed.on_connected(begins_ns);
    if recording.dialect.fetches_images() {
        // What the recorder asked for was confirmed to it, under numbers of its own.
        for id in 1..=feed.decoder().subscribe().len() {
            let confirmed = format!(r#"{{"result":null,"id":{id}}}"#);
            feed.on_message(&mut confirmed.into_bytes(), begins_ns);
        }
    }
    Run { feed, entries, requests: Vec::new() }
}

impl Run {
    fn entry(&self, symbol: &str) -> Arc<Entry> {
        let of = |entry: &&Arc<Entry>| &*entry.instrument.native == symbol;
        Arc::clone(self.entries.iter().find(of).unwrap())
    }

    fn line(&mut self, line: &Line) {
        match line.kind {
            Kind::Recv => {
                self.feed.on_message(&mut line.payload.to_vec(), line.recv_ns);
                for request in self.feed.take_requests() {
                    match request {
                        Request::Decode { instrument, mut message, connection } => {
                            let mut image = EventBatch::default();
                            let decode = self.feed.decoder().image_decoder();
                            decode(instrument, &mut message, &mut image).unwrap();
                            self.feed.on_image(instrument, connection, Some(image), line.recv_ns);
                        }
                        request => self.requests.push(request),
                    }
                }
            }
            Kind::Rest => {
                // The feed has asked for it by now.
                self.feed.on_time(line.recv_ns);
                let symbol = line.rest_symbol().unwrap();
                self.rest_image(symbol, &mut line.payload.to_vec(), line.recv_ns);
            }
            Kind::Open | Kind::Send => {}
        }
    }

    fn rest_image(&mut self, symbol: &str, body: &mut [u8], now: u64) {
        let id = self.entry(symbol).instrument.id;
        let mut image = EventBatch::default();
        (self.feed.decoder().image_decoder())(id, body, &mut image).unwrap();
        self.image(symbol, image, now);
    }

    fn image(&mut self, symbol: &str, image: EventBatch, now: u64) {
        let id = self.entry(symbol).instrument.id;
        self.feed.on_image(id, self.feed.connection(), Some(image), now);
    }

    /// Whether the feed has asked for books of `symbols` anew, and for nothing else.
    fn asks_for(&mut self, symbols: &[&str], now: u64) -> bool {
        self.feed.on_time(now);
        let mut requests = std::mem::take(&mut self.requests);
        requests.append(&mut self.feed.take_requests());
        let keepalive = self.feed.decoder().keepalive().map(|(text, _)| Request::Send(text));
        requests.retain(|request| Some(request) != keepalive.as_ref());
        for request in &requests {
            let (text, begin, end) = match request {
                Request::Image { path, .. } => (path, "symbol=", "&"),
                Request::Send(text) => (text, "", ""),
                _ => panic!("{symbols:?}: {request:?}"),
            };
            let names = |symbol: &&str| text.contains(&format!("{begin}{symbol}{end}"));
            // Bitfinex ends a subscription by the number of its channel.
            let is_end = text.contains(r#""chanId""#);
            assert!(is_end || symbols.iter().any(names), "{symbols:?}: {text}");
        }
        !requests.is_empty()
    }
}

/// Every publication equals a row of the states.
fn check_states(recording: &Recording, states: &States, depth: Option<u32>) {
    let name = &recording.name;
    // Batches of one message show every state; longer ones must show some, in order.
    for batch in [1, 7, 256] {
        let mut run = run(recording, states, depth);
        let mut shown: HashMap<Arc<str>, u64> = HashMap::new();
        let entries = run.entries.clone();
        let mut publications = 0;
        for (i, line) in recording.lines.iter().enumerate() {
            run.line(line);
            let is_end = i + 1 == recording.lines.len() || i % batch == batch - 1;
            if !is_end {
                continue;
            }
            run.feed.publish(line.recv_ns);
            for entry in &entries {
                let snapshot = entry.load();
                let native = &entry.instrument.native;
                match (snapshot.book.status.state, row_at(states, native, line.number)) {
                    (State::Syncing, None) => {}
                    (State::Live, Some((at, crc))) => {
                        assert_eq!(
                            crc_top20(&snapshot),
                            crc,
                            "{name}: {native} after line {}, state of line {at}",
                            line.number
                        );
                        publications +=
                            usize::from(shown.insert(Arc::clone(native), at) != Some(at));
                    }
                    (state, row) => {
                        panic!("{name}: {native} is {state:?} at line {}, {row:?}", line.number)
                    }
                }
            }
        }
        run.requests.append(&mut run.feed.take_requests());
        assert!(!run.requests.contains(&Request::Reconnect), "{name} is whole");
        if batch == 1 {
            let rows: usize = states.values().map(Vec::len).sum();
            assert_eq!(publications, rows, "{name}: every row was published");
        }
    }
}

/// How many lines of the recording pass between a request for an image and its answer.
const IMAGE_TAKES_LINES: u64 = 5;

/// The whole book, as a decoder would hand it over.
fn image_of(id: InstrumentId, book: &TruthBook) -> EventBatch {
    let mut image = EventBatch::default();
    let (mut px_digits, mut qty_digits) = (0, 0);
    let decimal = |text: &str| Decimal::parse(text.as_bytes()).unwrap();
    for level in [Side::Bid, Side::Ask].into_iter().flat_map(|side| book.levels(side)) {
        px_digits = px_digits.max(fraction_digits(level.px.as_bytes()));
        qty_digits = qty_digits.max(fraction_digits(level.qty.as_bytes()));
        image.levels.push(LevelChange { px: decimal(&level.px), qty: decimal(&level.qty) });
    }
    let bids = book.levels(Side::Bid).count();
    image.events.push(MarketEvent::Book(BookEvent {
        instrument: id,
        kind: BookKind::Image,
        bids: 0..bids,
        asks: bids..image.levels.len(),
        continuity: book.id().map(|last| Continuity { follows: last, last }),
        checksum: None,
        te_ns: 0,
        px_digits,
        qty_digits,
        cut_at: None,
    }));
    image
}

/// The venue numbers the messages of a connection, and not those of a book.
fn is_numbered_by_connection(venue: Venue) -> bool {
    matches!(venue, Venue::CoinbaseAdvanced | Venue::Bitfinex)
}

/// One line is lost: the book says so exactly where a client can know, is repaired by an image, and
/// is right from there on; no other symbol notices, but where the venue numbers the messages of the
/// connection: then nobody can know whose was lost.
fn check_fault(recording: &Recording, states: &States, fault: &LostLine) {
    let lost = format!("{} without line {}", recording.name, fault.drop_line);
    let mut run = run(recording, states, None);
    let mut truth = Truth::new(recording.dialect);
    let venue = recording.dialect.venue();
    let entries = run.entries.clone();
    let suspects: Vec<&str> = entries
        .iter()
        .map(|entry| &*entry.instrument.native)
        .filter(|native| is_numbered_by_connection(venue) || **native == *fault.symbol)
        .collect();
    // What had no image yet has lost nothing.
    let hit: Vec<&str> = suspects
        .iter()
        .copied()
        .filter(|native| row_at(states, native, fault.drop_line).is_some())
        .collect();
    let mut began_live: HashMap<Arc<str>, (u32, Scales)> = HashMap::new();
    let mut image_due_at = None;
    let mut is_repaired = false;
    for line in &recording.lines {
        truth.apply_line(line);
        let number = line.number;
        if number != fault.drop_line {
            run.line(line);
        }
        if image_due_at.take_if(|due_at| number >= *due_at).is_some() {
            for symbol in &hit {
                let image = image_of(run.entry(symbol).instrument.id, truth.book(symbol).unwrap());
                run.image(symbol, image, line.recv_ns);
            }
            is_repaired = true;
        }
        let is_found = fault.first_detectable_at_line.is_some_and(|at| number >= at);
        run.feed.publish(line.recv_ns);
        for entry in &entries {
            let snapshot = entry.load();
            let native = &entry.instrument.native;
            let status = snapshot.book.status;
            let Some((_, crc)) = row_at(states, native, number) else { continue };
            let is_hit = hit.contains(&&**native) && number >= fault.drop_line;
            let mends = u32::from(is_hit && is_repaired);
            let now = (status.epoch - mends, snapshot.scales);
            let began = began_live.entry(Arc::clone(native)).or_insert(now);
            // A finer price begins an epoch, too.
            if began.1 != snapshot.scales {
                *began = now;
            }
            if is_hit && is_found && !is_repaired {
                assert_eq!(status.state, State::Gap, "{lost}: {native} at line {number}");
                let expected = match fault.how.as_deref() {
                    Some("gap") => Why::SequenceGap,
                    _ => Why::ChecksumMismatch,
                };
                assert_eq!(status.why, expected, "{lost}: {native} at line {number}");
                continue;
            }
            assert_eq!(status.state, State::Live, "{lost}: {native} at line {number}");
            assert_eq!(status.epoch, began.0 + mends, "{lost}: {native} at line {number}");
            if !is_hit || is_repaired {
                assert_eq!(crc_top20(&snapshot), crc, "{lost}: {native} at line {number}");
            }
        }
        if number >= fault.drop_line {
            if run.asks_for(&suspects, line.recv_ns) {
                assert!(is_found, "{lost}: nothing is known to be wrong at line {number}");
                image_due_at = Some(number + IMAGE_TAKES_LINES);
            }
        } else {
            run.requests.clear();
            run.feed.take_requests();
        }
    }
    // A loss that is found at the very end is not mended any more.
    let last_line = recording.lines.last().map_or(0, |line| line.number);
    let is_mendable =
        fault.first_detectable_at_line.is_some_and(|at| at + IMAGE_TAKES_LINES <= last_line);
    assert_eq!(is_repaired, is_mendable, "{lost}");
}

fn check(name: &str, faults_expected: usize) {
    let Some(folder) = recording::folder() else { return };
    let recording = recording::open(&folder, name);
    let states = states(&folder, name);
    check_states(&recording, &states, None);
    let faults = recorded::lost_lines(&recording::path(&folder, name)).unwrap();
    assert_eq!(faults.len(), faults_expected, "{name}: rows of faults.json");
    for fault in &faults {
        check_fault(&recording, &states, fault);
    }
}

#[test]
fn binance_spot_btcusdt() {
    check("binance-spot-btcusdt-20240808", 2);
}

#[test]
fn binance_spot_four_symbols() {
    check("binance-spot-4sym-20211012", 5);
}

#[test]
fn binance_usdm_btcusdt() {
    check("binance-usdm-btcusdt-20240808", 2);
}

#[test]
fn binance_usdm_four_symbols() {
    check("binance-usdm-4sym-20210722", 5);
}

#[test]
fn binance_coinm_btcusd_perp() {
    check("binance-coinm-btcusdperp-20240808", 2);
}

#[test]
fn kraken_v1_ten_symbols() {
    check("kraken-v1-10sym-20210417", 12);
}

#[test]
fn kraken_v2_ten_symbols() {
    check("kraken-v2-derived-10sym-20210417", 12);
}

#[test]
fn coinbase_exchange_ten_symbols() {
    check("coinbase-exchange-10sym-20210417", 0);
}

#[test]
fn coinbase_advanced_two_symbols() {
    check("coinbase-advanced-2sym-20260809", 3);
}

#[test]
fn deribit_ten_options() {
    check("deribit-10opt-20210722", 5);
}

#[test]
fn bitfinex_seven_symbols() {
    check("bitfinex-7sym-20210417", 5);
}

#[test]
fn okx_three_symbols() {
    check("okx-3sym-20220513", 8);
}

#[test]
fn bybit_linear_four_symbols() {
    check("bybit-linear-4sym-20260809", 5);
}

/// A short run of the synthetic exchange: the states of its own books must be what the feed makes of its
/// words.
fn check_exchange(options: ExchangeOptions) {
    let length = Length { duration_ns: 2_000_000_000, messages: 1_000 };
    let mut writer = Writer::<Vec<u8>, Vec<u8>>::default();
    record::exchange(options, length, &mut writer).unwrap();
    let [lines, states, _] = writer.into_texts();
    let name = format!("{}-seed{}", options.dialect.in_recordings(), options.seed);
    let recording = Recording::from_text(&name, lines).unwrap();
    let states = by_symbol(recorded::states_from_text(str::from_utf8(&states).unwrap()).unwrap());
    assert_eq!(states.len(), options.symbols, "{name}");
    let depth = Exchange::depth(options.dialect).map(|depth| u32::try_from(depth).unwrap());
    check_states(&recording, &states, depth);
}

#[test]
fn the_synthetic_exchange_of_every_dialect() {
    for dialect in Dialect::ALL {
        let options = ExchangeOptions::of(dialect, 11, 3, 1_790_000_000_000_000_000);
        // Deep books of which a timer tells where the venue has one, and small ones told at once.
        check_exchange(options);
        check_exchange(options.small(2_000_000));
    }
}
