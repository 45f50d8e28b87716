//! Fuzzes the readers of segments of the write-ahead log.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| (dkv_inputs::targets::named("log").read)(input));
