//! `tail` against a gateway that says exactly this: what is printed, and how it ends.

use std::net::TcpListener;
use std::thread;

use tickfan_core::market::{Level, Px, Qty, Scales, State, Why};
use tickfan_core::wire::{FrameHead, Head, Payload as Wire, StatsReport, Update};
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::*;

const HELLO: &str = r#"{"type":"hello","protocol":1,"gateway":"g","session":"s","time":1,
    "limits":{"subscriptions":1,"message_bytes":1,"messages_per_s":1},
    "budgets_ms":[],"depths":[]}"#;
const ACK: &str = r#"{"type":"subscribed","results":[{"symbol":"sim:A","ok":true,"view":3,
    "channel":"book","depth":10,"budget_ms":50,"budget":"infeasible","p99_us":70000,
    "price_scale":2,"qty_scale":8,"epoch":17,"s":1040,"state":"live"}]}"#;
const IMAGE: &str =
    r#"{"t":"image","v":3,"e":17,"s":1040,"state":"live","b":[["100","1"]],"a":[]}"#;
const DELTA: &str =
    r#"{"t":"delta","v":3,"s":1047,"p":1040,"b":[["100","0"],["99.5","1"]],"a":[]}"#;
const STATE: &str = r#"{"t":"state","v":3,"e":17,"state":"stale","why":"venue_silent","since":1}"#;

