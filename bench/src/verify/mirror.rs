//! The images and deltas of one view → the book that a subscriber holds.
//!
//! Called by a view for each update. It is a book of its own: sorted maps of the texts as they were
//! sent, and a digest kept up to date change by change. It shares nothing with the gateway's book
//! and refuses what the protocol forbids instead of mending it.

use std::collections::BTreeMap;
use std::fmt::Write;

use feed_sim::truth::level_hash;
use tickfan_core::market::Side;

use super::frame::LevelText;
use super::number::exact;
use super::report::{Broken, hold};

/// Price and quantity as they were sent.
pub(crate) type Quote = (Box<str>, Box<str>);

/// The best bid and offer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Top {
    /// The best bid.
    pub(crate) bid: Option<Quote>,
    /// The best offer.
    pub(crate) ask: Option<Quote>,
}

impl std::fmt::Display for Top {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |quote: &Option<Quote>| match quote {
            Some((px, qty)) => format!("{px}:{qty}"),
            None => "nothing".to_owned(),
        };
        write!(f, "bid {}, ask {}", text(&self.bid), text(&self.ask))
    }
}

struct Level {
    px: Box<str>,
    qty: Box<str>,
    hash: u64,
}

/// Best first: bids are kept under their negated price.
type Levels = BTreeMap<i128, Level>;

/// The book of a view as its subscriber holds it.
pub(crate) struct Mirror {
    /// Levels of a side at most; `None` = all.
    depth: Option<usize>,
    bids: Levels,
    asks: Levels,
    digest: u64,
}

/// The place of a price on its side, the best first.
pub(crate) fn place(side: Side, px: i128) -> i128 {
    match side {
        Side::Bid => -px,
        Side::Ask => px,
    }
}

impl Mirror {
    /// An empty book of this depth.
    pub(crate) const fn new(depth: Option<usize>) -> Self {
        Self { depth, bids: Levels::new(), asks: Levels::new(), digest: 0 }
    }

