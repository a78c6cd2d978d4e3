//! What clients say → when the venue hears it: a little later, as over a real distance.
//!
//! Used by whoever serves an exchange. A client that relies on an answer that comes after its own next
//! line has run breaks when the answer is instant, and one that relies on an instant answer breaks
//! otherwise; both can be had. It is pure: times are arguments, and the same seed and calls delay by
//! the same. What a connection says is heard in the order in which it was said.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use crate::random::Random;

/// Messages of one connection that wait to be heard.
const WAITING_MAX: usize = 256;

/// How long it takes until a message of a client is heard, when nobody says otherwise.
pub const ACK_DELAY_NS: RangeInclusive<u64> = 1_000_000..=20_000_000;

/// The stream of random numbers of a seed that delays are drawn from: no symbol's.
const STREAM: u64 = u64::MAX;

/// A client said more than can wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overflow;

/// What one connection said and nobody has heard yet.
#[derive(Debug, Default)]
struct Waiting {
    messages: usize,
    /// When the last of them will be heard.
    last_ns: u64,
}

/// What was said and not yet heard.
#[derive(Debug)]
pub struct Ear {
    delay_ns: RangeInclusive<u64>,
    random: Random,
    /// By when it will be heard, and the order in which it was said.
    said: BTreeMap<(u64, u64), (u64, String)>,
    count: u64,
    connections: BTreeMap<u64, Waiting>,
}

impl Ear {
    /// Hears what is said after a time in this range; `0..=0` = at once.
    pub fn new(delay_ns: RangeInclusive<u64>, seed: u64) -> Self {
        let random = Random::of(seed, STREAM);
        Self { delay_ns, random, said: BTreeMap::new(), count: 0, connections: BTreeMap::new() }
    }

    /// A connection says something.
    ///
    /// # Errors
    /// When too much of what it said waits already.
    pub fn say(&mut self, connection: u64, text: &str, now_ns: u64) -> Result<(), Overflow> {
        let waiting = self.connections.entry(connection).or_default();
        if waiting.messages >= WAITING_MAX {
            return Err(Overflow);
        }
        let (least_ns, most_ns) = (*self.delay_ns.start(), *self.delay_ns.end());
        let spread_ns = most_ns.saturating_sub(least_ns);
        let delay_ns = least_ns + self.random.below(spread_ns + 1);
        let at_ns = now_ns.saturating_add(delay_ns).max(waiting.last_ns);
        waiting.messages += 1;
        waiting.last_ns = at_ns;
        self.count += 1;
        self.said.insert((at_ns, self.count), (connection, text.to_owned()));
        Ok(())
    }

    /// When something is heard next.
    pub fn next_ns(&self) -> Option<u64> {
        self.said.keys().next().map(|(at_ns, _)| *at_ns)
    }

    /// What is heard first, if it is by now: who said it, and what.
    pub fn hear(&mut self, now_ns: u64) -> Option<(u64, String)> {
        let first = self.said.first_entry().filter(|first| first.key().0 <= now_ns)?;
        let (connection, text) = first.remove();
        if let Some(waiting) = self.connections.get_mut(&connection) {
            waiting.messages -= 1;
        }
        Some((connection, text))
    }

    /// Forgets what a connection said that is gone.
    pub fn forget(&mut self, connection: u64) {
        self.connections.remove(&connection);
        self.said.retain(|_, (by, _)| *by != connection);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_heard_in_order_and_late_as_asked() {
        let mut ear = Ear::new(ACK_DELAY_NS, 7);
        let mut said = 0;
        for message in 0..100u64 {
            for connection in 1..=2 {
                ear.say(connection, &message.to_string(), message * 1_000_000).unwrap();
                said += 1;
            }
        }
        let mut next = [0u64; 3];
        while let Some(at_ns) = ear.next_ns() {
            assert_eq!(ear.hear(at_ns - 1), None, "too early");
            let (connection, text) = ear.hear(at_ns).unwrap();
            let message: u64 = text.parse().unwrap();
            assert_eq!(message, next[connection as usize], "in order");
            next[connection as usize] += 1;
            let delay_ns = at_ns - message * 1_000_000;
            assert!(ACK_DELAY_NS.contains(&delay_ns), "{delay_ns}");
            said -= 1;
        }
        assert_eq!(said, 0);
    }

    #[test]
    fn the_same_seed_delays_by_the_same_and_nothing_can_be_nothing() {
        let times = |seed| {
            let mut ear = Ear::new(ACK_DELAY_NS, seed);
            (0..20).for_each(|connection| ear.say(connection, "ping", 0).unwrap());
            std::iter::from_fn(|| {
                let at_ns = ear.next_ns()?;
                ear.hear(at_ns).map(|(connection, _)| (at_ns, connection))
            })
            .collect::<Vec<_>>()
        };
        assert_eq!(times(1), times(1));
        assert_ne!(times(1), times(2));
        let mut ear = Ear::new(0..=0, 1);
        ear.say(1, "ping", 5).unwrap();
        assert_eq!(ear.hear(5), Some((1, "ping".to_owned())));
    }

    #[test]
    fn what_waits_has_a_bound_and_leaves_with_its_connection() {
        let mut ear = Ear::new(ACK_DELAY_NS, 1);
        for _ in 0..WAITING_MAX {
            ear.say(1, "ping", 0).unwrap();
        }
        assert_eq!(ear.say(1, "ping", 0), Err(Overflow));
        ear.say(2, "ping", 0).unwrap();
        ear.forget(1);
        let (connection, _) = ear.hear(u64::MAX).unwrap();
        assert_eq!((connection, ear.next_ns()), (2, None));
    }
}
