//! Fuzzes the readers of snapshots from another replica.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| (dkv_inputs::targets::named("snapshots").read)(input));
