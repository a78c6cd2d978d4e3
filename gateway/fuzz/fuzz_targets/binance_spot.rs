//! Fuzzes the decoder of Binance spot.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    tickfan_fuzz::run("binance_spot", input);
});
