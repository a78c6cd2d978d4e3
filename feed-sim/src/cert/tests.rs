//! The judge against lines of which each is right or wrong in one way, and the whole of it against a
//! client on a socket: one that follows the venue's rules passes, one that ignores gaps does not.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tickfan_core::market::Side;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::{self, HandshakeError, Message, WebSocket};

use super::*;
use crate::fault::State;
use crate::scenario::{Scenario, library};
use crate::truth::TruthBook;
use crate::venue::Reader;

fn state(version: u64, bid: &str) -> State {
    let level = |px: &str| vec![[px.to_owned(), "1".to_owned()]];
    State { symbol: 0, version, id: 100 + version, top: [level(bid), level("20")] }
}

fn line(state: &str, id: u64, bid: &str) -> String {
    json!({"symbol": "A", "state": state, "id": id, "bids": [[bid, "1.0"]], "asks": [["20.0", "1"]]})
        .to_string()
}

fn judge() -> Judge {
    let mut judge = Judge::new(vec!["A".to_owned()], true);
    for (version, bid) in [(0, "10"), (1, "11"), (2, "10"), (3, "12")] {
        judge.learn(state(version, bid));
    }
    judge
}

#[test]
fn true_states_in_order_are_right_whatever_their_digits() {
    let mut judge = judge();
    for (id, bid) in [(100, "10"), (100, "10.00"), (102, "10"), (103, "12.0")] {
        judge.hear(&line("live", id, bid), 0);
    }
    assert_eq!((judge.wrong(), judge.broken()), (None, None));
    assert!(judge.is_live() && judge.is_up_to_date());
}

#[test]
fn what_was_never_so_is_wrong() {
    for (id, bid) in [(100, "11"), (101, "10"), (104, "12"), (103, "13")] {
        let mut judge = judge();
        judge.hear(&line("live", id, bid), 0);
        assert!(judge.wrong().is_some(), "{id} {bid}");
    }
}

#[test]
fn a_number_counts_only_where_the_venue_has_one() {
    let mut judge = Judge::new(vec!["A".to_owned()], false);
    judge.learn(state(0, "10"));
    judge.hear(&line("live", 7, "10"), 0);
    assert_eq!(judge.wrong(), None);
}

#[test]
fn what_goes_back_is_wrong() {
    let mut judge = judge();
    judge.hear(&line("live", 101, "11"), 0);
    judge.hear(&line("live", 100, "10"), 0);
    assert!(judge.wrong().is_some());
}

