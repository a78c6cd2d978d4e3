//! The gateway as a library: the binary, the bench and the tests start it from here.
//!
//! Modules stand in the order in which data flows through them; what they may use of each other is
//! held by `tests/tidy.rs`.

pub mod limits;
pub mod clock;
mod affinity;
mod mutant;
pub mod stats;
pub mod overview;
pub mod config;
pub mod places;
pub mod venue;
pub mod feed;
pub mod fanout;
pub mod http;
pub mod door;
pub mod admin;
pub mod serve;
pub mod client;
pub mod cli;
#[cfg(test)]
mod simulation;
