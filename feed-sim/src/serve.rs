//! The synthetic exchange of any dialect → a socket, in real time.
//!
//! Used by the binary, by tests and, in the same process, by the gateway as its default feed. One task
//! steps the exchange and hands out what it says; each connection is a task of its own. Nobody may hold
//! up the exchange: a client whose outbox is full is closed, and counted.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use percent_encoding::percent_decode_str;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::{Instant, interval, sleep, sleep_until};

use crate::door::tls::Identity;
use crate::door::{self, Answer, Outbox, Outgoing, Target, lock};
use crate::exchange::ear::Ear;
use crate::exchange::{ExchangeOptions, Said};
use crate::fault::{Act, FaultyExchange, Response, Sent};
use crate::scenario::Fault;
use crate::truth::TruthBook;
use crate::venue::binance;
use crate::venue::limits::{Limiter, Verdict};

/// How often a venue that pings its clients does.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// Steps after which others run although the exchange is late.
const STEPS_MAX: usize = 256;
const SECOND_NS: u64 = 1_000_000_000;
/// Levels of a side in the answer to a question about the truth.
const TRUTH_LEVELS_MAX: usize = 1_000;

/// How it treats its clients.
#[derive(Debug, Clone)]
pub struct Manners {
    /// How long it takes until it hears what a client says.
    pub ack_delay_ns: RangeInclusive<u64>,
    /// It keeps the venue's limits.
    pub keeps_limits: bool,
}

impl Manners {
    /// It hears at once, and puts up with everything.
    pub const EASY: Self = Self { ack_delay_ns: 0..=0, keeps_limits: false };
}

/// The exchange and who listens to it.
struct Floor {
    exchange: FaultyExchange,
    outboxes: BTreeMap<u64, Arc<Outbox>>,
    slow_closed: u64,
    ear: Ear,
    limiter: Option<Limiter>,
}

impl Floor {
    /// Lets the exchange hear what has come to its ear.
    fn listen(&mut self, now_ns: u64) {
        while let Some((connection, text)) = self.ear.hear(now_ns) {
            self.exchange.hear(connection, &text, now_ns);
            self.deliver();
        }
    }

    /// A client says something.
    fn hear(&mut self, connection: u64, text: &str, now_ns: u64) {
        let verdict = match &mut self.limiter {
            Some(limiter) => limiter.message(connection, text, now_ns),
            None => Verdict::Heard,
        };
        let heard = match verdict {
            Verdict::Heard => self.ear.say(connection, text, now_ns).map_err(|_| "too much"),
            Verdict::Closed(reason) => Err(reason),
            Verdict::Refused(text) => {
                if let Some(outbox) = self.outboxes.get(&connection) {
                    outbox.push_text(text);
                }
                Ok(())
            }
        };
        if let Err(reason) = heard {
            if let Some(outbox) = self.outboxes.get(&connection) {
                outbox.push_close(1008, reason);
            }
            self.leave(connection);
        }
    }

    /// A client is gone.
    fn leave(&mut self, connection: u64) {
        self.outboxes.remove(&connection);
        self.ear.forget(connection);
        if let Some(limiter) = &mut self.limiter {
            limiter.forget(connection);
        }
        self.exchange.disconnect(connection);
    }

    /// Does what is to be done to each connection.
    fn deliver(&mut self) {
        for Sent { connection, act } in self.exchange.take_sent() {
            let Some(outbox) = self.outboxes.get(&connection) else { continue };
            if outbox.is_full() {
                outbox.push_close(1008, "too slow");
                self.leave(connection);
                self.slow_closed += 1;
                continue;
            }
            match act {
                Act::Text(text) => outbox.push_text(text),
                Act::Raw(bytes) => outbox.push(Outgoing::Raw(bytes)),
                Act::Close(code, reason) => outbox.push_close(code, reason),
                Act::Cut => outbox.push(Outgoing::Cut),
                Act::Deafen => outbox.push(Outgoing::Deafen),
            }
        }
    }
}

/// An exchange on a socket.
pub struct ServedExchange {
    floor: Mutex<Floor>,
    options: ExchangeOptions,
    began: Instant,
    /// What happens next may come earlier than was thought.
    changed: Notify,
}

impl std::fmt::Debug for ServedExchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServedExchange").field("options", &self.options).finish_non_exhaustive()
    }
}

impl ServedExchange {
    /// An exchange whose time begins now, and which is easy on its clients.
    pub fn new(options: ExchangeOptions) -> Arc<Self> {
        Self::with_manners(options, Manners::EASY)
    }

