//! One past each limit of the door, on sockets: who is one too many is told so, the others never
//! notice, and a place that is given back is there again.
//!
//! The limits of what a connection may send and hold are in `torture.rs`; docs/OPERATING.md names the
//! test of each limit, and a test here that none of those is missing.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use tickfan::limits::{
    INSTRUMENTS_MAX, INSTRUMENTS_PER_ANSWER, REFUSED_RETRY_MS, RESULTS_PER_ANSWER,
};
use tickfan::serve::Running;
use tickfan_core::market::Venue;
use tickfan_core::snapshot::Registry;

#[path = "common/client.rs"]
mod client;
#[path = "common/gateway.rs"]
mod gateway;
#[path = "common/handshakes.rs"]
#[allow(dead_code, reason = "only the valid request is of use here")]
mod handshakes;

use client::{Client, Heard};
use gateway::{PATIENCE, get, metric, wait_until};
use handshakes::request;

/// A gateway with these rules at its door; its feed has no venue to talk to.
fn start(rules: &str, symbols: &[String]) -> Running {
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
    gateway::start(&format!("{rules}\n{}", gateway::feed("sim", symbols, nowhere, "")))
}

fn start_with_rules(rules: &str) -> Running {
    start(rules, &["NONE".to_owned()])
}

fn dial(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn is_served(client: &mut Client) {
    client.say(&json!({"op": "ping", "id": "still there"}));
    assert_eq!(client.control("pong")["id"], "still there");
}

/// A client that is let in only to be told why it cannot stay.
fn is_turned_away(stream: TcpStream, address: SocketAddr, cause: &str) {
    let url = format!("ws://{address}/v1/stream");
    let (socket, _) = tokio_tungstenite::tungstenite::client(url, stream).unwrap();
    let Heard::Close(code, reason) = Client::without_greeting(socket).hear() else {
        panic!("expected a close");
    };
    let retry_ms = reason.strip_prefix(cause).and_then(|rest| rest.strip_prefix(": "));
    let retry_ms: u64 = retry_ms.unwrap_or_else(|| panic!("{reason}")).parse().unwrap();
    assert_eq!(code, 4101);
    assert!((1_000..REFUSED_RETRY_MS).contains(&retry_ms), "{reason}");
}

/// One more than `max` connections is told so, and is let in once another has ended.
fn connections_end_at(running: &Running, max: usize, cause: &str) {
    let address = running.listen;
    let closed = format!("tickfan_closes_total{{cause=\"{cause}\"}}");
    let mut clients: Vec<Client> = (0..max).map(|_| Client::connect(address)).collect();
    for count in 1..=2 {
        is_turned_away(dial(address), address, cause);
        assert_eq!(metric(running, &closed), count);
    }
    clients.iter_mut().for_each(is_served);
    clients.pop();
    wait_until("one has ended", || metric(running, "tickfan_connections") == max as u64 - 1);
    // The place is free when the shard has put the connection away, which is a moment later.
    wait_until("there is room", || {
        let (socket, _) = tokio_tungstenite::tungstenite::client(
            format!("ws://{address}/v1/stream"),
            dial(address),
        )
        .unwrap();
        let mut client = Client::without_greeting(socket);
        let is_in = matches!(client.hear(), Heard::Control(hello) if hello["type"] == "hello");
        if is_in {
            clients.push(client);
        }
        is_in
    });
    clients.iter_mut().for_each(is_served);
}

#[test]
fn one_connection_more_than_may_be_in_all_is_told_to_come_back() {
    connections_end_at(&start_with_rules("connections_max = 3"), 3, "gateway_full");
}

#[test]
fn one_connection_more_of_an_address_is_told_to_come_back() {
    let running = start_with_rules("connections_per_address = 3");
    connections_end_at(&running, 3, "address_full");
}

#[test]
fn an_address_that_is_full_keeps_no_other_out() {
    let running = start_with_rules("connections_per_address = 1");
    let mut first = Client::connect(running.listen);
    is_turned_away(dial(running.listen), running.listen, "address_full");
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let other: SocketAddr = "127.0.0.2:0".parse().unwrap();
    if socket.bind(&other.into()).is_err() {
        eprintln!("this machine has one loopback address only");
        return;
    }
    socket.connect(&running.listen.into()).unwrap();
    let stream: TcpStream = socket.into();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let url = format!("ws://{}/v1/stream", running.listen);
    let (socket, _) = tokio_tungstenite::tungstenite::client(url, stream).unwrap();
    let mut second = Client::without_greeting(socket);
    assert_eq!(second.control("hello")["type"], "hello");
    is_served(&mut second);
    is_served(&mut first);
}

#[test]
fn loopback_is_spared_by_the_default_of_an_address() {
    let running = start_with_rules("connections_max = 3");
    let _clients: Vec<Client> = (0..3).map(|_| Client::connect(running.listen)).collect();
    is_turned_away(dial(running.listen), running.listen, "gateway_full");
}

/// So many connections that have not finished their request.
fn begin_requests(running: &Running, count: usize) -> Vec<TcpStream> {
    let streams = (0..count).map(|_| {
        let mut stream = dial(running.listen);
        stream.write_all(b"GET / HTTP/1.1\r\n").unwrap();
        stream
    });
    let streams = streams.collect();
    let is_full = || metric(running, "tickfan_handshakes") == count as u64;
    wait_until("all requests have begun", is_full);
    streams
}

/// Finishes a request and gives the status of its answer.
fn finish(mut stream: TcpStream) -> String {
    stream.write_all(b"host: x\r\n\r\n").unwrap();
    answer(stream)
}

fn answer(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn one_handshake_more_than_may_be_waits_for_its_turn() {
    let running = start_with_rules("handshakes_max = 3");
    let mut streams = begin_requests(&running, 3);
    let mut waiting = dial(running.listen);
    waiting.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    // Both listeners are on one thread: it would have been answered before the second of these.
    for _ in 0..2 {
        assert_eq!(get(running.admin, "/livez").0, 200);
    }
    waiting.set_nonblocking(true).unwrap();
    let nothing = waiting.read(&mut [0]).unwrap_err();
    assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
    assert_eq!(metric(&running, "tickfan_handshakes"), 3);
    waiting.set_nonblocking(false).unwrap();
    assert!(finish(streams.pop().unwrap()).starts_with("HTTP/1.1 200 "));
    assert!(answer(waiting).starts_with("HTTP/1.1 200 "));
}

#[test]
fn one_handshake_more_of_an_address_is_refused() {
    let running = start_with_rules("handshakes_per_address = 3");
    let mut streams = begin_requests(&running, 3);
    let refused = answer(dial(running.listen));
    assert!(refused.starts_with("HTTP/1.1 429 "), "{refused}");
    let (head, body) = refused.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("\r\nretry-after: "), "{head}");
    let body: Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["code"], "rate_limited");
    assert_eq!(metric(&running, "tickfan_handshakes_refused_total"), 1);
    assert!(finish(streams.pop().unwrap()).starts_with("HTTP/1.1 200 "));
    wait_until("it is over", || metric(&running, "tickfan_handshakes") == 2);
    // Those that were begun were not hurt, and there is room for one more again.
    assert_eq!(get(running.listen, "/").0, 200);
    for stream in streams {
        assert!(finish(stream).starts_with("HTTP/1.1 200 "));
    }
}

