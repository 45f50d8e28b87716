//! Carries out `backup` and `restore`.

mod progress;

use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dkv_api::Client;
use dkv_backup::{
    Backup, BackupError, CreateOptions, Created, Destination, FollowOptions, Progress,
    PruneOptions, Pruned, RestoreOptions, Restored, Verified,
};
use dkv_console::Console;
use dkv_console::problem::{Abort, Effect, Failure, Problem};
use dkv_console::table::aligned;
use dkv_console::units::{bytes, duration, number, plural, timestamp};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use self::progress::Bar;
use crate::api_problems::{partial_problem, request_problem};
use crate::cli::{BackupAction, RestoreArgs};
use crate::stop::{Beside, Stop};

/// Time between two looks at how old a followed backup is.
const AGE_EVERY: Duration = Duration::from_secs(1);

/// Carries out a subcommand that needs no network.
pub(crate) async fn offline(action: &BackupAction, console: &mut Console) -> Result<(), Abort> {
    // The step restores this.
    console.json |= action.json();
    match action {
        BackupAction::List { destination, .. } => {
            let destination = open(destination, false)?;
            let all = dkv_backup::list(&destination).await.map_err(|error| problem(&error))?;
            console.result(&table(&all, &destination), || {
                let all: Vec<Value> = all.iter().map(object).collect();
                json!({ "command": "backup list", "backups": all })
            })?;
        }
        BackupAction::Show { destination, backup, .. } => {
            let destination = open(destination, false)?;
            let shown = async {
                let name = dkv_backup::find(&destination, backup).await?;
                dkv_backup::show(&destination, &name).await
            };
            let shown = shown.await.map_err(|error| problem(&error))?;
            console.result(&description(&shown), || {
                let mut shown = object(&shown);
                shown["command"] = "backup show".into();
                shown
            })?;
        }
        BackupAction::Verify { destination, backup, .. } => {
            let destination = open(destination, false)?;
            let name = dkv_backup::find(&destination, backup).await;
            let name = name.map_err(|error| problem(&error))?;
            let (tell, events) = channel();
            let work = dkv_backup::verify(&destination, &name, &tell);
            let verified = shown(work, events, "verifying", console).await;
            verified_result(&name, &verified.map_err(|error| problem(&error))?, console)?;
        }
        BackupAction::Prune { destination, keep, dry_run, yes, .. } => {
            let destination = open(destination, false)?;
            let options = PruneOptions { keep: *keep, dry_run: *dry_run, sure: *yes };
            let pruned = dkv_backup::prune(&destination, options).await;
            pruned_result(&pruned.map_err(|error| problem(&error))?, *dry_run, console)?;
        }
        BackupAction::Create { .. } | BackupAction::Follow { .. } => {}
    }
    Ok(())
}

/// Carries out a subcommand of `backup`. `keyspace` is the one that was named.
pub(crate) async fn run(
    action: &BackupAction,
    keyspace: Option<String>,
    client: &Client,
    console: &mut Console,
) -> Result<(), Abort> {
    console.json |= action.json();
    match action {
        BackupAction::Create { destination, since, rate, .. } => {
            let destination = open(destination, true)?;
            let keyspaces = keyspace.into_iter().collect();
            let options = CreateOptions { keyspaces, since: since.clone(), rate: *rate };
            let (tell, events) = channel();
            let work = dkv_backup::create(client, &destination, &options, &tell);
            let created = shown(work, events, "backing up", console).await;
            created_result(&created.map_err(|error| backing_up(&error))?, &destination, console)?;
        }
        BackupAction::Follow { destination, every, base_every, rate, .. } => {
            let destination = open(destination, true)?;
            let keyspaces = keyspace.into_iter().collect();
            let (every, base_every, rate) = (*every, *base_every, *rate);
            let options = FollowOptions { keyspaces, every, base_every, rate };
            follow(client, &destination, &options, console).await?;
        }
        other => return offline(other, console).await,
    }
    Ok(())
}

