//! A seeded subscriber: what it asks, how fast it reads, and when it goes.
//!
//! Called by the world, in virtual time. It speaks the protocol with code of its own; what it is told
//! is judged by its connection's checker.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use serde_json::{Value, json};
use tickfan_core::market::Nanos;

use super::checker::{Asked, Reply, Session};
use super::pipe::{End, PipeOptions};
use super::random::Random;
use super::venue::MICRO_NS;
use crate::fanout::table::ConnectionKey;
use crate::limits::MILLI_NS;

/// Frames after its last answer within which a reader must have the next, however slow it is: one
/// while its request is read, one while it is carried out, and what more there is to do of each.
const ANSWERED_WITHIN: u64 = 12;

/// How a client reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// Everything at once.
    Fast,
    /// So many bytes a millisecond.
    Slow(usize),
    /// Everything at once, but for a while nothing: how long it reads, how long it does not.
    Stalling(Nanos, Nanos),
    /// From 1 to so many bytes a millisecond.
    Dribbling(u64),
}

/// What a client is like.
#[derive(Debug, Clone)]
pub(super) struct Habits {
    pub(super) reading: Reading,
    /// Bytes that its connection holds for it.
    pub(super) capacity: usize,
    /// Bytes that one call moves at most; 0 = all.
    pub(super) bite: u64,
    /// It asks for something about this often.
    pub(super) asks_every_ns: Nanos,
    /// It may leave, and come back.
    pub(super) leaves: bool,
    /// It may change what it subscribed to.
    pub(super) changes: bool,
    /// The budgets that it asks for.
    pub(super) budgets_ms: Vec<u64>,
    /// What one call on its connection costs the gateway, in microseconds from and to.
    pub(super) cost_us: (u64, u64),
}

impl Habits {
    /// A client of any kind.
    pub(super) fn draw(random: &mut Random, leaves: bool) -> Self {
        let reading = match random.below(6) {
            0 | 1 => Reading::Fast,
            2 | 3 => Reading::Slow(random.between(200, 8_000) as usize),
            4 => Reading::Stalling(
                random.between(20, 600) * MILLI_NS,
                random.between(20, 1_500) * MILLI_NS,
            ),
            _ => Reading::Dribbling(random.between(40, 2_000)),
        };
        let capacity = match reading {
            Reading::Fast => 1 << 22,
            _ => random.pick(&[300, 2_000, 8_000, 64_000]),
        };
        let all = [0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000];
        let budgets = random.between(1, 4);
        Self {
            reading,
            capacity,
            bite: if random.per_mille(250) { random.between(1, 900) } else { 0 },
            asks_every_ns: random.between(40, 400) * MILLI_NS,
            leaves: leaves && random.coin(),
            changes: random.below(4) > 0,
            budgets_ms: (0..budgets).map(|_| random.pick(&all)).collect(),
            cost_us: (0, 0),
        }
    }

    /// A client that only reads, at once.
    pub(super) fn fast(random: &mut Random) -> Self {
        let budgets_ms = vec![random.pick(&[10, 20, 50, 100, 200, 500, 1_000])];
        Self {
            reading: Reading::Fast,
            capacity: 1 << 22,
            bite: 0,
            asks_every_ns: random.between(40, 400) * MILLI_NS,
            leaves: false,
            changes: false,
            budgets_ms,
            cost_us: (0, 0),
        }
    }
}

/// One connection of a client.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) key: ConnectionKey,
    pub(super) end: End,
    pub(super) session: Session,
    /// It went without a word.
    pub(super) is_aborted: bool,
    /// Nothing could be sent to it from then on: what was under way is lost.
    pub(super) is_reset: bool,
    /// It said goodbye, or something that no client may say.
    pub(super) is_leaving: bool,
}

impl Line {
    /// It is gone without a word.
    pub(super) fn abort(&mut self, reset: bool) {
        self.is_aborted = true;
        self.is_reset = reset;
        self.end.abort(reset);
    }

    /// The cause for which it ends, as far as its client can tell.
    pub(super) fn cause(&self) -> Option<&'static str> {
        match self.session.closed {
            _ if self.is_reset => None,
            Some(1000) if self.is_leaving => Some("done"),
            Some(1002) if self.is_leaving => Some("protocol_error"),
            Some(1003) if self.is_leaving => Some("unsupported"),
            Some(1012) => Some("restart"),
            Some(4005) => Some("bad_requests"),
            None if self.is_aborted => Some("gone"),
            _ => Some("no cause that it knows"),
        }
    }
}