#[test]
fn a_request_that_never_ends_is_cut() {
    let running = start_with_rules("handshakes_max = 1");
    let mut streams = begin_requests(&running, 1);
    // It is cut within five seconds of its beginning; the reader would wait six times as long.
    assert_eq!(answer(streams.pop().unwrap()), "");
    assert_eq!(get(running.listen, "/").0, 200);
}

#[test]
fn only_pages_of_named_origins_may_connect() {
    let status = |running: &Running, lines: &str| {
        let mut stream = dial(running.listen);
        stream.write_all(request("", lines).as_bytes()).unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).unwrap();
        String::from_utf8_lossy(&head[9..]).into_owned()
    };
    let cases = [
        ("", "101"),
        ("Origin: https://example.com", "101"),
        ("Origin: http://localhost:3000", "101"),
        ("Origin: https://example.org", "403"),
        ("Origin: http://example.com", "403"),
        ("Origin: https://example.com:444", "403"),
        ("Origin: https://example.com.evil.org", "403"),
        ("Origin: https://sub.example.com", "403"),
        ("Origin: null", "403"),
        ("Origin: ", "403"),
        ("Origin: https://example.com\r\nOrigin: https://example.org", "403"),
        ("Origin: https://example.com, https://example.org", "403"),
        // The gateway's own page: the request goes to where it came from.
        ("Origin: http://x", "101"),
        ("Origin: https://x", "101"),
        ("Origin: http://x:8080", "403"),
        ("Origin: http://xx", "403"),
        ("Origin: ftp://x", "403"),
        ("Origin: x", "403"),
        ("Origin: http://x\r\nOrigin: https://example.org", "403"),
    ];
    let running = start_with_rules(r#"origins = ["https://example.com", "http://localhost:3000"]"#);
    for (lines, wanted) in cases {
        assert_eq!(status(&running, lines), wanted, "{lines}");
    }
    let refused = cases.iter().filter(|(_, wanted)| *wanted == "403").count() as u64;
    assert_eq!(metric(&running, "tickfan_origins_refused_total"), refused);
    // Without the key every page may, and with an empty list only our own.
    assert_eq!(status(&start_with_rules(""), "Origin: https://example.org"), "101");
    assert_eq!(status(&start_with_rules("origins = []"), "Origin: https://example.org"), "403");
    assert_eq!(status(&start_with_rules("origins = []"), ""), "101");
    assert_eq!(status(&start_with_rules("origins = []"), "Origin: http://x"), "101");
}

