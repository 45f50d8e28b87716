//! Whole files of records: stored, and read back.
//!
//! An input is gone through twice (see `source` for what can be read only once). The first time
//! every line is checked, so that a file with a malformed line is refused before anything is
//! stored, and the last line of each key is noted: it is the one that counts, and lines that it
//! supersedes are left out, so that many requests can be under way at once without the order of two
//! of them mattering. The second time the records are sent.
//!
//! A record that meets an unavailable network is tried again for a while. So is one whose outcome
//! is unknown: to store the same value twice is the same as to store it once.
//!
//! Deliberately missing: transactions. Others see the records as they arrive.

mod progress;
mod records;
mod source;
#[cfg(test)]
mod tests;

use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dkv_api::{Condition, Error};
use futures::StreamExt;

use self::progress::Progress;
use self::records::{Record, Source};
use crate::api_problems::{of_key, read_problem, write_problem};
use crate::cli::{Format, Transfer};
use crate::grammar::Key;
use crate::store::Store;
use dkv_console::console::Screen;
use dkv_console::problem::{Failure, Problem, Stop, worst};
use dkv_console::quote::shown;
use dkv_console::units::{number, plural, time};

/// After so many records that failed the rest is not tried: something is wrong with all of them.
const FAILURES_MAX: u64 = 100;
/// Longest time between two attempts at a record.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// What is done with each record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// Stored.
    Load,
    /// Read back and compared.
    Verify,
}

/// What came of one record.
enum Fate {
    Good,
    Missing(Key),
    Different(Key, String),
    Failed(Problem),
}

/// Counts of what came of all records.
#[derive(Default)]
struct Tally {
    good: u64,
    missing: u64,
    different: u64,
    failed: u64,
    retries: u64,
    unknown: u64,
    /// The most serious of what went wrong.
    failure: Option<Failure>,
}

impl Tally {
    fn bad(&self) -> u64 {
        self.missing + self.different + self.failed
    }
}

/// Opens an input and checks it, and says what it is taken for.
pub(crate) async fn source(
    task: Task,
    transfer: &Transfer,
    screen: &mut Screen,
) -> Result<Source, Stop> {
    let transfer = transfer.clone();
    // A pipe may have nothing to say for a while.
    let survey = tokio::task::spawn_blocking(move || Source::survey(task, &transfer));
    let surveyed = survey.await.unwrap_or_else(|error| Err(vec![error.to_string()]));
    match surveyed {
        Ok(source) => {
            source.input.notes().iter().for_each(|note| screen.note(note));
            Ok(source)
        }
        Err(problems) => {
            problems.iter().for_each(|problem| screen.error(problem));
            Err(Stop::Said(Failure::Failed))
        }
    }
}

/// Goes through an input and does the task for each of its records.
pub(crate) async fn run(
    task: Task,
    source: &Source,
    transfer: &Transfer,
    store: &impl Store,
    screen: &mut Screen,
) -> Result<(), Stop> {
    let started = Instant::now();
    let mut tally = Tally::default();
    let mut unreadable = None;
    let mut progress = Progress::new(task, source.count, screen.json);
    {
        let requests = futures::stream::iter(source.records())
            .map(|record| one(task, record, transfer.retry, store))
            .buffer_unordered(usize::from(transfer.in_flight));
        let mut requests = std::pin::pin!(requests);
        while let Some((line, attempts, fate)) = requests.next().await {
            tally.retries += attempts.retries;
            tally.unknown += attempts.unknown;
            if let Some(problem) = count(&mut tally, line, fate, &mut unreadable) {
                progress.suspend(|| screen.problem(&problem));
            }
            progress.step(tally.good + tally.bad(), tally.retries);
            if tally.failed >= FAILURES_MAX || unreadable.is_some() {
                break;
            }
        }
    }
    progress.finish();
    if let Some(problem) = unreadable {
        return Err(problem.behind(&format!("cannot read {}: ", source.input.name)).into());
    }
    if tally.good + tally.bad() != source.count {
        tally.failure = worst(tally.failure, Some(Failure::Failed));
        screen.error(&format!(
            "stopped after {FAILURES_MAX} errors; check status, and run the same command again"
        ));
    }
    let took = started.elapsed();
    let (text, document) =
        (summary(task, source, &tally, took), document(task, source, &tally, took));
    match task {
        Task::Load if tally.good > 0 => screen.changed(&text, || document)?,
        Task::Load | Task::Verify => screen.result(&text, || document)?,
    }
    tally.failure.map_or(Ok(()), |failure| Err(Stop::Said(failure)))
}

