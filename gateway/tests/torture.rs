//! Clients that are hostile or broken, on raw sockets: each gets the close code or HTTP status of the
//! protocol, and a healthy subscriber of the same shard never notices.
//!
//! The cases are tables: `common/frames.rs` and `common/handshakes.rs`. Each is sent whole and byte by
//! byte over a socket. That it comes to the same wherever it is cut is shown without sockets, where
//! it is known what was read before the rest came: of frames here, through the shard; of handshakes
//! in `door.rs`.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::thread::JoinHandle;

use serde_json::{Value, json};
use tickfan::fanout::shard::{Shard, ShardOptions};
use tickfan::fanout::socket::Socket;
use tickfan::limits::{
    BAD_REQUESTS_MAX, CLIENT_FRAGMENTS_MAX, CLIENT_MESSAGE_BYTES_MAX, CLIENT_MESSAGES_BURST,
    CLIENT_MESSAGES_EXCESS_MAX, CLIENT_PINGS_MAX, PING_EVERY_NS, PINGS_UNANSWERED_MAX,
    REQUEST_HEAD_BYTES_MAX, REQUEST_HEADERS_MAX, STALL_NS_MAX, SUBSCRIPTIONS_MAX,
};
use tickfan::serve::Running;
use tickfan::stats::Stats;
use tickfan_core::snapshot::Registry;
use tickfan_core::snapshot::marks::Marks;
use tickfan_core::wire::Encoding;

#[path = "common/client.rs"]
mod client;
#[path = "common/frames.rs"]
mod frames;
#[path = "common/gateway.rs"]
mod gateway;
#[path = "common/handshakes.rs"]
mod handshakes;

use client::Client;
use frames::{Answer, BINARY, CLOSE, FIN, PING, PONG, TEXT, frame, text};
use gateway::{PATIENCE, get_json, metric, wait_until};
use handshakes::{UPGRADE, request};

/// One gateway for all cases: they must not be able to hurt each other.
static GATEWAY: LazyLock<Running> = LazyLock::new(|| gateway::start_on_simulator(4, 2_000));

/// A raw connection, upgraded.
struct Raw {
    stream: TcpStream,
    /// Bytes that were read and belong to no frame yet.
    read: Vec<u8>,
}

