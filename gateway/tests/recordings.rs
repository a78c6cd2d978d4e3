//! Recorded exchange bytes in, exact states out: every publication of a feed that is driven by a
//! recording must equal the row of the independently rebuilt states, whatever the batches.
//!
//! The recordings are not part of the repository. Without them the tests say so and pass, except in
//! CI, where their absence is a failure.

#![allow(clippy::unwrap_used, reason = "a test that cannot read its recording must fail")]

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use tickfan::feed::{Feed, FeedOptions, Request};
use tickfan::stats::Stats;
use tickfan_core::decimal::write_decimal;
use tickfan_core::market::{EventBatch, Level, Nanos, Scales, State, Venue};
use tickfan_core::snapshot::{Entry, Registry, Snapshot};

struct Line {
    number: u64,
    recv_ns: Nanos,
    kind: String,
    stream: String,
    payload: String,
}

fn folder() -> Option<PathBuf> {
    let folder = std::env::var_os("TICKFAN_RECORDINGS").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"),
        PathBuf::from,
    );
    if folder.is_dir() {
        return Some(folder);
    }
    assert!(std::env::var_os("CI").is_none(), "no recordings at {}", folder.display());
    eprintln!("skipped: no recordings at {}; set TICKFAN_RECORDINGS", folder.display());
    None
}

fn text(path: PathBuf) -> String {
    let file = std::fs::File::open(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    String::from_utf8(zstd::decode_all(file).unwrap()).unwrap()
}

fn lines(name: &str) -> Vec<Line> {
    text(folder().unwrap().join(format!("{name}.tsv.zst")))
        .lines()
        .enumerate()
        .map(|(i, line)| {
            let mut fields = line.splitn(4, '\t').map(str::to_owned);
            let mut next = || fields.next().unwrap();
            Line {
                number: i as u64 + 1,
                recv_ns: next().parse().unwrap(),
                kind: next(),
                stream: next(),
                payload: next(),
            }
        })
        .collect()
}

/// Checksums of the best 20 levels, by symbol: (line, checksum) in order.
fn states(name: &str) -> HashMap<String, Vec<(u64, u32)>> {
    let mut states: HashMap<String, Vec<(u64, u32)>> = HashMap::new();
    for row in text(folder().unwrap().join(format!("{name}.states.tsv.zst"))).lines() {
        let fields: Vec<&str> = row.split('\t').collect();
        states
            .entry(fields[1].to_owned())
            .or_default()
            .push((fields[0].parse().unwrap(), fields[7].parse().unwrap()));
    }
    states
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
}

fn run(venue: Venue, symbols: &[&str]) -> Run {
    let natives: Vec<Arc<str>> = symbols.iter().map(|symbol| Arc::from(*symbol)).collect();
    let entries = Registry::new(100).register(venue, &natives, 7, 1).unwrap();
    let mut feed = Feed::new(FeedOptions {
        venue,
        instruments: entries.iter().map(|entry| (Arc::clone(entry), None)).collect(),
        depth: Some(1000),
        trades: None,
        marks: Vec::new(),
        stats: Stats::default().feed(venue),
        seed: 1,
    });
    feed.on_connected(1);
    Run { feed, entries }
}

impl Run {
    fn line(&mut self, line: &Line) {
        match line.kind.as_str() {
            "recv" => self.feed.on_message(&mut line.payload.clone().into_bytes(), line.recv_ns),
            "rest" => {
                let entry = self
                    .entries
                    .iter()
                    .find(|e| line.stream.contains(&format!("symbol={}&", e.instrument.native)))
                    .unwrap();
                let id = entry.instrument.id;
                let mut image = EventBatch::default();
                let mut body = line.payload.clone().into_bytes();
                (self.feed.decoder().image_decoder())(id, &mut body, &mut image).unwrap();
                // The feed has asked for it by now: its subscription is never confirmed here.
                self.feed.on_time(line.recv_ns);
                self.feed.on_image(id, Some(image), line.recv_ns);
            }
            _ => {}
        }
    }
}

fn check(venue: Venue, name: &str) {
    if folder().is_none() {
        return;
    }
    let states = states(name);
    let mut symbols: Vec<&str> = states.keys().map(String::as_str).collect();
    symbols.sort_unstable();
    let lines = lines(name);
    // Batches of one message show every state; longer ones must show some, in order.
    for batch in [1, 7, 256] {
        let mut run = run(venue, &symbols);
        let mut shown: HashMap<Arc<str>, u64> = HashMap::new();
        let entries = run.entries.clone();
        let mut publications = 0;
        for (i, line) in lines.iter().enumerate() {
            run.line(line);
            let is_end = i + 1 == lines.len() || i % batch == batch - 1;
            if !is_end {
                continue;
            }
            run.feed.publish(line.recv_ns);
            for entry in &entries {
                let snapshot = entry.load();
                let native = &entry.instrument.native;
                let row = states[&**native].iter().take_while(|(at, _)| *at <= line.number).last();
                match (snapshot.book.status.state, row) {
                    (State::Syncing, None) => {}
                    (State::Live, Some((at, crc))) => {
                        assert_eq!(
                            crc_top20(&snapshot),
                            *crc,
                            "{name}: {native} after line {}, state of line {at}",
                            line.number
                        );
                        publications +=
                            usize::from(shown.insert(Arc::clone(native), *at) != Some(*at));
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

#[test]
fn binance_spot_btcusdt() {
    check(Venue::BinanceSpot, "binance-spot-btcusdt-20240808");
}

#[test]
fn binance_spot_four_symbols() {
    check(Venue::BinanceSpot, "binance-spot-4sym-20211012");
}

#[test]
fn binance_usdm_btcusdt() {
    check(Venue::BinanceUsdm, "binance-usdm-btcusdt-20240808");
}

#[test]
fn binance_usdm_four_symbols() {
    check(Venue::BinanceUsdm, "binance-usdm-4sym-20210722");
}

#[test]
fn binance_coinm_btcusd_perp() {
    check(Venue::BinanceCoinm, "binance-coinm-btcusdperp-20240808");
}

#[test]
fn kraken_ten_symbols() {
    check(Venue::Kraken, "kraken-v2-derived-10sym-20210417");
}
