//! What the tests of the venues' files share: values out of texts, and what every decoder must do with
//! a message that it cannot read.
//!
//! Called by those tests alone. It knows no venue.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use tickfan_core::decimal::Decimal;
use tickfan_core::market::{EventBatch, LevelChange};

use super::{DecodeError, VenueDecoder};

/// The exact value of a text.
pub(super) fn decimal(text: &str) -> Decimal {
    Decimal::parse(text.as_bytes()).unwrap()
}

/// A level in texts.
pub(super) fn level(px: &str, qty: &str) -> LevelChange {
    LevelChange { px: decimal(px), qty: decimal(qty) }
}

/// What a decoder makes of a message.
pub(super) fn decoded(decoder: &mut dyn VenueDecoder, message: &str) -> EventBatch {
    let mut out = EventBatch::default();
    decoder.decode(&mut message.as_bytes().to_vec(), &mut out).unwrap();
    out
}

/// Why a decoder refuses a message that comes after others, of which all is left and of it nothing.
pub(super) fn refusal(
    decoder: &mut dyn VenueDecoder,
    before: &[&str],
    message: &str,
) -> DecodeError {
    let mut out = EventBatch::default();
    for message in before {
        decoder.decode(&mut message.as_bytes().to_vec(), &mut out).unwrap();
    }
    let kept = (out.events.clone(), out.levels.clone(), out.trades.clone());
    assert!(!kept.0.is_empty() && !kept.1.is_empty() && !kept.2.is_empty(), "it proves nothing");
    let error = decoder.decode(&mut message.as_bytes().to_vec(), &mut out).unwrap_err();
    assert_eq!((out.events, out.levels, out.trades), kept, "{}", shown(message));
    error
}

/// As much of a message as is worth showing.
pub(super) fn shown(message: &str) -> &str {
    message.get(..300).unwrap_or(message)
}

/// Gives a decoder a message of which two bytes at a place (counted round) are replaced. It may read
/// that or refuse it, whole.
pub(super) fn damage(decoder: &mut dyn VenueDecoder, message: &str, at: usize, with: &[u8]) {
    let mut bytes = message.as_bytes().to_vec();
    let at = at % bytes.len();
    bytes.splice(at..(at + 2).min(message.len()), with.iter().copied());
    let _ = decoder.large_image(&bytes);
    let mut out = EventBatch::default();
    if decoder.decode(&mut bytes, &mut out).is_err() {
        assert!(out.events.is_empty() && out.levels.is_empty() && out.trades.is_empty());
    }
}
