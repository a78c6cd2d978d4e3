//! Recordings of the synthetic exchange, in every dialect: the same again, true to the exchange's own
//! books, and the same again when they are replayed and recorded.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use feed_sim::exchange::{Exchange, ExchangeOptions, Preset};
use feed_sim::record::{self, Length};
use feed_sim::recording::{
    self, LostLine, Recording, StateRow, TruthPoint, Writer, Written, states_from_text,
};
use feed_sim::scenario::{Kind, Scenario};
use feed_sim::truth::{Truth, normalise};
use feed_sim::venue::Dialect;
use tickfan_core::market::Side;

fn options(dialect: Dialect, seed: u64) -> ExchangeOptions {
    ExchangeOptions::of(dialect, seed, 3, 1_790_000_000_000_000_000)
}

/// Small books of which every state is told.
fn small(dialect: Dialect) -> ExchangeOptions {
    options(dialect, 1).small(2_000_000)
}

/// Every dialect, with small books and with deep ones of which a timer tells where the venue has one.
fn runs() -> impl Iterator<Item = ExchangeOptions> {
    Dialect::ALL.into_iter().flat_map(|dialect| [small(dialect), options(dialect, 1)])
}

/// A recording in memory: what was written, and the texts of lines, states and expected books.
#[derive(Debug, PartialEq)]
struct Made {
    written: Written,
    texts: [String; 3],
}

fn made(writer: Writer<Vec<u8>, Vec<u8>>) -> Made {
    let written = writer.written();
    Made { written, texts: writer.into_texts().map(|text| String::from_utf8(text).unwrap()) }
}

fn record(options: ExchangeOptions) -> Made {
    let mut writer = Writer::default();
    // A state of a deep book takes long to make.
    let seconds = if options.preset == Preset::Calm { 4 } else { 2 };
    let length = Length { duration_ns: seconds * 1_000_000_000, messages: u64::MAX };
    record::exchange(options, length, &mut writer).unwrap();
    made(writer)
}

fn replayable(dialect: Dialect, made: &Made) -> Recording {
    let name = format!("{}-test", dialect.in_recordings());
    Recording::from_text(&name, made.texts[0].clone()).unwrap()
}

#[test]
fn the_same_seed_is_the_same_recording_and_another_is_not() {
    for options in runs() {
        let made = record(options);
        assert_eq!(made, record(options), "{options:?}");
        assert!(made.written.messages > 50, "{options:?}: {:?}", made.written);
        let other = record(ExchangeOptions { seed: 2, ..options });
        assert_ne!(made.written.digest, other.written.digest, "{options:?}");
    }
}

#[test]
fn a_replay_is_recorded_as_the_same_bytes() {
    for options in runs() {
        let dialect = options.dialect;
        let made_first = record(options);
        let mut writer = Writer::default();
        record::replay(&replayable(dialect, &made_first), &[], &mut writer).unwrap();
        let made_again = made(writer);
        for (first, again) in made_first.texts.iter().zip(&made_again.texts) {
            let differing = first.lines().zip(again.lines()).find(|(first, again)| first != again);
            assert_eq!(differing, None, "{options:?}");
        }
        assert_eq!(made_first, made_again, "{options:?}");
    }
}

/// The states of the recording are the exchange's own; here its words are read by the oracle of the
/// recordings of real venues, which must find the same.
#[test]
fn its_words_tell_the_exchange_s_own_books() {
    for options in runs() {
        let dialect = options.dialect;
        let made = record(options);
        let mut states = states_from_text(&made.texts[1]).unwrap().into_iter();
        let points = made.texts[2].lines().map(|line| serde_json::from_str(line).unwrap());
        let mut points = points.collect::<Vec<TruthPoint>>().into_iter().peekable();
        let mut truth = Truth::new(dialect);
        let lines = replayable(dialect, &made).lines;
        for line in &lines {
            if let Some(changed) = truth.apply_line(line) {
                let book = truth.book(&changed.symbol).unwrap();
                let row = StateRow::of(line.number, &changed.symbol, book.id(), book);
                assert_eq!(states.next(), Some(row), "{options:?}");
            }
            while let Some(point) = points.next_if(|point| point.after_message == line.number) {
                let book = truth.book(&point.symbol).unwrap();
                for (side, told, depth) in [
                    (Side::Bid, point.bids, point.bid_levels),
                    (Side::Ask, point.asks, point.ask_levels),
                ] {
                    let of_book = book.levels(side).map(|l| (normalise(&l.px), normalise(&l.qty)));
                    let told = told.iter().map(|(px, qty)| (normalise(px), normalise(qty)));
                    assert!(of_book.take(20).eq(told), "{dialect:?}: line {}", line.number);
                    assert_eq!(book.depth(side), depth, "{dialect:?}: line {}", line.number);
                }
            }
        }
        assert_eq!((states.next(), points.next()), (None, None), "{options:?}");
    }
}

