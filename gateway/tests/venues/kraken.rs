//! Kraken, written by hand from its documentation: what does not add up there is subscribed to anew.

use serde_json::{Value, json};

use super::client::Client;
use super::gateway::{self, metric, wait_until_live};
use super::venue::{ScriptedVenue, Session};
use super::{NOT_FOUND, client_of, number, state_of};

pub(super) const KRAKEN: [&str; 2] = ["AAA/USD", "BBB/USD"];

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

pub(super) fn kraken_snapshot(symbol: &str) -> String {
    kraken_book("snapshot", symbol, &BIDS, &ASKS, checksum(&BIDS, &ASKS))
}

/// An update of the best bid's quantity.
pub(super) fn kraken_update(symbol: &str, qty: &str) -> String {
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
    wait_until_live(running.admin);
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
    wait_until_live(running.admin);
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
