//! `dkv drill`: holds drills and writes their report. What a drill does is the crate `dkv-drill`.

use std::fs;
use std::process::ExitCode;
use std::time::SystemTime;

use dkv_api::{Client, Role};
use dkv_console::Console;
use dkv_console::problem::Problem;
use dkv_console::signals::Signals;
use dkv_console::units;
use dkv_drill::{DrillError, DrillResult, Fault, Target, Unheld};

use crate::api_problems::connect_problem;
use crate::cli::{Addresses, Connect, DrillArgs, default_addresses};
use crate::exit::{ended, finished};
use crate::store::{Connection, Session};

/// Nodes of a temporary network, unless the user says otherwise.
const NODES_DEFAULT: u16 = 3;
/// Connections to a network that the user names.
const CONNECTIONS: usize = 2;

/// Holds one drill or all of them, and writes the report.
pub(crate) async fn run(
    mut args: DrillArgs,
    address: Option<Addresses>,
    outer: Connect,
    console: &mut Console,
) -> ExitCode {
    args.connect = args.connect.clone().or(outer);
    let own: &[&str] = match args.fault {
        Fault::ByHand => &["--level", "--keyspace"],
        _ => &["--level", "--region", "--token-file", "--keyspace"],
    };
    if let Some(option) = args.connect.typed(own) {
        let fault = args.fault.name();
        return ended(console, &Problem::usage(format!("drill {fault} does not take {option}")));
    }
    if address.is_some() && args.nodes.is_some() {
        let why = "--nodes is for a temporary network; omit it, or the address";
        return ended(console, &Problem::usage(why));
    }
    let address = match (args.fault, address) {
        (Fault::ByHand, None) => match default_addresses() {
            Ok(address) => Some(address),
            Err(error) => {
                let why = format!("by-hand needs a network of yours: {error}");
                return ended(console, &Problem::usage(why));
            }
        },
        (_, address) => address,
    };
    if let Err(problem) = check_target(args.fault, address.as_ref()) {
        return ended(console, &problem);
    }
    let mut signals = match Signals::take() {
        Ok(signals) => signals,
        Err(error) => return failed(console, &format!("cannot listen for signals: {error}")),
    };
    if let Err(error) = fs::create_dir_all(&args.out) {
        return failed(console, &format!("cannot create {}: {error}", args.out.display()));
    }
    let wanted =
        if args.fault == Fault::All { dkv_drill::LOCAL.to_vec() } else { vec![args.fault] };
    let (mut results, mut unheld) = (Vec::new(), Vec::new());
    for fault in wanted {
        console.note(&format!("{}: {}", fault.name(), fault.description()));
        let held = tokio::select! {
            held = hold(fault, &args, address.as_ref(), console) => held,
            // Dropping the drill kills the processes of its network.
            ending = signals.next() => return ExitCode::from(ending.status()),
        };
        match held {
            Ok(result) => {
                if let Err(error) = result.write(&args.out) {
                    return failed(console, &error.to_string());
                }
                if let Err(error) = result.print(console) {
                    return finished(console, Err(error));
                }
                results.push(result);
            }
            Err(error) => {
                let problem = error.to_string();
                console.error(&format!("{}: {problem}", fault.name()));
                // `all` skips the drills that this machine cannot hold, and still succeeds.
                let is_excused = args.fault == Fault::All && error.is_of_machine();
                let drill = Unheld { fault, problem, is_excused };
                // A program expects a result of every drill, also of one that could not be held.
                if console.json
                    && let Err(error) = console.result("", || drill.document())
                {
                    return finished(console, Err(error));
                }
                unheld.push(drill);
            }
        }
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let when = units::timestamp(now.as_millis() as u64);
    let page = args.out.join("index.html");
    if let Err(error) = fs::write(&page, dkv_drill::html(&results, &unheld, &when)) {
        return failed(console, &format!("cannot write {}: {error}", page.display()));
    }
    console.note(&format!("report: {}", page.display()));
    if dkv_drill::succeeds(&results, &unheld) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Checks that a drill can be held on such a network.
fn check_target(fault: Fault, address: Option<&Addresses>) -> Result<(), Problem> {
    match (fault, address) {
        (Fault::ByHand, None) => Err(Problem::usage("by-hand needs a network of yours")),
        (Fault::ByHand, Some(_)) | (_, None) => Ok(()),
        (_, Some(_)) => Err(Problem::usage(
            "a client cannot inject this fault into an existing network; cause it yourself while \
             dkv ADDRESS drill by-hand runs, or omit the address to use a temporary network",
        )),
    }
}

/// Why a drill was not held.
#[derive(Debug, thiserror::Error)]
enum NotHeld {
    /// The network that the user has named admits no client.
    #[error("{}", .0.message)]
    Connect(Problem),
    /// The drill lacks something, or its temporary network does not start.
    #[error(transparent)]
    Drill(#[from] DrillError),
}

impl NotHeld {
    fn is_of_machine(&self) -> bool {
        matches!(self, Self::Drill(error) if error.is_of_machine())
    }
}

async fn hold(
    fault: Fault,
    args: &DrillArgs,
    address: Option<&Addresses>,
    console: &mut Console,
) -> Result<DrillResult, NotHeld> {
    let target = match address {
        None => Target::Temporary { nodes: args.nodes.unwrap_or(NODES_DEFAULT) },
        Some(address) => {
            Target::Remote(connect(address, &args.connect).await.map_err(NotHeld::Connect)?)
        }
    };
    Ok(dkv_drill::run(fault, target, args.time, args.connect.timeout, console).await?)
}

/// Connects to a network that the user has named.
async fn connect(address: &Addresses, options: &Connect) -> Result<Vec<Client>, Problem> {
    let connection = Connection::new(address.clone(), options.clone(), Role::Client);
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        let session = Session::connect(&connection).await;
        clients.push(session.map_err(|error| connect_problem(&error))?.client);
    }
    Ok(clients)
}

fn failed(console: &mut Console, problem: &str) -> ExitCode {
    console.error(problem);
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_of_a_temporary_network_are_refused_for_an_existing_one() {
        let address = Addresses(vec!["127.0.0.1:4400".into()]);
        for fault in dkv_drill::LOCAL.into_iter().chain([Fault::All]) {
            assert!(check_target(fault, None).is_ok());
            assert!(check_target(fault, Some(&address)).unwrap_err().message.contains("by-hand"));
        }
        assert!(check_target(Fault::ByHand, Some(&address)).is_ok());
        assert!(check_target(Fault::ByHand, None).is_err());
    }
}
