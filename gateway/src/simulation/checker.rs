//! One connection as its client sees it: bytes in, and the first broken invariant out.
//!
//! The world hands it every byte at the moment at which the socket took it. It reads the protocol
//! with code of its own, keeps a mirror of every view, and holds each update against the truth. The
//! invariants have the names of the reference: I1 exact, I2 in order, I4 sums, I5 budget.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use tickfan_core::market::Nanos;
use tickfan_core::view::BUDGETS_MS;

use super::lateness::{Circumstances, Lateness};
use super::mirror::{Begun, Shows, View};
use super::pace::Pace;
use super::pipe::Taken;
use super::truth::SymbolTruth;
use super::venue::MICRO_NS;
use crate::limits::MILLI_NS;

/// A book with more levels a side may be an image that travels in a frame of its own.
const LEVELS_LARGE: usize = 1_000;

/// An invariant that does not hold.
#[derive(Debug, Clone)]
pub(super) struct Violation {
    pub(super) invariant: &'static str,
    pub(super) what: String,
}

pub(super) type Checked<T = ()> = Result<T, Violation>;

/// The invariant is broken, unless `holds`.
pub(super) fn hold(holds: bool, invariant: &'static str, what: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(Violation { invariant, what: what() }) }
}

#[derive(Deserialize)]
struct Frame<'a> {
    n: u64,
    ts: u64,
    #[serde(default)]
    late: Vec<usize>,
    late_us: Option<u64>,
    #[serde(borrow)]
    u: Vec<Update<'a>>,
}

/// One update of a frame.
#[derive(Deserialize)]
pub(super) struct Update<'a> {
    pub(super) t: &'a str,
    pub(super) v: u32,
    pub(super) e: Option<u32>,
    pub(super) s: Option<u64>,
    pub(super) p: Option<u64>,
    pub(super) q: Option<u64>,
    pub(super) tr: Option<u64>,
    pub(super) to: Option<u64>,
    pub(super) state: Option<&'a str>,
    pub(super) since: Option<u64>,
    pub(super) lost: Option<u64>,
    #[serde(borrow)]
    pub(super) b: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) a: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) x: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "type")]
    kind: String,
    id: Option<u64>,
    #[serde(default)]
    results: Vec<Subscribed>,
    #[serde(default)]
    views: Vec<u32>,
    code: Option<String>,
}

#[derive(Deserialize)]
struct Subscribed {
    symbol: String,
    ok: bool,
    view: Option<u32>,
    channel: Option<String>,
    depth: Option<serde_json::Value>,
    budget_ms: Option<u64>,
    epoch: Option<u32>,
    s: Option<u64>,
    state: Option<String>,
    code: Option<String>,
}

/// What a client asked, to hold the answer against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    Subscribe,
    Unsubscribe,
    Modify,
    Image,
    Ping,
}

/// What the checker counted.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) frames: u64,
    pub(super) updates: u64,
    pub(super) images: u64,
    pub(super) deltas: u64,
    pub(super) trades: u64,
    pub(super) trades_lost: u64,
    pub(super) merged: u64,
    pub(super) late: u64,
    /// Of those, by cause; and those of which only the gateway can know it.
    pub(super) late_gateway: u64,
    pub(super) late_client: u64,
    pub(super) late_either: u64,
    /// Updates that the gateway may call late or not: only it knows what a lane had told before.
    pub(super) undecided: u64,
    /// Sends to seats that had rested for their pace.
    pub(super) paced: u64,
    /// Updates and late ones by class.
    pub(super) by_class: [[u64; 2]; BUDGETS_MS.len()],
}

impl Counts {
    pub(super) fn add(&mut self, other: &Self) {
        self.frames += other.frames;
        self.updates += other.updates;
        self.images += other.images;
        self.deltas += other.deltas;
        self.trades += other.trades;
        self.trades_lost += other.trades_lost;
        self.merged += other.merged;
        self.late += other.late;
        self.late_gateway += other.late_gateway;
        self.late_client += other.late_client;
        self.late_either += other.late_either;
        self.undecided += other.undecided;
        self.paced += other.paced;
        for (own, others) in self.by_class.iter_mut().zip(&other.by_class) {
            own[0] += others[0];
            own[1] += others[1];
        }
    }
}

/// What is to be done about bytes of the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    /// It pinged: answer with the same payload.
    Pong(Vec<u8>),
}

/// Whole messages of a connection, and when they came.
pub(super) type Record = Vec<(Nanos, u8, Vec<u8>)>;