#[test]
fn it_has_all_that_there_is_to_hear() {
    for dialect in Dialect::ALL {
        let made = record(small(dialect));
        let symbols: BTreeSet<String> =
            Exchange::new(small(dialect)).symbols().map(str::to_owned).collect();
        let states = states_from_text(&made.texts[1]).unwrap();
        let with_states: BTreeSet<String> = states.into_iter().map(|row| row.symbol).collect();
        assert_eq!(with_states, symbols, "{dialect:?}");
        let last: BTreeMap<String, TruthPoint> = made.texts[2]
            .lines()
            .map(|line| serde_json::from_str::<TruthPoint>(line).unwrap())
            .map(|point| (point.symbol.clone(), point))
            .collect();
        assert!(symbols.iter().eq(last.keys()), "{dialect:?}");
        for (symbol, point) in last {
            assert_eq!(point.after_message, made.written.lines, "{dialect:?}: {symbol}");
            assert!(point.trades > 20 && point.book_updates > 100, "{dialect:?}: {point:?}");
        }
        let lines = replayable(dialect, &made).lines;
        let images = lines.iter().filter(|line| line.kind == recording::Kind::Rest).count();
        assert_eq!(images, if dialect.fetches_images() { 3 } else { 0 }, "{dialect:?}");
        let is_heard = |word: &str| {
            lines
                .iter()
                .any(|line| line.kind == recording::Kind::Recv && line.text().contains(word))
        };
        assert!(besides(dialect).is_none_or(is_heard), "{dialect:?}");
    }
}

/// What a venue tells beside its books and trades.
fn besides(dialect: Dialect) -> Option<&'static str> {
    match dialect {
        Dialect::BinanceSpot | Dialect::BinanceUsdm | Dialect::BinanceCoinm => Some("bookTicker"),
        Dialect::Coinbase | Dialect::CoinbaseAdvanced | Dialect::Kraken | Dialect::KrakenV1 => {
            Some("heartbeat")
        }
        Dialect::Bitfinex => Some(r#""cs""#),
        Dialect::Okx | Dialect::BybitSpot | Dialect::BybitLinear | Dialect::Deribit => None,
    }
}

#[test]
fn a_run_ends_with_its_time_or_its_messages() {
    let options = small(Dialect::Okx);
    for (length, messages_max) in [
        (Length { duration_ns: 1_000_000_000, messages: u64::MAX }, u64::MAX),
        // What happens at one moment is not torn apart.
        (Length { duration_ns: u64::MAX, messages: 50 }, 60),
    ] {
        let mut writer = Writer::<Vec<u8>, Vec<u8>>::default();
        record::exchange(options, length, &mut writer).unwrap();
        let made = made(writer);
        let lines = replayable(Dialect::Okx, &made).lines;
        let times: Vec<u64> = lines.iter().map(|line| line.recv_ns - options.start_ns).collect();
        assert!(times.is_sorted());
        assert!((50..=messages_max).contains(&made.written.messages), "{:?}", made.written);
        assert!(times.last() <= Some(&length.duration_ns), "{times:?}");
    }
}

/// A scenario of one fault of this kind, at the first symbol.
fn scenario(kind: Kind) -> Scenario {
    let is_of_symbol = if kind.is_of_symbol() { "symbol = 0\n" } else { "" };
    let when = if kind.is_of_message() { "message = 5\ncount = 3" } else { "at_ms = 300" };
    let takes_count = kind.takes().contains(&"count");
    let when = if takes_count { when } else { when.lines().next().unwrap() };
    let for_ms = if matches!(kind, Kind::Halt | Kind::Delist) { "for_ms = 500" } else { "" };
    let name = kind.name();
    let text =
        format!("about = \"One.\"\n[[fault]]\nkind = \"{name}\"\n{is_of_symbol}{when}\n{for_ms}\n");
    Scenario::parse(name, &text).unwrap()
}

fn record_scenario(
    options: ExchangeOptions,
    scenario: &Scenario,
) -> anyhow::Result<(Made, Vec<LostLine>)> {
    let mut writer = Writer::default();
    let length = Length { duration_ns: 1_500_000_000, messages: u64::MAX };
    let lost = record::scenario(options, scenario, length, &mut writer)?;
    Ok((made(writer), lost))
}

