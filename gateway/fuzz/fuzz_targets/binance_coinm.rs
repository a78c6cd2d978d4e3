//! Fuzzes the decoder of Binance COIN-M.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    tickfan_fuzz::run("binance_coinm", input);
});
