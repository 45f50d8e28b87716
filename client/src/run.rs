//! Runs the commands of the grammar and prints their results.
//!
//! A command that fails prints one line on stderr, which says what has happened (above all whether
//! a write may have taken effect) and what to do.

use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dkv_api::{Condition, Level, Reach, ReadOptions, Receipt, Role, WriteOptions, Written};
use dkv_console::problem::{Abort, Failure, Problem, unreported_change};
use dkv_console::units;
use dkv_console::{Console, Tone};

use crate::api_problems::{read_problem, scan_problem, write_problem};
use crate::grammar::{Command, Key, ReadParameters, ValueSource};
use crate::history;
use crate::inspect;
use crate::json_results;
use crate::lease;
use crate::listing;
use crate::status;
use crate::store::Store;
use crate::watch;

/// The outcome of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It succeeded.
    Done,
    /// It failed and has reported why.
    Failed(Failure),
    /// It asks to leave.
    Exit,
}

/// Reports the problem of a command, if it has one.
///
/// # Errors
/// Only those of stdout.
pub(crate) fn report(result: Result<(), Abort>, console: &mut Console) -> io::Result<Outcome> {
    match result {
        Ok(()) => Ok(Outcome::Done),
        Err(Abort::Output(error)) => Err(error),
        Err(Abort::Reported(failure)) => Ok(Outcome::Failed(failure)),
        Err(Abort::Problem(problem)) => {
            console.problem(&problem);
            Ok(Outcome::Failed(problem.failure))
        }
    }
}

/// Runs one command.
///
/// # Errors
/// Only those of stdout.
pub(crate) async fn run(
    command: &Command,
    store: &impl Store,
    console: &mut Console,
) -> io::Result<Outcome> {
    if matches!(command, Command::Exit) {
        return Ok(Outcome::Exit);
    }
    let result = execute(command, store, console).await;
    report(result, console)
}

async fn execute(
    command: &Command,
    store: &impl Store,
    console: &mut Console,
) -> Result<(), Abort> {
    let started = Instant::now();
    match command {
        Command::Read { key, how } => {
            check_level(command, store.level_given())?;
            if let Some(revision) = how.revision {
                let client = store.client(Role::Client).await?;
                return history::get(key, revision, &client, console).await;
            }
            let options = read_options(how, store.level());
            let read = store.read(key.as_bytes(), options).await;
            let read = read.map_err(|error| read_problem(key, &error))?;
            if console.json {
                let (mended, missing) = names(&read.reach, store);
                return Ok(console.result("", || json_results::read(key, &read, mended, missing))?);
            }
            let reach = reach_remark(&read.reach, store);
            let remark = format!("{}{reach}{}", receipt_remark(&read.receipt), elapsed(started));
            console.value(&read.value, &remark)?;
        }
        Command::Write { key, value, level, condition, attach } => {
            let ValueSource::Inline(value) = value else {
                return Err(Problem::failed("the value has not been read").into());
            };
            let value = Bytes::copy_from_slice(value);
            check_level(command, store.level_given())?;
            let mut options = write_options(*level, *condition, store.level());
            options.attach = *attach;
            // The default level does not apply to writes that it cannot do.
            if attach.is_some() && options.level == Level::Eventual {
                options.level = Level::Strong;
            }
            let written = store.write(key.as_bytes(), value, options).await;
            let written = written.map_err(|error| {
                lease::attach_problem(key, &error)
                    .unwrap_or_else(|| write_problem(key, *condition, "written", &error))
            })?;
            let verb = if written.existed { "replaced" } else { "written" };
            print_written(console, verb, key, &written, store, started)?;
        }
        Command::Delete { key, level, condition } => {
            check_level(command, store.level_given())?;
            let options = write_options(*level, *condition, store.level());
            let written = store.delete(key.as_bytes(), options).await;
            let written =
                written.map_err(|error| write_problem(key, *condition, "deleted", &error))?;
            print_written(console, "deleted", key, &written, store, started)?;
        }
        Command::Scan(scan) => {
            let said = store.scan(scan, |pair| listing::print(console, pair)).await?;
            console.flush()?;
            said.map_err(|error| scan_problem(&error))?;
        }
        Command::History(wanted) => {
            // The step restores this.
            console.json |= wanted.json;
            let client = store.client(Role::Client).await?;
            history::list(wanted, &client, console).await?;
        }
        Command::Watch(wanted) => {
            console.json |= wanted.json;
            let client = store.client(Role::Client).await?;
            watch::run(wanted, &client, console).await?;
        }
        Command::Search(key) => inspect::search(key, store, console).await?,
        Command::ShowAll { node } => inspect::show_all(node, store, console).await?,
        Command::Wait { ms } => {
            tokio::time::sleep(Duration::from_millis(*ms)).await;
            console.result(
                &format!("waited {ms} ms"),
                || serde_json::json!({ "command": "wait", "waited_ms": ms }),
            )?;
        }
        Command::Status { json } => {
            let report = status::report(&store.status().await, store.address());
            if *json || console.json {
                console.text(&format!("{}\n", status::json(&report)))?;
            } else {
                let text = status::render(&report, console.width(), console.colour);
                console.line(text.trim_end())?;
            }
            available(&report)?;
        }
        Command::Nodes => {
            let report = status::report(&store.status().await, store.address());
            let text = status::render_nodes(&report, console.width(), console.colour);
            console.result(
                text.trim_end(),
                || serde_json::json!({ "command": "nodes", "nodes": report.nodes }),
            )?;
        }
        Command::Help => console.line(&crate::help::all(store.is_local()))?,
        Command::Exit => {}
        Command::Process(action, target) => store.process(*action, target, console).await?,
    }
    Ok(())
}

