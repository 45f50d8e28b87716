//! Runs commands: what each one prints, and whether it succeeded.
//!
//! A command that fails prints one line on stderr that says what is the case now, above all whether
//! a write may have had its effect, and what to do (see `problem`).

use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dkv_api::{Condition, Level, Pair, Reach, ReadOptions, Receipt, WriteOptions, Written};

use crate::csv;
use crate::documents;
use crate::grammar::{Command, Content, HowToRead, Key};
use crate::held;
use crate::human;
use crate::problem::{Failure, Problem, Stop, read_problem, scan_problem, untold, write_problem};
use crate::screen::{Screen, Tone};
use crate::status;
use crate::store::Store;

/// What came of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It succeeded.
    Done,
    /// It did not, and has said why.
    Failed(Failure),
    /// It asked to leave.
    Exit,
}

/// Says what went wrong, if something did.
///
/// # Errors
/// Only those of stdout.
pub(crate) fn outcome(result: Result<(), Stop>, screen: &mut Screen) -> io::Result<Outcome> {
    match result {
        Ok(()) => Ok(Outcome::Done),
        Err(Stop::Output(error)) => Err(error),
        Err(Stop::Said(failure)) => Ok(Outcome::Failed(failure)),
        Err(Stop::Problem(problem)) => {
            screen.problem(&problem);
            Ok(Outcome::Failed(problem.failure))
        }
    }
}

/// Runs one command.
///
/// # Errors
/// Only those of stdout.
pub(crate) async fn one(
    command: &Command,
    store: &impl Store,
    screen: &mut Screen,
) -> io::Result<Outcome> {
    if matches!(command, Command::Exit) {
        return Ok(Outcome::Exit);
    }
    let result = carry_out(command, store, screen).await;
    outcome(result, screen)
}

async fn carry_out(command: &Command, store: &impl Store, screen: &mut Screen) -> Result<(), Stop> {
    let started = Instant::now();
    match command {
        Command::Read { key, how } => {
            fits(command, store.level_given())?;
            let options = read_options(how, store.level());
            let read = store.read(key.as_bytes(), options).await;
            let read = read.map_err(|error| read_problem(key, &error))?;
            if screen.json {
                let (mended, missing) = names(&read.reach, store);
                return Ok(screen.result("", || documents::read(key, &read, mended, missing))?);
            }
            let reach = reached(&read.reach, store);
            let remark = format!("{}{reach}{}", about(&read.receipt), taken(started));
            screen.value(&read.value, &remark)?;
        }
        Command::Write { key, value, level, condition } => {
            let Content::Given(value) = value else {
                return Err(Problem::failed("the value was not read").into());
            };
            let value = Bytes::copy_from_slice(value);
            fits(command, store.level_given())?;
            let options = write_options(*level, *condition, store.level());
            let written = store.write(key.as_bytes(), value, options).await;
            let written =
                written.map_err(|error| write_problem(key, *condition, "written", &error))?;
            let verb = if written.existed { "replaced" } else { "written" };
            say_written(screen, verb, key, &written, store, started)?;
        }
        Command::Delete { key, level, condition } => {
            fits(command, store.level_given())?;
            let options = write_options(*level, *condition, store.level());
            let written = store.delete(key.as_bytes(), options).await;
            let written =
                written.map_err(|error| write_problem(key, *condition, "deleted", &error))?;
            say_written(screen, "deleted", key, &written, store, started)?;
        }
        Command::Scan(scan) => {
            let said = store.scan(scan, |pair| list(screen, pair)).await?;
            screen.flush()?;
            said.map_err(|error| scan_problem(&error))?;
        }
        Command::Search(key) => held::search(key, store, screen).await?,
        Command::ShowAll { node } => held::show_all(node, store, screen).await?,
        Command::Wait { ms } => {
            tokio::time::sleep(Duration::from_millis(*ms)).await;
            screen.result(
                &format!("waited {ms} ms"),
                || serde_json::json!({ "command": "wait", "waited_ms": ms }),
            )?;
        }
        Command::Status { json } => {
            let report = status::report(&store.status().await, store.address());
            if *json || screen.json {
                screen.text(&format!("{}\n", status::json(&report)))?;
            } else {
                let text = status::render(&report, screen.width(), screen.colour);
                screen.line(text.trim_end())?;
            }
            available(&report)?;
        }
        Command::Nodes => {
            let report = status::report(&store.status().await, store.address());
            let text = status::render_nodes(&report, screen.width(), screen.colour);
            screen.result(
                text.trim_end(),
                || serde_json::json!({ "command": "nodes", "nodes": report.nodes }),
            )?;
        }
        Command::Help => screen.line(&crate::help::all(store.is_local()))?,
        Command::Exit => {}
        Command::Process(action, target) => store.process(*action, target, screen).await?,
    }
    Ok(())
}

/// Whether a network can be written to and read strongly.
fn available(report: &status::Report) -> Result<(), Problem> {
    if report.available {
        return Ok(());
    }
    let lost = report.groups.iter().filter(|group| group.spare.is_some_and(|spare| spare < 0));
    let lost: Vec<String> =
        lost.map(|group| dkv_gateway::status::group_name(group.group)).collect();
    let why = match (lost.as_slice(), report.nodes.is_empty()) {
        ([], true) => "no node has registered; start one with dkv node".to_owned(),
        ([], false) => "no node answers".to_owned(),
        (lost, _) => format!("no majority in {}", lost.join(", ")),
    };
    Err(Problem::new(Failure::Unavailable, format!("the network is unavailable: {why}")))
}

