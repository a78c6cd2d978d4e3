//! One WebSocket between the exchange and the gateway in virtual time, byte for byte, with the pace
//! that the gateway's own texts have to keep.
//!
//! Owned by the world. What the venue says is framed as a server would, and read by the frame reader
//! of the session, so that a connection can end at any byte.

use std::collections::VecDeque;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use feed_sim::exchange::About;
use tickfan_core::market::Nanos;

use crate::feed::session::frames::Frames;
use crate::feed::session::line::{Pulse, Turns};
use crate::limits::HAND_OVER_SETTLE_NS;

/// Something on its way to the gateway.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) at_ns: Nanos,
    pub(super) bytes: Vec<u8>,
    pub(super) about: About,
    /// The line ends behind it.
    pub(super) is_last: bool,
}

/// See the top of this file.
pub(super) struct Line {
    /// The exchange's number of it.
    pub(super) connection: u64,
    pub(super) parcels: VecDeque<Parcel>,
    pub(super) frames: Frames,
    pub(super) pulse: Pulse,
    pub(super) ends_soon: bool,
    /// Nothing comes or goes any more.
    pub(super) is_dead: bool,
    texts: VecDeque<String>,
    turns: Turns,
    /// When the gateway said something last.
    said_ns: Nanos,
}

impl Line {
    pub(super) fn new(connection: u64, turns: Turns, now: Nanos) -> Self {
        Self {
            connection,
            parcels: VecDeque::new(),
            frames: Frames::default(),
            pulse: Pulse { heard_ns: now, pinged_ns: 0 },
            ends_soon: false,
            is_dead: false,
            texts: VecDeque::new(),
            turns,
            said_ns: now,
        }
    }

    /// The bytes of a text as a server frames it.
    pub(super) fn frame(text: &[u8]) -> Vec<u8> {
        let mut frame = vec![0x81];
        match u16::try_from(text.len()) {
            Ok(short @ 0..=125) => frame.push(short as u8),
            Ok(long) => {
                frame.push(126);
                frame.extend(long.to_be_bytes());
            }
            Err(_) => {
                frame.push(127);
                frame.extend((text.len() as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(text);
        frame
    }

    /// Puts bytes on the way; nothing overtakes what is on it.
    pub(super) fn push(&mut self, at_ns: Nanos, bytes: Vec<u8>, about: About) {
        let at_ns = self.parcels.back().map_or(at_ns, |last| last.at_ns.max(at_ns));
        self.parcels.push_back(Parcel { at_ns, bytes, about, is_last: false });
    }

    /// Everything on the way is held up until then.
    pub(super) fn hold_until(&mut self, at_ns: Nanos) {
        for parcel in &mut self.parcels {
            parcel.at_ns = parcel.at_ns.max(at_ns);
        }
    }

    /// Bytes arrive.
    pub(super) fn fill(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let filled =
                pin!(self.frames.fill(&mut rest)).poll(&mut Context::from_waker(Waker::noop()));
            assert!(matches!(filled, Poll::Ready(Ok(1..))), "bytes in memory are there at once");
        }
    }

    /// The gateway wants to say something.
    pub(super) fn post(&mut self, text: String) {
        self.texts.push_back(text);
    }

    /// The same before all others.
    pub(super) fn post_first(&mut self, text: String) {
        self.texts.push_front(text);
    }

    /// Texts wait for their turn.
    pub(super) fn has_texts(&self) -> bool {
        !self.texts.is_empty()
    }

    /// When the venue has had the time to answer all that was to be said; never while texts wait.
    pub(super) fn settled_ns(&self) -> Nanos {
        if self.texts.is_empty() { self.said_ns + HAND_OVER_SETTLE_NS } else { Nanos::MAX }
    }

    /// The next text, if it is its time; else when that is.
    pub(super) fn take_text(&mut self, now: Nanos) -> Result<String, Nanos> {
        if self.texts.is_empty() {
            return Err(Nanos::MAX);
        }
        if now < self.turns.next_ns() {
            return Err(self.turns.next_ns());
        }
        self.turns.take(now);
        self.said_ns = now;
        self.texts.pop_front().ok_or(Nanos::MAX)
    }
}
