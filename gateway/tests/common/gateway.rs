//! A gateway in the test's own process, on ports that the system chooses, and plain HTTP to it.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::fmt::Debug;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;
use tickfan::config::Config;
use tickfan::serve::{self, Running};

/// Nothing that a test waits for takes longer, even on a machine with much else to do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for a condition.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let pause = Duration::from_millis(5);
    for _ in 0..PATIENCE.as_millis() / pause.as_millis() {
        if condition() {
            return;
        }
        std::thread::sleep(pause);
    }
    panic!("waited in vain until {what}");
}

/// Waits until all books of a gateway are live.
#[track_caller]
pub(crate) fn wait_until_live(admin: SocketAddr) {
    wait_until("all books are live", || get(admin, "/readyz").0 == 200);
}

/// The configuration of a gateway of one shard with these feeds.
pub(crate) fn config(feeds: &str) -> Config {
    let text = format!("listen = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\nshards = 1\n{feeds}");
    Config::parse(&text, "the test").unwrap()
}

/// Starts a gateway of one shard with these feeds.
pub(crate) fn start(feeds: &str) -> Running {
    serve::start(config(feeds)).unwrap()
}

/// The `[[feed]]` of symbols of a venue whose stream and REST are at one address, with `more` settings.
pub(crate) fn feed(venue: &str, symbols: &[impl Debug], address: SocketAddr, more: &str) -> String {
    format!(
        "[[feed]]\nvenue = {venue:?}\nsymbols = {symbols:?}\n\
         url = \"ws://{address}\"\nrest_url = \"http://{address}\"\n{more}"
    )
}

/// The `[[feed]]` of all symbols of a simulator.
pub(crate) fn simulator_feed(symbols: usize, rate: u32) -> String {
    feed("sim", &["*"], serve::start_simulator(7, symbols, rate).unwrap(), "")
}

/// Starts a gateway on a simulator and waits until every book is live.
pub(crate) fn start_on_simulator(symbols: usize, rate: u32) -> Running {
    let running = start(&simulator_feed(symbols, rate));
    wait_until_live(running.admin);
    running
}

/// GETs: status and body.
pub(crate) fn get(address: SocketAddr, target: &str) -> (u16, String) {
    http(address, "GET", target)
}

/// GETs a JSON body.
pub(crate) fn get_json(address: SocketAddr, target: &str) -> (u16, Value) {
    let (status, body) = get(address, target);
    (status, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}")))
}

/// One HTTP request: status and body.
pub(crate) fn http(address: SocketAddr, method: &str, target: &str) -> (u16, String) {
    let (head, body) = exchange(address, method, target);
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body)
}

/// One HTTP request: head and body of the answer.
pub(crate) fn exchange(address: SocketAddr, method: &str, target: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "{method} {target} HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut text = String::new();
    // The gateway answers one request a connection, and then ends it.
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

/// The value of a metric with these labels; 0 before it was counted.
pub(crate) fn metric(running: &Running, name: &str) -> u64 {
    let text = running.stats.text();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0, |value| value.parse().unwrap())
}
