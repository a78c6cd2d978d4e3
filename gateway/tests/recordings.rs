//! Recorded exchange bytes in, exact states out: every publication of a feed that is driven by a
//! recording must equal the row of the independently rebuilt states, whatever the batches; and with
//! one line lost, the book must say so at the line where a client can know it, and come back right.

#![allow(clippy::unwrap_used, reason = "a test that cannot read its recording must fail")]

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use feed_sim::recording::{self as recorded, Kind, Line, LostLine, Recording};
use feed_sim::truth::{Truth, TruthBook};
use tickfan::feed::{Feed, FeedOptions, Request};
use tickfan::stats::Stats;
use tickfan_core::decimal::{Decimal, fraction_digits, write_decimal};
use tickfan_core::market::{
    BookEvent, BookKind, Continuity, EventBatch, InstrumentId, Level, LevelChange, MarketEvent,
    Scales, Side, State, Why,
};
use tickfan_core::snapshot::{Entry, Registry, Snapshot};

#[path = "common/recording.rs"]
mod recording;

/// The rows of the states of each symbol: line and checksum of the best 20 levels, in order.
type States = HashMap<String, Vec<(u64, u32)>>;

fn states(folder: &Path, name: &str) -> States {
    let mut states = States::new();
    for row in recorded::states(&recording::path(folder, name)).unwrap() {
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

/// The way on which an image comes.
#[derive(Clone, Copy)]
enum Way {
    Rest,
    Stream,
}

struct Run {
    feed: Feed,
    entries: Vec<Arc<Entry>>,
}

fn run(recording: &Recording, states: &States) -> Run {
    let venue = recording.dialect.venue();
    let mut natives: Vec<Arc<str>> = states.keys().map(|symbol| Arc::from(&**symbol)).collect();
    natives.sort_unstable();
    let entries = Registry::new(100).register(venue, &natives, 7, 1).unwrap();
    let mut feed = Feed::new(FeedOptions {
        venue,
        instruments: entries.iter().map(|entry| (Arc::clone(entry), None)).collect(),
        depth: None,
        trades: None,
        marks: Vec::new(),
        stats: Stats::default().feed(venue),
        seed: 1,
    });
    feed.on_connected(recording.lines[0].recv_ns);
    Run { feed, entries }
}

impl Run {
    fn entry(&self, symbol: &str) -> Arc<Entry> {
        let of = |entry: &&Arc<Entry>| &*entry.instrument.native == symbol;
        Arc::clone(self.entries.iter().find(of).unwrap())
    }

    fn line(&mut self, line: &Line) {
        match line.kind {
            Kind::Recv => self.feed.on_message(&mut line.payload.to_vec(), line.recv_ns),
            Kind::Rest => {
                // The feed has asked for it by now: its subscription is never confirmed here.
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
        self.feed.on_image(id, Some(image), now);
    }

    /// How the feed has asked for the books of `symbols` anew, and for nothing else.
    fn asks_for(&mut self, symbols: &[&str], now: u64) -> Option<ImageFrom> {
        self.feed.on_time(now);
        let mut requests = self.feed.take_requests();
        let keepalive = self.feed.decoder().keepalive().map(|(text, _)| Request::Send(text));
        requests.retain(|request| Some(request) != keepalive.as_ref());
        let mut from = None;
        for request in &requests {
            let (text, begin, end, way) = match request {
                Request::Image { path, .. } => (path, "symbol=", "&", ImageFrom::Rest),
                Request::Send(text) => (text, "", "", ImageFrom::Stream),
                Request::Reconnect => panic!("{symbols:?}: a reconnect"),
            };
            let names = |symbol: &&str| text.contains(&format!("{begin}{symbol}{end}"));
            assert!(symbols.iter().any(names), "{symbols:?}: {text}");
            from = Some(way);
        }
        from
    }
}

/// Where an image comes from that was asked for.
#[derive(Debug, Clone, Copy)]
enum ImageFrom {
    Rest,
    Stream,
}

/// Every publication equals a row of the states.
fn check_states(name: &str) {
    let Some(folder) = recording::folder() else { return };
    let recording = recording::open(&folder, name);
    let states = states(&folder, name);
    // Batches of one message show every state; longer ones must show some, in order.
    for batch in [1, 7, 256] {
        let mut run = run(&recording, &states);
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
                match (snapshot.book.status.state, row_at(&states, native, line.number)) {
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
        assert!(!run.feed.take_requests().contains(&Request::Reconnect), "{name} is whole");
        if batch == 1 {
            let rows: usize = states.values().map(Vec::len).sum();
            assert_eq!(publications, rows, "{name}: every row was published");
        }
    }
}

/// How many lines of the recording pass between a request for an image and its answer.
const IMAGE_TAKES_LINES: u64 = 5;

/// The whole book as its venue would send it, in the message of this number.
fn image_of(venue: Venue, symbol: &str, book: &TruthBook, number: u64) -> String {
    let levels = |side, [begin, middle, end]: [&str; 3]| {
        let texts: Vec<String> = book
            .levels(side)
            .take(DEPTH as usize)
            .map(|level| format!("{begin}{}{middle}{}{end}", level.px, level.qty))
            .collect();
        texts.join(",")
    };
    match venue {
        Venue::Kraken => {
            let levels = |side| levels(side, ["{\"price\":", ",\"qty\":", "}"]);
            format!(
                r#"{{"channel":"book","type":"snapshot","data":[{{"symbol":"{symbol}","bids":[{}],"asks":[{}],"checksum":{}}}]}}"#,
                levels(Side::Bid),
                levels(Side::Ask),
                kraken_checksum(book)
            )
        }
        Venue::CoinbaseAdvanced => {
            let levels = |side, word| {
                let begin = format!(r#"{{"side":"{word}","price_level":""#);
                levels(side, [&begin, r#"","new_quantity":""#, r#""}"#])
            };
            format!(
                r#"{{"channel":"l2_data","sequence_num":{number},"events":[{{"type":"snapshot","product_id":"{symbol}","updates":[{},{}]}}]}}"#,
                levels(Side::Bid, "bid"),
                levels(Side::Ask, "offer")
            )
        }
        Venue::KrakenV1 => {
            // Every level of a snapshot has its time.
            let levels = |side| levels(side, ["[\"", "\",\"", "\",\"1618678133.0\"]"]);
            format!(
                r#"[0,{{"as":[{}],"bs":[{}]}},"book-1000","{symbol}"]"#,
                levels(Side::Ask),
                levels(Side::Bid)
            )
        }
        _ => {
            let levels = |side| levels(side, ["[\"", "\",\"", "\"]"]);
            format!(
                r#"{{"lastUpdateId":{},"bids":[{}],"asks":[{}]}}"#,
                book.id().unwrap(),
                levels(Side::Bid),
                levels(Side::Ask)
            )
        }
    }
}

/// Where the venue numbers every message of a connection: the text around the number, and it.
fn numbered(venue: Venue, text: &str) -> Option<(&str, u64, &str)> {
    if venue != Venue::CoinbaseAdvanced {
        return None;
    }
    let (before, rest) = text.split_once(r#""sequence_num":"#)?;
    let (number, after) = rest.split_once(',')?;
    Some((before, number.parse().unwrap(), after))
}

/// A line as it comes after `more` messages that the recording does not have.
fn shifted(venue: Venue, line: &Line, more: u64) -> Line {
    let mut line = line.clone();
    if let Some((before, number, after)) = numbered(venue, line.text()) {
        let text = format!(r#"{before}"sequence_num":{},{after}"#, number + more);
        line.payload = text.into();
    }
    line
}

/// As Kraken documents it: the ten best asks, then bids, without points and leading zeros.
fn kraken_checksum(book: &TruthBook) -> u32 {
    let digits = |text: &str| text.replace('.', "").trim_start_matches('0').to_owned();
    let text: String = [Side::Ask, Side::Bid]
        .into_iter()
        .flat_map(|side| book.levels(side).take(10))
        .map(|level| digits(&level.px) + &digits(&level.qty))
        .collect();
    crc32fast::hash(text.as_bytes())
}

/// One line is lost: the book says so exactly where a client can know, is repaired by an image, and
/// is right from there on; no other symbol notices, but where the venue numbers the messages of the
/// connection: then nobody can know whose was lost.
fn check_fault(recording: &Recording, states: &States, fault: &LostLine) {
    let lost = format!("{} without line {}", recording.name, fault.drop_line);
    let mut run = run(recording, states);
    let mut truth = Truth::new(recording.dialect);
    let entries = run.entries.clone();
    let is_numbered = recording.lines.iter().any(|line| numbered(venue, line.text()).is_some());
    let hit: Vec<&str> = entries
        .iter()
        .map(|entry| &*entry.instrument.native)
        .filter(|native| is_numbered || **native == *fault.symbol)
        .collect();
    let mut began_live: HashMap<Arc<str>, u32> = HashMap::new();
    let mut image_due = None;
    let mut is_repaired = false;
    let (mut images_sent, mut newest_number) = (0, 0);
    for line in &recording.lines {
        truth.apply_line(line);
        let number = line.number;
        if number != fault.drop_line {
            run.line(&shifted(venue, line, images_sent));
        }
        if let Some((_, number, _)) = numbered(venue, line.text()) {
            newest_number = number;
        }
        if let Some((due_at, from)) = image_due
            && number >= due_at
        {
            for symbol in &hit {
                let book = truth.book(symbol).unwrap();
                let image = image_of(venue, symbol, book, newest_number + images_sent + 1);
                let mut image = image.into_bytes();
                match from {
                    ImageFrom::Rest => run.rest_image(symbol, &mut image, line.recv_ns),
                    ImageFrom::Stream => {
                        run.feed.on_message(&mut image, line.recv_ns);
                        images_sent += 1;
                    }
                }
            }
            image_due = None;
            is_repaired = true;
        }
        let is_found = fault.first_detectable_at_line.is_some_and(|at| number >= at);
        run.feed.publish(line.recv_ns);
        for entry in &entries {
            let snapshot = entry.load();
            let native = &entry.instrument.native;
            let status = snapshot.book.status;
            let Some((_, crc)) = row_at(states, native, number) else { continue };
            let began = *began_live.entry(Arc::clone(native)).or_insert(status.epoch);
            let is_hit = hit.contains(&&**native) && number >= fault.drop_line;
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
            let expected_epoch = if is_hit && is_repaired { began + 1 } else { began };
            assert_eq!(status.epoch, expected_epoch, "{lost}: {native} at line {number}");
            if !is_hit || is_repaired {
                assert_eq!(crc_top20(&snapshot), crc, "{lost}: {native} at line {number}");
            }
        }
        if number >= fault.drop_line {
            if let Some(from) = run.asks_for(&hit, line.recv_ns) {
                assert!(is_found, "{lost}: nothing is known to be wrong at line {number}");
                image_due = Some((number + IMAGE_TAKES_LINES, from));
            }
        } else {
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
    check_states(name);
    let Some(folder) = recording::folder() else { return };
    let recording = recording::open(&folder, name);
    let states = states(&folder, name);
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
    check_states("deribit-10opt-20210722");
}

#[test]
fn bitfinex_seven_symbols() {
    check_states("bitfinex-7sym-20210417");
}
