//! The replay over real sockets: small recordings written by hand from the venues' documented shapes,
//! clients of another WebSocket library, plain threads, no waiting by the clock.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "support/client.rs"]
mod client;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use client::{connect, hear, http, say};

use feed_sim::recording::Recording;
use feed_sim::replay::{ReplayOptions, Speed, serve};
use tokio_tungstenite::tungstenite::Message;

fn start(name: &str, lines: &[String], options: ReplayOptions) -> SocketAddr {
    let recording = Arc::new(Recording::from_text(name, lines.join("\n")).unwrap());
    client::background(move |listener| serve(listener, recording, options))
}

fn at_max() -> ReplayOptions {
    ReplayOptions { speed: Speed::Max, hold: true, ..ReplayOptions::default() }
}

fn go(address: SocketAddr) {
    assert_eq!(http(address, "POST", "/replay/start").0, 200);
}

/// Waits until the player has got to a line or state, by asking.
fn wait_for(address: SocketAddr, what: &str) {
    while !http(address, "GET", "/replay").1.contains(what) {
        std::thread::yield_now();
    }
}

fn line(at_ms: u64, kind: &str, stream: &str, payload: &str) -> String {
    format!("{}\t{kind}\t{stream}\t{payload}", 1_700_000_000_000_000_000 + at_ms * 1_000_000)
}

fn depth(first: u64, last: u64, bids: &str, asks: &str) -> String {
    format!(
        r#"{{"stream":"btcusdt@depth@100ms","data":{{"e":"depthUpdate","E":1,"s":"BTCUSDT","U":{first},"u":{last},"b":[{bids}],"a":[{asks}]}}}}"#
    )
}

fn trade(id: u64) -> String {
    format!(
        r#"{{"stream":"btcusdt@trade","data":{{"e":"trade","E":1,"s":"BTCUSDT","t":{id},"p":"10.00","q":"1.00","T":1,"m":true,"M":true}}}}"#
    )
}

const IMAGE: &str =
    r#"{"lastUpdateId":12,"bids":[["10.00","1.00"],["9.00","1.00"]],"asks":[["11.00","1.00"]]}"#;

