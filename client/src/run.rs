//! Runs commands: what each one prints, and whether it succeeded.
//!
//! A command that fails prints one line on stderr that says what is the case now, above all whether
//! a write may have had its effect, and what to do.

use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dkv_api::{Condition, Error, Level, Pair, Reach, ReadOptions, Receipt, WriteOptions};

use crate::csv;
use crate::grammar::{Command, HowToRead, Key, LEVELS, WORDS};
use crate::held;
use crate::human;
use crate::screen::{Screen, Tone};
use crate::status;
use crate::store::Store;

/// What came of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It succeeded.
    Done,
    /// It did not, and has said why.
    Failed,
    /// It asked to leave.
    Exit,
}

/// Runs commands in order until one asks to leave; true if all succeeded.
pub(crate) async fn all(
    commands: &[Command],
    store: &impl Store,
    screen: &mut Screen,
) -> io::Result<bool> {
    let mut succeeded = true;
    for command in commands {
        match one(command, store, screen).await? {
            Outcome::Done => {}
            Outcome::Failed => succeeded = false,
            Outcome::Exit => break,
        }
    }
    Ok(succeeded)
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
    let started = Instant::now();
    match command {
        Command::Read { key, how } => {
            match store.read(key.as_bytes(), read_options(how, store.level())).await {
                Ok(read) => {
                    let reach = reached(&read.reach, store);
                    let remark = format!("{}{reach}{}", about(&read.receipt), taken(started));
                    screen.value(&read.value, &remark)?;
                }
                Err(error) => return Ok(failed(screen, &read_problem(key, &error))),
            }
        }
        Command::Write { key, value, level, condition } => {
            let value = Bytes::copy_from_slice(value);
            let options = write_options(*level, *condition, store.level());
            match store.write(key.as_bytes(), value, options).await {
                Ok(written) => {
                    let verb = if written.existed { "replaced" } else { "written" };
                    let node = store.node_names(&[written.receipt.node]).pop();
                    say_written(screen, verb, key, &written.receipt, node, started)?;
                }
                Err(error) => {
                    return Ok(failed(screen, &write_problem(key, *condition, "written", &error)));
                }
            }
        }
        Command::Delete { key, level, condition } => {
            let options = write_options(*level, *condition, store.level());
            match store.delete(key.as_bytes(), options).await {
                Ok(written) => {
                    let node = store.node_names(&[written.receipt.node]).pop();
                    say_written(screen, "deleted", key, &written.receipt, node, started)?;
                }
                Err(error) => {
                    return Ok(failed(screen, &write_problem(key, *condition, "deleted", &error)));
                }
            }
        }
        Command::Scan(scan) => {
            let said = store.scan(scan, |pair| screen.record(&listed(pair))).await?;
            screen.flush()?;
            if let Err(error) = said {
                return Ok(failed(screen, &scan_problem(&error)));
            }
        }
        Command::Search(key) => {
            if !held::search(key, store, screen).await? {
                return Ok(Outcome::Failed);
            }
        }
        Command::ShowAll { node } => {
            if !held::show_all(node, store, screen).await? {
                return Ok(Outcome::Failed);
            }
        }
        Command::Wait { ms } => {
            tokio::time::sleep(Duration::from_millis(*ms)).await;
            screen.line(&format!("waited {ms} ms"))?;
        }
        Command::Status { json } => {
            let report = status::report(&store.status().await, store.address());
            let text = if *json {
                status::json(&report)
            } else {
                status::render(&report, screen.width(), screen.colour)
            };
            screen.line(text.trim_end())?;
        }
        Command::Nodes => {
            let report = status::report(&store.status().await, store.address());
            let text = status::render_nodes(&report, screen.width(), screen.colour);
            screen.line(text.trim_end())?;
        }
        Command::Help => screen.line(&help(store.is_local()))?,
        Command::Exit => return Ok(Outcome::Exit),
        Command::Process(action, target) => {
            if !store.process(*action, target, screen).await? {
                return Ok(Outcome::Failed);
            }
        }
    }
    Ok(Outcome::Done)
}

fn read_options(how: &HowToRead, usual: Level) -> ReadOptions {
    let HowToRead { level, max_staleness_ms, at_least } = *how;
    let bounded = max_staleness_ms.is_some() || at_least.is_some();
    // Bounds without a level ask for an eventual read, whatever is usual.
    let level = match (level, usual) {
        (None, Level::Strong | Level::All) if bounded => Level::Eventual,
        (level, usual) => level.unwrap_or(usual),
    };
    let max_staleness = max_staleness_ms.map(Duration::from_millis);
    ReadOptions { max_staleness, at_least, ..level.into() }
}

