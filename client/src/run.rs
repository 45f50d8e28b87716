//! Runs commands: what each one prints, and whether it succeeded.
//!
//! A command that fails prints one line on stderr that says what is the case now, above all whether
//! a write may have had its effect, and what to do.

use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dkv_api::{Condition, Error, Pair, Receipt};

use crate::csv;
use crate::grammar::{Command, Key, WORDS};
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
        Command::Read { key, level } => match store.read(key.as_bytes(), *level).await {
            Ok(read) => {
                let remark = format!("{}{}", about(&read.receipt), taken(started));
                screen.value(&read.value, &remark)?;
            }
            Err(error) => return Ok(failed(screen, &read_problem(key, &error))),
        },
        Command::Write { key, value, condition } => {
            let value = Bytes::copy_from_slice(value);
            match store.write(key.as_bytes(), value, *condition).await {
                Ok(written) => {
                    let verb = if written.existed { "replaced" } else { "written" };
                    say_written(screen, verb, key, &written.receipt, started)?;
                }
                Err(error) => {
                    return Ok(failed(screen, &write_problem(key, *condition, "written", &error)));
                }
            }
        }
        Command::Delete { key, condition } => {
            match store.delete(key.as_bytes(), *condition).await {
                Ok(written) => say_written(screen, "deleted", key, &written.receipt, started)?,
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

fn say_written(
    screen: &mut Screen,
    verb: &str,
    key: &Key,
    receipt: &Receipt,
    started: Instant,
) -> io::Result<()> {
    let mut line =
        format!("{verb} {key} at revision {} (shard {})", receipt.revision, receipt.shard);
    if screen.terminal {
        line.push_str(&screen.paint(Tone::Dim, &format!("  {}", taken(started))));
    }
    screen.line(&line)
}

/// A line of a list: a record of CSV, or a field of it.
fn listed(pair: &Pair) -> Vec<u8> {
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
    use dkv_api::Level::{Eventual, Strong};
    let age = match (receipt.level, receipt.staleness_ms) {
        (Strong, _) => String::new(),
        (Eventual, Some(ms)) => format!("at most {} old, ", human::time_ms(ms)),
        (Eventual, None) => "of unknown age, ".into(),
    };
    format!("revision {}, {age}", receipt.revision)
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
        text.push_str(&format!("  {:<52} {}\n", word.form, word.does));
    }
    text.push_str(
        "examples:\n  \
           W,greeting,hello, world\n  \
           get greeting eventual\n  \
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
