//! One connection's messages → what is done to its socket, and when.
//!
//! Owned by the faulty exchange, which decides what happens to which message. Pure: what comes out are
//! bytes and times, and the order is kept.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;

use crate::frame::{Opcode, frame, head};
use crate::scenario::{Fault, Kind};

/// Acts that may wait on one connection; with more it is closed.
const WAITING_MAX: usize = 8_192;

/// How long a giant frame is that does not say.
const GIANT_BYTES: usize = 32 << 20;

/// Its payload is made of pieces of this size.
const PIECE_BYTES: usize = 1 << 20;

/// Pieces in which a message drips: they may all be due at once, and are not to be more than may wait for
/// a connection.
const DRIPS_MAX: usize = 512;

/// What is done to a connection's socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// A text message is sent.
    Text(Bytes),
    /// Bytes are sent as they are, below the WebSocket.
    Raw(Bytes),
    /// It is closed with this code and reason.
    Close(u16, &'static str),
    /// It ends without a word.
    Cut,
    /// From now on it is neither read nor written, until it is cut.
    Deafen,
}

/// See the top of this file.
#[derive(Debug, Default)]
pub(super) struct Line {
    waiting: VecDeque<(u64, Act)>,
    /// Nothing goes before that.
    free_ns: u64,
    /// Nothing more is accepted.
    is_ended: bool,
    /// Nothing of these symbols comes.
    silenced: BTreeSet<usize>,
    /// Changes that wait until the next one of their symbol has overtaken them.
    overtaken: Vec<(usize, Bytes)>,
}

impl Line {
    pub(super) const fn is_ended(&self) -> bool {
        self.is_ended
    }

    pub(super) fn is_silenced(&self, symbol: usize) -> bool {
        self.silenced.contains(&symbol)
    }

    pub(super) fn silence(&mut self, symbol: usize, is_silent: bool) {
        if is_silent {
            self.silenced.insert(symbol);
        } else {
            self.silenced.remove(&symbol);
        }
    }

    /// Nothing goes before that.
    pub(super) fn hold_until(&mut self, at_ns: u64) {
        self.free_ns = self.free_ns.max(at_ns);
    }

    /// How many acts wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// When the next act is due.
    pub(super) fn next_ns(&self) -> u64 {
        self.waiting.front().map_or(u64::MAX, |(at_ns, _)| *at_ns)
    }

    /// The next act, if it is due.
    pub(super) fn take_due(&mut self, now_ns: u64) -> Option<Act> {
        self.waiting.pop_front_if(|(at_ns, _)| *at_ns <= now_ns).map(|(_, act)| act)
    }

    fn push(&mut self, at_ns: u64, act: Act) {
        if self.is_ended {
            return;
        }
        let last_ns = self.waiting.back().map_or(0, |(at_ns, _)| *at_ns);
        if self.waiting.len() == WAITING_MAX {
            self.waiting.clear();
            self.waiting.push_back((at_ns, Act::Close(1008, "too slow")));
            self.is_ended = true;
            return;
        }
        self.is_ended = matches!(act, Act::Close(..) | Act::Cut);
        self.waiting.push_back((at_ns.max(self.free_ns).max(last_ns), act));
    }

    /// A message goes its way; a change of a book may overtake an earlier one of its symbol.
    pub(super) fn pass(&mut self, text: Bytes, book: Option<usize>, at_ns: u64) {
        self.push(at_ns, Act::Text(text));
        let Some(symbol) = book else { return };
        while let Some(place) = self.overtaken.iter().position(|(of, _)| *of == symbol) {
            let (_, text) = self.overtaken.remove(place);
            self.push(at_ns, Act::Text(text));
        }
    }

    /// It ends without a word after what waits.
    pub(super) fn cut(&mut self, at_ns: u64) {
        self.push(at_ns, Act::Cut);
    }

    /// It is closed after what waits.
    pub(super) fn close(&mut self, at_ns: u64, code: u16, reason: &'static str) {
        self.push(at_ns, Act::Close(code, reason));
    }

