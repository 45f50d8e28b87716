//! Fuzzes the readers of the entries of a group's log.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| (dkv_inputs::targets::named("entries").read)(input));
