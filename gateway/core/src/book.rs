//! The order book of one instrument: both sides, changed by whole venue events.
//!
//! The feed thread owns the only one per instrument; everyone else sees it through snapshots.

use crate::market::{Level, Side};

pub mod side;

use side::BookSide;

/// Both sides of a book. To clone it costs two reference counts.
#[derive(Debug, Clone)]
pub struct Book {
    /// The buyers.
    pub bids: BookSide,
    /// The sellers.
    pub asks: BookSide,
}

impl Default for Book {
    fn default() -> Self {
        Self { bids: BookSide::new(Side::Bid), asks: BookSide::new(Side::Ask) }
    }
}

impl Book {
    /// One side.
    pub const fn side(&self, side: Side) -> &BookSide {
        match side {
            Side::Bid => &self.bids,
            Side::Ask => &self.asks,
        }
    }

    /// One side, to change it.
    pub const fn side_mut(&mut self, side: Side) -> &mut BookSide {
        match side {
            Side::Bid => &mut self.bids,
            Side::Ask => &mut self.asks,
        }
    }

    /// Best bid and best offer.
    pub fn best(&self) -> (Option<Level>, Option<Level>) {
        (self.bids.best(), self.asks.best())
    }

    /// The best bid is at or above the best offer: no market looks like that for long.
    pub fn is_crossed(&self) -> bool {
        matches!(self.best(), (Some(bid), Some(ask)) if bid.px >= ask.px)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::market::{Px, Qty};

    fn level(px: i64, qty: i64) -> Level {
        Level { px: Px(px), qty: Qty(qty) }
    }

    fn levels(side: &BookSide) -> Vec<(i64, i64)> {
        side.iter().map(|level| (level.px.0, level.qty.0)).collect()
    }

    #[test]
    fn bids_fall_and_asks_rise() {
        let mut book = Book::default();
        for (px, qty) in [(10, 1), (12, 2), (11, 3)] {
            assert!(book.bids.set(Px(px), Qty(qty)));
            assert!(book.asks.set(Px(px + 10), Qty(qty)));
        }
        assert_eq!(levels(&book.bids), [(12, 2), (11, 3), (10, 1)]);
        assert_eq!(levels(&book.asks), [(20, 1), (21, 3), (22, 2)]);
        assert!(!book.is_crossed());
        book.asks.set(Px(12), Qty(1));
        assert!(book.is_crossed(), "a locked book counts as crossed");
    }

    #[test]
    fn what_changes_nothing_is_told_apart() {
        let mut bids = BookSide::new(Side::Bid);
        assert!(!bids.set(Px(5), Qty(0)), "deleting what is not held");
        assert!(bids.set(Px(5), Qty(1)));
        assert!(!bids.set(Px(5), Qty(1)), "the same quantity again");
        assert!(bids.set(Px(5), Qty(0)));
        assert!(bids.is_empty());
    }

    #[test]
    fn a_clone_keeps_what_it_saw_and_shares_the_rest() {
        let mut asks = BookSide::new(Side::Ask);
        asks.replace((0..10_000).map(|px| level(px, 1)).collect(), None);
        let before = asks.clone();
        asks.set(Px(5_000), Qty(9));
        assert!(before.iter().all(|level| level.qty == Qty(1)));
        let shared = before
            .chunks()
            .iter()
            .zip(asks.chunks())
            .filter(|(a, b)| std::sync::Arc::ptr_eq(&a.levels, &b.levels))
            .count();
        assert_eq!(shared, before.chunks().len() - 1, "one change copies one chunk");
    }

    #[test]
    fn an_image_may_come_unsorted_repeated_and_cut() {
        let mut bids = BookSide::new(Side::Bid);
        bids.replace(vec![level(1, 1), level(3, 1), level(2, 0), level(3, 7)], Some(4));
        assert_eq!(levels(&bids), [(3, 7), (1, 1)]);
        assert_eq!(
            bids.trusted_len(10),
            Some(2),
            "nothing is held below the cut, but there may be"
        );
        bids.set(Px(0), Qty(1));
        assert_eq!(bids.trusted_len(10), Some(2));
        assert_eq!(bids.trusted_len(2), None);
    }

    #[test]
    fn a_finer_scale_keeps_the_values_or_says_that_it_cannot() {
        let mut bids = BookSide::new(Side::Bid);
        bids.replace(vec![level(3, 7), level(1, 1)], None);
        assert!(bids.rescale(100, 10));
        assert_eq!(levels(&bids), [(300, 70), (100, 10)]);
        assert!(!bids.rescale(i64::MAX, 1));
        assert_eq!(levels(&bids), [(300, 70), (100, 10)]);
    }

    proptest! {
        /// The model is the plainest sorted map there is.
        #[test]
        fn behaves_like_a_sorted_map(
            bid in any::<bool>(),
            ops in proptest::collection::vec((0i64..400, 0i64..4), 1..1_500),
            depth in 1usize..300,
            publish_every in 1usize..40,
        ) {
            let side = if bid { Side::Bid } else { Side::Ask };
            let mut under_test = BookSide::new(side);
            let mut model = BTreeMap::new();
            // What readers hold is shared with what is changed next, and must stay as it was.
            let mut published = (under_test.clone(), Vec::new());
            for (i, (px, qty)) in ops.iter().enumerate() {
                let before = if *qty == 0 { model.remove(px) } else { model.insert(*px, *qty) };
                let changed = if *qty == 0 { before.is_some() } else { before != Some(*qty) };
                prop_assert_eq!(under_test.set(Px(*px), Qty(*qty)), changed);
                if i % publish_every == 0 {
                    prop_assert_eq!(levels(&published.0), published.1);
                    published = (under_test.clone(), levels(&under_test));
                }
                if i % 500 == 499 {
                    under_test.truncate(depth);
                    let keys: Vec<i64> = if bid {
                        model.keys().rev().skip(depth).copied().collect()
                    } else {
                        model.keys().skip(depth).copied().collect()
                    };
                    for key in keys { model.remove(&key); }
                }
            }
            prop_assert!(under_test.is_sound());
            prop_assert_eq!(levels(&published.0), published.1);
            let mut expected: Vec<(i64, i64)> = model.into_iter().collect();
            if bid { expected.reverse(); }
            prop_assert_eq!(levels(&under_test), expected);
        }
    }
}
