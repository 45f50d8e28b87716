//! `dkv import etcd`: copies the keys of etcd, from a snapshot file or from its members.
//!
//! Members are copied at one revision, page by page, and then followed with a watch. Copying makes
//! the keyspace equal to the source by writing only what differs. So an interrupted import goes on
//! with no more than the keyspace as it is, and a source that has compacted the revision is copied
//! once more, at a later one. While it runs, the leases of the source are kept alive.
//!
//! - `target` is the keyspace, `leases` its leases, `touched` whether both were changed, `sum`
//!   compares, `record` remembers how an import ended.
//! - `file` reads a file; `source` asks the members over `link`; `copy` and `follow`
//!   use it.

mod copy;
mod file;
mod follow;
mod leases;
mod link;
mod record;
mod source;
mod sum;
mod target;
mod touched;

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use dkv_api::Revision;
use dkv_console::Console;
use dkv_console::problem::{Abort, Effect, Failure, Problem};
use dkv_console::units::{number, plural};
use indicatif::ProgressBar;
use serde_json::json;
use tokio::sync::mpsc;

use self::record::ImportRecord;
use self::source::EtcdSource;
use self::sum::Sum;
use self::target::Target;
use crate::cli::ImportEtcdArgs;
use crate::stop::{Beside, Stop};
use crate::store::Store;

/// Keyspace of etcd's keys, unless the user names another one.
const KEYSPACE: &str = "etcd";
/// Time between two reports to somebody who reads no terminal.
const REPORT_EVERY: Duration = Duration::from_secs(10);
/// Time between two reports to a program.
const DOCUMENT_EVERY: Duration = Duration::from_secs(1);

/// What an import tells while it runs.
#[derive(Clone, Debug)]
enum Event {
    /// A sentence for the user.
    Note(String),
    /// The number of keys that are copied.
    Copied(u64),
    /// The last revision that the keyspace has, and how many are missing.
    Followed { revision: i64, behind: i64 },
}

/// What came out of an import.
struct Outcome {
    /// The revision of the source that the keyspace has.
    revision: i64,
    /// The revision of the keyspace then.
    at: Revision,
    source: Sum,
    target: Sum,
    leases: u64,
}

type Tell<'a> = &'a (dyn Fn(Event) + Send + Sync);

/// Carries out `import etcd`.
pub(crate) async fn run(
    args: &ImportEtcdArgs,
    store: &impl Store,
    console: &mut Console,
) -> Result<(), Abort> {
    let before = console.json;
    console.json |= args.json;
    let done = imported(args, store, console).await;
    console.json = before;
    done
}

async fn imported(
    args: &ImportEtcdArgs,
    store: &impl Store,
    console: &mut Console,
) -> Result<(), Abort> {
    let shown = args.source.to_string_lossy().into_owned();
    let name = args.connect.keyspace.as_deref().unwrap_or(KEYSPACE);
    let is_live = shown.starts_with("http://") || shown.starts_with("https://");
    // Faults of the source are found before the keyspace is created.
    let source = if is_live { Some(EtcdSource::open(args, &shown).await?) } else { None };
    let file = match is_live {
        true => None,
        false => Some(file::open(args.source.clone().into(), args.skip_hash_check).await?),
    };
    let target = Target::open(store, name, args.go_on).await?;
    let touched = target.touched.clone();
    let stop = Stop::take()?;
    let (stopped, until_caught_up) = (stop.stopped(), args.until_caught_up);
    let keys = target.client.clone();
    let record = ImportRecord::open(store, &keys).await;
    let record = record.map_err(|problem| touched.told(problem, name))?;
    if !target.is_fresh && !args.overwrite {
        record.check(name, &keys).await?;
    }
    record.begin().await.map_err(|problem| touched.told(problem, name))?;
    let (sender, mut events) = mpsc::unbounded_channel();
    // On its own: a console that does not take what is written to it holds up no import, and the
    // leases are kept alive.
    let mut work = Beside::begin(move || async move {
        // Without a listener nobody needs it.
        let tell = move |event| _ = sender.send(event);
        match (source, file) {
            (Some(source), _) => follow::run(source, target, until_caught_up, stopped, &tell).await,
            (None, Some(file)) => file::run(file, target, &tell).await,
            (None, None) => Err(Problem::failed("there is no source")),
        }
    });
    let mut report = Report::new(console.json);
    let mut said = Ok(());
    let outcome = loop {
        tokio::select! {
            done = work.done() => break done.and_then(|done| done),
            Some(event) = events.recv() => {
                said = report.show(event, console);
                if said.is_err() {
                    break Err(Problem::failed("its output cannot be written"));
                }
            }
            // Members are followed to what they have by then; a file is given up at once.
            signal = stop.given_up(is_live) => break Err(Problem::new(signal.into(), "interrupted")),
        }
    };
    while let (Ok(event), Ok(())) = (events.try_recv(), &said) {
        said = report.show(event, console);
    }
    report.finish();
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(problem) => {
            work.give_up().await;
            record.fail(&keys).await;
            if !touched.is_set() {
                said?;
            }
            return Err(touched
                .told(problem.prefixed(&format!("import of {shown}: ")), name)
                .into());
        }
    };
    let Outcome { source, target, at, .. } = &outcome;
    let recorded = record.end((source == target).then_some(*at)).await;
    // That progress could not be written does not matter once this is.
    result(&outcome, name, is_live, console)?;
    let what = "the import is done, but its end could not be noted, so --continue will ask for \
                --overwrite: ";
    Ok(recorded.map_err(|problem| problem.prefixed(what).with_effect(Effect::Done))?)
}

