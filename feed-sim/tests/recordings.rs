//! The truth against the recordings' own expected states, row by row; and the replay of them, byte for
//! byte.
//!
//! Needs the recordings, which are not part of this repository: `TICKFAN_RECORDINGS` names their
//! folder. Where it is absent the tests say so and pass, but not in CI.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "support/client.rs"]
mod client;

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use client::{connect, hear, http, say};

use feed_sim::record::{self, Example, Losses};
use feed_sim::recording::{self, Kind, Line, LostLine, Recording, StateRow, Writer};
use feed_sim::replay::{ReplayOptions, Speed, serve};
use feed_sim::truth::Truth;
use feed_sim::venue::{Dialect, kraken, okx};
use serde_json::Value;
use tickfan_core::market::Side;

fn recordings() -> Option<PathBuf> {
    let folder = std::env::var_os("TICKFAN_RECORDINGS").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"),
        PathBuf::from,
    );
    if folder.is_dir() {
        return Some(folder);
    }
    assert!(std::env::var_os("CI").is_none(), "CI needs the recordings");
    eprintln!("skipped: no recordings at {}; set TICKFAN_RECORDINGS", folder.display());
    None
}

/// The recording of USD-M with several symbols.
const USDM_SYMBOLS: &str = "binance-usdm-4sym-20210722";
/// That of Coinbase Exchange.
const COINBASE: &str = "coinbase-exchange-10sym-20210417";

/// One recording of each venue, that of USD-M as named: names and files, if there are any.
fn one_of_each(usdm: &'static str) -> impl Iterator<Item = (&'static str, PathBuf)> {
    let names = [
        "binance-spot-4sym-20211012",
        usdm,
        "bitfinex-7sym-20210417",
        "bybit-linear-4sym-20260809",
        "coinbase-advanced-2sym-20260809",
        COINBASE,
        "deribit-10opt-20210722",
        "kraken-v1-10sym-20210417",
        "kraken-v2-derived-10sym-20210417",
        "okx-3sym-20220513",
    ];
    recordings()
        .into_iter()
        .flat_map(move |folder| names.map(|name| (name, folder.join(format!("{name}.tsv.zst")))))
}

fn every_state_is_reproduced(name: &str) {
    let Some(folder) = recordings() else { return };
    let path = folder.join(format!("{name}.tsv.zst"));
    let recording = Recording::open(&path).unwrap();
    let mut truth = Truth::new(recording.dialect);
    let mut states = recording::states(&path).unwrap().into_iter();
    let mut points = recording::truth_points(&path).unwrap().into_iter().peekable();
    for line in &recording.lines {
        if let Some(changed) = truth.apply_line(line) {
            let book = truth.book(&changed.symbol).unwrap();
            let row = StateRow::of(line.number, &changed.symbol, book.id(), book);
            assert_eq!(Some(row), states.next());
        }
        while let Some(point) = points.next_if(|point| point.after_message == line.number) {
            let book = truth.book(&point.symbol).unwrap();
            assert_eq!(book.depth(Side::Bid), point.bid_levels, "{}", line.number);
            assert_eq!(book.depth(Side::Ask), point.ask_levels, "{}", line.number);
        }
    }
    assert_eq!(states.next(), None);
    assert_eq!(points.next(), None);
}

/// Where a venue that has images fetched has them.
const fn depth_root(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::BinanceUsdm => "/fapi/v1",
        Dialect::BinanceCoinm => "/dapi/v1",
        _ => "/api/v3",
    }
}

