//! Fuzzes the readers of join tokens, names and ids.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| (dkv_inputs::targets::named("tokens").read)(input));
