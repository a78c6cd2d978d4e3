//! The truth against the recordings' own expected states, row by row.
//!
//! Needs the recordings, which are not part of this repository: `TICKFAN_RECORDINGS` names their
//! folder. Where it is absent the tests say so and pass, but not in CI.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::path::PathBuf;

use feed_sim::recording::{self, Recording, StateRow};
use feed_sim::truth::{Truth, TruthBook, normalise};
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
