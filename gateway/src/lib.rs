//! The gateway.
// Only what compiles without the venues; the merge resolves this file by hand.

pub mod config;
pub mod clock;
pub mod tail;
