//! `dkv-node`: one node of a network.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;

/// A node of a dkv network.
#[derive(Parser)]
#[command(name = "dkv-node", version, about, long_about = None)]
struct Cli {
    #[command(flatten)]
    args: dkv_node::Args,
}

fn main() -> ExitCode {
    dkv_node::main(Cli::parse().args)
}
