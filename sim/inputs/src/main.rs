//! `cargo run -p dkv-inputs -- try --inputs 1000000` tries more inputs, on any compiler.
//! `... -- seeds fuzz/corpus` writes the seeds for the programs in `fuzz/`.

use std::path::PathBuf;
use std::time::Instant;

use clap::Parser;
use dkv_inputs::{TARGETS, attempt};

/// Fuzzes everything of dkv that reads untrusted bytes
#[derive(Parser)]
enum Args {
    /// Tries inputs; the same seed gives the same inputs
    Try {
        /// Inputs for each target [default: as many as the tests try]
        #[arg(long)]
        inputs: Option<u64>,
        /// Seed of the random inputs
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Targets [default: all]
        targets: Vec<String>,
    },
    /// Writes the seeds of all targets, each into a directory named after it
    Seeds {
        /// Parent of these directories
        directory: PathBuf,
    },
}

fn main() -> std::io::Result<()> {
    match Args::parse() {
        Args::Try { inputs, seed, targets } => {
            let mut all = 0;
            for target in TARGETS {
                if !targets.is_empty() && !targets.iter().any(|name| name == target.name) {
                    continue;
                }
                let begun = Instant::now();
                let tried = attempt(target, inputs.unwrap_or(target.inputs), seed);
                let seconds = begun.elapsed().as_secs_f64();
                all += tried.inputs;
                println!("{}: {} inputs in {seconds:.1} s", target.name, tried.inputs);
            }
            println!("{all} inputs, every promise held");
        }
        Args::Seeds { directory } => {
            for target in TARGETS {
                let directory = directory.join(target.name);
                std::fs::create_dir_all(&directory)?;
                for (number, seed) in (target.seeds)().into_iter().enumerate() {
                    std::fs::write(directory.join(format!("{number:02}")), seed)?;
                }
            }
        }
    }
    Ok(())
}