impl Raw {
    /// Connects, and says nothing yet.
    fn dial(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream, read: Vec::new() }
    }

    /// Connects, with bytes in the same segment as the request.
    fn connect_with(address: SocketAddr, early: &[u8]) -> Self {
        let mut raw = Self::dial(address);
        raw.stream.write_all(&[UPGRADE.as_bytes(), early].concat()).unwrap();
        let head = raw.head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(
            head.to_ascii_lowercase()
                .contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=")
        );
        raw
    }

    fn connect() -> Self {
        let mut raw = Self::connect_with(GATEWAY.listen, b"");
        let hello: Value = serde_json::from_slice(&raw.next().unwrap().1).unwrap();
        assert_eq!(hello["type"], "hello");
        raw
    }

    /// The head of the HTTP answer.
    fn head(&mut self) -> String {
        loop {
            if let Some(end) = self.read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let head = self.read.drain(..end + 4).collect();
                return String::from_utf8(head).unwrap();
            }
            assert!(self.more(), "no answer: {:?}", String::from_utf8_lossy(&self.read));
        }
    }

    /// Reads more; `false` at the end of the stream.
    fn more(&mut self) -> bool {
        let mut buffer = [0; 16 << 10];
        match self.stream.read(&mut buffer) {
            Ok(count) => {
                self.read.extend_from_slice(&buffer[..count]);
                count > 0
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => false,
            Err(error) => panic!("{error}"),
        }
    }

    /// The next frame: opcode and payload; `None` at the end of the stream.
    fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some(frame) = take_frame(&mut self.read) {
                return Some(frame);
            }
            if !self.more() {
                return None;
            }
        }
    }

    fn send(&mut self, bytes: &[u8], is_dribbled: bool) {
        // What comes after the gateway has closed need not arrive.
        if !is_dribbled {
            let _ = self.stream.write_all(bytes);
            return;
        }
        let (dribbled, rest) = bytes.split_at(bytes.len().min(DRIBBLED_MAX));
        for byte in dribbled {
            if self.stream.write_all(&[*byte]).is_err() {
                return;
            }
        }
        let _ = self.stream.write_all(rest);
    }

    /// The next text message that is no data frame, or the frame that comes instead.
    fn next_control(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            let next = self.next()?;
            if next.0 != TEXT || !next.1.starts_with(b"{\"n\":") {
                return Some(next);
            }
        }
    }

    fn expect_json(&mut self) -> Value {
        let (opcode, payload) = self.next_control().expect("a message");
        let text = String::from_utf8_lossy(&payload).into_owned();
        assert_eq!(opcode, TEXT, "{text}");
        serde_json::from_slice(&payload).unwrap()
    }

    /// A close frame with this code comes, once, and then the end; pongs and refusals may come before.
    fn expect_close(&mut self, codes: &[Option<u16>]) -> String {
        let payload = loop {
            match self.next() {
                Some((CLOSE, payload)) => break payload,
                Some((TEXT | PONG, _)) => {}
                other => panic!("expected a close {codes:?}, got {other:?}"),
            }
        };
        let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
        let reason = String::from_utf8(payload.get(2..).unwrap_or_default().to_vec()).unwrap();
        assert!(codes.contains(&code), "expected {codes:?}, got {code:?} {reason}");
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
        let after = self.next();
        assert!(after.is_none(), "after the close came {after:?}");
        reason
    }

    /// It is served as ever.
    fn expect_open(&mut self) {
        self.send(&text(br#"{"op":"ping","id":"still there"}"#), false);
        let pong = self.expect_json();
        assert_eq!((&pong["type"], &pong["id"]), (&json!("pong"), &json!("still there")));
    }
}

/// Takes a frame of the gateway, opcode and payload, off the front of what was read. It is whole and
/// unmasked.
fn take_frame(read: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    let [first, second, rest @ ..] = read.as_slice() else { return None };
    assert_eq!(second & 0x80, 0, "a masked frame");
    assert_eq!(first & 0xf0, FIN, "a fragment, or reserved bits");
    let (length_bytes, length) = match second {
        126 => (2, u16::from_be_bytes(*rest.first_chunk()?).into()),
        127 => (8, u64::from_be_bytes(*rest.first_chunk()?) as usize),
        length => (0, usize::from(*length)),
    };
    let (start, opcode) = (2 + length_bytes, first & 0x0f);
    let payload = read.get(start..start + length)?.to_vec();
    read.drain(..start + length);
    Some((opcode, payload))
}

/// So many bytes of a case are sent one by one; the rest of the longest cases in one go.
const DRIBBLED_MAX: usize = 24 << 10;

/// A subscriber that has done nothing wrong, reading all the time on a thread of its own.
struct Healthy {
    frames: Arc<AtomicU64>,
    stops: Arc<AtomicBool>,
    reading: Option<JoinHandle<()>>,
}

impl Healthy {
    fn begin() -> Self {
        Self::begin_on(GATEWAY.listen)
    }

    fn begin_on(address: SocketAddr) -> Self {
        let (frames, stops) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let mut client = Client::connect(address);
        for channel in ["bbo", "book", "trades"] {
            client.subscribe(json!({"channel": channel, "symbols": ["sim:*"], "budget_ms": 10}));
        }
        let (read, stopped) = (Arc::clone(&frames), Arc::clone(&stops));
        let reading = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                // It checks that the frames have no hole and the deltas follow.
                let (update, _) = client.update(|_| true);
                assert_ne!(update["t"], "state", "a state changed: {update}");
                read.store(client.frames, Ordering::Relaxed);
            }
        });
        Self { frames, stops, reading: Some(reading) }
    }

    /// It gets frames now.
    fn is_served(&self) {
        let before = self.frames.load(Ordering::Relaxed);
        wait_until("the healthy subscriber gets more", || {
            self.frames.load(Ordering::Relaxed) > before + 1
                || self.reading.as_ref().is_none_or(JoinHandle::is_finished)
        });
        assert!(!self.reading.as_ref().unwrap().is_finished(), "the healthy subscriber failed");
    }

    fn end(mut self) {
        self.is_served();
        self.stops.store(true, Ordering::Relaxed);
        self.reading.take().unwrap().join().unwrap();
    }
}

