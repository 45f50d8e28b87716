//! Limits on the transfers of replicas that are in progress at once.
//!
//! The primary of a shard sends each new replica its data. The bytes going into one node, and those
//! going out of one, are bounded; a shard larger than the bound moves alone.

use std::collections::BTreeMap;

use dkv_base::id::NodeId;

use super::Measured;
use crate::directory::Directory;

/// Bytes that may be in transfer into a node, or out of one.
const MOVING_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Replicas that may be in transfer into a node, or out of one.
const MOVING_REPLICAS_MAX: usize = 16;

/// Replicas and bytes in transfer.
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

/// The transfers in progress, by node.
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

    /// Returns whether a transfer of this many bytes may start.
    pub(super) fn takes(&self, from: NodeId, to: NodeId, bytes: u64) -> bool {
        let moving = |of: &BTreeMap<NodeId, Moving>, node| of.get(&node).copied();
        moving(&self.into, to).unwrap_or_default().takes(bytes)
            && moving(&self.out_of, from).unwrap_or_default().takes(bytes)
    }
}