/// Shows a key of a list, which may be long.
pub(crate) fn list(screen: &mut Screen, pair: &Pair) -> io::Result<()> {
    if screen.json { screen.document(&documents::pair(pair)) } else { screen.record(&listed(pair)) }
}

/// Whether a command can be had at the level that somebody has written for it: in it, or for the
/// whole connection. What is weaker or stronger than was asked for is never done instead.
///
/// # Errors
/// It cannot, and what to write.
pub(crate) fn fits(command: &Command, given: Option<Level>) -> Result<(), Problem> {
    let (level, condition) = match command {
        Command::Read { how, .. } => {
            let level = how.level.or(given);
            return match level {
                Some(level @ (Level::Strong | Level::All))
                    if how.max_staleness_ms.is_some() || how.at_least.is_some() =>
                {
                    Err(Problem::usage(format!(
                        "max-staleness and at-least are bounds of an eventual read, and the level is {}; \
                         leave out the bounds or the level",
                        level.word()
                    )))
                }
                _ => Ok(()),
            };
        }
        Command::Write { level, condition, .. } | Command::Delete { level, condition, .. } => {
            (level.or(given), *condition)
        }
        _ => return Ok(()),
    };
    if level == Some(Level::Eventual) && condition != Condition::Always {
        return Err(Problem::usage(
            "an eventual write cannot have a condition; leave out the condition or the level",
        ));
    }
    Ok(())
}

fn read_options(how: &HowToRead, usual: Level) -> ReadOptions {
    let HowToRead { level, max_staleness_ms, at_least } = *how;
    let bounded = max_staleness_ms.is_some() || at_least.is_some();
    // Bounds without a level ask for an eventual read, whatever is usual.
    let level = match (level, usual) {
        (None, Level::Strong | Level::All) if bounded => Level::Eventual,
        (level, usual) => level.unwrap_or(usual),
    };
    let mut options = ReadOptions::from(level);
    options.max_staleness = max_staleness_ms.map(Duration::from_millis);
    options.at_least = at_least;
    options
}

fn write_options(level: Option<Level>, condition: Condition, usual: Level) -> WriteOptions {
    // What is usual does not hold for what cannot be had of it.
    let usual = match usual {
        Level::Eventual if condition != Condition::Always => Level::Strong,
        usual => usual,
    };
    WriteOptions::default().level(level.unwrap_or(usual)).condition(condition)
}

fn say_written(
    screen: &mut Screen,
    verb: &str,
    key: &Key,
    written: &Written,
    store: &impl Store,
    started: Instant,
) -> io::Result<()> {
    let receipt = &written.receipt;
    let mut line = match receipt.pending {
        None => format!("{verb} {key} at revision {} (shard {})", receipt.revision, receipt.shard),
        // What it replaces is known once it is ordered.
        Some(number) => {
            let verb = if verb == "deleted" { "delete of" } else { "write of" };
            let node = store.node_names(&[receipt.node]).pop();
            let node = node.unwrap_or_else(|| receipt.node.short());
            let shard = receipt.shard;
            format!("{verb} {key} kept by {node}, pending (its number {number} of shard {shard})")
        }
    };
    let done = line.clone();
    if screen.terminal {
        line.push_str(&screen.paint(Tone::Dim, &format!("  {}", taken(started))));
    }
    let command = if verb == "deleted" { "delete" } else { "put" };
    let said = screen.result(&line, || documents::written(command, key, written));
    said.map_err(|source| untold(done, source))
}

/// A line of a list: a record of CSV, or a field of it.
pub(crate) fn listed(pair: &Pair) -> Vec<u8> {
    match &pair.value {
        Some(value) => csv::record(&pair.key, value),
        None => {
            let mut line = Vec::new();
            csv::field(&pair.key, &mut line);
            line
        }
    }
}

/// What a terminal shows about a read, beside the value.
fn about(receipt: &Receipt) -> String {
    let age = match (receipt.level, receipt.staleness_ms) {
        (Level::Eventual | Level::Session, Some(ms)) => {
            format!("at most {} old, ", human::time_ms(ms))
        }
        (Level::Eventual | Level::Session, None) => "of unknown age, ".into(),
        (Level::Strong | Level::All, _) => String::new(),
    };
    match receipt.pending {
        Some(_) => format!("pending, {age}"),
        None => format!("revision {}, {age}", receipt.revision),
    }
}

/// Names of the replicas that were behind, and of those that are missing.
fn names(reach: &Reach, store: &impl Store) -> (Vec<String>, Vec<String>) {
    (store.node_names(&reach.mended), store.node_names(&reach.missing))
}

/// What a terminal shows about the replicas.
fn reached(reach: &Reach, store: &impl Store) -> String {
    let mut text = String::new();
    for (nodes, are) in [(&reach.mended, "was behind"), (&reach.missing, "is missing")] {
        for name in store.node_names(nodes) {
            text.push_str(&format!("{name} {are}, "));
        }
    }
    text
}

fn taken(started: Instant) -> String {
    human::time(started.elapsed())
}

#[cfg(test)]
#[path = "run_tests.rs"]
pub(crate) mod tests;
