//! Every fault at every exchange: it happens, it counts itself, and what it does to the bytes is what
//! it says.

use bytes::Bytes;
use tickfan_core::market::Side;

use super::*;
use crate::scenario::library;

const START_NS: u64 = 1_790_000_000_000_000_000;
const SECOND_NS: u64 = 1_000 * MILLI_NS;

fn options(dialect: Dialect) -> ExchangeOptions {
    ExchangeOptions::of(dialect, 7, 2, START_NS).small(5 * MILLI_NS)
}

/// What a client of a venue says to get the books of two symbols.
fn subscribe(dialect: Dialect, symbols: &[String]) -> Vec<String> {
    let quoted = |word: &str| symbols.iter().map(|s| word.replace('$', s)).collect::<Vec<_>>();
    let list = |word: &str| quoted(word).join(",");
    match dialect {
        Dialect::BinanceSpot | Dialect::BinanceUsdm | Dialect::BinanceCoinm => {
            let streams = list(r#""$@depth@100ms""#).to_lowercase();
            vec![format!(r#"{{"method":"SUBSCRIBE","params":[{streams}],"id":1}}"#)]
        }
        Dialect::Coinbase => vec![format!(
            r#"{{"type":"subscribe","product_ids":[{}],"channels":["level2_batch"]}}"#,
            list(r#""$""#)
        )],
        Dialect::CoinbaseAdvanced => vec![format!(
            r#"{{"type":"subscribe","product_ids":[{}],"channel":"level2"}}"#,
            list(r#""$""#)
        )],
        Dialect::Kraken => vec![format!(
            r#"{{"method":"subscribe","params":{{"channel":"book","symbol":[{}],"depth":10}}}}"#,
            list(r#""$""#)
        )],
        Dialect::KrakenV1 => vec![format!(
            r#"{{"event":"subscribe","pair":[{}],"subscription":{{"name":"book","depth":10}}}}"#,
            list(r#""$""#)
        )],
        Dialect::Okx => vec![format!(
            r#"{{"op":"subscribe","args":[{}]}}"#,
            list(r#"{"channel":"books","instId":"$"}"#)
        )],
        Dialect::BybitSpot | Dialect::BybitLinear => {
            vec![format!(r#"{{"op":"subscribe","args":[{}]}}"#, list(r#""orderbook.50.$""#))]
        }
        Dialect::Deribit => vec![format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"public/subscribe","params":{{"channels":[{}]}}}}"#,
            list(r#""book.$.raw""#)
        )],
        Dialect::Bitfinex => {
            quoted(r#"{"event":"subscribe","channel":"book","symbol":"$","len":"100"}"#)
        }
    }
}

/// A client that connects again whenever it is cut off, and fetches images all the time.
struct Client {
    exchange: FaultyExchange,
    now_ns: u64,
    connection: Option<u64>,
    all: Vec<(u64, Act)>,
}

impl Client {
    fn new(dialect: Dialect) -> Self {
        let mut client = Self {
            exchange: FaultyExchange::new(options(dialect)),
            now_ns: START_NS,
            connection: None,
            all: Vec::new(),
        };
        client.run(SECOND_NS / 2);
        client
    }

    fn run(&mut self, for_ns: u64) {
        let until_ns = self.now_ns + for_ns;
        while self.now_ns < until_ns {
            self.now_ns += MILLI_NS;
            self.exchange.advance(self.now_ns);
            if self.connection.is_none() && self.exchange.refuse_connection(self.now_ns).is_none() {
                let path = if self.exchange.dialect.fetches_images() { "/stream" } else { "/" };
                let connection = self.exchange.connect(path, "", self.now_ns);
                for text in subscribe(self.exchange.dialect, &self.exchange.symbols) {
                    self.exchange.hear(connection, &text, self.now_ns);
                }
                self.connection = Some(connection);
                self.fetch();
            }
            self.take();
        }
    }

    fn fetch(&mut self) -> Response {
        let path = match self.exchange.dialect {
            Dialect::BinanceSpot => "/api/v3/depth",
            Dialect::BinanceUsdm => "/fapi/v1/depth",
            _ => "/dapi/v1/depth",
        };
        let query = format!("symbol={}&limit=1000", self.exchange.symbols[0]);
        self.exchange.answer(path, &query, self.now_ns)
    }

    fn take(&mut self) {
        for sent in self.exchange.take_sent() {
            if Some(sent.connection) == self.connection
                && matches!(sent.act, Act::Cut | Act::Close(..))
            {
                self.exchange.disconnect(sent.connection);
                self.connection = None;
            }
            self.all.push((self.now_ns, sent.act));
        }
    }

    /// What came while one fault ran its course.
    fn suffer(&mut self, fault: &str) -> Vec<Act> {
        let from = self.all.len();
        self.exchange.add(Fault::from_json(fault).unwrap(), self.now_ns).unwrap();
        for _ in 0..100 {
            self.run(SECOND_NS / 10);
            if self.exchange.is_over() {
                break;
            }
        }
        assert!(self.exchange.is_over(), "{fault}: {}", self.exchange.report());
        self.all[from..].iter().map(|(_, act)| act.clone()).collect()
    }
}

fn raw(acts: &[Act]) -> Vec<u8> {
    let bytes = acts.iter().filter_map(|act| match act {
        Act::Raw(bytes) => Some(bytes.to_vec()),
        _ => None,
    });
    bytes.collect::<Vec<_>>().concat()
}

#[test]
fn every_scenario_happens_at_every_exchange_or_says_why_not() {
    for dialect in Dialect::ALL {
        for (name, text) in library() {
            let mut client = Client::new(dialect);
            let scenario = Scenario::parse(name, text).unwrap();
            client.exchange.begin(&scenario, client.now_ns).unwrap();
            for _ in 0..40 {
                client.run(SECOND_NS / 10);
                client.fetch();
            }
            assert!(client.exchange.is_over(), "{dialect:?} {name}: {}", client.exchange.report());
            for (kind, happened, why_not) in client.exchange.outcomes() {
                assert!((happened > 0) != why_not.is_some(), "{dialect:?} {name} {kind:?}");
            }
            assert!(client.connection.is_some(), "{dialect:?} {name}");
        }
    }
}

#[test]
fn the_market_is_the_same_with_faults() {
    let books = |scenario: &Scenario| {
        let mut client = Client::new(Dialect::BinanceUsdm);
        client.exchange.begin(scenario, client.now_ns).unwrap();
        client.run(2 * SECOND_NS);
        [0, 1].map(|symbol| client.exchange.exchange().book(symbol).digest())
    };
    let storm = Scenario::load("storm").unwrap();
    assert_eq!(books(&Scenario::calm()), books(&storm));
}

#[test]
fn the_same_calls_give_the_same_acts() {
    let acts = || {
        let mut client = Client::new(Dialect::Okx);
        client.exchange.begin(&Scenario::load("storm").unwrap(), client.now_ns).unwrap();
        client.run(2 * SECOND_NS);
        client.all
    };
    assert_eq!(acts(), acts());
}

#[test]
fn a_frame_is_cut_after_so_many_bytes() {
    let mut client = Client::new(Dialect::BybitSpot);
    for bytes in 0..5 {
        let acts = client.suffer(&format!(r#"{{"kind":"cut","bytes":{bytes}}}"#));
        assert_eq!(raw(&acts).len(), bytes);
        assert_eq!(acts.iter().filter(|act| **act == Act::Cut).count(), 1);
    }
}

#[test]
fn a_message_in_pieces_is_whole() {
    let mut client = Client::new(Dialect::Kraken);
    let text = |payload: &[u8]| serde_json::from_slice::<Value>(payload).unwrap();
    let bytes = raw(&client.suffer(r#"{"kind":"drip","for_ms":200}"#));
    let head = if bytes[1] == 126 { 4 } else { 2 };
    assert_eq!(text(&bytes[head..])["channel"], "book");
    let acts = client.suffer(r#"{"kind":"fragmented"}"#);
    let parts: Vec<&Bytes> = acts
        .iter()
        .filter_map(|act| match act {
            Act::Raw(bytes) if bytes[0] & 0x0f != 9 => Some(bytes),
            _ => None,
        })
        .collect();
    assert_eq!(parts.iter().map(|part| part[0]).collect::<Vec<_>>(), [0x01, 0x00, 0x80]);
    let payload: Vec<u8> = parts.iter().flat_map(|part| part[2..].to_vec()).collect();
    assert_eq!(text(&payload)["channel"], "book");
}

#[test]
fn a_giant_frame_has_the_length_that_it_announces() {
    let mut client = Client::new(Dialect::Kraken);
    let bytes = raw(&client.suffer(r#"{"kind":"giant","bytes":3000000}"#));
    assert_eq!(bytes[..10], [0x81, 127, 0, 0, 0, 0, 0, 0x2d, 0xc6, 0xc0]);
    assert_eq!(bytes.len(), 10 + 3_000_000);
    assert!(serde_json::from_slice::<Value>(&bytes[10..]).is_ok());
}

#[test]
fn a_silence_holds_back_and_loses_nothing() {
    let count = |with: Option<&str>| {
        let mut client = Client::new(Dialect::Okx);
        if let Some(fault) = with {
            client.exchange.add(Fault::from_json(fault).unwrap(), client.now_ns).unwrap();
        }
        client.run(3 * SECOND_NS);
        let longest = client.all.windows(2).map(|two| two[1].0 - two[0].0).max().unwrap();
        let texts: Vec<Act> = client.all.into_iter().map(|(_, act)| act).collect();
        (texts, longest)
    };
    let (plain, _) = count(None);
    let (silent, longest) = count(Some(r#"{"kind":"silence","for_ms":1000}"#));
    assert_eq!(plain, silent);
    assert!(longest >= SECOND_NS, "{longest}");
}

#[test]
fn an_image_lags_or_leads_by_so_many_updates() {
    for updates in [-2_i64, -1, 1, 2] {
        let mut client = Client::new(Dialect::BinanceSpot);
        let before = client.exchange.exchange().version(0);
        let fault = format!(r#"{{"kind":"stale-image","updates":{updates}}}"#);
        client.exchange.add(Fault::from_json(&fault).unwrap(), client.now_ns).unwrap();
        client.exchange.watch(1);
        client.run(SECOND_NS / 5);
        let states = client.exchange.take_states();
        let told = client.exchange.exchange().version(0);
        assert!(told > before + 2);
        let body = client.fetch().reply.body;
        let id = serde_json::from_str::<Value>(&body).unwrap()["lastUpdateId"].as_u64();
        let states = [states, client.exchange.take_states()].concat();
        let of = |version| {
            let is_it = |state: &&State| state.symbol == 0 && state.version == version;
            states.iter().find(is_it).unwrap_or_else(|| panic!("{version}")).id
        };
        assert_eq!(id, Some(of(told.checked_add_signed(-updates).unwrap())), "{updates}");
    }
}

#[test]
fn who_asks_during_a_ban_is_counted() {
    let mut client = Client::new(Dialect::BinanceUsdm);
    let fault = Fault::from_json(r#"{"kind":"ban","for_ms":1500}"#).unwrap();
    client.exchange.add(fault, client.now_ns).unwrap();
    let refused = client.fetch();
    assert_eq!((refused.reply.status, refused.retry_after_s), (418, Some(2)));
    client.run(SECOND_NS / 10);
    client.fetch();
    client.exchange.refusal_is_out(client.now_ns);
    client.fetch();
    assert_eq!(client.exchange.asked_in_ban(), 0, "nobody could know");
    client.run(10 * MILLI_NS);
    assert_eq!(client.fetch().reply.status, 418);
    assert_eq!(client.exchange.asked_in_ban(), 1);
    client.run(2 * SECOND_NS);
    assert_eq!(client.fetch().reply.status, 200);
    assert_eq!(client.exchange.asked_in_ban(), 1);
}

#[test]
fn a_ban_is_of_connections_too_as_each_venue_has_it() {
    for (dialect, status) in [
        (Dialect::BinanceSpot, 418),
        (Dialect::BybitLinear, 403),
        (Dialect::Okx, 429),
        (Dialect::Kraken, 429),
    ] {
        let mut client = Client::new(dialect);
        let fault = Fault::from_json(r#"{"kind":"ban","for_ms":1500}"#).unwrap();
        client.exchange.add(fault, client.now_ns).unwrap();
        if dialect.fetches_images() {
            assert_eq!(client.exchange.refuse_connection(client.now_ns), None, "not yet");
            assert_eq!(client.fetch().reply.status, status);
        }
        let refused = client.exchange.refuse_connection(client.now_ns).unwrap();
        assert_eq!((refused.reply.status, refused.retry_after_s), (status, Some(2)), "{dialect:?}");
        assert_eq!(client.fetch().reply.status, status, "{dialect:?}");
        assert_eq!(client.exchange.asked_in_ban(), 0, "{dialect:?}: nobody could know");
        client.exchange.refusal_is_out(client.now_ns);
        client.run(SECOND_NS);
        assert!(client.exchange.refuse_connection(client.now_ns).is_some(), "{dialect:?}");
        assert_eq!(client.exchange.asked_in_ban(), 1, "{dialect:?}");
        client.run(SECOND_NS);
        assert_eq!(client.exchange.refuse_connection(client.now_ns), None, "{dialect:?}");
        assert_eq!(client.exchange.asked_in_ban(), 1, "{dialect:?}");
    }
}

#[test]
fn too_many_requests_are_no_reason_to_take_no_connection() {
    let mut client = Client::new(Dialect::BinanceSpot);
    let fault = Fault::from_json(r#"{"kind":"rate-limit"}"#).unwrap();
    client.exchange.add(fault, client.now_ns).unwrap();
    assert_eq!(client.fetch().reply.status, 429);
    assert_eq!(client.exchange.refuse_connection(client.now_ns), None);
}

#[test]
fn prices_get_only_so_many_digits() {
    for dialect in Dialect::ALL {
        let mut client = Client::new(dialect);
        let fault = r#"{"kind":"tick-change","symbol":0}"#;
        for more in 0..8 {
            client.suffer(fault);
            assert_eq!(client.exchange.outcomes().nth(more).unwrap().1, 1, "{dialect:?}");
        }
        let list = client.exchange.exchange().instruments("");
        client.suffer(fault);
        let (_, happened, why_not) = client.exchange.outcomes().last().unwrap();
        let why = "prices have as many digits as they can have";
        assert_eq!((happened, why_not), (0, Some(why)), "{dialect:?}");
        assert_eq!(client.exchange.exchange().instruments(""), list, "{dialect:?}");
        client.suffer(r#"{"kind":"tick-change","symbol":1}"#);
        assert_eq!(client.exchange.outcomes().last().unwrap().1, 1, "{dialect:?}: another symbol");
        let version = client.exchange.exchange().version(0);
        client.run(SECOND_NS);
        assert!(client.exchange.exchange().version(0) > version, "{dialect:?}: the market stands");
        let book = client.exchange.exchange().book(0);
        for level in book.levels(Side::Bid).chain(book.levels(Side::Ask)) {
            let whole: i64 = level.px.split('.').next().unwrap().parse().unwrap();
            assert!((1_000..1_000_000).contains(&whole), "{dialect:?}: {}", level.px);
        }
    }
}

#[test]
fn a_report_says_what_happened_when_and_what_cannot() {
    let mut client = Client::new(Dialect::CoinbaseAdvanced);
    client.exchange.begin(&Scenario::load("gap").unwrap(), client.now_ns).unwrap();
    client
        .exchange
        .add(Fault::from_json(r#"{"kind":"stale-image"}"#).unwrap(), client.now_ns)
        .unwrap();
    client.run(2 * SECOND_NS);
    let report = client.exchange.report();
    let [gap, stale] = [0, 1].map(|place| &report["faults"][place]);
    assert_eq!(
        (&gap["kind"], &gap["scheduled"], &gap["happened"]),
        (&json!("gap"), &json!(1), &json!(1))
    );
    assert_eq!(gap["strikes"][0]["symbol"], client.exchange.symbols[0]);
    assert_eq!(stale["happened"], 0);
    assert!(stale["not_applicable"].is_string(), "{stale}");
    let unknown = Fault::from_json(r#"{"kind":"gap","symbol":2}"#).unwrap();
    assert!(client.exchange.add(unknown, client.now_ns).is_err());
}

#[test]
fn what_ends_connections_waits_for_one() {
    for kind in ["cut-all", "close-notice", "maintenance"] {
        let dialect = if kind == "close-notice" { Dialect::Okx } else { Dialect::Kraken };
        let mut exchange = FaultyExchange::new(options(dialect));
        let fault = Fault::from_json(&format!(r#"{{"kind":"{kind}"}}"#)).unwrap();
        exchange.add(fault, START_NS).unwrap();
        exchange.advance(START_NS + SECOND_NS);
        assert_eq!(exchange.outcomes().next().unwrap().1, 0, "{kind}: there was none");
        let connection = exchange.connect("/", "", START_NS + SECOND_NS);
        exchange.advance(START_NS + 3 * SECOND_NS);
        assert_eq!(exchange.outcomes().next().unwrap().1, 1, "{kind}");
        assert!(exchange.is_over(), "{kind}");
        let told: Vec<Sent> = exchange.take_sent();
        assert!(!told.is_empty(), "{kind}");
        assert!(told.iter().all(|sent| sent.connection == connection), "{kind}");
    }
}

#[test]
fn what_has_been_cut_is_not_cut_again() {
    let mut exchange = FaultyExchange::new(options(Dialect::Okx));
    exchange.connect("/", "", START_NS);
    for _ in 0..2 {
        let fault = Fault::from_json(r#"{"kind":"cut-all"}"#).unwrap();
        exchange.add(fault, START_NS).unwrap();
    }
    exchange.advance(START_NS + SECOND_NS);
    let happened: Vec<u64> = exchange.outcomes().map(|(_, happened, _)| happened).collect();
    assert_eq!(happened, [1, 0]);
}

#[test]
fn an_image_is_stale_only_once_the_stream_has_told_of_enough() {
    let mut client = Client {
        exchange: FaultyExchange::new(options(Dialect::BinanceSpot)),
        now_ns: START_NS,
        connection: None,
        all: Vec::new(),
    };
    let fault = Fault::from_json(r#"{"kind":"stale-image","updates":2}"#).unwrap();
    client.exchange.add(fault, START_NS).unwrap();
    let id =
        |body: &str| serde_json::from_str::<Value>(body).unwrap()["lastUpdateId"].as_u64().unwrap();
    let newest = client.exchange.exchange().newest_id(0);
    assert_eq!(id(&client.fetch().reply.body), newest);
    assert_eq!(client.exchange.outcomes().next().unwrap().1, 0, "nothing older was told");
    client.run(SECOND_NS / 2);
    let newest = client.exchange.exchange().newest_id(0);
    assert!(id(&client.fetch().reply.body) < newest);
    assert_eq!(client.exchange.outcomes().next().unwrap().1, 1);
}

#[test]
fn an_image_on_a_stream_is_late_and_nothing_is_that_is_none() {
    let mut exchange = FaultyExchange::new(options(Dialect::Okx));
    let fault = Fault::from_json(r#"{"kind":"late-image","for_ms":500}"#).unwrap();
    exchange.add(fault, START_NS).unwrap();
    let connection = exchange.connect("/", "", START_NS);
    let symbol = exchange.symbols[0].clone();
    let subscribe = |channel: &str, symbol: &str| {
        format!(r#"{{"op":"subscribe","args":[{{"channel":"{channel}","instId":"{symbol}"}}]}}"#)
    };
    let texts = |exchange: &mut FaultyExchange| -> Vec<String> {
        let acts = exchange.take_sent().into_iter().map(|sent| sent.act);
        let text = |act| match act {
            Act::Text(text) => Some(String::from_utf8(text.to_vec()).unwrap()),
            _ => None,
        };
        acts.filter_map(text).collect()
    };
    // Trades have no image, and what there is not has none either.
    exchange.hear(connection, &subscribe("trades", &symbol), START_NS);
    exchange.hear(connection, &subscribe("books", &format!("{symbol}-SWAP")), START_NS);
    assert_eq!(texts(&mut exchange).len(), 2);
    assert_eq!(exchange.outcomes().next().unwrap().1, 0);
    exchange.hear(connection, &subscribe("books", &symbol), START_NS);
    let told = texts(&mut exchange);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains(r#""event":"subscribe""#), "{told:?}");
    assert_eq!(exchange.outcomes().next().unwrap().1, 1);
    exchange.advance(START_NS + SECOND_NS / 2 - 1);
    assert_eq!(texts(&mut exchange), Vec::<String>::new());
    exchange.advance(START_NS + SECOND_NS / 2);
    assert!(texts(&mut exchange)[0].contains(r#""action":"snapshot""#));
}

#[test]
fn a_long_message_drips_to_its_end() {
    let fault = Fault::from_json(r#"{"kind":"drip","for_ms":0}"#).unwrap();
    for length in [1, 100, 1_000, 100_000] {
        let (mut line, text) = (Line::default(), Bytes::from(vec![b'x'; length]));
        line.suffer(&fault, 0, text.clone(), 0, 0);
        let acts: Vec<Act> = std::iter::from_fn(|| line.take_due(u64::MAX)).collect();
        assert!(acts.len() <= 512, "{length}: {} pieces may all be due at once", acts.len());
        assert!(acts.len() > length.min(200), "{length}: {} pieces", acts.len());
        assert!(raw(&acts).ends_with(&text), "{length}");
        assert!(!line.is_ended(), "{length}");
    }
}

#[test]
fn there_are_only_so_many_faults_however_they_came() {
    let mut exchange = FaultyExchange::new(options(Dialect::Okx));
    exchange.prepare(&Scenario::load("storm").unwrap()).unwrap();
    let add = |exchange: &mut FaultyExchange| {
        exchange.add(Fault::from_json(r#"{"kind":"keep-alive"}"#).unwrap(), START_NS)
    };
    let added = std::iter::repeat_with(|| add(&mut exchange)).take(FAULTS_MAX).flatten().count();
    assert!(added < FAULTS_MAX, "those of the scenario count");
    let connection = exchange.connect("/", "", START_NS);
    for text in subscribe(Dialect::Okx, &exchange.symbols.clone()) {
        exchange.hear(connection, &text, START_NS);
    }
    exchange.advance(START_NS + SECOND_NS);
    assert!(exchange.prepared.is_empty(), "the scenario has begun");
    assert!(add(&mut exchange).is_err());
}