/// See the top of this file.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) habits: Habits,
    random: Random,
    pub(super) line: Option<Line>,
    symbols: Vec<String>,
    next_id: u64,
    pub(super) connects_ns: Nanos,
    asks_ns: Nanos,
    reads_ns: Nanos,
    stalls_ns: Nanos,
}

impl Client {
    pub(super) fn new(
        habits: Habits,
        symbols: Vec<String>,
        mut random: Random,
        now: Nanos,
    ) -> Self {
        let connects_ns = now + random.below(400) * MILLI_NS;
        Self {
            habits,
            random,
            line: None,
            symbols,
            next_id: 0,
            connects_ns,
            asks_ns: 0,
            reads_ns: 0,
            stalls_ns: 0,
        }
    }

    /// A stream for a connection to be made.
    pub(super) fn new_end(&mut self, clock: Arc<AtomicU64>) -> End {
        let Habits { capacity, bite, cost_us, .. } = self.habits;
        End::new(PipeOptions { capacity, bite, clock, cost_us }, self.random.split())
    }

    /// The connection is made.
    pub(super) fn connected(&mut self, key: ConnectionKey, end: End, now: Nanos, records: bool) {
        let is_heard_whole = self.habits.bite == 0;
        let answered_within = if is_heard_whole { ANSWERED_WITHIN } else { u64::MAX };
        let mut session = Session::new(answered_within);
        session.record = records.then(Vec::new);
        self.line =
            Some(Line { key, end, session, is_aborted: false, is_reset: false, is_leaving: false });
        self.connects_ns = Nanos::MAX;
        self.asks_ns = now + self.random.below(20) * MILLI_NS;
        self.reads_ns = now;
        self.stalls_ns = now;
    }

    /// The connection is over.
    pub(super) fn disconnected(&mut self, now: Nanos) -> Option<Line> {
        self.connects_ns = now + self.random.between(1, 300) * MILLI_NS;
        self.line.take()
    }

    /// When it does anything next.
    pub(super) fn next_ns(&self) -> Nanos {
        let Some(line) = &self.line else { return self.connects_ns };
        let reads_ns = if line.end.has_output() { self.reads_ns } else { Nanos::MAX };
        self.asks_ns.min(reads_ns)
    }

    /// Its plans wait while nothing happens anywhere.
    pub(super) const fn postpone(&mut self, by_ns: Nanos) {
        if self.line.is_some() {
            self.asks_ns = self.asks_ns.saturating_add(by_ns);
        }
    }

    /// Does what is due; with `acts` it asks for things too.
    pub(super) fn act(&mut self, now: Nanos, acts: bool) {
        self.read(now);
        if self.asks_ns <= now {
            if acts {
                self.ask(now);
                self.asks_ns = now + 1 + self.random.below(2 * self.habits.asks_every_ns);
                self.asks_ns -= self.asks_ns % MICRO_NS;
            } else {
                self.asks_ns = Nanos::MAX;
            }
        }
    }

    fn read(&mut self, now: Nanos) {
        let Some(line) = &self.line else { return };
        if self.reads_ns > now {
            return;
        }
        let count = match self.habits.reading {
            Reading::Fast => usize::MAX,
            Reading::Slow(bytes) => bytes,
            Reading::Dribbling(bytes) => self.random.between(1, bytes) as usize,
            Reading::Stalling(reads_ns, stalls_ns) => {
                if now >= self.stalls_ns + reads_ns {
                    self.stalls_ns = now + stalls_ns;
                    self.reads_ns = self.stalls_ns;
                    return;
                }
                usize::MAX
            }
        };
        line.end.drain(count);
        self.reads_ns = now + if self.habits.reading == Reading::Fast { 0 } else { MILLI_NS };
    }

    /// Answers what must be answered.
    pub(super) fn reply(&mut self, replies: Vec<Reply>) {
        for Reply::Pong(payload) in replies {
            self.write(10, &payload);
        }
    }

    fn write(&mut self, opcode: u8, payload: &[u8]) {
        let mask = self.random.below(1 << 32) as u32;
        let cut = if opcode == 1 && self.random.per_mille(100) { payload.len() / 2 } else { 0 };
        let Some(line) = &self.line else { return };
        if cut > 0 {
            line.end.write(&masked(opcode, false, &payload[..cut], mask));
            line.end.write(&masked(0, true, &payload[cut..], !mask));
        } else {
            line.end.write(&masked(opcode, true, payload, mask));
        }
    }

    fn request(&mut self, asked: Option<Asked>, mut request: Value) {
        self.next_id += 1;
        if let (Some(asked), Some(line)) = (asked, &mut self.line) {
            request["id"] = json!(self.next_id);
            let n = line.session.n;
            line.session.asked.insert(self.next_id, (asked, n));
        }
        self.write(1, request.to_string().as_bytes());
    }

