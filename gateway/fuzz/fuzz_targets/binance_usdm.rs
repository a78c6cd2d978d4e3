//! Fuzzes the decoder of Binance USD-M.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    tickfan_fuzz::run("binance_usdm", input);
});
