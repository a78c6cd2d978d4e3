//! The synthetic exchange over real sockets: it speaks as Binance spot does, and its truth is what its
//! stream says.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "support/client.rs"]
mod client;

use std::net::SocketAddr;

use client::{connect, hear, http, say};
use feed_sim::clock;
use feed_sim::market::MarketOptions;
use feed_sim::serve::serve;
use serde_json::Value;

fn start() -> SocketAddr {
    let options = MarketOptions { seed: 1, symbols: 3, rate: 500, start_ns: clock::wall_ns() };
    client::background(move |listener| serve(listener, options))
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn it_lists_what_trades() {
    let address = start();
    let (status, body) = http(address, "GET", "/api/v3/exchangeInfo");
    assert_eq!(status, 200);
    let listing = &json(&body)["symbols"][0];
    assert_eq!(listing["symbol"], "BTCUSDT");
    assert_eq!(listing["status"], "TRADING");
    assert_eq!(listing["filters"][0]["tickSize"], "0.01000000");
    assert_eq!(listing["filters"][1]["stepSize"], "0.00001000");
    assert_eq!(http(address, "GET", "/api/v3/depth?symbol=NOPE").0, 400);
    assert_eq!(http(address, "GET", "/truth?symbol=BTCUSDT&u=1").0, 404);
    let image = json(&http(address, "GET", "/api/v3/depth?symbol=BTCUSDT&limit=7").1);
    assert_eq!(image["bids"].as_array().unwrap().len(), 7);
}

#[test]
fn the_best_prices_on_the_stream_are_true() {
    let address = start();
    let mut socket = connect(address, "/stream");
    say(&mut socket, r#"{"method":"SUBSCRIBE","params":["btcusdt@bookTicker"],"id":1}"#);
    assert_eq!(hear(&mut socket), r#"{"result":null,"id":1}"#);
    for _ in 0..20 {
        let message = json(&hear(&mut socket));
        assert_eq!(message["stream"], "btcusdt@bookTicker");
        let data = &message["data"];
        let truth = http(address, "GET", &format!("/truth?symbol=BTCUSDT&u={}", data["u"]));
        let truth = json(&truth.1);
        assert_eq!(truth["u"], data["u"]);
        assert_eq!(truth["bids"][0], Value::from(vec![data["b"].clone(), data["B"].clone()]));
        assert_eq!(truth["asks"][0], Value::from(vec![data["a"].clone(), data["A"].clone()]));
    }
}

#[test]
fn a_client_that_does_not_read_is_closed_and_counted() {
    let options = MarketOptions { seed: 1, symbols: 1, rate: 200_000, start_ns: clock::wall_ns() };
    let address = client::background(move |listener| serve(listener, options));
    let names = "/stream?streams=btcusdt@bookTicker/btcusdt@trade/btcusdt@depth";
    let _deaf = connect(address, names);
    while !http(address, "GET", "/status").1.contains(r#""slow_closed":1"#) {
        std::thread::yield_now();
    }
}
