//! `dkv local`: runs a network on this machine, with a prompt to try it out and to break it.
//!
//! The network is the crate `dkv-local`; this is its command. [`store`] is the network as a target
//! of commands, and [`processes`] what the prompt does to its processes.

mod processes;
mod store;

use std::io::IsTerminal;
use std::process::ExitCode;

use self::store::LocalStore;
use crate::cli::{Connect, Local};
use crate::exit::{ended, finished};
use crate::input::{Stdin, not_closed};
use crate::steps::{self, Step};
use crate::{pipe, prompt};
use dkv_console::console::Screen;
use dkv_console::problem::Problem;
use dkv_console::signals::{Ending, Signals};
use dkv_local::{LocalNetwork, NetworkDir, regions};

/// Starts a network, runs what is to be run on it, and stops it.
pub(crate) async fn run(mut args: Local, outer: Connect, screen: &mut Screen) -> ExitCode {
    let steps = match steps::parse_commands(std::mem::take(&mut args.commands)) {
        Ok(mut steps) => steps::fill(&mut steps, &mut Stdin::Free).await.map(|()| steps),
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
    let options = args.options();
    let opened = NetworkDir::open(&options).and_then(|dir| LocalNetwork::new(dir, &options));
    let network = match opened {
        Ok(network) => network,
        Err(problem) => {
            screen.error(&problem);
            return ExitCode::FAILURE;
        }
    };
    let started = tokio::select! {
        started = network.start(options.start_timeout, screen) => started.map_err(Stop::Problem),
        ending = signals.next() => Err(Stop::Signal(ending)),
    };
    let status = match started {
        Ok(client) => {
            let store = LocalStore::new(&network, client, &args.connect);
            let status = use_it(&store, &steps, screen, &mut signals).await;
            store.close().await;
            status
        }
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
    store: &LocalStore<'_>,
    steps: &[Step],
    screen: &mut Screen,
    signals: &mut Signals,
) -> ExitCode {
    if steps.is_empty() && std::io::stdin().is_terminal() {
        return match prompt::run(store, screen, signals).await {
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
                pipe::run(input, store, screen).await
            } else {
                steps::all(steps, store, screen).await
            }
        } => result,
        ending = signals.next() => return ExitCode::from(ending.status()),
    };
    finished(screen, result)
}
