//! The synthetic market against itself: same seed, same bytes; and a naive client that joins image and
//! depth messages by the venue's rule holds the true book at every update id that it is told.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use feed_sim::market::{Market, MarketOptions, Message};
use feed_sim::truth::{level_hash, normalise};
use serde_json::Value;
use std::collections::HashMap;
use tickfan_core::market::Side;

fn options(seed: u64) -> MarketOptions {
    MarketOptions { seed, symbols: 6, rate: 2_000, start_ns: 1_700_000_000_000_000_000 }
}

fn messages(seed: u64, steps: usize) -> Vec<Message> {
    let mut market = Market::new(options(seed));
    (0..steps).flat_map(|_| market.step().messages).collect()
}

#[test]
fn same_seed_same_bytes() {
    assert_eq!(messages(7, 20_000), messages(7, 20_000));
    assert_ne!(messages(7, 100), messages(8, 100));
}

#[test]
fn it_holds_its_rate_in_bursts() {
    let mut market = Market::new(options(3));
    let mut times = Vec::new();
    while times.len() < 20_000 {
        let step = market.step();
        times.extend(step.messages.iter().map(|_| step.at_ns));
    }
    let span_ns = times[times.len() - 1] - times[0];
    let rate = 20_000 * 1_000_000_000 / span_ns;
    assert!((1_800..=2_200).contains(&rate), "{rate} messages a second");
    let mut in_10_ms: HashMap<u64, u32> = HashMap::new();
    for at_ns in times {
        *in_10_ms.entry(at_ns / 10_000_000).or_default() += 1;
    }
    assert!(*in_10_ms.values().max().unwrap() >= 60, "three times the mean of 20");
}

/// A client's book: (side letter, normalised price) → normalised quantity.
#[derive(Default)]
struct NaiveBook {
    levels: HashMap<(bool, String), String>,
    id: u64,
}

impl NaiveBook {
    fn apply(&mut self, bids: &Value, asks: &Value) {
        for (is_bid, levels) in [(true, bids), (false, asks)] {
            for level in levels.as_array().unwrap() {
                let px = normalise(level[0].as_str().unwrap());
                let qty = normalise(level[1].as_str().unwrap());
                if qty == "0" {
                    self.levels.remove(&(is_bid, px));
                } else {
                    self.levels.insert((is_bid, px), qty);
                }
            }
        }
    }

    fn digest(&self) -> u64 {
        self.levels.iter().fold(0, |sum, ((is_bid, px), qty)| {
            let side = if *is_bid { Side::Bid } else { Side::Ask };
            sum.wrapping_add(level_hash(side, px, qty))
        })
    }
}

fn follow(seed: u64) {
    let mut market = Market::new(options(seed));
    let symbols: Vec<String> = market.symbols().map(str::to_owned).collect();
    for _ in 0..500 {
        market.step();
    }
    let mut books: HashMap<String, NaiveBook> = HashMap::new();
    for symbol in &symbols {
        let body = market.depth_snapshot(symbol, Some(5_000)).unwrap();
        let image: Value = serde_json::from_str(&body).unwrap();
        let mut book =
            NaiveBook { id: image["lastUpdateId"].as_u64().unwrap(), ..NaiveBook::default() };
        book.apply(&image["bids"], &image["asks"]);
        books.insert(symbol.clone(), book);
    }
    let mut trades: HashMap<String, u64> = HashMap::new();
    let mut compared = 0;
    for _ in 0..5_000 {
        for message in market.step().messages {
            let value: Value = serde_json::from_str(&message.payload).unwrap();
            assert_eq!(value["stream"], message.stream.as_str());
            let data = &value["data"];
            let symbol = data["s"].as_str().unwrap();
            if message.stream.ends_with("@depth@100ms") {
                let book = books.get_mut(symbol).unwrap();
                let (first, last) = (data["U"].as_u64().unwrap(), data["u"].as_u64().unwrap());
                if last <= book.id {
                    continue;
                }
                assert!(first <= book.id + 1, "no gap");
                book.apply(&data["b"], &data["a"]);
                book.id = last;
                let truth = market.truth(symbol, Some(last)).unwrap();
                assert_eq!((book.digest(), truth.id()), (truth.digest(), Some(last)), "{symbol}");
                compared += 1;
            } else if message.stream.ends_with("@bookTicker") {
                let truth = market.truth(symbol, data["u"].as_u64()).unwrap();
                let (bid, ask) = (truth.best(Side::Bid).unwrap(), truth.best(Side::Ask).unwrap());
                assert_eq!(data["b"], *bid.px);
                assert_eq!(data["A"], *ask.qty);
                let (bid, ask) = (normalise(&bid.px), normalise(&ask.px));
                assert!(bid.parse::<f64>().unwrap() < ask.parse::<f64>().unwrap(), "crossed");
            } else {
                let id = data["t"].as_u64().unwrap();
                if let Some(before) = trades.insert(symbol.to_owned(), id) {
                    assert_eq!(id, before + 1);
                }
            }
        }
    }
    assert!(compared > 50, "{compared}");
    for symbol in &symbols {
        let truth = market.truth(symbol, None).unwrap();
        let depths = [Side::Bid, Side::Ask].map(|side| truth.depth(side));
        assert!(depths.iter().all(|depth| (200..=800).contains(depth)), "{symbol}: {depths:?}");
        let newest = market.update_id(symbol).unwrap();
        assert!(market.truth(symbol, Some(newest + 1)).is_none());
    }
}

#[test]
fn a_naive_client_holds_the_true_book() {
    for seed in 1..=5 {
        follow(seed);
    }
}