/// Counts a fate; the problem to show if it is a bad one.
fn count(
    tally: &mut Tally,
    line: u64,
    fate: Fate,
    unreadable: &mut Option<Problem>,
) -> Option<Problem> {
    let problem = match fate {
        Fate::Good => {
            tally.good += 1;
            return None;
        }
        Fate::Missing(key) => {
            tally.missing += 1;
            of_key(Problem::failed(format!("{key} is missing in the network")), &key)
        }
        Fate::Different(key, problem) => {
            tally.different += 1;
            of_key(Problem::failed(problem), &key)
        }
        // Line zero stands for the file itself.
        Fate::Failed(problem) if line == 0 => {
            *unreadable = Some(problem);
            return None;
        }
        Fate::Failed(problem) => {
            tally.failed += 1;
            problem
        }
    };
    tally.failure = worst(tally.failure, Some(problem.failure));
    Some(problem.behind(&format!("line {line}: ")).with("line", line))
}

#[derive(Default)]
struct Attempts {
    retries: u64,
    unknown: u64,
}

/// Does the task for one record.
async fn one(
    task: Task,
    record: io::Result<Record>,
    patience: Duration,
    store: &impl Store,
) -> (u64, Attempts, Fate) {
    let mut attempts = Attempts::default();
    let record = match record {
        Ok(record) => record,
        Err(error) => return (0, attempts, Fate::Failed(Problem::failed(error.to_string()))),
    };
    let started = Instant::now();
    let mut pause = Duration::from_millis(20);
    loop {
        let error = match attempt(task, &record, store).await {
            Ok(fate) => return (record.line, attempts, fate),
            Err(error) => error,
        };
        let passing = matches!(error, Error::Unavailable(_) | Error::Unknown(_));
        if !passing || started.elapsed() >= patience {
            let problem = match task {
                Task::Load => write_problem(&record.key, Condition::Always, "written", &error),
                Task::Verify => read_problem(&record.key, &error),
            };
            return (record.line, attempts, Fate::Failed(problem));
        }
        attempts.retries += 1;
        attempts.unknown += u64::from(matches!(error, Error::Unknown(_)));
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn attempt(task: Task, record: &Record, store: &impl Store) -> Result<Fate, Error> {
    match task {
        Task::Load => {
            let value = Bytes::copy_from_slice(&record.value);
            store.write(record.key.as_bytes(), value, store.level().into()).await?;
            Ok(Fate::Good)
        }
        Task::Verify => match store.read(record.key.as_bytes(), store.level().into()).await {
            Ok(read) if read.value == record.value => Ok(Fate::Good),
            Ok(read) => Ok(Fate::Different(
                record.key.clone(),
                format!(
                    "{} is {} in the network and {} in the file",
                    record.key,
                    brief(&read.value),
                    brief(&record.value)
                ),
            )),
            Err(Error::NotFound { .. }) => Ok(Fate::Missing(record.key.clone())),
            Err(error) => Err(error),
        },
    }
}

/// The beginning of a value.
fn brief(value: &[u8]) -> String {
    const BYTES_MAX: usize = 40;
    match value.get(..BYTES_MAX) {
        Some(beginning) => format!("\"{}…\"", shown(beginning)),
        None => format!("\"{}\"", shown(value)),
    }
}

fn document(task: Task, source: &Source, tally: &Tally, took: Duration) -> serde_json::Value {
    let format = match source.input.format {
        Format::Tsv => "tsv",
        Format::Csv => "csv",
        Format::Lines => "lines",
        Format::Json => "json",
    };
    let mut document = serde_json::json!({
        "file": source.input.name,
        "format": format,
        "failed": tally.failed,
        "retries": tally.retries,
        "unknown_outcomes": tally.unknown,
        "superseded": source.superseded,
        "duration_ms": took.as_millis() as u64,
    });
    match task {
        Task::Load => {
            document["command"] = "load".into();
            document["loaded"] = tally.good.into();
        }
        Task::Verify => {
            document["command"] = "verify".into();
            document["equal"] = tally.good.into();
            document["missing"] = tally.missing.into();
            document["different"] = tally.different.into();
        }
    }
    document
}

fn summary(task: Task, source: &Source, tally: &Tally, took: Duration) -> String {
    let records = plural(tally.good, "record", "records");
    let rate = (tally.good + tally.bad()) as f64 / took.as_secs_f64().max(1e-6);
    let speed = format!("in {} ({}/s)", time(took), number(rate as u64));
    let mut text = match task {
        Task::Load => format!("loaded {} {records} {speed}", number(tally.good)),
        Task::Verify if tally.bad() == 0 => {
            format!("verified {} {records} {speed}: all equal", number(tally.good))
        }
        Task::Verify => {
            format!("compared with the file {speed}: {} equal", number(tally.good))
        }
    };
    let mut also = |count: u64, what: &str| {
        if count > 0 {
            text.push_str(&format!(", {} {what}", number(count)));
        }
    };
    also(tally.missing, "missing");
    also(tally.different, "different");
    also(tally.failed, "failed");
    also(tally.retries, plural(tally.retries, "retry", "retries"));
    also(tally.unknown, "of them after an unknown outcome");
    also(source.superseded, "skipped: a later line has the same key");
    text
}
