//! What the coordinator does beside leading: it keeps the directory as it should be, and tells the
//! registration server how everything is.
//!
//! Every node runs this task; it acts only while the node leads the control group. It decides
//! nothing itself: `dkv_state::placement` says what to change (see [`placing`](crate::cluster::rebalancer)), and a
//! change takes effect only once a quorum has it. A coordinator that was deposed and does not know
//! it yet can therefore propose nothing, and what it reports, the server refuses by its term.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dkv_base::id::{NodeId, Term};
use dkv_wire::message::{Confirmation, CoordinatorReport, Refusal, ServerAnswer, ServerRequest};
use dkv_wire::network::NodeState;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::cluster::rebalancer::Placing;
use crate::net::server_link::ServerError;
use crate::node::Node;
use crate::raft::ServerState;
use dkv_state::placement::down_after_ms;
use dkv_state::{Announcement, DirectoryCommand, DirectoryResult};

/// How often the coordinator looks at everything.
const TICK: Duration = Duration::from_millis(100);
/// How often it reports when nothing has changed.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// One term of leading the control group.
struct Reign {
    term: Term,
    placing: Placing,
}

/// Runs for the life of the node.
pub(crate) async fn run(node: Arc<Node>) {
    let mut reign: Option<Reign> = None;
    node.guard("the task that reports to the server", report(Arc::clone(&node)));
    let (mut metrics, rhythm) = (node.control().metrics(), node.rhythm());
    loop {
        let term = node.control().leads().then(|| node.control().term());
        if term != reign.as_ref().map(|reign| reign.term) {
            reign = term.map(|term| Reign { term, placing: Placing::new(Instant::now()) });
            node.set_rebalancing(false);
            if let Some(Reign { term, .. }) = &reign {
                info!(%term, "this node is the coordinator");
                node.set_reign(Some(Instant::now()));
            } else {
                node.set_reign(None);
            }
        }
        if let Some(reign) = &mut reign
            && act(&node, reign).await
        {
            // Something has changed, and more may be due at once.
            continue;
        }
        // openraft speaks up at every turn of its loop; only who leads matters here.
        let another_reign = metrics.wait_for(|metrics| {
            let leads = metrics.state == ServerState::Leader;
            leads.then_some(Term(metrics.current_term)) != term
        });
        let has_ended = match &reign {
            Some(_) => tokio::select! {
                ended = another_reign => ended.is_err(),
                () = rhythm.pause(TICK) => false,
            },
            None => another_reign.await.is_err(),
        };
        if has_ended {
            break;
        }
    }
}

/// Takes the next step, if there is one; tells whether it succeeded.
async fn act(node: &Arc<Node>, reign: &mut Reign) -> bool {
    if node.runs().held().is_some() {
        return false;
    }
    if let Some(create) = node.creation() {
        return propose(node, create).await;
    }
    if node.start_founded_shards().await {
        return false;
    }
    let planned = reign.placing.next(node);
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

/// For each node of the directory, how long it has not been heard of. A node that was never heard
/// of has been silent since the reign began.
pub(crate) fn silence(node: &Node, since: Instant) -> BTreeMap<NodeId, u64> {
    let reign_ms = since.elapsed().as_millis() as u64;
    let heard = node.control().silence();
    let ids = node
        .control()
        .machine()
        .with_directory(|directory| directory.nodes().keys().copied().collect::<Vec<_>>());
    ids.unwrap_or_default()
        .into_iter()
        .map(|id| match heard.get(&id) {
            _ if id == node.id() => (id, 0),
            Some(silent_ms) => (id, *silent_ms),
            None => (id, reign_ms),
        })
        .collect()
}

/// How a node that announces itself is taken in: as itself, or in the place of one that is gone and
/// had its name.
pub(crate) fn welcome(
    node: &Node,
    announcement: Announcement,
) -> Result<DirectoryCommand, Refusal> {
    if !node.control().leads() {
        return Err(Refusal::NotPrimary { primary: node.control().leader() });
    }
    let Announcement { id, name, .. } = &announcement;
    let namesake = node.control().machine().with_directory(|directory| {
        let mut nodes = directory.nodes().iter();
        let namesake = nodes.find(|(other, member)| *other != id && member.name == *name);
        namesake.map(|(other, _)| *other)
    });
    let Some(old) = namesake.flatten() else {
        return Ok(DirectoryCommand::Announce(announcement));
    };
    // Only who has led for a moment knows who lives; everybody else assumes it.
    let state = node.reign().and_then(|since| states(node, since).get(&old).copied());
    match state {
        Some(NodeState::Down | NodeState::Left) => {
            Ok(DirectoryCommand::Supersede { old, new: announcement })
        }
        Some(NodeState::Live) => Err(Refusal::Invalid(format!(
            "the name {name} belongs to another node that is running; choose another with --name"
        ))),
        // It is not known yet whether it is gone.
        _ => Err(Refusal::Unavailable(format!(
            "the name {name} belongs to a node that was heard of a moment ago"
        ))),
    }
}

/// How the nodes seem to this coordinator, for people.
pub(crate) fn states(node: &Node, since: Instant) -> BTreeMap<NodeId, NodeState> {
    let suspect_ms = node.control().live_within_ms();
    let down_ms = down_after_ms(suspect_ms);
    let metrics = node.control().metrics();
    let metrics = metrics.borrow();
    let membership = metrics.membership_config.membership();
    let heard = node.control().silence();
    let members: Vec<NodeId> = membership.nodes().map(|(id, _)| *id).collect();
    let voters: Vec<NodeId> = membership.voter_ids().collect();
    drop(metrics);
    silence(node, since)
        .into_iter()
        .map(|(id, silent_ms)| {
            let joined = id == node.id() || (members.contains(&id) && heard.contains_key(&id));
            // Who votes has joined long ago, whether or not this coordinator has ever heard it.
            let known = joined || voters.contains(&id);
            let state = match silent_ms {
                silent_ms if silent_ms > down_ms => NodeState::Down,
                silent_ms if silent_ms > suspect_ms && known => NodeState::Suspect,
                _ if joined => NodeState::Live,
                _ => NodeState::Joining,
            };
            (id, state)
        })
        .collect()
}

/// Tells the server, at once when something has changed and now and then when nothing has.
async fn report(node: Arc<Node>) {
    let mut told: Option<(CoordinatorReport, Instant)> = None;
    let mut metrics = node.control().metrics();
    loop {
        node.rhythm().pause(TICK / 2).await;
        if !node.control().leads() {
            told = None;
            let leads = metrics.wait_for(|metrics| metrics.state == ServerState::Leader);
            if leads.await.is_err() {
                return;
            }
        }
        if node.runs().held().is_some() || !node.runs().is_vouched_for() {
            // Before the server has said that this run is sound, it would take its word.
            continue;
        }
        let Some(view) = node.view() else { continue };
        let Some(control) = node.led_control_group() else { continue };
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
        match node.server().ask(&request).await {
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
                // It follows once it has heard of the voters from those that it knows.
                warn!(%error, "the server does not take this coordinator's report");
                tokio::time::sleep(REPORT_EVERY).await;
            }
            Err(error) => {
                debug!(%error, "the server was not told");
                tokio::time::sleep(REPORT_EVERY / 4).await;
            }
        }
    }
}
