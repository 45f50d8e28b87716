//! `dkv drill`: break a network on purpose, and see whether it keeps its promises.
//!
//! A drill has five parts. A network is brought up, as `dkv local` does, and made ready for the
//! fault (`stage`, `outfit`). Clients go to work and take down all that they see (`workload`). In
//! the middle of that something is done to the network, and undone (`faults`, with `relay` and
//! `stall` for what takes more than a signal). Everything is read back, and two checkers judge what
//! was taken down (`outcome`; the checkers are the crate `dkv-check`). And what came of it is told,
//! as text, as pictures and as a page (`picture`, `page`).
//!
//! The promises: nothing acknowledged is lost, nothing that is read is stale, the network is whole
//! again by itself afterwards, and all its replicas are equal.
//!
//! On a network that the user names nothing is done but requests: what happens to its machines is
//! the user's part.
//!
//! Deliberately missing: any change to this machine outside the drill's own directory and
//! processes.

mod copies;

mod faults;

mod intruder;

mod outcome;

mod outfit;

mod page;

mod picture;

mod relay;

mod stage;

mod stall;

mod workload;

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use dkv_api::{Client, Role};
use tokio::task::JoinSet;

use self::outcome::{Outcome, name};
use self::stage::{Finished, Stage};
use crate::api_problems::connect_problem;
use crate::cli::{Addresses, Connect, Drill, Fault, usual};
use crate::dispatch::{connection, ended, finished};
use crate::store::Session;
use dkv_console::console::{Screen, Tone};
use dkv_console::problem::Problem;
use dkv_console::signals::Signals;

/// What the keys in somebody else's network begin with.
const PREFIX: &str = "dkv-drill/";
/// Nodes of a network of its own, unless told otherwise.
const NODES_DEFAULT: u16 = 3;
/// Time in which the keys of a drill are removed from somebody else's network.
const REMOVAL: Duration = Duration::from_secs(10);
/// Deletes at the same time at the end.
const DELETES: usize = 64;

