//! Every venue, every fault that applies to it, twenty seeds; and the planted bugs that they must
//! catch.

use feed_sim::venue::Dialect;

use super::cut::cut_everywhere;
use super::fault::Fault;
use super::{Outcome, World};
use crate::limits::MILLI_NS;
use crate::mutant::{Mutant, plant};

/// Seeds of each fault at each venue.
const SEEDS: u64 = 20;

/// How long after a fault's end all must be right again: 99 of 100 times, over all seeds of a venue
/// and a fault.
const RIGHT_AFTER_NS_MAX: u64 = 150 * MILLI_NS;

fn run(dialect: Dialect, fault: Fault, seed: u64) -> Result<Outcome, String> {
    World::new(dialect, fault, seed)
        .run()
        .map_err(|what| format!("{dialect:?}, {fault:?}, seed {seed}: {what}"))
}

/// What is wrong with what all seeds of a fault came to.
fn judge(dialect: Dialect, fault: Fault, outcomes: &[Outcome]) -> Result<(), String> {
    let hold = |holds: bool, what: &str| {
        if holds { Ok(()) } else { Err(format!("{dialect:?}, {fault:?}: {what}: {outcomes:?}")) }
    };
    hold(outcomes.iter().all(|outcome| outcome.happened > 0), "it did not happen")?;
    hold(outcomes.iter().all(|outcome| outcome.asked_in_ban == 0), "asked during a ban")?;
    if let Some(is_told) = fault.is_told(dialect) {
        let all = outcomes.iter().all(|outcome| outcome.is_marked == is_told);
        hold(all, if is_told { "it was not told" } else { "something was told to be wrong" })?;
    }
    // Of twenty, 99 of 100 are all.
    let is_soon = |outcome: &Outcome| outcome.right_after_ns <= RIGHT_AFTER_NS_MAX;
    hold(outcomes.iter().all(is_soon), "right too late")
}

/// Goes through everything that can go wrong at a venue.
fn try_all(dialect: Dialect) {
    let mut failures = Vec::new();
    let mut messages = 0;
    for fault in Fault::ALL.into_iter().filter(|fault| fault.applies(dialect)) {
        let results: Result<Vec<Outcome>, String> =
            (0..SEEDS).map(|seed| run(dialect, fault, seed)).collect();
        let judged = results.and_then(|outcomes| {
            messages += outcomes.iter().map(|outcome| outcome.messages).sum::<u64>();
            let worst_ms = outcomes.iter().map(|o| o.right_after_ns / MILLI_NS).max();
            println!("{dialect:?} {fault:?}: right after {worst_ms:?} ms at most");
            judge(dialect, fault, &outcomes)
        });
        failures.extend(judged.err());
    }
    let cuts = cut_everywhere(dialect, 1);
    println!("{dialect:?}: {messages} messages, cut at {cuts:?} bytes");
    failures.extend(cuts.err());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn binance_spot() {
    try_all(Dialect::BinanceSpot);
}

#[test]
fn binance_usdm() {
    try_all(Dialect::BinanceUsdm);
}

#[test]
fn binance_coinm() {
    try_all(Dialect::BinanceCoinm);
}

#[test]
fn coinbase() {
    try_all(Dialect::Coinbase);
}

#[test]
fn coinbase_advanced() {
    try_all(Dialect::CoinbaseAdvanced);
}

#[test]
fn kraken() {
    try_all(Dialect::Kraken);
}

#[test]
fn kraken_v1() {
    try_all(Dialect::KrakenV1);
}

#[test]
fn okx() {
    try_all(Dialect::Okx);
}

#[test]
fn bybit_spot() {
    try_all(Dialect::BybitSpot);
}

#[test]
fn bybit_linear() {
    try_all(Dialect::BybitLinear);
}

#[test]
fn deribit() {
    try_all(Dialect::Deribit);
}

#[test]
fn bitfinex() {
    try_all(Dialect::Bitfinex);
}

/// A planted bug is found at this venue under this fault.
#[track_caller]
fn is_caught(mutant: Mutant, dialect: Dialect, fault: Fault) {
    plant(Some(mutant));
    let caught = (0..SEEDS).any(|seed| {
        let outcome = run(dialect, fault, seed);
        outcome.is_err_and(|what| what.contains("the book is none that was"))
    });
    plant(None);
    assert!(caught, "{mutant:?} goes unnoticed");
}

#[test]
fn planted_bugs_are_caught() {
    is_caught(Mutant::NoGapCheck, Dialect::BinanceUsdm, Fault::Gap);
    is_caught(Mutant::NoGapCheck, Dialect::Deribit, Fault::Gap);
    is_caught(Mutant::NoNumberCheck, Dialect::CoinbaseAdvanced, Fault::Gap);
    is_caught(Mutant::ChecksumIgnored, Dialect::Kraken, Fault::Gap);
    is_caught(Mutant::ServedUnmarked, Dialect::BybitSpot, Fault::Gap);
    is_caught(Mutant::NotCutBack, Dialect::KrakenV1, Fault::Gap);
}
