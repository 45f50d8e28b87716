//! Fuzzes the readers of files that people write or disks change.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| (dkv_inputs::targets::named("files").read)(input));
