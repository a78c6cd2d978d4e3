//! The course of one fault: when it comes, what it does to the exchange, to what the exchange says
//! and to what it is asked, and when it is over.
//!
//! Driven by the world, which names each thing that a fault may have a say in as it comes to pass:
//! time, a message, a request. What goes on from there is what the fault leaves of it. Whether the
//! gateway bears it is for others to judge.

use std::sync::Arc;

use feed_sim::exchange::{About, Exchange, Lie, Reply, Status, Told};
use feed_sim::frame::{Opcode, frame};
use feed_sim::venue::Dialect;
use tickfan_core::market::{InstrumentId, Nanos};
use tickfan_core::snapshot::Entry;

use super::fault::Fault;
use super::line::Line;
use super::{FAULTY, ONE_WAY_NS, PACE_NS};
use crate::limits::{MILLI_NS, SECOND_NS, TRADES_GRACE_NS};
use crate::simulation::random::Random;

/// Mean time between two events of the market while it is long waited for something else.
const SLOW_PACE_NS: Nanos = 2 * SECOND_NS;

/// An image that is late comes after this long.
const LATE_NS: Nanos = 400 * MILLI_NS;

/// The fault ends with the next message of its symbol.
const NEXT_NS: Nanos = Nanos::MAX - 1;

/// What has become of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nobody has said when it is to come.
    Unplanned,
    /// It comes at this time.
    Awaited { at_ns: Nanos },
    /// It is under way, and ends by itself, or is ended at this time.
    Struck { until_ns: Nanos },
    /// It ended then.
    Over { at_ns: Nanos },
}

/// What the network does to what passes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mischief {
    /// Takes the next so many messages.
    Lose(u64),
    Double,
    Garble,
    GarbleText,
    /// Takes the rest of a frame, and with it the line.
    Sever,
}

/// What the exchange says, and what the fault has to know of it.
#[derive(Debug)]
pub(super) struct Saying<'a> {
    pub(super) told: &'a Told,
    /// It goes to the feed itself, and not to one that is to take its place.
    pub(super) is_to_feed: bool,
    /// The newest change of the faulty book was among its ten best levels.
    pub(super) is_at_top: bool,
}

/// What a fault can lay hands on when it begins or ends.
pub(super) struct Reach<'a> {
    pub(super) exchange: &'a mut Exchange,
    /// The line of the feed.
    pub(super) line: Option<&'a mut Line>,
    /// How long a line may be silent before the gateway gives it up.
    pub(super) silence_ns: Nanos,
}

/// What the gateway does about the venue's list of instruments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum List {
    LeftAlone,
    ReadAnew,
}

/// See the top of this file.
pub(super) struct Course {
    fault: Fault,
    dialect: Dialect,
    /// The instrument that has the fault.
    faulty: Arc<Entry>,
    random: Random,
    stage: Stage,
    /// How often it happened.
    happened: u64,
    mischief: Option<Mischief>,
    /// The venue stands still until then.
    still_until_ns: Nanos,
    /// An image as it was long ago.
    old_image: Option<Reply>,
    /// Digits of its prices before the fault.
    digits_before: u8,
}

impl Course {
    pub(super) const fn new(
        fault: Fault,
        dialect: Dialect,
        faulty: Arc<Entry>,
        random: Random,
    ) -> Self {
        Self {
            fault,
            dialect,
            faulty,
            random,
            stage: Stage::Unplanned,
            happened: 0,
            mischief: None,
            still_until_ns: 0,
            old_image: None,
            digits_before: 0,
        }
    }

    pub(super) const fn fault(&self) -> Fault {
        self.fault
    }

    pub(super) const fn stage(&self) -> Stage {
        self.stage
    }

    /// It has begun, and may be over.
    pub(super) const fn has_struck(&self) -> bool {
        matches!(self.stage, Stage::Struck { .. } | Stage::Over { .. })
    }

    /// How often it happened.
    pub(super) fn happened(&self) -> u64 {
        match self.fault {
            // A finer number must have come.
            Fault::TickChange => u64::from(self.digits() > self.digits_before),
            _ => self.happened,
        }
    }

