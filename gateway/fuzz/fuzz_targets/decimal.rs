//! Fuzzes the reader of decimals.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    tickfan_fuzz::run("decimal", input);
});
