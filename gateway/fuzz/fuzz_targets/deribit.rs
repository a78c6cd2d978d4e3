//! Fuzzes the decoder of Deribit.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    tickfan_fuzz::run("deribit", input);
});