    fn digits(&self) -> u8 {
        self.faulty.load().scales.px
    }

    /// When it begins or ends by itself.
    pub(super) const fn next_ns(&self) -> Nanos {
        match self.stage {
            Stage::Awaited { at_ns } | Stage::Struck { until_ns: at_ns } => at_ns,
            Stage::Unplanned | Stage::Over { .. } => Nanos::MAX,
        }
    }

    /// All is well: it comes soon.
    pub(super) fn plan(&mut self, exchange: &Exchange, now: Nanos) {
        // The first heartbeat is where the counts of trades begin.
        let counted_ns = if self.fault == Fault::TradesLost { SECOND_NS } else { 0 };
        let at_ns = now + counted_ns + self.random.between(50, 250) * MILLI_NS;
        self.stage = Stage::Awaited { at_ns };
        if self.fault == Fault::StaleImage {
            let path = match self.dialect {
                Dialect::BinanceSpot => "/api/v3/depth",
                Dialect::BinanceUsdm => "/fapi/v1/depth",
                _ => "/dapi/v1/depth",
            };
            let query = format!("symbol={}&limit=1000", self.faulty.instrument.native);
            self.old_image = Some(exchange.answer(path, &query));
        }
    }

    /// It must not come.
    pub(super) const fn put_off(&mut self) {
        self.stage = Stage::Unplanned;
    }

    /// It begins, or ends, if it is time.
    pub(super) fn turn(&mut self, reach: Reach<'_>, now: Nanos) -> List {
        match self.stage {
            Stage::Awaited { at_ns } if at_ns <= now => {
                self.stage = Stage::Struck { until_ns: Nanos::MAX };
                self.strike(reach, now)
            }
            Stage::Struck { until_ns } if until_ns <= now => {
                self.stage = Stage::Over { at_ns: now };
                self.relieve(reach.exchange)
            }
            _ => List::LeftAlone,
        }
    }

    fn strike(&mut self, reach: Reach<'_>, now: Nanos) -> List {
        let Reach { exchange, line, silence_ns } = reach;
        match self.fault {
            // Until the venue names one that never comes.
            Fault::TradesLost => self.mischief = Some(Mischief::Lose(u64::MAX)),
            Fault::Gap => {
                // What comes next may make good what was lost there: the fewer, the rarer.
                let count = if self.is_proved_at_top() { 1 } else { 3 };
                self.mischief = Some(Mischief::Lose(self.random.between(1, count)));
            }
            Fault::StaleImage | Fault::Ban | Fault::LateImage => {
                self.mischief = Some(Mischief::Lose(1));
            }
            Fault::Duplicate => self.mischief = Some(Mischief::Double),
            Fault::BadJson => self.mischief = Some(Mischief::Garble),
            Fault::BadUtf8 => self.mischief = Some(Mischief::GarbleText),
            Fault::Cut => self.mischief = Some(Mischief::Sever),
            Fault::WrongChecksum | Fault::ZeroChecksum => {
                let lie = if self.fault == Fault::WrongChecksum { Lie::Wrong } else { Lie::Zero };
                self.happened += u64::from(exchange.lie(FAULTY, lie));
                self.await_next();
            }
            Fault::Crossed => {
                exchange.cross(FAULTY);
                self.happened += 1;
                let lasts_ns = self.random.between(20, 300) * MILLI_NS;
                self.last_until(now + lasts_ns);
            }
            Fault::Silence => {
                self.still_until_ns = now + silence_ns + silence_ns / 4;
                exchange.sleep_until(self.still_until_ns);
                self.happened += 1;
                self.last_until(self.still_until_ns);
            }
            Fault::HalfOpen => {
                exchange.set_pace(SLOW_PACE_NS);
                if let Some(line) = line {
                    line.is_dead = true;
                }
                self.happened += 1;
            }
            Fault::CloseNotice => {
                self.happened += u64::from(exchange.announce_close());
                self.last_until(now + SECOND_NS);
            }
            Fault::Maintenance => {
                self.happened += 1;
                self.last_until(now + 100 * MILLI_NS);
                if !exchange.announce_maintenance(true) {
                    exchange.set_status(FAULTY, Status::Halted);
                    return List::ReadAnew;
                }
            }
            Fault::TickChange => {
                self.digits_before = self.digits();
                exchange.refine_tick(FAULTY);
                let lasts_ns = self.random.below(2) * 100 * MILLI_NS;
                self.last_until(now + lasts_ns);
            }
            Fault::Delisting => {
                exchange.set_status(FAULTY, Status::Ended);
                self.happened += 1;
                self.last_until(now + 100 * MILLI_NS);
                return List::ReadAnew;
            }
            Fault::NumbersRestart => {
                self.happened += u64::from(exchange.restart_numbers(FAULTY));
                self.last_until(now + ONE_WAY_NS);
            }
            Fault::NumbersRestartLost => {
                // The message that is lost is the one that says so.
                if exchange.restart_numbers(FAULTY) {
                    self.mischief = Some(Mischief::Lose(1));
                }
            }
            Fault::KeepAlive => {
                self.happened += u64::from(exchange.keep_alive(FAULTY));
                self.last_until(now + ONE_WAY_NS);
            }
        }
        List::LeftAlone
    }

