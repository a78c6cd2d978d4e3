//! The synthetic market against what was measured at real venues.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::process::Command;

use feed_sim::exchange::{ExchangeOptions, Preset};
use feed_sim::facts::{Fact, Facts, measured};
use feed_sim::venue::Dialect;

const START_NS: u64 = 1_790_000_000_000_000_000;
const LASTS_NS: u64 = 100_000_000_000;

/// Every dialect but Deribit, and of how many symbols its venue was measured.
const LIKE: [(Dialect, usize); 11] = [
    (Dialect::BinanceSpot, 1),
    (Dialect::BinanceUsdm, 1),
    (Dialect::BinanceCoinm, 1),
    (Dialect::Coinbase, 10),
    (Dialect::CoinbaseAdvanced, 2),
    (Dialect::Kraken, 10),
    (Dialect::KrakenV1, 10),
    (Dialect::Okx, 3),
    // It was measured on the linear contracts only.
    (Dialect::BybitSpot, 4),
    (Dialect::BybitLinear, 4),
    (Dialect::Bitfinex, 7),
];

/// What is known of it are 138 messages about ten options that hardly trade, and what is served is a future
/// that does: so few messages can stand close together as those of the future never do.
const DERIBIT: (Dialect, usize, Fact) = (Dialect::Deribit, 1, Fact::Clustering);

/// What is not as it was measured.
fn missed(options: ExchangeOptions) -> Vec<String> {
    let facts = Facts::of_exchange(options, LASTS_NS).0;
    let miss = |fact: Fact| {
        let known = measured(options.dialect, fact);
        let here = facts.hundredths(fact);
        let is_met = here.is_some_and(|here| (known.low..=known.high).contains(&here));
        (!is_met).then(|| format!("{fact:?} is {here:?} and not {known:?}"))
    };
    Fact::ALL.into_iter().filter_map(miss).collect()
}

#[test]
fn the_market_is_as_was_measured_over_three_seeds() {
    std::thread::scope(|scope| {
        for (dialect, symbols) in LIKE {
            scope.spawn(move || {
                for seed in 1..=3 {
                    let missed = missed(ExchangeOptions::of(dialect, seed, symbols, START_NS));
                    assert!(missed.is_empty(), "{dialect:?}, seed {seed}: {missed:?}");
                }
            });
        }
    });
}

#[test]
fn deribit_is_too_but_for_one_thing() {
    let (dialect, symbols, unlike) = DERIBIT;
    for seed in 1..=3 {
        let missed = missed(ExchangeOptions::of(dialect, seed, symbols, START_NS));
        let is_known = |what: &String| what.starts_with(&format!("{unlike:?}"));
        assert!(missed.iter().all(is_known), "seed {seed}: {missed:?}");
    }
}

#[test]
fn orders_that_come_each_for_itself_are_not() {
    let options = ExchangeOptions::of(Dialect::BinanceSpot, 1, 1, START_NS);
    let missed = missed(ExchangeOptions { preset: Preset::Poisson, ..options });
    assert!(missed.iter().any(|what| what.starts_with("Clustering")), "{missed:?}");
    assert!(missed.iter().any(|what| what.starts_with("ChangesP99")), "{missed:?}");
}

#[test]
fn a_reader_who_has_had_enough_is_no_error() {
    for arguments in
        [&["facts", "--seconds", "1"][..], &["facts", "--speed", "--seconds", "1"], &["scenarios"]]
    {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_feed-sim"));
        let output = command.args(arguments).stdout(writer).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{arguments:?}: {said}");
    }
}
