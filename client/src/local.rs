//! `dkv local`: runs a network on this machine, with a prompt to try it out and to break it.
//!
//! The network is the crate `dkv-local`; this is its command. [`store`] is the network as a target
//! of commands, and [`processes`] carries out actions on its
//! processes.

mod failover;
mod processes;
mod store;

use std::io::IsTerminal;
use std::process::ExitCode;

use self::store::LocalStore;
use crate::cli::{Connect, LocalArgs};
use crate::etcd::{self, ServedEtcd};
use crate::exit::{ended, finished};
use crate::input::{Stdin, not_closed};
use crate::steps::{self, Step};
use crate::{pipe, prompt};
use dkv_api::Client;
use dkv_console::Console;
use dkv_console::problem::Problem;
use dkv_console::signals::{Signals, StopSignal};
use dkv_local::error::StartError;
use dkv_local::{LocalNetwork, NetworkDir, regions};

/// Starts a network, runs commands on it, and stops it.
pub(crate) async fn run(mut args: LocalArgs, outer: Connect, console: &mut Console) -> ExitCode {
    let steps = match steps::parse_commands(std::mem::take(&mut args.commands)) {
        Ok(mut steps) => steps::read_values(&mut steps, &mut Stdin::Free).await.map(|()| steps),
        Err(error) => Err(error.into()),
    };
    let steps = match steps {
        Ok(steps) => steps,
        Err(problem) => return ended(console, &problem),
    };
    args.connect = args.connect.clone().or(outer);
    if let Some(option) = args.connect.typed(&["--token-file", "--keyspace"]) {
        let why = format!("local does not take {option}: its network has its own tokens");
        return ended(console, &Problem::usage(why));
    }
    let levels = steps.iter().try_for_each(|step| step.check_level(args.connect.level));
    let delays = regions::delays(&args.regions, args.delays.as_deref(), args.delays_vary);
    if let Err(problem) = levels.and(delays.map(drop).map_err(Problem::from)) {
        return ended(console, &problem);
    }
    // Bound first, so that a wrong address is reported at once.
    let etcd = match etcd::bind(&args.etcd).await {
        Ok(etcd) => etcd,
        Err(problem) => return ended(console, &problem),
    };
    // Taken over before there is anything to clean up.
    let mut signals = match Signals::take() {
        Ok(signals) => signals,
        Err(error) => {
            console.error(&format!("cannot listen for signals: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let options = args.options();
    let opened = NetworkDir::open(&options).and_then(|dir| LocalNetwork::new(dir, &options));
    let network = match opened {
        Ok(network) => network,
        Err(error) => {
            console.error(&error.to_string());
            return ExitCode::FAILURE;
        }
    };
    let started = tokio::select! {
        started = network.start(options.start_timeout, console) => {
            started.map_err(NotStarted::Failed)
        }
        ending = signals.next() => Err(NotStarted::Signal(ending)),
    };
    let status = match started {
        Ok(client) => {
            let etcd = serve_etcd(etcd, &args, &network, client.clone(), console).await;
            let store = LocalStore::new(&network, client, &args.connect);
            let status = match etcd {
                Ok(mut etcd) => {
                    let status = tokio::select! {
                        status = run_commands(&store, &steps, console, &mut signals) => Ok(status),
                        problem = etcd::ended(etcd.as_mut()) => Err(problem),
                    };
                    let status = status.unwrap_or_else(|problem| ended(console, &problem));
                    if let Some(etcd) = etcd {
                        etcd.stop().await;
                    }
                    status
                }
                Err(problem) => ended(console, &problem),
            };
            store.close().await;
            status
        }
        Err(NotStarted::Failed(problem)) => {
            console.error(&problem.to_string());
            ExitCode::FAILURE
        }
        Err(NotStarted::Signal(ending)) => ExitCode::from(ending.status()),
    };
    network.stop(console).await;
    status
}

/// Serves etcd's interface, if the command line asks for it.
async fn serve_etcd(
    listener: Option<dkv_etcd::Listener>,
    args: &LocalArgs,
    network: &LocalNetwork,
    client: Client,
    console: &mut Console,
) -> Result<Option<ServedEtcd>, Problem> {
    let Some(listener) = listener else { return Ok(None) };
    let servers = [network.address().to_owned()];
    let founder = Client::builder().servers(servers).home(network.dir().home());
    etcd::serve(listener, &args.etcd, client, founder, console).await.map(Some)
}

/// Why a network was not started.
enum NotStarted {
    Failed(StartError),
    Signal(StopSignal),
}

/// Runs the commands of the arguments, of the prompt, or of a pipe.
async fn run_commands(
    store: &LocalStore<'_>,
    steps: &[Step],
    console: &mut Console,
    signals: &mut Signals,
) -> ExitCode {
    if steps.is_empty() && std::io::stdin().is_terminal() {
        return match prompt::run(store, console, signals).await {
            Ok(None) => ExitCode::SUCCESS,
            Ok(Some(ending)) => ExitCode::from(ending.status()),
            Err(error) => finished(console, Err(error)),
        };
    }
    let result = tokio::select! {
        result = async {
            if steps.is_empty() {
                if let Err(problem) = not_closed() {
                    console.problem(&problem);
                    return Ok(Some(problem.failure));
                }
                let input = tokio::io::BufReader::new(tokio::io::stdin());
                pipe::run(input, store, console).await
            } else {
                steps::run_all(steps, store, console).await
            }
        } => result,
        ending = signals.next() => return ExitCode::from(ending.status()),
    };
    finished(console, result)
}
