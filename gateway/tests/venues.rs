//! Feed sessions on real sockets against a venue of which the test writes every word: whatever goes
//! wrong there is told to the subscribers of that symbol, mended, and felt by nobody else.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use serde_json::{Value, json};
use tickfan::clock::Clock;
use tickfan::limits::{REST_CONCURRENT_MAX, SECOND_NS, VENUE_MESSAGE_BYTES_MAX};
use tickfan::serve::{self, Running};

#[path = "common/client.rs"]
mod client;
#[path = "common/feed.rs"]
mod feed;
#[path = "common/gateway.rs"]
mod gateway;
#[path = "venues/kraken.rs"]
mod kraken;
#[path = "venues/sessions.rs"]
mod sessions;
#[path = "common/venue.rs"]
mod venue;

use client::Client;
use gateway::{get, metric, wait_until, wait_until_live};
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
        wait_until_live(running.admin);
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
    let mut second_goes_on = |binance: &mut Binance, last: u64| {
        binance.session().say(&depth("BBBUSDT", last, last, "100.00", &format!("{last}")));
        let delta = client.update(|_| true).0;
        assert_eq!((&delta["v"], &delta["t"]), (&json!(views[1]), &json!("delta")), "{delta}");
    };
    (101..=105).for_each(|last| second_goes_on(binance, last));
    // What comes before the image waits for it; the other symbol's next change shows that it came.
    binance.session().say(&depth("AAAUSDT", 301, 310, "98.00", "7"));
    second_goes_on(binance, 106);
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
    wait_until_live(running.admin);
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
    wait_until_live(running.admin);
    let (mut client, _) = client_of(&running, "binance-spot", &["AAAUSDT"]);
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
    wait_until_live(running.admin);
    let (_, views) = client_of(&running, "binance-spot", &["AAAUSDT"]);
    let (_, book) = gateway::get_json(running.listen, "/v1/book?symbol=binance-spot:AAAUSDT");
    assert_eq!((views.len(), &book["q"]), (1, &json!(210)));
    assert_eq!(book["b"][0], json!(["100", "5"]));
}

// --- Connections that come and go by plan.

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
        wait_until_live(running.admin);
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
    let mut config = gateway::config(&venue.feed("binance-spot", &["*"]));
    config.feeds[0].listings_every_ns = SECOND_NS / 5;
    let running = serve::start(config).unwrap();
    list(&venue, "200 OK", &TWO[..1]);
    let mut first = venue.session();
    acknowledge(&mut first);
    serve_image_while_listing(&venue, "AAAUSDT", &TWO[..1]);
    wait_until_live(running.admin);
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