/// Runs every case, several at a time, and tells all that came out wrong.
fn each<T: Sync>(cases: &[T], run: impl Fn(&T) -> Result<(), String> + Sync) {
    let next = AtomicUsize::new(0);
    let faults = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(fault) = run(case) {
                        faults.lock().unwrap().push(fault);
                    }
                }
            });
        }
    });
    let faults = faults.into_inner().unwrap();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Connections that the cases have at a time.
const AT_ONCE: usize = 8;

/// What a frame of the gateway is as an answer.
fn is_answer(answer: &Answer, (opcode, payload): &(u8, Vec<u8>)) -> bool {
    let said = || -> Value { serde_json::from_slice(payload).unwrap() };
    match answer {
        Answer::Pong(wanted) => (*opcode, &payload[..]) == (PONG, *wanted),
        Answer::Message(kind) => *opcode == TEXT && said()["type"] == *kind,
        Answer::Error(code) => {
            *opcode == TEXT && said()["type"] == "error" && said()["code"] == *code
        }
        Answer::Close(code) => {
            let came = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
            let reason = payload.get(2..).unwrap_or_default();
            *opcode == CLOSE && came == *code && std::str::from_utf8(reason).is_ok()
        }
    }
}

fn expect(name: &str, frames: &[(u8, Vec<u8>)], answers: &[Answer]) -> Result<(), String> {
    let fit = frames.iter().zip(answers).all(|(frame, answer)| is_answer(answer, frame));
    if fit && frames.len() == answers.len() {
        return Ok(());
    }
    let came: Vec<_> =
        frames.iter().map(|(opcode, bytes)| (opcode, String::from_utf8_lossy(bytes))).collect();
    Err(format!("{name}: expected {answers:?}, got {came:?}"))
}

fn run_frame_cases(is_dribbled: bool) {
    let healthy = Healthy::begin();
    each(&frames::cases(), |(name, bytes, answers)| {
        let mut raw = Raw::connect();
        raw.send(bytes, is_dribbled);
        let mut came = Vec::new();
        if matches!(answers.last(), Some(Answer::Close(_))) {
            while let Some(frame) = raw.next_control() {
                let is_close = frame.0 == CLOSE;
                came.push(frame);
                if is_close {
                    let _ = raw.stream.shutdown(std::net::Shutdown::Write);
                }
            }
        } else {
            came.extend((0..answers.len()).map_while(|_| raw.next_control()));
            raw.expect_open();
        }
        expect(name, &came, answers)
    });
    healthy.end();
}

#[test]
fn frames_that_break_the_protocol_get_their_close_code() {
    run_frame_cases(false);
}

#[test]
fn and_so_they_do_byte_by_byte() {
    run_frame_cases(true);
}

#[test]
fn there_are_a_hundred_cases_and_no_two_are_alike() {
    let frames = frames::cases().into_iter().map(|(name, bytes, _)| (name, bytes));
    let handshakes = handshake_cases();
    let handshakes =
        handshakes.iter().map(|(name, request, _)| ((*name).to_owned(), request.clone().into()));
    let (names, bytes): (HashSet<String>, HashSet<Vec<u8>>) = frames.chain(handshakes).unzip();
    let count = frames::cases().len() + handshake_cases().len();
    assert_eq!((names.len(), bytes.len()), (count, count));
    assert!(count >= 100, "{count}");
}

/// A client's end of a connection without a socket.
#[derive(Debug, Default)]
struct Wire {
    /// What it has sent and the gateway has not read.
    incoming: Vec<u8>,
    is_gone: bool,
    /// What the gateway has sent.
    sent: Vec<u8>,
    /// It said that nothing more comes.
    is_finished: bool,
    /// Nothing more of the gateway fits.
    is_full: bool,
}

#[derive(Debug, Clone, Default)]
struct WireSocket(Arc<Mutex<Wire>>);

impl Socket for WireSocket {
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut wire = self.0.lock().unwrap();
        if wire.is_full {
            return Ok(0);
        }
        wire.sent.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let mut wire = self.0.lock().unwrap();
        let count = wire.incoming.len().min(buffer.len());
        buffer[..count].copy_from_slice(&wire.incoming[..count]);
        wire.incoming.drain(..count);
        Ok((count > 0 || wire.is_gone).then_some(count))
    }

    fn finish(&mut self) {
        self.0.lock().unwrap().is_finished = true;
    }
}

