//! When a gateway lets clients in: on sockets, with venues whose every word the test writes.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use serde_json::json;
use tickfan::limits::LIST_PAGES_MAX;

#[path = "common/client.rs"]
mod client;
#[path = "common/gateway.rs"]
mod gateway;
#[path = "common/venue.rs"]
mod venue;

use client::Client;
use gateway::{get, get_json, metric, simulator_feed, wait_until, wait_until_live};
use venue::ScriptedVenue;

const LIST: &str = r#"{"symbols":[{"symbol":"AAAUSDT","status":"TRADING","baseAsset":"A","quoteAsset":"USDT","filters":[{"filterType":"PRICE_FILTER","tickSize":"0.01"},{"filterType":"LOT_SIZE","stepSize":"0.00100000"}]}]}"#;
const MISSED: &str = "tickfan_feed_lists_missed_total{venue=\"binance-spot\"}";

#[test]
fn no_two_starts_share_an_epoch() {
    let venue = ScriptedVenue::open();
    let feed = venue.feed("binance-spot", &["AAAUSDT"]);
    let epochs: Vec<u64> = (0..4)
        .map(|_| {
            // Each ends as soon as it has told its epoch, and the next is started at once.
            let running = gateway::start(&feed);
            let mut client = Client::connect(running.listen);
            let request = json!({"channel": "book", "symbols": ["binance-spot:AAAUSDT"]});
            client.subscribe(request)[0]["epoch"].as_u64().unwrap()
        })
        .collect();
    assert!(epochs.is_sorted_by(|one, next| one < next), "{epochs:?}");
}

#[test]
fn who_connects_before_the_list_has_come_is_let_in_when_it_has() {
    let venue = ScriptedVenue::open();
    let running = gateway::start(&venue.feed("binance-spot", &["*"]));
    let list = venue.request();
    assert_eq!(list.target, "/api/v3/exchangeInfo");
    let address = running.listen;
    let client = std::thread::spawn(move || {
        let mut client = Client::connect(address);
        let request = json!({"channel": "book", "symbols": ["binance-spot:AAAUSDT"]});
        client.subscribe(request).remove(0)
    });
    assert_eq!(get(running.admin, "/livez").0, 200);
    assert_eq!(get(running.admin, "/readyz"), (503, "starting: nobody is let in yet\n".to_owned()));
    list.answer("200 OK", "", LIST);
    let subscribed = client.join().unwrap();
    assert_eq!((&subscribed["ok"], &subscribed["state"]), (&json!(true), &json!("syncing")));
    assert_eq!(metric(&running, MISSED), 0);
}

#[test]
fn a_venue_whose_list_does_not_come_keeps_nobody_from_the_others() {
    let venue = ScriptedVenue::open();
    let feeds = format!("{}{}", simulator_feed(2, 100), venue.feed("binance-spot", &["*"]));
    let running = gateway::start(&feeds);
    let list = venue.request();
    wait_until_live(running.admin);
    assert_eq!(metric(&running, MISSED), 1);
    let (status, listed) = get_json(running.listen, "/v1/instruments");
    assert_eq!((status, listed["instruments"].as_array().unwrap().len()), (200, 2));
    // What comes late is served all the same.
    list.answer("200 OK", "", LIST);
    wait_until("its symbols are there", || {
        get_json(running.listen, "/v1/instruments").1["instruments"].as_array().unwrap().len() == 3
    });
}

/// A page of Bybit's list of contracts, with the place of the next one.
fn page(symbol: &str, next: &str) -> String {
    format!(
        r#"{{"result":{{"list":[{{"symbol":"{symbol}","contractType":"LinearPerpetual","status":"Trading","baseCoin":"A","quoteCoin":"USDT","priceFilter":{{"tickSize":"0.10"}},"lotSizeFilter":{{"qtyStep":"0.001"}}}}],"nextPageCursor":"{next}"}}}}"#
    )
}

#[test]
fn a_list_of_several_pages_is_read_to_its_end() {
    const FIRST: &str = "/v5/market/instruments-info?category=linear&limit=1000";
    let venue = ScriptedVenue::open();
    let running = gateway::start(&venue.feed("bybit-linear", &["*"]));
    let answer = |target: &str, symbol: &str, next: &str| {
        let request = venue.request();
        assert_eq!(request.target, target);
        request.answer("200 OK", "", &page(symbol, next));
    };
    // More than any venue lists: half of it would close what is in the other half.
    answer(FIRST, "AAAUSDT", "0");
    for i in 1..LIST_PAGES_MAX {
        answer(&format!("{FIRST}&cursor={}", i - 1), "AAAUSDT", &i.to_string());
    }
    answer(FIRST, "AAAUSDT", "a%3Db");
    answer(&format!("{FIRST}&cursor=a%3Db"), "BBBUSDT", "");
    wait_until("the contracts of both pages are there", || {
        let (status, listed) = get_json(running.listen, "/v1/instruments");
        status == 200 && listed["instruments"].as_array().unwrap().len() == 2
    });
}
