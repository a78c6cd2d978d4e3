//! Fuzzes the decoder of Coinbase Advanced Trade.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    tickfan_fuzz::run("coinbase_advanced", input);
});
