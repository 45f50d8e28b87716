//! The `dkv-server` binary.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use dkv_base::complain;
use dkv_server::Args;

/// The registration server of a dkv network.
#[derive(Parser)]
#[command(name = "dkv-server", version)]
struct Command {
    #[command(flatten)]
    args: Args,
}

#[tokio::main]
async fn main() -> ExitCode {
    match dkv_server::run(dkv_base::variables::parse::<Command>().args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain!("dkv-server: {error}");
            ExitCode::FAILURE
        }
    }
}
