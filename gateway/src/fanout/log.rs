//! The log of a lane: its newest updates, encoded once per encoding in use and laid end to end, so
//! that a reader's range is copied as one piece.
//!
//! A lane appends and trims, on its shard's thread. Positions are running numbers that wrap; the log
//! knows nothing of who stands at them.

use std::collections::VecDeque;
use std::sync::Arc;

use tickfan_core::market::Nanos;
use tickfan_core::wire::{Encoding, Update};

use crate::limits::LOG_STATES_MAX;

/// Dropped bytes in front of a text before what is left is moved to its beginning.
const SLACK_BYTES: usize = 4 << 10;

/// What all encodings of an update have in common.
#[derive(Debug, Clone, Copy)]
pub struct Body {
    /// The version after it; `None` where it changes none (a state).
    pub s: Option<u64>,
    /// The version before it.
    pub p: u64,
    /// Our receipt of the oldest change in it.
    pub to_ns: Nanos,
    /// How old its newest event was on receipt, by two clocks; `None` where the venue gives no time.
    pub feed_age_ns: Option<i64>,
}

/// A change of state, kept longer than the log.
#[derive(Debug)]
pub struct StateBody {
    position: u32,
    /// Our receipt of it.
    pub to_ns: Nanos,
    bytes: [Option<Arc<[u8]>>; Encoding::COUNT],
}

impl StateBody {
    /// The encoded update.
    pub fn bytes(&self, encoding: Encoding) -> &[u8] {
        self.bytes[encoding.index()].as_deref().unwrap_or_default()
    }
}

/// The updates of a log in one encoding, each behind a separator.
#[derive(Debug, Default)]
struct Text {
    bytes: Vec<u8>,
    /// Where the first body that is kept begins.
    start: usize,
    /// Bytes that were moved away in front of `bytes`.
    origin: u64,
    /// Where each body ends, counted from the very first byte.
    ends: VecDeque<u64>,
}

impl Text {
    fn end_of(&self, index: usize) -> usize {
        (self.ends[index] - self.origin) as usize
    }

    fn start_of(&self, index: usize) -> usize {
        if index == 0 { self.start } else { self.end_of(index - 1) }
    }

    fn append(&mut self, encoding: Encoding, update: &Update<'_>) {
        let encoder = encoding.encoder();
        self.bytes.extend_from_slice(encoder.separator());
        encoder.update(update, &mut self.bytes);
        self.ends.push_back(self.origin + self.bytes.len() as u64);
    }

    fn pop_front(&mut self) {
        self.start = self.end_of(0);
        self.ends.pop_front();
        if self.ends.is_empty() || self.start > SLACK_BYTES.max(self.bytes.len() / 2) {
            self.bytes.drain(..self.start);
            self.origin += self.start as u64;
            self.start = 0;
        }
    }

    fn clear(&mut self) {
        self.origin += self.bytes.len() as u64;
        self.bytes.clear();
        self.start = 0;
        self.ends.clear();
    }

    fn len(&self) -> usize {
        self.bytes.len() - self.start
    }
}

/// The newest bodies of a lane.
#[derive(Debug, Default)]
pub struct Log {
    first: u32,
    bodies: VecDeque<Body>,
    texts: [Option<Text>; Encoding::COUNT],
    states: VecDeque<StateBody>,
}

/// How many positions `from` lies before `to`.
pub const fn behind(from: u32, to: u32) -> u32 {
    to.wrapping_sub(from)
}

impl Log {
    /// The position behind the last body.
    pub fn end(&self) -> u32 {
        self.first.wrapping_add(self.bodies.len() as u32)
    }

    /// The position of the first body.
    pub const fn first(&self) -> u32 {
        self.first
    }

    /// The bodies that are kept, oldest first.
    pub const fn bodies(&self) -> &VecDeque<Body> {
        &self.bodies
    }

