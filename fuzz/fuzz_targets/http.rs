//! Fuzzes the readers of HTTP requests to a gateway.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| (dkv_inputs::targets::named("http").read)(input));