/// Carries out `restore`.
pub(crate) async fn restore(
    args: &RestoreArgs,
    keyspace: Option<String>,
    client: &Client,
    console: &mut Console,
) -> Result<(), Abort> {
    console.json |= args.json;
    if let Some(name) = &args.drop {
        let dropped = dkv_backup::drop_interrupted(client, name).await;
        dropped.map_err(|error| problem(&error))?;
        let text = format!("what the interrupted restore had left in keyspace {name} was dropped");
        let document = || json!({ "command": "restore", "dropped": name });
        return Ok(console.changed(&text, document)?);
    }
    let destination = open(args.destination.as_deref().unwrap_or_default(), false)?;
    let options = RestoreOptions {
        backup: args.backup.clone(),
        keyspaces: keyspace.into_iter().collect(),
        rename: args.rename.clone(),
        at_ms: args.at,
        rate: args.rate,
    };
    let (tell, mut events) = channel();
    let mut work = std::pin::pin!(dkv_backup::restore(client, &destination, &options, &tell));
    let mut bar = Bar::new("restoring", console.json);
    let mut show = |event, console: &mut Console| match event {
        Progress::Restored(restored) => bar.suspend(|| restored_result(&restored, console)),
        event => {
            bar.show(event, console);
            Ok(())
        }
    };
    // A full disk under its output must not leave a restore half done.
    let mut said = Ok(());
    let done = loop {
        tokio::select! {
            done = &mut work => break done,
            Some(event) = events.recv() => said = said.and_then(|()| show(event, console)),
        }
    };
    while let Ok(event) = events.try_recv() {
        said = said.and_then(|()| show(event, console));
    }
    bar.finish();
    done.map_err(|error| problem(&error))?;
    said
}

/// Follows until Ctrl-C or SIGTERM.
async fn follow(
    client: &Client,
    destination: &Destination,
    options: &FollowOptions,
    console: &mut Console,
) -> Result<(), Abort> {
    let stop = Stop::take()?;
    let (tell, mut events) = channel();
    // On its own: a console that does not take what is written to it holds up no backup.
    let (client, destination, options) = (client.clone(), destination.clone(), options.clone());
    let stopped = stop.stopped();
    let mut work = Beside::begin(move || async move {
        dkv_backup::follow(&client, &destination, &options, stopped, &tell).await
    });
    let mut bar = Bar::new("following", console.json);
    let mut ages = tokio::time::interval(AGE_EVERY);
    ages.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let backup = loop {
        tokio::select! {
            done = work.done() => break done?,
            _ = ages.tick() => bar.age(),
            Some(event) = events.recv() => followed(event, &mut bar, console)?,
            signal = stop.given_up(true) => {
                bar.finish();
                let why = "given up; the last changes may be missing; the same command goes on";
                return Err(Problem::new(signal.into(), why).into());
            }
        }
    };
    while let Ok(event) = events.try_recv() {
        followed(event, &mut bar, console)?;
    }
    let (through, without) = bar.reach().through();
    let through = through.map_or_else(String::new, |ms| format!(" through {}", timestamp(ms)));
    let without = match without.as_slice() {
        [] => String::new(),
        names => format!(", but of {} only what it had before", names.join(", ")),
    };
    bar.finish();
    let backup = backup.map_err(|error| backing_up(&error))?;
    if !console.json {
        console.note(&format!(
            "{backup} has everything{through}{without}; run the same command to go on"
        ));
    }
    Ok(())
}

/// Shows how far a keyspace is followed: as a document, or in the bar.
fn followed(event: Progress, bar: &mut Bar, console: &mut Console) -> io::Result<()> {
    match event {
        Progress::Followed { keyspace, through_ms, changes, bytes } if console.json => {
            console.document(&json!({
                "command": "backup follow",
                "keyspace": keyspace,
                "through_at_ms": through_ms,
                "behind_ms": now_ms().saturating_sub(through_ms),
                "changes": changes,
                "written_bytes": bytes,
            }))?;
            console.flush()
        }
        event => {
            bar.show(event, console);
            Ok(())
        }
    }
}

fn channel() -> (impl Fn(Progress) + Send + Sync, mpsc::UnboundedReceiver<Progress>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    // Without a listener nobody needs it.
    (move |event| _ = sender.send(event), receiver)
}

/// Completes some work while a bar shows how far it is.
async fn shown<T>(
    work: impl Future<Output = T>,
    mut events: mpsc::UnboundedReceiver<Progress>,
    doing: &'static str,
    console: &mut Console,
) -> T {
    let mut work = std::pin::pin!(work);
    let mut bar = Bar::new(doing, console.json);
    let done = loop {
        tokio::select! {
            done = &mut work => break done,
            Some(event) = events.recv() => bar.show(event, console),
        }
    };
    while let Ok(event) = events.try_recv() {
        bar.show(event, console);
    }
    bar.finish();
    done
}

