//! Turns recorded venue messages into events through the decoders, and counts them.
//!
//! The recordings are what the venues sent, so this is the proof that the decoders read real
//! messages and not our idea of them.

#![allow(clippy::unwrap_used, reason = "a test that cannot read its recording must fail")]

use std::path::Path;

use feed_sim::recording::Kind;
use tickfan::venue::{LargeImage, Resync, Subscription, TradeStream, VenueDecoder, decoder};
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
    numbered: u64,
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
                MarketEvent::Numbered(_) => &mut self.numbered,
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
fn the_kraken_recordings_decode_whole() {
    let Some(folder) = recording::folder() else { return };
    let pairs = [
        "WAVES/EUR",
        "XMR/USD",
        "KSM/XBT",
        "GRT/ETH",
        "SC/EUR",
        "ETH/CHF",
        "OCEAN/XBT",
        "OMG/USD",
        "XBT/CHF",
        "ADA/XBT",
    ];
    let renamed = pairs.map(|pair| pair.replace("XBT", "BTC"));
    let renamed = renamed.each_ref().map(String::as_str);
    // The manifest counts version 1 only; version 2 was derived from it line by line.
    let expected = Counts {
        images: 10,
        deltas: 4269,
        trades: 8,
        subscribed: 20,
        // The state of the venue on each of three connections.
        others: 3,
        ..Counts::default()
    };
    for (name, venue, symbols) in [
        ("kraken-v1-10sym-20210417", Venue::KrakenV1, &pairs),
        ("kraken-v2-derived-10sym-20210417", Venue::Kraken, &renamed),
    ] {
        let (counts, mut decoder) = replay(&folder, name, venue, symbols, TradeStream::Trade);
        assert_eq!(counts, expected, "{name}");
        assert_eq!(decoder.resync(InstrumentId(0), true), Resync::Send(Vec::new()));
    }
}

#[test]
fn the_coinbase_exchange_recording_decodes_to_the_counts_of_its_manifest() {
    let Some(folder) = recording::folder() else { return };
    let name = "coinbase-exchange-10sym-20210417";
    let symbols = [
        "SKL-USD", "SKL-BTC", "SKL-GBP", "BAND-GBP", "BAND-BTC", "NMR-EUR", "YFI-BTC", "DASH-BTC",
        "NU-GBP", "CRV-EUR",
    ];
    let (counts, _) = replay(&folder, name, Venue::Coinbase, &symbols, TradeStream::Trade);
    // Each of three acknowledgements tells all that is subscribed to by then: three times the ten
    // books, once the ten trade streams.
    let expected =
        Counts { images: 10, deltas: 6358, trades: 36, subscribed: 40, ..Counts::default() };
    assert_eq!(counts, expected);
}

#[test]
fn the_coinbase_advanced_recording_decodes_to_the_counts_of_its_manifest() {
    let Some(folder) = recording::folder() else { return };
    let name = "coinbase-advanced-2sym-20260809";
    let symbols = ["BTC-USD", "ETH-USD"];
    let (counts, decoder) =
        replay(&folder, name, Venue::CoinbaseAdvanced, &symbols, TradeStream::Trade);
    // Two of the 43 messages of trades are history. Each of the 667 messages has its number.
    let expected = Counts {
        images: 2,
        deltas: 492,
        trades: 41,
        subscribed: 14,
        numbered: 667,
        ..Counts::default()
    };
    assert_eq!(counts, expected);

    let large: Vec<(u64, LargeImage)> = recording::open(&folder, name)
        .lines
        .iter()
        .filter_map(|line| Some((line.number, decoder.large_image(&line.payload)?)))
        .collect();
    let image = |id, number| LargeImage { instrument: InstrumentId(id), number: Some(number) };
    assert_eq!(large, [(20, image(0, 13)), (28, image(1, 21))]);
}

#[test]
fn the_deribit_recording_decodes_whole() {
    let Some(folder) = recording::folder() else { return };
    let symbols = [
        "BTC-24SEP21-8000-P",
        "BTC-30JUL21-24000-P",
        "ETH-30JUL21-2800-C",
        "BTC-31DEC21-34000-P",
        "BTC-24SEP21-34000-P",
        "BTC-24JUN22-15000-C",
        "BTC-31DEC21-300000-C",
        "ETH-27AUG21-4000-P",
        "BTC-25MAR22-30000-C",
        "ETH-23JUL21-2300-C",
    ];
    let name = "deribit-10opt-20210722";
    let (counts, mut decoder) = replay(&folder, name, Venue::Deribit, &symbols, TradeStream::Trade);
    // The catalogue has 46 messages of books, 36 of them with a `prev_change_id`, and no trade.
    assert_eq!(counts, Counts { images: 10, deltas: 36, subscribed: 20, ..Counts::default() });
    assert_eq!(decoder.resync(InstrumentId(0), true), Resync::Send(Vec::new()));
}

#[test]
fn the_bitfinex_recording_decodes_whole() {
    let Some(folder) = recording::folder() else { return };
    let symbols =
        ["tBFTUSD", "tIOTETH", "tDOGUSD", "tMNABTC", "tODEUSD", "tTESTBTC:TESTUSD", "tSNGUSD"];
    let name = "bitfinex-7sym-20210417";
    let (counts, mut decoder) =
        replay(&folder, name, Venue::Bitfinex, &symbols, TradeStream::Trade);
    // The catalogue has 1,669 steps of the connection's number: one message more. Trades are history
    // only. What is left is the greeting, which says that the venue trades.
    let expected = Counts {
        images: 7,
        deltas: 1593,
        subscribed: 14,
        numbered: 1670,
        others: 1,
        ..Counts::default()
    };
    assert_eq!(counts, expected);
    assert_eq!(decoder.resync(InstrumentId(0), true), Resync::Send(Vec::new()));
}
