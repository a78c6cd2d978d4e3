//! The client protocol, REST, the admin listener and the way out, as a client of another WebSocket
//! library sees them: on the gateway in this process, and on the binary itself.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::LazyLock;

use serde_json::{Value, json};
use tickfan::limits::{DRAIN_NS, MILLI_NS, SECOND_NS};
use tickfan::serve::Running;

#[path = "common/client.rs"]
mod client;
#[path = "common/gateway.rs"]
mod gateway;

use client::{Client, Heard};
use gateway::{exchange, get, get_json, http, metric, wait_until, wait_until_live};

/// One gateway for all tests that leave it running.
static GATEWAY: LazyLock<Running> = LazyLock::new(|| gateway::start_on_simulator(4, 1_000));

const BTC: &str = "sim:BTCUSDT";

fn connect() -> Client {
    Client::connect(GATEWAY.listen)
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn book(depth: u64, budget_ms: u64) -> Value {
    json!({"channel": "book", "symbols": [BTC], "depth": depth, "budget_ms": budget_ms})
}

// --- §2 and §3: what clients ask, and the answers.

#[test]
fn the_greeting_names_the_limits_and_what_is_on_offer() {
    let hello = connect().hello;
    assert_eq!(hello["protocol"], 1);
    assert!(hello["gateway"].as_str().unwrap().starts_with("tickfan/"));
    assert!(number(&hello["time"]) > 1_600_000_000_000_000, "microseconds");
    let limits = json!({"subscriptions": 2000, "message_bytes": 16384, "messages_per_s": 20});
    assert_eq!(hello["limits"], limits);
    let budgets = json!([0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000]);
    assert_eq!(hello["budgets_ms"], budgets);
    assert_eq!(hello["depths"], json!([1, 5, 10, 20, 50, 100, 200, 500, 1000, "full"]));
    assert_ne!(hello["session"], connect().hello["session"]);
}

#[test]
fn a_book_begins_with_an_image_and_goes_on_with_what_follows() {
    let mut client = connect();
    let subscribed = client.subscribe(book(5, 0)).remove(0);
    assert_eq!((&subscribed["symbol"], &subscribed["channel"]), (&json!(BTC), &json!("book")));
    assert_eq!((&subscribed["depth"], &subscribed["budget_ms"]), (&json!(5), &json!(0)));
    assert_eq!((&subscribed["budget"], &subscribed["state"]), (&json!("accepted"), &json!("live")));
    assert_eq!((&subscribed["price_scale"], &subscribed["qty_scale"]), (&json!(2), &json!(5)));
    let Heard::Update(image, ts) = client.hear() else { panic!("no update") };
    assert_eq!((&image["t"], &image["v"]), (&json!("image"), &subscribed["view"]));
    assert_eq!((&image["e"], &image["state"]), (&subscribed["epoch"], &json!("live")));
    assert!(number(&image["s"]) >= number(&subscribed["s"]));
    assert!(number(&image["tr"]) <= ts);
    for side in ["b", "a"] {
        let levels = image[side].as_array().unwrap();
        assert_eq!(levels.len(), 5, "{image}");
        let prices: Vec<f64> =
            levels.iter().map(|level| level[0].as_str().unwrap().parse().unwrap()).collect();
        assert!(prices.is_sorted_by(|one, next| if side == "b" { one > next } else { one < next }));
    }
    // The client checks that each of these follows the one before.
    for _ in 0..50 {
        let (delta, ts) = client.update(|_| true);
        assert_eq!((&delta["t"], &delta["v"]), (&json!("delta"), &subscribed["view"]));
        let changes = delta["b"].as_array().unwrap().len() + delta["a"].as_array().unwrap().len();
        assert!(changes > 0, "never empty");
        assert!(number(&delta["to"]) <= number(&delta["tr"]) && number(&delta["tr"]) <= ts);
    }
}

#[test]
fn a_bbo_is_whole_each_time() {
    let mut client = connect();
    let request = json!({"channel": "bbo", "symbols": [BTC], "budget_ms": 0});
    let subscribed = client.subscribe(request).remove(0);
    assert!(subscribed.get("depth").is_none(), "{subscribed}");
    let mut q = 0;
    for _ in 0..20 {
        let bbo = client.update_of(number(&subscribed["view"]), "bbo");
        assert!(bbo.get("p").is_none(), "{bbo}");
        let price = |side: &str| bbo[side][0].as_str().unwrap().parse::<f64>().unwrap();
        assert!(price("b") < price("a"), "{bbo}");
        assert!(number(&bbo["q"]) >= q, "{bbo}");
        q = number(&bbo["q"]);
    }
}

#[test]
fn trades_begin_with_the_newest_that_were_asked_for_and_none_is_missing() {
    wait_until("there are trades", || {
        let (_, trades) = get_json(GATEWAY.listen, &format!("/v1/trades?symbol={BTC}&limit=5"));
        trades["x"].as_array().unwrap().len() == 5
    });
    let mut client = connect();
    let request = json!({"channel": "trades", "symbols": [BTC], "last": 5, "budget_ms": 0});
    let subscribed = client.subscribe(request).remove(0);
    let view = number(&subscribed["view"]);
    let mut held = number(&subscribed["s"]);
    let mut ids: Vec<u64> = Vec::new();
    while ids.len() < 40 {
        let (trades, _) = client.update(|update| update["v"] == view);
        let new = trades["x"].as_array().unwrap();
        assert_eq!(number(&trades["p"]), held, "{trades}");
        assert_eq!(number(&trades["s"]), held + new.len() as u64, "{trades}");
        assert!(trades.get("lost").is_none(), "{trades}");
        if ids.is_empty() {
            assert!(new.len() >= 5, "{trades}");
        }
        held = number(&trades["s"]);
        for trade in new {
            assert!(["buy", "sell"].contains(&trade[3].as_str().unwrap()), "{trade}");
            ids.push(trade[4].as_str().unwrap().parse().unwrap());
        }
    }
    assert!(ids.windows(2).all(|pair| pair[1] == pair[0] + 1), "{ids:?}");
    // Nor is any lost on the way from one budget to another; the client checks it.
    for budget_ms in [20, 0, 5, 100, 1] {
        client.say(&json!({"op": "modify", "views": [view], "budget_ms": budget_ms}));
        client.control("subscribed");
        client.update_of(view, "trades");
    }
    // None of the past is sent unless it is asked for.
    let mut late = connect();
    let subscribed =
        late.subscribe(json!({"channel": "trades", "symbols": [BTC], "budget_ms": 0})).remove(0);
    assert!(number(&subscribed["s"]) >= held);
    let view = number(&subscribed["view"]);
    assert_eq!(late.update_of(view, "trades")["p"], subscribed["s"]);
}

#[test]
fn answers_come_in_order_with_their_ids() {
    let mut client = connect();
    let requests = [
        json!({"op": "ping", "id": -7}),
        json!({"op": "subscribe", "id": "a", "channel": "bbo", "symbols": ["sim:*"]}),
        json!({"op": "instruments", "id": 2, "match": BTC}),
        json!({"op": "fly", "id": 3}),
        json!({"op": "unsubscribe", "id": "", "channel": "bbo", "symbols": [BTC]}),
        json!({"op": "modify", "id": 5, "views": [99_999], "budget_ms": 5}),
        json!({"op": "ping"}),
    ];
    for request in &requests {
        client.say(request);
    }
    let kinds =
        ["pong", "subscribed", "instruments", "error", "unsubscribed", "subscribed", "pong"];
    for (request, kind) in requests.iter().zip(kinds) {
        let answer = client.control(kind);
        assert_eq!(answer.get("id"), request.get("id"), "{answer}");
        if kind == "pong" {
            assert!(number(&answer["received"]) <= number(&answer["sent"]));
        }
    }
}

#[test]
fn budgets_are_rounded_down_and_depths_up_unless_strict() {
    let mut client = connect();
    let request = |depth: Value, budget_ms: u64, strict: bool| {
        json!({"channel": "book", "symbols": [BTC], "depth": depth, "budget_ms": budget_ms,
               "strict": strict})
    };
    for (depth, budget_ms, wanted) in [
        (json!(11), 99, (json!(20), 50)),
        (json!(1), 3, (json!(1), 2)),
        (json!(1001), 9_999, (json!("full"), 5_000)),
        (json!("full"), 0, (json!("full"), 0)),
    ] {
        let result = client.subscribe(request(depth, budget_ms, false)).remove(0);
        assert_eq!((result["depth"].clone(), number(&result["budget_ms"])), wanted);
    }
    assert_eq!(client.subscribe(request(json!(10), 100, true))[0]["ok"], true);
    for (depth, budget_ms, code) in [(json!(11), 100, "bad_depth"), (json!(10), 99, "bad_budget")] {
        let mut request = request(depth, budget_ms, true);
        request["op"] = json!("subscribe");
        client.say(&request);
        assert_eq!(client.control("error")["code"], code);
    }
    let defaults = client.subscribe(json!({"channel": "book", "symbols": [BTC]})).remove(0);
    assert_eq!((number(&defaults["depth"]), number(&defaults["budget_ms"])), (20, 100));
}

#[test]
fn a_view_has_one_number_for_everybody_and_one_place_on_a_connection() {
    let (mut one, mut other) = (connect(), connect());
    let view = one.view(book(10, 0));
    one.update_of(view, "image");
    assert_eq!(other.view(book(10, 50)), view);
    assert_ne!(one.view(book(20, 0)), view);
    assert_ne!(one.view(json!({"channel": "bbo", "symbols": [BTC]})), view);
    one.update_of(view, "delta");
    // A second subscription answers as a change of the budget does: no image, no gap.
    let again = one.subscribe(book(10, 1)).remove(0);
    assert_eq!((number(&again["view"]), number(&again["budget_ms"])), (view, 1));
    for _ in 0..5 {
        let (update, _) = one.update(|update| update["v"] == view);
        assert_eq!(update["t"], "delta", "{update}");
    }
}

#[test]
fn a_budget_is_changed_without_a_gap() {
    let mut client = connect();
    // So deep that no image is ever shorter than the deltas that it stands for.
    let view = client.view(json!({
        "channel": "book", "symbols": [BTC], "depth": "full", "budget_ms": 0,
    }));
    client.update_of(view, "image");
    for budget_ms in [100, 0, 5, 0, 1000, 1, 1] {
        client.say(&json!({"op": "modify", "id": 1, "views": [view], "budget_ms": budget_ms}));
        let results = client.control("subscribed")["results"].clone();
        assert_eq!(number(&results[0]["budget_ms"]), budget_ms);
        assert_eq!((&results[0]["ok"], &results[0]["view"]), (&json!(true), &json!(view)));
        assert_eq!(results[0]["symbol"], BTC);
        let (update, _) = client.update(|update| update["v"] == view);
        assert_eq!(update["t"], "delta", "{update}");
        assert!(number(&update["p"]) >= number(&results[0]["s"]), "{update} after {results}");
    }
    client.say(&json!({"op": "modify", "views": [view, view + 1], "budget_ms": 5}));
    let results = client.control("subscribed")["results"].clone();
    assert_eq!((&results[0]["ok"], &results[1]["code"]), (&json!(true), &json!("not_subscribed")));
}

#[test]
fn after_the_answer_to_an_unsubscription_nothing_of_it_comes() {
    let mut client = connect();
    let ended = client.view(book(20, 0));
    let deeper = client.view(book(50, 0));
    let stays = client.view(json!({"channel": "bbo", "symbols": [BTC], "budget_ms": 0}));
    client.update_of(ended, "delta");
    client.say(&json!({"op": "unsubscribe", "id": 1, "views": [ended, 99_999]}));
    assert_eq!(
        client.control("unsubscribed"),
        json!({"type": "unsubscribed", "id": 1, "views": [ended]})
    );
    for _ in 0..20 {
        let (update, _) = client.update(|_| true);
        assert_ne!(update["v"], ended);
    }
    client.say(&json!({"op": "unsubscribe", "channel": "book", "symbols": [BTC, "sim:NOPE"]}));
    assert_eq!(client.control("unsubscribed")["views"], json!([deeper]));
    for _ in 0..10 {
        assert_eq!(client.update(|_| true).0["v"], stays);
    }
    // It begins anew, with an image.
    assert_eq!(client.view(book(20, 0)), ended);
    let (update, _) = client.update(|update| update["v"] == ended);
    assert_eq!(update["t"], "image");
}

#[test]
fn an_image_comes_at_once_and_at_most_once_a_second() {
    let mut client = connect();
    let view = client.view(book(20, 5_000));
    client.update_of(view, "image");
    client.say(&json!({"op": "image", "id": 1, "views": [view]}));
    let (image, first_us) = client.update(|update| update["v"] == view);
    assert_eq!(image["t"], "image");
    client.say(&json!({"op": "image", "id": 2, "views": [view]}));
    let error = client.control("error");
    assert_eq!((&error["id"], &error["code"]), (&json!(2), &json!("rate_limited")));
    client.say(&json!({"op": "image", "id": 3, "views": [view + 1]}));
    let error = client.control("error");
    assert_eq!((&error["id"], &error["code"]), (&json!(3), &json!("not_subscribed")));
    // A second later it may be had again; the heartbeats tell the time.
    client.say(&json!({"op": "heartbeat", "every_ms": 250}));
    while !matches!(client.hear(), Heard::Heartbeat(ts) if ts > first_us + SECOND_NS / 1_000) {}
    client.say(&json!({"op": "image", "id": 4, "views": [view]}));
    client.update_of(view, "image");
}

#[test]
fn a_heartbeat_is_an_empty_frame_when_nothing_else_was_sent() {
    let mut quiet = connect();
    quiet.say(&json!({"op": "heartbeat", "every_ms": 250}));
    let times: Vec<u64> = (0..4)
        .map(|_| match quiet.hear() {
            Heard::Heartbeat(ts) => ts,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(times.windows(2).all(|pair| pair[1] >= pair[0] + 250_000), "{times:?}");
    let mut busy = connect();
    busy.say(&json!({"op": "heartbeat", "every_ms": 5_000}));
    let view = busy.view(json!({"channel": "bbo", "symbols": [BTC], "budget_ms": 0}));
    for _ in 0..50 {
        let Heard::Update(update, _) = busy.hear() else { panic!("a heartbeat among updates") };
        assert_eq!(update["v"], view);
    }
    busy.say(&json!({"op": "heartbeat", "id": 1, "every_ms": 249}));
    assert_eq!(busy.control("error")["code"], "bad_request");
}

#[test]
fn instruments_are_found_by_name_and_by_beginning() {
    let mut client = connect();
    client.say(&json!({"op": "instruments"}));
    let all = client.control("instruments")["instruments"].clone();
    let first = json!({
        "symbol": BTC, "venue": "sim", "native": "BTCUSDT", "base": "BTC", "quote": "USDT",
        "kind": "spot", "tick": "0.01", "lot": "0.00001", "price_scale": 2, "qty_scale": 5,
        "state": "live",
    });
    assert_eq!(all[0], first);
    for (pattern, count) in
        [("*", 4), ("sim:*", 4), ("sim:E*", 1), (BTC, 1), ("sim:X*", 0), ("", 0)]
    {
        client.say(&json!({"op": "instruments", "match": pattern}));
        let found = client.control("instruments")["instruments"].clone();
        assert_eq!(found.as_array().unwrap().len(), count, "{pattern}");
        let target = format!("/v1/instruments?match={pattern}");
        let (status, over_http) = get_json(GATEWAY.listen, &target);
        assert_eq!((status, &over_http["instruments"]), (200, &found), "{pattern}");
    }
}

#[test]
fn a_client_that_closes_is_answered_and_counted() {
    let done = "tickfan_closes_total{cause=\"done\"}";
    let before = metric(&GATEWAY, done);
    let mut client = connect();
    client.view(book(20, 0));
    client.socket.close(None).unwrap();
    client.close_code();
    wait_until("the close is counted", || metric(&GATEWAY, done) > before);
}

// --- §7: HTTP.

#[test]
fn a_book_is_had_over_http() {
    let (status, book) = get_json(GATEWAY.listen, "/v1/book?symbol=sim%3ABTCUSDT&depth=5");
    assert_eq!((status, &book["t"], &book["state"]), (200, &json!("image"), &json!("live")));
    assert!(book.get("v").is_none());
    assert_eq!((book["b"].as_array().unwrap().len(), book["a"].as_array().unwrap().len()), (5, 5));
    let depth = |query: &str| {
        let (_, book) = get_json(GATEWAY.listen, &format!("/v1/book?symbol={BTC}{query}"));
        book["b"].as_array().unwrap().len()
    };
    assert_eq!(depth(""), 20);
    assert!(depth("&depth=full") > 20);
}

#[test]
fn trades_are_had_over_http() {
    wait_until("there are trades", || {
        let (_, trades) = get_json(GATEWAY.listen, &format!("/v1/trades?symbol={BTC}&limit=3"));
        trades["x"].as_array().unwrap().len() == 3
    });
    let (status, trades) = get_json(GATEWAY.listen, &format!("/v1/trades?symbol={BTC}&limit=3"));
    assert_eq!((status, &trades["t"]), (200, &json!("trades")));
    assert!(trades.get("v").is_none());
    assert_eq!(number(&trades["s"]), number(&trades["p"]) + 3);
}

#[test]
fn http_errors_have_a_status_and_a_code() {
    for (method, target, status, code) in [
        ("GET", "/v1/book", 400, "bad_request"),
        ("GET", "/v1/book?symbol=sim:BTCUSDT&depth=0", 400, "bad_depth"),
        ("GET", "/v1/book?symbol=sim:BTCUSDT&depth=-1", 400, "bad_depth"),
        ("GET", "/v1/book?symbol=sim:NOPE", 404, "unknown_symbol"),
        ("GET", "/v1/trades?symbol=sim:BTCUSDT&limit=x", 400, "bad_request"),
        ("GET", "/v1/trades?symbol=%ff", 400, "bad_request"),
        ("GET", "/v1/trades?symbol=sim:NOPE", 404, "unknown_symbol"),
        ("GET", "/v2/book", 404, "bad_request"),
        ("GET", "/v1/stream", 400, "bad_request"),
        ("DELETE", "/v1/book", 405, "bad_request"),
    ] {
        let (came, body) = http(GATEWAY.listen, method, target);
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((came, &body["code"]), (status, &json!(code)), "{method} {target}: {body}");
        assert!(!body["message"].as_str().unwrap().is_empty());
    }
    assert_eq!(get(GATEWAY.listen, "/").0, 200);
}

/// The lines of a head that are the same whenever it is asked for.
fn lasting(head: &str) -> Vec<&str> {
    head.lines().filter(|line| !line.starts_with("date:")).collect()
}

#[test]
fn head_is_answered_as_get_without_the_body() {
    let (door, operators) = (GATEWAY.listen, GATEWAY.admin);
    for (address, target, status) in [
        (door, "/", 200),
        (door, "/client.js", 200),
        (door, "/v1/instruments", 200),
        (door, "/v1/stream", 400),
        (door, "/v1/book?symbol=sim:NOPE", 404),
        (door, "/nowhere", 404),
        (operators, "/livez", 200),
        (operators, "/readyz", 200),
    ] {
        assert_eq!(http(address, "HEAD", target), (status, String::new()), "{target}");
        let ((got, body), (asked, _)) =
            (exchange(address, "GET", target), exchange(address, "HEAD", target));
        assert_eq!(lasting(&asked), lasting(&got), "{target}");
        assert!(got.contains(&format!("content-length: {}", body.len())), "{target}: {got}");
    }
    // These are never twice the same.
    for (address, target) in [
        (door, "/v1/book?symbol=sim:BTCUSDT"),
        (door, "/v1/trades?symbol=sim:BTCUSDT"),
        (operators, "/metrics"),
        (operators, "/overview"),
    ] {
        assert_eq!(http(address, "HEAD", target), (200, String::new()), "{target}");
    }
    let (refusal, _) = exchange(door, "DELETE", "/v1/book");
    assert!(refusal.lines().any(|line| line == "allow: GET, HEAD"), "{refusal}");
}

#[test]
fn before_the_first_image_nothing_is_sold_as_a_book() {
    // Somebody else's port, where no venue will ever answer.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let running = gateway::start(&gateway::feed("kraken", &["BTC/USD"], address, ""));
    let (status, error) = get_json(running.listen, "/v1/book?symbol=kraken:BTC/USD");
    assert_eq!(status, 503, "{error}");
    let (status, reason) = get(running.admin, "/readyz");
    assert_eq!((status, &*reason), (503, "1 of 1 books wait for an image\n"));
    let mut client = Client::connect(running.listen);
    let request = json!({"channel": "book", "symbols": ["kraken:BTC/USD"]});
    assert_eq!(client.subscribe(request)[0]["state"], "syncing");
}

#[test]
fn operators_see_life_readiness_and_counters() {
    assert_eq!(get(GATEWAY.admin, "/livez"), (200, "alive\n".to_owned()));
    assert_eq!(get(GATEWAY.admin, "/readyz"), (200, "ready\n".to_owned()));
    let mut client = connect();
    let view = client.view(book(20, 0));
    client.update_of(view, "delta");
    let (status, text) = get(GATEWAY.admin, "/metrics");
    assert_eq!(status, 200);
    let value = |name: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} is missing from\n{text}")).parse().unwrap()
    };
    for name in [
        "tickfan_feed_messages_total{venue=\"sim\"}",
        "tickfan_feed_publications_total{venue=\"sim\"}",
        "tickfan_feed_images_total{venue=\"sim\"}",
        "tickfan_shard_frames_total{shard=\"0\"}",
        "tickfan_shard_updates_total{shard=\"0\"}",
        "tickfan_shard_bytes_total{shard=\"0\"}",
        "tickfan_connections",
        "tickfan_subscriptions",
        "tickfan_lanes",
    ] {
        assert!(value(name) > 0, "{name}");
    }
    for name in [
        "tickfan_feed_gaps_total{venue=\"sim\"}",
        "tickfan_feed_malformed_total{venue=\"sim\"}",
        "tickfan_shard_trades_lost_total{shard=\"0\"}",
    ] {
        assert_eq!(value(name), 0, "{name}");
    }
    assert!(text.ends_with("# EOF\n"));
    assert_eq!(get(GATEWAY.admin, "/nothing").0, 404);
}

// --- The way out.

/// A drain is told, and a close with 1012 follows, not before it was announced.
fn expect_drain(client: &mut Client) {
    let drain = loop {
        match client.hear() {
            Heard::Control(message) => break message,
            Heard::Close(code, reason) => panic!("closed with {code} {reason} before the drain"),
            _ => {}
        }
    };
    assert_eq!((&drain["type"], &drain["reason"]), (&json!("drain"), &json!("restart")));
    assert!(number(&drain["in_ms"]) <= DRAIN_NS / MILLI_NS, "{drain}");
    assert!(drain["retry_after_ms"].is_u64(), "{drain}");
    assert_eq!(client.close_code(), 1012);
}

#[test]
fn a_drain_is_announced_and_ends_in_time() {
    let running = gateway::start_on_simulator(2, 200);
    let mut clients: Vec<Client> = (0..3).map(|_| Client::connect(running.listen)).collect();
    clients[0].view(book(20, 0));
    clients[1].view(book(20, 5_000));
    let (listen, admin) = (running.listen, running.admin);
    let draining = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let clock = tickfan::clock::Clock::start();
        let began_ns = clock.now();
        runtime.block_on(running.drain());
        (running, clock.now() - began_ns)
    });
    wait_until("nobody is sent here", || get(admin, "/readyz") == (503, "draining\n".to_owned()));
    let request = "GET /v1/stream HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
                   sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let mut late = std::net::TcpStream::connect(listen).unwrap();
    std::io::Write::write_all(&mut late, request.as_bytes()).unwrap();
    let mut answer = String::new();
    late.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    for client in &mut clients {
        expect_drain(client);
    }
    drop(clients);
    let (running, took_ns) = draining.join().unwrap();
    assert!(took_ns < DRAIN_NS + 2 * SECOND_NS, "{took_ns}");
    assert_eq!(metric(&running, "tickfan_connections"), 0);
    assert_eq!(metric(&running, "tickfan_closes_total{cause=\"restart\"}"), 3);
}

