//! A rate-limited log of refused messages of nodes and their senders, for the operator. Denied
//! requests are in the [audit log](dkv_base::audit).

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use dkv_base::id::{HolderId, NodeId};
use dkv_base::log_limit::LogLimit;
use dkv_base::sync::lock;
use dkv_wire::identity::Identity;
use tracing::warn;

/// Senders that are tracked at a time; refusals of further senders are not logged.
const SENDERS_MAX: usize = 64;

/// Recent refusals by sender. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct DenialLog {
    /// Nodes of the directory, now or before.
    known: Arc<Mutex<BTreeSet<NodeId>>>,
    nodes: Arc<Mutex<LogLimit<HolderId>>>,
    /// Other nodes and holders. Apart, because a token makes as many as its bearer likes: they hide
    /// no node of the directory.
    others: Arc<Mutex<LogLimit<HolderId>>>,
}

impl Default for DenialLog {
    fn default() -> Self {
        let limit = || Arc::new(Mutex::new(LogLimit::new(SENDERS_MAX)));
        Self { known: Arc::default(), nodes: limit(), others: limit() }
    }
}

impl DenialLog {
    /// Notes that a node is one of the directory.
    pub(crate) fn know(&self, node: NodeId) {
        lock(&self.known).insert(node);
    }

    fn count(&self, sender: NodeId) -> Option<u64> {
        let is_known = lock(&self.known).contains(&sender);
        let limit = if is_known { &self.nodes } else { &self.others };
        lock(limit).note(sender.into(), now())
    }

    /// Notes that something from `sender` was refused.
    pub(crate) fn note(&self, sender: NodeId, why: &str) {
        if let Some(untold) = self.count(sender) {
            warn!(from = %sender, why, before = untold, "refused what a node sent");
        }
    }

    /// Notes that a holder spoke as a node that it is not.
    pub(crate) fn note_impostor(&self, by: Identity, claimed: NodeId) {
        if let Some(untold) = lock(&self.others).note(by.holder, now()) {
            warn!(identity = %by, ?claimed, before = untold, "refused to speak Raft");
        }
    }
}

/// The time as the simulation has it, too.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_of_strangers_hides_no_node_of_the_directory() {
        let log = DenialLog::default();
        let node = NodeId::random();
        log.know(node);
        let told = (0..10 * SENDERS_MAX).filter(|_| log.count(NodeId::random()).is_some()).count();
        assert_eq!(told, SENDERS_MAX);
        assert_eq!(log.clone().count(node), Some(0));
        assert_eq!(log.count(node), None);
    }
}