fn open(destination: &str, create: bool) -> Result<Destination, Problem> {
    Destination::open(destination, create).map_err(|error| problem(&error))
}

/// Explains why a backup was not made.
fn backing_up(error: &BackupError) -> Problem {
    match error {
        BackupError::Network { what, source } => {
            let stays = "; what was written is kept: run the same command again";
            partial_problem(source).prefixed(&format!("{what}: ")).followed(stays)
        }
        error => problem(error),
    }
}

/// Explains a failure.
fn problem(error: &BackupError) -> Problem {
    match error {
        BackupError::NotFound(_) => Problem::new(Failure::NotFound, error.to_string()),
        BackupError::Refused(_) | BackupError::Taken(_) => {
            Problem::new(Failure::Conflict, error.to_string())
        }
        BackupError::Network { what, source } => {
            request_problem(source).prefixed(&format!("{what}: "))
        }
        BackupError::Partly { source, stays } => {
            let partly = match &**source {
                BackupError::Network { what, source } => {
                    partial_problem(source).prefixed(&format!("{what}: "))
                }
                source => problem(source),
            };
            partly.followed(&format!("; {stays}")).with_effect(Effect::Partly)
        }
        error => Problem::failed(error.to_string()),
    }
}

fn created_result(
    created: &Created,
    destination: &Destination,
    console: &mut Console,
) -> Result<(), Abort> {
    let Created { backup, kind, resumed, keyspaces, records, data_bytes, stored_bytes, .. } =
        created;
    let moments: Vec<String> = keyspaces
        .iter()
        .map(|(name, ms)| format!("\n  {name}  as of {}", timestamp(*ms)))
        .collect();
    let text = format!(
        "backup {backup} is complete ({}): {} {}, {}, {} in {}{}",
        kind.word(),
        number(*records),
        plural(*records, "record", "records"),
        bytes(*data_bytes),
        bytes(*stored_bytes),
        destination.shown(),
        moments.concat()
    );
    console.result(&text, || {
        let keyspaces: Vec<Value> = keyspaces
            .iter()
            .map(|(name, ms)| json!({ "name": name, "moment_at_ms": ms }))
            .collect();
        json!({
            "command": "backup create",
            "backup": backup,
            "kind": kind.word(),
            "resumed": resumed,
            "keyspaces": keyspaces,
            "records": records,
            "data_bytes": data_bytes,
            "stored_bytes": stored_bytes,
        })
    })?;
    Ok(())
}

fn verified_result(name: &str, verified: &Verified, console: &mut Console) -> Result<(), Abort> {
    let Verified { chunks, bytes: read, records, problems, .. } = verified;
    for problem in problems {
        console.problem(&Problem::failed(problem.clone()));
    }
    let all = if problems.is_empty() { "nothing is wrong" } else { "it is damaged" };
    let text = format!(
        "read {} {} of backup {name}, {}, {} records: {all}",
        number(*chunks),
        plural(*chunks, "chunk", "chunks"),
        bytes(*read),
        number(*records)
    );
    console.result(&text, || {
        json!({
            "command": "backup verify",
            "backup": name,
            "chunks": chunks,
            "stored_bytes": read,
            "records": records,
            "problems": problems,
        })
    })?;
    if problems.is_empty() { Ok(()) } else { Err(Abort::Reported(Failure::Failed)) }
}

fn pruned_result(pruned: &Pruned, dry_run: bool, console: &mut Console) -> Result<(), Abort> {
    let Pruned { backups, chunks, bytes: freed, needed, before_ms, .. } = pruned;
    let would = if dry_run { "would remove" } else { "removed" };
    let mut text = format!(
        "{would} {} {} and {} {} of followed ones, {}{}",
        backups.len(),
        plural(backups.len() as u64, "backup", "backups"),
        number(*chunks),
        plural(*chunks, "chunk", "chunks"),
        bytes(*freed),
        before_ms.map(|ms| format!(", from before {}", timestamp(ms))).unwrap_or_default()
    );
    backups.iter().for_each(|name| text.push_str(&format!("\n  {name}")));
    for name in needed {
        text.push_str(&format!("\n  {name} stays: a later one goes on from it"));
    }
    let document = || {
        json!({
            "command": "backup prune",
            "dry_run": dry_run,
            "before_at_ms": before_ms,
            "backups": backups,
            "chunks": chunks,
            "freed_bytes": freed,
            "needed": needed,
        })
    };
    Ok(console.result(&text, document)?)
}

