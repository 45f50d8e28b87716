//! The `dkv-node` binary: one node of a network, optionally with an HTTP gateway.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;

/// A node of a dkv network.
#[derive(Parser)]
#[command(name = "dkv-node", version, about, long_about = None)]
struct Cli {
    #[command(flatten)]
    args: dkv_daemon::Args,
}

fn main() -> ExitCode {
    dkv_daemon::main(dkv_base::variables::parse::<Cli>().args)
}
