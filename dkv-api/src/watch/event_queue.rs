//! Merges what the shards show into one sequence of events, and keeps the token.
//!
//! Plain data. The changes of a shard stay in their order; the order between shards is that in
//! which they came. The token of a shard moves once the last change of a revision was handed out,
//! so it never names a part of a revision.

use std::collections::VecDeque;

use dkv_base::id::{GroupId, Revision};
use dkv_wire::message::{Change, Version};

use super::{KeyChange, WatchEvent, WatchPage, WatchToken};

/// Everything that a shard shows from one revision through another.
#[derive(Debug)]
pub(super) struct Shown<P> {
    pub(super) shard: GroupId,
    pub(super) changes: Vec<Change>,
    pub(super) through: Revision,
    /// Reserves the memory, until the last change is handed out.
    pub(super) permit: P,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct EventQueue<P> {
    token: WatchToken,
    /// The changes that are being handed out, through this revision.
    current: Option<(GroupId, VecDeque<Change>, Revision, P)>,
}

impl<P> EventQueue<P> {
    pub(super) fn new(token: WatchToken) -> Self {
        Self { token, current: None }
    }

    pub(super) fn token(&self) -> &WatchToken {
        &self.token
    }

    /// Adds what a shard has shown. Must only be called when [`pop`](Self::pop) returns nothing.
    pub(super) fn push(&mut self, shown: Shown<P>) {
        debug_assert!(self.current.is_none());
        let Shown { shard, changes, through, permit } = shown;
        self.current = Some((shard, changes.into(), through, permit));
    }

    /// Returns everything that was pushed and not handed out yet.
    pub(super) fn take(&mut self) -> Option<(WatchPage, P)> {
        let (shard, changes, through, permit) = self.current.take()?;
        self.token.advance(shard, through);
        let changes = changes.into_iter().map(|change| key_change(shard, change)).collect();
        Some((WatchPage { shard, changes, through }, permit))
    }

    /// Returns the next event.
    pub(super) fn pop(&mut self) -> Option<WatchEvent> {
        let (shard, changes, through, _) = self.current.as_mut()?;
        let (shard, through) = (*shard, *through);
        let event = match changes.pop_front() {
            Some(change) => WatchEvent::Change(Box::new(key_change(shard, change))),
            None => WatchEvent::Progress { shard, revision: through },
        };
        let next = changes.front().map(|change| change.version.revision);
        match (&event, next) {
            (WatchEvent::Change(change), Some(next)) => {
                if change.revision < next {
                    self.token.advance(shard, change.revision);
                }
            }
            (_, None) | (WatchEvent::Progress { .. }, _) => {
                self.token.advance(shard, through);
                self.current = None;
            }
        }
        Some(event)
    }
}

fn key_change(shard: GroupId, change: Change) -> KeyChange {
    let Change { key, version, previous } = change;
    let Version { revision, created, version, stamp, value, lease, expiry } = version;
    KeyChange { shard, key, value, revision, created, version, stamp, lease, expiry, previous }
}