    /// A fault happens to a change of a symbol's book.
    pub(super) fn suffer(
        &mut self,
        fault: &Fault,
        for_ns: u64,
        text: Bytes,
        symbol: usize,
        at_ns: u64,
    ) {
        match fault.kind {
            Kind::Gap => {}
            Kind::Reorder => self.overtaken.push((symbol, text)),
            Kind::Duplicate => {
                self.pass(text.clone(), Some(symbol), at_ns);
                self.pass(text, None, at_ns);
            }
            Kind::BadJson => self.pass(text.slice(..text.len() / 2), Some(symbol), at_ns),
            Kind::BadUtf8 => {
                let mut payload = text.to_vec();
                let middle = payload.len() / 2;
                if let Some(byte) = payload.get_mut(middle) {
                    *byte = 0xff;
                }
                self.raw(at_ns, frame(Opcode::Text, true, &payload));
            }
            Kind::Cut => {
                let mut bytes = frame(Opcode::Text, true, &text);
                bytes.truncate(fault.bytes.unwrap_or(bytes.len() / 2).min(bytes.len() - 1));
                self.raw(at_ns, bytes);
                self.push(at_ns, Act::Cut);
            }
            Kind::Giant => {
                self.giant(fault.bytes.unwrap_or(GIANT_BYTES), at_ns);
                self.pass(text, Some(symbol), at_ns);
            }
            Kind::Fragmented => self.fragment(&text, at_ns),
            Kind::Drip => {
                let bytes = Bytes::from(frame(Opcode::Text, true, &text));
                let drip = bytes.len().div_ceil(DRIPS_MAX);
                let pause_ns = for_ns / bytes.len().div_ceil(drip) as u64;
                let mut at_ns = at_ns.max(self.free_ns);
                for place in (0..bytes.len()).step_by(drip) {
                    let end = bytes.len().min(place + drip);
                    self.push(at_ns, Act::Raw(bytes.slice(place..end)));
                    at_ns += pause_ns;
                }
            }
            Kind::Silence => {
                self.hold_until(at_ns.saturating_add(for_ns));
                self.pass(text, Some(symbol), at_ns);
            }
            Kind::HalfOpen => {
                self.push(at_ns, Act::Deafen);
                self.push(at_ns.saturating_add(for_ns), Act::Cut);
            }
            // They do not happen to messages.
            _ => self.pass(text, Some(symbol), at_ns),
        }
    }

    fn raw(&mut self, at_ns: u64, bytes: Vec<u8>) {
        self.push(at_ns, Act::Raw(bytes.into()));
    }

    /// A text frame that is JSON and says nothing.
    fn giant(&mut self, payload_bytes: usize, at_ns: u64) {
        let (begin, end) = (&br#"{"giant":""#[..], &br#""}"#[..]);
        let mut left = payload_bytes.saturating_sub(begin.len() + end.len());
        let payload_bytes = left + begin.len() + end.len();
        self.raw(at_ns, [&head(Opcode::Text, true, payload_bytes), begin].concat());
        let piece = Bytes::from(vec![b'x'; left.min(PIECE_BYTES)]);
        while left > 0 {
            let piece = piece.slice(..piece.len().min(left));
            left -= piece.len();
            self.push(at_ns, Act::Raw(piece));
        }
        self.raw(at_ns, end.to_vec());
    }

    /// Three frames of one message, with a ping after the first.
    fn fragment(&mut self, text: &[u8], at_ns: u64) {
        let (first, rest) = text.split_at(text.len() / 3);
        let (second, third) = rest.split_at(rest.len() / 2);
        self.raw(at_ns, frame(Opcode::Text, false, first));
        self.raw(at_ns, frame(Opcode::Ping, true, b"between"));
        self.raw(at_ns, frame(Opcode::Continuation, false, second));
        self.raw(at_ns, frame(Opcode::Continuation, true, third));
    }
}
