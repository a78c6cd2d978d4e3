//! How the served exchange treats its clients, over real sockets: what it answers at their start, TLS,
//! limits, and faults by hand.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "support/client.rs"]
mod client;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use client::{connect, hear, http, say};
use feed_sim::door::tls::Identity;
use feed_sim::exchange::{About, Exchange, ExchangeOptions};
use feed_sim::record::Example;
use feed_sim::serve::{Manners, ServedExchange};
use feed_sim::venue::Dialect;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;
use tokio_tungstenite::tungstenite::Message;

const START_NS: u64 = 1_700_000_000_000_000_000;

fn options(dialect: Dialect) -> ExchangeOptions {
    ExchangeOptions::of(dialect, 1, 2, START_NS)
}

fn serve(dialect: Dialect, manners: Manners) -> SocketAddr {
    client::background(move |listener| {
        ServedExchange::with_manners(options(dialect), manners).serve(listener)
    })
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// What the venue's clients were seen to ask for before they subscribe, and something that the answer
/// must have, as a JSON pointer and its value.
#[test]
fn clients_get_what_they_ask_for_at_their_start() {
    for (dialect, target, pointer, expected) in [
        (Dialect::BinanceSpot, "/api/v3/exchangeInfo", "/symbols/0/symbol", "BTCUSDT"),
        (Dialect::BinanceSpot, "/any/prefix/api/v3/exchangeInfo", "/symbols/0/symbol", "BTCUSDT"),
        (Dialect::BinanceSpot, "/fapi/v1/exchangeInfo", "/timezone", "UTC"),
        (Dialect::BinanceUsdm, "/fapi/v1/exchangeInfo", "/symbols/0/marginAsset", "USDT"),
        (Dialect::BinanceCoinm, "/dapi/v1/exchangeInfo", "/symbols/0/marginAsset", "BTC"),
        (Dialect::Coinbase, "/products", "/0/id", "BTC-USD"),
        (Dialect::Coinbase, "/currencies", "/0/id", "BTC"),
        (
            Dialect::CoinbaseAdvanced,
            "/api/v3/brokerage/market/products",
            "/products/0/product_id",
            "BTC-USD",
        ),
        (Dialect::CoinbaseAdvanced, "/v2/currencies", "/data/0/id", "USD"),
        (Dialect::CoinbaseAdvanced, "/v2/currencies/crypto", "/data/0/code", "BTC"),
        (Dialect::CoinbaseAdvanced, "/v2/exchange-rates", "/data/rates/BTC", "1"),
        (Dialect::Kraken, "/0/public/Assets", "/result/ZUSD/altname", "USD"),
        (Dialect::Kraken, "/0/public/AssetPairs", "/result/ETHUSD/base", "ETH"),
        (Dialect::Kraken, "/0/public/AssetPairs?pair=ETH%2FUSD", "/result/ETH~1USD/base", "ETH"),
        (Dialect::KrakenV1, "/0/public/AssetPairs", "/result/ETHUSD/wsname", "ETH/USD"),
        (Dialect::Okx, "/api/v5/public/instruments?instType=SPOT", "/data/0/instId", "BTC-USDT"),
        (
            Dialect::BybitSpot,
            "/v5/market/instruments-info?category=spot",
            "/result/list/0/symbol",
            "BTCUSDT",
        ),
    ] {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let reply = Exchange::new(options(dialect)).answer(path, query);
        assert_eq!(reply.status, 200, "{dialect:?} {target}");
        let found = json(&reply.body);
        let found = found.pointer(pointer).and_then(Value::as_str);
        assert_eq!(found, Some(expected), "{dialect:?} {target}: {}", reply.body);
    }
}

#[test]
fn what_is_not_there_is_an_empty_list_in_the_venue_s_shape() {
    for (dialect, target, empty) in [
        (Dialect::BinanceSpot, "/sapi/v1/anything", "[]"),
        (Dialect::BinanceSpot, "/dapi/v1/exchangeInfo", r#"{"timezone":"UTC","symbols":[]}"#),
        (Dialect::Coinbase, "/anything", "[]"),
        (
            Dialect::CoinbaseAdvanced,
            "/api/v3/brokerage/market/products?product_type=FUTURE",
            r#"{"products":[],"num_products":0}"#,
        ),
        (Dialect::Kraken, "/0/public/Anything", r#"{"error":[],"result":{}}"#),
        (Dialect::Okx, "/api/v5/public/anything", r#"{"code":"0","msg":"","data":[]}"#),
        (
            Dialect::Okx,
            "/api/v5/public/instruments?instType=SWAP",
            r#"{"code":"0","msg":"","data":[]}"#,
        ),
        (
            Dialect::BybitSpot,
            "/v5/market/instruments-info?category=linear&status=PreLaunch",
            r#"{"retCode":0,"retMsg":"OK","result":{"category":"linear","list":[],"nextPageCursor":""},"retExtInfo":{},"time":0}"#,
        ),
    ] {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let reply = Exchange::new(options(dialect)).answer(path, query);
        assert_eq!((reply.status, reply.body.as_str()), (200, empty), "{dialect:?} {target}");
    }
}

/// The first line of the answer to a request over TLS to a name, when only `root` is trusted.
fn over_tls(address: SocketAddr, name: &'static str, root: &CertificateDer<'static>) -> String {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(name).unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut stream = StreamOwned::new(connection, stream);
    let mut answer = String::new();
    let asked = write!(stream, "GET /status HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    // Whoever closes without TLS's own farewell has still answered.
    if let Err(error) = asked.and_then(|()| stream.read_to_string(&mut answer).map(drop))
        && answer.is_empty()
    {
        return error.to_string();
    }
    answer.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn under_tls_it_is_who_its_authority_says_and_nobody_else_s() {
    let folder = std::env::temp_dir().join(format!("feed-sim-tls-{}", std::process::id()));
    let identity = Identity::generate().unwrap();
    let trusted = identity.write_authority(&folder).unwrap();
    let root = CertificateDer::from_pem_file(&trusted).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    let address = client::background(move |listener| {
        ServedExchange::new(options(Dialect::Okx)).serve_tls(listener, identity)
    });
    for name in ["localhost", "127.0.0.1"] {
        assert_eq!(over_tls(address, name, &root), "HTTP/1.1 200 OK", "{name}");
    }
    let refused = over_tls(address, "example.com", &root);
    assert!(refused.contains("not valid for name"), "{refused}");
    let folder = folder.with_extension("other");
    let other = Identity::generate().unwrap().write_authority(&folder).unwrap();
    let stranger = CertificateDer::from_pem_file(&other).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    let refused = over_tls(address, "localhost", &stranger);
    assert!(refused.contains("invalid peer certificate"), "{refused}");
}

/// Asks for a WebSocket; returns the connection and the beginning of the answer.
fn upgrade(address: SocketAddr) -> (TcpStream, String) {
    // The standard's own example of a key.
    let upgrade = "GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                   sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(upgrade.as_bytes()).unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).unwrap();
    (stream, String::from_utf8_lossy(&status).into_owned())
}

#[test]
fn who_is_banned_gets_no_connection() {
    for (dialect, status) in
        [(Dialect::BinanceSpot, "418"), (Dialect::BybitSpot, "403"), (Dialect::Kraken, "429")]
    {
        let address = serve(dialect, Manners::EASY);
        assert_eq!(&upgrade(address).1[9..], "101");
        let body = r#"{"kind":"ban","for_ms":3600000}"#;
        assert_eq!(client::post(address, "/faults", body).0, 200);
        if dialect.fetches_images() {
            let image = http(address, "GET", "/api/v3/depth?symbol=BTCUSDT");
            assert_eq!(image.0.to_string(), status);
        }
        let (mut stream, refused) = upgrade(address);
        assert_eq!(&refused[9..], status, "{dialect:?}");
        let mut rest = [0; 512];
        let length = stream.read(&mut rest).unwrap();
        let rest = String::from_utf8_lossy(&rest[..length]).to_lowercase();
        assert!(rest.contains("retry-after: 3600"), "{rest}");
        let report = json(&http(address, "GET", "/faults").1);
        assert_eq!(report["faults"][0]["happened"], 1, "{dialect:?}");
    }
}

#[test]
fn what_is_listed_by_hand_is_there_and_counted() {
    let address = serve(Dialect::BinanceSpot, Manners::EASY);
    let listed = || {
        let list = json(&http(address, "GET", "/api/v3/exchangeInfo").1);
        list["symbols"].as_array().unwrap().len()
    };
    assert_eq!(listed(), 2);
    assert_eq!(client::post(address, "/faults", r#"{"kind":"list"}"#).0, 200);
    while json(&http(address, "GET", "/faults").1)["faults"][0]["happened"] != 1 {
        std::thread::yield_now();
    }
    let report = json(&http(address, "GET", "/faults").1);
    let name = report["faults"][0]["strikes"][0]["symbol"].as_str().unwrap().to_owned();
    assert_eq!(listed(), 3);
    for target in ["/truth?symbol=", "/api/v3/depth?limit=5&symbol="] {
        assert_eq!(http(address, "GET", &format!("{target}{name}")).0, 200, "{target}{name}");
    }
    assert!(http(address, "GET", "/status").1.contains(&name));
    let streams = format!("/stream?streams={}@bookTicker", name.to_lowercase());
    assert!(hear(&mut connect(address, &streams)).contains(&name));
}

#[test]
fn what_serve_says_to_try_brings_a_book() {
    for dialect in Dialect::ALL {
        let mut exchange = Exchange::new(options(dialect));
        let first = exchange.symbols().next().unwrap().to_owned();
        let example = Example::of_exchange(dialect, &first);
        let (path, query) = example.target.split_once('?').unwrap_or((&example.target, ""));
        let connection = exchange.connect(path, query, START_NS);
        exchange.hear(connection, example.request.as_deref().unwrap_or_default(), START_NS);
        let brings = |exchange: &mut Exchange| {
            exchange
                .take_told()
                .iter()
                .any(|told| matches!(told.about, About::Book { symbol: 0, .. }))
        };
        let end_ns = START_NS + 10_000_000_000;
        let mut is_there = false;
        while !is_there && exchange.next_ns() < end_ns {
            exchange.step();
            is_there = brings(&mut exchange);
        }
        assert!(is_there, "{dialect:?}: {example:?}");
    }
}

#[test]
fn limits_are_kept_when_asked_for() {
    let strict = || Manners { keeps_limits: true, ..Manners::EASY };
    let subscribe = r#"{"method":"LIST_SUBSCRIPTIONS","id":1}"#;
    let mut socket = connect(serve(Dialect::BinanceSpot, Manners::EASY), "/ws");
    for _ in 0..6 {
        say(&mut socket, subscribe);
        hear(&mut socket);
    }
    let mut socket = connect(serve(Dialect::BinanceSpot, strict()), "/ws");
    // Far more than five, and in one write: however the machine stands still meanwhile, there is a second in
    // which too many of them come.
    for _ in 0..60 {
        socket.write(Message::text(subscribe)).unwrap();
    }
    socket.flush().unwrap();
    let closed = loop {
        match socket.read().unwrap() {
            Message::Close(Some(frame)) => break (u16::from(frame.code), frame.reason.to_string()),
            Message::Close(None) => panic!("closed without a reason"),
            _ => {}
        }
    };
    assert_eq!(closed, (1008, "Too many requests".to_owned()));

    // A hundred and fifty in ten minutes, which even a slow machine is done with.
    let address = serve(Dialect::Kraken, strict());
    let statuses: Vec<String> = (0..151).map(|_| upgrade(address).1[9..].to_owned()).collect();
    assert!(statuses[..150].iter().all(|status| status == "101"), "{statuses:?}");
    assert_eq!(statuses[150], "429");
}

#[test]
fn by_hand_changes_are_lost_and_connections_cut_and_both_are_counted() {
    let address = serve(Dialect::Okx, Manners::EASY);
    let mut socket = connect(address, "/ws/v5/public");
    say(&mut socket, r#"{"op":"subscribe","args":[{"channel":"books","instId":"BTC-USDT"}]}"#);
    let mut next = || {
        loop {
            let message = json(&hear(&mut socket));
            if message["data"][0]["seqId"].is_u64() {
                let data = &message["data"][0];
                return (data["prevSeqId"].as_i64().unwrap(), data["seqId"].as_i64().unwrap());
            }
        }
    };
    let (_, mut newest) = next();
    let post = |body: &str| client::post(address, "/faults", body);
    assert_eq!(post(r#"{"kind":"gap","symbol":"NOPE"}"#).0, 400);
    assert_eq!(post(r#"{"kind":"gap","symbol":"BTC-USDT","count":2}"#).0, 200);
    loop {
        let (previous, own) = next();
        let is_hole = previous != newest;
        newest = own;
        if is_hole {
            break;
        }
    }
    let happened =
        |report: &str| json(report)["faults"].as_array().unwrap().last().unwrap().clone();
    let gap = happened(&http(address, "GET", "/faults").1);
    assert_eq!((&gap["kind"], &gap["happened"]), (&"gap".into(), &2.into()));
    let (previous, _) = next();
    assert_eq!(previous, newest, "only so many are lost");
    assert_eq!(post(r#"{"kind":"cut-all"}"#).0, 200);
    while let Ok(message) = socket.read() {
        assert!(!message.is_close(), "it ends without a word");
    }
    let cut = happened(&http(address, "GET", "/faults").1);
    assert_eq!((&cut["kind"], &cut["happened"]), (&"cut-all".into(), &1.into()));
}
