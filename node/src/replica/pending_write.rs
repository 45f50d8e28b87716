//! A command on its way into a batch.

use bytes::Bytes;
use dkv_base::id::HolderId;
use tokio::time::Instant;

use crate::net::reply::ReplyTo;
use crate::replica::backlog::Place;

/// A validated command that waits for its batch.
pub(crate) struct PendingWrite {
    pub(crate) command: Bytes,
    /// The holder that sent it.
    pub(crate) holder: HolderId,
    pub(crate) expires: Instant,
    pub(crate) reply: ReplyTo,
    /// Its place in the backlog, assigned by the group.
    pub(crate) place: Place,
}
