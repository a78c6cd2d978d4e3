//! The golden frames: both encoders write exactly these bytes, and what is read back from either
//! encoding is the same.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use tickfan_core::market::{Aggressor, Level, Nanos, Px, Qty, Scales, State, Trade, TradeId, Why};
use tickfan_core::wire::binary::{Binary, Content, Malformed, RawFrame, Record};
use tickfan_core::wire::json::Json;
use tickfan_core::wire::{Encoder, Frame, FrameHead, Head, Payload, Received, StatsReport, Update};

const FRAMES: &str = include_str!("golden/frames.txt");

/// One block of the file.
struct Golden {
    name: &'static str,
    json: &'static str,
    bytes: Vec<u8>,
}

/// The file, by the words of its README.
fn golden() -> Vec<Golden> {
    let block = |block: &'static str| {
        let mut lines = block.lines();
        let name = lines.next().unwrap().strip_prefix("frame ").unwrap();
        let json = lines.next().unwrap().strip_prefix("json ").unwrap();
        let hex: String =
            lines.map(|line| line.strip_prefix("bin ").unwrap().replace(' ', "")).collect();
        let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        Golden { name, json, bytes: (0..hex.len()).step_by(2).map(byte).collect() }
    };
    FRAMES.trim_end().split("\n\n").map(block).collect()
}

/// All times of the file are a little after this.
const T: Nanos = 1_790_000_000_000_000_000;

const SCALES: Scales = Scales { px: 2, qty: 8 };

/// What most updates of the file say of themselves.
const BOOK: Head = Head {
    view: Some(3),
    state: State::Live,
    epoch: 17,
    s: 1047,
    p: 1040,
    q: Some(160),
    te_ns: T + 1_000,
    tr_ns: T + 2_000,
    to_ns: T + 3_999,
    scales: SCALES,
};

const fn level(px: i64, qty: i64) -> Level {
    Level { px: Px(px), qty: Qty(qty) }
}

const BIDS: &[Level] = &[level(4_528_300, 10_000_000), level(4_528_210, 5)];
const ASKS: &[Level] = &[level(4_528_600, 100_000)];

fn encoded(encoder: &dyn Encoder, head: FrameHead<'_>, updates: &[Update<'_>]) -> Vec<u8> {
    let mut frame = Vec::new();
    encoder.frame_head(&FrameHead { count: updates.len(), ..head }, &mut frame);
    for (i, update) in updates.iter().enumerate() {
        if i > 0 {
            frame.extend_from_slice(encoder.separator());
        }
        encoder.update(update, &mut frame);
    }
    frame.extend_from_slice(encoder.frame_tail());
    frame
}

/// Holds the encoders against the next block of the file, and what a client reads from both.
fn check(golden: &Golden, head: FrameHead<'_>, updates: &[Update<'_>]) {
    let name = golden.name;
    let text = String::from_utf8(encoded(&Json, head, updates)).unwrap();
    assert_eq!(text, golden.json, "{name}");
    let bytes = encoded(&Binary, head, updates);
    assert_eq!(bytes.len(), golden.bytes.len(), "{name}");
    if let Some(at) = (0..bytes.len()).find(|at| bytes[*at] != golden.bytes[*at]) {
        panic!("{name}: byte {at} is {:#04x} instead of {:#04x}", bytes[at], golden.bytes[at]);
    }
    let value: serde_json::Value = serde_json::from_str(golden.json).unwrap();
    let frame: Frame = serde_json::from_str(golden.json).unwrap();
    assert_eq!(serde_json::to_value(&frame.u).unwrap(), value["u"], "{name}: written as read");
    let read = RawFrame::read(&golden.bytes).and_then(|frame| frame.received()).unwrap();
    assert_eq!(read, as_binary_says_it(frame), "{name}");
}

/// A frame without what is in its JSON only.
fn as_binary_says_it(mut frame: Frame) -> Frame {
    frame.late_us = 0;
    for update in &mut frame.u {
        if let Received::Trades { x, .. } = update {
            for (.., id) in x.iter_mut().filter(|(.., id)| id.parse::<u64>().is_err()) {
                id.clear();
            }
        }
    }
    frame
}

