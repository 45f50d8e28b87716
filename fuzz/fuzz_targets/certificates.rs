//! Fuzzes the readers of the certificates and signing requests of a joiner.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| (dkv_inputs::targets::named("certificates").read)(input));
