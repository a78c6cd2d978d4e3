//! One WebSocket between the exchange and the gateway in virtual time, byte for byte, with the pace
//! that the gateway's own texts have to keep.
//!
//! Owned by the world, which puts on it what the venue says, framed as a server would, and lets a feed
//! read it. That goes through the frame reader of the session, so that a connection can end at any byte.

use std::collections::VecDeque;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use feed_sim::exchange::About;
use tickfan_core::market::Nanos;

use super::ONE_WAY_NS;
use crate::feed::Feed;
use crate::feed::session::frames::{Frames, Incoming};
use crate::feed::session::line::{Pulse, Turns};
use crate::limits::HAND_OVER_SETTLE_NS;

/// Something on its way to the gateway.
#[derive(Debug)]
pub(super) struct Parcel {
    at_ns: Nanos,
    pub(super) bytes: Vec<u8>,
    pub(super) about: About,
    /// The line ends behind it.
    is_last: bool,
}

/// A text on its way to the venue.
#[derive(Debug)]
pub(super) struct Text {
    pub(super) at_ns: Nanos,
    pub(super) connection: u64,
    pub(super) text: String,
}

/// What there was to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    Nothing,
    Something,
    /// The end of the line, and perhaps something before it.
    End,
}

/// See the top of this file.
pub(super) struct Line {
    /// The exchange's number of it.
    pub(super) connection: u64,
    parcels: VecDeque<Parcel>,
    frames: Frames,
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

    /// Puts bytes on the way; nothing overtakes what is on it.
    pub(super) fn push(&mut self, at_ns: Nanos, bytes: Vec<u8>, about: About) {
        let at_ns = self.parcels.back().map_or(at_ns, |last| last.at_ns.max(at_ns));
        self.parcels.push_back(Parcel { at_ns, bytes, about, is_last: false });
    }

    /// Ends behind what is on the way.
    pub(super) fn end(&mut self) {
        if let Some(last) = self.parcels.back_mut() {
            last.is_last = true;
        }
        self.is_dead = true;
    }

    /// Everything on the way is held up until then.
    pub(super) fn hold_until(&mut self, at_ns: Nanos) {
        for parcel in &mut self.parcels {
            parcel.at_ns = parcel.at_ns.max(at_ns);
        }
    }

    /// When the next of what is on the way arrives.
    pub(super) fn next_ns(&self) -> Nanos {
        self.parcels.front().map_or(Nanos::MAX, |parcel| parcel.at_ns)
    }

    /// What has arrived and was not read yet.
    pub(super) fn arrived(&self, now: Nanos) -> impl Iterator<Item = &Parcel> {
        self.parcels.iter().take_while(move |parcel| parcel.at_ns <= now)
    }

    /// Gives a feed what has arrived.
    pub(super) fn read(&mut self, feed: &mut Feed, now: Nanos) -> Reading {
        let mut reading = Reading::Nothing;
        while let Some(parcel) = self.parcels.pop_front_if(|parcel| parcel.at_ns <= now) {
            reading = Reading::Something;
            self.fill(&parcel.bytes);
            loop {
                match self.frames.take() {
                    Ok(Some(Incoming::Message(message))) => {
                        self.pulse.heard_ns = now;
                        feed.on_message(message, now);
                    }
                    Ok(Some(Incoming::Ping(_))) => {
                        self.pulse.heard_ns = now;
                        feed.on_heard(now);
                    }
                    Ok(Some(Incoming::Pong)) => self.pulse.heard_ns = now,
                    Ok(None) => break,
                    Ok(Some(Incoming::Close)) | Err(_) => return Reading::End,
                }
            }
            if parcel.is_last {
                return Reading::End;
            }
        }
        reading
    }

    /// Bytes arrive.
    fn fill(&mut self, bytes: &[u8]) {
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

    /// Sends the texts whose turn it is; returns when the next one may go.
    pub(super) fn send_due(&mut self, outgoing: &mut VecDeque<Text>, now: Nanos) -> Nanos {
        loop {
            match self.take_text(now) {
                Ok(_) if self.is_dead => {}
                Ok(text) => {
                    let at_ns = now + ONE_WAY_NS;
                    outgoing.push_back(Text { at_ns, connection: self.connection, text });
                }
                Err(again_ns) => return again_ns,
            }
        }
    }

    /// The next text, if it is its time; else when that is.
    fn take_text(&mut self, now: Nanos) -> Result<String, Nanos> {
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
