//! Clients that write and read until they are stopped, and a check of what they saw.
//!
//! There are four kinds of clients:
//! - *Writers* write keys of their own, each once and only if it is absent. A write that is
//!   executed twice conflicts with itself.
//! - *Counters* increment one key, on condition that it has not changed. The sum reveals lost and
//!   repeated writes.
//! - *Registers* write increasing numbers to one key each, and *readers* read them. A read may not
//!   be older than a write that was acknowledged before it, nor than an earlier read of the same
//!   reader.
//!
//! A write with an unknown outcome may have been executed or not; a refused write must not.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use dkv_api::{Client, Condition, Error, Revision};
use futures::StreamExt;
use tokio::task::JoinSet;
use tokio::time::Instant;

const WRITERS: usize = 4;
const COUNTERS: usize = 2;
const REGISTERS: usize = 2;
const READERS: usize = 2;
const COUNTER: &str = "counter";
/// Pause after each request, so that the load is steady and not maximal.
const PAUSE: Duration = Duration::from_millis(2);
/// Number of concurrent reads when everything is read back.
const READS: usize = 64;

/// Running load.
pub(crate) struct Load {
    journal: Arc<Journal>,
    tasks: JoinSet<()>,
}

#[derive(Default)]
struct Journal {
    stop: AtomicBool,
    done: AtomicU64,
    registers: [Register; REGISTERS],
    seen: Mutex<Seen>,
}

/// The state of one register.
#[derive(Default)]
struct Register {
    acknowledged: AtomicU64,
    sent: AtomicU64,
}

#[derive(Default)]
struct Seen {
    written: HashMap<String, (String, Revision)>,
    unknown: HashMap<String, String>,
    counted: u64,
    maybe_counted: u64,
    failures: Vec<String>,
    violations: Vec<String>,
    slowest: Duration,
}

/// The result of a load.
pub(crate) struct Report {
    /// Failed requests, and why they failed.
    pub(crate) failures: Vec<String>,
    /// Time of the slowest successful request.
    pub(crate) slowest: Duration,
    /// Number of successful requests.
    pub(crate) done: u64,
    seen: Seen,
    registers: Vec<(u64, u64)>,
}

impl Load {
    /// Starts load on a network.
    pub(crate) fn start(client: &Client) -> Self {
        let journal = Arc::<Journal>::default();
        let mut tasks = JoinSet::new();
        for number in 0..WRITERS {
            tasks.spawn(write(client.clone(), Arc::clone(&journal), number));
        }
        for _ in 0..COUNTERS {
            tasks.spawn(count(client.clone(), Arc::clone(&journal)));
        }
        for number in 0..REGISTERS {
            tasks.spawn(set(client.clone(), Arc::clone(&journal), number));
        }
        for _ in 0..READERS {
            tasks.spawn(watch(client.clone(), Arc::clone(&journal)));
        }
        Self { journal, tasks }
    }

    /// Returns the number of answered requests so far.
    pub(crate) fn done(&self) -> u64 {
        self.journal.done.load(Ordering::Relaxed)
    }

    /// Waits until that many more requests were answered.
    pub(crate) async fn more(&self, count: u64) {
        let target = self.done() + count;
        super::eventually("the load makes no progress", async || {
            if self.done() >= target { Ok(()) } else { Err(format!("{} done", self.done())) }
        })
        .await;
    }

    /// Stops the load and waits for requests in flight.
    pub(crate) async fn stop(mut self) -> Report {
        self.journal.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        let Self { journal, .. } = self;
        let registers = journal.registers.iter().map(|register| {
            let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
            (read(&register.acknowledged), read(&register.sent))
        });
        let registers = registers.collect();
        let mut seen = std::mem::take(&mut *journal.seen());
        Report {
            failures: std::mem::take(&mut seen.failures),
            slowest: seen.slowest,
            done: journal.done.load(Ordering::Relaxed),
            seen,
            registers,
        }
    }
}

