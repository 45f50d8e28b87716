//! `dkv load` and `dkv verify`: stores the records of a file, and compares them with the network.
//!
//! Both read the input twice (`source` copies an input that can be read only once). The first pass
//! checks every line, so that a file with a malformed line is refused before anything is stored,
//! and remembers the last line of each key. Only that line counts; the lines that it supersedes are
//! skipped, so that the order of concurrent requests does not matter. The second pass sends the
//! records.
//!
//! A record is retried for a while if the network is unavailable, or if the outcome is unknown:
//! storing the same value twice has the same effect as storing it once.
//!
//! Deliberately missing: transactions. Other clients see the records as they arrive.

mod progress;
mod records;
mod source;
#[cfg(test)]
mod tests;

use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dkv_api::{Condition, Error, Level, WriteOptions};
use futures::StreamExt;

use self::progress::Progress;
use self::records::{Record, Source};
use crate::api_problems::{of_key, read_problem, write_problem};
use crate::cli::{Format, TransferArgs};
use crate::grammar::Key;
use crate::store::Store;
use dkv_console::Console;
use dkv_console::problem::{Abort, Failure, Problem, worst};
use dkv_console::quote::escaped;
use dkv_console::units::{duration, number, plural};
use dkv_wire::limits::KEY_TTL_MIN;

/// Number of failed records after which the rest is not tried, because all of them would fail.
const FAILURES_MAX: u64 = 100;
/// Longest pause between two attempts at a record.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// What to do with each record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// Store it.
    Load,
    /// Read it back and compare it.
    Verify,
}

/// The result of one record.
enum RecordResult {
    Good,
    Missing(Key),
    Different(Key, String),
    Failed(Problem),
}

/// Counts of the results.
#[derive(Default)]
struct Tally {
    good: u64,
    missing: u64,
    different: u64,
    failed: u64,
    retries: u64,
    unknown: u64,
    /// The most serious failure.
    failure: Option<Failure>,
}

impl Tally {
    fn bad(&self) -> u64 {
        self.missing + self.different + self.failed
    }
}

/// Opens and checks an input, and reports its format.
pub(crate) async fn source(
    task: Task,
    transfer: &TransferArgs,
    console: &mut Console,
) -> Result<Source, Abort> {
    let transfer = transfer.clone();
    // Reading a pipe may block for a while.
    let checking = tokio::task::spawn_blocking(move || Source::check(task, &transfer));
    let checked = checking.await.unwrap_or_else(|error| Err(vec![error.to_string()]));
    match checked {
        Ok(source) => {
            source.input.notes().iter().for_each(|note| console.note(note));
            Ok(source)
        }
        Err(problems) => {
            problems.iter().for_each(|problem| console.error(problem));
            Err(Abort::Reported(Failure::Failed))
        }
    }
}

/// Carries out the task for each record of an input.
pub(crate) async fn run(
    task: Task,
    source: &Source,
    transfer: &TransferArgs,
    store: &impl Store,
    console: &mut Console,
) -> Result<(), Abort> {
    let started = Instant::now();
    let mut tally = Tally::default();
    let mut unreadable = None;
    let mut progress = Progress::new(task, source.count, console.json);
    {
        let requests = futures::stream::iter(source.records())
            .map(|record| one(task, record, transfer.retry, store))
            .buffer_unordered(usize::from(transfer.in_flight));
        let mut requests = std::pin::pin!(requests);
        while let Some((line, attempts, result)) = requests.next().await {
            tally.retries += attempts.retries;
            tally.unknown += attempts.unknown;
            if let Some(problem) = count(&mut tally, line, result, &mut unreadable) {
                progress.suspend(|| console.problem(&problem));
            }
            progress.step(tally.good + tally.bad(), tally.retries);
            if tally.failed >= FAILURES_MAX || unreadable.is_some() {
                break;
            }
        }
    }
    progress.finish();
    if let Some(problem) = unreadable {
        return Err(problem.prefixed(&format!("cannot read {}: ", source.input.name)).into());
    }
    if tally.good + tally.bad() != source.count {
        tally.failure = worst(tally.failure, Some(Failure::Failed));
        console.error(&format!(
            "stopped after {FAILURES_MAX} errors; check status, then run the same command again"
        ));
    }
    let took = started.elapsed();
    let (text, document) =
        (summary(task, source, &tally, took), document(task, source, &tally, took));
    match task {
        Task::Load if tally.good > 0 => console.changed(&text, || document)?,
        Task::Load | Task::Verify => console.result(&text, || document)?,
    }
    tally.failure.map_or(Ok(()), |failure| Err(Abort::Reported(failure)))
}

