//! Exchanges on a socket to test against: recordings played as their venue would send them, a seeded
//! market with a venue's manners, and the truth about both.
//!
//! Used by the gateway (its embedded default feed), by the bench and by tests as a library, and by
//! anyone as the binary `feed-sim`. It is the oracle for the gateway's decoders and books, so it
//! shares nothing with them but the vocabulary of `tickfan-core`.

pub mod clock;
mod random;

pub mod recording;
pub mod venue;

pub mod truth;

pub mod market;
pub mod exchange;
pub mod facts;

pub mod scenario;
pub mod frame;
pub mod fault;

pub mod door;
pub mod replay;
pub mod record;
pub mod serve;

pub mod cert;
