//! The truth against the recordings' own expected states, row by row; and the replay of them, byte for
//! byte.
//!
//! Needs the recordings, which are not part of this repository: `TICKFAN_RECORDINGS` names their
//! folder. Where it is absent the tests say so and pass, but not in CI.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "support/client.rs"]
mod client;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use client::{connect, hear, http, say};

use feed_sim::recording::{self, Kind, Recording, StateRow};
use feed_sim::replay::{ReplayOptions, Speed, serve};
use feed_sim::truth::{Truth, TruthBook, normalise};
use feed_sim::venue::Dialect;
use serde_json::Value;
use tickfan_core::market::Side;

fn recordings() -> Option<PathBuf> {
    let folder = std::env::var_os("TICKFAN_RECORDINGS").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"),
        PathBuf::from,
    );
    if folder.is_dir() {
        return Some(folder);
    }
    assert!(std::env::var_os("CI").is_none(), "CI needs the recordings");
    eprintln!("skipped: no recordings at {}; set TICKFAN_RECORDINGS", folder.display());
    None
}

fn row(line: u64, symbol: &str, book: &TruthBook) -> StateRow {
    let best = |side| {
        book.best(side).map_or_else(Default::default, |l| (normalise(&l.px), normalise(&l.qty)))
    };
    let (bid_px, bid_qty) = best(Side::Bid);
    let (ask_px, ask_qty) = best(Side::Ask);
    let crc_top20 = book.crc_top20();
    let symbol = symbol.to_owned();
    StateRow { line, symbol, id: book.id(), bid_px, bid_qty, ask_px, ask_qty, crc_top20 }
}

fn every_state_is_reproduced(name: &str) {
    let Some(folder) = recordings() else { return };
    let path = folder.join(format!("{name}.tsv.zst"));
    let recording = Recording::open(&path).unwrap();
    let mut truth = Truth::new(recording.dialect);
    let mut states = recording::states(&path).unwrap().into_iter();
    let mut points = recording::truth_points(&path).unwrap().into_iter().peekable();
    for line in &recording.lines {
        if let Some(changed) = truth.apply_line(line) {
            let book = truth.book(&changed.symbol).unwrap();
            assert_eq!(Some(row(line.number, &changed.symbol, book)), states.next());
        }
        while let Some(point) = points.next_if(|point| point.after_message == line.number) {
            let book = truth.book(&point.symbol).unwrap();
            assert_eq!(book.depth(Side::Bid), point.bid_levels, "{}", line.number);
            assert_eq!(book.depth(Side::Ask), point.ask_levels, "{}", line.number);
        }
    }
    assert_eq!(states.next(), None);
    assert_eq!(points.next(), None);
}

/// Plays the recording at full speed to one client that subscribed to everything in it.
fn the_whole_of_it_arrives(name: &str) {
    let Some(folder) = recordings() else { return };
    let recording = Arc::new(Recording::open(&folder.join(format!("{name}.tsv.zst"))).unwrap());
    let sent: Vec<&str> = recording
        .lines
        .iter()
        .filter(|line| line.kind == Kind::Recv)
        .map(|line| line.text())
        .filter(|text| !text.contains(r#""method":"#) && !text.contains(r#""channel":"status""#))
        .collect();
    let options = ReplayOptions { speed: Speed::Max, hold: true, ..ReplayOptions::default() };
    let served = Arc::clone(&recording);
    let address = client::background(move |listener| serve(listener, served, options));
    let mut socket = connect(address, "/stream");
    let images: Vec<_> = recording.lines.iter().filter(|line| line.kind == Kind::Rest).collect();
    if recording.dialect == Dialect::Kraken {
        hear(&mut socket);
        let symbols: BTreeSet<_> = sent
            .iter()
            .filter_map(|text| {
                let message: Value = serde_json::from_str(text).unwrap();
                Some(message["data"][0]["symbol"].as_str()?.to_owned())
            })
            .collect();
        for channel in ["book", "trade", "ticker"] {
            let request = serde_json::json!({ "method": "subscribe", "params":
                { "channel": channel, "symbol": symbols, "depth": 1000 } });
            say(&mut socket, &request.to_string());
            for _ in &symbols {
                let ack = hear(&mut socket);
                assert!(ack.contains(r#""success":true"#), "{ack}");
            }
        }
    } else {
        let streams: BTreeSet<_> = sent
            .iter()
            .map(|text| serde_json::from_str::<Value>(text).unwrap()["stream"].to_string())
            .map(|quoted| quoted.trim_matches('"').to_owned())
            .collect();
        let request = serde_json::json!({ "method": "SUBSCRIBE", "params": streams, "id": 1 });
        say(&mut socket, &request.to_string());
        hear(&mut socket);
    }
    let root = match recording.dialect {
        Dialect::BinanceUsdm => "/fapi/v1",
        Dialect::BinanceCoinm => "/dapi/v1",
        _ => "/api/v3",
    };
    let fetch = |symbol: &str| {
        let target = format!("{root}/depth?symbol={symbol}&limit=1000");
        std::thread::spawn(move || http(address, "GET", &target))
    };
    let fetched: Vec<_> = images.iter().map(|line| fetch(line.rest_symbol().unwrap())).collect();
    assert_eq!(http(address, "POST", "/replay/start").0, 200);
    for (index, text) in sent.iter().enumerate() {
        assert_eq!(hear(&mut socket), *text, "message {index}");
    }
    for (fetched, line) in fetched.into_iter().zip(images) {
        assert_eq!(fetched.join().unwrap(), (200, line.text().to_owned()));
    }
}

#[test]
fn binance_spot_4sym_arrives() {
    the_whole_of_it_arrives("binance-spot-4sym-20211012");
}

#[test]
fn binance_usdm_btcusdt_arrives() {
    the_whole_of_it_arrives("binance-usdm-btcusdt-20240808");
}

#[test]
fn binance_coinm_btcusdperp_arrives() {
    the_whole_of_it_arrives("binance-coinm-btcusdperp-20240808");
}

#[test]
fn kraken_v2_derived_10sym_arrives() {
    the_whole_of_it_arrives("kraken-v2-derived-10sym-20210417");
}

#[test]
fn binance_spot_btcusdt() {
    every_state_is_reproduced("binance-spot-btcusdt-20240808");
}

#[test]
fn binance_spot_4sym() {
    every_state_is_reproduced("binance-spot-4sym-20211012");
}

#[test]
fn binance_usdm_btcusdt() {
    every_state_is_reproduced("binance-usdm-btcusdt-20240808");
}

#[test]
fn binance_usdm_4sym() {
    every_state_is_reproduced("binance-usdm-4sym-20210722");
}

#[test]
fn binance_coinm_btcusdperp() {
    every_state_is_reproduced("binance-coinm-btcusdperp-20240808");
}

#[test]
fn kraken_v2_derived_10sym() {
    every_state_is_reproduced("kraken-v2-derived-10sym-20210417");
}
