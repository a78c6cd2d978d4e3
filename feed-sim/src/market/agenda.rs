//! Things that will happen to one symbol → the same in order of time, and at one time as they were put in.
//!
//! Owned by a symbol of the market. Almost all that a market does is to plan what comes soon and to look at
//! what is next, so that this is a wheel and not a heap: a thing is put where its time first differs from
//! the present one, and is moved nearer as that comes. Times may be put in in any order.

/// What falls into the same two to this power of nanoseconds is put in order together: about 1 ms.
const TICK_BITS: u32 = 20;
/// A wheel tells apart two to this power of times.
const WHEEL_BITS: u32 = 6;
/// Slots of a wheel.
const SLOTS: usize = 1 << WHEEL_BITS;
/// So many wheels tell all times apart.
const WHEELS: usize = (u64::BITS - TICK_BITS).div_ceil(WHEEL_BITS) as usize;
/// No entry.
const NONE: u32 = u32::MAX;

/// Something that will happen.
#[derive(Debug, Clone, Copy)]
struct Entry<T> {
    at_ns: u64,
    /// Put in as this one.
    count: u64,
    what: T,
}

/// The times at which a wheel has something, and the newest entry of each.
#[derive(Debug, Clone, Copy)]
struct Wheel {
    occupied: u64,
    newest: [u32; SLOTS],
}

/// See the top of this file.
#[derive(Debug)]
pub(super) struct Agenda<T> {
    /// What comes by the end of the present tick, the last first. Empty only if there is nothing at all.
    soon: Vec<Entry<T>>,
    /// The present tick: all on the wheels is later.
    tick: u64,
    /// The first has what falls into the same turn as the present tick, the next what falls into the same
    /// turn of that, and so on.
    wheels: [Wheel; WHEELS],
    /// What is on the wheels, each with the one in its slot that was put in before.
    later: Vec<(Entry<T>, u32)>,
    /// Places of `later` that are not in use.
    free: Vec<u32>,
    count: u64,
}

impl<T: Copy> Agenda<T> {
    /// Nothing, at this time.
    pub(super) fn new(now_ns: u64) -> Self {
        Self {
            soon: Vec::new(),
            tick: now_ns >> TICK_BITS,
            wheels: [Wheel { occupied: 0, newest: [NONE; SLOTS] }; WHEELS],
            later: Vec::new(),
            free: Vec::new(),
            count: 0,
        }
    }

    /// When something happens next.
    pub(super) fn next_ns(&self) -> Option<u64> {
        self.soon.last().map(|entry| entry.at_ns)
    }

    /// Something will happen.
    pub(super) fn push(&mut self, at_ns: u64, what: T) {
        self.count += 1;
        self.put(Entry { at_ns, count: self.count, what });
        if self.soon.is_empty() {
            self.advance();
        }
    }

    /// What is next happens.
    pub(super) fn pop(&mut self) -> Option<(u64, T)> {
        let Entry { at_ns, what, .. } = self.soon.pop()?;
        if self.soon.is_empty() {
            self.advance();
        }
        Some((at_ns, what))
    }

    fn put(&mut self, entry: Entry<T>) {
        let tick = entry.at_ns >> TICK_BITS;
        if tick <= self.tick {
            let is_later =
                |other: &Entry<T>| (other.at_ns, other.count) > (entry.at_ns, entry.count);
            let place = self.soon.partition_point(is_later);
            return self.soon.insert(place, entry);
        }
        let wheel = (tick ^ self.tick).ilog2() / WHEEL_BITS;
        let slot = (tick >> (wheel * WHEEL_BITS)) as usize % SLOTS;
        let wheel = &mut self.wheels[wheel as usize];
        wheel.occupied |= 1 << slot;
        let linked = (entry, wheel.newest[slot]);
        wheel.newest[slot] = match self.free.pop() {
            Some(place) => {
                self.later[place as usize] = linked;
                place
            }
            None => {
                self.later.push(linked);
                (self.later.len() - 1) as u32
            }
        };
    }

    /// Goes on to the next tick in which anything comes.
    fn advance(&mut self) {
        while self.soon.is_empty()
            && let Some(nearest) = self.wheels.iter().position(|wheel| wheel.occupied != 0)
        {
            let wheel = &mut self.wheels[nearest];
            let slot = wheel.occupied.trailing_zeros();
            wheel.occupied &= wheel.occupied - 1;
            let mut place = std::mem::replace(&mut wheel.newest[slot as usize], NONE);
            let shift = nearest as u32 * WHEEL_BITS;
            let turn = self.tick >> shift >> WHEEL_BITS << WHEEL_BITS;
            self.tick = (turn | u64::from(slot)) << shift;
            while place != NONE {
                let (entry, before) = self.later[place as usize];
                self.free.push(place);
                self.put(entry);
                place = before;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    use super::*;
    use crate::random::Random;

    #[test]
    fn all_comes_in_order_of_time_and_then_as_it_was_put_in() {
        let mut random = Random::of(7, 0);
        let start_ns = 1_790_000_000_000_000_000;
        let (mut agenda, mut heap) = (Agenda::new(start_ns), BinaryHeap::new());
        let mut now_ns = start_ns;
        let mut put = 0_u64;
        for round in 0..20_000 {
            // Now and then nothing is left, and what comes next is put in before what was next.
            let puts = if round % 5_000 > 4_000 { 0 } else { random.below(4) };
            for _ in 0..puts {
                // Nearer than a tick up to years, some at the same time, and the end of all times.
                let at_ns = match random.below(50) {
                    0 => u64::MAX,
                    1 => now_ns,
                    _ => now_ns + (random.skewed(56) >> 8 << 8),
                };
                put += 1;
                agenda.push(at_ns, put);
                heap.push(Reverse((at_ns, put)));
            }
            assert_eq!(agenda.next_ns(), heap.peek().map(|Reverse((at_ns, _))| *at_ns));
            if random.percent(60) || puts == 0 {
                let popped = agenda.pop();
                assert_eq!(popped, heap.pop().map(|Reverse(next)| next), "round {round}");
                now_ns = popped.map_or(now_ns, |(at_ns, _)| at_ns.min(now_ns + (1 << 40)));
            }
        }
        while let Some(Reverse(next)) = heap.pop() {
            assert_eq!(agenda.pop(), Some(next));
        }
        assert_eq!((agenda.pop(), agenda.next_ns()), (None, None));
    }
}
