//! Feed sessions on real sockets against a venue of which the test writes every word: whatever goes
//! wrong there is told to the subscribers of that symbol, mended, and felt by nobody else.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};
use serde_json::{Value, json};
use tickfan::clock::Clock;
use tickfan::config::Config;
use tickfan::feed::rest::{ImageFetcher, RestError, RestHost, RestQueue};
use tickfan::feed::session::Session as FeedSession;
use tickfan::feed::session::dial::{Dialer, Spacing};
use tickfan::feed::session::line::Turns;
use tickfan::feed::tls::{Address, Connector};
use tickfan::feed::{Feed, FeedOptions};
use tickfan::limits::{
    LARGE_MESSAGE_BYTES, REST_CONCURRENT_MAX, SECOND_NS, VENUE_MESSAGE_BYTES_MAX,
};
use tickfan::serve::{self, Running};
use tickfan::stats::{FeedStats, Stats};
use tickfan::venue::{
    Checksum, DecodeError, ImageDecoder, LargeImage, Resync, Subscription, VenueDecoder,
};
use tickfan_core::market::{EventBatch, InstrumentId, Nanos, State, Venue};
use tickfan_core::snapshot::{Entry, Registry};
use tokio::sync::watch;

#[path = "common/client.rs"]
mod client;
#[path = "common/gateway.rs"]
mod gateway;
#[path = "common/venue.rs"]
mod venue;

use client::Client;
use gateway::{get, metric, wait_until};
use venue::{ScriptedVenue, Session};

// --- Binance spot, written by hand from its documentation.

fn depth(symbol: &str, first: u64, last: u64, px: &str, qty: &str) -> String {
    let stream = symbol.to_lowercase();
    format!(
        r#"{{"stream":"{stream}@depth@100ms","data":{{"e":"depthUpdate","E":1700000000000,"s":"{symbol}","U":{first},"u":{last},"b":[["{px}","{qty}"]],"a":[]}}}}"#
    )
}

fn image(last: u64) -> String {
    format!(
        r#"{{"lastUpdateId":{last},"bids":[["100.00","1.0"],["99.00","2.0"]],"asks":[["101.00","3.0"]]}}"#
    )
}

/// A gateway on a scripted Binance, whose symbols are live with an image at update 100.
struct Binance {
    venue: ScriptedVenue,
    session: Option<Session>,
    running: Running,
}

const NOT_FOUND: &str = r#"{"code":-1,"msg":"There is nothing at this path."}"#;

/// Answers the request for the instrument list as a venue that has none.
fn refuse_listing(venue: &ScriptedVenue) {
    let listing = venue.request();
    assert_eq!(listing.target, "/api/v3/exchangeInfo");
    listing.answer("404 Not Found", "", NOT_FOUND);
}

fn acknowledge(session: &mut Session) {
    let subscribe: Value = serde_json::from_str(&session.hear()).unwrap();
    assert_eq!(subscribe["method"], "SUBSCRIBE");
    session.say(&json!({"result": null, "id": subscribe["id"]}).to_string());
}

/// Answers the next request for an image, which must be of this symbol.
fn serve_image(venue: &ScriptedVenue, symbol: &str, last: u64) {
    let request = venue.request();
    assert_eq!(request.target, format!("/api/v3/depth?symbol={symbol}&limit=5000"));
    request.answer("200 OK", "", &image(last));
}

impl Binance {
    fn start(symbols: &[&str]) -> Self {
        let venue = ScriptedVenue::open();
        let running = gateway::start(&venue.feed("binance-spot", symbols));
        refuse_listing(&venue);
        let mut session = venue.session();
        acknowledge(&mut session);
        for symbol in symbols {
            serve_image(&venue, symbol, 100);
        }
        wait_until("the books are live", || get(running.admin, "/readyz").0 == 200);
        Self { venue, session: Some(session), running }
    }

    /// A client with the book of each symbol at budget 0, its image taken; the views in order.
    fn client(&self, symbols: &[&str]) -> (Client, Vec<u64>) {
        client_of(&self.running, "binance-spot", symbols)
    }

    fn session(&mut self) -> &mut Session {
        self.session.as_mut().unwrap()
    }

    /// Waits for the feed to come back.
    fn reconnect(&mut self) {
        let mut session = self.venue.session();
        acknowledge(&mut session);
        self.session = Some(session);
    }

    /// No image is asked for.
    fn asks_for_nothing(&self) {
        assert!(self.venue.request_now().is_none());
    }
}

fn client_of(running: &Running, venue: &str, symbols: &[&str]) -> (Client, Vec<u64>) {
    let mut client = Client::connect(running.listen);
    let views = symbols
        .iter()
        .map(|symbol| {
            let symbol = format!("{venue}:{symbol}");
            let request = json!({"channel": "book", "symbols": [symbol], "budget_ms": 0});
            let view = client.view(request);
            client.update_of(view, "image");
            view
        })
        .collect();
    (client, views)
}

fn state_of(update: &Value) -> (&str, &str) {
    (update["state"].as_str().unwrap(), update["why"].as_str().unwrap_or_default())
}

/// The next update of a view.
fn next_of(client: &mut Client, view: u64) -> Value {
    client.update(|update| update["v"] == view).0
}

