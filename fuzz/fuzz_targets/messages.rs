//! Fuzzes the readers of the messages between processes.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| (dkv_inputs::targets::named("messages").read)(input));
