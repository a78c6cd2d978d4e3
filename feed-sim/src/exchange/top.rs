//! The best levels of a side → their words, of which only those are made that are not as they were.
//!
//! Owned by a symbol of a venue that hashes the best of its book with every change: most of what is hashed
//! did not change.

use crate::truth::TruthLevel;

/// See the top of this file.
#[derive(Debug, Default)]
pub(super) struct Top {
    now: Worded,
    before: Worded,
}

#[derive(Debug, Default)]
struct Worded {
    /// Prices in ticks and quantities in lots, best first.
    levels: Vec<(i64, i64)>,
    /// The same in the venue's words.
    words: Vec<TruthLevel>,
}

impl Worded {
    fn clear(&mut self) {
        self.levels.clear();
        self.words.clear();
    }
}

impl Top {
    /// In the venue's words, best first.
    pub(super) fn words(&self) -> &[TruthLevel] {
        &self.now.words
    }

    /// The best levels are these now, best first.
    pub(super) fn set(
        &mut self,
        is_bid: bool,
        levels: impl Iterator<Item = (i64, i64)>,
        word: impl Fn(i64, i64) -> TruthLevel,
    ) {
        std::mem::swap(&mut self.now, &mut self.before);
        self.now.clear();
        let mut before = self.before.levels.iter().zip(&self.before.words).peekable();
        for level in levels {
            let is_better = |other: i64| if is_bid { other > level.0 } else { other < level.0 };
            while before.next_if(|((ticks, _), _)| is_better(*ticks)).is_some() {}
            let words = match before.next_if(|(known, _)| **known == level) {
                Some((_, words)) => words.clone(),
                None => word(level.0, level.1),
            };
            self.now.levels.push(level);
            self.now.words.push(words);
        }
    }

    /// What was worded is spelt in another way from now on.
    pub(super) fn forget(&mut self) {
        self.now.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn only_what_is_not_as_it_was_is_worded() {
        let mut top = Top::default();
        let worded = Cell::new(0);
        let word = |ticks: i64, lots: i64| {
            worded.set(worded.get() + 1);
            TruthLevel { px: ticks.to_string().into(), qty: lots.to_string().into() }
        };
        let first = [(100, 5), (99, 1), (97, 2), (95, 8)];
        for (levels, anew) in [
            (&first[..], 4),
            (&first[..], 0),
            // A better one comes, one goes, one has another quantity.
            (&[(101, 9), (100, 5), (97, 3), (95, 8)], 2),
            (&[(95, 8)], 0),
            (&[], 0),
            (&[(95, 8)], 1),
        ] {
            worded.set(0);
            top.set(true, levels.iter().copied(), word);
            let expected: Vec<TruthLevel> = levels.iter().map(|(t, l)| word(*t, *l)).collect();
            assert_eq!(top.words(), expected);
            assert_eq!(worded.get() - expected.len(), anew, "{levels:?}");
        }
        top.forget();
        worded.set(0);
        top.set(true, [(95, 8)].into_iter(), word);
        assert_eq!(worded.get(), 1);
    }
}