/// One connection.
#[derive(Debug, Default)]
pub(super) struct Session {
    bytes: Vec<u8>,
    /// The connection owes bytes that were refused.
    is_owing: bool,
    /// They have come since this time, and the frame that they are of has not.
    resumed_ns: Option<Nanos>,
    /// Until when the connection was blocked last.
    hindered_ns: Nanos,
    pub(super) pace: Pace,
    /// What came, when that is kept.
    pub(super) record: Option<Record>,
    pub(super) views: BTreeMap<u32, View>,
    /// What was asked and not answered, and the number of the last frame before it.
    pub(super) asked: BTreeMap<u64, (Asked, u64)>,
    /// Payloads of our own pings that wait for their pong.
    pub(super) pings: Vec<Vec<u8>>,
    /// The code of the close frame that came.
    pub(super) closed: Option<u16>,
    /// A frame is wanted after this long without any; 0 = not wanted.
    pub(super) heartbeat_ns: Nanos,
    /// When the last data frame came, or the heartbeat was asked for.
    pub(super) frame_ns: Nanos,
    pub(super) counts: Counts,
    pub(super) n: u64,
    /// Frames after which even the slowest reader must have its answer.
    answered_within: u64,
    /// The number of the last frame before the last answer.
    answered_at: u64,
    greeted: bool,
}

impl Session {
    pub(super) fn new(answered_within: u64) -> Self {
        Self { answered_within, ..Self::default() }
    }

    /// Looks at bytes that the socket took just now.
    pub(super) fn absorb(
        &mut self,
        taken: &Taken,
        now: Nanos,
        truth: &[SymbolTruth],
        replies: &mut Vec<Reply>,
    ) -> Checked {
        let was_owing = std::mem::replace(&mut self.is_owing, taken.refused > 0);
        self.bytes.extend_from_slice(&taken.bytes);
        let mut all = std::mem::take(&mut self.bytes);
        let mut rest = all.as_slice();
        while let Some((opcode, payload, after)) = split_frame(rest)? {
            rest = after;
            hold(self.closed.is_none(), "I2", || "bytes follow a close frame".to_owned())?;
            if let Some(record) = &mut self.record {
                record.push((now, opcode, payload.to_vec()));
            }
            match opcode {
                1 => self.text(payload, now, truth)?,
                8 => {
                    let code = payload.get(..2).map(|code| u16::from_be_bytes([code[0], code[1]]));
                    self.closed = Some(code.unwrap_or(1005));
                }
                9 => {
                    self.pace.carries()?;
                    replies.push(Reply::Pong(payload.to_vec()));
                }
                10 => {
                    self.pace.carries()?;
                    let known = self.pings.iter().position(|sent| sent == payload);
                    let known = known.ok_or_else(|| Violation {
                        invariant: "protocol",
                        what: format!("a pong that nobody asked for: {payload:?}"),
                    })?;
                    self.pings.remove(known);
                }
                _ => hold(false, "protocol", || format!("a frame of opcode {opcode}"))?,
            }
            if let Some(resumed_ns) = self.resumed_ns.take() {
                self.unblocked(resumed_ns)?;
            }
        }
        let read = all.len() - rest.len();
        all.drain(..read);
        self.bytes = all;
        if was_owing && !self.is_owing {
            if self.bytes.is_empty() {
                self.unblocked(taken.resumed_ns)?;
            } else {
                self.resumed_ns = Some(taken.resumed_ns);
            }
        }
        Ok(())
    }

    fn unblocked(&mut self, at_ns: Nanos) -> Checked {
        self.hindered_ns = at_ns;
        self.pace.excuse_all()
    }

    fn text(&mut self, payload: &[u8], now: Nanos, truth: &[SymbolTruth]) -> Checked {
        let broken = |error: serde_json::Error| Violation {
            invariant: "protocol",
            what: format!("{error} in {}", String::from_utf8_lossy(payload)),
        };
        if payload.starts_with(b"{\"n\":") {
            let frame: Frame<'_> = serde_json::from_slice(payload).map_err(broken)?;
            self.pace.frame(frame.ts * MICRO_NS, payload.len())?;
            return self.frame(&frame, now, truth).map_err(|violation| Violation {
                what: format!("{}; {}", violation.what, shortened(payload)),
                ..violation
            });
        }
        let answer: Answer = serde_json::from_slice(payload).map_err(broken)?;
        self.answer(answer, truth).map_err(|violation| Violation {
            what: format!("{}; {}", violation.what, shortened(payload)),
            ..violation
        })
    }

