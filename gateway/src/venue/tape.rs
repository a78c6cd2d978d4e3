//! A JSON message → the tape that simd-json makes of it, and what a venue's file reads from there:
//! fields, numbers in quotes, levels.
//!
//! For the venues that write prices as strings; those whose digits must be kept as they stand read
//! raw text instead. The venues' files call it, the stream half on the feed thread for every
//! message. It knows no venue, allocates nothing per event, and never guesses at a number.

use std::mem;

use simd_json::{Buffers, INPUT_PADDING, Node, StaticNode, Tape};
use tickfan_core::decimal::Decimal;
use tickfan_core::market::{
    BookEvent, BookKind, Channel, EventBatch, InstrumentId, LevelChange, Nanos,
};

use super::text::measured;
use super::{DecodeError, Malformed};

const MILLI_NS: Nanos = 1_000_000;

/// The memory of a parser, reused from message to message.
pub(super) struct Parser {
    buffers: Buffers,
    // The copy of a message that the parser rewrites, so that a broken message can still be
    // searched for its symbol. The parser would copy in any case, to pad.
    padded: Vec<u8>,
    tape: Tape<'static>,
}

impl Default for Parser {
    fn default() -> Self {
        Self { buffers: Buffers::default(), padded: Vec::new(), tape: Tape(Vec::new()) }
    }
}

impl Parser {
    /// Lets `read` turn a message into events; what cannot be parsed is about whatever
    /// `subject_of_broken` can still tell. On an error nothing of the message is left in `out`.
    pub(super) fn decode(
        &mut self,
        message: &[u8],
        out: &mut EventBatch,
        read: impl FnOnce(&[Node<'_>], &mut EventBatch) -> Result<(), DecodeError>,
        subject_of_broken: impl FnOnce() -> Option<(InstrumentId, Channel)>,
    ) -> Result<(), DecodeError> {
        self.padded.clear();
        self.padded.extend_from_slice(message);
        self.padded.resize(message.len() + INPUT_PADDING, 0);

        // The tape borrows the message; emptied, its memory serves the next one.
        let mut tape = mem::replace(&mut self.tape, Tape(Vec::new())).reset();
        let parsed = simd_json::fill_tape_padded(
            &mut self.padded,
            message.len(),
            &mut self.buffers,
            &mut tape,
        );
        let result = match parsed {
            Ok(()) => out.all_or_nothing(|out| read(&tape.0, out)),
            Err(_) => Err(DecodeError { about: subject_of_broken(), what: Malformed::NotJson }),
        };
        self.tape = tape.reset();
        result
    }
}

/// The value of one field of an object.
pub(super) fn field<'t, 'm>(nodes: &'t [Node<'m>], name: &str) -> Option<&'t [Node<'m>]> {
    entries(nodes)?.find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// The entries of an object, in the order in which the venue wrote them.
pub(super) fn entries<'t, 'm>(
    nodes: &'t [Node<'m>],
) -> Option<impl Iterator<Item = (&'m str, &'t [Node<'m>])>> {
    let [Node::Object { .. }, rest @ ..] = nodes else {
        return None;
    };
    let mut rest = rest;
    Some(std::iter::from_fn(move || {
        let [Node::String(key), value @ ..] = rest else {
            return None;
        };
        let (value, after) = split_value(value)?;
        rest = after;
        Some((*key, value))
    }))
}

/// The elements of an array.
pub(super) fn elements<'t, 'm>(
    nodes: Option<&'t [Node<'m>]>,
    name: &'static str,
) -> Result<impl Iterator<Item = &'t [Node<'m>]>, Malformed> {
    let Some([Node::Array { .. }, rest @ ..]) = nodes else {
        return Err(Malformed::Field(name));
    };
    let mut rest = rest;
    Ok(std::iter::from_fn(move || {
        let (value, after) = split_value(rest)?;
        rest = after;
        Some(value)
    }))
}

