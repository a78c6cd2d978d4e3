//! Clients that are hostile or broken, on raw sockets: each gets the close code or HTTP status of the
//! protocol, and a healthy subscriber of the same shard never notices.
//!
//! The cases are those of RFC 6455 and RFC 9112 that servers are known to get wrong. One of the usual
//! nineteen handshakes is not here: an `Origin` of another site, because the gateway has no rule for
//! origins yet.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::thread::JoinHandle;

use serde_json::{Value, json};
use tickfan::fanout::shard::{Shard, ShardOptions};
use tickfan::fanout::socket::Socket;
use tickfan::limits::{
    BAD_REQUESTS_MAX, CLIENT_FRAGMENTS_MAX, CLIENT_MESSAGE_BYTES_MAX, CLIENT_MESSAGES_BURST,
    CLIENT_MESSAGES_EXCESS_MAX, CLIENT_PINGS_MAX, PING_EVERY_NS, PINGS_UNANSWERED_MAX,
    SUBSCRIPTIONS_MAX,
};
use tickfan::serve::Running;
use tickfan::stats::Stats;
use tickfan_core::snapshot::Registry;
use tickfan_core::snapshot::marks::Marks;
use tickfan_core::wire::Encoding;

#[path = "common/client.rs"]
mod client;
#[path = "common/gateway.rs"]
mod gateway;

use client::Client;
use gateway::{PATIENCE, get_json, metric, wait_until};

/// One gateway for all cases: they must not be able to hurt each other.
static GATEWAY: LazyLock<Running> = LazyLock::new(|| gateway::start_on_simulator(4, 2_000));

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
const FIN: u8 = 0x80;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A client's frame, masked; `first` is the first byte of its header.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..=125 => bytes.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

fn text(payload: &[u8]) -> Vec<u8> {
    frame(FIN | TEXT, payload)
}

fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(FIN | CLOSE, &[&code.to_be_bytes(), reason].concat())
}

/// A header that announces a length in eight bytes.
fn long_header(first: u8, length: u64) -> Vec<u8> {
    [&[first, 0x80 | 127][..], &length.to_be_bytes(), &MASK].concat()
}

/// A raw connection, upgraded.
struct Raw {
    stream: TcpStream,
    /// Bytes that were read and belong to no frame yet.
    read: Vec<u8>,
}

const UPGRADE: &str = "GET /v1/stream HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

