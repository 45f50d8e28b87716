//! Fuzzes the reader of etcd's snapshot files.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| (dkv_inputs::targets::named("bolt").read)(input));
