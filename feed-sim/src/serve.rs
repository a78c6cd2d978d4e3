//! The synthetic market → Binance spot on a socket, in real time.
//!
//! Used by the binary and, in the same process, by the gateway as its default feed. One task steps the
//! market and hands out its messages; each connection is a task of its own. Nobody may hold up the
//! market: a client whose outbox is full is closed, and counted.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::time::{Instant, interval, sleep_until};

use crate::door::{self, Answer, Exchange, Outbox, Outgoing, Target, lock};
use crate::market::{Market, MarketOptions, Message};
use crate::venue::binance;

/// How often the venue pings its clients.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// Steps after which others run although the market is late.
const STEPS_MAX: usize = 256;
/// Levels of a side in the answer to a question about the truth.
const TRUTH_LEVELS_MAX: usize = 1_000;

/// Serves the market on a listener until the future is dropped, which closes every connection.
///
/// # Errors
/// When the listener fails for good.
pub async fn serve(listener: TcpListener, options: MarketOptions) -> Result<()> {
    let floor =
        Floor { market: Market::new(options), clients: BTreeMap::new(), opened: 0, slow_closed: 0 };
    let sim = Arc::new(Sim { floor: Mutex::new(floor), start_ns: options.start_ns });
    tokio::select! {
        served = door::serve(listener, Arc::clone(&sim)) => served,
        () = sim.trade() => Ok(()),
        () = sim.ping() => Ok(()),
    }
}

struct Client {
    outbox: Arc<Outbox>,
    session: binance::Session,
}

/// The market and who listens to it.
struct Floor {
    market: Market,
    clients: BTreeMap<u64, Client>,
    opened: u64,
    slow_closed: u64,
}

impl Floor {
    fn deliver(&mut self, message: Message) {
        let key = binance::stream_key(&message.stream);
        let payload = Bytes::from(message.payload);
        let mut slow = Vec::new();
        for (connection, client) in self.clients.iter().filter(|(_, c)| c.session.has(&key)) {
            if client.outbox.is_full() {
                client.outbox.push_close(1008, "too slow");
                slow.push(*connection);
                continue;
            }
            match binance::unwrap_combined(&payload) {
                Some((_, data)) if !client.session.is_combined() => client.outbox.push_text(data),
                _ => client.outbox.push_text(payload.clone()),
            }
        }
        for connection in slow {
            self.clients.remove(&connection);
            self.slow_closed += 1;
        }
    }
}

struct Sim {
    floor: Mutex<Floor>,
    start_ns: u64,
}

impl Sim {
    /// Steps the market as time goes on.
    async fn trade(&self) {
        let began = Instant::now();
        loop {
            let next_ns = lock(&self.floor).market.next_at_ns();
            sleep_until(began + Duration::from_nanos(next_ns.saturating_sub(self.start_ns))).await;
            let passed_ns = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.trade_until(self.start_ns.saturating_add(passed_ns));
            tokio::task::yield_now().await;
        }
    }

    fn trade_until(&self, until_ns: u64) {
        let mut floor = lock(&self.floor);
        for _ in 0..STEPS_MAX {
            if floor.market.next_at_ns() > until_ns {
                return;
            }
            for message in floor.market.step().messages {
                floor.deliver(message);
            }
        }
    }

    async fn ping(&self) {
        let mut interval = interval(PING_INTERVAL);
        loop {
            interval.tick().await;
            for client in lock(&self.floor).clients.values() {
                client.outbox.push(Outgoing::Ping);
            }
        }
    }

    fn depth(&self, target: &Target) -> Answer {
        let symbol = target.value("symbol").unwrap_or_default().to_uppercase();
        let Ok(limit) = target.value("limit").map(str::parse).transpose() else {
            return binance_error(400, -1100, "Illegal characters found in parameter 'limit'.");
        };
        match lock(&self.floor).market.depth_snapshot(&symbol, limit) {
            Some(body) => Answer::ok(body),
            None => binance_error(400, -1121, "Invalid symbol."),
        }
    }

    fn truth(&self, target: &Target) -> Answer {
        let symbol = target.value("symbol").unwrap_or_default().to_uppercase();
        let Ok(update_id) = target.value("u").map(str::parse).transpose() else {
            return binance_error(400, -1100, "Illegal characters found in parameter 'u'.");
        };
        match lock(&self.floor).market.truth(&symbol, update_id) {
            Some(book) => Answer::ok(binance::truth_body(&symbol, &book, TRUTH_LEVELS_MAX)),
            None => binance_error(404, -1, "No such symbol, or its book at that u is not kept."),
        }
    }

    fn status(&self) -> Answer {
        let floor = lock(&self.floor);
        let subscriptions: usize = floor.clients.values().map(|c| c.session.subscriptions()).sum();
        Answer::ok(format!(
            r#"{{"connections":{},"subscriptions":{subscriptions},"slow_closed":{}}}"#,
            floor.clients.len(),
            floor.slow_closed
        ))
    }
}

fn binance_error(status: u16, code: i32, message: &str) -> Answer {
    Answer::error(status, binance::rest_error(code, message))
}

impl Exchange for Sim {
    async fn answer(&self, target: Target) -> Answer {
        match target.path.as_str() {
            "/api/v3/depth" => self.depth(&target),
            "/api/v3/exchangeInfo" => Answer::ok(lock(&self.floor).market.exchange_info()),
            "/truth" => self.truth(&target),
            "/status" => self.status(),
            _ => binance_error(404, -1, "There is nothing at this path."),
        }
    }

    fn open(&self, target: &Target, outbox: Arc<Outbox>) -> u64 {
        let mut floor = lock(&self.floor);
        floor.opened += 1;
        let session = binance::Session::open(&target.path, &target.query);
        let connection = floor.opened;
        floor.clients.insert(connection, Client { outbox, session });
        connection
    }

    fn message(&self, connection: u64, text: &str) {
        if let Some(client) = lock(&self.floor).clients.get_mut(&connection) {
            let reply = client.session.message(text);
            client.outbox.push_text(reply);
        }
    }

    fn closed(&self, connection: u64) {
        lock(&self.floor).clients.remove(&connection);
    }
}