/// A shard in virtual time.
fn shard(now: &Arc<AtomicU64>) -> Shard {
    shard_with(now, Arc::default())
}

fn shard_with(now: &Arc<AtomicU64>, stats: Arc<Stats>) -> Shard {
    let clock = Arc::clone(now);
    Shard::new(ShardOptions {
        id: 0,
        registry: Arc::new(Registry::new(1)),
        marks: Arc::new(Marks::new(1, || ())),
        stats,
        time: Box::new(move || clock.load(Ordering::Relaxed)),
    })
}

/// What a connection is answered that sends these pieces, the first of them with its handshake; each
/// piece is read, and all that it leads to is done, before the next one comes.
fn answers_in_pieces(shard: &mut Shard, pieces: &[&[u8]]) -> Vec<u8> {
    let socket = WireSocket::default();
    let (early, later) = pieces.split_first().unwrap();
    let key = shard.accept(Box::new(socket.clone()), Encoding::Json, early);
    while shard.turn() == 0 {}
    for piece in later {
        socket.0.lock().unwrap().incoming.extend_from_slice(piece);
        while !socket.0.lock().unwrap().incoming.is_empty() && shard.connection(key).is_some() {
            shard.on_readable(key);
            while shard.turn() == 0 {}
        }
    }
    socket.0.lock().unwrap().is_gone = true;
    shard.on_readable(key);
    assert_eq!(shard.take_ended().len(), 1);
    shard.take_touched();
    let sent = std::mem::take(&mut socket.0.lock().unwrap().sent);
    // The greeting names the session.
    let hello_bytes = 4 + usize::from(u16::from_be_bytes([sent[2], sent[3]]));
    sent[hello_bytes..].to_vec()
}

/// Where a stream of so many bytes is cut: at every offset, but for the long ones, which repeat
/// themselves. They are cut at every offset of their beginning and end, and here and there between.
fn cuts(length: usize) -> impl Iterator<Item = usize> {
    let (edge, step) = (150, (length / 60).max(1));
    (0..=length).filter(move |cut| {
        length < 4 * edge || *cut <= edge || *cut >= length - edge || cut % step == 0
    })
}

