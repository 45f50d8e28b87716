//! The coordinator's task: it keeps the directory as it should be, and reports the state of the
//! cluster to the registration server.
//!
//! Every node runs this task; it acts only while the node leads the control group. It decides
//! nothing itself: `dkv_state::placement` computes what to change (see
//! [`rebalancer`](crate::cluster::rebalancer)), and a change takes effect only once a quorum has
//! it. So a coordinator that was deposed and has not noticed yet cannot change anything, and the
//! server rejects its reports by their term.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use dkv_base::id::Term;
use dkv_wire::message::{Confirmation, CoordinatorReport, Refusal, ServerAnswer, ServerRequest};
use dkv_wire::network::NodeState;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::cluster::rebalancer::Rebalancer;
use crate::net::server_link::{ServerError, ServerLink};
use crate::node::Node;
use crate::raft::ServerState;
use dkv_state::{Announcement, DirectoryCommand, DirectoryResult};

/// Interval between the coordinator's checks.
const TICK: Duration = Duration::from_millis(100);
/// Interval between reports when nothing has changed.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// One term of leading the control group.
struct CoordinatorTerm {
    term: Term,
    rebalancer: Rebalancer,
}

/// Runs for the life of the node.
pub(crate) async fn run(node: Arc<Node>) {
    let mut coordinator_term: Option<CoordinatorTerm> = None;
    let server = Arc::clone(node.connections().server());
    node.tasks().guard("the task that reports to the server", report(Arc::clone(&node), server));
    let (mut metrics, ticks) = (node.control().metrics(), node.ticks());
    loop {
        let term = node.control().leads().then(|| node.control().term());
        if term != coordinator_term.as_ref().map(|coordinator_term| coordinator_term.term) {
            coordinator_term = term
                .map(|term| CoordinatorTerm { term, rebalancer: Rebalancer::new(Instant::now()) });
            node.coordination().set_rebalancing(false);
            if let Some(CoordinatorTerm { term, .. }) = &coordinator_term {
                info!(%term, "this node is the coordinator");
                node.coordination().set_leader_since(Some(Instant::now()));
            } else {
                node.coordination().set_leader_since(None);
            }
        }
        if let Some(coordinator_term) = &mut coordinator_term
            && act(&node, coordinator_term).await
        {
            // Something has changed, and more may be due at once.
            continue;
        }
        // openraft notifies at every turn of its loop; only a change of leader matters here.
        let another_term = metrics.wait_for(|metrics| {
            let leads = metrics.state == ServerState::Leader;
            leads.then_some(Term(metrics.current_term)) != term
        });
        let has_ended = match &coordinator_term {
            Some(_) => tokio::select! {
                biased;
                ended = another_term => ended.is_err(),
                () = ticks.pause(TICK) => false,
            },
            None => another_term.await.is_err(),
        };
        if has_ended {
            break;
        }
    }
}

/// Takes the next step, if there is one; returns whether it succeeded.
async fn act(node: &Arc<Node>, coordinator_term: &mut CoordinatorTerm) -> bool {
    if node.incarnations().held().is_some() {
        return false;
    }
    if let Some(create) = node.creation() {
        return propose(node, create).await;
    }
    let planned = coordinator_term.rebalancer.next(node);
    match planned {
        Some(command) => propose(node, command).await,
        None => false,
    }
}

async fn propose(node: &Arc<Node>, command: DirectoryCommand) -> bool {
    debug!(?command, "changing the directory");
    match node.change_directory(command).await {
        Ok(DirectoryResult::Done) => true,
        Ok(DirectoryResult::Rejected(why)) => {
            debug!(why, "the directory was not changed");
            false
        }
        Err(error) => {
            debug!(%error, "the directory was not changed");
            false
        }
    }
}

