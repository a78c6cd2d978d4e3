//! The checker checked: frames written by hand in, the right verdict out. Every error that a gateway
//! could make must be caught, and an honest gateway must not be accused.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use feed_sim::exchange::{Exchange, ExchangeOptions};
use feed_sim::record::{self, Length};
use feed_sim::recording::{
    FileWriter, LostLine, LostWriter, Recording, TruthPoint, Writer, states_from_text,
};
use feed_sim::replay::Speed;
use feed_sim::scenario::Scenario;
use feed_sim::venue::Dialect;

use super::Verify;
use super::expected::{Expected, Loss, Mark, Trade};
use super::follow::Depth;
use super::report::Difference;
use super::session::{Encoding, Request, Session};
use super::view::{Channel, Terms};

/// A recording of one Binance symbol. The book is joined at 12; the states are 10 (the bare image),
/// 12, 14, 16 and 18.
const SPOT: &[(&str, &str, &str)] = &[
    (
        "recv",
        "ws",
        r#"{"stream":"ab@depth@100ms","data":{"e":"depthUpdate","s":"AB","U":9,"u":12,"b":[["9.0","2.50"]],"a":[]}}"#,
    ),
    (
        "rest",
        "depth?symbol=AB&limit=1000",
        r#"{"lastUpdateId":10,"bids":[["10.00","1.0"],["9.00","2.00"]],"asks":[["11.00","3"]]}"#,
    ),
    (
        "recv",
        "ws",
        r#"{"stream":"ab@bookTicker","data":{"u":13,"s":"AB","b":"10.0","B":"1.5","a":"11.0","A":"3.0"}}"#,
    ),
    (
        "recv",
        "ws",
        r#"{"stream":"ab@depth@100ms","data":{"e":"depthUpdate","s":"AB","U":13,"u":14,"b":[["10.00","1.50"]],"a":[]}}"#,
    ),
    (
        "recv",
        "ws",
        r#"{"stream":"ab@trade","data":{"s":"AB","t":1,"p":"11.00","q":"0.10","T":5,"m":false}}"#,
    ),
    (
        "recv",
        "ws",
        r#"{"stream":"ab@trade","data":{"s":"AB","t":2,"p":"10.00","q":"0.20","T":6,"m":true}}"#,
    ),
    (
        "recv",
        "ws",
        r#"{"stream":"ab@depth@100ms","data":{"e":"depthUpdate","s":"AB","U":15,"u":16,"b":[],"a":[["11.00","0.00"],["11.50","4.00"]]}}"#,
    ),
    (
        "recv",
        "ws",
        r#"{"stream":"ab@depth@100ms","data":{"e":"depthUpdate","s":"AB","U":17,"u":18,"b":[["9.00","1.00"],["8.00","7.00"]],"a":[]}}"#,
    ),
    (
        "recv",
        "ws",
        r#"{"stream":"ab@trade","data":{"s":"AB","t":3,"p":"11.50","q":"0.30","T":7,"m":false}}"#,
    ),
];

/// A recording of one Kraken symbol, whose states have no numbers.
const KRAKEN: &[(&str, &str, &str)] = &[
    (
        "recv",
        "ws",
        r#"{"method":"subscribe","result":{"channel":"book","depth":10,"snapshot":true,"symbol":"A/B"},"success":true}"#,
    ),
    (
        "recv",
        "ws",
        r#"{"channel":"book","type":"snapshot","data":[{"symbol":"A/B","bids":[{"price":10.00,"qty":1.0}],"asks":[{"price":11.00,"qty":3.0}],"checksum":1}]}"#,
    ),
    (
        "recv",
        "ws",
        r#"{"channel":"book","type":"update","data":[{"symbol":"A/B","bids":[{"price":9.00,"qty":2.0}],"asks":[],"checksum":1,"timestamp":"2021-04-17T16:48:53.000001Z"}]}"#,
    ),
    (
        "recv",
        "ws",
        r#"{"channel":"book","type":"update","data":[{"symbol":"A/B","bids":[],"asks":[{"price":11.00,"qty":4.0}],"checksum":1,"timestamp":"2021-04-17T16:48:53.000002Z"}]}"#,
    ),
    (
        "recv",
        "ws",
        r#"{"channel":"book","type":"update","data":[{"symbol":"A/B","bids":[{"price":10.00,"qty":5.0}],"asks":[],"checksum":1,"timestamp":"2021-04-17T16:48:53.000003Z"}]}"#,
    ),
    (
        "recv",
        "ws",
        r#"{"channel":"trade","type":"update","data":[{"symbol":"A/B","side":"sell","price":10.00,"qty":0.5,"ord_type":"limit","trade_id":4,"timestamp":"2021-04-17T16:48:53.000004Z"}]}"#,
    ),
];

