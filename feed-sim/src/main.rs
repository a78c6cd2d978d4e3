//! Feed-sim binary.
fn main() {}