#[test]
fn half_a_book_is_wrong() {
    let mut judge = judge();
    judge.hear(r#"{"symbol":"A","state":"live","bids":[["10","1"]]}"#, 0);
    assert!(judge.wrong().is_some());
}

#[test]
fn what_is_marked_may_be_anything() {
    let mut judge = judge();
    judge.hear(&line("gap", 7, "99"), 0);
    assert_eq!(judge.wrong(), None);
    assert!(!judge.is_marked(0), "it was before the beginning");
    judge.begin();
    judge.hear(r#"{"symbol":"A","state":"gap"}"#, 0);
    assert!(judge.is_marked(0) && !judge.is_live());
}

#[test]
fn right_again_is_as_of_the_end() {
    let mut judge = judge();
    judge.hear(&line("live", 102, "10"), 0);
    judge.end(5);
    assert_eq!(judge.right_ns(), None);
    judge.learn(state(4, "13"));
    judge.hear(&line("live", 103, "12"), 6);
    assert_eq!(judge.right_ns(), Some(6));
    assert!(!judge.is_up_to_date());
}

#[test]
fn what_is_no_line_is_told_by_its_number() {
    for text in [
        "",
        "live",
        r#"{"symbol":"A"}"#,
        r#"{"symbol":"B","state":"live"}"#,
        r#"{"symbol":"A","state":"live","bid":[]}"#,
        r#"{"symbol":"A","state":"live","bids":[[1,2]]}"#,
    ] {
        let mut judge = judge();
        judge.hear(&line("live", 100, "10"), 0);
        judge.hear(text, 0);
        assert!(judge.broken().unwrap().starts_with("line 2: "), "{text}");
    }
}

/// A client of Bybit, which numbers its changes and sends images on the stream.
#[derive(Debug, Clone, Copy)]
struct Model {
    /// It looks whether a change follows what it holds.
    looks: bool,
}

/// The model at work.
struct Working {
    model: Model,
    place: Place,
    lines: mpsc::Sender<String>,
    /// The book of a symbol, while it is known.
    books: BTreeMap<String, TruthBook>,
}

struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Client for Model {
    fn start(&self, place: &Place) -> anyhow::Result<Started> {
        let (sender, lines) = mpsc::channel(4_096);
        let is_stopped = Arc::new(AtomicBool::new(false));
        let guard = Box::new(Stop(Arc::clone(&is_stopped)));
        let place = place.clone();
        let mut working = Working { model: *self, place, lines: sender, books: BTreeMap::new() };
        std::thread::spawn(move || {
            while !is_stopped.load(Ordering::Relaxed) {
                // However it ended, it begins anew.
                let _ = working.follow();
                for symbol in working.place.symbols.clone() {
                    working.mark(&symbol, "disconnected");
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        Ok(Started { lines, guard })
    }
}

impl Working {
    /// Holds one connection to its end.
    fn follow(&mut self) -> Result<(), Box<tungstenite::Error>> {
        let address = self.place.address;
        let stream = TcpStream::connect(address).map_err(tungstenite::Error::from)?;
        stream.set_nodelay(true).map_err(tungstenite::Error::from)?;
        let url = format!("ws://{address}/v5/public/spot");
        let mut socket = match tungstenite::client(url.as_str(), stream) {
            Ok((socket, _)) => socket,
            Err(HandshakeError::Failure(tungstenite::Error::Http(refused))) => {
                let after = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
                std::thread::sleep(Duration::from_secs(after));
                return Ok(());
            }
            Err(_) => return Ok(()),
        };
        for symbol in self.place.symbols.clone() {
            self.say(&mut socket, "subscribe", &symbol)?;
        }
        let mut reader = self.place.dialect.reader();
        let mut messages = 0_u64;
        loop {
            let Message::Text(text) = socket.read()? else { continue };
            messages += 1;
            if messages.is_multiple_of(16)
                && let Some(listed) = self.place.to_list.pop_if(|name| is_listed(address, name))
            {
                self.say(&mut socket, "subscribe", &listed)?;
                self.place.symbols.push(listed);
            }
            if serde_json::from_str::<Value>(&text).is_err() {
                return Ok(());
            }
            if let Some(lost) = self.take(&mut *reader, &text) {
                self.mark(&lost, "gap");
                self.say(&mut socket, "unsubscribe", &lost)?;
                self.say(&mut socket, "subscribe", &lost)?;
            }
        }
    }

    fn say(
        &self,
        socket: &mut WebSocket<TcpStream>,
        op: &str,
        symbol: &str,
    ) -> Result<(), Box<tungstenite::Error>> {
        let topic = format!("orderbook.{}.{symbol}", self.place.depth.unwrap_or(50));
        Ok(socket.send(Message::text(json!({"op": op, "args": [topic]}).to_string()))?)
    }

    /// Applies a message; returns the symbol whose book is lost by it.
    fn take(&mut self, reader: &mut dyn Reader, text: &str) -> Option<String> {
        let recorded = reader.read(text)?;
        let (symbol, message) = (recorded.symbol?.into_owned(), recorded.book?);
        if message.is_snapshot {
            self.books.insert(symbol.clone(), TruthBook::default());
        } else {
            let Some(book) = self.books.get(&symbol) else { return Some(symbol) };
            let (held, new) = (book.id().unwrap_or(0), message.id.unwrap_or(0));
            if self.model.looks && new <= held {
                return None;
            }
            if self.model.looks && new != held + 1 {
                return Some(symbol);
            }
        }
        let book = self.books.get_mut(&symbol)?;
        for (side, levels) in [(Side::Bid, message.bids), (Side::Ask, message.asks)] {
            levels.into_iter().for_each(|(px, qty)| book.set(side, px, qty));
        }
        if let Some(id) = message.id {
            book.set_id(id);
        }
        let top = |side| {
            let levels = book.levels(side).take(LEVELS);
            levels.map(|level| [level.px.to_string(), level.qty.to_string()]).collect::<Vec<_>>()
        };
        let price = |side| book.best(side).and_then(|level| level.px.parse::<f64>().ok());
        let is_crossed = price(Side::Bid) >= price(Side::Ask);
        let state = if is_crossed { "crossed" } else { "live" };
        let (bids, asks) = (top(Side::Bid), top(Side::Ask));
        self.tell(Line { symbol, state: state.to_owned(), id: message.id, bids, asks });
        None
    }

    fn mark(&mut self, symbol: &str, state: &str) {
        self.books.remove(symbol);
        let (symbol, state) = (symbol.to_owned(), state.to_owned());
        self.tell(Line { symbol, state, id: None, bids: Vec::new(), asks: Vec::new() });
    }

    fn tell(&self, line: Line) {
        // Nobody may listen any more.
        let _ = self.lines.blocking_send(serde_json::to_string(&line).unwrap());
    }
}

/// The venue's list has a symbol.
fn is_listed(address: SocketAddr, name: &str) -> bool {
    let mut stream = TcpStream::connect(address).unwrap();
    let target = "/v5/market/instruments-info?category=spot";
    write!(stream, "GET {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut list = String::new();
    stream.read_to_string(&mut list).unwrap();
    list.contains(name)
}

#[test]
fn a_command_is_told_where_it_is_and_its_lines_are_taken() {
    let script = "echo $FEED_SIM_WS $FEED_SIM_REST $FEED_SIM_DIALECT; \
                  echo $FEED_SIM_SYMBOLS $FEED_SIM_TO_LIST $FEED_SIM_DEPTH $FEED_SIM_LEVELS";
    let place = Place {
        address: SocketAddr::from(([127, 0, 0, 1], 9)),
        dialect: Dialect::Kraken,
        symbols: vec!["A/B".to_owned(), "C/D".to_owned()],
        to_list: vec!["E/F".to_owned()],
        depth: Some(10),
    };
    let command = Command(["sh", "-c", script].map(str::to_owned).to_vec());
    let mut started = command.start(&place).unwrap();
    let line = started.lines.blocking_recv().unwrap();
    assert_eq!(line, "ws://127.0.0.1:9 http://127.0.0.1:9 kraken");
    assert_eq!(started.lines.blocking_recv().unwrap(), "A/B,C/D E/F 10 10");
    assert_eq!(started.lines.blocking_recv(), None);
    assert!(Command(vec!["/nowhere".to_owned()]).start(&place).is_err());
}

#[test]
fn a_client_that_ends_by_itself_fails() {
    let command = Command(["sh", "-c", "echo no line"].map(str::to_owned).to_vec());
    let scenarios = vec![Scenario::load("gap").unwrap()];
    let options = CertOptions { dialect: Dialect::Okx, seed: 1, scenarios, at_once: 1 };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let verdicts = runtime.block_on(certify(options, Arc::new(command), |_| {})).unwrap();
    assert_eq!(verdicts[0].points[0].demand, Demand::Starts);
    assert!(!verdicts[0].passed() && verdicts[0].points[0].seen.contains("no line"));
}

fn certify_model(looks: bool, scenarios: &[&str]) -> Vec<Verdict> {
    let scenarios = scenarios.iter().map(|name| Scenario::load(name).unwrap()).collect();
    let options = CertOptions { dialect: Dialect::BybitSpot, seed: 1, scenarios, at_once: 40 };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(certify(options, Arc::new(Model { looks }), |_| {})).unwrap()
}

#[test]
fn a_client_that_follows_the_rules_passes() {
    let names: Vec<&str> = library().map(|(name, _)| name).collect();
    let verdicts = certify_model(true, &names);
    let failed: Vec<&Verdict> = verdicts.iter().filter(|verdict| !verdict.passed()).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    let applied = verdicts.iter().filter(|verdict| verdict.not_applicable.is_none()).count();
    assert!(applied >= 24, "{applied}");
}

#[test]
fn a_client_that_ignores_gaps_fails() {
    let verdicts = certify_model(false, &["gap", "gaps", "duplicate"]);
    let failed: Vec<(&str, Demand)> = verdicts
        .iter()
        .flat_map(|verdict| {
            let points = verdict.points.iter().filter(|point| !point.passed);
            points.map(|point| (verdict.scenario.as_str(), point.demand))
        })
        .collect();
    // How it shows hangs on what comes after the loss: the next change may mend the levels that it hid.
    for scenario in ["gap", "gaps"] {
        assert!(failed.iter().any(|(name, _)| *name == scenario), "{failed:?}");
    }
    for demand in [Demand::NeverWrong, Demand::Noticed] {
        assert!(failed.contains(&("gaps", demand)), "{failed:?}");
    }
    assert!(!failed.iter().any(|(scenario, _)| *scenario == "duplicate"), "{failed:?}");
}
