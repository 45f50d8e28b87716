//! Takes back a lease that was granted, or may have been, and that its caller does not get.

use std::time::Duration;

use dkv_base::id::LeaseId;
use tokio::time::Instant;

use super::LeaseKeeper;
use crate::client::Client;
use crate::error::Error;

impl Client {
    /// Ends a lease that the caller does not get, and returns the error for the caller. It waits
    /// until a deadline for that; after that the lease is revoked in the background, or ends after
    /// its time.
    pub(super) async fn undo_grant(&self, lease: LeaseId, why: String, deadline: Instant) -> Error {
        let revoking = match self.lease_shards().await {
            Ok(shards) => self.revoke_in_background(lease, shards),
            Err(error) => return Error::Unknown(format!("lease {lease} may exist: {error}")),
        };
        match tokio::time::timeout_at(deadline, revoking).await {
            Ok(Ok(true)) => Error::Unavailable(why),
            _ => Error::Unknown(format!("lease {lease} may exist until its time is over: {why}")),
        }
    }

    /// Does what [`hold_lease`](Self::hold_lease) does for a recipe. A lease that may exist has no
    /// keys, so nothing of the recipe was done.
    pub(crate) async fn hold_lease_of_recipe(&self, ttl: Duration) -> Result<LeaseKeeper, Error> {
        self.hold_lease(ttl).await.map_err(|error| match error {
            Error::Unknown(why) => Error::Unavailable(why),
            error => error,
        })
    }
}
