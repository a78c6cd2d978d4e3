//! The synthetic exchange of any dialect → a socket, in real time.
//!
//! Used by tests, in the process that runs them. One task steps the market and hands out what it says;
//! each connection is a task of its own. A client whose outbox is full is closed: nobody may hold up
//! the market.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep_until};

use super::{About, ExchangeOptions};
use crate::door::{self, Answer, Outbox, Target, lock};
use crate::truth::TruthBook;

/// How long a market sleeps that has nothing to do, at the longest.
const NAP: Duration = Duration::from_millis(5);

/// What can be lost on its way to the clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Losable {
    /// A change of the book of this symbol.
    Change(usize),
    /// A trade of this symbol.
    Trade(usize),
}

/// The market and who listens to it.
struct Floor {
    exchange: super::Exchange,
    outboxes: BTreeMap<u64, Arc<Outbox>>,
    /// Messages about this are lost.
    loses: Option<Losable>,
    lost: u64,
}

impl Floor {
    /// Hands out what was said.
    fn deliver(&mut self) {
        for told in self.exchange.take_told() {
            let about = match told.about {
                About::Book { symbol, .. } => Some(Losable::Change(symbol)),
                About::Trade { symbol } => Some(Losable::Trade(symbol)),
                About::Other { .. } | About::Nothing => None,
            };
            if self.loses.is_some() && self.loses == about {
                self.lost += 1;
                continue;
            }
            let Some(outbox) = self.outboxes.get(&told.connection) else { continue };
            if outbox.is_full() {
                outbox.push_close(1008, "too slow");
                self.outboxes.remove(&told.connection);
                self.exchange.disconnect(told.connection);
            } else {
                outbox.push_text(told.text);
            }
        }
    }
}

/// An exchange on a socket.
pub struct ServedExchange {
    floor: Mutex<Floor>,
    start_ns: u64,
    began: Instant,
}

impl std::fmt::Debug for ServedExchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServedExchange").finish_non_exhaustive()
    }
}

impl ServedExchange {
    /// An exchange whose time begins now.
    pub fn new(options: ExchangeOptions) -> Arc<Self> {
        let exchange = super::Exchange::new(options);
        let floor = Floor { exchange, outboxes: BTreeMap::new(), loses: None, lost: 0 };
        let start_ns = options.start_ns;
        Arc::new(Self { floor: Mutex::new(floor), start_ns, began: Instant::now() })
    }

    /// Serves it on a listener until the future is dropped, which closes every connection.
    ///
    /// # Errors
    /// When the listener fails for good.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) -> Result<()> {
        tokio::select! {
            served = door::serve(listener, Arc::new(Door(Arc::clone(&self)))) => served,
            () = self.trade() => Ok(()),
        }
    }

    /// From now on messages about this are lost on their way.
    pub fn lose(&self, about: Option<Losable>) {
        lock(&self.floor).loses = about;
    }

    /// How many messages were lost.
    pub fn lost(&self) -> u64 {
        lock(&self.floor).lost
    }

    /// From now on the market has this mean time between two events.
    pub fn set_pace(&self, pace_ns: u64) {
        lock(&self.floor).exchange.set_pace(pace_ns);
    }

    /// The book of a symbol as it is.
    pub fn book(&self, symbol: usize) -> TruthBook {
        lock(&self.floor).exchange.book(symbol).clone()
    }

    fn now_ns(&self) -> u64 {
        let passed_ns = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.start_ns.saturating_add(passed_ns)
    }

    /// Steps the market as time goes on.
    async fn trade(&self) {
        loop {
            let due_ns = {
                let mut floor = lock(&self.floor);
                let now_ns = self.now_ns();
                while floor.exchange.next_ns() <= now_ns {
                    floor.exchange.step();
                    floor.deliver();
                }
                floor.exchange.next_ns()
            };
            // Its pace may be changed meanwhile.
            let due = Duration::from_nanos(due_ns.saturating_sub(self.start_ns));
            sleep_until((self.began + due).min(Instant::now() + NAP)).await;
        }
    }
}

/// The side of it that clients see.
struct Door(Arc<ServedExchange>);

impl door::Exchange for Door {
    async fn answer(&self, target: Target) -> Answer {
        let reply = lock(&self.0.floor).exchange.answer(&target.path, &target.query);
        if reply.status == 200 {
            Answer::ok(reply.body)
        } else {
            Answer::error(reply.status, reply.body)
        }
    }

    fn open(&self, target: &Target, outbox: Arc<Outbox>) -> u64 {
        let now_ns = self.0.now_ns();
        let mut floor = lock(&self.0.floor);
        let connection = floor.exchange.connect(&target.path, &target.query, now_ns);
        floor.outboxes.insert(connection, outbox);
        floor.deliver();
        connection
    }

    fn message(&self, connection: u64, text: &str) {
        let now_ns = self.0.now_ns();
        let mut floor = lock(&self.0.floor);
        floor.exchange.hear(connection, text, now_ns);
        floor.deliver();
    }

    fn closed(&self, connection: u64) {
        let mut floor = lock(&self.0.floor);
        floor.outboxes.remove(&connection);
        floor.exchange.disconnect(connection);
    }
}
