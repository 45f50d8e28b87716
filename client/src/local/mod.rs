//! `dkv local`: a whole network on this machine, to look at and to break.
//!
//! The server and the nodes are real processes of this same binary, on real sockets, so that what
//! is killed here dies as it would elsewhere. Everything is in one directory:
//!
//! ```text
//! config.json      the server's
//! server/          the server's data
//! n1/ n2/ n3/      the nodes' data
//! NAME.log         what each process has said
//! home/            tokens and credentials, in place of the user's own
//! ```
//!
//! So that `dkv ADDRESS` works in another terminal without further ado, the tokens are also left in
//! the user's own place, under the server's port, if nothing is there; they are taken back at the
//! end. If something is there, the command that is shown names the directory instead.
//!
//! Nothing is left running: children are stopped at every orderly end, they die with this process
//! if it is killed (see `roles.rs`), and a temporary directory is removed.
//!
//! Deliberately missing: networks of more than one machine, and of anything but loopback unless
//! asked for.

mod actions;
pub(crate) mod child;
pub(crate) mod network;
pub(crate) mod place;
pub(crate) mod regions;

use std::io::IsTerminal;
use std::process::ExitCode;

use self::network::LocalNetwork;
use self::place::Place;
use crate::cli::{Connect, Local};
use crate::dispatch::{ended, finished, parse_commands};
use crate::input::{Stdin, not_closed};
use crate::script::{self, Step};
use crate::{pipe, prompt};
use dkv_console::console::Screen;
use dkv_console::problem::Problem;
use dkv_console::signals::{Ending, Signals};

/// Starts a network, runs what is to be run on it, and stops it.
pub(crate) async fn run(mut args: Local, outer: Connect, screen: &mut Screen) -> ExitCode {
    let steps = match parse_commands(std::mem::take(&mut args.commands)) {
        Ok(mut steps) => script::fill(&mut steps, &mut Stdin::Free).await.map(|()| steps),
        Err(why) => Err(Problem::usage(why)),
    };
    let steps = match steps {
        Ok(steps) => steps,
        Err(problem) => return ended(screen, &problem),
    };
    args.connect = args.connect.clone().or(outer);
    if let Some(option) = args.connect.typed(&["--token-file"]) {
        let why = format!("local does not take {option}: its network has tokens of its own");
        return ended(screen, &Problem::usage(why));
    }
    let fits = steps.iter().try_for_each(|step| step.fits(args.connect.level));
    let delays = regions::delays(&args.regions, args.delays.as_deref(), args.delays_vary);
    if let Err(problem) = fits.and(delays.map(drop).map_err(Problem::usage)) {
        return ended(screen, &problem);
    }
    // Before there is anything to clean up.
    let mut signals = match Signals::take() {
        Ok(signals) => signals,
        Err(error) => {
            screen.error(&format!("cannot listen for signals: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let place = match Place::open(&args) {
        Ok(place) => place,
        Err(problem) => {
            screen.error(&problem);
            return ExitCode::FAILURE;
        }
    };
    let network = match LocalNetwork::new(place, &args) {
        Ok(network) => network,
        Err(problem) => {
            screen.error(&problem);
            return ExitCode::FAILURE;
        }
    };
    let started = tokio::select! {
        started = network.start(&args, screen) => started.map_err(Stop::Problem),
        ending = signals.next() => Err(Stop::Signal(ending)),
    };
    let status = match started {
        Ok(()) => use_it(&network, &steps, screen, &mut signals).await,
        Err(Stop::Problem(problem)) => {
            screen.error(&problem);
            ExitCode::FAILURE
        }
        Err(Stop::Signal(ending)) => ExitCode::from(ending.status()),
    };
    network.stop(screen).await;
    status
}

enum Stop {
    Problem(String),
    Signal(Ending),
}

/// Runs the commands of the arguments, of the prompt, or of a pipe.
async fn use_it(
    network: &LocalNetwork,
    steps: &[Step],
    screen: &mut Screen,
    signals: &mut Signals,
) -> ExitCode {
    if steps.is_empty() && std::io::stdin().is_terminal() {
        return match prompt::run(network, screen, signals).await {
            Ok(None) => ExitCode::SUCCESS,
            Ok(Some(ending)) => ExitCode::from(ending.status()),
            Err(error) => finished(screen, Err(error)),
        };
    }
    let result = tokio::select! {
        result = async {
            if steps.is_empty() {
                if let Err(problem) = not_closed() {
                    screen.problem(&problem);
                    return Ok(Some(problem.failure));
                }
                let input = tokio::io::BufReader::new(tokio::io::stdin());
                pipe::run(input, network, screen).await
            } else {
                script::all(steps, network, screen).await
            }
        } => result,
        ending = signals.next() => return ExitCode::from(ending.status()),
    };
    finished(screen, result)
}