impl Raw {
    /// Connects, with bytes in the same segment as the request.
    fn connect_with(address: SocketAddr, early: &[u8]) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&[UPGRADE.as_bytes(), early].concat()).unwrap();
        let mut raw = Self { stream, read: Vec::new() };
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

    /// The next frame: opcode and payload; `None` at the end of the stream. Every frame of a server
    /// is whole and unmasked.
    fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let [first, second, rest @ ..] = self.read.as_slice() {
                assert_eq!(second & 0x80, 0, "a masked frame");
                assert_eq!(first & 0xf0, FIN, "a fragment, or reserved bits");
                let (length_bytes, length) = match second {
                    126 if rest.len() >= 2 => (2, u16::from_be_bytes([rest[0], rest[1]]).into()),
                    127 if rest.len() >= 8 => {
                        (8, u64::from_be_bytes(rest[..8].try_into().unwrap()) as usize)
                    }
                    126 | 127 => (8, usize::MAX - 16),
                    length => (0, usize::from(*length)),
                };
                let (start, opcode) = (2 + length_bytes, first & 0x0f);
                if self.read.len() >= start + length {
                    let payload = self.read[start..start + length].to_vec();
                    self.read.drain(..start + length);
                    return Some((opcode, payload));
                }
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

/// What a case must lead to.
#[derive(Debug, Clone, Copy)]
enum Wanted {
    /// A close frame with one of these codes; `None` = without a code.
    Close(&'static [Option<u16>]),
    /// The text is taken as one message; being no request, it gets an error.
    Message,
    /// A pong with `p`, then the text is taken as one message.
    PongThenMessage,
    /// Nothing, and the connection stays open.
    Open,
}

const PROTOCOL: Wanted = Wanted::Close(&[Some(1002)]);
const BAD_TEXT: Wanted = Wanted::Close(&[Some(1007)]);
const TOO_LARGE: Wanted = Wanted::Close(&[Some(1009)]);
const FLOOD: Wanted = Wanted::Close(&[Some(1008)]);

/// The frame cases but for the one that takes a minute: see
/// [`a_client_that_stops_in_the_middle_of_a_header_is_closed_as_silent`].
fn frame_cases() -> Vec<(&'static str, Vec<u8>, Wanted)> {
    let unmasked = |first: u8, payload: &[u8]| [&[first, payload.len() as u8], payload].concat();
    vec![
        ("an unmasked text", unmasked(FIN | TEXT, b"hi"), PROTOCOL),
        ("an unmasked ping", unmasked(FIN | PING, b"p"), PROTOCOL),
        ("a reserved bit", frame(FIN | 0x40 | TEXT, b"hi"), PROTOCOL),
        ("opcode 3", frame(FIN | 3, b"hi"), PROTOCOL),
        ("opcode 11", frame(FIN | 11, b"hi"), PROTOCOL),
        ("a fragmented ping", frame(PING, b"p"), PROTOCOL),
        ("a ping of 126 bytes", frame(FIN | PING, &[b'p'; 126]), PROTOCOL),
        ("a pong of 200 bytes", frame(FIN | PONG, &[b'p'; 200]), PROTOCOL),
        ("a close of one byte", frame(FIN | CLOSE, &[3]), PROTOCOL),
        ("a close of 202 bytes", close(1000, &[b'x'; 200]), PROTOCOL),
        ("close code 1005", close(1005, b""), PROTOCOL),
        ("close code 0", close(0, b""), PROTOCOL),
        ("close code 5000", close(5000, b""), PROTOCOL),
        ("a close reason in bad UTF-8", close(1000, b"\xff\xfe"), BAD_TEXT),
        ("an empty close", frame(FIN | CLOSE, b""), Wanted::Close(&[None])),
        ("a close", close(1000, b""), Wanted::Close(&[Some(1000)])),
        ("two closes", [close(1000, b""), close(1000, b"")].concat(), Wanted::Close(&[Some(1000)])),
        (
            "a close and a text",
            [close(1000, b""), text(b"hi")].concat(),
            Wanted::Close(&[Some(1000)]),
        ),
        ("text in bad UTF-8", text(b"\xc3\x28"), BAD_TEXT),
        (
            "text in bad UTF-8 across fragments",
            [frame(TEXT, b"\xe2\x82"), frame(FIN, b"\x28")].concat(),
            BAD_TEXT,
        ),
        (
            "a character across fragments",
            [frame(TEXT, b"\xe2\x82"), frame(FIN, b"\xac")].concat(),
            Wanted::Message,
        ),
        ("a continuation first", frame(FIN, b"hi"), PROTOCOL),
        ("a text inside a text", [frame(TEXT, b"hi"), frame(FIN | TEXT, b"hi")].concat(), PROTOCOL),
        (
            "a ping inside a text",
            [frame(TEXT, b"h"), frame(FIN | PING, b"p"), frame(FIN, b"i")].concat(),
            Wanted::PongThenMessage,
        ),
        (
            "5 bytes with a length of 16 bits",
            [&[FIN | TEXT, 0x80 | 126, 0, 5][..], &MASK, b"hello"].concat(),
            PROTOCOL,
        ),
        (
            "5 bytes with a length of 64 bits",
            [&long_header(FIN | TEXT, 5)[..], b"hello"].concat(),
            PROTOCOL,
        ),
        (
            "a length with the top bit set",
            long_header(FIN | BINARY, 1 << 63),
            Wanted::Close(&[Some(1002), Some(1009)]),
        ),
        ("60 MiB announced", long_header(FIN | BINARY, 60 << 20), TOO_LARGE),
        ("a text over the limit", text(&vec![b' '; CLIENT_MESSAGE_BYTES_MAX + 1]), TOO_LARGE),
        (
            "1000 fragments of 1 KiB",
            std::iter::once(frame(TEXT, &[b' '; 1024]))
                .chain(std::iter::repeat_n(frame(0, &[b' '; 1024]), 999))
                .collect::<Vec<_>>()
                .concat(),
            TOO_LARGE,
        ),
        (
            "10,000 empty fragments",
            std::iter::once(frame(TEXT, b""))
                .chain(std::iter::repeat_n(frame(0, b""), 9_999))
                .collect::<Vec<_>>()
                .concat(),
            Wanted::Close(&[Some(1008), Some(1009)]),
        ),
        ("5,000 pings", frame(FIN | PING, b"p").repeat(5_000), FLOOD),
        ("5,000 pongs", frame(FIN | PONG, b"p").repeat(5_000), Wanted::Open),
    ]
}

fn run_frame_cases(is_dribbled: bool) {
    let healthy = Healthy::begin();
    let cases = frame_cases();
    assert_eq!(cases.len(), 33);
    for (name, bytes, wanted) in cases {
        eprintln!("{name}");
        let mut raw = Raw::connect();
        raw.send(&bytes, is_dribbled);
        let expect_error = |raw: &mut Raw| {
            let error = raw.expect_json();
            assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!("bad_request")));
        };
        match wanted {
            Wanted::Close(codes) => {
                raw.expect_close(codes);
            }
            Wanted::Message => {
                expect_error(&mut raw);
                raw.expect_open();
            }
            Wanted::PongThenMessage => {
                assert_eq!(raw.next_control(), Some((PONG, b"p".to_vec())));
                expect_error(&mut raw);
                raw.expect_open();
            }
            Wanted::Open => raw.expect_open(),
        }
        healthy.is_served();
    }
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

/// A socket of a client that has gone silent.
struct SilentSocket {
    incoming: Vec<u8>,
    sent: Arc<Mutex<Vec<u8>>>,
}

impl Socket for SilentSocket {
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sent.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let incoming = std::mem::take(&mut self.incoming);
        buffer[..incoming.len()].copy_from_slice(&incoming);
        Ok((!incoming.is_empty()).then_some(incoming.len()))
    }
}