#[test]
fn answers_are_split_where_they_would_grow_too_long() {
    let symbols: Vec<String> = (0..=INSTRUMENTS_PER_ANSWER).map(|i| format!("S{i}")).collect();
    let running = start("", &symbols);
    let mut client = Client::connect(running.listen);
    client.say(&json!({"op": "instruments"}));
    for count in [INSTRUMENTS_PER_ANSWER, 1] {
        let answer = client.control("instruments");
        assert_eq!(answer["instruments"].as_array().unwrap().len(), count);
    }
    let unknown: Vec<String> = (0..=RESULTS_PER_ANSWER).map(|i| format!("sim:N{i}")).collect();
    client.say(&json!({"op": "subscribe", "channel": "bbo", "symbols": unknown}));
    for count in [RESULTS_PER_ANSWER, 1] {
        let answer = client.control("subscribed");
        assert_eq!(answer["results"].as_array().unwrap().len(), count);
    }
}

#[test]
fn one_instrument_more_than_may_be_is_refused_at_start() {
    // A start that cannot register what is named ends with this error.
    let registry = Registry::new(INSTRUMENTS_MAX);
    let natives: Vec<Arc<str>> = (0..=INSTRUMENTS_MAX).map(|i| format!("S{i}").into()).collect();
    let (last, most) = natives.split_last().unwrap();
    assert_eq!(registry.register(Venue::Sim, most, 1, 1).unwrap().len(), INSTRUMENTS_MAX);
    let error = registry.register(Venue::Sim, std::slice::from_ref(last), 1, 1).unwrap_err();
    assert!(error.to_string().contains("16384"), "{error}");
}

#[test]
fn every_limit_that_operators_read_of_names_a_test_that_there_is() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("../docs/OPERATING.md")).unwrap();
    let (_, limits) = text.split_once("\n## Limits\n").unwrap();
    let limits = limits.split("\n## ").next().unwrap();
    let rows: Vec<&str> = limits.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    let mut tests = HashSet::new();
    for folder in ["src", "tests", "core/src"] {
        collect_tests(&root.join(folder), &mut tests);
    }
    for row in &rows {
        let cell = row.trim_end_matches('|').rsplit('|').next().unwrap();
        let named: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty() || cell.trim() == "–", "no test is named: {row}");
        for name in named {
            assert!(tests.contains(name), "{name} is no test: {row}");
        }
    }
    assert!(rows.len() >= 20, "{rows:?}");
}

/// The names of all tests of a folder.
fn collect_tests(folder: &Path, tests: &mut HashSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect_tests(&path, tests);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            for after in text.split("#[test]").skip(1) {
                let name = after.split("fn ").nth(1).and_then(|rest| rest.split('(').next());
                tests.extend(name.map(str::to_owned));
            }
        }
    }
}
