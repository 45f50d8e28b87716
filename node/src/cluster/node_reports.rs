//! Reports of the nodes to the coordinator: which replicas a node has, and the state of the groups
//! that it leads.
//!
//! Every node runs this task. It sends a change that concerns members at once, and the rest every
//! second. A coordinator keeps the last report of each node for a while, and derives from all of
//! them the input of placement decisions. Reports are not stored on disk: the next coordinator
//! receives them anew.

use std::sync::Arc;
use std::time::Duration;

use dkv_base::id::{GroupId, NodeId, Revision};
use dkv_wire::message::{LedGroup, Measures, RequestBody};
use tokio::time::Instant;
use tracing::debug;

use crate::net::rpc;
use crate::node::Node;

/// Interval at which a node checks whether there is a change to report.
const TICK: Duration = Duration::from_millis(50);
/// The same interval for a node that votes in no group, and so will not lead one soon.
const TICK_FOLLOWING: Duration = Duration::from_millis(250);
/// Interval between reports when nothing urgent has changed.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// Time that the coordinator has to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Runs for the life of the node.
pub(crate) async fn run(node: Arc<Node>) {
    let mut told: Option<(ReportDigest, Instant)> = None;
    loop {
        let every = if node.replicas().only_follows() { TICK_FOLLOWING } else { TICK };
        node.ticks().pause(every).await;
        let Some(coordinator) = node.control().leader() else { continue };
        // The coordinator inspects its own state when it decides.
        if coordinator == node.id() {
            told = None;
            continue;
        }
        let mut measures = node.holdings();
        let now = ReportDigest::of(coordinator, &measures);
        let due = told.as_ref().is_none_or(|(before, when)| {
            *before != now || when.elapsed() >= TELL_EVERY || measures.is_changing()
        });
        if !due {
            continue;
        }
        measures.free_bytes = node.store().free_bytes();
        let body = RequestBody::Measures(Box::new(measures));
        match rpc::tell(node.peers(), coordinator, body, PATIENCE).await {
            Ok(()) => told = Some((now, Instant::now())),
            Err(error) => debug!(%error, "could not report this node's load to the coordinator"),
        }
    }
}

/// The part of a report whose changes the node sends at once.
#[derive(PartialEq, Eq)]
struct ReportDigest {
    coordinator: NodeId,
    holds: Vec<GroupId>,
    /// Without sizes and positions, which change all the time.
    leads: Vec<LedGroup>,
    keeps_writes: bool,
    directory: Revision,
}

impl ReportDigest {
    fn of(coordinator: NodeId, measures: &Measures) -> Self {
        let mut leads = measures.leads.clone();
        for led in &mut leads {
            (led.bytes, led.last_index) = (0, 0);
            led.members.iter_mut().for_each(|member| member.matched_index = 0);
        }
        let Measures { holds, keeps_writes, directory, .. } = measures;
        let (keeps_writes, directory) = (*keeps_writes, *directory);
        Self { coordinator, holds: holds.clone(), leads, keeps_writes, directory }
    }
}

/// Whether a change is under way whose progress people want to see.
trait Changing {
    fn is_changing(&self) -> bool;
}

impl Changing for Measures {
    fn is_changing(&self) -> bool {
        self.leads.iter().any(|led| led.group.is_shard() && !led.learners.is_empty())
    }
}
