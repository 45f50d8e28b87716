//! Actions of the prompt on the processes of a local network: kill, stop, pause, start and resume.

use std::io;
use std::time::{Duration, Instant};

use dkv_console::Console;
use dkv_console::problem::{Abort, unreported_change};
use dkv_console::units::duration;
use dkv_local::{LocalNetwork, SERVER};
use nix::sys::signal::Signal;

use super::failover::FailoverWatch;
use crate::grammar::{ProcessAction, ProcessTarget};
use crate::status::Report;

/// Time limit for a process to stop, to start, or to become live again.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Carries out an action.
pub(super) async fn act(
    network: &LocalNetwork,
    action: ProcessAction,
    target: &ProcessTarget,
    console: &mut Console,
) -> Result<(), Abort> {
    match action {
        ProcessAction::Kill | ProcessAction::Stop | ProcessAction::Pause => {
            take_down(network, action, target, console).await
        }
        ProcessAction::Start => start(network, target, console).await,
        ProcessAction::Resume => resume(network, target, console).await,
    }
}

/// Kills, stops or pauses a process, and reports the failover that follows.
async fn take_down(
    network: &LocalNetwork,
    action: ProcessAction,
    target: &ProcessTarget,
    console: &mut Console,
) -> Result<(), Abort> {
    let before = network.report().await;
    let name = resolve(network, target, &before).await?;
    let watch = FailoverWatch::begin(network, &name, &before).await;
    let disturbed = Instant::now();
    let done = {
        let mut children = network.children().await;
        let child = children
            .get_mut(&name)
            .ok_or_else(|| format!("{name} is not running; start {name} starts it"))?;
        match action {
            ProcessAction::Pause => {
                if child.paused {
                    return Err(
                        format!("{name} is already paused; resume {name} resumes it").into()
                    );
                }
                child.signal(Signal::SIGSTOP)?;
                child.paused = true;
                "paused"
            }
            ProcessAction::Stop => {
                // The node hands over meanwhile, so time is measured from the request.
                let in_time = child.stop(TIMEOUT).await;
                children.remove(&name);
                if in_time { "stopped" } else { "killed (it did not stop in time)" }
            }
            _ => {
                child.kill().await?;
                children.remove(&name);
                "killed"
            }
        }
    };
    let role = if watch.was_coordinator() { ", the coordinator" } else { "" };
    tell(&format!("{done} {name}{role}"), console)?;
    if name == SERVER {
        console.line("reads and writes work without it; joining waits for it")?;
        return Ok(());
    }
    watch.tell(disturbed, network, console).await?;
    Ok(())
}

/// Reports an action that was done.
fn tell(text: &str, console: &mut Console) -> io::Result<()> {
    console.line(text).map_err(|error| unreported_change(text, error))
}

async fn start(
    network: &LocalNetwork,
    target: &ProcessTarget,
    console: &mut Console,
) -> Result<(), Abort> {
    let name = target.to_string();
    if !network.names().contains(&name) {
        return Err(unknown(network, &name).await.into());
    }
    // A process that has ended by itself counts as not running.
    for notice in network.notices().await {
        console.note(&notice);
    }
    if network.children().await.contains_key(&name) {
        return Err(format!("{name} is already running").into());
    }
    let started = Instant::now();
    let address = network.launch(&name, TIMEOUT, console).await?;
    let text = format!("started {name} at {address}, ready after {}", duration(started.elapsed()));
    tell(&text, console)?;
    if name != SERVER {
        tell_live(network, &name, started, console).await?;
    }
    Ok(())
}

async fn resume(
    network: &LocalNetwork,
    target: &ProcessTarget,
    console: &mut Console,
) -> Result<(), Abort> {
    let name = target.to_string();
    let resumed = Instant::now();
    {
        let mut children = network.children().await;
        let Some(child) = children.get_mut(&name) else {
            drop(children);
            return Err(unknown(network, &name).await.into());
        };
        if !child.paused {
            return Err(format!("{name} is not paused").into());
        }
        child.signal(Signal::SIGCONT)?;
        child.paused = false;
    }
    tell(&format!("resumed {name}"), console)?;
    if name != SERVER {
        tell_live(network, &name, resumed, console).await?;
    }
    Ok(())
}

async fn tell_live(
    network: &LocalNetwork,
    name: &str,
    since: Instant,
    console: &mut Console,
) -> Result<(), Abort> {
    if network.live(name, TIMEOUT).await {
        console.line(&format!("{name} is live again, after {}", duration(since.elapsed())))?;
        return Ok(());
    }
    Err(format!("{name} is not live after {} s; see status and its log", TIMEOUT.as_secs()).into())
}

/// Returns the name of the target process.
async fn resolve(
    network: &LocalNetwork,
    target: &ProcessTarget,
    report: &Report,
) -> Result<String, Abort> {
    let name = match target {
        ProcessTarget::Named(name) => name.clone(),
        ProcessTarget::Coordinator => match &report.coordinator {
            Some(coordinator) => coordinator.name.clone(),
            None => {
                return Err("there is no coordinator at the moment; see status".to_owned().into());
            }
        },
    };
    if network.names().contains(&name) {
        return Ok(name);
    }
    Err(unknown(network, &name).await.into())
}

async fn unknown(network: &LocalNetwork, name: &str) -> String {
    let names = network.names();
    if names.iter().any(|known| known == name) {
        return format!("{name} is not running; start {name} starts it");
    }
    format!("there is no process {name}; the processes are {}", names.join(", "))
}
