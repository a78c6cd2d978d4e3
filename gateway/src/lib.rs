//! The gateway.

pub mod venue;
