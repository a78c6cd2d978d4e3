//! Dirty marks: how the feed thread tells one shard what has changed, without a queue or a lock.
//!
//! Per instrument and channel one atomic holds the receipt time of the oldest change that the shard
//! has not seen, with one summary bit per instrument above it. The shard takes the marks
//! first and loads the snapshots after, so that a snapshot is never older than its mark. A shard
//! about to sleep says until when; the feed thread wakes it at most once per batch.

#[cfg(loom)]
use loom::sync::atomic::{AtomicU8, AtomicU64, fence};
use std::sync::atomic::Ordering;
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU8, AtomicU64, fence};

use crate::market::{Channel, InstrumentId, Nanos};

/// Nothing has changed: later than any receipt.
const CLEAN: Nanos = Nanos::MAX;

/// The marks of one shard.
pub struct Marks {
    oldest_ns: Box<[[AtomicU64; Channel::ALL.len()]]>,
    /// Bit per channel: the shard has subscribers to it.
    interest: Box<[AtomicU8]>,
    summary: Box<[AtomicU64]>,
    /// Words of the summary in which the shard ever had an interest; its own.
    words: AtomicU64,
    /// The shard sleeps until this time; 0 = it is awake.
    parked_until_ns: AtomicU64,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl std::fmt::Debug for Marks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Marks")
            .field("instruments_max", &self.oldest_ns.len())
            .finish_non_exhaustive()
    }
}

impl Marks {
    /// Marks for ids below `instruments_max`; `wake` ends the shard's sleep.
    pub fn new(instruments_max: usize, wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            oldest_ns: (0..instruments_max)
                .map(|_| std::array::from_fn(|_| AtomicU64::new(CLEAN)))
                .collect(),
            interest: (0..instruments_max).map(|_| AtomicU8::new(0)).collect(),
            summary: (0..instruments_max.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            words: AtomicU64::new(0),
            parked_until_ns: AtomicU64::new(0),
            wake: Box::new(wake),
        }
    }

    /// Shard: has subscribers to a channel from now on, or no longer. To be called before the
    /// snapshot is loaded that the first subscriber starts from.
    pub fn set_interest(&self, id: InstrumentId, channel: Channel, interested: bool) {
        let bit = 1u8 << channel.index();
        if interested {
            let words = self.words.load(Ordering::Relaxed).max(id.index() as u64 / 64 + 1);
            self.words.store(words, Ordering::Relaxed);
            self.interest[id.index()].fetch_or(bit, Ordering::SeqCst);
        } else {
            self.interest[id.index()].fetch_and(!bit, Ordering::SeqCst);
        }
        // Pairs with the fence in `mark`: either the feed sees the interest, or we its snapshot.
        fence(Ordering::SeqCst);
    }

    /// Feed: a snapshot was published in which `channel` changed; the first change came at
    /// `receipt_ns`.
    pub fn mark(&self, id: InstrumentId, channel: Channel, receipt_ns: Nanos) {
        fence(Ordering::SeqCst);
        if self.interest[id.index()].load(Ordering::Relaxed) & (1 << channel.index()) == 0 {
            return;
        }
        // A mark already there is older, and stays. It is written all the same: a write that fails
        // would not carry our snapshot to the shard that takes the older mark.
        self.oldest_ns[id.index()][channel.index()].fetch_min(receipt_ns, Ordering::Release);
        self.summary[id.index() / 64].fetch_or(1 << (id.index() % 64), Ordering::Release);
    }