/// Decides how to admit a node that announces itself: as itself, or in place of a node that is gone
/// and had its name.
///
/// From the machine of the old node, `from`, the new one takes the name over as soon as the old one
/// is down: its disk was lost, or it is a container that started again. From elsewhere it waits
/// until the old one would be replaced anyway, or an administrator has removed it: a thief with a
/// token for nodes could otherwise have a node thrown out that is being rebooted.
pub(crate) fn welcome(
    node: &Node,
    announcement: Announcement,
    from: IpAddr,
) -> Result<DirectoryCommand, Refusal> {
    if !node.control().leads() {
        return Err(Refusal::NotPrimary { primary: node.control().leader() });
    }
    let Announcement { id, name, .. } = &announcement;
    let namesake = node.control().state_machine().with_directory(|directory| {
        let mut nodes = directory.nodes().iter();
        let namesake = nodes.find(|(other, member)| *other != id && member.name == *name);
        let (old, member) = namesake?;
        // Without settings there is no network, and nobody who could have the name.
        let replace_after_ms = directory.settings()?.replace_after_ms;
        let is_denied = directory.is_denied((*old).into());
        Some((*old, member.address.ip(), replace_after_ms, is_denied))
    });
    let Some((old, home, replace_after_ms, is_denied)) = namesake.flatten() else {
        return Ok(DirectoryCommand::Announce(announcement));
    };
    // Only a node that has led for a moment can tell which nodes live; any other assumes it.
    let since = node.coordination().leader_since();
    let state = since.and_then(|since| node.states(since).get(&old).copied());
    let silent_ms = since.and_then(|since| node.silence(since).get(&old).copied());
    match state {
        Some(NodeState::Down) => {
            let is_same_machine = home.to_canonical() == from.to_canonical();
            let waits = !is_same_machine && !is_denied;
            match left_to_wait(waits, silent_ms, replace_after_ms) {
                0 => Ok(DirectoryCommand::Supersede { old, new: announcement }),
                wait_ms => Err(Refusal::Invalid(format!(
                    "the name {name} belongs to a node that is down, on another machine; this one \
                     gets it in about {} s, or as soon as an administrator has removed the other: \
                     `dkv remove {old}`. Or choose another with --name",
                    wait_ms.div_ceil(1000)
                ))),
            }
        }
        Some(NodeState::Live) => Err(Refusal::Invalid(format!(
            "the name {name} belongs to another node that is running; choose another with --name"
        ))),
        // Whether the old node is gone is not known yet.
        _ => Err(Refusal::Unavailable(format!(
            "the name {name} belongs to a node that was heard of a moment ago"
        ))),
    }
}

/// Returns for how long a node still `waits` for the name of one that is down, in milliseconds.
fn left_to_wait(waits: bool, silent_ms: Option<u64>, replace_after_ms: u64) -> u64 {
    if waits { replace_after_ms.saturating_sub(silent_ms.unwrap_or_default()) } else { 0 }
}

/// Reports to a server, at once when something has changed and now and then when nothing has.
pub(crate) async fn report(node: Arc<Node>, server: Arc<ServerLink>) {
    let mut told: Option<(CoordinatorReport, Instant)> = None;
    let mut metrics = node.control().metrics();
    loop {
        node.ticks().pause(TICK / 2).await;
        if !node.control().leads() {
            told = None;
            let leads = metrics.wait_for(|metrics| metrics.state == ServerState::Leader);
            if leads.await.is_err() {
                return;
            }
        }
        if node.incarnations().held().is_some() || !node.incarnations().is_vouched_for() {
            // The server would accept the report even of an incarnation that it has not yet
            // confirmed to be sound.
            continue;
        }
        let Some(view) = node.view() else { continue };
        let Some(control) = node.replicas().led_control_group() else { continue };
        let report = CoordinatorReport { term: view.term, view, control };
        let due = match &told {
            Some((last, when)) => *last != report || when.elapsed() >= REPORT_EVERY,
            None => true,
        };
        if !due {
            continue;
        }
        let (first, term) = (told.is_none(), report.term);
        let request = ServerRequest::Report(report.clone());
        match server.ask(&request).await {
            Ok(ServerAnswer::Confirmed(Confirmation::Confirmed)) => {
                if first {
                    info!(%term, "confirmed as coordinator by the server");
                }
                told = Some((report, Instant::now()));
            }
            Ok(ServerAnswer::Confirmed(Confirmation::Outdated { confirmed })) => {
                warn!(own = %term, %confirmed, "the server knows a newer coordinator");
                tokio::time::sleep(REPORT_EVERY).await;
            }
            Ok(_) => warn!("the server gave an unexpected answer"),
            Err(error @ ServerError::Refused(_)) => {
                // The server accepts it once it has learnt of the voters from the nodes that it
                // knows.
                warn!(%error, "the server rejected this coordinator's report");
                tokio::time::sleep(REPORT_EVERY).await;
            }
            Err(error) => {
                debug!(%error, "could not report to the server");
                tokio::time::sleep(REPORT_EVERY / 4).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_goes_to_the_same_machine_at_once_and_to_others_late() {
        assert_eq!(left_to_wait(false, Some(6000), 300_000), 0);
        assert_eq!(left_to_wait(true, Some(6000), 300_000), 294_000);
        assert_eq!(left_to_wait(true, None, 300_000), 300_000);
        assert_eq!(left_to_wait(true, Some(300_000), 300_000), 0);
    }
}