fn binance_lines() -> Vec<String> {
    vec![
        line(0, "open", "ws", "wss://stream.binance.com:9443/stream"),
        line(1, "recv", "ws", &depth(10, 11, r#"["10.00","1.00"]"#, "")),
        line(2, "recv", "ws", &trade(1)),
        line(3, "recv", "ws", &depth(12, 14, r#"["10.00","2.00"]"#, "")),
        line(4, "rest", "https://api.binance.com/api/v3/depth?symbol=BTCUSDT&limit=1000", IMAGE),
        line(5, "recv", "ws", &trade(2)),
        line(6, "recv", "ws", &depth(15, 16, r#"["9.00","0.00"]"#, r#"["11.00","5.00"]"#)),
        line(7, "recv", "ws", &depth(17, 20, r#"["8.00","1.00"]"#, "")),
    ]
}

fn payload(line: &str) -> &str {
    line.splitn(4, '\t').nth(3).unwrap()
}

const SUBSCRIBE: &str =
    r#"{"method":"SUBSCRIBE","params":["btcusdt@depth@100ms","btcusdt@trade"],"id":1}"#;
const DEPTH: &str = "/api/v3/depth?symbol=BTCUSDT&limit=1000";

#[test]
fn every_payload_arrives_verbatim_and_the_stream_waits_for_the_image_to_be_fetched() {
    let lines = binance_lines();
    let address = start("binance-spot-test", &lines, at_max());
    let mut socket = connect(address, "/stream");
    say(&mut socket, SUBSCRIBE);
    assert_eq!(hear(&mut socket), r#"{"result":null,"id":1}"#);
    assert_eq!(
        http(address, "GET", "/replay").1,
        r#"{"state":"waiting","line":0,"subscriptions":2}"#
    );
    go(address);
    for index in [1, 2, 3] {
        assert_eq!(hear(&mut socket), payload(&lines[index]));
    }
    wait_for(address, r#""line":4,"#);
    assert_eq!(http(address, "GET", DEPTH), (200, IMAGE.to_owned()));
    for index in [5, 6, 7] {
        assert_eq!(hear(&mut socket), payload(&lines[index]));
    }
    wait_for(address, "ended");
    let fresh = r#"{"lastUpdateId":20,"bids":[["10.00","2.00"],["8.00","1.00"]],"asks":[["11.00","5.00"]]}"#;
    assert_eq!(http(address, "GET", DEPTH), (200, fresh.to_owned()));
    let best = r#"{"lastUpdateId":20,"bids":[["10.00","2.00"]],"asks":[["11.00","5.00"]]}"#;
    assert_eq!(http(address, "GET", "/api/v3/depth?symbol=btcusdt&limit=1").1, best);
}

#[test]
fn a_request_before_its_line_waits_for_it() {
    let lines = binance_lines();
    let options = ReplayOptions { speed: Speed::X(1), ..at_max() };
    let address = start("binance-spot-test", &lines, options);
    let waiting = std::thread::spawn(move || http(address, "GET", DEPTH));
    let mut socket = connect(address, "/stream?streams=btcusdt@trade");
    go(address);
    assert_eq!(hear(&mut socket), payload(&lines[2]));
    assert_eq!(hear(&mut socket), payload(&lines[5]));
    assert_eq!(waiting.join().unwrap(), (200, IMAGE.to_owned()));
}

#[test]
fn a_dropped_line_is_missing_from_the_stream_and_not_from_the_truth() {
    let lines = binance_lines();
    let options = ReplayOptions { drop_line: Some(7), ..at_max() };
    let address = start("binance-spot-test", &lines, options);
    let mut socket = connect(address, "/ws/btcusdt@depth@100ms");
    go(address);
    let inner = |line: &str| {
        let value: serde_json::Value = serde_json::from_str(payload(line)).unwrap();
        value["data"]["u"].clone()
    };
    let mut heard = || serde_json::from_str::<serde_json::Value>(&hear(&mut socket)).unwrap();
    assert_eq!(heard()["u"], inner(&lines[1]), "a raw connection gets no wrapper");
    assert_eq!(heard()["u"], inner(&lines[3]));
    assert_eq!(http(address, "GET", DEPTH).0, 200);
    assert_eq!(heard()["u"], inner(&lines[7]), "line 7, the one before it, is missing");
    wait_for(address, "ended");
    assert!(http(address, "GET", DEPTH).1.contains(r#""asks":[["11.00","5.00"]]"#));
}

#[test]
fn nonsense_is_answered_and_nobody_else_notices() {
    let lines = binance_lines();
    let address = start("binance-spot-test", &lines, at_max());
    let mut socket = connect(address, "/stream");
    say(&mut socket, "{{{");
    assert!(hear(&mut socket).contains(r#""code":3"#));
    say(&mut socket, r#"{"method":"SUBSCRIBE","params":["nope@depth"],"id":2}"#);
    assert_eq!(hear(&mut socket), r#"{"result":null,"id":2}"#, "acknowledged, and silent");
    socket.send(Message::Ping("are you there".into())).unwrap();
    assert_eq!(socket.read().unwrap(), Message::Pong("are you there".into()));
    assert_eq!(http(address, "GET", "/api/v3/depth?symbol=NOPE").0, 400);
    assert_eq!(http(address, "GET", "/api/v3/depth?symbol=BTCUSDT&limit=x").0, 400);
    assert_eq!(http(address, "GET", "/api/v3/exchangeInfo").0, 404);
    assert_eq!(http(address, "GET", "/nope").0, 404);
    let mut flood = connect(address, "/stream");
    let _ = flood.send(Message::text("x".repeat(1 << 20)));
    while !matches!(flood.read(), Ok(Message::Close(_)) | Err(_)) {}
    say(&mut socket, r#"{"method":"LIST_SUBSCRIPTIONS","id":3}"#);
    assert_eq!(hear(&mut socket), r#"{"result":["nope@depth"],"id":3}"#);
}

#[test]
fn a_loop_closes_every_connection_and_begins_again() {
    let lines = binance_lines();
    let options = ReplayOptions { repeat: true, start_delay: Duration::ZERO, ..at_max() };
    let address = start("binance-spot-test", &lines, options);
    let mut socket = connect(address, "/stream?streams=btcusdt@trade");
    go(address);
    for _ in 0..2 {
        assert_eq!(hear(&mut socket), payload(&lines[2]));
        assert_eq!(hear(&mut socket), payload(&lines[5]));
        assert!(matches!(socket.read().unwrap(), Message::Close(Some(_))));
        socket = connect(address, "/stream?streams=btcusdt@trade");
    }
}

fn kraken_book(kind: &str, bids: &str, asks: &str, checksum: u32) -> String {
    format!(
        r#"{{"channel":"book","type":"{kind}","data":[{{"symbol":"BTC/USD","bids":[{bids}],"asks":[{asks}],"checksum":{checksum},"timestamp":"2023-11-14T22:13:20.000000Z"}}]}}"#
    )
}

fn kraken_lines() -> Vec<String> {
    let ack = r#"{"method":"subscribe","result":{"channel":"book","depth":1000,"snapshot":true,"symbol":"BTC/USD"},"success":true}"#;
    let status = r#"{"channel":"status","type":"update","data":[{"system":"online"}]}"#;
    let image = kraken_book(
        "snapshot",
        r#"{"price":10.0,"qty":1.50},{"price":9.0,"qty":1.00}"#,
        r#"{"price":11.0,"qty":0.25}"#,
        crc32fast::hash(b"11025100150".as_slice()),
    );
    vec![
        line(0, "recv", "ws", status),
        line(1, "recv", "ws", ack),
        line(2, "recv", "ws", &image),
        line(3, "recv", "ws", &kraken_book("update", r#"{"price":10.0,"qty":0.00}"#, "", 1)),
        line(4, "recv", "ws", r#"{"channel":"heartbeat"}"#),
        line(5, "recv", "ws", &kraken_book("update", "", r#"{"price":10.5,"qty":2.00}"#, 2)),
    ]
}

const KRAKEN: &str = r#"{"method":"subscribe","params":{"channel":"book","symbol":["BTC/USD","NO/PE"],"depth":1000},"req_id":1}"#;

#[test]
fn kraken_acknowledges_each_symbol_and_sends_the_recording() {
    let lines = kraken_lines();
    let address = start("kraken-v2-test", &lines, at_max());
    let mut socket = connect(address, "/v2");
    assert!(hear(&mut socket).contains(r#""system":"online""#));
    say(&mut socket, r#"{"method":"ping","req_id":5}"#);
    assert!(hear(&mut socket).starts_with(r#"{"method":"pong","req_id":5,"#));
    say(&mut socket, KRAKEN);
    let ack = hear(&mut socket);
    assert!(ack.contains(r#""symbol":"BTC/USD"},"success":true"#), "{ack}");
    let refusal = hear(&mut socket);
    assert!(refusal.contains("Currency pair not supported NO/PE"), "{refusal}");
    go(address);
    for line in &lines[2..] {
        assert_eq!(hear(&mut socket), payload(line));
    }
}

#[test]
fn kraken_sends_a_fresh_snapshot_to_who_subscribes_again() {
    let lines = kraken_lines();
    let address = start("kraken-v2-test", &lines, at_max());
    let mut socket = connect(address, "/v2");
    hear(&mut socket);
    say(&mut socket, KRAKEN);
    hear(&mut socket);
    hear(&mut socket);
    go(address);
    for line in &lines[2..] {
        assert_eq!(hear(&mut socket), payload(line));
    }
    say(&mut socket, &KRAKEN.replace(r#"","NO/PE"]"#, r#""]"#));
    assert!(hear(&mut socket).contains("Already subscribed"));
    say(&mut socket, &KRAKEN.replace(r#""subscribe"#, r#""unsubscribe"#));
    assert!(hear(&mut socket).contains(r#""success":true"#));
    hear(&mut socket);
    say(&mut socket, &KRAKEN.replace("1000", "1"));
    assert!(hear(&mut socket).contains(r#""depth":1"#));
    let snapshot = hear(&mut socket);
    let bids_and_asks = r#""bids":[{"price":9.0,"qty":1.00}],"asks":[{"price":10.5,"qty":2.00}]"#;
    assert!(snapshot.contains(bids_and_asks), "{snapshot}");
    let checksum = crc32fast::hash(b"1052001102590100");
    assert!(snapshot.contains(&format!(r#""checksum":{checksum},"#)), "{snapshot}");
}
