//! The synthetic exchange against itself: same options, same bytes, whoever listens and at any rate; and
//! a naive client that joins image and depth messages by the venue's rule holds the true book at every
//! update id that it is told.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::collections::HashMap;

use feed_sim::exchange::{About, Exchange, ExchangeOptions, Planned, Preset, Said, Status, Told};
use feed_sim::record::Example;
use feed_sim::truth::{TruthBook, level_hash, normalise};
use feed_sim::venue::Dialect;
use serde_json::Value;
use tickfan_core::market::Side;

const START_NS: u64 = 1_700_000_000_000_000_000;

const SYMBOLS: usize = 6;

fn options(dialect: Dialect, seed: u64) -> ExchangeOptions {
    ExchangeOptions::of(dialect, seed, SYMBOLS, START_NS)
}

/// What was said in so many steps.
fn said(options: ExchangeOptions, steps: usize) -> Said {
    let mut exchange = Exchange::new(options);
    for _ in 0..steps {
        exchange.step();
    }
    exchange.said()
}

/// A client that is told everything of every symbol.
fn with_listener(options: ExchangeOptions) -> Exchange {
    let mut exchange = Exchange::new(options);
    let stream = |name: &str| {
        let name = name.to_lowercase();
        format!("{name}@depth@100ms/{name}@bookTicker/{name}@trade")
    };
    let streams: Vec<String> = exchange.symbols().map(stream).collect();
    exchange.connect("/stream", &format!("streams={}", streams.join("/")), START_NS);
    exchange
}

/// What such a client is told in so many steps.
fn heard(options: ExchangeOptions, steps: usize) -> Vec<String> {
    let mut exchange = with_listener(options);
    let mut texts = Vec::new();
    for _ in 0..steps {
        exchange.step();
        let told = exchange.take_told().into_iter();
        texts.extend(told.map(|told| String::from_utf8(told.text.to_vec()).unwrap()));
    }
    texts
}

#[test]
fn same_options_same_bytes_in_every_dialect_and_under_every_preset() {
    for dialect in Dialect::ALL {
        let once = said(options(dialect, 7), 20_000);
        assert_eq!(once, said(options(dialect, 7), 20_000), "{dialect:?}");
        assert_ne!(once.digest, said(options(dialect, 8), 20_000).digest, "{dialect:?}");
        assert!(once.messages > 500, "{dialect:?}: {once:?}");
    }
    let mut digests: Vec<u64> = Preset::ALL
        .into_iter()
        .map(|preset| {
            let options = ExchangeOptions { preset, ..options(Dialect::Okx, 7) };
            let once = said(options, 5_000);
            assert_eq!(once, said(options, 5_000), "{preset:?}");
            once.digest
        })
        .collect();
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), Preset::ALL.len(), "no two are the same");
}

