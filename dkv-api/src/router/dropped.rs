//! Dropped keyspaces: their shards leave the view, and requests about them end.
//!
//! Views come from nodes that may be behind. Keyspaces and shards are taken only from a view of a
//! later revision of the directory than the present one, so a shard that is gone was dropped.

use std::time::Duration;

use dkv_base::id::{GroupId, KeyspaceId};
use dkv_wire::limits::VIEW_REVISIONS_AHEAD_MAX;
use dkv_wire::network::NetworkView;

use super::request::Pending;
use super::{RequestKind, Router};
use crate::error::Error;

impl<W> Router<W> {
    /// Returns whether a request is about a keyspace, or a shard, that the view no longer has.
    pub(super) fn is_of_dropped(&self, pending: &Pending<W>) -> bool {
        let Some(view) = self.view.as_ref().filter(|view| !view.shards.is_empty()) else {
            return false;
        };
        match &pending.kind {
            RequestKind::Control(_) | RequestKind::Direct { .. } | RequestKind::Open { .. } => {
                false
            }
            kind => match kind.shard() {
                Some(shard) => !self.groups.contains_key(&shard),
                None => {
                    let id = pending.keyspace;
                    id != KeyspaceId::DEFAULT && view.shards_of(id).is_empty()
                }
            },
        }
    }

    /// Takes over the keyspaces of the present view into one that shows an older directory.
    pub(super) fn keep_newer_keyspaces(&self, view: &mut NetworkView) {
        let Some(current) = self.view.as_ref().filter(|it| it.revision > view.revision) else {
            return;
        };
        view.revision = current.revision;
        view.keyspaces.clone_from(&current.keyspaces);
        let mut shards = current.shards.clone();
        for shard in &mut shards {
            if let Some(seen) = view.shards.iter().find(|seen| seen.group == shard.group) {
                shard.clone_from(seen);
            }
        }
        view.shards = shards;
    }

    /// Returns whether the revision of a node's view is plausible: an applied one rules out all
    /// earlier ones.
    pub(super) fn has_plausible_revision(&self, view: &NetworkView) -> bool {
        let known = self.view.as_ref().map_or(0, |current| current.revision.0);
        self.view.is_none() || view.revision.0 <= known.saturating_add(VIEW_REVISIONS_AHEAD_MAX)
    }

    /// Forgets the shards that the view no longer has, and ends the requests about them.
    pub(super) fn forget_dropped(&mut self, now: Duration) {
        let Some(view) = &self.view else { return };
        let is_gone = |group: &GroupId| {
            group.is_shard() && !view.shards.iter().any(|shard| shard.group == *group)
        };
        let gone: Vec<GroupId> = self.groups.keys().copied().filter(is_gone).collect();
        for group in gone {
            self.drop_group(now, group);
        }
    }

    /// Forgets a shard, and ends the requests about it.
    fn drop_group(&mut self, now: Duration, group: GroupId) {
        let concerned = self.requests.iter().filter(|(_, pending)| pending.group == Some(group));
        let concerned: Vec<u64> = concerned.map(|(&id, _)| id).collect();
        // The group goes first, so that no request that ends lets the next one start.
        self.groups.remove(&group);
        for id in concerned {
            self.finish(now, id, Err(dropped()));
        }
    }
}

/// The error for a request about a dropped keyspace. The handle fills in the name.
pub(super) fn dropped() -> Error {
    Error::NoKeyspace { name: String::new() }
}