    /// What ends it, at the moment from which it is over.
    fn relieve(&mut self, exchange: &mut Exchange) -> List {
        match self.fault {
            Fault::Crossed => exchange.uncross(FAULTY),
            Fault::TradesLost => self.mischief = None,
            Fault::HalfOpen => exchange.set_pace(PACE_NS),
            Fault::Maintenance if exchange.announce_maintenance(false) => {}
            Fault::TickChange if self.dialect != Dialect::Bitfinex => return List::ReadAnew,
            Fault::Maintenance | Fault::Delisting => {
                exchange.set_status(FAULTY, Status::Open);
                return List::ReadAnew;
            }
            _ => {}
        }
        List::LeftAlone
    }

    /// It is over at this time.
    pub(super) const fn last_until(&mut self, until_ns: Nanos) {
        self.stage = Stage::Struck { until_ns };
    }

    /// It is over when the next message comes that could show it.
    const fn await_next(&mut self) {
        self.last_until(NEXT_NS);
    }

    /// The gateway pauses until then, before it connects again.
    pub(super) const fn on_pause(&mut self, until_ns: Nanos) {
        if matches!(self.stage, Stage::Struck { .. }) {
            // The venue would answer now; the pause before that is ours, and has its own limit.
            self.last_until(until_ns);
        }
    }

    /// Sends what the exchange says on its way, as much as the fault leaves of it.
    pub(super) fn carry(&mut self, saying: &Saying<'_>, line: &mut Line, now: Nanos) {
        if line.is_dead || now < self.still_until_ns {
            return;
        }
        let Told { about, text, .. } = saying.told;
        let is_target = saying.is_to_feed && self.is_target(*about, saying.is_at_top);
        let is_it = is_target || (saying.is_to_feed && self.is_losing());
        let mischief = if is_it { self.mischief.take() } else { None };
        let at_ns = now + ONE_WAY_NS;
        let mut bytes = frame(Opcode::Text, true, text);
        match mischief {
            Some(Mischief::Lose(count)) => {
                let count = count - u64::from(is_target);
                self.happened += u64::from(is_target);
                self.mischief = (count > 0).then_some(Mischief::Lose(count));
                if count == 0 {
                    self.await_next();
                }
                return;
            }
            Some(Mischief::Double) => {
                self.happened += 1;
                line.push(at_ns, bytes.clone(), *about);
                self.last_until(at_ns);
            }
            Some(Mischief::Garble) => {
                self.happened += 1;
                bytes = frame(Opcode::Text, true, &text[..text.len() / 2]);
                self.last_until(at_ns);
            }
            Some(Mischief::GarbleText) => {
                self.happened += 1;
                let place = bytes.len() / 2;
                bytes[place] = 0xff;
            }
            Some(Mischief::Sever) => {
                self.happened += 1;
                bytes.truncate(self.random.below(bytes.len() as u64) as usize);
                line.push(at_ns, bytes, *about);
                line.end();
                return;
            }
            None => {}
        }
        line.push(at_ns, bytes, *about);
        self.on_passed(saying, is_it, at_ns);
    }

