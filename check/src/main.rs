//! `dkv-check HISTORY`: checks whether a correct store could have given the answers in a history.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{BufReader, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use dkv_check::{History, Options, check};

/// Exit status for a history that has a contradiction.
const VIOLATED: u8 = 1;
/// Exit status for an input that is not a history.
const UNREADABLE: u8 = 2;
/// Exit status if the search for an explanation gave up.
const UNDECIDED: u8 = 3;

/// Checks a recorded history: is it linearizable, do its revisions agree, are its transactions
/// strictly serializable, and did watches and leases keep their promises?
///
/// Exit status: 0 if so, 1 if not, 2 if the file is no history, 3 if it could not be decided.
#[derive(Debug, Parser)]
#[command(name = "dkv-check", version)]
struct Args {
    /// File of operations, one JSON object a line; - for standard input
    history: PathBuf,

    /// Keys may have had values before the history began
    #[arg(long)]
    any_start: bool,

    /// A lease that ends later than this is too late [default: any lease may end at any time]
    #[arg(long, value_name = "MS")]
    lease_late_max: Option<u64>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let name = args.history.display();
    let history = if args.history.as_os_str() == "-" {
        History::read(std::io::stdin().lock())
    } else {
        match File::open(&args.history) {
            Ok(file) => History::read(BufReader::new(file)),
            Err(error) => Err(dkv_check::HistoryError::Io(error)),
        }
    };
    let history = match history {
        Ok(history) => history,
        Err(error) => {
            eprintln!("error: {name}: {error}");
            return ExitCode::from(UNREADABLE);
        }
    };
    let options = Options { any_start: args.any_start, lease_late_ms_max: args.lease_late_max };
    let report = check(&history, options);
    // A reader that closes the pipe early wants no more.
    let _ = write!(std::io::stdout(), "{report}");
    match (report.findings.is_empty(), report.undecided.is_empty()) {
        (false, _) => ExitCode::from(VIOLATED),
        (true, false) => ExitCode::from(UNDECIDED),
        (true, true) => ExitCode::SUCCESS,
    }
}
