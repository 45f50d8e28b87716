//! What is done to a network, and how it is undone.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use dkv_api::Role;
use dkv_console::console::Screen;
use dkv_local::SERVER;
use dkv_local::node_name;
use nix::sys::signal::Signal;

use crate::directory_copies;
use crate::disk_stall::DiskStall;
use crate::fault::Fault;
use crate::intruder;
use crate::testbed::Testbed;

/// A stalled disk is given up after 1.25 s with the settings of a new network.
const STALL_LEAST: Duration = Duration::from_secs(4);
/// Time that a removed node has to be gone.
const REMOVAL: Duration = Duration::from_secs(30);

/// Every fault that is done to a network of its own.
pub const LOCAL: [Fault; 11] = [
    Fault::CoordinatorKill,
    Fault::Pause,
    Fault::Partition,
    Fault::DiskStall,
    Fault::DiskFull,
    Fault::ClockJump,
    Fault::RestartAll,
    Fault::Churn,
    Fault::Intruder,
    Fault::Clone,
    Fault::OldCopy,
];

/// Does it for about that long, and undoes it.
///
/// # Errors
/// Why it could not be done, or why the network was not whole again afterwards; in one line.
pub(crate) async fn inject(
    fault: Fault,
    stage: &mut Testbed,
    nodes: u16,
    time: Duration,
    screen: &mut Screen,
) -> Result<(), String> {
    match fault {
        Fault::CoordinatorKill => {
            let name = stage.coordinator().await?;
            stage.kill(&name).await?;
            stage.tell(&format!("killed {name}, the coordinator"), screen);
            stage.hold(time, screen).await;
            stage.start(&name, screen).await?;
            stage.tell(&format!("started {name} again"), screen);
            stage.live(&name).await
        }
        Fault::Pause => {
            let name = stage.coordinator().await?;
            stage.signal(&name, Signal::SIGSTOP).await?;
            stage.tell(&format!("paused {name}, the coordinator"), screen);
            stage.hold(time, screen).await;
            stage.signal(&name, Signal::SIGCONT).await?;
            stage.tell(&format!("let {name} go on"), screen);
            stage.live(&name).await
        }
        Fault::Partition => {
            let name = stage.coordinator().await?;
            let relays = stage.environment.relays.as_ref().ok_or("there are no relays")?;
            relays.isolate(&name);
            stage.tell(&format!("cut {name}, the coordinator, off from the other nodes"), screen);
            stage.hold(time, screen).await;
            stage.environment.relays.iter().for_each(crate::relay::Relays::heal);
            stage.tell("joined the network again", screen);
            stage.live(&name).await
        }
        Fault::DiskStall => {
            let name = stage.coordinator().await?;
            let stall = DiskStall::begin(stage.process(&name).await?).await?;
            stage.tell(&format!("stalled the disk of {name}, the coordinator"), screen);
            stage.hold(time.max(STALL_LEAST), screen).await;
            drop(stall);
            stage.tell(&format!("the disk of {name} goes on"), screen);
            stage.live(&name).await
        }
        Fault::DiskFull => {
            let name = stage.coordinator().await?;
            // As the node sees it: the disk is in its own mount namespace.
            let eyes = PathBuf::from(format!("/proc/{}/root", stage.process(&name).await?));
            let directory = stage.network()?.dir().data(&name);
            let inside = directory.strip_prefix("/").unwrap_or(&directory);
            let filling = eyes.join(inside).join("filling");
            stage.tell(&format!("filling the disk of {name}, the coordinator"), screen);
            fill(filling.clone()).await?;
            stage.hold(time, screen).await;
            std::fs::remove_file(&filling).map_err(|error| error.to_string())?;
            stage.tell(&format!("made room on the disk of {name}"), screen);
            stage.live(&name).await
        }
        Fault::ClockJump => {
            let name = stage.coordinator().await?;
            let others: Vec<String> =
                stage.names(nodes).into_iter().filter(|other| *other != name).collect();
            stage.environment.set_clock(&name, 45)?;
            others.iter().try_for_each(|other| stage.environment.set_clock(other, -45))?;
            stage.tell(&format!("set {name} 45 min ahead and all others 45 min back"), screen);
            stage.hold(time / 2, screen).await;
            stage.kill(&name).await?;
            stage.tell(&format!("killed {name}, the coordinator"), screen);
            stage.hold(time / 2, screen).await;
            stage.names(nodes).iter().try_for_each(|each| stage.environment.set_clock(each, 0))?;
            stage.tell("set all clocks right", screen);
            stage.start(&name, screen).await?;
            stage.live(&name).await
        }
        Fault::RestartAll => restart_all(stage, nodes, screen).await,
        Fault::Churn => churn(stage, nodes, screen).await,
        Fault::Intruder => intruder::attack(stage, time, screen).await,
        Fault::Clone => directory_copies::clone(stage, time, screen).await,
        Fault::OldCopy => directory_copies::old_copy(stage, time, screen).await,
        Fault::ByHand => {
            stage.tell("your turn: inject the fault now", screen);
            stage.hold(time, screen).await;
            stage.tell("stop injecting faults now", screen);
            Ok(())
        }
        Fault::All => Err("all is many drills".into()),
    }
}

async fn fill(file: PathBuf) -> Result<(), String> {
    let filling = move || -> Result<(), String> {
        let mut file = File::create(&file).map_err(|error| error.to_string())?;
        while file.write_all(&[1; 64 * 1024]).is_ok() {}
        Ok(())
    };
    tokio::task::spawn_blocking(filling).await.map_err(|error| error.to_string())?
}

async fn restart_all(stage: &mut Testbed, nodes: u16, screen: &mut Screen) -> Result<(), String> {
    let names = stage.names(nodes);
    for name in names.iter().chain([&SERVER.to_owned()]) {
        stage.kill(name).await?;
    }
    stage.tell("killed all nodes and the server", screen);
    stage.start(SERVER, screen).await?;
    for name in &names {
        stage.start(name, screen).await?;
    }
    stage.tell("all are started again", screen);
    for name in &names {
        stage.live(name).await?;
    }
    Ok(())
}

async fn churn(stage: &mut Testbed, nodes: u16, screen: &mut Screen) -> Result<(), String> {
    let count = nodes.min(2);
    for number in nodes + 1..=nodes + count {
        let name = node_name(number);
        stage.start(&name, screen).await?;
        stage.live(&name).await?;
        stage.tell(&format!("added {name}"), screen);
    }
    let admin = stage.network()?.connect(Role::Admin).await?;
    // The first nodes, which lead and vote, so that others have to take over.
    for name in stage.names(count) {
        let report = stage.report().await;
        let node = report.nodes.iter().find(|node| node.name == name);
        let id = node.ok_or_else(|| format!("{name} is not known"))?.id;
        admin.remove_node(id).await.map_err(|error| format!("{name}: {error}"))?;
        let gone = async {
            while admin.refresh().await.is_ok_and(|view| view.node(id).is_some()) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let gone = tokio::time::timeout(REMOVAL, gone).await;
        gone.map_err(|_| format!("{name} is not gone after {} s", REMOVAL.as_secs()))?;
        stage.tell(&format!("removed {name} for good"), screen);
        // It stops by itself; nobody waits for it.
        stage.kill(&name).await?;
    }
    admin.close().await;
    Ok(())
}
