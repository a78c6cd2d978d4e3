//! The gateway certified at every exchange of the simulator: each scenario that can happen there, on
//! real sockets, judged by one who knows the exchange's truth and nothing of the gateway.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Result;
use feed_sim::cert::{self, CertOptions, LEVELS, Line, Place, Started, Verdict, certify};
use feed_sim::scenario::{Kind, Scenario, library};
use feed_sim::venue::Dialect;
use serde_json::{Value, json};
use tickfan::serve;
use tickfan::venue::endpoints;
use tokio::sync::mpsc;

#[path = "common/client.rs"]
mod client;
#[path = "common/gateway.rs"]
mod gateway;

use client::{Client, Heard};

/// Scenarios of a venue that run side by side; all venues do. With many more the exchanges have no time
/// to keep their own hours.
const SCENARIOS_AT_ONCE: usize = 3;

/// How often instrument lists are read again where they are to grow.
const LISTINGS_EVERY_NS: u64 = 500_000_000;

/// Lines that wait to be judged.
const LINES_MAX: usize = 4_096;

/// A gateway with one feed, and a subscriber that tells what it holds.
struct Gateway;

impl cert::Client for Gateway {
    fn start(&self, place: &Place) -> Result<Started> {
        let (sender, lines) = mpsc::channel(LINES_MAX);
        let place = place.clone();
        // It ends when nobody takes its lines any more.
        std::thread::spawn(move || subscribe(&place, &sender));
        Ok(Started { lines, guard: Box::new(()) })
    }
}

/// A view as its subscriber holds it.
#[derive(Debug, Default)]
struct Held {
    symbol: String,
    state: String,
    id: Option<u64>,
    /// Bids and asks by price.
    sides: [BTreeMap<Price, [String; 2]>; 2],
}

/// A price by which levels are sorted: digits before the point, digits behind it, both filled up.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Price(String);

impl Price {
    fn new(text: &str) -> Self {
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        Self(format!("{whole:0>20}{part:0<20}"))
    }
}

impl Held {
    fn take(&mut self, update: &Value) {
        let kind = update["t"].as_str().unwrap();
        if kind == "image" {
            self.sides = Default::default();
        }
        if let Some(state) = update["state"].as_str() {
            state.clone_into(&mut self.state);
        }
        if kind == "state" {
            return;
        }
        self.id = update["q"].as_u64();
        for (side, levels) in self.sides.iter_mut().zip(["b", "a"]) {
            for level in update[levels].as_array().into_iter().flatten() {
                let level = [0, 1].map(|place| level[place].as_str().unwrap().to_owned());
                let price = Price::new(&level[0]);
                if level[1] == "0" {
                    side.remove(&price)
                } else {
                    side.insert(price, level)
                };
            }
        }
    }

    fn line(&self) -> String {
        let [bids, asks] = &self.sides;
        let line = Line {
            symbol: self.symbol.clone(),
            state: self.state.clone(),
            id: self.id,
            bids: bids.values().rev().take(LEVELS).cloned().collect(),
            asks: asks.values().take(LEVELS).cloned().collect(),
        };
        serde_json::to_string(&line).unwrap()
    }
}

fn subscribe(place: &Place, lines: &mpsc::Sender<String>) {
    let Place { address, dialect, symbols, to_list, depth } = place;
    let symbols = [symbols.as_slice(), to_list].concat();
    let venue = dialect.venue().name();
    let depth = depth.map_or(String::new(), |depth| format!("depth = {depth}\n"));
    let mut config = gateway::config(&gateway::feed(venue, &symbols, *address, &depth));
    if !to_list.is_empty() {
        // A scenario does not last as long as a list is relied on otherwise.
        config.feeds[0].listings_every_ns = LISTINGS_EVERY_NS;
    }
    let running = serve::start(config).unwrap();
    let mut client = Client::connect(running.listen);
    // So that it is soon noticed that nobody takes the lines.
    client.say(&json!({"op": "heartbeat", "every_ms": 250}));
    let ours: Vec<String> = symbols.iter().map(|symbol| format!("{venue}:{symbol}")).collect();
    let request = json!({"channel": "book", "symbols": ours, "depth": LEVELS, "budget_ms": 0});
    let views =
        client.subscribe(request).into_iter().map(|result| result["view"].as_u64().unwrap());
    let held = symbols.iter().map(|symbol| Held { symbol: symbol.clone(), ..Held::default() });
    let mut views: BTreeMap<u64, Held> = views.zip(held).collect();
    while !lines.is_closed() {
        let Heard::Update(update, _) = client.hear() else { continue };
        let Some(held) = update["v"].as_u64().and_then(|view| views.get_mut(&view)) else {
            continue;
        };
        held.take(&update);
        if lines.blocking_send(held.line()).is_err() {
            return;
        }
    }
}

/// Certifies the gateway at a venue; returns the scenarios that it failed.
fn failures(dialect: Dialect) -> Vec<Verdict> {
    let has_list = !endpoints(dialect.venue()).instruments_paths.is_empty();
    let scenarios = library().map(|(name, _)| Scenario::load(name).unwrap());
    // Where the gateway reads no list it cannot follow one.
    let can_follow =
        |one: &Scenario| has_list || one.faults.iter().all(|fault| fault.kind != Kind::List);
    let scenarios = scenarios.filter(can_follow).collect();
    let options = CertOptions { dialect, seed: 1, scenarios, at_once: SCENARIOS_AT_ONCE };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let verdicts = runtime.block_on(certify(options, Arc::new(Gateway), |_| {})).unwrap();
    let applied = verdicts.iter().filter(|verdict| verdict.not_applicable.is_none()).count();
    println!("{dialect:?}: {applied} scenarios of {}", verdicts.len());
    assert!(applied >= 18, "{dialect:?}: only {applied}");
    verdicts.into_iter().filter(|verdict| !verdict.passed()).collect()
}

#[test]
fn the_gateway_passes_at_every_exchange() {
    let failed: Vec<(Dialect, Verdict)> = std::thread::scope(|scope| {
        let run = |dialect| scope.spawn(move || (dialect, failures(dialect)));
        let running: Vec<_> = Dialect::ALL.into_iter().map(run).collect();
        let ended = running.into_iter().map(|run| run.join().unwrap());
        ended.flat_map(|(of, failed)| failed.into_iter().map(move |one| (of, one))).collect()
    });
    let report: String = failed
        .iter()
        .map(|(dialect, verdict)| {
            let points = verdict.points.iter().filter(|point| !point.passed);
            let points: Vec<String> =
                points.map(|point| format!("{}: {}", point.demand.text(), point.seen)).collect();
            format!("{dialect:?} {}:\n  {}\n", verdict.scenario, points.join("\n  "))
        })
        .collect();
    assert!(failed.is_empty(), "\n{report}");
}