    fn answer(&mut self, answer: Answer, truth: &[SymbolTruth]) -> Checked {
        self.answered_at = self.n;
        self.pace.excuse_all()?;
        let asked = answer.id.and_then(|id| self.asked.remove(&id)).map(|(asked, _)| asked);
        if let (Some(Asked::Image), Some(id)) = (&asked, answer.id) {
            // Each view that cannot be sent whole has an error of its own.
            self.asked.insert(id, (Asked::Image, self.n));
        }
        let fits = match answer.kind.as_str() {
            "hello" => !std::mem::replace(&mut self.greeted, true),
            "subscribed" => matches!(asked, Some(Asked::Subscribe | Asked::Modify)),
            "unsubscribed" => asked == Some(Asked::Unsubscribe),
            "drain" => true,
            "pong" => asked == Some(Asked::Ping),
            "error" => match answer.code.as_deref() {
                Some("rate_limited") => true,
                // Between the asking and the answer the view may have ended.
                Some("not_subscribed") => asked == Some(Asked::Image),
                _ => false,
            },
            _ => false,
        };
        hold(fits, "protocol", || format!("an answer of {} to {asked:?}", answer.kind))?;
        for view in answer.views {
            let ended = self.views.remove(&view);
            hold(ended.is_some(), "protocol", || format!("view {view} ended and was none"))?;
        }
        for result in answer.results {
            if result.ok {
                self.subscribed(&result, truth)?;
            } else {
                hold(result.code.as_deref() == Some("not_subscribed"), "protocol", || {
                    format!("{} is refused: {:?}", result.symbol, result.code)
                })?;
            }
        }
        Ok(())
    }

    fn subscribed(&mut self, result: &Subscribed, truth: &[SymbolTruth]) -> Checked {
        let missing = || Violation {
            invariant: "protocol",
            what: format!("a result for {} lacks fields", result.symbol),
        };
        let number = result.view.ok_or_else(missing)?;
        let s = result.s.ok_or_else(missing)?;
        let budget_ns = result.budget_ms.ok_or_else(missing)? * 1_000_000;
        let state = result.state.clone().ok_or_else(missing)?;
        if let Some(view) = self.views.get_mut(&number) {
            view.is_moved |= view.budget_ns != budget_ns;
            view.budget_ns = budget_ns;
            let stands = view.shows == Shows::Trades || view.is_whole;
            return hold(!stands || s == view.held, "I2", || {
                format!("view {number} stands at {} and is said to stand at {s}", view.held)
            });
        }
        let name = result.symbol.split_once(':').map_or("", |(_, name)| name);
        let symbol = truth.iter().position(|truth| truth.name == name).ok_or_else(missing)?;
        let depth = match &result.depth {
            Some(serde_json::Value::Number(depth)) => depth.as_u64().map(|depth| depth as usize),
            Some(serde_json::Value::String(depth)) if depth == "full" => Some(usize::MAX),
            _ => None,
        };
        let shows = match result.channel.as_deref() {
            Some("book") => Shows::Book(depth.ok_or_else(missing)?),
            Some("bbo") => Shows::Bbo,
            Some("trades") => Shows::Trades,
            _ => return Err(missing()),
        };
        let epoch = result.epoch.ok_or_else(missing)?;
        let begun = Begun { symbol, shows, budget_ns, state, epoch, s };
        let view = View::new(begun, &truth[symbol]);
        let levels = truth[symbol].live.cut(usize::MAX)[0].len();
        let is_large = |depth: usize| depth.min(levels) > LEVELS_LARGE;
        self.pace.has_large |= matches!(shows, Shows::Book(depth) if is_large(depth));
        self.views.insert(number, view);
        Ok(())
    }