#[test]
fn a_run_with_a_fault_is_recorded_as_the_same_bytes_or_refused() {
    let mut held = BTreeMap::new();
    for (options, kind) in runs().flat_map(|options| Kind::ALL.map(|kind| (options, kind))) {
        let dialect = options.dialect;
        let is_deep = options.preset != Preset::Calm;
        // A state of a deep book takes long to make.
        if is_deep && (kind != Kind::Gap || !matches!(dialect, Dialect::BinanceUsdm | Dialect::Okx))
        {
            continue;
        }
        let (first, lost) = match record_scenario(options, &scenario(kind)) {
            Ok(recorded) => recorded,
            Err(error) => {
                let why = format!("{error:#}");
                let says =
                    ["a recording cannot hold the ", "the "].map(|it| it.to_owned() + kind.name());
                assert!(says.iter().any(|says| why.starts_with(says)), "{options:?}: {why}");
                continue;
            }
        };
        *held.entry(kind.name()).or_insert(0) += 1;
        assert_eq!(lost.len(), if kind == Kind::Gap { 3 } else { 0 }, "{dialect:?} {kind:?}");
        if kind == Kind::Gap {
            // They are lost on the way to a client: the recorder has them all.
            let calm = record_scenario(options, &Scenario::calm()).unwrap().0;
            assert_eq!(first, calm, "{options:?}");
        }
        let mut writer = Writer::default();
        let again = record::replay(&replayable(dialect, &first), &lost, &mut writer).unwrap();
        let again = (made(writer), again);
        for (first, again) in first.texts.iter().zip(&again.0.texts) {
            let differing = first.lines().zip(again.lines()).find(|(one, other)| one != other);
            assert_eq!(differing, None, "{options:?} {kind:?}");
        }
        assert_eq!((first, lost), again, "{options:?} {kind:?}");
    }
    // Coinbase could not tell of a gap; few have other numbers of books, and OKX alone says that
    // nothing changed.
    let expected = [
        ("absent-level", 12),
        ("burst", 12),
        ("clock-step", 12),
        ("crossed", 12),
        ("delist", 12),
        ("gap", 13),
        ("halt", 12),
        ("keep-alive", 1),
        ("numbers-restart", 3),
    ];
    assert_eq!(held.into_iter().collect::<Vec<_>>(), expected);
}

#[test]
fn a_run_that_ends_before_its_scenario_is_refused() {
    let late = "about = \"Late.\"\n[[fault]]\nkind = \"gap\"\nsymbol = 0\nmessage = 1000000\n";
    let error = record_scenario(small(Dialect::Okx), &Scenario::parse("late", late).unwrap());
    let error = format!("{:#}", error.unwrap_err());
    assert!(error.starts_with("the run ended before the gap of scenario late"), "{error}");
}

/// Runs `feed-sim record` of a scenario that loses messages; says whether it succeeded, and what it said.
fn run_to_files(folder: &Path, messages: u64) -> (bool, String) {
    let messages = messages.to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_feed-sim"))
        .args(["record", "--dialect", "okx", "--preset", "calm", "--scenario", "gap"])
        .args(["--seconds", "60", "--messages", &messages, "--out"])
        .arg(folder)
        .output()
        .unwrap();
    (output.status.success(), String::from_utf8(output.stderr).unwrap())
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let named = |entry: fs::DirEntry| {
        (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
    };
    fs::read_dir(folder).unwrap().map(|entry| named(entry.unwrap())).collect()
}

#[test]
fn a_run_that_fails_leaves_no_file_and_none_is_written_over() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("failing-record");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    // It has written lines by then, and only at its end it is known that nothing was lost.
    let (is_done, says) = run_to_files(&folder, 5);
    assert!(!is_done && says.contains("the run ended before "), "{says}");
    assert_eq!(files(&folder), BTreeMap::new());
    let (is_done, says) = run_to_files(&folder, 2_000);
    assert!(is_done, "{says}");
    let whole = files(&folder);
    let name = "okx-gap-seed1";
    let endings = [".states.tsv.zst", ".truth.jsonl", ".tsv.zst"];
    let expected = ["faults.json".to_owned()].into_iter();
    let expected = expected.chain(endings.map(|ending| format!("{name}{ending}")));
    assert!(whole.keys().cloned().eq(expected), "{:?}", whole.keys());
    Recording::open(&folder.join(format!("{name}.tsv.zst"))).unwrap();
    for missing in [".tsv.zst", ".states.tsv.zst", ".truth.jsonl"] {
        // Whichever of them is there, the others are not begun.
        fs::remove_file(folder.join(format!("{name}{missing}"))).unwrap();
        let left = files(&folder);
        let (is_done, says) = run_to_files(&folder, 2_000);
        assert!(!is_done && says.contains("not written over"), "{says}");
        assert_eq!(files(&folder), left);
    }
}