/// The book of the first symbol was lost and comes back by an image at `last`, while the second
/// symbol goes on undisturbed from update 101.
fn expect_resync_of_the_first_alone(
    binance: &mut Binance,
    client: &mut Client,
    views: &[u64],
    why: &str,
) {
    let epoch = binance.running.registry.table().entries()[0].load().book.status.epoch;
    let gap = next_of(client, views[0]);
    assert_eq!((&gap["t"], state_of(&gap)), (&json!("state"), ("gap", why)));
    assert_eq!(number(&gap["e"]), u64::from(epoch), "the epoch that ends: {gap}");
    // The other symbol goes on while the first one waits.
    let request = binance.venue.request();
    assert!(request.target.contains("symbol=AAAUSDT&"), "{}", request.target);
    for last in 101..=105 {
        binance.session().say(&depth("BBBUSDT", last, last, "100.00", &format!("{last}")));
        let delta = client.update(|_| true).0;
        assert_eq!((&delta["v"], &delta["t"]), (&json!(views[1]), &json!("delta")), "{delta}");
    }
    // What comes before the image waits for it.
    binance.session().say(&depth("AAAUSDT", 301, 310, "98.00", "7"));
    request.answer("200 OK", "", &image(305));
    let mended = next_of(client, views[0]);
    assert_eq!((&mended["t"], &mended["state"]), (&json!("image"), &json!("live")));
    assert_eq!(number(&mended["e"]), number(&gap["e"]) + 1, "a new epoch: {mended}");
    assert_eq!(number(&mended["q"]), 310);
    assert_eq!(mended["b"], json!([["100", "1"], ["99", "2"], ["98", "7"]]));
    binance.session().say(&depth("AAAUSDT", 311, 312, "98.00", "0"));
    assert_eq!(next_of(client, views[0])["b"], json!([["98", "0"]]));
    binance.asks_for_nothing();
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

const TWO: [&str; 2] = ["AAAUSDT", "BBBUSDT"];

#[test]
fn a_gap_is_told_and_mended_for_its_symbol_alone() {
    let mut binance = Binance::start(&TWO);
    let (mut client, views) = binance.client(&TWO);
    binance.session().say(&depth("AAAUSDT", 101, 110, "100.00", "5"));
    assert_eq!(next_of(&mut client, views[0])["b"], json!([["100", "5"]]));
    binance.session().say(&depth("AAAUSDT", 112, 120, "100.00", "6"));
    expect_resync_of_the_first_alone(&mut binance, &mut client, &views, "sequence_gap");
    let gaps = "tickfan_feed_gaps_total{venue=\"binance-spot\"}";
    assert_eq!(metric(&binance.running, gaps), 1);
}

#[test]
fn a_message_that_cannot_be_read_is_felt_by_its_symbol_alone() {
    let whole = depth("AAAUSDT", 101, 110, "100.00", "5");
    for broken in [
        depth("AAAUSDT", 101, 110, "NaN", "5"),
        depth("AAAUSDT", 101, 110, "100.00", "-1e400"),
        depth("AAAUSDT", 101, 110, "92233720368547758071.5", "5"),
        depth("AAAUSDT", 101, 110, "922337203685477580", "5"),
        whole.replace("\"5\"]", "5]"),
        whole.replace("\"U\":101", "\"U\":\"101\""),
        whole.replace("\"u\":110", "\"u\":-110"),
        whole[..whole.len() - 2].to_owned(),
        whole.replace("\"a\":[]", "\"a\":{}"),
    ] {
        eprintln!("{broken}");
        let mut binance = Binance::start(&TWO);
        let (mut client, views) = binance.client(&TWO);
        binance.session().say(&broken);
        let why = if broken.contains("922337203685477580\"") {
            "scale_change"
        } else {
            "malformed_message"
        };
        expect_resync_of_the_first_alone(&mut binance, &mut client, &views, why);
    }
}

#[test]
fn a_malformed_ticker_or_trade_leaves_the_book_alone() {
    let mut binance = Binance::start(&["AAAUSDT"]);
    let (mut client, views) = binance.client(&["AAAUSDT"]);
    let symbols = json!(["binance-spot:AAAUSDT"]);
    let bbo = client.view(json!({"channel": "bbo", "symbols": symbols, "budget_ms": 0}));
    client.update_of(bbo, "bbo");
    let trades = client.view(json!({"channel": "trades", "symbols": symbols, "budget_ms": 0}));
    let ticker = |id: u64, px: &str| {
        format!(
            r#"{{"stream":"aaausdt@bookTicker","data":{{"u":{id},"s":"AAAUSDT","b":"{px}","B":"1","a":"101.5","A":"1"}}}}"#
        )
    };
    let trade = |id: u64, px: &str| {
        format!(
            r#"{{"stream":"aaausdt@trade","data":{{"e":"trade","E":1700000000000,"s":"AAAUSDT","t":{id},"p":"{px}","q":"1","T":1700000000000,"m":true,"M":true}}}}"#
        )
    };
    binance.session().say(&trade(7, "100.5"));
    assert_eq!(client.update_of(trades, "trades")["x"][0][1], "100.5");
    for (view, malformed, good, kind) in [
        (bbo, ticker(101, "x"), ticker(102, "100.5"), "bbo"),
        (trades, trade(8, ""), trade(9, "100.7"), "trades"),
    ] {
        binance.session().say(&malformed);
        let gap = client.update(|_| true).0;
        assert_eq!((&gap["v"], state_of(&gap)), (&json!(view), ("gap", "malformed_message")));
        binance.session().say(&good);
        let live = client.update(|_| true).0;
        assert_eq!((&live["v"], state_of(&live)), (&json!(view), ("live", "synced")));
        assert_eq!(number(&live["e"]), number(&gap["e"]) + 1);
        client.update(|update| update["v"] == view && update["t"] == kind);
    }
    binance.session().say(&depth("AAAUSDT", 101, 110, "100.00", "5"));
    assert_eq!(next_of(&mut client, views[0])["t"], "delta");
    binance.asks_for_nothing();
}

#[test]
fn a_venue_that_closes_makes_stale_and_a_new_connection_begins_an_epoch() {
    let mut binance = Binance::start(&["AAAUSDT"]);
    let (mut client, views) = binance.client(&["AAAUSDT"]);
    // An earlier gap must not make the way back longer.
    binance.session().say(&depth("AAAUSDT", 112, 120, "100.00", "6"));
    next_of(&mut client, views[0]);
    serve_image(&binance.venue, "AAAUSDT", 120);
    let first_epoch = number(&next_of(&mut client, views[0])["e"]);
    let clock = Clock::start();
    for round in 0..3 {
        let epoch = first_epoch + round;
        let session = binance.session.take().unwrap();
        if round == 1 {
            drop(session)
        } else {
            session.close()
        }
        let stale = next_of(&mut client, views[0]);
        assert_eq!((&stale["t"], state_of(&stale)), (&json!("state"), ("stale", "disconnected")));
        assert_eq!(number(&stale["e"]), epoch);
        // Whoever comes now is given the last that is known, with the word that it is old.
        let mut late = Client::connect(binance.running.listen);
        let symbols = json!(["binance-spot:AAAUSDT"]);
        late.view(json!({"channel": "book", "symbols": symbols, "budget_ms": 0}));
        assert_eq!(next_of(&mut late, views[0])["state"], "stale");
        binance.reconnect();
        let connected_ns = clock.now();
        serve_image(&binance.venue, "AAAUSDT", 1_000);
        assert!(clock.now() - connected_ns < 2 * SECOND_NS, "the image is asked for at once");
        let mended = next_of(&mut client, views[0]);
        assert_eq!((&mended["t"], &mended["state"]), (&json!("image"), &json!("live")));
        assert_eq!(number(&mended["e"]), epoch + 1);
    }
    let connects = "tickfan_feed_connects_total{venue=\"binance-spot\"}";
    assert_eq!(metric(&binance.running, connects), 4);
}

#[test]
fn a_message_without_end_ends_the_connection_and_nothing_else() {
    let mut binance = Binance::start(&["AAAUSDT"]);
    let (mut client, views) = binance.client(&["AAAUSDT"]);
    let mut header = vec![0x81, 127];
    header.extend((VENUE_MESSAGE_BYTES_MAX as u64 + 1).to_be_bytes());
    binance.session().say_raw(&header);
    // Some of it, for a reader that wants to see bytes before it judges.
    binance.session().say_raw(&[b' '; 1024]);
    binance.session.take().unwrap().expect_end();
    assert_eq!(state_of(&next_of(&mut client, views[0])), ("stale", "disconnected"));
    binance.reconnect();
    serve_image(&binance.venue, "AAAUSDT", 100);
    assert_eq!(next_of(&mut client, views[0])["t"], "image");
}

#[test]
fn fragments_without_end_are_no_way_around_the_limit() {
    let mut binance = Binance::start(&["AAAUSDT"]);
    let fragment = vec![b' '; 4 << 20];
    let mut header = vec![0x01, 127];
    header.extend((fragment.len() as u64).to_be_bytes());
    for _ in 0..=VENUE_MESSAGE_BYTES_MAX / fragment.len() {
        binance.session().say_raw(&header);
        binance.session().say_raw(&fragment);
        header[0] = 0;
    }
    binance.session.take().unwrap().expect_end();
    binance.reconnect();
}

#[test]
fn a_venue_that_asks_to_be_left_alone_is() {
    // One more than may be under way: it must not go out once the venue has asked.
    let symbols: Vec<String> = (0..=REST_CONCURRENT_MAX).map(|i| format!("S{i}USDT")).collect();
    let symbols: Vec<&str> = symbols.iter().map(String::as_str).collect();
    let venue = ScriptedVenue::open();
    let running = gateway::start(&venue.feed("binance-spot", &symbols));
    refuse_listing(&venue);
    let mut session = venue.session();
    acknowledge(&mut session);
    let mut under_way: Vec<_> = (0..REST_CONCURRENT_MAX).map(|_| venue.request()).collect();
    let clock = Clock::start();
    let asked_ns = clock.now();
    under_way.remove(0).answer("429 Too Many Requests", "retry-after: 2\r\n", "{}");
    let next = venue.request();
    assert!(clock.now() - asked_ns >= 2 * SECOND_NS, "{} came too early", next.target);
    next.answer("200 OK", "", &image(100));
    for request in under_way {
        request.answer("200 OK", "", &image(100));
    }
    // The one that was refused is asked for again.
    venue.request().answer("200 OK", "", &image(100));
    wait_until("all are live", || get(running.admin, "/readyz").0 == 200);
}

#[test]
fn the_instrument_list_is_asked_for_again_when_the_venue_allows_it() {
    let venue = ScriptedVenue::open();
    let running = gateway::start(&venue.feed("binance-spot", &["*"]));
    let clock = Clock::start();
    let asked_ns = clock.now();
    venue.request().answer("429 Too Many Requests", "retry-after: 2\r\n", "{}");
    let again = venue.request();
    assert!(clock.now() - asked_ns >= 2 * SECOND_NS);
    again.answer(
        "200 OK",
        "",
        r#"{"symbols":[{"symbol":"AAAUSDT","status":"TRADING","baseAsset":"AAA","quoteAsset":"USDT","filters":[{"filterType":"PRICE_FILTER","tickSize":"0.01000000"},{"filterType":"LOT_SIZE","stepSize":"0.00100000"}]}]}"#,
    );
    let mut session = venue.session();
    acknowledge(&mut session);
    serve_image(&venue, "AAAUSDT", 100);
    let (mut client, _) = {
        wait_until("it is live", || get(running.admin, "/readyz").0 == 200);
        client_of(&running, "binance-spot", &["AAAUSDT"])
    };
    client.say(&json!({"op": "instruments"}));
    let instruments = client.control("instruments")["instruments"].clone();
    assert_eq!(
        (&instruments[0]["tick"], &instruments[0]["lot"]),
        (&json!("0.01"), &json!("0.001"))
    );
}

#[test]
fn an_image_that_is_too_old_or_broken_is_asked_for_again() {
    let venue = ScriptedVenue::open();
    let running = gateway::start(&venue.feed("binance-spot", &["AAAUSDT"]));
    refuse_listing(&venue);
    let mut session = venue.session();
    acknowledge(&mut session);
    let first = venue.request();
    session.say(&depth("AAAUSDT", 201, 210, "100.00", "5"));
    wait_until("the event waits", || {
        metric(&running, "tickfan_feed_messages_total{venue=\"binance-spot\"}") >= 2
    });
    first.answer("200 OK", "", &image(100));
    venue.request().answer("200 OK", "", "{\"lastUpdateId\":205,\"bids\":[[\"x");
    venue.request().answer("500 Internal Server Error", "", "");
    assert_eq!(get(running.admin, "/readyz").0, 503);
    venue.request().answer("200 OK", "", &image(205));
    wait_until("it is live", || get(running.admin, "/readyz").0 == 200);
    let (_, views) = client_of(&running, "binance-spot", &["AAAUSDT"]);
    let (_, book) = gateway::get_json(running.listen, "/v1/book?symbol=binance-spot:AAAUSDT");
    assert_eq!((views.len(), &book["q"]), (1, &json!(210)));
    assert_eq!(book["b"][0], json!(["100", "5"]));
}

// --- Kraken.

const KRAKEN: [&str; 2] = ["AAA/USD", "BBB/USD"];

/// As Kraken documents it: the ten best asks, then bids, without points and leading zeros. Levels are
/// price and quantity.
fn checksum(bids: &[(&str, &str)], asks: &[(&str, &str)]) -> u32 {
    let digits = |text: &str| text.replace('.', "").trim_start_matches('0').to_owned();
    let text: String = asks.iter().chain(bids).map(|(px, qty)| digits(px) + &digits(qty)).collect();
    crc32fast::hash(text.as_bytes())
}

fn kraken_book(
    kind: &str,
    symbol: &str,
    bids: &[(&str, &str)],
    asks: &[(&str, &str)],
    checksum: u32,
) -> String {
    let levels = |levels: &[(&str, &str)]| {
        let texts: Vec<String> =
            levels.iter().map(|(px, qty)| format!(r#"{{"price":{px},"qty":{qty}}}"#)).collect();
        texts.join(",")
    };
    format!(
        r#"{{"channel":"book","type":"{kind}","data":[{{"symbol":"{symbol}","bids":[{}],"asks":[{}],"checksum":{checksum},"timestamp":"2023-10-06T17:35:55.440295Z"}}]}}"#,
        levels(bids),
        levels(asks)
    )
}

const BIDS: [(&str, &str); 1] = [("100.50", "1.00000000")];
const ASKS: [(&str, &str); 2] = [("101.00", "0.20000000"), ("102.00", "3.00000000")];

fn kraken_snapshot(symbol: &str) -> String {
    kraken_book("snapshot", symbol, &BIDS, &ASKS, checksum(&BIDS, &ASKS))
}

/// An update of the best bid's quantity.
fn kraken_update(symbol: &str, qty: &str) -> String {
    let bids = [("100.50", qty)];
    kraken_book("update", symbol, &bids, &[], checksum(&bids, &ASKS))
}

fn acknowledge_kraken(session: &mut Session, request: &Value) {
    let params = &request["params"];
    for symbol in params["symbol"].as_array().unwrap() {
        let mut result = params.clone();
        result["symbol"] = symbol.clone();
        let ack = json!({"method": request["method"], "result": result, "success": true});
        session.say(&ack.to_string());
    }
}

/// The next request but for keep-alives, acknowledged.
fn hear_kraken(session: &mut Session) -> Value {
    loop {
        let request: Value = serde_json::from_str(&session.hear()).unwrap();
        if request["method"] != "ping" {
            acknowledge_kraken(session, &request);
            return request;
        }
    }
}

/// The book of the first symbol is subscribed to anew, and it alone.
fn expect_kraken_resync(session: &mut Session) {
    for method in ["unsubscribe", "subscribe"] {
        let request = hear_kraken(session);
        assert_eq!(request["method"], method, "{request}");
        assert_eq!(request["params"]["channel"], "book", "{request}");
        assert_eq!(request["params"]["symbol"], json!([KRAKEN[0]]), "{request}");
    }
}

#[test]
fn at_kraken_what_does_not_add_up_is_subscribed_to_anew() {
    let venue = ScriptedVenue::open();
    let running = gateway::start(&venue.feed("kraken", &KRAKEN));
    venue.request().answer("404 Not Found", "", NOT_FOUND);
    let mut session = venue.session();
    for channel in ["book", "trade"] {
        assert_eq!(hear_kraken(&mut session)["params"]["channel"], channel);
    }
    for symbol in KRAKEN {
        session.say(&kraken_snapshot(symbol));
    }
    wait_until("the books are live", || get(running.admin, "/readyz").0 == 200);
    let (mut client, views) = client_of(&running, "kraken", &KRAKEN);
    let bbo = client.view(json!({"channel": "bbo", "symbols": ["kraken:AAA/USD"], "budget_ms": 0}));
    assert_eq!(client.update_of(bbo, "bbo")["b"], json!(["100.5", "1"]));
    let good = kraken_update(KRAKEN[0], "2.00000000");
    let malformed = good.replace("\"price\":100.50", "\"price\":null");
    let wrong = kraken_book("update", KRAKEN[0], &[("100.50", "2.00000000")], &[], 1);
    for (round, (message, why)) in
        [(wrong, "checksum_mismatch"), (malformed, "malformed_message")].into_iter().enumerate()
    {
        session.say(&message);
        // The best bid and offer hangs on the book, and shares its trouble.
        let mut gaps = [client.update(|_| true).0, client.update(|_| true).0];
        gaps.sort_by_key(|gap| gap["v"] != views[0]);
        assert_eq!((&gaps[0]["v"], state_of(&gaps[0])), (&json!(views[0]), ("gap", why)));
        assert_eq!((&gaps[1]["v"], state_of(&gaps[1])), (&json!(bbo), ("gap", why)));
        expect_kraken_resync(&mut session);
        // Meanwhile the other symbol goes on.
        session.say(&kraken_update(KRAKEN[1], &format!("{}.00000000", round + 5)));
        let delta = client.update(|_| true).0;
        assert_eq!((&delta["v"], &delta["t"]), (&json!(views[1]), &json!("delta")), "{delta}");
        session.say(&kraken_snapshot(KRAKEN[0]));
        let mut mended = Vec::new();
        while mended.len() < 3 {
            mended.push(client.update(|_| true).0);
        }
        mended.sort_by_key(|update| update["v"] != views[0]);
        assert_eq!((&mended[0]["t"], &mended[0]["state"]), (&json!("image"), &json!("live")));
        assert_eq!(number(&mended[0]["e"]), number(&gaps[0]["e"]) + 1);
        assert_eq!((&mended[1]["v"], mended[1]["state"].as_str()), (&json!(bbo), Some("live")));
        assert_eq!(number(&mended[1]["e"]), number(&gaps[1]["e"]) + 1);
        assert_eq!(mended[2]["b"], json!(["100.5", "1"]));
        session.say(&kraken_update(KRAKEN[0], "1.50000000"));
        let mut kinds = [client.update(|_| true).0, client.update(|_| true).0];
        kinds.sort_by_key(|update| update["v"] != views[0]);
        assert_eq!((&kinds[0]["t"], &kinds[1]["t"]), (&json!("delta"), &json!("bbo")));
        session.say(&kraken_update(KRAKEN[0], "1.00000000"));
        client.update_of(bbo, "bbo");
    }
    assert_eq!(metric(&running, "tickfan_feed_checksum_mismatches_total{venue=\"kraken\"}"), 1);
}

#[test]
fn a_symbol_that_the_venue_refuses_is_closed_and_stays_so() {
    let venue = ScriptedVenue::open();
    let running = gateway::start(&venue.feed("kraken", &KRAKEN));
    venue.request().answer("404 Not Found", "", NOT_FOUND);
    let mut session = venue.session();
    let request: Value = serde_json::from_str(&session.hear()).unwrap();
    session.say(
        r#"{"error":"Currency pair not supported AAA/USD","method":"subscribe","success":false,"symbol":"AAA/USD"}"#,
    );
    let mut other = request;
    other["params"]["symbol"] = json!([KRAKEN[1]]);
    acknowledge_kraken(&mut session, &other);
    session.say(&kraken_snapshot(KRAKEN[1]));
    wait_until("the other is live", || get(running.admin, "/readyz").0 == 200);
    let mut client = Client::connect(running.listen);
    let request = json!({"channel": "book", "symbols": ["kraken:*"], "budget_ms": 0});
    let results = client.subscribe(request);
    assert_eq!((&results[0]["state"], &results[1]["state"]), (&json!("closed"), &json!("live")));
    client.update_of(number(&results[1]["view"]), "image");
    // A message that may be about anything is not about what is not served.
    session.say("{nonsense");
    let gap = client.update(|_| true).0;
    assert_eq!((&gap["v"], state_of(&gap)), (&results[1]["view"], ("gap", "malformed_message")));
    let trades = hear_kraken(&mut session);
    assert_eq!(trades["params"]["channel"], "trade");
    let request = hear_kraken(&mut session);
    assert_eq!(request["params"]["symbol"], json!([KRAKEN[1]]), "{request}");
}

// --- TLS.

/// An authority of the test's own, and a certificate that it gave to `name`.
struct Certificates {
    root: CertificateDer<'static>,
    server: Arc<ServerConfig>,
}

fn certificates(name: &str) -> Certificates {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.distinguished_name.push(DnType::CommonName, format!("authority of {name}"));
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        )
        .unwrap();
    Certificates { root: authority.der().clone(), server: Arc::new(server) }
}

/// Answers every connection over TLS as a venue without anything; gives the port.
fn serve_over_tls(server: Arc<ServerConfig>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for tcp in listener.incoming().map(Result::unwrap) {
            tcp.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            let connection = ServerConnection::new(Arc::clone(&server)).unwrap();
            let mut stream = rustls::StreamOwned::new(connection, tcp);
            // A client that does not trust us says so and leaves. The request is read before it is
            // answered: what is left unread would reset the connection under the answer.
            let mut request = [0; 4096];
            if stream.read(&mut request).is_err() {
                continue;
            }
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
            let _ = stream.write_all(answer).and_then(|()| stream.flush());
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    });
    port
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn a_certificate_must_be_trusted_and_of_that_name() {
    let good = certificates("localhost");
    let other_name = certificates("elsewhere.example");
    let get = |root: Option<&CertificateDer<'static>>, port: u16| {
        let roots: Vec<_> = root.cloned().into_iter().collect();
        let connector = Connector::new(&roots).unwrap();
        let address = Address::parse(&format!("https://localhost:{port}")).unwrap();
        let clock = Clock::start();
        let stats = Stats::default().feed(Venue::Sim);
        runtime().block_on(RestHost::new(connector, address, 60, clock).get("/", 1, &stats))
    };
    let port = serve_over_tls(Arc::clone(&good.server));
    assert_eq!(&get(Some(&good.root), port).unwrap()[..], b"{}");
    let refused = |result: Result<_, RestError>, words: &str| match result {
        Err(RestError::Io(error)) => {
            let error = error.to_string();
            assert!(error.contains(words), "{error}");
        }
        other => panic!("{other:?}"),
    };
    refused(get(None, port), "UnknownIssuer");
    refused(get(Some(&other_name.root), port), "UnknownIssuer");
    let port = serve_over_tls(Arc::clone(&other_name.server));
    refused(get(Some(&other_name.root), port), "not valid for name");
}

/// A feed of Kraken's over `wss://localhost`, run until it is live or has tried three times.
#[test]
fn a_session_speaks_over_tls_and_never_falls_back() {
    let good = certificates("localhost");
    for (root, is_trusted) in [(good.root.clone(), true), (certificates("localhost").root, false)] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = Arc::clone(&good.server);
        let (told, heard) = std::sync::mpsc::sync_channel(16);
        std::thread::spawn(move || {
            for tcp in listener.incoming().map(Result::unwrap) {
                let connection = ServerConnection::new(Arc::clone(&server)).unwrap();
                let stream = rustls::StreamOwned::new(connection, tcp);
                match tokio_tungstenite::tungstenite::accept(stream) {
                    Ok(mut socket) => {
                        let snapshot = kraken_snapshot(KRAKEN[0]);
                        socket.send(snapshot.into()).unwrap();
                        while socket.read().is_ok() {}
                    }
                    Err(error) => drop(told.try_send(error.to_string())),
                }
            }
        });
        let stats = Stats::default().feed(Venue::Kraken);
        let entries = Registry::new(1).register(Venue::Kraken, &[KRAKEN[0].into()], 7, 1).unwrap();
        run_session(port, &root, &entries, stats.clone(), || {
            let is_live = entries[0].load().book.status.state == State::Live;
            is_live || heard.try_iter().count() > 0
        });
        let is_live = entries[0].load().book.status.state == State::Live;
        assert_eq!((is_live, stats.connects.get()), (is_trusted, u64::from(is_trusted)));
    }
}