    /// Something passed, and is there at this time: it may show what is missing.
    fn on_passed(&mut self, saying: &Saying<'_>, is_it: bool, at_ns: Nanos) {
        let is_heartbeat = saying.told.about == About::Nothing;
        let shows_loss = is_it || (saying.is_to_feed && self.numbers_all());
        match self.stage {
            // What a heartbeat names may still come for a while.
            Stage::Struck { until_ns: Nanos::MAX }
                if self.fault == Fault::TradesLost && self.happened > 0 && is_heartbeat =>
            {
                self.last_until(at_ns + TRADES_GRACE_NS);
            }
            // The first that shows what was lost.
            Stage::Struck { until_ns: NEXT_NS } if shows_loss => self.last_until(at_ns),
            _ => {}
        }
    }

    /// The fault is to happen to this.
    fn is_target(&self, about: About, is_at_top: bool) -> bool {
        let is_loss = matches!(self.mischief, Some(Mischief::Lose(_)));
        if is_loss && self.is_proved_at_top() && !is_at_top {
            // Their checksums cover the ten best levels: what is lost below leaves no trace.
            return false;
        }
        match (self.fault, about) {
            (Fault::TradesLost, About::Trade { symbol }) => symbol == FAULTY,
            (Fault::TradesLost, _) => false,
            (_, About::Book { symbol, .. }) => symbol == FAULTY,
            _ => false,
        }
    }

    /// What is lost is lost in one piece, whatever it is about.
    fn is_losing(&self) -> bool {
        matches!(self.mischief, Some(Mischief::Lose(_)))
            && self.happened > 0
            && self.fault != Fault::TradesLost
    }

    /// Nothing but a checksum of the best levels proves its books.
    const fn is_proved_at_top(&self) -> bool {
        matches!(self.dialect, Dialect::Kraken | Dialect::KrakenV1)
    }

    /// Whatever comes next on a connection shows that something before it is missing.
    const fn numbers_all(&self) -> bool {
        matches!(self.dialect, Dialect::CoinbaseAdvanced | Dialect::Bitfinex)
    }

    /// The venue has heard a text: an image that comes on the stream may be late, and everything else
    /// there with it.
    pub(super) fn on_heard(&mut self, text: &str, line: &mut Line, now: Nanos) {
        let is_asked = text.contains("subscribe") && !text.contains("unsubscribe");
        if is_asked && let Some(until_ns) = self.delay_image(now) {
            line.hold_until(until_ns);
        }
    }

    /// An image is on its way; when it is there, if that is late.
    pub(super) fn delay_image(&mut self, now: Nanos) -> Option<Nanos> {
        if self.fault != Fault::LateImage || self.happened != 1 {
            return None;
        }
        self.happened += 1;
        self.last_until(now + LATE_NS);
        Some(now + LATE_NS)
    }

    /// A request is sent.
    pub(super) fn on_request(&mut self, now: Nanos) {
        if self.fault == Fault::StaleImage && self.happened == 2 {
            // The old one was of no use: this is the first that the venue answers well.
            self.happened += 1;
            self.stage = Stage::Over { at_ns: now };
        }
    }

    /// The venue has had enough of requests; what it says to the next.
    pub(super) fn refuse(&mut self) -> Option<Reply> {
        if self.fault != Fault::Ban || !self.has_struck() {
            return None;
        }
        self.happened += 1;
        let status = if self.random.coin() { 429 } else { 418 };
        Some(Reply { status, body: String::new() })
    }

    /// What the venue answers first to who asks for the image of the instrument that has the fault.
    pub(super) fn take_old_image(&mut self, of: InstrumentId) -> Option<Reply> {
        if !self.has_struck() || of != self.faulty.instrument.id {
            return None;
        }
        let old = self.old_image.take()?;
        self.happened += 1;
        Some(old)
    }
}
