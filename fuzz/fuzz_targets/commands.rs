//! Fuzzes the readers of lines at the prompt and arguments of a process.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| (dkv_inputs::targets::named("commands").read)(input));