fn frame(n: u64, updates: &[&str]) -> String {
    let updates = updates.join(",");
    format!(r#"{{"n":{n},"ts":3661000002,"late":[1],"late_us":9,"u":[{updates}]}}"#)
}

struct Told {
    ended: Result<(), String>,
    out: String,
    notes: String,
    /// What the gateway was asked.
    asked: String,
    /// The subprotocol that it was asked for.
    offered: String,
}

/// What `tail` does with a gateway that says all this and then closes.
async fn tail(says: &[&str], change: impl FnOnce(&mut TailOptions)) -> Told {
    tail_of(says.iter().map(|text| Message::text(*text)).collect(), change).await
}

async fn tail_of(says: Vec<Message>, change: impl FnOnce(&mut TailOptions)) -> Told {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut options = TailOptions {
        symbols: vec!["sim:A".to_owned()],
        channel: Channel::Book,
        depth: Depth::Levels(10),
        budget_ms: 50,
        json: false,
        raw: false,
        binary: false,
        count: None,
        stop_after: None,
        url: format!("ws://{}", listener.local_addr().unwrap()),
    };
    change(&mut options);
    let gateway = thread::spawn(move || {
        let mut offered = String::new();
        #[expect(clippy::result_large_err, reason = "the library asks for its own type")]
        let callback = |request: &server::Request, answer| {
            let value = &request.headers()["sec-websocket-protocol"];
            offered = value.to_str().unwrap().to_owned();
            Ok(answer)
        };
        let stream = listener.accept().unwrap().0;
        let mut socket = tungstenite::accept_hdr(stream, callback).unwrap();
        let mut hear = || socket.read().unwrap().into_text().unwrap().to_string();
        assert_eq!(hear(), r#"{"every_ms":1000,"op":"heartbeat"}"#);
        let asked = hear();
        for message in says {
            // A client that has seen enough is gone.
            let _ = socket.send(message);
        }
        let code = CloseCode::Restart;
        let _ = socket.close(Some(CloseFrame { code, reason: "deploy".into() }));
        while socket.read().is_ok() {}
        (asked, offered)
    });
    let (mut out, mut notes) = (Vec::new(), Vec::new());
    let ended = follow(&options, &mut out, &mut notes).await;
    let (asked, offered) = gateway.join().unwrap();
    Told {
        ended: ended.map_err(|error| error.to_string()),
        out: String::from_utf8(out).unwrap(),
        notes: String::from_utf8(notes).unwrap(),
        asked,
        offered,
    }
}

#[tokio::test]
async fn prints_updates_until_the_count() {
    let frames = [frame(1, &[IMAGE]), frame(2, &[STATE, DELTA])];
    let live = STATE.replace("stale", "live");
    let told = tail(&[HELLO, ACK, &frames[0], &frame(2, &[STATE, &live, DELTA])], |options| {
        options.count = Some(4)
    })
    .await;
    assert_eq!(told.ended, Ok(()));
    assert_eq!(
        told.asked,
        r#"{"budget_ms":50,"channel":"book","depth":10,"op":"subscribe","symbols":["sim:A"]}"#
    );
    assert_eq!(
        told.notes,
        "sim:A: book to depth 10 within 50 ms, live; the gateway cannot hold that budget at \
         present (p99 70000 us)\n"
    );
    assert_eq!(
        told.out,
        "01:01:01.000002 sim:A image  100 x 1 | -  1+0 levels, live  age -/- ms\n\
         01:01:01.000002 sim:A state  stale: venue_silent, epoch 17\n\
         01:01:01.000002 sim:A state  live: venue_silent, epoch 17  LATE\n\
         01:01:01.000002 sim:A delta  99.5 x 1 | -  1+0 levels, 2 changed  age -/- ms  \
         merged 6\n"
    );
    // The same in the words of the protocol, and no change while the venue is silent.
    let told = tail(&[HELLO, ACK, &frames[0], &frames[1]], |options| options.json = true).await;
    assert!(told.ended.unwrap_err().starts_with("BROKEN CHAIN in sim:A: prices came while"));
    let expected: String =
        [IMAGE, STATE].map(|update| format!("{{\"symbol\":\"sim:A\",{}\n", &update[1..])).concat();
    assert_eq!(told.out, expected);
}

/// A frame as a gateway encodes it.
fn encoded(encoding: Encoding, n: u64, updates: &[Update<'_>]) -> Message {
    let encoder = encoding.encoder();
    let mut bytes = Vec::new();
    let (ts_ns, late_ns) = (3_661_000_002_000, 9_000);
    let head = FrameHead { n, ts_ns, count: updates.len(), late: &[1], late_ns };
    encoder.frame_head(&head, &mut bytes);
    for (i, update) in updates.iter().enumerate() {
        if i > 0 {
            bytes.extend_from_slice(encoder.separator());
        }
        encoder.update(update, &mut bytes);
    }
    bytes.extend_from_slice(encoder.frame_tail());
    if encoder.is_text() {
        Message::text(String::from_utf8(bytes).unwrap())
    } else {
        Message::binary(bytes)
    }
}

/// Two frames about the view of [`ACK`].
fn told_in(encoding: Encoding) -> Vec<Message> {
    let level = |px, qty| Level { px: Px(px), qty: Qty(qty) };
    let head = Head {
        view: Some(3),
        state: State::Live,
        epoch: 17,
        s: 1040,
        q: Some(1),
        scales: Scales { px: 2, qty: 8 },
        ..Head::NONE
    };
    let bids = [level(10_000, 100_000_000), level(9_900, 1)];
    let image = Wire::Image { bids: &bids, asks: &[], trusted: [None, Some(0)] };
    let gone = [level(10_000, 0)];
    let delta = Wire::Delta { bids: &gone, asks: &[level(10_050, 5)] };
    let state = Wire::State { why: Why::VenueSilent, since_ns: 1_000 };
    vec![
        Message::text(ACK),
        encoded(
            encoding,
            1,
            &[Update { head, payload: image }, Update::stats(StatsReport::default())],
        ),
        encoded(
            encoding,
            2,
            &[
                Update { head: Head { s: 1047, p: 1040, ..head }, payload: delta },
                Update { head: Head { state: State::Stale, ..head }, payload: state },
            ],
        ),
    ]
}

#[tokio::test]
async fn prints_the_same_of_both_encodings() {
    for json in [false, true] {
        let text = tail_of(told_in(Encoding::Json), |options| options.json = json).await;
        let binary = tail_of(told_in(Encoding::Binary), |options| {
            (options.json, options.binary) = (json, true);
        })
        .await;
        assert_eq!(text.offered, "tickfan.json.v1");
        assert_eq!(binary.offered, "tickfan.bin.v1");
        assert_eq!(text.out.lines().count(), 3, "{}", text.out);
        assert_eq!(binary.out, text.out);
        assert_eq!(binary.ended, text.ended);
    }
}

#[tokio::test]
async fn holds_a_gateway_to_the_encoding_that_was_asked_for() {
    let ended = tail_of(told_in(Encoding::Json), |options| options.binary = true).await.ended;
    let expected = "the gateway sent updates in tickfan.json.v1, though it was asked for \
                    tickfan.bin.v1";
    assert_eq!(ended, Err(expected.to_owned()));
    let ended = tail_of(told_in(Encoding::Binary), |_| {}).await.ended.unwrap_err();
    assert!(ended.starts_with("the gateway sent updates in tickfan.bin.v1"), "{ended}");
    let cut = vec![Message::text(ACK), Message::binary(&b"TF\x01"[..])];
    let ended = tail_of(cut, |options| options.binary = true).await.ended;
    let expected = "the gateway sent what is not of protocol 1 (a frame begins with 32 bytes; \
                    3 came): a binary message of 3 bytes";
    assert_eq!(ended, Err(expected.to_owned()));
}

#[tokio::test]
async fn ends_with_words_for_what_went_wrong() {
    let refused = r#"{"type":"subscribed","results":[{"symbol":"sim:NOPE","ok":false,
        "code":"unknown_symbol","message":"no instrument sim:NOPE; did you mean sim:A?"}]}"#;
    let error = r#"{"type":"error","code":"bad_request","message":"no"}"#;
    let future = r#"{"type":"weather","sun":true}"#;
    for (says, expected) in [
        (vec![HELLO, refused], "sim:NOPE: no instrument sim:NOPE; did you mean sim:A?"),
        (vec![HELLO, error], "the gateway answers: no"),
        (vec![HELLO, future], "the gateway closed the connection: 1012 deploy"),
        (
            vec![HELLO, ACK, &frame(2, &[IMAGE])],
            "BROKEN CHAIN in the connection: frame 2 came where 1 was due",
        ),
        (
            vec![HELLO, ACK, &frame(1, &[DELTA])],
            "BROKEN CHAIN in sim:A: an update follows version 1040, but nothing is held",
        ),
        (vec![HELLO, ACK, "hello"], "the gateway sent what is not of protocol 1"),
    ] {
        let ended = tail(&says, |_| {}).await.ended.unwrap_err();
        assert!(ended.starts_with(expected), "{ended}");
    }
}

#[test]
fn options_are_read_and_explained() {
    #[derive(Debug, clap::Parser)]
    struct Cli {
        #[command(flatten)]
        tail: TailOptions,
    }
    let parse = |line: &str| <Cli as clap::Parser>::try_parse_from(line.split(' '));
    let options = parse("tail sim:A sim:B --channel bbo --depth full --count 3").unwrap().tail;
    assert_eq!(options.symbols, ["sim:A", "sim:B"]);
    assert_eq!(
        (options.channel, options.depth, options.count),
        (Channel::Bbo, Depth::Full, Some(3))
    );
    assert_eq!(parse("tail sim:A --depth 11").unwrap().tail.depth, Depth::Levels(20));
    for line in
        ["tail", "tail sim:A --channel boook", "tail sim:A --depth 0", "tail sim:A --count 0"]
    {
        assert!(parse(line).is_err(), "{line}");
    }
}
