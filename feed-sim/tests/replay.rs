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
fn it_pauses_before_a_line_until_it_is_told_to_go_on() {
    let lines = binance_lines();
    for speed in [Speed::Max, Speed::X(1_000)] {
        let options = ReplayOptions { speed, pause_before: Some(8), ..at_max() };
        let address = start("binance-spot-test", &lines, options);
        let mut socket = connect(address, "/stream?streams=btcusdt@depth@100ms");
        let image = std::thread::spawn(move || http(address, "GET", DEPTH));
        go(address);
        for index in [1, 3, 6] {
            assert_eq!(hear(&mut socket), payload(&lines[index]));
        }
        assert_eq!(image.join().unwrap().0, 200);
        wait_for(address, r#""state":"paused","line":7,"#);
        socket.send(Message::Ping("anything else".into())).unwrap();
        assert_eq!(socket.read().unwrap(), Message::Pong("anything else".into()), "it waits");
        go(address);
        assert_eq!(hear(&mut socket), payload(&lines[7]));
        wait_for(address, "ended");
    }
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

fn bitfinex_lines() -> Vec<String> {
    let ack = |channel: &str, number: u64| {
        format!(
            r#"{{"event":"subscribed","channel":"{channel}","chanId":{number},"symbol":"tBTCUSD","pair":"BTCUSD"}}"#
        )
    };
    vec![
        line(0, "recv", "ws", r#"{"event":"conf","status":"OK","flags":65536}"#),
        line(1, "recv", "ws", &ack("book", 17)),
        line(2, "recv", "ws", "[17,[[10,1,0.5],[11,2,-2e-8]],1]"),
        line(3, "recv", "ws", r#"[18,"hb",2]"#),
        line(4, "recv", "ws", &ack("trades", 18)),
        line(5, "recv", "ws", "[17,[9,1,3],3]"),
        line(6, "recv", "ws", r#"[18,"te",[7,1700000000000,-0.5,10],4]"#),
        line(7, "recv", "ws", "[17,[10,0,1],5]"),
    ]
}

#[test]
fn bitfinex_numbers_what_each_connection_gets_and_a_lost_line_leaves_a_hole() {
    let options = ReplayOptions { drop_line: Some(6), ..at_max() };
    let address = start("bitfinex-test", &bitfinex_lines(), options);
    let mut plain = connect(address, "/ws/2");
    let mut numbered = connect(address, "/ws/2");
    for socket in [&mut plain, &mut numbered] {
        assert!(hear(socket).starts_with(r#"{"event":"info","version":2,"#));
    }
    say(&mut numbered, r#"{"event":"conf","flags":65536}"#);
    assert_eq!(hear(&mut numbered), r#"{"event":"conf","status":"OK","flags":65536}"#);
    let trades = r#"{"event":"subscribe","channel":"trades","symbol":"tBTCUSD"}"#;
    let book = r#"{"event":"subscribe","channel":"book","symbol":"tBTCUSD","prec":"P0","freq":"F0","len":"250"}"#;
    for socket in [&mut plain, &mut numbered] {
        say(socket, trades);
        assert_eq!(
            hear(socket),
            r#"{"event":"subscribed","channel":"trades","chanId":1,"symbol":"tBTCUSD","pair":"BTCUSD"}"#
        );
        say(socket, book);
        assert_eq!(
            hear(socket),
            r#"{"event":"subscribed","channel":"book","chanId":2,"symbol":"tBTCUSD","prec":"P0","freq":"F0","len":"250","pair":"BTCUSD"}"#
        );
        say(socket, trades);
        assert!(hear(socket).contains("subscribe: dup"));
        say(socket, &trades.replace("BTC", "NOPE"));
        assert!(hear(socket).contains("symbol: invalid"));
    }
    go(address);
    let contents = [
        "[2,[[10,1,0.5],[11,2,-2e-8]]",
        r#"[1,"hb""#,
        r#"[1,"te",[7,1700000000000,-0.5,10]"#,
        "[2,[10,0,1]",
    ];
    for (content, number) in contents.iter().zip([1, 2, 4, 5]) {
        assert_eq!(hear(&mut plain), format!("{content}]"));
        assert_eq!(hear(&mut numbered), format!("{content},{number}]"), "line 6 was number 3");
    }
    say(&mut numbered, r#"{"event":"unsubscribe","chanId":2}"#);
    assert_eq!(hear(&mut numbered), r#"{"event":"unsubscribed","status":"OK","chanId":2}"#);
    say(&mut numbered, book);
    assert!(hear(&mut numbered).contains(r#""chanId":3,"#));
    assert_eq!(hear(&mut numbered), "[3,[[9,1,3],[11,1,-2e-8]],6]", "with the level that was lost");
}

fn advanced(channel: &str, number: u64, event: &str) -> String {
    format!(
        r#"{{"channel":"{channel}","timestamp":"2026-08-09T21:05:48.2Z","sequence_num":{number},"events":[{event}]}}"#
    )
}

#[test]
fn coinbase_advanced_numbers_what_each_connection_gets_and_a_lost_line_leaves_a_hole() {
    let book = |kind: &str, side: &str, px: &str, qty: &str| {
        format!(
            r#"{{"type":"{kind}","product_id":"BTC-USD","updates":[{{"side":"{side}","event_time":"2026-08-09T21:05:48.1Z","price_level":"{px}","new_quantity":"{qty}"}}]}}"#
        )
    };
    let beat = r#"{"current_time":"2026-08-09 21:05:48","heartbeat_counter":1}"#;
    let texts = [
        advanced("l2_data", 7, &book("snapshot", "bid", "10.0", "1.50")),
        advanced("subscriptions", 8, r#"{"subscriptions":{"level2":["BTC-USD"]}}"#),
        advanced("l2_data", 9, &book("update", "offer", "11", "2")),
        advanced("heartbeats", 10, beat),
        advanced("l2_data", 11, &book("update", "bid", "10", "0")),
    ];
    let lines: Vec<String> = texts.iter().map(|text| line(0, "recv", "ws", text)).collect();
    let options = ReplayOptions { drop_line: Some(3), ..at_max() };
    let address = start("coinbase-advanced-test", &lines, options);
    let mut socket = connect(address, "/");
    let subscribe = r#"{"type":"subscribe","product_ids":["BTC-USD"],"channel":"level2"}"#;
    say(&mut socket, subscribe);
    let ack = hear(&mut socket);
    assert!(
        ack.contains(r#""sequence_num":0,"events":[{"subscriptions":{"level2":["BTC-USD"]}}]"#)
    );
    say(&mut socket, r#"{"type":"subscribe","product_ids":[],"channel":"heartbeats"}"#);
    let ack = hear(&mut socket);
    assert!(ack.contains(r#""sequence_num":1,"#) && ack.contains(r#""heartbeats":["heartbeats"]"#));
    go(address);
    for (recorded, before, after) in [(0, 7, 2), (3, 10, 4), (4, 11, 5)] {
        let renumbered =
            texts[recorded].replace(&format!(r#"_num":{before},"#), &format!(r#"_num":{after},"#));
        assert_eq!(hear(&mut socket), renumbered, "line 3 was number 3");
    }
    say(&mut socket, &subscribe.replace("subscribe", "unsubscribe"));
    hear(&mut socket);
    say(&mut socket, subscribe);
    let snapshot = hear(&mut socket);
    assert!(snapshot.contains(r#""sequence_num":7,"#), "{snapshot}");
    assert!(snapshot.contains(r#""side":"offer","#) && !snapshot.contains("bid"), "{snapshot}");
    assert!(hear(&mut socket).contains(r#""sequence_num":8,"#));
}

#[test]
fn deribit_channels_are_called_as_the_client_calls_them() {
    let pushed = |interval: &str, data: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","method":"subscription","params":{{"channel":"book.BTC-PERPETUAL.{interval}","data":{data}}}}}"#
        )
    };
    let image = r#"{"type":"snapshot","timestamp":1,"instrument_name":"BTC-PERPETUAL","change_id":5,"bids":[["new",10.0,7.5]],"asks":[]}"#;
    let change = r#"{"type":"change","timestamp":2,"prev_change_id":5,"instrument_name":"BTC-PERPETUAL","change_id":9,"bids":[["delete",10.0,0.0]],"asks":[["new",11.5,1.0]]}"#;
    let lines: Vec<String> =
        [image, change].map(|data| line(0, "recv", "ws", &pushed("raw", data))).into();
    let address = start("deribit-test", &lines, at_max());
    let mut socket = connect(address, "/ws/api/v2");
    let call = |method: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":3,"method":"public/{method}","params":{{"channels":["book.BTC-PERPETUAL.100ms","book.NOPE.raw"]}}}}"#
        )
    };
    let obeyed = r#"{"jsonrpc":"2.0","id":3,"result":["book.BTC-PERPETUAL.100ms"]}"#;
    say(&mut socket, &call("subscribe"));
    assert_eq!(hear(&mut socket), obeyed);
    go(address);
    assert_eq!(hear(&mut socket), pushed("100ms", image));
    assert_eq!(hear(&mut socket), pushed("100ms", change));
    say(&mut socket, &call("unsubscribe"));
    assert_eq!(hear(&mut socket), obeyed);
    say(&mut socket, &call("subscribe"));
    assert_eq!(hear(&mut socket), obeyed);
    let fresh = r#"{"type":"snapshot","timestamp":1700000000000,"instrument_name":"BTC-PERPETUAL","change_id":9,"bids":[],"asks":[["new",11.5,1.0]]}"#;
    assert_eq!(hear(&mut socket), pushed("100ms", fresh));
    say(&mut socket, &call("subscribe").replace("book.NOPE.raw", "platform_state"));
    let obeyed = obeyed.replace("100ms\"", "100ms\",\"platform_state\"");
    assert_eq!(hear(&mut socket), obeyed, "and the book is not sent again");
    say(&mut socket, r#"{"jsonrpc":"2.0","id":4,"method":"public/fly"}"#);
    assert!(hear(&mut socket).contains(r#""id":4,"error":{"#));
}

#[test]
fn kraken_v1_has_numbers_of_channels_for_each_connection() {
    let lines = [
        r#"{"event":"heartbeat"}"#,
        r#"[992,{"as":[["11.0","3.00","1.5"]],"bs":[["10.0","1.00","1.5"]]},"book-1000","XMR/USD"]"#,
        r#"[992,{"b":[["10.0","0.00","2.5"]],"c":"7"},"book-1000","XMR/USD"]"#,
        r#"[993,[["11.0","1.0","3.5","b","m",""]],"trade","XMR/USD"]"#,
    ];
    let recorded: Vec<String> = lines.iter().map(|text| line(0, "recv", "ws", text)).collect();
    let address = start("kraken-v1-test", &recorded, at_max());
    let mut socket = connect(address, "/");
    assert!(hear(&mut socket).contains(r#""event":"systemStatus","status":"online""#));
    say(&mut socket, r#"{"event":"ping","reqid":4}"#);
    assert_eq!(hear(&mut socket), r#"{"event":"pong","reqid":4}"#);
    let trades = r#"{"event":"subscribe","pair":["XMR/USD"],"subscription":{"name":"trade"}}"#;
    say(&mut socket, trades);
    assert_eq!(
        hear(&mut socket),
        r#"{"channelID":1,"channelName":"trade","event":"subscriptionStatus","pair":"XMR/USD","status":"subscribed","subscription":{"name":"trade"}}"#
    );
    let book =
        r#"{"event":"subscribe","pair":["XMR/USD"],"subscription":{"name":"book","depth":1000}}"#;
    say(&mut socket, &book.replace("1000", "10"));
    assert!(hear(&mut socket).contains("depth not supported"));
    say(&mut socket, book);
    assert_eq!(
        hear(&mut socket),
        r#"{"channelID":2,"channelName":"book-1000","event":"subscriptionStatus","pair":"XMR/USD","status":"subscribed","subscription":{"depth":1000,"name":"book"}}"#
    );
    go(address);
    assert_eq!(hear(&mut socket), lines[0]);
    assert_eq!(hear(&mut socket), lines[1].replace("992", "2"));
    assert_eq!(hear(&mut socket), lines[2].replace("992", "2"));
    assert_eq!(hear(&mut socket), lines[3].replace("993", "1"));
    say(&mut socket, &book.replace(r#""subscribe""#, r#""unsubscribe""#));
    assert!(hear(&mut socket).contains(r#""status":"unsubscribed""#));
    say(&mut socket, book);
    assert!(hear(&mut socket).contains(r#""channelID":3,"#));
    assert_eq!(
        hear(&mut socket),
        r#"[3,{"as":[["11.0","3.00","1700000000.000000"]],"bs":[]},"book-1000","XMR/USD"]"#
    );
}

#[test]
fn requests_that_make_no_sense_are_refused_in_the_venue_s_words() {
    let okx = r#"{"arg":{"channel":"books","instId":"A-B"},"action":"snapshot","data":[{"asks":[],"bids":[["1","2","0","1"]],"ts":"5","checksum":0}]}"#;
    let bybit = r#"{"topic":"orderbook.200.AB","type":"snapshot","ts":5,"data":{"s":"AB","b":[],"a":[],"u":4,"seq":6},"cts":5}"#;
    let coinbase = r#"{"type":"snapshot","product_id":"A-B","asks":[],"bids":[["1","2"]]}"#;
    for (name, recorded, path, cases) in [
        (
            "okx-test",
            okx,
            "/ws/v5/public",
            &[
                ("ping", "pong"),
                ("hello", "60012"),
                (r#"{"op":"subscribe","args":[{"channel":"books","instId":"X"}]}"#, "60018"),
                (
                    r#"{"id":"7","op":"subscribe","args":[{"channel":"books","instId":"A-B"}]}"#,
                    r#"{"id":"7","event":"subscribe","arg":{"channel":"books","instId":"A-B"},"connId":"00000001"}"#,
                ),
            ][..],
        ),
        (
            "bybit-linear-test",
            bybit,
            "/v5/public/linear",
            &[
                (r#"{"op":"ping","req_id":"1"}"#, r#"{"success":true,"ret_msg":"pong","#),
                ("hello", r#""success":false"#),
                (r#"{"op":"subscribe","args":["orderbook.200.X"]}"#, "handler not found"),
                (r#"{"op":"subscribe","args":["orderbook.50.AB"]}"#, "handler not found"),
                (r#"{"op":"subscribe","args":["orderbook.200.AB"]}"#, r#""success":true"#),
                (r#"{"op":"subscribe","args":["orderbook.200.AB"]}"#, "already subscribed"),
            ],
        ),
        (
            "coinbase-exchange-test",
            coinbase,
            "/",
            &[
                ("hello", r#"{"type":"error""#),
                (
                    r#"{"type":"subscribe","product_ids":["X"],"channels":["level2"]}"#,
                    "not a valid",
                ),
                (
                    r#"{"type":"subscribe","product_ids":["A-B"],"channels":["level2_batch",{"name":"heartbeat","product_ids":["A-B"]}]}"#,
                    r#"{"type":"subscriptions","channels":[{"name":"heartbeat","product_ids":["A-B"]},{"name":"level2_batch","product_ids":["A-B"]}]}"#,
                ),
            ],
        ),
    ] {
        let lines = [line(0, "recv", "ws", recorded)];
        let address = start(name, &lines, at_max());
        let mut socket = connect(address, path);
        for (request, answer) in cases {
            say(&mut socket, request);
            let heard = hear(&mut socket);
            assert!(heard.contains(answer), "{request}: {heard}");
        }
        go(address);
        assert_eq!(hear(&mut socket), recorded);
    }
}