#[test]
fn a_client_that_stops_in_the_middle_of_a_header_is_closed_as_silent() {
    let now = Arc::new(AtomicU64::new(1_000_000_000_000));
    let clock = Arc::clone(&now);
    let mut shard = Shard::new(ShardOptions {
        id: 0,
        registry: Arc::new(Registry::new(1)),
        marks: Arc::new(Marks::new(1, || ())),
        stats: Arc::new(Stats::default()),
        time: Box::new(move || clock.load(Ordering::Relaxed)),
    });
    let sent = Arc::new(Mutex::new(Vec::new()));
    let socket = SilentSocket { incoming: vec![0x81], sent: Arc::clone(&sent) };
    let key = shard.accept(Box::new(socket), Encoding::Json, b"");
    shard.on_readable(key);
    shard.turn();
    sent.lock().unwrap().clear();
    for _ in 0..PINGS_UNANSWERED_MAX {
        now.fetch_add(PING_EVERY_NS, Ordering::Relaxed);
        shard.turn();
        assert_eq!(std::mem::take(&mut *sent.lock().unwrap()), [FIN | PING, 0]);
    }
    now.fetch_add(PING_EVERY_NS - 1, Ordering::Relaxed);
    shard.turn();
    assert!(sent.lock().unwrap().is_empty(), "it has time to answer until then");
    now.fetch_add(1, Ordering::Relaxed);
    shard.turn();
    let closed = sent.lock().unwrap().clone();
    assert_eq!((closed[0], &closed[2..4]), (FIN | CLOSE, &4202u16.to_be_bytes()[..]));
    now.fetch_add(PING_EVERY_NS, Ordering::Relaxed);
    shard.turn();
    assert_eq!(shard.connection_count(), 0);
}

/// The valid request with one line replaced, taken out (an empty one) or put before the others.
fn request(line: &str, replacement: &str) -> String {
    let replacement =
        if replacement.is_empty() { String::new() } else { format!("{replacement}\r\n") };
    if line.is_empty() {
        return UPGRADE.replacen("Host: x\r\n", &format!("Host: x\r\n{replacement}"), 1);
    }
    let line = format!("{line}\r\n");
    assert!(UPGRADE.contains(&line), "{line}");
    UPGRADE.replacen(&line, &replacement, 1)
}

