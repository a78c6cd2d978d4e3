//! The gateway on each exchange of the simulator while nothing goes wrong on the way: what the
//! certificate, which looks at books alone, does not ask for.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::net::SocketAddr;
use std::sync::Arc;

use feed_sim::exchange::{Exchange, ExchangeOptions, Status};
use feed_sim::serve::ServedExchange;
use feed_sim::venue::Dialect;
use serde_json::{Value, json};
use tickfan::serve;
use tokio::net::TcpListener;

#[path = "common/client.rs"]
mod client;
#[path = "common/gateway.rs"]
mod gateway;

use client::Client;
use gateway::wait_until_live;

/// Mean time between two events of the market.
const PACE_NS: u64 = 5_000_000;

/// Trades that are to come.
const TRADES: usize = 20;

/// How often lists of instruments are read.
const LISTINGS_EVERY_NS: u64 = 100_000_000;

const BINANCE: [Dialect; 3] = [Dialect::BinanceSpot, Dialect::BinanceUsdm, Dialect::BinanceCoinm];

/// An exchange on a port of its own, until the process ends.
fn serve_exchange(dialect: Dialect) -> (Arc<ServedExchange>, SocketAddr) {
    let options = ExchangeOptions::of(dialect, 7, 1, 1_790_000_000_000_000_000).small(PACE_NS);
    let exchange = ServedExchange::new(options);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let served = Arc::clone(&exchange);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { served.serve(TcpListener::from_std(listener).unwrap()).await })
    });
    (exchange, address)
}

/// A gateway on it; returns what it serves, and how it calls the symbol.
fn start(
    dialect: Dialect,
    exchange: &ServedExchange,
    address: SocketAddr,
    more: &str,
) -> (serve::Running, String) {
    let symbol =
        exchange.with(|exchange, _| exchange.exchange().symbols().next().map(str::to_owned));
    let (symbol, venue) = (symbol.unwrap(), dialect.venue().name());
    let depth =
        Exchange::depth(dialect).map_or(String::new(), |depth| format!("depth = {depth}\n"));
    let feed = gateway::feed(venue, &[&symbol], address, &format!("{depth}{more}"));
    let mut config = gateway::config(&feed);
    config.feeds[0].listings_every_ns = LISTINGS_EVERY_NS;
    (serve::start(config).unwrap(), format!("{venue}:{symbol}"))
}

/// So many trades of an exchange reach a subscriber, and none is missing.
fn trades_arrive(dialect: Dialect, more: &str) {
    let (exchange, address) = serve_exchange(dialect);
    let (running, symbol) = start(dialect, &exchange, address, more);
    wait_until_live(running.admin);
    let mut client = Client::connect(running.listen);
    let view = client.view(json!({"channel": "trades", "symbols": [symbol], "budget_ms": 0}));
    let mut trades = Vec::new();
    while trades.len() < TRADES {
        let update = client.update_of(view, "trades");
        assert!(update.get("lost").is_none(), "{dialect:?}: {update}");
        trades.extend(update["x"].as_array().unwrap().clone());
    }
    for trade in &trades {
        assert!(["buy", "sell"].contains(&trade[3].as_str().unwrap()), "{dialect:?}: {trade}");
    }
}

#[test]
fn trades_arrive_from_every_exchange() {
    std::thread::scope(|scope| {
        for dialect in Dialect::ALL {
            scope.spawn(move || trades_arrive(dialect, ""));
        }
    });
}

#[test]
fn binance_trades_arrive_joined_and_one_by_one() {
    std::thread::scope(|scope| {
        for dialect in BINANCE {
            for trades in ["trade", "aggTrade"] {
                scope.spawn(move || trades_arrive(dialect, &format!("trades = {trades:?}\n")));
            }
        }
    });
}

#[test]
fn the_list_tells_that_a_symbol_of_binance_is_halted() {
    for dialect in BINANCE {
        let (exchange, address) = serve_exchange(dialect);
        let (running, symbol) = start(dialect, &exchange, address, "");
        wait_until_live(running.admin);
        let request = json!({"channel": "book", "symbols": [symbol], "budget_ms": 0});
        let mut client = Client::connect(running.listen);
        let view = client.view(request);
        let turn = |status| {
            exchange
                .with(|exchange, _| exchange.control(|exchange| exchange.set_status(0, status)));
        };
        turn(Status::Halted);
        let is = |state| move |update: &Value| update["v"] == view && update["state"] == state;
        client.update(is("halted"));
        turn(Status::Open);
        client.update(is("live"));
    }
}