/// Runs a session over TLS until something holds.
fn run_session(
    port: u16,
    root: &CertificateDer<'static>,
    entries: &[Arc<Entry>],
    stats: FeedStats,
    until: impl FnMut() -> bool,
) {
    let address = format!("wss://localhost:{port}");
    let dialer = dialer(&address, std::slice::from_ref(root), 0);
    run_sessions(vec![session(&dialer, entries, &stats, None)], until);
}

fn dialer(address: &str, roots: &[CertificateDer<'static>], spacing_ns: Nanos) -> Dialer {
    Dialer {
        connector: Connector::new(roots).unwrap(),
        address: Address::parse(address).unwrap(),
        spacing: Arc::new(Spacing::new(spacing_ns)),
        turns: Turns::new(0, 1),
        clock: Clock::start(),
    }
}

/// A session of Kraken's, whose images come on the stream.
fn session(
    dialer: &Dialer,
    entries: &[Arc<Entry>],
    stats: &FeedStats,
    connection_life_ns: Option<Nanos>,
) -> (FeedSession, Feed) {
    let feed = Feed::new(FeedOptions {
        venue: Venue::Kraken,
        instruments: entries.iter().map(|entry| (Arc::clone(entry), None)).collect(),
        depth: None,
        trades: None,
        marks: Vec::new(),
        stats: stats.clone(),
        seed: 1,
    });
    let session = FeedSession {
        dialer: dialer.clone(),
        rest: RestQueue::new().0,
        listed: None,
        listings: watch::channel(None).1,
        connection_life_ns,
        stats: stats.clone(),
    };
    (session, feed)
}

/// Runs sessions on one thread until something holds.
fn run_sessions(sessions: Vec<(FeedSession, Feed)>, mut until: impl FnMut() -> bool) {
    let condition = async {
        while !until() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    runtime().block_on(async {
        for (session, feed) in sessions {
            tokio::spawn(session.run(feed));
        }
        tokio::time::timeout(gateway::PATIENCE, condition).await.unwrap();
    });
}

// --- Connections that come and go by plan.

/// A Kraken that greets every connection with the same book, and tells when each came.
fn greeting_kraken() -> (String, std::sync::mpsc::Receiver<Nanos>, Clock) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("ws://{}", listener.local_addr().unwrap());
    let (told, came) = std::sync::mpsc::sync_channel(1_000);
    let clock = Clock::start();
    let venue_clock = clock.clone();
    std::thread::spawn(move || {
        for tcp in listener.incoming().map(Result::unwrap) {
            let _ = told.try_send(venue_clock.now());
            std::thread::spawn(move || {
                let Ok(mut socket) = tokio_tungstenite::tungstenite::accept(tcp) else { return };
                socket.send(kraken_snapshot(KRAKEN[0]).into()).unwrap();
                while socket.read().is_ok() {}
            });
        }
    });
    (address, came, clock)
}

#[test]
fn a_connection_of_limited_life_is_handed_over_again_and_again_and_nobody_sees_it() {
    let (address, ..) = greeting_kraken();
    let stats = Stats::default().feed(Venue::Kraken);
    let entries = Registry::new(1).register(Venue::Kraken, &[KRAKEN[0].into()], 7, 1).unwrap();
    let mut first_live = None;
    let sessions = vec![session(&dialer(&address, &[], 0), &entries, &stats, Some(3 * SECOND_NS))];
    run_sessions(sessions, || {
        let status = entries[0].load().book.status;
        if status.state == State::Live {
            let first = *first_live.get_or_insert(status);
            assert_eq!(status, first, "the same state in the same epoch");
        }
        assert!(first_live.is_none() || status.state == State::Live, "{status:?}");
        stats.hand_overs.get() == 2
    });
    assert_eq!((stats.connects.get(), stats.disconnects.get()), (3, 2));
}

#[test]
fn connections_come_back_one_by_one() {
    const SPACING_NS: Nanos = SECOND_NS / 5;
    let (address, came, clock) = greeting_kraken();
    let stats = Stats::default().feed(Venue::Kraken);
    let dialer = dialer(&address, &[], SPACING_NS);
    let registry = Registry::new(4);
    let sessions = (0..4)
        .map(|i| {
            let natives = [format!("S{i}/USD").into()];
            let entries = registry.register(Venue::Kraken, &natives, 7, 1).unwrap();
            session(&dialer, &entries, &stats, None)
        })
        .collect();
    let began_ns = clock.now();
    run_sessions(sessions, || stats.connects.get() == 4);
    for (turn, came_ns) in (0..4).zip(came.try_iter()) {
        assert!(came_ns - began_ns >= turn * SPACING_NS, "connection {turn} came early");
    }
}

const SHUTDOWN: &str =
    r#"{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1770123456789}}"#;

fn trade(symbol: &str, id: u64) -> String {
    let stream = symbol.to_lowercase();
    format!(
        r#"{{"stream":"{stream}@trade","data":{{"e":"trade","E":1700000000000,"s":"{symbol}","t":{id},"p":"100.5","q":"1","T":1700000000000,"m":true,"M":true}}}}"#
    )
}

#[test]
fn a_venue_that_is_to_go_down_is_left_for_another_connection_unnoticed() {
    let mut binance = Binance::start(&TWO);
    let (mut client, views) = binance.client(&TWO);
    let symbols = json!(["binance-spot:AAAUSDT"]);
    let trades = client.view(json!({"channel": "trades", "symbols": symbols, "budget_ms": 0}));
    binance.session().say(&depth("AAAUSDT", 101, 110, "100.00", "5"));
    assert_eq!(number(&next_of(&mut client, views[0])["q"]), 110);
    binance.session().say(&trade("AAAUSDT", 7));
    assert_eq!(client.update_of(trades, "trades")["x"].as_array().unwrap().len(), 1);

    binance.session().say(SHUTDOWN);
    let mut next = binance.venue.session();
    acknowledge(&mut next);
    let requests = [binance.venue.request(), binance.venue.request()];
    // The first connection goes on meanwhile, and the second says the same.
    for session in [binance.session.as_mut().unwrap(), &mut next] {
        session.say(&depth("AAAUSDT", 111, 112, "98.00", "7"));
        session.say(&trade("AAAUSDT", 8));
    }
    assert_eq!(number(&next_of(&mut client, views[0])["q"]), 112);
    assert_eq!(client.update_of(trades, "trades")["x"].as_array().unwrap().len(), 1);
    for request in requests {
        let last = if request.target.contains("AAAUSDT") { 110 } else { 100 };
        let qty = if last == 110 { "5.0" } else { "1.0" };
        request.answer("200 OK", "", &image(last).replace("\"1.0\"", &format!("\"{qty}\"")));
    }
    assert_eq!(binance.session.take().unwrap().expect_close(), Some(1000));

    next.say(&trade("AAAUSDT", 8));
    next.say(&trade("AAAUSDT", 9));
    next.say(&depth("AAAUSDT", 113, 120, "98.00", "0"));
    next.say(&depth("BBBUSDT", 101, 101, "97.00", "1"));
    let mut heard = Vec::new();
    while heard.len() < 3 {
        let update = client.update(|_| true).0;
        assert!(update["state"].is_null() || update["state"] == "live", "{update}");
        heard.push((update["v"].as_u64().unwrap(), update["t"].as_str().unwrap().to_owned()));
        if update["v"] == trades {
            assert_eq!(update["x"].as_array().unwrap().len(), 1, "{update}");
        }
    }
    heard.sort();
    let mut expected =
        [(views[0], "delta"), (views[1], "delta"), (trades, "trades")].map(|(v, t)| (v, t.into()));
    expected.sort();
    assert_eq!(heard, expected);
    let count = |name: &str| {
        metric(&binance.running, &format!("tickfan_feed_{name}_total{{venue=\"binance-spot\"}}"))
    };
    assert_eq!([count("connects"), count("hand_overs"), count("gaps")], [2, 1, 0]);
    binance.asks_for_nothing();
}

#[test]
fn a_venue_that_goes_down_before_its_successor_is_ready_is_told() {
    let mut binance = Binance::start(&["AAAUSDT"]);
    let (mut client, views) = binance.client(&["AAAUSDT"]);
    binance.session().say(SHUTDOWN);
    let mut next = binance.venue.session();
    acknowledge(&mut next);
    let request = binance.venue.request();
    binance.session.take().unwrap().close();
    let told = next_of(&mut client, views[0]);
    assert_eq!((&told["t"], state_of(&told)), (&json!("state"), ("gap", "reconnected")));
    // The connection that was made already is the one that goes on.
    request.answer("200 OK", "", &image(200));
    let mended = next_of(&mut client, views[0]);
    assert_eq!((&mended["t"], &mended["state"]), (&json!("image"), &json!("live")));
    assert_eq!(number(&mended["e"]), number(&told["e"]) + 1);
}

#[test]
fn text_that_is_none_ends_the_connection_and_everything_of_it_is_marked() {
    for broken in [&b"\x81\x03{\xff}"[..], b"\x01\x02{\xe2\x80\x01}"] {
        let mut binance = Binance::start(&TWO);
        let (mut client, views) = binance.client(&TWO);
        binance.session().say_raw(broken);
        assert_eq!(binance.session.take().unwrap().expect_close(), Some(1007));
        for view in views.clone() {
            let stale = next_of(&mut client, view);
            assert_eq!(
                (&stale["t"], state_of(&stale)),
                (&json!("state"), ("stale", "disconnected"))
            );
        }
        binance.reconnect();
        for symbol in TWO {
            serve_image(&binance.venue, symbol, 100);
        }
        for view in views {
            assert_eq!(next_of(&mut client, view)["state"], "live");
        }
    }
}

// --- Large images.

/// Kraken, if it sent images that take long to be read.
struct Ponderous {
    kraken: Box<dyn VenueDecoder>,
    subscription: Subscription,
}

impl VenueDecoder for Ponderous {
    fn stream_path(&self) -> &str {
        self.kraken.stream_path()
    }

    fn subscribe(&self) -> Vec<String> {
        self.kraken.subscribe()
    }

    fn resync(&mut self, instrument: InstrumentId, first: bool) -> Resync {
        self.kraken.resync(instrument, first)
    }

    fn decode(&mut self, message: &mut [u8], out: &mut EventBatch) -> Result<(), DecodeError> {
        self.kraken.decode(message, out)
    }

    fn image_decoder(&self) -> ImageDecoder {
        let subscription = self.subscription.clone();
        Arc::new(move |_, message, out| {
            let mut kraken = tickfan::venue::decoder(Venue::Kraken, subscription.clone());
            kraken.decode(message, out).map_err(|error| error.what)
        })
    }

    fn has_bbo_stream(&self) -> bool {
        false
    }

    fn checksum(&self) -> Option<Checksum> {
        self.kraken.checksum()
    }

    fn silence_ns(&self) -> Nanos {
        self.kraken.silence_ns()
    }

    fn keepalive(&self) -> Option<(String, Nanos)> {
        None
    }

    fn truncate_at(&self) -> Option<usize> {
        self.kraken.truncate_at()
    }

    fn large_image(&self, message: &[u8]) -> Option<LargeImage> {
        assert!(message.len() > LARGE_MESSAGE_BYTES);
        Some(LargeImage { instrument: InstrumentId(0), number: None })
    }
}

#[test]
fn an_image_of_five_megabytes_is_read_aside_and_joined_with_what_came_meanwhile() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("ws://{}", listener.local_addr().unwrap());
    let stats = Stats::default().feed(Venue::Kraken);
    let natives = KRAKEN.map(Arc::from);
    let entries = Registry::new(2).register(Venue::Kraken, &natives, 7, 1).unwrap();
    let instruments = entries.iter().map(|entry| {
        let instrument = &entry.instrument;
        (instrument.id, Arc::clone(&instrument.native))
    });
    let subscription =
        Subscription { instruments: instruments.collect(), depth: None, trades: None };
    let kraken = tickfan::venue::decoder(Venue::Kraken, subscription.clone());
    let decoder = Ponderous { kraken, subscription };

    let (rest, work) = RestQueue::new();
    let host = RestHost::new(
        Connector::new(&[]).unwrap(),
        Address::parse("http://127.0.0.1:1").unwrap(),
        1,
        Clock::start(),
    );
    let fetcher = ImageFetcher {
        host: Arc::new(host),
        decode: decoder.image_decoder(),
        weight: 1,
        stats: stats.clone(),
    };
    std::thread::spawn(|| runtime().block_on(fetcher.run(work)));
    std::thread::spawn(move || {
        let mut socket =
            tokio_tungstenite::tungstenite::accept(listener.accept().unwrap().0).unwrap();
        let large = kraken_snapshot(KRAKEN[0]) + &" ".repeat(5_080_000);
        let small = kraken_snapshot(KRAKEN[1]);
        for message in [large, small, kraken_update(KRAKEN[0], "2.00000000")] {
            socket.send(message.into()).unwrap();
        }
        while socket.read().is_ok() {}
    });

    let (session, _) = session(&dialer(&address, &[], 0), &entries, &stats, None);
    let options = FeedOptions {
        venue: Venue::Kraken,
        instruments: entries.iter().map(|entry| (Arc::clone(entry), None)).collect(),
        depth: None,
        trades: None,
        marks: Vec::new(),
        stats: stats.clone(),
        seed: 1,
    };
    let feed = Feed::with_decoder(options, Box::new(decoder));
    run_sessions(vec![(FeedSession { rest, ..session }, feed)], || {
        entries.iter().all(|entry| entry.load().book.status.state == State::Live)
    });
    let best = entries[0].load().book.book.best().0.unwrap();
    assert_eq!(best.qty.0, 200_000_000, "the update that came after it");
    assert_eq!((stats.images.get(), stats.gaps.get(), stats.malformed.get()), (2, 0, 0));
}

