//! The gateway and every exchange on real sockets: a message is lost on purpose, which the subscribers
//! are told, and at the end they hold what the exchange has.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, mpsc};

use feed_sim::exchange::serve::{Losable, ServedExchange};
use feed_sim::exchange::{Exchange, ExchangeOptions};
use feed_sim::truth::{TruthBook, normalise};
use feed_sim::venue::Dialect;
use serde_json::{Value, json};
use tickfan_core::market::Side;

#[path = "common/client.rs"]
mod client;
#[path = "common/gateway.rs"]
mod gateway;

use client::Client;
use gateway::{get, wait_until};

const DIALECTS: [Dialect; 12] = [
    Dialect::BinanceSpot,
    Dialect::BinanceUsdm,
    Dialect::BinanceCoinm,
    Dialect::Coinbase,
    Dialect::CoinbaseAdvanced,
    Dialect::Kraken,
    Dialect::KrakenV1,
    Dialect::Okx,
    Dialect::BybitSpot,
    Dialect::BybitLinear,
    Dialect::Deribit,
    Dialect::Bitfinex,
];

/// Mean time between two events of the market, and one that never comes.
const PACE_NS: u64 = 5_000_000;
const NEVER_NS: u64 = 1 << 60;

/// More levels than a book has.
const DEPTH: usize = 100;

/// Serves an exchange on a port that the system chooses, for as long as the test runs.
fn serve(dialect: Dialect) -> (Arc<ServedExchange>, SocketAddr, Vec<String>) {
    let options = ExchangeOptions {
        dialect,
        seed: 7,
        symbols: 2,
        start_ns: 1_790_000_000_000_000_000,
        pace_ns: PACE_NS,
    };
    let names = Exchange::new(options).symbols().map(str::to_owned).collect();
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let exchange = ServedExchange::new(options);
            sender.send((Arc::clone(&exchange), listener.local_addr().unwrap())).unwrap();
            exchange.serve(listener).await.unwrap();
        });
    });
    let (exchange, address) = receiver.recv().unwrap();
    (exchange, address, names)
}

/// A book, by price.
type Levels = BTreeMap<String, String>;

/// Both sides of a view as a subscriber holds them.
#[derive(Debug, Default, PartialEq)]
struct Mirror([Levels; 2]);

impl Mirror {
    fn take(&mut self, update: &Value) {
        if update["t"] == "image" {
            *self = Self::default();
        }
        for (side, levels) in self.0.iter_mut().zip(["b", "a"]) {
            for level in update[levels].as_array().into_iter().flatten() {
                let text = |place: usize| level[place].as_str().unwrap().to_owned();
                match text(1).as_str() {
                    "0" => side.remove(&text(0)),
                    qty => side.insert(text(0), qty.to_owned()),
                };
            }
        }
    }

    fn of(book: &TruthBook) -> Self {
        Self([Side::Bid, Side::Ask].map(|side| {
            book.levels(side).map(|level| (normalise(&level.px), normalise(&level.qty))).collect()
        }))
    }
}

fn a_loss_is_told_and_mended(dialect: Dialect) {
    let (exchange, address, names) = serve(dialect);
    let venue = dialect.venue().name();
    let depth =
        Exchange::depth(dialect).map_or(String::new(), |depth| format!("depth = {depth}\n"));
    let running = gateway::start(&format!(
        "[[feed]]\nvenue = {venue:?}\nsymbols = {names:?}\n{depth}\
         url = \"ws://{address}\"\nrest_url = \"http://{address}\"\n"
    ));
    wait_until("the books are live", || get(running.admin, "/readyz").0 == 200);

    let mut client = Client::connect(running.listen);
    let symbol = format!("{venue}:{}", names[0]);
    let request = json!({"channel": "book", "symbols": [symbol], "depth": DEPTH, "budget_ms": 0});
    let view = client.view(request);
    let mut mirror = Mirror::default();
    mirror.take(&client.update_of(view, "image"));

    // A lost change leaves no trace at Coinbase, and would be missing for ever.
    if dialect != Dialect::Coinbase {
        exchange.lose(Some(Losable::Change(0)));
        wait_until("a message is lost", || exchange.lost() > 0);
        exchange.lose(None);
        client.update(|update| {
            mirror.take(update);
            update["v"] == view && update["t"] == "state" && update["state"] == "gap"
        });
        client.update(|update| {
            mirror.take(update);
            update["v"] == view && update["t"] == "image" && update["state"] == "live"
        });
    }

    exchange.set_pace(NEVER_NS);
    let truth = Mirror::of(&exchange.book(0));
    while mirror != truth {
        mirror.take(&client.update(|update| update["v"] == view).0);
    }
}

#[test]
fn what_is_lost_is_told_and_mended_at_every_exchange() {
    std::thread::scope(|scope| {
        let tests: Vec<_> = DIALECTS
            .into_iter()
            .map(|dialect| (dialect, scope.spawn(move || a_loss_is_told_and_mended(dialect))))
            .collect();
        let failed: Vec<Dialect> = tests
            .into_iter()
            .filter_map(|(dialect, test)| test.join().is_err().then_some(dialect))
            .collect();
        assert!(failed.is_empty(), "{failed:?}");
    });
}