/// Checks that the network accepts writes and strong reads.
pub(crate) fn available(report: &status::Report) -> Result<(), Problem> {
    if report.available {
        return Ok(());
    }
    let (lost, unled) = (report.without_majority(), report.without_leader());
    let why = match (lost.as_slice(), report.nodes.is_empty()) {
        ([], true) => "no node has registered; start one with dkv node".to_owned(),
        ([], false) if unled.is_empty() => "no node answers".to_owned(),
        ([], false) => without_leader(&unled, &report.nodes),
        (lost @ [_, ..], _) => format!("no majority in {}", lost.join(", ")),
    };
    Err(Problem::new(Failure::Unavailable, format!("the network is unavailable: {why}")))
}

/// Says why groups may have no leader: also because this machine does not reach it.
fn without_leader(groups: &[String], nodes: &[status::Node]) -> String {
    let silent: Vec<_> = nodes.iter().filter(|node| !node.reachable).collect();
    let here = match silent.as_slice() {
        [] => String::new(),
        some => {
            let names: Vec<_> = some.iter().map(|node| node.name.as_str()).collect();
            format!(", or this machine does not reach {}", names.join(", "))
        }
    };
    format!(
        "no leader in {}: an election is under way, or the nodes do not reach each other{here}",
        groups.join(", ")
    )
}

/// Checks that a command can run at the level that it names, or that the user gave for the whole
/// connection. A level that the user gave is never replaced by another.
///
/// # Errors
/// It cannot; says what to write instead.
pub(crate) fn check_level(command: &Command, given: Option<Level>) -> Result<(), Problem> {
    let (level, condition) = match command {
        Command::Read { how, .. } => {
            let level = how.level.or(given);
            if how.revision.is_some()
                && (how.level.is_some() || how.max_staleness_ms.is_some() || how.at_least.is_some())
            {
                return Err(Problem::usage(
                    "a read at a revision has one answer, so it takes no level and no bounds; \
                     omit them or --revision",
                ));
            }
            return match level {
                Some(level @ (Level::Strong | Level::All))
                    if how.max_staleness_ms.is_some() || how.at_least.is_some() =>
                {
                    Err(Problem::usage(format!(
                        "max-staleness and at-least apply to eventual reads, but the level is {}; \
                         omit the bounds or the level",
                        level.word()
                    )))
                }
                _ => Ok(()),
            };
        }
        Command::Write { level, attach: Some(_), .. }
            if level.or(given) == Some(Level::Eventual) =>
        {
            return Err(Problem::usage(
                "an eventual write takes no time to live and no lease; omit them or the level",
            ));
        }
        Command::Write { level, condition, .. } | Command::Delete { level, condition, .. } => {
            (level.or(given), *condition)
        }
        _ => return Ok(()),
    };
    if level == Some(Level::Eventual) && condition != Condition::Always {
        return Err(Problem::usage(
            "an eventual write cannot have a condition; omit the condition or the level",
        ));
    }
    Ok(())
}