#[test]
fn and_so_they_do_wherever_they_are_cut() {
    let probe = text(br#"{"op":"ping","id":"still there"}"#);
    each(&frames::cases(), |(name, bytes, answers)| {
        let mut shard = shard(&Arc::new(AtomicU64::new(1_000_000_000_000)));
        let stream = [&bytes[..], &probe].concat();
        let whole = answers_in_pieces(&mut shard, &[b"", &stream]);
        let mut read = whole.clone();
        let mut came: Vec<_> = std::iter::from_fn(|| take_frame(&mut read)).collect();
        assert!(read.is_empty(), "{name}: half a frame at the end");
        if !matches!(answers.last(), Some(Answer::Close(_))) {
            let pong = came.pop().unwrap();
            assert!(is_answer(&Answer::Message("pong"), &pong), "{name}: {pong:?}");
        }
        expect(name, &came, answers)?;
        for cut in cuts(stream.len()) {
            let (front, back) = stream.split_at(cut);
            for pieces in [&[b"", front, back][..], &[front, back]] {
                let came = answers_in_pieces(&mut shard, pieces);
                if came != whole {
                    let came = String::from_utf8_lossy(&came);
                    return Err(format!("{name}, cut at {cut}: {came}"));
                }
            }
        }
        Ok(())
    });
}

#[test]
fn after_a_violation_nothing_is_waited_for() {
    for (bytes, is_violation) in [(frame(FIN | 3, b""), true), (frame(FIN | BINARY, b""), false)] {
        let mut shard = shard(&Arc::new(AtomicU64::new(1_000_000_000_000)));
        let socket = WireSocket::default();
        shard.accept(Box::new(socket.clone()), Encoding::Json, &bytes);
        shard.turn();
        assert_eq!(socket.0.lock().unwrap().is_finished, is_violation);
        // What is still on its way must be read, or the kernel would take our close back.
        assert_eq!(shard.connection_count(), 1);
    }
}

#[test]
fn a_client_that_stops_in_the_middle_of_a_header_is_closed_as_silent() {
    let now = Arc::new(AtomicU64::new(1_000_000_000_000));
    let mut shard = shard(&now);
    let socket = WireSocket::default();
    let take_sent = || std::mem::take(&mut socket.0.lock().unwrap().sent);
    let key = shard.accept(Box::new(socket.clone()), Encoding::Json, b"");
    socket.0.lock().unwrap().incoming.push(0x81);
    shard.on_readable(key);
    shard.turn();
    take_sent();
    for _ in 0..PINGS_UNANSWERED_MAX {
        now.fetch_add(PING_EVERY_NS, Ordering::Relaxed);
        shard.turn();
        assert_eq!(take_sent(), [FIN | PING, 0]);
    }
    now.fetch_add(PING_EVERY_NS - 1, Ordering::Relaxed);
    shard.turn();
    assert!(take_sent().is_empty(), "it has time to answer until then");
    now.fetch_add(1, Ordering::Relaxed);
    shard.turn();
    let closed = take_sent();
    assert_eq!((closed[0], &closed[2..4]), (FIN | CLOSE, &4202u16.to_be_bytes()[..]));
    now.fetch_add(PING_EVERY_NS, Ordering::Relaxed);
    shard.turn();
    assert_eq!(shard.connection_count(), 0);
}

#[test]
fn a_client_that_takes_nothing_is_ended_as_stalled() {
    let now = Arc::new(AtomicU64::new(1_000_000_000_000));
    let stats = Arc::new(Stats::default());
    let mut shard = shard_with(&now, Arc::clone(&stats));
    let socket = WireSocket::default();
    socket.0.lock().unwrap().is_full = true;
    shard.accept(Box::new(socket.clone()), Encoding::Json, b"");
    let mut pass = |ns| {
        now.fetch_add(ns, Ordering::Relaxed);
        shard.turn();
        shard.connection_count()
    };
    assert_eq!(pass(0), 1);
    assert_eq!(pass(STALL_NS_MAX - 1), 1);
    assert_eq!(pass(1), 0);
    assert_eq!(stats.close("stalled").get(), 1);
}

fn handshake_cases() -> Vec<handshakes::Case> {
    handshakes::cases(REQUEST_HEADERS_MAX, REQUEST_HEAD_BYTES_MAX)
}

#[test]
fn handshakes_that_are_none_get_their_http_status() {
    let healthy = Healthy::begin();
    each(&handshake_cases(), |(name, request, wanted)| {
        [false, true].into_iter().try_for_each(|is_dribbled| {
            let mut raw = Raw::dial(GATEWAY.listen);
            raw.send(request.as_bytes(), is_dribbled);
            handshakes::expect(name, &raw.head(), wanted)
        })
    });
    healthy.end();
}

#[test]
fn a_subprotocol_is_echoed_if_it_is_known_and_none_is_needed() {
    for (offered, wanted) in [
        (None, Ok(None)),
        (Some("tickfan.json.v1"), Ok(Some("tickfan.json.v1"))),
        (Some("graphql-ws, tickfan.json.v1"), Ok(Some("tickfan.json.v1"))),
        (Some("graphql-ws"), Err(400)),
    ] {
        let line = offered.map(|offered| format!("Sec-WebSocket-Protocol: {offered}"));
        let mut raw = Raw::dial(GATEWAY.listen);
        raw.send(request("", &line.unwrap_or_default()).as_bytes(), false);
        let head = raw.head().to_ascii_lowercase();
        let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
        let echoed = head.lines().find_map(|line| line.strip_prefix("sec-websocket-protocol: "));
        match wanted {
            Ok(subprotocol) => assert_eq!((status, echoed), (101, subprotocol), "{offered:?}"),
            Err(wanted) => assert_eq!((status, echoed), (wanted, None), "{offered:?}"),
        }
    }
}

#[test]
fn frames_that_come_with_the_handshake_are_answered() {
    let early = [
        text(br#"{"op":"ping","id":1}"#),
        frame(FIN | PING, b"\n\r\n"),
        text(br#"{"op":"subscribe","id":2,"channel":"bbo","symbols":["sim:BTCUSDT"]}"#),
    ]
    .concat();
    // All that comes in the segment of the handshake, from nothing to everything.
    let cuts: Vec<usize> = (0..=early.len()).collect();
    each(&cuts, |cut| {
        let mut raw = Raw::connect_with(GATEWAY.listen, &early[..*cut]);
        raw.send(&early[*cut..], false);
        let answers: Vec<_> = (0..4).map_while(|_| raw.next_control()).collect();
        let (_, data) = raw.next().unwrap();
        assert!(data.starts_with(br#"{"n":1,"#), "{}", String::from_utf8_lossy(&data));
        let wanted = [
            Answer::Message("hello"),
            Answer::Message("pong"),
            Answer::Pong(b"\n\r\n"),
            Answer::Message("subscribed"),
        ];
        expect(&format!("cut at {cut}"), &answers, &wanted)
    });
}

#[test]
fn a_megabyte_of_nonsense_as_a_subscription_is_too_large() {
    let healthy = Healthy::begin();
    let nonsense =
        format!(r#"{{"op":"subscribe","channel":"book","symbols":["{}"]}}"#, "x".repeat(1 << 20));
    let mut raw = Raw::connect();
    raw.send(&text(nonsense.as_bytes()), false);
    raw.expect_close(&[Some(1009)]);
    // In small pieces it is no better.
    let mut raw = Raw::connect();
    for piece in nonsense
        .as_bytes()
        .chunks(2 << 10)
        .enumerate()
        .map(|(i, piece)| frame(if i == 0 { TEXT } else { 0 }, piece))
    {
        raw.send(&piece, false);
    }
    raw.expect_close(&[Some(1009)]);
    // The longest message that is allowed is read, and is nonsense.
    let mut raw = Raw::connect();
    raw.send(&text(&vec![b'['; CLIENT_MESSAGE_BYTES_MAX]), false);
    assert_eq!(raw.expect_json()["code"], "bad_request");
    raw.expect_open();
    healthy.end();
}

#[test]
fn every_unknown_symbol_has_its_own_answer() {
    let mut client = Client::connect(GATEWAY.listen);
    let unknown = [
        "sim:NOPE",
        "sim:BTCUSDТ", // The last letter is Cyrillic.
        "sim:btcusdt",
        "BTCUSDT",
        "sim:",
        "",
        ":*",
        "kraken:*",
        "sim:BTC\u{0}USDT",
        "sim:\u{202e}TDSUCTB",
    ];
    let mut symbols: Vec<String> = unknown.map(str::to_owned).to_vec();
    symbols.push("y".repeat(8 << 10));
    symbols.push("sim:BTCUSDT".to_owned());
    let results = client.subscribe(json!({"channel": "bbo", "symbols": symbols}));
    assert_eq!(results.len(), symbols.len());
    let (known, refused) = results.split_last().unwrap();
    assert_eq!((&known["symbol"], &known["ok"]), (&json!("sim:BTCUSDT"), &json!(true)));
    for (result, symbol) in refused.iter().zip(&symbols) {
        assert_eq!(result["symbol"], **symbol);
        assert_eq!((&result["ok"], &result["code"]), (&json!(false), &json!("unknown_symbol")));
        let message = result["message"].as_str().unwrap();
        assert!(message.len() < 200 && !message.contains(char::is_control), "{message}");
    }
    let results = client.subscribe(json!({"channel": "bbo", "symbols": ["sim:BTCUSDX"]}));
    assert!(results[0]["message"].as_str().unwrap().ends_with("did you mean sim:BTCUSDT?"));
    // A list of names that a connection could never hold is answered all the same, in parts.
    let names: Vec<String> = (0..3_000).map(|_| "a".to_owned()).collect();
    client.say(&json!({"op": "subscribe", "channel": "bbo", "symbols": names}));
    let mut answered = 0;
    while answered < names.len() {
        answered += client.control("subscribed")["results"].as_array().unwrap().len();
    }
    assert_eq!(answered, names.len());
}

#[test]
fn five_bad_requests_in_ten_seconds_are_too_many() {
    let healthy = Healthy::begin();
    let bad: [&[u8]; 5] = [
        b"hello",
        b"{}",
        br#"{"op":"fly"}"#,
        br#"{"op":"subscribe","channel":"boook"}"#,
        b"[1e999]",
    ];
    assert_eq!(bad.len(), BAD_REQUESTS_MAX as usize);
    let before = metric(&GATEWAY, "tickfan_closes_total{cause=\"bad_requests\"}");
    let mut raw = Raw::connect();
    for request in bad {
        raw.send(&text(request), false);
        assert_eq!(raw.expect_json()["type"], "error");
    }
    raw.expect_close(&[Some(4005)]);
    let after = metric(&GATEWAY, "tickfan_closes_total{cause=\"bad_requests\"}");
    assert_eq!(after, before + 1);
    healthy.end();
}

#[test]
fn binary_messages_are_not_understood() {
    let mut raw = Raw::connect();
    raw.send(&frame(FIN | BINARY, br#"{"op":"ping"}"#), false);
    raw.expect_close(&[Some(1003)]);
}

#[test]
fn a_flood_of_messages_is_refused_and_then_ended() {
    let healthy = Healthy::begin();
    let mut raw = Raw::connect();
    let count = CLIENT_MESSAGES_BURST + 10;
    raw.send(&text(br#"{"op":"ping","id":"a"}"#).repeat(count as usize), false);
    let answers: Vec<Value> = (0..count).map(|_| raw.expect_json()).collect();
    for (i, answer) in answers.iter().enumerate() {
        assert_eq!(answer["id"], "a");
        if i < CLIENT_MESSAGES_BURST as usize {
            assert_eq!(answer["type"], "pong", "message {i}");
        }
    }
    let refused = answers.iter().filter(|answer| answer["code"] == "rate_limited").count();
    assert!(refused > 0, "{answers:?}");
    // Time may heal some on the way.
    let flood = 2 * (CLIENT_MESSAGES_EXCESS_MAX + CLIENT_MESSAGES_BURST) as usize;
    raw.send(&text(br#"{"op":"ping"}"#).repeat(flood), false);
    raw.expect_close(&[Some(1008)]);
    healthy.end();
}

#[test]
fn the_limits_of_pings_and_fragments_are_inclusive() {
    let mut raw = Raw::connect();
    raw.send(&frame(FIN | PING, b"p").repeat(CLIENT_PINGS_MAX as usize), false);
    raw.expect_open_after_pongs();
    let mut raw = Raw::connect();
    let request = br#"{"op":"ping","id":"in pieces"}"#;
    let mut frames = frame(TEXT, &request[..1]);
    for byte in &request[1..CLIENT_FRAGMENTS_MAX - 1] {
        frames.extend(frame(0, &[*byte]));
    }
    frames.extend(frame(FIN, &request[CLIENT_FRAGMENTS_MAX - 1..]));
    raw.send(&frames, false);
    assert_eq!(raw.expect_json()["id"], "in pieces");
}

impl Raw {
    /// All pings were answered, and it is served as ever.
    fn expect_open_after_pongs(&mut self) {
        for _ in 0..CLIENT_PINGS_MAX {
            assert_eq!(self.next_control(), Some((PONG, b"p".to_vec())));
        }
        self.expect_open();
    }
}

#[test]
fn the_subscription_over_the_limit_is_the_only_one_refused() {
    let symbols = 200;
    let running = gateway::start(&gateway::simulator_feed(symbols, 50));
    wait_until("all symbols are there", || {
        get_json(running.listen, "/v1/instruments").1["instruments"].as_array().unwrap().len()
            == symbols
    });
    let mut client = Client::connect(running.listen);
    let mut held = 0;
    let depths = [json!(1), json!(5), json!(10), json!(20), json!(50), json!(100), json!(200)];
    for depth in depths.into_iter().chain([json!(500), json!(1000), json!("full")]) {
        client.say(&json!({
            "op": "subscribe", "channel": "book", "symbols": ["sim:*"], "depth": depth,
            "budget_ms": 5000,
        }));
        let mut answered = 0;
        while answered < symbols {
            let answer = client.control("subscribed");
            let results = answer["results"].as_array().unwrap();
            assert!(results.iter().all(|result| result["ok"] == true), "{answer}");
            answered += results.len();
        }
        held += answered;
    }
    assert_eq!(held, SUBSCRIPTIONS_MAX);
    let results = client.subscribe(json!({"channel": "bbo", "symbols": ["sim:BTCUSDT"]}));
    assert_eq!(results[0]["code"], "too_many_subscriptions");
    // One that is held already is no further one, and one that ends makes room.
    let again = json!({"channel": "book", "symbols": ["sim:BTCUSDT"], "depth": 20});
    assert_eq!(client.subscribe(again)[0]["ok"], true);
    client.say(&json!({"op": "unsubscribe", "channel": "book", "symbols": ["sim:ETHUSDT"]}));
    assert_eq!(client.control("unsubscribed")["views"].as_array().unwrap().len(), 10);
    let results = client.subscribe(json!({"channel": "bbo", "symbols": ["sim:BTCUSDT"]}));
    assert_eq!(results[0]["ok"], true);
    client.say(&json!({"op": "unsubscribe", "channel": "book", "symbols": ["sim:*"]}));
    let mut ended = 0;
    while ended < held - 10 {
        ended += client.control("unsubscribed")["views"].as_array().unwrap().len();
    }
    assert_eq!(ended, held - 10);
}

#[test]
fn a_star_means_all_of_a_venue() {
    let mut client = Client::connect(GATEWAY.listen);
    let results = client.subscribe(json!({"channel": "bbo", "symbols": ["sim:*"]}));
    let symbols: Vec<&str> = results.iter().map(|r| r["symbol"].as_str().unwrap()).collect();
    assert_eq!(symbols, ["sim:BTCUSDT", "sim:DOGEUSDT", "sim:ETHUSDT", "sim:SOLUSDT"]);
    client.say(&json!({"op": "unsubscribe", "channel": "bbo", "symbols": ["sim:*"]}));
    assert_eq!(client.control("unsubscribed")["views"].as_array().unwrap().len(), 4);
}

#[test]
fn who_does_not_read_disturbs_nobody_and_then_gets_the_newest() {
    // A gateway of its own, so that no other connection can be the one that is full.
    let running = gateway::start_on_simulator(4, 2_000);
    let healthy = Healthy::begin_on(running.listen);
    let subscribe = json!({
        "channel": "book", "symbols": ["sim:BTCUSDT"], "depth": "full", "budget_ms": 0,
    });
    let mut watcher = Client::connect(running.listen);
    let view = watcher.view(subscribe.clone());
    let image = watcher.update_of(view, "image").to_string();
    let mut stalled = Client::connect(running.listen);
    assert_eq!(stalled.view(subscribe), view);
    let blocked = "tickfan_shard_blocked_total{shard=\"0\"}";
    let before = metric(&running, blocked);
    // What makes the connection full soon; nothing of it is read.
    for depth in [5, 10, 20, 50, 100, 200, 500, 1000] {
        stalled.say(&json!({
            "op": "subscribe", "channel": "book", "symbols": ["sim:*"], "depth": depth,
            "budget_ms": 0,
        }));
    }
    wait_until("the connection is full", || metric(&running, blocked) > before);
    for _ in 0..20 {
        watcher.update_of(view, "delta");
    }
    healthy.is_served();
    let newest = watcher.update_of(view, "delta")["s"].as_u64().unwrap();
    watcher.say(&json!({"op": "ping"}));
    let at_us = watcher.control("pong")["sent"].as_u64().unwrap();
    // What was sent before that was in the kernel's hands; what is sent now is as new as can be.
    let mut next_after = |at_us: u64| loop {
        if let client::Heard::Update(update, ts) = stalled.hear()
            && ts >= at_us
            && update["v"] == view
        {
            return update;
        }
    };
    // That is the newest whole, or what was missed where that is less.
    let mut fresh = next_after(at_us);
    let mut bytes = fresh.to_string().len();
    while fresh["s"].as_u64().unwrap() < newest {
        let next = next_after(at_us);
        assert_eq!(next["p"], fresh["s"]);
        bytes += next.to_string().len();
        fresh = next;
    }
    assert!(bytes < 2 * image.len(), "{bytes} bytes, and the whole has {}", image.len());
    // And it goes on from there.
    assert_eq!(next_after(at_us)["p"], fresh["s"]);
    healthy.end();
}