/// Plays the recording at full speed to one client that subscribed to everything in it.
fn the_whole_of_it_arrives(name: &str) {
    let Some(folder) = recordings() else { return };
    let recording = Arc::new(Recording::open(&folder.join(format!("{name}.tsv.zst"))).unwrap());
    let sent: Vec<&str> = recording
        .lines
        .iter()
        .filter(|line| line.kind == Kind::Recv)
        .map(|line| line.text())
        .filter(|text| !text.contains(r#""method":"#) && !text.contains(r#""channel":"status""#))
        .collect();
    let options = ReplayOptions { speed: Speed::Max, hold: true, ..ReplayOptions::default() };
    let served = Arc::clone(&recording);
    let address = client::background(move |listener| serve(listener, served, options));
    let mut socket = connect(address, "/stream");
    let images: Vec<_> = recording.lines.iter().filter(|line| line.kind == Kind::Rest).collect();
    if recording.dialect == Dialect::Kraken {
        hear(&mut socket);
        let symbols: BTreeSet<_> = sent
            .iter()
            .filter_map(|text| {
                let message: Value = serde_json::from_str(text).unwrap();
                Some(message["data"][0]["symbol"].as_str()?.to_owned())
            })
            .collect();
        for channel in ["book", "trade", "ticker"] {
            let request = serde_json::json!({ "method": "subscribe", "params":
                { "channel": channel, "symbol": symbols, "depth": 1000 } });
            say(&mut socket, &request.to_string());
            for _ in &symbols {
                let ack = hear(&mut socket);
                assert!(ack.contains(r#""success":true"#), "{ack}");
            }
        }
    } else {
        let streams: BTreeSet<_> = sent
            .iter()
            .map(|text| serde_json::from_str::<Value>(text).unwrap()["stream"].to_string())
            .map(|quoted| quoted.trim_matches('"').to_owned())
            .collect();
        let request = serde_json::json!({ "method": "SUBSCRIBE", "params": streams, "id": 1 });
        say(&mut socket, &request.to_string());
        hear(&mut socket);
    }
    let root = depth_root(recording.dialect);
    let fetch = |symbol: &str| {
        let target = format!("{root}/depth?symbol={symbol}&limit=1000");
        std::thread::spawn(move || http(address, "GET", &target))
    };
    let fetched: Vec<_> = images.iter().map(|line| fetch(line.rest_symbol().unwrap())).collect();
    assert_eq!(http(address, "POST", "/replay/start").0, 200);
    for (index, text) in sent.iter().enumerate() {
        assert_eq!(hear(&mut socket), *text, "message {index}");
    }
    for (fetched, line) in fetched.into_iter().zip(images) {
        assert_eq!(fetched.join().unwrap(), (200, line.text().to_owned()));
    }
}

/// What a connection is told, without what is that connection's own: the numbers of its channels and
/// of its messages, which are checked on the way.
#[derive(Default)]
struct Plain {
    channels: HashMap<u64, String>,
    number: Option<u64>,
}

impl Plain {
    /// `None` for what concerns the connection only.
    fn text(&mut self, dialect: Dialect, text: &str) -> Option<String> {
        let value: Value = serde_json::from_str(text).unwrap();
        match dialect {
            Dialect::CoinbaseAdvanced => {
                let number = value["sequence_num"].as_u64().unwrap();
                self.count(number);
                let field = format!(r#""sequence_num":{number},"#);
                (value["channel"] != "subscriptions").then(|| text.replace(&field, ""))
            }
            Dialect::Bitfinex => {
                if value["event"] == "subscribed" {
                    let channel = format!("{} {}", value["channel"], value["symbol"]);
                    self.channels.insert(value["chanId"].as_u64().unwrap(), channel);
                }
                let list = value.as_array()?;
                self.count(list.last().unwrap().as_u64().unwrap());
                let channel = &self.channels[&list[0].as_u64().unwrap()];
                let content = text.split_once(',').unwrap().1.rsplit_once(',').unwrap().0;
                Some(format!("{channel} {content}"))
            }
            Dialect::KrakenV1 if value.is_array() => {
                Some(text.split_once(',').unwrap().1.to_owned())
            }
            Dialect::KrakenV1 => (value["event"] == "heartbeat").then(|| text.to_owned()),
            Dialect::Coinbase => (value["type"] != "subscriptions").then(|| text.to_owned()),
            Dialect::Okx => value.get("event").is_none().then(|| text.to_owned()),
            Dialect::BybitLinear => value.get("success").is_none().then(|| text.to_owned()),
            Dialect::Deribit => value.get("id").is_none().then(|| text.to_owned()),
            _ => unreachable!("read otherwise"),
        }
    }

    fn count(&mut self, number: u64) {
        assert!(
            self.number.is_none_or(|last| number == last + 1),
            "{number} after {:?}",
            self.number
        );
        self.number = Some(number);
    }
}

fn of_kind(recording: &Recording, kind: Kind) -> impl Iterator<Item = &Line> {
    recording.lines.iter().filter(move |line| line.kind == kind)
}

fn play(recording: &Arc<Recording>, speed: Speed) -> SocketAddr {
    let options = ReplayOptions { speed, hold: true, ..ReplayOptions::default() };
    let served = Arc::clone(recording);
    client::background(move |listener| serve(listener, served, options))
}

fn wait_for(address: SocketAddr, what: &str) {
    while !http(address, "GET", "/replay").1.contains(what) {
        std::thread::yield_now();
    }
}

/// Plays the recording at full speed to a client that asks for what the recorder asked for, all on one
/// connection: it is told the same, in the same order.
fn what_was_asked_for_arrives(name: &str, subscriptions: usize) {
    let Some(folder) = recordings() else { return };
    let recording = Arc::new(Recording::open(&folder.join(format!("{name}.tsv.zst"))).unwrap());
    let dialect = recording.dialect;
    let mut plain = Plain::default();
    if dialect == Dialect::Bitfinex {
        // Two channels speak before they are acknowledged.
        for line in of_kind(&recording, Kind::Recv).filter(|l| l.text().contains("subscribed")) {
            plain.text(dialect, line.text());
        }
    }
    let sent: Vec<String> = of_kind(&recording, Kind::Recv)
        .filter_map(|line| plain.text(dialect, line.text()))
        .collect();
    let address = play(&recording, Speed::Max);
    let mut socket = connect(address, "/");
    for line in of_kind(&recording, Kind::Send) {
        say(&mut socket, line.text());
    }
    wait_for(address, &format!(r#""subscriptions":{subscriptions}}}"#));
    assert_eq!(http(address, "POST", "/replay/start").0, 200);
    let mut plain = Plain::default();
    for (index, expected) in sent.iter().enumerate() {
        let heard = loop {
            if let Some(text) = plain.text(dialect, &hear(&mut socket)) {
                break text;
            }
        };
        assert!(heard == *expected, "message {index}: {:.200} instead of {expected:.200}", heard);
    }
}

/// Who subscribes when all is over is sent every book as it is then, in words that can be read.
fn the_last_books_are_sent_afresh(name: &str) {
    let Some(folder) = recordings() else { return };
    let recording = Arc::new(Recording::open(&folder.join(format!("{name}.tsv.zst"))).unwrap());
    let mut truth = Truth::new(recording.dialect);
    let mut symbols = BTreeSet::new();
    for line in &recording.lines {
        symbols.extend(truth.apply_line(line).map(|changed| changed.symbol));
    }
    let address = play(&recording, Speed::X(u32::MAX));
    assert_eq!(http(address, "POST", "/replay/start").0, 200);
    wait_for(address, "ended");
    let mut socket = connect(address, "/");
    for line in of_kind(&recording, Kind::Send) {
        say(&mut socket, line.text());
    }
    let mut fresh = Truth::new(recording.dialect);
    while symbols.iter().any(|symbol| fresh.book(symbol).is_none()) {
        let text = format!("0\trecv\tws\t{}", hear(&mut socket));
        let heard = Recording::from_text(name, text).unwrap();
        fresh.apply_line(&heard.lines[0]);
    }
    for symbol in symbols {
        let (fresh, book) = (fresh.book(&symbol).unwrap(), truth.book(&symbol).unwrap());
        assert_eq!(fresh.digest(), book.digest(), "{symbol}");
        assert_eq!(fresh.order(), book.order(), "{symbol}");
        let is_numbered_by_connection =
            matches!(recording.dialect, Dialect::CoinbaseAdvanced | Dialect::Bitfinex);
        assert!(is_numbered_by_connection || fresh.id() == book.id(), "{symbol}");
    }
}

/// Recorded again from its replay, a recording of a real venue has the states that it had.
#[test]
fn the_states_are_the_same_when_it_is_recorded_again() {
    for (name, path) in one_of_each(USDM_SYMBOLS) {
        let mut writer = Writer::<Vec<u8>, Vec<u8>>::default();
        record::replay(&Recording::open(&path).unwrap(), &[], &mut writer).unwrap();
        let [_, again, _] = writer.into_texts();
        let again = recording::states_from_text(str::from_utf8(&again).unwrap()).unwrap();
        assert_eq!(by_symbol(again), by_symbol(recording::states(&path).unwrap()), "{name}");
    }
}

#[test]
fn what_replay_says_to_try_brings_what_was_recorded() {
    for (name, path) in one_of_each("binance-usdm-btcusdt-20240808") {
        let recording = Recording::open(&path).unwrap();
        let example = Example::of_recording(&recording);
        let served = Arc::new(recording.clone());
        // As fast as this client takes it.
        let options = ReplayOptions { speed: Speed::Max, ..ReplayOptions::default() };
        let address = client::background(move |listener| serve(listener, served, options));
        let mut socket = connect(address, &example.target);
        if let Some(request) = &example.request {
            say(&mut socket, request);
        }
        if recording.dialect.fetches_images() {
            // Without it nothing goes on, as for any client of that venue.
            let root = depth_root(recording.dialect);
            for symbol in recording.lines.iter().filter_map(Line::rest_symbol) {
                let target = format!("{root}/depth?symbol={symbol}&limit=1000");
                std::thread::spawn(move || http(address, "GET", &target));
            }
        }
        let mut truth = Truth::new(recording.dialect);
        let is_of_book = |text: String| {
            let event = recording.dialect.fetches_images() && text.contains("depthUpdate");
            let line = Line {
                number: 1,
                recv_ns: 0,
                kind: Kind::Recv,
                stream: String::new(),
                payload: text.into(),
            };
            truth.apply_line(&line).is_some() || event
        };
        let heard = std::iter::repeat_with(|| hear(&mut socket)).take(2_000).any(is_of_book);
        assert!(heard, "{name}: {example:?}");
    }
}

/// Where a loss can first be known is what others found in the recordings of real venues.
#[test]
fn a_loss_is_proved_where_it_was_found_to_be() {
    // Coinbase could not tell of one.
    let told = |(name, _): &(&str, PathBuf)| *name != COINBASE;
    for (name, path) in one_of_each(USDM_SYMBOLS).filter(told) {
        let recording = Recording::open(&path).unwrap();
        let found = recording::lost_lines(&path).unwrap();
        assert!(found.len() >= 3, "{name}");
        let mut losses = Losses::new(recording.dialect);
        for line in &recording.lines {
            losses.line(line, found.iter().any(|row| row.drop_line == line.number));
        }
        let named = |row| LostLine { recording: name.to_owned(), ..row };
        let ours: Vec<LostLine> = losses.into_rows().into_iter().map(named).collect();
        assert_eq!(ours, found, "{name}");
    }
}

/// The checksums of each symbol's states, in order: lines and numbers of a connection are others.
fn by_symbol(rows: Vec<StateRow>) -> HashMap<String, Vec<u32>> {
    let mut states: HashMap<String, Vec<u32>> = HashMap::new();
    for row in rows {
        states.entry(row.symbol).or_default().push(row.crc_top20);
    }
    states
}

/// Every checksum that the venue sent is that of the true book after it.
fn every_checksum_is_right(name: &str, count: usize, sent: fn(&Value) -> Option<i64>) {
    let Some(folder) = recordings() else { return };
    let recording = Recording::open(&folder.join(format!("{name}.tsv.zst"))).unwrap();
    let mut truth = Truth::new(recording.dialect);
    let mut checked = 0;
    for line in &recording.lines {
        let Some(changed) = truth.apply_line(line) else { continue };
        let Some(expected) = sent(&serde_json::from_str(line.text()).unwrap()) else { continue };
        let book = truth.book(&changed.symbol).unwrap();
        let checksum = match recording.dialect {
            Dialect::Okx => i64::from(okx::checksum(book)),
            _ => i64::from(kraken::checksum(book)),
        };
        assert_eq!(checksum, expected, "line {}", line.number);
        checked += 1;
    }
    assert_eq!(checked, count);
}

#[test]
fn okx_checksums() {
    every_checksum_is_right("okx-3sym-20220513", 290, |message| {
        message["data"][0]["checksum"].as_i64()
    });
}

#[test]
fn kraken_v1_checksums() {
    every_checksum_is_right("kraken-v1-10sym-20210417", 4_269, |message| {
        let mut objects = message.as_array()?.iter().filter_map(|part| part.get("c")?.as_str());
        objects.next_back()?.parse().ok()
    });
}

#[test]
fn binance_spot_4sym_arrives() {
    the_whole_of_it_arrives("binance-spot-4sym-20211012");
}

#[test]
fn binance_usdm_btcusdt_arrives() {
    the_whole_of_it_arrives("binance-usdm-btcusdt-20240808");
}

#[test]
fn binance_coinm_btcusdperp_arrives() {
    the_whole_of_it_arrives("binance-coinm-btcusdperp-20240808");
}

#[test]
fn kraken_v2_derived_10sym_arrives() {
    the_whole_of_it_arrives("kraken-v2-derived-10sym-20210417");
}

#[test]
fn binance_spot_btcusdt() {
    every_state_is_reproduced("binance-spot-btcusdt-20240808");
}

#[test]
fn binance_spot_4sym() {
    every_state_is_reproduced("binance-spot-4sym-20211012");
}

#[test]
fn binance_usdm_btcusdt() {
    every_state_is_reproduced("binance-usdm-btcusdt-20240808");
}

#[test]
fn binance_usdm_4sym() {
    every_state_is_reproduced("binance-usdm-4sym-20210722");
}

#[test]
fn binance_coinm_btcusdperp() {
    every_state_is_reproduced("binance-coinm-btcusdperp-20240808");
}

#[test]
fn kraken_v2_derived_10sym() {
    every_state_is_reproduced("kraken-v2-derived-10sym-20210417");
}

#[test]
fn coinbase_exchange_10sym_arrives() {
    what_was_asked_for_arrives("coinbase-exchange-10sym-20210417", 30);
}

#[test]
fn coinbase_exchange_10sym_is_sent_afresh() {
    the_last_books_are_sent_afresh("coinbase-exchange-10sym-20210417");
}

#[test]
fn coinbase_exchange_10sym() {
    every_state_is_reproduced("coinbase-exchange-10sym-20210417");
}

#[test]
fn coinbase_advanced_2sym_arrives() {
    what_was_asked_for_arrives("coinbase-advanced-2sym-20260809", 8);
}

#[test]
fn coinbase_advanced_2sym_is_sent_afresh() {
    the_last_books_are_sent_afresh("coinbase-advanced-2sym-20260809");
}

#[test]
fn coinbase_advanced_2sym() {
    every_state_is_reproduced("coinbase-advanced-2sym-20260809");
}

#[test]
fn kraken_v1_10sym_arrives() {
    what_was_asked_for_arrives("kraken-v1-10sym-20210417", 30);
}

#[test]
fn kraken_v1_10sym_is_sent_afresh() {
    the_last_books_are_sent_afresh("kraken-v1-10sym-20210417");
}

#[test]
fn kraken_v1_10sym() {
    every_state_is_reproduced("kraken-v1-10sym-20210417");
}

#[test]
fn okx_3sym_arrives() {
    what_was_asked_for_arrives("okx-3sym-20220513", 9);
}

#[test]
fn okx_3sym_is_sent_afresh() {
    the_last_books_are_sent_afresh("okx-3sym-20220513");
}

#[test]
fn okx_3sym() {
    every_state_is_reproduced("okx-3sym-20220513");
}

#[test]
fn bybit_linear_4sym_arrives() {
    what_was_asked_for_arrives("bybit-linear-4sym-20260809", 20);
}

#[test]
fn bybit_linear_4sym_is_sent_afresh() {
    the_last_books_are_sent_afresh("bybit-linear-4sym-20260809");
}

#[test]
fn bybit_linear_4sym() {
    every_state_is_reproduced("bybit-linear-4sym-20260809");
}

#[test]
fn deribit_10opt_arrives() {
    what_was_asked_for_arrives("deribit-10opt-20210722", 30);
}

#[test]
fn deribit_10opt_is_sent_afresh() {
    the_last_books_are_sent_afresh("deribit-10opt-20210722");
}

#[test]
fn deribit_10opt() {
    every_state_is_reproduced("deribit-10opt-20210722");
}

#[test]
fn bitfinex_7sym_arrives() {
    what_was_asked_for_arrives("bitfinex-7sym-20210417", 21);
}

#[test]
fn bitfinex_7sym_is_sent_afresh() {
    the_last_books_are_sent_afresh("bitfinex-7sym-20210417");
}

#[test]
fn bitfinex_7sym() {
    every_state_is_reproduced("bitfinex-7sym-20210417");
}