    /// An encoding is read from now on: what is appended is encoded in it, too.
    pub fn begin_encoding(&mut self, encoding: Encoding) {
        if self.texts[encoding.index()].is_none() {
            // Its readers begin at the end: none of them asks for what was appended before.
            let ends = self.bodies.iter().map(|_| 0).collect();
            self.texts[encoding.index()] = Some(Text { ends, ..Text::default() });
        }
    }

    /// Nobody reads an encoding any more.
    pub fn end_encoding(&mut self, encoding: Encoding) {
        self.texts[encoding.index()] = None;
    }

    /// Whether an encoding is read.
    pub const fn has_encoding(&self, encoding: Encoding) -> bool {
        self.texts[encoding.index()].is_some()
    }

    /// Appends an update.
    pub fn push(&mut self, update: &Update<'_>, s: Option<u64>, p: u64, to_ns: Nanos) {
        for encoding in Encoding::ALL {
            if let Some(text) = &mut self.texts[encoding.index()] {
                text.append(encoding, update);
            }
        }
        let head = &update.head;
        let has_age = s.is_some() && head.te_ns != 0 && head.tr_ns != 0;
        // A venue may write any time: one that is centuries away tells no age.
        let feed_age_ns = head.tr_ns.checked_signed_diff(head.te_ns).filter(|_| has_age);
        self.bodies.push_back(Body { s, p, to_ns, feed_age_ns });
    }

    /// Appends a change of state. Returns whether an older one was forgotten for it.
    pub fn push_state(&mut self, update: &Update<'_>, p: u64, to_ns: Nanos) -> bool {
        let forgets = self.states.len() == LOG_STATES_MAX;
        if forgets {
            self.states.pop_front();
        }
        let position = self.end();
        self.push(update, None, p, to_ns);
        let last = self.bodies.len() - 1;
        let bytes = std::array::from_fn(|index| {
            let encoding = Encoding::ALL[index];
            self.has_encoding(encoding).then(|| self.body(last, encoding).into())
        });
        self.states.push_back(StateBody { position, to_ns, bytes });
        forgets
    }

    /// How many changes of state are kept.
    #[cfg(test)]
    pub(crate) fn states_len(&self) -> usize {
        self.states.len()
    }

    /// Forgets the oldest body.
    pub fn pop_front(&mut self) {
        if self.bodies.pop_front().is_some() {
            self.first = self.first.wrapping_add(1);
            for text in self.texts.iter_mut().flatten() {
                text.pop_front();
            }
        }
    }

    /// Nothing before here can be used any more.
    pub fn clear(&mut self) {
        self.first = self.end();
        self.bodies.clear();
        for text in self.texts.iter_mut().flatten() {
            text.clear();
        }
    }

    /// Nothing before here can be used, and every reader is behind.
    pub fn break_chain(&mut self) {
        self.clear();
        self.first = self.first.wrapping_add(1);
    }

    /// The index of a position's body, or of the log's beginning where that is later.
    pub fn index_of(&self, position: u32) -> usize {
        self.bodies.len() - (behind(position, self.end()) as usize).min(self.bodies.len())
    }

    /// Bytes of the bodies from an index on.
    pub fn bytes_from(&self, index: usize, encoding: Encoding) -> usize {
        match &self.texts[encoding.index()] {
            Some(text) if index < self.bodies.len() => text.bytes.len() - text.start_of(index),
            _ => 0,
        }
    }

    /// How many of some bodies begin within so many bytes.
    pub fn count_within(
        &self,
        bodies: std::ops::Range<usize>,
        bytes: usize,
        encoding: Encoding,
    ) -> usize {
        let Some(text) = &self.texts[encoding.index()] else { return 0 };
        if bodies.is_empty() || text.end_of(bodies.end - 1) - text.start_of(bodies.start) <= bytes {
            return bodies.len();
        }
        let end = text.start_of(bodies.start) + bytes;
        bodies.take_while(|index| text.start_of(*index) < end).count()
    }