    /// Replaces everything by an image.
    ///
    /// # Errors
    /// When the image is not one: unsorted, too deep, or with levels of no quantity.
    pub(crate) fn replace(
        &mut self,
        bids: &[LevelText<'_>],
        asks: &[LevelText<'_>],
    ) -> Result<(), Broken> {
        *self = Self::new(self.depth);
        for (side, levels) in [(Side::Bid, bids), (Side::Ask, asks)] {
            let mut last = None;
            for (px, qty) in levels {
                let (at, quantity) = read(side, px, qty)?;
                hold(quantity > 0, "an image has no empty levels", "a quantity", qty)?;
                hold(last < Some(at), "an image is sorted, best first", "a worse price", px)?;
                last = Some(at);
                self.put(side, at, px, qty);
            }
        }
        self.check_depth()
    }

    /// Changes levels.
    ///
    /// # Errors
    /// When the delta is not one: it removes what is not held, or leaves too many levels.
    pub(crate) fn change(
        &mut self,
        bids: &[LevelText<'_>],
        asks: &[LevelText<'_>],
    ) -> Result<(), Broken> {
        hold(!(bids.is_empty() && asks.is_empty()), "a delta is never empty", "levels", "none")?;
        for (side, levels) in [(Side::Bid, bids), (Side::Ask, asks)] {
            for (px, qty) in levels {
                let (at, quantity) = read(side, px, qty)?;
                if quantity > 0 {
                    self.put(side, at, px, qty);
                } else {
                    let removed = self.remove(side, at);
                    hold(removed, "a delta removes only what is held", "a level held", px)?;
                }
            }
        }
        self.check_depth()
    }

    fn check_depth(&self) -> Result<(), Broken> {
        let deepest = self.bids.len().max(self.asks.len());
        let depth = self.depth.unwrap_or(usize::MAX);
        hold(deepest <= depth, "a view is at most as deep as subscribed", depth, deepest)
    }

    const fn side_mut(&mut self, side: Side) -> &mut Levels {
        match side {
            Side::Bid => &mut self.bids,
            Side::Ask => &mut self.asks,
        }
    }

    const fn side(&self, side: Side) -> &Levels {
        match side {
            Side::Bid => &self.bids,
            Side::Ask => &self.asks,
        }
    }

    fn put(&mut self, side: Side, at: i128, px: &str, qty: &str) {
        let hash = level_hash(side, px, qty);
        let level = Level { px: px.into(), qty: qty.into(), hash };
        let gone = self.side_mut(side).insert(at, level).map_or(0, |level| level.hash);
        self.digest = self.digest.wrapping_sub(gone).wrapping_add(hash);
    }

    fn remove(&mut self, side: Side, at: i128) -> bool {
        let Some(level) = self.side_mut(side).remove(&at) else { return false };
        self.digest = self.digest.wrapping_sub(level.hash);
        true
    }

    /// Sum of the hashes of all levels, as the truth defines them.
    pub(crate) const fn digest(&self) -> u64 {
        self.digest
    }

    /// How many levels there are.
    pub(crate) fn len(&self) -> usize {
        self.bids.len() + self.asks.len()
    }

    /// The quantity at a place of a side.
    pub(crate) fn qty(&self, side: Side, at: i128) -> Option<&str> {
        self.side(side).get(&at).map(|level| &*level.qty)
    }

    /// The place of the `count`-th level of a side.
    pub(crate) fn nth(&self, side: Side, count: usize) -> Option<i128> {
        self.side(side).keys().nth(count.checked_sub(1)?).copied()
    }

    /// The best bid and offer.
    pub(crate) fn top(&self) -> Top {
        let best = |levels: &Levels| {
            levels.first_key_value().map(|(_, level)| (level.px.clone(), level.qty.clone()))
        };
        Top { bid: best(&self.bids), ask: best(&self.asks) }
    }

    /// The 20 best levels of both sides, as the checksum of the recordings' states covers them.
    pub(crate) fn text_top20(&self) -> String {
        let mut text = String::with_capacity(1_024);
        for (levels, end) in [(&self.bids, "|"), (&self.asks, "")] {
            for (index, level) in levels.values().take(20).enumerate() {
                let comma = if index == 0 { "" } else { "," };
                // Writing to a string cannot fail.
                let _ = write!(text, "{comma}{}:{}", level.px, level.qty);
            }
            text.push_str(end);
        }
        text
    }
}

/// The place and the quantity of a level.
fn read(side: Side, px: &str, qty: &str) -> Result<(i128, i128), Broken> {
    let number = |text| {
        exact(text).ok_or_else(|| Broken::new("numbers are shortest exact decimals", "one", text))
    };
    Ok((place(side, number(px)?), number(qty)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirror() -> Mirror {
        let mut mirror = Mirror::new(Some(2));
        mirror.replace(&[("10.5", "2"), ("10.4", "1")], &[("10.6", "3")]).unwrap();
        mirror
    }

    #[test]
    fn holds_what_was_sent() {
        let mut mirror = mirror();
        assert_eq!(mirror.text_top20(), "10.5:2,10.4:1|10.6:3");
        mirror.change(&[("10.5", "0"), ("10.3", "7")], &[("10.6", "4")]).unwrap();
        assert_eq!(mirror.text_top20(), "10.4:1,10.3:7|10.6:4");
        assert_eq!(mirror.top().to_string(), "bid 10.4:1, ask 10.6:4");
        let digest = [(Side::Bid, "10.4", "1"), (Side::Bid, "10.3", "7"), (Side::Ask, "10.6", "4")]
            .iter()
            .fold(0u64, |sum, (side, px, qty)| sum.wrapping_add(level_hash(*side, px, qty)));
        assert_eq!(mirror.digest(), digest);
        assert_eq!(mirror.nth(Side::Bid, 2), Some(-10_300_000_000_000_000_000));
    }

    #[test]
    fn refuses_what_the_protocol_forbids() {
        let rule = |result: Result<(), Broken>| result.unwrap_err().rule;
        assert!(rule(mirror().change(&[], &[])).contains("never empty"));
        assert!(rule(mirror().change(&[("10.3", "0")], &[])).contains("what is held"));
        assert!(rule(mirror().change(&[("10.3", "1")], &[])).contains("as deep as"));
        assert!(rule(mirror().change(&[("10.50", "1")], &[])).contains("shortest"));
        assert!(rule(mirror().replace(&[("1", "1"), ("2", "1")], &[])).contains("sorted"));
        assert!(rule(mirror().replace(&[], &[("1", "1"), ("1", "2")])).contains("sorted"));
        assert!(rule(mirror().replace(&[("1", "0")], &[])).contains("no empty levels"));
        let deep = [("3", "1"), ("2", "1"), ("1", "1")];
        assert!(rule(mirror().replace(&deep, &[])).contains("as deep as"));
    }
}
