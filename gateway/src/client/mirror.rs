//! What one client was told, rebuilt and doubted: updates → the views that a client holds, or the
//! first thing that cannot be true.
//!
//! The client calls it for every frame of its connection, in order. It is the reading half of the
//! protocol written a second time, from the protocol alone: it shares no book with the gateway, or
//! it could not catch it in an error. Pure: no socket, no clock.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::slice;

use thiserror::Error;
use tickfan_core::decimal::{Decimal, SCALE_MAX, write_decimal};
use tickfan_core::market::{Channel, State};
use tickfan_core::wire::message::SubscribedView;
use tickfan_core::wire::{Received, TextLevel};

/// All that one connection was told.
#[derive(Debug, Default)]
pub struct Mirror {
    /// The number of the last frame.
    frame: u64,
    views: HashMap<u32, ViewMirror>,
}

/// What one view holds.
#[derive(Debug)]
pub struct ViewMirror {
    /// The symbol.
    pub symbol: String,
    /// The state of its channel.
    pub state: State,
    /// Why, and since when in microseconds by the gateway's clock, once a change of it was told.
    pub why: Option<(String, u64)>,
    /// The epoch of its channel.
    pub epoch: u32,
    channel: Channel,
    /// Levels a side that it may hold.
    levels_max: usize,
    /// The version held; `None` = nothing that the next update could follow from.
    held: Option<u64>,
    /// The venue's own number of the best bid and offer.
    sequence: Option<u64>,
    /// The bids.
    pub bids: Side,
    /// The asks.
    pub asks: Side,
}

/// One side of a book, by price.
#[derive(Debug, Default)]
pub struct Side(BTreeMap<Number, Number>);

/// What an update did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// The view.
    pub view: u32,
    /// Venue events that were merged into this update, itself not counted; 0 for trades and states.
    pub merged: u64,
}