fn restored_result(restored: &Restored, console: &mut Console) -> Result<(), Abort> {
    let Restored { backup, keyspace, restored_as, at_ms, keys, leases, expired, hash, .. } =
        restored;
    let of = if keyspace == restored_as {
        String::new()
    } else {
        format!(" (in the backup {keyspace})")
    };
    let gone = match expired {
        0 => String::new(),
        expired => format!("; {} of the keys have expired since", number(*expired)),
    };
    let text = format!(
        "restored keyspace {restored_as}{of} from backup {backup} as of {}: {} {}, {}, {} {}\n\
         compared with the backup: equal, hash {hash}{gone}",
        timestamp(*at_ms),
        number(*keys),
        plural(*keys, "key", "keys"),
        bytes(restored.bytes),
        number(*leases),
        plural(*leases, "lease", "leases")
    );
    let document = || {
        json!({
            "command": "restore",
            "backup": backup,
            "keyspace": keyspace,
            "restored_as": restored_as,
            "moment_at_ms": at_ms,
            "keys": keys,
            "data_bytes": restored.bytes,
            "leases": leases,
            "expired": expired,
            "hash": hash,
            "resumed": restored.resumed,
        })
    };
    Ok(console.changed(&text, document)?)
}

/// Returns a backup as a JSON object.
fn object(backup: &Backup) -> Value {
    let keyspaces: Vec<Value> = backup
        .keyspaces
        .iter()
        .map(|it| {
            json!({
                "name": it.name,
                "from_at_ms": it.from_ms,
                "through_at_ms": it.through_ms,
                "chunks": it.chunks,
                "stored_bytes": it.stored_bytes,
            })
        })
        .collect();
    json!({
        "name": backup.name,
        "kind": backup.kind.word(),
        "network": backup.network.to_string(),
        "begun_at_ms": backup.begun_ms,
        "complete": backup.complete,
        "fault": backup.fault,
        "parent": backup.parent,
        "all_keyspaces": backup.all,
        "keyspaces": keyspaces,
        "stored_bytes": backup.stored_bytes,
    })
}

fn state(backup: &Backup) -> &'static str {
    match (&backup.fault, backup.complete) {
        (Some(_), _) => "damaged",
        (None, true) => "complete",
        (None, false) => "unfinished",
    }
}

fn table(all: &[Backup], destination: &Destination) -> String {
    if all.is_empty() {
        return format!("there are no backups in {}", destination.shown());
    }
    let mut rows = vec![["BACKUP", "KIND", "STATE", "THROUGH", "SIZE", "AFTER"].map(str::to_owned)];
    for backup in all {
        let through = backup.keyspaces.iter().filter_map(|it| it.through_ms).max();
        rows.push([
            backup.name.clone(),
            backup.kind.word().to_owned(),
            state(backup).to_owned(),
            through.map_or_else(|| "-".to_owned(), timestamp),
            bytes(backup.stored_bytes),
            backup.parent.clone().unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    aligned(&rows)
}

fn description(backup: &Backup) -> String {
    let mut rows = vec![["KEYSPACE", "FROM", "THROUGH", "CHUNKS", "SIZE"].map(str::to_owned)];
    let time = |ms: Option<u64>| ms.map_or_else(|| "-".to_owned(), timestamp);
    for it in &backup.keyspaces {
        rows.push([
            it.name.clone(),
            time(it.from_ms),
            time(it.through_ms),
            number(it.chunks),
            bytes(it.stored_bytes),
        ]);
    }
    let after =
        backup.parent.as_ref().map_or_else(String::new, |parent| format!(", after {parent}"));
    format!(
        "backup       {}\nkind         {}{after}\nstate        {}\nnetwork      {}\nbegun        \
         {}\nsize         {}\n\n{}",
        backup.name,
        backup.kind.word(),
        state(backup),
        backup.network,
        timestamp(backup.begun_ms),
        bytes(backup.stored_bytes),
        aligned(&rows)
    )
}

/// Returns the time in milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Returns how long ago a moment was.
fn ago(ms: u64) -> String {
    duration(Duration::from_millis(now_ms().saturating_sub(ms)))
}