// --- Bans and lists.

#[test]
fn a_venue_that_bans_over_its_list_is_not_asked_for_images_either() {
    for (status, headers) in [
        ("429 Too Many Requests", "retry-after: 2\r\n"),
        ("418 I'm a teapot", "retry-after: 2\r\n"),
    ] {
        let venue = ScriptedVenue::open();
        let running = gateway::start(&venue.feed("binance-spot", &["AAAUSDT"]));
        let clock = Clock::start();
        let list = venue.request();
        let asked_ns = clock.now();
        list.answer(status, headers, "{}");
        let mut session = venue.session();
        acknowledge(&mut session);
        let image_request = venue.request();
        assert!(clock.now() - asked_ns >= 2 * SECOND_NS, "it came during the ban");
        image_request.answer("200 OK", "", &image(100));
        wait_until("it is live", || get(running.admin, "/readyz").0 == 200);
        assert_eq!(metric(&running, "tickfan_feed_bans_total{venue=\"binance-spot\"}"), 1);
    }
}

/// A list of these symbols.
fn listed(symbols: &[&str]) -> String {
    let symbols: Vec<String> = symbols
        .iter()
        .map(|symbol| {
            format!(
                r#"{{"symbol":"{symbol}","status":"TRADING","baseAsset":"A","quoteAsset":"USDT","filters":[{{"filterType":"PRICE_FILTER","tickSize":"0.01"}},{{"filterType":"LOT_SIZE","stepSize":"0.00100000"}}]}}"#
            )
        })
        .collect();
    format!(r#"{{"symbols":[{}]}}"#, symbols.join(","))
}

const LIST: &str = "/api/v3/exchangeInfo";

/// Answers the next request, which must be for the list.
fn list(venue: &ScriptedVenue, status: &str, symbols: &[&str]) {
    let request = venue.request();
    assert_eq!(request.target, LIST);
    request.answer(status, "", &listed(symbols));
}

/// Answers the next request for an image, which must be of this symbol, and the list meanwhile.
fn serve_image_while_listing(venue: &ScriptedVenue, symbol: &str, symbols: &[&str]) {
    loop {
        let request = venue.request();
        if request.target != LIST {
            assert!(request.target.contains(symbol), "{}", request.target);
            return request.answer("200 OK", "", &image(100));
        }
        request.answer("200 OK", "", &listed(symbols));
    }
}

#[test]
fn what_the_venue_begins_and_ceases_to_list_is_followed() {
    let venue = ScriptedVenue::open();
    let text = format!(
        "listen = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\nshards = 1\n{}",
        venue.feed("binance-spot", &["*"])
    );
    let mut config = Config::parse(&text, "the test").unwrap();
    config.feeds[0].listings_every_ns = SECOND_NS / 5;
    let running = serve::start(config).unwrap();
    list(&venue, "200 OK", &TWO[..1]);
    let mut first = venue.session();
    acknowledge(&mut first);
    serve_image_while_listing(&venue, "AAAUSDT", &TWO[..1]);
    wait_until("the first is live", || get(running.admin, "/readyz").0 == 200);
    let (mut client, views) = client_of(&running, "binance-spot", &TWO[..1]);

    // One more is listed: it gets a connection, and the first goes on undisturbed.
    list(&venue, "200 OK", &TWO);
    let mut second = venue.session();
    acknowledge(&mut second);
    serve_image_while_listing(&venue, "BBBUSDT", &TWO);
    wait_until("the second is live", || {
        running.registry.table().entries().len() == 2 && get(running.admin, "/readyz").0 == 200
    });
    first.say(&depth("AAAUSDT", 101, 101, "100.00", "5"));
    assert_eq!(next_of(&mut client, views[0])["t"], "delta");

    // A list that cannot be had changes nothing, nor does an empty one.
    list(&venue, "500 Internal Server Error", &[]);
    list(&venue, "200 OK", &[]);
    first.say(&depth("AAAUSDT", 102, 102, "100.00", "6"));
    assert_eq!(next_of(&mut client, views[0])["t"], "delta");

    // One is listed no longer, and then again.
    list(&venue, "200 OK", &TWO[1..]);
    let closed = next_of(&mut client, views[0]);
    assert_eq!((&closed["t"], state_of(&closed)), (&json!("state"), ("closed", "delisted")));
    list(&venue, "200 OK", &TWO);
    serve_image_while_listing(&venue, "AAAUSDT", &TWO);
    assert_eq!(client.update_of(views[0], "image")["state"], "live");
}
