//! The encoding `tickfan.json.v1`: data frames as JSON text.
//!
//! Written by hand because it is the hot path of the shards: no intermediate tree, no allocation.
//! A client reads them with a JSON parser, as [`super::Frame`] does.

use super::{Encoder, FrameHead, Head, NANOS_PER_MICRO, Payload, StatsReport, Update};
use crate::decimal::{write_decimal, write_integer};
use crate::market::{Aggressor, Level, Nanos, Scales, Trade, TradeId};

/// The encoder of `tickfan.json.v1`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Json;

impl Encoder for Json {
    fn subprotocol(&self) -> &'static str {
        "tickfan.json.v1"
    }

    fn is_text(&self) -> bool {
        true
    }

    fn update(&self, update: &Update<'_>, out: &mut Vec<u8>) {
        let head = &update.head;
        match update.payload {
            Payload::Image { bids, asks, trusted } => {
                open("image", head, out);
                field("e", u64::from(head.epoch), out);
                field("s", head.s, out);
                sequence(head, out);
                times(head, false, out);
                text_field("state", head.state.name(), out);
                sides(bids, asks, head.scales, out);
                if trusted != [None, None] {
                    out.extend_from_slice(b",\"trusted\":[");
                    write_integer(trusted[0].unwrap_or(bids.len()) as u64, out);
                    out.push(b',');
                    write_integer(trusted[1].unwrap_or(asks.len()) as u64, out);
                    out.push(b']');
                }
            }
            Payload::Delta { bids, asks } => {
                open("delta", head, out);
                field("s", head.s, out);
                field("p", head.p, out);
                sequence(head, out);
                times(head, true, out);
                sides(bids, asks, head.scales, out);
            }
            Payload::Bbo { bid, ask } => {
                open("bbo", head, out);
                field("s", head.s, out);
                sequence(head, out);
                times(head, true, out);
                for (key, best) in [(",\"b\":", bid), (",\"a\":", ask)] {
                    out.extend_from_slice(key.as_bytes());
                    match best {
                        Some(best) => level(best, head.scales, out),
                        None => out.extend_from_slice(b"null"),
                    }
                }
            }
            Payload::Trades { trades, lost } => {
                open("trades", head, out);
                field("s", head.s, out);
                field("p", head.p, out);
                if lost > 0 {
                    field("lost", lost, out);
                }
                known_time("tr", head.tr_ns, out);
                known_time("to", head.to_ns, out);
                out.extend_from_slice(b",\"x\":[");
                for (i, one) in trades.iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    trade(one, head.scales, out);
                }
                out.push(b']');
            }
            Payload::State { why, since_ns } => {
                open("state", head, out);
                field("e", u64::from(head.epoch), out);
                text_field("state", head.state.name(), out);
                text_field("why", why.name(), out);
                field("since", since_ns / NANOS_PER_MICRO, out);
            }
            Payload::Stats(report) => stats(&report, out),
        }
        out.push(b'}');
    }

    fn separator(&self) -> &'static [u8] {
        b","
    }

    fn frame_head(&self, head: &FrameHead<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"n\":");
        write_integer(head.n, out);
        field("ts", head.ts_ns / NANOS_PER_MICRO, out);
        if !head.late.is_empty() {
            out.extend_from_slice(b",\"late\":[");
            for (i, index) in head.late.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write_integer(u64::from(*index), out);
            }
            out.push(b']');
            field("late_us", head.late_ns.div_ceil(NANOS_PER_MICRO), out);
        }
        out.extend_from_slice(b",\"u\":[");
    }

    fn frame_tail(&self) -> &'static [u8] {
        b"]}"
    }
}

fn open(kind: &str, head: &Head, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"t\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.push(b'"');
    if let Some(view) = head.view {
        field("v", u64::from(view), out);
    }
}

fn field(key: &str, value: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(b"\":");
    write_integer(value, out);
}

fn text_field(key: &str, value: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(b"\":\"");
    out.extend_from_slice(value.as_bytes());
    out.push(b'"');
}

fn sequence(head: &Head, out: &mut Vec<u8>) {
    if let Some(q) = head.q {
        field("q", q, out);
    }
}

fn known_time(key: &str, time_ns: Nanos, out: &mut Vec<u8>) {
    if time_ns != 0 {
        field(key, time_ns / NANOS_PER_MICRO, out);
    }
}

fn times(head: &Head, oldest: bool, out: &mut Vec<u8>) {
    known_time("te", head.te_ns, out);
    known_time("tr", head.tr_ns, out);
    if oldest {
        known_time("to", head.to_ns, out);
    }
}

fn decimal(mantissa: i64, scale: u8, out: &mut Vec<u8>) {
    out.push(b'"');
    write_decimal(mantissa, scale, out);
    out.push(b'"');
}

fn level(level: Level, scales: Scales, out: &mut Vec<u8>) {
    out.push(b'[');
    decimal(level.px.0, scales.px, out);
    out.push(b',');
    decimal(level.qty.0, scales.qty, out);
    out.push(b']');
}

fn sides(bids: &[Level], asks: &[Level], scales: Scales, out: &mut Vec<u8>) {
    for (key, levels) in [(",\"b\":[", bids), (",\"a\":[", asks)] {
        out.extend_from_slice(key.as_bytes());
        for (i, one) in levels.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            level(*one, scales, out);
        }
        out.push(b']');
    }
}

