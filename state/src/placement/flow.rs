//! What is on its way: bounds on how much moves at once.
//!
//! A replica that comes is sent by the shard's primary. What goes into one node, and what comes out
//! of one, is bounded by bytes; a shard larger than the bound moves alone.

use std::collections::BTreeMap;

use dkv_base::id::NodeId;

use super::Measured;
use crate::directory::Directory;

/// Bytes that may be on their way into a node, or out of one.
const MOVING_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Replicas that may be.
const MOVING_REPLICAS_MAX: usize = 16;

/// Replicas and bytes on their way.
#[derive(Clone, Copy, Default)]
struct Moving {
    replicas: usize,
    bytes: u64,
}

impl Moving {
    fn takes(self, bytes: u64) -> bool {
        self.replicas == 0
            || self.replicas < MOVING_REPLICAS_MAX
                && self.bytes.saturating_add(bytes) <= MOVING_BYTES_MAX
    }
}

/// What is on its way, by node.
#[derive(Default)]
pub(super) struct Flow {
    into: BTreeMap<NodeId, Moving>,
    out_of: BTreeMap<NodeId, Moving>,
}

impl Flow {
    pub(super) fn new(directory: &Directory, measured: &Measured) -> Self {
        let mut flow = Self::default();
        for (group, actual) in &measured.groups {
            let Some(plan) = directory.groups().get(group).filter(|_| group.is_shard()) else {
                continue;
            };
            for coming in plan.voters.difference(&actual.voters) {
                for moving in [
                    flow.into.entry(*coming).or_default(),
                    flow.out_of.entry(actual.leader).or_default(),
                ] {
                    moving.replicas += 1;
                    moving.bytes = moving.bytes.saturating_add(actual.bytes);
                }
            }
        }
        flow
    }

    /// Whether that much more may be on its way.
    pub(super) fn takes(&self, from: NodeId, to: NodeId, bytes: u64) -> bool {
        let moving = |of: &BTreeMap<NodeId, Moving>, node| of.get(&node).copied();
        moving(&self.into, to).unwrap_or_default().takes(bytes)
            && moving(&self.out_of, from).unwrap_or_default().takes(bytes)
    }
}