impl Journal {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    fn is_running(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn note_done(&self, begun: Instant) {
        self.done.fetch_add(1, Ordering::Relaxed);
        let mut seen = self.seen();
        seen.slowest = seen.slowest.max(begun.elapsed());
    }

    fn note_failure(&self, what: &str, error: &Error) {
        self.seen().failures.push(format!("{what}: {error}"));
    }

    fn note_violation(&self, what: String) {
        self.seen().violations.push(what);
    }
}

async fn write(client: Client, journal: Arc<Journal>, number: usize) {
    let mut serial = 0_u64;
    while journal.is_running() {
        serial += 1;
        let (key, value) = (format!("w{number}-{serial}"), format!("v{number}-{serial}"));
        let begun = Instant::now();
        match client.write_with(&key, value.clone(), Condition::Absent.into()).await {
            Ok(written) => {
                journal.note_done(begun);
                journal.seen().written.insert(key, (value, written.receipt.revision));
            }
            Err(Error::Conflict { current, .. }) => {
                journal.note_violation(format!("{key} was written twice: it is at {current:?}"));
            }
            Err(error) => {
                journal.note_failure(&key, &error);
                if error.may_have_had_effect() {
                    journal.seen().unknown.insert(key, value);
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn count(client: Client, journal: Arc<Journal>) {
    while journal.is_running() {
        let begun = Instant::now();
        let (value, condition) = match client.read(COUNTER).await {
            Ok(read) => (number(&read.value), Condition::Revision(read.receipt.revision)),
            Err(Error::NotFound { .. }) => (0, Condition::Absent),
            Err(error) => {
                journal.note_failure("read of the counter", &error);
                continue;
            }
        };
        journal.note_done(begun);
        let begun = Instant::now();
        let next = (value + 1).to_string();
        match client.write_with(COUNTER, next, condition.into()).await {
            Ok(_) => {
                journal.note_done(begun);
                journal.seen().counted += 1;
            }
            Err(Error::Conflict { .. }) => journal.note_done(begun),
            Err(error) => {
                journal.note_failure("increment", &error);
                if error.may_have_had_effect() {
                    journal.seen().maybe_counted += 1;
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn set(client: Client, journal: Arc<Journal>, number: usize) {
    let key = format!("register{number}");
    let register = &journal.registers[number];
    while journal.is_running() {
        let next = register.sent.fetch_add(1, Ordering::SeqCst) + 1;
        let begun = Instant::now();
        match client.write(&key, next.to_string()).await {
            Ok(_) => {
                register.acknowledged.store(next, Ordering::SeqCst);
                journal.note_done(begun);
            }
            Err(error) => journal.note_failure(&key, &error),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn watch(client: Client, journal: Arc<Journal>) {
    let mut newest = [Revision(0); REGISTERS];
    let mut turn = 0;
    while journal.is_running() {
        turn = (turn + 1) % REGISTERS;
        let key = format!("register{turn}");
        let least = journal.registers[turn].acknowledged.load(Ordering::SeqCst);
        let begun = Instant::now();
        match client.read(&key).await {
            Ok(read) => {
                journal.note_done(begun);
                let value = number(&read.value);
                let sent = journal.registers[turn].sent.load(Ordering::SeqCst);
                if value < least || value > sent {
                    let said = format!("{key} is {value}, and {least} to {sent} was written");
                    journal.note_violation(format!("{said}: {:?}", read.receipt));
                }
                if read.receipt.revision < newest[turn] {
                    journal.note_violation(format!("{key} went back: {:?}", read.receipt));
                }
                newest[turn] = newest[turn].max(read.receipt.revision);
            }
            Err(Error::NotFound { receipt }) => {
                if least > 0 {
                    journal.note_violation(format!("{key} is gone: {receipt:?}"));
                }
            }
            Err(error) => journal.note_failure(&key, &error),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn number(value: &[u8]) -> u64 {
    std::str::from_utf8(value).unwrap().parse().unwrap()
}

impl Report {
    /// Reads everything back and compares.
    pub(crate) async fn check(&self, client: &Client) {
        let Seen { written, unknown, counted, maybe_counted, violations, .. } = &self.seen;
        assert_eq!(*violations, [""; 0]);
        assert!(!written.is_empty() && *counted > 0, "nothing was written");
        let written = futures::stream::iter(written).map(async |(key, (value, revision))| {
            let read = client.read(key).await.unwrap_or_else(|error| panic!("{key}: {error}"));
            assert_eq!((&read.value[..], read.receipt.revision), (value.as_bytes(), *revision));
        });
        written.buffer_unordered(READS).collect::<()>().await;
        let unknown =
            futures::stream::iter(unknown).map(async |(key, value)| match client.read(key).await {
                Ok(read) => assert_eq!(&read.value[..], value.as_bytes()),
                Err(Error::NotFound { .. }) => {}
                Err(error) => panic!("{key}: {error}"),
            });
        unknown.buffer_unordered(READS).collect::<()>().await;
        let counter = number(&client.read(COUNTER).await.unwrap().value);
        assert!(
            (*counted..=counted + maybe_counted).contains(&counter),
            "{counted} increments were acknowledged, {maybe_counted} are unknown, and the counter \
             is {counter}"
        );
        for (number_of, (acknowledged, sent)) in self.registers.iter().enumerate() {
            let read = client.read(format!("register{number_of}")).await.unwrap();
            let value = number(&read.value);
            assert!((*acknowledged..=*sent).contains(&value), "{acknowledged} {value} {sent}");
        }
    }
}
