//! Injects faults into a network and undoes them.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use dkv_api::Role;
use dkv_console::Console;
use dkv_local::SERVER;
use dkv_local::node_name;
use nix::sys::signal::Signal;

use crate::directory_copies;
use crate::disk_stall::DiskStall;
use crate::error::{DrillError, Obstacle, Violation};
use crate::fault::Fault;
use crate::intruder;
use crate::testbed::Testbed;

/// With the settings of a new network, a node gives up on a stalled disk after 1.25 s.
const STALL_LEAST: Duration = Duration::from_secs(4);
/// Time in which a removed node must have left the network.
const REMOVAL: Duration = Duration::from_secs(30);

/// Every fault that a drill injects into a temporary network.
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

/// Injects a fault for about `time`, and undoes it.
///
/// # Errors
/// The fault could not be injected, or the network has not recovered.
pub(crate) async fn inject(
    fault: Fault,
    testbed: &mut Testbed,
    nodes: u16,
    time: Duration,
    console: &mut Console,
) -> Result<(), DrillError> {
    match fault {
        Fault::CoordinatorKill => {
            let name = testbed.coordinator().await?;
            testbed.kill(&name).await?;
            testbed.record(&format!("killed {name}, the coordinator"), console);
            testbed.work_for(time, console).await;
            testbed.start(&name, console).await?;
            testbed.record(&format!("started {name} again"), console);
            testbed.wait_live(&name).await
        }
        Fault::Pause => {
            let name = testbed.coordinator().await?;
            testbed.signal(&name, Signal::SIGSTOP).await?;
            testbed.record(&format!("paused {name}, the coordinator"), console);
            testbed.work_for(time, console).await;
            testbed.signal(&name, Signal::SIGCONT).await?;
            testbed.record(&format!("resumed {name}"), console);
            testbed.wait_live(&name).await
        }
        Fault::Partition => {
            let name = testbed.coordinator().await?;
            let relays = testbed.environment.relays.as_ref().ok_or(Obstacle::NoRelays)?;
            relays.isolate(&name);
            testbed
                .record(&format!("cut {name}, the coordinator, off from the other nodes"), console);
            testbed.work_for(time, console).await;
            testbed.environment.relays.iter().for_each(crate::relay::Relays::heal);
            testbed.record("reconnected it", console);
            testbed.wait_live(&name).await
        }
        Fault::DiskStall => {
            let name = testbed.coordinator().await?;
            let stall = DiskStall::begin(testbed.process(&name).await?).await?;
            testbed.record(&format!("stalled the disk of {name}, the coordinator"), console);
            testbed.work_for(time.max(STALL_LEAST), console).await;
            drop(stall);
            testbed.record(&format!("the disk of {name} works again"), console);
            testbed.wait_live(&name).await
        }
        Fault::DiskFull => {
            let name = testbed.coordinator().await?;
            // The small disk is in the mount namespace of the node.
            let node_root = PathBuf::from(format!("/proc/{}/root", testbed.process(&name).await?));
            let directory = testbed.network()?.dir().data(&name);
            let inside = directory.strip_prefix("/").unwrap_or(&directory);
            let filler = node_root.join(inside).join("filler");
            testbed.record(&format!("filling the disk of {name}, the coordinator"), console);
            fill(filler.clone()).await?;
            testbed.work_for(time, console).await;
            std::fs::remove_file(&filler)
                .map_err(Obstacle::file(format!("cannot remove {}", filler.display())))?;
            testbed.record(&format!("freed space on the disk of {name}"), console);
            testbed.wait_live(&name).await
        }
        Fault::ClockJump => {
            let name = testbed.coordinator().await?;
            let others: Vec<String> =
                testbed.names(nodes).into_iter().filter(|other| *other != name).collect();
            testbed.environment.set_clock(&name, 45)?;
            others.iter().try_for_each(|other| testbed.environment.set_clock(other, -45))?;
            testbed.record(
                &format!("set the clock of {name} 45 min ahead and all others 45 min back"),
                console,
            );
            testbed.work_for(time / 2, console).await;
            testbed.kill(&name).await?;
            testbed.record(&format!("killed {name}, the coordinator"), console);
            testbed.work_for(time / 2, console).await;
            testbed
                .names(nodes)
                .iter()
                .try_for_each(|each| testbed.environment.set_clock(each, 0))?;
            testbed.record("corrected all clocks", console);
            testbed.start(&name, console).await?;
            testbed.wait_live(&name).await
        }
        Fault::RestartAll => restart_all(testbed, nodes, console).await,
        Fault::Churn => churn(testbed, nodes, console).await,
        Fault::Intruder => intruder::attack(testbed, time, console).await,
        Fault::Clone => directory_copies::clone(testbed, time, console).await,
        Fault::OldCopy => directory_copies::old_copy(testbed, time, console).await,
        Fault::ByHand => {
            testbed.record("your turn: inject the fault now", console);
            testbed.work_for(time, console).await;
            testbed.record("stop injecting faults now", console);
            Ok(())
        }
        Fault::All => Err(Obstacle::NotSingle.into()),
    }
}

async fn fill(path: PathBuf) -> Result<(), Obstacle> {
    let filling = move || -> Result<(), Obstacle> {
        let mut file = File::create(&path)
            .map_err(Obstacle::file(format!("cannot create {}", path.display())))?;
        while file.write_all(&[1; 64 * 1024]).is_ok() {}
        Ok(())
    };
    tokio::task::spawn_blocking(filling).await.map_err(|_| Obstacle::Task)?
}

async fn restart_all(
    testbed: &mut Testbed,
    nodes: u16,
    console: &mut Console,
) -> Result<(), DrillError> {
    let names = testbed.names(nodes);
    for name in names.iter().chain([&SERVER.to_owned()]) {
        testbed.kill(name).await?;
    }
    testbed.record("killed all nodes and the server", console);
    testbed.start(SERVER, console).await?;
    for name in &names {
        testbed.start(name, console).await?;
    }
    testbed.record("restarted all of them", console);
    for name in &names {
        testbed.wait_live(name).await?;
    }
    Ok(())
}

async fn churn(testbed: &mut Testbed, nodes: u16, console: &mut Console) -> Result<(), DrillError> {
    let count = nodes.min(2);
    for number in nodes + 1..=nodes + count {
        let name = node_name(number);
        testbed.start(&name, console).await?;
        testbed.wait_live(&name).await?;
        testbed.record(&format!("added {name}"), console);
    }
    let admin = testbed.network()?.connect(Role::Admin).await?;
    // The first nodes lead and vote, so removing them forces others to take over.
    for name in testbed.names(count) {
        let report = testbed.report().await;
        let node = report.nodes.iter().find(|node| node.name == name);
        let id = node.ok_or_else(|| Violation::UnknownNode(name.clone()))?.id;
        let removed = admin.remove_node(id).await;
        removed.map_err(|source| DrillError::Removal { node: name.clone(), source })?;
        let gone = async {
            while admin.refresh().await.is_ok_and(|view| view.node(id).is_some()) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let gone = tokio::time::timeout(REMOVAL, gone).await;
        if gone.is_err() {
            return Err(Violation::NotRemoved { name, seconds: REMOVAL.as_secs() }.into());
        }
        testbed.record(&format!("removed {name} for good"), console);
        // It stops by itself, but the drill need not wait for that.
        testbed.kill(&name).await?;
    }
    admin.close().await;
    Ok(())
}
