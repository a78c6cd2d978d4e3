//! The synthetic exchange over real sockets: it speaks as Binance spot does, and its truth is what its
//! stream says.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "support/client.rs"]
mod client;

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use client::{connect, hear, http, post, say};
use feed_sim::clock;
use feed_sim::exchange::ExchangeOptions;
use feed_sim::serve::ServedExchange;
use feed_sim::venue::Dialect;
use serde_json::Value;

fn serve(symbols: usize, rate: u32) -> SocketAddr {
    let options = ExchangeOptions::of(Dialect::BinanceSpot, 1, symbols, clock::wall_ns());
    let options = options.at_rate(rate);
    client::background(move |listener| ServedExchange::new(options).serve(listener))
}

fn start() -> SocketAddr {
    serve(3, 500)
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
    assert_eq!(http(address, "GET", "/truth?symbol=BTCUSDT&id=1").0, 404);
    assert_eq!(http(address, "GET", "/truth?symbol=BTCUSDT&id=x").0, 400);
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
        let truth = http(address, "GET", &format!("/truth?symbol=BTCUSDT&id={}", data["u"]));
        let truth = json(&truth.1);
        assert_eq!(truth["u"], data["u"]);
        assert_eq!(truth["bids"][0], Value::from(vec![data["b"].clone(), data["B"].clone()]));
        assert_eq!(truth["asks"][0], Value::from(vec![data["a"].clone(), data["A"].clone()]));
    }
}

#[test]
fn a_client_that_does_not_read_is_closed_and_counted() {
    let address = serve(1, 200_000);
    let names = "/stream?streams=btcusdt@bookTicker/btcusdt@trade/btcusdt@depth";
    let _deaf = connect(address, names);
    while !http(address, "GET", "/status").1.contains(r#""slow_closed":1"#) {
        std::thread::yield_now();
    }
}

#[test]
fn a_connection_is_broken_on_purpose_and_it_is_counted() {
    let address = start();
    let mut socket = connect(address, "/stream?streams=btcusdt@depth@100ms");
    hear(&mut socket);
    let calm = json(&http(address, "GET", "/faults").1);
    assert_eq!(calm["faults"], Value::Array(Vec::new()));
    let (status, _) = post(address, "/faults", r#"{"kind":"cut","symbol":"BTCUSDT","bytes":3}"#);
    assert_eq!(status, 200);
    while socket.read().is_ok() {}
    let cut = &json(&http(address, "GET", "/faults").1)["faults"][0];
    assert_eq!((&cut["kind"], &cut["happened"]), (&Value::from("cut"), &Value::from(1)));
    assert_eq!(cut["strikes"][0]["symbol"], "BTCUSDT");
    let (status, body) = post(address, "/faults", r#"{"kind":"cut","symbol":"NOPE"}"#);
    assert_eq!(status, 400);
    assert!(body.contains("there is no symbol NOPE"), "{body}");
}

/// Libraries write colons and slashes of a query as they like.
#[test]
fn a_symbol_is_known_however_a_client_makes_it_fit_for_a_url() {
    for (dialect, names) in [
        (Dialect::Kraken, ["ETH/USD", "ETH%2FUSD", "ETH%2fUSD"]),
        (Dialect::Bitfinex, ["tDOGE:USD", "tDOGE%3AUSD", "tDOGE%3aUSD"]),
    ] {
        let options = ExchangeOptions::of(dialect, 1, 4, clock::wall_ns());
        let address =
            client::background(move |listener| ServedExchange::new(options).serve(listener));
        for name in names {
            assert_eq!(http(address, "GET", &format!("/truth?symbol={name}")).0, 200, "{name}");
        }
        for wrong in ["%", "%2", "%zz", "%ff"] {
            assert_eq!(http(address, "GET", &format!("/truth?symbol={wrong}")).0, 404, "{wrong}");
        }
    }
}

#[test]
fn a_start_at_the_end_of_time_is_refused() {
    let wrong = Command::new(env!("CARGO_BIN_EXE_feed-sim"))
        .args(["serve", "--listen", "127.0.0.1:0", "--start-ms", "18446744073709551615"])
        .output()
        .unwrap();
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("--start-ms"), "{wrong:?}");
}

/// A program that waits for the address reads what is there, whenever it looks.
#[test]
fn it_says_its_address_in_one_write() {
    // Each write is a datagram of its own.
    let (writes, stderr) = UnixDatagram::pair().unwrap();
    writes.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut simulator = Command::new(env!("CARGO_BIN_EXE_feed-sim"))
        .args(["serve", "--listen", "127.0.0.1:0"])
        .stderr(Stdio::from(OwnedFd::from(stderr)))
        .spawn()
        .unwrap();
    let mut write = [0; 1_000];
    let length = writes.recv(&mut write);
    simulator.kill().unwrap();
    simulator.wait().unwrap();
    let first = std::str::from_utf8(&write[..length.unwrap()]).unwrap();
    assert!(first.starts_with("feed-sim: ") && first.ends_with('\n'), "{first:?}");
    assert!(first.contains("http://127.0.0.1:"), "{first:?}");
}