fn write_options(level: Option<Level>, condition: Condition, usual: Level) -> WriteOptions {
    // What is usual does not hold for what cannot be had of it.
    let usual = match usual {
        Level::Eventual if condition != Condition::Always => Level::Strong,
        usual => usual,
    };
    WriteOptions { level: level.unwrap_or(usual), condition, ..WriteOptions::default() }
}

fn say_written(
    screen: &mut Screen,
    verb: &str,
    key: &Key,
    receipt: &Receipt,
    node: Option<String>,
    started: Instant,
) -> io::Result<()> {
    let mut line = match receipt.pending {
        None => format!("{verb} {key} at revision {} (shard {})", receipt.revision, receipt.shard),
        // What it replaces is known once it is ordered.
        Some(number) => {
            let verb = if verb == "deleted" { "delete of" } else { "write of" };
            let node = node.unwrap_or_else(|| receipt.node.short());
            let shard = receipt.shard;
            format!("{verb} {key} kept by {node}, pending (its number {number} of shard {shard})")
        }
    };
    if screen.terminal {
        line.push_str(&screen.paint(Tone::Dim, &format!("  {}", taken(started))));
    }
    screen.line(&line)
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

fn failed(screen: &mut Screen, problem: &str) -> Outcome {
    screen.error(problem);
    Outcome::Failed
}

/// What a failed read means.
pub(crate) fn read_problem(key: &Key, error: &Error) -> String {
    match error {
        Error::NotFound { .. } => format!("key not found: {key}"),
        Error::Unavailable(why) => {
            format!("{key} could not be read now: {why}; try again, or read it eventual")
        }
        other => request_problem(other),
    }
}

/// What a failed scan means.
fn scan_problem(error: &Error) -> String {
    match error {
        Error::Unavailable(why) => format!(
            "the list is not complete: {why}; try again, or go on with --after and the last key"
        ),
        other => request_problem(other),
    }
}

/// What a failed write or delete means; `done` is what it was to be.
pub(crate) fn write_problem(key: &Key, condition: Condition, done: &str, error: &Error) -> String {
    match error {
        Error::NotFound { .. } => format!("key not found: {key}"),
        Error::Conflict { current, .. } => {
            let is = match current {
                Some(revision) => format!("it is at revision {revision}"),
                None => "it does not exist".to_owned(),
            };
            let but = match condition {
                Condition::Always => String::new(),
                Condition::Absent => ", and was to be absent".into(),
                Condition::Present => ", and was to be present".into(),
                Condition::Revision(revision) => format!(", and was to be at {revision}"),
            };
            format!("{key} was not {done}: {is}{but}; read it and decide anew")
        }
        Error::Unavailable(why) => {
            format!("{key} was not {done}: {why}; nothing was changed, so try again")
        }
        Error::Incomplete { missing, .. } => format!(
            "{key} was {done}, and that stands, but not every replica is known to have it: {} missing \
             so far",
            missing.join(", ") + if missing.len() == 1 { " is" } else { " are" }
        ),
        Error::Unknown(why) => format!(
            "it is not known whether {key} was {done}: {why}; it may have had effect, or may yet: \
             read the key to see, or repeat the command"
        ),
        other => request_problem(other),
    }
}

/// What any failed request means.
pub(crate) fn request_problem(error: &Error) -> String {
    match error {
        Error::Denied(why) => {
            format!("denied: {why}; give a token that allows it with --token-file")
        }
        Error::TooLarge { what, bytes, limit } => {
            format!("the {what} has {bytes} bytes, and {limit} is the limit; nothing was changed")
        }
        Error::Unavailable(why) => format!("{why}; nothing was changed, so try again"),
        Error::Unknown(why) => {
            format!("{why}; it may have had effect: look with status, or repeat the command")
        }
        other => other.to_string(),
    }
}

/// The help of the prompt.
pub(crate) fn help(local: bool) -> String {
    let mut text = String::from(
        "commands, upper case, the value may hold commas and spaces:\n  \
           R,<key>            print the value of a key\n  \
           W,<key>,<value>    store a value\n  \
           D,<key>            remove a key\n  \
           T,<ms>             wait\n\
         or in words, with quotes as in a shell:\n",
    );
    for word in WORDS.iter().filter(|word| local || !word.local) {
        text.push_str(&format!("  {:<60} {}\n", word.form, word.does));
    }
    text.push_str(&format!("levels: {LEVELS}; see docs/consistency.md\n"));
    text.push_str(
        "examples:\n  \
           W,greeting,hello, world\n  \
           get greeting eventual max-staleness 500\n  \
           put \"a key\" 'some value' if-absent",
    );
    if local {
        text.push_str("\n  kill coordinator");
    }
    text
}

#[cfg(test)]
#[path = "run_tests.rs"]
pub(crate) mod tests;