/// Splits the first value, with all that is in it, from what follows.
fn split_value<'t, 'm>(nodes: &'t [Node<'m>]) -> Option<(&'t [Node<'m>], &'t [Node<'m>])> {
    let inner = match nodes.first()? {
        Node::Array { count, .. } | Node::Object { count, .. } => *count,
        Node::String(_) | Node::Static(_) => 0,
    };
    nodes.split_at_checked(inner + 1)
}

/// A value that is a string.
pub(super) fn text<'m>(nodes: &[Node<'m>]) -> Option<&'m str> {
    match nodes.first() {
        Some(Node::String(text)) => Some(text),
        _ => None,
    }
}

/// A number without sign or fraction.
pub(super) fn number(nodes: Option<&[Node<'_>]>, name: &'static str) -> Result<u64, Malformed> {
    match nodes.and_then(<[_]>::first) {
        Some(Node::Static(StaticNode::U64(number))) => Ok(*number),
        Some(Node::Static(StaticNode::I64(number))) => {
            u64::try_from(*number).map_err(|_| Malformed::Field(name))
        }
        _ => Err(Malformed::Field(name)),
    }
}

/// The same, written as a string.
pub(super) fn number_in_text(
    nodes: Option<&[Node<'_>]>,
    name: &'static str,
) -> Result<u64, Malformed> {
    nodes.and_then(text).and_then(|text| text.parse().ok()).ok_or(Malformed::Field(name))
}

/// A price or quantity, written as a string.
pub(super) fn decimal(
    nodes: Option<&[Node<'_>]>,
    name: &'static str,
) -> Result<Decimal, Malformed> {
    let text = nodes.and_then(text).ok_or(Malformed::Field(name))?;
    Decimal::parse(text.as_bytes()).map_err(|error| Malformed::Number(name, error))
}

/// A time in milliseconds as ours.
pub(super) fn nanos_of_millis(millis: u64, name: &'static str) -> Result<Nanos, Malformed> {
    millis.checked_mul(MILLI_NS).ok_or(Malformed::Field(name))
}

/// A field that holds one side of a book, with its name for errors.
pub(super) type SideField<'t, 'm> = (&'static str, Option<&'t [Node<'m>]>);

/// Reads both sides of a change of a book; all else in the event is the caller's.
pub(super) fn read_sides(
    instrument: InstrumentId,
    bids: SideField<'_, '_>,
    asks: SideField<'_, '_>,
    out: &mut EventBatch,
) -> Result<BookEvent, Malformed> {
    let mut digits = Digits::default();
    let start = out.levels.len();
    read_levels(bids, &mut digits, &mut out.levels)?;
    let middle = out.levels.len();
    read_levels(asks, &mut digits, &mut out.levels)?;
    Ok(BookEvent {
        instrument,
        kind: BookKind::Delta,
        bids: start..middle,
        asks: middle..out.levels.len(),
        continuity: None,
        checksum: None,
        te_ns: 0,
        px_digits: digits.px,
        qty_digits: digits.qty,
        cut_at: None,
    })
}

/// Most digits behind the point so far.
#[derive(Default)]
struct Digits {
    px: u8,
    qty: u8,
}

/// Reads `[["0.0024","10"],…]`; an element beyond the two is no business of ours.
fn read_levels(
    (name, nodes): SideField<'_, '_>,
    digits: &mut Digits,
    levels: &mut Vec<LevelChange>,
) -> Result<(), Malformed> {
    let Some([Node::Array { len, .. }, rest @ ..]) = nodes else {
        return Err(Malformed::Field(name));
    };
    levels.reserve(*len);
    let mut rest = rest;
    while let [Node::Array { len: 2.., count }, Node::String(px), Node::String(qty), ..] = rest {
        levels.push(LevelChange {
            px: measured(px, name, &mut digits.px)?,
            qty: measured(qty, name, &mut digits.qty)?,
        });
        rest = rest.get(count + 1..).unwrap_or_default();
    }
    if rest.is_empty() { Ok(()) } else { Err(Malformed::Field(name)) }
}
