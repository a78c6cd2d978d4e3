//! The difference of two states of a side, seen to a depth.
//!
//! Called by the lanes on a shard's thread. It skips the chunks that both states share, so that its
//! cost follows what changed rather than how deep the book is.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::book::side::BookSide;
use crate::market::{Level, Qty};

/// A place in the first `left` levels of a side.
struct Cursor<'a> {
    side: &'a BookSide,
    chunk: usize,
    level: usize,
    left: usize,
}

impl<'a> Cursor<'a> {
    fn new(side: &'a BookSide, depth: usize) -> Self {
        Self { side, chunk: 0, level: 0, left: depth.min(side.len()) }
    }

    fn peek(&self) -> Option<Level> {
        (self.left > 0).then(|| self.side.chunks()[self.chunk].levels[self.level])
    }

    fn advance(&mut self) {
        self.left -= 1;
        self.level += 1;
        if self.level == self.side.chunks()[self.chunk].levels.len() {
            self.chunk += 1;
            self.level = 0;
        }
    }

    /// The chunk that begins here and is seen to its end.
    fn whole_chunk(&self) -> Option<&'a Arc<Vec<Level>>> {
        if self.level != 0 || self.left == 0 {
            return None;
        }
        let levels = &self.side.chunks()[self.chunk].levels;
        (levels.len() <= self.left).then_some(levels)
    }

    fn skip_chunk(&mut self, len: usize) {
        self.left -= len;
        self.chunk += 1;
    }
}

/// Appends to `out` the changes that turn the best `depth` levels of `old` into those of `new`, best
/// first: a new absolute quantity, or 0 for a level that is held and goes, be it removed or pushed
/// out of the depth.
pub fn side_changes(old: &BookSide, new: &BookSide, depth: usize, out: &mut Vec<Level>) {
    let mut old = Cursor::new(old, depth);
    let mut new = Cursor::new(new, depth);
    loop {
        if let (Some(a), Some(b)) = (old.whole_chunk(), new.whole_chunk())
            && Arc::ptr_eq(a, b)
        {
            old.skip_chunk(a.len());
            new.skip_chunk(b.len());
            continue;
        }
        let order = match (old.peek(), new.peek()) {
            (None, None) => return,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(a), Some(b)) if a.px == b.px => Ordering::Equal,
            (Some(a), Some(b)) if new.side.is_better(a.px, b.px) => Ordering::Less,
            (Some(_), Some(_)) => Ordering::Greater,
        };
        if let Some(gone) = old.peek()
            && order == Ordering::Less
        {
            out.push(Level { px: gone.px, qty: Qty(0) });
        }
        if let Some(now) = new.peek()
            && (order == Ordering::Greater || (order == Ordering::Equal && old.peek() != Some(now)))
        {
            out.push(now);
        }
        if order != Ordering::Greater {
            old.advance();
        }
        if order != Ordering::Less {
            new.advance();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::market::{Px, Side};

    proptest! {
        /// What a client holds after the change is exactly the new view, and no change is idle.
        #[test]
        fn turns_one_view_into_the_other(
            bid in any::<bool>(),
            start in proptest::collection::vec((0i64..500, 1i64..4), 0..400),
            ops in proptest::collection::vec((0i64..500, 0i64..4), 0..60),
            depth in prop_oneof![1usize..60, Just(usize::MAX)],
        ) {
            let mut side = BookSide::new(if bid { Side::Bid } else { Side::Ask });
            for (px, qty) in start { side.set(Px(px), Qty(qty)); }
            let old = side.clone();
            for (px, qty) in ops { side.set(Px(px), Qty(qty)); }

            let mut held: BTreeMap<i64, i64> =
                old.iter().take(depth).map(|l| (l.px.0, l.qty.0)).collect();
            let mut changes = Vec::new();
            side_changes(&old, &side, depth, &mut changes);
            for change in changes {
                if change.qty.0 == 0 {
                    prop_assert!(held.remove(&change.px.0).is_some(), "removes what is not held");
                } else {
                    prop_assert!(held.insert(change.px.0, change.qty.0) != Some(change.qty.0));
                }
            }
            let expected: BTreeMap<i64, i64> =
                side.iter().take(depth).map(|l| (l.px.0, l.qty.0)).collect();
            prop_assert_eq!(held, expected);
        }
    }
}
