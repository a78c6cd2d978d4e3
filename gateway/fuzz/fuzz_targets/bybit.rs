//! Fuzzes the decoder of Bybit.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    tickfan_fuzz::run("bybit", input);
});