#[test]
fn handshakes_that_are_none_get_their_http_status() {
    let healthy = Healthy::begin();
    let (version, key) =
        ("Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==");
    let (upgrade, connection) = ("Upgrade: websocket", "Connection: Upgrade");
    let many_headers: Vec<String> = (0..200).map(|i| format!("X-{i}: y")).collect();
    let cases: Vec<(&str, String, &[u16])> = vec![
        ("valid", UPGRADE.to_owned(), &[101]),
        ("version 8", request(version, "Sec-WebSocket-Version: 8"), &[426]),
        ("no version", request(version, ""), &[400, 426]),
        ("Upgrade: h2c", request(upgrade, "Upgrade: h2c"), &[400, 426]),
        ("Connection: close", request(connection, "Connection: close"), &[400, 426]),
        ("no key", request(key, ""), &[400]),
        ("key abc", request(key, "Sec-WebSocket-Key: abc"), &[400]),
        ("no Host", request("Host: x", ""), &[400]),
        (
            "Content-Length and Transfer-Encoding",
            request("", "Content-Length: 4\r\nTransfer-Encoding: chunked"),
            &[400],
        ),
        ("two Content-Lengths", request("", "Content-Length: 4\r\nContent-Length: 5"), &[400]),
        ("POST", UPGRADE.replacen("GET", "POST", 1), &[400, 405]),
        ("a folded header", request("", "X-A: b\r\n c"), &[400]),
        ("a space before the colon", request("", "X-A : b"), &[400]),
        ("a bare line feed inside a header", request("", "X-A: b\nX-B: c"), &[400]),
        ("a NUL in a header", request("", "X-A: b\0c"), &[400]),
        ("a body", request("", "Content-Length: 5"), &[400]),
        ("200 headers", request("", &many_headers.join("\r\n")), &[431]),
        ("a header of 32 KiB", request("", &format!("X-A: {}", "y".repeat(32 << 10))), &[431]),
    ];
    assert_eq!(cases.len(), 18);
    for (name, request, wanted) in cases {
        for is_dribbled in [false, true] {
            eprintln!("{name}");
            let stream = TcpStream::connect(GATEWAY.listen).unwrap();
            stream.set_nodelay(true).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut raw = Raw { stream, read: Vec::new() };
            raw.send(request.as_bytes(), is_dribbled);
            let head = raw.head();
            let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
            assert!(wanted.contains(&status), "{name}: expected {wanted:?}, got {head}");
            if status == 426 {
                let head = head.to_ascii_lowercase();
                assert!(head.contains("sec-websocket-version: 13\r\n"), "{head}");
            }
            healthy.is_served();
        }
    }
    healthy.end();
}

#[test]
fn no_extension_is_agreed_to() {
    let offer = request("", "Sec-WebSocket-Extensions: permessage-deflate");
    let stream = TcpStream::connect(GATEWAY.listen).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut raw = Raw { stream, read: Vec::new() };
    raw.send(offer.as_bytes(), false);
    let head = raw.head().to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 ") && !head.contains("extensions"), "{head}");
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
        let stream = TcpStream::connect(GATEWAY.listen).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut raw = Raw { stream, read: Vec::new() };
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
    for cut in [early.len(), early.len() - 1, 3] {
        let mut raw = Raw::connect_with(GATEWAY.listen, &early[..cut]);
        raw.send(&early[cut..], false);
        assert_eq!(raw.expect_json()["type"], "hello");
        let pong = raw.expect_json();
        assert_eq!((&pong["type"], &pong["id"]), (&json!("pong"), &json!(1)));
        assert_eq!(raw.next_control(), Some((PONG, b"\n\r\n".to_vec())));
        let subscribed = raw.expect_json();
        assert_eq!((&subscribed["type"], &subscribed["id"]), (&json!("subscribed"), &json!(2)));
        let (_, data) = raw.next().unwrap();
        assert!(data.starts_with(br#"{"n":1,"#), "{}", String::from_utf8_lossy(&data));
    }
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
    assert_eq!(symbols, ["sim:BTCUSDT", "sim:ETHUSDT", "sim:SOLUSDT", "sim:DOGEUSDT"]);
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
    watcher.view(subscribe.clone());
    let mut stalled = Client::connect(running.listen);
    let view = stalled.view(subscribe);
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
    let fresh = next_after(at_us);
    assert!(fresh["s"].as_u64().unwrap() >= newest, "{newest}: {fresh}");
    // And it goes on from there.
    assert_eq!(next_after(at_us)["p"], fresh["s"]);
    healthy.end();
}
