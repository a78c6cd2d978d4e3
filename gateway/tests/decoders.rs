//! Turns recorded venue messages into events through the decoders, and counts them.
//!
//! The recordings are what the venues sent, so this is the proof that the decoders read real
//! messages and not our idea of them.

#![allow(clippy::unwrap_used, reason = "a test that cannot read its recording must fail")]

use std::path::Path;

use feed_sim::recording::{Kind, Line};
use tickfan::venue::{Resync, Subscription, TradeStream, VenueDecoder, decoder};
use tickfan_core::market::{BookKind, EventBatch, InstrumentId, MarketEvent, Venue};

#[path = "common/recording.rs"]
mod recording;

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
                _ => &mut self.others,
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
    for line in recording::open(folder, name).lines {
        let mut payload = line.payload.to_vec();
        batch.clear();
        match line.kind {
            Kind::Recv => decoder
                .decode(&mut payload, &mut batch)
                .unwrap_or_else(|error| panic!("{name} line {}: {error:?}", line.number)),
            Kind::Rest => {
                let symbol = symbols.iter().position(|s| Some(*s) == line.rest_symbol());
                let id = InstrumentId(symbol.unwrap() as u32);
                image(id, &mut payload, &mut batch).unwrap();
            }
            Kind::Open | Kind::Send => {}
        }
        counts.add(&batch);
    }
    (counts, decoder)
}

#[test]
fn recordings_decode_to_the_counts_of_their_manifest() {
    let Some(folder) = recording::folder() else { return };
    let manifest = std::fs::read_to_string(folder.join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    let four_spot = ["NKNUSDT", "BLZETH", "LRCBTC", "RUNEEUR"];
    let four_usdm = ["SUSHIUSDT", "AKROUSDT", "KEEPUSDT", "CTKUSDT"];
    let three_okx = ["BTC-USDT", "UNI-USD-SWAP", "BTC-USD-220527"];
    let four_linear = ["BTCUSDT", "ETHUSDT", "SOLUSDT", "DOGEUSDT"];
    let (trade, aggregate) = (TradeStream::Trade, TradeStream::AggTrade);
    for (name, venue, symbols, trades, subscribed) in [
        ("binance-spot-btcusdt-20240808", Venue::BinanceSpot, &["BTCUSDT"][..], trade, 0),
        ("binance-spot-4sym-20211012", Venue::BinanceSpot, &four_spot, aggregate, 0),
        ("binance-usdm-btcusdt-20240808", Venue::BinanceUsdm, &["BTCUSDT"], trade, 0),
        ("binance-usdm-4sym-20210722", Venue::BinanceUsdm, &four_usdm, aggregate, 0),
        ("binance-coinm-btcusdperp-20240808", Venue::BinanceCoinm, &["BTCUSD_PERP"], trade, 0),
        // Of 18 acknowledgements half are of tickers; the trades of every symbol come twice.
        ("okx-3sym-20220513", Venue::Okx, &three_okx, trade, 9),
        // The recorder gave its requests no names, so that an acknowledgement says nothing.
        ("bybit-linear-4sym-20260809", Venue::BybitLinear, &four_linear, trade, 0),
    ] {
        let counters = &manifest[format!("{name}.tsv.zst")]["counters"];
        let count = |names: &[&str]| -> u64 {
            names.iter().map(|name| counters[*name].as_u64().unwrap_or(0)).sum()
        };
        let expected = Counts {
            images: count(&["rest_snapshots", "msg_books_snapshot", "msg_orderbook_snapshot"]),
            deltas: count(&["msg_depth", "msg_books_update", "msg_orderbook_delta"]),
            bbos: count(&["msg_bookTicker"]),
            trades: count(&["msg_trade", "msg_aggTrade", "msg_trades", "msg_publicTrade"]),
            subscribed,
            ..Counts::default()
        };
        assert_ne!(expected.images, 0, "{name} is not in the manifest");
        let (counts, _) = replay(&folder, name, venue, symbols, trades);
        assert_eq!(counts, expected, "{name}");
    }
}

#[test]
fn the_kraken_recording_decodes_whole() {
    let Some(folder) = recording::folder() else { return };
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
    let is_trade = |line: &&Line| {
        line.kind == Kind::Recv && line.text().starts_with(r#"{"channel":"trade","type":"update""#)
    };
    let trades = recording::open(&folder, name).lines.iter().filter(is_trade).count() as u64;
    assert!(trades > 0);
    assert_eq!(
        counts,
        Counts { images: 10, deltas: 4269, trades, subscribed: 20, ..Counts::default() }
    );
    assert_eq!(decoder.resync(InstrumentId(0), true), Resync::Send(Vec::new()));
}
