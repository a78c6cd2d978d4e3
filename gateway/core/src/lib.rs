//! The vocabulary and everything pure of Tickfan: what a market is, the order book, its immutable
//! snapshots, their differences, and the bytes that clients see.
//!
//! Nothing here knows a socket, a clock, a task or a thread: every function takes bytes, values and
//! times, and returns values. Modules stand in the order in which data flows through them.

pub mod decimal;
pub mod market;
pub mod book;
pub mod snapshot;
pub mod diff;
pub mod view;
pub mod wire;
pub mod ws;