fn read_options(how: &ReadParameters, default: Level) -> ReadOptions {
    let ReadParameters { level, max_staleness_ms, at_least, revision: _ } = *how;
    let bounded = max_staleness_ms.is_some() || at_least.is_some();
    // Bounds without a level ask for an eventual read, whatever the default.
    let level = match (level, default) {
        (None, Level::Strong | Level::All) if bounded => Level::Eventual,
        (level, default) => level.unwrap_or(default),
    };
    let mut options = ReadOptions::from(level);
    options.max_staleness = max_staleness_ms.map(Duration::from_millis);
    options.at_least = at_least;
    options
}

fn write_options(level: Option<Level>, condition: Condition, default: Level) -> WriteOptions {
    // The default level does not apply to writes that it cannot do.
    let default = match default {
        Level::Eventual if condition != Condition::Always => Level::Strong,
        default => default,
    };
    WriteOptions::default().level(level.unwrap_or(default)).condition(condition)
}

fn print_written(
    console: &mut Console,
    verb: &str,
    key: &Key,
    written: &Written,
    store: &impl Store,
    started: Instant,
) -> io::Result<()> {
    let receipt = &written.receipt;
    let mut line = match receipt.pending {
        None => format!("{verb} {key} at revision {} (shard {})", receipt.revision, receipt.shard),
        // Whether it replaces a value is known only once it is ordered.
        Some(number) => {
            let verb = if verb == "deleted" { "delete of" } else { "write of" };
            let node = store.node_names(&[receipt.node]).pop();
            let node = node.unwrap_or_else(|| receipt.node.short());
            let shard = receipt.shard;
            format!("{verb} {key} kept by {node}, pending (its number {number} of shard {shard})")
        }
    };
    let done = line.clone();
    if console.terminal {
        line.push_str(&console.paint(Tone::Dim, &format!("  {}", elapsed(started))));
    }
    let command = if verb == "deleted" { "delete" } else { "put" };
    let said = console.result(&line, || json_results::written(command, key, written));
    said.map_err(|source| unreported_change(done, source))
}

/// Returns what a terminal shows beside the value of a read.
fn receipt_remark(receipt: &Receipt) -> String {
    let age = match (receipt.level, receipt.staleness_ms) {
        (Level::Eventual | Level::Session, Some(ms)) => {
            format!("at most {} old, ", units::duration_ms(ms))
        }
        (Level::Eventual | Level::Session, None) => "of unknown age, ".into(),
        (Level::Strong | Level::All, _) => String::new(),
    };
    match receipt.pending {
        Some(_) => format!("pending, {age}"),
        None => format!("revision {}, {age}", receipt.revision),
    }
}

/// Returns the names of replicas that were behind, and of those that are missing.
fn names(reach: &Reach, store: &impl Store) -> (Vec<String>, Vec<String>) {
    (store.node_names(&reach.mended), store.node_names(&reach.missing))
}

/// Returns what a terminal shows about replicas that were behind or are missing.
fn reach_remark(reach: &Reach, store: &impl Store) -> String {
    let mut text = String::new();
    for (nodes, are) in [(&reach.mended, "was behind"), (&reach.missing, "is missing")] {
        for name in store.node_names(nodes) {
            text.push_str(&format!("{name} {are}, "));
        }
    }
    text
}

fn elapsed(started: Instant) -> String {
    units::duration(started.elapsed())
}

#[cfg(test)]
pub(crate) mod tests;