/// Counts a result. Returns the problem to report, if there is one.
fn count(
    tally: &mut Tally,
    line: u64,
    result: RecordResult,
    unreadable: &mut Option<Problem>,
) -> Option<Problem> {
    let problem = match result {
        RecordResult::Good => {
            tally.good += 1;
            return None;
        }
        RecordResult::Missing(key) => {
            tally.missing += 1;
            of_key(Problem::failed(format!("{key} is missing from the network")), &key)
        }
        RecordResult::Different(key, problem) => {
            tally.different += 1;
            of_key(Problem::failed(problem), &key)
        }
        // Line zero stands for the file itself.
        RecordResult::Failed(problem) if line == 0 => {
            *unreadable = Some(problem);
            return None;
        }
        RecordResult::Failed(problem) => {
            tally.failed += 1;
            problem
        }
    };
    tally.failure = worst(tally.failure, Some(problem.failure));
    Some(problem.prefixed(&format!("line {line}: ")).with("line", line))
}

#[derive(Default)]
struct Attempts {
    retries: u64,
    unknown: u64,
}

/// Carries out the task for one record, with retries.
async fn one(
    task: Task,
    record: io::Result<Record>,
    retry_for: Duration,
    store: &impl Store,
) -> (u64, Attempts, RecordResult) {
    let mut attempts = Attempts::default();
    let record = match record {
        Ok(record) => record,
        Err(error) => {
            return (0, attempts, RecordResult::Failed(Problem::failed(error.to_string())));
        }
    };
    let started = Instant::now();
    let mut pause = Duration::from_millis(20);
    loop {
        let error = match attempt(task, &record, store).await {
            Ok(result) => return (record.line, attempts, result),
            Err(error) => error,
        };
        let passing = matches!(error, Error::Unavailable(_) | Error::Unknown(_));
        if !passing || started.elapsed() >= retry_for {
            let problem = match task {
                Task::Load => write_problem(&record.key, Condition::Always, "written", &error),
                Task::Verify => read_problem(&record.key, &error),
            };
            return (record.line, attempts, RecordResult::Failed(problem));
        }
        attempts.retries += 1;
        attempts.unknown += u64::from(matches!(error, Error::Unknown(_)));
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn attempt(task: Task, record: &Record, store: &impl Store) -> Result<RecordResult, Error> {
    match task {
        Task::Load => {
            let value = Bytes::copy_from_slice(&record.value);
            let mut options = WriteOptions::from(store.level());
            if let Some(ttl) = record.ttl {
                options = options.ttl(ttl.max(KEY_TTL_MIN));
                // An eventual write cannot expire.
                if options.level == Level::Eventual {
                    options.level = Level::Strong;
                }
            }
            store.write(record.key.as_bytes(), value, options).await?;
            Ok(RecordResult::Good)
        }
        Task::Verify => match store.read(record.key.as_bytes(), store.level().into()).await {
            Ok(read) if read.value == record.value => Ok(RecordResult::Good),
            Ok(read) => Ok(RecordResult::Different(
                record.key.clone(),
                format!(
                    "{} is {} in the network but {} in the file",
                    record.key,
                    brief(&read.value),
                    brief(&record.value)
                ),
            )),
            Err(Error::NotFound { .. }) => Ok(RecordResult::Missing(record.key.clone())),
            Err(error) => Err(error),
        },
    }
}

/// Returns the beginning of a value in quotes.
fn brief(value: &[u8]) -> String {
    const BYTES_MAX: usize = 40;
    match value.get(..BYTES_MAX) {
        Some(beginning) => format!("\"{}…\"", escaped(beginning)),
        None => format!("\"{}\"", escaped(value)),
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
    let speed = format!("in {} ({}/s)", duration(took), number(rate as u64));
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
