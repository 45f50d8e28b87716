//! Fuzzes the readers of the messages of Raft.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| (dkv_inputs::targets::named("raft").read)(input));