/// The binary with a configuration.
struct Binary {
    child: Child,
    clients: SocketAddr,
    operators: SocketAddr,
}

fn command(config: &str, name: &str) -> Command {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.toml"));
    std::fs::write(&path, config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tickfan"));
    command.arg("--config").arg(path).env_remove("TICKFAN_LOG").stderr(Stdio::piped());
    command
}

fn run(config: &str, name: &str) -> Output {
    command(config, name).output().unwrap()
}

impl Binary {
    fn start(config: &str, name: &str) -> Self {
        let mut child = command(config, name).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let serving = log
            .by_ref()
            .map(Result::unwrap)
            .inspect(|line| eprintln!("{line}"))
            .find(|line| line.contains("serving"))
            .expect("it says where it serves");
        // Whatever else it says must not block it.
        std::thread::spawn(move || log.for_each(drop));
        let address = |name: &str| {
            let (_, rest) = serving.split_once(&format!("{name}=")).unwrap();
            rest.split_whitespace().next().unwrap().parse().unwrap()
        };
        Self { clients: address("clients"), operators: address("operators"), child }
    }

    fn terminate(&self) {
        let kill = format!("kill -TERM {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    fn wait(mut self) -> ExitStatus {
        let mut status = None;
        wait_until("it ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Binary {
    fn drop(&mut self) {
        // A test that failed leaves nothing behind; one that passed has nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn config() -> String {
    let feed = gateway::simulator_feed(1, 200);
    format!("listen = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\nshards = 2\n{feed}")
}

#[test]
fn the_binary_ends_well_when_it_is_told_to() {
    let binary = Binary::start(&config(), "ends-well");
    wait_until_live(binary.operators);
    let mut clients: Vec<Client> = (0..4).map(|_| Client::connect(binary.clients)).collect();
    for client in &mut clients {
        let view = client.view(book(20, 0));
        client.update_of(view, "image");
    }
    binary.terminate();
    for client in &mut clients {
        expect_drain(client);
    }
    assert_eq!(binary.wait().code(), Some(0));
}

#[test]
fn the_binary_ends_at_once_when_it_is_told_twice() {
    let binary = Binary::start(&config(), "ends-at-once");
    let mut client = Client::connect(binary.clients);
    binary.terminate();
    client.control("drain");
    binary.terminate();
    assert_eq!(binary.wait().code(), Some(0));
}

#[test]
fn a_bad_configuration_is_code_2_and_one_line_that_says_where() {
    let output = run("listen = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\nshard = 1\n", "bad");
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(error.contains("bad.toml:3: unknown key \"shard\""), "{error}");
    assert!(error.contains("shards"), "it names what was meant: {error}");
}

#[test]
fn a_port_that_is_taken_is_code_1_and_one_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (key, name, whom) in [("listen", "taken", "clients"), ("admin", "taken-admin", "operators")]
    {
        let config = config().replacen(
            &format!("{key} = \"127.0.0.1:0\""),
            &format!("{key} = \"{address}\""),
            1,
        );
        let output = run(&config, name);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(error.contains(&format!("cannot listen on {address} for {whom}")), "{error}");
    }
}
