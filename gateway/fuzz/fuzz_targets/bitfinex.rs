//! Fuzzes the decoder of Bitfinex.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    tickfan_fuzz::run("bitfinex", input);
});
