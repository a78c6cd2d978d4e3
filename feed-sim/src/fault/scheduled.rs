//! One fault of a schedule: when it strikes, and what became of it.
//!
//! Owned by the faulty exchange. It decides and counts; it carries nothing out.

use serde_json::{Value, json};

use super::respell::respell;
use crate::random::Random;
use crate::scenario::{Fault, Kind};
use crate::venue::Dialect;

/// How long a fault lasts that does not say.
const FOR_MS: u64 = 1_000;

/// Strikes whose times are kept.
const STRIKES_MAX: usize = 1_000;

const MILLI_NS: u64 = 1_000_000;

/// How far a fault is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// It strikes at the next chance, from its time on.
    Waiting,
    /// It is under way until then.
    UnderWay {
        /// When it ends of itself.
        until_ns: u64,
    },
    /// It has ended.
    Over,
}

/// See the top of this file.
#[derive(Debug)]
pub(super) struct Scheduled {
    pub(super) fault: Fault,
    /// At which symbol; `None` = any, or all.
    pub(super) symbol: Option<usize>,
    pub(super) stage: Stage,
    /// It cannot happen here, and why.
    pub(super) not_applicable: Option<&'static str>,
    /// It may strike from then on.
    begins_ns: u64,
    /// Messages that it has seen since.
    seen: u64,
    /// The message that was looked at last, by symbol and version, and whether it was struck: it may
    /// go to several connections.
    looked_at: Option<(usize, u64, bool)>,
    happened: u64,
    /// When, and at which symbol.
    strikes: Vec<(u64, Option<usize>)>,
}

impl Scheduled {
    /// A fault that counts its time from `start_ns`.
    pub(super) fn new(
        fault: Fault,
        symbol: Option<usize>,
        not_applicable: Option<&'static str>,
        start_ns: u64,
    ) -> Self {
        let stage = if not_applicable.is_some() { Stage::Over } else { Stage::Waiting };
        let mut scheduled = Self {
            fault,
            symbol,
            stage,
            not_applicable,
            begins_ns: start_ns,
            seen: 0,
            looked_at: None,
            happened: 0,
            strikes: Vec::new(),
        };
        scheduled.begin(start_ns);
        scheduled
    }

    /// Its time begins anew.
    pub(super) fn begin(&mut self, start_ns: u64) {
        let after_ns = self.fault.at_ms.unwrap_or(0).saturating_mul(MILLI_NS);
        self.begins_ns = start_ns.saturating_add(after_ns);
    }

    pub(super) fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// It strikes at the next chance.
    pub(super) fn awaits(&self, now_ns: u64) -> bool {
        self.stage == Stage::Waiting && now_ns >= self.begins_ns
    }

    /// It is about this symbol.
    pub(super) fn concerns(&self, symbol: usize) -> bool {
        self.symbol.is_none_or(|own| own == symbol)
    }

    /// How often it is to happen; `None` = as often as chance has it.
    fn planned(&self) -> Option<u64> {
        match (self.fault.count, self.fault.one_in) {
            (None, Some(_)) => None,
            (count, _) => Some(count.unwrap_or(1)),
        }
    }

    /// How long it lasts once it has struck.
    pub(super) fn for_ns(&self) -> u64 {
        self.fault.for_ms.unwrap_or(FOR_MS).saturating_mul(MILLI_NS)
    }

    /// When it begins or ends of itself.
    pub(super) fn next_ns(&self) -> u64 {
        let kind = self.fault.kind;
        match self.stage {
            Stage::Waiting if !kind.is_of_message() && !kind.is_of_request() => self.begins_ns,
            Stage::Waiting if self.fault.one_in.is_some() && self.fault.for_ms.is_some() => {
                self.begins_ns.saturating_add(self.for_ns())
            }
            Stage::UnderWay { until_ns } => until_ns,
            Stage::Waiting | Stage::Over => u64::MAX,
        }
    }

