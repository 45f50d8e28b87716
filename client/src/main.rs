//! The `dkv` command.
#![forbid(unsafe_code)]

mod grammar;
mod human;
mod pipe;
mod run;
mod screen;
mod status;
mod store;

fn main() {}
