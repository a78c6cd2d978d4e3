//! What is to be delivered, and whether it was: the schedule of one order, unrolled.
//!
//! Asked by the load generator for every update of a client that is checked.

use std::ops::Range;

use crate::schedule::{Schedule, TICK_NS};

/// No update of a topic was seen yet: the first one is taken as it is.
pub(super) const UNKNOWN: u64 = u64::MAX;

/// All events of one order, with their intended times.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    start_ns: u64,
    /// Only events that are intended in it count.
    window_ns: Range<u64>,
    /// Number of each topic's last event before this order.
    base: Vec<u64>,
    /// The tick of each event, by topic and number.
    ticks: Vec<Vec<u32>>,
}

impl Expected {
    /// Nothing is published.
    pub(crate) fn nothing(topics: usize) -> Self {
        Self {
            start_ns: 0,
            window_ns: 0..0,
            base: vec![0; topics],
            ticks: vec![Vec::new(); topics],
        }
    }

    /// The first `ticks` of a schedule, from `start_ns` on; numbers go on from `base`.
    pub(crate) fn new(
        mut schedule: Schedule,
        start_ns: u64,
        ticks: u64,
        window_ns: Range<u64>,
        base: Vec<u64>,
    ) -> Self {
        let mut of_topic = vec![Vec::new(); base.len()];
        let mut events = Vec::new();
        for tick in 0..ticks {
            schedule.next_tick(&mut events);
            for event in &events {
                of_topic[event.topic as usize].push(tick as u32);
            }
        }
        Self { start_ns, window_ns, base, ticks: of_topic }
    }

    /// The times become known later than the events.
    pub(crate) fn start_at(&mut self, start_ns: u64, window_ns: Range<u64>) {
        self.start_ns = start_ns;
        self.window_ns = window_ns;
    }

    /// Number of a topic's last event before this order.
    pub(crate) fn base(&self, topic: usize) -> u64 {
        self.base[topic]
    }

    /// Numbers of every topic's last event of this order.
    pub(crate) fn ends(&self) -> Vec<u64> {
        self.base.iter().zip(&self.ticks).map(|(base, ticks)| base + ticks.len() as u64).collect()
    }

    /// When an event was to be published; `None` when there is no such event in this order.
    pub(crate) fn intended_ns(&self, topic: usize, number: u64) -> Option<u64> {
        let at = number.checked_sub(self.base[topic] + 1)?;
        let tick = self.ticks[topic].get(usize::try_from(at).ok()?)?;
        Some(self.start_ns + u64::from(*tick) * TICK_NS)
    }

    /// Whether an intended time is in the window.
    pub(crate) fn counts(&self, intended_ns: u64) -> bool {
        self.window_ns.contains(&intended_ns)
    }

    /// Whether a read is in the window.
    pub(crate) fn is_open(&self, now_ns: u64) -> bool {
        self.window_ns.contains(&now_ns)
    }

    /// Events of a topic in the window.
    pub(crate) fn due(&self, topic: usize) -> u64 {
        let tick_of = |ns: u64| (ns.saturating_sub(self.start_ns).div_ceil(TICK_NS)) as u32;
        let (first, last) = (tick_of(self.window_ns.start), tick_of(self.window_ns.end));
        let ticks = &self.ticks[topic];
        let before = |tick: u32| ticks.partition_point(|at| *at < tick);
        (before(last) - before(first)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_when_each_event_was_to_be_and_how_many_are_due() {
        let start_ns = 5_000_000_000;
        let window = start_ns + 100 * TICK_NS..start_ns + 200 * TICK_NS;
        let schedule = Schedule::new(1, 3, 2_000);
        let expected = Expected::new(schedule, start_ns, 300, window, vec![10, 0, 0]);
        assert_eq!(expected.intended_ns(0, 10), None);
        assert_eq!(expected.intended_ns(0, 11), Some(start_ns));
        assert_eq!((0..3).map(|topic| expected.due(topic)).sum::<u64>(), 200);
        assert_eq!(expected.ends().iter().sum::<u64>(), 610);
        assert_eq!(expected.intended_ns(0, expected.ends()[0] + 1), None);
    }
}
