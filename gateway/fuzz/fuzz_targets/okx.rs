//! Fuzzes the decoder of OKX.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    tickfan_fuzz::run("okx", input);
});
