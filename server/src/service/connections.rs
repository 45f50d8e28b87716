//! Limits the connections of each certificate holder.

use std::collections::HashMap;
use std::sync::Mutex;

use dkv_base::id::HolderId;

use crate::limits::HOLDER_CONNECTIONS_MAX;
use dkv_base::sync::lock;

/// The number of open connections per holder; holders without any are absent.
#[derive(Default)]
pub(super) struct HolderConnections {
    open: Mutex<HashMap<HolderId, usize>>,
}

/// An open connection of a holder. Dropping it makes room for another one.
pub(super) struct HolderConnection<'a> {
    connections: &'a HolderConnections,
    holder: HolderId,
}

impl HolderConnections {
    /// Counts a new connection. `None` if the holder has as many as it may.
    pub(super) fn open(&self, holder: HolderId) -> Option<HolderConnection<'_>> {
        let mut open = lock(&self.open);
        let count = open.entry(holder).or_default();
        if *count >= HOLDER_CONNECTIONS_MAX {
            return None;
        }
        *count += 1;
        Some(HolderConnection { connections: self, holder })
    }
}

impl Drop for HolderConnection<'_> {
    fn drop(&mut self) {
        let mut open = lock(&self.connections.open);
        let count = open.get_mut(&self.holder);
        debug_assert!(count.is_some(), "every open connection is counted");
        if let Some(count) = count {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.holder);
            }
        }
    }
}