    fn ask(&mut self, now: Nanos) {
        let Some(line) = &self.line else { return };
        if line.session.closed.is_some() || line.is_aborted || line.is_leaving {
            return;
        }
        let views: Vec<u32> = line.session.views.keys().copied().collect();
        if views.len() < 2 || (views.len() < 10 && self.random.per_mille(250)) {
            return self.subscribe();
        }
        if !self.habits.changes {
            return;
        }
        let some: Vec<u32> = views.iter().copied().filter(|_| self.random.per_mille(400)).collect();
        let budget_ms = self.budget_ms();
        match self.random.below(100) {
            0..15 => {
                self.request(Some(Asked::Unsubscribe), json!({"op": "unsubscribe", "views": some}))
            }
            15..20 => {
                let symbol = self.random.below(self.symbols.len() as u64) as usize;
                let symbol = self.symbols[symbol].clone();
                let channel = self.random.pick(&["book", "bbo", "trades"]);
                self.request(
                    Some(Asked::Unsubscribe),
                    json!({"op": "unsubscribe", "channel": channel, "symbols": [symbol]}),
                );
            }
            20..55 => self.request(
                Some(Asked::Modify),
                json!({"op": "modify", "views": some, "budget_ms": budget_ms}),
            ),
            55..70 => {
                // Trades have no whole; to ask for what is not held counts as a bad request.
                let with_whole: Vec<u32> = some.into_iter().filter(|v| v % 16 != 2).collect();
                if let Some(Line { session, .. }) = &mut self.line {
                    for view in with_whole.iter().filter_map(|view| session.views.get(view)) {
                        session.pace.asked_whole(view.budget_ns);
                    }
                }
                self.request(Some(Asked::Image), json!({"op": "image", "views": with_whole}));
            }
            70..76 => {
                let every_ms = self.random.pick(&[250, 400, 10_000]);
                if let Some(line) = &mut self.line {
                    line.session.heartbeat_ns = every_ms * MILLI_NS;
                }
                self.request(None, json!({"op": "heartbeat", "every_ms": every_ms}));
            }
            76..82 => self.request(Some(Asked::Ping), json!({"op": "ping"})),
            82..88 => {
                let payload = format!("{now}").into_bytes();
                if let Some(line) = &mut self.line {
                    line.session.pings.push(payload.clone());
                }
                self.write(9, &payload);
            }
            88..92 if self.habits.leaves => {
                let reset = self.random.below(4) == 0;
                if let Some(line) = &mut self.line {
                    line.abort(reset);
                }
            }
            92..94 if self.habits.leaves => self.leave(8, &1000u16.to_be_bytes()),
            // Binary requests are not understood, and opcode 3 is nobody's.
            94 if self.habits.leaves => self.leave(2, b"{}"),
            95 if self.habits.leaves => self.leave(3, b""),
            _ => {}
        }
    }

    /// Sends what ends the connection.
    fn leave(&mut self, opcode: u8, payload: &[u8]) {
        if let Some(line) = &mut self.line {
            line.is_leaving = true;
        }
        self.write(opcode, payload);
    }

    fn budget_ms(&mut self) -> u64 {
        let budgets = self.habits.budgets_ms.clone();
        self.random.pick(&budgets)
    }

    fn subscribe(&mut self) {
        let first = self.random.below(self.symbols.len() as u64) as usize;
        let last = self.random.between(first as u64 + 1, self.symbols.len() as u64) as usize;
        let symbols = self.symbols[first..last].to_vec();
        let budget_ms = self.budget_ms();
        let mut request = json!({"op": "subscribe", "symbols": symbols, "budget_ms": budget_ms});
        match self.random.below(4) {
            0 => request["channel"] = json!("bbo"),
            1 => {
                request["channel"] = json!("trades");
                request["last"] = json!(self.random.pick(&[0, 0, 1, 7, 70, 1_000]));
            }
            _ => {
                request["channel"] = json!("book");
                request["depth"] = match self.random.below(4) {
                    0 => json!(1),
                    1 => json!(5),
                    2 => json!(20),
                    _ => json!("full"),
                };
            }
        }
        self.request(Some(Asked::Subscribe), request);
    }
}

/// A frame as a client sends it.
fn masked(opcode: u8, is_last: bool, payload: &[u8], mask: u32) -> Vec<u8> {
    let mask = mask.to_be_bytes();
    let mut frame = vec![opcode | if is_last { 0x80 } else { 0 }];
    match payload.len() {
        length @ 0..126 => frame.push(0x80 | length as u8),
        length => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
    }
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}