    fn frame(&mut self, frame: &Frame<'_>, now: Nanos, truth: &[SymbolTruth]) -> Checked {
        self.n += 1;
        if frame.u.is_empty() {
            self.pace.carries()?;
        }
        hold(frame.n == self.n, "I2", || format!("frame {} follows {}", frame.n, self.n - 1))?;
        let forgotten = self
            .asked
            .values()
            .filter(|(asked, _)| *asked != Asked::Image)
            .find(|(_, n)| self.n - (*n).max(self.answered_at) > self.answered_within);
        hold(forgotten.is_none(), "I8", || format!("no answer to {forgotten:?}"))?;
        hold(frame.ts * MICRO_NS <= now, "I5", || format!("ts is after now, {now}"))?;
        self.frame_ns = self.frame_ns.max(frame.ts * MICRO_NS);
        let in_range = frame.late.iter().all(|index| *index < frame.u.len());
        let is_ascending = frame.late.is_sorted_by(|a, b| a < b);
        let is_paired = frame.late.is_empty() == frame.late_us.is_none();
        hold(in_range && is_ascending && is_paired && frame.u.len() <= 64, "protocol", || {
            "late does not fit the updates".to_owned()
        })?;
        let ts_ns = frame.ts * MICRO_NS;
        let mut lateness = Lateness::new(&frame.late, frame.late_us.unwrap_or(0), ts_ns);
        for (index, update) in frame.u.iter().enumerate() {
            self.update(index, update, ts_ns, truth, &mut lateness)?;
        }
        lateness.finish()?;
        self.counts.frames += 1;
        self.counts.updates += frame.u.len() as u64;
        self.counts.late += frame.late.len() as u64;
        Ok(())
    }

    fn update(
        &mut self,
        index: usize,
        update: &Update<'_>,
        ts_ns: Nanos,
        truth: &[SymbolTruth],
        lateness: &mut Lateness<'_>,
    ) -> Checked {
        // Views that move have to be told first what they still owe.
        let is_moving =
            self.asked.values().any(|(asked, _)| matches!(asked, Asked::Subscribe | Asked::Modify));
        let Some(view) = self.views.get_mut(&update.v) else {
            return hold(false, "protocol", || format!("view {} is not held", update.v));
        };
        let symbol = &truth[view.symbol];
        let in_order = update.to.unwrap_or(0) <= update.tr.unwrap_or(u64::MAX)
            && update.tr.unwrap_or(0) * MICRO_NS <= ts_ns;
        hold(in_order, "I5", || "to, tr and ts are not in order".to_owned())?;
        let overdue = match update.t {
            "state" => view.turn(update, symbol)?,
            "image" => view.image(update, symbol, &mut self.counts)?,
            "delta" => view.delta(update, symbol, &mut self.counts)?,
            "bbo" => view.bbo(update, symbol, &mut self.counts)?,
            "trades" => view.trades(update, symbol, &mut self.counts)?,
            _ => return hold(false, "protocol", || format!("an update of kind {}", update.t)),
        };
        self.pace.update(view.budget_ns, view.is_urgent || is_moving);
        let is_late = u64::from(lateness.lists(index));
        let budget_ms = view.budget_ns / MILLI_NS;
        let class = BUDGETS_MS.iter().position(|ms| u64::from(*ms) == budget_ms);
        if let Some(class) = class.and_then(|class| self.counts.by_class.get_mut(class)) {
            class[0] += 1;
            class[1] += is_late;
        }
        let name = view.name(truth);
        let circumstances = Circumstances {
            budget_ns: view.budget_ns,
            ts_ns,
            hindered_ns: self.hindered_ns,
            moments: symbol.moments(view.shows.channel()),
        };
        lateness.judge(index, overdue, circumstances, &mut self.counts).map_err(|violation| {
            Violation { what: format!("{name}: {}", violation.what), ..violation }
        })
    }

    /// What was counted, the last send included.
    pub(super) fn finish(&mut self) -> Checked<Counts> {
        self.pace.end_send()?;
        self.counts.paced = self.pace.judged;
        Ok(self.counts)
    }
}

fn shortened(payload: &[u8]) -> String {
    let text = String::from_utf8_lossy(payload);
    text.chars().take(600).collect()
}

/// Opcode and payload of a frame, and the bytes that follow it.
type SplitFrame<'a> = (u8, &'a [u8], &'a [u8]);

/// The first frame of the bytes, once it is whole.
fn split_frame(bytes: &[u8]) -> Checked<Option<SplitFrame<'_>>> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    hold(first & 0xf0 == 0x80 && second & 0x80 == 0, "protocol", || {
        format!("a frame begins with {first:02x} {second:02x}")
    })?;
    let (length, rest) = match second {
        126 => match rest {
            [a, b, rest @ ..] => (u64::from(u16::from_be_bytes([*a, *b])), rest),
            _ => return Ok(None),
        },
        127 => match rest.split_at_checked(8) {
            Some((length, rest)) => {
                (length.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)), rest)
            }
            None => return Ok(None),
        },
        length => (u64::from(*length), rest),
    };
    Ok(rest.split_at_checked(length as usize).map(|(payload, rest)| (first & 0x0f, payload, rest)))
}
