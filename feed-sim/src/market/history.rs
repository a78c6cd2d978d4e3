//! Changes of one book → the book as it was at any of them.
//!
//! Owned by the market. It keeps steps back, not books: the state at a number is made again when somebody
//! asks for it. What is older than its bound is forgotten.

use std::collections::VecDeque;

use super::book::Book;

/// Steps back that all symbols keep together.
const STEPS_IN_ALL: usize = 1 << 21;
/// Steps back that one symbol keeps at most.
const STEPS_MAX: usize = 1 << 16;
/// See [`STEPS_MAX`].
const STEPS_MIN: usize = 1 << 10;

/// Both sides of a book, best first: prices in ticks and quantities in lots.
pub type Levels = [Vec<(i64, i64)>; 2];

/// What a level was before a change.
#[derive(Debug, Clone, Copy)]
struct Step {
    /// The ticks of a bid, minus those of an offer: there are so many of these that each byte counts.
    rank: i64,
    lots: i64,
}

/// See the top of this file.
#[derive(Debug)]
pub(super) struct History {
    steps: VecDeque<Step>,
    /// Changes so far.
    count: u64,
    /// Names given to counts of changes, in order.
    marks: VecDeque<(u64, u64)>,
    steps_max: usize,
}

impl History {
    pub(super) fn new(symbols: usize) -> Self {
        let steps_max = (STEPS_IN_ALL / symbols.max(1)).clamp(STEPS_MIN, STEPS_MAX);
        Self { steps: VecDeque::new(), count: 0, marks: VecDeque::new(), steps_max }
    }

    /// A level is about to be another.
    pub(super) fn push(&mut self, is_bid: bool, ticks: i64, lots: i64) {
        if self.steps.len() == self.steps_max {
            self.steps.pop_front();
        }
        let rank = if is_bid { ticks } else { -ticks };
        self.steps.push_back(Step { rank, lots });
        self.count += 1;
    }

    /// The state as it is has this name from now on. Names rise; one that does not begins a new list.
    pub(super) fn mark(&mut self, name: u64) {
        match self.marks.back() {
            Some((newest, _)) if *newest > name => self.marks.clear(),
            Some((newest, _)) if *newest == name => drop(self.marks.pop_back()),
            _ => {}
        }
        let oldest = self.count - self.steps.len() as u64;
        while self.marks.len() > self.steps_max
            || self.marks.front().is_some_and(|(_, count)| *count < oldest)
        {
            self.marks.pop_front();
        }
        self.marks.push_back((name, self.count));
    }

    /// Both sides at a name, or as they are. A name that nothing has is that of the last one before it;
    /// `None` for what is not known any more or not yet.
    pub(super) fn levels(&self, book: &Book, name: Option<u64>) -> Option<Levels> {
        let mut levels = [true, false].map(|is_bid| book.levels(is_bid).collect::<Vec<_>>());
        let Some(name) = name else { return Some(levels) };
        if self.marks.back().is_none_or(|(newest, _)| *newest < name) {
            return None;
        }
        let place = self.marks.partition_point(|(known, _)| *known <= name).checked_sub(1)?;
        let steps_back = usize::try_from(self.count - self.marks[place].1).ok()?;
        if steps_back > self.steps.len() {
            return None;
        }
        for Step { rank, lots } in self.steps.iter().rev().take(steps_back) {
            set_level(&mut levels, *rank > 0, rank.abs(), *lots);
        }
        Some(levels)
    }

    /// All prices become this many times as many ticks.
    pub(super) fn refine(&mut self, times: i64) {
        self.steps.iter_mut().for_each(|step| step.rank *= times);
    }
}

/// Sets the quantity at a price of a book; zero removes the level.
pub fn set_level(levels: &mut Levels, is_bid: bool, ticks: i64, lots: i64) {
    let side = &mut levels[usize::from(!is_bid)];
    let place = side.binary_search_by(
        |(other, _)| {
            if is_bid { ticks.cmp(other) } else { other.cmp(&ticks) }
        },
    );
    match (place, lots) {
        (Ok(place), 0) => drop(side.remove(place)),
        (Ok(place), lots) => side[place].1 = lots,
        (Err(_), 0) => {}
        (Err(place), lots) => side.insert(place, (ticks, lots)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_made_again_until_it_is_forgotten() {
        let (mut book, mut history) = (Book::default(), History::new(1 << 20));
        let mut states = Vec::new();
        for number in 0..3_000_i64 {
            let (is_bid, ticks) = (number % 3 == 0, 100 + number % 7);
            history.push(is_bid, ticks, book.lots(is_bid, ticks));
            book.rest(is_bid, ticks, 1 + number, 0);
            history.mark(10 * number as u64);
            states.push([true, false].map(|is_bid| book.levels(is_bid).collect::<Vec<_>>()));
        }
        for number in [2_999, 2_500, 2_000] {
            let state = Some(states[number as usize].clone());
            assert_eq!(history.levels(&book, Some(10 * number)), state, "{number}");
            assert_eq!(history.levels(&book, Some(10 * number + 9)).is_some(), number < 2_999);
        }
        assert_eq!(history.levels(&book, Some(10_000)), None, "long ago");
        assert_eq!(history.levels(&book, Some(30_000)), None, "not yet");
        assert_eq!(history.levels(&book, None), states.pop());
    }
}
