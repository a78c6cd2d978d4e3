//! Fuzzes the decoder of Kraken, version 2.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    tickfan_fuzz::run("kraken", input);
});
