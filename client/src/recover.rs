//! `dkv recover`: makes a network that has lost majorities of its groups go on, offline.
//!
//! The node's crate finds and decides; this module converses with the operator.

mod text;

use std::collections::BTreeSet;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use dkv_base::durable;
use dkv_console::Console;
use dkv_console::problem::{Abort, Effect, Problem};
use dkv_daemon::recovery::{self, Options, RecoveryError, Report};
use serde_json::{Value, json};

use crate::cli::{Addresses, RecoverAction, RecoverArgs, RecoverGroupArgs, default_addresses};
use crate::exit::{failure_of, finished};
use crate::run;

/// Carries out `recover`.
pub(crate) async fn run(
    args: &RecoverArgs,
    address: Option<Addresses>,
    console: &mut Console,
) -> ExitCode {
    let RecoverAction::Group(args) = &args.action;
    let done = group(args, address, console).await;
    let done = run::report(done, console).map(failure_of);
    finished(console, done)
}

async fn group(
    args: &RecoverGroupArgs,
    address: Option<Addresses>,
    console: &mut Console,
) -> Result<(), Abort> {
    durable::keep_files_private();
    let addresses = address.or_else(|| default_addresses().ok());
    let options = Options {
        directories: args.directories.clone(),
        servers: addresses.map(|addresses| addresses.0).unwrap_or_default(),
        server_lost: args.server_lost,
        gone: args.gone.clone(),
        empty_shards: args.empty_shards,
        stale_shards: args.stale_shards,
    };
    console.note("reading the data directories, and looking for signs of life of the lost nodes");
    let survey = recovery::survey(&options).await.map_err(|error| problem(&error))?;
    if !console.json {
        console.line(&text::plan(survey.report()))?;
    }
    confirm(survey.report(), args.yes, console).await?;
    let file = report_file(args, survey.report());
    write(&file, survey.report())?;
    let report = survey.carry_out().await.map_err(|error| problem(&error))?;
    write(&file, &report)?;
    Ok(console.changed(&text::done(&report, &file), || document(&report, &file))?)
}

/// Has the operator confirm that the other nodes are lost.
async fn confirm(report: &Report, yes: bool, console: &mut Console) -> Result<(), Problem> {
    let lost: BTreeSet<&str> = report.missing.iter().map(|node| node.name.as_str()).collect();
    let names = lost.iter().copied().collect::<Vec<_>>().join(" ");
    // To take back what was begun, or to say that it is finished, loses nothing.
    if yes || report.groups.is_empty() {
        return Ok(());
    }
    if !io::stdin().is_terminal() || console.json {
        return Err(Problem::usage(format!(
            "nothing was changed; once you are sure that these nodes are lost for good, repeat the \
             command with --yes: {names}"
        )));
    }
    console.note(&format!(
        "this removes the lost nodes for good; nobody can undo it. Type their names to confirm: \
         {names}"
    ));
    let read = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        io::stdin().read_line(&mut line).map(|_| line)
    });
    let read = read.await.unwrap_or_else(|_| Ok(String::new()));
    let typed =
        read.map_err(|error| Problem::failed(format!("cannot read the answer: {error}")))?;
    let typed: BTreeSet<&str> = typed.split([' ', ',', '\t', '\r', '\n']).collect();
    if typed.iter().copied().filter(|name| !name.is_empty()).collect::<BTreeSet<_>>() == lost {
        return Ok(());
    }
    Err(Problem::usage(format!("these are not the names {names}, so nothing was changed")))
}

fn report_file(args: &RecoverGroupArgs, report: &Report) -> PathBuf {
    let name = format!("recovery-{}.json", report.at_ms);
    let first = args.directories.first().map_or(Path::new("."), PathBuf::as_path);
    args.report.clone().unwrap_or_else(|| first.join(name))
}

/// Writes the report, first of what will be done and then of what was done.
fn write(file: &Path, report: &Report) -> Result<(), Problem> {
    let text = serde_json::to_vec_pretty(report).map_err(io::Error::other);
    let written = text.and_then(|text| durable::write(file, &text));
    written.map_err(|error| {
        let effect = if report.done { Effect::Done } else { Effect::None };
        let file = file.display();
        Problem::failed(format!("cannot write the report {file}: {error}")).with_effect(effect)
    })
}

fn document(report: &Report, file: &Path) -> Value {
    let mut document = serde_json::to_value(report).unwrap_or_default();
    document["command"] = "recover group".into();
    document["report"] = json!(file);
    document
}

fn problem(error: &RecoveryError) -> Problem {
    let problem = Problem::failed(error.to_string());
    if error.has_effect() { problem.with_effect(Effect::Unknown) } else { problem }
}