fn stats(report: &StatsReport, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"t\":\"stats\"");
    field("every_ms", report.every_ms, out);
    field("p50_us", report.p50_us, out);
    field("p99_us", report.p99_us, out);
    field("max_us", report.max_us, out);
    field("sent", report.sent, out);
    field("merged", report.merged, out);
    field("late", report.late, out);
    field("late_gateway", report.late_gateway, out);
    field("late_client", report.late_client, out);
    out.extend_from_slice(b",\"feed_age_p50_us\":");
    if report.feed_age_p50_us < 0 {
        out.push(b'-');
    }
    write_integer(report.feed_age_p50_us.unsigned_abs(), out);
    field("unsent_bytes", report.unsent_bytes, out);
}

fn trade(trade: &Trade, scales: Scales, out: &mut Vec<u8>) {
    out.push(b'[');
    write_integer(trade.te_ns / NANOS_PER_MICRO, out);
    out.push(b',');
    decimal(trade.px.0, scales.px, out);
    out.push(b',');
    decimal(trade.qty.0, scales.qty, out);
    out.extend_from_slice(match trade.aggressor {
        Aggressor::Unknown => b",\"\",",
        Aggressor::Buy => b",\"buy\",",
        Aggressor::Sell => b",\"sell\",",
    });
    match &trade.id {
        TradeId::Number(id) => {
            out.push(b'"');
            write_integer(*id, out);
            out.push(b'"');
        }
        // The text is the venue's: it may need escapes.
        TradeId::Text(id) => {
            out.extend_from_slice(serde_json::Value::from(&**id).to_string().as_bytes());
        }
    }
    out.push(b']');
}

#[cfg(test)]
mod tests {
    use super::super::{Frame, Received};
    use super::*;
    use crate::market::{Px, Qty, State, Why};

    const HEAD: Head = Head {
        view: Some(3),
        state: State::Live,
        epoch: 17,
        s: 1047,
        p: 1040,
        q: Some(160),
        te_ns: 1_790_000_000_000_001_000,
        tr_ns: 1_790_000_000_000_002_000,
        to_ns: 1_790_000_000_000_003_999,
        scales: Scales { px: 2, qty: 8 },
    };

    fn level(px: i64, qty: i64) -> Level {
        Level { px: Px(px), qty: Qty(qty) }
    }

    fn encoded(head: Head, payload: Payload<'_>) -> String {
        let mut out = Vec::new();
        Json.update(&Update { head, payload }, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn golden_updates() {
        let bid = level(4_528_300, 10_000_000);
        let ask = level(4_528_600, 100_000);
        assert_eq!(
            encoded(HEAD, Payload::Image { bids: &[bid], asks: &[ask], trusted: [None, Some(0)] }),
            r#"{"t":"image","v":3,"e":17,"s":1047,"q":160,"te":1790000000000001,"tr":1790000000000002,"state":"live","b":[["45283","0.1"]],"a":[["45286","0.001"]],"trusted":[1,0]}"#
        );
        assert_eq!(
            encoded(HEAD, Payload::Delta { bids: &[level(4_528_300, 0)], asks: &[] }),
            r#"{"t":"delta","v":3,"s":1047,"p":1040,"q":160,"te":1790000000000001,"tr":1790000000000002,"to":1790000000000003,"b":[["45283","0"]],"a":[]}"#
        );
        let unknown = Head { view: None, q: None, te_ns: 0, ..HEAD };
        assert_eq!(
            encoded(unknown, Payload::Bbo { bid: Some(bid), ask: None }),
            r#"{"t":"bbo","s":1047,"tr":1790000000000002,"to":1790000000000003,"b":["45283","0.1"],"a":null}"#
        );
        let trade = Trade {
            te_ns: 1_790_000_000_000_000_000,
            px: Px(4_528_300),
            qty: Qty(1),
            aggressor: Aggressor::Sell,
            id: TradeId::Text("a\"b".into()),
        };
        assert_eq!(
            encoded(HEAD, Payload::Trades { trades: &[trade], lost: 2 }),
            r#"{"t":"trades","v":3,"s":1047,"p":1040,"lost":2,"tr":1790000000000002,"to":1790000000000003,"x":[[1790000000000000,"45283","0.00000001","sell","a\"b"]]}"#
        );
        assert_eq!(
            encoded(
                Head { state: State::Stale, ..HEAD },
                Payload::State { why: Why::VenueSilent, since_ns: 5_000 }
            ),
            r#"{"t":"state","v":3,"e":17,"state":"stale","why":"venue_silent","since":5}"#
        );
    }

    #[test]
    fn a_frame_reads_back() {
        let mut frame = Vec::new();
        let head = FrameHead { n: 812, ts_ns: 5_000, count: 2, late: &[0], late_ns: 2_100_001 };
        Json.frame_head(&head, &mut frame);
        frame.extend_from_slice(
            encoded(HEAD, Payload::Delta { bids: &[level(1, 0)], asks: &[] }).as_bytes(),
        );
        frame.extend_from_slice(Json.separator());
        frame.extend_from_slice(b"{\"t\":\"of the future\",\"v\":1}");
        frame.extend_from_slice(Json.frame_tail());
        let read: Frame = serde_json::from_slice(&frame).unwrap();
        assert_eq!((read.n, read.ts, read.late_us), (812, 5, 2101));
        assert_eq!(read.late, [0]);
        assert!(matches!(&read.u[0], Received::Delta { s: 1047, p: 1040, b, .. }
            if b == &[("0.01".to_owned(), "0".to_owned())]));
        assert_eq!(read.u[1], Received::Unknown);
    }
}
