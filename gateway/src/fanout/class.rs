//! The budget classes of a shard: which seat is sent to next, and which seats and lanes wait for
//! their pace or grain to pass.
//!
//! Each queue is a plain FIFO, because within a class every wait is equally long. Pure: times come
//! from the shard.

use std::collections::VecDeque;

use tickfan_core::market::Nanos;
use tickfan_core::view::BudgetClass;

use super::seat::{Seat, Standing, pace_ns};
use super::table::{LaneKey, SeatKey, Table};
use crate::mutant::{Mutant, planted};
use crate::stats::{Counter, Latency, Stats};

/// Places that an empty queue keeps.
const QUEUE_KEPT: usize = 1 << 10;

/// One budget class.
#[derive(Debug)]
struct Class {
    budget_ns: Nanos,
    /// Seats that are to be sent to, the longest waiting first.
    ready: VecDeque<SeatKey>,
    /// Seats that were sent to lately, and until when they wait.
    paced: VecDeque<(Nanos, SeatKey)>,
    /// Lanes that made a body lately, and until when they wait.
    grained: VecDeque<(Nanos, LaneKey)>,
    latency: Latency,
    /// Deadlines missed: by our fault, by the client's.
    misses: [Counter; 2],
}

/// All budget classes of a shard.
#[derive(Debug)]
pub struct Classes {
    /// By their indices, the strictest first.
    classes: Vec<Class>,
    /// Class 0 had the last send that others waited for.
    zero_was_last: bool,
}

impl Classes {
    /// Classes in which nobody waits.
    pub fn new(stats: &Stats) -> Self {
        let classes = BudgetClass::all().map(|class| Class {
            budget_ns: class.budget_ns(),
            ready: VecDeque::new(),
            paced: VecDeque::new(),
            grained: VecDeque::new(),
            latency: Latency::default(),
            misses: stats.misses(class),
        });
        Self { classes: classes.collect(), zero_was_last: false }
    }

    /// How many seats and lanes stand in its queues.
    #[cfg(test)]
    pub(crate) fn queued(&self) -> usize {
        let of_class = |class: &Class| class.ready.len() + class.paced.len() + class.grained.len();
        self.classes.iter().map(of_class).sum()
    }

    /// A seat is to be sent to.
    pub fn push_ready(&mut self, class: BudgetClass, key: SeatKey) {
        self.classes[class.index()].ready.push_back(key);
    }

    /// A lane waits for its grain to pass.
    pub fn push_grained(&mut self, class: BudgetClass, until_ns: Nanos, key: LaneKey) {
        self.classes[class.index()].grained.push_back((until_ns, key));
    }

    /// Whether any seat is to be sent to.
    pub fn has_ready(&self) -> bool {
        self.classes.iter().any(|class| !class.ready.is_empty())
    }

    /// When the next pace or grain has passed.
    pub fn next_due_ns(&self) -> Nanos {
        self.classes.iter().fold(Nanos::MAX, |due_ns, class| {
            let paced_ns = class.paced.front().map_or(Nanos::MAX, |(until_ns, _)| *until_ns);
            let grained_ns = class.grained.front().map_or(Nanos::MAX, |(until_ns, _)| *until_ns);
            due_ns.min(paced_ns).min(grained_ns)
        })
    }

    /// Takes a lane whose grain has passed, with the time until which it waited.
    pub fn take_grained(&mut self, now: Nanos) -> Option<(Nanos, LaneKey)> {
        self.classes.iter_mut().find_map(|class| take_due(&mut class.grained, now))
    }

    /// Takes a seat whose pace has passed, with the time until which it waited.
    pub fn take_paced(&mut self, now: Nanos) -> Option<(Nanos, SeatKey)> {
        self.classes.iter_mut().find_map(|class| take_due(&mut class.paced, now))
    }

    /// Takes the seat with the earliest deadline among the longest waiting of each class. Class 0,
    /// whose deadline is always now, takes at most half of the sends while others wait.
    pub fn next_seat(&mut self, seats: &Table<SeatKey, Seat>, now: Nanos) -> Option<SeatKey> {
        let mut zero = None;
        let mut best: Option<(Nanos, usize)> = None;
        for (index, class) in self.classes.iter_mut().enumerate() {
            let Some(oldest_ns) = class.longest_waiting_ns(seats) else { continue };
            if class.budget_ns == 0 {
                zero = Some(index);
                continue;
            }
            let deadline_ns = deadline_ns(oldest_ns, class.budget_ns, now);
            if best.is_none_or(|(earliest_ns, _)| deadline_ns < earliest_ns) {
                best = Some((deadline_ns, index));
            }
        }
        let best = best.map(|(_, index)| index);
        let is_zeros_turn = zero.is_some() && !(self.zero_was_last && best.is_some());
        self.zero_was_last = is_zeros_turn && best.is_some();
        let index = if is_zeros_turn { zero } else { best }?;
        self.classes[index].ready.pop_front()
    }

