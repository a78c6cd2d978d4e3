//! The order in which a view may tell things: states, epochs, versions, the venue's sequence, times.
//!
//! Called by a view for each update, before its content is looked at. It knows the protocol and
//! nothing of a market.

use super::frame::Update;
use super::report::{Broken, hold};

/// What a view is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Syncing,
    Live,
    Suspect,
    Stale,
    Gap,
    Halted,
    Closed,
}

impl State {
    pub(crate) fn read(name: Option<&str>) -> Result<Self, Broken> {
        Ok(match name {
            Some("syncing") => Self::Syncing,
            Some("live") => Self::Live,
            Some("suspect") => Self::Suspect,
            Some("stale") => Self::Stale,
            Some("gap") => Self::Gap,
            Some("halted") => Self::Halted,
            Some("closed") => Self::Closed,
            other => {
                let got = other.unwrap_or("nothing");
                return Err(Broken::new("a state is one of the protocol's", "a state", got));
            }
        })
    }

    /// The whole may be sent.
    const fn has_whole(self) -> bool {
        matches!(self, Self::Live | Self::Suspect | Self::Stale | Self::Halted)
    }

    /// Updates may be sent.
    const fn flows(self) -> bool {
        matches!(self, Self::Live | Self::Suspect | Self::Halted)
    }
}

/// Where a view stands.
#[derive(Debug)]
pub(crate) struct Chain {
    epoch: u64,
    state: State,
    /// The version held; none where the next update is whole or begins to count.
    s: Option<u64>,
    /// The venue's sequence of the last price in this epoch.
    q: Option<u64>,
    /// The epoch that a gap ended; it may have begun and ended without an update in it.
    ended: Option<u64>,
}

/// A field that must be there.
pub(crate) fn needed(field: Option<u64>, name: &str) -> Result<u64, Broken> {
    field.ok_or_else(|| Broken::new("an update has its fields", name, "nothing"))
}

impl Chain {
    /// A view as its acknowledgement tells it. `s` only where updates count from there.
    pub(crate) const fn new(epoch: u64, state: State, s: Option<u64>) -> Self {
        Self { epoch, state, s, q: None, ended: None }
    }

    /// What was told last.
    pub(crate) const fn state(&self) -> State {
        self.state
    }

    /// A state is told; returns it.
    pub(crate) fn turn(&mut self, update: &Update<'_>, ts: u64) -> Result<State, Broken> {
        let (epoch, state) = (needed(update.e, "e")?, State::read(update.state)?);
        let since = update.since.unwrap_or(0);
        hold(since <= ts, "a state does not begin after it was told", ts, since)?;
        self.begin(epoch, state)?;
        if state == State::Gap {
            self.forget();
            self.ended = Some(epoch);
        }
        self.enter(epoch, state);
        Ok(state)
    }

    /// May this epoch begin, or go on, with this state?
    fn begin(&self, epoch: u64, state: State) -> Result<(), Broken> {
        hold(epoch >= self.epoch, "the epoch never falls", self.epoch, epoch)?;
        if let Some(ended) = self.ended.filter(|_| state.has_whole()) {
            let expected = format!("more than {ended}");
            hold(epoch > ended, "what follows a gap has an epoch of its own", expected, epoch)?;
        }
        Ok(())
    }

    const fn forget(&mut self) {
        self.s = None;
        self.q = None;
    }

    const fn enter(&mut self, epoch: u64, state: State) {
        if epoch > self.epoch {
            self.forget();
        }
        if state.has_whole() {
            self.ended = None;
        }
        self.epoch = epoch;
        self.state = state;
    }

