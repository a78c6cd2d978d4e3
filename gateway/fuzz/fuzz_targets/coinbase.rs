//! Fuzzes the decoder of Coinbase Exchange.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    tickfan_fuzz::run("coinbase", input);
});