    /// Bytes of all that is kept in an encoding.
    pub fn len_bytes(&self, encoding: Encoding) -> usize {
        self.texts[encoding.index()].as_ref().map_or(0, Text::len)
    }

    /// Some bodies as they lie, with a separator before each.
    pub fn range(&self, bodies: std::ops::Range<usize>, encoding: Encoding) -> &[u8] {
        match &self.texts[encoding.index()] {
            Some(text) if !bodies.is_empty() => {
                &text.bytes[text.start_of(bodies.start)..text.end_of(bodies.end - 1)]
            }
            _ => &[],
        }
    }

    /// One body without its separator.
    pub fn body(&self, index: usize, encoding: Encoding) -> &[u8] {
        self.range(index..index + 1, encoding)
            .get(encoding.encoder().separator().len()..)
            .unwrap_or_default()
    }

    /// The changes of state from one position up to another.
    pub fn states(&self, from: u32, until: u32) -> impl Iterator<Item = &StateBody> + '_ {
        let end = self.end();
        self.states.iter().filter(move |state| {
            let from_end = behind(state.position, end);
            from_end <= behind(from, end) && from_end > behind(until, end)
        })
    }
}

#[cfg(test)]
mod tests {
    use tickfan_core::market::{Scales, State, Why};
    use tickfan_core::wire::{Head, Payload};

    use super::*;

    fn push(log: &mut Log, s: u64) {
        push_of(log, s, 0, 0);
    }

    fn push_of(log: &mut Log, s: u64, te_ns: Nanos, tr_ns: Nanos) {
        let head = Head {
            view: Some(1),
            state: State::Live,
            epoch: 1,
            s,
            p: 0,
            q: None,
            te_ns,
            tr_ns,
            to_ns: 0,
            scales: Scales::default(),
        };
        let payload = Payload::State { why: Why::Synced, since_ns: 0 };
        log.push(&Update { head, payload }, Some(s), s - 1, s);
    }

    #[test]
    fn a_range_is_one_piece_however_much_was_dropped_before_it() {
        let mut log = Log::default();
        log.begin_encoding(Encoding::Json);
        for s in 1..=3 {
            push(&mut log, s);
        }
        let one = log.body(0, Encoding::Json).to_vec();
        for s in 4..=1_000 {
            push(&mut log, s);
            log.pop_front();
            assert_eq!(log.bodies().len(), 3);
            let range = log.range(0..3, Encoding::Json);
            assert_eq!(range.len(), 3 * (one.len() + 1), "at {s}");
            assert!(range.starts_with(b",{") && range.ends_with(b"}"));
            assert_eq!(log.bytes_from(1, Encoding::Json), 2 * (one.len() + 1));
        }
        assert_eq!(log.index_of(log.end()), 3);
        assert_eq!(log.index_of(log.first().wrapping_sub(5)), 0);
    }

    #[test]
    fn a_time_of_the_venue_may_be_any() {
        let mut log = Log::default();
        let beyond = i64::MAX as u64 + 5;
        for (te_ns, age_ns) in [(0, None), (1, Some(1)), (5, Some(-3)), (beyond, None)] {
            push_of(&mut log, 1, te_ns, 2);
            let age_of_newest = log.bodies().back().and_then(|body| body.feed_age_ns);
            assert_eq!(age_of_newest, age_ns, "{te_ns}");
        }
    }

    #[test]
    fn an_encoding_that_begins_later_holds_what_comes_after() {
        let mut log = Log::default();
        push(&mut log, 1);
        log.begin_encoding(Encoding::Json);
        push(&mut log, 2);
        assert_eq!(log.bytes_from(0, Encoding::Json), log.bytes_from(1, Encoding::Json));
        log.pop_front();
        assert!(log.body(0, Encoding::Json).starts_with(b"{"));
        log.end_encoding(Encoding::Json);
        push(&mut log, 3);
        assert_eq!(log.len_bytes(Encoding::Json), 0);
    }
}