/// Holds one drill or all of them, and writes the report.
pub(crate) async fn run(
    mut args: Drill,
    address: Option<Addresses>,
    outer: Connect,
    screen: &mut Screen,
) -> ExitCode {
    args.connect = args.connect.clone().or(outer);
    let own: &[&str] = match args.fault {
        Fault::ByHand => &["--level"],
        _ => &["--level", "--region", "--token-file"],
    };
    if let Some(option) = args.connect.typed(own) {
        let fault = name(args.fault);
        return ended(screen, &Problem::usage(format!("drill {fault} does not take {option}")));
    }
    if address.is_some() && args.nodes.is_some() {
        let why = "--nodes is for a network of its own; leave it out, or the address";
        return ended(screen, &Problem::usage(why));
    }
    let address = match (args.fault, address) {
        (Fault::ByHand, None) => match usual() {
            Ok(address) => Some(address),
            Err(why) => {
                let why = format!("by-hand needs a network of yours: {why}");
                return ended(screen, &Problem::usage(why));
            }
        },
        (_, address) => address,
    };
    if let Err(problem) = fits(args.fault, address.as_ref()) {
        return ended(screen, &Problem::usage(problem));
    }
    let mut signals = match Signals::take() {
        Ok(signals) => signals,
        Err(error) => return failed(screen, &format!("cannot listen for signals: {error}")),
    };
    if let Err(error) = fs::create_dir_all(&args.out) {
        return failed(screen, &format!("cannot make {}: {error}", args.out.display()));
    }
    let wanted = if args.fault == Fault::All { faults::LOCAL.to_vec() } else { vec![args.fault] };
    let (mut outcomes, mut skipped) = (Vec::new(), Vec::new());
    for fault in wanted {
        screen.note(&format!("{}: {}", name(fault), outcome::story(fault)));
        let held = tokio::select! {
            held = hold(fault, &args, address.as_ref(), screen) => held,
            // Processes go with what holds them.
            ending = signals.next() => return ExitCode::from(ending.status()),
        };
        match held {
            Ok(outcome) => {
                if let Err(problem) = keep(&outcome, &args.out) {
                    return failed(screen, &problem);
                }
                if let Err(error) = tell(&outcome, screen) {
                    return finished(screen, Err(error));
                }
                outcomes.push(outcome);
            }
            Err(problem) => {
                screen.error(&format!("{}: {problem}", name(fault)));
                // A program reads the outcome of every drill, of one that could not be held too.
                if screen.json
                    && let Err(error) = screen.result("", || outcome::not_held(fault, &problem))
                {
                    return finished(screen, Err(error));
                }
                skipped.push((name(fault), problem));
            }
        }
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let when = dkv_console::units::moment(now.as_millis() as u64);
    let page = args.out.join("index.html");
    if let Err(error) = fs::write(&page, page::html(&outcomes, &skipped, &when)) {
        return failed(screen, &format!("cannot write {}: {error}", page.display()));
    }
    screen.note(&format!("report: {}", page.display()));
    let held = !outcomes.is_empty() && outcomes.iter().all(Outcome::holds);
    // Of all drills, those that this machine cannot do are told and no more.
    let skips = args.fault == Fault::All || skipped.is_empty();
    if held && skips { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Whether a drill can be held on such a network.
fn fits(fault: Fault, address: Option<&Addresses>) -> Result<(), &'static str> {
    match (fault, address) {
        (Fault::ByHand, None) => Err("by-hand needs a network of yours"),
        (Fault::ByHand, Some(_)) | (_, None) => Ok(()),
        (_, Some(_)) => Err(
            "a client cannot do this to a network; do it yourself while dkv ADDRESS drill by-hand runs, \
             or leave out the address for a network of its own",
        ),
    }
}

async fn hold(
    fault: Fault,
    args: &Drill,
    address: Option<&Addresses>,
    screen: &mut Screen,
) -> Result<Outcome, String> {
    let nodes = args.nodes.unwrap_or(NODES_DEFAULT);
    let mut stage = match address {
        None => Stage::local(fault, nodes, &args.connect, screen).await?,
        Some(address) => remote(address, args).await?,
    };
    let before = stage.absent().await;
    // A third of the time before, during and after it.
    let third = args.time / 3;
    stage.hold(third, screen).await;
    let inflicted = faults::inflict(fault, &mut stage, nodes, third, screen).await;
    let failure = match inflicted {
        // Nothing was done yet: that is no verdict on the network.
        Err(problem) if stage.events.is_empty() => {
            let finished = stage.finish(screen).await;
            leave(finished, screen).await;
            return Err(problem);
        }
        inflicted => inflicted.err(),
    };
    let failure = match failure {
        None => stage.whole(&before).await.err(),
        some => some,
    };
    match &failure {
        None => stage.tell("recovered: all nodes respond, every group has a leader", screen),
        Some(problem) if problem.starts_with("not recovered") => stage.tell(problem, screen),
        Some(problem) => stage.tell(&format!("not recovered: {problem}"), screen),
    }
    stage.hold(third, screen).await;
    let mut finished = stage.finish(screen).await;
    let outcome = Outcome::judge(fault, &mut finished, failure);
    if address.is_some() {
        // A node that is still away holds up each of them.
        let removing = remove_keys(&outcome, &finished.clients);
        if tokio::time::timeout(REMOVAL, removing).await.is_err() {
            screen
                .note(&format!("keys that begin with {PREFIX} are left: not all could be removed"));
        }
    }
    leave(finished, screen).await;
    Ok(outcome)
}

/// Clients at work on a network that the user has named.
async fn remote(address: &Addresses, args: &Drill) -> Result<Stage, String> {
    let mut clients = Vec::new();
    for _ in 0..2 {
        let connection = connection(address.clone(), args.connect.clone(), Role::Client);
        let session =
            Session::connect(&connection).await.map_err(|error| connect_problem(&error).message)?;
        clients.push(session.client);
    }
    let prefix = format!("{PREFIX}{}/", uuid::Uuid::new_v4().simple());
    Ok(Stage::remote(clients, prefix, &args.connect))
}

/// Removes what a drill wrote to a network that stays.
async fn remove_keys(outcome: &Outcome, clients: &[Client]) {
    let Some(client) = clients.first() else { return };
    let mut keys: Vec<_> = outcome.history.operations.iter().map(|it| it.key.clone()).collect();
    keys.sort_unstable();
    keys.dedup();
    let mut tasks = JoinSet::new();
    for key in keys {
        if tasks.len() >= DELETES {
            tasks.join_next().await;
        }
        let client = client.clone();
        // One that is not there any more is as good as one that was removed.
        tasks.spawn(async move { client.delete(key.as_bytes()).await.is_ok() });
    }
    while tasks.join_next().await.is_some() {}
}

/// Leaves the network, and ends it if it is ours.
async fn leave(finished: Finished, screen: &mut Screen) {
    for client in &finished.clients {
        client.clone().close().await;
    }
    if let Some(network) = &finished.local {
        network.stop(screen).await;
    }
}

/// Writes what the clients saw, and the picture.
fn keep(outcome: &Outcome, out: &Path) -> Result<(), String> {
    let history = out.join(format!("{}.jsonl", outcome.name()));
    let file = fs::File::create(&history);
    file.and_then(|file| outcome.history.write(std::io::BufWriter::new(file)))
        .map_err(|error| format!("cannot write {}: {error}", history.display()))?;
    let picture = out.join(format!("{}.svg", outcome.name()));
    fs::write(&picture, picture::svg(outcome))
        .map_err(|error| format!("cannot write {}: {error}", picture.display()))
}

/// Tells what came of it.
fn tell(outcome: &Outcome, screen: &mut Screen) -> std::io::Result<()> {
    if screen.json {
        return screen.result("", || outcome.document());
    }
    let (tone, verdict) = if outcome.holds() {
        (Tone::Good, "all promises held")
    } else {
        (Tone::Bad, "NOT all promises held")
    };
    let verdict = screen.paint(tone, verdict);
    screen.line(&format!("{}: {verdict}", outcome.name()))?;
    for (heading, fact) in outcome.facts() {
        screen.line(&format!("  {heading:<21} {fact}"))?;
    }
    for finding in &outcome.report.findings {
        screen.line(finding.to_string().trim_end())?;
    }
    Ok(())
}

fn failed(screen: &mut Screen, problem: &str) -> ExitCode {
    screen.error(problem);
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests;