/// Prints what came out.
fn result(
    outcome: &Outcome,
    name: &str,
    is_live: bool,
    console: &mut Console,
) -> Result<(), Abort> {
    let Outcome { revision, source, target, leases, .. } = outcome;
    let is_equal = source == target;
    let keys = source.keys();
    let mut text = format!(
        "keyspace {name} has {} {} and {} {} of etcd as of revision {revision}\n",
        number(keys),
        plural(keys, "key", "keys"),
        number(*leases),
        plural(*leases, "lease", "leases"),
    );
    text.push_str(&match is_equal {
        true => format!("compared with etcd: equal, hash {source}"),
        false => format!(
            "compared with etcd: DIFFERENT: {} {}, hash {target}, instead of hash {source}",
            number(target.keys()),
            plural(target.keys(), "key", "keys")
        ),
    });
    if is_equal && is_live {
        text.push_str("\npoint the clients to dkv, if nobody has written to etcd since");
    }
    console.changed(&text, || {
        json!({
            "command": "import etcd",
            "keyspace": name,
            "revision": revision,
            "keys": keys,
            "leases": leases,
            "hash": source.to_string(),
            "equal": is_equal,
            "keyspace_keys": target.keys(),
            "keyspace_hash": target.to_string(),
        })
    })?;
    if is_equal { Ok(()) } else { Err(Abort::Reported(Failure::Failed)) }
}

/// Shows how far an import is.
struct Report {
    bar: Option<ProgressBar>,
    json: bool,
    last: Instant,
}

impl Report {
    fn new(json: bool) -> Self {
        let bar = (!json && std::io::stderr().is_terminal()).then(ProgressBar::new_spinner);
        if let Some(bar) = &bar {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Self { bar, json, last: Instant::now() }
    }

    fn show(&mut self, event: Event, console: &mut Console) -> Result<(), Abort> {
        let text = match &event {
            Event::Note(note) => {
                match &self.bar {
                    Some(bar) => bar.suspend(|| console.remark(note)),
                    None => console.remark(note),
                }
                return Ok(());
            }
            Event::Copied(keys) => format!("copied {} keys", number(*keys)),
            Event::Followed { revision, behind } => format!(
                "at revision {revision} of etcd, {} {} behind",
                number(behind.unsigned_abs()),
                plural(behind.unsigned_abs(), "revision", "revisions")
            ),
        };
        if let Some(bar) = &self.bar {
            bar.set_message(text);
        } else if self.json && self.last.elapsed() >= DOCUMENT_EVERY {
            self.last = Instant::now();
            let document = match event {
                Event::Followed { revision, behind } => {
                    json!({ "command": "import etcd", "revision": revision, "behind": behind })
                }
                Event::Copied(keys) => json!({ "command": "import etcd", "copied": keys }),
                Event::Note(_) => return Ok(()),
            };
            console.document(&document)?;
            console.flush()?;
        } else if !self.json && self.last.elapsed() >= REPORT_EVERY {
            self.last = Instant::now();
            console.note(&text);
        }
        Ok(())
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