/// What a gateway must never say. Each is a fault of the gateway, to be reported there.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "the message of each names its fields")]
pub enum Broken {
    #[error("frame {came} came where {expected} was due: frames were lost or repeated")]
    Frame { expected: u64, came: u64 },
    #[error("an update of view {0}, which was never acknowledged")]
    UnknownView(u32),
    #[error("an update that names no view")]
    NoView,
    #[error("an update follows version {came}, but {} is held", known(.held))]
    Chain { held: Option<u64>, came: u64 },
    #[error("version {came} came after {held} of the same epoch")]
    Backwards { held: u64, came: u64 },
    #[error("epoch {came} came after {held}")]
    EpochBackwards { held: u32, came: u32 },
    #[error("epoch {came} came while {held} was {state}: nobody said that it ended")]
    EpochUnannounced { held: u32, came: u32, state: &'static str },
    #[error("prices came while the channel is {0}")]
    NotFlowing(&'static str),
    #[error("unknown channel {0:?}")]
    UnknownChannel(String),
    #[error("unknown state {0:?}")]
    UnknownState(String),
    #[error("{0:?} is not the shortest exact decimal")]
    Number(String),
    #[error("the level at {0} is removed and is not held")]
    RemovesUnheld(Number),
    #[error("a whole book has an empty level at {0}")]
    EmptyLevel(Number),
    #[error("{after} stands after {before} in a whole book: not best first")]
    Unsorted { before: Number, after: Number },
    #[error("the best bid {bid} is not below the best ask {ask}")]
    Crossed { bid: Number, ask: Number },
    #[error("{levels} levels of a side are held; {max} were asked for")]
    TooDeep { levels: usize, max: usize },
    #[error("a change that changes nothing")]
    EmptyDelta,
    #[error("{listed} trades and {lost} lost do not make the step from {p} to {s}")]
    TradeCount { listed: usize, lost: u64, p: u64, s: u64 },
    #[error("the venue's number fell from {held} to {came}")]
    SequenceBackwards { held: u64, came: u64 },
}

fn known(held: &Option<u64>) -> String {
    held.map_or_else(|| "nothing".to_owned(), |held| held.to_string())
}

impl Mirror {
    /// A view was acknowledged. One that is held already goes on as it is.
    ///
    /// # Errors
    /// [`Broken`] when the acknowledgement makes no sense.
    pub fn subscribed(&mut self, symbol: &str, ack: &SubscribedView) -> Result<(), Broken> {
        let channel = Channel::from_name(&ack.channel)
            .ok_or_else(|| Broken::UnknownChannel(ack.channel.clone()))?;
        let view = ViewMirror {
            symbol: symbol.to_owned(),
            state: state(&ack.state)?,
            why: None,
            epoch: ack.epoch,
            channel,
            // A channel without a depth has one level a side; a depth that is no number is `full`.
            levels_max: match ack.depth.as_u64() {
                Some(levels) => levels as usize,
                None if ack.depth.is_null() => 1,
                None => usize::MAX,
            },
            held: (channel == Channel::Trades).then_some(ack.s),
            sequence: None,
            bids: Side::default(),
            asks: Side::default(),
        };
        self.views.entry(ack.view).or_insert(view);
        Ok(())
    }

    /// A frame begins.
    ///
    /// # Errors
    /// [`Broken::Frame`] when its number is not the one after the last.
    pub fn frame(&mut self, n: u64) -> Result<(), Broken> {
        let expected = self.frame + 1;
        if n != expected {
            return Err(Broken::Frame { expected, came: n });
        }
        self.frame = n;
        Ok(())
    }

    /// Applies one update of the frame; `None` for a kind that carries nothing to hold.
    ///
    /// # Errors
    /// [`Broken`] when it cannot be true. What the view holds is then worth nothing.
    pub fn update(&mut self, update: &Received) -> Result<Option<Applied>, Broken> {
        let view = match update {
            Received::Stats(_) | Received::Unknown => return Ok(None),
            Received::Image { v, .. }
            | Received::Delta { v, .. }
            | Received::Bbo { v, .. }
            | Received::Trades { v, .. }
            | Received::State { v, .. } => v.ok_or(Broken::NoView)?,
        };
        let mirror = self.views.get_mut(&view).ok_or(Broken::UnknownView(view))?;
        let merged = mirror.apply(update)?;
        Ok(Some(Applied { view, merged }))
    }

    /// What a view holds.
    pub fn view(&self, view: u32) -> Option<&ViewMirror> {
        self.views.get(&view)
    }
}

impl ViewMirror {
    /// Applies an update; returns how many venue events were merged into it.
    fn apply(&mut self, update: &Received) -> Result<u64, Broken> {
        match update {
            Received::Image { e, s, state: name, b, a, .. } => self.image(*e, *s, name, b, a),
            Received::Delta { s, p, b, a, .. } => self.delta(*s, *p, b, a),
            Received::Bbo { s, q, b, a, .. } => self.bbo(*s, *q, b.as_ref(), a.as_ref()),
            Received::Trades { s, p, lost, x, .. } => self.trades(*s, *p, *lost, x.len()),
            Received::State { e, state: name, why, since, .. } => {
                self.why = Some((why.clone(), *since));
                self.turn(*e, state(name)?)
            }
            Received::Stats(_) | Received::Unknown => Ok(0),
        }
    }

    fn image(
        &mut self,
        epoch: u32,
        s: u64,
        name: &str,
        bids: &[TextLevel],
        asks: &[TextLevel],
    ) -> Result<u64, Broken> {
        if epoch < self.epoch {
            return Err(Broken::EpochBackwards { held: self.epoch, came: epoch });
        }
        if epoch > self.epoch {
            if self.state.flows() {
                let state = self.state.name();
                return Err(Broken::EpochUnannounced { held: self.epoch, came: epoch, state });
            }
            self.epoch = epoch;
            self.held = None;
        }
        self.state = state(name)?;
        if !self.state.has_whole() {
            return Err(Broken::NotFlowing(self.state.name()));
        }
        let merged = self.advance(s)?;
        self.bids = Side::whole(bids, Ordering::Greater)?;
        self.asks = Side::whole(asks, Ordering::Less)?;
        self.check()?;
        Ok(merged)
    }

    fn delta(
        &mut self,
        s: u64,
        p: u64,
        bids: &[TextLevel],
        asks: &[TextLevel],
    ) -> Result<u64, Broken> {
        self.flows()?;
        if self.held != Some(p) {
            return Err(Broken::Chain { held: self.held, came: p });
        }
        if s <= p {
            return Err(Broken::Backwards { held: p, came: s });
        }
        if bids.is_empty() && asks.is_empty() {
            return Err(Broken::EmptyDelta);
        }
        let merged = self.advance(s)?;
        self.bids.change(bids)?;
        self.asks.change(asks)?;
        self.check()?;
        Ok(merged)
    }

    fn bbo(
        &mut self,
        s: u64,
        q: Option<u64>,
        bid: Option<&TextLevel>,
        ask: Option<&TextLevel>,
    ) -> Result<u64, Broken> {
        if !self.state.has_whole() {
            return Err(Broken::NotFlowing(self.state.name()));
        }
        if let (Some(held), Some(came)) = (self.sequence, q)
            && came < held
        {
            return Err(Broken::SequenceBackwards { held, came });
        }
        self.sequence = q.or(self.sequence);
        let merged = self.advance(s)?;
        self.bids = Side::whole(bid.map_or(&[], slice::from_ref), Ordering::Greater)?;
        self.asks = Side::whole(ask.map_or(&[], slice::from_ref), Ordering::Less)?;
        self.check()?;
        Ok(merged)
    }

    fn trades(&mut self, s: u64, p: u64, lost: u64, listed: usize) -> Result<u64, Broken> {
        self.flows()?;
        if self.held.is_some_and(|held| held != p) {
            return Err(Broken::Chain { held: self.held, came: p });
        }
        if s.checked_sub(p) != Some(listed as u64 + lost) {
            return Err(Broken::TradeCount { listed, lost, p, s });
        }
        self.held = Some(s);
        Ok(0)
    }

    fn turn(&mut self, epoch: u32, state: State) -> Result<u64, Broken> {
        if epoch < self.epoch {
            return Err(Broken::EpochBackwards { held: self.epoch, came: epoch });
        }
        // Versions compare only within one epoch, and what is known to be wrong is not held.
        if epoch > self.epoch || !(state.has_whole() || self.channel == Channel::Trades) {
            self.held = None;
            self.sequence = None;
            self.bids = Side::default();
            self.asks = Side::default();
        }
        self.epoch = epoch;
        self.state = state;
        Ok(0)
    }

    fn flows(&self) -> Result<(), Broken> {
        if self.state.flows() { Ok(()) } else { Err(Broken::NotFlowing(self.state.name())) }
    }

    /// The version moves on to `s`; returns how many venue events were passed over.
    fn advance(&mut self, s: u64) -> Result<u64, Broken> {
        let merged = match self.held {
            Some(held) if s < held => return Err(Broken::Backwards { held, came: s }),
            Some(held) => (s - held).saturating_sub(1),
            None => 0,
        };
        self.held = Some(s);
        Ok(merged)
    }

    /// What must hold of both sides whenever an update was applied whole.
    fn check(&self) -> Result<(), Broken> {
        let levels = self.bids.len().max(self.asks.len());
        if levels > self.levels_max {
            return Err(Broken::TooDeep { levels, max: self.levels_max });
        }
        // A crossed market is what `suspect` warns of.
        if let (Some((bid, _)), Some((ask, _))) = (self.best_bid(), self.best_ask())
            && bid >= ask
            && self.state != State::Suspect
        {
            return Err(Broken::Crossed { bid: *bid, ask: *ask });
        }
        Ok(())
    }

    /// The version that is held, if any is.
    pub const fn version(&self) -> Option<u64> {
        self.held
    }

    /// The highest bid: price and quantity.
    pub fn best_bid(&self) -> Option<(&Number, &Number)> {
        self.bids.0.last_key_value()
    }

    /// The lowest ask: price and quantity.
    pub fn best_ask(&self) -> Option<(&Number, &Number)> {
        self.asks.0.first_key_value()
    }
}

impl Side {
    /// How many levels are held.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Prices and quantities, the lowest price first.
    pub fn levels(&self) -> impl DoubleEndedIterator<Item = (Number, Number)> {
        self.0.iter().map(|(price, quantity)| (*price, *quantity))
    }

    /// No level is held.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A side that came whole, each price in this `order` to the one after it.
    fn whole(levels: &[TextLevel], order: Ordering) -> Result<Self, Broken> {
        let mut side = Self::default();
        let mut before: Option<Number> = None;
        for (price, quantity) in levels {
            let (price, quantity) = (Number::parse(price)?, Number::parse(quantity)?);
            if quantity.is_zero() {
                return Err(Broken::EmptyLevel(price));
            }
            if let Some(before) = before
                && before.cmp(&price) != order
            {
                return Err(Broken::Unsorted { before, after: price });
            }
            before = Some(price);
            side.0.insert(price, quantity);
        }
        Ok(side)
    }

    fn change(&mut self, levels: &[TextLevel]) -> Result<(), Broken> {
        for (price, quantity) in levels {
            let (price, quantity) = (Number::parse(price)?, Number::parse(quantity)?);
            if !quantity.is_zero() {
                self.0.insert(price, quantity);
            } else if self.0.remove(&price).is_none() {
                return Err(Broken::RemovesUnheld(price));
            }
        }
        Ok(())
    }
}

/// A price or quantity as it came, compared by its exact value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Number(Decimal);

impl Number {
    /// Reads a number that is written as the protocol wants it.
    ///
    /// # Errors
    /// [`Broken::Number`] when it is not.
    pub fn parse(text: &str) -> Result<Self, Broken> {
        let number = Decimal::parse(text.as_bytes()).map(Self);
        match number {
            Ok(number) if number.to_string() == text => Ok(number),
            _ => Err(Broken::Number(text.to_owned())),
        }
    }

    const fn is_zero(self) -> bool {
        self.0.is_zero()
    }

    /// The mantissa at the finest scale there is, where all compare and add up.
    pub const fn finest(self) -> i128 {
        self.0.mantissa as i128 * 10i128.pow((SCALE_MAX - self.0.scale) as u32)
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        self.finest().cmp(&other.finest())
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::new();
        write_decimal(self.0.mantissa, self.0.scale, &mut text);
        f.write_str(&String::from_utf8_lossy(&text))
    }
}

fn state(name: &str) -> Result<State, Broken> {
    State::from_name(name).ok_or_else(|| Broken::UnknownState(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use tickfan_core::wire::Frame;

    use super::*;

    fn mirror() -> Mirror {
        let mut mirror = Mirror::default();
        for (symbol, ack) in [
            ("sim:A", ack(3, "book", r#""depth":2,"#)),
            ("sim:A", ack(4, "bbo", "")),
            ("sim:A", ack(5, "trades", "")),
        ] {
            mirror.subscribed(symbol, &ack).unwrap();
        }
        mirror
    }

    fn ack(view: u32, channel: &str, depth: &str) -> SubscribedView {
        serde_json::from_str(&format!(
            r#"{{"view":{view},"channel":"{channel}",{depth}"budget_ms":50,"budget":"accepted",
               "price_scale":2,"qty_scale":8,"epoch":17,"s":100,"state":"live"}}"#
        ))
        .unwrap()
    }

    /// The frames' updates applied one after the other; the merged counts, or the first fault.
    fn told(updates: &[&str]) -> Result<Vec<u64>, Broken> {
        let mut mirror = mirror();
        let mut merged = Vec::new();
        for (i, update) in updates.iter().enumerate() {
            let n = i + 1;
            let frame: Frame =
                serde_json::from_str(&format!(r#"{{"n":{n},"ts":1,"u":[{update}]}}"#)).unwrap();
            mirror.frame(frame.n)?;
            for update in &frame.u {
                merged.extend(mirror.update(update)?.map(|applied| applied.merged));
            }
        }
        Ok(merged)
    }

    const IMAGE: &str = r#"{"t":"image","v":3,"e":17,"s":1040,"state":"live",
        "b":[["100","1"],["99.5","2"]],"a":[["101","1"],["102","0.5"]]}"#;

    fn delta(p: u64, s: u64, bids: &str, asks: &str) -> String {
        format!(r#"{{"t":"delta","v":3,"s":{s},"p":{p},"b":[{bids}],"a":[{asks}]}}"#)
    }

    fn state(e: u32, name: &str) -> String {
        format!(r#"{{"t":"state","v":3,"e":{e},"state":"{name}","why":"w","since":1}}"#)
    }

    fn image(e: u32, s: u64, bids: &str, asks: &str) -> String {
        format!(r#"{{"t":"image","v":3,"e":{e},"s":{s},"state":"live","b":[{bids}],"a":[{asks}]}}"#)
    }

    #[test]
    fn a_chain_is_followed_and_merged_events_are_counted() {
        let change = delta(1040, 1047, r#"["100","0"],["99","3"]"#, r#"["101","7"]"#);
        let next = delta(1047, 1048, r#"["99.75","1"],["99","0"]"#, "");
        assert_eq!(told(&[IMAGE, &change, &next]), Ok(vec![0, 6, 0]));

        let mut mirror = mirror();
        for update in [IMAGE, &change, &next] {
            mirror.update(&serde_json::from_str(update).unwrap()).unwrap();
        }
        let view = mirror.view(3).unwrap();
        let best = |best: Option<(&Number, &Number)>| best.map(|(p, q)| format!("{p} {q}"));
        assert_eq!(best(view.best_bid()), Some("99.75 1".to_owned()));
        assert_eq!(best(view.best_ask()), Some("101 7".to_owned()));
        assert_eq!((view.bids.len(), view.asks.len()), (2, 2));
    }

    #[test]
    fn an_image_repairs_what_a_gap_took() {
        let back = image(18, 3, r#"["7","1"]"#, r#"["8","1"]"#);
        let next = delta(3, 4, r#"["7","2"]"#, "");
        assert_eq!(told(&[IMAGE, &state(17, "gap"), &back, &next]), Ok(vec![0, 0, 0, 0]));
        // Continuity proven: the chain goes on.
        let next = delta(1040, 1041, r#"["100","2"]"#, "");
        assert!(told(&[IMAGE, &state(17, "stale"), &state(17, "live"), &next]).is_ok());
        // An image on request may repeat the version.
        assert_eq!(told(&[IMAGE, IMAGE]), Ok(vec![0, 0]));
    }

    #[test]
    fn frames_are_counted_without_a_hole() {
        let mut mirror = mirror();
        assert_eq!(mirror.frame(1), Ok(()));
        assert_eq!(mirror.frame(3), Err(Broken::Frame { expected: 2, came: 3 }));
        assert_eq!(mirror.frame(1), Err(Broken::Frame { expected: 2, came: 1 }));
    }

    #[test]
    fn what_cannot_be_true_is_found() {
        let number = |text| Number::parse(text).unwrap();
        let level = r#"["100","2"]"#;
        let live = |b, a| image(17, 1050, b, a);
        let bbo = |s, q, b: &str, a: &str| {
            format!(r#"{{"t":"bbo","v":4,"s":{s},"q":{q},"b":{b},"a":{a}}}"#)
        };
        let trades = |p, s, x: &str| format!(r#"{{"t":"trades","v":5,"s":{s},"p":{p},"x":[{x}]}}"#);
        let trade = r#"[1,"100","1","buy","1"]"#;
        let cases: Vec<(Vec<String>, Broken)> = vec![
            // The chain.
            (vec![delta(1, 2, level, "")], Broken::Chain { held: None, came: 1 }),
            (
                vec![IMAGE.into(), delta(1041, 1042, level, "")],
                Broken::Chain { held: Some(1040), came: 1041 },
            ),
            (
                vec![IMAGE.into(), delta(1040, 1040, level, "")],
                Broken::Backwards { held: 1040, came: 1040 },
            ),
            (
                vec![IMAGE.into(), image(17, 1039, "", "")],
                Broken::Backwards { held: 1040, came: 1039 },
            ),
            (
                vec![IMAGE.into(), image(16, 1050, "", "")],
                Broken::EpochBackwards { held: 17, came: 16 },
            ),
            (vec![IMAGE.into(), state(16, "gap")], Broken::EpochBackwards { held: 17, came: 16 }),
            (
                vec![IMAGE.into(), image(18, 1050, "", "")],
                Broken::EpochUnannounced { held: 17, came: 18, state: "live" },
            ),
            // Prices only while they are good.
            (
                vec![IMAGE.into(), state(17, "gap"), delta(1040, 1041, level, "")],
                Broken::NotFlowing("gap"),
            ),
            (
                vec![
                    IMAGE.into(),
                    state(17, "gap"),
                    state(17, "live"),
                    delta(1040, 1041, level, ""),
                ],
                Broken::Chain { held: None, came: 1040 },
            ),
            (vec![IMAGE.into(), state(17, "fine")], Broken::UnknownState("fine".into())),
            // The book.
            (vec![live(r#"["100.0","1"]"#, "")], Broken::Number("100.0".into())),
            (vec![live(r#"["1e2","1"]"#, "")], Broken::Number("1e2".into())),
            (vec![live(r#"["100","x"]"#, "")], Broken::Number("x".into())),
            (vec![live(r#"["100","0"]"#, "")], Broken::EmptyLevel(number("100"))),
            (
                vec![live(r#"["9","1"],["10","1"]"#, "")],
                Broken::Unsorted { before: number("9"), after: number("10") },
            ),
            (
                vec![live("", r#"["10","1"],["10","1"]"#)],
                Broken::Unsorted { before: number("10"), after: number("10") },
            ),
            (
                vec![live(r#"["3","1"],["2","1"],["1","1"]"#, "")],
                Broken::TooDeep { levels: 3, max: 2 },
            ),
            (
                vec![live(r#"["10","1"]"#, r#"["9.9","1"]"#)],
                Broken::Crossed { bid: number("10"), ask: number("9.9") },
            ),
            (
                vec![IMAGE.into(), delta(1040, 1041, r#"["98","0"]"#, "")],
                Broken::RemovesUnheld(number("98")),
            ),
            (
                vec![IMAGE.into(), delta(1040, 1041, r#"["98","1"]"#, "")],
                Broken::TooDeep { levels: 3, max: 2 },
            ),
            (
                vec![IMAGE.into(), delta(1040, 1041, r#"["99.5","0"],["101","1"]"#, "")],
                Broken::Crossed { bid: number("101"), ask: number("101") },
            ),
            (vec![IMAGE.into(), delta(1040, 1041, "", "")], Broken::EmptyDelta),
            // The other channels.
            (
                vec![bbo(5, 9, r#"["1","1"]"#, "null"), bbo(4, 9, "null", "null")],
                Broken::Backwards { held: 5, came: 4 },
            ),
            (
                vec![bbo(5, 9, r#"["1","1"]"#, "null"), bbo(6, 8, "null", "null")],
                Broken::SequenceBackwards { held: 9, came: 8 },
            ),
            (
                vec![bbo(5, 9, r#"["1","1"]"#, r#"["1","1"]"#)],
                Broken::Crossed { bid: number("1"), ask: number("1") },
            ),
            (
                vec![trades(100, 101, trade), trades(100, 101, trade)],
                Broken::Chain { held: Some(101), came: 100 },
            ),
            (
                vec![trades(100, 102, trade)],
                Broken::TradeCount { listed: 1, lost: 0, p: 100, s: 102 },
            ),
            // Views.
            (
                vec![r#"{"t":"image","e":1,"s":1,"state":"live","b":[],"a":[]}"#.into()],
                Broken::NoView,
            ),
            (
                vec![r#"{"t":"state","v":9,"e":1,"state":"live","why":"w","since":1}"#.into()],
                Broken::UnknownView(9),
            ),
        ];
        for (updates, expected) in cases {
            let updates: Vec<&str> = updates.iter().map(String::as_str).collect();
            assert_eq!(told(&updates), Err(expected), "{updates:?}");
        }
    }

    #[test]
    fn what_is_allowed_passes() {
        // Lost trades count as a step, a kind of the future is passed over, `suspect` may cross.
        let lost = r#"{"t":"trades","v":5,"s":103,"p":100,"lost":3,"x":[]}"#;
        let future = r#"{"t":"weather","v":3}"#;
        let crossed = r#"{"t":"image","v":3,"e":17,"s":9,"state":"suspect",
            "b":[["10","1"]],"a":[["9","1"]]}"#;
        assert_eq!(told(&[lost, future, crossed]), Ok(vec![0, 0]));
    }
}