    /// A change of a book goes out: is this fault to happen to it? The same message may go to several
    /// connections and is one.
    pub(super) fn strikes(
        &mut self,
        symbol: usize,
        version: u64,
        now_ns: u64,
        random: &mut Random,
        fits: impl FnOnce(&Self) -> bool,
    ) -> bool {
        if let Some((known, of, is_struck)) = self.looked_at
            && (known, of) == (symbol, version)
        {
            return is_struck;
        }
        if !self.fault.kind.is_of_message() || !self.awaits(now_ns) || !self.concerns(symbol) {
            return false;
        }
        if !fits(self) {
            return false;
        }
        self.seen += 1;
        let is_struck = match (self.fault.message, self.fault.one_in) {
            (Some(number), _) => self.seen >= number,
            (None, Some(chance)) => random.below(chance) == 0,
            (None, None) => true,
        };
        self.looked_at = Some((symbol, version, is_struck));
        if is_struck {
            self.happen(now_ns, Some(symbol));
        }
        is_struck
    }

    /// It can happen to this message.
    pub(super) fn fits(&self, dialect: Dialect, text: &[u8]) -> bool {
        !self.fault.kind.is_of_spelling() || self.respelt(dialect, text).is_some()
    }

    /// The message as it is spelt by this fault, if that is otherwise.
    pub(super) fn respelt(&self, dialect: Dialect, text: &[u8]) -> Option<String> {
        let text = std::str::from_utf8(text).ok()?;
        respell(self.fault.kind, dialect, text, self.happened)
    }

    /// It happens now.
    pub(super) fn happen(&mut self, now_ns: u64, symbol: Option<usize>) {
        self.happened += 1;
        if self.strikes.len() < STRIKES_MAX {
            self.strikes.push((now_ns, symbol));
        }
        if self.planned().is_some_and(|planned| self.happened >= planned) {
            self.stage = if self.lasts() {
                Stage::UnderWay { until_ns: now_ns.saturating_add(self.for_ns()) }
            } else {
                Stage::Over
            };
        }
    }

    /// It takes its time once it has struck.
    const fn lasts(&self) -> bool {
        match self.fault.kind {
            Kind::Silence
            | Kind::HalfOpen
            | Kind::Drip
            | Kind::AckSilent
            | Kind::LateImage
            | Kind::Crossed
            | Kind::Halt
            | Kind::Delist
            | Kind::RateLimit
            | Kind::Ban
            | Kind::CloseNotice
            | Kind::Maintenance
            | Kind::Burst => true,
            // Without an end the clock stays where it stepped to.
            Kind::ClockStep => self.fault.for_ms.is_some(),
            _ => false,
        }
    }

    /// It cannot happen here.
    pub(super) fn give_up(&mut self, why: &'static str) {
        self.not_applicable = Some(why);
        self.stage = Stage::Over;
    }

    /// It as a person or a test asks for it: counted, with the times since `start_ns`.
    pub(super) fn report(&self, symbols: &[String], start_ns: u64) -> Value {
        let name = |symbol: Option<usize>| symbol.and_then(|symbol| symbols.get(symbol));
        let strikes: Vec<Value> = self
            .strikes
            .iter()
            .map(|(at_ns, symbol)| {
                let at_ms = at_ns.saturating_sub(start_ns) / MILLI_NS;
                json!({"at_ms": at_ms, "symbol": name(*symbol)})
            })
            .collect();
        json!({
            "kind": self.fault.kind,
            "symbol": name(self.symbol),
            "scheduled": self.planned(),
            "happened": self.happened,
            "not_applicable": self.not_applicable,
            "is_over": self.is_over(),
            "strikes": strikes,
        })
    }

    /// How often it has happened.
    pub(super) const fn happened(&self) -> u64 {
        self.happened
    }

    /// When it happened last.
    pub(super) fn last_ns(&self) -> Option<u64> {
        self.strikes.last().map(|(at_ns, _)| *at_ns)
    }
}
