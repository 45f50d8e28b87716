//! Fuzzes the readers of frames cut out of a stream.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| (dkv_inputs::targets::named("frames").read)(input));
