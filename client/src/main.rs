//! The `dkv` command.
#![forbid(unsafe_code)]

mod grammar;

fn main() {}