    /// An exchange whose time begins now.
    pub fn with_manners(options: ExchangeOptions, manners: Manners) -> Arc<Self> {
        let floor = Floor {
            exchange: FaultyExchange::new(options),
            outboxes: BTreeMap::new(),
            slow_closed: 0,
            ear: Ear::new(manners.ack_delay_ns, options.seed),
            limiter: manners.keeps_limits.then(|| Limiter::new(options.dialect)),
        };
        let (floor, began, changed) = (Mutex::new(floor), Instant::now(), Notify::new());
        Arc::new(Self { floor, options, began, changed })
    }

    /// Serves it on a listener until the future is dropped, which closes every connection.
    ///
    /// # Errors
    /// When the listener fails for good.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) -> Result<()> {
        tokio::select! {
            served = door::serve(listener, Arc::new(Door(Arc::clone(&self)))) => served,
            () = self.trade() => Ok(()),
            () = self.ping(), if self.options.dialect.fetches_images() => Ok(()),
        }
    }

    /// Serves it to more clients under TLS, while it is served (see [`Self::serve`]).
    ///
    /// # Errors
    /// When the listener fails for good.
    pub async fn serve_tls(self: Arc<Self>, listener: TcpListener, by: Identity) -> Result<()> {
        door::serve_tls(listener, by, Arc::new(Door(self))).await
    }

    /// Does something with the exchange and its faults at this moment, or asks.
    pub fn with<T>(&self, act: impl FnOnce(&mut FaultyExchange, u64) -> T) -> T {
        let mut floor = lock(&self.floor);
        let done = act(&mut floor.exchange, self.now_ns());
        floor.deliver();
        self.changed.notify_one();
        done
    }

    /// From now on the market has this mean time between two events of the busiest symbol.
    pub fn set_pace(&self, pace_ns: u64) {
        self.with(|exchange, _| exchange.control(|exchange| exchange.set_pace(pace_ns)));
    }

    /// The book of a symbol as it is.
    pub fn book(&self, symbol: usize) -> TruthBook {
        lock(&self.floor).exchange.exchange().book(symbol)
    }

    /// All that was said of the market so far.
    pub fn said(&self) -> Said {
        lock(&self.floor).exchange.exchange().said()
    }

    fn now_ns(&self) -> u64 {
        let passed_ns = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.options.start_ns.saturating_add(passed_ns)
    }

    /// Steps the exchange as time goes on.
    async fn trade(&self) {
        loop {
            let due_ns = self.trade_until(self.now_ns());
            let due = Duration::from_nanos(due_ns.saturating_sub(self.options.start_ns));
            tokio::select! {
                () = sleep_until(self.began + due) => {}
                () = self.changed.notified() => {}
            }
            tokio::task::yield_now().await;
        }
    }

    /// Lets happen what is due, up to a bound; returns when the next thing is.
    fn trade_until(&self, until_ns: u64) -> u64 {
        let mut floor = lock(&self.floor);
        floor.listen(until_ns);
        for _ in 0..STEPS_MAX {
            if floor.exchange.next_ns() > until_ns {
                break;
            }
            floor.exchange.step();
            floor.deliver();
        }
        floor.exchange.next_ns().min(floor.ear.next_ns().unwrap_or(u64::MAX))
    }

    async fn ping(&self) {
        let mut interval = interval(PING_INTERVAL);
        loop {
            interval.tick().await;
            for outbox in lock(&self.floor).outboxes.values() {
                outbox.push(Outgoing::Ping);
            }
        }
    }

    /// The true book of a symbol, at a number or as it is.
    fn truth(&self, target: &Target) -> Answer {
        let name =
            percent_decode_str(target.value("symbol").unwrap_or_default()).decode_utf8_lossy();
        // Binance's own name of it is taken too.
        let Ok(id) = target.value("id").or(target.value("u")).map(str::parse).transpose() else {
            return refuse(400, "id is a whole number");
        };
        let floor = lock(&self.floor);
        let Some(symbol) = floor.exchange.exchange().symbol(&name) else {
            return refuse(404, "symbol is none of this exchange's, as it spells them");
        };
        let id = id.unwrap_or_else(|| floor.exchange.exchange().newest_id(symbol));
        match floor.exchange.exchange().book_at(symbol, id) {
            Some(book) => Answer::ok(binance::truth_body(&name, &book, TRUTH_LEVELS_MAX)),
            None => refuse(404, "the book at this id is not known any more, or not yet"),
        }
    }

    /// Counts a request; an answer refuses it.
    fn weigh(&self, target: &Target) -> Option<Answer> {
        let now_ns = self.now_ns();
        let mut floor = lock(&self.floor);
        let limiter = floor.limiter.as_mut()?;
        let wait_ns = limiter.request(&target.path, &target.query, now_ns).err()?;
        let retry_after_s = Some(wait_ns.div_ceil(SECOND_NS));
        let body = binance::rest_error(-1003, "Too much request weight used.");
        Some(Answer { retry_after_s, ..Answer::error(429, body) })
    }

    /// A refusal of the exchange is about to be written out.
    fn note_refusal(self: &Arc<Self>) {
        let exchange = Arc::clone(self);
        // The task of this connection writes the refusal out before this one has its turn.
        tokio::spawn(async move {
            exchange.with(|exchange, now_ns| exchange.refusal_is_out(now_ns));
        });
    }

    fn status(&self) -> Answer {
        let floor = lock(&self.floor);
        let (connections, subscriptions) = floor.exchange.exchange().audience();
        let Said { messages, bytes, digest } = floor.exchange.exchange().said();
        let mut body = format!(
            r#"{{"venue":"{}","seed":{},"connections":{connections},"subscriptions":{subscriptions},"slow_closed":{},"messages":{messages},"bytes":{bytes},"digest":"{digest:016x}","books":{{"#,
            self.options.dialect.venue().name(),
            self.options.seed,
            floor.slow_closed
        );
        for (symbol, name) in floor.exchange.exchange().symbols().enumerate() {
            let comma = if symbol == 0 { "" } else { "," };
            // Writing to a string cannot fail.
            let _ =
                write!(body, r#"{comma}"{name}":{}"#, floor.exchange.exchange().newest_id(symbol));
        }
        body.push_str("}}");
        Answer::ok(body)
    }

    /// What has gone wrong so far; a POST lets one more fault happen, in the words of a scenario.
    fn faults(&self, target: &Target) -> Answer {
        if target.is_post {
            let text = String::from_utf8_lossy(&target.body);
            let added = Fault::from_json(&text)
                .and_then(|fault| self.with(|exchange, now_ns| exchange.add(fault, now_ns)));
            if let Err(error) = added {
                return Answer::error(400, json!({"error": format!("{error:#}")}).to_string());
            }
        }
        Answer::ok(self.with(|exchange, _| exchange.report()).to_string())
    }
}

