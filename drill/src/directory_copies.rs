//! Faults with copies of data directories: an old copy in place of the current one, and two
//! processes on copies of one directory.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dkv_api::{Client, NetworkStatus, Role, RunChoice, RunReport, Verdict};
use dkv_base::durable;
use dkv_console::Console;
use dkv_local::child::Child;
use nix::sys::signal::Signal;

use crate::error::{DrillError, Obstacle, Violation};
use crate::testbed::Testbed;

/// Time in which the network must detect the copy.
const DETECTION_TIMEOUT: Duration = Duration::from_secs(20);
/// Time that a process has to exit by itself.
const EXIT_TIMEOUT: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Puts an older copy of the coordinator's data directory in place of the current one.
pub(crate) async fn old_copy(
    testbed: &mut Testbed,
    time: Duration,
    console: &mut Console,
) -> Result<(), DrillError> {
    let name = testbed.coordinator().await?;
    let directory = testbed.network()?.dir().data(&name);
    let (old, right) = (beside(&directory, "old"), beside(&directory, "right"));
    copy_of(testbed, &name, &directory, &old).await?;
    testbed.record(&format!("copied the data directory of {name}, the coordinator"), console);
    testbed.work_for(time / 3, console).await;
    testbed.kill(&name).await?;
    let swapped =
        std::fs::rename(&directory, &right).and_then(|()| std::fs::rename(&old, &directory));
    swapped.map_err(Obstacle::file("cannot put a copy in place".to_owned()))?;
    testbed
        .record(&format!("killed {name} and replaced its directory with the older copy"), console);
    let mut child = testbed.network()?.spawn_in(&name, &directory)?;
    let noticed = wait_for(testbed, "the older copy", |status| {
        let mut nodes = status.nodes.iter().filter(|(node, _)| node.name == name);
        let is_refused = nodes.any(|(_, status)| {
            let notes = status.as_ref().map(|status| &status.notes[..]).unwrap_or_default();
            notes.iter().any(|note| note.contains("is an older copy"))
        });
        is_refused || has_older(runs(status))
    });
    let noticed = noticed.await;
    // A server that had not heard how far the log was knows of no newer one, so the node stays, and
    // takes no part.
    let is_to_exit = noticed.as_ref().is_ok_and(|runs| has_older(runs));
    let has_ended = is_to_exit && exits(&mut child).await;
    // It must not go on, whatever it did.
    let _ = child.kill().await;
    noticed?;
    if is_to_exit && !has_ended {
        return Err(Violation::NotExited("the node with the older copy").into());
    }
    let what = if has_ended { "exited" } else { "took no part" };
    testbed.record(&format!("the older copy was detected, and {name} {what}"), console);
    testbed.work_for(time / 3, console).await;
    let restored =
        std::fs::remove_dir_all(&directory).and_then(|()| std::fs::rename(&right, &directory));
    restored.map_err(Obstacle::file("cannot put the directory back".to_owned()))?;
    testbed.start(&name, console).await?;
    testbed.record(&format!("started {name} on its current directory"), console);
    testbed.wait_live(&name).await
}

/// Starts a second process on a copy of the coordinator's data directory.
pub(crate) async fn clone(
    testbed: &mut Testbed,
    time: Duration,
    console: &mut Console,
) -> Result<(), DrillError> {
    let name = testbed.coordinator().await?;
    let directory = testbed.network()?.dir().data(&name);
    let copied = beside(&directory, "clone");
    copy_of(testbed, &name, &directory, &copied).await?;
    let mut child = testbed.network()?.spawn_in(&name, &copied)?;
    testbed.record(&format!("started a copy of {name}, the coordinator, beside it"), console);
    let both = |status: &NetworkStatus| {
        let is_twice = |run: &&RunReport| matches!(run.verdict, Verdict::Twice { .. });
        runs(status).iter().filter(is_twice).count() >= 2
    };
    let runs = match wait_for(testbed, "the clone", both).await {
        Ok(runs) => runs,
        Err(error) => {
            let _ = child.kill().await;
            return Err(error);
        }
    };
    testbed.record("the clone was detected, and neither process takes part", console);
    testbed.work_for(time, console).await;
    // The original was started before the clone.
    let original = runs.iter().min_by_key(|run| run.start).ok_or(Obstacle::NoRun)?;
    let admin = testbed.network()?.connect(Role::Admin).await?;
    let kept = admin.keep_run(original.node, RunChoice::Address(original.address)).await;
    admin.close().await;
    kept?;
    testbed.record(&format!("told the network to keep {name} at {}", original.address), console);
    if !exits(&mut child).await {
        let _ = child.kill().await;
        return Err(Violation::NotExited("the clone").into());
    }
    testbed.wait_live(&name).await
}

/// Waits until a process exits by itself. Returns whether it did.
async fn exits(child: &mut Child) -> bool {
    let begun = Instant::now();
    while child.ended().is_none() {
        if begun.elapsed() >= EXIT_TIMEOUT {
            return false;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    true
}

/// Returns the path of a sibling of a directory.
fn beside(directory: &Path, what: &str) -> PathBuf {
    let mut name = directory.file_name().unwrap_or_default().to_owned();
    name.push(format!("-{what}"));
    directory.with_file_name(name)
}

/// Copies the data directory of a node, which is paused meanwhile.
async fn copy_of(testbed: &Testbed, name: &str, from: &Path, to: &Path) -> Result<(), DrillError> {
    testbed.signal(name, Signal::SIGSTOP).await?;
    let (source, target) = (from.to_owned(), to.to_owned());
    let copied = tokio::task::spawn_blocking(move || durable::copy_dir(&source, &target)).await;
    testbed.signal(name, Signal::SIGCONT).await?;
    let refused = Obstacle::file(format!("cannot copy {}", from.display()));
    Ok(copied.map_err(|_| Obstacle::Task)?.map_err(refused)?)
}

/// The runs that the server knows of.
fn runs(status: &NetworkStatus) -> &[RunReport] {
    status.server.as_ref().map(|server| &server.runs[..]).unwrap_or_default()
}

fn has_older(runs: &[RunReport]) -> bool {
    runs.iter().any(|run| matches!(run.verdict, Verdict::Older { .. }))
}

/// Waits until the status is as expected, and returns the runs that the server knows of.
async fn wait_for(
    testbed: &Testbed,
    copy: &'static str,
    expected: impl Fn(&NetworkStatus) -> bool,
) -> Result<Vec<RunReport>, DrillError> {
    let client: Client = testbed.network()?.connect(Role::Client).await?;
    let begun = Instant::now();
    let found = loop {
        let status = client.status().await;
        let runs = runs(&status).to_vec();
        if expected(&status) {
            break Ok(runs);
        }
        if begun.elapsed() > DETECTION_TIMEOUT {
            let seconds = DETECTION_TIMEOUT.as_secs();
            break Err(Violation::Undetected { copy, seconds, runs }.into());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    };
    client.close().await;
    found
}