    /// Feed: at the end of a batch, ends the shard's sleep if it would last beyond `now`. Returns
    /// whether it had to.
    pub fn wake_if_parked(&self, now: Nanos) -> bool {
        fence(Ordering::SeqCst);
        let until = self.parked_until_ns.load(Ordering::Relaxed);
        let must_wake = until > now
            && self
                .parked_until_ns
                .compare_exchange(until, 0, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if must_wake {
            (self.wake)();
        }
        must_wake
    }

    /// Shard: takes all marks: instrument, channel, receipt of the oldest change.
    pub fn take(&self, mut each: impl FnMut(InstrumentId, Channel, Nanos)) {
        for (word, summary) in self.summary_in_use().iter().enumerate() {
            if summary.load(Ordering::Relaxed) == 0 {
                continue;
            }
            let mut bits = summary.swap(0, Ordering::Acquire);
            while bits != 0 {
                let id = word * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                for channel in Channel::ALL {
                    let oldest = self.oldest_ns[id][channel.index()].swap(CLEAN, Ordering::AcqRel);
                    if oldest != CLEAN {
                        each(InstrumentId(id as u32), *channel, oldest);
                    }
                }
            }
        }
    }

    fn summary_in_use(&self) -> &[AtomicU64] {
        &self.summary[..self.words.load(Ordering::Relaxed) as usize]
    }

    /// Shard: is about to sleep until `until_ns`. Returns false when there are marks: then it must
    /// not.
    pub fn park(&self, until_ns: Nanos) -> bool {
        self.parked_until_ns.store(until_ns, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let clean = self.summary_in_use().iter().all(|word| word.load(Ordering::Relaxed) == 0);
        if !clean {
            self.unpark();
        }
        clean
    }

    /// Shard: is awake.
    pub fn unpark(&self) {
        self.parked_until_ns.store(0, Ordering::Relaxed);
    }
}

/// Every interleaving of the two threads, within loom's bounds; see `.ci/run` for the command.
#[cfg(all(test, loom))]
mod models {
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicBool;

    use super::*;

    const ID: InstrumentId = InstrumentId(0);

    #[test]
    fn loom_no_mark_is_slept_through() {
        loom::model(|| {
            let woken = Arc::new(AtomicBool::new(false));
            let wakes = Arc::clone(&woken);
            let marks = Arc::new(Marks::new(1, move || wakes.store(true, Ordering::Relaxed)));
            marks.set_interest(ID, Channel::Book, true);
            let feed = {
                let marks = Arc::clone(&marks);
                loom::thread::spawn(move || {
                    marks.mark(ID, Channel::Book, 5);
                    marks.wake_if_parked(6);
                })
            };
            let sleeps = marks.park(Nanos::MAX);
            feed.join().unwrap();
            assert!(!sleeps || woken.load(Ordering::Relaxed), "a lost wake-up");
        });
    }

    #[test]
    fn loom_a_new_subscriber_sees_the_snapshot_or_the_mark() {
        loom::model(|| {
            let marks = Arc::new(Marks::new(1, || {}));
            let snapshot = Arc::new(AtomicU64::new(0));
            let feed = {
                let (marks, snapshot) = (Arc::clone(&marks), Arc::clone(&snapshot));
                loom::thread::spawn(move || {
                    snapshot.store(1, Ordering::SeqCst);
                    marks.mark(ID, Channel::Book, 5);
                })
            };
            marks.set_interest(ID, Channel::Book, true);
            let seen = snapshot.load(Ordering::SeqCst);
            feed.join().unwrap();
            let mut marked = false;
            marks.take(|_, _, _| marked = true);
            assert!(seen == 1 || marked, "a change that nobody will ever send");
        });
    }

    #[test]
    fn loom_a_mark_taken_is_a_snapshot_seen() {
        loom::model(|| {
            let marks = Arc::new(Marks::new(1, || {}));
            marks.set_interest(ID, Channel::Book, true);
            let snapshot = Arc::new(AtomicU64::new(0));
            let feed = {
                let (marks, snapshot) = (Arc::clone(&marks), Arc::clone(&snapshot));
                loom::thread::spawn(move || {
                    for version in 1..=2 {
                        snapshot.store(version, Ordering::Release);
                        marks.mark(ID, Channel::Book, version);
                    }
                })
            };
            let mut seen = 0;
            marks.take(|_, _, _| seen = snapshot.load(Ordering::Acquire));
            feed.join().unwrap();
            marks.take(|_, _, _| seen = snapshot.load(Ordering::Acquire));
            assert_eq!(seen, 2, "the last change was never looked at");
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;

    use super::*;

    fn taken(marks: &Marks) -> Vec<(u32, Channel, Nanos)> {
        let mut all = Vec::new();
        marks.take(|id, channel, oldest| all.push((id.0, channel, oldest)));
        all
    }

    #[test]
    fn the_oldest_change_stays_until_it_is_taken() {
        let marks = Marks::new(100, || {});
        let id = InstrumentId(70);
        marks.mark(id, Channel::Book, 5);
        assert_eq!(taken(&marks), [], "nobody is interested");
        marks.set_interest(id, Channel::Book, true);
        marks.mark(id, Channel::Book, 6);
        marks.mark(id, Channel::Book, 7);
        marks.mark(id, Channel::Bbo, 7);
        assert_eq!(taken(&marks), [(70, Channel::Book, 6)]);
        assert_eq!(taken(&marks), []);
        marks.set_interest(id, Channel::Book, false);
        marks.mark(id, Channel::Book, 8);
        assert_eq!(taken(&marks), []);
    }

    #[test]
    fn a_sleeper_is_woken_once_and_only_when_it_would_oversleep() {
        let wakes = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&wakes);
        let marks = Marks::new(10, move || {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        marks.set_interest(InstrumentId(1), Channel::Trades, true);
        assert!(!marks.wake_if_parked(1), "it is awake");
        assert!(marks.park(100));
        assert!(!marks.wake_if_parked(100), "it wakes by itself");
        assert!(marks.wake_if_parked(50));
        assert!(!marks.wake_if_parked(50), "once is enough");
        assert_eq!(wakes.load(Ordering::Relaxed), 1);
        marks.mark(InstrumentId(1), Channel::Trades, 51);
        assert!(!marks.park(200), "there is something to do");
    }
}
