//! Turns recorded venue messages into events through the decoders, and counts them.
//!
//! The recordings are what the venues sent, so this is the proof that the decoders read real
//! messages and not our idea of them. The folder is named by `TICKFAN_RECORDINGS`; without one the
//! test passes, except in CI.

#![allow(clippy::unwrap_used, reason = "a test that cannot read its recording must fail")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use tickfan::venue::{Resync, Subscription, TradeStream, VenueDecoder, decoder};
use tickfan_core::market::{BookKind, EventBatch, InstrumentId, MarketEvent, Venue};

fn recordings() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let folder = std::env::var_os("TICKFAN_RECORDINGS").map_or_else(beside, PathBuf::from);
    if folder.join("manifest.json").is_file() {
        return Some(folder);
    }
    assert!(std::env::var_os("CI").is_none(), "no recordings in {}", folder.display());
    eprintln!("skipped: no recordings in {} (set TICKFAN_RECORDINGS)", folder.display());
    None
}

/// The lines of a recording: kind, stream and payload.
fn lines(folder: &Path, name: &str) -> impl Iterator<Item = (String, String, Vec<u8>)> {
    let file = std::fs::File::open(folder.join(format!("{name}.tsv.zst"))).unwrap();
    let reader = BufReader::new(zstd::Decoder::new(file).unwrap());
    reader.lines().map(|line| {
        let line = line.unwrap();
        let mut fields = line.splitn(4, '\t').skip(1).map(str::to_owned);
        let mut next = || fields.next().unwrap();
        (next(), next(), next().into_bytes())
    })
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    images: u64,
    deltas: u64,
    bbos: u64,
    trades: u64,
    subscribed: u64,
    others: u64,
}

impl Counts {
    fn add(&mut self, batch: &EventBatch) {
        for event in &batch.events {
            *match event {
                MarketEvent::Book(book) if book.kind == BookKind::Image => &mut self.images,
                MarketEvent::Book(_) => &mut self.deltas,
                MarketEvent::Bbo(_) => &mut self.bbos,
                MarketEvent::Trades(_) => &mut self.trades,
                MarketEvent::Subscribed { .. } => &mut self.subscribed,
                MarketEvent::Refused { .. } | MarketEvent::Reply(_) | MarketEvent::Shutdown => {
                    &mut self.others
                }
            } += 1;
        }
    }
}

fn replay(
    folder: &Path,
    name: &str,
    venue: Venue,
    symbols: &[&str],
    trades: TradeStream,
) -> (Counts, Box<dyn VenueDecoder>) {
    let instruments = symbols.iter().zip(0..).map(|(s, id)| (InstrumentId(id), (*s).into()));
    let subscription =
        Subscription { instruments: instruments.collect(), depth: None, trades: Some(trades) };
    let mut decoder = decoder(venue, subscription);
    let image = decoder.image_decoder();
    let (mut counts, mut batch) = (Counts::default(), EventBatch::default());
    for (number, (kind, stream, mut payload)) in (1..).zip(lines(folder, name)) {
        batch.clear();
        match kind.as_str() {
            "recv" => decoder
                .decode(&mut payload, &mut batch)
                .unwrap_or_else(|error| panic!("{name} line {number}: {error:?}")),
            "rest" => {
                let symbol = symbols.iter().position(|s| stream.contains(&format!("={s}&")));
                let id = InstrumentId(symbol.unwrap() as u32);
                image(id, &mut payload, &mut batch).unwrap();
            }
            _ => {}
        }
        counts.add(&batch);
    }
    (counts, decoder)
}

#[test]
fn binance_recordings_decode_to_the_counts_of_their_manifest() {
    let Some(folder) = recordings() else { return };
    let manifest = std::fs::read_to_string(folder.join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    let four_spot = ["NKNUSDT", "BLZETH", "LRCBTC", "RUNEEUR"];
    let four_usdm = ["SUSHIUSDT", "AKROUSDT", "KEEPUSDT", "CTKUSDT"];
    for (name, venue, symbols, trades) in [
        ("binance-spot-btcusdt-20240808", Venue::BinanceSpot, &["BTCUSDT"][..], TradeStream::Trade),
        ("binance-spot-4sym-20211012", Venue::BinanceSpot, &four_spot, TradeStream::AggTrade),
        ("binance-usdm-btcusdt-20240808", Venue::BinanceUsdm, &["BTCUSDT"], TradeStream::Trade),
        ("binance-usdm-4sym-20210722", Venue::BinanceUsdm, &four_usdm, TradeStream::AggTrade),
        (
            "binance-coinm-btcusdperp-20240808",
            Venue::BinanceCoinm,
            &["BTCUSD_PERP"],
            TradeStream::Trade,
        ),
    ] {
        let counters = &manifest[format!("{name}.tsv.zst")]["counters"];
        let count = |counter: &str| counters[counter].as_u64().unwrap_or(0);
        let expected = Counts {
            images: count("rest_snapshots"),
            deltas: count("msg_depth"),
            bbos: count("msg_bookTicker"),
            trades: count("msg_trade") + count("msg_aggTrade"),
            ..Counts::default()
        };
        assert_ne!(expected, Counts::default(), "{name} is not in the manifest");
        let (counts, _) = replay(&folder, name, venue, symbols, trades);
        assert_eq!(counts, expected, "{name}");
    }
}

#[test]
fn the_kraken_recording_decodes_whole() {
    let Some(folder) = recordings() else { return };
    let name = "kraken-v2-derived-10sym-20210417";
    let symbols = [
        "WAVES/EUR",
        "XMR/USD",
        "KSM/BTC",
        "GRT/ETH",
        "SC/EUR",
        "ETH/CHF",
        "OCEAN/BTC",
        "OMG/USD",
        "BTC/CHF",
        "ADA/BTC",
    ];
    let (counts, mut decoder) = replay(&folder, name, Venue::Kraken, &symbols, TradeStream::Trade);
    // The manifest has no counts of this one; the catalogue has 4 279 checksums, 10 of them of
    // snapshots.
    let messages = |wanted: &[u8]| {
        let received = lines(&folder, name).filter(|(kind, ..)| kind == "recv");
        received.filter(|(_, _, payload)| payload.starts_with(wanted)).count() as u64
    };
    let trades = messages(br#"{"channel":"trade","type":"update""#);
    assert!(trades > 0);
    assert_eq!(
        counts,
        Counts { images: 10, deltas: 4269, trades, subscribed: 20, ..Counts::default() }
    );
    assert_eq!(decoder.resync(InstrumentId(0), true), Resync::Send(Vec::new()));
}
