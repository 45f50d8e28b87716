//! `cargo run -p dkv-inputs -- try --inputs 1000000`: tries more inputs, on any compiler;
//! `... -- seeds fuzz/corpus`: writes the seeds for the programs in `fuzz/`.

use std::path::PathBuf;
use std::time::Instant;

use clap::Parser;
use dkv_inputs::{TARGETS, attempt};

/// Tries everything of dkv that reads what others have written.
#[derive(Parser)]
enum Args {
    /// Tries inputs; the same ones for the same seed
    Try {
        /// Inputs for each target, instead of what the tests try
        #[arg(long)]
        inputs: Option<u64>,
        /// What the inputs follow from
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Targets; all if none is named
        targets: Vec<String>,
    },
    /// Writes the seeds of all targets, each to a directory of its name
    Seeds {
        /// The directory of these
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
