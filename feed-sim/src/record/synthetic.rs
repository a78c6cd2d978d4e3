//! The synthetic exchange as something that can be recorded.
//!
//! Made by the recorder. Its books are those that the market made, before they were put into words. They
//! may be ahead of what was told, where a timer tells of them, so that they are asked for by number. A
//! message that a scenario loses is recorded as lost: the line is there, as at any recorder that did not
//! lose it.

use std::borrow::Cow;
use std::collections::VecDeque;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use tickfan_core::market::Side;

use super::{Heard, ImageRequest, Recordable, Wishes};
use crate::exchange::{About, Exchange, ExchangeOptions};
use crate::fault::{FaultyExchange, Passing, not_applicable};
use crate::scenario::{Kind, Scenario};
use crate::truth::TruthBook;
use crate::venue::Dialect;

/// See the top of this file.
pub(super) struct Synthetic {
    faulty: FaultyExchange,
    options: ExchangeOptions,
    /// The number of each book when that was told last.
    told: Vec<u64>,
    /// What was said and not yet heard.
    passing: VecDeque<Passing>,
    connection: u64,
    now_ns: u64,
}

impl Synthetic {
    /// An exchange at its start, to which the scenario happens from the first change of a book on.
    ///
    /// # Errors
    /// When the scenario has what a recording cannot hold, or names a symbol that there is not.
    pub(super) fn new(options: ExchangeOptions, scenario: &Scenario) -> Result<Self> {
        ensure_holds(scenario, options.dialect)?;
        let mut faulty = FaultyExchange::new(options);
        faulty.prepare(scenario)?;
        faulty.keep_passing();
        let exchange = faulty.exchange();
        let told = (0..exchange.symbols().count()).map(|place| exchange.newest_id(place)).collect();
        let (passing, now_ns) = (VecDeque::new(), options.start_ns);
        Ok(Self { faulty, options, told, passing, connection: 0, now_ns })
    }

    /// Every fault has happened and is over.
    ///
    /// # Errors
    /// When one has not.
    pub(super) fn ensure_over(&self, scenario: &Scenario) -> Result<()> {
        let name = &scenario.name;
        for (kind, happened, why_not) in self.faulty.outcomes() {
            let (kind, venue) = (kind.name(), self.options.dialect.venue().name());
            if let Some(why) = why_not {
                bail!("the {kind} of scenario {name} cannot happen at {venue}: {why}");
            }
            ensure!(
                happened > 0,
                "the run ended before the {kind} of scenario {name}; let it last longer"
            );
        }
        ensure!(
            self.faulty.is_over(),
            "the run ended before scenario {name} did; let it last longer"
        );
        Ok(())
    }

    fn exchange(&self) -> &Exchange {
        self.faulty.exchange()
    }
}

/// A recording can hold this scenario, and the venue has such faults.
///
/// # Errors
/// When that is not so.
pub fn ensure_holds(scenario: &Scenario, dialect: Dialect) -> Result<()> {
    for kind in scenario.faults.iter().map(|fault| fault.kind) {
        let (name, of) = (kind.name(), &scenario.name);
        if let Some(why) = cannot_be_held(kind) {
            bail!(
                "a recording cannot hold the {name} of scenario {of}: {why}; serve it instead, with \
                 `feed-sim serve --scenario`"
            );
        }
        if let Some(why) = not_applicable(kind, dialect) {
            let venue = dialect.venue().name();
            bail!("the {name} of scenario {of} cannot happen at {venue}: {why}");
        }
    }
    Ok(())
}

