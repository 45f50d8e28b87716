//! Data directories that are copied, put back and started twice.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dkv_api::{Client, Role, RunChoice, RunReport, Verdict};
use dkv_console::console::Screen;
use dkv_local::child::Child;
use nix::sys::signal::Signal;

use crate::testbed::Testbed;

/// Time in which it must be noticed.
const NOTICED: Duration = Duration::from_secs(20);
/// Time that a process has to end by itself.
const ENDED: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The coordinator's directory is put back as it was a while ago.
pub(crate) async fn old_copy(
    stage: &mut Testbed,
    time: Duration,
    screen: &mut Screen,
) -> Result<(), String> {
    let name = stage.coordinator().await?;
    let directory = stage.network()?.dir().data(&name);
    let (old, right) = (beside(&directory, "old"), beside(&directory, "right"));
    copy_of(stage, &name, &directory, &old).await?;
    stage.tell(&format!("copied the data directory of {name}, the coordinator"), screen);
    stage.hold(time / 3, screen).await;
    stage.kill(&name).await?;
    let swapped =
        std::fs::rename(&directory, &right).and_then(|()| std::fs::rename(&old, &directory));
    swapped.map_err(|error| format!("cannot put a copy in place: {error}"))?;
    stage.tell(&format!("killed {name}, and put the older copy of its directory back"), screen);
    let mut child = stage.network()?.spawn_in(&name, &directory)?;
    let runs =
        noticed(stage, |runs| runs.iter().any(|run| matches!(run.verdict, Verdict::Older { .. })));
    let noticed = runs.await;
    let has_ended = ends(&mut child).await;
    // Whatever it did, it is not to go on.
    let _ = child.kill().await;
    noticed.map_err(|why| format!("the older copy was not noticed: {why}"))?;
    if !has_ended {
        return Err("the node with the older copy has not ended".into());
    }
    stage.tell(&format!("{name} was told apart, and has ended"), screen);
    stage.hold(time / 3, screen).await;
    let restored =
        std::fs::remove_dir_all(&directory).and_then(|()| std::fs::rename(&right, &directory));
    restored.map_err(|error| format!("cannot put the directory back: {error}"))?;
    stage.start(&name, screen).await?;
    stage.tell(&format!("started {name} on its own directory"), screen);
    stage.live(&name).await
}

/// A copy of the coordinator's directory is started beside it.
pub(crate) async fn clone(
    stage: &mut Testbed,
    time: Duration,
    screen: &mut Screen,
) -> Result<(), String> {
    let name = stage.coordinator().await?;
    let directory = stage.network()?.dir().data(&name);
    let copied = beside(&directory, "clone");
    copy_of(stage, &name, &directory, &copied).await?;
    let mut child = stage.network()?.spawn_in(&name, &copied)?;
    stage.tell(&format!("started a copy of {name}, the coordinator, beside it"), screen);
    let both = |runs: &[RunReport]| {
        let twice = runs.iter().filter(|run| matches!(run.verdict, Verdict::Twice { .. }));
        twice.count() >= 2
    };
    let runs = match noticed(stage, both).await {
        Ok(runs) => runs,
        Err(why) => {
            let _ = child.kill().await;
            return Err(format!("the clone was not noticed: {why}"));
        }
    };
    stage.tell("it was noticed, and neither takes part", screen);
    stage.hold(time, screen).await;
    // The clone was started later.
    let original = runs.iter().min_by_key(|run| run.start).ok_or("there are no runs")?;
    let admin = stage.network()?.connect(Role::Admin).await?;
    let kept = admin.keep_run(original.node, RunChoice::Address(original.address)).await;
    admin.close().await;
    kept.map_err(|error| error.to_string())?;
    stage.tell(&format!("said that {name} at {} goes on", original.address), screen);
    if !ends(&mut child).await {
        let _ = child.kill().await;
        return Err("the clone has not ended".into());
    }
    stage.live(&name).await
}

/// Waits until a process has ended by itself; whether it has.
async fn ends(child: &mut Child) -> bool {
    let begun = Instant::now();
    while child.ended().is_none() {
        if begun.elapsed() >= ENDED {
            return false;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    true
}

/// A place beside a directory.
fn beside(directory: &Path, what: &str) -> PathBuf {
    let mut name = directory.file_name().unwrap_or_default().to_owned();
    name.push(format!("-{what}"));
    directory.with_file_name(name)
}

/// Copies the directory of a node that stands still meanwhile.
async fn copy_of(stage: &Testbed, name: &str, from: &Path, to: &Path) -> Result<(), String> {
    stage.signal(name, Signal::SIGSTOP).await?;
    let (source, target) = (from.to_owned(), to.to_owned());
    let copied = tokio::task::spawn_blocking(move || copy_all(&source, &target)).await;
    stage.signal(name, Signal::SIGCONT).await?;
    copied.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

fn copy_all(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_all(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Waits until the server tells of runs what is expected.
async fn noticed(
    stage: &Testbed,
    expected: impl Fn(&[RunReport]) -> bool,
) -> Result<Vec<RunReport>, String> {
    let client: Client = stage.network()?.connect(Role::Client).await?;
    let begun = Instant::now();
    let found = loop {
        let runs = client.status().await.server.map(|server| server.runs).unwrap_or_default();
        if expected(&runs) {
            break Ok(runs);
        }
        if begun.elapsed() > NOTICED {
            break Err(format!("the server told of {runs:?} in {} s", NOTICED.as_secs()));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    };
    client.close().await;
    found
}