#[test]
fn both_encodings_are_what_the_page_says() {
    let golden = golden();
    let mut blocks = golden.iter();
    let mut check_late = |n: u64, ts_ns, late: &[u16], late_ns, updates: &[Update<'_>]| {
        let head = FrameHead { n, ts_ns, count: 0, late, late_ns };
        check(blocks.next().expect("a block for each frame"), head, updates);
    };
    check_late(1, T + 999, &[], 0, &[]);
    let mut check = |n, ts_ns, updates: &[Update<'_>]| check_late(n, ts_ns, &[], 0, updates);

    let head = Head { s: 1040, q: Some(157), tr_ns: T + 2_999, ..BOOK };
    let payload = Payload::Image { bids: BIDS, asks: ASKS, trusted: [None, None] };
    check(812, T + 950_000, &[Update { head, payload }]);
    let head = Head { state: State::Stale, s: 1041, q: None, te_ns: 0, ..BOOK };
    let payload = Payload::Image { bids: BIDS, asks: ASKS, trusted: [None, Some(0)] };
    check(813, T + 951_000, &[Update { head, payload }]);
    let head = Head { epoch: 18, s: 1, q: Some(0), ..BOOK };
    let payload = Payload::Image { bids: &[], asks: &[], trusted: [None, None] };
    check(814, T, &[Update { head, payload }]);
    let head = Head {
        view: Some(u32::MAX),
        state: State::Suspect,
        epoch: u32::MAX,
        s: (1 << 53) - 1,
        q: Some((1 << 53) - 1),
        te_ns: T,
        tr_ns: T,
        scales: Scales { px: 18, qty: 16 },
        ..BOOK
    };
    let payload = Payload::Image {
        bids: &[level(1, i64::MAX), level(-1, 1)],
        asks: &[level(1_000_000_000_000_000_000, 2)],
        trusted: [Some(1), Some(1)],
    };
    check(815, T, &[Update { head, payload }]);

    let payload = Payload::Delta {
        bids: &[level(4_528_300, 0)],
        asks: &[level(4_528_700, 200_000_000), level(4_528_800, 1)],
    };
    check(816, T + 1_000_000, &[Update { head: BOOK, payload }]);

    let bbo = |bid, ask| Payload::Bbo { bid, ask };
    let head = Head { view: Some(4), to_ns: T + 2_000, ..BOOK };
    let finer = Head { view: Some(20), epoch: 1, scales: Scales { px: 3, qty: 0 }, ..head };
    check(
        817,
        T + 1_000_000,
        &[
            Update {
                head: Head { q: Some(161), to_ns: T + 1_500, ..head },
                payload: bbo(Some(BIDS[0]), Some(ASKS[0])),
            },
            Update {
                head: Head { state: State::Suspect, s: 1048, q: None, te_ns: 0, ..head },
                payload: bbo(Some(BIDS[0]), None),
            },
            Update {
                head: Head { state: State::Halted, s: 7, q: Some(1), ..finer },
                payload: bbo(Some(level(-1250, 3)), Some(level(0, 4))),
            },
            Update { head: Head { s: 8, q: Some(2), ..finer }, payload: bbo(None, None) },
        ],
    );

    let trade = |te_ns, px, qty, aggressor, id| Trade { te_ns, px: Px(px), qty, aggressor, id };
    let trades = [
        trade(
            T + 1_000,
            4_528_300,
            Qty(10_000_000),
            Aggressor::Buy,
            TradeId::Number(3_141_592_653),
        ),
        trade(T + 1_999, 4_528_290, Qty(1), Aggressor::Sell, TradeId::Text("a\"b".into())),
        trade(0, 4_528_290, Qty(1), Aggressor::Unknown, TradeId::Number(u64::MAX)),
    ];
    let head = Head { view: Some(5), s: 902, p: 899, to_ns: T + 1_000, ..BOOK };
    check(
        818,
        T + 1_000_000,
        &[
            Update { head, payload: Payload::Trades { trades: &trades, lost: 0 } },
            Update {
                head: Head { s: 905, p: 902, to_ns: T + 2_000, ..head },
                payload: Payload::Trades { trades: &[], lost: 3 },
            },
        ],
    );

    let whys = [
        (Why::Starting, T),
        (Why::Synced, T + 1_000),
        (Why::Crossed, T + 2_999),
        (Why::VenueSilent, T + 3_000),
        (Why::ChecksumMismatch, T + 4_000),
        (Why::Refused, T + 5_000),
        (Why::FeedRestarted, T + 6_000),
    ];
    let states: Vec<_> = State::ALL
        .iter()
        .zip(whys)
        .map(|(state, (why, since_ns))| Update {
            head: Head { state: *state, ..BOOK },
            payload: Payload::State { why, since_ns },
        })
        .collect();
    check(819, T, &states);

    let report = StatsReport {
        every_ms: 1_000,
        p50_us: 90,
        p99_us: 310,
        max_us: 900,
        sent: 840,
        merged: 212,
        late: 1,
        late_gateway: 1,
        late_client: 0,
        feed_age_p50_us: 1_800,
        unsent_bytes: 0,
    };
    check(820, T, &[Update::stats(report)]);
    let report = StatsReport {
        every_ms: 60_000,
        feed_age_p50_us: -1_800,
        unsent_bytes: 65_536,
        ..StatsReport::default()
    };
    check(821, T, &[Update::stats(report)]);

    let head = Head { q: None, te_ns: 0, to_ns: T + 1_000, ..BOOK };
    let updates = [
        Update {
            head: Head { s: 1048, p: 1047, ..head },
            payload: Payload::Delta { bids: &[], asks: &[level(4_528_700, 1)] },
        },
        Update {
            head: Head { view: Some(4), ..head },
            payload: Payload::State { why: Why::Uncrossed, since_ns: T },
        },
        Update { head: Head { view: Some(4), s: 1048, ..head }, payload: bbo(None, Some(ASKS[0])) },
    ];
    check_late(822, T + 60_000_000, &[0, 2], 2_100_001, &updates);

    let updates: Vec<_> = (0..64)
        .map(|i| {
            let time_ns = T + i * 1_000;
            let (s, q) = (2_000 + i, Some(300 + i));
            let head = Head { view: Some(4), s, q, te_ns: time_ns, tr_ns: time_ns, ..BOOK };
            let up = |level: Level| Some(Level { px: Px(level.px.0 + i as i64), ..level });
            Update { head: Head { to_ns: time_ns, ..head }, payload: bbo(up(BIDS[0]), up(ASKS[0])) }
        })
        .collect();
    check_late(823, T + 60_000_000, &[63], 1, &updates);
    assert!(blocks.next().is_none(), "every block is held against something");
}

/// A record as it is encoded from what was read of it.
fn again(record: &Record<'_>) -> Vec<u8> {
    let (bids, asks, trades): (Vec<_>, Vec<_>, Vec<_>);
    let payload = match record.content {
        Content::Image { bids: b, asks: a, trusted } => {
            (bids, asks) = (b.iter().collect(), a.iter().collect());
            Payload::Image { bids: &bids, asks: &asks, trusted }
        }
        Content::Delta { bids: b, asks: a } => {
            (bids, asks) = (b.iter().collect(), a.iter().collect());
            Payload::Delta { bids: &bids, asks: &asks }
        }
        Content::Bbo { bid, ask } => Payload::Bbo { bid, ask },
        Content::Trades { trades: x, lost } => {
            trades = x.iter().collect();
            Payload::Trades { trades: &trades, lost }
        }
        Content::State { why, since_ns } => {
            Payload::State { why: Why::from_name(why).unwrap(), since_ns }
        }
        Content::Stats(report) => Payload::Stats(report),
        Content::Unknown => panic!("a golden frame has no unknown kind"),
    };
    let mut bytes = Vec::new();
    Binary.update(&Update { head: record.head, payload }, &mut bytes);
    bytes
}

#[test]
fn nothing_of_a_record_is_lost_in_reading() {
    for golden in golden() {
        let frame = RawFrame::read(&golden.bytes).unwrap();
        let records: Vec<_> = frame.records().map(Result::unwrap).collect();
        let bytes: Vec<u8> = records.iter().flat_map(again).collect();
        assert_eq!(bytes, golden.bytes[32..], "{}", golden.name);
    }
}

/// Reads all of a frame, in place and as text.
fn read(bytes: &[u8]) -> Result<Frame, Malformed> {
    RawFrame::read(bytes)?.received()
}

#[test]
fn a_frame_that_is_cut_is_an_error() {
    for golden in golden() {
        for length in 0..golden.bytes.len() {
            assert!(read(&golden.bytes[..length]).is_err(), "{}: {length} bytes", golden.name);
        }
    }
}

#[test]
fn a_changed_byte_is_an_error_or_another_frame() {
    for golden in golden() {
        let mut bytes = golden.bytes.clone();
        for at in 0..bytes.len() {
            for flip in [0x01, 0x08, 0x80, 0xff] {
                bytes[at] ^= flip;
                // It must not panic; that it is longer than what came, it cannot be.
                if let Ok(frame) = read(&bytes) {
                    assert!(frame.u.len() * 64 <= bytes.len(), "{}: byte {at}", golden.name);
                }
                bytes[at] ^= flip;
            }
        }
    }
}