/// A recording of one Bitfinex symbol: neither numbers of its books nor times reach a subscriber.
const BITFINEX: &[(&str, &str, &str)] = &[
    ("recv", "ws", r#"{"event":"conf","status":"OK","flags":65536}"#),
    ("recv", "ws", r#"{"event":"subscribed","channel":"book","chanId":17,"symbol":"tAB"}"#),
    ("recv", "ws", "[17,[[10,1,1.0],[11,1,-3]],1]"),
    ("recv", "ws", "[17,[9,1,2e-8],2]"),
    ("recv", "ws", "[17,[11,2,-4],3]"),
    ("recv", "ws", "[17,[10,1,5],4]"),
];

/// Time of the first Kraken update less one.
const KRAKEN_TE: u64 = 1_618_678_133_000_000;

fn expected(name: &str, lines: &[(&str, &str, &str)]) -> Arc<Expected> {
    let mut text = String::new();
    for (kind, stream, payload) in lines {
        writeln!(text, "1\t{kind}\t{stream}\t{payload}").unwrap();
    }
    let recording = Recording::from_text(name, text).unwrap();
    Arc::new(Expected::new(Arc::new(recording)).unwrap())
}

fn spot() -> Arc<Expected> {
    expected("binance-spot-test", SPOT)
}

fn kraken() -> Arc<Expected> {
    expected("kraken-v2-test", KRAKEN)
}

fn loss(expected: &Expected, drop_line: u64, seen_line: u64) -> Loss {
    let symbol = expected.symbols.keys().next().unwrap().clone();
    let row = LostLine {
        recording: String::new(),
        drop_line,
        symbol,
        first_detectable_at_line: Some(seen_line),
        how: None,
    };
    expected.loss(&row, seen_line).unwrap()
}

/// A gateway that says what it is told to.
struct Gateway {
    session: Session,
    n: u64,
    ts: u64,
}

impl Gateway {
    /// It has acknowledged view 1 in epoch 7, syncing, at version 0.
    fn new(expected: &Arc<Expected>, channel: Channel, budget_ms: u64, terms: Terms) -> Self {
        let request = Request { channel, budget_ms };
        let mut session = Session::new("a reader", expected, &[request], terms);
        let (name, depth, state) = match channel {
            Channel::Book(Depth::One) => ("book", r#""depth":1,"#, "syncing"),
            Channel::Book(Depth::Twenty) => ("book", r#""depth":20,"#, "syncing"),
            Channel::Book(Depth::Full) => ("book", r#""depth":"full","#, "syncing"),
            Channel::Bbo => ("bbo", "", "live"),
            Channel::Trades => ("trades", "", "live"),
        };
        let symbol = expected.spelt(expected.symbols.keys().next().unwrap());
        session.hear(r#"{"type":"hello","protocol":1}"#).unwrap();
        assert!(!session.is_subscribed());
        let ack = format!(
            r#"{{"type":"subscribed","id":0,"results":[{{"symbol":"{symbol}","ok":true,"view":1,"channel":"{name}",{depth}"budget_ms":{budget_ms},"budget":"accepted","epoch":7,"s":0,"state":"{state}"}}]}}"#
        );
        session.hear(&ack).unwrap();
        assert!(session.is_subscribed());
        Self { session, n: 0, ts: 1_000_000 }
    }

    fn book(expected: &Arc<Expected>, depth: Depth) -> Self {
        Self::new(expected, Channel::Book(depth), 0, Terms::default())
    }

    fn with_loss(expected: &Arc<Expected>, depth: Depth, loss: Loss) -> Self {
        let terms = Terms { loss: Some(loss), ..Terms::default() };
        Self::new(expected, Channel::Book(depth), 0, terms)
    }

    /// Sends updates in one frame; `T` in them is the time of sending.
    fn says(&mut self, updates: &str) -> Result<(), Box<Difference>> {
        self.says_with("", updates)
    }

    fn says_with(&mut self, fields: &str, updates: &str) -> Result<(), Box<Difference>> {
        self.n += 1;
        self.ts += 1;
        let updates = updates.replace("\"T\"", &self.ts.to_string());
        let frame = format!(r#"{{"n":{},"ts":{}{fields},"u":[{updates}]}}"#, self.n, self.ts);
        self.session.hear(&frame)
    }
}

fn image(e: u64, s: u64, q: u64, bids: &str, asks: &str) -> String {
    format!(
        r#"{{"t":"image","v":1,"e":{e},"s":{s},"q":{q},"te":5,"tr":"T","state":"live","b":[{bids}],"a":[{asks}]}}"#
    )
}

fn delta(s: u64, p: u64, q: u64, bids: &str, asks: &str) -> String {
    format!(
        r#"{{"t":"delta","v":1,"s":{s},"p":{p},"q":{q},"te":5,"tr":"T","to":"T","b":[{bids}],"a":[{asks}]}}"#
    )
}

fn bbo(s: u64, q: u64, bid: &str, ask: &str) -> String {
    format!(r#"{{"t":"bbo","v":1,"s":{s},"q":{q},"tr":"T","to":"T","b":{bid},"a":{ask}}}"#)
}

fn state(e: u64, state: &str) -> String {
    format!(r#"{{"t":"state","v":1,"e":{e},"state":"{state}","why":"test","since":1}}"#)
}

fn trades(s: u64, p: u64, rest: &str) -> String {
    format!(r#"{{"t":"trades","v":1,"s":{s},"p":{p},"tr":"T","to":"T",{rest}}}"#)
}

fn is_caught(result: Result<(), Box<Difference>>, rule: &str) {
    let difference = result.expect_err("an error was planted");
    assert!(difference.rule.contains(rule), "{difference}");
    assert_eq!(difference.reader, "a reader");
}

const AT_12: (&str, &str) = (r#"["10","1"],["9","2.5"]"#, r#"["11","3"]"#);
const AT_14: (&str, &str) = (r#"["10","1.5"],["9","2.5"]"#, r#"["11","3"]"#);
const AT_18: (&str, &str) = (r#"["10","1.5"],["9","1"],["8","7"]"#, r#"["11.5","4"]"#);

fn at_12(depth: Depth) -> Gateway {
    let mut gateway = Gateway::book(&spot(), depth);
    gateway.says(&image(7, 1, 12, AT_12.0, AT_12.1)).unwrap();
    gateway
}

#[test]
fn an_honest_book_is_right() {
    for depth in [Depth::Twenty, Depth::Full] {
        let mut gateway = at_12(depth);
        gateway.says("").unwrap();
        gateway.says(&delta(3, 1, 14, r#"["10","1.5"]"#, "")).unwrap();
        assert!(!gateway.session.is_complete());
        gateway.says(&delta(4, 3, 16, "", r#"["11","0"],["11.5","4"]"#)).unwrap();
        gateway.says(&delta(9, 4, 18, r#"["9","1"],["8","7"]"#, "")).unwrap();
        assert!(gateway.session.is_complete());
        gateway.says(&image(7, 9, 18, AT_18.0, AT_18.1)).unwrap();
        let counts = gateway.session.counts();
        assert_eq!((counts.frames, counts.updates, counts.states), (6, 5, 5));
        assert_eq!((counts.merged, counts.images), (5, 2));
    }
    let mut top = Gateway::book(&spot(), Depth::One);
    top.says(&image(7, 1, 10, r#"["10","1"]"#, r#"["11","3"]"#)).unwrap();
    top.says(&delta(5, 1, 18, r#"["10","1.5"]"#, r#"["11","0"],["11.5","4"]"#)).unwrap();
    assert!(top.session.is_complete());
}

#[test]
fn the_image_may_come_before_it_is_joined() {
    let mut gateway = Gateway::book(&spot(), Depth::Full);
    gateway.says(&image(7, 1, 10, r#"["10","1"],["9","2"]"#, r#"["11","3"]"#)).unwrap();
    gateway.says(&delta(2, 1, 12, r#"["9","2.5"]"#, "")).unwrap();
}

#[test]
fn a_hole_in_n_is_caught() {
    let mut gateway = at_12(Depth::Twenty);
    gateway.n += 1;
    is_caught(gateway.says(""), "without a hole");
}

#[test]
fn a_frame_from_the_past_is_caught() {
    let mut gateway = at_12(Depth::Twenty);
    gateway.ts -= 10;
    is_caught(gateway.says(""), "one after the other");
}

#[test]
fn a_wrong_chain_is_caught() {
    is_caught(at_12(Depth::Twenty).says(&delta(3, 2, 14, r#"["10","1.5"]"#, "")), "p is the s");
    is_caught(at_12(Depth::Twenty).says(&delta(1, 1, 14, r#"["10","1.5"]"#, "")), "s rises");
    is_caught(at_12(Depth::Twenty).says(&image(7, 0, 12, AT_12.0, AT_12.1)), "s never falls");
    let mut gateway = Gateway::book(&spot(), Depth::Twenty);
    gateway.says(&state(7, "live")).unwrap();
    is_caught(gateway.says(&delta(3, 2, 14, r#"["10","1.5"]"#, "")), "follows an image");
}

#[test]
fn a_state_that_never_was_is_caught() {
    for depth in [Depth::Twenty, Depth::Full] {
        let result = at_12(depth).says(&delta(2, 1, 14, r#"["10","1.6"]"#, ""));
        let difference = result.clone().expect_err("a wrong quantity");
        assert_eq!((difference.symbol.as_str(), difference.line), ("binance-spot:AB", Some(4)));
        assert!(difference.expected.contains("Bid 1 is 10:1.5, held is 1.6"), "{difference}");
        is_caught(result, "true state");
        // A level that is not there, and one that is there under another sequence.
        is_caught(
            at_12(depth).says(&delta(2, 1, 14, r#"["10","1.5"],["7","1"]"#, "")),
            "true state",
        );
        is_caught(at_12(depth).says(&delta(2, 1, 16, r#"["10","1.5"]"#, "")), "true state");
        is_caught(at_12(depth).says(&delta(2, 1, 15, r#"["10","1.5"]"#, "")), "true state");
    }
    let mut top = Gateway::book(&spot(), Depth::One);
    is_caught(top.says(&image(7, 1, 12, r#"["10","2"]"#, r#"["11","3"]"#)), "true state");
}

#[test]
fn a_deep_level_that_is_wrong_is_caught_at_full_depth() {
    let mut bids = String::new();
    for px in (1..=30).rev() {
        write!(bids, r#"{}["{px}.00","1.0"]"#, if px == 30 { "" } else { "," }).unwrap();
    }
    let line = format!(r#"{{"lastUpdateId":10,"bids":[{bids}],"asks":[]}}"#);
    let expected = expected("binance-spot-test", &[("rest", "depth?symbol=AB", &line)]);
    let right = bids.replace(".00", "").replace(".0", "");
    let wrong = right.replace(r#"["2","1"]"#, r#"["2","2"]"#);
    Gateway::book(&expected, Depth::Full).says(&image(7, 1, 10, &right, "")).unwrap();
    let result = Gateway::book(&expected, Depth::Full).says(&image(7, 1, 10, &wrong, ""));
    is_caught(result, "true state");
}

#[test]
fn states_out_of_order_are_caught() {
    let mut gateway = Gateway::book(&spot(), Depth::Twenty);
    gateway.says(&image(7, 3, 14, AT_14.0, AT_14.1)).unwrap();
    is_caught(gateway.says(&image(7, 3, 12, AT_12.0, AT_12.1)), "q never falls");
    // A new epoch begins to count anew, but the market does not go back.
    let mut gateway = Gateway::book(&spot(), Depth::Twenty);
    gateway.says(&image(7, 3, 14, AT_14.0, AT_14.1)).unwrap();
    is_caught(gateway.says(&image(8, 1, 12, AT_12.0, AT_12.1)), "in order");
    is_caught(at_12(Depth::Twenty).says(&image(6, 1, 12, AT_12.0, AT_12.1)), "epoch never falls");
}

#[test]
fn an_empty_delta_is_caught() {
    is_caught(at_12(Depth::Twenty).says(&delta(2, 1, 14, "", "")), "never empty");
}

#[test]
fn states_must_be_told_before_what_follows() {
    for silent in ["syncing", "closed"] {
        let mut gateway = at_12(Depth::Twenty);
        gateway.says(&state(7, silent)).unwrap();
        is_caught(gateway.says(&delta(2, 1, 14, r#"["10","1.5"]"#, "")), "in this state");
    }
    let mut gateway = at_12(Depth::Twenty);
    gateway.says(&state(7, "stale")).unwrap();
    is_caught(gateway.says(&image(7, 1, 12, AT_12.0, AT_12.1)), "before what follows");
    let mut gateway = at_12(Depth::Twenty);
    gateway.says(&state(7, "suspect")).unwrap();
    gateway.says(&delta(2, 1, 14, r#"["10","1.5"]"#, "")).unwrap();
    is_caught(at_12(Depth::Twenty).says(&state(7, "sleepy")), "one of the protocol's");
}

#[test]
fn a_loss_must_be_told_and_repaired() {
    let lossy = || {
        let expected = spot();
        let loss = loss(&expected, 4, 7);
        assert_eq!((loss.from, loss.seen), (Mark::Id(14), Mark::Id(16)));
        let mut gateway = Gateway::with_loss(&expected, Depth::Twenty, loss);
        gateway.says(&image(7, 1, 12, AT_12.0, AT_12.1)).unwrap();
        gateway
    };
    // No gap at all.
    let wrong = delta(2, 1, 16, "", r#"["11","0"],["11.5","4"]"#);
    is_caught(lossy().says(&wrong), "a gap is told before");
    // A price after it.
    let mut gateway = lossy();
    gateway.says(&state(7, "gap")).unwrap();
    is_caught(gateway.says(&wrong), "in this state");
    // An image under the epoch that ended.
    let mut gateway = lossy();
    gateway.says(&state(7, "gap")).unwrap();
    is_caught(gateway.says(&image(7, 3, 18, AT_18.0, AT_18.1)), "epoch of its own");
    // As it should be, and then a second gap.
    let mut gateway = lossy();
    gateway.says(&state(7, "gap")).unwrap();
    assert!(!gateway.session.is_complete());
    gateway.says(&image(8, 3, 18, AT_18.0, AT_18.1)).unwrap();
    assert!(gateway.session.is_complete());
    assert_eq!(gateway.session.counts().gaps, 1);
    is_caught(gateway.says(&state(8, "gap")), "nothing of this is lost");
}

#[test]
fn a_gap_where_nothing_is_lost_is_caught() {
    is_caught(at_12(Depth::Twenty).says(&state(7, "gap")), "nothing of this is lost");
    // A finer number ends the epoch too, which is no loss.
    let mut gateway = at_12(Depth::Twenty);
    gateway.says(&state(7, "gap").replace("test", "scale_change")).unwrap();
    gateway.says(&image(8, 1, 12, AT_12.0, AT_12.1)).unwrap();
    // The best prices of Binance do not hang on its book.
    let expected = spot();
    let terms = Terms { loss: Some(loss(&expected, 4, 7)), ..Terms::default() };
    let mut gateway = Gateway::new(&expected, Channel::Bbo, 0, terms);
    is_caught(gateway.says(&state(7, "gap")), "nothing of this is lost");
}

#[test]
fn an_image_that_was_cut_is_judged_as_far_as_it_goes() {
    let repaired = |bids: &str, trusted: &str| {
        let expected = spot();
        let mut gateway = Gateway::with_loss(&expected, Depth::Full, loss(&expected, 1, 4));
        gateway.says(&state(7, "gap")).unwrap();
        let image = image(8, 3, 14, bids, AT_14.1);
        let image = image.replace("}", &format!(r#","trusted":{trusted}}}"#));
        (gateway.says(&image), gateway)
    };
    let (result, mut gateway) = repaired(r#"["10","1.5"]"#, "[1,1]");
    result.unwrap();
    gateway.says(&delta(4, 3, 16, "", r#"["11","0"],["11.5","4"]"#)).unwrap();
    assert!(!gateway.session.is_complete());
    // The event tells the level that was below the cut.
    gateway.says(&delta(5, 4, 18, r#"["9","1"],["8","7"]"#, "")).unwrap();
    assert!(gateway.session.is_complete());

    let (_, mut gateway) = repaired(r#"["10","1.5"]"#, "[1,1]");
    let wrong = delta(4, 3, 16, r#"["9","2"]"#, r#"["11","0"],["11.5","4"]"#);
    is_caught(gateway.says(&wrong), "true state");
    is_caught(repaired(r#"["9","2.5"]"#, "[1,1]").0, "complete as far as it says");
    is_caught(repaired(r#"["10","1.5"],["7","1"]"#, "[1,1]").0, "every level");
    is_caught(repaired(r#"["10","1.6"]"#, "[1,1]").0, "every level");
}

#[test]
fn trades_come_once_in_order() {
    const FIRST: &str = r#"[5000,"11","0.1","buy","1"]"#;
    const SECOND: &str = r#"[6000,"10","0.2","sell","2"]"#;
    const THIRD: &str = r#"[7000,"11.5","0.3","buy","3"]"#;
    let new = |may_lose| {
        let terms = Terms { may_lose, ..Terms::default() };
        Gateway::new(&spot(), Channel::Trades, 0, terms)
    };
    let some = |s, p, list: &str| trades(s, p, &format!(r#""x":[{list}]"#));
    let mut gateway = new(false);
    gateway.says(&some(2, 0, &format!("{FIRST},{SECOND}"))).unwrap();
    assert!(!gateway.session.is_complete());
    gateway.says(&some(3, 2, THIRD)).unwrap();
    assert!(gateway.session.is_complete());
    is_caught(gateway.says(&some(4, 3, THIRD)), "every trade comes once");
    // Repeated, left out, changed.
    let mut gateway = new(false);
    gateway.says(&some(1, 0, FIRST)).unwrap();
    is_caught(gateway.says(&some(2, 1, FIRST)), "every trade comes once");
    is_caught(new(false).says(&some(1, 0, SECOND)), "every trade comes once");
    let changed = SECOND.replace("sell", "buy");
    is_caught(
        new(false).says(&some(2, 0, &format!("{FIRST},{changed}"))),
        "every trade comes once",
    );
    // Miscounted.
    is_caught(new(false).says(&some(2, 0, FIRST)), "number of trades");
    is_caught(new(false).says(&some(2, 1, FIRST)), "p is the s");
    // Lost.
    let lost = |s, p, lost: u64| trades(s, p, &format!(r#""x":[],"lost":{lost}"#));
    is_caught(new(false).says(&lost(2, 0, 2)), "no trade is lost");
    is_caught(new(true).says(&lost(2, 0, 1)), "number of trades");
    is_caught(new(true).says(&lost(4, 0, 4)), "what was produced");
    let mut gateway = new(true);
    gateway.says(&lost(2, 0, 2)).unwrap();
    gateway.says(&some(3, 2, THIRD)).unwrap();
    assert!(gateway.session.is_complete());
    assert_eq!((gateway.session.counts().trades, gateway.session.counts().lost), (1, 2));
}

#[test]
fn the_best_prices_are_the_venue_s() {
    let new = || Gateway::new(&spot(), Channel::Bbo, 0, Terms::default());
    let (bid, ask) = (r#"["10","1.5"]"#, r#"["11","3"]"#);
    let mut gateway = new();
    gateway.says(&bbo(1, 12, r#"["10","1"]"#, ask)).unwrap();
    gateway.says(&bbo(2, 13, bid, ask)).unwrap();
    // The same again with what the book says later.
    gateway.says(&bbo(2, 14, bid, ask)).unwrap();
    assert!(!gateway.session.is_complete());
    gateway.says(&bbo(5, 18, bid, r#"["11.5","4"]"#)).unwrap();
    assert!(gateway.session.is_complete());
    assert_eq!(gateway.session.counts().merged, 2);
    is_caught(gateway.says(&bbo(5, 16, bid, r#"["11.5","4"]"#)), "q never falls");
    is_caught(new().says(&bbo(1, 12, bid, ask)), "at its q");
    is_caught(new().says(&bbo(1, 13, bid, "null")), "at its q");
    is_caught(new().says(&bbo(1, 99, bid, ask)), "at its q");
    is_caught(new().says(&bbo(1, 13, r#"["10.0","1.5"]"#, ask)), "shortest");
}

#[test]
fn lateness_is_told_as_the_protocol_says() {
    const LATE: &str = r#","late":[0],"late_us":5000"#;
    let right = delta(2, 1, 14, r#"["10","1.5"]"#, "");
    is_caught(at_12(Depth::Twenty).says_with(LATE, &right), "nothing is late at budget 0");
    is_caught(at_12(Depth::Twenty).says_with(r#","late":[0]"#, &right), "come together");
    is_caught(at_12(Depth::Twenty).says_with(r#","late_us":9"#, &right), "come together");
    is_caught(at_12(Depth::Twenty).says_with(r#","late":[],"late_us":9"#, &right), "absent");
    is_caught(at_12(Depth::Twenty).says_with(r#","late":[1],"late_us":9"#, &right), "of the frame");

    let patient = || {
        let terms = Terms::default();
        let mut gateway = Gateway::new(&spot(), Channel::Book(Depth::Twenty), 10, terms);
        gateway.says(&image(7, 1, 12, AT_12.0, AT_12.1)).unwrap();
        gateway
    };
    let held_back = right.replace(r#""to":"T""#, r#""to":985003"#);
    patient().says(&right).unwrap();
    patient().says_with(LATE, &held_back).unwrap();
    is_caught(patient().says(&held_back), "longer than its budget");
    is_caught(patient().says_with(r#","late":[0],"late_us":9"#, &held_back), "worst overrun");

    // A subscription starts clean with its first whole.
    let mut gateway = Gateway::new(&spot(), Channel::Bbo, 10, Terms::default());
    let old = bbo(1, 13, r#"["10","1.5"]"#, r#"["11","3"]"#);
    let old = old.replace(r#""to":"T""#, r#""to":985003"#);
    gateway.says(&old).unwrap();
    is_caught(gateway.says(&old), "longer than its budget");
}

#[test]
fn times_are_in_order() {
    let right = delta(2, 1, 14, r#"["10","1.5"]"#, "");
    let early = right.replace(r#""tr":"T""#, r#""tr":5"#);
    is_caught(at_12(Depth::Twenty).says(&early), "to is not after tr");
    let late = right.replace(r#""tr":"T""#, r#""tr":9000000"#);
    is_caught(at_12(Depth::Twenty).says(&late), "tr is not after ts");
    let none = right.replace(r#""to":"T","#, "");
    is_caught(at_12(Depth::Twenty).says(&none), "has its fields");
}

#[test]
fn what_was_not_asked_for_is_caught() {
    let right = delta(2, 1, 14, r#"["10","1.5"]"#, "");
    is_caught(at_12(Depth::Twenty).says(&right.replace(r#""v":1"#, r#""v":2"#)), "acknowledged");
    is_caught(at_12(Depth::Twenty).says(&bbo(2, 14, "null", "null")), "subscribed to");
    is_caught(at_12(Depth::Twenty).says(&right.replace("delta", "patch")), "subscribed to");
    is_caught(at_12(Depth::Twenty).says("7"), "protocol's page");
    is_caught(at_12(Depth::Twenty).says(&right.replace(r#""q":14,"#, "")), "has numbers");
    let error = r#"{"type":"error","code":"internal","message":"say \"what\""}"#;
    is_caught(at_12(Depth::Twenty).session.hear(error), "when it is due");
}

#[test]
fn the_encoding_is_the_one_chosen() {
    let binary = || {
        let terms = Terms { encoding: Encoding::Binary, ..Terms::default() };
        Gateway::new(&spot(), Channel::Book(Depth::Twenty), 0, terms)
    };
    is_caught(binary().says(""), "the one chosen");
    let heartbeat = |n: u8| {
        let mut frame = [0; 32];
        frame[..3].copy_from_slice(b"TF\x01");
        frame[8] = n;
        frame
    };
    is_caught(at_12(Depth::Twenty).session.hear_binary(&heartbeat(2)), "the one chosen");
    let mut gateway = binary();
    gateway.session.hear_binary(&heartbeat(1)).unwrap();
    is_caught(gateway.session.hear_binary(&heartbeat(3)), "without a hole");
    is_caught(binary().session.hear_binary(&heartbeat(1)[..31]), "laid out");
}

#[test]
fn what_says_its_state_and_epoch_says_what_was_told() {
    let right = delta(2, 1, 14, r#"["10","1.5"]"#, "");
    let said = |e, state| {
        let fields = format!(r#""e":{e},"state":"{state}","s":2"#);
        at_12(Depth::Twenty).says(&right.replace(r#""s":2"#, &fields))
    };
    said(7, "live").unwrap();
    is_caught(said(8, "live"), "that were told");
    is_caught(said(7, "suspect"), "that were told");
}

#[test]
fn a_large_image_travels_alone() {
    let padded = image(7, 1, 12, AT_12.0, AT_12.1)
        .replace("image\"", &format!("image\",\"pad\":\"{}\"", "x".repeat(70_000)));
    at_12(Depth::Twenty).says(&padded).unwrap();
    let result = at_12(Depth::Twenty).says(&format!("{padded},{}", state(7, "live")));
    is_caught(result, "a frame of its own");
}

#[test]
fn books_without_numbers_are_followed_in_order() {
    let new = || Gateway::book(&kraken(), Depth::Full);
    let image = |bids: &str, asks: &str| image(7, 1, 0, bids, asks).replace(r#""q":0,"#, "");
    let (first, last) = (r#"["10","1"]"#, r#"["10","5"],["9","2"]"#);
    let mut gateway = new();
    gateway.says(&image(first, r#"["11","3"]"#)).unwrap();
    gateway.says(&image(last, r#"["11","4"]"#)).unwrap();
    assert!(gateway.session.is_complete());
    is_caught(gateway.says(&image(first, r#"["11","3"]"#)), "in order");
    is_caught(new().says(&image(first, r#"["11","4"]"#)), "true state");

    let bbo = |bid: &str, ask: &str| bbo(1, 0, bid, ask).replace(r#""q":0,"#, "");
    let mut gateway = Gateway::new(&kraken(), Channel::Bbo, 0, Terms::default());
    gateway.says(&bbo(first, r#"["11","4"]"#)).unwrap();
    is_caught(gateway.says(&bbo(first, r#"["11","3"]"#)), "in order");
}

#[test]
fn a_loss_that_cannot_be_seen_yet_is_not_judged() {
    let expected = kraken();
    let loss = loss(&expected, 3, 5);
    assert_eq!((loss.from, loss.seen), (Mark::Time(KRAKEN_TE + 1), Mark::Time(KRAKEN_TE + 3)));
    let at = |te: u64, update: String| {
        update.replace(r#""q":0,"#, "").replace(r#""te":5"#, &format!(r#""te":{te}"#))
    };
    let lossy = || {
        let mut gateway = Gateway::with_loss(&expected, Depth::Full, loss.clone());
        gateway.says(&at(0, image(7, 1, 0, r#"["10","1"]"#, r#"["11","3"]"#))).unwrap();
        // Without the bid at 9, which nobody can miss yet.
        gateway.says(&at(KRAKEN_TE + 2, delta(2, 1, 0, "", r#"["11","4"]"#))).unwrap();
        gateway
    };
    let mut gateway = lossy();
    gateway.says(&state(7, "gap")).unwrap();
    let right = image(8, 3, 0, r#"["10","5"],["9","2"]"#, r#"["11","4"]"#);
    gateway.says(&at(KRAKEN_TE + 9, right)).unwrap();
    assert!(gateway.session.is_complete());
    // Neither is a wrong book right after the repair, nor may the gap be kept a secret.
    let mut gateway = lossy();
    gateway.says(&state(7, "gap")).unwrap();
    let wrong = image(8, 3, 0, r#"["10","5"]"#, r#"["11","4"]"#);
    is_caught(gateway.says(&at(KRAKEN_TE + 9, wrong)), "true state");
    let secret = delta(3, 2, 0, r#"["10","5"]"#, "");
    is_caught(lossy().says(&at(KRAKEN_TE + 3, secret)), "a gap is told before");
}

#[test]
fn a_loss_on_a_numbered_connection_may_be_anybody_s() {
    let expected = expected("bitfinex-test", BITFINEX);
    let loss = loss(&expected, 4, 5);
    assert_eq!((loss.from, loss.seen), (Mark::Line, Mark::Line));
    let plain = |update: String| update.replace(r#""q":0,"#, "");
    let first = || plain(image(7, 1, 0, r#"["10","1"]"#, r#"["11","3"]"#));
    let last = plain(image(8, 3, 0, r#"["10","5"],["9","0.00000002"]"#, r#"["11","4"]"#));
    let lossy = |channel| {
        let terms = Terms { loss: Some(loss.clone()), ..Terms::default() };
        Gateway::new(&expected, channel, 0, terms)
    };
    let book = || {
        let mut gateway = lossy(Channel::Book(Depth::Full));
        gateway.says(&first()).unwrap();
        gateway
    };
    let mut gateway = book();
    gateway.says(&state(7, "gap")).unwrap();
    assert!(!gateway.session.is_complete());
    gateway.says(&last).unwrap();
    assert!(gateway.session.is_complete());
    // Whether what was lost is missing or known by magic: the hole is no secret.
    is_caught(book().says(&plain(delta(2, 1, 0, "", r#"["11","4"]"#))), "true state");
    let magic = plain(delta(2, 1, 0, r#"["9","0.00000002"]"#, r#"["11","4"]"#));
    is_caught(book().says(&magic), "a gap is told before");
    let bbo = plain(bbo(1, 0, r#"["10","1"]"#, r#"["11","4"]"#));
    is_caught(lossy(Channel::Bbo).says(&bbo), "a gap is told before");
    // Trades may be told to be lost with it, and need not.
    let mut trades = lossy(Channel::Trades);
    assert!(trades.session.is_complete());
    trades.says(&state(7, "gap")).unwrap();
    assert!(trades.session.is_complete());
}

#[test]
fn the_trades_of_every_venue_are_read() {
    let trade = |px: &str, side, id: &str, te| {
        let (px, qty, id) = (px.to_owned(), "0.5".to_owned(), id.to_owned());
        Trade { line: 2, te, px, qty, side, id }
    };
    let (first, second) = (1_618_678_132_000_005, 1_618_678_132_000_000);
    for (name, book, trades, symbol, read) in [
        (
            "coinbase-exchange-test",
            r#"{"type":"snapshot","product_id":"A-B","asks":[],"bids":[["1","2"]]}"#,
            r#"{"type":"match","trade_id":7,"side":"sell","size":"0.50","price":"11.0","product_id":"A-B","sequence":1,"time":"2021-04-17T16:48:52.000005Z"}"#,
            "A-B",
            vec![trade("11", "buy", "7", first)],
        ),
        (
            "coinbase-advanced-test",
            r#"{"channel":"l2_data","timestamp":"x","sequence_num":0,"events":[{"type":"snapshot","product_id":"A-B","updates":[{"side":"bid","event_time":"x","price_level":"1","new_quantity":"2"}]}]}"#,
            r#"{"channel":"market_trades","timestamp":"x","sequence_num":1,"events":[{"type":"update","trades":[{"product_id":"A-B","trade_id":"8","price":"10","size":"0.5","time":"2021-04-17T16:48:52.000005999Z","side":"BUY"},{"product_id":"A-B","trade_id":"7","price":"11","size":"0.5","time":"2021-04-17T16:48:52Z","side":"SELL"}]}]}"#,
            "A-B",
            vec![trade("11", "buy", "7", second), trade("10", "sell", "8", first)],
        ),
        (
            "kraken-v1-test",
            r#"[1,{"as":[],"bs":[["1","2","1.0"]]},"book-1000","A/B"]"#,
            r#"[2,[["11.0","0.50","1618678132.000005","b","m",""]],"trade","A/B"]"#,
            "A/B",
            vec![trade("11", "buy", "", first)],
        ),
        (
            "okx-test",
            r#"{"arg":{"channel":"books","instId":"A-B"},"action":"snapshot","data":[{"asks":[],"bids":[["1","2","0","1"]],"ts":"5","checksum":0}]}"#,
            r#"{"arg":{"channel":"trades","instId":"A-B"},"data":[{"instId":"A-B","tradeId":"7","px":"11","sz":"0.5","side":"buy","ts":"1618678132000"}]}"#,
            "A-B",
            vec![trade("11", "buy", "7", second)],
        ),
        (
            "bybit-linear-test",
            r#"{"topic":"orderbook.200.AB","type":"snapshot","ts":5,"data":{"s":"AB","b":[["1","2"]],"a":[],"u":4,"seq":6},"cts":5}"#,
            r#"{"topic":"publicTrade.AB","type":"snapshot","ts":5,"data":[{"T":1618678132000,"s":"AB","S":"Sell","v":"0.5","p":"11","i":"x-y","BT":false,"seq":1}]}"#,
            "AB",
            vec![trade("11", "sell", "x-y", second)],
        ),
        (
            "deribit-test",
            r#"{"jsonrpc":"2.0","method":"subscription","params":{"channel":"book.AB.raw","data":{"type":"snapshot","timestamp":1,"instrument_name":"AB","change_id":5,"bids":[["new",1.0,2.0]],"asks":[]}}}"#,
            r#"{"jsonrpc":"2.0","method":"subscription","params":{"channel":"trades.AB.raw","data":[{"trade_seq":3,"trade_id":"AB-7","timestamp":1618678132000,"price":11.0,"instrument_name":"AB","direction":"sell","amount":0.5}]}}"#,
            "AB",
            vec![trade("11", "sell", "AB-7", second)],
        ),
    ] {
        let expected = expected(name, &[("recv", "ws", book), ("recv", "ws", trades)]);
        assert_eq!(expected.symbols[symbol].trades, read, "{name}");
        assert_eq!(expected.symbols[symbol].rows.len(), 1, "{name}");
    }
}

#[test]
fn what_is_missing_is_named() {
    let gateway = at_12(Depth::Twenty);
    let lacking = gateway.session.lacking();
    assert!(lacking.expected.contains("line 8"), "{lacking}");
    assert!(lacking.got.contains("line 2"), "{lacking}");
}

/// Recordings of the synthetic exchange: every dialect's truth, trades and depth can be told.
#[test]
fn the_synthetic_exchange_of_every_dialect_can_be_judged() {
    for dialect in Dialect::ALL {
        let options = ExchangeOptions::of(dialect, 5, 2, 1_790_000_000_000_000_000);
        let options = options.small(1_000_000);
        let length = Length { duration_ns: 1_000_000_000, messages: u64::MAX };
        let mut writer = Writer::<Vec<u8>, Vec<u8>>::default();
        record::exchange(options, length, &mut writer).unwrap();
        let [lines, states, truth] = writer.into_texts();
        let name = format!("{}-seed5", dialect.in_recordings());
        let recording = Recording::from_text(&name, lines).unwrap();
        let expected = Expected::new(Arc::new(recording)).unwrap();
        let states = states_from_text(str::from_utf8(&states).unwrap()).unwrap();
        expected.compare(&states).unwrap();
        let points = str::from_utf8(&truth).unwrap().lines();
        let points = points.map(|line| serde_json::from_str::<TruthPoint>(line).unwrap());
        // The last ones count all.
        let told: BTreeMap<String, u64> =
            points.map(|point| (point.symbol, point.trades)).collect();
        let read = expected.symbols.iter();
        let read: BTreeMap<String, u64> =
            read.map(|(name, symbol)| (name.clone(), symbol.trades.len() as u64)).collect();
        assert_eq!(read, told, "{name}");
        assert!(told.values().all(|trades| *trades > 10), "{name}");
        if let Some(depth) = Exchange::depth(dialect) {
            assert_eq!(expected.depth(), u32::try_from(depth).ok(), "{name}");
        }
    }
}

/// Of a run whose scenario loses messages, each loss is told by the gateway where the recording says.
#[test]
fn what_a_scenario_loses_is_told_at_its_line() {
    let text =
        "about = \"Two.\"\n[[fault]]\nkind = \"gap\"\nsymbol = 0\nmessage = 150\ncount = 2\n";
    let scenario = Scenario::parse("two", text).unwrap();
    for dialect in [Dialect::BinanceSpot, Dialect::Okx, Dialect::Bitfinex] {
        let name = format!("{}-two", dialect.in_recordings());
        let folder = std::env::temp_dir().join(format!("verify-{name}-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let mut writer = FileWriter::create(&folder, &name).unwrap();
        let options = ExchangeOptions::of(dialect, 1, 2, 1_790_000_000_000_000_000);
        let length = Length { duration_ns: 4_000_000_000, messages: u64::MAX };
        let lost = record::scenario(options.small(5_000_000), &scenario, length, &mut writer);
        let lost = lost.unwrap();
        writer.finish().unwrap();
        assert!(lost.iter().all(|row| row.how.as_deref() == Some("gap")), "{dialect:?}: {lost:?}");
        assert_eq!(lost.len(), 2, "{dialect:?}");
        LostWriter::create(&folder).unwrap().finish(&name, &lost).unwrap();
        let verify = Verify {
            recording: folder.join(format!("{name}.tsv.zst")),
            speed: Speed::Max,
            data: None,
            drop_line: None,
            faults: true,
            binary: false,
            json: false,
        };
        assert!(verify.run().unwrap(), "{dialect:?}");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
