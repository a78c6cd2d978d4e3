//! Changes of the levels of a book that were not told yet → each changed level once, in the order in which
//! levels are told, and what it was when it was told last.
//!
//! Owned by a symbol. Whatever happens at a level until it is told, it is one entry here.

use crate::market::{Change, Levels, set_level};

/// See the top of this file.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// Of each side place and what was there, the first place first.
    sides: [Vec<(i64, i64)>; 2],
}

/// Where a price comes among those of its side, and the price of such a place.
const fn place(is_bid: bool, ticks: i64) -> i64 {
    if is_bid { -ticks } else { ticks }
}

impl Pending {
    /// Everything was told.
    pub(super) const fn is_empty(&self) -> bool {
        let [bids, asks] = &self.sides;
        bids.is_empty() && asks.is_empty()
    }

    /// A level changed. What it was before is known already if it changed before.
    pub(super) fn push(&mut self, Change { is_bid, ticks, was }: Change) {
        let side = &mut self.sides[usize::from(!is_bid)];
        let place = place(is_bid, ticks);
        if let Err(at) = side.binary_search_by_key(&place, |(place, _)| *place) {
            side.insert(at, (place, was));
        }
    }

    /// Bids before offers, and the best first.
    pub(super) fn iter(&self) -> impl Iterator<Item = Change> {
        let of = |is_bid: bool| {
            let side = self.sides[usize::from(!is_bid)].iter();
            side.map(move |(at, was)| Change { is_bid, ticks: place(is_bid, *at), was: *was })
        };
        of(true).chain(of(false))
    }

    /// The book without these changes.
    pub(super) fn undo(&self, levels: &mut Levels) {
        for Change { is_bid, ticks, was } in self.iter() {
            set_level(levels, is_bid, ticks, was);
        }
    }

    /// All prices are this many times as many ticks.
    pub(super) fn refine(&mut self, times: i64) {
        self.sides.iter_mut().flatten().for_each(|(place, _)| *place *= times);
    }

    /// Everything is told now.
    pub(super) fn clear(&mut self) {
        self.sides.iter_mut().for_each(Vec::clear);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_told_once_with_what_it_was_first_the_best_first() {
        let mut pending = Pending::default();
        let change = |is_bid, ticks, was| Change { is_bid, ticks, was };
        for (is_bid, ticks, was) in [
            (false, 12, 1),
            (true, 9, 2),
            (false, 11, 3),
            (true, 10, 4),
            (true, 9, 5),
            (false, 12, 0),
        ] {
            pending.push(change(is_bid, ticks, was));
        }
        pending.refine(10);
        let expected = [(true, 100, 4), (true, 90, 2), (false, 110, 3), (false, 120, 1)]
            .map(|(b, t, w)| change(b, t, w));
        assert!(pending.iter().eq(expected));
        let mut levels = [vec![(90, 7)], vec![(110, 3), (120, 6), (130, 8)]];
        pending.undo(&mut levels);
        assert_eq!(levels, [vec![(100, 4), (90, 2)], vec![(110, 3), (120, 1), (130, 8)]]);
        assert!(!pending.is_empty());
        pending.clear();
        assert!(pending.is_empty());
    }
}
