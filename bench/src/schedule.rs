//! What is published when: a pure function of a seed, so that the publisher of every peer and the
//! load's checker know the same without telling each other.
//!
//! Activity is spread over the topics by Zipf's law with exponent 1, as that of symbols is. Events
//! come in ticks of a millisecond; the beginning of its tick is an event's intended time, so that a
//! late publisher counts as latency.

/// The length of a tick.
pub(crate) const TICK_NS: u64 = 1_000_000;

/// Ticks in a second.
pub(crate) const TICKS_PER_S: u64 = 1_000;

/// One update of one topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Event {
    /// Which topic, from 0.
    pub(crate) topic: u32,
    /// Its running number within the topic, from 1.
    pub(crate) number: u64,
}

/// All events of a run, tick by tick.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    seed: u64,
    /// The upper end of each topic's share of 2^32.
    shares: Vec<u32>,
    numbers: Vec<u64>,
    rate_per_s: u64,
    tick: u64,
    published: u64,
}

impl Schedule {
    /// A schedule of `rate_per_s` events a second over `topics` topics.
    pub(crate) fn new(seed: u64, topics: usize, rate_per_s: u64) -> Self {
        let weights: Vec<f64> = (1..=topics).map(|rank| 1.0 / rank as f64).collect();
        let total: f64 = weights.iter().sum();
        let mut sum = 0.0;
        let shares = weights
            .iter()
            .map(|weight| {
                sum += weight;
                (sum / total * f64::from(u32::MAX)) as u32
            })
            .collect();
        Self { seed, shares, numbers: vec![0; topics], rate_per_s, tick: 0, published: 0 }
    }

    /// The events of the next tick.
    pub(crate) fn next_tick(&mut self, events: &mut Vec<Event>) {
        events.clear();
        self.tick += 1;
        let until = self.tick * self.rate_per_s / TICKS_PER_S;
        while self.published < until {
            let draw = (mix(self.seed ^ mix(self.published)) >> 32) as u32;
            let topic = self.shares.partition_point(|share| *share < draw);
            let topic = topic.min(self.shares.len() - 1);
            self.numbers[topic] += 1;
            events.push(Event { topic: topic as u32, number: self.numbers[topic] });
            self.published += 1;
        }
    }

    /// How many events each topic has had.
    pub(crate) fn numbers(&self) -> &[u64] {
        &self.numbers
    }
}

/// The topics of a client: `count` different ones of `topics`, drawn uniformly.
pub(crate) fn topics_of(seed: u64, client: u64, count: usize, topics: usize) -> Vec<u32> {
    let mut all: Vec<u32> = (0..topics as u32).collect();
    for at in 0..count.min(topics) {
        let draw = mix(mix(seed ^ (client << 20)) ^ at as u64);
        let other = at + (draw % (topics - at) as u64) as usize;
        all.swap(at, other);
    }
    all.truncate(count);
    all
}

/// SplitMix64's finalizer: spreads a number over all 64 bits.
const fn mix(mut value: u64) -> u64 {
    value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tick_has_its_share_and_the_first_topic_the_most() {
        let mut schedule = Schedule::new(1, 200, 10_500);
        let mut events = Vec::new();
        let mut counts = Vec::new();
        for _ in 0..1_000 {
            schedule.next_tick(&mut events);
            counts.push(events.len());
        }
        assert_eq!(counts.iter().sum::<usize>(), 10_500);
        assert!(counts.iter().all(|count| (10..=11).contains(count)));
        let numbers = schedule.numbers();
        let first = numbers[0] as f64 / 10_500.0;
        assert!((0.15..0.19).contains(&first), "1 / H(200) = 0.17, not {first}");
        assert!(numbers[199] < numbers[0] / 50);
    }

    #[test]
    fn a_client_has_different_topics_and_always_the_same() {
        let topics = topics_of(1, 7, 20, 200);
        assert_eq!(topics, topics_of(1, 7, 20, 200));
        assert_ne!(topics, topics_of(1, 8, 20, 200));
        let different: std::collections::BTreeSet<_> = topics.iter().collect();
        assert_eq!(different.len(), 20);
        assert_eq!(topics_of(1, 7, 10, 10).len(), 10);
    }
}