#[test]
fn who_listens_changes_nothing_of_what_is_said() {
    let alone = said(options(Dialect::BinanceSpot, 7), 5_000);
    let mut exchange = with_listener(options(Dialect::BinanceSpot, 7));
    for step in 0..5_000 {
        if step % 1_000 == 0 {
            let connection = exchange.connect("/ws/btcusdt@depth", "", START_NS + step);
            exchange.hear(connection, r#"{"method":"LIST_SUBSCRIPTIONS","id":1}"#, 0);
        }
        exchange.step();
    }
    assert!(exchange.take_told().len() > 1_000);
    assert_eq!(exchange.said(), alone);
}

/// A message without its times.
fn untimed(text: &str) -> Value {
    let mut message: Value = serde_json::from_str(text).unwrap();
    let data = message["data"].as_object_mut().unwrap();
    data.remove("E");
    data.remove("T");
    message
}

#[test]
fn another_rate_says_the_same_at_other_times() {
    let slow = options(Dialect::BinanceSpot, 3);
    let fast = slow.at_rate(100_000);
    let (slow, fast) = (heard(slow, 20_000), heard(fast, 20_000));
    assert!(slow.len() > 1_000);
    assert_ne!(slow, fast);
    for (slow, fast) in slow.iter().zip(&fast) {
        assert_eq!(untimed(slow), untimed(fast));
    }
    assert_eq!(slow.len(), fast.len());
}

/// Messages a second that are made until there are so many, and those that are to be.
fn rates(options: ExchangeOptions, messages: u64) -> (u64, u64) {
    let mut exchange = Exchange::new(options);
    while exchange.said().messages < messages {
        exchange.step();
    }
    (messages * 1_000_000_000 / (exchange.next_ns() - START_NS), options.rate())
}

#[test]
fn it_holds_its_rate() {
    for (dialect, messages) in [
        (Dialect::BinanceSpot, 30_000),
        (Dialect::BinanceUsdm, 30_000),
        (Dialect::BinanceCoinm, 30_000),
        (Dialect::Okx, 5_000),
        (Dialect::Coinbase, 20_000),
    ] {
        let (made, rate) = rates(options(dialect, 3), messages);
        assert!((rate * 3 / 4..=rate * 5 / 4).contains(&made), "{dialect:?}: {made} of {rate}");
    }
    let (made, _) = rates(options(Dialect::BinanceSpot, 3).at_rate(20_000), 30_000);
    assert!((15_000..=25_000).contains(&made), "{made}");
}

#[test]
fn one_symbol_depends_on_no_other() {
    let of_first = |symbols| {
        let mut exchange =
            Exchange::new(ExchangeOptions { symbols, ..options(Dialect::Coinbase, 5) });
        let mut digests = Vec::new();
        while digests.len() < 2_000 {
            let version = exchange.version(0);
            exchange.step();
            if exchange.version(0) != version {
                digests.push(exchange.book(0).digest());
            }
        }
        digests
    };
    assert_eq!(of_first(1), of_first(5));
}

#[test]
fn what_is_planned_happens_when_it_is_due() {
    let mut exchange = Exchange::new(options(Dialect::Okx, 5));
    let second = |seconds: u64| START_NS + seconds * 1_000_000_000;
    exchange.plan(second(2), 0, Planned::Status(Status::Halted));
    exchange.plan(second(4), 0, Planned::Status(Status::Open));
    exchange.plan(second(5), 0, Planned::RefineTick);
    exchange.plan(second(6), 0, Planned::Status(Status::Ended));
    let mut versions = Vec::new();
    for seconds in 1..=7 {
        while exchange.next_ns() <= second(seconds) {
            exchange.step();
        }
        versions.push(exchange.version(0));
        let list = exchange.instruments("instType=SPOT");
        assert_eq!(list.contains("BTC-USDT"), seconds < 6, "{seconds}");
        assert_eq!(list.contains(r#""state":"suspend""#), (2..4).contains(&seconds), "{seconds}");
        assert_eq!(list.contains(r#""tickSz":"0.001""#), seconds == 5, "{seconds}");
    }
    let moved: Vec<bool> = versions.windows(2).map(|pair| pair[0] < pair[1]).collect();
    assert_eq!(moved, [true, false, false, true, true, false], "{versions:?}");
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

fn is_crossed(book: &TruthBook) -> bool {
    let [bid, ask] = [Side::Bid, Side::Ask].map(|side| normalise(&book.best(side).unwrap().px));
    bid.parse::<f64>().unwrap() >= ask.parse::<f64>().unwrap()
}

fn follow(dialect: Dialect, path: &str, seed: u64) {
    let mut exchange = with_listener(options(dialect, seed));
    let symbols: Vec<String> = exchange.symbols().map(str::to_owned).collect();
    for _ in 0..5_000 {
        exchange.step();
    }
    exchange.take_told();
    let mut books: HashMap<String, NaiveBook> = HashMap::new();
    for symbol in &symbols {
        let body = exchange.answer(path, &format!("symbol={symbol}&limit=1000")).body;
        let image: Value = serde_json::from_str(&body).unwrap();
        let mut book =
            NaiveBook { id: image["lastUpdateId"].as_u64().unwrap(), ..NaiveBook::default() };
        book.apply(&image["bids"], &image["asks"]);
        books.insert(symbol.clone(), book);
    }
    let mut trades: HashMap<String, u64> = HashMap::new();
    let (mut compared, mut told) = (0, HashMap::new());
    while compared < 300 {
        exchange.step();
        for message in exchange.take_told() {
            let value: Value = serde_json::from_slice(&message.text).unwrap();
            let data = &value["data"];
            let name = data["s"].as_str().unwrap();
            let symbol = exchange.symbol(name).unwrap();
            let stream = value["stream"].as_str().unwrap();
            if stream.ends_with("@depth@100ms") {
                let book = books.get_mut(name).unwrap();
                let (first, last) = (data["U"].as_u64().unwrap(), data["u"].as_u64().unwrap());
                if let Some(before) = told.insert(symbol, last) {
                    let follows = data["pu"].as_u64().unwrap_or(first - 1);
                    assert_eq!(follows, before, "{name}");
                }
                if last <= book.id {
                    continue;
                }
                assert!(first <= book.id + 1 || data["pu"].as_u64().unwrap() <= book.id, "no gap");
                book.apply(&data["b"], &data["a"]);
                book.id = last;
                let truth = exchange.book_at(symbol, last).unwrap();
                assert_eq!((book.digest(), truth.id()), (truth.digest(), Some(last)), "{name}");
                compared += 1;
            } else if stream.ends_with("@bookTicker") {
                let truth = exchange.book_at(symbol, data["u"].as_u64().unwrap()).unwrap();
                let (bid, ask) = (truth.best(Side::Bid).unwrap(), truth.best(Side::Ask).unwrap());
                assert_eq!(data["b"], *bid.px);
                assert_eq!(data["A"], *ask.qty);
                assert!(!is_crossed(&truth));
            } else {
                let id = data["t"].as_u64().unwrap();
                if let Some(before) = trades.insert(name.to_owned(), id) {
                    assert_eq!(id, before + 1);
                }
            }
        }
    }
    for symbol in 0..symbols.len() {
        let newest = exchange.newest_id(symbol);
        assert_eq!(
            exchange.book_at(symbol, newest).unwrap().digest(),
            exchange.book(symbol).digest()
        );
        assert!(exchange.book_at(symbol, newest + 1).is_none());
        assert!(exchange.book_at(symbol, 1).is_none());
    }
}

#[test]
fn a_naive_client_holds_the_true_book() {
    for seed in 1..=3 {
        follow(Dialect::BinanceSpot, "/api/v3/depth", seed);
        follow(Dialect::BinanceUsdm, "/fapi/v1/depth", seed);
        follow(Dialect::BinanceCoinm, "/dapi/v1/depth", seed);
    }
}

/// What is listed later is in the list, on the streams and in the truth, and nothing else is another
/// because of it.
#[test]
fn what_is_listed_later_is_everywhere_and_changes_nothing_else() {
    for dialect in Dialect::ALL {
        let small = ExchangeOptions { symbols: 2, ..options(dialect, 2) }.small(2_000_000);
        let (mut with, mut without) = (Exchange::new(small), Exchange::new(small));
        for exchange in [&mut with, &mut without] {
            run(exchange, START_NS + 1_000_000_000);
        }
        let name = with.names_to_list().next().unwrap();
        // Bitfinex lists its symbols without the letter that says that they trade.
        let listed = if dialect == Dialect::Bitfinex { &name[1..] } else { &name };
        let is_there = |exchange: &Exchange| {
            (exchange.instruments("").contains(listed), exchange.symbol(&name).is_some())
        };
        assert_eq!(is_there(&with), (false, false), "{dialect:?}");
        assert_eq!(with.list_new(), 2);
        assert_eq!(is_there(&with), (true, true), "{dialect:?}");
        assert_ne!(with.names_to_list().next().as_deref(), Some(name.as_str()));

        let example = Example::of_exchange(dialect, &name);
        let connection = with.connect(&example.target, "", START_NS);
        with.hear(connection, &example.request.unwrap(), START_NS);
        for exchange in [&mut with, &mut without] {
            run(exchange, START_NS + 3_000_000_000);
        }
        let told = with.take_told();
        let of_book = |one: &&Told| matches!(one.about, About::Book { symbol: 2, .. });
        assert!(told.iter().filter(of_book).count() > 20, "{dialect:?}");
        assert!(with.version(2) > 20, "{dialect:?}");
        assert!(with.book_at(2, with.newest_id(2)).is_some(), "{dialect:?}");
        for symbol in 0..2 {
            let books =
                [&with, &without].map(|one| (one.version(symbol), one.book(symbol).digest()));
            assert_eq!(books[0], books[1], "{dialect:?} {symbol}");
        }
    }
}

fn run(exchange: &mut Exchange, until_ns: u64) {
    while exchange.next_ns() < until_ns {
        exchange.step();
    }
}