    /// A seat was sent all that it was due since `oldest_ns`: its pace begins. Returns where it
    /// stands.
    pub fn sent(&mut self, key: SeatKey, seat: &mut Seat, ts_ns: Nanos, by_client: bool) {
        let class = &mut self.classes[seat.class.index()];
        let latency_ns = ts_ns.saturating_sub(seat.oldest_ns);
        if !by_client {
            class.latency.record(latency_ns, ts_ns);
        }
        if class.budget_ns > 0 && latency_ns > class.budget_ns {
            class.misses[usize::from(by_client)].inc();
        }
        seat.oldest_ns = 0;
        seat.sent_ns = ts_ns;
        let pace_ns = pace_ns(seat.class);
        if pace_ns == 0 || planted(Mutant::UnpacedSeat) {
            seat.standing = Standing::Idle;
        } else {
            seat.standing = Standing::Paced;
            class.paced.push_back((seat.paced_until_ns(), key));
        }
    }

    /// The 99th percentile of a class lately, in microseconds, and whether it is beyond the budget.
    pub fn measured(&mut self, class: BudgetClass, now: Nanos) -> (Option<u64>, bool) {
        let class = &mut self.classes[class.index()];
        let p99_us = class.latency.p99_us(now);
        let budget_us = class.budget_ns / 1_000;
        (p99_us, budget_us > 0 && p99_us.is_some_and(|p99_us| p99_us > budget_us))
    }
}

impl Class {
    /// Since when the longest waiting seat waits, if any does.
    fn longest_waiting_ns(&mut self, seats: &Table<SeatKey, Seat>) -> Option<Nanos> {
        while let Some(key) = self.ready.front() {
            let waiting = seats
                .get(*key)
                .filter(|seat| seat.standing == Standing::Ready && seat.has_news())
                .map(|seat| seat.oldest_ns);
            if waiting.is_some() {
                return waiting;
            }
            // It left, or was sent to together with another.
            self.ready.pop_front();
        }
        None
    }
}

/// Takes the first of a queue if it is due.
fn take_due<K: Copy>(queue: &mut VecDeque<(Nanos, K)>, now: Nanos) -> Option<(Nanos, K)> {
    let first = *queue.front()?;
    if first.0 > now {
        return None;
    }
    queue.pop_front();
    if queue.is_empty() && queue.capacity() > QUEUE_KEPT {
        // A burst is over: what it took is not kept for the next.
        *queue = VecDeque::new();
    }
    Some(first)
}

/// When a seat must be sent to. A deadline that was missed is missed: the next is a budget later, so
/// that a class which cannot be kept takes from others no more than its share.
const fn deadline_ns(oldest_ns: Nanos, budget_ns: Nanos, now: Nanos) -> Nanos {
    let waited_ns = now.saturating_sub(oldest_ns);
    let budgets = waited_ns.div_ceil(budget_ns);
    oldest_ns + budget_ns * if budgets == 0 { 1 } else { budgets }
}

#[cfg(test)]
mod tests {
    use super::super::table::{ConnectionKey, Key};
    use super::*;
    use crate::limits::MILLI_NS;

    fn seat(seats: &mut Table<SeatKey, Seat>, classes: &mut Classes, ms: u64, oldest_ns: Nanos) {
        let class = BudgetClass::at_most(ms);
        let mut seat = Seat::new(ConnectionKey::from_index(0), class);
        seat.oldest_ns = oldest_ns;
        seat.standing = Standing::Ready;
        let key = seats.insert(seat);
        classes.push_ready(class, key);
    }

    /// The classes of the seats that are taken, in order.
    fn order(seats: &Table<SeatKey, Seat>, classes: &mut Classes, now: Nanos) -> Vec<u32> {
        std::iter::from_fn(|| classes.next_seat(seats, now))
            .filter_map(|key| Some(seats.get(key)?.class.ms()))
            .collect()
    }

    #[test]
    fn the_earliest_deadline_is_first_and_a_missed_one_begins_anew() {
        let (mut seats, mut classes) = (Table::default(), Classes::new(&Stats::default()));
        seat(&mut seats, &mut classes, 20, MILLI_NS);
        seat(&mut seats, &mut classes, 1, 3 * MILLI_NS);
        seat(&mut seats, &mut classes, 5, 2 * MILLI_NS);
        assert_eq!(order(&seats, &mut classes, 3 * MILLI_NS), [1, 5, 20]);

        assert_eq!(deadline_ns(10, 5, 10), 15);
        assert_eq!(deadline_ns(10, 5, 15), 15);
        assert_eq!(deadline_ns(10, 5, 16), 20);
        assert_eq!(deadline_ns(10, 5, 31), 35);
    }

    #[test]
    fn the_class_without_a_budget_takes_half_while_others_wait_and_all_when_none_does() {
        let (mut seats, mut classes) = (Table::default(), Classes::new(&Stats::default()));
        for oldest_ns in 1..=4 {
            seat(&mut seats, &mut classes, 0, oldest_ns);
        }
        seat(&mut seats, &mut classes, 100, 1);
        seat(&mut seats, &mut classes, 50, 1);
        assert_eq!(order(&seats, &mut classes, 9), [0, 50, 0, 100, 0, 0]);
    }

    #[test]
    fn a_seat_that_is_no_longer_ready_is_passed_over() {
        let (mut seats, mut classes) = (Table::default(), Classes::new(&Stats::default()));
        seat(&mut seats, &mut classes, 5, 1);
        seat(&mut seats, &mut classes, 5, 2);
        let first = seats.keys().next().unwrap();
        seats.get_mut(first).unwrap().standing = Standing::Blocked;
        assert_eq!(order(&seats, &mut classes, 3).len(), 1);
        assert!(!classes.has_ready());
    }
}