/// Why a fault leaves no trace in a recording by which a replay could let it happen again.
const fn cannot_be_held(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Gap
        | Kind::Crossed
        | Kind::ClockStep
        | Kind::Halt
        | Kind::Delist
        | Kind::NumbersRestart
        | Kind::KeepAlive
        | Kind::AbsentLevel
        | Kind::Burst => None,
        Kind::Cut | Kind::CutAll | Kind::HalfOpen | Kind::CloseNotice => {
            Some("its lines do not say that a connection ends")
        }
        Kind::Giant | Kind::Fragmented | Kind::Drip => {
            Some("its lines are whole messages and not frames")
        }
        Kind::Duplicate => Some("its lines are what the venue said, once"),
        Kind::ZeroSpelling | Kind::Exponent | Kind::FieldOrder => {
            Some("its lines are spelt as the venue spells them")
        }
        Kind::BadUtf8 | Kind::BadJson => Some("its lines are what the venue can say"),
        Kind::Reorder | Kind::Silence => Some("its books are those of its lines, in their order"),
        Kind::WrongChecksum | Kind::ZeroChecksum => Some("nothing in it says that a line lies"),
        Kind::List => Some("who records asks at the first moment, for what there is"),
        Kind::TickChange => Some("its books have each price as it was told last"),
        Kind::Maintenance => Some("its lines are those of streams, and no notices"),
        Kind::StaleImage | Kind::LateImage | Kind::AckSilent | Kind::RateLimit | Kind::Ban => {
            Some("who records asks once, and for what is answered")
        }
    }
}

impl Recordable for Synthetic {
    fn dialect(&self) -> Dialect {
        self.options.dialect
    }

    fn wishes(&self) -> Wishes {
        let symbols: Vec<&str> = self.exchange().symbols().collect();
        Wishes::of(self.options.dialect, &symbols)
    }

    fn start_ns(&self) -> u64 {
        self.options.start_ns
    }

    fn next_ns(&self) -> Option<u64> {
        Some(self.faulty.next_ns())
    }

    fn step(&mut self) {
        self.now_ns = self.now_ns.max(self.faulty.next_ns());
        self.faulty.step();
    }

    fn connect(&mut self, wishes: &Wishes) {
        let (path, query) = wishes.target.split_once('?').unwrap_or((&wishes.target, ""));
        self.connection = self.faulty.connect(path, query, self.now_ns);
    }

    fn hear(&mut self, text: &str) {
        self.faulty.hear(self.connection, text, self.now_ns);
    }

    fn image(&mut self, request: &ImageRequest) -> Result<Option<Bytes>> {
        if let Some(place) = self.exchange().symbol(&request.symbol) {
            self.told[place] = self.exchange().newest_id(place);
            let book = self.exchange().book(place);
            let deepest = book.depth(Side::Bid).max(book.depth(Side::Ask));
            ensure!(
                deepest <= request.limit,
                "the book of {} has {deepest} levels, and its image only {}: what is below would be \
                 true and never told",
                request.symbol,
                request.limit
            );
        }
        let reply = self.faulty.answer(&request.path, &request.query, self.now_ns).reply;
        let target = request.target();
        ensure!(reply.status == 200, "{} to {target}: {}", reply.status, reply.body);
        Ok(Some(reply.body.into()))
    }

    fn next_heard(&mut self) -> Result<Option<Heard>> {
        // What comes out at the other end is not asked for: of all that may happen to a message, a loss
        // alone has a place in a recording.
        self.faulty.take_sent();
        self.passing.extend(self.faulty.take_passing());
        let Some(Passing { told, id, fate }) = self.passing.pop_front() else { return Ok(None) };
        let mut is_change = false;
        if let About::Book { symbol, version } = told.about {
            let id = id.with_context(|| format!("version {version} of a book is told too late"))?;
            (is_change, self.told[symbol]) = (true, id);
        }
        Ok(Some(Heard { text: told.text, is_change, is_lost: fate == Some(Kind::Gap) }))
    }

    fn book(&self, symbol: &str, depth: usize) -> Option<Cow<'_, TruthBook>> {
        let place = self.exchange().symbol(symbol)?;
        self.exchange().top_at(place, self.told[place], depth).map(Cow::Owned)
    }
}