    /// A whole book: it brings its epoch and state.
    pub(crate) fn image(&mut self, update: &Update<'_>, ts: u64) -> Result<(), Broken> {
        let (epoch, state) = (needed(update.e, "e")?, State::read(update.state)?);
        let told = format!("{:?}", self.state);
        hold(self.state != State::Closed, "nothing is priced once it is closed", "silence", &told)?;
        hold(state.has_whole(), "an image is sent in a state that has one", "one", update.t)?;
        self.begin(epoch, state)?;
        if epoch == self.epoch && self.state.has_whole() {
            let rule = "a state is told before what follows from it";
            hold(state == self.state, rule, &told, format!("{state:?}"))?;
        }
        self.enter(epoch, state);
        self.count(needed(update.s, "s")?)?;
        self.sequence(update.q)?;
        times(update, ts)
    }

    /// A change of a book; returns how many versions it covers.
    pub(crate) fn delta(&mut self, update: &Update<'_>, ts: u64) -> Result<u64, Broken> {
        self.flow()?;
        self.belongs(update)?;
        let Some(held) = self.s else {
            return Err(Broken::new("a delta follows an image", "an image", "a delta"));
        };
        let steps = self.step(held, update)?;
        self.sequence(update.q)?;
        times(update, ts)?;
        Ok(steps)
    }

    /// A best bid and offer; returns how many versions it covers.
    pub(crate) fn bbo(&mut self, update: &Update<'_>, ts: u64) -> Result<u64, Broken> {
        let told = format!("{:?}", self.state);
        hold(self.state.has_whole(), "no price is sent in this state", "silence", told)?;
        self.belongs(update)?;
        let s = needed(update.s, "s")?;
        let steps = self.s.map_or(0, |held| s.saturating_sub(held));
        self.count(s)?;
        self.sequence(update.q)?;
        times(update, ts)?;
        Ok(steps)
    }

    /// Trades; returns by how many the number rises.
    pub(crate) fn trades(&mut self, update: &Update<'_>, ts: u64) -> Result<u64, Broken> {
        self.flow()?;
        self.belongs(update)?;
        let held = self.s.map_or_else(|| needed(update.p, "p"), Ok)?;
        let steps = self.step(held, update)?;
        times(update, ts)?;
        Ok(steps)
    }

    /// What an update says of its channel, where its encoding does, is what was told of it.
    fn belongs(&self, update: &Update<'_>) -> Result<(), Broken> {
        let rule = "an update is of the epoch and state that were told";
        let epoch = update.e.unwrap_or(self.epoch);
        hold(epoch == self.epoch, rule, self.epoch, epoch)?;
        let Some(name) = update.state else { return Ok(()) };
        let (told, state) = (format!("{:?}", self.state), State::read(Some(name))?);
        hold(state == self.state, rule, told, format!("{state:?}"))
    }

    fn flow(&self) -> Result<(), Broken> {
        let told = format!("{:?}", self.state);
        hold(self.state.flows(), "no update is sent in this state", "silence", told)
    }

    fn step(&mut self, held: u64, update: &Update<'_>) -> Result<u64, Broken> {
        let (s, p) = (needed(update.s, "s")?, needed(update.p, "p")?);
        hold(p == held, "p is the s that is held", held, p)?;
        hold(s > held, "s rises", format!("more than {held}"), s)?;
        self.s = Some(s);
        Ok(s - held)
    }

    fn count(&mut self, s: u64) -> Result<(), Broken> {
        let held = self.s.unwrap_or(0);
        hold(s >= held, "s never falls within an epoch", held, s)?;
        self.s = Some(s);
        Ok(())
    }

    fn sequence(&mut self, q: Option<u64>) -> Result<(), Broken> {
        let held = self.q.unwrap_or(0);
        let new = q.unwrap_or(held);
        hold(new >= held, "q never falls within an epoch", held, new)?;
        self.q = Some(new);
        Ok(())
    }
}

/// Sent after it was received, the newest no earlier than the oldest.
fn times(update: &Update<'_>, ts: u64) -> Result<(), Broken> {
    let tr = needed(update.tr, "tr")?;
    let to = match update.t {
        "image" => update.to.unwrap_or(tr),
        _ => needed(update.to, "to")?,
    };
    hold(tr <= ts, "tr is not after ts", ts, tr)?;
    hold(to <= tr, "to is not after tr", tr, to)
}