fn refuse(status: u16, reason: &str) -> Answer {
    Answer::error(status, binance::rest_error(-1, reason))
}

/// The side of it that clients see.
struct Door(Arc<ServedExchange>);

impl door::Exchange for Door {
    async fn answer(&self, target: Target) -> Answer {
        match target.path.as_str() {
            "/truth" => self.0.truth(&target),
            "/status" => self.0.status(),
            "/faults" => self.0.faults(&target),
            _ => {
                if let Some(refused) = self.0.weigh(&target) {
                    return refused;
                }
                let answer = |exchange: &mut FaultyExchange, now_ns| {
                    exchange.answer(&target.path, &target.query, now_ns)
                };
                let Response { reply, retry_after_s, delay_ns } = self.0.with(answer);
                if retry_after_s.is_some() {
                    self.0.note_refusal();
                }
                if delay_ns > 0 {
                    sleep(Duration::from_nanos(delay_ns)).await;
                }
                Answer { status: reply.status, body: reply.body.into(), retry_after_s }
            }
        }
    }

    fn open(&self, target: &Target, outbox: Arc<Outbox>) -> u64 {
        let now_ns = self.0.now_ns();
        let mut floor = lock(&self.0.floor);
        let connection = floor.exchange.connect(&target.path, &target.query, now_ns);
        floor.outboxes.insert(connection, outbox);
        floor.deliver();
        // A fault may have waited for a connection.
        self.0.changed.notify_one();
        connection
    }

    fn message(&self, connection: u64, text: &str) {
        let now_ns = self.0.now_ns();
        let mut floor = lock(&self.0.floor);
        floor.hear(connection, text, now_ns);
        // What takes no time is not left to the next turn.
        floor.listen(now_ns);
        self.0.changed.notify_one();
    }

    fn closed(&self, connection: u64) {
        lock(&self.0.floor).leave(connection);
    }

    fn refuse(&self, _target: &Target) -> Option<Answer> {
        let now_ns = self.0.now_ns();
        let mut floor = lock(&self.0.floor);
        if let Some(limiter) = &mut floor.limiter
            && let Err((status, body)) = limiter.connect(now_ns)
        {
            return Some(Answer::error(status, body));
        }
        let Response { reply, retry_after_s, .. } = floor.exchange.refuse_connection(now_ns)?;
        self.0.note_refusal();
        Some(Answer { status: reply.status, body: reply.body.into(), retry_after_s })
    }
}
